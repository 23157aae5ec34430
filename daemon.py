#!/usr/bin/env python3
"""opensession daemon: collects AI coding sessions on this machine and sends them to a team's server.

It looks at the files in which Claude Code, Codex and other tools keep their
sessions, turns what is new into one format (HAIL), takes secrets out, and sends
it.  Without a server it only collects: nothing leaves the machine before

    python daemon.py login https://sessions.example.org --invite CODE
    python daemon.py                    # collect and send for ever
    python daemon.py --help             # all commands

This file is all there is: Python 3.11 or newer, no packages.

    ~/.config/opensession/daemon.toml       settings; every key stands in DEFAULTS below
    ~/.config/opensession/synced.toml       what the server's administrator adds to them
    ~/.local/share/opensession/local.db     what was seen, what the server has, what waits

XDG_CONFIG_HOME and XDG_DATA_HOME move these folders, --home moves everything.

To add a tool, write one section like "Claude Code" below:
  1. x_roots(env, home): the folders where it keeps sessions, on every system.
  2. x_sources(root): what in there is read as one, as Source(key, files).
  3. x_recognise(head, path): whether an unknown file is this tool's.
  4. @tool("x", "Title", roots, sources, recognise) above parse_x(source), which yields a
     Session; a table leads from each kind of record to a small function.  It never raises.
  5. A small transcript in tests/fixtures, and a test.
"""

import argparse
import difflib
import functools
import gzip
import io
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
import stat
import subprocess
import sys
import tempfile
import time
import tomllib
import unicodedata
import urllib.error
import urllib.parse
import urllib.request
from bisect import bisect_right
from collections import Counter, deque
from contextlib import contextmanager
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from fnmatch import fnmatch
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Callable, NamedTuple


# ---------------------------------------------------------------------------
# Settings
# ---------------------------------------------------------------------------

VERSION = "0.2.0"
PARSER_VERSION = 1              # raise it when parsers or redaction change: every source is then read again
EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_RUNNING = 0, 1, 2, 3

log = logging.getLogger("opensession")

# Every key with its default, as in daemon.toml.  A value's type is its default's; each key also
# has an environment variable, OPENSESSION_<SECTION>_<KEY>, lists separated by commas.
DEFAULTS = {
    "server": {
        "url": "",                      # empty: collect into local.db only, nothing leaves this machine
        "api_key": "",                  # osk_…; `daemon.py login` writes it
        "allow_insecure": False,        # permit http:// to another machine
    },
    "identity": {
        "nickname": "user",
        "team_id": "",                  # empty: the server takes your only team; pulling needs it
    },
    "daemon": {
        "auto_publish": True,           # false is publish_on = "manual"
        "publish_on": "session_end",    # session_end (quiet for debounce_secs), realtime, manual (`once` sends)
        "debounce_secs": 5,
        "realtime_debounce_ms": 500,
        "max_retries": 3,               # quick retries; afterwards every 30 s to 5 min, for ever
        "health_check_interval_secs": 300,      # 0: no health check and no settings from the server
    },
    "privacy": {
        "strip_paths": True,            # home folders become ~
        "strip_env_vars": True,         # values of secret environment variables
        "exclude_patterns": ["*.env", "*secret*", "*credential*"],      # files whose content is withheld
        "exclude_tools": [],            # tools that are not collected
        "exclude_projects": [],         # working directories whose sessions are not collected
    },
    "watchers": {                       # a tool without a key here is on
        "claude_code": True,
        "opencode": True,
        "goose": True,
        "aider": True,
        "cursor": False,
        "custom_paths": [],             # further folders and files, for any tool
    },
    "tools": {},                        # name = true | false, stronger than [watchers]
}

# Keys that other programs of the same configuration own: no warning about them.
FOREIGN_KEYS = {("daemon", "auto_start"), ("custom_parsers", None), ("etag", None), ("last_synced", None)}
CHOICES = {("daemon", "publish_on"): ("session_end", "realtime", "manual")}
ENV_ALIASES = {"OPENSESSION_API_KEY": ("server", "api_key"), "OPENSESSION_TEAM_ID": ("identity", "team_id")}


class SettingsError(Exception):
    """A sentence for the person who wrote the settings."""


class Paths(NamedTuple):
    home: Path
    config: Path
    data: Path

    @property
    def database(self):
        return self.data / "local.db"


def find_paths(env, home=None):
    """Where things lie: XDG variables count, everything else is below the home folder."""
    home = Path(home or env.get("HOME") or env.get("USERPROFILE") or Path.home()).absolute()
    return Paths(home,
                 Path(env.get("XDG_CONFIG_HOME") or home / ".config") / "opensession",
                 Path(env.get("XDG_DATA_HOME") or home / ".local" / "share") / "opensession")


def load_settings(paths, env):
    """All settings, {section: {key: value}}: environment, daemon.toml, config.toml, synced.toml, defaults."""
    settings = {section: dict(keys) for section, keys in DEFAULTS.items()}
    for name in ("config.toml", "daemon.toml"):
        for section, keys in read_settings(paths.config / name).items():
            settings[section].update(keys)
    for (section, key), value in environment_settings(env).items():
        settings[section][key] = value
    add_synced(settings, read_settings(paths.config / "synced.toml"))
    check_settings(settings)
    return settings


def add_synced(settings, synced):
    """The server may add to the exclude lists and switch watchers off, nothing else."""
    for key in ("exclude_patterns", "exclude_tools"):
        more = synced.get("privacy", {}).get(key, [])
        settings["privacy"][key] = list(dict.fromkeys(settings["privacy"][key] + more))
    for key, value in synced.get("watchers", {}).items():
        if value is False:
            settings["watchers"][key] = False


def read_settings(path):
    """The checked content of one settings file, {} where there is none."""
    try:
        text = path.read_text("utf-8-sig")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: cannot be read ({error}).") from None
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path}: not valid TOML: {error}.") from None
    warn_if_readable_by_others(path, data)
    return {section: keys for section, keys in checked_sections(path, text, data) if keys}


def checked_sections(path, text, data):
    """Yield (section, {key: value}) of known keys; unknown ones are named in a warning."""
    server = data.get("server")
    if isinstance(server, dict) and "team_id" in server:        # where config.toml has it
        identity = data.setdefault("identity", {})
        identity.setdefault("team_id", server.pop("team_id"))
    for section, keys in data.items():
        if (section, None) in FOREIGN_KEYS:
            continue
        if section not in DEFAULTS:
            log.warning("%s%s: unknown section [%s].", path, line_of(text, section), section)
        elif not isinstance(keys, dict):
            raise SettingsError(f"{path}{line_of(text, section)}: {section} must be a section, [{section}].")
        else:
            yield section, {key: value for key, value in keys.items() if check_key(path, text, section, key, value)}


def check_key(path, text, section, key, value):
    """True for a known key with a value of its type; a wrong type is an error, an unknown key a warning."""
    where = f"{path}{line_of(text, section, key)}: {section}.{key}"
    default = False if section == "tools" else DEFAULTS[section].get(key)
    if default is None:
        if (section, key) not in FOREIGN_KEYS:
            log.warning("%s is not a setting.", where)
        return False
    problem = type_problem(section, key, default, value)
    if problem:
        raise SettingsError(f"{where} {problem}.")
    return True


def type_problem(section, key, default, value):
    """What is wrong with a value, or None."""
    if type(value) is not type(default):
        names = {bool: "true or false", int: "a whole number", str: "a text", list: "a list of texts"}
        return f"must be {names[type(default)]}"
    if isinstance(value, list) and not all(isinstance(item, str) for item in value):
        return "must be a list of texts"
    if isinstance(value, int) and value < 0:
        return "must not be negative"
    allowed = CHOICES.get((section, key))
    return f"must be one of {', '.join(allowed)}" if allowed and value not in allowed else None


def line_of(text, section, key=None):
    """' line N' of a section or of a key in it, as far as it can be found in the text."""
    current = ""
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if line.startswith("["):
            current = line.strip("[] \t").split("]")[0]
        name = line.split("=")[0].strip().strip("\"'")
        if key is None and section in (current, name) or current == section and name == key or name == f"{section}.{key}":
            return f" line {number}"
    return ""


def warn_if_readable_by_others(path, data):
    secret = isinstance(data.get("server"), dict) and data["server"].get("api_key")
    if secret and os.name == "posix" and path.stat().st_mode & 0o077:
        log.warning("%s holds your key and can be read by others on this machine: chmod 600 it.", path)


def environment_settings(env):
    """{(section, key): value} of the OPENSESSION_… variables that name a setting."""
    names = {f"OPENSESSION_{section}_{key}".upper(): (section, key)
             for section, keys in DEFAULTS.items() for key in keys} | ENV_ALIASES
    found = {}
    for name, (section, key) in names.items():
        if name in env:
            value = environment_value(DEFAULTS[section][key], env[name])
            problem = type_problem(section, key, DEFAULTS[section][key], value)
            if problem:
                raise SettingsError(f"The environment variable {name} {problem}.")
            found[section, key] = value
    return found


def environment_value(default, text):
    """The text as the type of the default, or unchanged where it is none."""
    if isinstance(default, bool):
        return {"true": True, "1": True, "false": False, "0": False}.get(text.lower(), text)
    if isinstance(default, int):
        return int(text) if text.isascii() and text.isdigit() else text
    if isinstance(default, list):
        return [item.strip() for item in text.split(",") if item.strip()]
    return text


def check_settings(settings):
    """Refuse what could send keys in the clear; make auto_publish = false what it means."""
    server, daemon = settings["server"], settings["daemon"]
    server["url"] = server["url"].rstrip("/")
    if server["url"]:
        check_server_url(server["url"], server["allow_insecure"])
    if not daemon["auto_publish"] and daemon["publish_on"] != "manual":
        log.warning("auto_publish = false: nothing is sent until `daemon.py once`.")
        daemon["publish_on"] = "manual"


def check_server_url(url, allow_insecure):
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SettingsError(f"server.url must look like https://sessions.example.org, not {url!r}.")
    if parts.scheme == "http" and not is_loopback(parts.hostname) and not allow_insecure:
        raise SettingsError(f"server.url {url} would send your key unencrypted: use https, "
                            "or set server.allow_insecure = true.")


def is_loopback(host):
    return host in ("localhost", "::1") or bool(re.fullmatch(r"127(\.\d{1,3}){3}", host))


def collects(settings, name):
    """Whether a tool is switched on."""
    if name.lower() in (excluded.lower() for excluded in settings["privacy"]["exclude_tools"]):
        return False
    watched = settings["watchers"].get(name.replace("-", "_"), True)
    return settings["tools"].get(name, watched)


def set_in_toml(text, section, key, value):
    """The text of a TOML file with one key set; all else, comments too, stays as it is."""
    entry = f"{key} = {json.dumps(value, ensure_ascii=False)}"
    lines, current, end = text.splitlines(), "", None
    for number, line in enumerate(lines):
        if line.strip().startswith("["):
            current = line.strip().strip("[]").strip()
        if current == section:
            if line.split("=")[0].strip() == key:
                lines[number] = entry
                return "\n".join(lines) + "\n"
            if line.strip():
                end = number + 1
    if end is None:
        lines += ["", f"[{section}]"] if lines else [f"[{section}]"]
        end = len(lines)
    lines.insert(end, entry)
    return "\n".join(lines) + "\n"


