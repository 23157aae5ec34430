"""The commands beside the server: what they find, what they change, and what they refuse."""

import io
import json
import os
import re
import shutil
import sqlite3
import unittest
import zipfile
from contextlib import closing, redirect_stdout
from pathlib import Path
from unittest import mock

import opensession
from client import Client, ServerCase, call, command, eventually, hail_file, new_event, new_session, running_server

FIRST_SCHEMA = Path(__file__).parent / "fixtures/schema-1.sql"
GONE = {"search_text": "title"}          # a column of then, and what held the like


class OperationsCase(ServerCase):
    """ada has a server with two sessions; commands are processes of their own beside it."""

    def setUp(self):
        super().setUp()
        self.ada = self.register("ada")
        self.sessions = [self.upload(self.ada, new_session(f"s-{number}")) for number in range(2)]
        self.data = self.folder / "data"

    def run_command(self, *arguments, code=0, folder=None):
        """What a command said and complained."""
        done = command(folder or self.folder, *arguments)
        self.assertEqual(done.code, code, done)
        self.assertNotIn("Traceback", done.complained)
        return done.said + done.complained

    def body(self, number=0):
        return opensession.body_path(self.rows("SELECT body FROM sessions WHERE id = ?", self.sessions[number])[0]["body"])

    def make_first(self):
        """Bring the data back to how the first schema had them."""
        self._stop()
        with closing(sqlite3.connect(self.data / "old.db", isolation_level=None)) as old:
            old.executescript(FIRST_SCHEMA.read_text())
            old.execute("ATTACH ? AS new", [str(self.data / "opensession.db")])
            triggers = old.execute("SELECT name, sql FROM main.sqlite_master WHERE type = 'trigger'").fetchall()
            for name, _ in triggers:
                old.execute(f"DROP TRIGGER main.{name}")
            for table, in old.execute("SELECT name FROM main.sqlite_master WHERE type = 'table' AND name NOT LIKE 'search%'").fetchall():
                columns = [row[1] for row in old.execute(f"PRAGMA main.table_info({table})")]
                values = ", ".join(GONE.get(name, name) for name in columns)
                old.execute(f"INSERT INTO main.{table} ({', '.join(columns)}) SELECT {values} FROM new.{table}")
            for _, sql in triggers:
                old.execute(sql)
            old.execute("UPDATE meta SET value = '1' WHERE key = 'schema'")
            old.execute("UPDATE indexed SET indexed_to = 0, title = NULL, about = NULL, pending = 1")
        for path in self.data.glob("opensession.db*"):
            path.unlink()
        (self.data / "old.db").rename(self.data / "opensession.db")
        os.chmod(self.data / "opensession.db", 0o600)


