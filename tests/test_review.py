"""Rules of one's own, ignored projects, review and explanation: a real daemon, and a real server that must not get it."""

import json
import unittest

import daemon
from laptop import Laptop, LaptopCase, Transcript
from secret_cases import noise
from test_privacy import event, github_token, text_of

ACME = "acme-" + noise("H", 16, 1)


class OwnRules(unittest.TestCase):
    def redactor(self, **privacy):
        settings = {"privacy": {**daemon.DEFAULTS["privacy"], **privacy}}
        return daemon.Redactor(daemon.privacy_of(settings, {}, "/home/ada"))

    def test_a_rule_of_one_s_own_masks_what_it_matches_or_its_group(self):
        redactor = self.redactor(rules=[{"name": "acme", "pattern": "acme-[0-9a-f]{16}"},
                                        {"name": "pin", "pattern": r"CÓDIGO: (\d{4})", "contains": "CÓDIGO"}])
        self.assertEqual(text_of(redactor.clean_event(event(f"{ACME}, CÓDIGO: 4711."))),
                         "[REDACTED:acme#1], CÓDIGO: [REDACTED:pin#1].")

    def test_what_it_matches_may_be_frequent(self):
        redactor = self.redactor(rules=[{"name": "row", "pattern": r"R\d{4}"}])
        cleaned = text_of(redactor.clean_event(event(" ".join(f"R{number}" for number in range(1000, 1300)))))
        self.assertEqual(cleaned.split()[299], "[REDACTED:row#300]")

    def test_what_is_allowed_is_no_secret(self):
        first, second = github_token(1), github_token(2)
        redactor = self.redactor(allow=[first, "osk_*"])
        self.assertEqual(text_of(redactor.clean_event(event(f"{first} {second} os" + f"k_{noise('A', 40, 3)}"))),
                         f"{first} [REDACTED:github#1] os" + f"k_{noise('A', 40, 3)}")

    def test_a_bad_rule_is_told_in_one_sentence(self):
        for rules, said in (([{"name": "x", "pattern": "("}], "is not a regular expression"),
                            ([{"name": "x", "pattern": "a*"}], "matches nothing at all"),
                            ([{"name": "x", "pattern": "(a+)+b"}], "too slow"),
                            ([{"name": "x", "pattern": r"\s*\s*\s*\s*x"}], "too slow"),
                            ([{"name": "X y", "pattern": "abc"}], "small letters"),
                            ([{"name": "x"}], "must be a list of {"), (["abc"], "must be a list of {")):
            with self.subTest(rules):
                self.assertIn(said, daemon.type_problem("privacy", "rules", [], rules) or "")
        self.assertIsNone(daemon.type_problem("privacy", "rules", [], [{"name": "acme", "pattern": r"acme-[0-9a-f]{16}"}]))

    def test_the_server_can_add_rules_and_review_but_allow_nothing(self):
        settings = {section: dict(keys) for section, keys in daemon.DEFAULTS.items()}
        rule = {"name": "acme", "pattern": "acme-\\d+"}
        text = daemon.synced_toml({"privacy": {"rules": [rule], "review": True, "exclude_projects": ["/secret/*"], "allow": ["*"]}},
                                  "tag", "now")
        daemon.add_synced(settings, daemon.tomllib.loads(text))
        self.assertEqual([settings["privacy"][key] for key in ("rules", "review", "exclude_projects", "allow")],
                         [[rule], True, ["/secret/*"], []])
        daemon.add_synced(settings, {"privacy": {"review": False}})
        self.assertTrue(settings["privacy"]["review"])


