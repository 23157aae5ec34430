"""Search: what is found, in which languages, by whom, how soon and how far; and that the index follows everything."""

import json
import os
import random
import re
import threading
import time
import unittest
import unicodedata
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import urlencode

import pytest

import opensession
from client import PATIENCE, Client, ServerCase, call, eventually, new_event, new_session, running_server, server_process
from hypothesis import given, settings, strategies as st

CORPUS = Path(os.environ.get("OPENSESSION_CORPUS") or Path(opensession.__file__).parent / "../shared/corpus")
QUERIES = 20_000

KOREAN = ["업로드한 세션을 다시 불러올 때 가끔 오류가 납니다.", "데이터베이스 잠금을 기다리다가 시간이 초과되었어요",
          "한글 파일 이름(사본).txt를 읽지 못합니다", "React컴포넌트에서 useState를 쓰는 방법", "검색창에 두 글자만 쳐도 찾아야 한다"]
JAPANESE = ["検索インデックスを作り直すと、古い結果が残ってしまう。", "ファイルのアップロードが途中で止まります",
            "東京タワーの高さは333メートルです", "ﾊﾝｶｸｶﾅも同じように見つかること", "データベース接続エラー"]
CHINESE = ["上传文件时出现了错误，请检查日志。", "搜索功能不支持中文分词", "數據庫連接超時的問題已經解決", "這個函數應該返回一個列表"]


class SearchCase(ServerCase):
    def setUp(self):
        super().setUp()
        self.ada = self.register("ada")

    def store(self, *texts, client=None, team_id=None, session_id=None, **context):
        """The id of a session whose prompts are these texts (or whose events these are)."""
        events = [text if isinstance(text, dict) else new_event(text=text, at=number) for number, text in enumerate(texts)]
        return self.upload(client or self.ada, new_session(session_id, events=events, **context), team_id)

    def answer(self, text, client=None, **more):
        return self.check((client or self.ada).get(f"/api/search?{urlencode({'q': text, **more})}"), 200).json

    def search(self, text, client=None, **more):
        """The ids of the sessions that a query finds, once everything is indexed."""
        self.index()
        return [hit["session"]["id"] for hit in self.answer(text, client, **more)["hits"]]

    def places(self, text, client=None):
        """{ordinals} of the shown places of a query, all sessions together."""
        self.index()
        return {place["ordinal"] for hit in self.answer(text, client)["hits"] for place in hit["places"]}

    def assertFinds(self, session_id, *queries):
        for text in queries:
            with self.subTest(text):
                self.assertEqual(self.search(text), [session_id])

    def assertFindsNothing(self, *queries):
        for text in queries:
            with self.subTest(text):
                self.assertEqual(self.search(text), [])


