"""Teams: their settings, members and roles, and what a public team shows to whom."""

import os
import unittest
import uuid

from client import Client, ServerCase, new_event, new_session


class TeamsCase(ServerCase):
    """ada administrates the server; tom the team that she made; bob is a member, vic a viewer, eve a stranger."""

    def setUp(self):
        super().setUp()
        self.ada, self.tom, self.bob, self.vic, self.eve = (
            self.register(name) for name in ("ada", "tom", "bob", "vic", "eve"))
        self.team = self.new_team(self.ada, "core", [(self.tom, "admin"), self.bob, (self.vic, "viewer")],
                                  description="who builds it")
        self.url = f"/api/teams/{self.team}"

    def members(self, caller=None):
        members = self.check((caller or self.ada).get(f"{self.url}/members"), 200).json["members"]
        return {member["nickname"]: member["role"] for member in members}


class Making(TeamsCase):
    def test_only_server_admins_make_teams(self):
        for caller in (self.tom, self.bob, self.eve):
            self.check(caller.post("/api/teams", {"name": "x"}), 403, "admin only")
        self.check(Client().post("/api/teams", {"name": "x"}), 401)
        self.check(self.ada.post("/api/teams", {"name": "x"}), 201)

    def test_anyone_makes_teams_where_the_operator_says_so(self):
        self.restart(OPENSESSION_TEAM_CREATION="anyone")
        made = self.check(self.eve.post("/api/teams", {"name": "eve's"}), 201).json
        self.assertEqual((made["role"], made["created_by"]), ("admin", self.eve.user_id))
        self.check(self.eve.put(f"/api/teams/{made['id']}", {"name": "ours"}), 200)
        self.check(self.eve.put(self.url, {"name": "mine"}), 403, "admin only")

    def test_who_makes_a_team_administrates_it(self):
        team = self.new_team(self.ada, "other")
        member, = self.ada.get(f"/api/teams/{team}/members").json["members"]
        self.assertEqual((member["nickname"], member["role"]), ("ada", "admin"))

    def test_a_name_has_1_to_128_characters(self):
        for name in ("", "  ", "x" * 129):
            self.check(self.ada.post("/api/teams", {"name": name}), 400, "name must be 1-128 characters")
            self.check(self.ada.put(self.url, {"name": name}), 400, "name must be 1-128 characters")
        self.assertEqual(self.ada.post("/api/teams", {"name": "부엌" * 64}).json["name"], "부엌" * 64)

    def test_wrong_types_are_named(self):
        for body, field in (({}, "name"), ({"name": 1}, "name"), ({"name": "x", "description": []}, "description"),
                            ({"name": "x", "is_public": "yes"}, "is_public"), ({"name": "a\0b"}, "name")):
            self.assertEqual(self.check(self.ada.post("/api/teams", body), 422).json["field"], field)

    def test_a_refused_team_leaves_nothing_behind(self):
        before = len(self.rows("SELECT id FROM teams"))
        self.ada.post("/api/teams", {"name": ""})
        self.assertEqual(len(self.rows("SELECT id FROM teams")), before)


class Changing(TeamsCase):
    def change_team(self, **body):
        return self.check(self.tom.put(self.url, body), 200).json

    def test_what_is_absent_or_null_stays(self):
        for body in ({}, {"name": None, "description": None, "is_public": None}):
            team = self.change_team(**body)
            self.assertEqual((team["name"], team["description"], team["is_public"]), ("core", "who builds it", False))

    def test_an_empty_description_clears_it(self):
        self.assertIsNone(self.change_team(description="")["description"])
        self.assertIsNone(self.ada.get(self.url).json["description"])

    def test_one_field_changes_alone(self):
        self.assertTrue(self.change_team(is_public=True)["is_public"])
        self.assertEqual(self.change_team(name=" kitchen ")["name"], "kitchen")
        team = self.change_team(description="new")
        self.assertEqual((team["name"], team["description"], team["is_public"]), ("kitchen", "new", True))
        self.assertFalse(self.change_team(is_public=False)["is_public"])

    def test_who_does_not_administrate_hears_the_same_of_every_team(self):
        for team in (self.team, str(uuid.uuid4()), "x"):
            for caller in (self.bob, self.vic, self.eve):
                for method, tail, body in (("PUT", "", {"name": "x"}), ("POST", "/members", {"nickname": "eve"}),
                                           ("PUT", f"/members/{self.bob.user_id}", {"role": "admin"}),
                                           ("DELETE", f"/members/{self.tom.user_id}", None)):
                    self.check(caller.request(method, f"/api/teams/{team}{tail}", body), 403, "admin only")

    def test_a_server_admin_changes_teams_they_are_not_in_but_does_not_read_them(self):
        self.ada.delete(f"{self.url}/members/{self.ada.user_id}")
        session = self.upload(self.bob, team_id=self.team)
        self.check(self.ada.put(self.url, {"name": "renamed"}), 200)
        self.assertIn("bob", self.members(self.ada))
        self.check(self.ada.get(self.url), 404)
        self.check(self.ada.get(f"/api/sessions/{session}"), 404)
        self.check(self.ada.get(f"/api/sync/pull?team_id={self.team}"), 403)


