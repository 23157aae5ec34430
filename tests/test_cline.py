"""Cline, Roo Code and Kilo Code: task folders of the extensions, and the sessions of Cline's SDK."""

import json
import os
import tempfile
import unittest
from pathlib import Path

import daemon
from damage import data_of, kinds, read_sessions, survives_damage, survives_swaps, texts

CORPUS = Path(os.environ.get("OPENSESSION_CORPUS") or Path(__file__).parents[2] / "shared" / "corpus") / "cline"
TASK, START = "1770000000000", 1770000000000
DETAILS = ("<environment_details>\n# Current Working Directory (/home/ada/demo) Files\na.py\n"
           "<model>claude-sonnet-4</model>\n</environment_details>")
BLOCK = "------- SEARCH\nold line\n=======\nnew line\n+++++++ REPLACE\n"


def text(value):
    return {"type": "text", "text": value}


def user(*blocks, second=0):
    return {"role": "user", "content": [text(block) if isinstance(block, str) else block for block in blocks],
            "ts": START + second * 1000}


def model(*blocks, second=1, tokens=(100, 10, 40), **more):
    prompt, completion, cached = tokens
    return {"role": "assistant", "content": [text(block) if isinstance(block, str) else block for block in blocks],
            "ts": START + second * 1000, "modelInfo": {"modelId": "claude-sonnet-4", "providerId": "anthropic", "mode": "act"},
            "metrics": {"tokens": {"prompt": prompt, "completion": completion, "cached": cached}}, **more}


def call(name, id="t1", **given):
    return {"type": "tool_use", "id": id, "name": name, "input": given}


def result(content, id="t1", **more):
    return {"type": "tool_result", "tool_use_id": id, "content": content, **more}


def ui(kind, value="", second=1, **more):
    return {"ts": START + second * 1000, "type": "say", "say": kind,
            "text": value if isinstance(value, str) else json.dumps(value), **more}


def conversation():
    """A task with every form of result and of injected text."""
    return [
        user("<task>\nFix the parser\n</task>", "# task_progress RECOMMENDED\n", DETAILS),
        model("I look first.", call("read_file", path="a.py"), call("execute_command", "t2", command="make", requires_approval=False)),
        user("[read_file for 'a.py'] Result:\nprint(1)", "[execute_command for 'make'] Result:\nCommand failed with exit code: 2\nboom", DETAILS, second=2),
        model({"type": "thinking", "thinking": "Hm."}, call("replace_in_file", "t3", path="a.py", diff=BLOCK), second=3),
        user(result("The content was saved.", "t3"), second=4),
        model(call("ask_followup_question", "t4", question="Which name?", options=["a", "b"]), second=5),
        user("[ask_followup_question for 'Which name?'] Result:\n<answer>\nName it b\n</answer>", second=6),
        model(call("attempt_completion", "t5", result="All done."), second=7),
    ]


class ClineTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.home = Path(folder.name)
        self.task = self.home / ".cline" / "data" / "tasks" / TASK
        self.task.mkdir(parents=True)

    def write(self, content, name="api_conversation_history.json", folder=None):
        path = (folder or self.task) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        return path

    def read_all(self, root=None):
        return [found for source in daemon.cline_sources(root or self.task) for found in read_sessions("cline", source)]

    def read(self, *messages):
        self.write(list(messages))
        [found] = self.read_all()
        return found


