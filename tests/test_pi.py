"""Pi, OpenClaw and oh-my-pi: entries of a tree, one line each."""

import json
import unittest
from collections import Counter
from pathlib import Path

import daemon
from damage import data_of, kinds, read_sessions, survives_damage, survives_swaps, texts
from transcripts import CORPUS, ParserTest, in_usual_places, json_lines

FOLDER = ".pi/agent/sessions/--home-ada-demo--"


def at(second):
    return f"2026-03-01T10:{second // 60:02d}:{second % 60:02d}.000Z"


def header(session="s-1", second=0, **more):
    return {"type": "session", "version": 3, "id": session, "timestamp": at(second), "cwd": "/home/ada/demo", **more}


class Tree:
    """A session's entries, each the child of the one before unless it says otherwise."""

    def __init__(self, **more):
        self.records = [header(**more)]

    def add(self, kind, name=None, parent=..., second=None, **more):
        number = len(self.records)
        before = self.records[-1]["id"] if number > 1 else None
        self.records.append({"type": kind, "id": name or f"e{number}", "parentId": before if parent is ... else parent,
                             "timestamp": at(number if second is None else second), **more})
        return self

    def message(self, role, content, name=None, parent=..., second=None, **more):
        return self.add("message", name, parent, second, message={"role": role, "content": content, **more})

    def user(self, text, name=None, parent=..., second=None):
        return self.message("user", [{"type": "text", "text": text}], name, parent, second)

    def model(self, *blocks, usage=(700, 50, 300), name=None, parent=..., second=None, **more):
        given, said, read = usage
        counts = {"input": given, "output": said, "cacheRead": read, "cacheWrite": 0, "totalTokens": given + said + read}
        blocks = [{"type": "text", "text": block} if isinstance(block, str) else block for block in blocks]
        return self.message("assistant", blocks, name, parent, second, **{"provider": "anthropic", "model": "claude-x",
                                                                         "usage": counts, "stopReason": "stop", **more})

    def result(self, content, call_id="c1", name="bash", **more):
        return self.message("toolResult", content, toolCallId=call_id, toolName=name, **{"isError": False, **more})


def call(name, call_id="c1", **given):
    return {"type": "toolCall", "id": call_id, "name": name, "arguments": given}


def everything():
    tree = Tree(title="A name").add("model_change", provider="anthropic", modelId="claude-x")
    tree.add("thinking_level_change", thinkingLevel="high").user("Do it")
    tree.model({"type": "thinking", "thinking": "Hm."}, "I run it.", call("bash", command="make"))
    tree.result([{"type": "text", "text": "boom\n\nCommand exited with code 2"}], isError=True)
    tree.model(call("edit", "c2", path="a.py", oldText="a", newText="b"), call("read", "c3", path="a.py"))
    tree.result([{"type": "text", "text": "ok"}], "c2", "edit").result("x = 1", "c3", "read")
    tree.message("bashExecution", None, command="ls", output="a.py", exitCode=0)
    tree.add("compaction", summary="So far so good", firstKeptEntryId="e3", tokensBefore=900)
    tree.add("custom_message", customType="hook", content="Remember", display=True)
    tree.add("session_info").records[-1]["name"] = "A better name"
    return tree.add("label", targetId="e3", label="x").model("Done.")


class PiTest(ParserTest):
    tool = "pi"

    def read_tree(self, tree, name=f"{FOLDER}/2026-03-01T10-00-00-000Z_s-1.jsonl"):
        return self.read(self.write(name, tree.records))


