"""The pages over HTTP, from a real port."""

import asyncio
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from federation_audit.accounts.attempts import ACCOUNT_MOST
from federation_audit.accounts.roles import Role
from federation_audit.pages.service import CannotServe, Pages
from federation_audit.pages.settings import PagesSettings
from tests.pages import TEST, WORDS, running_pages
from tests.stores import open_store, sqlite_url

LogIn = Callable[[str], "Visitor"]


class Visitor:
    """A browser without a screen: keeps cookies, sends the page's token along."""

    def __init__(self, url: str) -> None:
        self.http = httpx.Client(base_url=url, timeout=120)
        self.token = ""

    def get(self, path: str, **options: Any) -> httpx.Response:
        answer = self.http.get(path, **options)
        if found := re.search(r'name="csrf" value="([^"]+)"', answer.text):
            self.token = found[1]
        return answer

    def post(self, path: str, data: dict[str, str] | None = None, **options: Any) -> httpx.Response:
        return self.http.post(path, data={"csrf": self.token} | (data or {}), **options)

    def log_in(self, name: str, password: str = WORDS) -> httpx.Response:
        self.get("/login")
        return self.post("/login", {"name": name, "password": password})


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    with running_pages(tmp_path_factory.mktemp("pages")) as pages:
        yield pages


@pytest.fixture
def visitor(pages: Pages) -> Iterator[Visitor]:
    visitor = Visitor(pages.url)
    yield visitor
    visitor.http.close()


@pytest.fixture
def log_in(pages: Pages) -> Iterator[LogIn]:
    visitors: list[Visitor] = []

    def log_in_as(name: str) -> Visitor:
        visitor = Visitor(pages.url)
        visitors.append(visitor)
        assert visitor.log_in(name).status_code == 303
        visitor.get("/account")
        return visitor

    yield log_in_as
    for visitor in visitors:
        visitor.http.close()


def test_who_is_not_logged_in_is_sent_to_the_login_and_back(visitor: Visitor) -> None:
    answer = visitor.get("/actions?who=ada")
    assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=/actions%3Fwho%3Dada")
    assert visitor.get("/actions?format=json").status_code == 401
    visitor.get(answer.headers["location"])
    back = visitor.post("/login", {"name": "admin", "password": WORDS, "next": "/actions?who=ada"})
    assert back.headers["location"] == "/actions?who=ada"
    evil = visitor.post("/login", {"name": "admin", "password": WORDS, "next": "//evil.example"})
    assert evil.status_code == 403  # the token was for the visitor who was not logged in


def test_where_nobody_has_an_account_yet_the_login_says_how_to_make_one(
    visitor: Visitor, tmp_path_factory: pytest.TempPathFactory
) -> None:
    remedy = "<code>fediwarden users add NAME --role admin</code>"
    assert remedy not in visitor.get("/login").text
    with running_pages(tmp_path_factory.mktemp("nobody"), accounts=False) as pages:
        newcomer = Visitor(pages.url)
        page = newcomer.get("/login").text
        assert "There is no account yet" in page and remedy in page
        assert "Forgotten?" not in page
        refused = newcomer.log_in("admin")
        assert refused.status_code == 403 and remedy in refused.text
        pages.site.users.add("ada", Role.ADMIN, WORDS, by=TEST, must_change=False)
        assert remedy not in newcomer.get("/login").text
        newcomer.http.close()


def test_the_start_page_is_the_first_that_the_role_may_see(log_in: LogIn) -> None:
    assert log_in("viewer").get("/").headers["location"] == "/overview"


