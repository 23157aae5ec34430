"""The daemon at work: a real process, a real server, transcripts that grow."""

import json
import os
import shutil
import signal
import sqlite3
import time
import unittest
from pathlib import Path

from laptop import DAEMON, Laptop, LaptopCase, Server, Transcript, eventually, rollout


class WithServer(LaptopCase):
    def once(self, *args, code=0):
        """One pass; what the server was sent meanwhile."""
        before = len(self.server.uploads())
        done = self.laptop.command("once", *args)
        self.assertEqual(done.returncode, code, done.stderr)
        self.assertNotIn("Traceback", done.stderr)
        return self.server.uploads()[before:]


class AHurry(unittest.TestCase):
    def test_a_server_that_asks_to_wait_gets_the_rest_later(self):
        limits = {"OPENSESSION_BASE_URL": "https://sessions.example.org", "OPENSESSION_SETUP": "open"}
        server = Server(**limits, OPENSESSION_UPLOADS_PER_MINUTE="1")       # ten at once
        self.addCleanup(server.remove)
        laptop = Laptop(server)
        self.addCleanup(laptop.remove)
        for number in range(13):
            Transcript(laptop).prompt(f"Paint door {number}").reply("Painted.")
        laptop.start("once")
        self.assertTrue(eventually(lambda: "too many requests; try again in" in laptop.log.read_text()))
        # What is left is collected all the same, and waits.
        self.assertTrue(eventually(lambda: laptop.rows("SELECT count(*) FROM outbox") == [(3,)]))
        laptop.stop(signal.SIGKILL)         # it would wait as long as it was told
        self.assertEqual((len(server.sessions()), len(server.uploads())), (10, 11))
        self.assertEqual(laptop.rows("SELECT count(*), max(parked_for) FROM outbox"), [(3, None)])
        server.stop()
        server.settings = limits
        server.start()
        laptop.command("once")
        self.assertEqual(len(server.sessions()), 13)


