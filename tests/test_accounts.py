"""Accounts: who may register, keys and their scopes, browser log-ins, invitations."""

import re
import threading
import unittest
from hashlib import sha256

import opensession
from client import Client, ServerCase, new_event, new_session

PUBLIC = {"HOST": "0.0.0.0", "OPENSESSION_BASE_URL": "https://sessions.example.org"}
OUTSIDE = {"host": "sessions.example.org", "address": "203.0.113.9"}


def outside(number):
    """Somebody else out there."""
    return {**OUTSIDE, "address": f"203.0.113.{number}"}


def at_once(count, call):
    """The results of `call(number)` made by many threads at the same moment."""
    results, start = [None] * count, threading.Barrier(count)

    def run(number):
        start.wait()
        results[number] = call(number)
        opensession.db._connection().close()
    threads = [threading.Thread(target=run, args=[number]) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def try_to_register(nickname, invite=None, **caller):
    return Client(**caller).post("/api/register", {"nickname": nickname} | ({"invite": invite} if invite else {}))


class TheFirstUser(ServerCase):
    def test_the_first_user_is_admin_and_has_a_team_to_upload_to(self):
        ada = self.register("ada")
        self.assertEqual(self.check(ada.post("/api/sessions", {"session": new_session()}), 201).json["status"], "created")
        team, = ada.get("/api/teams").json["teams"]
        self.assertEqual((team["id"], team["name"], team["role"]), (ada.team_id, "ada's team", "admin"))

    def test_the_second_user_is_neither_admin_nor_in_a_team(self):
        self.register("ada")
        answer = self.check(try_to_register("bob"), 201).json
        self.assertEqual((answer["is_admin"], answer["team_id"]), (False, None))

    def test_fifty_at_once_make_one_admin_and_one_team(self):
        answers = at_once(50, lambda number: try_to_register(f"user {number}"))
        self.assertEqual({answer.status for answer in answers}, {201})
        self.assertEqual(sum(answer.json["is_admin"] for answer in answers), 1)
        self.assertEqual(len(self.rows("SELECT id FROM teams")), 1)

    def test_fifty_at_once_under_one_name_make_one_account(self):
        answers = at_once(50, lambda number: try_to_register("ada"))
        self.assertEqual(sorted(answer.status for answer in answers), [201] + [409] * 49)
        self.assertEqual(len(self.rows("SELECT id FROM api_keys")), 1)


class LocalAndPublic(ServerCase):
    def needs_token(self, **caller):
        answer = try_to_register("mallory", **caller)
        if answer.status == 201:
            self.change("DELETE FROM sessions")
            for table in ("team_members", "teams", "users"):
                self.change(f"DELETE FROM {table}")
            return False
        self.check(answer, 403)
        self.assertTrue(answer.json["setup_required"])
        self.assertEqual((answer.json["field"], self.rows("SELECT id FROM users")), ("invite", []))
        return True

    def test_on_loopback_throughout_the_first_comer_is_trusted(self):
        for host in ("localhost:3000", "127.0.0.1:3000", "[::1]:3000", "localhost", "opensession.localhost"):
            for address in ("127.0.0.1", "127.8.8.8", "::1"):
                self.assertFalse(self.needs_token(host=host, address=address), (host, address))

    def test_one_name_that_is_not_loopback_asks_for_the_token(self):
        self.assertTrue(self.needs_token(address="203.0.113.9"))
        self.restart(HOST="0.0.0.0")
        self.assertTrue(self.needs_token())
        self.restart(OPENSESSION_BASE_URL="https://sessions.example.org")
        self.assertTrue(self.needs_token())
        self.restart(OPENSESSION_HOSTS="sessions.example.org")
        self.assertTrue(self.needs_token(host="sessions.example.org"))

    def test_a_name_that_only_begins_like_loopback_is_not_loopback(self):
        for host in ("127.evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "evillocalhost", ""):
            self.check(Client(host=host).get("/api/health"), 421)

    def test_setup_open_trusts_the_first_comer_from_anywhere_but_the_first_only(self):
        self.restart(**PUBLIC, OPENSESSION_SETUP="open")
        self.assertFalse(Client(**OUTSIDE).get("/api/health").json["setup_required"])
        answers = at_once(20, lambda number: try_to_register(f"user {number}", **outside(number)))
        self.assertEqual(sorted(answer.status for answer in answers), [201] + [403] * 19)

    def test_health_says_how_one_gets_an_account(self):
        def health(**caller):
            answer = Client(**caller).get("/api/health").json
            return answer["registration"], answer["setup_required"]
        self.assertEqual(health(), ("open", False))
        self.assertEqual(health(address="203.0.113.9"), ("invite", True))
        self.register("ada")
        self.assertEqual(health(address="203.0.113.9"), ("invite", False))


class TheSetupToken(ServerCase):
    SETTINGS = PUBLIC

    def setUp(self):
        super().setUp()
        self.said = []
        opensession.offer_setup(self.said.append)
        self.token = re.search(r"#setup=(\S+)", self.said[0])[1] if self.said else None

    def test_the_token_is_printed_and_kept_for_the_operator_only(self):
        path = self.folder / "data" / "setup-token"
        self.assertEqual(path.read_text().strip(), self.token)
        self.assertEqual(path.stat().st_mode & 0o777, 0o600)
        self.assertIn("https://sessions.example.org/#setup=", self.said[0])
        self.assertNotIn(self.token, str(self.rows("SELECT * FROM meta")))

    def test_its_file_is_gone_once_it_was_used(self):
        self.register("ada", self.token, **OUTSIDE)
        self.assertFalse((self.folder / "data" / "setup-token").exists())

    def test_a_file_of_an_earlier_start_goes_when_there_is_a_user(self):
        self.register("ada", self.token, **OUTSIDE)
        (self.folder / "data" / "setup-token").write_text("old")
        opensession.offer_setup(self.fail)
        self.assertFalse((self.folder / "data" / "setup-token").exists())

    def test_without_it_or_with_another_nobody_registers(self):
        answers = at_once(50, lambda number: try_to_register(f"user {number}", number % 2 and "wrong", **outside(number)))
        self.assertEqual({(answer.status, answer.json["setup_required"]) for answer in answers}, {(403, True)})
        self.assertEqual(self.rows("SELECT id FROM users"), [])

    def test_of_fifty_who_have_it_one_registers_and_is_admin(self):
        answers = at_once(50, lambda number: try_to_register(f"user {number}", self.token, **outside(number)))
        self.assertEqual(sorted(answer.status for answer in answers), [201] + [403] * 49)
        self.assertEqual(len(self.rows("SELECT id FROM users WHERE is_admin")), 1)
        self.assertEqual(len(self.rows("SELECT id FROM users")), 1)

    def test_it_works_once_and_registration_is_by_invitation_then(self):
        ada = self.register("ada", self.token, **OUTSIDE)
        self.check(try_to_register("bob", self.token, **OUTSIDE), 403, "this invitation is not valid any more")
        self.check(try_to_register("bob", **OUTSIDE), 403, "registration needs an invitation")
        invitation = self.check(ada.post("/api/invitations", {"team_id": ada.team_id}), 201).json
        self.assertTrue(invitation["url"].startswith("https://sessions.example.org/#invite="))
        self.assertEqual(self.register("bob", invitation["code"], **OUTSIDE).team_id, ada.team_id)

    def test_a_new_start_makes_a_new_token_until_there_is_a_user(self):
        again = []
        opensession.offer_setup(again.append)
        self.assertNotIn(self.token, again[0])
        self.check(try_to_register("ada", self.token, **OUTSIDE), 403)
        self.register("ada", re.search(r"#setup=(\S+)", again[0])[1], **OUTSIDE)
        opensession.offer_setup(lambda text: self.fail("a token although there is a user"))

    def test_no_token_is_offered_where_none_is_needed(self):
        for settings in ({}, {**PUBLIC, "OPENSESSION_SETUP": "open"}):
            self.restart(**settings)
            opensession.offer_setup(lambda text: self.fail("a token although none is needed"))

    def test_behind_a_proxy_that_only_the_host_list_names_a_token_is_offered_too(self):
        self.restart(OPENSESSION_HOSTS="sessions.example.org")
        offered = []
        opensession.offer_setup(offered.append)
        token = re.search(r"#setup=(\S+)", offered[0])[1]
        self.register("ada", token, host="sessions.example.org")

    def test_a_closed_server_still_takes_its_first_user(self):
        self.restart(**PUBLIC, OPENSESSION_REGISTRATION="closed")
        self.register("ada", self.token, **OUTSIDE)
        self.check(try_to_register("bob", self.token, **OUTSIDE), 403, "registration is closed on this server")


class RegistrationModes(ServerCase):
    def setUp(self):
        super().setUp()
        self.ada = self.register("ada")
        self.code = self.ada.post("/api/invitations", {}).json["code"]

    def test_open_takes_anybody_and_honours_invitations(self):
        self.restart(**PUBLIC, OPENSESSION_REGISTRATION="open")
        self.register("bob", **OUTSIDE)
        self.register("eve", self.code, **OUTSIDE)
        self.check(try_to_register("max", "wrong", **OUTSIDE), 403, "this invitation is not valid any more")

    def test_invite_takes_the_invited(self):
        self.restart(OPENSESSION_REGISTRATION="invite")
        answer = self.check(try_to_register("bob"), 403, "registration needs an invitation")
        self.assertEqual(answer.json["field"], "invite")
        self.register("bob", self.code)

    def test_closed_takes_nobody(self):
        self.restart(OPENSESSION_REGISTRATION="closed")
        for invite in (None, self.code, "wrong"):
            self.check(try_to_register("bob", invite), 403, "registration is closed on this server")
        self.assertEqual(Client().get("/api/health").json["registration"], "closed")


class Keys(ServerCase):
    def setUp(self):
        super().setUp()
        self.ada, self.bob = self.register("ada"), self.register("bob")

    def new_key(self, scope="full", name="laptop"):
        return self.check(self.ada.post("/api/keys", {"name": name, "scope": scope}), 201).json

    def test_a_key_is_kept_as_its_hash_only(self):
        key = self.ada.key
        self.ada.post("/api/auth/login", {"api_key": key})
        self.assertEqual(len(self.rows("SELECT id FROM api_keys WHERE hash = ?", sha256(key.encode()).hexdigest())), 1)
        opensession.db.execute("PRAGMA wal_checkpoint")
        files = [path.read_bytes() for path in (self.folder / "data").glob("opensession.db*")]
        for secret in (key, self.ada.cookies["opensession"]):
            self.assertFalse(any(secret.encode() in file for file in files))

    def test_a_further_key_is_shown_once(self):
        made = self.new_key("read", " CI ")
        self.assertEqual((made["name"], made["scope"], made["prefix"], made["current"]), ("CI", "read", made["api_key"][:8], False))
        first, second = self.ada.get("/api/keys").json["keys"]
        self.assertEqual((first["name"], first["current"], second["name"], second["current"]), ("default", True, "CI", False))
        self.assertNotIn("api_key", second)
        self.assertNotIn("hash", second)

    def test_a_key_tells_the_day_of_its_last_use(self):
        made = self.new_key()
        self.assertIsNone(made["last_used_on"])
        Client(made["api_key"]).get("/api/auth/me")
        self.assertRegex(self.ada.get("/api/keys").json["keys"][1]["last_used_on"], r"^\d{4}-\d\d-\d\d$")

    def test_a_mistyped_key_is_told_apart_without_the_database(self):
        key = self.ada.key
        for wrong in (key[:-1] + ("a" if key[-1] != "a" else "b"), key[:10] + "é" + key[11:], key + "x", key.upper(), ""):
            self.assertFalse(opensession.well_formed(wrong))
        self.assertTrue(opensession.well_formed(key))

    def test_what_is_no_request_for_a_key_says_why(self):
        for body, field in (({}, "name"), ({"name": 5}, "name"), ({"name": "x", "scope": "root"}, "scope"),
                            ({"name": "x", "scope": 5}, "scope"), ({"name": "a\nb"}, "name")):
            self.assertEqual(self.check(self.ada.post("/api/keys", body), 422).json["field"], field)
        self.check(self.ada.post("/api/keys", {"name": " "}), 400)

    def test_a_revoked_key_is_dead_and_its_logins_too(self):
        made = self.new_key()
        browser, laptop = Client(), Client(made["api_key"])
        self.check(browser.post("/api/auth/login", {"api_key": made["api_key"]}), 200)
        self.check(self.ada.delete(f"/api/keys/{made['id']}"), 204)
        self.check(laptop.get("/api/auth/me"), 401)
        self.check(browser.get("/api/auth/me"), 401)
        self.check(self.ada.delete(f"/api/keys/{made['id']}"), 404, "key not found")

    def test_nobody_revokes_the_key_of_another(self):
        made = self.new_key()
        self.check(self.bob.delete(f"/api/keys/{made['id']}"), 404, "key not found")
        self.check(Client(made["api_key"]).get("/api/auth/me"), 200)

    def test_regenerating_replaces_the_key_that_calls_and_no_other(self):
        made = self.new_key("full", "laptop")
        new = self.check(Client(made["api_key"]).post("/api/auth/regenerate-key"), 200).json["api_key"]
        self.check(Client(made["api_key"]).get("/api/auth/me"), 401)
        self.check(self.ada.get("/api/auth/me"), 200)
        self.assertEqual(Client(new).get("/api/keys").json["keys"][1]["name"], "laptop")

    def test_regenerating_in_the_browser_replaces_the_default_key_and_stays_signed_in(self):
        browser, other = Client(origin="http://localhost:3000"), Client()
        for client in (browser, other):
            self.check(client.post("/api/auth/login", {"api_key": self.ada.key}), 200)
        new = self.check(browser.post("/api/auth/regenerate-key"), 200).json["api_key"]
        self.check(self.ada.get("/api/auth/me"), 401)
        self.check(Client(new).get("/api/auth/me"), 200)
        self.check(browser.get("/api/auth/me"), 200)
        self.check(other.get("/api/auth/me"), 401)

    def test_me_shows_the_beginning_of_the_key_that_calls(self):
        made = self.new_key("read")
        me = Client(made["api_key"]).get("/api/auth/me").json
        self.assertEqual((me["api_key"], me["scope"]), (made["prefix"] + "…", "read"))


# The routes that a key made for daemons, and one made for reading, may call beside what anyone may.
FOR_ANY_KEY = {"POST /api/auth/verify", "GET /api/auth/me"}
FOR_UPLOAD_KEYS = FOR_ANY_KEY | {"POST /api/sessions", "POST /api/sessions/<session_id>/events", "GET /api/config/sync"}


class Scopes(ServerCase):
    def may_call(self, scope):
        """The routes that a key of this scope gets through to, among those that ask for a key."""
        ada = self.register("ada")
        key = ada.post("/api/keys", {"name": scope, "scope": scope}).json["api_key"]
        asking = [route for route in opensession.app.routes if {"user", "reader"} & set(route.get_callback_args())]
        allowed = set()
        for route in asking:
            url = re.sub(r"<(\w+)(:int)?>", "0", route.rule)
            answer = Client(key).request(route.method, url, {} if route.method in ("POST", "PUT") else None)
            if answer.status == 403 and "this key may only" in answer.json["error"]:
                continue
            self.assertNotEqual(answer.status, 401, url)
            allowed.add(f"{route.method} {route.rule}")
        return allowed, {f"{route.method} {route.rule}" for route in asking}

    def test_an_upload_key_uploads_and_no_more(self):
        allowed, _ = self.may_call("upload")
        self.assertEqual(allowed, FOR_UPLOAD_KEYS)

    def test_a_read_key_reads_and_no_more(self):
        allowed, all_routes = self.may_call("read")
        self.assertEqual(allowed, FOR_ANY_KEY | {route for route in all_routes if route.startswith("GET ")})

    def test_a_login_with_a_narrow_key_is_as_narrow(self):
        ada = self.register("ada")
        key = ada.post("/api/keys", {"name": "r", "scope": "read"}).json["api_key"]
        browser = Client(origin="http://localhost:3000")
        self.check(browser.post("/api/auth/login", {"api_key": key}), 200)
        self.check(browser.get("/api/teams"), 200)
        self.check(browser.post("/api/teams", {"name": "x"}), 403)

    def test_an_upload_key_cannot_make_itself_wider(self):
        ada = self.register("ada")
        key = ada.post("/api/keys", {"name": "u", "scope": "upload"}).json["api_key"]
        self.check(Client(key).post("/api/keys", {"name": "x", "scope": "full"}), 403)
        session = self.upload(Client(key), team_id=ada.team_id)
        self.check(Client(key).get(f"/api/sessions/{session}"), 403)
        self.check(Client(key).delete(f"/api/sessions/{session}"), 403)
        self.check(Client(key).post(f"/api/sessions/{session}/events", {"events": [new_event(at=9)]}), 200)


class BrowserLogins(ServerCase):
    def setUp(self):
        super().setUp()
        self.ada = self.register("ada")
        self.browser = Client(origin="http://localhost:3000")

    def login(self):
        return self.check(self.browser.post("/api/auth/login", {"api_key": f" {self.ada.key}\n"}), 200)

    def test_a_login_gives_a_cookie_that_scripts_and_other_sites_do_not_get(self):
        answer = self.login()
        self.assertEqual(answer.json, {"user_id": self.ada.user_id, "nickname": "ada", "is_admin": True})
        cookie = answer.headers["Set-Cookie"].lower()
        for part in ("httponly", "samesite=lax", "path=/", "max-age=2592000"):
            self.assertIn(part, cookie)
        self.assertNotIn("secure", cookie)
        self.assertNotIn(self.ada.key.lower(), cookie)
        self.assertEqual(self.browser.get("/api/auth/me").json["nickname"], "ada")

    def test_behind_https_the_cookie_is_secure(self):
        self.restart(**PUBLIC)
        self.browser = Client(origin="https://sessions.example.org", **OUTSIDE)
        self.assertIn("; secure", self.login().headers["Set-Cookie"].lower())

    def test_behind_https_no_other_host_of_the_site_can_set_the_cookie(self):
        self.restart(**PUBLIC)
        self.browser = Client(origin="https://sessions.example.org", **OUTSIDE)
        self.assertRegex(self.login().headers["Set-Cookie"], "^__Host-opensession=.*Path=/")
        self.assertNotIn("domain=", self.login().headers["Set-Cookie"].lower())
        planted = Client(origin="https://sessions.example.org", **OUTSIDE)
        planted.cookies = {"opensession": self.browser.cookies["__Host-opensession"]}
        self.check(planted.get("/api/auth/me"), 401)
        left = self.check(self.browser.post("/api/auth/logout"), 204)
        self.assertIn("; secure", left.headers["Set-Cookie"].lower())       # or the browser would keep it
        self.assertEqual(self.browser.cookies, {})

    def test_a_wrong_key_signs_nobody_in(self):
        for body, status in (({"api_key": "osk_nope"}, 401), ({}, 422), ({"api_key": 5}, 422), ([], 400)):
            answer = self.check(self.browser.post("/api/auth/login", body), status)
            self.assertIsNone(answer.headers["Set-Cookie"])

    def test_signing_out_ends_this_browsers_login_only(self):
        self.login()
        stolen, other = dict(self.browser.cookies), Client()
        other.post("/api/auth/login", {"api_key": self.ada.key})
        self.check(self.browser.post("/api/auth/logout"), 204)
        self.assertEqual(self.browser.cookies, {})
        self.browser.cookies = stolen
        self.check(self.browser.get("/api/auth/me"), 401)
        self.check(other.get("/api/auth/me"), 200)

    def test_signing_out_twice_is_no_error(self):
        self.check(self.browser.post("/api/auth/logout"), 204)

    def test_a_login_ends_after_its_time(self):
        self.login()
        self.change("UPDATE logins SET expires_at = '2020-01-01T00:00:00.000Z'")
        self.check(self.browser.get("/api/auth/me"), 401)

    def test_a_login_dies_with_its_key(self):
        self.login()
        self.ada.post("/api/auth/regenerate-key")
        self.check(self.browser.get("/api/auth/me"), 401)

    def test_a_made_up_cookie_is_401_even_where_nobody_may_read(self):
        for value in ("x", "a" * 4000, "x; opensession=y"):
            self.browser.cookies = {"opensession": value}
            self.check(self.browser.get("/api/sessions"), 401)

    def test_a_cookie_header_that_is_none_is_as_good_as_none(self):
        for value in ("", "\xe9", '"', "opensession", "opensession=", "=;;=", "path=x; a:b=c", "\x01=2"):
            self.check(Client().get("/api/auth/me", headers={"Cookie": value}), 401)


class OtherSites(ServerCase):
    def setUp(self):
        super().setUp()
        self.ada = self.register("ada")
        self.browser = Client(origin="http://localhost:3000")
        self.browser.post("/api/auth/login", {"api_key": self.ada.key})

    def test_an_unsafe_request_of_another_origin_is_refused(self):
        for origin in ("http://localhost:9999", "https://evil.example", "null", "http://localhost.evil.example:3000",
                       "http://evil.example/localhost:3000", "file://", "\xe9"):
            self.browser.origin = origin
            for method, url in (("POST", "/api/teams"), ("PUT", "/api/config/sync"), ("DELETE", f"/api/teams/{self.ada.team_id}")):
                self.check(self.browser.request(method, url, {"name": "x"}), 403, "this request comes from another site")
        self.assertEqual(len(self.rows("SELECT id FROM teams")), 1)

    def test_our_own_page_may_do_it(self):
        self.check(self.browser.post("/api/teams", {"name": "x"}), 201)

    def test_a_request_with_a_cookie_must_say_where_it_comes_from(self):
        self.browser.origin = None
        self.check(self.browser.post("/api/teams", {"name": "x"}), 403)
        self.check(self.browser.post("/api/teams", {"name": "x"}, headers={"Sec-Fetch-Site": "cross-site"}), 403)
        self.check(self.browser.post("/api/teams", {"name": "x"}, headers={"Sec-Fetch-Site": "same-origin"}), 201)

    def test_another_site_cannot_sign_somebody_in_or_register(self):
        stranger = Client(origin="https://evil.example")
        self.check(stranger.post("/api/auth/login", {"api_key": self.ada.key}), 403)
        self.check(stranger.post("/api/register", {"nickname": "max"}), 403)

    def test_a_key_needs_no_origin_and_wins_over_a_cookie(self):
        bob = self.register("bob", origin="http://localhost:3000")
        bob.cookies, bob.origin = dict(self.browser.cookies), "https://elsewhere.example"
        self.check(bob.post("/api/teams", {"name": "x"}), 403, "admin only")

    def test_no_cross_origin_header_is_ever_sent(self):
        answer = self.browser.get("/api/sessions", headers={"Origin": "https://evil.example"})
        self.assertFalse([name for name in answer.headers.keys() if name.lower().startswith("access-control")])

    def test_a_host_that_is_not_ours_is_refused(self):
        for host in ("evil.example", "evil.example:3000", "localhost@evil.example", "\xe9"):
            self.check(Client(self.ada.key, host=host).get("/api/auth/me"), 421)
        self.restart(OPENSESSION_HOSTS="Sessions.Example.org, other.example", OPENSESSION_BASE_URL="https://main.example/")
        for host in ("sessions.example.org", "OTHER.example:8443", "main.example", "localhost:3000"):
            self.check(Client(self.ada.key, host=host).get("/api/auth/me"), 200)


class Invitations(ServerCase):
    def setUp(self):
        super().setUp()
        self.ada, self.bob, self.eve = (self.register(name) for name in ("ada", "bob", "eve"))
        self.team = self.new_team(self.ada, "core", [(self.bob, "admin")])

    def invite(self, by=None, **body):
        return self.check((by or self.ada).post("/api/invitations", {"team_id": self.team, **body}), 201).json

    def role_of(self, client):
        rows = self.rows("SELECT role FROM team_members WHERE team_id = ? AND user_id = ?", self.team, client.user_id)
        return rows[0]["role"] if rows else None

    def test_an_invitation_brings_a_new_user_into_the_team_in_its_role(self):
        for role in ("viewer", "member", "admin"):
            newcomer = self.register(f"new {role}", self.invite(role=role)["code"])
            self.assertEqual(self.role_of(newcomer), role)

    def test_a_user_accepts_an_invitation(self):
        team = self.check(self.eve.post("/api/invitations/accept", {"code": self.invite()["code"]}), 200).json
        self.assertEqual((team["id"], team["name"], team["role"]), (self.team, "core", "member"))
        self.assertEqual(self.role_of(self.eve), "member")

    def test_it_works_once(self):
        code = self.invite()["code"]
        self.check(self.eve.post("/api/invitations/accept", {"code": code}), 200)
        self.check(self.register("max").post("/api/invitations/accept", {"code": code}), 404)
        self.check(try_to_register("moe", code), 403, "this invitation is not valid any more")
        self.assertIsNotNone(self.ada.get("/api/invitations").json["invitations"][0]["used_at"])

    def test_of_many_who_use_it_at_once_one_gets_in(self):
        code = self.invite()["code"]
        answers = at_once(20, lambda number: try_to_register(f"user {number}", code))
        self.assertEqual(sorted(answer.status for answer in answers), [201] + [403] * 19)
        self.assertEqual(len(self.rows("SELECT user_id FROM team_members WHERE team_id = ?", self.team)), 3)
        code = self.invite()["code"]
        people = [self.register(f"person {number}") for number in range(8)]
        answers = at_once(8, lambda number: people[number].post("/api/invitations/accept", {"code": code}))
        self.assertEqual(sorted(answer.status for answer in answers), [200] + [404] * 7)

    def test_it_ends_after_a_week(self):
        made = self.invite()
        self.assertGreater(made["expires_at"], made["created_at"])
        self.change("UPDATE invitations SET expires_at = '2020-01-01T00:00:00.000Z'")
        self.check(self.eve.post("/api/invitations/accept", {"code": made["code"]}), 404)
        self.check(try_to_register("max", made["code"]), 403)

    def test_a_member_who_accepts_stays_what_they_are_and_the_code_stays_good(self):
        code = self.invite(role="viewer")["code"]
        self.check(self.bob.post("/api/invitations/accept", {"code": code}), 409, "already a member")
        self.assertEqual(self.role_of(self.bob), "admin")
        self.check(self.eve.post("/api/invitations/accept", {"code": code}), 200)

    def test_an_invitation_to_the_server_alone_is_not_used_up_by_who_has_an_account(self):
        code = self.check(self.ada.post("/api/invitations", {}), 201).json["code"]
        self.check(self.eve.post("/api/invitations/accept", {"code": code}), 404)
        self.assertIsNone(self.register("max", code).team_id)

    def test_the_code_is_shown_once_and_kept_as_its_hash(self):
        made = self.invite()
        self.assertEqual(made["url"], f"http://localhost:3000/#invite={made['code']}")
        listed, = self.ada.get("/api/invitations").json["invitations"]
        self.assertEqual(list(listed), ["id", "team_id", "team_name", "role", "created_by", "created_at", "expires_at", "used_at"])
        self.assertEqual((listed["team_name"], listed["created_by"], listed["used_at"]), ("core", "ada", None))
        self.assertNotIn(made["code"], str(self.rows("SELECT * FROM invitations")))

    def test_team_admins_invite_to_their_team_others_to_none(self):
        self.invite(self.bob)
        other = self.new_team(self.ada, "other")
        for caller, body in ((self.bob, {"team_id": other}), (self.bob, {}), (self.eve, {"team_id": self.team}),
                             (self.eve, {"team_id": "unknown"})):
            self.check(caller.post("/api/invitations", body), 403, "admin only")
        self.check(self.ada.post("/api/invitations", {"team_id": "unknown"}), 404, "team not found")
        for body in ({"role": "owner"}, {"role": 5}, {"team_id": 5}):
            self.check(self.ada.post("/api/invitations", body), 422)

    def test_everybody_sees_and_revokes_those_they_answer_for(self):
        by_ada, by_bob = self.invite(), self.invite(self.bob)
        to_server = self.ada.post("/api/invitations", {}).json

        def seen(client):
            return {each["id"] for each in client.get("/api/invitations").json["invitations"]}
        self.assertEqual(seen(self.ada), {by_ada["id"], by_bob["id"], to_server["id"]})
        self.assertEqual(seen(self.bob), {by_ada["id"], by_bob["id"]})
        self.assertEqual(seen(self.eve), set())
        self.check(self.eve.delete(f"/api/invitations/{by_ada['id']}"), 404, "invitation not found")
        self.check(self.bob.delete(f"/api/invitations/{to_server['id']}"), 404, "invitation not found")
        self.check(self.bob.delete(f"/api/invitations/{by_ada['id']}"), 204)
        self.check(self.eve.post("/api/invitations/accept", {"code": by_ada["code"]}), 404)

    def test_a_name_that_is_taken_does_not_use_an_invitation_up(self):
        code = self.invite()["code"]
        self.check(try_to_register("eve", code), 409, "nickname already taken")
        self.register("max", code)

    def test_who_was_admin_of_a_team_once_invites_to_it_no_more(self):
        made = self.invite(self.bob)
        self.ada.delete(f"/api/teams/{self.team}/members/{self.bob.user_id}")
        self.check(self.bob.post("/api/invitations", {"team_id": self.team}), 403)
        self.check(self.bob.delete(f"/api/invitations/{made['id']}"), 204)


class SignedInEverywhere(ServerCase):
    def setUp(self):
        super().setUp()
        self.ada, self.bob = self.register("ada"), self.register("bob")
        self.desk, self.phone, self.bobs = (self.browser(user) for user in (self.ada, self.ada, self.bob))

    def browser(self, user):
        browser = Client(origin="http://localhost:3000")
        self.check(browser.post("/api/auth/login", {"api_key": user.key}), 200)
        return browser

    def test_one_sees_where_one_is_signed_in(self):
        logins = self.desk.get("/api/auth/logins").json["logins"]
        self.assertEqual([login["current"] for login in logins].count(True), 1)
        self.assertEqual({(login["key_name"], login["last_used_on"]) for login in logins if login["current"]},
                         {("default", opensession.now()[:10])})
        self.assertEqual([login["current"] for login in self.ada.get("/api/auth/logins").json["logins"]], [False, False])
        self.assertEqual({login["last_used_on"] for login in logins if not login["current"]}, {None})
        self.assertNotIn("hash", str(logins))

    def test_a_log_in_that_has_ended_is_not_shown(self):
        self.change("UPDATE logins SET expires_at = '2020-01-01T00:00:00.000Z' WHERE user_id = ?", self.ada.user_id)
        self.assertEqual(self.ada.get("/api/auth/logins").json["logins"], [])
        opensession.forget_old(opensession.db)
        self.assertEqual([row["user_id"] for row in self.rows("SELECT user_id FROM logins")], [self.bob.user_id])

    def test_one_signs_out_everywhere_at_once_and_keys_go_on(self):
        self.check(self.phone.delete("/api/auth/logins"), 204)
        self.assertEqual(self.phone.cookies, {})
        self.check(self.desk.get("/api/auth/me"), 401)
        self.check(self.ada.get("/api/auth/me"), 200)
        self.check(self.bobs.get("/api/auth/me"), 200)

    def test_a_log_in_dies_with_its_key(self):
        key, = self.ada.get("/api/keys").json["keys"]
        self.check(self.desk.get("/api/auth/me"), 200)
        self.ada.delete(f"/api/keys/{key['id']}")
        self.check(self.desk.get("/api/auth/me"), 401)
        self.check(self.ada.get("/api/auth/me"), 401)


class TheAudit(ServerCase):
    def test_what_people_do_to_accounts_is_written_down_without_names_or_keys(self):
        ada = self.register("ada")
        key = ada.post("/api/keys", {"name": "x"}).json
        ada.delete(f"/api/keys/{key['id']}")
        rows = self.rows("SELECT * FROM audit ORDER BY no")
        self.assertEqual([row["action"] for row in rows], ["setup", "key.create", "key.revoke"])
        self.assertEqual((rows[1]["user_id"], rows[1]["object"], rows[1]["address"]), (ada.user_id, key["id"], "127.0.0.1"))
        self.assertNotIn(key["api_key"], str(rows))


if __name__ == "__main__":
    unittest.main()
