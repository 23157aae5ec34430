"""Small home folders in tests/fixtures/homes, one for each tool and generation of its format, and the HAIL that they give.

    python tests/homes.py       writes tests/golden/TOOL-GENERATION.hail.jsonl anew; then look at the difference

A file NAME.sql stands for the SQLite database NAME.
"""

import json
import os
import shutil
import sqlite3
import sys
import tempfile
import time
from contextlib import closing, contextmanager
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))
import daemon  # noqa: E402

HOMES = Path(__file__).parent / "fixtures" / "homes"
GOLDEN = Path(__file__).parent / "golden"
WRITTEN_AT = 1772359200                 # of every file, Unix seconds


def all_homes():
    """[(tool's name, generation)]"""
    return [folder.relative_to(HOMES).parts for folder in sorted(HOMES.glob("*/*"))]


@contextmanager
def furnished(tool, generation):
    """A copy of a home, with its databases, in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder).resolve() / "home"
        shutil.copytree(HOMES / tool / generation, home)
        for script in home.rglob("*.sql"):
            with closing(sqlite3.connect(script.with_suffix(""))) as database:
                database.executescript(script.read_text("utf-8"))
            script.unlink()
        for path in home.rglob("*"):
            os.utime(path, (WRITTEN_AT, WRITTEN_AT))
        yield home


def sources_of(tool, home):
    """The sources of a tool in a home: where it looks by itself, or, as for exports, anywhere."""
    return [source for root in tool.roots({}, home) or [home] for source in tool.sources(Path(root))]


def hail_of(name, generation):
    """The HAIL of all sessions of a home, as text; without the number of the parsers' version, which says nothing new."""
    tool, lines = daemon.TOOLS[name], []
    with in_utc(), furnished(name, generation) as home:
        for source in sources_of(tool, home):
            for header, events in daemon.drafts_of(tool, source, source.path, home):
                del header["context"]["attributes"]["parser_version"]
                stats = daemon.empty_stats()
                lines.append(daemon.hail_line(header))
                for line in events:
                    daemon.add_to_stats(stats, json.loads(line))
                    lines.append(line)
                lines.append(daemon.hail_line(daemon.stats_line(stats)))
    return b"".join(lines).decode()


@contextmanager
def in_utc():
    """Local times, which Aider writes, are UTC."""
    before, os.environ["TZ"] = os.environ.get("TZ"), "UTC"
    time.tzset()
    try:
        yield
    finally:
        del os.environ["TZ"]
        if before is not None:
            os.environ["TZ"] = before
        time.tzset()


def golden_path(name, generation):
    return GOLDEN / f"{name}-{generation}.hail.jsonl"


if __name__ == "__main__":
    shutil.rmtree(GOLDEN, ignore_errors=True)
    GOLDEN.mkdir()
    for home in all_homes():
        golden_path(*home).write_text(hail_of(*home), "utf-8")
