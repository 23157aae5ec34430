"""How heavy and how fast the page is, in headless Chromium: `make bench-web`, or `make bench-web ROWS="first jump"`.

Uploads seeded sessions of 300, 10,000 and 200,000 events to a real server (once, kept in .bench/), opens them in
Debian's Chromium and prints one table.  A navigation is measured from the click to the frame that shows the first
events; beside it stands the same for an empty page, which tells a slow machine from a slow page.  To add a row,
write a function under @row that yields Measured.
"""

import argparse
import contextlib
import datetime
import gzip
import itertools
import json
import os
import statistics
import sys
import time
from pathlib import Path


sys.path[:0] = [str(Path(__file__).resolve().parent.parent / "browser"), str(Path(__file__).resolve().parent.parent)]

import data
from bench import Measured, Server
from page import CHROMIUM, DRIVER, WITHOUT_CHROMIUM, chromium

STATIC = data.ROOT / "static"
SIZES = {"short": 300, "long": 10_000, "huge": 200_000}       # events
ROWS = {}

# Runs before the page's own scripts: notes when a row is in the page, and when the frame that shows it is done.
NOTE_FIRST = """
    new MutationObserver((changes, observer) => {
        if (!document.querySelector(".reader article, .sessions a[data-open]")) return;
        observer.disconnect();
        requestAnimationFrame(() => setTimeout(() => { window.firstShown = performance.now(); }));
    }).observe(document, { childList: true, subtree: true });
"""


def row(function):
    """Register a function that takes the Bench and yields Measured."""
    ROWS[function.__name__] = function
    return function


# ---------------------------------------------------------------------------
# Sessions
# ---------------------------------------------------------------------------

def long_sessions():
    """The folder of a data directory (`data`) with a session of each size, and what opens them (`facts.json`)."""
    return data.kept("web", make_sessions)


def make_sessions(folder):
    server = Server(folder / "data")
    try:
        ids = {}
        for number, (name, count) in enumerate(SIZES.items()):
            body = gzip.compress(b"".join(hail_lines(data.Texts(10 + number), name, count)), 1)
            server.connection.request("POST", "/api/sessions", body, {"Content-Type": "application/jsonl", "Content-Encoding": "gzip",
                                                                      "Authorization": f"Bearer {server.key}"})
            ids[name] = json.loads(server.connection.getresponse().read())["id"]
        server.wait_for_index()
    finally:
        server.stop()
    (folder / "facts.json").write_text(json.dumps({"key": server.key, "ids": ids}))


def hail_lines(texts, title, count):
    """A session of so many events as lines of a HAIL file."""
    at = moment(0)
    yield line_of({"type": "header", "version": "hail-1.0.0", "session_id": texts.id(),
                   "agent": {"provider": "anthropic", "model": "claude-opus-4-6", "tool": "claude-code", "tool_version": "2.1"},
                   "context": {"title": f"A {title} session", "tags": [], "created_at": at, "updated_at": at}})
    turns = itertools.chain.from_iterable(turn(texts) for _ in itertools.count())
    for number, (kind, more, blocks) in enumerate(itertools.islice(turns, count)):
        yield line_of({"type": "event", "event_id": f"e{number}", "timestamp": moment(number),
                       "event_type": {"type": kind, **({"data": more} if more else {})}, "content": {"blocks": blocks}, "attributes": {}})


def moment(number):
    return (data.LAST + datetime.timedelta(seconds=5 * number)).isoformat()


def line_of(value):
    return data.compact(value).encode() + b"\n"


def turn(texts):
    """The events of one prompt: (kind, data, blocks)."""
    yield "UserMessage", None, [text(texts.prose())]
    for _ in range(min(60, 2 + int(texts.random.expovariate(1 / 8)))):
        if texts.random.random() < 0.3:
            yield "Thinking", None, [text(texts.prose())]
        if texts.random.random() < 0.3:
            yield "AgentMessage", None, [text(markdown(texts))]
        yield from call(texts)
    yield "AgentMessage", None, [text(markdown(texts)), text(texts.prose(2))]


