"""Gemini CLI: the operation log and the JSON files before it."""

import hashlib
import json
import os
import tempfile
import tracemalloc
import unittest
from pathlib import Path

import daemon
from damage import data_of, kinds, read_sessions, survives_damage, survives_swaps, texts, usage_on

CORPUS = Path(os.environ.get("OPENSESSION_CORPUS") or Path(__file__).parents[2] / "shared" / "corpus") / "gemini"
MAIN, AGENT = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"


def at(second):
    return f"2026-03-01T10:{second // 60:02d}:{second % 60:02d}.000Z"


def header(session=MAIN, second=0, **more):
    return {"sessionId": session, "projectHash": "ab", "startTime": at(second), "lastUpdated": at(second),
            "kind": "main", **more}


def user(name, text, second=1, **more):
    content = text if isinstance(text, list) else [{"text": text}]
    return {"id": name, "timestamp": at(second), "type": "user", "content": content, **more}


def model(name, text, second=2, tokens=(100, 10), **more):
    given = {"tokens": {"input": tokens[0], "output": tokens[1], "cached": 40, "thoughts": 5, "tool": 0,
                        "total": sum(tokens) + 5}} if tokens else {}
    return {"id": name, "timestamp": at(second), "type": "gemini", "content": text, "thoughts": [], "model": "gemini-x",
            **given, **more}


def call(name, args, output=None, error=None, **more):
    response = {"error": error} if error else {"output": output}
    return {"id": f"{name}-1", "name": name, "args": args, "status": "error" if error else "success", "timestamp": at(3),
            "result": [{"functionResponse": {"id": f"{name}-1", "name": name, "response": response}}], **more}


def patch(**facts):
    return {"$set": facts}


SHELL = call("run_shell_command", {"command": "ls", "description": "Look"},
             "<untrusted_context>\nOutput: a.py\nProcess Group PGID: 7\n</untrusted_context>", resultDisplay="a.py")


class GeminiTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.home = Path(folder.name)
        self.project = self.home / ".gemini" / "tmp" / "demo"
        self.chats = self.project / "chats"
        self.chats.mkdir(parents=True)

    def write(self, *records, name="session-2026-03-01T10-00-11111111.jsonl"):
        path = self.chats / name
        path.parent.mkdir(exist_ok=True)
        if name.endswith(".json"):
            path.write_text(json.dumps(records[0]))
        else:
            path.write_text("".join(json.dumps(record) + "\n" for record in records))
        return path

    def sources(self, root=None):
        return list(daemon.TOOLS["gemini"].sources(root or self.home / ".gemini" / "tmp"))

    def read(self, *records, **more):
        [found] = read_sessions("gemini", self.sources(self.write(*records, **more))[0])
        return found

    def read_bytes(self, content):
        path = self.chats / "session-x.jsonl"
        path.write_bytes(content)
        return read_sessions("gemini", daemon.Source("x", (path,)))


