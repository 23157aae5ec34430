#!/usr/bin/env python3
"""opensession: a team server for AI coding sessions.

    python opensession.py            serve ./data on http://127.0.0.1:3000
    python opensession.py --help     every command, every setting and its default

Developers' daemons (daemon.py) send the sessions of Claude Code, Codex and other
tools; the team finds, reads and shares them here.  A session is a HAIL file: one
header, events in order, one stats line.

Where things lie, below the data directory:
    opensession.db   accounts, teams, one row a session (SQLite; see schema.sql)
    bodies/          the events of each session, one deflate stream a file
    tmp/             what is being written; emptied at start
    lock             held while a server runs
    before-*         what was there before a change of the schema, or a restore

A request takes five steps: Bottle finds the handler, `Arguments` hands it `user`
(or `reader`) and `db` as its signature asks, the handler parses, stores and
answers a dict.  Who may call a route is in its signature; what a caller may read
is in the SQL.  An error is raised where it is known and shaped in `error_json`.
"""

import argparse
import base64
import contextlib
import ctypes
import errno
import functools
import io
import ipaddress
import itertools
import json
import logging
import math
import os
import re
import secrets
import shutil
import signal
import sqlite3
import struct
import sys
import tempfile
import threading
import time
import unicodedata
import urllib.parse
import uuid
import zipfile
import zlib
from bisect import bisect_left
from collections import Counter, OrderedDict
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import waitress
import waitress.wasyncore as wasyncore
from bottle import Bottle, HTTPError, HTTPResponse, JSONPlugin, request, response
from waitress.buffers import OverflowableBuffer
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.receiver import ChunkedReceiver
from waitress.server import TcpWSGIServer
from waitress.task import ErrorTask
from waitress.utilities import BadRequest, Error

VERSION = "0.1.0"
log = logging.getLogger("opensession")


class App(Bottle):
    """Bottle, with a last step for every answer, even one that failed badly; see finish_answer."""

    def wsgi(self, environ, start_response):
        environ["opensession.request_id"] = secrets.token_hex(8)
        environ["opensession.started"] = time.monotonic()

        def start(status, headers, error=None):
            return start_response(status, finish_answer(environ, status, headers), error)
        return super().wsgi(environ, start)


app = App()
app.config["json.enable"] = False      # ours is stricter; see json_text

# ---------------------------------------------------------------------------
# Settings
# ---------------------------------------------------------------------------

# Environment variable: default, what it does.  --help prints this table.
SETTINGS = {
    "OPENSESSION_DATA_DIR": ("data", "where the database and the bodies lie"),
    "OPENSESSION_WEB_DIR": ("", "the page's files; empty: static/ beside this file"),
    "OPENSESSION_BASE_URL": ("", "the address that people use; empty: http://localhost:PORT"),
    "HOST": ("127.0.0.1", "address to listen on; 0.0.0.0 opens the server to the network"),
    "PORT": ("3000", "port to listen on"),
    "OPENSESSION_HOSTS": ("", "further host names that requests may use, joined by commas"),
    "OPENSESSION_REGISTRATION": ("", "open, invite or closed; empty: open on loopback, else invite"),
    "OPENSESSION_SETUP": ("", "open: the first registration needs no set-up token"),
    "OPENSESSION_TRUSTED_PROXY": ("", "addresses or networks of the proxies whose X-Forwarded-For counts, joined by commas"),
    "OPENSESSION_UPLOADS_PER_MINUTE": ("3000", "what each account may send; what it left in ten minutes it may send at once"),
    "OPENSESSION_SEARCHES_PER_MINUTE": ("300", "the same for searches; 0: as many as they like"),
    "OPENSESSION_TEAM_CREATION": ("admin", "who may create teams: admin or anyone"),
    "OPENSESSION_MAX_BODY_MB": ("256", "the largest upload, on the wire and decompressed"),
    "OPENSESSION_RESERVE_MB": ("200", "free space on the disk below which uploads are refused"),
    "OPENSESSION_METRICS": ("", "on: numbers for Prometheus at /metrics, for this machine or with the token"),
    "OPENSESSION_METRICS_TOKEN": ("", "who sends it as `Authorization: Bearer` may read the numbers from elsewhere"),
    "OPENSESSION_AUDIT_DAYS": ("180", "how long the audit keeps acts"),
    "OPENSESSION_LOG": ("info", "error, warn, info or debug; RUST_LOG is understood too"),
}
CHOICES = {
    "OPENSESSION_REGISTRATION": ("", "open", "invite", "closed"),
    "OPENSESSION_SETUP": ("", "open"),
    "OPENSESSION_METRICS": ("", "on"),
    "OPENSESSION_TEAM_CREATION": ("admin", "anyone"),
}
LOG_LEVELS = {"error": logging.ERROR, "warn": logging.WARNING, "warning": logging.WARNING,
              "info": logging.INFO, "debug": logging.DEBUG, "trace": logging.DEBUG}
LOOPBACK = {"localhost", "127.0.0.1", "::1"}

settings = SimpleNamespace()
db = None


class BadSetting(Exception):
    """A setting that cannot be used; the text is for the person who wrote it."""


def configure(environ):
    """Read the settings.  Nothing is read from the environment before or after."""
    values = {name: environ.get(name, "").strip() or default for name, (default, _) in SETTINGS.items()}
    for name, allowed in CHOICES.items():
        if values[name] not in allowed:
            raise BadSetting(f"{name} must be one of {', '.join(filter(None, allowed))}, not {values[name]!r}")
    settings.data_dir = Path(values["OPENSESSION_DATA_DIR"]).absolute()
    settings.web_dir = Path(values["OPENSESSION_WEB_DIR"] or Path(__file__).parent / "static").absolute()
    settings.host = values["HOST"]
    settings.port = whole_setting(values, "PORT", 0, 65535)
    settings.base_url = (values["OPENSESSION_BASE_URL"] or f"http://localhost:{settings.port}").rstrip("/")
    if not re.match("https?://[^/]", settings.base_url):
        raise BadSetting(f"OPENSESSION_BASE_URL must begin with http:// or https://, not {settings.base_url!r}")
    settings.registration = values["OPENSESSION_REGISTRATION"]
    settings.setup = values["OPENSESSION_SETUP"]
    settings.team_creation = values["OPENSESSION_TEAM_CREATION"]
    settings.max_body = whole_setting(values, "OPENSESSION_MAX_BODY_MB", 1, 1 << 20) << 20
    settings.trusted_proxies = networks(values["OPENSESSION_TRUSTED_PROXY"])
    settings.limits = {kind: whole_setting(values, f"OPENSESSION_{kind.upper()}_PER_MINUTE", 0, 10**9) for kind in ("uploads", "searches")}
    settings.reserve = whole_setting(values, "OPENSESSION_RESERVE_MB", 0, 1 << 30) << 20
    settings.metrics, settings.metrics_token = values["OPENSESSION_METRICS"], values["OPENSESSION_METRICS_TOKEN"]
    settings.audit_days = whole_setting(values, "OPENSESSION_AUDIT_DAYS", 1, 36500)
    settings.log_level = LOG_LEVELS.get((environ.get("OPENSESSION_LOG") or environ.get("RUST_LOG") or "info").lower(),
                                        logging.INFO)
    names = {name.strip().lower() for name in values["OPENSESSION_HOSTS"].split(",") if name.strip()}
    settings.hosts = names | {host_name(urllib.parse.urlsplit(settings.base_url).netloc)}


def networks(text):
    """The networks in a setting that lists addresses and networks."""
    try:
        return [ipaddress.ip_network(each.strip()) for each in text.split(",") if each.strip()]
    except ValueError as error:
        raise BadSetting(f"OPENSESSION_TRUSTED_PROXY: {error}") from None


def whole_setting(values, name, low, high):
    """A setting that is a whole number in a range."""
    try:
        number = int(values[name])
    except ValueError:
        number = None
    if number is None or not low <= number <= high:
        raise BadSetting(f"{name} must be a whole number from {low} to {high}, not {values[name]!r}")
    return number


def host_name(netloc):
    """The name in a Host header or URL, without port and brackets, in lower case."""
    name = netloc.rpartition("@")[2].lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.partition(":")[0]


def is_loopback(name):
    """Whether a host name or address never leaves this machine."""
    return name in LOOPBACK or name.endswith(".localhost") or bool(re.fullmatch(r"127(\.[0-9]{1,3}){3}", name))


# ---------------------------------------------------------------------------
# HAIL (the same text is in opensession.py and daemon.py; tests/test_hail.py compares the two)
#
# HAIL 1.0.0 is JSON lines: one header, events in order, one stats line.  Lines
# are plain dicts; fields that we do not know travel along untouched.
# ---------------------------------------------------------------------------

HAIL_VERSION = "hail-1.0.0"

# Event kind: the text fields that its data must have, and those that it may have.
EVENT_KINDS = {
    "UserMessage": ((), ()),
    "AgentMessage": ((), ()),
    "SystemMessage": ((), ()),
    "Thinking": ((), ()),
    "ToolCall": (("name",), ()),
    "ToolResult": (("name",), ("call_id",)),
    "FileRead": (("path",), ()),
    "CodeSearch": (("query",), ()),
    "FileSearch": (("pattern",), ()),
    "FileEdit": (("path",), ("diff",)),
    "FileCreate": (("path",), ()),
    "FileDelete": (("path",), ()),
    "ShellCommand": (("command",), ()),
    "ImageGenerate": (("prompt",), ()),
    "VideoGenerate": (("prompt",), ()),
    "AudioGenerate": (("prompt",), ()),
    "WebSearch": (("query",), ()),
    "WebFetch": (("url",), ()),
    "TaskStart": ((), ("title",)),
    "TaskEnd": ((), ("summary",)),
    "Custom": (("kind",), ()),
}

# Block kind: the text fields that it must have.
BLOCK_KINDS = {
    "Text": ("text",),
    "Code": ("code",),
    "Image": ("url", "mime"),
    "Video": ("url", "mime"),
    "Audio": ("url", "mime"),
    "File": ("path",),
    "Json": (),
    "Reference": ("uri", "media_type"),
}

CHAIN_START = bytes(32)

# Made once, as json.dumps makes one for each call.  What was read from JSON holds no circle to look for.
HAIL_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False, check_circular=False)
# What HAIL_ENCODER makes anew for each value, which takes a tenth of the time; it may be missing in other Pythons.
HAIL_PIECES = json.encoder.c_make_encoder and json.encoder.c_make_encoder(
    None, HAIL_ENCODER.default, json.encoder.encode_basestring, None, ":", ",", False, False, False)


def hail_line(record):
    """One HAIL line as bytes with its line end: compact JSON, UTF-8, never NaN."""
    text = "".join(HAIL_PIECES(record, 0)) if HAIL_PIECES else HAIL_ENCODER.encode(record)
    return (text + "\n").encode()


def next_chain(chain, line):
    """The content identity after one more event line: c = sha256(c + sha256(line without its end))."""
    return sha256(chain + sha256(line.rstrip(b"\n")).digest()).digest()


def event_kind(event):
    """(kind, data) of an event; kinds without fields have no data key."""
    event_type = event["event_type"]
    return event_type["type"], event_type.get("data") or {}


def event_texts(event):
    """The texts of an event's Text blocks, joined."""
    return "\n".join(block["text"] for block in event["content"]["blocks"] if block["type"] == "Text")


def is_error(event):
    """Whether an event says that something failed."""
    return event_kind(event)[1].get("is_error") is True or (event.get("attributes") or {}).get("error") is True


def empty_stats():
    """What add_to_stats counts in; `opening` is how the first three prompts begin.  Times are ISO 8601 in UTC, as they stand in the events."""
    return {"events": 0, "messages": 0, "user_messages": 0, "tool_calls": 0, "errors": 0,
            "first": None, "last": None, "input": 0, "output": 0, "input_total": 0, "output_total": 0,
            "added": 0, "removed": 0, "tasks": [], "files": [], "opening": []}


COUNTED_TOKENS = (("input_tokens", "input"), ("output_tokens", "output"))
RUNNING_TOKENS = (("input_tokens_total", "input_total"), ("output_tokens_total", "output_total"))


def add_to_stats(stats, event):
    """Count one event.  Mind the original's rules: shell, edits and web are no tool calls."""
    kind, data = event_kind(event)
    stats["events"] += 1
    stats["first"] = stats["first"] or event["timestamp"]
    stats["last"] = event["timestamp"]
    if kind in ("UserMessage", "AgentMessage") or kind == "TaskEnd" and (data.get("summary") or "").strip():
        stats["messages"] += 1
    if kind == "UserMessage":
        stats["user_messages"] += 1
        if len(stats["opening"]) < 3:
            add_new(stats["opening"], " ".join(event_texts(event).split())[:500])
    stats["tool_calls"] += kind in ("ToolCall", "FileRead", "CodeSearch", "FileSearch")
    stats["errors"] += is_error(event)
    add_new(stats["tasks"], event.get("task_id"))
    if kind in ("FileEdit", "FileCreate", "FileDelete"):
        add_new(stats["files"], data["path"])
        lines = (data.get("diff") or "").splitlines()
        stats["added"] += sum([line[:1] == "+" and line[:3] != "+++" for line in lines])
        stats["removed"] += sum([line[:1] == "-" and line[:3] != "---" for line in lines])
    attributes = event.get("attributes") or {}
    for key, name in COUNTED_TOKENS:
        if key in attributes:
            stats[name] += whole(attributes[key])
    for key, name in RUNNING_TOKENS:
        if key in attributes:
            stats[name] = max(stats[name], whole(attributes[key]))


def merge_stats(first, second):
    """The counts of two neighbouring runs of events, as one."""
    merged = {key: first[key] + second[key] for key in
              ("events", "messages", "user_messages", "tool_calls", "errors",
               "input", "output", "added", "removed")}
    merged["first"] = first["first"] or second["first"]
    merged["last"] = second["last"] or first["last"]
    for key in ("input_total", "output_total"):
        merged[key] = max(first[key], second[key])
    for key in ("tasks", "files"):
        merged[key] = list(dict.fromkeys(first[key] + second[key]))
    merged["opening"] = list(dict.fromkeys(first["opening"] + second["opening"]))[:3]
    return merged


def stats_line(stats):
    """The stats as HAIL has them.  Running totals, where a tool gives them, beat the sums."""
    return {
        "type": "stats",
        "event_count": stats["events"],
        "message_count": stats["messages"],
        "tool_call_count": stats["tool_calls"],
        "task_count": len(stats["tasks"]),
        "duration_seconds": seconds_between(stats["first"], stats["last"]),
        "total_input_tokens": stats["input_total"] or stats["input"],
        "total_output_tokens": stats["output_total"] or stats["output"],
        "user_message_count": stats["user_messages"],
        "files_changed": len(stats["files"]),
        "lines_added": stats["added"],
        "lines_removed": stats["removed"],
    }


def seconds_between(first, last):
    """Whole seconds from one timestamp to another, at least 0."""
    if not first or not last:
        return 0
    return max(0, int((datetime.fromisoformat(last) - datetime.fromisoformat(first)).total_seconds()))


def short_title(text, limit=80):
    """One line of at most `limit` characters, cut between characters and marked with an ellipsis."""
    line = " ".join(text.split())
    if len(line) <= limit:
        return line
    cut = limit - 1
    while cut > limit - 12 and (unicodedata.combining(line[cut]) or line[cut] in JOINERS or line[cut - 1] in JOINERS):
        cut -= 1
    return line[:cut].rstrip() + "…"


# Characters that glue an emoji together: zero-width joiner, variation selector, skin tones.
JOINERS = "\u200d\ufe0f\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff"


def add_new(values, value):
    """Append a value that is neither empty nor there."""
    if value and value not in values:
        values.append(value)


def whole(value):
    """A count that came from outside: a whole number from 0 to 2^53, anything else is 0."""
    return value if type(value) is int and 0 <= value <= 2**53 else 0


# end of HAIL
# ---------------------------------------------------------------------------
# Storage: the database
#
# Three verbs touch it: `execute` reads, `batch` writes several statements at
# once or not at all, and rows are read by name.  Nobody holds a transaction
# across Python code: what must hold is written into the statements (see `must`
# in schema.sql).
# ---------------------------------------------------------------------------

class Conflict(Exception):
    """A batch was undone because a constraint, or what it said `must` hold, did not."""


class OutOfTime(Exception):
    """A query was stopped because it took too long."""


class Database:
    """SQLite, one connection a thread at a time.  `changed` is set after every write; one that is `reading_only` makes none."""

    def __init__(self, path, reading_only=False):
        self.path, self.reading_only = path, reading_only
        self.changed = threading.Event()
        self._local, self._idle = threading.local(), []

    @contextlib.contextmanager
    def lent_connection(self):
        """Lend this thread, where it has none of its own, the connection that was used last: it holds what is asked for again and again.

        Waitress gives requests to its threads in turn, and each would have to read all of that into a cache of its own."""
        if hasattr(self._local, "connection"):
            yield
            return
        with contextlib.suppress(IndexError):
            self._local.connection = self._idle.pop()
        try:
            yield
        finally:
            self._idle += [vars(self._local).pop("connection")] if vars(self._local) else []

    def execute(self, sql, args=()):
        """Run one reading statement; return its rows."""
        return self._connection().execute(sql, args).fetchall()

    def until(self, deadline, sql, args=()):
        """Yield the rows of one reading statement until this thread has worked so long.  Raises OutOfTime."""
        connection = self._connection()
        connection.set_progress_handler(lambda: time.thread_time() > deadline, 200)
        try:
            yield from connection.execute(sql, args)
        except sqlite3.OperationalError as error:
            if str(error) != "interrupted":
                raise
            raise OutOfTime from None
        finally:
            connection.set_progress_handler(None, 0)

    def batch(self, statements):
        """Run [(sql, args), …] as one write; return the rows of each.  Raises Conflict."""
        connection = self._connection()
        connection.execute("BEGIN IMMEDIATE")
        try:
            rows = [connection.execute(sql, args).fetchall() for sql, args in statements]
            connection.execute("COMMIT")
            self.changed.set()
            return rows
        except BaseException as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if isinstance(error, sqlite3.IntegrityError):
                raise Conflict(str(error)) from None
            raise

    def _connection(self):
        if not hasattr(self._local, "connection"):
            self._local.connection = connect_reading(self.path) if self.reading_only else connect(self.path)
        return self._local.connection


def connect(path):
    """A connection set up for a server that must not lose what it acknowledged."""
    connection = sqlite3.connect(path, timeout=5, isolation_level=None, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON",
                   "cache_size = -8000", "secure_delete = ON",
                   "temp_store = MEMORY"):      # else in /var/tmp, which may be full or not to be written
        connection.execute(f"PRAGMA {pragma}")
    return connection


def connect_reading(path):
    """A connection that writes nothing, not even beside the database: for a read-only disk, and for who only looks."""
    connection = sqlite3.connect(read_only_uri(path), uri=True, timeout=5, isolation_level=None, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    return connection


def must(condition, *args):
    """The statement that undoes a batch where an SQL condition does not hold."""
    return f"INSERT INTO must SELECT 0 WHERE NOT ({condition})", args


# Steps from one schema version to the next: lists of SQL.  Add at the end; schema.sql
# is always the sum, and a database made from it starts at the newest version.
MIGRATIONS = [[
    # Acts belong to teams, whose admins may read them; log-ins say when they were last used.
    "ALTER TABLE audit ADD COLUMN team_id TEXT",
    """UPDATE audit SET team_id = substr(object, 1, 36), object = substr(object, 38)
        WHERE action IN ('member.add', 'member.role', 'member.remove')""",
    "UPDATE audit SET team_id = substr(object, 38), object = substr(object, 1, 36) WHERE action = 'session.move'",
    "UPDATE audit SET team_id = object WHERE action IN ('team.create', 'team.update')",
    "CREATE INDEX audit_of_team ON audit (team_id, no) WHERE team_id IS NOT NULL",
    "CREATE INDEX audit_by_time ON audit (at)",
    "ALTER TABLE logins ADD COLUMN last_used_on TEXT",
    # What kinds of steps a session has; counted in the background, see count_old_steps.
    "ALTER TABLE sessions ADD COLUMN step_kinds TEXT",
    "CREATE INDEX sessions_uncounted ON sessions (id) WHERE step_kinds IS NULL",
    # How long something went on in a session; counted with its steps.
    "ALTER TABLE sessions ADD COLUMN active_ms INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE sessions ADD COLUMN stretches TEXT",
    # Teams: how long their sessions are kept, and how much room these may take.
    "ALTER TABLE teams ADD COLUMN retain_days INTEGER",
    "ALTER TABLE teams ADD COLUMN quota_mb INTEGER",
    "ALTER TABLE teams ADD COLUMN stored_bytes INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE teams ADD COLUMN stored_sessions INTEGER NOT NULL DEFAULT 0",
    """UPDATE teams SET (stored_bytes, stored_sessions) =
                        (SELECT coalesce(sum(file_bytes), 0), count(*) FROM sessions WHERE team_id = teams.id)""",
    """CREATE TRIGGER stored_insert AFTER INSERT ON sessions BEGIN
        UPDATE teams SET stored_bytes = stored_bytes + new.file_bytes, stored_sessions = stored_sessions + 1 WHERE id = new.team_id;
    END""",
    """CREATE TRIGGER stored_delete AFTER DELETE ON sessions BEGIN
        UPDATE teams SET stored_bytes = stored_bytes - old.file_bytes, stored_sessions = stored_sessions - 1 WHERE id = old.team_id;
    END""",
    """CREATE TRIGGER stored_update AFTER UPDATE OF file_bytes, team_id ON sessions
    WHEN (old.file_bytes, old.team_id) IS NOT (new.file_bytes, new.team_id) BEGIN
        UPDATE teams SET stored_bytes = stored_bytes - old.file_bytes, stored_sessions = stored_sessions - 1 WHERE id = old.team_id;
        UPDATE teams SET stored_bytes = stored_bytes + new.file_bytes, stored_sessions = stored_sessions + 1 WHERE id = new.team_id;
    END""",
    # What should not be in sessions
    "ALTER TABLE blocks ADD COLUMN secrets INTEGER",
    "CREATE INDEX blocks_to_check ON blocks (session_id, first_ordinal) WHERE secrets IS NULL",
    "CREATE INDEX blocks_with_secrets ON blocks (session_id, secrets) WHERE secrets > 0",
    """CREATE TABLE remasked (
    session_id    TEXT PRIMARY KEY REFERENCES sessions ON DELETE CASCADE,
    rules_version INTEGER NOT NULL
) STRICT, WITHOUT ROWID""",
    # What only a search for signs looked at, which now looks at titles themselves.
    "ALTER TABLE sessions DROP COLUMN search_text",
    # A search index whose rowids are closer together; it is made anew.
    *(f"DROP TRIGGER {name}" for name in ("session_added", "session_removed")),
    *(f"DROP TABLE {name}" for name in ("search_index", "indexed", "unindexed")),
    "CREATE VIRTUAL TABLE search_index USING fts5(text, about, content = '', columnsize = 0, tokenize = 'ascii')",
    """CREATE TABLE indexed (
    search_no  INTEGER PRIMARY KEY,
    room       INTEGER NOT NULL,
    session_id TEXT UNIQUE,
    team_id    TEXT NOT NULL,
    indexed_to INTEGER NOT NULL DEFAULT 0,
    pending    INTEGER NOT NULL DEFAULT 1,
    scope      TEXT NOT NULL DEFAULT '',
    title      TEXT,
    about      TEXT
) STRICT""",
    "CREATE INDEX indexed_pending ON indexed (search_no) WHERE pending > 0",
    """CREATE TABLE unindexed (
    no            INTEGER PRIMARY KEY,
    search_no     INTEGER NOT NULL,
    room          INTEGER NOT NULL,
    scope         TEXT NOT NULL,
    title         TEXT,
    about         TEXT,
    body          TEXT NOT NULL,
    file_bytes    INTEGER NOT NULL,
    file_offset   INTEGER NOT NULL,
    block_ordinal INTEGER NOT NULL,
    first_ordinal INTEGER NOT NULL,
    end_ordinal   INTEGER NOT NULL
) STRICT""",
    "CREATE INDEX unindexed_bodies ON unindexed (body)",
    "CREATE INDEX unindexed_places ON unindexed (search_no)",
    "CREATE VIEW placing AS SELECT id AS session_id, team_id, created_at, event_count FROM sessions",
    """CREATE TRIGGER place_session INSTEAD OF INSERT ON placing BEGIN
    UPDATE indexed SET session_id = NULL, team_id = '', pending = 0 WHERE session_id = new.session_id;
    INSERT INTO indexed (session_id, team_id, room, search_no)
    WITH wanted (no, room) AS (
        SELECT min(max(CAST(strftime('%s', new.created_at) AS INTEGER), 0), 4294967295) * 256,
               256 << (SELECT min(column1) FROM (VALUES (0), (2), (4), (6), (8), (10), (12), (14), (16), (18))
                        WHERE 256 << column1 > new.event_count))
    SELECT new.session_id, new.team_id, w.room, CASE
           WHEN coalesce((SELECT search_no + room FROM indexed WHERE search_no < w.no + w.room ORDER BY search_no DESC LIMIT 1), 0)
                <= w.no THEN w.no ELSE
           (SELECT i.search_no + i.room FROM indexed i
             WHERE i.search_no >= coalesce((SELECT max(search_no) FROM indexed WHERE search_no <= w.no), 0)
               AND i.search_no + i.room >= w.no
               AND NOT EXISTS (SELECT 1 FROM indexed WHERE search_no >= i.search_no + i.room
                                                       AND search_no < i.search_no + i.room + w.room)
             ORDER BY i.search_no LIMIT 1) END
      FROM wanted w;
END""",
    """CREATE TRIGGER session_added AFTER INSERT ON sessions BEGIN
    INSERT INTO placing VALUES (new.id, new.team_id, new.created_at, new.event_count);
END""",
    """CREATE TRIGGER session_outgrown AFTER UPDATE OF event_count ON sessions
WHEN new.event_count >= (SELECT room FROM indexed WHERE session_id = new.id) BEGIN
    INSERT INTO unindexed (search_no, room, scope, title, about, body, file_bytes, file_offset, block_ordinal, first_ordinal, end_ordinal)
    SELECT search_no, room, scope, title, about, old.body, old.file_bytes, 10, 0, 0, indexed_to
      FROM indexed WHERE session_id = new.id AND (indexed_to > 0 OR title IS NOT NULL);
    DELETE FROM indexed WHERE session_id = new.id AND NOT EXISTS (SELECT 1 FROM unindexed u WHERE u.search_no = indexed.search_no);
    INSERT INTO placing VALUES (new.id, new.team_id, new.created_at, new.event_count);
END""",
    """CREATE TRIGGER session_removed BEFORE DELETE ON sessions BEGIN
    INSERT INTO unindexed (search_no, room, scope, title, about, body, file_bytes, file_offset, block_ordinal, first_ordinal, end_ordinal)
    SELECT search_no, room, scope, title, about, old.body, old.file_bytes, 10, 0, 0, indexed_to
      FROM indexed WHERE session_id = old.id AND (indexed_to > 0 OR title IS NOT NULL);
    DELETE FROM indexed WHERE session_id = old.id AND NOT EXISTS (SELECT 1 FROM unindexed u WHERE u.search_no = indexed.search_no);
    UPDATE indexed SET session_id = NULL, team_id = '', pending = 0 WHERE session_id = old.id;
END""",
    "INSERT INTO placing SELECT id, team_id, created_at, event_count FROM sessions ORDER BY created_at",
]]


class Unusable(Exception):
    """A data directory that this server must not write to."""


class InUse(Unusable):
    """Somebody else holds it."""


class Unwritable(Unusable):
    """A data directory that cannot be written; perhaps it can be read."""


def open_database(path, schema, migrations):
    """Create the database or bring it up to date; a copy is kept before a change.  Raises Unusable."""
    newest = len(migrations) + 1
    version = schema_version(path)
    if version is None:
        create_database(path, schema, newest)
    elif version > newest:
        raise Unusable(f"{path} was written by a newer opensession (schema {version}, this one knows {newest})")
    elif version < newest:
        migrate(path, version, migrations)
    return Database(path)


def schema_version(path):
    """The version of a database, read without a write; None where there is no database yet."""
    if not path.exists() or path.stat().st_size == 0:
        return None
    try:
        with contextlib.closing(sqlite3.connect(read_only_uri(path), uri=True)) as connection:
            tables = {name for name, in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if "meta" in tables:
                return int(connection.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone()[0])
    except (sqlite3.DatabaseError, TypeError) as error:
        raise Unusable(f"{path} cannot be read: {error}") from None
    if not tables:
        return None             # a crash came before the schema
    if "_migrations" in tables:
        raise Unusable(f"{path} belongs to the original opensession; "
                       f"`opensession.py import-original {path.parent}` will take it over, choose another data directory")
    raise Unusable(f"{path} is no database of opensession")


def read_only_uri(path):
    """How to open a database that may be somebody else's.

    SQLite leaves -wal and -shm files behind a reader, unless it is told that nobody writes;
    where a -wal is there already, it holds a part of the data and must be read."""
    journal = path.with_name(f"{path.name}-wal")
    return f"{path.as_uri()}?mode=ro{'' if journal.exists() else '&immutable=1'}"


def create_database(path, schema, version):
    """Make a new database in one transaction, so that a crash leaves none."""
    with contextlib.closing(connect(path)) as connection:
        connection.executescript(f"""BEGIN IMMEDIATE; {schema}
            INSERT INTO meta VALUES ('schema', '{version}');
            INSERT INTO counters VALUES ('sync', 0);
            COMMIT;""")
    os.chmod(path, 0o600)


def migrate(path, version, migrations):
    """Run the steps that a database lacks, each in one transaction, after a copy."""
    with contextlib.closing(connect(path)) as connection:
        copy = path.with_name(f"before-schema-{version + 1}.db")
        with contextlib.closing(sqlite3.connect(copy)) as target:
            connection.backup(target)
        os.chmod(copy, 0o600)
        for number, statements in enumerate(migrations[version - 1:], version + 1):
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                for statement in statements:
                    connection.execute(statement)
                connection.execute("UPDATE meta SET value = ? WHERE key = 'schema'", [str(number)])
            log.info("database brought to schema %d; the old one is kept as %s", number, copy.name)


def now():
    """The present moment as the database has times."""
    return utc_text(datetime.now(timezone.utc))


def utc_text(at):
    """A time as text in UTC with milliseconds: 2026-02-11T06:00:00.000Z."""
    at = at.replace(tzinfo=timezone.utc) if at.tzinfo is None else at.astimezone(timezone.utc)
    return at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03d}Z"


def fold(text):
    """Text as it is compared in searches: compatibility forms joined, case ignored."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


# ---------------------------------------------------------------------------
# Storage: bodies
#
# A body is a file with a gzip header and one deflate stream of event lines,
# fully flushed at the end of each block, so that every block can be inflated
# alone.  There is no end marker: what counts is the committed length in the row.
# Committed bytes never change; growing appends behind them, replacing writes a
# new file that starts with a copy of the blocks that stay.
# ---------------------------------------------------------------------------

GZIP_HEADER = bytes.fromhex("1f8b08000000000000ff")
BLOCK_BYTES = 256 << 10
DEFLATE_LEVEL = 6           # twice the time that 4 takes, and 6 % smaller
WINDOW_BLOCKS = 4

# What is kept of each event beside the body, for finding and drawing it without inflating:
# crc32 of its id, size of its line, time (ms since 1970), kind (place in EVENT_KINDS), flags (sums of FLAG_…).
MARK = struct.Struct("<IIqBB")
KIND_NAMES = list(EVENT_KINDS)
KIND_NUMBERS = {kind: number for number, kind in enumerate(KIND_NAMES)}
FLAG_ERROR, FLAG_TASK, FLAG_BREAK = 1, 2, 4         # it failed; it is a sub-agent's; the context was compacted, or somebody interrupted
BREAKS = ("compaction", "interrupt")

# What a step does, for counting: every kind of event that is a step, and the sub-agents.
STEP_KINDS = {
    "FileRead": "read", "FileEdit": "edit", "FileCreate": "edit", "FileDelete": "edit", "ShellCommand": "shell",
    "CodeSearch": "search", "FileSearch": "search", "WebSearch": "web", "WebFetch": "web", "TaskStart": "agent",
    "ToolCall": "other", "ImageGenerate": "other", "VideoGenerate": "other", "AudioGenerate": "other",
}

# What of a session's time is no activity: longer pauses than this between events.  The page calls a session running for as long.
LONGEST_PAUSE = 5 * 60_000      # milliseconds
STRETCHES_KEPT = 500            # the newest, to which later events may belong

# The outline beside the body: one turn a prompt, with what happened until the next one.  A block
# keeps its turns as lists in this order; the first has no event_id where it goes on with a turn of
# the block before, or where the session has no prompt yet.
TURN = ("ordinal", "event_id", "at", "text", "last", "events", "steps", "edits", "errors",
        "input", "output", "input_total", "output_total")
TURN_SUMS = ("events", "steps", "edits", "errors", "input", "output")
TURN_TEXT = 200
EDITS = {kind for kind, what in STEP_KINDS.items() if what == "edit"}
STEPS = STEP_KINDS.keys() - {"TaskStart"}


def add_to_turns(turns, event, ordinal):
    """Count one event in the last turn, or begin a turn with it.  What a sub-agent is told is no prompt."""
    kind, _ = event_kind(event)
    is_prompt = kind == "UserMessage" and not event.get("task_id")
    if is_prompt or not turns:
        turns.append(dict.fromkeys(TURN, 0) | {
            "ordinal": ordinal, "event_id": event["event_id"] if is_prompt else None, "at": event["timestamp"],
            "text": " ".join(event_texts(event)[:5000].split())[:TURN_TEXT] if is_prompt else ""})
    turn, attributes = turns[-1], event.get("attributes") or {}
    turn["last"] = event["timestamp"]
    turn["events"] += 1
    turn["steps"] += kind in STEPS
    turn["edits"] += kind in EDITS
    turn["errors"] += is_error(event)
    for name in ("input", "output"):
        turn[name] += whole(attributes.get(f"{name}_tokens"))
        turn[f"{name}_total"] = max(turn[f"{name}_total"], whole(attributes.get(f"{name}_tokens_total")))


def merge_turns(first, second):
    """The turns of two neighbouring runs of events, as one list."""
    if not (first and second) or second[0]["event_id"] is not None:
        return first + second
    before, after = first[-1], second[0]
    joined = {**before, "last": after["last"], **{name: before[name] + after[name] for name in TURN_SUMS},
              **{name: max(before[name], after[name]) for name in ("input_total", "output_total")}}
    return [*first[:-1], joined, *second[1:]]


def turns_text(turns):
    """Turns as a block row has them."""
    return json_text([list(turn.values()) for turn in turns])


def turns_of(text):
    """Turns from a block row."""
    return [dict(zip(TURN, values)) for values in json.loads(text)]


EVENTS_KEPT = 4             # blocks of an upload whose events are at hand for the index; see JustStored


class BodyWriter:
    """Writes event lines as blocks and counts as it goes.

    `start` is the block row that the new events stand behind, or None.  `blocks` are
    the rows made so far, with file offsets as they will be in the body file; the
    bytes in `file` begin at `base` of the body file.
    """

    def __init__(self, file, base, start=None):
        self.file = file
        self.blocks = []
        self.ordinal = start["first_ordinal"] + start["event_count"] if start else 0
        self.raw_offset = start["raw_offset"] + start["raw_bytes"] if start else 0
        self.file_offset = base
        self._ended = None
        self.chain = bytes.fromhex(start["chain"]) if start else CHAIN_START
        self._open_block()

    def _open_block(self):
        self._lines, self._events = [], []
        self._stats = empty_stats()
        self._turns = []
        self._marks = bytearray()
        self._raw = 0

    def add(self, event, line):
        """Append one checked event; `line` is what is stored, with its line end."""
        add_to_turns(self._turns, event, self.ordinal + self._stats["events"])
        add_to_stats(self._stats, event)
        self._marks += mark(event, line)
        self._raw += len(line)
        self.chain = next_chain(self.chain, line)
        self._lines.append(line)
        self._events.append(event)
        if self._raw >= BLOCK_BYTES:
            self._end_block(DEFLATING.submit(deflated, self._lines).result)

    def close_block(self):
        """End the block at this line, and write it.  Nothing is written where it is empty."""
        if self._raw:
            self._end_block(functools.partial(deflated, self._lines))
        self._write_ended()

    def _end_block(self, compressed):
        """Go on with another block; that which ends here is written as soon as the next one ends, with what `compressed` gives then."""
        self._write_ended()
        count = self._stats["events"]
        self._ended = compressed, {
            "first_ordinal": self.ordinal, "event_count": count, "raw_offset": self.raw_offset, "raw_bytes": self._raw,
            "chain": self.chain.hex(), "stats": self._stats, "turns": turns_text(self._turns), "marks": bytes(self._marks),
            "events": self._events if len(self.blocks) < EVENTS_KEPT else []}
        self.ordinal += count
        self.raw_offset += self._raw
        self._open_block()

    def _write_ended(self):
        if self._ended:
            (compressed, block), self._ended = self._ended, None
            data = compressed()
            self.file.write(data)
            self.blocks.append({**block, "file_offset": self.file_offset, "file_bytes": len(data)})
            self.file_offset += len(data)


# Compresses the blocks of large uploads on another core while what follows is parsed.
DEFLATING = ThreadPoolExecutor(1, "deflating")


def deflated(lines):
    """Lines as one block of a body's file."""
    deflate = zlib.compressobj(DEFLATE_LEVEL, zlib.DEFLATED, -15, 9)
    return deflate.compress(b"".join(lines)) + deflate.flush(zlib.Z_FULL_FLUSH)


def mark(event, line):
    """The fixed record of one event; see MARK."""
    kind, data = event_kind(event)
    flags = FLAG_ERROR * is_error(event) | FLAG_TASK * bool(event.get("task_id"))
    flags |= FLAG_BREAK * (kind == "Custom" and data["kind"] in BREAKS)
    at = int(datetime.fromisoformat(event["timestamp"]).timestamp() * 1000)
    return MARK.pack(zlib.crc32(event["event_id"].encode()), min(len(line), 0xFFFFFFFF), at, KIND_NUMBERS[kind], flags)


def step_kinds(marks, before):
    """{what: how many} of the steps among events, by their marks, as JSON; `before` is that of the events before them."""
    counts = dict.fromkeys(STEP_KINDS.values(), 0) | json.loads(before)
    for number in marks[MARK.size - 2::MARK.size]:
        if what := STEP_KINDS.get(KIND_NAMES[number]):
            counts[what] += 1
    return json_text({what: count for what, count in counts.items() if count})


def stretches_of(marks, before=()):
    """[[from, to], …] in ms since 1970: when something went on, by the marks of events and by what was known before.

    By time, whatever order the events stand in: sub-agents that worked side by side stand one behind the other."""
    stretches = []
    for start, end in sorted([*before, *((at, at) for _, _, at, _, _ in MARK.iter_unpack(marks))]):
        if stretches and start - stretches[-1][1] <= LONGEST_PAUSE:
            stretches[-1][1] = max(stretches[-1][1], end)
        else:
            stretches.append([start, end])
    return stretches


def active_ms(stretches):
    return sum(end - start for start, end in stretches)


def marked_columns(marks, before=None):
    """The columns that are counted by the marks of events; `before` is the row without them."""
    before = before or {"step_kinds": "{}", "active_ms": 0, "stretches": "[]"}
    if before["step_kinds"] is None:
        return {}               # not counted yet; see count_old_steps
    known = [tuple(stretch) for stretch in json.loads(before["stretches"])]
    stretches = stretches_of(marks, known)
    return {"step_kinds": step_kinds(marks, before["step_kinds"]),
            "active_ms": before["active_ms"] + active_ms(stretches) - active_ms(known),
            "stretches": json_text(stretches[-STRETCHES_KEPT:])}


def joined_marks(blocks):
    return b"".join(block["marks"] for block in blocks)


def join_small_block(last, blocks):
    """Let the last block of a body and the first of what follows be one, if that stays small.

    The bytes already stand behind each other, so only the index changes."""
    if not (last and blocks) or last["raw_bytes"] + blocks[0]["raw_bytes"] > BLOCK_BYTES:
        return blocks
    first = blocks[0]
    joined = {**first, **{key: last[key] for key in ("first_ordinal", "raw_offset", "file_offset")},
              **{key: last[key] + first[key] for key in ("event_count", "raw_bytes", "file_bytes", "marks")},
              "stats": merge_stats(last["stats"], first["stats"]), "events": [],
              "turns": turns_text(merge_turns(turns_of(last["turns"]), turns_of(first["turns"])))}
    return [joined, *blocks[1:]]


def body_path(name):
    """Where a body lies.  Names are ours: session id, revision, random letters."""
    return settings.data_dir / "bodies" / name[:2] / name


@contextlib.contextmanager
def draft_file():
    """A temporary file in the data directory; gone at the end unless it was published."""
    with tempfile.NamedTemporaryFile(dir=settings.data_dir / "tmp", delete=False) as file:
        try:
            yield file
        finally:
            discard(file.name)


def discard(path):
    """Remove a file that nobody needs.  Where that fails nothing is lost: the next start's sweep does it."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        log.warning("%s was not removed: %s", path, error.strerror)


def publish_body(file, name):
    """Make a draft a body that outlives a power cut, under its final name."""
    file.flush()
    os.fsync(file.fileno())
    path = body_path(name)
    if not path.parent.exists():
        path.parent.mkdir(exist_ok=True)
        sync_folder(path.parent.parent)
    os.rename(file.name, path)
    sync_folder(path.parent)


def sync_folder(path):
    """Make the names in a folder durable, where the system can."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def append_to_body(name, committed, draft):
    """Write a draft behind the committed end of a body.  What lay there was never committed."""
    draft.seek(0)
    with open_body(name, "r+b") as file:
        if file.seek(0, os.SEEK_END) < committed:
            raise BodyMissing
        file.truncate(committed)
        file.seek(committed)
        shutil.copyfileobj(draft, file)
        file.flush()
        os.fsync(file.fileno())


def remove_body(name):
    """Remove a body that no row names.  Who has it open goes on reading."""
    discard(body_path(name))


class BodyMissing(Exception):
    """The file of a body is not where its row says, shorter, or damaged."""


DEFLATE_END = b"\x03\0"       # makes a block a whole stream


def inflate_block(file, block, size=None):
    """The lines of one block, as one bytes object; of a size, only so many bytes of them.  Raises BodyMissing where it is damaged."""
    file.seek(block["file_offset"])
    data, whole = file.read(block["file_bytes"]), size is None or size >= block["raw_bytes"]
    try:
        if whole:               # faster, as it makes room for all at once
            size = block["raw_bytes"]
            data = zlib.decompress(data + DEFLATE_END, -15, size)
        else:
            data = zlib.decompressobj(-15).decompress(data, size)
    except zlib.error:
        raise BodyMissing from None
    if len(data) != size:
        raise BodyMissing
    return data


def inflate_lines(file, block, first=0, end=None):
    """Some lines of a block, by their places in it, without their line ends; what comes behind them, or its marks, is not inflated."""
    sizes = [size for _, size, *_ in MARK.iter_unpack(block["marks"])]
    ends = list(itertools.accumulate(sizes[:end], initial=0))
    data = inflate_block(file, block, ends[-1])
    return [data[start:stop - 1] for start, stop in zip(ends[first:], ends[first + 1:])]


def lines_of(data):
    """The lines in the bytes of a block, each with its line end."""
    return [line + b"\n" for line in data.split(b"\n")[:-1]]


def open_body(name, mode="rb"):
    """Open a body, or raise BodyMissing."""
    try:
        return open(body_path(name), mode)
    except FileNotFoundError:
        raise BodyMissing from None


class RawSession(io.RawIOBase):
    """A session as one HAIL file that inflates as it is read.

    Seekable, because waitress looks for the size and steps back after a partial send;
    only one block is held and read at once, so a reader that stalls costs next to nothing."""

    def __init__(self, head, name, blocks, tail):
        self._head, self._tail, self._blocks = head, tail, blocks
        self._file = open_body(name)
        self._body_end = len(head) + (blocks[-1]["raw_offset"] + blocks[-1]["raw_bytes"] if blocks else 0)
        self.size = self._body_end + len(tail)
        self._at = 0
        self._held = (None, b"")

    def readable(self):
        return True

    def seekable(self):
        return True

    def tell(self):
        return self._at

    def seek(self, offset, whence=os.SEEK_SET):
        self._at = max(0, offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}[whence])
        return self._at

    def read(self, size=-1):
        """Up to `size` bytes, of one block at most; b"" at the end only.  Without a size: all."""
        if size is None or size < 0:
            return b"".join(iter(lambda: self.read(BLOCK_BYTES), b""))
        piece = self._piece()[:size] if self._at < self.size else b""
        self._at += len(piece)
        return piece

    def _piece(self):
        """What stands from here to the end of the part that we are in."""
        if self._at < len(self._head):
            return self._head[self._at:]
        if self._at >= self._body_end:
            return self._tail[self._at - self._body_end:]
        offset = self._at - len(self._head)
        block = self._block_at(offset)
        if self._held[0] is not block:
            self._held = (block, inflate_block(self._file, block))
        return self._held[1][offset - block["raw_offset"]:]

    def _block_at(self, offset):
        low, high = 0, len(self._blocks) - 1
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self._blocks[middle]["raw_offset"] <= offset else (low, middle - 1)
        return self._blocks[low]

    def close(self):
        self._file.close()
        super().close()


