"""Finding and reading sessions in the browser."""

import json

from client import hail_file, new_event, new_session
from page import TIDES, PageCase, SampleCase, call
from secret_cases import noise


class TheList(SampleCase):
    def test_it_shows_what_was_collected_newest_first(self):
        self.sign_in(self.key)
        self.see(".sessions a[data-open]")
        titles = [link.text for link in self.all(".sessions a[data-open]")]
        self.assertEqual(len(titles), 3)        # the fourth is a helper of the third
        self.assertIn("한강", titles[0])
        self.assertEqual(titles[1], TIDES)
        self.assertIn("--json", titles[2])

    def test_a_row_draws_the_kinds_of_its_steps_and_says_them(self):
        self.sign_in(self.key)
        self.see(".sessions .steps-bar")
        kinds = next(each["step_kinds"] for each in call(self.address, "GET", "/api/sessions", key=self.key)["sessions"] if each["title"] == TIDES)
        row = next(row for row in self.all(".sessions .row") if TIDES in row.text)
        bar = row.find_element("css selector", ".steps-bar")
        self.assertTrue(bar.get_attribute("aria-label").startswith(f"{sum(kinds.values())} steps: "))
        self.assertEqual({part.get_attribute("data-kind") for part in bar.find_elements("css selector", "rect")}, set(kinds))

    def test_the_filter_by_tool_is_in_the_address(self):
        self.sign_in(self.key)
        self.click(".facets button", "Codex")
        self.until(lambda: self.path == "/?tool=codex", "the filter in the address")
        self.until(lambda: len(self.all(".sessions a[data-open]")) == 1, "one session")
        self.go("/?tool=codex")
        self.until(lambda: len(self.all(".sessions a[data-open]")) == 1, "one session")

    def test_it_finds_korean_titles(self):
        self.sign_in(self.key)
        box = self.one("input[name=q]")
        box.send_keys("한강")
        box.submit()
        self.until(lambda: len(self.all(".sessions a[data-open]")) == 1, "one session")
        self.see(".sessions a[data-open]", "한강")

    def test_the_back_button_returns_to_the_list(self):
        self.open_session(TIDES)
        self.driver.back()
        self.see(".sessions a[data-open]", TIDES)
        self.assertEqual(self.path, "/")

    def test_rows_are_reached_by_keyboard(self):
        self.sign_in(self.key)
        self.see(".sessions a[data-open]")
        self.one("body").send_keys("jj")
        self.assertEqual(self.driver.switch_to.active_element.text, TIDES)
        self.driver.switch_to.active_element.send_keys("\n")
        self.see("header.session h1", TIDES)


