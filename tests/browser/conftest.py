"""What pytest does around the tests of the page."""

import sys


def pytest_sessionfinish():
    """End the browser: a worker process of pytest is not ended in a way that would do it."""
    if page := sys.modules.get("page"):
        page.LASTING.close()
