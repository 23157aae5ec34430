"""Codex rollouts: every generation of the format, and what damage, forks and repeats do to them."""

import json
import os
import sqlite3
import subprocess
import tempfile
import tracemalloc
import unittest
from pathlib import Path

from hypothesis import given, settings, strategies

import daemon
from damage import other_types

CORPUS = Path(os.environ.get("OPENSESSION_CORPUS") or Path(__file__).parents[2] / "shared" / "corpus") / "codex"
PARENT = "11111111-1111-7111-8111-111111111111"
CHILD = "22222222-2222-7222-8222-222222222222"


class Rollout:
    """The records of a rollout, one second apart."""

    def __init__(self, thread_id=PARENT, **meta):
        self.records = []
        self.add("session_meta", id=thread_id, timestamp="2026-03-01T10:00:00Z", cwd="/home/ada/demo",
                 originator="codex_cli_rs", cli_version="0.100.0", source="cli", **meta)

    def add(self, type_, **payload):
        second = len(self.records)
        at = f"2026-03-01T10:{second // 60:02d}:{second % 60:02d}.000Z"
        self.records.append({"timestamp": at, "type": type_, "payload": payload})
        return self

    def event(self, type_, **payload):
        return self.add("event_msg", type=type_, **payload)

    def item(self, type_, **payload):
        return self.add("response_item", type=type_, **payload)

    def done(self, type_, **item):
        return self.event("item_completed", item={"type": type_, **item})

    def message(self, role, text, **more):
        kind = "output_text" if role == "assistant" else "input_text"
        return self.item("message", role=role, content=[{"type": kind, "text": text}], **more)

    def call(self, name, arguments, call_id="c1"):
        return self.item("function_call", name=name, arguments=arguments, call_id=call_id)

    def output(self, output, call_id="c1"):
        return self.item("function_call_output", call_id=call_id, output=output)

    def patch(self, text, call_id="c1"):
        return self.item("custom_tool_call", name="apply_patch", input=text, call_id=call_id)

    def totals(self, total, output=None, last=None, **parts):
        usage = {"input_tokens": total, "output_tokens": total // 10 if output is None else output, **parts}
        return self.event("token_count", info={"total_token_usage": usage, "last_token_usage": last or usage})

    def bytes(self):
        return b"".join(json.dumps(record).encode() + b"\n" for record in self.records)


class CodexTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.home = Path(self.folder.name) / "home"

    def write(self, rollout, name=None, folder="sessions/2026/03/01"):
        content = rollout.bytes() if isinstance(rollout, Rollout) else rollout
        meta = rollout.records[0]["payload"] if isinstance(rollout, Rollout) else {"id": PARENT}
        path = self.home / folder / (name or f"rollout-2026-03-01T11-00-00-{meta['id']}.jsonl")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def sessions(self, path):
        """[(session, its events)] of a file or folder."""
        found = []
        for source in daemon.codex_sources(path):
            for session in daemon.parse_codex(source):
                found.append((session, list(session.events)))
        return found

    def read(self, rollout, **where):
        """(session, events) of one rollout."""
        [(session, events)] = self.sessions(self.write(rollout, **where))
        ids = [event["event_id"] for event in events]
        self.assertEqual(len(ids), len(set(ids)))
        self.assertEqual(usage_on(events), (session.attributes["usage"]["input"],
                                            session.attributes["usage"]["output"]))
        return session, events


def kinds(events):
    return [daemon.event_kind(event)[0] for event in events]


def texts(events, kind):
    return [daemon.event_texts(event) for event in events if daemon.event_kind(event)[0] == kind]


def data(events, kind):
    return [daemon.event_kind(event)[1] for event in events if daemon.event_kind(event)[0] == kind]


def usage_on(events):
    """Sums of what the events carry."""
    return tuple(sum(event.get("attributes", {}).get(name, 0) for event in events)
                 for name in ("input_tokens", "output_tokens"))


class Files(CodexTest):
    def test_the_head_gives_id_folder_git_and_version(self):  # C71
        session, _ = self.read(Rollout(git={"branch": "main", "commit_hash": "abc", "repository_url": None},
                                       base_instructions={"text": "never kept"}).message("user", "hi"))
        self.assertEqual((session.session_id, session.tool_version), (PARENT, "0.100.0"))
        self.assertEqual(session.attributes["cwd"], "/home/ada/demo")
        self.assertEqual(session.attributes["git"], {"branch": "main", "commit_hash": "abc"})
        self.assertEqual(session.attributes["git_branch"], "main")
        self.assertNotIn("never kept", repr(vars(session)))

    def test_without_a_head_the_file_name_gives_id_and_start(self):  # C71
        content = json.dumps({"type": "response_item", "payload": {"type": "message", "role": "user",
                              "content": [{"type": "input_text", "text": "hi"}]}}).encode() + b"\n"
        session, events = self.read(content)
        self.assertEqual(session.session_id, PARENT)
        self.assertEqual(events[0]["timestamp"], "2026-03-01T11:00:00.000Z")
        session, _ = self.read(content, name="rollout-my-own-name.jsonl")
        self.assertEqual(session.session_id, "my-own-name")

    def test_the_first_head_wins(self):  # C72
        rollout = Rollout().message("user", "hi").add("session_meta", id=CHILD, cwd="/elsewhere")
        session, _ = self.read(rollout)
        self.assertEqual((session.session_id, session.attributes["cwd"]), (PARENT, "/home/ada/demo"))

    def test_flat_rollouts_of_2025_are_read(self):  # C73
        records = [{"id": PARENT, "timestamp": "2025-05-01T10:00:00Z", "instructions": "secret",
                    "git": {"branch": "b"}},
                   {"record_type": "state"},
                   {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello"}]},
                   {"type": "function_call", "name": "shell", "arguments": '{"command":["ls"]}', "call_id": "c"},
                   {"type": "function_call_output", "call_id": "c",
                    "output": '{"output":"x","metadata":{"exit_code":0}}'},
                   {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "done"}]}]
        session, events = self.read(b"".join(json.dumps(record).encode() + b"\n" for record in records))
        self.assertEqual(kinds(events), ["UserMessage", "ShellCommand", "ToolResult", "AgentMessage"])
        self.assertEqual((session.session_id, events[0]["timestamp"]), (PARENT, "2025-05-01T10:00:00.000Z"))
        self.assertEqual(session.attributes["git_branch"], "b")

    def test_single_object_rollouts_are_read_with_or_without_a_session(self):  # C73
        items = [{"role": "user", "content": "hello", "type": "message"},
                 {"role": "assistant", "content": [{"type": "output_text", "text": "hi"}], "type": "message"}]
        head = {"id": PARENT, "timestamp": "2025-04-20T10:00:00Z"}
        for name, value in (("rollout-a.json", {"session": head, "items": items}),
                            ("rollout-b.json", {"items": items})):
            _, events = self.read(json.dumps(value, indent=1).encode(), name=name)
            self.assertEqual(kinds(events), ["UserMessage", "AgentMessage"])

    def test_other_names_are_ignored_in_a_home_but_not_when_named(self):  # C74
        path = self.write(Rollout().message("user", "hi"), name="copy.jsonl")
        self.assertEqual(self.sessions(self.home), [])
        self.assertEqual(len(self.sessions(path)), 1)
        self.assertEqual(len(self.sessions(path.parent)), 1, "content decides in a folder that is no home")

    def test_files_with_one_name_in_two_folders_are_two(self):  # C74
        for folder in ("a", "b"):
            self.write(Rollout().message("user", folder), name="rollout-test.jsonl", folder=folder)
        self.assertEqual([events[0]["content"]["blocks"][0]["text"] for _, events in self.sessions(self.home)],
                         ["a", "b"])

    def test_an_empty_or_missing_home_is_nothing(self):  # C74
        self.assertEqual(self.sessions(self.home), [])
        (self.home / "sessions").mkdir(parents=True)
        self.assertEqual(self.sessions(self.home), [])
        self.assertEqual(daemon.codex_roots({}, Path("/h")), [Path("/h/.codex")])
        self.assertEqual(daemon.codex_roots({"CODEX_HOME": "/c"}, Path("/h")), [Path("/c")])

    def test_live_beats_archived_and_plain_beats_compressed(self):  # C75
        live = self.write(Rollout().message("user", "live"))
        self.write(Rollout().message("user", "archived"), folder="archived_sessions")
        live.with_name(live.name + ".zst").write_bytes(b"not read")
        other = self.write(Rollout(CHILD).message("user", "only archived"), folder="archived_sessions")
        self.assertEqual([source.path for source in daemon.codex_sources(self.home)], [live, other])
        self.assertEqual(daemon.codex_key(live), daemon.codex_key(Path(str(live) + ".zst")))

    @unittest.skipUnless(daemon.zstd_reader(), "no zstd decoder on this machine")
    def test_compressed_rollouts_read_like_plain_ones(self):  # C76
        path = self.write(Rollout().message("user", "hi").message("assistant", "hello"))
        [(_, plain)] = self.sessions(path)
        packed = path.with_name(path.name + ".zst")
        subprocess.run(["zstd", "-q", "--rm", str(path)], check=True)
        self.assertEqual(self.sessions(self.home)[0][1], plain)
        packed.write_bytes(b"\x28\xb5\x2f\xfd damaged")
        with self.assertRaises(daemon.Unreadable):
            self.sessions(self.home)

    def test_compressed_rollouts_without_a_decoder_are_reported(self):  # C76
        self.write(b"\x28\xb5\x2f\xfd", name=f"rollout-2026-03-01T11-00-00-{PARENT}.jsonl.zst")
        reader, daemon.zstd_reader = daemon.zstd_reader, lambda: None
        self.addCleanup(setattr, daemon, "zstd_reader", reader)
        [source] = daemon.codex_sources(self.home)
        with self.assertRaisesRegex(daemon.Unreadable, "install zstd"):
            list(daemon.parse_codex(source))

    def test_the_start_is_the_time_inside_not_the_local_one_in_the_name(self):  # C104
        session, _ = self.read(Rollout().message("user", "hi"))
        self.assertEqual(session.created_at, "2026-03-01T10:00:00.000Z")

    def test_exec_stdout_and_other_tools_files_are_no_sessions(self):  # C106
        exec_stdout = (b'{"type":"thread.started","thread_id":"t"}\n{"type":"turn.started"}\n'
                       b'{"type":"item.completed","item":{"id":"i","type":"agent_message","text":"hi"}}\n')
        claude = b'{"type":"user","message":{"role":"user","content":"hi"},"timestamp":"2026-03-01T10:00:00Z"}\n'
        gemini = b'{\n "sessionId": "s",\n "messages": [{"type": "user", "content": "hi"}]\n}\n'
        for content in (exec_stdout, claude, gemini, b"[]\n", b"\0\0\0"):
            self.assertEqual(self.sessions(self.write(content, name="rollout-x.jsonl")), [])