def call(texts):
    """A call and its result, of the three commonest kinds."""
    path, chance, failed = texts.pick(texts.paths), texts.random.random(), texts.random.random() < 0.05
    output = texts.listing(texts.size(500, 1.1, 12_000))
    if chance < 0.4:
        yield "ShellCommand", {"command": f"python -m pytest -q {path}", "exit_code": int(failed)}, []
        yield "ToolResult", {"name": "Bash", "is_error": failed}, [text(output)]
    elif chance < 0.7:
        yield "FileRead", {"path": path}, []
        yield "ToolResult", {"name": "Read", "is_error": failed}, [{"type": "Code", "code": output, "language": "python", "start_line": 1}]
    else:
        old, new = texts.listing(300).split("\n"), texts.listing(500).split("\n")
        yield "FileEdit", {"path": path, "diff": "\n".join([f"-{line}" for line in old] + [f"+{line}" for line in new])}, []
        yield "ToolResult", {"name": "Edit", "is_error": failed}, [text(f"The file {path} has been updated.")]


def markdown(texts):
    """A reply as tools write them: prose, a list, now and then code or a table."""
    parts = [texts.prose(), "\n".join(f"- **{texts.pick(texts.names)}**: `{texts.pick(texts.paths)}`" for _ in range(3))]
    if texts.random.random() < 0.3:
        parts.append(f"```python\n{texts.listing(400)}\n```")
    if texts.random.random() < 0.1:
        rows = [f"| {texts.pick(texts.names)} | {texts.pick(texts.paths)} |" for _ in range(4)]
        parts.append("\n".join(["| name | place |", "| --- | --- |", *rows]))
    return "\n\n".join(parts)


def text(words):
    return {"type": "Text", "text": words}


# ---------------------------------------------------------------------------
# The browser
# ---------------------------------------------------------------------------