class Sending(WithServer):
    def test_a_pass_sends_what_every_tool_wrote(self):
        Transcript(self.laptop).prompt("Paint the shed").reply("Painted.")
        rollout(self.laptop, "Paint the fence")
        self.assertEqual(self.once(), ["whole", "whole"])
        self.assertEqual(self.server.session("Paint the shed")["tool"], "claude-code")
        self.assertEqual(self.server.session("Paint the fence")["tool"], "codex")

    def test_a_second_pass_sends_nothing(self):
        Transcript(self.laptop).prompt("Mow the lawn").reply("Mown.")
        self.once()
        self.assertEqual(self.once(), [])

    def test_a_fresh_local_db_makes_no_second_session(self):
        Transcript(self.laptop).prompt("Wash the car").reply("Washed.")
        self.once()
        first = self.server.session("Wash the car")
        shutil.rmtree(self.laptop.database.parent)
        self.once()
        self.assertEqual(self.server.session("Wash the car"), first)

    def test_an_appended_line_is_sent_as_a_delta(self):
        transcript = Transcript(self.laptop).prompt("Count to three").reply("One.")
        self.once()
        first = self.server.session("Count to three")
        transcript.reply("Two.").reply("Three.")
        self.assertEqual(self.once(), ["delta"])
        second = self.server.session("Count to three")
        self.assertEqual((second["id"], second["event_count"]), (first["id"], first["event_count"] + 2))
        self.assertEqual(self.server.texts(first["id"]), ["Count to three", "One.", "Two.", "Three."])

    def test_a_late_result_replaces_from_the_event_that_it_changes(self):
        transcript = Transcript(self.laptop).prompt("Run the tests")
        for number in range(300):
            transcript.reply(f"Thought {number}.")
        transcript.shell("make test", "toolu_late")
        self.once()
        found = self.server.session("Run the tests")
        transcript.result("toolu_late", "Exit code 2\n1 failed", failed=True)
        self.assertEqual(self.once(), ["delta"])
        events = self.server.call("GET", f"/api/sessions/{found['id']}/events?from=300&limit=10")["events"]
        self.assertEqual([event["event_type"]["type"] for event in events][-2:], ["ShellCommand", "ToolResult"])
        self.assertEqual(events[-2]["event_type"]["data"]["exit_code"], 2)

    def test_a_new_title_is_sent_without_events(self):
        transcript = Transcript(self.laptop).prompt("Name this").reply("Named.")
        self.once()
        found = self.server.session("Name this")
        transcript.write(json.dumps({"type": "custom-title", "customTitle": "A good name", "sessionId": transcript.id}) + "\n")
        self.assertEqual(self.once(), ["delta"])
        self.assertEqual(self.server.session("A good name")["id"], found["id"])
        self.assertEqual(self.server.session("A good name")["event_count"], 2)

    def test_a_session_that_another_daemon_carried_on_is_mended(self):
        transcript = Transcript(self.laptop).prompt("Two of us").reply("One.")
        self.once()
        found = self.server.session("Two of us")
        self.server.call("POST", f"/api/sessions/{found['id']}/events", {"events": [
            {"event_id": "stray", "timestamp": "2026-02-11T06:00:00Z", "event_type": {"type": "AgentMessage"},
             "content": {"blocks": [{"type": "Text", "text": "stray"}]}}]})
        transcript.reply("Two.")
        self.once()
        self.assertEqual(self.server.texts(found["id"]), ["Two of us", "One.", "Two."])

    def test_a_session_that_the_server_lost_is_sent_whole(self):
        transcript = Transcript(self.laptop).prompt("Lost and found").reply("One.")
        self.once()
        database = sqlite3.connect(self.laptop.database)
        database.execute("UPDATE sessions SET server_id = 'nowhere'")
        database.commit()
        database.close()
        transcript.reply("Two.")
        self.assertEqual(self.once(), ["delta", "whole"])
        self.assertEqual(self.server.session("Lost and found")["event_count"], 3)

    def test_a_deleted_session_stays_deleted_until_it_is_restored(self):
        transcript = Transcript(self.laptop).prompt("Forget me").reply("One.")
        self.once()
        found = self.server.session("Forget me")
        self.server.call("DELETE", f"/api/sessions/{found['id']}")
        transcript.reply("Two.")
        self.once()
        self.assertIsNone(self.server.session("Forget me"))
        self.assertEqual(self.laptop.rows("SELECT sync_status FROM sessions"), [("deleted",)])
        restored = self.laptop.command("push", "--restore", transcript.id)
        self.assertEqual(restored.returncode, 0, restored.stderr)
        self.assertEqual(self.server.session("Forget me")["event_count"], 3)

    def test_secrets_are_masked_before_they_leave(self):
        secret = "gh" + "p_" + "A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q7r8"
        Transcript(self.laptop).prompt(f"Use {secret}").reply("No.")
        self.once()
        found = next(one for one in self.server.sessions() if one["title"].startswith("Use [REDACTED"))
        self.assertNotIn(secret, json.dumps(self.server.events(found["id"])))
        self.assertIn("github", self.laptop.command("status").stdout)

    def test_what_others_of_the_team_did_is_pulled_and_ones_own_is_not(self):
        other = Laptop(self.server)
        self.addCleanup(other.remove)
        Transcript(other).prompt("Made elsewhere").reply("Yes.")
        self.assertEqual(other.command("once").returncode, 0)
        Transcript(self.laptop).prompt("Made here").reply("Yes.")
        team = self.server.call("GET", "/api/teams")["teams"][0]["id"]
        self.laptop.set(identity={"team_id": team})
        self.once()
        titles = {title for title, in self.laptop.rows("SELECT title FROM pulled")}
        self.assertIn("Made elsewhere", titles)
        self.assertNotIn("Made here", titles)
        found = self.server.session("Made elsewhere")
        for _ in range(2):
            self.assertIn('"Made elsewhere"', self.laptop.command("show", found["id"]).stdout)
        self.assertEqual(self.laptop.rows("SELECT session_id FROM body_cache"), [(found["id"],)])
        self.server.call("DELETE", f"/api/sessions/{self.server.session('Made elsewhere')['id']}")
        self.once()
        self.assertNotIn("Made elsewhere", {title for title, in self.laptop.rows("SELECT title FROM pulled")})