class Checks(OperationsCase):
    def test_sound_data_is_found_sound_beside_the_server_and_alone(self):
        self.index()
        self.assertIn("2 sessions, 4 events", self.run_command("check"))
        self._stop()
        before = {path: path.is_file() and path.read_bytes() for path in self.data.rglob("*")}
        self.assertIn("all is well (events were read)", self.run_command("check", "--read-data"))
        self.assertEqual({path: path.is_file() and path.read_bytes() for path in self.data.rglob("*")}, before)

    def findings(self, damage, *arguments):
        """What `check` says of a copy of the data after some damage; "" where it is content."""
        folder = self.folder / "copy/data"
        shutil.copytree(self.data, folder)
        damage(folder)
        said = io.StringIO()
        with mock.patch.dict(os.environ, {"OPENSESSION_DATA_DIR": str(folder)}), redirect_stdout(said), self.assertRaises(SystemExit) as ended:
            opensession.main(["check", *arguments])
        opensession.db._connection().close()
        shutil.rmtree(folder)
        return said.getvalue() if ended.exception.code else ""

    def test_wrong_rows_are_found(self):
        self.index()
        self._stop()
        for sql, finding in {
            "UPDATE sessions SET event_count = 3 WHERE hail_id = 's-0'": "its row and its blocks differ",
            "DELETE FROM blocks WHERE session_id = (SELECT id FROM sessions WHERE hail_id = 's-0')": "its row and its blocks differ",
            "UPDATE blocks SET first_ordinal = 1": "block of event 1 does not follow",
            "UPDATE facets SET sessions = 5 WHERE name = 'tool'": "sessions with tool claude-code is wrong",
            "DELETE FROM facets WHERE name = 'all'": "sessions with all",
            "UPDATE teams SET stored_bytes = 1": "sessions 1 bytes",
            "UPDATE teams SET stored_sessions = 9": "bytes, not 9 sessions",
            "UPDATE counters SET value = 0": "sync counter, 0, is behind",
            "DELETE FROM indexed": "search index does not know it",
            "UPDATE indexed SET indexed_to = 99": "has what is not there",
            "PRAGMA foreign_keys = OFF; DELETE FROM users": "refers to a row of users",
            "UPDATE search_index_data SET block = zeroblob(9) WHERE id > 100": "search index is damaged",
        }.items():
            with self.subTest(sql):
                self.assertIn(finding, self.findings(lambda data: change(data, sql)))

    def test_wrong_files_are_found(self):
        first, second = (self.body(number).relative_to(self.data) for number in (0, 1))
        self._stop()
        for name, damage, finding in (
            ("lost", lambda data: (data / first).unlink(), "its body is missing"),
            ("cut", lambda data: os.truncate(data / first, 40), "its body is too short"),
            ("litter", lambda data: aged(data / "bodies/zz"), "bodies/zz/zz belongs to nothing"),
        ):
            with self.subTest(name):
                self.assertIn(finding, self.findings(damage))

    def test_events_that_are_not_those_that_were_stored_are_found_by_reading(self):
        first, second = (self.body(number).relative_to(self.data) for number in (0, 1))
        self._stop()
        for name, damage, finding in (
            ("flipped", lambda data: flip(data / first), "damaged from event 0 on"),
            ("swapped", lambda data: (data / first).write_bytes((data / second).read_bytes() + b"x" * 99), "damaged from event 0 on"),
            ("no head", lambda data: flip(data / first, 0), "has no gzip header"),
            ("another chain", lambda data: change(data, "UPDATE sessions SET chain = 'x'"), "is not what its row says"),
        ):
            with self.subTest(name):
                self.assertEqual(self.findings(damage), "")
                self.assertIn(finding, self.findings(damage, "--read-data"))

    def test_a_database_with_a_broken_page_is_reported(self):
        self._stop()
        with closing(sqlite3.connect(self.data / "opensession.db")) as database:
            page, = database.execute("SELECT rootpage FROM sqlite_master WHERE name = 'facets'").fetchone()
        with open(self.data / "opensession.db", "r+b") as file:
            file.seek((page - 1) * 4096)
            file.write(os.urandom(4096))
        self.assertIn("database", self.run_command("check", code=1))

    def test_a_database_that_is_none_or_of_another_age_is_refused(self):
        self._stop()
        self.assertIn("no database", self.run_command("check", code=4, folder=self.folder / "data"))
        change(self.data, "UPDATE meta SET value = '1' WHERE key = 'schema'")
        self.assertIn("migrate", self.run_command("check", code=4))


def change(data, sql):
    """Change a database behind everybody's back."""
    with closing(sqlite3.connect(data / "opensession.db")) as database:
        database.executescript(sql)


def aged(folder):
    folder.mkdir()
    (folder / "zz").write_bytes(b"x")
    os.utime(folder / "zz", (1, 1))


