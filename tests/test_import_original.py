"""Taking over the original's data: its users with their keys, teams, members and sessions, once."""

import os
import sqlite3
import threading
import unittest
import uuid
from contextlib import closing

import opensession
from client import Client, ServerCase, command, hail_file, new_event, new_session

# What the original's two migrations made.
ORIGINAL = """
    CREATE TABLE _migrations (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, applied_at TEXT NOT NULL DEFAULT (datetime('now')));
    INSERT INTO _migrations (name) VALUES ('0001_schema'), ('0002_public_teams');
    CREATE TABLE users (
        id TEXT PRIMARY KEY, nickname TEXT NOT NULL UNIQUE, api_key TEXT NOT NULL UNIQUE, is_admin BOOLEAN NOT NULL DEFAULT 0,
        created_at TEXT NOT NULL DEFAULT (datetime('now')));
    CREATE TABLE teams (
        id TEXT PRIMARY KEY, name TEXT NOT NULL, description TEXT, created_by TEXT NOT NULL REFERENCES users (id),
        created_at TEXT NOT NULL DEFAULT (datetime('now')), is_public BOOLEAN NOT NULL DEFAULT 0);
    CREATE TABLE team_members (
        team_id TEXT NOT NULL REFERENCES teams (id), user_id TEXT NOT NULL REFERENCES users (id), role TEXT NOT NULL DEFAULT 'member',
        joined_at TEXT NOT NULL DEFAULT (datetime('now')), PRIMARY KEY (team_id, user_id));
    CREATE TABLE sessions (
        id TEXT PRIMARY KEY, user_id TEXT REFERENCES users (id), team_id TEXT NOT NULL REFERENCES teams (id), tool TEXT NOT NULL,
        agent_provider TEXT, agent_model TEXT, title TEXT, description TEXT, tags TEXT, created_at TEXT NOT NULL,
        uploaded_at TEXT NOT NULL DEFAULT (datetime('now')), message_count INTEGER NOT NULL DEFAULT 0,
        task_count INTEGER NOT NULL DEFAULT 0, event_count INTEGER NOT NULL DEFAULT 0, duration_seconds INTEGER NOT NULL DEFAULT 0,
        body_storage_key TEXT NOT NULL, total_input_tokens INTEGER NOT NULL DEFAULT 0, total_output_tokens INTEGER NOT NULL DEFAULT 0);
    CREATE VIRTUAL TABLE sessions_fts USING fts5(title, description, tags, content='sessions', content_rowid='rowid');
"""


def original_key():
    """A key as the original made them."""
    return "osk" + "_" + uuid.uuid4().hex


class OriginalCase(ServerCase):
    """A data directory of the original: mia made the team kitchen, in which noa is, too."""

    def setUp(self):
        super().setUp()
        self.original = self.folder / "original"
        (self.original / "bodies").mkdir(parents=True)
        self.mia, self.noa = Client(key=original_key()), Client(key=original_key())
        self.mia.user_id, self.noa.user_id, self.kitchen = (str(uuid.uuid4()) for _ in range(3))
        self.database = sqlite3.connect(self.original / "opensession.db", isolation_level=None)
        self.addCleanup(self.database.close)
        self.database.execute("PRAGMA journal_mode = WAL")
        self.database.executescript(ORIGINAL)
        self.put("users", id=self.mia.user_id, nickname="mia", api_key=self.mia.key, is_admin=1, created_at="2026-02-11 06:00:00")
        self.put("users", id=self.noa.user_id, nickname="noa", api_key=self.noa.key, created_at="2026-02-11 07:00:00")
        self.put("teams", id=self.kitchen, name="kitchen", description="who cooks", created_by=self.mia.user_id, is_public=1)
        self.put("team_members", team_id=self.kitchen, user_id=self.mia.user_id, role="admin")
        self.put("team_members", team_id=self.kitchen, user_id=self.noa.user_id)

    def put(self, table, **columns):
        self.database.execute(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})", list(columns.values()))

    def put_session(self, session, user_id, uploaded_at="2026-02-12 08:00:00", body=None):
        """The id of a session that the original stored."""
        session_id = str(uuid.uuid4())
        (self.original / f"bodies/{session_id}.hail.jsonl").write_bytes(hail_file(session) if body is None else body)
        self.put("sessions", id=session_id, user_id=user_id, team_id=self.kitchen, tool=session["agent"]["tool"],
                 created_at=session["context"]["created_at"], uploaded_at=uploaded_at, event_count=len(session["events"]),
                 body_storage_key=f"{session_id}.hail.jsonl")
        return session_id

    def take_over(self, code=0):
        done = command(self.folder, "import-original", self.original)
        self.assertEqual(done.code, code, done)
        self.assertNotIn("Traceback", done.complained)
        return done.said + done.complained


