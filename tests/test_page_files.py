"""The page's own files: translated texts, vendored libraries, and what is asked for ahead."""

import hashlib
import json
import re
import unittest
from pathlib import Path

import opensession

STATIC = Path(__file__).resolve().parent.parent / "static"
MODULES = {path.name: path.read_text() for path in STATIC.glob("*.js")}
TEXTS = {path.stem: path.read_text() for path in (STATIC / "texts").glob("*.js")}
TEXT = re.compile(r'^    "([\w.-]+)": ("(?:[^"\\]|\\.)*"),$', re.M)
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
        english, korean = ({key: json.loads(text) for key, text in TEXT.findall(TEXTS[code])} for code in ("en", "ko"))
        self.assertEqual(list(english), list(korean), "the same keys in the same order")
        self.texts = {key: (english[key], korean[key]) for key in english}

    def test_each_is_there_in_english_and_korean(self):
        for module in TEXTS.values():
            self.assertEqual(len(self.texts), len(re.findall(r'^    "', module, re.M)))
        for key, (english, korean) in self.texts.items():
            self.assertTrue(english.strip() and korean.strip(), key)
            self.assertNotRegex(english, "[가-힣]", key)
            if not SAME_IN_BOTH.match(korean):
                self.assertRegex(korean, "[가-힣]", f"{key} is not translated")

    def test_the_languages_that_can_be_chosen_are_those_with_texts(self):
        codes = json.loads(re.search(r"codes = (\[.*\]);", MODULES["looks.js"])[1])
        named = re.findall(r'(\w+): "', re.search(r"LANGUAGES = {(.*)}", MODULES["i18n.js"])[1])
        self.assertEqual((codes, set(codes)), (named, set(TEXTS)))

    def test_both_languages_name_the_same_values(self):
        for key, (english, korean) in self.texts.items():
            self.assertEqual(set(re.findall(r"\{(\w+)\}", english)), set(re.findall(r"\{(\w+)\}", korean)), key)

    def test_each_that_is_asked_for_exists(self):
        for name, text in MODULES.items():
            for key in re.findall(r'\bt\("([\w.-]+)"', text):
                self.assertIn(key, self.texts, name)

    def test_each_is_asked_for(self):
        everything = "\n".join(MODULES.values())
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
    def test_the_page_of_a_session_asks_the_api_for_just_that(self):
        files, requests = opensession.ahead_of("session/abc")
        events, turns = re.search(r"FIRST = { events: (\d+), turns: (\d+) }", MODULES["session.js"]).groups()
        self.assertEqual(set(requests) - {"/api/auth/me"},
                         {"/api/sessions/abc", "/api/sessions/abc/map", f"/api/sessions/abc/outline?limit={turns}",
                          f"/api/sessions/abc/events?from=0&amp;limit={events}"})
        for name in files:
            self.assertTrue((STATIC / name).is_file(), name)

    def test_each_view_in_the_table_is_one_of_the_page(self):
        for path, view in (("", "sessions.js"), ("session/abc", "session.js")):
            self.assertIn(view, opensession.ahead_of(path)[0])
            self.assertIn(f'import("./{view}")', MODULES["app.js"])


class Modules(unittest.TestCase):
    def test_each_import_and_export_is_of_the_form_that_bundles_know(self):
        for name, text in MODULES.items():
            self.assertEqual(len(re.findall(r"^import\b", text, re.M)), len(opensession.IMPORT.findall(text)), name)
            self.assertEqual(len(re.findall(r"^\s*export\b", text, re.M)), len(opensession.EXPORT.findall(text)), name)

    def test_no_name_that_others_import_is_changed_later(self):
        for name, text in MODULES.items():
            for exported in opensession.EXPORT.findall(text):
                self.assertNotRegex(text, rf"(?m)^\s*{exported} (=|[-+*|&?]+=) ", name)

    def test_none_is_too_long_to_be_read_at_once(self):
        self.assertEqual([name for name, text in MODULES.items() if text.count("\n") > 250], [])

    def test_imports_lead_downwards_only(self):
        imports = {name: re.findall(r'^import (?:.* from )?"\./([\w-]+\.js)"', text, re.M) for name, text in MODULES.items()}

        def below(name, above):
            self.assertNotIn(name, above, " > ".join([*above, name]))
            for other in imports[name]:
                below(other, [*above, name])
        for name in imports:
            below(name, [])


if __name__ == "__main__":
    unittest.main()