class Sources(WithServer):
    def test_a_truncated_file_takes_nothing_away(self):
        transcript = Transcript(self.laptop).prompt("Cut me").reply("One.").reply("Two.")
        self.once()
        lines = transcript.path.read_text().splitlines(True)
        transcript.path.write_text("".join(lines[:2]))
        self.assertEqual(self.once(), [])
        transcript.path.write_text("")
        self.assertEqual(self.once(), [])
        transcript.path.unlink()
        self.assertEqual(self.once(), [])
        self.assertEqual(self.server.session("Cut me")["event_count"], 3)

    def test_a_rewritten_file_is_taken_over(self):
        transcript = Transcript(self.laptop).prompt("Old beginning").reply("One.").reply("Two.")
        self.once()
        found = self.server.session("Old beginning")
        transcript.path.unlink()
        transcript.prompt("New beginning").reply("Three.")
        self.assertEqual(self.once(), ["whole"])
        self.assertEqual(self.server.session("New beginning")["id"], found["id"])
        self.assertEqual(self.server.texts(found["id"]), ["New beginning", "Three."])

    def test_of_two_copies_the_longer_one_counts(self):
        transcript = Transcript(self.laptop).prompt("Twice on disk").reply("One.")
        copy = self.laptop.home / "backup" / transcript.path.name
        copy.parent.mkdir()
        shutil.copy(transcript.path, copy)
        transcript.reply("Two.")
        self.laptop.set(watchers={"custom_paths": ["~/backup"]})
        self.assertEqual(self.once(), ["whole"])
        self.assertEqual(self.once(), [])
        self.assertEqual(self.server.session("Twice on disk")["event_count"], 3)

    def test_given_paths_are_read_whatever_tool_wrote_them(self):
        folder = self.laptop.home / "anywhere"
        Transcript(self.laptop, folder=folder).prompt("Found by path").reply("Yes.")
        shutil.move(rollout(self.laptop, "Found by content"), folder / "other.jsonl")
        (folder / "notes.jsonl").write_text('{"some": "notes"}\n')
        Transcript(self.laptop).prompt("In the usual place").reply("Yes.")
        self.assertEqual(len(self.once(str(folder))), 2)
        self.assertTrue(self.server.session("Found by path") and self.server.session("Found by content"))
        self.assertIsNone(self.server.session("In the usual place"))

    def test_pipes_loops_and_locked_folders_stop_nothing(self):
        root = Transcript(self.laptop).prompt("Among thorns").reply("Yes.").path.parent
        os.mkfifo(root / "pipe.jsonl")
        (root / "loop").symlink_to(root)
        (root / "dead.jsonl").symlink_to(root / "nowhere")
        (root / "folder.jsonl").mkdir()
        (root / "empty.jsonl").touch()
        (root / "locked.jsonl").write_text("{}")
        (root / "locked.jsonl").chmod(0)
        (root / "locked").mkdir(mode=0)
        done = self.laptop.command("once")
        self.assertNotIn("Traceback", done.stderr)
        self.assertIn("pipe.jsonl is not a regular file", done.stderr)
        self.assertTrue(self.server.session("Among thorns"))

    def test_excluded_tools_and_projects_are_not_collected(self):
        Transcript(self.laptop, "-home-ada-diary", "/home/ada/diary").prompt("Dear diary").reply("Hush.")
        Transcript(self.laptop).prompt("At work").reply("Yes.")
        rollout(self.laptop, "With another tool")
        self.laptop.set(privacy={"exclude_projects": ["/home/ada/diary*"], "exclude_tools": ["Codex"]})
        self.assertEqual(self.once(), ["whole"])
        self.assertEqual(self.laptop.rows("SELECT title FROM sessions"), [("At work",)])

    def test_the_git_remote_names_the_project(self):
        repository = self.laptop.home / "src/shop"
        repository.mkdir(parents=True)
        for command in ("git init -q -b trunk", "git remote add origin https://ada:pass@git.example.org/acme/shop.git",
                        "git -c user.name=Ada -c user.email=ada@example.org commit -q --allow-empty -m first"):
            self.assertEqual(os.system(f"cd {repository} && {command}"), 0)
        Transcript(self.laptop, cwd=str(repository)).prompt("In a repository").reply("Yes.")
        self.once()
        [(remote, branch, commit, name)] = self.laptop.rows(
            "SELECT git_remote, git_branch, git_commit, git_repo_name FROM sessions")
        self.assertEqual((remote, branch, name), ("https://git.example.org/acme/shop.git", "main", "acme/shop"))
        self.assertEqual(len(commit), 40)
        self.assertEqual(self.server.session("In a repository")["project"], "git.example.org/acme/shop")


