"""A real Chromium and the pages it opens. Without a Chromium these tests are skipped."""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from federation_audit.pages.service import Pages
from tests.pages import WORDS, running_pages

# The shell is the same engine without a window, for half the CPU.
CHROMIUMS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, CHROMIUMS)), None)
WITHIN_MS = 60_000
START_WITHIN_MS = 600_000
SCREENSHOTS = "FEDIWARDEN_SCREENSHOTS"

OpenContext = Callable[..., BrowserContext]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser a module, for while it runs its driver keeps this thread's event loop from everybody else.

    Each test has a context (cookies, windows) of its own.
    """
    if CHROMIUM is None:
        if os.environ.get("FEDIWARDEN_REQUIRE_BROWSER"):
            pytest.fail("no Chromium: apt-get install chromium")
        pytest.skip("no Chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        root = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=[*root, "--disable-dev-shm-usage", "--disable-gpu"], timeout=START_WITHIN_MS
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    """Pages that the tests of a module share."""
    with running_pages(tmp_path_factory.mktemp("pages")) as pages:
        yield pages


@pytest.fixture
def open_context(browser: Browser, pages: Pages) -> Iterator[OpenContext]:
    """Opens windows of a new visitor. At the end: no request left the host, and nothing was in a console."""
    opened: list[BrowserContext] = []
    outside: list[str] = []
    complaints: list[str] = []
    own = urlsplit(pages.url)

    def open_one(**options: object) -> BrowserContext:
        context = browser.new_context(base_url=pages.url, **options)  # type: ignore[arg-type]
        context.set_default_timeout(WITHIN_MS)

        def look_at(page: Page) -> None:
            page.on("request", lambda request: _note_outside(request.url))
            page.on("console", lambda message: _note_console(message.type, message.text))
            page.on("pageerror", lambda error: complaints.append(str(error)))

        context.on("page", look_at)
        opened.append(context)
        return context

    def _note_outside(url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("data", "blob", "about") and parts.hostname != own.hostname:
            outside.append(url)

    def _note_console(kind: str, text: str) -> None:
        # The browser notes each answer of 400 and more; those are asked for.
        if kind in ("error", "warning") and not re.search(r"status of (4\d\d|500)", text):
            complaints.append(text)

    yield open_one
    for context in opened:
        context.close()
    assert not outside
    assert not complaints


@pytest.fixture
def log_in(open_context: OpenContext) -> Callable[..., Page]:
    """Opens a window of somebody who is logged in."""

    def log_in_as(name: str, **options: object) -> Page:
        page = open_context(**options).new_page()
        page.goto("/login")
        page.get_by_label("Name").fill(name)
        page.get_by_label("Password").fill(WORDS)
        page.get_by_role("button", name="Log in").click()
        page.wait_for_url("**/overview")
        return page

    return log_in_as


@pytest.fixture
def photograph() -> Callable[[Page, str], None]:
    """Keeps a picture of the page in the folder that the environment names; does nothing without one."""
    folder = os.environ.get(SCREENSHOTS)

    def keep(page: Page, name: str) -> None:
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)

    return keep
