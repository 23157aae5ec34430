"""Kimi CLI and Factory Droid."""

import hashlib
import json
import unittest

import daemon
from damage import data_of, kinds, survives_damage, survives_swaps, texts, usage_on
from transcripts import CORPUS, ParserTest, in_usual_places, json_lines

START = 1772359200000
ID = "11111111-1111-4111-8111-111111111111"


class Wire:
    """The records of a wire file of Kimi Code, one second apart."""

    def __init__(self, start=START):
        self.start = start
        self.records = [{"type": "metadata", "protocol_version": "1.4", "created_at": start}]

    def add(self, type_, **more):
        self.records.append({"type": type_, **more, "time": self.start + 1000 * len(self.records)})
        return self

    def event(self, type_, **more):
        return self.add("context.append_loop_event", event={"type": type_, "uuid": f"u{len(self.records)}", **more})

    def user(self, text, kind="user"):
        message = {"role": "user", "content": [{"type": "text", "text": text}], "origin": {"kind": kind}}
        self.add("turn.prompt", input=message["content"], origin={"kind": kind})
        return self.add("context.append_message", message=message)

    def say(self, text):
        return self.event("content.part", part={"type": "text", "text": text})

    def call(self, call_id, name, args, output=None, **result):
        self.event("tool.call", toolCallId=call_id, name=name, args=args)
        return self if output is None else self.event("tool.result", toolCallId=call_id, result={"output": output, **result})

    def usage(self, other, output=10, read=0, scope="turn"):
        usage = {"inputOther": other, "output": output, "inputCacheRead": read, "inputCacheCreation": 0}
        self.event("step.end", messageId=f"r{len(self.records)}", usage=usage)
        return self.add("usage.record", model="kimi-x", usage=usage, usageScope=scope)


class KimiTest(ParserTest):
    tool = "kimi"
    FOLDER = f".kimi-code/sessions/wd_demo_ab/session_{ID}"

    def wire(self, wire, agent="main"):
        return self.write(f"{self.FOLDER}/agents/{agent}/wire.jsonl", wire.records)

    def of(self, wire):
        return self.read(self.wire(wire))

    def of_bytes(self, content):
        return self.sessions(self.write("w/wire.jsonl", content))