@pytest.mark.parametrize("name", ["viewer", "reviewer"])
def test_only_admins_see_and_change_users_and_the_log(log_in: LogIn, pages: Pages, name: str) -> None:
    visitor = log_in(name)
    for path in ("/users", "/users/viewer", "/actions", "/actions?format=csv"):
        assert visitor.get(path).status_code == 403, path
    visitor.get("/account")
    assert "/users" not in visitor.get("/account").text
    for path, data in (
        ("/users", {"name": "mallory", "role": "admin"}),
        (f"/users/{name}/role", {"role": "admin"}),
        ("/users/admin/remove", {"sure": "yes"}),
        ("/users/admin/password", {}),
    ):
        assert visitor.post(path, data).status_code == 403, path
    assert pages.site.users.find(name).role.value == name


def test_every_answer_carries_the_headers_that_keep_browsers_in_check(visitor: Visitor) -> None:
    for path in ("/login", "/users", "/nowhere", "/static/0/style.css", "/healthz"):
        headers = visitor.get(path).headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'") and "unsafe" not in policy and "frame-ancestors 'none'" in policy
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "same-origin"
        assert "server" not in headers
    style = re.search(r'href="(/static/[0-9a-f]+/style\.css)"', visitor.get("/login").text)
    assert style and "immutable" in visitor.get(style[1]).headers["cache-control"]


def test_the_cookie_is_for_this_site_alone_and_unreadable_to_scripts(visitor: Visitor) -> None:
    cookies = visitor.log_in("viewer").headers.get_list("set-cookie")
    session = next(each for each in cookies if "session=" in each)
    assert "HttpOnly" in session and "SameSite=Strict" in session and "Path=/" in session and "Max-Age" not in session


def test_a_form_without_its_token_or_from_elsewhere_does_nothing(log_in: LogIn, pages: Pages) -> None:
    visitor, other = log_in("admin"), log_in("viewer")
    sent = {"name": "mallory", "role": "admin"}
    for options in (
        {"data": sent},
        {"data": sent | {"csrf": other.token}},
        {"data": sent | {"csrf": visitor.token[:-1]}},
        {"data": sent | {"csrf": visitor.token}, "headers": {"origin": "https://evil.example"}},
        {"data": sent | {"csrf": visitor.token}, "headers": {"origin": "null"}},
        {"data": sent | {"csrf": visitor.token}, "headers": {"sec-fetch-site": "cross-site"}},
        {"data": sent | {"csrf": visitor.token}, "headers": {"sec-fetch-site": "same-site"}},
    ):
        answer = visitor.http.post("/users", **options)  # type: ignore[arg-type]
        assert answer.status_code == 403 and "nothing was done" in answer.text
    assert visitor.http.post("/users", json=sent | {"csrf": visitor.token}).status_code == 415
    assert "mallory" not in {user.name for user in pages.site.users.all()}


def test_a_name_from_elsewhere_that_resolves_to_us_is_refused(visitor: Visitor) -> None:
    assert visitor.get("/login", headers={"host": "evil.example"}).status_code == 421
    assert visitor.get("/login", headers={"host": "localhost:8080"}).status_code == 200  # a tunnel


def test_a_form_that_is_too_large_is_refused_unread(log_in: LogIn) -> None:
    visitor = log_in("viewer")
    answer = visitor.post("/account/password", {"current": "x" * 300_000})
    assert answer.status_code == 413 and "audit.pages.max_body_kb" in answer.text

    def endless() -> Iterator[bytes]:
        for _ in range(40):
            yield b"a=" + b"x" * 10_000 + b"&"

    headers = {"content-type": "application/x-www-form-urlencoded"}
    assert visitor.http.post("/account/password", content=endless(), headers=headers).status_code == 413


@pytest.mark.parametrize("body", [b"csrf=\xff", b"&".join(b"a=1" for _ in range(6_000))])
def test_a_form_that_cannot_be_read_is_refused(log_in: LogIn, body: bytes) -> None:
    headers = {"content-type": "application/x-www-form-urlencoded"}
    answer = log_in("viewer").http.post("/account/password", content=body, headers=headers)
    assert answer.status_code in (403, 422)


