"""Going: out of a team, with an account, with a whole team - and what becomes of the sessions."""

import unittest

import opensession
from client import Client, ServerCase, new_event, new_session


class LeavingCase(ServerCase):
    """ada administrates the server; tom the team; una and bob belong to it and una uploaded a family of two."""

    def setUp(self):
        super().setUp()
        self.ada, self.tom, self.una, self.bob = (self.register(name) for name in ("ada", "tom", "una", "bob"))
        self.team = self.new_team(self.ada, "core", [(self.tom, "admin"), self.una, self.bob])
        self.ada.delete(f"/api/teams/{self.team}/members/{self.ada.user_id}")
        self.url = f"/api/teams/{self.team}"
        self.parent = self.upload(self.una, new_session("parent"), self.team)
        self.child = self.upload(self.una, new_session("child", attributes={"parent_session_id": "parent"}), self.team)
        self.theirs = self.upload(self.bob, new_session("bob's"), self.team)
        self.index()

    def listed(self, caller=None, query=""):
        return {each["id"] for each in self.check((caller or self.bob).get(f"/api/sessions{query}"), 200).json["sessions"]}

    def pull(self, caller, since=""):
        return self.check(caller.get(f"/api/sync/pull?team_id={self.team}&since={since}"), 200).json

    def found(self, caller, word="spoon"):
        self.index()
        return {hit["session"]["id"] for hit in self.check(caller.get(f"/api/search?q={word}"), 200).json["hits"]}

    def bodies(self):
        return {path.name.partition(".")[0] for path in (self.folder / "data/bodies").glob("*/*")}

    def acts(self, action):
        return [(row["user_id"], row["object"], row["team_id"]) for row in self.rows("SELECT * FROM audit WHERE action = ?", action)]


class LeavingATeam(LeavingCase):
    def leave(self, caller):
        return caller.delete(f"{self.url}/members/{caller.user_id}")

    def test_who_leaves_reads_nothing_more_and_what_they_uploaded_stays(self):
        self.check(self.leave(self.una), 204)
        self.check(self.una.get(f"/api/sessions/{self.parent}"), 404)
        self.assertEqual((self.listed(self.una), self.found(self.una)), (set(), set()))
        self.check(self.una.post("/api/sessions", {"session": new_session(), "team_id": self.team}), 403)
        told = self.una.post(f"/api/sessions/{self.parent}/events", {"events": [new_event()], "base_revision": 99})
        self.assertNotIn("chain", self.check(told, 403).json)
        self.assertEqual(self.listed(), {self.parent, self.theirs})
        self.assertEqual(self.acts("member.leave")[1:], [(self.una.user_id, self.una.user_id, self.team)])
        self.check(self.leave(self.una), 404)

    def test_a_removal_holds_at_once_for_cookies_and_keys(self):
        browser = Client(origin="http://localhost:3000")
        browser.post("/api/auth/login", {"api_key": self.una.key})
        read = self.una.post("/api/keys", {"name": "x", "scope": "read"}).json["api_key"]
        for caller in (browser, Client(read)):
            self.check(caller.get(f"/api/sessions/{self.parent}"), 200)
        self.check(self.tom.delete(f"{self.url}/members/{self.una.user_id}"), 204)
        for caller in (browser, Client(read)):
            self.check(caller.get(f"/api/sessions/{self.parent}"), 404)

    def test_the_last_admin_cannot_leave_nor_step_down(self):
        for answer in (self.leave(self.tom), self.tom.put(f"{self.url}/members/{self.tom.user_id}", {"role": "member"})):
            self.check(answer, 409)
        self.check(self.tom.put(f"{self.url}/members/{self.tom.user_id}", {"role": "admin"}), 200)
        self.check(self.tom.put(f"{self.url}/members/{self.bob.user_id}", {"role": "admin"}), 200)
        self.check(self.leave(self.tom), 204)

    def test_invitations_of_somebody_who_was_removed_are_dead(self):
        code = self.tom.post("/api/invitations", {"team_id": self.team, "role": "admin"}).json["code"]
        other = self.ada.post("/api/invitations", {"team_id": self.team}).json["code"]
        self.ada.delete(f"{self.url}/members/{self.tom.user_id}")
        self.check(self.tom.post("/api/invitations/accept", {"code": code}), 404)
        self.check(self.una.post("/api/invitations/accept", {"code": other}), 409, "already a member")
        self.check(self.tom.post("/api/invitations/accept", {"code": other}), 200)


class DeletingATeam(LeavingCase):
    def test_everything_of_it_goes(self):
        self.check(self.tom.delete(self.url), 204)
        self.check(self.bob.get(self.url), 404)
        for path in ("", "/raw", "/events", "/outline", "/map"):
            self.check(self.bob.get(f"/api/sessions/{self.parent}{path}"), 404)
        self.assertEqual((self.listed(), self.found(self.bob), self.bodies()), (set(), set(), set()))
        for table in ("sessions", "blocks", "indexed", "unindexed", "removals", "facets WHERE sessions > 0", "search_words"):
            self.assertEqual(self.rows(f"SELECT count(*) AS n FROM {table}"), [{"n": 0}], table)
        self.assertEqual(self.acts("team.delete"), [(self.tom.user_id, self.team, self.team)])

    def test_what_was_in_it_is_not_uploaded_again_elsewhere(self):
        self.check(self.tom.delete(self.url), 204)
        self.new_team(self.ada, "other", [self.una])
        answer = self.una.post("/api/sessions", {"session": new_session("parent")})
        self.check(answer, 410, "deleted")
        self.check(self.una.post("/api/sessions?restore=1", {"session": new_session("parent")}), 201)

    def test_other_teams_keep_theirs(self):
        other = self.new_team(self.ada, "other", [self.una])
        kept = self.upload(self.una, new_session("kept"), other)
        self.check(self.tom.delete(self.url), 204)
        self.assertEqual((self.listed(self.una), self.found(self.una)), ({kept}, {kept}))

    def test_members_and_strangers_cannot(self):
        for caller, status in ((self.una, 403), (Client(), 401), (self.ada, 204), (self.ada, 404), (self.tom, 403)):
            self.check(caller.delete(self.url), status)

    def test_a_body_that_is_being_read_is_read_to_its_end(self):
        path = opensession.body_path(self.rows("SELECT body FROM sessions WHERE id = ?", self.parent)[0]["body"])
        with open(path, "rb") as file:
            whole = path.read_bytes()
            self.check(self.tom.delete(self.url), 204)
            self.index()
            self.assertEqual((file.read(), path.exists()), (whole, False))


