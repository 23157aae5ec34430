"""A laptop with a real daemon, and a real server, each in a process of its own."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import unittest
import urllib.error
import urllib.request
import uuid
from hashlib import sha256
from pathlib import Path

import daemon
from client import PATIENCE, eventually, free_port

DAEMON = Path(daemon.__file__).absolute()
SERVER = next(path for path in (Path(folder) / "opensession.py" for folder in sys.path) if path.is_file()).absolute()
# The compiled daemon is made once for all laptops of a checkout.
CACHE = Path(tempfile.gettempdir(), f"opensession-{sha256(str(DAEMON).encode()).hexdigest()[:12]}")


def clean_environment(**more):
    """The environment without what would redirect a daemon or a server."""
    kept = {name: value for name, value in os.environ.items()
            if not name.startswith(("OPENSESSION_", "XDG_", "CLAUDE_", "CODEX_")) and name not in ("HOST", "PORT")}
    return {**kept, "XDG_CACHE_HOME": str(CACHE), **more}


class Server:
    """opensession.py on a free port with a folder of its own; `settings` are environment variables for it."""

    def __init__(self, **settings):
        self.settings = settings
        self.folder = Path(tempfile.mkdtemp(prefix="server-"))
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = self.folder / "log"
        self.start()
        self.key = self.call("POST", "/api/register", {"nickname": "ada"})["api_key"]

    def start(self):
        env = clean_environment(HOST="127.0.0.1", PORT=str(self.port), OPENSESSION_DATA_DIR=str(self.folder / "data"),
                                **self.settings)
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen([sys.executable, SERVER], env=env, stdout=log, stderr=log, cwd=self.folder)
        if not eventually(self.answers):
            raise RuntimeError(self.log.read_text())

    def answers(self):
        try:
            return self.call("GET", "/api/health")
        except OSError:
            return None

    def stop(self):
        self.process.terminate()
        self.process.wait(PATIENCE)

    def remove(self):
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def call(self, method, path, body=None, key=None):
        """One request with the first user's key -> JSON."""
        request = urllib.request.Request(self.url + path, json.dumps(body).encode() if body is not None else None,
                                         {"Content-Type": "application/json"}, method=method)
        if key or getattr(self, "key", None):
            request.add_header("Authorization", f"Bearer {key or self.key}")
        with urllib.request.urlopen(request, timeout=PATIENCE) as response:
            return json.loads(response.read() or b"null")

    def sessions(self):
        return self.call("GET", "/api/sessions?per_page=100")["sessions"]

    def session(self, title):
        """The one session of a title, or None."""
        found = [one for one in self.sessions() if one["title"] == title]
        return found[0] if len(found) == 1 else None

    def events(self, server_id):
        return self.call("GET", f"/api/sessions/{server_id}/events?limit=500")["events"]

    def texts(self, server_id):
        """All texts of a session, in order."""
        return [block["text"] for event in self.events(server_id)
                for block in event["content"]["blocks"] if block["type"] == "Text"]

    def uploads(self):
        """What was sent so far: 'whole' or 'delta' for each request, from the server's log."""
        lines = [line.split(" POST ")[1] for line in self.log.read_text().splitlines() if " POST /api/sessions" in line]
        return ["delta" if "/events" in line else "whole" for line in lines]


