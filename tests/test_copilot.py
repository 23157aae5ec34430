"""GitHub's Copilot: the command line's event log, and the chats of VS Code."""

import json
import re
import unittest
from pathlib import Path

import daemon
from damage import data_of, kinds, survives_damage, survives_swaps, texts, usage_on
from transcripts import CORPUS, ParserTest, in_usual_places, json_lines

SESSION = "11111111-1111-4111-8111-111111111111"
PNG = "iVBORw0KGgo="


class Log:
    """The records of an event log, one second apart."""

    def __init__(self, **context):
        self.records = []
        self.add("session.start", sessionId=SESSION, copilotVersion="1.0.1", selectedModel="m-1",
                 startTime="2026-03-01T10:00:00.000Z", context={"cwd": "/home/ada/demo", "branch": "main", **context})

    def add(self, type_, agent=None, **data):
        second = len(self.records)
        record = {"type": type_, "data": data, "id": f"e{second}", "parentId": None,
                  "timestamp": f"2026-03-01T10:{second // 60:02d}:{second % 60:02d}.000Z"}
        self.records.append({**record, "agentId": agent} if agent else record)
        return self

    def user(self, content, agent=None, **data):
        return self.add("user.message", agent, content=content, transformedContent=f"<now/>{content}", **data)

    def say(self, content, *calls, agent=None, **data):
        requests = [{"toolCallId": call_id, "name": name, "arguments": given} for call_id, name, given in calls]
        return self.add("assistant.message", agent, messageId=f"m{len(self.records)}", content=content, model="m-1",
                        toolRequests=requests, **data)

    def usage(self, response, agent=None, **counts):
        return self.add("session.usage_record", agent, usage={"model": "m-1", "apiCallId": response, "inputTokens": 1000,
                        "outputTokens": 50, "cacheReadTokens": 300, "reasoningTokens": 10, **counts})

    def done(self, call_id, result, agent=None, success=True, **data):
        return self.add("tool.execution_complete", agent, toolCallId=call_id, success=success, result=result, **data)

    def shutdown(self, responses, start="2026-03-01T10:00:00.000Z"):
        usage = {"inputTokens": 1000 * responses, "outputTokens": 50 * responses, "cacheReadTokens": 300 * responses}
        return self.add("session.shutdown", sessionStartTime=start, totalPremiumRequests=2,
                        modelMetrics={"m-1": {"requests": {"count": responses}, "usage": usage}})


class CopilotTest(ParserTest):
    tool = "copilot-cli"

    def log(self, log, name=f"session-state/{SESSION}/events.jsonl"):
        return self.write(name, log if isinstance(log, bytes) else log.records)

    def of(self, log):
        return self.read(self.log(log))

    def of_bytes(self, content):
        return self.sessions(self.log(content))


class Places(CopilotTest):
    def test_the_log_lies_in_a_folder_or_bears_the_id(self):  # O33
        other = SESSION.replace("1", "2")
        self.log(Log().user("hi"), f".copilot/session-state/{SESSION}/events.jsonl")
        self.log(Log().user("hi"), f".copilot/session-state/{SESSION}.jsonl")
        log = Log().user("hi")
        del log.records[0]
        self.log(log, f".copilot/session-state/{other}.jsonl")
        self.write(f".copilot/session-state/{SESSION}/checkpoints/index.md", b"x")
        self.write(f".copilot/session-state/{SESSION}/files/own.jsonl", b'{"a":1}\n')
        self.assertEqual(sorted(in_usual_places("copilot-cli", self.home)), [SESSION, other])
        self.assertEqual(in_usual_places("copilot-cli", self.home / "x", COPILOT_HOME=str(self.home / ".copilot"))[0], SESSION)

    def test_the_older_history_is_read(self):  # O37
        path = self.write(".copilot/history-session-state/session_a.json", {
            "sessionId": "a", "startTime": "2025-10-01T10:00:00Z", "chatMessages": [
                {"role": "user", "content": "ask"},
                {"role": "assistant", "content": "ok", "tool_calls": [
                    {"id": "c1", "function": {"name": "bash", "arguments": '{"command":"ls"}'}}]},
                {"role": "tool", "tool_call_id": "c1", "content": "a.py"}, {"role": "system", "content": "x"}]})
        self.assertIn("session_a", in_usual_places("copilot-cli", self.home))
        self.assertEqual(kinds(self.read(path)[1]), ["UserMessage", "AgentMessage", "ShellCommand", "ToolResult"])

    def test_workspace_yaml_names_the_session(self):
        self.write(f"session-state/{SESSION}/workspace.yaml", b"id: x\nname: Repair: the thing\nbranch: dev\n")
        session, _ = self.of(Log(branch="").user("hi"))
        self.assertEqual((session.title, session.attributes["git_branch"]), ("Repair: the thing", "dev"))

    def test_empty_and_foreign_files_are_none(self):  # O1, O2
        for content in (b"", b"\n\n", b"\xff\xfe\x00", b'{"type":"user","data":{}}\n', b'{"type":"session"}\n'):
            self.assertEqual(self.of_bytes(content), [])

    def test_a_session_in_which_nothing_was_said_is_none(self):  # O7
        self.assertEqual(self.of_bytes(json_lines(Log().records)), [])