class DeletingAnAccount(LeavingCase):
    def delete(self, caller, whom=None, sessions="keep"):
        return caller.delete(f"/api/users/{(whom or caller).user_id}?sessions={sessions}")

    def test_keys_and_cookies_are_dead_at_once(self):
        browser = Client(origin="http://localhost:3000")
        browser.post("/api/auth/login", {"api_key": self.una.key})
        self.check(browser.get("/api/auth/me"), 200)
        self.check(self.delete(self.una), 204)
        self.check(browser.get("/api/auth/me"), 401)
        self.check(self.una.get("/api/auth/me"), 401)
        self.assertEqual([each["nickname"] for each in self.tom.get(f"{self.url}/members").json["members"]], ["tom", "bob"])

    def test_sessions_that_stay_belong_to_nobody(self):
        cursor = self.pull(self.bob)["next_cursor"]
        self.check(self.delete(self.una), 204)
        self.assertEqual(self.listed(), {self.parent, self.theirs})
        session = self.bob.get(f"/api/sessions/{self.parent}").json
        self.assertEqual((session["user_id"], session["nickname"]), (None, None))
        self.assertEqual([each["id"] for each in session["children"]], [self.child])
        self.assertEqual(self.bob.get(f"/api/sessions/{self.child}").json["parent_id"], self.parent)
        self.assertEqual(self.listed(query=f"?parent={self.parent}"), {self.child})
        self.assertEqual(self.found(self.bob), {self.parent, self.child, self.theirs})
        changes = self.pull(self.bob, cursor)
        self.assertEqual({each["id"]: each["user_id"] for each in changes["sessions"]}, {self.parent: None, self.child: None})
        self.check(self.tom.delete(f"/api/sessions/{self.parent}"), 204)
        self.assertEqual(self.found(self.bob), {self.theirs})

    def test_sessions_may_go_along(self):
        cursor = self.pull(self.bob)["next_cursor"]
        self.check(self.delete(self.una, sessions="delete"), 204)
        self.assertEqual((self.listed(), self.found(self.bob), self.bodies()), ({self.theirs}, {self.theirs}, {self.theirs}))
        self.assertEqual(set(self.pull(self.bob, cursor)["deleted"]), {self.parent, self.child})
        later = self.upload(self.bob, new_session("later"), self.team)
        self.assertEqual([each["id"] for each in self.pull(self.bob, cursor)["sessions"]], [later])

    def test_what_becomes_of_the_sessions_must_be_said(self):
        self.assertEqual(self.check(self.una.delete(f"/api/users/{self.una.user_id}"), 422).json["field"], "sessions")
        self.check(self.delete(self.una, sessions="sell"), 422)
        self.check(self.una.get("/api/auth/me"), 200)

    def test_only_server_admins_delete_others(self):
        self.check(self.delete(self.tom, self.una), 403, "admin only")
        self.check(self.delete(self.ada, self.una), 204)
        self.check(self.delete(self.ada, self.una), 404, "user not found")
        self.assertEqual(self.acts("user.delete"), [(self.ada.user_id, self.una.user_id, None)])

    def test_the_last_server_admin_stays(self):
        self.check(self.delete(self.ada), 409)
        self.change("UPDATE users SET is_admin = 1 WHERE nickname = 'bob'")
        self.check(self.delete(self.ada), 204)
        self.check(self.delete(self.bob), 409)

    def test_the_last_admin_of_a_team_names_another_one_first(self):
        self.check(self.delete(self.tom), 409)
        self.ada.put(f"{self.url}/members/{self.bob.user_id}", {"role": "admin"})
        self.check(self.delete(self.tom), 204)

    def test_a_server_admin_may_leave_a_team_without_an_admin(self):
        self.check(self.delete(self.ada, self.tom), 204)
        self.check(self.ada.put(f"{self.url}/members/{self.bob.user_id}", {"role": "admin"}), 200)

    def test_a_team_of_which_nothing_is_left_goes_too(self):
        self.restart(OPENSESSION_TEAM_CREATION="anyone")
        empty, full = self.new_team(self.una, "empty"), self.new_team(self.una, "full")
        self.upload(self.una, new_session("full"), full)
        self.check(self.delete(self.una), 204)
        teams = {row["id"] for row in self.rows("SELECT id FROM teams")}
        self.assertEqual((empty in teams, full in teams, self.team in teams), (False, True, True))

    def test_a_new_account_of_the_same_name_is_another(self):
        self.check(self.delete(self.una), 204)
        again = self.register("una")
        self.ada.post(f"{self.url}/members", {"nickname": "una"})
        self.check(again.delete(f"/api/sessions/{self.parent}"), 403)
        self.check(again.post("/api/sessions", {"session": new_session("parent"), "team_id": self.team}), 201)


if __name__ == "__main__":
    unittest.main()
