"""The review queue over HTTP."""

import re
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path

import pytest
from sqlalchemy import select

from federation_audit.accounts.roles import Role
from federation_audit.accounts.tables import ACTIONS
from federation_audit.pages.service import Pages
from federation_audit.pages.site import Surroundings
from federation_audit.reviewing.outcomes import Outcome, read_reviewed
from federation_audit.reviewing.settings import ReviewSettings
from federation_audit.reviewing.tables import ORDERS, REVIEWS
from federation_audit.settings import AuditSettings
from schemas.broker import BrokerSettings
from tests.fediverse import LIST, RULES, SECOND, Filled, copy_filled
from tests.pages import TEST, WORDS, running_pages
from tests.unit.federation_audit.pages.test_pages import Visitor

LogIn = Callable[[str], Visitor]
NOWHERE = BrokerSettings(bootstrap_servers="127.0.0.1:1")


def surroundings(**review: float) -> Surroundings:
    audit = AuditSettings(verified_lists=(LIST.partition("@")[0],), review=ReviewSettings(**review))  # type: ignore[arg-type]
    return Surroundings(audit=audit, broker=NOWHERE, sentences=RULES, local_domains=frozenset({"home.example"}))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Filled:
    """What is in the store of every test here."""
    return copy_filled(tmp_path_factory.mktemp("world"), reviewed=False)[1]


@pytest.fixture
def pages(tmp_path: Path) -> Iterator[Pages]:
    with running_pages(tmp_path, filled=True, reviewed=False, surroundings=surroundings()) as pages:
        for name in ("rita", "rolf", "ruth"):
            pages.site.users.add(name, Role.REVIEWER, WORDS, by=TEST, must_change=False)
        yield pages


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


def rows_of(visitor: Visitor, query: str = "") -> list[str]:
    """What the buttons of each row send."""
    return re.findall(r'name="row" value="([^"]+)"', visitor.get(f"/review{query}").text)


def plain(text: str) -> str:
    return " ".join(unescape(re.sub("<[^>]+>", " ", text)).split())


def outcome(pages: Pages, sha256: bytes, tenant: str = "default") -> Outcome | None:
    with pages.site.database.reading() as connection:
        found = read_reviewed(connection).get((tenant, sha256))
    return None if found is None else found.outcome


def key_of(visitor: Visitor, sha256: bytes, tenant: str = "default") -> str:
    text = visitor.get(f"/review/{tenant}/{sha256.hex()}").text
    found = re.search(r'name="key" value="([^"]+)"', text)
    assert found, "it does not wait"
    return found[1]


def test_two_reviewers_confirm_an_incident_from_the_queue(log_in: LogIn, pages: Pages, world: Filled) -> None:
    rita, rolf = log_in("rita"), log_in("rolf")
    cluster = world.clusters[0]
    key = key_of(rita, cluster[0])
    assert "Nobody else has reviewed it" in rita.get(f"/review/default/{cluster[0].hex()}").text
    answer = rita.post("/review/answer", {"one": f"confirm {key} 3", "back": "/review?q=bad", "allow": "yes"})
    assert answer.headers["location"] == "/review?q=bad&at=3"
    assert key not in rows_of(rita, "?q=bad") and key in rows_of(rolf, "?q=bad")
    page = plain(rolf.get(f"/review/default/{cluster[0].hex()}").text)
    assert "If the other reviewer confirmed it too, it becomes a confirmed incident of bad.example, its first" in page
    assert "rita" not in page and "what they said is shown after your own answer" in page
    rolf.post("/review/answer", {"one": f"confirm {key} 0"})
    assert {outcome(pages, each) for each in cluster} == {Outcome.CONFIRMED}
    page = plain(rolf.get(f"/review/default/{cluster[0].hex()}").text)
    assert "rita: confirmed" in page and "rolf: confirmed" in page
    settled = plain(log_in("viewer").get("/reviewed").text)
    assert "bad.example" in settled and "rita: confirmed" in settled


def test_nobody_learns_what_others_said_before_they_have_answered(log_in: LogIn, world: Filled) -> None:
    rita, rolf = log_in("rita"), log_in("rolf")
    one, two = (world.flagged[name][0] for name in ("drawings.example", "small.example"))
    said = {one: "confirm", two: "unsure"}
    for sha256, opinion in said.items():
        key = key_of(rita, sha256)
        rita.post("/review/answer", {"one": f"{opinion} {key} 0", "note": "a telling note"})
    documents = [
        rolf.get(path).text
        for path in (
            "/review",
            "/review?format=json",
            "/review?format=csv",
            *(f"/review/default/{each.hex()}{form}" for each in said for form in ("", "?format=json")),
            "/reviewed?format=json",
        )
    ]
    for document in documents:
        assert "rita" not in document and "a telling note" not in document
    about = []
    for sha256 in said:
        found = rolf.get(f"/review?format=json&q={'drawings' if sha256 == one else 'small'}").json()["rows"]
        about.append(next(each for each in found if each["sha256"] == sha256.hex()))
    assert {each["others"] for each in about} == {"1 other"}


