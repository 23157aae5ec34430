"""Killed at any moment, the server keeps what it acknowledged and leaves no litter."""

import contextlib
import functools
import hashlib
import http.client
import json
import random
import signal
import sqlite3
import subprocess
import tempfile
import threading
import time
import unittest
from pathlib import Path

from client import call, hail_file, new_event, new_session, running_server

ROUNDS = 20
WRITERS = 4


def chain_of(lines):
    return functools.reduce(lambda chain, line: hashlib.sha256(chain + hashlib.sha256(line.rstrip(b"\n")).digest()).digest(), lines, bytes(32)).hex()


class Writer(threading.Thread):
    """Uploads, grows and replaces sessions of its own until the server is gone.

    `stored` has, for each session, the lines that were acknowledged; `open` those of the
    request that was never answered, which may have happened or not."""

    def __init__(self, name, key, seed):
        super().__init__(name=name)
        self.key, self.chance = key, random.Random(seed)
        self.stored, self.open, self.count = {}, {}, 0
        self.errors = []

    def write(self, port):
        """Send until a request is not answered."""
        while True:
            name, lines, request = self.next_request()
            self.open[name] = lines
            try:
                answer = call(port, *request, key=self.key, Content_Type="application/jsonl", seconds=20)
            except (OSError, http.client.HTTPException):
                return
            del self.open[name]
            if answer.status in (200, 201):
                self.stored[name] = lines
            else:
                self.errors.append(answer)

    def next_request(self):
        """(session, its lines afterwards, what to send): a new session, more events, or others from somewhere on."""
        self.count += 1
        new = [json.dumps({"type": "event", **new_event(text=self.chance.randbytes(self.chance.choice([50, 5000, 200_000])).hex())}).encode() + b"\n"
               for _ in range(self.chance.randint(1, 4))]
        known = [name for name in self.stored if name not in self.open]
        if not known or self.chance.random() < 0.4:
            name, start = f"{self.name}-{self.count}", 0
            header = hail_file(new_session(name, events=[])).splitlines(keepends=True)[0]
            return name, new, ("POST", "/api/sessions", header + b"".join(new))
        name = self.chance.choice(known)
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

    def under_load(self, seconds, end):
        """Let the writers write for some seconds, then call `end` with the server; its exit code."""
        with self.serve() as server:
            threads = [threading.Thread(target=writer.write, args=[server.port]) for writer in self.writers]
            for thread in threads:
                thread.start()
            time.sleep(seconds)
            end(server)
            for thread in threads:
                thread.join()
            code = server.wait(12)
            for writer in self.writers:
                self.assertEqual(writer.errors, [])
            return code

    def check_stored(self, port):
        """Fail unless every acknowledged session is there as it was sent, or as the unanswered request wanted it."""
        for writer in self.writers:
            for name in {**writer.stored, **writer.open}:
                lines = self.raw_lines(port, name)
                possible = [writer.stored.get(name), writer.open.get(name)]
                self.assertIn(lines, possible, f"{name}: {lines and len(lines)} lines, {[each and len(each) for each in possible]} possible")
                if lines is not None:
                    writer.stored[name] = lines
            writer.open.clear()

    def raw_lines(self, port, name):
        """The event lines of a session by the tool's name for it; None where it is not there."""
        known = call(port, "POST", f"/api/sessions/{name}/events", b"", key=self.key, Content_Type="application/jsonl")
        if known.status == 404:
            return None
        self.assertEqual(known.status, 200, known)
        raw = call(port, "GET", f"/api/sessions/{known.json['id']}/raw", key=self.key)
        lines = raw.body.splitlines(keepends=True)[1:-1]
        self.assertEqual((known.json["event_count"], known.json["chain"]), (len(lines), chain_of(lines)))
        return lines

    def litter(self):
        """Files that no row names, and rows without a file."""
        with contextlib.closing(sqlite3.connect(self.data / "opensession.db")) as database:
            named = {name for name, in database.execute("SELECT body FROM sessions")}
            self.assertEqual(database.execute("PRAGMA integrity_check").fetchall(), [("ok",)])
        there = {path.name for path in [*(self.data / "bodies").glob("*/*"), *(self.data / "tmp").iterdir()]}
        return there ^ named

    def wait_for_sweep(self):
        until = time.monotonic() + 5
        while self.litter() and time.monotonic() < until:
            time.sleep(0.05)
        self.assertEqual(self.litter(), set())


class Crashes(CrashCase):
    def test_killed_20_times_under_load_it_loses_nothing(self):
        chance = random.Random(5)
        for _ in range(ROUNDS):
            code = self.under_load(chance.uniform(0.05, 0.7), lambda server: server.kill())
            self.assertEqual(code, -signal.SIGKILL)
            with self.serve() as server:
                self.wait_for_sweep()
                self.check_open(server.port)
        with self.serve() as server:
            self.check_stored(server.port)
        self.assertGreater(sum(writer.count for writer in self.writers), 100)

    def check_open(self, port):
        """Settle what became of the requests that were not answered."""
        for writer in self.writers:
            for name, lines in writer.open.items():
                found = self.raw_lines(port, name)
                self.assertIn(found, [writer.stored.get(name), lines], name)
                if found is not None:
                    writer.stored[name] = found
            writer.open.clear()


class Stops(CrashCase):
    def test_told_to_stop_under_load_it_finishes_and_keeps_what_it_acknowledged(self):
        started = time.monotonic()
        code = self.under_load(1, lambda server: server.terminate())
        self.assertEqual(code, 0)
        self.assertLess(time.monotonic() - started, 14)
        self.assertGreater(sum(len(writer.stored) for writer in self.writers), 4)
        with self.serve() as server:
            self.check_stored(server.port)
            self.wait_for_sweep()

    def test_told_to_stop_at_rest_it_ends_at_once(self):
        with self.serve() as server:
            server.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(3)
            self.assertEqual(server.returncode, 0)