class WhatIsFound(SearchCase):
    def test_all_words_must_be_in_one_event(self):
        self.store("the red fox", "a blue whale")
        self.assertFinds(*[self.store("a red and blue fish")], "red blue")
        self.assertFindsNothing("fox whale")

    def test_a_phrase_is_found_in_its_order_only(self):
        found = self.store("the quick brown fox")
        self.assertFinds(found, '"quick brown"', '"QUICK   brown fox"')
        self.assertFindsNothing('"brown quick"', '"quick fox"')

    def test_words_can_be_ruled_out_begun_and_alternatives(self):
        red, blue = self.store("red apple pie"), self.store("blue apple tart")
        self.assertFinds(red, "apple -blue", "appl* -tart", "tomato OR pie", '-"blue apple"')
        self.assertEqual(set(self.search("red OR blue apple")), {red, blue})
        self.assertEqual(set(self.search("appl*")), {red, blue})

    def test_identifiers_are_found_whole_in_parts_and_in_either_style(self):
        camel = self.store("call retryUpload() in HTTPServerFactory of OpenSession")
        self.assertFinds(camel, "retryUpload", "retryupload", "retry_upload", "retry", "upload", "HTTPServerFactory",
                         "http server", "factory", "opensession", "OpenSession", "session", "retryUp*")
        snake = self.store("see do_retry_later")
        self.assertFinds(snake, "do_retry_later", "retry_later", "later", "doRetryLater", "do_re*")

    def test_paths_addresses_and_hashes_are_found_whole_and_in_parts(self):
        found = self.store("crates/server/src/main.rs https://example.org/a/b?x=1#top commit 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b")
        self.assertFinds(found, "crates/server/src/main.rs", "src/main.rs", "main.rs", "server", "https://example.org/a/b?x=1#top",
                         "example.org", "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b", "9f86d081", "9f86d08*")

    def test_case_accents_and_width_do_not_matter(self):
        found = self.store("Crème BRÛLÉE, Straße, Ελλάδα, ПРИВЕТ, ｆｕｌｌｗｉｄｔｈ Ａｂｃ")
        self.assertFinds(found, "creme brulee", "CRÈME", "strasse", "ελλαδα", "привет", "fullwidth", "ａｂｃ")

    def test_both_normal_forms_find_each_other(self):
        composed, apart = self.store("café 세션"), self.store(unicodedata.normalize("NFD", "café 세션"))
        for form in ("NFC", "NFD"):
            self.assertEqual(set(self.search(unicodedata.normalize(form, "café"))), {composed, apart})
            self.assertEqual(set(self.search(unicodedata.normalize(form, "세션"))), {composed, apart})

    def test_emoji_are_words(self):
        found = self.store("deployed🚀today ✅ 👩‍💻")
        self.assertFinds(found, "🚀", "deployed 🚀", "✅", "👩‍💻", '"deployed 🚀 today"')
        self.assertFindsNothing("🔥")

    def test_thinking_inputs_outputs_paths_and_titles_are_found(self):
        found = self.store(
            new_event("Thinking", "ponderous"), new_event("ShellCommand", "", data={"command": "make frobnicate"}),
            new_event("ToolResult", "splendid output", data={"name": "Bash"}), new_event("FileRead", "", data={"path": "docs/zebra.md"}),
            new_event("ToolCall", "", data={"name": "mcp__giraffe"}) | {"content": {"blocks": [{"type": "Json", "data": {"key": ["jsonvalue"]}}]}},
            new_event("WebFetch", "", data={"url": "https://walrus.test/"}), title="Grand opening", tags=["ribbon"],
            attributes={"git_branch": "feature/otter", "git": {"commit": "abcdef0123"}})
        self.assertFinds(found, "ponderous", "frobnicate", "splendid", "zebra.md", "giraffe", "jsonvalue", "walrus.test",
                         "grand opening", "ribbon", "feature/otter", "abcdef0123")

    def test_of_a_long_output_the_beginning_and_the_end_are_found(self):
        text = f"alphaword {'x ' * 6000} nearly {'y ' * 20000} omegaword"
        found = self.store(new_event("ToolResult", text, data={"name": "Bash"}))
        self.assertFinds(found, "alphaword", "omegaword")

    def test_of_a_long_prompt_everything_is_found(self):
        self.assertFinds(self.store("x " * 50000 + "needle" + " y" * 50000), "needle")

    def test_a_child_session_is_found_too(self):
        self.store("parent words", session_id="p")
        child = self.store("childish words", attributes={"parent_session_id": "p"})
        self.assertFinds(child, "childish")

    def test_wide_scripts_are_found_from_two_characters(self):
        for text, words in (("세션을 저장했습니다", ("세션", "션을", "저장", "했습", "세션을 저장했", "세 저장")), ("検索インデックスを作る", ("検索", "索イ", "デックス", "作る")),
                            ("上传文件失败", ("上传", "文件", "传文", "失败")), ("ค้นหาข้อความ", ("ค้นหา", "ข้อความ"))):
            self.assertFinds(self.store(text), *words)

    def test_one_wide_character_is_a_beginning(self):
        found = self.store("검색을 고치다")
        self.assertFinds(found, "검*", "색*", "을*", "다*", "검")

    def test_latin_glued_to_hangul_is_found(self):
        self.assertFinds(self.store("parseHeader를 고쳐서 API를 React로바꿈"), "parseHeader", "header", "API", "API를", "react로", "로바꿈", "parseHeader를")