class Files(GeminiTest):
    def test_roots_follow_the_home_folder_or_its_replacement(self):
        roots = daemon.gemini_roots
        self.assertEqual(roots({}, Path("/home/ada")), [Path("/home/ada/.gemini/tmp")])
        self.assertEqual(roots({"GEMINI_CLI_HOME": "/srv"}, Path("/home/ada")), [Path("/srv/.gemini/tmp")])

    def test_of_a_session_in_both_forms_the_operation_log_counts(self):
        """O20: resuming copies the old file and leaves it there."""
        old = {**header(), "messages": [user("u", "hi")]}
        self.write(old, name="session-2026-03-01T10-00-11111111.json")
        new = self.write(header(), user("u", "hi"))
        self.assertEqual([source.path for source in self.sources()], [str(new)])

    def test_other_files_are_no_sessions(self):
        """O1, O2, O7, O15, O22"""
        (self.project / "logs.json").write_text('[{"sessionId": "x", "messageId": 0, "message": "hi"}]')
        (self.chats / "session-empty.jsonl").write_bytes(b"")
        (self.chats / "session-bytes.json").write_bytes(b"\xff\xfe\0\1" * 100)
        brain = self.home / ".gemini" / "antigravity" / "brain" / MAIN
        brain.mkdir(parents=True)
        (brain / "transcript.jsonl").write_text('{"step_index":0,"source":"MODEL","type":"PLANNER_RESPONSE"}\n')
        self.assertEqual(self.sources(self.home / ".gemini"), [])

    def test_sessions_without_messages_are_none(self):
        """O7"""
        self.assertEqual(self.read_bytes(json.dumps(header()).encode() + b"\n"), [])

    def test_a_json_file_without_an_id_is_none(self):
        """O18"""
        path = self.write({"projectHash": "ab", "messages": [user("u", "hi")]}, name="session-x.json")
        self.assertEqual(read_sessions("gemini", daemon.Source("x", (path,))), [])
        with self.assertRaises(OSError):
            read_sessions("gemini", daemon.Source("x", (self.chats / "gone.json",)))

    def test_a_huge_file_of_nothing_is_not_read_into_memory(self):
        """O4"""
        for name in ("session-big.json", "session-big.jsonl"):
            path = self.chats / name
            with open(path, "wb") as file:
                file.truncate(101 << 20)
            tracemalloc.start()
            self.assertEqual(read_sessions("gemini", daemon.Source("x", (path,))), [])
            self.assertLess(tracemalloc.get_traced_memory()[1], 4 << 20)
            tracemalloc.stop()

    def test_the_project_is_what_lies_beside_the_chats(self):
        self.assertNotIn("cwd", self.read(header(), user("u", "hi"))[0].attributes)
        context = "<session_context>\n- **Workspace Directories:**\n  - /home/ada/from-context\n</session_context>"
        cwd = lambda: self.read(header(), user("c", context), user("u", "hi"))[0].attributes["cwd"]
        self.assertEqual(cwd(), "/home/ada/from-context")
        (self.home / ".gemini" / "projects.json").write_text('{"projects": {"/home/ada/listed": "demo"}}')
        self.assertEqual(cwd(), "/home/ada/listed")
        (self.project / ".project_root").write_text("/home/ada/demo\n")
        self.assertEqual(cwd(), "/home/ada/demo")

    def test_a_project_named_by_its_hash_is_found_in_the_list(self):
        """O21"""
        digest = hashlib.sha256(b"/home/ada/secret-plan").hexdigest()
        (self.home / ".gemini" / "projects.json").write_text('{"projects": {"/home/ada/secret-plan": "other"}}')
        session, _ = self.read({**header(), "projectHash": digest}, user("u", "hi"))
        self.assertEqual(session.attributes["cwd"], "/home/ada/secret-plan")

    def test_a_sub_agent_is_a_session_that_names_its_parent(self):
        agent = call("invoke_agent", {"agent_name": "x"}, "done", agentId=AGENT)
        parent, events = self.read(header(), user("u", "hi"), model("m", "ok", toolCalls=[agent]))
        self.assertEqual(parent.related, [AGENT])
        [start] = [event for event in events if event["event_type"]["type"] == "ToolCall"]
        self.assertEqual(start["attributes"]["child_session_id"], AGENT)
        child, _ = self.read({**header(AGENT), "kind": "subagent", "directories": ["/home/ada/demo"]},
                             user("u", "count"), name=f"{MAIN}/{AGENT}.jsonl")
        self.assertEqual((child.session_id, child.attributes["parent_session_id"], child.attributes["session_role"],
                          child.attributes["cwd"]), (AGENT, MAIN, "auxiliary", "/home/ada/demo"))


