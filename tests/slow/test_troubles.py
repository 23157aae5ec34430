"""What goes wrong on a laptop and on the way to the server, and that nothing is lost by it.

| case                                    | test |
| ---                                     | --- |
| kill -9 at any moment                   | slow/test_crash_daemon.py |
| the daemon was off                      | test_daemon.py Sending.test_a_pass_sends_what_every_tool_wrote |
| server down for days, 10,000 sessions, one huge file | slow/test_backlog.py |
| half a last line                        | Files.test_a_line_that_is_written_byte_by_byte_arrives_whole |
| a bad line in the middle                | Files.test_a_bad_line_costs_that_line_and_no_other |
| truncated, rewritten, deleted           | test_daemon.py Sources.test_a_truncated_file_takes_nothing_away, …rewritten_file_is_taken_over |
| rotated, replaced by rename             | Files.test_a_file_that_takes_anothers_place_is_read |
| FIFO, loop, dead link, folder, 0 bytes  | test_daemon.py Sources.test_pipes_loops_and_locked_folders_stop_nothing |
| socket, unreadable                      | Files.test_sockets_and_unreadable_files_stop_nothing |
| time stamps in the future and set back  | Files.test_time_stamps_may_be_wrong |
| coarse time stamps                      | Files.test_a_change_within_the_same_second_is_seen |
| SQLite that is being written            | Files.test_a_database_in_use_is_read_and_never_locked |
| two daemons                             | test_daemon.py Running.test_a_second_daemon_is_refused |
| the laptop sleeps                       | Files.test_after_a_sleep_what_was_written_arrives_soon |
| local.db damaged in five ways           | LocalDatabase.test_a_damaged_local_db_makes_nothing_twice |
| the laptop's disk is full               | LocalDatabase.test_a_full_disk_is_waited_out |
| redirects                               | Answers.test_a_redirect_does_not_get_the_key |
| http to another machine                 | test_daemon_local.py Settings.test_an_unencrypted_server_elsewhere_is_refused |
| mode of daemon.toml                     | test_daemon_local.py Settings.test_a_key_that_others_can_read_is_a_warning |
| 400 403 404 413 415 422                 | Answers.test_what_is_rejected_waits_for_a_change |
| 401                                     | Answers.test_a_refused_key_loses_nothing |
| 409                                     | test_daemon.py Sending.test_a_session_that_another_daemon_carried_on_is_mended |
| 429 and 503, number and date            | Answers.test_the_server_says_when_to_come_back |
| 500 502 504 507, nonsense, half answers, resets, lost answers | Answers.test_trouble_on_the_way_is_tried_again_and_makes_nothing_twice |
"""

import contextlib
import email.utils
import http.client
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import threading
import time
import unittest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from figures import reached, size
from homes import HOMES
from client import PATIENCE
from laptop import DAEMON, Laptop, LaptopCase, Server, Transcript, eventually


def some(cases):
    """All cases in the long form, every third one in the short one."""
    return list(cases)[::size("troubles")]


