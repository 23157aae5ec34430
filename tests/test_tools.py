"""What holds of all tools: one claimant for each file, every file of the collection accounted for, readable titles."""

import logging
import os
import tempfile
import unittest
from fnmatch import fnmatch
from pathlib import Path

import daemon
from homes import all_homes, furnished, sources_of
from laptop import Laptop
from transcripts import CORPUS

# Files in the folders of tools that are no sessions.
NO_SESSIONS = {
    "*/.aider.input.history": "the prompts alone",
    "*/.aider.llm.history": "the same session as it was sent",
    "antigravity/agent-sessions/small.md": "another program's notes",
    "claude-code/sidecar/empty.jsonl": "empty",
    "*/.cline/data/db/sessions.db": "an index",
    "codex/agent-sessions/session_*.jsonl": "made up: no rollout has such records",
    "codex/*/sqlite/*.sqlite": "titles and indexes",
    "*/.copilot/config.json": "settings",
    "*/.copilot/session-state/*.lock": "locks",
    "*/.copilot/session-state/*/checkpoints/index.md": "an index",
    "*/.copilot/session-state/*/rewind-file-snapshots/*.json": "an index",
    "*/.copilot/session-store.db": "a copy that may lag",
    "*/copilot.expected.json": "what another program's test expects",
    "cursor/agent-sessions/unit/test-store.db": "made up: no store has such tables",
    "cursor/opensession/composer_data.json": "a row of a database",
    "gemini/agent-sessions/schema_drift.json": "made up: without an id",
    "*/.gemini/projects.json": "the list of projects",
    "*/.project_root": "the name of a folder",
    "grok/vibecodingtracker/*.json": "a session's summary without its history",
    "kimi/agent-sessions/*.state.json": "a session's state without its folder",
    "opencode/*/migration": "a version",
    "opencode/*/message/*": "read with its session",
    "opencode/*/part/*": "read with its session",
}
# How texts begin that programs say in the name of a person.
INJECTED = ("<", "# AGENTS.md", "Caveat:", "[Request interrupted", "This session is being continued",
            "Base directory for this skill", "[SYSTEM", "System:")


class Registry(unittest.TestCase):
    def test_every_tool_says_where_it_looks_and_what_it_understands(self):
        for tool in daemon.TOOLS.values():
            with self.subTest(tool.name):
                self.assertTrue(tool.title and tool.where and tool.seen)

    def test_only_its_own_tool_recognises_a_session(self):
        for name, generation in all_homes():
            with self.subTest(name, generation=generation), furnished(name, generation) as home:
                sources = sources_of(daemon.TOOLS[name], home)
                self.assertTrue(sources)
                for source in sources:
                    self.assertEqual(claimants(source.path), [name])

    def test_no_tool_reads_anything_from_another_ones_session(self):
        with tempfile.TemporaryDirectory() as folder:
            for name, generation in all_homes():
                with furnished(name, generation) as home:
                    os.rename(home, Path(folder) / f"{name}-{generation}")
            for tool in daemon.TOOLS.values():
                found = {source.path for source in daemon.tool_sources(tool, Path(folder), custom=True)}
                own = {Path(path).relative_to(folder).parts[0].rsplit("-", 1)[0] for path in found}
                self.assertEqual(own, {tool.name})


class Commands(unittest.TestCase):
    def setUp(self):
        self.laptop = Laptop()
        self.addCleanup(self.laptop.remove)
        self.laptop.config.parent.mkdir(parents=True)
        with furnished("cursor", "transcript") as home:
            for folder in home.iterdir():
                os.rename(folder, self.laptop.home / folder.name)

    def row(self, title):
        """The cells of a tool's line in `tools`, cut where its head says."""
        head, *lines = self.laptop.command("tools").stdout.splitlines()
        starts = [head.index(name) for name in ("TOOL", "NAME", "STATE", "SESSIONS", "LAST CHANGE", "FORMATS", "PLACES")]
        line = next(line for line in lines if line.startswith(title))
        return [line[start:end].strip() for start, end in zip(starts, [*starts[1:], None])]

    def test_tools_says_what_there_is_on_this_machine(self):
        self.assertEqual(self.row("Cursor")[1:4], ["cursor", "off by watchers.cursor", "0"])
        self.assertEqual(self.row("Cursor")[6], str(self.laptop.home / ".cursor/projects"))
        self.assertEqual(self.row("VS Code Copilot Chat")[2:4], ["on", "0"])
        self.assertEqual(self.row("VS Code Copilot Chat")[6], "not on this machine")
        self.assertEqual(self.row("ChatGPT")[6], "by import")

    def test_tools_counts_what_was_collected(self):
        self.laptop.set(watchers={"cursor": True}, privacy={"exclude_tools": ["goose"]}, tools={"pi": False})
        self.laptop.command("once")
        self.assertEqual(self.row("Cursor")[2:5], ["on", "1", "2026-03-01 10:00"])
        self.assertEqual((self.row("Goose")[2], self.row("Pi")[2]), ("off by privacy.exclude_tools", "off by tools.pi"))

    def test_columns_line_up_for_long_names(self):
        self.laptop.config.with_name("config.toml").write_text(
            f'[[custom_parsers]]\nname = "{"long-" * 10}"\ncommand = "cat"\nglob = "~/nowhere/*.json"\n')
        self.assertEqual(self.row("long-")[1:4], ["long-" * 10, "on", "0"])
        self.assertEqual(self.row("Codex")[1:4], ["codex", "on", "0"])
        # Besides the tools that are known: the head, the one that was added, and the second place of Cursor.
        self.assertEqual(len(self.laptop.command("tools").stdout.splitlines()), len(daemon.TOOLS) + 3)

    def test_looking_at_the_tools_makes_no_database(self):
        self.laptop.command("tools")
        self.assertFalse(self.laptop.database.exists())

    def test_a_start_says_once_which_sessions_are_not_collected(self):
        said = "Cursor has sessions on this machine that are not collected, as watchers.cursor is false."
        log = self.started()
        self.assertEqual(log.count(said), 1)
        self.assertEqual(log.count("not collected"), 1)
        self.laptop.set(watchers={"cursor": True})
        self.assertNotIn("not collected", self.started())

    def started(self):
        """What the log says up to the first look."""
        paths = daemon.find_paths({}, self.laptop.home)
        settings = daemon.load_settings(paths, {})
        daemon.make_private_folder(paths.data)
        one = daemon.Daemon(paths, settings, daemon.open_cache(paths.database), {}, {})
        self.addCleanup(one.cache.close)
        with self.assertLogs("opensession", logging.INFO) as log:
            daemon.log.info("The start.")
            daemon.say_what_is_off(one)
        return "\n".join(log.output)

    def test_once_and_status_count_what_is_no_session(self):
        folder = self.laptop.home / "work"
        folder.mkdir()
        (folder / "notes.txt").write_text("not a session")
        (folder / "rollout-2026-03-01T10-00-00-empty.jsonl").write_text(
            '{"timestamp": "2026-03-01T10:00:00.000Z", "type": "session_meta", "payload": {"id": "e", "cwd": "/x"}}\n')
        said = self.laptop.command("once", str(folder)).stdout
        self.assertIn("1 sources hold no session of their own, 1 other files", said)
        self.assertIn("1 sources without a session of their own", self.laptop.command("status").stdout)


