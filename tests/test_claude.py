"""Claude Code transcripts become sessions.  Numbers like C27 name cases of the format notes."""

import itertools
import json
import os
import random
import tempfile
import unittest
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import daemon

FIXTURES = Path(__file__).parent / "fixtures" / "claude"
CORPUS = Path(os.environ.get("OPENSESSION_CORPUS", Path(__file__).parents[2] / "shared" / "corpus")) / "claude-code"
SID = "11111111-2222-4333-8444-555555555555"
OTHER = "99999999-2222-4333-8444-555555555555"
PNG = "iVBORw0KGgoAAAANSUhEUg=="
numbers = itertools.count(1)


def clock(second):
    return f"2026-02-11T06:{second // 60:02d}:{second % 60:02d}.000Z"


def chain(kind, **fields):
    """A record of the conversation with the keys that every one has; None leaves a key out."""
    number = next(numbers)
    record = {"type": kind, "uuid": f"u{number}", "parentUuid": f"u{number - 1}", "sessionId": SID, "isSidechain": False,
              "timestamp": clock(number % 3600), "cwd": "/home/ada/shop", "gitBranch": "main", "version": "2.1.40"}
    return {key: value for key, value in (record | fields).items() if value is not None or key == "parentUuid"}


def user(content, **fields):
    return chain("user", message={"role": "user", "content": content}, **fields)


def reply(*blocks, id=None, usage=None, model="claude-opus-4-6", **fields):
    """An assistant record; a block that is a text is a text block."""
    content = [text(block) if isinstance(block, str) else block for block in blocks]
    message = {"role": "assistant", "model": model, "content": content}
    message.update({key: value for key, value in (("id", id), ("usage", usage)) if value is not None})
    return chain("assistant", message=message, **fields)


def text(value):
    return {"type": "text", "text": value}


def call(name, id="t1", **given):
    return {"type": "tool_use", "id": id, "name": name, "input": given}


def result(content, id="t1", detail=None, **fields):
    return user([{"type": "tool_result", "tool_use_id": id, "content": content, **fields}], toolUseResult=detail)


def spent(input=0, output=0, written=0, read=0):
    return {"input_tokens": input, "output_tokens": output, "cache_creation_input_tokens": written,
            "cache_read_input_tokens": read}


def kind_of(event):
    kind, data = daemon.event_kind(event)
    return f"Custom {data['kind']}" if kind == "Custom" else kind


def shown(event):
    """All that is readable in an event's blocks."""
    return "\n".join(str(block.get("text") or block.get("code") or block.get("url") or block.get("data"))
                     for block in event["content"]["blocks"])