class Records(CopilotTest):
    def test_the_head_gives_place_model_version(self):
        session, _ = self.of(Log(headCommit="abc", repository="ada/demo").user("hi").add("session.model_change", newModel="m-2"))
        self.assertEqual((session.session_id, session.tool_version, session.model), (SESSION, "1.0.1", "m-2"))
        self.assertEqual(session.attributes["git"], {"branch": "main", "commit_hash": "abc",
                                                     "repository_url": "https://github.com/ada/demo"})
        self.assertEqual((session.attributes["cwd"], session.created_at), ("/home/ada/demo", "2026-03-01T10:00:00.000Z"))

    def test_the_prompt_is_what_was_typed(self):  # O35
        session, events = self.of(Log().user("").user("  ").user("fix it", attachments=[{"type": "file", "path": "/a.py"}]))
        self.assertEqual((session.prompt, texts(events)), ("fix it", ["fix it"]))
        self.assertEqual(events[0]["content"]["blocks"][1], {"type": "File", "path": "/a.py"})

    def test_reasoning_comes_once_however_it_is_told(self):  # O36
        log = Log().add("assistant.reasoning", content="hm").say("ok", reasoningText="hm").say("more", reasoningText="so")
        self.assertEqual(texts(self.of(log)[1], "Thinking"), ["hm", "so"])

    def test_a_call_that_is_told_twice_is_one(self):  # O39
        log = Log().say("", ("c1", "bash", {"command": "ls"})).add("tool.execution_start", toolCallId="c1", toolName="bash",
                                                                   arguments={"command": "ls"}).done("c1", "a.py")
        log.add("tool.execution_start", toolCallId="c2", toolName="view", arguments={"path": "a.py"}).done("c2", {"content": "x"})
        _, events = self.of(log)
        self.assertEqual(kinds(events), ["ShellCommand", "ToolResult", "FileRead", "ToolResult"])
        self.assertEqual(events[1]["duration_ms"], 2000)

    def test_arguments_and_results_of_any_form_are_the_same(self):  # O34
        for given in ({"command": "ls"}, '{"command":"ls"}'):
            for result in ("a.py", {"content": "a.py", "detailedContent": "more"}, {"detailedContent": "a.py"}):
                _, events = self.of(Log().say("", ("c1", "bash", given)).done("c1", result, shellExecution={"exitCode": 0}))
                self.assertEqual(daemon.event_kind(events[0]), ("ShellCommand", {"command": "ls", "exit_code": 0}))
                self.assertEqual(events[1]["content"]["blocks"], [{"type": "Code", "code": "a.py"}])

    def test_failures_say_why(self):
        log = Log().say("", ("c1", "view", {"path": "x"})).done("c1", None, success=False, error={"message": "not there"})
        result = self.of(log)[1][1]
        self.assertEqual((daemon.event_texts(result), daemon.is_error(result)), ("not there", True))

    def test_an_edit_has_the_tools_own_diff_and_a_new_file_has_none(self):
        detail = "\ndiff --git a/x b/x\nindex 0..1\n--- %s\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n"
        log = Log().say("", ("c1", "edit", {"path": "x", "old_str": "a", "new_str": "b"}),
                        ("c2", "create", {"path": "y", "file_text": "b\n"}))
        log.done("c1", {"content": "ok", "detailedContent": detail % "a/x"})
        log.done("c2", {"content": "ok", "detailedContent": detail % "a/dev/null"})
        _, events = self.of(log)
        self.assertEqual(data_of(events, "FileEdit")[0]["diff"], "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b")
        self.assertEqual(events[1]["content"]["blocks"][0]["code"], "b\n")

    def test_a_sub_agent_is_nested_and_its_prompt_is_none(self):  # O39
        log = Log().user("go").say("", ("c1", "task", {"prompt": "count"}))
        log.add("subagent.started", "a1", toolCallId="c1", agentDisplayName="counter", agentName="explore")
        log.user("count", "a1", source=f"agent-{SESSION}").usage("r2", "a1").say("4", agent="a1")
        log.add("subagent.completed", "a1", toolCallId="c1", totalToolCalls=0, durationMs=9, model="m-1").done("c1", "4")
        session, events = self.of(log)
        self.assertEqual(kinds(events), ["UserMessage", "ToolCall", "TaskStart", "SystemMessage", "AgentMessage", "TaskEnd",
                                         "ToolResult"])
        self.assertEqual([event.get("task_id") for event in events], [None, None, "a1", "a1", "a1", "a1", None])
        self.assertEqual((session.prompt, session.attributes["usage"]["subagents"]), ("go", {"input": 1000, "output": 50}))

    def test_a_sub_agent_that_never_ends_is_ended(self):
        _, events = self.of(Log().user("go").say("4", agent="a1"))
        self.assertEqual(kinds(events), ["UserMessage", "TaskStart", "AgentMessage", "TaskEnd"])

    def test_a_resumed_session_is_one(self):  # O39
        log = Log().user("one").shutdown(0).add("session.resume", context={"cwd": "/home/ada/other"}).user("two")
        session, events = self.of(log)
        self.assertEqual((texts(events), session.updated_at), (["one", "two"], "2026-03-01T10:00:04.000Z"))
        self.assertEqual(session.attributes["all_cwds"], ["/home/ada/demo", "/home/ada/other"])

    def test_unknown_records_are_kept_and_those_of_the_screen_are_not(self):  # O12, O38
        log = Log().user("hi").add("brand.new", a=1).add("hook.start").add("session.mode_changed").add("assistant.turn_end")
        session, events = self.of(log)
        self.assertEqual((session.unknown, kinds(events)), ({"brand.new": 1}, ["UserMessage", "Custom"]))

    def test_notices_errors_and_marks_have_their_kinds(self):
        log = Log().add("session.error", message="busy").add("abort", reason="user").add("session.truncation")
        _, events = self.of(log.add("system.notification", content="done").add("system.message", content="be nice"))
        self.assertEqual(kinds(events), ["SystemMessage", "Custom", "Custom", "SystemMessage"])
        self.assertTrue(daemon.is_error(events[0]))


