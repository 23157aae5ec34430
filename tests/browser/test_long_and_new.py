"""A very long session, a turn whose context was compacted, and a page that is older than its server."""

import contextlib
import re
import shutil
import tempfile
from pathlib import Path

from client import hail_file, new_event, new_session, running_server
from page import PageCase, call

STATIC = Path(__file__).resolve().parent.parent.parent / "static"


class Uploads(PageCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.key = call(cls.address, "POST", "/api/register", {"nickname": "ada"})["api_key"]

    def upload(self, events):
        """The address of a new session."""
        body = hail_file(new_session(events=events))
        answer = call(self.address, "POST", "/api/sessions", body=body, type="application/jsonl", key=self.key)
        return f"/session/{answer['id']}"


class AVeryLongSession(Uploads):
    EVENTS, TURN = 12_000, 20

    def test_a_link_far_into_it_leads_there_and_all_around_it_is_true(self):
        events = [new_event("UserMessage" if at % self.TURN == 0 else "ShellCommand" if at % self.TURN < 15 else "AgentMessage",
                            f"This is number {at}.", at=at, data={"command": f"echo {at}"} if 0 < at % self.TURN < 15 else None)
                  for at in range(self.EVENTS)]
        place = self.upload(events)
        self.sign_in(self.key)
        self.go(f"{place}#e={events[9007]['event_id']}")
        self.see("article.marked", "echo 9007")
        self.see(".outline a[aria-current]", "This is number 9000.")
        self.see("header.session .numbers", "600 prompts")
        self.assertLess(self.run_js("return document.querySelectorAll('*').length"), 3000)
        self.go(place)
        self.see(".reader .prompt", "This is number 0.")
        self.click("button[data-do=last]")
        self.see(".reader .reply", f"This is number {self.EVENTS - 1}.")
        self.see(".reader .steps", "14 steps")

    def test_the_map_leads_to_its_middle(self):
        place = self.upload([new_event(text=f"This is number {at}.", at=at) for at in range(3000)])
        self.sign_in(self.key)
        self.go(place)
        self.see(".reader .prompt", "This is number 0.")
        self.run_js("""const map = document.querySelector(".map"), { left, top, height } = map.getBoundingClientRect();
            map.setPointerCapture = () => null;
            map.dispatchEvent(new PointerEvent("pointerdown", { clientX: left + 5, clientY: top + height / 2, buttons: 1, bubbles: true }));""")
        self.until(lambda: 1450 < int(self.see(".where").text.split(" ")[0].replace(",", "")) < 1550, "the middle")


    def test_scrolling_past_what_is_drawn_comes_to_what_follows(self):
        place = self.upload([new_event(text=f"This is number {at}.", at=at) for at in range(3000)])
        self.sign_in(self.key)
        self.go(place)
        self.see(".reader .prompt", "This is number 0.")
        for _ in range(5):
            self.run_js("scrollBy(0, 2000)")
            self.until(lambda: self.run_js("return [...document.querySelectorAll('.reader article')].some(each => {"
                                           " const { top, bottom } = each.getBoundingClientRect(); return bottom > 0 && top < innerHeight; })"), "a row")
        self.until(lambda: 10 < int(self.see(".where").text.split(" ")[0].replace(",", "")) < 150, "a place not far away")


class ACompactedTurn(Uploads):
    def test_a_line_between_two_folds_says_so(self):
        steps = [new_event("ShellCommand", "", at=at, data={"command": f"echo {at}"}) for at in range(1, 9)]
        steps.insert(5, new_event("Custom", "", at=5, data={"kind": "compaction"}))
        place = self.upload([new_event(text="Go on"), *steps, new_event("AgentMessage", "Done.", at=20)])
        self.sign_in(self.key)
        self.go(place)
        self.see(".reader .boundary", "Context compacted")
        self.assertEqual([re.search(r"\d+ steps", line.text)[0] for line in self.all(".reader .steps")], ["5 steps", "3 steps"])
        self.click("button[data-level=prompts]")
        self.gone(".reader .boundary")


class AnOlderPage(Uploads):
    """The server's page is a copy, which a test may change as a new version does."""

    @classmethod
    @contextlib.contextmanager
    def open_server(cls):
        with tempfile.TemporaryDirectory() as folder:
            cls.static = Path(folder, "static")
            shutil.copytree(STATIC, cls.static)
            Path(folder, "data").mkdir()
            with running_server(f"{folder}/data", OPENSESSION_LOG="warn", OPENSESSION_WEB_DIR=str(cls.static)) as server:
                yield f"http://localhost:{server.port}"

    def version(self):
        return re.search(r"/v/(\w+)/", self.run_js("return document.querySelector('script[type=module]').src"))[1]

    def test_it_begins_anew_where_it_needs_what_is_gone(self):
        self.sign_in(self.key)
        old = self.version()
        with open(self.static / "teams.js", "a", encoding="utf-8") as file:
            file.write("// a newer version\n")
        self.click("nav a[href='/teams']")
        self.see("h1", "Teams")
        self.assertNotEqual(self.version(), old)
        self.assertEqual(self.path, "/teams")

    def test_what_it_has_goes_on(self):
        self.sign_in(self.key)
        old = self.version()
        with open(self.static / "team.js", "a", encoding="utf-8") as file:
            file.write("// a newer version\n")
        self.click("nav a[href='/upload']")
        self.see("h1", "Upload")
        self.assertEqual(self.version(), old)
