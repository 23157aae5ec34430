"""What operators do while sessions come in, grow, are replaced and deleted: backups restore to one moment, whole; check
finds nothing wrong, and export leaves nothing out.

`make backup-test N=20` says how many rounds; the fast form here does a few."""

import contextlib
import functools
import hashlib
import json
import random
import shutil
import sqlite3
import tempfile
import threading
import time
import unittest
import zipfile
from pathlib import Path

from client import call, command, hail_file, new_event, new_session, running_server
from figures import reached, size
from stored import litter_after

ROUNDS = size("backup-test")
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


class Rivals(threading.Thread):
    """Replaces one session again and again while another thread deletes it, as two clients of one account may."""

    def __init__(self, port, key, name, working):
        super().__init__()
        self.send = functools.partial(call, port, key=key, Content_Type="application/jsonl")
        self.name_of, self.working, self.stopped, self.count, self.problems = name, working, threading.Event(), 0, []

    def run(self):
        deleter = threading.Thread(target=self.delete)
        deleter.start()
        while self.working.wait() and not self.stopped.is_set():
            self.count += 1
            session = new_session(self.name_of, events=[new_event(text=f"{self.count} " + "word " * 20_000)], title=self.name_of)
            self.note(self.send("POST", "/api/sessions?restore=1", hail_file(session)), 200, 201, 410)
        deleter.join()

    def delete(self):
        while not self.stopped.is_set():
            for session in self.send("GET", "/api/sessions?per_page=100").json["sessions"]:
                if session["title"] == self.name_of:
                    self.note(self.send("DELETE", f"/api/sessions/{session['id']}"), 204, 403, 404)

    def note(self, answer, *expected):
        if answer.status not in expected:
            self.problems.append(answer)


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
        writes = sum(writer.count for writer in writers)
        reached("backup-test", f"{sound} of {ROUNDS} backups under {writes} writes restored whole, {sessions} sessions compared")

    def test_check_finds_nothing_wrong_and_export_leaves_nothing_out(self):
        with running_server(self.folder, OPENSESSION_LOG="warn") as server:
            key = call(server.port, "POST", "/api/register", b'{"nickname":"ada"}', Content_Type="application/json").json["api_key"]
            working = threading.Event()
            working.set()
            writers = [Load(server.port, key, seed, working) for seed in range(WRITERS)]
            rivals = [Rivals(server.port, key, f"contested-{number}", working) for number in range(2)]
            with self.loaded([*writers, *rivals], working):
                for number in range(3 * ROUNDS):
                    checked = command(self.folder, "check", *["--read-data"] * (number % 2))
                    self.assertEqual(checked.code, 0, checked)
                    self.assertEqual(command(self.folder, "gc").code, 0)
                    exported = command(self.folder, "export", "ada", self.folder / f"{number}.zip")
                    self.assertEqual(exported.code, 0, exported)
                    self.check_exported(self.folder / f"{number}.zip", writers)
            self.assertEqual(litter_after(self.folder / "data"), set())
        reached("backup-test", f"{3 * ROUNDS} x check, gc and export beside writers and deletions: nothing wrong, nothing left out, 0 litter")

    def check_exported(self, path, writers):
        """Fail unless every session in an archive is as its writer once had it."""
        states = {name: states for writer in writers for name, states in dict(writer.states).items()}
        with zipfile.ZipFile(path) as archive:
            for session in json.loads(archive.read("account.json"))["sessions"]:
                lines = archive.read(session["file"]).splitlines(keepends=True)[1:-1]
                if session["session_id"] in states:
                    self.assertIn(hashlib.sha256(b"".join(lines)).digest(), states[session["session_id"]], session)

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