class Usage(CopilotTest):
    def test_a_record_counts_on_the_message_that_follows(self):
        session, events = self.of(Log().user("hi").usage("r1").say("ok", apiCallId="r1", outputTokens=50).shutdown(1))
        self.assertEqual(usage_on(events), (1000, 50))
        self.assertEqual(events[1]["attributes"]["cache_read_tokens"], 300)
        self.assertEqual((session.attributes["usage"]["raw_input"], session.attributes["premium_requests"]), (2000, 2))

    def test_a_record_that_is_repeated_counts_once(self):
        session, events = self.of(Log().usage("r1").say("ok").usage("r1").say("more"))
        self.assertEqual((usage_on(events), session.attributes["usage"]["duplicates_removed"]), ((1000, 50), 1))

    def test_totals_of_the_shutdown_count_where_responses_tell_less(self):
        _, events = self.of(Log().user("hi").say("ok", outputTokens=20).shutdown(1))
        self.assertEqual((usage_on(events), data_of(events, "Custom")), ((1000, 50), [{"kind": "usage"}]))

    def test_totals_of_a_resumed_run_go_on_and_those_of_another_are_added(self):
        log = Log().user("a").say("b").shutdown(1).add("session.resume").say("c").shutdown(3)
        self.assertEqual(usage_on(self.of(log)[1]), (3000, 150))
        log.say("d").shutdown(1, start="2026-03-01T11:00:00.000Z")
        self.assertEqual(usage_on(self.of(log)[1]), (4000, 200))

    def test_a_running_session_counts_what_its_messages_tell(self):
        self.assertEqual(usage_on(self.of(Log().say("a", outputTokens=7).say("b", outputTokens=5))[1]), (0, 12))


