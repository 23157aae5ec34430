"""The HTTP contract that the original's daemon and CLI rely on, and where we keep it better.

Each class is one part of the contract.  Where the original leaked, doubled or lost
something, the test says what holds here instead."""

import re
import unittest
import uuid
from datetime import datetime, timedelta, timezone
from urllib.parse import quote

from client import Client, ServerCase, hail_file, moment, new_event, new_session

UUID = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
SUMMARY = ["id", "user_id", "nickname", "team_id", "tool", "agent_provider", "agent_model", "title", "description",
           "tags", "created_at", "uploaded_at", "message_count", "task_count", "event_count", "duration_seconds",
           "total_input_tokens", "total_output_tokens"]


class TeamCase(ServerCase):
    """ada administrates the server and the team, bob is a member, eve belongs nowhere."""

    def setUp(self):
        super().setUp()
        self.ada, self.bob, self.eve = (self.register(name) for name in ("ada", "bob", "eve"))
        self.team = self.new_team(self.ada, "core", [self.bob])
        self.nobody = Client()

    def listed(self, query="", caller=None):
        return self.check((caller or self.bob).get(f"/api/sessions?team_id={self.team}{query}"), 200).json

    def titles(self, query="", caller=None):
        return [session["title"] for session in self.listed(query, caller)["sessions"]]


class Health(ServerCase):
    def test_anybody_may_ask_whether_the_server_works(self):
        answer = self.check(Client().get("/api/health"), 200)
        self.assertEqual(answer.json["status"], "ok")
        self.assertIsInstance(answer.json["version"], str)


class Registering(ServerCase):
    def test_a_nickname_is_enough_and_the_answer_holds_the_key(self):
        answer = self.check(Client().post("/api/register", {"nickname": "  ada "}), 201)
        self.assertRegex(answer.json["user_id"], UUID)
        self.assertRegex(answer.json["api_key"], "^osk_[0-9A-Za-z]{36}$")
        self.assertEqual((answer.json["nickname"], answer.json["is_admin"]), ("ada", True))

    def test_only_the_first_user_is_admin(self):
        answers = [Client().post("/api/register", {"nickname": name}).json for name in ("ada", "bob", "eve")]
        self.assertEqual([answer["is_admin"] for answer in answers], [True, False, False])

    def test_a_nickname_has_1_to_64_characters_and_is_free(self):
        for nickname in ("", "   ", "x" * 65):
            answer = self.check(Client().post("/api/register", {"nickname": nickname}), 400, "nickname must be 1-64 characters")
            self.assertEqual(answer.json["field"], "nickname")
        self.register("é" * 64)
        self.check(Client().post("/api/register", {"nickname": "é" * 64}), 409, "nickname already taken")

    def test_what_is_no_registration_says_what_is_wrong(self):
        post = Client().post
        self.check(post("/api/register", body=b"{", type="application/json"), 400)
        self.check(post("/api/register", body=b'{"nickname": "ada"}', type="text/html"), 415)
        for value in ({}, {"nickname": None}, {"nickname": 7}, {"nickname": ["ada"]}):
            self.assertEqual(self.check(post("/api/register", value), 422).json["field"], "nickname")


class Keys(ServerCase):
    def test_verify_says_whose_the_key_is(self):
        ada = self.register("ada")
        answer = self.check(ada.post("/api/auth/verify"), 200)
        self.assertEqual(answer.json, {"user_id": ada.user_id, "nickname": "ada", "team_id": ada.team_id})

    def test_me_has_the_originals_fields_but_not_the_key(self):
        ada = self.register("ada")
        me = self.check(ada.get("/api/auth/me"), 200).json
        self.assertEqual((me["user_id"], me["nickname"], me["is_admin"]), (ada.user_id, "ada", True))
        self.assertEqual((me["email"], me["github_username"], me["avatar_url"]), (None, None, None))
        self.assertRegex(me["created_at"], TIME)
        self.assertTrue(me["api_key"].startswith("osk_"))
        self.assertNotIn(ada.key[8:], me["api_key"])

    def test_an_unknown_key_is_401(self):
        for key in ("osk_nope", "osk_" + "a" * 36, "\xe9", "x" * 5000):
            self.check(Client(key).get("/api/auth/me"), 401, "invalid API key")

    def test_no_key_is_401_and_wins_over_a_bad_body(self):
        sentence = "missing or invalid Authorization header"
        self.check(Client().get("/api/auth/me"), 401, sentence)
        self.check(Client().post("/api/teams", body=b"{", type="application/json"), 401, sentence)

    def test_regenerating_gives_a_new_key_and_the_old_one_is_dead(self):
        ada = self.register("ada")
        new = self.check(ada.post("/api/auth/regenerate-key"), 200).json["api_key"]
        self.assertNotEqual(new, ada.key)
        self.check(ada.post("/api/auth/verify"), 401, "invalid API key")
        self.check(Client(new).post("/api/auth/verify"), 200)


