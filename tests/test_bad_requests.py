"""Broken, hostile and strange requests: each gets a 4xx with a sentence, and nothing that is accepted spoils a later answer."""

import base64
import copy
import gzip
import json
import math
import os
import re
import unittest
import urllib.parse
import uuid
import zlib
from pathlib import Path

import opensession
from client import Client, ServerCase, hail_file, new_event, new_session
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("OPENSESSION_EXAMPLES", 150))      # of each generated test; more finds more


def strict(data):
    """The JSON value in some bytes, as a browser would read it, or ValueError."""
    def finite(digits):
        if not math.isfinite(float(digits)):
            raise ValueError(digits)
        return float(digits)

    def nothing(name):
        raise ValueError(name)
    value = json.loads(data.decode(), parse_constant=nothing, parse_float=finite)
    json.dumps(value, ensure_ascii=False).encode()      # half a character cannot be encoded
    return value


class BadCase(ServerCase):
    def setUp(self):
        super().setUp()
        web = self.folder / "web"
        web.mkdir()
        (web / "index.html").write_text("the page")
        (self.folder / "secret").write_text("top secret")
        self.restart(OPENSESSION_WEB_DIR=str(web))
        self.ada = self.register("ada")

    def refused(self, answer, *statuses):
        """Fail unless an answer is an error with one of these statuses, as JSON with a sentence."""
        self.assertIn(answer.status, statuses or range(400, 500), answer)
        self.assertEqual(answer.headers["Content-Type"].partition(";")[0], "application/json")
        self.assertGreater(len(strict(answer.body)["error"]), 3)
        return answer

    def readable(self, session_id):
        """Fail unless everything that shows a session works and is strict JSON."""
        for path in ("?per_page=100", f"/{session_id}", f"/{session_id}/events", f"/{session_id}/events?limit=1"):
            answer = self.ada.get(f"/api/sessions{path}")
            self.assertEqual(answer.status, 200, answer)
            strict(answer.body)
        raw = self.ada.get(f"/api/sessions/{session_id}/raw")
        self.assertEqual(int(raw.headers["Content-Length"]), len(raw.body))
        lines = [strict(line) for line in raw.body.splitlines() if line]
        self.assertEqual((lines[0]["type"], lines[-1]["type"]), ("header", "stats"))
        pulled = self.ada.get(f"/api/sync/pull?team_id={self.ada.team_id}&limit=500")
        self.assertEqual(pulled.status, 200)
        strict(pulled.body)

    def session_count(self):
        return self.rows("SELECT count(*) AS n FROM sessions")[0]["n"]


# Routes that read a JSON object, with one that they accept.
BODIES = {
    ("POST", "/api/register"): {"nickname": "bob"},
    ("POST", "/api/auth/login"): {"api_key": "osk_x"},
    ("POST", "/api/keys"): {"name": "laptop", "scope": "read"},
    ("POST", "/api/invitations"): {"role": "member"},
    ("POST", "/api/invitations/accept"): {"code": "x"},
    ("POST", "/api/teams"): {"name": "core", "description": "x", "is_public": False},
    ("PUT", "/api/teams/TEAM"): {"name": "core", "description": "x", "is_public": False},
    ("POST", "/api/teams/TEAM/members"): {"nickname": "bob"},
    ("PUT", "/api/config/sync"): {"privacy": {"exclude_patterns": ["*.env"]}, "watchers": {"codex": True}},
    ("POST", "/api/sessions"): {"session": new_session("s-1"), "team_id": None},
    ("POST", "/api/sessions/s-0/events"): {"events": [], "from": 0, "base_revision": 1, "base_chain": "x", "context": {}},
}

