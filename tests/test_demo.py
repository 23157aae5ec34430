"""`make demo`: sample sessions on a throw-away server."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import unittest
import urllib.request
from pathlib import Path

import demo
from client import PATIENCE


def get(address, path, key):
    request = urllib.request.Request(address + path, headers={"Authorization": f"Bearer {key}"})
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return json.load(answer)


class TheDemo(unittest.TestCase):
    def test_it_shows_the_samples_signs_in_by_a_link_and_leaves_nothing_behind(self):
        with tempfile.TemporaryDirectory() as folder:
            # What runs in the background of a shell ignores Ctrl-C, and so would what it starts.
            process = subprocess.Popen([sys.executable, demo.__file__], env={**os.environ, "TMPDIR": folder}, text=True,
                                       preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
                                       stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            self.addCleanup(process.kill)
            link = next(filter(None, (re.search(r"(http://\S+)/#key=(\S+)", line) for line in process.stdout)))
            listed = get(link[1], "/api/sessions", link[2])["sessions"]
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=PATIENCE)
            self.assertEqual(list(Path(folder).iterdir()), [])
        self.assertEqual([(session["tool"], session["child_count"]) for session in listed],
                         [("claude-code", 0), ("claude-code", 0), ("codex", 1)])
        self.assertTrue(all(session["has_errors"] and session["lines_added"] for session in listed))

    def test_a_folder_that_is_not_there_is_named(self):
        with self.assertRaisesRegex(SystemExit, "There is no /nowhere"):
            demo.main("/nowhere")


if __name__ == "__main__":
    unittest.main()