class Uploading(TeamCase):
    def test_a_member_uploads_and_gets_id_and_url(self):
        answer = self.check(self.bob.post("/api/sessions", {"session": new_session(), "team_id": self.team}), 201)
        self.assertRegex(answer.json["id"], UUID)
        self.assertEqual(answer.json["url"], f"http://localhost:3000/session/{answer.json['id']}")

    def test_who_is_no_member_uploads_nothing_to_a_foreign_or_an_unknown_team(self):
        for team in (self.team, str(uuid.uuid4())):
            answer = self.eve.post("/api/sessions", {"session": new_session(), "team_id": team})
            self.check(answer, 403, "not a member of this team")
        self.assertEqual(self.rows("SELECT id FROM sessions"), [])

    def test_a_session_without_its_required_parts_is_422(self):
        for name in ("version", "session_id", "agent", "context", "events", "stats"):
            session = {key: value for key, value in new_session().items() if key != name}
            answer = self.check(self.bob.post("/api/sessions", {"session": session, "team_id": self.team}), 422)
            self.assertEqual(answer.json["field"], name)

    def test_an_unknown_kind_of_event_is_422_for_the_whole_upload(self):
        session = new_session(events=[new_event(), new_event("Telepathy")])
        self.check(self.bob.post("/api/sessions", {"session": session, "team_id": self.team}), 422)
        self.assertEqual(self.listed()["total"], 0)

    def test_without_a_title_the_first_prompt_is_one(self):
        found = self.bob.get(f"/api/sessions/{self.upload(self.bob, team_id=self.team)}").json
        self.assertEqual((found["title"], found["description"], found["tags"]),
                         ("Where is the spoon?", "Where is the spoon?", None))

    def test_a_long_prompt_is_cut_between_characters(self):
        session = new_session(events=[new_event(text="포크 " * 100)])
        title = self.bob.get(f"/api/sessions/{self.upload(self.bob, session, self.team)}").json["title"]
        self.assertLessEqual(len(title), 80)
        self.assertRegex(title, "^(포크 )+포?…$")

    def test_a_description_is_the_first_three_prompts(self):
        session = new_session(events=[new_event(text=text, at=at) for at, text in enumerate(["one", "two", "three", "four"])])
        found = self.bob.get(f"/api/sessions/{self.upload(self.bob, session, self.team)}").json
        self.assertEqual(found["description"], "one two three")

    def test_given_title_description_and_tags_are_kept_whole(self):
        session = new_session(title="T" * 300, description="D" * 600, tags=["a", "b c"])
        found = self.bob.get(f"/api/sessions/{self.upload(self.bob, session, self.team)}").json
        self.assertEqual((found["title"], found["description"], found["tags"]), ("T" * 300, "D" * 600, "a,b c"))

    def test_the_same_session_again_is_the_same_row(self):
        session = new_session()
        first = self.bob.post("/api/sessions", {"session": session, "team_id": self.team})
        again = self.bob.post("/api/sessions", {"session": session, "team_id": self.team})
        self.assertEqual((first.status, again.status), (201, 200))
        self.assertEqual((again.json["id"], again.json["status"]), (first.json["id"], "unchanged"))
        self.assertEqual(self.listed()["total"], 1)

    def test_the_clients_counts_are_not_believed(self):
        session = new_session()
        session["stats"] = {"event_count": 999, "total_input_tokens": 10**9, "message_count": -4}
        found = self.bob.get(f"/api/sessions/{self.upload(self.bob, session, self.team)}").json
        self.assertEqual((found["event_count"], found["message_count"], found["total_input_tokens"]), (2, 2, 0))

    def test_without_a_team_the_only_one_takes_it(self):
        found = self.bob.get(f"/api/sessions/{self.upload(self.bob)}").json
        self.assertEqual(found["team_id"], self.team)
        answer = self.ada.post("/api/sessions", {"session": new_session()})
        self.assertEqual(self.check(answer, 422).json["field"], "team_id")

    def test_an_empty_session_is_accepted_hidden_in_lists_and_present_in_sync(self):
        session = self.upload(self.bob, new_session(events=[]), self.team)
        self.assertEqual(self.listed()["total"], 0)
        pulled = self.bob.get(f"/api/sync/pull?team_id={self.team}").json["sessions"]
        self.assertEqual([each["id"] for each in pulled], [session])


