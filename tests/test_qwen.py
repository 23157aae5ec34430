"""Qwen Code: records that hang on a chain, with Gemini's parts in them; and Antigravity, Gemini CLI's successor."""

import json
import os
import tempfile
import unittest
from pathlib import Path

import daemon
from damage import data_of, kinds, read_sessions, survives_damage, survives_swaps, texts, usage_on

CORPUS = Path(os.environ.get("OPENSESSION_CORPUS") or Path(__file__).parents[2] / "shared" / "corpus") / "qwen"
MAIN = "33333333-3333-4333-8333-333333333333"


class Chat:
    """Records of a session, each the child of the one before."""

    def __init__(self, session=MAIN):
        self.session = session
        self.records = []

    def add(self, kind, uuid=None, parent=..., **more):
        number = len(self.records) + 1
        before = self.records[-1]["uuid"] if self.records else None
        self.records.append({
            "uuid": uuid or f"r{number}", "parentUuid": before if parent is ... else parent, "sessionId": self.session,
            "timestamp": f"2026-03-01T10:00:{number:02d}.000Z", "type": kind, "cwd": "/home/ada/demo",
            "version": "0.20.0", "gitBranch": "main", **more})
        return self

    def user(self, text, **more):
        return self.add("user", message={"role": "user", "parts": [{"text": text}]}, **more)

    def model(self, *parts, usage=(100, 10, 4), **more):
        given, said, thought = usage
        counts = {"promptTokenCount": given, "candidatesTokenCount": said, "thoughtsTokenCount": thought,
                  "totalTokenCount": given + said, "cachedContentTokenCount": 30}
        parts = [{"text": part} if isinstance(part, str) else part for part in parts]
        return self.add("assistant", model="qwen-x", message={"role": "model", "parts": parts}, usageMetadata=counts, **more)

    def result(self, call_id, name, response, status="success", **more):
        part = {"functionResponse": {"id": call_id, "name": name, "response": response}}
        return self.add("tool_result", message={"role": "user", "parts": [part]},
                        toolCallResult={"callId": call_id, "status": status, **more})

    def system(self, subtype, **payload):
        return self.add("system", subtype=subtype, systemPayload=payload)

    def lines(self):
        return [json.dumps(record, separators=(",", ":")).encode() + b"\n" for record in self.records]


def call(name, call_id="c1", **args):
    return {"functionCall": {"id": call_id, "name": name, "args": args}}


class QwenTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.home = Path(folder.name)
        self.chats = self.home / ".qwen" / "projects" / "-home-ada-demo" / "chats"
        self.chats.mkdir(parents=True)

    def write(self, chat, name=f"{MAIN}.jsonl"):
        path = self.chats / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(chat if isinstance(chat, bytes) else b"".join(chat.lines()))
        return path

    def sources(self, root=None):
        return list(daemon.TOOLS["qwen"].sources(root or self.home / ".qwen" / "projects"))

    def read_all(self, chat, name=f"{MAIN}.jsonl"):
        return read_sessions("qwen", daemon.Source("x", (self.write(chat, name),)))

    def read(self, chat):
        [found] = self.read_all(chat)
        return found


