"""Killed at any moment, the server keeps what it acknowledged and leaves no litter."""

import contextlib
import http.client
import json
import random
import signal
import subprocess
import tempfile
import threading
import time
import unittest
from pathlib import Path

from client import PATIENCE, call, hail_file, new_event, new_session, running_server
from figures import reached, size
from stored import litter_after, raw_lines

WRITERS = 4


class Writer:
    """Uploads, grows, replaces and deletes sessions of its own until the server is gone.

    `stored` has, for each session, the lines that were acknowledged, None for a deleted one;
    `open` those of the request that was never answered, which may have happened or not."""

    def __init__(self, name, key, seed):
        self.name, self.key, self.chance = name, key, random.Random(seed)
        self.stored, self.open, self.count = {}, {}, 0
        self.ids, self.errors = {}, []

    def write(self, port):
        """Send until a request is not answered."""
        while True:
            name, lines, request = self.next_request()
            self.open[name] = lines
            try:
                answer = call(port, *request, key=self.key, Content_Type="application/jsonl", seconds=60)
            except (OSError, http.client.HTTPException):
                return
            del self.open[name]
            if answer.status in (200, 201, 204):
                self.stored[name] = lines
                self.ids[name] = answer.json["id"] if answer.body else None
            else:
                self.errors.append(answer)

    def next_request(self):
        """(session, its lines afterwards, what to send): a new session, more events, others from somewhere on, or its end."""
        self.count += 1
        sizes = [self.chance.choice([50, 50, 5000, 5000, 200_000]) for _ in range(self.chance.randint(1, 4))]
        new = [json.dumps({"type": "event", **new_event(text=self.chance.randbytes(size).hex())}).encode() + b"\n" for size in sizes]
        known = [name for name, lines in self.stored.items() if lines is not None and self.ids.get(name) and name not in self.open]
        if not known or self.chance.random() < 0.4:
            name, start = f"{self.name}-{self.count}", 0
            header = hail_file(new_session(name, events=[])).splitlines(keepends=True)[0]
            return name, new, ("POST", "/api/sessions", header + b"".join(new))
        name = self.chance.choice(known)
        if self.chance.random() < 0.15:
            return name, None, ("DELETE", f"/api/sessions/{self.ids[name]}")
        start = self.chance.choice([len(self.stored[name]), self.chance.randint(0, len(self.stored[name]))])
        return name, self.stored[name][:start] + new, ("POST", f"/api/sessions/{name}/events?from={start}", b"".join(new))


class CrashCase(unittest.TestCase):
    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.data = self.folder / "data"
        with self.serve() as server:
            answer = call(server.port, "POST", "/api/register", b'{"nickname":"ada"}', Content_Type="application/json")
            self.key = answer.json["api_key"]
        self.writers = [Writer(f"writer{number}", self.key, number) for number in range(WRITERS)]

    def serve(self):
        return running_server(self.folder, OPENSESSION_LOG="warn")

    def under_load(self, requests, end):
        """Let the writers send some requests, then call `end` with the server in the midst of one; (exit code, seconds that it took, log)."""
        with self.serve() as server:
            threads = [threading.Thread(target=writer.write, args=[server.port]) for writer in self.writers]
            goal = self.requests() + requests
            for thread in threads:
                thread.start()
            while self.requests() < goal and all(thread.is_alive() for thread in threads):
                time.sleep(0.001)
            time.sleep(random.uniform(0, 0.02))
            ended = time.monotonic()
            end(server)
            _, log = server.communicate(timeout=PATIENCE)
            ended = time.monotonic() - ended
            for thread in threads:
                thread.join()
            self.assertEqual([writer.errors for writer in self.writers], [[]] * WRITERS)
            return server.returncode, ended, log

    def requests(self):
        return sum(writer.count for writer in self.writers)

    def check_stored(self, port, only_open=False):
        """Fail unless every acknowledged session is there as it was sent, or as the unanswered request wanted it."""
        checked = 0
        for writer in self.writers:
            for name in list(writer.open if only_open else {**writer.stored, **writer.open}):
                lines = raw_lines(port, self.key, name)
                possible = [writer.stored.get(name), *([writer.open[name]] if name in writer.open else [])]
                counts = [each and len(each) for each in (lines, *possible)]
                self.assertIn(lines, possible, f"{name}: {counts[0]} lines, {counts[1:]} possible")
                if lines is not None or name in writer.stored:
                    writer.stored[name] = lines
                checked += 1
            writer.open.clear()
        return checked


class Crashes(CrashCase):
    def test_killed_under_load_it_loses_nothing_and_leaves_no_litter(self):
        rounds, chance = size("crash"), random.Random(5)
        for _ in range(rounds):
            code, _, _ = self.under_load(chance.randint(5, 60), lambda server: server.kill())
            self.assertEqual(code, -signal.SIGKILL)
            with self.serve() as server:
                self.assertEqual(litter_after(self.data), set())
                self.check_stored(server.port, only_open=True)
        with self.serve() as server:
            checked = self.check_stored(server.port)
        reached("crash", f"{rounds} kills, {self.requests()} requests of {WRITERS} writers, {checked} sessions: 0 lost, 0 damaged, 0 litter")


class Stops(CrashCase):
    def test_told_to_stop_under_load_it_finishes_and_keeps_what_it_acknowledged(self):
        rounds, longest = size("sigterm"), 0
        for _ in range(rounds):
            code, seconds, log = self.under_load(60, lambda server: server.terminate())
            self.assertEqual(code, 0, log)
            self.assertNotIn("Traceback", log)
            longest = max(longest, seconds)
            with self.serve() as server:
                self.check_stored(server.port, only_open=True)
                self.assertEqual(litter_after(self.data), set())
        with self.serve() as server:
            checked = self.check_stored(server.port)
        self.assertLess(longest, 60)
        reached("sigterm", f"{rounds} stops, {checked} sessions: 0 lost, exit code 0, at most {longest:.1f} s")

    def test_told_to_stop_at_rest_it_ends_at_once(self):
        with self.serve() as server:
            server.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(60)
            self.assertEqual(server.returncode, 0)
