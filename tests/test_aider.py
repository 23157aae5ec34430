"""Aider: histories in Markdown, many sessions in one file."""

import os
import time
import tracemalloc
import unittest
from pathlib import Path

import daemon
from damage import data_of, kinds, survives_damage, texts
from transcripts import CORPUS, ParserTest

FILE = "projects/demo/.aider.chat.history.md"
BLOCK = "a.py\n```python\n<<<<<<< SEARCH\nx = 1\n=======\nx = 2\n>>>>>>> REPLACE\n```\n"


def start(second=0, *banner):
    notes = "".join(f"> {line}  \n" for line in ("Aider v0.86.2", "Main model: openai/gpt-4o with diff edit format", *banner))
    return f"\n# aider chat started at 2026-03-01 10:00:{second:02d}\n\n{notes}"


def prompt(*lines):
    return "\n" + "".join(f"#### {line}  \n" for line in lines)


def note(*lines):
    return "\n" + "".join(f"> {line}  \n" for line in lines)


TOKENS = "Tokens: 1.2k sent, 500 cache hit, 50 received. Cost: $0.0026 message, $0.0026 session."


class AiderTest(ParserTest):
    tool = "aider"

    def read_text(self, *parts, name=FILE):
        return self.sessions(self.write(name, "".join(parts).encode()))


class Sessions(AiderTest):
    def test_each_start_with_a_prompt_is_a_session(self):
        """O66 O68"""
        found = self.read_text(start(1), prompt("one"), "\nanswer\n", start(2), start(3), prompt("two"), "\nanother\n", start(4))
        self.assertEqual([texts(events) for _, events in found], [["one", "answer"], ["two", "another"]])
        self.assertEqual([session.prompt for session, _ in found], ["one", "two"])
        self.assertEqual(len({session.session_id for session, _ in found}), 2)

    def test_the_facts_come_from_the_banner_and_the_folder(self):
        """O66"""
        [(session, events)] = self.read_text(start(1, "Git repo: .git with 1 files"), prompt("x"), "\nok\n")
        self.assertEqual((session.model, session.provider, session.tool_version), ("gpt-4o", "openai", "0.86.2"))
        self.assertEqual(session.attributes["cwd"], str(self.home / "projects" / "demo"))
        self.assertEqual(kinds(events), ["UserMessage", "AgentMessage"])

    def test_the_start_is_the_time_of_this_machine(self):
        """O10"""
        before = os.environ.get("TZ")
        os.environ["TZ"] = "Asia/Seoul"
        time.tzset()
        try:
            [(session, _)] = self.read_text(start(1), prompt("x"))
        finally:
            os.environ.pop("TZ") if before is None else os.environ.update(TZ=before)
            time.tzset()
        self.assertEqual(session.created_at, "2026-03-01T01:00:01.000Z")

    def test_a_history_in_another_folder_has_the_same_sessions(self):
        [(here, _)] = self.read_text(start(1), prompt("x"))
        [(there, _)] = self.read_text(start(1), prompt("x"), name="code/clone/.aider.chat.history.md")
        self.assertEqual(here.session_id, there.session_id)

    def test_equal_starts_are_told_apart(self):
        found = self.read_text(start(1), prompt("x"), start(1), prompt("x"))
        self.assertEqual(len({session.session_id for session, _ in found}), 2)

    def test_projects_in_the_usual_folders_are_found(self):
        """O66"""
        for name in (FILE, "work/team/app/.aider.chat.history.md", ".aider.chat.history.md"):
            self.write(name, (start(1) + prompt(name)).encode())
        roots = daemon.aider_roots({"AIDER_CHAT_HISTORY_FILE": "/elsewhere.md"}, self.home)
        found = [source.path.relative_to(self.home) for root in roots if root.is_file() for source in daemon.aider_sources(root)]
        self.assertEqual(sorted(map(str, found)), [".aider.chat.history.md", FILE, "work/team/app/.aider.chat.history.md"])
        self.assertEqual(roots[0], Path("/elsewhere.md"))
        self.assertEqual(len(self.sessions(self.home)), 3)

    def test_empty_files_are_nothing(self):
        """O1 O2 O66"""
        for content in (b"", b" \n\n  \n", b"\xff\xfe\x00\x01\n", b"no history\n"):
            self.assertEqual(self.sessions(self.write(FILE, content)), [])