class Case(unittest.TestCase):
    def setUp(self):
        self.temp = tempfile.TemporaryDirectory()
        self.addCleanup(self.temp.cleanup)
        self.folder = Path(self.temp.name, "projects", "-home-ada-shop")
        self.folder.mkdir(parents=True)

    def write(self, *records, name=SID + ".jsonl"):
        """A transcript; records that are bytes go in as they are."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"".join(record if isinstance(record, bytes) else json.dumps(record).encode() + b"\n"
                                  for record in records))
        return path

    def sessions(self, root=None):
        """[(session, events)] of all sources below a folder."""
        found = []
        for source in daemon.claude_sources(root or self.folder):
            for session in daemon.parse_claude(source):
                events = list(session.events)
                for event in events:
                    daemon.hail_line(event)
                found.append((session, events))
        return found

    def session(self, *records, **where):
        """(session, events) of the one session that these records make."""
        if records:
            self.write(*records, **where)
        [found] = self.sessions()
        return found

    def events(self, *records):
        return self.session(*records)[1]

    def kinds(self, *records):
        return [kind_of(event) for event in self.events(*records)]

    def prompts(self, *records):
        return [shown(event) for event in self.events(*records) if kind_of(event) == "UserMessage"]

    def title(self, *records):
        session, _ = self.session(*records)
        return session.title or session.prompt

    def tokens(self, events):
        stats = daemon.empty_stats()
        for event in events:
            daemon.add_to_stats(stats, event)
        return stats["input"], stats["output"]


class Lines(Case):
    def test_an_empty_file_is_no_session(self):
        """C1"""
        self.write()
        self.assertEqual(self.sessions(), [])

    def test_blank_lines_are_no_session_and_no_harm(self):
        """C2"""
        self.write(b"\n\n  \n")
        self.assertEqual(self.sessions(), [])
        self.assertEqual(self.prompts(user("one"), b"\n \n", user("two")), ["one", "two"])

    def test_a_broken_line_is_counted_and_what_follows_is_kept(self):
        """C3"""
        session, events = self.session(user("one"), b'{"type": "user", "mess\n', user("two"))
        self.assertEqual((session.bad_lines, [shown(event) for event in events]), (1, ["one", "two"]))

    def test_a_truncated_last_line_is_not_shown_yet(self):
        """C4"""
        late = json.dumps(user("two")).encode()
        session, events = self.session(user("one"), late[:-20])
        self.assertEqual((len(events), session.bad_lines), (1, 0))
        self.assertEqual(self.prompts(user("one"), late + b"\n")[1], "two")

    def test_a_complete_last_line_needs_no_line_end(self):
        """C5"""
        self.assertEqual(self.prompts(user("one"), json.dumps(user("two")).encode()), ["one", "two"])

    def test_json_that_is_no_object_is_skipped(self):
        """C6"""
        self.assertEqual(self.prompts(user("one"), b'[]\n"x"\n1\nnull\n', user("two")), ["one", "two"])

    def test_invalid_utf8_becomes_a_replacement_character(self):
        """C7"""
        line = json.dumps(user("a?b")).encode().replace(b"a?b", b"a\xff\xfeb") + b"\n"
        self.assertEqual(self.prompts(line), ["a\ufffd\ufffdb"])

    def test_half_a_surrogate_pair_can_be_stored(self):
        """C8"""
        self.assertEqual(self.prompts(user("cut \ud83d"), user("next")), ["cut \ufffd", "next"])

    def test_nul_and_control_characters_do_no_harm(self):
        """C9"""
        raw = json.dumps(user("a_b")).encode().replace(b"a_b", b"a\x00\x01b")
        padded = json.dumps(user("padded")).encode() + b"\0" * 9000 + b"\n"
        self.assertEqual(self.prompts(raw + b"\n", padded, b"\0" * 500 + b"\n", user("end")), ["a\x01b", "padded", "end"])

    def test_a_very_long_line_is_read_and_so_is_the_next(self):
        """C10"""
        self.assertEqual([len(prompt) for prompt in self.prompts(user("x" * 10_000_000), user("next"))], [10_000_000, 4])

    def test_a_line_beyond_the_limit_is_counted_and_the_next_is_read(self):
        """C10"""
        limit, daemon.MAX_LINE = daemon.MAX_LINE, 1000
        self.addCleanup(setattr, daemon, "MAX_LINE", limit)
        session, events = self.session(user("one"), user("x" * 5000), user("two"))
        self.assertEqual((session.bad_lines, [shown(event) for event in events]), (1, ["one", "two"]))

    def test_windows_line_ends_and_a_byte_order_mark_change_nothing(self):
        """C11"""
        one, two = (json.dumps(user(name)).encode() for name in ("one", "two"))
        plain = self.events(one + b"\n", two + b"\n")
        self.assertEqual(self.events(b"\xef\xbb\xbf" + one + b"\r\n", two + b"\r\n"), plain)

    def test_unknown_records_and_blocks_are_kept_and_counted(self):
        """C12"""
        session, events = self.session(user("hi", newKey={"a": 1}), chain("hologram", beam=3),
                                       reply({"type": "poem", "text": "roses"}), chain("system", subtype="aura", content="hm"))
        self.assertEqual([kind_of(event) for event in events],
                         ["UserMessage", "Custom hologram", "AgentMessage", "SystemMessage"])
        self.assertEqual(session.unknown, {"hologram": 1, "block poem": 1, "system aura": 1})
        self.assertEqual(shown(events[2]), "roses")

    def test_every_form_of_time_becomes_utc_and_none_inherits(self):
        """C13"""
        forms = ["2026-02-11T06:00:00Z", "2026-02-11T15:00:01+09:00", 1770789602, 1770789603000, 1770789604.5, None, "soon"]
        times = [event["timestamp"] for event in self.events(*(user(str(at), timestamp=at) for at in forms))]
        self.assertEqual(times, [f"2026-02-11T06:00:0{second}Z" for second in
                                 ("0.000", "1.000", "2.000", "3.000", "4.500", "4.500", "4.500")])

    def test_a_session_without_any_time_is_not_from_1970(self):
        """C13"""
        [event] = self.events(user("hi", timestamp=None))
        self.assertGreater(event["timestamp"], "2020")

    def test_bounds_count_records_that_show_nothing(self):
        """C14"""
        session, _ = self.session(chain("mode", timestamp=clock(10)), user("hi", timestamp=clock(20)),
                                  chain("progress", data={"type": "bash_progress"}, timestamp=clock(90)))
        self.assertEqual((session.created_at, session.updated_at), (clock(10), clock(90)))

    def test_a_replaced_file_is_read_anew(self):
        """C15"""
        self.prompts(user("a much longer first version"), user("x"))
        self.assertEqual(self.prompts(user("short")), ["short"])

    def test_a_transcript_that_is_gone_is_an_error_of_its_own_kind(self):
        """C16"""
        path = self.write(user("hi"))
        [source] = daemon.claude_sources(self.folder)
        path.unlink()
        with self.assertRaises(OSError):
            list(daemon.parse_claude(source))

    def test_what_is_written_while_reading_waits_for_the_next_time(self):
        """C17"""
        path = self.write(user("one"), user("two"))
        [source] = daemon.claude_sources(self.folder)
        [session] = daemon.parse_claude(source)
        first = next(session.events)
        with path.open("ab") as file:
            file.write(json.dumps(user("late")).encode() + b"\n")
        self.assertEqual([shown(event) for event in (first, *session.events)], ["one", "two"])

    def test_pipes_folders_and_links_are_no_transcripts(self):
        """C18"""
        self.write(user("hi"))
        os.mkfifo(self.folder / "pipe.jsonl")
        (self.folder / "folder.jsonl").mkdir()
        os.symlink("/nowhere", self.folder / "dangling.jsonl")
        os.symlink(self.folder / f"{SID}.jsonl", self.folder / f"{OTHER}.jsonl")
        self.assertEqual(len(self.sessions()), 1)
        os.symlink(self.folder, self.folder.parent / "linked-project")
        self.assertEqual(len(self.sessions(self.folder.parent)), 1)

    def test_a_strange_path_is_found(self):
        """C19"""
        self.folder = self.folder / "spaß 50% #1?"
        self.assertEqual(self.prompts(user("hi")), ["hi"])

    def test_a_title_is_one_line_cut_between_characters(self):
        """C20"""
        title = daemon.short_title(self.title(user("first line\nsecond " + "👩‍👩‍👧‍👦" * 40)))
        self.assertTrue(title.startswith("first line second 👩‍👩‍👧‍👦") and title.endswith("…"))
        self.assertFalse(title[:-1].endswith("\u200d"))

    def test_reading_twice_gives_the_same_bytes(self):
        """C21"""
        self.write(user("hi"), reply("ho", call("Bash", command="ls"), id="m1", usage=spent(5, 1)), result("x"))
        (one, first), (two, second) = self.session(), self.session()
        self.assertEqual(first, second)
        self.assertEqual((one.attributes, one.created_at), (two.attributes, two.created_at))

    def test_what_was_there_stays_when_the_file_grows(self):
        """C21"""
        records = [user("hi"), reply("ho", id="m1", usage=spent(5, 1)), user("more"), reply("yes", id="m2")]
        self.assertEqual(self.events(*records)[:2], self.events(*records[:2]))

    def test_numbers_and_nests_without_end_do_no_harm(self):
        """C22"""
        deep = b'{"type":"user","message":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n"
        digits = b'{"type":"user","n":' + b"9" * 5000 + b"}\n"
        odd = json.dumps(user("odd", n=2**60, nan=float("nan"))).encode() + b"\n"
        nested = json.dumps(reply(call("Odd", given=json.loads("[" * 300 + "]" * 300)))).encode() + b"\n"
        session, events = self.session(user("one"), deep, digits, odd, nested, user("two"))
        self.assertEqual([kind_of(event) for event in events], ["UserMessage", "UserMessage", "ToolCall", "UserMessage"])
        self.assertEqual(session.bad_lines, 2)

    def test_another_tools_file_is_refused(self):
        """C23"""
        gemini = json.dumps({"sessionId": "x", "messages": [{"type": "user", "content": "hi"}]}, indent=2).encode()
        codex = {"timestamp": clock(1), "type": "session_meta", "payload": {"id": SID}}
        qwen = {"type": "user", "uuid": "a", "sessionId": "b", "message": {"role": "user", "parts": [{"text": "hi"}]}}
        cursor = {"role": "user", "message": {"content": [text("hi")]}}
        for number, records in enumerate(([gemini], [codex], [qwen], [cursor])):
            self.write(*records, name=f"{number}.jsonl")
        self.assertEqual(self.sessions(), [])

    def test_a_first_line_longer_than_what_is_looked_at_is_recognised(self):
        """C10"""
        self.write(json.dumps(user("x" * 100_000) | {"parentUuid": None}).encode())
        self.assertEqual(len(self.sessions()), 1)


class Prompts(Case):
    def test_texts_and_lists_of_blocks_read_the_same(self):
        """C24"""
        self.assertEqual(self.prompts(user("hi"), user([text("ho")])), ["hi", "ho"])
        old = chain("assistant", message={"role": "assistant", "content": "plain"})
        self.assertEqual([shown(event) for event in self.events(user("x"), old, reply("plain"))][1:], ["plain", "plain"])

    def test_meta_records_are_hidden_and_a_compact_summary_is_no_prompt(self):
        """C25"""
        summary = "This session is being continued from a previous conversation that ran out of context. …"
        session, events = self.session(user("skill text", isMeta=True), user(summary, isCompactSummary=True),
                                       user(summary), user("go on"))
        self.assertEqual([event.get("attributes") for event in events], [{"meta": "compact_summary"}] * 2 + [None])
        self.assertEqual(session.prompt, "go on")

    def test_an_interruption_is_an_event_but_only_in_the_users_name(self):
        """C26"""
        words = "[Request interrupted by user for tool use]"
        self.assertEqual(self.kinds(user("hi"), user([text(words)]), user("[Request interrupted by user]"), reply(words)),
                         ["UserMessage", "Custom interrupt", "Custom interrupt", "AgentMessage"])

    def test_reminders_round_a_prompt_are_taken_away(self):
        """C27"""
        note = "<system-reminder>be good</system-reminder>"
        unclosed = "<system-reminder> is a tag I like"
        self.assertEqual(self.prompts(user(note), user(note + "\n" + note + " fix it"), user("go\n\n" + note), user(unclosed)),
                         ["fix it", "go", unclosed])

    def test_what_the_editor_adds_is_hidden_and_results_beside_it_stay(self):
        """C28"""
        opened = "<ide_opened_file>The user opened a.py</ide_opened_file>"
        record = user([{"type": "tool_result", "tool_use_id": "t1", "content": "out"}, text(opened)])
        events = self.events(user(opened), user([text(opened), text("why?")]), user(f"<ide_selection>x</ide_selection>so?"),
                             reply(call("Bash", command="ls")), record)
        self.assertEqual([(kind_of(event), shown(event)) for event in events],
                         [("UserMessage", "why?"), ("UserMessage", "so?"), ("ShellCommand", "ls"), ("ToolResult", "out")])

    def test_a_slash_command_reads_as_it_was_typed(self):
        """C29"""
        whole = ("<command-name>/review</command-name>\n  <command-message>review</command-message>\n"
                 "  <command-args>42 now</command-args>")
        prose = "<command-name>x</command-name> is what the file has, why?"
        self.assertEqual(self.prompts(user(whole), user("<command-message>init is analyzing…</command-message>"),
                                      user(prose), user("see <command-name> in the log")),
                         ["/review 42 now", "/init", prose, "see <command-name> in the log"])

    def test_slash_commands_give_way_to_the_next_prompt_as_title(self):
        """C30"""
        clear = "<command-name>/clear</command-name><command-args></command-args>"
        self.assertEqual(self.title(user(clear), user("/effort high"), user("/release-notes"), user("fix the build")),
                         "fix the build")
        self.assertEqual(self.title(user("/usr/local/bin fails"), user("second")), "/usr/local/bin fails")
        self.assertEqual(self.title(user("/review 42 for races"), user("thanks")), "/review 42 for races")
        self.assertEqual(self.title(user(clear), user("/init")), "/clear")

    def test_names_that_people_gave_win_over_those_that_were_made(self):
        """C31"""
        named, made = chain("custom-title", customTitle="Mine"), chain("ai-title", aiTitle="Made")
        first = user("hi", uuid="leaf")
        old = {"type": "summary", "summary": "Old", "leafUuid": "leaf"}
        self.assertEqual(self.title(first, named, made, old), "Mine")
        self.assertEqual(self.title(first, old, made), "Made")
        self.assertEqual(self.title(old, first), "Old")
        self.assertEqual(self.title(first, user("/rename foo"), user("/rename foo bar")), "foo bar")
        self.assertEqual(self.title(first, user("/rename foo"), user("/rename")), "hi")

    def test_a_session_of_status_probes_says_so(self):
        """C32"""
        probe, _ = self.session(user("/usage"), user("<command-name>/usage</command-name>"))
        self.assertEqual((probe.attributes["probe"], probe.attributes["session_role"]), (True, "auxiliary"))
        real, _ = self.session(user("/usage"), user("and now work"))
        self.assertNotIn("probe", real.attributes)

    def test_a_prompt_typed_while_busy_stands_where_it_was_taken_up(self):
        """C33"""
        def queued(prompt, **more):
            return chain("attachment", attachment={"type": "queued_command", "commandMode": "prompt", "prompt": prompt, **more})
        notice = queued("<task-notification><task-id>a</task-id></task-notification>", commandMode="task-notification")
        events = self.events(user("one"), queued("two"), reply("ok"), queued(""), queued([text("three")]), notice,
                             queued("x", isMeta=True), chain("attachment", attachment={"type": "skill_listing", "content": "s"}))
        self.assertEqual([kind_of(event) for event in events],
                         ["UserMessage", "UserMessage", "AgentMessage", "UserMessage", "SystemMessage"])
        self.assertEqual(shown(events[3]), "three")

    def test_the_queue_itself_is_not_shown(self):
        """C34"""
        self.assertEqual(self.prompts(chain("queue-operation", operation="enqueue", content="go"), user("go"),
                                      chain("queue-operation", operation="dequeue")), ["go"])

    def test_a_summary_of_another_session_is_not_the_title(self):
        """C35"""
        self.assertEqual(self.title({"type": "summary", "summary": "Theirs", "leafUuid": "elsewhere"}, user("mine")), "mine")

    def test_a_shell_command_of_the_person_is_a_command_with_its_output(self):
        events = self.events(user("<bash-input>git status</bash-input>"),
                             user("<bash-stdout>clean</bash-stdout><bash-stderr></bash-stderr>"), user("well"))
        self.assertEqual([(kind_of(event), shown(event)) for event in events],
                         [("ShellCommand", "git status"), ("ToolResult", "clean"), ("UserMessage", "well")])
        self.assertEqual(daemon.event_kind(events[1])[1]["call_id"], events[0]["event_id"])

    def test_output_of_a_command_has_no_terminal_colours(self):
        events = self.events(user("<local-command-stdout>Set to \x1b[1mDefault\x1b[22m</local-command-stdout>"),
                             user("<local-command-stdout></local-command-stdout>"),
                             user("<local-command-caveat>Caveat: …</local-command-caveat>"))
        self.assertEqual([shown(event) for event in events], ["Set to Default"])

    def test_an_image_is_an_image_and_never_text(self):
        """C43"""
        image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
        prompt, _, answer = self.events(user([text("see"), image]), reply(call("Read", file_path="a.png")), result([image]))
        for event in (prompt, answer):
            self.assertEqual(event["content"]["blocks"][-1],
                             {"type": "Image", "url": f"data:image/png;base64,{PNG}", "mime": "image/png"})
        self.assertNotIn(PNG, daemon.event_texts(prompt))
        broken = user([text("see"), {"type": "image", "source": None}])
        self.assertEqual(self.prompts(broken), ["see\n[image]"])


class Replies(Case):
    def test_thoughts_are_shown_in_order_and_empty_ones_are_not(self):
        """C36"""
        events = self.events(user("q"), reply({"type": "thinking", "thinking": "one"}, {"type": "thinking", "thinking": ""},
                                              {"type": "thinking", "thinking": "two"}, {"type": "redacted_thinking"}))
        self.assertEqual([(kind_of(event), shown(event)) for event in events[1:]], [("Thinking", "one"), ("Thinking", "two")])

    def test_a_text_that_grows_replaces_what_it_was(self):
        """C46"""
        events = self.events(user("q"), reply("Let me", id="m1"), reply("Let me look.", id="m1"), reply("Done.", id="m1"))
        self.assertEqual([shown(event) for event in events[1:]], ["Let me look.", "Done."])

    def test_a_call_that_is_written_twice_is_one_call(self):
        """C46"""
        twice = reply(call("Bash", command="ls"), id="m1")
        self.assertEqual(self.kinds(user("q"), twice, twice | {"uuid": "again"}, result("x")),
                         ["UserMessage", "ShellCommand", "ToolResult"])

    def test_an_api_error_is_shown_and_costs_nothing(self):
        """C50"""
        error = reply("API Error: 500", model="<synthetic>", usage=spent(9, 9), isApiErrorMessage=True)
        session, events = self.session(user("q"), error, reply("No response requested.", model="<synthetic>"),
                                       chain("system", subtype="api_error", error={"message": "overloaded"},
                                             retryAttempt=2, maxRetries=10))
        self.assertEqual([(event["attributes"], shown(event)) for event in events[1:]],
                         [({"meta": "api_error"}, "API Error: 500"),
                          ({"meta": "api_error"}, "overloaded (attempt 2 of 10)")])
        self.assertEqual((session.model, self.tokens(events)), (None, (0, 0)))

    def test_a_turn_says_how_long_it_took(self):
        events = self.events(user("q"), reply("a", id="m1"), chain("system", subtype="turn_duration", durationMs=1234))
        self.assertEqual(events[-1]["duration_ms"], 1234)

    def test_a_pull_request_is_remembered(self):
        session, _ = self.session(user("q"), {"type": "pr-link", "prUrl": "https://example.org/pull/1", "prNumber": 1})
        self.assertEqual(session.attributes["pr"], "https://example.org/pull/1")


class Tools(Case):
    def answered(self, block, content, detail=None, **fields):
        """[call, result] for one call."""
        events = self.events(user("q"), reply(block), result(content, detail=detail, **fields))
        self.assertEqual(len(events), 3)
        return events[1:]

    def test_calls_and_results_find_each_other_whatever_the_content(self):
        """C37"""
        for content in ("out", [text("out")], [text("out"), {"type": "tool_reference", "tool_name": "x"}], "", None, 7, [None]):
            asked, answer = self.answered(call("Mystery", a=1), content)
            self.assertEqual(daemon.event_kind(answer), ("ToolResult", {"name": "Mystery", "is_error": False, "call_id": "t1"}))
            self.assertEqual(asked["event_id"], "t1")
            self.assertEqual(shown(answer).startswith("out"), bool(content) and content not in (7, [None]))

    def test_a_failure_is_marked_whatever_the_detail_is(self):
        """C38"""
        for detail in ("Error: no", ["x"], {"a": 1}, None, 5):
            _, answer = self.answered(call("Mystery"), "<tool_use_error>no</tool_use_error>", detail, is_error=True)
            self.assertTrue(daemon.event_kind(answer)[1]["is_error"])
            self.assertEqual(shown(answer), "no")

    def test_a_result_without_an_id_belongs_to_the_last_call(self):
        """C39"""
        events = self.events(user("q"), reply(call("Bash", id="a", command="ls")), reply(call("Read", id="b", file_path="x.py")),
                             user([{"type": "tool_result", "content": "ok"}]))
        self.assertEqual(daemon.event_kind(events[-1])[1], {"name": "Read", "is_error": False, "call_id": "b"})

    def test_results_and_calls_that_lack_the_other_are_kept(self):
        """C40"""
        events = self.events(user("q"), result("stray", id="nobody"), reply(call("Bash", command="sleep 9")),
                             user("[Request interrupted by user for tool use]"), user("next"))
        self.assertEqual([kind_of(event) for event in events],
                         ["UserMessage", "ToolResult", "ShellCommand", "Custom interrupt", "UserMessage"])
        self.assertEqual(daemon.event_kind(events[1])[1]["name"], "unknown")

    def test_an_edit_shows_the_tools_own_diff_and_no_whole_file(self):
        """C41"""
        detail = {"filePath": "a.py", "originalFile": "SECRET WHOLE FILE", "structuredPatch": [
            {"oldStart": 3, "oldLines": 2, "newStart": 3, "newLines": 2, "lines": [" a", "-b", "+c"]}]}
        edit, _ = self.answered(call("Edit", file_path="a.py", old_string="b", new_string="c"), "updated", detail)
        self.assertEqual(daemon.event_kind(edit)[1]["diff"], "--- a/a.py\n+++ b/a.py\n@@ -3,2 +3,2 @@\n a\n-b\n+c")
        self.assertNotIn("SECRET", json.dumps(edit))

    def test_what_is_cut_from_a_line_before_it_is_decoded_changes_nothing(self):
        nasty = ['"', '\\', '\\"', '","', '\\","', '"}]},"', '{"a":"b"},{"c', "é\0", "plain"]
        for end in nasty:
            long = f'one "two"\n{{"toolUseResult":{{"stdout":"x","stderr":""}}}}\n' * 90 + end
            numbered = "\n".join(f"{number:6}→{line}" for number, line in enumerate(long.split("\n"), 1))

            def answer(content, id, detail, **fields):      # its keys in the order that Claude Code has
                return user([{"tool_use_id": id, "type": "tool_result", "content": content, **fields}], toolUseResult=detail)
            read = {"type": "text", "file": {"filePath": "a.py", "content": long, "startLine": 1}}
            edit = {"filePath": "a.py", "oldString": "a", "originalFile": long, "structuredPatch": [
                {"oldStart": 1, "oldLines": 1, "newStart": 1, "newLines": 1, "lines": ["-a", "+b"]}]}
            records = [reply(call("Read", "r", file_path="a.py")), answer(numbered, "r", read),
                       reply(call("Read", "s", file_path="b.py")), answer(numbered, "s", read, is_error=True),
                       reply(call("Grep", "g", pattern="x")), answer(numbered, "g", read),
                       reply(call("Read", "x", file_path="c.py")), answer(long, "x", read | {"file": {"filePath": "a.py", "content": ""}}),
                       reply(call("Edit", "e", file_path="a.py")), answer("done", "e", edit),
                       reply(call("Bash", "b", command="ls")), answer(long, "b", {"stdout": long, "stderr": "", "interrupted": False})]
            with self.subTest(end=end):
                lines = [json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode() + b"\n" for record in records]
                _, whole = self.session(*records)       # with blanks between, where nothing is cut
                self.assertEqual(self.session(*lines)[1], whole)
        sizes = [(len(line), len(daemon.claude_cut(self.a_file_with_reads(), line))) for line in lines]
        self.assertEqual([cut < size / 1.9 for size, cut in sizes[1::2]], [True, False, False, False, True, True])

    def a_file_with_reads(self):
        """A transcript that is being read, with calls of Read known by the ids r and s."""
        session = daemon.Session("claude-code", "anthropic", SID)
        file = daemon.ClaudeFile(daemon.ClaudeRun(session, "x.jsonl"), session, "x.jsonl")
        for call_id in "rs":
            file.names[call_id] = (file.names.number_of("Read"),)
        return file

    def test_an_edit_without_a_recorded_diff_shows_what_it_asked_for(self):
        """C41"""
        edit, _ = self.answered(call("MultiEdit", file_path="a.py", edits=[{"old_string": "b", "new_string": "c"},
                                                                           {"old_string": "d", "new_string": "e"}]), "ok")
        self.assertEqual([line for line in daemon.event_kind(edit)[1]["diff"].splitlines() if line[:3] not in ("---", "+++")],
                         ["@@ -1 +1 @@", "-b", "+c", "@@ -1 +1 @@", "-d", "+e"])

    def test_an_edit_that_failed_changed_no_lines(self):
        """C41"""
        edit, _ = self.answered(call("Edit", file_path="a.py", old_string="b", new_string="c"), "not found", is_error=True)
        self.assertNotIn("diff", daemon.event_kind(edit)[1])
        self.assertIn("-b", shown(edit))

    def test_writing_creates_a_file_or_edits_the_one_that_was_there(self):
        """C41"""
        given = {"file_path": "a.py", "content": "one\ntwo\n"}
        made, _ = self.answered(call("Write", **given), "ok", {"type": "create", "structuredPatch": []})
        self.assertEqual((kind_of(made), shown(made), made["attributes"]["diff_lines_added"]), ("FileCreate", "one\ntwo\n", 2))
        self.assertEqual(made["content"]["blocks"][0]["language"], "python")
        patch = [{"oldStart": 1, "oldLines": 1, "newStart": 1, "newLines": 2, "lines": [" one", "+two"]}]
        changed, _ = self.answered(call("Write", **given), "ok", {"type": "update", "structuredPatch": patch})
        self.assertEqual(kind_of(changed), "FileEdit")
        self.assertIn("+two", daemon.event_kind(changed)[1]["diff"])

    def test_a_saved_output_is_read_only_from_the_sessions_own_folder(self):
        """C42"""
        own = self.folder / SID / "tool-results" / "1.txt"
        own.parent.mkdir(parents=True)
        own.write_text("the whole output")
        outside = self.folder / "outside.txt"
        outside.write_text("private")
        os.symlink(outside, own.parent / "link.txt")
        for path, expected in ((own, "the whole output"), (outside, "persisted"), (own.parent / "link.txt", "persisted"),
                               (own.parent / ".." / ".." / "outside.txt", "persisted"), ("/etc/passwd", "persisted")):
            said = f"<persisted-output>\nOutput too large. Full output saved to: {path}\n</persisted-output>"
            self.assertIn(expected, shown(self.answered(call("Bash", command="make"), said)[1]))

    def test_exit_codes_stand_on_the_command(self):
        fine, odd = {"stdout": "x", "stderr": "", "interrupted": False}, {"stdout": "", "backgroundTaskId": "b1"}
        for content, detail, failed, code in (("x", fine, False, 0), ("Exit code 2\nboom", "Error: Exit code 2\nboom", True, 2),
                                              ("rejected", None, True, None), ("", odd, False, None), ("x", None, False, None)):
            command, _ = self.answered(call("Bash", command="make", description="Build"), content, detail, is_error=failed)
            self.assertEqual(daemon.event_kind(command)[1].get("exit_code"), code)
            self.assertEqual(command["content"]["blocks"], [daemon.code_block("make", "bash"), daemon.text_block("Build")])

    def test_a_file_that_was_read_is_code_that_knows_its_first_line(self):
        detail = {"type": "text", "file": {"filePath": "a.py", "content": "x = 1", "startLine": 7}}
        _, answer = self.answered(call("Read", file_path="a.py"), "     7→x = 1", detail)
        self.assertEqual(answer["content"]["blocks"], [daemon.code_block("x = 1", "python", 7)])
        _, answer = self.answered(call("Read", file_path="a.py"), "     7→x = 1\n     8→y\n\n<system-reminder>no</system-reminder>")
        self.assertEqual(answer["content"]["blocks"], [daemon.code_block("x = 1\ny", None, 7)])

    def test_calls_that_are_never_answered_do_not_pile_up(self):
        """C40"""
        records = [reply(call("Edit", id=f"t{number}", file_path="a", old_string="x", new_string="y")) for number in range(300)]
        events = self.events(user("q"), *records)
        self.assertEqual(len([event for event in events if "diff" in daemon.event_kind(event)[1]]), 300)

    def test_every_tool_has_the_kind_that_fits(self):
        expected = {"Grep": ("pattern", "CodeSearch"), "Glob": ("pattern", "FileSearch"), "WebFetch": ("url", "WebFetch"),
                    "WebSearch": ("query", "WebSearch"), "NotebookEdit": ("notebook_path", "FileEdit"),
                    "mcp__a__b": ("x", "ToolCall"), "TodoWrite": ("todos", "ToolCall")}
        for name, (key, kind) in expected.items():
            asked, _ = self.answered(call(name, **{key: "v"}), "ok")
            self.assertEqual((kind_of(asked), asked["attributes"]["tool"]), (kind, name))
        asked, _ = self.answered({"type": "tool_use", "id": "t1", "name": "Bash", "input": "ls"}, "ok")
        self.assertEqual(kind_of(asked), "ToolCall")

    def test_a_web_search_counts_once(self):
        """C52"""
        session, events = self.session(
            user("q"), reply(call("WebSearch", query="sqlite wal"), id="m1", usage=spent(1) | {"server_tool_use": {"web_search_requests": 0}}),
            result("found", detail={"query": "sqlite wal", "searchCount": 1, "durationSeconds": 2.5}))
        self.assertEqual([kind_of(event) for event in events], ["UserMessage", "WebSearch", "ToolResult"])
        self.assertEqual(events[2]["duration_ms"], 2500)

    def test_a_result_says_how_long_the_call_took(self):
        events = self.events(user("q"), reply(call("Bash", command="x"), timestamp=clock(100)),
                             result("y") | {"timestamp": clock(103)})
        self.assertEqual(events[-1]["duration_ms"], 3000)

    def test_old_records_of_calls_are_understood(self):
        """C12"""
        self.assertEqual(self.kinds(user("q"), chain("tool_use", name="Bash", input={"command": "ls"}),
                                    chain("tool_result", name="Bash", output="a b")),
                         ["UserMessage", "ShellCommand", "ToolResult"])


class Usage(Case):
    def test_one_response_in_three_records_is_counted_once(self):
        """C44"""
        usage = spent(input=10, output=5, written=100, read=1000)
        session, events = self.session(user("q"), reply({"type": "thinking", "thinking": "hm"}, id="m1", usage=usage),
                                       reply("hello", id="m1", usage=usage),
                                       reply(call("Bash", command="ls"), id="m1", usage=usage), result("x"))
        self.assertEqual(events[1]["attributes"], {"model": "claude-opus-4-6", "input_tokens": 1110, "output_tokens": 5,
                                                   "cache_read_tokens": 1000, "cache_write_tokens": 100})
        self.assertEqual(self.tokens(events), (1110, 5))
        self.assertEqual(session.attributes["usage"], {
            "raw_input": 3330, "raw_output": 15, "input": 1110, "output": 5, "cache_read": 1000, "cache_write": 100,
            "reasoning": 0, "responses": 1, "duplicates_removed": 2, "replayed": 0})

    def test_usage_that_grows_is_counted_at_its_highest(self):
        """C45"""
        events = self.events(user("q"), *(reply(word, id="m1", usage=spent(10, output)) for word, output in
                                          (("a", 1), ("b", 1), ("c", 90))))
        self.assertEqual(self.tokens(events), (10, 90))
        self.assertEqual(events[1]["attributes"]["output_tokens"], 90)

    def test_a_response_that_comes_back_later_adds_only_what_is_missing(self):
        """C47"""
        events = self.events(user("q"), reply(call("Bash", command="a"), id="m1", usage=spent(10, 1)), result("x"),
                             reply("other", id="m2", usage=spent(20, 2)),
                             reply(call("Bash", id="t2", command="b"), id="m1", usage=spent(10, 7)), result("y", id="t2"))
        self.assertEqual(self.tokens(events), (30, 9))

    def test_results_between_the_records_of_a_response_change_nothing(self):
        """C47"""
        events = self.events(user("q"), reply(call("Bash", command="a"), id="m1", usage=spent(10, 1)), result("x"),
                             reply(call("Bash", id="t2", command="b"), id="m1", usage=spent(10, 7)), result("y", id="t2"))
        self.assertEqual((self.tokens(events), events[1]["attributes"]["output_tokens"]), ((10, 7), 7))

    def test_the_request_id_does_not_matter(self):
        """C48"""
        events = self.events(user("q"), reply("a", id="m1", usage=spent(10, 1), requestId="r"),
                             reply("b", id="m1", usage=spent(10, 1)), reply("c", usage=spent(1, 1)), reply("d", usage=spent(1, 1)))
        self.assertEqual(self.tokens(events), (12, 3))

    def test_a_response_that_shows_nothing_still_counts(self):
        """C36 C44"""
        events = self.events(user("q"), reply({"type": "thinking", "thinking": ""}, id="m1", usage=spent(10, 3)), user("next"))
        self.assertEqual((self.tokens(events), [kind_of(event) for event in events].count("Custom usage")), ((10, 3), 1))

    def test_usage_of_any_type_is_no_harm_and_none_is_not_zero(self):
        """C51"""
        for usage in (None, "many", [], {"input_tokens": "12", "output_tokens": None}, {"input_tokens": -1, "output_tokens": 2.5}):
            events = self.events(user("q"), reply("a", id="m1", usage=usage))
            self.assertEqual(self.tokens(events), (0, 0))
        self.assertNotIn("input_tokens", self.events(user("q"), reply("a", id="m1"))[1]["attributes"])
        self.assertEqual(self.events(user("q"), reply("a", id="m1", usage=spent()))[1]["attributes"]["input_tokens"], 0)

    def test_thinking_tokens_are_part_of_the_output(self):
        usage = spent(1, 50) | {"output_tokens_details": {"thinking_tokens": 30}}
        self.assertEqual(self.events(user("q"), reply("a", id="m1", usage=usage))[1]["attributes"],
                         {"model": "claude-opus-4-6", "input_tokens": 1, "output_tokens": 50, "reasoning_tokens": 30})


class Branches(Case):
    def test_parallel_calls_fork_the_chain_and_nothing_is_lost(self):
        """C53"""
        records = [user("q", uuid="a"), reply(call("Bash", command="1"), uuid="b", parentUuid="a"),
                   reply(call("Bash", id="t2", command="2"), uuid="c", parentUuid="b"),
                   result("1") | {"parentUuid": "b"}, result("2", id="t2") | {"parentUuid": "c"},
                   chain("progress", data={}, parentUuid="b"), reply("done", parentUuid="c")]
        self.assertEqual(self.kinds(*records), ["UserMessage", "ShellCommand", "ShellCommand", "ToolResult", "ToolResult",
                                                "AgentMessage"])

    def test_a_compaction_is_marked_and_what_was_before_stays(self):
        """C54"""
        boundary = chain("system", subtype="compact_boundary", content="Conversation compacted", parentUuid=None,
                         compactMetadata={"trigger": "auto", "preTokens": 9000})
        events = self.events(user("before"), reply("a"), boundary, user("This session …", isCompactSummary=True), user("after"))
        self.assertEqual([kind_of(event) for event in events],
                         ["UserMessage", "AgentMessage", "Custom compaction", "SystemMessage", "UserMessage"])
        self.assertEqual(events[2]["attributes"], {"trigger": "auto", "preTokens": 9000})

    def test_parents_that_are_missing_and_records_without_names_stay_in_order(self):
        """C55"""
        self.assertEqual(self.prompts(user("a", parentUuid="gone"), user("b", uuid=None), user("c", uuid=None, parentUuid=None)),
                         ["a", "b", "c"])

    def test_going_back_is_marked_and_drops_nothing(self):
        """C56"""
        short = self.events(user("a", parentUuid="root"), reply("1"), user("b", parentUuid="x"), reply("2"),
                            user("b, but better", parentUuid="x"), reply("3"))
        self.assertEqual([shown(event) for event in short], ["a", "1", "b", "2", "b, but better", "3"])
        self.assertEqual(short[4]["attributes"], {"rewind": 1})
        long = self.events(user("a", parentUuid="root"), *(user(str(turn), parentUuid=f"p{turn}") for turn in range(9)),
                           user("again", parentUuid="root"))
        self.assertEqual((len(long), long[-1]["attributes"]), (11, {"rewind": 10}))

    def test_a_background_copy_shows_and_counts_only_what_is_its_own(self):
        """C57"""
        shared = [user("build it"), reply("on it", id="m1", usage=spent(100, 10))]
        own = reply("done in the background", id="m2", usage=spent(200, 20), sessionId=OTHER, sessionKind="bg")
        self.write(*shared)
        self.write(*(record | {"sessionId": OTHER, "sessionKind": "bg"} for record in shared), own, name=OTHER + ".jsonl")
        [(first, _), (second, events)] = sorted(self.sessions(), key=lambda found: found[0].session_id)
        self.assertEqual((first.session_id, second.session_id), (SID, OTHER))
        self.assertEqual((second.attributes["forked_from"], second.related, second.prompt), (SID, [SID], "build it"))
        self.assertEqual(([shown(event) for event in events], self.tokens(events)), (["done in the background"], (200, 20)))
        self.assertEqual(second.attributes["usage"]["replayed"], 110)

    def test_a_background_copy_without_its_origin_is_shown_whole(self):
        """C57"""
        session, events = self.session(user("build it", sessionKind="bg"), reply("on it", sessionKind="bg"))
        self.assertEqual(len(events), 2)
        self.assertNotIn("forked_from", session.attributes)

    def test_a_first_record_of_another_session_is_a_link_to_it(self):
        """C58"""
        session, events = self.session(user("go on", sessionId=OTHER))
        self.assertEqual((session.session_id, session.attributes["parent_session_id"], len(events)), (SID, OTHER, 1))


class Subagents(Case):
    def child(self, agent="a1b2c3d", *records, where=f"{SID}/subagents", meta=None):
        """A sub-agent's file."""
        records = records or (user("look", isSidechain=True, agentId=agent),
                              reply("seen", id=f"m-{agent}", usage=spent(50, 5), isSidechain=True, agentId=agent))
        self.write(*records, name=f"{where}/agent-{agent}.jsonl")
        if meta:
            (self.folder / where / f"agent-{agent}.meta.json").write_text(json.dumps(meta))

    def nested(self, *more, name="Task", detail={"agentId": "a1b2c3d", "totalDurationMs": 777}):
        """Event kinds of a session with one call that started an agent."""
        return self.session(user("q"), reply(call(name, description="Look round", prompt="look"), id="m1", usage=spent(10, 1)),
                            *more, result("report", detail=detail), reply("thanks", id="m2", usage=spent(20, 2)))

    RUN = ["UserMessage", "ToolCall", "TaskStart", "UserMessage", "AgentMessage", "TaskEnd", "ToolResult", "AgentMessage"]

    def test_a_subagent_is_nested_behind_its_call_and_does_not_overwrite_its_parent(self):
        """C59"""
        self.child()
        session, events = self.nested()
        self.assertEqual([kind_of(event) for event in events], self.RUN)
        self.assertEqual([event.get("task_id") for event in events], [None] * 2 + ["a1b2c3d"] * 4 + [None] * 2)
        self.assertEqual((session.session_id, session.prompt), (SID, "q"))
        start, end = events[2], events[5]
        self.assertEqual((daemon.event_kind(start)[1], start["attributes"]),
                         ({"title": "Look round"}, {"subagent_id": "a1b2c3d", "model": "claude-opus-4-6"}))
        self.assertEqual((daemon.event_kind(end)[1], end["duration_ms"]), ({"summary": "2 events, claude-opus-4-6"}, 777))
        self.assertEqual((self.tokens(events), session.attributes["usage"]["subagents"]), ((80, 8), {"input": 50, "output": 5}))

    def test_the_old_layout_is_nested_too(self):
        """C60"""
        self.child(where=".")
        self.assertEqual([kind_of(event) for event in self.nested()[1]], self.RUN)

    def test_every_way_to_tell_the_call_is_understood(self):
        """C61"""
        progress = chain("progress", parentToolUseID="t1", data={"type": "agent_progress", "agentId": "a1b2c3d"})
        xml = chain("queue-operation", operation="enqueue",
                    content="<task-notification><task-id>a1b2c3d</task-id><tool-use-id>t1</tool-use-id></task-notification>")
        plain = chain("queue-operation", operation="enqueue", content=json.dumps({"task_id": "a1b2c3d", "tool_use_id": "t1"}))
        for more, detail, meta, name in (((), {"agentId": "a1b2c3d"}, None, "Agent"), ((progress,), "a string", None, "Task"),
                                         ((xml,), None, None, "Task"), ((plain,), None, None, "Task"),
                                         ((), None, {"toolUseId": "t1", "agentType": "Explore"}, "Agent")):
            self.child(meta=meta)
            self.assertEqual([kind_of(event) for event in self.nested(*more, detail=detail, name=name)[1]], self.RUN)

    def test_an_agent_that_no_call_is_known_for_stands_at_its_time(self):
        """C61"""
        self.child("late", user("look", timestamp=clock(50)), reply("seen", timestamp=clock(55)))
        session, events = self.session(user("q", timestamp=clock(10)), reply("a", timestamp=clock(40)),
                                       result("string result", detail="late") | {"timestamp": clock(60)})
        self.assertEqual([kind_of(event) for event in events],
                         ["UserMessage", "AgentMessage", "TaskStart", "UserMessage", "AgentMessage", "TaskEnd", "ToolResult"])
        self.assertEqual(daemon.event_kind(events[2])[1], {"title": "look"})

    def test_several_agents_of_one_turn_each_stand_behind_their_call(self):
        """C61"""
        self.child("one", meta={"toolUseId": "t1"})
        self.child("two", meta={"toolUseId": "t2"})
        events = self.events(user("q"), reply(call("Task", prompt="x"), id="m1"), reply(call("Task", id="t2", prompt="y"), id="m1"),
                             result("b", id="t2"), result("a"))
        self.assertEqual([event.get("task_id") for event in events],
                         [None, None] + ["one"] * 4 + [None] + ["two"] * 4 + [None, None])

    def test_an_agent_may_start_an_agent(self):
        """C61"""
        self.child("outer", user("x"), reply(call("Task", id="inner-call", prompt="y")), result("r", id="inner-call"),
                   meta={"toolUseId": "t1"})
        self.child("inner", meta={"toolUseId": "inner-call"})
        events = self.events(user("q"), reply(call("Task", prompt="x")), result("a"))
        self.assertEqual([event.get("task_id") for event in events],
                         [None, None] + ["outer"] * 3 + ["inner"] * 4 + ["outer"] * 2 + [None])

    def test_an_agent_whose_call_is_lost_is_shown_at_the_end(self):
        """C61"""
        self.child(meta={"toolUseId": "never-written"})
        self.assertEqual(self.kinds(user("q"), reply("a")),
                         ["UserMessage", "AgentMessage", "TaskStart", "UserMessage", "AgentMessage", "TaskEnd"])

    def test_one_agents_file_can_be_read_alone(self):
        """C62"""
        self.write(user("q"))
        self.child()
        [(session, _)] = self.sessions(self.folder / SID / "subagents" / "agent-a1b2c3d.jsonl")
        self.assertEqual(session.session_id, f"{SID}.agent-a1b2c3d")
        renamed = self.write(user("look"), name=f"{SID}/subagents/agent-copy.txt")
        self.assertEqual(len(self.sessions(renamed)), 1)

    def test_a_copy_of_the_parents_response_in_an_agent_is_dropped(self):
        """C49"""
        copy = reply("on it", id="m1", usage=spent(10, 1), requestId="other", isSidechain=True)
        own = reply("aside", id="m9", usage=spent(30, 3), isSidechain=True)
        self.child("aside_question-1", copy, own)
        session, events = self.session(user("q"), reply("on it", id="m1", usage=spent(10, 1), requestId="r"), user("end"))
        self.assertEqual(self.tokens(events), (40, 4))
        self.assertEqual([shown(event) for event in events if kind_of(event) == "AgentMessage"], ["on it", "aside"])
        self.assertEqual(session.attributes["usage"]["replayed"], 11)

    def test_the_call_that_compacts_is_hidden_but_counted(self):
        """C62"""
        self.child("acompact-1", user("summarise", timestamp=clock(5)), reply("summary", id="mc", usage=spent(900, 90)))
        events = self.events(user("q", timestamp=clock(1)), chain("system", subtype="compact_boundary", timestamp=clock(9)),
                             user("go on", timestamp=clock(10)))
        self.assertEqual([kind_of(event) for event in events], ["UserMessage", "Custom compaction", "UserMessage"])
        self.assertEqual((events[1]["attributes"]["input_tokens"], self.tokens(events)), (900, (900, 90)))

    def test_a_compaction_without_a_boundary_is_counted_at_the_end(self):
        """C62"""
        self.child("acompact-1", user("summarise", timestamp=clock(5)), reply("summary", id="mc", usage=spent(900, 90)))
        self.assertEqual(self.tokens(self.events(user("q", timestamp=clock(1)))), (900, 90))

    def test_an_agent_whose_session_is_gone_is_still_reachable(self):
        """C62"""
        self.child()
        self.child("acompact-2")
        session, events = self.session()
        self.assertEqual(session.session_id, f"{SID}.agent-a1b2c3d")
        self.assertEqual((session.attributes["session_role"], session.attributes["parent_session_id"]), ("auxiliary", SID))
        self.assertEqual([kind_of(event) for event in events], ["UserMessage", "AgentMessage"])

    def test_agents_of_workflows_are_found_and_their_journal_is_not_a_session(self):
        """C63"""
        self.child(where=f"{SID}/subagents/workflows/wf1")
        self.write({"type": "started"}, name=f"{SID}/subagents/workflows/wf1/journal.jsonl")
        self.assertEqual([kind_of(event) for event in self.nested()[1]], self.RUN)

    def test_a_sidechain_in_the_sessions_own_file_is_a_task(self):
        side = [user("look", isSidechain=True, uuid="s1", parentUuid=None),
                reply("seen", isSidechain=True, uuid="s2", parentUuid="s1", id="ms", usage=spent(5, 5))]
        session, events = self.nested(*side, detail=None)
        self.assertEqual([kind_of(event) for event in events],
                         ["UserMessage", "ToolCall", "TaskStart", "UserMessage", "AgentMessage", "ToolResult", "TaskEnd", "AgentMessage"])
        self.assertEqual(daemon.event_kind(events[2])[1], {"title": "Look round"})
        self.assertEqual(session.prompt, "q")


