"""What the server says of itself: health, numbers for Prometheus, a line in the log for each request, request ids."""

import logging
import re
import shutil
import unittest

import opensession
from client import Client, ServerCase, new_session

PUBLIC = {"HOST": "0.0.0.0", "OPENSESSION_BASE_URL": "https://sessions.example.org", "OPENSESSION_SETUP": "open"}
OUTSIDE = {"host": "sessions.example.org", "address": "203.0.113.9"}


class Health(ServerCase):
    def health(self, status=200):
        answer = self.check(Client().get("/api/health"), status).json
        return answer["status"], answer["problems"]

    def test_all_is_well(self):
        self.assertEqual(self.health(), ("ok", []))

    def test_a_disk_that_is_nearly_full_takes_no_uploads_and_is_read_on(self):
        ada = self.register("ada")
        session = self.upload(ada)
        self.restart(OPENSESSION_RESERVE_MB=str(1 << 30))
        self.assertEqual(self.health(), ("degraded", ["disk_low"]))
        self.check(ada.post("/api/sessions", {"session": new_session()}), 507, "the server's disk is nearly full")
        self.check(ada.post(f"/api/sessions/{session}/events", {"events": []}), 507)
        self.check(ada.get(f"/api/sessions/{session}/raw"), 200)
        self.check(ada.put(f"/api/sessions/{session}", {"title": "x"}), 200)
        self.restart()
        self.assertEqual(self.health(), ("ok", []))
        self.upload(ada)

    def test_bodies_that_are_gone_are_noticed(self):
        shutil.rmtree(self.folder / "data/bodies")
        self.assertEqual(self.health(), ("degraded", ["bodies_missing"]))

    def test_an_index_that_is_far_behind_is_noticed(self):
        ada = self.register("ada")
        self.upload(ada)
        self.assertEqual(self.health(), ("ok", []))
        self.change("""WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
                       INSERT INTO indexed (search_no, room, session_id, team_id) SELECT i, 1, 'x' || i, 'x' FROM n""")
        self.assertEqual(self.health(), ("degraded", ["index_behind"]))

    def test_a_database_that_cannot_be_read_is_down(self):
        self.change("ALTER TABLE users RENAME TO lost")
        with self.assertLogs("opensession", "ERROR"):
            self.assertEqual(self.health(503), ("down", ["database"]))

    def test_strangers_hear_neither_where_nor_how_much(self):
        self.restart(**PUBLIC, OPENSESSION_RESERVE_MB=str(1 << 30))
        answer = Client(**OUTSIDE).get("/api/health")
        self.assertEqual(set(answer.json), {"status", "problems", "version", "registration", "first_user", "setup_required",
                                            "checks_secrets"})
        self.assertNotIn(str(self.folder).encode(), answer.body)


class Numbers(ServerCase):
    SETTINGS = {"OPENSESSION_METRICS": "on"}

    def numbers(self, caller=None):
        """{name with labels: value}"""
        answer = (caller or Client()).get("/metrics")
        self.assertEqual((answer.status, answer.headers["Content-Type"]), (200, "text/plain; version=0.0.4; charset=UTF-8"))
        lines = [line for line in answer.body.decode().splitlines() if not line.startswith("#")]
        for line in lines:
            self.assertRegex(line, r'^[a-z_]+(\{([a-z]+="[^"\\]*",?)+\})? [0-9.]+$')
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}

    def test_they_follow_what_happens(self):
        ada = self.register("ada")
        before = self.numbers()
        session = self.upload(ada)
        for path in ("", "/raw", "/raw", "/nothing"):
            ada.get(f"/api/sessions/{session}{path}")
        after = self.numbers()

        def rise(name):
            return after[name] - before.get(name, 0)
        self.assertEqual(rise("opensession_sessions"), 1)
        self.assertGreater(rise("opensession_body_bytes"), 100)
        self.assertEqual((after["opensession_users"], after["opensession_sessions_to_index"]), (1, 1))
        self.assertEqual(rise('opensession_uploads_total{status="created"}'), 1)
        self.assertEqual(rise('opensession_requests_total{method="POST",route="/api/sessions",status="2xx"}'), 1)
        self.assertEqual(rise('opensession_requests_total{method="GET",route="/api/sessions/<session_id>/raw",status="2xx"}'), 2)
        self.assertEqual(rise('opensession_request_seconds_count{route="/api/sessions/<session_id>/raw"}'), 2)
        self.assertEqual(rise('opensession_request_seconds_bucket{route="/api/sessions/<session_id>/raw",le="+Inf"}'), 2)
        self.assertGreater(after["opensession_database_bytes"], 10_000)

    def test_no_label_leaks_who_or_what(self):
        ada = self.register("ada")
        session = self.upload(ada, new_session(title="a secret plan"))
        for method, url in (("GET", f"/api/sessions/{session}"), ("GET", "/api/search?q=secret"), ("BREW", "/secret"), ("GET", "/secret")):
            ada.request(method, url)
        body = Client().get("/metrics").body.decode()
        for word in ("secret", session, ada.user_id, ada.team_id, "ada", "BREW", str(self.folder)):
            self.assertNotIn(word, body)

    def test_they_are_for_this_machine_or_who_has_the_token(self):
        self.restart()
        self.check(Client().get("/metrics"), 404)
        self.restart(**PUBLIC, **self.SETTINGS)
        self.numbers()
        self.check(Client(**OUTSIDE).get("/metrics"), 404)
        self.check(Client().get("/metrics", headers={"X-Forwarded-For": "203.0.113.9"}), 404)
        self.restart(**PUBLIC, **self.SETTINGS, OPENSESSION_METRICS_TOKEN="a token of some length")
        self.check(Client().get("/metrics"), 404)
        self.check(Client("a token of some other length", **OUTSIDE).get("/metrics"), 404)
        self.numbers(Client("a token of some length", **OUTSIDE))


