"""OpenCode and Kilo CLI: the database, and the tree of files before it."""

import json
import sqlite3
import unittest
from pathlib import Path

from hypothesis import given, settings, strategies

import daemon
from damage import data_of, flipped, kinds, swapped, texts, timed, usage_on
from transcripts import CORPUS, ParserTest

PNG = "data:image/png;base64,iVBORw0KGgo="
SCHEMA = """
    CREATE TABLE session (id text PRIMARY KEY, project_id text, parent_id text, directory text, title text, version text,
                          revert text, time_created integer, time_updated integer, time_archived integer);
    CREATE TABLE message (id text PRIMARY KEY, session_id text, time_created integer, time_updated integer, data text);
    CREATE TABLE part (id text PRIMARY KEY, message_id text, session_id text, time_created integer,
                       time_updated integer, data text);
    CREATE TABLE credential (id text, secret text);
    INSERT INTO credential VALUES ('c', 'never-to-be-read');
"""
START = 1772359200000
TOKENS = {"input": 700, "output": 40, "reasoning": 10, "cache": {"read": 300, "write": 5}}


def text(words, **more):
    return {"type": "text", "text": words, **more}


def tool(name, given, output=None, error=None, **metadata):
    state = {"status": "error" if error else "completed" if output is not None else "running", "input": given,
             "metadata": metadata, "time": {"start": START + 5000, "end": START + 6500}}
    state.update({"error": error} if error else {"output": output} if output is not None else {})
    return {"type": "tool", "callID": f" {name}-1 ", "tool": name, "state": state}


USER = ({"role": "user", "time": {"created": START + 1000}, "model": {"providerID": "acme", "modelID": "m-1"}},
        [text("fix it")])
REPLY = ({"role": "assistant", "time": {"created": START + 2000}, "modelID": "m-1", "providerID": "acme", "tokens": TOKENS,
          "path": {"cwd": "/home/ada/demo"}},
         [{"type": "step-start"}, {"type": "reasoning", "text": "hm"}, text("done"),
          {"type": "step-finish", "tokens": TOKENS}])


class OpencodeTest(ParserTest):
    tool = "opencode"

    def database(self, *messages, name="opencode.db", session="ses_1", schema=SCHEMA, **facts):
        """A database with one session more; its path."""
        path = self.home / name
        new = not path.exists()
        with sqlite3.connect(path) as database:
            if new:
                database.executescript(schema)
            row = {"id": session, "directory": "/home/ada/demo", "title": "", "version": "1.2", "time_created": START,
                   "time_updated": START + 9000, **facts}
            database.execute(f"INSERT INTO session ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})",
                             list(row.values()))
            for number, (message, parts) in enumerate(messages, 1):
                message_id = f"msg_{session}_{number}"
                database.execute("INSERT INTO message VALUES (?, ?, ?, ?, ?)",
                                 [message_id, session, START + number * 1000, START, json.dumps(message)])
                for place, part in enumerate(parts, 1):
                    database.execute("INSERT INTO part VALUES (?, ?, ?, ?, ?, ?)",
                                     [f"prt_{session}_{number}_{place}", message_id, session, START + number * 1000, START,
                                      json.dumps(part)])
        database.close()
        return path

    def tree(self, *messages, session="ses_1", prefix="", **facts):
        """The same as files; the path of the session's."""
        storage = self.home / "storage"
        for number, (message, parts) in enumerate(messages, 1):
            message_id = f"msg_{number}"
            self.write(storage / "message" / session / f"{message_id}.json", {"id": message_id, **message})
            for place, part in enumerate(parts, 1):
                self.write(storage / "part" / f"{prefix}{message_id}" / f"prt_{place}.json", {"id": f"prt_{number}_{place}", **part})
        return self.write(storage / "session" / "project" / f"{session}.json",
                          {"id": session, "projectID": "p", "directory": "/home/ada/demo", "version": "1.0",
                           "time": {"created": START, "updated": START + 9000}, **facts})


