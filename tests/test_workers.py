"""A first run that several processes read: the same end as with one, whatever happens to them."""

import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import daemon
from client import PATIENCE
from laptop import DAEMON, Laptop, Transcript, rollout

NAMES = "tool, id, source_key, title, message_count, event_count, redactions, chain, unknown_types, bad_lines, git_branch, project"
NEVER = 1 << 60


@unittest.skipIf(not daemon.worker_count(), "this machine has one core")
class FirstRun(unittest.TestCase):
    def setUp(self):
        self.laptop = Laptop()
        self.addCleanup(self.laptop.remove)
        password = "pass" + "word=Zx9-kQ2v" + "Lm7pWq"
        for number in range(8):
            Transcript(self.laptop).prompt(f"Session {number}").reply(f"{password}{number % 3} and {password}1").shell("ls", "t1")
            rollout(self.laptop, f"Thread {number}")

    def collected(self, workers_from=0):
        """The Daemon after one pass, in a local.db and a cache of its own; workers help where so many bytes are new."""
        own = Path(tempfile.mkdtemp(prefix="own-", dir=self.laptop.home))
        paths = daemon.find_paths({"XDG_DATA_HOME": f"{own}/data", "XDG_CACHE_HOME": f"{own}/cache"}, self.laptop.home)
        one = daemon.Daemon(paths, daemon.load_settings(paths, {}), daemon.open_cache(paths.database), {}, {})
        self.addCleanup(one.cache.close)
        one.cache.set_meta("salt", "the same")
        one.apply(one.settings)
        with mock.patch.object(daemon, "WORKERS_FROM", workers_from):
            self.complete = one.once()
        return one

    def sessions(self, one):
        return [tuple(row) for row in one.cache.execute(f"SELECT {NAMES} FROM sessions ORDER BY tool, id")]

    def test_the_end_is_the_same_as_without_workers(self):
        alone, together = self.collected(NEVER), self.collected()
        self.assertEqual(len(self.sessions(alone)), 16)
        self.assertEqual(self.sessions(alone), self.sessions(together))
        for table in ("sources", "masks", "outbox"):
            rows = [[tuple(row) for row in one.cache.execute(f"SELECT * FROM {table} ORDER BY 1, 2, 3, 4")] for one in (alone, together)]
            self.assertTrue(rows[0])
            self.assertEqual(*rows)
        self.assertEqual([one.paths.cache.exists() for one in (alone, together)], [False, True], "workers run compiled")
        self.assertFalse((together.paths.data / "reading").exists())

    def test_a_small_pass_starts_no_process(self):
        one = self.collected(daemon.WORKERS_FROM)
        self.assertEqual(len(self.sessions(one)), 16)
        self.assertFalse(one.paths.cache.exists())

    def test_a_source_on_which_a_worker_died_is_refused_with_a_reason_and_all_others_are_read(self):
        deadly = self.laptop.home / "notes/deadly.txt"
        deadly.parent.mkdir()
        deadly.write_text("never read")
        config = self.laptop.home / ".config/opensession/config.toml"
        config.parent.mkdir(parents=True)
        config.write_text('[[custom_parsers]]\nname = "deadly"\nglob = "' + str(deadly.parent) + '/*.txt"\n'
                          """command = ["sh", "-c", "kill -9 $PPID", "{path}"]\n""")
        self.addCleanup(daemon.TOOLS.pop, "deadly", None)
        daemon.add_custom_parsers(daemon.find_paths({}, self.laptop.home))
        one = self.collected()
        self.assertEqual(len(self.sessions(one)), 16)
        self.assertFalse(self.complete)
        [problem] = one.cache.first("SELECT problem FROM sources WHERE path = ?", [str(deadly)])
        self.assertIn("ended with -9", problem)

    def test_where_no_process_can_be_started_the_daemon_reads_alone(self):
        with mock.patch.object(sys, "executable", "/nowhere/python"):
            self.assertEqual(len(self.sessions(self.collected())), 16)

    def test_workers_end_with_their_daemon(self):
        worker = subprocess.Popen([sys.executable, DAEMON, "--work"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        pickle.dump((tuple(daemon.Privacy()), str(self.laptop.home), False), worker.stdin)
        worker.stdin.flush()
        self.assertEqual(pickle.load(worker.stdout), "ready")
        worker.stdin.close()
        self.assertEqual(worker.wait(PATIENCE), 0)
        worker.stdout.close()


class Compiled(unittest.TestCase):
    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix="cache-"))
        self.addCleanup(shutil.rmtree, self.folder)

    def test_the_program_runs_compiled_and_is_compiled_once(self):
        path = daemon.compiled(self.folder)
        made = os.stat(path).st_mtime_ns
        said = subprocess.run([sys.executable, path, "--help"], capture_output=True, text=True)
        self.assertIn("collect and send for ever", said.stdout)
        self.assertEqual(daemon.compiled(self.folder), path)
        self.assertEqual(os.stat(path).st_mtime_ns, made)

    def test_a_file_that_was_cut_short_is_not_run(self):
        path = Path(daemon.compiled(self.folder))
        path.write_bytes(path.read_bytes()[:5000])
        self.assertIsNone(daemon.compiled(self.folder))
        self.assertGreater(os.path.getsize(daemon.compiled(self.folder)), 5000)

    @unittest.skipIf(os.name != "posix", "there are no such permissions")
    def test_nothing_is_run_from_a_folder_or_a_file_that_others_may_write(self):
        path = Path(daemon.compiled(self.folder))
        path.chmod(0o666)
        self.assertIsNone(daemon.compiled(self.folder))
        path.chmod(0o600)
        self.folder.chmod(0o777)
        self.assertIsNone(daemon.compiled(self.folder))

    def test_an_older_version_goes(self):
        old = self.folder / "daemon-0123.pyc"
        old.write_bytes(b"")
        daemon.compiled(self.folder)
        self.assertFalse(old.exists())
