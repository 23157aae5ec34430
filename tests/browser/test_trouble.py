"""When something is in the way: the server goes and comes, the network is slow, the screen small, the paper real."""

import contextlib
import tempfile

from client import free_port, new_event, new_session, server_process, wait_for_port
from page import TIDES, PageCase, SampleCase, call
from selenium.webdriver.common.keys import Keys


class AServerThatGoes(PageCase):
    """A server that a test can stop and start again, on the same data and port."""

    EVENTS = 1500

    @classmethod
    @contextlib.contextmanager
    def open_server(cls):
        with tempfile.TemporaryDirectory() as cls.folder:
            cls.port = free_port()
            cls.start()
            try:
                yield f"http://localhost:{cls.port}"
            finally:
                cls.stop()

    @classmethod
    def start(cls):
        cls.process = server_process(cls.folder, PORT=str(cls.port), OPENSESSION_LOG="warn")
        cls.process.port = cls.port
        wait_for_port(cls.process)

    @classmethod
    def stop(cls):
        cls.process.kill()
        cls.process.communicate()

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.key = call(cls.address, "POST", "/api/register", {"nickname": "ada"})["api_key"]
        events = [new_event("UserMessage" if at % 10 == 0 else "AgentMessage", f"Word {at}.", at=at) for at in range(cls.EVENTS)]
        session = new_session(events=events, title="A long one")
        cls.session = call(cls.address, "POST", "/api/sessions", {"session": session}, key=cls.key)["id"]

    def tearDown(self):
        if self.process.poll() is not None:
            self.start()
        super().tearDown()

    def test_a_view_that_cannot_be_loaded_says_so_and_comes_back_by_itself(self):
        self.sign_in(self.key)
        self.see(".sessions")
        self.stop()
        self.click("nav a[href='/teams']")
        self.see(".notice", "cannot be reached")
        self.start()
        self.see("main h1", "Teams")
        self.assertEqual(self.path, "/teams")

    def test_reading_goes_on_where_it_was_once_the_server_is_back(self):
        self.sign_in(self.key)
        self.go(f"/session/{self.session}?view=everything")
        self.see(".reader article")
        self.stop()
        self.until(lambda: self.run_js("scrollTo(0, document.documentElement.scrollHeight)") or self.all(".end .error"), "a sentence at the end")
        self.assertIn("cannot be reached", self.one(".end .error").text)
        self.start()
        self.until(lambda: not self.all(".end .error"), "the sentence gone")
        self.until(lambda: self.run_js("scrollTo(0, document.documentElement.scrollHeight)") or self.all(".reader .over"), "the end")

    def test_a_restart_in_between_is_not_noticed(self):
        self.sign_in(self.key)
        self.see(".sessions")
        self.stop()
        self.start()
        self.click(".sessions a[data-open]", "A long one")
        self.see("header.session h1", "A long one")
        self.see("nav.me a", "ada")


class ASlowNetwork(SampleCase):
    def slow(self, **more):
        conditions = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        self.driver.execute_cdp_cmd("Network.enable", {})
        self.driver.execute_cdp_cmd("Network.emulateNetworkConditions", conditions | more)
        self.addCleanup(self.driver.execute_cdp_cmd, "Network.emulateNetworkConditions", conditions)

    def test_what_is_coming_is_drawn_in_outline_meanwhile(self):
        self.sign_in(self.key)
        self.slow(latency=1500)
        self.click("nav a[href='/teams']")
        self.until(lambda: self.run_js("return getComputedStyle(document.querySelector('.loading')).opacity") == "1", "the outline")
        self.see("main h1", "Teams")

    def test_an_upload_shows_how_far_it_is(self):
        self.sign_in(self.key)
        self.go("/upload")
        self.see(".drop")
        self.run_js("""
            window.shown = [];
            new MutationObserver(() => { const bar = document.querySelector("progress"); if (bar) shown.push(bar.value); })
                .observe(document.querySelector(".files"), {subtree: true, childList: true, attributes: true});
            const carried = new DataTransfer();
            carried.items.add(new File([arguments[0]], "long.txt"));
            document.querySelector(".drop").dispatchEvent(new DragEvent("drop", {bubbles: true, cancelable: true, dataTransfer: carried}));
        """, "no transcript\n" * 100_000)
        self.see(".files .error")
        self.assertGreater(self.run_js("return shown.length"), 1)