class TakingOver(OriginalCase):
    def test_people_go_on_with_their_old_keys_in_their_teams(self):
        self.assertIn("2 users, 1 team, 0 sessions", self.take_over())
        me = self.check(self.mia.get("/api/auth/me"), 200).json
        self.assertEqual((me["user_id"], me["nickname"], me["is_admin"], me["created_at"]),
                         (self.mia.user_id, "mia", True, "2026-02-11T06:00:00.000Z"))
        self.assertFalse(self.noa.get("/api/auth/me").json["is_admin"])
        team = self.noa.get(f"/api/teams/{self.kitchen}").json
        self.assertEqual([team[name] for name in ("name", "description", "is_public", "role", "created_by")],
                         ["kitchen", "who cooks", True, "member", self.mia.user_id])
        self.assertEqual(self.mia.get(f"/api/teams/{self.kitchen}").json["role"], "admin")
        self.upload(self.noa, new_session())

    def test_of_keys_only_the_hash_is_kept(self):
        self.take_over()
        self._stop()
        for path in (self.folder / "data").rglob("*"):
            if path.is_file():
                self.assertNotIn(self.mia.key.encode(), path.read_bytes(), path)

    def test_a_session_keeps_its_address_its_events_and_its_uploader(self):
        session = new_session("s-1", title="The spoon")
        session_id = self.put_session(session, self.noa.user_id)
        self.take_over()
        found = self.check(self.mia.get(f"/api/sessions/{session_id}"), 200).json
        self.assertEqual([found[name] for name in ("title", "nickname", "event_count", "uploaded_at", "team_name", "hail_session_id")],
                         ["The spoon", "noa", 2, "2026-02-12T08:00:00.000Z", "kitchen", "s-1"])
        raw = self.mia.get(f"/api/sessions/{session_id}/raw").body.splitlines()
        self.assertEqual(raw[1:-1], hail_file(session).splitlines()[1:-1])
        self.index()
        self.assertEqual([hit["session"]["id"] for hit in self.mia.get("/api/search?q=drawer").json["hits"]], [session_id])
        self.assertEqual(command(self.folder, "check", "--read-data").code, 0)

    def test_of_a_session_that_was_stored_many_times_the_fullest_copy_stays(self):
        events = [new_event(text=f"{number}", at=number) for number in range(5)]
        copies = [self.put_session(new_session("s-1", events=events[:count]), self.mia.user_id, f"2026-02-12 0{at}:00:00")
                  for at, count in enumerate((2, 5, 1))]        # the last one was only a sub-agent's part
        self.assertIn("1 session; here already, or sent more than once: 2 sessions", self.take_over())
        listed = self.mia.get("/api/sessions").json["sessions"]
        self.assertEqual([(each["id"], each["event_count"]) for each in listed], [(copies[1], 5)])

    def test_the_daemon_goes_on_with_a_session_that_was_taken_over(self):
        session = new_session("s-1")
        session_id = self.put_session(session, self.mia.user_id)
        self.take_over()
        self.assertEqual(self.upload(self.mia, {**session, "events": [*session["events"], new_event()]}), session_id)
        self.assertEqual(self.mia.get(f"/api/sessions/{session_id}").json["event_count"], 3)

    def test_sessions_without_an_uploader_are_taken_too(self):
        ids = {self.put_session(new_session("s-1"), None) for _ in range(2)}
        self.take_over()
        self.assertEqual({row["id"] for row in self.rows("SELECT id FROM sessions")}, ids)

    def test_a_second_run_changes_nothing_and_takes_what_is_new(self):
        self.put_session(new_session("s-1"), self.mia.user_id)
        self.take_over()
        self.check(self.mia.put(f"/api/teams/{self.kitchen}", {"name": "cellar"}), 200)
        new = self.mia.post("/api/auth/regenerate-key").json["api_key"]
        second = self.put_session(new_session("s-2"), self.noa.user_id)
        self.assertIn("0 users, 0 teams, 1 session", self.take_over())
        self.check(self.mia.get("/api/auth/me"), 401)
        self.mia.key = new
        self.assertEqual(self.mia.get(f"/api/teams/{self.kitchen}").json["name"], "cellar")
        self.check(self.mia.delete(f"/api/sessions/{second}"), 204)
        self.assertIn("0 sessions; ", self.take_over())
        self.check(self.mia.get(f"/api/sessions/{second}"), 404)

    def test_the_originals_directory_is_only_read(self):
        self.put_session(new_session("s-1"), self.mia.user_id)
        self.assertTrue((self.original / "opensession.db-wal").stat().st_size)
        before = {path: (path.stat().st_mtime_ns, path.is_file() and path.read_bytes()) for path in self.original.rglob("*")}
        self.assertIn("1 session;", self.take_over())
        after = {path: (path.stat().st_mtime_ns, path.is_file() and path.read_bytes()) for path in self.original.rglob("*")}
        self.assertEqual(after, before)
        self.assertEqual(os.listdir(self.folder / "data/tmp"), [])

    def test_people_who_are_here_already_keep_their_name(self):
        mia = self.register("mia")
        self.take_over()
        self.assertEqual(mia.get("/api/auth/me").json["nickname"], "mia")
        self.assertEqual(self.mia.get("/api/auth/me").json["nickname"], f"mia {self.mia.user_id[:8]}")

    def test_what_cannot_be_read_is_named_and_the_rest_is_taken(self):
        good = self.put_session(new_session("s-1"), self.mia.user_id)
        bad = self.put_session(new_session("s-2"), self.mia.user_id, body=hail_file(new_session("s-2"))[:-400] + b"\n")
        lost = self.put_session(new_session("s-3"), self.mia.user_id)
        (self.original / f"bodies/{lost}.hail.jsonl").unlink()
        said = self.take_over(code=1)
        for session_id in (bad, lost):
            self.assertIn(f"session {session_id} is not taken over", said)
        self.assertEqual([row["id"] for row in self.rows("SELECT id FROM sessions")], [good])

    def test_a_body_is_never_sought_outside(self):
        session_id = self.put_session(new_session("s-1"), self.mia.user_id)
        (self.original / f"bodies/{session_id}.hail.jsonl").rename(self.folder / "secret.hail.jsonl")
        self.database.execute("UPDATE sessions SET body_storage_key = '../../secret.hail.jsonl'")
        self.take_over(code=1)
        self.assertEqual(self.rows("SELECT id FROM sessions"), [])

    def test_it_begins_a_new_data_directory_too(self):
        self._stop()
        self.folder = self.folder / "elsewhere"
        self.folder.mkdir()
        self.assertIn("2 users", self.take_over())
        self.restart()
        self.check(self.mia.get("/api/auth/me"), 200)


