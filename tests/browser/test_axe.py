"""What axe-core finds wrong for people who see, hear or point otherwise: nothing, on any page, in any state.

The tables below name the states.  English is looked at in light on a desk, Korean in dark on a phone.  axe.min.js is axe-core 4.14.1 as published (MPL-2.0, https://github.com/dequelabs/axe-core).
"""

import hashlib
import unittest
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from client import hail_file, new_event, new_session
from page import TIDES, PageCase, SampleCase, call
from secret_cases import noise

AXE = Path(__file__).with_name("axe.min.js")
AXE_SHA256 = "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"
DESK, PHONE = (1280, 900), (390, 844)
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
RUN = """
    const done = arguments[arguments.length - 1];
    axe.run(document, {runOnly: arguments[0], resultTypes: ["violations"]}).then(
        result => done(result.violations.map(each => `${each.id} (${each.help}): ${each.nodes.map(node => `${node.html.slice(0, 200)} ${node.any.concat(node.all)[0]?.message ?? ""}`).join("; ").slice(0, 900)}`)),
        error => done([String(error)]));"""


class AxeItself(unittest.TestCase):
    def test_it_is_the_published_one(self):
        self.assertEqual(hashlib.sha256(AXE.read_bytes()).hexdigest(), AXE_SHA256)


class Looks:
    """How a state is looked at: in which language, theme and size."""

    LANGUAGE, THEME, SIZE = "en", "light", DESK

    def walk(self, states):
        self.screen(*self.SIZE, mobile=self.SIZE is PHONE)
        for name, reach in states.items():
            with self.subTest(name):
                reach(self)
                self.assertEqual(self.violations(), [], name)

    def violations(self):
        # What fades in has no colour yet.
        self.until(lambda: self.run_js("return document.getAnimations().every(each => each.playState === 'finished')"), "a page at rest")
        if not self.run_js("return 'axe' in window"):
            self.driver.execute_script(AXE.read_text())
        return self.driver.execute_async_script(RUN, TAGS)

    def choose_looks(self):
        self.run_js("localStorage.setItem('language', arguments[0]); localStorage.setItem('theme', arguments[1])", self.LANGUAGE, self.THEME)

    def visit(self, path, css):
        self.go(path)
        self.see(css)

    def visit_to_the_end(self, path):
        """Open a session and go on until its end is drawn."""
        self.go(path)
        self.until(lambda: self.run_js("scrollTo(0, document.documentElement.scrollHeight)") or self.all(".reader .over"), "the end")

    def act(self, css, then):
        """Click, whatever lies above it; then something is to be seen."""
        self.run_js("document.querySelector(arguments[0]).click()", css)
        self.see(then)

    def away(self, is_away):
        """Let the server be out of reach, or not."""
        self.driver.execute_cdp_cmd("Network.enable", {})
        self.driver.execute_cdp_cmd("Network.emulateNetworkConditions",
                                    {"offline": is_away, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1})


class InKorean(Looks):
    LANGUAGE, THEME, SIZE = "ko", "dark", PHONE