class Places(OpencodeTest):
    def test_databases_of_all_channels_and_the_old_tree_are_found(self):
        home = self.home / ".local" / "share" / "opencode"
        home.mkdir(parents=True)
        self.database(USER, name=home / "opencode.db")
        self.database(USER, name=home / "opencode-beta.db", session="ses_2")
        (home / "snapshot").mkdir()
        roots = daemon.opencode_roots({}, self.home)
        found = {session.session_id for root in roots for session, _ in self.sessions(root)}
        self.assertEqual(found, {"ses_1", "ses_2"})
        self.assertNotIn(home, roots, "the folder also holds large snapshots")

    def test_the_data_folder_can_be_moved(self):
        roots = daemon.opencode_roots({"XDG_DATA_HOME": "/data"}, self.home)
        self.assertEqual(roots[0], Path("/data/opencode/opencode.db"))

    def test_a_session_that_was_migrated_comes_from_the_database(self):  # O26
        self.tree(USER)
        self.tree(USER, session="ses_old")
        self.database(USER)
        found = self.sessions(self.home)
        self.assertEqual(sorted(session.session_id for session, _ in found), ["ses_1", "ses_old"])

    def test_database_and_tree_tell_the_same(self):  # O26
        of_database = self.read(self.database(USER, REPLY))[1]
        of_tree = self.read(self.tree(USER, REPLY))[1]
        self.assertEqual(kinds(of_database), kinds(of_tree))
        self.assertEqual(texts(of_database), texts(of_tree))
        self.assertEqual(usage_on(of_database), usage_on(of_tree))

    def test_part_folders_may_repeat_the_prefix(self):  # O29
        self.assertEqual(texts(self.read(self.tree(USER, prefix="msg_"))[1]), ["fix it"])

    def test_kilo_is_read_like_opencode_under_its_own_name(self):
        path = self.database(USER, name="kilo.db")
        session, events = self.read(path, "kilo-cli")
        self.assertEqual((session.tool, texts(events)), ("kilo-cli", ["fix it"]))
        self.assertIs(daemon.recognise(path), daemon.TOOLS["kilo-cli"])

    def test_files_that_are_no_database_or_have_other_columns_are_none(self):  # O1, O2, O3
        for name, content in (("opencode.db", b""), ("opencode-a.db", b"\xff\x00 no database"),
                              ("opencode-b.db", daemon.SQLITE_HEAD + b"\0" * 500)):
            self.assertEqual(self.sessions(self.write(name, content)), [])
        path = self.home / "opencode-c.db"
        with sqlite3.connect(path) as database:
            database.executescript("CREATE TABLE session (id); CREATE TABLE message (id); INSERT INTO session VALUES (1)")
        database.close()
        self.assertEqual(self.sessions(path), [])

    def test_columns_that_came_later_may_be_missing(self):  # O3
        schema = SCHEMA.replace(", time_archived integer", "").replace("revert text,", "")
        self.assertEqual(texts(self.read(self.database(USER, schema=schema))[1]), ["fix it"])

    def test_a_database_in_use_is_read_with_its_log(self):  # O32
        path = self.database(USER)
        with sqlite3.connect(path) as writer:
            writer.execute("PRAGMA journal_mode = WAL")
            writer.execute("PRAGMA wal_autocheckpoint = 0")
            writer.execute("UPDATE part SET data = ?", [json.dumps(text("newer"))])
            writer.commit()
            self.assertEqual(texts(self.read(path)[1]), ["newer"])
        writer.close()

    def test_a_locked_database_is_an_error_to_try_again(self):
        path = self.database(USER)
        with sqlite3.connect(path, isolation_level=None) as writer:
            writer.execute("BEGIN EXCLUSIVE")
            with self.assertRaises(OSError):
                self.sessions_in_a_hurry(path)
        writer.close()

    def sessions_in_a_hurry(self, path):
        """Read without the five seconds that a reader usually waits."""
        quick = daemon.sqlite3.connect
        daemon.sqlite3.connect = lambda *given, **more: quick(*given, **{**more, "timeout": 0.1})
        try:
            self.sessions(path)
        finally:
            daemon.sqlite3.connect = quick

    def test_nothing_is_written_and_no_other_table_read(self):  # O31
        path = self.database(USER)
        before = path.read_bytes()
        session, events = self.read(path)
        self.assertEqual(path.read_bytes(), before)
        self.assertNotIn("never-to-be-read", repr(vars(session)) + repr(events))

    def test_a_session_without_messages_is_none(self):  # O7, O27
        self.assertEqual(self.sessions(self.database()), [])

    def test_a_damaged_session_file_costs_only_itself(self):  # O28
        self.tree(USER)
        self.write("storage/session/project/ses_bad.json", b"{broken")
        self.write("storage/message/ses_1/msg_9.json", b"{broken")
        self.write("storage/message/ses_1/readme.txt", b"x")
        session, events = self.read(self.home)
        self.assertEqual((texts(events), session.bad_lines), (["fix it"], 1))

    def test_an_unchanged_session_can_be_told_without_reading_it(self):
        path = self.database(USER, REPLY)
        self.database(USER, session="ses_2")
        stamps = {session.session_id: session.stamp for session, _ in self.sessions(path)}
        with sqlite3.connect(path) as database:
            database.execute("UPDATE part SET time_updated = time_updated + 1 WHERE session_id = 'ses_2'")
        database.close()
        changed = {session.session_id: session.stamp for session, _ in self.sessions(path)}
        self.assertEqual((stamps["ses_1"] == changed["ses_1"], stamps["ses_2"] == changed["ses_2"]), (True, False))