def litter(before):
    """Yield what a crash left, last changed before a moment: drafts, and bodies that no row names."""
    for folder, pattern in (("tmp", "*"), ("bodies", "*/*")):
        for path in (settings.data_dir / folder).glob(pattern):
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < before and (folder == "tmp" or not db.execute("""
                        SELECT 1 FROM sessions WHERE body = ? UNION ALL SELECT 1 FROM unindexed WHERE body = ?""", [path.name] * 2)):
                    yield path


def sweep(before):
    """Remove what a crash left before a moment; (how many files, how many bytes)."""
    count = size = 0
    for path in litter(before):
        with contextlib.suppress(FileNotFoundError):
            count, size = count + 1, size + path.stat().st_size
            shutil.rmtree(path) if path.is_dir() else path.unlink()
            if path.parent.name != "tmp":
                log.warning("removed a body that no session has: %s", path.name)
    return count, size


# ---------------------------------------------------------------------------
# Search: what the index holds
#
# Text is prepared so that SQLite's plainest tokenizer, which splits at ASCII characters
# that are no letters or digits, sees the words that people look for.  A query is prepared
# the same way.  What `index_text` and `searchable` make of an event must never change within
# an INDEX_VERSION, because a row leaves the index only against the same text; after a
# change here, raise it: the index is then made anew by itself.
# ---------------------------------------------------------------------------

INDEX_VERSION = f"2, Unicode {unicodedata.unidata_version}"

# Scripts without spaces between words, and Korean with its particles: indexed by pairs of characters.
WIDE = ("\u0e01-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u3005-\u3007\u3041-\u30ff\u3105-\u318f\u31f0-\u31ff"
        "\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97f\uac00-\ud7ff\U00020000-\U000323af")
EMOJI = "\u2194-\u21aa\u231a-\u23ff\u2600-\u27bf\u2b05-\u2b55\U0001f000-\U0001f3fa\U0001f400-\U0001faff"
# Signs that belong to letters in Arabic, Indian and other scripts, which are no letters to Python.
SIGNS = "".join(map(chr, filter(lambda code: unicodedata.category(chr(code))[0] == "M", range(0x483, 0x1b00))))

ACCENT = re.compile("[\u0300-\u036f]")
MAY_HAVE_ACCENT = re.compile("[\u00c0-\u04ff\u1e00-\u1fff]")
WIDE_RUN = re.compile(f"[{WIDE}]+")
LONE_SIGN = re.compile(f"[{EMOJI}]")
NOT_ASCII = re.compile("[^\x00-\x7f]+")
NO_WORD = re.compile(f"[^\\w\\x00-\\x7f{SIGNS}{WIDE}{EMOJI}]+")
WORD = re.compile(r"[^\x00-/:-@\[-`{-\x7f]+")           # what the tokenizer `ascii` takes for a word
CAMEL_PART = re.compile("[A-Z]+(?![a-z])[0-9]*|[A-Z]?[a-z0-9]+|[A-Z]")
LONGEST_WORD = 64
GOES_ON = re.compile(f"([{WIDE}]{{2}}) [{WIDE}]\\s*$")      # a last pair and the character that stands alone behind it
LONG_WORD = re.compile(f"([A-Za-z0-9]{{{LONGEST_WORD}}})[A-Za-z0-9]+")
# The bytes of a text as "a" for small letters and digits, "A" for capitals, " " for all else: to find camelCase
# words and long ones at the speed of memory, which a regular expression is far from.
SHAPES = bytes.maketrans(bytes(range(256)), bytes(ord("A" if 65 <= code <= 90 else "a" if chr(code).isalnum() and code < 128 else " ")
                                                  for code in range(256)))
CAMEL_EDGES = (b"aA", b"AAa")
LONG_RUN = b"A" * (LONGEST_WORD + 1)


def searchable(text):
    """Text as the index has it: folded, and the parts of camelCase words once more at the end."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    data = text.encode()
    shapes = data.translate(SHAPES)
    if LONG_RUN in shapes.upper():
        text = LONG_WORD.sub(r"\1", text)
        data = text.encode()
        shapes = data.translate(SHAPES)
    parts = camel_parts(data, shapes)
    return f"{split_words(text)} {' '.join(parts)}" if parts else split_words(text)


def camel_parts(data, shapes):
    """The camelCase words in a text, given as bytes and their shapes, each in its parts: b"retryUpload" gives "retry Upload"."""
    return list(filter(None, map(word_parts, camel_words(data, shapes))))


@functools.lru_cache(maxsize=1 << 14)
def word_parts(word):
    """The parts of a camelCase word, given as bytes; nothing where it is too long or has none."""
    parts = CAMEL_PART.findall(word.decode()) if len(word) <= LONGEST_WORD else []
    return " ".join(parts) if 1 < len(parts) <= 8 else ""


def camel_words(data, shapes):
    """The words of a text in which a capital stands where no word would have one."""
    words = {}
    for edge in CAMEL_EDGES:
        at = shapes.find(edge)
        while at >= 0:
            start, end = shapes.rfind(b" ", 0, at) + 1, shapes.find(b" ", at)
            end = end if end >= 0 else len(shapes)
            words[data[start:end]] = None
            at = shapes.find(edge, end)
    return words


def split_words(text):
    """Text in which every word that is not plain ASCII is folded and stands apart; ASCII the tokenizer folds and splits itself."""
    return text if text.isascii() else NOT_ASCII.sub(lambda run: (known_run if len(run[0]) <= 30 else split_run)(run[0]), text)


def split_run(run):
    """Some characters, none of them ASCII, as the index has them."""
    run = LONE_SIGN.sub(r" \g<0> ", NO_WORD.sub(" ", fold_letters(run)))
    return WIDE_RUN.sub(pairs, run)


known_run = functools.lru_cache(maxsize=1 << 13)(split_run)


def fold_letters(text):
    """Text without the differences that a search ignores: case, accents, width."""
    text = fold(text)
    if MAY_HAVE_ACCENT.search(text) or ACCENT.search(text):
        text = unicodedata.normalize("NFC", ACCENT.sub("", unicodedata.normalize("NFD", text)))
    return text


def pairs(run):
    """A run of wide characters as overlapping pairs, and its last character, so that it is found alone, too."""
    run = run[0]
    return " " + " ".join([*(run[at:at + 2] for at in range(len(run) - 1)), run[-1]]) + " "


# How much of an event's text is indexed, in characters: its beginning and its end.
TEXT_INDEXED = (256 << 10, 64 << 10)
OUTPUT_INDEXED = (12 << 10, 4 << 10)
OUTPUTS = {"ToolResult", "FileRead", "CodeSearch", "FileSearch", "ShellCommand", "WebSearch", "WebFetch", "Custom"}
BLOCK_TEXTS = {"Text": ("text",), "Code": ("code",), "File": ("path", "content"), "Image": ("alt",), "Video": ("alt",),
               "Audio": ("alt",), "Reference": ("uri",)}

# kind: in a query, and what it finds.
SEARCH_KINDS = {"UserMessage": "prompt", "AgentMessage": "reply", "Thinking": "thinking", "SystemMessage": "other",
                "TaskStart": "other", "TaskEnd": "other", "Custom": "other"}


def event_search_text(event):
    """(text, path) of an event as people wrote it: what the index is made from, and snippets."""
    kind, data = event_kind(event)
    path = data.get("path") if isinstance(data.get("path"), str) else ""
    said = [value for name, value in data.items() if isinstance(value, str) and name not in ("path", "call_id", "kind")]
    shown = [text for block in event["content"]["blocks"] for text in block_texts(block)]
    texts = dict.fromkeys(clip(text, *(OUTPUT_INDEXED if kind in OUTPUTS else TEXT_INDEXED)) for text in [*said, *shown])
    return "\n".join(text for text in texts if text and text != path), path


def block_texts(block):
    """The texts in a content block that a search looks at."""
    if block["type"] == "Json":
        return [json_text(block["data"])] if block.get("data") is not None else []
    return [block[name] for name in BLOCK_TEXTS[block["type"]] if isinstance(block.get(name), str)]


def clip(text, head, tail):
    """The beginning and the end of a text that is too long."""
    return text if len(text) <= head + tail else f"{text[:head]}\n…\n{text[-tail:]}"


def index_text(event):
    """The (text, about, marks) that the index has of an event."""
    text, path = event_search_text(event)
    kind, data = event_kind(event)
    marks = [f"§k{SEARCH_KINDS.get(kind, 'tool')}"]
    marks += ["§herror"] * is_error(event) + ["§hfile"] * bool(path) + ["§hdiff"] * bool(data.get("diff"))
    marks += ["§himage"] * any(block["type"] == "Image" for block in event["content"]["blocks"])
    return searchable(text), searchable(path) if path else "", " ".join(marks)


def title_text(session):
    """The (text, about) that the index has of a session itself.  A description made from its prompts says nothing new."""
    context = json.loads(session["header"])["context"]
    attributes = context.get("attributes") or {}
    git = attributes.get("git") if isinstance(attributes.get("git"), dict) else {}
    about = [context.get("description"), *(session[name] for name in ("tags", "project", "git_branch", "hail_id", "id"))]
    about += [value for facts in (attributes, git) for name, value in facts.items()
              if isinstance(value, str) and ("commit" in name or name in ("sha", "cwd"))]
    return searchable(session["title"] or ""), searchable("\n".join(text for text in about if text))


def session_scope(session):
    """The marks by which a search is narrowed to a session.  They begin with a sign that no text in the index has."""
    project = (session["project"] or "").lower()
    marks = [team_mark(session["team_id"]), user_mark(session["user_id"] or ""), name_mark("o", session["tool"].lower())]
    marks += [name_mark("p", name) for name in dict.fromkeys((project, project.rpartition("/")[2])) if name]
    marks += [name_mark("b", session["git_branch"].lower())] if session["git_branch"] else []
    marks += [f"§m{bare_name(session['agent_model'])}"] if session["agent_model"] else []
    return " ".join(marks)


def team_mark(team_id):
    return f"§t{team_id.replace('-', '')}"


def user_mark(user_id):
    return f"§u{user_id.replace('-', '')}"


def bare_name(name):
    """A model's name without signs: of these, the marks of the index can be looked through for a part of a name."""
    return re.sub("[^a-z0-9]", "", name.lower())[:LONGEST_WORD]


def name_mark(kind, name):
    """The mark for a name of any form.  Two names may share one: marks narrow, they never decide."""
    return f"§{kind}{zlib.crc32(name.encode()):08x}"


# ---------------------------------------------------------------------------
# Search: keeping the index
#
# `indexed.pending` says which sessions changed, `unindexed` what must go; one thread works
# them off in small writes.  Each write says what it was made from, so that several
# processes may do it at once and a crash may come at any moment.
# ---------------------------------------------------------------------------

TITLE = -1                  # stands for the row of a session's title, where others have an ordinal
PLACES_A_SECOND = 256       # rowids of the index, so that they are in the order of time; see `placing` in schema.sql
INDEX_ROWS, INDEX_TEXT = 1000, 1 << 20      # one write holds so many rows or characters at most
ADD_ROW = "INSERT INTO search_index (rowid, text, about) VALUES (?, ?, ?)"
REMOVE_ROW = "INSERT INTO search_index (search_index, rowid, text, about) VALUES ('delete', ?, ?, ?)"


MERGED_AFTER, MERGED_PAGES = 20_000, 64     # rows; pages in one write
PIECES_KEPT = 8                             # of one size, before SQLite itself joins them; with its 4 a large upload takes an eighth longer
FEW_ROWS, GATHERING, QUIET = 100, 0.1, 1    # after a write of few rows it waits a moment for more; seconds
MANY_ANSWERS = 50           # to readers in a second: then it takes half of its time at most


