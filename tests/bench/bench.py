"""How fast and how large everything is: `make bench`, or `make bench SCALE=0.1 ROWS="lists search"`.

Makes its data sets once (.bench/, see data.py), runs real servers and real daemons in processes of
their own, and prints one table: what was measured, what is to be reached on two cores at full
scale, and how it compares to a yardstick measured in the same run, which tells a slow machine from
slow code.  To add a row, write a function under @row that yields Measured.
"""

import argparse
import concurrent.futures
import contextlib
import functools
import gc
import http.client
import itertools
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from pathlib import Path
from typing import NamedTuple

sys.path[:0] = [str(Path(__file__).resolve().parent.parent.parent), str(Path(__file__).resolve().parent.parent)]

import daemon
import data
from client import free_port, wait_for_port
from laptop import DAEMON, SERVER, clean_environment, eventually

MIB = 1 << 20
TICKS = os.sysconf("SC_CLK_TCK")
ROWS = {}


class Measured(NamedTuple):
    """One line of the table.  `ratio` is (value of ours / value of the yardstick, which yardstick)."""
    metric: str
    value: str
    goal: str
    ratio: str = ""


def row(function):
    """Register a function that takes the Bench and yields Measured."""
    ROWS[function.__name__] = function
    return function


# ---------------------------------------------------------------------------
# Processes
# ---------------------------------------------------------------------------