class InTwoTabs(SampleCase):
    @contextlib.contextmanager
    def another_tab(self, path):
        first = self.driver.current_window_handle
        self.driver.switch_to.new_window("tab")
        self.driver.get(self.address + path)
        try:
            yield
        finally:
            self.driver.close()
            self.driver.switch_to.window(first)

    def test_signing_out_in_one_leads_the_other_to_the_door_and_back(self):
        self.sign_in(self.key)
        self.go("/upload")
        self.see(".drop")
        with self.another_tab("/settings"):
            self.click("button[data-do=sign-out]")
            self.see("[data-form=login]")
        self.fill("[data-form=login]", api_key=self.key)
        self.see(".drop")
        self.assertEqual(self.path, "/upload")

    def test_what_one_renames_and_deletes_the_others_follow(self):
        renamed = call(self.address, "POST", "/api/sessions", {"session": new_session(title="Old name")}, key=self.key)["id"]
        self.sign_in(self.key)
        self.see(".sessions a[data-open]", "Old name")
        with self.another_tab(f"/session/{renamed}"):
            self.see("h1", "Old name")
            with self.another_tab(f"/session/{renamed}"):
                self.see("h1", "Old name")
                self.run_js("document.querySelector('button[data-do=rename]').click()")
                self.fill("form.rename", title="New name")
                self.see("h1", "New name")
            self.see("h1", "New name")
            self.click(".menu summary")
            self.click(".menu .danger")
            self.click("dialog button.danger")
            self.see(".sessions")
        self.gone(f".sessions a[href='/session/{renamed}']")

    def test_what_has_gone_meanwhile_is_not_found(self):
        gone = call(self.address, "POST", "/api/sessions", {"session": new_session(title="Soon gone")}, key=self.key)["id"]
        self.sign_in(self.key)
        self.see(".sessions a[data-open]", "Soon gone")
        call(self.address, "DELETE", f"/api/sessions/{gone}", key=self.key)
        self.click(".sessions a[data-open]", "Soon gone")
        self.see(".notice h1", "Nothing here")


class ByKeyboardAlone(SampleCase):
    def press(self, *keys):
        for key in keys:
            self.driver.switch_to.active_element.send_keys(key)

    def focused(self, css):
        return self.run_js("return document.activeElement.matches(arguments[0])", css)

    def test_from_the_door_to_a_step_of_a_session_and_on(self):
        self.sign_in(self.key)
        self.see(".sessions")
        self.driver.refresh()
        self.see(".sessions")
        self.press(Keys.TAB)
        self.assertTrue(self.focused("a.skip"))
        self.press(Keys.ENTER)
        self.until(lambda: self.focused("main"), "the skip link's goal")
        self.press("/")
        self.press("station", Keys.ENTER)
        self.see(".found .hits")
        self.press(Keys.ESCAPE, "j", Keys.ENTER)
        self.see("header.session h1")
        self.see(".reader article")
        self.press(Keys.ESCAPE, "j", "j")
        self.until(lambda: self.focused(".reader [data-row]"), "a row of the session")
        self.press("g", "t")
        self.see("h1", "Teams")
        self.press("g", "s")
        self.see(".sessions")
        self.press("?")
        self.see("dialog[open] .keys")
        self.press(Keys.ESCAPE)
        self.gone("dialog")

    def test_a_row_is_selected_and_deleting_asked_for(self):
        self.sign_in(self.key)
        self.see(".sessions a[data-open]")
        self.press("j", "x")
        self.see(".chosen strong", "1 selected")
        self.press("x")
        self.until(lambda: not self.one(".chosen").is_displayed(), "nothing selected")

    def test_steps_open_with_enter_and_levels_turn_with_f(self):
        self.open_session(TIDES)
        self.press("n", "j")
        self.until(lambda: self.focused(".steps"), "the line of steps")
        self.press(Keys.ENTER)
        self.see(".reader .steps [aria-expanded=true]")
        self.press("f")
        self.see(".reading[data-level=everything]")

    def test_whatever_has_the_focus_shows_it(self):
        self.sign_in(self.key)
        for path, css in (("/", ".sessions"), ("/settings", "[data-form=key]"), (self.tides(), ".reader article")):
            self.go(path)
            self.see(css)
            for _ in range(25):
                self.press(Keys.TAB)
                with self.subTest(path, at=self.run_js("return document.activeElement.outerHTML.slice(0, 200)")):
                    self.assertTrue(self.run_js("""
                        const at = document.activeElement;
                        return at === document.body || [null, "::before", "::after"].some(part => getComputedStyle(at, part).outlineStyle !== "none")
                            || at.closest(".drop") !== null;"""))

    def tides(self):
        return next(f"/session/{each['id']}" for each in call(self.address, "GET", "/api/sessions", key=self.key)["sessions"] if each["title"] == TIDES)


