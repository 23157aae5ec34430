"""Giving a session a title of one's own, and moving it to another team."""

import unittest

import opensession
from client import ServerCase, new_event, new_session


class ChangeCase(ServerCase):
    """Una uploaded to `here`, where Tom is admin; both and Bob are in both teams, Vic reads in both, Eve is nowhere."""

    def setUp(self):
        super().setUp()
        self.ada, self.una, self.tom, self.bob, self.vic, self.eve = map(self.register, ("ada", "una", "tom", "bob", "vic", "eve"))
        people = [self.una, (self.tom, "admin"), self.bob, (self.vic, "viewer")]
        self.here, self.there = (self.new_team(self.ada, name, people) for name in ("here", "there"))
        self.session = new_session("s-1", title="Given by the tool")
        self.id = self.upload(self.una, self.session, self.here)

    def put(self, who, status=200, session_id=None, **body):
        return self.check(who.put(f"/api/sessions/{session_id or self.id}", body), status).json

    def title(self):
        return self.una.get(f"/api/sessions/{self.id}").json["title"]

    def team(self, session_id=None):
        return self.una.get(f"/api/sessions/{session_id or self.id}").json["team_id"]

    def pull(self, team, since=""):
        return self.bob.get(f"/api/sync/pull?team_id={team}&since={since}").json


class Titles(ChangeCase):
    def test_the_uploader_and_the_teams_admins_may_give_one(self):
        for who, status in [(self.una, 200), (self.tom, 200), (self.ada, 200), (self.bob, 403), (self.vic, 403), (self.eve, 404)]:
            answer = self.put(who, status, title=f"by {who.nickname}")
            if status == 200:
                self.assertEqual((answer["title"], self.title()), (f"by {who.nickname}",) * 2)

    def test_a_server_admin_who_is_not_in_the_team_may_not(self):
        self.ada.delete(f"/api/teams/{self.here}/members/{self.ada.user_id}")
        self.put(self.ada, 404, title="x")

    def test_it_outlives_uploads_and_growth(self):
        self.put(self.una, title="Mine")
        self.session["context"]["title"] = "Newer"
        self.upload(self.una, self.session, self.here)
        self.assertEqual(self.title(), "Mine")
        self.una.post(f"/api/sessions/{self.id}/events", {"events": [new_event(at=9)]})
        self.assertEqual(self.title(), "Mine")
        self.session["events"].append(new_event("AgentMessage", "other", at=30))
        self.upload(self.una, self.session, self.here)
        self.assertEqual(self.title(), "Mine")
        self.assertEqual(self.una.get(f"/api/sessions/{self.id}").json["agent"]["tool"], "claude-code")

    def test_null_or_nothing_gives_the_tools_title_back(self):
        for nothing in (None, ""):
            self.put(self.una, title="Mine")
            self.assertEqual(self.put(self.una, title=nothing)["title"], "Given by the tool")

    def test_a_title_that_does_not_fit_is_refused(self):
        for title, status in [("x" * 501, 400), ("   ", 400), ("a\nb", 422), (7, 422), (["x"], 422)]:
            self.assertEqual(self.put(self.una, status, title=title)["field"], "title")
        self.assertEqual(self.title(), "Given by the tool")

    def test_clients_that_pull_hear_of_it(self):
        cursor = self.pull(self.here)["next_cursor"]
        self.put(self.una, title="Mine")
        self.assertEqual([each["title"] for each in self.pull(self.here, cursor)["sessions"]], ["Mine"])

    def test_it_is_found_in_lists_and_said_to_the_audit_without_its_words(self):
        self.put(self.tom, title="Quite special")
        self.assertEqual(self.bob.get("/api/sessions").json["sessions"][0]["title"], "Quite special")
        act = self.rows("SELECT * FROM audit ORDER BY no DESC LIMIT 1")[0]
        self.assertEqual((act["user_id"], act["action"], act["object"]), (self.tom.user_id, "session.title", self.id))

    def test_an_upload_at_the_same_time_does_not_take_it_back(self):
        known = dict(opensession.db.execute("SELECT * FROM sessions WHERE id = ?", [self.id])[0])
        self.put(self.una, title="Mine")
        with self.assertRaises(opensession.Conflict):
            opensession.write_columns(opensession.db, {"id": self.una.user_id}, known, {"title": "old"}, [])
        self.assertEqual(self.title(), "Mine")

    def test_a_body_that_asks_nothing_changes_nothing(self):
        before = self.rows("SELECT * FROM sessions")
        self.put(self.una)
        self.put(self.una, team_id=self.here)
        self.assertEqual(self.rows("SELECT * FROM sessions"), before)


