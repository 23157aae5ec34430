"""The Dockerfile's own steps, run in order in a clean folder as a user without rights, as a container engine would."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from client import PATIENCE, call, free_port, hail_file, new_session, wait_for_port
from test_deploy import ROOT, dockerfile, rest_of

# A user without rights cannot run a Python below a home folder that it may not enter; Debian's own will do.
PYTHON = "/usr/bin/python3" if os.access("/usr/bin/python3", os.X_OK) and os.getuid() == 0 else sys.executable


class Container(unittest.TestCase):
    def setUp(self):
        self.root = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.root.chmod(0o755)
        self.workdir, self.port = self.root, str(free_port())
        self.environ = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(self.root / "site")}
        self.user = {}
        for instruction, rest in dockerfile():
            getattr(self, f"do_{instruction.lower()}", lambda rest: None)(rest)

    def inside(self, word):
        """A word of a command with paths of the image where the image is."""
        return word.replace("/data", str(self.root / "data")).replace("/app", str(self.root / "app"))

    def do_env(self, rest):
        self.environ |= {name: self.inside(value) for name, value in (pair.split("=", 1) for pair in shlex.split(rest))}
        self.environ["PORT"] = self.port

    def do_workdir(self, rest):
        self.workdir = self.root / rest.strip("/")
        self.workdir.mkdir()

    def do_copy(self, rest):
        *sources, target = rest.split()
        for source in sources:
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, self.workdir / target)
            else:
                shutil.copy(ROOT / source, self.workdir / target)

    def do_run(self, rest):
        words = [self.inside(word) for word in shlex.split(rest)]
        if words[0] == "pip":       # as the image has no other packages, we look at no others
            words = [sys.executable, "-m", *words, "--quiet", "--target", str(self.root / "site")]
        elif os.getuid():
            words = [word for word in words if word not in ("-o", "-g", "10001")]
        subprocess.run(words, cwd=self.workdir, env={**os.environ, **self.environ}, check=True)

    def do_user(self, rest):
        if os.getuid() == 0:
            user, group = map(int, rest.split(":"))
            self.user = {"user": user, "group": group, "extra_groups": []}

    def start(self, command):
        words = [PYTHON if word == "python" else word for word in json.loads(command)]
        return subprocess.Popen(words, cwd=self.workdir, env=self.environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True, **self.user)

    def healthy(self):
        return self.start(rest_of("HEALTHCHECK").partition("CMD ")[2]).wait() == 0

    def test_it_serves_is_healthy_writes_only_its_data_and_stops_when_told(self):
        for path in [*self.root.rglob("*"), self.root]:
            if "data" not in path.parts[len(self.root.parts):][:1]:
                path.chmod(0o555 if path.is_dir() else 0o444)
        before = {path for path in self.root.rglob("*") if (self.root / "data") not in path.parents}
        server = self.start(rest_of("CMD"))
        server.port = int(self.port)
        self.addCleanup(server.kill)
        wait_for_port(server)
        self.assertTrue(self.healthy())
        # From outside a container, nobody is on loopback: so says compose's OPENSESSION_SETUP; here we are, and need no token.
        key = call(server.port, "POST", "/api/register", b'{"nickname":"ada"}', Content_Type="application/json").json.get("api_key")
        key = key or self.register_with_token(server)
        self.assertEqual(call(server.port, "POST", "/api/sessions", hail_file(new_session()), key=key, Content_Type="application/jsonl").status, 201)
        self.assertEqual(call(server.port, "GET", "/").status, 200)
        self.assertEqual({path for path in self.root.rglob("*") if (self.root / "data") not in path.parents}, before)
        if self.user:
            self.assertEqual({path.stat().st_uid for path in [self.root / "data", *(self.root / "data").rglob("*")]}, {self.user["user"]})
        server.send_signal(signal.SIGTERM)
        self.assertEqual(server.wait(PATIENCE), 0)
        self.assertFalse(self.healthy())

    def register_with_token(self, server):
        token = (self.root / "data/setup-token").read_text().strip()
        body = json.dumps({"nickname": "ada", "invite": token}).encode()
        return call(server.port, "POST", "/api/register", body, Content_Type="application/json").json["api_key"]


if __name__ == "__main__":
    unittest.main()