class Members(TeamsCase):
    def test_a_team_admin_administrates_their_team_and_no_other(self):
        self.check(self.tom.post(f"{self.url}/members", {"nickname": "eve"}), 201)
        self.check(self.tom.put(f"{self.url}/members/{self.eve.user_id}", {"role": "viewer"}), 200)
        self.check(self.tom.delete(f"{self.url}/members/{self.bob.user_id}"), 204)
        self.assertEqual(self.members(), {"ada": "admin", "tom": "admin", "vic": "viewer", "eve": "viewer"})
        other = self.new_team(self.ada, "other")
        self.check(self.tom.post(f"/api/teams/{other}/members", {"nickname": "eve"}), 403, "admin only")

    def test_a_member_is_added_by_the_exact_nickname(self):
        for nickname in ("Eve", " eve", "nobody"):
            answer = self.check(self.tom.post(f"{self.url}/members", {"nickname": nickname}), 404, "user not found")
            self.assertEqual(answer.json["field"], "nickname")
        self.check(self.tom.post(f"{self.url}/members", {"nickname": "bob"}), 409, "already a member")
        self.check(self.tom.post(f"{self.url}/members", {}), 422)

    def test_an_unknown_team_gets_no_member(self):
        self.check(self.ada.post(f"/api/teams/{uuid.uuid4()}/members", {"nickname": "eve"}), 404, "team not found")

    def test_a_role_is_one_of_three(self):
        for role in ("admin", "member", "viewer"):
            answer = self.check(self.tom.put(f"{self.url}/members/{self.bob.user_id}", {"role": role}), 200).json
            self.assertEqual((answer["nickname"], answer["role"]), ("bob", role))
        for role in ("owner", "", None, 5, ["admin"]):
            self.check(self.tom.put(f"{self.url}/members/{self.bob.user_id}", {"role": role}), 422)
            if role is not None:
                self.check(self.tom.post(f"{self.url}/members", {"nickname": "eve", "role": role}), 422)
        self.assertEqual(self.members()["bob"], "viewer")

    def test_who_is_no_member_gets_no_role(self):
        self.check(self.tom.put(f"{self.url}/members/{self.eve.user_id}", {"role": "admin"}), 404, "member not found")

    def test_a_viewer_reads_and_does_not_upload(self):
        session = self.upload(self.bob, team_id=self.team)
        self.check(self.vic.get(f"/api/sessions/{session}/raw"), 200)
        self.check(self.vic.get(f"/api/sync/pull?team_id={self.team}"), 200)
        answer = self.vic.post("/api/sessions", {"session": new_session(), "team_id": self.team})
        self.check(answer, 403, "not a member of this team")
        self.check(self.vic.post("/api/sessions", {"session": new_session()}), 422)
        self.check(self.vic.delete(f"/api/sessions/{session}"), 403)

    def test_who_becomes_a_viewer_adds_no_more_to_their_sessions(self):
        session = new_session()
        known = self.upload(self.bob, session, self.team)
        self.tom.put(f"{self.url}/members/{self.bob.user_id}", {"role": "viewer"})
        self.check(self.bob.post(f"/api/sessions/{known}/events", {"events": [new_event(at=9)]}), 403)
        session["events"].append(new_event(at=9))
        self.check(self.bob.post("/api/sessions", {"session": session, "team_id": self.team}), 403)
        self.assertEqual(self.bob.get(f"/api/sessions/{known}").json["event_count"], 2)

    def test_a_removal_takes_effect_at_once(self):
        session = self.upload(self.bob, team_id=self.team)
        self.check(self.tom.delete(f"{self.url}/members/{self.bob.user_id}"), 204)
        for tail in ("", "/raw", "/events", "/events/0"):
            self.check(self.bob.get(f"/api/sessions/{session}{tail}"), 404)
        self.assertEqual(self.bob.get("/api/sessions").json["total"], 0)
        self.check(self.bob.get(self.url), 404)
        self.check(self.bob.get(f"{self.url}/members"), 404)
        self.check(self.bob.get(f"/api/sync/pull?team_id={self.team}"), 403)
        self.check(self.bob.post(f"/api/sessions/{session}/events", {"events": [new_event(at=9)]}), 403)
        self.check(self.bob.delete(f"/api/sessions/{session}"), 404)
        self.assertEqual(self.vic.get(f"/api/sessions/{session}").json["nickname"], "bob")

    def test_a_team_tells_everybody_their_own_role(self):
        for caller, role in ((self.ada, "admin"), (self.tom, "admin"), (self.bob, "member"), (self.vic, "viewer")):
            self.assertEqual(caller.get(self.url).json["role"], role)
            self.assertIn(role, [team["role"] for team in caller.get("/api/teams").json["teams"] if team["id"] == self.team])