class Damage(CodexTest):
    GOOD = Rollout().message("user", "before").message("assistant", "after")

    def test_damaged_lines_cost_only_themselves(self):  # C1-C14, C22, C23
        head, first, last = self.GOOD.bytes().splitlines(True)
        whole, one = ["before", "after"], ["before"]
        ask = (b'{"timestamp":"2026-03-01T10:00:01Z","type":"response_item",'
               b'"payload":{"type":"message","role":"user","content":"%s"}}\n')
        table = (
            ("bad line in the middle", head + first + b'{"type": "respon\n' + last, whole, 1),              # C3
            ("truncated tail", head + first + last[:-9], one, 0),                                           # C4
            ("no line end after the last record", head + first + last[:-1], whole, 0),                      # C5
            ("values that are no objects", head + b'[]\n"x"\n1\nnull\n' + first + last, whole, 1),          # C6
            ("blank lines", head + b"\n \n" + first + b"\r\n" + last, whole, 0),                            # C2
            ("invalid UTF-8", head + ask % b"be\xfffore" + last, ["be\ufffdfore", "after"], 0),             # C7
            ("lone surrogate", head + ask % rb"be\ud83dfore" + last, ["be\ufffdfore", "after"], 0),         # C8
            ("NUL and control characters", head + ask % b"be\0fo\x01re" + b"\0" * 99 + b"\n" + last,
             ["befo\x01re", "after"], 0),                                                                   # C9
            ("a 1 MB line", head + ask % (b"x" * 2**20) + last, ["x" * 2**20, "after"], 0),                 # C10
            ("BOM and CRLF", b"\xef\xbb\xbf" + self.GOOD.bytes().replace(b"\n", b"\r\n"), whole, 0),        # C11
            ("numbers out of range", head + b'{"type":"turn_context","payload":{"a":NaN,"b":1e999}}\n' + first + last,
             whole, 0),
            ("5,000 digits and a deep nest",
             head + b'{"a":' + b"9" * 5000 + b"}\n" + b"[" * 10**5 + b"\n" + first + last, whole, 2),          # C22
        )
        for case, content, said, bad_lines in table:
            with self.subTest(case):
                session, events = self.read(content)
                self.assertEqual([daemon.event_texts(event) for event in events], said)
                self.assertEqual(session.bad_lines, bad_lines)
                for event in events:
                    daemon.hail_line(event)

    def test_files_without_records_are_no_sessions(self):  # C1, C2
        for content in (b"", b"\n\n \n", b"\0" * 900):
            self.assertEqual(self.sessions(self.write(content)), [])

    def test_byte_order_mark_and_line_ends_change_nothing(self):  # C11
        plain = self.read(self.GOOD)[1]
        self.assertEqual(self.read(b"\xef\xbb\xbf" + self.GOOD.bytes().replace(b"\n", b"\r\n"))[1], plain)

    def test_times_in_any_form_become_utc_or_the_neighbours(self):  # C13, C14
        for written, shown in (("2026-03-01T19:00:05+09:00", "10:00:05"), (1772359205, "10:00:05"),
                               (1772359205000.5, "10:00:05"), ("garbage", "10:00:01"), (None, "10:00:01"),
                               ({}, "10:00:01")):
            rollout = Rollout().message("user", "hi").message("assistant", "hello").add("world_state")
            rollout.records[2]["timestamp"] = written
            session, events = self.read(rollout)
            self.assertEqual(events[1]["timestamp"], f"2026-03-01T{shown}.000Z")
            self.assertEqual(session.updated_at, f"2026-03-01T{max(shown, '10:00:03')}.000Z")

    def test_records_of_impossible_types_before_the_head_do_no_harm(self):  # C6, C22
        for odd in (b"[]", b"{}", b"null", b"1"):
            lines = b'{"type":%s,"payload":{}}\n{"type":%s,"payload":%s}\n' % (odd, odd, odd)
            _, events = self.read(lines + self.GOOD.bytes())
            self.assertEqual([daemon.event_texts(event) for event in events][-2:], ["before", "after"])

    def test_without_any_time_the_year_is_not_1970(self):  # C13
        line = b'{"type":"response_item","payload":{"type":"message","role":"user","content":"hi"}}\n'
        session, events = self.read(line, name="rollout-x.jsonl")
        self.assertGreater(events[0]["timestamp"], "2020")

    def test_unknown_records_are_kept_and_counted(self):  # C12, C103
        rollout = Rollout().add("brand_new", a=1).event("newer", b=2).done("Newest", id="n").message("user", "hi")
        session, events = self.read(rollout)
        self.assertEqual(session.unknown, {"brand_new": 1, "event_msg/newer": 1, "item/Newest": 1})
        self.assertEqual(kinds(events), ["Custom", "Custom", "Custom", "UserMessage"])

    def test_records_that_show_nothing_are_skipped(self):  # C103
        rollout = Rollout().add("world_state", full=True).add("realtime_item").item("ghost_snapshot")
        rollout.message("user", "hi")
        rollout.event("thread_settings_applied").add("security_risk_score").add("inter_agent_communication")
        session, events = self.read(rollout)
        self.assertEqual((kinds(events), session.unknown), (["UserMessage"], {}))

    def test_a_longer_file_begins_with_the_same_events(self):
        rollout = Rollout().message("user", "a").call("exec_command", '{"cmd":"ls"}').output("x")
        rollout.message("assistant", "b")
        before = self.read(rollout)[1]
        after = self.read(rollout.message("user", "c"))[1]
        self.assertEqual(after[:len(before)], before)