class Robustness(CopilotTest):
    def everything(self):
        log = Log().user("kept").say("kept too").usage("r1").say("a", ("c1", "bash", '{"command":"x"}'), reasoningText="r")
        log.done("c1", {"content": "x", "contents": [{"mimeType": "image/png", "data": PNG}]}, shellExecution={"exitCode": 1})
        log.add("subagent.started", "a1", toolCallId="c9").say("b", ("c2", "apply_patch", "*** Begin Patch\n*** Add File: a\n+b"), agent="a1")
        log.add("subagent.completed", "a1", totalToolCalls=1).add("session.error", message="m").add("abort", reason="r")
        return log.add("session.title_changed", title="t").add("brand.new", a=[1]).shutdown(3)

    def test_damaged_lines_cost_only_themselves(self):  # O5, O6
        lines = [json.dumps(record).encode() + b"\n" for record in self.everything().records[:3]]
        [(session, events)] = self.of_bytes(b"".join([*lines[:2], b"{broken\n", lines[2], b'{"type":"user.mess']))
        self.assertEqual((texts(events), session.bad_lines), (["kept", "kept too"], 1))

    def test_no_damage_raises_or_costs_what_stands_before_it(self):
        survives_damage(self, json_lines(self.everything().records).splitlines(True), 3, self.of_bytes)

    def test_no_swapped_type_raises(self):
        survives_swaps(self.everything().records, self.of_bytes)

    def test_a_longer_log_begins_with_the_same_events(self):
        log = Log().user("a").say("b", ("c1", "bash", {"command": "x"})).done("c1", "y").say("c")
        before = self.of(log)[1]
        self.assertEqual(self.of(log.user("d"))[1][:len(before)], before)


class VscodeTest(ParserTest):
    tool = "vscode-copilot"
    FOLDER = "Code/User/workspaceStorage/0123/chatSessions"

    def request(self, text="fix it", *response, **more):
        return {"requestId": "r1", "timestamp": 1772359200000, "message": {"text": text}, "modelId": "copilot/m-1",
                "response": list(response), **more}

    def chat(self, *requests, name=f"{SESSION}.json", **facts):
        return self.write(f"{self.FOLDER}/{name}", {"version": 3, "requesterUsername": "ada", "responderUsername": "Copilot",
                          "requests": list(requests), "sessionId": SESSION, "creationDate": 1772359100000, **facts})

    def events(self, *response, **more):
        return self.read(self.chat(self.request("fix it", *response, **more)))[1][1:]

    def log(self, *changes, **more):
        first = {"kind": 0, "v": {"version": 3, "sessionId": SESSION, "requests": []}}
        return self.write(f"{self.FOLDER}/{SESSION}.jsonl", [first, *changes], **more)