class Sources(Case):
    def test_many_small_sessions_are_listed_quickly_and_say_where_they_come_from(self):
        """C64"""
        for number in range(2000):
            (self.folder / f"{number:08d}-2222-4333-8444-555555555555.jsonl").touch()
        self.write(user("hi", entrypoint="sdk-py"))
        sources = list(daemon.claude_sources(self.folder.parent))
        self.assertEqual((len(sources), len({source.key for source in sources})), (2001, 2001))
        session = next(session for source in sources for session in daemon.parse_claude(source))
        list(session.events)
        self.assertEqual(session.attributes["entrypoint"], "sdk-py")

    def test_a_long_session_is_read_to_its_end(self):
        """C65"""
        pair = [reply(call("Bash", command="ls"), id="m", usage=spent(1, 1)), result("x")]
        lines = [json.dumps(record) for record in pair]
        path = self.write()
        with path.open("w") as file:
            for number in range(7500):
                for line in lines:
                    file.write(line.replace('"t1"', f'"t{number}"').replace('"m"', f'"m{number}"') + "\n")
        [source] = daemon.claude_sources(path)
        [session] = daemon.parse_claude(source)
        self.assertEqual((sum(1 for _ in session.events), session.attributes["usage"]["output"]), (15000, 7500))

    def test_the_order_of_the_file_counts_even_where_times_go_back(self):
        """C66"""
        self.assertEqual(self.prompts(user("a", timestamp=clock(50)), user("b", timestamp=clock(40))), ["a", "b"])

    def test_the_first_folder_is_kept_and_all_are_told(self):
        """C67"""
        session, _ = self.session(user("a", cwd=None, gitBranch="HEAD"), user("b", cwd="/one", gitBranch=""),
                                  user("c", cwd="/two", gitBranch="dev"), user("d", cwd="/two", gitBranch="late"))
        self.assertEqual({key: session.attributes[key] for key in ("cwd", "all_cwds", "git_branch")},
                         {"cwd": "/one", "all_cwds": ["/one", "/two"], "git_branch": "dev"})

    def test_without_a_folder_the_project_has_a_readable_name_and_no_wrong_path(self):
        """C68"""
        session, _ = self.session(user("a", cwd=None))
        self.assertEqual((session.attributes["project"], "cwd" in session.attributes), ("shop", False))
        self.assertEqual(daemon.claude_project("-home-ada-code-my-app"), "my-app")
        self.assertEqual(daemon.claude_project("-Users-ada-Documents-a-b"), "a-b")
        self.assertIsNone(daemon.claude_project("exports"))

    def test_several_roots_may_be_named(self):
        """C69"""
        home = Path(self.temp.name)
        self.assertEqual(daemon.claude_roots({"CLAUDE_CONFIG_DIR": f"~/one, {home}/two,"}, home),
                         [home / "one" / "projects", home / "two" / "projects"])
        self.assertEqual(daemon.claude_roots({}, home), [home / ".claude" / "projects", home / ".config" / "claude" / "projects"])
        self.assertEqual(list(daemon.claude_sources(home / "one" / "projects")), [])

    def test_progress_is_skipped_unparsed_but_only_progress(self):
        """C70"""
        odd = reply({"type": "tool_use", "id": "t1", "name": "Odd", "input": {"type": "progress"}})
        broken = b'{"parentUuid":null,"type":"progress","data":{{{{ not even JSON\n'
        compact = json.dumps(odd, separators=(",", ":")).encode() + b"\n"
        session, events = self.session(user("q"), broken, compact)
        self.assertEqual((session.bad_lines, [kind_of(event) for event in events]), (0, ["UserMessage", "ToolCall"]))

    def test_one_file_brings_its_agents(self):
        path = self.write(user("q"))
        self.write(user("x"), name=f"{SID}/subagents/agent-new.jsonl")
        self.write(user("x"), name="agent-old.jsonl")
        self.write(user("x", sessionId=OTHER), name="agent-foreign.jsonl")
        [source] = daemon.claude_sources(path)
        self.assertEqual([os.path.basename(name) for name in source.files],
                         [f"{SID}.jsonl", "agent-new.jsonl", "agent-old.jsonl"])

    def test_a_copy_in_another_projects_folder_is_the_same_session(self):
        self.write(user("one"))
        self.write(user("one"), user("two"), name=f"../-home-ada-shop-2/{SID}.jsonl")
        [(_, events)] = self.sessions(self.folder.parent)
        self.assertEqual(len(events), 2)

    def test_a_folder_of_exports_is_read_by_the_ids_inside(self):
        self.write(user("one"), name="deep/er/full.jsonl")
        self.assertEqual(self.session()[0].session_id, SID)

    def test_a_web_export_is_read_by_the_same_steps(self):
        export = {"loglines": [user("hi"), reply(call("Bash", command="ls")), result("x"), 7]}
        self.write(json.dumps(export, indent=2).encode(), name="export.json")
        self.write(b'{"other": 1}', name="sessions-index.json")
        session, events = self.session()
        self.assertEqual([kind_of(event) for event in events], ["UserMessage", "ShellCommand", "ToolResult"])
        self.assertTrue(daemon.claude_recognise(json.dumps(export).encode(), "export.json"))

    def test_one_session_from_start_to_end(self):
        """The fixture is a small day's work with most kinds of records."""
        [(session, events)] = self.sessions(FIXTURES)
        self.assertEqual([kind_of(event) for event in events],
                         ["UserMessage", "Thinking", "AgentMessage", "ShellCommand", "ToolResult", "FileEdit", "ToolResult",
                          "AgentMessage", "Custom interrupt", "UserMessage", "AgentMessage"])
        self.assertEqual((session.title, session.model, session.tool_version, self.tokens(events)),
                         ("Fix the tax rounding", "claude-opus-4-6", "2.1.40", (3300, 180)))


