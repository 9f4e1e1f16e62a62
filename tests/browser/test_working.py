"""The pages as people use them: by keyboard, without scripts, and when somebody means harm."""

import http.server
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from federation_audit.accounts.attempts import ACCOUNT_MOST
from federation_audit.accounts.roles import Role
from federation_audit.pages.service import Pages
from tests.pages import TEST, WORDS

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]

OpenContext = Callable[..., BrowserContext]
LogIn = Callable[..., Page]


def test_one_logs_in_and_works_a_table_by_keyboard_alone(open_context: OpenContext) -> None:
    page = open_context().new_page()
    page.goto("/login")
    expect(page.get_by_label("Name")).to_be_focused()  # a browser sees to autofocus after the page has loaded
    page.keyboard.type("viewer")
    page.keyboard.press("Tab")
    page.keyboard.type(WORDS)
    page.keyboard.press("Enter")
    page.wait_for_url("**/overview")
    page.goto("/style")
    page.keyboard.press("j")
    page.keyboard.press("j")
    row = page.locator("tbody tr:focus")
    expect(row).to_have_count(1)
    name = row.locator("a").first.inner_text()
    page.keyboard.press("k")
    assert row.locator("a").first.inner_text() != name
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/style?q={name}")
    page.keyboard.press("/")
    expect(page.get_by_label("Domain contains")).to_be_focused()
    page.keyboard.type("calm")  # letters in a field are letters
    page.keyboard.press("Enter")
    page.wait_for_url("**/style?q=calm&**")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog", name="Keys")).to_be_hidden()


def test_the_skip_link_is_the_first_stop_and_leads_to_the_content(log_in: LogIn) -> None:
    page = log_in("viewer")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="To the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()


def test_single_keys_can_be_switched_off(log_in: LogIn) -> None:
    page = log_in("viewer")
    page.goto("/account")
    page.get_by_role("button", name="Switch single keys off").click()
    page.get_by_role("button", name="Switch single keys on").wait_for()
    page.goto("/style")
    page.keyboard.press("j")
    expect(page.locator("tbody tr:focus")).to_have_count(0)


def test_a_wrong_password_is_told_and_too_many_are_held_back(open_context: OpenContext, pages: Pages) -> None:
    pages.site.users.add("target", Role.VIEWER, WORDS, by=TEST, must_change=False)
    page = open_context().new_page()
    page.goto("/login")
    for _ in range(ACCOUNT_MOST):
        page.get_by_label("Name").fill("target")
        page.get_by_label("Password").fill("not the right words")
        with page.expect_response("**/login") as answered:
            page.get_by_role("button", name="Log in").click()
        assert answered.value.status == 403
        expect(page.get_by_role("alert")).to_have_text("Name and password do not match.")
        assert page.get_by_label("Name").input_value() == "target"
    page.get_by_label("Password").fill(WORDS)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_contain_text("Too many wrong passwords")


@contextmanager
def foreign_site(body: str) -> Iterator[str]:
    """Another site, on another port: a page that sends a form to us."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join(60)
        server.server_close()


def test_a_form_of_another_site_does_nothing(log_in: LogIn, pages: Pages) -> None:
    page = log_in("admin")
    form = (
        f"<form method=post action='{pages.url}/users'><input name=name value=mallory>"
        "<input name=role value=admin><button>Win a prize</button></form>"
    )
    # The same host on another port: browsers count it as the same site and send the cookie along.
    with foreign_site(form) as url:
        page.goto(url)
        with page.expect_response("**/users") as answered:
            page.get_by_role("button").click()
        assert answered.value.status == 403
        assert "fediwarden-session" in answered.value.request.all_headers().get("cookie", "")
        expect(page.locator("main")).to_contain_text("sent from another site")
    assert "mallory" not in {user.name for user in pages.site.users.all()}


def test_our_pages_cannot_be_framed(log_in: LogIn, pages: Pages) -> None:
    page = log_in("viewer")
    page.set_default_timeout(60_000)
    answer = page.request.get("/style")
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["x-frame-options"] == "DENY"


def test_a_viewer_sees_no_admin_pages(log_in: LogIn) -> None:
    page = log_in("viewer")
    links = page.get_by_role("navigation", name="Pages").get_by_role("link").all_inner_texts()
    assert links[:2] == ["Overview", "Instances"] and not {"Users", "Actions"} & set(links)
    for path in ("/users", "/actions"):
        answer = page.goto(path)
        assert answer is not None and answer.status == 403
        expect(page.locator("h1")).to_have_text("Not allowed")


def test_the_logout_kills_the_session_and_back_shows_nothing(log_in: LogIn) -> None:
    page = log_in("viewer")
    kept = page.context.cookies()
    page.get_by_role("button", name="Log out").click()
    page.get_by_text("You are logged out").wait_for()
    page.go_back()
    page.wait_for_url("**/login**")
    page.context.add_cookies(kept)  # type: ignore[arg-type]
    page.goto("/style")
    page.wait_for_url("**/login**")


def test_all_of_it_works_without_scripts(log_in: LogIn) -> None:
    page = log_in("admin", java_script_enabled=False)
    page.goto("/style")
    expect(page.get_by_role("button", name="Keys")).to_have_count(0)
    page.get_by_role("link", name="Images").click()
    expect(page.locator("th[aria-sort=descending]")).to_have_text(re.compile("^Images"))
    page.get_by_label("Level").select_option("watch")
    page.get_by_role("button", name="Show").click()
    page.wait_for_url("**level=watch**")
    expect(page.locator("tbody tr")).to_have_count(1)
    page.get_by_role("link", name="Clear").click()
    page.get_by_role("link", name="Users").click()
    page.get_by_role("link", name="viewer", exact=True).click()
    expect(page.locator("h1")).to_have_text("User viewer")
    page.get_by_role("button", name="Remove").click()  # without the tick: the browser itself holds it back
    expect(page.locator("h1")).to_have_text("User viewer")
    page.get_by_role("button", name="Log out").click()
    expect(page.locator("h1")).to_have_text("Log in")


def test_hostile_names_do_nothing_but_stand_there(log_in: LogIn) -> None:
    page = log_in("viewer")
    page.goto("/style")
    expect(page.locator("td b")).to_have_count(0)
    turned = page.locator("bdi.said", has_text="turned round")
    assert turned.locator(".unseen").first.get_attribute("title") == "right-to-left override"
    heights = page.locator("tbody tr").evaluate_all("rows => rows.map((row) => row.getBoundingClientRect().height)")
    assert max(heights) < 120


def test_on_paper_there_are_the_rows_and_no_buttons(log_in: LogIn) -> None:
    page = log_in("viewer")
    page.goto("/style")
    page.emulate_media(media="print")
    expect(page.get_by_role("button", name="Show")).to_be_hidden()
    expect(page.locator("tbody tr").first).to_be_visible()
