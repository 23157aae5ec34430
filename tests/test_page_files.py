"""The page's own files: translated texts, vendored libraries, and what is asked for ahead."""

import hashlib
import json
import re
import unittest
from pathlib import Path

STATIC = Path(__file__).resolve().parent.parent / "static"
MODULES = {path.name: path.read_text() for path in STATIC.glob("*.js")}
TEXT = re.compile(r'^    "([\w.-]+)": \[\s*("(?:[^"\\]|\\.)*"),\s*("(?:[^"\\]|\\.)*")\]', re.M)
NAMES = {"opensession", "osk_"}         # words that stay as they are in every language
SAME_IN_BOTH = re.compile(r"^[\W\d_]*(\{\w+\}[\W\d_]*)*$")


def templates(text):
    """The html`...` templates of a module, with what is between ${ and } taken out; those inside it too."""
    for match in re.finditer(r"html`", text):
        found, at, depth = [], match.end(), 0
        while depth or text[at] != "`":
            if text.startswith("${", at):
                depth, at = depth + 1, at + 2
            elif depth and text[at] in "{}":
                depth, at = depth + (1 if text[at] == "{" else -1), at + 1
            elif depth and text.startswith("`", at):
                at = text.index("`", at + 1) + 1 if "${" not in text[at + 1:text.index("`", at + 1)] else skip_template(text, at + 1)
            else:
                if not depth:
                    found.append(text[at])
                at += 1
        yield "".join(found)


def skip_template(text, at):
    """The place behind a template literal whose inside begins at `at`."""
    depth = 0
    while depth or text[at] != "`":
        if text.startswith("${", at):
            depth, at = depth + 1, at + 2
        elif depth and text[at] in "{}":
            depth, at = depth + (1 if text[at] == "{" else -1), at + 1
        elif depth and text[at] == "`":
            at = skip_template(text, at + 1)
        else:
            at += 1
    return at + 1


class Texts(unittest.TestCase):
    def setUp(self):
        self.texts = {key: (json.loads(english), json.loads(korean)) for key, english, korean in TEXT.findall(MODULES["texts.js"])}

    def test_each_is_there_in_english_and_korean(self):
        self.assertEqual(len(self.texts), len(re.findall(r'^    "', MODULES["texts.js"], re.M)))
        for key, (english, korean) in self.texts.items():
            self.assertTrue(english.strip() and korean.strip(), key)
            self.assertNotRegex(english, "[가-힣]", key)
            if not SAME_IN_BOTH.match(korean):
                self.assertRegex(korean, "[가-힣]", f"{key} is not translated")

    def test_both_languages_name_the_same_values(self):
        for key, (english, korean) in self.texts.items():
            self.assertEqual(set(re.findall(r"\{(\w+)\}", english)), set(re.findall(r"\{(\w+)\}", korean)), key)

    def test_each_that_is_asked_for_exists(self):
        for name, text in MODULES.items():
            for key in re.findall(r'\bt\("([\w.-]+)"', text):
                self.assertIn(key, self.texts, name)

    def test_each_is_asked_for(self):
        everything = "\n".join(text for name, text in MODULES.items() if name != "texts.js")
        begun = set(re.findall(r"`([a-z]+\.)\$\{", everything))
        for key in self.texts:
            if not any(key.startswith(start) for start in begun):
                self.assertIn(f'"{key}"', everything)

    def test_no_words_stand_in_the_markup_itself(self):
        for name, text in MODULES.items():
            for template in templates(text):
                words = re.findall(r"[^\W\d_]{2,}", re.sub(r'[\w-]+="[^"]*"|<[^>]*>|&\w+;|<[^>]*$|^[^<]*>|^[a-z-]+$|data-[a-z]+', " ", template.strip()))
                self.assertLessEqual(set(words) - NAMES, set(), f"{name}: {template.strip()[:200]}")

    def test_no_words_stand_in_labels(self):
        for name, text in MODULES.items():
            labels = re.findall(r'\b(?:aria-label|title|placeholder|alt)="([^"$]*[^\W\d_]{2,}[^"]*)"', text)
            self.assertEqual([label for label in labels if label.rstrip("…") not in NAMES], [], name)


class Vendored(unittest.TestCase):
    def test_each_file_is_the_published_one(self):
        listed = json.loads((STATIC / "vendor" / "vendor.json").read_text())
        for entry in listed:
            data = (STATIC / "vendor" / entry["file"]).read_bytes()
            self.assertEqual(hashlib.sha256(data).hexdigest(), entry["sha256"], entry["file"])
            self.assertTrue((STATIC / "vendor" / entry["licence_file"]).is_file())
        found = {str(path.relative_to(STATIC / "vendor")) for path in (STATIC / "vendor").rglob("*.js")}
        self.assertEqual({entry["file"] for entry in listed}, found)

    def test_every_language_that_is_named_has_its_grammar(self):
        named = re.findall(r'(\w+): "[\w+ -]+"', MODULES["languages.js"])
        self.assertEqual(len(named), 26)
        there = {path.name.split(".")[0] for path in (STATIC / "vendor" / "highlight").glob("*.js")} - {"core"}
        self.assertEqual(set(named), there)


class WhatIsAskedForAhead(unittest.TestCase):
    def test_it_is_what_the_page_of_a_session_imports(self):
        needed, waiting = set(), ["session.js"]
        while waiting:
            name = waiting.pop()
            if name in needed:
                continue
            needed.add(name)
            waiting += [other for other in re.findall(r'^import (?:.* from )?"\./([\w./-]+)"', MODULES.get(name, ""), re.M)]
        listed = " ".join(re.findall(r'"([a-z0-9/. ]+)"', MODULES["ahead.js"].split("const modules")[1].split(";")[0])).split()
        everywhere = re.findall(r'modulepreload" href="/([\w/.]+)"', (STATIC / "index.html").read_text())
        self.assertEqual({name.removesuffix(".js") for name in needed.difference(everywhere)}, set(listed))


if __name__ == "__main__":
    unittest.main()