class TroubleCase(LaptopCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.addClassCleanup(lambda: reached("troubles", f"{cls.__name__}: all cases of the table in tests/slow/test_troubles.py"))

    def once(self, code=0):
        done = self.laptop.command("once")
        self.assertNotIn("Traceback", done.stderr)
        self.assertEqual(done.returncode, code, done.stderr)
        return done.stderr

    def texts(self, title):
        found = self.server.session(title)
        return found and self.server.texts(found["id"])

    def arrives(self, title, texts):
        self.assertEqual(eventually(lambda: self.texts(title) == texts and texts), texts)


class Files(TroubleCase):
    def setUp(self):
        super().setUp()
        self.laptop.set(daemon={"publish_on": "realtime"})

    def tearDown(self):
        if self.laptop.process:
            self.assertEqual(self.laptop.stop(), 0)
            self.assertNotIn("Traceback", self.laptop.log.read_text())

    def test_a_line_that_is_written_byte_by_byte_arrives_whole(self):
        transcript = Transcript(self.laptop).prompt("Letter by letter")
        self.laptop.start()
        self.arrives("Letter by letter", ["Letter by letter"])
        line = transcript.record("assistant", [{"type": "text", "text": "한글 숟가락"}], id="m", model="claude-opus-4-6")
        line = json.dumps(json.loads(line), ensure_ascii=False).encode() + b"\n"
        with open(transcript.path, "ab", buffering=0) as file:
            for start in range(0, len(line), 7):        # in the middle of characters, too
                file.write(line[start:start + 7])
                time.sleep(0.1)
        self.arrives("Letter by letter", ["Letter by letter", "한글 숟가락"])
        stored = self.server.call("GET", f"/api/sessions/{self.server.session('Letter by letter')['id']}")
        self.assertNotIn("bad_lines", stored.get("attributes") or {})

    def test_a_bad_line_costs_that_line_and_no_other(self):
        transcript = Transcript(self.laptop).prompt("Among many")
        for number in range(500):
            transcript.reply(f"{number}.")
        transcript.write('{"type": "assist\n', "\0" * 50 + "\n")
        for number in range(500, 1000):
            transcript.reply(f"{number}.")
        self.once()
        self.assertEqual(self.server.session("Among many")["event_count"], 1001)

    def test_a_file_that_takes_anothers_place_is_read(self):
        transcript = Transcript(self.laptop).prompt("Rotate me").reply("One.")
        self.laptop.start()
        self.arrives("Rotate me", ["Rotate me", "One."])
        other = transcript.path.with_name("new")
        shutil.copy(transcript.path, other)
        with open(other, "a") as file:
            file.write(transcript.record("assistant", [{"type": "text", "text": "Two."}], id="m2", model="claude-opus-4-6"))
        os.replace(other, transcript.path)
        self.arrives("Rotate me", ["Rotate me", "One.", "Two."])

    def test_sockets_and_unreadable_files_stop_nothing(self):
        root = Transcript(self.laptop).prompt("Beside a socket").reply("Yes.").path.parent
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as plug:
            here = os.getcwd()
            os.chdir(root)              # the path of a socket must be short
            self.addCleanup(os.chdir, here)
            plug.bind("plug.jsonl")
        Transcript(self.laptop).prompt("Locked away").path.chmod(0)
        if os.getuid() == 0:            # whom no mode stops
            for path in [self.laptop.home, *self.laptop.home.rglob("*")]:
                os.chown(path, 65534, 65534, follow_symlinks=False)
            shutil.copy(DAEMON, self.laptop.home / "daemon.py")
            (self.laptop.home / "daemon.py").chmod(0o644)
        done = subprocess.run([shutil.which("python3", path="/usr/bin:/bin") or "python3", self.laptop.home / "daemon.py", "once"],
                              env={"PATH": os.environ["PATH"], "HOME": str(self.laptop.home)}, capture_output=True, text=True,
                              cwd="/", user=65534, timeout=PATIENCE) if os.getuid() == 0 else self.laptop.command("once")
        self.assertNotIn("Traceback", done.stderr)
        self.assertIn("plug.jsonl is not a regular file", done.stderr)
        self.assertEqual(self.texts("Beside a socket"), ["Beside a socket", "Yes."])

    def test_time_stamps_may_be_wrong(self):
        for title, at in [("From the future", time.time() + 9 * 365 * 86400), ("From the past", 0)]:
            os.utime(Transcript(self.laptop).prompt(title).path, (at, at))
        self.once()
        transcript = Transcript(self.laptop).prompt("Back in time")
        self.once()
        transcript.reply("Earlier than before.")
        os.utime(transcript.path, (86400, 86400))
        self.once()
        for texts in (["From the future"], ["From the past"], ["Back in time", "Earlier than before."]):
            self.assertEqual(self.texts(texts[0]), texts)
        before = len(self.server.uploads())
        self.once()
        self.assertEqual(len(self.server.uploads()), before)

    def test_a_change_within_the_same_second_is_seen(self):
        transcript = Transcript(self.laptop).prompt("Same second").reply("Eins.")
        at = int(time.time())
        os.utime(transcript.path, (at, at))
        self.laptop.start()
        self.arrives("Same second", ["Same second", "Eins."])
        # The same size and the same time, as on a file system that knows whole seconds only.
        text, at = transcript.path.read_text(), 0
        while time.time() - at > 2:         # that second is past already: this machine has much to do
            at = int(time.time())
            for word in ("Zwei.", "Drei."):
                transcript.path.write_text(text.replace("Eins.", word))
                os.utime(transcript.path, (at, at))
                time.sleep(0.2)
        self.arrives("Same second", ["Same second", "Drei."])

    def test_a_database_in_use_is_read_and_never_locked(self):
        folder = self.laptop.home / ".local/share/opencode"
        folder.mkdir(parents=True)
        db = sqlite3.connect(folder / "opencode.db", timeout=0, isolation_level=None)
        self.addCleanup(db.close)
        db.executescript((HOMES / "opencode/database/.local/share/opencode/opencode.db.sql").read_text())
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("UPDATE session SET title = 'In full swing'")
        self.laptop.start()
        locked = writes = 0
        until = time.monotonic() + 10
        while time.monotonic() < until:
            writes += 1
            try:
                db.execute("BEGIN IMMEDIATE")
                db.execute("UPDATE part SET data = json_set(data, '$.text', ?), time_updated = time_updated + 1 WHERE id = 'prt_ses_1_2_3'",
                           [f"done {writes}"])
                db.execute("UPDATE session SET time_updated = time_updated + 1")
                db.execute("COMMIT")
            except sqlite3.OperationalError:
                locked += 1
            time.sleep(0.01)
        self.assertEqual(locked, 0)
        self.assertGreater(writes, 100)
        self.assertTrue(eventually(lambda: f"done {writes}" in (self.texts("In full swing") or [])))
        self.assertEqual(db.execute("PRAGMA integrity_check").fetchall(), [("ok",)])

    def test_after_a_sleep_what_was_written_arrives_soon(self):
        transcript = Transcript(self.laptop).prompt("Good night").reply("Sleep well.")
        self.laptop.start()
        self.arrives("Good night", ["Good night", "Sleep well."])
        self.laptop.process.send_signal(signal.SIGSTOP)
        transcript.reply("Good morning.")
        fresh = Transcript(self.laptop, project="-another").prompt("While you slept")
        time.sleep(12)
        self.laptop.process.send_signal(signal.SIGCONT)
        self.arrives("Good night", ["Good night", "Sleep well.", "Good morning."])
        self.arrives("While you slept", ["While you slept"])
        self.assertTrue(fresh.path.exists())


class LocalDatabase(TroubleCase):
    def test_a_damaged_local_db_makes_nothing_twice(self):
        for number in range(20):
            Transcript(self.laptop).prompt(f"Stored {number}").reply("Yes. " * 50)
        self.once()
        before = {one["id"]: one["updated_at"] for one in self.server.sessions()}
        whole = self.laptop.database.read_bytes()
        self.assertGreater(len(whole), 3 * 4096)
        damages = {"header": b"x" * 100 + whole[100:], "half": whole[:len(whole) // 2], "a page": whole[:4096] + b"x" * 4096 + whole[8192:],
                   "zeros": b"\0" * len(whole), "0 bytes": b""}
        for name, broken in damages.items():
            for rest in self.laptop.database.parent.glob("local.db*"):
                rest.unlink()
            self.laptop.database.write_bytes(broken)
            with self.subTest(name):
                log = self.once()
                self.assertEqual("is damaged" in log, name != "0 bytes", log)
                self.assertEqual({one["id"]: one["updated_at"] for one in self.server.sessions()}, before)
                self.assertEqual(self.laptop.rows("SELECT count(*) FROM outbox"), [(0,)])

    def test_a_full_disk_is_waited_out(self):
        disk = self.laptop.home / ".local/share"
        disk.mkdir(parents=True)
        try:
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            self.skipTest("no right to mount a small disk")
        self.addCleanup(subprocess.run, ["umount", "-l", disk])
        Transcript(self.laptop).prompt("Before").reply("Yes.")
        self.laptop.start()
        self.assertTrue(eventually(lambda: self.texts("Before")))
        with contextlib.suppress(OSError), open(disk / "ballast", "wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        for number in range(30):
            Transcript(self.laptop).prompt(f"Full {number}").reply("Yes. " * 500)
        time.sleep(15)
        self.assertIsNone(self.laptop.process.poll())
        log = self.laptop.log.read_text()
        self.assertLess(len(log.splitlines()), 12, log)
        ticks = Path(f"/proc/{self.laptop.process.pid}/stat").read_text().split()[13:15]
        self.assertLess(sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK"), 8, "a busy loop")
        (disk / "ballast").unlink()
        titles = {f"Full {number}" for number in range(30)}
        self.assertTrue(eventually(lambda: titles <= {one["title"] for one in self.server.sessions()}), self.laptop.log.read_text())
        self.assertEqual(self.laptop.stop(), 0)


class Spoiler:
    """Stands between a daemon and the real server, and does to sessions' uploads what `orders` say, one after another.

    An order is a function of the request's handler; where there is none, the request goes through."""

    def __init__(self, server):
        self.orders, self.seen = [], []
        spoiler = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if self.command == "POST" and self.path.startswith("/api/sessions"):
                    spoiler.seen.append((time.monotonic(), self.path, self.headers.get("Authorization")))
                    if spoiler.orders:
                        return spoiler.orders.pop(0)(self)
                return self.answer(*self.forward())

            do_POST = do_GET

            def forward(self):
                """What the real server says: (status, headers, body)."""
                with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)) as connection:
                    headers = {**self.headers, "Host": f"127.0.0.1:{server.port}"}
                    connection.request(self.command, self.path, self.body, headers)
                    response = connection.getresponse()
                    return response.status, dict(response.getheaders()), response.read()

            def answer(self, status, headers=(), body=b"", length=None):
                self.send_response(status)
                for name, value in {**dict(headers), "Content-Length": str(len(body) if length is None else length)}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)
                self.close_connection = True

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def close(self):
        self.http.shutdown()
        self.http.server_close()


def says(status, sentence="no", **headers):
    """The order to answer with an error instead."""
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler: handler.answer(status, headers, json.dumps({"error": sentence}).encode())


def pretends(status, body):
    """The order to answer as if all were well, with something that the server never said."""
    return lambda handler: handler.answer(status, {}, body)


def reset(handler):
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RDWR)


