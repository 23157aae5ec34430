"""A fault at every n-th operation of an upload, an append, a replacement and a deletion: either the act is
answered with success and has happened, or it is refused with a sentence and nothing of it is to be seen."""

import contextlib
import json
import os
import re
import shutil
import tempfile
import unittest
from pathlib import Path

from client import call, hail_file, new_event, new_session, running_server
from figures import reached, size
from stored import litter_after, logged_server, raw_lines
from test_durability import traced

HOOKED = Path(__file__).with_name("hooked_server.py")
KINDS = ["EIO", "ENOSPC", "short", "exception", "EROFS"]


def event_lines(text, count=3):
    """Lines of events that fill some blocks."""
    events = [new_event(text=f"{text} {number} " + os.urandom(60_000).hex()) for number in range(count)]
    return [json.dumps({"type": "event", **event}).encode() + b"\n" for event in events]


OLD, NEW = event_lines("old"), event_lines("new")
# Act: the lines before, those afterwards (None: no session), and what is sent; ID is the server's id of the session.
ACTS = {
    "upload": (None, NEW, "POST", "/api/sessions", NEW),
    "upload again": (OLD, NEW, "POST", "/api/sessions", NEW),
    "append": (OLD, OLD + NEW, "POST", f"/api/sessions/ID/events?from={len(OLD)}", NEW),
    "replace": (OLD, OLD[:1] + NEW, "POST", "/api/sessions/ID/events?from=1", NEW),
    "delete": (OLD, None, "DELETE", "/api/sessions/ID", None),
}


class FaultCase(unittest.TestCase):
    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.data, self.count = self.folder / "data", 0

    def call(self, method, path, body=None):
        return call(self.port, method, path, body, key=self.key, Content_Type="application/jsonl")

    def register(self):
        self.key = None
        answer = call(self.port, "POST", "/api/register", b'{"nickname":"ada"}', Content_Type="application/json")
        self.key = answer.json["api_key"]

    def upload(self, name, lines):
        return self.call("POST", "/api/sessions", hail_file(new_session(name, events=[])).splitlines(True)[0] + b"".join(lines))

    def act(self, name, session_id, method, path, lines):
        if path == "/api/sessions":
            return self.upload(name, lines)
        return self.call(method, path.replace("ID", session_id), b"".join(lines or []))

    def suffer(self, title, kind, n):
        """Let the n-th operation of an act fail: (whether it came to that, whether the act succeeded all the same)."""
        before, after, *request = ACTS[title]
        self.count += 1
        name = f"{title}-{kind}-{n}-{self.count}".replace(" ", "-")
        session_id = self.upload(name, before).json["id"] if before else None
        with self.fault(kind, n) as failed:
            answer = self.act(name, session_id, *request)
        happened = bool(failed)
        where = f"{title}, {kind} at operation {n}: {failed} {answer}"
        if answer.status < 300:
            self.assertEqual(raw_lines(self.port, self.key, name), after, where)
        else:
            self.assertIn(answer.status, (500, 503, 507), where)
            self.assertGreater(len(answer.json["error"]), 10, where)
            self.assertTrue(happened, where)
            self.assertEqual(raw_lines(self.port, self.key, name), before, where)
        again = self.act(name, session_id, *request)
        self.assertIn(again.status, (200, 201, 204, 404 if title == "delete" and answer.status < 300 else 204), f"{where}, then {again}")
        self.assertEqual(raw_lines(self.port, self.key, name), after, where)
        return happened, answer.status < 300

    def every_n(self, kinds, acts=ACTS):
        """(faults that happened, how many of those the act survived) of all kinds at all places."""
        results = []
        for kind in kinds:
            for title in acts:
                n = 0
                while not results or results[-1] != (False, True):
                    n += 1
                    results.append(self.suffer(title, kind, n))
                results.pop()
        return len(results), sum(survived for _, survived in results)

    def check_rest(self):
        """Fail unless a server without faults finds no damage and leaves no litter."""
        with running_server(self.folder, OPENSESSION_LOG="warn") as server:
            self.assertEqual(litter_after(self.data), set())
            listed = call(server.port, "GET", "/api/sessions?per_page=100", key=self.key).json["sessions"]
            for session in listed:
                self.assertEqual(call(server.port, "GET", f"/api/sessions/{session['id']}/raw", key=self.key).status, 200)


class Faults(FaultCase):
    def test_a_fault_at_any_operation_is_refused_and_invisible_or_survived(self):
        kinds, self.control = KINDS[:size("faults")], self.folder / "control"
        self.order()
        with logged_server(self.folder, self.control, program=HOOKED) as server:
            self.port = server.port
            self.register()
            faults, survived = self.every_n(kinds)
            log = server.log.read_text()
        self.check_rest()
        self.assertGreater(faults, 20 * len(kinds))
        self.assertEqual("Traceback" in log, "exception" in kinds, log[-3000:])
        reached("faults", f"{faults} faults ({', '.join(kinds)}), {survived} of them survived, the others refused and invisible; 0 litter")

    @contextlib.contextmanager
    def fault(self, kind, n):
        """Arrange a fault while the block runs; yields a list that afterwards names what failed."""
        trace = Path(f"{self.control}.log")
        trace.write_text("")
        self.order(n=n, kind=kind, count=self.count)
        failed = []
        yield failed
        failed += re.findall("^.* failed$", trace.read_text(), re.MULTILINE)
        self.order()

    def order(self, **values):
        new = self.folder / "order"
        new.write_text(json.dumps(values))
        new.replace(self.control)


@unittest.skipUnless(shutil.which("strace"), "strace is not installed")
class SystemCalls(FaultCase):
    """The same one storey lower, where SQLite writes, too: strace lets the system calls of a real server fail."""

    CALLS = ["fdatasync", "fsync", "rename", "unlink", "ftruncate", "pwrite64"]

    def test_a_system_call_that_fails_is_refused_and_invisible_or_survived(self):
        acts = dict(list(ACTS.items())[-size("syscalls"):])
        with running_server(self.folder, OPENSESSION_LOG="error") as self.server:
            self.port = self.server.port
            self.register()
            faults, survived = self.every_n([f"{name}:error={error}" for name in self.CALLS for error in ("EIO", "ENOSPC")], acts)
        self.check_rest()
        self.assertGreater(faults, 10 * len(acts))
        reached("syscalls", f"{faults} faults in {', '.join(self.CALLS)}, {survived} of them survived, "
                            "the others refused and invisible; 0 litter")

    @contextlib.contextmanager
    def fault(self, kind, n):
        name = kind.partition(":")[0]
        with traced(self.server, "-e", f"trace={name}", "-e", f"inject={kind}:when={n}") as lines:
            failed = []
            yield failed
        failed += [line for line in lines if "INJECTED" in line]


if __name__ == "__main__":
    unittest.main()
