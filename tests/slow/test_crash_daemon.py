"""kill -9 at any moment of a first run changes nothing about its end."""

import random
import signal
import time
import unittest

from laptop import Laptop, Server, Transcript, eventually

SESSIONS, KILLS = 120, 20


class Crash(unittest.TestCase):
    def stored(self, server):
        """{title: (chain of the events, event count)} of all sessions; the titles must be unique."""
        found, cursor = [], ""
        while cursor is not None:
            page = server.call("GET", f"/api/sessions?per_page=100&cursor={cursor}" if cursor else "/api/sessions?per_page=100")
            found += page["sessions"]
            cursor = page["next_cursor"]
        self.assertEqual(len({one["title"] for one in found}), len(found))
        return {one["title"]: server.call("GET", f"/api/sessions/{one['id']}")["chain"] for one in found}

    def test_twenty_kills_end_like_an_undisturbed_run(self):
        undisturbed, disturbed = Server(), Server()
        laptop = Laptop(undisturbed)
        for thing in (undisturbed, disturbed, laptop):
            self.addCleanup(thing.remove)
        for number in range(SESSIONS):
            transcript = Transcript(laptop, project=f"-project-{number % 7}").prompt(f"Session {number}")
            for turn in range(number % 40):
                transcript.reply(f"Turn {turn}. " + "word " * 500)
        self.assertEqual(laptop.command("once", timeout=120).returncode, 0)
        expected = self.stored(undisturbed)
        self.assertEqual(len(expected), SESSIONS)
        laptop.set(server={"url": disturbed.url, "api_key": disturbed.key})
        chance = random.Random(1)
        for _ in range(KILLS):
            laptop.start()
            time.sleep(chance.uniform(0.1, 0.5))
            laptop.stop(signal.SIGKILL)
        laptop.start()
        self.assertTrue(eventually(lambda: len(disturbed.sessions()) == 100 and self.stored(disturbed) == expected, 60))
        self.assertEqual(laptop.stop(), 0)
        self.assertEqual(laptop.rows("SELECT count(*) FROM outbox"), [(0,)])
        self.assertNotIn("Traceback", laptop.log.read_text() + disturbed.log.read_text())


if __name__ == "__main__":
    unittest.main()
