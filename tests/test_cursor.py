"""Cursor: the editor's databases of every generation, agent transcripts, the CLI's chats."""

import hashlib
import json
import os
import random
import sqlite3
import tempfile
import unittest
from contextlib import closing
from pathlib import Path
from unittest import mock

import daemon
from damage import data_of, kinds, read_sessions, survives_damage, survives_swaps, texts, timed, usage_on

CORPUS = Path(os.environ.get("OPENSESSION_CORPUS") or Path(__file__).parents[2] / "shared" / "corpus") / "cursor"
ONE, TWO = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
NOON = 1772359200000            # 2026-03-01T10:00:00Z in milliseconds


def composer(name, /, *bubbles, **more):
    """Rows of a composer that lists its bubbles."""
    bubbles = [{"bubbleId": f"b{number}", **bubble} for number, bubble in enumerate(bubbles, 1)]
    headers = [{"bubbleId": bubble["bubbleId"], "type": bubble.get("type", 2)} for bubble in bubbles]
    rows = {f"composerData:{name}": {"_v": 10, "composerId": name, "createdAt": NOON, "lastUpdatedAt": NOON + 60000,
                                     "fullConversationHeadersOnly": headers, **more}}
    rows.update({f"bubbleId:{name}:{bubble['bubbleId']}": bubble for bubble in bubbles})
    return rows


def ask(text, **more):
    return {"type": 1, "text": text, "createdAt": "2026-03-01T10:00:01.000Z", **more}


def answer(text="", **more):
    return {"type": 2, "text": text, "createdAt": "2026-03-01T10:00:02.000Z", **more}


def ran(name, arguments, result=None, status="completed", **more):
    call = {"name": name, "toolCallId": f"{name}-1", "status": status, "rawArgs": json.dumps(arguments), **more}
    return answer(toolFormerData={**call, **({} if result is None else {"result": json.dumps(result)})})


class CursorTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.home = Path(folder.name).resolve()
        self.user = self.home / ".config" / "Cursor" / "User"
        self.agents = self.home / ".cursor"

    def connect(self, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path)
        connection.execute("PRAGMA synchronous = OFF")
        return closing(connection)

    def database(self, rows, table="cursorDiskKV", path=None):
        """A state.vscdb with these rows; values that are neither text, bytes nor None become JSON."""
        path = path or self.user / "globalStorage" / "state.vscdb"
        with self.connect(path) as connection:
            for name in ("ItemTable", "cursorDiskKV"):
                connection.execute(f"CREATE TABLE IF NOT EXISTS {name} (key TEXT UNIQUE ON CONFLICT REPLACE, value BLOB)")
            connection.executemany(f"INSERT INTO {table} VALUES (?, ?)", [
                (key, value if value is None or isinstance(value, (str, bytes)) else json.dumps(value))
                for key, value in rows.items()])
            connection.commit()
        return path

    def transcript(self, *lines, name=f"{ONE}/{ONE}.jsonl", slug="home-ada-demo"):
        path = self.agents / "projects" / slug / "agent-transcripts" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(lines[0] if name.endswith(".txt") else "".join(json.dumps(line) + "\n" for line in lines))
        return path

    def store(self, meta, messages=(), extra=(), name=ONE, folder="f00d"):
        """A chat's store.db: messages that hang on a root, and other blobs."""
        blobs = [(hashlib.sha256(data).hexdigest(), data) for data in (
            message if isinstance(message, bytes) else json.dumps(message).encode() for message in messages)]
        root = b"".join(b"\x0a\x20" + bytes.fromhex(blob) for blob, _ in blobs)
        path = self.agents / "chats" / folder / name / "store.db"
        with self.connect(path) as connection:
            connection.execute("CREATE TABLE blobs (id TEXT PRIMARY KEY, data BLOB)")
            connection.execute("CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT)")
            connection.executemany("INSERT OR IGNORE INTO blobs VALUES (?, ?)", [*blobs, ("aa" * 32, root), *extra])
            meta = {"latestRootBlobId": "aa" * 32, **meta} if isinstance(meta, dict) else meta
            value = json.dumps(meta).encode().hex() if isinstance(meta, dict) else meta
            connection.execute("INSERT INTO meta VALUES ('0', ?)", (value,))
            connection.commit()
        return path

    def sources(self, root=None):
        roots = [root] if root else daemon.cursor_roots({}, self.home)
        return [source for root in roots for source in daemon.TOOLS["cursor"].sources(root)]

    def sessions(self, root=None):
        """{session id: (session, events)} of all that Cursor left below a home folder."""
        found = [pair for source in self.sources(root) for pair in read_sessions("cursor", source)]
        self.assertEqual(len({session.session_id for session, _ in found}), len(found))
        return {session.session_id: (session, events) for session, events in found}

    def read(self, rows, **more):
        self.database(rows, **more)
        [found] = self.sessions().values()
        return found

    def lines(self, *lines, **more):
        self.transcript(*lines, **more)
        [found] = self.sessions().values()
        return found


