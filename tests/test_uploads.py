"""What may be uploaded, what becomes of it, and what a second upload does."""

import gzip
import hashlib
import json
import threading
import unittest
import urllib.parse

import opensession
from client import Client, ServerCase, hail_file, moment, new_event, new_session

try:
    import daemon
except ImportError:
    daemon = None

HAIL_TYPES = ("application/jsonl", "application/x-ndjson", "text/plain; charset=utf-8")


def event_lines(body):
    """The lines of a HAIL file without header and stats."""
    return body.splitlines(keepends=True)[1:-1]


def chain_of(lines):
    """The content identity of event lines, as the format describes it."""
    chain = bytes(32)
    for line in lines:
        chain = hashlib.sha256(chain + hashlib.sha256(line.rstrip(b"\n")).digest()).digest()
    return chain.hex()


class UploadCase(ServerCase):
    def setUp(self):
        super().setUp()
        self.ada = self.register("ada")

    def send(self, session, **query):
        """Upload a session as HAIL lines."""
        return self.ada.post("/api/sessions?" + urllib.parse.urlencode(query), body=hail_file(session), type="application/jsonl")

    def detail(self, session_id):
        return self.check(self.ada.get(f"/api/sessions/{session_id}"), 200).json

    def raw(self, session_id):
        return self.check(self.ada.get(f"/api/sessions/{session_id}/raw"), 200).body

    def listed(self):
        """The ids in the main list."""
        return [each["id"] for each in self.ada.get("/api/sessions").json["sessions"]]

    def litter(self):
        """Files in the data directory that no row names."""
        named = {row["body"] for row in self.rows("SELECT body FROM sessions")}
        data = self.folder / "data"
        return [path.name for path in [*(data / "tmp").iterdir(), *(data / "bodies").glob("*/*")] if path.name not in named]


class Forms(UploadCase):
    def test_a_session_comes_as_one_json_object(self):
        answer = self.ada.post("/api/sessions", {"session": new_session("s-1"), "team_id": self.ada.team_id})
        self.check(answer, 201)
        self.assertEqual(answer.json["status"], "created")
        self.assertEqual((answer.json["revision"], answer.json["event_count"]), (1, 2))
        self.assertTrue(answer.json["url"].endswith(f"/session/{answer.json['id']}"))

    def test_a_session_comes_as_hail_lines_under_three_content_types(self):
        for number, kind in enumerate(HAIL_TYPES):
            with self.subTest(kind):
                session = new_session(f"s-{number}")
                answer = self.ada.post(f"/api/sessions?team_id={self.ada.team_id}", body=hail_file(session), type=kind)
                self.check(answer, 201)
                self.assertEqual(event_lines(self.raw(answer.json["id"])), event_lines(hail_file(session)))

    def test_each_form_may_be_gzipped(self):
        session = json.dumps({"session": new_session("json")}).encode()
        for kind, body in [("application/json", session), ("application/jsonl", hail_file(new_session("lines")))]:
            with self.subTest(kind):
                answer = self.ada.post("/api/sessions", body=gzip.compress(body), type=kind, headers={"Content-Encoding": "gzip"})
                self.check(answer, 201)
                self.assertEqual(answer.json["event_count"], 2)

    def test_a_gzip_file_of_several_members_is_one_body(self):
        body = hail_file(new_session("s-1"))
        members = gzip.compress(body[:150]) + gzip.compress(b"") + gzip.compress(body[150:])
        answer = self.ada.post("/api/sessions", body=members, type="application/jsonl", headers={"Content-Encoding": "gzip"})
        self.check(answer, 201)

    def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(self):
        body = b"\xef\xbb\xbf" + hail_file(new_session("s-1")).replace(b"\n", b"\r\n")
        answer = self.check(self.ada.post("/api/sessions", body=body, type="text/plain"), 201)
        self.assertEqual(event_lines(self.raw(answer.json["id"])), event_lines(hail_file_like(self, answer)))

    def test_the_last_line_may_lack_its_line_end(self):
        session = new_session("s-1")
        body = b"".join(hail_file(session).splitlines(keepends=True)[:-1]).rstrip(b"\n")
        answer = self.check(self.ada.post("/api/sessions", body=body, type="application/jsonl"), 201)
        self.assertEqual(answer.json["chain"], chain_of(event_lines(hail_file(session))))

    def test_both_forms_are_the_same_session(self):
        session = new_session("s-1")
        first = self.send(session)
        second = self.ada.post("/api/sessions", {"session": session})
        self.assertEqual(first.json["id"], second.json["id"])

    def test_half_a_character_is_stored_as_a_whole_one(self):
        body = hail_file(new_session("s-1", title="broken TITLE", events=[new_event(text="broken TEXT")]))
        body = body.replace(b"TITLE", rb"\ud800").replace(b"TEXT", rb"\udc00 \ud83d\ude00")
        answer = self.check(self.ada.post("/api/sessions", body=body, type="application/jsonl"), 201)
        self.assertEqual(self.detail(answer.json["id"])["title"], "broken \ufffd")
        event = self.ada.get(f"/api/sessions/{answer.json['id']}/events/0").json
        self.assertEqual(event["content"]["blocks"][0]["text"], "broken \ufffd \U0001f600")


