"""The examples for nginx and Caddy in deploy/, with the real programs in front of a real server (apt install nginx-light caddy)."""

import contextlib
import http.client
import json
import os
import shutil
import socket
import ssl
import subprocess
import tempfile
import unittest
from pathlib import Path

from client import PATIENCE, Answer, call, eventually, free_port, hail_file, new_event, new_session, running_server
from test_deploy import UNITS

PLACES = f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin"
NAME = "sessions.example.org"
NGINX = """
daemon off; {user} pid {folder}/pid; error_log {folder}/log;
events {{}}
http {{ access_log off; include {folder}/site; {temporary} }}
"""


class ProxyCase(unittest.TestCase):
    PROGRAM = None

    def setUp(self):
        self.program = shutil.which(self.PROGRAM, path=PLACES)
        if not self.program:
            self.skipTest(f"{self.PROGRAM} is not installed")
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.server = self.enterContext(running_server(
            self.folder, OPENSESSION_BASE_URL=f"https://{NAME}", OPENSESSION_TRUSTED_PROXY="127.0.0.1", OPENSESSION_REGISTRATION="open",
            OPENSESSION_MAX_BODY_MB="8"))
        self.port, self.plain_port = free_port(), free_port()
        self.start()
        token = eventually((self.folder / "data/setup-token").read_text).strip()
        self.key = None
        self.key = self.ask("POST", "/api/register", json.dumps({"nickname": "ada", "invite": token})).json["api_key"]

    def run_proxy(self, check, run):
        """Let the program look at its settings, then run it until the test ends."""
        environ = {"PATH": PLACES, "HOME": str(self.folder), "XDG_DATA_HOME": str(self.folder), "XDG_CONFIG_HOME": str(self.folder)}
        checked = subprocess.run([self.program, *check], capture_output=True, text=True, env=environ)
        self.assertEqual(checked.returncode, 0, checked.stderr)
        with open(self.folder / "proxy.log", "wb") as log:
            proxy = subprocess.Popen([self.program, *run], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environ)
        self.addCleanup(proxy.wait)
        self.addCleanup(proxy.terminate)
        self.assertTrue(eventually(lambda: proxy.poll() is not None or self.is_up()))
        self.assertIsNone(proxy.poll(), (self.folder / "proxy.log").read_text())

    def is_up(self):
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.ask("GET", "/api/health").status == 200

    def connect(self):
        """A connection over TLS.  The certificate is our own; the name is what chooses it."""
        context = ssl._create_unverified_context()
        return context.wrap_socket(socket.create_connection(("127.0.0.1", self.port), PATIENCE), server_hostname=NAME)

    def ask(self, method, path, body=None, **headers):
        """An Answer that came through the proxy."""
        connection = http.client.HTTPConnection(NAME, timeout=PATIENCE)
        connection.sock = self.connect()
        headers = {"Content-Type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
        if getattr(self, "key", None) and "Cookie" not in headers:
            headers["Authorization"] = f"Bearer {self.key}"
        with contextlib.closing(connection):
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return Answer(response.status, response.getheaders(), response.read())

    def check_all(self):
        """What a server behind this proxy must do."""
        large = hail_file(new_session("large", events=[new_event(text=f"{number} " + os.urandom(50_000).hex()) for number in range(50)]))
        session_id = self.ask("POST", "/api/sessions", large, Content_Type="application/jsonl").json["id"]
        raw = self.ask("GET", f"/api/sessions/{session_id}/raw")
        self.assertEqual(raw.body.splitlines()[1:-1], large.splitlines()[1:-1])
        self.assertEqual(raw.headers["Strict-Transport-Security"], "max-age=31536000")
        self.check_browser()
        self.check_address()
        self.check_framing()
        self.check_plain()

    def check_browser(self):
        login = self.ask("POST", "/api/auth/login", json.dumps({"api_key": self.key}), Origin=f"https://{NAME}")
        cookie = login.headers["Set-Cookie"].partition(";")[0]
        for origin, status in ((f"https://{NAME}", 201), ("https://evil.example", 403), (f"https://{NAME}.evil.example", 403)):
            answer = self.ask("POST", "/api/teams", json.dumps({"name": "x"}), Cookie=cookie, Origin=origin)
            self.assertEqual(answer.status, status, answer)

    def check_address(self):
        """Who writes an address of their own before the proxy's, in any spelling, is seen all the same; nobody looks local."""
        for spelling in ("X-Forwarded-For", "X_Forwarded_For", "x-forwarded-for"):
            self.ask("POST", "/api/auth/login", json.dumps({"api_key": "wrong"}), **{spelling: "203.0.113.9"})
        acts = self.ask("GET", "/api/audit").json["acts"]
        self.assertEqual({act["address"] for act in acts}, {"127.0.0.1"})
        self.assertEqual(self.ask("GET", "/api/health").json["registration"], "open")
        self.assertEqual(call(self.server.port, "GET", "/metrics").status, 404)

    def check_framing(self):
        """A request hidden in the body of another does not reach the server as one."""
        hidden = b"DELETE /api/teams/x HTTP/1.1\r\nHost: localhost\r\n\r\n"
        with self.connect() as connection:
            connection.sendall(f"POST /api/auth/logout HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: {len(hidden) + 5}\r\n"
                               "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n".encode() + b"0\r\n\r\n" + hidden)
            answer = b""
            with contextlib.suppress(OSError):
                while piece := connection.recv(1 << 16):
                    answer += piece
        self.assertLessEqual(answer.count(b"HTTP/1."), 1, answer)
        self.assertEqual(self.ask("GET", "/api/health").status, 200)

    def check_plain(self):
        """Without TLS there is nothing but the way to TLS."""
        answer = call(self.plain_port, "GET", "/session/x", Host=NAME)
        self.assertIn(answer.status, (301, 308))
        self.assertRegex(answer.headers["Location"], f"^https://{NAME}(:[0-9]+)?/session/x$")


class Nginx(ProxyCase):
    PROGRAM = "nginx"

    def start(self):
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={NAME}",
                        "-keyout", self.folder / "key.pem", "-out", self.folder / "cert.pem"], check=True, capture_output=True)
        site = (UNITS / "nginx.conf").read_text()
        for old, new in ((f"/etc/letsencrypt/live/{NAME}/fullchain.pem", f"{self.folder}/cert.pem"),
                         (f"/etc/letsencrypt/live/{NAME}/privkey.pem", f"{self.folder}/key.pem"),
                         ("listen 443 ssl", f"listen 127.0.0.1:{self.port} ssl"), ("listen 80;", f"listen 127.0.0.1:{self.plain_port};"),
                         ("    listen [::]:443 ssl;\n", ""), ("    listen [::]:80;\n", ""), ("127.0.0.1:3000", f"127.0.0.1:{self.server.port}"),
                         ("client_header_timeout 10s", "client_header_timeout 1s"), ("client_max_body_size 256m", "client_max_body_size 8m")):
            self.assertIn(old, site)
            site = site.replace(old, new)
        (self.folder / "site").write_text(site)
        temporary = " ".join(f"{kind}_temp_path {self.folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        settings = NGINX.format(folder=self.folder, temporary=temporary, user="user root;" if os.getuid() == 0 else "")
        (self.folder / "nginx.conf").write_text(settings)
        options = ["-c", str(self.folder / "nginx.conf"), "-p", str(self.folder)]
        self.run_proxy(["-t", *options], options)

    def test_behind_nginx_all_is_as_it_should_be(self):
        self.check_all()
        self.assertEqual(self.ask("POST", "/api/sessions", b"x" * (9 << 20)).status, 413)

    def test_who_sends_no_whole_header_is_let_go(self):
        with self.connect() as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: ")
            self.assertEqual(connection.recv(1 << 16), b"")


class Caddy(ProxyCase):
    PROGRAM = "caddy"

    def start(self):
        site = (UNITS / "Caddyfile").read_text()
        for old, new in (("\n{\n", f"\n{{\n\tadmin off\n\tskip_install_trust\n\thttps_port {self.port}\n\thttp_port {self.plain_port}\n"),
                         (f"\n{NAME} {{\n", f"\n{NAME} {{\n\ttls internal\n"), ("127.0.0.1:3000", f"127.0.0.1:{self.server.port}"),
                         ("read_header 10s", "read_header 1s")):
            self.assertIn(old, site)
            site = site.replace(old, new)
        (self.folder / "Caddyfile").write_text(site)
        options = ["--config", str(self.folder / "Caddyfile"), "--adapter", "caddyfile"]
        self.run_proxy(["validate", *options], ["run", *options])

    def test_behind_caddy_all_is_as_it_should_be(self):
        self.check_all()

    def test_who_sends_no_whole_header_is_let_go(self):
        with self.connect() as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: ")
            self.assertEqual(connection.recv(1 << 16), b"")


if __name__ == "__main__":
    unittest.main()