class Messages(CodexTest):
    def test_events_and_response_items_say_things_once(self):  # C77
        rollout = Rollout()
        for prompt in ("first", "second"):
            rollout.message("user", prompt).event("user_message", message=prompt, images=[])
            rollout.event("agent_message", message="ok").message("assistant", "ok")
        _, events = self.read(rollout)
        self.assertEqual([daemon.event_texts(event) for event in events], ["first", "ok", "second", "ok"])

    def test_paginated_threads_show_items_in_order(self):  # C78, C79
        rollout = Rollout().event("task_started", turn_id="t1")
        rollout.message("user", "ask", id="m1").done("UserMessage", id="u1", content=[{"type": "text", "text": "ask"}])
        rollout.done("Reasoning", id="r1", summary_text=["hm"], raw_content=[])
        rollout.item("reasoning", id="r1", summary=[{"type": "summary_text", "text": "hm"}])
        rollout.done("AgentMessage", id="m2", content=[{"type": "Text", "text": "answer"}])
        rollout.message("assistant", "answer", id="m2")
        _, events = self.read(rollout)
        self.assertEqual([(event["event_id"], daemon.event_texts(event)) for event in events],
                         [("u1", "ask"), ("r1", "hm"), ("m2", "answer")])

    def test_a_thread_that_goes_on_in_a_newer_version_loses_nothing(self):  # C78
        rollout = Rollout().event("task_started", turn_id="t1").event("user_message", message="old")
        rollout.event("agent_message", message="old reply").message("assistant", "old reply")
        rollout.event("task_started", turn_id="t2").message("user", "new")
        rollout.done("UserMessage", id="u", content=[{"type": "text", "text": "new"}])
        rollout.done("AgentMessage", id="a", content=[{"type": "Text", "text": "new reply"}])
        rollout.message("assistant", "new reply")
        _, events = self.read(rollout)
        self.assertEqual([daemon.event_texts(event) for event in events], ["old", "old reply", "new", "new reply"])

    def test_injected_text_is_no_prompt_but_what_follows_it_is(self):  # C80
        rollout = Rollout().message("developer", "rules").message("system", "rules")
        for text in ("# AGENTS.md instructions for /x\n\n<INSTRUCTIONS>\nbe nice\n</INSTRUCTIONS>",
                     "<environment_context>\n<cwd>/x</cwd>\n</environment_context>",
                     "<user_instructions>x</user_instructions>", "<INSTRUCTIONS>x", "<skill>x</skill>",
                     "<permissions instructions>x",
                     "<recommended_plugins>x</recommended_plugins>", "<goal_context>x</goal_context>",
                     '<codex_internal_context source="goal">x</codex_internal_context>',
                     "<skills_instructions>x</skills_instructions>"):
            rollout.message("user", text)
        rollout.message("user", "<environment_context>x</environment_context>\n<skill>y</skill>\n\nthe real prompt")
        session, events = self.read(rollout)
        self.assertEqual([daemon.event_texts(event) for event in events], ["the real prompt"])
        self.assertEqual(session.prompt, "the real prompt")

    def test_notices_to_the_model_are_no_prompts(self):  # C81
        rollout = Rollout().message("user", "<turn_aborted>\nstopped\n</turn_aborted>")
        rollout.message("user", "<subagent_notification>done</subagent_notification>")
        rollout.message("user", "talk about <skill> tags")
        session, events = self.read(rollout)
        self.assertEqual(kinds(events), ["SystemMessage", "UserMessage"])
        self.assertEqual(session.prompt, "talk about <skill> tags")

    def test_a_prompt_that_is_sent_again_after_an_abort_is_one(self):  # C82
        rollout = Rollout().event("user_message", message="go").event("turn_aborted", reason="interrupted")
        rollout.event("user_message", message="go")
        rollout.event("user_message", message="other").event("user_message", message="go")
        _, events = self.read(rollout)
        self.assertEqual(texts(events, "UserMessage"), ["go", "other", "go"])
        self.assertEqual(data(events, "Custom"), [{"kind": "interrupt"}])

    def test_long_prompts_with_one_beginning_are_two(self):  # C82
        one, two = "x" * 300 + "1", "x" * 300 + "2"
        rollout = Rollout().event("user_message", message=one).event("turn_aborted").event("user_message", message=two)
        self.assertEqual(texts(self.read(rollout)[1], "UserMessage"), [one, two])

    def test_of_an_ide_prompt_only_the_request_is_shown(self):  # C83
        context = "# Context from my IDE setup:\n\n## Open tabs:\n- a.py\n\n## My request for Codex:\n"
        session, events = self.read(Rollout().event("user_message", message=context + "fix it\n"))
        self.assertEqual((texts(events, "UserMessage"), session.prompt), (["fix it"], "fix it"))
        session, _ = self.read(Rollout().event("user_message", message=context + " \n"))
        self.assertEqual(session.prompt, "[Pasted text]")

    def test_a_prompt_of_images_alone_is_called_image(self):  # C84
        url = "data:image/png;base64,iVBORw0KGgo="
        events = Rollout().event("user_message", message="", images=[url], local_images=["/tmp/shot.png"])
        session, shown = self.read(events)
        self.assertEqual(session.prompt, "[Image]")
        self.assertEqual([block["type"] for block in shown[0]["content"]["blocks"]], ["Text", "Image", "File"])
        items = Rollout().item("message", role="user", content=[{"type": "input_image", "image_url": url}])
        self.assertEqual(self.read(items)[1][0]["content"]["blocks"][1]["url"], url)

    def test_reasoning_is_shown_once_and_never_encrypted(self):  # C85
        summary = [{"type": "summary_text", "text": "thought"}]
        rollout = Rollout().item("reasoning", summary=[], encrypted_content="zzz").item("reasoning", summary=summary)
        self.assertEqual(texts(self.read(rollout)[1], "Thinking"), ["thought"])
        rollout = Rollout().event("agent_reasoning", text="thought")
        rollout.item("reasoning", summary=summary, encrypted_content="zzz")
        _, events = self.read(rollout)
        self.assertEqual(texts(events, "Thinking"), ["thought"])
        self.assertNotIn("zzz", repr(events))

    def test_the_model_follows_the_turns(self):  # C100
        rollout = Rollout().message("assistant", "0").add("turn_context", model="one").message("assistant", "1")
        rollout.add("turn_context", model="").message("assistant", "2").add("turn_context", model="two")
        rollout.message("assistant", "3")
        session, events = self.read(rollout)
        self.assertEqual([event.get("attributes", {}).get("model") for event in events], [None, "one", None, "two"])
        self.assertEqual(session.model, "two")
        self.assertIsNone(self.read(Rollout().message("user", "hi"))[0].model)

    def test_an_open_turn_is_in_progress_and_a_silent_one_shows_its_last_message(self):  # C102
        rollout = Rollout().event("task_started", turn_id="t").event("user_message", message="go")
        self.assertTrue(self.read(rollout)[0].attributes["in_progress"])
        rollout.event("task_complete", turn_id="t", last_agent_message="finished")
        session, events = self.read(rollout)
        self.assertNotIn("in_progress", session.attributes)
        self.assertEqual(texts(events, "AgentMessage"), ["finished"])
        rollout.event("task_started").message("assistant", "said").event("task_complete", last_agent_message="said")
        self.assertEqual(texts(self.read(rollout)[1], "AgentMessage"), ["finished", "said"])

    def test_a_compaction_is_one_boundary(self):
        rollout = Rollout().message("user", "a").add("compacted", message="so far", replacement_history=[
            {"type": "message", "role": "user", "content": "hidden"}]).event("context_compacted").message("user", "b")
        _, events = self.read(rollout)
        self.assertEqual([daemon.event_texts(event) for event in events], ["a", "so far", "b"])
        self.assertEqual(data(events, "Custom"), [{"kind": "compaction"}])

    def test_a_huge_compaction_costs_bounded_memory(self):  # C105
        item = json.dumps({"type": "message", "role": "user", "content": [{"type": "input_text", "text": "old " * 20}]})
        big = (b'{"timestamp":"2026-03-01T10:00:09Z","type":"compacted","payload":'
               b'{"message":"so far","replacement_history":[%s]}}\n' % ",".join([item] * 30000).encode())
        asked = Rollout().message("user", "b").bytes().splitlines(True)[1]
        path = self.write(Rollout().message("user", "a").bytes() + (big + asked) * 8)
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        [(_, events)] = self.sessions(path)
        peak = tracemalloc.get_traced_memory()[1]
        self.assertEqual([daemon.event_texts(event) for event in events], ["a"] + ["so far", "b"] * 8)
        self.assertGreater(path.stat().st_size, 25 << 20)
        self.assertLess(peak, 4 * len(big))


