"""Backups made while sessions come in, grow, are replaced and deleted: each restores to one moment, whole.

`make backup-test N=20` says how many rounds; the fast form here does a few."""

import contextlib
import hashlib
import json
import os
import random
import shutil
import sqlite3
import tempfile
import threading
import time
import unittest
from pathlib import Path

from client import call, command, hail_file, new_event, new_session, running_server

ROUNDS = int(os.environ.get("N") or 3)
WRITERS = 4


class Load(threading.Thread):
    """Uploads, grows, replaces and deletes sessions of its own while `working`, until `stopped`; `states` has all that a session ever was."""

    def __init__(self, port, key, seed, working):
        super().__init__()
        self.working = working
        self.port, self.key, self.name_of, self.chance = port, key, f"writer{seed}", random.Random(seed)
        self.lines, self.ids, self.states, self.stopped, self.count, self.problems = {}, {}, {}, threading.Event(), 0, []

    def run(self):
        while self.working.wait() and not self.stopped.is_set():
            self.count += 1
            known = list(self.lines)
            act = self.chance.choice([self.add, self.grow, self.replace, self.delete]) if len(known) > 3 else self.add
            act(self.chance.choice(known) if known else None)

    def events(self):
        return [json.dumps({"type": "event", **new_event(text=self.chance.randbytes(self.chance.choice([50, 5000, 100_000])).hex())}).encode() + b"\n"
                for _ in range(self.chance.randint(1, 4))]

    def send(self, method, path, body=b""):
        answer = call(self.port, method, path, body, key=self.key, Content_Type="application/jsonl", seconds=60)
        if answer.status not in (200, 201, 204):
            self.problems.append(answer)
        return answer

    def add(self, _):
        name, lines = f"{self.name_of}-{self.count}", self.events()
        self.remember(name, lines)
        header = hail_file(new_session(name, events=[])).splitlines(keepends=True)[0]
        self.ids[name] = self.send("POST", "/api/sessions", header + b"".join(lines)).json["id"]

    def grow(self, name):
        self.change(name, len(self.lines[name]))

    def replace(self, name):
        self.change(name, self.chance.randint(0, len(self.lines[name])))

    def change(self, name, start):
        new = self.events()
        self.remember(name, self.lines[name][:start] + new)
        self.send("POST", f"/api/sessions/{name}/events?from={start}", b"".join(new))

    def delete(self, name):
        del self.lines[name]
        self.send("DELETE", f"/api/sessions/{self.ids[name]}")

    def remember(self, name, lines):
        self.lines[name] = lines
        self.states.setdefault(name, set()).add(hashlib.sha256(b"".join(lines)).digest())


class BackupsUnderLoad(unittest.TestCase):
    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def test_every_backup_restores_to_sessions_as_they_were_at_some_moment(self):
        sound = sessions = 0
        with running_server(self.folder, OPENSESSION_LOG="warn") as server:
            key = call(server.port, "POST", "/api/register", b'{"nickname":"ada"}', Content_Type="application/json").json["api_key"]
            working = threading.Event()
            writers = [Load(server.port, key, seed, working) for seed in range(WRITERS)]
            with self.loaded(writers, working):
                for number in range(ROUNDS):
                    working.set()
                    time.sleep(0.5)
                    made = command(self.folder, "backup", self.folder / "backups", "--keep", 3)
                    working.clear()
                    self.assertEqual(made.code, 0, made)
                    sessions += self.check_restored(number, writers)
                    sound += 1
        print(f"{sound} of {ROUNDS} backups under {sum(writer.count for writer in writers)} writes restored whole, {sessions} sessions compared")

    @contextlib.contextmanager
    def loaded(self, writers, working):
        for writer in writers:
            writer.start()
        try:
            yield
        finally:
            for writer in writers:
                writer.stopped.set()
            working.set()
            for writer in writers:
                writer.join()
        self.assertEqual([problem for writer in writers for problem in writer.problems], [])

    def check_restored(self, number, writers):
        """Restore the newest backup into a folder of its own; how many sessions are in it, each as its writer once had it."""
        folder = self.folder / f"restored{number}"
        folder.mkdir()
        for arguments in (["restore", self.folder / "backups"], ["check", "--read-data"]):
            done = command(folder, *arguments)
            self.assertEqual(done.code, 0, done)
        states = {name: states for writer in writers for name, states in dict(writer.states).items()}
        with contextlib.closing(sqlite3.connect(folder / "data/opensession.db")) as database:
            ids = dict(database.execute("SELECT hail_id, id FROM sessions"))
        key = next(iter(writers)).key
        with running_server(folder, OPENSESSION_LOG="warn") as restored:
            for name, session_id in ids.items():
                raw = call(restored.port, "GET", f"/api/sessions/{session_id}/raw", key=key).body
                lines = raw.splitlines(keepends=True)[1:-1]
                self.assertIn(hashlib.sha256(b"".join(lines)).digest(), states[name], name)
        shutil.rmtree(folder)
        return len(ids)


if __name__ == "__main__":
    unittest.main()