class Places(CursorTest):
    def test_the_places_of_all_systems_are_looked_at(self):
        roots = [str(root) for root in daemon.cursor_roots({"APPDATA": "/w/Roaming"}, Path("/home/ada"))]
        for place in ("/home/ada/.config/Cursor/User/globalStorage", "/w/Roaming/Cursor/User/workspaceStorage",
                      "/home/ada/Library/Application Support/Cursor/User/globalStorage",
                      "/home/ada/.cursor/projects", "/home/ada/.cursor/chats", "/home/ada/.config/cursor/projects"):
            self.assertIn(place, roots)
        roots = daemon.cursor_roots({"CURSOR_CONFIG_DIR": "/c"}, Path("/home/ada"))
        self.assertEqual([str(root) for root in roots][-2:], ["/c/projects", "/c/chats"])

    def test_without_cursor_there_is_nothing_and_nothing_is_made(self):
        """C107, O1, O2"""
        self.assertEqual(self.sessions(), {})
        self.assertEqual(list(self.home.iterdir()), [])
        path = self.user / "globalStorage" / "state.vscdb"
        path.parent.mkdir(parents=True)
        for content in (b"", b"no database " * 99):
            path.write_bytes(content)
            self.assertEqual(self.sessions(), {})
        with self.assertRaises(OSError):
            read_sessions("cursor", daemon.Source("x", (self.home / "gone.vscdb",)))
        self.assertEqual([path.name for path in self.user.rglob("*")], ["globalStorage", "state.vscdb"])

    def test_a_database_with_other_tables_or_columns_holds_no_session(self):
        """O3, O7"""
        path = self.user / "globalStorage" / "state.vscdb"
        with self.connect(path) as connection:
            connection.executescript("CREATE TABLE cursorDiskKV (a, b); CREATE TABLE other (key, value)")
        self.assertEqual(self.sessions(), {})

    def test_what_a_running_cursor_has_not_checkpointed_is_read_and_noticed(self):
        """C117, C118"""
        path = self.database(composer("a", ask("one")))
        with self.connect(path) as writer:
            writer.execute("PRAGMA journal_mode = WAL")
            writer.execute("PRAGMA wal_autocheckpoint = 0")
            [source] = self.sources(path.parent)
            before, main = daemon.file_states(source), path.read_bytes()
            for key, value in composer("b", ask("two")).items():
                writer.execute("INSERT INTO cursorDiskKV VALUES (?, ?)", (key, json.dumps(value)))
            writer.commit()
            writer.execute("BEGIN IMMEDIATE")
            self.assertEqual(sorted(self.sessions()), ["a", "b"])
            self.assertEqual(path.read_bytes(), main)
            self.assertNotEqual(daemon.file_states(source), before)

    def test_a_locked_database_is_tried_again_later(self):
        """C117"""
        path = self.database(composer("a", ask("one")))
        connect = sqlite3.connect
        with self.connect(path) as writer, mock.patch.object(
                sqlite3, "connect", lambda *args, **more: connect(*args, **{**more, "timeout": 0.05})):
            writer.execute("BEGIN EXCLUSIVE")
            with self.assertRaises(OSError):
                self.sessions()

    def test_a_damaged_database_gives_what_can_be_read(self):
        """O2, O5: half a file, and bytes that are others."""
        rows = {}
        for number in range(30):
            rows.update(composer(f"c{number}", ask("x" * 500), answer("y" * 3000)))
        path = self.database(rows)
        good, chance = path.read_bytes(), random.Random(1)
        for turn in range(80):
            content = bytearray(good[:chance.randrange(len(good))] if turn % 3 == 0 else good)
            for _ in range(chance.choice((1, 5, 50)) * bool(turn % 3)):
                content[chance.randrange(len(content))] = chance.randrange(256)
            path.write_bytes(content)
            found = timed(lambda _: read_sessions("cursor", daemon.Source("x", (str(path),))), b"")
            self.assertLessEqual(len(found), 30)

    def test_names_with_special_characters_open(self):
        path = self.database(composer("a", ask("one")), path=self.home / "a b%20?#é" / "state.vscdb")
        self.assertEqual(list(self.sessions(path)), ["a"])


