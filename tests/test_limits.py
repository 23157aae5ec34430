"""How often somebody may ask, who counts as the caller behind a proxy, and requests of other sites."""

import re
import tempfile
import unittest

import opensession
from client import Client, ServerCase, call, new_event, new_session, running_server

PUBLIC = {"HOST": "0.0.0.0", "OPENSESSION_BASE_URL": "https://sessions.example.org", "OPENSESSION_SETUP": "open"}
OUTSIDE = {"host": "sessions.example.org", "address": "203.0.113.9"}


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Buckets(unittest.TestCase):
    def setUp(self):
        self.clock = Clock()
        self.buckets = opensession.Buckets(self.clock)

    def test_a_bucket_gives_what_it_holds_and_fills_again_evenly(self):
        self.assertEqual([self.buckets.take("x", 60, 3) for _ in range(4)], [0, 0, 0, 1])
        self.clock.now += 0.5
        self.assertEqual(self.buckets.take("x", 60, 3), 0.5)
        self.clock.now += 0.5
        self.assertEqual([self.buckets.take("x", 60, 3) for _ in range(2)], [0, 1])

    def test_it_never_holds_more_than_its_depth(self):
        self.buckets.take("x", 60, 3)
        self.clock.now += 1e6
        self.assertEqual([self.buckets.take("x", 60, 3) for _ in range(4)], [0, 0, 0, 1])

    def test_looking_takes_nothing(self):
        self.assertEqual([self.buckets.take("x", 60, 1, tokens=0) for _ in range(3)], [0, 0, 0])
        self.assertEqual([self.buckets.take("x", 60, 1), self.buckets.take("x", 60, 1, tokens=0)], [0, 1])

    def test_each_has_its_own_and_there_are_never_too_many(self):
        self.buckets.take("first", 60, 1)
        for number in range(opensession.MOST_BUCKETS + 5):
            self.assertEqual(self.buckets.take(number, 60, 1), 0)
        self.assertEqual(len(self.buckets._held), opensession.MOST_BUCKETS)
        self.assertEqual(self.buckets.take("first", 60, 1), 0)
        self.assertGreater(self.buckets.take(number, 60, 1), 0)

    def test_an_ipv6_customer_is_one_neighbour(self):
        same = {opensession.neighbourhood(address) for address in ("2001:db8:1:2::1", "2001:db8:1:2:ffff::", "2001:0db8:0001:0002::9")}
        self.assertEqual(len(same), 1)
        self.assertNotIn(opensession.neighbourhood("2001:db8:1:3::1"), same)
        self.assertEqual(opensession.neighbourhood("203.0.113.9"), "203.0.113.9")


class AtTheDoor(ServerCase):
    SETTINGS = PUBLIC

    def setUp(self):
        super().setUp()
        self.ada = self.register("ada", **OUTSIDE)
        opensession.buckets.clear()

    def test_who_brings_bad_keys_too_often_must_wait_and_others_need_not(self):
        bad = Client(**OUTSIDE)
        for _ in range(10):
            self.check(bad.post("/api/auth/login", {"api_key": "osk_nonsense"}), 401)
        answer = self.check(bad.post("/api/auth/login", {"api_key": "osk_nonsense"}), 429)
        self.assertRegex(answer.json["error"], r"^too many requests; try again in [1-6] s$")
        self.assertIn(int(answer.headers["Retry-After"]), range(1, 7))
        self.check(Client("osk_nonsense", **OUTSIDE).post("/api/auth/verify"), 429)
        self.check(bad.post("/api/register", {"nickname": "x", "invite": "nonsense"}), 429)
        self.check(Client(**OUTSIDE | {"address": "203.0.113.10"}).post("/api/auth/login", {"api_key": self.ada.key}), 200)
        self.check(self.ada.get("/api/teams"), 200)

    def test_good_keys_cost_nothing(self):
        for _ in range(25):
            self.check(Client(**OUTSIDE).post("/api/auth/login", {"api_key": self.ada.key}), 200)
            self.check(self.ada.post("/api/auth/verify"), 200)

    def test_bad_invitations_and_registrations_count(self):
        for _ in range(10):
            self.check(self.ada.post("/api/invitations/accept", {"code": "nonsense"}), 404)
        self.check(self.ada.post("/api/invitations/accept", {"code": "nonsense"}), 429)
        self.restart(**PUBLIC, OPENSESSION_REGISTRATION="open")
        statuses = [Client(**OUTSIDE).post("/api/register", {"nickname": f"una {number}"}).status for number in range(12)]
        self.assertEqual(statuses, [201] * 10 + [429] * 2)

    def test_one_machine_talking_to_itself_waits_for_nothing(self):
        self.restart()
        for _ in range(12):
            self.check(Client().post("/api/auth/login", {"api_key": "osk_nonsense"}), 401)

    def test_what_is_refused_for_its_haste_is_not_written_down(self):
        for _ in range(15):
            Client(**OUTSIDE).post("/api/auth/login", {"api_key": "osk_nonsense"})
        self.assertEqual(self.rows("SELECT count(*) AS n FROM audit WHERE action = 'login.refused'"), [{"n": 10}])


