"""Lists of sessions: filters, sorts, cursors, totals, facets, activity; and what they cost."""

import itertools
import random
import re
import unittest
import urllib.parse
from collections import Counter
from datetime import datetime, timedelta, timezone

import opensession
from client import Client, ServerCase, new_event, new_session

KEYS = {"recent": ["updated_at"], "popular": ["message_count", "updated_at"], "longest": ["duration_seconds", "updated_at"]}
VALUES = {"tool": ["codex", "cursor"], "project": ["alpha", "베타", None], "model": ["m-1", "m-2", None], "branch": ["main", "topic", None]}


class ListCase(ServerCase):
    """Ada administrates three teams; Bob is in the first two; `sent` says what was uploaded, by id."""

    def setUp(self):
        super().setUp()
        self.ada, self.bob = self.register("ada"), self.register("bob")
        self.teams = [self.new_team(self.ada, f"team {number}", [self.bob] if number < 2 else []) for number in range(3)]
        self.sent = {}

    def send(self, user, team, tool="codex", project=None, model=None, branch=None, start=0, seconds=10, messages=2, **more):
        """Upload a session that begins `start` minutes after our first day."""
        at = datetime(2026, 2, 11, 6, tzinfo=timezone.utc) + timedelta(minutes=start)
        times = [at + timedelta(seconds=seconds * number / max(1, messages - 1)) for number in range(messages)]
        session = new_session(tool=tool, events=[new_event(timestamp=time.isoformat()) for time in times],
                              attributes={"project": project, "git_branch": branch, **more})
        session["agent"]["model"] = model
        session_id = self.upload(user, session, team)
        self.sent[session_id] = {"team_id": team, "user_id": user.user_id, "tool": tool, "project": project, "model": model,
                                 "branch": branch}
        return session_id

    def many(self, count):
        chance = random.Random(7)
        for number in range(count):
            user = chance.choice([self.ada, self.bob])
            self.send(user, chance.choice(self.teams[:2] if user is self.bob else self.teams), start=chance.randrange(9) * 700,
                      seconds=chance.randrange(5), messages=chance.randrange(1, 4),
                      **{name: chance.choice(values) for name, values in VALUES.items()})

    def listed(self, who=None, **filters):
        url = "/api/sessions?" + urllib.parse.urlencode({name: value for name, value in filters.items() if value is not None})
        return self.check((who or self.ada).get(url), 200).json

    def walk(self, who=None, **filters):
        """All pages, by cursor."""
        found, cursor = [], None
        while cursor is not None or not found:
            page = self.listed(who, cursor=cursor, **filters)
            found, cursor = found + page["sessions"], page["next_cursor"]
            if not page["sessions"]:
                break
        return found

    def views(self):
        """Filters of all kinds, alone and together, as query strings have them."""
        singles = [{}] + [{name: value} for name, values in VALUES.items() for value in values if value] + [
            {"user_id": self.ada.user_id}, {"day": "2026-02-12"}, {"team_id": self.teams[1]}, {"tool": "none"}]
        return singles + [{**one, **other} for one, other in itertools.combinations(singles[1:], 2) if not set(one) & set(other)]

    def expected(self, view):
        """The ids that a view has, from what was sent."""
        ids = [session_id for session_id, facts in self.sent.items()
               if all(facts[name] == value for name, value in view.items() if name != "day")]
        if "day" in view:
            days = {row["id"]: row["updated_at"][:10] for row in self.rows("SELECT id, updated_at FROM sessions")}
            ids = [session_id for session_id in ids if days[session_id] == view["day"]]
        return ids