def write_private(path, text):
    """Write a text file that only its owner may read, all or nothing."""
    make_private_folder(path.parent)
    handle, temporary = tempfile.mkstemp(prefix=path.name, dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def make_private_folder(path):
    path.mkdir(mode=0o700, parents=True, exist_ok=True)

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


def hail_line(record):
    """One HAIL line as bytes with its line end: compact JSON, UTF-8, never NaN."""
    return json.dumps(record, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode() + b"\n"


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
        for line in (data.get("diff") or "").splitlines():
            stats["added"] += line.startswith("+") and not line.startswith("+++")
            stats["removed"] += line.startswith("-") and not line.startswith("---")
    attributes = event.get("attributes") or {}
    stats["input"] += whole(attributes.get("input_tokens"))
    stats["output"] += whole(attributes.get("output_tokens"))
    stats["input_total"] = max(stats["input_total"], whole(attributes.get("input_tokens_total")))
    stats["output_total"] = max(stats["output_total"], whole(attributes.get("output_tokens_total")))


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
# Tools: what a parser is made of
# ---------------------------------------------------------------------------

TOOLS = {}


class Tool(NamedTuple):
    """One AI tool.  `roots` gives the folders to look in, `sources` what lies in one of
    them, `parse` the sessions of one source, `recognise` whether the head of an unknown
    file is this tool's."""
    name: str
    title: str
    roots: Callable
    sources: Callable
    parse: Callable
    recognise: Callable


class Source(NamedTuple):
    """What is parsed as one: `files`, the main one first, all of which make the fingerprint.
    `key` names it among the tool's sources for good."""
    key: str
    files: tuple

    @property
    def path(self):
        return self.files[0]


class Unreadable(OSError):
    """A source that is there but that this machine cannot read; the text says what is missing."""


def tool(name, title, roots, sources, recognise):
    """Register the function below as the parser of a tool: source -> sessions, one after another."""
    def register(parse):
        if name in TOOLS:
            raise ValueError(f"two parsers for {name}")
        TOOLS[name] = Tool(name, title, roots, sources, parse, recognise)
        return parse
    return register


class Session:
    """One session while it is being read: header facts, and events on their way out.

    A parser calls `event` for each thing that happened, `hold`s an event that a later
    record may still complete, and yields `settled()` after every record and `rest()` at
    the end.  Held events keep back what follows them, so order never changes; the
    window is bounded, so that a call that is never answered costs little memory.
    Facts (title, model, attributes …) are complete once the events are used up.
    """

    WINDOW = 4000               # events that may wait behind a held one
    WINDOW_BYTES = 8 << 20      # … and about how much text

    def __init__(self, tool, provider, session_id, fallback_time=None):
        self.tool = tool
        self.provider = provider
        self.session_id = session_id
        self.model = None
        self.tool_version = None
        self.title = None           # what the tool or the person called it
        self.prompt = None          # else its first real prompt makes the title
        self.opening = None         # else what was said or done first
        self.created_at = None
        self.updated_at = None
        self.related = []
        self.attributes = {}        # cwd, git_branch, session_role, parent_session_id …
        self.bad_lines = 0
        self.unknown = {}           # record type -> how many were met
        self.stamp = None           # changes with the session, where that is cheaper to tell than to read it
        self.events = iter(())
        self._now = fallback_time   # the time of records that have none: their neighbour's
        self._ids = set()
        self._window = deque()
        self._held = set()          # id() of events in the window that may still change
        self._bytes = 0

    def seen_at(self, at):
        """Let a timestamped record count for the session's bounds, whether it is shown or not."""
        if at:
            self.created_at = min(self.created_at or at, at)
            self.updated_at = max(self.updated_at or at, at)

    def event(self, kind, event_id, /, at=None, blocks=(), *, task=None, duration_ms=None, attributes=None, **data):
        """Add one event and return it.  `at` is UTC as utc() gives it; None inherits the neighbour's."""
        self.seen_at(at)
        self._now = at or self._now or EPOCH
        event = {"type": "event", "event_id": self._unique(event_id), "timestamp": self._now,
                 "event_type": {"type": kind}}
        data = {key: value for key, value in data.items() if value is not None}
        if data or kind in ("TaskStart", "TaskEnd"):
            event["event_type"]["data"] = data
        self.opening = self.opening or opening_of(kind, data, blocks)
        if task:
            event["task_id"] = task
        event["content"] = {"blocks": list(blocks)}
        if duration_ms is not None:
            event["duration_ms"] = duration_ms
        if attributes:
            event["attributes"] = attributes
        self._window.append(event)
        self._bytes += sum(len(text) for block in event["content"]["blocks"] for text in block.values()
                           if isinstance(text, str))
        return event

    def hold(self, event):
        """Keep an event (and what follows it) back until it is released."""
        self._held.add(id(event))

    def release(self, event):
        """An event is as it will be.  Releasing twice, or what has gone out, does no harm."""
        self._held.discard(id(event))

    def waiting(self, event):
        """Whether an event has not gone out yet, so that it may still be changed."""
        return any(event is other for other in self._window)

    def settled(self):
        """Yield the events that nothing later can change."""
        while self._window and (id(self._window[0]) not in self._held
                                or len(self._window) > self.WINDOW or self._bytes > self.WINDOW_BYTES):
            yield self._leave()

    def rest(self):
        """Yield all that is left, at the end of the source."""
        while self._window:
            yield self._leave()

    def _leave(self):
        event = self._window.popleft()
        self._held.discard(id(event))
        self._bytes -= sum(len(text) for block in event["content"]["blocks"] for text in block.values()
                           if isinstance(text, str))
        return event

    def unknown_record(self, kind, event_id, at, record):
        """Keep a record of a kind that we do not know, and count it."""
        kind = str(kind)[:80]
        self.unknown[kind] = self.unknown.get(kind, 0) + 1
        return self.event("Custom", event_id, at, [json_block(record)], kind=kind)

    def _unique(self, event_id):
        """Event ids are unique in a session; tools repeat theirs, so the second gets a ~2."""
        event_id = str(event_id)
        name, count = event_id, 1
        while hash(name) in self._ids:
            count += 1
            name = f"{event_id}~{count}"
        self._ids.add(hash(name))
        return name


EPOCH = "1970-01-01T00:00:00.000Z"


def opening_of(kind, data, blocks):
    """What an event says of its session where nobody asked for anything: the reply, or what was run or touched."""
    if kind == "AgentMessage":
        return next((block["text"] for block in blocks if block["type"] == "Text" and block["text"].strip()), None)
    return data.get("command") or data.get("path") or data.get("query") if kind != "ToolResult" else None


def text_block(text):
    return {"type": "Text", "text": text}


def code_block(code, language=None, start_line=None):
    block = {"type": "Code", "code": code}
    if language:
        block["language"] = language
    if start_line:
        block["start_line"] = start_line
    return block


def json_block(data):
    return {"type": "Json", "data": clean_value(data)}


def image_block(media_type, base64_data, alt=None):
    block = {"type": "Image", "url": f"data:{media_type};base64,{base64_data}", "mime": media_type}
    if alt:
        block["alt"] = alt
    return block


LANGUAGES = {
    "py": "python", "js": "javascript", "mjs": "javascript", "jsx": "jsx", "ts": "typescript", "tsx": "tsx",
    "rs": "rust", "go": "go", "java": "java", "kt": "kotlin", "c": "c", "h": "c", "cpp": "cpp", "hpp": "cpp",
    "cc": "cpp", "cs": "csharp", "rb": "ruby", "php": "php", "swift": "swift", "scala": "scala", "sh": "bash",
    "bash": "bash", "zsh": "bash", "sql": "sql", "html": "html", "css": "css", "scss": "scss", "svelte": "html",
    "vue": "html", "json": "json", "yaml": "yaml", "yml": "yaml", "toml": "toml", "xml": "xml", "md": "markdown",
    "lua": "lua", "r": "r", "dart": "dart", "ex": "elixir", "exs": "elixir", "hs": "haskell", "diff": "diff",
}


def language_of(path):
    """The language of a file by its name, or None."""
    name = path.replace("\\", "/").rsplit("/", 1)[-1]
    if name in ("Dockerfile", "Makefile"):
        return "bash"
    return LANGUAGES.get(name.rsplit(".", 1)[-1].lower()) if "." in name else None


def unified_diff(old, new, path):
    """The unified diff between two texts, with three lines of context; "" where they are equal."""
    lines = difflib.unified_diff(old.splitlines(), new.splitlines(), f"a/{path}", f"b/{path}", lineterm="")
    return "\n".join(lines)


def utc(value):
    """A time as tools write it (ISO 8601 with any offset, seconds or milliseconds) -> 2026-02-11T06:00:00.000Z, or None."""
    try:
        if isinstance(value, str) and not value.strip().replace(".", "", 1).isdigit():
            at = datetime.fromisoformat(value.strip())
            at = at.replace(tzinfo=timezone.utc) if at.tzinfo is None else at.astimezone(timezone.utc)
        else:
            seconds = float(value)
            at = datetime.fromtimestamp(seconds / 1000 if seconds > 1e11 else seconds, timezone.utc)
    except (ValueError, TypeError, OverflowError, OSError):
        return None
    if not 2000 <= at.year <= 2100:
        return None
    return at.isoformat(timespec="milliseconds")[:23] + "Z"


def clean_text(text):
    """Text that can be stored: no NUL, no half of a surrogate pair."""
    if "\0" in text:
        text = text.replace("\0", "")
    try:
        text.encode()
        return text
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def load_json(line):
    """A JSON value from bytes that may be damaged, or None: never raises."""
    try:
        text = line.decode("utf-8-sig", "replace").strip("\0 \t\r\n")
        value = JSON_DECODER.decode(text)
        return clean_value(value) if any(mark in line for mark in UNSAFE_ESCAPES) else value
    except (ValueError, RecursionError):
        return None


# NUL, raw or escaped, and escapes that may be half of a surrogate pair.  Searching for
# each is four times as fast as one regular expression for all.
UNSAFE_ESCAPES = (b"\0", b"\\u0000", b"\\ud", b"\\uD")


def finite_float(digits):
    """A JSON number with a fraction or exponent; what overflows becomes its text, as JSON has no infinity."""
    value = float(digits)
    return value if math.isfinite(value) else digits


JSON_DECODER = json.JSONDecoder(strict=False, parse_constant=str, parse_float=finite_float)


def clean_value(value, depth=0):
    """The same value with clean_text in every string; a nest deeper than 50 becomes its text."""
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, (dict, list)) and depth > 50:
        return str(value)[:1000]
    if isinstance(value, dict):
        return {clean_text(key): clean_value(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [clean_value(item, depth + 1) for item in value]
    return value


MAX_LINE = 64 << 20


def read_lines(path, limit=None):
    """Yield (offset, line) of a growing file, as far as it reached when opened.

    A last line without its end is given only if it is a complete record; one that is
    longer than MAX_LINE comes as None."""
    with open_regular(path) as file:
        yield from lines_of(file, os.fstat(file.fileno()).st_size if limit is None else limit)


def lines_of(file, end=sys.maxsize):
    """Yield (offset, line) of an open binary file up to `end`, as read_lines does."""
    offset = 0
    while offset < end:
        line = file.readline(min(end - offset, MAX_LINE))
        if not line:
            return
        start, offset = offset, offset + len(line)
        if len(line) == MAX_LINE and not line.endswith(b"\n"):
            offset += skip_line(file)
            line = None
        yield start, line


def skip_line(file):
    """Read to the end of the line; return how many bytes that took."""
    skipped = 0
    while piece := file.readline(1 << 20):
        skipped += len(piece)
        if piece.endswith(b"\n"):
            break
    return skipped


def read_records(path, session, skip=None):
    """Yield (offset, record) of a JSON-lines file: every line that is an object.

    Damaged and oversized lines are counted in session.bad_lines; `skip(line)` may drop
    a line unparsed.  The last line counts only when it is complete."""
    yield from records_of(read_lines(path), session, skip)


def records_of(lines, session, skip=None):
    """Yield (offset, record) of (offset, line) pairs, as read_records does."""
    for offset, line in lines:
        if line is None:
            session.bad_lines += 1
            continue
        if skip and skip(line) or not line.strip(b"\0 \t\r\n"):
            continue
        record = load_json(line)
        if isinstance(record, dict):
            yield offset, record
        elif record is None and line.endswith(b"\n"):
            session.bad_lines += 1


def open_regular(path):
    """Open a regular file for reading; a FIFO, a device or a folder of that name is an OSError, not a wait."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    handle = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(f"not a regular file: {path}")
    return os.fdopen(handle, "rb")


def file_size(path):
    """The size of a file in bytes, 0 where there is none."""
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def walk(root, depth=12):
    """Yield the regular files below a folder as os.DirEntry: no symbolic link is followed,
    except one that is a folder directly below the root."""
    stack = [(root, 0)]
    while stack:
        folder, level = stack.pop()
        try:
            with os.scandir(folder) as entries:
                listed = sorted(entries, key=lambda entry: entry.name)
        except OSError:
            continue
        for entry in listed:
            try:
                if entry.is_dir(follow_symlinks=level == 0) and level < depth:
                    stack.append((entry.path, level + 1))
                elif entry.is_file(follow_symlinks=False):
                    yield entry
            except OSError:
                continue


# ---------------------------------------------------------------------------
# Claude Code (claude-code)
#
# <config>/projects/<project folder>/<session>.jsonl, one JSON object a line, seen from
# 1.0.x to 2.1.197.  Sub-agents lie beside it: <session>/subagents/…/agent-<id>.jsonl
# with agent-<id>.meta.json (2.1.x), or agent-<id>.jsonl in the same folder (2.0.x), or,
# still older, as isSidechain records between the others.
#
# A record is read by the step for its type, a content block by the step for its type;
# to teach it a new one, add a row to CLAUDE_STEPS or CLAUDE_BLOCKS.
# ---------------------------------------------------------------------------

CLAUDE_HEAD = 64 << 10                  # what is read of a file to recognise it
CLAUDE_SAVED_OUTPUT = 16 << 20          # the longest tool output that is taken from its own file
CLAUDE_OPEN_CALLS = 200                 # how many calls may wait for their results
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


def claude_roots(env, home):
    """Where transcripts lie: CLAUDE_CONFIG_DIR (several, by comma) or the two usual folders."""
    named = [name.strip() for name in env.get("CLAUDE_CONFIG_DIR", "").split(",") if name.strip()]
    if named:
        bases = [home / name[2:] if name.startswith(("~/", "~\\")) else home if name == "~" else Path(name)
                 for name in named]
    else:
        bases = [home / ".claude", Path(env.get("XDG_CONFIG_HOME") or home / ".config") / "claude"]
    return list(dict.fromkeys(base if base.name == "projects" else base / "projects" for base in bases))


# Which files belong together ------------------------------------------------

def claude_sources(root):
    """The transcripts below a folder, or the one that `root` is, each with its sub-agents' files."""
    mains, parts = {}, {}
    for path in claude_files(str(root)):
        owner = claude_owner(path)
        if owner:
            parts.setdefault(owner, []).append(path)
        elif claude_is_transcript(path, path == str(root)):
            mains[os.path.splitext(path)[0]] = path
    chosen = {}
    for stem, path in mains.items():
        source = Source(claude_key(path), (path, *parts.pop(stem, ())))
        rival = chosen.get(source.key)
        # Resuming in another folder copies the whole transcript there, under the same name.
        if not rival or file_size(path) > file_size(rival.path):
            chosen[source.key] = source
    yield from chosen.values()
    for files in parts.values() if not os.path.isfile(root) or not mains else ():
        yield from claude_orphans(files)


def claude_files(root):
    """Paths of all regular files below a folder; of a single file, itself and what may belong to it."""
    if not os.path.isfile(root):
        yield from (entry.path for entry in walk(root))
        return
    yield root
    folder, name = os.path.split(root)
    if name.startswith("agent-"):
        yield from filter(os.path.isfile, [root[:-len(".jsonl")] + ".meta.json"])
        return
    yield from (entry.path for entry in walk(os.path.splitext(root)[0]))
    yield from (entry.path for entry in walk(folder, depth=0) if entry.name.startswith("agent-"))


def claude_owner(path):
    """Of a sub-agent's file, the path of its session without .jsonl; None of other files."""
    folder, name = os.path.split(path)
    if not name.startswith("agent-") or not name.endswith((".jsonl", ".meta.json")):
        return None
    above, mark, _ = (folder + os.sep).partition(os.sep + "subagents" + os.sep)
    if mark:
        return above
    transcript = path.removesuffix(".meta.json").removesuffix(".jsonl") + ".jsonl"
    return os.path.join(folder, claude_session_in(transcript, min(file_size(transcript), CLAUDE_HEAD)) or name)


@lru_cache(maxsize=1 << 16)
def claude_session_in(path, _size):
    """The first sessionId in a file, or None.  It is looked for again only as long as the file is small."""
    return claude_first(claude_head(path), b"sessionId")


def claude_is_transcript(path, asked_for):
    """Whether a file's name and place are those of a session; what it holds is looked at when it is read."""
    name = os.path.basename(path)
    if asked_for:
        return True
    if f"{os.sep}subagents{os.sep}" in path or f"{os.sep}tool-results{os.sep}" in path:
        return False
    if name.endswith(".json"):
        return name != "sessions-index.json" and b'"loglines"' in claude_head(path, 256)
    return name.endswith(".jsonl") and name not in ("journal.jsonl", "history.jsonl")


def claude_key(path):
    """A session is named by its file, which is a UUID; other names are not unique, so the path is."""
    stem = os.path.splitext(os.path.basename(path))[0]
    return stem if UUID.fullmatch(stem) else path


def claude_orphans(files):
    """Sub-agents whose session is gone: each is a source of its own."""
    for path in files:
        name = os.path.basename(path)
        if name.endswith(".jsonl") and not name.startswith("agent-acompact"):
            meta = path[:-len(".jsonl")] + ".meta.json"
            yield Source(path, (path, meta) if meta in files else (path,))


def claude_head(path, size=CLAUDE_HEAD):
    """The first bytes of a file; b"" when it cannot be read."""
    try:
        with open_regular(path) as file:
            return file.read(size)
    except OSError:
        return b""


def claude_first(head, key):
    """The first short text under a key in raw JSON, or None."""
    found = re.search(rb'"' + key + rb'":\s*"([^"\\]{1,200})"', head)
    return found and clean_text(found[1].decode("utf-8", "replace"))


# Whether a file is Claude Code's --------------------------------------------

# Record types that no other tool has, with a key that proves them.
CLAUDE_MARKS = {
    "summary": "leafUuid", "file-history-snapshot": "snapshot", "queue-operation": "operation",
    "progress": "parentToolUseID", "attachment": "attachment", "custom-title": "customTitle",
    "ai-title": "aiTitle", "permission-mode": "permissionMode", "last-prompt": "leafUuid", "system": "isSidechain",
}


def claude_recognise(head, path):
    """Whether the head of an unknown file is a Claude Code transcript or a web export of one."""
    if claude_is_export(head):
        return True
    for line in head.split(b"\n")[:200]:
        record = load_json(line) if line.lstrip(b"\xef\xbb\xbf\0 \t").startswith(b"{") else None
        verdict = claude_is_record(record) if isinstance(record, dict) else None
        if verdict is not None:
            return verdict
    # A first line that is longer than the head cannot be parsed; its first keys are enough.
    return b"\n" not in head and all(key in head[:4096] for key in (b'"parentUuid":', b'"isSidechain":'))


def claude_is_record(record):
    """True for a record of Claude Code, False for one that can only be another tool's, else None."""
    kind, message = record.get("type"), record.get("message")
    if "payload" in record or isinstance(message, dict) and "parts" in message:
        return False
    if kind in ("user", "assistant"):
        known = any(key in record for key in ("uuid", "sessionId", "timestamp", "parentUuid"))
        return True if known and isinstance(message, dict) and "content" in message else None
    return True if isinstance(kind, str) and CLAUDE_MARKS.get(kind) in record else None


def claude_is_export(head):
    """Whether this is the JSON that the web version exports: {"loglines": [records]}."""
    return head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{") and b'"loglines"' in head[:256]


# What is known while reading ------------------------------------------------

class ClaudeRun:
    """What the files of one session share: whose call started which sub-agent, and which
    responses of the model have been counted."""

    def __init__(self, session, path):
        self.session = session
        self.folder = os.path.splitext(path)[0]     # where sub-agents and saved outputs lie
        self.responses = {}                         # message id -> ClaudeResponse
        self.agents = {}                            # agent id -> its file, until it is shown
        self.metas = {}                             # agent id -> what its meta.json says
        self.calls = {}                             # call id -> agent ids that it started
        self.loose = []                             # (start, agent id) that no call is known for, latest first
        self.compactions = []                       # (start, file) of hidden compaction calls, latest first
        self.descriptions = {}                      # call id -> what a sub-agent was started for
        self.durations = {}                         # call id -> milliseconds
        self.tally = dict.fromkeys(("raw_input", "raw_output", "input", "output", "cache_read", "cache_write",
                                    "reasoning", "responses", "duplicates_removed", "replayed"), 0)
        self.subagents = {"input": 0, "output": 0}


class ClaudeFile:
    """Where the reading of one transcript stands."""

    def __init__(self, run, session, path, agent=None):
        self.run = run
        self.session = session
        self.path = path
        self.agent = agent              # of a nested sub-agent, its id
        self.prefix = f"{agent}:" if agent else ""
        self.task = agent               # the task that events belong to just now
        self.tasks = {}                 # task id -> ClaudeTask
        self.side = {}                  # hash of a sidechain record's uuid -> its task
        self.at = None                  # time and name of the record at hand
        self.base = None
        self.names = {}                 # call id -> name of the tool
        self.open = {}                  # call id -> (event, input) without a result yet
        self.response = None            # the response that the last assistant record belongs to
        self.reply = None               # the last reply, for the duration of its turn
        self.shell = None               # the last command that the person ran with "!"
        self.chained = False            # whether a record with a uuid has been met
        self.copied = frozenset()       # hashes of uuids that another file had first
        self.uuids = set()              # hashes of uuids met
        self.summaries = {}             # leafUuid -> summary that waits for its leaf
        self.titles = {}                # "custom", "ai", "summary" -> title; "prompt", "command" -> text
        self.branches = {}              # parentUuid of a prompt -> how many prompts there were before
        self.prompts = self.probes = 0
        self.cwds = []
        self.skipped = []               # the first and the last progress line, unparsed


class ClaudeTask:
    """A sub-agent that is being shown."""

    def __init__(self, start, call=None):
        self.start = start              # its TaskStart event
        self.call = call
        self.events = 0
        self.model = None
        self.last = start["timestamp"]


class ClaudeResponse:
    """One answer of the API, which is written as several records with the same message id.
    Usage is (input, cache writes, cache reads, output, reasoning)."""
    __slots__ = ("owner", "best", "counted", "anchor", "grown", "model")

    def __init__(self, owner):
        self.owner = owner              # the sub-agent (None: the session itself) that had it first
        self.best = None                # the highest that its records said; None: they had no usage
        self.counted = None             # how much of that stands on events
        self.anchor = None              # the event that is held to carry it
        self.grown = {}                 # block type -> the last such event, whose text may still grow
        self.model = None


@tool("claude-code", "Claude Code", roots=claude_roots, sources=claude_sources, recognise=claude_recognise)
def parse_claude(source):
    """One transcript with its sub-agents is one session; a file that is not Claude's or shows nothing is none."""
    path = os.fspath(source.path)
    with open_regular(path) as file:
        head = file.read(CLAUDE_HEAD)
    if not claude_recognise(head, path):
        return
    at = utc(claude_first(head, b"timestamp")) or utc(os.stat(path).st_mtime)
    session = Session("claude-code", "anthropic", claude_session_id(path, head), at)
    run = ClaudeRun(session, path)
    claude_find_agents(run, path, [os.fspath(name) for name in source.files[1:]])
    file = ClaudeFile(run, session, path)
    claude_mark_orphan(session, path, head)
    events = claude_events(file, claude_records(file, head))
    first = next(events, None)
    if first is not None:
        session.events = itertools.chain([first], events)
        yield session


def claude_session_id(path, head):
    """The file's name where it is a UUID or a sub-agent's, else the first sessionId in it, else the name."""
    stem = os.path.splitext(os.path.basename(path))[0]
    if stem.startswith("agent-"):
        return f"{claude_parent_id(path, head)}.{stem}".removeprefix("None.")
    return stem if UUID.fullmatch(stem) else claude_first(head, b"sessionId") or stem


def claude_parent_id(path, head):
    """Of a sub-agent's file, the id of its session."""
    owner = claude_owner(path)
    if owner and f"{os.sep}subagents{os.sep}" in path:
        return os.path.basename(owner)
    return claude_first(head, b"sessionId")


def claude_mark_orphan(session, path, head):
    """A sub-agent that stands alone still says whose it was."""
    if os.path.basename(path).startswith("agent-"):
        session.attributes["session_role"] = "auxiliary"
        parent = claude_parent_id(path, head)
        if parent and parent != session.session_id:
            session.attributes["parent_session_id"] = parent


def claude_records(file, head=b""):
    """Yield (place, record) of a transcript; a file that goes away while it is read just ends."""
    if claude_is_export(head):
        with open_regular(file.path) as export:
            lines = claude_list(claude_dict(load_json(export.read(MAX_LINE))).get("loglines"))
        yield from ((place, record) for place, record in enumerate(lines) if isinstance(record, dict))
        return
    try:
        yield from read_records(file.path, file.session, lambda line: claude_skips(file, line))
    except OSError:
        file.session.bad_lines += 1


def claude_skips(file, line):
    """Whether a raw line is one of the many that show nothing.  The first "type" in it decides:
    inside of strings quotes are escaped, and no other record starts with an object."""
    place = line.find(b'"type":"', 0, 600) + 8
    if place < 8 or not line.startswith((b'progress"', b'file-history-snapshot"'), place):
        return False
    if line.startswith(b"progress", place):
        file.skipped = [*file.skipped[:1], line]        # their times count for the session's bounds
    return True


def claude_events(file, records):
    """The events of one transcript, with those of its sub-agents behind the calls that started them."""
    for place, record in records:
        claude_record(file, place, record)
        yield from claude_flow(file, file.session.settled())
    claude_close(file)
    for call_id in list(file.open):
        claude_settle_call(file, call_id)
    if file.agent is None:
        claude_count_compactions(file, None)
    for task_id in list(file.tasks):
        claude_end_task(file, task_id)
    yield from claude_flow(file, file.session.rest())
    claude_bounds(file)
    if file.agent is None:
        for agent in [agent for _, agent in reversed(file.run.loose)] + sorted(file.run.agents):
            yield from claude_subagent(file.run, agent)     # also those whose call is lost
        claude_header(file)


def claude_flow(file, events):
    """Let events out; a sub-agent comes behind its call, or, where that is not known, at its time."""
    run = file.run
    for event in events:
        while file.agent is None and run.loose and run.loose[-1][0] < event["timestamp"]:
            yield from claude_subagent(run, run.loose.pop()[1])
        yield event
        if run.calls:
            call_id = event["event_id"].removeprefix(file.prefix)
            for agent in run.calls.pop(call_id, ()):
                yield from claude_subagent(run, agent, call_id)


def claude_record(file, place, record):
    """Read one record: the facts that any may carry, then the step for its type."""
    uuid, kind = record.get("uuid"), record.get("type")
    file.base = uuid if isinstance(uuid, str) and uuid else f"@{place}"
    file.at = utc(record.get("timestamp"))
    file.session.seen_at(file.at)
    claude_facts(file, record)
    if hash(uuid if isinstance(uuid, str) else None) in file.copied:
        claude_replayed(file, record)
        return
    if file.agent is None:
        file.task = claude_sidechain(file, record) if record.get("isSidechain") is True else None
    step = CLAUDE_STEPS.get(kind) if isinstance(kind, str) else None
    if step:
        step(file, record)
    else:
        event = file.session.unknown_record(kind, file.prefix + file.base, file.at, record)
        if file.task:
            event["task_id"] = file.task


def claude_add(file, kind, event_id, blocks=(), /, *, duration_ms=None, attributes=None, **data):
    """Add an event of the record at hand."""
    task = file.tasks.get(file.task)
    if task and kind not in ("TaskStart", "TaskEnd"):
        task.events += 1
        task.last = file.at or task.last
    return file.session.event(kind, file.prefix + event_id, file.at, blocks, task=file.task,
                              duration_ms=duration_ms, attributes=attributes, **data)


# Facts of the whole session -------------------------------------------------

def claude_facts(file, record):
    """Take what any record may say about the session: folder, branch, version, whose copy it is."""
    attributes = file.session.attributes
    if isinstance(record.get("uuid"), str):
        file.uuids.add(hash(record["uuid"]))
        if not file.chained:
            file.chained = True
            claude_lineage(file, record)
        if record["uuid"] in file.summaries:
            file.titles["summary"] = file.summaries[record["uuid"]]
    if claude_text(record, "cwd"):
        add_new(file.cwds, record["cwd"])
    if claude_text(record, "gitBranch") not in ("", "HEAD"):
        attributes.setdefault("git_branch", record["gitBranch"])
    if claude_text(record, "entrypoint"):
        attributes.setdefault("entrypoint", record["entrypoint"])
    file.session.tool_version = claude_text(record, "version") or file.session.tool_version


def claude_lineage(file, record):
    """A background hand-off copies the records so far to a new file; leave out what its origin has."""
    stem = os.path.splitext(os.path.basename(file.path))[0]
    named = claude_text(record, "sessionId")
    if file.agent or not UUID.fullmatch(stem):
        return
    origin = None
    if UUID.fullmatch(named) and named != stem:
        origin = os.path.join(os.path.dirname(file.path), named + ".jsonl")
    elif record.get("sessionKind") == "bg":
        origin = claude_origin(file.path, record["uuid"])
        named = origin and os.path.splitext(os.path.basename(origin))[0]
    if origin:
        file.session.attributes.update(forked_from=named, parent_session_id=named)
        file.session.related.append(named)
        file.copied = claude_uuids(origin)


def claude_origin(path, uuid):
    """The transcript in the same folder that has this record and is no copy itself, or None."""
    for entry in walk(os.path.dirname(path), depth=0):
        if entry.path != path and entry.name.endswith(".jsonl") and not entry.name.startswith("agent-"):
            head = claude_head(entry.path)
            if uuid.encode("utf-8", "replace") in head and not re.search(rb'"sessionKind":\s*"bg"', head):
                return entry.path
    return None


def claude_uuids(path):
    """Hashes of all record uuids in a transcript."""
    found = set()
    try:
        for _, line in read_lines(path):
            uuids = re.findall(rb'"uuid":\s*"([^"]{1,80})"', line or b"")
            found.update(hash(uuid.decode("utf-8", "replace")) for uuid in uuids)
    except OSError:
        pass
    return found


def claude_replayed(file, record):
    """A record that the origin of this copy has: its usage is not ours, its prompt may still be the title."""
    message = claude_dict(record.get("message"))
    if record.get("type") == "assistant" and claude_text(message, "id"):
        response = file.run.responses.setdefault(message["id"], ClaudeResponse("origin"))
        claude_replay_usage(file.run, response, message)
    elif record.get("type") == "user" and not record.get("isMeta"):
        for block in claude_blocks(message):
            kind, text = claude_said(claude_text(block, "text"))
            if kind == "prompt":
                file.titles.setdefault("copied", text)


def claude_header(file):
    """Complete the header facts, now that all is read."""
    session, titles = file.session, file.titles
    session.title = titles.get("custom") or titles.get("ai") or titles.get("summary")
    session.prompt = titles.get("prompt") or titles.get("command") or titles.get("copied")
    if file.cwds:
        session.attributes["cwd"] = file.cwds[0]
        if len(file.cwds) > 1:
            session.attributes["all_cwds"] = file.cwds
    elif project := claude_project(os.path.basename(os.path.dirname(file.path))):
        session.attributes["project"] = project
    if file.prompts and file.prompts == file.probes:
        session.attributes.update(probe=True, session_role="auxiliary")
    run = file.run
    if run.tally["responses"] or run.tally["replayed"]:
        session.attributes["usage"] = run.tally
        if any(run.subagents.values()):
            run.tally["subagents"] = run.subagents


CLAUDE_WORK_FOLDERS = ("code", "projects", "repos", "src", "work", "dev", "git", "workspace", "Documents", "Desktop")


def claude_project(slug):
    """A readable project name from a folder like -home-ada-code-my-app, which is not to be
    turned back into a path: my-app and my/app look the same.  None for other folders."""
    parts = slug.strip("-").split("-")
    if not slug.startswith("-") or not any(parts):
        return None
    marks = [place for place, part in enumerate(parts[:-1]) if part in CLAUDE_WORK_FOLDERS]
    if marks:
        return "-".join(parts[marks[0] + 1:])
    return "-".join(parts[2:] if parts[0] in ("home", "Users") and len(parts) > 2 else parts)


def claude_bounds(file):
    """Let the times of skipped lines and of a sub-agent count for the whole session."""
    session = file.run.session
    for line in file.skipped:
        session.seen_at(utc(claude_dict(load_json(line)).get("timestamp")))
    if file.session is not session:
        session.seen_at(file.session.created_at)
        session.seen_at(file.session.updated_at)
        session.bad_lines += file.session.bad_lines
        for kind, count in file.session.unknown.items():
            session.unknown[kind] = session.unknown.get(kind, 0) + count


# What the person said, and what was put into their mouth --------------------

# Beginnings of user texts that the program wrote, and how they are shown; None: not at all.
CLAUDE_INJECTED = {
    "<local-command-caveat>": None,
    "Caveat: The messages below were generated": None,
    "<local-command-stdout>": "command_output",
    "<local-command-stderr>": "command_output",
    "<task-notification>": "notification",
    "<teammate-message": "notification",
    "<user-prompt-submit-hook>": "hook",
    "Stop hook feedback:": "hook",
    "This session is being continued from a previous conversation": "compact_summary",
    "[Request interrupted by user": "interrupt",
    "<bash-input>": "shell",
    "<bash-stdout>": "shell_output",
    "<bash-stderr>": "shell_output",
    "<command-name>": "command",
    "<command-message>": "command",
}
CLAUDE_WRAPPED = ("system-reminder", "ide_opened_file", "ide_selection", "ide_diagnostics")
CLAUDE_COMMAND = re.compile(r"<(command-(?:name|message|args|contents))>(.*?)</\1>", re.DOTALL)
CLAUDE_TYPED = re.compile(r"/[A-Za-z][\w:-]*(?=\s|$)")
CLAUDE_COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
# Commands of the program itself.  They say nothing about the work, whatever follows them.
CLAUDE_BUILT_IN = frozenset("""
    add-dir agents background bashes bug clear compact config context copy cost doctor effort exit export fast
    feedback fork help hooks ide init-verifiers install keybindings login logout mcp memory mobile model
    output-style permissions plan plugin plugins privacy-settings quit release-notes reload-plugins remote-control
    rename resume rewind sandbox settings skills stats status statusline tasks terminal-setup theme todos
    upgrade usage vim voice
""".split())


def claude_said(text):
    """(kind, text) of a user's text: "prompt", None for what is not shown, or a kind of CLAUDE_INJECTED."""
    text = claude_unwrap(text)
    if not text:
        return None, ""
    for beginning, kind in CLAUDE_INJECTED.items():
        if text.startswith(beginning):
            break
    else:
        return "prompt", text
    if kind == "command":
        return claude_command(text)
    if kind in ("command_output", "shell", "shell_output"):
        text = claude_untag(text)
        return (kind, text) if text else (None, "")
    return kind, text


def claude_unwrap(text):
    """Take away what the program or an editor put round a prompt; an unclosed tag stays."""
    text = text.strip("\ufeff \t\r\n")
    while text.startswith("<"):
        tag = next((tag for tag in CLAUDE_WRAPPED if text.startswith(f"<{tag}>")), None)
        end = text.find(f"</{tag}>") if tag else -1
        if end < 0:
            break
        text = text[end + len(tag) + 3:].lstrip("\ufeff \t\r\n")
    return claude_without_reminder(text)


def claude_without_reminder(text):
    """Take away the reminders that the program adds behind prompts and results."""
    while text.endswith("</system-reminder>"):
        start = text.rfind("<system-reminder>")
        if start < 0:
            break
        text = text[:start].rstrip()
    return text


def claude_command(text):
    """The envelope of a slash command as it was typed; a text that only begins like one is a prompt."""
    if CLAUDE_COMMAND.sub("", text).strip():
        return "prompt", text
    parts = {name: value.strip() for name, value in CLAUDE_COMMAND.findall(text)}
    name = parts.get("command-name") or parts.get("command-message", "").partition(" ")[0]
    if not name.strip("/"):
        return None, ""
    return "prompt", f"/{name.lstrip('/')} {parts.get('command-args', '')}".rstrip()


def claude_untag(text):
    """The text between tags like <bash-stdout>, without terminal colours."""
    for tag in ("local-command-stdout", "local-command-stderr", "bash-stdout", "bash-stderr", "bash-input"):
        text = text.replace(f"<{tag}>", "").replace(f"</{tag}>", "\n")
    return CLAUDE_COLOURS.sub("", text).strip()


def claude_user(file, record):
    """A user record: results of tools, a prompt, or what the program said in the user's name."""
    blocks = claude_blocks(record.get("message"))
    results = [block for block in blocks if block.get("type") == "tool_result"]
    detail = record.get("toolUseResult") if len(results) == 1 else None
    for block in results:
        claude_result(file, block, detail)
    hidden = record.get("isMeta") is True or record.get("isVisibleInTranscriptOnly") is True
    if record.get("isCompactSummary") is True:
        claude_injected(file, "compact_summary", "\n".join(claude_text(block, "text") for block in blocks))
    elif not hidden:
        by_program = (record.get("promptSource") == "system"
                      or claude_dict(record.get("origin")).get("kind") == "task-notification")
        claude_say(file, [block for block in blocks if block.get("type") != "tool_result"],
                   record.get("parentUuid"), "notification" if by_program else None)


def claude_say(file, blocks, parent=None, meta=None):
    """Show what a user record says.  All of it that is prompt makes one message; `meta`
    says that none of it is."""
    said = []
    for block in blocks:
        if block.get("type") != "text":
            said.extend(claude_shown(file, block))
            continue
        kind, text = claude_said(claude_text(block, "text"))
        if kind == "prompt" and not meta:
            said.append(text_block(text))
        elif kind:
            claude_injected(file, meta or kind, text)
    if said:
        claude_prompt(file, said, parent)


def claude_injected(file, kind, text):
    """Show what the program said, in the user's name or its own."""
    if kind == "interrupt":
        claude_add(file, "Custom", file.base, [text_block(text)], kind="interrupt")
    elif kind == "shell":
        file.shell = claude_add(file, "ShellCommand", file.base, [code_block(text, "bash")],
                                attributes={"tool": "!"}, command=text)
    elif kind == "shell_output":
        claude_add(file, "ToolResult", file.base, [code_block(text)], name="Bash", is_error=False,
                   call_id=file.shell and file.shell["event_id"])
    else:
        claude_add(file, "SystemMessage", file.base, [text_block(text)], attributes={"meta": kind})


def claude_prompt(file, blocks, parent):
    """A prompt.  One whose parent had a prompt before begins a new branch: the person went back."""
    for call_id in list(file.open):
        claude_settle_call(file, call_id)       # what was not answered by now was interrupted
    text = next((block["text"] for block in blocks if block["type"] == "Text"), "")
    attributes = None
    if file.task in file.tasks:
        file.tasks[file.task].start["event_type"]["data"].setdefault("title", short_title(text) or "sub-agent")
    elif file.task is None:
        if isinstance(parent, str):
            before = file.branches.setdefault(parent, file.prompts)
            attributes = {"rewind": file.prompts - before} if before < file.prompts else None
        file.prompts += 1
        claude_title_from(file, text)
    claude_add(file, "UserMessage", file.base, blocks, attributes=attributes)


def claude_title_from(file, text):
    """Let a prompt count for the title: slash commands only where there is nothing better."""
    typed = CLAUDE_TYPED.match(text)
    name = typed[0][1:] if typed else ""
    arguments = text[len(name) + 1:].strip()
    file.probes += text == "/usage"
    if name == "rename":
        file.titles["custom"] = arguments
    elif name in CLAUDE_BUILT_IN or name and not arguments:
        file.titles.setdefault("command", text)
    elif text:
        file.titles.setdefault("prompt", text)


def claude_attachment(file, record):
    """Of attachments only a prompt that was typed while Claude was busy is shown."""
    attachment = claude_dict(record.get("attachment"))
    if attachment.get("type") == "queued_command" and attachment.get("isMeta") is not True:
        notice = attachment.get("commandMode") == "task-notification"
        claude_say(file, claude_blocks({"content": attachment.get("prompt")}), None, "notification" if notice else None)


# What the model said --------------------------------------------------------

def claude_assistant(file, record):
    """An assistant record: usually one block of a response."""
    message = claude_dict(record.get("message"))
    if record.get("isApiErrorMessage") is True or message.get("model") == "<synthetic>":
        claude_synthetic(file, record, message)
        return
    name = claude_text(message, "id") or file.base
    response = file.run.responses.setdefault(name, ClaudeResponse(file.agent))
    if response.owner != file.agent:        # a sub-agent's copy of what its parent heard
        claude_replay_usage(file.run, response, message)
        return
    if response is not file.response:
        claude_close(file)
        file.response = response
    claude_take_usage(file, response, message)
    earlier, response.grown = response.grown, {}
    for place, block in enumerate(claude_blocks(message)):
        claude_block(file, response, block, place, earlier)
    response.grown = {**earlier, **response.grown}


def claude_synthetic(file, record, message):
    """What the program wrote in the model's name: an API error, or a placeholder for no answer."""
    text = "\n".join(claude_text(block, "text") for block in claude_blocks(message)).strip()
    if record.get("isApiErrorMessage") is True:
        claude_injected(file, "api_error", text or "API error")
    elif text and text != "No response requested.":
        claude_injected(file, "notice", text)


def claude_block(file, response, block, place, earlier):
    """Show one block of a response, and let the first one carry its usage."""
    kind = block.get("type")
    name = f"{file.base}-{kind}" if place == 0 else f"{file.base}-{kind}-{place}"
    if kind in ("text", "thinking"):
        event = claude_spoken(file, response, kind, claude_text(block, kind), name, earlier)
    elif kind in ("tool_use", "server_tool_use", "mcp_tool_use"):
        event = claude_call(file, block, name)
    else:
        shown = claude_shown(file, block)
        event = claude_add(file, "AgentMessage", name, shown) if shown else None
    if event and response.anchor is None:
        response.anchor = event
        file.session.hold(event)


def claude_spoken(file, response, kind, text, name, earlier):
    """A reply or a thought.  A later record may repeat the block with more text: it replaces the earlier."""
    if not text.strip():
        return None
    event = earlier.get(kind)
    if event and text.startswith(event["content"]["blocks"][0]["text"]):
        event["content"]["blocks"][0]["text"] = text
        return None
    event = claude_add(file, "AgentMessage" if kind == "text" else "Thinking", name, [text_block(text)],
                       attributes={"model": response.model} if response.model else None)
    response.grown[kind] = event
    if kind == "text":
        file.reply = event
    return event


# Usage: once for each response ----------------------------------------------

def claude_take_usage(file, response, message):
    """Let a record raise its response's usage, and tell which model it is."""
    model = claude_text(message, "model")
    if model:
        response.model = model
        file.session.model = model
        task = file.tasks.get(file.task)
        if task and not task.model:
            task.model = model
            task.start["attributes"]["model"] = model
            file.session.release(task.start)
    usage = claude_usage(message)
    if usage:
        tally = file.run.tally
        tally["raw_input"] += sum(usage[:3])
        tally["raw_output"] += usage[3]
        tally["duplicates_removed" if response.best else "responses"] += 1
        response.best = tuple(map(max, usage, response.best or usage))


def claude_usage(message):
    """(input, cache writes, cache reads, output, reasoning) of a message, or None where it says nothing."""
    usage = message.get("usage")
    if not isinstance(usage, dict):
        return None
    thinking = claude_dict(usage.get("output_tokens_details")).get("thinking_tokens")
    return (*(whole(usage.get(f"{name}_tokens")) for name in
              ("input", "cache_creation_input", "cache_read_input", "output")), whole(thinking))


def claude_close(file):
    """Another response begins: put what this one used, and is not counted yet, on its first event."""
    response, file.response = file.response, None
    if response is None:
        return
    if response.best and response.best != response.counted:
        event = response.anchor or claude_add(file, "Custom", f"{file.base}-usage", kind="usage")
        more = [best - counted for best, counted in zip(response.best, response.counted or (0,) * 5)]
        claude_charge(file.run, event, more, response.model, file.task)
        response.counted = response.best
    anchor, response.anchor, response.grown = response.anchor, None, {}    # they would keep every event in memory
    if anchor:
        claude_release(file, anchor)


def claude_charge(run, event, usage, model=None, task=None):
    """Put usage on an event and into the session's account."""
    new, written, read, output, reasoning = usage
    figures = {"input_tokens": new + written + read, "output_tokens": output,
               **{key: value for key, value in (("cache_read_tokens", read), ("cache_write_tokens", written),
                                                ("reasoning_tokens", reasoning)) if value}}
    attributes = event.setdefault("attributes", {})
    for key, value in figures.items():
        attributes[key] = attributes.get(key, 0) + value
        run.tally[key.removesuffix("_tokens")] += value
    if model:
        attributes["model"] = model
    if task:
        run.subagents["input"] += figures["input_tokens"]
        run.subagents["output"] += output


def claude_replay_usage(run, response, message):
    """A copy of a response that another file had first: only say how much was not counted."""
    usage = claude_usage(message)
    if usage:
        run.tally["raw_input"] += sum(usage[:3])
        run.tally["raw_output"] += usage[3]
        run.tally["replayed"] += sum(usage[:4])


# Calls and results ----------------------------------------------------------

# Tools whose calls have a kind of their own: kind, its field, the keys of the input that fill it.
CLAUDE_TOOLS = {
    "Read": ("FileRead", "path", ("file_path", "notebook_path")),
    "NotebookRead": ("FileRead", "path", ("notebook_path",)),
    "Grep": ("CodeSearch", "query", ("pattern",)),
    "Glob": ("FileSearch", "pattern", ("pattern",)),
    "Write": ("FileCreate", "path", ("file_path",)),
    "Edit": ("FileEdit", "path", ("file_path",)),
    "MultiEdit": ("FileEdit", "path", ("file_path",)),
    "NotebookEdit": ("FileEdit", "path", ("notebook_path",)),
    "Bash": ("ShellCommand", "command", ("command",)),
    "WebSearch": ("WebSearch", "query", ("query",)),
    "WebFetch": ("WebFetch", "url", ("url",)),
}


def claude_call(file, block, name):
    """A tool call.  It is held until its result arrives, which may complete it; a repeated id is a copy."""
    call_id, tool_name = claude_text(block, "id") or name, claude_text(block, "name") or "unknown"
    given = block.get("input")
    if call_id in file.names:
        return None
    kind, field, keys = CLAUDE_TOOLS.get(tool_name, ("ToolCall", "name", ()))
    value = next((given[key] for key in keys if claude_text(given, key)), None)
    if value is None:
        kind, field, value = "ToolCall", "name", tool_name
    event = claude_add(file, kind, call_id, claude_call_blocks(kind, tool_name, value, given),
                       attributes={"tool": tool_name}, **{field: value})
    if kind == "FileCreate":
        event["attributes"]["diff_lines_added"] = len(claude_text(given, "content").splitlines())
    file.names[call_id] = tool_name
    file.open[call_id] = event, given
    if len(file.open) > CLAUDE_OPEN_CALLS:
        claude_settle_call(file, next(iter(file.open)))
    file.session.hold(event)
    if tool_name in ("Task", "Agent"):
        file.run.descriptions[call_id] = short_title(claude_text(given, "description"))
    return event


def claude_call_blocks(kind, tool_name, value, given):
    """What is shown of a call's input."""
    if kind == "ShellCommand":
        about = claude_text(given, "description")
        return [code_block(value, "bash")] + ([text_block(about)] if about else [])
    if kind == "FileCreate":
        return [code_block(claude_text(given, "content"), language_of(value))]
    if kind == "WebFetch":
        return [text_block(given["prompt"])] if claude_text(given, "prompt") else []
    if tool_name in ("Task", "Agent"):
        what = ", ".join(given[key] for key in ("subagent_type", "description") if claude_text(given, key))
        return [text_block(text) for text in (what, claude_text(given, "prompt")) if text]
    if kind in ("CodeSearch", "FileSearch", "FileRead", "WebSearch"):
        more = {key: item for key, item in given.items() if item != value}
        return [json_block(more)] if more else []
    return [] if kind == "FileEdit" else [json_block(given)]


def claude_result(file, block, detail):
    """The result of a call, which may say more about the call itself."""
    call_id = claude_text(block, "tool_use_id") or next(reversed(file.open), None)
    call, _ = file.open.get(call_id, (None, None))
    name = file.names.get(call_id, "unknown")
    failed = block.get("is_error") is True
    blocks = claude_result_blocks(file, block, detail, name, failed)
    duration = claude_duration(file, call, detail)
    if call_id in file.run.descriptions and duration is not None:
        file.run.durations[call_id] = duration
    if call:
        claude_settle_call(file, call_id, detail, failed, blocks)
    claude_add(file, "ToolResult", f"{file.base}-result-{call_id}", blocks, duration_ms=duration,
               name=name, is_error=failed, call_id=call_id and file.prefix + call_id)
    for task_id in [task_id for task_id, task in file.tasks.items() if task.call and task.call == call_id]:
        claude_end_task(file, task_id)


def claude_settle_call(file, call_id, detail=None, failed=False, blocks=()):
    """Complete a call by its result, or, without one, as well as its input allows; let it go."""
    event, given = file.open.pop(call_id)
    kind, data = event_kind(event)
    detail = claude_dict(detail)
    if kind == "ShellCommand":
        code = claude_exit_code(detail, failed, blocks)
        if code is not None:
            data["exit_code"] = code
    elif kind in ("FileEdit", "FileCreate"):
        diff = claude_patch(detail, data["path"])
        if kind == "FileCreate" and diff:       # Write over a file that was there
            event["event_type"] = {"type": "FileEdit", "data": data}
            event["content"]["blocks"] = []
            event["attributes"].pop("diff_lines_added", None)
        elif kind == "FileEdit" and not diff:
            diff = claude_wanted_diff(given, data["path"])
        if diff and failed:                     # wanted, but not done: it must not count as changed lines
            event["content"]["blocks"] = [code_block(diff, "diff")]
        elif diff:
            data["diff"] = diff
    claude_release(file, event)


def claude_release(file, event):
    """Let an event go, unless it still waits for its result or for the usage of its response."""
    awaited = [call for call, _ in file.open.values()] + [file.response and file.response.anchor]
    if not any(event is other for other in awaited):
        file.session.release(event)


def claude_exit_code(detail, failed, blocks):
    """The exit code of a command: told in words when it failed, 0 when a foreground command did not."""
    if failed:
        said = re.match(r"(?:Error: )?Exit code (\d{1,6})\b", claude_first_text(blocks))
        return int(said[1]) if said else None
    unknown = ("returnCodeInterpretation", "backgroundTaskId")
    if "stdout" not in detail or detail.get("interrupted") is True or any(detail.get(key) for key in unknown):
        return None
    return 0


def claude_first_text(blocks):
    """The first text or code among blocks."""
    return next((block.get("text") or block.get("code") for block in blocks if block["type"] in ("Text", "Code")), "")


def claude_patch(detail, path):
    """The unified diff that the tool itself recorded, or ""."""
    hunks = []
    for hunk in claude_list(detail.get("structuredPatch")):
        lines = [line for line in claude_list(claude_dict(hunk).get("lines")) if isinstance(line, str)]
        if lines:
            old, count, new, now = (whole(hunk.get(key)) for key in ("oldStart", "oldLines", "newStart", "newLines"))
            hunks.append("\n".join([f"@@ -{old},{count} +{new},{now} @@", *lines]))
    path = path.lstrip("/")
    return "\n".join([f"--- a/{path}", f"+++ b/{path}", *hunks]) if hunks else ""


def claude_wanted_diff(given, path):
    """The diff that an edit asked for; the lines' numbers are not known."""
    edits = claude_list(claude_dict(given).get("edits")) or [given]
    pairs = [(claude_text(edit, "old_string"), claude_text(edit, "new_string") or claude_text(edit, "new_source"))
             for edit in edits]
    return "\n".join(filter(None, (unified_diff(old, new, path.lstrip("/")) for old, new in pairs)))


def claude_duration(file, call, detail):
    """Milliseconds that a call took: as the tool says, else from call to result; None where unknown."""
    detail = claude_dict(detail)
    for key, unit in (("totalDurationMs", 1), ("durationMs", 1), ("durationSeconds", 1000)):
        value = detail.get(key)
        if type(value) in (int, float) and 0 <= value < 1e10:
            return round(value * unit)
    return claude_between(call["timestamp"], file.at) if call and file.at else None


def claude_between(first, last):
    """Whole milliseconds from one time to another, at least 0."""
    passed = datetime.fromisoformat(last) - datetime.fromisoformat(first)
    return max(0, round(passed.total_seconds() * 1000))


def claude_result_blocks(file, block, detail, name, failed):
    """What is shown of a result: the file that was read, output as code, other texts, images."""
    read = claude_dict(claude_dict(detail).get("file"))
    if name == "Read" and not failed and claude_text(read, "content"):
        path = claude_text(read, "filePath")
        return [code_block(read["content"], language_of(path), whole(read.get("startLine")))]
    blocks = []
    for part in claude_blocks(block):
        if part.get("type") != "text":
            blocks.extend(claude_shown(file, part))
            continue
        text = claude_without_reminder(claude_text(part, "text").rstrip())
        text = text.removeprefix("<tool_use_error>").removesuffix("</tool_use_error>")
        if "<persisted-output>" in text:
            text = claude_saved_output(file.run.folder, text, detail) or text
        if text and name == "Read" and not failed:
            blocks.append(claude_numbered(text))
        elif text:
            blocks.append(code_block(text) if name in ("Bash", "Grep", "Glob", "BashOutput") else text_block(text))
    return blocks


def claude_numbered(text):
    """A text whose lines are numbered like "   12→code", as code that starts at that line."""
    lines = text.split("\n")
    numbered = [line.partition("→") for line in lines]
    if not all(number.strip().isdecimal() for number, mark, _ in numbered[:5]):
        return text_block(text)
    code = "\n".join(rest if mark and number.strip().isdecimal() else number + mark + rest
                     for number, mark, rest in numbered)
    return code_block(code, None, whole(int(numbered[0][0].strip()[:9])))


def claude_saved_output(folder, text, detail):
    """The whole output that lies in a file of its own.  The path comes from the transcript, so
    only files below the session's own tool-results folder are read; None for others."""
    said = re.search(r"Full output saved to: ([^\r\n]{1,1000})", text)
    path = claude_text(detail, "persistedOutputPath") or said and said[1].strip()
    try:
        allowed = os.path.realpath(os.path.join(folder, "tool-results"))
        if not path or os.path.commonpath([allowed, os.path.realpath(path)]) != allowed:
            return None
        with open_regular(os.path.realpath(path)) as file:
            return clean_text(file.read(CLAUDE_SAVED_OUTPUT).decode("utf-8", "replace"))
    except (OSError, ValueError):
        return None


def claude_shown(file, block):
    """Blocks for content that is neither plain text nor a call: images, documents, what is new to us."""
    kind, source = block.get("type"), claude_dict(block.get("source"))
    media, data = claude_text(source, "media_type"), claude_text(source, "data")
    if kind in ("redacted_thinking", "fallback", "thinking"):
        return []
    if kind == "image" and media and data:
        return [image_block(media, data)]
    if kind in ("image", "document"):
        return [text_block(f"[{claude_text(block, 'title') or kind}]")]
    if kind == "tool_reference":
        return [text_block(claude_text(block, "tool_name"))]
    claude_count_unknown(file, f"block {kind}")
    return [text_block(block["text"])] if claude_text(block, "text") else [json_block(block)]


# Sub-agents -----------------------------------------------------------------

def claude_find_agents(run, path, files):
    """Learn which sub-agents there are and which calls started them, before the events flow."""
    paths = {claude_agent_id(name): name for name in files if name.endswith(".jsonl")}
    starts = {agent: utc(claude_first(claude_head(name), b"timestamp")) or EPOCH for agent, name in paths.items()}
    for agent, name in sorted(paths.items()):
        if agent.startswith("acompact"):
            run.compactions.append((starts[agent], name))
        else:
            run.agents[agent] = name
            run.metas[agent] = claude_dict(load_json(claude_head(name[:-len(".jsonl")] + ".meta.json")))
    links = {agent: meta["toolUseId"] for agent, meta in run.metas.items() if claude_text(meta, "toolUseId")}
    for name in (path, *run.agents.values()):
        if len(links) < len(run.agents):
            claude_search_links(name, run.agents, links)
    for agent, call_id in links.items():
        run.calls.setdefault(call_id, []).append(agent)
    run.loose = sorted(((starts[agent], agent) for agent in run.agents if agent not in links), reverse=True)
    run.compactions.sort(reverse=True)


def claude_agent_id(path):
    return os.path.basename(path).removeprefix("agent-").removesuffix(".jsonl") or "agent"


def claude_search_links(path, agents, links):
    """Look in a transcript for records that tie an agent to a call; only lines that name an agent are parsed."""
    wanted = {agent: agent.encode("utf-8", "replace") for agent in agents
              if agent not in links and agents[agent] != path}
    try:
        for _, line in read_lines(path):
            if not line or not any(mark in line for mark in (b'"agentId"', b"task-id>", b"task_id")):
                continue
            for agent in [agent for agent, name in wanted.items() if name in line]:
                call_id = claude_link(claude_dict(load_json(line)), agent)
                if call_id:
                    links[agent] = call_id
                    del wanted[agent]
            if not wanted:
                return
    except OSError:
        return


def claude_link(record, agent):
    """The id of the call that started an agent, if this record tells."""
    data, detail = claude_dict(record.get("data")), claude_dict(record.get("toolUseResult"))
    if data.get("agentId") == agent:
        return claude_text(record, "parentToolUseID")
    results = claude_blocks(record.get("message"))
    if detail.get("agentId") == agent:
        return next((block["tool_use_id"] for block in results if claude_text(block, "tool_use_id")), "")
    if record.get("type") != "queue-operation" and not any(block.get("type") == "text" for block in results):
        return ""
    for block in claude_blocks(record) + results:
        text = claude_text(block, "text")
        named = re.search(r"<task-id>([^<]+)</task-id>", text), re.search(r"<tool-use-id>([^<]+)</tool-use-id>", text)
        if all(named) and named[0][1] == agent:
            return named[1][1]
        notice = claude_dict(load_json(text.encode())) if text.startswith("{") else {}
        if notice.get("task_id") == agent:
            return claude_text(notice, "tool_use_id")
    return ""


def claude_subagent(run, agent, call_id=None):
    """The events of a sub-agent's file, from TaskStart to TaskEnd."""
    path = run.agents.pop(agent, None)
    if path is None:
        return
    meta, head = run.metas[agent], claude_head(path)
    at = utc(claude_first(head, b"timestamp")) or run.session.created_at
    session = Session("claude-code", "anthropic", agent, at)
    file = ClaudeFile(run, session, path, agent)
    start = claude_start_task(file, agent, claude_text(meta, "description") or run.descriptions.get(call_id), call_id)
    if claude_text(meta, "agentType"):
        start["attributes"]["agent_type"] = meta["agentType"]
    yield from claude_events(file, claude_records(file))


def claude_start_task(file, task_id, title, call_id=None):
    """Open a sub-agent; its TaskStart waits until the model is known.  Without a title its prompt makes one."""
    file.task = task_id
    start = claude_add(file, "TaskStart", f"{task_id}-start", title=title or None, attributes={"subagent_id": task_id})
    file.tasks[task_id] = ClaudeTask(start, call_id)
    file.session.hold(start)
    return start


def claude_end_task(file, task_id):
    """Close a sub-agent."""
    task, before = file.tasks.pop(task_id), (file.task, file.at)
    file.session.release(task.start)
    duration = file.run.durations.get(task.call)
    if duration is None:
        duration = claude_between(task.start["timestamp"], task.last)
    file.task, file.at = task_id, task.last
    summary = f"{task.events} events" + (f", {task.model}" if task.model else "")
    claude_add(file, "TaskEnd", f"{task_id}-end", duration_ms=duration, summary=summary)
    file.task, file.at = before


def claude_sidechain(file, record):
    """The task of a sidechain record that stands in the session's own file, as versions before 2.0 wrote it."""
    parent = record.get("parentUuid")
    task_id = file.side.get(hash(parent)) if isinstance(parent, str) else None
    if task_id is None:
        texts = [claude_text(block, "text") for block in claude_blocks(record.get("message"))]
        call_id = next((call_id for call_id, (_, given) in file.open.items()
                        if claude_text(given, "prompt") and given["prompt"] in texts), None)
        task_id = file.base
        if os.path.basename(file.path).startswith("agent-"):
            task_id = ""                    # the file of a lost session's sub-agent: all of it is the session
        else:
            claude_start_task(file, task_id, file.run.descriptions.get(call_id), call_id)
    if isinstance(record.get("uuid"), str):
        file.side[hash(record["uuid"])] = task_id
    return task_id or None


def claude_count_compactions(file, event):
    """Charge the calls that wrote compaction summaries to the event of the compaction, if they
    began before it; without one, all that are left, to an event of their own."""
    run, total = file.run, [0] * 5
    while run.compactions and (event is None or run.compactions[-1][0] <= event["timestamp"]):
        for usage in claude_compaction_usage(run, run.compactions.pop()[1]):
            total = [sum(pair) for pair in zip(total, usage)]
    if any(total):
        event = event or claude_add(file, "Custom", "compaction-usage", kind="compaction")
        claude_charge(run, event, total)


def claude_compaction_usage(run, path):
    """The usage of each response in a file that nothing else is shown of."""
    hidden, best = ClaudeFile(run, run.session, path), {}
    for place, record in claude_records(hidden):
        message = claude_dict(record.get("message"))
        usage = claude_usage(message) if record.get("type") == "assistant" else None
        name = claude_text(message, "id") or f"{path}@{place}"
        if usage and name not in run.responses:
            best[name] = tuple(map(max, usage, best.get(name, usage)))
    run.responses.update((name, ClaudeResponse("compaction")) for name in best)
    run.tally["responses"] += len(best)
    return best.values()


# Records of the program -----------------------------------------------------

def claude_system(file, record):
    """A system record, by its subtype; one that we do not know is shown if it says something."""
    kind = claude_text(record, "subtype")
    if kind in CLAUDE_SYSTEM_STEPS:
        CLAUDE_SYSTEM_STEPS[kind](file, record)
    elif kind not in CLAUDE_SYSTEM_SILENT:
        claude_count_unknown(file, f"system {kind}")
        claude_notice(file, record)


def claude_count_unknown(file, kind):
    """Count a part of a record that we do not know, like unknown records are counted."""
    file.session.unknown[kind[:80]] = file.session.unknown.get(kind[:80], 0) + 1


def claude_notice(file, record):
    """What the program tells the person."""
    text = CLAUDE_COLOURS.sub("", claude_text(record, "content")).strip()
    if text:
        claude_injected(file, claude_text(record, "subtype") or "notice", text)


def claude_compacted(file, record):
    """The conversation so far was replaced by a summary, which follows."""
    facts = claude_dict(record.get("compactMetadata"))
    attributes = {key: facts[key] for key in ("trigger", "preTokens", "postTokens")
                  if isinstance(facts.get(key), (str, int))}
    text = claude_text(record, "content") or "Conversation compacted"
    event = claude_add(file, "Custom", file.base, [text_block(text)], attributes=attributes, kind="compaction")
    if file.agent is None:
        claude_count_compactions(file, event)


def claude_local_command(file, record):
    claude_say(file, [{"type": "text", "text": claude_text(record, "content")}])


def claude_api_error(file, record):
    """A request that failed and is tried again."""
    error = record.get("error")
    inner = claude_dict(claude_dict(claude_dict(error).get("error")).get("error"))
    text = (claude_text(inner, "message") or claude_text(error, "message") or claude_text(record, "content")
            or "API error")
    if whole(record.get("retryAttempt")):
        text += f" (attempt {record['retryAttempt']} of {whole(record.get('maxRetries'))})"
    claude_injected(file, "api_error", text)


def claude_turn_duration(file, record):
    """How long the turn took belongs to its last reply."""
    duration = record.get("durationMs")
    if type(duration) is int and duration >= 0 and file.reply and file.session.waiting(file.reply):
        file.reply["duration_ms"] = duration
    file.reply = None


def claude_title(key, field):
    """A step for a record that names the session; the last one counts, an empty one takes the name away."""
    def step(file, record):
        if isinstance(record.get(field), str):
            file.titles[key] = record[field].strip()
    return step


def claude_summary(file, record):
    """A title of old; it may belong to another session, whose record it then names."""
    leaf, text = claude_text(record, "leafUuid"), claude_text(record, "summary").strip()
    if leaf and hash(leaf) in file.uuids:
        file.titles["summary"] = text
    elif leaf:
        file.summaries[leaf] = text


def claude_pull_request(file, record):
    if claude_text(record, "prUrl"):
        file.session.attributes["pr"] = record["prUrl"]


def claude_bare_call(file, record):
    """A call that is a record of its own, as some early writers have it."""
    claude_call(file, record, file.base)


def claude_bare_result(file, record):
    if "output" in record or "content" in record:
        claude_result(file, {"content": record.get("output") or record.get("content"), **record}, None)


def claude_nothing(file, record):
    """A record that shows nothing."""


CLAUDE_SYSTEM_STEPS = {
    "": claude_notice,
    "compact_boundary": claude_compacted,
    "local_command": claude_local_command,
    "api_error": claude_api_error,
    "turn_duration": claude_turn_duration,
    "away_summary": claude_notice,
    "informational": claude_notice,
    "model_refusal_fallback": claude_notice,
    "api_refusal": claude_notice,
    "error": claude_notice,
}
CLAUDE_SYSTEM_SILENT = ("stop_hook_summary", "microcompact_boundary", "session_start", "bridge_status")
CLAUDE_STEPS = {
    "user": claude_user,
    "assistant": claude_assistant,
    "attachment": claude_attachment,
    "system": claude_system,
    "summary": claude_summary,
    "custom-title": claude_title("custom", "customTitle"),
    "ai-title": claude_title("ai", "aiTitle"),
    "pr-link": claude_pull_request,
    "tool_use": claude_bare_call,
    "tool_result": claude_bare_result,
    **dict.fromkeys((
        "progress", "file-history-snapshot", "queue-operation", "agent-name", "last-prompt", "mode", "permission-mode",
        "agent-setting", "worktree-state", "relocated", "bridge-session", "frame-link", "atis-latch",
    ), claude_nothing),
}


# Reading what may be of any type --------------------------------------------

def claude_blocks(message):
    """The content of a message or a result as a list of blocks, whatever form it has."""
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [{"type": "text", "text": block} if isinstance(block, str) else block
            for block in claude_list(content) if isinstance(block, (str, dict))]


def claude_text(record, key):
    """The text under a key, or ""."""
    value = record.get(key) if isinstance(record, dict) else None
    return value if isinstance(value, str) else ""


def claude_dict(value):
    return value if isinstance(value, dict) else {}


def claude_list(value):
    return value if isinstance(value, list) else []


# ---------------------------------------------------------------------------
# Codex: CLI, desktop app and IDE extension
#
# Seen: the flat files of 2025, {"timestamp", "type", "payload"} lines of 0.5 to
# 0.2xx, and the item_completed lines that "paginated" threads have had since
# 0.148.  One rollout file is one session.  The same text often stands in two or
# three streams (events, items, response items), so a first look at the file's
# bytes decides which stream is shown.  The stdout of `codex exec --json` is no
# rollout: it has no times and repeats what the rollout says, so it is refused.
#
# To support a new record, add a line to CODEX_STEPS; a new tool, to CODEX_CALLS.
# ---------------------------------------------------------------------------

CODEX_FILE = re.compile(r"rollout-(?:(\d{4}-\d\d-\d\dT\d\d)-(\d\d)-(\d\d)-)?(.*?)(?:\.jsonl|\.jsonl\.zst|\.json)$")
CODEX_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
CODEX_LIVE, CODEX_ARCHIVE = "sessions", "archived_sessions"


# Codex: finding files -------------------------------------------------------

def codex_roots(env, home):
    """$CODEX_HOME, else ~/.codex, on every system."""
    return [Path(env["CODEX_HOME"]).expanduser() if env.get("CODEX_HOME") else Path(home) / ".codex"]


def codex_sources(root):
    """The rollouts of a Codex home, or below any folder, or one file.

    A session that lies there twice comes once: the live one before the archived
    one, the plain one before the compressed one."""
    root = Path(root)
    if root.is_file():
        return [Source(codex_key(root), (root,))]
    homes = [root / name for name in (CODEX_LIVE, CODEX_ARCHIVE) if (root / name).is_dir()]
    best = {}
    for path in codex_files(homes or [root], by_name_only=bool(homes)):
        rank = (CODEX_ARCHIVE in path.parts, path.suffix == ".zst", str(path))
        key = codex_key(path)
        best[key] = min(best.get(key, (rank, path)), (rank, path))
    return [Source(key, (path,)) for key, (_, path) in sorted(best.items())]


def codex_files(folders, by_name_only):
    """Yield the paths of rollouts; files with other names count if they look like one inside."""
    for folder in folders:
        for entry in walk(str(folder)):
            if CODEX_FILE.match(entry.name) or (
                    not by_name_only and entry.name.endswith((".jsonl", ".json")) and codex_inside(entry.path)):
                yield Path(entry.path)


def codex_inside(path):
    """Whether the head of a file is Codex'."""
    try:
        with open_regular(path) as file:
            return codex_recognise(file.read(1 << 16), path)
    except OSError:
        return False


def codex_key(path):
    """What stays the same when Codex archives or compresses a rollout: the thread's id, if the name has it."""
    match = CODEX_FILE.match(path.name)
    return match[4] if match and CODEX_UUID.fullmatch(match[4]) else str(path).removesuffix(".zst")


def codex_id(path):
    """The id of a thread whose file does not say it."""
    match, found = CODEX_FILE.match(path.name), CODEX_UUID.findall(path.name)
    return found[-1] if found else match[4] if match and match[4] else path.stem


def codex_home(path):
    """The Codex home that a rollout lies in, or None."""
    return next((folder.parent for folder in path.parents if folder.name in (CODEX_LIVE, CODEX_ARCHIVE)), None)


def codex_find(path, thread_id):
    """The rollout of another thread of the same home (or folder), or None."""
    home = codex_home(path)
    folders = [home / CODEX_LIVE, home / CODEX_ARCHIVE] if home else [path.parent]
    found = [other for other in codex_files(folders, by_name_only=True) if codex_id(other) == thread_id]
    return min(found, key=lambda other: (CODEX_ARCHIVE in other.parts, other.suffix == ".zst"), default=None)


def codex_recognise(head, path):
    """Whether a file that starts with these bytes is a Codex rollout."""
    named = bool(CODEX_FILE.match(os.path.basename(path)))
    if b'"session_meta"' in head[:400] and b'"payload"' in head:
        return True
    if path.endswith(".json"):
        return b'"items"' in head and (named or b'"session"' in head)
    records = (load_json(line) for line in head.split(b"\n", 20)[:20])
    return any(codex_is_record(record, named) for record in records if isinstance(record, dict))


def codex_is_record(record, named):
    """Whether a record has one of Codex' shapes; a rollout's file name makes up for a plain one."""
    kind = record.get("type")
    if isinstance(record.get("payload"), dict):
        return as_text(kind) in CODEX_TYPES
    if record.get("record_type") == "state" or named and kind in ("message", "function_call"):
        return True
    header = {"id", "timestamp"} <= record.keys() and record.keys() & {"instructions", "git"}
    return bool(header) and not kind and "role" not in record


# Codex: reading files -------------------------------------------------------

def zstd_reader():
    """A function that opens a .zst file for reading, by the first decoder that this machine has, or None."""
    try:
        from compression import zstd
        return zstd.open
    except ImportError:
        pass
    try:
        import zstandard
        return lambda path: io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(
            open_regular(path), read_across_frames=True))
    except ImportError:
        return zstd_program if shutil.which("zstd") else None


@contextmanager
def zstd_program(path):
    """The output of `zstd -dc`, which ends when the pipe is closed."""
    with subprocess.Popen(["zstd", "-dcq", "--", str(path)], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as program:
        yield program.stdout


def codex_open(path):
    """Open a rollout, compressed or not.  Raises Unreadable without a decoder, OSError as usual."""
    if path.suffix != ".zst":
        return open_regular(path)
    open_regular(path).close()
    opener = zstd_reader()
    if not opener:
        raise Unreadable(f"{path.name} is compressed; install zstd, or the Python package zstandard, to read it")
    return opener(path)


def codex_lines(path):
    """Yield (offset, line) of a rollout, compressed or not, without the history that compaction replaced."""
    for offset, line in zstd_lines(path) if path.suffix == ".zst" else read_lines(path):
        cut = line.find(b'"replacement_history"') if line and b'"compacted"' in line else -1
        if cut > 0:
            line = line[:cut].rstrip(b", ") + b'},"type":"compacted"}\n'
        yield offset, line


def zstd_lines(path):
    """Yield (offset, line) of a compressed file, as far as it is sound."""
    with codex_open(path) as file:
        try:
            yield from lines_of(file)
        except Exception:           # each decoder has one of its own for damage
            yield 0, None


def codex_head(path):
    """The first 64 KB of a rollout.  Raises Unreadable if it does not decompress."""
    try:
        with codex_open(path) as file:
            head = file.read(1 << 16)
    except OSError:
        raise
    except Exception as error:      # each decoder has one of its own for damage
        raise Unreadable(f"{path.name} does not decompress: {error}") from error
    if path.suffix == ".zst" and not head:
        raise Unreadable(f"{path.name} does not decompress")
    return head


def codex_records(path, session):
    """Yield (offset, record) of a rollout in any generation."""
    if path.suffix == ".json":
        yield from codex_object(path)
    else:
        yield from records_of(codex_lines(path), session, codex_bulky)


def codex_object(path):
    """Yield the records of a rollout that is one JSON object: {"session": header, "items": […]}."""
    with open_regular(path) as file:
        rollout = as_dict(load_json(file.read(MAX_LINE)))
    if isinstance(rollout.get("session"), dict):
        yield 0, {"type": "session_meta", "payload": rollout["session"]}
    for number, item in enumerate(as_list(rollout.get("items")), 1):
        if isinstance(item, dict):
            yield number, item


def codex_bulky(line):
    """Whether a long line is of a kind that is never shown: not worth decoding."""
    return len(line) > 4096 and any(mark in line[:200] for mark in (b'"world_state"', b'"ghost_snapshot"'))


def codex_parts(record):
    """(key, time, payload) of a record, whatever its generation; the key is looked up in CODEX_STEPS."""
    at = utc(record.get("timestamp") or record.get("created_at"))
    payload = record.get("payload")
    if not isinstance(payload, dict):
        if "record_type" in record or "payload" in record:
            return "state", at, {}
        if "id" in record and not record.keys() & {"type", "role"}:
            return "session_meta", at, record
        return f"response_item/{record.get('type') or 'message'}", at, record
    kind = str(record.get("type"))
    if kind not in ("response_item", "event_msg"):
        return kind, at, payload
    if payload.get("type") == "item_completed":
        return f"item/{as_dict(payload.get('item')).get('type')}", at, as_dict(payload.get("item"))
    return f"{kind}/{payload.get('type') or 'message'}", at, payload


def as_dict(value):
    return value if isinstance(value, dict) else {}


def as_list(value):
    return value if isinstance(value, list) else []


def as_text(value):
    return value if isinstance(value, str) else ""


# Codex: the first look ------------------------------------------------------

# What says the same thing, the best first.  Where a better stream begins, the others end.
CODEX_STREAMS = (
    ("item/UserMessage", "event_msg/user_message", "response_item/message:user"),
    ("item/AgentMessage", "event_msg/agent_message", "response_item/message:assistant"),
    ("item/Reasoning", "event_msg/agent_reasoning", "event_msg/agent_reasoning_raw_content", "response_item/reasoning"),
    ("response_item/web_search_call", "item/WebSearch", "event_msg/web_search_end"),
    ("token_usage_record", "event_msg/token_count"),
)
# What we call a token count, and what Codex has called it.
CODEX_TOKENS = {"input": ("input_tokens", "prompt"), "output": ("output_tokens", "completion"),
                "cache_read": ("cached_input_tokens",), "cache_write": ("cache_write_input_tokens",),
                "reasoning": ("reasoning_output_tokens",)}
CODEX_TURN_STARTS = ("event_msg/task_started", "event_msg/turn_started")
CODEX_TYPES = {"session_meta", "turn_context", "response_item", "event_msg", "compacted", "world_state",
               "token_usage_record", "inter_agent_communication", "inter_agent_communication_metadata",
               "security_risk_score", "realtime_item"}


class CodexLook:
    """What a first pass over the bytes of a rollout tells."""

    def __init__(self):
        self.meta = None            # payload of the first session_meta
        self.copied_meta = None     # of a later one that is another thread's
        self.records = 0            # how many records decided something
        self.turn = 0               # offset of the latest turn's start
        self.has_turn_ids = False
        self.begins = {}            # stream -> offset where it begins
        self.ends = {}              # stream -> offset where a better one takes over


def codex_look(path):
    """Read a rollout's bytes once, decoding only the lines that decide something."""
    look = CodexLook()
    waiting = {codex_mark(key): key for keys in CODEX_STREAMS for key in keys[:-1]}
    for offset, record in codex_deciding(path, look, waiting):
        key, _, payload = codex_parts(record)
        look.records += 1
        if key == "session_meta":
            codex_look_at_meta(look, payload)
        elif key in CODEX_TURN_STARTS:
            look.turn = offset
        look.has_turn_ids = look.has_turn_ids or bool(codex_turn_id(key, payload))
        if waiting.get(codex_mark(key)) == key:
            del waiting[codex_mark(key)]
            # A thread may go on in a newer version: what items replace ends with the turn before.
            look.begins[key] = look.turn if key.startswith(("item/", "token_usage")) else 0
    for keys in CODEX_STREAMS:
        for place, key in enumerate(keys):
            look.ends[key] = min((look.begins[better] for better in keys[:place] if better in look.begins),
                                 default=sys.maxsize)
    return look


def codex_mark(key):
    """The bytes that are in every line of a stream."""
    return f'"{key.rpartition("/")[2]}"'.encode()


def codex_deciding(path, look, waiting):
    """Yield (offset, record) of the lines that may hold a header, a turn's start or a stream still waited for."""
    if path.suffix == ".json":
        yield from codex_object(path)
        return
    starts = (b'"session_meta"', b'"task_started"', b'"turn_started"')
    for offset, line in codex_lines(path):
        if line and (any(mark in line for mark in starts) or any(mark in line for mark in waiting)
                     or not look.has_turn_ids and b'"turn_context"' in line or not look.records):
            record = load_json(line)
            if isinstance(record, dict):
                yield offset, record


def codex_look_at_meta(look, payload):
    """The first header is the thread's own; one of another thread was copied from its parent."""
    if look.meta is None:
        look.meta = {key: value for key, value in payload.items() if key not in ("base_instructions", "instructions")}
    elif look.copied_meta is None and as_text(payload.get("id")) != as_text(look.meta.get("id")):
        look.copied_meta = {"id": as_text(payload.get("id"))}


def codex_turn_id(key, payload):
    """The id of the turn that a record opens, or ""."""
    return as_text(payload.get("turn_id")) if key == "turn_context" or key in CODEX_TURN_STARTS else ""


# Codex: one thread ----------------------------------------------------------

class CodexThread:
    """A rollout while it is being read: what later records need to know of earlier ones."""

    def __init__(self, session, look):
        self.session = session
        self.look = look
        self.number = 0             # of the record, for events without an id of their own
        self.offset = 0
        self.model = None           # of the current turn
        self.turn_open = False
        self.replied = False        # whether the current turn has shown a reply
        self.aborted = False        # whether the latest turn was, with no prompt since
        self.last_prompt = None
        self.thread_name = None
        self.compacting = False     # the event before was the same compaction
        self.calls = {}             # call id -> call that waits for its result
        self.names = {}             # call id -> tool name, of every call
        self.open = set()           # id() of the events of waiting calls
        self.anchor = None          # the latest event of the model's, where usage goes
        self.parent_turns = None    # turn ids of the parent, while its copied history passes
        self.totals = dict.fromkeys(CODEX_TOKENS, 0)
        self.latest = None          # latest usage of a file that gives no totals
        self.responses = set()
        self.usage = dict.fromkeys(("raw_input", "raw_output", *CODEX_TOKENS, "responses",
                                    "duplicates_removed", "replayed"), 0)


def codex_events(path, thread):
    """Yield the events of a rollout."""
    session, thread.parent_turns = thread.session, codex_gate(path, thread)
    for thread.offset, record in codex_records(path, session):
        thread.number += 1
        key, at, payload = codex_parts(record)
        if thread.parent_turns is not None and codex_is_copied(thread, key, payload):
            continue
        session.seen_at(at)
        if key not in CODEX_STEPS:
            session.unknown_record(key, f"codex-{thread.number}", at, payload)
        elif step := CODEX_STEPS[key]:
            step(thread, at, payload)
        yield from session.settled()
    codex_finish(path, thread)
    yield from session.rest()


def codex_finish(path, thread):
    """Header facts that are known at the end."""
    session = thread.session
    codex_header(session, thread.look.meta or {})
    name = codex_stored_name(path, session.session_id)
    session.title = thread.thread_name if name is None else name or None
    if thread.turn_open:
        session.attributes["in_progress"] = True
    if len(session.attributes.get("all_cwds", ())) < 2:
        session.attributes.pop("all_cwds", None)
    session.attributes["usage"] = thread.usage


def codex_header(session, meta):
    """Where a thread comes from, as its first session_meta says."""
    attributes = session.attributes
    session.seen_at(utc(meta.get("timestamp")))
    session.tool_version = as_text(meta.get("cli_version")) or None
    git = {key: value for key, value in as_dict(meta.get("git")).items() if value and isinstance(value, str)}
    source = meta.get("source")
    agent = as_dict(source).get("subagent")
    spawn = as_dict(as_dict(agent).get("thread_spawn"))
    facts = {
        "cwd": as_text(meta.get("cwd")) or attributes.get("cwd"),
        "originator": as_text(meta.get("originator")),
        "source": as_text(source) or "subagent" * bool(agent),
        "git": git,
        "git_branch": git.get("branch") if git.get("branch") != "HEAD" else None,
        "forked_from": as_text(meta.get("forked_from_id")),
        "agent_role": as_text(meta.get("agent_role")) or as_text(spawn.get("agent_role")),
        "agent_nickname": as_text(meta.get("agent_nickname")) or as_text(spawn.get("agent_nickname")),
        "subagent_kind": as_text(agent) or as_text(as_dict(agent).get("other")),
        "model_provider": as_text(meta.get("model_provider")),
    }
    auxiliary = bool(agent) or meta.get("thread_source") == "subagent" or bool(as_text(meta.get("parent_thread_id")))
    facts["session_role"] = "auxiliary" if auxiliary else None
    parents = [spawn.get("parent_thread_id"), meta.get("parent_thread_id"), meta.get("forked_from_id"),
               meta.get("session_id") if auxiliary else None]
    facts["parent_session_id"] = next((parent for parent in map(as_text, parents)
                                       if parent and parent != session.session_id), None)
    attributes.update({name: fact for name, fact in facts.items() if fact})


def codex_stored_name(path, thread_id):
    """What Codex' own stores call a thread; "" where the name was cleared, None where they say nothing."""
    home = codex_home(path)
    if not home:
        return None
    databases = [*home.glob("state_*.sqlite"), *home.glob("sqlite/state_*.sqlite")]
    version = re.compile(r"\d{1,9}")
    for database in sorted(databases, key=lambda file: int((version.findall(file.name) or [0])[-1]), reverse=True)[:1]:
        if name := codex_database_name(database, thread_id):
            return name
    return codex_index_name(home / "session_index.jsonl", thread_id)


def codex_database_name(database, thread_id):
    """The name that a person gave a thread, from state_N.sqlite, or None."""
    try:
        connection = sqlite3.connect(database.resolve().as_uri() + "?mode=ro", uri=True, timeout=0.2)
        try:
            row = connection.execute("SELECT name FROM threads WHERE id = ?", (thread_id,)).fetchone()
        finally:
            connection.close()
    except (sqlite3.Error, OSError, ValueError):
        return None
    return clean_text(as_text(row and row[0])).strip() or None


def codex_index_name(index, thread_id):
    """A thread's name in session_index.jsonl, where the last row counts and a blank one clears it."""
    name = None
    try:
        for _, line in read_lines(index):
            row = as_dict(load_json(line)) if line and thread_id.encode() in line else {}
            if row.get("id") == thread_id:
                name = as_text(row.get("thread_name")).strip()
    except OSError:
        pass
    return name


# Codex: history copied from a parent ----------------------------------------

def codex_gate(path, thread):
    """The turn ids of the thread that this one was copied from, or None where nothing is to be left out.

    Copied lines get new times, so only turn ids tell them from the thread's own."""
    meta, copied = thread.look.meta or {}, thread.look.copied_meta
    parent = as_text(meta.get("forked_from_id")) or as_text(copied and copied["id"])
    if not parent:
        return None
    found = codex_find(path, parent) if thread.look.has_turn_ids else None
    try:
        if found and found != path:
            return codex_turns_of(found)
    except OSError:
        pass
    thread.session.attributes["replay_unverified"] = True
    return None


def codex_turns_of(path):
    """The ids of all turns in a rollout, from its lines that start one."""
    turns = set()
    for _, line in codex_lines(path):
        if line and (b'"turn_context"' in line or b'"task_started"' in line or b'"turn_started"' in line):
            key, _, payload = codex_parts(as_dict(load_json(line)))
            turns.add(codex_turn_id(key, payload))
    return turns


def codex_is_copied(thread, key, payload):
    """Whether a record still belongs to the copied history; the first turn that the parent has not ends it."""
    turn = codex_turn_id(key, payload)
    if turn and turn not in thread.parent_turns:
        thread.parent_turns = None
        return False
    if key == "event_msg/token_count":
        total = as_dict(payload.get("info")).get("total_token_usage")
        growth = codex_growth(thread, total) if isinstance(total, dict) else {}
        thread.usage["replayed"] += growth.get("input", 0) + growth.get("output", 0)
    elif key == "token_usage_record":
        thread.responses.add(as_text(payload.get("response_id")))
    return True


# Codex: prompts, replies, thinking ------------------------------------------

# Text that Codex puts into user messages: how it starts, how it ends, and what it is
# shown as (SystemMessage with that meta) or None.
CODEX_INJECTED = (
    ("# AGENTS.md instructions", "</INSTRUCTIONS>", None),
    ("<user_instructions>", "</user_instructions>", None),
    ("<environment_context>", "</environment_context>", None),
    ("<INSTRUCTIONS>", "</INSTRUCTIONS>", None),
    ("<permissions instructions>", "</permissions instructions>", None),
    ("<turn_aborted>", "</turn_aborted>", None),
    ("<subagent_notification>", "</subagent_notification>", "notification"),
    ("<user_shell_command>", "</user_shell_command>", "command_output"),
    ("<skill>", "</skill>", None),
    ("<skills_instructions>", "</skills_instructions>", None),
    ("<goal_context>", "</goal_context>", None),
    ("<codex_internal_context", "</codex_internal_context>", None),
    ("<recommended_plugins>", "</recommended_plugins>", None),
    ("<collaboration_mode>", "</collaboration_mode>", None),
)
CODEX_REQUEST = "## My request for Codex:"


def codex_add(thread, kind, at, item_id, blocks=(), attributes=None, /, **data):
    """Add an event; records without an id are named by their number in the file."""
    thread.compacting = False
    event_id = as_text(item_id) or f"codex-{thread.number}"
    return thread.session.event(kind, event_id, at, blocks, attributes=attributes or {}, **data)


def codex_superseded(thread, key):
    """Whether a better stream says what this record says."""
    return thread.offset >= thread.look.ends[key]


def codex_content(content):
    """(text, other blocks) of a message's content: a string, or a list of text and image items."""
    if isinstance(content, str):
        return content, []
    texts, blocks = [], []
    for item in as_list(content):
        if isinstance(item, str):
            texts.append(item)
        elif isinstance(item, dict):
            image = item.get("image_url") or item.get("path") if "image" in as_text(item.get("type")) else None
            blocks += codex_images([as_dict(image).get("url") or image] if image else [])
            texts.append(as_text(item.get("text")))
    return "\n".join(text for text in texts if text), blocks


def codex_images(values):
    """Image blocks of data URLs; other addresses and paths become references."""
    blocks = []
    for value in map(as_text, as_list(values)):
        media_type, found, data = value[5:].partition(";base64,")
        if value.startswith("data:") and found:
            blocks.append(image_block(media_type, data))
        elif value.startswith(("http:", "https:")):
            blocks.append({"type": "Reference", "uri": value, "media_type": "image/*"})
        elif value and not value.startswith("data:"):
            blocks.append({"type": "File", "path": value})
    return blocks


def codex_without_injected(thread, at, text, typed):
    """A prompt without what Codex put before it; "" if nothing is left.

    In streams that hold what a person typed, a start that is never closed is theirs."""
    text = text.lstrip("\ufeff \t\r\n")
    while found := next((entry for entry in CODEX_INJECTED if text.startswith(entry[0])), None):
        _, closing, meta = found
        body, closed, rest = text.partition(closing)
        if typed and not closed:
            break
        if meta:
            codex_add(thread, "SystemMessage", at, None, [text_block(body + closed)], {"meta": meta})
        text = rest.lstrip()
    return text


def codex_prompt(thread, at, item_id, text, images, typed):
    """Show what a person asked, unless it is only what Codex said in their name."""
    had_text = bool(text.strip())
    text = codex_without_injected(thread, at, text, typed)
    if had_text and not text and not images:
        return
    before, found, request = text.partition(CODEX_REQUEST)
    if found and (not before or before.endswith("\n")):
        text = request.strip() or ("[Image]" if images else "[Pasted text]")
    text = text.strip() or "[Image]" * bool(images)
    again, thread.aborted = thread.aborted and text == thread.last_prompt, False
    if not text or again:
        return
    thread.last_prompt = text
    codex_let_go(thread)
    thread.session.prompt = thread.session.prompt or text
    codex_add(thread, "UserMessage", at, item_id, [text_block(text), *images])


def codex_reply(thread, at, item_id, text, blocks=(), phase=None):
    """Show what the model said."""
    if text.strip() or blocks:
        thread.replied = True
        facts = {"model": thread.model, "phase": as_text(phase)}
        codex_say(thread, codex_add(thread, "AgentMessage", at, item_id, [text_block(text)] * bool(text) + list(blocks),
                                    {name: fact for name, fact in facts.items() if fact}))


def codex_think(thread, at, item_id, text):
    if text.strip():
        codex_say(thread, codex_add(thread, "Thinking", at, item_id, [text_block(text)]))


def codex_say(thread, event):
    """An event of the model's waits for the usage of its response; the one before need not any more."""
    thread.session.hold(event)
    codex_let_go(thread)
    thread.anchor = event


def codex_let_go(thread):
    """The latest event of the model's will get no usage; it may still wait for its result."""
    event, thread.anchor = thread.anchor, None
    if event is not None and id(event) not in thread.open:
        thread.session.release(event)


def codex_message(thread, at, item):
    """response_item/message: only what no better stream says."""
    role = item.get("role")
    if role not in ("user", "assistant") or codex_superseded(thread, f"response_item/message:{role}"):
        return
    text, blocks = codex_content(item.get("content") or item.get("message"))
    if role == "user":
        codex_prompt(thread, at, item.get("id"), text, blocks, typed=False)
    else:
        codex_reply(thread, at, item.get("id"), text, blocks, item.get("phase"))


def codex_user_event(thread, at, event):
    if not codex_superseded(thread, "event_msg/user_message"):
        images = codex_images(as_list(event.get("images")) + as_list(event.get("local_images")))
        codex_prompt(thread, at, None, as_text(event.get("message")), images, typed=True)


def codex_user_item(thread, at, item):
    codex_prompt(thread, at, item.get("id"), *codex_content(item.get("content")), typed=True)


def codex_agent_event(thread, at, event):
    if not codex_superseded(thread, "event_msg/agent_message"):
        codex_reply(thread, at, None, as_text(event.get("message")), phase=event.get("phase"))


def codex_agent_item(thread, at, item):
    codex_reply(thread, at, item.get("id"), *codex_content(item.get("content")), item.get("phase"))


def codex_reasoning(thread, at, item):
    """response_item/reasoning: its summary, else its text; encrypted content is nobody's to read."""
    if not codex_superseded(thread, "response_item/reasoning"):
        text = codex_content(item.get("summary"))[0] or codex_content(item.get("content"))[0]
        codex_think(thread, at, item.get("id"), text)


def codex_reasoning_item(thread, at, item):
    parts = as_list(item.get("summary_text")) or as_list(item.get("raw_content"))
    codex_think(thread, at, item.get("id"), "\n\n".join(part for part in parts if isinstance(part, str)))


def codex_reasoning_event(thread, at, event):
    if not codex_superseded(thread, f"event_msg/{event['type']}"):
        codex_think(thread, at, None, as_text(event.get("text")) or as_text(event.get("message")))


def codex_inter_agent(thread, at, item):
    """response_item/agent_message: what one agent writes to another."""
    text, _ = codex_content(item.get("content"))
    if text:
        codex_add(thread, "SystemMessage", at, item.get("id"), [text_block(text)], {"meta": "notification"})


# Codex: turns ---------------------------------------------------------------

def codex_turn_context(thread, at, turn):
    """The model changes from turn to turn; an empty one is unknown again."""
    model, cwd = as_text(turn.get("model")), as_text(turn.get("cwd"))
    thread.model = model or None
    thread.session.model = model or thread.session.model
    if cwd:
        thread.session.attributes.setdefault("cwd", cwd)
        add_new(thread.session.attributes.setdefault("all_cwds", []), cwd)


def codex_turn_started(thread, at, turn):
    thread.turn_open, thread.replied = True, False


def codex_turn_complete(thread, at, turn):
    """The end of a turn repeats its last reply; it is shown only if nothing else did."""
    if not thread.replied:
        codex_reply(thread, at, None, as_text(turn.get("last_agent_message")))
    thread.turn_open = thread.aborted = False


def codex_turn_aborted(thread, at, turn):
    thread.turn_open, thread.aborted = False, True
    reason = as_text(turn.get("reason"))
    codex_add(thread, "Custom", at, None, [text_block(reason)] * bool(reason), kind="interrupt")


def codex_compaction(thread, at, item):
    """One boundary for the two or three records that tell of a compaction."""
    if not thread.compacting:
        text = as_text(item.get("message"))
        codex_add(thread, "Custom", at, item.get("id"), [text_block(text)] * bool(text), kind="compaction")
    thread.compacting = True


def codex_problem(thread, at, event):
    text = as_text(event.get("message"))
    codex_add(thread, "SystemMessage", at, None, [text_block(text)], {"meta": "api_error"})


def codex_renamed(thread, at, event):
    thread.thread_name = as_text(event.get("thread_name")).strip() or None


def codex_marker(kind):
    """A step that shows a record's text, or the record, as Custom."""
    def step(thread, at, item):
        text = as_text(item.get("text"))
        codex_add(thread, "Custom", at, item.get("id"), [text_block(text) if text else json_block(item)], kind=kind)
    return step


# Codex: usage ---------------------------------------------------------------

def codex_counts(usage):
    """Token counts of a usage record of any age.  Cached input is part of the input already."""
    usage = as_dict(usage)
    return {part: max(whole(usage.get(name)) for name in names) for part, names in CODEX_TOKENS.items()}


def codex_growth(thread, total):
    """By how much running totals have grown; totals that fall have started again from zero."""
    total, before = codex_counts(total), thread.totals
    if total["input"] < before["input"] or total["output"] < before["output"]:
        before = dict.fromkeys(CODEX_TOKENS, 0)
    thread.totals = total
    return {part: max(0, total[part] - before[part]) for part in CODEX_TOKENS}


def codex_token_count(thread, at, event):
    """event_msg/token_count: often repeated, so only the growth of its totals counts."""
    info = as_dict(event.get("info")) or as_dict(event.get("usage")) or event
    total, latest = info.get("total_token_usage"), codex_counts(info.get("last_token_usage") or info)
    codex_add_raw(thread, latest)
    if codex_superseded(thread, "event_msg/token_count"):
        thread.usage["duplicates_removed"] += any(latest.values())
    elif isinstance(total, dict):
        codex_use(thread, at, codex_growth(thread, total), repeated=any(latest.values()))
    else:
        again, thread.latest = latest == thread.latest, latest
        codex_use(thread, at, dict.fromkeys(latest, 0) if again else latest, repeated=again and any(latest.values()))


def codex_usage_record(thread, at, record):
    """token_usage_record: the usage of one response, by its id."""
    counts, response = codex_counts(record.get("usage")), as_text(record.get("response_id"))
    codex_add_raw(thread, counts)
    if response in thread.responses:
        thread.usage["duplicates_removed"] += 1
        return
    if response:
        thread.responses.add(response)
    codex_use(thread, at, counts, repeated=False)


def codex_add_raw(thread, counts):
    thread.usage["raw_input"] += counts["input"]
    thread.usage["raw_output"] += counts["output"]


def codex_use(thread, at, counts, repeated):
    """Count tokens once, and put them on the event that the response ended with."""
    if not any(counts.values()):
        thread.usage["duplicates_removed"] += repeated
        return
    thread.usage["responses"] += 1
    counts["cache_read"] = min(counts["cache_read"], counts["input"])
    event = thread.anchor
    if event is None or not thread.session.waiting(event):
        event = codex_add(thread, "Custom", at, None, kind="token_count")
    attributes = event.setdefault("attributes", {})
    for part, count in counts.items():
        thread.usage[part] += count
        name = f"{part}_tokens"
        if count:
            attributes[name] = attributes.get(name, 0) + count
    if thread.model:
        attributes["model"] = thread.model
    codex_let_go(thread)


# Codex: tool calls ----------------------------------------------------------

class CodexCall:
    """A tool call that waits for its result, and what enriches both on the way."""

    def __init__(self, call_id, name, arguments):
        self.id = call_id
        self.name = name
        self.arguments = arguments  # a dict, or the raw text where it is none
        self.events = []
        self.exit_code = None
        self.duration_ms = None
        self.failed = False
        self.output = ""            # what was captured beside the result

    def text(self, *names):
        """The first argument of these names that is a text, or the raw text."""
        if isinstance(self.arguments, str):
            return self.arguments
        return next((self.arguments[name] for name in names if as_text(self.arguments.get(name))), "")


def codex_call(thread, at, item):
    """A call of any generation; one without a name is no call."""
    name = as_text(item.get("name")) or as_text(as_dict(item.get("function")).get("name"))
    if not name:
        return
    if space := as_text(item.get("namespace")):
        name = f"{space}{name}" if space.endswith("__") else f"{space}.{name}"
    call = CodexCall(as_text(item.get("call_id")) or as_text(item.get("id")) or f"codex-{thread.number}",
                     name, codex_arguments(item))
    codex_open_call(thread, at, call, CODEX_CALLS.get(name.rsplit(".", 1)[-1], codex_plain_call))


def codex_open_call(thread, at, call, step):
    """Show a call and keep it for its result."""
    if call.id in thread.calls:
        codex_close_call(thread, thread.calls[call.id])
    step(thread, at, call)
    thread.names[call.id] = call.name
    thread.calls[call.id] = call
    for event in call.events:
        event.setdefault("attributes", {})["tool"] = call.name
        thread.open.add(id(event))
    codex_say(thread, call.events[-1])
    for event in call.events:
        thread.session.hold(event)


def codex_arguments(item):
    """A call's arguments as a dict; raw text where they are no JSON object."""
    for value in (item.get("arguments"), item.get("input")):
        parsed = load_json(value.encode("utf-8", "replace")) if isinstance(value, str) and value[:1] == "{" else value
        if isinstance(parsed, dict) and parsed:
            return parsed
        if isinstance(value, str) and value.strip() not in ("", "{}", "[]"):
            return value
    return {}


def codex_plain_call(thread, at, call):
    """Any tool that HAIL has no kind for."""
    block = text_block(call.arguments) if isinstance(call.arguments, str) else json_block(call.arguments)
    call.events = [codex_add(thread, "ToolCall", at, call.id, [block], name=call.name)]


def codex_path_call(kind, field, *names):
    """A step for a tool whose event needs one text argument."""
    def step(thread, at, call):
        value = isinstance(call.arguments, dict) and call.text(*names)
        if not value:
            return codex_plain_call(thread, at, call)
        call.events = [codex_add(thread, kind, at, call.id, [json_block(call.arguments)] * (len(call.arguments) > 1),
                                 **{field: value})]
    return step


def codex_shell(thread, at, call):
    """A command line: text, or an argument list that often is `bash -lc TEXT`."""
    command = codex_command(as_dict(call.arguments).get("command")) or call.text("cmd", "command")
    patch = "*** Begin Patch" in command and "apply_patch" in command
    if patch and codex_patch_events(thread, at, call, command):
        return
    if not command:
        return codex_plain_call(thread, at, call)
    blocks = [code_block(command, "bash")]
    reason = as_text(as_dict(call.arguments).get("justification"))
    folder = call.text("workdir", "cwd") if isinstance(call.arguments, dict) else ""
    call.events = [codex_add(thread, "ShellCommand", at, call.id, blocks + [text_block(reason)] * bool(reason),
                             {"cwd": folder} if folder else None, command=command)]


def codex_command(command):
    """The command line of an argument list; what a shell was started for stands for itself."""
    words = [word for word in as_list(command) if isinstance(word, str)]
    if len(words) == 3 and words[1] in ("-c", "-lc", "-Command", "/c"):
        return words[2]
    return " ".join(words)


def codex_local_shell(thread, at, item):
    """response_item/local_shell_call: a shell call with its command in an action."""
    codex_call(thread, at, {**item, "name": "local_shell", "arguments": as_dict(item.get("action"))})


def codex_code(thread, at, call):
    """`exec`: a program of the model's; what it did comes as items of their own."""
    if isinstance(call.arguments, dict):
        return codex_shell(thread, at, call)
    program = code_block(call.arguments, "javascript")
    call.events = [codex_add(thread, "ToolCall", at, call.id, [program], name=call.name)]


def codex_write_file(thread, at, call):
    path, content = as_dict(call.arguments).get("path"), as_dict(call.arguments).get("content")
    if not as_text(path):
        return codex_plain_call(thread, at, call)
    call.events = [codex_add(thread, "FileCreate", at, call.id, [code_block(as_text(content), language_of(path))],
                             path=path)]


def codex_web_search(thread, at, item):
    """A search of the web, a page that was opened, or a text looked up in one."""
    key = {"WebSearch": "item/WebSearch", "web_search_end": "event_msg/web_search_end"}.get(item.get("type"))
    if key and codex_superseded(thread, key):
        return
    action = as_dict(item.get("action"))
    url, item_id = as_text(action.get("url")), as_text(item.get("id")) or as_text(item.get("call_id"))
    queries = [query for query in (action.get("query"), item.get("query"), *as_list(action.get("queries")))
               if query and isinstance(query, str)]
    tool = {"tool": "web_search"}
    if url:
        pattern = as_text(action.get("pattern"))
        sought = [text_block(f"Find: {pattern}")] if pattern else []
        event = codex_add(thread, "WebFetch", at, item_id, sought, tool, url=url)
    elif queries:
        others = list(dict.fromkeys(queries))[1:]
        event = codex_add(thread, "WebSearch", at, item_id, map(text_block, others), tool, query=queries[0])
    else:
        event = codex_add(thread, "ToolCall", at, item_id, [json_block(action)], tool, name="web_search")
    codex_say(thread, event)


def codex_image(thread, at, item):
    """response_item/image_generation_call: the picture comes as base64."""
    result, prompt = as_text(item.get("result")), as_text(item.get("revised_prompt"))
    codex_say(thread, codex_add(thread, "ImageGenerate", at, item.get("id"),
                                [image_block("image/png", result)] * bool(result), prompt=prompt))


# Codex: patches -------------------------------------------------------------

CODEX_PATCH = {"*** Update File: ": "FileEdit", "*** Add File: ": "FileCreate", "*** Delete File: ": "FileDelete"}
CODEX_CHANGES = {"update": "FileEdit", "add": "FileCreate", "delete": "FileDelete"}


def codex_patch(thread, at, call):
    """apply_patch: one event for each file."""
    text = codex_command(as_dict(call.arguments).get("command")) or call.text("patch", "input", "diff")
    if not codex_patch_events(thread, at, call, text):
        codex_plain_call(thread, at, call)


def codex_patch_events(thread, at, call, text):
    call.events = [codex_file_event(thread, at, call.id, number, *change)
                   for number, change in enumerate(codex_patch_changes(text), 1)]
    return call.events


def codex_patch_changes(text):
    """[(event kind, path, text, new path or None)] of a patch; the text is a diff, or a new file's content."""
    changes, lines = [], None
    for line in text.split("\n"):
        start = next((start for start in CODEX_PATCH if line.startswith(start)), None)
        if start:
            lines = []
            changes.append([CODEX_PATCH[start], line[len(start):].strip(), lines, None])
        elif line.startswith("*** Move to: ") and changes:
            changes[-1][3] = line[len("*** Move to: "):].strip()
        elif line.startswith("*** End Patch"):
            lines = None
        elif lines is not None and not line.startswith("*** "):
            lines.append(line if line[:1] in ("+", "-", " ", "@") else " " + line)
    return [(kind, path, codex_patch_text(kind, lines), target) for kind, path, lines, target in changes if path]


def codex_patch_text(kind, lines):
    if kind == "FileCreate":
        lines = [line[1:] for line in lines]
    return "\n".join(lines)


def codex_file_event(thread, at, call_id, number, kind, path, text, target):
    """The event of one changed file: the first has the call's id, the others are numbered."""
    item_id = call_id if number == 1 else f"{call_id}:{number}"
    facts = {"moved_to": target} if target else {}
    if kind == "FileEdit":
        diff = codex_diff(path, target, text)
        return codex_add(thread, kind, at, item_id, [], facts, path=path, diff=diff or None)
    if kind == "FileCreate":
        facts["diff_lines_added"] = len(text.splitlines())
        return codex_add(thread, kind, at, item_id, [code_block(text, language_of(path))], facts, path=path)
    return codex_add(thread, kind, at, item_id, [], facts, path=path)


def codex_diff(path, target, text):
    """Hunks with the two lines that name the file; "" without hunks."""
    if not text.strip() or text.startswith("--- "):
        return text.strip()
    return f"--- a/{path}\n+++ b/{target or path}\n{text}"


def codex_changes(changes):
    """The files of patch_apply_end or a FileChange item, as codex_patch_changes gives them."""
    found = []
    for path, change in as_dict(changes).items():
        change = as_dict(change)
        action = as_text(change.get("type")) or next((name for name in CODEX_CHANGES if name in change), "")
        facts = as_dict(change.get(action)) or change
        if path and action in CODEX_CHANGES:
            text = as_text(facts.get("unified_diff")) or as_text(facts.get("content"))
            found.append((CODEX_CHANGES[action], path, text, as_text(facts.get("move_path")) or None))
    return found


def codex_patch_end(thread, at, item):
    """What a patch did: line numbers for its diffs, and whether it worked."""
    call_id = as_text(item.get("call_id")) or as_text(item.get("id"))
    failed = item.get("success") is False or item.get("status") in ("failed", "declined")
    call, changes = thread.calls.get(call_id), codex_changes(item.get("changes"))
    if call:
        call.failed = call.failed or failed
        codex_better_diffs(thread, call, changes)
    elif call_id not in thread.names and changes:
        call = CodexCall(call_id, "apply_patch", {})
        call.failed = failed
        codex_open_call(thread, at, call, lambda *_: call.events.extend(
            codex_file_event(thread, at, call_id, number, *change) for number, change in enumerate(changes, 1)))
        codex_result(thread, at, call, [text_block(text) for text in (as_text(item.get("stdout")),
                                                                      as_text(item.get("stderr"))) if text])


def codex_better_diffs(thread, call, changes):
    """Take the tool's own diffs, which know the line numbers, for the events of a patch."""
    for event in filter(thread.session.waiting, call.events):
        kind, data = event_kind(event)
        for change, path, text, target in changes:
            if kind == change == "FileEdit" and text and (path == data["path"] or path.endswith("/" + data["path"])):
                data["diff"] = codex_diff(data["path"], target, text)


def codex_patch_failed(thread, call):
    """A patch that did not apply changed no file: its events become plain calls."""
    for event in filter(thread.session.waiting, call.events):
        kind, data = event_kind(event)
        if kind in CODEX_CHANGES.values():
            event["event_type"] = {"type": "ToolCall", "data": {"name": call.name}}
            event["content"]["blocks"].insert(0, {"type": "File", "path": data["path"]})
            if data.get("diff"):
                event["content"]["blocks"].append(code_block(data["diff"], "diff"))


# Codex: results -------------------------------------------------------------

CODEX_EXIT = re.compile(r"(?:Process exited with code|Exit code:) (-?\d{1,9})$")
CODEX_WALL = re.compile(r"Wall time: (\d{1,9}(?:\.\d{1,9})?) seconds?$")
CODEX_PATCH_ERRORS = ("apply_patch verification failed", "patch rejected", "Failed to")


class CodexOutput(NamedTuple):
    """A result as the model saw it."""
    text: str
    blocks: list
    exit_code: int | None = None
    duration_ms: int | None = None
    failed: bool = False


def codex_output(thread, at, item):
    """The result of a call; one that nobody asked for is shown all the same."""
    value = item.get("output") if item.get("output") is not None else item.get("result", item.get("tools"))
    output = codex_read_output(value)
    call_id = as_text(item.get("call_id")) or ("" if "call_id" in item else next(reversed(thread.calls), ""))
    call = thread.calls.get(call_id) or CodexCall(call_id, thread.names.get(call_id, "unknown"), {})
    call.exit_code = output.exit_code if output.exit_code is not None else call.exit_code
    call.duration_ms = output.duration_ms if call.duration_ms is None else call.duration_ms
    call.failed = call.failed or output.failed or (
        call.name == "apply_patch" and output.text.startswith(CODEX_PATCH_ERRORS))
    codex_link_child(thread, call_id, codex_agent_id(output.text) if call.name.endswith("spawn_agent") else "")
    text = output.text or ("" if output.blocks else call.output)
    codex_result(thread, at, call, [text_block(text)] * bool(text) + output.blocks)


def codex_result(thread, at, call, blocks):
    """Close a call: its result becomes an event, its exit code goes to the command."""
    failed = call.failed or bool(call.exit_code)
    codex_set_exit_code(thread, call)
    if failed:
        codex_patch_failed(thread, call)
    first = call.events[0]["event_id"] if call.events else call.id or None
    codex_add(thread, "ToolResult", at, f"{first}-result" if first else None, blocks, name=call.name, is_error=failed,
              call_id=first, duration_ms=call.duration_ms)
    codex_close_call(thread, call)


def codex_close_call(thread, call):
    """Nothing waits for this call any more."""
    thread.calls.pop(call.id, None)
    for event in call.events:
        thread.open.discard(id(event))
        if event is not thread.anchor:
            thread.session.release(event)


def codex_set_exit_code(thread, call):
    for event in call.events if call.exit_code is not None else ():
        if event["event_type"]["type"] == "ShellCommand" and thread.session.waiting(event):
            event["event_type"]["data"]["exit_code"] = call.exit_code


def codex_read_output(value):
    """An output of any generation: text, text with a header, JSON in text, an object, a list of items."""
    if isinstance(value, str):
        parsed = load_json(value.encode("utf-8", "replace")) if value[:1] == "{" else None
        known = isinstance(parsed, dict) and "output" in parsed and parsed.keys() <= {"output", "metadata"}
        return codex_object_output(parsed) if known else codex_headed_output(value)
    if isinstance(value, dict):
        return codex_object_output(value)
    text, blocks = codex_content(value)
    return codex_headed_output(text)._replace(blocks=blocks)


def codex_object_output(value):
    """{"output", "metadata"}, {"content", "success"}, {"stdout", "stderr", "exitCode"}; else its JSON."""
    facts = as_dict(value.get("metadata")) or value
    parts = [value.get(name) for name in ("output", "content", "stdout", "stderr") if value.get(name)]
    contents = [("", [json_block(part)]) if isinstance(part, dict) else codex_content(part) for part in parts]
    text = "\n".join(text for text, _ in contents if text)
    blocks = [block for _, blocks in contents for block in blocks]
    if not parts and value and not value.keys() & {"output", "content", "stdout", "exitCode", "exit_code"}:
        blocks = [json_block(value)]
    code = facts.get("exit_code", facts.get("exitCode"))
    return CodexOutput(text, blocks, codex_exit_code(code), codex_milliseconds(facts.get("duration_seconds")),
                       value.get("success") is False)


def codex_headed_output(text):
    """Text that may start with lines on how the command ended, up to `Output:`."""
    head, found, rest = text[:2000].partition("Output:\n")
    exit_code = duration = None
    if not found or not head.startswith(("Chunk ID:", "Wall time:", "Exit code:", "Process ")):
        return CodexOutput(text, [])
    for line in head.splitlines():
        if match := CODEX_EXIT.match(line):
            exit_code = codex_exit_code(int(match[1]))
        elif match := CODEX_WALL.match(line):
            duration = codex_milliseconds(float(match[1]))
    running = "".join(line for line in head.splitlines(True) if line.startswith("Process running"))
    return CodexOutput(running + rest + text[2000:], [], exit_code, duration)


def codex_exit_code(value):
    return value if type(value) is int and -2**31 <= value < 2**31 else None


def codex_milliseconds(value):
    """A duration in seconds, as {"secs", "nanos"} or as text like 1.5s -> whole milliseconds, or None."""
    if isinstance(value, dict):
        return whole(value.get("secs")) * 1000 + whole(value.get("nanos")) // 10**6
    if isinstance(value, str) and (match := re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)(ms|s)", value)):
        value = float(match[1]) / (1000 if match[2] == "ms" else 1)
    if type(value) in (int, float) and 0 <= value < 2**31:
        return round(value * 1000)
    return None


def codex_command_end(thread, at, item):
    """A command that ended: it completes its call, or is one by itself (run by a program or by the person)."""
    call_id = as_text(item.get("id")) or as_text(item.get("call_id"))
    call, known = thread.calls.get(call_id), call_id in thread.names
    if known and not call:
        return
    if not call:
        call = CodexCall(call_id or f"codex-{thread.number}", "exec_command", {"command": item.get("command"),
                         "workdir": urllib.parse.unquote(as_text(item.get("cwd")).removeprefix("file://"))})
        codex_open_call(thread, at, call, codex_shell)
    call.exit_code = codex_exit_code(item.get("exit_code"))
    call.duration_ms = codex_milliseconds(item.get("duration"))
    call.failed = item.get("status") in ("failed", "declined")
    call.output = as_text(item.get("aggregated_output")) or as_text(item.get("stdout")) + as_text(item.get("stderr"))
    if not known:
        codex_result(thread, at, call, [text_block(call.output)] * bool(call.output))


def codex_mcp_end(thread, at, item):
    """A call of an MCP server that ended: it completes its call, or is one by itself."""
    call_id = as_text(item.get("call_id")) or as_text(item.get("id"))
    call, known = thread.calls.get(call_id), call_id in thread.names
    if known and not call:
        return
    asked = as_dict(item.get("invocation")) or item
    if not call:
        name = f"{as_text(asked.get('server'))}__{as_text(asked.get('tool')) or 'unknown'}"
        call = CodexCall(call_id or f"codex-{thread.number}", name, codex_arguments(asked))
        codex_open_call(thread, at, call, codex_plain_call)
    result = as_dict(item.get("result"))
    answer = as_dict(result.get("Ok")) or result
    call.duration_ms = codex_milliseconds(item.get("duration"))
    error = as_text(result.get("Err")) or as_text(as_dict(item.get("error")).get("message"))
    call.failed = bool(error) or answer.get("isError") is True or answer.get("is_error") is True
    text, blocks = codex_content(answer.get("content"))
    call.output = text or error
    if not known:
        codex_result(thread, at, call, [text_block(call.output)] * bool(call.output) + blocks)


# Codex: sub-agents ----------------------------------------------------------

def codex_agent_id(text):
    """The thread that spawn_agent says it started."""
    answer = as_dict(load_json(text.encode("utf-8", "replace"))) if text[:1] == "{" else {}
    return as_text(answer.get("agent_id"))


def codex_spawned(thread, at, event):
    """collab_agent_spawn_end, or sub_agent_activity that says that one started."""
    if event.get("kind") in (None, "started"):
        codex_link_child(thread, as_text(event.get("call_id")) or as_text(event.get("event_id")),
                         as_text(event.get("new_thread_id")) or as_text(event.get("agent_thread_id")))


def codex_link_child(thread, call_id, child):
    """A call started a thread of its own; several records may say so."""
    if child:
        add_new(thread.session.related, child)
        call = thread.calls.get(call_id)
        for event in filter(thread.session.waiting, call.events if call else ()):
            event["attributes"]["child_session_id"] = child


# Codex: tables --------------------------------------------------------------

CODEX_CALLS = {
    "exec_command": codex_shell,
    "shell": codex_shell,
    "shell_command": codex_shell,
    "local_shell": codex_shell,
    "run_shell_command": codex_shell,
    "exec": codex_code,
    "apply_patch": codex_patch,
    "apply_diff": codex_patch,
    "create_file": codex_write_file,
    "write_file": codex_write_file,
    "read_file": codex_path_call("FileRead", "path", "file_path", "path"),
    "view_image": codex_path_call("FileRead", "path", "path"),
    "list_dir": codex_path_call("FileSearch", "pattern", "dir_path", "path"),
    "grep_files": codex_path_call("CodeSearch", "query", "pattern", "query"),
    "web_search": codex_path_call("WebSearch", "query", "query"),
}

# Record -> step(thread, time, payload), or None where there is nothing to show.
CODEX_STEPS = {
    "turn_context": codex_turn_context,
    "compacted": codex_compaction,
    "token_usage_record": codex_usage_record,
    "response_item/message": codex_message,
    "response_item/agent_message": codex_inter_agent,
    "response_item/reasoning": codex_reasoning,
    "response_item/function_call": codex_call,
    "response_item/function_call_output": codex_output,
    "response_item/custom_tool_call": codex_call,
    "response_item/custom_tool_call_output": codex_output,
    "response_item/mcp_tool_call_output": codex_output,
    "response_item/tool_call": codex_call,
    "response_item/tool_result": codex_output,
    "response_item/function_result": codex_output,
    "response_item/local_shell_call": codex_local_shell,
    "response_item/local_shell_call_output": codex_output,
    "response_item/tool_search_call": lambda thread, at, item: codex_call(thread, at, {**item, "name": "tool_search"}),
    "response_item/tool_search_output": codex_output,
    "response_item/web_search_call": codex_web_search,
    "response_item/image_generation_call": codex_image,
    "response_item/compaction": codex_compaction,
    "response_item/context_compaction": codex_compaction,
    "event_msg/user_message": codex_user_event,
    "event_msg/agent_message": codex_agent_event,
    "event_msg/agent_reasoning": codex_reasoning_event,
    "event_msg/agent_reasoning_raw_content": codex_reasoning_event,
    "event_msg/token_count": codex_token_count,
    "event_msg/turn.completed": codex_token_count,
    "event_msg/task_started": codex_turn_started,
    "event_msg/turn_started": codex_turn_started,
    "event_msg/task_complete": codex_turn_complete,
    "event_msg/turn_complete": codex_turn_complete,
    "event_msg/turn_aborted": codex_turn_aborted,
    "event_msg/context_compacted": codex_compaction,
    "event_msg/exec_command_end": codex_command_end,
    "event_msg/patch_apply_end": codex_patch_end,
    "event_msg/mcp_tool_call_end": codex_mcp_end,
    "event_msg/web_search_end": codex_web_search,
    "event_msg/collab_agent_spawn_end": codex_spawned,
    "event_msg/sub_agent_activity": codex_spawned,
    "event_msg/thread_name_updated": codex_renamed,
    "event_msg/thread_rolled_back": codex_marker("rollback"),
    "event_msg/entered_review_mode": codex_marker("review_start"),
    "event_msg/exited_review_mode": codex_marker("review_end"),
    "event_msg/error": codex_problem,
    "event_msg/stream_error": codex_problem,
    "event_msg/warning": codex_problem,
    "item/UserMessage": codex_user_item,
    "item/AgentMessage": codex_agent_item,
    "item/Reasoning": codex_reasoning_item,
    "item/CommandExecution": codex_command_end,
    "item/FileChange": codex_patch_end,
    "item/McpToolCall": codex_mcp_end,
    "item/WebSearch": codex_web_search,
    "item/ContextCompaction": codex_compaction,
    "item/Plan": codex_marker("plan"),
    "item/EnteredReviewMode": codex_marker("review_start"),
    "item/ExitedReviewMode": codex_marker("review_end"),
}
CODEX_STEPS.update(dict.fromkeys((
    "state", "session_meta", "world_state", "realtime_item", "security_risk_score", "inter_agent_communication",
    "inter_agent_communication_metadata", "response_item/ghost_snapshot", "response_item/other",
    "event_msg/thread_settings_applied", "event_msg/thread_goal_updated", "event_msg/guardian_assessment",
    "event_msg/view_image_tool_call", "event_msg/image_generation_end", "event_msg/undo_completed",
    "event_msg/background_event", "event_msg/plan_update", "event_msg/turn_diff", "event_msg/patch_apply_begin",
    "event_msg/exec_command_begin", "event_msg/mcp_tool_call_begin", "event_msg/web_search_begin",
    "event_msg/collab_agent_interaction_end", "event_msg/collab_waiting_end", "event_msg/collab_close_end",
    "event_msg/collab_resume_end", "event_msg/dynamic_tool_call_request", "event_msg/dynamic_tool_call_response",
    "item/Sleep", "item/HookPrompt", "item/ImageView", "item/ImageGeneration", "item/CollabAgentToolCall",
)))


@tool("codex", "Codex", roots=codex_roots, sources=codex_sources, recognise=codex_recognise)
def parse_codex(source):
    """Codex: one rollout file is one session.  Raises OSError or Unreadable where it cannot be opened."""
    path = Path(source.path)
    if not codex_recognise(codex_head(path), str(path).removesuffix(".zst")):
        return
    look = codex_look(path)
    if not look.records:
        return
    meta, name = look.meta or {}, CODEX_FILE.match(path.name)
    named = utc(f"{name[1]}:{name[2]}:{name[3]}") if name and name[1] else utc(path.stat().st_mtime)
    session = Session("codex", "openai", as_text(meta.get("id")) or codex_id(path), utc(meta.get("timestamp")) or named)
    session.events = codex_events(path, CodexThread(session, look))
    yield session
# ---------------------------------------------------------------------------
# Privacy: what must not leave the machine, and how it is taken out
#
# Every string of a session is treated: texts, code, diffs, titles, attributes,
# tool inputs and their keys.  A secret becomes [REDACTED:rule#1], a home folder
# becomes ~, and the content of excluded files is withheld.
#
# Speed comes from two levels.  Encoded lines are searched in blocks for hints:
# byte patterns that begin with a literal of two or more characters, which `re`
# finds about as fast as bytes.find.  Only lines with a hint are walked, and only
# with the rules whose hint was found.
# ---------------------------------------------------------------------------


class Privacy(NamedTuple):
    """What to take out.  All tuples, so that compiled rules can be shared between sessions."""
    strip_paths: bool = True
    strip_env_vars: bool = True
    exclude_patterns: tuple = ("*.env", "*secret*", "*credential*")
    homes: tuple = ()           # this machine's home folders, beside the usual shapes
    env_values: tuple = ()      # values that are secret wherever they occur
    salt: bytes = b""           # this machine's own, for the fingerprints of secrets


def privacy_of(settings, env, home, salt=b""):
    """The Privacy that settings["privacy"] (flags and globs), an environment and a home folder ask for."""
    wanted = settings["privacy"]
    return Privacy(wanted["strip_paths"], wanted["strip_env_vars"], tuple(wanted["exclude_patterns"]),
                   (str(home),), secret_values(env), salt)


def secret_values(env):
    """The values of an environment mapping that are secrets by their name, the longest first."""
    values = {value for name, value in env.items()
              if len(value) >= 8 and SECRET_VARIABLE.search(name) and not PLACEHOLDER.search(value)
              and not FILE_PATH.match(value)}
    return tuple(sorted(values, key=lambda value: (-len(value), value)))


SECRET_VARIABLE = re.compile(r"(?i)(?:^|_)(?:\w*key|\w*token|secret|passw(?:or)?d|passwd|passphrase|pwd|pass"
                             r"|credentials?|auth|dsn|database_url)(?:_|\d|$)")
FILE_PATH = re.compile(r"~|\.{0,2}/[\w.-]+/|[A-Za-z]:[\\/]")


# --- What looks like a secret -------------------------------------------------

def entropy(text):
    """Bits per character."""
    counts = Counter(text).values()
    return sum(count / len(text) * math.log2(len(text) / count) for count in counts)


def random_looking(value):
    """Whether a token with a known prefix is a real one: not an example, not xxxx."""
    return entropy(value) >= 3 and not DUMMY.search(value)


DUMMY = re.compile(r"(?i)example|xxxx|your[_-]|\.\.\.|0123456789|1234567890|abcdefgh|placeholder|redacted")


def plausible(value):
    """Whether a value that somebody called secret is one: random, not a name, a path or a placeholder.

    A digit is asked for.  That costs passwords of letters only and saves most of the
    false alarms in source code."""
    return (len(value) >= 8 and any(char.isdigit() for char in value) and entropy(value) >= 3.2
            and not DUMMY.search(value) and not PLACEHOLDER.search(value) and not NO_SECRET.match(value)
            and not written_by_hand(value))


PLACEHOLDER = re.compile(r"(?i)[<>{}]|^\$|^%\w+%$|\*\*\*|^x+$|change_?me|placeholder|redacted|example|process\.env"
                         r"|os\.environ|getenv|env\.|^(?:my|your|test|dummy|fake|some)[_-]")
# Paths, URLs, calls and indexing, numbers with units, dates, UUIDs, hashes that name their algorithm.
NO_SECRET = re.compile(r"(?:~|\.{0,2}/[\w.-]+/|[A-Za-z]:[\\/]|\w+://|[\w.$]+[(\[]|[\d.,:_+-]+\w{0,3}$"
                       r"|\d{4}-\d\d-\d\d|[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}$|sha\d+[-:])")


def written_by_hand(value):
    """Whether a value is made of words (SOME-NAME_2, camelCase) rather than of random characters."""
    return len(value) >= 4 * len(re.findall(r"[A-Z]?[a-z]+|[A-Z]+|\d+", value))


def password_in_url(value):
    """Whether the part between : and @ of a URL is a password and not a word of the documentation."""
    return len(value) >= 5 and not PLACEHOLDER.search(value) and not DUMMY.search(value) \
        and not PASSWORD_WORD.fullmatch(value)


PASSWORD_WORD = re.compile(r"(?i)\$.*|(?:my|your|the)?[_-]?(?:pass(?:word|wd)?|pwd|secret|token|key|api_?key"
                           r"|user(?:name)?|admin|root|postgres|mysql|guest|test|hunter2|foo(?:bar)?)"
                           r"[_-]?(?:here|word|\d{0,4})")


def has_key_body(value):
    """Whether what stands behind a private key's first line is key material and not prose."""
    return bool(re.search(r"[A-Za-z0-9+/]{40}", value))


def with_digit(value):
    return random_looking(value) and any(char.isdigit() for char in value)


# --- The rules ------------------------------------------------------------------

class Rule(NamedTuple):
    """One shape of secret.  What the pattern's group matches is masked, or all of it where
    it has none, if `check` agrees.  `hints` are the byte patterns that make a line a
    candidate; without any, the pattern itself is the hint."""
    name: str
    pattern: str
    check: Callable = random_looking
    hints: tuple = ()


# Where a value is given to a name that sounds secret: api_key: "…", DB_PASSWORD=…, {"token": "…"}.
SECRET_WORD = (r"(?:(?:api|access|secret|private|auth|signing|encryption|account|master|service|app|license|webhook)"
               r"[_-]?key|secret|token|passw(?:or)?d|passwd|passphrase|pwd|credentials?)(?:_?base|_?\d{1,2})?")
# The hint sees encoded text: quotes may have backslashes, tabs and line ends are letters behind one.
ASSIGNED = tuple(
    rf'(?i){word}[\w -]{{0,8}}+[\\"\'\] tnr]{{0,12}}+(?:value)?[:=>]{{1,2}}+(?:[\w &]{{1,14}}=)?+[ \\"\'(bftnr]{{0,16}}'
    rf'(?=[^\0- "\'\\]{{8}})(?=[^\0- "\'\\]{{0,99}}\d)'
    for word in ("key", "token", "secret", "pass", "pwd", "credential"))
# Hints that many rules share.  Tools put their own ids in every line: those are no hint.
SK = ("sk-[a-zA-Z0-9_-]{20}",)
UNDERSCORE = (r"_[A-Za-z0-9]{20}(?<!toolu_.{20})(?<!call_.{20})(?<!msg_.{20})(?<!req_.{20})",)
DASH = (r"-[A-Za-z0-9]{24}",)

# To add a rule: one line, the specific before the general, as the first one names the
# mask.  Begin the pattern with at least two literal characters (no ^, \b or class; a
# token may stand right behind \n, a colour code or a Korean letter), or give such hints;
# a hint with (?i) is searched in lower case.  Keep every repeat bounded or possessive, so that
# no input takes quadratic time.  Add a case to tests/test_privacy.py, made of pieces.
RULES = (
    # AI providers
    Rule("anthropic", r"sk-ant-[\w-]{24,}", hints=SK),
    Rule("openai", r"sk-(?:proj|svcacct|admin|None)-[\w-]{20,}", hints=SK),
    Rule("openai", r"sk-[A-Za-z0-9]{20}T3BlbkFJ[A-Za-z0-9]{20}", hints=SK),
    Rule("openrouter", r"sk-or-v1-[0-9a-f]{48,}", hints=SK),
    Rule("langfuse", r"sk-lf-[0-9a-f]{8}-[0-9a-f-]{27}", hints=SK),
    Rule("sk-generic", r"sk-(?:[a-z]{2,8}-)?[A-Za-z0-9]{32,}", with_digit, SK),
    Rule("langsmith", r"lsv2_(?:pt|sk)_[0-9a-f]{32}_[0-9a-f]{10}", hints=UNDERSCORE),
    Rule("groq", r"gsk_[A-Za-z0-9]{48,}", hints=UNDERSCORE),
    Rule("xai", r"xai-[A-Za-z0-9]{70,}", hints=DASH),
    Rule("perplexity", r"pplx-[A-Za-z0-9]{40,}", hints=DASH),
    Rule("huggingface", r"hf_[A-Za-z0-9]{34,}", hints=UNDERSCORE),
    Rule("huggingface", r"api_org_[A-Za-z]{34}", hints=UNDERSCORE),
    Rule("replicate", r"r8_[A-Za-z0-9]{37}", hints=UNDERSCORE),
    Rule("ai", r"nvapi-[\w-]{60,}"),
    Rule("ai", r"tgp_v1_[\w-]{40,}"),
    Rule("ai", r"tvly-(?:dev-|prod-)?[A-Za-z0-9]{28,}"),
    Rule("ai", r"csk-[a-z0-9]{48}", hints=DASH),
    Rule("ai", r"jina_[A-Za-z0-9]{60,}", hints=UNDERSCORE),
    Rule("ai", r"fw_[A-Za-z0-9]{22,24}(?!\w)", with_digit, UNDERSCORE),
    # Clouds
    Rule("aws-key-id", r"A(?:KIA|SIA|BIA|CCA)(?<![A-Z]....)[A-Z2-7]{16}(?![A-Za-z0-9])",
         hints=tuple(f"A{kind}[A-Z2-7]{{16}}" for kind in ("KIA", "SIA", "BIA", "CCA"))),
    Rule("aws-secret", r"(?i)secret_?(?:access_?)?key[^a-z0-9+/]{1,20}(?:string>)?([a-z0-9+/]{40})(?![a-z0-9+/])",
         with_digit, (r"(?i)secret_?(?:access_?)?key[^a-z0-9]",)),
    Rule("aws-bedrock", r"ABSK[A-Za-z0-9+/]{100,}={0,2}"),
    Rule("aws-bedrock", r"bedrock-api-key-[\w=+/-]{60,}"),
    Rule("google-api", r"AIza[\w-]{35}"),
    Rule("google-oauth", r"GOCSPX-[\w-]{28}"),
    Rule("google-oauth", r"ya29\.[\w-]{30,}"),
    Rule("google-oauth", r"1//0[\w-]{40,}"),
    Rule("azure", r"AccountKey=([A-Za-z0-9+/]{40,}={0,2})"),
    Rule("azure", r"\w{3}\dQ~[\w.~-]{31,34}", hints=(r"Q~[\w.~-]{31}",)),
    Rule("digitalocean", r"do[opr]_v1_[0-9a-f]{64}", hints=UNDERSCORE),
    Rule("cloudflare", r"v1\.0-[0-9a-f]{24}-[0-9a-f]{100,}"),
    Rule("vercel", r"vc[a-z]_[A-Za-z0-9]{56,}", hints=UNDERSCORE),
    Rule("ngrok", r"ngrok_api_\w{40,}"),
    Rule("ngrok", r"authtoken:?\s(\d\w{40,56})"),
    # Code hosting, packages, chat
    Rule("github", r"gh[opsur]_[A-Za-z0-9]{36,}", hints=UNDERSCORE),
    Rule("github-pat", r"github_pat_\w{50,}", hints=UNDERSCORE),
    Rule("gitlab", r"gl(?:pat|ptt|dt|rt|rtr|ft|imt|oas|cbt|agent|soat|ffct)-[\w-]{20,}(?:\.[\w-]{2,20}){0,2}"),
    Rule("gitlab", r"GR1348941[\w-]{20,}"),
    Rule("bitbucket", r"AT(?:BB|ATT3|CTT3)[\w=-]{24,}", with_digit,
         tuple(f"AT{kind}" for kind in ("BB", "ATT3", "CTT3"))),
    Rule("slack-webhook", r"hooks\.slack\.com/(?:services|workflows|triggers)/([\w/]{30,})"),
    Rule("slack", r"xox[a-z](?:\.xox[a-z])?-[\w-]{20,}"),
    Rule("slack", r"xapp-\d-[\w-]{30,}"),
    Rule("discord-webhook", r"webhooks/\d{15,20}/([\w-]{60,})"),
    Rule("telegram", r"\d{8,10}:AA[\w-]{33}", hints=(r":AA[\w-]{33}",)),
    Rule("npm", r"npm_[A-Za-z0-9]{36}", hints=UNDERSCORE),
    Rule("npmrc", r"_authToken=([\w./+=-]{16,})"),
    Rule("pypi", r"pypi-AgE[\w-]{50,}"),
    Rule("crates-gems", r"cio[A-Za-z0-9]{32}(?![A-Za-z0-9])", plausible),
    Rule("crates-gems", r"rubygems_[0-9a-f]{48}", hints=UNDERSCORE),
    Rule("crates-gems", r"dckr_[op]at_[\w-]{27,}"),
    Rule("jfrog", r"AKCp\w{65,}"),
    # Payment, mail, telephone
    Rule("stripe", r"[sr]k_(?:live|test|prod)_[A-Za-z0-9]{20,}", hints=UNDERSCORE),
    Rule("stripe", r"whsec_[A-Za-z0-9+/=]{32,}", hints=UNDERSCORE),
    Rule("square", r"sq0(?:csp|atp|idp)-[\w-]{22,}"),
    Rule("sendgrid", r"SG\.[\w-]{20,24}\.[\w-]{39,50}"),
    Rule("twilio", r"SK[0-9a-f]{32}(?![0-9a-zA-Z])"),
    Rule("mail", r"key-[0-9a-f]{32}(?![0-9a-zA-Z])", hints=DASH),
    Rule("mail", r"xkeysib-[0-9a-f]{64}-\w{16}"),
    Rule("mail", r"[0-9a-f]{32}-us\d{1,2}(?!\w)", hints=(r"-us\d{1,2}(?![\w-])",)),
    Rule("mail", r"re_[A-Za-z0-9]{8}_[A-Za-z0-9]{24}(?!\w)", with_digit, UNDERSCORE),
    # Services
    Rule("vault", r"hv[bsr]\.[\w-]{24,}"),
    Rule("tailscale", r"tskey-[a-z]+-[\w-]{20,}"),
    Rule("supabase", r"sbp_[0-9a-f]{40}", hints=UNDERSCORE),
    Rule("supabase", r"sb_secret_[\w-]{20,}"),
    Rule("opensession", r"osk_[A-Za-z0-9]{30,}", hints=UNDERSCORE),
    Rule("saas", r"lin_(?:api|oauth)_[A-Za-z0-9]{32,}", hints=UNDERSCORE),
    Rule("saas", r"ntn_[A-Za-z0-9]{40,}", hints=UNDERSCORE),
    Rule("saas", r"secret_[A-Za-z0-9]{43}(?!\w)", with_digit, UNDERSCORE),
    Rule("saas", r"fig[doru]_[\w-]{36,}"),
    Rule("saas", r"sntry[su]_[\w+/=-]{40,}"),
    Rule("saas", r"PMAK-[0-9a-f]{24}-[0-9a-f]{34}", hints=DASH),
    Rule("saas", r"dapi[0-9a-f]{32}"),
    Rule("saas", r"gl(?:sa|c)_[\w+/=]{32,}"),
    Rule("saas", r"dp\.(?:pt|st|ct|sa|scim|audit)\.(?:[\w-]{2,35}\.)?[A-Za-z0-9]{40,}"),
    Rule("saas", r"pscale_(?:tkn|pw|oauth)_[\w.=-]{32,}"),
    Rule("saas", r"shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}", hints=UNDERSCORE),
    Rule("saas", r"ops_eyJ[\w-]{60,}"),
    Rule("saas", r"HRKU-[\w-]{36,}"),
    Rule("saas", r"fo1_[\w-]{43}"),
    Rule("saas", r"fm[12][ar]?_[\w+/=,-]{80,}"),
    Rule("saas", r"nfp_[A-Za-z0-9]{36}", hints=UNDERSCORE),
    Rule("saas", r"ph[xs]_[A-Za-z0-9]{40,}", hints=UNDERSCORE),
    Rule("saas", r"rdme_[a-z0-9]{70}", hints=UNDERSCORE),
    Rule("saas", r"pul-[0-9a-f]{40}", hints=DASH),
    Rule("saas", r"(?:sdk|api|mob)-[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}",
         hints=tuple(rf"{kind}-[0-9a-f]{{8}}-[0-9a-f]{{4}}-" for kind in ("sdk", "api", "mob"))),
    Rule("saas", r"NRAK-[A-Z0-9]{27}", hints=DASH),
    Rule("saas", r"dt0[a-z]\d\d\.[A-Z0-9]{24}\.[A-Z0-9]{64}"),
    Rule("saas", r"pat[A-Za-z0-9]{14}\.[0-9a-f]{64}", hints=(r"pat[A-Za-z0-9]{14}\.",)),
    Rule("saas", r"[A-Za-z0-9]{14}\.atlasv1\.[\w=-]{60,}", hints=(r"\.atlasv1\.",)),
    Rule("saas", r"bkua_[0-9a-f]{40}", hints=UNDERSCORE),
    Rule("saas", r"CCIPAT_\w{22,}"),
    Rule("saas", r"e2b_[0-9a-f]{40}", hints=UNDERSCORE),
    # Shapes that many use.  Of a JWT the first part only names the algorithm; it stays.
    Rule("jwt", r"\.(eyJ[\w-]{8,}+\.[\w-]{20,})"),
    Rule("age", r"AGE-SECRET-KEY-1[0-9A-Z]{58}"),
    Rule("private-key", r"-----BEGIN [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----(?:(?:[^-]|-(?!----)){40,8000}?-----END"
                        r" [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----|[\w+/=\s\\\"':,.→|]{40,8000}+)", has_key_body,
         (r"PRIVATE KEY(?: BLOCK)?-----",)),
    Rule("url-password", r"://[^\0- :/?#@\"'<>`\\]{0,60}:([^\0- /@\"'<>`\\]{3,200})@[\w\[.-]", password_in_url,
         (r"://[^\0- :/?#@\"'<>`\\]{0,60}:[^\0- /@\"'<>`\\]{3,200}@",)),
    Rule("auth-header", r"(?i)authorization[\"'\\\]]*\s{0,3}[:=,]\s{0,3}(?:f|b)?[\"'\\]*(?:[a-z]{3,12}\s{1,3})?"
                        r"([\w.~+/=:-]{16,4000})", plausible, (r"(?i)authorization[ \\\"'\]tnr]{0,12}[:=,]",)),
    Rule("auth-header", r"(?i)(?:x-api-key|private-token|x-auth-token|api-key|x-goog-api-key)[\"'\\]*\s{0,3}[:=,]"
                        r"\s{0,3}[\"'\\]*([\w.~+/=-]{16,2000})", plausible, ASSIGNED),
    Rule("bearer", r"(?i)bearer\s{1,3}([\w.~+/=-]{20,4000})", plausible, (r"(?i)bearer[ \\tnr]{1,6}[\w.~+/=-]{20}",)),
    Rule("curl-user", r"(?:-u|--user)[ =][\"'\\]{0,3}[^\0- :/\"'\\]{1,60}:([^\0- \"'\\]{6,200})", plausible,
         tuple(rf"{option}[ =][\\\"']{{0,6}}[^\0- :/\"'\\]{{1,60}}:[^\0- \"'\\]{{6}}" for option in ("-u", "--user"))),
    Rule("query-token", r"(?i)[?&;](?:x-amz-signature|x-amz-security-token|x-goog-signature|sig|signature"
                        r"|\w{0,20}(?:token|key|secret|password))=([\w.~%+/-]{16,2000})", plausible,
         ASSIGNED + (r"(?i)sig(?:nature)?=[\w.~%+/-]{16}",)),
    Rule("env-assign", r"(?:(?<!PUBLIC_)KEY|TOKEN|SECRET|PASSW(?:OR)?D|PASSWD|PASSPHRASE|PASS|PWD|CREDENTIALS?)"
                       r"(?:_BASE|_?\d{1,2})?[=:]\s{0,2}\\*[\"']?([^\0- \"'\\`;&|(),<>$]{8,500})", plausible, ASSIGNED),
    Rule("json-assign", rf"(?i){SECRET_WORD}\\*[\"']?\]?\s{{0,4}}(?::\s?&?\w{{1,12}}\s?(?==))?(?:=>|:=|[:=])\s{{0,4}}"
                        r"[bf(]?\\*[\"']([^\0- \"'\\]{8,500})", plausible, ASSIGNED),
    Rule("plain-assign", rf"(?i){SECRET_WORD}\s{{0,4}}[:=]\s{{0,4}}([\w+/=~!@#%^*-]{{10,200}}+)(?=$|[\s,;\"'\\<])",
         plausible, ASSIGNED),
    Rule("xml-assign", rf"(?i){SECRET_WORD}[\"'\\]*(?: value=[\"'\\]*|\s{{0,2}}>\s{{0,4}}(?:<string>)?)"
                       r"([^\0- <>\"'\\]{8,500})", plausible, ASSIGNED),
)
ENV_VALUE = "env-value"
ENV_RULES = ("env-assign", "plain-assign")      # what strip_env_vars switches, beside the values
HOME = "home"


class Scanner(NamedTuple):
    """The rules as compiled for one Privacy: (name, pattern, group, check) in order of
    precedence, the patterns of home folders, and the hints as (byte pattern, names)."""
    rules: tuple
    homes: tuple
    hints: tuple
    lower_hints: tuple
    names: frozenset


@functools.lru_cache(maxsize=8)
def scanner_for(privacy):
    """Compile what a Privacy asks for."""
    rules = [rule for rule in RULES if privacy.strip_env_vars or rule.name not in ENV_RULES]
    if privacy.strip_env_vars and privacy.env_values:
        values = {text for value in privacy.env_values for text in (value, json_inside(value))}
        longest_first = sorted(values, key=lambda value: (-len(value), value))
        rules.append(Rule(ENV_VALUE, "|".join(map(re.escape, longest_first)), bool,
                          tuple(re.escape(json_inside(value)) for value in longest_first)))
    hints = {}
    for rule in rules:
        for hint in rule.hints or (rule.pattern,):
            hints.setdefault(hint, set()).add(rule.name)
    if privacy.strip_paths:
        for hint in home_hints(privacy.homes):
            hints.setdefault(hint, set()).add(HOME)
    compiled = [(rule.name, re.compile(rule.pattern, re.ASCII)) for rule in rules]
    return Scanner(
        tuple((name, pattern, min(1, pattern.groups), rule.check) for (name, pattern), rule in zip(compiled, rules)),
        home_patterns(privacy.homes),
        tuple((re.compile(hint.encode()), names) for hint, names in hints.items() if not hint.startswith("(?i)")),
        tuple((re.compile(hint[4:].encode()), names) for hint, names in hints.items() if hint.startswith("(?i)")),
        frozenset(name for names in hints.values() for name in names))


def json_inside(text):
    """A text as it stands between the quotes of encoded JSON."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


def suspects(scanner, lines):
    """Which of the encoded lines may hold something: {index: names of the rules to try}."""
    block = b"".join(lines)
    ends, end = [], 0
    for line in lines:
        end += len(line)
        ends.append(end)
    found = {}
    for text, hints in ((block, scanner.hints), (block.lower(), scanner.lower_hints)):
        for pattern, names in hints:
            match = pattern.search(text)
            while match:                            # one hit in a line is enough: go on behind it
                index = bisect_right(ends, match.start())
                found.setdefault(index, set()).update(names)
                match = pattern.search(text, ends[index])
    return found


# --- Home folders -----------------------------------------------------------------

# A home folder begins where no name and no longer path goes on: src/home/x and
# https://host/home/x are none.  Behind an escaped line end and -I it does begin.
# (In the look-behinds the path's own first part stands, so that patterns begin with a literal.)
def home_shape(start):
    """A pattern for a folder of users that begins with the literal `start`, and a name in it."""
    return rf"{start}(?:(?<![\w.~\])-]{start})|(?<=\\[nrt]{start})|(?<=-[IL]{start}))"


USER_NAME = r"[\w@+-](?:[\w.@+-]*[\w@+-])?"
# What every match contains, and the pattern.
HOME_SHAPES = (
    ("/Users/", rf"(?:/mnt|/cygdrive)?/[a-zA-Z]/Users/{USER_NAME}"),
    ("Users", rf"[A-Za-z]:[\\/]{{1,4}}Users[\\/]{{1,4}}(?:[\w.@+-]+(?: [\w.@+-]+){{1,2}}(?=\\)|{USER_NAME})"),
    ("/home/", home_shape("/home/") + USER_NAME),
    ("/Users/", home_shape("/Users/") + USER_NAME),
    # How Claude Code names a project's folder.
    ("-home-", r"(?<=[\\/])-home-[A-Za-z0-9]+"),
    ("-Users-", r"(?<=[\\/])(?:[A-Za-z]-)?-Users-[A-Za-z0-9]+"),
)


def home_parts(homes):
    """The names that each home folder's path is made of; the root folder is nobody's home."""
    return [parts for home in homes if (parts := [part for part in re.split(r"[\\/]", home) if part])]


def home_patterns(homes):
    """(what every match contains, pattern) for this machine's home folders and the usual shapes."""
    own = []
    for parts in home_parts(homes):
        if len(parts) == 1:             # /root is also an end of other paths
            own.append((parts[0], home_shape("/" + re.escape(parts[0])) + HOME_END))
            continue
        start = "" if parts[0].endswith(":") else r"[\\/]{1,4}"
        own.append((parts[-1], start + r"[\\/]{1,4}".join(map(re.escape, parts)) + HOME_END))
        own.append((dashed(parts), re.escape(dashed(parts)) + r"(?![A-Za-z0-9])"))
    return tuple((literal, re.compile(pattern)) for literal, pattern in (*own, *HOME_SHAPES))


HOME_END = r"(?![\w-]|\.\w)"


def dashed(parts):
    """A path as Claude Code makes a folder's name of it: -home-ada, C--Users-ada."""
    return re.sub(r"[^A-Za-z0-9]", "-", "-".join(parts if parts[0].endswith(":") else ["", *parts]))


def home_hints(homes):
    """Byte patterns of which every line with a home folder has one."""
    hints = ["/home/", "/Users/", r"Users[\\/]", "-home-", "-Users-"]
    for parts in home_parts(homes):
        names = [re.escape(json_inside(part)) for part in parts]
        hints += [r"[\\/]{1,8}".join(names), re.escape(dashed(parts))] if len(names) > 1 else ["/" + names[0]]
    return hints


# --- The redactor -----------------------------------------------------------------

# By place in an event or header: keys whose values stay as they are, and the place of
# the values below.  Where no place is known, all is treated, keys too.
PLACES = {
    "event": ({"type", "event_id", "timestamp", "task_id"},
              {"event_type": "event_type", "content": "content", "attributes": "attributes"}),
    "event_type": ({"type"}, {"data": "data"}),
    "data": ({"call_id", "kind"}, {}),
    "content": ((), {"blocks": "block"}),
    "block": ({"type", "mime", "media_type", "language"}, {}),
    "header": ({"type", "version", "session_id"}, {"agent": "agent", "context": "context"}),
    "agent": ({"provider", "model", "tool", "tool_version"}, {}),
    "context": ({"created_at", "updated_at", "related_session_ids"}, {"attributes": "attributes"}),
    "attributes": ({"model", "tool", "meta", "signature", "session_role", "parent_session_id", "forked_from",
                    "parser_version", "subagent_id"}, {"git": "git"}),
    "git": ({"commit_hash"}, {}),
}

FILE_KINDS = ("FileRead", "FileEdit", "FileCreate", "FileDelete")
BLOCK_BYTES = 256 << 10     # how much is searched at once
IMAGE_DATA = re.compile(r"data:[\w/+.-]+;base64,[A-Za-z0-9+/=]*+")
MASKED = "[REDACTED:"


class Redactor:
    """Cleans one session.

    `memory` maps (rule, fingerprint of a secret) to the number in its mask.  What stands
    in it is used, what is new is added to it and to the list `new_masks` as (rule,
    fingerprint, number); whoever keeps these rows gives the same masks after a restart.
    `counts` says how often each rule struck, with "home" for home folders and "withheld"
    for events whose content stays here."""

    def __init__(self, privacy=Privacy(), memory=None):
        self.privacy = privacy
        self.memory = {} if memory is None else memory
        self.new_masks = []
        self.counts = Counter()
        self._scanner = scanner_for(privacy)
        self._numbers = Counter()           # rule -> highest number given
        self._withheld = {}                 # call id -> why its result is withheld
        for (rule, _), number in self.memory.items():
            self._numbers[rule] = max(self._numbers[rule], number)

    def clean(self, events):
        """Yield (event, encoded line) for each event, in order, with everything taken out."""
        batch, size = [], 0
        for event in events:
            event = self._withhold(event)
            batch.append((event, hail_line(event)))
            size += len(batch[-1][1])
            if size >= BLOCK_BYTES:
                yield from self._clean_batch(batch)
                batch, size = [], 0
        yield from self._clean_batch(batch)

    def _clean_batch(self, batch):
        found = suspects(self._scanner, [line for _, line in batch])
        for index, (event, line) in enumerate(batch):
            if index in found:
                cleaned = self._value(event, "event", self._wanted(found[index]))
                if cleaned is not event:
                    event, line = cleaned, hail_line(cleaned)
            yield event, line

    def clean_event(self, event):
        """One event as `clean` gives it."""
        return next(self.clean([event]))[0]

    def clean_header(self, header):
        """A header line's object with everything taken out."""
        return self._value(header, "header", self._wanted(self._scanner.names))

    def redact_text(self, text):
        """A text with everything taken out."""
        return self._text(text, self._wanted(self._scanner.names))

    def _wanted(self, names):
        """The part of the scanner that the named rules make."""
        return self._scanner._replace(rules=[rule for rule in self._scanner.rules if rule[0] in names],
                                      homes=self._scanner.homes if HOME in names else ())

    def _value(self, value, place, wanted):
        """A value with its strings treated; the same object where nothing changes."""
        if isinstance(value, str):
            return self._text(value, wanted)
        if isinstance(value, list):
            items = [self._value(item, place, wanted) for item in value]
            return items if any(new is not old for new, old in zip(items, value)) else value
        if isinstance(value, dict):
            return self._fields(value, place, wanted)
        return value

    def _fields(self, fields, place, wanted):
        """An object with its values treated, and its keys where they are free."""
        untouched, places = PLACES.get(place, ((), {}))
        result, changed = {}, False
        for key, old in fields.items():
            name = key if place in PLACES and place != "attributes" else self._text(key, wanted)
            if key in untouched:
                new = old
            elif isinstance(old, str) and (place not in PLACES or place == "attributes"):
                new = self._named(key, old, wanted)
            else:
                new = self._value(old, places.get(key), wanted)
            changed = changed or new is not old or name is not key
            while name in result:           # two home folders that became one
                name += "'"
            result[name] = new
        return result if changed else fields

    def _named(self, name, text, wanted):
        """The text of a named field: "password" makes a secret of what would else be a word."""
        head = f'"{name}": "'
        if not wanted.rules or len(name) > 100:
            return self._text(text, wanted)
        whole = self._text(f'{head}{text}"', wanted)
        if not whole.startswith(head):
            return self._text(text, wanted)
        cleaned = whole[len(head):-1]
        return text if cleaned == text else cleaned

    def _text(self, text, wanted):
        """A text with home folders and secrets taken out."""
        if len(text) < 6 or text.startswith("data:") and IMAGE_DATA.fullmatch(text):
            return text
        while True:                         # as what a mask replaced may have hidden the next
            text = self._strip_homes(text, wanted.homes)
            secrets = found_secrets(text, wanted.rules)
            if not secrets:
                return text
            pieces, at = [], 0
            for start, end, name, secret in secrets:
                pieces += text[at:start], self._mask(name, secret)
                at = end
            text = "".join([*pieces, text[at:]])

    def _strip_homes(self, text, homes):
        for literal, pattern in homes:
            if literal in text:
                text, count = pattern.subn("~", text)
                self._count(HOME, count)
        return text

    def _mask(self, name, secret):
        """The mask of a secret: the same one gets the same number."""
        self._count(name, 1)
        fingerprint = sha256(self.privacy.salt + secret.encode("utf-8", "replace")).hexdigest()[:32]
        number = self.memory.get((name, fingerprint))
        if number is None:
            number = self._numbers[name] = self._numbers[name] + 1
            self.memory[name, fingerprint] = number
            self.new_masks.append((name, fingerprint, number))
        return f"{MASKED}{name}#{number}]"

    def _count(self, name, count):
        if count:
            self.counts[name] += count

    def _withhold(self, event):
        """The event without the content of excluded files; what it says about a path stays."""
        kind, data = event_kind(event)
        if kind in FILE_KINDS and (why := self._excluded(data["path"])):
            self._withheld[event["event_id"]] = why
        elif kind == "ToolResult":
            why = self._withheld.get(data.get("call_id"))
        else:
            why = None
        if why:
            data = {key: value for key, value in data.items() if key != "diff"}
            blocks = [text_block(why)]
        else:
            blocks = [self._withhold_block(block) for block in event["content"]["blocks"]]
            if all(new is old for new, old in zip(blocks, event["content"]["blocks"])):
                return event
        self._count("withheld", 1)
        return {**event, "event_type": {"type": kind, **({"data": data} if data else {})},
                "content": {**event["content"], "blocks": blocks}}

    def _withhold_block(self, block):
        if block["type"] == "File" and block.get("content") and (why := self._excluded(block["path"])):
            return {**block, "content": why}
        return block

    def _excluded(self, path):
        """Why a path's content is withheld, or None.  Case counts on no system."""
        path = path.replace("\\", "/").lower()
        for pattern in self.privacy.exclude_patterns:
            if fnmatch(path, pattern.lower()) or fnmatch(path.rsplit("/", 1)[-1], pattern.lower()):
                return f"[withheld: path matches {pattern}]"
        return None


def found_secrets(text, rules):
    """The secrets in a text as (start, end, rule, secret), in order and apart from each other.

    Where matches overlap, all of them is masked and the first rule of the table names it."""
    found = []
    for order, (name, pattern, group, check) in enumerate(rules):
        for match in pattern.finditer(text):
            secret = match[group]
            start, end = match.span(group)
            if secret and MASKED not in secret and not text.endswith(MASKED, 0, start) and check(secret):
                found.append((start, end, order, name, secret))
    merged = []
    for one in sorted(found):
        if merged and one[0] < merged[-1][1]:
            last = merged[-1]
            merged[-1] = (last[0], max(last[1], one[1]), *min(last, one, key=lambda secret: secret[2])[2:])
        else:
            merged.append(one)
    return [(start, end, name, secret) for start, end, _, name, secret in merged]


# --- Redacting a stream -------------------------------------------------------------

def redact_stream(lines, out, privacy=Privacy()):
    """Write lines of text to `out` with everything taken out; returns the counts by rule."""
    redactor = Redactor(privacy)
    for text in whole_keys(lines):
        out.write(redactor.redact_text(text))
    return redactor.counts


def whole_keys(lines, limit=200):
    """Yield the lines, those of a private key as one text, as only together they can be known."""
    held = []
    for line in lines:
        if held or "PRIVATE KEY" in line and "-----BEGIN" in line:
            held.append(line)
            if "-----END" in line or len(held) >= limit:
                yield "".join(held)
                held = []
        else:
            yield line
    yield "".join(held)


# ---------------------------------------------------------------------------
# local.db: what was seen, what the server has, what waits to be sent
# ---------------------------------------------------------------------------

SCHEMA_VERSION = 1

SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

-- What a parser reads as one: a file, a folder's files, a database of a tool.
CREATE TABLE sources (
    tool        TEXT NOT NULL,
    key         TEXT NOT NULL,
    path        TEXT NOT NULL,
    fingerprint TEXT NOT NULL,          -- of its files when they were last read
    made_with   TEXT NOT NULL,          -- parsers and privacy rules of that time
    problem     TEXT,                   -- why it could not be read
    PRIMARY KEY (tool, key)
) WITHOUT ROWID;

CREATE TABLE sessions (
    tool                TEXT NOT NULL,
    id                  TEXT NOT NULL,  -- the HAIL session_id
    source_key          TEXT NOT NULL,
    source_path         TEXT NOT NULL,
    sync_status         TEXT NOT NULL DEFAULT 'local_only'      -- or 'synced', 'deleted'
                        CHECK (sync_status IN ('local_only', 'synced', 'deleted')),
    last_synced_at      TEXT,
    agent_provider      TEXT,
    agent_model         TEXT,
    title               TEXT,
    created_at          TEXT NOT NULL,
    updated_at          TEXT NOT NULL,
    message_count       INTEGER NOT NULL,
    user_message_count  INTEGER NOT NULL,
    task_count          INTEGER NOT NULL,
    event_count         INTEGER NOT NULL,
    duration_seconds    INTEGER NOT NULL,
    total_input_tokens  INTEGER NOT NULL,
    total_output_tokens INTEGER NOT NULL,
    git_remote          TEXT,
    git_branch          TEXT,
    git_commit          TEXT,
    git_repo_name       TEXT,
    working_directory   TEXT,
    project             TEXT,
    parser_version      INTEGER NOT NULL,
    bad_lines           INTEGER NOT NULL,
    unknown_types       TEXT NOT NULL,  -- JSON {record type: count}
    redactions          TEXT NOT NULL,  -- JSON {rule: count}
    chain               BLOB NOT NULL,  -- identity of the events, see next_chain
    -- What the server acknowledged:
    server_id           TEXT,
    revision            INTEGER,
    acked_count         INTEGER NOT NULL DEFAULT 0,
    acked_chain         BLOB,
    acked_header        BLOB,           -- sha256 of the header line
    acked_parser        INTEGER,
    checkpoints         BLOB NOT NULL DEFAULT x'',      -- chains on the way, see is_checkpoint
    PRIMARY KEY (tool, id)
) WITHOUT ROWID;

CREATE INDEX sessions_by_source ON sessions (tool, source_key);
CREATE INDEX sessions_by_server_id ON sessions (server_id);

-- Sessions that the server does not have yet.  Their content is read again from the source.
CREATE TABLE outbox (
    tool       TEXT NOT NULL,
    id         TEXT NOT NULL,
    attempts   INTEGER NOT NULL DEFAULT 0,
    next_try   REAL NOT NULL DEFAULT 0,         -- Unix time
    restore    INTEGER NOT NULL DEFAULT 0,      -- lift the mark of deletion
    problem    TEXT,                            -- what the server said last
    parked_for TEXT,                            -- not null: not sent again to this server by this version
    PRIMARY KEY (tool, id)
) WITHOUT ROWID;

-- Sessions of the team, made on other machines.
CREATE TABLE pulled (
    id         TEXT PRIMARY KEY,        -- the server's id
    team_id    TEXT NOT NULL,
    tool       TEXT NOT NULL,
    title      TEXT,
    nickname   TEXT,
    updated_at TEXT NOT NULL,
    summary    TEXT NOT NULL            -- all of it, as JSON
) WITHOUT ROWID;

CREATE TABLE sync_cursors (team_id TEXT PRIMARY KEY, cursor TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE body_cache (session_id TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;     -- gzip of HAIL, once asked for

-- Numbers of masks.  The fingerprint is salted; the secret is not kept.
CREATE TABLE masks (
    tool        TEXT NOT NULL,
    id          TEXT NOT NULL,
    rule        TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    number      INTEGER NOT NULL,
    PRIMARY KEY (tool, id, rule, fingerprint)
) WITHOUT ROWID;
"""


class CacheRefused(Exception):
    """A local.db that is not ours to write: a sentence."""


class Cache:
    """local.db, with three verbs: execute (read), batch (one atomic write), iteration over rows by name."""

    def __init__(self, path):
        self.db = sqlite3.connect(path, timeout=10, isolation_level=None)
        self.db.row_factory = sqlite3.Row
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute("PRAGMA synchronous = NORMAL")

    def execute(self, sql, args=()):
        return self.db.execute(sql, args)

    def first(self, sql, args=()):
        """The first row, or None."""
        return self.db.execute(sql, args).fetchone()

    def batch(self, statements):
        """Run [(sql, args), …] as one transaction."""
        self.db.execute("BEGIN IMMEDIATE")
        try:
            for sql, args in statements:
                self.db.execute(sql, args)
        except BaseException:
            self.db.execute("ROLLBACK")
            raise
        self.db.execute("COMMIT")

    def meta(self, key):
        row = self.first("SELECT value FROM meta WHERE key = ?", [key])
        return row and row["value"]

    def set_meta(self, key, value):
        self.batch([("INSERT OR REPLACE INTO meta VALUES (?, ?)", [key, value])])

    def close(self):
        self.db.close()


def open_cache(path):
    """Open local.db, or make it.  What is damaged is set aside: everything in it can be found again."""
    make_private_folder(path.parent)
    try:
        state = examine(path)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
            raise CacheRefused(f"{path} is locked by another program.") from None
        set_aside(path, error)
        state = "empty"
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    os.chmod(path, 0o600)
    cache = Cache(path)
    if state == "empty":
        cache.db.executescript(f"BEGIN;{SCHEMA}; INSERT INTO meta VALUES ('version', '{SCHEMA_VERSION}'); COMMIT;")
    return cache


def examine(path):
    """'empty' or 'ours' for a local.db, looked at without writing; a foreign or newer one is refused."""
    if not path.exists() or path.stat().st_size == 0:
        return "empty"
    db = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=10)
    try:
        tables = {name for name, in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if "meta" not in tables and "local_sessions" in tables:
            raise CacheRefused(f"{path} belongs to the original opensession. Import it on the server with "
                               f"`opensession.py import-original {path.parent}`, or move it away; then start again.")
        version = db.execute("SELECT value FROM meta WHERE key = 'version'").fetchone() if "meta" in tables else None
        if version and int(version[0]) > SCHEMA_VERSION:
            raise CacheRefused(f"{path} was written by a newer daemon.py (version {version[0]}): update this one.")
        if tables and not version:
            raise sqlite3.DatabaseError("the version is missing")
        if db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            raise sqlite3.DatabaseError("quick_check failed")
        return "ours" if tables else "empty"
    finally:
        db.close()


def set_aside(path, problem):
    aside = f"{path}.corrupt-{time.strftime('%Y%m%d-%H%M%S')}"
    log.warning("%s is damaged (%s); it is now %s, and everything is collected again.", path, problem, aside)
    for ending in ("", "-wal", "-shm"):
        if os.path.exists(f"{path}{ending}"):
            os.replace(f"{path}{ending}", f"{aside}{ending}")


def lock_data(folder):
    """The open lock file of the data folder, or None where another daemon holds it."""
    make_private_folder(folder)
    file = open(folder / "daemon.lock", "a+b")
    try:
        lock_file(file)
    except OSError:
        file.close()
        return None
    return file


def lock_file(file):
    """Lock a file until it is closed; OSError where another process has done so."""
    try:
        import fcntl
    except ImportError:                 # Windows
        import msvcrt
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        return
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


# ---------------------------------------------------------------------------
# Scan: which sources there are, and which have changed
# ---------------------------------------------------------------------------

HEAD_SIZE = 64 << 10
COARSE = 3                      # seconds within which a file system with whole-second times may hide a change


class Watched:
    """A source, and when it was last seen to change (monotonic seconds)."""

    def __init__(self, tool, source):
        self.tool = tool
        self.source = source
        self.states = None              # of its files, when last looked at
        self.changed_at = None          # last change that was not collected yet
        self.waiting_since = None       # first one
        self.cost = 0.0                 # seconds that collecting took last time
        self.look_again = False         # a change may hide behind a coarse time stamp

    @property
    def name(self):
        return self.tool.name, self.source.key

    @property
    def mtime(self):
        """Latest modification, Unix seconds."""
        return max((state[3] for state in self.states or () if state), default=0) / 1e9

    @property
    def size(self):
        return sum(state[2] for state in self.states or () if state)


def file_states(source):
    """((dev, inode, size, mtime_ns) or None, …) of a source's files: one stat each."""
    states = []
    for path in source.files:
        try:
            info = os.stat(path)
            states.append((info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns))
        except OSError:
            states.append(None)
    return tuple(states)


def fingerprint(source, states):
    """What is kept in local.db to know an unchanged source again.  An inode may be used
    twice and a time may be set back, so that the first KB counts too."""
    return f"{states}{sha256(read_head(source.path, 1024)).hexdigest()[:16]}"


def read_head(path, size=HEAD_SIZE):
    """The first bytes of a regular file; nothing where it cannot be read."""
    try:
        with open_regular(path) as file:
            return file.read(size)
    except OSError:
        return b""


def folder_states(root, report):
    """{folder: mtime_ns} of a root and all below it.  `report(key, sentence)` hears once of what is left out."""
    found, stack = {}, [(os.fspath(root), 0)]
    while stack:
        folder, level = stack.pop()
        try:
            found[folder] = os.stat(folder).st_mtime_ns
            if level < 12 and os.path.isdir(folder):
                with os.scandir(folder) as entries:
                    stack += [(entry.path, level + 1) for entry in entries if is_folder(entry, level, report)]
        except FileNotFoundError:
            found.pop(folder, None)
        except OSError as error:
            report(folder, f"{folder} cannot be looked into: {error.strerror}.")
    return found


def have_changed(states):
    """Whether folders differ from what folder_states said, without looking into them; a root that was not there may."""
    try:
        return not states or any(os.stat(path).st_mtime_ns != at for path, at in states.items())
    except OSError:
        return True


def is_folder(entry, level, report):
    """Whether to look into an entry: links count directly below a root only, as in walk()."""
    if entry.is_dir(follow_symlinks=level == 0):
        return True
    if not entry.is_file(follow_symlinks=False):
        kind = "a link" if entry.is_symlink() else "not a regular file"
        report(entry.path, f"{entry.path} is {kind} and left out.")
    return False


def tool_sources(tool, root, custom=False):
    """The sources of a tool in a root.  In a folder that any tool may have written,
    each one is asked whether the content is its own."""
    try:
        for source in tool.sources(root):
            if not custom or recognise(source.path) is tool:
                yield source
    except OSError as error:
        log.warning("%s: %s", root, error)


def recognise(path, head=None):
    """The tool that wrote a file, or None: told by its path, else by its content."""
    head = read_head(path) if head is None else head
    return next((tool for tool in TOOLS.values() if head and tool.recognise(head, os.fspath(path))), None)


# ---------------------------------------------------------------------------
# Collect: one session from a source, redacted, as the lines that are sent
# ---------------------------------------------------------------------------

SPOOL_IN_MEMORY = 1 << 20
CHECKPOINT_EVERY = 256


class Draft(NamedTuple):
    """A session as it is now: its header, and its events from `base` on in `spool`."""
    header: dict
    stats: dict
    chain: bytes
    checkpoints: bytes
    base: int                   # so many events the server has
    base_chain: bytes
    spool: object               # binary file with event lines
    facts: dict                 # what local.db alone keeps, see project_facts
    redactions: dict
    bad_lines: int
    unknown: dict

    @property
    def id(self):
        return self.header["session_id"]

    @property
    def count(self):
        return self.stats["events"]

    @property
    def header_digest(self):
        return sha256(hail_line(self.header)).digest()


def is_checkpoint(count):
    return count == 1 or count % CHECKPOINT_EVERY == 0


def known_chains(acked):
    """{event count: chain} of what the server has, from a row of sessions or None."""
    if not acked or not acked["server_id"]:
        return {}
    places = [1, *range(CHECKPOINT_EVERY, acked["acked_count"] + 1, CHECKPOINT_EVERY)]
    blob = acked["checkpoints"]
    chains = {place: blob[32 * number:32 * number + 32] for number, place in enumerate(places[:len(blob) // 32])}
    return chains | {acked["acked_count"]: acked["acked_chain"]}


def read_session(session, redactor, known, folder, facts_of):
    """Use up a session's events and return its Draft.  `facts_of(session)` gives project_facts.

    Only lines behind the last event that the server has (`known`) stay in the spool, so
    that memory and disk follow what is new."""
    chain, checkpoints, stats, base = CHAIN_START, bytearray(), empty_stats(), (0, CHAIN_START)
    spool = tempfile.SpooledTemporaryFile(max_size=SPOOL_IN_MEMORY, dir=folder)
    for count, (event, line) in enumerate(redactor.clean(session.events), 1):
        line = line if len(line) <= LONGEST_EVENT else hail_line(shortened(event))
        chain = next_chain(chain, line)
        add_to_stats(stats, event)
        if is_checkpoint(count):
            checkpoints += chain
        if known.get(count) == chain:
            base = count, chain
            spool.seek(0)
            spool.truncate()
        else:
            spool.write(line)
    facts = facts_of(session)
    header = header_of(session, stats, facts, redactor)
    return Draft(header, stats, chain, bytes(checkpoints), *base, spool, facts,
                 dict(redactor.counts), session.bad_lines, session.unknown)


LONGEST_EVENT = 8 << 20         # bytes; servers refuse a whole session for one line that is too long
LONGEST_TEXT = 1 << 20          # characters that are kept of each text in such an event


def shortened(event):
    """An event that is too long to send, without the far ends of its texts; each says how much is missing."""
    def cut(value):
        if isinstance(value, str) and len(value) > LONGEST_TEXT:
            return "" if value.startswith("data:") else f"{value[:LONGEST_TEXT]}\n[{len(value) - LONGEST_TEXT} characters left out]"
        if isinstance(value, dict):
            return {key: cut(item) for key, item in value.items()}
        return [cut(item) for item in value] if isinstance(value, list) else value
    event = cut(event)
    if len(hail_line(event)) > LONGEST_EVENT:
        event["content"] = {"blocks": [text_block("[content left out: it is too long]")]}
    return event


def header_of(session, stats, facts, redactor):
    """The header line of a session whose events are used up, redacted."""
    agent = {"provider": session.provider, "model": session.model or "unknown", "tool": session.tool}
    if session.tool_version:
        agent["tool_version"] = session.tool_version
    attributes = {**session.attributes, "source_path": facts["source_path"], "project": facts["project"],
                  "git_branch": facts["git_branch"], "parser_version": PARSER_VERSION,
                  "bad_lines": session.bad_lines, "unknown_types": session.unknown}
    context = {"title": session.title or session.prompt or session.opening, "tags": [session.tool],
               "created_at": session.created_at or stats["first"] or EPOCH,
               "updated_at": session.updated_at or stats["last"] or EPOCH,
               "related_session_ids": session.related,
               "attributes": {key: value for key, value in attributes.items() if value not in (None, "", 0, {})}}
    kept = {key: value for key, value in context.items() if value or key == "tags"}
    header = redactor.clean_header({"type": "header", "version": HAIL_VERSION, "session_id": session.session_id,
                                    "agent": agent, "context": kept})
    # Cut after masking: half a secret would not be recognised.
    if header["context"].get("title"):
        header["context"]["title"] = short_title(header["context"]["title"])
    if redactor.counts:
        header["context"]["attributes"]["redactions"] = dict(redactor.counts)
    return header


def project_facts(session, path, git):
    """Where a session was at work, before masking.  `git(cwd)` gives what git says there, {} for nothing."""
    cwd = session.attributes.get("cwd")
    cwd = cwd if isinstance(cwd, str) else None
    own = session.attributes.get("git")
    own = own if isinstance(own, dict) else {}
    now = git(cwd) if cwd else {}
    remote = without_credentials(own.get("repository_url") or now.get("remote"))
    slug = remote_slug(remote)
    return {"source_path": os.fspath(path), "working_directory": cwd, "git_remote": remote,
            "git_branch": session.attributes.get("git_branch") or own.get("branch") or now.get("branch"),
            "git_commit": own.get("commit_hash") or now.get("commit"),
            "git_repo_name": slug and slug.split("/", 1)[1],
            "project": slug or cwd and re.split(r"[/\\]", cwd.rstrip("/\\"))[-1] or None}


REMOTE = re.compile(r"(?:\w+://)?(?:[^@/]*@)?([\w.-]+\.[\w.-]+|localhost)(?::\d+(?=/))?[:/]+(.+?)(?:\.git)?/*$")


def remote_slug(remote):
    """A git remote as host/owner/repo, or None where it names no host."""
    match = REMOTE.match(remote or "")
    return f"{match[1].lower()}/{match[2]}" if match else None


def without_credentials(remote):
    return re.sub(r"(://)[^/@]*@", r"\1", remote) if isinstance(remote, str) and remote else None


def ask_git(cwd):
    """{remote, branch, commit} of a working directory, as far as git knows them."""
    if not os.path.isdir(cwd):
        return {}
    commit, _, branch = run_git(cwd, "rev-parse", "HEAD", "--abbrev-ref", "HEAD").partition("\n")
    return {"remote": run_git(cwd, "config", "--get", "remote.origin.url"),
            "branch": branch if branch != "HEAD" else "", "commit": commit if branch else ""}


def run_git(cwd, *args):
    """What a git command prints, "" where it fails or takes too long."""
    env = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(["git", "-C", cwd, *args], env=env, stdin=subprocess.DEVNULL, capture_output=True,
                              timeout=5, text=True, errors="replace")
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


# ---------------------------------------------------------------------------
# For the upload page: a transcript of some tool, read without a daemon
# ---------------------------------------------------------------------------


def native_sessions(path, filename, home=None):
    """Yield (header, event lines) of each session in a transcript, redacted; nothing where no tool fits.

    `path` is the file, `filename` what its owner called it, which may name the session;
    event lines come from a temporary file and are read before the next session."""
    filename = os.path.basename(filename)
    tool = recognise(filename, read_head(path))
    if tool:
        with named_again(Path(path).absolute(), filename) as link:
            yield from drafts_of(tool, Source(filename, (link,)), filename, home)


@contextmanager
def named_again(path, filename):
    """The path of a link to a file under another name; the file's own where there are no links."""
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / filename
        try:
            link.symlink_to(path)
        except OSError:
            link = path
        yield link


def drafts_of(tool, source, path, home=None, git=lambda cwd: {}):
    """Yield (header, event lines) of the sessions of one source, which shall be said to lie at `path`."""
    privacy = Privacy(homes=(str(home),) if home else ())
    for session in tool.parse(source):
        draft = read_session(session, Redactor(privacy), {}, None, lambda session: project_facts(session, path, git))
        draft.spool.seek(0)
        with draft.spool:
            if draft.count:
                yield draft.header, iter(draft.spool)


# ---------------------------------------------------------------------------
# Server client
# ---------------------------------------------------------------------------


class Answer(NamedTuple):
    status: int                 # 0: the server was not reached
    data: dict
    headers: object

    @property
    def ok(self):
        return 200 <= self.status < 300

    @property
    def problem(self):
        """What went wrong, as a sentence for `status`."""
        return str(self.data.get("error") or f"the server answered {self.status}")


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to another place: it is an answer, not an order."""

    def redirect_request(self, *args):
        return None


class Server:
    """The opensession server of these settings."""

    def __init__(self, settings):
        self.url = settings["server"]["url"]
        self.key = settings["server"]["api_key"]
        self.team_id = settings["identity"]["team_id"]
        handlers = [NoRedirect]
        if self.url and is_loopback(urllib.parse.urlsplit(self.url).hostname):
            handlers.append(urllib.request.ProxyHandler({}))
        self.opener = urllib.request.build_opener(*handlers)

    @property
    def configured(self):
        return bool(self.url and self.key)

    def call(self, method, path, query=None, body=None, headers=None, timeout=30, read=None):
        """One request -> Answer.  `body` is a JSON value or an open file of gzip, `read` reads another
        answer than JSON; never raises on the network."""
        query = urllib.parse.urlencode({key: value for key, value in (query or {}).items() if value not in (None, "")})
        headers = {"User-Agent": f"opensession-daemon/{VERSION}", "Accept": "application/json", **(headers or {})}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        if hasattr(body, "read"):
            headers |= {"Content-Type": "application/jsonl", "Content-Encoding": "gzip",
                        "Content-Length": str(body.seek(0, os.SEEK_END))}
            body.seek(0)
        elif body is not None:
            headers["Content-Type"] = "application/json"
            body = json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}{'?' + query if query else ''}", body, headers, method=method)
        return self.exchange(request, timeout, read or read_json)

    def exchange(self, request, timeout, read):
        try:
            with self.opener.open(request, timeout=timeout) as response:
                return Answer(response.status, read(response), response.headers)
        except urllib.error.HTTPError as error:
            with error:
                data = read_json(error)
            if 300 <= error.code < 400 and error.code != 304:
                data = {"error": f"the server redirects to {error.headers.get('Location')}: put that address into "
                                 "server.url if you trust it"}
            return Answer(error.code, data, error.headers)
        except (OSError, ValueError, urllib.error.URLError) as error:
            return Answer(0, {"error": f"{self.url} was not reached: {getattr(error, 'reason', error)}"}, {})
        except Exception as error:      # http.client has its own family of errors for broken answers
            return Answer(0, {"error": f"{self.url} gave a broken answer: {error!r}"}, {})

    def verify(self):
        return self.call("POST", "/api/auth/verify", timeout=10)

    def raw(self, server_id):
        """A session as HAIL: the bytes are the data of the answer."""
        return self.call("GET", f"/api/sessions/{server_id}/raw", timeout=300, read=lambda response: response.read())

    def upload(self, body, restore=False):
        """Send a session whole: header line and all event lines."""
        query = {"team_id": self.team_id, "restore": 1 if restore else None}
        return self.call("POST", "/api/sessions", query, body, timeout=upload_timeout(body))

    def append(self, server_id, body, start, revision, chain):
        """Send what is new: an optional header line, and event lines that replace all from `start` on."""
        query = {"from": start, "base_revision": revision, "base_chain": chain.hex()}
        return self.call("POST", f"/api/sessions/{server_id}/events", query, body, timeout=upload_timeout(body))


def upload_timeout(body):
    """Seconds for a body: a slow line of 50 KB/s is given its time."""
    return 60 + body.seek(0, os.SEEK_END) / 50_000


def read_json(response, limit=64 << 20):
    """The JSON object of an answer, {} where it is none."""
    try:
        data = json.loads(response.read(limit) or b"{}")
    except (OSError, ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def compressed(header, spool, folder):
    """A temporary file with the gzip of a header line and the lines of a spool."""
    body = tempfile.SpooledTemporaryFile(max_size=SPOOL_IN_MEMORY, dir=folder)
    spool.seek(0)
    with gzip.GzipFile(fileobj=body, mode="wb", compresslevel=4, mtime=0) as pack:
        pack.write(hail_line(header))
        while piece := spool.read(1 << 18):
            pack.write(piece)
    return body


def retry_after(headers, now):
    """Seconds that a 429 or 503 asks for, at most an hour; None where it says nothing."""
    value = headers.get("Retry-After") or ""
    if value.isdigit():
        return min(int(value), 3600)
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    return min(max(0, at.timestamp() - now), 3600)


def backoff(attempts, quick):
    """Seconds before the next try: 2, 4, 8 … as often as `quick` says, then 30 s to 5 min; jitter on top."""
    seconds = min(2 ** attempts, 16) if attempts <= quick else min(30 * 2 ** min(attempts - quick - 1, 8), 300)
    return seconds * (1 + secrets.randbelow(250) / 1000)


# ---------------------------------------------------------------------------
# Loop: look, collect, send
# ---------------------------------------------------------------------------

HOT = 3600                      # a file that changed within the last hour is looked at every second
COLD_TURN = 300                 # all others in turn within five minutes
RETRY_SOURCE = 60               # seconds until a source that could not be read is tried again


class Daemon:
    """Everything that one pass or one run works with.  Time and sleep come from outside."""

    def __init__(self, paths, settings, cache, env, tool_env=None, clock=time.monotonic, wall=time.time, sleep=time.sleep):
        self.paths, self.cache, self.env = paths, cache, env
        self.tool_env = env if tool_env is None else tool_env
        self.clock, self.wall, self.sleep = clock, wall, sleep
        self.custom_roots = None        # paths of `once`, instead of all usual ones
        self.by_hand = False            # `once` sends where `run` would wait to be told
        self.git = {}                   # cwd -> (when asked, answer)
        self.reported = set()
        self.failed = set()             # names of sources that could not be read
        self.rejected = 0
        self.progress = Progress(wall)
        self.due = {}                   # task -> when it is next due
        self.apply(settings)

    def apply(self, settings):
        """Work with these settings from now on."""
        self.settings = settings
        self.settings_seen = self.settings_states()
        self.server = Server(settings)
        self.connected = False          # the key was checked, and the account is the one that local.db knows
        self.paused_until = self.failures = 0
        salt = self.cache.meta("salt")
        if not salt:
            salt = secrets.token_hex(16)
            self.cache.set_meta("salt", salt)
        self.privacy = privacy_of(settings, self.env, self.paths.home, salt.encode())
        rules = json.dumps([PARSER_VERSION, settings["privacy"]], sort_keys=True)
        self.made_with = sha256(rules.encode()).hexdigest()[:16]
        self.watched = {}               # (tool, key) -> Watched
        self.changed = {}               # those that wait to be collected
        self.hot = {}                   # those that changed lately
        self.turn = deque()             # names, the next cold one first
        self.folders = {}               # (tool, root) -> folder_states
        self.queue = []                 # changed and quiet, the newest last
        self.due.clear()

    @property
    def mode(self):
        return self.settings["daemon"]["publish_on"]

    @property
    def may_send(self):
        return self.connected and self.clock() >= self.paused_until and (self.by_hand or self.mode != "manual")

    def report(self, key, sentence):
        """Log a sentence once per run."""
        if key not in self.reported:
            self.reported.add(key)
            log.warning("%s", sentence)

    # Looking ---------------------------------------------------------------

    def roots(self):
        """Yield (tool, root, custom) of all that is switched on."""
        home, settings = self.paths.home, self.settings
        given = settings["watchers"]["custom_paths"] if self.custom_roots is None else self.custom_roots
        for tool in TOOLS.values():
            if collects(settings, tool.name):
                usual = () if self.custom_roots is not None else tool.roots(self.tool_env, home)
                yield from ((tool, Path(root), False) for root in usual)
                yield from ((tool, expand_home(path, home), True) for path in given)

    def discover(self):
        """List the sources of each root in which a folder has changed."""
        current = {(tool.name, root): (tool, root, custom) for tool, root, custom in self.roots()}
        for name in self.folders.keys() - current.keys():
            del self.folders[name]
        for name, (tool, root, custom) in current.items():
            if have_changed(self.folders.get(name)):
                states = folder_states(root, self.report)
                # A folder that changed just now may change again within the same tick of a coarse clock.
                recent = (self.wall() - COARSE) * 1e9
                self.folders[name] = {path: at if at < recent else None for path, at in states.items()}
                for source in tool_sources(tool, root, custom):
                    self.watch(tool, source)

    def watch(self, tool, source):
        """Take a source into care.  Of two with one name, the longer is the whole one."""
        name = tool.name, source.key
        watched = self.watched.get(name)
        if not watched:
            watched = self.watched[name] = Watched(tool, source)
            self.turn.append(name)
        elif watched.source.path == source.path or file_size(source.path) > file_size(watched.source.path):
            watched.source = source
        self.look(watched)

    def look(self, watched):
        """Notice a change of a source: cheap, as nothing is read unless something did change."""
        states = file_states(watched.source)
        if states[0] is None:
            self.forget(watched.name)
        elif states != watched.states or watched.look_again and self.wall() - watched.mtime > COARSE:
            known = watched.states is None and self.is_known(watched, states)
            watched.states, watched.look_again = states, False
            if not known:
                self.note_change(watched)
            if self.wall() - watched.mtime < HOT:
                self.hot[watched.name] = watched

    def is_known(self, watched, states):
        row = self.cache.first("SELECT fingerprint, made_with FROM sources WHERE tool = ? AND key = ?", watched.name)
        return bool(row) and tuple(row) == (fingerprint(watched.source, states), self.made_with)

    def note_change(self, watched):
        """Let a source wait until it is quiet; what was written long ago is quiet already."""
        age = max(0, self.wall() - watched.mtime)
        watched.changed_at = self.clock() - age
        watched.waiting_since = watched.waiting_since or watched.changed_at
        watched.look_again = watched.mtime.is_integer() and age < COARSE
        self.changed[watched.name] = watched

    def forget(self, name):
        for table in (self.watched, self.changed, self.hot):
            table.pop(name, None)

    def poll(self):
        """Look at the files that changed lately, and at some of the others; then see what is ready."""
        for name, watched in list(self.hot.items()):
            self.look(watched)
            if self.wall() - watched.mtime > HOT:
                self.hot.pop(name, None)
        for _ in range(math.ceil(len(self.turn) / COLD_TURN)):
            name = self.turn.popleft()
            if name in self.watched:
                self.look(self.watched[name])
                self.turn.append(name)
        self.queue_due()
        self.queue = sorted((watched for watched in self.changed.values() if self.is_ready(watched)),
                            key=lambda watched: watched.mtime)
        self.progress.plan(len(self.queue), sum(watched.size for watched in self.queue))

    def is_ready(self, watched):
        """Whether a change has settled.  One that never does is collected all the same, but a
        session that takes long to read not all the time."""
        daemon, now = self.settings["daemon"], self.clock()
        quiet = daemon["realtime_debounce_ms"] / 1000 if self.mode == "realtime" else daemon["debounce_secs"]
        if self.by_hand:
            return now >= watched.changed_at
        return (now - watched.changed_at >= max(quiet, watched.cost)
                or now - watched.waiting_since >= max(quiet + 3, 4 * watched.cost) and now >= watched.changed_at)

    def queue_due(self):
        """Let the sources of sessions that are due to be sent be read again."""
        if not self.may_send:
            return
        now = self.wall()
        rows = self.cache.execute("""
            SELECT DISTINCT o.tool, s.source_key, s.source_path
              FROM outbox o JOIN sessions s ON s.tool = o.tool AND s.id = o.id
             WHERE o.parked_for IS NOT ? AND (o.next_try <= ? OR o.next_try > ? + 7200)
        """, [self.parking, now, now]).fetchall()
        for tool_name, key, path in rows:
            name = tool_name, key
            if name not in self.changed and (name in self.watched or self.find_again(tool_name, key, path)):
                self.watched[name].changed_at = self.watched[name].waiting_since = self.clock() - 3600
                self.changed[name] = self.watched[name]

    def find_again(self, tool_name, key, path):
        """Watch a source that lies outside the usual places; what is gone waits for its return."""
        tool = TOOLS.get(tool_name)
        sources = tool_sources(tool, Path(path)) if tool and collects(self.settings, tool_name) else ()
        source = next((source for source in sources if source.key == key), None)
        if source and os.path.exists(source.path):
            self.watch(tool, source)
            return (tool_name, key) in self.watched
        self.cache.batch([(PARK_MISSING, [self.parking, "its source is gone or switched off", tool_name, tool_name, key, "[]"])])
        return False

    @property
    def parking(self):
        """What a rejected session was rejected by: it is tried again when this changes."""
        return f"{VERSION} {self.server.url} {self.server.team_id}"

    # Collecting ------------------------------------------------------------

    def collect(self, watched):
        """Read a source and send its sessions.  Nothing that it holds stops the daemon."""
        self.changed.pop(watched.name, None)
        watched.waiting_since = None
        started, mark = self.clock(), fingerprint(watched.source, watched.states)
        problem, seen = None, set()
        try:
            for session in watched.tool.parse(watched.source):
                if self.take(watched, session):
                    seen.add(session.session_id)
        except (OSError, sqlite3.OperationalError) as error:
            self.report((watched.name, str(error)), f"{watched.source.path} cannot be read yet: {error}")
            self.failed.add(watched.name)
            watched.changed_at = watched.waiting_since = self.clock() + RETRY_SOURCE
            self.changed[watched.name] = watched
            return
        except Exception as error:
            log.exception("%s cannot be read; it is tried again when it changes.", watched.source.path)
            self.failed.add(watched.name)
            problem = repr(error)
        watched.cost = self.clock() - started
        self.progress.count(watched.size)
        self.cache.batch([
            ("INSERT OR REPLACE INTO sources VALUES (?, ?, ?, ?, ?, ?)",
             [*watched.name, os.fspath(watched.source.path), mark, self.made_with, problem]),
            # What waits to be sent, but is not to be read there any more, cannot be sent.
            (PARK_MISSING, [self.parking, problem or "its source does not hold it any more", watched.tool.name,
                            *watched.name, json.dumps(list(seen))])])

    def take(self, watched, session):
        """Read one session, keep what local.db keeps, and send what the server lacks.  False if it is not wanted."""
        name = session.tool, session.session_id
        acked = self.session_row(name)
        redactor = Redactor(self.privacy, self.mask_memory(name))
        draft = read_session(session, redactor, known_chains(acked), self.paths.data,
                             lambda session: project_facts(session, watched.source.path, self.ask_git))
        with draft.spool:
            if not self.is_wanted(draft, acked, watched.source):
                return False
            self.record(name, draft, acked, watched.source, redactor.new_masks)
            if self.may_send:
                self.send(name, draft)
        return True

    def session_row(self, name):
        return self.cache.first("SELECT * FROM sessions WHERE tool = ? AND id = ?", name)

    def mask_memory(self, name):
        rows = self.cache.execute("SELECT rule, fingerprint, number FROM masks WHERE tool = ? AND id = ?", name)
        return {(rule, digest): number for rule, digest, number in rows}

    def ask_git(self, cwd):
        """ask_git with a memory of a minute."""
        asked, answer = self.git.get(cwd, (None, None))
        if asked is None or self.clock() - asked > 60:
            asked, answer = self.git[cwd] = self.clock(), ask_git(cwd)
        return answer

    def is_wanted(self, draft, acked, source):
        """Whether a draft may replace what is known: never by nothing, a shortened copy, or a second-best one."""
        cwd = draft.facts["working_directory"] or ""
        if not draft.count or any(fnmatch(cwd, str(expand_home(pattern, self.paths.home)))
                                  for pattern in self.settings["privacy"]["exclude_projects"]):
            return False
        if not acked:
            return True
        if acked["source_key"] != source.key and draft.count <= acked["event_count"]:
            return False
        # The same beginning and fewer events: the file was cut.  Another beginning: it was rewritten.
        return not (draft.count < acked["acked_count"] and draft.base
                    and acked["acked_parser"] == PARSER_VERSION)

    def record(self, name, draft, acked, source, new_masks):
        """Put a draft into local.db, and into the outbox if the server lacks it; one transaction."""
        row = session_columns(name, draft, source)
        if acked and acked["git_commit"]:
            row["git_commit"] = acked["git_commit"]
        columns, values = ", ".join(row), list(row.values())
        updates = ", ".join(f"{column} = excluded.{column}" for column in row)
        statements = [(f"INSERT INTO sessions ({columns}) VALUES ({', '.join('?' * len(values))}) "
                       f"ON CONFLICT (tool, id) DO UPDATE SET {updates}", values)]
        statements += [("INSERT OR REPLACE INTO masks VALUES (?, ?, ?, ?, ?)", [*name, *mask]) for mask in new_masks]
        if acked and acked["server_id"] and (acked["acked_chain"], acked["acked_header"]) == (draft.chain, draft.header_digest):
            statements.append(("DELETE FROM outbox WHERE tool = ? AND id = ?", name))
        else:
            if not acked or acked["chain"] != draft.chain:      # a new content deserves a new chance
                statements.append(("UPDATE outbox SET attempts = 0, next_try = 0, problem = NULL, parked_for = NULL "
                                   "WHERE tool = ? AND id = ?", name))
            statements.append(("INSERT OR IGNORE INTO outbox (tool, id) SELECT tool, id FROM sessions "
                               "WHERE tool = ? AND id = ? AND (sync_status != 'deleted')", name))
        self.cache.batch(statements)

    # Sending ---------------------------------------------------------------

    def send(self, name, draft):
        """Send a session's draft if it waits for that, and do what the answer asks for."""
        waiting = self.cache.first("SELECT * FROM outbox WHERE tool = ? AND id = ?", name)
        if not waiting or waiting["parked_for"] == self.parking or not self.by_hand and waiting["next_try"] > self.wall():
            return
        row = self.session_row(name)
        delta = bool(row["server_id"] and draft.base)
        with compressed(draft.header, draft.spool, self.paths.data) as body:
            if delta:
                answer = self.server.append(row["server_id"], body, draft.base, row["revision"], draft.base_chain)
            else:
                answer = self.server.upload(body, waiting["restore"])
        log.debug("%s %s: %s, %s", *name, f"from {draft.base}" if delta else "whole", answer.status)
        if answer.ok:
            self.acknowledge(name, draft, answer)
        elif delta and answer.status in DELTA_REACTIONS:
            DELTA_REACTIONS[answer.status](self, name, answer, waiting)
        else:
            REACTIONS.get(answer.status, Daemon.try_later)(self, name, answer, waiting)

    def acknowledge(self, name, draft, answer):
        """The server has it: keep its word."""
        data, self.failures = answer.data, 0
        chain = bytes.fromhex(data.get("chain") or draft.chain.hex())
        if chain != draft.chain:
            log.warning("%s %s: the server stored other events than were sent.", *name)
        self.progress.sent += 1
        self.cache.batch([
            ("""UPDATE sessions SET sync_status = 'synced', last_synced_at = ?, server_id = ?, revision = ?,
                       acked_count = ?, acked_chain = ?, acked_header = ?, acked_parser = ?, checkpoints = ?
                 WHERE tool = ? AND id = ?""",
             [utc(self.wall()), data.get("id"), data.get("revision"), data.get("event_count", draft.count), chain,
              draft.header_digest, PARSER_VERSION, draft.checkpoints, *name]),
            ("DELETE FROM outbox WHERE tool = ? AND id = ?", name),
            ("DELETE FROM pulled WHERE id = ?", [data.get("id")])])

    def rebase(self, name, answer, waiting):
        """The server has other events than we knew: go on from its state, the second time from nothing."""
        data = answer.data
        if waiting["attempts"] or not isinstance(data.get("chain"), str):
            self.send_whole(name, answer, waiting)
            return
        self.cache.batch([
            ("UPDATE sessions SET revision = ?, acked_count = ?, acked_chain = ?, checkpoints = x'' WHERE tool = ? AND id = ?",
             [data.get("revision"), data.get("event_count"), bytes.fromhex(data["chain"]), *name]),
            ("UPDATE outbox SET attempts = 1 WHERE tool = ? AND id = ?", name)])

    def send_whole(self, name, answer, waiting):
        """The server does not know the session (any more), or cannot take the delta."""
        self.cache.batch([(FORGET_ACKNOWLEDGED + " WHERE tool = ? AND id = ?", name)])

    def park(self, name, answer, waiting):
        """Rejected: not sent again until its content, this program or the account changes."""
        log.warning("%s %s was rejected: %s", *name, answer.problem)
        self.rejected += 1
        self.cache.batch([("UPDATE outbox SET parked_for = ?, problem = ? WHERE tool = ? AND id = ?",
                           [self.parking, answer.problem, *name])])

    def bury(self, name, answer, waiting):
        """Deleted on the server by a person: that holds until `push --restore`."""
        log.info("%s %s was deleted on the server and stays so.", *name)
        self.cache.batch([("UPDATE sessions SET sync_status = 'deleted' WHERE tool = ? AND id = ?", name),
                          ("DELETE FROM outbox WHERE tool = ? AND id = ?", name)])

    def lose_access(self, name=None, answer=None, waiting=None):
        """The key is refused: nothing is sent until it is accepted again."""
        self.connected = False
        self.pause(RETRY_KEY, f"{self.server.url} refuses the key; collecting goes on. See `daemon.py login`.")

    def try_later(self, name, answer, waiting):
        """Trouble on the other side: of the whole server, or with this one session."""
        asked = retry_after(answer.headers, self.wall())
        if asked is not None or answer.status in UNAVAILABLE:
            self.server_trouble(answer, asked)
            return
        wait = backoff(waiting["attempts"] + 1, self.settings["daemon"]["max_retries"])
        log.warning("%s %s: %s; tried again in %.0f s.", *name, answer.problem, wait)
        self.cache.batch([("UPDATE outbox SET attempts = attempts + 1, next_try = ?, problem = ? WHERE tool = ? AND id = ?",
                           [self.wall() + wait, answer.problem, *name])])

    def server_trouble(self, answer, asked=None):
        self.failures += 1
        self.pause(asked or backoff(self.failures, self.settings["daemon"]["max_retries"]), answer.problem)

    def pause(self, seconds, sentence):
        self.paused_until = self.clock() + seconds
        level = logging.WARNING if sentence != getattr(self, "last_trouble", None) else logging.DEBUG
        self.last_trouble = sentence
        log.log(level, "%s", sentence)

    # Talking to the server otherwise ----------------------------------------

    def connect(self):
        """Check the key, and start from nothing with an account that local.db does not know."""
        if self.connected or not self.server.configured or self.clock() < self.paused_until:
            return
        answer = self.server.verify()
        if answer.status == 401:
            self.lose_access()
        elif not answer.ok:
            self.server_trouble(answer)
        else:
            account = f"{self.server.url} {answer.data.get('user_id')}"
            if self.cache.meta("account") != account:
                self.cache.batch(NEW_ACCOUNT + [("INSERT OR REPLACE INTO meta VALUES ('account', ?)", [account])])
            self.connected, self.failures, self.last_trouble = True, 0, None
            log.info("Connected to %s as %s.", self.server.url, answer.data.get("nickname"))

    def check_health(self):
        """See whether the server still answers and knows us, and take over its settings."""
        if self.clock() >= self.paused_until:
            self.connected = False
            self.connect()
            self.sync_config()

    def sync_config(self):
        """Fetch what the server's administrator adds to the settings."""
        if not self.connected:
            return
        path = self.paths.config / "synced.toml"
        etag = read_etag(path)
        answer = self.server.call("GET", "/api/config/sync", headers={"If-None-Match": etag} if etag else {}, timeout=10)
        if answer.status == 200:
            write_private(path, synced_toml(answer.data, answer.headers.get("ETag") or "", utc(self.wall())))

    def pull(self):
        """Fetch what the team did on other machines, page by page; each page with its cursor in one transaction."""
        team = self.server.team_id
        more = bool(team) and self.connected and self.clock() >= self.paused_until
        while more:
            row = self.cache.first("SELECT cursor FROM sync_cursors WHERE team_id = ?", [team])
            answer = self.server.call("GET", "/api/sync/pull",
                                      {"team_id": team, "since": row and row["cursor"], "limit": 100})
            if not answer.ok:
                self.report("pull", f"Nothing is pulled from the team: {answer.problem}.")
                return
            self.cache.batch(page_statements(team, answer.data))
            more = answer.data.get("has_more") and answer.data.get("next_cursor")

    def reload(self):
        """Take over changed settings files; a broken one changes nothing."""
        if self.settings_states() == self.settings_seen:
            return
        try:
            self.apply(load_settings(self.paths, self.env))
            log.info("The settings changed and were read again.")
        except SettingsError as error:
            self.settings_seen = self.settings_states()
            log.error("%s The old settings stay.", error)

    def settings_states(self):
        return file_states(Source("", [self.paths.config / name for name in SETTINGS_FILES]))

    # Running ---------------------------------------------------------------

    def tasks(self):
        """[(seconds, method)] of what is done again and again."""
        health = self.settings["daemon"]["health_check_interval_secs"]
        return [*([(health, self.check_health)] if health else []), (1, self.connect), (5, self.reload),
                (5, self.discover), (1, self.poll), (60, self.pull)]

    def step(self):
        """Do what is due, then collect the newest source that is ready, or sleep."""
        for seconds, task in self.tasks():
            if self.clock() >= self.due.get(task.__name__, 0):
                task()
                self.due[task.__name__] = self.clock() + seconds
        if self.queue:
            self.collect(self.queue.pop())
            return
        self.progress.finish()
        self.rest()

    def rest(self):
        """Sleep until something is due.  After a gap (a laptop slept) everything is due at once."""
        before = self.wall()
        seconds = max(0.05, min(self.due.values()) - self.clock())
        self.sleep(seconds)
        if not -5 < self.wall() - before - seconds < 5:
            self.due.clear()
            self.folders.clear()
            self.paused_until = self.failures = 0

    def run(self):
        """Collect and send for ever.  A full disk or a lost folder is waited out."""
        while True:
            try:
                self.step()
            except (OSError, sqlite3.OperationalError) as error:
                self.report(str(error), f"Nothing can be collected now: {error}")
                self.sleep(RETRY_SOURCE)
                self.apply(self.settings)

    def once(self, paths=None):
        """One pass over everything, or over the given paths; True if all of it was read and sent."""
        self.by_hand, self.custom_roots = True, paths
        self.connect()
        if self.settings["daemon"]["health_check_interval_secs"]:
            self.sync_config()
        self.reload()
        self.connect()
        self.discover()
        for _ in range(self.settings["daemon"]["max_retries"] + 1):
            self.pass_over()
            if not self.server.configured or self.connected and self.clock() >= self.paused_until or not self.waiting():
                break
            self.sleep(min(max(0, self.paused_until - self.clock()), 30))
            self.connect()
        self.pull()
        return not (self.failed or self.rejected or self.server.configured and self.waiting())

    def pass_over(self):
        """Collect all that has changed, the newest first."""
        self.poll()
        while self.queue:
            self.collect(self.queue.pop())
            if not self.queue:
                self.poll()
        self.progress.finish()

    def waiting(self):
        """How many sessions wait to be sent, parked ones apart."""
        return self.cache.first("SELECT count(*) FROM outbox WHERE parked_for IS NOT ?", [self.parking])[0]


RETRY_KEY = 300
SETTINGS_FILES = ("daemon.toml", "config.toml", "synced.toml")
UNAVAILABLE = (0, 429, 502, 503, 504, 507)

# What an answer other than success leads to; any other status is tried again later.
REACTIONS = {
    **dict.fromkeys((400, 403, 404, 413, 415, 422), Daemon.park),
    401: Daemon.lose_access,
    410: Daemon.bury,
}
# The same where only what is new was sent.
DELTA_REACTIONS = {409: Daemon.rebase, **dict.fromkeys((400, 404, 405, 413, 415, 422), Daemon.send_whole)}

PARK_MISSING = """
    UPDATE outbox SET parked_for = ?, problem = ?
     WHERE tool = ? AND id IN (SELECT id FROM sessions WHERE tool = ? AND source_key = ?)
       AND id NOT IN (SELECT value FROM json_each(?))"""
FORGET_ACKNOWLEDGED = """
    UPDATE sessions SET sync_status = 'local_only', server_id = NULL, revision = NULL, acked_count = 0,
           acked_chain = NULL, acked_header = NULL, acked_parser = NULL, checkpoints = x''"""
NEW_ACCOUNT = [
    (FORGET_ACKNOWLEDGED, []),
    ("DELETE FROM pulled", []), ("DELETE FROM sync_cursors", []), ("DELETE FROM body_cache", []),
    ("INSERT OR REPLACE INTO outbox (tool, id) SELECT tool, id FROM sessions", [])]


def expand_home(path, home):
    path = os.fspath(path)
    return home / path[2:] if path.startswith(("~/", "~\\")) else Path(path)


def session_columns(name, draft, source):
    """A row of sessions without what the server acknowledged: {column: value}."""
    agent, context, counts = draft.header["agent"], draft.header["context"], stats_line(draft.stats)
    counts = {key: counts[key] for key in ("message_count", "user_message_count", "task_count", "event_count",
                                           "duration_seconds", "total_input_tokens", "total_output_tokens")}
    return {"tool": name[0], "id": name[1], "source_key": source.key, "agent_provider": agent["provider"],
            "agent_model": agent["model"], "title": context.get("title"), "created_at": context["created_at"],
            "updated_at": context["updated_at"], **counts, **draft.facts, "parser_version": PARSER_VERSION,
            "bad_lines": draft.bad_lines, "unknown_types": json.dumps(draft.unknown),
            "redactions": json.dumps(draft.redactions), "chain": draft.chain}


def page_statements(team, page):
    """The statements that store one page of pulled sessions; our own are known already."""
    statements = []
    for one in page.get("sessions") or []:
        statements.append(("DELETE FROM body_cache WHERE session_id = ?", [one["id"]]))
        statements.append(("""
            INSERT OR REPLACE INTO pulled (id, team_id, tool, title, nickname, updated_at, summary)
            SELECT ?, ?, ?, ?, ?, ?, ? WHERE NOT EXISTS (SELECT 1 FROM sessions WHERE server_id = ?)
        """, [one["id"], team, one["tool"], one.get("title"), one.get("nickname"),
              one.get("updated_at") or one["uploaded_at"], json.dumps(one, ensure_ascii=False), one["id"]]))
    for gone in page.get("deleted") or []:
        statements += [("DELETE FROM pulled WHERE id = ?", [gone]), ("DELETE FROM body_cache WHERE session_id = ?", [gone])]
    if page.get("next_cursor"):
        statements.append(("INSERT OR REPLACE INTO sync_cursors VALUES (?, ?)", [team, page["next_cursor"]]))
    return statements


def read_etag(path):
    """The ETag that a synced.toml was made from, or None."""
    try:
        return tomllib.loads(path.read_text("utf-8")).get("etag")
    except (OSError, ValueError):
        return None


def synced_toml(data, etag, at):
    """synced.toml: the sections of the server's answer that are known, with flags and lists of texts."""
    lines = [f"# From the server; changes here are lost.\netag = {json.dumps(etag)}\nlast_synced = {json.dumps(at)}"]
    for section in ("privacy", "watchers"):
        lines.append(f"\n[{section}]")
        for key, value in (data.get(section) or {}).items():
            default = DEFAULTS[section].get(key)
            if default is not None and not type_problem(section, key, default, value):
                lines.append(f"{key} = {json.dumps(value, ensure_ascii=False)}")
    return "\n".join(lines) + "\n"


class Progress:
    """Tells how a long pass goes: one moving line on a terminal, else a line every ten seconds."""

    def __init__(self, wall):
        self.wall = wall
        self.moving = sys.stderr.isatty()
        self.sent = 0
        self.finish()

    def plan(self, sources, size):
        """So many sources, of so many bytes, are to be read now."""
        if sources and self.started is None:
            self.started = self.shown = self.wall()
        self.sources, self.size = self.done + sources, self.done_size + size

    def count(self, size):
        """One more source was read."""
        self.done += 1
        self.done_size += size
        now = self.wall()
        if self.started is None or now - self.shown < (0.2 if self.moving else 10):
            return
        self.shown = now
        speed = self.done_size / (now - self.started) or 1
        left = max(0, self.size - self.done_size) / speed
        line = f"{self.done}/{self.sources} sources, {speed / 1e6:.1f} MB/s, {left:.0f} s left"
        if self.moving:
            print(f"\r{line}\033[K", end="", file=sys.stderr, flush=True)
        else:
            log.info("%s", line)

    def finish(self):
        if getattr(self, "started", None) and self.wall() - self.started > 10:
            log.info("%s%d sources in %.0f s.", "\r\033[K" * self.moving, self.done, self.wall() - self.started)
        self.started = self.shown = None
        self.done = self.done_size = self.sources = self.size = 0


# ---------------------------------------------------------------------------
# Main
# ---------------------------------------------------------------------------

EXITS = """exit codes: 0 all went well; 1 something could not be read, sent or recognised (one sentence says what);
2 wrong usage or settings; 3 another daemon of this account is running"""


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(prog="daemon.py", description=__doc__.split("\n")[0], epilog=EXITS)
    parser.set_defaults(run=run_command)
    parser.add_argument("--home", metavar="DIR", help="look for tools, settings and local.db below DIR")
    parser.add_argument("--verbose", action="store_true", help="log every request and decision")
    commands = parser.add_subparsers(metavar="COMMAND")

    def command(run, name, about):
        added = commands.add_parser(name, help=about, description=about, epilog=EXITS)
        added.set_defaults(run=run)
        return added

    command(run_command, "run", "collect and send for ever (the default)")
    command(once_command, "once", "one pass; with PATHs only over them").add_argument("paths", nargs="*", metavar="PATH")
    login = command(login_command, "login", "register at a server, or use a key, and remember both")
    login.add_argument("url", metavar="URL")
    login.add_argument("--nickname", help="register under this name")
    login.add_argument("--key", help="use this API key instead of registering")
    login.add_argument("--invite", help="an invitation code, or the server's set-up token")
    command(status_command, "status", "what was collected, what waits, what was rejected").add_argument(
        "--json", action="store_true", help="for programs")
    command(tools_command, "tools", "the tools that are known, and where their sessions are looked for")
    parse = command(parse_command, "parse", "print the sessions of a file as HAIL, redacted")
    parse.add_argument("file", metavar="FILE")
    parse.add_argument("--tool", help="read it as this tool's (else it is recognised)")
    command(show_command, "show", "print a session of the team as HAIL; it is fetched once").add_argument(
        "session", metavar="SESSION", help="its id on the server, or the tool's own")
    command(redact_command, "redact", "copy standard input to standard output without secrets")
    push = command(push_command, "push", "send a session again")
    push.add_argument("session", metavar="SESSION", help="its id, here or on the server")
    push.add_argument("--restore", action="store_true", help="even if it was deleted on the server")
    return parser


def main(argv=None):
    """Run a command; return its exit code."""
    options = arguments().parse_args(argv)
    logging.basicConfig(level=logging.DEBUG if options.verbose else logging.INFO, stream=sys.stderr,
                        format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")
    try:
        return options.run(options)
    except (SettingsError, CacheRefused) as error:
        print(error, file=sys.stderr)
        return EXIT_USAGE
    except BrokenPipeError:
        sys.stderr.close()              # the reader of our output left
        return EXIT_OK
    except (OSError, sqlite3.OperationalError) as error:
        return fail(str(error))
    except KeyboardInterrupt:
        return EXIT_FAILED


def open_daemon(options):
    """(Daemon, lock) of these options; the lock is None where another daemon runs."""
    paths = find_paths(os.environ, options.home)
    settings = load_settings(paths, os.environ)
    lock = lock_data(paths.data)
    if not lock:
        print(f"Another daemon is running on {paths.data}.", file=sys.stderr)
        return None, None
    # A given home is meant for the tools too, whatever their variables say.
    return Daemon(paths, settings, open_cache(paths.database), os.environ, {} if options.home else os.environ), lock


def run_command(options):
    daemon, lock = open_daemon(options)
    if not daemon:
        return EXIT_RUNNING
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(EXIT_OK))
    if not daemon.server.configured:
        log.info("No server is set: sessions are collected into %s and stay there. See `daemon.py login`.",
                 daemon.paths.database)
    with lock:
        daemon.run()


def once_command(options):
    daemon, lock = open_daemon(options)
    if not daemon:
        return EXIT_RUNNING
    with lock:
        complete = daemon.once([os.path.abspath(path) for path in options.paths] or None)
    print(summary(daemon))
    return EXIT_OK if complete else EXIT_FAILED


def summary(daemon):
    """One line on what `once` did."""
    read, waiting = daemon.cache.first("SELECT count(*), (SELECT count(*) FROM outbox) FROM sessions")
    sent = f"{daemon.progress.sent} sent, {waiting} not sent" if daemon.server.configured else "no server is set"
    failed = f", {len(daemon.failed)} sources could not be read" if daemon.failed else ""
    return f"{read} sessions known, {sent}{failed}."


def login_command(options):
    """Get or check a key, choose the team, write daemon.toml."""
    paths = find_paths(os.environ, options.home)
    settings = load_settings(paths, {})
    url = (options.url if "://" in options.url else f"https://{options.url}").rstrip("/")
    check_server_url(url, settings["server"]["allow_insecure"])
    settings["server"].update(url=url, api_key=options.key or "")
    server = Server(settings)
    nickname = options.nickname or os.environ.get("USER") or os.environ.get("USERNAME") or "user"
    answer = server.verify() if options.key else server.call(
        "POST", "/api/register", body={"nickname": nickname, **({"invite": options.invite} if options.invite else {})})
    if not answer.ok:
        return fail(f"{url}: {answer.problem}")
    server.key = answer.data.get("api_key") or options.key
    if options.key and options.invite:
        joined = server.call("POST", "/api/invitations/accept", body={"code": options.invite})
        if not joined.ok:
            return fail(f"{url}: {joined.problem}")
    team, choice = only_team(server)
    write_login(paths, {("server", "url"): url, ("server", "api_key"): server.key,
                        ("identity", "nickname"): answer.data.get("nickname", nickname), ("identity", "team_id"): team})
    print(f"Signed in to {url} as {answer.data.get('nickname')}. {choice}")
    return EXIT_OK


def only_team(server):
    """(team id or "", a sentence) from the teams of a new login."""
    teams = server.call("GET", "/api/teams").data.get("teams") or []
    known = not teams and server.verify().data.get("team_id")
    if known:       # a key that may only upload cannot list teams
        return known, "Sessions go to your team."
    if len(teams) == 1:
        return teams[0]["id"], f"Sessions go to the team {teams[0]['name']}."
    listed = "".join(f"\n  {team['id']}  {team['name']}" for team in teams)
    return "", f"Set identity.team_id in daemon.toml to one of your teams:{listed}" if teams else "You have no team yet."


def write_login(paths, values):
    path = paths.config / "daemon.toml"
    text = path.read_text("utf-8") if path.exists() else ""
    for (section, key), value in values.items():
        text = set_in_toml(text, section, key, value)
    write_private(path, text)


def fail(sentence):
    print(sentence, file=sys.stderr)
    return EXIT_FAILED


def status_command(options):
    paths = find_paths(os.environ, options.home)
    settings = load_settings(paths, os.environ)
    lock = lock_data(paths.data)
    if lock:
        lock.close()
    cache = open_cache(paths.database)
    known = {"server": settings["server"]["url"], "team_id": settings["identity"]["team_id"],
             "publish_on": settings["daemon"]["publish_on"], "running": lock is None,
             "database": str(paths.database), **cache_status(cache)}
    print(json.dumps(known, ensure_ascii=False, indent=2) if options.json else status_text(known))
    return EXIT_OK


def cache_status(cache):
    """What local.db says: counts by tool, what waits, what was rejected, what was masked."""
    sessions = cache.execute("SELECT tool, sync_status, redactions, unknown_types, bad_lines FROM sessions").fetchall()
    tools = {}
    for row in sessions:
        counts = tools.setdefault(row["tool"], {"sessions": 0, "synced": 0, "bad_lines": 0})
        counts["sessions"] += 1
        counts["synced"] += row["sync_status"] == "synced"
        counts["bad_lines"] += row["bad_lines"]
    waiting = cache.execute("SELECT tool, id, attempts, problem FROM outbox WHERE parked_for IS NULL").fetchall()
    parked = cache.execute("SELECT tool, id, problem FROM outbox WHERE parked_for IS NOT NULL").fetchall()
    broken = cache.execute("SELECT tool, path, problem FROM sources WHERE problem IS NOT NULL").fetchall()
    return {"tools": tools, "redactions": added_up(row["redactions"] for row in sessions),
            "unknown_types": added_up(row["unknown_types"] for row in sessions),
            "waiting": [dict(row) for row in waiting], "rejected": [dict(row) for row in parked],
            "unreadable": [dict(row) for row in broken],
            "pulled": cache.first("SELECT count(*) FROM pulled")[0]}


def added_up(counts):
    """The sum of JSON objects of counts."""
    return dict(sum((Counter(json.loads(text)) for text in counts), Counter()).most_common())


def status_text(known):
    server = f"{known['server']} (team {known['team_id'] or 'the only one'})" if known["server"] else "none: nothing is sent"
    lines = [f"server      {server}", f"daemon      {'running' if known['running'] else 'not running'}",
             f"publish_on  {known['publish_on']}", f"database    {known['database']}", ""]
    lines += [f"{tool:<14}{counts['sessions']:>6} sessions, {counts['synced']} sent" + (
        f", {counts['bad_lines']} damaged lines" if counts["bad_lines"] else "") for tool, counts in known["tools"].items()]
    for title in ("redactions", "unknown_types"):
        if known[title]:
            lines.append(f"{title}: " + ", ".join(f"{name} {count}" for name, count in known[title].items()))
    lines.append(f"{len(known['waiting'])} wait to be sent, {known['pulled']} of other machines")
    lines += [f"rejected  {one['tool']} {one['id']}: {one['problem']}" for one in known["rejected"]]
    lines += [f"unreadable  {one['path']}: {one['problem']}" for one in known["unreadable"]]
    return "\n".join(lines)


def tools_command(options):
    paths = find_paths(os.environ, options.home)
    settings = load_settings(paths, os.environ)
    for tool in TOOLS.values():
        print(f"{tool.name:<14}{tool.title}{'' if collects(settings, tool.name) else '  (off)'}")
        for root in tool.roots({} if options.home else os.environ, paths.home):
            print(f"              {root}{'' if os.path.exists(root) else '  (not there)'}")
    return EXIT_OK


def parse_command(options):
    paths = find_paths(os.environ, options.home)
    path = Path(options.file).absolute()
    if not path.exists():
        return fail(f"{path} does not exist.")
    tool = TOOLS.get(options.tool) if options.tool else recognise(path)
    if not tool:
        return fail(f"There is no tool {options.tool}; known are {', '.join(TOOLS)}." if options.tool
                    else f"{path} is not a transcript of a tool that is known here.")
    for source in list(tool.sources(path)) or [Source(str(path), (path,))]:
        for header, lines in drafts_of(tool, source, source.path, paths.home, ask_git):
            stats = empty_stats()
            sys.stdout.buffer.write(hail_line(header))
            for line in lines:
                add_to_stats(stats, json.loads(line))
                sys.stdout.buffer.write(line)
            sys.stdout.buffer.write(hail_line(stats_line(stats)))
    return EXIT_OK


def show_command(options):
    paths = find_paths(os.environ, options.home)
    settings, cache = load_settings(paths, os.environ), open_cache(paths.database)
    row = cache.first("SELECT server_id FROM sessions WHERE id = ?", [options.session])
    server_id = row and row["server_id"] or options.session
    kept = cache.first("SELECT body FROM body_cache WHERE session_id = ?", [server_id])
    if not kept:
        answer = Server(settings).raw(urllib.parse.quote(server_id, safe=""))
        if not answer.ok:
            return fail(f"{server_id}: {answer.problem}")
        # Only what pulling keeps up to date may be kept: own sessions are at hand anyway.
        cache.batch([("INSERT OR REPLACE INTO body_cache SELECT id, ? FROM pulled WHERE id = ?",
                      [gzip.compress(answer.data, 6), server_id])])
    sys.stdout.buffer.write(gzip.decompress(kept["body"]) if kept else answer.data)
    return EXIT_OK


def redact_command(options):
    paths = find_paths(os.environ, options.home)
    privacy = privacy_of(load_settings(paths, os.environ), os.environ, paths.home)
    redact_stream(sys.stdin, sys.stdout, privacy)
    return EXIT_OK


def push_command(options):
    """Put a session into the outbox, whatever was decided about it; a running daemon sends it."""
    paths = find_paths(os.environ, options.home)
    settings = load_settings(paths, os.environ)
    cache = open_cache(paths.database)
    found = cache.execute("SELECT tool, id FROM sessions WHERE ? IN (id, server_id)", [options.session]).fetchall()
    if not found:
        return fail(f"No session {options.session} was collected on this machine.")
    for name in map(tuple, found):
        where = " WHERE tool = ? AND id = ?" + ("" if options.restore else " AND sync_status != 'deleted'")
        cache.batch([(FORGET_ACKNOWLEDGED + where, name),
                     ("INSERT OR REPLACE INTO outbox (tool, id, restore) SELECT tool, id, ? FROM sessions" + where,
                      [options.restore, *name])])
    lock = lock_data(paths.data)
    if not lock:
        print("The running daemon sends it.")
        return EXIT_OK
    with lock:
        return EXIT_OK if Daemon(paths, settings, cache, os.environ).once([]) else EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main())
