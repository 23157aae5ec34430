"""A migration that is killed before any of its statements leaves the old database or the new one, with all it held.

`make migrate-test N=20` says before how many of them; the fast form here does a few."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import unittest

import opensession
from client import SERVER
from figures import reached, size
from test_operations import OperationsCase

MOMENTS = size("migrate-test")


class KilledMigrations(OperationsCase):
    def migrate(self, folder, at):
        """Run `migrate`, killed before its at-th statement: (exit code, statements that it came to)."""
        code = textwrap.dedent(f"""
            import os, signal, sys
            sys.path[:0] = {[str(SERVER.parent), *sys.path]!r}
            import opensession
            connect, seen = opensession.connect, []
            def traced(path):
                def count(sql):
                    seen.append(sql)
                    print(len(seen), flush=True)
                    if len(seen) == {at}:
                        os.kill(os.getpid(), signal.SIGKILL)
                connection = connect(path)
                connection.set_trace_callback(count)
                return connection
            opensession.connect = traced
            opensession.main(["migrate"])
        """)
        environ = {"PATH": os.environ["PATH"], "OPENSESSION_DATA_DIR": str(folder / "data")}
        done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True)
        return done.returncode, sum(line.isdigit() for line in done.stdout.splitlines())

    def test_it_is_old_or_new_and_goes_on_from_there(self):
        raws = [self.ada.get(f"/api/sessions/{session_id}/raw").body for session_id in self.sessions]
        self.make_first()
        whole = self.folder / "whole"
        shutil.copytree(self.data, whole / "data")
        code, statements = self.migrate(whole, 0)
        self.assertEqual(code, 0)
        versions = []
        for moment in range(MOMENTS):
            at = 1 + moment * (statements - 1) // max(1, MOMENTS - 1)
            folder = self.folder / f"killed{at}"
            shutil.copytree(self.data, folder / "data")
            self.assertEqual(self.migrate(folder, at)[0], -signal.SIGKILL)
            versions.append(opensession.schema_version(folder / "data/opensession.db"))
            self.assertEqual(self.migrate(folder, 0)[0], 0)
            self.check_grown(folder, raws)
            shutil.rmtree(folder)
        self.assertEqual(set(versions), {1, opensession.SCHEMA_VERSION})
        reached("migrate-test", f"{MOMENTS} of {MOMENTS} migrations killed at one of {statements} statements: "
              f"{versions.count(1)} were old, {len(versions) - versions.count(1)} new, none between; all grew and held all")

    def check_grown(self, folder, raws):
        opensession.configure({"OPENSESSION_DATA_DIR": str(folder / "data")})
        lock = opensession.open_data_dir()
        try:
            self.assertEqual([self.ada.get(f"/api/sessions/{session_id}/raw").body for session_id in self.sessions], raws)
            self.assertEqual(self.rows("PRAGMA integrity_check"), [{"integrity_check": "ok"}])
            self.assertEqual(self.rows("SELECT sum(stored_bytes) AS bytes, sum(stored_sessions) AS n FROM teams"),
                             self.rows("SELECT sum(file_bytes) AS bytes, count(*) AS n FROM sessions"))
        finally:
            opensession.db._connection().close()
            lock.close()


if __name__ == "__main__":
    unittest.main()
