"""The page of a session as a person uses it: levels of detail, outline, map, search, filters, keys, a session that grows."""

from datetime import datetime, timedelta, timezone

from client import new_event, new_session
from page import TIDES, PageCase, SampleCase, call


def harbour(number):
    """A turn: a prompt, a reading, a failing command, an edit, a reply."""
    at = number * 60
    read = new_event("FileRead", "", data={"path": f"src/harbour_{number}.py"}, at=at + 1)
    run = new_event("ShellCommand", "", data={"command": f"pytest {number}", "exit_code": 1}, at=at + 3)
    edit = new_event("FileEdit", "", data={"path": f"src/harbour_{number}.py",
                                           "diff": "@@ -1,2 +1,2 @@\n def today():\n-    return now()\n+    return now(zone)\n"}, at=at + 5)
    yield new_event("UserMessage", f"Look at harbour {number}, please.", at=at)
    yield read
    yield new_event("ToolResult", "zone = None", data={"name": "Read", "is_error": False, "call_id": read["event_id"]}, at=at + 2)
    yield run
    yield new_event("ToolResult", "assert high == low", data={"name": "Bash", "is_error": True, "call_id": run["event_id"]}, at=at + 4)
    yield edit
    yield new_event("AgentMessage", f"Harbour {number} is **mended**.", at=at + 8)


class OneSession(PageCase):
    TURNS = 40

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.key = call(cls.address, "POST", "/api/register", {"nickname": "ada"})["api_key"]
        events = [event for number in range(cls.TURNS) for event in harbour(number)]
        cls.session = cls.upload(events)

    @classmethod
    def upload(cls, events, **more):
        return call(cls.address, "POST", "/api/sessions", {"session": new_session(events=events, title="Harbours", **more)}, key=cls.key)["id"]

    def open(self, query=""):
        self.sign_in(self.key)
        self.go(f"/session/{self.session}{query}")
        self.see(".reader article")

    def top_of(self, css):
        return self.run_js("return document.querySelector(arguments[0])?.getBoundingClientRect().top ?? 9999", css)


class LevelsOfDetail(OneSession):
    def test_at_first_prompts_and_last_replies_are_read_and_the_steps_are_a_line(self):
        self.open()
        self.see(".prompt", "Look at harbour 0")
        self.see(".reply", "Harbour 0 is mended.")
        self.assertIn("3 steps · 1 edit · 1 error · 8s", self.see(".steps").text)
        self.assertEqual(self.all(".shell"), [])

    def test_a_line_of_steps_opens_and_closes_where_it_is(self):
        self.open()
        before = self.top_of(".steps")
        self.click(".steps button")
        self.see(".shell.bad", "pytest 0")
        self.assertAlmostEqual(self.top_of(".steps"), before, delta=2)
        self.click(".steps button")
        self.gone(".shell")

    def test_the_level_is_remembered_and_in_the_address(self):
        self.open()
        self.click("button[data-level=everything]")
        self.see(".shell", "pytest 0")
        self.assertIn("view=everything", self.path)
        self.go(f"/session/{self.session}")
        self.see(".shell", "pytest 0")
        self.go(f"/session/{self.session}?view=prompts")
        self.see(".prompt", "Look at harbour 1")
        self.assertEqual(self.all(".reply"), [])

    def test_what_changed_inside_a_line_is_marked(self):
        self.open("?view=everything")
        self.assertEqual(self.see(".diff .added b").text, "zone")


class GoingThere(OneSession):
    def test_the_outline_leads_to_a_prompt_and_the_bar_names_it(self):
        self.open()
        self.click(".outline a", "harbour 30")
        self.see(".prompt", "Look at harbour 30")
        self.until(lambda: self.one(".outline [aria-current]").text.startswith("Look at harbour 30"), "the chapter in the outline")
        self.run_js("scrollBy(0, 90)")
        self.see("a.chapter", "31. Look at harbour 30")

    def test_a_click_on_the_map_jumps(self):
        self.open()
        strip = self.one(".map")
        self.driver.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mousePressed", "button": "left", "clickCount": 1,
                                    "x": strip.rect["x"] + 10, "y": strip.rect["y"] + strip.rect["height"] * 0.75})
        self.driver.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mouseReleased", "button": "left", "clickCount": 1,
                                    "x": strip.rect["x"] + 10, "y": strip.rect["y"] + strip.rect["height"] * 0.75})
        self.until(lambda: 180 < int(self.one(".where").text.split()[0]) < 240, "three quarters of it")

    def test_keys_go_by_prompts_errors_and_answers(self):
        self.open()
        for keys, expected in (("n", "Look at harbour 1"), ("n", "Look at harbour 2"), ("p", "Look at harbour 1"), ("]", "Harbour 1 is mended"), ("e", "pytest 2")):
            self.driver.switch_to.active_element.send_keys(keys)
            self.until(lambda: expected in self.driver.switch_to.active_element.text, f"{expected} after {keys}")
        self.assertTrue(self.all(".shell.bad"))

    def test_coming_back_finds_the_place(self):
        self.open()
        self.click(".outline a", "harbour 25")
        self.see(".prompt", "Look at harbour 25")
        self.until(lambda: self.run_js("return history.state?.place") == 25 * 7, "the place is written down")
        self.one("body").send_keys("gs")
        self.see(".sessions")
        self.driver.back()
        self.see(".prompt", "Look at harbour 25")
        self.until(lambda: 0 <= self.run_js("return [...document.querySelectorAll('.prompt')].find(p => p.innerText.includes('harbour 25'))?.getBoundingClientRect().top ?? -1") < 500, "the place")