class Filters(SearchCase):
    def setUp(self):
        super().setUp()
        self.bob = self.register("bob")
        self.core = self.new_team(self.ada, "Core Team", [self.bob])
        self.one = self.store(
            new_event(text="needle prompt"), new_event("AgentMessage", "needle reply", at=1), new_event("Thinking", "needle thought", at=2),
            new_event("ToolResult", "needle broke", at=3, data={"name": "Bash", "is_error": True}),
            new_event("FileEdit", "needle", at=4, data={"path": "src/auth/login.py", "diff": "+needle"}),
            new_event(text="needle picture", at=5) | {"content": {"blocks": [{"type": "Text", "text": "needle"}, {"type": "Image", "url": "x", "mime": "image/png"}]}},
            team_id=self.core, title="needle title", attributes={"project": "github.com/acme/Shop", "git_branch": "Main"})
        self.two = self.store(new_event(text="needle elsewhere"), client=self.bob, team_id=self.core, tool="codex", attributes={"project": "other"})

    def test_each_filter_narrows_to_its_sessions(self):
        for text in ("tool:claude-code", "TOOL:Claude-Code", "user:ada", "user:me", "project:shop", "project:github.com/acme/shop",
                     "branch:main", "-tool:codex", "-user:bob", "-project:other", "file:login.py", "file:src/auth", "kind:error", "has:diff"):
            self.assertFinds(self.one, f"needle {text}", text)
        both = {self.one, self.two}
        for text in ("", 'team:"core team"', f"team:{self.core}", "model:opus", "tool:codex tool:claude-code", "after:2026-02-01", "before:2026-02-12",
                     "before:2027", "after:2026-02-11 before:2026-03"):
            self.assertEqual(set(self.search(f"needle {text}")), both, text)
        self.assertFindsNothing("needle team:nowhere", "needle user:nobody", "needle before:2026-02-11", "needle after:2026-02-12",
                                "needle after:1d", "needle has:diff tool:codex", "needle file:src/login.py", "needle file:%")

    def test_it_finds_only_what_the_list_shows_with_the_same_filters(self):
        user_id = self.check(self.bob.get("/api/auth/me"), 200).json["user_id"]
        alone = self.new_team(self.ada, "Alone", [self.bob])
        elsewhere = self.store(new_event(text="needle apart") | {"timestamp": "2026-02-12T06:00:00Z"}, client=self.bob, team_id=alone)
        for query, found in (({"tool": "codex"}, {self.two}), ({"user_id": user_id}, {self.two, elsewhere}), ({"project": "other"}, {self.two}),
                             ({"branch": "Main"}, {self.one}), ({"team_id": alone}, {elsewhere}), ({"time_range": "24h"}, set()),
                             ({"day": "2026-02-11"}, {self.one, self.two}), ({"day": "2026-02-12"}, {elsewhere}),
                             ({"day": "2026-02-11", "tool": "codex"}, {self.two}), ({"day": "2026-02-12", "tz": "-600"}, set())):
            with self.subTest(query):
                self.assertEqual(set(self.search("needle", self.bob, **query)), found)
                listed = self.check(self.bob.get(f"/api/sessions?{urlencode({'search': 'needle', **query})}"), 200).json
                self.assertEqual({session["id"] for session in listed["sessions"]}, found)
        self.check(self.bob.get("/api/search?q=needle&day=someday"), 400)

    def test_kinds_narrow_to_places(self):
        for text, ordinals in (("kind:reply", {1}), ("kind:thinking", {2}), ("kind:error", {3}), ("has:error", {3}), ("has:diff", {4}),
                               ("has:image", {5}), ("kind:reply kind:thinking", {1, 2}), ("kind:tool -has:error", {4}), ("file:login.py", {4})):
            self.assertEqual(self.places(f"needle user:ada {text}"), ordinals, text)
        hit, = self.answer("in:title needle user:ada")["hits"]
        self.assertEqual((hit["session"]["id"], hit["title_hit"], hit["places"]), (self.one, True, []))
        self.assertEqual((hit["title"], hit["title_from"]), ([["needle", True], [" title", False]], "title"))

    def test_a_session_found_by_what_is_said_of_it_shows_that(self):
        for name, value in (("description", "About the weathervane"), ("tags", ["weathervane"])):
            found = self.store("no such word", team_id=self.core, title="A day", **{name: value})
            self.index()
            hit, = self.answer(f"weathervane user:ada")["hits"]
            self.assertEqual((hit["session"]["id"], hit["title_from"], hit["places"]), (found, name, []))
            self.assertIn(["weathervane", True], hit["title"])
            self.check(self.ada.delete(f"/api/sessions/{found}"), 204)

    def test_what_is_no_filter_is_text(self):
        found = self.store("kind:banana before:whenever tool: http://x.test a:b", team_id=self.core)
        self.assertFinds(found, "kind:banana", "before:whenever", "http://x.test", "a:b", '"tool:"')

    def test_the_answer_says_how_the_query_was_understood(self):
        asked = self.answer('red "blue sky" -green tool:codex -has:error')["query"]
        self.assertEqual((asked["words"], asked["without"]), (["red", "blue sky"], ["green"]))
        self.assertEqual(asked["filters"], [{"name": "tool", "value": "codex", "negated": False},
                                            {"name": "has", "value": "error", "negated": True}])