class Bench:
    """A server on the sessions and a browser that is signed in."""

    def __init__(self, stack):
        folder = long_sessions()
        facts = json.loads((folder / "facts.json").read_text())
        self.ids = facts["ids"]
        self.server = Server(folder / "data", facts["key"])
        stack.callback(self.server.stop)
        self.address = f"http://localhost:{self.server.port}"
        self.driver = stack.enter_context(chromium("--enable-precise-memory-info"))
        self.driver.set_script_timeout(600)
        self.cdp("Page.addScriptToEvaluateOnNewDocument", source=NOTE_FIRST)
        self.cdp("Performance.enable", timeDomain="threadTicks")
        self.driver.get(self.address + "/login")
        self.js("return fetch('/api/auth/login', {method: 'POST', headers: {'Content-Type': 'application/json'},"
                f" body: JSON.stringify({{api_key: '{facts['key']}'}})}}).then(answer => answer.status)")

    def cdp(self, command, **values):
        return self.driver.execute_cdp_cmd(command, values)

    def js(self, script, *values):
        return self.driver.execute_script(script, *values)

    def cpu(self):
        """Milliseconds of CPU that the page's main thread has used: the same however busy the machine is."""
        return {each["name"]: each["value"] for each in self.cdp("Performance.getMetrics")["metrics"]}["TaskDuration"] * 1000

    def session(self, name):
        return f"/session/{self.ids[name]}"

    def shown_after(self, path, cold):
        """Milliseconds from the start of a navigation to the frame with its first rows."""
        self.driver.get("about:blank")
        if cold:
            self.cdp("Network.clearBrowserCache")
        self.driver.get(self.address + path)
        return self.until("return window.firstShown")

    def until(self, script, seconds=60):
        """The first true value of a script."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if value := self.js(script):
                return value
            time.sleep(0.02)
        raise RuntimeError(f"{script} stays false on {self.driver.current_url}")

    def over_the_wire(self, path):
        """[(path, bytes)] of what a first view of an address takes."""
        self.driver.get("about:blank")
        self.cdp("Network.clearBrowserCache")
        self.driver.get_log("performance")
        self.driver.get(self.address + path)
        self.until("return window.firstShown")
        time.sleep(1)               # what comes behind the first rows counts as well
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        names = {message["params"]["requestId"]: message["params"]["request"]["url"].removeprefix(self.address)
                 for message in messages if message["method"] == "Network.requestWillBeSent"}
        return [(names[message["params"]["requestId"]], message["params"]["encodedDataLength"])
                for message in messages if message["method"] == "Network.loadingFinished" and message["params"]["requestId"] in names]

    def empty_page(self):
        """Milliseconds that this browser takes to show a page of one word from the same server."""
        found = []
        for _ in range(7):
            self.driver.get("about:blank")
            self.driver.get(self.address + "/vendor/VENDOR.md")
            found.append(self.until("return performance.getEntriesByType('paint').at(-1)?.startTime"))
        return statistics.median(found)


# ---------------------------------------------------------------------------
# Rows
# ---------------------------------------------------------------------------

def kilobytes(sizes):
    return sum(sizes) / 1000


@row
def weight(bench):
    """What goes over the wire."""
    on_list, on_session = bench.over_the_wire("/"), bench.over_the_wire(bench.session("short"))
    yield Measured("first view of the list", f"{kilobytes(size for _, size in on_list):.1f} KB in {len(on_list)} requests", "<= 60 KB")
    libraries = [name for name, _ in on_list if "/vendor/" in name]
    yield Measured("… libraries among it", " ".join(libraries) or "none", "none")
    yield Measured("first view of a session", f"{kilobytes(size for _, size in on_session):.1f} KB in {len(on_session)} requests", "")
    files = {path: len(gzip.compress(path.read_bytes(), 9)) for path in STATIC.rglob("*")
             if path.suffix in (".html", ".css", ".js", ".svg")}
    grammars = [size for path, size in files.items() if path.parent.name == "highlight" and not path.name.startswith("core")]
    yield Measured("whole UI, zipped", f"{kilobytes(files.values()) - kilobytes(grammars):.1f} KB", "<= 150 KB")
    yield Measured(f"… {len(grammars)} grammars beside it, each fetched when code in it is seen",
                   f"{min(grammars) / 1000:.1f} to {max(grammars) / 1000:.1f} KB, {kilobytes(grammars):.1f} KB together", "")


@row
def first(bench):
    """The first events of a session, whatever its length."""
    empty = bench.empty_page()
    yield Measured("an empty page", f"{empty:.0f} ms", "")
    for cold in (True, False):
        found, used = {name: [] for name in SIZES}, {}
        for _ in range(bench.times):
            for name in SIZES:
                found[name].append(bench.shown_after(bench.session(name), cold))
                used[name] = min(bench.cpu(), used.get(name, 9999))
        medians = {name: statistics.median(values) for name, values in found.items()}
        for name, values in found.items():
            yield Measured(f"first events of {SIZES[name]:,}, {'cold' if cold else 'warm'} cache",
                           f"{medians[name]:.0f} ms (best {min(values):.0f}, worst {max(values):.0f})", "<= 300 ms",
                           f"{medians[name] / empty:.1f} × empty page; {used[name]:.0f} ms of CPU")
        best, middle = [min(values) for values in found.values()], medians.values()
        yield Measured("… slowest length to fastest", f"{max(middle) / min(middle):.2f} (of the best: {max(best) / min(best):.2f})",
                       "<= 1.5")


# Presses the map at a share of its height; answers when a row of that place is in sight and its frame is done.
JUMP = """
    const [share, done] = arguments, map = document.querySelector(".map"), { left, top, height } = map.getBoundingClientRect();
    const total = Number(map.getAttribute("aria-valuemax")), wanted = share * total, started = performance.now();
    const isThere = () => [...document.querySelectorAll(".reader [data-at]")].some(row => {
        const { top, bottom } = row.getBoundingClientRect();
        return bottom > 60 && top < innerHeight && Math.abs(Number(row.dataset.at) - wanted) < Math.max(100, total / height * 2);
    });
    const look = () => isThere() ? requestAnimationFrame(() => setTimeout(() => done(performance.now() - started))) : setTimeout(look, 4);
    const at = { clientX: left + 10, clientY: top + share * height, bubbles: true, pointerId: 1, isPrimary: true, buttons: 1 };
    map.setPointerCapture = () => null;
    map.dispatchEvent(new PointerEvent("pointerdown", at));
    look();