class Operations(GeminiTest):
    def test_a_message_that_is_written_twice_counts_once(self):
        """O24"""
        session, events = self.read(header(), user("u", "hi"), model("m", "ok"), model("m", "ok", toolCalls=[SHELL]))
        self.assertEqual(kinds(events), ["UserMessage", "AgentMessage", "ShellCommand", "ToolResult"])
        usage = session.attributes["usage"]
        self.assertEqual((usage["input"], usage["output"], usage["cache_read"], usage["reasoning"]), (100, 15, 40, 5))
        self.assertEqual((usage["raw_input"], usage["duplicates_removed"], usage["responses"]), (200, 1, 1))

    def test_a_header_a_list_and_a_line_make_two_messages(self):
        """O20"""
        _, events = self.read(header(), patch(messages=[user("u", "hi")], lastUpdated=at(5)), model("m", "ok"))
        self.assertEqual(texts(events), ["hi", "ok"])

    def test_resuming_keeps_what_the_list_leaves_out(self):
        """O24: naive sums count every response two times; a strict replay forgets the first five."""
        first = [user("u", "hi"), model("m", "ok"), model("m", "ok", toolCalls=[SHELL]),
                 user("r", [{"functionResponse": {"id": "run_shell_command-1", "response": {"output": "a.py"}}}])]
        bare = {"id": "m", "timestamp": at(9), "type": "gemini", "content": [
            {"text": "thought", "thought": True}, {"text": "ok"},
            {"functionCall": {"id": "run_shell_command-1", "name": "run_shell_command", "args": {"command": "ls"}}}]}
        again = user("m_response", [{"functionResponse": {"id": "run_shell_command-1", "response": {"output": "a.py"}}}])
        session, events = self.read(header(), *first, header(second=8), patch(messages=[user("c", "<session_context>x")]),
                                    patch(messages=[user("u", "hi", 9), bare, again]), user("v", "more", 10),
                                    model("n", "sure", 11))
        self.assertEqual(kinds(events), ["UserMessage", "AgentMessage", "ShellCommand", "ToolResult", "UserMessage",
                                         "AgentMessage"])
        self.assertEqual(usage_on(events), (200, 30))
        self.assertEqual((session.created_at, session.attributes["usage"]["raw_input"]), (at(0), 300))

    def test_what_only_a_list_holds_is_shown_from_its_parts(self):
        bare = {"id": "m", "timestamp": at(9), "type": "gemini", "content": [
            {"text": "hm", "thought": True}, {"text": "I "}, {"text": "look"},
            {"functionCall": {"id": "c", "name": "read_file", "args": {"file_path": "a.py"}}}]}
        answer = user("m_response", [{"functionResponse": {"id": "c", "name": "read_file", "response": {"output": "x"}}}])
        _, events = self.read(header(), patch(messages=[user("u", "hi"), bare, answer]))
        self.assertEqual(kinds(events), ["UserMessage", "Thinking", "AgentMessage", "FileRead", "ToolResult"])
        self.assertEqual(texts(events)[:3], ["hi", "hm", "I look"])

    def test_going_back_drops_a_message_and_what_follows(self):
        lines = header(), user("u", "one"), model("m", "1"), user("v", "two"), model("n", "2")
        self.assertEqual(texts(self.read(*lines, {"$rewindTo": "v"}, user("w", "three"))[1]), ["one", "1", "three"])
        self.assertEqual(texts(self.read(*lines, {"$rewindTo": "unknown"}, user("w", "three"))[1]), ["three"])

    def test_the_title_is_the_summary_or_the_first_prompt(self):
        """O9"""
        session, _ = self.read(header(), user("u", "do it"), patch(summary="A good name"))
        self.assertEqual((session.title, session.prompt), ("A good name", "do it"))

    def test_start_and_end_are_those_of_the_header(self):
        """O10, O19"""
        session, _ = self.read(header(), user("u", "hi"), patch(lastUpdated=at(99)))
        self.assertEqual((session.created_at, session.updated_at), (at(0), at(99)))
        session, events = self.read(header(), {**user("u", "hi"), "timestamp": "2026-03-01T12:00:05+02:00"})
        self.assertEqual(events[0]["timestamp"], at(5))

    def test_old_json_files_say_the_same(self):
        """O16, O21"""
        old = {**header(), "messages": [user("u", "hi"), {**model("m", "ok"), "type": "model"}]}
        old["messages"][0]["content"] = "hi"
        session, events = self.read(old, name="session-x.json")
        self.assertEqual((texts(events), session.model, usage_on(events)), (["hi", "ok"], "gemini-x", (100, 15)))

    def test_a_json_file_that_is_cut_keeps_what_stands_before(self):
        """O6"""
        old = json.dumps({**header(), "messages": [user("u", "hi"), model("m", "ok"), user("v", "x" * 99)]})
        path = self.chats / "session-x.json"
        path.write_text(old[:-60])
        [(session, events)] = read_sessions("gemini", daemon.Source("x", (path,)))
        self.assertEqual((texts(events), session.session_id), (["hi", "ok"], MAIN))

    def test_a_longer_file_begins_with_the_same_events(self):
        lines = [header(), user("u", "hi"), model("m", "ok", toolCalls=[SHELL])]
        before = self.read(*lines)[1]
        self.assertEqual(self.read(*lines, user("v", "more", 9), model("n", "sure", 10))[1][:len(before)], before)

    def test_a_long_session_needs_little_memory(self):
        """O14"""
        lines = [header()]
        for number in range(1500):
            lines += [user(f"u{number}", "x" * 2000), model(f"m{number}", "y" * 2000)]
        path = self.write(*lines)
        tracemalloc.start()
        count = sum(1 for session in daemon.TOOLS["gemini"].parse(daemon.Source("x", (path,))) for _ in session.events)
        self.assertLess(tracemalloc.get_traced_memory()[1], 4 << 20)
        tracemalloc.stop()
        self.assertEqual(count, 3000)


