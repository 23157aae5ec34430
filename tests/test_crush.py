"""Crush: a database in each project."""

import json
import sqlite3
import unittest

from hypothesis import given, settings, strategies

import daemon
from damage import data_of, flipped, kinds, swapped, texts, timed, usage_on
from transcripts import ParserTest, in_usual_places

SCHEMA = """
    CREATE TABLE sessions (id TEXT PRIMARY KEY, parent_session_id TEXT, title TEXT, prompt_tokens INTEGER, completion_tokens INTEGER,
                           cost REAL, updated_at INTEGER, created_at INTEGER, summary_message_id TEXT);
    CREATE TABLE messages (id TEXT PRIMARY KEY, session_id TEXT, role TEXT, parts TEXT, model TEXT, created_at INTEGER,
                           updated_at INTEGER, provider TEXT, is_summary_message INTEGER DEFAULT 0);
"""
START = 1772359200


def part(kind, **data):
    return {"type": kind, "data": data}


def call(call_id, name, **given):
    return part("tool_call", id=call_id, name=name, input=json.dumps(given), finished=True)


def result(call_id, name, content="", is_error=False, **details):
    return part("tool_result", tool_call_id=call_id, name=name, content=content, is_error=is_error, metadata=json.dumps(details))


SHELL = ("assistant", [call("c1", "bash", command="go test ./...")])


class CrushTest(ParserTest):
    tool = "crush"

    def database(self, *messages, name="work/shop/.crush/crush.db", session="s1", schema=SCHEMA, **facts):
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        new = not path.exists()
        with sqlite3.connect(path) as database:
            if new:
                database.executescript(schema)
            row = {"id": session, "title": "Rounding", "created_at": START, "updated_at": START + 60, **facts}
            database.execute(f"INSERT INTO sessions ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", list(row.values()))
            for number, (role, parts, *summary) in enumerate(messages, 1):
                database.execute("INSERT INTO messages VALUES (?, ?, ?, ?, 'm-1', ?, ?, 'acme', ?)", [
                    f"{session}-m{number}", session, role, json.dumps(parts), START + number, START + number, bool(summary)])
        database.close()
        return path

    def of(self, *messages, **facts):
        (self.home / "work/shop/.crush/crush.db").unlink(missing_ok=True)
        return self.read(self.database(*messages, **facts))


class Places(CrushTest):
    def test_the_projects_of_the_list_and_the_home_folder_are_looked_at(self):
        said = ("user", [part("text", text="hi")])
        self.database(said)
        self.database(said, name="elsewhere/crush.db", session="s2")
        self.database(said, name=".crush/crush.db", session="s3")
        self.write("data/projects.json", {"projects": [
            {"path": str(self.home / "work/shop"), "data_dir": ".crush"},
            {"path": str(self.home / "work/other"), "data_dir": str(self.home / "elsewhere")}, {"path": 7}, "x"]})
        self.assertEqual(in_usual_places("crush", self.home, CRUSH_GLOBAL_DATA=str(self.home / "data")), ["s1", "s2", "s3"])
        self.assertEqual(in_usual_places("crush", self.home), ["s3"])

    def test_files_that_are_no_database_or_have_other_columns_are_none(self):  # O1, O2, O3
        for content in (b"", b"\xff\0\1", daemon.SQLITE_HEAD + b"\0" * 500):
            self.assertEqual(self.sessions(self.write("crush.db", content)), [])
        path = self.home / "other.db"
        with sqlite3.connect(path) as database:
            database.executescript("CREATE TABLE sessions (id); CREATE TABLE messages (parts)")
        database.close()
        self.assertEqual(self.sessions(path), [])