class Results(SearchCase):
    def test_sessions_come_newest_first_whatever_the_order_of_arrival(self):
        days = [5, 1, 9, 3]
        ids = {day: self.store("needle", created_at=f"2026-01-{day:02d}T00:00:00Z") for day in days}
        self.assertEqual(self.search("needle"), [ids[day] for day in sorted(days, reverse=True)])

    def test_the_best_come_first_where_that_is_asked(self):
        weak = self.store("needle " + "hay " * 500, created_at="2026-01-09T00:00:00Z")
        strong = self.store("needle needle", created_at="2026-01-01T00:00:00Z")
        self.assertEqual(self.search("needle", sort="best"), [strong, weak])
        self.assertEqual(self.search("needle"), [weak, strong])

    def test_following_the_cursor_gives_each_session_once(self):
        ids = [self.store("needle", created_at=f"2026-01-{day:02d}T00:00:00Z") for day in range(1, 24)]
        self.index()
        for sort in ("newest", "best"):
            seen, more = [], {}
            while True:
                answer = self.answer("needle", limit=5, sort=sort, **more)
                self.assertEqual((answer["count"], answer["count_is_capped"], answer["sort"]), (46, False, sort))
                seen += [hit["session"]["id"] for hit in answer["hits"]]
                if not answer["next_cursor"]:
                    break
                more = {"cursor": answer["next_cursor"]}
            self.assertEqual(len(seen), 23)
            self.assertEqual(set(seen), set(ids))

    def test_a_session_shows_its_three_best_places_prompts_first(self):
        self.store(*[new_event("ToolResult", f"needle {number}", at=number, data={"name": "x"}) for number in range(8)],
                   new_event(text="a needle asked", at=9), title="none")
        self.index()
        hit, = self.answer("needle")["hits"]
        self.assertEqual((hit["count"], len(hit["places"]), hit["places"][0]["kind"]), (9, 3, "UserMessage"))
        self.assertEqual(hit["places"][0]["snippet"], [["a ", False], ["needle", True], [" asked", False]])
        self.assertEqual(hit["places"][0]["at"], "2026-02-11T06:00:09.000Z")
        event = self.ada.get(f"/api/sessions/{hit['session']['id']}/events/{hit['places'][0]['ordinal']}").json
        self.assertEqual(event["event_id"], hit["places"][0]["event_id"])

    def test_counts_are_exact_up_to_a_thousand(self):
        self.store(*["needle"] * 999, title="x", description="y")
        self.index()
        self.assertEqual((self.answer("needle")["count"], self.answer("needle")["count_is_capped"]), (999, False))
        self.store("needle", "needle", title="x", description="y")
        self.index()
        self.assertEqual((self.answer("needle")["count"], self.answer("needle")["count_is_capped"]), (1000, True))
        self.assertEqual(self.answer("needle", sort="best")["sort"], "newest")

    def test_snippets_light_up_what_was_asked_in_whatever_form(self):
        self.store("Long ago " * 40 + "the Retry_Upload of ＣＡＦÉ met 세션을 at noon " + "and on " * 40, title="x", description="y")
        self.index()
        for text, lit in (("retryUpload", ["Retry_Upload"]), ("cafe 세션", ["ＣＡＦÉ", "세션"]), ("noon", ["noon"]), ("up*", ["Up"])):
            snippet = self.answer(text)["hits"][0]["places"][0]["snippet"]
            self.assertEqual([piece for piece, on in snippet if on], lit, text)
            self.assertLess(sum(len(piece) for piece, _ in snippet), 300)

    def test_a_search_that_runs_out_of_time_says_how_far_it_came_and_goes_on(self):
        ids = [self.store("odd" if day % 2 else "even", "both odd even" if day == 1 else "x", created_at=f"2026-01-{day:02d}T00:00:00Z")
               for day in range(1, 29)]
        self.index()
        self.addCleanup(setattr, opensession, "SEARCH_SECONDS", opensession.SEARCH_SECONDS)
        opensession.SEARCH_SECONDS = -0.001
        self.addCleanup(setattr, opensession.Database, "until", opensession.Database.until)
        opensession.Database.until = slow_until(opensession.Database.until)
        answer, rounds = self.answer("odd even"), 0
        while not answer["hits"]:
            self.assertIsNotNone(answer["searched_back_to"])
            answer, rounds = self.answer("odd even", cursor=answer["next_cursor"]), rounds + 1
        self.assertEqual([hit["session"]["id"] for hit in answer["hits"]], ids[:1])
        self.assertGreater(rounds, 0)

    def test_a_cursor_of_somebody_else_is_refused(self):
        self.check(self.ada.get("/api/search?q=x&cursor=zzz"), 400)
        self.check(self.ada.get("/api/search?q=x&cursor=b1"), 400)

    def test_a_list_is_narrowed_by_the_same_words(self):
        found = self.store("needle in the prompt", title="hay")
        self.store("hay only")
        self.index()
        for sort in ("recent", "popular", "longest"):
            listed = self.ada.get(f"/api/sessions?search=needle&sort={sort}&facets=1").json
            self.assertEqual([each["id"] for each in listed["sessions"]], [found])
            self.assertEqual(listed["total"], 1)


def slow_until(until):
    """As if every statement took too long, except those that look through a day or less."""
    def slow(self, deadline, sql, args=()):
        if len(args) > 2 and args[2] - args[1] > 86400 * opensession.PLACES_A_SECOND:
            raise opensession.OutOfTime
        return until(self, deadline + 10, sql, args)
    return slow


class InOneSession(SearchCase):
    def test_all_places_are_told_in_order_with_text(self):
        session_id = self.store(*[f"{'needle' if number % 10 == 0 else 'hay'} {number}" for number in range(1000)])
        self.store("needle elsewhere")
        self.index()
        found = self.ada.get(f"/api/sessions/{session_id}/events?q=needle&limit=10&from=100").json
        self.assertEqual(found["ordinals"], list(range(0, 1000, 10)))
        self.assertEqual([hit["ordinal"] for hit in found["hits"]], list(range(100, 200, 10)))
        self.assertEqual((found["total"], found["next"]), (100, 200))
        self.assertEqual(found["hits"][0]["snippet"], [["needle", True], [" 100", False]])

    def test_a_query_without_words_finds_nothing(self):
        session_id = self.store("needle")
        self.index()
        for text in ("", "%", '"'):
            self.assertEqual(self.check(self.ada.get(f"/api/sessions/{session_id}/events?{urlencode({'q': text})}"), 200).json["hits"], [])


