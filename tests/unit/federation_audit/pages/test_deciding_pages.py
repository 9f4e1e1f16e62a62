"""Decisions, reports, exports and sending through the pages, over the invented fediverse and stand-ins."""

import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiosmtpd.controller import Controller

from federation_audit.accounts.actions import Actor
from federation_audit.cases import Action, Level
from federation_audit.deciding.decisions import decide
from federation_audit.deciding.letters import letters_of
from federation_audit.pages.service import Pages
from federation_audit.pages.settings import PagesSettings
from federation_audit.pages.site import Surroundings
from federation_audit.sending.journal import entries_about
from federation_audit.settings import AuditSettings
from schemas.clock import now_ms
from schemas.topics import DAY_MS
from tests.fediverse import LIST, RULES
from tests.kafka import find_free_ports
from tests.pages import WORDS, running_pages
from tests.unit.federation_audit.sides import CoopSide, FediseerSide, LemmyNew, LemmyOld, MastodonSide
from tests.unit.federation_audit.test_mail import Letterbox, parsed

BAD = "bad.example"
ADA = Actor("ada")
RLO = "\N{RIGHT-TO-LEFT OVERRIDE}"


class Visitor:
    """A browser without a screen: keeps cookies, sends the page's token along."""

    def __init__(self, url: str) -> None:
        self.http = httpx.Client(base_url=url, timeout=180)
        self.token = ""
        self.page = ""

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self._look(self.http.get(path, **options))

    def post(self, path: str, data: dict[str, str] | None = None) -> httpx.Response:
        return self._look(self.http.post(path, data={"csrf": self.token} | (data or {})))

    def hidden(self) -> dict[str, str]:
        """The hidden fields of the form that confirms a plan."""
        form = re.search(r'<form class="stack" method="post" action="[^"]*/confirm">(.*?)</form>', self.page, re.DOTALL)
        assert form, self.page
        return dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', form[1]))

    def _look(self, answer: httpx.Response) -> httpx.Response:
        self.page = answer.text
        if found := re.search(r'name="csrf" value="([^"]+)"', answer.text):
            self.token = found[1]
        return answer


@pytest.fixture(scope="module")
def letterbox() -> Letterbox:
    return Letterbox()


@pytest.fixture(scope="module")
def sides() -> Iterator[dict[str, Any]]:
    with (
        LemmyOld(["kept.example"]).running() as old,
        MastodonSide([{"domain": "x.example", "severity": "silence", "reject_media": False}]).running() as mastodon,
        FediseerSide().running() as fediseer,
        CoopSide().running() as coop,
    ):
        yield {"lemmy": old, "mastodon": mastodon, "fediseer": fediseer, "coop": coop}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, letterbox: Letterbox, sides: dict[str, Any]) -> Iterator[Pages]:
    port = find_free_ports(1)
    controller = Controller(letterbox, hostname="127.0.0.1", port=port, ready_timeout=60)
    controller.start()
    audit = AuditSettings.model_validate(
        {
            "verified_lists": [LIST.partition("@")[0]],
            "assess_every_s": 86_400,
            "mail": {"host": "127.0.0.1", "port": port, "security": "none", "sender": "abuse@my.example"},
            "targets": {
                "answer_within_s": 100,
                "lemmy": {"address": sides["lemmy"].url, "token": LemmyOld.jwt},
                "mastodon": {"address": sides["mastodon"].url, "token": MastodonSide.token},
                "fediseer": {"address": sides["fediseer"].url, "key": FediseerSide.key},
                "coop": {
                    "address": sides["coop"].url,
                    "key": CoopSide.key,
                    "item_type": "incident",
                    "reporter_type": "person",
                },
            },
        }
    )
    with running_pages(
        tmp_path_factory.mktemp("pages"), filled=True, surroundings=Surroundings(audit=audit, sentences=RULES)
    ) as running:
        yield running
    controller.stop()