class Messages(GeminiTest):
    def test_injected_text_is_no_prompt(self):
        """O25"""
        session, events = self.read(
            header(), user("c", "<session_context>\nThis is the Gemini CLI.\n</session_context>"),
            user("h", [{"text": "<hook_context>rules</hook_context>"}, {"text": "fix it"}]),
            user("s", "You have stopped calling tools without finishing. Go on."))
        self.assertEqual(kinds(events), ["SystemMessage", "UserMessage", "SystemMessage"])
        self.assertEqual((session.prompt, texts(events, "UserMessage")), ("fix it", ["fix it"]))

    def test_a_prompt_is_shown_as_the_person_saw_it(self):
        """O25"""
        content = [{"text": "Look at @a.png"}, {"text": "\n--- Content from referenced files ---"},
                   {"inlineData": {"mimeType": "image/png", "data": "aGk="}}]
        for more in ({}, {"displayContent": [{"text": "Look at @a.png"}]}):
            session, events = self.read(header(), user("u", content, **more))
            self.assertEqual(texts(events), ["Look at @a.png"])
            self.assertEqual(events[0]["content"]["blocks"][1]["url"], "data:image/png;base64,aGk=")

    def test_a_command_that_was_expanded_is_shown_as_typed(self):
        text = ("You are an AI agent that brings the power of Gemini directly into the terminal. Your task is to analyze "
                "the current directory.")
        session, events = self.read(header(), user("u", text))
        self.assertEqual((session.prompt, texts(events)), ("/init", ["/init", text]))
        self.assertEqual(kinds(events), ["UserMessage", "SystemMessage"])

    def test_thoughts_and_text_are_apart(self):
        """O17"""
        _, events = self.read(header(), model("m", "ok", thoughts=[{"subject": "Plan", "description": "look first"},
                                                                   {"description": ""}, None]))
        self.assertEqual(kinds(events), ["Thinking", "AgentMessage"])
        self.assertEqual(texts(events), ["**Plan** look first", "ok"])
        self.assertEqual(events[0]["attributes"]["input_tokens"], 100)
        self.assertNotIn("input_tokens", events[1]["attributes"])

    def test_blank_texts_are_dropped(self):
        """O8"""
        _, events = self.read(header(), user("a", "  \n"), user("u", "hi"), model("m", " ", tokens=None))
        self.assertEqual(texts(events), ["hi"])

    def test_usage_of_an_answer_that_says_nothing_counts(self):
        session, events = self.read(header(), user("u", "hi"), model("m", ""))
        self.assertEqual((usage_on(events), data_of(events, "Custom")), ((100, 15), [{"kind": "usage"}]))

    def test_errors_are_kept_and_passing_remarks_are_not(self):
        """O16, O19"""
        session, events = self.read(header(), *(
            {"id": text, "timestamp": at(2), "type": kind, "content": text} for kind, text in
            (("info", "Update available"), ("error", "quota"), ("warning", "slow"), ("info", "Request cancelled."))))
        self.assertEqual([event["attributes"]["meta"] for event in events[:2]], ["api_error", "notice"])
        self.assertTrue(daemon.is_error(events[0]))
        self.assertEqual(data_of(events, "Custom"), [{"kind": "interrupt"}])
        self.assertIsNone(session.prompt)

    def test_unknown_messages_and_parts_are_kept_and_counted(self):
        """O12, O23"""
        session, events = self.read(header(), user("u", [{"text": "hi"}, {"hologram": 1}]),
                                    {"id": "x", "type": "dream", "content": "zzz"})
        self.assertEqual(session.unknown, {"part hologram": 1, "dream": 1})
        self.assertEqual(kinds(events), ["UserMessage", "Custom"])

    def test_emoji_and_combining_marks_stay(self):
        """O13"""
        text = "é 👩‍👩‍👧 한국어 e\u0301"
        self.assertEqual(texts(self.read(header(), user("u", text))[1]), [text])