class Kimi(KimiTest):
    def test_the_agent_main_is_the_session_and_state_names_it(self):  # O73, O74
        self.wire(Wire().user("hi"))
        self.wire(Wire(START + 500).user("count").say("4"), "agent-0")
        self.assertEqual(in_usual_places("kimi", self.home), [ID])
        self.assertEqual(in_usual_places("kimi", self.home / "x", KIMI_CODE_HOME=str(self.home / ".kimi-code")), [ID])
        self.write(f"{self.FOLDER}/state.json", {"title": "Mine", "workDir": "/home/ada/demo", "updatedAt": "2026-03-01T11:00:00Z"})
        session, _ = self.read(self.home)
        self.assertEqual((session.title, session.attributes["cwd"], session.updated_at),
                         ("Mine", "/home/ada/demo", "2026-03-01T11:00:00.000Z"))

    def test_a_prompt_is_told_twice_and_shown_once(self):  # O73
        session, events = self.of(Wire().user("hi").user("<system-reminder>x</system-reminder>", "injection"))
        self.assertEqual((texts(events), session.prompt), (["hi"], "hi"))

    def test_thoughts_are_no_replies_and_the_model_is_known(self):  # O73
        wire = Wire().add("config.update", modelAlias="kimi-x", cwd="/home/ada/demo")
        wire.event("content.part", part={"type": "think", "think": "hm"}).say("ok").say("  ")
        session, events = self.of(wire)
        self.assertEqual(list(zip(kinds(events), texts(events))), [("Thinking", "hm"), ("AgentMessage", "ok")])
        self.assertEqual((session.model, session.attributes["cwd"]), ("kimi-x", "/home/ada/demo"))

    def test_calls_have_results_exit_codes_and_errors(self):  # O73
        wire = Wire().call("Bash_0", "Bash", {"command": "x"}, "no\nCommand failed with exit code: 3.", isError=True)
        wire.call("Read_1", "Read", {"path": "a.py"}, "7\tx = 1\n8\ty = 2").call("Edit_2", "Edit", {
            "path": "a.py", "old_string": "a", "new_string": "b"}, "ok")
        _, events = self.of(wire)
        self.assertEqual(kinds(events), ["ShellCommand", "ToolResult", "FileRead", "ToolResult", "FileEdit", "ToolResult"])
        self.assertEqual((data_of(events, "ShellCommand")[0]["exit_code"], daemon.is_error(events[1])), (3, True))
        self.assertEqual(events[3]["content"]["blocks"], [{"type": "Code", "code": "x = 1\ny = 2", "start_line": 7}])
        self.assertIn("-a\n+b", data_of(events, "FileEdit")[0]["diff"])

    def test_a_step_counts_once_and_a_compaction_too(self):
        wire = Wire().say("a").usage(100, read=50).say("b").usage(200)
        wire.add("context.apply_compaction", summary="so far")
        wire.add("usage.record", usage={"inputOther": 30, "output": 5}, usageScope="session")
        session, events = self.of(wire)
        self.assertEqual((usage_on(events), session.attributes["usage"]["duplicates_removed"]), ((380, 25), 2))
        self.assertEqual(data_of(events, "Custom"), [{"kind": "compaction"}, {"kind": "usage"}])

    def test_sub_agents_are_nested_behind_their_call(self):
        wire = Wire().user("go").call("Agent_0", "Agent", {"description": "Count"}, "4")
        self.wire(Wire(START + 3500).user("count", "system_trigger").call("Agent_0", "Bash", {"command": "ls"}, "x").usage(10), "agent-0")
        session, events = self.of(wire)
        self.assertEqual(kinds(events), ["UserMessage", "ToolCall", "TaskStart", "SystemMessage", "ShellCommand", "ToolResult",
                                         "TaskEnd", "ToolResult"])
        self.assertEqual(data_of(events, "TaskStart"), [{"title": "Count"}])
        self.assertEqual(session.attributes["usage"]["subagents"], {"input": 10, "output": 10})

    def test_a_sub_agent_alone_knows_its_session(self):
        self.wire(Wire().user("count", "system_trigger").say("4"), "agent-0")
        session, _ = self.read(self.home)
        self.assertEqual((session.session_id, session.attributes["parent_session_id"]), (f"{ID}.agent-0", ID))

    def test_the_older_form_is_read(self):  # O74
        project = hashlib.md5(b"/home/ada/demo").hexdigest()
        messages = [("TurnBegin", {"user_input": "fix it"}), ("StepBegin", {"n": 1}),
                    ("ContentPart", {"type": "think", "think": "hm"}), ("ContentPart", {"type": "text", "text": "ok"}),
                    ("ToolCall", {"id": "c1", "function": {"name": "StrReplaceFile", "arguments":
                                                           '{"path":"a","edit":{"old":"x","new":"y"}}'}}),
                    ("ToolResult", {"tool_call_id": "c1", "return_value": {"is_error": True, "output": "", "message": "no"}}),
                    ("StatusUpdate", {"message_id": "m", "token_usage": {"input_other": 10, "output": 2, "input_cache_read": 5}}),
                    ("StatusUpdate", {"message_id": "m", "token_usage": {"input_other": 10, "output": 2, "input_cache_read": 5}}),
                    ("BrandNew", {})]
        records = [{"type": "metadata", "protocol_version": "1.0"}] + [
            {"timestamp": START / 1000 + place, "message": {"type": kind, "payload": payload}}
            for place, (kind, payload) in enumerate(messages)]
        self.write(f".kimi/sessions/{project}/{ID}/wire.jsonl", records)
        self.write(".kimi/kimi.json", {"work_dirs": [{"path": "/home/ada/demo"}]})
        session, events = self.read(self.home)
        self.assertEqual(kinds(events), ["UserMessage", "Thinking", "AgentMessage", "FileEdit", "ToolResult", "Custom"])
        self.assertEqual((session.attributes["cwd"], usage_on(events), session.unknown), ("/home/ada/demo", (15, 2), {"BrandNew": 1}))
        self.assertEqual((daemon.event_texts(events[4]), daemon.is_error(events[4])), ("no", True))

    def test_files_without_the_envelope_are_none(self):  # O1, O2, O4, O73
        for content in (b"", b"\n", b"\xff\0", b'{"type":"turn.prompt"}\n', json_lines(Wire().records)):
            self.assertEqual(self.of_bytes(content), [])
        path = self.write("w/wire.jsonl", b"")
        with open(path, "r+b") as file:
            file.truncate(101 << 20)
        self.assertEqual(self.sessions(path), [])

    def test_damaged_lines_cost_only_themselves(self):  # O5, O6, O12
        head, first, last = json_lines(Wire().say("a").say("b").records).splitlines(True)
        [(session, events)] = self.of_bytes(head + first + b"{broken\n" + last + b'{"type":"new.kind"}\n' + last[:-9])
        self.assertEqual((texts(events)[:2], session.bad_lines, session.unknown), (["a", "b"], 1, {"new.kind": 1}))

    def test_no_damage_or_swapped_type_raises(self):
        wire = Wire().user("kept").say("kept too").usage(5).call("c1", "Bash", {"command": "x"}, [{"type": "text", "text": "y"}])
        wire.add("config.update", modelAlias="m").add("context.apply_compaction", summary="s").add("older")
        survives_damage(self, json_lines(wire.records).splitlines(True), 4, self.of_bytes)
        wire.records.append({"timestamp": 1.5, "message": {"type": "ToolCall", "payload": {"id": "c", "function": {"arguments": "{}"}}}})
        survives_swaps(wire.records, self.of_bytes)


