"""Windows of events, whole events and raw files; how sessions grow and are replaced from somewhere on."""

import functools
import gzip
import hashlib
import io
import itertools
import json
import os
import random
import threading
import urllib.parse
import zlib

import opensession
from client import ServerCase, hail_file, moment, new_event, new_session
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("OPENSESSION_EXAMPLES", 150)) // 8     # each is a session with a life of its own


def chain_of(lines):
    """The content identity of event lines, as the format describes it."""
    return functools.reduce(lambda chain, line: hashlib.sha256(chain + hashlib.sha256(line.rstrip(b"\n")).digest()).digest(),
                            lines, bytes(32)).hex()


def numbered(count, size=20, first=0):
    """Events e0, e1, … of `size` characters that do not compress well."""
    return [new_event(text=noise(number, size), at=number) | {"event_id": f"e{number}"} for number in range(first, first + count)]


def noise(seed, size):
    return f"{seed} " + random.Random(seed).randbytes(size // 2).hex()


def lines_of(events):
    """Event lines as a client writes them."""
    return [json.dumps({"type": "event", **event}).encode() + b"\n" for event in events]


class EventCase(ServerCase):
    def setUp(self):
        super().setUp()
        self.ada = self.register("ada")

    def store(self, events, session_id="s-1", **context):
        """The id of an uploaded session with these events."""
        session = new_session(session_id, events=[], **context)
        return self.put_lines(hail_file(session).splitlines(keepends=True)[:1] + lines_of(events))

    def put_lines(self, lines):
        answer = self.ada.post("/api/sessions", body=b"".join(lines), type="application/jsonl")
        self.assertIn(answer.status, (200, 201), answer)
        return answer.json["id"]

    def window(self, session_id, **query):
        return self.check(self.ada.get(f"/api/sessions/{session_id}/events?{urllib.parse.urlencode(query)}"), 200).json

    def grow(self, session_id, lines, **query):
        """Send event lines behind (or with `from`, in the place of) what is there."""
        return self.ada.post(f"/api/sessions/{session_id}/events?{urllib.parse.urlencode(query)}",
                             body=b"".join(lines), type="application/jsonl")

    def raw_lines(self, session_id):
        return self.check(self.ada.get(f"/api/sessions/{session_id}/raw"), 200).body.splitlines(keepends=True)[1:-1]

    def facts(self, session_id):
        detail = self.ada.get(f"/api/sessions/{session_id}").json
        return detail["revision"], detail["event_count"], detail["chain"]

    def blocks(self):
        return self.rows("SELECT first_ordinal, event_count, raw_bytes, file_bytes FROM blocks ORDER BY session_id, first_ordinal")

    def body_file(self):
        path, = (self.folder / "data/bodies").glob("*/*")
        return path


class Windows(EventCase):
    def test_a_window_begins_and_ends_where_it_is_told(self):
        session_id = self.store(numbered(50))
        window = self.window(session_id, **{"from": 20, "limit": 10})
        self.assertEqual([event["ordinal"] for event in window["events"]], list(range(20, 30)))
        self.assertEqual([event["event_id"] for event in window["events"]], [f"e{number}" for number in range(20, 30)])
        self.assertEqual({name: window[name] for name in ("from", "total", "next", "previous", "revision")},
                         {"from": 20, "total": 50, "next": 30, "previous": 10, "revision": 1})

    def test_the_ends_of_a_session_have_no_neighbours(self):
        session_id = self.store(numbered(50))
        first, last = self.window(session_id, limit=10), self.window(session_id, **{"from": 45, "limit": 10})
        self.assertEqual((first["previous"], first["next"]), (None, 10))
        self.assertEqual((last["previous"], last["next"], len(last["events"])), (35, None, 5))
        self.assertEqual(self.window(session_id)["next"], None)
        behind = self.window(session_id, **{"from": 1000})
        self.assertEqual((behind["events"], behind["from"], behind["next"], behind["total"]), ([], 50, None, 50))

    def test_following_next_reads_everything_once(self):
        for size, limit in [(20, 7), (100_000, 500)]:
            with self.subTest(size=size):
                session_id = self.store(numbered(40, size), f"s-{size}")
                seen, start = [], 0
                while start is not None:
                    window = self.window(session_id, **{"from": start, "limit": limit})
                    seen += [event["ordinal"] for event in window["events"]]
                    start = window["next"]
                self.assertEqual(seen, list(range(40)))

    def test_following_previous_reads_everything_backwards(self):
        for size, limit in [(20, 7), (100_000, 500)]:
            with self.subTest(size=size):
                session_id = self.store(numbered(40, size), f"s-{size}")
                seen, window = [], self.window(session_id, **{"from": 39, "limit": limit})
                while True:
                    ordinals = [event["ordinal"] for event in window["events"]]
                    seen = [ordinal for ordinal in ordinals if ordinal not in seen] + seen
                    if window["previous"] is None:
                        break
                    window = self.window(session_id, **{"from": window["previous"], "limit": limit})
                self.assertEqual(seen, list(range(40)))

    def test_a_limit_out_of_range_is_moved_into_it(self):
        session_id = self.store(numbered(600, 2))
        for limit, count in [(0, 1), (-5, 1), (10**9, 500), ("", None), ("ten", None), ("1e3", None)]:
            answer = self.ada.get(f"/api/sessions/{session_id}/events?limit={limit}")
            self.assertEqual(answer.status, 200 if count else 400, limit)
            if count:
                self.assertEqual(len(answer.json["events"]), count)
        self.assertEqual(len(self.window(session_id)["events"]), 200)

    def test_an_event_is_found_by_its_id_and_stands_in_the_middle(self):
        session_id = self.store(numbered(60, 20_000))
        window = self.window(session_id, around="e30", limit=10)
        self.assertEqual((window["found"], window["from"]), (30, 25))
        self.assertIn("e30", [event["event_id"] for event in window["events"]])
        self.assertEqual(self.window(session_id, around="e0")["found"], 0)
        self.assertEqual(self.window(session_id, around="e59")["found"], 59)
        missing = self.ada.get(f"/api/sessions/{session_id}/events?around=nobody")
        self.assertEqual(self.check(missing, 404).json["field"], "around")

    def test_a_found_event_is_in_its_window_even_where_the_events_before_it_are_large(self):
        session_id = self.store(numbered(40, 200_000))
        window = self.window(session_id, around="e30", limit=40)
        self.assertIn("e30", [event["event_id"] for event in window["events"]])

    def test_an_event_id_with_strange_characters_is_found(self):
        names = ["a/b?c=d&e", "한글", " ", "\0", "x" * 3000]
        session_id = self.store([new_event() | {"event_id": name} for name in names])
        for number, name in enumerate(names):
            if name != "\0":
                self.assertEqual(self.window(session_id, around=name)["found"], number)

    def test_ids_that_were_made_to_look_alike_are_told_apart(self):
        sums = {}
        for name in (hashlib.sha256(b"%d" % number).hexdigest() for number in itertools.count()):
            pair = sums.setdefault(zlib.crc32(name.encode()), name), name
            if pair[0] != name:
                break
        session_id = self.store([new_event() | {"event_id": name} for name in ("first", *pair)])
        self.assertEqual([self.window(session_id, around=name)["found"] for name in pair], [1, 2])
        only_one = self.store([new_event() | {"event_id": pair[0]}] * 3)
        self.check(self.ada.get(f"/api/sessions/{only_one}/events?around={pair[1]}"), 404)

    def test_a_window_reads_at_most_four_blocks(self):
        session_id = self.store(numbered(40, 150_000))
        per_block = [block["event_count"] for block in self.blocks()]
        self.assertGreater(len(per_block), 8)
        for start in (0, per_block[0], 10, 20):
            window = self.window(session_id, **{"from": start, "limit": 500})
            within = [number for number in range(len(per_block)) if sum(per_block[:number + 1]) > start][:4]
            self.assertEqual(len(window["events"]), sum(per_block[:within[-1] + 1]) - start)

    def test_a_long_text_is_cut_and_says_so(self):
        text = "x" * 70_000
        event = new_event(text=text)
        event["content"]["blocks"] += [{"type": "Code", "code": text, "language": "py"}, {"type": "Json", "data": [text]},
                                       {"type": "Text", "text": "short"}]
        session_id = self.store([event])
        long, code, data, short = self.window(session_id)["events"][0]["content"]["blocks"]
        self.assertEqual((len(long["text"]), long["truncated"], long["full_size"]), (65536, True, 70_000))
        self.assertEqual((len(code["code"]), code["truncated"], code["language"]), (65536, True, "py"))
        self.assertTrue(data["truncated"])
        self.assertNotIn("truncated", short)

    def test_a_long_command_or_diff_is_cut_too(self):
        edit = new_event("FileEdit", data={"path": "a", "diff": "+x\n" * 50_000})
        data = self.window(self.store([edit]))["events"][0]["event_type"]["data"]
        self.assertEqual((len(data["diff"]), data["truncated"], data["path"]), (65536, True, "a"))

    def test_a_large_picture_is_left_out_and_a_small_one_is_there(self):
        large, small = ("data:image/png;base64," + "A" * size for size in (300_000, 200_000))
        event = new_event(text=None)
        event["content"]["blocks"] = [{"type": "Image", "url": url, "mime": "image/png"} for url in (large, small)]
        first, second = self.window(self.store([event]))["events"][0]["content"]["blocks"]
        self.assertEqual((first["url"], first["truncated"], first["full_size"]), ("", True, len(large)))
        self.assertEqual(second["url"], small)

    def test_one_event_is_given_whole(self):
        events = numbered(3) + [new_event(text="x" * 500_000)]
        session_id = self.store(events)
        answer = self.check(self.ada.get(f"/api/sessions/{session_id}/events/3"), 200)
        self.assertEqual(answer.json, {"type": "event", **events[3], "ordinal": 3})
        for ordinal in (4, -1, 10**30):
            self.check(self.ada.get(f"/api/sessions/{session_id}/events/{ordinal}"), 404)

    def test_the_ordinal_is_ours_whatever_an_event_says(self):
        session_id = self.store([new_event(ordinal=99), new_event(ordinal=98)])
        self.assertEqual([event["ordinal"] for event in self.window(session_id)["events"]], [0, 1])
        self.assertEqual(self.ada.get(f"/api/sessions/{session_id}/events/1").json["ordinal"], 1)


class Growing(EventCase):
    def test_the_originals_append_in_json_works(self):
        session_id = self.store(numbered(2))
        answer = self.check(self.ada.post(f"/api/sessions/{session_id}/events", {
            "events": numbered(2, first=2), "team_id": self.ada.team_id,
            "agent": {"provider": "anthropic", "model": "claude-sonnet-9", "tool": "claude-code"},
            "context": {"title": "Grown", "tags": ["a"], "created_at": moment(0), "updated_at": moment(9)}}), 200)
        self.assertEqual((answer.json["accepted"], answer.json["id"], answer.json["event_count"]), (2, session_id, 4))
        detail = self.ada.get(f"/api/sessions/{session_id}").json
        self.assertEqual((detail["title"], detail["agent_model"], detail["message_count"]), ("Grown", "claude-sonnet-9", 4))

    def test_events_grow_by_lines_with_or_without_a_header_plain_or_gzipped(self):
        events = numbered(4)
        session_id = self.store(events[:1])
        header = hail_file(new_session("s-1", events=[], title="Newer")).splitlines(keepends=True)[0]
        self.check(self.grow(session_id, lines_of(events[1:2])), 200)
        self.check(self.grow(session_id, [header, *lines_of(events[2:3])]), 200)
        answer = self.ada.post(f"/api/sessions/{session_id}/events", body=gzip.compress(b"".join(lines_of(events[3:]))),
                               type="application/x-ndjson", headers={"Content-Encoding": "gzip"})
        self.check(answer, 200)
        self.assertEqual(self.raw_lines(session_id), lines_of(events))
        self.assertEqual(answer.json["chain"], chain_of(lines_of(events)))
        self.assertEqual(self.ada.get(f"/api/sessions/{session_id}").json["title"], "Newer")

    def test_growing_keeps_the_revision_and_is_pulled(self):
        session_id = self.store(numbered(2))
        cursor = self.ada.get(f"/api/sync/pull?team_id={self.ada.team_id}").json["next_cursor"]
        self.assertEqual(self.check(self.grow(session_id, lines_of(numbered(1, first=2))), 200).json["revision"], 1)
        pulled = self.ada.get(f"/api/sync/pull?team_id={self.ada.team_id}&since={cursor}").json["sessions"]
        self.assertEqual([(each["id"], each["event_count"]) for each in pulled], [(session_id, 3)])

    def test_a_session_is_found_by_the_tools_own_id_too(self):
        session_id = self.store(numbered(1), "by-its-tool")
        answer = self.check(self.grow("by-its-tool", lines_of(numbered(1, first=1))), 200)
        self.assertEqual(answer.json["id"], session_id)
        self.check(self.grow("nobody", lines_of(numbered(1))), 404)

    def test_the_whole_session_again_after_growing_is_unchanged(self):
        events = numbered(5)
        session_id = self.store(events[:2])
        self.grow(session_id, lines_of(events[2:]))
        self.assertEqual(self.store(events), session_id)
        self.assertEqual(self.facts(session_id), (1, 5, chain_of(lines_of(events))))

    def test_small_pieces_become_one_block_until_it_is_full(self):
        events = numbered(60, 10_000)
        session_id = self.store(events[:1])
        for event in events[1:]:
            self.check(self.grow(session_id, lines_of([event])), 200)
        blocks = self.blocks()
        self.assertLessEqual(len(blocks), 4)
        self.assertTrue(all(block["raw_bytes"] <= 256 << 10 for block in blocks))
        self.assertEqual(sum(block["event_count"] for block in blocks), 60)
        self.assertEqual(self.raw_lines(session_id), lines_of(events))
        window = self.window(session_id, **{"from": 20, "limit": 30})
        self.assertEqual([event["event_id"] for event in window["events"]], [f"e{number}" for number in range(20, 50)])

    def test_nothing_to_append_is_no_error(self):
        session_id = self.store(numbered(2))
        for answer in (self.grow(session_id, []), self.ada.post(f"/api/sessions/{session_id}/events", {"events": []})):
            self.assertEqual((self.check(answer, 200).json["accepted"], answer.json["event_count"]), (0, 2))

    def test_garbage_behind_the_committed_end_is_never_read_and_is_cut(self):
        events = numbered(4)
        session_id = self.store(events[:2])
        with open(self.body_file(), "ab") as file:
            file.write(b"half an append that was never committed" * 100)
        self.assertEqual(self.raw_lines(session_id), lines_of(events[:2]))
        self.assertEqual(len(self.window(session_id)["events"]), 2)
        self.check(self.grow(session_id, lines_of(events[2:])), 200)
        self.assertEqual(self.raw_lines(session_id), lines_of(events))
        self.assertNotIn(b"never committed", self.body_file().read_bytes())

    def test_bytes_that_are_committed_never_change_when_a_session_grows(self):
        session_id = self.store(numbered(3, 1000))
        before = self.body_file().read_bytes()
        self.grow(session_id, lines_of(numbered(3, 1000, first=3)))
        self.assertTrue(self.body_file().read_bytes().startswith(before))

    def test_the_body_file_is_one_gzip_stream_that_lacks_its_end(self):
        events = numbered(30, 30_000)
        session_id = self.store(events[:20])
        self.grow(session_id, lines_of(events[20:]))
        plain = opensession.zlib.decompressobj(31).decompress(self.body_file().read_bytes())
        self.assertEqual(plain, b"".join(lines_of(events)))

    def test_a_bad_event_in_the_middle_changes_nothing(self):
        events = numbered(3)
        session_id = self.store(events)
        before = self.facts(session_id)
        for start in (None, 1):
            query = {} if start is None else {"from": start}
            self.check(self.grow(session_id, [*lines_of(numbered(2)), b'{"type":"event"}\n'], **query), 422)
        self.assertEqual(self.facts(session_id), before)
        self.assertEqual(self.raw_lines(session_id), lines_of(events))

    def test_eight_appends_at_once_are_all_there(self):
        session_id = self.store([])
        threads = [threading.Thread(target=self.append_and_close, args=[session_id, number]) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        ids = sorted(json.loads(line)["event_id"] for line in self.raw_lines(session_id))
        self.assertEqual(ids, sorted(f"e{number}" for number in range(24)))
        self.assertEqual(self.facts(session_id)[1:], (24, chain_of(self.raw_lines(session_id))))

    def append_and_close(self, session_id, number):
        for part in range(3):
            self.grow(session_id, lines_of(numbered(1, first=number * 3 + part)))
        opensession.db._connection().close()

    def test_only_the_uploader_adds_to_a_session(self):
        session_id = self.store(numbered(1))
        bob, eve = self.register("bob"), self.register("eve")
        self.ada.post(f"/api/teams/{self.ada.team_id}/members", {"nickname": "bob"})
        self.check(bob.post(f"/api/sessions/{session_id}/events", {"events": []}), 403)
        self.check(eve.post(f"/api/sessions/{session_id}/events", {"events": []}), 404)

    def test_another_tool_cannot_take_a_session_over(self):
        session_id = self.store(numbered(1))
        answer = self.ada.post(f"/api/sessions/{session_id}/events", {"events": [], "agent": {"provider": "x", "tool": "codex"}})
        self.assertEqual(self.check(answer, 422).json["field"], "agent.tool")


class Replacing(EventCase):
    def test_events_are_replaced_from_any_place_on(self):
        for size in (20, 100_000):
            events, new = numbered(12, size), numbered(3, size, first=100)
            for start in (0, 1, 5, 11):
                with self.subTest(size=size, start=start):
                    session_id = self.store(events, f"s-{size}-{start}")
                    answer = self.check(self.grow(session_id, lines_of(new), **{"from": start}), 200)
                    expected = lines_of(events[:start] + new)
                    self.assertEqual(answer.json, {"accepted": 3, "id": session_id, "revision": 2,
                                                   "event_count": start + 3, "chain": chain_of(expected)})
                    self.assertEqual(self.raw_lines(session_id), expected)
                    window = self.window(session_id, **{"from": start})
                    self.assertEqual(window["events"][0]["event_id"], "e100")

    def test_replacing_from_the_end_is_growing(self):
        session_id = self.store(numbered(3))
        answer = self.check(self.grow(session_id, lines_of(numbered(1, first=3)), **{"from": 3}), 200)
        self.assertEqual((answer.json["revision"], answer.json["event_count"]), (1, 4))

    def test_replacing_by_nothing_cuts_the_end_off(self):
        session_id = self.store(numbered(5))
        self.assertEqual(self.check(self.grow(session_id, [], **{"from": 2}), 200).json["event_count"], 2)
        self.assertEqual(self.raw_lines(session_id), lines_of(numbered(5)[:2]))
        self.check(self.grow(session_id, [], **{"from": 0}), 200)
        self.assertEqual(self.raw_lines(session_id), [])
        self.check(self.grow(session_id, lines_of(numbered(1))), 200)

    def test_the_counts_follow(self):
        session_id = self.store([new_event(attributes={"input_tokens": 5}), new_event("FileEdit", data={"path": "a"}, at=9)])
        self.grow(session_id, lines_of([new_event("AgentMessage", at=60, attributes={"output_tokens": 3})]), **{"from": 1})
        detail = self.ada.get(f"/api/sessions/{session_id}").json
        self.assertEqual([detail[name] for name in ("files_changed", "message_count", "duration_seconds", "total_output_tokens")],
                         [0, 2, 60, 3])

    def test_the_old_body_goes(self):
        session_id = self.store(numbered(9))
        self.grow(session_id, lines_of(numbered(2)), **{"from": 4})
        self.assertEqual(self.body_file().name, self.rows("SELECT body FROM sessions")[0]["body"])

    def test_a_base_that_does_not_match_is_told_what_is_here(self):
        events = numbered(6)
        session_id = self.store(events)
        here = {"revision": 1, "event_count": 6, "chain": chain_of(lines_of(events))}
        new = lines_of(numbered(1, first=6))
        for query in ({"from": 7}, {"base_revision": 2}, {"from": 6, "base_chain": "00" * 32}, {"from": 3, "base_chain": here["chain"]},
                      {"base_chain": chain_of(lines_of(events[:5]))}, {"from": 0, "base_chain": here["chain"]}):
            with self.subTest(query):
                answer = self.check(self.grow(session_id, new, **query), 409)
                self.assertEqual({name: answer.json[name] for name in here}, here)
                in_json = self.ada.post(f"/api/sessions/{session_id}/events", {"events": [], **query})
                self.check(in_json, 409)
        self.assertEqual(self.raw_lines(session_id), lines_of(events))

    def test_a_base_that_matches_is_accepted(self):
        events = numbered(6, 100_000)
        session_id = self.store(events)
        self.check(self.grow(session_id, lines_of(events[3:4]), base_revision=1, base_chain=chain_of(lines_of(events[:3])), **{"from": 3}), 200)
        self.check(self.grow(session_id, lines_of(events[4:]), base_revision=2, base_chain=chain_of(lines_of(events[:4]))), 200)
        self.check(self.grow(session_id, lines_of(events), base_chain="00" * 32, **{"from": 0}), 200)
        self.assertEqual(self.raw_lines(session_id), lines_of(events))

    def test_a_place_that_is_no_place_is_refused(self):
        session_id = self.store(numbered(1))
        self.check(self.grow(session_id, [], **{"from": "-1"}), 422)
        self.check(self.grow(session_id, [], **{"from": "x"}), 400)
        for value in (-1, 1.5, "1", 2**70, True, []):
            self.check(self.ada.post(f"/api/sessions/{session_id}/events", {"events": [], "from": value}), 422)

    def test_readers_never_notice_a_replacement(self):
        short, long = numbered(3, 2000), numbered(20, 20_000, first=50)
        session_id = self.store(short)
        versions = {chain_of(lines_of(short)), chain_of(lines_of(long))}
        failures, done = [], threading.Event()

        def read():
            while not done.is_set():
                raw = self.ada.get(f"/api/sessions/{session_id}/raw")
                if raw.status != 200 or chain_of(raw.body.splitlines(keepends=True)[1:-1]) not in versions:
                    failures.append(raw)
                for path in ("events", "events?around=e1", "events/0", "events/2"):
                    answer = self.ada.get(f"/api/sessions/{session_id}/{path}")
                    if answer.status not in ((200, 404) if "around" in path else (200,)):
                        failures.append(answer)
            opensession.db._connection().close()
        readers = [threading.Thread(target=read) for _ in range(3)]
        for reader in readers:
            reader.start()
        for number in range(12):
            self.store([long, short][number % 2])
        done.set()
        for reader in readers:
            reader.join()
        self.assertEqual(failures, [])


events_in_steps = st.lists(st.sampled_from([5, 50, 3000, 140_000]), max_size=4)
steps = st.lists(st.tuples(st.sampled_from(["upload", "append", "replace", "replace"]), st.floats(0, 1), events_in_steps,
                           st.booleans()), min_size=1, max_size=6)


class AgainstAList(EventCase):
    """Any order of uploads, appends and replacements leaves what a plain list would hold."""

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(steps)
    def test_a_session_is_the_list_of_its_lines(self, steps):
        self.count = getattr(self, "count", 0) + 1
        name, model, serial = f"session-{self.count}", [], 0
        session_id = self.store([], name)
        for action, place, sizes, in_json in steps:
            events = [event for number, size in enumerate(sizes, serial) for event in numbered(1, size, first=number)]
            serial += len(sizes)
            start = {"upload": 0, "append": len(model), "replace": int(place * len(model))}[action]
            model[start:] = self.do(action, session_id, name, events, start, in_json)
            self.compare(session_id, model, start)

    def do(self, action, session_id, name, events, start, in_json):
        """Send events one way or the other; the lines that must be stored."""
        if action == "upload":
            self.store(events, name)
            return lines_of(events)
        if not in_json:
            self.check(self.grow(session_id, lines_of(events), **{"from": start}), 200)
            return lines_of(events)
        self.check(self.ada.post(f"/api/sessions/{session_id}/events", {"events": events, "from": start}), 200)
        return [opensession.hail_line({"type": "event", **event}) for event in events]

    def compare(self, session_id, model, start):
        self.assertEqual(self.raw_lines(session_id), model)
        self.assertEqual(self.facts(session_id)[1:], (len(model), chain_of(model)))
        begin = max(0, start - 2)
        window = self.window(session_id, **{"from": begin, "limit": 5})["events"]
        expected = [json.loads(line)["event_id"] for line in model[begin:begin + 5]]
        self.assertEqual([event["event_id"] for event in window], expected[:len(window)])
        self.assertEqual(bool(window), bool(expected))
        marks = sum(row["n"] for row in self.rows("SELECT length(marks) AS n FROM blocks WHERE session_id = ?", session_id))
        self.assertEqual(marks, len(model) * opensession.MARK.size)


class RawFiles(EventCase):
    def open_raw(self, session_id):
        """(headers, the file-like object that the server is handed)."""
        answer = []
        environ = self.ada._environ("GET", f"/api/sessions/{session_id}/raw", b"", None, {})
        file = opensession.app(environ | {"wsgi.file_wrapper": lambda file, size=0: file},
                               lambda status, headers, error=None: answer.append(dict(headers)))
        return answer[0], file

    def test_its_length_is_told_exactly(self):
        for name, events in [("empty", []), ("one", numbered(1)), ("big", numbered(9, 100_000))]:
            answer = self.check(self.ada.get(f"/api/sessions/{self.store(events, name, title='한글')}/raw"), 200)
            self.assertEqual(int(answer.headers["Content-Length"]), len(answer.body))
            self.assertIn("attachment", answer.headers["Content-Disposition"])
            self.assertEqual(answer.headers["X-Content-Type-Options"], "nosniff")

    def test_it_is_a_seekable_file(self):
        session_id = self.store(numbered(9, 100_000))
        headers, file = self.open_raw(session_id)
        whole = file.read()
        self.assertEqual(file.seek(0, io.SEEK_END), int(headers["Content-Length"]))
        self.assertEqual(file.read(10), b"")
        chance = random.Random(1)
        for _ in range(60):
            place, size = chance.randrange(len(whole) + 5), chance.choice([0, 1, 100, 70_000, 300_000])
            file.seek(place)
            piece = file.read(size)
            self.assertEqual(piece, whole[place:place + len(piece)])
            self.assertEqual(len(piece) > 0, size > 0 and place < len(whole))
            self.assertLessEqual(len(piece), opensession.BLOCK_BYTES + 110_000)      # a stalled download holds one block
            self.assertEqual(file.tell(), place + len(piece))
        file.close()

    def test_who_has_it_open_reads_on_when_it_grows_is_replaced_or_deleted(self):
        events = numbered(9, 100_000)
        session_id = self.store(events)
        files = []
        for change in (lambda: self.grow(session_id, lines_of(numbered(1))), lambda: self.store(numbered(2)),
                       lambda: self.ada.delete(f"/api/sessions/{session_id}")):
            _, file = self.open_raw(session_id)
            expected = self.ada.get(f"/api/sessions/{session_id}/raw").body
            begin = file.read(1000)
            change()
            files.append((begin + file.read(), expected))
            file.close()
        for read, expected in files:
            self.assertEqual(read, expected)

    def test_head_tells_what_get_would(self):
        session_id = self.store(numbered(3))
        for path in ("", "/raw", "/events", "/events/0"):
            get = self.ada.get(f"/api/sessions/{session_id}{path}")
            head = self.ada.request("HEAD", f"/api/sessions/{session_id}{path}")
            self.assertEqual((head.status, head.body), (200, b""))
            for name in ("Content-Type", "Content-Length", "ETag"):
                self.assertEqual(head.headers[name], get.headers[name], (path, name))


class Tags(EventCase):
    def test_what_a_browser_has_is_not_sent_again(self):
        session_id = self.store(numbered(3))
        for path in ("", f"/{session_id}", f"/{session_id}/raw", f"/{session_id}/events", f"/{session_id}/events?limit=2",
                     f"/{session_id}/events/1"):
            with self.subTest(path):
                first = self.ada.get(f"/api/sessions{path}")
                tag = first.headers["ETag"]
                for known in (tag, f'"other", {tag}', f"W/{tag}"):
                    again = self.ada.get(f"/api/sessions{path}", headers={"If-None-Match": known})
                    self.assertEqual((again.status, again.body, again.headers["ETag"]), (304, b"", tag))
                self.check(self.ada.get(f"/api/sessions{path}", headers={"If-None-Match": '"other"'}), 200)
                self.assertIn("private", first.headers["Cache-Control"])

    def test_a_change_changes_the_tags(self):
        session_id = self.store(numbered(3))
        paths = ("", f"/{session_id}", f"/{session_id}/raw", f"/{session_id}/events")
        for change in (lambda: self.grow(session_id, lines_of(numbered(1, first=3))), lambda: self.store(numbered(4, first=7))):
            before = [self.ada.get(f"/api/sessions{path}").headers["ETag"] for path in paths]
            change()
            for path, tag in zip(paths, before):
                answer = self.ada.get(f"/api/sessions{path}", headers={"If-None-Match": tag})
                self.assertEqual(answer.status, 200, path)

    def test_a_tag_opens_no_door(self):
        session_id = self.store(numbered(3))
        eve = self.register("eve")
        for path in ("", "/raw", "/events", "/events/1"):
            tag = self.ada.get(f"/api/sessions/{session_id}{path}").headers["ETag"]
            self.check(eve.get(f"/api/sessions/{session_id}{path}", headers={"If-None-Match": tag}), 404)
