"""opensession.py with a hand on its disk and on its clock.

    python tests/slow/hooked_server.py CONTROL

CONTROL is a JSON file that a test writes anew at will:
    {"n": 3, "kind": "EIO"}     the third operation from now on, in a thread that answers requests, fails
    {"clock": -3600}            it is an hour earlier than it is
Beside it, CONTROL.log has a line for each operation: its number, its name, and "failed" where it did.
"""

import errno
import json
import os
import sqlite3
import sys
import threading
import time
from datetime import datetime, timedelta
from pathlib import Path

CONTROL = Path(sys.argv.pop(1))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import opensession


class Failed(Exception):
    """An exception that nobody foresaw."""


FAULTS = {
    "EIO": lambda: OSError(errno.EIO, os.strerror(errno.EIO)),
    "ENOSPC": lambda: OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    "short": lambda: OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),         # after half of the bytes
    "EROFS": lambda: OSError(errno.EROFS, os.strerror(errno.EROFS)),
    "exception": lambda: Failed("nobody foresaw this"),
}
DATABASE_FAULTS = {
    "EIO": lambda: sqlite3.OperationalError("disk I/O error"),
    "EROFS": lambda: sqlite3.OperationalError("attempt to write a readonly database"),
    "exception": lambda: Failed("nobody foresaw this"),
}


class Counter:
    """Counts operations since CONTROL was written; says which one must fail."""

    def __init__(self):
        self.order, self.count = None, 0

    def fault(self, name):
        """The kind of fault that this operation must have, or None."""
        if not threading.current_thread().name.startswith("waitress"):
            return None
        order = CONTROL.read_text()
        if order != self.order:
            self.order, self.count = order, 0
        self.count += 1
        order = json.loads(order)
        kind = order["kind"] if order.get("n") == self.count else None
        with open(f"{CONTROL}.log", "a") as log:
            log.write(f"{self.count} {name}{' failed' if kind else ''}\n")
        return kind


counter = Counter()


def failing(function, name):
    """A function that counts as an operation."""
    def call(*arguments, **more):
        if kind := counter.fault(name):
            raise FAULTS[kind]() if name != "unlink" else PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return function(*arguments, **more)
    return call


class HookedFile:
    """A file whose writing counts."""

    def __init__(self, file):
        self.file = file

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        self.file.__enter__()
        return self

    def __exit__(self, *error):
        return self.file.__exit__(*error)

    def __iter__(self):
        return iter(self.file)

    def write(self, data):
        if kind := counter.fault("write"):
            if kind == "short":
                self.file.write(data[:len(data) // 2])
                self.file.flush()
            raise FAULTS[kind]()
        return self.file.write(data)

    def flush(self):
        if kind := counter.fault("flush"):
            raise FAULTS[kind]()
        self.file.flush()

    def truncate(self, *size):
        if kind := counter.fault("truncate"):
            raise FAULTS[kind]()
        return self.file.truncate(*size)


class HookedConnection(sqlite3.Connection):
    """A connection whose beginnings and ends of writes count."""

    def execute(self, sql, *arguments):
        if sql in ("BEGIN IMMEDIATE", "COMMIT") and (kind := counter.fault(sql)):
            raise DATABASE_FAULTS.get(kind, lambda: sqlite3.OperationalError("database or disk is full"))()
        return super().execute(sql, *arguments)


class ShiftedTime(datetime):
    @classmethod
    def now(cls, zone=None):
        return datetime.now(zone) + timedelta(seconds=shift())


def shift():
    return json.loads(CONTROL.read_text()).get("clock", 0)


def hook():
    """Put the hooks in the place of what opensession.py calls."""
    connect, temporary, real_time = sqlite3.connect, opensession.tempfile.NamedTemporaryFile, time.time
    sqlite3.connect = lambda *arguments, **more: connect(*arguments, factory=HookedConnection, **more)
    opensession.tempfile.NamedTemporaryFile = lambda **more: HookedFile(failing(temporary, "create")(**more))
    opensession.open = lambda path, mode="r", **more: (
        HookedFile(open(path, mode, **more)) if mode == "r+b" else open(path, mode, **more))
    for name in ("fsync", "rename", "unlink"):
        setattr(os, name, failing(getattr(os, name), name))
    opensession.datetime = ShiftedTime
    time.time = lambda: real_time() + shift()


hook()
opensession.main()