class Tools(CodexTest):
    def test_arguments_of_any_form_are_kept(self):  # C86
        for arguments, shown in (('{"a": 1}', {"a": 1}), ({"a": 1}, {"a": 1}), ("{}", {"b": 2}), ({}, {"b": 2}),
                                 ([], {"b": 2}),
                                 ('{"a": oops', '{"a": oops')):
            rollout = Rollout()
            rollout.item("function_call", name="mcp__x__y", arguments=arguments, input={"b": 2}, call_id="c")
            [event] = self.read(rollout)[1]
            block = event["content"]["blocks"][0]
            self.assertEqual(block.get("data", block.get("text")), shown)
        self.assertEqual(self.read(Rollout().message("user", "x").item("function_call", arguments="{}"))[1][1:], [])

    def test_outputs_of_any_generation_give_text_and_exit_code(self):  # C87
        head = "Chunk ID: 9b\nWall time: 1.5 seconds\nProcess exited with code 1\nOutput:\nboom"
        table = (("plain", "plain", None, False),
                 ('{"output":"boom","metadata":{"exit_code":2,"duration_seconds":1.5}}', "boom", 2, True),
                 (head, "boom", 1, True), (head.replace("code 1", "code 0"), "boom", 0, False),
                 ("Exit code: 3\nWall time: 0.1 seconds\nOutput:\nbad", "bad", 3, True),
                 ({"content": "no", "success": False}, "no", None, True),
                 ({"output": "yes", "metadata": {"exit_code": 0}}, "yes", 0, False),
                 ({"output": {"a": 1}}, "", None, False),
                 ([{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}], "a\nb", None, False),
                 (None, "", None, False), ('{"other": 1}', '{"other": 1}', None, False))
        for output, text, exit_code, failed in table:
            _, [call, result] = self.read(Rollout().call("exec_command", '{"cmd":"x"}').output(output))
            self.assertEqual(daemon.event_kind(call)[1].get("exit_code"), exit_code, output)
            self.assertEqual((daemon.event_texts(result), daemon.event_kind(result)[1]["is_error"]), (text, failed))
        _, [_, result] = self.read(Rollout().call("exec_command", '{"cmd":"x"}').output(head))
        self.assertEqual((result["duration_ms"], daemon.event_kind(result)[1]["call_id"]), (1500, "c1"))

    def test_results_hold_images_as_images(self):
        rollout = Rollout().call("view_image", '{"path":"a.png"}').output(
            [{"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo="}])
        _, [call, result] = self.read(rollout)
        self.assertEqual(daemon.event_kind(call), ("FileRead", {"path": "a.png"}))
        self.assertEqual(result["content"]["blocks"][0]["mime"], "image/png")

    def test_calls_without_results_and_results_without_calls_are_kept(self):  # C88
        rollout = Rollout().call("exec_command", '{"cmd":"sleep 9"}').output("orphan", call_id="gone")
        rollout.message("assistant", "done")
        _, events = self.read(rollout)
        self.assertEqual(kinds(events), ["ShellCommand", "ToolResult", "AgentMessage"])
        self.assertEqual(data(events, "ToolResult"), [{"name": "unknown", "is_error": False, "call_id": "gone"}])

    def test_a_call_that_is_never_answered_holds_back_only_so_much(self):  # C88
        rollout = Rollout().call("exec_command", '{"cmd":"sleep 9"}', "never")
        for number in range(daemon.Session.WINDOW + 500):
            rollout.records.append({"type": "response_item",
                                    "payload": {"type": "message", "role": "assistant", "content": "x"}})
        rollout.totals(100).output("late", "never").totals(200)
        path = self.write(rollout)
        [session] = daemon.parse_codex(next(iter(daemon.codex_sources(path))))
        first = next(session.events)
        self.assertLess(len(session._window), daemon.Session.WINDOW + 3)
        events = [first, *session.events]
        self.assertEqual((kinds(events)[0], kinds(events)[-2:]), ("ShellCommand", ["ToolResult", "Custom"]))
        self.assertEqual(usage_on(events), (200, 20))

    def test_names_in_a_namespace_are_known(self):  # C99
        rollout = Rollout().item("function_call", namespace="mcp__x__", name="y", call_id="a", arguments="{}")
        rollout.item("function_call", namespace="unix", name="exec_command", call_id="b", arguments='{"cmd":"ls"}')
        _, events = self.read(rollout)
        self.assertEqual(kinds(events), ["ToolCall", "ShellCommand"])
        self.assertEqual(data(events, "ToolCall"), [{"name": "mcp__x__y"}])

    PATCH = ("*** Begin Patch\n*** Update File: a.py\n@@ def f():\n-old\n+new\n*** Add File: b.py\n+print()\n"
             "*** Delete File: c.py\n*** Update File: d.py\n*** Move to: e.py\n@@\n-x\n+y\n*** End Patch")

    def test_a_patch_is_one_event_for_each_file(self):  # C89
        heredoc = f"cd /x && apply_patch <<'EOF'\n{self.PATCH}\nEOF"
        for rollout in (Rollout().patch(self.PATCH), Rollout().call("apply_patch", json.dumps({"input": self.PATCH})),
                        Rollout().call("shell", json.dumps({"command": ["apply_patch", self.PATCH]})),
                        Rollout().call("shell", json.dumps({"command": ["bash", "-lc", heredoc]}))):
            _, events = self.read(rollout.output("Success. Updated the following files:"))
            self.assertEqual(kinds(events), ["FileEdit", "FileCreate", "FileDelete", "FileEdit", "ToolResult"])
            self.assertEqual([event["event_id"] for event in events], ["c1", "c1:2", "c1:3", "c1:4", "c1-result"])
            self.assertEqual(data(events, "FileEdit")[0]["diff"], "--- a/a.py\n+++ b/a.py\n@@ def f():\n-old\n+new")
            self.assertEqual(events[1]["content"]["blocks"],
                             [{"type": "Code", "code": "print()", "language": "python"}])
            self.assertEqual(events[3]["attributes"]["moved_to"], "e.py")

    def test_a_patch_takes_the_tools_own_diff(self):  # C89
        change = {"/home/ada/demo/a.py": {"update": {"unified_diff": "@@ -7,1 +7,1 @@\n-old\n+new\n",
                                                     "move_path": None}}}
        rollout = Rollout().patch(self.PATCH).event("patch_apply_end", call_id="c1", success=True, changes=change)
        rollout.output("ok")
        self.assertIn("@@ -7,1 +7,1 @@", data(self.read(rollout)[1], "FileEdit")[0]["diff"])

    def test_a_patch_that_failed_changed_no_files(self):  # C89
        for end in (Rollout().patch(self.PATCH).event("patch_apply_end", call_id="c1", success=False,
                                                      changes={}).output("no"),
                    Rollout().patch(self.PATCH).output("apply_patch verification failed: no such line")):
            _, events = self.read(end)
            stats = daemon.empty_stats()
            for event in events:
                daemon.add_to_stats(stats, event)
            self.assertEqual((stats["files"], stats["added"]), ([], 0))
            self.assertTrue(data(events, "ToolResult")[0]["is_error"])

    def test_command_lines_come_out_of_argument_lists(self):  # C90
        table = (({"command": ["bash", "-lc", "ls -a"]}, "ls -a"), ({"command": ["ls"]}, "ls"),
                 ({"command": "one\ntwo"}, "one\ntwo"),
                 ({"cmd": "pwd"}, "pwd"), ({"command": ["git", "status"]}, "git status"))
        for arguments, command in table:
            [event] = self.read(Rollout().call("shell", json.dumps(arguments)))[1]
            self.assertEqual(daemon.event_kind(event), ("ShellCommand", {"command": command}))
        [event] = self.read(Rollout().call("write_stdin", '{"session_id": 42, "chars": "yes"}'))[1]
        self.assertEqual(event["content"]["blocks"][0]["data"], {"session_id": 42, "chars": "yes"})
        rollout = Rollout()
        rollout.item("local_shell_call", call_id="l", action={"type": "exec", "command": ["bash", "-lc", "id"]})
        self.assertEqual(data(self.read(rollout)[1], "ShellCommand"), [{"command": "id"}])

    def test_a_command_is_enriched_by_its_item_or_event(self):  # C79
        facts = {"exit_code": 1, "aggregated_output": "boom", "duration": {"secs": 1, "nanos": 5000000},
                 "status": "failed"}
        for rollout in (Rollout().call("exec_command", '{"cmd":"x"}').done("CommandExecution", id="c1", **facts),
                        Rollout().call("exec_command", '{"cmd":"x"}').event("exec_command_end", call_id="c1", **facts)):
            _, [call, result] = self.read(rollout.output(""))
            self.assertEqual(daemon.event_kind(call)[1]["exit_code"], 1)
            self.assertEqual((daemon.event_texts(result), result["duration_ms"]), ("boom", 1005))

    def test_what_a_program_did_is_shown_though_only_items_tell(self):
        rollout = Rollout().item("custom_tool_call", name="exec", input="await tools.run()", call_id="js")
        rollout.done("CommandExecution", id="x1", command=["/bin/bash", "-lc", "make"], exit_code=0,
                     aggregated_output="ok", status="completed")
        rollout.done("FileChange", id="x2", changes={"/x/a.py": {"type": "add", "content": "1\n"}}, status="completed")
        rollout.done("McpToolCall", id="x3", server="s", tool="t", arguments={"q": 1},
                     result={"content": [{"type": "text", "text": "r"}]})
        _, events = self.read(rollout.item("custom_tool_call_output", call_id="js", output="done"))
        self.assertEqual(kinds(events), ["ToolCall", "ShellCommand", "ToolResult", "FileCreate", "ToolResult",
                                         "ToolCall", "ToolResult", "ToolResult"])
        self.assertEqual(events[0]["content"]["blocks"][0]["language"], "javascript")

    def test_an_mcp_call_gets_error_and_duration(self):
        rollout = Rollout().call("s__t", "{}")
        rollout.event("mcp_tool_call_end", call_id="c1", duration="1.5s", result={"Err": "refused"}).output("")
        result = self.read(rollout)[1][1]
        self.assertEqual((daemon.event_texts(result), result["duration_ms"], daemon.event_kind(result)[1]["is_error"]),
                         ("refused", 1500, True))

    def test_web_calls_are_searches_and_pages(self):  # C91
        rollout = Rollout()
        rollout.item("web_search_call", id="w", action={"type": "search", "query": "a", "queries": ["a", "b"]})
        rollout.done("WebSearch", id="w", query="a", action={"type": "search", "query": "a"})
        rollout.item("web_search_call", action={"type": "open_page", "url": "https://x.test/"})
        rollout.item("web_search_call", action={"type": "find_in_page", "url": "https://x.test/", "pattern": "needle"})
        rollout.item("web_search_call", status="failed")
        _, events = self.read(rollout)
        self.assertEqual(kinds(events), ["WebSearch", "WebFetch", "WebFetch", "ToolCall"])
        self.assertEqual(texts(events, "WebFetch"), ["", "Find: needle"])

    def test_a_made_image_is_an_image(self):
        [event] = self.read(Rollout().item("image_generation_call", id="i", revised_prompt="a cat",
                                           result="iVBORw0KGgo="))[1]
        self.assertEqual((daemon.event_kind(event), event["content"]["blocks"][0]["mime"]),
                         (("ImageGenerate", {"prompt": "a cat"}), "image/png"))