class Process:
    """opensession.py, daemon.py or another program, and what it has used so far."""

    def __init__(self, *command, home=None, **environ):
        self.started = time.perf_counter()
        home = str(home or tempfile.gettempdir())
        self.process = subprocess.Popen([sys.executable, *map(str, command)], env=clean_environment(HOME=home, **environ),
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def cpu(self):
        """Seconds of CPU, its children's included."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / TICKS

    def memory(self, what="VmRSS"):
        """MiB; VmHWM is the most since `forget_peak`."""
        return int(re.search(rf"{what}:\s+(\d+)", Path(f"/proc/{self.process.pid}/status").read_text())[1]) / 1024

    def forget_peak(self):
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


class Server(Process):
    """A server on a data directory; `get` and `post` go over one connection that is kept open."""

    def __init__(self, folder, key=None):
        self.port = free_port()
        super().__init__(SERVER, OPENSESSION_DATA_DIR=str(folder), PORT=str(self.port), OPENSESSION_LOG="warn")
        self.served = []            # milliseconds of each answer, by what the server says itself
        self.folder, self.key, self.connection = Path(folder), key, http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        with contextlib.ExitStack() as failing:
            failing.callback(self.stop)
            while not self.answers():
                time.sleep(0.005)
            failing.pop_all()
        self.first_answer = time.perf_counter() - self.started
        self.key = key or self.post("/api/register", {"nickname": "bench"})["api_key"]

    def answers(self):
        """Whether it does yet; fails where it never will."""
        if self.process.poll() is not None:
            raise RuntimeError("the server ended")
        try:
            return self.get("/api/health")
        except OSError:
            self.connection.close()
            return None

    def call(self, method, path, body=None, kind="application/json", connection=None):
        """The bytes of an answer; fails where it is an error."""
        headers = {"Content-Type": kind} if body is not None else {}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        connection = connection or self.connection
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        answer = response.read()
        self.served.append(float(response.headers["Server-Timing"].partition("dur=")[2]))
        if response.status >= 400:
            raise RuntimeError(f"{method} {path}: {response.status} {answer[:300]}")
        return answer

    @contextlib.contextmanager
    def inside(self):
        """A function that tells, once the block has ended, what its calls took inside the server: until the answer was made,
        and in CPU with sending it, which unlike the time does not depend on what else runs here."""
        before, calls, told = self.cpu(), len(self.served), []
        yield lambda: "".join(told)
        served = self.served[calls:]
        told.append("; in the server p50 {:.1f}, p95 {:.1f}, worst {:.0f} ms, ".format(*percentiles(served))
                    + f"{(self.cpu() - before) * 1000 / len(served):.1f} ms CPU each")

    def get(self, path, **query):
        return json.loads(self.call("GET", path + ("?" + urllib.parse.urlencode(query) if query else "")))

    def post(self, path, value):
        return json.loads(self.call("POST", path, json.dumps(value).encode()))

    def wait_for_index(self):
        """Until everything that was sent can be searched."""
        self.connection.close()         # which the server did, too, where nobody asked for a minute
        if not eventually(lambda: self.get("/api/search", q="zzyzxq", limit=1)["indexing"] == 0, 3600):     # asking costs next to nothing
            raise RuntimeError("the index does not get ready")

    def wait_for_rest(self):
        """Until it does nothing any more by itself, as looking through all bodies after its start."""
        if not eventually(lambda: cpu_over(lambda: time.sleep(0.5), self) < 0.05, 600):
            raise RuntimeError("the server does not come to rest")


class Bench:
    """What rows share: sizes, data sets, servers on them."""

    def __init__(self, scale):
        self.scale, self.stack = scale, contextlib.ExitStack()
        self.folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))

    def size(self, full, least=1):
        return max(least, int(full * self.scale))

    def kept_open(self, process):
        self.stack.callback(process.stop)
        return process

    @functools.cached_property
    def facts(self):
        return json.loads((self.team_data / "facts.json").read_text())

    @functools.cached_property
    def team_data(self):
        return data.team_server(self.size(100_000, 500))

    @functools.cached_property
    def team_server(self):
        """A server with many sessions, all indexed."""
        server = self.kept_open(Server(self.team_data / "data", self.facts["key"]))
        server.wait_for_index()
        server.wait_for_rest()
        return server

    @functools.cached_property
    def tree(self):
        return data.transcript_tree(self.size(2000, 20), self.size(300, 3))

    @functools.cached_property
    def large(self):
        return data.large_transcript(self.size(200, 2))

    @functools.cached_property
    def large_hail(self):
        """The large session as a HAIL file."""
        path = self.folder / "large.hail.jsonl"
        with open(path, "wb") as file:
            for header, lines in daemon.native_sessions(str(transcript(self.large)), transcript(self.large).name):
                file.write(daemon.hail_line(header))
                file.writelines(lines)
        return path

    @functools.cached_property
    def large_server(self):
        """(a server with the large session and a small one, their ids)."""
        server = self.kept_open(Server(self.folder / "large"))
        ids = []
        for lines in (None, 400):
            with open(self.large_hail, "rb") as file:
                body = b"".join(itertools.islice(file, lines)).replace(b'"session_id":"', b'"session_id":"small ', bool(lines))
            answer = server.call("POST", "/api/sessions", body, "application/jsonl")
            ids.append(json.loads(answer)["id"])
        server.wait_for_index()
        return server, ids

    @functools.cached_property
    def hello(self):
        """Milliseconds of the least that bottle and waitress can do: the median of a JSON greeting."""
        port = free_port()
        hello = self.kept_open(Process("-c", f"import bottle; a = bottle.Bottle(); a.route('/')(lambda: {{'hello': 'world'}}); "
                                               f"bottle.run(a, server='waitress', port={port}, quiet=True, threads=4)"))
        hello.process.port = port
        wait_for_port(hello.process)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)

        def greet():
            connection.request("GET", "/")
            return connection.getresponse().read()
        return statistics.median(timings(greet, 400))


def timings(function, times=1):
    """Milliseconds of some calls."""
    found = []
    for _ in range(times):
        started = time.perf_counter()
        function()
        found.append((time.perf_counter() - started) * 1000)
    return found


def percentiles(values):
    """(p50, p95, worst) of some numbers."""
    values = sorted(values)
    return statistics.median(values), values[int(0.95 * (len(values) - 1))], values[-1]


def fraction(ours, yardstick, what):
    """How ours compares to a yardstick, as "1/20 of it"; a yardstick too small to be divided says what it was."""
    times = yardstick / max(ours, 0.001)
    return f"1/{times:.0f} of {what} ({yardstick:.0f} ms)" if times >= 1.5 else f"{1 / max(times, 0.001):.1f} × {what} ({yardstick:.2f} ms)"


def shown(values):
    return "p50 {:.1f}, p95 {:.1f}, worst {:.0f} ms".format(*percentiles(values))


def transcript(home):
    """The one transcript of a home folder."""
    path, = home.rglob("*.jsonl")
    return path


def tree_bytes(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


# ---------------------------------------------------------------------------
# Rows: the server
# ---------------------------------------------------------------------------

@row
def lists(bench):
    """Every filter and sort, alone, first page and cursors; for who reads one team, three, and all fifty."""
    server = bench.team_server
    big = bench.facts["teams"][0]
    scopes = {"big team": (server.key, {"team_id": big}), "three teams": (bench.facts["user"], {}), "all 50 teams": (server.key, {})}
    values = server.get("/api/sessions", facets=1)["facets"]
    singles = [{}] + [{FILTER_NAMES.get(name, name): each[0]} for name, found in values.items() for each in (found[0], found[-1])]
    singles += [{"branch": "branch-0"}, {"branch": "branch-400"}, {"time_range": "30d"}, {"day": "2026-10-01"}]
    pairs = [{**one, **other} for one, other in itertools.combinations(singles[1::2], 2) if not set(one) & set(other)]
    for scope, (key, base) in scopes.items():
        for kind, views in (("one filter", singles), ("two filters", pairs)):
            found = []
            with as_caller(server, key), server.inside() as inside:
                for view, sort in itertools.product(views, ("recent", "popular", "longest")):
                    found += walk(server, {**base, **view, "sort": sort})
            yield Measured(f"list, {scope}, {kind}", shown(found) + inside(), "p50 2, p95 10 ms", versus_hello(bench, found))


FILTER_NAMES = {"user": "user_id"}


@contextlib.contextmanager
def as_caller(server, key):
    own, server.key = server.key, key
    yield
    server.key = own


def walk(server, query):
    """Milliseconds of the first page and of two behind it, the better of two tries each."""
    found = []
    for _ in range(3):
        path = "/api/sessions?" + urllib.parse.urlencode(query)
        found.append(min(timings(lambda: server.call("GET", path), 2)))
        cursor = json.loads(server.call("GET", path))["next_cursor"]
        if not cursor:
            break
        query = {**query, "cursor": cursor}
    return found


def versus_hello(bench, found):
    return f"p50 is {statistics.median(found) / bench.hello:.1f} × hello"


QUERIES = {"common": "session", "absent": "zzyzxq", "two words": "upload cache", "phrase": '"for it"', "prefix": "sess*",
           "Korean, two": "검색", "never meet": "zzyzxq session", "error": "kind:error test"}


@row
def search(bench):
    """Newest first, twenty sessions with snippets; against LIKE over the same text."""
    server, teams = bench.team_server, bench.facts["teams"]
    rare = json.loads(server.call("GET", "/api/sessions?per_page=1"))["sessions"][0]["title"] or "spoon"
    like = like_over(bench)
    for scope, filters in {"all 50 teams": {}, "big team": {"team": teams[0]}, "tiny team": {"team": teams[2]}}.items():
        for what, limit, goal in (("with snippets", 20, "p95 40 ms"), ("of one session", 1, "p95 20 ms")):
            found = {}
            with server.inside() as inside:
                for name, words in {"rare": f'"{rare}"', **QUERIES}.items():
                    asked = " ".join([words, *(f"team:{value}" for value in filters.values())])
                    path = "/api/search?" + urllib.parse.urlencode({"q": asked, "limit": limit})
                    found[name] = timings(lambda: server.call("GET", path), 5)
            worst = max(found, key=lambda name: statistics.median(found[name]))
            every = sum(found.values(), [])
            yield Measured(f"search {what}, {scope}", f"{shown(every)}{inside()}; slowest: {worst}", goal,
                           f"p95 is {fraction(percentiles(every)[1], like, 'LIKE')}")


def like_over(bench):
    """Milliseconds of LIKE for a word that is nowhere, over all text."""
    plain = sqlite3.connect(bench.team_data / "plain.db")
    with contextlib.closing(plain):
        return min(timings(lambda: plain.execute("SELECT count(*) FROM texts WHERE text LIKE '%zzyzxq%'").fetchall(), 2))


@row
def windows(bench):
    """200 events anywhere in the large session, by ordinal and by time, and in a small one."""
    server, (large, small) = bench.large_server
    total = server.get(f"/api/sessions/{large}/events", limit=1)["total"]
    chance = random.Random(4)
    read = timings(lambda: bench.large_hail.read_bytes())[0]
    for name, session, most in (("large session", large, total), ("small session", small, 200)):
        found = []
        with server.inside() as inside:
            for _ in range(150):
                path = f"/api/sessions/{session}/events?limit=200&from={chance.randrange(most)}"
                found += timings(lambda: server.call("GET", path))
        yield Measured(f"window of 200 events, {name}", shown(found) + inside(), "p95 6 ms, the same",
                       f"p95 is {fraction(percentiles(found)[1], read, 'reading the file')}")
    found = {}
    with server.inside() as inside:
        for name, words in QUERIES.items():
            path = f"/api/sessions/{large}/events?" + urllib.parse.urlencode({"q": words})
            found[name] = timings(lambda: server.call("GET", path), 5)
    worst = max(found, key=lambda name: statistics.median(found[name]))
    yield Measured("search in the large session, 50 places", f"{shown(sum(found.values(), []))}{inside()}; slowest: {worst}", "p95 20 ms")
    for what in ("outline", "map"):
        found = timings(lambda: server.call("GET", f"/api/sessions/{large}/{what}"), 20)
        yield Measured(f"{what} of the large session", shown(found), "", versus_hello(bench, found))


@row
def upload(bench):
    """The large session, already HAIL, until it can be searched; its size is that of the transcript, which a person has."""
    size, sent = (path.stat().st_size / 1e6 for path in (transcript(bench.large), bench.large_hail))
    server = bench.kept_open(Server(bench.folder / "upload"))
    server.get("/api/sessions")
    before = server.memory()
    server.forget_peak()
    started, cpu = time.perf_counter(), server.cpu()
    with open(bench.large_hail, "rb") as file:
        server.call("POST", "/api/sessions", file, "application/jsonl")
    stored = time.perf_counter() - started
    server.wait_for_index()
    seconds = time.perf_counter() - started
    yield Measured("upload of the large session, searchable", f"{size / seconds:.1f} MB/s of transcript ({size:.0f} MB), {sent / seconds:.1f} "
                   f"of HAIL ({sent:.0f} MB); stored after {stored:.1f} s, {server.cpu() - cpu:.1f} CPU s", "12 MB/s of transcript")
    yield Measured("… growth of the server's memory", f"{server.memory('VmHWM') - before:.0f} MiB", "< 60 MiB")


@row
def server(bench):
    """Start, idle memory, and memory with an upload and four downloads at once."""
    starts = []
    for _ in range(5):
        again = Server(bench.folder / "start", key="none")
        starts.append(again.first_answer)
        again.stop()
    yield Measured("server: start to first answer", f"{statistics.median(starts):.2f} s", "< 0.5 s")
    running, (large, _) = bench.large_server
    fresh = bench.kept_open(Server(running.folder.parent / "idle"))
    fresh.get("/api/sessions")
    time.sleep(4)               # until it has loaded what works beside the requests
    yield Measured("server: idle memory", f"{fresh.memory():.0f} MiB", "< 50 MiB")
    running.forget_peak()
    with concurrent.futures.ThreadPoolExecutor(5) as pool:
        downloads = [pool.submit(over_own_connection, running, "GET", f"/api/sessions/{large}/raw") for _ in range(4)]
        with open(bench.large_hail, "rb") as file:
            head = file.read(min(50_000_000, bench.large_hail.stat().st_size))
        body = head[:head.rindex(b"\n") + 1].replace(b'"session_id":"', b'"session_id":"again ', 1)
        pool.submit(over_own_connection, running, "POST", "/api/sessions", body, "application/jsonl").result()
        for each in downloads:
            each.result()
    yield Measured("server: memory with a 50 MB upload and 4 downloads", f"{running.memory('VmHWM'):.0f} MiB", "< 80 MiB")


def over_own_connection(server, *call):
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=600)) as connection:
        return server.call(*call, connection=connection)


@row
def mixed(bench):
    """Eight clients that list, read and search while a ninth uploads without pause."""
    server, over, found, errors = bench.team_server, threading.Event(), [], []
    some = server.get("/api/sessions", per_page=50)["sessions"]
    team, texts = bench.facts["teams"][0], data.Texts(9)

    def read(number):
        chance, connection = random.Random(number), http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        while not over.is_set():
            path = chance.choice(["/api/sessions?sort=popular", "/api/sessions", f"/api/sessions/{chance.choice(some)['id']}/events",
                                  "/api/search?q=session+upload", "/api/search?q=" + urllib.parse.quote("검색")])
            try:
                found.extend(timings(lambda: server.call("GET", path, connection=connection)))
            except Exception as error:
                errors.append(error)
                connection.close()
            time.sleep(0.02)

    def write():
        connection, sent = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60), 0
        while not over.is_set():
            try:
                server.call("POST", f"/api/sessions?team_id={team}", data.hail_session(texts), "application/jsonl", connection)
                sent += 1
            except Exception as error:
                errors.append(error)
                connection.close()
        return sent

    with concurrent.futures.ThreadPoolExecutor(9) as pool:
        readers, writer = [pool.submit(read, number) for number in range(8)], pool.submit(write)
        time.sleep(10)
        over.set()
        for each in readers:
            each.result()
    for error in errors[:3]:
        print(error, file=sys.stderr)
    yield Measured("8 clients mixed, one uploading", f"{shown(found)}; {len(found)} calls, {writer.result()} uploads, {len(errors)} errors",
                   "p95 < 100 ms, 0 errors", versus_hello(bench, found))


# ---------------------------------------------------------------------------
# Rows: the daemon, alone and with a server
# ---------------------------------------------------------------------------

@row
def parse(bench):
    """Reading, parsing, encoding and redacting on one core, against json.loads over the same lines."""
    gc.set_threshold(*daemon.COLLECTIONS)       # as in the daemon
    for name, home in (("tree", bench.tree), ("large session", bench.large)):
        sources = [(tool, source) for tool in map(daemon.TOOLS.get, ("claude-code", "codex")) for path in home.rglob("*.jsonl")
                   if path.is_relative_to(home / {"claude-code": ".claude", "codex": ".codex"}[tool.name])
                   for source in [daemon.Source(path.name, (path,))]]
        size = sum(source.path.stat().st_size for _, source in sources) / 1e6
        steps = {"read": (lambda tool, source: source.path.read_bytes() and None, ""), "json.loads of each line": (exhaust_json, ""),
                 "read, parse": (exhaust_events, ""), "read, parse and encode": (exhaust_lines, "1/3 of json.loads"),
                 "read, parse, encode and redact": (exhaust_drafts, "1/6 of json.loads")}
        took = best_of_each(sources, [run for run, _ in steps.values()])
        plain = took[exhaust_json]
        for step, (run, goal) in steps.items():
            yield Measured(f"{name} ({size:.0f} MB): {step}", f"{size / took[run]:.0f} MB/s", goal, speed_of(took[run], plain))
        alone = stages(sources)
        for step in ("encode", "redact"):
            yield Measured(f"{name}: {step} alone", f"{size / alone[step]:.0f} MB/s of transcript", "", speed_of(alone[step], plain))


def best_of_each(sources, functions, rounds=3):
    """{function: CPU seconds over all sources}: source by source one after the other, so that all of them meet the same
    neighbours on this machine, and of each the best of some rounds."""
    took = dict.fromkeys(functions, 0.0)
    for tool, source in sources:
        times = [[seconds(lambda: function(tool, source)) for function in functions] for _ in range(rounds)]
        for function, best in zip(functions, map(min, zip(*times))):
            took[function] += best
    return took


@row
def first(bench):
    """A first run over the tree and over the large session without a server: one process, and workers where there are cores."""
    for name, home in (("tree", bench.tree), ("large session", bench.large)):
        size, goal = tree_bytes(home) / 1e6, {"tree": "< 60 MiB a process", "large session": "< 80 MiB"}[name]
        for cores in {1, len(os.sched_getaffinity(0)) if name == "tree" else 1}:
            fresh = data.copy_home(home)
            bench.stack.callback(shutil.rmtree, fresh)
            ran = run_daemon(fresh, "once", cores=cores)
            yield Measured(f"{name} ({size:.0f} MB): first run, {cores} core{'s' * (cores > 1)}", f"{ran.wall:.1f} s wall, {ran.cpu:.1f} CPU s, "
                           f"{ran.memory:.0f} MiB in one process", goal)


def speed_of(took, yardstick):
    """How fast something was beside json.loads over the same lines."""
    return f"1/{took / yardstick:.1f} of json.loads" if took > yardstick else f"{yardstick / max(took, 1e-6):.1f} × json.loads"


def stages(sources):
    """CPU seconds of encoding and of redacting, each alone, over the events of all sources."""
    spent = dict.fromkeys(("encode", "redact"), 0.0)
    for tool, source in sources:
        for session in tool.parse(source):
            redactor, events = daemon.Redactor(), iter(session.events)
            while some := list(itertools.islice(events, 500)):
                encoding = seconds(lambda: [daemon.hail_line(event) for event in some])
                spent["encode"] += encoding
                spent["redact"] += max(0.0, seconds(lambda: list(redactor.clean(some))) - encoding)
    return spent


def exhaust_json(tool, source):
    with open(source.path, "rb") as file:
        for line in file:
            json.loads(line)


@row
def redaction(bench):
    """Redacting encoded lines on one core, with all rules, against json.loads over the same lines."""
    for name, home in (("tree", bench.tree), ("large session", bench.large)):
        events = [event for tool in map(daemon.TOOLS.get, ("claude-code", "codex")) for path in home.rglob("*.jsonl")
                  if daemon.recognise(path) is tool
                  for session in tool.parse(daemon.Source(path.name, (path,))) for event in session.events][:40_000]
        ratio, speed = redaction_speed(events)
        yield Measured(f"{name}: redact", f"{speed:.0f} MB/s", "1/7 of json.loads", f"1/{ratio:.1f} of json.loads")


def redaction_speed(events):
    """(how many times as long as json.loads redacting takes, MB/s): the best of five; encoding is not counted."""
    lines = [daemon.hail_line(event) for event in events]
    size = sum(map(len, lines)) / 1e6
    plain, encode, clean = (min(seconds(run) for _ in range(5)) for run in (
        lambda: [json.loads(line) for line in lines] and None, lambda: [daemon.hail_line(event) for event in events] and None,
        lambda: [line for _, line in daemon.Redactor(daemon.Privacy(homes=("/home/ada",))).clean(events)] and None))
    return (clean - encode) / plain, size / (clean - encode)


def exhaust_events(tool, source):
    for session in tool.parse(source):
        for _ in session.events:
            pass


def exhaust_lines(tool, source):
    for session in tool.parse(source):
        for event in session.events:
            daemon.hail_line(event)


def exhaust_drafts(tool, source):
    for _, lines in daemon.drafts_of(tool, source, source.path):
        for _ in lines:
            pass


def seconds(function):
    started = time.process_time()
    function()
    return time.process_time() - started


@row
def collect(bench):
    """A first collection of the tree until it can be searched, and a pass over it without a change."""
    home = data.copy_home(bench.tree)
    bench.stack.callback(shutil.rmtree, home)
    size = tree_bytes(bench.tree) / 1e6
    server = bench.kept_open(Server(bench.folder / "collect"))
    run_daemon(home, "login", f"http://127.0.0.1:{server.port}", "--key", server.key)
    cpu = server.cpu()
    started = time.perf_counter()
    first = run_daemon(home, "once")
    server.wait_for_index()
    wall, cpu = time.perf_counter() - started, server.cpu() - cpu
    yield Measured(f"first collection ({size:.0f} MB), searchable", f"{wall:.1f} s wall; CPU {first.cpu:.1f} s daemon "
                   f"({daemon.worker_count()} workers) + {cpu:.1f} s server", "< 30 s, < 42 CPU s")
    yield Measured("… the daemon's most memory in one process", f"{first.memory:.0f} MiB", "< 60 MiB")
    again = min((run_daemon(home, "once") for _ in range(3)), key=lambda one: one.wall)
    status = min((run_daemon(home, "status") for _ in range(3)), key=lambda one: one.wall)
    yield Measured("a pass without a change", f"{again.wall:.2f} s wall, {again.cpu:.2f} CPU s; start of Python and the program alone: "
                   f"{status.wall:.2f} s", "< 0.3 s")
    yield Measured("… in a daemon that runs", f"{min(look_again(home)) / 1000:.3f} s", "< 0.3 s")
    with contextlib.closing(sqlite3.connect(server.folder / "opensession.db")) as kept:
        tables = kept.execute("SELECT name, sum(pgsize) / 1e6 FROM dbstat GROUP BY name ORDER BY 2 DESC LIMIT 4").fetchall()
    server.stop()               # what the write-ahead log holds goes into the database
    database, bodies = ((server.folder / "opensession.db").stat().st_size / 1e6, tree_bytes(server.folder / "bodies") / 1e6)
    yield Measured("disk: database and bodies per MB of transcripts",
                   f"{(database + bodies) / size:.3f} ({database:.1f} + {bodies:.1f} MB; largest: "
                   + ", ".join(f"{name} {size:.1f}" for name, size in tables) + ")", "< 0.4")


def look_again(home):
    """Milliseconds of some looks at all places and sources of a home folder where nothing has changed."""
    paths = daemon.find_paths({}, home)
    with contextlib.closing(daemon.open_cache(paths.database)) as cache:
        watching = daemon.Daemon(paths, daemon.load_settings(paths, {}), cache, {}, {})

        def look():
            watching.folders.clear()
            watching.discover()
            watching.poll()
        return timings(look, 5)


class Finished(NamedTuple):
    wall: float
    cpu: float
    memory: float           # MiB, the most that one of its processes had


def run_daemon(home, *arguments, cores=None):
    """Run a command of the daemon to its end, on so many cores or all; what it took."""
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, DAEMON, *arguments], env=clean_environment(HOME=str(home)),
                               stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    os.sched_setaffinity(process.pid, sorted(os.sched_getaffinity(0))[:cores])
    peaks, status = {}, 0
    while not status:               # what wait4 says of memory is from before the daemon went over to its compiled self
        for pid in (process.pid, *children(process.pid)):
            with contextlib.suppress(OSError, TypeError):
                peaks[pid] = int(re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) / 1024
        time.sleep(0.02)
        pid, code, used = os.wait4(process.pid, os.WNOHANG)
        status = pid and (code, used)
    process.returncode = os.waitstatus_to_exitcode(status[0])
    if process.returncode not in (0, 1):
        raise RuntimeError(f"daemon.py {' '.join(arguments)} ended with {process.returncode}")
    used = status[1]
    return Finished(time.perf_counter() - started, used.ru_utime + used.ru_stime, max(peaks.values()))


def children(pid):
    """The processes that a process has started, by any of its threads."""
    found = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found


@row
def append(bench):
    """Ten lines appended to the large transcript: CPU of daemon and server together, until they can be searched."""
    home = data.copy_home(bench.large)
    bench.stack.callback(shutil.rmtree, home)
    path = transcript(home)
    server = bench.kept_open(Server(bench.folder / "append"))
    run_daemon(home, "login", f"http://127.0.0.1:{server.port}", "--key", server.key)
    config = home / ".config/opensession/daemon.toml"
    config.write_text(config.read_text() + '\n[daemon]\npublish_on = "realtime"\n')
    whole = run_daemon(home, "once")
    yield Measured("the large session collected whole", f"{whole.wall:.1f} s wall, {whole.cpu:.1f} CPU s, {whole.memory:.0f} MiB", "< 80 MiB")
    watching = bench.kept_open(Process(DAEMON, "run", home=home))
    session = server.get("/api/sessions")["sessions"][0]["id"]
    server.wait_for_index()
    time.sleep(8)
    idle = {each: cpu_over(lambda: time.sleep(8), each) / 8 for each in (watching, server)}
    records = data.claude_records(data.Texts(5), path.stem, "/home/dev/work/large")
    next(records)
    found, waits = [], []
    for _ in range(6):
        count = server.get(f"/api/sessions/{session}")["event_count"]
        lines = [data.compact({**next(records), "timestamp": "2026-11-02T00:00:00.000Z"}) + "\n" for _ in range(10)]
        started = time.perf_counter()

        def grow():
            with open(path, "a", encoding="utf-8") as file:
                file.writelines(lines)
            if not eventually(lambda: searchable(server, count), 60):
                raise RuntimeError("what was appended did not arrive")
            waits.append(time.perf_counter() - started)
            time.sleep(1)
        before = {each: each.cpu() for each in idle}
        grow()
        found.append([each.cpu() - before[each] - idle[each] * (waits[-1] + 1) for each in idle])
    daemons, servers = (max(0, statistics.median(values)) for values in zip(*found))
    yield Measured("10 lines appended, CPU in all", f"{daemons:.3f} s daemon + {servers:.3f} s server "
                   f"(searchable after {statistics.median(waits):.1f} s)",
                       "< 0.03 s", fraction((daemons + servers) * 1000, whole.cpu * 1000, "collecting it whole"))


def searchable(server, count):
    """Whether a server's one session has more than so many events, all indexed; looked up at no cost to the server."""
    with contextlib.closing(sqlite3.connect(server.folder / "opensession.db")) as database:
        return database.execute("SELECT 1 FROM sessions s JOIN indexed i ON i.session_id = s.id "
                                "WHERE s.event_count > ? AND i.pending = 0", [count]).fetchone()


def cpu_over(function, *processes):
    """Seconds of CPU that processes used while a function ran."""
    before = sum(process.cpu() for process in processes)
    function()
    return sum(process.cpu() for process in processes) - before


@row
def idle(bench):
    """The daemon with 10,000 transcripts that nobody writes to, polling every 5 s."""
    home = Path(tempfile.mkdtemp(prefix="bench-idle-"))
    bench.stack.callback(shutil.rmtree, home)
    count = bench.size(10_000, 100)
    texts = data.Texts(6)
    for number in range(count):
        records = data.claude_records(texts, texts.id(), f"/home/dev/work/p{number % 50}")
        data.write_transcript(texts, home, records, 1, data.LAST)
    run_daemon(home, "once")
    watching = bench.kept_open(Process(DAEMON, "run", home=home))
    time.sleep(10)
    used = cpu_over(lambda: time.sleep(90), watching)
    yield Measured(f"daemon: idle CPU, {count} transcripts", f"{used / 90 * 100:.2f} % of a core", "< 0.1 %")
    yield Measured("daemon: memory", f"{watching.memory():.0f} MiB", "< 40 MiB")


# ---------------------------------------------------------------------------
# The table
# ---------------------------------------------------------------------------

def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0], epilog="rows: " + ", ".join(ROWS))
    parser.add_argument("--scale", type=float, default=1, help="the size of all data sets, 1 is 100,000 sessions and 200 MB")
    parser.add_argument("rows", nargs="*", metavar="ROW", choices=[[], *ROWS], help="only these rows")
    options = parser.parse_args()
    bench = Bench(options.scale)
    lines = [Measured("metric", "value", "to reach", "ratio"), Measured("---", "---", "---", "---")]
    with bench.stack:
        for name in options.rows or ROWS:
            print(f"{name} …", file=sys.stderr, flush=True)
            lines += ROWS[name](bench)
    print(f"\n{os.cpu_count()} cores, Python {sys.version.split()[0]}, SQLite {sqlite3.sqlite_version}, scale {options.scale:g}, "
          f"hello {bench.hello:.2f} ms\n" if "hello" in vars(bench) else "")
    for line in lines:
        print("| " + " | ".join(line) + " |")


if __name__ == "__main__":
    main()
