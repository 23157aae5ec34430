"""A server over a socket, and what it has stored, looked at from outside."""

import contextlib
import functools
import hashlib
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

from client import PATIENCE, SERVER, call, free_port, wait_for_port


@contextlib.contextmanager
def logged_server(folder, *arguments, program=SERVER, **settings):
    """A process that serves until the block ends, as client.running_server; `log` is a file, so that it may grow long."""
    folder, port = Path(folder), free_port()
    environ = {"PATH": os.environ["PATH"], "PORT": str(port), "OPENSESSION_DATA_DIR": str(folder / "data"),
               "OPENSESSION_LOG": "warn", **settings}
    with open(folder / "log", "ab") as log:
        process = subprocess.Popen([sys.executable, program, *arguments], env=environ, cwd=folder, stdin=subprocess.DEVNULL,
                                   stdout=log, stderr=log, text=True)
    process.port, process.log = port, folder / "log"
    try:
        wait_for_port(process)
        yield process
    finally:
        process.kill()
        process.wait()


def chain_of(lines):
    """The content identity of event lines, as hex."""
    return functools.reduce(lambda chain, line: hashlib.sha256(chain + hashlib.sha256(line.rstrip(b"\n")).digest()).digest(),
                            lines, bytes(32)).hex()


def raw_lines(port, key, name):
    """The event lines of one's session by the tool's name for it; None where it is not there.  Raises where they are no whole."""
    known = call(port, "POST", f"/api/sessions/{name}/events", b"", key=key, Content_Type="application/jsonl")
    if known.status in (404, 410):
        return None
    raw = call(port, "GET", f"/api/sessions/{known.json['id']}/raw", key=key)
    lines = raw.body.splitlines(keepends=True)[1:-1]
    if (known.status, raw.status, known.json["event_count"], known.json["chain"]) != (200, 200, len(lines), chain_of(lines)):
        raise AssertionError(f"{name} is not whole: {known} {raw}")
    return lines


def litter(data):
    """The names of files that no row names, and of rows without a file.  Raises where the database is damaged."""
    with contextlib.closing(sqlite3.connect(data / "opensession.db")) as database:
        if database.execute("PRAGMA integrity_check").fetchall() != [("ok",)]:
            raise AssertionError("the database is damaged")
        named = {name for name, in database.execute("SELECT body FROM sessions UNION SELECT body FROM unindexed")}
    there = {path.name for path in [*(data / "bodies").glob("*/*"), *(data / "tmp").iterdir()]}
    return there ^ named


def litter_after(data, seconds=PATIENCE):
    """What litter is left when a sweep has had its time."""
    until = time.monotonic() + seconds
    while (found := litter(data)) and time.monotonic() < until:
        time.sleep(0.05)
    return found
