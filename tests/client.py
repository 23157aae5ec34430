"""Calls the server through its front door, and makes sessions to send there.

In one process (no sockets): a ServerCase gives each test a server of its own on an
empty data directory, and Clients that speak to it.

    class TeamsCanBeMade(ServerCase):
        def test_the_first_user_may_make_a_team(self):
            ada = self.register("ada")                      # a Client with her key
            answer = ada.post("/api/teams", {"name": "core"})
            self.assertEqual(answer.status, 201)
            self.assertEqual(answer.json["name"], "core")

Over a socket: `with running_server(folder) as server:` starts `opensession.py`.
"""

import contextlib
import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
import unittest
import urllib.parse
import uuid
from http.cookies import SimpleCookie
from pathlib import Path
from types import SimpleNamespace
from wsgiref.headers import Headers

import opensession

SERVER = Path(opensession.__file__).resolve()
PATIENCE = 300      # seconds: what is waited for comes sooner or never, but a machine may be very busy


class Answer:
    """What came back: `status` (int), `headers` (case does not matter), `body` (bytes), `json` (its value)."""

    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, Headers(headers), body

    @property
    def json(self):
        return json.loads(self.body, parse_constant=lambda name: 1 / 0)

    @property
    def lines(self):
        """The values of a body in JSON lines."""
        return [json.loads(line) for line in self.body.splitlines()]

    def __repr__(self):
        return f"<{self.status} {self.body[:500]!r}>"


class Client:
    """Somebody who calls: with a key, with the cookies that came before, or as nobody.

    Change `key`, `host`, `address` (where the call comes from) or `origin` at will;
    `headers` go along with every call; `cookies` are kept as a browser does."""

    def __init__(self, key=None, host="localhost:3000", address="127.0.0.1", origin=None):
        self.key, self.host, self.address, self.origin = key, host, address, origin
        self.headers, self.cookies = {}, {}
        self.user_id = self.team_id = self.nickname = None      # register() fills them in

    def get(self, url, **more):
        return self.request("GET", url, **more)

    def delete(self, url, **more):
        return self.request("DELETE", url, **more)

    def post(self, url, value=None, **more):
        return self.request("POST", url, value, **more)

    def put(self, url, value=None, **more):
        return self.request("PUT", url, value, **more)

    def request(self, method, url, value=None, body=None, type=None, headers=()):
        """Send a call; the body is `value` as JSON, or the bytes of `body` with the content type `type`."""
        if body is None:
            body = b"" if value is None else json.dumps(value).encode()
            type = type or (None if value is None else "application/json")
        environ = self._environ(method, url, body, type, {**self.headers, **dict(headers)})
        started = []
        pieces = opensession.app(environ, lambda status, headers, error=None: started.append((status, headers)))
        try:
            answer = Answer(int(started[0][0][:3]), started[0][1], b"".join(pieces))
        finally:
            if hasattr(pieces, "close"):
                pieces.close()
        self._keep_cookies(answer)
        return answer

    def _environ(self, method, url, body, type, headers):
        path, _, query = url.partition("?")
        environ = {
            "REQUEST_METHOD": method, "SCRIPT_NAME": "", "QUERY_STRING": query,
            "PATH_INFO": urllib.parse.unquote_to_bytes(path).decode("latin-1"),
            "SERVER_NAME": "localhost", "SERVER_PORT": "3000", "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": self.address, "HTTP_HOST": self.host,
            "wsgi.version": (1, 0), "wsgi.url_scheme": "http", "wsgi.input": io.BytesIO(body),
            "wsgi.errors": io.StringIO(), "wsgi.multithread": True, "wsgi.multiprocess": False, "wsgi.run_once": False,
        }
        if body:
            environ["CONTENT_LENGTH"] = str(len(body))
        if type:
            environ["CONTENT_TYPE"] = type
        if self.key:
            headers = {"Authorization": f"Bearer {self.key}", **headers}
        if self.cookies:
            headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items()), **headers}
        if self.origin:
            headers = {"Origin": self.origin, **headers}
        return environ | {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers.items()}

    def _keep_cookies(self, answer):
        for header in answer.headers.get_all("Set-Cookie"):
            for name, cookie in SimpleCookie(header).items():
                if cookie["max-age"] in ("0", "-1"):
                    self.cookies.pop(name, None)
                else:
                    self.cookies[name] = cookie.value