def keep_index(db, stopped):
    """Follow what changes, until told to stop.  Where there is time, join the pieces in which the index grows."""
    added, due, merging = 0, MERGED_AFTER, False
    while not stopped.is_set():
        db.changed.clear()
        started, answered = time.monotonic(), numbers.answered
        try:
            rows = index_some(db)
            added, pause = added + rows, GATHERING if rows < FEW_ROWS else resting_time(started, answered)
            if not rows and merging:
                merging, pause = merge_some(db, MERGED_PAGES), 0.01
            elif not rows and added > due:
                due = max(MERGED_AFTER, index_size(db) // 4)
                if added > due:
                    added, merging = 0, merge_some(db, -MERGED_PAGES)
            elif not rows:
                just_stored.forget()
                pause = GATHERING if count_old_steps(db) else QUIET
        except Exception:
            log.exception("indexing failed; it goes on in a moment")
            pause = 5
        (db.changed if pause == QUIET else stopped).wait(pause)


def resting_time(started, answered):
    """Seconds for which the index gives way after a write: as long as that took, where many looked at something meanwhile."""
    took = time.monotonic() - started
    return min(took, QUIET / 2) if numbers.answered - answered > MANY_ANSWERS * took else 0


def merge_some(db, pages):
    """Join some pages of the index (fewer than none: begin to join all of it); whether there is more to do."""
    changes = ("SELECT total_changes() AS n", [])
    before, _, after = db.batch([changes, ("INSERT INTO search_index (search_index, rank) VALUES ('merge', ?)", [pages]), changes])
    return after[0]["n"] - before[0]["n"] > 1


def count_old_steps(db):
    """Count steps and active time of a session that version 1 stored, mark its compactions and interruptions; whether there was one."""
    for row in db.execute("SELECT * FROM sessions WHERE step_kinds IS NULL LIMIT 1"):
        blocks = db.execute("SELECT * FROM blocks WHERE session_id = ? ORDER BY first_ordinal", [row["id"]])
        statements = [must("EXISTS (SELECT 1 FROM sessions WHERE id = ? AND body = ? AND event_count = ?)",
                           row["id"], row["body"], row["event_count"]),
                      ("UPDATE sessions SET step_kinds = ?, active_ms = ?, stretches = ? WHERE id = ?",
                       [*marked_columns(joined_marks(blocks)).values(), row["id"]])]
        with contextlib.suppress(BodyMissing):
            statements += [("UPDATE blocks SET marks = ? WHERE session_id = ? AND first_ordinal = ?",
                            [marks_again(row, block), row["id"], block["first_ordinal"]])
                           for block in blocks if KIND_NUMBERS["Custom"] in block["marks"][MARK.size - 2::MARK.size]]
        with contextlib.suppress(Conflict):     # it grew meanwhile: it is looked at again
            db.batch(statements)
        return True
    return False


def marks_again(row, block):
    """The marks of a block, made from what is stored.  Raises BodyMissing."""
    with open_body(row["body"]) as file:
        return b"".join(mark(json.loads(line), line) for line in lines_of(inflate_block(file, block)))


def index_size(db):
    """How many events the index has."""
    return db.execute("SELECT sum(indexed_to) AS n FROM indexed")[0]["n"] or 0


def index_some(db):
    """One write to the index; how many rows it changed or so, 0 where there is nothing to do."""
    for job in db.execute("SELECT * FROM unindexed ORDER BY no LIMIT 1"):
        remove_rows(db, job)
        return 1 + job["end_ordinal"] - job["first_ordinal"]
    statements = pending_statements(db)
    if statements:
        with contextlib.suppress(Conflict):     # somebody changed one of them: it is looked at again
            db.batch(statements)
    return len(statements)


def pending_statements(db):
    """The statements that bring the newest pending sessions further, up to the size of one write."""
    statements, room = [], SimpleNamespace(rows=INDEX_ROWS, text=INDEX_TEXT)
    for session in db.execute("""
            SELECT i.search_no, i.room, i.indexed_to, i.pending, i.scope, i.title AS old_title, i.about AS old_about, s.*
              FROM indexed i CROSS JOIN sessions s ON s.id = i.session_id
             WHERE i.pending > 0 ORDER BY i.search_no DESC LIMIT 100"""):
        statements += session_statements(db, session, room)
        if room.rows <= 0 or room.text <= 0:
            break
    return sorted(statements, key=writing_order)


def writing_order(statement):
    """Rows come last, in the order of their rowids: SQLite then writes all of them at once, as one piece of the index."""
    sql, args = statement
    return args[0] if sql in (ADD_ROW, REMOVE_ROW) else -1


def session_statements(db, session, room):
    """The statements that bring the index of one session further."""
    scope = session_scope(session)
    unchanged = must("""EXISTS (SELECT 1 FROM indexed i JOIN sessions s ON s.id = i.session_id
                                 WHERE i.search_no = ? AND s.id = ? AND s.body = ? AND i.indexed_to = ? AND i.scope = ?
                                   AND i.title IS ? AND i.about IS ?)""",
                     *(session[name] for name in ("search_no", "id", "body", "indexed_to", "scope", "old_title", "old_about")))
    if scope != session["scope"] and (session["indexed_to"] or session["old_title"] is not None):
        return [unchanged, *unindex_from(session, 0, with_title=True),
                ("UPDATE indexed SET scope = ? WHERE search_no = ?", [scope, session["search_no"]])]
    rows, end = new_rows(db, session, scope, room)
    title, about = title_text(session)
    return [unchanged, *title_rows(session, title, about, scope), *rows, ("""
        UPDATE indexed SET scope = ?, title = ?, about = ?, indexed_to = ?, pending = iif(pending = ? AND ?, 0, pending)
         WHERE search_no = ?""", [scope, title, about, end, session["pending"], end >= session["event_count"],
                                  session["search_no"]])]


def title_rows(session, title, about, scope):
    """The statements that make the row of a session's title what it should be."""
    old = (session["old_title"], session["old_about"])
    number = title_place(session)
    if old == (title, about):
        return []
    removal = [] if old[0] is None else [(REMOVE_ROW, [number, marked(old[0], scope, "§ktitle"), old[1]])]
    return [*removal, (ADD_ROW, [number, marked(title, scope, "§ktitle"), about])]


def marked(text, scope, marks):
    """The text of a row.  The marks of its session and its own come first, where their places take the least room."""
    return f"{scope} {marks} {text}"


def title_place(row):
    """The rowid of a session's title: the last of those that are kept for it."""
    return row["search_no"] + row["room"] - 1


def new_rows(db, session, scope, room):
    """(statements that add the next events of a session, the ordinal behind them)."""
    end, statements = session["indexed_to"], []
    try:
        for ordinal, event in stored_events(db, session, end):
            row = row_of(session["search_no"], ordinal, event, scope)
            statements.append((ADD_ROW, row))
            end = ordinal + 1
            room.rows -= 1
            room.text -= len(row[1])
            if room.rows <= 0 or room.text <= 0:
                break
    except BodyMissing:
        if db.execute("SELECT 1 FROM sessions WHERE id = ? AND body = ?", [session["id"], session["body"]]):
            log.error("session %s cannot be searched: its body is missing or damaged", session["id"])
            end = session["event_count"]
    room.rows -= 1
    return statements, end


def row_of(search_no, ordinal, event, scope):
    """An event's row in the index."""
    text, about, marks = index_text(event)
    return [search_no + ordinal, marked(text, scope, marks), about]


class JustStored:
    """The events of blocks that were stored a moment ago, so that the index need not read and parse them again: some MB at most.

    They are known by the chain at their end: a block that grew, or of an upload that failed, has another."""

    def __init__(self):
        self._blocks, self._bytes, self._lock = {}, 0, threading.Lock()

    def keep(self, blocks):
        """Keep what is at hand of new blocks; nothing where that is too much."""
        with self._lock:
            for block in blocks:
                if block["events"] and block["chain"] not in self._blocks and self._bytes + block["raw_bytes"] <= JUST_STORED_BYTES:
                    self._blocks[block["chain"]] = block["events"]
                    self._bytes += block["raw_bytes"]

    def take(self, block):
        """The events of a block, for the last time; [] where they are not at hand."""
        with self._lock:
            events = self._blocks.pop(block["chain"], [])
            self._bytes -= block["raw_bytes"] if events else 0
        return events

    def forget(self):
        """Forget those that nobody took: their upload failed, or they were read from the body meanwhile."""
        with self._lock:
            self._blocks, self._bytes = {}, 0


just_stored = JustStored()
JUST_STORED_BYTES = 8 << 20


def stored_events(db, session, start):
    """Yield (ordinal, event) of a session's next events from an ordinal on, some blocks at most.  Raises BodyMissing."""
    blocks = db.execute("""
        SELECT first_ordinal, raw_bytes, file_offset, file_bytes, chain FROM blocks
         WHERE session_id = ? AND first_ordinal >= coalesce(
               (SELECT max(first_ordinal) FROM blocks WHERE session_id = ? AND first_ordinal <= ?), 0)
         ORDER BY first_ordinal LIMIT 8
    """, [session["id"], session["id"], start])
    for block in blocks:
        events = just_stored.take(block) or events_of_block(session["body"], block)
        for ordinal, event in enumerate(events, block["first_ordinal"]):
            if start <= ordinal < session["event_count"]:
                yield ordinal, event


def events_of_block(body, block):
    """Yield the events of a block of a body.  Raises BodyMissing."""
    with open_body(body) as file:
        lines = lines_of(inflate_block(file, block))
    yield from map(json.loads, lines)


def unindex_from(session, first, with_title=False):
    """The statements that forget a session's events from an ordinal on.

    They go before the blocks are changed; `session` is the row with the body that is about to be replaced."""
    return [
        (f"""INSERT INTO unindexed (search_no, room, scope, title, about, body, file_bytes, file_offset, block_ordinal,
                                    first_ordinal, end_ordinal)
             SELECT i.search_no, i.room, i.scope, {"i.title, i.about" if with_title else "NULL, NULL"}, ?, ?,
                    coalesce(b.file_offset, {len(GZIP_HEADER)}), coalesce(b.first_ordinal, 0), ?, max(?, i.indexed_to)
               FROM indexed i LEFT JOIN blocks b ON b.session_id = i.session_id AND b.first_ordinal =
                    (SELECT max(first_ordinal) FROM blocks WHERE session_id = i.session_id AND first_ordinal <= ?)
              WHERE i.session_id = ? AND (i.indexed_to > ? OR {int(with_title)})""",
         [session["body"], session["file_bytes"], first, first, first, session["id"], first]),
        (f"""UPDATE indexed SET indexed_to = min(indexed_to, ?), pending = pending + 1
                                {", title = NULL, about = NULL" if with_title else ""} WHERE session_id = ?""",
         [first, session["id"]]),
    ]


def remove_rows(db, job):
    """Take out of the index what an `unindexed` row names, then let its body go."""
    rows = removed_rows(job)
    done = job["first_ordinal"]
    try:
        while batch := list(itertools.islice(rows, INDEX_ROWS)):
            db.batch([still_queued(job, done), *((REMOVE_ROW, row) for row in batch),
                      ("UPDATE unindexed SET first_ordinal = ? WHERE no = ?", [done + len(batch), job["no"]])])
            done += len(batch)
        title = [] if job["title"] is None else [(REMOVE_ROW, [
            title_place(job), marked(job["title"], job["scope"], "§ktitle"), job["about"]])]
        db.batch([still_queued(job, done), *title, ("DELETE FROM unindexed WHERE no = ?", [job["no"]]), (LEAVE_PLACE, [job["search_no"]])])
    except BodyMissing:
        abandon_rows(db, job)
    except Conflict:
        return                  # another process did it, or everything is indexed anew
    if not db.execute("SELECT 1 FROM sessions WHERE body = ?", [job["body"]]):
        release_body(db, job["body"])


LEAVE_PLACE = """DELETE FROM indexed WHERE search_no = ? AND session_id IS NULL
                    AND NOT EXISTS (SELECT 1 FROM unindexed u WHERE u.search_no = indexed.search_no)"""


def still_queued(job, done):
    return must("EXISTS (SELECT 1 FROM unindexed WHERE no = ? AND body = ? AND first_ordinal = ?)", job["no"], job["body"], done)


def removed_rows(job):
    """Yield the index rows, as they were made, of the events that a job names.  Raises BodyMissing."""
    if job["first_ordinal"] < job["end_ordinal"]:
        lines = itertools.islice(inflated_lines(job), job["first_ordinal"] - job["block_ordinal"], None)
        for ordinal in range(job["first_ordinal"], job["end_ordinal"]):
            line = next(lines, None)
            if line is None:
                raise BodyMissing
            yield row_of(job["search_no"], ordinal, json.loads(line), job["scope"])


def inflated_lines(job):
    """Yield the lines of a body from a block on.  Blocks follow each other as one stream."""
    stream, rest = zlib.decompressobj(-15), b""
    with open_body(job["body"]) as file:
        file.seek(job["file_offset"])
        left = job["file_bytes"] - job["file_offset"]
        while piece := file.read(min(left, 1 << 16)):
            left -= len(piece)
            try:
                *lines, rest = (rest + stream.decompress(piece)).split(b"\n")
            except zlib.error:
                raise BodyMissing from None
            yield from lines


def abandon_rows(db, job):
    """The old text is lost: move the session, so that rows that cannot be removed stay where nobody is."""
    log.warning("rows of a lost body stay in the search index: %s", job["body"])
    db.batch([("DELETE FROM unindexed WHERE search_no = ?", [job["search_no"]]),
              ("INSERT INTO placing SELECT * FROM placing WHERE session_id = (SELECT session_id FROM indexed WHERE search_no = ?)",
               [job["search_no"]])])


def release_body(db, name):
    """Remove a body that no session has, unless the index still needs its text: then the index does."""
    if not db.execute("SELECT 1 FROM unindexed WHERE body = ?", [name]):
        remove_body(name)


def renew_index(db):
    """Empty the index; every session is then indexed anew, the newest first."""
    bodies = db.batch([
        ("SELECT DISTINCT body FROM unindexed WHERE NOT EXISTS (SELECT 1 FROM sessions s WHERE s.body = unindexed.body)", []),
        ("INSERT INTO search_index (search_index) VALUES ('delete-all')", []),
        ("INSERT INTO search_index (search_index, rank) VALUES ('automerge', ?)", [PIECES_KEPT]),
        ("DELETE FROM unindexed", []),
        ("DELETE FROM indexed WHERE session_id IS NULL", []),
        ("UPDATE indexed SET indexed_to = 0, title = NULL, about = NULL, scope = '', pending = pending + 1", []),
        ("INSERT OR REPLACE INTO meta (key, value) VALUES ('index_version', ?)", [INDEX_VERSION]),
    ])[0]
    for row in bodies:
        remove_body(row["body"])


def check_index(db):
    """Make the index anew where another version of this program made it."""
    made = db.execute("SELECT value FROM meta WHERE key = 'index_version'")
    if not made or made[0]["value"] != INDEX_VERSION:
        renew_index(db)


# ---------------------------------------------------------------------------
# Search: the query language
#
# Words must all match; "a phrase"; -without; begin*; this OR that; name:value filters.
# Whatever is none of these is text, so that no input is an error.
# ---------------------------------------------------------------------------

QUERY_PIECE = re.compile(r'(?P<minus>-(?!-))?(?:(?P<name>[a-zA-Z]+):)?(?:"(?P<quoted>[^"]*)(?:"\*?)?|(?P<plain>[^\s"]+))')
QUERY_LENGTH, QUERY_WORDS = 1000, 32
EXPANSIONS, EXPANSION_SECONDS = 200, 0.006       # what all the `begin*` of a query may stand for, one may take
SHORT_HASH = re.compile("(?=[a-f]*[0-9])[0-9a-f]{7,39}")

# Filters that the index decides by marks, with what they may be.
MARK_FILTERS = {
    "kind": {**{name: f"§k{name}" for name in ("prompt", "reply", "thinking", "tool")}, "error": "§herror"},
    "has": {name: f"§h{name}" for name in ("error", "diff", "image", "file")},
    "in": {"title": "§ktitle"},
}
NAME_MARKS = {"tool": "o", "project": "p", "branch": "b"}
# Filters that the session decides: the condition, and how often the value stands in it.
ROW_FILTERS = {
    "tool": ("lower(s.tool) = lower(?)", 1),
    "project": ("(lower(s.project) = lower(?) OR substr(lower(s.project), -length(?) - 1) = '/' || lower(?))", 3),
    "branch": ("lower(s.git_branch) = lower(?)", 1),
    "model": ("instr(lower(s.agent_model), lower(?))", 1),
}


def parse_query(text):
    """What a query asks for: `groups` of words that may stand for each other, `without`, `filters`, `problems`."""
    asked = SimpleNamespace(groups=[], without=[], filters=[], problems=[], room=EXPANSIONS)
    if len(text) > QUERY_LENGTH:
        asked.problems.append(f"only the first {QUERY_LENGTH} characters are looked for")
    joins = False
    for piece in itertools.islice(QUERY_PIECE.finditer(text[:QUERY_LENGTH]), QUERY_WORDS):
        if piece[0] == "OR":
            joins = bool(asked.groups)
            continue
        if not read_filter(asked, piece):
            joins = read_word(asked, piece, joins)
    return asked


def read_filter(asked, piece):
    """Take a piece of a query for a filter, if it is one."""
    name = (piece["name"] or "").lower()
    value = (piece["quoted"] if piece["plain"] is None else piece["plain"]) or ""
    known = (name in ROW_FILTERS or name in ("team", "user", "file") or value.lower() in MARK_FILTERS.get(name, ())
             or name in ("before", "after") and moment_of(value))
    if not (known and value.strip()):
        return False
    asked.filters.append(SimpleNamespace(name=name, value=value.strip(), negated=bool(piece["minus"])))
    return True


def read_word(asked, piece, joins):
    """Take a piece of a query for a word or phrase.  Returns False: what follows is not joined by OR."""
    text = piece[0].removeprefix("-").strip('"*') if piece["name"] or piece["plain"] else piece["quoted"]
    word = query_word(text, piece[0].endswith("*"))
    if not word.tokens:
        return joins
    if piece["minus"]:
        asked.without.append(word)
    elif joins:
        asked.groups[-1].append(word)
    else:
        asked.groups.append([word])
    return False


def query_word(text, begins):
    return SimpleNamespace(text=unicodedata.normalize("NFKC", text), begins=begins, tokens=WORD.findall(query_text(text)))


def query_text(text):
    """Text of a query, prepared as the index is; at its end a wide word may go on."""
    text = split_words(LONG_WORD.sub(r"\1", unicodedata.normalize("NFKC", text)))
    text = text.lower() if text.isascii() else text
    return GOES_ON.sub(r"\1", text)


def moment_of(text):
    """The moment that before: or after: names: 2026, 2026-02, 2026-02-11, today, yesterday, 7d, 24h; None for others."""
    start = datetime.now(timezone.utc)
    today = start.replace(hour=0, minute=0, second=0, microsecond=0)
    if text in ("today", "yesterday"):
        return today - timedelta(days=text == "yesterday")
    if ago := re.fullmatch("([0-9]{1,4})([hdw])", text):
        return start - int(ago[1]) * {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}[ago[2]]
    for form in ("%Y-%m-%d", "%Y-%m", "%Y"):
        with contextlib.suppress(ValueError):
            at = datetime.strptime(text, form).replace(tzinfo=timezone.utc)
            return at if 1970 <= at.year < 9999 else None
    return None


def match_text(db, asked, more_marks):
    """A query in the language of FTS5.  Every word is quoted, so nothing in it can be an error.

    `more_marks` are lists of marks, of each of which one must be there."""
    columns = "text" if any(each.name == "in" and not each.negated for each in asked.filters) else "{text about}"
    wanted = [f"{columns} : ({any_word(db, asked, group)})" for group in asked.groups]
    wanted += [any_mark(marks) for marks in [*marks_asked(asked, False), *more_marks] if marks] + file_matches(db, asked, False)
    without = [f"{columns} : ({any_word(db, asked, [word])})" for word in asked.without]
    without += [any_mark(marks) for marks in marks_asked(asked, True)] + file_matches(db, asked, True)
    wanted = wanted or [any_mark(EVERY_ROW)]
    return f'({" AND ".join(map("({})".format, wanted))})' + "".join(f" NOT ({part})" for part in without)


EVERY_ROW = [f"§k{name}" for name in ("prompt", "reply", "thinking", "tool", "other", "title")]


def any_mark(marks):
    return "text : ({})".format(" OR ".join(f'"{mark}"' for mark in marks))


def file_matches(db, asked, negated):
    """What the file: filters ask for; a path without a word matches nothing."""
    words = [query_word(each.value, each.value.endswith("*")) for each in asked.filters
             if each.name == "file" and each.negated == negated]
    return [f"about : ({any_word(db, asked, [word])})" if word.tokens else any_mark("§") for word in words]


def marks_asked(asked, negated):
    """Lists of marks, of each of which one must be there (or, negated, none may be)."""
    marks = {}
    for each in asked.filters:
        if each.negated == negated:
            if mark := MARK_FILTERS.get(each.name, {}).get(each.value.lower()):
                marks.setdefault(each.name if each.name == "kind" or negated else mark, []).append(mark)
            elif each.name == "file" and not negated:
                marks["file"] = ["§hfile"]
            elif each.name in NAME_MARKS and not negated:
                marks.setdefault(each.name, []).append(name_mark(NAME_MARKS[each.name], each.value.lower()))
    return list(marks.values())


def any_word(db, asked, words):
    """The phrases, any of which will do, that stand for some words."""
    return " OR ".join(f'"{" ".join(tokens)}"' for word in words for tokens in word_phrases(db, asked, word))


def word_phrases(db, asked, word):
    """The lists of tokens that a word stands for: itself, in its parts where it is camelCase, and its endings."""
    phrases = [word.tokens]
    data = word.text.encode()
    if camel_parts(data, data.translate(SHAPES)):
        phrases.append(WORD.findall(query_text(CAMEL_PART.sub(r"\g<0> ", word.text))))
    last = word.tokens[-1]
    if word.begins or len(last) == 1 and WIDE_RUN.fullmatch(last) or SHORT_HASH.fullmatch(last):
        phrases = [[*tokens[:-1], ending] for tokens in phrases for ending in endings(db, asked, tokens[-1])] or phrases
    return phrases


def endings(db, asked, beginning):
    """The words in the index that begin so.  SQLite's own `begin*` reads all their places before it gives the first."""
    found, key, until = [], beginning, time.thread_time() + EXPANSION_SECONDS
    while rows := db.execute("SELECT term FROM search_words WHERE term >= ? LIMIT 1", [key]):
        key = rows[0]["term"]
        if not key.startswith(beginning):
            break
        if not asked.room or time.thread_time() > until:
            asked.problems.append(f"{beginning}* stands for too many words; only the first are looked for")
            break
        asked.room -= 1
        found.append(key)
        key += "\x01"
    return found


# ---------------------------------------------------------------------------
# Requests: who calls
# ---------------------------------------------------------------------------

COOKIE_DAYS = 30


def cookie_name():
    """Over https a name that no other host or port of the same site can set in our place."""
    return "__Host-opensession" if settings.base_url.startswith("https://") else "opensession"


def cookie():
    """The log-in that the browser shows, if any."""
    return request.get_cookie(cookie_name())


class Arguments:
    """Gives a handler what its signature asks for.

    `db`      the database
    `user`    who calls; without a good key or cookie the call ends with 401
    `reader`  who calls, or None: the handler's SQL then finds public teams only

    A key's scope must fit the route: `full` fits all, `read` every GET, `upload` the routes
    that say scope="upload", and any key those that say scope="any"."""

    name, api = "arguments", 2

    def apply(self, callback, route):
        wanted = {"db", "user", "reader"} & set(route.get_callback_args())
        if not wanted:
            return callback

        def call(**arguments):
            with db.lent_connection():
                return answer(arguments)

        def answer(arguments):
            if "db" in wanted:
                arguments["db"] = db
            if "user" in wanted:
                arguments["user"] = signed_in(db, route)
            if "reader" in wanted:
                arguments["reader"] = signed_in(db, route) if has_credentials() else None
            if kind := route.config.get("limit"):
                wait_turn(kind, arguments.get("user") or arguments.get("reader"))
            return callback(**arguments)
        return call


def problem(status, sentence, **extra):
    """An error to raise; `extra` goes into the answer beside the sentence."""
    error = HTTPError(status, sentence)
    error.extra = extra
    return error


def signed_in(db, route):
    """The user who calls: a row of users with key_id, scope and key_prefix.  Raises 401 and 403."""
    header = sent("Authorization")
    if header:
        user = user_of_key(db, header.removeprefix("Bearer ").strip() if header.startswith("Bearer ") else "")
    else:
        user = user_of_cookie(db, cookie())
    request.environ["opensession.user"] = user["id"]
    if not scope_fits(user["scope"], route):
        raise problem(403, f"this key may only {user['scope']}; use one with the scope full")
    return user


def sent(name, default=""):
    """A header of the request.  Any bytes can stand there, and Bottle's get_header fails on those that are no UTF-8."""
    return request.headers.raw(name) or default


def has_credentials():
    """Whether the caller claims to be somebody."""
    return bool(sent("Authorization") or cookie())


USER_COLUMNS = "u.id, u.nickname, u.is_admin, u.created_at, k.id AS key_id, k.scope, k.prefix AS key_prefix, k.name AS key_name"


def user_of_key(db, key):
    """The user whom an API key belongs to, or 401."""
    rows = well_formed(key) and db.execute(
        f"SELECT {USER_COLUMNS}, k.last_used_on FROM api_keys k JOIN users u ON u.id = k.user_id WHERE k.hash = ?",
        [secret_hash(key)])
    if not rows:
        raise problem(401, "invalid API key")
    note_use(db, rows[0]["last_used_on"], "UPDATE api_keys SET last_used_on = ? WHERE id = ?", rows[0]["key_id"])
    return rows[0]


def note_use(db, last_used_on, statement, thing):
    """Note once a day that a key or a log-in is in use."""
    if last_used_on != now()[:10]:
        with contextlib.suppress(sqlite3.OperationalError):     # nobody is turned away for a note
            db.batch([(statement, [now()[:10], thing])])


def user_of_cookie(db, token):
    """The user who is signed in in this browser, or 401."""
    rows = token and db.execute(f"""
        SELECT {USER_COLUMNS}, l.last_used_on, l.hash
          FROM logins l JOIN users u ON u.id = l.user_id JOIN api_keys k ON k.id = l.key_id
         WHERE l.hash = ? AND l.expires_at > ?
    """, [secret_hash(token), now()])
    if not rows:
        raise problem(401, "missing or invalid Authorization header")
    note_use(db, rows[0]["last_used_on"], "UPDATE logins SET last_used_on = ? WHERE hash = ?", rows[0]["hash"])
    return rows[0]


def scope_fits(scope, route):
    return (scope == "full" or route.config.get("scope") in ("any", scope)
            or scope == "read" and route.method == "GET")


# A key is osk_, 30 random characters and 6 that check them, so that a scanner and we
# can tell a key from garbage without a database.
BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def new_key():
    """A fresh API key, 178 bits of chance."""
    body = random_text(30)
    return f"osk_{body}{key_check(body)}"


def random_text(length):
    """Letters and digits by chance, 6 bits each: nothing that a command line, an address or a double click would cut."""
    return "".join(secrets.choice(BASE62) for _ in range(length))


def key_check(body):
    """Six characters computed from the others: their CRC-32 to the base of 62."""
    number, digits = zlib.crc32(body.encode()), ""
    for _ in range(6):
        number, digit = divmod(number, 62)
        digits = BASE62[digit] + digits
    return digits


def well_formed(key):
    """Whether a text can be one of our keys, or of the original's that were taken over, at all."""
    ours = re.fullmatch("osk_[0-9A-Za-z]{36}", key) and key_check(key[4:34]) == key[34:]
    return bool(ours or re.fullmatch("osk_[0-9a-f]{32}", key))


def secret_hash(secret):
    """How keys, cookies and codes are stored.  They are long and random, so no slow hash is needed."""
    return sha256(secret.encode("utf-8", "replace")).hexdigest()


# ---------------------------------------------------------------------------
# Requests: how often
#
# Token buckets in memory.  One machine talking to itself is not counted.
# ---------------------------------------------------------------------------

DOOR_TRIES = 10             # bad credentials, and registrations, for each address in a minute
SAVED_MINUTES = 10          # an account may use at once what it left in so many minutes, as with a first collection
MOST_BUCKETS = 10_000


class Buckets:
    """Token buckets by name.  Of too many, those longest unused are forgotten, which makes them full again."""

    def __init__(self, clock=time.monotonic):
        self._clock, self._held, self._lock = clock, OrderedDict(), threading.Lock()

    def take(self, name, per_minute, depth, tokens=1):
        """Take tokens where there is one at least (0: only look); the seconds until there is one, 0 where there was."""
        with self._lock:
            at = self._clock()
            left, then = self._held.pop(name, (depth, at))
            left = min(depth, left + (at - then) * per_minute / 60)
            enough = left >= 1
            self._held[name] = (left - tokens if enough else left, at)
            if len(self._held) > MOST_BUCKETS:
                self._held.popitem(last=False)
        return 0 if enough else (1 - left) * 60 / per_minute

    def clear(self):
        self._held.clear()


buckets = Buckets()


def wait_turn(kind, user):
    """End with 429 where an account, or a nobody's address, asks for more of a kind than it may."""
    per_minute = settings.limits[kind]
    if per_minute and not is_local():
        who = user["id"] if user else neighbourhood(caller_address())
        refuse_hurry(buckets.take((kind, who), per_minute, per_minute * SAVED_MINUTES))


def wait_outside(tokens=1):
    """The same for an address at the doors; 0 tokens: only look whether it may try."""
    if not is_local():
        refuse_hurry(buckets.take(("door", neighbourhood(caller_address())), DOOR_TRIES, DOOR_TRIES, tokens))


def refuse_hurry(seconds):
    """End with 429 unless there is nothing to wait for."""
    if seconds:
        error = problem(429, f"too many requests; try again in {math.ceil(seconds)} s")
        error.set_header("Retry-After", str(math.ceil(seconds)))
        raise error


def neighbourhood(address):
    """What one customer of a network has: an address, or in IPv6 the 2^64 addresses around it."""
    return ipaddress.ip_address(address).exploded[:19] if ":" in (address or "") else address


class Doors:
    """Plugin: routes with door="name" give way to those with good credentials; who brings bad ones too often must wait."""

    name, api = "doors", 2

    def apply(self, callback, route):
        door = route.config.get("door")

        def call(**arguments):
            wait_outside(tokens=int(door == "register"))
            try:
                return callback(**arguments)
            except HTTPError as error:
                if error.status_code in (401, 403, 404):
                    if door != "register":
                        wait_outside()
                    if door in REFUSALS:
                        note_act(audited(request.environ.get("opensession.user"), REFUSALS[door]))
                raise

        return call if door else callback


# ---------------------------------------------------------------------------
# Requests: what may come in
# ---------------------------------------------------------------------------

JSON_BODY_BYTES = 64 << 20
LINE_BYTES = 32 << 20
JSON_DEPTH = 64
LARGEST = 2**53
HAIL_TYPES = ("application/jsonl", "application/x-ndjson", "text/plain")


@app.hook("before_request")
def believe_proxy():
    """Behind a proxy that we trust, the caller is whom it names last; what the caller wrote before that is hearsay."""
    request.environ["REMOTE_ADDR"] = peer = plain_address(request.environ.get("REMOTE_ADDR", ""))
    if not (settings.trusted_proxies and sent("X-Forwarded-For") and is_trusted(peer)):
        return
    named = sent("X-Forwarded-For").rpartition(",")[2].strip()
    try:
        request.environ["REMOTE_ADDR"] = plain_address(str(ipaddress.ip_address(named)))
    except ValueError:
        raise problem(400, "the proxy names no address in X-Forwarded-For") from None


def plain_address(text):
    """An address as it is told apart from others: of IPv4 within IPv6 the four numbers, of IPv6 without its interface."""
    text = text.partition("%")[0]
    mapped = ipaddress.ip_address(text).ipv4_mapped if text.lower().startswith("::ffff:") else None
    return str(mapped or text)


def is_trusted(peer):
    """Whether an address is that of a proxy of ours."""
    try:
        return any(ipaddress.ip_address(peer) in network for network in settings.trusted_proxies)
    except ValueError:
        return False


@app.hook("before_request")
def check_origin():
    """Refuse names that are not ours (DNS rebinding) and other sites' unsafe requests (CSRF)."""
    host = sent("Host")
    if host_name(host) not in settings.hosts and not is_loopback(host_name(host)):
        raise problem(421, "this server is not known by that name; its operator can add it to OPENSESSION_HOSTS")
    if request.method in SAFE_METHODS or sent("Authorization"):
        return
    origin = sent("Origin")
    known = (host, urllib.parse.urlsplit(settings.base_url).netloc)
    if origin and origin.partition("://")[2] not in known:
        raise problem(403, "this request comes from another site")
    if not origin and cookie() and sent("Sec-Fetch-Site") != "same-origin":
        raise problem(403, "a browser's request must say where it comes from")


def is_local():
    """Whether this is one machine talking to itself: then the first comer is trusted."""
    names = (settings.host, host_name(urllib.parse.urlsplit(settings.base_url).netloc))
    return is_direct() and all(is_loopback(name) for name in names)


def is_direct():
    """Whether a request comes from this machine itself, not through a proxy on it."""
    names = (request.environ.get("REMOTE_ADDR", ""), host_name(sent("Host")))
    return all(is_loopback(name) for name in names) and not any(sent(name) for name in PROXY_HEADERS)


PROXY_HEADERS = ("X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP", "Forwarded", "Via")


@app.hook("before_request")
def refuse_writing():
    """A server that can only read says so before it reads a body."""
    if db.reading_only and request.method not in SAFE_METHODS:
        error = problem(503, "this server can only read at the moment: its data directory cannot be written")
        error.set_header("Retry-After", "300")
        raise error


SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


def media_type():
    """The request's content type without parameters, in lower case."""
    return sent("Content-Type").partition(";")[0].strip().lower()


def body_pieces(limit):
    """Yield the request's body, decompressed, in pieces; 413 where it is larger than `limit` bytes."""
    encoding = sent("Content-Encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip"):
        raise problem(415, "only gzip is understood as Content-Encoding")
    pieces = iter(lambda: request.environ["wsgi.input"].read(1 << 16), b"")
    total = 0
    for piece in inflate(pieces) if encoding == "gzip" else pieces:
        total += len(piece)
        if total > limit:
            raise problem(413, f"the body is larger than {limit >> 20} MiB{larger_form(limit)}")
        yield piece


def larger_form(limit):
    return "; send it as JSON lines (application/jsonl)" if limit == JSON_BODY_BYTES < settings.max_body else ""


GZIP_MEMBERS = 1000         # a body of empty ones would cost much time a byte


def inflate(pieces):
    """Yield what gzip pieces hold, never more than 64 KiB at once.  Some members may follow each other."""
    stream, members = zlib.decompressobj(31), 1
    try:
        for piece in pieces:
            while piece:
                if stream.eof:
                    stream, members = zlib.decompressobj(31), members + 1
                if members > GZIP_MEMBERS:
                    raise problem(400, "the gzip body has too many members")
                yield stream.decompress(piece, 1 << 16)
                piece = stream.unused_data if stream.eof else stream.unconsumed_tail
        while not stream.eof and (rest := stream.decompress(stream.unconsumed_tail, 1 << 16)):
            yield rest
    except zlib.error:
        raise problem(400, "the body is not valid gzip") from None
    if not stream.eof:
        raise problem(400, "the gzip body ends too early")


def body_lines(limit):
    """Yield the lines of the body, each with its line end; blank ones are left out."""
    with contextlib.closing(LineStart()) as start:
        for piece in body_pieces(limit):
            *lines, last = piece.split(b"\n")
            for line in lines:
                if line := start.completed(line):
                    yield line
            start.add(last)
        if line := start.completed(b""):
            yield line


class LineStart:
    """The beginning of a line that has not ended yet.  A long one waits in a file: most of them are bombs."""

    IN_MEMORY = 4 << 20

    def __init__(self):
        self._held, self._file, self._size = bytearray(), None, 0

    def add(self, piece):
        """Hold a piece of the line.  Raises 413 where it is too long."""
        self._held += piece
        self._size += len(piece)
        if self._size > LINE_BYTES:
            raise problem(413, f"a line is longer than {LINE_BYTES >> 20} MiB")
        if len(self._held) > self.IN_MEMORY:
            self._file = self._file or tempfile.TemporaryFile()
            self._file.write(self._held)
            self._held.clear()

    def completed(self, end):
        """The whole line with its line end, or b"" where it is blank; another one may begin."""
        line = (self._read_file() + self._held + end).rstrip(b"\r")
        self._held.clear()
        self._size = 0
        return bytes(line) + b"\n" if line.strip() else b""

    def _read_file(self):
        if not self._file:
            return b""
        self._file.seek(0)
        start = self._file.read()
        self.close()
        return start

    def close(self):
        if self._file:
            self._file.close()
        self._file = None


def parse_json(data, where="the body"):
    """The JSON value in some bytes.  Raises 400: bad UTF-8 or syntax, NaN, infinity, too deep."""
    try:
        value = STRICT_JSON.decode(data.removeprefix(b"\xef\xbb\xbf").decode())
    except RecursionError:
        raise problem(400, f"{where} is nested too deeply") from None
    except ValueError as error:
        raise problem(400, f"{where} is not valid JSON: {error}") from None
    if data.count(b"[") + data.count(b"{") > JSON_DEPTH and too_deep(value):
        raise problem(400, f"{where} is nested more than {JSON_DEPTH} levels deep")
    return whole_characters(value) if HALF_CHARACTER.search(data) else value


def no_number(name):
    raise ValueError(f"{name} is no number")


def finite(digits):
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError("a number is too large")
    return value


STRICT_JSON = json.JSONDecoder(parse_constant=no_number, parse_float=finite)


def too_deep(value):
    """Whether lists and objects stand more than JSON_DEPTH deep in each other."""
    level = [value]
    for _ in range(JSON_DEPTH):
        level = [inner for outer in level if isinstance(outer, (dict, list))
                 for inner in (outer.values() if isinstance(outer, dict) else outer)]
    return any(isinstance(inner, (dict, list)) for inner in level)


# Escapes that may be half of a surrogate pair: legal JSON, but no text.
HALF_CHARACTER = re.compile(rb"\\u[dD][89a-fA-F]")


def whole_characters(value):
    """The same JSON value with U+FFFD where a surrogate stands alone."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [whole_characters(item) for item in value]
    if isinstance(value, dict):
        return {whole_characters(key): whole_characters(item) for key, item in value.items()}
    return value


def body_object(limit=1 << 20):
    """The JSON object that a request must carry.  Raises 400, 413 and 415."""
    if media_type() != "application/json":
        raise problem(415, "the Content-Type must be application/json")
    value = parse_json(b"".join(body_pieces(limit)))
    if not isinstance(value, dict):
        raise problem(400, "the body must be a JSON object")
    return value


def field(body, name, kind, default=...):
    """One field of a body, of the right type; null is as good as absent.  Raises 422."""
    value = body.get(name)
    if value is None and default is not ...:
        return default
    if type(value) is not kind or kind is int and abs(value) > LARGEST:
        missing = "is missing" if value is None else f"must be {TYPE_NAMES[kind]}"
        raise problem(422, f"{name} {missing}", field=name)
    return value


TYPE_NAMES = {str: "text", bool: "true or false", int: "a whole number", dict: "an object", list: "a list"}


def choice(body, name, allowed, default):
    """One field of a body that must be one of a few words.  Raises 422."""
    value = field(body, name, str, default)
    if value not in allowed:
        raise problem(422, f"{name} must be one of {', '.join(allowed)}", field=name)
    return value


def printable(text, name, longest, sentence):
    """A name that people give to things: trimmed, normal form C, 1 to `longest` characters."""
    text = unicodedata.normalize("NFC", text.strip())
    if not 1 <= len(text) <= longest:
        raise problem(400, sentence, field=name)
    if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in text):
        raise problem(422, f"{name} must not contain control characters", field=name)
    return text


def query(name, default=None):
    """One value of the query string, as text.  Bytes that are no UTF-8 become U+FFFD."""
    environ = request.environ
    if "opensession.query" not in environ:
        environ["opensession.query"] = urllib.parse.parse_qs(environ.get("QUERY_STRING", ""), keep_blank_values=True, errors="replace")
    values = environ["opensession.query"].get(name)
    return values[-1].replace("\0", "") if values else default


def query_number(name, default, low, high):
    """A whole number of the query string, moved into its range.  Raises 400."""
    text = query(name)
    if text is None:
        return default
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        raise problem(400, f"{name} must be a whole number", field=name)
    return min(max(int(text), low), high)


# ---------------------------------------------------------------------------
# Requests: what goes out
# ---------------------------------------------------------------------------

HEADERS = {
    "Content-Security-Policy":
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "font-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types opensession-html opensession-markdown dompurify",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def finish_answer(environ, status, headers):
    """The headers that every answer gets, beside its own; the answer is counted and logged."""
    known = {name.lower(): value for name, value in headers}
    seconds = time.monotonic() - environ["opensession.started"]
    count_request(environ, status, seconds)
    # No query, no keys, no bodies; the path as it came, so that no line can be forged.
    log.info("%s %s %s %.0f ms %s bytes user=%s id=%s", environ["REQUEST_METHOD"], urllib.parse.quote(environ["PATH_INFO"])[:200],
             status[:3], seconds * 1000, known.get("content-length", "-"), environ.get("opensession.user", "-"),
             environ["opensession.request_id"])
    more = {**HEADERS, "X-Request-Id": environ["opensession.request_id"], "Server-Timing": f"app;dur={seconds * 1000:.2f}"}
    if settings.base_url.startswith("https://"):
        more["Strict-Transport-Security"] = "max-age=31536000"
    if "cache-control" not in known:
        more["Cache-Control"] = "no-store"
    return [*headers, *more.items()]


def json_text(value):
    """JSON as we send it: compact, and never NaN."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def error_json(error):
    """Every error is {"error": sentence}, whether we raised it or Bottle."""
    response.content_type = "application/json"
    sentence, extra = (error.body, error.extra) if hasattr(error, "extra") else (
        SENTENCES.get(error.status_code, "this request cannot be answered"), {})
    return json_text({"error": sentence, **extra, "request_id": request.environ["opensession.request_id"]})


SENTENCES = {404: "there is nothing here", 405: "this method is not allowed here"}


def answer_failures(callback):
    """Plugin: what fails below a handler becomes an answer; the unexpected goes to the log."""
    def call(**arguments):
        try:
            return callback(**arguments)
        except HTTPResponse:
            raise
        except Exception as error:
            status, sentence = failure(error)
            if status == 500:
                log.exception("%s failed, id=%s", request.method, request.environ["opensession.request_id"])
            answer = problem(status, sentence)
            if status == 503:
                answer.set_header("Retry-After", "1")
            raise answer from None
    return call


def failure(error):
    """The status and the sentence for an exception."""
    if isinstance(error, BodyMissing):
        return 410, "the stored body of this session is missing"
    if isinstance(error, sqlite3.OperationalError):
        for words, answer in DATABASE_TROUBLE.items():
            if re.search(words, str(error)):
                return answer
    if isinstance(error, OSError) and error.errno in DISK_TROUBLE:
        return DISK_TROUBLE[error.errno]
    return 500, "something went wrong here; the server's log says more"


DISK_FULL = (507, "the server's disk is full")
DATABASE_TROUBLE = {
    "full": DISK_FULL,
    "disk I/O error|readonly|read-only|unable to open": (503, "the database cannot be written right now"),
    "locked|busy": (503, "the database is busy; try again"),
}
DISK_TROUBLE = {
    errno.ENOSPC: DISK_FULL,
    errno.EDQUOT: DISK_FULL,
    errno.EFBIG: DISK_FULL,
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO), (503, "the data directory cannot be written right now")),
}


@contextlib.contextmanager
def conflict_is(status, sentence):
    """What a batch that was undone means to the caller."""
    try:
        yield
    except Conflict:
        raise problem(status, sentence) from None


ZIPPED_FROM = 2000          # bytes; what is smaller travels in one packet or two in any case


def zip_answers(callback):
    """Plugin: zip long JSON for those who take it; on a slow line that is worth a hundred times what it costs."""
    def call(**arguments):
        answer = callback(**arguments)
        if not isinstance(answer, (str, list)) or response.content_type != "application/json" or shows_request():
            return answer
        response.set_header("Vary", "Accept-Encoding")
        pieces = [answer.encode()] if isinstance(answer, str) else answer
        if is_direct() or sum(map(len, pieces)) < ZIPPED_FROM or not GZIP_ACCEPTED.search(sent("Accept-Encoding")):
            return answer
        response.set_header("Content-Encoding", "gzip")
        if "ETag" in response.headers:
            response.set_header("ETag", f"W/{response.headers['ETag']}")
        deflate = zlib.compressobj(1, zlib.DEFLATED, 31)
        return b"".join([*map(deflate.compress, pieces), deflate.flush()])
    return call


def shows_request():
    """Whether an answer may hold something of the request, or a key.

    By the size of an answer that is zipped, who sees the wire and chooses a text in it could guess the texts beside it."""
    return request.method not in SAFE_METHODS or bool(query("q") or query("search"))


def cached_answer(answer):
    """An answer, a dict or its JSON text, that the browser may keep until it changes."""
    text = answer if isinstance(answer, str) else json_text(answer)
    cached(sha256(text.encode()).hexdigest()[:32])
    response.content_type = "application/json"
    return text


def cached(tag):
    """Let the browser keep an answer as long as its tag stays; ends with 304 where it has it."""
    etag = f'"{tag}"'
    headers = {"ETag": etag, "Cache-Control": "private, no-cache"}
    if etag in [known.strip().removeprefix("W/") for known in sent("If-None-Match").split(",")]:
        raise HTTPResponse(status=304, headers=headers)
    for name, value in headers.items():
        response.set_header(name, value)


app.install(zip_answers)
app.install(JSONPlugin(json_dumps=json_text))
app.install(answer_failures)
app.install(Doors())
app.install(Arguments())
app.default_error_handler = error_json


# ---------------------------------------------------------------------------
# Audit
#
# Who did what to which object, from where: ids only, never titles, names or keys.
# An act is written in the batch that does it, so that there is no one without the other.
# ---------------------------------------------------------------------------

# Every act, and what its object is.  The page has a text for each, act.NAME in static/texts/.
ACTS = {
    "setup": "the first user", "register": "the user", "register.refused": None, "user.delete": "the user",
    "user.create": "the user", "user.promote": "the user", "user.export": "the user", "user.import": "the user",
    "login": None, "login.refused": None, "logout.everywhere": "the user",
    "key.create": "the key", "key.regenerate": "the key", "key.revoke": "the key", "key.reset": "the user",
    "invitation.create": "the invitation", "invitation.revoke": "the invitation", "invitation.accept": "the invitation",
    "invitation.refused": None,
    "team.create": "the team", "team.update": "the team", "team.delete": "the team", "team.import": "the team",
    "member.add": "the user", "member.role": "the user", "member.remove": "the user", "member.leave": "the user",
    "session.title": "the session", "session.leave": "the session", "session.move": "the session", "session.redact": "the session",
    "session.delete": "the session", "session.expire": "the session", "session.download": "the session",
    "daemon_settings.update": None,
}


def audited(user_id, action, thing=None, team_id=None):
    """The statement that writes an act into the audit; `thing` is an id, `team_id` the team whose admins may read of it."""
    return audited_as(user_id, "?, ?, ?", action, thing, team_id)


def audited_as(user_id, selection, *args):
    """The same where the database knows more: `selection` gives the act, its object and its team."""
    return (f"INSERT INTO audit (at, user_id, address, action, object, team_id) SELECT ?, ?, ?, {selection}",
            [now(), user_id, caller_address(), *args])


def caller_address():
    """Where the request comes from; None for a command of the operator."""
    try:
        return request.environ.get("REMOTE_ADDR")
    except RuntimeError:
        return None


# A door, and the act of being refused there.
REFUSALS = {"login": "login.refused", "register": "register.refused", "invitation": "invitation.refused"}


def note_act(statement):
    """Write down an act that changes nothing.  It is no reason to fail where the database is busy."""
    with contextlib.suppress(sqlite3.OperationalError):
        db.batch([statement])


def audit_rows(db, team_id=None, before=None, limit=100):
    """Acts, the newest first: of one team or all, before a number of an act."""
    where = {"a.team_id = ?": team_id, "a.no < ?": before}
    where = {condition: value for condition, value in where.items() if value is not None}
    return db.execute(f"""
        SELECT a.no, a.at, a.user_id, u.nickname, a.address, a.action, a.object, o.nickname AS object_nickname,
               a.team_id, t.name AS team_name
          FROM audit a LEFT JOIN users u ON u.id = a.user_id LEFT JOIN users o ON o.id = a.object
                       LEFT JOIN teams t ON t.id = a.team_id
         {"WHERE " if where else ""}{" AND ".join(where)}
         ORDER BY a.no DESC LIMIT ?
    """, [*where.values(), limit])


@app.get("/api/audit")
def audit(user, db):
    """Who did what, the newest first: all of it for server admins, a team's acts for its admins."""
    team_id = query("team_id")
    if team_id:
        require_team_admin(db, user, team_id)
    else:
        require_server_admin(user)
    limit = query_number("limit", 50, 1, 500)
    before = query_number("cursor", None, 1, LARGEST)
    rows = audit_rows(db, team_id, before, limit + 1)
    return {"acts": [dict(row) for row in rows[:limit]], "next_cursor": str(rows[limit - 1]["no"]) if len(rows) > limit else None}


def forget_old(db):
    """Forget acts that are too old to keep, and log-ins and invitations that have ended; {what: how many}."""
    oldest = utc_text(datetime.now(timezone.utc) - timedelta(days=settings.audit_days))
    gone = db.batch([("DELETE FROM audit WHERE at < ? RETURNING 1", [oldest]),
                     ("DELETE FROM logins WHERE expires_at < ? RETURNING 1", [now()]),
                     ("DELETE FROM invitations WHERE expires_at < ? RETURNING 1", [now()])])
    return dict(zip(("old act", "expired log-in", "expired invitation"), map(len, gone)))


# ---------------------------------------------------------------------------
# Accounts
# ---------------------------------------------------------------------------

def registration_mode():
    """Who may register after the first user: open, invite or closed."""
    return settings.registration or ("open" if is_local() else "invite")


def needs_setup_token():
    """Whether the first registration must bring the token that was printed at start."""
    return not (is_local() or settings.setup == "open")


@app.post("/api/register", door="register")
def register(db):
    """Make an account; the answer is the only place where its key is ever shown."""
    body = body_object()
    nickname = printable(field(body, "nickname", str), "nickname", 64, "nickname must be 1-64 characters")
    invite = field(body, "invite", str, "")
    user_id, key, team_id = new_id(), new_key(), new_id()
    try:
        rows = db.batch([
            *admission(db, invite),
            ("""INSERT INTO users (id, nickname, is_admin, created_at)
                SELECT ?, ?, NOT EXISTS (SELECT 1 FROM users), ? RETURNING is_admin""", [user_id, nickname, now()]),
            insert_key(user_id, key, "default", "full"),
            *first_team(user_id, nickname, team_id),
            *joining(user_id, invite),
            audited_as(user_id, "iif(is_admin, 'setup', 'register'), id, NULL FROM users WHERE id = ?", user_id),
        ])
    except Conflict as conflict:
        if "users.nickname" in str(conflict):
            raise problem(409, "nickname already taken", field="nickname") from None
        raise refused_registration(db, invite) from None
    setup_token_file().unlink(missing_ok=True)
    is_admin = bool(next(row for row in sum(rows, []) if "is_admin" in row.keys())["is_admin"])
    response.status = 201
    return {"user_id": user_id, "nickname": nickname, "api_key": key, "is_admin": is_admin,
            "team_id": only_team(db, user_id)}


def admission(db, invite):
    """The conditions under which somebody may register now, as statements for the batch."""
    valid = must(VALID_INVITATION, secret_hash(invite), now())
    if not db.execute("SELECT 1 FROM users LIMIT 1"):
        if not needs_setup_token():
            return [] if registration_mode() == "open" else [must("NOT EXISTS (SELECT 1 FROM users)")]
        return [must("EXISTS (SELECT 1 FROM meta WHERE key = 'setup_token' AND value = ?)", secret_hash(invite)),
                must("NOT EXISTS (SELECT 1 FROM users)"),
                ("DELETE FROM meta WHERE key = 'setup_token'", [])]
    if invite and registration_mode() != "closed":
        return [valid]
    return [] if registration_mode() == "open" else [must("0")]


# An invitation is good as long as who made it may still invite, so that nobody leaves a back door open.
VALID_INVITATION = """EXISTS (
    SELECT 1 FROM invitations i JOIN users u ON u.id = i.created_by
     WHERE i.hash = ? AND i.used_at IS NULL AND i.expires_at > ?
       AND (u.is_admin OR EXISTS (SELECT 1 FROM team_members m
                                   WHERE m.team_id = i.team_id AND m.user_id = u.id AND m.role = 'admin')))"""


def refused_registration(db, invite):
    """Why somebody may not register: an error to raise."""
    if not db.execute("SELECT 1 FROM users LIMIT 1"):
        return problem(403, "the first registration needs the set-up token that the server printed at start",
                       field="invite", setup_required=True)
    if registration_mode() == "closed":
        return problem(403, "registration is closed on this server")
    if invite:
        return problem(403, "this invitation is not valid any more", field="invite")
    return problem(403, "registration needs an invitation", field="invite")


def insert_key(user_id, key, name, scope, key_id=None):
    return ("INSERT INTO api_keys (id, user_id, name, hash, prefix, scope, created_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
            [key_id or new_id(), user_id, name, secret_hash(key), key[:8], scope, now()])


def first_team(user_id, nickname, team_id):
    """The statements that give the first user, who is admin, a team to start with."""
    return [
        ("""INSERT INTO teams (id, name, created_by, created_at)
            SELECT ?, ?, id, created_at FROM users WHERE id = ? AND is_admin""",
         [team_id, f"{nickname}'s team", user_id]),
        ("""INSERT INTO team_members (team_id, user_id, role, joined_at)
            SELECT ?, id, 'admin', created_at FROM users WHERE id = ? AND is_admin""", [team_id, user_id]),
    ]


def joining(user_id, invite):
    """The statements that use an invitation up and bring its user into the team."""
    return [
        ("""INSERT INTO team_members (team_id, user_id, role, joined_at)
            SELECT team_id, ?, role, ? FROM invitations
             WHERE hash = ? AND used_at IS NULL AND expires_at > ? AND team_id IS NOT NULL""",
         [user_id, now(), secret_hash(invite), now()]),
        audited_as(user_id, "'invitation.accept', id, team_id FROM invitations WHERE hash = ? AND used_at IS NULL",
                   secret_hash(invite)),
        ("UPDATE invitations SET used_by = ?, used_at = ? WHERE hash = ? AND used_at IS NULL",
         [user_id, now(), secret_hash(invite)]),
    ]


def only_team(db, user_id):
    """The id of the one team that a user can upload to, or None where it is not clear which."""
    teams = db.execute("SELECT team_id FROM team_members WHERE user_id = ? AND role <> 'viewer' LIMIT 2", [user_id])
    return teams[0]["team_id"] if len(teams) == 1 else None


def new_id():
    return str(uuid.uuid4())


@app.post("/api/auth/verify", scope="any", door="verify")
def verify(user, db):
    """Whether a key is good, whose it is, and the one team that its uploads go to."""
    return {"user_id": user["id"], "nickname": user["nickname"], "team_id": only_team(db, user["id"])}


@app.get("/api/auth/me", scope="any")
def me(user):
    """Who calls.  The key is shown by its beginning only."""
    return {"user_id": user["id"], "nickname": user["nickname"], "api_key": f"{user['key_prefix']}…",
            "is_admin": bool(user["is_admin"]), "created_at": user["created_at"],
            "email": None, "github_username": None, "avatar_url": None, "scope": user["scope"]}


@app.post("/api/auth/regenerate-key")
def regenerate_key(user, db):
    """Replace the key that calls; in the browser, the one named default.  The old one is dead at once."""
    key_id = user["key_id"] if sent("Authorization") else default_key(db, user)
    key = new_key()
    db.batch([
        ("DELETE FROM logins WHERE key_id = ? AND hash <> ?", [key_id, secret_hash(cookie() or "")]),
        ("UPDATE api_keys SET hash = ?, prefix = ?, last_used_on = NULL WHERE id = ?", [secret_hash(key), key[:8], key_id]),
        audited(user["id"], "key.regenerate", key_id),
    ])
    return {"api_key": key}


def default_key(db, user):
    """The id of the user's key named default, or 404."""
    keys = db.execute("SELECT id FROM api_keys WHERE user_id = ? AND name = 'default' ORDER BY created_at", [user["id"]])
    if not keys:
        raise problem(404, "there is no key named default; make a new one")
    return keys[0]["id"]


@app.post("/api/auth/login", door="login")
def login(db):
    """Sign a browser in with an API key; it gets a cookie that scripts cannot read."""
    user = user_of_key(db, field(body_object(), "api_key", str).strip())
    token = random_text(43)
    until = datetime.now(timezone.utc) + timedelta(days=COOKIE_DAYS)
    db.batch([
        ("DELETE FROM logins WHERE expires_at < ?", [now()]),
        ("INSERT INTO logins (hash, user_id, key_id, created_at, expires_at) VALUES (?, ?, ?, ?, ?)",
         [secret_hash(token), user["id"], user["key_id"], now(), utc_text(until)]),
        audited(user["id"], "login"),
    ])
    set_cookie(token, COOKIE_DAYS * 86400)
    return {"user_id": user["id"], "nickname": user["nickname"], "is_admin": bool(user["is_admin"])}


def set_cookie(value, seconds):
    """Give the browser a log-in for so long."""
    response.set_cookie(cookie_name(), value, path="/", httponly=True, samesite="lax", max_age=seconds,
                        secure=settings.base_url.startswith("https://"))


@app.post("/api/auth/logout")
def logout(db):
    """Sign this browser out."""
    db.batch([("DELETE FROM logins WHERE hash = ?", [secret_hash(cookie() or "")])])
    set_cookie("", -1)
    response.status = 204


@app.get("/api/auth/logins")
def list_logins(user, db):
    """Where the caller is signed in: when that began, when it was last used, and the key that it was made with."""
    rows = db.execute("""
        SELECT l.created_at, l.last_used_on, l.expires_at, k.name AS key_name, l.hash = ? AS current
          FROM logins l JOIN api_keys k ON k.id = l.key_id
         WHERE l.user_id = ? AND l.expires_at > ? ORDER BY l.created_at DESC
    """, [secret_hash(cookie() or ""), user["id"], now()])
    return {"logins": [{**row, "current": bool(row["current"])} for row in rows]}


@app.delete("/api/auth/logins")
def end_logins(user, db):
    """Sign the caller out everywhere."""
    db.batch([("DELETE FROM logins WHERE user_id = ?", [user["id"]]), audited(user["id"], "logout.everywhere", user["id"])])
    set_cookie("", -1)
    response.status = 204


KEY_COLUMNS = "id, name, prefix, scope, created_at, last_used_on"