class Files(QwenTest):
    def test_roots_follow_the_environment(self):
        names = lambda env: [str(root) for root in daemon.qwen_roots(env, Path("/home/ada"))]
        self.assertEqual(names({}), ["/home/ada/.qwen/projects", "/home/ada/.qwen/tmp"])
        self.assertEqual(names({"QWEN_HOME": "/q", "QWEN_RUNTIME_DIR": "/r"})[::2], ["/r/projects", "/q/projects"])

    def test_only_chats_count_and_the_live_one_before_the_archived(self):
        """O15, O63"""
        chat = Chat().user("hi")
        live, _ = self.write(chat), self.write(chat, f"archive/{MAIN}.jsonl")
        (self.chats.parent / f"{MAIN}.jsonl").write_bytes(b"".join(chat.lines()))
        (self.chats / "notes.txt").write_text("hi")
        self.assertEqual([source.path for source in self.sources()], [str(live)])
        live.unlink()
        self.assertEqual([source.key for source in self.sources()], [MAIN])

    def test_a_file_that_is_named_for_another_session_is_refused(self):
        """O62"""
        self.assertEqual(self.read_all(Chat("44444444-4444-4444-8444-444444444444").user("hi")), [])
        compact = MAIN.replace("-", "")
        [(session, _)] = self.read_all(Chat(compact).user("hi"), f"{compact}.jsonl")
        self.assertEqual(session.session_id, compact)

    def test_empty_and_foreign_files_are_no_sessions(self):
        """O1, O2, O4, O7, O65"""
        for content in (b"", b"\xff\xfe\0" * 99, b'{"type":"user"}\n', b"".join(Chat().system("ui_telemetry").lines())):
            self.assertEqual(self.read_all(content), [])

    def test_the_first_versions_wrote_geminis_files(self):
        path = self.home / ".qwen" / "tmp" / "ab12" / "chats" / "session-2025-09-01T10-00-aa.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"sessionId": "s1", "projectHash": "ab12", "startTime": "2025-09-01T10:00:00Z",
                                    "messages": [{"id": "u", "type": "user", "content": "hi"}]}))
        [source] = self.sources(self.home / ".qwen" / "tmp")
        [(session, events)] = read_sessions("qwen", source)
        self.assertEqual((session.tool, session.session_id, texts(events)), ("qwen", "s1", ["hi"]))
        self.assertFalse(daemon.gemini_recognise(path.read_bytes(), str(path)))


class Chain(QwenTest):
    def test_what_was_rewound_is_hidden_and_not_counted(self):
        """O60"""
        chat = Chat().user("one").model("wrong", uuid="gone").user("two", parent="r1").model("right")
        session, events = self.read(chat)
        self.assertEqual(texts(events), ["one", "two", "right"])
        self.assertEqual(session.attributes["usage"]["input"], 100)

    def test_a_chain_that_goes_round_ends(self):
        """O60"""
        chat = Chat().user("one", uuid="a", parent="b").user("two", uuid="b", parent="a")
        self.assertEqual(texts(self.read(chat)[1]), ["one", "two"])

    def test_a_lost_record_does_not_hide_those_before_it(self):
        chat = Chat().user("one").model("lost").user("two")
        del chat.records[1]
        self.assertEqual(texts(self.read(chat)[1]), ["one", "two"])

    def test_an_artifact_at_the_end_does_not_carry_the_chain(self):
        """O60"""
        chat = Chat().user("one").model("ok").add("system", parent=None, subtype="session_artifact_snapshot",
                                                  systemPayload={})
        self.assertEqual(texts(self.read(chat)[1]), ["one", "ok"])

    def test_pieces_of_one_record_are_joined_and_counted_once(self):
        """O61"""
        chat = Chat().user("one").model("first", uuid="m").model("second", uuid="m", parent="r1").user("two", parent="m")
        session, events = self.read(chat)
        self.assertEqual(texts(events), ["one", "first", "second", "two"])
        usage = session.attributes["usage"]
        self.assertEqual((usage["input"], usage["raw_input"], usage["duplicates_removed"]), (100, 200, 1))

    def test_two_records_on_one_line_are_both_read(self):
        """O61"""
        first, second, third = Chat().user("one").model("ok").user("two").lines()
        session, events = self.read(first.rstrip(b"\n") + second + third)
        self.assertEqual((texts(events), session.bad_lines), (["one", "ok", "two"], 0))
        session, events = self.read(first + b"what is this?\n" + second + third)
        self.assertEqual((texts(events), session.bad_lines), (["one", "ok", "two"], 1))


