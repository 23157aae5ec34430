"""Files that grow are read on from where the last pass stopped, and come out as if they were read whole."""

import json
import os
import random
import shutil
import sqlite3
import tempfile
import time
import unittest
from pathlib import Path

import pytest

import daemon
from laptop import LaptopCase, Transcript, eventually

TESTS = Path(__file__).parent
CORPUS = Path(os.environ.get("OPENSESSION_CORPUS") or TESTS.parent.parent / "shared" / "corpus")
ID = "11111111-2222-4333-8444-555555555555"
SECRETS = ["gh" + "p_" + random.Random(number).randbytes(27).hex()[:36] for number in range(4)]


def result_of(session, redactor, tally=None, snapshots=True):
    """(all that is kept of a session, its event lines behind the tally, its snapshot)."""
    draft = daemon.read_session(session, redactor, {}, None, lambda session: daemon.project_facts(session, "x", lambda cwd: {}),
                                tally, lambda session: snapshots)
    draft.spool.seek(0)
    with draft.spool:
        lines = draft.spool.read().splitlines()
    kept = (draft.header, draft.stats, draft.chain, draft.checkpoints, draft.redactions, draft.bad_lines, draft.unknown)
    return kept, lines, draft.snapshot


class Reader:
    """Reads one growing source again and again, as the daemon does."""

    def __init__(self, tool, source_of):
        self.tool = daemon.TOOLS[tool]
        self.source_of = source_of      # gives the source as it is now
        self.snapshot = None
        self.lines = []
        self.masks = {}
        self.resumed = 0

    def read(self):
        """[(what is kept, lines)] of the source, going on from the last pass where that is possible."""
        source = self.source_of()
        loaded = self.snapshot and daemon.load_snapshot(self.snapshot)
        session = loaded and self.tool.resume(source, loaded[0])
        redactor = daemon.Redactor(memory=self.masks)
        if session:
            self.resumed += 1
            redactor.progress = loaded[2]
            kept, lines, snapshot = result_of(session, redactor, loaded[1])
            self.lines = self.lines[:self.settled] + lines
        else:
            sessions = list(self.whole(redactor))
            if not sessions:
                self.snapshot = None
                return []
            [(kept, self.lines, snapshot)] = sessions
        self.snapshot = snapshot
        self.settled = daemon.load_snapshot(snapshot)[1].count if snapshot else 0
        return [(kept, self.lines)]

    def whole(self, redactor):
        for session in self.tool.parse(self.source_of()):
            yield result_of(session, redactor)

    def reference(self):
        """The same from scratch, with the masks that local.db remembers."""
        return [(kept, lines) for kept, lines, _ in self.whole(daemon.Redactor(memory=dict(self.masks)))]