class Tasks(ClineTest):
    def test_a_task_is_read_with_what_the_person_wrote_and_nothing_that_was_put_in(self):
        """O53 O54"""
        session, events = self.read(*conversation())
        self.assertEqual(kinds(events), ["UserMessage", "AgentMessage", "FileRead", "ShellCommand", "ToolResult", "ToolResult",
                                         "Thinking", "FileEdit", "ToolResult", "AgentMessage", "UserMessage", "AgentMessage"])
        self.assertEqual(texts(events, "UserMessage"), ["Fix the parser", "Name it b"])
        self.assertEqual(texts(events, "AgentMessage"), ["I look first.", "Which name?\n- a\n- b", "All done."])
        self.assertEqual((session.session_id, session.prompt, session.model, session.provider),
                         (TASK, "Fix the parser", "claude-sonnet-4", "anthropic"))
        self.assertEqual(session.attributes["cwd"], "/home/ada/demo")

    def test_results_that_are_text_belong_to_calls_in_their_order(self):
        """O54"""
        _, events = self.read(user("<task>x</task>"),
                              model(call("read_file", "t1", path="a.py"), call("read_file", "t2", path="b.py")),
                              user("[read_file for 'a.py'] Result:\none", "[read_file for 'b.py'] Result:\ntwo"))
        self.assertEqual([event["call_id"] for event in data_of(events, "ToolResult")], ["t1", "t2"])
        shown = [event["content"]["blocks"][0] for event in events if "call_id" in daemon.event_kind(event)[1]]
        self.assertEqual(shown, [{"type": "Code", "code": "one", "language": "python"},
                                 {"type": "Code", "code": "two", "language": "python"}])

    def test_a_result_without_its_call_still_names_the_file(self):
        """O53"""
        _, events = self.read(user("<task>x</task>"), user("[read_file for 'src/a.rs'] Result:\nfn main() {}"))
        self.assertEqual(data_of(events, "FileRead"), [{"path": "src/a.rs"}])
        self.assertEqual(kinds(events), ["UserMessage", "FileRead", "ToolResult"])

    def test_a_heading_may_stand_in_a_text_of_its_own(self):
        _, events = self.read(user("<task>x</task>"), model(call("read_file", path="a.txt")),
                              user("[read_file for 'a.txt'] Result:", "the content", DETAILS))
        self.assertEqual(kinds(events), ["UserMessage", "FileRead", "ToolResult"])
        self.assertEqual(events[-1]["content"]["blocks"][0]["code"], "the content")

    def test_a_failed_command_has_its_exit_code_and_is_an_error(self):
        _, events = self.read(*conversation())
        [command] = data_of(events, "ShellCommand")
        self.assertEqual(command, {"command": "make", "exit_code": 2})
        self.assertEqual([found["is_error"] for found in data_of(events, "ToolResult")], [False, True, False])

    def test_an_edit_has_the_diff_of_its_search_and_replace_blocks(self):
        _, events = self.read(*conversation())
        [edit] = data_of(events, "FileEdit")
        self.assertEqual(edit["diff"].splitlines()[-2:], ["-old line", "+new line"])
        found = daemon.search_replace_pairs("<<<<<<< SEARCH\n:start_line:3\n-------\na\n=======\nb\n>>>>>>> REPLACE\n" + BLOCK)
        self.assertEqual(found, [("a\n", "b\n"), ("old line\n", "new line\n")])

    def test_an_edit_that_failed_changed_no_lines(self):
        _, events = self.read(user("<task>x</task>"), model(call("replace_in_file", path="a.py", diff=BLOCK)),
                              user(result("The tool execution failed with the following error:\n<error>no match</error>")))
        self.assertEqual(data_of(events, "FileEdit"), [{"path": "a.py"}])
        self.assertTrue(data_of(events, "ToolResult")[0]["is_error"])

    def test_calls_written_as_xml_are_calls(self):
        reply = ("<thinking>Let me see</thinking>\nI write it.\n<write_to_file>\n<path>a.md</path>\n<content>\n# A\n</content> inside\n"
                 "</content>\n</write_to_file>")
        _, events = self.read(user("<task>x</task>"), model(reply), user("[write_to_file for 'a.md'] Result:\nSaved."))
        self.assertEqual(kinds(events), ["UserMessage", "Thinking", "AgentMessage", "FileCreate", "ToolResult"])
        self.assertEqual(events[3]["content"]["blocks"][0]["code"], "# A\n</content> inside")
        self.assertEqual(events[4]["event_type"]["data"]["call_id"], events[3]["event_id"])

    def test_feedback_on_the_result_is_a_prompt(self):
        _, events = self.read(user("<task>x</task>"), model(call("attempt_completion", result="Done")),
                              user("[attempt_completion] Result:", "The user has provided feedback on the results.",
                                   "<feedback>\nOne more thing\n</feedback>", DETAILS))
        self.assertEqual(texts(events, "UserMessage"), ["x", "One more thing"])

    def test_a_resumed_task_shows_the_new_instructions(self):
        _, events = self.read(user("<task>x</task>"), user("[TASK RESUMPTION] This task was interrupted.",
                                                           "New instructions for task continuation:\n<user_message>\ngo on\n</user_message>"))
        self.assertEqual(texts(events, "UserMessage"), ["x", "go on"])
        self.assertEqual([event["attributes"]["meta"] for event in events if "meta" in event.get("attributes", {})], ["notice"])

    def test_pictures_of_a_prompt_stay_with_it(self):
        picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
        _, events = self.read(user("<task>look</task>", picture))
        self.assertEqual([block["type"] for block in events[0]["content"]["blocks"]], ["Text", "Image"])

    def test_other_spellings_of_content_and_time_are_read(self):
        """O52"""
        _, events = self.read({"role": "user", "text": "plain words", "timestamp": "2026-03-01T10:00:00+01:00"},
                              {"role": "assistant", "message": "an answer", "timestamp": START})
        self.assertEqual(texts(events), ["plain words", "an answer"])
        self.assertEqual(events[0]["timestamp"], "2026-03-01T09:00:00.000Z")

    def test_unknown_roles_and_blocks_are_kept_and_counted(self):
        """O12"""
        session, events = self.read(user("<task>x</task>"), {"role": "oracle", "content": "?"}, model({"type": "hologram", "x": 1}))
        self.assertEqual(session.unknown, {"oracle": 1, "block hologram": 1})
        self.assertEqual(kinds(events), ["UserMessage", "Custom", "AgentMessage"])