class Listing(TeamCase):
    def test_pages_have_the_originals_envelope(self):
        ids = {self.upload(self.bob, team_id=self.team) for _ in range(3)}
        pages = [self.listed(f"&per_page=1&page={page}") for page in (1, 2, 3, 4)]
        self.assertEqual([(page["page"], page["per_page"], page["total"]) for page in pages],
                         [(number, 1, 3) for number in (1, 2, 3, 4)])
        self.assertEqual([len(page["sessions"]) for page in pages], [1, 1, 1, 0])
        self.assertEqual({page["sessions"][0]["id"] for page in pages[:3]}, ids)

    def test_a_session_in_a_list_has_the_originals_keys_in_its_order(self):
        self.upload(self.bob, team_id=self.team)
        self.assertEqual(list(self.listed()["sessions"][0])[:18], SUMMARY)

    def test_page_and_per_page_are_moved_into_their_range(self):
        for query, page, per_page in (("", 1, 20), ("&page=0&per_page=0", 1, 1), ("&page=-3&per_page=101", 1, 100)):
            found = self.listed(query)
            self.assertEqual((found["page"], found["per_page"]), (page, per_page))
        for query in ("page=x", "per_page=1.5", "page=", "page=1e3"):
            self.check(self.bob.get(f"/api/sessions?{query}"), 400)

    def test_far_pages_are_sent_to_the_cursor(self):
        for query in ("page=101&per_page=100", "page=999999999999999999"):
            self.assertIn("use cursor", self.check(self.bob.get(f"/api/sessions?{query}"), 422).json["error"])

    def test_a_cursor_walks_through_all_sessions_once_whatever_the_order(self):
        ids = {self.upload(self.bob, new_session(events=[new_event(at=at // 2)]), self.team) for at in range(7)}
        for sort in ("recent", "popular", "longest"):
            found, cursor = [], ""
            while cursor is not None:
                page = self.listed(f"&per_page=2&sort={sort}&cursor={quote(cursor)}")
                found += [session["id"] for session in page["sessions"]]
                cursor = page["next_cursor"]
            self.assertEqual((len(found), set(found)), (7, ids))

    def test_a_cursor_that_is_none_of_ours_is_400(self):
        for cursor in ("x", "W10=", "e30=", "W251bGwsbnVsbCxudWxsXQ=="):
            self.assertEqual(self.check(self.bob.get(f"/api/sessions?cursor={cursor}"), 400).json["field"], "cursor")

    def test_recent_means_last_activity_not_arrival(self):
        for title, at in (("new", 50), ("old", 10), ("between", 30)):
            self.upload(self.bob, new_session(title=title, events=[new_event(at=at)]), self.team)
        self.assertEqual(self.titles(), ["new", "between", "old"])
        self.assertEqual(self.titles("&sort=recent"), ["new", "between", "old"])

    def test_popular_is_most_messages_and_longest_most_seconds_first(self):
        chatty = [new_event(at=at) for at in (0, 1, 2)]
        slow = [new_event(at=0), new_event("AgentMessage", at=3600)]
        self.upload(self.bob, new_session(title="chatty", events=chatty), self.team)
        self.upload(self.bob, new_session(title="slow", events=slow), self.team)
        self.assertEqual(self.titles("&sort=popular"), ["chatty", "slow"])
        self.assertEqual(self.titles("&sort=longest"), ["slow", "chatty"])

    def test_an_unknown_sort_or_time_range_is_passed_over(self):
        self.upload(self.bob, team_id=self.team)
        self.assertEqual(self.listed("&sort=zzz&time_range=1y")["total"], 1)

    def test_a_time_range_counts_hours_not_days_of_the_calendar(self):
        for title, hours in (("fresh", 23), ("yesterday", 25), ("last week", 24 * 6), ("old", 24 * 40)):
            at = (datetime.now(timezone(timedelta(hours=9))) - timedelta(hours=hours)).isoformat()
            self.upload(self.bob, new_session(title=title, created_at=at, updated_at=at,
                                              events=[new_event(timestamp=at)]), self.team)
        self.assertEqual(self.titles("&time_range=24h"), ["fresh"])
        self.assertEqual(self.titles("&time_range=7d"), ["fresh", "yesterday", "last week"])
        self.assertEqual(self.titles("&time_range=30d"), ["fresh", "yesterday", "last week"])
        self.assertEqual(len(self.titles("&time_range=all")), 4)

    def test_tool_is_matched_exactly(self):
        self.upload(self.bob, new_session(title="a", tool="claude-code"), self.team)
        self.upload(self.bob, new_session(title="b", tool="codex"), self.team)
        self.assertEqual(self.titles("&tool=claude-code"), ["a"])
        self.assertEqual(self.titles("&tool=claude"), [])

    def test_a_list_is_scoped_by_team(self):
        other = self.new_team(self.ada, "other", [self.eve])
        self.upload(self.bob, new_session(title="ours"), self.team)
        self.upload(self.eve, new_session(title="theirs"), other)
        self.assertEqual(self.titles(), ["ours"])
        found = self.bob.get(f"/api/sessions?team_id={other}").json
        self.assertEqual((found["sessions"], found["total"]), ([], 0))

    def test_a_users_sessions_can_be_listed(self):
        self.upload(self.ada, new_session(title="hers"), self.team)
        self.upload(self.bob, new_session(title="his"), self.team)
        self.assertEqual(self.titles(f"&user_id={self.bob.user_id}"), ["his"])

    def test_times_are_utc_with_their_zone(self):
        self.upload(self.bob, new_session(created_at="2026-02-11T15:00:00+09:00"), self.team)
        found = self.listed()["sessions"][0]
        self.assertEqual(found["created_at"], "2026-02-11T06:00:00.000Z")
        self.assertEqual(found["updated_at"], "2026-02-11T06:00:05.000Z")
        self.assertRegex(found["uploaded_at"], TIME)


class Searching(TeamCase):
    def setUp(self):
        super().setUp()
        for context in ({"title": "Ein Löffel für Ärzte"}, {"title": "100% done"}, {"title": "snake_case"},
                        {"title": "x", "description": "The Drawer is stuck"}, {"title": "y", "tags": ["kitchen", "숟가락"]}):
            self.upload(self.bob, new_session(**context), self.team)
        self.index()

    def test_title_description_and_tags_are_searched_whatever_the_case(self):
        for words, title in (("löffel FÜR ärzte", "Ein Löffel für Ärzte"), ("STUCK", "x"), ("Kitchen", "y"), ("숟가", "y")):
            self.assertEqual(self.titles(f"&search={quote(words)}"), [title])

    def test_percent_and_underscore_are_no_wildcards(self):
        self.assertEqual(self.titles("&search=%25"), ["100% done"])
        self.assertEqual(self.titles("&search=_"), ["snake_case"])
        self.assertEqual(self.titles("&search=1%25d"), [])

    def test_what_was_said_is_found_too(self):
        self.assertEqual(self.listed("&search=spoon%20%3F")["total"], 5)
        self.assertEqual(self.listed("&search=spoon%20nowhere")["total"], 0)

    def test_a_search_that_is_no_utf8_finds_nothing_and_harms_nothing(self):
        for words in ("%ff%fe", "%00", "'%3B--", "%22", "("):
            self.check(self.bob.get(f"/api/sessions?search={words}"), 200)


class Reading(TeamCase):
    def test_a_session_is_its_summary_flat_and_the_teams_name(self):
        session = self.upload(self.bob, team_id=self.team)
        found = self.check(self.bob.get(f"/api/sessions/{session}"), 200).json
        self.assertEqual(list(found)[:18], SUMMARY)
        self.assertEqual((found["id"], found["team_id"], found["team_name"]), (session, self.team, "core"))
        self.assertEqual((found["tool"], found["agent_provider"], found["agent_model"]),
                         ("claude-code", "anthropic", "claude-opus-4-6"))
        self.assertEqual((found["user_id"], found["nickname"]), (self.bob.user_id, "bob"))

    def test_an_unknown_session_is_404_in_every_form(self):
        for tail in ("", "/raw", "/events", "/events/0"):
            for caller in (self.bob, self.nobody):
                self.check(caller.get(f"/api/sessions/{uuid.uuid4()}{tail}"), 404, "session not found")

    def test_raw_is_the_hail_file_as_an_attachment(self):
        session = new_session()
        answer = self.check(self.bob.get(f"/api/sessions/{self.upload(self.bob, session, self.team)}/raw"), 200)
        self.assertEqual(answer.headers["Content-Type"], "application/jsonl")
        self.assertEqual(answer.headers["Content-Disposition"], 'attachment; filename="session.hail.jsonl"')
        self.assertEqual(answer.headers["Content-Length"], str(len(answer.body)))
        header, *events, stats = answer.lines
        self.assertEqual((header["type"], header["session_id"], header["agent"]),
                         ("header", session["session_id"], session["agent"]))
        self.assertEqual(events, [{"type": "event", **event} for event in session["events"]])
        self.assertEqual((stats["type"], stats["event_count"], stats["message_count"]), ("stats", 2, 2))

    def test_raw_gives_event_lines_back_byte_for_byte(self):
        lines = hail_file(new_session()).replace(b'"attributes": {}', b'"attributes" : {"x":1.50,  "x.y": "\xe2\x82\xac"}')
        answer = self.bob.post(f"/api/sessions?team_id={self.team}", body=lines, type="application/jsonl")
        raw = self.bob.get(f"/api/sessions/{self.check(answer, 201).json['id']}/raw").body
        self.assertEqual(raw.splitlines()[1:-1], lines.splitlines()[1:-1])

    def test_nothing_can_be_read_without_rights(self):
        session = self.upload(self.bob, team_id=self.team)
        for caller in (self.nobody, self.eve):
            for tail in ("", "/raw", "/events", "/events/0"):
                self.check(caller.get(f"/api/sessions/{session}{tail}"), 404, "session not found")
            self.check(caller.get(f"/api/teams/{self.team}"), 404, "team not found")
            self.assertEqual(self.listed(caller=caller)["sessions"], [])
        self.check(self.nobody.get(f"/api/teams/{self.team}/members"), 401)
        self.check(self.eve.get(f"/api/teams/{self.team}/members"), 404, "team not found")

    def test_nobody_gets_the_lists_envelope_with_nothing_in_it(self):
        self.upload(self.bob, team_id=self.team)
        found = self.check(self.nobody.get("/api/sessions?page=1&per_page=10"), 200).json
        self.assertEqual((found["sessions"], found["page"], found["per_page"], found["total"]), ([], 1, 10, 0))


class Teams(TeamCase):
    def test_a_team_is_private_and_has_no_description_at_first(self):
        answer = self.check(self.ada.post("/api/teams", {"name": "t"}), 201).json
        self.assertRegex(answer["id"], UUID)
        self.assertRegex(answer["created_at"], TIME)
        self.assertEqual({key: answer[key] for key in ("name", "description", "is_public", "created_by")},
                         {"name": "t", "description": None, "is_public": False, "created_by": self.ada.user_id})

    def test_my_teams_are_those_i_belong_to(self):
        self.new_team(self.ada, "other")
        teams = self.check(self.bob.get("/api/teams"), 200).json["teams"]
        self.assertEqual([team["id"] for team in teams], [self.team])

    def test_a_team_shows_how_many_belong_to_it_and_its_newest_sessions(self):
        session = self.upload(self.bob, team_id=self.team)
        found = self.check(self.bob.get(f"/api/teams/{self.team}"), 200).json
        self.assertEqual((found["id"], found["member_count"]), (self.team, 2))
        self.assertEqual([each["id"] for each in found["sessions"]], [session])

    def test_an_admin_renames_a_team(self):
        answer = self.check(self.ada.put(f"/api/teams/{self.team}", {"name": "kitchen"}), 200)
        self.assertEqual(answer.json["name"], "kitchen")

    def test_an_unknown_team_is_404_to_an_admin(self):
        unknown = f"/api/teams/{uuid.uuid4()}"
        self.check(self.nobody.get(unknown), 404, "team not found")
        self.check(self.ada.get(unknown), 404, "team not found")
        self.check(self.ada.put(unknown, {}), 404, "team not found")
        self.check(self.ada.get(f"{unknown}/members"), 404, "team not found")

    def test_a_removed_member_is_gone_from_the_list(self):
        answer = self.check(self.ada.delete(f"/api/teams/{self.team}/members/{self.bob.user_id}"), 204)
        self.assertEqual(answer.body, b"")
        members = self.ada.get(f"/api/teams/{self.team}/members").json["members"]
        self.assertEqual([member["user_id"] for member in members], [self.ada.user_id])

    def test_who_is_no_member_cannot_be_removed(self):
        answer = self.ada.delete(f"/api/teams/{self.team}/members/{uuid.uuid4()}")
        self.check(answer, 404, "member not found")

    def test_a_plain_member_removes_nobody(self):
        for user_id in (self.ada.user_id, str(uuid.uuid4())):
            self.check(self.bob.delete(f"/api/teams/{self.team}/members/{user_id}"), 403, "admin only")

    def test_a_member_has_the_originals_keys(self):
        answer = self.check(self.ada.post(f"/api/teams/{self.team}/members", {"nickname": "eve"}), 201).json
        self.assertRegex(answer.pop("joined_at"), TIME)
        self.assertEqual(answer, {"user_id": self.eve.user_id, "nickname": "eve", "role": "member"})

    def test_calls_without_a_key_change_nothing(self):
        self.check(self.nobody.post("/api/teams", {}), 401)
        self.check(self.nobody.post("/api/invitations", {}), 401)
        self.check(self.nobody.post("/api/sync/pull", {}), 405)


class Pulling(TeamCase):
    def test_a_cursor_leads_to_the_next_session_even_within_one_second(self):
        ids = [self.upload(self.bob, team_id=self.team) for _ in range(3)]
        first = self.check(self.bob.get(f"/api/sync/pull?team_id={self.team}&limit=1"), 200).json
        self.assertEqual(([each["id"] for each in first["sessions"]], first["has_more"]), (ids[:1], True))
        cursor = quote(first["next_cursor"])
        second = self.bob.get(f"/api/sync/pull?team_id={self.team}&limit=1&since={cursor}").json
        self.assertEqual([each["id"] for each in second["sessions"]], ids[1:2])

    def test_a_page_that_is_just_full_is_the_last(self):
        for _ in range(2):
            self.upload(self.bob, team_id=self.team)
        found = self.bob.get(f"/api/sync/pull?team_id={self.team}&limit=2").json
        self.assertEqual((len(found["sessions"]), found["has_more"]), (2, False))
        self.assertIsNotNone(found["next_cursor"])

    def test_the_team_must_be_named_and_be_ones_own(self):
        self.check(self.bob.get("/api/sync/pull"), 400)
        for team in (self.team, str(uuid.uuid4())):
            self.check(self.eve.get(f"/api/sync/pull?team_id={team}"), 403, "not a member of this team")


class WhatTheOriginalsDaemonCalledInVain(TeamCase):
    def test_the_daemons_settings_are_answered(self):
        self.assertEqual(self.check(self.bob.get("/api/config/sync"), 200).json, {"privacy": {}, "watchers": {}})
        self.check(self.nobody.get("/api/config/sync"), 401)

    def test_events_are_appended(self):
        session = self.upload(self.bob, team_id=self.team)
        answer = self.bob.post(f"/api/sessions/{session}/events", {"events": [new_event(at=9)]})
        self.assertEqual(self.check(answer, 200).json["accepted"], 1)
        self.assertEqual(self.listed()["sessions"][0]["event_count"], 3)
        self.assertEqual(self.listed()["sessions"][0]["updated_at"], moment(9).replace("Z", ".000Z"))


if __name__ == "__main__":
    unittest.main()