class Refusing(OriginalCase):
    def test_what_is_no_data_of_the_original_is_refused(self):
        for sql, sentence in (("ALTER TABLE users DROP COLUMN is_admin", None), ("DROP TABLE _migrations", "none of the original"),):
            self.database.execute(sql)
            if sentence:
                self.assertIn(sentence, self.take_over(code=1))
            else:
                self.assertIn("nobody is an administrator", self.take_over())
        self.database.close()
        (self.original / "opensession.db").unlink()
        self.assertIn("no database", self.take_over(code=1))

    def test_what_is_being_written_to_is_taken_whole_or_not_at_all(self):
        self.database.execute("CREATE TABLE ballast AS SELECT randomblob(30000000)")
        stopped = threading.Event()

        def write():
            with closing(sqlite3.connect(self.original / "opensession.db", isolation_level=None)) as database:
                while not stopped.is_set():
                    database.execute("UPDATE users SET created_at = datetime('now')")
        writer = threading.Thread(target=write)
        writer.start()
        self.addCleanup(writer.join)
        self.addCleanup(stopped.set)
        done = command(self.folder, "import-original", self.original)
        if done.code:
            self.assertIn("stop the original's server first", done.complained)
        self.assertEqual(len(self.rows("SELECT id FROM users")), 0 if done.code else 2)

    def test_ones_own_directory_is_refused(self):
        self.assertIn("another data directory", command(self.folder, "import-original", self.folder / "data").complained)

    def test_a_server_refuses_the_originals_directory_and_names_the_way(self):
        self._stop()
        (self.folder / "data").rename(self.folder / "was")
        self.original.rename(self.folder / "data")
        done = command(self.folder, "serve")
        self.assertEqual(done.code, 4)
        self.assertIn("import-original", done.complained)


if __name__ == "__main__":
    unittest.main()
