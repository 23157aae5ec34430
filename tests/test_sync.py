"""Pulling a team's changes by cursor, and the settings that every daemon fetches."""

import unittest

from client import Client, ServerCase, new_event, new_session


class PullCase(ServerCase):
    def setUp(self):
        super().setUp()
        self.ada, self.bob = self.register("ada"), self.register("bob")
        self.team = self.new_team(self.ada, "core", [self.bob])

    def send(self, session_id, *texts, **context):
        events = [new_event(text=text, at=at, event_id=f"{session_id} {at}") for at, text in enumerate(texts or ("Hello",))]
        return self.upload(self.bob, new_session(session_id, events, **context), self.team)

    def pull(self, since=None, limit=None, caller=None):
        url = f"/api/sync/pull?team_id={self.team}"
        url += f"&since={since}" if since else ""
        url += f"&limit={limit}" if limit is not None else ""
        return self.check((caller or self.bob).get(url), 200).json

    def pull_all(self, since=None, limit=None):
        """(ids of all pages in order, deleted ids, last cursor); fails where a page is empty or the last says there is more."""
        ids, deleted = [], []
        while True:
            page = self.pull(since, limit)
            ids += [session["id"] for session in page["sessions"]]
            deleted += page["deleted"]
            self.assertTrue(page["sessions"] or not page["has_more"], "an empty page that promises more")
            since = page["next_cursor"]
            if not page["has_more"]:
                return ids, deleted, since


class Pulling(PullCase):
    def test_sessions_come_in_the_order_of_their_changes(self):
        ids = [self.send(name) for name in ("c", "a", "b")]
        self.assertEqual(self.pull_all()[0], ids)

    def test_every_page_size_gives_every_session_once(self):
        ids = [self.send(str(number)) for number in range(5)]
        for limit in range(1, 7):
            self.assertEqual(self.pull_all(limit=limit)[0], ids)

    def test_more_is_promised_only_where_there_is_more(self):
        for number in range(4):
            self.send(str(number))
        self.assertEqual([self.pull(limit=limit)["has_more"] for limit in (3, 4, 5)], [True, False, False])

    def test_a_cursor_comes_whenever_sessions_came_and_stays_where_none_did(self):
        self.assertIsNone(self.pull()["next_cursor"])
        self.send("a")
        cursor = self.pull()["next_cursor"]
        self.assertIsInstance(cursor, str)
        again = self.pull(cursor)
        self.assertEqual((again["sessions"], again["has_more"], again["next_cursor"]), ([], False, cursor))

    def test_what_was_updated_is_pulled_again_and_last(self):
        first, second = self.send("a"), self.send("b")
        cursor = self.pull()["next_cursor"]
        self.send("a", "Hello", "again")
        self.assertEqual(self.pull_all(cursor)[0], [first])
        self.assertEqual(self.pull_all()[0], [second, first])

    def test_appended_events_and_a_new_title_are_updates_too(self):
        first, second = self.send("a"), self.send("b")
        cursor = self.pull()["next_cursor"]
        self.check(self.bob.post(f"/api/sessions/{second}/events", {"events": [new_event(at=9)]}), 200)
        self.send("a", title="named")
        found = self.pull(cursor)["sessions"]
        self.assertEqual([(each["id"], each["event_count"], each["title"]) for each in found],
                         [(second, 2, "Hello"), (first, 1, "named")])

    def test_the_same_upload_again_is_no_update(self):
        self.send("a")
        cursor = self.pull()["next_cursor"]
        self.send("a")
        self.assertEqual(self.pull_all(cursor)[0], [])

    def test_an_update_between_two_pages_is_not_lost(self):
        ids = [self.send(str(number)) for number in range(4)]
        page = self.pull(limit=2)
        self.send("0", "Hello", "again")
        self.assertEqual(self.pull_all(page["next_cursor"], 2)[0], [ids[2], ids[3], ids[0]])

    def test_a_clock_that_is_moved_back_loses_nothing(self):
        self.send("a")
        cursor = self.pull()["next_cursor"]
        self.change("UPDATE sessions SET uploaded_at = '2999-01-01T00:00:00.000Z'")
        late = self.send("b")
        self.assertEqual(self.pull_all(cursor)[0], [late])

    def test_a_session_from_long_ago_that_arrives_now_is_pulled(self):
        self.send("a")
        cursor = self.pull()["next_cursor"]
        old = self.upload(self.bob, new_session("old", [new_event(timestamp="2001-01-01T00:00:00Z")]), self.team)
        self.assertEqual(self.pull_all(cursor)[0], [old])

    def test_the_counter_goes_on_after_a_restart(self):
        self.send("a")
        cursor = self.pull()["next_cursor"]
        self.restart()
        late = self.send("b")
        self.assertEqual(self.pull_all(cursor)[0], [late])

    def test_sessions_look_as_in_lists(self):
        self.send("a")
        listed = self.bob.get(f"/api/sessions?team_id={self.team}").json["sessions"]
        self.assertEqual(self.pull()["sessions"], listed)

    def test_other_teams_are_not_pulled(self):
        self.upload(self.ada, team_id=self.ada.team_id)
        self.assertEqual(self.pull()["sessions"], [])

    def test_a_limit_is_moved_into_its_range(self):
        for number in range(3):
            self.send(str(number))
        self.assertEqual([len(self.pull(limit=limit)["sessions"]) for limit in (-5, 0, 1, 2, 501, 10**12)], [1, 1, 1, 2, 3, 3])
        self.check(self.bob.get(f"/api/sync/pull?team_id={self.team}&limit=x"), 400)

    def test_the_default_page_holds_a_hundred(self):
        for number in range(101):
            self.send(str(number))
        page = self.pull()
        self.assertEqual((len(page["sessions"]), page["has_more"]), (100, True))

    def test_a_cursor_that_is_none_of_ours_is_400(self):
        for since in ("x", "-1", "2026-02-11%2006:00:00", "%00x", "9" * 16, "%D9%A1"):
            answer = self.check(self.bob.get(f"/api/sync/pull?team_id={self.team}&since={since}"), 400)
            self.assertEqual(answer.json["field"], "since")


