"""Amp, Grok and Hermes."""

import json
import os
import sqlite3
import unittest
from pathlib import Path

import daemon
from damage import data_of, kinds, survives_damage, survives_swaps, texts
from transcripts import CORPUS, ParserTest, in_usual_places, json_lines

THREAD = "T-11111111-2222-4333-8444-555555555555"
SENT = 1770000000000


def thread(*messages, **more):
    return {"v": 3, "id": THREAD, "created": SENT, "messages": list(messages), **more}


def asked(*blocks, number=0):
    return {"role": "user", "messageId": number, "content": [{"type": "text", "text": block} if isinstance(block, str) else block
                                                             for block in blocks], "meta": {"sentAt": SENT + number * 1000}}


def answered(*blocks, number=1, **usage):
    usage = {"model": "claude-opus-4", "inputTokens": 10, "outputTokens": 5, "cacheReadInputTokens": 80,
             "cacheCreationInputTokens": 10, **usage}
    return {**asked(*blocks, number=number), "role": "assistant", "usage": usage, "state": {"type": "complete"}}


def call(name, id="c1", **given):
    return {"type": "tool_use", "id": id, "name": name, "input": given}


def ran(status, result=None, id="c1", **more):
    return {"type": "tool_result", "toolUseID": id, "run": {"status": status, "result": result, **more}}


def whole_thread():
    return thread(
        asked("Fix it"), answered({"type": "thinking", "thinking": "Hm."}, "I look.", call("Bash", cmd="make"), call("Read", "c2", path="/a.py")),
        asked(ran("done", {"output": "boom", "exitCode": 2}), ran("done", {"content": "x = 1"}, "c2"), number=2),
        answered(call("edit_file", "c3", path="/a.py", old_str="x = 1", new_str="x = 2"), number=3),
        asked(ran("error", None, "c3", error={"message": "no match"}), number=4), answered("Done.", number=5),
        title="A title", env={"initial": {"trees": [{"displayName": "demo", "uri": "file:///home/ada/my%20demo",
                                                     "repository": {"url": "https://example.org/ada/demo", "ref": "refs/heads/main",
                                                                    "sha": "ab12"}}], "platform": {"clientVersion": "0.0.1"}}})