def hail_file_like(case, answer):
    """The HAIL file that stands in the server for an upload whose lines we only know by their events."""
    body = case.raw(answer.json["id"])
    case.assertNotIn(b"\r", body)
    case.assertNotIn(b"\xef\xbb\xbf", body)
    return body


CLAUDE = [
    {"type": "user", "uuid": "u1", "parentUuid": None, "sessionId": "5a1e6b1e-0000-4000-8000-000000000001", "version": "2.1.0",
     "cwd": "/home/ada/spoon", "isSidechain": False, "timestamp": "2026-02-11T06:00:00.000Z",
     "message": {"role": "user", "content": "Where is the spoon?"}},
    {"type": "assistant", "uuid": "u2", "parentUuid": "u1", "sessionId": "5a1e6b1e-0000-4000-8000-000000000001", "version": "2.1.0",
     "cwd": "/home/ada/spoon", "isSidechain": False, "timestamp": "2026-02-11T06:00:05.000Z", "requestId": "r1",
     "message": {"id": "m1", "role": "assistant", "model": "claude-opus-4-6", "content": [{"type": "text", "text": "In the drawer."}],
                 "usage": {"input_tokens": 10, "output_tokens": 4}}},
]
TRANSCRIPT = b"".join(json.dumps(record).encode() + b"\n" for record in CLAUDE)
NATIVE = "/api/sessions?filename=5a1e6b1e-0000-4000-8000-000000000001.jsonl"


@unittest.skipUnless(daemon, "daemon.py is not there")
class NativeTranscripts(UploadCase):
    def test_a_tools_own_transcript_is_read(self):
        for headers, body in [({}, TRANSCRIPT), ({"Content-Encoding": "gzip"}, gzip.compress(TRANSCRIPT))]:
            answer = self.ada.post(NATIVE, body=body, type="text/plain", headers=headers)
            self.assertIn(answer.status, (200, 201), answer)
        self.assertEqual(answer.json["status"], "unchanged")
        detail = self.detail(answer.json["id"])
        self.assertEqual((detail["tool"], detail["title"]), ("claude-code", "Where is the spoon?"))
        self.assertEqual(detail["message_count"], 2)

    def test_secrets_of_a_transcript_are_masked_before_it_is_stored(self):
        token = "gh" + "p_" + "R7bT2xQm9LcV4nZs8KdW1yHf6JgP3aEu5MoX"
        body = TRANSCRIPT.replace(b"Where is the spoon?", f"My token is {token}".encode())
        answer = self.check(self.ada.post(NATIVE, body=body, type="text/plain"), 201)
        self.assertNotIn(token.encode(), self.raw(answer.json["id"]))
        stored = b"".join(path.read_bytes() for path in (self.folder / "data").glob("opensession.db*"))
        self.assertNotIn(token.encode(), stored)

    def test_a_file_of_no_tool_is_refused_with_a_sentence(self):
        for body, kind in [(b"once upon a time\n", "text/plain"), (b'{"a": 1}', "application/json"), (b"[1]", "application/json")]:
            with self.subTest(body):
                self.check(self.ada.post("/api/sessions", body=body, type=kind), 415)
        self.assertEqual(self.litter(), [])


