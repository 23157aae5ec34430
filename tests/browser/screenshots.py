"""Pictures of the page's main states: python tests/browser/screenshots.py FOLDER

Shows the sample sessions; those that begin with "readme-" are the ones in the README.
"""

import base64
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent.parent), str(Path(__file__).resolve().parent.parent)]

from page import TIDES, SampleCase       # noqa: E402 (behind the path)

DESKTOP, PHONE = (1280, 900), (390, 844)
README_LIST, README_SESSION = (1100, 520), (1100, 960)


class Camera(SampleCase):
    """Not a test: a PageCase that takes pictures while it walks."""

    def runTest(self):
        self.sign_in(self.key)
        self.follow(TIDES)
        tides = self.path
        self.looks("list", "/")
        self.looks("search", "/?q=station")
        self.looks("session", tides)
        self.picture("readme-list", "/", README_LIST)
        self.picture("readme-session", tides, README_SESSION)
        for level in ("prompts", "everything"):
            self.picture(f"session-{level}", f"{tides}?view={level}", DESKTOP)
        self.picture("session-find", f"{tides}?q=station", DESKTOP)
        self.picture("session-filter", f"{tides}?only=edit", DESKTOP)
        self.picture("session-usage", tides, DESKTOP, "button[data-do=usage]")
        self.picture("session-menu", tides, DESKTOP, ".menu summary")
        self.picture("list-chosen", "/", DESKTOP, ".sessions input")
        self.picture("nothing-found", "/?tool=nosuch", DESKTOP)
        for name, path in (("upload", "/upload"), ("teams", "/teams"), ("settings", "/settings"), ("missing", "/session/none")):
            self.picture(name, path, DESKTOP)
        self.picture("team", "/teams", DESKTOP, "ul.lines a")
        self.follow("한강")
        self.speak_korean()
        self.picture("session-ko", self.path, DESKTOP)
        self.run_js("localStorage.setItem('theme', 'dark')")
        self.picture("readme-phone", self.path, PHONE)
        self.forget()
        self.picture("login", "/login", DESKTOP)

    def looks(self, name, path):
        """A view on a desk, on a phone, in the dark and in Korean."""
        self.picture(name, path, DESKTOP)
        self.picture(f"{name}-phone", path, PHONE)
        for key, value in (("theme", "dark"), ("language", "ko")):
            self.run_js("localStorage.setItem(arguments[0], arguments[1])", key, value)
            self.picture(f"{name}-{value}", path, DESKTOP)
            self.run_js("localStorage.clear()")

    def follow(self, title):
        self.go("/")
        self.click(".sessions a[data-open]", title)
        self.see(".reader .page")

    def speak_korean(self):
        self.run_js("localStorage.setItem('language', 'ko')")

    def picture(self, name, path, size, press=None):
        """Take a picture of an address, after a click on what `press` names."""
        self.screen(*size, mobile=size is PHONE)
        self.go(path)
        self.drawn()
        if path.startswith("/session/") and name != "missing":
            self.see(".reader article")
        if press:
            self.run_js("arguments[0].click()", self.see(press))
        self.until(lambda: self.run_js("return document.getAnimations().every(each => each.playState === 'finished')"), "a page at rest")
        self.until(lambda: self.run_js("return document.fonts.status") == "loaded", "the fonts")
        taken = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
        (self.folder / f"{name}.png").write_bytes(base64.b64decode(taken["data"]))
        print(self.folder / f"{name}.png")


def main(folder):
    Camera.folder = Path(folder)
    Camera.folder.mkdir(parents=True, exist_ok=True)
    result = Camera().defaultTestResult()
    result.failfast = True
    Camera.setUpClass()
    try:
        Camera().run(result)
    finally:
        Camera.doClassCleanups()
    sys.exit("\n".join(text for _, text in [*result.errors, *result.failures]) or None)


if __name__ == "__main__":
    main(sys.argv[1])