class Usage(ClineTest):
    def test_the_cache_is_part_of_the_input(self):
        session, _ = self.read(user("<task>x</task>"), model("ok", tokens=(100, 10, 40)), model("more", tokens=(5, 1, 0)))
        self.assertEqual((session.attributes["usage"]["input"], session.attributes["usage"]["output"]), (145, 11))

    def test_the_requests_of_the_ui_count_instead_where_they_are_there(self):
        requests = [ui("api_req_started", {"tokensIn": 70, "tokensOut": 9, "cacheReads": 20, "cacheWrites": 10, "cost": 0.25}, 0.5),
                    ui("api_req_started", {"tokensIn": 7, "tokensOut": 2, "cost": 0.5}, 60)]
        self.write(requests, "ui_messages.json")
        session, events = self.read(user("<task>x</task>"), model("ok"))
        usage = session.attributes["usage"]
        self.assertEqual([usage[key] for key in ("input", "output", "cache_read", "cache_write", "responses", "cost_usd")],
                         [107, 11, 20, 10, 2, 0.75])
        self.assertEqual(events[1]["attributes"]["input_tokens"], 100)
        self.assertEqual(daemon.event_kind(events[-1]), ("Custom", {"kind": "usage"}))

    def test_messages_without_times_take_them_from_the_ui(self):
        self.write([ui("api_req_started", {}, 5, conversationHistoryIndex=0)], "ui_messages.json")
        messages = [user("<task>x</task>"), model("ok")]
        for message in messages:
            del message["ts"]
        _, events = self.read(*messages)
        self.assertEqual(events[1]["timestamp"], daemon.utc(START + 5000))


