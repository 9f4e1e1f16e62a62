"""Overview and instances in a browser: the funnel by keyboard, colours, widths; and pictures of the pages."""

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page, expect

from federation_audit.pages.service import Pages
from tests.browser.contrast import TEXTS, contrast, parse_colour
from tests.browser.test_looks import DESK, LOOKS, OVERFLOW, UNLABELLED
from tests.pages import running_pages

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]

PATHS = {
    "overview": "/overview",
    "instances": "/instances",
    "instance": "/instances/bad.example",
    "instance-hostile": "/instances/hostile.example",
    "instance-host": "/instances/pixhost.example",
    "instance-rows": "/instances/bad.example/exposure",
    "instance-unknown": "/instances/nowhere.example",
}
NARROW = {"width": 390, "height": 780}

# What is drawn, with its own colour and that of the nearest ground behind it.
DRAWN = """() => {
  const clear = (colour) => colour === 'transparent' || /, 0\\)$|\\/ 0\\)$/.test(colour);
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (!clear(colour)) return colour;
    }
    return 'rgb(255, 255, 255)';
  };
  const found = [];
  for (const each of document.querySelectorAll('.plot text'))
    found.push(['text ' + each.textContent, getComputedStyle(each).fill, ground(each), 4.5]);
  for (const each of document.querySelectorAll('.plot .point, .plot .bars, .plot .spot'))
    found.push([each.getAttribute('class'), getComputedStyle(each).fill, ground(each), 3]);
  for (const each of document.querySelectorAll('.plot .bound, .plot .usual, .plot .course, .plot .limit'))
    found.push([each.getAttribute('class'), getComputedStyle(each).stroke, ground(each), 3]);
  return found;
}"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    """Pages over the invented fediverse."""
    with running_pages(tmp_path_factory.mktemp("pages"), filled=True) as pages:
        yield pages


@pytest.mark.long
def test_plots_and_texts_can_be_told_from_their_ground_in_both_looks(log_in: Callable[..., Page]) -> None:
    for look in ("light", "dark"):
        page = log_in("viewer", **LOOKS[look])
        for path in PATHS.values():
            page.goto(path)
            drawn = page.evaluate(DRAWN)
            assert (
                drawn or path in ("/instances/pixhost.example", "/instances/bad.example/exposure") or "nowhere" in path
            )
            for what, colour, ground, least in drawn:
                ratio = contrast(parse_colour(colour), parse_colour(ground))
                assert ratio >= least, f"{look} {path}: {what} {colour} on {ground} is {ratio:.2f}"
            for text, colour, ground, size, _ in page.evaluate(TEXTS):
                if colour.startswith("rgb") and size:
                    ratio = contrast(parse_colour(colour), parse_colour(ground))
                    assert ratio >= 4.5, f"{look} {path}: {text!r} {colour} on {ground} is {ratio:.2f}"


@pytest.mark.long
def test_nothing_scrolls_sideways(log_in: Callable[..., Page], photograph: Callable[[Page, str], None]) -> None:
    for look, options in LOOKS.items():
        width = NARROW if "phone" in look else DESK
        page = log_in("viewer", **(options | {"viewport": width}))
        for name, path in PATHS.items():
            page.goto(path)
            photograph(page, f"{name}-{look}")
            assert page.evaluate(OVERFLOW) == [], f"{look} {path}"
            assert page.evaluate(UNLABELLED) == [], f"{look} {path}"
            expect(page.locator("h1")).to_have_count(1)
            ids = page.evaluate("() => [...document.querySelectorAll('[id]')].map((each) => each.id)")
            assert len(ids) == len(set(ids)), f"{path}: {sorted(ids)}"


def test_the_funnel_is_worked_by_keyboard_alone(log_in: Callable[..., Page]) -> None:
    page = log_in("viewer", viewport=DESK)
    page.goto("/instances")
    page.get_by_role("link", name="Past the plot, to the table").focus()
    names = []
    for _ in range(60):
        page.keyboard.press("Tab")
        inside = page.evaluate("() => !!document.activeElement.closest('.funnel')")
        if not inside:
            break
        name = page.evaluate("() => document.activeElement.getAttribute('aria-label')")
        outline = page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid", name
        names.append(name)
    # The gravest comes last, and lies on top.
    assert names[-1].startswith("bad.example: recommend, ") and "flagged of" in names[-1]
    assert len(names) == len(set(names)) > 20
    expect(page.get_by_role("link", name=names[-1])).to_have_count(1)
    page.get_by_role("link", name=names[-1]).focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/instances/bad.example")
    page.go_back()
    page.get_by_role("link", name="Past the plot, to the table").press("Enter")
    assert page.evaluate("() => location.hash") == "#rows"


def test_from_the_table_to_an_instance_and_down_to_its_rows_by_keyboard(log_in: Callable[..., Page]) -> None:
    page = log_in("reviewer", viewport=DESK)
    page.goto("/instances")
    page.keyboard.press("j")
    assert "bad.example" in page.locator("tbody tr:focus").inner_text()
    page.keyboard.press("Enter")
    page.wait_for_url("**/instances/bad.example")
    page.get_by_role("row", name="Confirmed incidents").get_by_role("link", name="incidents").click()
    page.wait_for_url("**/instances/bad.example/incidents")
    expect(page.locator("h1")).to_have_text("Incidents of bad.example")


def test_hostile_addresses_do_nothing_but_stand_there(log_in: Callable[..., Page]) -> None:
    page = log_in("viewer", viewport=DESK)
    page.goto("/instances/hostile.example/incidents")
    expect(page.locator("td img, td script")).to_have_count(0)
    links = page.locator("td a.outside").evaluate_all("all => all.map((each) => [each.protocol, each.rel])")
    assert links and all(scheme == "https:" and "noreferrer" in rel for scheme, rel in links)
    assert page.locator("td", has_text="javascript:alert").count() >= 1