class Composers(CursorTest):
    def test_bubbles_come_in_the_order_of_the_headers(self):
        """C108"""
        rows = composer("a", ask("one"), answer("two"), ask("three"))
        rows["composerData:a"]["fullConversationHeadersOnly"].reverse()
        rows["composerData:a"]["fullConversationHeadersOnly"].append({"bubbleId": "gone", "type": 2})
        self.assertEqual(texts(self.read(rows)[1]), ["three", "two", "one"])

    def test_a_composer_without_bubbles_is_no_session(self):
        """C108, O7"""
        self.database({**composer("a"), **composer("b", answer("  "), name="only blank")})
        self.assertEqual(self.sessions(), {})

    def test_text_is_found_under_its_other_names(self):
        """C109"""
        rich = {"root": {"children": [{"type": "paragraph", "children": [{"text": "rich "}, {"text": "text"}]}]}}
        _, events = self.read(composer("a", ask("", rawText="raw"), answer("", content="content"), answer("", message="m"),
                                       {"type": 99, "text": "odd"}, answer(" "), ask("", richText=json.dumps(rich))))
        self.assertEqual(texts(events), ["raw", "content", "m", "odd", "rich text"])
        self.assertEqual(kinds(events)[3], "AgentMessage")

    def test_conversations_of_old_lie_inside_the_composer(self):
        """C110"""
        session, events = self.read({"composerData:a": {"composerId": "a", "name": "Old", "conversation": [
            {"type": 1, "bubbleId": "x", "text": "hi"}, {"type": 2, "text": "ok"}]}})
        self.assertEqual((session.title, texts(events), events[0]["event_id"]), ("Old", ["hi", "ok"], "x"))

    def test_chat_tabs_of_a_workspace_are_sessions(self):
        """C110, C115"""
        folder = self.user / "workspaceStorage" / "ab12"
        self.database({"workbench.panel.aichat.view.aichat.chatdata": {"tabs": [
            {"tabId": "t", "chatTitle": "Tab", "lastSendTime": NOON, "bubbles": [
                {"type": "user", "text": "hi"}, {"type": "ai", "rawText": "ok"}]}]}}, "ItemTable", folder / "state.vscdb")
        (folder / "workspace.json").write_text('{"folder": "file:///home/ada/my%20demo"}')
        session, events = self.sessions()["t"]
        self.assertEqual((session.title, session.attributes["cwd"], kinds(events)),
                         ("Tab", "/home/ada/my demo", ["UserMessage", "AgentMessage"]))
        self.assertEqual(session.created_at, "2026-03-01T10:00:00.000Z")

    def test_one_database_holds_many_sessions(self):
        """C110, C119"""
        rows = {}
        for number in range(300):
            rows.update(composer(f"c{number:03}", ask(f"prompt {number}")))
        self.database(rows)
        self.assertEqual(len(self.sources()), 1)
        self.assertEqual([session.prompt for session, _ in self.sessions().values()][:2], ["prompt 0", "prompt 1"])
        self.assertEqual(len(self.sessions()), 300)

    def test_a_session_says_cheaply_whether_it_changed(self):
        """C119: every write to a database would mean to read all of its sessions again."""
        path = self.database({**composer("a", ask("1"), answer("2")), **composer("b", ask("3"))})
        stamps = lambda: [session.stamp for session in daemon.parse_cursor(self.sources(path)[0])]
        before = stamps()
        self.assertEqual(stamps(), before)
        self.database({"bubbleId:a:b2": {**answer("2 and more"), "bubbleId": "b2"}})
        after = stamps()
        self.assertEqual((after[0] == before[0], after[1] == before[1]), (False, True))

    def test_only_named_keys_are_read(self):
        """C119: of the 8 GB that such a database may have most is of no use."""
        self.database({**composer("a", ask("one")), "agentKv:blob:x": b"\0" * (4 << 20), "cursorAuth/token": "x"})
        asked = []
        with mock.patch.object(daemon, "query", lambda connection, sql, values=(), session=None, real=daemon.query: (
                asked.append((sql, values)), real(connection, sql, values, session))[1]):
            self.sessions()
        self.assertTrue(asked)
        for sql, values in asked:
            self.assertTrue(values or ">=" in sql or "sqlite_master" in sql, sql)

    def test_damaged_values_cost_only_themselves(self):
        """C111, O5"""
        rows = composer("a", ask("one"), answer("two"), ask("three"), answer("four"), answer("five"))
        rows["bubbleId:a:b2"] = "{broken"
        rows["bubbleId:a:b3"] = None
        rows["bubbleId:a:b4"] = b'{"type": 2, "text": "fo\x01ur\xff"}'
        rows["bubbleId:a:b5"] = json.dumps(rows["bubbleId:a:b5"]).encode()
        rows.update({"composerData:b": "{broken", "composerData:c": None, "composerData:d": b"\xff\0"})
        session, events = self.read(rows)
        self.assertEqual((texts(events), session.bad_lines), (["one", "fo\x01ur\ufffd", "five"], 1))

    def test_times_come_from_wherever_they_are(self):
        """C112, O10"""
        for written, shown in ((NOON, "10:00:00"), (NOON + 0.5, "10:00:00"), ("2026-03-01T11:00:00+01:00", "10:00:00")):
            session, _ = self.read(composer("a", ask("x"), createdAt=written))
            self.assertEqual(session.created_at, f"2026-03-01T{shown}.000Z")
        bubbles = [{**ask("a"), "createdAt": None}, {**answer("b"), "createdAt": None, "timingInfo": {
            "clientStartTime": 1234.5, "clientRpcSendTime": NOON + 5000.25}}, {**answer("c"), "createdAt": None}]
        _, events = self.read(composer("a", *bubbles))
        self.assertEqual([event["timestamp"][11:19] for event in events], ["10:00:00", "10:00:05", "10:00:05"])
        session, events = self.read(composer("a", {"type": 1, "text": "x"}, createdAt=None, lastUpdatedAt=None))
        self.assertGreater(events[0]["timestamp"], "2020")

    def test_a_session_says_what_it_was(self):
        session, events = self.read(composer(
            "a", ask("hi"), answer("ok", modelInfo={"modelName": "claude-x"}, tokenCount={"inputTokens": 90, "outputTokens": 7}),
            name="A name", createdOnBranch="main", unifiedMode="agent", modelConfig={"modelName": "default"}))
        self.assertEqual((session.title, session.model, session.attributes["git_branch"], session.attributes["mode"]),
                         ("A name", "claude-x", "main", "agent"))
        self.assertEqual((usage_on(events), session.attributes["usage"]["responses"]), ((90, 7), 1))
        self.assertEqual(session.updated_at, "2026-03-01T10:01:00.000Z")

    def test_sessions_that_cursor_does_not_list_are_auxiliary(self):
        """C116"""
        self.database({**composer("a", ask("1"), subComposerIds=["d"]), **composer("b", ask("2"), isArchived=True),
                       **composer("c", ask("3"), isDraft=True), **composer("d", ask("4")),
                       **composer("e", ask("5"), isBestOfNSubcomposer=True)})
        self.database({"composer.composerHeaders": {"allComposers": [{"composerId": "f", "isSubagent": True}]}}, "ItemTable")
        self.database(composer("f", ask("6")))
        found = {name: session.attributes for name, (session, _) in self.sessions().items()}
        self.assertEqual({name for name, facts in found.items() if facts.get("session_role") == "auxiliary"},
                         {"b", "d", "e", "f"})
        self.assertEqual((found["d"]["parent_session_id"], found["b"]["archived"], "c" in found), ("a", True, False))

    def test_the_project_is_found_in_many_places(self):
        """C115"""
        cases = (({"fsPath": "/home/ada/demo"}, "/home/ada/demo"), ({"external": "file:///home/ada/100%25%20%C3%A9"}, "/home/ada/100% é"),
                 ("file:///c%3A/Users/ada/demo", "c:/Users/ada/demo"), ("vscode-remote://wsl%2Bubuntu/home/ada/demo", "/home/ada/demo"))
        for uri, cwd in cases:
            session, _ = self.read(composer("a", ask("x"), workspaceIdentifier={"id": "w", "uri": uri}))
            self.assertEqual(session.attributes["cwd"], cwd)
        session, _ = self.read(composer("a", ask("x", workspaceUris=["file:///home/ada/other"])))
        self.assertEqual(session.attributes["cwd"], "/home/ada/other")
        self.assertNotIn("cwd", self.read(composer("a", ask("x")))[0].attributes)

    def test_a_workspace_names_its_sessions(self):
        """C115"""
        self.database({**composer("a", ask("1")), **composer("b", ask("2")), **composer("c", ask("3"))})
        pane = "workbench.panel.composerChatViewPane"
        for folder, key, value in (
                ("w1", "composer.composerData", {"allComposers": [{"composerId": "a"}]}),
                ("w2", "composer.composerData", {"selectedComposerIds": ["b"]}),
                ("w3", f"{pane}.123", {"workbench.panel.aichat.view.c": {}}),
                ("w4", f"{pane}.hidden", {"workbench.panel.aichat.view.hidden": {}})):
            path = self.user / "workspaceStorage" / folder / "state.vscdb"
            self.database({key: value}, "ItemTable", path)
            path.with_name("workspace.json").write_text(json.dumps({"folder": f"file:///home/ada/{folder}"}))
        self.assertEqual({name: session.attributes["cwd"] for name, (session, _) in self.sessions().items()},
                         {"a": "/home/ada/w1", "b": "/home/ada/w2", "c": "/home/ada/w3"})


