"""Imports of ChatGPT and claude.ai exports, and parsers of one's own."""

import json
import os
import subprocess
import sys
import unittest
import zipfile
from pathlib import Path
from unittest import mock

import daemon
from damage import data_of, kinds, survives_swaps, texts
from transcripts import ParserTest


def node(name, parent, role, *parts, kind="text", second=0, **more):
    author = {"role": role, "name": more.pop("author", None)}
    content = {"content_type": kind, "parts": list(parts)} if kind in ("text", "multimodal_text") else {"content_type": kind, **more.pop("content")}
    return {name: {"id": name, "parent": parent, "children": [],
                   "message": {"id": name, "author": author, "create_time": 1770000000.5 + second, "content": content,
                               "recipient": more.pop("recipient", "all"), "metadata": more}}}


def conversation(**more):
    return {"title": "A talk", "create_time": 1770000000.0, "conversation_id": "g-1", "default_model_slug": "gpt-5", "mapping": {
        "root": {"id": "root", "parent": None, "children": []},
        **node("s", "root", "system", "You are"),
        **node("u1", "s", "user", "Draw", {"content_type": "image_asset_pointer", "asset_pointer": "file-service://f"}, kind="multimodal_text"),
        **node("old", "u1", "assistant", "first try"),
        **node("t", "u1", "assistant", kind="thoughts", content={"thoughts": [{"summary": "Plan", "content": "Hm."}]}),
        **node("c", "t", "assistant", kind="code", content={"text": "1/0", "language": "python"}, recipient="python"),
        **node("r", "c", "tool", kind="system_error", content={"name": "ZeroDivisionError", "text": "division by zero"}, author="python"),
        **node("a", "r", "assistant", "Done.", model_slug="gpt-5-thinking")}, "current_node": "a", **more}


def talk(**more):
    return {"uuid": "c-1", "name": "Another talk", "created_at": "2026-03-01T10:00:00.000000Z", "updated_at": "2026-03-01T11:00:00Z", "chat_messages": [
        {"uuid": "m1", "sender": "human", "text": "Look", "content": [{"type": "text", "text": "Look"}], "created_at": "2026-03-01T10:00:01Z",
         "attachments": [{"file_name": "a.py", "extracted_content": "x = 1"}], "files": [{"file_name": "b.png"}]},
        {"uuid": "m2", "sender": "assistant", "text": "", "created_at": "2026-03-01T10:00:02Z", "content": [
            {"type": "thinking", "thinking": "Hm."}, {"type": "tool_use", "name": "web_search", "input": {"query": "x"}},
            {"type": "tool_result", "name": "web_search", "content": [{"type": "text", "text": "found"}], "is_error": False},
            {"type": "text", "text": "It is so."}]},
        {"uuid": "m3", "sender": "human", "text": "Thanks", "created_at": "2026-03-01T10:00:03Z"}], **more}