class Moves(ChangeCase):
    def test_the_uploader_and_the_teams_admins_may_move_it_to_a_team_of_theirs(self):
        for who in (self.una, self.tom):
            self.assertEqual(self.put(who, team_id=self.there)["team_id"], self.there)
            self.assertEqual(self.put(who, team_id=self.here)["team_id"], self.here)
        for who, status in [(self.bob, 403), (self.vic, 403), (self.eve, 404)]:
            self.put(who, status, team_id=self.there)
        self.assertEqual(self.team(), self.here)

    def test_a_team_that_one_cannot_upload_to_is_refused_whether_it_exists_or_not(self):
        foreign = self.new_team(self.ada, "foreign")
        read_only = self.new_team(self.ada, "read only", [(self.una, "viewer")])
        for team in (foreign, read_only, "unknown"):
            self.assertEqual(self.put(self.una, 403, team_id=team)["error"], "not a member of this team")

    def test_it_goes_nowhere_where_its_uploader_does_not_belong(self):
        toms = self.new_team(self.ada, "tom's", [self.tom])
        self.assertEqual(self.put(self.tom, 409, team_id=toms)["field"], "team_id")
        self.assertEqual(self.team(), self.here)

    def test_later_uploads_stay_where_it_was_moved_to(self):
        self.put(self.una, team_id=self.there)
        self.session["events"].append(new_event(at=40))
        self.assertEqual(self.upload(self.una, self.session, self.here), self.id)
        self.assertEqual(self.team(), self.there)

    def test_clients_of_both_teams_hear_of_it_there_and_back(self):
        here, there = self.pull(self.here)["next_cursor"], self.pull(self.there)["next_cursor"] or ""
        self.put(self.una, team_id=self.there)
        left, came = self.pull(self.here, here), self.pull(self.there, there)
        self.assertEqual((left["sessions"], left["deleted"]), ([], [self.id]))
        self.assertEqual(([each["id"] for each in came["sessions"]], came["deleted"]), ([self.id], []))
        self.put(self.una, team_id=self.here)
        back = self.pull(self.here, here)
        self.assertEqual(([each["id"] for each in back["sessions"]], back["deleted"]), ([self.id], []))

    def test_what_it_started_goes_along_and_comes_to_lie_below_it(self):
        child = self.upload(self.una, new_session("child", attributes={"parent_session_id": "s-1"}), self.here)
        grandchild = self.upload(self.una, new_session("grandchild", attributes={"parent_session_id": "child"}), self.here)
        waiting = self.upload(self.una, new_session("waiting", attributes={"parent_session_id": "s-1"}), self.there)
        self.put(self.una, team_id=self.there)
        self.assertEqual({self.team(one) for one in (self.id, child, grandchild, waiting)}, {self.there})
        listed = self.bob.get(f"/api/sessions?team_id={self.there}").json["sessions"]
        self.assertEqual([(each["id"], each["child_count"]) for each in listed], [(self.id, 2)])
        self.assertEqual(self.bob.get(f"/api/sessions?team_id={self.here}").json["total"], 0)

    def test_a_helper_moved_alone_is_listed_so_that_it_can_be_found(self):
        child = self.upload(self.una, new_session("child", attributes={"parent_session_id": "s-1"}), self.here)
        self.put(self.una, session_id=child, team_id=self.there)
        self.assertEqual([each["id"] for each in self.bob.get(f"/api/sessions?team_id={self.there}").json["sessions"]], [child])
        self.assertEqual(self.una.get(f"/api/sessions/{self.id}").json["child_count"], 0)
        self.put(self.una, session_id=child, team_id=self.here)
        self.assertEqual(self.bob.get(f"/api/sessions?team_id={self.here}").json["total"], 1)

    def test_who_is_only_in_the_old_team_reads_it_no_more(self):
        private = self.new_team(self.ada, "private", [self.una])
        self.assertEqual(self.bob.get(f"/api/sessions/{self.id}").status, 200)
        self.put(self.una, team_id=private)
        for path in ("", "/raw", "/events", "/events/0", "/outline", "/map"):
            self.check(self.bob.get(f"/api/sessions/{self.id}{path}"), 404)

    def test_a_move_and_a_title_in_one_call_are_one_change(self):
        foreign = self.new_team(self.ada, "foreign")
        self.put(self.una, 403, title="Mine", team_id=foreign)
        self.assertEqual(self.title(), "Given by the tool")
        answer = self.put(self.una, title="Mine", team_id=self.there)
        self.assertEqual((answer["title"], answer["team_id"]), ("Mine", self.there))
        actions = [row["action"] for row in self.rows("SELECT action FROM audit ORDER BY no DESC LIMIT 3")]
        self.assertEqual(actions, ["session.move", "session.leave", "session.title"])


if __name__ == "__main__":
    unittest.main()