@pytest.fixture
def log_in(pages: Pages) -> Iterator[Callable[[str], Visitor]]:
    opened: list[Visitor] = []

    def log_in_as(name: str) -> Visitor:
        visitor = Visitor(pages.url)
        opened.append(visitor)
        visitor.get("/login")
        assert visitor.post("/login", {"name": name, "password": WORDS}).status_code == 303
        visitor.get("/account")
        return visitor

    yield log_in_as
    for visitor in opened:
        visitor.http.close()


@pytest.fixture
def admin(log_in: Callable[[str], Visitor]) -> Visitor:
    return log_in("admin")


def decided(pages: Pages, domain: str, action: Action, **more: Any) -> None:
    """A decision by somebody, now."""
    given = {"level": Level.RECOMMEND, "days": 90, "at": now_ms()} | more
    reason = given.pop("reason", "nobody answers")
    with pages.site.database.writing() as connection:
        decide(connection, ADA, domain, action, reason, **given)


def rows_of(visitor: Visitor, query: str = "") -> dict[str, dict[str, Any]]:
    answer = visitor.get(f"/decisions?format=json{query}")
    assert answer.status_code == 200, answer.text
    return {row["instance"]: row for row in answer.json()["rows"]}


def test_an_admin_goes_from_a_recommendation_to_a_decision_and_back(admin: Visitor, pages: Pages) -> None:
    waits = rows_of(admin, "&state=waiting")
    assert waits["raid.example"]["level"] == "restrict" and waits["raid.example"]["decision"] == "nothing yet"
    page = admin.get("/decisions/raid.example")
    assert page.status_code == 200 and "confirmed incident" in page.text and "Nobody has decided" in page.text
    form = {"action": "restrict-media", "reason": "a raid,\nso for a while", "days": "14", "instead_of": ""}
    answer = admin.post("/decisions/raid.example", form)
    assert answer.headers["location"] == "/decisions/raid.example?said=decided"
    page = admin.get(answer.headers["location"])
    assert "restrict media" in page.text and "so for a while" in page.text and "U+000A" not in page.text
    row = rows_of(admin)["raid.example"]
    assert (row["state"], row["decision"], row["by"]) == ("expiring", "restrict media", "admin")
    assert "raid.example" not in rows_of(admin, "&state=waiting")
    # Who had the page open from before is told, and what they wrote is kept.
    answer = admin.post("/decisions/raid.example", form | {"reason": "my own words"})
    assert answer.status_code == 409 and "my own words" in answer.text and "admin decided" in answer.text
    number = re.search(r'name="number" value="(\d+)"', answer.text)
    assert number
    answer = admin.post("/decisions/raid.example/withdraw", {"number": number[1]})
    assert answer.headers["location"] == "/decisions/raid.example?said=withdrawn"
    assert rows_of(admin)["raid.example"]["state"] == "waiting"
    log = admin.get("/actions?about=raid.example&format=json").json()["rows"]
    assert [each["what"] for each in log] == ["decision withdrawn", "decided"]


def test_what_has_come_to_its_end_comes_back(admin: Visitor, pages: Pages) -> None:
    decided(pages, "oak.example", Action.DEFEDERATE, at=now_ms() - 91 * DAY_MS)
    decided(pages, "elm.example", Action.CONTACT, days=3)
    rows = rows_of(admin)
    assert rows["oak.example"]["state"] == "due" and rows["elm.example"]["state"] == "expiring"
    assert "Decide anew, or let it go" in admin.get("/decisions/oak.example").text
    assert "oak.example" not in admin.get("/exports/lemmy-0.19").text
    for order in ("state", "-state", "until", "-until", "at", "instance", "-decision", "by"):
        assert admin.get(f"/decisions?sort={order}&format=json").status_code == 200, order
    assert set(rows_of(admin, "&action=contact")) == {"elm.example"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"action": ""}, "Choose what is to be done"),
        ({"action": "nuke"}, "Choose what is to be done"),
        ({"reason": " "}, "Write a reason"),
        ({"days": "soon"}, "number of days"),
        ({"days": "0"}, "1 to 366"),
        ({"days": ""}, "for how many days"),
        ({"days": "٣"}, "number of days"),
    ],
)
def test_what_is_wrong_in_the_form_is_said_and_nothing_typed_is_lost(
    admin: Visitor, changes: dict[str, str], said: str
) -> None:
    form = {"action": "defederate", "reason": "words to keep", "days": "30", "instead_of": ""} | changes
    answer = admin.post("/decisions/small.example", form)
    assert answer.status_code == 422 and said in answer.text
    assert changes.get("reason", "words to keep") in answer.text
    assert rows_of(admin)["small.example"]["state"] == "waiting"