class TheLog(ServerCase):
    def lines(self, *calls, level="INFO"):
        with self.assertLogs("opensession", level) as logged:
            answers = [call() for call in calls]
        return answers, [record.getMessage() for record in logged.records]

    def test_each_request_is_one_line_without_query_keys_or_bodies(self):
        ada = self.register("ada")
        session = self.upload(ada, new_session(title="a secret plan"))
        (answer,), (line,) = self.lines(lambda: ada.get(f"/api/sessions/{session}/raw?secret=1"))
        self.assertRegex(line, rf"^GET /api/sessions/{session}/raw 200 [0-9]+ ms {len(answer.body)} bytes "
                               rf"user={ada.user_id} id={answer.headers['X-Request-Id']}$")
        _, lines = self.lines(lambda: ada.get("/api/search?q=secret"), lambda: ada.post("/api/keys", {"name": "secret"}),
                              lambda: Client().post("/api/auth/login", {"api_key": ada.key}),
                              lambda: Client().post("/api/auth/login", {"api_key": "osk_secret"}))
        self.assertEqual(len(lines), 4)
        for word in ("secret", ada.key, "q=", "203.0.113.9"):
            self.assertNotIn(word, str(lines))

    def test_no_path_forges_a_line(self):
        _, lines = self.lines(lambda: Client().get("/a%0aGET /b 200%0d%1b[2Jx"), lambda: Client().get("/" + "x" * 5000))
        self.assertTrue(lines[0].startswith("GET /a%0AGET%20/b%20200%0D%1B%5B2Jx 404 "), lines)
        self.assertLess(len(lines[1]), 400)
        self.assertEqual("".join(lines).splitlines(), ["".join(lines)])

    def test_an_error_names_the_request_as_the_log_does(self):
        ada = self.register("ada")
        self.change("DROP TABLE audit")
        (answer,), lines = self.lines(lambda: ada.post("/api/teams", {"name": "x"}))
        self.check(answer, 500)
        self.assertRegex(answer.json["request_id"], "^[0-9a-f]{16}$")
        self.assertEqual(answer.json["request_id"], answer.headers["X-Request-Id"])
        self.assertEqual([f"id={answer.json['request_id']}" in line for line in lines], [True, True])

    def test_an_id_from_outside_is_not_believed(self):
        answers = [Client().get("/api/health", headers={"X-Request-Id": "mine"}) for _ in range(2)]
        ids = {answer.headers["X-Request-Id"] for answer in answers}
        self.assertEqual((len(ids), "mine" in ids), (2, False))

    def test_every_error_has_one(self):
        ada = self.register("ada")
        for answer in (ada.get("/api/nothing"), ada.delete("/api/health"), ada.post("/api/keys", {}), Client().get("/api/teams"),
                       Client(host="evil.example").get("/"), ada.get("/api/teams/x")):
            self.assertEqual(self.check(answer, answer.status).json["request_id"], answer.headers["X-Request-Id"])


class Headers(ServerCase):
    """What an observatory would look at."""

    def policy(self, answer):
        return {name: sources.split() for name, _, sources in
                (part.strip().partition(" ") for part in answer.headers["Content-Security-Policy"].split(";"))}

    def test_every_route_answers_with_them_whoever_asks(self):
        ada = self.register("ada")
        for route in opensession.app.routes:
            url = re.sub("<[^>]+>", "0", route.rule)
            for caller in (Client(), ada, Client(host="evil.example")):
                answer = caller.request(route.method, url)
                for name, value in opensession.HEADERS.items():
                    self.assertEqual(answer.headers.get_all(name), [value], (route.method, url))
                self.assertEqual(len(answer.headers.get_all("Cache-Control")), 1)
                self.assertIsNone(answer.headers["Access-Control-Allow-Origin"])
                self.assertIsNone(answer.headers["Server"])

    def test_the_policy_lets_nothing_in_from_elsewhere_and_nothing_inline(self):
        policy = self.policy(Client().get("/"))
        self.assertEqual(policy["default-src"], ["'none'"])
        self.assertLessEqual({source for name, sources in policy.items() if name.endswith("-src") for source in sources},
                             {"'none'", "'self'", "data:"})
        self.assertEqual({name for name, sources in policy.items() if "data:" in sources}, {"img-src"})
        for name in ("base-uri", "frame-ancestors"):
            self.assertEqual(policy[name], ["'none'"])
        self.assertEqual(policy["require-trusted-types-for"], ["'script'"])

    def test_the_cookie_is_for_us_alone(self):
        self.restart(**PUBLIC)
        ada = self.register("ada", **OUTSIDE)
        cookie = Client(**OUTSIDE).post("/api/auth/login", {"api_key": ada.key}).headers["Set-Cookie"].lower()
        for part in ("httponly", "secure", "samesite=lax", "path=/"):
            self.assertIn(part, cookie)
        self.assertNotIn("domain", cookie)
        self.assertEqual(ada.get("/").headers["Strict-Transport-Security"], "max-age=31536000")


if __name__ == "__main__":
    logging.disable()
    unittest.main()