class UserInterface(ClineTest):
    def test_a_task_with_both_files_is_one_session(self):
        """O50"""
        self.write([ui("task", "x", 0)], "ui_messages.json")
        self.write(conversation())
        self.assertEqual(len(self.read_all()), 1)

    def test_the_messages_of_the_ui_alone_make_a_session(self):
        """O50"""
        self.write([
            ui("task", "Fix it", 0, images=["data:image/png;base64,aGk="]),
            ui("api_req_started", {"tokensIn": 50, "tokensOut": 5}), ui("reasoning", "Hm."), ui("text", "I look."),
            ui("tool", {"tool": "readFile", "path": "a.py", "content": "print(1)"}),
            ui("tool", {"tool": "newFileCreated", "path": "b.py", "content": "x = 1\n"}),
            ui("command", "make"), ui("command_output", "one"), ui("command_output", "two"),
            ui("error", "Rate limit"), ui("checkpoint_created"),
            {"ts": START + 9000, "type": "ask", "ask": "followup", "text": json.dumps({"question": "Sure?", "options": []})},
            ui("user_feedback", "Yes", 10), ui("completion_result", "Done", 11), ui("martian", "?", 12)], "ui_messages.json")
        [(session, events)] = self.read_all()
        self.assertEqual(kinds(events), ["UserMessage", "Thinking", "AgentMessage", "FileRead", "ToolResult", "FileCreate",
                                         "ToolResult", "ShellCommand", "ToolResult", "SystemMessage", "AgentMessage",
                                         "UserMessage", "AgentMessage", "Custom"])
        self.assertEqual((session.session_id, session.prompt, session.unknown), (TASK, "Fix it", {"ui martian": 1}))
        self.assertEqual(session.attributes["usage"]["input"], 50)
        self.assertEqual(events[8]["content"]["blocks"], [{"type": "Code", "code": "one\ntwo"}])

    def test_neither_file_is_no_session(self):
        """O50 O51"""
        self.write([{"id": TASK, "task": "x"}], "taskHistory.json", self.task.parents[1] / "state")
        self.write({}, "task_metadata.json")
        self.assertEqual(self.read_all(self.home), [])

    def test_an_empty_task_is_no_session(self):
        """O1 O7 O8"""
        for content in (b"", b"[]", b"  \n", [user("   ")], b"\0\0\0", b"\xff\xfe junk"):
            self.write(content)
            self.assertEqual(self.read_all(), [], content)

    def test_the_index_tells_where_a_task_began(self):
        """O51 O52"""
        self.write([{"id": "other"}, {"id": TASK, "cwdOnTaskInitialization": "/srv/app", "modelId": "m"}], "taskHistory.json",
                   self.task.parents[1] / "state")
        session, _ = self.read(user("<task>x</task>"))
        self.assertEqual((session.attributes["cwd"], session.model), ("/srv/app", "m"))

    def test_a_file_of_its_own_is_named_by_its_first_time(self):
        path = self.write([user("<task>x</task>")], folder=self.home / "tmp_abc")
        [(session, _)] = self.read_all(path)
        self.assertEqual(session.session_id, str(START))


class Places(ClineTest):
    def test_every_editor_and_the_command_line_are_looked_at(self):
        roots = [str(root) for root in daemon.cline_roots({"APPDATA": "C:/Roaming"}, Path("/h"))]
        for part in ("/h/.config/Code/User/globalStorage/saoudrizwan.claude-dev/tasks",
                     "/h/Library/Application Support/Cursor/User/globalStorage/saoudrizwan.claude-dev/tasks",
                     "C:/Roaming/VSCodium/User/globalStorage/saoudrizwan.claude-dev/tasks",
                     "/h/.vscode-server/data/User/globalStorage/saoudrizwan.claude-dev/tasks",
                     "/h/.cline/data/tasks", "/h/.cline/data/sessions"):
            self.assertIn(part, roots)
        moved = daemon.cline_roots({"CLINE_DIR": "/c", "CLINE_SESSION_DATA_DIR": "/s"}, Path("/h"))
        self.assertEqual([str(root) for root in moved[-2:]], ["/c/data/tasks", "/s"])
        self.assertIn("rooveterinaryinc.roo-cline", str(daemon.TOOLS["roo-code"].roots({}, Path("/h"))[0]))

    def test_the_folder_tells_which_extension_it_was(self):
        for name, extension in daemon.CLINE_EXTENSIONS.items():
            path = self.write([user("<task>x</task>")], folder=self.home / "globalStorage" / extension / "tasks" / TASK)
            known = [tool for tool, made in daemon.TOOLS.items() if made.recognise(path.read_bytes(), str(path))]
            self.assertEqual(known, [name])
            [source] = daemon.TOOLS[name].sources(path.parents[2])
            self.assertEqual([found.tool for found, _ in read_sessions(name, source)], [name])