class Usage(CodexTest):
    def usage(self, rollout):
        session, _ = self.read(rollout)
        return {name: value for name, value in session.attributes["usage"].items() if value}

    def test_repeated_totals_count_once(self):  # C92
        rollout = Rollout()
        for total in (100, 100, 300, 300):
            rollout.message("assistant", "x").totals(total, last={"input_tokens": 100, "output_tokens": 10})
        self.assertEqual(self.usage(rollout), {"raw_input": 400, "raw_output": 40, "input": 300, "output": 30,
                                               "responses": 2, "duplicates_removed": 2})

    def test_usage_stands_on_the_event_that_the_response_ended_with(self):
        rollout = Rollout().add("turn_context", model="m").message("user", "go").message("assistant", "I run it")
        rollout.call("exec_command", '{"cmd":"x"}')
        rollout.output("ok").totals(100, cached_input_tokens=60, reasoning_output_tokens=4)
        rollout.message("assistant", "done").totals(250)
        _, events = self.read(rollout)
        self.assertEqual([event.get("attributes", {}).get("input_tokens") for event in events],
                         [None, None, 100, None, 150])
        self.assertEqual(events[2]["attributes"], {"tool": "exec_command", "input_tokens": 100, "output_tokens": 10,
                                                   "cache_read_tokens": 60, "reasoning_tokens": 4, "model": "m"})

    def test_counts_without_info_or_totals_do_no_harm(self):  # C93
        rollout = Rollout().message("assistant", "x").event("token_count", info=None, rate_limits={"primary": {}})
        rollout.event("token_count")
        self.assertEqual(self.usage(rollout), {})
        total = {"input_tokens": 50, "cached_input_tokens": 80, "output_tokens": 5}
        rollout.event("token_count", info={"total_token_usage": total})
        self.assertEqual((self.usage(rollout)["input"], self.usage(rollout)["output"]), (50, 5))
        self.assertLessEqual(self.usage(rollout)["cache_read"], 50)
        last_only = Rollout().message("assistant", "x")
        for count in (7, 7, 9):
            last_only.event("token_count", info={"last_token_usage": {"input_tokens": count, "output_tokens": 1}})
        self.assertEqual(self.usage(last_only)["input"], 16)
        self.assertEqual(self.usage(Rollout().event("token_count", info={"prompt": 5, "completion": 2}))["input"], 5)

    def test_totals_that_fall_begin_a_new_segment(self):  # C94
        rollout = Rollout().message("assistant", "x").totals(500).totals(800).message("assistant", "y").totals(100)
        rollout.totals(150)
        self.assertEqual((self.usage(rollout)["input"], self.usage(rollout)["output"]), (950, 95))

    def test_usage_records_and_token_counts_are_not_added(self):  # C95
        rollout = Rollout()
        for number in (1, 2, 2):
            usage = {"input_tokens": 100, "output_tokens": 10}
            rollout.message("assistant", "x").add("token_usage_record", response_id=f"r{number}", usage=usage)
            rollout.totals(100 * number, last=usage)
        self.assertEqual(self.usage(rollout), {"raw_input": 600, "raw_output": 60, "input": 200, "output": 20,
                                               "responses": 2, "duplicates_removed": 4})

    def test_counts_before_a_newer_version_took_over_stay(self):  # C95
        rollout = Rollout().event("task_started", turn_id="a").message("assistant", "x").totals(100)
        rollout.event("task_started", turn_id="b").message("assistant", "y")
        rollout.add("token_usage_record", response_id="r", usage={"input_tokens": 50, "output_tokens": 5}).totals(150)
        self.assertEqual((self.usage(rollout)["input"], self.usage(rollout)["output"]), (150, 15))