def test_rows_hold_no_pixels_and_say_what_a_reviewer_needs(log_in: LogIn, world: Filled) -> None:
    rita = log_in("rita")
    answer = rita.get("/review")
    assert "<img" not in answer.text and "data:image" not in answer.text
    assert RULES["explicit"] in answer.text
    assert "First come rows that somebody else has reviewed" in answer.text
    listed = world.confirmed["listed by " + LIST][0].hex()
    document = rita.get("/review?format=json").json()
    rows = {each["sha256"]: each for each in document["rows"]}
    assert listed not in rows, "a verified list confirms without anybody"
    smallest = min(world.clusters[0]).hex()
    assert rows[smallest]["images"] == 3 and rows[smallest]["near"] == 2
    assert rows[smallest]["authors"] == ["bad.example"] and rows[smallest]["accounts"] == 1
    assert document["total"] == len(rows) and [each["turn"] for each in document["rows"]][:3] == [1, 2, 3]
    assert rita.get("/review?format=csv").text.count("\r\n") == document["total"] + 1
    assert rita.get(f"/review/default/{listed}").status_code == 200
    assert "known-hashes" in rita.get(f"/review/default/{listed}").text


def test_hostile_addresses_stand_there_as_text(log_in: LogIn, world: Filled) -> None:
    rita = log_in("rita")
    for sha256 in world.flagged["hostile.example"]:
        text = rita.get(f"/review/default/{sha256.hex()}").text
        assert "<script>alert" not in text and "<img" not in text
        assert 'href="https://hostile' not in text and 'href="javascript' not in text


def test_viewers_judge_nothing_and_look_at_nothing_that_waits(log_in: LogIn, pages: Pages, world: Filled) -> None:
    viewer, rita = log_in("viewer"), log_in("rita")
    sha256 = world.flagged["bad.example"][0]
    key = key_of(rita, sha256)
    for path in ("/review", "/review?format=json", f"/review/default/{sha256.hex()}"):
        assert viewer.get(path).status_code == 403
    viewer.get("/account")
    for path, data in (
        ("/review/answer", {"one": f"confirm {key} 0"}),
        (f"/review/default/{sha256.hex()}", {"opinion": "dismiss", "key": key}),
        ("/review/undo", {"answer": "x"}),
        ("/review/break", {}),
        ("/review/overrides", {}),
    ):
        assert viewer.post(path, data).status_code == 403, path
    assert outcome(pages, sha256) is None
    assert viewer.get("/reviewed").status_code == 200 and "/review/" not in viewer.get("/reviewed").text


def test_a_form_without_its_token_answers_nothing(log_in: LogIn, pages: Pages, world: Filled) -> None:
    rita = log_in("rita")
    sha256 = world.flagged["bad.example"][0]
    key = key_of(rita, sha256)
    for path, data in (
        ("/review/answer", {"one": f"confirm {key} 0"}),
        (f"/review/default/{sha256.hex()}", {"opinion": "dismiss", "key": key}),
        ("/review/overrides", {}),
    ):
        assert rita.http.post(path, data=data).status_code == 403
        evil = {"origin": "https://evil.example"}
        assert rita.http.post(path, data=data | {"csrf": rita.token}, headers=evil).status_code == 403
    assert outcome(pages, sha256) is None


@pytest.mark.parametrize(
    "data",
    [
        {"one": "praise default/00/x 0"},
        {"one": "confirm nonsense 0"},
        {"bulk": "confirm", "row": "default/xyz/0"},
        {"bulk": "", "row": "x"},
        {},
    ],
)
def test_a_form_that_makes_no_sense_changes_nothing(log_in: LogIn, pages: Pages, data: dict[str, str]) -> None:
    rita = log_in("rita")
    assert rita.post("/review/answer", data).status_code == 422
    with pages.site.database.reading() as connection:
        assert connection.execute(select(REVIEWS)).all() == []


def test_pages_of_what_is_not_there(log_in: LogIn) -> None:
    rita = log_in("rita")
    for path in ("default/00", f"default/{'0' * 64}", f"nobody/{'0' * 64}", "default/zz", f"d%00/{'0' * 64}"):
        assert rita.get(f"/review/{path}").status_code == 404, path


