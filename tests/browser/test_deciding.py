"""An admin goes from a recommendation to a decision, takes the blocklist away, and sends a report."""

import csv
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from aiosmtpd.controller import Controller
from playwright.sync_api import Page, expect

from federation_audit.pages.service import Pages
from federation_audit.pages.site import Surroundings
from federation_audit.settings import AuditSettings
from tests.browser.contrast import check_contrast
from tests.browser.test_looks import LOOKS, OVERFLOW, SMALL, UNLABELLED
from tests.fediverse import LIST, RULES
from tests.kafka import find_free_ports
from tests.pages import running_pages
from tests.unit.federation_audit.sides import LemmyOld
from tests.unit.federation_audit.test_mail import Letterbox, parsed

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]

LogIn = Callable[..., Page]
Photograph = Callable[[Page, str], None]


@pytest.fixture(scope="module")
def letterbox() -> Letterbox:
    return Letterbox()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, letterbox: Letterbox) -> Iterator[Pages]:
    """Pages over the invented fediverse, with a mail server and a Lemmy on loopback."""
    port = find_free_ports(1)
    controller = Controller(letterbox, hostname="127.0.0.1", port=port, ready_timeout=60)
    controller.start()
    with LemmyOld(["kept.example"]).running() as lemmy:
        audit = AuditSettings.model_validate(
            {
                "verified_lists": [LIST.partition("@")[0]],
                "mail": {"host": "127.0.0.1", "port": port, "security": "none", "sender": "abuse@my.example"},
                "targets": {"answer_within_s": 100, "lemmy": {"address": lemmy.url, "token": LemmyOld.jwt}},
            }
        )
        known = Surroundings(audit=audit, sentences=RULES, tenant_domains={"default": "my.example"})
        with running_pages(tmp_path_factory.mktemp("pages"), filled=True, surroundings=known) as running:
            yield running
    controller.stop()


def test_from_a_recommendation_to_a_decision_a_blocklist_and_a_report(
    log_in: LogIn, photograph: Photograph, letterbox: Letterbox, tmp_path: Path
) -> None:
    page = log_in("admin", **LOOKS["light"])
    page.goto("/decisions")
    photograph(page, "decisions-before-light")
    page.get_by_role("link", name="3 waiting").click()
    page.wait_for_url("**/decisions?state=waiting")
    page.keyboard.press("j")
    expect(page.locator("tbody tr:focus")).to_contain_text("bad.example")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("bad.example")
    expect(page.locator(".mark.bad").first).to_have_text("recommend")
    page.get_by_role("radio", name="defederate").check()
    page.get_by_label("Reason").fill("Seven weeks, five accounts, and nobody answers.")
    assert page.get_by_label("For how many days").input_value() == "90"
    page.get_by_role("button", name="Decide", exact=True).click()
    expect(page.get_by_role("status")).to_contain_text("Nothing was blocked or sent by it")
    page.get_by_label("An address you know").fill("abuse@bad.example")
    page.get_by_role("button", name="Keep it").first.click()
    page.get_by_label("A note").fill("Asked the admins of oak.example: they see it too.")
    page.locator("section", has=page.get_by_label("A note")).get_by_role("button", name="Keep it").click()
    expect(page.get_by_text("they see it too")).to_be_visible()

    page.get_by_role("link", name="Exports").first.click()
    with page.expect_download() as downloading:
        page.locator("li", has_text="Mastodon, domain blocks").get_by_role("link", name="Download").click()
    taken = tmp_path / downloading.value.suggested_filename
    downloading.value.save_as(taken)
    assert taken.name == "mastodon-domain-blocks.csv"
    with taken.open(newline="") as file:
        assert [(row["#domain"], row["#severity"]) for row in csv.DictReader(file)] == [("bad.example", "suspend")]

    page.goto("/decisions/bad.example")
    page.get_by_role("link", name="Report to its admins").click()
    expect(page.locator("pre.paper")).to_contain_text("we run my.example")
    assert page.get_by_label("To", exact=True).input_value() == "abuse@bad.example"
    page.get_by_role("button", name="Show the mail").click()
    expect(page.get_by_text("Nothing has left yet")).to_be_visible()
    photograph(page, "plan-mail-light")
    shown = page.get_by_label("Text of the mail").inner_text()
    assert letterbox.letters == []
    page.get_by_role("button", name="Send this mail").click()
    page.wait_for_url("**/sent/*")
    expect(page.locator(".mark.good")).to_have_text("accepted")
    (letter,) = letterbox.letters
    body = parsed(letter).get_body(("plain",))
    assert body is not None and body.get_content().replace("\r\n", "\n").strip() == shown.strip()
    page.goto("/decisions/bad.example")
    expect(page.get_by_text("mail to abuse@bad.example", exact=True)).to_be_visible()


