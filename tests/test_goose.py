"""Goose: the database, and the files before it."""

import json
import sqlite3
import unittest

from hypothesis import given, settings, strategies

import daemon
from damage import data_of, flipped, kinds, survives_damage, swapped, texts, timed, usage_on
from transcripts import ParserTest, in_usual_places, json_lines

SCHEMA = """
    CREATE TABLE schema_version (version integer);
    CREATE TABLE sessions (id text PRIMARY KEY, name text, session_type text, working_dir text, created_at text,
                           updated_at text, accumulated_input_tokens integer, accumulated_output_tokens integer,
                           input_tokens integer, output_tokens integer, provider_name text, model_config_json text);
    CREATE TABLE messages (id integer PRIMARY KEY, message_id text, session_id text, role text, content_json text,
                           created_timestamp integer, metadata_json text);
"""
START = 1772359200


def text(words):
    return {"type": "text", "text": words}


def request(call_id, name, given, status="success"):
    call = {"status": "success", "value": {"name": name, "arguments": given}} if status == "success" else \
        {"status": "error", "error": "bad arguments"}
    return {"type": "toolRequest", "id": call_id, "toolCall": call}


def response(call_id, value, status="success", **more):
    return {"type": "toolResponse", "id": call_id, "toolResult": {"status": status, "value": value, **more}}


SHELL = ("assistant", [request("c1", "developer__shell", {"command": "ls"})])


class GooseTest(ParserTest):
    tool = "goose"

    def database(self, *messages, name="sessions.db", session="20260301_1", schema=SCHEMA, **facts):
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        new = not path.exists()
        with sqlite3.connect(path) as database:
            if new:
                database.executescript(schema)
            row = {"id": session, "name": "Repair", "working_dir": "/home/ada/demo", "created_at": "2026-03-01 10:00:00",
                   "updated_at": START + 60, "provider_name": "acme", "model_config_json": '{"model_name":"m-1"}', **facts}
            database.execute(f"INSERT INTO sessions ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})",
                             list(row.values()))
            for number, (role, parts, *metadata) in enumerate(messages, 1):
                database.execute("INSERT INTO messages (message_id, session_id, role, content_json, created_timestamp, "
                                 "metadata_json) VALUES (?, ?, ?, ?, ?, ?)",
                                 [f"m{number}", session, role, json.dumps(parts), START + number,
                                  json.dumps(metadata[0] if metadata else {})])
        database.close()
        return path

    def of(self, *messages, **facts):
        (self.home / "sessions.db").unlink(missing_ok=True)
        return self.read(self.database(*messages, **facts))


class Places(GooseTest):
    def test_every_place_is_looked_at(self):
        share = ".local/share/goose/sessions"
        self.database(("user", [text("hi")]), name=f"{share}/sessions.db")
        self.database(("user", [text("hi")]), name="root/data/sessions/sessions.db", session="20260301_2")
        self.assertEqual(in_usual_places("goose", self.home, GOOSE_PATH_ROOT=str(self.home / "root")),
                         ["20260301_2", "20260301_1"])

    def test_an_older_file_that_was_imported_is_not_read_again(self):
        head = {"working_dir": "/x", "description": "Old", "message_count": 1, "total_tokens": 5}
        message = {"role": "user", "created": START, "content": [text("old")]}
        self.database(("user", [text("hi")]))
        self.write("20260301_1.jsonl", [head, message])
        self.write("20250101_9.jsonl", [head, message])
        self.write("without_head.jsonl", [message])
        found = {session.session_id: session for session, _ in self.sessions(self.home)}
        self.assertEqual(sorted(found), ["20250101_9", "20260301_1", "without_head"])
        self.assertEqual((found["20250101_9"].title, found["20250101_9"].attributes["cwd"]), ("Old", "/x"))

    def test_files_that_are_no_database_or_have_other_columns_are_none(self):  # O1, O2, O3
        for content in (b"", b"\xff\0\1", daemon.SQLITE_HEAD + b"\0" * 500):
            self.assertEqual(self.sessions(self.write("sessions.db", content)), [])
        path = self.home / "other.db"
        with sqlite3.connect(path) as database:
            database.executescript("CREATE TABLE sessions (id, working_dir); CREATE TABLE messages (content_json)")
        database.close()
        self.assertEqual(self.sessions(path), [])

    def test_a_session_without_messages_is_none(self):  # O7
        self.assertEqual(self.sessions(self.database(accumulated_input_tokens=5)), [])


