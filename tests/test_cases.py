"""Every numbered case of the format notes (C: Claude Code, Codex, Cursor; O: the other tools) has a test that names it."""

import ast
import re
import tokenize
import unittest
from pathlib import Path

CASES = {f"C{number}" for number in range(1, 128)} | {f"O{number}" for number in range(1, 79)}
# Cases without a test of their own here, and why.
LEFT_OUT = {
    "O11": "A changed source is always read whole, so that none of its messages can be left behind.",
}


def cases_in(path):
    """The numbers in the docstrings and comments of a file."""
    with open(path, "rb") as file:
        said = [token.string for token in tokenize.tokenize(file.readline) if token.type == tokenize.COMMENT]
    nodes = ast.walk(ast.parse(path.read_text("utf-8")))
    said += [ast.get_docstring(node) or "" for node in nodes if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
    return set(re.findall(r"\b[CO]\d{1,3}\b", " ".join(said)))


class Cases(unittest.TestCase):
    def test_every_case_has_a_test_or_a_reason(self):
        files = [path for path in Path(__file__).parent.rglob("test_*.py") if path.name != "test_cases.py"]
        named = set().union(*map(cases_in, files))
        self.assertEqual(sorted(CASES - named - LEFT_OUT.keys()), [])
        self.assertEqual(sorted(named - CASES), [])
        self.assertEqual(sorted(named & LEFT_OUT.keys()), [])


if __name__ == "__main__":
    unittest.main()