class Accounts(ServerCase):
    SETTINGS = PUBLIC | {"OPENSESSION_UPLOADS_PER_MINUTE": "1", "OPENSESSION_SEARCHES_PER_MINUTE": "1"}

    def setUp(self):
        super().setUp()
        self.ada = self.register("ada", **OUTSIDE)

    def test_uploads_are_limited_for_each_account(self):
        session = self.upload(self.ada)
        statuses = [self.ada.post(f"/api/sessions/{session}/events", {"events": [new_event(at=9)]}).status for _ in range(6)]
        statuses += [self.ada.post("/api/sessions", {"session": new_session()}).status for _ in range(5)]
        self.assertEqual(statuses, [200] * 6 + [201] * 3 + [429] * 2)
        self.check(self.ada.get("/api/sessions"), 200)
        bob = self.register("bob", self.ada.post("/api/invitations", {"team_id": self.ada.team_id}).json["code"], **OUTSIDE)
        self.upload(bob)

    def test_searches_are_limited_for_each_account_and_each_stranger(self):
        for caller in (self.ada, Client(**OUTSIDE)):
            statuses = [caller.get(f"/api/{path}=x").status for _ in range(6) for path in ("search?q", "sessions?search")]
            self.assertEqual(statuses, [200] * 10 + [429] * 2)
            self.check(caller.get("/api/sessions"), 200)

    def test_none_means_no_limit(self):
        self.restart(**PUBLIC, OPENSESSION_UPLOADS_PER_MINUTE="0", OPENSESSION_SEARCHES_PER_MINUTE="0")
        for _ in range(15):
            self.upload(self.ada)
            self.check(self.ada.get("/api/search?q=x"), 200)

    def test_a_first_collection_of_2000_sessions_at_once_feels_nothing(self):
        self.restart(**PUBLIC)
        clock = Clock()
        bucket, per_minute = opensession.Buckets(clock), opensession.settings.limits["uploads"]
        self.assertEqual({bucket.take("x", per_minute, per_minute * opensession.SAVED_MINUTES) for _ in range(2000)}, {0})


