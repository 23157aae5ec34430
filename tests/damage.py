"""What the tests of the parsers share: reading sessions, what their events say, and damage to transcripts."""

import json
import time

from hypothesis import given, settings, strategies

import daemon

ODD = (None, [], {}, "x", 7, -1.5, 2**70, [{"type": "text", "text": 3}], {"type": []}, True)


def read_sessions(tool, source):
    """[(session, its events)] of one source, checked for what holds of every session."""
    found = []
    for session in daemon.TOOLS[tool].parse(source):
        events = list(session.events)
        ids = [event["event_id"] for event in events]
        assert len(ids) == len(set(ids)), "event ids repeat"
        for event in events:
            daemon.hail_line(event)
        usage = session.attributes["usage"]
        assert usage_on(events) == (usage["input"], usage["output"]), "events and account differ"
        found.append((session, events))
    return found


def kinds(events):
    return [daemon.event_kind(event)[0] for event in events]


def texts(events, kind=None):
    """The texts of the events of a kind; of all that have any."""
    if kind is None:
        return [text for text in map(daemon.event_texts, events) if text]
    return [daemon.event_texts(event) for event in events if daemon.event_kind(event)[0] == kind]


def data_of(events, kind):
    return [daemon.event_kind(event)[1] for event in events if daemon.event_kind(event)[0] == kind]


def usage_on(events):
    """Sums of what the events carry."""
    return tuple(sum(event.get("attributes", {}).get(name, 0) for event in events)
                 for name in ("input_tokens", "output_tokens"))


def survives_damage(test, lines, intact, read):
    """Whatever happens to the lines behind the first `intact`, read(bytes) raises nothing and still gives
    the sessions' first two texts, which are said in those."""
    before = texts(read(b"".join(lines))[0][1])[:2]

    @settings(max_examples=80, deadline=None)
    @given(strategies.data())
    def survive(draw):
        content = b"".join(lines[:intact] + damaged(draw, lines[intact:]))
        test.assertEqual(texts(timed(read, content)[0][1])[:2], before)
    survive()


def survives_swaps(records, read):
    """No value of another type in any place of any record makes read(bytes) raise."""
    for variant in swapped(records):
        timed(read, b"".join(json.dumps(record).encode() + b"\n" for record in variant))


def timed(read, content):
    started = time.thread_time()
    found = read(content)
    assert time.thread_time() - started < 2, "reading takes too long"
    return found


def damaged(draw, lines):
    """The lines of a file (bytes) with one damage: cut off, dropped, doubled or a bit flipped."""
    lines = list(lines)
    place = draw.draw(strategies.integers(0, len(lines) - 1))
    damage = draw.draw(strategies.sampled_from(("cut", "drop", "double", "flip")))
    if damage == "cut":
        return lines[:place] + [lines[place][:draw.draw(strategies.integers(0, 300))]]
    if damage == "flip":
        lines[place] = flipped(draw, lines[place])
    else:
        lines[place:place + 1] = {"drop": [], "double": [lines[place]] * 2}[damage]
    return lines


def flipped(draw, content):
    """The bytes with one bit changed."""
    content = bytearray(content)
    content[draw.draw(strategies.integers(0, len(content) - 1))] ^= 1 << draw.draw(strategies.integers(0, 7))
    return bytes(content)


def other_types(value, odd):
    """The value with each of its parts, one after another, swapped for something odd."""
    for key in value if isinstance(value, dict) else range(len(value)):
        for part in [odd, *(other_types(value[key], odd) if isinstance(value[key], (dict, list)) else ())]:
            changed = value.copy()
            changed[key] = part
            yield changed


def swapped(records):
    """For each odd value and each record: all records, with every such swap of that one in its place."""
    for odd in ODD:
        for place, record in enumerate(records):
            yield [*records[:place], *other_types(record, odd), *records[place + 1:]]
