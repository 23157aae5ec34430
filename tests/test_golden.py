"""The small homes of every tool and generation give the HAIL that is written down; `make golden` writes it anew."""

import unittest

import daemon
from homes import GOLDEN, all_homes, golden_path, hail_of


class Golden(unittest.TestCase):
    maxDiff = None

    def test_every_home_gives_what_is_written_down(self):
        for home in all_homes():
            with self.subTest(home=home):
                self.assertEqual(hail_of(*home), golden_path(*home).read_text("utf-8"))

    def test_every_home_holds_a_session(self):
        for home in all_homes():
            with self.subTest(home=home):
                self.assertIn('"type":"event"', golden_path(*home).read_text("utf-8"))

    def test_nothing_is_written_down_that_no_home_gives(self):
        self.assertEqual({path.name for path in GOLDEN.iterdir()}, {golden_path(*home).name for home in all_homes()})

    def test_every_tool_has_a_home(self):
        self.assertEqual({tool for tool, _ in all_homes()}, set(daemon.TOOLS))


if __name__ == "__main__":
    unittest.main()