class Tools(GeminiTest):
    def run_call(self, *calls):
        return self.read(header(), model("m", "", toolCalls=list(calls)))[1]

    def test_a_command_has_its_output_and_exit_code(self):
        _, command, result = [None, *self.run_call(SHELL)]
        self.assertEqual(command["event_type"]["data"], {"command": "ls", "exit_code": 0})
        self.assertEqual([block.get("code") or block["text"] for block in command["content"]["blocks"]], ["ls", "Look"])
        self.assertEqual(result["content"]["blocks"], [{"type": "Code", "code": "a.py"}])
        self.assertEqual(result["event_type"]["data"],
                         {"name": "run_shell_command", "is_error": False, "call_id": command["event_id"]})

    def test_exit_codes_are_read_in_both_forms(self):
        report = "Command: ls x\nDirectory: (root)\nOutput: no x\nError: (none)\nExit Code: 2\nSignal: 0"
        for output, code in ((report, 2), ("Output: no x\nExit Code: 127\nProcess Group PGID: 7", 127),
                             ("Output: x\nSignal: 9", None), ("Command moved to background", None)):
            events = self.run_call(call("run_shell_command", {"command": "ls x"}, output))
            self.assertEqual(events[0]["event_type"]["data"].get("exit_code"), code)
            self.assertEqual(events[1]["event_type"]["data"]["is_error"], bool(code))

    def test_a_new_file_is_created_and_one_that_was_there_edited(self):
        diff = "Index: a\n=====\n--- a.py\tOriginal\n+++ a.py\tWritten\n@@ -1,1 +1,1 @@\n-x\n+y\n"
        args = {"file_path": "/p/a.py", "content": "y\n"}
        new, _ = self.run_call(call("write_file", args, "ok", resultDisplay={
            "fileDiff": diff, "originalContent": "", "isNewFile": True}))
        self.assertEqual((new["event_type"]["type"], new["attributes"]["diff_lines_added"]), ("FileCreate", 1))
        self.assertEqual(new["content"]["blocks"], [{"type": "Code", "code": "y\n", "language": "python"}])
        changed, _ = self.run_call(call("write_file", args, "ok", resultDisplay={"fileDiff": diff, "originalContent": "x\n"}))
        self.assertEqual(changed["event_type"], {"type": "FileEdit", "data": {
            "path": "/p/a.py", "diff": "--- a.py\n+++ a.py\n@@ -1,1 +1,1 @@\n-x\n+y"}})
        self.assertNotIn("diff_lines_added", changed["attributes"])

    def test_an_edit_that_failed_changes_no_line(self):
        event, result = self.run_call(call("replace", {"file_path": "a.py", "old_string": "x", "new_string": "y"},
                                           error="not found"))
        self.assertEqual(event["event_type"]["data"], {"path": "a.py"})
        self.assertIn("+y", event["content"]["blocks"][0]["code"])
        self.assertTrue(daemon.is_error(result))

    def test_tools_have_their_kinds(self):
        for name, args, kind in (("read_file", {"absolute_path": "a"}, "FileRead"), ("glob", {"pattern": "*"}, "FileSearch"),
                                 ("search_file_content", {"pattern": "x"}, "CodeSearch"),
                                 ("google_web_search", {"query": "x"}, "WebSearch"),
                                 ("web_fetch", {"prompt": "sum up https://a.example/b please"}, "WebFetch"),
                                 ("save_memory", {"fact": "x"}, "ToolCall"), ("read_file", {}, "ToolCall")):
            self.assertEqual(kinds(self.run_call(call(name, args, "x"))), [kind, "ToolResult"])

    def test_a_call_without_a_name_is_none_and_one_without_a_result_waits(self):
        """O17"""
        waiting = {"id": "w", "name": "glob", "args": {"pattern": "*"}, "status": "executing"}
        self.assertEqual(kinds(self.run_call({**SHELL, "name": ""}, waiting)), ["FileSearch", "Custom"][:1])

    def test_a_result_alone_is_no_prompt(self):
        """O23"""
        _, events = self.read(header(), user("u", [{"functionResponse": {"id": "c", "name": "glob",
                                                                         "response": {"output": "a"}}}]))
        self.assertEqual((kinds(events), data_of(events, "ToolResult")[0]["name"]), (["ToolResult"], "glob"))