class Bubbles(CursorTest):
    def test_tools_have_their_kinds_and_results(self):
        """C113"""
        _, events = self.read(composer(
            "a", ask("go"), ran("run_terminal_cmd", {"command": "ls"}, {"output": "a.py", "exitCode": 2}),
            ran("read_file", {"target_file": "a.py"}, {"contents": "x = 1", "startLineOneIndexed": 3}),
            ran("search_replace", {"file_path": "a.py", "old_string": "x", "new_string": "y"}, {}),
            ran("grep", {"pattern": "x"}, {"text": "a.py:1"}), ran("todo_write", {"todos": []}, {"ok": True})))
        self.assertEqual(kinds(events)[1::2], ["ShellCommand", "FileRead", "FileEdit", "CodeSearch", "ToolCall"])
        self.assertEqual(data_of(events, "ShellCommand"), [{"command": "ls", "exit_code": 2}])
        self.assertEqual(events[4]["content"]["blocks"], [{"type": "Code", "code": "x = 1", "language": "python", "start_line": 3}])
        self.assertIn("+y", data_of(events, "FileEdit")[0]["diff"])
        self.assertEqual([result["is_error"] for result in data_of(events, "ToolResult")], [True, False, False, False, False])

    def test_calls_without_a_result_and_failed_ones(self):
        """C113"""
        table = (("completed", None, ["ShellCommand", "ToolResult"], [False]), ("loading", None, ["ShellCommand"], []),
                 ("error", {"error": "boom"}, ["ShellCommand", "ToolResult"], [True]),
                 ("rejected", None, ["ShellCommand", "ToolResult"], [True]),
                 ("cancelled", None, ["ShellCommand", "ToolResult"], [True]))
        for status, result, shown, errors in table:
            _, events = self.read(composer("a", ran("run_terminal_cmd", {"command": "ls"}, result, status)))
            self.assertEqual((kinds(events), [data["is_error"] for data in data_of(events, "ToolResult")]), (shown, errors))

    def test_arguments_that_are_no_json_and_tools_by_number(self):
        """C113"""
        odd = {"tool": 15, "toolCallId": "x", "status": "completed", "rawArgs": "{broken", "params": '{"command": "ls"}'}
        _, events = self.read(composer("a", answer(toolFormerData=odd), answer(toolFormerData={
            "name": "mcp_x", "rawArgs": "{broken", "status": "loading"})))
        self.assertEqual(data_of(events, "ShellCommand"), [{"command": "ls"}])
        self.assertEqual((data_of(events, "ToolCall"), texts(events)), ([{"name": "mcp_x"}], ["{broken"]))

    def test_an_edit_shows_the_diff_that_cursor_made(self):
        chunk = {"diffString": "-x\n+y", "oldStart": 4, "oldLines": 1, "newStart": 4, "newLines": 1}
        _, events = self.read(composer("a", ran("edit_file", {"target_file": "a.py", "code_edit": "y"},
                                                {"diff": {"chunks": [chunk]}})))
        self.assertEqual(data_of(events, "FileEdit")[0]["diff"], "--- a/a.py\n+++ b/a.py\n@@ -4,1 +4,1 @@\n-x\n+y")

    def test_thinking_and_text_are_two_events(self):
        """C114"""
        _, events = self.read(composer("a", answer("ok", thinking={"text": "hm", "signature": "s"}),
                                       answer("", allThinkingBlocks=[{"thinking": "so"}]), answer("then", isThought=True)))
        self.assertEqual(kinds(events), ["Thinking", "AgentMessage", "Thinking", "Thinking"])
        self.assertEqual(texts(events), ["hm", "ok", "so", "then"])

    def test_images_and_code_are_shown(self):
        _, events = self.read(composer("a", ask("look", images=["data:image/png;base64,aGk="]),
                                       answer("", codeBlocks=[{"content": "x = 1", "languageId": "python"}])))
        self.assertEqual(events[0]["content"]["blocks"][1]["mime"], "image/png")
        self.assertEqual(events[1]["content"]["blocks"], [{"type": "Code", "code": "x = 1", "language": "python"}])

    def test_emoji_stay_and_titles_are_prompts(self):
        """O9, O13"""
        session, events = self.read(composer("a", ask("é 👩‍👩‍👧\n한국어")))
        self.assertEqual((session.title, session.prompt), (None, "é 👩‍👩‍👧\n한국어"))

    def test_no_swapped_type_raises(self):
        """O12"""
        rows = composer("a", ask("hi", images=["data:x"], workspaceUris=["file:///x"]),
                        answer("ok", thinking={"text": "hm"}, tokenCount={"inputTokens": 3}, timingInfo={"clientEndTime": 3},
                               codeBlocks=[{"content": "x"}], errorDetails={"message": "boom"}),
                        ran("edit_file", {"target_file": "a"}, {"diff": {"chunks": [{"diffString": "+x"}]}}),
                        workspaceIdentifier={"uri": {"fsPath": "/x"}}, modelConfig={"modelName": "m"}, subComposerIds=["z"])
        path = self.database(rows)
        [source] = self.sources(path)
        for key, value in rows.items():
            for odd in (None, [], {}, "x", 7, [{"text": 3}]):
                for other in member_variants(value, odd):
                    self.database({key: other})
                    read_sessions("cursor", source)
            self.database({key: value})