def test_the_difference_at_a_lemmy_is_shown_before_it_is_made(log_in: LogIn, photograph: Photograph) -> None:
    page = log_in("admin", java_script_enabled=False, **LOOKS["light"])
    page.goto("/decisions/bad.example/send")
    page.get_by_role("button", name="Show the difference at Lemmy").click()
    expect(page.get_by_text("the 1 present blocks stay as they are", exact=True)).to_be_visible()
    photograph(page, "plan-lemmy-light")
    page.get_by_role("button", name="Send this").click()
    expect(page.locator(".mark.good")).to_have_text("accepted")
    page.goto("/decisions/bad.example/send")
    page.get_by_role("button", name="Show the difference at Lemmy").click()
    expect(page.get_by_role("alert")).to_contain_text("blocks all of these already")


PATHS = (
    "/decisions",
    "/decisions/raid.example",
    "/decisions/bad.example",
    "/decisions/hostile.example",
    "/decisions/bad.example/report",
    "/decisions/fir.example/report",
    "/decisions/bad.example/send",
    "/exports",
    "/sent",
)


@pytest.mark.long
def test_the_pages_fit_are_labelled_and_can_be_read(log_in: LogIn, photograph: Photograph) -> None:
    looks = dict(LOOKS, phone={**LOOKS["phone"], "viewport": {"width": 390, "height": 844}})
    page = log_in("admin", **LOOKS["light"])
    page.goto("/decisions/bad.example")  # so that something was sent, whichever tests ran before
    page.get_by_label("An address you know").fill("abuse@bad.example")
    page.get_by_role("button", name="Keep it").first.click()
    page.goto("/decisions/bad.example/report")
    page.get_by_role("button", name="Show the mail").click()
    page.get_by_role("button", name="Send this mail").click()
    page.wait_for_url("**/sent/*")
    for look, options in looks.items():
        page = log_in("admin", **options)
        for path in (*PATHS, "sent-one"):
            if path == "sent-one":
                page.goto("/sent")
                page.locator("[data-opens]").first.click()
                page.wait_for_url("**/sent/*")
            else:
                page.goto(path)
            photograph(page, f"{path.strip('/').replace('/', '-')}-{look}")
            assert page.evaluate(OVERFLOW) == [], f"{look} {path}"
            assert page.evaluate(UNLABELLED) == [], f"{look} {path}"
            assert page.evaluate(SMALL) == [], f"{look} {path}"
            expect(page.locator("h1")).to_have_count(1)
            check_contrast(page, f"{look} {path}")


def test_a_viewer_sees_what_was_decided_and_no_buttons(log_in: LogIn, photograph: Photograph) -> None:
    page = log_in("viewer", **LOOKS["light"])
    for path in ("/decisions/bad.example", "/decisions/bad.example/report", "/exports"):
        page.goto(path)
        expect(page.locator("main button.main")).to_have_count(0)
        expect(page.locator("main textarea")).to_have_count(0)
    page.goto("/decisions/bad.example")
    photograph(page, "decision-viewer-light")