class Sdk(ClineTest):
    SESSION = "1770000000000_ab12c"

    def write_session(self, *messages, name=None, **origin):
        folder = self.home / "sessions" / self.SESSION
        session = f"{self.SESSION}__{name}" if name else self.SESSION
        self.write({"version": 1, "agent": "subagent" if name else "lead", "sessionId": session,
                    "origin": {"source": "cli", "version": "3.0.65", **origin}, "messages": list(messages), "system_prompt": "You are"},
                   f"{name or self.SESSION}.messages.json", folder)
        self.write({"session_id": self.SESSION, "cwd": "/home/ada/demo", "model": "m", "started_at": "2026-02-02T02:40:00.000Z",
                    "metadata": {"title": "A title", "git": {"branch": "main"}, "totalCost": 0.5}}, f"{self.SESSION}.json", folder)
        return folder

    def message(self, role, *blocks, **metrics):
        more = {"modelInfo": {"id": "claude-x", "provider": "anthropic"}, "metrics": metrics} if role == "assistant" else {}
        return {"id": f"{role}-{id(blocks)}", "role": role, "content": list(blocks), "ts": START, **more}

    def test_a_session_is_read_with_its_facts(self):
        folder = self.write_session(
            self.message("user", text('<user_input mode="act">Make it so</user_input>')),
            self.message("assistant", text("ok"), call("run_commands", commands=["ls", "pwd"]), inputTokens=1000, outputTokens=50,
                         cacheReadTokens=300),
            self.message("user", result([{"query": "ls", "result": "a", "success": True},
                                         {"query": "pwd", "result": "", "error": "no", "success": False}])))
        [(session, events)] = self.read_all(folder)
        self.assertEqual((session.session_id, session.title, session.tool_version, session.provider),
                         (self.SESSION, "A title", "3.0.65", "anthropic"))
        self.assertEqual([session.attributes[key] for key in ("cwd", "git_branch")], ["/home/ada/demo", "main"])
        self.assertEqual(kinds(events), ["UserMessage", "AgentMessage", "ShellCommand", "ShellCommand", "ToolResult"])
        self.assertEqual(texts(events, "UserMessage"), ["Make it so"])
        usage = session.attributes["usage"]
        self.assertEqual((usage["input"], usage["output"], usage["cache_read"], usage["cost_usd"]), (1000, 50, 300, 0.5))

    def test_one_failed_item_makes_the_result_an_error(self):
        """O55"""
        folder = self.write_session(
            self.message("user", text("go")), self.message("assistant", call("read_files", files=[{"path": "/nope.txt"}])),
            self.message("user", result([{"query": "/nope.txt", "result": "", "error": "ENOENT", "success": False}])))
        [(_, events)] = self.read_all(folder)
        self.assertEqual(data_of(events, "FileRead"), [{"path": "/nope.txt"}])
        self.assertTrue(data_of(events, "ToolResult")[0]["is_error"])
        self.assertIn("ENOENT", texts(events)[-1])

    def test_a_sub_agent_is_a_session_that_names_its_parent(self):
        """O55"""
        folder = self.write_session(self.message("user", text("go")))
        self.write_session(self.message("user", text("SUBAGENT: count")), name="agent_1_x", parentThreadId=self.SESSION)
        found = {session.session_id: session for session, _ in self.read_all(folder)}
        child = found[f"{self.SESSION}__agent_1_x"]
        self.assertEqual((child.attributes["parent_session_id"], child.attributes["session_role"]), (self.SESSION, "auxiliary"))
        self.assertEqual((child.attributes["cwd"], child.title, child.prompt), ("/home/ada/demo", None, "SUBAGENT: count"))

    def test_a_new_file_and_an_edit_of_the_editor_are_told_apart(self):
        folder = self.write_session(
            self.message("user", text("go")),
            self.message("assistant", call("editor", "e1", path="a.py", new_text="x = 1\n"),
                         call("editor", "e2", path="a.py", old_text="x = 1", new_text="x = 2"),
                         call("apply_patch", "e3", input="*** Begin Patch\n*** Update File: b.py\n@@\n-a\n+b\n*** End Patch")))
        [(_, events)] = self.read_all(folder)
        self.assertEqual(kinds(events)[1:], ["FileCreate", "FileEdit", "FileEdit"])
        self.assertEqual([edit["diff"].splitlines()[-2:] for edit in data_of(events, "FileEdit")],
                         [["-x = 1", "+x = 2"], ["-a", "+b"]])