class PublicTeams(TeamsCase):
    def setUp(self):
        super().setUp()
        self.session = self.upload(self.bob, new_session(title="shown"), self.team)
        self.hidden = self.upload(self.ada, new_session(title="hidden"), self.ada.team_id)
        self.ada.put(self.url, {"is_public": True})
        self.nobody = Client()

    def test_anyone_reads_a_public_teams_sessions(self):
        for caller in (self.nobody, self.eve):
            for tail in ("", "/raw", "/events", "/events/0"):
                self.check(caller.get(f"/api/sessions/{self.session}{tail}"), 200)
            self.assertEqual([each["title"] for each in caller.get("/api/sessions").json["sessions"]], ["shown"])
            team = self.check(caller.get(self.url), 200).json
            self.assertEqual((team["role"], [each["title"] for each in team["sessions"]]), (None, ["shown"]))

    def test_nobody_else_sees_who_belongs_to_it(self):
        self.check(self.nobody.get(f"{self.url}/members"), 401)
        self.check(self.eve.get(f"{self.url}/members"), 404)
        self.assertIn("bob", self.members(self.vic))

    def test_nothing_else_is_public(self):
        self.check(self.nobody.get(f"/api/sessions/{self.hidden}"), 404)
        self.check(self.nobody.get(f"/api/teams/{self.ada.team_id}"), 404)
        self.assertEqual(self.nobody.get(f"/api/sessions?team_id={self.ada.team_id}&search=hidden").json["total"], 0)

    def test_reading_gives_no_right_to_write_or_pull(self):
        self.check(self.eve.get(f"/api/sync/pull?team_id={self.team}"), 403)
        self.check(self.eve.post("/api/sessions", {"session": new_session(), "team_id": self.team}), 403)
        self.check(self.eve.post(f"/api/sessions/{self.session}/events", {"events": []}), 403)
        self.check(self.eve.delete(f"/api/sessions/{self.session}"), 403)
        self.check(self.nobody.delete(f"/api/sessions/{self.session}"), 401)

    def test_a_team_that_is_private_again_is_closed_at_once(self):
        self.tom.put(self.url, {"is_public": False})
        self.check(self.nobody.get(f"/api/sessions/{self.session}/raw"), 404)
        self.assertEqual(self.nobody.get("/api/sessions").json["sessions"], [])
        self.check(self.vic.get(f"/api/sessions/{self.session}"), 200)