@app.get("/api/keys")
def list_keys(user, db):
    """The caller's keys, by their beginnings."""
    keys = db.execute(f"SELECT {KEY_COLUMNS} FROM api_keys WHERE user_id = ? ORDER BY created_at, id", [user["id"]])
    return {"keys": [{**key, "current": key["id"] == user["key_id"]} for key in keys]}


@app.post("/api/keys")
def create_key(user, db):
    """Make a further key, as narrow as its use; it is shown this once."""
    body = body_object()
    name = printable(field(body, "name", str), "name", 64, "name must be 1-64 characters")
    scope = choice(body, "scope", ("full", "read", "upload"), "full")
    key_id, key = new_id(), new_key()
    db.batch([insert_key(user["id"], key, name, scope, key_id), audited(user["id"], "key.create", key_id)])
    response.status = 201
    row, = db.execute(f"SELECT {KEY_COLUMNS} FROM api_keys WHERE id = ?", [key_id])
    return {**row, "current": False, "api_key": key}


@app.delete("/api/keys/<key_id>")
def revoke_key(key_id, user, db):
    """Revoke one of the caller's keys, and the browser log-ins made with it."""
    with conflict_is(404, "key not found"):
        db.batch([must("EXISTS (SELECT 1 FROM api_keys WHERE id = ? AND user_id = ?)", key_id, user["id"]),
                  ("DELETE FROM api_keys WHERE id = ?", [key_id]),
                  audited(user["id"], "key.revoke", key_id)])
    response.status = 204


def delete_user(db, user_id, by, with_sessions):
    """Delete an account: with the sessions that it uploaded, or these stay with their teams.  Raises 403, 404 and 409.

    `by` is the id of the user who does it, None for the operator.  Teams of which nobody and nothing is left go too."""
    teams = [row["team_id"] for row in db.execute("SELECT team_id FROM team_members WHERE user_id = ?", [user_id])]
    sessions = mass_burial("user_id = ?", user_id, remembered=False) if with_sessions else leaving_sessions(user_id)
    try:
        results = db.batch([
            *(must(condition, *args) for condition, args, _ in account_conditions(user_id, by)),
            *sessions,
            ("DELETE FROM users WHERE id = ?", [user_id]),
            *((f"DELETE FROM teams WHERE id = ? AND {DESERTED}", [team_id]) for team_id in teams),
            *TEAM_TRACES,
            audited(by, "user.delete", user_id),
        ])
    except Conflict:
        raise next((error for condition, args, error in account_conditions(user_id, by)
                    if not db.execute(f"SELECT 1 WHERE {condition}", args)), problem(503, "try again")) from None
    release_bodies(db, results)


@app.get("/api/users")
def list_users(user, db):
    """Everybody who has an account here (server admins)."""
    require_server_admin(user)
    rows = db.execute("""
        SELECT u.id AS user_id, u.nickname, u.is_admin, u.created_at,
               (SELECT count(*) FROM team_members WHERE user_id = u.id) AS teams,
               (SELECT max(last_used_on) FROM api_keys WHERE user_id = u.id) AS last_used_on
          FROM users u ORDER BY u.nickname
    """)
    return {"users": [{**row, "is_admin": bool(row["is_admin"])} for row in rows]}


def require_server_admin(user):
    if not user["is_admin"]:
        raise problem(403, "admin only")


@app.delete("/api/users/<user_id>")
def remove_user(user_id, user, db):
    """Delete one's own account, or anybody's (server admins); ?sessions=delete or keep says what becomes of theirs."""
    if query("sessions") not in ("delete", "keep"):
        raise problem(422, "sessions must be delete or keep", field="sessions")
    delete_user(db, user_id, user["id"], with_sessions=query("sessions") == "delete")
    if user_id == user["id"]:
        set_cookie("", -1)
    response.status = 204


def account_conditions(user_id, by):
    """What must hold before an account goes: (SQL condition, its values, the error where it does not hold)."""
    return [
        ("? IS NULL OR ? = ? OR EXISTS (SELECT 1 FROM users WHERE id = ? AND is_admin)", [by, by, user_id, by],
         problem(403, "admin only")),
        ("EXISTS (SELECT 1 FROM users WHERE id = ?)", [user_id], problem(404, "user not found")),
        ("EXISTS (SELECT 1 FROM users WHERE is_admin AND id <> ?)", [user_id],
         problem(409, "the last administrator of the server cannot go; make somebody else one first")),
        (f"? IS NOT ? OR NOT EXISTS (SELECT 1 FROM team_members m WHERE m.user_id = ? AND {LEAVES_NO_ADMIN})",
         [by, user_id, user_id], problem(409, "you are the last admin of a team; name another one or delete the team first")),
    ]


# Whether a member `m` is the only admin of a team to which others belong.
LEAVES_NO_ADMIN = """m.role = 'admin' AND (SELECT sum(role = 'admin') = 1 AND count(*) > 1 FROM team_members WHERE team_id = m.team_id)"""


def leaving_sessions(user_id):
    """The statements that take a person's name off their sessions, which stay; clients that pull hear of it."""
    return [
        (f"""UPDATE sessions SET user_id = NULL, sync_no = {SYNC_NO} + n.place
               FROM (SELECT id, row_number() OVER (ORDER BY sync_no) AS place FROM sessions WHERE user_id = ?) n
              WHERE sessions.id = n.id""", [user_id]),
        ("UPDATE counters SET value = (SELECT max(value, coalesce(max(sync_no), 0)) FROM sessions) WHERE name = 'sync'", []),
    ]


# ---------------------------------------------------------------------------
# Invitations
# ---------------------------------------------------------------------------

INVITATION_DAYS = 7
ROLES = ("admin", "member", "viewer")

# Whether the caller (once) may administrate the team of a row, and the same for invitations,
# where no team means the server.
ADMINISTRATES = "EXISTS (SELECT 1 FROM team_members m WHERE m.team_id = {team} AND m.user_id = ? AND m.role = 'admin')"


@app.get("/api/invitations")
def list_invitations(user, db):
    """The invitations that the caller made or answers for."""
    rows = db.execute(f"""
        SELECT {INVITATION_COLUMNS}
          FROM invitations i LEFT JOIN teams t ON t.id = i.team_id LEFT JOIN users u ON u.id = i.created_by
         WHERE {MAY_SEE_INVITATION}
         ORDER BY i.created_at DESC, i.id
    """, [user["is_admin"], user["id"], user["id"]])
    return {"invitations": [dict(row) for row in rows]}


INVITATION_COLUMNS = ("i.id, i.team_id, t.name AS team_name, i.role, u.nickname AS created_by, "
                      "i.created_at, i.expires_at, i.used_at")
MAY_SEE_INVITATION = f"(? OR i.created_by = ? OR {ADMINISTRATES.format(team='i.team_id')})"


@app.post("/api/invitations")
def create_invitation(user, db):
    """Make a one-time code to register with and to join a team; it is shown this once."""
    body = body_object()
    team_id = field(body, "team_id", str, None)
    role = choice(body, "role", ROLES, "member")
    if team_id:
        require_team_admin(db, user, team_id)
    elif not user["is_admin"]:
        raise problem(403, "admin only")
    invitation_id, code = new_id(), random_text(24)
    expires = utc_text(datetime.now(timezone.utc) + timedelta(days=INVITATION_DAYS))
    db.batch([
        ("""INSERT INTO invitations (id, hash, team_id, role, created_by, created_at, expires_at)
            VALUES (?, ?, ?, ?, ?, ?, ?)""",
         [invitation_id, secret_hash(code), team_id, role, user["id"], now(), expires]),
        audited(user["id"], "invitation.create", invitation_id, team_id),
    ])
    row, = db.execute(f"""
        SELECT {INVITATION_COLUMNS}
          FROM invitations i LEFT JOIN teams t ON t.id = i.team_id LEFT JOIN users u ON u.id = i.created_by
         WHERE i.id = ?
    """, [invitation_id])
    response.status = 201
    return {**row, "code": code, "url": f"{settings.base_url}/#invite={code}"}


@app.delete("/api/invitations/<invitation_id>")
def revoke_invitation(invitation_id, user, db):
    """Take an invitation back."""
    with conflict_is(404, "invitation not found"):
        db.batch([must(f"EXISTS (SELECT 1 FROM invitations i WHERE i.id = ? AND {MAY_SEE_INVITATION})",
                       invitation_id, user["is_admin"], user["id"], user["id"]),
                  audited_as(user["id"], "'invitation.revoke', id, team_id FROM invitations WHERE id = ?", invitation_id),
                  ("DELETE FROM invitations WHERE id = ?", [invitation_id])])
    response.status = 204


@app.post("/api/invitations/accept", door="invitation")
def accept_invitation(user, db):
    """Join the team that an invitation names; who is in it already loses nothing."""
    code = field(body_object(), "code", str).strip()
    invited = db.execute("SELECT team_id FROM invitations WHERE hash = ? AND team_id IS NOT NULL", [secret_hash(code)])
    invalid = problem(404, "this invitation is not valid any more", field="code")
    if not invited:
        raise invalid
    try:
        db.batch([must(VALID_INVITATION, secret_hash(code), now()), *joining(user["id"], code)])
    except Conflict as conflict:
        raise (problem(409, "already a member") if "team_members" in str(conflict) else invalid) from None
    return team_of(db, user, invited[0]["team_id"])


# ---------------------------------------------------------------------------
# Sessions: what is uploaded
# ---------------------------------------------------------------------------

def check_header(header):
    """A HAIL header as we keep it, or 422.  Accepts the object form without events, too."""
    if not field(header, "version", str).startswith("hail-"):
        raise problem(422, "version must begin with hail-", field="version")
    session_id = field(header, "session_id", str)
    if not 1 <= len(session_id) <= 512 or CONTROLS.search(session_id):
        raise problem(422, "session_id must be 1-512 characters, none of them a control character", field="session_id")
    agent, context = field(header, "agent", dict), field(header, "context", dict)
    for name in ("provider", "tool"):
        if not 1 <= len(part(agent, "agent", name, str)) <= 200:
            raise problem(422, f"agent.{name} must be 1-200 characters", field=f"agent.{name}")
    for name, kind in HEADER_OPTIONS.items():
        place, _, key = name.partition(".")
        part(agent if place == "agent" else context, place, key, kind, None)
    if not all(isinstance(tag, str) for tag in context.get("tags") or ()):
        raise problem(422, "context.tags must be texts", field="context.tags")
    for name in ("created_at", "updated_at"):
        if not timestamp(part(context, "context", name, str)):
            raise problem(422, f"context.{name} must be a time as in RFC 3339", field=f"context.{name}")
    return {key: value for key, value in header.items() if key not in ("type", "events", "stats")}


HEADER_OPTIONS = {
    "agent.model": str, "agent.tool_version": str, "context.title": str, "context.description": str,
    "context.tags": list, "context.related_session_ids": list, "context.attributes": dict,
}

# What no tool puts into a session's id.  Spaces, slashes, colons and letters of any language do stand there.
CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def part(outer, place, name, kind, default=...):
    """A field of an object that is a field itself, named by its whole path in errors."""
    try:
        return field(outer, name, kind, default)
    except HTTPError as error:
        raise problem(422, f"{place}.{error.body}", field=f"{place}.{name}") from None


def timestamp(text):
    """A time in UTC as we write it, from RFC 3339 with any offset; None where it is none."""
    return utc_text(datetime.fromisoformat(text)) if is_timestamp(text) else None


def is_timestamp(text):
    """Whether a text is a time as in RFC 3339, with its offset, that can be moved to UTC."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return False
    return at.tzinfo is not None and 1 < at.year < 9999


def check_event(event, number):
    """Refuse an event that is not HAIL, with 422 and the place that is to blame."""
    complaint = event_complaint(event)
    if complaint:
        place, sentence = complaint
        raise problem(422, f"event {number}: {place} {sentence}", field=f"events[{number}].{place}")


def event_complaint(event):
    """(place, sentence) of the first thing that is wrong with an event, or None."""
    if not isinstance(event.get("event_id"), str) or not event["event_id"]:
        return "event_id", "must be a text that is not empty"
    if not isinstance(event.get("timestamp"), str) or not is_timestamp(event["timestamp"]):
        return "timestamp", "must be a time as in RFC 3339"
    for name, kind in (("task_id", str), ("duration_ms", int), ("attributes", dict)):
        if event.get(name) is not None and not fits(event[name], kind):
            return name, f"must be {TYPE_NAMES[kind]}"
    if (event.get("duration_ms") or 0) < 0:
        return "duration_ms", "must not be negative"
    return (kind_complaint(event.get("event_type")) or blocks_complaint(event.get("content"))
            or counter_complaint(event.get("attributes") or {}))


def fits(value, kind):
    """Whether a value is of a type and, if a number, one that can be kept."""
    return type(value) is kind and not (kind is int and abs(value) > LARGEST)


def kind_complaint(event_type):
    kind = event_type.get("type") if isinstance(event_type, dict) else None
    if not isinstance(kind, str) or kind not in EVENT_KINDS:
        return "event_type.type", "is not a kind of event that HAIL knows"
    data = event_type.get("data")
    if data is None:
        data = {}
    if not isinstance(data, dict):
        return "event_type.data", "must be an object"
    required, optional = EVENT_KINDS[kind]
    for name in required:
        if not isinstance(data.get(name), str):
            return f"event_type.data.{name}", "must be text"
    for name in optional:
        if data.get(name) is not None and not isinstance(data[name], str):
            return f"event_type.data.{name}", "must be text"
    if kind == "ToolResult" and data.get("is_error") is not None and type(data["is_error"]) is not bool:
        return "event_type.data.is_error", "must be true or false"
    exit_code = data.get("exit_code")
    if exit_code is not None and not (type(exit_code) is int and -2**31 <= exit_code < 2**32):
        return "event_type.data.exit_code", "must be a whole number of 32 bits"
    return None


def blocks_complaint(content):
    blocks = content.get("blocks") if isinstance(content, dict) else None
    if not isinstance(blocks, list):
        return "content.blocks", "must be a list"
    for number, block in enumerate(blocks):
        kind = block.get("type") if isinstance(block, dict) else None
        if not isinstance(kind, str) or kind not in BLOCK_KINDS:
            return f"content.blocks[{number}].type", "is not a kind of block that HAIL knows"
        for name in BLOCK_KINDS[kind]:
            if not isinstance(block.get(name), str):
                return f"content.blocks[{number}].{name}", "must be text"
    return None


def counter_complaint(attributes):
    for name in ("input_tokens", "output_tokens", "input_tokens_total", "output_tokens_total"):
        value = attributes.get(name)
        if type(value) is int and not 0 <= value <= LARGEST:
            return f"attributes.{name}", "is out of range"
    return None


def event_pairs(lines):
    """Yield (event, line to store) of the event lines among HAIL lines; further headers and stats are passed over.

    A line is stored byte for byte, unless it holds half a character.  Raises 400 and 422."""
    number = 0
    for line in lines:
        event = parse_json(line, f"event {number}")
        kind = event.get("type") if isinstance(event, dict) else None
        if kind in ("header", "stats"):
            continue
        if kind != "event":
            raise problem(422, f'event {number}: type must be "event"', field=f"events[{number}].type")
        check_event(event, number)
        yield event, hail_line(event) if HALF_CHARACTER.search(line) else line.removeprefix(b"\xef\xbb\xbf")
        number += 1


def object_pairs(events):
    """Yield (event, line) of events in object form, as the original sends them."""
    if not isinstance(events, list):
        raise problem(422, "events must be a list", field="events")
    for number, event in enumerate(events):
        if not isinstance(event, dict):
            raise problem(422, f"event {number} must be an object", field=f"events[{number}]")
        event = {"type": "event", **{name: value for name, value in event.items() if name != "type"}}
        check_event(event, number)
        yield event, hail_line(event)


@app.post("/api/sessions", scope="upload", limit="uploads")
def upload_session(user, db):
    """Store a session: JSON {session, team_id}, HAIL lines, or a tool's own transcript."""
    require_room()
    if media_type() == "application/json":
        answers = upload_object(user, db)
    elif media_type() in HAIL_TYPES:
        answers = upload_lines(user, db)
    else:
        raise problem(415, "the Content-Type must be application/json, application/jsonl or application/x-ndjson")
    if not answers:
        raise problem(422, "there is no session in this file")
    response.status = 201 if any(answer["status"] == "created" for answer in answers) else 200
    return answers[0] if len(answers) == 1 else {**answers[0], "sessions": answers}


def upload_object(user, db):
    """An upload as one JSON document: the original's, or a transcript that happens to be JSON."""
    data = b"".join(body_pieces(min(JSON_BODY_BYTES, settings.max_body)))
    body = parse_json(data)
    if isinstance(body, dict) and "session" in body:
        session = field(body, "session", dict)
        field(session, "stats", dict)
        header = check_header(session)
        team_id = uploading_team(db, user, field(body, "team_id", str, None))
        return [store_session(user, db, team_id, header, object_pairs(session.get("events")))]
    if isinstance(body, dict) and "team_id" in body:
        raise problem(422, "session is missing", field="session")
    with draft_file() as file:
        file.write(data)
        file.flush()
        return upload_native(user, db, uploading_team(db, user, query("team_id")), file)


def upload_lines(user, db):
    """An upload as lines: HAIL where the first line is a header, else a tool's transcript."""
    team_id = uploading_team(db, user, query("team_id"))
    lines = body_lines(settings.max_body)
    first = next(lines, None)
    if first is None:
        raise problem(400, "the body is empty")
    if b'"header"' in first:
        header = parse_json(first, "the header line")
        if isinstance(header, dict) and header.get("type") == "header":
            return [store_session(user, db, team_id, check_header(header), event_pairs(lines))]
    if b'"session.new"' in first:
        raise problem(415, "this is ACP JSON lines, not HAIL; export the session as HAIL")
    with draft_file() as file:
        file.write(first)
        file.writelines(lines)
        file.flush()
        return upload_native(user, db, team_id, file)


def beside_us():
    """daemon.py as a module, where it lies beside this file; else None."""
    try:
        import daemon
    except ImportError:
        return None
    return daemon


def upload_native(user, db, team_id, file):
    """Store the sessions of a transcript in a tool's own format, read by daemon.py and masked by it first."""
    daemon = beside_us()
    if not daemon:
        raise problem(415, "this is not HAIL, and this server has no daemon.py beside it "
                           "to read a tool's own transcript with")
    name = os.path.basename((query("filename") or "transcript.jsonl").replace("\\", "/"))[:200] or "transcript.jsonl"
    answers = []
    for header, lines in daemon.native_sessions(file.name, name):
        header = check_header(parse_json(hail_line(header)))
        answers.append(store_session(user, db, team_id, header, event_pairs(lines)))
    if not answers:
        raise problem(415, "no tool that we know wrote this file")
    return answers


def uploading_team(db, user, team_id):
    """The team that an upload goes to: the one named, else the only one.  Raises 403 and 422."""
    if team_id is None:
        team_id = only_team(db, user["id"])
        if team_id is None:
            raise problem(422, "name a team: team_id is missing, and you do not belong to exactly one", field="team_id")
    if not db.execute(f"SELECT 1 WHERE {MAY_UPLOAD}", [team_id, user["id"]]):
        raise problem(403, "not a member of this team")
    return team_id


MAY_UPLOAD = "EXISTS (SELECT 1 FROM team_members WHERE team_id = ? AND user_id = ? AND role <> 'viewer')"


# ---------------------------------------------------------------------------
# Sessions: storing
# ---------------------------------------------------------------------------

def store_session(user, db, team_id, header, pairs):
    """Store a whole session under its one identity; return what the uploader is told.

    The same content again changes nothing; other content replaces what is there."""
    refuse_deleted(db, user, header)
    refuse_unmasked(db, find_upload(db, user, header))
    with draft_file() as file:
        writer = write_body(file, pairs)
        for _ in range(9):
            known = find_upload(db, user, header)
            try:
                if known is None:
                    return insert_session(db, user, team_id, header, file, writer)
                if known["chain"] == writer.chain.hex() and body_path(known["body"]).exists():
                    return update_header(db, user, known, header)
                columns = replace_body(db, user, known, header, file, [], writer.blocks,
                                       same_events(db, known, writer.blocks))
                return upload_answer("updated", {**known, **columns})
            except Conflict:
                uploading_team(db, user, known["team_id"] if known else team_id)
                refuse_deleted(db, user, header)
    raise problem(503, "this session is being changed by others; try again")


def write_body(file, pairs):
    """Write a whole body of checked events into a draft; its BodyWriter."""
    file.write(GZIP_HEADER)
    writer = BodyWriter(file, len(GZIP_HEADER))
    write_pairs(writer, pairs)
    return writer


def refuse_deleted(db, user, header):
    """End with 410 where a person deleted this session, unless the upload says ?restore=1."""
    identity = [user["id"], header["agent"]["tool"], header["session_id"]]
    if query("restore") == "1":
        db.batch([("DELETE FROM tombstones WHERE user_id = ? AND tool = ? AND hail_id = ?", identity)])
    elif db.execute("SELECT 1 FROM tombstones WHERE user_id = ? AND tool = ? AND hail_id = ?", identity):
        raise problem(410, "deleted")


def find_upload(db, user, header):
    """The row of a session that its uploader sends again, or None."""
    rows = db.execute("SELECT * FROM sessions WHERE user_id = ? AND tool = ? AND hail_id = ?",
                      [user["id"], header["agent"]["tool"], header["session_id"]])
    return rows[0] if rows else None


NOT_DELETED = "NOT EXISTS (SELECT 1 FROM tombstones WHERE user_id = ? AND tool = ? AND hail_id = ?)"
RAISE_SYNC = ("UPDATE counters SET value = value + 1 WHERE name = 'sync'", [])
SYNC_NO = "(SELECT value FROM counters WHERE name = 'sync')"


def insert_session(db, user, team_id, header, file, writer):
    """A session that is new here.  Raises Conflict where somebody was faster."""
    columns = {"id": new_id(), "user_id": user["id"], "team_id": team_id,
               **header_columns(header, fold_stats(writer.blocks)), **extent_columns(writer.blocks)}
    with within_quota(db, team_id, columns["file_bytes"]):
        return add_session(db, columns, file, writer.blocks, [must(MAY_UPLOAD, team_id, user["id"])],
                           [must(WITHIN_QUOTA, columns["file_bytes"], team_id)])


def add_session(db, columns, file, blocks, before=(), after=()):
    """Store a new row with its body, between what must hold before and after.  Raises Conflict."""
    columns = {**columns, "revision": 1, "body": body_name(columns["id"], 1), **marked_columns(joined_marks(blocks))}
    identity = [columns[name] for name in ("user_id", "tool", "hail_id")]
    just_stored.keep(blocks)
    with published_body(db, file, columns["body"]):
        db.batch([
            *before,
            must(NOT_DELETED, *identity),
            RAISE_SYNC,
            (f"INSERT INTO sessions (sync_no, {', '.join(columns)}) VALUES ({SYNC_NO}{', ?' * len(columns)})",
             list(columns.values())),
            *insert_blocks(columns["id"], blocks),
            *settle_family(columns["id"], *identity),
            *after,
        ])
    return upload_answer("created", columns)


# After a change: that a team's sessions did not grow (by so many bytes), or are no more than they may be.
WITHIN_QUOTA = """? <= 0 OR EXISTS (
    SELECT 1 FROM teams WHERE id = ? AND (quota_mb IS NULL OR stored_bytes <= quota_mb * 1000000))"""


@contextlib.contextmanager
def within_quota(db, team_id, growth):
    """Say so where a batch was undone because so many bytes would pass the team's quota."""
    try:
        yield
    except Conflict:
        over = db.execute("SELECT quota_mb FROM teams WHERE id = ? AND stored_bytes + ? > quota_mb * 1000000", [team_id, growth])
        if growth > 0 and over:
            raise problem(507, f"this would pass the quota of the team, {over[0]['quota_mb']} MB") from None
        raise


def update_header(db, user, known, header):
    """The content is the same; what the header says may have changed."""
    columns = header_columns(header, json.loads(known["stats"]), known["own_title"])
    if all(known[name] == value for name, value in columns.items() if name != "uploaded_at"):
        return upload_answer("unchanged", known)
    write_columns(db, user, known, columns, [])
    return upload_answer("updated", {**known, **columns})


def replace_body(db, user, known, header, file, kept, blocks, same=0, more=()):
    """The content changed: a new file takes the place of the old one in one write, with `more` statements.

    `kept` are blocks whose bytes were copied, `blocks` the new ones; the first `same` events are what they were.  Returns the columns; raises Conflict."""
    revision = known["revision"] + 1
    columns = {"revision": revision, "body": body_name(known["id"], revision), **marked_columns(joined_marks(kept + blocks)),
               **header_columns(header, fold_stats(kept + blocks), known["own_title"]), **extent_columns(kept + blocks)}
    just_stored.keep(blocks)
    with published_body(db, file, columns["body"]):
        first = sum(block["event_count"] for block in kept)
        write_columns(db, user, known, columns, [
            *unindex_from(known, max(first, same)),
            ("DELETE FROM blocks WHERE session_id = ? AND first_ordinal >= ?", [known["id"], first]),
            *insert_blocks(known["id"], blocks), *more])
    release_body(db, known["body"])
    return columns


def same_events(db, known, blocks):
    """How many events at the beginning of a session are the same in its new blocks, as far as blocks tell."""
    ends = {(block["first_ordinal"] + block["event_count"], block["chain"]) for block in blocks}
    old = db.execute("SELECT first_ordinal + event_count AS ends, chain FROM blocks WHERE session_id = ?", [known["id"]])
    return max((row["ends"] for row in old if (row["ends"], row["chain"]) in ends), default=0)


@contextlib.contextmanager
def published_body(db, file, name):
    """Publish a body for the row that the block writes; without the row it is a draft again.

    The body comes first: without a row it is litter, a row without it would be an error."""
    try:
        publish_body(file, name)
        yield
    except BaseException:
        if not db.execute("SELECT 1 FROM sessions WHERE body = ?", [name]):
            with contextlib.suppress(OSError):
                os.rename(body_path(name), file.name)
        raise


def write_columns(db, user, known, columns, statements):
    """Change a session's row and blocks, if it still is what we read and its uploader still belongs.  Raises Conflict."""
    identity = [known["user_id"], known["tool"], known["hail_id"]]
    growth = columns.get("file_bytes", 0) - known["file_bytes"]
    with within_quota(db, known["team_id"], growth):
        db.batch([
            still_the_same(known),
            must(MAY_UPLOAD, known["team_id"], user["id"]),
            RAISE_SYNC,
            (f"UPDATE sessions SET sync_no = {SYNC_NO}, {', '.join(f'{name} = ?' for name in columns)} WHERE id = ?",
             [*columns.values(), known["id"]]),
            *statements,
            *settle_family(known["id"], *identity),
            must(WITHIN_QUOTA, growth, known["team_id"]),
        ])


def still_the_same(known):
    """The condition that nobody changed a session since its row was read."""
    return must("EXISTS (SELECT 1 FROM sessions WHERE id = ? AND revision = ? AND chain = ? AND body = ? AND own_title IS ?)",
                *(known[name] for name in ("id", "revision", "chain", "body", "own_title")))


def upload_answer(status, session):
    """What an uploader is told."""
    with numbers.lock:
        numbers.uploads[status] += 1
    return {"id": session["id"], "url": f"{settings.base_url}/session/{session['id']}", "status": status,
            "revision": session["revision"], "event_count": session["event_count"], "chain": session["chain"]}


def body_name(session_id, revision):
    """A file name of its own for every try, so that two uploads at once never share one."""
    return f"{session_id}.{revision}.{secrets.token_hex(4)}"


def fold_stats(blocks):
    """The counts of a whole body."""
    stats = empty_stats()
    for block in blocks:
        stats = merge_stats(stats, block["stats"])
    return stats


def extent_columns(blocks):
    """The columns that say where a body ends."""
    if not blocks:
        return {"file_bytes": len(GZIP_HEADER), "raw_bytes": 0, "chain": CHAIN_START.hex()}
    last = blocks[-1]
    return {"file_bytes": last["file_offset"] + last["file_bytes"],
            "raw_bytes": last["raw_offset"] + last["raw_bytes"], "chain": last["chain"]}


def header_columns(header, stats, own_title=None):
    """The columns that come from a header and from the counts of the events.  A title that a person gave stays."""
    agent, context = header["agent"], header["context"]
    attributes = context.get("attributes") or {}
    title = (own_title or context.get("title") or short_title((stats["opening"] or [""])[0]))[:LONGEST_TITLE] or None
    description = (context.get("description") or " ".join(stats["opening"])[:500])[:LONGEST_DESCRIPTION] or None
    tags = ",".join(context.get("tags") or ()) or None
    line = stats_line(stats)
    parent = text_of(attributes.get("parent_session_id"))
    return {
        "tool": agent["tool"], "hail_id": header["session_id"],
        "parent_hail_id": parent if parent != header["session_id"] else None,
        "listed": int(stats["events"] > 0 and attributes.get("session_role") != "auxiliary"),
        "header": json_text({key: value for key, value in header.items() if key != "session_id"}),
        "agent_provider": agent["provider"], "agent_model": agent.get("model"),
        "title": title, "description": description, "tags": tags,
        "project": text_of(attributes.get("project")), "git_branch": branch_of(attributes),
        "created_at": timestamp(context["created_at"]),
        "updated_at": timestamp(stats["last"] or context["updated_at"]),
        "uploaded_at": now(),
        **{name: line[name] for name in STATS_COLUMNS}, "error_count": stats["errors"],
        "stats": json_text(stats),
    }


LONGEST_TITLE, LONGEST_DESCRIPTION = 500, 5000      # in lists; the header keeps what came
STATS_COLUMNS = ("event_count", "message_count", "user_message_count", "task_count", "duration_seconds",
                 "total_input_tokens", "total_output_tokens", "files_changed", "lines_added", "lines_removed")


def text_of(value):
    """A text that came as an attribute, or None."""
    return value[:1000] if isinstance(value, str) and value else None


def branch_of(attributes):
    """The git branch of a session, in either place where tools put it."""
    git = attributes.get("git")
    return text_of(attributes.get("git_branch")) or text_of(git.get("branch") if isinstance(git, dict) else None)