class DroidTest(ParserTest):
    tool = "droid"
    HEAD = {"type": "session_start", "id": ID, "title": "Repair", "cwd": "/home/ada/demo", "version": "0.81.0"}

    def message(self, role, *blocks, **more):
        self.second = getattr(self, "second", 0) + 1
        content = list(blocks) if not blocks or isinstance(blocks[0], dict) else blocks[0]
        return {"type": "message", "id": f"m{self.second}", "timestamp": f"2026-03-01T10:00:{self.second:02d}.000Z",
                "message": {"role": role, "content": content}, **more}

    def of(self, *records, head=HEAD):
        return self.read(self.write(f".factory/sessions/-demo/{ID}.jsonl", [head, *records]))

    def of_bytes(self, content):
        return self.sessions(self.write(f".factory/sessions/-demo/{ID}.jsonl", content))


class Droid(DroidTest):
    def test_the_head_and_the_settings_give_the_facts(self):
        self.write(f".factory/sessions/-demo/{ID}.settings.json", {"model": "m-1", "providerLock": "acme", "tokenUsage": {
            "inputTokens": 100, "outputTokens": 20, "cacheCreationTokens": 5, "cacheReadTokens": 50, "thinkingTokens": 7}})
        session, events = self.of(self.message("user", "hi"))
        self.assertEqual((session.title, session.model, session.provider, session.tool_version, session.attributes["cwd"]),
                         ("Repair", "m-1", "acme", "0.81.0", "/home/ada/demo"))
        self.assertEqual((usage_on(events), kinds(events)), ((155, 20), ["UserMessage", "Custom"]))
        self.assertEqual(in_usual_places("droid", self.home), [ID])

    def test_without_an_id_the_file_names_the_session(self):  # O76
        self.assertEqual(self.of(self.message("user", "hi"), head={"type": "session_start", "title": ""})[0].session_id, ID)

    def test_reminders_are_not_in_the_prompt(self):
        text = "<system-reminder>be nice</system-reminder>\n\nfix it\n<system-reminder>x</system-reminder>"
        session, events = self.of(self.message("user", {"type": "text", "text": text}))
        self.assertEqual((session.prompt, texts(events)), ("fix it", ["fix it"]))

    def test_blocks_have_their_kinds(self):  # O76
        calls = [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "ok"}, {"type": "redacted_thinking"},
                 {"type": "tool_use", "id": "t1", "name": "Execute", "input": {"command": "ls"}},
                 {"type": "tool_use", "id": "t2", "name": "Edit", "input": {"file_path": "a", "old_str": "x", "new_str": "y"}},
                 {"type": "brand_new"}]
        results = [{"type": "tool_result", "tool_use_id": "t1", "content": "no (exit code: 2)", "is_error": True},
                   {"type": "tool_result", "tool_use_id": "t2", "content": [{"type": "text", "text": "done"}, {
                       "type": "image", "source": {"media_type": "image/png", "data": "aa"}}]}]
        session, events = self.of(self.message("assistant", *calls), self.message("user", *results), {"type": "todo_state", "todos": []},
                                  {"type": "compaction_state", "summaryText": "so far"})
        self.assertEqual(kinds(events), ["Thinking", "AgentMessage", "ShellCommand", "FileEdit", "Custom", "ToolResult",
                                         "ToolResult", "Custom"])
        self.assertEqual((data_of(events, "ShellCommand")[0]["exit_code"], session.prompt), (2, None))
        self.assertEqual((events[6]["content"]["blocks"][1]["type"], session.unknown), ("Image", {"block brand_new": 1}))

    def test_a_sub_agents_session_knows_its_parent(self):
        session, _ = self.of(self.message("user", "hi"), head={**self.HEAD, "callingSessionId": "up"})
        self.assertEqual((session.attributes["parent_session_id"], session.attributes["session_role"]), ("up", "auxiliary"))

    def test_empty_and_foreign_files_are_none(self):  # O1, O2, O7
        for content in (b"", b"\xff\0", json_lines([self.HEAD]), b'{"type":"session","id":"x"}\n'):
            self.assertEqual(self.of_bytes(content), [])

    def test_no_damage_or_swapped_type_raises(self):  # O5, O76
        records = [self.HEAD, self.message("user", "kept"), self.message("assistant", {"type": "text", "text": "kept too"}),
                   self.message("assistant", {"type": "tool_use", "id": "t", "name": "ApplyPatch", "input": {"input": "x"}}),
                   self.message("user", {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "y"}]})]
        survives_damage(self, json_lines(records).splitlines(True), 3, self.of_bytes)
        survives_swaps(records, self.of_bytes)