class Filters(ListCase):
    def test_every_filter_with_every_sort_shows_what_fits_in_order_and_counts_it(self):
        self.many(60)
        for view in self.views():
            for sort, keys in KEYS.items():
                with self.subTest(**view, sort=sort):
                    found = self.walk(**view, sort=sort, per_page=7)
                    self.assertEqual(sorted(each["id"] for each in found), sorted(self.expected(view)))
                    values = [[each[key] for key in keys] for each in found]
                    self.assertEqual(values, sorted(values, reverse=True))
                    self.assertEqual(self.listed(**view, sort=sort, per_page=7)["total"], len(found))

    def test_pages_and_cursors_lead_to_the_same(self):
        self.many(30)
        for sort in KEYS:
            pages = [self.listed(sort=sort, per_page=7, page=number) for number in range(1, 6)]
            self.assertEqual([each for page in pages for each in page["sessions"]], self.walk(sort=sort, per_page=7))
            self.assertEqual({page["total"] for page in pages}, {30})

    def test_who_reads_two_teams_sees_these_two(self):
        self.many(40)
        visible = [session_id for session_id, facts in self.sent.items() if facts["team_id"] in self.teams[:2]]
        for filters in ({}, {"per_page": 3}, {"tool": "codex"}):
            wanted = [one for one in visible if self.sent[one]["tool"] == filters.get("tool", self.sent[one]["tool"])]
            self.assertEqual(sorted(each["id"] for each in self.walk(self.bob, **filters)), sorted(wanted))
            self.assertEqual(self.listed(self.bob, **filters)["total"], len(wanted))
        self.assertEqual(self.listed(self.bob, team_id=self.teams[2])["total"], 0)
        self.assertEqual(self.listed(Client())["total"], 0)

    def test_of_more_teams_than_a_page_has_rows_every_session_comes_in_its_place(self):
        for number in range(4):
            self.teams.append(self.new_team(self.ada, f"further {number}"))
        for number, team in enumerate(self.teams * 3):
            self.send(self.ada, team, tool="codex" if number % 3 else "cursor", start=number * 37 % 11, messages=number * 5 % 7)
        self.send(self.ada, self.teams[0], messages=0)      # empty: in no list
        for view, sort in itertools.product(({}, {"tool": "codex"}, {"tool": "none"}, {"day": "2026-02-11"}), KEYS):
            with self.subTest(**view, sort=sort):
                whole = self.listed(**view, sort=sort, per_page=100)["sessions"]
                self.assertEqual(self.walk(**view, sort=sort, per_page=1), whole)
                pages = [self.listed(**view, sort=sort, per_page=2, page=number)["sessions"] for number in range(1, 12)]
                self.assertEqual(sum(pages, []), whole)

    def test_a_day_begins_on_the_callers_clock(self):
        first = self.send(self.ada, self.teams[0], start=-6 * 60 - 30)          # 2026-02-10T23:30Z
        second = self.send(self.ada, self.teams[0], start=-5 * 60)              # 2026-02-11T01:00Z
        found = lambda **filters: {each["id"] for each in self.listed(**filters)["sessions"]}
        self.assertEqual(found(day="2026-02-11"), {second})
        self.assertEqual(found(day="2026-02-11", tz=540), {first, second})
        self.assertEqual(found(day="2026-02-10", tz=-120), {first, second})
        for bad in ("2026-02-30", "yesterday", "2026-2", "0000-01-01", "9999-12-31"):
            self.assertEqual(self.check(self.ada.get(f"/api/sessions?day={bad}"), 400).json["field"], "day")

    def test_a_total_that_is_counted_is_capped_and_says_so(self):
        self.many(30)
        counted, opensession.COUNTED = opensession.COUNTED, 5
        self.addCleanup(setattr, opensession, "COUNTED", counted)
        page = self.listed(per_page=1, time_range="all", tool="codex", user_id=self.ada.user_id)
        self.assertEqual((page["total"], page["total_is_capped"]), (5, True))
        exact = self.listed(per_page=1, tool="codex")
        self.assertEqual((exact["total"], "total_is_capped" in exact), (len(self.expected({"tool": "codex"})), False))