def test_several_rows_are_answered_at_once_or_none(log_in: LogIn, pages: Pages) -> None:
    rita = log_in("rita")
    keys = rows_of(rita)[:3]
    none = rita.post("/review/answer", {"bulk": "dismiss"})
    assert "select at least one row" in rita.get(none.headers["location"]).text
    stale = keys[1][:-1] + ("0" if keys[1][-1] != "0" else "1")
    answer = rita.post("/review/answer", {"bulk": "unsure", "row": [keys[0], stale]})  # type: ignore[dict-item]
    assert "Look again" in rita.get(answer.headers["location"]).text
    assert keys[0] in rows_of(rita), "all or none"
    rita.post("/review/answer", {"bulk": "unsure", "row": keys})  # type: ignore[dict-item]
    left = rows_of(rita)
    assert not set(keys) & set(left)
    again = rita.post("/review/answer", {"bulk": "unsure", "row": keys})  # type: ignore[dict-item]
    assert "answered it already" in rita.get(again.headers["location"]).text
    with pages.site.database.reading() as connection:
        logged = connection.scalars(select(ACTIONS.c.about).where(ACTIONS.c.what == "review given")).all()
    assert logged == [key.rpartition("/")[0] for key in keys]


def test_the_last_answer_can_be_undone_once(log_in: LogIn) -> None:
    rita = log_in("rita")
    keys = rows_of(rita)
    rita.post("/review/answer", {"one": f"unsure {keys[0]} 0"})
    text = rita.get("/review").text
    answer = re.search(r'name="answer" value="([^"]+)"', text)
    assert answer and "Your last answer" in text
    done = rita.post("/review/undo", {"answer": answer[1]})
    assert "taken back" in rita.get(done.headers["location"]).text
    assert rows_of(rita) == keys
    again = rita.post("/review/undo", {"answer": answer[1]})
    assert "not your last answer" in rita.get(again.headers["location"]).text


def test_one_image_of_a_cluster_is_answered_alone_and_an_opinion_can_change(
    log_in: LogIn, pages: Pages, world: Filled
) -> None:
    rita = log_in("rita")
    first, second, third = world.clusters[1]
    path = f"/review/default/{first.hex()}"
    rita.get(path)
    answer = rita.post(path, {"opinion": "dismiss", "medium": [second.hex(), third.hex()]})  # type: ignore[dict-item]
    assert answer.headers["location"].startswith("/review/default/")
    assert [outcome(pages, each) for each in (first, second, third)] == [None, Outcome.DISMISSED, Outcome.DISMISSED]
    assert "1 of 3" in plain(rita.get(path).text)
    rita.post(path, {"opinion": "confirm", "medium": second.hex(), "note": "I looked again"})
    assert outcome(pages, second) is Outcome.OPEN
    assert "rita: confirmed" in plain(rita.get(path).text)
    nothing = log_in("rolf").post(path, {"opinion": "confirm"})
    assert nothing.headers["location"].endswith("fault=none")


def test_the_override_is_not_lost_and_not_said_to_be_in_force_without_kafka(
    log_in: LogIn, pages: Pages, world: Filled
) -> None:
    rita = log_in("rita")
    sha256 = world.flagged["drawings.example"][0]
    key = key_of(rita, sha256)
    answer = rita.post("/review/answer", {"one": f"dismiss {key} 0", "allow": "yes", "note": "a drawing"})
    page = plain(rita.get(answer.headers["location"]).text)
    assert "1 override is not in force yet: Kafka has not taken it. The answers are saved" in page
    assert "0 of 1 override in force" in page
    assert outcome(pages, sha256) is Outcome.DISMISSED
    again = rita.post("/review/overrides")
    assert "Nothing is lost" in rita.get(again.headers["location"]).text
    with pages.site.database.reading() as connection:
        [order] = connection.execute(select(ORDERS)).all()
        logged = connection.scalars(select(ACTIONS.c.what)).all()
    assert order.published_at is None and order.reason == "false positive, by review: a drawing"
    assert order.ordered_by == "rita" and "override published" not in logged
    assert "not in force yet" in rita.get(f"/review/default/{sha256.hex()}").text


