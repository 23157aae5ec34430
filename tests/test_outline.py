"""The outline and the map of a session, windows by time, and what opening a session costs."""

import json
import os
import random
import unittest
import urllib.parse
from datetime import datetime, timezone
from unittest import mock

import daemon
import opensession
from client import ServerCase, hail_file, moment, new_event, new_session
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transcripts import CORPUS

EXAMPLES = int(os.environ.get("OPENSESSION_EXAMPLES", 150)) // 4


class SessionCase(ServerCase):
    def setUp(self):
        super().setUp()
        self.ada = self.register("ada")

    def store(self, events, session_id="s-1"):
        return self.upload(self.ada, new_session(session_id, events))

    def read(self, session_id, what, **query):
        return self.check(self.ada.get(f"/api/sessions/{session_id}/{what}".rstrip("/") + f"?{urllib.parse.urlencode(query)}"), 200).json

    def entries(self, session_id):
        return self.read(session_id, "outline")["entries"]

    def grow(self, session_id, events, start=None):
        body = {"events": events} | ({} if start is None else {"from": start})
        self.check(self.ada.post(f"/api/sessions/{session_id}/events", body), 200)


def edit(path="a.py", **more):
    return new_event("FileEdit", "", data={"path": path}, **more)


def failed(**more):
    return new_event("ToolResult", "no", data={"name": "Bash", "is_error": True}, **more)


class Outline(SessionCase):
    def test_each_prompt_is_an_entry_with_what_happened_until_the_next(self):
        shell = new_event("ShellCommand", "", data={"command": "ls"}, at=15)
        answer = new_event("AgentMessage", "Done", at=40, attributes={"input_tokens": 100, "output_tokens": 7})
        session_id = self.store([new_event(text="Fix  the\nspoon"), edit(at=10), shell, failed(at=20), answer,
                                 new_event(text="Thanks", at=60), new_event("AgentMessage", "Bye", at=63)])
        first, second = self.entries(session_id)
        wanted = {"ordinal": 0, "at": "2026-02-11T06:00:00.000Z", "text": "Fix the spoon", "events": 5, "steps": 2, "edits": 1,
                  "errors": 1, "seconds": 40, "input_tokens": 100, "output_tokens": 7}
        self.assertEqual({name: first[name] for name in wanted}, wanted)
        self.assertEqual((second["ordinal"], second["text"], second["events"], second["seconds"]), (5, "Thanks", 2, 3))
        window = self.read(session_id, "events", around=second["event_id"])
        self.assertEqual(window["found"], 5)

    def test_what_stands_before_the_first_prompt_is_an_entry_without_text(self):
        session_id = self.store([new_event("SystemMessage", "rules"), edit(), new_event(text="Go")])
        before, first = self.entries(session_id)
        self.assertEqual((before["ordinal"], before["event_id"], before["text"], before["edits"]), (0, None, "", 1))
        self.assertEqual((first["ordinal"], first["text"]), (2, "Go"))

    def test_what_a_sub_agent_is_told_is_no_entry(self):
        inside = [new_event(text="look round", task_id="t-1"), edit(task_id="t-1")]
        session_id = self.store([new_event(text="Go"), *inside, new_event("AgentMessage", "ok")])
        entry, = self.entries(session_id)
        self.assertEqual((entry["text"], entry["events"], entry["edits"]), ("Go", 4, 1))

    def test_running_totals_count_what_came_since_the_last_prompt(self):
        total = lambda number: {"input_tokens_total": number * 100, "output_tokens_total": number}
        session_id = self.store([new_event(text="a"), new_event("AgentMessage", "1", attributes=total(1)),
                                 new_event("AgentMessage", "2", attributes=total(3)), new_event(text="b"),
                                 new_event("AgentMessage", "3", attributes=total(4))])
        self.assertEqual([(each["input_tokens"], each["output_tokens"]) for each in self.entries(session_id)], [(300, 3), (100, 1)])

    def test_a_text_is_cut_at_two_hundred_characters(self):
        session_id = self.store([new_event(text="가나 " * 5000)])
        self.assertEqual(self.entries(session_id)[0]["text"], ("가나 " * 100)[:200])

    def test_an_empty_session_has_an_empty_outline(self):
        session_id = self.store([])
        self.assertEqual(self.read(session_id, "outline"), {"entries": [], "total": 0, "revision": 1})
        self.assertEqual(self.read(session_id, "map")["kinds"], "")

    def test_a_very_long_outline_is_cut_and_says_so(self):
        session_id = self.store([new_event(text=str(number)) for number in range(12)])
        longest, opensession.OUTLINE_ENTRIES = opensession.OUTLINE_ENTRIES, 10
        self.addCleanup(setattr, opensession, "OUTLINE_ENTRIES", longest)
        answer = self.read(session_id, "outline")
        self.assertEqual((len(answer["entries"]), answer["is_capped"]), (10, True))

    def test_its_first_turns_are_the_same_whether_asked_for_alone_or_with_all(self):
        session_id = self.store([new_event(kind, text=str(number), at=number) for number in range(30)
                                 for kind in ("UserMessage", "AgentMessage")])
        whole, first = self.read(session_id, "outline"), self.read(session_id, "outline", limit=7)
        self.assertEqual((first["entries"], first["is_capped"]), (whole["entries"][:7], True))
        self.assertNotIn("is_capped", self.read(session_id, "outline", limit=30))
        self.assertEqual(self.ada.get(f"/api/sessions/{session_id}/outline?limit=x").status, 400)

    def test_it_does_not_read_the_body(self):
        session_id = self.store([new_event(text="Go"), edit()])
        path, = (self.folder / "data/bodies").glob("*/*")
        path.unlink()
        self.assertEqual(len(self.entries(session_id)), 1)
        self.assertEqual(self.read(session_id, "map")["total"], 2)

    def test_a_browser_that_has_it_is_told_so(self):
        session_id = self.store([new_event(text="Go")])
        for what in ("outline", "map"):
            url = f"/api/sessions/{session_id}/{what}"
            tag = self.ada.get(url).headers["ETag"]
            self.check(self.ada.get(url, headers={"If-None-Match": tag}), 304)
        self.grow(session_id, [new_event(text="more", at=9)])
        self.check(self.ada.get(url, headers={"If-None-Match": tag}), 200)


