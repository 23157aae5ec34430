"""kill -9 at any moment changes nothing about what the server has in the end."""

import random
import signal
import time
import unittest

from figures import reached, size
from laptop import Laptop, Server, Transcript, eventually


class Crash(unittest.TestCase):
    def stored(self, server):
        """{title: (chain of the events, event count)} of all sessions; the titles must be unique."""
        found, cursor = [], ""
        while cursor is not None:
            page = server.call("GET", f"/api/sessions?per_page=100&cursor={cursor}" if cursor else "/api/sessions?per_page=100")
            found += page["sessions"]
            cursor = page["next_cursor"]
        self.assertEqual(len({one["title"] for one in found}), len(found), "a session is there twice")
        return {one["title"]: (server.call("GET", f"/api/sessions/{one['id']}")["chain"], one["event_count"]) for one in found}

    def test_a_run_with_many_kills_ends_like_an_undisturbed_one(self):
        kills, chance = size("daemon-crash"), random.Random(1)
        undisturbed, disturbed = Server(), Server()
        laptop = Laptop(disturbed)
        for thing in (undisturbed, disturbed, laptop):
            self.addCleanup(thing.remove)
        laptop.set(daemon={"publish_on": "realtime"})
        transcripts = []
        for kill in range(kills):
            for _ in range(max(3, 60 // kills)):
                transcripts.append(self.work(laptop, transcripts, chance))
            laptop.start()
            time.sleep(chance.uniform(0.1, 1.2))
            laptop.stop(signal.SIGKILL)
        laptop.start()
        self.assertTrue(eventually(lambda: laptop.has("SELECT count(*) FROM outbox") == [(0,)]
                                   and len(self.stored(disturbed)) == len(set(transcripts))))
        self.assertEqual(laptop.stop(), 0)
        for log in (laptop.log, disturbed.log):
            self.assertNotIn("Traceback", log.read_text())
        laptop.database.unlink()
        laptop.set(server={"url": undisturbed.url, "api_key": undisturbed.key})
        self.assertEqual(laptop.command("once").returncode, 0)
        expected = self.stored(undisturbed)
        self.assertEqual(self.stored(disturbed), expected)
        reached("daemon-crash", f"{kills} kills, {len(expected)} sessions: the server has what the files have, none twice")

    def work(self, laptop, transcripts, chance):
        """A new session, or an old one that grows."""
        if transcripts and chance.random() < 0.5:
            transcript = chance.choice(transcripts)
        else:
            number = len(set(transcripts))
            transcript = Transcript(laptop, project=f"-project-{number % 7}").prompt(f"Session {number}")
        for turn in range(chance.randint(1, 20)):
            transcript.reply(f"Turn {turn}. " + "word " * 500)
        return transcript


if __name__ == "__main__":
    unittest.main()
