"""The daemon without a server: settings, local.db, the commands."""

import json
import os
import shutil
import sqlite3
import time
import unittest
from pathlib import Path

import daemon
from laptop import DAEMON, Laptop, Transcript, eventually, rollout


class Alone(unittest.TestCase):
    def setUp(self):
        self.laptop = Laptop()
        self.addCleanup(self.laptop.remove)
        self.laptop.config.parent.mkdir(parents=True)

    def fails(self, *args, code=2, env=()):
        """What a command says that must fail, in one line."""
        done = self.laptop.command(*args, env=env)
        self.assertEqual(done.returncode, code, done.stderr)
        self.assertEqual(len(done.stderr.strip().splitlines()), 1, done.stderr)
        return done.stderr


class Settings(Alone):
    def load(self, env=(), **files):
        for name, text in files.items():
            path = self.laptop.config.parent / f"{name}.toml"
            path.write_text(text)
            path.chmod(0o600)
        return daemon.load_settings(daemon.find_paths({}, self.laptop.home), dict(env))

    def test_the_environment_beats_daemon_toml_beats_config_toml_beats_the_defaults(self):
        files = {"config": '[server]\nurl = "https://c.example"\napi_key = "c"\nteam_id = "c"\n',
                 "daemon": '[server]\nurl = "https://d.example"\napi_key = "d"\n'}
        settings = self.load({"OPENSESSION_SERVER_URL": "https://e.example"}, **files)
        self.assertEqual(settings["server"]["url"], "https://e.example")
        self.assertEqual(settings["server"]["api_key"], "d")
        self.assertEqual(settings["identity"]["team_id"], "c")
        self.assertEqual(settings["daemon"]["debounce_secs"], 5)

    def test_every_key_has_an_environment_variable(self):
        settings = self.load({"OPENSESSION_DAEMON_PUBLISH_ON": "realtime", "OPENSESSION_WATCHERS_CURSOR": "true",
                              "OPENSESSION_PRIVACY_EXCLUDE_TOOLS": "codex, cursor", "OPENSESSION_TEAM_ID": "t",
                              "OPENSESSION_DAEMON_MAX_RETRIES": "9"})
        self.assertEqual(settings["daemon"]["publish_on"], "realtime")
        self.assertEqual(settings["daemon"]["max_retries"], 9)
        self.assertIs(settings["watchers"]["cursor"], True)
        self.assertEqual(settings["privacy"]["exclude_tools"], ["codex", "cursor"])
        self.assertEqual(settings["identity"]["team_id"], "t")

    def test_the_server_adds_to_lists_and_switches_off_but_never_on(self):
        settings = self.load(
            daemon='[privacy]\nexclude_tools = ["codex"]\n[watchers]\ngoose = true\n',
            synced='etag = "x"\nlast_synced = "now"\n[privacy]\nexclude_tools = ["aider"]\n[watchers]\ngoose = false\ncursor = true\n')
        self.assertEqual(settings["privacy"]["exclude_tools"], ["codex", "aider"])
        self.assertIs(settings["watchers"]["goose"], False)
        self.assertIs(settings["watchers"]["cursor"], False)

    def test_a_tool_is_on_unless_it_is_switched_off(self):
        settings = self.load(daemon='[watchers]\nclaude_code = false\ngoose = false\n[tools]\ngoose = true\ncodex = false\n')
        on = [name for name in ("claude-code", "codex", "cursor", "gemini", "goose") if daemon.collects(settings, name)]
        self.assertEqual(on, ["gemini", "goose"])

    def test_broken_settings_name_file_line_and_key(self):
        for text, words in [('[daemon]\n\ndebounce_secs = "5"\n', ["line 3", "daemon.debounce_secs", "a whole number"]),
                            ('[daemon]\npublish_on = "never"\n', ["line 2", "daemon.publish_on", "realtime"]),
                            ('[privacy]\nexclude_tools = [1]\n', ["line 2", "privacy.exclude_tools"]),
                            ('[server\n', ["line 1"]), ('server = 3\n', ["line 1", "server"])]:
            self.laptop.config.write_text(text)
            said = self.fails("once")
            for word in ["daemon.toml", *words]:
                self.assertIn(word, said)
        self.laptop.config.write_text("")
        self.assertIn("OPENSESSION_DAEMON_DEBOUNCE_SECS", self.fails("once", env={"OPENSESSION_DAEMON_DEBOUNCE_SECS": "x"}))

    def test_an_unknown_key_is_a_warning(self):
        self.laptop.config.write_text("[daemon]\ndebounce = 3\n[sever]\n")
        done = self.laptop.command("once")
        self.assertEqual(done.returncode, 0)
        self.assertIn("line 2: daemon.debounce is not a setting", done.stderr)
        self.assertIn("[sever]", done.stderr)

    def test_a_key_that_others_can_read_is_a_warning(self):
        self.laptop.config.write_text('[server]\napi_key = "k"\n')
        self.laptop.config.chmod(0o644)
        self.assertIn("chmod 600", self.laptop.command("once").stderr)

    def test_an_unencrypted_server_elsewhere_is_refused(self):
        self.laptop.config.write_text('[server]\nurl = "http://sessions.example.org"\n')
        self.assertIn("allow_insecure", self.fails("run"))
        self.assertIn("https", self.fails("login", "http://sessions.example.org"))

    def test_one_key_is_set_and_all_else_stays(self):
        for before, after in [
                ("", '[server]\nurl = "u"\n'), ("[server]\n", '[server]\nurl = "u"\n'),
                ('# a\n[server]\nurl = "old"  # b\napi_key = "k"\n', '# a\n[server]\nurl = "u"\napi_key = "k"\n'),
                ('[server]\napi_key = "k"\n\n[daemon]\n', '[server]\napi_key = "k"\nurl = "u"\n\n[daemon]\n')]:
            self.assertEqual(daemon.set_in_toml(before, "server", "url", "u"), after)


