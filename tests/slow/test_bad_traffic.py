"""Bad requests to a real server, by hand and by chance: never a 5xx, never a traceback, and what is accepted poisons nothing."""

import collections
import gzip
import http.client
import json
import random
import re
import tempfile
import unittest
import urllib.parse
from pathlib import Path

import opensession
from client import Answer, ServerCase, call, exchange, hail_file, new_event, new_session
from figures import reached, size
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from stored import logged_server
from test_bad_requests import FIELDS, GOOD, GZIP, RICH, RICH_PLACES, SYNTAX, changed, nasty, strict

KINDS = ["application/json", "application/jsonl", "text/plain", "multipart/form-data; boundary=x", "image/png; charset=nope", ""]
QUERIES = ["page=-1", "page=99999999999999999999", "per_page=x", "cursor=%ff", "from=-1&limit=1e9", "around=%00", "search=%22NEAR(",
           "since=-1", "q=%ED%A0%80", "a" * 5000, "%zz", "team_id=x&team_id=y"]
HEADERS = [{"Authorization": "Bearer \xff"}, {"Authorization": "Basic x"}, {"Cookie": "opensession=\xff"}, {"Host": "evil.example"},
           {"Origin": "http://evil.example"}, {"If-None-Match": '"' * 999},
           {"Content-Encoding": "br"}, {"Range": "bytes=-1"}, {"X": "x" * 60_000}]