class Damage(Case):
    LINES = (FIXTURES / f"{SID}.jsonl").read_bytes().splitlines(keepends=True) if FIXTURES.exists() else []
    JUNK = (None, 0, -1, 2.5, True, "", "x", [], {}, [None], [{}], {"type": []}, [[[]]], {"content": 7})

    def swapped(self, value, random):
        """The same JSON value with one part of it replaced by something of another type."""
        if not isinstance(value, (dict, list)) or not value or random.random() < 0.25:
            return random.choice(self.JUNK)
        key = random.choice(list(value) if isinstance(value, dict) else range(len(value)))
        changed = dict(value) if isinstance(value, dict) else list(value)
        changed[key] = self.swapped(value[key], random)
        return changed

    def damaged(self, how, at, random):
        """The fixture's lines with one of them damaged."""
        lines, line = list(self.LINES), self.LINES[at]
        if how == "swap":
            lines[at] = json.dumps(self.swapped(json.loads(line), random)).encode() + b"\n"
        elif how == "flip":
            place = random.randrange(len(line) - 1)
            lines[at] = line[:place] + bytes([line[place] ^ 1 << random.randrange(8)]) + line[place + 1:]
        elif how == "cut":
            lines[at:] = [line[:random.randrange(len(line))]]
        else:
            lines[at:at + 1] = [line] * (2 if how == "double" else 0)
        return lines

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(st.sampled_from(("swap", "swap", "swap", "flip", "cut", "double", "delete")), st.integers(0, 10**6), st.integers(0, 2**32))
    def test_no_damage_raises_or_harms_what_stands_before_it(self, how, place, seed):
        """C3 C12"""
        at = place % len(self.LINES)
        self.setUp()
        whole = self.read(self.LINES[:at])
        damaged = self.read(self.damaged(how, at, random.Random(seed)))
        self.assertEqual(damaged[:len(whole)], whole)
        self.temp.cleanup()

    def read(self, lines):
        self.write(*lines)
        return [event["event_id"] for _, events in self.sessions() for event in events]