class Amp(ParserTest):
    tool = "amp"

    def read_thread(self, value, name=f"{THREAD}.json"):
        return self.read(self.write(f".local/share/amp/threads/{name}", value))

    def test_a_thread_is_read_with_its_facts(self):
        """O77"""
        session, events = self.read_thread(whole_thread())
        self.assertEqual(kinds(events), ["UserMessage", "Thinking", "AgentMessage", "ShellCommand", "FileRead", "ToolResult", "ToolResult",
                                         "FileEdit", "ToolResult", "AgentMessage"])
        self.assertEqual((session.session_id, session.title, session.model, session.provider, session.tool_version),
                         (THREAD, "A title", "claude-opus-4", "anthropic", "0.0.1"))
        self.assertEqual((session.attributes["cwd"], session.attributes["git_branch"]), ("/home/ada/my demo", "main"))
        self.assertEqual(session.attributes["git"]["repository_url"], "https://example.org/ada/demo")
        self.assertEqual(data_of(events, "ShellCommand"), [{"command": "make", "exit_code": 2}])
        self.assertEqual(data_of(events, "FileEdit"), [{"path": "/a.py"}])      # it failed, so that no line changed
        self.assertEqual([result["is_error"] for result in data_of(events, "ToolResult")], [True, False, True])

    def test_input_is_all_that_was_sent(self):
        session, events = self.read_thread(thread(asked("x"), answered("a", "b"), answered("c", number=2, totalInputTokens=7)))
        usage = session.attributes["usage"]
        self.assertEqual([usage[key] for key in ("input", "output", "cache_read", "cache_write", "responses")], [107, 10, 160, 20, 2])
        self.assertEqual([event.get("attributes", {}).get("input_tokens") for event in events], [None, 100, None, 7])

    def test_the_account_of_a_thread_counts_only_where_messages_have_none(self):
        ledger = {"events": [{"model": "m", "tokens": {"input": 40, "output": 4}}]}
        session, _ = self.read_thread(thread(asked("x"), answered("a"), usageLedger=ledger))
        self.assertEqual(session.attributes["usage"]["input"], 100)
        plain = {key: value for key, value in answered("a").items() if key != "usage"}
        session, _ = self.read_thread(thread(asked("x"), plain, usageLedger=ledger))
        self.assertEqual(session.attributes["usage"]["input"], 40)

    def test_little_is_needed_of_a_thread(self):
        """O77"""
        for created in (None, "yesterday", 0, -5, SENT):
            value = thread({"role": "user", "content": "x"}, created=created)
            session, events = self.read_thread(value)
            self.assertEqual(texts(events), ["x"])
            self.assertEqual(session.created_at, daemon.utc(SENT) if created == SENT else None)

    def test_the_name_of_the_file_counts_before_the_id_inside(self):
        """O77"""
        other = THREAD.replace("1", "9")
        self.assertEqual(self.read_thread(thread(asked("x")), f"{other}.json")[0].session_id, other)
        self.assertEqual(self.read_thread(thread(asked("x")), "copy.json")[0].session_id, THREAD)
        self.assertEqual(self.sessions(self.write("copy.json", thread(asked("x"), id="7"))), [])

    def test_a_part_of_another_thread_names_it(self):
        session, _ = self.read_thread(thread(asked("x"), mainThreadID="T-main", relationships=[{"threadID": "T-next", "type": "handoff"}]))
        self.assertEqual((session.attributes["parent_session_id"], session.attributes["session_role"]), ("T-main", "auxiliary"))
        self.assertEqual(session.related, ["T-main", "T-next"])

    def test_other_records_are_kept(self):
        """O12"""
        session, events = self.read_thread(thread(
            asked({"type": "manual_bash_invocation", "args": {"cmd": "ls"}, "toolRun": {"result": {"output": "a", "exitCode": 0}}},
                  {"type": "summary", "summary": {"type": "message", "summary": "So far"}}, {"type": "martian"}),
            {"role": "info", "content": []}))
        self.assertEqual(kinds(events), ["ShellCommand", "ToolResult", "Custom", "SystemMessage", "UserMessage", "Custom"])
        self.assertEqual(session.unknown, {"block martian": 1, "message info": 1})

    def test_a_thread_is_found_where_it_lies(self):
        self.write(f".local/share/amp/threads/{THREAD}.json", thread(asked("x")))
        self.write(f"xdg/amp/threads/{THREAD}.json", thread(asked("x")))
        self.write(".local/share/amp/threads/other.json", {"messages": []})
        self.assertEqual(in_usual_places("amp", self.home), [THREAD])
        self.assertEqual(in_usual_places("amp", self.home / "y", XDG_DATA_HOME=str(self.home / "xdg")), [THREAD])
        self.write(f".config/Code/User/globalStorage/sourcegraph.amp/threads3/{THREAD}.json", thread(asked("x")))
        self.assertEqual(in_usual_places("amp", self.home), [THREAD, THREAD])

    def test_an_empty_thread_is_no_session(self):
        """O1 O7"""
        for content in (b"", b"{}", thread(), b"\xff\x00"):
            self.assertEqual(self.sessions(self.write(f"{THREAD}.json", content)), [])

    def test_no_damage_raises_or_costs_what_stands_before_it(self):
        value = whole_thread()
        lines = [b'{"v": 3, "id": "%s",\n' % THREAD.encode(), b'"messages": [\n',
                 *(json.dumps(message).encode() + b",\n" for message in value["messages"]), b'],\n',
                 b'"title": "x",\n', b'"env": %s}\n' % json.dumps(value["env"]).encode()]
        survives_damage(self, lines, 4, lambda content: self.sessions(self.write(f"{THREAD}.json", content)))

    def test_no_swapped_type_raises(self):
        def read(content):
            messages = content.splitlines()
            return self.sessions(self.write(f"{THREAD}.json", b'{"messages": [%s]}' % b",".join(messages)))
        survives_swaps(whole_thread()["messages"], read)
        for odd in (None, [], 7, "x", {"initial": 3}, {"initial": {"trees": [7]}}, {"initial": {"trees": [{"repository": []}]}}):
            for key in ("env", "title", "created", "usageLedger", "relationships", "mainThreadID", "messages"):
                self.sessions(self.write(f"{THREAD}.json", thread(asked("x")) | {key: odd}))


