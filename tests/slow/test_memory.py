"""A session of 200 MB: what it costs to store, and that it harms nobody who reads something else."""

import contextlib
import functools
import hashlib
import json
import random
import re
import socket
import sys
import tempfile
import time
import unittest
from pathlib import Path

from client import call, hail_file, new_event, new_session, running_server

SIZE = 200 << 20
MIB = 1 << 20


def write_session(path, size):
    """Write a HAIL file of some size, of words and numbers as transcripts have them; return how many events it has."""
    chance = random.Random(7)
    words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randint(2, 11))) for _ in range(5000)]
    texts = [" ".join(chance.choices(words, k=chance.choice([10, 80, 400, 3000]))) for _ in range(500)]
    lines = hail_file(new_session("large", events=[])).splitlines(keepends=True)
    written = count = 0
    with open(path, "wb") as file:
        file.write(lines[0])
        while written < size:
            kind, data = chance.choice([("AgentMessage", None), ("ToolResult", {"name": "Bash"}), ("FileEdit", {"path": f"src/{count % 300}.py"})])
            event = {**new_event(kind, f"{count} {chance.random()} {texts[count * 7 % 500]}", data=data), "event_id": f"e{count}"}
            written += file.write(json.dumps({"type": "event", **event}).encode() + b"\n")
            count += 1
        file.write(lines[-1])
    return count


def memory(process):
    """The most memory (bytes) that a process had since forget_peak."""
    return int(re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text())[1]) << 10


def forget_peak(process):
    with contextlib.suppress(OSError):
        Path(f"/proc/{process.pid}/clear_refs").write_text("5")


def timed(function):
    """(seconds, what a function returns)."""
    started = time.monotonic()
    answer = function()
    return time.monotonic() - started, answer


@unittest.skipUnless(Path("/proc/self/status").exists(), "memory is read from /proc")
class LargeSessions(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        cls.count = write_session(cls.folder / "large.jsonl", SIZE)
        cls.server = cls.enterClassContext(running_server(cls.folder, OPENSESSION_LOG="warn"))
        cls.key = call(cls.server.port, "POST", "/api/register", b'{"nickname":"ada"}', Content_Type="application/json").json["api_key"]
        call(cls.server.port, "GET", "/api/sessions", key=cls.key)
        cls.idle = memory(cls.server)
        with open(cls.folder / "large.jsonl", "rb") as file:
            cls.seconds, cls.uploaded = timed(lambda: cls.call("POST", "/api/sessions", file, Content_Type="application/jsonl"))
        cls.grown = memory(cls.server) - cls.idle
        print(f"\n200 MB: {SIZE / MIB / cls.seconds:.0f} MB/s, {cls.grown / MIB:.0f} MB of memory", file=sys.stderr)

    def setUp(self):
        forget_peak(self.server)
        self.before = memory(self.server)

    def growth(self):
        """How many MB this test has made the server grow."""
        return (memory(self.server) - self.before) / MIB

    @classmethod
    def call(cls, method, path, body=None, **more):
        return call(cls.server.port, method, path, body, key=cls.key, **more)

    def test_an_upload_of_200_mb_takes_less_than_60_mb_of_memory(self):
        self.assertEqual(self.uploaded.status, 201, self.uploaded)
        self.assertEqual(self.uploaded.json["event_count"], self.count)
        self.assertLess(self.grown / MIB, 60)

    def test_it_is_readable_right_after(self):
        session = f"/api/sessions/{self.uploaded.json['id']}"
        paths = [f"/events?from={self.count * part // 10}" for part in range(10)] + [f"/events?around=e{self.count - 3}", f"/events/{self.count - 1}", ""]
        times = []
        for path in paths:
            seconds, answer = timed(lambda: self.call("GET", session + path))
            self.assertEqual(answer.status, 200, answer)
            times.append(seconds)
        print(f"windows {min(times[:10]) * 1000:.0f}-{max(times[:10]) * 1000:.0f} ms, around {times[10] * 1000:.0f} ms, "
              f"last event {times[11] * 1000:.0f} ms, detail {times[12] * 1000:.0f} ms", file=sys.stderr)
        self.assertLess(self.growth(), 60)

    def test_the_whole_file_comes_back_as_it_went(self):
        seconds, answer = timed(lambda: self.call("GET", f"/api/sessions/{self.uploaded.json['id']}/raw"))
        self.assertEqual(len(answer.body), int(answer.headers["Content-Length"]))
        print(f"raw: {SIZE / MIB / seconds:.0f} MB/s, {self.growth():.0f} MB of memory", file=sys.stderr)
        sent = (self.folder / "large.jsonl").read_bytes().splitlines(keepends=True)[1:-1]
        self.assertEqual(hashlib.sha256(b"".join(answer.body.splitlines(keepends=True)[1:-1])).digest(), hashlib.sha256(b"".join(sent)).digest())
        chain = functools.reduce(lambda chain, line: hashlib.sha256(chain + hashlib.sha256(line.rstrip(b"\n")).digest()).digest(), sent, bytes(32))
        self.assertEqual(self.uploaded.json["chain"], chain.hex())
        self.assertLess(self.growth(), 60)

    def test_downloads_that_nobody_reads_hold_nobody_up(self):
        stalled = [self.stalled_download() for _ in range(4)]
        time.sleep(0.5)
        for _ in range(5):
            for path in ("/api/health", "/api/sessions", f"/api/sessions/{self.uploaded.json['id']}/events?from=5000"):
                self.assertEqual(self.call("GET", path).status, 200)
        answer = self.call("POST", "/api/sessions", hail_file(new_session()), Content_Type="text/plain")
        self.assertEqual(answer.status, 201)
        print(f"4 stalled downloads: {self.growth():.0f} MB of memory", file=sys.stderr)
        for connection in stalled:
            connection.close()

    def stalled_download(self):
        """A connection that asks for the whole file and never reads it."""
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", self.server.port))
        connection.sendall(f"GET /api/sessions/{self.uploaded.json['id']}/raw HTTP/1.1\r\nHost: localhost\r\n"
                           f"Authorization: Bearer {self.key}\r\n\r\n".encode())
        return connection

    def test_one_line_of_30_mb_is_stored_and_shown_cut_and_one_of_60_mb_is_refused(self):
        for size, status in [(60, 413), (30, 201)]:
            session = hail_file(new_session(f"line-{size}", events=[new_event(text="x" * (size * MIB))]))
            seconds, answer = timed(lambda: self.call("POST", "/api/sessions", session, Content_Type="application/jsonl"))
            self.assertEqual(answer.status, status, answer)
            print(f"a line of {size} MB: {answer.status} in {seconds:.1f} s, {self.growth():.0f} MB of memory", file=sys.stderr)
        window = self.call("GET", f"/api/sessions/{answer.json['id']}/events")
        self.assertEqual(window.json["events"][0]["content"]["blocks"][0]["full_size"], 30 * MIB)
        self.assertLess(len(window.body), 100_000)
        whole = self.call("GET", f"/api/sessions/{answer.json['id']}/events/0")
        self.assertEqual(len(whole.json["content"]["blocks"][0]["text"]), 30 * MIB)
        self.assertLess(self.growth(), 400)