class Deletions(PullCase):
    def test_what_was_deleted_is_named(self):
        first, second = self.send("a"), self.send("b")
        cursor = self.pull()["next_cursor"]
        self.check(self.bob.delete(f"/api/sessions/{first}"), 204)
        page = self.pull(cursor)
        self.assertEqual((page["sessions"], page["deleted"], page["has_more"]), ([], [first], False))
        after = self.pull(page["next_cursor"])
        self.assertEqual((after["sessions"], after["deleted"]), ([], []))
        self.assertEqual(self.pull_all()[0], [second])

    def test_deletions_come_with_any_page_size_and_once(self):
        ids = [self.send(str(number)) for number in range(6)]
        cursor = self.pull(limit=1)["next_cursor"]
        for number in (1, 3, 5):
            self.check(self.bob.delete(f"/api/sessions/{ids[number]}"), 204)
        for limit in (1, 2, 3, 9):
            found, deleted, last = self.pull_all(cursor, limit)
            self.assertEqual((found, deleted), ([ids[2], ids[4]], [ids[1], ids[3], ids[5]]))
            self.assertEqual(self.pull(last)["deleted"], [])

    def test_helpers_that_go_with_their_parent_are_named_too(self):
        parent = self.send("parent")
        child = self.send("child", attributes={"parent_session_id": "parent"})
        cursor = self.pull()["next_cursor"]
        self.check(self.bob.delete(f"/api/sessions/{parent}"), 204)
        self.assertEqual(set(self.pull(cursor)["deleted"]), {parent, child})


class DaemonSettings(ServerCase):
    BODY = {"privacy": {"exclude_patterns": ["*.env", "비밀/*"], "exclude_tools": ["codex"]},
            "watchers": {"claude_code": True, "cursor": False}}

    def setUp(self):
        super().setUp()
        self.ada, self.bob = self.register("ada"), self.register("bob")

    def test_what_an_admin_sets_every_daemon_gets(self):
        self.assertEqual(self.check(self.ada.put("/api/config/sync", self.BODY), 200).json, self.BODY)
        self.assertEqual(self.check(self.bob.get("/api/config/sync"), 200).json, self.BODY)

    def test_others_set_nothing(self):
        self.check(self.bob.put("/api/config/sync", self.BODY), 403, "admin only")
        self.check(Client().put("/api/config/sync", self.BODY), 401)
        self.assertEqual(self.bob.get("/api/config/sync").json, {"privacy": {}, "watchers": {}})

    def test_a_known_tag_gets_304_without_a_body_until_something_changes(self):
        self.ada.put("/api/config/sync", self.BODY)
        tag = self.bob.get("/api/config/sync").headers["ETag"]
        for known in (tag, f"W/{tag}", f'"x", {tag}'):
            answer = self.bob.get("/api/config/sync", headers={"If-None-Match": known})
            self.assertEqual((answer.status, answer.body, answer.headers["ETag"]), (304, b"", tag))
        self.ada.put("/api/config/sync", {})
        self.check(self.bob.get("/api/config/sync", headers={"If-None-Match": tag}), 200)
        self.check(self.bob.get("/api/config/sync", headers={"If-None-Match": "\xe9"}), 200)

    def test_what_is_left_out_is_cleared_and_unknown_keys_are_dropped(self):
        self.ada.put("/api/config/sync", self.BODY)
        answer = self.check(self.ada.put("/api/config/sync", {"privacy": {"exclude_tools": [], "nonsense": 1}, "x": 2}), 200)
        self.assertEqual(answer.json, {"privacy": {"exclude_tools": []}, "watchers": {}})

    def test_wrong_values_are_named_and_change_nothing(self):
        self.ada.put("/api/config/sync", self.BODY)
        for body, field in (({"privacy": []}, "privacy"), ({"privacy": {"exclude_tools": "codex"}}, "exclude_tools"),
                            ({"privacy": {"exclude_patterns": [1]}}, "exclude_patterns"), ({"watchers": 5}, "watchers"),
                            ({"privacy": {"exclude_tools": None}}, "exclude_tools"), ({"watchers": {"cursor": "off"}}, "cursor")):
            self.assertEqual(self.check(self.ada.put("/api/config/sync", body), 422).json["field"], field)
        self.assertEqual(self.bob.get("/api/config/sync").json, self.BODY)


if __name__ == "__main__":
    unittest.main()