def member_variants(value, odd):
    """The value with each of its members swapped, and each member's members."""
    for key in value:
        yield {**value, key: odd}
        if isinstance(value[key], dict):
            yield from ({**value, key: {**value[key], inner: odd}} for inner in value[key])


def says(role, *content):
    content = [{"type": "text", "text": part} if isinstance(part, str) else part for part in content]
    return {"role": role, "message": {"content": content}}


def uses(name, **given):
    return {"type": "tool_use", "name": name, "input": given}


class Transcripts(CursorTest):
    def test_a_prompt_is_what_stands_in_the_query(self):
        """C120"""
        text = ("<timestamp>Sunday, Aug 2, 2026, 3:51 AM (UTC-7)</timestamp>\n<system_reminder>rules</system_reminder>\n"
                "<user_query>\nfix <b> it\n</user_query>\n<attached_files>x</attached_files>")
        session, events = self.lines(says("user", text), says("assistant", "done\n\n[REDACTED]"), says("user", "plain"))
        self.assertEqual((texts(events), session.prompt), (["fix <b> it", "done", "plain"], "fix <b> it"))
        self.assertEqual({event["timestamp"] for event in events}, {"2026-08-02T10:51:00.000Z"})
        self.assertEqual(session.created_at, "2026-08-02T10:51:00.000Z")

    def test_timestamps_in_other_zones(self):
        """C120"""
        for text, shown in (("Monday, Dec 7, 2026, 12:05 AM (UTC+5:30)", "2026-12-06T18:35"), ("Monday, Dec 7, 2026, 12:05 PM (UTC)", "2026-12-07T12:05"),
                            ("2026-12-07T12:05:00Z", "2026-12-07T12:05"), ("some day", None)):
            at = daemon.cursor_written_at(f"<timestamp>{text}</timestamp>")
            self.assertEqual(at and at[:16], shown)

    def test_lines_that_are_no_messages(self):
        """C120, O12"""
        session, events = self.lines(
            {"role": "user", "message": {"content": "as text"}}, {"role": "user", "message": {}}, says("system", "rules"),
            {"type": "turn_ended", "status": "success"}, {"type": "turn_ended", "status": "error", "error": "boom"},
            says("stranger", "x"), says("assistant", {"type": "text", "text": "[REDACTED]"}, {"type": "redacted_thinking"}))
        self.assertEqual(kinds(events), ["UserMessage", "SystemMessage", "Custom"])
        self.assertTrue(daemon.is_error(events[1]))
        self.assertEqual(session.unknown, {"stranger": 1})

    def test_calls_have_their_kinds_and_results_their_calls(self):
        result = {"type": "tool_result", "content": [{"type": "text", "text": "a.py"}]}
        _, events = self.lines(says("user", "go"), says("assistant", uses("Shell", command="ls", working_directory="/p"),
                               uses("Write", path="a.py", contents="x\n"), uses("ApplyPatch", patch="*** Begin Patch\n"
                               "*** Update File: b.py\n@@\n-x\n+y\n*** End Patch")), says("user", result))
        self.assertEqual(kinds(events), ["UserMessage", "ShellCommand", "FileCreate", "FileEdit", "ToolResult"])
        self.assertEqual((events[4]["event_type"]["data"]["call_id"], events[1]["attributes"]["cwd"]), ("line-2-0", "/p"))

    def test_plain_text_transcripts_are_read(self):
        """C121"""
        text = ("user:\n<user_query>\nlist it\n</user_query>\n\nassistant:\n[Thinking] first look\nthen act\n"
                "[Tool call] Shell\n  command: ls -la\n  description: Look\n[Tool result] Shell\n  a.py\n  b.py\n"
                "There are two files.\nBye.\n\nuser:\nthanks\n")
        session, events = self.lines(text, name=f"{ONE}.txt")
        self.assertEqual(kinds(events), ["UserMessage", "Thinking", "ShellCommand", "ToolResult", "AgentMessage", "UserMessage"])
        self.assertEqual((texts(events, "UserMessage"), texts(events, "AgentMessage"), data_of(events, "ShellCommand")),
                         (["list it", "thanks"], ["There are two files.\nBye."], [{"command": "ls -la"}]))
        self.assertEqual(events[3]["content"]["blocks"][0]["code"], "a.py\n  b.py")

    def test_a_long_first_line_is_recognised(self):
        """C122"""
        for size in (5000, 200_000):
            head = json.dumps(says("user", "x" * size)).encode()[:65536]
            self.assertTrue(daemon.cursor_recognise(head, "/x/any.jsonl"))

    def test_of_two_files_of_one_session_the_better_counts(self):
        """C123"""
        self.transcript("user:\nold\n", name=f"{ONE}.txt")
        self.transcript(says("user", "flat"), name=f"{ONE}.jsonl")
        self.transcript(says("user", "nested"))
        self.transcript(says("user", "named"), name=f"{TWO}/transcript.jsonl")
        self.assertEqual({name: session.prompt for name, (session, _) in self.sessions().items()},
                         {ONE: "nested", TWO: "named"})

    def test_a_sub_agent_names_its_parent(self):
        """C124"""
        self.transcript(says("user", "hi"))
        self.transcript(says("user", "count"), name=f"{ONE}/subagents/{TWO}.jsonl")
        session, _ = self.sessions()[TWO]
        self.assertEqual((session.attributes["parent_session_id"], session.attributes["session_role"]), (ONE, "auxiliary"))

    def test_a_slug_becomes_the_one_folder_that_exists(self):
        """C125"""
        for folder in ("my-app", "a/b", "a-b", ".dots/x"):
            (self.home / "code" / folder).mkdir(parents=True)
        find = lambda slug: daemon.cursor_slug_folder(slug, str(self.home))
        self.assertEqual(find("code-my-app"), str(self.home / "code" / "my-app"))
        self.assertEqual(find("code--dots-x"), str(self.home / "code" / ".dots" / "x"))
        self.assertIsNone(find("code-a-b"), "there are two")
        self.assertIsNone(find("code-gone"))
        session, _ = self.lines(says("user", "hi"), slug="nowhere-code-my-app")
        self.assertEqual((session.attributes.get("cwd"), session.attributes["project"]), (None, "my-app"))

    def test_what_cursor_noted_of_the_folder_counts_first(self):
        """C125"""
        path = self.transcript(says("user", "hi"), slug="1772359200000")
        (path.parents[2] / ".workspace-trusted").write_text('{"workspacePath": "/home/ada/my-app"}')
        self.assertEqual(self.sessions()[ONE][0].attributes["cwd"], "/home/ada/my-app")

    def test_a_file_that_was_emptied_gives_no_session(self):
        """C127: so that what the server has stays."""
        self.transcript(name=f"{ONE}.jsonl")
        self.assertEqual(self.sessions(), {})

    LINES = [says("user", "kept"), says("assistant", "kept too"), says("user", "<user_query>go</user_query>"),
             says("assistant", {"type": "thinking", "thinking": "hm"}, uses("Shell", command="ls"), "ok"),
             says("user", {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "x"}]},
                  {"type": "image", "source": {"media_type": "image/png", "data": "aGk="}}),
             {"type": "turn_ended", "status": "error", "error": "boom"}, says("assistant", "end")]

    def read_bytes(self, content):
        path = self.transcript(name=f"{ONE}.jsonl")
        path.write_bytes(content)
        return read_sessions("cursor", daemon.Source("x", (path,)))

    def test_a_bad_line_costs_only_itself(self):
        """O5, O6, O8"""
        lines = [json.dumps(line).encode() + b"\n" for line in self.LINES]
        [(session, events)] = self.read_bytes(b"".join([*lines[:2], b"{broken\n", *lines[2:]]))
        self.assertEqual((texts(events)[:3], session.bad_lines), (["kept", "kept too", "go"], 1))
        [(session, events)] = self.read_bytes(b"".join(lines[:2]) + lines[2][:-9])
        self.assertEqual((texts(events), session.bad_lines), (["kept", "kept too"], 0))

    def test_no_damage_raises_or_costs_what_stands_before_it(self):
        survives_damage(self, [json.dumps(line).encode() + b"\n" for line in self.LINES], 2, self.read_bytes)

    def test_no_swapped_type_raises(self):
        survives_swaps(self.LINES, self.read_bytes)