class ServerCase(unittest.TestCase):
    """A test with a server of its own.  `SETTINGS` are environment variables for it."""

    SETTINGS = {}

    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self._lock = None
        self.restart(**self.SETTINGS)
        self.addCleanup(self._stop)

    def restart(self, **settings):
        """Start the server (again) on the same data directory, with these settings."""
        self._stop()
        opensession.configure({"OPENSESSION_DATA_DIR": str(self.folder / "data"), **settings})
        self._lock = opensession.open_data_dir()

    def _stop(self):
        if self._lock:
            opensession.db._connection().close()
            self._lock.close()
        self._lock = None
        tempfile.tempdir = None         # the server pointed it into its data directory

    def rows(self, sql, *args):
        """Look into the database: rows as dicts."""
        return [dict(row) for row in opensession.db.execute(sql, args)]

    def change(self, sql, *args):
        """Change the database behind the server's back, as time or an accident would."""
        opensession.db.batch([(sql, args)])

    def index(self):
        """Bring the search index up to date, as a thread of the server does."""
        while opensession.index_some(opensession.db):
            pass

    def register(self, nickname, invite=None, **caller):
        """A Client for a new account; `caller` as for Client.  Fails where the server refuses."""
        client = Client(**caller)
        answer = client.post("/api/register", {"nickname": nickname} | ({"invite": invite} if invite else {}))
        self.assertEqual(answer.status, 201, answer)
        client.key, client.nickname = answer.json["api_key"], nickname
        client.user_id, client.team_id = answer.json["user_id"], answer.json["team_id"]
        return client

    def new_team(self, admin, name="core", members=(), **facts):
        """The id of a team that `admin` makes; `members` are Clients, or (Client, role)."""
        answer = admin.post("/api/teams", {"name": name, **facts})
        self.assertEqual(answer.status, 201, answer)
        for each in members:
            client, role = each if isinstance(each, tuple) else (each, "member")
            added = admin.post(f"/api/teams/{answer.json['id']}/members", {"nickname": client.nickname, "role": role})
            self.assertEqual(added.status, 201, added)
        return answer.json["id"]

    def upload(self, client, session=None, team_id=None):
        """The server's id of a session that `client` sends as JSON; see new_session."""
        body = {"session": session or new_session()} | ({"team_id": team_id} if team_id else {})
        answer = client.post("/api/sessions", body)
        self.assertIn(answer.status, (200, 201), answer)
        return answer.json["id"]

    def check(self, answer, status, sentence=None):
        """Fail unless an answer has this status (and is this error)."""
        self.assertEqual(answer.status, status, answer)
        if status >= 400:
            self.assertIsInstance(answer.json["error"], str)
        if sentence:
            self.assertEqual(answer.json["error"], sentence)
        return answer


# ---------------------------------------------------------------------------
# Sessions
# ---------------------------------------------------------------------------

def new_event(kind="UserMessage", text="Hello", at=0, data=None, **more):
    """A HAIL event in object form, `at` seconds after 2026-02-11T06:00:00Z."""
    event_type = {"type": kind} | ({"data": data} if data else {})
    return {"event_id": str(uuid.uuid4()), "timestamp": moment(at), "event_type": event_type,
            "content": {"blocks": [{"type": "Text", "text": text}] if text else []}, "attributes": {}, **more}


def new_session(session_id=None, events=None, tool="claude-code", **context):
    """A HAIL session in the object form of the original: two messages, unless `events` are given."""
    if events is None:
        events = [new_event(text="Where is the spoon?"), new_event("AgentMessage", "In the drawer.", at=5)]
    return {
        "version": "hail-1.0.0", "session_id": session_id or str(uuid.uuid4()),
        "agent": {"provider": "anthropic", "model": "claude-opus-4-6", "tool": tool, "tool_version": "1.0.0"},
        "context": {"tags": [], "created_at": moment(0), "updated_at": moment(len(events)), **context},
        "events": events, "stats": {"event_count": len(events)},
    }


