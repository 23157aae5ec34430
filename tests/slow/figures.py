"""Figures: what this project claims of itself, each reached by one command.

    make crash              one figure in its long form, for people; it prints what it reached
    make crash N=20         the same, smaller or larger
    make figures            all of them, two at a time, and one table

`make slow` runs the short form of each.  To add one: a line in FIGURES, a test that asks
size() how much to do and tells reached() how far it came, and its name in the Makefile.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent


class Figure(NamedTuple):
    claim: str
    test: str       # file, and what to run in it; or a program that prints its figures
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
    "authz": Figure("every route for every role as the table says", "program -m pytest -q -p no:cacheprovider ../test_access.py", 1, 1),
    "headers": Figure("requests of other sites, and headers of every answer",
                      "program -m pytest -q -p no:cacheprovider ../test_web.py::Answers ../test_accounts.py::OtherSites", 1, 1),
    "backup-test": Figure("backups under load, each restored, checked and compared", "test_backup_load.py", 3, 20),
    "migrate-test": Figure("databases of every old schema grow with all they hold, killed at any moment", "test_crash_migration.py", 5, 20),
    "xss": Figure("hostile texts in every field, in Chromium", "program ../browser/test_hostile.py", 1, 1),
    "secrets": Figure("how well secrets are found, and how fast", "program ../bench/leaks.py ../fixtures/samples", 1, 1),
}
# They measure how long others wait: nothing runs beside them.
ALONE = ("slowclients", "bombs", "concurrent", "secrets")


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
    """(results that a figure's test told, whether it passed)."""
    told, test = Path(folder) / name, FIGURES[name].test
    if test.startswith("program "):
        done = subprocess.run([sys.executable, *test.split()[1:]], cwd=HERE, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        return [" ".join(line.split()) for line in done.stdout.splitlines() if re.search("[a-z]{3}", line)], done.returncode == 0
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", HERE / test],
                          env={**os.environ, "N": str(n), "FIGURES": str(told)}, stdin=subprocess.DEVNULL)
    lines = told.read_text("utf-8").splitlines() if told.exists() else []
    return [line.partition(": ")[2] for line in lines], done.returncode == 0


def row_of(name, n, folder):
    """A figure's row of the table, which is printed as soon as it is known; its first cell says FAILED where it did."""
    started = time.monotonic()
    results, passed = measured(name, n, folder)
    seconds = time.monotonic() - started
    row = ("" if passed else "FAILED ") + f"make {name} N={n}", FIGURES[name].claim, "; ".join(results), f"{seconds:.0f} s"
    print(table([row]).partition("\n")[0], file=sys.stderr, flush=True)
    return row


def main(names):
    single = len(names) == 1 and os.environ.get("N")
    names = names or list(FIGURES)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        def measure(name):
            return row_of(name, int(single or FIGURES[name].long), folder)
        beside = [name for name in names if name not in ALONE]
        rows = dict(zip(beside, pool.map(measure, beside)))
        rows |= {name: measure(name) for name in names if name in ALONE}
    print(table([("command", "claim", "reached", "time"), *(rows[name] for name in names)]))
    return any(row[0].startswith("FAILED") for row in rows.values())


def table(rows):
    """Rows of texts as a Markdown table."""
    head, *body = [f"| {' | '.join(re.sub(r'[|]', '/', cell) for cell in row)} |" for row in rows]
    return "\n".join([head, "|" + " --- |" * len(rows[0]), *body])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
