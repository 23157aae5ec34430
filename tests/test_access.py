"""Who gets what from every route: one table.

Each line is a real call: route, body, and the status for
    nobody · a stranger · a viewer · a member · the uploader · a team admin · a server admin who is not in the team ·
    the uploader's key for uploads · the uploader's key for reading.
A second row of statuses is for the same call where the team is public.  A route of the
server without a line fails.  In URLs and bodies, {names} stand for what `World` makes."""

import re
import unittest

import opensession
from client import Client, ServerCase, new_event, new_session

CALLERS = ("nobody", "eve", "vic", "bob", "una", "tom", "ada", "upload key", "read key")
EVENTS = {"events": [new_event(at=9)]}

TABLE = [
    # route, body                                                                       private team, and below it a public one where that differs
    ("GET /api/health", None,                                                           "200 200 200 200 200 200 200 200 200"),
    ("GET /api", None,                                                                  "200 200 200 200 200 200 200 200 200"),
    ("POST /api/register", {"nickname": "{fresh}"},                                     "201 201 201 201 201 201 201 201 201"),
    ("GET /metrics", None,                                                              "404 404 404 404 404 404 404 404 404"),
    ("GET /api/auth/logins", None,                                                      "401 200 200 200 200 200 200 403 200"),
    ("DELETE /api/auth/logins", None,                                                   "401 204 204 204 204 204 204 403 403"),
    ("GET /api/users", None,                                                            "401 403 403 403 403 403 200 403 403"),
    ("DELETE /api/users/<user_id>?sessions=keep", None,                                 "401 403 403 403 403 403 204 403 403"),
    ("GET /api/audit", None,                                                            "401 403 403 403 403 403 200 403 403"),
    ("GET /api/audit?team_id={team_id}", None,                                          "401 403 403 403 403 200 200 403 403"),
    ("GET /api/audit?team_id={unknown_team_id}", None,                                  "401 403 403 403 403 403 404 403 403"),
    ("POST /api/auth/login", {"api_key": "{key}"},                                      "200 200 200 200 200 200 200 200 200"),
    ("POST /api/auth/logout", None,                                                     "204 204 204 204 204 204 204 204 204"),
    ("POST /api/auth/verify", None,                                                     "401 200 200 200 200 200 200 200 200"),
    ("GET /api/auth/me", None,                                                          "401 200 200 200 200 200 200 200 200"),
    ("POST /api/auth/regenerate-key", None,                                             "401 200 200 200 200 200 200 403 403"),
    ("GET /api/keys", None,                                                             "401 200 200 200 200 200 200 403 200"),
    ("POST /api/keys", {"name": "{fresh}"},                                             "401 201 201 201 201 201 201 403 403"),
    ("DELETE /api/keys/<key_id>", None,                                                 "401 404 404 404 404 404 404 403 403"),
    ("DELETE /api/keys/<own_key_id>", None,                                             "401 204 204 204 204 204 204 403 403"),
    ("GET /api/invitations", None,                                                      "401 200 200 200 200 200 200 403 200"),
    ("POST /api/invitations", {},                                                       "401 403 403 403 403 403 201 403 403"),
    ("POST /api/invitations", {"team_id": "{team_id}"},                                 "401 403 403 403 403 201 201 403 403"),
    ("DELETE /api/invitations/<invitation_id>", None,                                   "401 404 404 404 404 204 204 403 403"),
    ("POST /api/invitations/accept", {"code": "{code}"},                                "401 200 409 409 409 409 200 403 403"),
    ("GET /api/teams", None,                                                            "401 200 200 200 200 200 200 403 200"),
    ("POST /api/teams", {"name": "{fresh}"},                                            "401 403 403 403 403 403 201 403 403"),
    ("GET /api/teams/<team_id>", None,                                                  "404 404 200 200 200 200 404 403 200",
                                                                                        "200 200 200 200 200 200 200 403 200"),
    ("PUT /api/teams/<team_id>", {"name": "{fresh}"},                                   "401 403 403 403 403 200 200 403 403"),
    ("PUT /api/teams/<unknown_team_id>", {"name": "{fresh}"},                           "401 403 403 403 403 403 404 403 403"),
    ("DELETE /api/teams/<doomed_team_id>", None,                                        "401 403 403 403 403 204 204 403 403"),
    ("DELETE /api/teams/<unknown_team_id>", None,                                       "401 403 403 403 403 403 404 403 403"),
    ("GET /api/teams/<team_id>/members", None,                                          "401 404 200 200 200 200 200 403 200"),
    ("POST /api/teams/<team_id>/members", {"nickname": "{newcomer}"},                   "401 403 403 403 403 201 201 403 403"),
    ("PUT /api/teams/<team_id>/members/<user_id>", {"role": "viewer"},                  "401 403 403 403 403 200 200 403 403"),
    ("DELETE /api/teams/<team_id>/members/<user_id>", None,                             "401 403 403 403 403 204 204 403 403"),
    ("DELETE /api/teams/{joined_team_id}/members/{caller_id}", None,                    "401 204 204 204 204 204 204 403 403"),
    ("GET /api/sessions", None,                                                         "200 200 200 200 200 200 200 403 200"),
    ("POST /api/sessions", {"session": new_session(), "team_id": "{team_id}"},          "401 403 403 201 201 201 403 200 403"),
    ("GET /api/sessions/<session_id>", None,                                            "404 404 200 200 200 200 404 403 200",
                                                                                        "200 200 200 200 200 200 200 403 200"),
    ("GET /api/activity?month=2026-02", None,                                           "200 200 200 200 200 200 200 403 200"),
    ("PUT /api/sessions/<session_id>", {"title": "{fresh}"},                            "401 404 403 403 200 200 404 403 403",
                                                                                        "401 403 403 403 200 200 403 403 403"),
    ("PUT /api/sessions/<session_id>", {"team_id": "{team_id}"},                        "401 404 403 403 200 200 404 403 403",
                                                                                        "401 403 403 403 200 200 403 403 403"),
    ("PUT /api/sessions/<session_id>", {"team_id": "{other_team_id}"},                  "401 404 403 403 200 403 404 403 403",
                                                                                        "401 403 403 403 200 403 403 403 403"),
    ("GET /api/sessions/<session_id>/outline", None,                                    "404 404 200 200 200 200 404 403 200",
                                                                                        "200 200 200 200 200 200 200 403 200"),
    ("GET /api/sessions/<session_id>/map", None,                                        "404 404 200 200 200 200 404 403 200",
                                                                                        "200 200 200 200 200 200 200 403 200"),
    ("DELETE /api/sessions/<session_id>", None,                                         "401 404 403 403 204 204 404 403 403",
                                                                                        "401 403 403 403 204 204 403 403 403"),
    ("POST /api/sessions/<session_id>/redact", None,                                    "401 404 403 403 200 200 404 403 403",
                                                                                        "401 403 403 403 200 200 403 403 403"),
    ("GET /api/sessions/<session_id>/raw", None,                                        "404 404 200 200 200 200 404 403 200",
                                                                                        "200 200 200 200 200 200 200 403 200"),
    ("GET /api/sessions/<session_id>/events", None,                                     "404 404 200 200 200 200 404 403 200",
                                                                                        "200 200 200 200 200 200 200 403 200"),
    ("POST /api/sessions/<session_id>/events", EVENTS,                                  "401 404 403 403 200 403 404 200 403",
                                                                                        "401 403 403 403 200 403 403 200 403"),
    ("GET /api/search?q=spoon", None,                                                   "200 200 200 200 200 200 200 403 200"),
    ("GET /api/sessions/<session_id>/events/<ordinal:int>", None,                       "404 404 200 200 200 200 404 403 200",
                                                                                        "200 200 200 200 200 200 200 403 200"),
    ("GET /api/sync/pull?team_id={team_id}", None,                                      "401 403 200 200 200 200 403 403 200"),
    ("GET /api/config/sync", None,                                                      "401 200 200 200 200 200 200 200 200"),
    ("PUT /api/config/sync", {"privacy": {}},                                           "401 403 403 403 403 403 200 403 403"),
    ("GET /", None,                                                                     "200 200 200 200 200 200 200 200 200"),
    ("GET /v/<version>/<path:path>", None,                                              "404 404 404 404 404 404 404 404 404"),
    ("GET /<path:path>", None,                                                          "200 200 200 200 200 200 200 200 200"),
]


