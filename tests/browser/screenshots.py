"""Pictures of the page's main states: python tests/browser/screenshots.py FOLDER

Shows the sample sessions; readme.png is the one in the README.
"""

import base64
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent.parent), str(Path(__file__).resolve().parent.parent)]

from page import TIDES, SampleCase       # noqa: E402 (behind the path)

DESKTOP, PHONE, README = (1280, 900), (390, 844), (1100, 1320)


class Camera(SampleCase):
    """Not a test: a PageCase that takes pictures while it walks."""

    def runTest(self):
        self.sizes_and_themes("list", "/")
        self.sign_in(self.key)
        self.follow(TIDES)
        tides = self.path
        self.sizes_and_themes("session", tides)
        self.sign_in(self.key)
        self.picture("readme", tides, README)
        for name, path in (("upload", "/upload"), ("teams", "/teams"), ("settings", "/settings"), ("missing", "/session/none")):
            self.picture(name, path, DESKTOP)
        self.follow("한강")
        self.speak_korean()
        self.picture("session-ko", self.path, DESKTOP)
        self.forget()
        self.picture("login", "/login", DESKTOP)

    def sizes_and_themes(self, name, path):
        self.sign_in(self.key)
        self.picture(name, path, DESKTOP)
        self.picture(f"{name}-phone", path, PHONE)
        self.run_js("localStorage.setItem('theme', 'dark')")
        self.picture(f"{name}-dark", path, DESKTOP)
        self.run_js("localStorage.clear()")

    def follow(self, title):
        self.go("/")
        self.click(".sessions a[data-open]", title)
        self.see(".reader .over")

    def speak_korean(self):
        self.run_js("localStorage.setItem('language', 'ko')")

    def picture(self, name, path, size):
        self.screen(*size, mobile=size is PHONE)
        self.go(path)
        self.drawn()
        if path.startswith("/session/") and name != "missing":
            self.see(".reader .over")
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