POSTS = (
    ("", {"action": "none", "reason": "x", "days": "3", "instead_of": ""}),
    ("/withdraw", {"number": "1"}),
    ("/letters", {"way": "x", "day": "2026-01-01"}),
    ("/letters/answered", {"number": "1", "day": "2026-01-01"}),
    ("/cleanups", {"day": "2026-01-01"}),
    ("/cleanups/remove", {"number": "1"}),
    ("/addresses", {"address": "a@b.example"}),
    ("/addresses/remove", {"value": "a@b.example"}),
    ("/addresses/find", {}),
    ("/plan", {"way": "mail", "to": "a@b.example"}),
    ("/confirm", {"way": "mail", "to": "a@b.example", "digest": "0"}),
)


@pytest.mark.parametrize("name", ["viewer", "reviewer"])
def test_who_is_no_admin_reads_and_decides_nothing(log_in: Callable[[str], Visitor], pages: Pages, name: str) -> None:
    visitor = log_in(name)
    for path in ("/decisions", "/decisions/pine.example", "/decisions/bad.example/report", "/exports", "/sent"):
        assert visitor.get(path).status_code == 200, path
        assert 'class="main"' not in visitor.page or path == "/decisions/pine.example", path
    assert visitor.get("/decisions/pine.example/send").status_code == 403
    visitor.get("/account")
    for path, data in POSTS:
        assert visitor.post(f"/decisions/pine.example{path}", data).status_code == 403, path
    for path in ("/exports/lemmy/plan", "/exports/lemmy/confirm"):
        assert visitor.post(path, {"digest": "0"}).status_code == 403, path
    noted = visitor.post("/decisions/pine.example/notes", {"text": "I looked"}).status_code
    assert noted == (303 if name == "reviewer" else 403)
    with pages.site.database.reading() as connection:
        assert entries_about(connection, "pine.example") == []


def test_a_form_from_elsewhere_decides_and_sends_nothing(admin: Visitor, pages: Pages, letterbox: Letterbox) -> None:
    before = len(letterbox.letters)
    for path, data in (*POSTS, ("/notes", {"text": "x"})):
        for sent in (data, data | {"csrf": admin.token[:-1]}):
            answer = admin.http.post(f"/decisions/ash.example{path}", data=sent)
            assert answer.status_code == 403, path
    assert len(letterbox.letters) == before
    with pages.site.database.reading() as connection:
        assert entries_about(connection, "ash.example") == []
    assert admin.get("/actions?about=ash.example&format=json").json()["total"] == 0


def test_hostile_words_stand_there_and_do_nothing(admin: Visitor) -> None:
    hostile = f"<script>alert(1)</script>{RLO} =HYPERLINK(1)" + "\u0301" * 50
    form = {"action": "contact", "reason": hostile, "days": "9", "instead_of": ""}
    assert admin.post("/decisions/hostile.example", form).status_code == 303
    assert admin.post("/decisions/hostile.example/notes", {"text": hostile * 50}).status_code == 303
    assert admin.post("/decisions/hostile.example/letters", {"way": hostile, "day": "2026-01-02"}).status_code == 303
    for path in ("/decisions", "/decisions/hostile.example", "/exports"):
        text = admin.get(path).text
        assert "<script>alert" not in text and RLO not in text, path
    assert admin.get("/decisions/%3Cscript%3E").status_code == 404
    assert admin.get("/decisions/BAD.example").headers["location"] == "/decisions/bad.example"
    assert admin.get("/decisions/b%C3%BCcher.example").headers["location"] == "/decisions/xn--bcher-kva.example"
    table = admin.get("/decisions?format=csv").text
    assert RLO not in table
    row = next(row for row in csv.DictReader(io.StringIO(table)) if row["instance"] == "hostile.example")
    assert row["reason"].startswith("<script>")
    assert admin.post("/decisions/hostile.example/notes", {"text": "x" * 5_001}).status_code == 422