def rule_of(route):
    """The rule that the server must have for a line of the table: our own names of ids are its ids."""
    rule = re.sub("{(?:joined_)?(team_id)}", r"<\1>", route.partition("?")[0]).replace("{caller_id}", "<user_id>")
    return re.sub("<(own|unknown|doomed)_", "<", rule)


class AccessCase(ServerCase):
    """A team with one of each; ids that a call uses up are made afresh for it."""

    def setUp(self):
        super().setUp()
        self.callers = {name: self.register(name) for name in reversed(CALLERS[1:7])} | {"nobody": Client()}
        una = self.callers["una"]
        for scope in ("upload", "read"):
            self.callers[f"{scope} key"] = Client(una.post("/api/keys", {"name": scope, "scope": scope}).json["api_key"])
        self.ada = self.callers["ada"]
        self.team_id = self.new_team(self.ada, "core", [
            (self.callers[name], role) for name, role in
            (("tom", "admin"), ("una", "member"), ("bob", "member"), ("vic", "viewer"))])
        self.ada.delete(f"/api/teams/{self.team_id}/members/{self.ada.user_id}")
        self.count, self.session = 0, None

    def fresh(self, caller):
        self.count += 1
        return f"fresh {self.count}"

    def newcomer(self, caller):
        return self.register(self.fresh(caller)).nickname

    def user_id(self, caller):
        """Somebody who has just joined the team."""
        user = self.register(self.fresh(caller))
        self.ada.post(f"/api/teams/{self.team_id}/members", {"nickname": user.nickname})
        return user.user_id

    def caller_id(self, caller):
        return caller.user_id or self.ada.user_id

    def joined_team_id(self, caller):
        """A team that the caller is a viewer of."""
        return self.new_team(self.ada, self.fresh(caller), [(caller, "viewer")] if caller.key and caller is not self.ada else [])

    def doomed_team_id(self, caller):
        """Another team with the same roles."""
        return self.new_team(self.ada, self.fresh(caller), [(self.callers["tom"], "admin"), self.callers["bob"]])

    def session_id(self, caller):
        if not self.rows("SELECT 1 FROM sessions WHERE id = ?", self.session):
            self.session = self.upload(self.callers["una"], team_id=self.team_id)
        return self.session

    def other_team_id(self, caller):
        """A team that the uploader belongs to, too; what is there already comes back first."""
        self.change("UPDATE sessions SET team_id = ? WHERE id = ?", self.team_id, self.session)
        return self.new_team(self.ada, self.fresh(caller), [self.callers["una"]])

    def invitation_id(self, caller):
        return self.ada.post("/api/invitations", {"team_id": self.team_id}).json["id"]

    def code(self, caller):
        return self.ada.post("/api/invitations", {"team_id": self.team_id}).json["code"]

    def key(self, caller):
        return self.callers["eve"].key

    def key_id(self, caller):
        """The key of somebody else."""
        user = self.register(self.fresh(caller))
        return self.rows("SELECT id FROM api_keys WHERE user_id = ?", user.user_id)[0]["id"]

    def own_key_id(self, caller):
        if not caller.key:
            return self.key_id(caller)
        return caller.post("/api/keys", {"name": "x"}).json["id"]

    unknown_team_id, ordinal, path, version = "0000", "0", "some/page", "0123456789ab"

    def fill(self, text, caller):
        """A text with every {name} in it replaced by something that is there."""
        def value(match):
            made = getattr(self, match[1])
            return made(caller) if callable(made) else made
        return re.sub(r"\{(\w+)\}", value, text)

    def call(self, name, route, body):
        method, _, url = route.partition(" ")
        known = self.callers["una" if name.endswith(" key") else name]
        caller = Client(self.callers[name].key)
        url = self.fill(re.sub(r"<(\w+)(:\w+)?>", r"{\1}", url), known)
        if body:
            body = {key: self.fill(value, known) if isinstance(value, str) else value for key, value in body.items()}
        answer = caller.request(method, url, body)
        if method == "GET":
            self.assertEqual(caller.request("HEAD", url).status, answer.status, "HEAD differs from GET")
        if route.endswith("regenerate-key") and answer.status == 200:
            known.key = answer.json["api_key"]
        if route.endswith("invitations/accept") and answer.status == 200:
            self.check(self.ada.delete(f"/api/teams/{self.team_id}/members/{known.user_id}"), 204)
        return answer