class ComingIn(Looks, PageCase):
    """A server that nobody knows yet, from its set-up on."""

    SETTINGS = {"HOST": "0.0.0.0"}

    def test_from_set_up_to_the_first_session(self):
        self.go("/login")
        self.choose_looks()
        self.walk({
            "set-up": lambda self: self.visit("/", "[data-form=register] [name=invite]"),
            "refused": lambda self: (self.fill("[data-form=register]", nickname="ada", invite="wrong"), self.see("[data-form=register] .error")),
            "welcome": self.register,
            "an empty list": lambda self: self.visit("/", ".notice .commands"),
            "teams": lambda self: self.visit("/teams", "ul.lines li"),
            "a team": lambda self: (self.click("ul.lines a"), self.see("[data-form=settings]")),
            "an invitation": lambda self: (self.fill("[data-form=invite]", role="viewer"), self.see(".once .copy")),
            "settings": lambda self: self.visit("/settings", "[data-form=key]"),
            "a new key": lambda self: (self.fill("[data-form=key]", name="laptop"), self.see(".once .copy")),
            "revoking": lambda self: (self.visit("/settings", "button[data-revoke]"), self.act("button[data-revoke]", "dialog h2")),
            "deleting an account": lambda self: (self.visit("/settings", "button[data-account]"), self.act("button[data-account]", "dialog [name=typed]")),
            "what happened": lambda self: (self.visit("/settings", "button[data-more]"), self.act("button[data-more]", ".acts-table tbody tr")),
            "sending somebody away": lambda self: (self.open_team(), self.act("button[data-remove]", "dialog h2")),
            "leaving a team": lambda self: (self.open_team(), self.act("[data-do=leave]", "dialog h2")),
            "deleting a team": lambda self: (self.open_team(), self.act("[data-do=delete]", "dialog [name=typed]")),
            "keeping less": lambda self: (self.open_team(), self.fill("[data-form=settings]", retain_days="7"), self.see("dialog h2")),
            "a team's error": lambda self: (self.open_team(), self.fill("[data-form=add]", nickname="nobody"), self.see("[data-form=add] .error")),
            "upload": lambda self: self.visit("/upload", ".drop"),
            "signed out": lambda self: (self.visit("/settings", "[data-do=sign-out]"), self.click("[data-do=sign-out]"), self.see("[data-form=login]")),
            "a wrong key": lambda self: (self.fill("[data-form=login]", api_key="osk_wrong"), self.see("[data-form=login] .error")),
            "an invitation to accept": lambda self: self.visit("/#invite=something", "[data-form=register]"),
            "a link with a key": lambda self: self.visit("/#key=osk_wrong", ".notice"),
        })

    def open_team(self):
        self.visit("/teams", "ul.lines a")
        self.click("ul.lines a")
        self.see("[data-form=settings]")

    def register(self, _):
        token = (Path(self.folder) / "data" / "setup-token").read_text().strip()
        self.go(f"/#setup={token}")
        self.fill("[data-form=register]", nickname="ada")
        self.see(".door .copy")


@pytest.mark.long
class ComingInInKorean(InKorean, ComingIn):
    pass