class Chats(VscodeTest):
    def test_every_place_is_looked_at(self):  # O42
        for number, base in enumerate((".config", "Library/Application Support", "AppData/Roaming")):
            for name in ("workspaceStorage/0123/chatSessions", "globalStorage/emptyWindowChatSessions"):
                self.FOLDER = f"{base}/Code - Insiders/User/{name}"
                self.chat(self.request(), name=f"{number}{name[0]}.json")
        self.assertEqual(len(in_usual_places("vscode-copilot", self.home)), 6)

    def test_of_a_chat_in_both_forms_the_log_counts(self):  # O42
        self.chat(self.request("old"))
        self.log({"kind": 2, "k": ["requests"], "v": [self.request("new")]})
        self.assertEqual(texts(self.read(self.home)[1]), ["new"])

    def test_the_log_is_replayed(self):  # O40, O49
        part = {"value": "a"}
        _, events = self.read(self.log(
            {"kind": 2, "k": ["requests"], "v": [self.request("ask"), self.request("gone", requestId="r2")]},
            {"kind": 1, "k": ["requests", 0, "response"], "v": [part]},
            {"kind": 2, "k": ["requests", 0, "response"], "v": [{"value": "b"}]},
            {"kind": 1, "k": ["customTitle"], "v": "Title"}, {"kind": 3, "k": ["customTitle"]},
            {"kind": 2, "k": ["requests"], "i": 1}))
        self.assertEqual(texts(events), ["ask", "a\n\nb"])

    def test_a_push_with_an_index_removes_what_stood_from_there_on(self):  # O41
        for index, reply in ((0, "new"), (1, "a\n\nnew"), (-5, "new")):
            _, events = self.read(self.log(
                {"kind": 2, "k": ["requests"], "v": [self.request("ask", {"value": "a"}, {"value": "b"})]},
                {"kind": 2, "k": ["requests", 0, "response"], "i": index, "v": [{"value": "new"}]}))
            self.assertEqual(texts(events)[1], reply)

    def test_a_change_that_does_not_fit_costs_only_itself(self):
        session, events = self.read(self.log(
            {"kind": 2, "k": ["requests"], "v": [self.request("ask")]}, {"kind": 1, "k": ["requests", 9, "a"], "v": 1},
            {"kind": 2, "k": ["version"], "v": [1]}, {"kind": 3, "k": []}, {"kind": 9, "k": ["a"]}))
        self.assertEqual((texts(events), session.bad_lines), (["ask"], 4))

    def test_a_chat_in_which_nothing_was_asked_is_none(self):  # O8, O49
        for path in (self.chat(), self.chat(self.request("  ")), self.log()):
            self.assertEqual(self.sessions(path), [])

    def test_several_requests_alternate_under_the_given_title(self):  # O43
        asked = [self.request(text, {"value": f"{text}!"}) for text in ("one", "two")]
        session, events = self.read(self.chat(*asked, customTitle="Mine"))
        self.assertEqual(session.title, "Mine")
        self.assertEqual(kinds(events), ["UserMessage", "AgentMessage"] * 2)
        self.assertEqual(texts(events), ["one", "one!", "two", "two!"])

    def test_the_folder_comes_from_the_workspace(self):  # O45
        for facts, cwd in (({"folder": "file:///home/ada/a%20b"}, "/home/ada/a b"), ({"folder": "file:///c%3A/x"}, "c:/x"),
                           ({"workspace": "file:///home/ada/all.code-workspace"}, "/home/ada"),
                           ({"folder": "vscode-remote://ssh-remote%2Bhost/srv/x"}, "/srv/x"), ({}, None)):
            path = self.chat(self.request(), customTitle="Mine")
            self.write("Code/User/workspaceStorage/0123/workspace.json", facts)
            session, _ = self.read(path)
            self.assertEqual((session.attributes.get("cwd"), session.title, session.model), (cwd, "Mine", "m-1"))

    def test_a_prompt_has_its_files_and_pictures(self):
        variables = [{"kind": "file", "name": "a.py", "value": {"$mid": 1, "path": "/x/a.py", "scheme": "file"}},
                     {"kind": "image", "mimeType": "image/png", "value": {"$base64": PNG}}, {"kind": "image", "value": {}}]
        _, [event] = self.read(self.chat(self.request(variableData={"variables": variables})))
        self.assertEqual([block["type"] for block in event["content"]["blocks"]], ["Text", "File", "Image"])