class Limits(TeamsCase):
    """How long a team's sessions are kept, and how much room they may take."""

    def limits(self, caller=None):
        team = self.check((caller or self.ada).get(self.url), 200).json
        return team["retain_days"], team["quota_mb"]

    def big(self, session_id, megabytes):
        """A session that takes so much room: noise does not compress."""
        return new_session(session_id, events=[new_event(text=os.urandom(500_000).hex()) for _ in range(megabytes * 2)])

    def test_team_admins_say_how_long_sessions_are_kept_and_nobody_below(self):
        self.assertEqual(self.limits(), (None, None))
        self.check(self.tom.put(self.url, {"retain_days": 30}), 200)
        self.check(self.tom.put(self.url, {"name": "kitchen"}), 200)
        self.assertEqual(self.limits(self.bob), (30, None))
        self.check(self.bob.put(self.url, {"retain_days": 3}), 403, "admin only")
        self.check(self.tom.put(self.url, {"retain_days": 0}), 200)
        self.assertEqual(self.limits(), (None, None))

    def test_only_server_admins_set_a_quota(self):
        self.assertEqual(self.check(self.tom.put(self.url, {"quota_mb": 5, "name": "mine"}), 403).json["field"], "quota_mb")
        self.assertEqual(self.ada.get(self.url).json["name"], "core")
        self.check(self.ada.put(self.url, {"quota_mb": 5}), 200)
        self.assertEqual(self.limits(self.tom), (None, 5))

    def test_limits_are_whole_numbers_in_range(self):
        for name, value in (("retain_days", -1), ("retain_days", 36501), ("retain_days", "7"), ("retain_days", True), ("quota_mb", 1.5),
                            ("quota_mb", -1), ("quota_mb", 2**60)):
            self.assertEqual(self.check(self.ada.put(self.url, {name: value}), 422).json["field"], name)

    def test_an_upload_that_would_pass_the_quota_is_507_and_leaves_nothing(self):
        self.check(self.ada.put(self.url, {"quota_mb": 2}), 200)
        self.upload(self.bob, self.big("s-1", 1), self.team)
        stored = self.ada.get(self.url).json["stored_bytes"]
        answer = self.check(self.bob.post("/api/sessions", {"session": self.big("s-2", 2), "team_id": self.team}), 507)
        self.assertIn("quota", answer.json["error"])
        self.assertEqual(len(self.rows("SELECT id FROM sessions")), 1)
        self.assertEqual(self.ada.get(self.url).json["stored_bytes"], stored)
        self.assertEqual(len(list((self.folder / "data/bodies").glob("*/*"))), 1)
        self.upload(self.bob, new_session("s-3"), self.team)        # a small one has room

    def test_growing_and_replacing_meet_the_quota_too(self):
        session_id = self.upload(self.bob, self.big("s-1", 1), self.team)
        self.check(self.ada.put(self.url, {"quota_mb": 2}), 200)
        events = {"events": self.big("", 2)["events"]}
        for body in (events, {**events, "from": 1}):
            self.assertIn("quota", self.check(self.bob.post(f"/api/sessions/{session_id}/events", body), 507).json["error"])
        self.check(self.bob.post("/api/sessions", {"session": self.big("s-1", 3), "team_id": self.team}), 507)
        self.check(self.bob.post(f"/api/sessions/{session_id}/events", {"events": [new_event()]}), 200)

    def test_a_quota_below_what_is_there_stops_growth_and_nothing_else(self):
        session_id = self.upload(self.bob, self.big("s-1", 3), self.team)
        self.check(self.ada.put(self.url, {"quota_mb": 1}), 200)
        self.check(self.bob.post(f"/api/sessions/{session_id}/events", {"events": [new_event()]}), 507)
        self.check(self.bob.put(f"/api/sessions/{session_id}", {"title": "The long one"}), 200)
        self.upload(self.bob, new_session("s-1"), self.team)        # smaller than what it replaces
        self.check(self.bob.post(f"/api/sessions/{session_id}/events", {"events": [new_event()]}), 200)

    def test_a_session_does_not_move_to_a_team_without_room(self):
        other = self.new_team(self.ada, "small", [self.bob])
        self.check(self.ada.put(f"/api/teams/{other}", {"quota_mb": 1}), 200)
        session_id = self.upload(self.bob, self.big("s-1", 2), self.team)
        self.assertIn("quota", self.check(self.bob.put(f"/api/sessions/{session_id}", {"team_id": other}), 507).json["error"])
        self.check(self.ada.put(f"/api/teams/{other}", {"quota_mb": 4}), 200)
        self.check(self.bob.put(f"/api/sessions/{session_id}", {"team_id": other}), 200)
        sizes = {row["id"]: row["stored_bytes"] for row in self.rows("SELECT id, stored_bytes FROM teams")}
        self.assertGreater(sizes[other], 2_000_000)
        self.assertEqual(sizes[self.team], 0)


if __name__ == "__main__":
    unittest.main()
