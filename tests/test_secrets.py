"""What should not be in stored sessions: the server finds tokens and private keys, marks the session, and masks them on demand."""

import json
import tempfile
import unittest
from functools import partial

import daemon
import opensession
from client import ServerCase, call, new_event, new_session, running_server
from laptop import DAEMON, LaptopCase, Transcript, eventually
from secret_cases import noise

TOKEN, OTHER = ("gh" + "p_" + noise("A", 36, number) for number in (1, 2))
KEY = "-----BEGIN " + "PRIVATE KEY-----\n" + noise("B", 64, 13) + "\n-----END PRIVATE KEY-----"


class StoredSecrets(ServerCase):
    """Una uploaded a session to a team where Tom is admin, Bob a member; Eve is nowhere."""

    def setUp(self):
        super().setUp()
        self.ada, self.una, self.tom, self.bob, self.eve = map(self.register, ("ada", "una", "tom", "bob", "eve"))
        self.team = self.new_team(self.ada, "here", [self.una, (self.tom, "admin"), self.bob])

    def store(self, *texts, **context):
        """The id of a session with these texts, as a client that masks nothing sends it."""
        self.session = new_session("s-1", [new_event(text=text, at=at) for at, text in enumerate(texts)], **context)
        return self.upload(self.una, self.session, self.team)

    def look(self):
        """Look through all that is new, as a thread of the server does."""
        opensession.forget_older_checks(opensession.db)
        while opensession.check_some(opensession.db):
            pass

    def marked(self, who, session_id):
        return who.get(f"/api/sessions/{session_id}").json.get("secrets", 0)

    def redact(self, who, session_id, status=200):
        return self.check(who.post(f"/api/sessions/{session_id}/redact"), status).json

    def raw(self, session_id):
        return self.una.get(f"/api/sessions/{session_id}/raw").body.decode()

    def test_who_may_change_a_session_sees_how_many_events_hold_a_secret(self):
        session_id = self.store("plain", f"key {TOKEN}", KEY, f"{TOKEN} again")
        self.assertEqual(self.marked(self.una, session_id), 0)
        self.look()
        self.assertEqual([self.marked(who, session_id) for who in (self.una, self.tom, self.bob)], [3, 3, 0])

    def test_lists_say_which_sessions_still_hold_secrets_to_who_may_mask_them(self):
        session_id = self.store(f"key {TOKEN}")
        self.upload(self.una, new_session("s-2"), self.team)
        self.look()
        lists = [self.check(who.get(f"/api/sessions?team_id={self.team}"), 200).json for who in (self.una, self.tom, self.bob)]
        self.assertEqual([each.get("with_secrets") for each in lists], [[session_id], [session_id], None])
        only = [[each["id"] for each in self.check(who.get("/api/sessions?secrets=1"), 200).json["sessions"]]
                for who in (self.una, self.tom, self.bob, self.eve)]
        self.assertEqual(only, [[session_id], [session_id], [], []])
        self.assertEqual(self.una.get("/api/sessions?secrets=1&tool=codex").json["total"], 0)

    def test_a_search_may_ask_for_sessions_that_still_hold_secrets(self):
        session_id = self.store(f"needle {TOKEN}")
        self.upload(self.una, new_session("s-2", [new_event(text="needle")]), self.team)
        self.look()
        self.index()
        found = self.check(self.una.get("/api/sessions?search=needle&secrets=1&facets=1"), 200).json
        self.assertEqual(([each["id"] for each in found["sessions"]], found["total"]), ([session_id], 1))
        hits = self.check(self.una.get("/api/search?q=needle&secrets=1"), 200).json["hits"]
        self.assertEqual([hit["session"]["id"] for hit in hits], [session_id])

    def test_values_that_only_sound_secret_are_not_marked(self):
        session_id = self.store("DB_PASSWORD=" + noise("A", 16, 3), "Authorization: Bearer " + noise("W", 40, 4), "[REDACTED:github#1]")
        self.look()
        self.assertEqual(self.marked(self.una, session_id), 0)

    def test_one_click_masks_them_everywhere_and_nothing_else_changes(self):
        session_id = self.store("[REDACTED:github#4] plain", f"key {TOKEN} and {OTHER}", "more", f"{TOKEN} again",
                                title=f"About {TOKEN}", description="x")
        self.look()
        self.index()
        before = self.una.get(f"/api/sessions/{session_id}").json
        self.assertEqual(self.redact(self.tom, session_id), {"id": session_id, "masked": 2, "secrets": 0})
        text = self.raw(session_id)
        self.assertNotIn(TOKEN, text)
        self.assertNotIn(OTHER, text)
        texts = [event["content"]["blocks"][0]["text"] for event in map(json.loads, text.splitlines()[1:-1])]
        self.assertEqual(texts, ["[REDACTED:github#4] plain", "key [REDACTED:github#5] and [REDACTED:github#6]", "more",
                                 "[REDACTED:github#5] again"])
        after = self.una.get(f"/api/sessions/{session_id}").json
        self.assertEqual((after["revision"], after["event_count"]), (before["revision"] + 1, before["event_count"]))
        self.assertNotEqual(after["chain"], before["chain"])
        self.assertNotIn(TOKEN, json.dumps(after))
        self.look()
        self.assertEqual(self.marked(self.una, session_id), 0)

    def test_the_search_forgets_them_too(self):
        session_id = self.store("first words", f"unusualword {TOKEN}")
        self.index()
        self.assertTrue(self.una.get(f"/api/search?q={TOKEN}").json["hits"])
        self.redact(self.una, session_id)
        self.index()
        self.assertFalse(self.una.get(f"/api/search?q={TOKEN}").json["hits"])
        self.assertTrue(self.una.get("/api/search?q=unusualword").json["hits"])

    def test_only_the_uploader_and_the_team_s_admins_may_and_the_audit_has_the_id_alone(self):
        session_id = self.store(f"key {TOKEN}")
        for who, status in ((self.bob, 403), (self.eve, 404)):
            self.redact(who, session_id, status)
        self.assertIn(TOKEN, self.raw(session_id))
        self.redact(self.una, session_id)
        self.assertEqual(self.rows("SELECT user_id, object FROM audit WHERE action = 'session.redact'"),
                         [{"user_id": self.una.user_id, "object": session_id}])
        self.assertEqual(self.redact(self.una, session_id)["masked"], 0)

    def test_long_sessions_are_masked_from_the_first_block_with_a_secret_on(self):
        texts = [f"{number} " + noise("L", 900, number) for number in range(1200)]
        texts[700] += f" {TOKEN}"
        session_id = self.store(*texts)
        blocks = self.rows("SELECT first_ordinal, chain FROM blocks ORDER BY first_ordinal")
        self.assertGreater(len(blocks), 3)
        self.redact(self.una, session_id)
        kept = self.rows("SELECT first_ordinal, chain FROM blocks ORDER BY first_ordinal")
        self.assertEqual([block in kept for block in blocks], [block["first_ordinal"] + 300 < 700 for block in blocks])
        self.assertNotIn(TOKEN, self.raw(session_id))
        self.assertEqual(len(self.raw(session_id).splitlines()), 1202)

    def test_what_grows_is_looked_at_and_what_was_is_not_again(self):
        session_id = self.store(*(noise("L", 900, number) for number in range(700)))
        self.look()
        self.assertEqual(self.rows("SELECT count(*) AS n FROM blocks WHERE secrets IS NULL"), [{"n": 0}])
        self.una.post(f"/api/sessions/{session_id}/events", {"events": [new_event(text=TOKEN, at=900)]})
        self.assertEqual(self.rows("SELECT count(*) AS n FROM blocks WHERE secrets IS NULL"), [{"n": 1}])
        self.look()
        self.assertEqual(self.marked(self.una, session_id), 1)

    def test_new_rules_look_at_everything_again(self):
        session_id = self.store(f"key {TOKEN}")
        self.look()
        self.change("UPDATE blocks SET secrets = 0")
        self.look()
        self.assertEqual(self.marked(self.una, session_id), 0)
        self.change("UPDATE meta SET value = '1' WHERE key = 'secret_rules'")
        self.look()
        self.assertEqual(self.marked(self.una, session_id), 1)

    def test_a_sender_with_older_rules_cannot_bring_them_back(self):
        session_id = self.store(f"key {TOKEN}")
        self.redact(self.una, session_id)
        body = {"session": self.session, "team_id": self.team}
        self.assertIn("update daemon.py", self.check(self.una.post("/api/sessions", body), 409).json["error"])
        events = {"from": 0, "events": self.session["events"]}
        self.check(self.una.post(f"/api/sessions/{session_id}/events", events), 409)
        self.assertNotIn(TOKEN, self.raw(session_id))
        newer = {"User-Agent": f"opensession-daemon/9 rules/{daemon.RULES_VERSION}"}
        self.check(self.una.post("/api/sessions", body, headers=newer), 200)

    def test_appending_goes_on(self):
        session_id = self.store(f"key {TOKEN}")
        self.redact(self.una, session_id)
        self.check(self.una.post(f"/api/sessions/{session_id}/events", {"events": [new_event(text="more", at=9)]}), 200)
        self.assertEqual(self.una.get(f"/api/sessions/{session_id}").json["event_count"], 2)

    def test_the_server_says_that_it_looks(self):
        self.assertTrue(self.una.get("/api/health").json["checks_secrets"])


