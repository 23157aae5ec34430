"""Litestream follows the database while sessions come in; after kill -9 of both, what it has and the bodies are a whole server."""

import contextlib
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import unittest
from pathlib import Path

from client import call, command, eventually, hail_file, new_event, new_session, running_server
from test_deploy import UNITS

LITESTREAM = shutil.which("litestream", path=str(Path(sys.executable).parent)) or shutil.which("litestream")


@unittest.skipUnless(LITESTREAM, "litestream is not installed (requirements-dev.txt has it)")
class Litestream(unittest.TestCase):
    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.data, self.restored = self.folder / "data", self.folder / "restored/data"
        settings = (UNITS / "litestream.yml").read_text()
        settings = settings.replace("/var/lib/opensession/", f"{self.data}/").replace("/mnt/backup/opensession", str(self.folder / "replica"))
        self.settings = self.folder / "litestream.yml"
        self.settings.write_text(settings)
        self.acknowledged = []

    def litestream(self, *arguments):
        return subprocess.Popen([LITESTREAM, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def followed(self, names, target):
        """Whether what Litestream has by now holds these sessions whole."""
        done = self.litestream("restore", "-config", str(self.settings), "-o", str(target), str(self.data / "opensession.db"))
        if done.communicate()[1] is None or done.returncode:
            return False
        with contextlib.closing(sqlite3.connect(target)) as copy:
            there = {name for name, in copy.execute("SELECT hail_id FROM sessions WHERE event_count = 21")}
        for path in target.parent.glob(f"{target.name}*"):
            path.unlink()
        return names <= there

    def upload_until_gone(self, port, key, writer):
        """Upload and grow sessions; write down what was acknowledged, and when."""
        number = 0
        while True:
            number += 1
            name = f"{writer}-{number}"
            events = [new_event(text=f"{name} " * 400, at=at) for at in range(20)]
            grown = hail_file(new_session(name, events=[new_event(text="grown", at=30)])).splitlines(keepends=True)[1]
            try:
                for path, body in (("/api/sessions", hail_file(new_session(name, events=events))), (f"/api/sessions/{name}/events", grown)):
                    if call(port, "POST", path, body, key=key, Content_Type="application/jsonl").status not in (200, 201):
                        return
                self.acknowledged.append(name)
            except Exception:
                return

    def test_what_was_followed_is_restored_whole(self):
        with running_server(self.folder, OPENSESSION_LOG="warn") as server:
            key = call(server.port, "POST", "/api/register", b'{"nickname":"ada"}', Content_Type="application/json").json["api_key"]
            follower = self.litestream("replicate", "-config", str(self.settings))
            self.addCleanup(follower.wait)
            self.addCleanup(follower.kill)
            writers = [threading.Thread(target=self.upload_until_gone, args=[server.port, key, number]) for number in range(3)]
            for writer in writers:
                writer.start()
            self.assertTrue(eventually(lambda: len(self.acknowledged) > 20))
            early = set(self.acknowledged)          # it follows some seconds behind
            self.assertTrue(eventually(lambda: self.followed(early, self.folder / "looked-at.db")))
            self.assertIsNone(follower.poll())
            follower.kill()
            server.kill()
            for writer in writers:
                writer.join()
        shutil.copytree(self.data / "bodies", self.restored / "bodies")
        done = self.litestream("restore", "-config", str(self.settings), "-o", str(self.restored / "opensession.db"), str(self.data / "opensession.db"))
        self.assertEqual((done.communicate()[1], done.returncode)[1], 0)
        checked = command(self.folder / "restored", "check", "--read-data")
        self.assertEqual(checked.code, 0, checked)
        with running_server(self.folder / "restored", OPENSESSION_LOG="warn") as server:
            for name in early:
                answer = call(server.port, "POST", f"/api/sessions/{name}/events", b"", key=key, Content_Type="application/jsonl")
                self.assertEqual((answer.status, answer.json.get("event_count")), (200, 21), name)


if __name__ == "__main__":
    unittest.main()