class Threads(CodexTest):
    def parent(self):
        rollout = Rollout().event("task_started", turn_id="p1").add("turn_context", turn_id="p1", model="m")
        rollout.event("user_message", message="parent's").message("assistant", "parent's").totals(1000)
        return rollout.event("task_complete", turn_id="p1")

    def fork(self, *turns, **meta):
        """A thread that starts with a copy of the parent's history."""
        fork = Rollout(CHILD, forked_from_id=PARENT, **meta)
        for record in self.parent().records:
            fork.add(record["type"], **record["payload"])
        for turn in turns:
            fork.event("task_started", turn_id=turn).add("turn_context", turn_id=turn, model="m")
            fork.event("user_message", message="own").message("assistant", "own").totals(1300)
            fork.event("task_complete", turn_id=turn)
        return fork

    def test_a_fork_shows_and_counts_only_its_own_turns(self):  # C96
        self.write(self.parent())
        session, events = self.read(self.fork("f1"))
        self.assertEqual([daemon.event_texts(event) for event in events], ["own", "own"])
        usage = session.attributes["usage"]
        self.assertEqual((usage["input"], usage["output"], usage["replayed"]), (300, 30, 1100))
        self.assertEqual((session.session_id, session.attributes["forked_from"]), (CHILD, PARENT))
        self.assertNotIn("replay_unverified", session.attributes)

    def test_a_fork_without_turns_of_its_own_is_empty(self):  # C96
        self.write(self.parent())
        session, events = self.read(self.fork())
        self.assertEqual((events, session.prompt), ([], None))

    def test_a_fork_whose_parent_is_gone_is_kept_and_marked(self):  # C96
        session, events = self.read(self.fork("f1"))
        self.assertEqual(texts(events, "UserMessage"), ["parent's", "own"])
        self.assertTrue(session.attributes["replay_unverified"])

    def test_a_forks_counters_may_start_again(self):  # C96, C94
        self.write(self.parent())
        fork = self.fork().event("task_started", turn_id="f1").message("assistant", "own").totals(70)
        self.assertEqual(self.read(fork)[0].attributes["usage"]["input"], 70)

    def test_a_sub_agents_copied_history_is_left_out(self):  # C97
        self.write(self.parent(), folder="archived_sessions")
        spawn = {"subagent": {"thread_spawn": {"parent_thread_id": PARENT, "depth": 1, "agent_role": "explorer"}}}
        child = Rollout(CHILD)
        child.records[0]["payload"]["source"] = spawn
        for record in self.parent().records:
            child.add(record["type"], **record["payload"])
        child.event("task_started", turn_id="c1").event("user_message", message="look")
        child.event("agent_message", message="seen")
        session, events = self.read(child)
        self.assertEqual([daemon.event_texts(event) for event in events], ["look", "seen"])
        self.assertEqual(session.attributes["parent_session_id"], PARENT)

    def test_a_sub_agent_without_a_copy_keeps_everything(self):  # C97
        self.write(self.parent())
        child = Rollout(CHILD, parent_thread_id=PARENT, thread_source="subagent").event("task_started", turn_id="p1")
        session, events = self.read(child.message("user", "look").message("assistant", "seen").totals(40))
        self.assertEqual(kinds(events), ["UserMessage", "AgentMessage"])
        self.assertEqual(session.attributes["usage"]["input"], 40)

    def test_every_kind_of_sub_agent_is_auxiliary_and_knows_its_parent(self):  # C98
        spawn = {"subagent": {"thread_spawn": {"parent_thread_id": PARENT, "agent_role": "awaiter",
                                               "agent_nickname": "Ida"}}}
        table = ((spawn, {}), ("cli", {"parent_thread_id": PARENT}), ({"subagent": "review"}, {"session_id": PARENT}),
                 ({"subagent": "compact"}, {"parent_thread_id": PARENT}),
                 ({"subagent": {"other": "guardian"}}, {"session_id": PARENT}))
        for source, more in table:
            child = Rollout(CHILD, **more).message("user", "hi")
            child.records[0]["payload"]["source"] = source
            session, _ = self.read(child)
            self.assertEqual((session.session_id, session.attributes["parent_session_id"],
                              session.attributes["session_role"]),
                             (CHILD, PARENT, "auxiliary"))
        self.assertNotIn("session_role", self.read(Rollout(session_id=PARENT).message("user", "hi"))[0].attributes)

    def test_a_spawned_agent_is_linked_once(self):  # C99
        ended, answer = {"call_id": "c1", "new_thread_id": CHILD}, json.dumps({"agent_id": CHILD})
        activity = {"kind": "started", "event_id": "c1", "agent_thread_id": CHILD}
        names = ("spawn_agent", "collaboration.spawn_agent", "spawn_agent", "spawn_agent")
        calls = [Rollout().call(name, "{}") for name in names]
        calls[0].output(answer)
        calls[1].event("collab_agent_spawn_end", **ended).output("{}")
        calls[2].event("sub_agent_activity", **activity)
        calls[3].event("collab_agent_spawn_end", **ended).output(answer).event("collab_agent_spawn_end", **ended)
        for rollout in calls:
            session, events = self.read(rollout)
            self.assertEqual(session.related, [CHILD])
            self.assertEqual(events[0]["attributes"]["child_session_id"], CHILD)

    def database(self, name):
        path = self.home / "sqlite" / "state_5.sqlite"
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path)
        connection.execute("CREATE TABLE IF NOT EXISTS threads (id TEXT PRIMARY KEY, name TEXT)")
        connection.execute("INSERT OR REPLACE INTO threads VALUES (?, ?)", (PARENT, name))
        connection.commit()
        return connection

    def test_the_title_is_the_given_name_then_the_index_then_the_prompt(self):  # C101
        rollout = Rollout().message("user", "the prompt")
        self.assertEqual((self.read(rollout)[0].title, self.read(rollout)[0].prompt), (None, "the prompt"))
        index = self.home / "session_index.jsonl"
        index.write_text("".join(json.dumps({"id": PARENT, "thread_name": name}) + "\n" for name in ("first", "last")))
        self.assertEqual(self.read(rollout)[0].title, "last")
        self.database("given").close()
        self.assertEqual(self.read(rollout)[0].title, "given")
        self.database(None).close()
        self.assertEqual(self.read(rollout)[0].title, "last")
        index.write_text(index.read_text() + json.dumps({"id": PARENT, "thread_name": " "}) + "\n")
        self.assertIsNone(self.read(rollout.event("thread_name_updated", thread_name="cleared"))[0].title)

    def test_a_locked_broken_or_old_database_costs_only_the_name(self):  # C101
        rollout = Rollout().message("user", "the prompt")
        connection = self.database("given")
        connection.execute("BEGIN EXCLUSIVE")
        self.assertIsNone(self.read(rollout)[0].title)
        connection.close()
        (self.home / "sqlite" / "state_6.sqlite").write_bytes(b"no database")
        self.assertIsNone(self.read(rollout)[0].title)