class Map(SessionCase):
    def test_it_has_a_character_for_each_event(self):
        events = [new_event(), edit(), failed(), new_event(task_id="t"), failed(task_id="t")]
        found = self.read(self.store(events), "map")
        kinds = [found["names"][ord(character) - ord("A")] for character in found["kinds"]]
        self.assertEqual(kinds, ["UserMessage", "FileEdit", "ToolResult", "UserMessage", "ToolResult"])
        self.assertEqual(found["flags"], "00123")
        self.assertEqual(len(found["names"]), 21)

    def test_compactions_and_interruptions_are_marked_so_that_they_show_where_they_are_folded(self):
        custom = [new_event("Custom", "", data={"kind": kind}) for kind in ("compaction", "interrupt", "hook")]
        self.assertEqual(self.read(self.store([new_event(), *custom]), "map")["flags"], "0440")


class StepKinds(SessionCase):
    def listed(self):
        session, = self.ada.get("/api/sessions").json["sessions"]
        return session["step_kinds"]

    def test_a_session_says_how_many_steps_of_each_kind_it_has(self):
        data = {"FileRead": {"path": "a"}, "FileCreate": {"path": "b"}, "FileDelete": {"path": "c"}, "ShellCommand": {"command": "ls"},
                "CodeSearch": {"query": "x"}, "FileSearch": {"pattern": "*"}, "WebSearch": {"query": "y"}, "WebFetch": {"url": "z"},
                "TaskStart": {"title": "t"}, "ToolCall": {"name": "MCP"}, "ToolResult": {"name": "MCP"}, "Custom": {"kind": "hook"}}
        session_id = self.store([new_event(), edit(), edit()] + [new_event(kind, "", data=given) for kind, given in data.items()])
        self.assertEqual(self.listed(), {"read": 1, "edit": 4, "shell": 1, "search": 2, "web": 2, "agent": 1, "other": 1})
        self.assertEqual(self.check(self.ada.get(f"/api/sessions/{session_id}"), 200).json["step_kinds"], self.listed())

    def test_without_steps_there_are_none(self):
        self.store([new_event()])
        self.assertEqual(self.listed(), {})

    def test_they_follow_growth_replacement_and_a_new_upload(self):
        session_id = self.store([new_event(), edit()])
        self.grow(session_id, [edit(), new_event("FileRead", "", data={"path": "a"})])
        self.assertEqual(self.listed(), {"read": 1, "edit": 2})
        self.grow(session_id, [new_event("WebFetch", "", data={"url": "u"})], start=2)
        self.assertEqual(self.listed(), {"edit": 1, "web": 1})
        self.store([new_event(), edit(), edit(), edit()])
        self.assertEqual(self.listed(), {"edit": 3})