class Counters(ListCase):
    """The counts beside the sessions are those that counting gives, whatever happened."""

    COUNTED = """
        WITH listed AS (SELECT * FROM sessions WHERE listed)
        SELECT team_id, 'all' AS name, '' AS value, count(*) AS sessions FROM listed GROUP BY 1
        UNION ALL SELECT team_id, 'tool', tool, count(*) FROM listed GROUP BY 1, 3
        UNION ALL SELECT team_id, 'user_id', user_id, count(*) FROM listed WHERE user_id IS NOT NULL GROUP BY 1, 3
        UNION ALL SELECT team_id, 'project', project, count(*) FROM listed WHERE project IS NOT NULL GROUP BY 1, 3
        UNION ALL SELECT team_id, 'model', agent_model, count(*) FROM listed WHERE agent_model IS NOT NULL GROUP BY 1, 3
        UNION ALL SELECT team_id, 'branch', git_branch, count(*) FROM listed WHERE git_branch IS NOT NULL GROUP BY 1, 3"""

    def right(self):
        kept = self.rows("SELECT team_id, name, value, sessions FROM facets WHERE sessions <> 0")
        as_set = lambda rows: {tuple(row.values()) for row in rows}
        self.assertEqual(as_set(kept), as_set(self.rows(self.COUNTED)))

    def test_after_uploads_changes_moves_and_deletions(self):
        self.many(25)
        self.right()
        ids = list(self.sent)
        for session_id in ids[:5]:
            self.check(self.ada.delete(f"/api/sessions/{session_id}"), 204)
        self.right()
        for session_id in ids[5:12]:
            moved = self.ada.put(f"/api/sessions/{session_id}", {"team_id": self.teams[1]})
            self.assertEqual(moved.status, 200, moved)
        self.right()

    def test_after_a_header_changed_and_a_session_grew(self):
        session = new_session("s-1", attributes={"project": "old", "git_branch": "main"})
        session_id = self.upload(self.ada, session, self.teams[0])
        session["context"]["attributes"] = {"project": "new"}
        self.upload(self.ada, session, self.teams[0])
        self.right()
        self.ada.post(f"/api/sessions/{session_id}/events", {"events": [new_event(at=99)]})
        self.right()

    def test_after_a_child_found_its_parent(self):
        self.upload(self.ada, new_session("child", attributes={"parent_session_id": "parent"}), self.teams[0])
        self.right()
        self.upload(self.ada, new_session("parent"), self.teams[0])
        self.right()
        self.assertEqual(self.listed(team_id=self.teams[0])["total"], 1)

    def test_after_its_uploader_is_gone(self):
        self.send(self.bob, self.teams[0], project="alpha")
        self.change("DELETE FROM users WHERE id = ?", self.bob.user_id)
        self.right()