class Reading(Looks, SampleCase):
    """The list and the sessions."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        listed = call(cls.address, "GET", "/api/sessions", key=cls.key)["sessions"]
        cls.session = next(f"/session/{each['id']}" for each in listed if each["title"] == TIDES)

    def setUp(self):
        super().setUp()
        self.sign_in(self.key)
        self.choose_looks()

    def test_the_list(self):
        self.walk({
            "full": lambda self: self.visit("/", ".sessions"),
            "chosen": lambda self: (self.run_js("document.querySelector('.sessions input').click()"), self.see(".chosen button")),
            "deleting": lambda self: (self.run_js("document.querySelector('.chosen .danger').click()"), self.see("dialog h2")),
            "help": lambda self: (self.visit("/", ".sessions"), self.one("body").send_keys("?"), self.see("dialog .keys")),
            "filtered": lambda self: self.visit("/?tool=codex", ".facets [aria-pressed=true]"),
            "sorted": lambda self: self.visit("/?sort=longest", ".sessions"),
            "a day": lambda self: self.visit("/?day=2026-11-18", ".heat .days"),
            "found": lambda self: (self.visit("/?q=station", ".found .hits .place"), self.see(".list > *")),
            "nothing found": lambda self: self.visit("/?q=xyzzyxyzzy", ".found .quiet"),
            "no session left": lambda self: self.visit("/?tool=nosuch", ".notice"),
            "missing": lambda self: self.visit("/session/none", ".notice"),
            "no page": lambda self: self.visit("/nowhere/at/all", ".notice"),
        })

    def test_a_session(self):
        self.walk({
            "prompts": lambda self: self.visit_to_the_end(f"{self.session}?view=prompts"),
            "conversation": lambda self: self.visit_to_the_end(f"{self.session}?view=conversation"),
            "everything": lambda self: self.visit_to_the_end(f"{self.session}?view=everything"),
            "all unfolded": lambda self: self.run_js("document.querySelectorAll('.reader details').forEach(each => { each.open = true; })"),
            "acts": lambda self: self.run_js("document.querySelector('.prompt').focus()"),
            "find": lambda self: (self.visit(f"{self.session}?q=station", ".find .count"), self.until(lambda: self.one(".find .count").text.strip("…"), "hits")),
            "filters": lambda self: (self.visit(f"{self.session}?only=edit", ".reader .edit"), self.click("button[data-do=filter]"), self.see(".only button")),
            "menu": lambda self: (self.visit_to_the_end(self.session), self.click(".menu summary"), self.see(".menu li")),
            "renaming": lambda self: (self.visit_to_the_end(self.session), self.run_js("document.querySelector('[data-do=rename]').click()"), self.see("form.rename")),
            "why this number": lambda self: self.in_a_dialog("usage"),
            "files": lambda self: self.in_a_dialog("files"),
            "contents": lambda self: self.in_a_dialog("contents"),
            "deleting": lambda self: self.in_a_dialog("delete"),
            "raw": lambda self: (self.visit(self.session, ".prompt"), self.run_js("document.querySelector('.prompt').focus()"),
                                 self.run_js("document.querySelector('.acts [data-act=raw]').click()"), self.see("dialog pre")),
            "side by side": lambda self: (self.visit(f"{self.session}?view=everything", ".to-split"), self.run_js("document.querySelector('.to-split').click()"), self.see("dialog .split")),
        })

    def test_a_session_that_runs_and_holds_a_secret_and_a_server_that_goes(self):
        running = self.upload_running()
        path = f"/session/{running}"
        self.walk({
            "a list": lambda self: self.visit("/", ".sessions .live"),
            "secrets in a list": lambda self: self.visit("/?secrets=1", ".sessions .row .failed[title]"),
            "a session": lambda self: self.visit(path, "button.follow:not([hidden])"),
            "a picture": lambda self: (self.visit(f"{path}?view=everything", "button.picture"), self.act("button.picture", "dialog.image img")),
            "secrets": lambda self: self.visit(path, ".still button"),
            "masking": lambda self: self.act(".still button", "dialog h2"),
            "news": lambda self: (self.visit(path, ".reader article"), self.grow(running), self.see("button.unseen-events")),
            "replaced": lambda self: (self.visit(path, ".reader article"), self.grow(running, replaced=True), self.see(".stale")),
            "away while reading": lambda self: (self.visit(path, ".reader article"), self.away(True),
                                                self.until(lambda: self.run_js("scrollTo(0, document.documentElement.scrollHeight)") or self.all(".end .error"), "a sentence")),
            "away while going": lambda self: (self.away(False), self.visit("/", ".sessions"), self.away(True), self.act("nav a[href='/teams']", ".notice")),
        })

    def upload_running(self):
        """The id of a session whose last event was just now, long, with a picture and a secret that the server has found."""
        self.addCleanup(self.away, False)
        self.began = datetime.now(timezone.utc) - timedelta(minutes=4)
        token = "gh" + "p_" + noise("A", 36, 1)
        picture = {"type": "Image", "url": "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7", "mime": "image/gif"}
        events = [self.now(0, f"The key is {token}", content={"blocks": [{"type": "Text", "text": f"The key is {token}"}, picture]}),
                  *(self.now(at, f"Word {at}.\n\n" * 5) for at in range(1, 200))]
        session = call(self.address, "POST", "/api/sessions", {"session": new_session(events=events, title="Still running")}, key=self.key)["id"]
        self.until(lambda: call(self.address, "GET", f"/api/sessions/{session}", key=self.key)["secrets"], "the secret found")
        return session

    def now(self, at, text, **more):
        return new_event("UserMessage" if at % 5 == 0 else "AgentMessage", text, timestamp=(self.began + timedelta(seconds=at)).isoformat(), **more)

    def grow(self, session, replaced=False):
        base = {"from": 100} if replaced else {}
        call(self.address, "POST", f"/api/sessions/{session}/events", {"events": [self.now(300, "A new reply", event_id=f"n{replaced}")], **base}, key=self.key)

    def in_a_dialog(self, name):
        self.visit_to_the_end(self.session)
        self.run_js("document.querySelector(`[data-do=${arguments[0]}]`).click()", name)
        self.see("dialog[open] h2")

    def test_uploads(self):
        def drop(data, name):
            self.visit("/upload", ".drop")
            self.run_js("""
                const carried = new DataTransfer();
                carried.items.add(new File([arguments[0]], arguments[1]));
                document.querySelector(".drop").dispatchEvent(new DragEvent("drop", {bubbles: true, cancelable: true, dataTransfer: carried}));""", data, name)
        self.walk({
            "done": lambda self: (drop(hail_file(new_session(title="Dropped")).decode(), "a.hail.jsonl"), self.see(".files .state a")),
            "refused": lambda self: (drop("no transcript", "b.txt"), self.see(".files .error")),
        })


@pytest.mark.long
class ReadingInKorean(InKorean, Reading):
    pass
