"""The audit: who did what to which object, who may read of it, and for how long."""

import re
import unittest
from pathlib import Path

import opensession
from client import Client, ServerCase, new_session

TEXTS = (Path(opensession.__file__).parent / "static/texts/en.js").read_text("utf-8")


class AuditCase(ServerCase):
    def setUp(self):
        super().setUp()
        self.ada, self.tom, self.bob = (self.register(name) for name in ("ada", "tom", "bob"))
        self.team = self.new_team(self.ada, "the core team", [(self.tom, "admin"), self.bob])

    def acts(self, caller=None, **query):
        url = "/api/audit?" + "&".join(f"{name}={value}" for name, value in query.items())
        return self.check((caller or self.ada).get(url), 200).json["acts"]

    def newest(self, count=1, **query):
        return [(act["action"], act["nickname"], act["object"]) for act in self.acts(limit=count, **query)]


class EveryAct(AuditCase):
    def test_every_act_that_the_server_writes_is_in_the_table_and_has_a_text(self):
        source = Path(opensession.__file__).read_text("utf-8")
        written = set(re.findall(r'audited\([^(\n]*?, "([a-z_.]+)"', source)) | set(re.findall(r"audited_as\([^\n]*'([a-z_.]+)'", source))
        self.assertGreater(len(written), 15)
        self.assertLessEqual(written, set(opensession.ACTS))
        self.assertEqual({name for name in opensession.ACTS if f'"act.{name}":' not in TEXTS}, set())

    def test_an_account_from_its_beginning_to_its_end(self):
        una = self.register("una")
        self.assertEqual(self.newest(), [("register", "una", una.user_id)])
        key = una.post("/api/keys", {"name": "laptop"}).json
        self.assertEqual(self.newest(), [("key.create", "una", key["id"])])
        una.delete(f"/api/keys/{key['id']}")
        self.assertEqual(self.newest(), [("key.revoke", "una", key["id"])])
        una.key = una.post("/api/auth/regenerate-key").json["api_key"]
        self.assertEqual(self.newest()[0][:2], ("key.regenerate", "una"))
        browser = Client(origin="http://localhost:3000")
        browser.post("/api/auth/login", {"api_key": una.key})
        self.assertEqual(self.newest(), [("login", "una", None)])
        una.delete(f"/api/users/{una.user_id}?sessions=keep")
        self.assertEqual(self.newest(), [("user.delete", None, una.user_id)])
        self.assertEqual([act["action"] for act in self.acts()][-1], "setup")

    def test_what_is_refused_at_the_door(self):
        stranger = Client(address="203.0.113.9")
        stranger.post("/api/auth/login", {"api_key": "osk_nonsense"})
        self.bob.post("/api/invitations/accept", {"code": "nonsense"})
        self.restart(OPENSESSION_REGISTRATION="invite")
        stranger.post("/api/register", {"nickname": "una", "invite": "nonsense"})
        self.assertEqual([(act["action"], act["nickname"], act["address"]) for act in self.acts(limit=3)], [
            ("register.refused", None, "203.0.113.9"), ("invitation.refused", "bob", "127.0.0.1"), ("login.refused", None, "203.0.113.9")])

    def test_a_team_from_its_beginning_to_its_end(self):
        team = self.new_team(self.ada, "x", [self.bob])
        self.ada.put(f"/api/teams/{team}", {"name": "y"})
        self.ada.put(f"/api/teams/{team}/members/{self.bob.user_id}", {"role": "viewer"})
        self.ada.delete(f"/api/teams/{team}/members/{self.bob.user_id}")
        made = self.ada.post("/api/invitations", {"team_id": team}).json
        self.bob.post("/api/invitations/accept", {"code": made["code"]})
        self.bob.delete(f"/api/teams/{team}/members/{self.bob.user_id}")
        withdrawn = self.ada.post("/api/invitations", {"team_id": team}).json
        self.ada.delete(f"/api/invitations/{withdrawn['id']}")
        self.ada.delete(f"/api/teams/{team}")
        acts = self.acts(limit=11)[::-1]
        self.assertEqual([(act["action"], act["object"]) for act in acts], [
            ("team.create", team), ("member.add", self.bob.user_id), ("team.update", team), ("member.role", self.bob.user_id),
            ("member.remove", self.bob.user_id), ("invitation.create", made["id"]), ("invitation.accept", made["id"]),
            ("member.leave", self.bob.user_id), ("invitation.create", withdrawn["id"]), ("invitation.revoke", withdrawn["id"]),
            ("team.delete", team)])
        self.assertEqual({act["team_id"] for act in acts}, {team})

    def test_what_becomes_of_a_session(self):
        other = self.new_team(self.ada, "other", [self.bob])
        session = self.upload(self.bob, new_session(), self.team)
        url = f"/api/sessions/{session}"
        self.check(self.bob.get(f"{url}/raw"), 200)
        self.bob.put(url, {"title": "x"})
        self.bob.put(url, {"team_id": other})
        self.bob.delete(url)
        self.assertEqual([(act["action"], act["object"], act["team_id"]) for act in self.acts(limit=5)], [
            ("session.delete", session, other), ("session.move", session, other), ("session.leave", session, self.team),
            ("session.title", session, self.team), ("session.download", session, self.team)])

    def test_the_daemons_settings(self):
        self.ada.put("/api/config/sync", {"privacy": {}})
        self.assertEqual(self.newest(), [("daemon_settings.update", "ada", None)])

    def test_it_never_holds_names_titles_or_keys(self):
        made = self.ada.post("/api/invitations", {"team_id": self.team}).json
        key = self.bob.post("/api/keys", {"name": "a secret laptop"}).json
        session = self.upload(self.bob, new_session(title="a secret plan"), self.team)
        self.bob.put(f"/api/sessions/{session}", {"title": "another plan"})
        Client().post("/api/auth/login", {"api_key": f"{self.bob.key}x"})
        rows = self.rows("SELECT * FROM audit")
        self.assertNotIn("ada", [value for row in rows for value in dict(row).values()])       # which an id can hold by chance
        rows = str(rows)
        for secret in ("plan", "laptop", "core", made["code"], key["api_key"], key["prefix"], self.bob.key):
            self.assertNotIn(secret, rows)


