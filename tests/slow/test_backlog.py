"""A first start on a laptop with years of sessions, a server that is away for long, and one huge file: all of it
arrives, none of it twice, and memory stays small."""

import re
import subprocess
import sys
import time
import unittest

from figures import reached, size
from client import PATIENCE
from laptop import DAEMON, Laptop, Server, Transcript, clean_environment, eventually

MIB = 1 << 20
# Runs the daemon's command and tells the most memory that it ever had (getrusage would count what started it, too).
WITH_PEAK = """
import re, runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    print("peak", int(re.search("VmHWM: *([0-9]+)", open("/proc/self/status").read().replace("\\t", " "))[1]) << 10, file=sys.stderr)
"""


class Backlog(unittest.TestCase):
    def setUp(self):
        self.server = Server()
        self.addCleanup(self.server.remove)
        self.laptop = Laptop(self.server)
        self.addCleanup(self.laptop.remove)
        self.count = size("backlog")

    def once(self):
        """(peak of memory in MB, uploads) of one pass, which must end well."""
        before = len(self.server.uploads())
        done = subprocess.run([sys.executable, "-c", WITH_PEAK, DAEMON, "once"], env=clean_environment(HOME=str(self.laptop.home)),
                              capture_output=True, text=True, cwd=self.laptop.home)
        self.assertEqual(done.returncode, 0, done.stderr[-2000:])
        return int(re.search(r"peak (\d+)", done.stderr)[1]) / MIB, len(self.server.uploads()) - before

    def write(self, number, turns):
        transcript = Transcript(self.laptop, project=f"-project-{number % 50}").prompt(f"Session {number}")
        for turn in range(turns):
            transcript.reply(f"Turn {turn}. " + "word " * 400)
        return transcript

    def test_a_first_start_with_many_sessions(self):
        for number in range(self.count):
            self.write(number, 5)
        started = time.monotonic()
        peak, uploads = self.once()
        seconds = time.monotonic() - started
        again, more = self.once()
        self.assertEqual((uploads, more), (self.count, 0))
        self.assertEqual(self.total(), self.count)
        reached("backlog", f"{self.count:,} sessions in {seconds:.0f} s: peak {peak:.0f} MB, "
                           f"a second run sends {more} (peak {again:.0f} MB)")
        self.assertLess(max(peak, again), 100)

    def total(self):
        """How many sessions the server has, counted one by one."""
        count, cursor = 0, ""
        while cursor is not None:
            page = self.server.call("GET", f"/api/sessions?per_page=100&cursor={cursor}" if cursor else "/api/sessions?per_page=100")
            count, cursor = count + len(page["sessions"]), page["next_cursor"]
        return count

    def test_a_server_that_is_away_for_long(self):
        count = max(50, self.count // 10)
        transcripts = [self.write(number, 3) for number in range(count)]
        self.once()
        self.server.stop()
        self.laptop.start()
        for turn in range(3):
            for transcript in transcripts:
                transcript.reply(f"Meanwhile {turn}.")
            time.sleep(4)
        self.assertTrue(eventually(lambda: self.laptop.has("SELECT count(*) FROM outbox") == [(count,)]))
        status = open(f"/proc/{self.laptop.process.pid}/status").read()
        peak = int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024
        database = sum(path.stat().st_size for path in self.laptop.database.parent.glob("local.db*")) / MIB
        self.server.start()
        self.assertTrue(eventually(lambda: self.laptop.has("SELECT count(*) FROM outbox") == [(0,)], 2 * PATIENCE))
        self.assertEqual(self.laptop.stop(), 0)
        self.assertEqual(self.total(), count)
        self.assertEqual({one["event_count"] for one in self.server.sessions()}, {7})
        reached("backlog", f"{count:,} sessions that changed while the server was away: peak {peak:.0f} MB, "
                           f"local.db {database:.1f} MB, all there afterwards")
        self.assertLess(peak, 100)
        self.assertLess(database, 10 + count / 200)

    def test_one_huge_file(self):
        megabytes = self.count // 20
        transcript = Transcript(self.laptop).prompt("A long story")
        line = transcript.record("assistant", [{"type": "text", "text": "word " * 4000}], id="m", model="claude-opus-4-6")
        with open(transcript.path, "a") as file:
            for number in range(megabytes * MIB // len(line)):
                file.write(line.replace('"uuid": "', f'"uuid": "{number:08d}', 1).replace('"id": "m"', f'"id": "m{number}"', 1))
        peak, uploads = self.once()
        self.assertEqual(uploads, 1)
        self.assertTrue(self.server.session("A long story"))
        reached("backlog", f"one file of {megabytes} MB: peak {peak:.0f} MB")
        self.assertLess(peak, 150)


if __name__ == "__main__":
    unittest.main()