# Bodies that are no JSON that we take, whatever the route.
SYNTAX = {
    "nothing": b"",
    "half": b'{"a": [1, 2',
    "trailing garbage": b"{} {}",
    "single quotes": b"{'a': 1}",
    "NaN": b'{"a": NaN}',
    "Infinity": b'{"a": [-Infinity]}',
    "1e400": b'{"a": {"b": -1e400}}',
    "5,000 digits": b'{"a": ' + b"9" * 5000 + b"}",
    "depth 100,000": b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "depth 100,000, never closed": b"[" * 100_000,
    "objects 5,000 deep": b'{"a":' * 5000 + b"1" + b"}" * 5000,
    "depth 65": b'{"a": ' + b"[" * 64 + b"1" + b"]" * 64 + b"}",
    "depth 65, empty": b'{"a": ' + b"[" * 64 + b"]" * 64 + b"}",
    "bad UTF-8": b'{"a": "\xff"}',
    "Latin-1": '{"a": "é"}'.encode("latin-1"),
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "UTF-32": '{"a": 1}'.encode("utf-32"),
    "an encoded surrogate": b'{"a": "\xed\xa0\x80"}',
    "a NUL byte": b'{"a": "\0"}',
}

GZIPPED = gzip.compress(b'{"a": 1}')
GZIP = {
    "no gzip": b'{"a": 1}',
    "nothing": b"",
    "half": GZIPPED[:-9],
    "without its check": GZIPPED[:-4],
    "a wrong check": GZIPPED[:-8] + b"\0" * 8,
    "trailing garbage": GZIPPED + b"garbage",
    "a second, broken member": GZIPPED + GZIPPED[:-3],
    "members without end": GZIPPED + gzip.compress(b"") * 1000,
    "zlib": zlib.compress(b'{"a": 1}'),
}