class Damage(GeminiTest):
    LINES = [header(), user("u", "kept"), model("m", "kept too"), model("n", "ok", 3),
             model("n", "ok", 3, toolCalls=[SHELL]), user("r", SHELL["result"]), patch(lastUpdated=at(9)),
             user("v", [{"text": "see"}, {"inlineData": {"mimeType": "image/png", "data": "aGk="}}], 10),
             model("o", [{"text": "a", "thought": True}, {"functionCall": {"id": "z", "name": "glob", "args": {}}}], 11,
                   thoughts=[{"subject": "s", "description": "d"}]),
             {"id": "e", "type": "error", "timestamp": at(12), "content": "quota"}]

    def encoded(self):
        return [json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in self.LINES]

    def test_a_bad_line_costs_only_itself(self):
        """O5, O6"""
        lines = self.encoded()
        for damage, bad_lines in ((b"{broken\n", 1), (b"[]\n", 0), (b'{"id":"m2","type":"gem\n', 1), (b"\n", 0)):
            [(session, events)] = self.read_bytes(b"".join([*lines[:3], damage, *lines[3:]]))
            self.assertEqual((texts(events)[:2], session.bad_lines), (["kept", "kept too"], bad_lines))
        [(session, events)] = self.read_bytes(b"".join(lines[:3]) + lines[3][:-20])
        self.assertEqual((texts(events), session.bad_lines), (["kept", "kept too"], 0))

    def test_no_damage_raises_or_costs_what_stands_before_it(self):
        survives_damage(self, self.encoded(), 3, self.read_bytes)

    def test_no_swapped_type_raises(self):
        survives_swaps([*self.LINES, patch(messages=[user("u", "x"), model("m", "y")], directories=["/x"], summary="s"),
                        {"$rewindTo": "u"}, user("w", "z")], self.read_bytes)


def slow_totals(path):
    """(input, output) counted in the most obvious way: the last tokens of each id."""
    text = path.read_text()
    if path.suffix == ".json":
        messages = json.loads(text).get("messages", [])
    else:
        messages = [json.loads(line) for line in text.splitlines()]
    last = {message["id"]: message["tokens"] for message in messages if message.get("tokens")}
    return (sum(tokens["input"] + tokens["tool"] for tokens in last.values()),
            sum(tokens["output"] + tokens["thoughts"] for tokens in last.values()))


@unittest.skipUnless(CORPUS.is_dir(), f"no corpus at {CORPUS}")
class RealFiles(GeminiTest):
    def test_every_file_of_the_corpus_has_true_totals(self):
        sources = self.sources(CORPUS)
        self.assertGreater(len(sources), 10)
        for source in sources:
            with self.subTest(source.path):
                [(session, events)] = read_sessions("gemini", source)
                self.assertEqual(usage_on(events), slow_totals(Path(source.path)))
                self.assertEqual((session.bad_lines, session.unknown), (0, {}))
                self.assertEqual(read_sessions("gemini", source)[0][1], events, "two runs give the same")

    def test_the_resumed_session_has_its_known_total(self):
        """O24: 10,620 tokens, where lines add up to 19,112."""
        [path] = CORPUS.rglob("*9350da8b.jsonl")
        [(session, events)] = read_sessions("gemini", self.sources(path)[0])
        usage = session.attributes["usage"]
        self.assertEqual((usage["input"] + usage["output"], usage["raw_input"] + usage["raw_output"]), (10620, 19112))
        self.assertEqual(sum("-result" not in event["event_id"] and "call_id" not in event["event_type"].get("data", {})
                             and "tool" in (event.get("attributes") or {}) for event in events), 8)

    def test_titles_are_what_people_wrote(self):
        for source in self.sources(CORPUS):
            [(session, _)] = read_sessions("gemini", source)
            self.assertNotIn("<session_context>", session.title or session.prompt or "")

    def test_no_file_of_another_tool_is_taken(self):
        for entry in daemon.walk(str(CORPUS.parent)):
            if "/gemini/" not in entry.path:
                self.assertFalse(daemon.gemini_recognise(daemon.read_head(entry.path), entry.path), entry.path)


if __name__ == "__main__":
    unittest.main()