def moment(seconds):
    """A time in UTC, seconds after the start of all our sessions."""
    return f"2026-02-11T{6 + seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}Z"


def hail_file(session):
    """The same session as a HAIL file: a header line, event lines, a stats line."""
    header = {name: value for name, value in session.items() if name not in ("events", "stats")}
    lines = [{"type": "header", **header}, *({"type": "event", **event} for event in session["events"]),
             {"type": "stats", **session["stats"]}]
    return b"".join(json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in lines)


# ---------------------------------------------------------------------------
# A server over a socket
# ---------------------------------------------------------------------------

def server_process(folder, *arguments, server=SERVER, **settings):
    """`opensession.py` as a process of its own, with pipes; settings are environment variables."""
    environ = {"PATH": os.environ["PATH"], "OPENSESSION_DATA_DIR": str(Path(folder) / "data"), **settings}
    return subprocess.Popen([sys.executable, str(server), *arguments], env=environ, cwd=folder, text=True,
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def command(folder, *arguments, **settings):
    """A command of opensession.py run to its end: `code`, what it `said`, what it `complained`."""
    process = server_process(folder, *map(str, arguments), **settings)
    said, complained = process.communicate(timeout=PATIENCE)
    return SimpleNamespace(code=process.returncode, said=said, complained=complained)


def killed_command(folder, function, at, *arguments):
    """The same, killed as by a power cut when it calls a function, as "os.rename", for the n-th time; whether it got so far."""
    code = textwrap.dedent(f"""
        import os, shutil, signal, sys
        sys.path[:0] = {[str(SERVER.parent), *sys.path]!r}
        import opensession
        calls, real = [], {function}
        def dying(*arguments, **more):
            calls.append(1)
            if len(calls) == {at}:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **more)
        {function} = dying
        opensession.main({[*map(str, arguments)]!r})
    """)
    environ = {"PATH": os.environ["PATH"], "OPENSESSION_DATA_DIR": str(Path(folder) / "data")}
    return subprocess.run([sys.executable, "-c", code], env=environ, cwd=folder, capture_output=True).returncode == -signal.SIGKILL


@contextlib.contextmanager
def running_server(folder, **settings):
    """A process that serves until the block ends; `port` says where, `exchange` talks to it; see server_process."""
    port = free_port()
    # Of each request a line: nobody reads them from the pipe, which then is full one day, and the server waits.
    process = server_process(folder, **{"PORT": str(port), "OPENSESSION_LOG": "warn", **settings})
    try:
        process.port = port
        process.exchange = lambda data, **more: exchange(port, data, **more)
        wait_for_port(process)
        yield process
    finally:
        process.kill()
        process.communicate()


def call(port, method, path, body=None, key=None, seconds=PATIENCE, **headers):
    """An Answer over a socket; `body` is bytes or an open file; `Content_Type=…` and so on are headers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    if hasattr(body, "fileno"):
        headers["Content-Length"] = str(os.fstat(body.fileno()).st_size)
    with contextlib.closing(connection):
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return Answer(response.status, response.getheaders(), response.read())


def free_port():
    """A port that the system gives to nobody else for a minute: until then the end of a connection lingers on it."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        server.accept()[0].close()      # who closes first is who lingers
        return server.getsockname()[1]


def wait_for_port(process, seconds=PATIENCE):
    """Return when somebody listens; fail when the process ends before."""
    until = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < until:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", process.port), 1).close()
            return
        time.sleep(0.02)
    process.kill()
    raise AssertionError(f"no server: {process.communicate()}")


def eventually(condition, seconds=PATIENCE):
    """Wait until a condition gives something true; return it, or what it gave last."""
    end = time.monotonic() + seconds
    while not (result := condition()) and time.monotonic() < end:
        time.sleep(0.05)
    return result


def exchange(port, data, seconds=30):
    """Send raw bytes, return all that comes back until the server closes or is silent for some seconds."""
    received = b""
    with socket.create_connection(("127.0.0.1", port), seconds) as connection:
        with contextlib.suppress(OSError):
            connection.sendall(data)
        with contextlib.suppress(OSError):
            while piece := connection.recv(1 << 16):
                received += piece
    return received