class Messages(CrushTest):
    def test_the_row_gives_the_facts(self):
        session, events = self.of(("user", [part("text", text="fix it")]), ("assistant", [part("text", text="ok")]))
        self.assertEqual((session.title, session.model, session.provider), ("Rounding", "m-1", "acme"))
        self.assertEqual(session.attributes["cwd"], str(self.home / "work/shop"))
        self.assertEqual([event["timestamp"][11:19] for event in events], ["10:00:01", "10:00:02"])

    def test_messages_of_an_unknown_session_belong_to_none(self):
        """O70: and what the row says of tokens and cost is kept."""
        path = self.database(("user", [part("text", text="hi")]), prompt_tokens=900, completion_tokens=90, cost=0.5)
        with sqlite3.connect(path) as database:
            database.execute("INSERT INTO messages VALUES ('x', 'gone', 'user', '[]', '', 1, 1, '', 0)")
        database.close()
        session, events = self.read(path)
        self.assertEqual(texts(events), ["hi"])
        self.assertEqual(session.attributes["crush_last_response"], {"input_tokens": 900, "output_tokens": 90})
        self.assertEqual(session.attributes["usage"]["cost_usd"], 0.5)
        self.assertEqual(usage_on(events), (0, 0))      # those of the last response are not those of the session

    def test_a_command_has_its_output_and_exit_code(self):
        for details in ({"output": "FAIL\nExit code 2"}, {"output": "FAIL", "exit_code": 2}):
            _, events = self.of(SHELL, ("tool", [result("c1", "bash", "FAIL\n<cwd>/x</cwd>", start_time=5000, end_time=6500, **details)]))
            self.assertEqual((kinds(events), data_of(events, "ShellCommand")[0]["exit_code"]), (["ShellCommand", "ToolResult"], 2))
            self.assertNotIn("<cwd>", daemon.event_texts(events[1]))
            self.assertEqual(events[1]["duration_ms"], 1500)

    def test_an_edit_has_the_diff_that_was_made(self):
        asked = call("c1", "edit", file_path="/x/a.go", old_string="1", new_string="2")
        _, events = self.of(("assistant", [asked]), ("tool", [result("c1", "edit", old_content="a\n1\n", new_content="a\n2\n")]))
        self.assertIn(" a\n-1\n+2", data_of(events, "FileEdit")[0]["diff"])
        _, events = self.of(("assistant", [asked]), ("tool", [result("c1", "edit", "not found", is_error=True)]))
        self.assertNotIn("diff", data_of(events, "FileEdit")[0])
        written = call("c1", "write", file_path="/x/a.go", content="2\n")
        _, events = self.of(("assistant", [written]), ("tool", [result("c1", "write", diff="--- a\n+++ a\n-1\n+2")]))
        self.assertEqual(kinds(events), ["FileEdit", "ToolResult"])

    def test_a_file_that_was_read_has_its_own_lines(self):
        _, events = self.of(("assistant", [call("c1", "view", file_path="/x/a.go")]),
                            ("tool", [result("c1", "view", "<file>\n     7|package x\n     8|\n</file>\n")]))
        [block] = events[1]["content"]["blocks"]
        self.assertEqual((block["code"].strip(), block["start_line"]), ("package x", 7))

    def test_a_sub_agent_leads_to_its_session(self):
        session, events = self.of(("assistant", [call("c9", "agent", prompt="look")]))
        self.assertEqual(events[0]["attributes"]["child_session_id"], "s1-m1$$c9")
        child, _ = self.of(("user", [part("text", text="look")]), session="s1-m1$$c9", parent_session_id="s1", title="New Agent Session")
        self.assertEqual((child.title, child.attributes["parent_session_id"], child.attributes["session_role"]), (None, "s1", "auxiliary"))

    def test_the_other_parts_have_their_kinds(self):
        session, events = self.of(
            ("user", [part("text", text="go on", hidden=True), part("shell_command", command="ls", output="a", exit_code=0)]),
            ("assistant", [part("reasoning", thinking="hm", started_at=START, finished_at=START + 3), part("brand_new")]),
            ("assistant", [part("text", text="so far")], "summary"),
            ("assistant", [part("finish", reason="canceled", time=START), part("finish", reason="error", message="overloaded")]),
            ("user", [part("text", text="look"), part("binary", Path="a.png", MIMEType="image/png", Data="aaaa")]))
        self.assertEqual(kinds(events), ["SystemMessage", "ShellCommand", "ToolResult", "Thinking", "Custom", "Custom", "Custom",
                                         "SystemMessage", "UserMessage"])
        self.assertEqual([data["kind"] for data in data_of(events, "Custom")], ["part brand_new", "compaction", "interrupt"])
        self.assertEqual((session.unknown, session.prompt), ({"part brand_new": 1}, "look"))
        self.assertEqual(events[3]["duration_ms"], 3000)


class Robustness(CrushTest):
    MESSAGES = (("user", [part("text", text="kept")]), ("assistant", [part("text", text="kept too")]), SHELL,
                ("tool", [result("c1", "bash", "x", output="Exit code 1")]),
                ("assistant", [part("reasoning", thinking="t"), call("c2", "edit", file_path="p"), part("finish", reason="error")]))

    @settings(max_examples=60, deadline=None)
    @given(strategies.data())
    def test_no_damage_to_a_database_raises(self, draw):
        (self.home / "crush.db").unlink(missing_ok=True)
        content = self.database(*self.MESSAGES, name="crush.db").read_bytes()
        cut = content[:draw.draw(strategies.integers(0, len(content)))] if draw.draw(strategies.booleans()) else flipped(draw, content)
        try:
            timed(lambda _: self.sessions(self.write("damaged.db", cut)), None)
        except OSError:
            pass

    def test_no_swapped_type_raises(self):
        for role, parts in self.MESSAGES[1:]:
            for variant in swapped(parts):
                _, events = self.of(("user", [part("text", text="kept")]), (role, variant))
                self.assertEqual(texts(events)[:1], ["kept"])


if __name__ == "__main__":
    unittest.main()