class Records(QwenTest):
    def test_a_session_says_where_and_with_what_it_was(self):
        session, _ = self.read(Chat().user("hi").model("ok"))
        self.assertEqual((session.attributes["cwd"], session.attributes["git_branch"], session.tool_version, session.model),
                         ("/home/ada/demo", "main", "0.20.0", "qwen-x"))

    def test_the_latest_title_counts(self):
        """O64"""
        session, _ = self.read(Chat().user("hi").system("custom_title", customTitle="old")
                               .system("custom_title", customTitle="new"))
        self.assertEqual((session.title, session.prompt), ("new", "hi"))

    def test_a_prompt_is_shown_as_it_was_typed(self):
        """O64"""
        for text, shown in (("do it\n<hook_context>be nice</hook_context>", "do it"),
                            ("do it\n<hook_context>be nice", "do it\n<hook_context>be nice")):
            self.assertEqual(texts(self.read(Chat().user(text))[1]), [shown])
        chat = Chat().user("do it and the expansion", systemPayload={"displayText": "do it"})
        self.assertEqual(texts(self.read(chat)[1]), ["do it"])

    def test_injected_prompts_are_none(self):
        session, events = self.read(Chat().user("job done", subtype="notification").user("hi"))
        self.assertEqual((kinds(events), session.prompt), (["SystemMessage", "UserMessage"], "hi"))

    def test_thoughts_in_the_output_are_not_added_to_it(self):
        """Telemetry repeats the usage and is not counted."""
        chat = Chat().user("hi").system("ui_telemetry", uiEvent={"input_token_count": 100}).model(
            {"text": "hm", "thought": True}, "ok")
        session, events = self.read(chat)
        self.assertEqual((kinds(events), usage_on(events)), (["UserMessage", "Thinking", "AgentMessage"], (100, 10)))
        chat.records[-1]["usageMetadata"]["totalTokenCount"] = 114
        self.assertEqual(usage_on(self.read(chat)[1]), (100, 14))

    def test_a_command_waits_for_its_result(self):
        report = "Command: ls x\nDirectory: (root)\nOutput: no x\nError: (none)\nExit Code: 2\nSignal: 0"
        chat = Chat().user("hi").model(call("run_shell_command", command="ls x")).result(
            "c1", "run_shell_command", {"output": report}, resultDisplay="no x")
        _, events = self.read(chat)
        self.assertEqual(data_of(events, "ShellCommand"), [{"command": "ls x", "exit_code": 2}])
        self.assertEqual(data_of(events, "ToolResult"), [{"name": "run_shell_command", "is_error": True, "call_id": "c1"}])
        self.assertEqual(events[2]["content"]["blocks"], [{"type": "Code", "code": "no x"}])

    def test_a_failed_call_is_an_error(self):
        chat = Chat().user("hi").model(call("read_file", file_path="a.py")).result(
            "c1", "read_file", {"error": "not there"}, status="error")
        _, events = self.read(chat)
        self.assertEqual((texts(events)[-1], daemon.is_error(events[-1])), ("not there", True))

    def test_a_sub_agent_is_told_by_its_result_and_its_tokens_count(self):
        display = {"type": "task_execution", "subagentName": "counter", "taskDescription": "Count", "taskPrompt": "count!",
                   "executionSummary": {"rounds": 2, "totalToolCalls": 1, "totalDurationMs": 153.4, "inputTokens": 2001,
                                        "outputTokens": 100, "thoughtTokens": 20, "cachedTokens": 600}}
        chat = Chat().user("hi").model(call("agent", prompt="count!")).result("c1", "agent", {"output": "4"},
                                                                             resultDisplay=display).model("done")
        session, events = self.read(chat)
        self.assertEqual(kinds(events), ["UserMessage", "ToolCall", "TaskStart", "TaskEnd", "ToolResult", "AgentMessage"])
        self.assertEqual((events[3]["duration_ms"], data_of(events, "TaskStart")), (153, [{"title": "Count"}]))
        usage = session.attributes["usage"]
        self.assertEqual((usage["input"], usage["output"], usage["subagents"]), (2201, 120, {"input": 2001, "output": 100}))

    def test_records_of_the_program_have_their_kinds(self):
        """O12"""
        chat = Chat().user("hi").system("slash_command", phase="invocation", rawCommand="/about").system(
            "slash_command", phase="result", outputHistoryItems=[{"type": "about", "text": "0.20"}]).system(
            "chat_compression", info={"newTokenCount": 3}).system("brand_new", a=1).add("stranger")
        session, events = self.read(chat)
        self.assertEqual(kinds(events), ["UserMessage", "UserMessage", "SystemMessage", "Custom", "Custom", "Custom"])
        self.assertEqual((session.unknown, session.prompt), ({"system brand_new": 1, "stranger": 1}, "hi"))

    def test_times_and_titles_are_made_even(self):
        """O8, O9, O10, O13"""
        chat = Chat().user("  ").user("é 👩‍👩‍👧\n한국어", timestamp=1772359205)
        session, events = self.read(chat)
        self.assertEqual((events[0]["timestamp"], texts(events)), ("2026-03-01T10:00:05.000Z", ["é 👩‍👩‍👧\n한국어"]))