class Chats(CursorTest):
    META = {"agentId": ONE, "name": "A chat", "createdAt": NOON, "lastUsedModel": "claude-x"}
    CALL = {"role": "assistant", "id": "1", "content": [{"type": "reasoning", "text": "hm"}, {
        "type": "tool-call", "toolCallId": "t1", "toolName": "Shell", "args": {"command": "ls"}}]}
    RESULT = {"role": "tool", "content": [{"type": "tool-result", "toolCallId": "t1", "toolName": "Shell", "result": "a.py"}]}

    def test_a_store_adds_title_model_and_results_to_the_transcript(self):
        """C126"""
        self.store(self.META, [{"role": "user", "content": "go"}, self.CALL, self.RESULT])
        self.transcript(says("user", "go"), says("assistant", uses("Shell", command="ls")), says("assistant", "done"))
        session, events = self.sessions()[ONE]
        self.assertEqual((session.title, session.model, session.created_at), ("A chat", "claude-x", "2026-03-01T10:00:00.000Z"))
        self.assertEqual(kinds(events), ["UserMessage", "ShellCommand", "ToolResult", "AgentMessage"])
        self.assertEqual(events[2]["content"]["blocks"], [{"type": "Code", "code": "a.py"}])

    def test_results_of_other_calls_are_not_taken(self):
        self.store(self.META, [self.CALL, self.RESULT])
        self.transcript(says("user", "go"), says("assistant", uses("Read", path="a.py"), uses("Shell", command="ls")))
        self.assertEqual(kinds(self.sessions()[ONE][1]), ["UserMessage", "FileRead", "ShellCommand"])

    def test_a_store_alone_is_a_session(self):
        """C126: linked blobs in order; the JSON may stand between other bytes; what hangs on nothing is not shown."""
        wrapped = b"\x12\x05abc" + json.dumps({"role": "assistant", "content": "wrapped"}).encode() + b"\x18\x01"
        orphan = json.dumps({"role": "user", "content": "orphan"}).encode()
        self.store(self.META, [{"role": "system", "content": "rules"}, {"role": "user", "content": "go"}, self.CALL, self.RESULT,
                               wrapped, {"role": "user", "content": "go"}], [("bb" * 32, orphan)])
        session, events = self.sessions()[ONE]
        self.assertEqual(kinds(events), ["UserMessage", "Thinking", "ShellCommand", "ToolResult", "AgentMessage"])
        self.assertEqual((session.title, texts(events)), ("A chat", ["go", "hm", "wrapped"]))

    def test_links_of_links_and_missing_blobs(self):
        """C126"""
        said = json.dumps({"role": "user", "content": "deep\n " + "x" * 32}).encode()
        blob = hashlib.sha256(said).hexdigest()
        middle = b"\x12\x20" + bytes.fromhex(blob) + b"\x0a\x20" + bytes.fromhex("aa" * 32)
        self.store({**self.META, "latestRootBlobId": "cc" * 32}, [], [
            (blob, said), ("dd" * 32, middle),
            ("cc" * 32, b"\x0a\x20" + bytes.fromhex("ee" * 32) + b"\x0a\x20" + bytes.fromhex("dd" * 32))])
        self.assertEqual(len(self.sessions()[ONE][1]), 1)

    def test_other_schemas_and_plain_meta(self):
        """C126, O3"""
        self.assertEqual(self.sessions(), {})
        self.store(json.dumps({**self.META, "latestRootBlobId": "aa" * 32}), [{"role": "user", "content": "go"}])
        self.assertEqual(self.sessions()[ONE][0].title, "A chat")
        self.store("neither hex nor JSON", [{"role": "user", "content": "go"}], name=TWO)
        with self.connect(self.agents / "chats" / "f00d" / "x" / "store.db") as connection:
            connection.execute("CREATE TABLE blobs (a, b)")
        self.assertEqual(list(self.sessions()), [ONE])


@unittest.skipUnless(CORPUS.is_dir(), f"no corpus at {CORPUS}")
class RealFiles(CursorTest):
    def test_every_transcript_of_the_corpus_is_a_session(self):
        found = self.sessions(CORPUS)
        self.assertEqual(len(found), len(list(CORPUS.rglob("*.jsonl"))))
        self.assertTrue(all(session.bad_lines == 0 and "<user_query>" not in session.prompt for session, _ in found.values()))
        self.assertEqual(found["test-session"][0].prompt, "run ls command")
        self.assertEqual([events for _, events in found.values()], [events for _, events in self.sessions(CORPUS).values()])

    def test_no_file_of_another_tool_is_taken(self):
        for entry in daemon.walk(str(CORPUS.parent)):
            if "/cursor/" not in entry.path:
                self.assertFalse(daemon.cursor_recognise(daemon.read_head(entry.path), entry.path), entry.path)


if __name__ == "__main__":
    unittest.main()
