"""A disk that fills up under a real server: only 201 and 507, reading goes on, and it stores again when there is room."""

import os
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

from client import PATIENCE, call, eventually, hail_file, new_event, new_session, running_server
from figures import reached, size


class FullDisk(unittest.TestCase):
    def setUp(self):
        self.disk = Path(self.enterContext(tempfile.TemporaryDirectory()))
        try:
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", self.disk], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            self.skipTest("no right to mount a small disk")
        self.addCleanup(subprocess.run, ["umount", "-l", self.disk], check=True)

    def call(self, method, path, body=None):
        return call(self.server.port, method, path, body, key=self.key, Content_Type="application/jsonl")

    def upload(self, name, kilobytes):
        """The status that an upload gets; its events do not compress."""
        events = [new_event(text=os.urandom(512 * kilobytes // 10).hex()) for _ in range(10)]
        return self.call("POST", "/api/sessions", hail_file(new_session(name, events=events)))

    def test_full_and_freed_as_often_as_one_likes(self):
        rounds, counts = size("diskfull"), {}
        with running_server(self.disk, OPENSESSION_LOG="warn", OPENSESSION_RESERVE_MB="0") as self.server:
            self.key = None
            answer = call(self.server.port, "POST", "/api/register", b'{"nickname":"ada"}', Content_Type="application/json")
            self.key = answer.json["api_key"]
            for number in range(rounds):
                (self.disk / "ballast").write_bytes(bytes(2 << 20))
                self.fill(number, counts)
                self.free()
            self.server.terminate()
            _, log = self.server.communicate(timeout=PATIENCE)
        self.assertEqual(set(counts), {201, 507})
        self.assertNotIn("Traceback", log)
        reached("diskfull", f"{rounds} times filled and freed: {counts[201]} x 201, {counts[507]} x 507, nothing else; "
                            "all stored sessions whole")

    def fill(self, round_number, counts):
        """Upload small and large sessions until nothing fits any more."""
        answers = []
        while [answer.status for answer in answers[-6:]] != [507] * 6 and len(answers) < 150:
            answers.append(self.upload(f"{round_number}-{len(answers)}", [1500, 600, 3000][len(answers) % 3]))
            counts[answers[-1].status] = counts.get(answers[-1].status, 0) + 1
        self.assertEqual([answer.status for answer in answers[-6:]], [507] * 6)
        self.assertTrue(all(answer.json["error"] for answer in answers if answer.status == 507))
        stored = self.call("GET", "/api/sessions?per_page=100").json["sessions"]
        self.assertGreater(len(stored), 2)
        for session in stored:
            for path in ("raw", "events?limit=10"):
                answer = self.call("GET", f"/api/sessions/{session['id']}/{path}")
                self.assertEqual((answer.status, len(answer.body)), (200, int(answer.headers["Content-Length"])))
        self.assertEqual(self.call("GET", "/api/health").status, 200)

    def free(self):
        """Make a little room, as deleting takes some; then delete all but one session."""
        (self.disk / "ballast").unlink()
        for session in self.call("GET", "/api/sessions?per_page=100").json["sessions"][1:]:
            self.assertEqual(self.call("DELETE", f"/api/sessions/{session['id']}").status, 204)
        # The search index follows, and only then bodies go.
        self.assertTrue(eventually(lambda: shutil.disk_usage(self.disk).free > 6 << 20))


if __name__ == "__main__":
    unittest.main()