def flip(path, at=None):
    """Change a byte of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if at is None else at] ^= 1
    path.write_bytes(data)


class Retention(OperationsCase):
    """Sessions here are of 11 February 2026."""

    def setUp(self):
        super().setUp()
        self.url = f"/api/teams/{self.ada.team_id}"
        self.fresh = self.upload(self.ada, new_session("fresh", events=[new_event(timestamp=opensession.now())]))

    def names(self):
        return {row["hail_id"] for row in self.rows("SELECT hail_id FROM sessions")}

    def keep(self, days):
        self.check(self.ada.put(self.url, {"retain_days": days}), 200)

    def test_nothing_goes_where_a_team_does_not_say_so(self):
        self.assertIn("nothing to remove", self.run_command("gc"))
        self.assertEqual(self.names(), {"s-0", "s-1", "fresh"})

    def test_sessions_without_activity_for_so_long_go_with_their_bodies(self):
        self.keep(30)
        self.index()
        bodies = [self.body(0), self.body(1)]
        self.assertIn("2 expired sessions", self.run_command("gc"))
        self.index()
        self.assertEqual(self.names(), {"fresh"})
        self.assertFalse(any(path.exists() for path in bodies))
        self.assertEqual(self.ada.get("/api/search?q=spoon").json["hits"], [])
        self.assertIn("all is well", self.run_command("check", "--read-data"))

    def test_clients_that_pull_hear_of_it_and_the_audit_has_it(self):
        cursor = self.ada.get(f"/api/sync/pull?team_id={self.ada.team_id}").json["next_cursor"]
        self.keep(30)
        self.run_command("gc")
        pulled = self.ada.get(f"/api/sync/pull?team_id={self.ada.team_id}&since={cursor}").json
        self.assertEqual(set(pulled["deleted"]), set(self.sessions))
        acts = self.rows("SELECT action, object FROM audit WHERE action = 'session.expire'")
        self.assertEqual({act["object"] for act in acts}, set(self.sessions))

    def test_a_session_stays_as_long_as_one_that_it_started(self):
        child = new_session("child", events=[new_event(timestamp=opensession.now())], attributes={"parent_session_id": "s-0"})
        self.upload(self.ada, child)
        self.upload(self.ada, new_session("old-child", attributes={"parent_session_id": "s-0"}))
        self.upload(self.ada, new_session("other-child", attributes={"parent_session_id": "s-1"}))
        self.keep(30)
        self.run_command("gc")
        self.assertEqual(self.names(), {"fresh", "s-0", "child", "old-child"})

    def test_who_goes_on_with_an_expired_session_has_it_again(self):
        self.keep(30)
        self.run_command("gc")
        again = new_session("s-0", events=[new_event(), new_event(timestamp=opensession.now())])
        self.upload(self.ada, again)
        self.run_command("gc")
        self.assertEqual(self.names(), {"fresh", "s-0"})

    def test_a_running_server_sees_to_it_by_itself(self):
        self.keep(30)
        self._stop()
        with running_server(self.folder, OPENSESSION_LOG="warn") as server:
            self.assertTrue(eventually(lambda: call(server.port, "GET", "/api/sessions", key=self.ada.key).json["total"] == 1))


class Garbage(OperationsCase):
    def test_what_has_expired_and_what_belongs_to_nothing_goes(self):
        self.ada.post("/api/auth/login", {"api_key": self.ada.key})
        self.check(self.ada.post("/api/invitations", {"team_id": self.ada.team_id}), 201)
        self.check(self.ada.post("/api/invitations", {"team_id": self.ada.team_id}), 201)
        self.change("UPDATE logins SET expires_at = '2026-01-01T00:00:00.000Z'")
        self.change("UPDATE invitations SET expires_at = '2026-01-01T00:00:00.000Z' WHERE id = (SELECT min(id) FROM invitations)")
        aged(self.data / "bodies/zz")
        for name in ("before-schema-2.db", "tmp/old", "kept.txt"):
            (self.data / name).write_bytes(b"x")
            os.utime(self.data / name, (1, 1))
        (self.data / "tmp/new").write_bytes(b"x")
        said = self.run_command("gc")
        for line in ("1 expired log-in", "1 expired invitation", "2 files that belonged to nothing", "before-schema-2.db"):
            self.assertIn(line, said)
        self.assertEqual({path.name for path in self.data.iterdir()} - {"opensession.db-wal", "opensession.db-shm"},
                         {"opensession.db", "bodies", "tmp", "lock", "kept.txt"})
        self.assertTrue((self.data / "tmp/new").exists())
        self.assertEqual(len(self.rows("SELECT id FROM invitations")), 1)
        self.assertIn("nothing to remove", self.run_command("gc"))

    def test_an_empty_database_gives_its_room_back_once_nobody_serves_it(self):
        large = [new_event(text=f"{number} {os.urandom(3000).hex()}") for number in range(300)]
        self.check(self.ada.delete(f"/api/sessions/{self.upload(self.ada, new_session('large', events=large))}"), 204)
        self.index()
        self.run_command("gc", "--vacuum", code=3)
        self._stop()
        self.assertRegex(self.run_command("gc", "--vacuum"), r"removed [1-9][0-9.]* MB of empty pages|removed 0\.[1-9] MB of empty pages")
        self.assertIn("all is well", self.run_command("check"))


class MigratingByCommand(OperationsCase):
    def test_an_old_database_grows_with_all_it_holds_and_a_copy_stays(self):
        raws = [self.ada.get(f"/api/sessions/{session_id}/raw").body for session_id in self.sessions]
        stored = self.rows("SELECT stored_bytes FROM teams")
        self.make_first()
        before = (self.data / "opensession.db").read_bytes()
        self.assertIn("from schema 1 to", self.run_command("migrate"))
        self.assertIn("newest schema", self.run_command("migrate"))
        self.assertEqual((self.data / "before-schema-2.db").stat().st_mode & 0o077, 0)
        with closing(sqlite3.connect(self.data / "before-schema-2.db")) as copy:
            self.assertEqual(copy.execute("SELECT value FROM meta WHERE key = 'schema'").fetchall(), [("1",)])
        self.assertTrue(before)
        self.restart()
        self.assertEqual([self.ada.get(f"/api/sessions/{session_id}/raw").body for session_id in self.sessions], raws)
        self.assertEqual(self.rows("SELECT stored_bytes FROM teams"), stored)
        self.index()
        self.assertEqual(len(self.ada.get("/api/search?q=spoon").json["hits"]), 2)
        self.assertIn("all is well", self.run_command("check", "--read-data"))

    def test_a_backup_of_an_old_database_is_restored_and_grows(self):
        self.make_first()
        self.run_command("backup", self.folder / "backups")
        elsewhere = self.folder / "elsewhere"
        elsewhere.mkdir()
        self.run_command("restore", self.folder / "backups", folder=elsewhere)
        self.assertIn("from schema 1", self.run_command("migrate", folder=elsewhere))
        self.assertIn("all is well", self.run_command("check", "--read-data", folder=elsewhere))

    def test_a_newer_database_is_refused_by_every_command_without_a_write(self):
        self._stop()
        change(self.data, "UPDATE meta SET value = '99' WHERE key = 'schema'")
        before = {path: path.is_file() and path.read_bytes() for path in self.data.rglob("*")}
        for arguments in (["serve"], ["migrate"], ["check"], ["gc"], ["gc", "--vacuum"], ["stats"], ["audit"], ["reindex"], ["backup", self.folder / "b"],
                          ["admin", "promote", "ada"], ["user", "delete", "ada", "--yes"], ["export", "ada", self.folder / "x.zip"]):
            with self.subTest(arguments[0]):
                self.assertIn("newer", self.run_command(*arguments, code=4))
        self.assertEqual({path: path.is_file() and path.read_bytes() for path in self.data.rglob("*")}, before)


class People(OperationsCase):
    def key_in(self, said):
        return re.search(r"osk_\w+", said)[0]

    def test_an_administrator_is_made_before_the_first_start(self):
        elsewhere = self.folder / "elsewhere"
        elsewhere.mkdir()
        key = self.key_in(self.run_command("admin", "create", "bob", folder=elsewhere))
        with running_server(elsewhere, HOST="0.0.0.0") as server:
            me = call(server.port, "GET", "/api/auth/me", key=key).json
            self.assertEqual((me["nickname"], me["is_admin"]), ("bob", True))
            self.assertFalse(call(server.port, "GET", "/api/health").json["first_user"])
            self.assertEqual(call(server.port, "POST", "/api/sessions", hail_file(new_session()), key=key, Content_Type="application/jsonl").status, 201)
            self.assertFalse((elsewhere / "data/setup-token").exists())

    def test_a_nickname_is_taken_once(self):
        self.assertIn("somebody called ada", self.run_command("admin", "create", "ada", code=1))
        self.assertIn("1-64", self.run_command("admin", "create", " ", code=1))

    def test_a_user_becomes_an_administrator(self):
        eve = self.register("eve")
        self.assertFalse(eve.get("/api/auth/me").json["is_admin"])
        self.run_command("admin", "promote", "eve")
        self.assertTrue(eve.get("/api/auth/me").json["is_admin"])
        self.assertIn("nobody", self.run_command("admin", "promote", "nobody", code=1))

    def test_a_new_key_ends_every_other_key_and_log_in(self):
        browser = Client()
        self.check(browser.post("/api/auth/login", {"api_key": self.ada.key}), 200)
        more = self.ada.post("/api/keys", {"name": "laptop"}).json["api_key"]
        key = self.key_in(self.run_command("admin", "reset-key", "ada"))
        for client in (self.ada, browser, Client(key=more)):
            self.check(client.get("/api/auth/me"), 401)
        self.assertEqual(Client(key=key).get("/api/auth/me").json["nickname"], "ada")

    def test_an_account_is_deleted_only_with_yes(self):
        bob = self.register("bob")
        self.check(self.ada.post(f"/api/teams/{self.ada.team_id}/members", {"nickname": "bob"}), 201)
        session_id = self.upload(bob, new_session("bob's"))
        self.assertIn("1 session stay with their teams", self.run_command("user", "delete", "bob", code=1))
        self.check(bob.get("/api/auth/me"), 200)
        self.run_command("user", "delete", "bob", "--yes")
        self.check(bob.get("/api/auth/me"), 401)
        self.assertIsNone(self.ada.get(f"/api/sessions/{session_id}").json["nickname"])

    def test_an_account_goes_with_its_sessions_where_told(self):
        bob = self.register("bob")
        self.check(self.ada.post(f"/api/teams/{self.ada.team_id}/members", {"nickname": "bob"}), 201)
        session_id = self.upload(bob, new_session("bob's"))
        self.run_command("user", "delete", "bob", "--sessions", "delete", "--yes")
        self.check(self.ada.get(f"/api/sessions/{session_id}"), 404)
        self.assertIn("last administrator", self.run_command("user", "delete", "ada", "--yes", code=1))

    def test_a_team_is_deleted_by_its_one_name_or_its_id(self):
        teams = [self.new_team(self.ada, name) for name in ("core", "twin", "twin")]
        session_id = self.upload(self.ada, new_session("in core"), teams[0])
        self.assertIn("1 session, for good", self.run_command("team", "delete", "core", code=1))
        self.run_command("team", "delete", "core", "--yes")
        self.check(self.ada.get(f"/api/sessions/{session_id}"), 404)
        self.assertIn(teams[1], self.run_command("team", "delete", "twin", "--yes", code=1))
        self.run_command("team", "delete", teams[1], "--yes")
        self.assertIn("no team", self.run_command("team", "delete", "core", "--yes", code=1))
        self.assertIn("all is well", self.run_command("check"))

    def test_acts_are_printed_the_newest_last(self):
        self.run_command("admin", "reset-key", "ada")
        lines = self.run_command("audit", "--limit", 2).splitlines()
        self.assertEqual(len(lines), 2)
        self.assertRegex(lines[-1], r"^\d{4}-\d\d-\d\dT[\d:.]+Z  -  -  key.reset  ada$")

    def test_stats_count_what_is_there(self):
        self.index()
        facts = json.loads(self.run_command("stats", "--json"))
        self.assertEqual({name: facts[name] for name in ("users", "admins", "teams", "sessions", "events", "sessions_to_index")},
                         {"users": 1, "admins": 1, "teams": 1, "sessions": 2, "events": 4, "sessions_to_index": 0})
        self.assertEqual(facts["body_bytes"], sum(self.body(number).stat().st_size for number in (0, 1)))
        self.assertRegex(self.run_command("stats"), r"sessions +2\n")

    def test_an_export_holds_all_that_is_somebodys_and_no_secret(self):
        bob = self.register("bob")
        self.check(self.ada.post(f"/api/teams/{self.ada.team_id}/members", {"nickname": "bob"}), 201)
        self.upload(bob, new_session("bob's"))
        dest = self.folder / "ada.zip"
        self.run_command("export", "ada", dest)
        self.assertEqual(dest.stat().st_mode & 0o077, 0)
        with zipfile.ZipFile(dest) as archive:
            self.assertIsNone(archive.testzip())
            account = json.loads(archive.read("account.json"))
            sessions = {session["id"]: archive.read(session["file"]) for session in account["sessions"]}
            names = set(archive.namelist())
        self.assertEqual(sessions, {each: self.ada.get(f"/api/sessions/{each}/raw").body for each in self.sessions})
        self.assertEqual(names, {"account.json", *(session["file"] for session in account["sessions"])})
        self.assertEqual((account["user"]["nickname"], account["keys"][0]["name"], account["teams"][0]["role"]), ("ada", "default", "admin"))
        text = json.dumps(account)
        for secret in (self.ada.key, opensession.secret_hash(self.ada.key), "bob"):
            self.assertNotIn(secret, text)
        self.assertIn("exists already", self.run_command("export", "ada", dest, code=1))
        self.assertIn("nobody", self.run_command("export", "eve", self.folder / "eve.zip", code=1))

    def test_an_export_goes_on_where_a_body_is_lost_and_says_so(self):
        self.body(0).unlink()
        self.assertIn(f"session {self.sessions[0]} has lost", self.run_command("export", "ada", self.folder / "ada.zip", code=1))
        with zipfile.ZipFile(self.folder / "ada.zip") as archive:
            self.assertEqual(len(archive.namelist()), 2)


class CommandLine(unittest.TestCase):
    def test_a_command_that_is_none_is_refused(self):
        done = command("/", "restart")
        self.assertEqual(done.code, 2)
        self.assertIn("invalid choice", done.complained)

    def test_help_names_every_command_and_setting(self):
        said = command("/", "--help").said
        for name in [*opensession.COMMANDS, *opensession.SETTINGS]:
            self.assertRegex(said, rf"(?m)^ +{re.escape(name)}\b")


if __name__ == "__main__":
    unittest.main()