def test_failures_say_what_to_do_as_a_page_and_as_json(log_in: LogIn) -> None:
    visitor = log_in("viewer")
    page = visitor.get("/nowhere")
    assert page.status_code == 404 and "There is no such page" in page.text
    assert visitor.get("/nowhere?format=json").json()["error"] == "This is not here"
    wrong = visitor.http.request("PUT", "/style", data={"csrf": visitor.token})
    assert wrong.status_code == 405


def test_what_breaks_is_answered_and_shows_nothing_of_itself(
    pages: Pages, log_in: LogIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    visitor = log_in("admin")

    def explode() -> None:
        raise RuntimeError("the secret of the database")

    monkeypatch.setattr(pages.site.users, "all", explode)
    with capture_logs() as logged:  # without it structlog's own console writes every local variable, for minutes
        answer = visitor.get("/users")
        until = time.monotonic() + 60
        while not logged and time.monotonic() < until:  # it is logged when the answer is on its way
            time.sleep(0.01)
    assert [(each["event"], each["page"]) for each in logged] == [("a page failed", "/users")]
    assert answer.status_code == 500 and "Something broke here" in answer.text
    assert "secret" not in answer.text and "Traceback" not in answer.text
    assert answer.headers["content-security-policy"]


def test_after_the_logout_the_session_is_dead(pages: Pages, log_in: LogIn) -> None:
    visitor = log_in("viewer")
    kept = dict(visitor.http.cookies)
    assert visitor.post("/logout").headers["location"] == "/login?said=logout"
    thief = httpx.get(f"{pages.url}/style", cookies=kept)
    assert thief.status_code == 303


def test_one_logs_out_everywhere_else(log_in: LogIn) -> None:
    here, there = log_in("reviewer"), log_in("reviewer")
    here.post("/account/elsewhere")
    assert there.get("/style").status_code == 303 and here.get("/style").status_code == 200


def test_too_many_wrong_passwords_are_answered_with_429(pages: Pages, visitor: Visitor) -> None:
    pages.site.users.add("target", Role.VIEWER, WORDS, by=TEST, must_change=False)
    for _ in range(ACCOUNT_MOST):
        wrong = visitor.log_in("target", "not the right one")
        assert wrong.status_code == 403 and "do not match" in wrong.text
    held = visitor.log_in("target")
    assert held.status_code == 429 and int(held.headers["retry-after"]) > 0
    # An admin helps; what the others did not do does not hold them back.
    pages.site.users.set_password("target", WORDS, by=TEST, must_change=False)
    assert visitor.log_in("target").status_code == 303


def test_an_admin_adds_changes_and_removes_a_user(log_in: LogIn, pages: Pages, visitor: Visitor) -> None:
    admin = log_in("admin")
    made = admin.post("/users", {"name": "newcomer", "role": "viewer"})
    password = re.search(r"<code>([^<]+)</code>", made.text)
    assert made.status_code == 200 and password
    assert admin.post("/users", {"name": "newcomer", "role": "viewer"}).status_code == 422
    assert admin.post("/users", {"name": "New Comer", "role": "viewer"}).status_code == 422
    assert admin.post("/users", {"name": "other", "role": "god"}).status_code == 422
    assert visitor.log_in("newcomer", password[1]).status_code == 303
    # Until the password is their own, nothing else opens.
    for path in ("/style", "/"):
        assert visitor.get(path).headers["location"] == "/account"
    assert admin.post("/users/newcomer/role", {"role": "reviewer"}).status_code == 303
    assert pages.site.users.find("newcomer").role is Role.REVIEWER
    assert admin.post("/users/newcomer/remove", {}).status_code == 422
    assert admin.post("/users/newcomer/remove", {"sure": "yes"}).status_code == 303
    assert visitor.get("/account").headers["location"].startswith("/login")
    assert admin.get("/users/newcomer").status_code == 404
    log = admin.get("/actions?about=newcomer&format=json").json()["rows"]
    assert [row["what"] for row in log] == ["user removed", "role changed", "user added"]
    assert {row["who"] for row in log} == {"admin"} and password[1] not in str(log)


def test_the_last_admin_is_told_why_not(log_in: LogIn) -> None:
    admin = log_in("admin")
    answer = admin.post("/users/admin/role", {"role": "viewer"})
    assert answer.status_code == 422 and "the only admin" in answer.text


def test_one_changes_ones_own_password_with_the_old_one(pages: Pages, visitor: Visitor) -> None:
    pages.site.users.add("changer", Role.VIEWER, WORDS, by=TEST, must_change=False)
    visitor.log_in("changer")
    visitor.get("/account")
    new = "another four words then"
    for data, said in (
        ({"current": "wrong", "password": new, "again": new}, "not your password"),
        ({"current": WORDS, "password": new, "again": "x"}, "differ"),
        ({"current": WORDS, "password": "short", "again": "short"}, "at least 12"),
        ({"current": WORDS, "password": WORDS, "again": WORDS}, "old password"),
    ):
        answer = visitor.post("/account/password", data)
        assert answer.status_code == 422 and said in answer.text
    assert visitor.post("/account/password", {"current": WORDS, "password": new, "again": new}).status_code == 303
    assert visitor.get("/style").status_code == 200
    assert visitor.log_in("changer", WORDS).status_code == 403


def test_every_table_is_also_json_and_csv(log_in: LogIn) -> None:
    admin = log_in("admin")
    for path in ("/style", "/users", "/actions"):
        as_json = admin.get(path, headers={"accept": "application/json"})
        assert as_json.headers["content-type"] == "application/json" and as_json.json()["rows"]
        as_csv = admin.get(path, params={"format": "csv"})
        assert as_csv.headers["content-type"].startswith("text/csv") and as_csv.text.count("\r\n") > 1
        assert "<table" in admin.get(path, headers={"accept": "text/html,application/json;q=0.9"}).text
    hostile = admin.get("/style?format=csv").text
    assert "'=HYPERLINK" in hostile and "<b>bold?</b>" in hostile


def test_searches_are_shown_again_escaped(log_in: LogIn) -> None:
    page = log_in("admin").get("/actions", params={"who": '"><script>alert(1)</script>'})
    assert page.status_code == 200 and "<script>alert" not in page.text and "No action matches" in page.text


def test_a_port_that_is_taken_is_named(pages: Pages) -> None:
    port = int(pages.url.rpartition(":")[2])
    again = Pages(PagesSettings(port=port), pages.site.database)
    with pytest.raises(CannotServe, match=r"audit\.pages\.port"):
        again.listen()


def test_over_https_cookies_are_host_bound_and_the_proxy_is_the_only_name(tmp_path: Path) -> None:
    settings = PagesSettings(port=0, public_url="https://audit.example")
    with running_pages(tmp_path, settings) as pages:
        port = pages.port
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"host": "audit.example"}) as http:
            answer = http.get("/login")
            assert "strict-transport-security" in answer.headers
            cookie = answer.headers["set-cookie"]
            assert cookie.startswith("__Host-fediwarden-visit=") and cookie.endswith("; Secure")


def test_what_fails_beside_the_pages_is_heard_of_and_they_go_on(tmp_path: Path) -> None:
    async def fail() -> None:
        asyncio.get_running_loop().call_later(0.5, pages.stop)
        raise ZeroDivisionError("as nobody foresaw")

    async def go_on() -> None:
        await asyncio.Event().wait()

    with open_store(sqlite_url(tmp_path)) as database:
        pages = Pages(PagesSettings(port=0), database)
        pages._beside += [fail, go_on]
        pages.listen()
        with capture_logs() as said:
            asyncio.run(pages.serve())
    faults = [each for each in said if each["log_level"] == "error"]
    assert [each["error"] for each in faults] == ["ZeroDivisionError('as nobody foresaw')"]
    assert said[-1]["event"] == "pages stopped"