class Facets(ListCase):
    def test_they_count_the_values_of_a_view_most_frequent_first(self):
        self.many(60)
        for view in self.views()[:20]:
            with self.subTest(**view):
                facets = self.listed(**view, facets=1)["facets"]
                ids = self.expected(view)
                for name in ("tool", "project", "model"):
                    wanted = Counter(self.sent[one][name] for one in ids if self.sent[one][name] is not None)
                    self.assertEqual(dict(facets[name]), dict(wanted))
                    counts = [count for _, count in facets[name]]
                    self.assertEqual(counts, sorted(counts, reverse=True))
                wanted = Counter(self.sent[one]["user_id"] for one in ids)
                self.assertEqual({user: count for user, _, count in facets["user"]}, dict(wanted))

    def test_users_come_with_their_names_and_values_that_are_gone_do_not_come(self):
        session_id = self.send(self.bob, self.teams[0], project="alpha")
        self.send(self.bob, self.teams[0], project="베타")
        self.check(self.ada.delete(f"/api/sessions/{session_id}"), 204)
        facets = self.listed(self.bob, facets=1)["facets"]
        self.assertEqual((facets["user"], facets["project"]), ([[self.bob.user_id, "bob", 1]], [["베타", 1]]))

    def test_a_facet_holds_the_thirty_most_frequent(self):
        for number in range(35):
            self.send(self.ada, self.teams[0], project=f"p{number}")
        self.send(self.ada, self.teams[0], project="p34")
        found = self.listed(facets=1)["facets"]["project"]
        self.assertEqual((len(found), found[0]), (30, ["p34", 2]))

    def test_where_a_view_is_narrowed_and_large_the_newest_are_counted_and_it_says_so(self):
        for number in range(6):
            self.send(self.ada, self.teams[0], model=f"m-{number}", start=number)
        most, opensession.FACET_SESSIONS = opensession.FACET_SESSIONS, 4
        self.addCleanup(setattr, opensession, "FACET_SESSIONS", most)
        answer = self.listed(facets=1, tool="codex")
        self.assertEqual(({model for model, _ in answer["facets"]["model"]}, answer["facets_are_capped"]),
                         ({"m-2", "m-3", "m-4", "m-5"}, True))
        self.assertFalse(self.listed(facets=1)["facets_are_capped"])

    def test_of_many_teams_too_the_newest_are_counted(self):
        for number in range(9):
            self.send(self.ada, self.teams[number % 3], model=f"m-{number}", start=number)
        most, opensession.FACET_SESSIONS = opensession.FACET_SESSIONS, 4
        self.addCleanup(setattr, opensession, "FACET_SESSIONS", most)
        self.assertEqual({model for model, _ in self.listed(facets=1, tool="codex")["facets"]["model"]}, {"m-5", "m-6", "m-7", "m-8"})

    def test_nothing_is_counted_of_a_team_that_one_may_not_read(self):
        self.send(self.ada, self.teams[2], project="secret")
        for filters in ({}, {"team_id": self.teams[2]}, {"tool": "codex"}):
            self.assertNotIn("secret", str(self.listed(self.bob, facets=1, **filters)))
            self.assertNotIn("ada", str(self.listed(self.bob, facets=1, **filters)["facets"]))


class Activity(ListCase):
    def days(self, who=None, **filters):
        return self.check((who or self.ada).get("/api/activity?" + urllib.parse.urlencode(filters)), 200).json["days"]

    def test_it_counts_the_sessions_of_each_day_of_a_month(self):
        self.many(40)
        for view in ({}, {"tool": "codex"}, {"team_id": self.teams[0], "project": "alpha"}):
            wanted = Counter(each["updated_at"][:10] for each in self.walk(**view))
            self.assertEqual(self.days(month="2026-02", **view), dict(wanted))
        self.assertEqual(self.days(month="2026-03"), {})

    def test_a_day_is_what_the_callers_clock_says(self):
        self.send(self.ada, self.teams[0], start=-6 * 60 - 30)
        self.assertEqual(self.days(month="2026-02"), {"2026-02-10": 1})
        self.assertEqual(self.days(month="2026-02", tz=540), {"2026-02-11": 1})

    def test_a_month_that_is_none_is_400(self):
        for month in ("", "2026", "2026-13", "x"):
            self.check(self.ada.get(f"/api/activity?month={month}"), 400)

    def test_it_says_nothing_of_teams_that_one_may_not_read(self):
        self.send(self.ada, self.teams[2])
        self.assertEqual(self.days(self.bob, month="2026-02"), {})
        self.assertEqual(self.days(Client(), month="2026-02", team_id=self.teams[2]), {})


# What a plan may walk from end to end: teams of one reader, what holds secrets, and what a query has made itself.
SMALL = re.compile(r"SCAN (t|b USING COVERING INDEX blocks_with_secrets|page|each|first|days|CONSTANT ROW|\d+ CONSTANT ROWS|\(subquery-\d+\)|teams USING .*public_teams)( |$)")