class Sessions(PiTest):
    def test_a_session_is_read_with_all_that_its_entries_say(self):
        """O38 O57"""
        session, events = self.read_tree(everything())
        self.assertEqual(kinds(events), [
            "UserMessage", "Thinking", "AgentMessage", "ShellCommand", "ToolResult", "FileEdit", "FileRead", "ToolResult",
            "ToolResult", "ShellCommand", "ToolResult", "Custom", "SystemMessage", "SystemMessage", "AgentMessage"])
        self.assertEqual((session.session_id, session.title, session.prompt, session.model, session.provider),
                         ("s-1", "A better name", "Do it", "claude-x", "anthropic"))
        self.assertEqual((session.attributes["cwd"], session.unknown), ("/home/ada/demo", {}))
        commands = data_of(events, "ShellCommand")
        self.assertEqual(commands, [{"command": "make", "exit_code": 2}, {"command": "ls", "exit_code": 0}])
        self.assertEqual(data_of(events, "FileEdit")[0]["diff"].splitlines()[-2:], ["-a", "+b"])
        self.assertEqual([event["attributes"]["meta"] for event in events if event["event_type"]["type"] == "SystemMessage"],
                         ["compact_summary", "hook"])

    def test_input_is_all_that_was_sent_and_stands_on_the_first_event_of_a_response(self):
        session, events = self.read_tree(Tree().user("x").model("a", "b").model("c", usage=(10, 1, 0)))
        usage = session.attributes["usage"]
        self.assertEqual([usage[key] for key in ("input", "output", "cache_read", "responses")], [1010, 51, 300, 2])
        self.assertEqual([event.get("attributes", {}).get("input_tokens") for event in events], [None, 1000, None, 10])

    def test_content_may_be_a_text_and_parts_may_be_null(self):
        """O56"""
        tree = Tree().message("user", "plain").model({"type": "thinking", "thinking": None}, {"type": "thinking", "thinking": " "},
                                                     {"type": "toolCall", "id": "c1", "name": "ls", "arguments": None}, "ok")
        _, events = self.read_tree(tree)
        self.assertEqual(kinds(events), ["UserMessage", "ToolCall", "AgentMessage"])

    def test_each_reply_names_its_own_model(self):
        """O56"""
        tree = Tree().user("x").model("a", model="one").add("model_change", provider="p", modelId="two").model("b", model=None)
        _, events = self.read_tree(tree)
        self.assertEqual([event["attributes"]["model"] for event in events[1:]], ["one", "two"])

    def test_a_picture_comes_without_the_tag_that_announced_it(self):
        tree = Tree().message("user", [{"type": "text", "text": '<file name="/a/img.png"></file>\nLook'},
                                       {"type": "image", "mimeType": "image/png", "data": "aGk="}])
        session, events = self.read_tree(tree)
        self.assertEqual([block["type"] for block in events[0]["content"]["blocks"]], ["Text", "Image"])
        self.assertEqual(session.prompt, "Look")

    def test_a_response_that_failed_or_was_stopped_says_so(self):
        tree = Tree().user("x").model(stopReason="error", errorMessage="429", usage=(0, 0, 0)).model("half", stopReason="aborted")
        _, events = self.read_tree(tree)
        self.assertEqual([(kind, texts([event])) for kind, event in zip(kinds(events), events)][1:],
                         [("SystemMessage", ["429"]), ("AgentMessage", ["half"]), ("Custom", ["Interrupted"])])

    def test_a_patch_of_the_tools_own_is_the_diff(self):
        patch = "--- a.py\n+++ a.py\n@@ -1,1 +1,1 @@\n-a\n+b"
        tree = Tree().user("x").model(call("edit", path="a.py", edits=[{"oldText": "a", "newText": "b"}]))
        _, events = self.read_tree(tree.result("ok", "c1", "edit", details={"patch": patch}))
        self.assertEqual(data_of(events, "FileEdit"), [{"path": "a.py", "diff": patch}])

    def test_unknown_entries_and_roles_are_kept_and_counted(self):
        """O12"""
        session, events = self.read_tree(Tree().user("x").add("telepathy", note="?").message("oracle", "?"))
        self.assertEqual(session.unknown, {"telepathy": 1, "message oracle": 1})
        self.assertEqual(kinds(events), ["UserMessage", "Custom", "Custom"])

    def test_only_a_file_that_begins_with_a_session_is_one(self):
        """O1 O2 O7 O15 O57"""
        for content in (b"", b"\n \n", b"\xff\xfe\x00", json_lines([{"type": "message"}]), json_lines([header()])):
            self.assertEqual(self.sessions(self.write(f"{FOLDER}/notes.jsonl", content)), [], content)

    def test_the_first_format_has_no_ids(self):
        records = [{key: value for key, value in record.items() if key not in ("parentId",) and (key != "id" or place == 0)}
                   for place, record in enumerate(Tree(version=1).user("x").model("ok").records)]
        _, events = self.read(self.write(f"{FOLDER}/a_b.jsonl", records))
        self.assertEqual(texts(events), ["x", "ok"])