class Facts(OpencodeTest):
    def test_the_row_gives_place_version_and_times(self):
        session, _ = self.read(self.database(USER, REPLY))
        self.assertEqual((session.tool_version, session.model, session.provider), ("1.2", "m-1", "acme"))
        self.assertEqual(session.attributes["cwd"], "/home/ada/demo")
        self.assertEqual((session.created_at, session.updated_at), ("2026-03-01T10:00:00.000Z", "2026-03-01T10:00:09.000Z"))

    def test_a_title_of_the_tools_own_making_is_none(self):  # O28
        for title, shown in (("Repair", "Repair"), ("New session - 2026-03-01T10:00:00Z", None), ("", None)):
            with self.subTest(title):
                path = self.database(USER, title=title, name=f"opencode-{len(title)}.db")
                self.assertEqual(self.read(path)[0].title, shown)

    def test_a_sub_agent_is_a_session_that_knows_its_parent(self):  # O27, O29
        call = tool("task", {"description": "Count"}, "4", sessionId="ses_child")
        path = self.database(USER, ({"role": "assistant"}, [call]))
        self.database(USER, session="ses_child", parent_id="ses_1")
        (parent, events), (child, _) = self.sessions(path)
        self.assertEqual(events[1]["attributes"]["child_session_id"], "ses_child")
        self.assertEqual(parent.related, ["ses_child"])
        self.assertEqual((child.attributes["parent_session_id"], child.attributes["session_role"]), ("ses_1", "auxiliary"))
        for key in ("parentID", "parentId", "parent_id", "parentSessionID", "parent_session_id"):
            self.assertEqual(self.read(self.tree(USER, session=f"s{key}", **{key: "up"}))[0].attributes["parent_session_id"], "up")

    def test_archived_and_reverted_sessions_say_so(self):
        path = self.database(USER, REPLY, time_archived=START, revert=json.dumps({"messageID": "msg_ses_1_2"}))
        session, events = self.read(path)
        self.assertTrue(session.attributes["archived"])
        self.assertEqual(kinds(events)[:2], ["UserMessage", "Custom"])

    def test_messages_come_by_time_then_id(self):  # O28
        path = self.database(({"role": "user"}, [text("one")]), ({"role": "user"}, [text("two")]))
        with sqlite3.connect(path) as database:
            database.execute("UPDATE message SET time_created = ? WHERE id LIKE '%_1'", [START + 90000])
        database.close()
        self.assertEqual(texts(self.read(path)[1]), ["two", "one"])


class Messages(OpencodeTest):
    def test_a_prompt_is_one_with_its_pictures_and_without_what_the_tool_added(self):  # O30, O31
        prompt = ({"role": "user"}, [text("Called the Read tool", synthetic=True), text("  "), text("see this"),
                                     text("quiet", ignored=True), {"type": "file", "mime": "image/png", "url": PNG},
                                     {"type": "file", "mime": "text/plain", "url": "file:///home/ada/a%20b.txt"},
                                     {"type": "file", "mime": "text/plain", "url": "data:text/plain;base64,aGk=", "filename": "c"}])
        session, [event] = self.read(self.database(prompt))
        self.assertEqual(session.prompt, "see this")
        self.assertEqual([block.get("text") or block.get("mime") or block["path"] for block in event["content"]["blocks"]],
                         ["see this", "image/png", "/home/ada/a b.txt", "c"])

    def test_the_quotes_of_the_shell_are_not_in_the_title(self):
        self.assertEqual(self.read(self.database(({"role": "user"}, [text('"fix it"')])))[0].prompt, "fix it")

    def test_a_response_is_thought_text_and_calls(self):
        _, events = self.read(self.database(USER, REPLY))
        self.assertEqual(list(zip(kinds(events), texts(events))),
                         [("UserMessage", "fix it"), ("Thinking", "hm"), ("AgentMessage", "done")])
        self.assertEqual(events[1]["event_id"], "prt_ses_1_2_2")

    def test_how_a_response_failed_is_shown(self):
        for error, kind in (({"name": "MessageAbortedError", "data": {"message": "stopped"}}, "Custom"),
                            ({"name": "APIError", "data": {"message": "too busy"}}, "SystemMessage")):
            path = self.database(USER, ({"role": "assistant", "error": error}, []), name=f"opencode-{kind}.db")
            self.assertEqual(kinds(self.read(path)[1]), ["UserMessage", kind])

    def test_a_patch_of_many_files_is_one_event(self):  # O29
        _, events = self.read(self.database(USER, ({"role": "assistant"}, [{"type": "patch", "files": ["a", "b"]}])))
        self.assertEqual([block["path"] for block in events[1]["content"]["blocks"]], ["a", "b"])

    def test_unknown_parts_and_roles_are_kept_and_counted(self):  # O12
        session, events = self.read(self.database(({"role": "oracle"}, []), ({"role": "assistant"}, [{"type": "new", "a": 1}])))
        self.assertEqual((session.unknown, kinds(events)), ({"role oracle": 1, "new": 1}, ["Custom", "Custom"]))