class Plans(ListCase):
    """No list reads a large table from end to end.  SQLite tells how it would run each statement of a real request."""

    def plans(self, url):
        """[(statement, lines of its plan)] of a request."""
        statements, connection = [], opensession.db._connection()
        connection.set_trace_callback(statements.append)
        try:
            self.check(self.ada.get(url), 200)
        finally:
            connection.set_trace_callback(None)
        return [(sql, [row["detail"] for row in self.rows(f"EXPLAIN QUERY PLAN {sql}")])
                for sql in statements if sql.lstrip().startswith(("SELECT", "WITH"))]

    def check_plans(self, url):
        plans = self.plans(url)
        self.assertTrue(any("SEARCH" in line for _, plan in plans for line in plan))
        for sql, plan in plans:
            for line in plan:
                self.assertFalse(line.startswith("SCAN") and not SMALL.match(line), f"{line}\n{sql}\n{plan}")

    def test_every_filter_with_every_sort_page_and_cursor(self):
        self.many(30)
        values = {"tool": "codex", "user_id": self.ada.user_id, "project": "alpha", "model": "m-1", "branch": "main",
                  "team_id": self.teams[0], "day": "2026-02-11", "time_range": "30d", "parent": "x"}
        for size in (0, 1, 2, len(values)):
            for names in itertools.combinations(values, size):
                view = {name: values[name] for name in names}
                for sort in KEYS:
                    with self.subTest(**view, sort=sort):
                        url = "/api/sessions?" + urllib.parse.urlencode({**view, "sort": sort, "per_page": 1, "facets": 1})
                        self.check_plans(url)
                        cursor = self.check(self.ada.get(url), 200).json["next_cursor"]
                        if cursor and size < 2:
                            self.check_plans(f"{url}&cursor={cursor}")

    def test_a_page_sorts_nothing_that_an_index_has_in_order(self):
        self.many(10)
        for view in ({}, *({name: values[0]} for name, values in VALUES.items()), {"user_id": self.ada.user_id}):
            for sort in KEYS:
                url = "/api/sessions?" + urllib.parse.urlencode({**view, "sort": sort, "team_id": self.teams[0]})
                for sql, plan in self.plans(url):
                    lead = next(iter(view), "all")
                    if f"INDEXED BY list_{lead}_{sort}" in sql:
                        inner = plan[[number for number, line in enumerate(plan) if f"list_{lead}_{sort}" in line][0] + 1]
                        self.assertNotEqual(inner, "USE TEMP B-TREE FOR ORDER BY")

    def test_activity_teams_sync_and_what_holds_secrets(self):
        self.many(10)
        for url in ("/api/activity?month=2026-02", f"/api/activity?month=2026-02&tool=codex&team_id={self.teams[0]}",
                    "/api/sessions?secrets=1&sort=longest", "/api/sessions?secrets=1&tool=codex",
                    f"/api/teams/{self.teams[0]}", f"/api/sync/pull?team_id={self.teams[0]}"):
            with self.subTest(url):
                self.check_plans(url)

    def test_what_a_session_is_read_with_and_what_the_server_tells_of_itself(self):
        self.restart(OPENSESSION_METRICS="on")
        session_id = self.send(self.ada, self.teams[0], messages=3)
        event_id = self.check(self.ada.get(f"/api/sessions/{session_id}/events/1"), 200).json["event_id"]
        for url in ("", "/events", f"/events?around={event_id}", "/events?at=2026-02-11T06:00:05Z", "/events/1",
                    "/outline", "/map", "/raw"):
            with self.subTest(url):
                self.check_reads(f"/api/sessions/{session_id}{url}")
        for url in ("/metrics", "/api/health", "/api/auth/me", "/api/keys", "/api/teams", f"/api/teams/{self.teams[0]}/members"):
            with self.subTest(url):
                self.check_reads(url)

    def check_reads(self, url):
        """No statement of a request walks a table that grows with what is uploaded or done."""
        for sql, plan in self.plans(url):
            for line in plan:
                self.assertNotRegex(line, r"^SCAN (s|n|p|c|b|i|x|sessions|blocks|indexed|unindexed|facets|removals|tombstones|audit)( |$)"
                                          r"(?!USING (COVERING )?INDEX indexed_pending)", sql)


if __name__ == "__main__":
    unittest.main()