class WhatARowSays(PageCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.key = call(cls.address, "POST", "/api/register", {"nickname": "ada"})["api_key"]

    def upload(self, *events, **more):
        return call(self.address, "POST", "/api/sessions", {"session": new_session(events=list(events), **more)}, key=self.key)["id"]

    def test_how_long_something_went_on_as_the_head_says_it_too(self):
        session = self.upload(*(new_event(at=at) for at in (0, 30, 60, 4000, 4030)), title="Overnight")
        self.sign_in(self.key)
        self.see(".sessions [title='1m 30s active of 1h 7m']", "1m 30s")
        self.choose("select[name=sort]", "longest")
        self.see(".sessions [title='1m 30s active of 1h 7m']", "1h 7m")
        self.go(f"/session/{session}")
        self.see(".numbers", "1m 30s active of 1h 7m")

    def test_that_it_still_holds_a_secret_and_which_do(self):
        session = self.upload(new_event(text="gh" + "p_" + noise("A", 36, 1)), title="Told too much")
        self.upload(new_event(text="Nothing"), title="Harmless")
        self.until(lambda: call(self.address, "GET", f"/api/sessions/{session}", key=self.key)["secrets"], "the secret found")
        self.sign_in(self.key)
        self.see(".sessions .row:has(.sub .failed)", "Told too much")
        self.click(".facets button[data-facet=secrets]")
        self.until(lambda: [each.text for each in self.all(".sessions a[data-open]")] == ["Told too much"], "only that one")
        self.assertEqual(self.path, "/?secrets=1")
        self.click(".sessions a[data-open]")
        self.click(".still button")
        self.click("dialog .danger")
        self.gone(".still")
        self.go("/")
        self.see(".sessions .row", "Told too much")
        self.assertEqual(self.all(".sub .failed"), [])


class ASession(SampleCase):
    def test_prompts_replies_calls_and_diffs_are_shown(self):
        self.open_session(TIDES, "everything")
        self.see(".prompt", "Users in Busan reported it")
        self.see(".reply", "Nine hours is exactly Busan")
        self.see(".shell", "python -m pytest -q")
        self.see(".diff .removed", "def today():")
        self.see(".diff .added", "def today(station: Station, now=None):")
        self.see(".reply .prose strong", "Cause.")

    def test_korean_is_marked_as_such_so_that_lines_break_between_words_in_an_english_page_too(self):
        self.open_session("한강")
        self.see(".prompt .said[lang=ko]")
        self.see(".reply .prose[lang=ko]")
        self.assertEqual(self.run_js("return getComputedStyle(document.querySelector('.prompt .said').firstElementChild).wordBreak"), "keep-all")
        self.open_session(TIDES)
        self.assertEqual(self.all(".reader [lang]"), [])

    def test_a_failed_command_says_so_and_unfolds_its_output(self):
        self.open_session(TIDES, "everything")
        step = self.see(".shell.bad", "test_midnight.py")
        self.assertIn("exit 1", step.text)
        self.click(".shell.bad summary", "test_midnight.py")
        self.see(".shell.bad .result", "TypeError: today() takes 0 positional arguments")

    def test_a_sub_agent_is_folded_until_it_is_opened(self):
        self.open_session(TIDES, "everything")
        task = self.see(".task", "Find callers of today()")
        self.assertNotIn("Search for callers", task.text)
        self.click(".task > button")
        self.see(".inner.shell", "grep -rn")
        self.see(".inner.reply td", "tables.py:13")
        self.click(".task > button")
        self.gone(".inner")

    def test_home_folders_and_excluded_files_are_not_shown(self):
        self.open_session(TIDES, "everything")
        self.see(".reader", "~/code/tidebook/tidebook/tables.py")
        self.click(".step summary", "~/code/tidebook/.env")
        self.see(".result", "withheld")
        self.assertNotIn("correct-horse", self.driver.page_source)
        self.assertNotIn("/home/mina", self.text)

    def test_a_codex_session_leads_to_its_helper_and_back(self):
        self.open_session("--json", "everything")
        self.see(".shell.bad", "pytest")
        self.see(".diff .added", "import json")
        self.click("details.children summary")
        self.click("details.children a", "Review the change")
        self.see("header.session h1", "Review the change")
        self.click(".parent a")
        self.see("header.session h1", "--json")

    def test_every_event_has_a_link_that_leads_to_it(self):
        self.open_session(TIDES, "everything")
        link = self.see(".edit:not(.quiet) > a.at")
        place = link.get_attribute("href").removeprefix(self.address)
        event = self.run_js("return arguments[0].closest('article').id", link)
        self.go(place)
        marked = self.see(f"#{event}.marked")
        self.until(lambda: 0 <= self.run_js("return arguments[0].getBoundingClientRect().top", marked) < 900, "it in sight")

    def test_a_link_into_a_sub_agent_opens_it(self):
        self.open_session(TIDES, "everything")
        self.click(".task > button")
        link = self.see(".inner.shell > a.at").get_attribute("href")
        self.go(link.removeprefix(self.address))
        self.see(".inner.shell.marked", "grep -rn")


class ALongSession(PageCase):
    EVENTS = 1500

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.key = call(cls.address, "POST", "/api/register", {"nickname": "ada"})["api_key"]
        events = [new_event("UserMessage" if at % 10 == 0 else "AgentMessage", f"This is number {at}.", at=at)
                  for at in range(cls.EVENTS)]
        cls.events = events
        cls.session = call(cls.address, "POST", "/api/sessions", body=hail_file(new_session(events=events)),
                           type="application/jsonl", key=cls.key)["id"]

    def number_in_sight(self, number):
        return self.see(".reader article", f"This is number {number}.")

    def articles(self):
        return len(self.all(".reader article"))

    def test_only_a_part_of_it_is_drawn_at_first(self):
        self.sign_in(self.key)
        self.go(f"/session/{self.session}")
        self.number_in_sight(0)
        self.assertLess(self.articles(), 900)

    def test_scrolling_down_loads_the_whole_of_it(self):
        self.sign_in(self.key)
        self.go(f"/session/{self.session}")
        self.number_in_sight(0)

        def at_end():
            self.run_js("scrollBy(0, 3000)")
            return f"This is number {self.EVENTS - 1}." in self.run_js("return document.querySelector('.pages').lastElementChild.lastElementChild.textContent")
        self.until(at_end, "the last event")
        self.see(".reader .over")
        self.assertLess(self.articles(), self.EVENTS)

    def test_the_end_is_one_click_away_and_so_is_the_start(self):
        self.sign_in(self.key)
        self.go(f"/session/{self.session}")
        self.click("button[data-do=last]")
        self.number_in_sight(self.EVENTS - 1)
        self.click("button[data-do=first]")
        self.number_in_sight(0)

    def test_a_link_into_the_middle_loads_just_that_part(self):
        self.sign_in(self.key)
        self.go(f"/session/{self.session}#e={self.events[777]['event_id']}")
        self.assertIn("This is number 777.", self.see("article.marked").text)
        self.assertLess(self.articles(), 900)
        self.until(lambda: self.see(".where").text.startswith("7"), "the position")

    def test_text_that_was_cut_is_fetched_whole(self):
        long_text = "\n".join(f"line {number}" for number in range(20_000))
        session = new_session(events=[new_event(), new_event("ToolCall", "", data={"name": "Dump"}),
                                      new_event("ToolResult", long_text, data={"name": "Dump", "is_error": False})])
        answer = call(self.address, "POST", "/api/sessions", {"session": session}, key=self.key)
        self.sign_in(self.key)
        self.go(f"/session/{answer['id']}")
        self.click(".step summary", "Dump")
        self.click("button[data-whole]")
        self.until(lambda: "line 19999" in self.text, "the last line")


class WhatIsNotThere(SampleCase):
    def test_an_unknown_session_is_a_sentence(self):
        self.sign_in(self.key)
        self.go("/session/00000000-0000-4000-8000-000000000000")
        self.see(".notice h1")

    def test_a_visitor_sees_nothing_of_a_private_team(self):
        listed = call(self.address, "GET", "/api/sessions", key=self.key)["sessions"]
        self.go(f"/session/{listed[0]['id']}")
        self.see(".notice h1")
        self.assertNotIn("한강", self.text)
        self.go("/")
        self.see("form.door")
        self.assertEqual(json.loads(self.run_js(
            "return fetch('/api/sessions').then(answer => answer.text())"))["sessions"], [])