class BrokenBodies(BadCase):
    def setUp(self):
        super().setUp()
        self.upload(self.ada, new_session("s-0"))

    def each_route(self):
        for (method, path), body in BODIES.items():
            yield method, path.replace("TEAM", self.ada.team_id), body

    def test_what_is_no_json_is_400_on_every_route(self):
        for method, path, _ in self.each_route():
            for name, body in SYNTAX.items():
                with self.subTest(name, path=path):
                    self.refused(self.ada.request(method, path, body=body, type="application/json"), 400)

    def test_what_is_no_object_is_refused_on_every_route(self):
        for method, path, _ in self.each_route():
            for body in (b"null", b"[1]", b'"x"', b"1", b"true", b"[]"):
                with self.subTest(body, path=path):
                    answer = self.ada.request(method, path, body=body, type="application/json")
                    self.refused(answer, *((400, 415, 422) if path == "/api/sessions" else (400,)))

    def test_a_wrong_content_type_is_415_on_every_route(self):
        for method, path, body in self.each_route():
            for kind in (None, "", "text/html", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded", "image/png; charset=nope"):
                with self.subTest(kind, path=path):
                    self.refused(self.ada.request(method, path, body=json.dumps(body).encode(), type=kind), 415)

    def test_broken_gzip_is_400_on_every_route(self):
        for method, path, _ in self.each_route():
            for name, body in GZIP.items():
                with self.subTest(name, path=path):
                    self.refused(self.ada.request(method, path, body=body, type="application/json", headers={"Content-Encoding": "gzip"}), 400)
            self.refused(self.ada.request(method, path, body=b"x", type="application/json", headers={"Content-Encoding": "br"}), 415)

    def test_a_wrong_type_in_any_field_is_422_and_names_it(self):
        for method, path, good in self.each_route():
            for name, value in good.items():
                for wrong in (1, 1.5, True, "x", [], {}, [[]], 2**70):
                    if type(wrong) is type(value) or name in ("team_id", "session", "privacy", "watchers") and wrong in ({}, "x"):
                        continue
                    with self.subTest(path, field=name, value=wrong):
                        answer = self.refused(self.ada.request(method, path, {**good, name: wrong}), 422, 400, 403)
                        self.assertTrue(answer.status != 422 or name in answer.json["field"], answer)

    def test_a_body_that_is_too_large_is_413(self):
        body = b'{"name": "' + b"x" * (2 << 20) + b'"}'
        for headers, sent in [({}, body), ({"Content-Encoding": "gzip"}, gzip.compress(body))]:
            self.refused(self.ada.post("/api/keys", body=sent, type="application/json", headers=headers), 413)

    def test_a_byte_order_mark_is_no_harm(self):
        answer = self.ada.post("/api/keys", body=b'\xef\xbb\xbf{"name": "laptop"}', type="application/json; charset=utf-8")
        self.check(answer, 201)

    def test_of_a_key_that_stands_twice_the_last_one_counts(self):
        answer = self.ada.post("/api/keys", body=b'{"name": "first", "name": "last"}', type="application/json")
        self.assertEqual(self.check(answer, 201).json["name"], "last")

    def test_a_gzip_bomb_is_refused_and_takes_no_memory(self):
        bomb = zlib.compressobj(6, zlib.DEFLATED, 31)
        bomb = b"".join([bomb.compress(bytes(1 << 20)) for _ in range(200)] + [bomb.flush()])
        self.assertLess(len(bomb), 300_000)
        for path, kind, allowed in [("/api/keys", "application/json", 10), ("/api/sessions", "application/jsonl", 20),
                                    ("/api/sessions", "application/json", 100)]:
            with self.subTest(path, kind=kind):
                before = reset_peak()
                self.refused(self.ada.post(path, body=bomb, type=kind, headers={"Content-Encoding": "gzip"}), 413)
                if before:
                    self.assertLess(peak_memory() - before, allowed << 20)


def reset_peak():
    """The memory in use (bytes), from which peak_memory counts; None where the system does not say."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return peak_memory()
    except OSError:
        return None


def peak_memory():
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) << 10


def changed(value, path, new=...):
    """A copy of a JSON value with another one at a path; without the place where there is no other one."""
    value = copy.deepcopy(value)
    place = value
    for key in path[:-1]:
        place = place[key]
    if new is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = new
    return value


def event_with(kind="UserMessage", data=None, **more):
    return changed(new_session("s-1"), ["events"], [new_event(kind, data=data, **more)])


def block_with(**block):
    event = new_event()
    event["content"]["blocks"] = [block]
    return changed(new_session("s-1"), ["events"], [event])


GOOD = new_session("s-1")

# Sessions that are not HAIL: each is 422 and names the field.
WRONG_SESSIONS = {
    "no version": (changed(GOOD, ["version"]), "version"),
    "a version of something else": (changed(GOOD, ["version"], "1.0"), "version"),
    "no id": (changed(GOOD, ["session_id"]), "session_id"),
    "an empty id": (changed(GOOD, ["session_id"], ""), "session_id"),
    "an id that is null": (changed(GOOD, ["session_id"], None), "session_id"),
    "an id with a NUL": (changed(GOOD, ["session_id"], "a\0b"), "session_id"),
    "an id of two lines": (changed(GOOD, ["session_id"], "a\nb"), "session_id"),
    "an id with an escape": (changed(GOOD, ["session_id"], "\x1b[2J"), "session_id"),
    "a long id": (changed(GOOD, ["session_id"], "x" * 600), "session_id"),
    "no agent": (changed(GOOD, ["agent"]), "agent"),
    "an agent that is a list": (changed(GOOD, ["agent"], []), "agent"),
    "no tool": (changed(GOOD, ["agent", "tool"]), "agent.tool"),
    "a model that is a number": (changed(GOOD, ["agent", "model"], 4), "agent.model"),
    "no context": (changed(GOOD, ["context"]), "context"),
    "no time": (changed(GOOD, ["context", "created_at"]), "context.created_at"),
    "a time without a zone": (changed(GOOD, ["context", "created_at"], "2026-02-11T06:00:00"), "context.created_at"),
    "a time that is none": (changed(GOOD, ["context", "updated_at"], "2026-02-30T06:00:00Z"), "context.updated_at"),
    "the last second of all": (changed(GOOD, ["context", "updated_at"], "9999-12-31T23:59:59-12:00"), "context.updated_at"),
    "the first second of all": (changed(GOOD, ["context", "updated_at"], "0001-01-01T00:00:00+12:00"), "context.updated_at"),
    "a title that is an object": (changed(GOOD, ["context", "title"], {}), "context.title"),
    "tags that are text": (changed(GOOD, ["context", "tags"], "a,b"), "context.tags"),
    "tags that are numbers": (changed(GOOD, ["context", "tags"], [1]), "context.tags"),
    "attributes that are a list": (changed(GOOD, ["context", "attributes"], []), "context.attributes"),
    "an event that is null": (changed(GOOD, ["events", 1], None), "events[1]"),
    "an event without an id": (changed(GOOD, ["events", 1, "event_id"]), "events[1].event_id"),
    "an event id that is a number": (changed(GOOD, ["events", 0, "event_id"], 2**70), "events[0].event_id"),
    "an event without a time": (changed(GOOD, ["events", 1, "timestamp"]), "events[1].timestamp"),
    "an event at a time in seconds": (changed(GOOD, ["events", 1, "timestamp"], 1770000000), "events[1].timestamp"),
    "an event without a kind": (changed(GOOD, ["events", 1, "event_type"]), "events[1].event_type.type"),
    "a kind that is a list": (changed(GOOD, ["events", 1, "event_type"], {"type": []}), "events[1].event_type.type"),
    "an unknown kind": (event_with("Telepathy"), "events[0].event_type.type"),
    "data that is text": (changed(GOOD, ["events", 0, "event_type", "data"], "x"), "events[0].event_type.data"),
    "a tool call without a name": (event_with("ToolCall"), "events[0].event_type.data.name"),
    "a path that is a number": (event_with("FileEdit", {"path": 1}), "events[0].event_type.data.path"),
    "a diff that is a list": (event_with("FileEdit", {"path": "a", "diff": ["+"]}), "events[0].event_type.data.diff"),
    "an exit code beyond 32 bits": (event_with("ShellCommand", {"command": "ls", "exit_code": 2**40}), "events[0].event_type.data.exit_code"),
    "an error that is text": (event_with("ToolResult", {"name": "x", "is_error": "yes"}), "events[0].event_type.data.is_error"),
    "an error that is a number": (event_with("ToolResult", {"name": "x", "is_error": 1}), "events[0].event_type.data.is_error"),
    "a task that is a number": (event_with(task_id=7), "events[0].task_id"),
    "a negative duration": (event_with(duration_ms=-1), "events[0].duration_ms"),
    "an endless duration": (event_with(duration_ms=2**70), "events[0].duration_ms"),
    "event attributes that are text": (changed(GOOD, ["events", 0, "attributes"], "x"), "events[0].attributes"),
    "2^70 tokens": (event_with(attributes={"input_tokens": 2**70}), "events[0].attributes.input_tokens"),
    "negative tokens": (event_with(attributes={"output_tokens": -1}), "events[0].attributes.output_tokens"),
    "no content": (changed(GOOD, ["events", 0, "content"]), "events[0].content.blocks"),
    "blocks that are an object": (changed(GOOD, ["events", 0, "content", "blocks"], {}), "events[0].content.blocks"),
    "a block that is text": (changed(GOOD, ["events", 0, "content", "blocks", 0], "x"), "events[0].content.blocks[0].type"),
    "an unknown block": (block_with(type="Smell"), "events[0].content.blocks[0].type"),
    "text that is null": (block_with(type="Text", text=None), "events[0].content.blocks[0].text"),
    "an image without its type": (block_with(type="Image", url="data:,"), "events[0].content.blocks[0].mime"),
}


class BrokenSessions(BadCase):
    def both_forms(self, session):
        yield "object", self.ada.post("/api/sessions", {"session": session})
        if all(isinstance(event, dict) for event in session["events"]):
            yield "lines", self.ada.post("/api/sessions", body=hail_file(session), type="application/jsonl")

    def test_what_is_not_hail_is_422_and_names_the_place(self):
        for name, (session, field) in WRONG_SESSIONS.items():
            for form, answer in self.both_forms(session):
                with self.subTest(name, form=form):
                    self.assertEqual(self.refused(answer, 422).json["field"], field)
        self.assertEqual(self.session_count(), 0)

    def test_events_stats_and_session_are_required(self):
        for body in ({"session": changed(GOOD, ["events"])}, {"session": changed(GOOD, ["events"], {})}, {"session": []},
                     {"session": changed(GOOD, ["stats"])}, {"session": changed(GOOD, ["stats"], 1)}, {"team_id": self.ada.team_id},
                     {"session": None}, {"session": GOOD, "team_id": 7}, {"session": GOOD, "team_id": ["x"]}):
            self.refused(self.ada.post("/api/sessions", body), 422)

    def test_lines_that_are_not_hail_are_refused(self):
        header, event, *_ = hail_file(GOOD).splitlines(keepends=True)
        for name, (body, *statuses) in {
            "nothing": (b"", 400), "blank lines": (b"\n \n\r\n", 400), "half an event": (header + event[:-20], 400),
            "no JSON": (header + b"hello\n", 400), "NaN": (header + event[:-2] + b',"n":NaN}\n', 400),
            "1e400": (header + event[:-2] + b',"n":1e400}\n', 400), "deep": (header + event[:-2] + b',"n":' + b"[" * 70 + b"1" + b"]" * 70 + b"}\n", 400),
            "a header of depth": (header[:-2] + b',"n":' + b"[" * 70 + b"1" + b"]" * 70 + b"}\n", 400),
            "bad UTF-8": (header + event.replace(b"spoon", b"\xff"), 400), "UTF-16": (hail_file(GOOD).decode().encode("utf-16"), 400, 415),
            "a list": (header + b"[1]\n", 422), "null": (header + b"null\n", 422), "no type": (header + b"{}\n", 422),
            "an unknown type": (header + b'{"type":"surprise"}\n', 422), "another dialect": (b'{"type":"session.new"}\n', 415),
        }.items():
            with self.subTest(name):
                answer = self.ada.post("/api/sessions", body=body, type="application/x-ndjson")
                self.refused(answer, *statuses)
        self.assertEqual(self.session_count(), 0)

    def test_64_levels_are_accepted_and_readable_65_are_not(self):
        header, event, *_ = hail_file(GOOD).splitlines(keepends=True)
        for levels, status in [(62, 201), (63, 200), (64, 400)]:    # the event itself is one
            deep = event[:-2] + b',"n":' + b"[" * levels + b"1" + b"]" * levels + b"}\n"
            answer = self.ada.post("/api/sessions", body=header + deep, type="application/jsonl")
            self.assertEqual(answer.status, status, (levels, answer))
            if status < 300:
                self.readable(answer.json["id"])
                self.check(self.ada.post(f"/api/sessions/s-1/events", body=deep, type="application/jsonl"), 200)

    def test_strange_text_is_accepted_everywhere_and_spoils_nothing(self):
        for number, text in enumerate(["\0", "a\0b", "\ud800", "\udfff\ud800", "\u202e", "\x1b[31m", "\r\n\u2028", "<script>", "x" * 70_000,
                                       "é" * 3000, "한글", "\U0001f600", "'; DROP TABLE sessions; --", "\ufeff", "\x7f\x80"]):
            session = new_session(f"s-{number}", title=text, description=text, tags=[text], attributes={
                text: text, "project": text, "git_branch": text, "parent_session_id": text})
            session["agent"] |= {"provider": text[:100], "model": text, "tool": text[:100]}
            session["events"] += [new_event("ShellCommand", text, data={"command": text}, task_id=text or None),
                                  new_event("FileEdit", text, data={"path": text, "diff": text})]
            session["events"][0]["event_id"] = text
            for form in ("object", "lines"):
                if form == "lines" and re.search("[\ud800-\udfff]", text):
                    continue        # no file can hold it
                with self.subTest(ascii(text[:20]), form=form):
                    body = hail_file(session) if form == "lines" else None
                    answer = (self.ada.post("/api/sessions", body=body, type="text/plain") if body
                              else self.ada.post("/api/sessions", {"session": session}))
                    self.assertIn(answer.status, (200, 201), answer)
                    self.readable(answer.json["id"])

    def test_an_id_with_strange_characters_is_no_key_to_other_places(self):
        for name in ("../../secret", "a/b", "..", ".", "%2e", "C:\\a b", "한글", "@1:#2", "\ud800", "nul", "x" * 512):
            session_id = self.upload(self.ada, new_session(name))
            self.readable(session_id)
            self.assertRegex(session_id, "^[0-9a-f-]{36}$")
        names = [path.name for path in (self.folder / "data/bodies").glob("*/*")]
        self.assertTrue(all(re.fullmatch("[0-9a-f.-]+", name) for name in names))


class BrokenQueries(BadCase):
    VALUES = ["", "0", "-1", "1.5", "1e9", "9" * 400, "abc", "%00", "%ff", "%ED%A0%80", "%", "%zz", "+", "a&a=b", "\xe9", "x" * 5000,
              "%22%20OR%201=1", "*", "NEAR(", "(" * 3000, "null", "[]"]
    NAMES = {
        "/api/sessions": ["page", "per_page", "search", "tool", "team_id", "sort", "time_range", "user_id", "project", "parent", "cursor"],
        "/api/sessions/SESSION/events": ["from", "limit", "around"],
        "/api/sync/pull?team_id=TEAM": ["since", "limit", "team_id"],
    }

    def test_a_strange_value_is_never_a_failure(self):
        session_id = self.upload(self.ada)
        for path, names in self.NAMES.items():
            path = path.replace("SESSION", session_id).replace("TEAM", self.ada.team_id)
            for name in names:
                for value in self.VALUES:
                    answer = self.ada.get(f"{path}{'&' if '?' in path else '?'}{name}={value}")
                    with self.subTest(f"{name}={value[:30]}"):
                        self.assertLess(answer.status, 500, answer)
                        strict(answer.body)

    def test_a_cursor_of_somebody_elses_making_is_400(self):
        self.upload(self.ada)
        for value in ([], [1], [1, 2], {}, 7, None, [2**70, "a", "b"], ["a", 2**70, "b"], [1.5, "a", "b"],
                      [[], {}, "x"], [True, "a", "b"], [None, "a", "b"], {"a": 1, "b": 2, "c": 3}):
            cursor = base64.urlsafe_b64encode(json.dumps(value).encode()).decode()
            for sort in ("recent", "popular"):
                with self.subTest(value):
                    self.refused(self.ada.get(f"/api/sessions?sort={sort}&cursor={cursor}"), 400)
        for cursor in ("x", "abcd", "====", "%ff", "é", "W10=" * 1000, base64.b64encode(b"[" * 100_000).decode()):
            self.refused(self.ada.get(f"/api/sessions?cursor={urllib.parse.quote(cursor)}"), 400)

    def test_pages_beyond_all_bounds_are_refused(self):
        self.refused(self.ada.get("/api/sessions?page=1000000&per_page=100"), 422)

    def test_bytes_that_are_no_text_become_marks_of_it(self):
        session_id = self.upload(self.ada, new_session("s-1", title="한국"))
        self.index()
        found = self.ada.get("/api/sessions?search=%ED%95%9C").json["sessions"]
        self.assertEqual([each["id"] for each in found], [session_id])
        self.assertEqual(self.ada.get("/api/sessions?search=%ED%95").json["sessions"], [])


class BrokenPathsAndHeaders(BadCase):
    PATHS = ["/..%2fsecret", "/../secret", "/%2e%2e/secret", "//etc/hostname", "/..%5csecret", "/web/../../secret", "/....//secret",
             "/%2e%2e%2f%2e%2e%2fetc/hostname", "/%00", "/secret%00.html", "/%ff%fe", "/%zz", "/a%0d%0aSet-Cookie:%20x=1", "/" + "x" * 300,
             "/" + "x" * 5000, "/" + "a/" * 2000, "/%ED%A0%80", "/\\", "/~root", "/C:/secret", "/.", "/..", "/index.html/x", "/api/..%2fsecret"]

    def test_no_path_leads_out_of_the_page(self):
        for path in self.PATHS:
            with self.subTest(path[:60]):
                answer = Client().get(path)
                self.assertIn(answer.status, (200, 400, 403, 404), answer)
                self.assertNotIn(b"top secret", answer.body)
                self.assertNotIn(b"root:", answer.body)
                self.assertIsNone(answer.headers["Set-Cookie"])

    def test_no_id_leads_anywhere(self):
        for name in ("..%2f..%2fsecret", "%00", "%ff", "x" * 5000, "%ED%A0%80", "'%20OR%201=1", "null", "%0d%0a", "-1", "*"):
            for path in ("", "/raw", "/events", "/events/0", "/events/-1", "/events/" + "9" * 5000):
                with self.subTest(name[:40], path=path[:20]):
                    self.refused(self.ada.get(f"/api/sessions/{name}{path}"), 400, 404)
            self.refused(self.ada.delete(f"/api/sessions/{name}"), 404, 405)
            self.refused(self.ada.post(f"/api/sessions/{name}/events", {"events": []}), 404, 405)
            self.refused(self.ada.get(f"/api/teams/{name}"), 404)
            self.refused(self.ada.delete(f"/api/keys/{name}"), 404, 405)

    def test_an_unknown_path_or_method_of_the_api_is_json_too(self):
        for method, path, status in [("GET", "/api/nothing", 404), ("POST", "/api/nothing", 405), ("PATCH", "/api/sessions", 405),
                                     ("DELETE", "/api/sessions", 405), ("OPTIONS", "/api/sessions", 405), ("BREW", "/api/teams", 405),
                                     ("PUT", "/index.html", 405)]:
            with self.subTest(f"{method} {path}"):
                self.assertIn(self.refused(self.ada.request(method, path)).status, (status, 404))

    def test_strange_headers_are_never_a_failure(self):
        for name in ("Origin", "Host", "If-None-Match", "Authorization", "Cookie", "Content-Encoding", "Content-Type", "Sec-Fetch-Site",
                     "X-Forwarded-For", "Range", "Accept-Encoding", "If-Modified-Since", "Content-Length"):
            for value in ("", "x", "\xff\xfe", "http://[", "[::1", "null", "a" * 5000, "Bearer ", "Bearer \xe9", "opensession=\xff", 'opensession="!x?y"',
                          ",,,", ";;;", "=", "bytes=0-", "://:@[]", "-1", "9" * 5000):
                key = None if name in ("Authorization", "Cookie", "Origin") else self.ada.key
                for method, path in [("GET", "/api/sessions"), ("POST", "/api/teams"), ("POST", "/api/auth/logout"), ("GET", "/index.html")]:
                    with self.subTest(name, value=value[:20], path=path):
                        answer = Client(key).request(method, path, headers={name: value})
                        self.assertLess(answer.status, 500, answer)

    def test_no_error_shows_what_is_inside(self):
        for answer in (self.ada.get("/api/nothing"), self.ada.post("/api/teams", body=b"{", type="application/json")):
            self.assertNotIn(b"Traceback", answer.body)
            self.assertNotIn(b"opensession.py", answer.body)


# Values that have broken somebody's server before.
NASTY = [None, True, 0, -1, 2**31, 2**53, 2**53 + 1, 2**64, 2**70, -2**70, 1.5, 1e308, -0.0, float("nan"), float("inf"), "", " ", "\0", "\ud800",
         "x" * 3000, "\u202e", "한글", "2026-02-11T06:00:00Z", "2026-W07-3T06:00:00Z", "20260211T060000Z", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z",
         "2026-02-11T06:00:00+23:59", "2026-02-11", "header", "event", "stats", [], {}, [[]], {"": {}}, ["x"], {"type": "Text"}, {"type": "ToolResult"}, "ToolResult", "Json",
         "FileEdit", "TaskEnd", "auxiliary", "s-0"]
nasty = st.one_of(st.sampled_from(NASTY), st.text(max_size=20), st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=6))


def places(value, path=()):
    """The path to everything inside a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield [*path, key]
        yield from places(inner, [*path, key])


RICH = new_session("s-1", title="t", description="d", attributes={"project": "p", "parent_session_id": "s-0", "git": {"branch": "b"}, "redactions": 1},
                   related_session_ids=["x"], events=[
    new_event(attributes={"input_tokens": 1, "output_tokens_total": 2, "error": True}, duration_ms=5, task_id="t"),
    new_event("FileEdit", data={"path": "a", "diff": "+b"}), new_event("ShellCommand", data={"command": "ls", "exit_code": 1}),
    new_event("ToolResult", data={"name": "x", "call_id": "y", "is_error": True}), new_event("TaskEnd", data={"summary": "x"}),
    {**new_event("Custom", data={"kind": "k"}), "content": {"blocks": [{"type": "Json", "data": {"a": [1]}}, {"type": "Image", "url": "u", "mime": "m"}]}}])
RICH["session"] = 0     # a field that is not ours
RICH_PLACES = list(places(RICH))
generated = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))