class Explained(unittest.TestCase):
    def setUp(self):
        self.laptop = Laptop()
        self.addCleanup(self.laptop.remove)

    def test_a_text_is_explained_by_line_and_rule_without_the_secret(self):
        done = self.laptop.command("redact", "--explain", input=f"one\nkey {github_token()} here\n/home/ada/x\n")
        self.assertEqual(done.stdout.splitlines(), ["2  text  github  key [REDACTED:github#1] here", "3  text  home  ~/x"])
        self.assertNotIn(github_token(), done.stdout + done.stderr)

    def test_a_session_is_explained_by_event_and_field(self):
        transcript = Transcript(self.laptop).prompt("Hi").shell(f"login {github_token()}", "call1")
        done = self.laptop.command("redact", "--explain", str(transcript.path))
        self.assertIn("2  event_type.data.command  github  login [REDACTED:github#1]", done.stdout)
        self.assertNotIn(github_token(), done.stdout + done.stderr)

    def test_a_bad_rule_ends_the_program_with_one_sentence(self):
        self.laptop.settings["privacy"] = {}
        self.laptop.config.parent.mkdir(parents=True, exist_ok=True)
        self.laptop.config.write_text('[privacy]\nrules = [{ name = "x", pattern = "(" }]\n')
        done = self.laptop.command("once")
        self.assertEqual(done.returncode, daemon.EXIT_USAGE)
        self.assertIn("privacy.rules has a pattern for 'x' that is not a regular expression", done.stderr)
        self.assertNotIn("Traceback", done.stderr)


class WithServer(LaptopCase):
    def setUp(self):
        super().setUp()
        self.project = self.laptop.home / "code/app"
        self.project.mkdir(parents=True)

    def transcript(self):
        return Transcript(self.laptop, cwd=str(self.project))

    def test_an_empty_ignore_file_keeps_a_project_here(self):
        (self.project / ".opensessionignore").write_text("# nothing of this\n")
        self.transcript().prompt("Ignored project")
        self.laptop.command("once")
        self.assertIsNone(self.server.session("Ignored project"))
        self.assertEqual(self.laptop.rows("SELECT count(*) FROM sessions"), [(0,)])

    def test_globs_of_the_checkout_s_root_withhold_the_content_of_files(self):
        (self.laptop.home / "code/.git").mkdir()
        (self.laptop.home / "code/.opensessionignore").write_text("plans/\n*.pem\n")
        one = self.transcript().prompt("Ignored files")
        for number, path in enumerate((f"{self.laptop.home}/code/plans/q3.md", "cert.pem", f"{self.project}/open.txt")):
            one.write(one.record("assistant", [{"type": "tool_use", "id": f"c{number}", "name": "Write",
                                                "input": {"file_path": path, "content": f"content {number}"}}], id=f"m{number}"))
        self.laptop.command("once")
        sent = json.dumps(self.server.events(self.server.session("Ignored files")["id"]))
        self.assertEqual([f"content {number}" in sent for number in range(3)], [False, False, True])
        self.assertIn("[withheld: path matches plans/]", sent)
        self.assertNotIn(str(self.laptop.home), sent)

    def test_a_session_with_secrets_waits_until_it_is_accepted_and_again_when_there_are_new_ones(self):
        self.laptop.set(privacy={"review": True})
        one = self.transcript().prompt("Reviewed").reply(f"key {github_token(1)}")
        Transcript(self.laptop).prompt("Nothing in it")
        self.laptop.command("once")
        self.assertIsNone(self.server.session("Reviewed"))
        self.assertTrue(self.server.session("Nothing in it"))
        self.assertIn(f"held      claude-code {one.id}: 1 secrets, Reviewed", self.laptop.command("status").stdout)
        shown = self.laptop.command("review", "show", one.id).stdout
        self.assertIn("[REDACTED:github#1]", shown)
        self.assertNotIn(github_token(1), shown)
        self.assertEqual(self.laptop.command("review", "accept", one.id).stdout, "1 sessions accepted.\n")
        self.laptop.command("once")
        self.assertEqual(self.server.session("Reviewed")["event_count"], 2)
        one.reply(f"again {github_token(1)}")
        self.laptop.command("once")
        self.assertEqual(self.server.session("Reviewed")["event_count"], 3)
        one.reply(f"another {github_token(2)}")
        self.laptop.command("once")
        self.assertEqual(self.server.session("Reviewed")["event_count"], 3)
        self.assertEqual(self.laptop.command("review", "refuse", one.id).returncode, 0)
        one.reply("more")
        self.laptop.command("once")
        self.assertEqual(self.server.session("Reviewed")["event_count"], 3)

    def test_without_review_what_was_held_goes(self):
        self.laptop.set(privacy={"review": True})
        self.transcript().prompt("Held for a while").reply(f"key {github_token(1)}")
        self.laptop.command("once")
        self.assertIsNone(self.server.session("Held for a while"))
        self.laptop.set(privacy={"review": False})
        self.laptop.command("once")
        self.assertTrue(self.server.session("Held for a while"))


if __name__ == "__main__":
    unittest.main()