@unittest.skipUnless(CORPUS.is_dir(), f"no corpus of real transcripts in {CORPUS}")
class Corpus(unittest.TestCase):
    """Real files, against a slow and obvious reading of the same lines."""

    @classmethod
    def setUpClass(cls):
        cls.found = []
        for source in daemon.claude_sources(CORPUS):
            for session in daemon.parse_claude(source):
                cls.found.append((source, session, list(session.events)))

    def records(self, source):
        for path in source.files:
            if path.endswith(".jsonl"):
                for line in Path(path).read_bytes().splitlines():
                    try:
                        record = json.loads(line)
                    except ValueError:
                        continue
                    if isinstance(record, dict):
                        yield record

    def test_tokens_are_the_highest_of_each_message_id(self):
        for source, session, events in self.found:
            best = {}
            for place, record in enumerate(self.records(source)):
                message = record.get("message")
                usage = message.get("usage") if record["type"] == "assistant" else None
                if usage and message.get("model") != "<synthetic>":
                    seen = best.setdefault(message.get("id", place), Counter())
                    for key in ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens"):
                        seen[key] = max(seen[key], usage.get(key, 0))
            total = sum(best.values(), Counter())
            stats = daemon.stats_line(self.stats(events))
            with self.subTest(source.path):
                self.assertEqual(stats["total_output_tokens"], total.pop("output_tokens", 0))
                self.assertEqual(stats["total_input_tokens"], sum(total.values()))
                usage = session.attributes.get("usage", {"input": 0, "output": 0})
                self.assertEqual((usage["input"], usage["output"]), (stats["total_input_tokens"], stats["total_output_tokens"]))

    def stats(self, events):
        stats = daemon.empty_stats()
        for event in events:
            daemon.add_to_stats(stats, event)
        return stats

    def test_no_call_result_or_reply_is_lost(self):
        for source, session, events in self.found:
            calls, results, replies = set(), 0, set()
            for record in self.records(source):
                content = record.get("message", {}).get("content")
                for block in content if isinstance(content, list) else []:
                    calls |= {block.get("id", id(block))} if block["type"] == "tool_use" else set()
                    results += block["type"] == "tool_result"
                    replies |= {block["text"]} if block["type"] == "text" and record["type"] == "assistant" else set()
            called = [event for event in events if "tool" in event.get("attributes", {}) and event["attributes"]["tool"] != "!"]
            said = "\n".join(daemon.event_texts(event) for event in events)
            with self.subTest(source.path):
                if source.path.endswith(".jsonl") and "schema_drift" not in source.path:
                    self.assertEqual(len(called), len(calls))
                    self.assertEqual(sum(kind_of(event) == "ToolResult" for event in events), results)
                hidden = "".join(open(path, encoding="utf-8", errors="replace").read() for path in source.files if "acompact" in path)
                missing = [reply for reply in replies if reply not in said and reply.strip()
                           and json.dumps(reply, ensure_ascii=False)[1:-1] not in hidden]
                self.assertEqual(missing, [])

    def test_titles_and_prompts_are_what_a_person_wrote(self):
        for source, session, events in self.found:
            prompts = [daemon.event_texts(event) for event in events if kind_of(event) == "UserMessage"]
            for said in [session.title or session.prompt or "", *prompts]:
                self.assertFalse(said.startswith(("<", "[Request", "Caveat", "This session is being")), (source.path, said[:80]))

    def test_ids_are_unique_and_nothing_is_unknown(self):
        for source, session, events in self.found:
            with self.subTest(source.path):
                self.assertEqual(len({event["event_id"] for event in events}), len(events))
                self.assertEqual(session.unknown, {})

    def test_only_these_files_are_recognised(self):
        for path in CORPUS.parent.rglob("*.json*"):
            if path.is_file() and path.stat().st_size and "meta" not in path.name and path.parts[-2] != "workflows":
                ours = "claude-code" in path.parts and "NOT_CLAUDE" not in path.name
                with path.open("rb") as file:
                    self.assertEqual(daemon.claude_recognise(file.read(65536), str(path)), ours, path)


if __name__ == "__main__":
    unittest.main()