class BackAndForward(SampleCase):
    def test_every_step_is_found_again_in_both_directions(self):
        self.sign_in(self.key)
        self.click(".facets button[data-facet=tool]", "Codex")
        self.until(lambda: self.path == "/?tool=codex", "the filter")
        self.click(".sessions a[data-open]")
        self.see("header.session")
        session = self.path
        self.click("nav.me a")
        self.see("h1", "Settings")
        steps = [("/settings", "[data-form=key]"), (session, "header.session"), ("/?tool=codex", ".facets [aria-pressed=true]"), ("/", ".sessions")]
        for path, css in steps[1:]:
            self.driver.back()
            self.see(css)
            self.assertEqual(self.path.partition("#")[0], path)
        for path, css in steps[-2::-1]:
            self.driver.forward()
            self.see(css)
            self.assertEqual(self.path.partition("#")[0], path)


class ErrorsInKorean(PageCase):
    def test_what_the_server_refuses_is_said_in_korean_with_its_own_words_behind(self):
        self.new_person("grace")
        self.go("/login")
        self.run_js("localStorage.setItem('language', 'ko')")
        self.go("/login")
        self.fill("[data-form=register]", nickname="grace")
        self.see("[data-form=register] .error", "이미 쓰이는 닉네임입니다. 다른 닉네임을 고르세요. nickname already taken")
        self.fill("[data-form=login]", api_key="osk_wrong")
        self.see("[data-form=login] .error", "키가 올바르지 않습니다.")