class RulesForAll(ServerCase):
    """Ada, who looks after the server, sets rules that every daemon adds to its own."""

    def setUp(self):
        super().setUp()
        self.ada, self.una = map(self.register, ("ada", "una"))

    def put(self, rules, status):
        return self.check(self.ada.put("/api/config/sync", {"privacy": {"rules": rules, "allow": ["*"]}}), status).json

    def test_every_daemon_is_told_them_but_nothing_that_would_let_secrets_through(self):
        rules = [{"name": "acme", "pattern": "acme-[0-9a-f]{32}", "contains": "acme-"}]
        self.put(rules, 200)
        self.assertEqual(self.una.get("/api/config/sync").json["privacy"], {"rules": rules})

    def test_what_is_no_rule_or_no_expression_or_matches_nothing_or_is_slow_or_too_long_is_refused(self):
        for pattern, why in (("(", "not a regular expression"), ("a*", "matches nothing at all"), ("(a+)+b", "too slow"),
                             ("a" * 1001, "more than 1000 characters"), (7, "must be a list of")):
            self.assertIn(why, self.put([{"name": "acme", "pattern": pattern}], 422)["error"])
        self.assertIn("small letters", self.put([{"name": "A CME", "pattern": "acme-1"}], 422)["error"])
        self.assertIn("50 at most", self.put([{"name": "acme", "pattern": "acme-1"}] * 51, 422)["error"])