def everything():
    """One rollout with a record of every generation."""
    rollout = Rollout().event("task_started", turn_id="t").add("turn_context", turn_id="t", model="m", cwd="/x")
    rollout.message("user", "ask")
    rollout.event("user_message", message="ask", images=["data:image/png;base64,aa"])
    rollout.event("agent_reasoning", text="hm").message("assistant", "ok")
    rollout.call("exec_command", '{"cmd":"x"}')
    rollout.done("CommandExecution", id="c1", command=["a"], exit_code=1, duration={"secs": 1})
    rollout.output("Exit code: 1\nOutput:\nx").totals(100).patch(Tools.PATCH, "c2")
    rollout.event("patch_apply_end", call_id="c2", changes={"a.py": {"update": {"unified_diff": "@@"}}})
    rollout.item("custom_tool_call_output", call_id="c2", output='{"output":"x","metadata":{"exit_code":0}}')
    rollout.totals(200)
    rollout.event("mcp_tool_call_end", call_id="c3", invocation={"server": "s", "tool": "t"},
                  result={"Ok": {"content": []}})
    rollout.item("web_search_call", action={"type": "search", "query": "q", "queries": ["r"]})
    rollout.add("compacted", message="m", replacement_history=[])
    rollout.add("token_usage_record", response_id="r", usage={"input_tokens": 3}).event("turn_aborted", reason="x")
    rollout.event("sub_agent_activity", event_id="c1", agent_thread_id="k")
    rollout.item("reasoning", summary=[{"text": "s"}])
    return rollout.done("FileChange", id="f", changes={"a": {"type": "add", "content": "b"}}).event("task_complete")


