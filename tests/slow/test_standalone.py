"""opensession.py, schema.sql and static/, copied alone to an empty folder, are a whole server."""

import json
import shutil
import tempfile
import unittest
from pathlib import Path

from client import SERVER, call, hail_file, new_session, running_server


class Standalone(unittest.TestCase):
    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        for name in ("opensession.py", "schema.sql"):
            shutil.copy(SERVER.with_name(name), self.folder)
        shutil.copytree(SERVER.with_name("static"), self.folder / "static")
        self.server = self.enterContext(running_server(self.folder, server=self.folder / "opensession.py"))
        self.key = self.call("POST", "/api/register", b'{"nickname":"ada"}', Content_Type="application/json").json["api_key"]

    def call(self, *request, **headers):
        return call(self.server.port, *request, key=getattr(self, "key", None), **headers)

    def test_the_page_and_its_files_are_served(self):
        page = self.call("GET", "/")
        self.assertEqual(page.status, 200)
        self.assertTrue(page.headers["Content-Type"].startswith("text/html"))
        for path in (self.folder / "static").rglob("*.*"):
            if path.name == "index.html":       # names the others by their version
                continue
            answer = self.call("GET", f"/{path.relative_to(self.folder / 'static')}")
            self.assertEqual((answer.status, answer.body), (200, path.read_bytes()), path.name)

    def test_a_session_is_stored_and_read(self):
        answer = self.call("POST", "/api/sessions", hail_file(new_session("s-1")), Content_Type="application/jsonl")
        self.assertEqual(answer.status, 201, answer)
        self.assertEqual(self.call("GET", "/api/sessions").json["total"], 1)
        self.assertEqual(len(self.call("GET", f"/api/sessions/{answer.json['id']}/raw").lines), 4)

    def test_a_tools_own_transcript_is_refused_with_a_clear_sentence(self):
        transcript = json.dumps({"type": "user", "sessionId": "x", "message": {"role": "user", "content": "Hello"}}).encode() + b"\n"
        for kind in ("text/plain", "application/jsonl", "application/json"):
            answer = self.call("POST", "/api/sessions?filename=x.jsonl", transcript, Content_Type=kind)
            self.assertEqual(answer.status, 415, answer)
            self.assertIn("daemon.py", answer.json["error"])

    def test_nothing_is_written_but_the_data_directory(self):
        names = {path.name for path in self.folder.iterdir()} - {"__pycache__"}
        self.assertEqual(names, {"opensession.py", "schema.sql", "static", "data"})