class LocalDatabase(Alone):
    def setUp(self):
        super().setUp()
        self.database = self.laptop.database
        Transcript(self.laptop).prompt("Remember").reply("Yes.")

    def collected(self):
        done = self.laptop.command("once")
        self.assertEqual((done.returncode, done.stdout), (0, "1 sessions known, no server is set.\n"), done.stderr)
        return done

    def test_it_is_private(self):
        self.collected()
        self.assertEqual(self.database.stat().st_mode & 0o777, 0o600)
        self.assertEqual(self.database.parent.stat().st_mode & 0o777, 0o700)

    def test_an_empty_file_becomes_one(self):
        self.database.parent.mkdir(parents=True)
        self.database.touch()
        self.collected()

    def test_damage_is_set_aside_and_everything_collected_again(self):
        self.collected()
        whole = self.database.read_bytes()
        for broken in (b"\0" * 4096, whole[:len(whole) // 2], whole[:4096] + b"x" * 4096 + whole[8192:], b"garbage" * 999):
            for rest in self.database.parent.glob("local.db*"):
                rest.unlink()
            self.database.write_bytes(broken)
            self.assertIn("is damaged", self.collected().stderr)
            self.assertEqual([path.read_bytes() for path in self.database.parent.glob("local.db.corrupt-*[0-9]")], [broken])

    def test_a_newer_one_is_refused_and_not_touched(self):
        self.collected()
        with sqlite3.connect(self.database) as db:
            db.execute("PRAGMA journal_mode = DELETE")
            db.execute("UPDATE meta SET value = '99' WHERE key = 'version'")
        db.close()
        before = self.database.read_bytes()
        self.assertIn("newer", self.fails("once"))
        self.assertEqual(self.database.read_bytes(), before)

    def test_the_originals_is_refused_and_not_touched(self):
        self.database.parent.mkdir(parents=True)
        with sqlite3.connect(self.database) as db:
            db.execute("CREATE TABLE local_sessions (id TEXT PRIMARY KEY, source_path TEXT, sync_status TEXT)")
        db.close()
        before = self.database.read_bytes()
        self.assertIn("import-original", self.fails("run"))
        self.assertEqual(self.database.read_bytes(), before)
        self.assertEqual({path.name for path in self.database.parent.iterdir()}, {"local.db", "daemon.lock"})


class Looking(Alone):
    """The loop with a clock of its own: `slept` holds how long it slept each time."""

    def setUp(self):
        super().setUp()
        paths = daemon.find_paths({}, self.laptop.home)
        daemon.make_private_folder(paths.data)
        self.now, self.slept, self.start = 0, [], time.time()
        self.daemon = daemon.Daemon(paths, daemon.load_settings(paths, {}), daemon.open_cache(paths.database), {}, {},
                                    clock=lambda: self.now, wall=lambda: self.start + self.now, sleep=self.sleep)
        self.addCleanup(self.daemon.cache.close)

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds

    def transcript(self, age):
        one = Transcript(self.laptop).prompt("Hello").reply("Hello.")
        os.utime(one.path, (self.start - age,) * 2)
        return one

    def run_for(self, seconds):
        self.slept.clear()
        end = self.now + seconds
        while self.now < end:
            self.daemon.step()

    def known(self):
        return {row["id"]: row["message_count"] for row in self.daemon.cache.execute("SELECT id, message_count FROM sessions")}

    def test_where_no_file_is_at_work_it_wakes_every_five_seconds(self):
        self.transcript(age=86400)
        self.run_for(60)
        self.run_for(60)
        self.assertEqual(len(self.known()), 1)
        self.assertEqual(set(self.slept), {5})

    def test_while_a_file_is_at_work_it_looks_every_second(self):
        self.transcript(age=10)
        self.run_for(60)
        self.assertLessEqual(max(self.slept), 1)

    def test_a_file_of_long_ago_that_grows_is_met_within_five_minutes(self):
        old = [self.transcript(age=86400) for _ in range(7)]
        self.run_for(60)
        at = os.stat(old[3].path.parent).st_mtime_ns
        old[3].prompt("One more thing.")
        os.utime(old[3].path, (self.start - 4000,) * 2)
        self.assertEqual(os.stat(old[3].path.parent).st_mtime_ns, at)       # the folder says nothing of it
        self.run_for(320)
        self.assertEqual(self.known()[old[3].id], 3)


class Commands(Alone):
    def test_a_copy_of_the_file_alone_collects_and_sends_nothing(self):
        Transcript(self.laptop).prompt("Stay at home").reply("Yes.")
        rollout(self.laptop, "Me too")
        program = self.laptop.home / "elsewhere/daemon.py"
        program.parent.mkdir()
        shutil.copy(DAEMON, program)
        done = self.laptop.command("once", program=program)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(self.laptop.rows("SELECT title, sync_status FROM sessions ORDER BY title"),
                         [("Me too", "local_only"), ("Stay at home", "local_only")])

    def test_parse_prints_hail(self):
        transcript = Transcript(self.laptop).prompt("Print me").reply("Yes.")
        shutil.copy(transcript.path, self.laptop.home / "unnamed")
        for path in (transcript.path, self.laptop.home / "unnamed"):
            done = self.laptop.command("parse", str(path))
            lines = [json.loads(line) for line in done.stdout.splitlines()]
            self.assertEqual([line["type"] for line in lines], ["header", "event", "event", "stats"])
            self.assertEqual(lines[0]["context"]["title"], "Print me")
            self.assertEqual(lines[-1]["event_count"], 2)

    def test_parse_says_in_one_sentence_that_no_tool_fits(self):
        other = self.laptop.home / "notes.txt"
        other.write_text("Dear diary\n")
        self.assertIn("is not a transcript", self.fails("parse", str(other), code=1))
        self.assertIn("does not exist", self.fails("parse", "nowhere", code=1))
        self.assertIn("no tool word", self.fails("parse", str(other), "--tool", "word", code=1))

    def test_redact_copies_without_secrets(self):
        secret = "gh" + "p_" + "A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q7r8"
        done = self.laptop.command("redact", input=f"one\nkey {secret} end\n")
        self.assertNotIn(secret, done.stdout)
        self.assertTrue(done.stdout.startswith("one\nkey [REDACTED:"))

    def test_a_given_home_holds_everything(self):
        other = Laptop()
        self.addCleanup(other.remove)
        Transcript(other).prompt("In another home").reply("Yes.")
        self.laptop.command("--home", str(other.home), "once", env={"CLAUDE_CONFIG_DIR": "/nowhere"})
        self.assertEqual(other.rows("SELECT title FROM sessions"), [("In another home",)])
        self.assertFalse(self.laptop.database.exists())

    def test_xdg_variables_move_settings_and_data(self):
        self.laptop.command("once", env={"XDG_DATA_HOME": str(self.laptop.home / "d")})
        self.assertTrue((self.laptop.home / "d/opensession/local.db").exists())

    def test_a_dropped_transcript_is_read_under_its_own_name(self):
        transcript = Transcript(self.laptop).prompt("Dropped").reply("Yes.")
        dropped = self.laptop.home / "upload.tmp"
        shutil.move(transcript.path, dropped)
        for _ in range(2):
            [(header, lines)] = [(header, list(lines)) for header, lines in
                                 daemon.native_sessions(str(dropped), f"C:/x/{transcript.id}.jsonl")]
            self.assertEqual(header["session_id"], transcript.id)
            self.assertEqual(header["context"]["attributes"]["source_path"], f"{transcript.id}.jsonl")
            self.assertEqual(len(lines), 2)
        dropped.write_text("nothing of ours\n")
        self.assertEqual(list(daemon.native_sessions(str(dropped), "x.jsonl")), [])

    def test_a_remote_names_a_project_without_its_credentials(self):
        for remote, slug in [("git@github.com:acme/shop.git", "github.com/acme/shop"),
                             ("https://u:p@GitHub.com/acme/shop", "github.com/acme/shop"),
                             ("ssh://git@git.example.org:2222/acme/a/b.git/", "git.example.org/acme/a/b"),
                             ("/srv/git/shop.git", None), ("", None), (None, None)]:
            self.assertEqual(daemon.remote_slug(remote), slug)

    def test_an_idle_daemon_costs_next_to_nothing(self):
        Transcript(self.laptop).prompt("Idle").reply("Yes.")
        self.laptop.start()
        self.assertTrue(eventually(lambda: self.laptop.has("SELECT 1 FROM sessions")))
        stat = Path(f"/proc/{self.laptop.process.pid}/stat")
        if not stat.exists():
            self.skipTest("there is no /proc here")

        def ticks_of_three_seconds():
            before = sum(map(int, stat.read_text().split()[13:15]))
            time.sleep(3)
            return sum(map(int, stat.read_text().split()[13:15])) - before
        self.assertTrue(eventually(lambda: ticks_of_three_seconds() < 10, 60))      # of 300; at first it still has to do


if __name__ == "__main__":
    unittest.main()