@unittest.skipUnless((CORPUS / "kimi").is_dir(), f"no corpus at {CORPUS}")
class RealFiles(ParserTest):
    def test_every_kimi_file_has_true_totals(self):
        for path in sorted((CORPUS / "kimi").rglob("*.jsonl")):
            session, events = self.read(path, "kimi")
            usages = [record["usage"] for record in map(json.loads, path.read_text().splitlines()) if record["type"] == "usage.record"]
            self.assertEqual(usage_on(events), (
                sum(usage["inputOther"] + usage["inputCacheRead"] + usage["inputCacheCreation"] for usage in usages),
                sum(usage["output"] for usage in usages)))
            self.assertEqual((session.bad_lines, session.unknown), (0, {}))
            self.assertEqual(self.read(path, "kimi")[1], events, "two runs give the same")

    def test_every_droid_file_is_read(self):
        found = self.sessions(CORPUS / "droid", "droid")
        self.assertEqual([(session.session_id, session.prompt) for session, _ in found],
                         [("droid_large", "Step 1"), ("droid_drift", "Do the thing")])

    def test_no_file_of_another_tool_is_taken(self):
        for entry in daemon.walk(str(CORPUS)):
            inside = {"kimi": daemon.kimi_inside, "droid": daemon.droid_inside, "goose": daemon.goose_inside}
            for tool, check in inside.items():
                if f"/{tool}/" not in entry.path:
                    self.assertFalse(check(entry.path), entry.path)


if __name__ == "__main__":
    unittest.main()