class BehindAProxy(ServerCase):
    SETTINGS = PUBLIC | {"OPENSESSION_TRUSTED_PROXY": "127.0.0.1, 10.1.0.0/16"}

    def setUp(self):
        super().setUp()
        self.ada = self.register("ada", **OUTSIDE)

    def address(self, forwarded, peer="127.0.0.1"):
        """The address that the audit has of a log-in through a proxy."""
        caller = Client(host="sessions.example.org", address=peer)
        caller.headers = {"X-Forwarded-For": forwarded} if forwarded else {}
        self.check(caller.post("/api/auth/login", {"api_key": self.ada.key}), 200)
        return self.rows("SELECT address FROM audit ORDER BY no DESC LIMIT 1")[0]["address"]

    def test_the_caller_is_whom_the_proxy_names_last(self):
        self.assertEqual(self.address("198.51.100.7"), "198.51.100.7")
        self.assertEqual(self.address("6.6.6.6, 198.51.100.7"), "198.51.100.7")
        self.assertEqual(self.address("6.6.6.6,  2001:DB8::7 ", peer="10.1.2.3"), "2001:db8::7")
        self.assertEqual(self.address(None), "127.0.0.1")

    def test_from_anybody_else_the_header_means_nothing(self):
        self.assertEqual(self.address("198.51.100.7", peer="203.0.113.9"), "203.0.113.9")
        self.restart(**PUBLIC)
        self.assertEqual(self.address("198.51.100.7"), "127.0.0.1")

    def test_a_header_without_an_address_is_refused(self):
        for value in ("nonsense", "198.51.100.7, ", "198.51.100.7:1234", "[::1]", "a" * 5000, "unknown"):
            caller = Client(host="sessions.example.org", address="127.0.0.1")
            self.check(caller.get("/api/health", headers={"X-Forwarded-For": value}), 400)

    def test_an_address_is_the_same_in_all_its_forms(self):
        for peer, forwarded, seen in (("::ffff:127.0.0.1", "::ffff:198.51.100.7", "198.51.100.7"), ("10.1.2.3", "::FFFF:C633:6407", "198.51.100.7"),
                                      ("10.1.2.3", "fe80::1%eth0\x1b[2J", "fe80::1")):
            self.assertEqual(self.address(forwarded, peer=peer), seen)

    def test_limits_go_by_the_caller_not_by_the_proxy(self):
        opensession.buckets.clear()
        for number in range(30):
            caller = Client(host="sessions.example.org", address="127.0.0.1")
            answer = caller.post("/api/auth/login", {"api_key": "x"}, headers={"X-Forwarded-For": f"198.51.100.{number % 3}"})
            self.check(answer, 401)
        self.check(caller.post("/api/auth/login", {"api_key": "x"}, headers={"X-Forwarded-For": "198.51.100.1"}), 429)
        self.check(caller.post("/api/auth/login", {"api_key": "x"}, headers={"X-Forwarded-For": "9.9.9.9, 198.51.100.1"}), 429)
        self.check(caller.post("/api/auth/login", {"api_key": "x"}, headers={"X-Forwarded-For": "198.51.100.3"}), 401)

    def test_a_setting_that_names_no_address_is_refused(self):
        with self.assertRaises(opensession.BadSetting):
            opensession.configure({"OPENSESSION_TRUSTED_PROXY": "caddy"})

    def test_a_proxy_on_loopback_makes_no_stranger_local(self):
        self.restart()
        opensession.db.batch([("DELETE FROM users", [])])
        self.check(Client(host="sessions.example.org").post("/api/register", {"nickname": "eve"}), 421)
        for header in opensession.PROXY_HEADERS:
            answer = Client().post("/api/register", {"nickname": "eve"}, headers={header: "203.0.113.9"})
            self.assertTrue(self.check(answer, 403).json["setup_required"], header)
        self.check(Client().post("/api/register", {"nickname": "ada"}), 201)

    def test_over_a_socket_too(self):
        with tempfile.TemporaryDirectory() as folder, running_server(folder, OPENSESSION_SETUP="open", OPENSESSION_TRUSTED_PROXY="::1") as server:
            answer = call(server.port, "POST", "/api/register", b'{"nickname": "eve"}', Content_Type="application/json",
                          X_Forwarded_For="203.0.113.9", Host="localhost")
            self.assertEqual(answer.status, 201, answer)
            again = call(server.port, "POST", "/api/register", b'{"nickname": "bob"}', Content_Type="application/json",
                         X_Forwarded_For="203.0.113.9", Host="localhost")
            self.assertEqual(again.status, 403, again)


class OtherSites(ServerCase):
    def test_no_unsafe_route_listens_to_another_site(self):
        self.register("ada")
        unsafe = [route for route in opensession.app.routes if route.method not in opensession.SAFE_METHODS]
        self.assertGreater(len(unsafe), 20)
        for route in unsafe:
            url = re.sub("<[^>]+>", "0", route.rule)
            for origin in ("https://evil.example", "http://localhost:9999", "null", "http://localhost:3000.evil.example"):
                caller = Client(origin=origin)
                caller.cookies = {"opensession": "x"}
                self.check(caller.request(route.method, url, {}), 403, "this request comes from another site")
            caller.origin = None
            self.check(caller.request(route.method, url, {}), 403, "a browser's request must say where it comes from")


if __name__ == "__main__":
    unittest.main()