class Again(UploadCase):
    def test_the_same_session_again_changes_nothing(self):
        session = new_session("s-1")
        first = self.check(self.send(session), 201)
        before = self.detail(first.json["id"])
        again = self.check(self.send(session), 200)
        self.assertEqual(again.json, {**first.json, "status": "unchanged"})
        self.assertEqual(self.detail(first.json["id"]), before)
        self.assertEqual(self.rows("SELECT value FROM counters WHERE name = 'sync'")[0]["value"], 1)

    def test_other_events_replace_what_is_there_under_the_same_id(self):
        first = self.send(new_session("s-1"))
        changed = new_session("s-1", events=[new_event(text="Where is the fork?")])
        again = self.check(self.send(changed), 200)
        self.assertEqual((again.json["status"], again.json["revision"]), ("updated", 2))
        self.assertEqual(again.json["id"], first.json["id"])
        self.assertEqual(event_lines(self.raw(first.json["id"])), event_lines(hail_file(changed)))
        self.assertEqual(self.litter(), [])

    def test_a_new_title_keeps_the_revision_but_is_pulled(self):
        session = new_session("s-1", title="Spoons")
        first = self.send(session)
        cursor = self.ada.get(f"/api/sync/pull?team_id={self.ada.team_id}").json["next_cursor"]
        session["context"]["title"] = "Forks"
        again = self.check(self.send(session), 200)
        self.assertEqual((again.json["status"], again.json["revision"]), ("updated", 1))
        pulled = self.ada.get(f"/api/sync/pull?team_id={self.ada.team_id}&since={cursor}").json
        self.assertEqual([(each["id"], each["title"]) for each in pulled["sessions"]], [(first.json["id"], "Forks")])

    def test_the_same_id_of_another_tool_or_person_is_another_session(self):
        bob = self.register("bob")
        self.ada.post(f"/api/teams/{self.ada.team_id}/members", {"nickname": "bob"})
        ids = {self.upload(self.ada, new_session("s-1")), self.upload(self.ada, new_session("s-1", tool="codex")),
               self.upload(bob, new_session("s-1"))}
        self.assertEqual(len(ids), 3)

    def test_the_team_of_a_later_upload_does_not_move_the_session(self):
        other = self.new_team(self.ada, "other")
        session = new_session("s-1")
        session_id = self.upload(self.ada, session, self.ada.team_id)
        self.upload(self.ada, session, other)
        self.assertEqual(self.detail(session_id)["team_id"], self.ada.team_id)

    def test_eight_uploads_at_once_make_one_session(self):
        session = new_session("s-1", events=[new_event(text=f"word {number} " * 20, at=number) for number in range(300)])
        answers = at_once([lambda: self.send(session)] * 8)
        self.assertEqual(sorted(answer.status for answer in answers), [200] * 7 + [201])
        self.assertEqual(len({answer.json["id"] for answer in answers}), 1)
        self.assertEqual(len(self.rows("SELECT id FROM sessions")), 1)
        self.assertEqual(event_lines(self.raw(answers[0].json["id"])), event_lines(hail_file(session)))
        self.assertEqual(self.litter(), [])

    def test_eight_different_contents_at_once_leave_one_of_them_whole(self):
        sessions = [new_session("s-1", events=[new_event(text=f"version {number}")] * (number + 1)) for number in range(8)]
        answers = at_once([lambda session=session: self.send(session) for session in sessions])
        self.assertEqual({answer.status for answer in answers}, {200, 201})
        detail = self.detail(answers[0].json["id"])
        self.assertEqual(detail["revision"], 8)
        lines = event_lines(self.raw(detail["id"]))
        self.assertIn(lines, [event_lines(hail_file(session)) for session in sessions])
        self.assertEqual(detail["chain"], chain_of(lines))
        self.assertEqual(self.litter(), [])