def insert_blocks(session_id, blocks):
    """The statements that put the last blocks of a session into the index, or its only one, whose stats are in its row."""
    only = len(blocks) == 1 and blocks[0]["first_ordinal"] == 0
    return [("""INSERT INTO blocks (session_id, first_ordinal, event_count, raw_offset, raw_bytes,
                                    file_offset, file_bytes, chain, stats, turns, marks)
                VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
             [session_id, block["first_ordinal"], block["event_count"], block["raw_offset"], block["raw_bytes"],
              block["file_offset"], block["file_bytes"], block["chain"], "" if only else json_text(block["stats"]), block["turns"],
              block["marks"]])
            for block in blocks]


def settle_family(session_id, user_id, tool, hail_id):
    """The statements that list a session or not: below a parent in its team, it is not listed.

    Either may come first.  A helper whose parent is not here is listed, so that it can be found."""
    return [
        ("""UPDATE sessions
               SET listed = event_count > 0 AND NOT EXISTS (
                       SELECT 1 FROM sessions p
                        WHERE p.user_id = sessions.user_id AND p.tool = sessions.tool
                          AND p.hail_id = sessions.parent_hail_id AND p.team_id = sessions.team_id)
             WHERE id = ? AND parent_hail_id IS NOT NULL""", [session_id]),
        ("""UPDATE sessions SET listed = 0
              WHERE user_id = ? AND tool = ? AND parent_hail_id = ? AND listed AND id <> ?
                AND team_id = (SELECT team_id FROM sessions WHERE id = ?)""",
         [user_id, tool, hail_id, session_id, session_id]),
    ]


# ---------------------------------------------------------------------------
# Sessions: growing
# ---------------------------------------------------------------------------

GROWING = [threading.Lock() for _ in range(64)]     # one writer at a time behind a body's committed end


@app.post("/api/sessions/<session_id>/events", scope="upload", limit="uploads")
def append_events(session_id, user, db):
    """Append events, or replace all from an ordinal on; 409 with what is here where the base differs."""
    require_room()
    known = own_session(db, user, session_id)
    uploading_team(db, user, known["team_id"])
    growth = read_growth(known)
    if growth["team_id"]:
        uploading_team(db, user, growth["team_id"])
    with GROWING[zlib.crc32(known["id"].encode()) % len(GROWING)], draft_file() as file:
        known = own_session(db, user, known["id"])
        start = known["event_count"] if growth["from"] is None else growth["from"]
        if start > known["event_count"] or growth["base_revision"] not in (None, known["revision"]):
            raise base_conflict(known)
        write = append_tail if start == known["event_count"] else replace_tail
        try:
            columns, accepted = write(db, user, known, start, growth, file)
        except (Conflict, BodyMissing) as error:
            uploading_team(db, user, known["team_id"])
            here = own_session(db, user, known["id"])
            if isinstance(error, BodyMissing) and here["body"] == known["body"]:
                raise
            raise base_conflict(here) from None
    return {"accepted": accepted, **{name: {**known, **columns}[name]
                                     for name in ("id", "revision", "event_count", "chain")}}


def own_session(db, user, session_id):
    """The row of a session that the caller uploaded, by our id or by the tool's.  Raises 403, 404 and 410."""
    rows = db.execute("SELECT * FROM sessions WHERE user_id = ? AND (id = ? OR hail_id = ?) ORDER BY id = ? DESC LIMIT 1",
                      [user["id"], session_id, session_id, session_id])
    if rows:
        return rows[0]
    if db.execute("SELECT 1 FROM tombstones WHERE user_id = ? AND hail_id = ?", [user["id"], session_id]):
        raise problem(410, "deleted")
    if db.execute(f"SELECT 1 FROM sessions s WHERE s.id = ? AND {READABLE}", [session_id, user["id"]]):
        raise problem(403, "only the one who uploaded a session can add to it")
    raise problem(404, "session not found")


def read_growth(known):
    """What an append asks for: from, base_revision, base_chain, team_id, header, pairs.  Raises 400, 415, 422."""
    if media_type() == "application/json":
        body = body_object(min(JSON_BODY_BYTES, settings.max_body))
        growth = {"from": field(body, "from", int, None), "base_revision": field(body, "base_revision", int, None),
                  "base_chain": field(body, "base_chain", str, None), "team_id": field(body, "team_id", str, None)}
        facts = {name: field(body, name, dict) for name in ("agent", "context") if body.get(name) is not None}
        growth["pairs"] = object_pairs(field(body, "events", list))
    elif media_type() in HAIL_TYPES:
        growth = {"from": query_number("from", None, -1, LARGEST), "base_chain": query("base_chain"),
                  "base_revision": query_number("base_revision", None, 0, LARGEST), "team_id": query("team_id")}
        facts, growth["pairs"] = leading_header(body_lines(settings.max_body))
    else:
        raise problem(415, "the Content-Type must be application/json, application/jsonl or application/x-ndjson")
    if growth["from"] is not None and growth["from"] < 0:
        raise problem(422, "from must not be negative", field="from")
    growth["header"] = grown_header(known, facts)
    return growth


def leading_header(lines):
    """(facts of a header line, event pairs) of lines that may begin with a header."""
    first = next(lines, None)
    if first is None or b'"header"' not in first:
        return {}, event_pairs(lines if first is None else itertools.chain([first], lines))
    header = parse_json(first, "the header line")
    if not isinstance(header, dict) or header.get("type") != "header":
        return {}, event_pairs(itertools.chain([first], lines))
    return {name: value for name, value in header.items() if name not in ("type", "session_id")}, event_pairs(lines)


def grown_header(known, facts):
    """The header of a session with newer facts in it; who it is cannot change."""
    header = check_header({**json.loads(known["header"]), **facts, "session_id": known["hail_id"]})
    if header["agent"]["tool"] != known["tool"]:
        raise problem(422, "agent.tool of a session cannot change", field="agent.tool")
    return header


def base_conflict(known):
    """The error that tells a client what is here, so that it can go on from there."""
    return problem(409, "the session here is not what these events build on",
                   revision=known["revision"], event_count=known["event_count"], chain=known["chain"])


def append_tail(db, user, known, start, growth, file):
    """Write events behind the committed end: what is there stays, byte for byte."""
    last = next(iter(load_blocks(db, known, start - 1, start)), None)
    if growth["base_chain"] not in (None, known["chain"]):
        raise base_conflict(known)
    writer = BodyWriter(file, known["file_bytes"], last)
    accepted = write_pairs(writer, growth["pairs"])
    stats = merge_stats(json.loads(known["stats"]), fold_stats(writer.blocks))
    columns = header_columns(growth["header"], stats, known["own_title"])
    if writer.blocks:
        append_to_body(known["body"], known["file_bytes"], file)
        columns |= extent_columns(writer.blocks) | marked_columns(joined_marks(writer.blocks), known)
    blocks = join_small_block(last, writer.blocks)
    just_stored.keep(blocks)
    write_columns(db, user, known, columns, renew_blocks(known, blocks))
    return columns, accepted


def replace_tail(db, user, known, start, growth, file):
    """Replace all events from `start` on: a new file that begins with a copy of the blocks that stay."""
    refuse_unmasked(db, known)
    blocks = load_blocks(db, known, 0, start + 1)
    cut = blocks.pop()
    with open_body(known["body"]) as old:
        copy_bytes(old, file, cut["file_offset"])
        writer = BodyWriter(file, cut["file_offset"], blocks[-1] if blocks else None)
        for line in lines_of(inflate_block(old, cut))[:start - cut["first_ordinal"]]:
            writer.add(json.loads(line), line)
    if growth["base_chain"] not in (None, writer.chain.hex()):
        raise base_conflict(known)
    accepted = write_pairs(writer, growth["pairs"])
    columns = replace_body(db, user, known, growth["header"], file, blocks, writer.blocks, start)
    return columns, accepted


def write_pairs(writer, pairs):
    """Write checked events; return how many there were."""
    count = 0
    for count, (event, line) in enumerate(pairs, 1):
        writer.add(event, line)
    writer.close_block()
    return count


def copy_bytes(source, target, count):
    """Copy the first `count` bytes of a file."""
    source.seek(0)
    while count:
        piece = source.read(min(count, 1 << 20))
        if not piece:
            raise BodyMissing
        target.write(piece)
        count -= len(piece)


def load_blocks(db, known, first, end):
    """The blocks of a session that hold the events from ordinal `first` to before `end`, stats as objects."""
    rows = db.execute("""
        SELECT * FROM blocks
         WHERE session_id = ? AND first_ordinal < ? AND first_ordinal >= coalesce(
               (SELECT max(first_ordinal) FROM blocks WHERE session_id = ? AND first_ordinal <= ?), 0)
         ORDER BY first_ordinal
    """, [known["id"], end, known["id"], first])
    return [{**row, "stats": json.loads(row["stats"] or known["stats"])} for row in rows]


def renew_blocks(known, blocks):
    """The statements that put blocks in the place of all from the first one on.  The only block of before needs stats of its own."""
    if not blocks:
        return []
    return [("UPDATE blocks SET stats = ? WHERE session_id = ? AND first_ordinal = 0 AND stats = ''", [known["stats"], known["id"]]),
            ("DELETE FROM blocks WHERE session_id = ? AND first_ordinal >= ?", [known["id"], blocks[0]["first_ordinal"]]),
            *insert_blocks(known["id"], blocks)]


# ---------------------------------------------------------------------------
# Sessions: reading
# ---------------------------------------------------------------------------

# What the caller (once; NULL for nobody) may read: the sessions `s` of their teams and of public ones.
READABLE = """(s.team_id IN (SELECT team_id FROM team_members WHERE user_id = ?)
           OR s.team_id IN (SELECT id FROM teams WHERE is_public))"""

# What lists show of a session: the original's eighteen in its order, then ours.
SUMMARY = """
    id user_id nickname team_id tool agent_provider agent_model title description tags created_at uploaded_at
    message_count task_count event_count duration_seconds total_input_tokens total_output_tokens
    updated_at revision project git_branch user_message_count files_changed lines_added lines_removed
    has_errors parent_id child_count step_kinds active_seconds""".split()
COMPUTED = {
    "nickname": "u.nickname",
    "has_errors": "s.error_count > 0",
    "parent_id": """(SELECT p.id FROM sessions p
                      WHERE p.user_id IS s.user_id AND p.tool = s.tool AND p.hail_id = s.parent_hail_id
                        AND p.team_id = s.team_id)""",
    "child_count": """(SELECT count(*) FROM sessions c
                        WHERE c.user_id IS s.user_id AND c.tool = s.tool AND c.parent_hail_id = s.hail_id
                          AND c.team_id = s.team_id)""",
    "active_seconds": "iif(s.step_kinds IS NULL, NULL, s.active_ms / 1000)",
}
SUMMARY_COLUMNS = ", ".join(f"{COMPUTED.get(name, f's.{name}')} AS {name}" for name in SUMMARY)
AS_JSON = {"has_errors": "json(iif(s.error_count, 'true', 'false'))", "step_kinds": "json(s.step_kinds)"}
SUMMARY_JSON = "json_object({})".format(", ".join(f"'{name}', {({**COMPUTED, **AS_JSON}).get(name, f's.{name}')}" for name in SUMMARY))

# The teams that the caller (once; NULL for nobody) may read.
READABLE_TEAMS = """SELECT team_id AS id FROM team_members WHERE user_id = ?
                    UNION SELECT id FROM teams WHERE is_public"""

# Each filter has an index for each sort, list_<filter>_<sort> in schema.sql, and a count for each value in `facets`;
# list_all_<sort> is for lists without any.  To add one: its column here, three indexes, its line in the triggers.
FILTERS = {"tool": "tool", "user_id": "user_id", "project": "project", "model": "agent_model", "branch": "git_branch"}
SORTS = {"recent": ("updated_at",), "popular": ("message_count", "updated_at"), "longest": ("duration_seconds", "updated_at")}
TIME_RANGES = {"24h": timedelta(days=1), "7d": timedelta(days=7), "30d": timedelta(days=30)}
COUNTED = PAGED = 10_000                    # a total that no counter knows is counted this far; pages without a cursor end here
FEW = 500                                   # so many sessions can as well be sorted


@app.get("/api/sessions")
def list_sessions(reader, db):
    """The sessions that the caller may read, newest activity first; filters, search and paging by query."""
    page, per_page = query_number("page", 1, 1, LARGEST), query_number("per_page", 20, 1, 100)
    if page * per_page > PAGED:
        raise problem(422, "use cursor to go further than 10,000 sessions", field="page")
    view = list_view(db, reader)
    sort = query("sort") if query("sort") in SORTS else "recent"
    cursor = list_cursor(SORTS[sort])
    skipped = 0 if cursor else (page - 1) * per_page
    rows = list_rows(db, view, sort, cursor, skipped, per_page + 1)
    total, capped = list_total(db, view, None if cursor else skipped, rows, per_page)
    answer = {"total": total, "page": page, "per_page": per_page,
              "next_cursor": cursor_text(rows[per_page - 1], SORTS[sort]) if len(rows) > per_page else None}
    if capped:
        answer["total_is_capped"] = True
    if query("search"):
        answer["indexing"] = still_indexing(db, reader)
        answer |= {"search_is_capped": True} if view.search_is_capped else {}
    if with_secrets := sessions_with_secrets(db, reader, [row["id"] for row in rows[:per_page]]):
        answer["with_secrets"] = with_secrets
    if query("facets") == "1":
        answer |= list_facets(db, view)
    sessions = ",".join(row["json"] for row in rows[:per_page])
    return cached_answer(f'{{"sessions":[{sessions}],{json_text(answer)[1:]}')


def list_view(db, reader):
    """What a list shows, by the query string.

    `teams`, `in_team` and `where` are SQL for the teams `t` and the sessions `x` in each, with their values; `filters`
    are those of FILTERS by name, `lead` is the rarest of them, or "all"; `bounds` are times, `other` says that
    more is asked than filters and times, `search_is_capped` that a search may have missed sessions; `counts` are those of
    single filters, `total` is how many sessions were counted, at most COUNTED + 1, once somebody did."""
    view = SimpleNamespace(teams=READABLE_TEAMS, team_args=[reader and reader["id"]], in_team="x.team_id = t.id", other=True,
                           filters={name: query(name) for name in FILTERS if query(name)}, bounds=time_bounds())
    if query("team_id"):
        view.teams, view.team_args = f"SELECT id FROM ({READABLE_TEAMS}) WHERE id = ?", [*view.team_args, query("team_id")]
    where = {f"x.{FILTERS[name]} = ?": value for name, value in view.filters.items()}
    where |= {f"x.updated_at {sign} ?": value for sign, value in view.bounds.items()}
    if query("search"):
        condition, view.search_is_capped = search_condition(db, reader, query("search"))
        where |= condition
    if query("secrets") == "1":
        found = sessions_with_secrets(db, reader)
        where[FOUND] = json_text([each for each in json.loads(where[FOUND]) if each in found] if FOUND in where else found)
    if query("parent"):
        where["(x.tool, x.parent_hail_id) = (SELECT p.tool, p.hail_id FROM sessions p WHERE p.id = ?)"] = query("parent")
        where["x.user_id IS (SELECT p.user_id FROM sessions p WHERE p.id = ?)"] = query("parent")
    else:
        view.other = bool(query("search") or query("secrets"))
    view.where, view.args = " AND ".join([*where, "1" if query("parent") else "x.listed"]), list(where.values())
    view.index = "sessions_by_parent" if query("parent") else "sqlite_autoindex_sessions_1" if FOUND in where else None
    (view.counts, view.team_count), view.total = filter_counts(db, view), None
    view.lead = min(view.filters, key=lambda name: view.counts.get(name, 0), default="all")
    if FOUND in where:          # what was found is looked up once, not once a team
        view.where, view.args = f"{view.where} AND x.team_id IN ({view.teams})", view.args + view.team_args
        view.teams, view.team_args, view.in_team = "SELECT 1", [], "1"
    return view


def time_bounds():
    """{sign: time} of the last activity, by time_range, or by day and tz, the minutes that the caller's clock is ahead of UTC."""
    if query("day"):
        start = local_day(query("day"), "day")
        return {">=": utc_text(start), "<": utc_text(start + timedelta(days=1))}
    if query("time_range") in TIME_RANGES:
        return {">=": utc_text(datetime.now(timezone.utc) - TIME_RANGES[query("time_range")])}
    return {}


def local_day(text, name):
    """The moment at which a day, YYYY-MM-DD, begins on the caller's clock.  Raises 400."""
    clock = timezone(timedelta(minutes=query_number("tz", 0, -1439, 1439)))
    try:
        day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=clock)
    except ValueError:
        day = None
    if day is None or not 1 < day.year < 9999:
        raise problem(400, f"{name} is no day", field=name)
    return day


def filter_counts(db, view):
    """({name: how many sessions} for each filter of a view alone; without any, for "all"; how many teams have any)."""
    pairs = view.filters or {"all": ""}
    rows = db.execute(f"""
        SELECT f.name, sum(f.sessions) AS n, count(*) AS teams
          FROM ({view.teams}) t CROSS JOIN (VALUES {", ".join(["(?, ?)"] * len(pairs))}) each
               CROSS JOIN facets f ON f.team_id = t.id AND f.name = each.column1 AND f.value = each.column2
         GROUP BY f.name
    """, [*view.team_args, *itertools.chain(*pairs.items())])
    return {row["name"]: row["n"] for row in rows}, max((row["teams"] for row in rows), default=0)


def list_rows(db, view, sort, cursor, skipped, limit):
    """A page of a list: rows with `json`, a session as lists show it, and what the sort goes by."""
    keys, index = SORTS[sort], list_index(db, view, sort)
    in_order = index.endswith(f"_{sort}")
    behind = behind_sql(keys, "?") if cursor else "1"
    page = merged_page(view, index, keys, behind) if in_order else sorted_page(view, index, keys, behind)
    args = [*view.args, *cursor[:-1], *cursor] if cursor else view.args
    return db.execute(f"""
        WITH RECURSIVE page (team_id, {", ".join(keys)}, no) AS ({page} LIMIT ? OFFSET ?)
        SELECT {SUMMARY_JSON} AS json, {columns_of("page", keys)}, page.no, s.id
          FROM page CROSS JOIN sessions s ON s.rowid = page.no LEFT JOIN users u ON u.id = s.user_id
         ORDER BY {columns_of("page", keys, " DESC")}, page.no
    """, [*view.team_args, *args, *(view.args if in_order else ()), limit, skipped])


def merged_page(view, index, keys, behind):
    """SQL that merges the teams: the first session of each by an index; where one is taken, the next of its team comes in."""
    def joined(source, team, behind):
        return f"""
            SELECT n.team_id, {columns_of("n", keys)}, n.rowid
              FROM {source} CROSS JOIN sessions n ON n.rowid = (
                   SELECT x.rowid FROM sessions x INDEXED BY {index}
                    WHERE x.team_id = {team} AND {view.where} AND {behind}
                    ORDER BY {columns_of("x", keys, " DESC")}, x.rowid LIMIT 1)"""
    return f"""{joined(f"({view.teams}) t", "t.id", behind)}
             UNION ALL {joined("page", "page.team_id", behind_sql(keys, "page"))}
             ORDER BY {columns_of("n", keys, " DESC")}, n.rowid"""


def sorted_page(view, index, keys, behind):
    """SQL that sorts what an index leads to, for where that is little."""
    return f"""
        SELECT x.team_id, {columns_of("x", keys)}, x.rowid FROM ({view.teams}) t CROSS JOIN sessions x INDEXED BY {index}
         WHERE {view.in_team} AND {view.where} AND {behind}
         ORDER BY {columns_of("x", keys, " DESC")}, x.rowid"""


def behind_sql(keys, last):
    """SQL for a session `x` that comes behind another: a row of the table `last`, or "?" for its keys, these again, and its number."""
    here, there = columns_of("x", keys), ", ".join("?" * len(keys)) if last == "?" else columns_of(last, keys)
    return f"({here}) <= ({there}) AND (({here}) < ({there}) OR x.rowid > {'?' if last == '?' else f'{last}.no'})"


def columns_of(table, names, more=""):
    """Column names for SQL: "x.a DESC, x.b DESC"."""
    return ", ".join(f"{table}.{name}{more}" for name in names)


def list_index(db, view, sort):
    """The index that leads to a page soonest.  SQLite cannot know: it keeps no counts of single values."""
    if view.index:
        return view.index
    if sort != "recent" and (view.bounds or len(view.filters) > 1):
        view.total = count_listed(db, view, COUNTED + 1)
        sort = "recent" if view.total < FEW else sort       # read by this index alone, and sorted then
    return f"list_{view.lead}_{sort}"


def count_listed(db, view, limit):
    """How many sessions a view has, counted up to a limit."""
    index = view.index or f"list_{view.lead}_recent"
    return db.execute(f"""
        SELECT count(*) AS n FROM (
            SELECT 1 FROM ({view.teams}) t CROSS JOIN sessions x INDEXED BY {index}
             WHERE {view.in_team} AND {view.where} LIMIT ?)
    """, [*view.team_args, *view.args, limit])[0]["n"]


def list_total(db, view, skipped, rows, per_page):
    """(how many sessions a view has, whether there are more): by what the page shows, a counter, or counting."""
    if skipped is not None and len(rows) <= per_page and (rows or not skipped):
        return skipped + len(rows), False
    if not (view.bounds or view.other) and len(view.filters) < 2:
        return view.counts.get(view.lead, 0), False
    counted = count_listed(db, view, COUNTED + 1) if view.total is None else view.total
    return min(counted, COUNTED), counted > COUNTED


FACETS = {"tool": "tool", "project": "project", "user_id": "user", "model": "model"}
FACET_VALUES, FACET_SESSIONS = 30, 1000


def list_facets(db, view):
    """{"facets": {name: [[value, sessions], …]}}, most frequent first; of the newest ones only where a view is narrowed."""
    narrowed = bool(view.filters or view.bounds or view.other)
    counted = narrowed_facets(db, view) if narrowed else team_facets(db, view)
    facets = {shown: [[value, sessions] for value, sessions in sorted(counted[name].items(), key=lambda each: (-each[1], each[0]))
                      [:FACET_VALUES]] for name, shown in FACETS.items()}
    facets["user"] = named_users(db, facets["user"])
    return {"facets": facets, "facets_are_capped": narrowed and sum(counted["tool"].values()) >= FACET_SESSIONS}


def team_facets(db, view):
    """{name: {value: sessions}} of whole teams, from the counters: the most frequent ones of each name."""
    counted = {name: {} for name in FACETS}
    for name, value, sessions in db.execute(" UNION ALL ".join(f"""
            SELECT * FROM (
                SELECT f.name, f.value, sum(f.sessions) AS n FROM ({view.teams}) t CROSS JOIN facets f
                 WHERE f.team_id = t.id AND f.name = '{name}' AND f.sessions > 0
                 GROUP BY f.value ORDER BY n DESC, f.value LIMIT {FACET_VALUES})""" for name in FACETS), view.team_args * len(FACETS)):
        counted[name][value] = sessions
    return counted


def narrowed_facets(db, view):
    """{name: {value: sessions}} of the newest sessions of a narrowed view."""
    columns, keys = [FILTERS[name] for name in FACETS], SORTS["recent"]
    index, args = view.index or f"list_{view.lead}_recent", view.args
    if view.team_count > 1 and not view.index:
        page, args = merged_page(view, index, keys, "1"), view.args * 2
        newest = f"""WITH RECURSIVE page (team_id, {", ".join(keys)}, no) AS ({page} LIMIT ?)
                     SELECT {columns_of("s", columns)} FROM page CROSS JOIN sessions s ON s.rowid = page.no"""
    else:                       # the index has them in this order, or all are wanted
        newest = f"""SELECT {columns_of("x", columns)} FROM ({view.teams}) t CROSS JOIN sessions x INDEXED BY {index}
                      WHERE {view.in_team} AND {view.where} LIMIT ?"""
    # Each column as one JSON text: as rows they would take twice as long.
    row, = db.execute(f"SELECT {', '.join(f'json_group_array({column})' for column in columns)} FROM ({newest})",
                      [*view.team_args, *args, FACET_SESSIONS])
    return {name: Counter(value for value in json.loads(values) if value is not None) for name, values in zip(FACETS, row)}


def named_users(db, counted):
    """[id, nickname, sessions] for [id, sessions]."""
    rows = db.execute(f"SELECT id, nickname FROM users WHERE id IN (VALUES {', '.join(['(?)'] * len(counted) or ['(NULL)'])})",
                      [user_id for user_id, _ in counted])
    names = {row["id"]: row["nickname"] for row in rows}
    return [[user_id, names.get(user_id), sessions] for user_id, sessions in counted]


@app.get("/api/activity")
def activity(reader, db):
    """How many sessions had their last activity on each day of a month; filters as for lists."""
    first = local_day(f"{query('month', '')}-01", "month")
    view = list_view(db, reader)
    starts = [first + timedelta(days=number) for number in range(31)]
    days = [(f"{at:%Y-%m-%d}", utc_text(at), utc_text(at + timedelta(days=1))) for at in starts if at.month == first.month]
    rows = db.execute(f"""
        WITH days (day, since, until) AS (VALUES {", ".join(["(?, ?, ?)"] * len(days))})
        SELECT day, (SELECT count(*) FROM ({view.teams}) t CROSS JOIN sessions x INDEXED BY {view.index or f"list_{view.lead}_recent"}
                      WHERE {view.in_team} AND {view.where} AND x.updated_at >= days.since AND x.updated_at < days.until) AS n
          FROM days
    """, [*itertools.chain(*days), *view.team_args, *view.args])
    return cached_answer({"days": {row["day"]: row["n"] for row in rows if row["n"]}})


def cursor_text(row, keys):
    """Where a page of the list ends, for the client to hand back as it is."""
    return base64.urlsafe_b64encode(json_text([row[key] for key in (*keys, "no")]).encode()).decode()


def list_cursor(keys):
    """The values behind which a page begins, by the cursor in the query; None without one.  Raises 400."""
    if not query("cursor"):
        return None
    try:
        values = parse_json(base64.urlsafe_b64decode(query("cursor")), "cursor")
    except ValueError:
        values = None
    kinds = [str if key == "updated_at" else int for key in (*keys, "no")]
    if not (isinstance(values, list) and len(values) == len(kinds) and all(map(fits, values, kinds))):
        raise problem(400, "cursor is none of ours", field="cursor")
    return values


def summary(row):
    """A session as lists show it."""
    return {**{name: row[name] for name in SUMMARY}, "has_errors": bool(row["has_errors"]),
            "step_kinds": row["step_kinds"] and json.loads(row["step_kinds"])}


# Of a session: all that is known, and what it takes to read its events, which may be much less.
WHOLE_ROW = f"{SUMMARY_COLUMNS}, t.name AS team_name, s.hail_id, s.header, s.stats, s.chain, s.body, s.sync_no"
BODY_ROW = "s.id, s.revision, s.event_count, s.step_kinds, s.body"


def find_readable(db, reader, session_id, columns=WHOLE_ROW):
    """The row of a session that the caller may read.  Raises 404."""
    rows = db.execute(f"""
        SELECT {columns} FROM sessions s LEFT JOIN users u ON u.id = s.user_id JOIN teams t ON t.id = s.team_id
         WHERE s.id = ? AND {READABLE}
    """, [session_id, reader and reader["id"]])
    if not rows:
        raise problem(404, "session not found")
    return rows[0]


@app.get("/api/sessions/<session_id>")
def get_session(session_id, reader, db):
    """One session: its facts, its counts, its parent and its helpers."""
    row = find_readable(db, reader, session_id)
    header = json.loads(row["header"])
    attributes = header["context"].get("attributes") or {}
    parents = row["parent_id"] and db.execute(f"SELECT s.id, s.title FROM sessions s WHERE s.id = ? AND {READABLE}",
                                              [row["parent_id"], reader and reader["id"]])
    answer = {
        **summary(row), "team_name": row["team_name"],
        "chain": row["chain"], "hail_session_id": row["hail_id"],
        "agent": header["agent"], "attributes": attributes,
        "stats": stats_line(json.loads(row["stats"])),
        "parent": dict(parents[0]) if parents else None, "children": children(db, reader, row),
        "redactions": attributes.get("redactions"), "can_delete": may_change(db, reader, row),
    }
    if answer["can_delete"]:
        answer["secrets"] = events_with_secrets(db, session_id)
    return cached_answer(answer)


def children(db, reader, parent):
    """The sessions that a session started, in the order of their start."""
    rows = db.execute(f"""
        SELECT {SUMMARY_COLUMNS}
          FROM sessions s LEFT JOIN users u ON u.id = s.user_id
         WHERE s.user_id IS ? AND s.tool = ? AND s.parent_hail_id = ? AND s.team_id = ? AND {READABLE}
         ORDER BY s.created_at, s.id LIMIT 500
    """, [*(parent[name] for name in ("user_id", "tool", "hail_id", "team_id")), reader and reader["id"]])
    return [summary(row) for row in rows]


# Who may rename, move, mask and delete a session `s` (three times): its uploader and the team's admins.
CHANGEABLE = f"(s.user_id = ? AND {READABLE} OR {ADMINISTRATES.format(team='s.team_id')})"
MAY_CHANGE = f"EXISTS (SELECT 1 FROM sessions s WHERE s.id = ? AND {CHANGEABLE})"


def may_change(db, reader, row):
    """Whether the caller may rename, move and delete a session: the uploader and the team's admins."""
    if reader is None or reader["scope"] != "full":
        return False
    return bool(db.execute(f"SELECT 1 WHERE {MAY_CHANGE}", [row["id"], *[reader["id"]] * 3]))


@app.put("/api/sessions/<session_id>")
def update_session(session_id, user, db):
    """Give a session a title of its own (null: the tool's again), or move it and those that it started to another team."""
    row, body = find_readable(db, user, session_id), body_object()
    team_id = field(body, "team_id", str, None)
    statements = [must(MAY_CHANGE, row["id"], *[user["id"]] * 3)]
    if "title" in body:
        statements += retitling(db, row, field(body, "title", str, None) or None)
        statements.append(audited(user["id"], "session.title", session_id, row["team_id"]))
    if team_id not in (None, row["team_id"]):
        uploading_team(db, user, team_id)
        statements += moving(db, user, row, team_id)
        statements += [audited(user["id"], "session.leave", session_id, row["team_id"]),
                       audited(user["id"], "session.move", session_id, team_id)]
    try:
        db.batch(statements)
    except Conflict:
        raise refused_change(db, user, row, team_id) from None
    return summary(find_readable(db, user, session_id))


def retitling(db, row, title):
    """The statements that give a session a title; it outlives later uploads."""
    own_title = title and printable(title, "title", LONGEST_TITLE, f"title must be 1-{LONGEST_TITLE} characters")
    known, = db.execute("SELECT * FROM sessions WHERE id = ?", [row["id"]])
    header = {**json.loads(known["header"]), "session_id": known["hail_id"]}
    columns = header_columns(header, json.loads(known["stats"]), own_title)
    return [still_the_same(known), RAISE_SYNC,
            (f"UPDATE sessions SET sync_no = {SYNC_NO}, own_title = ?, title = ? WHERE id = ?",
             [own_title, columns["title"], row["id"]])]


def moving(db, user, row, team_id):
    """The statements that take a session and those that it started to another team, where its uploader belongs too."""
    statements = [
        must(MAY_UPLOAD, team_id, user["id"]),
        must("EXISTS (SELECT 1 FROM sessions WHERE id = ? AND team_id = ?)", row["id"], row["team_id"]),
        must(f"? IS NULL OR {BELONGS}", row["user_id"], team_id, row["user_id"])]
    family = db.execute(FAMILY, [row["id"]])
    for each in family:
        statements += [
            *removal(each),
            ("DELETE FROM removals WHERE team_id = ? AND session_id = ?", [team_id, each["id"]]),
            RAISE_SYNC,
            (f"UPDATE sessions SET team_id = ?, sync_no = {SYNC_NO} WHERE id = ?", [team_id, each["id"]])]
    for each in family:
        statements += settle_family(each["id"], each["user_id"], each["tool"], each["hail_id"])
    return [*statements, must(WITHIN_QUOTA, 1, team_id)]


BELONGS = "EXISTS (SELECT 1 FROM team_members WHERE team_id = ? AND user_id = ?)"


def refused_change(db, user, row, team_id):
    """Why a session cannot be renamed or moved: an error to raise."""
    if not may_change(db, user, row):
        return problem(403, "only the uploader and the team's admins can change a session")
    if team_id and not db.execute(f"SELECT 1 WHERE ? IS NULL OR {BELONGS}", [row["user_id"], team_id, row["user_id"]]):
        return problem(409, "the one who uploaded this session does not belong to that team", field="team_id")
    if team_id and not within_quota_with(db, row, team_id):
        return problem(507, "this would pass the quota of that team", field="team_id")
    return problem(409, "this session was changed just now; try again")


def within_quota_with(db, row, team_id):
    """Whether a team has room for a session and those that it started."""
    family = [each["id"] for each in db.execute(FAMILY, [row["id"]])]
    return bool(db.execute("""
        SELECT 1 FROM teams t WHERE t.id = ? AND (t.quota_mb IS NULL OR t.quota_mb * 1000000 >=
               t.stored_bytes + (SELECT sum(file_bytes) FROM sessions WHERE id IN (SELECT value FROM json_each(?))))""",
                           [team_id, json_text(family)]))


@app.delete("/api/sessions/<session_id>")
def delete_session(session_id, user, db):
    """Delete a session and those that it started, for good: a later upload of them is refused."""
    row = find_readable(db, user, session_id)
    doomed = [dict(each) for each in db.execute(FAMILY, [session_id])]
    with conflict_is(403, "only the uploader and the team's admins can delete a session"):
        results = db.batch([must(MAY_CHANGE, row["id"], *[user["id"]] * 3),
                            *(statement for each in doomed for statement in burial(each)),
                            audited(user["id"], "session.delete", session_id, row["team_id"])])
    release_bodies(db, results)
    response.status = 204


FAMILY = """
    WITH RECURSIVE family (id, user_id, team_id, tool, hail_id, body) AS (
        SELECT id, user_id, team_id, tool, hail_id, body FROM sessions WHERE id = ?
        UNION
        SELECT c.id, c.user_id, c.team_id, c.tool, c.hail_id, c.body
          FROM sessions c JOIN family p ON c.user_id IS p.user_id AND c.tool = p.tool
                                       AND c.parent_hail_id = p.hail_id AND c.team_id = p.team_id)
    SELECT * FROM family"""


def burial(row):
    """The statements that delete one session and remember that it was; the last one returns its body, which may be newer than `row`."""
    return [
        *removal(row),
        ("""INSERT OR IGNORE INTO tombstones (user_id, tool, hail_id, deleted_at)
            SELECT ?, ?, ?, ? WHERE ? IS NOT NULL""",
         [row["user_id"], row["tool"], row["hail_id"], now(), row["user_id"]]),
        ("DELETE FROM sessions WHERE id = ? RETURNING body", [row["id"]]),
    ]


def mass_burial(condition, value, remembered=True):
    """The statements that delete all sessions for which an SQL condition holds; the last one returns their bodies.

    `remembered`: later uploads of them are refused.  Their sync numbers go up one by one, as if each was deleted alone."""
    tombstones = (f"""INSERT OR IGNORE INTO tombstones (user_id, tool, hail_id, deleted_at)
                      SELECT user_id, tool, hail_id, ? FROM sessions WHERE {condition} AND user_id IS NOT NULL""", [now(), value])
    return [
        (f"""INSERT INTO removals (sync_no, team_id, session_id)
             SELECT {SYNC_NO} + row_number() OVER (ORDER BY sync_no), team_id, id FROM sessions WHERE {condition}""", [value]),
        (f"UPDATE counters SET value = value + (SELECT count(*) FROM sessions WHERE {condition}) WHERE name = 'sync'", [value]),
        *([tombstones] if remembered else []),
        (f"DELETE FROM sessions WHERE {condition} RETURNING body", [value]),
    ]


def release_bodies(db, results):
    """Let the bodies go that a batch with burials returned."""
    for row in itertools.chain(*results):
        if "body" in row.keys():
            release_body(db, row["body"])


def removal(row):
    """The statements that tell pulling clients that a session left its team."""
    return [RAISE_SYNC,
            (f"INSERT INTO removals (sync_no, team_id, session_id) VALUES ({SYNC_NO}, ?, ?)", [row["team_id"], row["id"]])]


@app.get("/api/sessions/<session_id>/raw")
def raw_session(session_id, reader, db):
    """The whole session as a HAIL file."""
    file = read_stored(db, reader, session_id, whole_session)
    if reader and request.method == "GET":
        note_act(audited_as(reader["id"], "'session.download', id, team_id FROM sessions WHERE id = ?", session_id))
    return file


def whole_session(db, row):
    """A session's row as a HAIL file to send."""
    rows = stored_rows(db, row["id"])
    cached(f"{row['id']}.{rows[0]['sync_no']}")
    raw = stored_file(rows)
    response.content_type = "application/jsonl"
    response.set_header("Content-Disposition", 'attachment; filename="session.hail.jsonl"')
    response.set_header("Content-Length", str(raw.size))
    return raw


def stored_rows(db, session_id):
    """What stored_file needs of a session: a row for each block, one at least.  Raises BodyMissing."""
    # One statement, so that row and blocks belong together; what is the row's comes with its first block only.
    rows = db.execute("""
        SELECT b.raw_offset, b.raw_bytes, b.file_offset, b.file_bytes, s.body, s.header, s.hail_id, s.stats, s.sync_no
          FROM sessions s LEFT JOIN blocks b ON b.session_id = s.id AND b.first_ordinal = 0
         WHERE s.id = ?
         UNION ALL
        SELECT raw_offset, raw_bytes, file_offset, file_bytes, NULL, NULL, NULL, NULL, NULL
          FROM blocks WHERE session_id = ? AND first_ordinal > 0 ORDER BY 1
    """, [session_id] * 2)
    if not rows:
        raise BodyMissing       # deleted since somebody saw it
    return rows


def stored_file(rows):
    """A session as a HAIL file.  Raises BodyMissing."""
    first = rows[0]
    header = {**json.loads(first["header"]), "session_id": first["hail_id"]}
    return RawSession(hail_line({"type": "header", **{key: header[key] for key in ("version", "session_id")}, **header}),
                      first["body"], [row for row in rows if row["raw_bytes"]], hail_line(stats_line(json.loads(first["stats"]))))


# ---------------------------------------------------------------------------
# Sessions: what should not be in them
#
# Where daemon.py lies beside this file, one thread looks through stored blocks for tokens
# with a known prefix and for private keys: what an older daemon, or none, has let through.
# `blocks.secrets` says how many events of a block hold one; a block that was not looked at has
# NULL there, as every new one has, so that the work goes on where it was after any stop.
# ---------------------------------------------------------------------------

CHECKED_AT_ONCE = 1 << 20       # bytes of events between two writes
CHECKING_SHARE = 0.2            # of the time, at most: requests and the index come first


@functools.cache
def secret_rules():
    """The version of the rules for secrets that this server has, or None."""
    daemon = beside_us()
    return daemon.RULES_VERSION if daemon else None


def keep_checked(db, stopped):
    """Look for secrets in what is new, until told to stop; for a part of the time only, and not before it can be searched."""
    stopped.wait(1)                 # the first requests come before daemon.py is loaded
    rules = secret_rules()
    give_back_memory()              # what compiling it and this program took
    if rules is None:
        return
    while not stopped.is_set():
        started, pause = time.monotonic(), 2
        try:
            forget_older_checks(db)
            if not sessions_to_index(db, 1) and check_some(db):
                pause = (time.monotonic() - started) * (1 / CHECKING_SHARE - 1)
        except Exception:
            log.exception("looking for secrets failed; it goes on in a minute")
            pause = 60
        stopped.wait(pause)


def forget_older_checks(db):
    """Where the rules have changed, let every block be looked at again; a few sessions in one write."""
    version = str(secret_rules())
    known = db.execute("SELECT value FROM meta WHERE key = 'secret_rules'")
    if known and known[0]["value"] == version:
        return
    last = ""
    while ids := [row["id"] for row in db.execute("SELECT id FROM sessions WHERE id > ? ORDER BY id LIMIT 200", [last])]:
        db.batch([("UPDATE blocks SET secrets = NULL WHERE session_id > ? AND session_id <= ? AND secrets IS NOT NULL", [last, ids[-1]])])
        last = ids[-1]
    db.batch([("INSERT INTO meta (key, value) VALUES ('secret_rules', ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
               [version])])


def check_some(db):
    """Look through some blocks that nobody has looked at, of one session; how many there were."""
    rows = db.execute("""
        SELECT b.*, s.body, s.header FROM blocks b JOIN sessions s ON s.id = b.session_id
         WHERE b.secrets IS NULL AND b.session_id = (SELECT session_id FROM blocks WHERE secrets IS NULL LIMIT 1)
         ORDER BY b.first_ordinal LIMIT 64""")
    found, size = [], 0
    for row in rows:
        if size < CHECKED_AT_ONCE:
            size += row["raw_bytes"]
            found.append((row, count_secrets(row)))
    # A block that was replaced meanwhile has another chain, and stays unchecked.
    db.batch([("UPDATE blocks SET secrets = ? WHERE session_id = ? AND first_ordinal = ? AND chain = ?",
               [count, row["session_id"], row["first_ordinal"], row["chain"]]) for row, count in found])
    return len(found)


def count_secrets(block):
    """How many events of a block hold a secret; with its first event counts the header.  A lost body has none."""
    redactor = beside_us().confident_redactor()
    try:
        with open_body(block["body"]) as file:
            lines = lines_of(inflate_block(file, block))
    except BodyMissing:
        return 0
    count = sum(cleaned is not None for _, cleaned in masked_lines(redactor, lines))
    header = json.loads(block["header"])
    return count + (block["first_ordinal"] == 0 and redactor.clean_header(header) is not header)


def masked_lines(redactor, lines):
    """Yield (index, cleaned event or None where nothing was masked) of the event lines that look like holding a secret."""
    for index, what in beside_us().suspects(redactor.scanner, lines).items():
        event = json.loads(lines[index])
        cleaned, _ = redactor.clean_line(event, lines[index], what)
        yield index, cleaned if cleaned is not event else None


def sessions_with_secrets(db, reader, among=None):
    """The ids of those sessions that are known to hold secrets and that the caller may mask; `among` some, or all of them."""
    if reader is None or reader["scope"] != "full":
        return []
    some = "" if among is None else "AND b.session_id IN (SELECT value FROM json_each(?) each)"
    rows = db.execute(f"""
        SELECT DISTINCT s.id FROM blocks b INDEXED BY blocks_with_secrets CROSS JOIN sessions s ON s.id = b.session_id
         WHERE b.secrets > 0 {some} AND {CHANGEABLE} LIMIT {COUNTED}
    """, [*([] if among is None else [json_text(among)]), *[reader["id"]] * 3])
    return [row["id"] for row in rows]


def events_with_secrets(db, session_id):
    """How many events of a session are known to hold a secret."""
    return db.execute("SELECT coalesce(sum(secrets), 0) AS n FROM blocks WHERE session_id = ? AND secrets > 0", [session_id])[0]["n"]


@app.post("/api/sessions/<session_id>/redact")
def redact_session(session_id, user, db):
    """Mask the tokens and private keys that a session still holds (its uploader and the team's admins)."""
    if secret_rules() is None:
        raise problem(501, "this server has no daemon.py beside it, whose rules it would need")
    find_readable(db, user, session_id)
    with GROWING[zlib.crc32(session_id.encode()) % len(GROWING)], draft_file() as file:
        known = db.execute("SELECT * FROM sessions WHERE id = ?", [session_id])[0]
        with conflict_is(403, "only the uploader and the team's admins can mask what is in a session"):
            db.batch([must(MAY_CHANGE, session_id, *[user["id"]] * 3)])
        with conflict_is(409, "the session is being changed; try again"):
            masked = mask_body(db, user, known, file)
    return {"id": session_id, "masked": masked, "secrets": events_with_secrets(db, session_id)}


def mask_body(db, user, known, file):
    """Write a body anew from the first block with a secret on; how many events were masked."""
    redactor = beside_us().confident_redactor()
    blocks, header = load_blocks(db, known, 0, known["event_count"]), json.loads(known["header"])
    first, writer, masked = None, None, 0
    with open_body(known["body"]) as old:
        for number, block in enumerate(blocks):
            lines = lines_of(inflate_block(old, block))
            redactor.know_masks(b"".join(lines))
            changed = {index: cleaned for index, cleaned in masked_lines(redactor, lines) if cleaned is not None}
            masked += len(changed)
            if changed and writer is None:
                copy_bytes(old, file, block["file_offset"])
                first, writer = number, BodyWriter(file, block["file_offset"], blocks[number - 1] if number else None)
            if writer:
                write_masked(writer, lines, changed)
    cleaned = redactor.clean_header(header)
    if writer is None and cleaned is header:
        return 0
    more = [("INSERT INTO remasked (session_id, rules_version) VALUES (?, ?) "
             "ON CONFLICT (session_id) DO UPDATE SET rules_version = excluded.rules_version", [known["id"], secret_rules()]),
            audited(user["id"], "session.redact", known["id"], known["team_id"])]
    header = check_header({**cleaned, "session_id": known["hail_id"]})
    if writer is None:
        write_columns(db, user, known, header_columns(header, json.loads(known["stats"]), known["own_title"]), more)
    else:
        writer.close_block()
        replace_body(db, user, known, header, file, blocks[:first], writer.blocks, blocks[first]["first_ordinal"], more)
    return masked


def write_masked(writer, lines, changed):
    """Write the lines of a block, some of them changed: {index: event}."""
    for index, line in enumerate(lines):
        event = changed.get(index) or json.loads(line)
        writer.add(event, hail_line(event) if index in changed else line)


def refuse_unmasked(db, known):
    """End with 409 where secrets were masked here and the sender's rules are older: it would bring them back."""
    rows = known and db.execute("SELECT rules_version FROM remasked WHERE session_id = ?", [known["id"]])
    sent = re.search(r"\brules/(\d{1,9})", request.get_header("User-Agent") or "")
    if rows and (int(sent[1]) if sent else 0) < rows[0]["rules_version"]:
        raise problem(409, "secrets were masked in this session on the server, and what you send it with does not know them: "
                           "update daemon.py", field="rules")


# ---------------------------------------------------------------------------
# Sessions: windows of events
# ---------------------------------------------------------------------------

LONG_TEXT = 64 << 10
LONG_DATA_URL = 256 << 10


@app.get("/api/sessions/<session_id>/events")
def list_events(session_id, reader, db):
    """A window of events: from an ordinal, or around an event id; with q, the places of its words in the session."""
    if query("q") is not None:
        return search_session(session_id, reader, db)
    return read_stored(db, reader, session_id, window)


def read_stored(db, reader, session_id, read):
    """What `read(db, row)` makes of a session that the caller may read.

    It is called again where the body was replaced between its row and its file."""
    for _ in range(4):
        row = find_readable(db, reader, session_id, BODY_ROW)
        with contextlib.suppress(BodyMissing):
            return read(db, row)
    raise BodyMissing


def window(db, row):
    """A window as JSON, in pieces: events are sent as they are stored."""
    cached(f"{row['id']}.{row['revision']}.{row['event_count']}.{sha256(request.query_string.encode()).hexdigest()[:16]}")
    limit = query_number("limit", 200, 1, 500)
    answer = {"total": row["event_count"], "revision": row["revision"]}
    start = query_number("from", 0, 0, row["event_count"])
    if query("around") or query("at"):
        answer["found"] = found = find_event(db, row, query("around")) if query("around") else find_moment(db, row)
        start = reach_back(db, row, found, limit // 2, 2)
    events, end = read_events(db, row, start, start + limit)
    answer |= {"from": start, "next": end if end < row["event_count"] and events else None,
               "previous": reach_back(db, row, start - 1, limit - 1, WINDOW_BLOCKS) if start > 0 else None}
    response.content_type = "application/json"
    return [json_text(answer)[:-1].encode(), b',"events":[', b",".join(events), b"]}"]


def reach_back(db, row, ordinal, count, blocks):
    """The ordinal that is `count` before another, or later where these events lie in more than so many blocks."""
    first = db.execute("""
        SELECT first_ordinal FROM blocks WHERE session_id = ? AND first_ordinal <= ?
         ORDER BY first_ordinal DESC LIMIT 1 OFFSET ?
    """, [row["id"], ordinal, blocks - 1])
    return max(0, ordinal - count, *(block["first_ordinal"] for block in first))


def read_events(db, row, start, end):
    """(JSON texts of the events from `start`, ordinal behind the last): fewer than asked where blocks are full."""
    events = []
    with open_body(row["body"]) as file:
        for block in load_extents(db, row, start, end):
            first = block["first_ordinal"]
            lines = inflate_lines(file, block, max(0, start - first), end - first)
            events += map(shown, lines, itertools.count(start + len(events)))
    return events, start + len(events)


def load_extents(db, row, start, end):
    """Where the events from `start` to before `end` lie, as they were when the row was read.  Raises BodyMissing."""
    blocks = db.execute("""
        SELECT b.first_ordinal, b.event_count, b.raw_bytes, b.file_offset, b.file_bytes, b.marks, s.body
          FROM sessions s LEFT JOIN blocks b ON b.session_id = s.id AND b.first_ordinal < ? AND b.first_ordinal >= coalesce(
               (SELECT max(first_ordinal) FROM blocks WHERE session_id = s.id AND first_ordinal <= ?), 0)
         WHERE s.id = ? ORDER BY b.first_ordinal LIMIT ?
    """, [end, start, row["id"], WINDOW_BLOCKS])
    if not blocks or blocks[0]["body"] != row["body"]:
        raise BodyMissing
    return [block for block in blocks if block["raw_bytes"]]


def shown(line, ordinal):
    """The JSON text of one event for a window, with its ordinal; what is very long is cut."""
    line = line.rstrip()
    if len(line) > LONG_TEXT:
        line = hail_line(cut_event(json.loads(line))).rstrip()
    return b'%b,"ordinal":%d}' % (line[:-1], ordinal)


def cut_event(event):
    """An event without the far end of its long texts; each place says so and how long it is."""
    for block in event["content"]["blocks"]:
        for name in ("text", "code", "content", "url"):
            text = block.get(name)
            limit = LONG_DATA_URL if name == "url" else LONG_TEXT
            if isinstance(text, str) and len(text) > limit:
                block |= {name: "" if name == "url" else text[:limit], "truncated": True, "full_size": len(text)}
        if block["type"] == "Json" and len(text := json_text(block.get("data"))) > LONG_TEXT:
            block |= {"data": text[:LONG_TEXT], "truncated": True, "full_size": len(text)}
    data = event["event_type"].get("data") or {}
    for name, text in list(data.items()):
        if isinstance(text, str) and len(text) > LONG_TEXT:
            data |= {name: text[:LONG_TEXT], "truncated": True, "full_size": len(text)}
    return event


def find_event(db, row, event_id):
    """The ordinal of the event with an id, by the marks beside the body.  Raises 404."""
    wanted = zlib.crc32(event_id.encode("utf-8", "replace"))
    for block in db.execute("SELECT first_ordinal, marks FROM blocks WHERE session_id = ? ORDER BY first_ordinal", [row["id"]]):
        alike = [number for number, (crc, *_) in enumerate(MARK.iter_unpack(block["marks"])) if crc == wanted]
        if alike:           # the block is read once, however many were made to look alike
            lines = block_lines(db, row, block["first_ordinal"])
            for number in alike:
                if json.loads(lines[number])["event_id"] == event_id:
                    return block["first_ordinal"] + number
    raise problem(404, "event not found", field="around")


def block_lines(db, row, first):
    """All lines of the block that begins with an ordinal.  Raises BodyMissing."""
    block, = load_extents(db, row, first, first + 1)
    with open_body(row["body"]) as file:
        return lines_of(inflate_block(file, block))


def find_moment(db, row):
    """The ordinal of the first event at or after a time, in a file that may go back in time here and there.

    The last event where all are earlier.  Raises 400."""
    if not is_timestamp(query("at")):
        raise problem(400, "at must be a time as in RFC 3339", field="at")
    wanted = int(datetime.fromisoformat(query("at")).timestamp() * 1000)
    ends = db.execute(f"SELECT first_ordinal, substr(marks, -{MARK.size}) AS last FROM blocks WHERE session_id = ? ORDER BY first_ordinal",
                      [row["id"]])
    reached = next((block["first_ordinal"] for block in ends if MARK.unpack(block["last"])[2] >= wanted), None)
    if reached is None:
        return max(0, row["event_count"] - 1)
    marks = db.execute("SELECT marks FROM blocks WHERE session_id = ? AND first_ordinal = ?", [row["id"], reached])[0]["marks"]
    return reached + next(number for number, (_, _, at, _, _) in enumerate(MARK.iter_unpack(marks)) if at >= wanted)


def stored_event(db, row, ordinal):
    """One event, whole."""
    block, = load_extents(db, row, ordinal, ordinal + 1)
    place = ordinal - block["first_ordinal"]
    with open_body(row["body"]) as file:
        return json.loads(*inflate_lines(file, block, place, place + 1))


@app.get("/api/sessions/<session_id>/events/<ordinal:int>")
def get_event(session_id, ordinal, reader, db):
    """One event whole, however long."""
    def read(db, row):
        if not 0 <= ordinal < row["event_count"]:
            raise problem(404, "event not found")
        cached(f"{row['id']}.{row['revision']}.{ordinal}")
        return {**stored_event(db, row, ordinal), "ordinal": ordinal}
    return read_stored(db, reader, session_id, read)


# ---------------------------------------------------------------------------
# Sessions: the whole at a glance, by what is kept beside the body
# ---------------------------------------------------------------------------

OUTLINE_ENTRIES = 5000


@app.get("/api/sessions/<session_id>/outline")
def outline(session_id, reader, db):
    """A session by its prompts: each with what happened until the next one."""
    row = find_readable(db, reader, session_id, BODY_ROW)
    limit = query_number("limit", OUTLINE_ENTRIES, 1, OUTLINE_ENTRIES)
    cached(f"{row['id']}.{row['revision']}.{row['event_count']}.outline.{limit}")
    turns = stored_turns(db, row, limit)
    entries, input_before, output_before = [], 0, 0
    for turn in turns[:limit]:
        entries.append({
            **{name: turn[name] for name in ("ordinal", "event_id", "at", "text", "events", "steps", "edits", "errors")},
            "at": timestamp(turn["at"]), "seconds": seconds_between(turn["at"], turn["last"]),
            # Running totals, where a tool gives them, beat the sums, as in stats_line.
            "input_tokens": max(0, turn["input_total"] - input_before) if turn["input_total"] else turn["input"],
            "output_tokens": max(0, turn["output_total"] - output_before) if turn["output_total"] else turn["output"]})
        input_before, output_before = max(input_before, turn["input_total"]), max(output_before, turn["output_total"])
    answer = {"entries": entries, "total": row["event_count"], "revision": row["revision"]}
    return answer | ({"is_capped": True} if len(turns) > limit else {})


def stored_turns(db, row, limit):
    """The turns of a session, read in portions until there are more than a limit."""
    turns, after = [], -1
    while len(turns) <= limit:
        blocks = db.execute("SELECT first_ordinal, turns FROM blocks WHERE session_id = ? AND first_ordinal > ? "
                            "ORDER BY first_ordinal LIMIT ?", [row["id"], after, 2 + limit // 25])
        if not blocks:
            break
        for block in blocks:
            more = turns_of(block["turns"])
            turns[-1:] = merge_turns(turns[-1:], more)
        after = blocks[-1]["first_ordinal"]
    return turns


@app.get("/api/sessions/<session_id>/map")
def session_map(session_id, reader, db):
    """Kind and flags of every event, one character each."""
    row = find_readable(db, reader, session_id, BODY_ROW)
    cached(f"{row['id']}.{row['revision']}.{row['event_count']}.map{' uncounted' * (row['step_kinds'] is None)}")
    marks = b"".join(block["marks"] for block in db.execute(
        "SELECT marks FROM blocks WHERE session_id = ? ORDER BY first_ordinal", [row["id"]]))
    kinds, flags = marks[MARK.size - 2::MARK.size], marks[MARK.size - 1::MARK.size]
    return {"total": row["event_count"], "revision": row["revision"], "names": list(EVENT_KINDS),
            "kinds": kinds.translate(MAP_KINDS).decode(), "flags": flags.translate(MAP_FLAGS).decode()}


MAP_KINDS = bytes((ord("A") + number) % 128 for number in range(256))
MAP_FLAGS = bytes((ord("0") + number) % 128 for number in range(256))


# ---------------------------------------------------------------------------
# Sessions: searching
# ---------------------------------------------------------------------------

SEARCH_SECONDS = 0.015      # of work: then a search says how far back it looked
COUNTED_PLACES = 1000
PLACES_OF_SESSION = 100     # so many hits in a session are counted when looking through many
PLACES_SHOWN = 3
AT_ONCE = 10                # a search is narrowed to so many teams; a reader of more may read most anyway
LONGEST_SESSION = timedelta(days=30)
FURTHEST = timedelta(days=1)    # how much later than it began a session may stand in the index, where there is no room before
LARGEST_PLACE = 2**63 - 1


@app.get("/api/search", limit="searches")
def search(reader, db):
    """What the caller may read that has all words of a query in one event, by session; newest first, or the best of few."""
    started = time.perf_counter()
    sort = "best" if query("sort") == "best" else "newest"
    asked = parse_query(query("q", ""))
    wanted = query_number("limit", 20, 1, 50)
    cursor = search_cursor(sort)
    looking = plan_search(db, reader, asked)
    narrow_as_list(db, reader, looking)
    found = find_best(db, looking, cursor, wanted) if sort == "best" else None
    found = found or find_newest(db, looking, cursor if sort == "newest" else None, wanted)
    count, capped = count_places(db, looking, found, cursor)
    hits = shown_hits(db, reader, asked, found.groups)
    return {"hits": hits, "count": count, "count_is_capped": capped, "sort": found.sort, "next_cursor": found.next,
            "searched_back_to": found.back_to and time_of(found.back_to), "indexing": still_indexing(db, reader),
            "query": shown_query(asked), "took_ms": round((time.perf_counter() - started) * 1000, 1)}


def search_cursor(sort):
    """Where a page of a search begins, None for the first one.  Raises 400."""
    text = query("cursor")
    if not text:
        return None
    if not re.fullmatch(f"{sort[0]}[0-9]{{1,19}}", text):
        raise problem(400, "cursor is none of ours", field="cursor")
    return min(int(text[1:]), LARGEST_PLACE)


def shown_query(asked):
    """How a query was understood, for people."""
    return {"words": [word.text for group in asked.groups for word in group], "without": [word.text for word in asked.without],
            "filters": [{"name": each.name, "value": each.value, "negated": each.negated} for each in asked.filters],
            "problems": list(dict.fromkeys(asked.problems))}


def plan_search(db, reader, asked, inside=None):
    """What to look for: `match` for the index, `where` and `args` for the sessions, `low` and `high` for rowids.

    `inside` is the one session to look in.  `match` is None where nothing can be found."""
    plan = SimpleNamespace(match=None, marks=[], where=[READABLE.replace("s.team_id", "i.team_id")], joins="", args=[reader and reader["id"]], low=0, high=LARGEST_PLACE)
    teams = db.execute(f"SELECT id FROM ({READABLE_TEAMS}) LIMIT {AT_ONCE + 1}", [reader and reader["id"]])
    teams = [row["id"] for row in teams] if len(teams) <= AT_ONCE else None
    teams = filter_sessions(db, reader, asked, plan, teams)
    plan.marks += list_marks() if not inside else []
    if inside:
        plan.low, plan.high = inside["search_no"], title_place(inside)
    if (asked.groups or asked.without or asked.filters) and teams != []:
        plan.match = match_text(db, asked, [] if inside else [*plan.marks, list(map(team_mark, teams or ()))])
    return plan


def filter_sessions(db, reader, asked, plan, teams):
    """Add what a query's filters ask of a session to a plan; return the teams that are left to look in."""
    for name in dict.fromkeys(each.name for each in asked.filters):
        for negated in (False, True):
            values = [each.value for each in asked.filters if (each.name, each.negated) == (name, negated)]
            if not values or name in MARK_FILTERS or name == "file":
                continue
            if name in ("before", "after"):
                narrow_time(plan, name, values[0], negated)
                continue
            condition, args = filter_condition(db, reader, name, values)
            plan.where.append(f"NOT coalesce(({condition}), 0)" if negated else f"({condition})")
            plan.args += args
            if name == "team" and not negated:
                teams = args
            if name == "user" and not negated:
                plan.marks.append(list(map(user_mark, args)))
            if name == "model" and not negated:
                plan.marks.append([mark for mark in endings(db, asked, "§m") if any(bare_name(value) in mark for value in values)])
            plan.joins = plan.joins if name == "team" else SESSIONS
    return teams


def filter_condition(db, reader, name, values):
    """(SQL, values) of one filter, of which any value will do."""
    if name in ROW_FILTERS:
        condition, places = ROW_FILTERS[name]
        return " OR ".join([condition] * len(values)), [value for value in values for _ in range(places)]
    find = team_ids if name == "team" else user_ids
    ids = [found for value in values for found in find(db, reader, value)]
    column = "i.team_id" if name == "team" else "s.user_id"
    return f"{column} IN ({', '.join('?' * len(ids))})", ids


def team_ids(db, reader, value):
    """The readable teams that have a name or id."""
    rows = db.execute(f"SELECT id FROM teams WHERE id IN ({READABLE_TEAMS}) AND (id = ? OR name = ? OR lower(name) = lower(?))",
                      [reader and reader["id"], value, value, value])
    return [row["id"] for row in rows]


def user_ids(db, reader, value):
    """The users who have a nickname or id; `me` is who asks."""
    if value.lower() == "me" and reader:
        return [reader["id"]]
    rows = db.execute("SELECT id FROM users WHERE id = ? OR nickname = ? OR nickname = ? COLLATE NOCASE LIMIT 50", [value] * 3)
    return [row["id"] for row in rows]


def narrow_time(plan, name, value, negated):
    """before: sessions that had begun by then; after: sessions that were active since then."""
    at = moment_of(value)
    if (name == "before") != negated:
        plan.high = min(plan.high, place_of(at + FURTHEST))
        plan.where.append("s.created_at < ?")
    else:
        plan.low = max(plan.low, place_of(at - LONGEST_SESSION))
        plan.where.append("s.updated_at >= ?")
    plan.args.append(utc_text(at))
    plan.joins = SESSIONS


def list_marks():
    """The marks that narrow a search by the filters of a list in the query string."""
    marks = [[name_mark(kind, query(name).lower())] for name, kind in NAME_MARKS.items() if query(name)]
    return [*marks, [user_mark(query("user_id"))]] if query("user_id") else marks


def narrow_as_list(db, reader, plan):
    """Let a search find only what a list shows with the same query string: its filters, team, day or time, what holds secrets."""
    exactly = {f"s.{column} = ?": query(name) for name, column in FILTERS.items() if query(name)}
    exactly |= {"s.team_id = ?": query("team_id")} if query("team_id") else {}
    if query("secrets") == "1":
        exactly["s.id IN (SELECT value FROM json_each(?) each)"] = json_text(sessions_with_secrets(db, reader))
    bounds = time_bounds()
    exactly |= {f"s.updated_at {sign} ?": at for sign, at in bounds.items()}
    plan.where += exactly
    plan.args += exactly.values()
    plan.joins = SESSIONS if exactly else plan.joins
    if "<" in bounds:           # what was last active by then had begun by then; a day is for clocks that differ
        plan.high = min(plan.high, place_of(datetime.fromisoformat(bounds["<"]) + timedelta(days=1) + FURTHEST))


SESSIONS = "CROSS JOIN sessions s ON s.id = i.session_id"


def places_sql(plan, columns, order):
    """The statement that gives rows of the index for a plan, with two rowids to look between."""
    return f"""
        SELECT {columns}
          FROM search_index CROSS JOIN indexed i
            ON i.search_no = (SELECT max(search_no) FROM indexed WHERE search_no <= search_index.rowid) {plan.joins}
         WHERE search_index MATCH ? AND search_index.rowid >= ? AND search_index.rowid < ?
           AND (search_index.rowid < i.search_no + i.indexed_to OR search_index.rowid = i.search_no + i.room - 1 AND NOT i.pending)
           AND {" AND ".join(plan.where)}
         {order}"""


def places(db, plan, low, high, order, deadline):
    """Yield (search_no, ordinal) of what a plan finds between two rowids.  Raises OutOfTime."""
    if plan.match and low < high:
        yield from map(tuple, db.until(deadline, places_sql(plan, PLACE, order), [plan.match, low, high, *plan.args]))


PLACE = f"i.search_no, iif(search_index.rowid = i.search_no + i.room - 1, {TITLE}, search_index.rowid - i.search_no)"


NEWEST, OLDEST = "ORDER BY search_index.rowid DESC", "ORDER BY search_index.rowid"
BEST = "ORDER BY bm25(search_index), search_index.rowid DESC"


def no_groups(sort):
    """A result to fill: `groups` of ordinals by search_no, `seen` rows, whether that is `all`."""
    return SimpleNamespace(sort=sort, groups={}, seen=0, all=True, next=None, back_to=None)


def find_newest(db, plan, cursor, wanted):
    """The newest sessions with hits.  Where the time does not suffice, it says how far back it looked."""
    plan.until = time.thread_time() + SEARCH_SECONDS
    found = no_groups("newest")
    high = min(plan.high, cursor or plan.high)
    try:
        collect(db, plan, found, plan.low, high, wanted, time.thread_time() + SEARCH_SECONDS / 2)
    except OutOfTime:
        found.all = False
        found.back_to = min(found.groups, default=0) or look_back(db, plan, found, high, wanted)
    if found.next is None and found.back_to:
        found.next = f"n{found.back_to}"
    return found


def collect(db, plan, found, low, high, wanted, deadline):
    """Group hits by session until there are enough sessions; one with very many hits is left early."""
    while high is not None:
        rows, high = places(db, plan, low, high, NEWEST, deadline), None
        for search_no, ordinal in rows:
            if search_no not in found.groups and len(found.groups) == wanted:
                found.next, found.all = f"n{min(found.groups)}", False
                return
            ordinals = found.groups.setdefault(search_no, [])
            ordinals.append(ordinal)
            found.seen += 1
            if len(ordinals) == PLACES_OF_SESSION:
                high, found.all = search_no, False
                break
        rows.close()


def look_back(db, plan, found, high, wanted):
    """Look through longer and longer times until the work is too much; return the rowid back to which nothing is left."""
    newest = db.execute("SELECT search_no + room AS ends FROM indexed ORDER BY search_no DESC LIMIT 1")
    high, span = min(high, newest[0]["ends"] if newest else 0), 86400 * PLACES_A_SECOND
    seconds = SEARCH_SECONDS * 10           # the first step must get somewhere
    deadline = time.thread_time() + SEARCH_SECONDS
    with contextlib.suppress(OutOfTime):
        while high > plan.low:
            collect(db, plan, found, max(plan.low, high - span), high, wanted, time.thread_time() + seconds)
            high, span = max(plan.low, high - span), span * 2
            if found.next or high == plan.low:
                return None
            seconds = deadline - time.thread_time()
    return min(found.groups, default=0) or high


def find_best(db, plan, cursor, wanted):
    """The sessions with the best hits, or None where there are too many hits to weigh."""
    found, skip = no_groups("best"), cursor or 0
    groups, deadline = {}, time.thread_time() + SEARCH_SECONDS * 2
    try:
        for place in places(db, plan, plan.low, plan.high, f"{NEWEST} LIMIT {COUNTED_PLACES + 1}", deadline):
            found.seen += 1
        if found.seen > COUNTED_PLACES:
            return None
        for search_no, ordinal in places(db, plan, plan.low, plan.high, BEST, deadline):
            groups.setdefault(search_no, []).append(ordinal)
    except OutOfTime:
        return None
    found.groups = dict(itertools.islice(groups.items(), skip, skip + wanted))
    found.next = f"b{skip + wanted}" if len(groups) > skip + wanted else None
    return found


def count_places(db, plan, found, cursor):
    """(number of hits, whether there are more)."""
    if found.all and (cursor is None or found.sort == "best"):
        return found.seen, False
    sql = places_sql(plan, "1", f"{NEWEST} LIMIT {COUNTED_PLACES + 1}")
    try:
        counted, = next(db.until(plan.until, f"SELECT count(*) FROM ({sql})", [plan.match, plan.low, plan.high, *plan.args]))
    except OutOfTime:
        return min(found.seen, COUNTED_PLACES), True
    return min(counted, COUNTED_PLACES), counted > COUNTED_PLACES


def still_indexing(db, reader):
    """How many of the caller's newest sessions are yet to be indexed."""
    return db.execute(f"""
        SELECT count(*) AS n FROM (SELECT session_id FROM indexed WHERE pending > 0 ORDER BY search_no DESC LIMIT 1000) newest
               CROSS JOIN sessions s ON s.id = newest.session_id
         WHERE {READABLE}""", [reader and reader["id"]])[0]["n"]


def time_of(place):
    """The time at which a session began, by a rowid of its, or about so."""
    return utc_text(datetime.fromtimestamp(place // PLACES_A_SECOND, timezone.utc))


def place_of(at):
    """The first rowid for sessions that began at a time."""
    return max(0, int(at.timestamp())) * PLACES_A_SECOND


# ---------------------------------------------------------------------------
# Sessions: what a search shows
# ---------------------------------------------------------------------------

SNIPPET_SECONDS = 0.02      # of work for further places; the best one of each session always has its text
PLACES_WEIGHED = 12
BEST_KINDS = ("UserMessage", "AgentMessage", "FileEdit", "FileCreate", "ShellCommand", "Thinking")


def shown_hits(db, reader, asked, groups):
    """The sessions of a result with their best places."""
    pattern = highlighter(asked)
    sessions = sessions_by_no(db, reader, groups)
    weighed = weighed_places(db, {no: ordinals for no, ordinals in groups.items() if no in sessions})
    reading = new_reading(itertools.chain(*weighed.values()), SNIPPET_SECONDS)
    hits = []
    for search_no, ordinals in groups.items():
        if search_no in sessions:
            row = sessions[search_no]
            title, title_from = title_snippet(row, pattern) if TITLE in ordinals else (None, None)
            hits.append({"session": summary(row), "count": len(ordinals), "count_is_capped": len(ordinals) == PLACES_OF_SESSION,
                         "title_hit": TITLE in ordinals, "title": title, "title_from": title_from,
                         "places": best_places(reading, weighed.get(search_no, []), pattern)})
    return hits


def sessions_by_no(db, reader, numbers):
    """{search_no: row} of sessions that the caller may read."""
    rows = db.execute(f"""
        SELECT i.search_no, {SUMMARY_COLUMNS}
          FROM json_each(?) n CROSS JOIN indexed i ON i.search_no = n.value CROSS JOIN sessions s ON s.id = i.session_id
               LEFT JOIN users u ON u.id = s.user_id
         WHERE {READABLE}""", [json_text(list(numbers)), reader and reader["id"]])
    return {row["search_no"]: row for row in rows}


def title_snippet(row, pattern):
    """(snippet, name of the field) of the title, or of what else of a session the words are in."""
    snippets = [(snippet_of(row[name], pattern), name) for name in ("title", "description", "tags", "project", "git_branch") if row[name]]
    return next((each for each in snippets if any(lit for _, lit in each[0])), ([[row["title"] or "", False]], "title"))


def weighed_places(db, groups):
    """{search_no: places}, the most telling kinds first."""
    pairs = [[search_no, ordinal] for search_no, ordinals in groups.items()
             for ordinal in [each for each in ordinals if each != TITLE][:PLACES_WEIGHED]]
    weighed = {}
    for place in sorted(located(db, pairs), key=kind_rank):
        weighed.setdefault(place["search_no"], []).append(place)
    return weighed


def located(db, pairs):
    """Places, with where their events lie and the marks of their blocks up to them, for [search_no, ordinal] pairs in order."""
    rows = db.execute(f"""
        SELECT i.search_no, p.value ->> 1 AS ordinal, s.body, b.first_ordinal, b.raw_bytes, b.file_offset, b.file_bytes,
               substr(b.marks, 1, ((p.value ->> 1) - b.first_ordinal + 1) * {MARK.size}) AS marks
          FROM json_each(?) p CROSS JOIN indexed i ON i.search_no = p.value ->> 0 CROSS JOIN sessions s ON s.id = i.session_id
               CROSS JOIN blocks b ON b.session_id = s.id AND b.first_ordinal =
               (SELECT max(first_ordinal) FROM blocks WHERE session_id = s.id AND first_ordinal <= p.value ->> 1)
    """, [json_text(pairs)])
    marks = ((row, MARK.unpack_from(row["marks"], (row["ordinal"] - row["first_ordinal"]) * MARK.size)) for row in rows
             if len(row["marks"]) == (row["ordinal"] - row["first_ordinal"] + 1) * MARK.size)
    return [{**row, "at": at, "kind": KIND_NAMES[kind]} for row, (_, _, at, kind, _) in marks]


def kind_rank(place):
    return BEST_KINDS.index(place["kind"]) if place["kind"] in BEST_KINDS else len(BEST_KINDS)


def best_places(reading, weighed, pattern):
    """The best places of a session: the most telling one, and others that are read with it or as time permits."""
    first = weighed[:1]
    others = sorted(weighed[1:], key=lambda place: place["first_ordinal"] != first[0]["first_ordinal"])
    places = [*first, *others[:PLACES_SHOWN - 1]]
    return [shown_place(reading, place, pattern, place is places[0]) for place in places]


def new_reading(places, seconds):
    """For reading the events of places: `last` place of each block, `blocks` that were read so far, `until` when there is time."""
    last = {(place["body"], place["first_ordinal"]): place for place in sorted(places, key=lambda place: place["ordinal"])}
    return SimpleNamespace(last=last, blocks={}, until=time.thread_time() + seconds)


def shown_place(reading, place, pattern, always):
    """A place as results show it; its text is left out where reading it would take too long."""
    event = None
    if always or (place["body"], place["first_ordinal"]) in reading.blocks or time.thread_time() < reading.until:
        event = read_place(reading, place)
    at = utc_text(datetime.fromtimestamp(place["at"] / 1000, timezone.utc))
    return {"ordinal": place["ordinal"], "event_id": event and event["event_id"], "kind": place["kind"], "at": at,
            "snippet": event and event_snippet(event, pattern)}


def read_place(reading, place):
    """The event of a place, or None where its body is gone; blocks are read once, up to their last place."""
    key = (place["body"], place["first_ordinal"])
    try:
        if key not in reading.blocks:
            with open_body(place["body"]) as file:
                reading.blocks[key] = inflate_lines(file, reading.last[key])
        return json.loads(reading.blocks[key][place["ordinal"] - place["first_ordinal"]])
    except (BodyMissing, ValueError, IndexError):
        return None


def event_snippet(event, pattern):
    """The piece of an event in which most words are."""
    text, path = event_search_text(event)
    return snippet_of(f"{path}\n{text}" if path else text, pattern)


SNIPPET, SNIPPET_BEFORE = 200, 40
SNIPPET_FROM = 2000         # characters that are looked at before the rest


def highlighter(asked):
    """The pattern of a query's words in folded text; None where it has none."""
    words = [word for group in asked.groups for word in group]
    patterns = [f"({word_pattern(word)})" for word in words]
    return re.compile("|".join(patterns)) if patterns else None


def word_pattern(word):
    """A word as it may stand in folded text: `retryUpload` in any of its forms."""
    pieces = [fold_letters(piece) for piece in re.findall(r"[^\W_]+", CAMEL_PART.sub(r"\g<0> ", word.text))]
    return r"[\W_]*".join(map(re.escape, pieces)) or re.escape(fold_letters(word.text))


def snippet_of(text, pattern):
    """[[text, whether it is one of the words], …] around the place where most words are."""
    text, spans, first = weighed_text(text, pattern)
    start = max(0, first - SNIPPET_BEFORE)
    end = start + SNIPPET + SNIPPET_BEFORE
    pieces, at = [["…", False]] if start else [], start
    for begin, stop, _ in spans:
        if at <= begin and stop <= max(end, first + 1000):
            pieces += [[text[at:begin], False], [text[begin:stop], True]]
            at = stop
        if begin >= end:
            break
    pieces += [[text[at:max(at, end)], False]] + ([["…", False]] if end < len(text) else [])
    return [[SPACES.sub(" ", piece), lit] for piece, lit in pieces if piece]


def weighed_text(text, pattern):
    """(text, [(start, end, which word)], where most words are); of a long text the beginning, where all words are there."""
    for part in (text[:SNIPPET_FROM], text):
        part, folded = alike(part)
        spans = [match.span() + (match.lastindex,) for match in itertools.islice(found_words(part, folded, pattern), 200)]
        first, words = densest(spans)
        if len(part) >= len(text) or pattern and words == pattern.groups and first + SNIPPET + SNIPPET_BEFORE < len(part):
            break
    return part, spans, first


SPACES = re.compile(r"\s+")


def densest(spans):
    """(where most different words stand within the length of a snippet, how many): the first such place, 0 where there are no words."""
    starts = [start for start, _, _ in spans]

    def words_from(start):
        return len({word for _, _, word in spans[bisect_left(starts, start):bisect_left(starts, start + SNIPPET)]})
    first = max(starts, key=words_from, default=0)
    return first, words_from(first)


def alike(text):
    """(text, folded text) in which the same places are the same characters."""
    if text.isascii():
        return text, text.lower()
    for form in (text, unicodedata.normalize("NFKC", text)):
        folded = fold_letters(form)
        if len(folded) == len(form):
            return form, folded
    return form, "".join(folded if len(folded := fold_letters(letter)) == 1 else letter for letter in form)


def found_words(text, folded, pattern):
    """Yield the matches that begin and end where words do."""
    if pattern:
        for match in pattern.finditer(folded):
            if match.start() < match.end() and begins_word(text, match.start()):
                yield match


def begins_word(text, at):
    """Whether a word, or a part of a camelCase word, begins here."""
    before, here = text[at - 1:at], text[at]
    if not (before.isalnum() and here.isalnum()) or WIDE_RUN.match(before) or WIDE_RUN.match(here):
        return True
    return here.isupper() and (before.islower() or before.isdigit() or text[at + 1:at + 2].islower())


# ---------------------------------------------------------------------------
# Sessions: searching in one
# ---------------------------------------------------------------------------

ORDINALS_SHOWN = 10_000


def search_session(session_id, reader, db):
    """All places in one session where a query's words are: their ordinals, and a page of them with text."""
    row = find_readable(db, reader, session_id, BODY_ROW)
    inside = db.execute("SELECT search_no, room, indexed_to FROM indexed WHERE session_id = ?", [session_id])
    asked = parse_query(query("q", ""))
    plan = plan_search(db, reader, asked, inside[0] if inside else {"search_no": 0, "room": 1})
    ordinals, capped = session_ordinals(db, plan)
    start = query_number("from", 0, 0, LARGEST)
    page = [ordinal for ordinal in ordinals if ordinal >= start][:query_number("limit", 50, 1, 200)]
    pattern = highlighter(asked)
    places = located(db, [[inside[0]["search_no"], ordinal] for ordinal in page])
    reading = new_reading(places, 4 * SNIPPET_SECONDS)
    return {"hits": [shown_place(reading, place, pattern, place is places[0]) for place in places],
            "ordinals": ordinals, "total": len(ordinals), "total_is_capped": capped,
            "next": next((ordinal for ordinal in ordinals if page and ordinal > page[-1]), None),
            "indexing": bool(inside) and inside[0]["indexed_to"] < row["event_count"],
            "revision": row["revision"], "query": shown_query(asked)}


def session_ordinals(db, plan):
    """(the ordinals of all hits in a session, whether there are more)."""
    ordinals = []
    try:
        for _, ordinal in places(db, plan, plan.low, plan.high, f"{OLDEST} LIMIT {ORDINALS_SHOWN + 1}",
                                 time.thread_time() + 10 * SEARCH_SECONDS):
            ordinals.append(ordinal)
    except OutOfTime:
        return ordinals, True
    return ordinals[:ORDINALS_SHOWN], len(ordinals) > ORDINALS_SHOWN


def search_condition(db, reader, text):
    """({SQL condition: value} for the sessions `x` of a list that a search narrows, whether it may have missed some).

    Signs are not in the index: a search for nothing else looks at titles, as the original does."""
    wait_turn("searches", reader)
    asked = parse_query(text)
    if not (asked.groups or asked.without or asked.filters):
        return {TITLED: text}, False
    ids, capped = matching_sessions(db, reader, asked)
    return {FOUND: json_text(ids)}, capped


TITLED = "instr(coalesce(x.title, '') || char(10) || coalesce(x.description, '') || char(10) || coalesce(x.tags, ''), ?)"
FOUND = "x.id IN (SELECT value FROM json_each(?) each)"


LIST_FOUND, LIST_SECONDS = 10_000, 0.06


def matching_sessions(db, reader, asked):
    """(ids of the sessions that a search finds, whether there may be more): the newest, as many as time permits."""
    plan, ids = plan_search(db, reader, asked), []
    if plan.match is None:
        return [], False
    sql = places_sql(plan, "DISTINCT i.session_id", f"{NEWEST} LIMIT {LIST_FOUND}")
    try:
        for row in db.until(time.thread_time() + LIST_SECONDS, sql, [plan.match, plan.low, plan.high, *plan.args]):
            ids.append(row["session_id"])
    except OutOfTime:
        return ids, True
    return ids, len(ids) == LIST_FOUND


# ---------------------------------------------------------------------------
# Teams
# ---------------------------------------------------------------------------

@app.post("/api/teams")
def create_team(user, db):
    """Make a team; its maker administrates it."""
    if not (user["is_admin"] or settings.team_creation == "anyone"):
        raise problem(403, "admin only")
    body = body_object()
    team_id = new_id()
    db.batch([
        ("INSERT INTO teams (id, name, description, is_public, created_by, created_at) VALUES (?, ?, ?, ?, ?, ?)",
         [team_id, team_name(field(body, "name", str)), field(body, "description", str, None) or None,
          field(body, "is_public", bool, False), user["id"], now()]),
        ("INSERT INTO team_members (team_id, user_id, role, joined_at) VALUES (?, ?, 'admin', ?)",
         [team_id, user["id"], now()]),
        audited(user["id"], "team.create", team_id, team_id),
    ])
    response.status = 201
    return team_of(db, user, team_id)


def team_name(name):
    return printable(name, "name", 128, "name must be 1-128 characters")


@app.get("/api/teams")
def list_teams(user, db):
    """The teams that the caller belongs to."""
    rows = db.execute(f"""
        SELECT {TEAM_COLUMNS} FROM teams t JOIN team_members m ON m.team_id = t.id AND m.user_id = ?
         ORDER BY t.created_at DESC, t.id
    """, [user["id"]])
    return {"teams": [team(row) for row in rows]}


TEAM_COLUMNS = ("t.id, t.name, t.description, t.is_public, t.created_by, t.created_at, m.role, "
                "t.retain_days, t.quota_mb, t.stored_bytes")


def team(row):
    return {**row, "is_public": bool(row["is_public"])}


def team_of(db, user, team_id):
    """A team with the caller's role in it, or 404."""
    rows = db.execute(f"""
        SELECT {TEAM_COLUMNS} FROM teams t LEFT JOIN team_members m ON m.team_id = t.id AND m.user_id = ?
         WHERE t.id = ?
    """, [user and user["id"], team_id])
    if not rows:
        raise problem(404, "team not found")
    return team(rows[0])


@app.get("/api/teams/<team_id>")
def get_team(team_id, reader, db):
    """A team with its 50 newest sessions: for its members, and for anyone where it is public."""
    found = team_of(db, reader, team_id)
    if not (found["role"] or found["is_public"]):
        raise problem(404, "team not found")
    rows = db.execute(f"""
        SELECT {SUMMARY_COLUMNS} FROM sessions s LEFT JOIN users u ON u.id = s.user_id
         WHERE s.team_id = ? AND {READABLE} AND s.listed
         ORDER BY s.updated_at DESC, s.id DESC LIMIT 50
    """, [team_id, reader and reader["id"]])
    members = db.execute("SELECT count(*) AS n FROM team_members WHERE team_id = ?", [team_id])[0]["n"]
    return {**found, "member_count": members, "sessions": [summary(row) for row in rows]}


@app.put("/api/teams/<team_id>")
def update_team(team_id, user, db):
    """Change a team's facts and limits; null leaves a value, "" clears the description, 0 takes a limit away."""
    require_team_admin(db, user, team_id)
    body = body_object()
    name, is_public = field(body, "name", str, None), field(body, "is_public", bool, None)
    description = field(body, "description", str, None)
    retain_days, quota_mb = limit(body, "retain_days"), limit(body, "quota_mb")
    if quota_mb is not None and not user["is_admin"]:
        raise problem(403, "only the server's admins set quotas", field="quota_mb")
    db.batch([
        ("""UPDATE teams SET name = coalesce(?, name), is_public = coalesce(?, is_public),
                   description = nullif(coalesce(?, description), ''),
                   retain_days = nullif(coalesce(?, retain_days), 0), quota_mb = nullif(coalesce(?, quota_mb), 0) WHERE id = ?""",
         [None if name is None else team_name(name), is_public, description, retain_days, quota_mb, team_id]),
        audited(user["id"], "team.update", team_id, team_id),
    ])
    return team_of(db, user, team_id)


def limit(body, name):
    """A field of a body that limits something: a whole number, 0 for no limit; None where it is absent.  Raises 422."""
    value = field(body, name, int, None)
    if value is not None and not 0 <= value <= LIMITS[name]:
        raise problem(422, f"{name} must be a whole number from 0 (no limit) to {LIMITS[name]}", field=name)
    return value


LIMITS = {"retain_days": 36_500, "quota_mb": 1 << 30}


def require_team_admin(db, user, team_id):
    """Refuse who does not administrate a team: 403 to others whether it exists or not, 404 to server admins."""
    if not (user["is_admin"] or db.execute(f"SELECT 1 WHERE {ADMINISTRATES.format(team='?')}", [team_id, user["id"]])):
        raise problem(403, "admin only")
    if not db.execute("SELECT 1 FROM teams WHERE id = ?", [team_id]):
        raise problem(404, "team not found")


@app.delete("/api/teams/<team_id>")
def remove_team(team_id, user, db):
    """Delete a team and all its sessions, for good."""
    delete_team(db, team_id, user["id"])
    response.status = 204


def delete_team(db, team_id, by):
    """Delete a team with its sessions, for good: later uploads of them are refused.  Raises 403 and 404.

    `by` is the id of the user who does it, None for the operator."""
    if by is None:
        may, args = "1", []
    else:
        may, args = f"EXISTS (SELECT 1 FROM users WHERE id = ? AND is_admin) OR {ADMINISTRATES.format(team='?')}", [by, team_id, by]
    try:
        results = db.batch([
            must(may, *args),
            must("EXISTS (SELECT 1 FROM teams WHERE id = ?)", team_id),
            *mass_burial("team_id = ?", team_id),
            ("DELETE FROM teams WHERE id = ?", [team_id]),
            *TEAM_TRACES,
            audited(by, "team.delete", team_id, team_id),
        ])
    except Conflict:
        raise problem(404, "team not found") if db.execute(f"SELECT 1 WHERE {may}", args) else problem(403, "admin only") from None
    release_bodies(db, results)


# Nobody belongs to a team, and nothing is in it.
DESERTED = """NOT EXISTS (SELECT 1 FROM team_members WHERE team_id = teams.id)
              AND NOT EXISTS (SELECT 1 FROM sessions WHERE team_id = teams.id)"""

# What is left of teams that are gone: nobody can pull from them, so nobody needs to hear of removals.
TEAM_TRACES = [("DELETE FROM removals WHERE team_id NOT IN (SELECT id FROM teams)", []),
               ("DELETE FROM facets WHERE team_id NOT IN (SELECT id FROM teams)", [])]


MEMBER_COLUMNS = "m.user_id, u.nickname, m.role, m.joined_at"


@app.get("/api/teams/<team_id>/members")
def list_members(team_id, user, db):
    """Who belongs to a team: for its members and server admins."""
    if not (team_of(db, user, team_id)["role"] or user["is_admin"]):
        raise problem(404, "team not found")
    rows = db.execute(f"""
        SELECT {MEMBER_COLUMNS} FROM team_members m JOIN users u ON u.id = m.user_id
         WHERE m.team_id = ? ORDER BY m.joined_at, u.nickname
    """, [team_id])
    return {"members": [dict(row) for row in rows]}


@app.post("/api/teams/<team_id>/members")
def add_member(team_id, user, db):
    """Add a user to a team by nickname."""
    require_team_admin(db, user, team_id)
    body = body_object()
    role = choice(body, "role", ROLES, "member")
    found = db.execute("SELECT id FROM users WHERE nickname = ?", [field(body, "nickname", str)])
    if not found:
        raise problem(404, "user not found", field="nickname")
    with conflict_is(409, "already a member"):
        db.batch([("INSERT INTO team_members (team_id, user_id, role, joined_at) VALUES (?, ?, ?, ?)",
                   [team_id, found[0]["id"], role, now()]),
                  audited(user["id"], "member.add", found[0]["id"], team_id)])
    response.status = 201
    return member(db, team_id, found[0]["id"])


def member(db, team_id, user_id):
    """One member of a team, or 404."""
    rows = db.execute(f"""
        SELECT {MEMBER_COLUMNS} FROM team_members m JOIN users u ON u.id = m.user_id
         WHERE m.team_id = ? AND m.user_id = ?
    """, [team_id, user_id])
    if not rows:
        raise problem(404, "member not found")
    return dict(rows[0])


@app.put("/api/teams/<team_id>/members/<user_id>")
def change_member(team_id, user_id, user, db):
    """Give a member another role."""
    require_team_admin(db, user, team_id)
    role = choice(body_object(), "role", ROLES, ...)
    member(db, team_id, user_id)
    with conflict_is(409, "a team needs an admin; make somebody else one first"):
        db.batch([*([] if role == "admin" else [keeps_an_admin(user, team_id, user_id)]),
                  ("UPDATE team_members SET role = ? WHERE team_id = ? AND user_id = ?", [role, team_id, user_id]),
                  audited(user["id"], "member.role", user_id, team_id)])
    return member(db, team_id, user_id)


@app.delete("/api/teams/<team_id>/members/<user_id>")
def remove_member(team_id, user_id, user, db):
    """Take a member out of a team, or leave it; it takes effect at once."""
    if user_id != user["id"]:
        require_team_admin(db, user, team_id)
    member(db, team_id, user_id)
    with conflict_is(409, "a team needs an admin; make somebody else one first, or delete the team"):
        db.batch([keeps_an_admin(user, team_id, user_id),
                  ("DELETE FROM team_members WHERE team_id = ? AND user_id = ?", [team_id, user_id]),
                  audited(user["id"], "member.leave" if user_id == user["id"] else "member.remove", user_id, team_id)])
    response.status = 204


def keeps_an_admin(user, team_id, user_id):
    """The condition that a team has an admin without this one.  Server admins look after all teams and need not mind."""
    return must("""? OR EXISTS (SELECT 1 FROM team_members WHERE team_id = ? AND user_id <> ? AND role = 'admin')
                   OR EXISTS (SELECT 1 FROM team_members WHERE team_id = ? AND user_id = ? AND role <> 'admin')""",
                user["is_admin"], team_id, user_id, team_id, user_id)


# ---------------------------------------------------------------------------
# Sync
# ---------------------------------------------------------------------------

@app.get("/api/sync/pull")
def pull(user, db):
    """What changed in a team since a cursor: sessions in the order of their changes, and ids that are gone."""
    team_id = query("team_id")
    if not team_id:
        raise problem(400, "team_id is missing", field="team_id")
    since = sync_cursor(query("since"))
    limit = query_number("limit", 100, 1, 500)
    if not db.execute("SELECT 1 FROM team_members WHERE team_id = ? AND user_id = ?", [team_id, user["id"]]):
        raise problem(403, "not a member of this team")
    until = db.execute("SELECT value FROM counters WHERE name = 'sync'")[0]["value"]     # what comes later is for later
    rows = db.execute(f"""
        SELECT {SUMMARY_COLUMNS}, s.sync_no
          FROM sessions s LEFT JOIN users u ON u.id = s.user_id
         WHERE s.team_id = ? AND s.sync_no > ? AND s.sync_no <= ?
           AND s.team_id IN (SELECT team_id FROM team_members WHERE user_id = ?)
         ORDER BY s.sync_no LIMIT ?
    """, [team_id, since, until, user["id"], limit + 1])
    has_more = len(rows) > limit
    until = rows[limit - 1]["sync_no"] if has_more else until
    gone = db.execute("""
        SELECT sync_no, session_id FROM removals WHERE team_id = ? AND sync_no > ? AND sync_no <= ? ORDER BY sync_no
    """, [team_id, since, until])
    newest = max((row["sync_no"] for row in [*rows[:limit], *gone]), default=None)
    return {"sessions": [summary(row) for row in rows[:limit]], "has_more": has_more,
            "next_cursor": query("since") if newest is None else str(newest),
            "deleted": [row["session_id"] for row in gone]}


def sync_cursor(text):
    """The counter in a cursor of ours; 0 for a client that starts."""
    if not text:
        return 0
    if not re.fullmatch("[0-9]{1,15}", text):
        raise problem(400, "since is no cursor of ours", field="since")
    return int(text)


@app.get("/api/config/sync", scope="upload")
def get_daemon_settings(user, db):
    """What the server's admins set for every daemon."""
    rows = db.execute("SELECT value FROM meta WHERE key = 'daemon_settings'")
    return cached_answer(json.loads(rows[0]["value"]) if rows else {"privacy": {}, "watchers": {}})


@app.put("/api/config/sync")
def put_daemon_settings(user, db):
    """Set what every daemon adds to its own settings (server admins)."""
    require_server_admin(user)
    body = body_object()
    privacy, watchers = field(body, "privacy", dict, {}), field(body, "watchers", dict, {})
    value = {"privacy": {name: text_list(privacy, name) for name in ("exclude_patterns", "exclude_tools", "exclude_projects")
                         if name in privacy} | ({"review": field(privacy, "review", bool)} if "review" in privacy else {})
             | ({"rules": rules_for_all(privacy)} if "rules" in privacy else {}),
             "watchers": {name: field(watchers, name, bool) for name in watchers}}
    db.batch([("INSERT INTO meta (key, value) VALUES ('daemon_settings', ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
               [json_text(value)]),
              audited(user["id"], "daemon_settings.update")])
    return value


MOST_RULES = 50


def rules_for_all(body):
    """The rules for secrets that every daemon adds to its own: [{name, pattern, contains?}].  Raises 422; 501 where
    there is no daemon.py, which knows what a rule may be and tries whether it is fast."""
    rules = field(body, "rules", list)
    if not beside_us():
        raise problem(501, "this server has no daemon.py beside it, which would check the rules")
    if len(rules) > MOST_RULES:
        raise problem(422, f"rules may be {MOST_RULES} at most", field="rules")
    if wrong := next(filter(None, map(beside_us().rule_problem, rules)), None):
        raise problem(422, f"rules {wrong}", field="rules")
    return rules


def text_list(body, name):
    """A field that is a list of texts.  Raises 422."""
    values = field(body, name, list)
    if not all(isinstance(value, str) for value in values):
        raise problem(422, f"{name} must be a list of texts", field=name)
    return values


# ---------------------------------------------------------------------------
# Health and numbers
# ---------------------------------------------------------------------------

@app.get("/api/health")
def health(db):
    """Whether the server works, and how one gets an account.  Anyone may ask, so it says what is wrong, not where or how much."""
    try:
        first_user = not db.execute("SELECT 1 FROM users LIMIT 1")
        problems = [name for name, is_so in PROBLEMS.items() if is_so(db)]
    except sqlite3.Error:
        log.exception("the database cannot be read")
        error = problem(503, "the database cannot be read", problems=["database"])
        error.extra["status"] = "down"
        raise error from None
    return {"status": "degraded" if problems else "ok", "problems": problems, "version": VERSION,
            "registration": registration_mode(), "first_user": first_user,
            "setup_required": first_user and needs_setup_token(), "checks_secrets": find_spec("daemon") is not None and not db.reading_only}


MUCH_TO_INDEX = 1000        # sessions

# What may be wrong with a server that answers: its name, and whether it is so.
PROBLEMS = {
    "disk_low": lambda db: free_space() < settings.reserve,
    "read_only": lambda db: db.reading_only or is_read_only(settings.data_dir),
    "bodies_missing": lambda db: not (settings.data_dir / "bodies").is_dir(),
    "index_behind": lambda db: sessions_to_index(db, MUCH_TO_INDEX) >= MUCH_TO_INDEX,
}


def free_space():
    """Bytes that the data directory's disk still takes."""
    return shutil.disk_usage(settings.data_dir).free


def is_read_only(path):
    """Whether a directory lies on a disk that takes no writes; where the system cannot say, it does."""
    return hasattr(os, "statvfs") and bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def require_room():
    """Refuse an upload before it is read where the disk is nearly full: the rest is for the database and its owner."""
    if free_space() < settings.reserve:
        raise problem(507, "the server's disk is nearly full")


def sessions_to_index(db, most):
    """How many sessions the search index has not caught up with, counted this far."""
    return db.execute("SELECT count(*) AS n FROM (SELECT 1 FROM indexed WHERE pending > 0 LIMIT ?)", [most])[0]["n"]


# Counted since the start: requests by (method, route, hundreds of the status), their seconds by (route, upper bound).
numbers = SimpleNamespace(lock=threading.Lock(), requests=Counter(), seconds=Counter(), buckets=Counter(), uploads=Counter(),
                          answered=0)       # how often somebody looked at something
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, math.inf)


def count_request(environ, status, seconds):
    """Count an answer, under the template of its route: no ids, no names."""
    route = environ["bottle.route"].rule if "bottle.route" in environ else "none"
    method = environ["REQUEST_METHOD"] if environ["REQUEST_METHOD"] in KNOWN_METHODS else "other"
    with numbers.lock:
        numbers.requests[method, route, f"{status[0]}xx"] += 1
        numbers.seconds[route] += seconds
        numbers.answered += method == "GET"
        numbers.buckets[route, next(bound for bound in SECONDS if seconds <= bound)] += 1


KNOWN_METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "DELETE")


@app.get("/metrics")
def metrics(db):
    """The server's numbers as Prometheus reads them: for this machine, and for who has the token.  Else there is nothing here."""
    token = settings.metrics_token and f"Bearer {settings.metrics_token}"
    has_token = bool(token) and secrets.compare_digest(secret_hash(sent("Authorization")), secret_hash(token))
    if settings.metrics != "on" or not (has_token or is_direct() and not token):
        raise problem(404, SENTENCES[404])
    response.content_type = "text/plain; version=0.0.4; charset=UTF-8"
    return "".join([*counted_lines(), *measured_lines(db)])


def counted_lines():
    """Yield what was counted since the start, as lines for Prometheus."""
    with numbers.lock:
        requests, seconds, uploads = Counter(numbers.requests), Counter(numbers.seconds), Counter(numbers.uploads)
        held = Counter(numbers.buckets)
    yield "# TYPE opensession_requests_total counter\n"
    for (method, route, status), count in sorted(requests.items()):
        yield f'opensession_requests_total{{method="{method}",route="{route}",status="{status}"}} {count}\n'
    yield "# TYPE opensession_request_seconds histogram\n"
    for route, total in sorted(seconds.items()):
        sums = list(itertools.accumulate(held[route, bound] for bound in SECONDS))
        for bound, count in zip(SECONDS, sums):
            yield f'opensession_request_seconds_bucket{{route="{route}",le="{"+Inf" if bound == math.inf else bound}"}} {count}\n'
        yield f'opensession_request_seconds_sum{{route="{route}"}} {total:.6f}\n'
        yield f'opensession_request_seconds_count{{route="{route}"}} {sums[-1]}\n'
    yield "# TYPE opensession_uploads_total counter\n"
    for status, count in sorted(uploads.items()):
        yield f'opensession_uploads_total{{status="{status}"}} {count}\n'


def measured_lines(db):
    """Yield how much there is now, as lines for Prometheus."""
    database = sum(path.stat().st_size for path in settings.data_dir.glob("opensession.db*"))
    stored = db.execute("SELECT coalesce(sum(stored_sessions), 0) AS sessions, coalesce(sum(stored_bytes), 0) AS bytes FROM teams")[0]
    for name, value in {
            "sessions": stored["sessions"],
            "users": db.execute("SELECT count(*) AS n FROM users")[0]["n"],
            "body_bytes": stored["bytes"],
            "database_bytes": database, "free_bytes": free_space(), "sessions_to_index": sessions_to_index(db, LARGEST)}.items():
        yield f"# TYPE opensession_{name} gauge\nopensession_{name} {value}\n"


# ---------------------------------------------------------------------------
# Web
# ---------------------------------------------------------------------------

@app.get("/api")
def list_routes():
    """What this server answers to, for machines."""
    return {"name": "opensession", "version": VERSION, "routes": [
        {"method": route.method, "path": re.sub(r"<(\w+)(:\w+)?>", r"{\1}", route.rule), "who": who_may(route),
         "about": (route.callback.__doc__ or "").partition("\n")[0]}
        for route in app.routes if route.rule.startswith("/api")]}


def who_may(route):
    """Who may call a route, by its handler's signature and its scope."""
    wanted = route.get_callback_args()
    if "user" in wanted:
        return KEYS_THAT_FIT.get(route.config.get("scope"), "signed in")
    return "members; anyone for public teams" if "reader" in wanted else "anyone"


KEYS_THAT_FIT = {"any": "signed in, any key", "upload": "signed in, upload keys too"}


@app.get("/v/<version>/<path:path>")
def web_version(version, path):
    """A file of the page under the address of its version: kept by browsers for good, as another version has another address."""
    if version not in VERSIONS:
        page_version(page_files())
    file = None if OUTSIDE.search(path) else version_file(version, path)
    if file is None:
        raise problem(404, "the page has a newer version: load it again")
    return send_page(file, "max-age=31536000, immutable")


@app.get("/")
@app.get("/<path:path>")
def web(path=""):
    """The page: a file of it, else its shell, which finds out from the address what to show."""
    if re.match("api(/|$)", path) or OUTSIDE.search(path):
        raise problem(404, "there is nothing here")
    file = None if path == "index.html" else page_file(path)
    if file:
        return send_page(read_page_file(*file), "no-cache")
    try:
        return send_page(page_shell(page_files(), ahead_of(path)), "no-cache")
    except OSError:
        raise problem(404, "there is nothing here") from None


def send_page(file, kept):
    """Answer with what page_answer made, zipped for those who take it.  `kept` is how long browsers keep it."""
    zipped = file.zipped and GZIP_ACCEPTED.search(sent("Accept-Encoding"))
    if kept == "no-cache":
        cached(f"{file.tag}.gz" if zipped else file.tag)
    response.content_type = file.kind
    response.set_header("Vary", "Accept-Encoding")
    response.set_header("Cache-Control", kept)
    if zipped:
        response.set_header("Content-Encoding", "gzip")
    return file.zipped if zipped else file.plain


# Paths that would lead out of the page's directory (or to a drive): whether something is there is nobody's business.
OUTSIDE = re.compile(r"^[/\\]|(^|[/\\])\.\.([/\\]|$)|[\0:]")
GZIP_ACCEPTED = re.compile(r"\bgzip\b(?!\s*;\s*q=0(\.0*)?\s*(,|$))")
PAGE_TYPES = {".html": "text/html; charset=UTF-8", ".js": "text/javascript", ".css": "text/css; charset=UTF-8",
              ".json": "application/json", ".svg": "image/svg+xml", ".png": "image/png", ".ico": "image/x-icon",
              ".woff2": "font/woff2", ".md": "text/plain; charset=UTF-8", ".LICENSE": "text/plain; charset=UTF-8"}


@functools.lru_cache(maxsize=512)
def read_page_file(path, changed, size):
    """A file of the page as an answer; read and zipped once.  Raises OSError."""
    return page_answer(Path(path).read_bytes(), PAGE_TYPES.get(Path(path).suffix, "application/octet-stream"))


def page_answer(plain, kind):
    """Tag, media type, bytes and, where it pays, zipped bytes."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, 31)
    zipped = deflate.compress(plain) + deflate.flush()
    return SimpleNamespace(tag=sha256(plain).hexdigest()[:32], kind=kind,
                           plain=plain, zipped=zipped if len(zipped) < 0.9 * len(plain) else None)


def page_file(path):
    """(path, time of change, size) of a file of the page, as it is now; None where there is none."""
    path = os.path.join(settings.web_dir, path)
    return (path, os.stat(path).st_mtime_ns, os.stat(path).st_size) if os.path.isfile(path) else None


def page_files():
    """Every file of the page."""
    paths = [os.path.join(folder, name) for folder, _, names in os.walk(settings.web_dir) for name in names]
    return tuple(sorted(filter(None, map(page_file, paths))))


VERSIONS = {}               # name of a version of the page -> {name: answer} of its bundles, and its files; as long as this server runs


@functools.lru_cache(maxsize=4)
def page_version(files):
    """The name of what all files of the page hold together."""
    tags = [f"{os.path.relpath(path, settings.web_dir)} {read_page_file(path, *facts).tag}" for path, *facts in files]
    version = sha256("\n".join(tags).encode()).hexdigest()[:12]
    VERSIONS[version] = {name: page_answer(text.encode(), PAGE_TYPES[".js"]) for name, text in bundled(files).items()}, frozenset(files)
    return version


def version_file(version, path):
    """A bundle or a file of a version of the page; None where it has none, or where the file is another by now."""
    bundles, files = VERSIONS.get(version, ({}, ()))
    file = page_file(path)
    return bundles.get(path) or (read_page_file(*file) if file in files else None)


# The modules of the first views come in a few bundles: sixty requests take longer than all that is in them.  Bundle -> the
# modules that it begins with; it holds them and all that they import, but for what vendor/ and a bundle above it hold.
BUNDLES = {"list.bundle.js": ["app.js", "sessions.js"], "session.bundle.js": ["session.js"], "markdown.bundle.js": ["markdown.js"]}
IMPORT = re.compile(r'^import (?:({.*}) from )?"\./([\w./-]+)";$', re.M)
EXPORT = re.compile(r"^export (?=(?:async )?(?:function|const|class) (\w+))", re.M)
LATER = re.compile(r'\bimport\("\./([\w-]+\.js)"\)')


def bundled(files):
    """{name: text} of the bundles, and of the modules in them, which for others only say in which one they are.  Raises OSError."""
    modules, homes = page_modules(files), homes_of(files)
    bundles = {bundle: bundle_of(bundle, homes, modules) for bundle in dict.fromkeys(homes.values())}
    return bundles | {name: f'import {{ {variable(name)} }} from "./{bundle}";\n'
                            f'export const {{ {", ".join(EXPORT.findall(modules[name]))} }} = {variable(name)};\n' for name, bundle in homes.items()}


@functools.lru_cache(maxsize=4)
def page_modules(files):
    """{name: text} of the modules of the page.  Raises OSError."""
    return {os.path.relpath(path, settings.web_dir): Path(path).read_text() for path, *_ in files if path.endswith(".js")}


def homes_of(files):
    """{module: its bundle}, each behind what it imports."""
    homes = {}
    for bundle, names in BUNDLES.items():
        for name in modules_of(names, page_modules(files)):
            homes.setdefault(name, bundle)
    return {name: bundle for name, bundle in homes.items() if "/" not in name}


def modules_of(names, modules, found=()):
    """Modules of these {name: text} with all that they import, and so on: each once, behind what it imports."""
    for name in names:
        if name in modules and name not in found:
            found = [*modules_of([other for _, other in IMPORT.findall(modules[name])], modules, found), name]
    return found


def bundle_of(bundle, homes, modules):
    """The text of a bundle: each of its modules as a function that is run at once and gives what the module exports."""
    held = [name for name, home in homes.items() if home == bundle]
    outside = dict.fromkeys(outer_import(found, homes) for name in held for found in IMPORT.finditer(modules[name]) if homes.get(found[2]) != bundle)
    return "\n".join([*outside, *(module_in_bundle(modules[name], name, homes) for name in held),
                      f"export {{ {', '.join(map(variable, held))} }};"])


def outer_import(found, homes):
    return f'import {{ {variable(found[2])} }} from "./{homes[found[2]]}";' if found[2] in homes else found[0]


def module_in_bundle(text, name, homes):
    inner = IMPORT.sub(lambda found: inner_import(found, homes), text)
    inner = LATER.sub(lambda found: later_import(found, homes), inner)
    return (f"const {variable(name)} = await (async () => {{\n{EXPORT.sub('', inner)}\n"
            f"return {{ {', '.join(EXPORT.findall(text))} }};\n}})();\n")


def inner_import(found, homes):
    """import { a, b as c } from "./x.js" -> const { a, b: c } = x_js"""
    return f"const {found[1].replace(' as ', ': ')} = {variable(found[2])};" if found[1] and found[2] in homes else ""


def later_import(found, homes):
    return f'import("./{homes[found[1]]}").then(bundle => bundle.{variable(found[1])})' if found[1] in homes else found[0]


def variable(name):
    return re.sub(r"\W", "_", name)


# What the first view of an address needs beside app.js, so that it is asked for at once and not import by import:
# modules and style sheets, and what they will ask the API for (as HTML), with the part of the address that is in brackets.
ALWAYS_AHEAD = ["/api/auth/me"]
AHEAD = [("", ["sessions.js"], []),
         (r"session/([\w-]+)", ["session.js", "markdown.js", "reading.css"],
          ["/api/sessions/{}", "/api/sessions/{}/map", "/api/sessions/{}/outline?limit=50", "/api/sessions/{}/events?from=0&amp;limit=30"])]


def ahead_of(path):
    """([files], [requests]) that the page at an address begins with."""
    for pattern, files, requests in AHEAD:
        if found := re.fullmatch(pattern, path):
            return tuple(files), tuple([*ALWAYS_AHEAD, *(each.format(*found.groups()) for each in requests)])
    return (), tuple(ALWAYS_AHEAD)


@functools.lru_cache(maxsize=64)
def page_shell(files, ahead):
    """index.html with its files under the address of their version, and links to what the view needs.  Raises OSError."""
    names, requests = ahead
    version = f"/v/{page_version(files)}/"
    links = [f'<link rel="stylesheet" href="{version}{name}">' for name in names if name.endswith(".css")]
    links += [f'<link rel="modulepreload" href="{version}{name}">' for name in modules_ahead(files, names)]
    links += [f'<link rel="preload" as="fetch" crossorigin href="{each}">' for each in requests]
    start = homes_of(files).get("app.js", "app.js")
    shell = (settings.web_dir / "index.html").read_text().replace("/app.js", f"/{start}").replace('="/', f'="{version}')
    return page_answer(shell.replace("</head>", "\n".join([*links, "</head>"])).encode(), PAGE_TYPES[".html"])


@functools.lru_cache(maxsize=64)
def modules_ahead(files, names):
    """The bundles and modules that app.js and these names take."""
    homes, served = homes_of(files), page_modules(files) | bundled(files)
    return modules_of([homes.get(name, name) for name in ("app.js", *names)], served)


# ---------------------------------------------------------------------------
# Operations: beside the server
#
# One function a command; COMMANDS, below, lists them with their arguments.  Each prints what
# it did and returns None, or False where something is wrong (exit code 1).  Those that only
# look or change rows work while a server runs; those that change files as a whole hold `lock`.
# ---------------------------------------------------------------------------

DATABASE = "opensession.db"
SCHEMA_VERSION = len(MIGRATIONS) + 1
LITTER_SECONDS = 3600       # what is younger may be somebody's work


class Refused(Exception):
    """A command that will not do what it was asked; the text says why."""


def existing_schema():
    """(path, schema version) of the database of this data directory.  Raises Unusable where there is none, or a newer one."""
    path = settings.data_dir / DATABASE
    version = schema_version(path)
    if version is None:
        raise Unusable(f"there is no database in {settings.data_dir}")
    if version > SCHEMA_VERSION:
        raise Unusable(f"{path} was written by a newer opensession (schema {version}, this one knows {SCHEMA_VERSION})")
    return path, version


def open_existing(reading_only=False):
    """Open the database, whether a server runs or not.  Raises Unusable where it is not of our schema."""
    global db
    path, version = existing_schema()
    if version < SCHEMA_VERSION:
        raise Unusable(f"{path} has the schema {version} and this opensession needs {SCHEMA_VERSION}: run `opensession.py migrate` first")
    db = Database(path, reading_only)
    return db


def open_or_make():
    """Open the database as a server would, or beside the one that runs; the lock that is held, or None."""
    try:
        return open_data_dir()
    except InUse:
        open_existing()
        return None


def amount(number, one, many=None):
    """A number with its noun: 1 session, 2,000 sessions."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def megabytes(size):
    return f"{size / 1e6:,.1f} MB"


# ---------------------------------------------------------------------------
# Operations: backup and restore
#
# A backup is a folder: the database, the bodies that its rows name, and a manifest.  The
# database comes first.  Committed bytes of a body never change, so the file itself will do,
# under a second name (a hard link) where the file system allows it: what counts is its
# beginning, to the length in the manifest.
# ---------------------------------------------------------------------------

BACKUP_NAME = re.compile(r"backup-[0-9T.-]{23}Z")
BACKED_UP = re.compile(r"opensession\.db|bodies/[^/\\]{2}/[^/\\]+")      # the files that a manifest may name
MANIFEST = "manifest.json"


def make_backup(dest, keep):
    """Make a backup below DEST; an interrupted one never gets a backup's name."""
    path, version = existing_schema()
    dest = Path(dest).absolute()
    dest.mkdir(mode=0o700, parents=True, exist_ok=True)
    name = f"backup-{now().replace(':', '-')}"
    with contextlib.closing(hold_lock(dest / "lock", f"another backup is being made in {dest}")):
        remove_partial(dest)
        part = dest / f"partial-{name}"
        for folder in (part, part / "bodies"):
            folder.mkdir(mode=0o700)
        sizes, missing = copy_data(path, part)
        write_manifest(part, version, sizes)
        os.rename(part, dest / name)
        sync_folder(dest)
        removed = remove_oldest(dest, keep)
    print(f"{dest / name}: {amount(len(sizes) - 1, 'body', 'bodies')}, {megabytes(sum(sizes.values()))}"
          + (f"; removed {amount(removed, 'older backup')}" if removed else ""))
    for body in missing:
        print(f"missing, here and in the backup: bodies/{body[:2]}/{body}")
    return not missing


def copy_data(path, part):
    """Copy the database and its bodies: ({file: committed bytes}, the bodies that are missing).

    A body that was replaced while we copied is gone, and the row that named it as well: then we copy the rows again."""
    taken = {}
    for _ in range(20):
        copy_database(path, part / DATABASE)
        wanted, needed = named_bodies(part / DATABASE)
        for body, size in wanted.items():
            if taken.get(body, -1) < size:
                taken.pop(body, None)       # what we took of it before is too short now
                if take_body(body, size, part):
                    taken[body] = size
        missing = [body for body in needed if body not in taken]
        if not missing or not any(still_named(path, body) is False for body in missing):
            break
    for body in taken.keys() - wanted.keys():
        (part / body_file(body)).unlink()
    sizes = {body_file(body): size for body, size in wanted.items() if body in taken}
    return {DATABASE: (part / DATABASE).stat().st_size, **sizes}, missing


def copy_database(path, target):
    """Copy a database as it is at one moment, while others write, into one file."""
    with contextlib.closing(sqlite3.connect(path)) as source, contextlib.closing(sqlite3.connect(target)) as copy:
        source.backup(copy)
        copy.execute("PRAGMA journal_mode = DELETE")
    os.chmod(target, 0o600)
    sync_file(target)


def named_bodies(path):
    """({body: committed bytes} that a database names, those among them that sessions need)."""
    with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
        needed = dict(database.execute("SELECT body, file_bytes FROM sessions"))
        # The search index goes on without these, but less cheaply.
        queued = dict(database.execute("SELECT body, max(file_bytes) FROM unindexed GROUP BY body"))
    return {**queued, **needed}, needed


def still_named(path, body):
    """Whether a session has this body now."""
    with contextlib.closing(sqlite3.connect(path, timeout=5)) as database:
        return bool(database.execute("SELECT 1 FROM sessions WHERE body = ?", [body]).fetchone())


def body_file(body):
    """Where a body lies below a data directory or a backup."""
    return f"bodies/{body[:2]}/{body}"


def take_body(body, size, part):
    """Bring a body into a backup; whether it is there and long enough."""
    source, target = settings.data_dir / body_file(body), part / body_file(body)
    target.parent.mkdir(mode=0o700, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        if source.stat().st_size < size:
            return False
        try:
            os.link(source, target)
        except OSError:         # another disk, or a file system without links
            copy_beginning(source, target, size)
    except FileNotFoundError:
        return False
    return True


def copy_beginning(source, target, size):
    """Copy the first bytes of a file, to last, into a new one: never into one that may be a link.  Raises OSError."""
    with open(source, "rb") as old, open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as new:
        copy_bytes(old, new, size)
        new.flush()
        os.fsync(new.fileno())


def sync_file(path):
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def digest(path, size):
    """The SHA-256 of the first bytes of a file, None where there are not so many."""
    hashed, left = sha256(), size
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
        while left and (piece := file.read(min(left, 1 << 20))):
            hashed.update(piece)
            left -= len(piece)
    return None if left else hashed.hexdigest()


def write_manifest(part, schema, sizes):
    """Write down what a backup holds, and make it last."""
    files = {name: {"bytes": size, "sha256": digest(part / name, size)} for name, size in sizes.items()}
    manifest = {"opensession": VERSION, "schema": schema, "made_at": now(), "files": files}
    with open(os.open(part / MANIFEST, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        json.dump(manifest, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    for folder in {(part / name).parent for name in sizes} | {part}:
        sync_folder(folder)


def remove_partial(dest):
    """Remove what interrupted backups and removals left."""
    for path in dest.glob("partial-*"):
        shutil.rmtree(path)


def remove_oldest(dest, keep):
    """Remove all backups but the newest ones; how many.  Each first loses its name, so that a half of one is none."""
    backups = sorted(path for path in dest.iterdir() if BACKUP_NAME.fullmatch(path.name))
    doomed = backups[:-keep] if keep else []
    for path in doomed:
        os.rename(path, dest / f"partial-{path.name}")
    remove_partial(dest)
    return len(doomed)


def restore_backup(source, force):
    """Put a backup in the place of this data directory.  Its files are checked before and after they are copied."""
    source = newest_backup(Path(source).absolute())
    manifest = read_manifest(source)
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.closing(lock_data_dir()):
        if has_data() and not force:
            raise Refused(f"{settings.data_dir} is not empty; --force puts its data aside and the backup in their place")
        refuse_damaged(source, manifest)
        part = settings.data_dir / "restore.part"
        shutil.rmtree(part, ignore_errors=True)
        copy_files(source, part, manifest)
        refuse_damaged(part, manifest)
        aside = change_places(part)
    print(f"{source.name} is restored: {amount(len(manifest['files']) - 1, 'body', 'bodies')}, as of {manifest['made_at']}"
          + (f"; what was there is in {aside}" if aside else ""))


def newest_backup(source):
    """A backup, or the newest one in a folder of backups.  Raises Refused."""
    if (source / MANIFEST).exists():
        return source
    backups = sorted(path.parent for path in source.glob(f"backup-*/{MANIFEST}") if BACKUP_NAME.fullmatch(path.parent.name))
    if not backups:
        raise Refused(f"there is no backup in {source}")
    return backups[-1]


def read_manifest(source):
    """The manifest of a backup.  Raises Refused and Unusable."""
    try:
        manifest = json.loads((source / MANIFEST).read_text("utf-8"))
        sound = all(BACKED_UP.fullmatch(name) and facts["bytes"] >= 0 for name, facts in manifest["files"].items())
        if not sound or DATABASE not in manifest["files"]:
            raise ValueError
        if manifest["schema"] > SCHEMA_VERSION:
            raise Unusable(f"{source} was made by a newer opensession (schema {manifest['schema']}, this one knows {SCHEMA_VERSION})")
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Refused(f"the manifest of {source} is damaged") from None
    return manifest


def refuse_damaged(folder, manifest):
    """Raise Refused where files are not what a manifest says."""
    damaged = [name for name, facts in manifest["files"].items()
               if facts["sha256"] is None or digest(folder / name, facts["bytes"]) != facts["sha256"]]
    if damaged:
        raise Refused(f"{amount(len(damaged), 'file')} of {folder} missing or damaged: {', '.join(damaged[:5])}{' …' * (len(damaged) > 5)}")


def has_data():
    """Whether there is something in the data directory that a restore would put aside."""
    folder = settings.data_dir
    return any((folder / name).exists() for name in (DATABASE, RESTORING)) or any((folder / "bodies").glob("*/*"))


def copy_files(source, part, manifest):
    """Copy what a manifest names.  Never a link: the server will write behind the end of a body."""
    for folder in (part, part / "bodies"):
        folder.mkdir(mode=0o700)
    for name, facts in manifest["files"].items():
        (part / name).parent.mkdir(mode=0o700, exist_ok=True)
        copy_beginning(source / name, part / name, facts["bytes"])
    for folder in {(part / name).parent for name in manifest["files"]}:
        sync_folder(folder)


RESTORING = "restoring"     # while this is there, a restore was interrupted and no server starts


def change_places(part):
    """Put the old data aside and the new in their place; where the old are now, or None."""
    folder = settings.data_dir
    shutil.rmtree(folder / RESTORING, ignore_errors=True)
    os.rename(part, folder / RESTORING)
    aside = folder / f"before-restore-{now().replace(':', '-')}"
    for name in (DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", "bodies"):
        if (folder / name).exists():
            aside.mkdir(mode=0o700, exist_ok=True)
            os.rename(folder / name, aside / name)
    for name in ("bodies", DATABASE):
        os.rename(folder / RESTORING / name, folder / name)
    sync_folder(folder)
    os.rmdir(folder / RESTORING)
    return aside if aside.exists() else None


# ---------------------------------------------------------------------------
# Operations: check
# ---------------------------------------------------------------------------

# What is wrong with the rows: a sentence, and a query that finds where.
ROW_FINDINGS = {
    "session {0}: its row and its blocks differ": f"""
        SELECT s.id FROM sessions s LEFT JOIN blocks b ON b.session_id = s.id GROUP BY s.id
        HAVING coalesce(sum(b.event_count), 0) <> s.event_count OR coalesce(sum(b.raw_bytes), 0) <> s.raw_bytes
            OR {len(GZIP_HEADER)} + coalesce(sum(b.file_bytes), 0) <> s.file_bytes""",
    "session {0}: the block of event {1} does not follow the one before it": f"""
        SELECT session_id, first_ordinal FROM (
               SELECT session_id, first_ordinal, raw_offset, file_offset, lag(first_ordinal + event_count, 1, 0) OVER own AS next_ordinal,
                      lag(raw_offset + raw_bytes, 1, 0) OVER own AS next_raw,
                      lag(file_offset + file_bytes, 1, {len(GZIP_HEADER)}) OVER own AS next_file
                 FROM blocks WINDOW own AS (PARTITION BY session_id ORDER BY first_ordinal))
         WHERE (first_ordinal, raw_offset, file_offset) <> (next_ordinal, next_raw, next_file)""",
    "session {0}: the search index does not know it": """
        SELECT id FROM sessions WHERE NOT EXISTS (SELECT 1 FROM indexed WHERE session_id = sessions.id)""",
    "session {0}: the search index has what is not there": """
        SELECT i.session_id FROM indexed i LEFT JOIN sessions s ON s.id = i.session_id
         WHERE i.session_id IS NOT NULL AND (s.id IS NULL OR i.team_id <> s.team_id OR i.indexed_to > s.event_count)""",
    "team {0}: the number of sessions with {1} {2} is wrong": f"""
        WITH counted AS (
            {" UNION ALL ".join(f"SELECT team_id, '{name}' AS name, {column} AS value, count(*) AS n FROM sessions"
                                f" WHERE listed AND {column} IS NOT NULL GROUP BY team_id, {column}"
                                for name, column in {"all": "''", **FILTERS}.items())}),
        kept AS (SELECT team_id, name, value, sessions AS n FROM facets WHERE sessions <> 0)
        SELECT * FROM (SELECT * FROM counted EXCEPT SELECT * FROM kept)
         UNION SELECT * FROM (SELECT * FROM kept EXCEPT SELECT * FROM counted)""",
    "team {0}: its {4} sessions take {2} bytes, not {3} sessions {1} bytes": """
        SELECT t.id, t.stored_bytes, coalesce(sum(s.file_bytes), 0) AS taken, t.stored_sessions, count(s.id) AS n
          FROM teams t LEFT JOIN sessions s ON s.team_id = t.id
         GROUP BY t.id HAVING (taken, n) <> (t.stored_bytes, t.stored_sessions)""",
    "the sync counter, {0}, is behind": """
        SELECT value FROM counters WHERE name = 'sync' AND value < (
               SELECT max(no) FROM (SELECT max(sync_no) AS no FROM sessions UNION ALL SELECT max(sync_no) FROM removals))""",
}


def check_data(read_data):
    """Look for damage, changing nothing: in the database, the search index, the counters, the bodies."""
    open_existing(reading_only=True)
    count = 0
    for finding in itertools.chain(database_findings(), row_findings(), index_findings(), body_findings(read_data), litter_findings()):
        count += 1
        print(finding, flush=True)
    facts = db.execute("""SELECT count(*) AS n, coalesce(sum(event_count), 0) AS events, coalesce(sum(file_bytes), 0) AS size
                            FROM sessions""")[0]
    print(f"{amount(facts['n'], 'session')}, {amount(facts['events'], 'event')}, {megabytes(facts['size'])}: "
          + (amount(count, "finding") if count else "all is well" + " (events were read)" * read_data))
    return not count


def found_by(query, sentence):
    """Yield a sentence for each row of a query, and one where the query cannot be answered."""
    try:
        for row in db.execute(query):
            yield sentence.format(*row)
    except sqlite3.DatabaseError as error:
        yield f"the database is damaged: {error}"


def database_findings():
    """What SQLite finds."""
    for finding in found_by("PRAGMA quick_check", "the database: {0}"):
        if finding != "the database: ok":
            yield finding
    yield from found_by("PRAGMA foreign_key_check", "a row of {0} refers to a row of {2} that is not there")


def row_findings():
    for sentence, query in ROW_FINDINGS.items():
        yield from found_by(query, sentence)


def index_findings():
    """Whether the search index is whole.  SQLite wants to write to find out: it gets a copy that is gone afterwards."""
    try:
        with contextlib.closing(sqlite3.connect("", uri=True, isolation_level=None)) as copy:
            copy.execute("ATTACH ? AS here", [read_only_uri(settings.data_dir / DATABASE)])
            copy.execute("BEGIN")       # all its tables as they are at one moment, while others write
            copy.execute(copy.execute("SELECT sql FROM here.sqlite_master WHERE name = 'search_index'").fetchone()[0])
            for table, in copy.execute("SELECT name FROM sqlite_master WHERE name GLOB 'search_index_*' AND type = 'table'").fetchall():
                copy.execute(f"DELETE FROM main.{table}")
                copy.execute(f"INSERT INTO main.{table} SELECT * FROM here.{table}")
            copy.execute("INSERT INTO search_index (search_index, rank) VALUES ('integrity-check', 0)")
    except sqlite3.DatabaseError as error:
        yield f"the search index is damaged ({error}); `opensession.py reindex` makes it anew"


def body_findings(read_data):
    """What is wrong with the bodies of sessions.  A session that changed while we looked is looked at again."""
    with contextlib.suppress(sqlite3.DatabaseError):        # that was said already
        for each in db.execute("SELECT id FROM sessions ORDER BY id"):
            rows, finding, seen = True, True, None
            while rows and finding and rows != seen:
                seen, rows = rows, db.execute(BODY_ROWS, [each["id"]])
                finding = rows and body_finding(rows, read_data)
            if finding:
                yield f"session {each['id']}: its body {finding}"


BODY_ROWS = """
    SELECT s.body, s.file_bytes AS body_bytes, s.chain AS body_chain, b.first_ordinal, b.event_count, b.raw_bytes, b.file_offset,
           b.file_bytes, b.chain
      FROM sessions s LEFT JOIN blocks b ON b.session_id = s.id WHERE s.id = ? ORDER BY b.first_ordinal"""


def body_finding(rows, read_data):
    """What is wrong with one body, or None: its length and, if asked, every line."""
    try:
        with open_body(rows[0]["body"]) as file:
            if os.fstat(file.fileno()).st_size < rows[0]["body_bytes"]:
                return "is too short"
            return lines_finding(file, [row for row in rows if row["event_count"]], rows[0]["body_chain"]) if read_data else None
    except BodyMissing:
        return "is missing"


def lines_finding(file, blocks, whole_chain):
    """Where the lines of a body are not those that were stored, or None."""
    if file.read(len(GZIP_HEADER)) != GZIP_HEADER:
        return "has no gzip header"
    chain = CHAIN_START
    for block in blocks:
        try:
            lines = lines_of(inflate_block(file, block))
        except BodyMissing:
            lines = []
        chain = functools.reduce(next_chain, lines, chain)
        if (len(lines), chain.hex()) != (block["event_count"], block["chain"]):
            return f"is damaged from event {block['first_ordinal']} on"
    return None if chain.hex() == whole_chain else "is not what its row says"


def litter_findings():
    with contextlib.suppress(sqlite3.DatabaseError):
        for path in litter(time.time() - LITTER_SECONDS):
            yield f"{path.relative_to(settings.data_dir)} belongs to nothing; `opensession.py gc` removes it"


# ---------------------------------------------------------------------------
# Operations: what is no longer needed
# ---------------------------------------------------------------------------

COPY_DAYS = 30          # the copy that a migration leaves; what people deleted since is still in it


def retire_sessions(db):
    """Delete the sessions that their teams no longer keep, each with those that it started; {what: how many}.

    Nobody deleted them: one that goes on, or is sent again, is stored again."""
    gone = 0
    for root in db.execute(EXPIRED_SESSIONS):
        family = json_text([row["id"] for row in db.execute(FAMILY, [root["id"]])])
        with contextlib.suppress(Conflict):         # somebody goes on with one of them
            results = db.batch([
                must("NOT EXISTS (SELECT 1 FROM sessions WHERE id IN (SELECT value FROM json_each(?)) AND updated_at >= ?)",
                     family, root["kept_since"]),
                *mass_burial("id IN (SELECT value FROM json_each(?))", family, remembered=False),
                audited(None, "session.expire", root["id"], root["team_id"])])
            release_bodies(db, results)
            gone += len(results[-2])
    return {"expired session": gone}


# Those that another session started go with it.
EXPIRED_SESSIONS = """
    WITH keeping (team_id, kept_since) AS (
        SELECT id, strftime('%Y-%m-%dT%H:%M:%fZ', 'now', format('-%d days', retain_days)) FROM teams WHERE retain_days > 0)
    SELECT s.id, s.team_id, k.kept_since
      FROM keeping k JOIN sessions s ON s.team_id = k.team_id AND s.updated_at < k.kept_since
     WHERE NOT EXISTS (SELECT 1 FROM sessions p WHERE p.user_id IS s.user_id AND p.tool = s.tool
                                                 AND p.hail_id = s.parent_hail_id AND p.team_id = s.team_id)"""


def collect_garbage(vacuum):
    """Remove what is no longer needed, and say what; the space of removed rows is used again, or given back by --vacuum."""
    if vacuum:
        lock = open_data_dir()
    open_existing()
    lines = [amount(count, name) for chore in CHORES for name, count in chore(db).items() if count]
    files, size = sweep(time.time() - LITTER_SECONDS)
    lines += [f"{amount(files, 'file')} that belonged to nothing, {megabytes(size)}"] if files else []
    for path in old_copies():
        lines.append(f"{path.name}, {megabytes(path.stat().st_size)}")
        path.unlink()
    if vacuum:
        before = (settings.data_dir / DATABASE).stat().st_size
        db.execute("VACUUM")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        lines.append(f"{megabytes(before - (settings.data_dir / DATABASE).stat().st_size)} of empty pages in the database")
        lock.close()
    print("\n".join(f"removed {line}" for line in lines) or "there is nothing to remove")


def old_copies():
    """The copies of the database that migrations left long ago."""
    return [path for path in settings.data_dir.glob("before-schema-*.db") if path.stat().st_mtime < time.time() - COPY_DAYS * 86400]


def migrate_data():
    """Bring the database to the newest schema, as the server does at its start."""
    path, version = existing_schema()
    open_data_dir().close()
    copy = path.with_name(f"before-schema-{version + 1}.db")
    print(f"the database has the newest schema, {SCHEMA_VERSION}" if version == SCHEMA_VERSION else
          f"brought from schema {version} to {SCHEMA_VERSION}; the old database is kept as {copy.name} for {COPY_DAYS} days")


# ---------------------------------------------------------------------------
# Operations: people and teams
# ---------------------------------------------------------------------------

def change_admin(act, nickname):
    """Make an account for an administrator, make a user one, or give somebody new keys."""
    lock = open_or_make()
    ADMIN_ACTS[act](nickname)
    if lock:
        lock.close()


def create_admin(nickname):
    """A new account with all rights and a team of its own; its key is printed this once."""
    nickname = printable(nickname, "nickname", 64, "nickname must be 1-64 characters")
    user_id, key = new_id(), new_key()
    with conflict_is(409, f"there is somebody called {nickname} already; `admin promote` makes them an administrator"):
        db.batch([
            ("INSERT INTO users (id, nickname, is_admin, created_at) VALUES (?, ?, 1, ?)", [user_id, nickname, now()]),
            insert_key(user_id, key, "default", "full"),
            *first_team(user_id, nickname, new_id()),
            ("DELETE FROM meta WHERE key = 'setup_token'", []),
            audited(None, "user.create", user_id)])
    setup_token_file().unlink(missing_ok=True)
    print(f"{nickname} is an administrator.  The key, shown this once: {key}")


def promote_user(nickname):
    """Make a user an administrator of the server."""
    user_id = user_called(nickname)
    db.batch([("UPDATE users SET is_admin = 1 WHERE id = ?", [user_id]), audited(None, "user.promote", user_id)])
    print(f"{nickname} is an administrator now")


def reset_key(nickname):
    """End all keys and log-ins of a user, who may have lost them to somebody, and make one key."""
    user_id, key = user_called(nickname), new_key()
    db.batch([("DELETE FROM api_keys WHERE user_id = ?", [user_id]), insert_key(user_id, key, "default", "full"),
              audited(None, "key.reset", user_id)])
    print(f"All keys and log-ins of {nickname} have ended.  The new key, shown this once: {key}")


ADMIN_ACTS = {"create": create_admin, "promote": promote_user, "reset-key": reset_key}


def user_called(nickname):
    """The id of a user.  Raises Refused."""
    rows = db.execute("SELECT id FROM users WHERE nickname = ?", [nickname])
    if not rows:
        raise Refused(f"nobody here is called {nickname}")
    return rows[0]["id"]


def delete_account(act, nickname, sessions, yes):
    """Delete an account; what it uploaded goes too, or stays with the teams without a name."""
    open_existing()
    user_id = user_called(nickname)
    number = db.execute("SELECT count(*) AS n FROM sessions WHERE user_id = ?", [user_id])[0]["n"]
    fate = "are deleted" if sessions == "delete" else "stay with their teams"
    if not yes:
        raise Refused(f"this deletes the account of {nickname}, whose {amount(number, 'session')} {fate}; "
                      "add --yes if that is what you want")
    delete_user(db, user_id, None, with_sessions=sessions == "delete")
    print(f"the account of {nickname} is deleted; {amount(number, 'session')} {fate}")


def delete_whole_team(act, name, yes):
    """Delete a team, by its name or id, with its sessions."""
    open_existing()
    teams = db.execute("""SELECT t.id, t.name, (SELECT count(*) FROM sessions WHERE team_id = t.id) AS sessions
                            FROM teams t WHERE t.id = ? OR t.name = ?""", [name, name])
    if len(teams) != 1:
        raise Refused(f"no team is called {name}" if not teams else
                      f"several teams are called {name}; say which by its id: {', '.join(team['id'] for team in teams)}")
    sentence = f"the team {teams[0]['name']} with {amount(teams[0]['sessions'], 'session')}"
    if not yes:
        raise Refused(f"this deletes {sentence}, for good; add --yes if that is what you want")
    delete_team(db, teams[0]["id"], None)
    print(f"deleted {sentence}")


def export_user(nickname, dest):
    """Write all that belongs to a user into a ZIP file: the account as JSON, the sessions as HAIL files."""
    open_existing()
    user_id, dest = user_called(nickname), Path(dest).absolute()
    if dest.exists():
        raise Refused(f"{dest} exists already")
    part = dest.with_name(f".{dest.name}.part")
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with open(handle, "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            sessions = list(filter(None, (zip_session(archive, row) for row in db.execute(OWN_SESSIONS, [user_id]))))
            archive.writestr("account.json", json.dumps({**account_facts(user_id), "sessions": sessions}, ensure_ascii=False, indent=1))
        os.rename(part, dest)
    finally:
        part.unlink(missing_ok=True)
    db.batch([audited(None, "user.export", user_id)])
    missing = [session["id"] for session in sessions if not session["file"]]
    print("\n".join([f"{dest}: {amount(len(sessions), 'session')}, {megabytes(dest.stat().st_size)}",
                     *(f"session {each} has lost its body" for each in missing)]))
    return not missing


OWN_SESSIONS = """
    SELECT s.id, s.tool, s.hail_id AS session_id, t.name AS team, s.title, s.created_at, s.updated_at, s.uploaded_at, s.event_count
      FROM sessions s JOIN teams t ON t.id = s.team_id WHERE s.user_id = ? ORDER BY s.created_at, s.id"""

# What an account is made of, beside its sessions.  Of keys and log-ins there is nothing but what people call them.
OWN_FACTS = {
    "user": "SELECT id, nickname, is_admin, created_at FROM users WHERE id = ?",
    "keys": "SELECT name, prefix, scope, created_at, last_used_on FROM api_keys WHERE user_id = ? ORDER BY created_at",
    "logins": "SELECT created_at, expires_at FROM logins WHERE user_id = ? ORDER BY created_at",
    "teams": """SELECT t.id, t.name, m.role, m.joined_at FROM team_members m JOIN teams t ON t.id = m.team_id
                 WHERE m.user_id = ? ORDER BY m.joined_at""",
    "invitations": "SELECT id, team_id, role, created_at, expires_at, used_at FROM invitations WHERE created_by = ? ORDER BY created_at",
    "deleted_sessions": "SELECT tool, hail_id AS session_id, deleted_at FROM tombstones WHERE user_id = ? ORDER BY deleted_at",
    "audit": "SELECT at, address, action, object FROM audit WHERE user_id = ? ORDER BY no",
}


def account_facts(user_id):
    """What is known of a user, as lists of objects by name."""
    facts = {name: [dict(row) for row in db.execute(query, [user_id])] for name, query in OWN_FACTS.items()}
    return {**facts, "user": facts["user"][0]}


def zip_session(archive, row):
    """Put a session into an archive, piece by piece; its facts, with `file` None where the body is lost; None where it was deleted."""
    tool = re.sub(r"[^\w.-]", "_", row["tool"])
    name = f"sessions/{tool}/{row['created_at'][:10]}-{row['id']}.hail.jsonl"
    seen, body = None, body_of(row["id"])
    while body and body != seen:        # one that was replaced between its row and its file is read again
        with contextlib.suppress(BodyMissing), stored_file(stored_rows(db, row["id"])) as stored:
            with archive.open(name, "w", force_zip64=True) as file:
                shutil.copyfileobj(stored, file, 1 << 16)
            return {**row, "file": name}
        seen, body = body, body_of(row["id"])
    return {**row, "file": None} if body else None


def body_of(session_id):
    """The name of the body that a session has now; None where there is no such session."""
    rows = db.execute("SELECT body FROM sessions WHERE id = ?", [session_id])
    return rows[0]["body"] if rows else None


def show_audit(limit):
    """Print the newest acts, the last one at the end."""
    open_existing()
    for row in reversed(audit_rows(db, limit=limit)):
        facts = [row["at"], row["nickname"] or row["user_id"] or "-", row["address"] or "-", row["action"],
                 row["object_nickname"] or row["object"] or "-", row["team_name"] or row["team_id"] or ""]
        print("  ".join(facts).rstrip())


def show_stats(as_json):
    """Print how much there is of everything."""
    open_existing()
    facts = {name: db.execute(query)[0][0] for name, query in COUNTS.items()}
    facts["database_bytes"] = sum(path.stat().st_size for path in settings.data_dir.glob(f"{DATABASE}*"))
    facts["free_bytes"] = shutil.disk_usage(settings.data_dir).free
    print(json.dumps(facts, indent=1) if as_json else "\n".join(f"{name:<20} {shown_fact(value)}" for name, value in facts.items()))


COUNTS = {
    "users": "SELECT count(*) FROM users",
    "admins": "SELECT count(*) FROM users WHERE is_admin",
    "teams": "SELECT count(*) FROM teams",
    "sessions": "SELECT count(*) FROM sessions",
    "events": "SELECT coalesce(sum(event_count), 0) FROM sessions",
    "last_upload": "SELECT max(uploaded_at) FROM sessions",
    "text_bytes": "SELECT coalesce(sum(raw_bytes), 0) FROM sessions",
    "body_bytes": "SELECT coalesce(sum(file_bytes), 0) FROM sessions",
    "sessions_to_index": "SELECT count(*) FROM indexed WHERE pending > 0",
    "events_to_index": """SELECT coalesce(sum(s.event_count - i.indexed_to), 0)
                            FROM indexed i JOIN sessions s ON s.id = i.session_id WHERE i.pending > 0""",
}


def shown_fact(value):
    return f"{value:,}" if isinstance(value, int) else value or "-"


# ---------------------------------------------------------------------------
# Operations: the original's data
#
# The original opensession (a server in Rust, of early 2026) kept a database of another
# shape and each session as a HAIL file.  It stored every upload of a session anew, and
# sometimes a part of one: the copy with the most events is the session.
# ---------------------------------------------------------------------------

def import_original(folder):
    """Take over users, keys, teams, members and sessions of the original's data directory, which is only read."""
    folder = Path(folder).absolute()
    if folder.resolve() == settings.data_dir.resolve():
        raise Refused("choose another data directory for the new server, and leave the original's as it is")
    if not (folder / DATABASE).exists():
        raise Refused(f"there is no database in {folder}")
    lock = open_or_make()
    with tempfile.TemporaryDirectory(dir=settings.data_dir / "tmp") as copy, contextlib.closing(open_original(folder, copy)) as original:
        users, teams = take_people(original), take_teams(original)
        taken, known, refused = take_sessions(original, folder)
    if lock:
        lock.close()
    print(f"taken over: {amount(users, 'user')}, {amount(teams, 'team')}, {amount(taken, 'session')}; "
          f"here already, or sent more than once: {amount(known, 'session')}")
    for line in refused:
        print(line)
    if not db.execute("SELECT 1 FROM users WHERE is_admin"):
        print("nobody is an administrator: `opensession.py admin promote NICKNAME` makes somebody one")
    return not refused


def open_original(folder, copy):
    """A connection to a copy of the original's database: SQLite would leave files beside the real one.  Raises Refused."""
    files = [folder / name for name in (DATABASE, f"{DATABASE}-wal") if (folder / name).exists()]
    before = [path.stat().st_mtime_ns for path in files]
    for path in files:
        shutil.copy(path, Path(copy) / path.name)
    if before != [path.stat().st_mtime_ns for path in files]:
        raise Refused(f"{folder} is being written to, and what is copied meanwhile is damaged: stop the original's server first")
    original = sqlite3.connect(Path(copy) / DATABASE)
    original.row_factory = sqlite3.Row
    try:
        columns = {table: {row["name"] for row in original.execute(f"PRAGMA table_info({table})")} for table in ORIGINAL_COLUMNS}
    except sqlite3.DatabaseError as error:
        raise Refused(f"the database in {folder} cannot be read: {error}") from None
    if any(needed - columns[table] for table, needed in ORIGINAL_COLUMNS.items()):
        raise Refused(f"the database in {folder} is none of the original opensession, or of a version that kept no sessions")
    return original


ORIGINAL_COLUMNS = {
    "_migrations": {"name"},
    "users": {"id", "nickname", "api_key", "created_at"},
    "teams": {"id", "name", "description", "created_by", "created_at"},
    "team_members": {"team_id", "user_id", "role", "joined_at"},
    "sessions": {"id", "user_id", "team_id", "body_storage_key", "event_count", "uploaded_at"},
}


def take_people(original):
    """Take users over, with their keys, of which we keep the hashes; how many are new."""
    new = 0
    for user in map(dict, original.execute("SELECT * FROM users ORDER BY created_at, id")):
        with contextlib.suppress(Conflict):         # they are here already, and their keys are made here
            db.batch([
                # Somebody else here may have the nickname.
                ("""INSERT INTO users (id, nickname, is_admin, created_at)
                    SELECT ?, CASE WHEN EXISTS (SELECT 1 FROM users WHERE nickname = ?) THEN ? ELSE ? END, ?, ?""",
                 [user["id"], user["nickname"], f"{user['nickname']} {user['id'][:8]}", user["nickname"],
                  int(bool(user.get("is_admin"))), original_time(user["created_at"])]),
                insert_key(user["id"], user["api_key"], "default", "full"),
                audited(None, "user.import", user["id"])])
            new += 1
    return new


def take_teams(original):
    """Take teams and their members over; how many teams are new."""
    new = 0
    for team in map(dict, original.execute("SELECT * FROM teams")):
        members = original.execute("SELECT * FROM team_members WHERE team_id = ?", [team["id"]]).fetchall()
        with contextlib.suppress(Conflict):         # it is here already, and who belongs to it is decided here
            db.batch([
                ("""INSERT INTO teams (id, name, description, is_public, created_by, created_at)
                    VALUES (?, ?, ?, ?, (SELECT id FROM users WHERE id = ?), ?)""",
                 [team["id"], team["name"], team["description"], int(bool(team.get("is_public"))), team["created_by"],
                  original_time(team["created_at"])]),
                *(("INSERT INTO team_members (team_id, user_id, role, joined_at) SELECT ?, id, ?, ? FROM users WHERE id = ?",
                   [team["id"], member["role"] if member["role"] in ROLES else "member", original_time(member["joined_at"]),
                    member["user_id"]]) for member in members),
                audited(None, "team.import", team["id"], team["id"])])
            new += 1
    return new


def take_sessions(original, folder):
    """Take sessions over, of each the copy with the most events: (how many, how many were passed over, what was refused)."""
    taken, known, refused = 0, 0, []
    for row in original.execute("SELECT * FROM sessions ORDER BY event_count DESC, uploaded_at DESC, id"):
        try:
            if take_session(row, folder / "bodies" / os.path.basename(row["body_storage_key"])):
                taken += 1
            else:
                known += 1
        except (OSError, HTTPError) as error:
            refused.append(f"session {row['id']} is not taken over: {error.body if isinstance(error, HTTPError) else error.strerror}")
    return taken, known, refused


def take_session(row, path):
    """Store one session of the original under its own id, unless it is here; whether it was stored."""
    with open(path, "rb") as body, draft_file() as file:
        header = check_header(parse_json(body.readline(), "the header line"))
        writer = write_body(file, event_pairs(line for line in body if line.strip()))
        columns = {"id": row["id"], "user_id": row["user_id"], "team_id": row["team_id"],
                   **header_columns(header, fold_stats(writer.blocks)), **extent_columns(writer.blocks),
                   "uploaded_at": original_time(row["uploaded_at"])}
        try:
            add_session(db, columns, file, writer.blocks)
        except Conflict as conflict:
            if "FOREIGN KEY" in str(conflict):
                raise problem(409, "its team or its uploader is not here any more") from None
            return False
    return True


def original_time(text):
    """A time of the original, 2026-02-11 06:00:00 in UTC or RFC 3339, as we write it."""
    return utc_text(datetime.fromisoformat(text))


# ---------------------------------------------------------------------------
# Main
# ---------------------------------------------------------------------------

class CappedChunks(ChunkedReceiver):
    """Waitress's reader of chunked bodies, which would spend quadratic time on an endless chunk-size line."""

    LONGEST = 1024

    def received(self, data):
        consumed = super().received(data)
        if max(len(self.control_line), len(self.trailer)) > self.LONGEST:
            self.error = BadRequest("the size of a chunk or the trailer is too long")
            self.completed = True
        return consumed


class NoRoom(Error):
    code, reason = 507, "Insufficient Storage"


class CappedParser(HTTPRequestParser):
    """Waitress's reader of requests; it answers in words, too, where a number or an address is none, and where the
    disk is too full to hold a large body."""

    full = False

    def parse_header(self, header_plus):
        super().parse_header(header_plus)
        # A proxy in front may take the other one of two lengths, and the rest for another request.
        if "TRANSFER_ENCODING" in self.headers or self.chunked and "CONTENT_LENGTH" in self.headers:
            raise ParsingError("the length of the body is given in two ways, or in one that HTTP/1.0 does not know")
        if self.chunked:
            self.body_rcv = CappedChunks(self.body_rcv.buf)

    def received(self, data):
        try:
            consumed = super().received(data)
        except ValueError:              # 5,000 digits, or http://[/
            self.error, self.completed = BadRequest("the request cannot be read"), True
            return len(data)
        except OSError:                 # what came so far is given up, the rest read all the same: who sends does not listen
            with contextlib.suppress(OSError):
                self.body_rcv.buf.close()
            self.body_rcv.buf = OverflowableBuffer(self.adj.inbuf_overflow)
            self.full = True
            return self.received(data)
        if self.completed and self.full:
            self.error = NoRoom(DISK_FULL[1])
        return consumed


class AnswerBuffer(OverflowableBuffer):
    """Waitress's buffer for what goes out: what is left of a large answer moves to a file, but on a full disk it stays in memory."""

    def append(self, data):
        if self.buf is None and not self.strbuf:
            self.strbuf = data      # mostly all of it is sent at once, from here
        else:
            super().append(data)

    def skip(self, numbytes, allow_prune=False):
        super().skip(numbytes, allow_prune)
        if self.buf is not None and not self.overflowed and len(self) >= self.overflow:
            self._set_large_buffer()

    def _set_large_buffer(self):
        if self.buf is None:        # nothing of it was skipped yet
            self._set_small_buffer()
            return
        file = self.buf.getfile()
        place = file.tell()
        try:
            super()._set_large_buffer()
        except OSError:
            file.seek(place)


class JsonErrorTask(ErrorTask):
    """Waitress's own refusals (bad request line, body too large …) in our shape."""

    def execute(self):
        error, request_id = self.request.error, secrets.token_hex(8)
        log.info("refused before it was read: %s %s id=%s", error.code, error.reason, request_id)
        body = json_text({"error": f"{error.reason}: {error.body}", "request_id": request_id}).encode()
        self.status = f"{error.code} {error.reason}"
        self.response_headers += [*HEADERS.items(), ("X-Request-Id", request_id), ("Content-Length", str(len(body))),
                                  ("Content-Type", "application/json"), ("Connection", "close")]
        self.close_on_finish = True
        self.content_length = len(body)
        self.write(body)


def make_server(descriptors, sockets):
    """Waitress with our settings, listening but not yet serving; `descriptors` is how many files may be open, `sockets` is filled."""
    HTTPChannel.parser_class = CappedParser
    HTTPChannel.error_task_class = JsonErrorTask
    waitress.channel.OverflowableBuffer = AnswerBuffer
    return waitress.create_server(
        app, map=sockets, host=settings.host, port=settings.port, threads=4,
        connection_limit=min(4000, descriptors // 2), asyncore_use_poll=True,       # a download needs a second descriptor
        channel_timeout=60, recv_bytes=1 << 16, outbuf_high_watermark=1 << 20, outbuf_overflow=1 << 18,
        max_request_header_size=1 << 16, max_request_body_size=settings.max_body, ident=None,
        expose_tracebacks=False, clear_untrusted_proxy_headers=False)       # see believe_proxy and is_direct


def lock_data_dir():
    """Hold the data directory for this process; a second server is InUse."""
    return hold_lock(settings.data_dir / "lock", f"another opensession already serves {settings.data_dir}")


def hold_lock(path, sentence):
    """Hold a file for this process.  Raises InUse where another process does."""
    handle = open(path, "w")
    try:
        if os.name == "nt":
            import msvcrt
            msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        handle.close()
        raise InUse(sentence) from None
    return handle


def open_data_dir():
    """Make the data directory ready and open its database.  Raises Unusable."""
    global db
    path = settings.data_dir / DATABASE
    buckets.clear()
    schema_version(path)        # before any write: it may be somebody else's
    if (settings.data_dir / MANIFEST).exists():
        raise Unusable(f"{settings.data_dir} is a backup, which may share its files with others: restore it into another directory")
    if (settings.data_dir / RESTORING).exists():
        raise Unusable(f"a restore of {settings.data_dir} was interrupted; run it again, with --force")
    try:
        for folder in ("", "bodies", "tmp"):
            (settings.data_dir / folder).mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = lock_data_dir()
    except OSError as error:
        raise Unwritable(f"{settings.data_dir} cannot be written: {error.strerror}") from None
    tempfile.tempdir = str(settings.data_dir / "tmp")
    schema = Path(__file__).with_name("schema.sql").read_text(encoding="utf-8")
    db = open_database(path, schema, MIGRATIONS)
    check_index(db)
    return lock


def open_for_reading(error):
    """Open the database of a data directory that cannot be written, if it can be read as it is; else that remains the error."""
    global db
    path = settings.data_dir / DATABASE
    if schema_version(path) != SCHEMA_VERSION:
        raise error
    db = Database(path, reading_only=True)


def offer_setup(write):
    """Where the first user is yet to come and must prove that they run the server, say how."""
    local = all(is_loopback(name) for name in (settings.host, *settings.hosts))
    setup_token_file().unlink(missing_ok=True)      # that of an earlier start holds no more
    if local or settings.setup == "open" or db.execute("SELECT 1 FROM users LIMIT 1"):
        return
    token = random_text(24)
    db.batch([("INSERT OR REPLACE INTO meta (key, value) VALUES ('setup_token', ?)", [secret_hash(token)])])
    path = setup_token_file()
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(token + "\n")
    write(f"First registration: {settings.base_url}/#setup={token}\n(the token is also in {path})")


def setup_token_file():
    return settings.data_dir / "setup-token"


def raise_descriptor_limit():
    """As many open files as the system allows, for as many connections; how many that are."""
    try:
        import resource
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        return hard if hard != resource.RLIM_INFINITY else 1 << 20
    except (ImportError, ValueError, OSError):
        return 1024


def share_memory():
    """Let all threads take memory from the same two heaps, as far as the C library is glibc: by default each keeps a heap of its own,
    as large as it ever was, and one block of a session that is freed makes all later ones stay in it."""
    for option, value in ((MALLOC_ARENAS, 2), (MALLOC_MAPPED_FROM, 128 << 10)):
        with contextlib.suppress(OSError, AttributeError, TypeError):
            ctypes.CDLL(None).mallopt(option, value)


def give_back_memory():
    """Return what is free to the system: what compiling this program took, or a large upload."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


# How long a thread that parses an upload or prepares the index holds up the others.  A request lets go of the interpreter at each
# row that it reads: with Python's 5 ms it would wait as often.
TURN_SECONDS = 0.001

MALLOC_ARENAS, MALLOC_MAPPED_FROM = -8, -3      # M_ARENA_MAX and M_MMAP_THRESHOLD in malloc.h


def stop(*_):
    raise SystemExit(0)


# What came in before the server was told to stop is answered, for so long; an upload that takes longer is sent again by its daemon.
STOPPING_SECONDS = 5


def answer_requests(sockets):
    """Answer requests until SIGTERM or Ctrl-C, then those that have come in by then.  `sockets` is waitress's map of them."""
    told, doors = threading.Event(), [each for each in sockets.values() if isinstance(each, TcpWSGIServer)]

    def tell(*_):
        told.set()
        doors[0].pull_trigger()     # it looks up
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, tell)
    while not told.is_set():
        wasyncore.loop(1, True, sockets, 1)
    wasyncore.loop(0, True, sockets, 100)           # who waits at the door comes in, one a round
    for door in doors:
        wasyncore.dispatcher.close(door)
    finish_requests(sockets, time.monotonic() + STOPPING_SECONDS)


def finish_requests(sockets, until):
    """Answer what has come in whole, and close each connection that has nothing more to be sent."""
    while time.monotonic() < until and (channels := [each for each in sockets.values() if isinstance(each, HTTPChannel)]):
        for channel in channels:
            channel.close_when_flushed |= not channel.requests
        wasyncore.loop(0.1, True, sockets, 1)


# What is done every hour beside the requests, in turn; each takes the database.
CHORES = [forget_old, retire_sessions]


def keep_house(db, stopped):
    """Do the chores at once and every hour, until told to stop."""
    while not stopped.is_set():
        for chore in CHORES:
            try:
                for name, count in chore(db).items():
                    log.log(logging.INFO if count else logging.DEBUG, "removed %s", amount(count, name))
            except Exception:
                log.exception("%s failed; it is tried again in an hour", chore.__name__)
        stopped.wait(3600)


def start_thread(work, *arguments):
    """Begin some work beside the requests; it ends with the process."""
    thread = threading.Thread(target=work, args=arguments, daemon=True, name=work.__name__)
    thread.start()
    return thread


def serve():
    """Serve until SIGTERM or Ctrl-C; requests that have come in are finished first."""
    started, stopped, lock = time.time(), threading.Event(), None
    share_memory()
    sys.setswitchinterval(TURN_SECONDS)
    try:
        lock = open_data_dir()
    except Unwritable as error:
        open_for_reading(error)
        log.warning("%s; so it is only read, and every change is refused", error)
    signal.signal(signal.SIGTERM, stop)
    sockets = {}
    try:
        server = make_server(raise_descriptor_limit(), sockets)
    except OSError as error:
        raise Unusable(f"cannot listen on {settings.host}:{settings.port}: {error.strerror}") from None
    keepers = start_keepers(started, stopped) if lock else []
    print(f"opensession {VERSION} on {settings.base_url} (data in {settings.data_dir})", flush=True)
    answer_requests(sockets)
    server.task_dispatcher.shutdown()
    server.close()
    stopped.set()
    if lock:
        end_keepers(keepers)
        lock.close()


def start_keepers(started, stopped):
    """Begin what goes on beside the requests of a server that may write; the threads that are waited for at the end."""
    offer_setup(lambda text: print(text, flush=True))
    start_thread(sweep, started)
    start_thread(keep_house, db, stopped)
    return [start_thread(work, db, stopped) for work in (keep_index, keep_checked)]


def end_keepers(keepers):
    """Let who was told to stop come to an end, and bring the database into one file."""
    db.changed.set()            # they look up
    for keeper in keepers:
        keeper.join(5)
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def reindex():
    """Make the search index anew, saying how far it is; where a server runs on this data, it does the work."""
    lock = open_or_make()
    renew_index(db)
    total, last = db.execute("SELECT count(*) AS n FROM indexed WHERE pending > 0")[0]["n"], None
    while left := db.execute("SELECT count(*) AS n FROM indexed WHERE pending > 0")[0]["n"]:
        if last is None or time.monotonic() - last > 1:
            last = time.monotonic()
            print(f"{max(0, total - left):,} of {total:,} sessions indexed", flush=True)
        if lock is None:
            time.sleep(0.2)
        else:
            index_some(db)
    print(f"all {total:,} sessions are indexed", flush=True)
    if lock:
        merging = merge_some(db, -MERGED_PAGES)
        while merging:
            merging = merge_some(db, MERGED_PAGES)
        lock.close()


def number(text):
    """A whole number of at least 1, for the command line."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError("a whole number of at least 1")
    return int(text)


YES = {"action": "store_true", "help": "do it; without this, it only says what it would do"}

# Name: the function, what it does in one line, its arguments as argparse takes them.
COMMANDS = {
    "serve": (serve, "serve the data directory; the default", {}),
    "backup": (make_backup, "make a backup below a folder, also while the server runs", {
        "dest": {"help": "the folder of backups"},
        "--keep": {"type": number, "metavar": "N", "help": "then remove all but the newest N"}}),
    "restore": (restore_backup, "put a backup in the place of the data directory; the server must not run", {
        "source": {"help": "a backup, or a folder of backups: then the newest"},
        "--force": {"action": "store_true", "help": "put aside what is there"}}),
    "check": (check_data, "look for damage, changing nothing; exit code 1 where there is some", {
        "--read-data": {"action": "store_true", "help": "read every event, too"}}),
    "gc": (collect_garbage, "remove what is no longer needed, as the server does every hour, and what crashes left", {
        "--vacuum": {"action": "store_true", "help": "make the database file as small as it can be; the server must not run"}}),
    "migrate": (migrate_data, "bring the database to the newest schema, as the server does at its start", {}),
    "reindex": (reindex, "make the search index anew, also while the server runs", {}),
    "stats": (show_stats, "how much there is of everything", {
        "--json": {"action": "store_true", "dest": "as_json", "help": "for programs"}}),
    "audit": (show_audit, "who did what: the newest acts", {
        "--limit": {"type": number, "metavar": "N", "default": 100, "help": "so many; 100 unless told"}}),
    "admin": (change_admin, "make an administrator, or give somebody a new key", {
        "act": {"choices": ADMIN_ACTS, "help": "create an account, promote a user, or end all keys and log-ins and print a new key"},
        "nickname": {}}),
    "user": (delete_account, "delete an account", {
        "act": {"choices": ["delete"]}, "nickname": {},
        "--sessions": {"choices": ["keep", "delete"], "default": "keep", "help": "they stay with their teams without a name, or go too"},
        "--yes": YES}),
    "team": (delete_whole_team, "delete a team and its sessions", {
        "act": {"choices": ["delete"]}, "name": {"help": "its name or id"}, "--yes": YES}),
    "export": (export_user, "write all that belongs to a user into a ZIP file", {
        "nickname": {}, "dest": {"help": "the file"}}),
    "import-original": (import_original, "take over the data directory of the original opensession, which is only read", {
        "folder": {}}),
}


def argument_parser():
    """The command line.  --help prints every command, and every setting with its default."""
    table = "\n".join(f"  {name:<28} {about}" + (f" (default: {default})" if default else "")
                      for name, (default, about) in SETTINGS.items())
    parser = argparse.ArgumentParser(
        prog="opensession.py", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="A team server for AI coding sessions.",
        epilog=f"environment:\n{table}\n\nexit codes: 0 done, 1 something is wrong or was not done, 2 a setting or the command line is wrong, "
               "3 the data directory is in use, 4 it cannot be used")
    parser.add_argument("--version", action="version", version=VERSION)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for name, (_, about, arguments) in COMMANDS.items():
        command = commands.add_parser(name, help=about, description=f"{about[0].upper()}{about[1:]}.")
        for argument, facts in arguments.items():
            command.add_argument(argument, **facts)
    return parser


def main(arguments=None):
    values = vars(argument_parser().parse_args(arguments))
    function, _, _ = COMMANDS[values.pop("command") or "serve"]
    try:
        configure(os.environ)
    except BadSetting as error:
        sys.exit(fail(2, error))
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)     # it warns of each request that waits for a thread
    try:
        sys.exit(1 if function(**values) is False else 0)
    except Unusable as error:
        sys.exit(fail(3 if isinstance(error, InUse) else 4, error))
    except Refused as error:
        sys.exit(fail(1, error))
    except HTTPError as error:
        sys.exit(fail(1, error.body))
    except (OSError, sqlite3.Error) as error:
        if function is serve:
            raise
        sys.exit(fail(1, error))


def fail(code, error):
    """Say in one line why the server does not run."""
    print(f"opensession: {error}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