class Damage(QwenTest):
    CHAT = (Chat().user("kept").model("kept too").model({"text": "t", "thought": True}, call("run_shell_command", command="l"))
            .result("c1", "run_shell_command", {"output": "x"}, resultDisplay="x").system("slash_command", rawCommand="/x")
            .model("a", call("agent", "c2", prompt="p")).result("c2", "agent", {"output": "4"}, resultDisplay={
                "type": "task_execution", "taskPrompt": "p", "executionSummary": {"inputTokens": 5}})
            .system("custom_title", customTitle="t").user("end"))

    def test_a_bad_line_costs_only_itself(self):
        """O5, O6"""
        lines = self.CHAT.lines()
        [(session, events)] = self.read_all(b"".join([*lines[:2], b"{broken\n", *lines[2:]]))
        self.assertEqual((texts(events)[:2], texts(events)[-1], session.bad_lines), (["kept", "kept too"], "end", 1))
        [(session, events)] = self.read_all(b"".join(lines[:2]) + lines[2][:-9])
        self.assertEqual((texts(events), session.bad_lines), (["kept", "kept too"], 0))

    def test_no_damage_raises_or_costs_what_stands_before_it(self):
        # A flipped bit in the name of a parent may hide a branch, so that names of parents are left out here.
        lines = [json.dumps({key: value for key, value in record.items() if key != "parentUuid"}).encode() + b"\n"
                 for record in self.CHAT.records]
        lines = [line.replace(b'{"uuid": "r%d"' % number, b'{"parentUuid": "lost", "uuid": "r%d"' % number)
                 for number, line in enumerate(lines, 1)]
        survives_damage(self, lines, 2, lambda content: self.read_all(content))

    def test_no_swapped_type_raises(self):
        survives_swaps(self.CHAT.records, lambda content: self.read_all(content))


@unittest.skipUnless(CORPUS.is_dir(), f"no corpus at {CORPUS}")
class RealFiles(QwenTest):
    def test_every_file_of_the_corpus_has_true_totals(self):
        sources = self.sources(CORPUS)
        self.assertEqual(len(sources), 3)
        for source in sources:
            with self.subTest(source.path):
                [(session, events)] = read_sessions("qwen", source)
                records = [json.loads(line) for line in Path(source.path).read_text().splitlines()]
                usages = [record["usageMetadata"] for record in records if record.get("usageMetadata")]
                tasks = [((record.get("toolCallResult") or {}).get("resultDisplay") or {}) for record in records]
                tasks = [task["executionSummary"] for task in tasks if isinstance(task, dict) and "executionSummary" in task]
                self.assertEqual(usage_on(events), (
                    sum(usage["promptTokenCount"] for usage in usages) + sum(task["inputTokens"] for task in tasks),
                    sum(usage["candidatesTokenCount"] for usage in usages) + sum(task["outputTokens"] for task in tasks)))
                self.assertEqual((session.bad_lines, session.unknown), (0, {}))
                self.assertEqual(read_sessions("qwen", source)[0][1], events, "two runs give the same")

    def test_no_file_of_another_tool_is_taken(self):
        for entry in daemon.walk(str(CORPUS.parent)):
            if "/qwen/" not in entry.path:
                head = daemon.read_head(entry.path)
                self.assertFalse(daemon.qwen_recognise(head, entry.path), entry.path)
                self.assertFalse(daemon.antigravity_recognise(head, entry.path), entry.path)