class EveryRoute(AccessCase):
    def test_every_route_has_a_line_and_every_line_a_route(self):
        routes = {f"{route.method} {route.rule}" for route in opensession.app.routes}
        self.assertEqual(routes, {rule_of(line[0]) for line in TABLE})

    def check_table(self, column):
        for route, body, *expected in TABLE:
            found = {name: self.call(name, route, body) for name in CALLERS}
            statuses = " ".join(str(answer.status) for answer in found.values())
            with self.subTest(route, body=str(body)[:60]):
                self.assertEqual(statuses, expected[min(column, len(expected) - 1)])
                for answer in found.values():
                    if answer.status >= 400:
                        self.assertIsInstance(answer.json["error"], str)

    def test_in_a_private_team(self):
        self.check_table(0)

    def test_in_a_public_team(self):
        self.ada.put(f"/api/teams/{self.team_id}", {"is_public": True})
        self.check_table(1)


MEMBERS = ("vic", "bob", "una", "tom", "read key")
READERS = [name for name in CALLERS if name != "upload key"]


class NothingLeaksIntoLists(AccessCase):
    """What a list answers with 200 must hold only what its caller may read."""

    LISTS = ["/api/sessions", "/api/sessions?search=secret", "/api/sessions?team_id={team_id}", "/api/sessions?sort=longest",
             "/api/sessions?user_id={una}", "/api/sessions?tool=claude-code", "/api/sessions?project=plan"]

    def seen(self, name, urls):
        caller = self.callers[name]
        found = set()
        self.index()
        for url in urls:
            answer = caller.get(url.format(team_id=self.team_id, una=self.callers["una"].user_id))
            listed = self.check(answer, 200).json
            self.assertEqual(len(listed["sessions"]), listed["total"])
            found.add(listed["total"])
        return found

    def test_a_list_shows_a_private_team_to_its_members_only(self):
        self.upload(self.callers["una"], new_session(title="secret", attributes={"project": "plan"}), self.team_id)
        for name in READERS:
            self.assertEqual(self.seen(name, self.LISTS), {1} if name in MEMBERS else {0}, name)
        self.ada.put(f"/api/teams/{self.team_id}", {"is_public": True})
        for name in READERS:
            self.assertEqual(self.seen(name, self.LISTS), {1}, name)

    def test_helpers_are_listed_below_their_parent_for_who_may_read_it(self):
        parent = self.upload(self.callers["una"], new_session("parent"), self.team_id)
        self.upload(self.callers["una"], new_session("child", attributes={"parent_session_id": "parent"}), self.team_id)
        for name in READERS:
            reads = name in MEMBERS
            self.assertEqual(self.seen(name, [f"/api/sessions?parent={parent}"]), {int(reads)}, name)

    def test_a_family_never_reaches_into_another_team(self):
        una = self.callers["una"]
        other = self.new_team(self.ada, "other", [una])
        parent = self.upload(una, new_session("parent", title="secret"), other)
        child = self.upload(una, new_session("child", attributes={"parent_session_id": "parent"}), self.team_id)
        self.ada.put(f"/api/teams/{self.team_id}", {"is_public": True})
        found = self.check(Client().get(f"/api/sessions/{child}"), 200)
        self.assertEqual((found.json["parent"], found.json["parent_id"], b"secret" in found.body), (None, None, False))
        above = una.get(f"/api/sessions/{parent}").json
        self.assertEqual((above["children"], above["child_count"]), ([], 0))
        self.assertEqual(self.seen("nobody", ["/api/sessions"]), {1})



if __name__ == "__main__":
    unittest.main()
