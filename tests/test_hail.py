"""The rules of HAIL that server and daemon share: one text, counts as in real files."""

import importlib.util
import json
import os
import unittest
from pathlib import Path

from hypothesis import given, settings, strategies as st

import opensession
from client import hail_file, moment, new_event, new_session

CORPUS = Path(os.environ.get("OPENSESSION_CORPUS") or Path(opensession.__file__).parent / "../shared/corpus")


def twin_block(source):
    """The text of the rules in a source file."""
    start, end = source.index("# HAIL (the same text"), source.index("# end of HAIL")
    return source[start:end]


def counted(events):
    stats = opensession.empty_stats()
    for event in events:
        opensession.add_to_stats(stats, event)
    return stats


class TheTwinBlock(unittest.TestCase):
    def test_server_and_daemon_have_the_same_text(self):
        daemon = importlib.util.find_spec("daemon")
        if daemon is None:
            self.skipTest("daemon.py is not here")
        texts = [twin_block(Path(path).read_text(encoding="utf-8")) for path in (opensession.__file__, daemon.origin)]
        self.assertGreater(len(texts[0]), 1000)
        self.assertEqual(*texts)


class RealFiles(unittest.TestCase):
    def test_our_counts_are_those_of_the_files(self):
        paths = sorted(CORPUS.glob("hail/*.jsonl"))
        if not paths:
            self.skipTest(f"no HAIL files in {CORPUS}")
        checked = 0
        for path in paths:
            first, *events, last = (json.loads(line) for line in path.read_bytes().splitlines())
            if first["type"] != "header":       # two files are ACP, a format that came later
                continue
            with self.subTest(path.name):
                self.assertEqual(opensession.stats_line(counted(events)), last)
                checked += 1
        self.assertGreaterEqual(checked, len(paths) - 2)


class Counting(unittest.TestCase):
    def line(self, *events):
        return opensession.stats_line(counted(events))

    def test_shell_edits_and_web_are_no_tool_calls(self):
        kinds = {"ToolCall": {"name": "x"}, "FileRead": {"path": "a"}, "CodeSearch": {"query": "q"},
                 "FileSearch": {"pattern": "p"}, "ShellCommand": {"command": "ls"}, "FileEdit": {"path": "a"},
                 "WebFetch": {"url": "u"}, "ToolResult": {"name": "x"}}
        self.assertEqual(self.line(*(new_event(kind, data=data) for kind, data in kinds.items()))["tool_call_count"], 4)

    def test_messages_are_prompts_replies_and_the_words_of_finished_tasks(self):
        found = self.line(new_event(), new_event("AgentMessage"), new_event("Thinking"), new_event("SystemMessage"),
                          new_event("TaskEnd", data={"summary": "done"}), new_event("TaskEnd", data={"summary": "  "}))
        self.assertEqual((found["message_count"], found["user_message_count"]), (3, 1))

    def test_lines_of_diffs_are_counted_without_their_heads(self):
        diff = "--- a\n+++ b\n@@ -1 +1,2 @@\n-old\n+new\n+newer\n same"
        found = self.line(new_event("FileEdit", data={"path": "a", "diff": diff}), new_event("FileDelete", data={"path": "b"}))
        self.assertEqual((found["files_changed"], found["lines_added"], found["lines_removed"]), (2, 2, 1))

    def test_running_totals_beat_sums_of_tokens(self):
        events = [new_event(attributes={"input_tokens": 5, "output_tokens": 1}),
                  new_event(attributes={"input_tokens": 7, "output_tokens": 2})]
        self.assertEqual(self.line(*events)["total_input_tokens"], 12)
        events += [new_event(attributes={"input_tokens_total": total}) for total in (90, 80)]
        found = self.line(*events)
        self.assertEqual((found["total_input_tokens"], found["total_output_tokens"]), (90, 3))

    def test_a_clock_that_goes_backwards_gives_no_negative_duration(self):
        self.assertEqual(self.line(new_event(at=60), new_event(at=0))["duration_seconds"], 0)

    def test_a_session_without_events_counts_nothing(self):
        self.assertEqual({value for key, value in self.line().items() if key != "type"}, {0})


KINDS = st.sampled_from([("UserMessage", None), ("AgentMessage", None), ("TaskEnd", {"summary": "done"}),
                         ("ToolCall", {"name": "x"}), ("FileEdit", {"path": "a", "diff": "+1\n-2"}),
                         ("FileCreate", {"path": "b"}), ("ToolResult", {"name": "x", "is_error": True})])
TOKENS = st.dictionaries(st.sampled_from(["input_tokens", "output_tokens", "input_tokens_total"]), st.integers(-9, 99))
EVENTS = st.builds(lambda kind, text, at, attributes, task: new_event(kind[0], text, at, kind[1], attributes=attributes,
                                                                      task_id=task),
                   KINDS, st.sampled_from(["one", "two", "three", "four", ""]), st.integers(0, 9999), TOKENS,
                   st.sampled_from([None, "t1", "t2"]))


class Merging(unittest.TestCase):
    @settings(max_examples=100, deadline=None)
    @given(st.lists(EVENTS, max_size=9), st.data())
    def test_the_counts_of_any_split_make_the_counts_of_the_whole(self, events, data):
        cuts = sorted(data.draw(st.lists(st.integers(0, len(events)), max_size=3)))
        merged = opensession.empty_stats()
        for start, end in zip([0, *cuts], [*cuts, len(events)]):
            merged = opensession.merge_stats(merged, counted(events[start:end]))
        whole = counted(events)
        self.assertEqual(opensession.stats_line(merged), opensession.stats_line(whole))
        self.assertEqual(merged, whole)


class Lines(unittest.TestCase):
    def test_a_line_is_compact_json_in_utf8(self):
        self.assertEqual(opensession.hail_line({"a": ["é", 1.5]}), '{"a":["é",1.5]}\n'.encode())
        with self.assertRaises(ValueError):
            opensession.hail_line({"a": float("nan")})

    def test_the_chain_depends_on_every_line_and_their_order_but_not_on_line_ends(self):
        def chain(*lines):
            at = opensession.CHAIN_START
            for line in lines:
                at = opensession.next_chain(at, line)
            return at
        self.assertEqual(chain(b"a\n", b"b\n"), chain(b"a", b"b"))
        self.assertEqual(len({chain(), chain(b"a"), chain(b"a", b"b"), chain(b"b", b"a"), chain(b"ab")}), 5)

    def test_the_tests_own_sessions_are_hail(self):
        session = new_session(session_id="one")
        kinds = [json.loads(line)["type"] for line in hail_file(session).splitlines()]
        self.assertEqual(kinds, ["header", "event", "event", "stats"])
        self.assertEqual(moment(3661), "2026-02-11T07:01:01Z")


if __name__ == "__main__":
    unittest.main()