class Robustness(CodexTest):
    def survive(self, content):
        path = self.write(content)
        found = self.sessions(path)
        for session, events in found:
            for event in events:
                daemon.hail_line(event)
            self.assertEqual(usage_on(events), (session.attributes["usage"]["input"],
                                                session.attributes["usage"]["output"]))
        return found

    @settings(max_examples=120, deadline=None)
    @given(strategies.data())
    def test_no_damage_raises_or_costs_what_stands_before_it(self, draw):
        lines = Rollout().message("user", "kept").message("assistant", "kept too").bytes().splitlines(True)
        body = everything().bytes().splitlines(True)[1:]
        place = draw.draw(strategies.integers(0, len(body) - 1))
        damage = draw.draw(strategies.sampled_from(("cut", "drop", "double", "flip")))
        if damage == "flip":
            line = bytearray(body[place])
            line[draw.draw(strategies.integers(0, len(line) - 1))] ^= 1 << draw.draw(strategies.integers(0, 7))
            body[place] = bytes(line)
        else:
            body[place:place + 1] = {"drop": [], "double": [body[place]] * 2,
                                     "cut": [body[place][:draw.draw(strategies.integers(0, 300))]]}[damage]
            body = body[:place + 1] if damage == "cut" else body
        without_events = [line for line in body if b'"user_message"' not in line]
        [(_, events)] = self.survive(b"".join(lines + without_events))
        self.assertEqual([daemon.event_texts(event) for event in events][:2], ["kept", "kept too"])

    def test_no_swapped_type_raises(self):
        for odd in (None, [], {}, "x", 7, -1.5, [{"type": "text", "text": 3}], {"type": []}, True):
            records = everything().records
            lines = [json.dumps(record).encode() + b"\n" for record in records]
            for place, record in enumerate(records):
                swapped = b"".join(json.dumps(other).encode() + b"\n" for other in other_types(record, odd))
                self.survive(b"".join(lines[:place]) + swapped + b"".join(lines[place + 1:]))


def slow_totals(path):
    """(input, output) of a rollout, counted in the most obvious way."""
    records = []
    for line in path.read_bytes().splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record.get("payload"), dict):
            records.append(record)
    responses = {record["payload"]["response_id"]: record["payload"]["usage"]
                 for record in records if record["type"] == "token_usage_record"}
    if responses:
        return tuple(sum(usage[name] for usage in responses.values()) for name in ("input_tokens", "output_tokens"))
    segments, single = [], []
    for payload in (record["payload"] for record in records):
        info = payload.get("info") or payload.get("usage") or {}
        if payload.get("type") not in ("token_count", "turn.completed"):
            continue
        if total := info.get("total_token_usage"):
            pair = total["input_tokens"], total["output_tokens"]
            if segments and pair >= segments[-1]:
                segments[-1] = pair
            else:
                segments.append(pair)
        else:
            usage = info.get("last_token_usage") or info or payload
            single.append((usage.get("input_tokens", usage.get("prompt", 0)),
                           usage.get("output_tokens", usage.get("completion", 0))))
    return tuple(sum(pair[place] for pair in segments + single) for place in (0, 1))


@unittest.skipUnless(CORPUS.is_dir(), f"no corpus at {CORPUS}")
class RealFiles(CodexTest):
    def test_every_file_of_the_corpus_is_a_session_with_true_totals(self):
        for path in sorted(CORPUS.rglob("*.jsonl")):
            with self.subTest(str(path.relative_to(CORPUS))):
                for session, events in self.sessions(path):
                    self.assertTrue(events)
                    self.assertEqual(usage_on(events), slow_totals(path))
                    self.assertEqual(session.bad_lines, 0)
                    self.assertEqual(self.sessions(path)[0][1], events, "two runs give the same")

    def test_the_real_thread_says_everything_once(self):  # C78, C79, C92, C95
        [(session, events)] = self.sessions(CORPUS / "generated-0.169.0" / "sessions")
        self.assertEqual({kind: kinds(events).count(kind) for kind in kinds(events)},
                         {"UserMessage": 2, "Thinking": 4, "AgentMessage": 6, "ShellCommand": 4, "ToolResult": 4})
        self.assertEqual((session.unknown, session.model), ({}, "gpt-5.1-codex"))
        self.assertEqual((session.attributes["usage"]["input"], session.attributes["usage"]["output"]), (6006, 300))

    def test_no_file_of_another_tool_is_taken_for_a_rollout(self):
        for entry in daemon.walk(str(CORPUS.parent)):
            if "/codex/" not in entry.path and entry.name.endswith((".json", ".jsonl")):
                self.assertFalse(daemon.codex_inside(entry.path), entry.path)


if __name__ == "__main__":
    unittest.main()