class Exports(ParserTest):
    def imported(self, content, name="conversations.json"):
        return self.imported_from(self.write(name, content if isinstance(content, bytes) else json.dumps(content).encode()))

    def imported_from(self, path):
        return [found for part in daemon.unpacked_export(path, self.home / "imports") for name in daemon.EXPORTS
                for found in self.sessions(part, name)]

    def run_import(self, path):
        """What `daemon.py import` says, as a person would call it."""
        home = self.home / "laptop"
        return subprocess.run([sys.executable, daemon.__file__, "--home", str(home), "import", str(path)],
                              capture_output=True, text=True, timeout=60, env={"PATH": os.environ["PATH"], "HOME": str(home)})

    def test_a_conversation_of_chatgpt_is_the_way_to_its_last_message(self):
        """O78"""
        [(session, events)] = self.imported([conversation()])
        self.assertEqual(kinds(events), ["UserMessage", "Thinking", "ToolCall", "ToolResult", "AgentMessage"])
        self.assertEqual((session.tool, session.session_id, session.title, session.model),
                         ("chatgpt", "g-1", "A talk", "gpt-5-thinking"))
        self.assertEqual(texts(events), ["Draw\n[image file-service://f]", "Plan\nHm.", "1/0", "division by zero", "Done."])
        self.assertEqual(data_of(events, "ToolResult"), [{"name": "python", "is_error": True, "call_id": "c"}])

    def test_conversations_are_named_by_either_id(self):
        """O78"""
        either = conversation(id="g-2")
        del either["conversation_id"]
        self.assertEqual([session.session_id for session, _ in self.imported([conversation(), either])], ["g-1", "g-2"])

    def test_a_conversation_of_claude_is_read_with_what_was_attached(self):
        [(session, events)] = self.imported([talk()])
        self.assertEqual(kinds(events), ["UserMessage", "Thinking", "ToolCall", "ToolResult", "AgentMessage", "UserMessage"])
        self.assertEqual((session.tool, session.session_id, session.title, session.prompt),
                         ("claude-ai", "c-1", "Another talk", "Look\n[a.py]\n[b.png]"))
        self.assertEqual(events[0]["content"]["blocks"][2], {"type": "Code", "code": "x = 1", "language": "python"})
        self.assertEqual((session.created_at, session.updated_at), ("2026-03-01T10:00:00.000Z", "2026-03-01T11:00:00.000Z"))

    def test_one_conversation_by_itself_is_read(self):
        for value in (conversation(), talk()):
            self.assertEqual(len(self.imported(value)), 1)

    def test_an_archive_is_unpacked(self):
        path = self.home / "export.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("data/conversations-000.json", json.dumps([conversation()]))
            archive.writestr("conversations-001.json", json.dumps([conversation(conversation_id="g-2")]))
            archive.writestr("users.json", "[]")
            archive.writestr("../../conversations.json.bak", "[]")
        self.assertEqual([(session.session_id, len(events)) for session, events in self.imported_from(path)], [("g-1", 5), ("g-2", 5)])
        self.assertEqual(sorted(os.listdir(self.home)), ["export.zip", "imports"])

    def test_the_command_collects_the_conversations_of_an_archive(self):
        path = self.home / "export.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("conversations.json", json.dumps([conversation(), conversation(conversation_id="g-2")]))
        done = self.run_import(path)
        self.assertEqual((done.returncode, done.stdout), (0, "2 sessions known, no server is set.\n"), done.stderr)

    def test_what_is_no_export_is_refused_with_a_sentence(self):
        """O1 O2 O7 O78"""
        broken = zipfile.ZipFile(self.home / "x.zip", "w")
        broken.writestr("conversations.json", json.dumps([conversation()]) * 50, zipfile.ZIP_DEFLATED)
        broken.close()
        packed = bytearray((self.home / "x.zip").read_bytes())
        packed[60:90] = bytes(30)
        with self.assertRaises(daemon.Unreadable):
            self.imported(bytes(packed))
        for content in (b"", b"\x01\x02 encrypted", b"[]", b"{}", b'[{"mapping": {}}]', bytes(packed)):
            done = self.run_import(self.write("conversations.json", content))
            self.assertEqual(done.returncode, 1)
            self.assertRegex(done.stderr, "holds no conversations|does not unpack")

    def test_an_export_that_is_cut_off_gives_what_is_whole(self):
        content = json.dumps([conversation(), conversation(conversation_id="g-2")]).encode()
        self.assertEqual([session.session_id for session, _ in self.imported(content[:-40])], ["g-1"])

    def test_exports_are_recognised_and_read_like_transcripts(self):
        for name, value in (("chatgpt", [conversation()]), ("claude-ai", [talk()])):
            path = self.write("conversations.json", json.dumps(value).encode())
            self.assertEqual(daemon.recognise(str(path)).name, name)
            self.assertEqual(len(self.sessions(self.home, name)), 1)
            self.assertEqual(daemon.TOOLS[name].roots({}, self.home), [])

    def test_a_circle_of_parents_ends(self):
        value = conversation()
        value["mapping"]["s"]["parent"] = "a"
        self.assertEqual(len(self.imported([value])[0][1]), 5)

    def test_no_swapped_type_raises(self):
        def read(content):
            path = self.write("conversations.json", b"[" + b",".join(content.splitlines()) + b"]")
            return self.sessions(path, "chatgpt") + self.sessions(path, "claude-ai")
        survives_swaps([conversation()], read)
        survives_swaps([talk()], read)