class Generated(BadCase):
    """Whatever is generated: never a 5xx, and what is accepted can be read by everybody."""

    @generated
    @given(st.lists(st.tuples(st.sampled_from(RICH_PLACES), nasty | st.just(...)), min_size=1, max_size=3), st.booleans())
    def test_a_session_that_is_accepted_poisons_nothing(self, changes, in_lines):
        session = RICH
        for path, value in changes:
            try:
                session = changed(session, path, value)
            except (KeyError, IndexError, TypeError):
                pass        # an earlier change took the place away
        answer = self.send(session, in_lines)
        if answer.status in (200, 201):
            self.readable(answer.json["id"])
        else:
            self.refused(answer)

    def send(self, session, in_lines):
        try:
            body = hail_file(session).decode("utf-8", "surrogatepass").encode("utf-8", "replace")
        except (KeyError, TypeError, AttributeError, UnicodeEncodeError):
            in_lines = False        # not even a file of lines can be made of it
        if in_lines:
            return self.ada.post("/api/sessions", body=body, type="application/jsonl")
        return self.ada.post("/api/sessions", {"session": session})

    @generated
    @given(st.data())
    def test_no_request_is_a_failure(self, data):
        team, hail_id = self.new_team(self.ada), str(uuid.uuid4())      # an earlier request may have deleted any
        session = self.upload(self.ada, changed(GOOD, ["session_id"], hail_id), team)
        ids = {"SESSION": session, "s-0": hail_id, "TEAM": team, "USER": self.ada.user_id}
        route = data.draw(st.sampled_from(opensession.app.routes))
        names = st.sampled_from(["SESSION", "SESSION", "s-0", "TEAM", "USER", "0", "1", "x", "%00", "%ff", "-1"])
        path = re.sub(r"<\w+(:\w+)?>", lambda match: ids.get(name := data.draw(names), name), route.rule)
        fields = data.draw(st.dictionaries(st.sampled_from(FIELDS), nasty, max_size=4))
        query = urllib.parse.urlencode({name: str(value).encode("utf-8", "replace") for name, value in
                                        data.draw(st.dictionaries(st.sampled_from(FIELDS), nasty, max_size=3)).items()})
        kind = data.draw(st.sampled_from(["application/json"] * 4 + ["application/jsonl", "text/plain", "x", None]))
        body = data.draw(st.one_of(st.just(json.dumps(fields).encode()), nasty.map(lambda value: json.dumps(value).encode()),
                                   st.binary(max_size=50)))
        answer = self.ada.request(route.method, f"{path}?{query}", body=body, type=kind,
                                  headers=data.draw(st.sampled_from([{}, {}, {"Content-Encoding": "gzip"}, {"If-None-Match": "*"}])))
        self.assertLess(answer.status, 500, answer)
        if answer.status >= 400:
            self.assertIn("error", strict(answer.body))
        if route.rule == "/api/auth/regenerate-key" and answer.status == 200:
            self.ada.key = answer.json["api_key"]


FIELDS = ["nickname", "invite", "api_key", "name", "scope", "team_id", "role", "code", "description", "is_public", "privacy", "watchers",
          "session", "events", "agent", "context", "from", "base_revision", "base_chain", "exclude_patterns", "page", "per_page", "search", "tool",
          "sort", "time_range", "user_id", "project", "parent", "cursor", "limit", "around", "since", "filename", "restore", "q"]

if __name__ == "__main__":
    unittest.main()
