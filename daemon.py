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
    ~/.cache/opensession/daemon-….pyc       this program, compiled

XDG_CONFIG_HOME, XDG_DATA_HOME and XDG_CACHE_HOME move these folders, --home moves everything.

To add a tool, write one section like "Claude Code" below:
  1. x_roots(env, home): the folders where it keeps sessions, on every system.
  2. x_sources(root): what in there is read as one, as Source(key, files).
  3. x_recognise(head, path): whether an unknown file is this tool's.
  4. @tool("x", "Title", roots, sources, recognise, where="…", seen="…") above parse_x(source),
     which yields a Session; a table leads from each kind of record to a small function.  It never raises.
  5. A small home folder in tests/fixtures/homes, and a test.
"""

import argparse
import copy
import difflib
import errno
import functools
import gc
import gzip
import io
import itertools
import json
import logging
import math
import os
import pickle
import queue
import re
import secrets
import shlex
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
import unicodedata
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from array import array
from bisect import bisect_left, bisect_right
from collections import Counter, deque
from contextlib import contextmanager, nullcontext, suppress
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from fnmatch import fnmatch
from fnmatch import translate as fnmatch_translate
from functools import lru_cache
from glob import escape as escape_glob
from hashlib import md5, sha256
from importlib.machinery import SourcelessFileLoader
from importlib.util import MAGIC_NUMBER
from operator import itemgetter
from pathlib import Path
from typing import Callable, NamedTuple
from zlib import adler32, crc32


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
        "rules": [],                    # further secrets: { name = "acme", pattern = "acme-[0-9a-f]{32}" }
        "allow": [],                    # texts and globs that are no secrets, whatever a rule says
        "review": False,                # sessions with secrets wait for `daemon.py review accept`
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
    cache: Path

    @property
    def database(self):
        return self.data / "local.db"


def find_paths(env, home=None):
    """Where things lie: XDG variables count, everything else is below the home folder."""
    home = Path(home or env.get("HOME") or env.get("USERPROFILE") or Path.home()).absolute()
    return Paths(home,
                 Path(env.get("XDG_CONFIG_HOME") or home / ".config") / "opensession",
                 Path(env.get("XDG_DATA_HOME") or home / ".local" / "share") / "opensession",
                 Path(env.get("XDG_CACHE_HOME") or home / ".cache") / "opensession")


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


SYNCED_LISTS = ("exclude_patterns", "exclude_tools", "exclude_projects", "rules")


def add_synced(settings, synced):
    """The server may add to the exclude lists and the rules, ask for review and switch watchers off, nothing else."""
    privacy, added = settings["privacy"], synced.get("privacy", {})
    for key in SYNCED_LISTS:
        privacy[key] = privacy[key] + [item for item in added.get(key, []) if item not in privacy[key]]
    privacy["review"] = privacy["review"] or added.get("review", False)
    for key, value in synced.get("watchers", {}).items():
        if value is False:
            settings["watchers"][key] = False


def read_settings(path):
    """The checked content of one settings file, {} where there is none."""
    text, data = read_toml(path)
    warn_if_readable_by_others(path, data)
    return {section: keys for section, keys in checked_sections(path, text, data) if keys}


def read_toml(path):
    """(text, content) of a TOML file; empty where there is none."""
    try:
        text = path.read_text("utf-8-sig")
        return text, tomllib.loads(text)
    except FileNotFoundError:
        return "", {}
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: cannot be read ({error}).") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path}: not valid TOML: {error}.") from None


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
    if (section, key) == ("privacy", "rules"):
        return next(filter(None, map(rule_problem, value)), None)
    if isinstance(value, list) and not all(isinstance(item, str) for item in value):
        return "must be a list of texts"
    if isinstance(value, int) and value < 0:
        return "must not be negative"
    allowed = CHOICES.get((section, key))
    return f"must be one of {', '.join(allowed)}" if allowed and value not in allowed else None


def rule_problem(rule):
    """What is wrong with a rule that somebody wrote, or None."""
    if not isinstance(rule, dict) or not {"name", "pattern"} <= rule.keys() <= {"name", "pattern", "contains"} \
            or not all(isinstance(value, str) and value for value in rule.values()):
        return 'must be a list of { name = "acme", pattern = "acme-[0-9a-f]{32}" }, each with contains = "acme-" if you like'
    name = rule["name"]
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,39}", name):
        return f"has the name {name!r}: take small letters, digits and dashes"
    if len(rule["pattern"]) > LONGEST_PATTERN:
        return f"has a pattern for {name!r} of more than {LONGEST_PATTERN} characters"
    try:
        pattern = re.compile(rule["pattern"], re.ASCII)
    except (re.error, RecursionError, OverflowError) as error:
        return f"has a pattern for {name!r} that is not a regular expression: {error}"
    if pattern.search(""):
        return f"has a pattern for {name!r} that matches nothing at all: every place would be masked"
    return f"has a pattern for {name!r} that is too slow on {slow!r} …: bound its repeats" if (slow := slow_text(pattern)) else None


LONGEST_PATTERN = 1000


def slow_text(pattern, limit=0.1):
    """The beginning of a text on which a pattern takes far too long, or None.

    Texts grow step by step, so that even a pattern without end is found out within a second."""
    letters = sorted(set(re.sub(r"\\.|[^\w -]", "", pattern.pattern)))[:12]
    for seed in dict.fromkeys([*letters, "a", "A", "0", " ", "aA0-", "".join(letters)]):
        for length in (*range(12, 40, 2), 100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600):
            started = time.thread_time()        # not what others of this machine do meanwhile
            pattern.search((seed * length)[:length] + "\0")
            if seed and time.thread_time() - started > limit:
                return seed * 3
    return None


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


def collects(settings, name, named=False):
    """Whether a tool is switched on."""
    return switched_off_by(settings, name, named) is None


def switched_off_by(settings, name, named=False):
    """The setting that switches a tool off, or None.  `named`: somebody named a path of it, which says more
    than a watcher."""
    watcher = name.replace("-", "_")
    if name.lower() in (excluded.lower() for excluded in settings["privacy"]["exclude_tools"]):
        return "privacy.exclude_tools"
    if name in settings["tools"]:
        return None if settings["tools"][name] else f"tools.{name}"
    return None if named or settings["watchers"].get(watcher, True) else f"watchers.{watcher}"


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
# Tools: what a parser is made of
# ---------------------------------------------------------------------------

TOOLS = {}


class Tool(NamedTuple):
    """One AI tool.  `roots` gives the folders to look in, `sources` what lies in one of
    them, `parse` the sessions of one source, `recognise` whether the head of an unknown
    file is this tool's.  For people: `where` its sessions lie, which formats were `seen`.

    `resume(source, state)` is for a tool whose files only grow: it gives the Session that goes
    on from a state that Session.in_parts was given earlier, or None where `parse` must begin anew."""
    name: str
    title: str
    roots: Callable
    sources: Callable
    parse: Callable
    recognise: Callable
    where: str = ""
    seen: str = ""
    resume: Callable = lambda source, state: None


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


def tool(name, title, roots, sources, recognise, where, seen, **resume):
    """Register the function below as the parser of a tool: source -> sessions, one after another.
    A tool that has no `resume` is read whole when it changed."""
    def register(parse):
        if name in TOOLS:
            raise ValueError(f"two parsers for {name}")
        TOOLS[name] = Tool(name, title, roots, sources, parse, recognise, where, seen, **resume)
        return parse
    return register


class State:
    """What is known while a file is read.  Objects of such classes, and plain values in them, can
    be stored between two passes; they hold no open files, generators or results of id() and hash()."""


class Session(State):
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
        self.parts = None           # the same in two, see in_parts
        self.state = None
        self._now = fallback_time   # the time of records that have none: their neighbour's
        self._ids = Ledger()
        self._window = deque()
        self._sizes = deque()       # of the texts of each event in it
        self._held = set()          # id() of events in the window that may still change
        self._bytes = 0

    def in_parts(self, settled, ending, state):
        """Set the events of a file that only grows: those that stay whatever follows, and those
        that are true only if nothing does.  `state` (with .session, .file) is, between the two,
        all that is needed to go on when the file has grown; None where that is not possible."""
        self.parts, self.events, self.state = (settled, ending), itertools.chain(settled, ending), state

    def has_events(self):
        """Whether there is anything to show; the first event stays to be taken."""
        settled, ending = self.parts
        first = next(settled, None)
        if first is None:
            first, settled, self.state = next(ending, None), ending, None
        self.in_parts(itertools.chain([first], settled), ending, self.state)
        return first is not None

    def __getstate__(self):
        held = [place for place, event in enumerate(self._window) if id(event) in self._held]
        return {**self.__dict__, "events": (), "parts": None, "state": None,
                "_window": list(self._window), "_sizes": list(self._sizes), "_held": held}

    def __setstate__(self, fields):
        self.__dict__.update(fields, _window=deque(fields["_window"]), _sizes=deque(fields["_sizes"]))
        self._held = {id(self._window[place]) for place in fields["_held"]}

    def seen_at(self, at):
        """Let a timestamped record count for the session's bounds, whether it is shown or not."""
        if not at or at == self.updated_at:         # as most are: an event has the time of its record
            return
        if not self.created_at:
            self.created_at = self.updated_at = at
        elif at > self.updated_at:
            self.updated_at = at
        elif at < self.created_at:
            self.created_at = at

    def event(self, kind, event_id, /, at=None, blocks=(), *, task=None, duration_ms=None, attributes=None, **data):
        """Add one event and return it.  `at` is UTC as utc() gives it; None inherits the neighbour's."""
        return self.add(kind, event_id, at, list(blocks), data, task, duration_ms, attributes)

    def add(self, kind, event_id, at, blocks, data, task=None, duration_ms=None, attributes=None):
        """What `event` does; parsers that have most to read call it themselves."""
        if at and at != self.updated_at:
            self.seen_at(at)
        self._now = at = at or self._now or EPOCH
        if None in data.values():
            data = {key: value for key, value in data.items() if value is not None}
        event_type = {"type": kind, "data": data} if data or kind in ("TaskStart", "TaskEnd") else {"type": kind}
        event = {"type": "event", "event_id": self._unique(event_id), "timestamp": at, "event_type": event_type}
        if not self.opening:
            self.opening = opening_of(kind, data, blocks)
        if task:
            event["task_id"] = task
        event["content"] = {"blocks": blocks}
        if duration_ms is not None:
            event["duration_ms"] = duration_ms
        if attributes:
            event["attributes"] = attributes
        size = size_of(blocks)
        self._window.append(event)
        self._sizes.append(size)
        self._bytes += size
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
        """The events that nothing later can change: they leave."""
        window, held, leaving = self._window, self._held, []
        while window and (id(window[0]) not in held or len(window) > self.WINDOW or self._bytes > self.WINDOW_BYTES):
            leaving.append(self._leave())
        return leaving

    def rest(self):
        """Yield all that is left, at the end of the source."""
        while self._window:
            yield self._leave()

    def _leave(self):
        event = self._window.popleft()
        self._held.discard(id(event))
        self._bytes -= self._sizes.popleft()
        return event

    def unknown_record(self, kind, event_id, at, record):
        """Keep a record of a kind that we do not know, and count it."""
        kind = str(kind)[:80]
        self.unknown[kind] = self.unknown.get(kind, 0) + 1
        return self.event("Custom", event_id, at, [json_block(record)], kind=kind)

    def _unique(self, event_id):
        """Event ids are unique in a session; tools repeat theirs, so the second gets a ~2."""
        name, count = str(event_id), 1
        while not self._ids.add(name):
            count += 1
            name = f"{event_id}~{count}"
        return name


class Ledger(State):
    """What is remembered of every record of a session, however long: text -> whole numbers.

    What was met in this pass stands as it is.  Stored, only 64 bits of each text are kept, and
    when these are many, all lie sorted in one row of bytes, where they are looked up without
    being unpacked."""

    def __init__(self, width=0):
        self.width = width          # so many numbers, from 0 to 2^64
        self.recent = {}            # text -> numbers
        self.stored = {}            # key -> numbers
        self.packed = b""           # all keys, then all numbers
        self.names = {}             # texts that occur as numbers, see number_of

    def add(self, text):
        """Remember a text; whether it is new."""
        if text in self.recent or (self.stored or self.packed) and self._find(text) is not None:
            return False
        self.recent[text] = ()
        return True

    def __contains__(self, text):
        return self.get(text) is not None

    def get(self, text):
        """The numbers of a text, or None."""
        found = self.recent.get(text)
        return self._find(text) if found is None and (self.stored or self.packed) else found

    def __setitem__(self, text, numbers):
        self.recent[text] = numbers

    def number_of(self, name):
        """The number that stands for one of a few names."""
        return self.names.setdefault(name, len(self.names))

    def name_of(self, number):
        return next(itertools.islice(self.names, number, None))

    def _find(self, text):
        """The numbers of a text that was stored, or None."""
        key = ledger_key(text)
        if key in self.stored or not self.packed:
            return self.stored.get(key)
        words = memoryview(self.packed).cast("Q")
        count = len(words) // (1 + self.width)
        place = bisect_left(words, key, 0, count)
        if place == count or words[place] != key:
            return None
        start = count + place * self.width
        return tuple(words[start:start + self.width])

    def __getstate__(self):
        self.stored.update((ledger_key(text), numbers) for text, numbers in self.recent.items())
        self.recent = {}
        if len(self.stored) > 1000 + len(self.packed) // (40 + 40 * self.width):
            self._pack()
        return self.__dict__

    def _pack(self):
        words = memoryview(self.packed).cast("Q")
        count = len(words) // (1 + self.width)
        numbers = {words[place]: words[count + place * self.width:count + (place + 1) * self.width]
                   for place in range(count)}
        numbers = dict(sorted((numbers | self.stored).items(), key=itemgetter(0)))
        self.packed = array("Q", itertools.chain(numbers, itertools.chain.from_iterable(numbers.values()))).tobytes()
        self.stored = {}


def ledger_key(text):
    """64 bits that stand for a text, the same in every process.  Two simple sums that have nothing
    in common are four times as fast as a cryptographic one."""
    data = text.encode("utf-8", "surrogatepass")
    return crc32(data) << 32 | adler32(data)


EPOCH = "1970-01-01T00:00:00.000Z"


def opening_of(kind, data, blocks):
    """What an event says of its session where nobody asked for anything: the reply, or what was run or touched."""
    if kind == "AgentMessage":
        return next((block["text"] for block in blocks if block["type"] == "Text" and block["text"].strip()), None)
    return data.get("command") or data.get("path") or data.get("query") if kind != "ToolResult" else None


def size_of(blocks):
    """About how much text is in blocks, in characters."""
    texts = [block.get("text") or block.get("code") or block.get("url") for block in blocks]
    return sum([len(text) for text in texts if isinstance(text, str)])


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
    return "\n".join(difflib.unified_diff(old.splitlines(), new.splitlines(), *diff_names(path), lineterm=""))


def diff_of(path, hunks, target=None):
    """A unified diff from hunks that a tool recorded, each a text; "" without hunks."""
    before, after = diff_names(path, target)
    return "\n".join([f"--- {before}", f"+++ {after}", *hunks]) if hunks else ""


def diff_names(path, target=None):
    """The two names in the head of a diff.  A whole path stands as it is: behind a/ no home folder would be recognised."""
    if re.match(r"[/\\~]|[A-Za-z]:", path):
        return path, target or path
    return f"a/{path}", f"b/{target or path}"


def utc(value):
    """A time as tools write it (ISO 8601 with any offset, seconds or milliseconds) -> 2026-02-11T06:00:00.000Z, or None."""
    try:
        if isinstance(value, str) and UTC_TIME.fullmatch(value) and is_day(value[:10]):     # nearly all are: there is nothing to convert
            return value
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


UTC_TIME = re.compile(r"20[0-9]{2}-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]\.[0-9]{3}Z")


@lru_cache(maxsize=64)
def is_day(text):
    """Whether there is such a day, as 2026-02-29 is none."""
    try:
        return bool(datetime.fromisoformat(text))
    except ValueError:
        return False


def as_dict(value):
    return value if isinstance(value, dict) else {}


def as_list(value):
    return value if isinstance(value, list) else []


def as_text(value):
    return value if isinstance(value, str) else ""


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
        text = str(line, "utf-8", "replace").lstrip(JSON_BLANKS)
        value, end = JSON_DECODER.raw_decode(text)
        if text[end:].strip(JSON_BLANKS):
            return None
        return clean_value(value) if is_unsafe(line) else value
    except (ValueError, RecursionError):
        return None


def without_text(line, start):
    """A line of compact JSON without the text that begins at `start`, behind its quote; the line as it is where the
    end of the text is not certain."""
    end = END_OF_TEXT.search(line, start)
    return line[:start] + line[end.start():] if end and line[end.start() - 1] != BACKSLASH else line


# Inside of a text a backslash stands before each quote, so that no two follow with only these between them.
END_OF_TEXT = re.compile(rb'"[]}{[,]+"')
BACKSLASH = ord("\\")


JSON_BLANKS = "\ufeff\0 \t\r\n"


def is_unsafe(data):
    """Whether JSON as bytes may hold what cannot be stored: a NUL, raw or escaped, or half of a surrogate pair."""
    return b"\0" in data or UNSAFE_ESCAPE.search(data) is not None


UNSAFE_ESCAPE = re.compile(rb"\\u(?:0000|[dD])")


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
LINES_BUFFER = 128 << 10        # bytes that are read at once; lines of transcripts are longer than in other files


class GrowingFile(State):
    """A file of lines that only grows, read in several passes: each goes on at `offset`, behind
    the last line that had its end."""

    def __init__(self, path):
        self.path = os.fspath(path)
        self.offset = 0
        self.end = file_size(path)  # nothing behind it is read in this pass
        self.mark = None            # see seal

    def lines(self):
        """Yield (offset, line) of the lines that have their end."""
        with open_regular(self.path, LINES_BUFFER) as file:
            file.seek(self.offset)
            for start, line in lines_of(file, self.end, self.offset):
                end = start + len(line) if line else file.tell()
                if line is None:
                    file.seek(-1, os.SEEK_CUR)
                if not (line or file.read(1)).endswith(b"\n"):
                    return
                self.offset = end
                yield start, line

    def last_line(self):
        """Yield (offset, line) of what stands behind the last line's end."""
        if self.offset >= self.end:
            return
        with open_regular(self.path) as file:
            file.seek(self.offset)
            yield from lines_of(file, self.end, self.offset)

    def added(self):
        """All that is to be read in this pass, as bytes."""
        with open_regular(self.path) as file:
            file.seek(self.offset)
            return file.read(self.end - self.offset)

    def seal(self):
        """Note what the file is like before `offset`, so that has_grown knows it again."""
        self.mark = self._mark()

    def has_grown(self):
        """Whether this is still the sealed file, with or without more lines; then the next pass may begin."""
        self.end = file_size(self.path)
        return self.offset <= self.end and self.mark == self._mark()

    def _mark(self):
        """The first and the last KB tell a file that was written anew from one that grew."""
        with open_regular(self.path) as file:
            first = file.read(min(1024, self.offset))
            file.seek(max(0, self.offset - 1024))
            last = file.read(min(1024, self.offset))
            return os.fstat(file.fileno()).st_ino, self.offset, sha256(first + last).digest()


def file_state(path):
    """(inode, size, mtime_ns) of a file, None where there is none."""
    try:
        info = os.stat(path)
    except OSError:
        return None
    return info.st_ino, info.st_size, info.st_mtime_ns


def read_lines(path, limit=None):
    """Yield (offset, line) of a growing file, as far as it reached when opened.

    A last line without its end is given only if it is a complete record; one that is
    longer than MAX_LINE comes as None."""
    with open_regular(path, LINES_BUFFER) as file:
        yield from lines_of(file, os.fstat(file.fileno()).st_size if limit is None else limit)


def lines_of(file, end=sys.maxsize, offset=0):
    """Yield (offset, line) of an open binary file, which stands at `offset`, up to `end`, as read_lines does."""
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


def records_of(lines, session, skip=None, cut=None):
    """Yield (offset, record) of (offset, line) pairs, as read_records does; `cut(line)` may leave out what nobody reads."""
    for offset, line in lines:
        if line is None:
            session.bad_lines += 1
            continue
        if skip and skip(line) or not line.lstrip(b"\0 \t\r\n"):
            continue
        record = cut and load_json(cut(line)) or load_json(line)
        if isinstance(record, dict):
            yield offset, record
        elif record is None and line.endswith(b"\n"):
            session.bad_lines += 1


def open_regular(path, buffering=-1):
    """Open a regular file for reading; a FIFO, a device or a folder of that name is an OSError, not a wait."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    handle = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(f"not a regular file: {path}")
    return os.fdopen(handle, "rb", buffering)


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

class ClaudeRun(State):
    """What the files of one session share: whose call started which sub-agent, and which
    responses of the model have been counted."""

    def __init__(self, session, path):
        self.session = session
        self.folder = os.path.splitext(path)[0]     # where sub-agents and saved outputs lie
        self.responses = {}                         # message id -> ClaudeResponse that is not complete
        self.counted = Ledger(8)                    # message id -> the others, see claude_pack
        self.files = {}                             # sub-agents' files -> their file_state
        self.linked = set()                         # agents whose call is known for good
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


class ClaudeFile(State):
    """Where the reading of one transcript stands."""

    def __init__(self, run, session, path, agent=None):
        self.run = run
        self.session = session
        self.path = path
        self.file = GrowingFile(path)
        self.opened = None              # of the main file, its ClaudeOpening
        self.origin = {}                # path -> file_state of what this is a copy of
        self.agent = agent              # of a nested sub-agent, its id
        self.prefix = f"{agent}:" if agent else ""
        self.task = agent               # the task that events belong to just now
        self.tasks = {}                 # task id -> ClaudeTask
        self.side = Ledger(1)           # uuid of a sidechain record -> its task
        self.at = None                  # time and name of the record at hand
        self.base = None
        self.names = Ledger(1)          # call id -> name of the tool
        self.open = {}                  # call id -> (event, input) without a result yet
        self.response = None            # the response that the last assistant record belongs to
        self.reply = None               # the last reply, for the duration of its turn
        self.shell = None               # the last command that the person ran with "!"
        self.chained = False            # whether a record with a uuid has been met
        self.copied = None              # uuids that another file had first
        self.uuids = Ledger()           # uuids met
        self.summaries = {}             # leafUuid -> summary that waits for its leaf
        self.titles = {}                # "custom", "ai", "summary" -> title; "prompt", "command" -> text
        self.branches = Ledger(1)       # parentUuid of a prompt -> how many prompts there were before
        self.prompts = self.probes = 0
        self.cwds = []
        self.said = None                # what the record before said about folder, branch and so on
        self.skipped = []               # the first and the last progress line, unparsed


class ClaudeTask(State):
    """A sub-agent that is being shown."""

    def __init__(self, start, call=None):
        self.start = start              # its TaskStart event
        self.call = call
        self.events = 0
        self.model = None
        self.last = start["timestamp"]


class ClaudeResponse(State):
    """One answer of the API, which is written as several records with the same message id.
    Usage is (input, cache writes, cache reads, output, reasoning)."""

    def __init__(self, name, owner):
        self.name = name
        self.owner = owner              # the sub-agent (None: the session itself) that had it first
        self.best = None                # the highest that its records said; None: they had no usage
        self.counted = None             # how much of that stands on events
        self.anchor = None              # the event that is held to carry it
        self.grown = {}                 # block type -> the last such event, whose text may still grow
        self.model = None


class ClaudeOpening(State):
    """What the head of a transcript tells of the session."""

    def __init__(self, path, head):
        self.session_id = claude_session_id(path, head)
        self.parent_id = claude_parent_id(path, head)
        self.at = utc(claude_first(head, b"timestamp"))     # the first time in it
        self.is_export = claude_is_export(head)

    def __eq__(self, other):
        return isinstance(other, ClaudeOpening) and vars(self) == vars(other)


def resume_claude(source, file):
    """Go on where the transcript ended before, or None where something else than that may have changed."""
    path = os.fspath(source.path)
    if (path != file.path or not file.file.has_grown() or claude_open(path) != file.opened
            or any(file_state(name) != state for name, state in file.origin.items())
            or not claude_agents_fit(file, [os.fspath(name) for name in source.files[1:]])):
        return None
    claude_start(file)
    return file.session


@tool("claude-code", "Claude Code", roots=claude_roots, sources=claude_sources, recognise=claude_recognise,
      where="~/.claude/projects, ~/.config/claude/projects, or CLAUDE_CONFIG_DIR", seen="1.0 to 2.1", resume=resume_claude)
def parse_claude(source):
    """One transcript with its sub-agents is one session; a file that is not Claude's or shows nothing is none."""
    path = os.fspath(source.path)
    opened = claude_open(path)
    if not opened:
        return
    session = Session("claude-code", "anthropic", opened.session_id, opened.at or utc(os.stat(path).st_mtime))
    run = ClaudeRun(session, path)
    claude_find_agents(run, path, [os.fspath(name) for name in source.files[1:]])
    file = ClaudeFile(run, session, path)
    file.opened = opened
    claude_mark_orphan(session, path, opened.parent_id)
    claude_start(file)
    if session.has_events():
        yield session


def claude_open(path):
    """The ClaudeOpening of a transcript, or None of a file that is none."""
    with open_regular(path) as file:
        head = file.read(CLAUDE_HEAD)
    return ClaudeOpening(path, head) if claude_recognise(head, path) else None


def claude_start(file):
    """Let the events of the main file flow from where it stands."""
    export = file.opened.is_export
    settled = claude_exported(file.path) if export else claude_records(file, file.file.lines())
    last = () if export else claude_records(file, file.file.last_line())
    # Without any time in its head, the session takes that of its file, which changes.
    file.session.in_parts(claude_events(file, settled), itertools.chain(claude_events(file, last), claude_ending(file)),
                          file if file.opened.at and not export else None)



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


def claude_mark_orphan(session, path, parent):
    """A sub-agent that stands alone still says whose it was."""
    if os.path.basename(path).startswith("agent-"):
        session.attributes["session_role"] = "auxiliary"
        if parent and parent != session.session_id:
            session.attributes["parent_session_id"] = parent


def claude_exported(path):
    """Yield (place, record) of a transcript that the web version exported."""
    with open_regular(path) as export:
        lines = as_list(as_dict(load_json(export.read(MAX_LINE))).get("loglines"))
    yield from ((place, record) for place, record in enumerate(lines) if isinstance(record, dict))


def claude_records(file, lines):
    """Yield (place, record) of a transcript's lines; a file that goes away while it is read just ends."""
    try:
        yield from records_of(lines, file.session, lambda line: claude_skips(file, line), lambda line: claude_cut(file, line))
    except OSError:
        file.session.bad_lines += 1
        file.session.state = None


def claude_skips(file, line):
    """Whether a raw line is one of the many that show nothing.  The first "type" in it decides:
    inside of strings quotes are escaped, and no other record starts with an object."""
    place = line.find(b'"type":"', 0, 600) + 8
    if place < 8 or not line.startswith((b'progress"', b'file-history-snapshot"'), place):
        return False
    if line.startswith(b"progress", place):
        file.skipped = [*file.skipped[:1], line]        # their times count for the session's bounds
    return True


# What Claude Code keeps beside a result for itself: of an edit the file as it was before, of a command the output once more.
CLAUDE_KEPT = {b'"filePath":': b'"originalFile":"', b'"stdout":"': b'"stdout":"'}
CLAUDE_DETAIL = re.compile(rb'"toolUseResult":\{("filePath":|"stdout":"|"type":"text","file":\{"filePath":"[^"]{1,4096}","content":"[^"])')
CLAUDE_ANSWER = re.compile(rb'"tool_use_id":"([^"\\]{1,200})","type":"tool_result","content":"')


def claude_cut(file, line):
    """A raw user line without the longest text in it that nobody reads: to decode these is half of the work."""
    place = line.find(b'"toolUseResult":{') if len(line) > 2048 else -1
    detail = CLAUDE_DETAIL.match(line, place) if place >= 0 else None
    if not detail or not line.startswith(b'user"', line.find(b'"type":"', 0, 600) + 8):
        return line
    if detail[1] not in CLAUDE_KEPT:
        return claude_cut_read(file, line, place)
    kept = line.find(CLAUDE_KEPT[detail[1]], place)
    return without_text(line, kept + len(CLAUDE_KEPT[detail[1]])) if kept >= 0 else line


def claude_cut_read(file, line, place):
    """The line of a file that was read, which stands in the answer with numbers, and without them beside it."""
    answer = CLAUDE_ANSWER.search(line, 0, place)
    if not answer or claude_tool_name(file, answer[1].decode("utf-8", "replace")) != "Read":
        return line
    cut = without_text(line, answer.end())
    others = cut[:answer.start()] + cut[answer.end():place + len(cut) - len(line)]
    return line if b'"is_error":true' in others or b'"tool_use_id"' in others else cut


def claude_tool_name(file, call_id):
    """The name of the tool that a call was for, None where it is not known."""
    named = file.names.get(call_id)
    return file.names.name_of(*named) if named else None


def claude_events(file, records):
    """The events of one transcript, with those of its sub-agents behind the calls that started them."""
    for place, record in records:
        claude_record(file, place, record)
        if events := file.session.settled():
            yield from claude_flow(file, events)


def claude_ending(file):
    """The events that were still held at the end of a transcript, and what nothing was held for."""
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
    if not run.loose and not run.calls:         # as in most sessions: no sub-agent is to be shown
        yield from events
        return
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
    if file.copied and isinstance(uuid, str) and uuid in file.copied:
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
    task = file.tasks.get(file.task) if file.tasks else None
    if task and kind not in ("TaskStart", "TaskEnd"):
        task.events += 1
        task.last = file.at or task.last
    return file.session.add(kind, file.prefix + event_id, file.at, list(blocks), data, file.task, duration_ms, attributes)


# Facts of the whole session -------------------------------------------------

def claude_facts(file, record):
    """Take what any record may say about the session: folder, branch, version, whose copy it is."""
    uuid = record.get("uuid")
    if isinstance(uuid, str):
        file.uuids.add(uuid)
        if not file.chained:
            file.chained = True
            claude_lineage(file, record)
        if file.summaries and uuid in file.summaries:
            file.titles["summary"] = file.summaries[uuid]
    said = record.get("cwd"), record.get("gitBranch"), record.get("entrypoint"), record.get("version")
    if said != file.said:               # record after record says the same
        file.said = said
        claude_facts_said(file, *map(as_text, said))


def claude_facts_said(file, cwd, branch, entrypoint, version):
    attributes = file.session.attributes
    add_new(file.cwds, cwd)
    if branch not in ("", "HEAD"):
        attributes.setdefault("git_branch", branch)
    if entrypoint:
        attributes.setdefault("entrypoint", entrypoint)
    file.session.tool_version = version or file.session.tool_version


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
        file.origin = {os.path.dirname(file.path): file_state(os.path.dirname(file.path))}
        named = origin and os.path.splitext(os.path.basename(origin))[0]
    if origin:
        file.session.attributes.update(forked_from=named, parent_session_id=named)
        file.session.related.append(named)
        file.origin = {origin: file_state(origin)}
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
    """A Ledger of all record uuids in a transcript."""
    found = Ledger()
    try:
        for _, line in read_lines(path):
            for uuid in re.findall(rb'"uuid":\s*"([^"]{1,80})"', line or b""):
                found.add(uuid.decode("utf-8", "replace"))
    except OSError:
        pass
    return found


def claude_replayed(file, record):
    """A record that the origin of this copy has: its usage is not ours, its prompt may still be the title."""
    message = as_dict(record.get("message"))
    if record.get("type") == "assistant" and claude_text(message, "id"):
        if not claude_known_response(file.run, message["id"]):
            file.run.counted[message["id"]] = claude_pack(file.run, ClaudeResponse(message["id"], "origin"))
        claude_replay_usage(file.run, message)
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
        session.seen_at(utc(as_dict(load_json(line)).get("timestamp")))
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
    elif not hidden and len(results) < len(blocks):
        by_program = (record.get("promptSource") == "system"
                      or as_dict(record.get("origin")).get("kind") == "task-notification")
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
            before, = file.branches.get(parent) or (file.prompts,)
            file.branches[parent] = (before,)
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
    attachment = as_dict(record.get("attachment"))
    if attachment.get("type") == "queued_command" and attachment.get("isMeta") is not True:
        notice = attachment.get("commandMode") == "task-notification"
        claude_say(file, claude_blocks({"content": attachment.get("prompt")}), None, "notification" if notice else None)


# What the model said --------------------------------------------------------

def claude_assistant(file, record):
    """An assistant record: usually one block of a response."""
    message = as_dict(record.get("message"))
    if record.get("isApiErrorMessage") is True or message.get("model") == "<synthetic>":
        claude_synthetic(file, record, message)
        return
    name = claude_text(message, "id") or file.base
    response = claude_known_response(file.run, name) or ClaudeResponse(name, file.agent)
    if response.owner != file.agent:        # a sub-agent's copy of what its parent heard
        claude_replay_usage(file.run, message)
        return
    file.run.responses[name] = response
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
        claude_count_raw(file.run.tally, usage)
        file.run.tally["duplicates_removed" if response.best else "responses"] += 1
        response.best = tuple(map(max, usage, response.best)) if response.best else usage


def claude_count_raw(tally, usage):
    """Count what a record says, whether it is true or not."""
    new, written, read, output, _ = usage
    tally["raw_input"] += new + written + read
    tally["raw_output"] += output


def claude_usage(message):
    """(input, cache writes, cache reads, output, reasoning) of a message, or None where it says nothing."""
    usage = message.get("usage")
    if not isinstance(usage, dict):
        return None
    details = usage.get("output_tokens_details")
    thinking = details.get("thinking_tokens") if isinstance(details, dict) else 0
    return (whole(usage.get("input_tokens")), whole(usage.get("cache_creation_input_tokens")),
            whole(usage.get("cache_read_input_tokens")), whole(usage.get("output_tokens")), whole(thinking))


def claude_close(file):
    """Another response begins: put what this one used, and is not counted yet, on its first event."""
    response, file.response = file.response, None
    if response is None:
        return
    if response.best and response.best != response.counted:
        event = response.anchor or claude_add(file, "Custom", f"{file.base}-usage", kind="usage")
        more = [best - counted for best, counted in zip(response.best, response.counted)] if response.counted else response.best
        claude_charge(file.run, event, more, response.model, file.task)
        response.counted = response.best
    file.run.counted[response.name] = claude_pack(file.run, response)       # objects would keep every event in memory
    del file.run.responses[response.name]
    if response.anchor:
        claude_release(file, response.anchor)


def claude_known_response(run, name):
    """The response of this message id, or None.  One that was complete may go on once more."""
    if name in run.responses:
        return run.responses[name]
    packed = run.counted.get(name)
    if packed is None:
        return None
    owner, model, had_usage, *usage = packed
    response = ClaudeResponse(name, run.counted.name_of(owner))
    response.model = run.counted.name_of(model)
    response.best = response.counted = tuple(usage) if had_usage else None
    return response


def claude_pack(run, response):
    """A complete response as numbers: owner, model, whether there was usage, and which."""
    return (run.counted.number_of(response.owner), run.counted.number_of(response.model),
            int(response.best is not None), *(response.best or (0,) * 5))


CLAUDE_COUNTS = [(name, f"{name}_tokens") for name in ("input", "output", "cache_read", "cache_write", "reasoning")]


def claude_charge(run, event, usage, model=None, task=None):
    """Put usage on an event and into the session's account."""
    new, written, read, output, reasoning = usage
    attributes, whole_input = event.setdefault("attributes", {}), new + written + read
    for (name, key), value in zip(CLAUDE_COUNTS, (whole_input, output, read, written, reasoning)):
        if value or name in ("input", "output"):
            attributes[key] = attributes.get(key, 0) + value
            run.tally[name] += value
    if model:
        attributes["model"] = model
    if task:
        run.subagents["input"] += whole_input
        run.subagents["output"] += output


def claude_replay_usage(run, message):
    """A copy of a response that another file had first: only say how much was not counted."""
    usage = claude_usage(message)
    if usage:
        claude_count_raw(run.tally, usage)
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
    file.names[call_id] = (file.names.number_of(tool_name),)
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
    name = call_id and claude_tool_name(file, call_id) or "unknown"
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
    detail = as_dict(detail)
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
    anchor = file.response and file.response.anchor
    if event is not anchor and not any([event is call for call, _ in file.open.values()]):
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
    for hunk in as_list(detail.get("structuredPatch")):
        lines = [line for line in as_list(as_dict(hunk).get("lines")) if isinstance(line, str)]
        if lines:
            old, count, new, now = (whole(hunk.get(key)) for key in ("oldStart", "oldLines", "newStart", "newLines"))
            hunks.append("\n".join([f"@@ -{old},{count} +{new},{now} @@", *lines]))
    return diff_of(path, hunks)


def claude_wanted_diff(given, path):
    """The diff that an edit asked for; the lines' numbers are not known."""
    edits = as_list(as_dict(given).get("edits")) or [given]
    pairs = [(claude_text(edit, "old_string"), claude_text(edit, "new_string") or claude_text(edit, "new_source"))
             for edit in edits]
    return "\n".join(filter(None, (unified_diff(old, new, path) for old, new in pairs)))


def claude_duration(file, call, detail):
    """Milliseconds that a call took: as the tool says, else from call to result; None where unknown."""
    detail = as_dict(detail)
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
    read = as_dict(as_dict(detail).get("file"))
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
    kind, source = block.get("type"), as_dict(block.get("source"))
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
    run.files = {name: file_state(name) for name in files}
    paths = {claude_agent_id(name): name for name in files if name.endswith(".jsonl")}
    starts = {agent: utc(claude_first(claude_head(name), b"timestamp")) or EPOCH for agent, name in paths.items()}
    for agent, name in sorted(paths.items()):
        if agent.startswith("acompact"):
            run.compactions.append((starts[agent], name))
        else:
            run.agents[agent] = name
            run.metas[agent] = as_dict(load_json(claude_head(name[:-len(".jsonl")] + ".meta.json")))
    links = {agent: meta["toolUseId"] for agent, meta in run.metas.items() if claude_text(meta, "toolUseId")}
    for name in (path, *run.agents.values()):
        if len(links) < len(run.agents):
            claude_search_links(read_lines(name), run.agents, links, name)
        if name == path:
            run.linked = set(links)
    for agent, call_id in links.items():
        run.calls.setdefault(call_id, []).append(agent)
    run.loose = sorted(((starts[agent], agent) for agent in run.agents if agent not in links), reverse=True)
    run.compactions.sort(reverse=True)


def claude_agent_id(path):
    return os.path.basename(path).removeprefix("agent-").removesuffix(".jsonl") or "agent"


def claude_search_links(lines, agents, links, path):
    """Look in a transcript for records that tie an agent to a call; only lines that name an agent are parsed."""
    wanted = {agent: agent.encode("utf-8", "replace") for agent in agents
              if agent not in links and agents[agent] != path}
    try:
        for _, line in lines:
            if not line or not any(mark in line for mark in (b'"agentId"', b"task-id>", b"task_id")):
                continue
            for agent in [agent for agent, name in wanted.items() if name in line]:
                call_id = claude_link(as_dict(load_json(line)), agent)
                if call_id:
                    links[agent] = call_id
                    del wanted[agent]
            if not wanted:
                return
    except OSError:
        return


def claude_agents_fit(file, files):
    """Whether reading can go on although there may be new sub-agents, or longer ones.

    One may change as long as it has not been shown.  A new one must belong to a call that
    has not been shown either; then it is taken up."""
    run, known = file.run, {name: file_state(name) for name in files}
    if any(name not in known or known[name] != state and not claude_may_grow(run, name)
           for name, state in run.files.items()):
        return False
    new = [name for name in files if name not in run.files]
    unlinked = {agent: "" for agent in run.metas.keys() - run.linked}
    if not new and not unlinked:
        run.files = known
        return True
    added, links = file.file.added(), {}
    claude_search_links(((0, line) for line in added.splitlines(True)), unlinked, links, path=None)
    if links or not all(claude_takes_up(file, name, new, added) for name in sorted(new)):
        return False
    run.files = known
    return True


def claude_may_grow(run, name):
    """Whether a file is the transcript of a sub-agent that comes later, behind a call that is known."""
    agent = claude_agent_id(name)
    return run.agents.get(agent) == name and agent in run.linked


def claude_takes_up(file, name, new, added):
    """Take up a new sub-agent that says which call started it; whether that was possible."""
    run, agent = file.run, claude_agent_id(name)
    if name.endswith(".meta.json"):
        return name[:-len(".meta.json")] + ".jsonl" in new
    meta = as_dict(load_json(claude_head(name[:-len(".jsonl")] + ".meta.json")))
    call_id = claude_text(meta, "toolUseId")
    call, _ = file.open.get(call_id, (None, None))
    to_come = file.session.waiting(call) if call else call_id not in file.names and call_id.encode() in added
    if not call_id or not to_come or agent.startswith("acompact") or agent in run.metas or call_id in run.calls:
        return False
    run.agents[agent], run.metas[agent], run.calls[call_id] = name, meta, [agent]
    run.linked.add(agent)
    return True


def claude_link(record, agent):
    """The id of the call that started an agent, if this record tells."""
    data, detail = as_dict(record.get("data")), as_dict(record.get("toolUseResult"))
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
        notice = as_dict(load_json(text.encode())) if text.startswith("{") else {}
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
    yield from claude_events(file, claude_records(file, read_lines(path)))
    yield from claude_ending(file)


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
    known = file.side.get(parent) if isinstance(parent, str) else None
    task_id = file.side.name_of(*known) if known else None
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
        file.side[record["uuid"]] = (file.side.number_of(task_id),)
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
    for place, record in claude_records(hidden, read_lines(path)):
        message = as_dict(record.get("message"))
        usage = claude_usage(message) if record.get("type") == "assistant" else None
        name = claude_text(message, "id") or f"{path}@{place}"
        if usage and not claude_known_response(run, name):
            best[name] = tuple(map(max, usage, best.get(name, usage)))
    for name in best:
        run.counted[name] = claude_pack(run, ClaudeResponse(name, "compaction"))
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
    facts = as_dict(record.get("compactMetadata"))
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
    inner = as_dict(as_dict(as_dict(error).get("error")).get("error"))
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
    if leaf and leaf in file.uuids:
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
            for block in as_list(content) if isinstance(block, (str, dict))]


def claude_text(record, key):
    """The text under a key, or ""."""
    value = record.get(key) if isinstance(record, dict) else None
    return value if isinstance(value, str) else ""


# ---------------------------------------------------------------------------
# Codex: CLI, desktop app and IDE extension
#
# Seen: the flat files of 2025, {"timestamp", "type", "payload"} lines of 0.5 to
# 0.169, and the item_completed lines that "paginated" threads have had since
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
    above = path.parts[:-1]
    place = max((place for place, name in enumerate(above) if name in (CODEX_LIVE, CODEX_ARCHIVE)), default=None)
    return place and Path(*above[:place])


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


def codex_lines(path, lines=None):
    """(offset, line) of a rollout, compressed or not; `lines` may give only some of them."""
    return zstd_lines(path) if path.suffix == ".zst" else lines or read_lines(path)


def codex_cut(line):
    """A line without the history that compaction replaced."""
    cut = line.find(b'"replacement_history"') if b'"compacted"' in line else -1
    return line[:cut].rstrip(b", ") + b'},"type":"compacted"}\n' if cut > 0 else line


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


def codex_records(path, session, lines):
    """Yield (offset, record) of a rollout in any generation."""
    if path.suffix == ".json":
        yield from codex_object(path)
    else:
        yield from records_of(codex_lines(path, lines), session, codex_bulky, codex_cut)


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


class CodexLook(State):
    """What a first pass over the bytes of a rollout tells."""

    def __init__(self, path):
        self.file = GrowingFile(path)
        self.waiting = dict(CODEX_WAITING)
        self.meta = None            # payload of the first session_meta
        self.copied_meta = None     # of a later one that is another thread's
        self.records = 0            # how many records decided something
        self.turn = 0               # offset of the latest turn's start
        self.has_turn_ids = False
        self.begins = {}            # stream -> offset where it begins
        self.ends = {}              # stream -> offset where a better one takes over

    def copied(self):
        """A look that goes on from here and leaves this one as it is."""
        other = copy.copy(self)
        other.waiting, other.begins, other.ends = dict(self.waiting), dict(self.begins), dict(self.ends)
        return other


def codex_look(path, look):
    """Read a rollout's bytes from where `look` stands; (look at the whole lines, look at all).

    Only the lines that decide something are decoded."""
    lines = look.file.lines() if codex_grows(path) else None
    codex_look_at(look, codex_deciding(path, look, lines))
    complete = look.copied()
    if codex_grows(path):
        codex_look_at(complete, codex_deciding(path, complete, look.file.last_line()))
    for keys in CODEX_STREAMS:
        for place, key in enumerate(keys):
            complete.ends[key] = min((complete.begins[better] for better in keys[:place] if better in complete.begins),
                                     default=sys.maxsize)
    return look, complete


def codex_grows(path):
    return path.suffix not in (".zst", ".json")


def codex_look_at(look, records):
    """Let a look learn from the records that decide something."""
    for offset, record in records:
        key, _, payload = codex_parts(record)
        look.records += 1
        if key == "session_meta":
            codex_look_at_meta(look, payload)
        elif key in CODEX_TURN_STARTS:
            look.turn = offset
        look.has_turn_ids = look.has_turn_ids or bool(codex_turn_id(key, payload))
        if look.waiting.get(codex_mark(key)) == key:
            del look.waiting[codex_mark(key)]
            # A thread may go on in a newer version: what items replace ends with the turn before.
            look.begins[key] = look.turn if key.startswith(("item/", "token_usage")) else 0


def codex_mark(key):
    """The bytes that are in every line of a stream."""
    return f'"{key.rpartition("/")[2]}"'.encode()


CODEX_WAITING = {codex_mark(key): key for keys in CODEX_STREAMS for key in keys[:-1]}


def codex_deciding(path, look, lines):
    """Yield (offset, record) of the lines that may hold a header, a turn's start or a stream still waited for."""
    if path.suffix == ".json":
        yield from codex_object(path)
        return
    known = marks = None
    for offset, line in codex_lines(path, lines):
        if known != (len(look.waiting), look.has_turn_ids):         # what is waited for only becomes less
            known, marks = (len(look.waiting), look.has_turn_ids), codex_marks(tuple(look.waiting), look.has_turn_ids)
        if line and (marks.search(line) or not look.records):
            record = load_json(codex_cut(line))
            if isinstance(record, dict):
                yield offset, record


@lru_cache(maxsize=64)
def codex_marks(waiting, has_turn_ids):
    """One pattern for all that may decide something: that is five times as fast as to look for one after the other."""
    marks = (b'"session_meta"', b'"task_started"', b'"turn_started"', *waiting, *(() if has_turn_ids else (b'"turn_context"',)))
    return re.compile(rb'"type"\s*:\s*(?:' + b"|".join(map(re.escape, marks)) + b")")


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

class CodexThread(State):
    """A rollout while it is being read: what later records need to know of earlier ones."""

    def __init__(self, session, path, looks):
        self.session = session
        self.path = os.fspath(path)
        self.file = GrowingFile(path)
        self.settled_look, self.look = looks
        self.file.end = self.look.file.end
        self.parent = None          # (path, file_state) of the thread that it was copied from, None where not found
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
        self.names = Ledger(1)      # call id -> tool name, of every call
        self.open = set()           # id() of the events of waiting calls
        self.anchor = None          # the latest event of the model's, where usage goes
        self.parent_turns = None    # turn ids of the parent, while its copied history passes
        self.totals = dict.fromkeys(CODEX_TOKENS, 0)
        self.latest = None          # latest usage of a file that gives no totals
        self.responses = Ledger()
        self.usage = dict.fromkeys(("raw_input", "raw_output", *CODEX_TOKENS, "responses",
                                    "duplicates_removed", "replayed"), 0)


    def __getstate__(self):
        return {**self.__dict__, "open": None}

    def __setstate__(self, fields):
        self.__dict__.update(fields)
        self.open = {id(event) for call in self.calls.values() for event in call.events}


def codex_start(path, thread):
    """Let the events of a rollout flow from where it stands."""
    if codex_grows(path):
        settled, last = thread.file.lines(), thread.file.last_line()
        ending = itertools.chain(codex_events(path, thread, last), codex_ending(path, thread))
        # Without any time of its own, the session takes that of its file, which changes.
        state = thread if codex_time(path, thread.look) else None
    else:
        settled, ending, state = None, codex_ending(path, thread), None
    thread.session.in_parts(codex_events(path, thread, settled), ending, state)


def codex_events(path, thread, lines):
    """Yield the events of a rollout's lines."""
    session = thread.session
    for thread.offset, record in codex_records(path, session, lines):
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


def codex_ending(path, thread):
    """The events that were still held at the end of a rollout."""
    codex_finish(path, thread)
    yield from thread.session.rest()


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
    database = codex_database(os.fspath(home))
    return database and codex_database_name(database, thread_id) or codex_index_name(home / "session_index.jsonl", thread_id)


def codex_database(home):
    """The path of the newest state_N.sqlite of a Codex home, or None."""
    found = []
    for folder in (home, os.path.join(home, "sqlite")):
        with suppress(OSError):
            found += [(int(match[1]), os.path.join(folder, match[0]))
                      for match in map(CODEX_DATABASE.fullmatch, os.listdir(folder)) if match]
    return max(found, default=(0, None))[1]


CODEX_DATABASE = re.compile(r"state_(\d{1,9})\.sqlite")


def codex_database_name(database, thread_id):
    """The name that a person gave a thread, from state_N.sqlite, or None."""
    try:
        connection = sqlite3.connect(Path(database).resolve().as_uri() + "?mode=ro", uri=True, timeout=0.2)
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

def codex_parent(path, look):
    """Of a thread that was copied from another: (id, path or None, file_state); None of others."""
    parent = as_text((look.meta or {}).get("forked_from_id")) or as_text(look.copied_meta and look.copied_meta["id"])
    if not parent:
        return None
    found = codex_find(path, parent) if look.has_turn_ids else None
    return parent, found and os.fspath(found), found and file_state(found)


def codex_gate(path, thread):
    """The turn ids of the thread that this one was copied from, or None where nothing is to be left out.

    Copied lines get new times, so only turn ids tell them from the thread's own."""
    if not thread.parent:
        return None
    found = thread.parent[1]
    try:
        if found and found != os.fspath(path):
            return codex_turns_of(Path(found))
    except OSError:
        pass
    thread.session.attributes["replay_unverified"] = True
    return None


def codex_turns_of(path):
    """A Ledger of the ids of all turns in a rollout, from its lines that start one."""
    turns = Ledger()
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


def codex_add(thread, kind, at, item_id, blocks=(), attributes=None, /, duration_ms=None, **data):
    """Add an event; records without an id are named by their number in the file."""
    thread.compacting = False
    event_id = as_text(item_id) or f"codex-{thread.number}"
    return thread.session.add(kind, event_id, at, list(blocks), data, None, duration_ms, attributes)


def codex_superseded(thread, key):
    """Whether a better stream says what this record says."""
    return thread.offset >= thread.look.ends[key]


def codex_content(content):
    """(text, other blocks) of a message's content: a string, or a list of text and image items."""
    if isinstance(content, str):
        return content, []
    if not content:
        return "", []
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

class CodexCall(State):
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
        return next(filter(None, [as_text(self.arguments.get(name)) for name in names]), "")


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
    thread.names[call.id] = (thread.names.number_of(call.name),)
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
    patch = "apply_patch" in command and "*** Begin Patch" in command
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
    if not isinstance(command, list):
        return ""
    words = [word for word in command if isinstance(word, str)]
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
    return diff_of(path, [text], target)


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
    call = thread.calls.get(call_id) or CodexCall(call_id, codex_call_name(thread, call_id), {})
    call.exit_code = output.exit_code if output.exit_code is not None else call.exit_code
    call.duration_ms = output.duration_ms if call.duration_ms is None else call.duration_ms
    call.failed = call.failed or output.failed or (
        call.name == "apply_patch" and output.text.startswith(CODEX_PATCH_ERRORS))
    codex_link_child(thread, call_id, codex_agent_id(output.text) if call.name.endswith("spawn_agent") else "")
    text = output.text or ("" if output.blocks else call.output)
    codex_result(thread, at, call, [text_block(text)] * bool(text) + output.blocks)


def codex_call_name(thread, call_id):
    """The name of a call that does not wait any more."""
    known = thread.names.get(call_id)
    return thread.names.name_of(*known) if known else "unknown"


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
    running = "".join(line for line in head.splitlines(True) if line.startswith("Process running")) if "Process running" in head else ""
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


def resume_codex(source, thread):
    """Go on where the rollout ended before, or None where what was shown might now be shown otherwise."""
    path, before = Path(source.path), thread.look
    if os.fspath(path) != thread.path or not thread.file.has_grown():
        return None
    thread.settled_look.file.end = thread.file.end
    thread.settled_look, thread.look = codex_look(path, thread.settled_look)
    same_head = all(getattr(before, name) == getattr(thread.look, name) for name in ("meta", "copied_meta", "has_turn_ids"))
    same_ends = all(before.ends[key] == end or min(before.ends[key], end) >= thread.file.offset
                    for key, end in thread.look.ends.items())
    if not same_head or not same_ends or thread.parent != codex_parent(path, thread.look):
        return None
    codex_start(path, thread)
    return thread.session


@tool("codex", "Codex", roots=codex_roots, sources=codex_sources, recognise=codex_recognise,
      where="~/.codex/sessions, ~/.codex/archived_sessions, or CODEX_HOME", seen="0.5 to 0.169, flat files of 2025",
      resume=resume_codex)
def parse_codex(source):
    """Codex: one rollout file is one session.  Raises OSError or Unreadable where it cannot be opened."""
    path = Path(source.path)
    if not codex_recognise(codex_head(path), str(path).removesuffix(".zst")):
        return
    looks = codex_look(path, CodexLook(path))
    look = looks[1]
    if not look.records:
        return
    meta = look.meta or {}
    session = Session("codex", "openai", as_text(meta.get("id")) or codex_id(path),
                      codex_time(path, look) or utc(path.stat().st_mtime))
    thread = CodexThread(session, path, looks)
    thread.parent = codex_parent(path, look)
    thread.parent_turns = codex_gate(path, thread)
    codex_start(path, thread)
    yield session


def codex_time(path, look):
    """When a thread began, as its header or its file's name says."""
    name = CODEX_FILE.match(path.name)
    return utc((look.meta or {}).get("timestamp")) or name and name[1] and utc(f"{name[1]}:{name[2]}:{name[3]}")
# ---------------------------------------------------------------------------
# For the sections below: a transcript of calls and results, and databases
# ---------------------------------------------------------------------------


class Transcript:
    """A session while it is read: calls that wait for their results, and the account of usage.

    `tools` is {tool name: (event kind, its field, keys of the input that fill it)}."""

    OPEN_CALLS = 200            # how many calls may wait for their results

    def __init__(self, session, tools=None):
        self.session = session
        self.tools = tools or {}
        self.calls = {}         # call id -> (its events, input), of calls without a result
        self.names = {}         # call id -> tool name, of every call
        self.anchors = {}       # task id or None -> first event of the current response, which waits for its usage
        self.owed = {}          # task id or None -> [(counts, model)] that came before the response itself
        self.total = {}         # counts of the whole session, where no response tells its own
        self.model = None       # of the current response
        self.usage = {"raw_input": 0, "raw_output": 0, "input": 0, "output": 0, "cache_read": 0, "cache_write": 0,
                      "reasoning": 0, "responses": 0, "duplicates_removed": 0, "replayed": 0}


def transcript_prompt(transcript, event_id, at, blocks, **more):
    """What a person asked; the first gives the session its title."""
    transcript_close(transcript)
    texts = [block["text"] for block in blocks if block["type"] == "Text"]
    transcript.session.prompt = transcript.session.prompt or "\n".join(texts).strip() or None
    return transcript.session.event("UserMessage", event_id, at, blocks, **more)


def transcript_say(transcript, kind, event_id, at, blocks, task=None, attributes=None, **data):
    """An event of the model's.  The first one of a response waits for its usage."""
    attributes = dict(attributes or {})
    if transcript.model and kind in ("AgentMessage", "Thinking"):
        attributes.setdefault("model", transcript.model)
    event = transcript.session.event(kind, event_id, at, blocks, task=task, attributes=attributes, **data)
    for counts, model in transcript.owed.pop(task, ()):
        transcript_put_usage(transcript, event, counts, model)
    if task not in transcript.anchors:
        transcript.anchors[task] = event
        transcript.session.hold(event)
    return event


def transcript_notice(transcript, event_id, at, text, meta, **attributes):
    """What the program says; nothing if that is blank."""
    if text.strip():
        transcript.session.event("SystemMessage", event_id, at, [text_block(text.strip())],
                                 attributes={"meta": meta, **attributes})


def transcript_close(transcript, task=None):
    """The current response is over: nothing waits for its usage any more."""
    event = transcript.anchors.pop(task, None)
    if event is not None and not transcript_awaits(transcript, event):
        transcript.session.release(event)


def transcript_awaits(transcript, event):
    """Whether an event still waits for its result, or for the usage of its response."""
    waiting = itertools.chain(transcript.anchors.values(), *(events for events, _ in transcript.calls.values()))
    return any(event is other for other in waiting)


def transcript_usage(transcript, counts, model=None, task=None, before=False):
    """Count the usage of one response, on its first event.

    `counts` has input (all of it), output, cache_read, cache_write, reasoning.  With
    `before`, the response is still to come."""
    account = transcript.usage
    account["raw_input"] += counts.get("input", 0)
    account["raw_output"] += counts.get("output", 0)
    if not any(counts.values()):
        return
    account["responses"] += 1
    event = transcript.anchors.get(task)
    if event is not None and not before and transcript.session.waiting(event):
        transcript_put_usage(transcript, event, counts, model)
    elif before:
        transcript.owed.setdefault(task, []).append((counts, model))
    else:
        event = transcript.session.event("Custom", f"usage-{account['responses']}", kind="usage", task=task)
        transcript_put_usage(transcript, event, counts, model)


def transcript_put_usage(transcript, event, counts, model=None):
    """Put counts on an event and into the account."""
    attributes = event.setdefault("attributes", {})
    for part in ("input", "output", "cache_read", "cache_write", "reasoning"):
        count = counts.get(part, 0)
        transcript.usage[part] += count
        if count:
            attributes[f"{part}_tokens"] = attributes.get(f"{part}_tokens", 0) + count
    if model or transcript.model:
        attributes["model"] = model or transcript.model
    if event.get("task_id"):
        agents = transcript.usage.setdefault("subagents", {"input": 0, "output": 0})
        agents["input"] += counts.get("input", 0)
        agents["output"] += counts.get("output", 0)


def transcript_call(transcript, call_id, at, name, given, task=None, attributes=None, known_as=None):
    """A tool call, which is held until its result arrives; None where the id repeats a call.

    `known_as` is its name in the table of tools, where that is another one."""
    if call_id in transcript.names:
        return None
    given = given if given is not None else {}
    kind, field, keys = transcript.tools.get(known_as or name, ("ToolCall", "name", ()))
    value = next((given[key] for key in keys if as_text(as_dict(given).get(key))), None)
    if value is None:
        kind, field, value = "ToolCall", "name", name
    facts = {**(attributes or {}), "tool": name}
    if kind == "FileCreate":
        facts["diff_lines_added"] = len(as_text(first_of(given, TRANSCRIPT_CONTENT)).splitlines())
    event = transcript_say(transcript, kind, call_id, at, transcript_call_blocks(kind, value, given), task, facts,
                           **{field: value})
    transcript_await(transcript, call_id, name, [event], given)
    return event


def transcript_await(transcript, call_id, name, events, given):
    """Let the events of a call wait for its result; of too many such calls the oldest is let go."""
    transcript.names[call_id] = name
    transcript.calls[call_id] = events, given
    for event in events:
        transcript.session.hold(event)
    if len(transcript.calls) > transcript.OPEN_CALLS:
        transcript_settle(transcript, next(iter(transcript.calls)))


def transcript_patch(transcript, call_id, at, name, text, task=None):
    """A call with a patch in the form of Codex: one event for each file.  Returns the first, None if there is none."""
    changes = codex_patch_changes(text) if call_id not in transcript.names else []
    events = []
    for number, (kind, path, body, target) in enumerate(changes, 1):
        create = kind == "FileCreate"
        facts = {"tool": name, **({"moved_to": target} if target else {}),
                 **({"diff_lines_added": len(body.splitlines())} if create else {})}
        diff = codex_diff(path, target, body) or None if kind == "FileEdit" else None
        events.append(transcript_say(transcript, kind, call_id if number == 1 else f"{call_id}:{number}", at,
                                     [code_block(body, language_of(path))] * create, task, facts, path=path, diff=diff))
    if events:
        transcript_await(transcript, call_id, name, events, {})
    return events[0] if events else None


# What tools call the parts of an edit, a new file, and the remark on a command.
TRANSCRIPT_OLD = ("oldString", "old_string", "old_str", "old_text", "oldText", "old")
TRANSCRIPT_NEW = ("newString", "new_string", "new_str", "new_text", "newText", "new")
TRANSCRIPT_CONTENT = ("content", "file_text", "contents", "text")


def first_of(mapping, keys, default=None):
    """The value of the first of these keys that a mapping has."""
    mapping = as_dict(mapping)
    return next((mapping[key] for key in keys if mapping.get(key) is not None), default)


def transcript_call_blocks(kind, value, given):
    """What is shown of a call's input."""
    if kind == "ShellCommand":
        about = as_text(as_dict(given).get("description"))
        return [code_block(value, "bash")] + [text_block(about)] * bool(about)
    if kind == "FileCreate":
        return [code_block(as_text(first_of(given, TRANSCRIPT_CONTENT)), language_of(value))]
    if kind == "ToolCall":
        return [text_block(given)] if isinstance(given, str) else [json_block(given)]
    if kind in ("FileEdit", "FileDelete"):
        return []
    more = {key: item for key, item in given.items() if item != value}
    return [json_block(more)] if more else []


def transcript_result(transcript, call_id, at, blocks, *, failed=False, exit_code=None, diff=None, duration_ms=None,
                      event_id=None, task=None):
    """The result of a call, which completes the call itself."""
    name = transcript.names.get(call_id, "unknown")
    exit_code = exit_code if type(exit_code) is int and -2**31 <= exit_code < 2**31 else None
    call = transcript.calls[call_id][0][0] if call_id in transcript.calls else None
    if call:
        if duration_ms is None and at:
            duration_ms = milliseconds_between(call["timestamp"], at)
        transcript_settle(transcript, call_id, failed or bool(exit_code), exit_code, diff)
    call_id = call["event_id"] if call else call_id
    return transcript.session.event("ToolResult", event_id or f"{call_id}-result", at, blocks, task=task,
                                    duration_ms=duration_ms, name=name, is_error=bool(failed or exit_code),
                                    call_id=call_id or None)


def transcript_settle(transcript, call_id, failed=False, exit_code=None, diff=None):
    """Complete a call by what its result told, and let it go."""
    events, given = transcript.calls.pop(call_id)
    for event in events:
        kind, data = event_kind(event)
        if kind == "ShellCommand" and exit_code is not None:
            data["exit_code"] = exit_code
        if kind == "FileCreate" and diff:       # the file was there before
            event["event_type"]["type"] = kind = "FileEdit"
            event["content"]["blocks"] = []
            event["attributes"].pop("diff_lines_added", None)
        if kind == "FileEdit":
            diff_of_edit = diff or data.pop("diff", None) or wanted_diff(given, data["path"])
            if diff_of_edit and failed:         # wanted, but not done: it must not count as changed lines
                event["content"]["blocks"].append(code_block(diff_of_edit, "diff"))
            elif diff_of_edit:
                data["diff"] = diff_of_edit
        if not transcript_awaits(transcript, event):
            transcript.session.release(event)


def wanted_diff(given, path):
    """The diff that the input of an edit asks for, "" where it has none; the lines' numbers are not known."""
    edits = as_list(as_dict(given).get("edits")) or [given]
    pairs = [(as_text(first_of(edit, TRANSCRIPT_OLD)), as_text(first_of(edit, TRANSCRIPT_NEW))) for edit in edits]
    return "\n".join(filter(None, (unified_diff(old, new, path) for old, new in pairs)))


NUMBERED_LINE = re.compile(r"\s*(\d{1,7})(?:→|\t|[:|] ?)(.*)")


def numbered_code(text):
    """A file as tools print it, with numbered lines, as code that starts at the first of them; else as it is."""
    lines = text.split("\n")
    numbered = [NUMBERED_LINE.fullmatch(line) for line in lines]
    if not all(numbered[:3]) or any(int(match[1]) != int(numbered[0][1]) + place
                                    for place, match in enumerate(numbered[:3])):
        return code_block(text)
    code = "\n".join(match[2] if match else line for match, line in zip(numbered, lines))
    return code_block(code, None, int(numbered[0][1]))


def milliseconds_between(first, last):
    """Whole milliseconds from one timestamp to another, at least 0."""
    passed = datetime.fromisoformat(last) - datetime.fromisoformat(first)
    return max(0, round(passed.total_seconds() * 1000))


def transcript_events(transcript, records, step, finish=None):
    """Yield a session's events: step(record) for each of `records`, finish(), then what is left.  The last facts follow."""
    session = transcript.session
    for record in records:
        step(record)
        yield from session.settled()
    if finish:
        finish()
    for call_id in list(transcript.calls):
        transcript_settle(transcript, call_id)
    for task, owed in transcript.owed.items():
        for number, (counts, model) in enumerate(owed, 1):
            event = session.event("Custom", f"usage-{task or 'session'}-{number}", kind="usage", task=task)
            transcript_put_usage(transcript, event, counts, model)
    if any(transcript.total.values()) and (session.prompt or session.opening):
        transcript.anchors.clear()
        transcript_usage(transcript, transcript.total)
    yield from session.rest()
    session.model = session.model or transcript.model
    session.attributes["usage"] = transcript.usage


def only_if_any(session, events):
    """[session] with these events, or [] where there are none: nothing was said or done in it."""
    first = next(events, None)
    if first is None:
        return []
    session.events = itertools.chain([first], events)
    return [session]


def file_path(uri):
    """The path of a file: address, percent-decoded; of other addresses what follows the host."""
    try:
        path = urllib.parse.unquote(urllib.parse.urlsplit(uri).path)
    except ValueError:
        return uri
    return path[1:] if re.match(r"/[A-Za-z]:", path) else path


# Databases ------------------------------------------------------------------

SQLITE_HEAD = b"SQLite format 3\0"
# Damage can even be in the text of the error, which Python then cannot decode.
DATABASE_DAMAGE = (sqlite3.Error, UnicodeDecodeError)


@contextmanager
def open_database(path):
    """A read-only connection to a SQLite file that its program may be writing to, or None where it is none.

    Rows are dicts.  Raises OSError where the file is locked or cannot be read."""
    with open_regular(path) as file:
        sound = file.read(len(SQLITE_HEAD)) == SQLITE_HEAD
    if not sound:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        connection = connect_read_only(path) or connect_read_only(copy_database(path, folder))
        try:
            yield connection
        finally:
            if connection:
                connection.close()


def connect_read_only(path):
    """A connection that sees one state of the database; None where it does not open."""
    connection = sqlite3.connect(Path(path).absolute().as_uri() + "?mode=ro", uri=True, timeout=5, isolation_level=None)
    connection.text_factory = lambda data: clean_text(data.decode("utf-8", "replace"))
    connection.row_factory = lambda cursor, row: {column[0]: value for column, value in zip(cursor.description, row)}
    try:
        connection.execute("BEGIN")
        connection.execute("SELECT name FROM sqlite_master LIMIT 1").fetchone()
        return connection
    except DATABASE_DAMAGE as error:
        connection.close()
        if is_locked(error):
            raise OSError(f"{path} is locked") from error
        return None


def is_locked(error):
    return "locked" in str(error) or "busy" in str(error)


COPIED_DATABASE = 1 << 30       # bytes; editors keep databases of many GB, which are not copied on every look


def copy_database(path, folder):
    """Copy a database with its log, for where SQLite may not put its index beside it; returns the copy's path.

    Raises OSError where it is too large for that."""
    if file_size(path) > COPIED_DATABASE:
        raise OSError(f"{path} cannot be opened in its place and is too large to copy")
    for suffix in ("", "-wal"):
        if os.path.exists(f"{path}{suffix}"):
            shutil.copyfile(f"{path}{suffix}", os.path.join(folder, f"copy{suffix}"))
    return os.path.join(folder, "copy")


def database_files(path):
    """The files of a database that change when its content does."""
    return Path(path), Path(f"{path}-wal")


def table_columns(connection, table):
    """The names of a table's columns; none where there is no such table."""
    return [row["name"] for row in query(connection, f"SELECT name FROM pragma_table_info('{table}')")]


def query(connection, sql, values=(), session=None):
    """Yield the rows of a statement as dicts.  Damage ends them, and counts as a bad line of `session`."""
    try:
        yield from connection.execute(sql, values)
    except DATABASE_DAMAGE as error:
        if is_locked(error):
            raise OSError(str(error)) from error
        if session:
            session.bad_lines += 1


def column_list(connection, table, wanted):
    """The wanted columns of a table for a SELECT, NULL for those that this version has not."""
    there = set(table_columns(connection, table))
    return ", ".join(name if name in there else f"NULL AS {name}" for name in wanted)


def json_value(text):
    """The JSON value in a column or a string, or None."""
    if isinstance(text, str):
        text = text.encode("utf-8", "replace")
    return load_json(text) if isinstance(text, bytes) else None


# JSON files that are rewritten as a whole --------------------------------------

JSON_BETWEEN = re.compile(r"[ \t\r\n,:]*")
JSON_RESTART = re.compile(r"\}[ \t\r\n]*,[ \t\r\n]*(?=\{)")


def json_parts(path, session, lists, mark, limit=MAX_LINE):
    """Yield (key, value) of the members of a JSON file's object; of lists under a key in `lists`,
    (key, item) one after another.  A file that is a list gives (None, item).

    Such a file may be caught half written or be damaged: what stands before is given, and after
    it list items again from the first object with the key `mark`.  Damage, and a file above
    `limit` bytes, count as bad lines."""
    with open_regular(path) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        session.bad_lines += 1
        return
    unsafe = is_unsafe(data)
    text = data.decode("utf-8-sig", "replace")
    del data                        # a big file need not lie in memory twice
    parts = json_members(text, session, lists, mark)
    yield from ((key, clean_value(value)) for key, value in parts) if unsafe else parts


def json_members(text, session, lists, mark):
    """json_parts of a text."""
    place = JSON_BETWEEN.match(text).end()
    if text[place:place + 1] == "[":
        yield from json_items(text, place + 1, session, None, mark)
        return
    if text[place:place + 1] != "{":
        session.bad_lines += bool(text.strip("\0 \t\r\n"))
        return
    place += 1
    while (place := JSON_BETWEEN.match(text, place).end()) < len(text) and text[place] != "}":
        key, after = json_next(text, place)
        if isinstance(key, str):
            start = JSON_BETWEEN.match(text, after).end()
            if key in lists and text[start:start + 1] == "[":
                place = yield from json_items(text, start + 1, session, key, mark)
                continue
            value, after = json_next(text, start)
        if isinstance(key, str) and after is not None:
            yield key, value
            place = after
            continue
        session.bad_lines += 1
        listed = re.compile(rf'"({"|".join(map(re.escape, lists))})"\s*:\s*\[').search(text, place)
        if not listed:
            return
        place = yield from json_items(text, listed.end(), session, listed[1], mark)


def json_items(text, place, session, key, mark):
    """Yield (key, item) of a list from `place` on; return where it ends."""
    while (place := JSON_BETWEEN.match(text, place).end()) < len(text) and text[place] != "]":
        item, end = json_next(text, place)
        if end is None:
            session.bad_lines += 1
            item, end = json_resume(text, place, mark)
            if end is None:
                return len(text)
        yield key, item
        place = end
    return place + 1


def json_resume(text, place, mark):
    """(item, end) of the next whole object behind damage, if it is of the list and not of what was damaged."""
    for restart in itertools.islice(JSON_RESTART.finditer(text, place), 1000):
        item, end = json_next(text, restart.end())
        if end is not None and mark in item:
            return item, end
    return None, None


def json_next(text, place):
    """(value, end) of the JSON value at a place; (None, None) where there is none."""
    try:
        return JSON_DECODER.raw_decode(text, place)
    except (ValueError, RecursionError, TypeError):
        return None, None


# Where editors keep what their extensions write ---------------------------------

EDITORS = ("Code", "Code - Insiders", "VSCodium", "Cursor", "Windsurf")
EDITOR_SERVERS = (".vscode-server", ".vscode-server-insiders", ".cursor-server", ".windsurf-server")


def editor_folders(env, home):
    """The User folders of VS Code and its kin on Linux, macOS and Windows, and of their servers."""
    bases = (Path(env.get("XDG_CONFIG_HOME") or home / ".config"), home / "Library" / "Application Support",
             Path(env.get("APPDATA") or home / "AppData" / "Roaming"))
    return ([base / name / "User" for base in bases for name in EDITORS]
            + [home / name / "data" / "User" for name in EDITOR_SERVERS])


SEARCH_MARKS = (re.compile(r"(?:<{5,9}|-{5,9}) ?SEARCH\b"), re.compile(r"={5,9}\s*$"),
                re.compile(r"(?:>{5,9}|\+{5,9}) ?REPLACE\b"))
SEARCH_PLACE = re.compile(r":\w+:.*|-{5,9}")


def search_replace_pairs(text):
    """[(old, new)] of the SEARCH/REPLACE blocks in a text; line numbers that some tools put first are left out."""
    pairs, sides, stage = [], ([], []), 0
    for line in text.splitlines(keepends=True):
        if SEARCH_MARKS[stage].match(line):
            stage = (stage + 1) % 3
            if stage == 0:
                pairs.append(("".join(sides[0]), "".join(sides[1])))
                sides = ([], [])
        elif stage == 2 or stage == 1 and (sides[0] or not SEARCH_PLACE.match(line)):
            sides[stage - 1].append(line)
    return pairs


# What content and tools look like in most formats --------------------------------

def shown_blocks(content, session=None):
    """Content as blocks: a text, or a list of texts, text parts and images of any provider's form; other
    parts as JSON, counted as unknown."""
    blocks = []
    for part in claude_blocks({"content": content}):
        source = as_dict(part.get("source"))
        data = as_text(part.get("data")) or as_text(source.get("data"))
        media = as_text(first_of(part, ("mimeType", "mime_type", "mediaType"))) or as_text(source.get("media_type"))
        url = as_text(part.get("image_url")) or as_text(as_dict(part.get("image_url")).get("url"))
        if isinstance(part.get("text"), str):
            blocks += [text_block(part["text"])] * bool(part["text"].strip())
        elif data and media.startswith("image/"):
            blocks.append(image_block(media, data))
        elif url or part.get("type") == "image":
            blocks += codex_images([url]) or [text_block("[image]")]
        else:
            blocks.append(json_block(part))
            if session:
                count_unknown(session, f"block {part.get('type')}")
    return blocks


def files_of(root, fits=lambda name: True):
    """The path that `root` is, or the paths of the files below it whose names fit, as texts."""
    return [str(root)] if os.path.isfile(root) else [entry.path for entry in walk(str(root)) if fits(entry.name)]


def open_call(transcript, call_id):
    """(kind, data) of the first event of a call without a result yet; ("", {}) of others."""
    return event_kind(transcript.calls[call_id][0][0]) if call_id in transcript.calls else ("", {})


def result_blocks(call, blocks):
    """What a call (kind, data) gave: texts that were read or printed are code."""
    kind, data = call
    if kind not in ("FileRead", "ShellCommand"):
        return blocks
    language = language_of(data["path"]) if kind == "FileRead" else None
    return [code_block(block["text"], language) if block["type"] == "Text" else block for block in blocks]


def count_unknown(session, kind):
    """Count a part of a record that we do not know, like unknown records are counted."""
    session.unknown[kind[:80]] = session.unknown.get(kind[:80], 0) + 1


def tool_table(**kinds):
    """{tool name: (event kind, its field, keys that fill it)} from FileRead="read view", …: the field and the
    usual keys of a kind are the same in all tools."""
    return {name: (kind, *TOOL_KEYS[kind]) for kind, names in kinds.items() for name in names.split()}


TOOL_PATHS = ("path", "file_path", "filePath", "target_file", "absolute_path", "filename", "file")
TOOL_KEYS = {
    **dict.fromkeys(("FileRead", "FileEdit", "FileCreate", "FileDelete"), ("path", TOOL_PATHS)),
    "CodeSearch": ("query", ("pattern", "query", "regex", "query_string")),
    "FileSearch": ("pattern", ("pattern", "filePattern", "glob_pattern", "glob", "query", "target_directory",
                               "dir_path", "path")),
    "ShellCommand": ("command", ("command", "cmd")),
    "WebSearch": ("query", ("query", "objective", "search_query")),
    "WebFetch": ("url", ("url", "uri")),
}


PROVIDERS = {"claude": "anthropic", "gpt": "openai", "o1": "openai", "o3": "openai", "o4": "openai", "codex": "openai",
             "gemini": "google", "grok": "xai", "deepseek": "deepseek", "qwen": "alibaba", "kimi": "moonshot",
             "glm": "zhipu", "mistral": "mistral", "devstral": "mistral"}


def provider_of(model):
    """Who makes a model, by its name, for tools that do not say; "unknown" for other names."""
    name = (model or "").lower().rsplit("/", 1)[-1]
    return next((provider for start, provider in PROVIDERS.items() if name.startswith(start)), "unknown")
# ---------------------------------------------------------------------------
# Cursor: the editor's database, agent transcripts, and the CLI's chats
#
# state.vscdb (0.3x to 3.x): chat tabs of old in a workspace's ItemTable; composers with
# their conversation inside; since _v 3 composers that list bubbles, which are rows of
# their own.  A database holds keys for other things too, so only named keys are read.
# ~/.cursor/projects/<slug>/agent-transcripts (jsonl, before that plain text) has neither
# times nor results; ~/.cursor/chats/<hash>/<id>/store.db of the CLI adds title, model
# and results where it has the same id, and is a session where there is no transcript.
#
# To support a new tool add a line to CURSOR_TOOLS; a block of a message, to CURSOR_BLOCKS.
# ---------------------------------------------------------------------------

CURSOR_BEGINNINGS = (b'{"role":"user","message":{"content"', b'{"role": "user", "message": {"content"')
CURSOR_DATABASE = "state.vscdb"
CURSOR_TABLES = ("cursorDiskKV", "ItemTable")
CURSOR_PATHS = ("path", "target_file", "targetFile", "file_path", "relativeWorkspacePath", "relative_workspace_path",
                "effectiveUri", "target_notebook")
CURSOR_FOLDERS = ("target_directory", "directoryPath", "relative_workspace_path", "targetDirectory", "path")
CURSOR_TOOLS = {
    **dict.fromkeys(("Shell", "Bash", "run_terminal_cmd", "run_terminal_command"),
                    ("ShellCommand", "command", ("command",))),
    **dict.fromkeys(("Read", "read_file"), ("FileRead", "path", CURSOR_PATHS)),
    **dict.fromkeys(("Write", "write", "create_file"), ("FileCreate", "path", CURSOR_PATHS)),
    **dict.fromkeys(("StrReplace", "Edit", "MultiEdit", "EditNotebook", "edit_file", "search_replace", "edit_notebook",
                     "reapply"), ("FileEdit", "path", CURSOR_PATHS)),
    **dict.fromkeys(("Delete", "delete_file"), ("FileDelete", "path", CURSOR_PATHS)),
    **dict.fromkeys(("Grep", "grep", "grep_search", "ripgrep_raw_search", "SemanticSearch", "codebase_search",
                     "semantic_search_full"), ("CodeSearch", "query", ("pattern", "query", "regex"))),
    **dict.fromkeys(("Glob", "glob_file_search", "file_search"),
                    ("FileSearch", "pattern", ("glob_pattern", "globPattern", "pattern", "query"))),
    **dict.fromkeys(("LS", "list_dir"), ("FileSearch", "pattern", CURSOR_FOLDERS)),
    **dict.fromkeys(("WebSearch", "web_search"), ("WebSearch", "query", ("search_term", "searchTerm", "query"))),
    **dict.fromkeys(("WebFetch", "web_fetch", "fetch"), ("WebFetch", "url", ("url",))),
}
CURSOR_TOOLS.update({f"{name}_v2": row for name, row in CURSOR_TOOLS.items() if "_" in name or name.islower()})
# What the editor's numbers for tools mean, where no name is stored.
CURSOR_TOOL_NUMBERS = {3: "grep_search", 5: "read_file", 6: "list_dir", 7: "edit_file", 8: "file_search",
                       9: "codebase_search", 11: "delete_file", 12: "reapply", 15: "run_terminal_cmd", 18: "web_search"}


# Cursor: finding files ------------------------------------------------------

def cursor_roots(env, home):
    """The editor's databases on Linux, macOS, Windows and seen from WSL, and the agents' folders."""
    home = Path(home)
    config = Path(env.get("XDG_CONFIG_HOME") or home / ".config")
    users = [config / "Cursor" / "User", home / "Library" / "Application Support" / "Cursor" / "User"]
    if env.get("APPDATA"):
        users.append(Path(env["APPDATA"]) / "Cursor" / "User")
    if env.get("WSL_DISTRO_NAME"):
        users += sorted(Path("/mnt/c/Users").glob("*/AppData/Roaming/Cursor/User"))
    agents = [Path(env["CURSOR_CONFIG_DIR"]).expanduser()] if env.get("CURSOR_CONFIG_DIR") else [
        home / ".cursor", config / "cursor"]
    return [user / folder for user in users for folder in ("globalStorage", "workspaceStorage")] + [
        agent / folder for agent in agents for folder in ("projects", "chats")]


def cursor_sources(root):
    """Databases and transcripts below a folder, or the one that `root` is.

    A database of the editor's is one source with many sessions, as new ones appear in it
    without a change of its folder."""
    root = os.fspath(root)
    if os.path.isfile(root):
        yield cursor_source(root, cursor_stores(root))
        return
    depth = {"globalStorage": 0, "workspaceStorage": 1}.get(os.path.basename(root), 12)
    transcripts, stores = {}, cursor_stores(os.path.join(root, "x"))
    for entry in walk(root, depth):
        if entry.name in (CURSOR_DATABASE, "store.db"):
            yield cursor_source(entry.path, stores)
        elif cursor_is_transcript(entry.path):
            name = cursor_name(entry.path)
            # The newer form before the older, <id>/<id>.jsonl before <id>.jsonl.
            rank = (not entry.path.endswith(".jsonl"), -entry.path.count(os.sep), entry.path)
            transcripts[name] = min(transcripts.get(name, (rank, entry.path)), (rank, entry.path))
    yield from (cursor_source(path, stores) for _, (_, path) in sorted(transcripts.items()))


def cursor_source(path, stores):
    """The source of a file: a database with its log; a transcript with the CLI's database of the same id."""
    if cursor_is_database(path):
        return Source(path, tuple(map(str, database_files(path))))
    store = stores.get(cursor_name(path))
    return Source(cursor_name(path), (path, *map(str, database_files(store))) if store else (path,))


def cursor_is_database(path):
    return path.endswith((".vscdb", ".db"))


def cursor_is_transcript(path):
    """Whether a file is a transcript, by its place, or, in folders that are not Cursor's, by what it holds."""
    if "agent-transcripts" in Path(path).parts:
        return path.endswith((".jsonl", ".txt"))
    return path.endswith(".jsonl") and ".cursor" not in Path(path).parts and cursor_recognise(
        read_head(path), path)


def cursor_name(path):
    """The name of a transcript: its file's, or its folder's where all files are called the same.
    Only ids name a session for good; other names go with their path."""
    stem = os.path.basename(os.path.dirname(path)) if Path(path).stem == "transcript" else Path(path).stem
    return stem if UUID.fullmatch(stem) else os.path.splitext(path)[0]


def cursor_stores(path):
    """{session id: store.db} of the CLI's chats in the same Cursor folder as a path."""
    base = next((folder.parent for folder in Path(path).parents if folder.name in ("projects", "chats")), None)
    return {store.parent.name: str(store) for store in sorted(base.glob("chats/*/*/store.db"))} if base else {}


def cursor_recognise(head, path):
    """Whether the head of an unknown file is one of Cursor's databases or transcripts."""
    if head.startswith(SQLITE_HEAD):
        return (b"cursorDiskKV" in head or b"ItemTable" in head and "cursor" in path.lower()
                or b"TABLE blobs" in head and b"TABLE meta" in head)
    if path.endswith(".txt"):
        return "agent-transcripts" in Path(path).parts and head.lstrip().startswith((b"user:", b"assistant:"))
    if b"\n" not in head and head.startswith(CURSOR_BEGINNINGS):
        return True
    records = (load_json(line) for line in head.split(b"\n", 10)[:10])
    return any(cursor_is_record(record) for record in records if isinstance(record, dict))


def cursor_is_record(record):
    """Whether a record is a line of a transcript: a role and a message, and none of what other tools add."""
    return (record.get("role") in ("user", "assistant") and "content" in as_dict(record.get("message"))
            and not record.keys() & {"type", "uuid", "sessionId", "id", "timestamp", "created"})


@tool("cursor", "Cursor", roots=cursor_roots, sources=cursor_sources, recognise=cursor_recognise,
      where="~/.config/Cursor/User, ~/.cursor/projects, ~/.cursor/chats, or CURSOR_CONFIG_DIR",
      seen="0.3x to 3.x, plain text transcripts")
def parse_cursor(source):
    """A transcript is one session, a database holds as many as it holds.  Raises OSError while it is locked."""
    path = os.fspath(source.path)
    if not cursor_is_database(path):
        store = next((str(name) for name in source.files if str(name).endswith(".db")), None)
        yield from cursor_transcript(path, store)
        return
    with open_database(path) as connection:
        tables = [row["name"] for row in query(connection, "SELECT name FROM sqlite_master")] if connection else ()
        if "blobs" in tables:
            yield from cursor_chat(path, connection)
        else:
            yield from cursor_editor(path, connection, [table for table in CURSOR_TABLES if table in tables])


# Cursor: the editor's database ----------------------------------------------

def cursor_editor(path, connection, tables):
    """The sessions of a state.vscdb, in the order of their keys; each is read when it is asked for."""
    listed, parents, seen = cursor_listed(connection, tables), {}, set()
    for table in tables:
        keys = [row["key"] for row in query(connection, f"SELECT key FROM {table} WHERE key >= 'composerData:' "
                                                        "AND key < 'composerData;' ORDER BY key")]
        if keys:
            parents.update(cursor_parents(connection, table))
        for key in keys:
            name = as_text(key).partition(":")[2]
            composer = {**listed.get(name, {}), **as_dict(cursor_row(connection, table, key))}
            seen.add(name)
            for session in cursor_composer(path, connection, table, name, composer, parents):
                session.stamp = cursor_stamp(connection, table, name, composer, parents)
                yield session
    for name, composer in listed.items():
        if name not in seen and (as_list(composer.get("conversation")) or as_list(composer.get("bubbles"))):
            yield from cursor_composer(path, connection, "", name, composer, parents)


def cursor_row(connection, table, key):
    """The JSON value of one row, None where it is broken or there is none."""
    return next((json_value(row["value"]) for row in query(
        connection, f"SELECT value FROM {table} WHERE key = ?", (key,))), None)


def cursor_stamp(connection, table, name, composer, parents):
    """What changes with a session and is cheap to tell: a bubble that is written again gets another rowid."""
    rows = query(connection, f"SELECT count(*), max(rowid), total(rowid) FROM {table} WHERE key >= ? AND key < ?",
                 (f"bubbleId:{name}:", f"bubbleId:{name};"))
    said = [composer, parents.get(name), [list(row.values()) for row in rows]]
    return sha256(json.dumps(said, sort_keys=True).encode("utf-8", "replace")).hexdigest()


def cursor_listed(connection, tables):
    """{id: what the lists in ItemTable say of a session}: chat tabs of old with all of their text, and composers."""
    listed = {}
    for key, lists in CURSOR_LISTS.items() if "ItemTable" in tables else ():
        value = as_dict(cursor_row(connection, "ItemTable", key))
        for entry in (entry for name in lists for entry in as_list(value.get(name)) if isinstance(entry, dict)):
            name = first_of(entry, ("composerId", "tabId"))
            if isinstance(name, str) and name:
                listed.setdefault(name, {}).update(entry)
    return listed


CURSOR_LISTS = {
    "workbench.panel.aichat.view.aichat.chatdata": ("tabs",),
    "composer.composerData": ("allComposers",),
    "composer.composerHeaders": ("allComposers", "composers"),
}


def cursor_parents(connection, table):
    """{id: id of its parent} of composers that another one started."""
    rows = query(connection, f"""SELECT key, value FROM {table} WHERE key >= 'composerData:' AND key < 'composerData;'
                                    AND instr(CAST(value AS TEXT), '"subComposerIds":') > 0
                                    AND instr(CAST(value AS TEXT), '"subComposerIds":[]') = 0""")
    return {child: as_text(row["key"]).partition(":")[2] for row in rows
            for child in as_list(as_dict(json_value(row["value"])).get("subComposerIds")) if isinstance(child, str)}


def cursor_composer(path, connection, table, name, composer, parents):
    """[session] of a composer; [] of a draft, or of one without messages."""
    if composer.get("isDraft") is True:
        return []
    created = utc(first_of(composer, ("createdAt", "lastSendTime")))
    session = Session("cursor", "cursor", name, created or utc(os.stat(path).st_mtime))
    transcript = Transcript(session, CURSOR_TOOLS)
    transcript.model = cursor_model(composer)
    for at in (created, utc(composer.get("lastUpdatedAt"))):
        session.seen_at(at)
    session.title = as_text(first_of(composer, ("name", "chatTitle"))).strip() or None
    cursor_facts(session, composer, parents.get(name))
    bubbles = cursor_bubbles(connection, table, name, composer, session)
    return only_if_any(session, cursor_editor_events(path, transcript, composer, bubbles))


def cursor_editor_events(path, transcript, composer, bubbles):
    """The events of a composer; where it was at work may be known at the end only."""
    yield from transcript_events(transcript, bubbles, lambda bubble: cursor_bubble(transcript, bubble))
    attributes = transcript.session.attributes
    cwd = (cursor_uri(as_dict(composer.get("workspaceIdentifier")).get("uri"))
           or cursor_workspace(path, transcript.session.session_id) or attributes.get("cwd"))
    if cwd:
        attributes["cwd"] = cwd


def cursor_facts(session, composer, parent):
    """What a composer says of itself.  Those that the editor does not list either are auxiliary."""
    facts = {"git_branch": as_text(composer.get("createdOnBranch")), "source": "ide",
             "mode": as_text(composer.get("unifiedMode")) or as_text(composer.get("forceMode")),
             "archived": composer.get("isArchived") is True}
    parent = parent or as_text(first_of(as_dict(composer.get("subagentInfo")), ("parentComposerId",)))
    hidden = any(composer.get(key) is True for key in ("isArchived", "isSubagent", "isBestOfNSubcomposer"))
    facts.update(parent_session_id=parent, session_role="auxiliary" if hidden or parent else "")
    session.attributes.update({key: value for key, value in facts.items() if value})


def cursor_model(record):
    """The model that a composer or a bubble names; the editor's "default" lets it choose."""
    model = next((name for name in (as_dict(record.get("modelConfig")).get("modelName"),
                                    as_dict(record.get("modelInfo")).get("modelName"), record.get("modelType"))
                  if as_text(name)), None)
    return "auto" if model == "default" else model


def cursor_bubbles(connection, table, name, composer, session):
    """Yield (id, bubble) in the order of the conversation, whatever the generation."""
    inside = as_dict(composer.get("conversationMap"))
    for number, header in enumerate(as_list(composer.get("fullConversationHeadersOnly"))):
        bubble_id = as_text(as_dict(header).get("bubbleId"))
        rows = query(connection, f"SELECT value FROM {table} WHERE key = ?", (f"bubbleId:{name}:{bubble_id}",), session)
        row = next(rows, None)
        bubble = json_value(row["value"]) if row else inside.get(bubble_id)
        session.bad_lines += bool(row) and row["value"] is not None and not isinstance(bubble, dict)
        if isinstance(bubble, dict):
            yield bubble_id or f"bubble-{number}", {"createdAt": header.get("createdAt"), **bubble}
    whole_list = as_list(composer.get("conversation")) or as_list(composer.get("bubbles"))
    for number, bubble in enumerate(whole_list if not composer.get("fullConversationHeadersOnly") else ()):
        if isinstance(bubble, dict):
            yield as_text(first_of(bubble, ("bubbleId", "id"))) or f"bubble-{number}", bubble


# Cursor: bubbles ------------------------------------------------------------

def cursor_bubble(transcript, named):
    """Show one bubble: a prompt, or thinking, text and a tool call of the model's."""
    name, bubble = named
    at, text = cursor_time(bubble), cursor_text(bubble)
    folders = [bubble.get("workspaceProjectDir"), *map(cursor_uri, as_list(bubble.get("workspaceUris")))]
    for cwd in filter(as_text, folders):
        transcript.session.attributes.setdefault("cwd", cwd)
    if bubble.get("type") in (1, "user"):
        images = codex_images([first_of(image, ("url", "data", "path")) if isinstance(image, dict) else image
                               for image in as_list(bubble.get("images"))])
        if text.strip() or images:
            transcript_prompt(transcript, name, at, [text_block(text)] * bool(text.strip()) + images)
        return
    transcript_close(transcript)
    transcript.model = cursor_model(bubble) or transcript.model
    cursor_answer(transcript, name, at, bubble, text)
    counts = as_dict(bubble.get("tokenCount"))
    transcript_usage(transcript, {part: whole(counts.get(f"{part}Tokens")) for part in ("input", "output")})
    transcript_close(transcript)


def cursor_answer(transcript, name, at, bubble, text):
    """Show what a bubble of the model's holds."""
    thoughts = [bubble.get("thinking"), *as_list(bubble.get("allThinkingBlocks"))]
    thoughts = [as_text(first_of(thought, ("text", "thinking"))) if isinstance(thought, dict) else as_text(thought)
                for thought in thoughts]
    if bubble.get("isThought") is True and not any(thoughts):
        thoughts, text = [text], ""
    for number, thought in enumerate(dict.fromkeys(filter(str.strip, thoughts))):
        transcript_say(transcript, "Thinking", f"{name}-thinking-{number}", at, [text_block(thought)])
    call = as_dict(bubble.get("toolFormerData"))
    code = [code_block(block["content"], as_text(block.get("languageId")))
            for block in map(as_dict, as_list(bubble.get("codeBlocks"))) if as_text(block.get("content"))]
    if text.strip() or code and not call:
        transcript_say(transcript, "AgentMessage", name, at, [text_block(text)] if text.strip() else code)
    if call:
        cursor_tool(transcript, as_text(call.get("toolCallId")).partition("\n")[0] or f"{name}-tool", at, call)
    problem = as_text(first_of(bubble.get("errorDetails"), ("message", "error")))
    if problem:
        transcript_notice(transcript, f"{name}-error", at, problem, "api_error", error=True)


def cursor_time(bubble):
    """When a bubble was written, None where it does not say; some of its times count from the start of the editor."""
    timing = as_dict(bubble.get("timingInfo"))
    times = (timing.get(key) for key in ("clientRpcSendTime", "clientStartTime", "clientEndTime"))
    at = next((time for time in times if type(time) in (int, float) and time > 1e12), None)
    return utc(bubble.get("createdAt")) or utc(at)


def cursor_text(bubble):
    """The text of a bubble, under any of its names."""
    for key in ("text", "rawText", "content", "message"):
        if as_text(bubble.get(key)).strip():
            return bubble[key]
    rich = bubble.get("richText")
    return "".join(cursor_leaves(json_value(rich) if isinstance(rich, str) else rich)).strip()


def cursor_leaves(node, depth=0):
    """Yield the texts of an editor's tree, with a line end behind each paragraph."""
    node = as_dict(node)
    if as_text(node.get("text")):
        yield node["text"]
    for child in as_list(node.get("children")) or [node.get("root")]:
        if child and depth < 50:
            yield from cursor_leaves(child, depth + 1)
    if node.get("type") == "paragraph":
        yield "\n"


# Cursor: tools --------------------------------------------------------------

def cursor_tool(transcript, call_id, at, call):
    """A tool call of a bubble, which holds its result too."""
    number = call.get("tool")
    known = CURSOR_TOOL_NUMBERS.get(number) if type(number) is int else None
    name = as_text(call.get("name")) or known or f"tool_{number}"
    cursor_call(transcript, call_id, at, name, cursor_arguments(name, call))
    status = as_text(call.get("status"))
    failed = status in ("error", "cancelled", "rejected") or call.get("userDecision") == "rejected"
    result = cursor_json(call.get("result"))
    if result in (None, "", {}) and failed:
        result = as_text(first_of(cursor_json(call.get("error")), ("clientVisibleErrorMessage", "message"))) or status
    if result not in (None, "", {}) or status == "completed":
        cursor_result(transcript, call_id, at, result, failed)


def cursor_json(value):
    """A value that may be stored as JSON text; text that is none stays text."""
    parsed = json_value(value) if isinstance(value, str) and value[:1] in "{[" else None
    return value if parsed is None else parsed


def cursor_arguments(name, call):
    """The arguments of a call: as the model wrote them, or as the editor read them, whichever names the object."""
    found = [value for value in map(cursor_json, (call.get("rawArgs"), call.get("params"))) if value]
    keys = CURSOR_TOOLS.get(name, ("", "", ()))[2]
    return next((value for value in found if as_text(first_of(value, keys))), found[0] if found else {})


def cursor_call(transcript, call_id, at, name, given):
    """Show a call; an edit that gives no old text shows what it wants to be there."""
    patch = given if isinstance(given, str) else as_text(first_of(given, ("patch", "input")))
    event = transcript_patch(transcript, call_id, at, name, patch) if "*** Begin Patch" in patch else None
    event = event or transcript_call(transcript, call_id, at, name, given)
    wanted = as_text(first_of(given, ("code_edit", "codeEdit")))
    if event and wanted and event_kind(event)[0] == "FileEdit":
        event["content"]["blocks"].append(code_block(wanted, language_of(event_kind(event)[1]["path"])))
    folder = as_text(first_of(given, ("working_directory", "cwd")))
    if event and folder:
        event["attributes"]["cwd"] = folder


def cursor_result(transcript, call_id, at, result, failed=False):
    """Show a result, and what it tells of the call."""
    facts = as_dict(result)
    text = result if isinstance(result, str) else as_text(first_of(
        facts, ("output", "contents", "content", "stdout", "result", "text", "error", "message")))
    if isinstance(result, list):
        text = "\n".join(filter(None, (as_text(as_dict(part).get("text")) for part in result)))
    kind, data = event_kind(transcript.calls[call_id][0][0]) if call_id in transcript.calls else ("", {})
    if not text.strip():
        blocks = [json_block(result)] if result else []
    elif kind in ("FileRead", "ShellCommand", "CodeSearch", "FileSearch") and not failed:
        blocks = [code_block(text, language_of(data["path"]) if kind == "FileRead" else None,
                             whole(facts.get("startLineOneIndexed")))]
    else:
        blocks = [text_block(text)]
    code = first_of(facts, ("exitCode", "exit_code", "exitCodeV2"))
    transcript_result(transcript, call_id, at, blocks, failed=failed or facts.get("rejected") is True,
                      exit_code=codex_exit_code(code), diff=cursor_diff(facts, data.get("path")))


def cursor_diff(facts, path):
    """The diff that the editor made of an edit, or None."""
    hunks = []
    for chunk in map(as_dict, as_list(as_dict(facts.get("diff")).get("chunks"))):
        old, count, new, now = (whole(chunk.get(key)) for key in ("oldStart", "oldLines", "newStart", "newLines"))
        if as_text(chunk.get("diffString")):
            hunks.append(f"@@ -{old},{count} +{new},{now} @@\n{chunk['diffString']}")
    return path and diff_of(path, hunks) or None


# Cursor: where the work was done --------------------------------------------

def cursor_uri(uri):
    """The path of a URI, or of its {fsPath, path, external}; "" where there is none."""
    uri = first_of(uri, ("fsPath", "external", "path")) if isinstance(uri, dict) else uri
    if not isinstance(uri, str) or "://" not in uri:
        return as_text(uri)
    try:
        return file_path(uri)
    except ValueError:
        return ""


def cursor_workspace(path, name):
    """The folder of the workspace whose own database lists a session, or that this database is of; else None."""
    folder = Path(path).parent
    if folder.name != "globalStorage":
        return cursor_workspace_folder(folder)
    for database in sorted(folder.parent.glob(f"workspaceStorage/*/{CURSOR_DATABASE}")):
        stamp = tuple(file_size(file) for file in database_files(database)) + (os.stat(database).st_mtime_ns,)
        if name in cursor_workspace_ids(str(database), stamp):
            return cursor_workspace_folder(database.parent)
    return None


@lru_cache(maxsize=1024)
def cursor_workspace_ids(path, _stamp):
    """The ids of all sessions that a workspace's database names."""
    found = set()
    try:
        with open_database(path) as connection:
            rows = query(connection, """SELECT key, value FROM ItemTable WHERE key = 'composer.composerData'
                OR key >= 'workbench.panel.composerChatViewPane' AND key < 'workbench.panel.composerChatViewPanf'
            """) if connection else ()
            for row in rows:
                value = as_dict(json_value(row["value"]))
                found.update(as_text(as_dict(item).get("composerId")) for item in as_list(value.get("allComposers")))
                found.update(as_text(item) for item in as_list(value.get("selectedComposerIds")))
                found.update(key.rpartition(".")[2] for key in value if key.startswith("workbench.panel.aichat.view."))
    except OSError:
        pass
    return frozenset(found - {"", "hidden"})


def cursor_workspace_folder(folder):
    """The folder that a workspace's workspace.json names, or None."""
    path = str(folder / "workspace.json")
    facts = as_dict(load_json(read_head(path)))
    return cursor_uri(first_of(facts, ("folder", "workspace", "configuration"))) or None


def cursor_slug(name):
    return re.sub(r"[^A-Za-z0-9]", "-", name)


@lru_cache(maxsize=256)
def cursor_slug_folder(slug, top=os.sep):
    """The one existing folder that a project's slug stands for, or None where there are none or several."""
    drive = re.match(r"([A-Za-z])-+", slug) if os.name == "nt" else None
    found, stack, looked = [], [(f"{drive[1]}:\\", slug[drive.end():]) if drive else (top, slug)], 0
    while stack and looked < 500 and len(found) < 2:
        folder, rest = stack.pop()
        looked += 1
        try:
            with os.scandir(folder) as entries:
                names = [entry.name for entry in entries if entry.is_dir()]
        except OSError:
            continue
        for name in sorted(names):
            part = cursor_slug(name).lstrip("-")
            if part and part == rest:
                found.append(os.path.join(folder, name))
            elif part and rest.startswith(part + "-"):
                stack.append((os.path.join(folder, name), rest[len(part):].lstrip("-")))
    return found[0] if len(found) == 1 else None


def cursor_project(path, session):
    """Set a transcript's folder: as Cursor noted it, or as the slug says if that is certain; else a name alone."""
    parts = Path(path).parts
    if "agent-transcripts" not in parts or session.attributes.get("cwd"):
        return
    place = parts.index("agent-transcripts") - 1
    trusted = str(Path(*parts[:place + 1]) / ".workspace-trusted")
    noted = as_text(as_dict(load_json(read_head(trusted))).get("workspacePath"))
    cwd = noted or cursor_slug_folder(parts[place])
    if cwd:
        session.attributes["cwd"] = cwd
    elif not parts[place].isdecimal():
        session.attributes["project"] = claude_project(f"-{parts[place]}")


# Cursor: transcripts --------------------------------------------------------

CURSOR_TIME = re.compile(r"([A-Z][a-z]{2})[a-z]* (\d{1,2}), (\d{4}),? (?:at )?(\d{1,2}):(\d\d)(?::\d\d)? ?([AP]M)?"
                         r"(?: \((?:UTC|GMT)([+-]\d{1,2})?(?::?(\d\d))?\))?")
CURSOR_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
# What Cursor puts round or beside a prompt.
CURSOR_WRAPPED = re.compile(
    r"\s*<(timestamp|context|attached_files|system_reminder|system-reminder|user_info|rules|git_status|project_layout|"
    r"agent_transcripts|image_files|open_and_recently_viewed_files|agent_skills|additional_data|current_file|"
    r"cursor_commands|mcp_file_system|manually_attached_skills)\b[^>]*>")


def cursor_transcript(path, store):
    """[session] of a transcript, with what the CLI's database of the same id adds."""
    stem = os.path.basename(cursor_name(path))
    facts = cursor_chat_facts(store) if store else {}
    created = utc(facts.get("createdAt"))
    session = Session("cursor", "cursor", stem, created or utc(os.stat(path).st_mtime))
    session.seen_at(created)
    session.title = as_text(facts.get("name")).strip() or None
    transcript = Transcript(session, CURSOR_TOOLS)
    transcript.model = as_text(facts.get("lastUsedModel")) or None
    transcript.results = facts.get("results", deque())
    folder = Path(path).parent
    if folder.name == "subagents":
        parent = folder.parent.name
        session.attributes["session_role"] = "auxiliary"
        if UUID.fullmatch(parent):
            session.attributes["parent_session_id"] = parent
    lines = cursor_plain_lines(path) if path.endswith(".txt") else read_records(path, session)
    return only_if_any(session, cursor_transcript_events(path, transcript, lines))


def cursor_transcript_events(path, transcript, lines):
    """The events of a transcript, which ends when its file was last written."""
    named = ((f"line-{number}", line) for number, (_, line) in enumerate(lines, 1))
    yield from transcript_events(transcript, named, lambda pair: cursor_line(transcript, *pair))
    session = transcript.session
    session.seen_at(utc(os.stat(path).st_mtime))
    cursor_project(path, session)


def cursor_line(transcript, name, record):
    """Show one line of a transcript: a message by its role, or the end of a turn."""
    role, session, message = record.get("role"), transcript.session, record.get("message", record)
    if "role" not in record and record.get("type") == "turn_ended":
        problem = as_text(record.get("error")) or as_text(as_dict(record.get("error")).get("message"))
        if record.get("status") == "error" or problem:
            transcript_notice(transcript, name, None, problem or "error", "api_error", error=True)
    elif role in ("user", "assistant", "tool"):
        cursor_message(transcript, name, role, claude_blocks(message))
    elif role != "system":
        session.unknown_record(record.get("role") or record.get("type"), name, None, record)


def cursor_message(transcript, name, role, blocks):
    """Show the blocks of a message; all text of a person's is one prompt."""
    if role == "assistant":
        transcript_close(transcript)
    at, said = None, []
    for number, block in enumerate(blocks):
        kind = as_text(block.get("type"))
        text = as_text(block.get("text"))
        if role == "user" and kind == "text":
            at, text = cursor_written_at(text) or at, cursor_prompt(text)
            said += [text_block(text)] * bool(text)
        elif role == "user" and kind == "image":
            said += cursor_image(block)
        elif kind in CURSOR_BLOCKS:
            CURSOR_BLOCKS[kind](transcript, f"{name}-{number}", block)
        else:
            count_unknown(transcript.session, f"block {kind}")
            shown = text_block(text) if text else json_block(block)
            transcript_say(transcript, "AgentMessage", f"{name}-{number}", None, [shown])
    if said:
        for call_id in list(transcript.calls):
            transcript_settle(transcript, call_id)      # no result comes any more
        transcript_prompt(transcript, name, at, said)


def cursor_written_at(text):
    """The time in <timestamp>Sunday, Aug 2, 2026, 3:51 AM (UTC-7)</timestamp>, or None."""
    inside = text.partition("<timestamp>")[2].partition("</timestamp>")[0]
    found = CURSOR_TIME.search(inside[:200])
    if not found or found[1] not in CURSOR_MONTHS:
        return utc(inside)
    month, (day, year, hour, minute) = CURSOR_MONTHS.index(found[1]) + 1, map(int, found.group(2, 3, 4, 5))
    hour = hour % 12 + 12 * (found[6] == "PM") if found[6] else hour
    offset = int(found[7] or 0)
    return utc(f"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:00{offset:+03}:{found[8] or '00'}")


def cursor_prompt(text):
    """What a person asked, without what Cursor put round it; "" if that is all."""
    while wrapped := CURSOR_WRAPPED.match(text):
        _, closed, rest = text[wrapped.end():].partition(f"</{wrapped[1]}>")
        if not closed:
            break
        text = rest
    text = text.strip()
    if not text.startswith("<user_query>"):
        return text
    asked, closed, rest = text.removeprefix("<user_query>").rpartition("</user_query>")
    return (asked if closed else rest).strip()


def cursor_say(transcript, name, block):
    """A reply; "[REDACTED]" at its end stands for thinking that is not shown."""
    text = as_text(block.get("text")).rstrip().removesuffix("[REDACTED]").rstrip()
    if text.strip():
        transcript_say(transcript, "AgentMessage", name, None, [text_block(text)])


def cursor_think(transcript, name, block):
    text = as_text(first_of(block, ("thinking", "text")))
    if text.strip():
        transcript_say(transcript, "Thinking", name, None, [text_block(text)])


def cursor_block_call(transcript, name, block):
    """A call.  Its result may lie in the CLI's database, where calls have the same order."""
    tool_name = as_text(first_of(block, ("name", "toolName"))) or "unknown"
    call_id = as_text(first_of(block, ("id", "toolCallId", "tool_use_id"))).partition("\n")[0] or name
    cursor_call(transcript, call_id, None, tool_name, first_of(block, ("input", "args", "arguments"), {}))
    results = transcript.results
    if results and results[0][0] == tool_name:
        result = results.popleft()[1]()
        if result:
            cursor_block_result(transcript, f"{call_id}-stored", {**result, "toolCallId": call_id})
    else:
        results.clear()         # they are not of the same calls any more


def cursor_block_result(transcript, name, block):
    """A result; one that does not say whose it is belongs to the first call that waits."""
    call_id = as_text(first_of(block, ("tool_use_id", "toolCallId"))).partition("\n")[0]
    if call_id not in transcript.names:
        call_id = next(iter(transcript.calls), call_id or name)
    content = first_of(block, ("content", "result", "output"))
    failed = block.get("is_error") is True or block.get("isError") is True
    cursor_result(transcript, call_id, None, cursor_json(content), failed)


def cursor_image(block):
    source = as_dict(block.get("source")) or block
    media, data = (as_text(first_of(source, keys)) for keys in (("media_type", "mimeType"), ("data", "image")))
    return [image_block(media or "image/png", data)] if data else []


def cursor_nothing(transcript, name, block):
    """A block that shows nothing."""


CURSOR_BLOCKS = {
    "text": cursor_say,
    **dict.fromkeys(("thinking", "reasoning"), cursor_think),
    **dict.fromkeys(("tool_use", "tool_call", "tool-call"), cursor_block_call),
    **dict.fromkeys(("tool_result", "tool-result"), cursor_block_result),
    **dict.fromkeys(("redacted", "redacted_thinking", "redacted-reasoning"), cursor_nothing),
}


def cursor_plain_lines(path):
    """Yield (offset, record) of a plain-text transcript: what stands under user:, assistant: and [markers]."""
    role, kind, head, lines = "user", "text", "", []
    for offset, line in read_lines(path):
        line = clean_text((line or b"").decode("utf-8-sig", "replace").rstrip("\r\n"))
        mark = next((mark for mark in CURSOR_PLAIN if line.startswith(mark)), None)
        prose = kind in ("tool_use", "tool_result") and line[:1].strip()
        if mark or prose or line in ("user:", "assistant:"):
            yield from cursor_plain_record(offset, role, kind, head, lines)
            kind, head = (CURSOR_PLAIN[mark], line[len(mark):].strip()) if mark else ("text", "")
            lines = [] if mark or not prose else [line]
            role = line[:-1] if line in ("user:", "assistant:") else role
        else:
            lines.append(line)
    yield from cursor_plain_record(sys.maxsize, role, kind, head, lines)


CURSOR_PLAIN = {"[Thinking]": "thinking", "[Tool call]": "tool_use", "[Tool result]": "tool_result"}


def cursor_plain_record(offset, role, kind, head, lines):
    """[(offset, record)] of one piece of a plain-text transcript, [] where it is empty."""
    text = "\n".join(lines).strip()
    if kind == "tool_use":
        pairs = (line.strip().partition(": ") for line in lines)
        block = {"type": kind, "name": head, "input": {key: value for key, mark, value in pairs if mark}}
    elif kind == "tool_result":
        block = {"type": kind, "content": text}
    else:
        text = f"{head}\n{text}".strip()
        block = {"type": kind, "text": text, "thinking": text}
    return [(offset, {"role": role, "message": {"content": [block]}})] if text or kind == "tool_use" else []


# Cursor: the CLI's database -------------------------------------------------

def cursor_chat(path, connection):
    """[session] of a store.db; [] where a transcript of the same id tells it better, or nothing can be read."""
    name = Path(path).parent.name if UUID.fullmatch(Path(path).parent.name) else ""
    base = Path(path).parents[3] if name and len(Path(path).parents) > 3 else None
    if base and any(base.glob(f"projects/*/agent-transcripts/**/{name}.*")):
        return []
    facts = cursor_meta(connection)
    session = Session("cursor", "cursor", name or as_text(facts.get("agentId")) or Path(path).stem,
                      utc(facts.get("createdAt")) or utc(os.stat(path).st_mtime))
    session.title = as_text(facts.get("name")).strip() or None
    session.seen_at(utc(facts.get("createdAt")))
    transcript = Transcript(session, CURSOR_TOOLS)
    transcript.model, transcript.results = as_text(facts.get("lastUsedModel")) or None, deque()
    messages = cursor_messages(connection, as_text(facts.get("latestRootBlobId")))
    return only_if_any(session, transcript_events(transcript, messages, lambda named: cursor_line(transcript, *named)))


def cursor_chat_facts(store):
    """What a store.db adds to a transcript: its meta row, and `results`, (tool, function that reads it) in order."""
    try:
        with open_database(store) as connection:
            if connection is None:
                return {}
            facts, calls, places = cursor_meta(connection), [], {}
            for name, message in cursor_messages(connection, as_text(facts.get("latestRootBlobId"))):
                for block in claude_blocks(message):
                    call_id = as_text(block.get("toolCallId"))
                    if block.get("type") == "tool-call":
                        calls.append((as_text(block.get("toolName")), call_id))
                    elif block.get("type") == "tool-result":
                        places.setdefault(call_id, name)
    except OSError:
        return {}
    results = deque((tool_name, functools.partial(cursor_stored_result, store, places.get(call_id), call_id))
                    for tool_name, call_id in calls)
    return {**facts, "results": results}


def cursor_stored_result(store, name, call_id):
    """The result block of a call, from the message that holds it; None where it is not there."""
    try:
        with open_database(store) as connection:
            message = cursor_blob(connection, name)[1] if name and connection else {}
    except OSError:
        return None
    return next((block for block in claude_blocks(message) if block.get("toolCallId") == call_id
                 and block.get("type") == "tool-result"), None)


def cursor_meta(connection):
    """The meta row of a store.db: JSON, or its hexadecimal digits."""
    value = next((row["value"] for row in query(connection, "SELECT value FROM meta WHERE key = '0'")), None)
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else as_text(value)
    try:
        return as_dict(load_json(bytes.fromhex(text)))
    except ValueError:
        return as_dict(json_value(text))


def cursor_blob(connection, name):
    """(data, message) of a blob; the message is {} where it holds none.  Its JSON may stand between other bytes."""
    data = next((row["data"] for row in query(connection, "SELECT data FROM blobs WHERE id = ?", (name,))), None)
    data = data.encode("utf-8", "replace") if isinstance(data, str) else data or b""
    start = data.find(b'{"')
    message = as_dict(load_json(data[start:data.rfind(b"}") + 1])) if start >= 0 and b'"role"' in data else {}
    return data, message if "role" in message else {}


def cursor_messages(connection, root):
    """Yield (blob id, message) of what hangs on a root, in order: links are 32 bytes behind a field's two."""
    stack, seen = [root], set()
    while stack:
        name = stack.pop()
        if name in seen:
            continue
        seen.add(name)
        data, message = cursor_blob(connection, name)
        if message:
            yield name, message
        else:
            links = re.finditer(rb"[\x0a\x12]\x20(?=(.{32}))", data[:1 << 20], re.DOTALL)
            stack += reversed([link[1].hex() for link in links])
# ---------------------------------------------------------------------------
# Gemini CLI
#
# <home>/.gemini/tmp/<project>/chats/session-<time>-<id>.jsonl, seen from 0.40 to
# 0.61, and before that one JSON object, session-….json.  The lines are an operation
# log: a header, messages, {"$set": facts or all messages anew}, {"$rewindTo": id}.
# A message is written again, with the same id, when its tools have run.  A sub-agent
# has a file of its own, chats/<session>/<agent>.jsonl.
#
# So the file is read twice: first which messages there are and where, then those.
# To support a new tool add a line to GEMINI_TOOLS; a message type, to GEMINI_STEPS;
# a kind of content, to GEMINI_PARTS.
# ---------------------------------------------------------------------------

GEMINI_CONTEXT = ("<session_context>", "This is the Gemini CLI. We are setting up the context",
                  "This is the Qwen Code. We are setting up the context")
# How texts begin that the program says in the user's name, and what they are shown as.
GEMINI_INJECTED = {
    "<hook_context>": "hook",
    "You have stopped calling tools without finishing.": "notification",
    "System: Please continue.": "notification",
    "[System Notification]": "notification",
}
# What a slash command becomes before it is stored.
GEMINI_EXPANDED = {"You are an AI agent that brings the power of Gemini directly into the terminal.": "/init"}
GEMINI_FILES_MARK = "--- Content from referenced files ---"
GEMINI_TOOLS = tool_table(
    ShellCommand="run_shell_command", FileRead="read_file", FileCreate="write_file", FileEdit="replace edit",
    CodeSearch="search_file_content grep_search", FileSearch="glob list_directory",
    WebSearch="google_web_search web_search", WebFetch="web_fetch")


# Gemini: finding files ------------------------------------------------------

def gemini_roots(env, home):
    """<home>/.gemini/tmp on every system; GEMINI_CLI_HOME takes the place of the home folder."""
    return [Path(env.get("GEMINI_CLI_HOME") or home).expanduser() / ".gemini" / "tmp"]


def gemini_sources(root):
    """The sessions below a folder, or one file; a session that was copied to the newer format comes once."""
    return gemini_sources_if(root, gemini_recognise)


def gemini_sources_if(root, recognise):
    """The sources below a root whose head `recognise` takes; of two with one id the operation log, then the longer."""
    root = os.fspath(root)
    paths = [root] if os.path.isfile(root) else [entry.path for entry in walk(root) if gemini_is_chat(entry.path)]
    best = {}
    for path in paths:
        key = gemini_key(recognise, path, min(file_size(path), HEAD_SIZE))
        if key:
            rank = (path.endswith(".jsonl"), file_size(path), path)
            best[key] = max(best.get(key, (rank, path)), (rank, path))
    return [Source(key, (path,)) for key, (_, path) in sorted(best.items())]


def gemini_is_chat(path):
    """Whether a file may be a session by its name, or by the folder that it lies in."""
    *folders, name = path.replace("\\", "/").split("/")
    placed = name.startswith("session-") or "chats" in folders[-2:] or ".gemini" not in folders
    return placed and name.endswith((".json", ".jsonl"))


@lru_cache(maxsize=1 << 16)
def gemini_key(recognise, path, _size):
    """The session id in the head of a file, else its path; None of files that are no sessions.
    It is looked for again only as long as the file is small."""
    head = read_head(path)
    found = re.search(rb'"sessionId"\s*:\s*"([^"\\]{1,200})"', head)
    return (found[1].decode("utf-8", "replace") if found else path) if recognise(head, path) else None


def gemini_recognise(head, path):
    """Whether the head of a file is a session of Gemini CLI.  Qwen Code's old ones look the same, but lie elsewhere."""
    return ".qwen" not in Path(path).parts and gemini_looks_like(head)


def gemini_looks_like(head):
    """Whether bytes begin like a session in one of the two forms."""
    if b"\n" in head.strip() and not head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"{\n", b"{\r")):
        records = [load_json(line) for line in head.split(b"\n", 12)[:12]]
    else:
        records = [load_json(head)]
    if any(gemini_is_record(record) for record in records if isinstance(record, dict)):
        return True
    # What is longer than the head cannot be parsed.
    return head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{") and all(
        key in head for key in (b'"sessionId"', b'"projectHash"'))


def gemini_is_record(record):
    """Whether a record is a header, an operation or a message of the model's."""
    return ({"sessionId", "projectHash"} <= record.keys() or {"sessionId", "startTime", "messages"} <= record.keys()
            or isinstance(record.get("$set"), dict) or "$rewindTo" in record
            or record.get("type") == "gemini" and "content" in record)


# Gemini: which messages there are -------------------------------------------

class GeminiLog:
    """What the operations of a session's file come to.

    A place is (offset, None) of a line with one message, or (offset, number) of a
    message in the list that is at that offset."""

    def __init__(self):
        self.facts = {}             # of headers and $set
        self.started = None         # the first of the headers' start times
        self.updated = None
        self.order = {}             # id of each message that there is -> None
        self.lines = {}             # id -> places of its own lines
        self.listed = {}            # id -> its place in the latest list
        self.lists = {}             # offset -> the messages listed there: the latest list alone
        self.bad_lines = 0


def gemini_read_log(path):
    """Take in what a file says of its session, and where its messages are."""
    log = GeminiLog()
    if path.endswith(".json"):
        parts = list(json_parts(path, log, ("messages",), "type"))
        gemini_facts(log, {key: value for key, value in parts if key != "messages"})
        gemini_list(log, 0, [value for key, value in parts if key == "messages"])
        return log
    for offset, line in read_lines(path):
        name = gemini_plain_id(line or b"")
        if name:
            gemini_add_line(log, name, offset)
        elif line and line.strip(b"\0 \t\r\n"):
            record = load_json(line)
            if isinstance(record, dict):
                gemini_operation(log, offset, record)
            elif line.endswith(b"\n"):
                log.bad_lines += record is None
        else:
            log.bad_lines += line is None
    return log


def gemini_plain_id(line):
    """The id of a line that is a message, without decoding the line; "" of others."""
    end = line.find(b'"', 7, 200) if line.startswith(b'{"id":"') else -1
    name = line[7:max(end, 7)]
    return "" if b"\\" in name or b"\0" in name or not line.endswith(b"\n") else name.decode("utf-8", "replace")


def gemini_operation(log, offset, record):
    """Do what a record says: a header, an operation or a message."""
    patch = as_dict(record.get("$set"))
    if "$rewindTo" in record:
        ids = list(log.order)
        place = ids.index(record["$rewindTo"]) if record["$rewindTo"] in ids else 0
        log.order = dict.fromkeys(ids[:place])
    elif patch:
        gemini_facts(log, patch)
        gemini_list(log, offset, patch.get("messages"))
    elif "sessionId" in record and "content" not in record:
        gemini_facts(log, record)
    else:
        gemini_add_line(log, as_text(record.get("id")) or f"@{offset}", offset)


def gemini_facts(log, facts):
    """Keep what a header or a patch says; a resumed session has a second header."""
    log.facts.update({key: facts[key] for key in ("sessionId", "projectHash", "kind", "summary", "directories")
                      if facts.get(key)})
    started, updated = utc(facts.get("startTime")), utc(facts.get("lastUpdated"))
    log.started = min(filter(None, (log.started, started)), default=None)
    log.updated = max(filter(None, (log.updated, updated)), default=None)


def gemini_add_line(log, name, offset):
    log.order.setdefault(name)
    log.lines.setdefault(name, []).append((offset, None))


def gemini_list(log, offset, messages):
    """A list says which messages there are, in which order; what a line said of one stays true."""
    if not isinstance(messages, list):
        return
    log.lists, log.order, log.listed = {offset: messages}, {}, {}
    for number, message in enumerate(messages):
        name = as_text(as_dict(message).get("id")) or f"@{offset}.{number}"
        log.order.setdefault(name)
        log.listed[name] = offset, number


def gemini_messages(log, path):
    """Yield (id, message, [each of its records]) of all messages that there are."""
    with open_regular(path) as file:
        for name in log.order:
            places = log.lines.get(name) or [log.listed[name]]
            records = [record for record in (gemini_at(log, file, place) for place in places) if record]
            if records:
                yield name, gemini_merge(records), records


def gemini_at(log, file, place):
    """The record at a place, {} where it is damaged."""
    offset, number = place
    if number is not None:
        return as_dict(log.lists[offset][number])
    file.seek(offset)
    record = load_json(file.readline(MAX_LINE))
    log.bad_lines += record is None
    return as_dict(record)


def gemini_merge(records):
    """One message of all its records: the last word counts, but saying nothing takes nothing back."""
    message = {}
    for record in records:
        message.update({key: value for key, value in record.items() if value not in (None, "", [], {})})
    return message


# Gemini: one session --------------------------------------------------------

@tool("gemini", "Gemini CLI", roots=gemini_roots, sources=gemini_sources, recognise=gemini_recognise,
      where="~/.gemini/tmp, or GEMINI_CLI_HOME", seen="0.40 to 0.61, JSON files before")
def parse_gemini(source):
    """One file is one session; a sub-agent's file is a session that names its parent."""
    yield from gemini_sessions(source, "gemini", "google")


def gemini_sessions(source, tool_name, provider):
    """The session of a file in Gemini's form, [] where it shows nothing."""
    path = os.fspath(source.path)
    with open_regular(path) as file:
        if not gemini_looks_like(file.read(HEAD_SIZE)):
            return []
    log = gemini_read_log(path)
    named = as_text(log.facts.get("sessionId"))
    if not named and not path.endswith(".jsonl"):
        return []
    session = Session(tool_name, provider, named or Path(path).stem, log.started or utc(os.stat(path).st_mtime))
    session.attributes.update(gemini_lineage(path, session.session_id, log.facts))
    transcript = Transcript(session, GEMINI_TOOLS)
    return only_if_any(session, gemini_events(path, log, transcript))


def gemini_events(path, log, transcript):
    """The events of a session, then its header facts."""
    session = transcript.session
    for at in (log.started, log.updated):
        session.seen_at(at)
    yield from transcript_events(transcript, gemini_messages(log, path),
                                 lambda message: gemini_message(transcript, *message))
    session.bad_lines += log.bad_lines
    session.title = as_text(log.facts.get("summary")).strip() or None
    cwd = gemini_folder(path, log.facts) or session.attributes.get("cwd")
    if cwd:
        session.attributes["cwd"] = cwd


def gemini_lineage(path, session_id, facts):
    """Whose sub-agent a session is, by the folder that its file lies in."""
    folder = Path(path).parent
    parent = folder.name if folder.parent.name == "chats" and folder.name != session_id else ""
    if facts.get("kind") != "subagent" and not parent:
        return {}
    return {"session_role": "auxiliary", **({"parent_session_id": parent} if parent else {})}


def gemini_folder(path, facts):
    """Where the work was done: what lies beside the chats tells, else the list of all projects, else the header."""
    base = next((folder.parent for folder in Path(path).parents if folder.name == "chats"), None)
    if base:
        named = read_head(base / ".project_root").decode("utf-8", "replace").strip()
        projects = base.parent.parent / "projects.json"
        known = as_dict(as_dict(load_json(read_head(projects, 1 << 22))).get("projects"))
        wanted = (base.name, facts.get("projectHash"))
        found = next((folder for folder, slug in known.items()
                      if slug in wanted or sha256(folder.encode("utf-8", "replace")).hexdigest() in wanted), "")
        if named or found:
            return clean_text(named) or found
    return next((folder for folder in as_list(facts.get("directories")) if as_text(folder)), None)


# Gemini: messages -----------------------------------------------------------

def gemini_message(transcript, name, message, records):
    """Show one message.  Its usage counts once, however often it was written."""
    kind = as_text(message.get("type")) or as_text(message.get("role"))
    step, at = GEMINI_STEPS.get(kind), utc(message.get("timestamp"))
    if step:
        step(transcript, name, at, message, records)
    elif kind not in GEMINI_SILENT:
        transcript.session.unknown_record(kind or "message", name, at, message)


def gemini_user(transcript, name, at, message, records):
    """What a person said: what they saw of it, where that is stored too."""
    parts = gemini_parts(message.get("content", message.get("parts")))
    seen = gemini_parts(message.get("displayContent"))
    texts = [text for text in map(gemini_text, seen or parts) if text]
    blocks = [block for part in parts for block in gemini_block(transcript, part)]
    for number, part in enumerate(parts):
        if "functionResponse" in part:
            gemini_response(transcript, f"{name}-{number}", at, part)
    if seen and not texts:      # the person saw no text, so they typed none
        transcript_notice(transcript, name, at, "\n".join(map(gemini_text, parts)), "notification")
        return
    gemini_prompt(transcript, name, at, texts, blocks)


def gemini_prompt(transcript, name, at, texts, blocks=()):
    """A prompt of these texts, without what the program put among them."""
    said = []
    for number, text in enumerate(texts):
        kind = next((kind for start, kind in GEMINI_INJECTED.items() if text.lstrip().startswith(start)), None)
        if text.lstrip().startswith(GEMINI_CONTEXT):
            gemini_context(transcript.session, text)
        elif kind:
            transcript_notice(transcript, f"{name}-{number}", at, text, kind)
        elif GEMINI_FILES_MARK in text:
            said.append(text.partition(GEMINI_FILES_MARK)[0])
            break
        else:
            said.append(text)
    text = gemini_without_hooks("".join(said)).strip()
    command = next((command for start, command in GEMINI_EXPANDED.items() if text.startswith(start)), None)
    if text or blocks:
        transcript_prompt(transcript, name, at, [text_block(command or text)] * bool(text) + list(blocks))
    if command:
        transcript_notice(transcript, f"{name}-command", at, text, "command")


def gemini_without_hooks(text):
    """A text without the well-formed block that hooks append to it."""
    start = text.rfind("<hook_context>")
    return text[:start].rstrip() if start > 0 and text.rstrip().endswith("</hook_context>") else text


def gemini_context(session, text):
    """Learn the folder from the description of the machine that the program sends first."""
    found = re.search(r"Workspace Directories:\*{0,2}\s*\n\s*- ([^\n]{1,1000})", text) or re.search(
        r"[Ww]orking (?:in the |directory)(?:directory)?: ([^\n]{1,1000})", text)
    if found:
        session.attributes.setdefault("cwd", found[1].strip())


def gemini_model(transcript, name, at, message, records):
    """An answer of the model: thoughts, text, calls with their results, usage."""
    transcript_close(transcript)
    transcript.model = as_text(message.get("model")) or transcript.model
    for number, thought in enumerate(as_list(message.get("thoughts"))):
        text = gemini_thought(as_dict(thought))
        if text:
            transcript_say(transcript, "Thinking", f"{name}-thinking-{number}", at, [text_block(text)])
    calls = [as_dict(call) for call in as_list(message.get("toolCalls"))]
    transcript.told = {call.get("id") for call in calls if as_text(call.get("id"))}
    gemini_spoken(transcript, name, at, gemini_parts(message.get("content", message.get("parts"))))
    for number, call in enumerate(calls):
        gemini_tool_call(transcript, as_text(call.get("id")) or f"{name}-call-{number}", at, call)
    counts = [gemini_counts(record.get("tokens")) for record in records]
    gemini_count(transcript, list(filter(None, counts)))
    transcript_close(transcript)


def gemini_thought(thought):
    """A thought as "**subject** description"."""
    subject, description = as_text(thought.get("subject")), as_text(thought.get("description"))
    return f"**{subject}** {description}".strip() if subject else description.strip()


def gemini_spoken(transcript, name, at, parts):
    """Show the parts of an answer; neighbouring texts are one reply."""
    texts, blocks = [], []
    for number, part in enumerate(parts):
        text = gemini_text(part)
        if part.get("thought") is True and text.strip():
            transcript_say(transcript, "Thinking", f"{name}-part-{number}", at, [text_block(text)])
        elif "functionCall" in part:
            gemini_reply(transcript, name, at, texts, blocks)
            texts, blocks = [], []
            call = as_dict(part["functionCall"])
            if as_text(call.get("id")) not in transcript.told:
                gemini_call(transcript, as_text(call.get("id")) or f"{name}-call-{number}", at, call)
        elif "functionResponse" in part:
            gemini_response(transcript, f"{name}-{number}", at, part)
        else:
            texts.append(text)
            blocks += gemini_block(transcript, part)
    gemini_reply(transcript, name, at, texts, blocks)


def gemini_reply(transcript, name, at, texts, blocks):
    text = "".join(texts)
    if text.strip() or blocks:
        transcript_say(transcript, "AgentMessage", name, at, [text_block(text)] * bool(text.strip()) + blocks)


def gemini_counts(tokens):
    """Token counts of a message; thoughts are not in its output, cached input is in its input."""
    tokens = as_dict(tokens)
    counts = {name: whole(tokens.get(name)) for name in ("input", "output", "cached", "thoughts", "tool")}
    return any(counts.values()) and {
        "input": counts["input"] + counts["tool"], "output": counts["output"] + counts["thoughts"],
        "cache_read": min(counts["cached"], counts["input"]), "reasoning": counts["thoughts"]}


def gemini_count(transcript, counts):
    """Count the last of the usages that the records of one message give."""
    usage = transcript.usage
    for repeated in counts[:-1]:
        usage["raw_input"] += repeated["input"]
        usage["raw_output"] += repeated["output"]
        usage["duplicates_removed"] += 1
    for once in counts[-1:]:
        transcript_usage(transcript, once, transcript.model)


def gemini_error(transcript, name, at, message, records):
    transcript_notice(transcript, name, at, gemini_joined(message), "api_error", error=True)


def gemini_warning(transcript, name, at, message, records):
    transcript_notice(transcript, name, at, gemini_joined(message), "notice")


def gemini_info(transcript, name, at, message, records):
    """Of what the program tells in passing only that the person stopped it is worth showing."""
    if gemini_joined(message).startswith("Request cancelled"):
        transcript.session.event("Custom", name, at, [text_block(gemini_joined(message))], kind="interrupt")


# Gemini: parts of content ---------------------------------------------------

def gemini_parts(content):
    """Content as a list of parts, whatever form it has."""
    content = content if isinstance(content, list) else [content]
    return [{"text": part} if isinstance(part, str) else part for part in content if isinstance(part, (str, dict))]


def gemini_text(part):
    return as_text(part.get("text"))


def gemini_joined(message):
    return "".join(map(gemini_text, gemini_parts(message.get("content")))).strip()


def gemini_block(transcript, part):
    """[block] of a part that is no text, call or result; [] of those."""
    key = next((key for key in part if key not in GEMINI_PLAIN_PARTS), None)
    if key is None:
        return []
    if key in GEMINI_PARTS:
        return GEMINI_PARTS[key](as_dict(part[key]))
    count_unknown(transcript.session, f"part {key}")
    return [json_block(part)]


def gemini_inline(data):
    media, content = as_text(data.get("mimeType")), as_text(data.get("data"))
    if media.startswith("image/") and content:
        return [image_block(media, content)]
    return [text_block(f"[{media or 'data'}]")]


def gemini_file(data):
    uri, media = as_text(data.get("fileUri")), as_text(data.get("mimeType"))
    return [{"type": "Reference", "uri": uri, "media_type": media or "application/octet-stream"}] if uri else []


GEMINI_PLAIN_PARTS = ("text", "thought", "thoughtSignature", "functionCall", "functionResponse", "videoMetadata")
GEMINI_PARTS = {
    "inlineData": gemini_inline,
    "fileData": gemini_file,
    "executableCode": lambda data: [code_block(as_text(data.get("code")), as_text(data.get("language")).lower())],
    "codeExecutionResult": lambda data: [code_block(as_text(data.get("output")))],
}


# Gemini: calls and results --------------------------------------------------

def gemini_tool_call(transcript, call_id, at, call):
    """A call as Gemini CLI keeps it, with its result."""
    event = gemini_call(transcript, call_id, at, call)
    agent = as_text(call.get("agentId"))
    if event and agent:
        event["attributes"]["child_session_id"] = agent
        add_new(transcript.session.related, agent)
    if event and (call.get("result") is not None or call.get("status") in ("success", "error", "cancelled")):
        gemini_result(transcript, call_id, utc(call.get("timestamp")) or at, gemini_parts(call.get("result")),
                      call.get("resultDisplay"), call.get("status") in ("error", "cancelled"))


def gemini_call(transcript, call_id, at, call):
    """Show a call; None of one that has no name, or that was shown before."""
    name, given = as_text(call.get("name")), call.get("args")
    if not name:
        return None
    if name == "web_fetch" and not first_of(given, ("url",)):
        address = re.search(r"https?://[^\s\"'<>]+", as_text(as_dict(given).get("prompt"))[:10000])
        given = {**given, "url": address[0]} if address else given
    return transcript_call(transcript, call_id, at, name, given)


def gemini_response(transcript, event_id, at, part):
    """A result among the parts of a message; mostly the call's own record has it already."""
    response = as_dict(part.get("functionResponse"))
    call_id = as_text(response.get("id"))
    if call_id not in transcript.names or call_id in transcript.calls:
        transcript.names.setdefault(call_id, as_text(response.get("name")) or "unknown")
        gemini_result(transcript, call_id, at, [part])


def gemini_result(transcript, call_id, at, parts, display=None, failed=False):
    """Show the result of a call: `display` is what the person saw of it."""
    name = transcript.names.get(call_id, "unknown")
    response = next((as_dict(part["functionResponse"].get("response")) for part in parts
                     if isinstance(part.get("functionResponse"), dict)), {})
    error, output = as_text(response.get("error")), as_text(response.get("output"))
    text = gemini_unwrapped(error or output) or "".join(map(gemini_text, parts))
    exit_code = None
    if name == "run_shell_command":
        exit_code = gemini_exit_code(text)
        text = display if as_text(display).strip() and not error else text.removeprefix("Output: ")
    blocks = gemini_result_blocks(transcript, call_id, text, name, bool(failed or error))
    blocks += [block for part in parts for block in gemini_block(transcript, part)]
    blocks += [json_block(response)] * (not text and bool(response.keys() - {"output", "error"}))
    transcript_result(transcript, call_id, at, blocks, failed=bool(failed or error), exit_code=exit_code,
                      diff=gemini_diff(display))


def gemini_result_blocks(transcript, call_id, text, name, failed):
    """A result's text, as code where it is a file or what a command printed."""
    if not text.strip():
        return []
    kind, data = event_kind(transcript.calls[call_id][0][0]) if call_id in transcript.calls else (name, {})
    if failed or kind not in ("FileRead", "ShellCommand", "CodeSearch", "FileSearch"):
        return [text_block(text)]
    return [code_block(text, language_of(data["path"]) if kind == "FileRead" else None)]


def gemini_unwrapped(text):
    """A tool's output without the tag that warns the model of it."""
    text = text.strip("\n")
    if text.startswith("<untrusted_context>") and text.endswith("</untrusted_context>"):
        return text.removeprefix("<untrusted_context>").removesuffix("</untrusted_context>").strip("\n")
    return text


def gemini_exit_code(text):
    """The exit code in the report on a command, which later versions only give where it is not 0; else None."""
    ends = text[-2000:]
    found = re.search(r"(?:^|\\n)Exit Code: (-?\d{1,9})(?=$|\\n)", ends, re.MULTILINE)
    if found:
        return int(found[1])
    finished = text.startswith("Output: ") and not re.search(r"^(?:Signal|Error): ", ends, re.MULTILINE)
    return 0 if finished else None


def gemini_diff(display):
    """The diff of a file that was changed; None of a new file, or where the tool shows none."""
    display = as_dict(display)
    diff = as_text(display.get("fileDiff"))
    start = diff.find("--- ")
    if start < 0 or display.get("isNewFile") is True or not as_text(display.get("originalContent")):
        return None
    return "".join(line.split("\t")[0] + "\n" if line.startswith(("--- ", "+++ ")) else line
                   for line in diff[start:].splitlines(True)).rstrip("\n")


GEMINI_STEPS = {
    "user": gemini_user,
    "gemini": gemini_model,
    "model": gemini_model,
    "assistant": gemini_model,
    "error": gemini_error,
    "warning": gemini_warning,
    "info": gemini_info,
}
GEMINI_SILENT = ("about", "help", "stats", "quit", "compression")
# ---------------------------------------------------------------------------
# Antigravity: editor and CLI
#
# ~/.gemini/antigravity[-cli|-ide]/brain/<session>/.system_generated/logs/
# transcript_full.jsonl, or transcript.jsonl, whose arguments are JSON within JSON.  One
# step a line; what a tool answered is a step behind the one that called it.  No usage.
#
# To support a new tool add it to ANTIGRAVITY_TOOLS; a kind of step, to ANTIGRAVITY_STEPS.
# ---------------------------------------------------------------------------

ANTIGRAVITY_FILES = ("transcript_full.jsonl", "transcript.jsonl")
ANTIGRAVITY_TOOLS = {
    "run_command": ("ShellCommand", "command", ("CommandLine",)),
    "view_file": ("FileRead", "path", ("AbsolutePath", "File")),
    "write_to_file": ("FileCreate", "path", ("TargetFile",)),
    **dict.fromkeys(("replace_file_content", "multi_replace_file_content"), ("FileEdit", "path", ("TargetFile",))),
    "grep_search": ("CodeSearch", "query", ("Query",)),
    "find_by_name": ("FileSearch", "pattern", ("Pattern",)),
    "list_dir": ("FileSearch", "pattern", ("DirectoryPath",)),
    "search_web": ("WebSearch", "query", ("query", "Query")),
    "read_url_content": ("WebFetch", "url", ("Url",)),
}
# Its names for what other tools call content and the texts of an edit.
ANTIGRAVITY_KEYS = {"CodeContent": "content", "TargetContent": "old_string", "ReplacementContent": "new_string",
                    "ReplacementChunks": "edits"}


def antigravity_roots(env, home):
    """The folders of the editor's and the CLI's sessions, the same on every system."""
    base = Path(env.get("GEMINI_CLI_HOME") or home).expanduser() / ".gemini"
    return [base / name / "brain" for name in ("antigravity", "antigravity-cli", "antigravity-ide")]


def antigravity_sources(root):
    """The transcripts below a folder, or one file; the full one where both lie there."""
    root = os.fspath(root)
    paths = [root] if os.path.isfile(root) else [entry.path for entry in walk(root) if entry.name in ANTIGRAVITY_FILES]
    best = {}
    for path in paths:
        key = antigravity_id(path)
        best[key] = max(best.get(key, ""), path, key=lambda name: (name.endswith(ANTIGRAVITY_FILES[0]), name))
    return [Source(key, (path,)) for key, path in sorted(best.items())]


def antigravity_id(path):
    """The name of the folder that a session's files lie in; of other files their path."""
    parts = Path(path).parts
    return parts[parts.index(".system_generated") - 1] if ".system_generated" in parts[1:] else path


def antigravity_recognise(head, path):
    """Whether the head of an unknown file is a transcript of Antigravity's."""
    records = (load_json(line) for line in head.split(b"\n", 10)[:10])
    return any({"step_index", "source", "type"} <= record.keys() for record in records if isinstance(record, dict))


@tool("antigravity", "Antigravity", roots=antigravity_roots, sources=antigravity_sources,
      recognise=antigravity_recognise,
      where="~/.gemini/antigravity*/brain, or GEMINI_CLI_HOME", seen="transcripts of 2026")
def parse_antigravity(source):
    """One transcript is one session."""
    path = os.fspath(source.path)
    with open_regular(path) as file:
        if not antigravity_recognise(file.read(HEAD_SIZE), path):
            return
    name = antigravity_id(path)
    session = Session("antigravity", "google", Path(name).stem, utc(os.stat(path).st_mtime))
    transcript = Transcript(session, ANTIGRAVITY_TOOLS)
    transcript.steps, transcript.nested = set(), Path(path).name == "transcript.jsonl"
    records = (record for _, record in read_records(path, session))
    yield from only_if_any(session, transcript_events(transcript, records,
                                                      lambda record: antigravity_step(transcript, record)))


def antigravity_step(transcript, record):
    """Show one step; one that comes again, as it does while it runs, adds no second event."""
    kind, at, index = as_text(record.get("type")), utc(record.get("created_at")), str(record.get("step_index"))
    transcript.session.seen_at(at)
    name, text = f"step-{index}", as_text(record.get("content"))
    if (index, kind) in transcript.steps or not (text or record.get("tool_calls") or record.get("thinking")):
        return
    transcript.steps.add((index, kind))
    if kind in ANTIGRAVITY_STEPS:
        step = ANTIGRAVITY_STEPS[kind]
    elif transcript.calls:
        step = antigravity_result
    else:
        step = antigravity_notice if record.get("source") == "SYSTEM" else antigravity_unknown
    if step:
        step(transcript, name, at, record, text)


def antigravity_user(transcript, name, at, record, text):
    """A prompt without what Antigravity puts round it; a change of settings tells the model."""
    chosen = re.search(r"Model Selection`? (?:from .{1,80}? )?to `?([^`\n<]{1,80}?)`?(?:\. |\.?$|\.?\n|<)", text)
    transcript.model = chosen[1].strip() if chosen and chosen[1].strip() != "None" else transcript.model
    inside = text.partition("<USER_REQUEST>")[2].partition("</USER_REQUEST>")[0].strip()
    said = inside or ("" if "<USER_REQUEST>" in text else re.sub(
        r"<(ADDITIONAL_METADATA|USER_SETTINGS_CHANGE|EPHEMERAL_MESSAGE)>.*?</\1>", "", text, flags=re.DOTALL).strip())
    for call_id in list(transcript.calls):
        transcript_settle(transcript, call_id)
    if said:
        transcript_prompt(transcript, name, at, [text_block(said)])


def antigravity_answer(transcript, name, at, record, text):
    """An answer of the model: thinking, text and calls."""
    transcript_close(transcript)
    thought = as_text(record.get("thinking"))
    if thought.strip():
        transcript_say(transcript, "Thinking", f"{name}-thinking", at, [text_block(thought)])
    if text.strip():
        transcript_say(transcript, "AgentMessage", name, at, [text_block(text)])
    for number, call in enumerate(map(as_dict, as_list(record.get("tool_calls")))):
        call = as_dict(call.get("function")) or call
        tool_name = as_text(call.get("name")).removeprefix("default_api:") or "unknown"
        given = antigravity_arguments(call.get("args", call.get("arguments")), transcript.nested)
        event = transcript_call(transcript, as_text(call.get("id")) or f"{name}-call-{number}", at, tool_name, given)
        cwd = as_text(as_dict(given).get("Cwd"))
        if event and cwd:
            event["attributes"]["cwd"] = cwd
            transcript.session.attributes.setdefault("cwd", cwd)


def antigravity_arguments(given, nested):
    """The arguments of a call, under the names that other tools use for content and edits."""
    given = json_value(given) if isinstance(given, str) and given[:1] == "{" else given
    if isinstance(given, list):
        return [antigravity_arguments(item, nested) for item in given]
    if not isinstance(given, dict):
        return given
    named = {ANTIGRAVITY_KEYS.get(key, key): value for key, value in given.items()}
    for key, value in named.items():
        inner = json_value(value) if nested and isinstance(value, str) else None
        value = value if inner is None else inner
        named[key] = antigravity_arguments(value, False) if key == "edits" else value
    return named


def antigravity_result(transcript, name, at, record, text):
    """What a tool answered, which belongs to the first call that waits."""
    call_id = next(iter(transcript.calls), name)
    kind, data = event_kind(transcript.calls[call_id][0][0]) if call_id in transcript.calls else ("", {})
    failed = as_text(record.get("status")).upper() in ("ERROR", "FAILED", "CANCELED", "CANCELLED")
    code = re.search(r"(?:exit code:? |failed with exit code )(-?\d{1,9})", text[:2000], re.IGNORECASE)
    code = code and kind == "ShellCommand" and int(code[1])
    shown = code_block(text, language_of(data["path"])) if kind == "FileRead" else (
        code_block(text) if kind in ("ShellCommand", "CodeSearch", "FileSearch") else text_block(text))
    transcript_result(transcript, call_id, at, [shown] if text.strip() else [], failed=failed,
                      exit_code=code if type(code) is int else None)


def antigravity_notice(transcript, name, at, record, text):
    transcript_notice(transcript, name, at, text, "notice")


def antigravity_problem(transcript, name, at, record, text):
    transcript_notice(transcript, name, at, text, "api_error", error=True)


def antigravity_checkpoint(transcript, name, at, record, text):
    transcript.session.event("Custom", name, at, [text_block(text)] * bool(text), kind="compaction")


def antigravity_unknown(transcript, name, at, record, text):
    transcript.session.unknown_record(record.get("type"), name, at, record)


ANTIGRAVITY_STEPS = {
    "USER_INPUT": antigravity_user,
    "PLANNER_RESPONSE": antigravity_answer,
    "GENERATE_RESPONSE": antigravity_answer,
    "CHECKPOINT": antigravity_checkpoint,
    "ERROR_MESSAGE": antigravity_problem,
    **dict.fromkeys(("EPHEMERAL_MESSAGE", "CONVERSATION_HISTORY", "KNOWLEDGE_ARTIFACTS", "SYSTEM_MESSAGE")),
}
# ---------------------------------------------------------------------------
# Qwen Code
#
# <config>/projects/<project folder>/chats/<session>.jsonl and chats/archive, seen from
# 0.15 to 0.21: records that name their parent, with parts as Gemini has them.  Going
# back starts a new branch, so only the chain that ends in the last record is shown.
# Older versions wrote Gemini CLI's files below <config>/tmp.
#
# To support a new kind of system record, add a line to QWEN_SYSTEM.
# ---------------------------------------------------------------------------

QWEN_HEAD = re.compile(rb'^\{"uuid":\s*"([^"\\]{1,200})",\s*"parentUuid":\s*(?:null|"([^"\\]{1,200})")')
# Records that hang on the chain but never carry it on.
QWEN_ASIDE = (b'"subtype":"session_artifact_snapshot"', b'"subtype": "session_artifact_snapshot"')
QWEN_INJECTED = ("notification", "mid_turn_user_message", "cron", "goal_runtime")


def qwen_roots(env, home):
    """The sessions below QWEN_RUNTIME_DIR, QWEN_HOME or ~/.qwen, and those of old below tmp."""
    bases = [Path(env[name]).expanduser() for name in ("QWEN_RUNTIME_DIR", "QWEN_HOME") if env.get(name)]
    bases = bases or [Path(home) / ".qwen"]
    return [base / folder for base in bases for folder in ("projects", "tmp")]


def qwen_sources(root):
    """The sessions below a folder, or one file; of a session that was archived too, the live file."""
    root = os.fspath(root)
    if not os.path.isfile(root):
        chats = {}
        for entry in walk(root):
            if qwen_is_chat(entry.path):
                rank, key = ("archive" in Path(entry.path).parts, entry.path), qwen_id(entry.path)
                chats[key] = min(chats.get(key, (rank, entry.path)), (rank, entry.path))
        yield from (Source(key, (path,)) for key, (_, path) in sorted(chats.items()))
    elif root.endswith(".jsonl"):
        yield Source(qwen_id(root), (root,))
        return
    yield from gemini_sources_if(root, qwen_is_old)


def qwen_is_chat(path):
    """Whether a file is a session: below Qwen's own folder by its place, and everywhere by what it holds."""
    place = re.search(r"/chats/(?:archive/)?[^/]+\.jsonl$" if ".qwen" in Path(path).parts else r"\.jsonl$",
                      path.replace("\\", "/"))
    return bool(place) and qwen_recognise(read_head(path), path)


def qwen_id(path):
    """The name of a session's file, which is its id; other names are not unique, so the path is."""
    stem = Path(path).stem
    return stem if qwen_is_id(stem) else path


def qwen_is_id(text):
    return bool(UUID.fullmatch(text) or re.fullmatch(r"[0-9a-fA-F]{32}", text))


def qwen_recognise(head, path):
    """Whether the head of an unknown file is a session of Qwen Code."""
    if qwen_is_old(head, path):
        return True
    records = (record for line in head.split(b"\n", 20)[:20] for record in qwen_records(line))
    return any(qwen_is_record(record) for record in records) or (
        b"\n" not in head and bool(QWEN_HEAD.match(head)) and b'"parts"' in head and b'"role":"user"' in head)


def qwen_is_old(head, path):
    """Whether the head of a file is a session as the first versions wrote it: Gemini CLI's, below Qwen's folder."""
    return ".qwen" in Path(path).parts and path.endswith(".json") and gemini_looks_like(head)


def qwen_is_record(record):
    """Whether a record has Claude's envelope round Gemini's parts, or is one of Qwen's own."""
    if not {"uuid", "sessionId", "type"} <= record.keys():
        return False
    return isinstance(as_dict(record.get("message")).get("parts"), list) or (
        record["type"] == "system" and "systemPayload" in record and "subtype" in record)


def qwen_records(line):
    """The objects on a line; two may be glued together, and what follows damage is lost."""
    record = load_json(line)
    if record is not None:
        return [record] if isinstance(record, dict) else []
    text, place, found = line.decode("utf-8-sig", "replace").strip("\0 \t\r\n"), 0, []
    while place < len(text):
        try:
            record, place = JSON_DECODER.raw_decode(text, place)
        except (ValueError, RecursionError):
            break
        if isinstance(record, dict):
            found.append(clean_value(record))
    return found


# Qwen Code: the chain -------------------------------------------------------

class QwenLook:
    """What a first pass tells: who follows whom, and whether the file is what its name says."""

    def __init__(self):
        self.parents = {}           # uuid -> uuid of the parent, None of the first, "" where it is lost
        self.before = {}            # uuid -> uuid of the record before it in the file
        self.last = None            # uuid that the chain ends in
        self.ids = set()            # session ids, a few


def qwen_look(path):
    """Read a file once for its chain, mostly without decoding."""
    look = QwenLook()
    for _, line in read_lines(path):
        found = QWEN_HEAD.match(line or b"")
        if found and b'}{"uuid"' not in line and len(look.ids) > 0:
            names = [name and name.decode("utf-8", "replace") for name in found.groups()]
            qwen_link(look, *names, aside=any(mark in line[:2000] for mark in QWEN_ASIDE))
            continue
        for record in qwen_records(line or b""):
            uuid, parent = as_text(record.get("uuid")), record.get("parentUuid", "")
            if as_text(record.get("sessionId")):
                look.ids.add(record["sessionId"])
            if uuid:
                qwen_link(look, uuid, parent if parent is None else as_text(parent),
                          record.get("subtype") == "session_artifact_snapshot")
    return look


def qwen_link(look, uuid, parent, aside):
    """Note a record.  A uuid that comes again is another piece of the same record."""
    if uuid not in look.parents:
        look.parents[uuid] = parent
        look.before[uuid] = look.last
    if not aside:
        look.last = uuid


def qwen_chain(look):
    """The uuids from the last record up; where a parent is lost, the record before stands for it."""
    chain, uuid = set(), look.last
    while uuid is not None and uuid not in chain:
        chain.add(uuid)
        parent = look.parents[uuid]
        uuid = look.before[uuid] if parent is not None and parent not in look.parents else parent
    return chain


# Qwen Code: one session -----------------------------------------------------

@tool("qwen", "Qwen Code", roots=qwen_roots, sources=qwen_sources, recognise=qwen_recognise,
      where="~/.qwen/projects, ~/.qwen/tmp, or QWEN_RUNTIME_DIR, QWEN_HOME", seen="0.15 to 0.21, JSON files before")
def parse_qwen(source):
    """One file is one session; one whose records belong to another session than its name says is none."""
    path = os.fspath(source.path)
    if path.endswith(".json"):
        yield from gemini_sessions(source, "qwen", "alibaba")
        return
    with open_regular(path) as file:
        if not qwen_recognise(file.read(HEAD_SIZE), path):
            return
    look, stem = qwen_look(path), Path(path).stem
    if qwen_is_id(stem) and look.ids and stem.replace("-", "") not in {name.replace("-", "") for name in look.ids}:
        return
    session = Session("qwen", "alibaba", stem if qwen_is_id(stem) else min(look.ids, default=stem),
                      utc(os.stat(path).st_mtime))
    transcript = Transcript(session, GEMINI_TOOLS)
    transcript.counted = {}         # uuid -> usage of a record that may come in several pieces
    yield from only_if_any(session, qwen_events(path, qwen_chain(look), transcript))


def qwen_events(path, chain, transcript):
    """The events of the chain, in the order of the file."""
    yield from transcript_events(transcript, qwen_chained(path, chain, transcript.session),
                                 lambda numbered: qwen_record(transcript, *numbered))


def qwen_chained(path, chain, session):
    """Yield (name, record) of all records that are on the chain or on none."""
    for offset, line in read_lines(path):
        if line is not None and not line.strip(b"\0 \t\r\n"):
            continue
        records = qwen_records(line or b"")
        session.bad_lines += not records and (line is None or line.endswith(b"\n"))
        for number, record in enumerate(records):
            uuid = as_text(record.get("uuid"))
            if not uuid or uuid in chain:
                yield uuid or f"@{offset}.{number}", record


def qwen_record(transcript, name, record):
    """Show one record."""
    session, at = transcript.session, utc(record.get("timestamp"))
    session.seen_at(at)
    for key, fact in (("cwd", "cwd"), ("gitBranch", "git_branch")):
        if as_text(record.get(key)):
            session.attributes.setdefault(fact, record[key])
    session.tool_version = as_text(record.get("version")) or session.tool_version
    step = QWEN_STEPS.get(as_text(record.get("type")))
    if step:
        step(transcript, name, at, record)
    else:
        session.unknown_record(record.get("type"), name, at, record)


def qwen_message(record):
    return gemini_parts(as_dict(record.get("message")).get("parts"))


def qwen_user(transcript, name, at, record):
    """A prompt as the person typed it, or what the program said in their name."""
    parts = qwen_message(record)
    typed = as_text(as_dict(record.get("systemPayload")).get("displayText"))
    texts = [typed] if typed else list(filter(None, map(gemini_text, parts)))
    for number, part in enumerate(parts):
        if "functionResponse" in part:
            gemini_response(transcript, f"{name}-{number}", at, part)
    if record.get("subtype") in QWEN_INJECTED:
        transcript_notice(transcript, name, at, "\n".join(texts), "notification")
    else:
        blocks = [block for part in parts for block in gemini_block(transcript, part)]
        gemini_prompt(transcript, name, at, texts, blocks)


def qwen_assistant(transcript, name, at, record):
    """A response of the model, or a piece of one."""
    if name not in transcript.counted:
        transcript_close(transcript)
    transcript.told = transcript.names
    transcript.model = as_text(record.get("model")) or transcript.model
    gemini_spoken(transcript, name, at, qwen_message(record))
    counts, before = qwen_counts(record.get("usageMetadata")), transcript.counted.get(name)
    transcript.counted[name] = before or counts
    if counts and before:
        transcript.usage["raw_input"] += counts["input"]
        transcript.usage["raw_output"] += counts["output"]
        transcript.usage["duplicates_removed"] += 1
    elif counts:
        transcript_usage(transcript, counts, transcript.model)


def qwen_counts(usage):
    """Token counts of a response.  Whether thoughts are in the output, only the total tells."""
    usage = as_dict(usage)
    given, said, thought, cached, total = (whole(usage.get(f"{name}TokenCount")) for name in
                                           ("prompt", "candidates", "thoughts", "cachedContent", "total"))
    beside = thought if total == given + said + thought or thought > said else 0
    return any((given, said, thought)) and {"input": given, "output": said + beside, "cache_read": min(cached, given),
                                            "reasoning": thought}


def qwen_tool_result(transcript, name, at, record):
    """The result of a call.  That of a sub-agent tells what it did and used, and that is all there is of it."""
    result, parts = as_dict(record.get("toolCallResult")), qwen_message(record)
    response = next((as_dict(part.get("functionResponse")) for part in parts if "functionResponse" in part), {})
    call_id = as_text(result.get("callId")) or as_text(response.get("id"))
    display = result.get("resultDisplay")
    transcript.names.setdefault(call_id, as_text(response.get("name")) or "unknown")
    if as_dict(display).get("type") == "task_execution":
        qwen_task(transcript, call_id or name, at, display)
    gemini_result(transcript, call_id, at, parts, display, result.get("status") in ("error", "cancelled"))


def qwen_task(transcript, task, at, display):
    """A sub-agent, as far as its call's result tells."""
    session, summary = transcript.session, as_dict(display.get("executionSummary"))
    title, prompt = first_of(display, ("taskDescription", "subagentName")), as_text(display.get("taskPrompt"))
    start = session.event("TaskStart", f"{task}-start", at, [text_block(prompt)] * bool(prompt), task=task,
                          title=as_text(title) or None, attributes={"agent_type": as_text(display.get("subagentName"))})
    used, cached, output, thoughts = (whole(summary.get(f"{name}Tokens")) for name in
                                      ("input", "cached", "output", "thought"))
    if used or output:
        usage = transcript.usage
        usage["raw_input"], usage["raw_output"] = usage["raw_input"] + used, usage["raw_output"] + output
        usage["responses"] += whole(summary.get("rounds"))
        transcript_put_usage(transcript, start, {"input": used, "output": output, "cache_read": min(cached, used),
                                                 "reasoning": min(thoughts, output)})
    duration = summary.get("totalDurationMs")
    said = f"{whole(summary.get('rounds'))} rounds, {whole(summary.get('totalToolCalls'))} tool calls"
    session.event("TaskEnd", f"{task}-end", at, task=task, summary=said,
                  duration_ms=round(duration) if type(duration) in (int, float) and 0 <= duration < 1e10 else None)


# Qwen Code: records of the program ------------------------------------------

def qwen_system(transcript, name, at, record):
    """A system record, by its subtype; telemetry repeats what other records say."""
    kind = as_text(record.get("subtype"))
    if kind not in QWEN_SYSTEM:
        transcript.session.unknown_record(f"system {kind}", name, at, record)
    elif step := QWEN_SYSTEM[kind]:
        step(transcript, name, at, as_dict(record.get("systemPayload")))


def qwen_command(transcript, name, at, payload):
    """A slash command as it was typed, or what it answered."""
    command = as_text(payload.get("rawCommand")).strip()
    if payload.get("phase") != "result" and command:
        transcript.session.event("UserMessage", name, at, [text_block(command)])
    for number, item in enumerate(as_list(payload.get("outputHistoryItems"))):
        transcript_notice(transcript, f"{name}-{number}", at, as_text(as_dict(item).get("text")), "command_output")


def qwen_title(transcript, name, at, payload):
    """The latest title counts."""
    title = first_of(payload, ("customTitle", "title", "name"))
    transcript.session.title = as_text(title).strip() or transcript.session.title


def qwen_marker(kind):
    """A step for what changes the conversation."""
    def step(transcript, name, at, payload):
        facts = {key: value for key, value in as_dict(payload.get("info")).items() if type(value) in (int, str)}
        transcript.session.event("Custom", name, at, kind=kind, attributes=facts or None)
    return step


QWEN_SYSTEM = {
    "slash_command": qwen_command,
    "custom_title": qwen_title,
    "chat_compression": qwen_marker("compaction"),
    "rewind": qwen_marker("rewind"),
    **dict.fromkeys(("ui_telemetry", "attribution_snapshot", "session_artifact_snapshot", "file_history_snapshot",
                     "at_command")),
}
QWEN_STEPS = {"user": qwen_user, "assistant": qwen_assistant, "tool_result": qwen_tool_result, "system": qwen_system}
# ---------------------------------------------------------------------------
# GitHub Copilot CLI
#
# Seen: session-state/<id>/events.jsonl of 1.0.102, <id>.jsonl of 0.0.4xx, and
# history-session-state/*.json before that.  A resumed session goes on in its
# file, so that a shutdown may stand in the middle.  A call is told twice, usage up
# to three times, and a sub-agent's records carry its agentId.  session-store.db
# is a derived copy that may lag, and is not read.
#
# To support a new record, add a line to COPILOT_STEPS; a new tool, to COPILOT_TOOLS.
# ---------------------------------------------------------------------------


def copilot_roots(env, home):
    """$COPILOT_HOME, else ~/.copilot, on every system."""
    folder = Path(env["COPILOT_HOME"]).expanduser() if env.get("COPILOT_HOME") else Path(home) / ".copilot"
    return [folder / "session-state", folder / "history-session-state"]


def copilot_sources(root):
    """The sessions below a folder, or one file.  Of two files of one session, that in its own folder counts."""
    root = Path(root)
    files = [root] if root.is_file() else [Path(entry.path) for entry in walk(os.fspath(root))
                                           if entry.name.endswith((".jsonl", ".json")) and copilot_inside(entry.path)]
    best = {}
    for path in sorted(files, key=lambda path: path.name != "events.jsonl"):
        best.setdefault(copilot_key(path), path)
    return [Source(key, (path, path.with_name("workspace.yaml"))) for key, path in best.items()]


def copilot_key(path):
    return path.parent.name if path.name == "events.jsonl" else path.stem


def copilot_inside(path):
    try:
        with open_regular(path) as file:
            return copilot_recognise(file.read(1 << 16), path)
    except OSError:
        return False


def copilot_recognise(head, path):
    """Whether a file starts with Copilot's envelopes, or is an older history in one object."""
    if path.endswith(".json"):
        return b'"chatMessages"' in head and b'"sessionId"' in head
    records = filter(None, (load_json(line) for line in head.split(b"\n", 5)[:5]))
    return any(isinstance(record, dict) and isinstance(record.get("data"), dict) and "parentId" in record
               and copilot_is_type(as_text(record.get("type"))) for record in records)


def copilot_is_type(kind):
    return kind in COPILOT_STEPS or kind.startswith(("session.", "assistant.", "tool.execution"))


@tool("copilot-cli", "Copilot CLI", roots=copilot_roots, sources=copilot_sources, recognise=copilot_recognise,
      where="~/.copilot/session-state, ~/.copilot/history-session-state, or COPILOT_HOME",
      seen="0.0.4xx to 1.0, JSON files before")
def parse_copilot(source):
    """One event log is one session."""
    path = source.path
    with open_regular(path) as file:
        head = file.read(1 << 16)
    if not copilot_recognise(head, str(path)):
        return
    started = [as_dict(load_json(line)) for line in head.split(b"\n", 5)[:5] if b'"session.start"' in line]
    session_id = next((as_text(as_dict(record.get("data")).get("sessionId")) for record in started), "")
    session = Session("copilot-cli", "github", session_id or copilot_key(path), utc(os.stat(path).st_mtime))
    run = CopilotRun(session)
    records = copilot_history(path, session) if path.suffix == ".json" else \
        read_records(path, session, lambda line: b'"type":"system.message"' in line[:40])
    for record in started:                              # times of records without one follow from here
        session.seen_at(utc(record.get("timestamp")))
    events = transcript_events(run, records, lambda item: copilot_record(run, *item), lambda: copilot_finish(run))
    yield from only_if_any(session, copilot_named(run, path, events))


class CopilotRun(Transcript):
    """A session while it is read."""

    def __init__(self, session):
        super().__init__(session, COPILOT_TOOLS)
        self.tasks = {}             # agent id -> [event that started it, its duration, what it did] while it runs
        self.agents = {}            # id of the call that started an agent -> agent id
        self.responses = set()      # ids of the responses whose usage is counted
        self.message = {}           # task -> id of the message that is being told
        self.thought = {}           # task -> its latest reasoning
        self.shutdowns = {}         # start of a run -> counts of its latest shutdown


def copilot_named(run, path, events):
    """The events, then what workspace.yaml says of the session."""
    yield from events
    facts = {}
    try:
        with open_regular(path.with_name("workspace.yaml")) as file:
            lines = clean_text(file.read(1 << 16).decode("utf-8", "replace")).splitlines()
        facts = dict(line.split(": ", 1) for line in lines if ": " in line and line[:1].isalpha())
    except OSError:
        pass
    attributes = run.session.attributes
    run.session.title = run.session.title or facts.get("name", "").strip("\"' ") or None
    for name, key in (("cwd", "cwd"), ("git_branch", "branch")):
        if facts.get(key, "").strip("\"' "):
            attributes.setdefault(name, facts[key].strip("\"' "))
    if len(attributes.get("all_cwds", ())) < 2:
        attributes.pop("all_cwds", None)


def copilot_record(run, offset, record):
    """One envelope: {type, data, id, timestamp, agentId?}."""
    kind, data = as_text(record.get("type")), as_dict(record.get("data"))
    at, record_id = utc(record.get("timestamp")), as_text(record.get("id")) or f"copilot-{offset}"
    run.session.seen_at(at)
    task = copilot_task(run, at, record, data)
    step = COPILOT_STEPS.get(kind)
    if step:
        step(run, record_id, at, data, task)
    elif not kind.startswith(COPILOT_SILENT):
        run.session.unknown_record(kind or "record", record_id, at, record)


def copilot_task(run, at, record, data):
    """The sub-agent that a record belongs to, or None; it is started where no record says so."""
    call = as_text(data.get("parentToolCallId"))
    if record.get("type") == "subagent.started":
        call = as_text(data.get("toolCallId"))
    agent = as_text(record.get("agentId")) or run.agents.get(call) or call
    if not agent:
        return None
    if agent not in run.tasks:
        run.agents[call or agent] = agent
        title = as_text(data.get("agentDisplayName")) or as_text(data.get("agentName")) or None
        facts = {"agent": as_text(data.get("agentName")), "model": as_text(data.get("model")), "call_id": call}
        event = run.session.event("TaskStart", f"{agent}-start", at, task=agent, title=title,
                                  attributes={key: value for key, value in facts.items() if value})
        run.tasks[agent] = event
    return agent


def copilot_agent_ended(run, record_id, at, data, task):
    """A sub-agent is done, well or not."""
    if task is None:
        task = run.agents.get(as_text(data.get("toolCallId")))
    if run.tasks.get(task) is None:
        return
    transcript_close(run, task)
    said = [f"{whole(data.get('totalToolCalls'))} tool calls", as_text(data.get("model")), as_text(data.get("error"))]
    duration = whole(data.get("durationMs")) or None
    run.session.event("TaskEnd", f"{task}-end", at, task=task, duration_ms=duration, summary=", ".join(filter(None, said)),
                      attributes={"error": True} if data.get("error") else None)
    run.tasks[task] = None


def copilot_finish(run):
    """End the sub-agents that never said so."""
    for task, event in run.tasks.items():
        if event is not None:
            run.session.event("TaskEnd", f"{task}-end", task=task)


# Copilot: what was said -----------------------------------------------------

def copilot_user(run, record_id, at, data, task):
    """A prompt; what an agent or the program wrote in the person's name is none."""
    text = as_text(data.get("content"))
    blocks = [text_block(text)] * bool(text.strip()) + copilot_attachments(data.get("attachments"))
    if not blocks:
        return
    if task or as_text(data.get("source")).startswith(("agent-", "system", "skill", "hook", "autopilot")):
        run.session.event("SystemMessage", record_id, at, blocks, task=task, attributes={"meta": "agent_prompt"})
    else:
        transcript_prompt(run, record_id, at, blocks)


def copilot_attachments(attachments):
    """Blocks of files, folders and pictures beside a prompt."""
    blocks = []
    for item in map(as_dict, as_list(attachments)):
        media, data = as_text(item.get("mimeType")), as_text(item.get("data"))
        path = as_text(item.get("path")) or as_text(item.get("filePath")) or as_text(item.get("displayName"))
        if media.startswith("image/") and data:
            blocks.append(image_block(media, data, path or None))
        elif path:
            blocks.append({"type": "File", "path": path})
    return blocks


def copilot_assistant(run, record_id, at, data, task):
    """A message: reasoning, text and calls; one that comes in chunks stays one response."""
    message_id = as_text(data.get("messageId")) or record_id
    if run.message.get(task) != message_id:
        transcript_close(run, task)
        run.message[task] = message_id
    run.model = as_text(data.get("model")) or run.model
    copilot_think(run, f"{record_id}-thinking", at, as_text(data.get("reasoningText")), task)
    text = as_text(data.get("content"))
    if text.strip():
        transcript_say(run, "AgentMessage", record_id, at, [text_block(text)], task)
    for request in map(as_dict, as_list(data.get("toolRequests"))):
        copilot_call(run, at, request.get("toolCallId"), request.get("name"), request.get("arguments"), task)
    response = as_text(data.get("apiCallId")) or message_id
    if response not in run.responses and whole(data.get("outputTokens")):
        run.responses.add(response)
        transcript_usage(run, {"output": whole(data["outputTokens"])}, run.model, task)


def copilot_think(run, record_id, at, text, task):
    """Reasoning, which may come alone and again with its message."""
    if text.strip() and run.thought.get(task) != text:
        run.thought[task] = text
        transcript_say(run, "Thinking", record_id, at, [text_block(text)], task)


def copilot_reasoning(run, record_id, at, data, task):
    copilot_think(run, record_id, at, as_text(data.get("content")), task)


# Copilot: tools -------------------------------------------------------------

def copilot_call(run, at, call_id, name, given, task):
    """A call, as the model asked for it or as it began: whichever comes first."""
    if isinstance(given, str):
        parsed = json_value(given)
        given = parsed if isinstance(parsed, dict) else given
    call_id, name = as_text(call_id), as_text(name)
    patch = given if isinstance(given, str) else as_text(first_of(given, ("input", "patch")))
    if not name or not call_id or call_id in run.names:
        return
    if name != "apply_patch" or not transcript_patch(run, call_id, at, name, patch, task):
        action = as_text(as_dict(given).get("command")) if name == "str_replace_editor" else ""
        transcript_call(run, call_id, at, name, given, task, known_as=f"{name} {action}".strip())


def copilot_started(run, record_id, at, data, task):
    copilot_call(run, at, data.get("toolCallId"), data.get("toolName"), data.get("arguments"), task)


def copilot_complete(run, record_id, at, data, task):
    """The result of a call."""
    result, error = data.get("result"), as_dict(data.get("error"))
    detail = as_text(as_dict(result).get("detailedContent"))
    text = as_text(result) or as_text(as_dict(result).get("content")) or detail
    failed = data.get("success") is False
    if failed:
        text = as_text(error.get("message")) or as_text(data.get("error")) or text
    call_id = as_text(data.get("toolCallId"))
    kind = run.tools.get(run.names.get(call_id), ("",))[0]
    blocks = [code_block(text) if kind in COPILOT_CODE and not failed else text_block(text)] if text else []
    blocks += copilot_attachments(as_dict(result).get("contents"))
    code = as_dict(data.get("shellExecution")).get("exitCode")
    transcript_result(run, call_id, at, blocks, failed=failed, exit_code=code, diff=copilot_diff(detail), task=task)


COPILOT_CODE = ("ShellCommand", "FileRead", "CodeSearch", "FileSearch")


def copilot_diff(detail):
    """The unified diff in a result's details, without git's lines before it; None for a new file."""
    place = detail.find("\n--- ") + 1
    created = detail.startswith("--- a/dev/null", place) or detail.startswith("--- /dev/null", place)
    return detail[place:].strip("\n") if "diff --git" in detail[:2000] and place and not created else None


# Copilot: facts, notices, usage ---------------------------------------------

def copilot_start(run, record_id, at, data, task):
    """The session begins or goes on: where, with what, in which version."""
    session, context = run.session, as_dict(data.get("context"))
    session.seen_at(utc(data.get("startTime")))
    session.tool_version = as_text(data.get("copilotVersion")) or session.tool_version
    run.model = as_text(data.get("selectedModel")) or run.model
    cwd, branch = as_text(context.get("cwd")), as_text(context.get("branch"))
    git = {"branch": branch, "commit_hash": as_text(context.get("headCommit")),
           "repository_url": copilot_repository(context)}
    git = {key: value for key, value in git.items() if value}
    for name, value in (("cwd", cwd), ("git_branch", branch), ("git", git)):
        if value:
            session.attributes.setdefault(name, value)
    add_new(session.attributes.setdefault("all_cwds", []), cwd)


def copilot_repository(context):
    """The address of owner/name, which is told without its host."""
    name, host = as_text(context.get("repository")), as_text(context.get("repositoryHost")) or "github.com"
    return f"https://{host}/{name}" if re.fullmatch(r"[\w.-]+/[\w.-]+", name) else ""


def copilot_model(run, record_id, at, data, task):
    if task is None:
        run.model = as_text(data.get("newModel")) or run.model
        run.session.model = run.model


def copilot_usage_record(run, record_id, at, data, task):
    """The usage of one response, which comes before its message."""
    usage = as_dict(data.get("usage"))
    response = as_text(as_dict(usage.get("accounting")).get("usageId")) or as_text(usage.get("apiCallId")) or record_id
    counts = copilot_counts(usage)
    if response in run.responses:
        run.usage["duplicates_removed"] += 1
        run.usage["raw_input"] += counts["input"]
        run.usage["raw_output"] += counts["output"]
        return
    run.responses.update((response, as_text(usage.get("apiCallId"))))
    transcript_close(run, task)
    transcript_usage(run, counts, as_text(usage.get("model")) or None, task, before=True)


def copilot_counts(usage):
    """Counts of a usage object; its input has the cache, its output the reasoning."""
    names = {"input": "inputTokens", "output": "outputTokens", "cache_read": "cacheReadTokens",
             "cache_write": "cacheWriteTokens", "reasoning": "reasoningTokens"}
    return {part: whole(as_dict(usage).get(name)) for part, name in names.items()}


def copilot_shutdown(run, record_id, at, data, task):
    """Totals of a run.  What responses did not tell themselves is counted here; totals of a resumed run go on."""
    transcript_close(run)
    facts = {**as_dict(data.get("accountingSnapshot")), **data}
    start = str(facts.get("sessionStartTime"))[:40]
    totals = copilot_totals(facts)
    run.shutdowns[start] = totals
    account = run.usage
    owed = [counts for waiting in run.owed.values() for counts, _ in waiting]
    counted = {part: account[part] + sum(counts.get(part, 0) for counts in owed) for part in totals}
    rest = {part: max(0, sum(run_totals[part] for run_totals in run.shutdowns.values()) - counted[part])
            for part in totals}
    raw = account["raw_input"], account["raw_output"]
    models = list(as_dict(facts.get("modelMetrics")))
    transcript_usage(run, rest, as_text(facts.get("currentModel")) or (models[0] if len(models) == 1 else None))
    account["raw_input"], account["raw_output"] = raw[0] + totals["input"], raw[1] + totals["output"]
    requests = facts.get("totalPremiumRequests", facts.get("totalPremiumRequestCost"))
    if type(requests) in (int, float) and requests:
        run.session.attributes["premium_requests"] = requests


def copilot_totals(facts):
    """The counts of all models of a run together."""
    usages = [copilot_counts(as_dict(metric).get("usage")) for metric in as_dict(facts.get("modelMetrics")).values()]
    if not any(any(usage.values()) for usage in usages):
        details = {key: whole(as_dict(value).get("tokenCount")) for key, value in as_dict(facts.get("tokenDetails")).items()}
        read, write = details.get("cache_read", 0), details.get("cache_write", 0)
        usages = [{"input": details.get("input", 0) + read + write, "output": details.get("output", 0),
                   "cache_read": read, "cache_write": write, "reasoning": 0}]
    return {part: sum(usage[part] for usage in usages) for part in usages[0]}


def copilot_notice(meta, *names):
    """A step that shows a record's text as a SystemMessage."""
    def step(run, record_id, at, data, task):
        text = as_text(first_of(data, names))
        if text.strip():
            attributes = {"meta": meta, **({"error": True} if meta == "api_error" else {})}
            run.session.event("SystemMessage", record_id, at, [text_block(text)], task=task, attributes=attributes)
    return step


def copilot_marker(kind, *names):
    """A step that marks a place in the session."""
    def step(run, record_id, at, data, task):
        transcript_close(run, task)
        text = as_text(first_of(data, names))
        run.session.event("Custom", record_id, at, [text_block(text)] * bool(text), task=task, kind=kind)
    return step


def copilot_title(run, record_id, at, data, task):
    run.session.title = as_text(data.get("title")).strip() or run.session.title


# Copilot: the older history in one object -----------------------------------

def copilot_history(path, session):
    """Yield (place, envelope) of {"sessionId", "startTime", "chatMessages": […]}, in the form of later versions."""
    with open_regular(path) as file:
        history = as_dict(load_json(file.read(MAX_LINE)))
    at = history.get("startTime")
    yield 0, {"type": "session.start", "timestamp": at, "data": {"selectedModel": history.get("selectedModel")}}
    for place, message in enumerate(map(as_dict, as_list(history.get("chatMessages"))), 1):
        role, text = message.get("role"), codex_content(message.get("content"))[0]
        if role == "tool":
            data = {"toolCallId": message.get("tool_call_id"), "result": text}
            yield place, {"type": "tool.execution_complete", "data": data}
        elif role == "assistant":
            calls = [{"toolCallId": call.get("id") or f"call-{place}-{number}", **as_dict(call.get("function"))}
                     for number, call in enumerate(map(as_dict, as_list(message.get("tool_calls"))))]
            yield place, {"type": "assistant.message", "data": {"content": text, "toolRequests": calls}}
        elif role == "user":
            yield place, {"type": "user.message", "data": {"content": text}}
        elif role != "system":
            yield place, {"type": f"role {role}", "data": message}


COPILOT_TOOLS = {
    "bash": ("ShellCommand", "command", ("command",)),
    "shell": ("ShellCommand", "command", ("command",)),
    "powershell": ("ShellCommand", "command", ("command",)),
    "view": ("FileRead", "path", ("path",)),
    "show_file": ("FileRead", "path", ("path",)),
    "edit": ("FileEdit", "path", ("path",)),
    "create": ("FileCreate", "path", ("path",)),
    "str_replace_editor view": ("FileRead", "path", ("path",)),
    "str_replace_editor create": ("FileCreate", "path", ("path",)),
    "str_replace_editor str_replace": ("FileEdit", "path", ("path",)),
    "str_replace_editor insert": ("FileEdit", "path", ("path",)),
    "grep": ("CodeSearch", "query", ("pattern",)),
    "rg": ("CodeSearch", "query", ("pattern",)),
    "glob": ("FileSearch", "pattern", ("pattern",)),
    "web_fetch": ("WebFetch", "url", ("url",)),
    "web_search": ("WebSearch", "query", ("query",)),
}

# Record -> step(run, record id, time, data, task).
COPILOT_STEPS = {
    "session.start": copilot_start,
    "session.resume": copilot_start,
    "session.context_changed": lambda run, record_id, at, data, task: copilot_start(run, record_id, at, {"context": data}, task),
    "session.model_change": copilot_model,
    "session.usage_record": copilot_usage_record,
    "session.shutdown": copilot_shutdown,
    "session.title_changed": copilot_title,
    "session.info": copilot_notice("notice", "message"),
    "session.warning": copilot_notice("notice", "message"),
    "session.error": copilot_notice("api_error", "message"),
    "session.truncation": copilot_marker("compaction"),
    "session.compaction_complete": copilot_marker("compaction", "summaryContent"),
    "session.snapshot_rewind": copilot_marker("rollback"),
    "abort": copilot_marker("interrupt", "reason"),
    "user.message": copilot_user,
    "system.notification": copilot_notice("notification", "content"),
    "assistant.message": copilot_assistant,
    "assistant.reasoning": copilot_reasoning,
    "tool.user_requested": copilot_started,
    "tool.execution_start": copilot_started,
    "tool.execution_complete": copilot_complete,
    "subagent.started": lambda run, record_id, at, data, task: None,
    "subagent.completed": copilot_agent_ended,
    "subagent.failed": copilot_agent_ended,
}
# Records that show nothing; many are only sent to the screen.
COPILOT_SILENT = (
    "system.message", "assistant.turn_", "assistant.intent", "assistant.usage", "assistant.streaming", "hook.",
    "tool.execution_p", "subagent.selected", "subagent.deselected", "subagent.configured", "session.usage_",
    "session.mode_changed", "session.auto_mode_resolved", "session.task_complete", "session.plan_changed",
    "session.handoff", "session.compaction_start", "session.workspace_file_changed", "session.idle",
    "session.background_tasks_changed", "session.tools_updated", "permission.", "user_input.", "elicitation.",
    "command.", "pending_messages.", "skill.invoked", "exit_plan_mode.", "external_tool.",
)

# ---------------------------------------------------------------------------
# OpenCode, and Kilo CLI, which is made from it
#
# Seen: opencode.db of 1.18, and the tree of JSON files (storage/session, message,
# part) that came before.  Both hold the same messages and parts; an install that
# was migrated holds both, and then the database counts.  A part is updated in
# place while its tool runs.  Tokens of a response stand in its message, and again
# in its steps and its session.  A sub-agent is a session of its own.
#
# To support a new kind of part, add a line to OPENCODE_PARTS; a new tool, to OPENCODE_TOOLS.
# ---------------------------------------------------------------------------

OPENCODE_DATABASE = re.compile(r"(opencode|kilo)(-[\w.-]+)?\.db")


def opencode_roots(env, home, name="opencode"):
    """The databases of every release channel, and the tree of older versions: never the folder with
    its snapshots, which are large."""
    folder = Path(env.get("XDG_DATA_HOME") or Path(home) / ".local" / "share") / name
    channels = sorted(path for path in folder.glob(f"{name}-*.db") if OPENCODE_DATABASE.fullmatch(path.name))
    return [folder / f"{name}.db", *channels, folder / "storage" / "session"]


def kilo_roots(env, home):
    return opencode_roots(env, home, "kilo")


def opencode_sources(root):
    """The databases in a folder, and the old sessions that are in none of them; or one file."""
    root = Path(root)
    if root.is_file():
        return [opencode_source(root)]
    files = [Path(entry.path) for entry in walk(os.fspath(root))]
    databases = [path for path in files if path.suffix == ".db" and opencode_recognise(opencode_head(path), str(path))]
    beside = [path for path in root.parent.parent.glob("*.db") if OPENCODE_DATABASE.fullmatch(path.name)]
    trees = [path for path in files if path.suffix == ".json" and path.parent.parent.name == "session"]
    migrated = opencode_ids(databases + beside) if trees else set()
    return [opencode_source(path) for path in databases + trees if path.stem not in migrated]


def opencode_source(path):
    """A database is one source with many sessions; a file of the old tree is one with the folder of its messages."""
    if path.suffix == ".json":
        return Source(path.stem, (path, path.parents[2] / "message" / path.stem))
    return Source(str(path), database_files(path))


def opencode_head(path):
    try:
        with open_regular(path) as file:
            return file.read(1 << 16)
    except OSError:
        return b""


def opencode_ids(databases):
    """The ids of all sessions in some databases."""
    found = set()
    for path in databases:
        try:
            with open_database(path) as database:
                found.update(row["id"] for row in query(database, "SELECT id FROM session") if database)
        except OSError:
            continue
    return found


def opencode_recognise(head, path):
    """Whether a file is a database with OpenCode's tables, or a session of the old tree."""
    if head.startswith(SQLITE_HEAD):
        return bool(OPENCODE_DATABASE.fullmatch(os.path.basename(path))) or (
            b"`message_id`" in head and b"`part`" in head and b"CREATE TABLE `session`" in head)
    return path.endswith(".json") and b'"projectID"' in head and b'"directory"' in head and b'"time"' in head


def parse_opencode(source):
    """One session, or all that are in a database; those in which nothing was said are none."""
    if source.path.suffix != ".json":
        with open_database(source.path) as database:
            yield from opencode_database(database, source.path) if database else ()
        return
    with open_regular(source.path) as file:
        facts = as_dict(load_json(file.read(MAX_LINE)))
    if facts and not facts.keys() & {"role", "messageID", "sessionID"}:
        session_id = as_text(facts.get("id")) or source.path.stem
        yield from opencode_session(opencode_name(source.path), facts, session_id,
                                    opencode_files(source.path.parents[2], session_id))


def opencode_name(path):
    """Which of the two tools a file is of: only its name or place tells."""
    return "kilo-cli" if os.path.basename(path).startswith("kilo") or "kilo" in Path(path).parts else "opencode"


tool("opencode", "OpenCode", roots=opencode_roots, sources=opencode_sources, recognise=lambda head, path: (
    opencode_recognise(head, path) and opencode_name(path) == "opencode"),
     where="~/.local/share/opencode, or XDG_DATA_HOME", seen="databases of 1.18, JSON files before")(parse_opencode)
tool("kilo-cli", "Kilo CLI", roots=kilo_roots, sources=opencode_sources, recognise=lambda head, path: (
    opencode_recognise(head, path) and opencode_name(path) == "kilo-cli"),
     where="~/.local/share/kilo, or XDG_DATA_HOME", seen="as OpenCode")(parse_opencode)


# OpenCode: reading ----------------------------------------------------------

OPENCODE_COLUMNS = ("id", "parent_id", "directory", "title", "version", "share_url", "revert", "agent",
                    "time_created", "time_updated", "time_archived")


def opencode_database(database, path):
    """Yield the sessions of a database, the oldest first."""
    needed = {"session": {"id"}, "message": {"id", "session_id", "data"}, "part": {"id", "message_id", "data"}}
    if any(columns - set(table_columns(database, table)) for table, columns in needed.items()):
        return
    columns = column_list(database, "session", OPENCODE_COLUMNS)
    rows = list(query(database, f"SELECT {columns} FROM session ORDER BY 9, 1"))
    for row in rows:
        facts = {**row, "revert": json_value(row["revert"]),
                 "time": {key: row[f"time_{key}"] for key in ("created", "updated", "archived")}}
        stamp = opencode_stamp(database, row)
        for session in opencode_session(opencode_name(path), facts, as_text(row["id"]), opencode_rows(database, row["id"])):
            session.stamp = stamp
            yield session


def opencode_stamp(database, row):
    """What changes with a session: cheaper to ask for than the session is to read."""
    latest = []
    for table in ("message", "part"):
        if {"session_id", "time_updated"} <= set(table_columns(database, table)):
            latest += query(database, f"SELECT count(*) AS rows, max(time_updated) AS at FROM {table} WHERE session_id = ?",
                            [row["id"]])
    return f"{list(row.values())}{[list(counts.values()) for counts in latest]}"


def opencode_rows(database, session_id):
    """A function that yields (message id, time, message, parts) of a session; parts are (id, time, part)."""
    def rows(table, owner, value, session):
        time = column_list(database, table, ["time_created"])
        for row in query(database, f"SELECT id, {time}, data FROM {table} WHERE {owner} = ? ORDER BY time_created, id"
                         if table == "message" else
                         f"SELECT id, {time}, data FROM {table} WHERE {owner} = ? ORDER BY id", [value], session):
            yield str(row["id"]), row["time_created"], json_value(row["data"])

    def messages(session):
        for message_id, created, message in rows("message", "session_id", session_id, session):
            yield message_id, created, message, rows("part", "message_id", message_id, session)
    return messages


def opencode_files(storage, session_id):
    """The same from the old tree; a folder of parts is named like its message, or with msg_ before it."""
    def read(folder):
        for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
            try:
                with open_regular(path) as file:
                    value = load_json(file.read(MAX_LINE))
            except OSError:
                continue
            yield as_text(as_dict(value).get("id")) or path.stem, None, value

    def messages(session):
        found = list(read(storage / "message" / session_id))
        found.sort(key=lambda item: (utc(as_dict(as_dict(item[2]).get("time")).get("created")) or "", item[0]))
        for message_id, _, message in found:
            folders = [storage / "part" / name for name in (message_id, f"msg_{message_id}")]
            yield message_id, None, message, read(next(filter(Path.is_dir, folders), folders[0]))
    return messages


# OpenCode: one session ------------------------------------------------------

class OpencodeMessage:
    """A message while its parts are read."""

    def __init__(self, message_id, at, data):
        self.id = message_id
        self.at = at
        self.data = data
        self.is_user = data.get("role") == "user"
        self.blocks = []                # of a prompt
        self.steps = {}                 # token counts, summed over its steps


def opencode_session(name, facts, session_id, messages):
    """[the session of these facts and messages], or [] if it shows nothing."""
    time = as_dict(facts.get("time"))
    session = Session(name, "opencode", session_id, utc(time.get("created")))
    transcript = Transcript(session, OPENCODE_TOOLS)
    parents = [as_text(value) for key, value in facts.items()
               if key.replace("_", "").lower() in ("parentid", "parentsessionid") and value]
    given = {"cwd": as_text(facts.get("directory")), "agent": as_text(facts.get("agent")),
             "share_url": as_text(facts.get("share_url")) or as_text(as_dict(facts.get("share")).get("url")),
             "archived": bool(time.get("archived")), "parent_session_id": next(filter(None, parents), None),
             "session_role": "auxiliary" if any(parents) else None}
    session.attributes.update({key: value for key, value in given.items() if value})
    session.tool_version = as_text(facts.get("version")) or None
    title = as_text(facts.get("title")).strip()
    session.title = title if title and not title.startswith(("New session - ", "Child session - ")) else None
    transcript.reverted = as_text(as_dict(facts.get("revert")).get("messageID"))
    events = transcript_events(transcript, messages(session), lambda message: opencode_message(transcript, *message))
    for moment in ("created", "updated"):
        session.seen_at(utc(time.get(moment)))
    return only_if_any(session, events)


def opencode_message(transcript, message_id, created, data, parts):
    """One message with its parts."""
    session = transcript.session
    if not isinstance(data, dict):
        session.bad_lines += 1
        return
    time = as_dict(data.get("time"))
    message = OpencodeMessage(message_id, utc(time.get("created")) or utc(created), data)
    if transcript.reverted and message_id >= transcript.reverted:
        session.event("Custom", f"{message_id}-reverted", message.at, kind="rollback")
        transcript.reverted = ""
    if data.get("role") not in ("user", "assistant"):
        session.unknown_record(f"role {data.get('role')}", message_id, message.at, data)
    opencode_facts(transcript, message)
    for part_id, part_created, part in parts:
        if isinstance(part, dict):
            opencode_part(transcript, message, part_id, utc(part_created), part)
        else:
            session.bad_lines += 1
    if message.blocks:
        opencode_prompt(transcript, message)
    opencode_usage(transcript, message)
    opencode_error(transcript, message, as_dict(data.get("error")))
    transcript_close(transcript)


def opencode_facts(transcript, message):
    """What a message says of its model and place."""
    session, data = transcript.session, message.data
    model = as_dict(data.get("model"))
    transcript.model = as_text(data.get("modelID")) or as_text(model.get("modelID")) or transcript.model
    session.provider = as_text(data.get("providerID")) or as_text(model.get("providerID")) or session.provider
    cwd = as_text(as_dict(data.get("path")).get("cwd"))
    known = session.attributes.setdefault("cwd", cwd) if cwd else None
    if cwd and cwd != known:
        add_new(session.attributes.setdefault("all_cwds", [known]), cwd)


def opencode_part(transcript, message, part_id, created, part):
    """One part; what stands in several times is told by its type."""
    kind = as_text(part.get("type"))
    at = utc(as_dict(part.get("time")).get("start")) or created or message.at
    step = OPENCODE_PARTS.get(kind)
    if step:
        step(transcript, message, part_id, at, part)
    elif kind not in OPENCODE_SILENT:
        transcript.session.unknown_record(kind or "part", part_id, at, part)


def opencode_prompt(transcript, message):
    """A prompt: its texts and attachments in one.  `opencode run` keeps the quotes of the shell."""
    first = not transcript.session.prompt
    transcript_prompt(transcript, message.id, message.at, message.blocks)
    said = transcript.session.prompt or ""
    if first and len(said) > 2 and said[0] == said[-1] == '"' and said.count('"') == 2:
        transcript.session.prompt = said[1:-1]


def opencode_text(transcript, message, part_id, at, part):
    """What somebody said.  Synthetic text in a prompt is what the tool put beside it."""
    text = as_text(part.get("text"))
    if not text.strip() or part.get("ignored") is True:
        return
    if message.is_user:
        message.blocks += [] if part.get("synthetic") is True else [text_block(text)]
    elif part.get("synthetic") is True or message.data.get("summary") is True:
        meta = "notice" if part.get("synthetic") is True else "compact_summary"
        transcript.session.event("SystemMessage", part_id, at, [text_block(text)], attributes={"meta": meta})
    else:
        transcript_say(transcript, "AgentMessage", part_id, at, [text_block(text)])


def opencode_reasoning(transcript, message, part_id, at, part):
    if as_text(part.get("text")).strip():
        transcript_say(transcript, "Thinking", part_id, at, [text_block(part["text"])])


def opencode_file(transcript, message, part_id, at, part):
    """An attachment: an image is shown, other files are named."""
    blocks = opencode_attachments([part])
    if message.is_user:
        message.blocks += blocks
    elif blocks:
        transcript_say(transcript, "AgentMessage", part_id, at, blocks)


def opencode_attachments(parts):
    """Blocks of {mime, url, filename} objects; a file that was attached by its content is named only."""
    blocks = []
    for part in map(as_dict, as_list(parts)):
        url = as_text(part.get("url"))
        if url.startswith("data:image/"):
            blocks += codex_images([url])
        elif url.startswith("file:"):
            blocks.append({"type": "File", "path": file_path(url)})
        elif url or as_text(part.get("filename")):
            blocks.append({"type": "File", "path": as_text(part.get("filename")) or url[:200]})
    return blocks


def opencode_tool(transcript, message, part_id, at, part):
    """A call, and its result if there is one yet."""
    state, name = as_dict(part.get("state")), as_text(part.get("tool")) or "unknown"
    details, time = as_dict(state.get("metadata")), as_dict(state.get("time"))
    call_id = as_text(part.get("callID")).strip() or part_id
    at, done = utc(time.get("start")) or at, utc(time.get("end"))
    if call_id in transcript.names:             # some models number their calls anew for each response
        call_id = part_id
    given = state.get("input")
    patch = as_text(first_of(given, ("patchText", "patch")))
    event = patch and transcript_patch(transcript, call_id, at, name, patch)
    event = event or transcript_call(transcript, call_id, at, name, given)
    child = as_text(details.get("sessionId")) or as_text(details.get("sessionID"))
    if child and event:
        event["attributes"]["child_session_id"] = child
        add_new(transcript.session.related, child)
    if state.get("status") in ("completed", "error") and event:
        failed = state["status"] == "error"
        text = as_text(state.get("error" if failed else "output"))
        blocks = [opencode_output(name, text, failed)] if text else []
        blocks += opencode_attachments(state.get("attachments"))
        code = details.get("exit", details.get("exitCode"))
        diff = as_text(details.get("diff")) if not patch else None
        transcript_result(transcript, call_id, done or at, blocks, failed=failed, diff=diff, event_id=f"{part_id}-result",
                          exit_code=code)


def opencode_output(name, text, failed):
    """Output as text; a file that was read as code, without what the tool wraps round it."""
    if name != "read" or failed:
        return text_block(text) if failed or name == "task" else code_block(text)
    start, end = max(text.find("<file>\n"), text.find("<content>\n")), max(text.rfind("</file>"), text.rfind("</content>"))
    start = text.find("\n", start) + 1 if start >= 0 else 0
    return numbered_code(text[start:end if end > start else None].strip("\n"))


def opencode_step(transcript, message, part_id, at, part):
    """The end of a step repeats what the message counts, or is the only count."""
    for key, count in opencode_counts(part.get("tokens")).items():
        message.steps[key] = message.steps.get(key, 0) + count


def opencode_counts(tokens):
    """Counts of a tokens object, in which neither the input has the cache nor the output the reasoning."""
    tokens = as_dict(tokens)
    cache = as_dict(tokens.get("cache"))
    read, write, reasoning = whole(cache.get("read")), whole(cache.get("write")), whole(tokens.get("reasoning"))
    return {"input": whole(tokens.get("input")) + read + write, "output": whole(tokens.get("output")) + reasoning,
            "cache_read": read, "cache_write": write, "reasoning": reasoning}


def opencode_usage(transcript, message):
    """Count a response once: its message and its steps say the same, or the message only has the last step."""
    counts = opencode_counts(message.data.get("tokens"))
    if any(counts.values()) and message.steps:
        transcript.usage["duplicates_removed"] += 1
        for key in ("input", "output"):         # the raw sums have both
            transcript.usage[f"raw_{key}"] += min(counts[key], message.steps[key])
    transcript_usage(transcript, {key: max(count, message.steps.get(key, 0)) for key, count in counts.items()})


def opencode_error(transcript, message, error):
    """How a response failed."""
    if not error:
        return
    text = as_text(as_dict(error.get("data")).get("message")) or as_text(error.get("message")) or as_text(error.get("name"))
    if error.get("name") == "MessageAbortedError":
        transcript.session.event("Custom", f"{message.id}-error", None, [text_block(text)], kind="interrupt")
    else:
        transcript.session.event("SystemMessage", f"{message.id}-error", None, [text_block(text)],
                                 attributes={"meta": "api_error", "error": True})


def opencode_retry(transcript, message, part_id, at, part):
    opencode_error(transcript, OpencodeMessage(part_id, at, {}), as_dict(part.get("error")))


def opencode_patch(transcript, message, part_id, at, part):
    """Which files a step changed, in one event."""
    files = [path for path in as_list(part.get("files")) if isinstance(path, str)]
    if files:
        transcript.session.event("Custom", part_id, at, [{"type": "File", "path": path} for path in files], kind="patch")


def opencode_compaction(transcript, message, part_id, at, part):
    transcript.session.event("Custom", part_id, at, kind="compaction")


def opencode_subtask(transcript, message, part_id, at, part):
    """A command of the person's that starts a sub-agent."""
    text = as_text(part.get("prompt")) or as_text(part.get("description"))
    message.blocks += [text_block(text)] if text else []


OPENCODE_PARTS = {
    "text": opencode_text,
    "reasoning": opencode_reasoning,
    "file": opencode_file,
    "tool": opencode_tool,
    "step-finish": opencode_step,
    "patch": opencode_patch,
    "compaction": opencode_compaction,
    "subtask": opencode_subtask,
    "retry": opencode_retry,
}
OPENCODE_SILENT = ("step-start", "snapshot", "agent")
OPENCODE_TOOLS = {
    "bash": ("ShellCommand", "command", ("command",)),
    "shell": ("ShellCommand", "command", ("command",)),
    "read": ("FileRead", "path", ("filePath", "path")),
    "view": ("FileRead", "path", ("filePath", "path")),
    "edit": ("FileEdit", "path", ("filePath", "path")),
    "multiedit": ("FileEdit", "path", ("filePath", "path")),
    "str_replace_editor": ("FileEdit", "path", ("filePath", "path")),
    "write": ("FileCreate", "path", ("filePath", "path")),
    "create": ("FileCreate", "path", ("filePath", "path")),
    "grep": ("CodeSearch", "query", ("pattern", "query")),
    "search": ("CodeSearch", "query", ("pattern", "query")),
    "codesearch": ("CodeSearch", "query", ("query", "pattern")),
    "glob": ("FileSearch", "pattern", ("pattern",)),
    "find": ("FileSearch", "pattern", ("pattern",)),
    "list": ("FileSearch", "pattern", ("path",)),
    "webfetch": ("WebFetch", "url", ("url",)),
    "websearch": ("WebSearch", "query", ("query",)),
}

# ---------------------------------------------------------------------------
# VS Code Copilot Chat
#
# Seen in VS Code's source and in peers' fixtures only: chatSessions/<id>.json of
# version 3, and since 1.109 <id>.jsonl, a log of changes to the same object that is
# compacted now and then, so that it is always read as a whole.  The arguments of
# calls stand apart from the calls; tokens are rarely told.
#
# To support a new part of a response, add a line to VSCODE_PARTS; a new tool, to VSCODE_TOOLS.
# ---------------------------------------------------------------------------

VSCODE_FOLDERS = ("chatSessions", "emptyWindowChatSessions", "transferredChatSessions")


def vscode_roots(env, home):
    """The chat folders of every editor: those of windows without a workspace, and one in each workspace's storage."""
    folders = editor_folders(env, Path(home))
    if env.get("VSCODE_PORTABLE"):
        folders.append(Path(env["VSCODE_PORTABLE"]) / "user-data" / "User")
    return ([folder / "globalStorage" / name for folder in folders for name in VSCODE_FOLDERS[1:]]
            + [path for folder in folders for path in sorted(folder.glob("workspaceStorage/*/chatSessions"))])


def vscode_sources(root):
    """The chats below a folder, or one file.  Of a chat in both forms the log counts."""
    root = Path(root)
    files = [root] if root.is_file() else [Path(entry.path) for entry in walk(os.fspath(root))
                                           if entry.name.endswith((".json", ".jsonl")) and vscode_inside(entry.path)]
    best = {}
    for path in sorted(files, key=lambda path: (path.suffix != ".jsonl", str(path))):
        best.setdefault(path.stem, path)
    return [Source(key, (path, path.parent.parent / "workspace.json")) for key, path in sorted(best.items())]


def vscode_inside(path):
    """Whether a file lies with the chats, or looks like one."""
    if os.path.basename(os.path.dirname(path)) in VSCODE_FOLDERS:
        return True
    try:
        with open_regular(path) as file:
            return vscode_recognise(file.read(1 << 16), path)
    except OSError:
        return False


def vscode_recognise(head, path):
    """Whether a file starts with the object that a chat is, or with a log of changes to one."""
    if path.endswith(".jsonl"):
        start = head[:4096].replace(b" ", b"")
        return start.startswith((b'{"kind":0,"v":{', b'\xef\xbb\xbf{"kind":0,"v":{'))
    return head.lstrip()[:1] == b"{" and b'"requests"' in head and (
        b'"requesterUsername"' in head or b'"responderUsername"' in head)


@tool("vscode-copilot", "VS Code Copilot Chat", roots=vscode_roots, sources=vscode_sources, recognise=vscode_recognise,
      where="workspaceStorage/*/chatSessions of every editor, or VSCODE_PORTABLE",
      seen="logs since 1.109, JSON files before")
def parse_vscode(source):
    """One chat is one session; one in which nothing was asked is none."""
    path = source.path
    with open_regular(path) as file:
        head = file.read(1 << 16)
    if not vscode_recognise(head, str(path)):
        return
    session_id = path.stem if UUID.fullmatch(path.stem) else claude_first(head, b"sessionId") or path.stem
    session = Session("vscode-copilot", "github", session_id, utc(os.stat(path).st_mtime))
    chat = VscodeChat(session)
    requests = vscode_log(path, chat) if path.suffix == ".jsonl" else vscode_object(path, chat)
    events = transcript_events(chat, requests, lambda request: vscode_request(chat, request),
                               lambda: vscode_header(chat, path))
    yield from only_if_any(session, events)


class VscodeChat(Transcript):
    """A chat while it is read, and what is known of the current request."""

    def __init__(self, session):
        super().__init__(session, VSCODE_TOOLS)
        self.facts = {}             # of the chat, beside its requests
        self.request = {}
        self.request_id = ""
        self.at = None
        self.number = 0             # of the part, for the ids of events
        self.text = ""              # of the reply so far
        self.spoke = False          # whether it ends with a piece of text, not with a reference
        self.rounds = {}            # call id -> call as the model wrote it
        self.results = {}           # call id -> result
        self.latest = {}            # call id -> its last state, as a call may be told again
        self.touched = set()        # paths that calls of this request have changed
        self.tasks = {}             # ids of the sub-agents of this request


# VS Code: the object and the log of its changes -----------------------------

def vscode_object(path, chat):
    """Yield the requests of a chat in one object."""
    for key, value in json_parts(path, chat.session, ("requests",), "requestId"):
        if key == "requests":
            yield value
        elif isinstance(key, str):
            chat.facts[key] = value


def vscode_log(path, chat):
    """Yield the requests of a chat after all changes to it: {"kind": 0 begin | 1 set | 2 push | 3 delete, "k": path, "v", "i"}."""
    state = {}
    for _, change in read_records(path, chat.session):
        if change.get("kind") == 0 and isinstance(change.get("v"), dict):
            state = change["v"]
        elif not vscode_change(state, change):
            chat.session.bad_lines += 1
    yield from as_list(state.get("requests"))
    chat.facts = state


def vscode_change(state, change):
    """Apply one change; False if it does not fit the object."""
    keys, kind, value = as_list(change.get("k")), change.get("kind"), change.get("v")
    if not keys or kind not in (1, 2, 3):
        return False
    place = state
    for key in keys[:-1]:
        place = vscode_member(place, key)
    last = keys[-1]
    if kind == 2:
        if isinstance(place, dict) and isinstance(last, str):
            place.setdefault(last, [])
        return vscode_push(vscode_member(place, last), change)
    if isinstance(place, dict) and isinstance(last, str):
        place.pop(last, None)
        if kind == 1:
            place[last] = value
        return True
    return kind == 1 and vscode_set_item(place, last, value)


def vscode_member(place, key):
    """The value under a key or index, or None."""
    if isinstance(place, dict):
        return place.get(key) if isinstance(key, str) else None
    if isinstance(place, list) and type(key) is int and 0 <= key < len(place):
        return place[key]
    return None


def vscode_set_item(place, index, value):
    """Set an item of a list, or append it; False if it is neither."""
    if not isinstance(place, list) or type(index) is not int or not 0 <= index <= len(place):
        return False
    place[index:index + 1] = [value]
    return True


def vscode_push(place, change):
    """Append to a list; with an index, what stood from there on goes first."""
    if not isinstance(place, list):
        return False
    index = change.get("i")
    if type(index) is int:
        del place[max(0, index):]
    place.extend(as_list(change.get("v")))
    return True


def vscode_header(chat, path):
    """What is known of the chat as a whole."""
    session, facts = chat.session, chat.facts
    session.title = as_text(facts.get("customTitle")).strip() or None
    session.seen_at(utc(facts.get("creationDate")))
    session.seen_at(utc(facts.get("lastMessageDate")) if facts.get("lastMessageDate") else None)
    cwd = vscode_workspace(path.parent.parent / "workspace.json")
    if cwd:
        session.attributes["cwd"] = cwd
    if as_text(facts.get("initialLocation")) not in ("", "panel"):
        session.attributes["location"] = facts["initialLocation"]


def vscode_workspace(path):
    """The folder of a workspace, of several folders that of their file; None without one."""
    try:
        with open_regular(path) as file:
            facts = as_dict(load_json(file.read(1 << 16)))
    except OSError:
        return None
    folder, several = as_text(facts.get("folder")), as_text(facts.get("workspace"))
    return file_path(folder) or os.path.dirname(file_path(several)) or None


# VS Code: one request -------------------------------------------------------

def vscode_request(chat, request):
    """A prompt and all that answered it."""
    if not isinstance(request, dict):
        chat.session.bad_lines += 1
        return
    result = as_dict(request.get("result"))
    response = as_list(request.get("response"))
    chat.request, chat.at, chat.number = request, utc(request.get("timestamp")), 0
    chat.request_id = as_text(request.get("requestId")) or f"request-{len(chat.names)}"
    chat.touched, chat.tasks, chat.text = set(), {}, ""
    vscode_calls_of(chat, as_dict(result.get("metadata")), response)
    vscode_prompt(chat)
    chat.model = as_text(request.get("modelId")).removeprefix("copilot/") or chat.model
    vscode_usage(chat, result)
    for chat.number, part in enumerate(response, 1):
        vscode_part(chat, part)
    vscode_flush(chat)
    for task in chat.tasks:
        chat.session.event("TaskEnd", f"{task}-end", task=task)
    vscode_outcome(chat, result)
    transcript_close(chat)


def vscode_calls_of(chat, metadata, response):
    """Find the calls as the model wrote them, their results, and the last state of each that was shown."""
    rounds = [as_dict(call) for turn in as_list(metadata.get("toolCallRounds"))
              for call in as_list(as_dict(turn).get("toolCalls"))]
    chat.rounds = {as_text(call.get("id")) or f"{chat.request_id}-{number}": call for number, call in enumerate(rounds)}
    chat.results = as_dict(metadata.get("toolCallResults"))
    chat.latest = {as_text(part.get("toolCallId")): part for part in response
                   if isinstance(part, dict) and part.get("kind") == "toolInvocationSerialized"}


def vscode_prompt(chat):
    """What was asked, with the files and pictures beside it."""
    message = chat.request.get("message")
    text = as_text(message) or as_text(as_dict(message).get("text")) or "".join(
        as_text(as_dict(part).get("text")) for part in as_list(as_dict(message).get("parts")))
    variables = as_list(as_dict(chat.request.get("variableData")).get("variables"))
    blocks = [text_block(text)] * bool(text.strip())
    blocks += [block for block in map(vscode_attachment, variables) if block]
    if blocks:
        transcript_prompt(chat, chat.request_id, chat.at, blocks)


def vscode_attachment(variable):
    """The block of one attachment, or None."""
    variable = as_dict(variable)
    value, media = variable.get("value"), as_text(variable.get("mimeType"))
    encoded = as_text(value) or as_text(as_dict(value).get("$base64"))
    if variable.get("kind") == "image" or media.startswith("image/"):
        return image_block(media or "image/png", encoded.rpartition(",")[2]) if encoded else None
    path = vscode_path(value)
    return {"type": "File", "path": path} if path else None


def vscode_path(value):
    """The path in a serialised URI, in a location, or in an address; "" for anything else."""
    value = as_dict(value).get("uri", value)
    if isinstance(value, str):
        return file_path(value) if "://" in value or value.startswith("file:") else ""
    value = as_dict(value)
    return as_text(value.get("fsPath")) or as_text(value.get("path"))


def vscode_usage(chat, result):
    """The counts of newer versions, where there are any."""
    usage = as_dict(result.get("usage")) or as_dict(chat.request.get("usage"))
    counts = {"input": whole(first_of(usage, ("promptTokens", "prompt_tokens", "inputTokens"))),
              "output": whole(first_of(usage, ("completionTokens", "completion_tokens", "outputTokens")))}
    transcript_usage(chat, counts, chat.model, before=True)


def vscode_outcome(chat, result):
    """How the request ended, where not well."""
    error, elapsed = as_dict(result.get("errorDetails")), as_dict(result.get("timings")).get("totalElapsed")
    if chat.request.get("isCanceled") is True:
        chat.session.event("Custom", f"{chat.request_id}-interrupt", kind="interrupt")
    elif error:
        text = as_text(error.get("message")) or "The request failed."
        chat.session.event("SystemMessage", f"{chat.request_id}-error", None, [text_block(text)],
                           attributes={"meta": "api_error", "error": True})
    if chat.at and whole(elapsed):
        chat.session.seen_at(utc(datetime.fromisoformat(chat.at).timestamp() * 1000 + elapsed))


# VS Code: parts of a response -----------------------------------------------

def vscode_part(chat, part):
    """One part; text and references make up the reply until something else stands between."""
    if isinstance(part, str):
        part = {"value": part}
    if not isinstance(part, dict):
        return
    kind = as_text(part.get("kind"))
    step = VSCODE_PARTS.get(kind)
    if step:
        step(chat, part)
    elif kind not in VSCODE_SILENT:
        vscode_flush(chat)
        chat.session.unknown_record(f"part {kind}", vscode_id(chat), None, part)


def vscode_id(chat):
    return f"{chat.request_id}-{chat.number}"


def vscode_flush(chat):
    """Show the reply so far."""
    text, chat.text = chat.text.strip(), ""
    chat.spoke = False
    if text:
        transcript_say(chat, "AgentMessage", f"{vscode_id(chat)}-text", None, [text_block(text)])


def vscode_markdown(chat, part):
    """A piece of the reply.  A fence alone stood round an edit that is shown otherwise; pieces are paragraphs
    unless they have line ends of their own."""
    value = part.get("content", part.get("value"))
    text = as_text(value) or as_text(as_dict(value).get("value"))
    if re.fullmatch(r"\s*`{3,}[\w.+-]*\s*", text):
        return
    apart = chat.text and text and chat.spoke and not (chat.text.endswith("\n") or text.startswith("\n"))
    chat.text += "\n\n" * bool(apart) + text
    chat.spoke = True


def vscode_reference(chat, part):
    """A file or symbol that is named inside a sentence."""
    target = part.get("inlineReference")
    name = as_text(part.get("name")) or as_text(as_dict(target).get("name"))
    path = vscode_path(as_dict(target).get("location") or target)
    name = name or path.rstrip("/").rpartition("/")[2]
    if name:
        chat.text += f"`{name}`"
        chat.spoke = False


def vscode_thinking(chat, part):
    value = part.get("value")
    text = as_text(value) or "\n".join(filter(None, map(as_text, as_list(value))))
    if text.strip():
        vscode_flush(chat)
        transcript_say(chat, "Thinking", vscode_id(chat), None, [text_block(text)])


def vscode_text(value):
    """A text that may be wrapped as {"value": text}."""
    return as_text(value) or as_text(as_dict(value).get("value"))


def vscode_tool(chat, part):
    """A call and its result.  One that is told several times is one call, in its last state."""
    vscode_flush(chat)
    shown_id = as_text(part.get("toolCallId")) or vscode_id(chat)
    if shown_id in chat.names:
        return
    part = chat.latest.get(shown_id, part)
    special, tool_id = as_dict(part.get("toolSpecificData")), as_text(part.get("toolId")) or "unknown"
    call_id, call = vscode_written(chat, shown_id, tool_id)
    given = json_value(call.get("arguments")) if isinstance(call.get("arguments"), str) else call.get("arguments")
    given = as_dict(given) or {key: value for key, value in special.items() if key in ("description", "prompt", "agentName")}
    line = as_dict(special.get("commandLine"))
    command = as_text(first_of(line, ("userEdited", "toolEdited", "original"))) or as_text(special.get("command"))
    name = as_text(call.get("name")) or tool_id
    if command:
        given, known_as = {**given, "command": command}, "run_in_terminal"
    else:
        known_as = name if name in VSCODE_TOOLS else tool_id
    task = vscode_task(chat, part)
    patch = as_text(given.get("input")) if known_as in ("apply_patch", "copilot_applyPatch") else ""
    event = (transcript_patch(chat, shown_id, None, name, patch, task) if patch else None) or transcript_call(
        chat, shown_id, None, name, given or vscode_said(part), task, known_as=known_as)
    chat.touched.update(data["path"] for kind, data in map(event_kind, chat.calls[shown_id][0]) if kind in VSCODE_CHANGES)
    if event and (part.get("isComplete") is not False or call_id in chat.results):
        vscode_result(chat, part, special, shown_id, call_id, task)


VSCODE_CHANGES = ("FileEdit", "FileCreate", "FileDelete")


def vscode_written(chat, shown_id, tool_id):
    """(id, call) as the model wrote it: by its id, else the next one of the same tool."""
    if shown_id in chat.rounds:
        return shown_id, chat.rounds.pop(shown_id)
    field = VSCODE_TOOLS.get(tool_id)
    same = (call_id for call_id, call in chat.rounds.items() if call_id not in chat.latest and (
        call.get("name") == tool_id or field and VSCODE_TOOLS.get(as_text(call.get("name"))) == field))
    call_id = next(same, None)
    return (call_id, chat.rounds.pop(call_id)) if call_id else (shown_id, {})


def vscode_said(part):
    """How the editor called a call whose arguments are not known."""
    return vscode_text(part.get("pastTenseMessage")) or vscode_text(part.get("invocationMessage"))


def vscode_result(chat, part, special, shown_id, call_id, task):
    """What a call gave: as the model saw it, as the terminal showed it, or in the editor's words."""
    details = as_dict(part.get("resultDetails"))
    code = as_dict(special.get("terminalCommandState")).get("exitCode")
    texts = [vscode_text(item) for item in as_list(as_dict(chat.results.get(call_id)).get("content"))]
    text = "\n".join(filter(None, texts)) or as_text(as_dict(special.get("terminalCommandOutput")).get("text"))
    blocks = [code_block(text)] if text else []
    if not blocks:
        outputs = [vscode_text(item) for item in as_list(details.get("output"))]
        paths = [path for path in map(vscode_path, as_list(part.get("resultDetails"))) if path]
        blocks = [text_block(text) for text in outputs if text] + [{"type": "File", "path": path} for path in paths]
    if not blocks and vscode_said(part):
        blocks = [text_block(vscode_said(part))]
    transcript_result(chat, shown_id, None, blocks, failed=details.get("isError") is True, exit_code=code, task=task)


def vscode_task(chat, part):
    """The sub-agent that a call belongs to, or None; its first call starts it."""
    task = as_text(part.get("subAgentInvocationId"))
    if task and task not in chat.tasks:
        parent = as_dict(chat.latest.get(task))
        about = as_dict(parent.get("toolSpecificData"))
        chat.tasks[task] = True
        chat.session.event("TaskStart", f"{task}-start", task=task,
                           title=as_text(about.get("description")) or vscode_said(parent) or None)
    return task or None


def vscode_edits(chat, part):
    """Changes to a file, unless a call of this request has told them: only what was put in is known."""
    path = vscode_path(part.get("uri"))
    if not path or path in chat.touched:
        return
    vscode_flush(chat)
    hunks = []
    for edit in map(as_dict, itertools.chain(*map(as_list, as_list(part.get("edits"))))):
        lines = as_text(edit.get("text")).splitlines()
        start = whole(as_dict(edit.get("range")).get("startLineNumber"))
        if lines:
            hunks.append("\n".join([f"@@ -{start},0 +{start},{len(lines)} @@", *(f"+{line}" for line in lines)]))
    transcript_say(chat, "FileEdit", vscode_id(chat), None, [], path=path, diff=diff_of(path, hunks) or None)


def vscode_warning(chat, part):
    text = vscode_text(part.get("content"))
    if text:
        vscode_flush(chat)
        chat.session.event("SystemMessage", vscode_id(chat), None, [text_block(text)], attributes={"meta": "notice"})


VSCODE_PARTS = {
    "": vscode_markdown,
    "markdownContent": vscode_markdown,
    "markdownVuln": vscode_markdown,
    "inlineReference": vscode_reference,
    "thinking": vscode_thinking,
    "toolInvocationSerialized": vscode_tool,
    "textEditGroup": vscode_edits,
    "notebookEditGroup": vscode_edits,
    "warning": vscode_warning,
}
VSCODE_SILENT = (
    "prepareToolInvocation", "undoStop", "codeblockUri", "mcpServersStarting", "progressMessage", "progressTask",
    "progressTaskSerialized", "confirmation", "elicitation", "elicitation2", "elicitationSerialized", "command",
    "commandButton", "treeData", "extensions", "pullRequest", "references", "contentReference", "codeCitation",
    "multiDiffData", "changesSummary", "move", "clearToPreviousToolInvocation", "questionCarousel", "hook",
)

# The tools by the names that the model uses, and by those of the editor.
VSCODE_TOOLS = {
    **dict.fromkeys(("run_in_terminal", "runInTerminal", "copilot_runInTerminal"), ("ShellCommand", "command", ("command",))),
    **dict.fromkeys(("read_file", "copilot_readFile"), ("FileRead", "path", ("filePath", "path"))),
    **dict.fromkeys(("create_file", "copilot_createFile"), ("FileCreate", "path", ("filePath", "path"))),
    **dict.fromkeys(("replace_string_in_file", "copilot_replaceString"), ("FileEdit", "path", ("filePath", "path"))),
    **dict.fromkeys(("insert_edit_into_file", "copilot_insertEdit"), ("FileEdit", "path", ("filePath",))),
    **dict.fromkeys(("grep_search", "copilot_findTextInFiles"), ("CodeSearch", "query", ("query",))),
    **dict.fromkeys(("semantic_search", "copilot_searchCodebase"), ("CodeSearch", "query", ("query", "description"))),
    **dict.fromkeys(("file_search", "copilot_findFiles"), ("FileSearch", "pattern", ("query", "pattern"))),
    **dict.fromkeys(("list_dir", "copilot_listDirectory"), ("FileSearch", "pattern", ("path",))),
    **dict.fromkeys(("fetch_webpage", "copilot_fetchWebPage", "vscode_fetchWebPage_internal"), ("WebFetch", "url", ("url",))),
}

# ---------------------------------------------------------------------------
# Factory Droid
#
# Seen: fixtures of 0.81.  One file is one session: a head, then messages with
# Anthropic blocks.  Tokens are only told for the whole session, in the
# <id>.settings.json beside it.
#
# To support a new record, add a line to DROID_STEPS; a new block, to DROID_BLOCKS;
# a new tool, to DROID_TOOLS.
# ---------------------------------------------------------------------------


def droid_roots(env, home):
    return [Path(home) / ".factory" / "sessions"]


def droid_sources(root):
    """The sessions below a folder, or one file."""
    root = Path(root)
    files = [root] if root.is_file() else [Path(entry.path) for entry in walk(os.fspath(root))
                                           if entry.name.endswith(".jsonl") and droid_inside(entry.path)]
    return [Source(str(path), (path, path.with_name(f"{path.stem}.settings.json"))) for path in files]


def droid_inside(path):
    try:
        with open_regular(path) as file:
            return droid_recognise(file.read(1 << 16), path)
    except OSError:
        return False


def droid_recognise(head, path):
    """Whether a file starts with Droid's head, or lies with its sessions and starts with a message."""
    records = [as_dict(load_json(line)) for line in head.split(b"\n", 3)[:3]]
    if any(record.get("type") == "session_start" and record.keys() & {"id", "title", "cwd"} for record in records):
        return True
    return ".factory" in Path(path).parts and any(record.get("type") in DROID_STEPS for record in records)


@tool("droid", "Droid", roots=droid_roots, sources=droid_sources, recognise=droid_recognise,
      where="~/.factory/sessions", seen="0.81")
def parse_droid(source):
    """One file is one session."""
    path = source.path
    with open_regular(path) as file:
        head = file.read(1 << 16)
    if not droid_recognise(head, str(path)):
        return
    starts = [as_dict(load_json(line)) for line in head.split(b"\n", 3)[:3]]
    session_id = next((as_text(record.get("id")) for record in starts if record.get("type") == "session_start"), "")
    session = Session("droid", "factory", session_id or path.stem, utc(os.stat(path).st_mtime))
    run = Transcript(session, DROID_TOOLS)
    droid_settings(run, path.with_name(f"{path.stem}.settings.json"))
    events = transcript_events(run, read_records(path, session), lambda item: droid_record(run, *item))
    yield from only_if_any(session, events)


def droid_settings(run, path):
    """The model, and the tokens of the whole session."""
    try:
        with open_regular(path) as file:
            facts = as_dict(load_json(file.read(1 << 20)))
    except OSError:
        return
    run.model = as_text(facts.get("model")) or None
    run.session.model = run.model
    run.session.provider = as_text(facts.get("providerLock")) or run.session.provider
    usage = as_dict(facts.get("tokenUsage"))
    read, write = whole(usage.get("cacheReadTokens")), whole(usage.get("cacheCreationTokens"))
    run.total = {"input": whole(usage.get("inputTokens")) + read + write, "output": whole(usage.get("outputTokens")),
                 "cache_read": read, "cache_write": write, "reasoning": whole(usage.get("thinkingTokens"))}


def droid_record(run, offset, record):
    """One line."""
    kind, at = as_text(record.get("type")), utc(record.get("timestamp"))
    record_id = as_text(record.get("id")) or f"droid-{offset}"
    run.session.seen_at(at)
    if kind in DROID_STEPS:
        DROID_STEPS[kind](run, record_id, at, record)
    else:
        run.session.unknown_record(kind or "record", record_id, at, record)


def droid_start(run, record_id, at, record):
    """The head: title, folder, version, and whose sub-agent this is."""
    session = run.session
    session.title = as_text(record.get("sessionTitle")).strip() or as_text(record.get("title")).strip() or None
    if session.title == "New Session":
        session.title = None
    session.tool_version = str(record["version"])[:40] if record.get("version") else None
    parent = as_text(record.get("callingSessionId")) or as_text(record.get("parentSessionId"))
    facts = {"cwd": as_text(record.get("cwd")), "parent_session_id": parent, "session_role": "auxiliary" if parent else ""}
    session.attributes.update({name: fact for name, fact in facts.items() if fact})


def droid_message(run, record_id, at, record):
    """A message: of a person its results first, then what was said."""
    message = as_dict(record.get("message"))
    role, content = message.get("role"), message.get("content")
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else \
        [block for block in as_list(content) if isinstance(block, dict)]
    if role not in ("user", "assistant"):
        run.session.unknown_record(f"role {role}", record_id, at, record)
        return
    transcript_close(run)
    spoken = []
    for number, block in enumerate(blocks):
        event_id = record_id if number == 0 else f"{record_id}-{number}"
        step = DROID_BLOCKS.get(as_text(block.get("type")))
        if role == "user" and block.get("type") in ("text", "image"):
            spoken += droid_blocks([block])
        elif step:
            step(run, event_id, at, block)
        else:
            run.session.unknown_record(f"block {block.get('type')}", event_id, at, block)
    if spoken:
        transcript_prompt(run, record_id, at, spoken)
    transcript_close(run)


def droid_blocks(content):
    """Text and pictures as blocks; what the program says to the model in them is left out."""
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    blocks = []
    for block in map(as_dict, as_list(content)):
        source = as_dict(block.get("source"))
        text = droid_said(as_text(block.get("text"))).strip("\n")
        if text.strip():
            blocks.append(text_block(text))
        elif as_text(source.get("data")):
            blocks.append(image_block(as_text(source.get("media_type")) or "image/png", source["data"]))
    return blocks


def droid_said(text):
    """A text without the reminders before and behind it."""
    while text.lstrip().startswith("<system-reminder>") and "</system-reminder>" in text:
        text = text.partition("</system-reminder>")[2]
    return claude_without_reminder(text)


def droid_say(kind, field):
    """A step for what the model says or thinks."""
    def step(run, event_id, at, block):
        text = as_text(block.get(field))
        if text.strip():
            transcript_say(run, kind, event_id, at, [text_block(text)])
    return step


def droid_call(run, event_id, at, block):
    name, given = as_text(block.get("name")), block.get("input")
    call_id = as_text(block.get("id")) or event_id
    patch = as_text(first_of(given, ("input", "patch"))) if name == "ApplyPatch" else ""
    if name and not (patch and transcript_patch(run, call_id, at, name, patch)):
        transcript_call(run, call_id, at, name, given)


DROID_EXIT = re.compile(r"exit(?:ed with)? code:? (-?\d{1,9})")


def droid_result(run, event_id, at, block):
    """A result; output of commands and files as code."""
    call_id, failed = as_text(block.get("tool_use_id")), block.get("is_error") is True
    blocks = droid_blocks(block.get("content"))
    kind = run.tools.get(run.names.get(call_id), ("",))[0]
    said = DROID_EXIT.search(blocks[0].get("text", "")[:200]) if blocks and failed and kind == "ShellCommand" else None
    if kind in ("ShellCommand", "FileRead", "CodeSearch", "FileSearch") and not failed:
        blocks = [numbered_code(part["text"]) if part["type"] == "Text" else part for part in blocks]
    transcript_result(run, call_id, at, blocks, failed=failed, exit_code=int(said[1]) if said else None)


def droid_compaction(run, record_id, at, record):
    text = as_text(first_of(record, ("summaryText", "summary")))
    run.session.event("Custom", record_id, at, [text_block(text)] * bool(text), kind="compaction")


def droid_nothing(run, record_id, at, record):
    """What shows nothing: the list of things to do also stands in the call that changes it."""


DROID_STEPS = {
    "session_start": droid_start,
    "message": droid_message,
    "compaction_state": droid_compaction,
    "todo_state": droid_nothing,
    "session_end": droid_nothing,
}
DROID_BLOCKS = {
    "text": droid_say("AgentMessage", "text"),
    "thinking": droid_say("Thinking", "thinking"),
    "reasoning": droid_say("Thinking", "text"),
    "redacted_thinking": droid_nothing,
    "tool_use": droid_call,
    "tool_result": droid_result,
}
DROID_TOOLS = {
    "Execute": ("ShellCommand", "command", ("command",)),
    "Read": ("FileRead", "path", ("file_path", "path")),
    "Create": ("FileCreate", "path", ("file_path", "path")),
    "Write": ("FileCreate", "path", ("file_path", "path")),
    "Edit": ("FileEdit", "path", ("file_path", "path")),
    "MultiEdit": ("FileEdit", "path", ("file_path", "path")),
    "Grep": ("CodeSearch", "query", ("pattern",)),
    "Glob": ("FileSearch", "pattern", ("pattern", "patterns")),
    "LS": ("FileSearch", "pattern", ("directory_path", "path")),
    "WebSearch": ("WebSearch", "query", ("query",)),
    "FetchUrl": ("WebFetch", "url", ("url",)),
}

# ---------------------------------------------------------------------------
# Goose
#
# Seen in public sources only: sessions.db with schema versions 5 to 7, and the
# .jsonl files before it, which are imported once and stay where they are.  Results
# stand in messages of the user; a conversation that is compacted or edited is
# written anew, so that row numbers do not last.  Tokens are told for a session.
#
# To support a new part of a message, add a line to GOOSE_PARTS; a new tool, to GOOSE_TOOLS.
# ---------------------------------------------------------------------------


def goose_roots(env, home):
    """The data folders of every system and age."""
    home = Path(home)
    share = Path(env.get("XDG_DATA_HOME") or home / ".local" / "share")
    mac, windows = home / "Library" / "Application Support", Path(env.get("APPDATA") or home / "AppData" / "Roaming")
    own = [Path(env["GOOSE_PATH_ROOT"]).expanduser() / "data" / "sessions"] if env.get("GOOSE_PATH_ROOT") else []
    return [*own, share / "goose" / "sessions", share / "goose" / "sessions.db", share / "Block" / "goose" / "sessions",
            mac / "goose" / "sessions", mac / "Block" / "goose" / "sessions",
            windows / "Block" / "goose" / "data" / "sessions", home / ".goose" / "sessions"]


def goose_sources(root):
    """The databases below a folder, and the older files that are in none of them; or one file."""
    root = Path(root)
    if root.is_file():
        return [goose_source(root)]
    files = [Path(entry.path) for entry in walk(os.fspath(root))
             if entry.name.endswith((".db", ".jsonl")) and goose_inside(entry.path)]
    databases = [path for path in files if path.suffix == ".db"]
    imported = {session_id for path in databases for session_id in goose_ids(path)}
    return [goose_source(path) for path in files if path.suffix == ".db" or path.stem not in imported]


def goose_source(path):
    return Source(str(path), database_files(path) if path.suffix == ".db" else (path,))


def goose_inside(path):
    try:
        with open_regular(path) as file:
            return goose_recognise(file.read(1 << 16), path)
    except OSError:
        return False


def goose_ids(path):
    """The ids of the sessions in a database."""
    try:
        with open_database(path) as database:
            return [row["id"] for row in query(database, "SELECT id FROM sessions")] if database else []
    except OSError:
        return []


def goose_recognise(head, path):
    """Whether a file is a database with Goose's tables, or starts with the older files' head or message."""
    if head.startswith(SQLITE_HEAD):
        return b"content_json" in head and b"working_dir" in head
    first = as_dict(load_json(head.partition(b"\n")[0]))
    return str(path).endswith(".jsonl") and ("working_dir" in first and "message_count" in first or (
        first.get("role") in ("user", "assistant") and "created" in first and isinstance(first.get("content"), list)))


@tool("goose", "Goose", roots=goose_roots, sources=goose_sources, recognise=goose_recognise,
      where="~/.local/share/goose/sessions, or GOOSE_PATH_ROOT", seen="databases 5 to 7, JSON lines before")
def parse_goose(source):
    """All sessions of a database, or the one of an older file."""
    path = source.path
    if path.suffix == ".jsonl":
        yield from goose_file(path)
        return
    with open_database(path) as database:
        if database is None or not {"id", "working_dir"} <= set(table_columns(database, "sessions")) or not {
                "id", "session_id", "role", "content_json"} <= set(table_columns(database, "messages")):
            return
        columns = column_list(database, "sessions", GOOSE_COLUMNS)
        for facts in list(query(database, f"SELECT {columns} FROM sessions ORDER BY created_at, id")):
            rows = goose_rows(database, facts["id"])
            for session in goose_session(facts, str(facts["id"]), rows):
                session.stamp = f"{list(facts.values())}{goose_count(database, facts['id'])}"
                yield session


GOOSE_COLUMNS = ("id", "name", "description", "user_set_name", "session_type", "working_dir", "created_at", "updated_at",
                 "total_tokens", "input_tokens", "output_tokens", "accumulated_total_tokens", "accumulated_input_tokens",
                 "accumulated_output_tokens", "provider_name", "model_config_json", "schedule_id", "parent_session_id")
GOOSE_MESSAGE = ("id", "message_id", "role", "content_json", "created_timestamp", "timestamp", "metadata_json")


def goose_count(database, session_id):
    """How many messages a session has, and the number of the latest row, which a conversation written anew changes."""
    sql = "SELECT count(*) AS rows, max(id) AS latest FROM messages WHERE session_id = ?"
    return [list(row.values()) for row in query(database, sql, [session_id])]


def goose_rows(database, session_id):
    """A function that yields (id, time, role, parts, metadata) of a session's messages."""
    columns = column_list(database, "messages", GOOSE_MESSAGE)

    def messages(session):
        sql = f"SELECT {columns} FROM messages WHERE session_id = ? ORDER BY created_timestamp, id"
        for number, row in enumerate(query(database, sql, [session_id], session)):
            at = utc(row["created_timestamp"]) or utc(row["timestamp"])
            yield (as_text(row["message_id"]) or f"goose-{number}", at, row["role"], json_value(row["content_json"]),
                   as_dict(json_value(row["metadata_json"])))
    return messages


def goose_file(path):
    """Yield the session of an older file: perhaps a head, then messages."""
    with open_regular(path) as file:
        head = file.read(1 << 16)
    if not goose_recognise(head, str(path)):
        return
    facts = as_dict(load_json(head.partition(b"\n")[0]))

    def messages(session):
        for offset, record in read_records(path, session):
            if "role" in record or "content" in record:
                yield (as_text(record.get("id")) or f"goose-{offset}", utc(record.get("created")), record.get("role"),
                       record.get("content"), as_dict(record.get("metadata")))
    facts = facts if "role" not in facts else {}
    yield from goose_session(facts, path.stem, messages, utc(os.stat(path).st_mtime))


def goose_session(facts, session_id, messages, at=None):
    """[the session of these facts and messages], or [] if it shows nothing."""
    session = Session("goose", as_text(facts.get("provider_name")) or "goose", session_id, utc(facts.get("created_at")) or at)
    run = GooseRun(session)
    run.model = as_text(as_dict(json_value(facts.get("model_config_json"))).get("model_name")) or None
    session.model = run.model
    title = as_text(facts.get("name")).strip() or as_text(facts.get("description")).strip()
    session.title = title if title and title not in ("CLI Session", "New session", session_id) else None
    kind, parent = as_text(facts.get("session_type")), as_text(facts.get("parent_session_id"))
    attributes = {"cwd": as_text(facts.get("working_dir")), "session_type": kind if kind != "user" else "",
                  "session_role": "auxiliary" if kind in ("sub_agent", "hidden") else "", "parent_session_id": parent,
                  "schedule_id": as_text(facts.get("schedule_id"))}
    session.attributes.update({name: fact for name, fact in attributes.items() if fact})
    for moment in ("created_at", "updated_at"):
        session.seen_at(utc(facts.get(moment)) if facts.get(moment) else None)
    run.total = {name: whole(facts.get(f"accumulated_{name}_tokens")) or whole(facts.get(f"{name}_tokens"))
                 for name in ("input", "output")}
    return only_if_any(session, transcript_events(run, messages(session), lambda message: goose_message(run, *message)))


class GooseRun(Transcript):
    """A session while it is read."""

    def __init__(self, session):
        super().__init__(session, GOOSE_TOOLS)
        self.reply = None           # latest event, if that is a reply that may go on


def goose_message(run, message_id, at, role, parts, metadata):
    """One message; what is not meant for the person is left out."""
    if isinstance(parts, str):
        parts = [{"type": "text", "text": parts}]
    if not isinstance(parts, list):
        run.session.bad_lines += 1
        return
    if metadata.get("userVisible") is False:
        return
    prompt = []
    for number, part in enumerate(map(as_dict, parts)):
        part_id = message_id if number == 0 else f"{message_id}-{number}"
        kind = as_text(part.get("type"))
        if role == "user" and kind in ("text", "image"):
            prompt += goose_spoken(part)
        elif kind in GOOSE_PARTS:
            GOOSE_PARTS[kind](run, part_id, at, part)
        else:
            goose_stop(run)
            run.session.unknown_record(f"part {kind}", part_id, at, part)
    if prompt:
        goose_stop(run)
        transcript_prompt(run, message_id, at, prompt)
    transcript_close(run)
    if run.reply is not None:
        run.session.hold(run.reply)


def goose_spoken(part):
    """Blocks of a text or picture; the state of things that Goose puts into prompts is left out."""
    if part.get("type") == "image":
        return [image_block(as_text(part.get("mimeType")) or "image/png", part["data"])] if as_text(part.get("data")) else []
    text = as_text(part.get("text"))
    if text.lstrip().startswith("<turn-context>"):
        text = text.partition("</turn-context>")[2]
    return [text_block(text)] if text.strip() else []


def goose_stop(run):
    """The latest reply does not go on."""
    event, run.reply = run.reply, None
    if event is not None and not transcript_awaits(run, event):
        run.session.release(event)


def goose_text(run, part_id, at, part):
    """What the model says.  Older versions split a reply over many messages."""
    text = as_text(part.get("text"))
    if run.reply is not None and run.session.waiting(run.reply):
        run.reply["content"]["blocks"][0]["text"] += text
    elif text.strip():
        run.reply = transcript_say(run, "AgentMessage", part_id, at, [text_block(text)])


def goose_thinking(run, part_id, at, part):
    text = as_text(part.get("thinking"))
    if text.strip():
        goose_stop(run)
        transcript_say(run, "Thinking", part_id, at, [text_block(text)])


def goose_image(run, part_id, at, part):
    goose_stop(run)
    if blocks := goose_spoken(part):
        transcript_say(run, "AgentMessage", part_id, at, blocks)


def goose_request(run, part_id, at, part):
    """A call; one that the model wrote wrongly has an error in its place."""
    goose_stop(run)
    call, call_id = as_dict(part.get("toolCall")), as_text(part.get("id")) or part_id
    value = as_dict(call.get("value")) or call
    name, given = as_text(value.get("name")) or "unknown", as_dict(value.get("arguments"))
    action = as_text(given.get("command")) if name.endswith("text_editor") else ""
    transcript_call(run, call_id, at, name, given, known_as=f"{name.rpartition('__')[2]} {action}".strip())
    if call.get("status") == "error":
        transcript_result(run, call_id, at, [text_block(as_text(call.get("error")) or "The call is not valid.")], failed=True)


def goose_response(run, part_id, at, part):
    """A result, of any version: parts, parts in an object, or an error."""
    goose_stop(run)
    result, call_id = as_dict(part.get("toolResult")), as_text(part.get("id"))
    value = result.get("value")
    failed = result.get("status") == "error" or as_dict(value).get("isError") is True
    content = as_list(value) or as_list(as_dict(value).get("content"))
    blocks = []
    for item in map(as_dict, content):
        audience = as_dict(item.get("annotations")).get("audience")
        if not isinstance(audience, list) or "user" in audience or len(content) == 1:
            blocks += goose_spoken(item)
    blocks = blocks or [block for item in map(as_dict, content) for block in goose_spoken(item)]
    if as_text(result.get("error")):
        blocks.append(text_block(result["error"]))
    transcript_result(run, call_id, at, blocks, failed=failed)


def goose_notice(run, part_id, at, part):
    text = as_text(part.get("msg")) or as_text(part.get("text"))
    goose_stop(run)
    if text.strip():
        run.session.event("SystemMessage", part_id, at, [text_block(text)], attributes={"meta": "notification"})


def goose_compaction(run, part_id, at, part):
    goose_stop(run)
    text = as_text(part.get("msg"))
    run.session.event("Custom", part_id, at, [text_block(text)] * bool(text), kind="compaction")


def goose_nothing(run, part_id, at, part):
    """What shows nothing: encrypted thinking, and questions whose answers are results."""


GOOSE_PARTS = {
    "text": goose_text,
    "image": goose_image,
    "thinking": goose_thinking,
    "reasoning": goose_thinking,
    "redactedThinking": goose_nothing,
    "toolRequest": goose_request,
    "frontendToolRequest": goose_request,
    "toolResponse": goose_response,
    "toolConfirmationRequest": goose_nothing,
    "actionRequired": goose_nothing,
    "systemNotification": goose_notice,
    "conversationCompacted": goose_compaction,
}
# Tools without the name of their extension; the editor's by what they do.
GOOSE_TOOLS = {
    "shell": ("ShellCommand", "command", ("command",)),
    "read_file": ("FileRead", "path", ("path",)),
    "write": ("FileCreate", "path", ("path",)),
    "write_file": ("FileCreate", "path", ("path",)),
    "edit": ("FileEdit", "path", ("path",)),
    "edit_file": ("FileEdit", "path", ("path",)),
    "text_editor view": ("FileRead", "path", ("path",)),
    "text_editor write": ("FileCreate", "path", ("path",)),
    "text_editor str_replace": ("FileEdit", "path", ("path",)),
    "text_editor edit_file": ("FileEdit", "path", ("path",)),
    "text_editor insert": ("FileEdit", "path", ("path",)),
    "tree": ("FileSearch", "pattern", ("path",)),
    "web_search": ("WebSearch", "query", ("query",)),
    "web_scrape": ("WebFetch", "url", ("url",)),
    "fetch": ("WebFetch", "url", ("url",)),
}

# ---------------------------------------------------------------------------
# Kimi: Kimi Code, and Kimi CLI before it
#
# Seen: wire.jsonl of protocol 1.4 (sessions/<project>/<session>/agents/<agent>/), in
# which turn.prompt repeats the prompt and usage.record a step's usage, and in public
# parsers the wire.jsonl of Kimi CLI with {"timestamp", "message": {"type", "payload"}}
# lines.  The agent `main` is the session, the others are its sub-agents.
#
# To support a new record, add a line to KIMI_STEPS; a new tool, to KIMI_TOOLS.
# ---------------------------------------------------------------------------


def kimi_roots(env, home):
    """The sessions of Kimi Code and of Kimi CLI, on every system."""
    code = Path(env["KIMI_CODE_HOME"]).expanduser() if env.get("KIMI_CODE_HOME") else Path(home) / ".kimi-code"
    older = Path(env["KIMI_SHARE_DIR"]).expanduser() if env.get("KIMI_SHARE_DIR") else Path(home) / ".kimi"
    return [code / "sessions", older / "sessions"]


def kimi_sources(root):
    """The sessions below a folder, each with its sub-agents' files, or one file."""
    root = Path(root)
    if root.is_file():
        return [kimi_source(root)]
    files = [Path(entry.path) for entry in walk(os.fspath(root))
             if entry.name == "wire.jsonl" or entry.name.endswith(".jsonl") and kimi_inside(entry.path)]
    mains = {path.parents[2] for path in files if kimi_agent_name(path) == "main"}
    return [kimi_source(path) for path in files
            if kimi_agent_name(path) in (None, "main") or path.parents[2] not in mains]


def kimi_inside(path):
    try:
        with open_regular(path) as file:
            return kimi_recognise(file.read(1 << 16), path)
    except OSError:
        return False


def kimi_agent_name(path):
    """The agent whose file this is in the newer layout, or None."""
    return path.parent.name if path.name == "wire.jsonl" and path.parent.parent.name == "agents" else None


def kimi_source(path):
    """A file with what completes it: the session's state, and the files of its sub-agents."""
    agent = kimi_agent_name(path)
    if agent is None:
        return Source(kimi_id(path), (path, path.with_name("state.json")))
    others = [other for other in sorted(path.parents[1].glob("*/wire.jsonl")) if agent == "main" and other != path]
    return Source(kimi_id(path), (path, path.parents[2] / "state.json", *others))


def kimi_id(path):
    """The session's id: the name of its folder; a sub-agent that stands alone has its own behind that."""
    agent = kimi_agent_name(path)
    if agent:
        return path.parents[2].name.removeprefix("session_") + (f".{agent}" if agent != "main" else "")
    return path.parent.name.removeprefix("session_") if path.name == "wire.jsonl" else path.stem


def kimi_recognise(head, path):
    """Whether the first line is the envelope that every wire file starts with."""
    first = as_dict(load_json(head.partition(b"\n")[0]))
    return first.get("type") == "metadata" and "protocol_version" in first


@tool("kimi", "Kimi CLI", roots=kimi_roots, sources=kimi_sources, recognise=kimi_recognise,
      where="~/.kimi-code/sessions, ~/.kimi/sessions, or KIMI_CODE_HOME, KIMI_SHARE_DIR",
      seen="protocol 1.4, Kimi CLI before")
def parse_kimi(source):
    """One session with its sub-agents."""
    path = source.path
    with open_regular(path) as file:
        if not kimi_recognise(file.read(1 << 16), str(path)):
            return
    session = Session("kimi", "moonshot", kimi_id(path), utc(os.stat(path).st_mtime))
    run = KimiRun(session)
    agent = kimi_agent_name(path)
    if agent not in (None, "main"):
        session.attributes.update(session_role="auxiliary", parent_session_id=kimi_id(path).removesuffix(f".{agent}"))
    agents = sorted(filter(None, map(kimi_agent, source.files[2:])))
    events = transcript_events(run, kimi_stream(run, path, agents), lambda item: kimi_record(run, *item))
    kimi_state(session, source.files[1] if len(source.files) > 1 else path.with_name("state.json"), path)
    yield from only_if_any(session, events)


class KimiRun(Transcript):
    """A session while it is read."""

    def __init__(self, session):
        super().__init__(session, KIMI_TOOLS)
        self.agent = None           # the sub-agent whose file is being read
        self.prefix = ""            # of the ids in that file
        self.record_id = ""
        self.at = None
        self.step_usage = None      # of the latest step, until a usage record repeats it
        self.responses = set()


def kimi_agent(path):
    """(start, path) of a sub-agent's file, or None if it is none."""
    try:
        with open_regular(path) as file:
            head = file.read(1 << 16)
    except OSError:
        return None
    first = as_dict(load_json(head.partition(b"\n")[0]))
    return (utc(first.get("created_at")) or "", path) if kimi_recognise(head, str(path)) else None


def kimi_stream(run, path, agents):
    """Yield (agent or None, offset, record), each sub-agent's where it began."""
    waiting = deque(agents)
    for offset, record in read_records(path, run.session):
        at = utc(record.get("time"))
        while waiting and at and at >= waiting[0][0]:
            yield from kimi_agent_records(run, waiting.popleft()[1])
        yield None, offset, record
    for _, agent in waiting:
        yield from kimi_agent_records(run, agent)


def kimi_agent_records(run, path):
    """A sub-agent's records between two that mark its begin and end."""
    name = kimi_agent_name(path)
    yield name, -1, {"type": "agent.begin"}
    try:
        for offset, record in read_records(path, run.session):
            yield name, offset, record
    except OSError:
        run.session.bad_lines += 1
    yield name, -1, {"type": "agent.end"}


def kimi_record(run, agent, offset, record):
    """One record of any generation."""
    run.agent, run.prefix = agent, f"{agent}:" if agent else ""
    message = record.get("message")
    if "timestamp" in record and isinstance(message, dict):
        record = {**kimi_modern(as_text(message.get("type")), as_dict(message.get("payload"))), "time": record["timestamp"]}
    event = as_dict(record.get("event"))
    run.at = utc(record.get("time")) or (utc(record.get("created_at")) if offset == 0 else None)
    run.session.seen_at(run.at)
    run.record_id = f"{run.prefix}{as_text(event.get('uuid')) or f'kimi-{offset}'}"
    kind = as_text(record.get("type"))
    if kind == "context.append_loop_event":
        kind = f"event/{as_text(event.get('type'))}"
    step = KIMI_STEPS.get(kind)
    if step:
        step(run, event if kind.startswith("event/") else record)
    elif not kind.startswith(KIMI_SILENT):
        run.session.unknown_record(kind or "record", run.record_id, run.at, record)


def kimi_state(session, path, wire):
    """Title, folder and version from state.json; the folder of an older session from its project's hash."""
    facts = {}
    try:
        with open_regular(path) as file:
            facts = as_dict(load_json(file.read(1 << 20)))
    except OSError:
        pass
    session.title = as_text(facts.get("title")).strip() or None
    cwd = as_text(facts.get("workDir")) or kimi_older_folder(wire)
    if cwd:
        session.attributes["cwd"] = cwd
    for name in ("createdAt", "updatedAt"):
        session.seen_at(utc(facts.get(name)) if facts.get(name) else None)


def kimi_older_folder(wire):
    """The working directory of which Kimi CLI's kimi.json has the hash that names the project's folder; or None."""
    try:
        with open_regular(wire.parents[3] / "kimi.json") as file:
            known = as_list(as_dict(load_json(file.read(1 << 20))).get("work_dirs"))
    except (OSError, IndexError):
        return None
    paths = [as_text(as_dict(item).get("path")) for item in known]
    name = wire.parents[1].name
    return next((path for path in paths if path and md5(path.encode(), usedforsecurity=False).hexdigest() == name), None)


# Kimi: the lines of Kimi CLI, as the newer ones would be ---------------------

def kimi_modern(kind, payload):
    """A message of Kimi CLI as a record of Kimi Code."""
    maker = KIMI_OLDER.get(kind)
    if maker:
        record = maker(payload)
        return record if "message" in record else {"type": "context.append_loop_event", "event": record}
    return {"type": "older" if kind in KIMI_OLDER_SILENT else kind}


def kimi_older_prompt(payload):
    return {"type": "context.append_message",
            "message": {"role": "user", "content": payload.get("user_input"), "origin": {"kind": "user"}}}


def kimi_older_call(payload):
    function = as_dict(payload.get("function"))
    given = json_value(function.get("arguments"))
    if isinstance(given, dict) and given.get("edit"):
        given["edits"] = as_list(given["edit"]) or [given["edit"]]
    return {"type": "tool.call", "toolCallId": payload.get("id"), "name": function.get("name"),
            "args": given if isinstance(given, dict) else function.get("arguments")}


def kimi_older_result(payload):
    value = payload.get("return_value", payload.get("result"))
    failed = as_dict(value).get("is_error") is True
    output = as_dict(value).get("output") or (as_dict(value).get("message") if isinstance(value, dict) else value)
    return {"type": "tool.result", "toolCallId": payload.get("tool_call_id"), "result": {"output": output, "isError": failed}}


def kimi_older_usage(payload):
    usage = as_dict(payload.get("token_usage"))
    names = {"input_other": "inputOther", "output": "output", "input_cache_read": "inputCacheRead",
             "input_cache_creation": "inputCacheCreation"}
    return {"type": "step.end", "messageId": payload.get("message_id"),
            "usage": {new: usage.get(old) for old, new in names.items()}}


KIMI_OLDER = {
    "TurnBegin": kimi_older_prompt,
    "SteerInput": kimi_older_prompt,
    "ContentPart": lambda payload: {"type": "content.part", "part": payload},
    "TextPart": lambda payload: {"type": "content.part", "part": {**payload, "type": "text"}},
    "ThinkPart": lambda payload: {"type": "content.part", "part": {**payload, "type": "think"}},
    "ToolCall": kimi_older_call,
    "ToolResult": kimi_older_result,
    "StatusUpdate": kimi_older_usage,
    "CompactionBegin": lambda payload: {"type": "compaction"},
    "StepInterrupted": lambda payload: {"type": "step.interrupted"},
}
KIMI_OLDER_SILENT = ("StepBegin", "TurnEnd", "CompactionEnd", "ToolCallPart", "ApprovalRequest", "ApprovalResponse",
                     "ApprovalRequestResolved", "StepRetry", "MCPLoadingBegin", "MCPLoadingEnd", "SubagentEvent")


# Kimi: steps ----------------------------------------------------------------

def kimi_message(run, record):
    """context.append_message: a prompt, or what was said in a person's name."""
    message = as_dict(record.get("message"))
    text, images = codex_content(message.get("content"))
    origin = as_text(as_dict(message.get("origin")).get("kind")) or "user"
    blocks = [text_block(text)] * bool(text.strip()) + images
    if not blocks or origin == "injection" or text.startswith("<system-reminder>"):
        return
    if message.get("role") == "assistant":
        transcript_say(run, "AgentMessage", run.record_id, run.at, blocks, run.agent)
    elif run.agent or origin != "user":
        if not run.agent and as_dict(message["origin"]).get("name") == "subagent":
            run.session.attributes.setdefault("session_role", "auxiliary")
        run.session.event("SystemMessage", run.record_id, run.at, blocks, task=run.agent,
                          attributes={"meta": "agent_prompt" if run.agent else "notification"})
    elif message.get("role") == "user":
        transcript_prompt(run, run.record_id, run.at, blocks)


def kimi_part(run, event):
    """event/content.part: what the model thinks or says."""
    part = as_dict(event.get("part"))
    kind = "Thinking" if part.get("type") == "think" else "AgentMessage"
    text, images = codex_content([part])
    text = as_text(part.get("think")) or text
    if text.strip() or images:
        transcript_say(run, kind, run.record_id, run.at, [text_block(text)] * bool(text.strip()) + images, run.agent)


def kimi_call(run, event):
    call_id, name = as_text(event.get("toolCallId")) or run.record_id, as_text(event.get("name"))
    if name:
        transcript_call(run, run.prefix + call_id, run.at, name, event.get("args"), run.agent)


KIMI_EXIT = re.compile(r"exit code:? (-?\d{1,9})\.?\s*$")


def kimi_result(run, event):
    """event/tool.result: output as text or parts; a failed command ends with its exit code."""
    call_id, result = run.prefix + as_text(event.get("toolCallId")), event.get("result")
    output = as_dict(result).get("output", result if not isinstance(result, dict) else None)
    text, blocks = codex_content(output) if isinstance(output, (str, list)) else ("", [json_block(output)] * bool(output))
    failed = as_dict(result).get("isError") is True
    kind = run.tools.get(run.names.get(call_id), ("",))[0]
    said = KIMI_EXIT.search(text[-100:]) if kind == "ShellCommand" else None
    code = int(said[1]) if said else 0 if kind == "ShellCommand" and not failed else None
    shown = text_block(text) if failed or not kind else numbered_code(text) if kind == "FileRead" else code_block(text)
    transcript_result(run, call_id, run.at, [shown] * bool(text) + blocks, failed=failed, exit_code=code, task=run.agent)


def kimi_counts(usage):
    """Counts of a usage object, in which the input has not the cache."""
    usage = as_dict(usage)
    read, write = whole(usage.get("inputCacheRead")), whole(usage.get("inputCacheCreation"))
    return {"input": whole(usage.get("inputOther")) + read + write, "output": whole(usage.get("output")),
            "cache_read": read, "cache_write": write}


def kimi_step_end(run, event):
    """event/step.end: one response with its usage."""
    counts, response = kimi_counts(event.get("usage")), as_text(event.get("messageId"))
    if response and run.prefix + response in run.responses:
        run.usage["duplicates_removed"] += 1
        run.usage["raw_input"] += counts["input"]
        run.usage["raw_output"] += counts["output"]
    else:
        run.responses.add(run.prefix + response)
        transcript_usage(run, counts, None, run.agent)
    run.step_usage = counts
    transcript_close(run, run.agent)


def kimi_usage_record(run, record):
    """usage.record repeats the step before it, or is all that tells of a compaction."""
    counts, step, run.step_usage = kimi_counts(record.get("usage")), run.step_usage, None
    kimi_model(run, {"modelAlias": record.get("model")})
    if counts == step:
        run.usage["duplicates_removed"] += any(counts.values())
        run.usage["raw_input"] += counts["input"]
        run.usage["raw_output"] += counts["output"]
    else:
        transcript_close(run, run.agent)
        transcript_usage(run, counts, None, run.agent)


def kimi_model(run, record):
    """config.update: the model, the folder."""
    model, cwd = as_text(record.get("modelAlias")), as_text(record.get("cwd"))
    run.model = model or run.model
    if model and not run.agent:
        run.session.model = model
    if cwd and not run.agent:
        run.session.attributes.setdefault("cwd", cwd)


def kimi_marker(kind, field=None):
    """A step that marks a place in the session."""
    def step(run, record):
        text = as_text(record.get(field))
        transcript_close(run, run.agent)
        run.session.event("Custom", run.record_id, run.at, [text_block(text)] * bool(text), task=run.agent, kind=kind)
    return step


def kimi_agent_begin(run, record):
    """A sub-agent's file begins, behind the call that started it."""
    calls = [(call_id, given) for call_id, (_, given) in run.calls.items() if run.names[call_id] in ("Agent", "Task")]
    call_id, given = calls[-1] if calls else (None, {})
    title = as_text(as_dict(given).get("description")) or run.agent
    run.session.event("TaskStart", f"{run.agent}-start", None, task=run.agent, title=title,
                      attributes={"call_id": call_id} if call_id else None)


def kimi_agent_end(run, record):
    transcript_close(run, run.agent)
    run.session.event("TaskEnd", f"{run.agent}-end", None, task=run.agent)


KIMI_STEPS = {
    "agent.begin": kimi_agent_begin,
    "agent.end": kimi_agent_end,
    "context.append_message": kimi_message,
    "context.apply_compaction": kimi_marker("compaction", "summary"),
    "event/compaction": kimi_marker("compaction"),
    "context.clear": kimi_marker("rollback"),
    "context.undo": kimi_marker("rollback"),
    "config.update": kimi_model,
    "usage.record": kimi_usage_record,
    "event/content.part": kimi_part,
    "event/tool.call": kimi_call,
    "event/tool.result": kimi_result,
    "event/step.end": kimi_step_end,
    "event/step.interrupted": kimi_marker("interrupt"),
}
KIMI_SILENT = ("metadata", "older", "tools.", "llm.", "turn.", "permission.", "plan_mode.", "full_compaction.", "event/step.")
KIMI_TOOLS = {
    **dict.fromkeys(("Bash", "Shell"), ("ShellCommand", "command", ("command",))),
    **dict.fromkeys(("Read", "ReadFile", "ReadMediaFile"), ("FileRead", "path", ("path", "file_path"))),
    **dict.fromkeys(("Write", "WriteFile"), ("FileCreate", "path", ("path", "file_path"))),
    **dict.fromkeys(("Edit", "StrReplaceFile"), ("FileEdit", "path", ("path", "file_path"))),
    "Grep": ("CodeSearch", "query", ("pattern",)),
    "Glob": ("FileSearch", "pattern", ("pattern",)),
    **dict.fromkeys(("WebSearch", "SearchWeb"), ("WebSearch", "query", ("query",))),
    "FetchURL": ("WebFetch", "url", ("url",)),
}

# ---------------------------------------------------------------------------
# Cline, Roo Code, Kilo Code
#
# Seen: task folders (tasks/<id>/api_conversation_history.json, ui_messages.json) of the VS Code
# extensions, from calls written as XML into the reply to today's tool_use blocks, and the
# sessions of Cline's SDK (CLI 3.0.65; sessions/<id>/<id>.json, <id>.messages.json, and
# agent_….messages.json for each sub-agent, which is a session of its own).
#
# All these files are rewritten as a whole.  The conversation comes from the API's history;
# ui_messages.json, where it is there, knows the usage, and alone it makes a session, too.
# To support a new tool, add its name to CLINE_CALLS; a new record of the UI, to CLINE_UI_STEPS.
# ---------------------------------------------------------------------------

CLINE_EXTENSIONS = {"cline": "saoudrizwan.claude-dev", "roo-code": "rooveterinaryinc.roo-cline",
                    "kilo-code": "kilocode.kilo-code"}
CLINE_HISTORY, CLINE_UI, CLINE_SDK = "api_conversation_history.json", "ui_messages.json", ".messages.json"
CLINE_TASK_FILES = (CLINE_HISTORY, CLINE_UI, "task_metadata.json", "history_item.json")
CLINE_TASK_ID = re.compile(r"\d{10,16}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


def cline_roots(env, home, name="cline"):
    """Where the extension keeps its tasks in each editor; for Cline itself also the folders of its CLI."""
    roots = [folder / "globalStorage" / CLINE_EXTENSIONS[name] / "tasks" for folder in editor_folders(env, home)]
    if name == "cline":
        data = Path(env.get("CLINE_DATA_DIR") or Path(env.get("CLINE_DIR") or home / ".cline") / "data")
        roots += [data / "tasks", Path(env.get("CLINE_SESSION_DATA_DIR") or data / "sessions")]
    return roots


def cline_sources(root):
    """The tasks and sessions below a folder, or one of their files.  Each comes with the files that say more of it."""
    paths = files_of(root)
    for path in paths:
        folder, name = os.path.split(path)
        beside = {other: Path(folder, other) for other in CLINE_TASK_FILES}
        if name.endswith(CLINE_SDK):
            stem = os.path.basename(folder) if name.startswith("agent_") else name.removesuffix(CLINE_SDK)
            yield Source(path, (Path(path), Path(folder, f"{stem}.json")))
        elif name == CLINE_HISTORY or name == CLINE_UI and (len(paths) == 1 or not beside[CLINE_HISTORY].exists()):
            yield Source(folder, (beside.pop(name), *beside.values()))


def cline_recognise(head, path, name="cline"):
    """Whether a file is a task's or a session's of this one of the three extensions."""
    extension = next((name for name, folder in CLINE_EXTENSIONS.items() if folder in path), "cline")
    file, start = os.path.basename(path), head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if extension != name:
        return False
    if file in (CLINE_HISTORY, CLINE_UI):
        return start.startswith(b"[")
    known = b'"agent"' in head or b'"sessionId"' in head
    return file.endswith(CLINE_SDK) and start.startswith(b"{") and known


class ClineRun:
    """Where the reading of a task or a session stands."""

    def __init__(self, session, path):
        self.talk = Transcript(session, CLINE_CALLS)
        self.session = session
        self.path = path
        self.places = itertools.count()     # numbers messages, which have no ids in task folders
        self.times = {}                     # place of a message -> when the UI showed it
        self.requests = deque()             # (time, counts) that the UI knows and no message has yet
        self.by_ui = False                  # whether usage comes from there
        self.cost = 0.0
        self.heading = None                 # call whose result is the next text
        self.output = None                  # (time, call id, texts) of a command whose output comes in pieces


def cline_parser(name):
    """The parser of one of the extensions; they differ by name only."""
    def parse(source):
        path = Path(source.path)
        with open_regular(path) as file:
            head = file.read(1 << 16)
        if not any(cline_recognise(head, str(path), name) for name in CLINE_EXTENSIONS):
            return
        session = Session(name, "unknown", cline_id(path, head), utc(path.stat().st_mtime))
        run = ClineRun(session, path)
        step, mark = cline_message, "role"
        if path.name == CLINE_UI:
            step, mark = cline_ui_message, "ts"
        elif path.name == CLINE_HISTORY:
            cline_read_ui(run, path.with_name(CLINE_UI))
        parts = json_parts(path, session, ("messages",), mark)
        events = transcript_events(run.talk, parts, lambda part: cline_part(run, step, *part),
                                   lambda: cline_finish(run))
        yield from only_if_any(session, cline_with_header(run, source, events))
    return parse


def cline_id(path, head):
    """The id of a session; a task is named by its folder, and where that is none of a task, by its first time."""
    if path.name.endswith(CLINE_SDK):
        return claude_first(head, b"sessionId") or path.name.removesuffix(CLINE_SDK)
    if CLINE_TASK_ID.fullmatch(path.parent.name):
        return path.parent.name
    first = re.search(rb'"ts":\s*(\d{10,16})\b', head)
    return first[1].decode() if first else f"task-{sha256(head[:512]).hexdigest()[:16]}"


def cline_with_header(run, source, events):
    """The events, and when they are used up the facts of the whole session."""
    yield from events
    session = run.session
    if run.path.name.endswith(CLINE_SDK):
        cline_sdk_header(run, as_dict(load_json(claude_head(str(source.files[-1]), MAX_LINE))))
    else:
        cline_task_header(run)
    if session.provider == "unknown":
        session.provider = provider_of(session.model)
    if run.cost:
        session.attributes["usage"]["cost_usd"] = round(run.cost, 6)


def cline_part(run, step, key, value):
    """A message, or a fact about the file."""
    if key in (None, "messages") and isinstance(value, dict):
        step(run, value)
    elif key in (None, "messages"):
        run.session.bad_lines += 1
    elif key == "origin":
        cline_origin(run.session, as_dict(value))


def cline_finish(run):
    """Requests that no message was written for have been paid all the same."""
    cline_flush_output(run)
    transcript_close(run.talk)
    for _, counts in run.requests:
        transcript_usage(run.talk, counts)


# Cline: facts of the whole session ------------------------------------------

def cline_origin(session, origin):
    """What the SDK says about where a session comes from; a sub-agent names its parent."""
    session.tool_version = as_text(origin.get("version")) or None
    parent = as_text(origin.get("parentThreadId"))
    if as_text(origin.get("source")):
        session.attributes["source"] = origin["source"]
    if parent:
        session.attributes.update(session_role="auxiliary", parent_session_id=parent)
        session.related.append(parent)


def cline_sdk_header(run, facts):
    """The facts beside an SDK session; a sub-agent shares the place of its parent's."""
    session, metadata = run.session, as_dict(facts.get("metadata"))
    for key, value in (("cwd", facts.get("cwd")), ("git_branch", as_dict(metadata.get("git")).get("branch"))):
        if as_text(value):
            session.attributes[key] = value
    if "parent_session_id" in session.attributes:
        return
    session.title = as_text(metadata.get("title")) or None
    session.model = session.model or as_text(facts.get("model")) or None
    cost = metadata.get("totalCost")
    run.cost = cost if type(cost) in (int, float) else 0
    for key in ("started_at", "ended_at"):
        session.seen_at(utc(facts.get(key)))


def cline_task_header(run):
    """The facts that the task's index has: where it began, which model."""
    folder = run.path.parent
    item = as_dict(load_json(claude_head(str(folder / "history_item.json"))))
    index = folder.parent.parent / "state" / "taskHistory.json"
    if not item and index.exists():
        holder = Session("cline", "unknown", "index")
        try:
            items = (as_dict(value) for _, value in json_parts(index, holder, (), "id"))
            item = next((value for value in items if value.get("id") == run.session.session_id), {})
        except OSError:
            item = {}
    cwd = as_text(first_of(item, ("cwdOnTaskInitialization", "workspace", "rootPath", "cwd")))
    if cwd:
        run.session.attributes["cwd"] = cwd
    run.session.model = run.session.model or as_text(item.get("modelId")) or None


CLINE_CWD = re.compile(r"# Current (?:Working|Workspace) Directory \(([^)\n]{1,500})\)")
CLINE_MODEL = re.compile(r"<model>([^<\n]{1,200})</model>")


def cline_environment(run, text):
    """What the extension tells the model about the machine with each message."""
    cwd, model = CLINE_CWD.search(text), CLINE_MODEL.search(text)
    if cwd:
        run.session.attributes.setdefault("cwd", cwd[1])
    if model:
        run.talk.model = run.talk.model or model[1]


# Cline: messages ------------------------------------------------------------

def cline_message(run, message):
    """One message of the API's history."""
    place, role = next(run.places), message.get("role")
    name = as_text(message.get("id")) or f"m{place}"
    at = utc(first_of(message, ("ts", "timestamp"))) or run.times.get(place)
    blocks = claude_blocks({"content": first_of(message, ("content", "text", "message"))})
    if role == "user":
        cline_user(run, at, name, blocks)
    elif role == "assistant":
        cline_assistant(run, at, name, blocks, message)
    else:
        run.session.unknown_record(role, name, at, message)


def cline_assistant(run, at, name, blocks, message):
    """A response: thoughts, replies, calls, and what it used."""
    talk, info = run.talk, as_dict(message.get("modelInfo"))
    transcript_close(talk)
    talk.model = as_text(first_of(info, ("modelId", "id"))) or talk.model
    run.session.provider = as_text(first_of(info, ("providerId", "provider"))) or run.session.provider
    for number, block in enumerate(blocks):
        kind, item = block.get("type"), f"{name}-{number}"
        if kind in ("thinking", "reasoning"):
            thought = as_text(first_of(block, ("thinking", "text"))) or cline_summary(block.get("summary"))
            cline_think(run, at, item, thought)
        elif kind == "text":
            cline_reply(run, at, item, as_text(block.get("text")))
        elif kind == "tool_use":
            tool_name = as_text(block.get("name")) or "unknown"
            cline_call(run, at, as_text(block.get("id")) or item, tool_name, block.get("input"))
        elif kind not in ("redacted_thinking", "thoughtSignature"):
            transcript_say(talk, "AgentMessage", item, at, shown_blocks([block], run.session))
    cline_usage(run, at, as_dict(message.get("metrics")))


def cline_summary(summary):
    return "\n".join(as_text(as_dict(part).get("text")) for part in as_list(summary))


def cline_think(run, at, item, text):
    if text.strip():
        transcript_say(run.talk, "Thinking", item, at, [text_block(text.strip())])


def cline_usage(run, at, metrics):
    """The usage of a response: from the UI's requests up to now, else from the message itself."""
    tokens = as_dict(metrics.get("tokens"))
    if run.by_ui:
        counts = Counter()
        while run.requests and (run.requests[0][0] <= at if at else not counts):
            counts.update(run.requests.popleft()[1])
    elif tokens:            # the extension's prompt tokens leave out what came from the cache or went there
        counts = {"input": whole(tokens.get("prompt")) + whole(tokens.get("cached")),
                  "output": whole(tokens.get("completion"))}
    else:
        counts = {"input": whole(metrics.get("inputTokens")), "output": whole(metrics.get("outputTokens")),
                  "cache_read": whole(metrics.get("cacheReadTokens")),
                  "cache_write": whole(metrics.get("cacheWriteTokens"))}
    transcript_usage(run.talk, counts)


# What is said to the model in the user's name: what a person wrote stands in these tags.
CLINE_HUMAN = ("task", "feedback", "answer", "user_message", "user_input")
CLINE_TAGS = re.compile(rf"<({'|'.join(CLINE_HUMAN)})(?: [^>\n]*)?>(.*?)(?:</\1>|\Z)", re.DOTALL)
# Beginnings of texts that the program wrote: whether they may hold a person's words, and how they are
# shown (None: not at all).
CLINE_INJECTED = {
    "<environment_details>": (False, None),
    "# task_progress": (False, None),
    "# TODO LIST": (False, None),
    "<mode_notice>": (False, None),
    "<explicit_instructions": (False, None),
    "[TASK RESUMPTION]": (True, "notice"),
    "[ERROR]": (False, "notice"),
    "[NOTE]": (False, "notice"),
    "New instructions for task continuation": (True, None),
    "New message to respond to": (True, None),
    "The user ": (True, None),
    "[The user": (True, None),
    "Task was interrupted": (True, "notice"),
}
CLINE_RESULT = re.compile(r"\[([a-z]\w{1,60}(?: for '[^\n]{0,4000})?)\] Result:[ \t]*\n?")


def cline_user(run, at, name, blocks):
    """A message in the user's name: results, what the program adds, and what a person wrote."""
    said, plain, results = [], [], 0
    for number, block in enumerate(blocks):
        item = f"{name}-{number}"
        if block.get("type") == "tool_result":
            call_id = as_text(first_of(block, ("tool_use_id", "toolUseId")))
            said += cline_result(run, at, item, call_id, block.get("content"), block.get("is_error") is True)
            results += 1
        elif block.get("type") == "text":
            kind, texts = cline_said(run, at, item, as_text(block.get("text")))
            said += texts if kind in ("human", "result") else []
            plain += texts if kind == "plain" else []
            results += kind == "result"
        else:
            said += shown_blocks([block], run.session)
    if said or plain and not results:
        transcript_prompt(run.talk, name, at, plain + said if not results else said)
    for number, block in enumerate(plain if results else ()):
        run.session.event("SystemMessage", f"{name}-notice-{number}", at, [block], attributes={"meta": "notice"})


def cline_said(run, at, item, text):
    """("human" | "plain" | "result" | None, blocks) of one text in the user's name; results and notices are shown."""
    text = text.strip("\ufeff \t\r\n")
    heading = CLINE_RESULT.match(text)
    if heading or run.heading is not None and not text.startswith("<environment_details>"):
        return "result", cline_text_result(run, at, item, heading, text)
    beginning = next((start for start in CLINE_INJECTED if text.startswith(start)), None)
    human, meta = CLINE_INJECTED.get(beginning, (True, None))
    if text.startswith("<environment_details>"):
        cline_environment(run, text)
    if human and (beginning or text.startswith(tuple(f"<{tag}" for tag in CLINE_HUMAN))):
        found = [text_block(words.strip()) for _, words in CLINE_TAGS.findall(text) if words.strip()]
        if found:
            return "human", found
    if meta:
        run.session.event("SystemMessage", item, at, [text_block(text)], attributes={"meta": meta})
    return (None, []) if beginning or not text else ("plain", [text_block(text)])


def cline_text_result(run, at, item, heading, text):
    """A result that is written as text: `[tool for 'x'] Result:` and what follows, at times in the next text.

    It has no id, so that it belongs to the first open call of that tool."""
    if not heading:
        call_id, run.heading = run.heading, None
        return cline_result(run, at, item, call_id, text, False)
    name = heading[1].split(" ")[0]
    waiting = [call_id for call_id in run.talk.calls if run.talk.names[call_id].removeprefix("use_") == name]
    call_id = next(iter(waiting), None)
    if name in CLINE_SPOKEN:
        call_id = f"{item}-answered"
        run.talk.names[call_id] = name
    elif call_id is None:
        call_id = f"{item}-call"
        path = re.search(r" for '([^'\n]+)'", heading[1])
        cline_call(run, at, call_id, name, {"path": path[1]} if path else {})
    content = text[heading.end():]
    if not content:
        run.heading = call_id
        return []
    return cline_result(run, at, item, call_id, content, False)


# Cline: calls and results ---------------------------------------------------

# Calls that only say something: the question, the plan, the last word.
CLINE_SPOKEN = ("attempt_completion", "ask_followup_question", "plan_mode_respond", "ask_question", "submit_and_exit",
                "condense", "new_task")
CLINE_CALLS = tool_table(
    FileRead="read_file read_files", FileCreate="write_to_file create_file", FileDelete="delete_file",
    FileEdit="replace_in_file apply_diff insert_content search_and_replace search_replace edit_file edit editor",
    ShellCommand="execute_command run_commands spawn_process",
    CodeSearch="search_files search_codebase codebase_search find_references",
    FileSearch="list_files list_code_definition_names", WebSearch="web_search", WebFetch="web_fetch fetch_web_content")
# Calls of the SDK that do several things at once: under which key they stand, and what each of them is.
CLINE_LISTS = {"run_commands": ("commands", "command"), "read_files": ("files", "path"), "read_file": ("files", "path"),
               "search_codebase": ("queries", "query"), "fetch_web_content": ("requests", "url")}
CLINE_OTHERS = ("use_mcp_tool", "access_mcp_resource", "browser_action", "switch_mode", "update_todo_list",
                "fetch_instructions", "new_rule")
CLINE_XML = re.compile(rf"<({'|'.join((*CLINE_CALLS, *CLINE_SPOKEN, *CLINE_OTHERS))})>\n?")
CLINE_PARAMETER = re.compile(r"<(\w{1,40})>")


def cline_reply(run, at, item, text):
    """A reply, which in older versions holds its calls and thoughts as XML."""
    place, number = 0, 0
    while match := CLINE_XML.search(text, place):
        name, end = match[1], text.find(f"</{match[1]}>", match.end())
        cline_words(run, at, f"{item}.{number}" if number else item, text[place:match.start()])
        end = end if end >= 0 else len(text)
        number += 1
        cline_call(run, at, f"{item}.{number}-call", name, cline_parameters(text[match.end():end]))
        place = end + len(name) + 3
    cline_words(run, at, f"{item}.{number}" if number else item, text[place:])


def cline_words(run, at, item, text):
    """Words of a reply without calls; a thought may stand in front of them."""
    text = text.strip()
    if text.startswith("<thinking>"):
        thought, _, text = text.removeprefix("<thinking>").partition("</thinking>")
        cline_think(run, at, f"{item}-thinking", thought)
    if text.strip():
        transcript_say(run.talk, "AgentMessage", item, at, [text_block(text.strip())])


def cline_parameters(body):
    """{name: text} of a call in XML; a file's content may itself hold the closing tag, so the last one counts."""
    given, place = {}, 0
    while match := CLINE_PARAMETER.search(body, place):
        find = body.rfind if match[1] in ("content", "diff", "result") else body.find
        end = find(f"</{match[1]}>", match.end())
        given[match[1]] = body[match.end():end if end >= 0 else None].strip("\n")
        place = end if end >= 0 else len(body)
    path = re.search(r"<path>([^<\n]+)</path>", given.get("args", ""))
    return {**given, "path": path[1]} if path else given


def cline_call(run, at, call_id, name, given):
    """A call, which may only say something, or do several things at once."""
    given = cline_given(name, {} if given is None else given)
    if name in CLINE_SPOKEN and call_id not in run.talk.names:
        run.talk.names[call_id] = name
        text = as_text(first_of(given, ("result", "response", "question", "summary", "text", "message")))
        options = [option for option in as_list(as_dict(given).get("options")) if isinstance(option, str)]
        cline_words(run, at, call_id, "\n".join([text, *(f"- {option}" for option in options)]))
    elif name == "apply_patch" and (patch := as_text(first_of(given, ("input", "patch")))):
        if not transcript_patch(run.talk, call_id, at, name, patch):
            transcript_call(run.talk, call_id, at, name, given)
    elif name in CLINE_LISTS and as_list(as_dict(given).get(CLINE_LISTS[name][0])):
        cline_calls(run, at, call_id, name, as_list(given[CLINE_LISTS[name][0]]))
    else:
        kind = "write_to_file" if name == "editor" and "content" in as_dict(given) else None
        transcript_call(run.talk, call_id, at, name, given, known_as=kind)


def cline_calls(run, at, call_id, name, items):
    """A call that does several things: one event for each, which all wait for the one result."""
    events, talk = [], run.talk
    if call_id in talk.names:
        return
    for number, item in enumerate(items[:500], 1):
        part = call_id if number == 1 else f"{call_id}:{number}"
        value = item if isinstance(item, dict) else {CLINE_LISTS[name][1]: str(item)}
        if as_list(value.get("args")):
            value = {**value, "command": " ".join(map(str, [value.get("command", ""), *value["args"]]))}
        transcript_call(talk, part, at, name, value)
        events += talk.calls.pop(part, ((), None))[0]
    transcript_await(talk, call_id, name, events, {})


def cline_given(name, given):
    """A call's input with edits as pairs of texts, as the other tools have them."""
    if isinstance(given, str) and given[:1] == "{":
        given = json_value(given)
    if not isinstance(given, dict):
        return given
    diff = as_text(given.get("diff"))
    if "SEARCH" in diff:
        return {**given, "edits": [{"old_string": old, "new_string": new} for old, new in search_replace_pairs(diff)]}
    if name == "insert_content":
        return {**given, "old_string": "", "new_string": as_text(given.get("content"))}
    if name == "search_and_replace":
        return {**given, "old_string": as_text(given.get("search")), "new_string": as_text(given.get("replace"))}
    if name == "editor" and not as_text(given.get("old_text")) and "insert_line" not in given:
        return {"path": given.get("path"), "content": as_text(given.get("new_text"))}
    return given


CLINE_ERRORS = ("The tool execution failed", "<error>", "<tool_use_error>", "The user denied", "Error:")
CLINE_EXIT = re.compile(r"exit code:? (-?\d{1,9})", re.IGNORECASE)


def cline_result(run, at, item, call_id, content, failed):
    """Show a result; what a person answered in it is returned as blocks, to be shown as a prompt."""
    name = run.talk.names.get(call_id, "")
    answered = name in CLINE_SPOKEN or not name
    blocks, failed = cline_output(content, failed)
    text = claude_first_text(blocks) or ""
    words = [words.strip() for _, words in CLINE_TAGS.findall(text)] if answered or text.startswith("The user ") else []
    if not words and name in ("ask_followup_question", "ask_question"):
        words = [text.strip()]
    if answered and (name or words):
        return [text_block(said) for said in words if said]
    failed = failed or text.startswith(CLINE_ERRORS)
    call = open_call(run.talk, call_id)
    said = CLINE_EXIT.search(text[:500]) if call[0] == "ShellCommand" else None
    told = call[0] == "ShellCommand" and not failed and any("success" in as_dict(part) for part in as_list(content))
    if not failed and len(run.talk.calls.get(call_id, ((),))[0]) == 1:
        blocks = result_blocks(call, blocks)
    transcript_result(run.talk, call_id, at, blocks, failed=failed, event_id=f"{item}-result",
                      exit_code=int(said[1]) if said else 0 if told else None)
    return [text_block(said) for said in words if said]


def cline_output(content, failed):
    """(blocks, whether it failed) of a result: content, or a list of {query, result, error, success} of the SDK."""
    items = [item for item in as_list(content) if isinstance(item, dict) and "success" in item]
    if not items:
        return shown_blocks(content), failed
    blocks = []
    for item in items:
        if len(items) > 1 and as_text(item.get("query")):
            blocks.append(text_block(item["query"]))
        for value in filter(None, (item.get("result"), item.get("error"))):
            blocks += shown_blocks(value) if isinstance(value, (str, list)) else [json_block(value)]
    return blocks, failed or any(item["success"] is False for item in items)


# Cline: the messages of the UI ----------------------------------------------

def cline_read_ui(run, path):
    """Take usage and times from ui_messages.json, for a task whose history is read."""
    try:
        for _, message in json_parts(path, Session("cline", "unknown", "ui"), (), "ts"):
            message = as_dict(message)
            at, place = utc(message.get("ts")), message.get("conversationHistoryIndex")
            if at and type(place) is int:
                run.times.setdefault(place + 1, at)
            if at and message.get("say") in ("api_req_started", "deleted_api_reqs"):
                counts = cline_request(run, message)
                run.requests.append((at, counts))
                run.by_ui = run.by_ui or any(counts.values())
    except OSError:
        pass


def cline_request(run, message):
    """Counts of a request as the UI has them: its tokensIn leave the cache out."""
    facts = as_dict(json_value(as_text(message.get("text"))))
    read, written = whole(facts.get("cacheReads")), whole(facts.get("cacheWrites"))
    cost = facts.get("cost")
    run.cost += cost if type(cost) in (int, float) and cost > 0 else 0
    return {"input": whole(facts.get("tokensIn")) + read + written, "output": whole(facts.get("tokensOut")),
            "cache_read": read, "cache_write": written}


def cline_ui_message(run, message):
    """One message of the UI, where that is all there is."""
    place, kind = next(run.places), as_text(message.get("say")) or as_text(message.get("ask"))
    at, item = utc(message.get("ts")), f"u{place}"
    text = as_text(message.get("text"))
    if kind != "command_output":
        cline_flush_output(run)
    if as_text(message.get("reasoning")) and kind == "text":
        cline_think(run, at, f"{item}-thinking", message["reasoning"])
    step = CLINE_UI_STEPS.get(kind)
    if step:
        step(run, at, item, text, message)
    elif kind not in CLINE_UI_SILENT:
        run.session.unknown_record(f"ui {kind}", item, at, message)


def cline_ui_prompt(run, at, item, text, message):
    blocks = [text_block(text.strip())] * bool(text.strip()) + codex_images(message.get("images"))
    if blocks:
        transcript_prompt(run.talk, item, at, blocks)


def cline_ui_reply(run, at, item, text, message):
    """A reply; questions and plans are JSON round their text."""
    given = json_value(text) if text.startswith("{") else None
    if isinstance(given, dict):
        cline_call(run, at, item, "ask_followup_question", given)
    else:
        cline_words(run, at, item, text)


def cline_ui_thought(run, at, item, text, message):
    cline_think(run, at, item, text)


def cline_ui_request(run, at, item, text, message):
    """A request opens a response, whose events follow."""
    transcript_close(run.talk)
    transcript_usage(run.talk, cline_request(run, message), before=True)


# What the UI calls the tools.
CLINE_UI_TOOLS = {"readFile": "read_file", "newFileCreated": "write_to_file", "editedExistingFile": "replace_in_file",
                  "appliedDiff": "apply_diff", "insertContent": "insert_content", "searchFiles": "search_files",
                  "searchAndReplace": "search_and_replace", "fileDeleted": "delete_file", "webFetch": "web_fetch",
                  "webSearch": "web_search", "codebaseSearch": "codebase_search",
                  **dict.fromkeys(("listFilesTopLevel", "listFilesRecursive"), "list_files"),
                  **dict.fromkeys(("listCodeDefinitionNames", "listFiles"), "list_code_definition_names")}


def cline_ui_tool(run, at, item, text, message):
    """A call with what it read or changed, in one message; only edits are still to be told from their results."""
    given = as_dict(json_value(text))
    tool = as_text(given.get("tool")) or "unknown"
    name = CLINE_UI_TOOLS.get(tool, tool)
    cline_call(run, at, item, name, given)
    kind = CLINE_CALLS.get(name, ("",))[0]
    content = as_text(given.get("content")) if kind in ("FileRead", "CodeSearch", "FileSearch") else ""
    diff = as_text(given.get("diff"))
    if content or kind in ("FileEdit", "FileCreate"):
        transcript_result(run.talk, item, at, [code_block(content)] * bool(content),
                          diff=diff if diff.startswith(("---", "@@")) else None)


def cline_ui_command(run, at, item, text, message):
    cline_call(run, at, item, "execute_command", {"command": text})
    run.output = (at, item, [])


def cline_ui_output(run, at, item, text, message):
    """A piece of the last command's output."""
    if run.output and text:
        run.output = (at, run.output[1], [*run.output[2], text])


def cline_flush_output(run):
    """All of a command's output has been shown: it is the result."""
    if run.output:
        (at, call_id, texts), run.output = run.output, None
        text = "\n".join(texts)
        said = CLINE_EXIT.search(text[:500])
        transcript_result(run.talk, call_id, at, [code_block(text)] * bool(text),
                          exit_code=int(said[1]) if said else None)


def cline_ui_problem(run, at, item, text, message):
    if text.strip():
        run.session.event("SystemMessage", item, at, [text_block(text.strip())], attributes={"meta": "api_error"})


CLINE_UI_STEPS = {
    **dict.fromkeys(("task", "user_feedback"), cline_ui_prompt),
    **dict.fromkeys(("text", "completion_result", "followup", "plan_mode_respond", "plan_mode_response"),
                    cline_ui_reply),
    "reasoning": cline_ui_thought,
    **dict.fromkeys(("api_req_started", "deleted_api_reqs"), cline_ui_request),
    **dict.fromkeys(("tool", "use_mcp_server"), cline_ui_tool),
    "command": cline_ui_command,
    "command_output": cline_ui_output,
    **dict.fromkeys(("error", "diff_error", "api_req_failed", "mistake_limit_reached", "rooignore_error",
                     "clineignore_error"), cline_ui_problem),
}
CLINE_UI_SILENT = frozenset("""
    api_req_finished api_req_retried api_req_retry_delayed api_req_deleted checkpoint_created checkpoint_saved
    load_mcp_documentation shell_integration_warning user_feedback_diff resume_task resume_completed_task
    task_progress browser_action
    browser_action_launch browser_action_result mcp_server_request_started mcp_server_response mcp_notification
    condense_context condense_context_error codebase_search_result subtask_result info hook_status hook_output_stream
    generate_explanation conditional_rules_applied error_retry command_permission_denied
""".split())


for _name, _title, _more, _seen in (("cline", "Cline", ", ~/.cline/data, or CLINE_DIR", "task folders, CLI 3.0"),
                                    ("roo-code", "Roo Code", "", "task folders"),
                                    ("kilo-code", "Kilo Code", "", "task folders")):
    tool(_name, _title, roots=functools.partial(cline_roots, name=_name), sources=cline_sources,
         recognise=functools.partial(cline_recognise, name=_name),
         where=f"globalStorage/{CLINE_EXTENSIONS[_name]}/tasks of every editor{_more}", seen=_seen)(cline_parser(_name))
# ---------------------------------------------------------------------------
# Pi, and what is made from it: OpenClaw, oh-my-pi
#
# <sessions>/--<folder>--/<time>_<id>.jsonl, seen in 0.73.1 and, for OpenClaw, in files of
# February 2026.  The first line is the session, the others are entries of a tree: the
# conversation is the path from the last entry to the root; what lies beside it was abandoned
# when the person went back, and is only counted.  A fork begins with copies of its parent's entries.
#
# To support a new entry, add a line to PI_STEPS; a new role of messages, to PI_ROLES; a new tool, to PI_TOOLS.
# ---------------------------------------------------------------------------

PI_ARCHIVED = re.compile(r"\.jsonl\.(?:deleted|reset|bak)\b")


def pi_roots(env, home):
    """The sessions of Pi, wherever PI_CODING_AGENT_DIR or its newer sibling says they are."""
    folder = Path(env["PI_CODING_AGENT_DIR"]).expanduser() if env.get("PI_CODING_AGENT_DIR") else home / ".pi" / "agent"
    named = env.get("PI_CODING_AGENT_SESSION_DIR")
    return [folder / "sessions", *([Path(named).expanduser()] if named else [])]


def openclaw_roots(env, home):
    """The agents of OpenClaw, under its present and its former names."""
    named = [env[key] for key in ("OPENCLAW_STATE_DIR", "CLAWDBOT_STATE_DIR") if env.get(key)]
    usual = [home / name for name in (".openclaw", ".clawdbot", ".moltbot")]
    folders = [Path(name).expanduser() for name in named] or usual
    return [folder / "agents" for folder in folders]


def oh_my_pi_roots(env, home):
    return [home / ".omp" / "agent" / "sessions"]


def pi_sources(root):
    """The sessions below a folder, or one file.  Of a session that OpenClaw archived, the live file counts, else
    the newest."""
    if os.path.isfile(root):
        yield Source(str(root), (Path(root),))
        return
    best = {}
    for entry in walk(str(root)):
        if entry.name.endswith(".jsonl") or PI_ARCHIVED.search(entry.name):
            key = PI_ARCHIVED.split(entry.path)[0].removesuffix(".jsonl")
            rank = (entry.name.endswith(".jsonl"), entry.name)
            best[key] = max(best.get(key, (rank, entry.path)), (rank, entry.path))
    for key, (_, path) in sorted(best.items()):
        yield Source(key, (Path(path),))


def pi_family(path):
    """Which of the three tools a file is from, by its folders."""
    parts = {part.lstrip(".") for part in Path(path).parts}
    if parts & {"openclaw", "clawdbot", "moltbot"}:
        return "openclaw"
    return "oh-my-pi" if "omp" in parts else "pi"


def pi_recognise(head, path, name="pi"):
    """Whether a file begins with the header of a session of Pi's form; its folders tell which of the tools wrote it."""
    return pi_family(path) == name and pi_header(head) is not None


def pi_header(head):
    """The first record that is a session's header, or None."""
    for line in head.split(b"\n", 5)[:5]:
        record = as_dict(load_json(line)) if b'"session"' in line else {}
        known = {"cwd", "version", "timestamp"} & record.keys()
        if known and record.get("type") == "session" and as_text(record.get("id")):
            return record
    return None


class PiRun:
    """Where the reading of a session stands."""

    def __init__(self, session, path, header):
        self.talk = Transcript(session, PI_TOOLS)
        self.session = session
        self.path = path
        self.header = header
        self.hidden = frozenset()       # offsets of abandoned entries
        self.repeated = frozenset()     # offsets of entries that stand there a second time
        self.copied = None              # entries before this time are the parent's, which lies beside this file
        self.left = Counter()           # usage of the abandoned entries since the last one that is shown
        self.skipped = 0                # how many they are


def pi_parser(name):
    """The parser of one of the three tools; they differ by name only."""
    def parse(source):
        path = Path(source.path)
        header = pi_header(claude_head(str(path)))
        if header is None:
            return
        session = Session(name, "unknown", header["id"], utc(header.get("timestamp")) or utc(path.stat().st_mtime))
        session.seen_at(utc(header.get("timestamp")))
        run = PiRun(session, path, header)
        pi_start(run)
        run.hidden, run.repeated = pi_abandoned(path)
        events = transcript_events(run.talk, read_records(path, session), lambda item: pi_record(run, *item),
                                   lambda: pi_count_left(run, None))
        yield from only_if_any(session, events)
    return parse


def pi_start(run):
    """The facts of the header: where it ran, and of a fork, from which session."""
    attributes, header = run.session.attributes, run.header
    if as_text(header.get("cwd")):
        attributes["cwd"] = header["cwd"]
    run.session.title = as_text(header.get("title")) or None
    run.session.provider = as_text(header.get("provider")) or run.session.provider
    run.talk.model = as_text(header.get("modelId")) or None
    origin = as_text(first_of(header, ("parentSession", "branchedFrom")))
    nest = run.path.parent.with_name(run.path.parent.name + ".jsonl")
    if origin:
        parent = next((path for path in (Path(origin), run.path.parent / re.split(r"[/\\]", origin)[-1])
                       if "\0" not in origin and path != run.path and path.is_file()), None)
        named = parent and pi_header(claude_head(str(parent)))
        session_id = named["id"] if named else re.split(r"[/\\_]", origin)[-1].removesuffix(".jsonl")
        attributes.update(forked_from=session_id, parent_session_id=session_id)
        run.session.related.append(session_id)
        run.copied = utc(header.get("timestamp")) if named else None
    elif nest.is_file():            # oh-my-pi keeps a sub-agent in a folder with the name of its session's file
        named = pi_header(claude_head(str(nest)))
        if named:
            attributes.update(session_role="auxiliary", parent_session_id=named["id"])


def pi_abandoned(path):
    """The offsets of the entries that the person left behind, which is all that is not on the way from the last
    entry to the root, and of those that are there twice.  Where a parent is missing, the way goes on with the
    line before."""
    places, entries, repeated, straight = {}, [], set(), True
    for offset, line in read_lines(path):
        name, parent = pi_link(line)
        if name in places:
            repeated.add(offset)
        elif name:
            straight = straight and (not entries or parent not in places or places[parent] == len(entries) - 1)
            places[name] = len(entries)
            entries.append((offset, parent))
    hidden, place = set() if straight else set(range(len(entries))), len(entries) - 1
    while place >= 0 and hidden:
        hidden.discard(place)
        parent = entries[place][1]
        above = places.get(parent, place - 1)
        place = -1 if parent is None else above if above < place else place - 1
    return frozenset(entries[place][0] for place in hidden), frozenset(repeated)


PI_LINK = re.compile(rb'"id":\s*"([^"\\]{1,80})",\s*"parentId":\s*(?:"([^"\\]{1,80})"|null)')


def pi_link(line):
    """(id, parent's id) of an entry; the id is None where it is no part of the tree, the parent's at the root."""
    match = PI_LINK.search(line or b"", 0, 400)
    if match:
        return match[1].decode("utf-8", "replace"), match[2].decode("utf-8", "replace") if match[2] else None
    record = as_dict(load_json(line)) if line and b'"parentId"' in line else {}
    tied = "parentId" in record and record.get("type") != "session"
    return as_text(record.get("id")) or None if tied else None, as_text(record.get("parentId")) or None


def pi_record(run, offset, record):
    """Read one entry, unless it was abandoned or is the parent's."""
    kind, at = record.get("type"), utc(record.get("timestamp"))
    message, name = as_dict(record.get("message")), as_text(record.get("id")) or f"@{offset}"
    if run.copied and at and at < run.copied and kind != "session":
        run.talk.usage["replayed"] += sum(pi_counts(message.get("usage"))[key] for key in ("input", "output"))
        if message.get("role") == "user" and not run.session.prompt:
            run.session.prompt = claude_first_text(shown_blocks(message.get("content")))
        return
    if offset in run.repeated:
        run.talk.usage["duplicates_removed"] += any(pi_counts(message.get("usage")).values())
        return
    if offset in run.hidden:
        run.left.update(pi_counts(message.get("usage")))
        run.skipped += 1
        return
    pi_count_left(run, name)
    step = PI_STEPS.get(kind) if isinstance(kind, str) else None
    if step:
        step(run, name, at, record)
    elif kind not in PI_SILENT:
        run.session.unknown_record(kind, name, at, record)


def pi_count_left(run, name):
    """What was abandoned is not shown, but it was paid: a mark stands for it."""
    if run.skipped:
        transcript_close(run.talk)
        text = f"{run.skipped} entries of an abandoned branch"
        run.talk.anchors[None] = run.session.event("Custom", f"{name or 'end'}-abandoned", None, [text_block(text)],
                                                   kind="abandoned_branch")
        transcript_usage(run.talk, dict(run.left))
        transcript_close(run.talk)
        run.left, run.skipped = Counter(), 0


# Pi: messages ---------------------------------------------------------------

def pi_message(run, name, at, record):
    """A message, by its role."""
    message = as_dict(record.get("message"))
    role = message.get("role")
    step = PI_ROLES.get(role) if isinstance(role, str) else None
    at = at or utc(message.get("timestamp"))
    if step:
        step(run, name, at, message)
    else:
        run.session.unknown_record(f"message {role}", name, at, record)


# Beginnings of what OpenClaw says in the user's name by itself.
PI_INJECTED = ("Read HEARTBEAT.md if it exists", "A new session was started via /new", "System: [", "[System Message]",
               "Pre-compaction memory flush")
PI_FILE = re.compile(r'<file name="[^"\n]*"></file>\s*')


def pi_user(run, name, at, message):
    """A prompt; the empty tags of attached pictures are left out."""
    blocks = shown_blocks(message.get("content"), run.session)
    for block in blocks:
        if block["type"] == "Text":
            block["text"] = PI_FILE.sub("", block["text"])
    blocks = [block for block in blocks if block.get("text", "x").strip()]
    if blocks and blocks[0].get("text", "").startswith(PI_INJECTED):
        run.session.event("SystemMessage", name, at, blocks, attributes={"meta": "notification"})
    elif blocks:
        transcript_prompt(run.talk, name, at, blocks)


def pi_assistant(run, name, at, message):
    """A response: thoughts, replies and calls, and what it used."""
    talk = run.talk
    transcript_close(talk)
    talk.model = as_text(message.get("model")) or talk.model
    run.session.provider = as_text(message.get("provider")) or run.session.provider
    for number, block in enumerate(claude_blocks(message)):
        kind, item = block.get("type"), f"{name}-{number}"
        text = as_text(block.get("thinking" if kind == "thinking" else "text")).strip()
        if kind in ("text", "thinking"):
            if text:
                transcript_say(talk, "AgentMessage" if kind == "text" else "Thinking", item, at, [text_block(text)])
        elif kind in ("toolCall", "tool_use", "toolUse"):
            given = first_of(block, ("arguments", "input"), {})
            transcript_call(talk, as_text(block.get("id")) or item, at, as_text(block.get("name")) or "unknown", given)
        else:
            transcript_say(talk, "AgentMessage", item, at, shown_blocks([block], run.session))
    transcript_usage(talk, pi_counts(message.get("usage")))
    pi_stopped(run, name, at, message)


def pi_stopped(run, name, at, message):
    """A response that ended badly."""
    reason, text = message.get("stopReason"), as_text(message.get("errorMessage"))
    if reason == "aborted":
        run.session.event("Custom", f"{name}-interrupt", at, [text_block(text or "Interrupted")], kind="interrupt")
    elif reason == "error":
        run.session.event("SystemMessage", f"{name}-error", at, [text_block(text or "The request failed")],
                          attributes={"meta": "api_error", "error": True})


def pi_counts(usage):
    """Counts of a response; Pi's input leaves out what came from the cache or went there."""
    usage = as_dict(usage)
    read, written = whole(usage.get("cacheRead")), whole(usage.get("cacheWrite"))
    return {"input": whole(usage.get("input")) + read + written, "output": whole(usage.get("output")),
            "cache_read": read, "cache_write": written, "reasoning": whole(usage.get("reasoning"))}


PI_EXIT = re.compile(r"[Cc]ommand exited with code (\d{1,9})")


def pi_result(run, name, at, message):
    """The result of a call; one that names no call says nothing."""
    call_id, talk = as_text(message.get("toolCallId")), run.talk
    if not call_id:
        return
    talk.names.setdefault(call_id, as_text(message.get("toolName")) or "unknown")
    failed, details = message.get("isError") is True, as_dict(message.get("details"))
    blocks = shown_blocks(message.get("content"), run.session)
    call, code = open_call(talk, call_id), details.get("exitCode")
    if call[0] == "ShellCommand" and type(code) is not int:
        said = PI_EXIT.search((claude_first_text(blocks) or "")[-200:]) if failed else None
        code = int(said[1]) if said else None if failed or talk.names[call_id] != "bash" else 0
    if not failed:
        blocks = result_blocks(call, blocks)
    patch = as_text(details.get("patch"))
    transcript_result(talk, call_id, at, blocks, failed=failed, exit_code=code if type(code) is int else None,
                      diff=patch if patch.startswith("---") else None, event_id=name)


def pi_shell(run, name, at, message):
    """A command that the person ran with "!"."""
    command, code = as_text(message.get("command")), message.get("exitCode")
    code = code if type(code) is int and -2**31 <= code < 2**31 else None
    run.session.event("ShellCommand", name, at, [code_block(command, "bash")], attributes={"tool": "!"},
                      command=command, exit_code=code)
    output = as_text(message.get("output"))
    run.session.event("ToolResult", f"{name}-result", at, [code_block(output)] * bool(output), name="!",
                      is_error=bool(code) or message.get("cancelled") is True, call_id=name)


def pi_system(meta):
    """A step for what the program says: its text stands under one of the usual keys."""
    def step(run, name, at, record):
        blocks = shown_blocks(first_of(record, ("summary", "content", "text")))
        if blocks and record.get("display") is not False:
            run.session.event("SystemMessage", name, at, blocks, attributes={"meta": meta})
    return step


def pi_compaction(run, name, at, record):
    """The conversation so far was replaced by a summary."""
    before = whole(record.get("tokensBefore"))
    run.session.event("Custom", name, at, [text_block("Conversation compacted")],
                      attributes={"preTokens": before} if before else None, kind="compaction")
    pi_system("compact_summary")(run, f"{name}-summary", at, record)


def pi_model(run, name, at, record):
    provider, _, model = as_text(record.get("model")).rpartition("/")
    run.talk.model = as_text(record.get("modelId")) or model or run.talk.model
    run.session.provider = as_text(record.get("provider")) or provider or run.session.provider


def pi_named(run, name, at, record):
    """The person named the session; an empty name takes it away."""
    run.session.title = as_text(first_of(record, ("name", "title"))).strip() or None


def pi_header_again(run, name, at, record):
    """The header was read before."""


PI_TOOLS = tool_table(
    FileRead="read read_file", FileCreate="write write_file", FileEdit="edit edit_file", ShellCommand="bash exec shell",
    CodeSearch="grep search ast_grep", FileSearch="find ls glob", WebSearch="web_search", WebFetch="web_fetch fetch")
PI_ROLES = {
    "user": pi_user,
    "assistant": pi_assistant,
    "toolResult": pi_result,
    "bashExecution": pi_shell,
    "custom": pi_system("hook"),
    "hookMessage": pi_system("hook"),
    "system": pi_system("notice"),
    "branchSummary": pi_system("branch_summary"),
    "compactionSummary": pi_system("compact_summary"),
}
PI_STEPS = {
    "session": pi_header_again,
    "message": pi_message,
    "model_change": pi_model,
    "compaction": pi_compaction,
    "branch_summary": pi_system("branch_summary"),
    "custom_message": pi_system("hook"),
    "session_info": pi_named,
    "title_change": pi_named,
}
PI_SILENT = ("thinking_level_change", "custom", "label", "context_transform", "ephemeral", "session_init",
             "mode_change", "ttsr_injection", "mcp_tool_selection")


for _name, _title, _roots, _where, _seen in (
        ("pi", "Pi", pi_roots, "~/.pi/agent/sessions, or PI_CODING_AGENT_DIR", "0.73, the first format"),
        ("openclaw", "OpenClaw", openclaw_roots, "~/.openclaw/agents, or OPENCLAW_STATE_DIR", "files of 2026"),
        ("oh-my-pi", "oh-my-pi", oh_my_pi_roots, "~/.omp/agent/sessions", "as Pi")):
    tool(_name, _title, roots=_roots, sources=pi_sources,
         recognise=functools.partial(pi_recognise, name=_name), where=_where, seen=_seen)(pi_parser(_name))
# ---------------------------------------------------------------------------
# Aider
#
# .aider.chat.history.md in a project, which only grows; seen with 0.86.2.  One file holds many
# sessions, each from a line "# aider chat started at" on.  A line of a prompt begins with "####",
# one of Aider itself with ">"; both end with two spaces, which Markdown of the model's does not,
# so that its headings and quotations can be told from them.  All else is the model's.
#
# There are no times but the start (local time), no ids, and token counts are rounded.
# ---------------------------------------------------------------------------

AIDER_FILE = ".aider.chat.history.md"
AIDER_START = re.compile(r"# aider chat started at (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)\s*$")
AIDER_FOLDERS = ("projects", "repos", "src", "code", "dev", "work")


def aider_roots(env, home):
    """The history that a variable names, the one in the home folder, and those of projects in the usual
    folders, two levels deep.  There is no list of them: other projects are to be configured."""
    named = env.get("AIDER_CHAT_HISTORY_FILE")
    bases = [home / name for name in AIDER_FOLDERS]
    folders = [home, *bases, *(path for base in bases for path in aider_folders(base, 2))]
    return ([Path(named).expanduser()] if named else []) + [folder / AIDER_FILE for folder in folders]


def aider_folders(base, depth):
    """Folders below a folder, without hidden ones."""
    try:
        with os.scandir(base) as entries:
            below = sorted(Path(entry.path) for entry in entries
                           if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False))
    except OSError:
        return []
    return below + [path for folder in below for path in aider_folders(folder, depth - 1)] if depth > 1 else below


def aider_sources(root):
    """The histories below a folder, or one file; each holds the sessions of one project."""
    if os.path.isfile(root):
        yield Source(str(root), (Path(root),))
        return
    for entry in walk(str(root)):
        if entry.name == AIDER_FILE:
            yield Source(entry.path, (Path(entry.path),))


def aider_recognise(head, path):
    """Whether a file begins like a history of Aider's."""
    return any(AIDER_START.match(line.decode("utf-8", "replace")) for line in head.split(b"\n", 20)[:20]
               if line.startswith(b"# aider chat"))


class AiderRun:
    """Where the reading of one session stands."""

    def __init__(self, session, banner):
        self.talk = Transcript(session)
        self.session = session
        self.count = 0              # numbers the events
        self.part = None            # "prompt", "reply" or "notes": what the lines at hand belong to
        self.lines = []
        self.open_note = False      # whether a note goes on in the next line
        self.fence = ""             # the fence of the code block that the reply is in
        self.command = None         # whether the title so far is only a slash command
        self.edits = {}             # path -> [(old, new)] that the reply asked for
        for line in banner:
            aider_fact(self, line.removeprefix(">").strip())


@tool("aider", "Aider", roots=aider_roots, sources=aider_sources, recognise=aider_recognise,
      where=".aider.chat.history.md of projects, or AIDER_CHAT_HISTORY_FILE", seen="0.86")
def parse_aider(source):
    """Each start in a history begins a session; one is given if anything was asked in it."""
    path, seen = Path(source.path), Counter()
    for _, section in itertools.groupby(aider_lines(path), key=lambda item: item[0]):
        lines, banner = (line for _, line in section), []
        for line in lines:
            if line.startswith("####"):
                break
            banner = (banner + [line])[:200] if len(line) < 1000 else banner
        else:
            continue
        start = next((found[1] for found in map(AIDER_START.match, banner[:1]) if found), "")
        if not start and path.name != AIDER_FILE:
            continue
        # Copies of a history in other folders are the same sessions, so that the path does not count.
        seen[start, line] += 1
        name = sha256(f"{start}\n{line.strip()}\n{seen[start, line]}".encode()).hexdigest()[:32]
        session = Session("aider", "unknown", name, aider_time(start) or utc(path.stat().st_mtime))
        session.seen_at(aider_time(start))
        run = AiderRun(session, banner)
        run.session.attributes["cwd"] = str(path.absolute().parent)
        session.events = transcript_events(run.talk, itertools.chain([line], lines), functools.partial(aider_line, run),
                                           functools.partial(aider_flush, run))
        yield session


def aider_lines(path):
    """Yield (number of the session, line) of a history; a last line without its end is still being written."""
    number = 0
    for _, line in read_lines(path):
        if line is not None and line.endswith(b"\n"):
            text = clean_text(line.decode("utf-8-sig", "replace")).rstrip("\r\n")
            number += bool(AIDER_START.match(text))
            yield number, text


def aider_time(text):
    """A time without a zone, as the clock on this machine showed it, or None."""
    try:
        return utc(datetime.fromisoformat(text).astimezone(timezone.utc).isoformat())
    except (ValueError, OverflowError, OSError):
        return None


# Aider: lines ---------------------------------------------------------------

def aider_line(run, line):
    """Add a line to what it belongs to; where that changes, what is complete is shown."""
    part, text = aider_part(run, line)
    if part != run.part or part == "prompt" and not line.strip():       # a line without its mark ends a prompt
        aider_flush(run)
        run.part = part
    run.lines.append(text)
    if part == "reply":
        run.fence = aider_fence(run.fence, line)
    elif part == "notes" and text.startswith("Tokens: "):
        aider_flush(run)


def aider_part(run, line):
    """("prompt" | "reply" | "notes", text) of a line."""
    ended, replying = line.endswith("  "), run.part == "reply"
    if line.startswith("####") and not line.startswith("#####") and not run.fence and (ended or not replying):
        return "prompt", line[4:].strip()
    if line.startswith("> Tokens: ") or line.startswith(">") and not run.fence and (ended or not replying):
        run.open_note = not ended
        return "notes", line[1:].strip()
    if run.part == "notes" and run.open_note and line.strip():
        # A note of several lines has its mark on the first one and the two spaces on the last.
        run.open_note = not ended
        return "notes", line.strip()
    if not line.strip() and run.part != "reply":
        return run.part, ""
    return "reply", line


def aider_fence(fence, line):
    """The fence that is open behind a line of a reply, "" for none."""
    mark = re.match(r"(`{3,}|~{3,})(.*)", line)
    if not mark:
        return fence
    if not fence:
        return mark[1]
    return "" if mark[1].startswith(fence) and not mark[2].strip() else fence


def aider_flush(run):
    """Show what the lines so far say."""
    lines, part = run.lines, run.part
    run.lines, run.part, run.fence = [], None, ""
    text = "\n".join(lines).strip()
    if text:
        run.count += 1
        AIDER_PARTS[part](run, f"aider-{run.count}", text)


AIDER_ASKING = ("ask", "code", "architect", "help", "chat-mode", "context", "voice")


def aider_prompt(run, name, text):
    """What a person typed; a command counts for the title only as long as there is nothing better."""
    title = run.session.prompt
    run.edits = {}
    transcript_prompt(run.talk, name, None, [text_block(text)])
    command, _, rest = text.partition(" ")
    plain = not command.startswith(("/", "!")) or command[1:] in AIDER_ASKING and rest.strip()
    if run.command is None or plain and run.command:
        run.session.prompt, run.command = text, not plain
    else:
        run.session.prompt = title


def aider_reply(run, name, text):
    """A reply, with the edits that it asks for."""
    transcript_close(run.talk)
    transcript_say(run.talk, "AgentMessage", name, None, [text_block(text)])
    run.edits = aider_edits(text)


def aider_edits(text):
    """{path: [(old, new)]} of the SEARCH/REPLACE blocks in a reply: the file's name stands above the fence."""
    edits, lines, above = {}, text.splitlines(), []
    for place, line in enumerate(lines):
        if SEARCH_MARKS[0].match(line):
            named = [other.strip().strip("`*:# ") for other in reversed(lines[max(0, place - 3):place])
                     if not other.startswith(("```", "~~~")) and other.strip()]
            above.append(named[0] if named else above[-1] if above else "")
    for path, pair in zip(above, search_replace_pairs(text)):
        edits.setdefault(path, []).append(pair)
    return edits


AIDER_TOKENS = re.compile(r"Tokens: ([\d.,]+[kM]?) sent(?:, ([\d.,]+[kM]?) cache write)?(?:, ([\d.,]+[kM]?) cache hit)?"
                          r", ([\d.,]+[kM]?) received")
AIDER_COST = re.compile(r"Cost: \$([\d.]+) message")
AIDER_FACTS = (
    (re.compile(r"Aider v(\S+)"), "tool_version"),
    (re.compile(r"(?:Main model|Model): (?:[\w.-]+/)*([\w.:-]+)"), "model"),
)


def aider_fact(run, note):
    """What a line of Aider's says of the whole session."""
    for pattern, fact in AIDER_FACTS:
        match = pattern.match(note)
        if match and fact == "model":
            run.talk.model = match[1]
            run.session.provider = note.split(": ", 1)[1].split("/")[0] if "/" in note.split(" with ")[0] else "unknown"
        elif match:
            run.session.tool_version = match[1]


def aider_notes(run, name, text):
    """Lines of Aider's own: usage, edits that it made, and the rest as it stands."""
    shown = []
    for number, note in enumerate(text.split("\n")):
        tokens, edited = AIDER_TOKENS.match(note), note.removeprefix("Applied edit to ")
        aider_fact(run, note)
        if tokens:
            aider_usage(run, tokens, note)
        elif edited != note and edited:
            aider_edited(run, f"{name}-{number}", edited)
        else:
            shown.append(note)
    if any(shown):
        run.session.event("SystemMessage", name, None, [text_block("\n".join(shown).strip())],
                          attributes={"meta": "command_output"})


def aider_usage(run, tokens, note):
    """The usage of a response; Aider counts in thousands, so that it is about this much."""
    sent, written, read, received = map(aider_count, tokens.groups())
    transcript_usage(run.talk, {"input": sent, "output": received, "cache_read": min(read, sent),
                                "cache_write": min(written, sent)})
    transcript_close(run.talk)
    usage, cost = run.talk.usage, AIDER_COST.search(note)
    usage["rounded"] = True
    if cost and cost[1].count(".") < 2:
        usage["cost_usd"] = round(usage.get("cost_usd", 0) + float(cost[1].strip(".") or 0), 6)


def aider_count(text):
    """1.2k -> 1200; 0 where there is none."""
    scale = {"k": 1000, "M": 10**6}.get(text[-1:], 1) if text else 1
    try:
        return whole(round(float(text.rstrip("kM").replace(",", "")) * scale)) if text else 0
    except (ValueError, OverflowError):
        return 0


def aider_edited(run, name, path):
    """An edit that was made, with its diff where the reply had it as SEARCH/REPLACE."""
    pairs = run.edits.pop(path, [])
    facts = {"tool": "edit"}
    if pairs and not any(old.strip() for old, _ in pairs):
        content = "".join(new for _, new in pairs)
        run.session.event("FileCreate", name, None, [code_block(content, language_of(path))], path=path,
                          attributes={**facts, "diff_lines_added": len(content.splitlines())})
        return
    diff = "\n".join(filter(None, (unified_diff(old, new, path) for old, new in pairs)))
    run.session.event("FileEdit", name, None, attributes=facts, path=path, diff=diff or None)


AIDER_PARTS = {"prompt": aider_prompt, "reply": aider_reply, "notes": aider_notes}
# ---------------------------------------------------------------------------
# Amp
#
# $XDG_DATA_HOME/amp/threads/T-<uuid>.json, one thread each, rewritten as a whole; before that
# globalStorage/sourcegraph.amp/threads3 of an editor.  Known from fixtures and parsers of 2026;
# newer versions may keep threads on the server only.
# ---------------------------------------------------------------------------

AMP_ID = re.compile(r"T-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


def amp_roots(env, home):
    """The threads of the CLI, and those of the extension in each editor."""
    data = Path(env.get("XDG_DATA_HOME") or home / ".local" / "share")
    return [data / "amp" / "threads", *(folder / "globalStorage" / "sourcegraph.amp" / name
                                        for folder in editor_folders(env, home) for name in ("threads", "threads3"))]


def amp_sources(root):
    """The threads below a folder, or one file."""
    for path in files_of(root, lambda name: name.endswith(".json")):
        if path == str(root) or amp_recognise(claude_head(path, 1 << 16), path):
            yield Source(path, (Path(path),))


def amp_recognise(head, path):
    """Whether a file is a thread: by its name, or by an id of Amp's form beside messages."""
    if not head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{") or b'"messages"' not in head:
        return False
    return bool(AMP_ID.fullmatch(Path(path).stem)) or bool(re.search(rb'"id":\s*"T-[0-9a-f]{8}-', head[:4096]))


class AmpRun:
    """Where the reading of a thread stands."""

    def __init__(self, session):
        self.talk = Transcript(session, AMP_TOOLS)
        self.session = session
        self.created = None             # milliseconds; times of messages without one follow from here
        self.places = itertools.count()
        self.prompted = False           # whether any message had its usage


@tool("amp", "Amp", roots=amp_roots, sources=amp_sources, recognise=amp_recognise,
      where="~/.local/share/amp/threads, globalStorage/sourcegraph.amp of every editor", seen="threads of 2026")
def parse_amp(source):
    """Amp: one thread is one session.  The id in the file's name counts before the one inside."""
    path = Path(source.path)
    head = claude_head(str(path))
    if not amp_recognise(head, str(path)):
        return
    inside = re.search(rb'"id":\s*"(T-[\w-]{1,80})"', head[:4096])
    name = path.stem if AMP_ID.fullmatch(path.stem) else inside[1].decode("ascii", "replace") if inside else path.stem
    session = Session("amp", "unknown", name, utc(path.stat().st_mtime))
    run = AmpRun(session)
    parts = json_parts(path, session, ("messages",), "role")
    yield from only_if_any(session, transcript_events(run.talk, parts, lambda part: amp_part(run, *part)))


def amp_part(run, key, value):
    """A member of the thread: a message or a fact."""
    if key == "messages" and isinstance(value, dict):
        amp_message(run, value)
    elif key == "messages":
        run.session.bad_lines += 1
    elif isinstance(key, str) and key in AMP_FACTS:
        AMP_FACTS[key](run, value)


# Amp: facts of the thread ---------------------------------------------------

def amp_created(run, value):
    """When the thread began; a time that cannot be is none."""
    if type(value) in (int, float) and utc(value):
        run.created = value
        run.session.seen_at(utc(value))


def amp_title(run, value):
    run.session.title = as_text(value).strip() or None


def amp_environment(run, value):
    """Where the thread began: folder, repository, version of the program."""
    initial, session = as_dict(as_dict(value).get("initial")), run.session
    tree = as_dict(next(iter(as_list(initial.get("trees"))), None))
    repository = as_dict(tree.get("repository"))
    uri = as_text(tree.get("uri"))
    if uri:
        session.attributes["cwd"] = file_path(uri) if "://" in uri else uri
    branch = as_text(repository.get("ref")).removeprefix("refs/heads/")
    git = {"branch": branch, "commit_hash": as_text(repository.get("sha")),
           "repository_url": as_text(repository.get("url"))}
    if any(git.values()):
        session.attributes["git"] = {name: fact for name, fact in git.items() if fact}
    if branch:
        session.attributes["git_branch"] = branch
    platform = as_dict(initial.get("platform"))
    session.tool_version = as_text(platform.get("clientVersion")) or session.tool_version


def amp_parent(run, value):
    """The thread that this one is a part of."""
    if as_text(value) and value != run.session.session_id:
        run.session.attributes.update(parent_session_id=value, session_role="auxiliary")
        add_new(run.session.related, value)


def amp_fork(run, value):
    origin = as_text(value) or as_text(as_dict(value).get("threadID"))
    if origin:
        run.session.attributes["forked_from"] = origin
        add_new(run.session.related, origin)


def amp_related(run, value):
    for relation in as_list(value):
        add_new(run.session.related, as_text(as_dict(relation).get("threadID")))


def amp_ledger(run, value):
    """The account of the thread: it counts only where messages have no usage, as it repeats theirs."""
    for entry in as_list(as_dict(value).get("events")) if not run.prompted else ():
        tokens = as_dict(as_dict(entry).get("tokens"))
        transcript_close(run.talk)
        run.talk.model = as_text(as_dict(entry).get("model")) or run.talk.model
        transcript_usage(run.talk, amp_counts({**tokens, "inputTokens": tokens.get("input", tokens.get("inputTokens")),
                                               "outputTokens": tokens.get("output", tokens.get("outputTokens"))}))


# Amp: messages --------------------------------------------------------------

def amp_message(run, message):
    """One message: its blocks by their type."""
    place, role = next(run.places), message.get("role")
    number = message.get("messageId", message.get("id", place))
    name = f"m{number}" if isinstance(number, (int, str)) else f"m{place}"
    at = utc(as_dict(message.get("meta")).get("sentAt")) or amp_usage_time(message)
    if at is None and run.created and place == 0:
        at = utc(run.created)
    if role == "user":
        amp_user(run, name, at, message)
    elif role == "assistant":
        amp_assistant(run, name, at, message)
    else:
        run.session.unknown_record(f"message {role}", name, at, message)


def amp_usage_time(message):
    return utc(as_dict(message.get("usage")).get("timestamp"))


def amp_user(run, name, at, message):
    """A prompt, or results of calls."""
    said = []
    for number, block in enumerate(claude_blocks(message)):
        kind, item = block.get("type"), f"{name}-{number}"
        if kind == "tool_result":
            amp_result(run, item, at, block)
        elif kind == "manual_bash_invocation":
            amp_shell(run, item, at, block)
        elif kind == "summary":
            text = as_text(as_dict(block.get("summary")).get("summary")) or as_text(block.get("summary"))
            run.session.event("Custom", item, at, [text_block("Thread compacted")], kind="compaction")
            run.session.event("SystemMessage", f"{item}-summary", at, [text_block(text)] * bool(text),
                              attributes={"meta": "compact_summary"})
        else:
            said += shown_blocks([block], run.session)
    if said:
        transcript_prompt(run.talk, name, at, said)


def amp_assistant(run, name, at, message):
    """A response with what it used."""
    talk, usage = run.talk, as_dict(message.get("usage"))
    transcript_close(talk)
    talk.model = as_text(usage.get("model")) or talk.model
    run.session.provider = provider_of(talk.model)
    for number, block in enumerate(claude_blocks(message)):
        kind, item = block.get("type"), f"{name}-{number}"
        text = as_text(block.get("thinking" if kind == "thinking" else "text")).strip()
        if kind in ("text", "thinking"):
            if text:
                transcript_say(talk, "AgentMessage" if kind == "text" else "Thinking", item, at, [text_block(text)])
        elif kind == "tool_use":
            transcript_call(talk, as_text(block.get("id")) or item, at, as_text(block.get("name")) or "unknown",
                            block.get("input"))
        elif kind != "redacted_thinking":
            transcript_say(talk, "AgentMessage", item, at, shown_blocks([block], run.session))
    counts = amp_counts(usage)
    run.prompted = run.prompted or any(counts.values())
    transcript_usage(talk, counts)
    state = as_dict(message.get("state"))
    if state.get("type") == "cancelled":
        run.session.event("Custom", f"{name}-interrupt", at, [text_block("Interrupted")], kind="interrupt")


def amp_counts(usage):
    """Counts of a response: Amp's input leaves the cache out, its total has all."""
    read, written = whole(usage.get("cacheReadInputTokens")), whole(usage.get("cacheCreationInputTokens"))
    total = whole(usage.get("totalInputTokens")) or whole(usage.get("inputTokens")) + read + written
    return {"input": total, "output": whole(usage.get("outputTokens")), "cache_read": read, "cache_write": written}


def amp_result(run, item, at, block):
    """The result of a call, as its run tells."""
    talk, state = run.talk, as_dict(block.get("run"))
    call_id = as_text(first_of(block, ("toolUseID", "tool_use_id")))
    status, result = as_text(state.get("status")), first_of(state, ("result",), block.get("content"))
    if status in ("in-progress", "queued"):
        return
    blocks, code, diff = amp_output(result)
    error = first_of(state, ("error",))
    blocks += [text_block(text) for text in (as_text(error) or as_text(as_dict(error).get("message")),) if text]
    call = open_call(talk, call_id)
    failed = status in ("error", "cancelled", "rejected-by-user") or error is not None
    transcript_result(talk, call_id, at, result_blocks(call, blocks), failed=failed,
                      exit_code=code if call[0] == "ShellCommand" else None,
                      diff=diff, event_id=f"{item}-result")


def amp_output(result):
    """(blocks, exit code, diff) of a result: text, content, or an object of one of the tools."""
    facts = as_dict(result)
    if not isinstance(result, dict):
        return shown_blocks(result) if result is not None else [], None, None
    diff, code = as_text(facts.get("diff")), facts.get("exitCode")
    text = first_of(facts, ("output", "content", "text"))
    code = code if type(code) is int else None
    if isinstance(text, (str, list)):
        return shown_blocks(text), code, None
    if diff:
        diff = "\n".join(line for line in diff.splitlines() if not line.startswith(("```", "Index: ", "=====")))
        return [code_block(diff, "diff")], code, diff if "@@" in diff else None
    return [json_block(result)], code, None


def amp_shell(run, item, at, block):
    """A command that the person ran."""
    command = as_text(as_dict(block.get("args")).get("cmd"))
    output, code, _ = amp_output(as_dict(block.get("toolRun")).get("result"))
    code = code if code is not None and -2**31 <= code < 2**31 else None
    run.session.event("ShellCommand", item, at, [code_block(command, "bash")], attributes={"tool": "!"},
                      command=command, exit_code=code)
    run.session.event("ToolResult", f"{item}-result", at, output, name="!", is_error=bool(code), call_id=item)


AMP_TOOLS = tool_table(
    FileRead="Read read_file", FileCreate="Write create_file", FileEdit="Edit edit_file",
    ShellCommand="Bash Terminal shell_command",
    CodeSearch="Grep grep finder codebase_search_agent", FileSearch="Glob glob list_directory",
    WebSearch="WebSearch web_search", WebFetch="WebFetch read_web_page")
AMP_FACTS = {"created": amp_created, "title": amp_title, "env": amp_environment, "mainThreadID": amp_parent,
             "parentThreadID": amp_parent, "forkedFrom": amp_fork, "relationships": amp_related,
             "usageLedger": amp_ledger}


# ---------------------------------------------------------------------------
# Grok
#
# $GROK_HOME/sessions/<folder, percent-encoded>/<id>/chat_history.jsonl with summary.json; seen in
# files of 2026 (Grok 4.5).  Records have no times and no usage; a user record with a
# synthetic_reason was written by the program, and reasoning is mostly encrypted.
# ---------------------------------------------------------------------------

GROK_FILE = "chat_history.jsonl"


def grok_roots(env, home):
    return [Path(env.get("GROK_HOME") or home / ".grok") / "sessions"]


def grok_sources(root):
    """The histories below a folder, or one, each with the summary beside it."""
    for path in files_of(root, lambda name: name == GROK_FILE):
        yield Source(path, (Path(path), Path(path).with_name("summary.json")))


def grok_recognise(head, path):
    """Whether a file is a chat history: records of four types, which hold what others put into a message."""
    if os.path.basename(path) != GROK_FILE:
        return False
    records = [as_dict(load_json(line)) for line in head.split(b"\n", 10)[:10] if line.strip()]
    return any(as_text(record.get("type")) in GROK_STEPS and "message" not in record for record in records) or (
        b"\n" not in head and head.startswith(b'{"type":"system"'))


class GrokRun:
    """Where the reading of a history stands."""

    def __init__(self, session):
        self.talk = Transcript(session, GROK_TOOLS)
        self.session = session
        self.summary = {}


@tool("grok", "Grok", roots=grok_roots, sources=grok_sources, recognise=grok_recognise,
      where="~/.grok/sessions, or GROK_HOME", seen="files of 2026")
def parse_grok(source):
    """Grok: one folder is one session."""
    path = Path(source.path)
    if not grok_recognise(claude_head(str(path)), str(path)):
        return
    summary = as_dict(load_json(claude_head(str(path.with_name("summary.json")), 1 << 20)))
    info = as_dict(summary.get("info"))
    began = utc(first_of(summary, ("created_at", "updated_at")))
    session = Session("grok", "xai", as_text(info.get("id")) or grok_id(path), began or utc(path.stat().st_mtime))
    run = GrokRun(session)
    grok_facts(session, summary, path)
    events = transcript_events(run.talk, read_records(path, session), lambda item: grok_record(run, *item))
    yield from only_if_any(session, events)


def grok_id(path):
    """A session without a summary is named by its folder, if that is a session's, else by its first bytes."""
    if UUID.fullmatch(path.parent.name):
        return path.parent.name
    return f"grok-{sha256(claude_head(str(path), 512)).hexdigest()[:24]}"


def grok_facts(session, summary, path):
    """What the summary says of the session."""
    info, attributes = as_dict(summary.get("info")), session.attributes
    slug = path.parent.parent.name
    cwd = as_text(info.get("cwd")) or (urllib.parse.unquote(slug) if slug.startswith("%2F") else "")
    remote = next((remote for remote in as_list(summary.get("git_remotes")) if as_text(remote)), "")
    git = {"branch": as_text(summary.get("head_branch")), "commit_hash": as_text(summary.get("head_commit")),
           "repository_url": remote}
    parent = as_text(summary.get("parent_session_id"))
    for key, value in (("cwd", cwd), ("git_branch", git["branch"]), ("parent_session_id", parent),
                       ("git", {name: fact for name, fact in git.items() if fact}),
                       ("session_role", "auxiliary" if summary.get("session_kind") == "subagent" else "")):
        if value:
            attributes[key] = value
    session.title = as_text(first_of(summary, ("generated_title", "session_summary"))).strip() or None
    session.model = as_text(summary.get("current_model_id")) or None
    for key in ("created_at", "last_active_at", "updated_at"):
        session.seen_at(utc(summary.get(key)))


def grok_record(run, offset, record):
    """Read one record by its type."""
    kind, name = record.get("type"), as_text(record.get("id")) or f"@{offset}"
    at = utc(first_of(record, ("timestamp", "created_at")))
    step = GROK_STEPS.get(kind) if isinstance(kind, str) else None
    if step:
        step(run, name, at, record)
    else:
        run.session.unknown_record(kind, name, at, record)


GROK_QUERY = re.compile(r"<user_query>\s*(.*?)\s*</user_query>", re.DOTALL)
GROK_INJECTED = ("<user_info>", "<system-reminder>", "<project_instructions>", "<git_status>")


def grok_user(run, name, at, record):
    """A prompt, which may stand in an envelope; what the program put in is not shown, but for summaries."""
    blocks, said = shown_blocks(record.get("content"), run.session), []
    reason = as_text(record.get("synthetic_reason"))
    if reason and "compact" in reason.lower() and blocks:
        run.session.event("SystemMessage", name, at, blocks, attributes={"meta": "compact_summary"})
    for block in blocks if not record.get("synthetic_reason") else ():
        text = block.get("text", "").lstrip()
        found = GROK_QUERY.findall(text) if text.startswith("<") else []
        if found:
            said += [text_block(query) for query in found if query]
        elif not text.startswith(GROK_INJECTED):
            said.append(block)
    if said:
        transcript_prompt(run.talk, name, at, said)


def grok_assistant(run, name, at, record):
    """A reply with its calls."""
    talk = run.talk
    transcript_close(talk)
    talk.model = as_text(record.get("model_id")) or talk.model
    thought = as_text(record.get("reasoning_content")).strip()
    if thought:
        transcript_say(talk, "Thinking", f"{name}-thinking", at, [text_block(thought)])
    blocks = shown_blocks(record.get("content"), run.session)
    if blocks:
        transcript_say(talk, "AgentMessage", name, at, blocks)
    for number, call in enumerate(map(as_dict, as_list(record.get("tool_calls")))):
        call = as_dict(call.get("function")) | call
        given = call.get("arguments")
        parsed = json_value(given) if isinstance(given, str) else given
        transcript_call(talk, as_text(call.get("id")) or f"{name}-call-{number}", at,
                        as_text(call.get("name")) or "unknown", parsed if parsed is not None else given)


def grok_reasoning(run, name, at, record):
    """The summary of what the model thought; the rest is encrypted."""
    summary = record.get("summary")
    parts = [summary] if isinstance(summary, str) else [as_text(as_dict(part).get("text")) for part in as_list(summary)]
    text = "\n".join(filter(None, parts)).strip()
    if text:
        transcript_close(run.talk)
        transcript_say(run.talk, "Thinking", name, at, [text_block(text)])


GROK_EXIT = re.compile(r"(?:[Ee]xit code:?|exited with code) (-?\d{1,9})")


def grok_result(run, name, at, record):
    """The result of a call."""
    talk, call_id = run.talk, as_text(record.get("tool_call_id"))
    call = open_call(talk, call_id)
    blocks = shown_blocks(record.get("content"), run.session)
    text = claude_first_text(blocks) or ""
    said = GROK_EXIT.search(text[:300]) if call[0] == "ShellCommand" else None
    failed = record.get("is_error") is True or text.startswith(("Error:", "<tool_use_error>"))
    transcript_result(talk, call_id, at, result_blocks(call, blocks), failed=failed, event_id=name,
                      exit_code=int(said[1]) if said else None)


def grok_nothing(run, name, at, record):
    """The system prompt is not shown."""


GROK_TOOLS = tool_table(
    FileRead="read_file", FileCreate="write write_file create_file", FileEdit="search_replace edit_file hashline_edit",
    FileDelete="delete_file", ShellCommand="run_terminal_cmd run_terminal_command bash",
    CodeSearch="grep codebase_search", FileSearch="list_dir glob file_search",
    WebSearch="web_search", WebFetch="web_fetch open_page")
GROK_STEPS = {"system": grok_nothing, "user": grok_user, "assistant": grok_assistant, "reasoning": grok_reasoning,
              "tool_result": grok_result, "backend_tool_call": grok_nothing}


# ---------------------------------------------------------------------------
# Hermes
#
# $HERMES_HOME/state.db (tables sessions and messages), and older, or beside it,
# sessions/*.json with one session each; known from files and parsers of 2026.  Messages have
# OpenAI's form.  Tokens are totals of a session.  Long sessions go on in a child with parent_session_id.
# ---------------------------------------------------------------------------

HERMES_SESSION = ("id", "source", "model", "parent_session_id", "started_at", "ended_at", "end_reason", "title", "cwd",
                  "git_branch", "billing_provider", "input_tokens", "output_tokens", "cache_read_tokens",
                  "cache_write_tokens", "reasoning_tokens", "estimated_cost_usd", "actual_cost_usd")
HERMES_MESSAGE = ("id", "role", "content", "tool_call_id", "tool_calls", "tool_name", "timestamp", "finish_reason",
                  "reasoning", "reasoning_content", "active")


def hermes_roots(env, home):
    """The home of Hermes and those of its profiles; on Windows also below the local application data."""
    folders = [Path(env.get("HERMES_HOME") or home / ".hermes")]
    if env.get("LOCALAPPDATA") and not env.get("HERMES_HOME"):
        folders.append(Path(env["LOCALAPPDATA"]) / "hermes")
    folders += [path for folder in folders for path in sorted(folder.glob("profiles/*"))]
    return [path for folder in folders for path in (folder / "state.db", folder / "sessions")]


def hermes_sources(root):
    """Databases and session files below a folder, or one file.  A session that is in the database beside its file
    comes from there."""
    paths = files_of(root)
    databases = [path for path in paths if path.endswith(".db") and hermes_recognise(claude_head(path), path)]
    beside = Path(root).parent / "state.db"
    stored = hermes_ids([*databases, *([str(beside)] if beside.is_file() and not os.path.isfile(root) else [])])
    for path in databases:
        yield Source(path, database_files(path))
    for path in paths:
        head = claude_head(path) if path.endswith(".json") else b""
        if head and hermes_recognise(head, path) and claude_first(head, b"session_id") not in stored:
            yield Source(path, (Path(path),))


def hermes_ids(databases):
    """The ids of all sessions in some databases."""
    found = set()
    for path in databases:
        try:
            with open_database(path) as connection:
                if connection:
                    found.update(row["id"] for row in query(connection, "SELECT id FROM sessions"))
        except OSError:
            continue
    return found


def hermes_recognise(head, path):
    """Whether a file is Hermes' database, or a session with OpenAI's messages under its own facts."""
    if head.startswith(SQLITE_HEAD):
        return os.path.basename(path) == "state.db" and b"session" in head
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    return start.startswith(b"{") and b'"session_id"' in head[:4096] and (
        b'"session_start"' in head[:4096] or b'"platform"' in head[:4096] and b'"messages"' in head)


class HermesRun:
    """Where the reading of a session stands."""

    def __init__(self, session):
        self.talk = Transcript(session, HERMES_TOOLS)
        self.session = session
        self.places = itertools.count()
        self.facts = {}                 # of a file, as they come
        self.totals = {}


@tool("hermes", "Hermes", roots=hermes_roots, sources=hermes_sources, recognise=hermes_recognise,
      where="~/.hermes, or HERMES_HOME", seen="databases of 2026, JSON files before")
def parse_hermes(source):
    """Hermes: each row of its database is a session, or one file is."""
    path = Path(source.path)
    if not hermes_recognise(claude_head(str(path)), str(path)):
        return
    if path.suffix == ".json":
        began = utc(claude_first(claude_head(str(path)), b"session_start"))
        session = Session("hermes", "unknown", path.stem, began or utc(path.stat().st_mtime))
        run = HermesRun(session)
        parts = json_parts(path, session, ("messages",), "role")
        yield from only_if_any(session, transcript_events(run.talk, parts, lambda part: hermes_part(run, *part),
                                                          lambda: hermes_finish(run)))
        return
    with open_database(path) as connection:
        if connection and {"id", "session_id", "role"} <= set(table_columns(connection, "messages")):
            columns = column_list(connection, "sessions", HERMES_SESSION)
            for row in query(connection, f"SELECT {columns} FROM sessions ORDER BY rowid"):
                yield from hermes_session(connection, row)


def hermes_session(connection, row):
    """The session of one row, if anything was said in it."""
    if not as_text(row["id"]):
        return
    session = Session("hermes", as_text(row["billing_provider"]) or "unknown", row["id"], utc(row["started_at"]))
    run = HermesRun(session)
    hermes_facts(run, row)
    messages = query(connection, f"""
        SELECT {column_list(connection, "messages", HERMES_MESSAGE)}
          FROM messages
         WHERE session_id = ?
         ORDER BY id
    """, (row["id"],), session)
    yield from only_if_any(session, transcript_events(run.talk, messages, lambda message: hermes_message(run, message),
                                                      lambda: hermes_finish(run)))


def hermes_facts(run, facts):
    """What a row, or a file, says of the whole session."""
    session, attributes = run.session, run.session.attributes
    for key, name in (("cwd", "cwd"), ("git_branch", "git_branch"), ("source", "source"), ("platform", "source"),
                      ("parent_session_id", "parent_session_id")):
        if as_text(facts.get(key)):
            attributes[name] = facts[key]
    session.title = as_text(facts.get("title")).strip() or session.title
    run.talk.model = as_text(facts.get("model")) or run.talk.model
    for key in ("started_at", "ended_at", "session_start", "last_updated"):
        session.seen_at(utc(facts.get(key)))
    if attributes.get("source") == "subagent":
        attributes["session_role"] = "auxiliary"
    read, written = whole(facts.get("cache_read_tokens")), whole(facts.get("cache_write_tokens"))
    run.totals = {"input": whole(facts.get("input_tokens")) + read + written,
                  "output": whole(facts.get("output_tokens")), "cache_read": read, "cache_write": written,
                  "reasoning": whole(facts.get("reasoning_tokens"))}
    cost = first_of(facts, ("actual_cost_usd", "estimated_cost_usd"))
    if type(cost) in (int, float) and cost > 0:
        run.talk.usage["cost_usd"] = cost


def hermes_part(run, key, value):
    """A member of a session's file: a message, or a fact."""
    if key == "messages" and isinstance(value, dict):
        hermes_message(run, value)
    elif key == "messages":
        run.session.bad_lines += 1
    elif key == "session_id" and as_text(value):
        run.session.session_id = value
    elif isinstance(key, str):
        run.facts[key] = value
        hermes_facts(run, run.facts)


def hermes_finish(run):
    """Tokens are known for the whole session only: they stand on an event of their own."""
    transcript_close(run.talk)
    transcript_usage(run.talk, run.totals)
    if run.session.provider == "unknown":
        run.session.provider = provider_of(run.talk.model)


def hermes_message(run, message):
    """One message by its role; rows with facts about the session are none."""
    place, role = next(run.places), message.get("role")
    if message.get("active") == 0:      # taken back by the person
        return
    name, at = f"m{message.get('id') or place}", utc(message.get("timestamp"))
    if role == "user":
        blocks = hermes_content(run, message)
        if blocks and (claude_first_text(blocks) or "").startswith(HERMES_INJECTED):
            run.session.event("SystemMessage", name, at, blocks, attributes={"meta": "notification"})
        elif blocks:
            transcript_prompt(run.talk, name, at, blocks)
    elif role == "assistant":
        hermes_assistant(run, name, at, message)
    elif role == "tool":
        hermes_result(run, name, at, message)
    elif role not in ("session_meta", "system"):
        run.session.unknown_record(f"message {role}", name, at, message)


HERMES_INJECTED = ("[CONTEXT COMPACTION", "[SYSTEM:", "Review the conversation above and", "[Background process")


def hermes_content(run, message):
    """Content as blocks; a list may be stored as JSON."""
    content = message.get("content")
    if isinstance(content, str) and content.startswith(("json:[", "[{")):
        parsed = json_value(content.removeprefix("json:"))
        content = parsed if isinstance(parsed, list) else content
    return shown_blocks(content, run.session)


def hermes_assistant(run, name, at, message):
    """A reply with thoughts and calls."""
    talk = run.talk
    transcript_close(talk)
    thought = as_text(first_of(message, ("reasoning", "reasoning_content"))).strip()
    if thought:
        transcript_say(talk, "Thinking", f"{name}-thinking", at, [text_block(thought)])
    blocks = hermes_content(run, message)
    if blocks:
        transcript_say(talk, "AgentMessage", name, at, blocks)
    calls = message.get("tool_calls")
    for number, call in enumerate(as_list(json_value(calls) if isinstance(calls, str) else calls)):
        function = as_dict(as_dict(call).get("function")) or as_dict(call)
        given = function.get("arguments")
        parsed = json_value(given) if isinstance(given, str) else given
        transcript_call(talk, as_text(first_of(call, ("id", "call_id"))) or f"{name}-call-{number}", at,
                        as_text(function.get("name")) or "unknown", parsed if parsed is not None else given)


def hermes_result(run, name, at, message):
    """The result of a call: text, or JSON with the output and how it ended."""
    talk, call_id = run.talk, as_text(message.get("tool_call_id"))
    talk.names.setdefault(call_id, as_text(first_of(message, ("tool_name", "name"))) or "unknown")
    call = open_call(talk, call_id)
    content = message.get("content")
    facts = as_dict(json_value(content)) if isinstance(content, str) and content.startswith("{") else {}
    code, error = facts.get("exit_code"), facts.get("error")
    output = as_text(first_of(facts, ("output", "content")))
    blocks = [text_block(text) for text in (output, as_text(error)) if text] if facts else []
    blocks = blocks or ([json_block(facts)] if facts else hermes_content(run, message))
    diff = as_text(facts.get("diff"))
    transcript_result(talk, call_id, at, result_blocks(call, blocks),
                      failed=bool(error) or facts.get("success") is False,
                      exit_code=code if type(code) is int and call[0] == "ShellCommand" else None,
                      diff=diff if diff.startswith("---") else None, event_id=f"{name}-result")


HERMES_TOOLS = tool_table(
    FileRead="read_file", FileCreate="write_file", FileEdit="patch edit_file", ShellCommand="terminal",
    CodeSearch="search_files", WebSearch="web_search", WebFetch="web_extract")


# ---------------------------------------------------------------------------
# Crush
#
# Seen in public sources only (0.2 to 0.30): crush.db in the .crush folder of each project, all of
# which a list in Crush's own folder names.  A message is one row whose parts are updated in place;
# results are messages of the role "tool".  A sub-agent is a session of its own, called after the
# message and the call that started it.  The tokens of a session are those of its last response
# alone, so that they are kept as a fact and not counted; only the cost is a sum.
#
# To support a new part of a message, add a line to CRUSH_PARTS; a new tool, to CRUSH_TOOLS.
# ---------------------------------------------------------------------------

CRUSH_FILE = "crush.db"


def crush_roots(env, home):
    """The databases of the projects that Crush has a list of, and the one in the home folder."""
    own = crush_folder(env, Path(home))
    try:
        with open_regular(own / "projects.json") as file:
            projects = as_list(as_dict(load_json(file.read(MAX_LINE))).get("projects"))
    except OSError:
        projects = []
    folders = [Path(as_text(project.get("path")), as_text(project.get("data_dir")) or ".crush")
               for project in map(as_dict, projects) if as_text(project.get("path"))]
    return [folder / CRUSH_FILE for folder in [*folders, Path(home) / ".crush"]]


def crush_folder(env, home):
    """Crush's own folder, as it finds it itself."""
    if env.get("CRUSH_GLOBAL_DATA"):
        return Path(env["CRUSH_GLOBAL_DATA"]).expanduser()
    windows = Path(env.get("LOCALAPPDATA") or home / "AppData" / "Local") / "crush"
    return windows if os.name == "nt" else Path(env.get("XDG_DATA_HOME") or home / ".local" / "share") / "crush"


def crush_sources(root):
    """The databases below a folder, or one file."""
    return [Source(path, database_files(path)) for path in files_of(root, CRUSH_FILE.__eq__)]


def crush_recognise(head, path):
    """Whether a file is a database with Crush's tables."""
    return head.startswith(SQLITE_HEAD) and (
        os.path.basename(path) == CRUSH_FILE or b"completion_tokens" in head and b"summary_message_id" in head)


@tool("crush", "Crush", roots=crush_roots, sources=crush_sources, recognise=crush_recognise,
      where=".crush/crush.db of projects, or CRUSH_GLOBAL_DATA", seen="databases of 2026")
def parse_crush(source):
    """All sessions of a database; messages of sessions that are not in it belong to none."""
    with open_database(source.path) as database:
        if database is None or "id" not in table_columns(database, "sessions") or not {
                "id", "session_id", "role", "parts"} <= set(table_columns(database, "messages")):
            return
        columns = column_list(database, "sessions", CRUSH_COLUMNS)
        for facts in list(query(database, f"SELECT {columns} FROM sessions ORDER BY created_at, id")):
            for session in crush_session(facts, source.path, crush_rows(database, facts["id"])):
                session.stamp = f"{list(facts.values())}{crush_latest(database, facts['id'])}"
                yield session


CRUSH_COLUMNS = ("id", "parent_session_id", "title", "prompt_tokens", "completion_tokens", "cost", "created_at", "updated_at")
CRUSH_MESSAGE = ("id", "role", "parts", "model", "provider", "created_at", "is_summary_message")
CRUSH_UNTITLED = ("New Session", "Untitled Session", "New Agent Session", "Fetch Analysis")


def crush_latest(database, session_id):
    """What changes with a session's messages: cheaper to ask for than they are to read."""
    updated = column_list(database, "messages", ["updated_at"])
    sql = f"SELECT count(*) AS rows, max(updated_at) AS latest FROM (SELECT {updated} FROM messages WHERE session_id = ?)"
    return [list(row.values()) for row in query(database, sql, [session_id])]


def crush_rows(database, session_id):
    """A function that yields the rows of a session's messages."""
    columns = column_list(database, "messages", CRUSH_MESSAGE)
    sql = f"SELECT {columns} FROM messages WHERE session_id = ? ORDER BY created_at, rowid"
    return lambda session: query(database, sql, [session_id], session)


def crush_session(facts, path, messages):
    """[the session of these facts and messages], or [] if it shows nothing."""
    session = Session("crush", "crush", str(facts["id"]), utc(facts["created_at"]))
    transcript = Transcript(session, CRUSH_TOOLS)
    title, parent = as_text(facts["title"]).strip(), as_text(facts["parent_session_id"])
    session.title = title if title and title not in CRUSH_UNTITLED else None
    session.attributes.update({name: fact for name, fact in {
        "cwd": str(path.absolute().parent.parent) if path.absolute().parent.name == ".crush" else "",
        "parent_session_id": parent, "session_role": "auxiliary" if parent else "",
        "crush_last_response": {"input_tokens": whole(facts["prompt_tokens"]), "output_tokens": whole(facts["completion_tokens"])},
    }.items() if fact})
    for moment in ("created_at", "updated_at"):
        session.seen_at(utc(facts[moment]))
    if isinstance(facts["cost"], float) and facts["cost"] > 0:
        transcript.usage["cost_usd"] = round(facts["cost"], 6)
    return only_if_any(session, transcript_events(transcript, messages(session), lambda row: crush_message(transcript, row)))


def crush_message(transcript, row):
    """One message with its parts; those of a prompt make one event."""
    message, parts = CrushMessage(row), json_value(row["parts"])
    if not isinstance(parts, list):
        transcript.session.bad_lines += 1
        return
    if row["role"] == "assistant":
        transcript_close(transcript)
        transcript.model = as_text(row["model"]) or transcript.model
        transcript.session.provider = as_text(row["provider"]) or transcript.session.provider
    for number, part in enumerate(map(as_dict, parts)):
        kind, data = as_text(part.get("type")), as_dict(part.get("data"))
        part_id = message.id if number == 0 else f"{message.id}-{number}"
        if kind in CRUSH_PARTS:
            CRUSH_PARTS[kind](transcript, message, part_id, data)
        elif kind not in CRUSH_SILENT:
            transcript.session.unknown_record(f"part {kind}", part_id, message.at, part)
    if message.blocks:
        transcript_prompt(transcript, message.id, message.at, message.blocks)


class CrushMessage:
    """A message while its parts are read."""

    def __init__(self, row):
        self.id = str(row["id"])
        self.at = utc(row["created_at"])
        self.is_user = row["role"] == "user"
        self.is_summary = bool(row["is_summary_message"])
        self.blocks = []                # of a prompt


def crush_text(transcript, message, part_id, data):
    """What somebody said; hidden text is what Crush itself goes on with, a summary stands for what was before it."""
    text = as_text(data.get("text"))
    if not text.strip():
        return
    if message.is_summary:
        transcript.session.event("Custom", part_id, message.at, [text_block(text)], kind="compaction")
    elif message.is_user and data.get("hidden") is True:
        transcript_notice(transcript, part_id, message.at, text, "notice")
    elif message.is_user:
        message.blocks.append(text_block(text))
    else:
        transcript_say(transcript, "AgentMessage", part_id, message.at, [text_block(text)])


def crush_reasoning(transcript, message, part_id, data):
    text, began, ended = as_text(data.get("thinking")), whole(data.get("started_at")), whole(data.get("finished_at"))
    if text.strip():
        event = transcript_say(transcript, "Thinking", part_id, message.at, [text_block(text)])
        if ended > began > 0:
            event["duration_ms"] = (ended - began) * 1000


def crush_image(transcript, message, part_id, data):
    message.blocks += codex_images([as_text(data.get("url"))])


def crush_attachment(transcript, message, part_id, data):
    """A file that was put beside a prompt: an image is shown, a text too, others are named."""
    media, content, path = (as_text(data.get(name)) for name in ("MIMEType", "Data", "Path"))
    if media.startswith("image/") and content:
        message.blocks.append(image_block(media, content, path or None))
    elif path:
        message.blocks.append({"type": "File", "path": path})


def crush_call(transcript, message, part_id, data):
    """A call; that of a sub-agent leads to the session of its own."""
    call_id, name = as_text(data.get("id")) or part_id, as_text(data.get("name")) or "unknown"
    given = json_value(data.get("input"))
    event = transcript_call(transcript, call_id, message.at, name, given if given is not None else as_text(data.get("input")))
    if event and name in ("agent", "agentic_fetch"):
        event["attributes"]["child_session_id"] = f"{message.id}$${call_id}"
        add_new(transcript.session.related, f"{message.id}$${call_id}")


CRUSH_EXIT = re.compile(r"Exit code (-?\d{1,9})\s*$")


def crush_result(transcript, message, part_id, data):
    """A result; what the model was given has wrappings that the details have not."""
    call_id, name, details = as_text(data.get("tool_call_id")), as_text(data.get("name")), as_dict(json_value(data.get("metadata")))
    call, text = open_call(transcript, call_id), as_text(data.get("content"))
    if name == "bash" and isinstance(details.get("output"), str):
        text = details["output"]
    code = CRUSH_EXIT.search(text) if name == "bash" else None
    blocks = result_blocks(call, [text_block(text)]) if text else []
    if name == "view" and call[0] == "FileRead" and text:
        blocks = [opencode_output("read", text, data.get("is_error") is True)]
    if as_text(data.get("data")) and as_text(data.get("mime_type")).startswith("image/"):
        blocks.append(image_block(data["mime_type"], data["data"]))
    began, ended = whole(details.get("start_time")), whole(details.get("end_time"))
    transcript_result(transcript, call_id, message.at, blocks, failed=data.get("is_error") is True,
                      exit_code=details.get("exit_code", int(code[1]) if code else None), diff=crush_diff(call, details),
                      duration_ms=ended - began if ended > began > 0 else None, event_id=f"{part_id}-result")


def crush_diff(call, details):
    """The diff that an edit made: as it was told, or from the whole file before and after; None where it changed none."""
    old, new = details.get("old_content"), details.get("new_content")
    if call[0] not in ("FileEdit", "FileCreate") or as_text(details.get("diff")):
        return as_text(details.get("diff")) or None
    return unified_diff(old, new, call[1]["path"]) if isinstance(old, str) and isinstance(new, str) and old else None


def crush_command(transcript, message, part_id, data):
    """A command that the person ran beside the conversation."""
    command, output = as_text(data.get("command")), as_text(data.get("output"))
    if transcript_call(transcript, part_id, message.at, "bash", {"command": command}):
        transcript_result(transcript, part_id, message.at, [code_block(output)] * bool(output), exit_code=data.get("exit_code"))


def crush_finish(transcript, message, part_id, data):
    """How a response ended, where that was not well."""
    reason, text = as_text(data.get("reason")), as_text(data.get("message")) or as_text(data.get("details"))
    at = utc(data.get("time")) if whole(data.get("time")) else message.at
    if reason == "canceled":
        transcript.session.event("Custom", part_id, at, [text_block(text)] * bool(text), kind="interrupt")
    elif reason in ("error", "content_filter"):
        transcript.session.event("SystemMessage", part_id, at, [text_block(text or reason)],
                                 attributes={"meta": "api_error", "error": True})


CRUSH_PARTS = {
    "text": crush_text,
    "reasoning": crush_reasoning,
    "image_url": crush_image,
    "binary": crush_attachment,
    "tool_call": crush_call,
    "tool_result": crush_result,
    "shell_command": crush_command,
    "finish": crush_finish,
}
CRUSH_SILENT = ("_meta",)
CRUSH_TOOLS = tool_table(FileRead="view", FileEdit="edit multiedit", FileCreate="write", CodeSearch="grep sourcegraph",
                         FileSearch="glob ls", ShellCommand="bash", WebSearch="web_search",
                         WebFetch="fetch web_fetch agentic_fetch download")

# ---------------------------------------------------------------------------
# Imports: exports of claude.ai and ChatGPT, and parsers of one's own
#
# conversations.json, or the ZIP file that holds it.  ChatGPT: {title, mapping: {id: {parent,
# message}}, current_node}; the way from current_node to the root is the conversation.  claude.ai:
# {uuid, name, chat_messages}.  Exports as they were in 2025 and 2026; what the desktop
# programs keep is encrypted and cannot be read.
# ---------------------------------------------------------------------------

IMPORT_LIMIT = 1 << 30                  # the largest conversations.json that is unpacked or read
EXPORTS = ("chatgpt", "claude-ai")       # the tools whose sessions come by `daemon.py import`
BY_IMPORT = "by import"
IMPORT_NAME = re.compile(r"(?:.*/)?conversations(?:-\d{1,6})?\.json")


def unpacked_export(path, folder):
    """The files with the conversations of an export: itself, or those in a ZIP file, unpacked into a folder of their own.

    They stay there, as a source that cannot be sent yet is read again.  Raises Unreadable."""
    if not zipfile.is_zipfile(path):
        return [path]
    folder = folder / f"{path.stem}-{path.stat().st_size}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        with zipfile.ZipFile(path) as archive:
            return [unpack(archive, item, folder / os.path.basename(item.filename)) for item in archive.infolist()
                    if IMPORT_NAME.fullmatch(item.filename) and item.file_size <= IMPORT_LIMIT]
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, zlib.error, EOFError) as error:
        raise Unreadable(f"{path} does not unpack: {error}.") from error


def unpack(archive, item, target):
    """Unpack one file of a ZIP; return where it lies."""
    with archive.open(item) as packed, open(target, "wb") as plain:
        shutil.copyfileobj(packed, plain)
    return target


def export_conversations(path, mark):
    """Yield the conversations of an export that have a member `mark`: a list of them, or one by itself."""
    holder, single = Session("import", "unknown", "import"), {}
    for key, value in json_parts(path, holder, (), mark, IMPORT_LIMIT):
        if key is not None:
            single[key] = value
        elif isinstance(value, dict) and mark in value:
            yield value
    if mark in single:
        yield single


def export_sources(root, recognise):
    """The exports below a folder, or one file."""
    for path in files_of(root, lambda name: name.endswith(".json")):
        if path == str(root) or recognise(claude_head(path), path):
            yield Source(path, (Path(path),))


def export_roots(env, home):
    """Exports lie nowhere by themselves."""
    return []


# ChatGPT --------------------------------------------------------------------

def chatgpt_recognise(head, path):
    """Whether a file has conversations of ChatGPT."""
    return path.endswith(".json") and b'"mapping"' in head and (b'"create_time"' in head or b'"current_node"' in head)


@tool("chatgpt", "ChatGPT (export)", roots=export_roots,
      sources=functools.partial(export_sources, recognise=chatgpt_recognise), recognise=chatgpt_recognise,
      where=BY_IMPORT, seen="exports of 2025 and 2026")
def parse_chatgpt(source):
    """ChatGPT: each conversation of an export is a session."""
    for number, talk in enumerate(export_conversations(source.path, "mapping")):
        name = as_text(first_of(talk, ("conversation_id", "id"))) or f"chatgpt-{number}"
        session = Session("chatgpt", "openai", name, utc(talk.get("create_time")))
        session.title = as_text(talk.get("title")).strip() or None
        session.seen_at(utc(talk.get("create_time")))
        transcript = Transcript(session)
        transcript.model = as_text(talk.get("default_model_slug")) or None
        nodes = chatgpt_path(as_dict(talk.get("mapping")), talk.get("current_node"))
        yield from only_if_any(session, transcript_events(
            transcript, nodes, lambda node, transcript=transcript: chatgpt_message(transcript, *node)))


def chatgpt_path(mapping, last):
    """[(id, message)] on the way to the last node; without one, all nodes in their order."""
    names, seen = [], set()
    while isinstance(last, str) and last in mapping and last not in seen:
        seen.add(last)
        names.append(last)
        last = as_dict(mapping[last]).get("parent")
    found = names[::-1] or list(mapping)
    return [(name, message) for name in found if (message := as_dict(as_dict(mapping[name]).get("message")))]


def chatgpt_message(transcript, name, message):
    """One message, by who said it and to whom: what the model says to a tool is a call."""
    author, metadata = as_dict(message.get("author")), as_dict(message.get("metadata"))
    role, at, content = author.get("role"), utc(message.get("create_time")), as_dict(message.get("content"))
    to = as_text(message.get("recipient")) or "all"
    if metadata.get("is_visually_hidden_from_conversation") is True or role == "system":
        return
    blocks = chatgpt_blocks(content)
    if not blocks:
        return
    if role == "user":
        if content.get("content_type") != "user_editable_context":
            transcript_prompt(transcript, name, at, blocks)
    elif role == "assistant":
        transcript_close(transcript)
        transcript.model = as_text(metadata.get("model_slug")) or transcript.model
        if to != "all":
            transcript_call(transcript, name, at, to, claude_first_text(blocks) or {})
        else:
            thought = content.get("content_type") in ("thoughts", "reasoning_recap")
            transcript_say(transcript, "Thinking" if thought else "AgentMessage", name, at, blocks)
    elif role == "tool":
        call_id = next((call_id for call_id in transcript.calls if transcript.names[call_id] == author.get("name")), "")
        transcript_result(transcript, call_id, at, blocks, failed=content.get("content_type") == "system_error",
                          event_id=name)
    else:
        transcript.session.unknown_record(f"message {role}", name, at, message)


def chatgpt_blocks(content):
    """Content of any type as blocks; pictures and sound are only named, as they lie elsewhere."""
    kind, text = content.get("content_type"), as_text(first_of(content, ("text", "result", "content")))
    if kind in ("code", "execution_output") and text.strip():
        language = as_text(content.get("language")).replace("unknown", "")
        return [code_block(text, language or None)]
    blocks = [text_block(text)] if text.strip() else []
    for thought in map(as_dict, as_list(content.get("thoughts"))):
        words = "\n".join(filter(None, (as_text(thought.get("summary")), as_text(thought.get("content")))))
        blocks += [text_block(words)] * bool(words.strip())
    for part in as_list(content.get("parts")):
        said = as_text(part) or as_text(as_dict(part).get("text"))
        pointer = as_text(as_dict(part).get("asset_pointer"))
        if said.strip():
            blocks.append(text_block(said))
        elif pointer:
            blocks.append(text_block(f"[{as_text(part.get('content_type')).partition('_')[0]} {pointer}]"))
    return blocks


# claude.ai ------------------------------------------------------------------

def claude_ai_recognise(head, path):
    """Whether a file has conversations of claude.ai."""
    return path.endswith(".json") and b'"chat_messages"' in head and b'"uuid"' in head


@tool("claude-ai", "claude.ai (export)", roots=export_roots,
      sources=functools.partial(export_sources, recognise=claude_ai_recognise), recognise=claude_ai_recognise,
      where=BY_IMPORT, seen="exports of 2025 and 2026")
def parse_claude_ai(source):
    """claude.ai: each conversation of an export is a session."""
    for number, talk in enumerate(export_conversations(source.path, "chat_messages")):
        session = Session("claude-ai", "anthropic", as_text(talk.get("uuid")) or f"claude-ai-{number}",
                          utc(talk.get("created_at")))
        session.title = as_text(talk.get("name")).strip() or None
        session.model = as_text(talk.get("model")) or None
        for key in ("created_at", "updated_at"):
            session.seen_at(utc(talk.get(key)))
        transcript = Transcript(session)
        messages = [message for message in as_list(talk.get("chat_messages")) if isinstance(message, dict)]
        yield from only_if_any(session, transcript_events(
            transcript, enumerate(messages), lambda item, transcript=transcript: claude_ai_message(transcript, *item)))


def claude_ai_message(transcript, number, message):
    """One message: a prompt with what was attached, or a reply with its calls."""
    name, at = as_text(message.get("uuid")) or f"m{number}", utc(message.get("created_at"))
    blocks = claude_blocks(message) or claude_blocks({"content": as_text(message.get("text"))})
    if message.get("sender") == "human":
        said = shown_blocks(blocks) + claude_ai_attached(message)
        if said:
            transcript_prompt(transcript, name, at, said)
        return
    transcript_close(transcript)
    for place, block in enumerate(blocks):
        kind, item = block.get("type"), f"{name}-{place}"
        if kind == "thinking":
            transcript_say(transcript, "Thinking", item, at, [text_block(as_text(block.get("thinking")))])
        elif kind == "tool_use":
            transcript_call(transcript, as_text(block.get("id")) or item, at, as_text(block.get("name")) or "unknown",
                            block.get("input"))
        elif kind == "tool_result":
            call_id = as_text(block.get("tool_use_id")) or next(iter(transcript.calls), "")
            transcript_result(transcript, call_id, at, shown_blocks(block.get("content")),
                              failed=block.get("is_error") is True, event_id=item)
        elif shown := shown_blocks([block], transcript.session) if kind != "token_budget" else []:
            transcript_say(transcript, "AgentMessage", item, at, shown)


def claude_ai_attached(message):
    """The text of attached files, and the names of others."""
    blocks = []
    for file in map(as_dict, as_list(message.get("attachments")) + as_list(message.get("files"))):
        name, text = as_text(file.get("file_name")), as_text(file.get("extracted_content"))
        if name:
            blocks.append(text_block(f"[{name}]"))
        if text:
            blocks.append(code_block(text, language_of(name)))
    return blocks


# Parsers of one's own -------------------------------------------------------
#
# [[custom_parsers]] in config.toml: name, command, glob.  The command is run with the path of a
# file behind its arguments, without a shell, and prints HAIL: lines, or the session as one object.

EXTERNAL_SECONDS = 60
EXTERNAL_BYTES = 256 << 20


def external_tools(entries):
    """The tools of [[custom_parsers]].  Raises ValueError with a sentence where an entry is not right."""
    tools = []
    for entry in as_list(entries):
        name, command, pattern = (as_dict(entry).get(key) for key in ("name", "command", "glob"))
        if not (isinstance(name, str) and re.fullmatch(r"[\w.-]{1,60}", name) and name not in TOOLS):
            raise ValueError(f"custom_parsers: the name {name!r} is empty, taken or has signs that a name cannot have.")
        arguments = command if isinstance(command, list) else shlex.split(as_text(command))
        if not arguments or not all(isinstance(part, str) for part in arguments) or not as_text(pattern):
            raise ValueError(f"custom_parsers: {name} needs a command and a glob.")
        pattern = os.path.expanduser(pattern)
        tools.append(Tool(name, name, functools.partial(external_roots, pattern),
                          functools.partial(external_sources, pattern),
                          functools.partial(parse_external, name, arguments),
                          lambda head, path, pattern=pattern: external_match(path, pattern),
                          pattern, "HAIL 1.0.0"))
    return tools


def external_roots(pattern, env, home):
    """The folder that all files of a glob lie below."""
    fixed = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
    return [Path(fixed if fixed == pattern else os.path.dirname(fixed) or ".")]


def external_match(path, pattern):
    return fnmatch(path, pattern) or fnmatch(path, pattern.replace("**/", ""))


def external_sources(pattern, root):
    """The files below a folder that fit the glob, or one file."""
    for path in files_of(root):
        if path == str(root) or external_match(path, pattern):
            yield Source(path, (Path(path),))


def parse_external(name, arguments, source):
    """The session that a command makes of a file.  Raises Unreadable where it fails."""
    with tempfile.TemporaryFile() as output:
        run_external([*arguments, os.fspath(source.path)], output)
        output.seek(0)
        records = external_records(output)
        header = next(records, {})
        agent, context = as_dict(header.get("agent")), as_dict(header.get("context"))
        if not as_text(header.get("session_id")):
            raise Unreadable(f"The parser {name} gave no HAIL session for {source.path}.")
        session = Session(name, as_text(agent.get("provider")) or "unknown", header["session_id"],
                          utc(context.get("created_at")))
        session.model = as_text(agent.get("model")) or None
        session.tool_version = as_text(agent.get("tool_version")) or None
        session.title = as_text(context.get("title")) or None
        session.attributes = dict(as_dict(context.get("attributes")))
        yield from only_if_any(session, external_events(session, records))


def run_external(arguments, output):
    """Run a command with its output in a file; it must end in time and be done with so many bytes."""
    try:
        process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.DEVNULL)
    except (OSError, ValueError) as error:
        raise Unreadable(f"The parser {arguments[0]} does not start: {error}.") from error
    end, problem = time.monotonic() + EXTERNAL_SECONDS, ""
    while process.poll() is None and not problem:
        if time.monotonic() > end:
            problem = f"takes longer than {EXTERNAL_SECONDS} seconds"
        elif os.fstat(output.fileno()).st_size > EXTERNAL_BYTES:
            problem = f"prints more than {EXTERNAL_BYTES >> 20} MB"
        else:
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.05)
    if problem:
        process.kill()
        process.wait()
    elif process.returncode or os.fstat(output.fileno()).st_size > EXTERNAL_BYTES:
        problem = f"ended with {process.returncode}" if process.returncode else "prints too much"
    if problem:
        raise Unreadable(f"The parser {arguments[0]} {problem}.")


def external_records(output):
    """The header and the events of HAIL, as lines or as one object."""
    first = as_dict(load_json(output.readline(MAX_LINE)))
    if first.get("type") == "header":
        yield first
        records = (as_dict(load_json(line)) for _, line in lines_of(output) if line)
        yield from (record for record in records if record.get("type") == "event")
        return
    output.seek(0)
    whole_session = as_dict(load_json(output.read(MAX_LINE)))
    yield whole_session
    yield from (event for event in as_list(whole_session.get("events")) if isinstance(event, dict))


def external_events(session, records):
    """The events, made to fit: what is not as HAIL has it becomes JSON."""
    for number, record in enumerate(records, 1):
        kind, data = event_kind({"event_type": {"type": None, **as_dict(record.get("event_type"))}})
        data, at = as_dict(data), utc(record.get("timestamp"))
        name = as_text(record.get("event_id")) or f"event-{number}"
        needed, optional = EVENT_KINDS.get(as_text(kind), (None, ()))
        if needed is None or not all(isinstance(data.get(field), str) for field in needed):
            session.unknown_record(kind, name, at, record)
        else:
            data = {field: value for field, value in data.items() if isinstance(value, (bool, int)) or
                    isinstance(value, str) and field in needed + optional}
            blocks = [external_block(block) for block in as_list(as_dict(record.get("content")).get("blocks"))]
            session.event(kind, name, at, blocks, task=as_text(record.get("task_id")) or None,
                          attributes=as_dict(record.get("attributes")) or None,
                          duration_ms=record["duration_ms"] if whole(record.get("duration_ms")) else None,
                          **{field: value for field, value in data.items() if field not in EXTERNAL_RESERVED})
        yield from session.settled()


EXTERNAL_RESERVED = ("at", "blocks", "task", "attributes", "duration_ms")


def external_block(block):
    """A block as it is, where it has what its kind needs."""
    kind = as_dict(block).get("type")
    sound = isinstance(kind, str) and all(isinstance(block.get(field), str) for field in BLOCK_KINDS.get(kind, ("?",)))
    return clean_value(block) if sound else json_block(block)


# ---------------------------------------------------------------------------
# Privacy: what must not leave the machine, and how it is taken out
#
# Every string of a session is treated: texts, code, diffs, titles, attributes,
# tool inputs and their keys.  A secret becomes [REDACTED:rule#1], a home folder
# becomes ~, and the content of excluded files is withheld.
#
# Speed comes from two levels.  Encoded lines are searched in blocks for hints:
# byte patterns that begin with a literal, which `re` finds about as fast as
# bytes.find.  Each is a pass over the block: so most are searched only in its long
# words, which are a tenth of it, and those with a rare character in common are one
# pattern.  Only lines with a hint are walked, and only with the rules whose hint was
# found.
# ---------------------------------------------------------------------------

RULES_VERSION = 3               # raise it with every change of RULES: servers then check what they hold again


class Privacy(NamedTuple):
    """What to take out.  All tuples, so that compiled rules can be shared between sessions."""
    strip_paths: bool = True
    strip_env_vars: bool = True
    exclude_patterns: tuple = ("*.env", "*secret*", "*credential*")
    homes: tuple = ()           # this machine's home folders, beside the usual shapes
    env_values: tuple = ()      # values that are secret wherever they occur
    rules: tuple = ()           # rules of one's own: (name, pattern, text that it contains or "")
    allow: tuple = ()           # globs of what is no secret
    guess: bool = True          # values by the name that they are given to, not tokens and private keys alone
    salt: bytes = b""           # this machine's own, for the fingerprints of secrets


def privacy_of(settings, env, home, salt=b""):
    """The Privacy that settings["privacy"] (flags and globs), an environment and a home folder ask for."""
    wanted = settings["privacy"]
    return Privacy(wanted["strip_paths"], wanted["strip_env_vars"], tuple(wanted["exclude_patterns"]),
                   (str(home),), secret_values(env), tuple(map(own_rule, wanted["rules"])), tuple(wanted["allow"]), salt=salt)


def own_rule(rule):
    return rule["name"], rule["pattern"], rule.get("contains", "")


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
    size, counts = len(text), map(text.count, set(text))
    return math.log2(size) - sum([count * math.log2(count) for count in counts if count > 1]) / size


def random_looking(value):
    """Whether a token with a known prefix is a real one: not an example, not xxxx."""
    return entropy(value) >= 3 and not DUMMY.search(value)


DUMMY = re.compile(r"(?i)example|xxxx|your[_-]|\.\.\.|0123456789|1234567890|abcdefgh|placeholder|redacted")


def plausible(value):
    """Whether a value that somebody called secret is one.

    Without a digit it must look very random.  That costs passwords of small letters and
    saves most of the false alarms in source code."""
    return ((DIGIT.search(value) or len(value) >= 12 and len(value) < 2.7 * len(WORDS_OF.findall(value)))
            and random_value(value))


DIGIT = re.compile(r"\d")


def random_value(value):
    """Whether a value is random, not a name, a path or a placeholder."""
    return (len(value) >= 8 and entropy(value) >= min(3.2, 0.85 * math.log2(len(value))) and not DUMMY.search(value)
            and not PLACEHOLDER.search(value) and not NO_SECRET.match(value) and not written_by_hand(value))


def random_word(value):
    """Whether a word that stands where prose names a secret is one and not the next word of the sentence."""
    return plausible(value) and not HEX_ONLY.fullmatch(value) and any(char.isalpha() for char in value)


HEX_ONLY = re.compile(r"[0-9a-f.-]+|[0-9A-F.-]+")


PLACEHOLDER = re.compile(r"(?i)[<>{}]|^\$|^%\w+%$|\*\*\*|^x+$|change_?me|placeholder|redacted|example|process\.env"
                         r"|os\.environ|getenv|env\.|(?:^|[_-])(?:my|your|test|dummy|fake|mock|some|sample|demo|default)(?:[_-]|$)")
# Paths, URLs, calls and indexing, numbers with units, dates, UUIDs, hashes that name their algorithm, public keys.
NO_SECRET = re.compile(r"(?:~|\.{0,2}/[\w.-]+/|[A-Za-z]:[\\/]|\w+://|[\w.$]+[(\[]|[\d.,:_+-]+\w{0,3}$"
                       r"|\d{4}-\d\d-\d\d|[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}$|sha\d+[-:]|ssh-|ecdsa-|pk_)")


def written_by_hand(value):
    """Whether a value is made of words (SOME-NAME_2, camelCase) rather than of random characters."""
    return len(value) >= 4 * len(WORDS_OF.findall(value))


WORDS_OF = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|\d+")


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
    candidate, the pattern itself if there are none; they are searched in long words only, or
    `anywhere` in its stead.  `words` are for patterns that begin with a choice, which `re` is slow to
    find: every match begins with one of them, in any case, or with SECRET_WORD."""
    name: str
    pattern: str
    check: Callable = random_looking
    hints: tuple = ()
    anywhere: tuple = ()
    words: tuple = ()


# Where a value is given to a name that sounds secret: api_key: "…", DB_PASSWORD=…, {"token": "…"}, "the token is …".
KEYS = ("api|access|secret|private|auth|signing|encryption|account|master|service|app|license|webhook|session|admin"
        "|deploy|storage|subscription")
SECRET_WORD = (rf"(?:(?:{KEYS})[ _-]?key|secret|token|passw(?:or)?d|passwd|passphrase|passcode|(?:(?<![A-Za-z])|(?<=set))pass|pwd|psk"
               r"|credentials?)(?:_?base|_?\d{1,2})?")
ASSIGNED_WORDS = ("key", "token", "secret", "pass", "pwd", "psk", "credential")
# The hint sees encoded text: quotes may have backslashes, tabs and line ends are letters behind one.
ASSIGNED = tuple(
    rf'(?i){word}(?:[\w -]{{0,8}}+[\\"\'\] tnr]{{0,40}}+(?:value|</name)?[:=>,|?{{(]{{1,2}}+(?:[\w &\\]{{1,14}}=)?+(?:[ "\'`(]|\\[bfnrt]?|[bf](?=["\'\\])){{0,40}}'
    rf'|\w{{0,8}}+(?: is:?)?[ \\"\'`*ntr]{{1,40}}(?=[\w.+/=~-]{{12}}))'
    rf'(?=[^\0- "\'\\`]{{8}})(?:(?=[^\0- "\'\\`\d]{{0,99}}+\d)|(?<=["\'`])(?=[\w+/=~!@#%^*-]{{12}}))(?![\w.$]{{1,80}}+[(\[])'
    for word in ASSIGNED_WORDS)
AUTH = (r"(?i)auth(?:orization[ \\\"'\]tnr]{0,40}[:=,]|\\{0,20}\"[ :\\]{1,24}\"[a-z0-9+/]{20}"
        r"|\w{0,8} ?=? ?\([\\\"']{1,20}[^\\\"']{1,60}[\\\"']{1,20},)",)
PASSWORD = (r"(?i)passw(?:or)?d(?:(?:_?\d)?[\\\"'\] tn]{0,40}[:=>]{1,2}[ \\tn]{0,40}[\"'`](?=[^\0- \"'`\\]{8})"
            r"| (?:for|of|to|on) [\w .-]{1,30}(?::| is) )",)
QUOTED = r"\\*[\"'`]([^\0- \"'`\\]{8,500})"
SECRET_OPTION = (r"--\w[\w-]{0,40}+(?i:(?<=token)|(?<=pass)|(?<=passwd)|(?<=password)|(?<=passphrase)|(?<=secret)|(?<=key)|(?<=pwd)"
                 r"|(?<=auth))")
ARGUMENT = r"\\*[\"']?([^\0- \"'`\\$<({|/][^\0- \"'`\\$<({|]{7,199})"
SET_SECRET = ("(?i)secret set ", "(?i)secret put ", "(?i)secrets set ", "(?i)secrets:set ", "(?i)config:set ",
              r"(?i)login[^\r\n|]{0,80}?<<<")

# To add a rule: one line, the specific before the general, as the first one names the
# mask.  Begin the pattern with at least two literal characters (no ^, \b or class; a
# token may stand right behind \n, a colour code or a Korean letter), or give such hints; where a
# match need not hold a long word (see LONG_WORD), give hints `anywhere`, with one of the anchors (see
# ANCHORS_IN_TEXT) in what they begin with, else each is one more pass over all of the text.  One with (?i)
# is searched in lower case.  Keep every repeat bounded or possessive, so that no input takes quadratic time.
# Add cases to tests/fixtures/secrets-written-from.tsv, in pieces.
PRIVATE_KEY = (r"PRIVATE KEY(?: BLOCK)?-----", "Private-Lines: ")
AWS_KEY = (r"A(?:KIA|SIA|BIA|CCA)[A-Z0-9]{16}",)
RULES = (
    # AI providers
    Rule("anthropic", r"sk-ant-[\w-]{24,}"),
    Rule("openai", r"sk-(?:proj|svcacct|admin|None)-[\w-]{20,}"),
    Rule("openai", r"sk-[A-Za-z0-9]{20}T3BlbkFJ[A-Za-z0-9]{20}"),
    Rule("openrouter", r"sk-or-v1-[0-9a-f]{48,}"),
    Rule("langfuse", r"sk-lf-[0-9a-f]{8}-[0-9a-f-]{27}"),
    Rule("sk-generic", r"sk-(?:[a-z]{2,12}-)?[A-Za-z0-9]{32,}", with_digit),
    Rule("langsmith", r"lsv2_(?:pt|sk)_[0-9a-f]{32}_[0-9a-f]{10}"),
    Rule("groq", r"gsk_[A-Za-z0-9]{48,}"),
    Rule("xai", r"xai-[A-Za-z0-9]{70,}"),
    Rule("perplexity", r"pplx-[A-Za-z0-9]{40,}"),
    Rule("huggingface", r"hf_[A-Za-z0-9]{34,}"),
    Rule("huggingface", r"api_org_[A-Za-z0-9]{34}"),
    Rule("replicate", r"r8_[A-Za-z0-9]{37}"),
    Rule("ai", r"nvapi-[\w-]{60,}"),
    Rule("ai", r"tgp_v1_[\w-]{40,}"),
    Rule("ai", r"tvly-(?:dev-|prod-)?[A-Za-z0-9]{28,}"),
    Rule("ai", r"csk-[a-z0-9]{48}"),
    Rule("ai", r"jina_[A-Za-z0-9]{60,}"),
    Rule("ai", r"fw_[A-Za-z0-9]{22,24}(?!\w)", with_digit),
    Rule("ai", r"sk_[0-9a-f]{48}(?!\w)"),
    Rule("ai", r"pcsk_[A-Za-z0-9]{5,8}_[A-Za-z0-9]{50,}"),
    Rule("ai", r"pa-[\w-]{43}(?![\w-])", with_digit),
    Rule("ai", r"fc-[0-9a-f]{32}(?!\w)"),
    Rule("ai", r"rpa_[A-Z0-9]{40,}"),
    Rule("ai", r"ctx7sk-[0-9a-f]{8}-[0-9a-f-]{27}"),
    Rule("ai", r"wandb_v1_\w{40,}"),
    Rule("ai", r"bb_(?:live|test)_[\w-]{24,}"),
    Rule("ai", r"e2b_[0-9a-f]{40}"),
    # Clouds
    Rule("aws-key-id", r"A(?:KIA|SIA|BIA|CCA)(?<![A-Z]....)[A-Z2-7]{16}(?![A-Za-z0-9])", anywhere=AWS_KEY),
    Rule("aws-key-id", r"A(?:KIA|SIA|BIA|CCA)(?<![A-Z]....)[A-Z0-9]{16}(?![A-Za-z0-9])", with_digit, anywhere=AWS_KEY),
    Rule("aws-secret", r"(?i)secret[_. ]?(?:access[_ ]?)?key(?:</name>)?[^a-z0-9+/]{1,24}(?:string>|value>)?([a-z0-9+/]{40})(?![a-z0-9+/])",
         with_digit, anywhere=ASSIGNED),
    Rule("aws-secret", r"A[KSBC][IC]A[A-Z0-9]{16}[^A-Za-z0-9+/]{1,8}(?:[a-z_]{2,24}[^A-Za-z0-9+/]{1,6})?([A-Za-z0-9+/]{40})"
                       r"(?![A-Za-z0-9+/=])", with_digit, anywhere=AWS_KEY),
    Rule("aws-session", r"IQoJb3JpZ2lu[\w+/=-]{100,}"),
    Rule("aws-session", r"FwoGZXIvYXdz[\w+/=-]{100,}"),
    Rule("aws-bedrock", r"ABSK[A-Za-z0-9+/]{100,}={0,2}"),
    Rule("aws-bedrock", r"bedrock-api-key-[\w=+/-]{60,}"),
    Rule("google-api", r"AIza[\w-]{35}"),
    Rule("google-api", r"AQ\.Ab8[\w-]{40,}"),
    Rule("google-oauth", r"GOCSPX-[\w-]{28}"),
    Rule("google-oauth", r"ya29\.[\w-]{30,}"),
    Rule("google-oauth", r"1//0[\w-]{40,}"),
    Rule("azure", r"(?i)key[^a-z0-9+/\n]{1,40}(?:\n\s{0,40})?(?:[^a-z0-9+/]{1,8})?(?:value[^a-z0-9+/]{1,8})?([a-z0-9+/]{86}==)", with_digit,
         (r"==(?<=[A-Za-z0-9+/]{86}==)",)),
    Rule("azure", r"(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{33,90}\+A(?:S[tb]|IoT|CRA|RmC|EhC|Zd)[A-Za-z0-9+/]{4,8}={0,2}", with_digit,
         (r"\+A(?:S[tb]|IoT|CRA|RmC|EhC|Zd)[A-Za-z0-9+/]{4,8}=",)),
    Rule("azure", r"AccountKey=([A-Za-z0-9+/]{40,}={0,2})"),
    Rule("azure", r"\w{3}\dQ~[\w.~-]{31,34}", hints=(r"Q~[\w.~-]{31}",)),
    Rule("azure", r"(?<![A-Za-z0-9])[A-Za-z0-9]{44,60}JQQJ99[A-Za-z0-9]{20,40}", hints=("JQQJ99",)),
    Rule("digitalocean", r"do[opr]_v1_[0-9a-f]{64}"),
    Rule("cloudflare", r"v1\.0-[0-9a-f]{24}-[0-9a-f]{100,}"),
    Rule("cloudflare", r"cf(?:k|ut|at)_[A-Za-z0-9]{40,}"),
    Rule("cloudflare", r"(?i)x-auth-key[\"'\\]*\s{0,3}[:=,]\s{0,3}[\"'\\]*([0-9a-f]{37})(?![0-9a-z])", anywhere=ASSIGNED[:1]),
    Rule("vercel", r"vc[a-z]_[A-Za-z0-9]{24,}", with_digit),
    Rule("ngrok", r"ngrok_api_\w{40,}"),
    Rule("ngrok", r"(?<![A-Za-z0-9])[123][A-Za-z0-9]{26}_\d[A-Za-z0-9]{20}(?!\w)", with_digit, (r"_\d[A-Za-z0-9]{20}(?![A-Za-z0-9_])",)),
    Rule("alibaba", r"LTAI[A-Za-z0-9]{20}(?!\w)", with_digit, anywhere=("LTAI[A-Za-z0-9]{20}",)),
    Rule("tencent", r"AKID[A-Za-z0-9]{32}(?!\w)", with_digit),
    # Code hosting, packages, chat
    Rule("github", r"gh[opsur]_[A-Za-z0-9]{36,}"),
    Rule("github-pat", r"github_pat_\w{50,}"),
    Rule("gitlab", r"gl(?:pat|ptt|dt|rt|rtr|ft|imt|oas|cbt|agent|soat|ffct|wt)-[\w-]{20,}(?:\.[\w-]{2,20}){0,2}"),
    Rule("gitlab", r"GR1348941[\w-]{20,}"),
    Rule("bitbucket", r"AT(?:BB|ATT3|CTT3)[\w=-]{24,}", with_digit),
    Rule("slack-webhook", r"hooks\.slack\.com/(?:services|workflows|triggers)/([\w/]{30,})"),
    Rule("slack", r"xox[a-z](?:\.xox[a-z])?-[\w-]{20,}"),
    Rule("slack", r"xapp-\d-[\w-]{30,}"),
    Rule("discord", r"(?<![\w-])[MNO][\w-]{23,27}\.[\w-]{6}\.[\w-]{27,38}(?![\w-])", with_digit, (r"\.[\w-]{6}\.[\w-]{27}",)),
    Rule("discord-webhook", r"webhooks/\d{15,20}/([\w-]{60,})"),
    Rule("telegram", r"\d{8,10}:AA[\w-]{33}", hints=(r":AA[\w-]{33}",)),
    Rule("npm", r"npm_[A-Za-z0-9]{36}"),
    Rule("npmrc", r"_authToken=([\w./+=-]{16,})"),
    Rule("pypi", r"pypi-AgE[\w-]{50,}"),
    Rule("crates-gems", r"cio[A-Za-z0-9]{32}(?![A-Za-z0-9])", plausible),
    Rule("crates-gems", r"rubygems_[0-9a-f]{48}"),
    Rule("crates-gems", r"dckr_[op]at_[\w-]{27,}"),
    Rule("crates-gems", r"oy2[a-z0-9]{43}(?!\w)", with_digit),
    Rule("crates-gems", r"CLOJARS_[0-9a-z]{60}"),
    Rule("jfrog", r"AKCp\w{65,}"),
    Rule("jfrog", r"cmVmd[A-Za-z0-9]{59}(?!\w)", with_digit),
    Rule("sonar", r"sq[aup]_[0-9a-f]{40}"),
    # Payment, mail, telephone
    Rule("stripe", r"[sr]k_(?:live|test|prod)_[A-Za-z0-9]{20,}", hints=(r"k_(?:live|test|prod)_[A-Za-z0-9]{20}",)),
    Rule("stripe", r"whsec_[A-Za-z0-9+/=]{32,}"),
    Rule("square", r"sq0(?:csp|atp|idp)-[\w-]{22,}"),
    Rule("square", r"EAAA[\w-]{60}(?![\w-])", with_digit),
    Rule("payment", r"access_token\$(?:production|sandbox)\$[0-9a-z]{16}\$[0-9a-f]{32}"),
    Rule("payment", r"rzp_(?:live|test)_[A-Za-z0-9]{14,}", anywhere=("(?i)rzp_",)),
    Rule("payment", r"FLWSECK(?:_TEST)?-[0-9a-zA-Z]{12,}"),
    Rule("payment", r"EZ[AT]K[A-Za-z0-9]{54}"),
    Rule("payment", r"shippo_(?:live|test)_[0-9a-f]{40}"),
    Rule("payment", r"access-(?:production|sandbox|development)-[0-9a-f]{8}-[0-9a-f-]{27}"),
    Rule("sendgrid", r"SG\.[\w-]{20,24}\.[\w-]{39,50}"),
    Rule("twilio", r"SK[0-9a-f]{32}(?![0-9a-zA-Z])"),
    Rule("mail", r"key-[0-9a-f]{32}(?![0-9a-zA-Z])"),
    Rule("mail", r"x(?:keysib|smtpsib)-[0-9a-f]{64}-\w{16}"),
    Rule("mail", r"[0-9a-f]{32}-us\d{1,2}(?!\w)", hints=(r"-us\d{1,2}(?![\w-])",)),
    Rule("mail", r"re_[A-Za-z0-9]{8}_[A-Za-z0-9]{24}(?!\w)", with_digit),
    Rule("mail", r"mlsn\.[0-9a-f]{64}"),
    # Services
    Rule("vault", r"hv[bsr]\.[\w-]{24,}"),
    Rule("tailscale", r"tskey-[a-z]+-[\w-]{20,}"),
    Rule("supabase", r"sbp_[0-9a-f]{40}"),
    Rule("supabase", r"sb_secret_[\w-]{20,}"),
    Rule("opensession", r"osk_[A-Za-z0-9]{30,}"),
    Rule("saas", r"lin_(?:api|oauth)_[A-Za-z0-9]{32,}"),
    Rule("saas", r"ntn_[A-Za-z0-9]{40,}"),
    Rule("saas", r"secret_[A-Za-z0-9]{43}(?!\w)", with_digit),
    Rule("saas", r"fig[doru]_[\w-]{36,}"),
    Rule("saas", r"sntry[su]_[\w+/=-]{40,}"),
    Rule("saas", r"PMAK-[0-9a-f]{24}-[0-9a-f]{34}"),
    Rule("saas", r"dapi[0-9a-f]{32}"),
    Rule("saas", r"dkea[0-9a-f]{32}"),
    Rule("saas", r"gl(?:sa|c)_[\w+/=]{32,}"),
    Rule("saas", r"eyJrIjoi[A-Za-z0-9+/=]{60,}"),
    Rule("saas", r"dp\.(?:pt|st|ct|sa|scim|audit)\.(?:[\w-]{2,35}\.)?[A-Za-z0-9]{40,}"),
    Rule("saas", r"pscale_(?:tkn|pw|oauth)_[\w.=-]{32,}"),
    Rule("saas", r"shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}"),
    Rule("saas", r"ops_eyJ[\w-]{60,}"),
    Rule("saas", r"A3-[A-Z0-9]{6}-(?:[A-Z0-9]{11}|[A-Z0-9]{6}-[A-Z0-9]{5})-[A-Z0-9]{5}-[A-Z0-9]{5}-[A-Z0-9]{5}(?!\w)"),
    Rule("saas", r"HRKU-[\w-]{36,}"),
    Rule("saas", r"(?i)heroku\w{0,20}[\"'\\]*\s{0,3}[:=,]\s{0,3}[\"'\\]*([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})",
         anywhere=ASSIGNED[:2]),
    Rule("saas", r"fo1_[\w-]{43}"),
    Rule("saas", r"fm[12][ar]?_[\w+/=,-]{80,}", hints=(r"fm[12][ar]?_[\w+/=-]{20}",)),
    Rule("saas", r"nfp_[A-Za-z0-9]{36}"),
    Rule("saas", r"rnd_[A-Za-z0-9]{28,}"),
    Rule("saas", r"napi_[a-z0-9]{60,}"),
    Rule("saas", r"mdb_sa_sk_[\w-]{36,}"),
    Rule("saas", r"ph[xs]_[A-Za-z0-9]{40,}"),
    Rule("saas", r"rdme_[a-z0-9]{70}"),
    Rule("saas", r"pul-[0-9a-f]{40}"),
    Rule("saas", r"(?:sdk|api|mob)-[0-9a-z]{8}-(?:[0-9a-z]{4}-){3}[0-9a-z]{12}(?![\w-])", with_digit,
         tuple(rf"{kind}-[0-9a-z]{{8}}-[0-9a-z]{{4}}-" for kind in ("sdk", "api", "mob"))),
    Rule("saas", r"NR(?:AK|II|IQ|JS)-[\w-]{27,}"),
    Rule("saas", r"dt0[a-z]\d\d\.[A-Z0-9]{24}\.[A-Z0-9]{64}"),
    Rule("saas", r"pat[A-Za-z0-9]{14}\.[0-9a-f]{64}"),
    Rule("saas", r"pat\.[\w-]{22}\.[0-9a-f]{24}\.[A-Za-z0-9]{20}"),
    Rule("saas", r"pat-(?:na|eu)\d-[0-9a-f]{8}-[0-9a-f-]{27}"),
    Rule("saas", r"[A-Za-z0-9]{14}\.atlasv1\.[\w=-]{60,}", hints=(r"\.atlasv1\.",)),
    Rule("saas", r"bkua_[0-9a-f]{40}"),
    Rule("saas", r"CCIPAT_\w{22,}"),
    Rule("saas", r"xaat-[0-9a-f]{8}-[0-9a-f-]{27}"),
    Rule("saas", r"hcai[kc]_[0-9a-z]{50,}"),
    Rule("saas", r"tfp_[\w-]{40,}"),
    Rule("saas", r"CFPAT-[\w-]{43}"),
    Rule("saas", r"sgp_[A-Za-z0-9_]{40,}"),
    Rule("saas", r"sl\.[A-Z][\w-]{100,}"),
    Rule("saas", r"sk\.eyJ[\w-]{20,}\.[\w-]{20,}"),
    Rule("saas", r"ATTA[0-9a-fA-F]{72}"),
    Rule("saas", r"fio-u-[\w-]{64}"),
    Rule("saas", r"pnu_[A-Za-z0-9]{36}"),
    Rule("saas", r"sec-c-[\w-]{48,}"),
    Rule("saas", r"secret-(?:live|test)-[\w=-]{30,}"),
    Rule("saas", r"p8e-[a-z0-9]{32}(?!\w)"),
    Rule("saas", r"EAA[A-Z][A-Za-z0-9]{100,}", with_digit),
    Rule("saas", r"AAAAAAAAAAAAAAAAAAAAA(?!A)[\w%+/=-]{80,}", with_digit, ("A(?!A)(?<=AAAAAAAAAAAAAAAAAAAAA)",)),
    Rule("saas", r"\d/\d{16}(?:/\d{16})?:[0-9a-f]{32}", hints=(r":[0-9a-f]{32}(?<=\d{16}:.{32})",)),
    Rule("saas", r"cloudinary://\d{10,20}:([\w-]{20,})@"),
    # Shapes that many use.  Of a JWT the first part only names the algorithm; it stays.
    Rule("jwt", r"\.(eyJ[\w-]{16,}+\.[\w-]{20,})", hints=(r"\.eyJ[\w-]{16}",)),
    Rule("jwt", r"ZXlKaGJHY2lPaU[\w+/=-]{40,}"),
    Rule("age", r"AGE-SECRET-KEY-1[0-9A-Z]{58}"),
    Rule("private-key", r"-----BEGIN [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----(?:(?:[^-]|-(?!----)){40,8000}?-----END"
                        r" [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----|[\w+/=\s\\\"':,.→|]{40,8000}+)", has_key_body,
         anywhere=PRIVATE_KEY),
    Rule("private-key", r"Private-Lines: \d{1,3}\s([\w+/=\s]{40,8000}?)\s{1,4}Private-MAC", has_key_body, anywhere=PRIVATE_KEY),
    Rule("url-password", r"://[^\0- :/?#@\"'<>`\\]{0,60}:([^\0- /@\"'<>`\\]{3,200})@[\w\[.-]", password_in_url,
         anywhere=(r"://[^\0- :/?#@\"'<>`\\]{0,60}:[^\0- /@\"'<>`\\]{3,200}@",)),
    Rule("auth-header", r"(?i)authorization[\"'\\\]]*\s{0,3}[:=,]\s{0,3}(?:f|b)?[\"'\\]*(?:[a-z]{3,12}\s{1,3})?"
                        r"([\w.~+/=:-]{16,4000})", plausible, anywhere=AUTH, words=("authorization",)),
    Rule("auth-header", r"(?i)(?<=-)(?<!cache-)(?:key|token|secret)[\"'\\]*\s{0,3}[:=,]\s{0,3}[\"'\\]*([\w.~+/=-]{16,2000})",
         plausible, (), ASSIGNED, ("key", "token", "secret")),
    Rule("cookie", r"(?i)cookie[\"'\\]*\s{0,3}[:=,](?:[^\r\n=]{0,200}+=){1,20}?([\w.%+/~-]{20,2000})", plausible,
         anywhere=(r"(?i)cookie[ \\\"']{0,8}[:=,]",)),
    Rule("auth-header", r"(?i)auth\\*\"\s{0,2}:\s{0,2}\\*\"([a-z0-9+/]{20,2000}={0,2})\\*\"", plausible, anywhere=AUTH),
    Rule("auth-header", rf"(?i)auth\w{{0,8}}\s?=?\s?\(\\*[\"'][^\0- \"'\\]{{1,60}}\\*[\"'],\s{{0,3}}{QUOTED}", plausible, anywhere=AUTH),
    Rule("bearer", r"(?i)bearer\s{1,3}([\w.~+/=-]{20,4000})", plausible, anywhere=(r"(?i)bearer[ \\tnr]{1,6}[\w.~+/=-]{20}",)),
    Rule("curl-user", r"(?:-u|--user)[ =][\"'\\]{0,3}[^\0- :/\"'\\+%$][^\0- :/\"'\\]{0,60}:([^\0- \"'\\]{6,200})", random_value,
         anywhere=tuple(rf"{option}[ =](?=[^\0- ]{{1,300}}:[^\0- \"'\\]{{6}})" for option in ("-u", "--user"))),
    Rule("cli-option", rf"{SECRET_OPTION}(?:[ =]|[\"'\\,]{{2,6}}\s?[\"'\\]{{1,3}})\\*[\"']?([^\0- \"'`\\$<({{]{{8,500}})", plausible,
         anywhere=(rf"{SECRET_OPTION}[ =\\\"',]{{1,8}}(?=[^\0- \"'\\\d]{{0,99}}+\d)(?=[^\0- \"'\\]{{8}})",)),
    Rule("cli-option", r"(?:sshpass|mysql|mariadb|login|redis-cli|mongo|twine|sqlcmd|zip|ldapsearch)"
                       rf"[^\r\n|;]{{0,120}}? -[paPw] {{0,2}}{ARGUMENT}",
         plausible, anywhere=tuple(rf" -{option}(?=[ \\\"']{{0,40}}(?![ \\\"'/])[^\0- \"'\\\d]{{0,99}}+\d)" for option in "paPw")),
    Rule("cli-option", r"(?:htpasswd -\w{0,4}b\w{0,3} [^\0- ]{1,100} [^\0- ]{1,60}|nmcli [^\r\n|;]{0,120}? password)"
                       rf" {{1,3}}{ARGUMENT}",
         plausible, anywhere=("(?i)htpasswd -", "(?i)nmcli ")),
    Rule("cli-secret", r"(?i)login(?: --?[\w-]{2,20}){0,2} {1,3}\\*[\"']?([\w+/=-]{24,200})(?![\w./=-])", plausible,
         anywhere=(r"(?i)login(?: --?[\w-]{2,20}){0,2} {1,3}[\\\"']{0,8}(?=[\w+/=-]{24})",)),
    Rule("cli-secret", rf"(?:login|secrets?[ :](?:set|put))[^\r\n|]{{0,80}}?(?: --body| -b|<<<)[ =]{{0,2}}{ARGUMENT}", plausible,
         anywhere=SET_SECRET),
    Rule("cli-secret", rf"(?:secrets?|config|env)[ :]set [^\r\n|;=]{{0,80}}=\\*[\"']?{ARGUMENT}", plausible, anywhere=SET_SECRET),
    Rule("cli-secret", rf"(?:echo|printf) [^|\r\n]{{0,30}}?{ARGUMENT}\\*[\"']? {{0,2}}\| {{0,2}}(?:sudo (?:-S|--stdin)"
                       r"|[^|\r\n]{0,80}?(?:--password-stdin|--with-token|chpasswd|secrets?[ :](?:set|put)))", plausible,
         anywhere=(*SET_SECRET, "sudo -S", "sudo --stdin", "--password-stdin", "--with-token", "(?i)chpasswd")),
    Rule("sql-password", r"(?i)(?:password|identified by) {1,3}\\*'([^\0- \"'`\\<({]{8,200})\\*'", plausible,
         anywhere=(r"(?i)password {1,3}\\{0,6}'(?=[^\0- ']{8})", "(?i)identified by ")),
    Rule("pgpass", r":5432:[\w*.-]{1,60}:[\w*.-]{1,60}:([^\0- :\"'\\]{8,200})", random_value, anywhere=(":5432:",)),
    Rule("query-token", r"(?i)[?&;](?:x-amz-signature|x-amz-security-token|x-goog-signature|sig|signature"
                        r"|\w{0,20}(?:token|key|secret|password))=([\w.~%+/-]{16,2000})", plausible,
         anywhere=ASSIGNED + (r"(?i)sig=[\w.~%+/-]{16}", r"(?i)signature=[\w.~%+/-]{16}")),
    Rule("env-assign", r"(?:ENV|ARG|setx|set -\w{1,3}) \w{0,60}(?:KEY|TOKEN|SECRET|PASSW(?:OR)?D|PASS|PWD)(?:_\w{1,8})? \\*[\"']?"
                       r"([^\0- \"'\\`;&|(),<>$]{8,500})", plausible, (), ASSIGNED),
    Rule("env-assign", r"(?:(?<!PUBLIC_)KEY|TOKEN|SECRET|PASSW(?:OR)?D|PASSWD|PASSPHRASE|PASS|PWD|CREDENTIALS?)"
                       r"(?:_BASE|_?\d{1,2})?[=:]\s{0,2}\\*[\"']?(?:base64:)?([^\0- \"'\\`;&|(),<>$]{8,500})",
         plausible, (), ASSIGNED, ASSIGNED_WORDS),
    Rule("plain-assign", r"(?:requirepass|masterauth|auth_pass) {1,8}([^\0- \"'`\\<({]{8,200})", plausible,
         anywhere=("(?i)requirepass ", "(?i)masterauth ", "(?i)auth_pass ")),
    Rule("env-assign", r"PASSW(?:OR)?D[=:]\s{0,4}\\*[\"']?([^\0- \"'\\`;&|(),<>$/]{8,500})", random_value,
         anywhere=(r"PASSW(?:OR)?D[=:]\\{0,4}",)),
    Rule("json-assign", rf"(?i){SECRET_WORD}\\*[\"']?\]?\)?\s{{0,4}}(?::\s?&?\w{{1,12}}\s?(?==))?(?:=>|:=|[:=(]|\|\||\?\?|(?<=[\"']),|\{{\s{{1,20}}default\s{{0,8}}=)\s{{0,4}}"
                        rf"[bf(]?{QUOTED}", plausible, (), ASSIGNED, (SECRET_WORD,)),
    Rule("json-assign", rf"(?:(?<!PUBLIC_)KEY|TOKEN|SECRET|PASSWORD)(?:_\d)?\\*[\"']?[\])]?\s{{0,2}}(?:\|\||\?\?|,|=)\s{{0,4}}{QUOTED}",
         plausible,
         (), ASSIGNED, ASSIGNED_WORDS),
    Rule("json-assign", rf"(?i)passw(?:or)?d(?:_?\d)?\\*[\"']?\]?\s{{0,4}}(?:=>|:=|[:=])\s{{0,4}}{QUOTED}", random_value,
         anywhere=PASSWORD),
    Rule("json-assign", r"(?i)(?<![a-z])(?<!public_)key\\*[\"']?\s{0,3}[:=]\s{0,3}\\*[\"']([\w+/-]{32,200}={0,2})\\*[\"']", random_word,
         anywhere=ASSIGNED, words=("key",)),
    Rule("plain-assign", r"(?i)passw(?:or)?d (?:for|of|to|on) [\w .-]{1,30}(?::| is) {1,3}[`\"']?([^\0- \"'`\\<({]{8,200})", plausible,
         anywhere=PASSWORD),
    Rule("plain-assign", rf"(?i){SECRET_WORD}(?:\s{{0,8}}[:=]|\sis:?)\s{{0,4}}[`*]{{0,3}}([\w+/=~!@#%^*-]{{10,200}}+)(?=$|[\s,.;`\"'\\<])",
         plausible, (), ASSIGNED, (SECRET_WORD,)),
    Rule("plain-assign", rf"(?i){SECRET_WORD}:?\s[\s`*\"']{{0,5}}([\w+/=~.-]{{20,200}}+)(?=$|[\s,;`\"'\\<*])", random_word,
         (), ASSIGNED, (SECRET_WORD,)),
    Rule("xml-assign", rf"(?i){SECRET_WORD}[\"'\\]*(?: value=[\"'\\]*|\s{{0,2}}>\s{{0,4}}(?:<string>)?)"
                       r"([^\0- <>\"'\\]{8,500})", plausible, (), ASSIGNED, (SECRET_WORD,)),
    Rule("plain-assign", r"(?:비밀번호|암호|패스워드|토큰|시크릿|비번)(?:는|은|가|이)?\s{0,3}[:=]?\s{0,3}([\w+/=~!@#%^*.-]{8,200})", plausible,
         anywhere=("비밀번호", "암호", "패스워드", "토큰", "시크릿", "비번")),
)
WORDS = {word: re.compile(word) for rule in RULES for word in rule.words if word != SECRET_WORD}
BEFORE_KEY = re.compile(f"[ _-]?(?:{'|'.join(word[::-1] for word in KEYS.split('|'))})")
ASCII_LOWER = {letter: letter + 32 for letter in range(ord("A"), ord("Z") + 1)}
# Rules that go by what stands before a value; all others know the value itself.
GUESSES = frozenset(rule.name for rule in RULES if rule.check in (plausible, random_value, random_word, password_in_url)) - {"crates-gems"}
ENV_VALUE = "env-value"
ENV_RULES = ("env-assign", "plain-assign")      # what strip_env_vars switches, beside the values
HOME = "home"


class Scanner(NamedTuple):
    """The rules as compiled for one Privacy: (name, pattern, group, check, words) in order of
    precedence, the patterns of home folders, and the hints as (byte pattern, what to try: numbers of rules, HOME)."""
    rules: tuple
    allow: object               # pattern of what is no secret, or None
    homes: tuple
    word_hints: tuple           # searched in long words
    hints: tuple                # searched anywhere
    wide_hints: tuple           # the same, where there are other than ASCII characters
    lower_hints: tuple          # searched in lower case


@functools.lru_cache(maxsize=8)
def scanner_for(privacy):
    """Compile what a Privacy asks for."""
    # A rule of one's own may match anything: every line is walked, unless it says what it contains.
    rules = [Rule(name, pattern, bool, anywhere=("(?i)" + lower_ascii(re.escape(json_inside(contains))) if contains else r"\{",))
             for name, pattern, contains in privacy.rules]
    rules += [rule for rule in RULES if (privacy.strip_env_vars or rule.name not in ENV_RULES)
              and (privacy.guess or rule.name not in GUESSES)]
    if privacy.strip_env_vars and privacy.env_values:
        values = {text for value in privacy.env_values for text in (value, json_inside(value))}
        longest_first = sorted(values, key=lambda value: (-len(value), value))
        rules.append(Rule(ENV_VALUE, "|".join(map(re.escape, longest_first)), bool,
                          anywhere=tuple(re.escape(json_inside(value)) for value in longest_first)))
    word_hints = by_hint((hint, number) for number, rule in enumerate(rules) if not rule.anywhere
                         for hint in rule.hints or (rule.pattern,))
    hints = by_hint((hint, number) for number, rule in enumerate(rules) for hint in rule.anywhere)
    exact, wide, lower = (
        tuple(merged_hints({hint.removeprefix("(?i)"): what for hint, what in hints.items() if kind_of(hint) == kind}, anchors))
        for kind, anchors in (("", ANCHORS_IN_TEXT), ("wide", ""), ("(?i)", ANCHORS_IN_LOWER)))
    # Apart, as they are frequent: their lines need not be tried for anything else.
    at_home = tuple((re.compile(hint.encode()), {HOME}) for hint in home_hints(privacy.homes) if privacy.strip_paths)
    compiled = [(rule.name, re.compile(rule.pattern, re.ASCII)) for rule in rules]
    return Scanner(
        tuple((name, pattern, min(1, pattern.groups), rule.check, rule.words)
              for (name, pattern), rule in zip(compiled, rules)),
        re.compile("|".join(map(fnmatch_translate, privacy.allow))) if privacy.allow else None,
        home_patterns(privacy.homes) if privacy.strip_paths else (),
        tuple(merged_hints(word_hints, ANCHORS_IN_WORDS)), exact + at_home, wide, lower)


def by_hint(pairs):
    """{hint: numbers of rules to try} from (hint, number)."""
    found = {}
    for hint, what in pairs:
        found.setdefault(hint, set()).add(what)
    return found


def kind_of(hint):
    """Where a hint is searched: in lower case, in what is left without ASCII characters, or as it is."""
    return "(?i)" if hint.startswith("(?i)") else "wide" if not set(hint) & set(map(chr, ASCII)) else ""


def merged_hints(hints, anchors):
    """(byte pattern, what to try) of hints.  Each pattern is one more pass over the text, so that those with the
    same of the `anchors` in their literal heads are one pattern that begins with it and looks back for the rest."""
    groups = {}
    for hint, what in hints.items():
        head = LITERAL_HEAD.match(hint)[0]
        anchor = next((char for char in anchors if char in head), None)
        if anchor:
            groups.setdefault(anchor, []).append((f"{head.partition(anchor)[2]}(?<={head}){hint[len(head):]}", what))
        else:
            yield re.compile(hint.encode()), what
    for anchor, members in groups.items():
        pattern = f"{anchor}(?:{'|'.join(rest for rest, _ in members)})"
        yield re.compile(pattern.encode()), set().union(*(what for _, what in members))


LITERAL_HEAD = re.compile(r"(?:[A-Za-z0-9 _/:=~-]|\\\.)*(?![?*+{])")
# The first of these in a hint's head is what it is found by.  In words all, the rarest first; in texts few, as
# each is a pass, and none that is frequent.
ANCHORS_IN_WORDS = "~=IOZYXQJVKBNMLGHFPWDACRETUSqz:jvywxk378695fgh2u4bm1_0dpln-aicrs/ote"
ANCHORS_IN_TEXT = "A-5/"
ANCHORS_IN_LOWER = "kgbphc"


def lower_ascii(text):
    """A text in lower case as bytes have it: only A to Z."""
    return text.translate(ASCII_LOWER)


def json_inside(text):
    """A text as it stands between the quotes of encoded JSON."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


def suspects(scanner, lines):
    """Which of the encoded lines may hold something, in order: {index: what to try}, numbers of rules and HOME."""
    parts = [line[start.end():] if (start := FIXED_START.match(line)) else line for line in lines]
    block = b"".join(parts)
    if not block:
        return {}
    ends = list(itertools.accumulate(map(len, parts)))
    hints = [*scanner.hints, *hints_in(long_words(block), scanner.word_hints), *hints_in(block.translate(None, ASCII), scanner.wide_hints)]
    found = {}
    for text, hints in ((block, hints), (block.lower(), scanner.lower_hints)):
        for pattern, what in hints:
            match = pattern.search(text)
            while match:                            # one hit in a line is enough: go on behind it
                index = bisect_right(ends, match.start())
                found.setdefault(index, set()).update(what)
                match = pattern.search(text, ends[index])
    return dict(sorted(found.items()))


# What nearly every line begins with, and nothing is taken out of.
FIXED_START = re.compile(rb'{"type":"event","event_id":"[\w.:-]{1,120}","timestamp":"[\d.:TZ-]{20,30}","event_type":{"type":')
ASCII = bytes(range(128))


def hints_in(part, hints):
    """Those of some hints that are found in a part of a block, which costs a tenth of the block."""
    return [hint for hint in hints if hint[0].search(part)] if part else []


# Most tokens are words longer than all but few others, a time stamp with its 24 characters too.
LONG_WORD = 25
IN_WORDS = re.compile(rb"[\w.+/=~:@%$-]")
AS_X = bytes(ord("x") if IN_WORDS.match(bytes([byte])) else ord(" ") for byte in range(256))
LONG_RUN = b"x" * LONG_WORD


def long_words(block):
    """The long words of a block, each once, as one text."""
    runs, words, end = block.translate(AS_X) + b" ", set(), 0
    while (start := runs.find(LONG_RUN, end)) >= 0:
        end = runs.find(b" ", start)
        words.add(block[start:end])
    return b" ".join(words)


# --- Home folders -----------------------------------------------------------------

# A home folder begins where no name and no longer path goes on: src/home/x and
# https://host/home/x are none.  Behind an escaped line end, -I and a diff's a/ it does begin.
# (In the look-behinds the path's own first part stands, so that patterns begin with a literal.)
def home_shape(start):
    """A pattern for a folder of users that begins with the literal `start`, and a name in it."""
    return rf"{start}(?:(?<![\w.~\])-]{start})|(?<=\\[bfnrt]{start})|(?<=-[IL]{start})|(?<= [ab]{start}))"


USER_NAME = r"[\w@+-](?:[\w.@+-]*[\w@+-])?"
WINDOWS_NAME = rf"(?:[\w.@+-]+(?: [\w.@+-]+){{1,2}}(?=\\)|{USER_NAME})"
# What every match contains, and the pattern.
HOME_SHAPES = (
    ("/Users/", rf"/(?:mnt/|cygdrive/)?[a-zA-Z]/Users/{USER_NAME}"),
    (":\\", rf"[A-Za-z]:[\\/]{{1,4}}Users[\\/]{{1,4}}{WINDOWS_NAME}"),
    (":/Users", rf"[A-Za-z]:/Users[\\/]{{1,4}}{WINDOWS_NAME}"),
    ("/home/", home_shape("/home/") + USER_NAME),
    ("/Users/", home_shape("/Users/") + USER_NAME),
    # How Claude Code names a project's folder.
    ("-home-", r"-home-(?<=[\\/]-home-)[A-Za-z0-9]+"),
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
    hints = [r"home(?<=[/-]home)[/-]", r"Users(?=[\\/-])"]
    for parts in home_parts(homes):
        names = [re.escape(json_inside(part)) for part in parts]
        own = [r"[\\/]{1,8}".join(names), re.escape(dashed(parts))] if len(names) > 1 else ["/" + names[0]]
        hints += () if parts[0] in ("home", "Users") else own       # the usual shapes have these
    return hints


# --- The redactor -----------------------------------------------------------------

# By place in an event or header: keys whose values stay as they are, the place of the values
# below, and whether keys are free.  Where no place is known, all is treated, keys too.
PLACES = {
    "event": ({"type", "event_id", "timestamp", "task_id"},
              {"event_type": "event_type", "content": "content", "attributes": "attributes"}, False),
    "event_type": ({"type"}, {"data": "data"}, False),
    "data": ({"call_id", "kind"}, {}, False),
    "content": ((), {"blocks": "block"}, False),
    "block": ({"type", "mime", "media_type", "language"}, {}, False),
    "header": ({"type", "version", "session_id"}, {"agent": "agent", "context": "context"}, False),
    "agent": ({"provider", "model", "tool", "tool_version"}, {}, False),
    "context": ({"created_at", "updated_at", "related_session_ids"}, {"attributes": "attributes"}, False),
    "attributes": ({"model", "tool", "meta", "signature", "session_role", "parent_session_id", "forked_from",
                    "parser_version", "subagent_id"}, {"git": "git"}, True),
    "git": ({"commit_hash"}, {}, False),
}
ANYWHERE = (), {}, True
FILE_KINDS = ("FileRead", "FileEdit", "FileCreate", "FileDelete")
BLOCK_BYTES = 256 << 10     # how much is searched at once
IMAGE_DATA = re.compile(r"data:[\w/+.-]+;base64,[A-Za-z0-9+/=]*+")
MASKED = "[REDACTED:"
MASKS_IN = re.compile(rb"\[REDACTED:([\w-]{1,40})#(\d{1,9})\]")


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
        self.scanner = scanner_for(privacy)
        self._homes_alone = self.scanner._replace(rules=())
        self._numbers = Counter()           # rule -> highest number given
        self._withheld = {}                 # call id -> why its result is withheld
        self.more_patterns = lambda: ()     # those of the project: (as written, glob)
        for (rule, _), number in self.memory.items():
            self._numbers[rule] = max(self._numbers[rule], number)

    def know_masks(self, text):
        """Give none of the numbers again that masks in a text (bytes) have."""
        for rule, number in MASKS_IN.findall(text):
            self._numbers[rule.decode()] = max(self._numbers[rule.decode()], int(number))

    @property
    def progress(self):
        """What must be known, beside `memory`, to clean the rest of a session another time."""
        return Counter(self.counts), dict(self._withheld)

    @progress.setter
    def progress(self, state):
        self.counts, self._withheld = state

    def clean(self, events):
        """Yield (event, encoded line) for each event, in order, with everything taken out."""
        batch, lines, size = [], [], 0
        for event in events:
            event = self._withhold(event)
            line = hail_line(event)
            batch.append(event)
            lines.append(line)
            size += len(line)
            if size >= BLOCK_BYTES:
                yield from self._clean_batch(batch, lines)
                batch, lines, size = [], [], 0
        yield from self._clean_batch(batch, lines)

    def _clean_batch(self, batch, lines):
        for index, what in suspects(self.scanner, lines).items():
            batch[index], lines[index] = self.clean_line(batch[index], lines[index], what)
        return zip(batch, lines)

    def clean_line(self, event, line, what):
        """An event and its line with what `suspects` says to try taken out."""
        cleaned = self._value(event, "event", self._wanted(what))
        return (event, line) if cleaned is event else (cleaned, hail_line(cleaned))

    def clean_event(self, event):
        """One event as `clean` gives it."""
        return next(self.clean([event]))[0]

    def clean_header(self, header):
        """A header line's object with everything taken out."""
        what = suspects(self.scanner, [hail_line(header)]).get(0)
        return self._value(header, "header", self._wanted(what)) if what else header

    def clean_value(self, value):
        """Any JSON value with everything taken out."""
        return self._value(value, None, self.scanner)

    def redact_text(self, text):
        """A text with everything taken out."""
        return self._text(text, self.scanner)

    def _wanted(self, what):
        """The part of the scanner that is to be tried."""
        if what == {HOME}:
            return self._homes_alone
        return self.scanner._replace(rules=[self.scanner.rules[number] for number in sorted(what - {HOME})],
                                     homes=self.scanner.homes if HOME in what else ())

    def _value(self, value, place, wanted):
        """A value with its strings treated; the same object where nothing changes."""
        if isinstance(value, dict):
            return self._fields(value, place, wanted)
        if isinstance(value, str):
            return self._text(value, wanted)
        if isinstance(value, list):
            items = [self._value(item, place, wanted) for item in value]
            return items if any([new is not old for new, old in zip(items, value)]) else value
        return value

    def _fields(self, fields, place, wanted):
        """An object with its values treated, and its keys where they are free."""
        untouched, places, free = PLACES.get(place, ANYWHERE)
        result, changed = {}, False
        for key, old in fields.items():
            name = self._text(key, wanted) if free else key
            if key in untouched:
                new = old
            elif isinstance(old, str):
                new = self._named(key, old, wanted) if free else self._text(old, wanted)
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
        if len(text) < 6 or text[:5] == "data:" and IMAGE_DATA.fullmatch(text):
            return text
        for _ in range(ROUNDS):             # as what a mask replaced may have hidden the next
            text = self._strip_homes(text, wanted.homes)
            secrets = found_secrets(text, wanted.rules, wanted.allow) if wanted.rules else []
            if secrets is None:
                break
            if not secrets:
                return text
            pieces, at = [], 0
            for start, end, name, secret in secrets:
                pieces += text[at:start], self._mask(name, secret)
                at = end
            text = "".join([*pieces, text[at:]])
        return self._mask("mostly-secrets", text)

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
        elif not any([block["type"] == "File" for block in event["content"]["blocks"]]):
            return event
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
        """Why a path's content is withheld, or None."""
        written = pattern_that_fits(path, (*zip(self.privacy.exclude_patterns, self.privacy.exclude_patterns), *self.more_patterns()))
        return f"[withheld: path matches {written}]" if written else None


@lru_cache(maxsize=1024)        # sessions go back to the same files
def pattern_that_fits(path, patterns):
    """How the first of some (as written, glob) that a path matches is written, or None.  Case counts on no system."""
    path = path.replace("\\", "/").lower()
    return next((written for written, pattern in patterns
                 if fnmatch(path, pattern.lower()) or fnmatch(path.rsplit("/", 1)[-1], pattern.lower())), None)


def confident_redactor():
    """For the server: a Redactor of tokens with a known prefix and private keys alone."""
    return Redactor(Privacy(strip_paths=False, strip_env_vars=False, exclude_patterns=(), guess=False))


IGNORE_FILE = ".opensessionignore"


def project_ignore(cwd):
    """What the .opensessionignore in a working directory, or else in the root of its git checkout, says:
    [(as written, glob), …] of paths whose content is withheld; [] where it is empty, and nothing of the
    project is collected; None where there is none."""
    for folder in (cwd, checkout_of(cwd)):
        try:
            lines = Path(folder, IGNORE_FILE).read_text("utf-8", "replace").splitlines() if folder else None
        except (OSError, ValueError):
            continue
        if lines is not None:
            return [pair for line in map(str.strip, lines) if line and not line.startswith("#") for pair in globs_of(line, folder)]
    return None


def globs_of(line, folder):
    """A line of an ignore file for paths below its folder and for relative ones; a folder means all below it."""
    glob = line.lstrip("/") + ("*" if line.endswith("/") else "")
    return [(line, glob), (line, f"{escape_glob(os.fspath(folder)).replace(os.sep, '/').rstrip('/')}/{glob}")]


def checkout_of(folder):
    """The nearest folder upwards with a .git, or None."""
    return next((parent for parent in (Path(folder), *Path(folder).parents) if os.path.exists(parent / ".git")), None)


ROUNDS = 30


def most_secrets(text):
    """So many secrets a text may hold; one with more is a list of them, masked as one, so that no text takes long."""
    return 50 + len(text) // 200


def found_secrets(text, rules, allow=None):
    """The secrets in a text as (start, end, rule, secret), in order and apart from each other; None where a rule
    finds more than most_secrets(text).

    Where matches overlap, all of them is masked and the first rule of the table names it."""
    found, places, checked = [], word_places(text) if any([words for *_, words in rules]) else {}, {}
    for order, (name, pattern, group, check, words) in enumerate(rules):
        matches = matches_at(pattern, text, sorted(set().union(*(places[word] for word in words)))) if words else pattern.finditer(text)
        most = len(found) + (len(text) if check is bool else most_secrets(text))       # what somebody named may be frequent
        for match in matches:
            secret = match[group]
            start, end = match.span(group)
            if (secret, check) not in checked:      # rules overlap
                checked[secret, check] = secret and MASKED not in secret and check(secret) and not (allow and allow.match(secret))
            if checked[secret, check] and not text.endswith(MASKED, 0, start):
                found.append((start, end, order, name, secret))
                if len(found) > most:
                    return None
    merged = []
    for one in sorted(found):
        if merged and one[0] < merged[-1][1]:
            last = merged[-1]
            merged[-1] = (last[0], max(last[1], one[1]), *min(last, one, key=lambda secret: secret[2])[2:])
        else:
            merged.append(one)
    return [(start, end, name, secret) for start, end, _, name, secret in merged]


def word_places(text):
    """{word: where it stands in a text} of WORDS, and under SECRET_WORD where one may begin."""
    lower = text.lower()
    if len(lower) != len(text):         # a few letters become two
        lower = lower_ascii(text)
    found = {word: [match.start() for match in pattern.finditer(lower)] for word, pattern in WORDS.items()}
    backwards, size = lower[::-1], len(lower)
    starts = {size - match.end() for place in found["key"] if (match := BEFORE_KEY.match(backwards, size - place))}
    found[SECRET_WORD] = starts.union(*(found[word] for word in ASSIGNED_WORDS if word != "key"))
    return found


def matches_at(pattern, text, starts):
    """What pattern.finditer gives, tried at these places only."""
    end = 0
    for start in starts:
        match = pattern.match(text, start) if start >= end else None
        if match:
            yield match
            end = match.end()


# --- Redacting a stream -------------------------------------------------------------

def redact_stream(lines, out, privacy=Privacy()):
    """Write lines of text to `out` with everything taken out; returns the counts by rule."""
    redactor = Redactor(privacy)
    for text in whole_keys(lines):
        out.write(redactor.redact_text(text))
    return redactor.counts


class Finding(NamedTuple):
    """What was taken out at one place: never the secret itself."""
    line: int                   # of a text, or the number of an event, from 1 on
    field: str                  # as in content.blocks[0].text
    rule: str
    mask: str
    preview: str                # the text around the mask


def explain_events(events, redactor):
    """Yield the Findings of events."""
    for number, event in enumerate(events, 1):
        (cleaned, _), = redactor.clean([event])
        yield from findings(event, cleaned, number)


def explain_lines(lines, redactor):
    """Yield the Findings of lines of text."""
    number = 1
    for text in whole_keys(lines):
        yield from findings(text, redactor.redact_text(text), number)
        number += text.count("\n")


def findings(before, after, line, field=""):
    """Yield the Findings between a value and the same value cleaned."""
    if after is before or after == before:
        return
    if isinstance(before, dict) and isinstance(after, dict):
        for (old_key, old), (new_key, new) in zip(before.items(), after.items()):
            yield from findings(old_key, new_key, line, f"{field} (a key)".strip())
            yield from findings(old, new, line, f"{field}.{new_key}".lstrip("."))
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, (old, new) in enumerate(zip(before, after)):
            yield from findings(old, new, line, f"{field}[{index}]")
    elif isinstance(after, str):
        yield from marks_in(before, after, line, field)
    else:                       # content that was withheld has another shape
        yield Finding(line, field, "withheld", "", " ".join(json.dumps(after, ensure_ascii=False).split())[:100])


def marks_in(before, after, line, field):
    """Yield a Finding for each mask of a text that was not in it before."""
    known = Counter(MASK.findall(before)) if isinstance(before, str) else Counter()
    for match in MASK.finditer(after):
        if known[match[0]]:
            known[match[0]] -= 1
            continue
        around = after[max(0, match.start() - 40):match.end() + 20]
        yield Finding(line, field, match["rule"] or ("withheld" if match[0].startswith("[w") else HOME), match[0], " ".join(around.split()))


MASK = re.compile(r"\[REDACTED:(?P<rule>[\w-]+)#\d+\]|\[withheld: [^\]\n]{0,200}\]|~(?=[\\/\"'\s]|$)")


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

# Tables that came later: where to go on in sources that only grow (nothing is lost with them), and what is reviewed.
LATER_TABLES = """
CREATE TABLE IF NOT EXISTS snapshots (
    tool        TEXT NOT NULL,
    key         TEXT NOT NULL,
    made_with   TEXT NOT NULL,          -- program and privacy rules of that time
    acked_chain BLOB,                   -- the server's state, to which the events before the snapshot belong
    state_id    INTEGER NOT NULL,
    PRIMARY KEY (tool, key)
) WITHOUT ROWID;

-- Apart, as they are long and stay when only acked_chain changes.
CREATE TABLE IF NOT EXISTS snapshot_states (id INTEGER PRIMARY KEY AUTOINCREMENT, made_at REAL NOT NULL, size INTEGER NOT NULL,
                                            state BLOB NOT NULL);
-- Sessions with secrets, where settings ask for review: masks_accepted says how many masks somebody has agreed to.
CREATE TABLE IF NOT EXISTS reviews (
    tool           TEXT NOT NULL,
    id             TEXT NOT NULL,
    state          TEXT NOT NULL CHECK (state IN ('held', 'accepted', 'refused')),
    masks_accepted INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (tool, id)
) WITHOUT ROWID;
CREATE TRIGGER IF NOT EXISTS snapshot_gone AFTER DELETE ON snapshots BEGIN
    DELETE FROM snapshot_states WHERE id = old.state_id;
END;
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
        self.db.execute("PRAGMA cache_size = -500")         # KiB; the machine keeps the pages too

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
    cache.db.executescript(LATER_TABLES)
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

    __slots__ = ("tool", "source", "states", "changed_at", "waiting_since", "cost", "look_again")       # there are thousands

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


def have_changed(root, states):
    """Whether folders differ from what folder_states said, without looking into them."""
    if not states:
        return os.access(root, os.F_OK)         # most roots are not there, for which os.path.exists meets an exception
    try:
        return any(os.stat(path).st_mtime_ns != at for path, at in states.items())
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
    spool: object               # binary file with event lines; `packed`: with the gzip of header and event lines
    facts: dict                 # what local.db alone keeps, see project_facts
    redactions: dict
    bad_lines: int
    unknown: dict
    snapshot: bytes | None      # from where to go on, see store_snapshot
    packed: bool = False

    def body(self, folder):
        """An open file with the gzip of the header line and the event lines in the spool."""
        return self.spool if self.packed else compressed(self.header, self.spool, folder)

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


class Tally(State):
    """What the events of a session have come to so far."""

    def __init__(self):
        self.count = 0
        self.chain = CHAIN_START
        self.checkpoints = bytearray()
        self.stats = empty_stats()

    def add(self, event, line):
        self.count += 1
        self.chain = next_chain(self.chain, line)
        add_to_stats(self.stats, event)
        if is_checkpoint(self.count):
            self.checkpoints += self.chain


def read_session(session, redactor, known, folder, facts_of, tally=None, wanted=lambda session: False):
    """Use up a session's events and return its Draft.  `facts_of(session)` gives project_facts.

    Only lines behind the last event that the server has (`known`) stay in the spool, so
    that memory and disk follow what is new.  Where reading goes on from a snapshot, `tally`
    is its; `wanted(session)` tells whether to make another one."""
    tally = tally or Tally()
    base, snapshot = (tally.count, tally.chain), None
    spool = tempfile.SpooledTemporaryFile(max_size=SPOOL_IN_MEMORY, dir=folder)
    settled, ending = session.parts or (session.events, ())
    for part in (settled, ending):
        for event, line in redactor.clean(part):
            line = line if len(line) <= LONGEST_EVENT else hail_line(shortened(event))
            tally.add(event, line)
            if known.get(tally.count) == tally.chain:
                base = tally.count, tally.chain
                spool.seek(0)
                spool.truncate()
            else:
                spool.write(line)
        if part is settled and session.state and wanted(session):
            snapshot = store_snapshot(session.state, tally, redactor)
    facts = facts_of(session)
    header = header_of(session, tally.stats, facts, redactor)
    return Draft(header, tally.stats, tally.chain, bytes(tally.checkpoints), *base, spool, facts,
                 dict(redactor.counts), session.bad_lines, session.unknown, snapshot)


def store_snapshot(state, tally, redactor):
    """What a parser, the tally and the redactor know, as bytes; None where the file has gone or a
    value is too deep."""
    try:
        state.file.seal()
        return pickle.dumps((state, tally, redactor.progress), pickle.HIGHEST_PROTOCOL)
    except (OSError, RecursionError):
        return None


def load_snapshot(data):
    """(state, tally, redactor's progress), or None of bytes that this program did not make."""
    try:
        return StateReader(io.BytesIO(data)).load()
    except Exception:               # damaged bytes may raise anything
        return None


class StateReader(pickle.Unpickler):
    """Reads snapshots: nothing but State and plain values, as pickles else may run anything."""

    def find_class(self, module, name):
        found = globals().get(name)
        if (module, name) == ("collections", "Counter"):
            return Counter
        if module == __name__ and isinstance(found, type) and issubclass(found, State):
            return found
        raise pickle.UnpicklingError(f"{module}.{name} is no State")


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
        headers = {"User-Agent": f"opensession-daemon/{VERSION} rules/{RULES_VERSION}", "Accept": "application/json", **(headers or {})}
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
                data = read_refusal(error)
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
    """The JSON object of a good answer.  Raises ValueError where it is none: a hotel's log-in page and half an
    answer are no word of the server."""
    data = json.loads(response.read(limit) or b"{}")
    if not isinstance(data, dict):
        raise ValueError("it answers no JSON object")
    return data


def read_refusal(response):
    """The JSON object of an error, {} where it is none."""
    try:
        return read_json(response)
    except Exception:               # whatever it is, the status says enough
        return {}


def compressed(header, spool, folder):
    """A temporary file with the gzip of a header line and the lines of a spool."""
    body = tempfile.SpooledTemporaryFile(max_size=SPOOL_IN_MEMORY, dir=folder)
    spool.seek(0)
    # Level 2 takes two thirds of the time of level 4, for a body that is a twelfth longer.
    with gzip.GzipFile(fileobj=body, mode="wb", compresslevel=2, mtime=0) as pack:
        pack.write(hail_line(header))
        while piece := spool.read(1 << 18):
            pack.write(piece)
    return body


def retry_after(headers, now):
    """Seconds that a 429 or 503 asks for, at most an hour; None where it says nothing."""
    value = headers.get("Retry-After") or ""
    if re.fullmatch("[0-9]{1,9}", value):
        return min(int(value), 3600)
    try:
        return min(max(0, parsedate_to_datetime(value).timestamp() - now), 3600)
    except (ValueError, TypeError, OverflowError):
        return None


def backoff(attempts, quick):
    """Seconds before the next try: 2, 4, 8 … as often as `quick` says, then 30 s to 5 min; jitter on top."""
    seconds = min(2 ** attempts, 16) if attempts <= quick else min(30 * 2 ** min(attempts - quick - 1, 8), 300)
    return seconds * (1 + secrets.randbelow(250) / 1000)


# ---------------------------------------------------------------------------
# Workers: processes that read for a first run, where there are several cores
#
# A worker parses, redacts and packs one source after another, of which local.db knows
# nothing yet.  So it begins every session from nothing, masks included, and needs no
# local.db: that stays the main process's, as does all sending.  What a worker cannot
# read, the main process reads itself and says what is wrong; a source on which a worker
# died is refused.  Workers are processes that are started, not forked, the same on every
# system: a fork would copy the threads' locks and the open local.db.
# ---------------------------------------------------------------------------

WORKERS_FROM = 16 << 20         # bytes of new sources, the largest apart, that are worth starting processes
MOST_WORKERS = 4                # a disk and a server are not faster for more


def worker_count():
    """How many workers this machine has cores for; one core does the work alone."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST_WORKERS) if cores > 1 else 0


def is_long_and_alive(offset, mtime, now):
    """Whether it is worth a snapshot that so many bytes of a file with this time need not be read again."""
    return offset >= SNAPSHOT_FROM and now - mtime < SNAPSHOT_AGE


def work_command(options):
    """Read sources for another daemon: orders come on standard input, answers go to standard output, pickled."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)        # the daemon hears it too, and ends us
    orders, answers = sys.stdin.buffer, sys.stdout.buffer
    privacy, folder, packing = pickle.load(orders)      # what Workers calls its setup
    privacy, git, ignored = Privacy(*privacy), lru_cache(1000)(ask_git), lru_cache(1000)(project_ignore)
    answer = "ready"
    while True:
        pickle.dump(answer, answers)
        answers.flush()
        try:
            tool, source, mtime = pickle.load(orders)
        except EOFError:
            return EXIT_OK
        answer = read_for_daemon(TOOLS[tool], Source(*source), mtime, privacy, git, ignored, folder, packing)


def read_for_daemon(tool, source, mtime, privacy, git, ignored, folder, packing):
    """[(tool, session id, stamp, draft as a tuple with a path for its spool, new masks), …], or None where that fails."""
    read = []
    try:
        for session in tool.parse(source):
            redactor, cwd = Redactor(privacy), session.attributes.get("cwd")
            redactor.more_patterns = lambda: cwd and ignored(cwd) or ()
            draft = read_session(session, redactor, {}, folder, lambda session: project_facts(session, source.path, git),
                                 wanted=lambda session: is_long_and_alive(session.state.file.offset, mtime, time.time()))
            with draft.spool:
                if draft.facts["working_directory"] not in (None, cwd) and ignored(draft.facts["working_directory"]):
                    return None         # its project's rules were known too late
                draft = draft._replace(spool=packed_for_daemon(draft, folder) if packing else None, packed=True)
            read.append((session.tool, session.session_id, session.stamp, tuple(draft), redactor.new_masks))
    except Exception:               # the daemon meets it too, and says it
        return None
    return read


def packed_for_daemon(draft, folder):
    """The path of a new file with a draft's body."""
    with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file, draft.body(folder) as body:
        body.seek(0)
        shutil.copyfileobj(body, file, 1 << 18)
        return file.name


class Workers:
    """Workers that have started, each served by a thread of its own."""

    def __init__(self, count, paths, privacy, packing):
        self.command = [sys.executable, compiled(paths.cache) or __file__, "--home", str(paths.home), "--work"]
        self.folder = paths.data / "reading"    # for bodies on their way
        self.setup = tuple(privacy), str(self.folder), packing
        self.count = count
        self.processes = []
        self.closed = False
        self.answers = queue.Queue(count)       # bounded, so that few bodies lie on the disk
        shutil.rmtree(self.folder, ignore_errors=True)      # of a daemon that was killed
        make_private_folder(self.folder)

    def read(self, orders):
        """Yield (order, answer) as they come, the last order first; the answer is None where nothing was read and
        a sentence where the worker died.  `orders` are lists that begin with what a worker is told."""
        threads = [threading.Thread(target=self.serve, args=[orders], daemon=True) for _ in range(self.count)]
        for thread in threads:
            thread.start()
        try:
            while any(thread.is_alive() for thread in threads) or not self.answers.empty():
                with suppress(queue.Empty):
                    yield self.answers.get(timeout=0.05)
            while orders:                       # no worker could be started
                yield orders.pop(), None
        finally:
            self.close(threads)

    def serve(self, orders):
        """Keep one worker busy until there are no more orders; a new one takes the place of one that died."""
        worker = None
        with suppress(IndexError):
            while orders and (worker := worker or self.start()):
                order = orders.pop()
                answer = self.ask(worker, order[0])
                if answer is EOFError:
                    answer, worker = f"the process that read it ended with {self.exit_code(worker)}", None
                self.answers.put((order, answer))
        if worker:
            with suppress(OSError):
                worker.stdin.close()
            worker.wait()

    def start(self):
        """A worker that is ready, or None where none can be started."""
        if self.closed:
            return None
        try:
            worker = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        except OSError:
            return None
        self.processes.append(worker)
        return worker if self.ask(worker, self.setup) == "ready" else None

    def ask(self, worker, order):
        """A worker's answer to an order; EOFError itself where it died."""
        try:
            pickle.dump(order, worker.stdin)
            worker.stdin.flush()
            return pickle.load(worker.stdout)
        except (EOFError, OSError, ValueError, pickle.UnpicklingError):
            return EOFError

    def exit_code(self, worker):
        """What a worker that says nothing more ended with."""
        with suppress(subprocess.TimeoutExpired):
            worker.wait(5)
        worker.kill()
        return worker.wait()

    def close(self, threads):
        """End all workers, and take what they still had to say, so that no thread waits for ever."""
        self.closed = True
        for worker in self.processes:
            worker.kill()
        while any(thread.is_alive() for thread in threads):
            with suppress(queue.Empty):
                self.answers.get(timeout=0.05)
        shutil.rmtree(self.folder, ignore_errors=True)


# ---------------------------------------------------------------------------
# This program, compiled
#
# Python compiles a script at every start: of this one 0.3 seconds and 40 MB of memory,
# which do not come back.  So the compiled program is kept in a folder of our own, named
# by the source; `run` and a first run go over to it, and workers are started from it.
# Short commands do not: to compile is what they spend, and that is past by then.
# ---------------------------------------------------------------------------


def source_digest():
    """What tells this version of the program from any other, whether it runs compiled or not."""
    path = Path(__file__)
    return path.stem.partition("-")[2] if path.suffix == ".pyc" else sha256(path.read_bytes() + MAGIC_NUMBER).hexdigest()


def compiled(folder):
    """The path of this program compiled, in a folder that only we may write; None where that is not to be had."""
    path = folder / f"daemon-{source_digest()}.pyc"
    try:
        make_private_folder(folder)
        if not is_ours(folder):
            return None
        if not path.exists():
            compile_into(path)
        SourcelessFileLoader("", str(path)).get_code("")        # cut short by a power failure?
        return str(path) if is_ours(path) else None
    except (OSError, EOFError, ValueError, TypeError, ImportError, subprocess.SubprocessError):
        with suppress(OSError):
            path.unlink()
        return None


def compile_into(path):
    """Compile this file, all or nothing, in a process whose memory goes with it; older versions go too."""
    draft = f"{path}.{os.getpid()}"
    subprocess.run([sys.executable, "-c", COMPILE, __file__, draft], check=True, stdin=subprocess.DEVNULL)
    os.chmod(draft, 0o600)
    for old in path.parent.glob("daemon-*.pyc"):
        old.unlink()
    os.replace(draft, path)


COMPILE = """
import py_compile, sys
py_compile.compile(sys.argv[1], sys.argv[2], doraise=True, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
"""


def is_ours(path):
    """Whether nobody else can write there."""
    info = os.stat(path)
    return os.name != "posix" or info.st_uid == os.getuid() and not info.st_mode & 0o022


def go_on_compiled(folder):
    """Replace this process by the same one from the compiled program; return where that cannot be."""
    if __name__ != "__main__" or os.name != "posix" or __file__.endswith(".pyc"):
        return
    if path := compiled(folder):
        sys.stderr.flush()
        flags = sys.orig_argv[1:len(sys.orig_argv) - len(sys.argv)]
        os.execv(sys.executable, [sys.executable, *flags, path, *sys.argv[1:]])


# ---------------------------------------------------------------------------
# Loop: look, collect, send
# ---------------------------------------------------------------------------

HOT = 3600                      # a file that changed within the last hour is looked at every second
COLD_TURN = 300                 # all others in turn within five minutes
IDLE = 5                        # seconds between two looks while nothing goes on, as each wakes the machine
ROOTS_AGE = 60                  # seconds until it is looked up anew where tools keep their sessions
RETRY_SOURCE = 60               # seconds until a source that could not be read is tried again
SNAPSHOT_FROM = 256 << 10       # bytes from which on a source that grows is not read whole every time
SNAPSHOT_AFTER = 64 << 10       # bytes that are read again and again before there is a new snapshot
SNAPSHOT_AGE = 86400            # seconds; what has not changed for so long is done, and its snapshot goes after seven times that
SNAPSHOTS_SIZE = 64 << 20       # bytes of all snapshots together


class OtherProject(Exception):
    """A session's end told the project: it is read again with what that project ignores."""


class Snapshot(NamedTuple):
    """Where reading goes on in a source that has grown."""
    state: State                # the parser's
    tally: Tally
    progress: tuple             # the redactor's
    offset: int                 # so much of the source was read
    size: int                   # of the snapshot, bytes
    acked: bool                 # whether the server has all events before it


class Daemon:
    """Everything that one pass or one run works with.  Time and sleep come from outside."""

    def __init__(self, paths, settings, cache, env, tool_env=None, clock=time.monotonic, wall=time.time, sleep=time.sleep):
        self.paths, self.cache, self.env = paths, cache, env
        self.tool_env = env if tool_env is None else tool_env
        self.clock, self.wall, self.sleep = clock, wall, sleep
        self.custom_roots = None        # paths of `once`, instead of all usual ones
        self.by_hand = False            # `once` sends where `run` would wait to be told
        self.git = {}                   # cwd -> (when asked, answer)
        self.ignored = {}               # cwd -> (when asked, answer)
        self.cwds = {}                  # (tool, session id) -> working directory when last read
        self.reported = set()
        self.failed = set()             # names of sources that could not be read
        self.rejected = 0
        self.progress = Progress(wall)
        self.arriving = None            # what workers read, see read_together
        self.orders = []                # what they have not begun to read, see Workers.read
        self.due = {}                   # task -> when it is next due
        self.apply(settings)

    def apply(self, settings):
        """Work with these settings from now on."""
        self.stop_workers()
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
        if not settings["privacy"]["review"]:
            self.cache.batch([RELEASE_HELD])
        rules = json.dumps([PARSER_VERSION, RULES_VERSION, settings["privacy"]], sort_keys=True)
        self.made_with = sha256(rules.encode()).hexdigest()[:16]
        self.snapshots_with = sha256(f"{source_digest()} {self.made_with} {self.privacy}".encode()).hexdigest()
        self.watched = {}               # (tool, key) -> Watched
        self.changed = {}               # those that wait to be collected
        self.hot = {}                   # those that changed lately
        self.turn = deque()             # names, the next cold one first
        self.polled_at = self.clock()
        self.folders = {}               # (tool, root) -> folder_states
        self.stamps = {}                # (source's name, tool, session id) -> stamp when last read
        self.queue = []                 # changed and quiet, the newest last
        self.root_list, self.roots_due = {}, 0      # see current_roots
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
            if collects(settings, tool.name, named=self.custom_roots is not None):
                usual = () if self.custom_roots is not None else tool.roots(self.tool_env, home)
                yield from ((tool, Path(root), False) for root in usual)
                yield from ((tool, expand_home(path, home), True) for path in given)

    def discover(self):
        """List the sources of each root in which a folder has changed."""
        for name, (tool, root, custom) in self.current_roots().items():
            states = folder_states(root, self.report) if have_changed(name[1], self.folders.get(name)) else None
            if states is not None:
                # A folder that changed just now may change again within the same tick of a coarse clock.
                recent = (self.wall() - COARSE) * 1e9
                self.folders[name] = {path: at if at < recent else None for path, at in states.items()}
                for source in tool_sources(tool, root, custom):
                    self.watch(tool, source)

    def current_roots(self):
        """{name: (tool, root, custom)} of `roots`.  Where editors are is looked up once a minute, as that is most of the
        work of a look at a hundred folders that are not there."""
        if self.clock() >= self.roots_due:
            self.root_list = {(tool.name, os.fspath(root)): (tool, root, custom) for tool, root, custom in self.roots()}
            self.roots_due = self.clock() + ROOTS_AGE
            for name in self.folders.keys() - self.root_list.keys():
                del self.folders[name]
        return self.root_list

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
        passed, self.polled_at = self.clock() - self.polled_at, self.clock()
        for _ in range(math.ceil(len(self.turn) * min(1, passed / COLD_TURN))):
            name = self.turn.popleft()
            if name in self.watched:
                self.look(self.watched[name])
                self.turn.append(name)
        self.queue_due()
        self.queue = sorted((watched for watched in self.changed.values() if self.is_ready(watched)),
                            key=lambda watched: watched.mtime)
        if self.queue and not self.arriving:
            self.read_together()
        ready = self.queue + [watched for _, watched, _ in self.orders]
        self.progress.plan(len(ready), sum(watched.size for watched in ready))

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
        sources = tool_sources(tool, Path(path)) if tool and collects(self.settings, tool_name, named=True) else ()
        source = next((source for source in sources if source.key == key), None)
        if source and os.path.exists(source.path):
            self.watch(tool, source)
            return (tool_name, key) in self.watched
        self.cache.batch([(PARK_MISSING, [self.parking, "its source is gone or switched off", tool_name, tool_name, key, "[]"])])
        return False

    @property
    def parking(self):
        """What a rejected session was rejected by: it is tried again when this changes."""
        return f"{VERSION} {RULES_VERSION} {self.server.url} {self.server.team_id}"

    # Collecting ------------------------------------------------------------

    def collect(self, watched):
        """Read a source and send its sessions.  Nothing that it holds stops the daemon."""
        self.changed.pop(watched.name, None)
        watched.waiting_since = None
        started, mark = self.clock(), fingerprint(watched.source, watched.states)
        problem, seen, snapshot = None, set(), None
        try:
            for session, snapshot in self.sessions(watched):
                if self.is_unchanged(watched, session) or self.take(watched, session, snapshot):
                    seen.add(session.session_id)
                    self.stamps[watched.name, session.tool, session.session_id] = session.stamp
        except OtherProject:
            self.changed[watched.name] = watched
            return
        except (OSError, sqlite3.OperationalError) as error:
            if getattr(error, "errno", None) == errno.ENOSPC or "disk is full" in str(error):
                self.report("full", f"Nothing can be kept: the disk of {self.paths.data} is full. Collecting goes on when there is room.")
            else:
                self.report((watched.name, str(error)), f"{watched.source.path} cannot be read yet: {error}")
            self.failed.add(watched.name)
            watched.changed_at = watched.waiting_since = self.clock() + RETRY_SOURCE
            self.changed[watched.name] = watched
            return
        except Exception as error:
            log.exception("%s cannot be read; it is tried again when it changes.", watched.source.path)
            self.failed.add(watched.name)
            self.cache.batch([(FORGET_SNAPSHOT, watched.name)])
            if snapshot:                # read whole, it may go well
                self.changed[watched.name] = watched
                return
            problem = repr(error)
        watched.cost = self.clock() - started
        self.note_collected(watched, mark, problem, seen)

    def note_collected(self, watched, mark, problem, seen):
        """Keep that a source was read as it was at `mark`, and which sessions it holds."""
        self.progress.count(watched.size)
        self.cache.batch([
            ("INSERT OR REPLACE INTO sources VALUES (?, ?, ?, ?, ?, ?)",
             [*watched.name, os.fspath(watched.source.path), mark, self.made_with, problem]),
            # What waits to be sent, but is not to be read there any more, cannot be sent.
            (PARK_MISSING, [self.parking, problem or "its source does not hold it any more", watched.tool.name,
                            *watched.name, json.dumps(list(seen))])])

    def is_unchanged(self, watched, session):
        """Whether a session of many in one source is as it was when last read, and nothing of it waits to be sent."""
        name = session.tool, session.session_id
        return (session.stamp is not None and self.stamps.get((watched.name, *name)) == session.stamp
                and not self.cache.first("SELECT 1 FROM outbox WHERE tool = ? AND id = ?", name))

    def sessions(self, watched):
        """Yield (session, snapshot that it goes on from or None) of all in a source."""
        snapshot = self.snapshot_of(watched)
        session = snapshot and watched.tool.resume(watched.source, snapshot.state)
        if session:
            yield session, snapshot
        else:
            yield from ((session, None) for session in watched.tool.parse(watched.source))

    def snapshot_of(self, watched):
        """The Snapshot of a source, if the program, its settings and what the server has are still the same."""
        row = self.cache.first("""
            SELECT p.acked_chain, t.state FROM snapshots p JOIN snapshot_states t ON t.id = p.state_id
             WHERE p.tool = ? AND p.key = ? AND p.made_with = ?
        """, [*watched.name, self.snapshots_with])
        loaded = row and load_snapshot(row["state"])
        if not loaded:
            return None
        state, tally, progress = loaded
        acked = self.session_row((state.session.tool, state.session.session_id))
        # A session that the server does not have is sent whole.
        if not acked or acked["acked_chain"] != row["acked_chain"] or not row["acked_chain"] and self.may_send:
            return None
        return Snapshot(state, tally, progress, state.file.offset, len(row["state"]), bool(row["acked_chain"]))

    def take(self, watched, session, snapshot):
        """Read one session, keep what local.db keeps, and send what the server lacks.  False if it is not wanted."""
        name = session.tool, session.session_id
        acked = self.session_row(name)
        redactor = Redactor(self.privacy, self.mask_memory(name))
        cwd = self.cwds.get(name) or session.attributes.get("cwd") or acked and acked["working_directory"]
        redactor.more_patterns = lambda: self.ignore_of(cwd) or ()
        if snapshot:
            redactor.progress = snapshot.progress
        draft = read_session(session, redactor, known_chains(acked), self.paths.data,
                             lambda session: project_facts(session, watched.source.path, self.ask_git),
                             snapshot and snapshot.tally, lambda session: self.wants_snapshot(watched, session, snapshot))
        self.cwds[name] = draft.facts["working_directory"]
        if cwd != self.cwds[name] and self.ignore_of(self.cwds[name]):
            draft.spool.close()
            raise OtherProject
        return self.keep(watched, name, draft, acked, redactor.new_masks, snapshot)

    def keep(self, watched, name, draft, acked, new_masks, snapshot=None):
        """Keep what local.db keeps of a draft, and send what the server lacks.  False if it is not wanted."""
        with draft.spool or io.BytesIO():
            if not self.is_wanted(draft, acked, watched.source):
                return False
            self.record(name, draft, acked, watched.source, new_masks)
            if self.may_send and draft.spool and (not snapshot or snapshot.acked):
                self.send(name, draft)
        self.keep_snapshot(watched, name, draft, snapshot)
        return True

    def wants_snapshot(self, watched, session, snapshot):
        """Whether a session is long and alive, and has grown enough that a new snapshot is worth its writing."""
        offset = session.state.file.offset
        grown = offset - snapshot.offset if snapshot else offset
        return (is_long_and_alive(offset, watched.mtime, self.wall())
                and grown >= max(SNAPSHOT_AFTER, snapshot.size // 16 if snapshot else 0))

    def keep_snapshot(self, watched, name, draft, before):
        """Store a draft's snapshot, unless the server still lacks what lies before it."""
        acked = self.session_row(name)["acked_chain"]
        if acked not in (None, draft.chain):
            return
        if draft.snapshot:
            self.cache.batch([
                (FORGET_SNAPSHOT, watched.name),
                ("INSERT INTO snapshot_states (made_at, size, state) VALUES (?, ?, ?)",
                 [self.wall(), len(draft.snapshot), draft.snapshot]),
                ("INSERT INTO snapshots VALUES (?, ?, ?, ?, last_insert_rowid())", [*watched.name, self.snapshots_with, acked]),
                (FORGET_OLD_SNAPSHOTS, [self.wall() - 7 * SNAPSHOT_AGE, SNAPSHOTS_SIZE])])
        elif before:
            self.cache.batch([("UPDATE snapshots SET acked_chain = ? WHERE tool = ? AND key = ?", [acked, *watched.name])])
        else:
            self.cache.batch([(FORGET_SNAPSHOT, watched.name)])

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

    def ignore_of(self, cwd):
        """project_ignore with a memory of a minute."""
        if not isinstance(cwd, str) or not cwd:
            return None
        asked, answer = self.ignored.get(cwd, (None, None))
        if asked is None or self.clock() - asked > 60:
            asked, answer = self.ignored[cwd] = self.clock(), project_ignore(cwd)
        return answer

    def is_wanted(self, draft, acked, source):
        """Whether a draft may replace what is known: never by nothing, a shortened copy, or a second-best one."""
        cwd = draft.facts["working_directory"] or ""
        if not draft.count or self.ignore_of(cwd) == [] or any(fnmatch(cwd, str(expand_home(pattern, self.paths.home)))
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
                                   "WHERE tool = ? AND id = ? AND (problem IS NOT ? OR parked_for IS NOT ?)",
                                   [*name, NEEDS_UPDATE, self.parking]))
            statements.append(("INSERT OR IGNORE INTO outbox (tool, id) SELECT tool, id FROM sessions "
                               "WHERE tool = ? AND id = ? AND (sync_status != 'deleted')", name))
        self.cache.batch(statements)

    # Collecting together ----------------------------------------------------

    def collect_next(self):
        """Collect one source: what a worker has read, else the newest that is ready."""
        read = next(self.arriving, None) if self.arriving else None
        if read:
            self.collect_read(*read)
        else:
            self.arriving = None
            if self.queue:
                self.collect(self.queue.pop())

    def read_together(self):
        """Let workers read the new sources among those that are ready, if they are many."""
        known = {tuple(row) for row in self.cache.execute("SELECT DISTINCT tool, source_key FROM sessions")}
        new = [watched for watched in self.queue if watched.name not in known]
        sizes = [watched.size for watched in new]
        count = worker_count() if sizes and sum(sizes) - max(sizes) >= WORKERS_FROM else 0
        if not count:
            return
        for watched in new:
            self.changed.pop(watched.name, None)
            watched.waiting_since = None
            told = watched.tool.name, tuple(watched.source), watched.mtime
            self.orders.append((told, watched, fingerprint(watched.source, watched.states)))
        self.queue = [watched for watched in self.queue if watched.name in self.changed]
        workers = Workers(count, self.paths, self.privacy, self.may_send)
        self.arriving = workers.read(self.orders)

    def collect_read(self, order, answer):
        """Keep what a worker read of a source, and send it."""
        _, watched, mark = order
        if isinstance(answer, str):
            self.report(watched.name, f"{watched.source.path} is left out: {answer}.")
            self.failed.add(watched.name)
            self.note_collected(watched, mark, answer, ())
            return
        names = [(tool, session_id) for tool, session_id, *_ in answer or ()]
        if answer is None or len(set(names)) < len(names) or any(map(self.session_row, names)):
            self.collect(watched)           # what is known already is not begun from nothing
            return
        try:
            kept = {self.keep_read(watched, *read) for read in answer}
            self.note_collected(watched, mark, None, kept - {None})
        except Exception:                   # what is wrong here is met, and said, there
            self.collect(watched)

    def keep_read(self, watched, tool, session_id, stamp, fields, new_masks):
        """The id of a session that a worker read, once it is kept; None where it is not wanted."""
        draft = Draft(*fields)
        path, name = draft.spool, (tool, session_id)
        try:
            draft = draft._replace(spool=path and open(path, "rb"))
            if not self.keep(watched, name, draft, self.session_row(name), new_masks):
                return None
        finally:
            if path:
                os.unlink(path)
        self.stamps[watched.name, tool, session_id] = stamp
        return session_id

    def stop_workers(self):
        if self.arriving:
            self.arriving.close()
        self.arriving, self.orders = None, []

    # Sending ---------------------------------------------------------------

    def send(self, name, draft):
        """Send a session's draft if it waits for that, and do what the answer asks for."""
        waiting = self.cache.first("SELECT * FROM outbox WHERE tool = ? AND id = ?", name)
        if not waiting or waiting["parked_for"] == self.parking or not self.by_hand and waiting["next_try"] > self.wall():
            return
        if self.hold(name):
            return
        row = self.session_row(name)
        delta = bool(row["server_id"] and draft.base)
        with draft.body(self.paths.data) as body:
            if delta:
                answer = self.server.append(row["server_id"], body, draft.base, row["revision"], draft.base_chain)
            else:
                answer = self.server.upload(body, waiting["restore"])
        log.debug("%s %s: %s, %s", *name, f"from {draft.base}" if delta else "whole", answer.status)
        if answer.ok and isinstance(answer.data.get("id"), str):
            self.acknowledge(name, draft, answer)
        elif delta and answer.status in DELTA_REACTIONS:
            DELTA_REACTIONS[answer.status](self, name, answer, waiting)
        else:
            REACTIONS.get(answer.status, Daemon.try_later)(self, name, answer, waiting)

    def hold(self, name):
        """Whether a session waits for a person, as it holds masks that nobody has accepted; it is parked then."""
        if not self.settings["privacy"]["review"]:
            return False
        masks, state, accepted = self.cache.first(REVIEW_OF, [*name, *name])
        held = state == "refused" or masks > (accepted or 0)
        if held:
            log.info("%s %s holds %d secrets, masked, and waits for `daemon.py review`.", *name, masks)
            self.cache.batch([
                ("INSERT INTO reviews (tool, id, state) VALUES (?, ?, 'held') ON CONFLICT (tool, id) DO UPDATE SET "
                 "state = CASE state WHEN 'refused' THEN state ELSE 'held' END", name),
                ("UPDATE outbox SET parked_for = ?, problem = ? WHERE tool = ? AND id = ?", [self.parking, WAITS_FOR_REVIEW, *name])])
        return held

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
        """Rejected: not sent again until its content, this program or the account changes; where only a newer
        program will do, its content does not count."""
        problem = NEEDS_UPDATE if answer.data.get("field") == "rules" else answer.problem
        log.warning("%s %s was rejected: %s", *name, problem)
        self.rejected += 1
        self.cache.batch([("UPDATE outbox SET parked_for = ?, problem = ? WHERE tool = ? AND id = ?",
                           [self.parking, problem, *name])])

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
        elif not answer.ok or not answer.data.get("user_id"):
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
        if answer.status == 200 and isinstance(answer.data.get("privacy"), dict):
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
            settings = load_settings(self.paths, self.env)
            self.settings_seen = self.settings_states()
            if settings != self.settings:
                self.apply(settings)
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
        if self.queue or self.arriving:
            self.collect_next()
            return
        self.progress.finish()
        self.rest()

    @property
    def is_busy(self):
        """Whether a file is at work, or something waits.  If not, only folders tell of something new."""
        lost = self.server.configured and not self.connected or self.clock() < self.paused_until
        return bool(self.hot or self.changed or lost)

    def rest(self):
        """Sleep until something is due.  After a gap (a laptop slept) everything is due at once."""
        before = self.wall()
        seconds = max(0.05 if self.is_busy else IDLE, min(self.due.values()) - self.clock())
        self.sleep(seconds)
        if not -5 < self.wall() - before - seconds < 5:
            self.due.clear()
            self.folders.clear()
            self.roots_due = 0
            self.paused_until = self.failures = 0

    def run(self):
        """Collect and send for ever.  A full disk or a lost folder is waited out."""
        try:
            while True:
                try:
                    self.step()
                except (OSError, sqlite3.OperationalError) as error:
                    self.report(str(error), f"Nothing can be collected now: {error}")
                    self.sleep(RETRY_SOURCE)
                    self.apply(self.settings)
        finally:
            self.stop_workers()

    def once(self, paths=None):
        """One pass over everything, or over the given paths; True if all of it was read and sent."""
        self.by_hand, self.custom_roots, self.roots_due = True, paths, 0
        self.connect()
        if self.settings["daemon"]["health_check_interval_secs"]:
            self.sync_config()
        self.reload()
        self.connect()
        self.discover()
        for _ in range(self.settings["daemon"]["max_retries"] + 1):
            self.pass_over()
            pause = self.paused_until - self.clock()
            if not self.server.configured or self.connected and pause <= 0 or pause > LONG_PAUSE or not self.waiting():
                break
            self.sleep(max(0, pause))
            self.connect()
        self.pull()
        return not (self.failed or self.rejected or self.server.configured and self.waiting())

    def pass_over(self):
        """Collect all that has changed, the newest first."""
        self.poll()
        try:
            while self.queue or self.arriving:
                self.collect_next()
                if not self.queue and not self.arriving:
                    self.poll()
        finally:
            self.stop_workers()
        self.progress.finish()

    def waiting(self):
        """How many sessions wait to be sent, parked ones apart."""
        return self.cache.first("SELECT count(*) FROM outbox WHERE parked_for IS NOT ?", [self.parking])[0]


RETRY_KEY = 300
LONG_PAUSE = 30                 # seconds; a single pass does not wait so long
SETTINGS_FILES = ("daemon.toml", "config.toml", "synced.toml")
UNAVAILABLE = (0, 429, 502, 503, 504, 507)

# What an answer other than success leads to; any other status is tried again later.
REACTIONS = {
    **dict.fromkeys((400, 403, 404, 409, 413, 415, 422), Daemon.park),
    401: Daemon.lose_access,
    410: Daemon.bury,
}
# The same where only what is new was sent.
DELTA_REACTIONS = {409: Daemon.rebase, **dict.fromkeys((400, 404, 405, 413, 415, 422), Daemon.send_whole)}

WAITS_FOR_REVIEW = "held for review"
NEEDS_UPDATE = "secrets were masked in it on the server by newer rules than these: update daemon.py, then it is sent again"
REVIEW_OF = """
    SELECT (SELECT count(*) FROM masks WHERE tool = ? AND id = ?), r.state, r.masks_accepted
      FROM (SELECT 1) LEFT JOIN reviews r ON r.tool = ? AND r.id = ?"""
RELEASE_HELD = ("UPDATE outbox SET parked_for = NULL, problem = NULL, next_try = 0 WHERE problem = ?", [WAITS_FOR_REVIEW])
FORGET_SNAPSHOT = "DELETE FROM snapshots WHERE tool = ? AND key = ?"
FORGET_OLD_SNAPSHOTS = """
    DELETE FROM snapshots WHERE state_id IN (
        SELECT id FROM (SELECT id, made_at, sum(size) OVER (ORDER BY id DESC) AS total FROM snapshot_states)
         WHERE made_at < ? OR total > ?)"""
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
                lines.append(f"{key} = {toml_value(value)}")
    return "\n".join(lines) + "\n"


def toml_value(value):
    """A value as TOML writes it; but for tables that is JSON."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml_value(item)}" for key, item in value.items()) + "}"
    return f"[{', '.join(map(toml_value, value))}]" if isinstance(value, list) else json.dumps(value, ensure_ascii=False)


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

# Events hang together in no circles: looking for some takes time after every 700 new objects, and finds none.
COLLECTIONS = 20_000,

EXITS = """exit codes: 0 all went well; 1 something could not be read, sent or recognised (one sentence says what);
2 wrong usage or settings; 3 another daemon of this account is running"""


def main(argv=None):
    """Run a command; return its exit code."""
    options = arguments().parse_args(argv)
    logging.basicConfig(level=logging.DEBUG if options.verbose else logging.INFO, stream=sys.stderr,
                        format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")
    gc.set_threshold(*COLLECTIONS)
    try:
        add_custom_parsers(find_paths(os.environ, options.home))
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


def add_custom_parsers(paths):
    """Know the tools of [[custom_parsers]] in config.toml."""
    path = paths.config / "config.toml"
    try:
        TOOLS.update((tool.name, tool) for tool in external_tools(read_toml(path)[1].get("custom_parsers")))
    except ValueError as error:
        raise SettingsError(f"{path}: {error}") from None


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
    go_on_compiled(find_paths(os.environ, options.home).cache)
    daemon, lock = open_daemon(options)
    if not daemon:
        return EXIT_RUNNING
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(EXIT_OK))
    if not daemon.server.configured:
        log.info("No server is set: sessions are collected into %s and stay there. See `daemon.py login`.",
                 daemon.paths.database)
    say_what_is_off(daemon)
    with lock:
        daemon.run()


def say_what_is_off(daemon):
    """Name each tool that has sessions here while its watcher is off."""
    for tool in TOOLS.values():
        setting = switched_off_by(daemon.settings, tool.name) or ""
        roots = tool.roots(daemon.tool_env, daemon.paths.home) if setting.startswith("watchers.") else ()
        if any(os.path.exists(root) and any(True for _ in tool_sources(tool, Path(root))) for root in roots):
            log.info("%s has sessions on this machine that are not collected, as %s is false.", tool.title, setting)


def once_command(options):
    paths = find_paths(os.environ, options.home)
    if not paths.database.exists():         # a first run is long
        go_on_compiled(paths.cache)
    daemon, lock = open_daemon(options)
    if not daemon:
        return EXIT_RUNNING
    with lock:
        complete = daemon.once([os.path.abspath(path) for path in options.paths] or None)
    print(summary(daemon))
    return EXIT_OK if complete else EXIT_FAILED


def import_command(options):
    daemon, lock = open_daemon(options)
    if not daemon:
        return EXIT_RUNNING
    with lock:
        files = unpacked_export(Path(options.file).absolute(), daemon.paths.data / "imports")
        if not any(recognise(path) in map(TOOLS.get, EXPORTS) for path in files):
            return fail(f"{options.file} holds no conversations of ChatGPT or claude.ai.")
        complete = daemon.once([os.fspath(path) for path in files])
    print(summary(daemon))
    return EXIT_OK if complete else EXIT_FAILED


def summary(daemon):
    """One line on what `once` did."""
    read, waiting = daemon.cache.first("SELECT count(*), (SELECT count(*) FROM outbox) FROM sessions")
    sent = f"{daemon.progress.sent} sent, {waiting} not sent" if daemon.server.configured else "no server is set"
    failed = f", {len(daemon.failed)} sources could not be read" if daemon.failed else ""
    return f"{read} sessions known, {sent}{failed}{left_out(daemon)}."


def left_out(daemon):
    """What `once` gave no session for: files of tools without one of their own and, below given paths, other files."""
    held = {tuple(row) for row in daemon.cache.execute("SELECT DISTINCT tool, source_key FROM sessions")}
    empty = len(daemon.watched.keys() - held - daemon.failed)
    others = files_of_no_source(daemon)
    for path in others:
        log.debug("%s is no session of a tool.", path)
    return (f", {empty} sources hold no session of their own" if empty else "") + (
        f", {len(others)} other files" if others else "")


def files_of_no_source(daemon):
    """The files below the paths of `once` that no source took, as texts."""
    taken = {os.fspath(path) for watched in daemon.watched.values() for path in watched.source.files}
    return [path for root in daemon.custom_roots or () for path in files_of(root)
            if path not in taken and not any(os.fspath(folder) in taken for folder in Path(path).parents)]


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
    for row in cache.execute(EMPTY_SOURCES):
        tools[row["tool"]] = {"sessions": 0, "synced": 0, "bad_lines": 0, "empty": row["number"]}
    for row in sessions:
        counts = tools.setdefault(row["tool"], {"sessions": 0, "synced": 0, "bad_lines": 0, "empty": 0})
        counts["sessions"] += 1
        counts["synced"] += row["sync_status"] == "synced"
        counts["bad_lines"] += row["bad_lines"]
    waiting = cache.execute("SELECT tool, id, attempts, problem FROM outbox WHERE parked_for IS NULL").fetchall()
    parked = cache.execute("SELECT tool, id, problem FROM outbox WHERE parked_for IS NOT NULL AND problem IS NOT ?",
                           [WAITS_FOR_REVIEW]).fetchall()
    broken = cache.execute("SELECT tool, path, problem FROM sources WHERE problem IS NOT NULL").fetchall()
    return {"tools": tools, "redactions": added_up(row["redactions"] for row in sessions),
            "unknown_types": added_up(row["unknown_types"] for row in sessions),
            "waiting": [dict(row) for row in waiting], "rejected": [dict(row) for row in parked],
            "unreadable": [dict(row) for row in broken], "held": held_sessions(cache),
            "pulled": cache.first("SELECT count(*) FROM pulled")[0]}


def held_sessions(cache):
    """[{tool, id, state, title, secrets}] of what waits for a review, or was refused in one."""
    rows = cache.execute("""
        SELECT r.tool, r.id, r.state, s.title, s.redactions,
               (SELECT count(*) FROM masks m WHERE m.tool = r.tool AND m.id = r.id) AS secrets
          FROM reviews r JOIN sessions s ON s.tool = r.tool AND s.id = r.id
         WHERE r.state != 'accepted' ORDER BY s.updated_at DESC, r.id""")
    return [dict(row) for row in rows]


EMPTY_SOURCES = """
    SELECT tool, count(*) AS number FROM sources s
     WHERE problem IS NULL
       AND NOT EXISTS (SELECT 1 FROM sessions WHERE tool = s.tool AND source_key = s.key)
     GROUP BY tool"""


def added_up(counts):
    """The sum of JSON objects of counts."""
    return dict(sum((Counter(json.loads(text)) for text in counts), Counter()).most_common())


def status_text(known):
    server = f"{known['server']} (team {known['team_id'] or 'the only one'})" if known["server"] else "none: nothing is sent"
    lines = [f"server      {server}", f"daemon      {'running' if known['running'] else 'not running'}",
             f"publish_on  {known['publish_on']}", f"database    {known['database']}", ""]
    for tool, counts in sorted(known["tools"].items()):
        more = ((counts["bad_lines"], "damaged lines"), (counts["empty"], "sources without a session of their own"))
        lines.append(f"{tool:<14}{counts['sessions']:>6} sessions, {counts['synced']} sent"
                     + "".join(f", {number} {what}" for number, what in more if number))
    for title in ("redactions", "unknown_types"):
        if known[title]:
            lines.append(f"{title}: " + ", ".join(f"{name} {count}" for name, count in known[title].items()))
    lines.append(f"{len(known['waiting'])} wait to be sent, {known['pulled']} of other machines")
    lines += [f"{one['state']:<8}  {one['tool']} {one['id']}: {one['secrets']} secrets, {one['title']}" for one in known["held"]]
    lines += [f"rejected  {one['tool']} {one['id']}: {one['problem']}" for one in known["rejected"]]
    lines += [f"unreadable  {one['path']}: {one['problem']}" for one in known["unreadable"]]
    return "\n".join(lines)


def tools_command(options):
    paths = find_paths(os.environ, options.home)
    settings, env = load_settings(paths, os.environ), {} if options.home else os.environ
    known = known_sessions(paths.database)
    rows = [("TOOL", "NAME", "STATE", "SESSIONS", "LAST CHANGE (UTC)", "FORMATS SEEN", "PLACES")]
    for tool in TOOLS.values():
        setting, (count, last) = switched_off_by(settings, tool.name), known.get(tool.name, (0, ""))
        first, *others = [str(root) for root in tool.roots(env, paths.home) if os.path.exists(root)] or [
            tool.where if tool.where == BY_IMPORT else "not on this machine"]
        rows.append((tool.title, tool.name, f"off by {setting}" if setting else "on", str(count),
                     last[:16].replace("T", " "), tool.seen, first))
        rows += [("",) * 6 + (other,) for other in others]
    print(lined_up(rows))
    return EXIT_OK


def known_sessions(path):
    """{tool: (sessions, time of the newest)} of local.db, {} where there is none."""
    if not path.exists():
        return {}
    rows = open_cache(path).execute("SELECT tool, count(*), max(updated_at) FROM sessions GROUP BY tool")
    return {tool: (count, last) for tool, count, last in rows}


def lined_up(rows):
    """The lines of a table, each column but the last as wide as its widest cell on the screen."""
    widths = [max(map(columns_of, column)) for column in list(zip(*rows))[:-1]]
    return "\n".join("  ".join([*(cell + " " * (width - columns_of(cell)) for cell, width in zip(row, widths)), row[-1]])
                     for row in rows)


def columns_of(text):
    """How many columns of a terminal a text takes: two for each wide character."""
    return sum(1 + (unicodedata.east_asian_width(character) in "WF") for character in text)


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
    if options.explain:
        print_findings(findings_of(options.file, privacy))
        return EXIT_OK
    with open(options.file, encoding="utf-8", errors="replace") if options.file else nullcontext(sys.stdin) as lines:
        redact_stream(lines, sys.stdout, privacy)
    return EXIT_OK


def findings_of(file, privacy):
    """Yield the Findings of a session file, a text file, or standard input where there is none."""
    if not file:
        yield from explain_lines(sys.stdin, Redactor(privacy))
        return
    path = Path(file).absolute()
    tool = recognise(path)
    for session in tool.parse(Source(str(path), (path,))) if tool else ():
        yield from explain_events(session.events, Redactor(privacy))
    if not tool:
        with path.open(encoding="utf-8", errors="replace") as lines:
            yield from explain_lines(lines, Redactor(privacy))


def print_findings(found):
    """One line for each place, then how many there were of each rule."""
    counts = Counter()
    for one in found:
        counts[one.rule] += 1
        print(f"{one.line}  {one.field or 'text'}  {one.rule}  {one.preview}")
    print(", ".join(f"{rule} {count}" for rule, count in counts.most_common()) or "nothing was found", file=sys.stderr)


def review_command(options):
    """List, show, accept or refuse the sessions that wait because they hold secrets."""
    paths = find_paths(os.environ, options.home)
    settings, cache = load_settings(paths, os.environ), open_cache(paths.database)
    rows = [row for row in held_sessions(cache) if options.session in (None, "all", row["id"])]
    if options.session and not rows:
        return fail(f"No session {options.session} waits for a review.")
    if options.action == "show":
        for row in rows:
            print_findings(findings_of_session(cache, row, privacy_of(settings, os.environ, paths.home)))
    elif options.action != "list":
        cache.batch([statement for row in rows for statement in DECISIONS[options.action](row["tool"], row["id"])])
        print(f"{len(rows)} sessions {options.action}{'ed' if options.action == 'accept' else 'd'}.")
    else:
        print("\n".join(f"{row['state']:<8}  {row['tool']}  {row['id']}  {row['secrets']} secrets ("
                        + ", ".join(f"{rule} {count}" for rule, count in json.loads(row["redactions"]).items())
                        + f")  {row['title'] or ''}" for row in rows) or "Nothing waits for a review.")
    return EXIT_OK


def accepted(*name):
    """The statements that let a session go, with the masks that it has now."""
    return [("UPDATE reviews SET state = 'accepted', masks_accepted = (SELECT count(*) FROM masks WHERE tool = ? AND id = ?) "
             "WHERE tool = ? AND id = ?", [*name, *name]),
            (RELEASE_HELD[0] + " AND tool = ? AND id = ?", [*RELEASE_HELD[1], *name])]


def refused(*name):
    """The statements that keep a session here for good, or until it is accepted."""
    return [("UPDATE reviews SET state = 'refused' WHERE tool = ? AND id = ?", name)]


DECISIONS = {"accept": accepted, "refuse": refused}


def findings_of_session(cache, row, privacy):
    """Yield the Findings of a session of local.db, read again from its source."""
    known = cache.first("SELECT source_key, source_path FROM sessions WHERE tool = ? AND id = ?", [row["tool"], row["id"]])
    tool = TOOLS.get(row["tool"])
    for source in tool_sources(tool, Path(known["source_path"])) if tool else ():
        for session in tool.parse(source) if source.key == known["source_key"] else ():
            if session.session_id == row["id"]:
                yield from explain_events(session.events, Redactor(privacy))


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


# Name: the function, what it does in one line, its arguments as argparse takes them.
COMMANDS = {
    "run": (run_command, "collect and send for ever (the default)", {}),
    "once": (once_command, "one pass; with PATHs only over them", {"paths": {"nargs": "*", "metavar": "PATH"}}),
    "import": (import_command, "collect the conversations of a claude.ai or ChatGPT export", {
        "file": {"metavar": "FILE", "help": "conversations.json, or the ZIP file that holds it"}}),
    "login": (login_command, "register at a server, or use a key, and remember both", {
        "url": {"metavar": "URL"},
        "--nickname": {"help": "register under this name"},
        "--key": {"help": "use this API key instead of registering"},
        "--invite": {"help": "an invitation code, or the server's set-up token"}}),
    "status": (status_command, "what was collected, what waits, what was rejected", {
        "--json": {"action": "store_true", "help": "for programs"}}),
    "tools": (tools_command, "the tools that are known, and what there is of them on this machine", {}),
    "parse": (parse_command, "print the sessions of a file as HAIL, redacted", {
        "file": {"metavar": "FILE"},
        "--tool": {"help": "read it as this tool's (else it is recognised)"}}),
    "show": (show_command, "print a session of the team as HAIL; it is fetched once", {
        "session": {"metavar": "SESSION", "help": "its id on the server, or the tool's own"}}),
    "redact": (redact_command, "copy a text, or standard input, to standard output without secrets", {
        "file": {"metavar": "FILE", "nargs": "?", "help": "a text; with --explain a session of a tool, too"},
        "--explain": {"action": "store_true", "help": "print what was found by which rule and where, instead of the text"}}),
    "review": (review_command, "the sessions that wait because they hold secrets (privacy.review)", {
        "action": {"nargs": "?", "default": "list", "choices": ("list", "show", *DECISIONS)},
        "session": {"metavar": "SESSION", "nargs": "?", "help": "the tool's own id, or `all`"}}),
    "push": (push_command, "send a session again", {
        "session": {"metavar": "SESSION", "help": "its id, here or on the server"},
        "--restore": {"action": "store_true", "help": "even if it was deleted on the server"}}),
}


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(prog="daemon.py", description=__doc__.split("\n")[0], epilog=EXITS)
    parser.set_defaults(run=run_command)
    parser.add_argument("--home", metavar="DIR", help="look for tools, settings and local.db below DIR")
    parser.add_argument("--verbose", action="store_true", help="log every request and decision")
    parser.add_argument("--work", dest="run", action="store_const", const=work_command, help=argparse.SUPPRESS)     # see Workers
    commands = parser.add_subparsers(metavar="COMMAND")
    for name, (run, about, facts) in COMMANDS.items():
        command = commands.add_parser(name, help=about, description=about, epilog=EXITS)
        command.set_defaults(run=run)
        for argument, options in facts.items():
            command.add_argument(argument, **options)
    return parser


if __name__ == "__main__":
    sys.exit(main())
