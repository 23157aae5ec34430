"""A browser for the tests of the page: Debian's Chromium, driven by Selenium.

    class ReadingASession(PageCase):
        def test_the_list_shows_the_title(self):
            self.sign_in()
            self.see(".sessions", "Tide table")

A PageCase has one server for all its tests, and all cases of a process have one browser;
each test begins as a visitor without cookies.  After each test the page must have asked no other host for
anything, opened no dialog, broken no rule of its Content-Security-Policy, thrown no
error and left nothing in the console.
"""

import atexit
import contextlib
import functools
import json
import shutil
import tempfile
import time
import unittest
import urllib.error
import urllib.request

from client import running_server
from demo import demo_in
from selenium import webdriver
from selenium.common.exceptions import (ElementClickInterceptedException, ElementNotInteractableException,
                                        StaleElementReferenceException)
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = ("--headless=new --no-sandbox --disable-gpu --disable-quic --disable-dev-shm-usage --no-first-run"
         " --disable-background-networking --disable-component-update --disable-sync --disable-default-apps"
         " --disable-extensions --hide-scrollbars --window-size=1280,900 --lang=en").split()
TIDES = "Tide table shows yesterday until 09:00 in Busan"        # the title of a sample
WITHOUT_CHROMIUM = "the page is not tested: apt install chromium chromium-driver"
PATIENCE = 60       # seconds that a test waits for a state: a page that is broken fails many tests, one after another

# What a page that is just being drawn answers.
REDRAWN = (StaleElementReferenceException, ElementNotInteractableException, ElementClickInterceptedException)

# Runs before the page's own scripts: notes what must never happen.
WATCH = """
    window.seen = [];
    for (const name of ["alert", "confirm", "prompt", "print", "open"]) window[name] = () => { seen.push("dialog: " + name); };
    addEventListener("securitypolicyviolation", event => seen.push(`policy: ${event.violatedDirective} ${event.blockedURI} ${event.sample}`));
    addEventListener("error", event => seen.push("error: " + event.message));
    addEventListener("unhandledrejection", event => seen.push("rejected: " + event.reason));
"""


@contextlib.contextmanager
def chromium(*flags):
    """A headless browser with a profile of its own."""
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for flag in (*FLAGS, f"--user-data-dir={profile}", *flags):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "WARNING"})
        driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=DRIVER))
        driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": WATCH})
        try:
            yield driver
        finally:
            driver.quit()


# What stays until the process ends; a worker of pytest says so itself, see conftest.py.
LASTING = contextlib.ExitStack()
atexit.register(LASTING.close)


@functools.cache
def browser():
    """The browser of all tests of this process: starting one takes longer than most tests."""
    return LASTING.enter_context(chromium())


@functools.cache
def collected():
    """(a data directory with the sample sessions, the key of its user), to be copied: the daemon collects them once."""
    folder = LASTING.enter_context(tempfile.TemporaryDirectory(prefix="samples-"))
    with demo_in(folder) as (_, key):
        pass
    return f"{folder}/data", key


def call(address, method, path, value=None, body=None, type="application/json", key=None):
    """One request to the API, as a program would; returns the answer's JSON.  Raises OSError with the server's sentence."""
    data = body if body is not None else None if value is None else json.dumps(value).encode()
    request = urllib.request.Request(address + path, data, {"Content-Type": type}, method=method)
    if key:
        request.add_header("Authorization", f"Bearer {key}")
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as error:
        raise OSError(f"{method} {path}: {error.code} {error.read()[:300]!r}") from None