class Running(WithServer):
    def test_an_appended_line_arrives_within_three_seconds_in_realtime(self):
        self.laptop.set(daemon={"publish_on": "realtime"})
        self.appended_line_arrives("As it happens", 3)

    def test_an_appended_line_arrives_within_ten_seconds_by_default(self):
        self.appended_line_arrives("In good time", 10)

    def appended_line_arrives(self, title, seconds):
        transcript = Transcript(self.laptop).prompt(title).reply("One.")
        self.laptop.start()
        found = eventually(lambda: self.server.session(title))
        before = len(self.server.uploads())
        transcript.reply("Two.")
        self.assertTrue(eventually(lambda: self.server.session(title)["event_count"] == 3, seconds + 10 * self.slowness()))
        self.assertEqual(self.server.uploads()[before:], ["delta"])
        self.assertEqual(self.server.texts(found["id"])[-1], "Two.")
        self.assertEqual(self.laptop.stop(), 0)

    def slowness(self):
        """Seconds that a command without work takes: a quarter on a quiet machine, a minute on a very busy one."""
        started = time.monotonic()
        self.laptop.command("status")
        return time.monotonic() - started

    def test_a_second_daemon_is_refused(self):
        self.laptop.start()
        self.assertTrue(eventually(self.laptop.database.exists))
        self.assertEqual(self.laptop.command("run").returncode, 3)
        self.assertIn("daemon      running", self.laptop.command("status").stdout)
        self.laptop.stop(signal.SIGKILL)
        self.assertEqual(self.laptop.command("once").returncode, 0)

    def test_what_was_written_while_the_server_was_down_arrives_later(self):
        server = Server()
        self.addCleanup(server.remove)
        laptop = Laptop(server)
        self.addCleanup(laptop.remove)
        server.stop()
        Transcript(laptop).prompt("Patience").reply("Yes.")
        laptop.start()
        self.assertTrue(eventually(lambda: "was not reached" in laptop.log.read_text()))
        server.start()
        self.assertTrue(eventually(lambda: server.session("Patience")))
        self.assertEqual(laptop.stop(signal.SIGINT), 0)

    def test_a_refused_key_stops_sending_but_not_collecting(self):
        self.laptop.set(server={"api_key": "osk" + "_wrong"})
        Transcript(self.laptop).prompt("Wrong key").reply("Yes.")
        self.laptop.start()
        self.assertTrue(eventually(lambda: "refuses the key" in self.laptop.log.read_text()))
        self.assertTrue(eventually(lambda: self.laptop.has("SELECT 1 FROM outbox")))
        self.laptop.set(server={"api_key": self.server.key})
        self.assertTrue(eventually(lambda: self.server.session("Wrong key")))

    def test_manual_mode_waits_for_a_pass_by_hand(self):
        self.laptop.set(daemon={"auto_publish": False})
        Transcript(self.laptop).prompt("When I say so").reply("Yes.")
        self.laptop.start()
        self.assertTrue(eventually(lambda: self.laptop.has("SELECT 1 FROM outbox")))
        self.laptop.stop()
        self.assertIsNone(self.server.session("When I say so"))
        self.assertEqual(self.once(), ["whole"])

    def test_a_rejected_session_is_parked_and_named(self):
        transcript = Transcript(self.laptop).prompt("Wrong team").reply("Yes.")
        self.laptop.set(identity={"team_id": "no-such-team"})
        self.once(code=1)
        status = json.loads(self.laptop.command("status", "--json").stdout)
        self.assertEqual([one["id"] for one in status["rejected"]], [transcript.id])
        self.assertIn("not a member", status["rejected"][0]["problem"])
        self.laptop.set(identity={"team_id": ""})
        self.once()
        self.assertTrue(self.server.session("Wrong team"))

    def test_the_servers_settings_reach_the_daemon(self):
        rule = {"name": "acme", "pattern": r"acme-\d{6}"}
        self.server.call("PUT", "/api/config/sync", {"privacy": {"exclude_tools": ["codex"], "rules": [rule]}, "watchers": {}})
        self.addCleanup(self.server.call, "PUT", "/api/config/sync", {"privacy": {}, "watchers": {}})
        rollout(self.laptop, "Not for this team")
        self.assertEqual(self.once(), [])
        self.assertIn('exclude_tools = ["codex"]', (self.laptop.config.parent / "synced.toml").read_text())
        Transcript(self.laptop).prompt("Write acme-123456 down")
        self.assertEqual(self.once(), ["whole"])
        self.assertTrue(self.server.session("Write [REDACTED:acme#1] down"))


class Login(WithServer):
    def test_login_keeps_the_rest_of_the_file(self):
        self.laptop.config.write_text('# mine\n[daemon]\ndebounce_secs = 7  # slow\n[server]\nurl = "http://localhost:1"\n')
        done = self.laptop.command("login", self.server.url, "--key", self.server.key)
        self.assertEqual(done.returncode, 0, done.stderr)
        text = self.laptop.config.read_text()
        self.assertIn("# mine\n[daemon]\ndebounce_secs = 7  # slow\n", text)
        self.assertIn(f'url = "{self.server.url}"', text)
        self.assertEqual(self.laptop.config.stat().st_mode & 0o777, 0o600)
        team = self.server.call("GET", "/api/teams")["teams"][0]["id"]
        self.assertIn(f'team_id = "{team}"', text)

    def test_login_registers_with_an_invitation(self):
        team = self.server.call("GET", "/api/teams")["teams"][0]["id"]
        code = self.server.call("POST", "/api/invitations", {"team_id": team, "role": "member"})["code"]
        self.laptop.config.unlink()
        done = self.laptop.command("login", self.server.url, "--nickname", "grace", "--invite", code)
        self.assertEqual(done.returncode, 0, done.stderr)
        Transcript(self.laptop).prompt("By invitation").reply("Yes.")
        self.once()
        self.assertEqual(self.server.session("By invitation")["nickname"], "grace")

    def test_a_wrong_key_is_not_written(self):
        before = self.laptop.config.read_text()
        done = self.laptop.command("login", self.server.url, "--key", "osk" + "_wrong")
        self.assertEqual(done.returncode, 1)
        self.assertEqual(self.laptop.config.read_text(), before)


if __name__ == "__main__":
    unittest.main()