def test_what_people_write_of_an_instance_is_on_its_page_and_goes_back_to_where_it_was_written(admin: Visitor) -> None:
    at = "/decisions/elder.example"
    for path, data in (
        ("/notes", {"text": "asked in the admins' room"}),
        ("/letters", {"way": "Matrix, to @root", "day": "2026-01-02"}),
        ("/cleanups", {"day": "2026-01-05"}),
        ("/addresses", {"address": "abuse@elder.example"}),
    ):
        answer = admin.post(at + path, data | {"back": "/instances/elder.example?said=kept"})
        assert answer.headers["location"].startswith("/instances/elder.example?said="), path
        assert admin.post(at + path, data | {"back": "//evil.example"}).headers.get("location", at).startswith(at)
    text = admin.get(at).text
    for said in ("asked in the admins&#39; room", "Matrix, to @root", "no answer yet", "2026-01-05", "abuse@elder"):
        assert said in text, said
    number = re.search(r'letters/answered">.*?name="number" value="(\d+)"', text, re.DOTALL)
    assert number
    answer = admin.post(f"{at}/letters/answered", {"number": number[1], "day": "2026-01-01"})
    assert answer.status_code == 422 and "cannot have come before" in answer.text
    assert admin.post(f"{at}/letters/answered", {"number": number[1], "day": "2026-01-04"}).status_code == 303
    assert "answered on 2026-01-04" in admin.get(at).text
    # A form that is shown again shows what was typed; the form beside it, which has a day as well, does not.
    answer = admin.post(f"{at}/letters", {"way": "by hand", "day": "2999-01-01"})
    assert answer.status_code == 422 and "yet to come" in answer.text and 'value="by hand"' in answer.text
    (letter_day,) = re.findall(r'<input[^>]*id="letter-day"[^>]*>', answer.text)
    (cleanup_day,) = re.findall(r'<input[^>]*id="cleanup-day"[^>]*>', answer.text)
    assert "2999-01-01" in letter_day and "2999-01-01" not in cleanup_day


def test_contacts_are_not_asked_for_unless_the_settings_allow_it(admin: Visitor) -> None:
    assert "nothing leaves this server" in admin.get("/decisions/fir.example").text
    answer = admin.post("/decisions/fir.example/addresses/find")
    assert answer.status_code == 409 and "audit.contacts.enabled" in answer.text


def test_a_report_is_shown_and_taken_away_in_three_ways(admin: Visitor) -> None:
    page = admin.get("/decisions/bad.example/report")
    assert "Hello admins of bad.example" in page.text
    text = admin.get("/decisions/bad.example/report/text")
    assert 'filename="report-bad.example.txt"' in text.headers["content-disposition"]
    assert admin.get("/decisions/bad.example/report/markdown").text.startswith("#")
    document = admin.get("/decisions/bad.example/report/json").json()
    assert document["schema"] == "fediwarden.report/1" and len(document["incidents"]) >= 6
    assert f"{len(document['incidents'])} confirmed incidents" in page.text
    assert "pixhost.example/" not in text.text  # no address of an image
    assert admin.get("/decisions/bad.example/report/pdf").status_code == 404
    assert "nothing to report" in admin.get("/decisions/fir.example/report").text
    assert admin.get("/decisions/fir.example/report/text").status_code == 409