class OnOtherScreens(SampleCase):
    PAGES = ("/", "/?q=station", "/teams", "/upload", "/settings")
    # Text that its own box cuts off, where neither an ellipsis nor scrolling was meant.
    CUT_OFF = """
        return [...document.querySelectorAll("main :is(h1, h2, p, button, a, th, label, strong), header.top *")].filter(each => {
            const style = getComputedStyle(each);
            return each.checkVisibility() && style.overflowX !== "visible" && style.textOverflow !== "ellipsis" && style.webkitLineClamp === "none"
                && !["auto", "scroll"].includes(style.overflowX) && !each.matches(".unseen") && (each.scrollWidth > each.clientWidth + 2 || each.scrollHeight > each.clientHeight + 4);
        }).map(each => each.outerHTML.slice(0, 200));"""

    def test_at_twice_and_four_times_the_size_nothing_is_cut_off_or_beside_the_screen(self):
        self.sign_in(self.key)
        session = call(self.address, "GET", "/api/sessions", key=self.key)["sessions"][1]
        for width in (640, 320):        # what a zoom of 200 % and 400 % leaves of 1280
            self.screen(width, 600)
            for path in (*self.PAGES, f"/session/{session['id']}?view=everything", f"/teams/{session['team_id']}"):
                with self.subTest(path, width=width):
                    self.go(path)
                    self.drawn()
                    self.assertLessEqual(self.run_js("return document.documentElement.scrollWidth"), width)
                    self.assertEqual(self.run_js(self.CUT_OFF), [])

    def test_with_letters_twice_as_large_nothing_is_beside_the_screen_of_a_desk_or_a_phone(self):
        self.sign_in(self.key)
        session = call(self.address, "GET", "/api/sessions", key=self.key)["sessions"][1]
        self.driver.execute_cdp_cmd("Page.setFontSizes", {"fontSizes": {"standard": 32, "fixed": 26}})
        self.addCleanup(self.driver.execute_cdp_cmd, "Page.setFontSizes", {"fontSizes": {"standard": 16, "fixed": 13}})
        for width in (1280, 390):
            self.screen(width, 844)
            for path in (*self.PAGES, f"/session/{session['id']}?view=everything", f"/teams/{session['team_id']}"):
                with self.subTest(path, width=width):
                    self.go(path)
                    self.drawn()
                    self.assertEqual(self.run_js("return getComputedStyle(document.documentElement).fontSize"), "32px")
                    self.assertLessEqual(self.run_js("return document.documentElement.scrollWidth"), width)
                    self.assertEqual(self.run_js(self.CUT_OFF), [])

    def test_rows_of_the_list_are_low_and_titles_have_two_lines(self):
        long = "A title of a session that goes on and on about everything that was asked for, until it ends"
        call(self.address, "POST", "/api/sessions", {"session": new_session(title=long, attributes={"project": "a/very/long/" * 9})}, key=self.key)
        self.sign_in(self.key)
        self.see(".sessions a[data-open]", long)
        self.assertLessEqual(max(self.run_js("return [...document.querySelectorAll('.sessions .row')].map(row => row.getBoundingClientRect().height)")), 44)
        self.assertEqual(self.run_js(self.CUT_OFF), [])

    def test_who_wants_no_motion_gets_none(self):
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-reduced-motion", "value": "reduce"}]})
        self.addCleanup(self.driver.execute_cdp_cmd, "Emulation.setEmulatedMedia", {"features": []})
        self.open_session(TIDES)
        self.assertEqual(self.run_js("""return [...document.querySelectorAll("*")].filter(each => {
            const { animationDuration, transitionDuration, scrollBehavior } = getComputedStyle(each);
            return Math.max(parseFloat(animationDuration), parseFloat(transitionDuration)) > 0.01 || scrollBehavior === "smooth"; }).length"""), 0)


class OnPaper(SampleCase):
    def test_a_printed_session_is_whole_and_without_buttons(self):
        self.open_session(TIDES, "everything")
        self.run_js("window.print = () => { window.printed = document.querySelectorAll('.paper .event').length; }")
        self.click(".menu summary")
        self.click("button[data-do=print]")
        self.until(lambda: self.run_js("return window.printed"), "the printer")
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
        self.addCleanup(self.driver.execute_cdp_cmd, "Emulation.setEmulatedMedia", {"media": ""})
        text = self.text
        for part in (TIDES, "Users in Busan reported it", "Nine hours is exactly Busan"):
            self.assertIn(part, text)
        for part in ("Everything", "Find", "Sign", "Sessions"):
            self.assertNotIn(part, text.split("\n"))
        self.run_js("dispatchEvent(new Event('afterprint'))")
        self.gone(".paper")


class ToTakeAlong(SampleCase):
    def copied(self):
        """What lies in the clipboard."""
        self.driver.execute_cdp_cmd("Browser.grantPermissions", {"origin": self.address, "permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]})
        return self.driver.execute_async_script("navigator.clipboard.readText().then(arguments[0], error => arguments[0](String(error)))")

    def test_an_event_a_turn_and_the_session_are_copied_as_markdown(self):
        self.open_session(TIDES)
        self.copied()
        for act, expected in (("copy", "## Prompt"), ("turn", "**Cause.**")):
            self.run_js("document.querySelector('.prompt').focus()")
            self.click(f".prompt .acts [data-act={act}]")
            self.until(lambda: expected in self.copied(), f"{expected} in the clipboard")
        self.click(".menu summary")
        self.click("button[data-do=markdown]")
        self.until(lambda: self.copied().startswith(f"# {TIDES}\n"), "the session in the clipboard")
        self.assertIn("```diff", self.copied())

    def test_the_command_that_resumes_it_is_copied(self):
        self.open_session(TIDES)
        self.copied()
        self.click(".menu summary")
        self.click(".menu button", "Copy the command")
        self.until(lambda: "claude --resume " in self.copied(), "the command")
        self.assertRegex(self.copied(), r"^cd [~/]\S+ && claude --resume [\w-]+$")