def lose_answer(handler):
    handler.forward()
    reset(handler)


def half_answer(handler):
    status, headers, body = handler.forward()
    handler.answer(status, headers, body[:len(body) // 2], len(body))


def nonsense(handler):
    handler.connection.sendall(b"\x15\x03\x01\x00\x02\x02\x16")
    reset(handler)


class Answers(TroubleCase):
    def setUp(self):
        super().setUp()
        self.spoiler = Spoiler(self.server)
        self.addCleanup(self.spoiler.close)
        self.laptop.set(server={"url": self.spoiler.url}, daemon={"publish_on": "realtime"})

    def test_what_is_rejected_waits_for_a_change(self):
        for status in some((400, 403, 404, 413, 415, 422)):
            with self.subTest(status):
                transcript = Transcript(self.laptop).prompt(f"Rejected with {status}")
                self.spoiler.orders = [says(status, f"because of {status}")]
                self.once(code=1)
                parked = json.loads(self.laptop.command("status", "--json").stdout)["rejected"]
                [rejected] = [one for one in parked if one["id"] == transcript.id]
                self.assertIn(f"because of {status}", rejected["problem"])
                before = len(self.spoiler.seen)
                self.once()
                self.assertEqual(len(self.spoiler.seen), before, "it was sent again unchanged")
                transcript.reply("Changed.")
                self.once()
                self.assertEqual(self.texts(f"Rejected with {status}"), [f"Rejected with {status}", "Changed."])

    def test_a_refused_key_loses_nothing(self):
        Transcript(self.laptop).prompt("Refused")
        Transcript(self.laptop).prompt("Refused, too")
        self.spoiler.orders = [says(401)]
        self.once(code=1)
        self.assertEqual(len(self.spoiler.seen), 1, "nothing more is sent with a refused key")
        self.once()
        self.assertTrue(self.texts("Refused") and self.texts("Refused, too"))

    def test_the_server_says_when_to_come_back(self):
        def at_a_date(handler):
            says(429, Retry_After=email.utils.formatdate(time.time() + 5, usegmt=True))(handler)
        for number, order in enumerate([says(429, Retry_After="4"), says(503, Retry_After="4"), at_a_date]):
            with self.subTest(number):
                self.spoiler.orders, self.spoiler.seen = [order], []
                Transcript(self.laptop).prompt(f"Later {number}")
                if not self.laptop.process:
                    self.laptop.start()
                self.arrives(f"Later {number}", [f"Later {number}"])
                self.assertEqual(len(self.spoiler.seen), 2)
                self.assertGreater(self.spoiler.seen[1][0] - self.spoiler.seen[0][0], 3)
        self.assertEqual(self.laptop.stop(), 0)

    def test_trouble_on_the_way_is_tried_again_and_makes_nothing_twice(self):
        orders = {"lost": lose_answer, "500": says(500), "502": says(502), "portal": pretends(200, b"<html>Please log in.</html>"),
                  "504": says(504), "507": says(507),
                  "half": half_answer, "418": says(418), "reset": reset, "wrong": pretends(200, b'{"ok": true}'),
                  "nonsense": nonsense, "deep": pretends(201, b"[" * 2000)}
        for name, order in some(orders.items()):
            with self.subTest(name):
                title = f"In spite of {name}"
                transcript = Transcript(self.laptop).prompt(title)
                self.spoiler.orders = [order]
                self.sent_at_last(title, [title])
                transcript.reply("Growing.")
                self.spoiler.orders = [order]
                self.sent_at_last(title, [title, "Growing."])

    def sent_at_last(self, title, texts):
        """Let the daemon try until it has nothing more to send."""
        def settled():
            self.assertNotIn("Traceback", self.laptop.command("once").stderr)
            return self.laptop.rows("SELECT count(*) FROM outbox") == [(0,)]
        self.assertTrue(eventually(settled))
        self.assertEqual((self.texts(title), self.spoiler.orders), (texts, []))

    def test_a_redirect_does_not_get_the_key(self):
        for status in some((301, 302, 307, 308)):
            thief = Spoiler(self.server)
            self.addCleanup(thief.close)
            self.spoiler.orders = [lambda handler: handler.answer(status, {"Location": f"{thief.url}/api/sessions"})]
            Transcript(self.laptop).prompt(f"Stay here {status}")
            self.sent_at_last(f"Stay here {status}", [f"Stay here {status}"])
            self.assertEqual(thief.seen, [])


if __name__ == "__main__":
    unittest.main()