def test_a_mail_is_shown_sent_once_and_kept_as_a_letter(admin: Visitor, pages: Pages, letterbox: Letterbox) -> None:
    at = "/decisions/bad.example"
    page = admin.post(f"{at}/plan", {"way": "mail", "to": "abuse@bad.example"})
    assert page.status_code == 200 and "Nothing has left yet" in page.text
    assert "abuse@bad.example gets this mail" in page.text and letterbox.letters == []
    confirmed = admin.hidden()
    for wrong in (
        {"to": "press@paper.example"},
        {"nonce": "0" * 16},
        {"digest": "f" * 64},
        {"way": "fediseer"},
        {"way": "pigeon"},
        {"at": str(int(confirmed["at"]) - 3_600_000)},
        {"at": str(int(confirmed["at"]) + 3_600_000)},
    ):
        answer = admin.post(f"{at}/confirm", confirmed | wrong)
        assert answer.status_code == 409 and "Nothing was sent" in answer.text, wrong
    assert admin.post(f"{at}/confirm", confirmed | {"at": "x"}).status_code == 422
    assert letterbox.letters == []
    admin.get("/account")
    answer = admin.post(f"{at}/confirm", confirmed)
    assert answer.headers["location"] == f"/sent/{confirmed['digest']}?said=sent"
    page = admin.get(answer.headers["location"])
    assert "accepted" in page.text and "by admin" in page.text
    (letter,) = letterbox.letters
    body = parsed(letter).get_body(("plain",))
    assert letter.rcpt_tos == ["abuse@bad.example"] and body is not None
    assert "Hello admins of bad.example" in body.get_content()
    # A second click, and a reload.
    for _ in range(2):
        admin.get("/account")
        assert admin.post(f"{at}/confirm", confirmed).headers["location"].endswith("?said=once")
    assert len(letterbox.letters) == 1
    with pages.site.database.reading() as connection:
        assert [each.way for each in letters_of(connection, BAD)] == ["mail to abuse@bad.example"]
    assert "went there before" in admin.post(f"{at}/plan", {"way": "mail", "to": "abuse@bad.example"}).text
    rows = admin.get("/sent?format=json").json()["rows"]
    assert (rows[0]["channel"], rows[0]["outcome"], rows[0]["about"]) == ("mail", "accepted", BAD)
    assert "abuse@bad.example" in admin.get("/sent?channel=mail&outcome=accepted").text
    assert admin.get("/sent?outcome=refused&format=json").json()["total"] == 0


def test_a_mail_that_is_refused_is_no_letter(admin: Visitor, pages: Pages, letterbox: Letterbox) -> None:
    at = "/decisions/small.example"
    letterbox.refusing = "550 no such user"
    try:
        admin.post(f"{at}/plan", {"way": "mail", "to": "root@small.example"})
        answer = admin.post(f"{at}/confirm", admin.hidden())
    finally:
        letterbox.refusing = ""
    page = admin.get(answer.headers["location"])
    assert "refused" in page.text and "no such user" in page.text
    with pages.site.database.reading() as connection:
        assert letters_of(connection, "small.example") == []
    page = admin.post(f"{at}/plan", {"way": "mail", "to": "a@b.example\r\nBcc: x@y.example"})
    assert page.status_code == 409 and "no mail address" in page.text


