"""The pages about rescans in a browser: they fit, can be read, and the one at work loads itself anew."""

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page, expect

from federation_audit.pages.service import Pages
from federation_audit.rescans.watching import RescanWatch, Seen
from federation_audit.store.rescans import read_rescan
from schemas.broker import BrokerSettings
from schemas.clock import now_ms
from schemas.rescan_progress import Progress
from tests.browser.contrast import check_contrast
from tests.browser.test_looks import LOOKS, OVERFLOW, SMALL, UNLABELLED
from tests.fediverse import copy_filled
from tests.pages import running_pages
from tests.rescans import LISTS, MODEL, POLICY, fill_rescans

pytestmark = [pytest.mark.browser, pytest.mark.long, pytest.mark.timeout(900)]

PATHS = ("/rescans", f"/rescans/{MODEL}", f"/rescans/{POLICY}", f"/rescans/{LISTS}", f"/rescans/{MODEL}/instances")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    """Pages over the invented fediverse and its rescans; of the one at work a third is done."""
    folder = tmp_path_factory.mktemp("pages")
    with running_pages(folder, filled=True) as running:
        _, filled = copy_filled(tmp_path_factory.mktemp("names"))
        now = now_ms()
        fill_rescans(running.site.database, filled, now=now)  # type: ignore[arg-type]
        running.site.rescans = RescanWatch(running.site.database, BrokerSettings(bootstrap_servers="127.0.0.1:1"))
        with running.site.database.reading() as connection:
            job = read_rescan(connection, POLICY)
        assert job is not None
        running.site.rescans.seen = Seen(job, Progress(13_700, 41_200, now, 21_400.0, 1.3), now - 90_000, now)
        yield running


def test_the_pages_fit_are_labelled_and_can_be_read(
    log_in: Callable[..., Page], photograph: Callable[[Page, str], None]
) -> None:
    for look, options in LOOKS.items():
        page = log_in("viewer", **options)
        for path in PATHS:
            page.goto(path)
            photograph(page, f"{path.strip('/').replace('/', '-')}-{look}")
            assert page.evaluate(OVERFLOW) == [], f"{look} {path}"
            assert page.evaluate(UNLABELLED) == [], f"{look} {path}"
            assert page.evaluate(SMALL) == [], f"{look} {path}"
            expect(page.locator("h1")).to_have_count(1)
            check_contrast(page, f"{look} {path}")


def test_the_page_of_one_at_work_loads_itself_anew_until_that_is_stopped(
    log_in: Callable[..., Page], pages: Pages
) -> None:
    page = log_in("viewer")
    page.goto(f"/rescans/{POLICY}")
    watch = pages.site.rescans
    assert watch is not None and watch.seen is not None
    before, now = watch.seen, now_ms()
    assert before.progress is not None
    watch.seen = Seen(before.job, Progress(20_000, 41_200, now, 21_400.0, 1.0), before.since, now)
    expect(page.get_by_text("of 41,200 records are done")).to_contain_text("20,000", timeout=30_000)
    page.get_by_role("link", name="Stop that").click()
    expect(page.get_by_text("does not load itself anew")).to_be_visible()
    page.get_by_role("link", name="Do so every 5 seconds").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("link", name="Stop that")).to_be_visible()