class ActiveTime(SessionCase):
    """Seconds in which something went on: pauses of more than five minutes are none."""

    def active(self, session_id):
        listed = {each["id"]: each["active_seconds"] for each in self.ada.get("/api/sessions").json["sessions"]}
        self.assertEqual(self.read(session_id, "")["active_seconds"], listed[session_id])
        return listed[session_id]

    def at(self, *times, session_id="s-1"):
        return self.store([new_event(at=at) for at in times], session_id)

    def test_long_pauses_do_not_count_short_ones_do(self):
        session_id = self.at(0, 10, 310, 611, 621)
        self.assertEqual((self.active(session_id), self.read(session_id, "")["duration_seconds"]), (320, 621))

    def test_one_event_takes_no_time(self):
        self.assertEqual([self.active(self.at(*times, session_id=str(len(times)))) for times in ([0], [0, 900])], [0, 0])

    def test_sub_agents_that_worked_side_by_side_count_once(self):
        self.assertEqual(self.active(self.at(0, 100, 200, 300, 110, 210, 290, 310)), 310)

    def test_what_went_on_in_a_pause_counts_wherever_it_stands(self):
        self.assertEqual(self.active(self.at(0, 900, 200, 400)), 400)

    def test_it_follows_growth_replacement_and_a_new_upload(self):
        session_id = self.at(0, 100)
        self.grow(session_id, [new_event(at=390), new_event(at=1000)])
        self.assertEqual(self.active(session_id), 390)
        self.grow(session_id, [new_event(at=1100)])
        self.assertEqual(self.active(session_id), 490)
        self.grow(session_id, [new_event(at=650)], start=3)
        self.assertEqual(self.active(session_id), 650)
        self.assertEqual(self.active(self.at(0, 7)), 7)

    def test_a_session_of_more_stretches_than_are_kept_grows_all_the_same(self):
        kept, opensession.STRETCHES_KEPT = opensession.STRETCHES_KEPT, 3
        self.addCleanup(setattr, opensession, "STRETCHES_KEPT", kept)
        times = [start + more for start in range(0, 20_000, 1000) for more in (0, 5)]
        session_id = self.at(*times[:30])
        self.grow(session_id, [new_event(at=at) for at in times[30:]])
        self.assertEqual(self.active(session_id), 100)


def active_seconds(events):
    """The plainest way: every second that lies in a short pause between two events."""
    times = sorted(datetime.fromisoformat(event["timestamp"]).timestamp() for event in events)
    return int(sum(round(later - time, 3) for time, later in zip(times, times[1:]) if later - time <= 300.0001))


@unittest.skipUnless(CORPUS.is_dir(), f"no corpus of real transcripts in {CORPUS}")
class ActiveTimeOfRealSessions(SessionCase):
    def test_it_is_what_adding_up_short_pauses_gives_however_the_session_came(self):
        found = [list(session.events) for tool in ("claude-code", "codex", "gemini") for source in daemon.TOOLS[tool].sources(CORPUS / tool)
                 for session in daemon.TOOLS[tool].parse(source)]
        self.assertGreater(len(found), 20)
        for number, events in enumerate(found[::4]):
            with self.subTest(number):
                half = len(events) // 2
                session_id = self.store(events[:half], f"s-{number}")
                self.grow(session_id, events[half:] or [new_event()])
                self.assertAlmostEqual(self.read(session_id, "")["active_seconds"], active_seconds(events or [new_event()]), delta=1)


# Sessions of any shape: which event, how large, whether a sub-agent's, what it cost, when.
EVENTS = st.lists(st.tuples(st.sampled_from(["prompt", "edit", "error", "reply"]), st.sampled_from([2, 50_000, 200_000]),
                            st.booleans(), st.integers(0, 9), st.sampled_from([0, 7, 299, 300, 301, 2000, 2100])), max_size=12)