def test_what_changed_since_it_was_shown_is_not_sent(admin: Visitor, pages: Pages, sides: dict[str, Any]) -> None:
    decided(pages, "cedar.example", Action.DEFEDERATE)
    admin.post("/decisions/cedar.example/plan", {"way": "mastodon"})
    assert "cedar.example will be suspended" in admin.page
    confirmed = admin.hidden()
    decided(pages, "cedar.example", Action.RESTRICT_MEDIA)
    answer = admin.post("/decisions/cedar.example/confirm", confirmed)
    assert answer.status_code == 409 and "not what you were shown" in answer.text
    assert sides["mastodon"].written() == []
    # The other side changes in between.
    admin.post("/decisions/cedar.example/plan", {"way": "mastodon"})
    confirmed = admin.hidden()
    sides["mastodon"].blocks["9"] = {"id": "9", "domain": "cedar.example", "severity": "silence", "reject_media": False}
    answer = admin.post("/decisions/cedar.example/confirm", confirmed)
    assert answer.status_code == 409 and sides["mastodon"].written() == []
    with pages.site.database.reading() as connection:
        assert entries_about(connection, "cedar.example") == []
    admin.post("/decisions/cedar.example/plan", {"way": "mastodon"})
    answer = admin.post("/decisions/cedar.example/confirm", admin.hidden())
    assert answer.headers["location"].endswith("said=sent")
    assert sides["mastodon"].blocks["9"]["reject_media"] is True
    page = admin.post("/decisions/cedar.example/plan", {"way": "mastodon"})
    assert page.status_code == 409 and "as strict" in page.text


def test_images_that_come_meanwhile_do_not_spoil_a_confirmation(
    admin: Visitor, pages: Pages, letterbox: Letterbox
) -> None:
    admin.post("/decisions/raid.example/plan", {"way": "mail", "to": "root@raid.example"})
    confirmed = admin.hidden()
    pages.site.assessor.refresh()  # another assessment, as after a minute
    before = len(letterbox.letters)
    answer = admin.post("/decisions/raid.example/confirm", confirmed)
    assert answer.headers["location"].endswith("said=sent") and len(letterbox.letters) == before + 1


def test_lemmy_is_shown_the_difference_for_all_and_loses_no_block(
    admin: Visitor, pages: Pages, sides: dict[str, Any]
) -> None:
    decided(pages, BAD, Action.DEFEDERATE)
    page = admin.post("/exports/lemmy/plan")
    assert page.status_code == 200, page.text
    assert "bad.example will be blocked" in page.text and "the 1 present blocks stay as they are" in page.text
    assert LemmyOld.jwt not in page.text
    answer = admin.post("/exports/lemmy/confirm", admin.hidden())
    assert answer.headers["location"].endswith("said=sent")
    assert sides["lemmy"].blocked[0] == "kept.example" and BAD in sides["lemmy"].blocked
    page = admin.post("/decisions/bad.example/plan", {"way": "lemmy"})
    assert page.status_code == 409 and "blocks all of these already" in page.text
    assert admin.get("/sent?format=json").json()["rows"][0]["about"] == "several"


def test_a_lemmy_1_0_is_told_apart_and_a_silent_one_is_unknown(tmp_path: Path) -> None:
    with LemmyNew({}).running() as lemmy:
        assert isinstance(lemmy, LemmyNew)
        target = {"address": lemmy.url, "token": lemmy.jwt}
        audit = AuditSettings.model_validate({"targets": {"lemmy": target, "answer_within_s": 4}})
        settings = PagesSettings(port=0)
        with running_pages(tmp_path, settings, surroundings=Surroundings(audit=audit)) as pages:
            visitor = Visitor(pages.url)
            visitor.get("/login")
            visitor.post("/login", {"name": "admin", "password": WORDS})
            visitor.get("/account")
            decided(pages, BAD, Action.DEFEDERATE)
            visitor.post("/decisions/bad.example/plan", {"way": "lemmy"})
            assert "will be blocked until" in visitor.page
            confirmed = visitor.hidden()
            lemmy.silent.add("POST")
            answer = visitor.post("/decisions/bad.example/confirm", confirmed)
            assert answer.headers["location"] == f"/sent/{confirmed['digest']}"
            page = visitor.get(answer.headers["location"])
            assert "unknown" in page.text and "Look there before you send it again" in page.text
            visitor.get("/account")
            assert visitor.post("/decisions/bad.example/confirm", confirmed).headers["location"].endswith("once")
            assert len(lemmy.written()) == 1
            visitor.http.close()