class Antigravity(unittest.TestCase):
    STEPS = [
        {"step_index": 0, "source": "USER_EXPLICIT", "type": "USER_INPUT", "created_at": "2026-03-01T10:00:00Z",
         "content": "<USER_REQUEST>\nlist it\n</USER_REQUEST>\n<ADDITIONAL_METADATA>x</ADDITIONAL_METADATA>\n"
                    "<USER_SETTINGS_CHANGE>The user changed setting `Model Selection` from None to Gemini 3 Pro (High). "
                    "Go on.</USER_SETTINGS_CHANGE>"},
        {"step_index": 1, "source": "SYSTEM", "type": "EPHEMERAL_MESSAGE", "content": "rules"},
        {"step_index": 2, "source": "MODEL", "type": "PLANNER_RESPONSE", "created_at": "2026-03-01T10:00:02Z",
         "thinking": "hm", "content": "I look", "tool_calls": [{"name": "default_api:run_command", "args": {
             "CommandLine": "ls", "Cwd": "/home/ada/demo"}}]},
        {"step_index": 3, "source": "MODEL", "type": "RUN_COMMAND", "created_at": "2026-03-01T10:00:03Z", "status": "DONE",
         "content": "The command failed with exit code: 2\nno"},
        {"step_index": 4, "source": "MODEL", "type": "PLANNER_RESPONSE", "created_at": "2026-03-01T10:00:04Z",
         "tool_calls": [{"name": "replace_file_content", "args": {"TargetFile": "/a.py", "TargetContent": "x",
                                                                  "ReplacementContent": "y"}}]},
        {"step_index": 5, "source": "MODEL", "type": "CODE_ACTION", "status": "ERROR", "content": "no such text"},
        {"step_index": 6, "source": "SYSTEM", "type": "ERROR_MESSAGE", "content": "quota"},
        {"step_index": 7, "source": "MODEL", "type": "PLANNER_RESPONSE", "content": "done"},
    ]

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.brain = Path(folder.name) / ".gemini" / "antigravity-cli" / "brain"
        self.logs = self.brain / MAIN / ".system_generated" / "logs"
        self.logs.mkdir(parents=True)

    def read(self, steps, name="transcript_full.jsonl"):
        content = steps if isinstance(steps, bytes) else "".join(json.dumps(step) + "\n" for step in steps).encode()
        (self.logs / name).write_bytes(content)
        found = [read_sessions("antigravity", source) for source in daemon.antigravity_sources(self.brain)]
        return [pair for pairs in found for pair in pairs]

    def test_a_transcript_is_a_session(self):
        """O75"""
        [(session, events)] = self.read(self.STEPS)
        self.assertEqual(kinds(events), ["UserMessage", "Thinking", "AgentMessage", "ShellCommand", "ToolResult", "FileEdit",
                                         "ToolResult", "SystemMessage", "AgentMessage"])
        self.assertEqual((session.session_id, session.prompt, session.model, session.attributes["cwd"]),
                         (MAIN, "list it", "Gemini 3 Pro (High)", "/home/ada/demo"))
        self.assertEqual(data_of(events, "ShellCommand"), [{"command": "ls", "exit_code": 2}])
        self.assertEqual(data_of(events, "FileEdit"), [{"path": "/a.py"}])
        self.assertEqual([daemon.is_error(event) for event in events if event["event_type"]["type"] == "ToolResult"],
                         [True, True])

    def test_the_full_transcript_is_preferred_and_the_other_decoded_twice(self):
        """O75"""
        twice = json.loads(json.dumps(self.STEPS))
        twice[2]["tool_calls"][0]["args"] = {"CommandLine": '"ls -l"', "Cwd": '"/x"'}
        [(session, events)] = self.read(twice, "transcript.jsonl")
        self.assertEqual((data_of(events, "ShellCommand")[0]["command"], session.attributes["cwd"]), ("ls -l", "/x"))
        [(session, events)] = self.read(self.STEPS)
        self.assertEqual(data_of(events, "ShellCommand")[0]["command"], "ls")

    def test_other_files_are_none(self):
        """O1, O15, O22"""
        (self.brain / MAIN / "task.md").write_text("# plan")
        self.assertEqual(self.read(b""), [])

    def test_no_damage_raises_or_costs_what_stands_before_it(self):
        lines = [json.dumps(step).encode() + b"\n" for step in self.STEPS]
        survives_damage(self, lines, 3, self.read)
        survives_swaps(self.STEPS, self.read)


if __name__ == "__main__":
    unittest.main()