class Responses(VscodeTest):
    def test_a_sentence_stays_whole_round_a_reference(self):  # O46
        uri = {"$mid": 1, "path": "/x/main.py", "scheme": "file"}
        events = self.events({"value": "See "}, {"kind": "inlineReference", "inlineReference": uri}, {"value": " and "},
                             {"kind": "inlineReference", "inlineReference": {"name": "run", "location": {"uri": uri}}},
                             {"kind": "inlineReference", "inlineReference": {}}, {"value": "."})
        self.assertEqual(texts(events), ["See `main.py` and `run`."])

    def test_fences_round_an_edit_are_dropped_and_pieces_become_paragraphs(self):  # O47
        uri = {"path": "/x/a.py"}
        events = self.events({"value": "one"}, {"value": "two"}, {"value": "three\n"}, {"value": "four"}, {"value": "\n```\n"},
                             {"kind": "codeblockUri", "uri": uri},
                             {"kind": "textEditGroup", "uri": uri, "edits": [[{"text": "a\nb", "range": {"startLineNumber": 3}}]]},
                             {"value": "```"}, {"value": "```py\nx\n```"})
        self.assertEqual(texts(events, "AgentMessage"), ["one\n\ntwo\n\nthree\nfour", "```py\nx\n```"])
        self.assertEqual(data_of(events, "FileEdit")[0]["diff"], "--- /x/a.py\n+++ /x/a.py\n@@ -3,0 +3,2 @@\n+a\n+b")

    def test_a_command_comes_from_the_terminal(self):  # O44
        part = {"kind": "toolInvocationSerialized", "toolCallId": "c1", "toolId": "run_in_terminal", "isComplete": True,
                "toolSpecificData": {"kind": "terminal", "commandLine": {"original": "ls", "userEdited": "ls -a"},
                                     "terminalCommandState": {"exitCode": 1}, "terminalCommandOutput": {"text": "no"}}}
        events = self.events(part)
        self.assertEqual(daemon.event_kind(events[0]), ("ShellCommand", {"command": "ls -a", "exit_code": 1}))
        self.assertEqual((events[1]["content"]["blocks"][0]["code"], daemon.is_error(events[1])), ("no", True))

    def test_a_call_takes_its_arguments_and_result_from_the_rounds(self):  # O48
        def part(call_id, tool_id, **more):
            return {"kind": "toolInvocationSerialized", "toolCallId": call_id, "toolId": tool_id, **more}
        calls = [{"id": "c1", "name": "read_file", "arguments": '{"filePath":"/x/a.py"}'},
                 {"id": "c2", "name": "replace_string_in_file", "arguments":
                  '{"filePath":"/x/a.py","oldString":"a","newString":"b"}'}]
        metadata = {"toolCallRounds": [{"toolCalls": calls}], "toolCallResults": {"c1": {"content": [{"value": "text"}]}}}
        events = self.events(part("c1", "copilot_readFile", isComplete=False), part("c1", "copilot_readFile", isComplete=True),
                             part("other", "copilot_replaceString", pastTenseMessage={"value": "Edited"}),
                             {"kind": "textEditGroup", "uri": {"path": "/x/a.py"}, "edits": [[{"text": "b"}]]},
                             result={"metadata": metadata})
        self.assertEqual(kinds(events), ["FileRead", "ToolResult", "FileEdit", "ToolResult"])
        self.assertEqual(events[1]["content"]["blocks"], [{"type": "Code", "code": "text"}])
        self.assertIn("+b", data_of(events, "FileEdit")[0]["diff"])
        self.assertEqual(daemon.event_texts(events[3]), "Edited")

    def test_thinking_text_and_errors_have_their_kinds(self):
        events = self.events({"kind": "thinking", "value": ["h", "m"]}, {"kind": "thinking", "value": ""}, {"value": "ok"},
                             {"kind": "undoStop"}, {"kind": "warning", "content": {"value": "mind"}}, {"kind": "brandNew"},
                             result={"errorDetails": {"message": "busy"}})
        self.assertEqual(kinds(events), ["Thinking", "AgentMessage", "SystemMessage", "Custom", "SystemMessage"])

    def test_a_sub_agents_calls_are_nested(self):
        part = {"kind": "toolInvocationSerialized", "isComplete": True}
        events = self.events({**part, "toolCallId": "s1", "toolId": "runSubagent", "toolSpecificData": {"description": "Count"}},
                             {**part, "toolCallId": "c2", "toolId": "copilot_findFiles", "subAgentInvocationId": "s1"})
        self.assertEqual(kinds(events), ["ToolCall", "ToolResult", "TaskStart", "ToolCall", "ToolResult", "TaskEnd"])