@unittest.skipUnless(CHROMIUM and DRIVER, WITHOUT_CHROMIUM)
class PageCase(unittest.TestCase):
    """Tests of the page.  `address` is the server's; `open_server` says which server it is."""

    SETTINGS = {}

    @classmethod
    def setUpClass(cls):
        cls.address = cls.enterClassContext(cls.open_server())
        cls.driver = browser()

    @classmethod
    @contextlib.contextmanager
    def open_server(cls):
        """An empty server with the class's SETTINGS; gives its address.  cls.folder is where its data lies."""
        with tempfile.TemporaryDirectory() as cls.folder:
            with running_server(cls.folder, **{"OPENSESSION_LOG": "warn", **cls.SETTINGS}) as server:
                yield f"http://localhost:{server.port}"

    def setUp(self):
        self.problems = []
        self.forget()
        self.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        self.driver.get_log("performance")
        self.driver.get_log("browser")

    def tearDown(self):
        self.note_problems()
        self.problems += self.console_lines()
        self.assertEqual(self.problems, [])
        self.assertEqual(self.foreign_requests(), [])

    # What must not have happened

    def note_problems(self):
        """Remember what WATCH saw in the document that is about to go."""
        self.problems += self.run_js("return window.seen ?? []")

    def console_lines(self):
        """What the browser complained of, but for answers of the server that are errors, which tests ask for."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["source"] not in ("network", "deprecation", "other")]

    def foreign_requests(self):
        """The addresses outside of the server that the browser asked for since the test began."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        asked = [message["params"]["request"]["url"] for message in messages
                 if message["method"] == "Network.requestWillBeSent"]
        return [url for url in asked if not url.startswith((self.address + "/", "data:", "blob:", "about:"))]

    # Going and looking

    def go(self, path="/"):
        """Load an address of the server anew, as typed into the bar."""
        self.note_problems()
        self.driver.get("about:blank")
        self.driver.get(self.address + path)

    def run_js(self, script, *values):
        return self.driver.execute_script(script, *values)

    def all(self, css):
        return self.driver.find_elements(By.CSS_SELECTOR, css)

    def one(self, css, text=None):
        """The first element that fits, once it is there; with `text`, the first that shows it."""
        return self.until(lambda: next((each for each in self.all(css) if text is None or text in each.text), None),
                          f"{css} {text or ''}")

    see = one

    def drawn(self):
        """Wait until a view stands in the page."""
        self.see("main .view > :not(.loading)")

    def gone(self, css):
        self.until(lambda: not self.all(css), f"no {css}")

    def until(self, condition, what):
        """The condition's first true value; fails with what the page shows instead."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            with contextlib.suppress(*REDRAWN):
                value = condition()
                if value:
                    return value
            time.sleep(0.03)
        raise AssertionError(f"waited for {what} on {self.driver.current_url}:\n"
                             + self.run_js("return document.body.innerText")[:1500])

    @property
    def text(self):
        """What the page shows."""
        return self.run_js("return document.body.innerText")

    @property
    def path(self):
        return self.driver.current_url.removeprefix(self.address)

    # Doing

    def forget(self):
        """Become a visitor: without cookies, without anything kept by the page."""
        self.note_problems()
        self.driver.get("about:blank")
        self.driver.execute_cdp_cmd("Storage.clearDataForOrigin", {"origin": self.address, "storageTypes": "all"})
        self.driver.delete_all_cookies()
        self.driver.execute_cdp_cmd("Network.clearBrowserCookies", {})

    def click(self, css, text=None):
        """Click the first element that fits; anew where the page redraws it meanwhile."""
        def clicked():
            element = self.one(css, text)
            self.run_js("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", element)
            element.click()
            return True
        self.until(clicked, f"a click on {css} {text or ''}")

    def choose(self, css, value):
        """Choose an option by its value; anew where the page redraws the list meanwhile."""
        self.until(lambda: Select(self.one(css)).select_by_value(value) or True, f"{value} in {css}")

    def fill(self, form, **values):
        """Fill fields of a form by their names, and send it."""
        self.one(form)
        for name, value in values.items():
            self.until(lambda: self.fill_field(f"{form} [name={name}]", value), f"{form} takes {name}")
        self.click(f"{form} button:not([type]), {form} button[type=submit]")

    def fill_field(self, css, value):
        """Fill one field, which the page may just be drawing anew."""
        field = self.one(css)
        if field.tag_name == "select":
            Select(field).select_by_value(value)
        else:
            field.clear()
            field.send_keys(value)
        return True

    def screen(self, width, height, mobile=False):
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                                    {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile})

    def new_person(self, nickname, **more):
        """The key of a new account, made through the API."""
        return call(self.address, "POST", "/api/register", {"nickname": nickname, **more})["api_key"]

    def sign_in(self, key):
        """Come in by a link that carries the key."""
        self.go(f"/#key={key}")
        self.click("form.door button")
        self.see("nav.me a[href='/settings']")
        self.gone("form.door")


class SampleCase(PageCase):
    """A server with the sample sessions; `key` is its user's."""

    @classmethod
    @contextlib.contextmanager
    def open_server(cls):
        data, cls.key = collected()
        with tempfile.TemporaryDirectory() as folder:
            shutil.copytree(data, f"{folder}/data")
            with running_server(folder, OPENSESSION_LOG="warn") as server:
                yield f"http://localhost:{server.port}"

    def open_session(self, title, level=None):
        """Come in and open a session from the list; with a level of detail, choose that."""
        self.sign_in(self.key)
        self.click(".sessions a[data-open]", title)
        self.see("header.session h1", title)
        self.see(".reader article")
        if level:
            self.click(f"button[data-level={level}]")
            self.see(f".reading[data-level={level}] .reader article")