class Tools(OpencodeTest):
    def call(self, *parts):
        return self.read(self.database(({"role": "assistant", "time": {"created": START}}, parts)))[1]

    def test_a_command_has_exit_code_and_duration(self):  # O29
        command, result = self.call(tool("bash", {"command": "ls", "description": "Look"}, "a.py\n", exit=2))
        self.assertEqual(daemon.event_kind(command), ("ShellCommand", {"command": "ls", "exit_code": 2}))
        self.assertEqual((command["event_id"], result["duration_ms"]), ("bash-1", 1500))
        self.assertEqual(daemon.event_kind(result)[1], {"name": "bash", "is_error": True, "call_id": "bash-1"})

    def test_an_edit_shows_the_tools_own_diff_or_the_wanted_one(self):
        edit = {"filePath": "/x/a.py", "oldString": "a", "newString": "b"}
        self.assertEqual(data_of(self.call(tool("edit", edit, "ok", diff="--- a\n+++ b\n-a\n+b")), "FileEdit")[0]["diff"],
                         "--- a\n+++ b\n-a\n+b")
        self.home = self.home / "other"
        self.home.mkdir()
        self.assertIn("-a\n+b", data_of(self.call(tool("edit", edit, "ok")), "FileEdit")[0]["diff"])

    def test_an_edit_that_failed_changes_no_lines(self):
        [edit] = data_of(self.call(tool("edit", {"filePath": "a", "oldString": "a", "newString": "b"}, error="no")), "FileEdit")
        self.assertNotIn("diff", edit)

    def test_a_file_that_was_read_is_code_that_starts_at_its_line(self):
        read, result = self.call(tool("read", {"filePath": "a.py"}, "<file>\n00007| x = 1\n00008| y = 2\n</file>"))
        self.assertEqual(result["content"]["blocks"], [{"type": "Code", "code": "x = 1\ny = 2", "start_line": 7}])

    def test_a_patch_is_one_event_for_each_file(self):
        patch = "*** Begin Patch\n*** Update File: a.py\n@@\n-old\n+new\n*** Add File: b.py\n+x\n*** End Patch"
        events = self.call(tool("apply_patch", {"patchText": patch}, "ok"))
        self.assertEqual(kinds(events), ["FileEdit", "FileCreate", "ToolResult"])

    def test_a_call_that_runs_has_no_result_yet(self):  # O31
        self.assertEqual(kinds(self.call(tool("bash", {"command": "ls"}))), ["ShellCommand"])

    def test_calls_with_one_id_in_two_responses_are_two(self):
        message = ({"role": "assistant"}, [tool("bash", {"command": "ls"}, "x")])
        events = self.read(self.database(message, message))[1]
        self.assertEqual(kinds(events), ["ShellCommand", "ToolResult"] * 2)
        self.assertEqual(len({result["call_id"] for result in data_of(events, "ToolResult")}), 2)

    def test_pictures_of_a_result_are_pictures(self):
        part = tool("read", {"filePath": "a.png"}, "Image read")
        part["state"]["attachments"] = [{"mime": "image/png", "url": PNG}]
        self.assertEqual(self.call(part)[1]["content"]["blocks"][1]["type"], "Image")