class TheIndexFollows(SearchCase):
    def jobs(self):
        return self.rows("SELECT count(*) AS n FROM unindexed")[0]["n"]

    def put(self, texts, session_id="s", client=None, **context):
        return self.store(*[new_event(text=text, at=number) | {"event_id": f"e{number}"} for number, text in enumerate(texts)],
                          session_id=session_id, client=client, **context)

    def leftovers(self, word):
        """How many rows of the index have a word, whoever may see them."""
        return self.rows("SELECT count(*) AS n FROM search_index WHERE search_index MATCH ?", f'"{word}"')[0]["n"]

    def test_what_grew_before_it_was_indexed_is_found_to_its_end(self):
        session_id = self.put(["heron"])
        for number, text in enumerate(("egret", "bittern " + "reed " * 60_000), 5):     # the last one is a block of its own
            self.ada.post(f"/api/sessions/{session_id}/events", {"events": [new_event(text=text, at=number)]})
        self.assertFinds(session_id, "heron", "egret", "bittern")

    def test_what_is_appended_is_found(self):
        session_id = self.put(["first"])
        self.index()
        self.ada.post(f"/api/sessions/{session_id}/events", {"events": [new_event(text="second", at=9)]})
        self.assertFindsNothing_now("second")
        self.assertFinds(session_id, "first", "second")

    def assertFindsNothing_now(self, text):
        answer = self.answer(text)
        self.assertEqual((answer["hits"], answer["indexing"]), ([], 1))

    def test_what_was_replaced_is_not_found_at_once_nor_later(self):
        session_id = self.put(["stays", "vanishes"], title="x", description="y")
        self.index()
        self.put(["stays", "appears"], title="x", description="y")
        self.assertEqual(self.answer("vanishes")["hits"], [])
        self.assertFinds(session_id, "stays", "appears")
        self.assertEqual((self.leftovers("vanishes"), self.leftovers("stays"), self.leftovers("appears"), self.jobs()), (0, 1, 1, 0))
        self.assertEqual(len(list((self.folder / "data/bodies").glob("*/*"))), 1)

    def test_replacing_from_an_ordinal_indexes_only_from_there(self):
        session_id = self.put([f"word{number}" for number in range(50)])
        self.index()
        lines = [json.dumps({"type": "event", **new_event(text="tail", at=99)}).encode() + b"\n"]
        self.check(self.ada.post(f"/api/sessions/{session_id}/events?from=40", body=b"".join(lines), type="application/jsonl"), 200)
        self.assertEqual(self.rows("SELECT first_ordinal, end_ordinal FROM unindexed"), [{"first_ordinal": 40, "end_ordinal": 50}])
        self.assertEqual(self.rows("SELECT indexed_to FROM indexed"), [{"indexed_to": 40}])
        self.assertFinds(session_id, "word39", "tail")
        self.assertFindsNothing("word40")
        self.assertEqual(self.leftovers("word45"), 0)

    def test_a_deleted_session_is_gone_at_once_and_its_body_when_the_index_is_done(self):
        session_id = self.put(["secretword"], title="alsosecret")
        self.index()
        self.check(self.ada.delete(f"/api/sessions/{session_id}"), 204)
        self.assertEqual((self.answer("secretword")["hits"], self.answer("secretword")["count"]), ([], 0))
        self.assertEqual(len(list((self.folder / "data/bodies").glob("*/*"))), 1)
        self.index()
        self.assertEqual((self.leftovers("secretword"), self.leftovers("alsosecret"), self.jobs()), (0, 0, 0))
        self.assertEqual(list((self.folder / "data/bodies").glob("*/*")), [])
        self.assertEqual(self.rows("SELECT 1 FROM indexed"), [])

    def test_a_moved_session_leaves_the_old_team_at_once_and_is_found_in_the_new_one(self):
        bob, eve = self.register("bob"), self.register("eve")
        old, new = self.new_team(self.ada, "old", [bob]), self.new_team(self.ada, "new", [eve])
        session_id = self.store("wanderer", team_id=old)
        self.index()
        self.assertEqual((self.search("wanderer", bob), self.search("wanderer", eve)), ([session_id], []))
        self.check(self.ada.put(f"/api/sessions/{session_id}", {"team_id": new}), 200)
        self.assertEqual(self.answer("wanderer", bob)["hits"], [])
        self.assertEqual((self.search("wanderer", eve), self.search("wanderer", bob)), ([session_id], []))
        self.assertFinds(session_id, "wanderer team:new")
        self.assertFindsNothing("wanderer team:old")

    def test_a_new_title_is_found_and_the_old_one_is_not(self):
        session_id = self.put(["text"], title="before", description="y")
        self.index()
        self.check(self.ada.put(f"/api/sessions/{session_id}", {"title": "afterwards"}), 200)
        self.assertEqual(self.answer("before")["hits"], [])
        self.assertFinds(session_id, "afterwards", "in:title afterwards")
        self.assertFindsNothing("before")
        self.assertEqual(self.leftovers("before"), 0)

    def test_whoever_leaves_a_team_finds_nothing_of_it_any_more(self):
        bob = self.register("bob")
        team = self.new_team(self.ada, "core", [bob])
        session_id = self.store("private", team_id=team)
        self.assertEqual(self.search("private", bob), [session_id])
        self.ada.delete(f"/api/teams/{team}/members/{bob.user_id}")
        self.assertEqual(self.search("private", bob), [])

    def test_a_public_team_is_found_by_anyone_as_long_as_it_is_public(self):
        team = self.new_team(self.ada, "core", is_public=True)
        session_id = self.store("open", team_id=team)
        self.assertEqual(self.search("open", Client()), [session_id])
        self.ada.put(f"/api/teams/{team}", {"is_public": False})
        self.assertEqual(self.search("open", Client()), [])

    def test_a_reader_of_many_teams_finds_everything(self):
        ids = {self.store("needle", team_id=self.new_team(self.ada, f"team {number}")) for number in range(14)}
        self.assertEqual(set(self.search("needle")), ids)

    def test_a_lost_body_harms_nobody_and_leaves_no_wrong_result(self):
        session_id = self.put(["ancient", "x"])
        self.index()
        for path in (self.folder / "data/bodies").glob("*/*"):
            path.unlink()
        self.put(["modern", "y"])
        self.assertFinds(session_id, "modern")
        self.assertFindsNothing("ancient")
        for path in (self.folder / "data/bodies").glob("*/*"):
            path.write_bytes(b"nonsense")
        self.assertEqual(self.answer("modern")["hits"][0]["places"][0]["snippet"], None)

    def test_a_removal_that_was_cut_off_goes_on_where_it_was(self):
        session_id = self.put(["doomed"] * 1300, title="x", description="y")
        self.index()
        self.ada.delete(f"/api/sessions/{session_id}")
        batch, calls = opensession.Database.batch, []

        def failing(db, statements):
            calls.append(1)
            if len(calls) == 2:
                raise OSError("the power is gone")
            return batch(db, statements)
        self.addCleanup(setattr, opensession.Database, "batch", batch)
        opensession.Database.batch = failing
        with self.assertRaises(OSError):
            self.index()
        self.assertEqual(self.rows("SELECT first_ordinal FROM unindexed"), [{"first_ordinal": opensession.INDEX_ROWS}])
        self.restart()
        opensession.sweep(time.time() + 10)
        self.index()
        self.assertEqual((self.leftovers("doomed"), self.jobs()), (0, 0))
        self.check_index()

    def kept_places(self):
        """(first rowid, the one behind the last, session) of all places in the index, in order."""
        return [(row["search_no"], row["search_no"] + row["room"], row["session_id"])
                for row in self.rows("SELECT search_no, room, session_id FROM indexed ORDER BY search_no")]

    def test_a_session_that_outgrows_its_place_moves_and_leaves_nothing_behind(self):
        session_id = self.put(["early"] * 200, title="x", description="y")
        self.index()
        (before, _, _), = self.kept_places()
        neighbour = self.put(["early"], "s2", title="x", description="y")
        self.ada.post(f"/api/sessions/{session_id}/events", {"events": [new_event(text="late", at=300 + each) for each in range(100)]})
        self.assertEqual(self.answer("late")["hits"], [])
        self.assertFinds(session_id, "late")
        self.assertEqual(set(self.search("early")), {session_id, neighbour})
        self.assertEqual((self.leftovers("early"), self.leftovers("late"), self.leftovers("x"), self.jobs()), (201, 100, 2, 0))
        self.assertEqual({each for _, _, each in self.kept_places()}, {session_id, neighbour})
        self.check_index()

    def test_a_replaced_session_that_outgrows_its_place_is_found_as_it_is_now(self):
        session_id = self.put(["stays"] + ["vanishes"] * 200, title="x", description="y")
        self.index()
        self.put(["stays"] + ["appears"] * 300, title="x", description="y")
        self.assertFinds(session_id, "stays", "appears")
        self.assertEqual((self.leftovers("stays"), self.leftovers("vanishes"), self.leftovers("appears"), self.jobs()), (1, 0, 300, 0))
        self.check_index()

    def test_a_session_that_comes_again_does_not_stand_where_the_deleted_one_is_yet_to_be_taken_out(self):
        deleted = self.put(["doomed"])
        self.index()
        self.ada.delete(f"/api/sessions/{deleted}")
        self.ada.post("/api/sessions?restore=1", {"session": new_session("s", events=[new_event(text="fresh")], title="x", description="y")})
        (gone, end, nobody), (again, _, _) = self.kept_places()
        self.assertTrue(nobody is None and end <= again, self.kept_places())
        self.index()
        self.assertEqual((self.leftovers("doomed"), self.leftovers("fresh"), len(self.kept_places())), (0, 1, 1))
        self.check_index()

    def test_no_two_sessions_share_a_place_and_none_stands_before_its_time(self):
        chance, began = random.Random(5), {}
        for number in range(150):
            second = chance.randrange(90)
            session_id = self.put(["x"] * chance.choice([1, 1, 1, 300]), f"s{number}", created_at=f"2026-02-11T06:{second // 60:02}:{second % 60:02}Z")
            began[session_id] = second
            if number % 10 == 9:
                self.ada.delete(f"/api/sessions/{chance.choice(list(began))}")
        places = self.kept_places()
        self.assertTrue(all(one[1] <= other[0] for one, other in zip(places, places[1:])))
        first = opensession.place_of(datetime(2026, 2, 11, 6, tzinfo=timezone.utc))
        self.assertTrue(all(place >= first + began[session_id] * opensession.PLACES_A_SECOND for place, _, session_id in places))

    def test_an_index_of_another_version_is_made_anew(self):
        session_id = self.put(["needle"])
        self.index()
        self.change("UPDATE meta SET value = 'older' WHERE key = 'index_version'")
        self.restart()
        self.assertEqual(self.leftovers("needle"), 0)
        self.assertFinds(session_id, "needle")

    def test_two_indexers_at_once_index_everything_once(self):
        for number in range(20):
            self.put([f"needle {number} {line}" for line in range(40)], f"s{number}", title="x", description="y")
        threads = [threading.Thread(target=self.index) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.index()
        self.assertEqual(self.leftovers("needle"), 800)
        self.check_index()

    def test_a_random_life_leaves_an_index_as_if_made_anew(self):
        chance = random.Random(7)
        words = "alpha beta gamma delta 세션을 検索 retryUpload".split()
        for _ in range(120):
            session_id, step = f"s{chance.randrange(4)}", chance.random()
            known = self.rows("SELECT id, event_count FROM sessions WHERE hail_id = ?", session_id)
            if step < .4 or not known:
                self.ada.post("/api/sessions?restore=1", {"session": new_session(session_id, events=[
                    new_event(text=" ".join(chance.choices(words, k=3)), at=number) for number in range(chance.randrange(6))])})
            elif step < .6:
                self.ada.post(f"/api/sessions/{known[0]['id']}/events", {"events": [new_event(text=chance.choice(words))],
                                                                         "from": chance.randrange(known[0]["event_count"] + 1)})
            elif step < .7:
                self.ada.put(f"/api/sessions/{known[0]['id']}", {"title": chance.choice(words)})
            elif step < .75:
                self.ada.delete(f"/api/sessions/{known[0]['id']}")
            for _ in range(chance.randrange(3)):
                opensession.index_some(opensession.db)
        self.index()
        self.check_index()
        counts = [self.leftovers(word) for word in words[:4]]
        opensession.renew_index(opensession.db)
        self.index()
        self.assertEqual([self.leftovers(word) for word in words[:4]], counts)

    def check_index(self):
        """What SQLite itself says of the index."""
        self.change("INSERT INTO search_index (search_index) VALUES ('integrity-check')")


class AServerThatRuns(SearchCase):
    def test_it_indexes_by_itself_and_goes_on_while_reindex_asks_for_more(self):
        key = self.ada.key
        self._stop()
        with running_server(self.folder) as server:
            session = new_session(events=[new_event(text="needle")])
            self.check(call(server.port, "POST", "/api/sessions", json.dumps({"session": session}).encode(), key,
                            Content_Type="application/json"), 201)
            self.wait_for_hit(server, key)
            again = server_process(self.folder, "reindex")
            self.assertIn("all 1 sessions are indexed", again.communicate(timeout=PATIENCE)[0])
            self.wait_for_hit(server, key)
        alone = server_process(self.folder, "reindex")
        self.assertEqual(alone.communicate(timeout=PATIENCE)[0].splitlines()[-1], "all 1 sessions are indexed")
        self.restart()
        self.assertEqual(len(self.answer("needle")["hits"]), 1)

    def wait_for_hit(self, server, key):
        self.assertTrue(eventually(lambda: call(server.port, "GET", "/api/search?q=needle", key=key).json["hits"]), "it is not indexed")

    def test_the_pieces_of_an_index_are_joined_without_harm(self):
        for number in range(30):
            self.store(f"needle {number}")
            self.index()
        more = opensession.merge_some(opensession.db, -1)
        while more:
            more = opensession.merge_some(opensession.db, 1)
        self.assertEqual(self.answer("needle")["count"], 60)

    def test_a_thread_works_until_it_is_told_to_stop(self):
        stopped = threading.Event()
        thread = threading.Thread(target=opensession.keep_index, args=[opensession.db, stopped])
        thread.start()
        session_id = self.store("needle")
        eventually(lambda: self.answer("needle")["hits"])
        stopped.set()
        thread.join(PATIENCE)
        self.assertFalse(thread.is_alive())
        self.assertEqual(self.answer("needle")["hits"][0]["session"]["id"], session_id)


class SearchesInLists(SearchCase):
    def test_all_that_match_are_listed_whatever_the_sort_and_said_to_be_all(self):
        for number in range(30):
            self.store(f"needle {number}")
        self.index()
        for sort in ("recent", "popular", "longest"):
            page = self.ada.get(f"/api/sessions?search=needle&per_page=20&sort={sort}").json
            self.assertEqual((page["total"], len(page["sessions"]), "search_is_capped" in page), (30, 20, False))

    def test_a_list_says_where_its_search_found_no_end(self):
        for number in range(6):
            self.store(f"needle {number}")
        self.index()
        self.addCleanup(setattr, opensession, "LIST_FOUND", opensession.LIST_FOUND)
        opensession.LIST_FOUND = 4
        page = self.ada.get("/api/sessions?search=needle").json
        self.assertEqual((page["total"], page["search_is_capped"]), (4, True))


class Recall(SearchCase):
    """Whatever stands in a text is found by any piece of it: 500 of 500."""

    def setUp(self):
        super().setUp()
        self.chance = random.Random(11)

    def wide_pieces(self, texts, count):
        """(text number, piece): two to six characters of a run without spaces."""
        runs = [(number, run[0]) for number, text in enumerate(texts) for run in opensession.WIDE_RUN.finditer(text) if len(run[0]) > 1]
        for number, run in self.chance.choices(runs, k=count):
            start = self.chance.randrange(len(run) - 1)
            yield number, run[start:start + self.chance.randint(2, 6)]

    def missing(self, ids, pieces):
        missing = []
        for number, piece in pieces:
            found, more = [], {}
            while ids[number] not in found:
                answer = self.answer(piece, limit=50, **more)
                found += [hit["session"]["id"] for hit in answer["hits"]]
                if not answer["next_cursor"]:
                    break
                more = {"cursor": answer["next_cursor"]}
            if ids[number] not in found:
                missing.append((number, piece))
        return missing

    def test_of_korean_japanese_and_chinese(self):
        texts = KOREAN + JAPANESE + CHINESE
        ids = [self.store(text if number % 2 else unicodedata.normalize("NFD", text)) for number, text in enumerate(texts)]
        self.index()
        self.assertEqual(self.missing(ids, self.wide_pieces(texts, 300)), [])

    def test_of_identifiers_in_code(self):
        source = Path(opensession.__file__).read_text(encoding="utf-8")
        texts = [source[start:start + 4000] for start in range(0, 200_000, 4000)]
        ids = [self.store(text) for text in texts]
        names = [(number, name) for number, text in enumerate(texts) for name in re.findall(r"\b[A-Za-z_]\w+\b", text)[1:-1]
                 if re.search("[A-Za-z0-9]", name) and name != "OR"]       # which joins words
        self.index()
        self.assertEqual(self.missing(ids, self.chance.sample(names, 200)), [])

    @unittest.skipUnless((CORPUS / "hail").is_dir(), "the corpus is not here")
    @pytest.mark.long
    def test_of_real_sessions(self):
        ids = [self.send(path) for folder, count in (("hail", 99), ("claude-code", 12))
               for path in sorted((CORPUS / folder).rglob("*.jsonl"), key=lambda path: path.stat().st_size)[:count]]
        self.index()
        ids = [each for each in ids if each]
        self.assertGreater(len(ids), 40)
        texts = ["\n".join(map(self.text_of, self.ada.get(f"/api/sessions/{each}/raw").lines[1:-1])) for each in ids]
        names = [(number, name) for number, text in enumerate(texts) for name in re.findall(r"\b[A-Za-z]\w{2,60}\b", text) if name.isascii()]
        self.assertEqual(self.missing(ids, [*self.chance.sample(names, 350), *self.wide_pieces(texts, 150)]), [])

    def send(self, path):
        """The id of the session in a file, None where it holds none."""
        answer = self.ada.post("/api/sessions", body=path.read_bytes(), type="application/jsonl")
        return answer.json["id"] if answer.status in (200, 201) else None

    def text_of(self, event):
        text, path = opensession.event_search_text(event)
        return f"{path} {text}"


class AnyInput(SearchCase):
    PIECES = ['"', "'", "-", "*", "OR", "AND", "NOT", "NEAR(", ")", "(", ":", "tool:", "before:", "has:", "in:title", "{text}", "^", "+", "\\", "\0", "§",
              "rowid", "세", "세션", "é", "İ", "ß", "😀", "\u200d", "\ufe0f", "\u0301", "word", "camelCase", " ", " ", " ", ";--", "%", "_", "\ud7ff",
              "x" * 70, "9f86d08", "\u2028", "kind:prompt", "after:9999", "before:0001-01-01", "after:9999w", "file:", "user:me", "ꭰ", "ﬁ", "½"]

    @pytest.mark.long
    def test_no_input_is_an_error(self):
        self.store("word camelCase 세션 é 😀", new_event("FileEdit", "x", data={"path": "a/b.py", "diff": "+"}))
        self.index()
        chance = random.Random(3)
        for number in range(QUERIES):
            text = "".join(chance.choices(self.PIECES, k=chance.randint(1, 9)))
            asked = opensession.parse_query(text)
            plan = opensession.plan_search(opensession.db, {"id": self.ada.user_id}, asked)
            list(opensession.places(opensession.db, plan, plan.low, plan.high, "LIMIT 3", float("inf")))
            if number % 10 == 0:
                self.check(self.ada.get(f"/api/search?{urlencode({'q': text})}"), 200)

    @settings(max_examples=200, deadline=None)
    @given(st.text())
    def test_what_is_indexed_is_words_for_the_tokenizer_whatever_the_text(self, text):
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        prepared = opensession.searchable(text)
        self.assertNotIn("§", prepared)
        self.assertEqual(prepared, opensession.searchable(text))
        opensession.snippet_of(text, opensession.highlighter(opensession.parse_query(text)))

    def test_a_very_long_query_is_cut_and_says_so(self):
        answer = self.answer("word " * 5000)
        self.assertTrue(answer["query"]["problems"])


class Plans(SearchCase):
    def test_no_search_reads_a_big_table_from_end_to_end(self):
        session_id = self.store("needle", attributes={"project": "p", "git_branch": "b"})
        self.index()
        seen, execute, until = [], opensession.Database.execute, opensession.Database.until

        def spy(method):
            def call(db, *args):
                seen.append(args[-2:] if isinstance(args[0], float) else args)
                return method(db, *args)
            return call
        for name, method in (("execute", execute), ("until", until)):
            self.addCleanup(setattr, opensession.Database, name, method)
            setattr(opensession.Database, name, spy(method))
        for text in ("needle", "absent", "two words", '"a phrase"', "need*", "세션", "세", "needle -x", "tool:codex", "team:x y", "user:ada y", "project:p needle",
                     "branch:b needle", "model:opus needle", "file:x", "kind:error", "before:2027 needle", "after:2025 needle", "in:title needle", "a OR b"):
            for sort in ("newest", "best"):
                self.answer(text, sort=sort)
        self.ada.get(f"/api/sessions?search=needle")
        self.ada.get(f"/api/sessions/{session_id}/events?q=needle")
        self.index()
        for statement in list(seen):
            sql, args = statement if len(statement) == 2 else (*statement, ())
            if "EXPLAIN" in sql or not sql.lstrip().startswith(("SELECT", "WITH")):
                continue
            for row in execute(opensession.db, f"EXPLAIN QUERY PLAN {sql}", args):
                self.assertNotRegex(row["detail"], r"^SCAN (s|x|sessions|blocks|b|i|indexed)\b(?! USING INDEX indexed_pending)", sql)


if __name__ == "__main__":
    unittest.main()