class Laptop:
    """A home folder, and the daemon that works in it."""

    def __init__(self, server=None):
        self.home = Path(tempfile.mkdtemp(prefix="laptop-"))
        self.server = server
        self.process = None
        self.log = self.home / "daemon.log"
        self.config = self.home / ".config/opensession/daemon.toml"
        self.database = self.home / ".local/share/opensession/local.db"
        self.settings = {}
        if server:
            self.set(server={"url": server.url, "api_key": server.key})

    def set(self, **sections):
        """Write daemon.toml with these keys changed."""
        for section, keys in sections.items():
            self.settings.setdefault(section, {}).update(keys)
        self.config.parent.mkdir(parents=True, exist_ok=True)
        self.config.write_text("".join(
            f"[{section}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
            for section, keys in self.settings.items()))
        self.config.chmod(0o600)

    def command(self, *args, program=DAEMON, env=(), timeout=PATIENCE, input=None):
        """Run a command of the daemon to its end: CompletedProcess."""
        return subprocess.run([sys.executable, program, *args], env=clean_environment(HOME=str(self.home), **dict(env)),
                              capture_output=True, text=True, timeout=timeout, cwd=self.home, input=input)

    def start(self, *args):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen([sys.executable, DAEMON, *args], env=clean_environment(HOME=str(self.home)),
                                            stdout=log, stderr=log, cwd=self.home)

    def stop(self, number=signal.SIGTERM):
        """End the daemon; its exit code."""
        self.process.send_signal(number)
        code, self.process = self.process.wait(PATIENCE), None
        return code

    def remove(self):
        if self.process:
            self.stop(signal.SIGKILL)
        shutil.rmtree(self.home, ignore_errors=True)

    def has(self, sql):
        """What local.db says, nothing before it is there."""
        try:
            return self.database.exists() and self.rows(sql)
        except sqlite3.OperationalError:
            return None

    def rows(self, sql, *args):
        db = sqlite3.connect(self.database)
        try:
            return db.execute(sql, args).fetchall()
        finally:
            db.close()


class Transcript:
    """A Claude Code transcript that grows."""

    def __init__(self, laptop, project="-home-ada-work-demo", cwd="/home/ada/work/demo", folder=None):
        self.id = str(uuid.uuid4())
        self.cwd = cwd
        self.minute = 0
        self.path = (folder or laptop.home / ".claude/projects" / project) / f"{self.id}.jsonl"
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def record(self, kind, content, **fields):
        self.minute += 1
        return json.dumps({
            "type": kind, "uuid": f"{self.id[:24]}{self.minute:012x}", "sessionId": self.id, "isSidechain": False,
            "timestamp": f"2026-02-11T{self.minute // 60:02d}:{self.minute % 60:02d}:00.000Z", "cwd": self.cwd,
            "version": "2.1.41", "gitBranch": "main", "message": {"role": kind, "content": content, **fields}}) + "\n"

    def write(self, *lines):
        with open(self.path, "a") as file:
            file.writelines(lines)
        return self

    def prompt(self, text):
        return self.write(self.record("user", text))

    def reply(self, text):
        return self.write(self.record("assistant", [{"type": "text", "text": text}], id=f"msg_{self.minute}",
                                      model="claude-opus-4-6", usage={"input_tokens": 10, "output_tokens": 2}))

    def shell(self, command, call_id):
        return self.write(self.record("assistant", [{"type": "tool_use", "id": call_id, "name": "Bash",
                                                     "input": {"command": command}}],
                                      id=f"msg_{self.minute}", model="claude-opus-4-6"))

    def result(self, call_id, text, failed=False):
        return self.write(self.record("user", [{"type": "tool_result", "tool_use_id": call_id, "content": text,
                                                "is_error": failed}]))


def rollout(laptop, prompt):
    """Write a small Codex session; returns its path."""
    thread = str(uuid.uuid4())
    path = laptop.home / f".codex/sessions/2026/02/11/rollout-2026-02-11T06-00-00-{thread}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    records = [
        ("session_meta", {"id": thread, "timestamp": "2026-02-11T06:00:00.000Z", "cwd": "/home/ada/work/demo",
                          "originator": "codex_cli_rs", "cli_version": "0.100.0", "source": "cli"}),
        ("turn_context", {"cwd": "/home/ada/work/demo", "model": "gpt-5.2-codex"}),
        ("event_msg", {"type": "user_message", "message": prompt}),
        ("response_item", {"type": "message", "role": "user", "content": [{"type": "input_text", "text": prompt}]}),
        ("response_item", {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Done."}]}),
    ]
    path.write_text("".join(json.dumps({"timestamp": f"2026-02-11T06:00:0{second}.000Z", "type": kind, "payload": payload})
                            + "\n" for second, (kind, payload) in enumerate(records)))
    return path


class LaptopCase(unittest.TestCase):
    """Tests with one server for all of them, and a laptop that is signed in for each."""

    @classmethod
    def setUpClass(cls):
        cls.server = Server()
        cls.addClassCleanup(cls.server.remove)

    def setUp(self):
        self.laptop = Laptop(self.server)
        self.addCleanup(self.laptop.remove)