def at_once(calls):
    """The results of calls that run in a thread each."""
    results = [None] * len(calls)

    def run(number):
        results[number] = calls[number]()
        opensession.db._connection().close()
    threads = [threading.Thread(target=run, args=[number]) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


class OurOwnNumbers(UploadCase):
    def test_counts_are_computed_from_the_events_and_never_believed(self):
        session = new_session("s-1", events=[
            new_event(text="Do it", attributes={"input_tokens": 100}),
            new_event("ToolCall", data={"name": "look"}, at=1),
            new_event("ToolResult", data={"name": "look", "is_error": True}, at=2),
            new_event("FileEdit", data={"path": "a.py", "diff": "--- a\n+++ b\n-x\n+y\n+z\n"}, at=3),
            new_event("AgentMessage", "Done", at=60, attributes={"output_tokens": 7}, task_id="t-1")])
        session["stats"] = {"event_count": 999, "message_count": -5, "total_input_tokens": 10**9, "duration_seconds": 10**6}
        detail = self.detail(self.send(session).json["id"])
        expected = {"event_count": 5, "message_count": 2, "user_message_count": 1, "task_count": 1, "duration_seconds": 60,
                    "total_input_tokens": 100, "total_output_tokens": 7, "files_changed": 1, "lines_added": 2,
                    "lines_removed": 1, "has_errors": True}
        self.assertEqual({name: detail[name] for name in expected}, expected)
        stats = json.loads(self.raw(detail["id"]).splitlines()[-1])
        self.assertEqual((stats["type"], stats["event_count"], stats["tool_call_count"]), ("stats", 5, 1))

    def test_a_session_without_a_title_is_named_after_its_first_prompt(self):
        untitled = self.detail(self.send(new_session("s-1")).json["id"])
        self.assertEqual(untitled["title"], "Where is the spoon?")
        titled = self.detail(self.send(new_session("s-2", title="Cutlery")).json["id"])
        self.assertEqual(titled["title"], "Cutlery")

    def test_the_last_activity_is_the_time_of_the_last_event(self):
        session = new_session("s-1", events=[new_event(at=0), new_event(at=90)], updated_at=moment(3000))
        self.assertEqual(self.detail(self.send(session).json["id"])["updated_at"], "2026-02-11T06:01:30.000Z")

    def test_a_time_with_an_offset_is_shown_in_utc_and_stored_as_it_came(self):
        event = new_event() | {"timestamp": "2026-02-11T15:00:00.5+09:00"}
        answer = self.send(new_session("s-1", events=[event]))
        self.assertEqual(self.detail(answer.json["id"])["updated_at"], "2026-02-11T06:00:00.500Z")
        self.assertIn(b"15:00:00.5+09:00", self.raw(answer.json["id"]))

    def test_whole_and_grown_sessions_have_the_same_facts(self):
        events = [new_event(text=text, at=number) for number, text in enumerate(["yes", "yes", "no", "yes", "stop"])]
        whole = self.detail(self.send(new_session("whole", events=events)).json["id"])
        grown = self.send(new_session("grown", events=events[:1])).json["id"]
        for event in events[1:]:
            self.check(self.ada.post(f"/api/sessions/{grown}/events", {"events": [event]}), 200)
        own = ("id", "hail_session_id", "uploaded_at", "chain")
        self.assertEqual({name: value for name, value in self.detail(grown).items() if name not in own},
                         {name: value for name, value in whole.items() if name not in own})


class NothingIsLost(UploadCase):
    def test_fields_that_we_do_not_know_travel_along(self):
        session = new_session("s-1", attributes={"x.deep": {"list": [1, 2.5, None]}}, weather="rain")
        session["agent"]["mood"] = "calm"
        session["colour"] = "green"
        session["events"][0] |= {"smell": ["rose"], "ordinal": 77}
        session["events"][0]["content"]["blocks"][0]["font"] = "serif"
        for form in ("lines", "object"):
            answer = self.send(session) if form == "lines" else self.ada.post("/api/sessions", {"session": {**session, "session_id": "s-2"}})
            with self.subTest(form):
                header, event = map(json.loads, self.raw(answer.json["id"]).splitlines()[:2])
                self.assertEqual(header["context"]["weather"], "rain")
                self.assertEqual(header["context"]["attributes"], {"x.deep": {"list": [1, 2.5, None]}})
                self.assertEqual((header["agent"]["mood"], header["colour"]), ("calm", "green"))
                self.assertEqual((event["smell"], event["ordinal"]), (["rose"], 77))
                self.assertEqual(event["content"]["blocks"][0]["font"], "serif")

    def test_event_lines_come_back_byte_for_byte(self):
        lines = [
            b'{ "type" : "event","event_id":"a",  "timestamp":"2026-02-11T06:00:00Z","event_type":{"type":"UserMessage"},'
            b'"content":{"blocks":[{"type":"Text","text":"\\u00e9 \\/ \xed\x95\x9c"}]},"n":1.50,"e":1E2,"twice":1,"twice":2 }\n',
            b'{"content":{"blocks":[]},"event_type":{"data":null,"type":"Thinking"},"timestamp":"2026-02-11T06:00:01+00:00",'
            b'"event_id":"b","type":"event","big":123456789012345678901234567890}\n',
        ]
        header = hail_file(new_session("s-1")).splitlines(keepends=True)[0]
        answer = self.check(self.ada.post("/api/sessions", body=header + b"\n" + b"".join(lines), type="application/jsonl"), 201)
        self.assertEqual(event_lines(self.raw(answer.json["id"])), lines)
        self.assertEqual(answer.json["chain"], chain_of(lines))

    def test_raw_is_a_hail_file_that_uploads_to_the_same_session(self):
        session_id = self.send(new_session("s-1", title="Spoons", attributes={"project": "kitchen"})).json["id"]
        raw = self.raw(session_id)
        header, *_, stats = map(json.loads, raw.splitlines())
        self.assertEqual((header["type"], header["session_id"], stats["type"]), ("header", "s-1", "stats"))
        again = self.check(self.ada.post("/api/sessions", body=raw, type="application/jsonl"), 200)
        self.assertEqual((again.json["id"], again.json["status"]), (session_id, "unchanged"))


class Teams(UploadCase):
    def test_the_only_team_needs_no_name(self):
        answer = self.check(self.ada.post("/api/sessions", {"session": new_session()}), 201)
        self.assertEqual(self.detail(answer.json["id"])["team_id"], self.ada.team_id)

    def test_with_two_teams_one_must_be_named(self):
        other = self.new_team(self.ada, "other")
        answer = self.check(self.ada.post("/api/sessions", {"session": new_session()}), 422)
        self.assertEqual(answer.json["field"], "team_id")
        self.check(self.send(new_session(), team_id=other), 201)

    def test_who_has_no_team_must_name_one(self):
        self.check(self.register("bob").post("/api/sessions", {"session": new_session()}), 422)

    def test_a_foreign_team_and_an_unknown_one_are_refused_alike(self):
        bob = self.register("bob")
        for team_id in (self.ada.team_id, "no-such-team"):
            self.check(bob.post("/api/sessions", {"session": new_session(), "team_id": team_id}), 403, "not a member of this team")
            answer = bob.post(f"/api/sessions?team_id={team_id}", body=hail_file(new_session()), type="text/plain")
            self.check(answer, 403, "not a member of this team")
        self.assertEqual(self.litter(), [])


class Tombstones(UploadCase):
    def test_a_deleted_session_does_not_come_back_by_itself(self):
        session = new_session("s-1")
        session_id = self.send(session).json["id"]
        self.check(self.ada.delete(f"/api/sessions/{session_id}"), 204)
        self.check(self.send(session), 410, "deleted")
        self.check(self.ada.post("/api/sessions", {"session": session}), 410, "deleted")
        for name in (session_id, "s-1"):
            self.assertIn(self.ada.post(f"/api/sessions/{name}/events", {"events": [new_event()]}).status, (404, 410))
        self.assertEqual(self.litter(), [])

    def test_restore_lifts_the_tombstone(self):
        session = new_session("s-1")
        self.check(self.ada.delete(f"/api/sessions/{self.send(session).json['id']}"), 204)
        restored = self.check(self.send(session, restore=1), 201)
        self.assertEqual(self.listed(), [restored.json["id"]])
        self.check(self.send(session), 200)


class Families(UploadCase):
    def child(self, session_id="child", parent="parent", **attributes):
        return new_session(session_id, attributes={"parent_session_id": parent, "session_role": "auxiliary", **attributes})

    def test_a_child_stands_below_its_parent_whoever_comes_first(self):
        for order in [("parent", "child"), ("child", "parent")]:
            with self.subTest(order):
                made = {"parent": new_session("parent"), "child": self.child()}
                ids = {name: self.send(made[name]).json["id"] for name in order}
                self.assertEqual(self.listed(), [ids["parent"]])
                self.assertEqual([each["id"] for each in self.detail(ids["parent"])["children"]], [ids["child"]])
                self.assertEqual(self.detail(ids["child"])["parent"]["id"], ids["parent"])
                below = self.ada.get(f"/api/sessions?parent={ids['parent']}").json["sessions"]
                self.assertEqual([each["id"] for each in below], [ids["child"]])
                self.check(self.ada.delete(f"/api/sessions/{ids['parent']}"), 204)
                self.change("DELETE FROM tombstones")

    def test_a_helper_without_its_parent_is_listed_so_that_it_can_be_found(self):
        orphan = self.send(self.child()).json["id"]
        self.assertEqual(self.listed(), [orphan])
        parent = self.send(new_session("parent")).json["id"]
        self.assertEqual(self.listed(), [parent])

    def test_a_helper_that_grows_stays_below_its_parent(self):
        parent, child = self.send(new_session("parent")).json["id"], self.send(self.child()).json["id"]
        self.check(self.ada.post(f"/api/sessions/{child}/events", {"events": [new_event()]}), 200)
        self.assertEqual(self.listed(), [parent])

    def test_an_auxiliary_session_that_names_no_parent_is_not_listed(self):
        self.send(new_session("probe", attributes={"session_role": "auxiliary"}))
        self.assertEqual(self.listed(), [])

    def test_a_session_that_names_itself_as_parent_is_its_own_master(self):
        session_id = self.send(self.child("child", parent="child", session_role="main")).json["id"]
        self.assertEqual(self.listed(), [session_id])
        self.check(self.ada.delete(f"/api/sessions/{session_id}"), 204)

    def test_two_sessions_that_name_each_other_harm_nobody(self):
        ids = [self.send(self.child("a", parent="b")).json["id"], self.send(self.child("b", parent="a")).json["id"]]
        for session_id in ids:
            self.detail(session_id)
        self.check(self.ada.delete(f"/api/sessions/{ids[0]}"), 204)

    def test_an_empty_session_is_kept_and_pulled_but_not_listed_until_it_grows(self):
        session_id = self.check(self.send(new_session("empty", events=[])), 201).json["id"]
        self.assertEqual(self.listed(), [])
        pulled = self.ada.get(f"/api/sync/pull?team_id={self.ada.team_id}").json["sessions"]
        self.assertEqual([each["id"] for each in pulled], [session_id])
        self.assertEqual(len(self.raw(session_id).splitlines()), 2)
        self.assertEqual(self.ada.get(f"/api/sessions/{session_id}/events").json["events"], [])
        self.check(self.ada.post(f"/api/sessions/{session_id}/events", {"events": [new_event()]}), 200)
        self.assertEqual(self.listed(), [session_id])


class Limits(UploadCase):
    SETTINGS = {"OPENSESSION_MAX_BODY_MB": "1"}

    def test_a_body_over_the_limit_is_refused_plain_or_gzipped(self):
        body = hail_file(new_session("s-1", events=[new_event(text="x" * 300_000) for _ in range(4)]))
        for headers, sent in [({}, body), ({"Content-Encoding": "gzip"}, gzip.compress(body))]:
            answer = self.ada.post("/api/sessions", body=sent, type="application/jsonl", headers=headers)
            self.assertIn("1 MiB", self.check(answer, 413).json["error"])
        self.check(self.ada.post("/api/sessions", body=body[:900_000], type="application/json"), 400)
        self.assertEqual(self.litter(), [])
        self.assertEqual(self.rows("SELECT id FROM sessions"), [])

    def test_too_large_a_json_body_is_told_of_the_other_form(self):
        self.restart()
        body = gzip.compress(b'{"session":"' + b"x" * (65 << 20) + b'"}', 1)
        answer = self.ada.post("/api/sessions", body=body, type="application/json", headers={"Content-Encoding": "gzip"})
        self.assertIn("application/jsonl", self.check(answer, 413).json["error"])

    def test_a_line_that_never_ends_is_refused_before_it_fills_the_memory(self):
        self.restart()
        body = gzip.compress(hail_file(new_session()).splitlines(keepends=True)[0] + b"x" * (66 << 20), 1)
        answer = self.ada.post("/api/sessions", body=body, type="application/jsonl", headers={"Content-Encoding": "gzip"})
        self.assertIn("line", self.check(answer, 413).json["error"])
        self.assertEqual(self.litter(), [])

    def test_a_long_line_among_short_ones_is_stored_as_it_came(self):
        self.restart()
        events = [new_event(text=text) for text in ("short", "a long one " * 900_000, "short again", "another " * 1_000_000)]
        session = hail_file(new_session("s-1", events=events)).replace(b"\n", b"\r\n\n")
        session_id = self.check(self.ada.post("/api/sessions", body=session, type="application/jsonl"), 201).json["id"]
        raw = self.ada.get(f"/api/sessions/{session_id}/raw").body
        self.assertEqual(raw.splitlines()[1:-1], hail_file(new_session("s-1", events=events)).splitlines()[1:-1])

    def test_a_refused_upload_leaves_nothing_behind(self):
        broken = hail_file(new_session("s-1")) + b'{"type":"event"}\n'
        for body in (broken, broken[:-30], b""):
            self.assertGreaterEqual(self.ada.post("/api/sessions", body=body, type="application/jsonl").status, 400)
        self.assertEqual(self.litter(), [])
        self.assertEqual(self.rows("SELECT id FROM sessions"), [])

    def test_a_key_that_may_only_upload_uploads(self):
        key = self.ada.post("/api/keys", {"name": "laptop", "scope": "upload"}).json["api_key"]
        self.check(Client(key).post("/api/sessions", {"session": new_session()}), 201)
