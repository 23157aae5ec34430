"""The two READMEs say what the code says, and the same as each other."""

import argparse
import json
import re
import sys
import unittest
from pathlib import Path

import daemon
import opensession
import readme_tools

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tests/slow"))
import figures  # noqa: E402
LANGUAGES = ("README.md", "README.ko.md")


def tables(name):
    """The tables of a README: lists of rows, each a list of cells; heads and rules are left out."""
    found, rows = [], []
    for line in [*(ROOT / name).read_text("utf-8").splitlines(), ""]:
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
        elif rows:
            found.append(rows[2:])
            rows = []
    return found


def table_of(name, first_cell):
    """The one table that has a row beginning with a cell."""
    table, = (rows for rows in tables(name) if any(row[0] == first_cell for row in rows))
    return table


def code(cell):
    """What stands between the first backticks of a cell, "" where there are none."""
    return next(iter(re.findall("`([^`]*)`", cell)), "")


def commands():
    """The names of the daemon's commands."""
    choices = next(action for action in daemon.arguments()._actions if isinstance(action, argparse._SubParsersAction))
    return set(choices.choices)


class TheReadmeIsRight(unittest.TestCase):
    def test_the_api_table_has_every_route_and_no_other(self):
        served = {(route["method"], route["path"]) for route in opensession.list_routes()["routes"]}
        for name in LANGUAGES:
            with self.subTest(name):
                table = next(rows for rows in tables(name) if rows[0][0] == "GET")
                self.assertEqual({(row[0], code(row[1])) for row in table}, served)

    def test_the_server_table_has_every_setting_with_its_default(self):
        known = {setting: default for setting, (default, _) in opensession.SETTINGS.items()}
        for name in LANGUAGES:
            with self.subTest(name):
                table = table_of(name, "`PORT`")
                self.assertEqual({code(row[0]): code(row[1]) for row in table}, known)

    def test_the_daemon_table_has_every_key_with_its_default(self):
        known = {f"{section}.{key}": json.dumps(value)
                 for section, keys in daemon.DEFAULTS.items() for key, value in keys.items()}
        for name in LANGUAGES:
            with self.subTest(name):
                table = table_of(name, "`server.url`")
                self.assertEqual({code(row[0]): code(row[1]) for row in table}, known)

    def test_the_command_table_has_every_command(self):
        for name in LANGUAGES:
            with self.subTest(name):
                table = table_of(name, "`run`")
                self.assertEqual({code(row[0]).split()[0] for row in table}, commands())

    def test_the_operations_table_has_every_command_of_the_server(self):
        for name in LANGUAGES:
            with self.subTest(name):
                self.assertEqual({code(row[0]).split()[0] for row in table_of(name, "`serve`")}, set(opensession.COMMANDS))

    def test_the_tool_table_is_what_the_registry_says(self):
        for name in LANGUAGES:
            with self.subTest(name):
                self.assertEqual(readme_tools.with_table(name), (ROOT / name).read_text("utf-8"))

    def test_the_tool_table_says_the_same_in_both_languages(self):
        english, korean = (re.findall("`[^`]*`", readme_tools.table(name).replace("`import` ", "")) for name in LANGUAGES)
        self.assertEqual(english, korean)

    def test_every_word_of_the_korean_tool_table_is_korean_or_a_name(self):
        names = {word.strip("()") for tool in daemon.TOOLS.values() for word in tool.title.split()} | {"JSON"}
        text = re.sub("`[^`]*`", "", readme_tools.table("README.ko.md"))
        self.assertEqual(set(re.findall(r"(?<![\w.])[A-Za-z][A-Za-z.-]*", text)) - names, set())

    def test_the_page_knows_every_tool(self):
        listed = (ROOT / "static" / "tools.js").read_text("utf-8")
        for tool in daemon.TOOLS.values():
            self.assertRegex(listed, rf'"?{re.escape(tool.name)}"?: \["{re.escape(tool.title)}"')

    def test_files_that_are_named_are_there(self):
        for name in LANGUAGES:
            with self.subTest(name):
                text = (ROOT / name).read_text("utf-8")
                linked = re.findall(r"\]\(([\w./-]+)\)", text)
                named = re.findall(r"`((?:static|tests|deploy|docs|fixtures|slow|browser|vendor)/[\w./-]*)`", text)
                shown = re.findall(r"^    cp (\S+) ", text, re.MULTILINE)
                inside = {"fixtures/": "tests", "slow/": "tests", "browser/": "tests", "vendor/": "static"}
                for path in {*linked, *named, *shown}:
                    folder = next((parent for start, parent in inside.items() if path.startswith(start)), "")
                    self.assertTrue((ROOT / folder / path).exists(), path)

    def test_make_targets_that_are_named_are_there(self):
        makefile = (ROOT / "Makefile").read_text("utf-8")
        rules = set(re.findall(r"^([\w./-]+):", makefile, re.MULTILINE)) | set(figures.FIGURES)
        of_their_own = {name for name in figures.FIGURES if f"\n{name}:" in makefile}
        self.assertEqual(set(re.search(r"^FIGURES := ((?:.*\\\n)*.*)", makefile, re.MULTILINE)[1].split()) - {"\\"},
                         set(figures.FIGURES) - of_their_own)
        for name in LANGUAGES:
            with self.subTest(name):
                named = re.findall(r"(?:^    |`|&& )make ([a-z./-]+)", (ROOT / name).read_text("utf-8"), re.MULTILINE)
                self.assertLessEqual(set(named), rules)


class TheTwoReadmesAgree(unittest.TestCase):
    def test_they_have_the_same_sections_tables_and_rows(self):
        english, korean = LANGUAGES
        self.assertEqual([[code(" ".join(row)) for row in rows] for rows in tables(english)],
                         [[code(" ".join(row)) for row in rows] for rows in tables(korean)])
        heads = [len(re.findall(r"^## ", (ROOT / name).read_text("utf-8"), re.MULTILINE)) for name in LANGUAGES]
        self.assertEqual(*heads)

    def test_they_show_the_same_commands_examples_and_links(self):
        shown = [re.findall(r"^    .*|\]\([\w./-]+\)", (ROOT / name).read_text("utf-8"), re.MULTILINE)
                 for name in LANGUAGES]
        swap = {"](README.ko.md)": "](README.md)"}
        self.assertEqual(*[[swap.get(line, line) for line in lines] for lines in shown])


if __name__ == "__main__":
    unittest.main()