class TheThread(unittest.TestCase):
    def test_a_running_server_marks_a_session_by_itself(self):
        with tempfile.TemporaryDirectory() as folder, running_server(folder) as server:
            ada = partial(call, server.port, Content_Type="application/json")
            key = ada("POST", "/api/register", b'{"nickname": "ada"}').json["api_key"]
            body = json.dumps({"session": new_session(events=[new_event(text=f"key {TOKEN}")])}).encode()
            path = "/api/sessions/" + ada("POST", "/api/sessions", body, key).json["id"]
            self.assertEqual(eventually(lambda: ada("GET", path, key=key).json["secrets"], 60), 1)


class AnOlderDaemon(LaptopCase):
    """A daemon that does not know the tokens of GitHub yet has sent one; its owner had it masked on the server."""

    def setUp(self):
        super().setUp()
        program = DAEMON.read_text("utf-8")
        newest = f"RULES_VERSION = {daemon.RULES_VERSION} "
        rule = next(line for line in program.splitlines(True) if line.lstrip().startswith('Rule("github", r"gh[opsur]_'))
        self.assertIn(newest, program)
        self.older = self.laptop.home / "older.py"
        self.older.write_text(program.replace(newest, f"RULES_VERSION = {daemon.RULES_VERSION - 1} ").replace(rule, ""), "utf-8")
        self.transcript = Transcript(self.laptop).prompt(f"Paint with {TOKEN}").reply("Painted.")
        self.once(self.older)
        self.id = self.server.sessions()[0]["id"]
        self.assertIn(f"Paint with {TOKEN}", self.server.texts(self.id))
        self.server.call("POST", f"/api/sessions/{self.id}/redact", {})

    def once(self, program):
        """What a pass of a program says, and what the server was sent by it."""
        before = len(self.server.uploads())
        done = self.laptop.command("once", program=program)
        self.assertNotIn("Traceback", done.stderr)
        return done.stderr.count("update daemon.py"), self.server.uploads()[before:]

    def rejected(self):
        return [one["problem"] for one in json.loads(self.laptop.command("status", "--json", program=self.older).stdout)["rejected"]]

    def test_it_is_told_once_to_be_updated_and_neither_brings_the_secret_back_nor_loses_what_comes_later(self):
        masked = ["Paint with [REDACTED:github#1]", "Painted."]
        self.transcript.prompt("And the door?").reply("Painted too.")
        told = [self.once(self.older) for _ in range(3)]
        self.assertEqual(sum(times for times, _ in told), 1, told)
        self.assertEqual(self.server.texts(self.id), masked)
        self.assertEqual(self.rejected(), [daemon.NEEDS_UPDATE])

        self.transcript.prompt("And the roof?")
        self.assertEqual(self.once(self.older), (0, []))        # not even tried
        self.assertEqual(self.server.texts(self.id), masked)

        self.assertEqual(self.once(DAEMON), (0, ["delta"]))       # what it has masked itself is what the server has
        self.assertEqual(self.server.texts(self.id), [*masked, "And the door?", "Painted too.", "And the roof?"])
        self.assertEqual(self.rejected(), [])


if __name__ == "__main__":
    unittest.main()
