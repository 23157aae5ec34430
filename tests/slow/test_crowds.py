"""Many at once, and some who mean harm: slow clients, bombs, writers, first registrations."""

import http.client
import json
import re
import resource
import socket
import statistics
import tempfile
import threading
import time
import unittest
import zlib
from pathlib import Path

from client import call, eventually, hail_file, new_event, new_session, running_server
from figures import reached, size

MIB = 1 << 20


def resident(process):
    """The memory (bytes) that a process has now."""
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text())[1]) << 10


def peak(process):
    """The most memory (bytes) that a process had since forget_peak."""
    return int(re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text())[1]) << 10


def forget_peak(process):
    """From now on peak counts anew; returns what there is now."""
    Path(f"/proc/{process.pid}/clear_refs").write_text("5")
    return peak(process)


def more_descriptors():
    """Raise this process's limit on open files to what is allowed."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


class CrowdCase(unittest.TestCase):
    SETTINGS = {}

    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.server = self.enterContext(running_server(self.folder, OPENSESSION_LOG="error", **self.SETTINGS))
        self.key = None
        self.key = self.call("POST", "/api/register", b'{"nickname":"ada"}', Content_Type="application/json").json["api_key"]

    def call(self, method, path, body=None, **more):
        return call(self.server.port, method, path, body, key=self.key, **more)

    def upload(self, session):
        answer = self.call("POST", "/api/sessions", hail_file(session), Content_Type="application/jsonl")
        self.assertEqual(answer.status, 201, answer)
        return answer.json["id"]

    def p95(self, count=100):
        """Seconds within which 95 of 100 lists are answered, each over a connection of its own."""
        times = []
        for _ in range(count):
            started = time.perf_counter()
            self.assertEqual(self.call("GET", "/api/sessions?per_page=100").status, 200)
            times.append(time.perf_counter() - started)
        return statistics.quantiles(times, n=20)[-1]

    def best_p95(self, rounds=3):
        """The best of some rounds: other programs on this machine make each of them slower."""
        return min(self.p95() for _ in range(rounds))

    def connect(self, data=b"", receive=None):
        connection = socket.socket()
        self.addCleanup(connection.close)
        if receive:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
        connection.connect(("127.0.0.1", self.server.port))
        connection.sendall(data)
        return connection


class SlowClients(CrowdCase):
    def test_idle_half_open_and_stalled_connections_hold_nobody_up(self):
        count = size("slowclients")
        stalled = count // 10
        if more_descriptors() < count + stalled + 500:
            self.skipTest("this machine allows too few open files")
        large = self.upload(new_session("large", events=[new_event(text=f"{number} " + "word " * 20_000) for number in range(600)]))
        for number in range(99):
            self.upload(new_session(f"s-{number}"))
        quiet, before = self.best_p95(), resident(self.server)
        download = f"GET /api/sessions/{large}/raw HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {self.key}\r\n\r\n".encode()
        for number in range(count):
            self.connect([b"", b"GET /api/health HTTP/1.1\r\nHost: local",
                          b"POST /api/sessions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{"][number % 3])
        for _ in range(stalled):
            self.connect(download, receive=4096)
        if not eventually(lambda: self.descriptors() > count + stalled, 30):
            self.skipTest("this machine is too busy: the server lets idle connections go before all are there")
        crowded, grown, descriptors = self.p95(), resident(self.server) - before, self.descriptors()
        while crowded > 3 * quiet and self.descriptors() > count + stalled:     # other programs on this machine, perhaps
            crowded = min(crowded, self.p95())
        reached("slowclients", f"{count} idle and half-open, {stalled} unread downloads of 60 MB: "
                               f"p95 of a list {crowded * 1000:.1f} ms, quiet {quiet * 1000:.1f} ms (x {crowded / quiet:.1f})"
                               f"; + {grown / MIB:.0f} MB; {descriptors} descriptors")
        self.assertLess(crowded / quiet, 5)
        self.assertLess(resident(self.server) / MIB, 150 + count / 20)

    def descriptors(self):
        """How many files and connections the server has open."""
        return len(list(Path(f"/proc/{self.server.pid}/fd").iterdir()))

    def test_beyond_all_limits_the_server_lives_on(self):
        count = size("slowclients") * 3 // 2
        if more_descriptors() < count + 500:
            self.skipTest("this machine allows too few open files")
        crowd = [self.connect() for _ in range(count)]
        time.sleep(1)
        for connection in crowd:
            connection.close()
        self.assertEqual(self.call("GET", "/api/health").status, 200)
        reached("slowclients", f"{count} connections at once: alive")


class Bombs(CrowdCase):
    def setUp(self):
        super().setUp()
        for number in range(20):
            self.upload(new_session(f"s-{number}"))
        self.harmless = self.best_p95(1)

    def under(self, attack, rounds=1):
        """(what an attack returns, MB that the server grew by, p95 of others' lists in between and how many times the quiet one)."""
        before, results = forget_peak(self.server), []
        attacker = threading.Thread(target=lambda: results.append(attack()))
        attacker.start()
        times = []
        while attacker.is_alive() or len(times) < 20:
            started = time.perf_counter()
            self.assertEqual(self.call("GET", "/api/sessions").status, 200)
            times.append(time.perf_counter() - started)
        attacker.join()
        slow = statistics.quantiles(times, n=20)[-1]
        return results[0], (peak(self.server) - before) / MIB, slow

    def refuses(self, name, attack, statuses, megabytes, seconds=0.2):
        """Attack until others were not held up, at most five times: they may wait for other programs on this machine."""
        answer, grown, slow = self.under(attack)
        for _ in range(4):
            if slow > max(seconds, 20 * self.harmless):
                answer, more, slow = self.under(attack)
                grown = max(grown, more)
        reached("bombs", f"{name}: {answer}, + {grown:.0f} MB, others' p95 {slow * 1000:.0f} ms (quiet {self.harmless * 1000:.0f})")
        self.assertIn(answer, statuses)
        self.assertLess(grown, megabytes)
        self.assertLess(slow, max(seconds, 20 * self.harmless))

    def post(self, body, kind="application/jsonl", **headers):
        try:
            return self.call("POST", "/api/sessions", body, Content_Type=kind, **headers).status
        except (OSError, http.client.HTTPException) as error:
            return type(error).__name__

    def test_a_gzip_bomb(self):
        megabytes = size("bombs")
        event = json.dumps({"type": "event", **new_event(text=" " * 60_000)}).encode() + b"\n"
        for name, piece, statuses in [("of one line", bytes(MIB), {413}),
                                      ("of events", event * (MIB // len(event) + 1), {413} if megabytes > 256 else {201, 200})]:
            bomb = self.bomb(piece, megabytes)
            self.refuses(f"gzip bomb {name}, {megabytes} MB", lambda: self.post(bomb, Content_Encoding="gzip"), statuses, 20)

    def bomb(self, piece, count):
        """The gzip of a session's header and a piece, so many times."""
        deflate = zlib.compressobj(9, zlib.DEFLATED, 31)
        header = hail_file(new_session("bomb", events=[])).splitlines(True)[0]
        return b"".join([deflate.compress(header), *(deflate.compress(piece) for _ in range(count)), deflate.flush()])

    def test_a_line_of_60_mb(self):
        body = hail_file(new_session("line", events=[new_event(text="x" * (60 * MIB))]))
        self.refuses("a line of 60 MB", lambda: self.post(body), {413}, 20)

    def test_an_endless_chunk_size(self):
        self.refuses("64 MB of chunk size", self.endless_chunk_size, {400, "reset"}, 20)

    def endless_chunk_size(self):
        connection = self.connect(b"POST /api/sessions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            for _ in range(64):
                connection.sendall(b"0" * MIB)
            return "accepted"
        except OSError:
            return "reset"

    def test_depth_of_100_000(self):
        for form in (b"[" * 100_000 + b"]" * 100_000, b'{"a":' * 100_000 + b"1" + b"}" * 100_000, b"[" * 100_000):
            self.refuses(f"depth 100,000 ({form[:5].decode()}…)", lambda: self.post(form, "application/json"), {400}, 20)


class Concurrent(CrowdCase):
    def test_writers_and_readers_do_not_wait_for_locks(self):
        uploads, times, statuses, done = size("concurrent"), [], [], threading.Event()
        failures = []

        def write(writer):
            for number in range(uploads):
                session = hail_file(new_session(f"{writer}-{number}"))
                started = time.perf_counter()
                statuses.append(self.call("POST", "/api/sessions", session, Content_Type="application/jsonl").status)
                times.append(time.perf_counter() - started)

        def read():
            while not done.is_set():
                for path in ("/api/sessions", "/api/sessions?search=spoon", "/api/teams"):
                    failures.extend(status for status in [self.call("GET", path).status] if status != 200)

        writers = [threading.Thread(target=write, args=[number]) for number in range(16)]
        readers = [threading.Thread(target=read) for _ in range(4)]
        for thread in writers + readers:
            thread.start()
        for thread in writers:
            thread.join()
        done.set()
        for thread in readers:
            thread.join()
        self.assertEqual(set(statuses), {201})
        self.assertEqual((len(statuses), failures), (16 * uploads, []))
        self.assertEqual(self.call("GET", "/api/sessions").json["total"], 16 * uploads)
        p99 = statistics.quantiles(times, n=100)[-1]
        reached("concurrent", f"{16 * uploads} uploads by 16 writers beside 4 readers: 0 locked, p99 {p99 * 1000:.0f} ms")


class FirstAdmin(unittest.TestCase):
    def test_of_50_first_registrations_at_once_one_is_the_admin(self):
        rounds = size("firstadmin")
        for number in range(rounds):
            self.assertEqual(self.admins(OPENSESSION_REGISTRATION=("open", "invite")[number % 2]), 1)
        reached("firstadmin", f"{rounds} rounds of 50 at once: exactly 1 admin each")

    def test_without_the_setup_token_there_is_none_and_with_it_one(self):
        public = {"OPENSESSION_BASE_URL": "http://team.example", "OPENSESSION_TRUSTED_PROXY": "127.0.0.1"}
        self.assertEqual(self.admins(**public), 0)
        self.assertEqual(self.admins(lambda folder: {"invite": (folder / "data/setup-token").read_text().strip()}, **public), 1)
        reached("firstadmin", "50 at once without the set-up token: 0 users; with it: 1")

    def admins(self, more=lambda folder: {}, **settings):
        """How many of 50 who register at the same moment, each from an address of their own, become admin."""
        with tempfile.TemporaryDirectory() as folder, running_server(folder, OPENSESSION_LOG="error", **settings) as server:
            call(server.port, "GET", "/api/health")         # once it answers, the set-up token is written
            start, answers, fields = threading.Barrier(50), [], more(Path(folder))

            def register(number):
                start.wait()
                proxied = {"X_Forwarded_For": f"203.0.113.{number}"} if "OPENSESSION_TRUSTED_PROXY" in settings else {}
                answers.append(call(server.port, "POST", "/api/register", json.dumps({"nickname": f"user{number}", **fields}).encode(),
                                    Content_Type="application/json", **proxied))
            threads = [threading.Thread(target=register, args=[number]) for number in range(50)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        self.assertLessEqual({answer.status for answer in answers}, {201, 403}, answers)
        return [answer.json.get("is_admin", False) for answer in answers].count(True)


if __name__ == "__main__":
    unittest.main()
