"""A server whose clock is set back, and two servers on one data directory."""

import json
import tempfile
import time
import unittest
from pathlib import Path

from client import PATIENCE, call, hail_file, new_session, running_server, server_process
from figures import reached
from stored import logged_server

HOOKED = Path(__file__).with_name("hooked_server.py")


class Clock(unittest.TestCase):
    def test_a_clock_that_is_set_back_makes_pulling_miss_nothing(self):
        self.folder, self.key = Path(self.enterContext(tempfile.TemporaryDirectory())), None
        self.set_clock(0)
        with logged_server(self.folder, self.folder / "control", program=HOOKED) as self.server:
            me = self.call("POST", "/api/register", b'{"nickname":"ada"}', "application/json")
            self.key, pull, cursor = me["api_key"], f"/api/sync/pull?team_id={me['team_id']}&limit=3", ""
            sent, pulled, times = [], [], []
            for hour in (0, -1, -2, 5, -24 * 400, 0, 24 * 400, -1):
                self.set_clock(hour * 3600)
                new = [hail_file(new_session(f"{hour}-{number}-{len(sent)}")) for number in range(4)]
                sent += [self.call("POST", "/api/sessions", session)["id"] for session in new]
                while (page := self.call("GET", f"{pull}&since={cursor}"))["sessions"]:
                    pulled += [session["id"] for session in page["sessions"]]
                    times += [session["uploaded_at"] for session in page["sessions"]]
                    cursor = page["next_cursor"]
            self.assertNotIn("Traceback", self.server.log.read_text())
        self.assertEqual(pulled, sent)
        self.assertNotEqual(times, sorted(times))       # or the clock was not moved at all
        reached("clock", f"{len(sent)} sessions while the clock jumped between -400 and +400 days: each pulled once, in order")

    def set_clock(self, seconds):
        (self.folder / "order").write_text(json.dumps({"clock": seconds}))
        (self.folder / "order").replace(self.folder / "control")

    def call(self, method, path, body=None, kind="application/jsonl"):
        answer = call(self.server.port, method, path, body, key=self.key, Content_Type=kind)
        self.assertLess(answer.status, 300, answer)
        return answer.json


class TwoServers(unittest.TestCase):
    def test_the_second_one_says_so_and_ends_at_once(self):
        folder = self.enterContext(tempfile.TemporaryDirectory())
        with running_server(folder, OPENSESSION_LOG="warn") as first:
            refused, idle = [], []
            while len(refused) < 4 or min(refused) > 4 * min(idle) and len(refused) < 50:       # whatever else this machine has to do
                code, said, seconds = self.run_to_its_end(folder)
                self.assertEqual(code, 3, said)
                self.assertIn("already serves", said)
                refused.append(seconds)
                idle.append(self.run_to_its_end(folder, "--version")[2])
            self.assertEqual(call(first.port, "GET", "/api/health").status, 200)
        reached("clock", f"a second server on the same data: exit code 3 within {min(refused):.2f} s; --version takes {min(idle):.2f} s")
        self.assertLess(min(refused), 4 * min(idle))

    def run_to_its_end(self, folder, *arguments):
        """(exit code, last words, seconds) of another server on the same data."""
        started = time.monotonic()
        process = server_process(folder, *arguments, PORT="0")
        _, said = process.communicate(timeout=PATIENCE)
        return process.returncode, said, time.monotonic() - started



if __name__ == "__main__":
    unittest.main()
