"""What a power cut must not take is on the disk before the answer goes out: proven by a trace of system calls."""

import contextlib
import re
import shutil
import signal
import subprocess
import tempfile
import unittest
from pathlib import Path

from client import call, hail_file, new_event, new_session, running_server
from figures import reached

TRACED = "write,pwrite64,fsync,fdatasync,rename,renameat,renameat2,mkdir,unlink,sendto"


@contextlib.contextmanager
def traced(process, *options):
    """Trace a process's threads while the block runs; yields a list that has the lines afterwards."""
    with tempfile.NamedTemporaryFile() as out:
        tracer = subprocess.Popen(["strace", "-f", "-y", "-s", "24", "-p", str(process.pid), "-o", out.name, *options],
                                  stderr=subprocess.PIPE, text=True)
        line = tracer.stderr.readline()
        if "attached" not in line:
            raise unittest.SkipTest(f"no right to trace: {line}")
        lines = []
        try:
            yield lines
        finally:
            tracer.send_signal(signal.SIGINT)
            tracer.communicate()
            lines += Path(out.name).read_text(errors="replace").splitlines()


@unittest.skipUnless(shutil.which("strace"), "strace is not installed")
class Order(unittest.TestCase):
    """Each test names the system calls of one request, in order; see steps()."""

    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.server = self.enterContext(running_server(self.folder, OPENSESSION_LOG="warn"))
        self.key = self.call("POST", "/api/register", b'{"nickname":"ada"}', "application/json").json["api_key"]
        self.id = self.call("POST", "/api/sessions", hail_file(new_session("s-1"))).json["id"]

    def call(self, method, path, body=None, kind="application/jsonl"):
        return call(self.server.port, method, path, body, key=getattr(self, "key", None), Content_Type=kind)

    def steps(self, method, path, body=None):
        """What the thread that answers a request asked of the system: ["write draft", "fsync draft", …]; repetitions are one."""
        with traced(self.server, "-e", f"trace={TRACED}") as lines:
            answer = self.call(method, path, body)
        self.assertLess(answer.status, 300, answer)
        calls = [call.groups() for call in map(re.compile(r"(\d+) +(\w+)\((.*)").match, lines) if call]
        thread = next(thread for thread, name, rest in calls if name == "sendto" and "HTTP/1.1 20" in rest)
        steps = [f"{name} {place}" for caller, name, rest in calls if caller == thread and (place := self.place(name, rest))]
        return [step for step, before in zip(steps, ["", *steps]) if step != before]

    def place(self, name, rest):
        """What a system call is about, None where it does not matter here."""
        if name == "sendto":
            return "answer"
        names = {"tmp/": "draft", "bodies/../.": "body", "bodies/..$": "folder", "bodies$": "folders", "opensession.db-wal": "log",
                 "opensession.db(?!-)": "database"}
        path = re.search(r'<([^>]*)>' if name in ("write", "pwrite64", "fsync", "fdatasync") else r'"([^"]*)"', rest)[1]
        inside = path.partition(f"{self.folder}/data/")[2]
        return next((place for start, place in names.items() if re.match(start, inside)), None)

    def after_commit(self, steps):
        """The steps with the log's write and sync as one, "commit"; it must be synced.

        An old body goes afterwards, at once or when the search index needs it no more: that step is checked and left out."""
        text = " | ".join(steps)
        self.assertIn("pwrite64 log | fdatasync log", text)
        steps = text.replace("pwrite64 log | fdatasync log", "commit").split(" | ")
        self.assertNotIn("unlink body", steps[:steps.index("commit")])
        return [step for step in steps if step != "unlink body"]

    def test_an_upload_is_on_the_disk_before_its_row_and_its_row_before_the_answer(self):
        steps = self.after_commit(self.steps("POST", "/api/sessions", hail_file(new_session("s-2"))))
        new_folder = ["mkdir folder", "fsync folders"] if "mkdir folder" in steps else []
        self.assertEqual(steps, ["write draft", "fsync draft", *new_folder, "rename draft", "fsync folder", "commit",
                                 "unlink draft", "sendto answer"])
        reached("durability", f"upload: {', '.join(steps)}")

    def test_appended_events_are_on_the_disk_before_the_row_that_counts_them(self):
        steps = self.after_commit(self.steps("POST", f"/api/sessions/{self.id}/events", self.events()))
        self.assertEqual(steps, ["write draft", "write body", "fsync body", "commit", "unlink draft", "sendto answer"])
        reached("durability", f"append: {', '.join(steps)}")

    def test_a_replacement_is_on_the_disk_before_the_old_body_goes(self):
        steps = self.after_commit(self.steps("POST", f"/api/sessions/{self.id}/events?from=1", self.events()))
        self.assertEqual([step for step in steps if step not in ("mkdir folder", "fsync folders")],
                         ["write draft", "fsync draft", "rename draft", "fsync folder", "commit", "unlink draft", "sendto answer"])
        reached("durability", f"replacement: {', '.join(steps)}")

    def test_a_deletion_is_on_the_disk_before_the_body_goes(self):
        steps = self.after_commit(self.steps("DELETE", f"/api/sessions/{self.id}"))
        self.assertEqual(steps, ["commit", "sendto answer"])
        reached("durability", f"deletion: {', '.join(steps)}")

    def events(self):
        events = [new_event(text=f"More {number}") for number in range(3)]
        return b"".join(hail_file(new_session("s-1", events=events)).splitlines(True)[1:-1])


if __name__ == "__main__":
    unittest.main()