class VscodeRobustness(VscodeTest):
    def test_no_damage_or_swapped_type_raises(self):
        call = {"kind": "toolInvocationSerialized", "toolCallId": "c1", "toolId": "x", "resultDetails": {"output": [{"value": "y"}]}}
        changes = [{"kind": 0, "v": {"requests": [self.request("kept", {"value": "kept too"})]}},
                   {"kind": 2, "k": ["requests"], "v": [self.request(
                       "more", {"value": "x"}, call, {"kind": "textEditGroup", "uri": {"path": "a"}, "edits": [[{"text": "b"}]]},
                       {"kind": "inlineReference", "inlineReference": {"uri": {"path": "b"}}}, requestId="r2",
                       variableData={"variables": [{"kind": "image", "value": "aa"}]}, result={
                           "metadata": {"toolCallRounds": [{"toolCalls": [{"id": "c1", "name": "n", "arguments": "{}"}]}]},
                           "usage": {"promptTokens": 5}, "timings": {"totalElapsed": 4}})]},
                   {"kind": 1, "k": ["requests", 1, "modelId"], "v": "m"}]

        def read(content):
            path = self.log()
            path.write_bytes(content)
            return self.sessions(path)
        survives_damage(self, json_lines(changes).splitlines(True), 1, read)
        survives_swaps(changes, read)
        for cut in range(0, 900, 7):
            self.sessions(self.write(f"{self.FOLDER}/cut.json", self.chat(self.request("x", call)).read_bytes()[:cut]))


@unittest.skipUnless((CORPUS / "copilot-cli").is_dir(), f"no corpus at {CORPUS}")
class RealFiles(CopilotTest):
    def test_every_log_has_true_totals(self):
        for path in sorted((CORPUS / "copilot-cli").rglob("*.jsonl")):
            with self.subTest(path.name):
                session, events = self.read(path)
                self.assertEqual(usage_on(events), slow_totals(path))
                self.assertEqual((session.bad_lines, session.unknown), (0, {}))
                self.assertEqual(self.read(path)[1], events, "two runs give the same")

    def test_the_real_session_has_two_prompts_and_two_sub_agents(self):
        session, events = self.read(CORPUS / "copilot-cli" / "generated-1.0.102")
        self.assertEqual((session.title, texts(events, "UserMessage")),
                         ("Create hello.txt please", ["Create hello.txt please", "And again @img.png"]))
        self.assertEqual((kinds(events).count("TaskStart"), kinds(events).count("ToolResult")), (2, 10))

    def test_no_file_of_another_tool_is_taken(self):
        for entry in daemon.walk(str(CORPUS)):
            if not re.search(r"/copilot-cli/", entry.path):
                self.assertFalse(daemon.copilot_inside(entry.path), entry.path)
                self.assertFalse(daemon.vscode_inside(entry.path), entry.path)


def slow_totals(path):
    """(input, output) in the most obvious way: the records, else the last shutdown, else what messages tell."""
    records = [json.loads(line) for line in Path(path).read_text().splitlines()]
    usages = [record["data"]["usage"] for record in records if record["type"] == "session.usage_record"]
    if usages:
        return sum(usage["inputTokens"] for usage in usages), sum(usage["outputTokens"] for usage in usages)
    output = sum(record["data"].get("outputTokens", 0) for record in records if record["type"] == "assistant.message")
    for record in reversed(records):
        if record["type"] == "session.shutdown":
            metrics = [metric["usage"] for metric in record["data"]["modelMetrics"].values() if "usage" in metric]
            details = {name: count["tokenCount"] for name, count in record["data"].get("tokenDetails", {}).items()}
            cache = details.get("cache_read", 0) + details.get("cache_write", 0)
            return (sum(usage["inputTokens"] for usage in metrics) or details.get("input", 0) + cache,
                    max(output, sum(usage["outputTokens"] for usage in metrics) or details.get("output", 0)))
    return 0, output


if __name__ == "__main__":
    unittest.main()
