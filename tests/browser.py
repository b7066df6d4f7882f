"""A headless Chromium for tests of web pages; as a program, installs it where it is absent (`make test` does)."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ops.stack import tools

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

#: Programs, which Debian's packages of these names install.
BROWSER, DRIVER = "chromium", "chromium-driver"
#: Nothing but the page is fetched, by no protocol but TCP; as root Chromium has no sandbox.
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1600,1200",
)


def programs() -> tuple[str, str]:
    """Paths of Chromium and its driver; installed where one is absent. Raises MissingTool."""
    found = shutil.which(BROWSER), shutil.which("chromedriver")
    if not all(found):
        tools.debian(
            BROWSER, DRIVER, program="Chromium with its driver", instead="put `chromium` and `chromedriver` on PATH"
        )
        found = shutil.which(BROWSER), shutil.which("chromedriver")
    return found[0] or BROWSER, found[1] or "chromedriver"


@contextmanager
def open_browser() -> Iterator[Chrome]:
    """A browser with an empty profile, closed at the end. Raises MissingTool."""
    # Here, since each test process collects what uses it.
    from selenium.webdriver import Chrome, ChromeOptions, ChromeService

    browser, driver = programs()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = ChromeOptions()
        options.binary_location = browser
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        chrome = Chrome(options=options, service=ChromeService(driver))
        try:
            yield chrome
        finally:
            chrome.quit()


if __name__ == "__main__":
    programs()
