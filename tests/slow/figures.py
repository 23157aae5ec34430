"""Figures: what this project claims of itself, each reached by one command.

    make crash              one figure in its long form, for people; it prints what it reached
    make crash N=20         the same, smaller or larger
    make figures            all of them, one after another, and one table

`make slow` runs the short form of each.  To add one: a line in FIGURES, a test that asks
size() how much to do and tells reached() how far it came, and its name in the Makefile.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent


class Figure(NamedTuple):
    claim: str
    test: str       # file, and what to run in it
    short: int      # N in `make slow`
    long: int       # N for people


FIGURES = {
    "fuzz": Figure("bad requests: no 5xx, no traceback, no poison", "test_bad_traffic.py::Fuzz", 400, 5000),
    "fuzz-search": Figure("random queries without an error", "test_bad_traffic.py::FuzzSearch", 1500, 20_000),
    "crash": Figure("kill -9 of the server under 4 writers loses nothing", "test_crash_server.py::Crashes", 12, 200),
    "sigterm": Figure("SIGTERM under load loses nothing and ends soon", "test_crash_server.py::Stops", 4, 50),
    "faults": Figure("a fault at every n-th disk operation", "test_faults.py::Faults", 2, 5),
    "syscalls": Figure("a fault at every n-th system call below SQLite", "test_faults.py::SystemCalls", 1, 4),
    "durability": Figure("the order of system calls before an answer", "test_durability.py", 1, 1),
    "diskfull": Figure("a full disk: only 201 and 507, and 201 again", "test_full_disk.py", 1, 5),
    "slowclients": Figure("idle, half-open and stalled connections", "test_crowds.py::SlowClients", 600, 2000),
    "bombs": Figure("bodies that are made to harm", "test_crowds.py::Bombs", 100, 1024),
    "concurrent": Figure("16 writers and 4 readers at once", "test_crowds.py::Concurrent", 15, 100),
    "firstadmin": Figure("50 first registrations at once: one admin", "test_crowds.py::FirstAdmin", 3, 20),
    "clock": Figure("the server's clock set back: pulling misses nothing", "test_one_server.py", 1, 1),
    "daemon-crash": Figure("kill -9 of the daemon: nothing lost, nothing twice", "test_crash_daemon.py", 15, 200),
    "troubles": Figure("the daemon's bad files and bad answers", "test_troubles.py", 3, 1),
    "backlog": Figure("a first start with so many sessions", "test_backlog.py", 1000, 10_000),
}


def size(name):
    """How much a figure's test has to do: N of the environment, else its short form."""
    return int(os.environ.get("N") or FIGURES[name].short)


def reached(name, result):
    """Say what a figure came to; `make figures` puts it into the table."""
    print(f"\n{name}: {result}", file=sys.stderr, flush=True)
    if os.environ.get("FIGURES"):
        with open(os.environ["FIGURES"], "a", encoding="utf-8") as file:
            file.write(f"{name}: {result}\n")


def measured(name, n, folder):
    """(results that a figure's test told, whether it passed, seconds)."""
    told, started = Path(folder) / name, time.monotonic()
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", HERE / FIGURES[name].test],
                          env={**os.environ, "N": str(n), "FIGURES": str(told)}, stdin=subprocess.DEVNULL)
    lines = told.read_text("utf-8").splitlines() if told.exists() else []
    return [line.partition(": ")[2] for line in lines], done.returncode == 0, time.monotonic() - started


def main(names):
    rows, failed = [], False
    with tempfile.TemporaryDirectory() as folder:
        for name in names or FIGURES:
            n = int(len(names) == 1 and os.environ.get("N") or FIGURES[name].long)
            results, passed, seconds = measured(name, n, folder)
            failed |= not passed
            rows.append((f"make {name} N={n}", FIGURES[name].claim, "; ".join(results) if passed else "FAILED", f"{seconds:.0f} s"))
    print(table([("command", "claim", "reached", "time"), *rows]))
    return failed


def table(rows):
    """Rows of texts as a Markdown table."""
    head, *body = [f"| {' | '.join(re.sub(r'[|]', '/', cell) for cell in row)} |" for row in rows]
    return "\n".join([head, "|" + " --- |" * len(rows[0]), *body])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