class Finding(OneSession):
    def indexed(self):
        """Wait until the session can be searched."""
        self.until(lambda: call(self.address, "GET", f"/api/sessions/{self.session}/events?q=mended", key=self.key).get("hits"), "the index")

    def test_the_search_counts_and_leads_from_hit_to_hit(self):
        self.indexed()
        self.open()
        self.one("body").send_keys("/")
        self.driver.switch_to.active_element.send_keys("mended\n")
        self.see(".find .count", f"1 of {self.TURNS}")
        self.see(".reply.marked", "Harbour 0")
        self.click(".find [data-step='1']")
        self.see(".reply.marked", "Harbour 1")
        self.assertIn("q=mended", self.path)

    def test_a_hit_inside_folded_steps_is_opened(self):
        self.indexed()
        self.open("?q=%22assert+high%22")
        self.see(".shell .result", "assert high == low")

    def test_only_the_edits_are_shown(self):
        self.open()
        self.click("button[data-do=filter]")
        self.click(".only button[data-group=edit]")
        self.see(".edit", "src/harbour_0.py")
        self.gone(".reply")
        self.assertIn("only=edit", self.path)
        self.click(".only button[data-clear]")
        self.see(".reply")

    def test_a_file_leads_to_its_edits(self):
        self.open()
        self.click("button[data-do=files]")
        self.click("dialog .touched button", "src/harbour_7.py")
        self.see(".edit", "src/harbour_7.py")
        self.assertEqual(len(self.all(".edit")), 1)


class Doing(OneSession):
    def test_the_raw_form_of_an_event_is_shown(self):
        self.open()
        self.driver.execute_script("arguments[0].focus()", self.see(".prompt"))
        self.click(".prompt .acts [data-act=raw]")
        self.see("dialog pre", '"UserMessage"')

    def test_the_owner_gives_another_title(self):
        self.open()
        self.run_js("document.querySelector('button[data-do=rename]').focus()")
        self.driver.switch_to.active_element.send_keys("\n")
        self.fill("form.rename", title="Tides")
        self.see("header.session h1", "Tides")
        self.go(f"/session/{self.session}")
        self.see("header.session h1", "Tides")

    def test_why_the_tokens_are_what_they_are(self):
        events = [*harbour(0)]
        events[-1]["attributes"] = {"input_tokens": 300, "output_tokens": 5}
        session = self.upload(events, attributes={"usage": {"raw_input": 900, "input": 300, "output": 5, "duplicates_removed": 2}})
        self.sign_in(self.key)
        self.go(f"/session/{session}")
        self.click("button[data-do=usage]")
        self.see("dialog td", "900")
        self.see("dialog li", "2 repeated records not counted")


class Growing(OneSession):
    def test_new_events_come_without_a_jump_and_are_counted(self):
        events = [event for number in range(20) for event in harbour(number)]
        start = datetime.now(timezone.utc) - timedelta(minutes=25)
        for number, event in enumerate(events):
            event["timestamp"] = (start + timedelta(seconds=10 * number)).isoformat().replace("+00:00", "Z")
        session = call(self.address, "POST", "/api/sessions", {"session": new_session(events=events)}, key=self.key)["id"]
        self.sign_in(self.key)
        self.go(f"/session/{session}")
        self.see(".prompt", "Look at harbour 0")
        late = new_event("AgentMessage", "One more word.")
        late["timestamp"] = datetime.now(timezone.utc).isoformat().replace("+00:00", "Z")
        call(self.address, "POST", f"/api/sessions/{session}/events", {"events": [late]}, key=self.key)
        self.run_js("document.dispatchEvent(new Event('visibilitychange'))")
        self.see("button.unseen-events", "1 new")
        self.see(".numbers", f"{len(events) + 1} events")
        self.see(".prompt", "Look at harbour 0")
        self.click("button.unseen-events")
        self.see(".reply", "One more word.")


    def test_whoever_follows_sees_each_new_event(self):
        start = datetime.now(timezone.utc) - timedelta(minutes=4)
        events = [event for number in range(10) for event in harbour(number)]
        for number, event in enumerate(events):
            event["timestamp"] = (start + timedelta(seconds=number)).isoformat().replace("+00:00", "Z")
        session = call(self.address, "POST", "/api/sessions", {"session": new_session(events=events)}, key=self.key)["id"]
        self.sign_in(self.key)
        self.go(f"/session/{session}")
        self.click("button.follow")
        self.see("button.follow[aria-pressed=true]")
        self.see(".reader .over")
        for number in range(3):
            late = new_event("AgentMessage", f"News number {number}.")
            late["timestamp"] = datetime.now(timezone.utc).isoformat().replace("+00:00", "Z")
            call(self.address, "POST", f"/api/sessions/{session}/events", {"events": [late]}, key=self.key)
            self.see(".reply", f"News number {number}.")
            self.until(lambda: self.run_js("return innerHeight + scrollY > document.documentElement.scrollHeight - 150"), "the end in sight")
        self.assertEqual(self.all("button.unseen-events"), [])


class TheOtherLanguage(SampleCase):
    def test_the_page_is_korean_where_it_was_chosen(self):
        self.sign_in(self.key)
        self.run_js("localStorage.setItem('language', 'ko')")
        self.go("/")
        self.click(".sessions a[data-open]", TIDES)
        self.see("button[data-level=conversation]", "대화")
        self.see(".steps", "단계")
