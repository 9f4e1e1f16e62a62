"""How the pages look: colours that can be told apart, labels, focus, widths; and pictures of each page."""

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.contrast import check_contrast, contrast, parse_colour
from tests.pages import WORDS

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]

PATHS = (
    "/style",
    "/overview",
    "/instances",
    "/rescans",
    "/account",
    "/users",
    "/users/viewer",
    "/actions",
    "/nowhere",
)
PHONE = {"width": 360, "height": 740}
DESK = {"width": 1280, "height": 800}
LOOKS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light", "viewport": DESK},
    "dark": {"color_scheme": "dark", "viewport": DESK},
    "phone": {"color_scheme": "light", "viewport": PHONE, "has_touch": True},
    "phone-dark": {"color_scheme": "dark", "viewport": PHONE, "has_touch": True},
}

# Every piece of text with the colours it really has: its own, and the nearest ground behind it.
UNLABELLED = """() => [...document.querySelectorAll('input:not([type=hidden]), select, textarea')]
  .filter((field) => !field.labels || !field.labels.length || !field.labels[0].textContent.trim())
  .map((field) => field.outerHTML)"""

OVERFLOW = """() => {
  const width = document.documentElement.clientWidth;
  return [document.documentElement.scrollWidth > width ? 'page' : '', ...[...document.querySelectorAll('body *')]
    .filter((each) => each.checkVisibility() && each.getBoundingClientRect().right > width + 1
      && !each.closest('.scroll') && getComputedStyle(each).position !== 'absolute')
    .map((each) => each.outerHTML.slice(0, 120))].filter(Boolean);
}"""

SMALL = """() => [...document.querySelectorAll('button, summary, nav a, .choice')]
  .filter((each) => each.checkVisibility() && each.getBoundingClientRect().height < 24)
  .map((each) => each.outerHTML.slice(0, 120))"""


@pytest.mark.long
def test_texts_and_edges_of_every_page_have_the_contrast_of_wcag_aa(log_in: Callable[..., Page]) -> None:
    for look in ("light", "dark"):
        page = log_in("admin", **LOOKS[look])
        for path in (*PATHS, "/login"):
            if path == "/login":
                page.context.clear_cookies()
            page.goto(path)
            assert check_contrast(page, f"{look} {path}") > 8


@pytest.mark.long
def test_no_page_scrolls_sideways_and_every_field_has_a_label(
    log_in: Callable[..., Page], photograph: Callable[[Page, str], None]
) -> None:
    for look, options in LOOKS.items():
        page = log_in("admin", **options)
        for path in (*PATHS, "/login"):
            if path == "/login":
                page.context.clear_cookies()
            page.goto(path)
            photograph(page, f"{path.strip('/').replace('/', '-')}-{look}")
            assert page.evaluate(OVERFLOW) == [], f"{look} {path}"
            assert page.evaluate(UNLABELLED) == [], f"{look} {path}"
            assert page.evaluate(SMALL) == [], f"{look} {path}"
            expect(page.locator("h1")).to_have_count(1)


def test_at_400_per_cent_and_at_tablet_width_nothing_is_cut_off(log_in: Callable[..., Page]) -> None:
    page = log_in("admin")
    for width in (320, 740, 900):
        page.set_viewport_size({"width": width, "height": 700})
        for path in PATHS:
            page.goto(path)
            assert page.evaluate(OVERFLOW) == [], f"{width} {path}"


def test_whatever_tab_reaches_shows_that_it_has_the_focus(log_in: Callable[..., Page]) -> None:
    for look in ("light", "dark"):
        page = log_in("admin", **LOOKS[look])
        page.goto("/users")
        reached = 0
        for _ in range(60):
            page.keyboard.press("Tab")
            style = page.evaluate(
                """() => {
                  const element = document.activeElement;
                  if (element === document.body) return null;
                  const style = getComputedStyle(element);
                  return [element.outerHTML.slice(0, 80), style.outlineStyle, parseFloat(style.outlineWidth),
                          style.outlineColor, getComputedStyle(document.body).backgroundColor];
                }"""
            )
            if style is None:
                break
            html, outline, width, colour, ground = style
            assert outline == "solid" and width >= 2, html
            assert contrast(parse_colour(colour), parse_colour(ground)) >= 3, html
            reached += 1
        assert reached > 15


def test_the_switch_of_colours_works_without_scripts_and_stays(log_in: Callable[..., Page]) -> None:
    page = log_in("viewer", color_scheme="light", java_script_enabled=False)
    ground = page.locator("body")

    def colour() -> str:
        return str(ground.evaluate("element => getComputedStyle(element).backgroundColor"))

    light = colour()
    page.get_by_role("button", name="dark").click()
    expect(page.locator("html[data-look=dark]")).to_have_count(1)
    dark = colour()
    assert contrast(parse_colour(light), parse_colour(dark)) > 10
    page.goto("/account")
    assert colour() == dark
    page.get_by_role("button", name="as the system").click()
    expect(page.locator("html[data-look=auto]")).to_have_count(1)
    assert colour() == light


def test_a_first_password_is_shown_once_and_has_to_be_changed(
    log_in: Callable[..., Page], photograph: Callable[[Page, str], None]
) -> None:
    page = log_in("admin", viewport=DESK)
    page.goto("/users")
    page.get_by_label("Name", exact=True).fill("newcomer")
    page.get_by_role("radio", name="reviewer").check()
    page.get_by_role("button", name="Add", exact=True).click()
    first = page.locator(".secret code").inner_text()
    photograph(page, "first-password-light")
    page.get_by_role("button", name="Log out").click()
    page.get_by_label("Name").fill("newcomer")
    page.get_by_label("Password").fill(first)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url("**/account")
    page.goto("/style")
    page.wait_for_url("**/account")
    photograph(page, "must-change-light")
    page.get_by_label("Password until now").fill(first)
    page.get_by_label("New password", exact=True).fill(WORDS)
    page.get_by_label("New password again").fill(WORDS)
    page.get_by_role("button", name="Change the password").click()
    page.get_by_text("Your password was changed").wait_for()
    page.goto("/style")
    expect(page.locator("h1")).to_have_text("Building blocks")