class External(ParserTest):
    HEADER = {"type": "header", "version": "hail-1.0.0", "session_id": "x-1", "agent": {"provider": "p", "model": "m", "tool": "other"},
              "context": {"title": "A title", "created_at": "2026-03-01T10:00:00Z", "attributes": {"cwd": "/srv"}}}
    EVENTS = [{"type": "event", "event_id": "e1", "timestamp": "2026-03-01T10:00:01Z", "event_type": {"type": "UserMessage"},
               "content": {"blocks": [{"type": "Text", "text": "hello"}]}},
              {"type": "event", "event_id": "e2", "timestamp": "2026-03-01T10:00:02Z", "duration_ms": 5, "attributes": {"a": 1},
               "event_type": {"type": "ShellCommand", "data": {"command": "ls", "exit_code": 0, "at": 1}}, "content": {"blocks": [{"type": "Alien"}]}},
              {"type": "event", "event_type": {"type": "FileRead", "data": {}}}, {"type": "event", "event_type": {"type": ["odd"]}}]

    def parser(self, code, glob="*.log"):
        script = self.write("parser.py", code.encode())
        [tool] = daemon.external_tools([{"name": "my-tool", "command": f'"{sys.executable}" "{script}"', "glob": str(self.home / glob)}])
        return tool

    def parse(self, code):
        path = self.write("a.log", b"raw")
        return [(session, list(session.events)) for session in self.parser(code).parse(daemon.Source("a", (path,)))]

    def test_a_command_turns_a_file_into_a_session(self):
        lines = "\n".join(json.dumps(record) for record in [self.HEADER, *self.EVENTS, {"type": "stats"}])
        one = json.dumps({**{key: value for key, value in self.HEADER.items() if key != "type"}, "events": self.EVENTS, "stats": {}}, indent=1)
        for output in (lines, one):
            [(session, events)] = self.parse(f"import sys\nassert open(sys.argv[1]).read() == 'raw'\nprint({output!r})")
            self.assertEqual((session.tool, session.session_id, session.title, session.model, session.attributes),
                             ("my-tool", "x-1", "A title", "m", {"cwd": "/srv"}))
            self.assertEqual(kinds(events), ["UserMessage", "ShellCommand", "Custom", "Custom"])
            self.assertEqual(data_of(events, "ShellCommand"), [{"command": "ls", "exit_code": 0}])
            self.assertEqual(events[1]["content"]["blocks"], [{"type": "Json", "data": {"type": "Alien"}}])

    def test_no_shell_sees_the_name_of_the_file(self):
        path = self.write("a; touch gone.log", b"raw")
        tool = self.parser("import sys\nprint(len(sys.argv))")
        with self.assertRaises(daemon.Unreadable):
            list(tool.parse(daemon.Source("a", (path,))))
        self.assertEqual(sorted(os.listdir(self.home)), ["a; touch gone.log", "parser.py"])

    def test_a_command_that_fails_hangs_or_floods_is_ended(self):
        for code, word in (("import sys; sys.exit(3)", "ended with 3"), ("print('no HAIL')", "no HAIL session"),
                           ("import time; time.sleep(600)", "takes longer"),
                           ("import sys\nwhile True: sys.stdout.write('x' * 65536)", "prints more")):
            with mock.patch.multiple(daemon, EXTERNAL_SECONDS=1, EXTERNAL_BYTES=1 << 20), self.assertRaises(daemon.Unreadable) as raised:
                self.parse(code)
            self.assertIn(word, str(raised.exception))
        with self.assertRaises(daemon.Unreadable):
            [tool] = daemon.external_tools([{"name": "x", "command": "/no/such/program", "glob": "*"}])
            list(tool.parse(daemon.Source("a", (Path("a"),))))

    def test_the_glob_tells_where_to_look_and_what_is_meant(self):
        tool = self.parser("", "logs/**/*.log")
        for name in ("logs/a.log", "logs/deep/er/b.log", "logs/c.txt", "other/d.log"):
            self.write(name, b"x")
        [root] = tool.roots({}, self.home)
        self.assertEqual(root, self.home / "logs")
        self.assertEqual([source.path.name for source in tool.sources(root)], ["a.log", "b.log"])
        self.assertTrue(tool.recognise(b"", str(self.home / "logs/a.log")))
        self.assertFalse(tool.recognise(b"", str(self.home / "other/d.log")))

    def test_an_entry_that_is_not_right_is_refused_with_a_sentence(self):
        for entry in ({}, {"name": "claude-code", "command": "x", "glob": "y"}, {"name": "a b", "command": "x", "glob": "y"},
                      {"name": "mine", "glob": "y"}, {"name": "mine", "command": "x"}, {"name": "mine", "command": "'", "glob": "y"}, 7):
            with self.assertRaises(ValueError):
                daemon.external_tools([entry])
        self.assertEqual(daemon.external_tools(None), [])


if __name__ == "__main__":
    unittest.main()