"""


@row
def jump(bench):
    """Clicks on the map of the longest session, until events of that place are drawn."""
    for name in ("long", "huge"):
        bench.shown_after(bench.session(name), cold=False)
        places = data.Texts(9).random.sample(range(5, 95), 15)
        found = sorted(bench.driver.execute_async_script(JUMP, place / 100) for place in places)
        yield Measured(f"jump on the map of {SIZES[name]:,}", f"{statistics.median(found):.0f} ms (95 %: {found[-1]:.0f})", "<= 150 ms")


STEP = 600
SCROLL = """
    const [step] = arguments, frames = [], start = performance.now();
    let last = start, still = 0, most = 0, heap = 0, at = -1;
    function frame(now) {
        frames.push(now - last);
        last = now;
        if (frames.length % 20 === 0) {
            most = Math.max(most, document.querySelectorAll("*").length);
            heap = Math.max(heap, performance.memory?.usedJSHeapSize ?? 0);
        }
        scrollBy({ top: step, behavior: "instant" });
        still = document.querySelector(".reader .over") && scrollY === at ? still + 1 : 0;
        at = scrollY;
        if (still > 30 || now - start > 120000) {
            window.scrolled = { frames: frames.slice(1, -30), most, heap, seconds: (now - start) / 1000, wasAtEnd: still > 30 };
            return;
        }
        requestAnimationFrame(frame);
    }
    requestAnimationFrame(frame);
"""


@row
def scroll(bench):
    """A session scrolled from end to end, everything shown."""
    bench.shown_after(bench.session("long") + "?view=everything", cold=False)
    bench.js(SCROLL, STEP)
    answer = bench.until("return window.scrolled", seconds=150)
    frames = sorted(answer["frames"])
    yield Measured(f"scrolling {SIZES['long']:,} events, {STEP} pixels a frame: 95 % of the frames",
                   f"{share(frames):.1f} ms "
                   f"(median {statistics.median(frames):.1f}, worst {frames[-1]:.0f}; {len(frames)} frames in {answer['seconds']:.0f} s"
                   f"{'' if answer['wasAtEnd'] else ', NOT at the end'})", "<= 25 ms")
    yield Measured("… most elements and heap meanwhile", f"{answer['most']:,}, {answer['heap'] / 1e6:.0f} MB", "<= 3,000, < 60 MB")


def share(values):
    """What 95 % of these, in order, stay below."""
    return values[int(len(values) * 0.95)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0], epilog="rows: " + ", ".join(ROWS))
    parser.add_argument("--times", type=int, default=7, help="how often each navigation is measured")
    parser.add_argument("rows", nargs="*", metavar="ROW", choices=[[], *ROWS], help="only these rows")
    options = parser.parse_args()
    if not (CHROMIUM and DRIVER):
        sys.exit(WITHOUT_CHROMIUM)
    lines = [Measured("metric", "value", "to reach", "ratio"), Measured("---", "---", "---", "---")]
    with contextlib.ExitStack() as stack:
        bench = Bench(stack)
        bench.times = options.times
        for name in options.rows or ROWS:
            print(f"{name} …", file=sys.stderr, flush=True)
            lines += ROWS[name](bench)
    print(f"\n{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
    for line in lines:
        print("| " + " | ".join(line) + " |")


if __name__ == "__main__":
    main()