class Messages(GooseTest):
    def test_the_row_gives_the_facts(self):  # O69
        session, events = self.of(("user", [text("fix it")]), ("assistant", [text("ok")]))
        self.assertEqual((session.title, session.model, session.provider, session.attributes["cwd"]),
                         ("Repair", "m-1", "acme", "/home/ada/demo"))
        self.assertEqual((session.created_at, session.updated_at), ("2026-03-01T10:00:00.000Z", "2026-03-01T10:01:00.000Z"))
        self.assertEqual([event["timestamp"][11:19] for event in events], ["10:00:01", "10:00:02"])

    def test_columns_may_be_missing_and_titles_the_tools_own(self):  # O3
        schema = SCHEMA.replace("provider_name text, ", "").replace(", metadata_json text", ", metadata_json text, x text")
        (self.home / "sessions.db").unlink(missing_ok=True)
        path = self.home / "sessions.db"
        with sqlite3.connect(path) as database:
            database.executescript(schema)
            database.execute("INSERT INTO sessions (id, name, working_dir) VALUES ('a', 'CLI Session', '/x')")
            database.execute("INSERT INTO messages (session_id, role, content_json) VALUES ('a', 'user', ?)",
                             [json.dumps([text("hi")])])
        database.close()
        session, events = self.read(path)
        self.assertEqual((session.title, texts(events)), (None, ["hi"]))

    def test_a_command_and_its_result_are_no_prompts(self):  # O72
        for value in ([text("a.py")], {"content": [text("a.py")], "isError": False}):
            session, events = self.of(SHELL, ("user", [response("c1", value)]))
            self.assertEqual((kinds(events), session.prompt), (["ShellCommand", "ToolResult"], None))
            self.assertEqual((daemon.event_texts(events[1]), daemon.is_error(events[1])), ("a.py", False))

    def test_failures_of_either_side_are_shown(self):  # O72
        for parts in ([response("c1", None, "error", error="no such file")],
                      [response("c1", {"content": [text("no such file")], "isError": True})]):
            _, events = self.of(SHELL, ("user", parts))
            self.assertEqual((daemon.event_texts(events[1]), daemon.is_error(events[1])), ("no such file", True))
        _, events = self.of(("assistant", [request("c1", "", {}, "error")]))
        self.assertEqual((kinds(events), daemon.event_texts(events[1])), (["ToolCall", "ToolResult"], "bad arguments"))

    def test_what_is_not_for_the_person_is_hidden(self):  # O72
        session, events = self.of(("user", [text("hi")], {"userVisible": True, "agentVisible": False}),
                                  ("user", [text("summary")], {"userVisible": False}),
                                  ("user", [text("<turn-context>now</turn-context>")]))
        self.assertEqual(texts(events), ["hi"])

    def test_a_reply_that_was_split_over_rows_is_one(self):
        _, events = self.of(("assistant", [text("one ")]), ("assistant", [text("two ")]), ("assistant", [text("three")]), SHELL,
                            ("assistant", [text("four")]))
        self.assertEqual(texts(events, "AgentMessage"), ["one two three", "four"])

    def test_edits_pictures_thinking_and_notices_have_their_kinds(self):
        edit = {"command": "str_replace", "path": "/x/a.py", "old_str": "a", "new_str": "b"}
        parts = [{"type": "thinking", "thinking": "hm"}, {"type": "redactedThinking", "data": "x"},
                 request("c1", "developer__text_editor", edit), {"type": "systemNotification", "msg": "note"},
                 {"type": "conversationCompacted", "msg": "short"}, {"type": "brandNew"}]
        session, events = self.of(("assistant", parts), ("user", [{"type": "image", "data": "aa", "mimeType": "image/png"}]))
        self.assertEqual(kinds(events), ["Thinking", "FileEdit", "SystemMessage", "Custom", "Custom", "UserMessage"])
        self.assertIn("-a\n+b", data_of(events, "FileEdit")[0]["diff"])
        self.assertEqual(session.unknown, {"part brandNew": 1})

    def test_sub_agents_are_auxiliary(self):
        self.assertEqual(self.of(("user", [text("x")]), session_type="sub_agent")[0].attributes["session_role"], "auxiliary")

    def test_tokens_are_those_of_the_session(self):
        _, events = self.of(("user", [text("x")]), input_tokens=7, accumulated_input_tokens=900, accumulated_output_tokens=90)
        self.assertEqual((usage_on(events), kinds(events)), ((900, 90), ["UserMessage", "Custom"]))


class Robustness(GooseTest):
    MESSAGES = (("user", [text("kept")]), ("assistant", [text("kept too")]), SHELL, ("user", [response("c1", [text("x")])]),
                ("assistant", [{"type": "thinking", "thinking": "t"}, {"type": "image", "data": "a"}, request("c2", "edit", {"path": "p"})]))

    @settings(max_examples=60, deadline=None)
    @given(strategies.data())
    def test_no_damage_to_a_database_raises(self, draw):
        (self.home / "sessions.db").unlink(missing_ok=True)
        content = self.database(*self.MESSAGES).read_bytes()
        cut = content[:draw.draw(strategies.integers(0, len(content)))] if draw.draw(strategies.booleans()) else flipped(draw, content)
        try:
            timed(lambda _: self.sessions(self.write("damaged.db", cut)), None)
        except OSError:
            pass

    def test_no_swapped_type_raises(self):
        for role, parts in self.MESSAGES[1:]:
            for variant in swapped(parts):
                self.of(("user", [text("kept")]), (role, variant))

    def test_no_damage_to_an_older_file_raises_or_costs_what_stands_before_it(self):
        records = [{"working_dir": "/x", "message_count": 1}] + [
            {"role": role, "created": START, "content": parts} for role, parts in self.MESSAGES]
        survives_damage(self, json_lines(records).splitlines(True), 3,
                        lambda content: self.sessions(self.write("old.jsonl", content)))


if __name__ == "__main__":
    unittest.main()