class Case(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def check(self, reader):
        self.assertEqual(reader.read(), reader.reference())

    def grow(self, tool, path, content, cuts, source_of=None):
        """Let a file grow from cut to cut, and compare at each; the reader."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
        reader = Reader(tool, source_of or (lambda: daemon.Source(str(path), (str(path),))))
        for start, end in zip([0, *cuts], [*cuts, len(content)]):
            with open(path, "ab") as file:
                file.write(content[start:end])
            self.check(reader)
        return reader


def some_cuts(content, chance, count=6):
    """Places to cut: half of them behind a line's end, the others anywhere."""
    ends = [place + 1 for place, byte in enumerate(content) if byte == 10]
    places = chance.sample(ends, min(len(ends), count // 2)) + [chance.randrange(len(content) + 1) for _ in range(count // 2)]
    return sorted(set(places))


class Known(Case):
    """Files of every kind, cut at random places."""

    def grows_alike(self, tool, paths, least):
        """Whether files come out alike; at least so many passes must have gone on where the last one ended."""
        chance, resumed = random.Random(7), 0
        for path in paths:
            content = path.read_bytes()
            if not content or len(content) > 3 << 20:
                continue
            for turn in range(2):
                with self.subTest(path=str(path), turn=turn):
                    place = self.folder / str(turn) / path.parent.name / path.name
                    resumed += self.grow(tool, place, content, some_cuts(content, chance)).resumed
        self.assertGreater(resumed, least)

    def test_claude_fixtures_grow_as_if_read_whole(self):
        self.grows_alike("claude-code", sorted((TESTS / "fixtures").rglob("*.jsonl")), 5)

    def test_codex_fixtures_grow_as_if_read_whole(self):
        self.grows_alike("codex", sorted((TESTS / "fixtures").rglob("rollout-*.jsonl")), 3)

    @unittest.skipUnless(CORPUS.is_dir(), f"no corpus at {CORPUS}")
    @pytest.mark.long
    def test_claude_transcripts_of_the_corpus_grow_as_if_read_whole(self):
        self.grows_alike("claude-code", sorted((CORPUS / "claude-code").rglob("*.jsonl")), 100)

    @unittest.skipUnless(CORPUS.is_dir(), f"no corpus at {CORPUS}")
    def test_codex_rollouts_of_the_corpus_grow_as_if_read_whole(self):
        self.grows_alike("codex", sorted((CORPUS / "codex").rglob("*.jsonl")), 20)


class Records:
    """Claude Code records, one second apart."""

    def __init__(self, chance):
        self.chance = chance
        self.number = 0
        self.waiting = []

    def line(self, kind, **fields):
        self.number += 1
        base = {"type": kind, "uuid": f"u{self.number}", "parentUuid": f"u{self.chance.randrange(self.number)}",
                "sessionId": ID, "isSidechain": False, "cwd": f"/home/ada/{self.chance.choice('ab')}", "version": "2.1.9",
                "timestamp": f"2026-02-11T{self.number // 3600:02d}:{self.number // 60 % 60:02d}:{self.number % 60:02d}.000Z"}
        return json.dumps(base | fields).encode() + b"\n"

    def prompt(self):
        return self.line("user", message={"role": "user", "content": f"do {self.chance.choice(SECRETS)} {self.number}"})

    def reply(self, *blocks):
        blocks = blocks or [{"type": "text", "text": "well " * self.chance.randrange(1, 4) + str(self.number // 7)}]
        usage = {"input_tokens": self.chance.randrange(9), "output_tokens": self.chance.randrange(50)}
        return self.line("assistant", message={"role": "assistant", "id": f"m{self.chance.randrange(self.number // 3 + 1)}",
                                               "model": self.chance.choice(["one", "two"]), "content": blocks, "usage": usage})

    def call(self, name=None, **given):
        self.waiting.append(f"t{self.number}")
        names = {"Bash": {"command": "ls"}, "Edit": {"file_path": "a.py", "old_string": "a", "new_string": "b"},
                 "Read": {"file_path": "my.env"}, "Task": {"prompt": "look", "description": "looks"}}
        name = name or self.chance.choice(list(names))
        return self.reply({"type": "tool_use", "id": self.waiting[-1], "name": name, "input": given or names[name]})

    def answer(self):
        if not self.waiting:
            return self.prompt()
        call_id = self.waiting.pop(self.chance.randrange(len(self.waiting)))
        content = f"done /home/ada/x {self.chance.choice(SECRETS)}"
        return self.line("user", message={"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": call_id, "content": content, "is_error": self.chance.random() < 0.2}]})

    def other(self):
        return self.chance.choice([
            lambda: self.line("custom-title", customTitle=f"Title {self.number}"),
            lambda: self.line("summary", leafUuid=f"u{self.chance.randrange(self.number + 9)}", summary=f"Sum {self.number}"),
            lambda: self.line("progress", data={}), lambda: self.line("novelty", news=1), lambda: b"{broken\n", lambda: b"\n",
            lambda: self.line("system", subtype="compact_boundary"), lambda: self.line("pr-link", prUrl="https://x/1")])()

    def any(self):
        return self.chance.choices([self.prompt, self.reply, self.call, self.answer, self.other], [1, 4, 4, 3, 1])[0]()


class Invented(Case):
    def test_any_claude_session_grows_as_if_read_whole(self):
        for seed in range(12):
            with self.subTest(seed=seed):
                chance = random.Random(seed)
                records = Records(chance)
                content = b"".join(records.any() for _ in range(150))
                reader = self.grow("claude-code", self.folder / str(seed) / f"{ID}.jsonl", content, some_cuts(content, chance, 12))
                self.assertGreater(reader.resumed, 3)

    def test_a_session_that_grows_line_by_line_is_the_same_at_every_line(self):
        records = Records(random.Random(99))
        lines = [records.any() for _ in range(60)]
        cuts = [sum(map(len, lines[:number])) for number in range(1, len(lines))]
        reader = self.grow("claude-code", self.folder / f"{ID}.jsonl", b"".join(lines), cuts)
        self.assertGreater(reader.resumed, 50)

    def test_many_records_are_remembered_when_they_are_packed(self):
        records = Records(random.Random(5))
        content = b"".join(records.any() for _ in range(6000))
        reader = self.grow("claude-code", self.folder / f"{ID}.jsonl", content, [len(content) // 2, len(content) * 3 // 4])
        self.assertEqual(reader.resumed, 2)

    def test_codex_streams_that_a_better_one_replaces_are_read_whole(self):
        def line(second, kind, **payload):
            return json.dumps({"timestamp": f"2026-03-01T10:00:{second:02d}Z", "type": kind, "payload": payload}).encode() + b"\n"
        content = b"".join([
            line(0, "session_meta", id=ID, timestamp="2026-03-01T10:00:00Z", cwd="/home/ada/x"),
            line(1, "event_msg", type="task_started", turn_id="a"),
            line(2, "response_item", type="message", role="user", content=[{"type": "input_text", "text": "go"}]),
            line(3, "response_item", type="function_call", name="shell", arguments='{"command":["ls"]}', call_id="c1"),
            line(4, "response_item", type="function_call_output", call_id="c1", output="done"),
            line(5, "event_msg", type="token_count", info={"total_token_usage": {"input_tokens": 5, "output_tokens": 1}}),
            line(6, "event_msg", type="user_message", message="go"),
            line(7, "response_item", type="message", role="assistant", content=[{"type": "output_text", "text": "yes"}]),
            line(8, "event_msg", type="task_started", turn_id="b"),
            line(9, "event_msg", type="item_completed", item={"type": "UserMessage", "content": [{"type": "text", "text": "on"}]}),
            line(10, "event_msg", type="item_completed", item={"type": "AgentMessage", "content": [{"type": "text", "text": "ok"}]}),
            line(11, "event_msg", type="thread_name_updated", thread_name="Named late")])
        cuts = [place + 1 for place, byte in enumerate(content) if byte == 10] + [100, 500, 900]
        reader = self.grow("codex", self.folder / f"rollout-2026-03-01T10-00-00-{ID}.jsonl", content, sorted(set(cuts)))
        self.assertTrue(3 < reader.resumed < len(cuts))


class Agents(Case):
    """Sub-agents whose files appear and grow beside the session's."""

    def setUp(self):
        super().setUp()
        self.main = self.folder / "p" / f"{ID}.jsonl"
        self.agents = self.folder / "p" / ID / "subagents"
        self.agents.mkdir(parents=True)
        self.records = Records(random.Random(3))
        self.reader = Reader("claude-code", lambda: next(iter(daemon.claude_sources(self.folder))))

    def write(self, *lines, path=None):
        with open(path or self.main, "ab") as file:
            file.writelines(lines)

    def agent(self, name, call_id=None):
        if call_id:
            (self.agents / f"agent-{name}.meta.json").write_text(json.dumps({"agentType": "Explore", "toolUseId": call_id}))
        self.write(self.records.reply(), path=self.agents / f"agent-{name}.jsonl")

    def passes(self):
        """Whether the next pass goes on where the last one ended; it is right in any case."""
        before = self.reader.resumed
        self.check(self.reader)
        return self.reader.resumed > before

    def begin(self):
        """A session with a call of a sub-agent in it, that has been read; the call's id."""
        self.write(self.records.prompt(), self.records.reply(), self.records.call("Task", prompt="look", description="looks"))
        self.assertFalse(self.passes())
        return self.records.waiting[-1]

    def test_a_new_subagent_of_a_waiting_call_is_taken_up_and_may_grow(self):
        self.agent("a1", self.begin())
        self.assertTrue(self.passes())
        self.write(self.records.reply(), path=self.agents / "agent-a1.jsonl")
        self.assertTrue(self.passes())
        self.write(self.records.answer(), self.records.reply(), self.records.reply())
        self.assertTrue(self.passes())
        self.write(self.records.reply(), path=self.agents / "agent-a1.jsonl")
        self.assertFalse(self.passes())

    def test_a_call_and_its_subagent_may_come_together(self):
        self.begin()
        self.write(self.records.answer(), self.records.call("Task", prompt="again", description="again"))
        self.agent("a2", self.records.waiting[-1])
        self.assertTrue(self.passes())

    def test_a_subagent_of_a_call_that_was_shown_is_put_in_its_place(self):
        call_id = self.begin()
        self.write(self.records.answer(), self.records.reply(), self.records.reply())
        self.assertTrue(self.passes())
        self.agent("a1", call_id)
        self.assertFalse(self.passes())

    def test_a_subagent_whose_call_is_told_later_is_put_in_its_place(self):
        self.begin()
        self.agent("a1")
        self.assertFalse(self.passes())
        self.write(self.records.line("user", toolUseResult={"agentId": "a1"}, message={"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": self.records.waiting.pop(), "content": "ok"}]}))
        self.assertFalse(self.passes())
        self.write(self.records.reply())
        self.assertTrue(self.passes())

    def test_a_subagent_that_is_gone_is_gone(self):
        self.agent("a1", self.begin())
        self.assertTrue(self.passes())
        (self.agents / "agent-a1.jsonl").unlink()
        self.assertFalse(self.passes())


class Doubt(Case):
    """What makes a pass read a file whole."""

    def setUp(self):
        super().setUp()
        self.path = self.folder / f"{ID}.jsonl"
        self.records = Records(random.Random(1))
        self.path.write_bytes(b"".join(self.records.any() for _ in range(40)))
        self.reader = Reader("claude-code", lambda: daemon.Source(ID, (str(self.path),)))
        self.check(self.reader)

    def goes_on(self):
        self.check(self.reader)
        return self.reader.resumed

    def test_a_file_that_shrank_is_read_whole(self):
        self.path.write_bytes(self.path.read_bytes()[:-900])
        self.assertFalse(self.goes_on())

    def test_a_file_that_was_replaced_is_read_whole(self):
        content = self.path.read_bytes()
        other = self.folder / "other"
        other.write_bytes(content + self.records.any())
        os.replace(other, self.path)
        self.assertFalse(self.goes_on())

    def test_a_file_that_was_changed_before_its_end_is_read_whole(self):
        content = bytearray(self.path.read_bytes())
        content[-200:-190] = b"X" * 10
        self.path.write_bytes(content + self.records.any())
        self.assertFalse(self.goes_on())

    def test_a_snapshot_of_another_program_is_no_snapshot(self):
        self.assertIsNone(daemon.load_snapshot(b"junk"))
        self.assertIsNone(daemon.load_snapshot(self.reader.snapshot[:-5]))
        self.assertIsNone(daemon.load_snapshot(b"cos\nsystem\n(S'true'\ntR."))

    def test_an_untouched_file_goes_on(self):
        self.assertTrue(self.goes_on())


class AtWork(LaptopCase):
    """The daemon with long sessions, and a server."""

    def setUp(self):
        super().setUp()
        self.transcript = Transcript(self.laptop)
        self.title = f"A long story {self.transcript.id}"
        self.transcript.prompt(self.title)
        for number in range(60):
            self.transcript.reply(f"Part {number} " + "word " * 2000)

    def once(self, *args):
        done = self.laptop.command("once", *args)
        self.assertNotIn("Traceback", done.stderr)
        return done

    def snapshots(self):
        return self.laptop.rows("SELECT p.state_id, s.acked_chain = p.acked_chain FROM snapshots p, sessions s")

    def sent(self):
        session = self.server.session(self.title)
        return self.server.texts(session["id"])

    def test_a_long_session_gets_a_snapshot_and_goes_on_from_it(self):
        self.once()
        [first] = self.snapshots()
        self.transcript.reply("The end.")
        self.once()
        self.assertEqual(self.sent()[-1], "The end.")
        self.assertEqual(self.snapshots(), [first])             # a small growth is not worth a new one
        for number in range(20):
            self.transcript.reply(f"More {number} " + "word " * 2000)
        self.once()
        [(state, current)] = self.snapshots()
        self.assertTrue(state > first[0] and current)
        self.assertEqual([text.split("word")[0] for text in self.sent()][-2:], ["More 18 ", "More 19 "])
        self.assertEqual(self.server.uploads()[-3:], ["whole", "delta", "delta"])
        self.assertEqual(self.laptop.rows("SELECT count(*) FROM snapshot_states"), [(1,)])

    def test_what_was_not_sent_in_between_is_sent_later(self):
        self.once()
        self.laptop.set(server={"api_key": ""})
        self.transcript.reply("Said to nobody.")
        self.once()
        self.transcript.reply("Said again.")
        self.once()
        self.laptop.set(server={"api_key": self.server.key})
        self.once()
        self.assertEqual(self.server.uploads()[-1], "delta")
        self.assertEqual(self.sent()[-2:], ["Said to nobody.", "Said again."])

    def test_a_session_that_the_server_never_had_is_sent_whole(self):
        self.laptop.set(server={"api_key": ""})
        self.once()
        self.transcript.reply("Between.")
        self.once()
        self.assertEqual(len(self.snapshots()), 1)
        self.laptop.set(server={"api_key": self.server.key})
        self.transcript.reply("Connected.")
        self.once()
        texts = self.sent()
        self.assertEqual((len(texts), texts[-2:]), (63, ["Between.", "Connected."]))

    def test_a_session_that_changed_on_the_server_is_sent_all_the_same(self):
        self.once()
        session = self.server.session(self.title)
        with sqlite3.connect(next((self.server.folder / "data").glob("*.db"))) as db:
            db.execute("UPDATE sessions SET revision = revision + 1 WHERE id = ?", [session["id"]])
        self.transcript.reply("After all.")
        self.once()
        eventually(lambda: self.sent()[-1] == "After all.")
        self.assertEqual(len(self.sent()), 62)

    def test_short_and_old_sessions_get_no_snapshot(self):
        Transcript(self.laptop).prompt("Short").reply("Yes.")
        old = time.time() - 3 * 86400
        os.utime(self.transcript.path, (old, old))
        self.once()
        self.assertEqual(self.laptop.rows("SELECT count(*) FROM snapshots"), [(0,)])


if __name__ == "__main__":
    unittest.main()