class Branches(PiTest):
    def test_what_was_abandoned_is_hidden_but_was_paid(self):
        """O57"""
        tree = Tree().user("first", "u1").model("wrong way", name="m1").user("dead end", "u2").model("lost", name="m2")
        tree.user("second try", "u3", parent="m1").model("right way", usage=(1, 1, 0))
        session, events = self.read_tree(tree)
        self.assertEqual(texts(events), ["first", "wrong way", "2 entries of an abandoned branch", "second try", "right way"])
        usage = session.attributes["usage"]
        self.assertEqual((usage["input"], usage["output"]), (2001, 101))

    def test_a_line_that_is_lost_does_not_hide_what_stands_before_it(self):
        """O5"""
        records = Tree().user("a").model("b").user("c").model("d").records
        del records[3]
        _, events = self.read(self.write(f"{FOLDER}/x_y.jsonl", records))
        self.assertEqual(texts(events), ["a", "b", "d"])

    def test_an_entry_that_stands_there_twice_counts_once(self):
        records = Tree().user("a").model("b").records
        session, events = self.read(self.write(f"{FOLDER}/x_y.jsonl", [*records, records[-1]]))
        self.assertEqual((texts(events), session.attributes["usage"]["input"]), (["a", "b"], 1000))
        self.assertEqual(session.attributes["usage"]["duplicates_removed"], 1)

    def test_a_circle_of_parents_ends(self):
        records = Tree().user("a", "u", parent="m").model("b", name="m").user("c", "w", parent="u").records
        _, events = self.read(self.write(f"{FOLDER}/x_y.jsonl", records))
        self.assertEqual(texts(events)[-1], "c")

    def test_a_fork_leaves_out_what_its_parent_has(self):
        parent = Tree().user("a").model("b")
        path = self.write(f"{FOLDER}/t1_s-1.jsonl", parent.records)
        fork = Tree(session="s-2", second=30, parentSession=str(path))
        fork.records += parent.records[1:]
        fork.user("go on", "n1", second=31).model("there", name="n2", usage=(5, 5, 0), second=32)
        session, events = self.read(self.write(f"{FOLDER}/t2_s-2.jsonl", fork.records))
        self.assertEqual(texts(events), ["go on", "there"])
        usage = session.attributes["usage"]
        self.assertEqual((usage["input"], usage["replayed"]), (5, 1050))
        self.assertEqual((session.attributes["forked_from"], session.prompt), ("s-1", "a"))

    def test_a_fork_whose_parent_is_gone_is_shown_whole(self):
        fork = Tree(session="s-2", second=30, parentSession="/gone/2026_s-1.jsonl").user("a", second=1).model("b", second=2)
        session, events = self.read(self.write(f"{FOLDER}/t2_s-2.jsonl", fork.records))
        self.assertEqual((texts(events), session.attributes["forked_from"]), (["a", "b"], "s-1"))