class Fuzz(unittest.TestCase):
    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.server = self.enterContext(logged_server(self.folder, OPENSESSION_TEAM_CREATION="anyone"))
        self.connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        self.addCleanup(self.connection.close)
        self.counts, self.people, self.poison_checks = collections.Counter(), 0, 0
        self.sign_up()

    def sign_up(self):
        """A new account that may do everything to what it has."""
        self.people, self.key = self.people + 1, None
        me = self.ask("POST", "/api/register", json.dumps({"nickname": f"ada{self.people}"}).encode()).json
        self.key = me["api_key"]
        team = self.ask("POST", "/api/teams", json.dumps({"name": f"team {self.people}"}).encode()).json
        self.ids = {"TEAM": team["id"], "USER": me["user_id"]}
        session = hail_file(changed(GOOD, ["session_id"], "s-0"))
        self.ids["SESSION"] = self.ask("POST", f"/api/sessions?team_id={team['id']}", session, type="text/plain").json["id"]

    def ask(self, method, path, body=b"", type="application/json", **headers):
        """An Answer, after checking that it is no failure, and in words where it is a refusal."""
        headers = {"Content-Type": type, **({"Authorization": f"Bearer {self.key}"} if self.key else {}), **headers}
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        for _ in range(2):
            try:
                self.connection.request(method, path, body, headers)
                response = self.connection.getresponse()
                answer = Answer(response.status, response.getheaders(), response.read())
                break
            except (http.client.RemoteDisconnected, ConnectionError):
                self.connection.close()         # the last answer was the last one of that connection
        self.assertLess(answer.status, 500, f"{method} {path[:200]} {body[:500]} {answer}")
        if answer.status >= 400 and method != "HEAD":
            self.assertGreater(len(strict(answer.body)["error"]), 3, answer)
        return answer

    def attack(self, route, *request, **more):
        """Ask; an accepted upload must be readable everywhere, and an account that was lost is replaced."""
        answer = self.ask(*request, **more)
        self.counts[answer.status // 100] += 1
        if answer.status in (200, 201) and route == "POST /api/sessions" and "id" in answer.json:
            self.check_poison(answer.json["id"])
        if self.ask("GET", "/api/auth/me").status != 200:
            self.sign_up()

    def check_poison(self, session_id):
        """Fail unless everything that shows a session works and is strict JSON."""
        self.poison_checks += 1
        session = f"/api/sessions/{session_id}"
        for path in ("/api/sessions?per_page=100", "/api/sessions?search=spoon", "/api/search?q=spoon",
                     f"/api/sync/pull?limit=500&team_id={self.ids['TEAM']}",
                     session, f"{session}/events", f"{session}/map", f"{session}/outline"):
            answer = self.ask("GET", path)
            self.assertEqual(answer.status, 200, (path, answer))
            strict(answer.body)
        raw = self.ask("GET", f"{session}/raw")
        self.assertEqual((raw.status, len(raw.body)), (200, int(raw.headers["Content-Length"])))
        for line in raw.body.splitlines():
            strict(line)

    def routes(self):
        """(route as "GET /path/<id>", method, path that leads to what is there)."""
        for route in opensession.app.routes:
            names = iter(["SESSION" if "sessions" in route.rule else "TEAM" if "teams" in route.rule else "x",
                          "USER" if "members" in route.rule else "0"])
            path = re.sub("<[^>]*>", lambda _: self.ids.get(name := next(names), name), route.rule)
            yield f"{route.method} {route.rule}", route.method, path

    def test_bad_requests(self):
        count = size("fuzz")
        by_hand = self.by_hand()
        for number, (route, method, path, more) in enumerate(by_hand):
            if number % max(1, 2 * len(by_hand) // count) == 0:
                self.attack(route, method, path, **more)
        self.raw_garbage(count // 10)
        self.by_chance(max(10, count - sum(self.counts.values())))
        self.assertEqual(call(self.server.port, "GET", "/api/health").status, 200)
        self.assertIsNone(self.server.poll())
        self.assertNotIn("Traceback", self.server.log.read_text())
        total = sum(self.counts.values())
        self.assertGreaterEqual(total, count)
        self.assertGreater(self.counts[2], total // 20)
        kinds = ", ".join(f"{number} x {kind}{'xx' * (kind < 10)}" for kind, number in sorted(self.counts.items()))
        reached("fuzz", f"{total} requests ({kinds}), "
                        f"{self.poison_checks} accepted uploads looked at everywhere: 0 failures, 0 tracebacks")

    def by_hand(self):
        """Each route with each body, type, query and header that has broken somebody's server."""
        bodies = [*SYNTAX.values(), b"null", b"[1]", b'"x"', b'{"name": 1}', b"x" * (2 << 20)]
        return [(route, method, path.replace("<", ""), more) for route, method, path in self.routes() for more in [
            *({"body": body} for body in bodies if method in ("POST", "PUT")),
            *({"body": body, "Content_Encoding": "gzip"} for body in GZIP.values() if method in ("POST", "PUT")),
            *({"body": b"{}", "type": kind} for kind in KINDS if method in ("POST", "PUT")),
            *({"body": b"{}", **headers} for headers in HEADERS)]] + [
            (route, method, f"{path}?{query}", {}) for route, method, path in self.routes() if method == "GET" for query in QUERIES]

    def by_chance(self, examples):
        """Requests from the routes, with sessions that are almost right among them."""
        @seed(6)
        @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(st.data())
        def attacks(data):
            if data.draw(st.booleans()):
                path = f"/api/sessions?restore=1&team_id={self.ids['TEAM']}"
                self.attack("POST /api/sessions", "POST", path, **self.almost_a_session(data))
            else:
                self.attack(*self.some_request(data))
        attacks()

    def almost_a_session(self, data):
        """An upload of a session with some of its parts changed, as an object or as lines."""
        session = RICH
        for path, value in data.draw(st.lists(st.tuples(st.sampled_from(RICH_PLACES), nasty | st.just(...)), min_size=1, max_size=2)):
            try:
                session = changed(session, path, value)
            except (KeyError, IndexError, TypeError):
                pass        # an earlier change took the place away
        body, kind = json.dumps({"session": session}).encode(), "application/json"
        if data.draw(st.booleans()):
            try:
                body, kind = hail_file(session).decode("utf-8", "surrogatepass").encode("utf-8", "replace"), "application/jsonl"
            except (KeyError, TypeError, AttributeError, UnicodeEncodeError):
                pass        # not even a file of lines can be made of it
        if data.draw(st.booleans()):
            return {"body": gzip.compress(body), "type": kind, "Content_Encoding": "gzip"}
        return {"body": body, "type": kind}

    def some_request(self, data):
        route = data.draw(st.sampled_from(opensession.app.routes))
        names = st.sampled_from([*self.ids, "SESSION", "s-0", "0", "-1", "%00", "%ff", "%2e%2e%2f", "x" * 300])
        path = re.sub("<[^>]*>", lambda _: self.ids.get(name := data.draw(names), name), route.rule)
        query = urllib.parse.urlencode({name: str(value).encode("utf-8", "replace") for name, value in
                                        data.draw(st.dictionaries(st.sampled_from(FIELDS), nasty, max_size=3)).items()})
        value = st.one_of(st.dictionaries(st.sampled_from(FIELDS), nasty, max_size=4), nasty)
        body = data.draw(st.one_of(value.map(lambda value: json.dumps(value).encode()), st.binary(max_size=50)))
        return f"{route.method} {route.rule}", route.method, f"{path}?{query}", body, data.draw(st.sampled_from(KINDS))

    def raw_garbage(self, count):
        """Bytes that are no request, or two, or half of one.  501 is the right answer to a transfer coding that nobody knows."""
        good = (f"POST /api/sessions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {self.key}\r\nContent-Type: application/json\r\n"
                "Content-Length: 2\r\nConnection: close\r\n\r\n{}").encode()
        chance = random.Random(6)
        for data in [*GARBAGE, *(mangled(chance, good) for _ in range(max(0, count - len(GARBAGE))))]:
            answer = exchange(self.server.port, data, seconds=0.3)
            status = int(answer[9:12]) if answer else 400       # closed without a word
            self.counts[501 if status == 501 else status // 100] += 1
            self.assertTrue(not answer or re.match(rb"HTTP/1.[01] (200|100|501|4\d\d) ", answer), (data[:300], answer[:300]))
            if re.match(rb"HTTP/1.[01] [45]", answer):
                self.assertIn(b'{"error":', answer, data[:300])


HEAD = b"POST /api/teams HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
GARBAGE = [
    b"\r\n\r\n", b"\0" * 100, b"GET\r\n\r\n", b"GET /\r\n\r\n", b"get / HTTP/1.1\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n",
    b"GET / HTTP/1.1\n\n", b"\x16\x03\x01\x02",
    b"GET http://[/ HTTP/1.1\r\nHost: localhost\r\n\r\n", b"GET http://a:b:c/ HTTP/1.1\r\n\r\n", b"GET * HTTP/1.1\r\n\r\n",
    b"CONNECT x:1 HTTP/1.1\r\n\r\n",
    b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nA" + b"a" * 70_000 + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
    b"GET / HTTP/1.1\r\n: x\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n", b"GET / HTTP/1.1\r\n x: y\r\n\r\n",
    b"GET /api/health HTTP/1.1\r\nHost: \xff\r\n\r\n", b"GET /api/health HTTP/1.1\r\n\r\n" * 20,
    b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 9000 + b"\r\n",
    *(HEAD + b"Content-Length: " + value + b"\r\n\r\n{}" for value in (b"-1", b"+2", b"2, 2", b"0x2", b"9" * 30, b"9" * 5000,
      b"2\r\nContent-Length: 3", b"", b"1_0", b"\xb2")),
    *(HEAD + b"Transfer-Encoding: " + value + b"\r\n\r\n2\r\n{}\r\n0\r\n\r\n" for value in (b"chunked", b"gzip", b"chunked, gzip", b"x",
      b"chunked\r\nContent-Length: 2", b"\x0bchunked")),
    *(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks for chunks in (b"zz\r\n", b"-1\r\n", b"2;" + b"x" * 5000, b"2\r\n{}xx",
      b"ffffffffffffffff\r\n{}", b"2\r\n{}\r\n0\r\nX: y", b"0" * 5000)),
    HEAD + b"Content-Length: 100\r\n\r\nhalf", HEAD + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n",
    HEAD + b"Expect: x\r\nContent-Length: 2\r\n\r\n{}",
    HEAD + b"Content-Length: 2\r\n\r\n{}GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
]


def mangled(chance, data):
    """A request with some bytes changed, dropped or doubled, or cut short."""
    data = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(data) - 1)
        change = chance.choice(["flip", "drop", "double", "cut", "line"])
        if change == "flip":
            data[place] = chance.randrange(256)
        elif change == "cut" and place > 20:
            del data[place:]
        else:
            data[place:place + 5] = {"double": data[place:place + 5] * 2, "line": b"\r\n"}.get(change, b"")
    return bytes(data)


class FuzzSearch(ServerCase):
    WORDS = [*"\"'*-^():+{}%_\\", "spoon", "drawer", "한글", "AND", "OR", "NOT", "NEAR", "NEAR(", "col:x", "tool:", "user:ada", "kind:error",
             "before:2026-02-11", "after:x", "is:", "\0", "\ud800", "\u202e", "é", "e\u0301", "ﬁ", "x" * 200, "§kt", ";--", "🙂", "1e9"]

    def test_no_query_fails(self):
        count, ada, chance = size("fuzz-search"), self.register("ada"), random.Random(2)
        session_id = self.upload(ada, new_session(events=[new_event(text="The spoon is in the drawer. 숟가락은 서랍에")]))
        self.index()
        statuses = collections.Counter()
        for _ in range(count):
            text = "".join(self.piece(chance) for _ in range(chance.randint(1, 12)))
            query = urllib.parse.quote(text.encode("utf-8", "surrogatepass"))
            answer = ada.get(chance.choice(["/api/sessions?search=", f"/api/search?session={session_id}&q=", "/api/search?q="]) + query)
            statuses[answer.status] += 1
            self.assertIn(answer.status, (200, 400, 422), f"{text!r} {answer}")
            strict(answer.body)
        self.assertGreater(statuses[200], count * 0.9, statuses)
        reached("fuzz-search", f"{count} random queries, 0 errors ({dict(statuses)})")

    def piece(self, chance):
        """A word with or without a space, or any character."""
        word = chance.choice(self.WORDS)
        return chance.choice([word, word + " ", chr(chance.choice([chance.randrange(128), chance.randrange(0x11000)]))])


if __name__ == "__main__":
    unittest.main()
