"""Two reviewers work the queue by keyboard until an incident is confirmed; and how the pages of it look."""

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page, expect

from federation_audit.accounts.roles import Role
from federation_audit.pages.service import Pages
from federation_audit.reviewing.outcomes import Outcome, read_reviewed
from tests.browser.test_looks import LOOKS, OVERFLOW, SMALL, UNLABELLED
from tests.fediverse import copy_filled
from tests.pages import TEST, WORDS, running_pages

pytestmark = [pytest.mark.browser, pytest.mark.timeout(1800)]

LogIn = Callable[..., Page]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    """Pages over the invented fediverse, in which nobody has reviewed anything."""
    with running_pages(tmp_path_factory.mktemp("pages"), filled=True, reviewed=False) as pages:
        pages.site.users.add("second", Role.REVIEWER, WORDS, by=TEST, must_change=False)
        yield pages


def outcome(pages: Pages, sha256: bytes) -> Outcome | None:
    with pages.site.database.reading() as connection:
        found = read_reviewed(connection).get(("default", sha256))
    return None if found is None else found.outcome


def test_two_reviewers_work_the_queue_by_keyboard_until_an_incident_is_confirmed(
    log_in: LogIn, pages: Pages, tmp_path_factory: pytest.TempPathFactory
) -> None:
    world = copy_filled(tmp_path_factory.mktemp("world"), reviewed=False)[1]
    cluster = set(world.clusters[0])
    for name in ("reviewer", "second"):
        page = log_in(name)
        page.goto("/review?q=bad.example")
        rows = page.locator("section.table tbody tr")
        page.keyboard.press("c")  # without a row: nothing
        expect(page.get_by_text("Your last answer")).to_have_count(0)
        before = rows.count()
        answered = 0
        place = page.locator("tbody tr").evaluate_all(
            "(rows, names) => rows.findIndex((row) => names.some((name) => row.innerHTML.includes(name)))",
            [each.hex() for each in cluster],
        )
        for _ in range(place + 1):
            page.keyboard.press("j")
        focused = page.locator("tbody tr:focus")
        expect(focused).to_have_count(1)
        following = rows.nth(place + 1).locator("[data-opens]").inner_text()
        page.keyboard.press("c")
        page.wait_for_url("**at=*")
        answered += 1
        expect(page.get_by_role("status")).to_contain_text("3 images confirmed")
        expect(rows).to_have_count(before - answered)
        expect(focused).to_have_count(1)
        assert focused.locator("[data-opens]").inner_text() == following, "the focus is on the next row"
        with page.expect_navigation():  # until the new page has loaded, nothing listens for keys
            page.keyboard.press("u")
        expect(page.get_by_role("status")).to_contain_text("unsure")
        page.keyboard.press("z")
        page.get_by_text("Your last answer was taken back").wait_for()
        expect(rows).to_have_count(before - answered)
        expect(page.get_by_role("status").last).to_contain_text("3 images confirmed")
    assert {outcome(pages, each) for each in cluster} == {Outcome.CONFIRMED}
    page.goto("/reviewed")
    expect(page.locator("tbody tr").first).to_contain_text("confirmed")


def test_rows_are_selected_and_answered_together_by_keyboard(log_in: LogIn) -> None:
    page = log_in("reviewer")
    page.goto("/review?q=hostile")
    rows = page.locator("section.table tbody tr")
    before = rows.count()
    for _ in range(3):
        page.keyboard.press("j")
        page.keyboard.press("x")
    expect(page.locator("tbody input:checked")).to_have_count(3)
    page.get_by_label("Note").fill("drawings")
    page.keyboard.press("Enter")  # answers nothing
    expect(rows).to_have_count(before)
    page.locator(".bulk").get_by_role("button", name="Unsure").click()
    expect(rows).to_have_count(before - 3)
    expect(page.get_by_role("status")).to_contain_text("3 images unsure")


def test_the_queue_works_without_scripts(log_in: LogIn) -> None:
    page = log_in("reviewer", java_script_enabled=False)
    page.goto("/review?q=flooded")
    rows = page.locator("section.table tbody tr")
    before = rows.count()
    rows.first.get_by_role("button", name="Dismiss").click()
    expect(rows).to_have_count(before - 1)
    page.get_by_role("button", name="Undo").click()
    expect(rows).to_have_count(before)
    rows.first.locator("[data-opens]").click()
    page.get_by_role("button", name="Unsure").click()
    expect(page.get_by_role("status")).to_contain_text("unsure")


@pytest.mark.long
def test_its_pages_look_right_everywhere(log_in: LogIn, photograph: Callable[[Page, str], None]) -> None:
    from tests.browser.contrast import check_contrast

    for look, options in LOOKS.items():
        page = log_in("admin" if look.startswith("phone") else "reviewer", **options)
        for name, path in (
            ("review", "/review"),
            ("review-bad", "/review?q=bad.example&at=1"),
            ("reviewed", "/reviewed"),
            ("image", ""),
        ):
            if path:
                page.goto(path)
            else:
                page.goto("/review?q=bad.example")
                page.locator("[data-opens]").first.click()
            photograph(page, f"{name}-{look}")
            assert page.evaluate(OVERFLOW) == [], f"{look} {path}"
            assert page.evaluate(UNLABELLED) == [], f"{look} {path}"
            assert page.evaluate(SMALL) == [], f"{look} {path}"
            check_contrast(page, f"{look} {path}")