class Relatives(PiTest):
    def test_each_tool_has_its_own_folders(self):
        for tool, folder in (("pi", ".pi/agent/sessions/--x--"), ("openclaw", ".openclaw/agents/main/sessions"),
                             ("openclaw", ".moltbot/agents/main/sessions"), ("oh-my-pi", ".omp/agent/sessions/--x--")):
            path = self.write(f"{folder}/t_{tool}.jsonl", Tree(session=f"{tool} {folder}").user("x").records)
            known = [name for name, made in daemon.TOOLS.items() if made.recognise(path.read_bytes(), str(path))]
            self.assertEqual(known, [tool])
            self.assertIn(f"{tool} {folder}", in_usual_places(tool, self.home))
        moved = str(self.home / "moved")
        self.write("moved/sessions/--x--/t_s.jsonl", Tree(session="moved").user("x").records)
        self.assertEqual(in_usual_places("pi", self.home, PI_CODING_AGENT_DIR=moved), ["moved"])
        self.assertEqual(daemon.openclaw_roots({"OPENCLAW_STATE_DIR": "/s"}, Path("/h")), [Path("/s/agents")])

    def test_the_live_file_counts_before_archives_and_the_newest_of_those_before_others(self):
        """O59"""
        folder = ".openclaw/agents/main/sessions"
        for name, text in (("a.jsonl", "live"), ("a.jsonl.deleted.2026-03-02", "dead"), ("b.jsonl.reset.2026-03-01", "old"),
                           ("b.jsonl.reset.2026-03-02", "new"), ("sessions.json", "{}")):
            self.write(f"{folder}/{name}", Tree(session=name[0]).user(text).records)
        found = self.sessions(self.home / folder, "openclaw")
        self.assertEqual([texts(events) for _, events in found], [["live"], ["new"]])

    def test_a_result_that_names_no_call_is_dropped(self):
        """O59"""
        path = self.write(".openclaw/agents/main/sessions/a.jsonl", Tree().user("x").result("lost", "").records)
        self.assertEqual(kinds(self.read(path, "openclaw")[1]), ["UserMessage"])

    def test_what_openclaw_asks_by_itself_is_no_prompt(self):
        """O59"""
        path = self.write(".openclaw/agents/main/sessions/a.jsonl",
                          Tree().user("Read HEARTBEAT.md if it exists (workspace context).").model("HEARTBEAT_OK").records)
        session, events = self.read(path, "openclaw")
        self.assertEqual((kinds(events), session.prompt), (["SystemMessage", "AgentMessage"], None))

    def test_a_sub_agent_of_oh_my_pi_lies_in_the_folder_of_its_session(self):
        self.write(".omp/agent/sessions/--x--/t_main.jsonl", Tree(session="main").user("x").records)
        path = self.write(".omp/agent/sessions/--x--/t_main/Scout.jsonl", Tree(session="child").user("y").records)
        session, _ = self.read(path, "oh-my-pi")
        self.assertEqual((session.attributes["parent_session_id"], session.attributes["session_role"]), ("main", "auxiliary"))


class Damage(PiTest):
    def read_bytes(self, content):
        return self.sessions(self.write(f"{FOLDER}/x_y.jsonl", content))

    def test_damaged_lines_cost_only_themselves(self):
        """O5 O6 O58"""
        lines = json_lines(Tree().user("a").model("b").user("c").records).splitlines(True)
        for damage in (b"{broken\n", b"\xff\xff{\n", b'{"type":"message","id":"e9"\n'):
            session, events = self.read_bytes(b"".join([*lines[:2], damage, *lines[2:]]))[0]
            self.assertEqual((texts(events), session.bad_lines), (["a", "b", "c"], 1))
        _, events = self.read_bytes(b"".join(lines) + lines[2][:60])[0]
        self.assertEqual(texts(events), ["a", "b", "c"])
        _, events = self.read_bytes(b"".join(lines).rstrip())[0]
        self.assertEqual(texts(events), ["a", "b", "c"])

    def test_no_damage_raises_or_costs_what_stands_before_it(self):
        tree = Tree().user("kept").model("kept, too", usage=(0, 0, 0))
        tree.records += everything().records[1:]
        for place, record in enumerate(tree.records[3:]):
            record.update(id=f"d{place}", parentId=tree.records[place + 2]["id"])
        survives_damage(self, json_lines(tree.records).splitlines(True), 3, self.read_bytes)

    def test_no_swapped_type_raises(self):
        survives_swaps(everything().records[:9], self.read_bytes)
        survives_swaps([header(), *everything().records[9:]], self.read_bytes)

    def test_reading_twice_gives_the_same(self):
        content = json_lines(everything().records)
        self.assertEqual(self.read_bytes(content)[0][1], self.read_bytes(content)[0][1])


@unittest.skipUnless((CORPUS / "pi").is_dir(), f"no corpus of real transcripts in {CORPUS}")
class RealFiles(unittest.TestCase):
    def test_totals_are_those_of_a_slow_reading(self):
        for tool in ("pi", "openclaw"):
            for source in daemon.pi_sources(CORPUS / tool):
                total = Counter()
                for line in source.path.read_bytes().splitlines():
                    message = json.loads(line).get("message") or {}
                    total.update({key: value for key, value in (message.get("usage") or {}).items() if isinstance(value, int)})
                [(session, events)] = read_sessions(tool, source)
                usage = session.attributes["usage"]
                self.assertEqual((usage["input"], usage["output"], usage["cache_read"]),
                                 (total["input"] + total["cacheRead"] + total["cacheWrite"], total["output"], total["cacheRead"]))
                self.assertEqual((session.bad_lines, session.unknown), (0, {} if tool == "pi" else {"compact": 1}))
                self.assertFalse(session.prompt.startswith("<"))


if __name__ == "__main__":
    unittest.main()