class Reading(AuditCase):
    def test_it_comes_page_by_page(self):
        seen, cursor = [], ""
        while cursor is not None:
            answer = self.ada.get(f"/api/audit?limit=2&cursor={cursor}" if cursor else "/api/audit?limit=2").json
            self.assertLessEqual(len(answer["acts"]), 2)
            seen += [act["no"] for act in answer["acts"]]
            cursor = answer["next_cursor"]
        self.assertEqual(seen, [row["no"] for row in self.rows("SELECT no FROM audit ORDER BY no DESC")])
        self.check(self.ada.get("/api/audit?cursor=x"), 400)

    def test_a_teams_admins_read_of_their_team_only(self):
        self.new_team(self.ada, "other", [self.bob])
        acts = self.acts(self.tom, team_id=self.team)
        self.assertEqual([act["action"] for act in acts], ["member.add", "member.add", "team.create"])
        self.assertEqual({act["team_name"] for act in acts}, {"the core team"})
        self.assertEqual(acts[0]["object_nickname"], "bob")

    def test_it_is_forgotten_after_half_a_year_or_as_the_operator_says(self):
        self.change("UPDATE audit SET at = '2020-01-01T00:00:00.000Z' WHERE action = 'setup'")
        count = len(self.acts())
        opensession.forget_old(opensession.db)
        self.assertEqual(len(self.acts()), count - 1)
        self.restart(OPENSESSION_AUDIT_DAYS="36500")
        self.change("UPDATE audit SET at = '2020-01-01T00:00:00.000Z'")
        opensession.forget_old(opensession.db)
        self.assertEqual(len(self.acts()), count - 1)


if __name__ == "__main__":
    unittest.main()
