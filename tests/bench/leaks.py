"""How well secrets are found, how rarely something else, and how fast: `make secrets`, `make secrets CORPUS=dir`."""

import json
import re
import sys
from collections import Counter
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[1])]

import daemon
from bench import redaction_speed
from secret_cases import own_cases, probes, repeated, scores, seconds_per_megabyte, specified_cases

GOALS = {"prefix": ">= 99 %", "generic": ">= 88 %", "none": ">= 98 % left alone"}


def main(corpus):
    for name, cases in (("written from", own_cases("secrets-written-from")), ("held out", own_cases("secrets-held-out")),
                        ("held out later", own_cases("secrets-held-out-2")), ("specification", specified_cases())):
        for group, score in scores(cases).items():
            print(f"{name:<14} {group:<8} {score.right:>3} of {score.tried:<3} {score.share:7.1%}   {GOALS[group]}")
    files = [path for path in sorted(Path(corpus).rglob("*")) if path.is_file()]
    found, size = Counter(), 0
    for path in files:
        size += path.stat().st_size / 1e6
        found += hits(path)
    print(f"false alarms   {sum(found.values())} hits in {size:.1f} MB: {sum(found.values()) / size:.2f} per MB (< 0.3)  {dict(found)}")
    ratio, speed = redaction_speed(events_of(files))
    print(f"speed          {speed:.0f} MB/s, 1/{ratio:.1f} of json.loads (>= 1/7)")
    slowest, probe = max((min(seconds_per_megabyte(repeated(probe)) for _ in range(2)), probe) for probe in probes())
    print(f"slowest probe  {slowest:.2f} s/MB (< 0.3), of {len(probes())}: {probe!r}")


def hits(path):
    """What is found in the strings of a file, by rule; each is printed, masked, to be looked at."""
    redactor, counts = daemon.Redactor(daemon.Privacy(strip_paths=False)), Counter()
    for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), 1):
        try:
            before = json.loads(line)
        except (ValueError, RecursionError):
            before = line
        after = redactor.clean_header({"context": {"attributes": before}})["context"]["attributes"]     # as hints find it
        for one in daemon.findings(before, after, number):
            counts[one.rule] += 1
            print(f"  {path.name}:{number} {one.rule} {re.sub(chr(27), '', one.preview)}")
    return counts


def events_of(files, limit=40_000):
    """Events of the transcripts among some files."""
    events = []
    for path in files:
        tool = daemon.recognise(path)
        for session in tool.parse(daemon.Source(path.name, (path,))) if tool and len(events) < limit else ():
            events += session.events
    return events


if __name__ == "__main__":
    main(sys.argv[1])