def test_only_admins_override_by_look_deny_and_let_in_what_a_list_has(
    log_in: LogIn, pages: Pages, world: Filled
) -> None:
    def ordered() -> list[tuple[str, str, int]]:
        with pages.site.database.reading() as connection:
            return [(each.effect, each.kind, each.distance) for each in connection.execute(select(ORDERS))]

    rita, admin = log_in("rita"), log_in("admin")
    all_of_it = {"allow": "yes", "looks": "yes", "distance": "12", "deny": "yes"}
    listed = world.confirmed["listed by " + LIST][0].hex()
    path = f"/review/default/{listed}"
    assert 'name="deny"' not in rita.get(path).text and "only an admin" in rita.get(path).text
    rita.post(path, {"opinion": "dismiss", "medium": listed} | all_of_it)
    assert ordered() == []
    review = world.flagged["drawings.example"][0]
    rita.post(f"/review/default/{review.hex()}", {"opinion": "dismiss", "medium": review.hex()} | all_of_it)
    assert ordered() == [("allow", "sha256", 0)], "a reviewer: exactly these bytes"
    admin.get("/review")
    admin.post(path, {"opinion": "dismiss", "medium": listed} | all_of_it)
    assert ordered()[1:] == [("allow", "sha256", 0), ("allow", "pdq", 12)]
    bad = admin.post(path, {"opinion": "dismiss", "medium": listed} | all_of_it | {"distance": "65"})
    assert bad.status_code == 422
    rejected, doubted = world.flagged["hostile.example"][:2]
    admin.get("/review")
    for sha256, denied in ((rejected, []), (doubted, [("deny", "sha256", 0)])):
        before, one = len(ordered()), sha256.hex()
        admin.post(f"/review/default/{one}", {"opinion": "confirm", "medium": one, "deny": "yes"})
        assert ordered()[before:] == denied, "not what is refused already"


def test_another_tenants_images_are_rows_of_their_own(log_in: LogIn, pages: Pages, world: Filled) -> None:
    rita = log_in("rita")
    keys = rows_of(rita, f"?tenant={SECOND}")
    assert len(keys) == 1 and keys[0].startswith(f"{SECOND}/")
    rita.post("/review/answer", {"one": f"dismiss {keys[0]} 0", "allow": "yes"})
    assert outcome(pages, world.second[-1], SECOND) is Outcome.DISMISSED
    with pages.site.database.reading() as connection:
        assert connection.scalars(select(ORDERS.c.tenant)).all() == [SECOND]


def test_the_cap_ends_the_day_calmly_and_the_break_locks_nothing(tmp_path: Path) -> None:
    told = surroundings(daily_cap=2, break_after_min=0.0001)
    with running_pages(tmp_path, filled=True, reviewed=False, surroundings=told) as pages:
        rita = Visitor(pages.url)
        rita.log_in("reviewer")
        keys = rows_of(rita)
        rita.post("/review/answer", {"one": f"unsure {keys[0]} 0"})
        page = rita.get("/review").text
        assert "A pause of five minutes" in page and "Nothing is locked" in page
        rita.post("/review/break", {"back": "/review?q=bad"})
        too_many = rita.post("/review/answer", {"bulk": "unsure", "row": keys[1:3]})  # type: ignore[dict-item]
        assert "Select fewer" in rita.get(too_many.headers["location"]).text
        assert (
            rita.post("/review/answer", {"one": f"unsure {keys[1]} 0"}).headers["location"] == "/review?at=0&allow=no"
        )
        page = rita.get("/review").text
        assert "You have given 2 answers today" in page and "midnight UTC" in page and "tbody" not in page
        assert "Undo" in page
        refused = rita.post("/review/answer", {"one": f"unsure {keys[2]} 0"})
        assert "fault=cap" in refused.headers["location"]
        rita.http.close()


def test_the_way_back_never_leads_elsewhere(log_in: LogIn) -> None:
    rita = log_in("rita")
    for back in ("//evil.example", "https://evil.example/review", "/users", "/reviewer", "/review\\..\\x", "\t/review"):
        keys = rows_of(rita)
        answer = rita.post("/review/answer", {"one": f"unsure {keys[0]} 0", "back": back, "allow": "yes"})
        assert answer.headers["location"] == "/review?at=0", back


def test_what_is_settled_can_be_filtered_and_sorted(log_in: LogIn, world: Filled) -> None:
    rita = log_in("rita")
    for name in ("drawings.example", "flooded.example"):
        sha256 = world.flagged[name][0]
        rita.post("/review/answer", {"one": f"dismiss {key_of(rita, sha256)} 0"})
    viewer = log_in("viewer")
    rows = viewer.get("/reviewed?format=json").json()["rows"]
    assert [each["authors"] for each in rows] == [["flooded.example"], ["drawings.example"]]
    assert viewer.get("/reviewed?format=json&q=draw").json()["total"] == 1
    assert viewer.get("/reviewed?format=json&who=rita").json()["total"] == 2
    assert viewer.get("/reviewed?format=json&who=rolf").json()["total"] == 0
    assert viewer.get("/reviewed?format=json&outcome=confirmed").json()["total"] == 0
    assert viewer.get("/reviewed?format=json&sort=at").json()["rows"][0]["authors"] == ["drawings.example"]
    assert viewer.get("/reviewed?format=csv").text.startswith('"at","image"')