GROK_ID = "019f0000-0000-7000-8000-000000000001"


def grok_records():
    return [
        {"type": "system", "content": "You are Grok."},
        {"type": "user", "content": [{"type": "text", "text": "<user_info>linux</user_info>"}], "synthetic_reason": "system_reminder"},
        {"type": "user", "content": [{"type": "text", "text": "<user_query>\nCount files\n</user_query>"}], "prompt_index": 0},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}], "encrypted_content": "zz"},
        {"type": "assistant", "content": "I count.", "tool_calls": [
            {"id": "c1", "name": "run_terminal_cmd", "arguments": "{\"command\": \"ls | wc -l\"}"},
            {"id": "c2", "name": "search_replace", "arguments": "{\"file_path\": \"a.py\", \"old_string\": \"a\", \"new_string\": \"b\"}"}],
         "model_id": "grok-4.5"},
        {"type": "tool_result", "tool_call_id": "c1", "content": "Exit code: 1\nno"},
        {"type": "tool_result", "tool_call_id": "c2", "content": "ok"},
        {"type": "assistant", "content": "Four.", "tool_calls": [], "model_id": "grok-4.5"}]


class Grok(ParserTest):
    tool = "grok"
    place = f".grok/sessions/%2Fhome%2Fada%2Fdemo/{GROK_ID}"

    def test_a_session_is_read_with_its_summary(self):
        self.write(f"{self.place}/summary.json", {
            "info": {"id": GROK_ID, "cwd": "/home/ada/demo"}, "generated_title": "Counting", "created_at": "2026-03-01T10:00:00Z",
            "last_active_at": "2026-03-01T10:05:00.123456789Z", "head_branch": "main", "head_commit": "ab", "git_remotes": ["git@example.org:a/b.git"],
            "session_kind": "subagent", "current_model_id": "grok-4.5"})
        session, events = self.read(self.write(f"{self.place}/chat_history.jsonl", grok_records()))
        self.assertEqual(kinds(events), ["UserMessage", "Thinking", "AgentMessage", "ShellCommand", "FileEdit", "ToolResult", "ToolResult",
                                         "AgentMessage"])
        self.assertEqual((session.session_id, session.title, session.prompt, session.model),
                         (GROK_ID, "Counting", "Count files", "grok-4.5"))
        self.assertEqual(session.attributes["git"]["repository_url"], "git@example.org:a/b.git")
        self.assertEqual((session.attributes["git_branch"], session.attributes["session_role"]), ("main", "auxiliary"))
        self.assertEqual(data_of(events, "ShellCommand")[0]["exit_code"], 1)
        self.assertEqual(data_of(events, "FileEdit")[0]["diff"].splitlines()[-2:], ["-a", "+b"])
        self.assertEqual(events[0]["timestamp"], "2026-03-01T10:00:00.000Z")

    def test_the_folder_tells_where_a_session_without_summary_was(self):
        session, _ = self.read(self.write(f"{self.place}/chat_history.jsonl", grok_records()))
        self.assertEqual((session.session_id, session.attributes["cwd"]), (GROK_ID, "/home/ada/demo"))
        self.assertEqual(in_usual_places("grok", self.home), [GROK_ID])

    def test_unknown_records_are_kept_and_empty_sessions_are_none(self):
        """O1 O7 O12"""
        session, events = self.read(self.write(f"{self.place}/chat_history.jsonl", [*grok_records(), {"type": "martian"}]))
        self.assertEqual((session.unknown, kinds(events)[-1]), ({"martian": 1}, "Custom"))
        for content in (b"", grok_records()[:2], b"\xff\n"):
            self.assertEqual(self.sessions(self.write(f"{self.place}/chat_history.jsonl", content)), [])

    def test_no_damage_raises(self):
        """O5 O6"""
        def read(content):
            return self.sessions(self.write(f"{self.place}/chat_history.jsonl", content))
        records = grok_records()
        survives_damage(self, json_lines([*records[:1], records[2], records[-1], *records[3:]]).splitlines(True), 3, read)
        survives_swaps(records, read)
        for odd in (None, [], {"info": []}, {"info": {"id": 3}, "git_remotes": {"a": 1}, "created_at": []}):
            self.write(f"{self.place}/summary.json", json.dumps(odd).encode())
            read(json_lines(records))


