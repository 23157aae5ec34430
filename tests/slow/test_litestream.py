"""Litestream follows the database while sessions come in; after kill -9 of both, what it has and the bodies are a whole server."""

import shutil
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path

from client import call, command, hail_file, new_event, new_session, running_server
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
                    if call(port, "POST", path, body, key=key, Content_Type="application/jsonl", seconds=20).status not in (200, 201):
                        return
                self.acknowledged.append((time.monotonic(), name))
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
            time.sleep(8)
            self.assertIsNone(follower.poll())
            killed = time.monotonic()
            follower.kill()
            server.kill()
            for writer in writers:
                writer.join()
        shutil.copytree(self.data / "bodies", self.restored / "bodies")
        done = self.litestream("restore", "-config", str(self.settings), "-o", str(self.restored / "opensession.db"), str(self.data / "opensession.db"))
        self.assertEqual((done.communicate()[1], done.returncode)[1], 0)
        checked = command(self.folder / "restored", "check", "--read-data")
        self.assertEqual(checked.code, 0, checked)
        early = {name for at, name in self.acknowledged if at < killed - 4}     # it follows a second behind, or two on a busy machine
        self.assertGreater(len(early), 3)
        with running_server(self.folder / "restored", OPENSESSION_LOG="warn") as server:
            for name in early:
                answer = call(server.port, "POST", f"/api/sessions/{name}/events", b"", key=key, Content_Type="application/jsonl")
                self.assertEqual((answer.status, answer.json.get("event_count")), (200, 21), name)


if __name__ == "__main__":
    unittest.main()