def test_fediseer_and_coop_are_told_what_was_shown(admin: Visitor, pages: Pages, sides: dict[str, Any]) -> None:
    decided(pages, BAD, Action.RESTRICT_MEDIA)
    page = admin.post("/decisions/bad.example/plan", {"way": "fediseer", "opinion": "censures"})
    assert page.status_code == 409 and "needs the decision to defederate" in page.text
    admin.post("/decisions/bad.example/plan", {"way": "fediseer", "opinion": "hesitations"})
    assert admin.post("/decisions/bad.example/confirm", admin.hidden()).headers["location"].endswith("said=sent")
    assert "/api/v1/hesitations/bad.example" in sides["fediseer"].said
    page = admin.get("/decisions/bad.example/send")
    assert page.status_code == 200, page.text
    incidents = re.findall(r'<option value="(fediwarden-[0-9a-f]+)"', page.text)
    assert len(incidents) == len(admin.get("/decisions/bad.example/report/json").json()["incidents"])
    admin.post("/decisions/bad.example/plan", {"way": "coop", "incident": incidents[2]})
    shown = admin.page
    assert admin.post("/decisions/bad.example/confirm", admin.hidden()).headers["location"].endswith("said=sent")
    body = sides["coop"].asked[-1].body
    assert body["reportedItem"]["id"] == incidents[2] and body["reporter"]["id"] == "admin"
    assert body["reportedAt"] in shown.replace("&#34;", '"')
    page = admin.post("/decisions/bad.example/plan", {"way": "coop", "incident": "fediwarden-0"})
    assert page.status_code == 409 and "not in the case any more" in page.text


def test_every_export_is_there_and_says_what_it_leaves_out(admin: Visitor, pages: Pages) -> None:
    decided(pages, BAD, Action.DEFEDERATE, reason='=cmd|"/c calc"!A1\n' + RLO)
    decided(pages, "raid.example", Action.RESTRICT_MEDIA)
    decided(pages, "small.example", Action.CONTACT)
    decided(pages, "[::1]", Action.DEFEDERATE)
    for path in ("", "/send", "/report"):
        assert admin.get(f"/decisions/%5B%3A%3A1%5D{path}").status_code == 200, path
    page = admin.get("/exports").text
    assert "blocklists have no place for" in page and "Lemmy cannot refuse an instance" in page
    blocks = {row["#domain"]: row for row in csv.DictReader(io.StringIO(admin.get("/exports/mastodon").text))}
    assert blocks[BAD]["#severity"] == "suspend" and blocks["raid.example"]["#severity"] == "noop"
    assert "small.example" not in blocks and "[::1]" not in blocks
    hole = admin.get("/exports/fediblockhole").text
    assert RLO not in hole and not any(
        cell[:1] in "=+-@" for row in csv.reader(io.StringIO(hole)) for cell in row if cell
    )
    assert admin.get("/exports/lemmy-0.19").text.split() == [BAD]
    calls = [json.loads(line) for line in admin.get("/exports/lemmy-1.0").text.splitlines()]
    assert [each["instance"] for each in calls] == [BAD] and calls[0]["expires_at"] > 0
    assert "censures/bad.example" in admin.get("/exports/fediseer").text
    evidence = [json.loads(line) for line in admin.get("/exports/evidence").text.splitlines()]
    assert {BAD, "raid.example"} <= {each["domain"] for each in evidence}
    posts = [post for each in evidence if each["domain"] == "hostile.example" for post in each["posts"]]
    assert posts and all(each.startswith("https://hostile.example/post/") for each in posts)
    assert RLO not in admin.page and not any("<" in each or '"' in each for each in posts)
    assert admin.get("/exports/flag?actor=nonsense").text == ""
    coop = [json.loads(line) for line in admin.get("/exports/coop").text.splitlines()]
    assert {each["reportedItem"]["data"]["domain"] for each in coop} >= {BAD}
    assert admin.get("/exports/excel").status_code == 404
    names = [admin.get(f"/exports/{each}").headers["content-disposition"] for each in ("mastodon", "evidence")]
    assert names == ['attachment; filename="mastodon-domain-blocks.csv"', 'attachment; filename="evidence.jsonl"']