class Usage(OpencodeTest):
    def test_a_response_counts_once_with_its_cache_and_reasoning(self):
        session, events = self.read(self.database(USER, REPLY))
        self.assertEqual(usage_on(events), (1005, 50))
        self.assertEqual({key: events[1]["attributes"][key] for key in ("cache_read_tokens", "cache_write_tokens",
                                                                        "reasoning_tokens", "model")},
                         {"cache_read_tokens": 300, "cache_write_tokens": 5, "reasoning_tokens": 10, "model": "m-1"})
        usage = session.attributes["usage"]
        self.assertEqual((usage["raw_input"], usage["raw_output"], usage["responses"], usage["duplicates_removed"]),
                         (2010, 100, 1, 1))

    def test_steps_count_where_the_message_has_only_the_last(self):
        steps = [{"type": "step-finish", "tokens": TOKENS}, text("a"), {"type": "step-finish", "tokens": TOKENS}]
        self.assertEqual(usage_on(self.read(self.database(({**REPLY[0]}, steps)))[1]), (2010, 100))


class Robustness(OpencodeTest):
    MESSAGES = (USER, REPLY, ({"role": "assistant", "tokens": TOKENS, "error": {"name": "x", "data": {"message": "y"}}},
                              [tool("bash", {"command": "ls"}, "a", exit=1), tool("edit", {"filePath": "a", "edits": [{}]}, "b"),
                               {"type": "file", "url": PNG, "mime": "image/png"}, {"type": "retry", "error": {"message": "x"}},
                               {"type": "patch", "files": ["a"]}, {"type": "subtask", "prompt": "x"}]))

    @settings(max_examples=60, deadline=None)
    @given(strategies.data())
    def test_no_damage_to_a_database_raises(self, draw):
        path = self.home / "opencode.db"
        path.unlink(missing_ok=True)
        self.database(*self.MESSAGES)
        content = path.read_bytes()
        damage = draw.draw(strategies.sampled_from(("cut", "flip")))
        cut = content[:draw.draw(strategies.integers(0, len(content)))] if damage == "cut" else flipped(draw, content)
        try:
            timed(lambda _: self.sessions(self.write("damaged.db", cut)), None)
        except OSError:
            pass

    def test_no_swapped_type_raises_or_costs_what_stands_before_it(self):
        for message, parts in self.MESSAGES[1:]:
            for variants in swapped([message, *parts]):
                path = self.home / "opencode.db"
                path.unlink(missing_ok=True)
                messages = [variant for variant in variants if "type" not in variant or "role" in variant]
                self.database(USER, *((message, variants[1:]) for message in messages[:40] or [message]))
                events = timed(self.sessions, path)[0][1]
                self.assertEqual(texts(events)[0], "fix it")

    def test_two_runs_give_the_same(self):
        path = self.database(*self.MESSAGES)
        self.assertEqual(self.read(path)[1], self.read(path)[1])


@unittest.skipUnless((CORPUS / "opencode").is_dir(), f"no corpus at {CORPUS}")
class RealFiles(OpencodeTest):
    def test_every_session_of_the_real_database_has_the_totals_of_its_row(self):
        path = CORPUS / "opencode" / "generated-1.18.33" / "opencode.db"
        with daemon.open_database(path) as database:
            rows = {row["id"]: row for row in daemon.query(database, "SELECT * FROM session")}
        found = self.sessions(path)
        self.assertEqual({session.session_id for session, _ in found}, set(rows))
        for session, events in found:
            row = rows[session.session_id]
            self.assertEqual(usage_on(events), (
                row["tokens_input"] + row["tokens_cache_read"] + row["tokens_cache_write"],
                row["tokens_output"] + row["tokens_reasoning"]))
            self.assertEqual((session.bad_lines, session.unknown), (0, {}))
            self.assertEqual(session.attributes.get("parent_session_id"), row["parent_id"])

    def test_the_picture_of_the_real_database_is_in_its_prompt(self):  # O30
        images = [block for _, events in self.sessions(CORPUS / "opencode" / "generated-1.18.33") for event in events
                  for block in event["content"]["blocks"] if block["type"] == "Image"]
        self.assertEqual(len(images), 1)

    def test_the_old_tree_is_read(self):
        found = self.sessions(CORPUS / "opencode" / "agent-sessions")
        self.assertEqual([(session.title, session.prompt) for session, _ in found],
                         [("OpenCode Large", "Step 1"), ("OpenCode Small", "Hello")])


if __name__ == "__main__":
    unittest.main()