class Damage(ClineTest):
    LINES = [b"[\n", *(json.dumps(message).encode() + b",\n" for message in conversation()), b"null]\n"]
    UI = [ui("task", "x", 0), ui("api_req_started", {"tokensIn": 5}), ui("text", "a"), ui("tool", {"tool": "readFile", "path": "p"}),
          ui("command", "make"), ui("command_output", "one"), ui("user_feedback", "b", images=["data:image/png;base64,aGk="])]

    def read_bytes(self, content):
        self.write(content)
        return self.read_all()

    def test_a_file_that_is_half_written_gives_what_is_there(self):
        """O5 O6"""
        whole = self.read_bytes(b"".join(self.LINES))[0][1]
        for end in (3, 5):
            cut = self.read_bytes(b"".join(self.LINES[:end]) + self.LINES[end][:40])[0]
            self.assertEqual(texts(cut[1]), texts(whole)[:len(texts(cut[1]))])
            self.assertEqual(cut[0].bad_lines, 1)

    def test_damage_in_the_middle_costs_one_message(self):
        """O5"""
        session, events = self.read_bytes(b"".join([*self.LINES[:4], b'{"role": "user", broken},\n', *self.LINES[4:]]))[0]
        self.assertEqual(len(events), 12)
        self.assertEqual(session.bad_lines, 2)      # the damage, and the null that ends the fixture

    def test_no_damage_raises_or_costs_what_stands_before_it(self):
        survives_damage(self, self.LINES, 3, self.read_bytes)

    def test_no_swapped_type_raises(self):
        survives_swaps(conversation(), lambda content: self.read_bytes(b"[" + b",".join(content.splitlines()) + b"]"))

    def test_no_swapped_type_in_the_ui_raises(self):
        def read(content):
            self.write(b"[" + b",".join(content.splitlines()) + b"]", "ui_messages.json")
            return self.read_all()
        survives_swaps(self.UI, read)

    def test_a_huge_file_is_left_alone(self):
        """O4"""
        path = self.write(b"[")
        os.truncate(path, 101 << 20)
        self.assertEqual(self.read_all(), [])

    def test_reading_twice_gives_the_same(self):
        first, second = (self.read_bytes(b"".join(self.LINES))[0][1] for _ in range(2))
        self.assertEqual(first, second)


@unittest.skipUnless(CORPUS.is_dir(), f"no corpus of real transcripts in {CORPUS}")
class RealFiles(unittest.TestCase):
    def test_totals_are_those_of_a_slow_reading(self):
        seen = 0
        for source in daemon.cline_sources(CORPUS):
            content = json.loads(source.path.read_bytes())
            expected = [0, 0]
            for message in content if isinstance(content, list) else content["messages"]:
                metrics = message.get("metrics") or {}
                tokens = metrics.get("tokens", {})
                expected[0] += tokens.get("prompt", 0) + tokens.get("cached", 0) + metrics.get("inputTokens", 0)
                expected[1] += tokens.get("completion", 0) + metrics.get("outputTokens", 0)
            [(session, events)] = read_sessions("cline", source)
            self.assertEqual([session.attributes["usage"][key] for key in ("input", "output")], expected)
            self.assertEqual((session.unknown, session.bad_lines), ({}, 0))
            seen += 1
        self.assertEqual(seen, 3)

    def test_every_call_of_the_task_with_text_results_is_shown_with_its_result(self):
        """O54"""
        [source] = [source for source in daemon.cline_sources(CORPUS / "skeleton")]
        [(_, events)] = read_sessions("cline", source)
        results = data_of(events, "ToolResult")
        self.assertEqual(len(results), 200)         # of 231 calls 31 only say something; one had no result
        self.assertEqual({found["name"] for found in results} - set(daemon.CLINE_CALLS), {"use_subagents"})


if __name__ == "__main__":
    unittest.main()