class Hermes(ParserTest):
    tool = "hermes"

    def database(self, *messages, columns="", **facts):
        """state.db with one session and these (role, content, more) messages."""
        path = self.home / ".hermes" / "state.db"
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
        connection = sqlite3.connect(path)
        connection.executescript(f"""
            CREATE TABLE sessions (id TEXT PRIMARY KEY, source TEXT, model TEXT, parent_session_id TEXT, started_at REAL, ended_at REAL,
                title TEXT, input_tokens INTEGER, output_tokens INTEGER, cache_read_tokens INTEGER, reasoning_tokens INTEGER,
                estimated_cost_usd REAL{columns});
            CREATE TABLE messages (id INTEGER PRIMARY KEY, session_id TEXT, role TEXT, content TEXT, tool_call_id TEXT, tool_calls TEXT,
                tool_name TEXT, timestamp REAL, reasoning TEXT, active INTEGER DEFAULT 1);
        """)
        row = {"id": "20260301_a", "source": "cli", "model": "claude-sonnet-4", "started_at": 1772359200.5, "input_tokens": 100,
               "output_tokens": 10, "cache_read_tokens": 40, "reasoning_tokens": 3, "estimated_cost_usd": 0.5, **facts}
        connection.execute(f"INSERT INTO sessions ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", list(row.values()))
        for number, (role, content, more) in enumerate(messages):
            row = {"session_id": "20260301_a", "role": role, "content": content, "timestamp": 1772359201 + number, **more}
            connection.execute(f"INSERT INTO messages ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", list(row.values()))
        connection.commit()
        connection.close()
        return path

    MESSAGES = (
        ("session_meta", "{}", {}), ("user", "Look around", {}),
        ("assistant", "I look.", {"reasoning": "Hm.", "tool_calls": json.dumps([
            {"id": "c1", "type": "function", "function": {"name": "terminal", "arguments": "{\"command\": \"ls\"}"}},
            {"id": "c2", "type": "function", "function": {"name": "read_file", "arguments": "{\"path\": \"a.py\"}"}}])}),
        ("tool", json.dumps({"output": "a.py", "exit_code": 0, "error": None}), {"tool_call_id": "c1"}),
        ("tool", json.dumps({"error": "not found"}), {"tool_call_id": "c2"}),
        ("user", "taken back", {"active": 0}), ("assistant", "Done.", {}), ("martian", "?", {}))

    def test_a_row_is_a_session(self):
        """O71"""
        session, events = self.read(self.database(*self.MESSAGES, title="A title"))
        self.assertEqual(kinds(events), ["UserMessage", "Thinking", "AgentMessage", "ShellCommand", "FileRead", "ToolResult", "ToolResult",
                                         "AgentMessage", "Custom", "Custom"])
        self.assertEqual((session.session_id, session.title, session.prompt, session.model, session.provider),
                         ("20260301_a", "A title", "Look around", "claude-sonnet-4", "anthropic"))
        self.assertEqual(data_of(events, "ShellCommand"), [{"command": "ls", "exit_code": 0}])
        self.assertEqual([result["is_error"] for result in data_of(events, "ToolResult")], [False, True])
        usage = session.attributes["usage"]
        self.assertEqual([usage[key] for key in ("input", "output", "cache_read", "reasoning", "cost_usd")], [140, 10, 40, 3, 0.5])
        self.assertEqual(session.unknown, {"message martian": 1})
        self.assertEqual(events[0]["timestamp"], "2026-03-01T10:00:02.000Z")

    def test_other_columns_are_no_harm(self):
        """O3"""
        session, _ = self.read(self.database(("user", "x", {}), columns=", cwd TEXT, git_branch TEXT, odd BLOB", cwd="/srv", git_branch="dev"))
        self.assertEqual((session.attributes["cwd"], session.attributes["git_branch"]), ("/srv", "dev"))
        path = self.home / "other" / "state.db"
        path.parent.mkdir()
        connection = sqlite3.connect(path)
        connection.execute("CREATE TABLE sessions (name TEXT)")
        connection.commit()
        connection.close()
        self.assertEqual(self.sessions(path), [])

    def test_what_is_no_database_is_no_session(self):
        """O1 O2"""
        for content in (b"", b"\xff\xfe", b"SQLite format 3\0 but session no more"):
            self.assertEqual(self.sessions(self.write(".hermes/state.db", content)), [])

    def test_a_damaged_database_gives_what_can_be_read(self):
        path = self.database(*self.MESSAGES)
        whole = path.read_bytes()
        for place in range(0, len(whole), 509):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1:])
            self.sessions(path)
            path.write_bytes(whole[:place])
            self.sessions(path)

    def test_the_database_is_only_read(self):
        path = self.database(*self.MESSAGES)
        before = path.read_bytes()
        self.read(path)
        self.assertEqual((path.read_bytes(), sorted(os.listdir(path.parent))), (before, ["state.db"]))

    def test_an_older_file_is_a_session_unless_the_database_has_it(self):
        value = {"session_id": "old_1", "model": "m", "platform": "cli", "session_start": "2026-03-01T10:00:00Z", "cwd": "/srv",
                 "messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}]}
        session, events = self.read(self.write(".hermes/sessions/old.json", value))
        self.assertEqual((session.session_id, texts(events), session.attributes["cwd"]), ("old_1", ["hello", "hi"], "/srv"))
        self.assertEqual(events[0]["timestamp"], "2026-03-01T10:00:00.000Z")
        self.database(("user", "x", {}))
        self.write(".hermes/sessions/new.json", value | {"session_id": "20260301_a"})
        self.write(".hermes/sessions/sessions.json", {"a": {}})
        self.assertEqual(in_usual_places("hermes", self.home), ["20260301_a", "old_1"])

    def test_no_swapped_type_in_a_file_raises(self):
        messages = [{"role": role, "content": content, **more} for role, content, more in self.MESSAGES]

        def read(content):
            body = b'{"session_id": "x", "platform": "cli", "messages": [%s]}' % b",".join(content.splitlines())
            return self.sessions(self.write("old.json", body))
        survives_swaps(messages, read)
        lines = [b'{"session_id": "x", "platform": "cli", "messages": [\n', b'{"role": "user", "content": "a"},\n',
                 b'{"role": "user", "content": "b"},\n', *(json.dumps(message).encode() + b",\n" for message in messages), b"]}\n"]
        survives_damage(self, lines, 3, lambda content: self.sessions(self.write("old.json", content)))


@unittest.skipUnless(CORPUS.is_dir(), f"no corpus of real transcripts in {CORPUS}")
class RealFiles(ParserTest):
    def test_the_fixtures_of_others_are_read(self):
        for tool, count in (("grok", 5), ("hermes", 2)):
            session, events = self.read(CORPUS / tool, tool)
            self.assertEqual((len(events), session.unknown, session.bad_lines), (count, {}, 0))

    def test_no_file_of_another_tool_is_taken(self):
        own = {"cline": "cline", "pi": "pi", "openclaw": "openclaw", "aider": "aider", "grok": "grok", "hermes": "hermes"}
        names = [*own.values(), "roo-code", "kilo-code", "oh-my-pi", "amp", "chatgpt", "claude-ai"]
        for path in CORPUS.rglob("*"):
            if path.is_file():
                head = daemon.claude_head(str(path))
                found = [name for name in names if daemon.TOOLS[name].recognise(head, str(path))]
                self.assertIn(found, ([], [own.get(path.relative_to(CORPUS).parts[0])]), path)


if __name__ == "__main__":
    unittest.main()