@unittest.skipUnless(CORPUS.is_dir(), "there is no collection of real transcripts here (OPENSESSION_CORPUS)")
class Collection(unittest.TestCase):
    """Over the collection of real transcripts: each tool's folder in one pass of `once`."""

    @classmethod
    def setUpClass(cls):
        cls.laptop = Laptop()
        cls.addClassCleanup(cls.laptop.remove)
        paths = daemon.find_paths({}, cls.laptop.home)
        daemon.make_private_folder(paths.data)
        cls.cache = daemon.open_cache(paths.database)
        cls.addClassCleanup(cls.cache.close)
        cls.folders = [folder for folder in sorted(CORPUS.iterdir()) if folder.name in daemon.TOOLS]
        cls.passes = {}
        for folder in cls.folders:
            one = cls.passes[folder.name] = daemon.Daemon(paths, daemon.load_settings(paths, {}), cls.cache, {}, {})
            one.once([str(folder)])

    def test_everything_can_be_read(self):
        self.assertEqual({name: one.failed for name, one in self.passes.items() if one.failed}, {})
        self.assertEqual(self.cache.execute("SELECT path FROM sources WHERE problem IS NOT NULL").fetchall(), [])

    def test_every_file_is_a_session_or_part_of_one_or_known_to_be_none(self):
        for folder in self.folders:
            names = [os.path.relpath(path, CORPUS) for path in daemon.files_of_no_source(self.passes[folder.name])]
            self.assertEqual([name for name in names if not any(fnmatch(name, known) for known in NO_SESSIONS)], [])

    def test_every_source_gives_sessions_unless_another_copy_of_it_does(self):
        held = {tuple(row) for row in self.cache.execute("SELECT tool, source_key FROM sessions")}
        ids = {row["id"] for row in self.cache.execute("SELECT id FROM sessions")}
        for one in self.passes.values():
            for name in one.watched.keys() - held:
                sessions = list(daemon.TOOLS[name[0]].parse(one.watched[name].source))
                self.assertTrue(sessions and {session.session_id for session in sessions} <= ids, name)

    def test_no_file_has_two_claimants_and_none_a_foreign_one(self):
        for folder in self.folders:
            for path in daemon.files_of(folder):
                self.assertLessEqual(set(claimants(path)), {folder.name}, path)

    def test_no_title_is_text_that_a_program_put_in(self):
        titles = [row["title"] for row in self.cache.execute("SELECT title FROM sessions")]
        self.assertEqual([title for title in titles if title and title.startswith(INJECTED)], [])

    def test_every_session_in_which_something_was_said_has_a_title(self):
        rows = self.cache.execute("SELECT tool, id FROM sessions WHERE title IS NULL AND user_message_count > 0").fetchall()
        self.assertEqual([tuple(row) for row in rows], [])


def claimants(path):
    """The names of the tools that say that a file is theirs."""
    head = daemon.read_head(path)
    return [tool.name for tool in daemon.TOOLS.values() if head and tool.recognise(head, os.fspath(path))]


if __name__ == "__main__":
    unittest.main()


class LargeDatabases(unittest.TestCase):
    def test_a_large_database_that_does_not_open_is_not_copied(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "state.vscdb"
            path.write_bytes(daemon.SQLITE_HEAD + bytes(200))
            os.truncate(path, daemon.COPIED_DATABASE + 1)           # sparse: it takes no room
            with self.assertRaisesRegex(OSError, "too large to copy"), daemon.open_database(path):
                pass
