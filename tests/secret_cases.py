"""Texts with and without secrets, and how well the rules tell them apart.

No text that looks like a real token stands in a file: cases are templates, expanded here.
{A36:1} is 36 characters of the alphabet A that look random and are always the same,
{+} is nothing, {LB} and {RB} are braces, {ESC} begins a colour; \\n and \\t are what they are in C.

secrets-written-from.tsv is for writing rules; secrets-held-out.tsv was set aside before, is for
measuring only, and would be worth nothing once a rule is written from it."""

import hashlib
import os
import re
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from daemon import RULES, Redactor

FIXTURES = Path(__file__).resolve().parent / "fixtures"
CORPUS = Path(os.environ.get("OPENSESSION_CORPUS") or Path(__file__).resolve().parents[2] / "shared" / "corpus")
SPECIFIED = CORPUS.parent / "spec" / "secret-cases.tsv"
DIGITS = "0123456789"
LOWER = "abcdefghijklmnopqrstuvwxyz"
ALPHABETS = {"A": LOWER.upper() + LOWER + DIGITS, "W": LOWER.upper() + LOWER + DIGITS + "_-", "H": DIGITS + "abcdef",
             "U": LOWER.upper() + "234567", "D": DIGITS, "L": LOWER + DIGITS, "C": LOWER.upper() + DIGITS,
             "B": LOWER.upper() + LOWER + DIGITS + "+/", "P": "qpzry9x8gf2tvdw0s3jn54khce6mua7l"}
GENERIC = {"url-password", "auth-header", "bearer", "curl-user", "env-assign", "json-assign", "query-token"}


class Case(NamedTuple):
    group: str                  # prefix, generic, or none: no secret in it
    template: str

    @property
    def text(self):
        return expand(self.template)


class Score(NamedTuple):
    right: int
    tried: int
    wrong: list                 # templates

    @property
    def share(self):
        return self.right / self.tried


def noise(alphabet, length, seed):
    """Characters of an alphabet that look random and are always the same."""
    characters, text, count = ALPHABETS[alphabet], "", 0
    while len(text) < length:
        digest = hashlib.sha256(f"{seed}/{count}".encode()).digest()
        text += "".join(characters[byte % len(characters)] for byte in digest)
        count += 1
    return text[:length]


def expand(template):
    """The text that a template stands for."""
    fixed = {"+": "", "LB": "{", "RB": "}", "ESC": "\x1b", "BS": "\\"}
    escapes = {"\\n": "\n", "\\t": "\t", "\\\\": "\\"}
    text = re.sub(r"\\[nt\\]", lambda match: escapes[match[0]], template)
    text = re.sub(r"\{([A-Z])(\d+):(\d+)\}", lambda match: noise(match[1], int(match[2]), match[3]), text)
    return re.sub(r"\{(\+|LB|RB|ESC|BS)\}", lambda match: fixed[match[1]], text)


def own_cases(name):
    """The cases of one of our files."""
    lines = (FIXTURES / f"{name}.tsv").read_text("utf-8").splitlines()
    return [Case(*line.split("\t")) for line in lines if line and not line.startswith("#")]


def specified_cases():
    """The cases of secret-cases.tsv, which lies beside the corpus; [] where it does not."""
    lines = SPECIFIED.read_text("utf-8").splitlines()[1:] if SPECIFIED.exists() else []
    rows = [line.split("\t", 3) for line in lines]
    return [Case("none" if expected == "none" else "generic" if rule in GENERIC else "prefix", template)
            for rule, _, expected, template in rows]


def scores(cases):
    """{group: Score}: secrets that were masked, and texts without any that were left alone."""
    tried, wrong = Counter(case.group for case in cases), {group: [] for group in ("prefix", "generic", "none")}
    for case in cases:
        if is_masked(case.text) != (case.group != "none"):
            wrong[case.group].append(case.template)
    return {group: Score(tried[group] - len(wrong[group]), tried[group], wrong[group]) for group in tried}


def is_masked(text):
    made = {"type": "event", "event_id": "e1", "timestamp": "2026-02-11T06:00:00.000Z", "event_type": {"type": "UserMessage"},
            "content": {"blocks": [{"type": "Text", "text": text}]}}
    return Redactor().clean_event(made) is not made


# Texts that, repeated, might take a rule quadratic time; and what each rule's own pattern begins with.
PROBES = ["a", "token=tnr", "secret_key=bft", "key=\\t\\t", " ", "-", "_", "key", "token=", 'secret":"', "KEY=",
          "eyJ", ".eyJa", "://", "://a:", "a:b@", "sk-", "ghp_",
          "AKIA", "-----BEGIN " + "PRIVATE KEY-----", "-----BEGIN " + "PRIVATE KEY-----\n" + "A" * 50, "curl -u ",
          " -u a:",
          "authorization: ", "authorization: bearer ", "Bearer ", "?sig=", "&token=", "password: ", "passw",
          "/home/", "C:\\Users\\",
          "/Users/a", "\\", '\\"', "C:\\Users\\a b c ", "<secret>", "1", "0123456789:AA", "x-api-key",
          "secret_access_key ", "AzCa",
          "key: str = ", "=", "pat", "\n", "a.", "SG.", "dp.pt.", "token   ", "1a2B", "/mnt/c/Users/", "-home-",
          "api-key"]
PROBES += ["auth(\"a\",", "cookie: ", "cookie: a=", "login ", "mysql", " -p", "--token", "--a-token ", "ENV ", "KEY ", "is ", "key is ",
           "password for a ", "password {", "default =", ":5432:", "Private-Lines: 1 ", "==", "+ASt", "JQQJ99", "M" * 24, ".", "{", "1/1",
           "token: token: ", "key key ", "비밀번호", "sshpass -p ", "auth_"]
# Secrets without end: each hides the next, or there are as many as there can be.
PROBES += ["LTAIa1B2c3D4", "AKIDa1B2c3D4", "--_", "PASSWORD='", "password=a1B2c3D4e5F6", "PASSWORD=\"a1B2c3D4e5F6",
           "API_KEY='a1B2c3d4e5f6g7' ", "SECRET: a1B2c3D4e5F6g7H8 ", "COOKIE:=", "cookie=a1B2c3D4e5F6;", "token||", "KEY=",
           "/home/ada/", "C:\\Users\\Ada B\\", "https://a:a1B2c3D4e5F6@h ", " -pa1B2c3D4e5", "echo a1B2c3D4e5 | sudo -S "]


def probes():
    """PROBES, and the literal that each rule's pattern begins with."""
    heads = (re.match(r"(?:\(\?i\))?((?:[\w/:-]|\\\.)*)", rule.pattern)[1].replace("\\", "") for rule in RULES)
    return list(dict.fromkeys([*PROBES, *sorted({head for head in heads if len(head) > 1})]))


def repeated(probe, size=100_000):
    """A text of a size, of nothing but a probe."""
    return (probe * (size // len(probe) + 1))[:size]


def seconds_per_megabyte(text):
    """How long redacting a text takes, as a field of an event and with every rule on its own."""
    started = time.process_time()
    Redactor().clean_header({"context": {"title": text}})
    return (time.process_time() - started) / (len(text.encode()) / 1e6)
