"""What the database and the body files promise: all or nothing, across crashes, upgrades and full disks."""

import contextlib
import functools
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import unittest
import uuid
from pathlib import Path

import client
import opensession
from client import ServerCase, hail_file, new_event, new_session, running_server


class Batches(ServerCase):
    def insert(self, key, value="x"):
        return "INSERT INTO meta (key, value) VALUES (?, ?) RETURNING key", [key, value]

    def keys(self):
        return {row["key"] for row in self.rows("SELECT key FROM meta")} - {"schema", "index_version"}

    def test_a_batch_returns_the_rows_of_each_statement(self):
        rows = opensession.db.batch([self.insert("a"), ("UPDATE meta SET value = 'y' WHERE key = 'a'", []),
                                     ("SELECT value FROM meta WHERE key = 'a'", [])])
        self.assertEqual([[tuple(row) for row in each] for each in rows], [[("a",)], [], [("y",)]])

    def test_a_batch_happens_whole_or_not_at_all(self):
        for broken, error in [(self.insert("a"), opensession.Conflict), (("INSERT INTO nowhere VALUES (1)", []), sqlite3.OperationalError),
                              (("SELECT ?", []), sqlite3.ProgrammingError), (("SELECT ?", [2**70]), OverflowError)]:
            with self.assertRaises(error):
                opensession.db.batch([self.insert("a"), broken])
            self.assertEqual(self.keys(), set())
        opensession.db.batch([self.insert("b")])        # the connection is none the worse for it
        self.assertEqual(self.keys(), {"b"})

    def test_what_must_hold_undoes_the_batch_where_it_does_not(self):
        absent = opensession.must("NOT EXISTS (SELECT 1 FROM meta WHERE key = ?)", "a")
        opensession.db.batch([absent, self.insert("a")])
        with self.assertRaises(opensession.Conflict):
            opensession.db.batch([self.insert("b"), absent])
        self.assertEqual(self.keys(), {"a"})
        self.assertEqual(self.rows("SELECT * FROM must"), [])

    def test_a_reference_to_nothing_is_a_conflict(self):
        with self.assertRaises(opensession.Conflict):
            opensession.db.batch([("INSERT INTO team_members VALUES ('nowhere', 'nobody', 'member', 'now')", [])])

    def test_writers_wait_for_each_other_for_some_seconds(self):
        with contextlib.closing(sqlite3.connect(self.folder / "data/opensession.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            started = time.monotonic()
            opensession.db._connection().execute("PRAGMA busy_timeout = 200")
            with self.assertRaises(sqlite3.OperationalError):
                opensession.db.batch([self.insert("a")])
            self.assertGreater(time.monotonic() - started, 0.15)
            self.assertEqual(self.keys(), set())       # reading goes on

    def test_commits_are_made_to_last(self):
        pragmas = {name: opensession.db.execute(f"PRAGMA {name}")[0][0] for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")}
        self.assertEqual(pragmas, {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 5000})


# A made-up history: three versions of one table.
HISTORY = ["CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT; CREATE TABLE counters (name TEXT, value INTEGER);",
           ["ALTER TABLE counters ADD COLUMN note TEXT", "INSERT INTO counters (name, value) VALUES ('two', 2)"],
           ["CREATE INDEX counters_by_name ON counters (name)", "UPDATE counters SET note = 'three'"]]


class Migrations(unittest.TestCase):
    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.path = self.folder / "opensession.db"
        self.addCleanup(setattr, opensession, "db", opensession.db)

    def open(self, steps):
        opensession.open_database(self.path, HISTORY[0], HISTORY[1:][:steps])._connection().close()

    def look(self, sql, path=None):
        with contextlib.closing(sqlite3.connect(path or self.path)) as connection:
            return connection.execute(sql).fetchall()

    def test_an_old_database_is_brought_to_the_newest_version_and_a_copy_is_kept(self):
        self.open(0)
        self.open(2)
        self.assertEqual(self.look("SELECT value FROM meta WHERE key = 'schema'"), [("3",)])
        self.assertEqual(self.look("SELECT name, note FROM counters ORDER BY name"), [("sync", "three"), ("two", "three")])
        copy = self.folder / "before-schema-2.db"
        self.assertEqual(self.look("SELECT value FROM meta", copy), [("1",)])
        self.assertEqual(self.look("SELECT * FROM counters", copy), [("sync", 0)])
        self.assertEqual((copy.stat().st_mode | self.path.stat().st_mode) & 0o077, 0)

    def test_a_database_that_is_new_enough_is_left_alone(self):
        self.open(2)
        before = self.path.read_bytes()
        self.open(2)
        self.assertEqual(self.path.read_bytes(), before)
        self.assertEqual(list(self.folder.glob("before-*")), [])

    def test_a_newer_database_is_refused_without_a_write(self):
        self.open(2)
        before = self.path.read_bytes()
        with self.assertRaisesRegex(opensession.Unusable, "newer"):
            self.open(1)
        self.assertEqual(self.path.read_bytes(), before)

    def test_a_step_that_fails_leaves_the_version_before_it(self):
        self.open(0)
        broken = [HISTORY[1], ["UPDATE counters SET note = 'half'", "INSERT INTO nowhere VALUES (1)"]]
        with self.assertRaises(sqlite3.OperationalError):
            opensession.open_database(self.path, HISTORY[0], broken)
        self.assertEqual(self.look("SELECT value FROM meta"), [("2",)])
        self.assertEqual(self.look("SELECT note FROM counters WHERE note = 'half'"), [])
        self.open(2)
        self.assertEqual(self.look("SELECT value FROM meta"), [("3",)])

    def test_a_crash_in_the_middle_of_a_step_leaves_the_old_version(self):
        self.open(0)
        dying = [["UPDATE counters SET value = 77", "SELECT die()"]]
        code = textwrap.dedent(f"""
            import os, signal, sys
            sys.path[:0] = {sys.path!r}
            from pathlib import Path
            import opensession
            connect = opensession.connect
            def connect_and_die(path):
                connection = connect(path)
                connection.create_function("die", 0, lambda: os.kill(os.getpid(), signal.SIGKILL))
                return connection
            opensession.connect = connect_and_die
            opensession.open_database(Path({str(self.path)!r}), "", {dying!r})
        """)
        result = subprocess.run([sys.executable, "-c", code])
        self.assertEqual(result.returncode, -9)
        self.assertEqual(self.look("SELECT value FROM meta"), [("1",)])
        self.assertEqual(self.look("SELECT value FROM counters"), [(0,)])
        self.open(2)
        self.assertEqual(self.look("SELECT value FROM meta"), [("3",)])

    def test_a_crash_while_a_database_is_made_leaves_one_that_can_be_made(self):
        self.path.touch()
        with contextlib.closing(opensession.connect(self.path)):
            pass
        self.open(0)
        self.assertEqual(self.look("SELECT value FROM meta"), [("1",)])

    def test_the_originals_database_and_other_files_are_refused_untouched(self):
        self.look("CREATE TABLE _migrations (id)")
        with self.assertRaisesRegex(opensession.Unusable, "original"):
            self.open(2)
        self.path.write_bytes(b"this is no database, only a text that is long enough " * 100)
        with self.assertRaises(opensession.Unusable):
            self.open(2)
        self.assertTrue(self.path.read_bytes().startswith(b"this is no database"))


class SchemaAndSteps(ServerCase):
    """schema.sql is the sum of all steps: tests/fixtures/schema-1.sql is how it was at first."""

    def test_schema_sql_is_the_first_schema_and_all_steps(self):
        first = Path(__file__).parent / "fixtures/schema-1.sql"
        grown = opensession.open_database(self.folder / "grown.db", first.read_text(), [])
        grown._connection().close()
        grown = opensession.open_database(self.folder / "grown.db", "", opensession.MIGRATIONS)
        self.assertEqual(shape_of(grown), shape_of(opensession.db))
        grown._connection().close()

    def test_acts_of_the_first_schema_are_given_to_their_teams(self):
        path = self.folder / "grown.db"
        first = (Path(__file__).parent / "fixtures/schema-1.sql").read_text()
        team, user, session = (str(uuid.uuid4()) for _ in range(3))
        old = opensession.open_database(path, first, [])
        old.batch([("INSERT INTO audit (at, action, object) VALUES ('', ?, ?)", row) for row in (
            ["member.add", f"{team} {user}"], ["session.move", f"{session} {team}"], ["team.update", team], ["login", None])])
        old._connection().close()
        grown = opensession.open_database(path, "", opensession.MIGRATIONS)
        self.assertEqual([tuple(row) for row in grown.execute("SELECT object, team_id FROM audit ORDER BY no")],
                         [(user, team), (session, team), (team, team), (None, None)])
        grown._connection().close()


class GrownFromVersionOne(ServerCase):
    """A server that was filled under version 1 loses nothing, and makes up for what version 1 did not keep."""

    def setUp(self):
        super().setUp()
        self.ada = self.register("ada")
        events = [new_event(text="Where is the needle?"), new_event("FileRead", "", at=1, data={"path": "a.py"}),
                  new_event("Custom", "", at=2, data={"kind": "compaction"}), new_event("ShellCommand", "", at=3, data={"command": "ls"})]
        self.id = self.upload(self.ada, new_session("s-1", events))
        self.upload(self.ada, new_session("s-2"))
        self.index()
        self.before = self.seen()
        self._stop()
        make_version_one(self.folder / "data/opensession.db")
        self.restart()

    def seen(self):
        """What ada sees, without what version 1 did not have."""
        answers = {path: self.ada.get(path).json for path in
                   ("/api/sessions?facets=1", "/api/search?q=needle", "/api/teams", f"/api/sessions/{self.id}/events",
                    f"/api/sessions/{self.id}/outline", f"/api/sync/pull?team_id={self.ada.team_id}")}
        answers["/api/search?q=needle"]["took_ms"] = 0
        for session in [*answers["/api/sessions?facets=1"]["sessions"], answers["/api/search?q=needle"]["hits"][0]["session"],
                        *answers[f"/api/sync/pull?team_id={self.ada.team_id}"]["sessions"]]:
            session["step_kinds"] = session["active_seconds"] = None
        return answers

    def steps(self):
        return {each["id"]: each["step_kinds"] for each in self.ada.get("/api/sessions").json["sessions"]}

    def test_everything_is_as_it_was(self):
        self.index()            # anew
        self.assertEqual(self.seen(), self.before)
        self.assertTrue((self.folder / "data/before-schema-2.db").exists())

    def test_steps_are_counted_and_compactions_are_marked_by_and_by(self):
        flags = self.ada.get(f"/api/sessions/{self.id}/map")
        self.assertEqual((set(self.steps().values()), flags.json["flags"]), ({None}, "0000"))
        while opensession.count_old_steps(opensession.db):
            pass
        self.assertEqual(self.steps()[self.id], {"read": 1, "shell": 1})
        again = self.ada.get(f"/api/sessions/{self.id}/map", headers={"If-None-Match": flags.headers["ETag"]})
        self.assertEqual(self.check(again, 200).json["flags"], "0040")

    def test_active_time_is_unknown_until_it_is_counted(self):
        active = lambda: {each["id"]: each["active_seconds"] for each in self.ada.get("/api/sessions").json["sessions"]}[self.id]
        self.assertIsNone(active())
        while opensession.count_old_steps(opensession.db):
            pass
        self.assertEqual(active(), 3)

    def test_a_session_that_grows_before_it_is_counted_is_counted_whole(self):
        self.check(self.ada.post(f"/api/sessions/{self.id}/events", {"events": [new_event("WebFetch", "", at=9, data={"url": "x"})]}), 200)
        self.assertIsNone(self.steps()[self.id])
        while opensession.count_old_steps(opensession.db):
            pass
        self.assertEqual(self.steps()[self.id], {"read": 1, "shell": 1, "web": 1})

    def test_a_lost_body_does_not_hold_up_the_others(self):
        for path in (self.folder / "data/bodies").glob("*/*"):
            path.unlink()
        while opensession.count_old_steps(opensession.db):
            pass
        self.assertEqual(self.steps()[self.id], {"read": 1, "shell": 1})


def make_version_one(path):
    """Turn a database into one of version 1 with the same rows, as far as version 1 had room for them."""
    old = path.with_name("old.db")
    with contextlib.closing(sqlite3.connect(old)) as connection:
        connection.executescript((Path(__file__).parent / "fixtures/schema-1.sql").read_text())
        connection.execute("ATTACH ? AS new", [str(path)])
        tables = [name for name, in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'search%'")]
        for table in sorted(tables, key=lambda name: name != "sessions"):       # first: its triggers fill others
            columns = ", ".join(name for _, name, *_ in connection.execute(f"PRAGMA table_info({table})"))
            values = columns.replace("search_text", "title || ''")
            connection.executescript(f"DELETE FROM {table}; INSERT INTO {table} ({columns}) SELECT {values} FROM new.{table}")
        connection.execute("INSERT INTO search_index (rowid, text) VALUES (1, 'as version 1 had it')")
        connection.execute("UPDATE meta SET value = '1' WHERE key = 'schema'")
        for rowid, marks in connection.execute("SELECT rowid, marks FROM blocks").fetchall():
            marks = bytes(byte & 3 if place % opensession.MARK.size == opensession.MARK.size - 1 else byte for place, byte in enumerate(marks))
            connection.execute("UPDATE blocks SET marks = ? WHERE rowid = ?", [marks, rowid])
        connection.commit()
    for end in ("", "-wal", "-shm"):
        path.with_name(path.name + end).unlink(missing_ok=True)
    old.rename(path)


def shape_of(database):
    """Tables with their columns, indexes with theirs, triggers with what they do."""
    tables = [row["name"] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
    columns = {table: sorted(tuple(column)[1:] for column in database.execute(f"PRAGMA table_info({table})")) for table in tables}
    indexes = {row["name"]: " ".join((row["sql"] or "").split())
               for row in database.execute("SELECT name, sql FROM sqlite_master WHERE type IN ('index', 'trigger', 'view')")}
    return columns, indexes


class StorageCase(ServerCase):
    def setUp(self):
        super().setUp()
        self.ada = self.register("ada")
        self.session_id = self.upload(self.ada, new_session("s-1"))
        self.data = self.folder / "data"

    def body(self):
        return opensession.body_path(self.rows("SELECT body FROM sessions WHERE id = ?", self.session_id)[0]["body"])

    def statuses(self, *methods):
        """What each way to touch the session answers."""
        calls = {"raw": lambda: self.ada.get(f"/api/sessions/{self.session_id}/raw"),
                 "events": lambda: self.ada.get(f"/api/sessions/{self.session_id}/events"),
                 "event": lambda: self.ada.get(f"/api/sessions/{self.session_id}/events/1"),
                 "around": lambda: self.ada.get(f"/api/sessions/{self.session_id}/events?around=x"),
                 "append": lambda: self.ada.post(f"/api/sessions/{self.session_id}/events", {"events": [new_event()]}),
                 "replace": lambda: self.ada.post(f"/api/sessions/{self.session_id}/events", {"events": [new_event()], "from": 1})}
        return {name: calls[name]().status for name in methods or calls}


class Sweeps(StorageCase):
    def age(self, path):
        os.utime(path, (1, 1))
        return path

    def test_drafts_and_orphans_of_an_earlier_run_go_and_nothing_else(self):
        (self.data / "bodies/zz").mkdir()
        draft, orphan, near = self.data / "tmp/tmpx", self.data / "bodies/zz/zz.1.x", self.body().with_name(self.body().name + "0")
        for path in (draft, orphan, near):
            path.write_bytes(b"x")
            self.age(path)
        self.age(self.body())
        opensession.sweep(time.time())
        self.assertFalse(draft.exists() or orphan.exists() or near.exists())
        self.assertEqual(set(self.statuses("raw", "events").values()), {200})

    def test_what_is_being_written_now_stays(self):
        draft, body = self.data / "tmp/tmpx", self.body().with_name("not-yet-in-a-row")
        draft.write_bytes(b"x")
        body.write_bytes(b"x")
        opensession.sweep(time.time() - 60)
        self.assertTrue(draft.exists() and body.exists())

    def test_other_files_in_the_data_directory_are_none_of_its_business(self):
        keep = self.age(self.make("before-schema-2.db"))
        opensession.sweep(time.time())
        self.assertTrue(keep.exists())

    def test_what_vanishes_meanwhile_is_no_trouble(self):
        for number in range(50):
            self.age(self.make(f"tmp/tmp{number}"))
        sweeps = [threading.Thread(target=opensession.sweep, args=[time.time()]) for _ in range(4)]
        failures = []
        threading.excepthook, hook = failures.append, threading.excepthook
        for sweep in sweeps:
            sweep.start()
        for sweep in sweeps:
            sweep.join()
        threading.excepthook = hook
        self.assertEqual(failures, [])
        self.assertEqual(list((self.data / "tmp").iterdir()), [])

    def make(self, name):
        (self.data / name).write_bytes(b"x")
        return self.data / name


class DamagedBodies(StorageCase):
    def test_a_missing_body_is_410_and_the_list_goes_on(self):
        self.body().unlink()
        self.assertEqual(self.statuses(), {"raw": 410, "events": 410, "event": 410, "around": 404, "append": 410, "replace": 410})
        answer = self.ada.get(f"/api/sessions/{self.session_id}/raw")
        self.check(answer, 410)
        for path in ("/api/sessions", f"/api/sessions/{self.session_id}", f"/api/sync/pull?team_id={self.ada.team_id}"):
            self.check(self.ada.get(path), 200)
        self.check(self.ada.delete(f"/api/sessions/{self.session_id}"), 204)

    def test_a_body_that_is_too_short_is_410_and_is_not_filled_up(self):
        os.truncate(self.body(), 40)
        self.assertEqual(self.statuses("events", "event", "append", "replace"), {"events": 410, "event": 410, "append": 410, "replace": 410})
        self.assertEqual(self.body().stat().st_size, 40)

    def test_a_body_that_is_garbage_is_410(self):
        self.body().write_bytes(b"\xff" * self.body().stat().st_size)
        self.assertEqual(self.statuses("events", "event", "replace"), {"events": 410, "event": 410, "replace": 410})

    def test_uploading_the_session_again_mends_it(self):
        again = new_session("s-2")
        self.session_id = self.upload(self.ada, again)
        self.body().unlink()
        self.assertEqual(self.statuses("raw"), {"raw": 410})
        self.assertEqual(self.upload(self.ada, again), self.session_id)
        self.assertEqual(set(self.statuses("raw", "events").values()), {200})


@contextlib.contextmanager
def small_disk(size):
    """A folder on a file system of its own with so many bytes; skips where we may not mount one."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            raise unittest.SkipTest("no right to mount a small disk") from None
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "-l", folder], check=True)


class FullAndReadOnlyDisks(ServerCase):
    def large(self, number):
        return new_session(f"s-{number}", events=[new_event(text=os.urandom(200_000).hex()) for _ in range(5)])

    def fill(self, client):
        """Upload until it fails; the statuses, in order."""
        statuses = []
        while len(statuses) < 30 and statuses[-3:] != [507] * 3:
            answer = client.post("/api/sessions", body=hail_file(self.large(len(statuses))), type="application/jsonl")
            if answer.status != 201:
                self.check(answer, answer.status)
            statuses.append(answer.status)
        return statuses

    def test_a_full_disk_is_507_until_there_is_room_again(self):
        with small_disk("8m") as disk:
            self.restart(OPENSESSION_DATA_DIR=str(disk / "data"), OPENSESSION_RESERVE_MB="0")
            ada = self.register("ada")
            statuses = self.fill(ada)
            self.assertEqual(statuses, [201] * statuses.count(201) + [507] * 3)
            self.assertGreater(statuses.count(201), 2)
            self.check(ada.get("/api/health"), 200)
            listed = ada.get("/api/sessions").json["sessions"]
            self.assertEqual(len(listed), statuses.count(201))
            for session in listed:
                self.check(ada.get(f"/api/sessions/{session['id']}/raw"), 200)
            self.assertEqual(list((disk / "data/tmp").iterdir()), [])
            self.check(ada.delete(f"/api/sessions/{listed[0]['id']}"), 204)
            self.check(ada.post("/api/sessions", {"session": new_session("small")}), 201)
            self._stop()

    def test_below_the_reserve_nothing_is_uploaded_until_there_is_room_again(self):
        with small_disk("30m") as disk:
            self.restart(OPENSESSION_DATA_DIR=str(disk / "data"), OPENSESSION_RESERVE_MB="10")
            ada = self.register("ada")
            session = self.upload(ada)
            (disk / "ballast").write_bytes(bytes(20 << 20))
            self.check(ada.post("/api/sessions", {"session": new_session()}), 507, "the server's disk is nearly full")
            self.assertEqual(ada.get("/api/health").json["problems"], ["disk_low"])
            self.check(ada.get(f"/api/sessions/{session}/raw"), 200)
            (disk / "ballast").unlink()
            self.check(ada.post("/api/sessions", {"session": new_session()}), 201)
            self.assertEqual(ada.get("/api/health").json["status"], "ok")
            self._stop()

    def test_a_full_disk_for_the_database_is_507_too(self):
        with small_disk("3m") as disk:
            self.restart(OPENSESSION_DATA_DIR=str(disk / "data"))
            ada = self.register("ada")
            (disk / "ballast").write_bytes(b"x")
            with contextlib.suppress(OSError), open(disk / "ballast", "wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
            statuses = {ada.post("/api/teams", {"name": f"team {number}", "description": "x" * 50_000}).status for number in range(12)}
            self.assertEqual(statuses - {201}, {507})
            (disk / "ballast").unlink()
            self.check(ada.post("/api/teams", {"name": "at last"}), 201)
            self._stop()

    def test_a_disk_that_is_read_only_at_the_start_is_read(self):
        with small_disk("30m") as disk:
            with running_server(disk, OPENSESSION_RESERVE_MB="0") as server:
                call = functools.partial(client.call, server.port, Content_Type="application/json")
                key = call("POST", "/api/register", b'{"nickname": "ada"}').json["api_key"]
                body = json.dumps({"session": new_session()}).encode()
                session = call("POST", "/api/sessions", body, key=key).json["id"]
            # The server was killed, so that a part of the data is in the -wal; a server that was stopped leaves none.
            for stopped in (False, True):
                subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
                with running_server(disk, OPENSESSION_RESERVE_MB="0") as server:
                    call = functools.partial(client.call, server.port, Content_Type="application/json")
                    for path in ("/api/sessions", f"/api/sessions/{session}", f"/api/sessions/{session}/raw", "/api/search?q=spoon", "/"):
                        self.assertEqual(call("GET", path, key=key).status, 200, path)
                    self.assertEqual(call("GET", "/api/sessions", key=key).json["total"], 1)
                    health = call("GET", "/api/health").json
                    self.assertEqual((health["status"], health["problems"]), ("degraded", ["read_only"]))
                    for method, path in (("POST", "/api/sessions"), ("DELETE", f"/api/sessions/{session}"), ("POST", "/api/teams")):
                        answer = call(method, path, body, key=key)
                        self.assertEqual((answer.status, answer.headers["Retry-After"]), (503, "300"))
                subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
                if not stopped:
                    self.stop_server_gently(disk, key, body)

    def stop_server_gently(self, disk, key, body):
        with running_server(disk, OPENSESSION_RESERVE_MB="0") as server:
            answer = client.call(server.port, "POST", "/api/sessions", body, key=key, Content_Type="application/json")
            self.assertIn(answer.json["status"], ("unchanged", "updated"))
            server.send_signal(signal.SIGTERM)
            server.wait(client.PATIENCE)
        self.assertFalse((disk / "data/opensession.db-wal").exists())

    def process(self, code):
        """What some code prints that begins with a server of its own, `ada`, and a session of hers."""
        code = textwrap.dedent(f"""
            import os, resource, sys
            sys.path[:0] = {sys.path!r}
            import client, opensession
            opensession.configure({{"OPENSESSION_DATA_DIR": {str(self.folder / "own")!r}}})
            lock = opensession.open_data_dir()
            ada = client.Client()
            ada.key = ada.post("/api/register", {{"nickname": "ada"}}).json["api_key"]
            def upload(session):
                return ada.post("/api/sessions", {{"session": session}})
            session_id = upload(client.new_session()).json["id"]
            """) + textwrap.dedent(code)
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        self.assertEqual(result.returncode, 0, result.stderr)
        return result.stdout.strip()

    def test_a_limit_on_the_size_of_files_is_a_full_disk(self):
        printed = self.process("""
            resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, resource.RLIM_INFINITY))
            large = client.new_session(events=[client.new_event(text=os.urandom(900_000).hex())])
            statuses = [upload(session).status for session in (client.new_session(), large, client.new_session())]
            print(statuses, os.listdir(opensession.settings.data_dir / "tmp"))
        """)
        self.assertEqual(printed, "[201, 507, 201] []")

    @unittest.skipUnless(hasattr(os, "setuid"), "no users to change to")
    def test_where_nothing_can_be_written_reading_goes_on_and_writing_is_503(self):
        self.folder.chmod(0o755)
        printed = self.process("""
            for folder, _, files in os.walk(opensession.settings.data_dir):
                os.chmod(folder, 0o555)
                for name in files:
                    os.chmod(os.path.join(folder, name), 0o444)
            if os.getuid() == 0:
                os.setuid(65534)
            answer = upload(client.new_session())
            print(answer.status, answer.headers["Retry-After"],
                  *(ada.get(f"/api/sessions/{session_id}{path}").status for path in ("", "/raw", "/events")),
                  ada.post(f"/api/sessions/{session_id}/events", {"events": [client.new_event()]}).status)
        """)
        self.assertEqual(printed, "503 1 200 200 200 503")

    def test_a_database_that_somebody_else_holds_is_503(self):
        ada = self.register("ada")
        with contextlib.closing(sqlite3.connect(self.folder / "data/opensession.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            opensession.db._connection().execute("PRAGMA busy_timeout = 50")
            answer = self.check(ada.post("/api/sessions", {"session": new_session("s-1")}), 503)
            self.assertEqual(answer.headers["Retry-After"], "1")
            self.check(ada.get("/api/sessions"), 200)
        self.assertEqual(list((self.folder / "data/tmp").iterdir()) + list((self.folder / "data/bodies").glob("*/*")), [])
        self.check(ada.post("/api/sessions", {"session": new_session("s-1")}), 201)


class OneServer(ServerCase):
    def test_a_second_server_on_the_same_data_is_refused(self):
        with self.assertRaisesRegex(opensession.Unusable, "another opensession"):
            opensession.open_data_dir()

    def test_a_data_directory_that_cannot_be_used_is_refused_with_a_sentence(self):
        place = self.folder / "file"
        place.write_text("not a folder")
        opensession.configure({"OPENSESSION_DATA_DIR": str(place / "data")})
        with self.assertRaises(opensession.Unusable):
            opensession.open_data_dir()