class Lines(AiderTest):
    def test_a_prompt_of_several_lines_is_one(self):
        """O68"""
        [(session, events)] = self.read_text(start(1), prompt("first", "", "third"), "\nok\n")
        self.assertEqual(texts(events, "UserMessage"), ["first\n\nthird"])

    def test_what_aider_says_is_not_what_the_person_said(self):
        """O67"""
        [(session, events)] = self.read_text(start(1), prompt("x"), "\nok\n", note("Commit abc123 feat: it"))
        self.assertEqual(kinds(events), ["UserMessage", "AgentMessage", "SystemMessage"])
        self.assertEqual(texts(events, "SystemMessage"), ["Commit abc123 feat: it"])
        self.assertEqual(session.prompt, "x")

    def test_a_banner_line_may_leak_into_the_next_one(self):
        leaked = "> aider --message first line\nsecond line of the prompt  \n> Aider v0.86.2  \n"
        [(_, events)] = self.read_text("\n# aider chat started at 2026-03-01 10:00:01\n\n", leaked, prompt("first line", "second"))
        self.assertEqual(texts(events), ["first line\nsecond"])

    def test_headings_and_quotations_of_a_reply_stay_in_it(self):
        """O68"""
        reply = "\nSee:\n\n#### A heading\n\n> a quotation\n\n```\n#### no prompt  \n> no note  \n```\nEnd.\n"
        [(_, events)] = self.read_text(start(1), prompt("x"), reply, note(TOKENS), prompt("y"))
        self.assertEqual(texts(events, "UserMessage"), ["x", "y"])
        self.assertEqual(texts(events, "AgentMessage"), [reply.strip()])

    def test_a_fence_that_never_closes_ends_with_the_reply(self):
        [(_, events)] = self.read_text(start(1), prompt("x"), "\n```\ncut off\n", note(TOKENS), prompt("y"), "\nok\n")
        self.assertEqual(texts(events, "UserMessage"), ["x", "y"])

    def test_a_note_of_several_lines_is_one(self):
        [(_, events)] = self.read_text(start(1), prompt("/run ls"), "\n> a.py\nb.py\nc.py  \n", "\nok\n")
        self.assertEqual(texts(events)[1:], ["a.py\nb.py\nc.py", "ok"])

    def test_a_command_makes_the_title_only_where_nothing_else_was_asked(self):
        [(session, _)] = self.read_text(start(1), prompt("/add a.py"), prompt("Fix it"), prompt("more"))
        self.assertEqual(session.prompt, "Fix it")
        [(session, _)] = self.read_text(start(1), prompt("/add a.py"), prompt("/drop"))
        self.assertEqual(session.prompt, "/add a.py")
        [(session, _)] = self.read_text(start(1), prompt("/clear"), prompt("/ask why so?"))
        self.assertEqual(session.prompt, "/ask why so?")

    def test_an_edit_has_the_diff_that_the_reply_asked_for(self):
        [(_, events)] = self.read_text(start(1), prompt("x"), f"\nSo:\n\n{BLOCK}\n", note(TOKENS, "Applied edit to a.py"))
        [edit] = data_of(events, "FileEdit")
        self.assertEqual(edit["path"], "a.py")
        self.assertEqual(edit["diff"].splitlines()[-2:], ["-x = 1", "+x = 2"])

    def test_a_new_file_is_one(self):
        new = "b.py\n```\n<<<<<<< SEARCH\n=======\nprint()\n>>>>>>> REPLACE\n```\n"
        [(_, events)] = self.read_text(start(1), prompt("x"), f"\n{new}", note(TOKENS, "Applied edit to b.py"))
        self.assertEqual(data_of(events, "FileCreate"), [{"path": "b.py"}])
        self.assertEqual(events[2]["content"]["blocks"], [{"type": "Code", "code": "print()\n", "language": "python"}])

    def test_tokens_stand_on_the_reply_and_are_said_to_be_rounded(self):
        [(session, events)] = self.read_text(start(1), prompt("x"), "\nok\n", note(TOKENS), prompt("y"), "\nyes\n", note(TOKENS))
        usage = session.attributes["usage"]
        self.assertEqual([usage[key] for key in ("input", "output", "cache_read", "responses", "rounded", "cost_usd")],
                         [2400, 100, 1000, 2, True, 0.0052])
        self.assertEqual([event.get("attributes", {}).get("input_tokens") for event in events], [None, 1200, None, 1200])


class Damage(AiderTest):
    def read_bytes(self, content):
        return self.sessions(self.write(FILE, content))

    def test_a_last_line_that_is_being_written_is_not_shown_yet(self):
        """O6"""
        [(_, events)] = self.read_text(start(1), prompt("x"), "\nok\nand mo")
        self.assertEqual(texts(events), ["x", "ok"])

    def test_no_damage_raises_or_costs_what_stands_before_it(self):
        content = "".join([start(1), prompt("kept"), note(TOKENS), prompt("kept, too"), note("seen"), start(2), prompt("more"), f"\n{BLOCK}",
                           note(TOKENS, "Applied edit to a.py"), start(3), prompt("/run x"), note("y")]).encode()
        survives_damage(self, content.splitlines(True), 14, self.read_bytes)

    def test_a_long_history_is_not_held_in_memory(self):
        """O14"""
        session = start(1) + (prompt("x") + "\nok\n" + note(TOKENS)) * 1000
        path = self.write(FILE, (session * 5).encode())
        tracemalloc.start()
        count = 0
        for found in daemon.TOOLS["aider"].parse(daemon.Source("x", (path,))):
            count += sum(1 for _ in found.events)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        self.assertEqual(count, 5 * 1000 * 2)
        self.assertLess(peak, 4 << 20)


@unittest.skipUnless((CORPUS / "aider").is_dir(), f"no corpus of real transcripts in {CORPUS}")
class RealFiles(AiderTest):
    def test_the_history_of_the_real_tool(self):
        session, events = self.read(CORPUS / "aider")
        self.assertEqual(texts(events, "UserMessage"), ["Create hello.txt please\nsecond line of the prompt"])
        self.assertEqual(data_of(events, "FileCreate"), [{"path": "hello.txt"}])
        self.assertEqual((session.attributes["usage"]["input"], session.attributes["usage"]["output"]), (1000, 50))


if __name__ == "__main__":
    unittest.main()
