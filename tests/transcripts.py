"""The ground of a parser's tests: a temporary folder, and sessions read from it through the tool's own sources."""

import json
import os
import tempfile
import unittest
from pathlib import Path

import daemon
from damage import read_sessions

CORPUS = Path(os.environ.get("OPENSESSION_CORPUS") or Path(__file__).parents[2] / "shared" / "corpus")


class ParserTest(unittest.TestCase):
    tool = None

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.home = Path(self.folder.name).resolve()

    def write(self, name, content):
        """Write bytes, one object as JSON, or records as JSON lines; returns the path."""
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not isinstance(content, bytes):
            content = json.dumps(content).encode() if isinstance(content, dict) else json_lines(content)
        path.write_bytes(content)
        return path

    def sessions(self, path, tool=None):
        """[(session, its events)] of a file or folder."""
        tool = tool or self.tool
        return [found for source in daemon.TOOLS[tool].sources(path) for found in read_sessions(tool, source)]

    def read(self, path, tool=None):
        """(session, events) of the only session there."""
        [(session, events)] = self.sessions(path, tool)
        return session, events


def json_lines(records):
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def in_usual_places(tool, home, **env):
    """The sessions that a tool has below a home folder, where it looks by itself."""
    tool = daemon.TOOLS[tool]
    return [session.session_id for root in tool.roots(env, home) for source in tool.sources(root)
            for session in tool.parse(source) if list(session.events)]