def made(shape, first=0):
    """Events for a shape; texts do not compress, so that blocks fill up."""
    events = []
    for number, (kind, size, inside, tokens, at) in enumerate(shape, first):
        more = {"at": at + number, "attributes": {"input_tokens": tokens}} | ({"task_id": "t"} if inside else {})
        text = random.Random(number).randbytes(size // 2).hex()
        events.append({"prompt": lambda: new_event(text=text, **more), "reply": lambda: new_event("AgentMessage", text, **more),
                       "edit": lambda: edit(**more), "error": lambda: failed(**more)}[kind]())
    return events


def outline_of(events):
    """The outline as its description says, counted in the plainest way."""
    entries = []
    for ordinal, event in enumerate(events):
        kind = event["event_type"]["type"]
        is_prompt = kind == "UserMessage" and not event.get("task_id")
        if is_prompt or not entries:
            entries.append([ordinal, event["content"]["blocks"][0]["text"][:200] if is_prompt else "", 0, 0, 0, 0])
        entries[-1][2] += 1
        entries[-1][3] += kind == "FileEdit"
        entries[-1][4] += kind == "ToolResult"
        entries[-1][5] += event["attributes"]["input_tokens"]
    return entries


class HoweverItGrew(SessionCase):
    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(EVENTS, EVENTS, EVENTS, st.floats(0, 1))
    def test_outline_and_map_are_those_of_the_events(self, first, second, third, place):
        session_id = self.store(made(first), f"s-{random.random()}")
        events = made(first)
        if second:
            events += made(second, len(events))
            self.grow(session_id, events[len(first):])
        start = int(place * len(events))
        events[start:] = made(third, start)
        self.grow(session_id, events[start:], start)
        found = [[each[name] for name in ("ordinal", "text", "events", "edits", "errors", "input_tokens")]
                 for each in self.entries(session_id)]
        self.assertEqual(found, outline_of(events))
        found = self.read(session_id, "map")
        self.assertEqual([found["names"][ord(each) - 65] for each in found["kinds"]], [each["event_type"]["type"] for each in events])
        edits = sum(each["event_type"]["type"] == "FileEdit" for each in events)
        session = self.read(session_id, "")
        self.assertEqual((session["step_kinds"], session["active_seconds"]), ({"edit": edits} if edits else {}, active_seconds(events)))


class WindowsByTime(SessionCase):
    def setUp(self):
        super().setUp()
        self.session_id = self.store([new_event(text="x" * 50_000, at=number * 10) for number in range(40)])

    def test_a_window_opens_at_the_first_event_at_or_after_a_time(self):
        for at, found in [(moment(0), 0), (moment(100), 10), (moment(101), 11), ("2026-02-11T15:05:00+09:00", 30),
                          ("2020-01-01T00:00:00Z", 0), ("2030-01-01T00:00:00Z", 39)]:
            window = self.read(self.session_id, "events", at=at, limit=6)
            self.assertEqual(window["found"], found, at)
            self.assertIn(found, [event["ordinal"] for event in window["events"]])

    def test_a_time_that_is_none_is_400(self):
        for at in ("now", "2026-02-11", "2026-02-11T06:00:00", "0"):
            self.assertEqual(self.check(self.ada.get(f"/api/sessions/{self.session_id}/events?at={at}"), 400).json["field"], "at")

    def test_an_empty_session_opens_at_any_time(self):
        self.assertEqual(self.read(self.store([], "empty"), "events", at=moment(0))["events"], [])


class Work(SessionCase):
    """How much is read and written, in numbers that do not depend on the machine."""

    def test_a_window_reads_at_most_four_blocks_wherever_it_is_and_however_long_the_session(self):
        lines = hail_file(new_session("long", [])).splitlines(keepends=True)[:1]
        lines += [json.dumps({"type": "event", **new_event(text="word " * 8000, at=number)}).encode() + b"\n" for number in range(400)]
        session_id = self.ada.post("/api/sessions", body=b"".join(lines), type="application/jsonl").json["id"]
        self.assertGreater(self.rows("SELECT count(*) AS n FROM blocks")[0]["n"], 50)
        for query in ({"from": 0}, {"from": 390}, {"from": 200, "limit": 500}, {"at": moment(300)}, {"at": moment(399), "limit": 500}):
            with mock.patch.object(opensession, "inflate_block", wraps=opensession.inflate_block) as inflate:
                self.assertTrue(self.read(session_id, "events", **query)["events"])
            self.assertLessEqual(inflate.call_count, opensession.WINDOW_BLOCKS)

    def test_the_same_upload_again_writes_nothing(self):
        session = new_session("s-1")
        self.upload(self.ada, session)
        before = opensession.db._connection().total_changes
        self.upload(self.ada, session)
        self.assertEqual(opensession.db._connection().total_changes, before)

    def test_growing_touches_the_last_block_only(self):
        session_id = self.store([new_event(text=random.Random(number).randbytes(30_000).hex(), at=number) for number in range(30)])
        self.grow(session_id, [new_event(at=40)])
        before = self.rows("SELECT * FROM blocks ORDER BY first_ordinal")
        self.grow(session_id, [new_event(at=41)])
        after = self.rows("SELECT * FROM blocks ORDER BY first_ordinal")
        self.assertGreater(len(before), 5)
        self.assertEqual(before[:-1], after[:len(before) - 1])

    def test_times_in_the_marks_are_those_of_the_events(self):
        self.store([new_event(at=number) for number in range(3)])
        marks = self.rows("SELECT marks FROM blocks")[0]["marks"]
        start = datetime(2026, 2, 11, 6, tzinfo=timezone.utc).timestamp() * 1000
        self.assertEqual([at for _, _, at, _, _ in opensession.MARK.iter_unpack(marks)], [start, start + 1000, start + 2000])
