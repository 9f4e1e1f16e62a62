"""Looking at pictures, as far as it goes without Kafka: who may, what is asked for, what is never shown."""

import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select

from federation_audit.accounts.actions import Actor
from federation_audit.accounts.tables import ACTIONS
from federation_audit.pages.service import Pages
from federation_audit.pages.settings import PagesSettings
from federation_audit.pages.site import Surroundings
from federation_audit.settings import AuditSettings
from federation_audit.store.engine import Store
from federation_audit.viewing.media import Hidden, read_medium
from federation_audit.viewing.settings import ViewingSettings
from federation_audit.viewing.tables import VIEWS
from federation_audit.viewing.veils import Veil
from federation_audit.viewing.views import STEP_MS, ViewRefused, check_reason, record_view
from schemas.broker import BrokerSettings
from schemas.clock import now_ms
from schemas.keyring import Keyring
from schemas.messages import Decision, Stage
from schemas.topics import DAY_MS
from tests.pages import running_pages
from tests.stores import judged, removed, sha, write
from tests.unit.federation_audit.pages.test_pages import Visitor

REVIEWED, REJECTED, ACCEPTED, DENIED, REMOVED, LISTED, NEVER = range(1, 8)
NOWHERE = BrokerSettings(bootstrap_servers="127.0.0.1:9")
WHY = "the rules contradict each other"


def around(**viewing: object) -> Surroundings:
    settings = AuditSettings(viewing=ViewingSettings.model_validate({"enabled": True} | viewing))
    return Surroundings(
        audit=settings,
        broker=NOWHERE,
        keyring=Keyring.generate() if settings.viewing.enabled else None,
        sentences={"explicit": "It shows sex."},
    )


@contextmanager
def pages_with(folder: Path, **viewing: object) -> Iterator[Pages]:
    now = now_ms()
    with running_pages(folder, PagesSettings(port=0), surroundings=around(**viewing)) as pages:
        assert isinstance(pages.site.database, Store)
        write(
            pages.site.database,
            [
                judged(REVIEWED, Decision.REVIEW, at=now),
                judged(REJECTED, Decision.REVIEW, at=now - 5, policy="p0"),
                judged(REJECTED, Decision.REJECT, at=now),
                judged(ACCEPTED, at=now),
                judged(DENIED, Decision.REVIEW, at=now - 5),
                judged(DENIED, Decision.REJECT, at=now, stage=Stage.OVERRIDE),
                judged(REMOVED, Decision.REVIEW, at=now - 5),
                removed(REMOVED, at=now),
                judged(LISTED, Decision.REVIEW, at=now, stage=Stage.LIST, hash_list="known@1"),
            ],
        )
        yield pages


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    with pages_with(tmp_path_factory.mktemp("viewing")) as pages:
        yield pages


@contextmanager
def logged_in(pages: Pages, name: str) -> Iterator[Visitor]:
    visitor = Visitor(pages.url)
    with closing(visitor.http):
        assert visitor.log_in(name).status_code == 303
        visitor.get("/account")
        yield visitor


@pytest.fixture
def reviewer(pages: Pages) -> Iterator[Visitor]:
    with logged_in(pages, "reviewer") as visitor:
        yield visitor


def path(image: int, tenant: str = "default") -> str:
    return f"/picture/{tenant}/{sha(image).hex()}"


def alert(answer: httpx.Response) -> str:
    found = re.search(r'role="(?:alert|status)">([^<]*)<', answer.text)
    return found[1] if found else ""


def views(pages: Pages) -> int:
    with pages.site.database.reading() as connection:
        return len(connection.execute(select(VIEWS)).all())


def test_it_is_off_unless_an_admin_turned_it_on(tmp_path: Path) -> None:
    assert ViewingSettings() == ViewingSettings(enabled=False, least_role="reviewer", plain=False)
    with pages_with(tmp_path, enabled=False) as pages, logged_in(pages, "admin") as admin:
        for answer in (admin.get(path(REVIEWED)), admin.post(path(REVIEWED), {"reason": WHY})):
            assert answer.status_code == 404
            assert "audit.viewing.enabled" in answer.text
        listed = admin.get("/views")
        assert listed.status_code == 200
        assert "audit.viewing.enabled" in listed.text
        assert 'href="/views"' not in admin.get("/account").text


def test_it_is_for_reviewers_or_for_admins_alone_where_that_is_set(pages: Pages, tmp_path: Path) -> None:
    with logged_in(pages, "viewer") as viewer:
        assert viewer.get(path(REVIEWED)).status_code == 403
        assert viewer.post(path(REVIEWED), {"reason": WHY}).status_code == 403
        assert viewer.get("/views").status_code == 403
    with pages_with(tmp_path, least_role="admin") as strict:
        with logged_in(strict, "reviewer") as reviewer:
            assert reviewer.get(path(REVIEWED)).status_code == 403
            assert reviewer.post(path(REVIEWED), {"reason": WHY}).status_code == 403
        with logged_in(strict, "admin") as admin:
            assert admin.get(path(REVIEWED)).status_code == 200
    nobody = Visitor(pages.url)
    with closing(nobody.http):
        assert nobody.get(path(REVIEWED)).headers["location"].startswith("/login?next=/picture/")


def test_the_page_says_what_is_known_and_shows_nothing_by_itself(reviewer: Visitor) -> None:
    answer = reviewer.get(path(REVIEWED))
    assert answer.status_code == 200
    assert "<img" not in answer.text
    assert "It shows sex." in answer.text
    assert "Nobody so far." in answer.text
    assert "0 of at most 20 pictures today" in answer.text
    assert answer.headers["cache-control"] == "no-store"
    assert "img-src 'self'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize("reason", ["", "   ", "x", "\0\0\0\0\0\0\0", "x" * 501])
def test_without_a_reason_nothing_is_shown(pages: Pages, reviewer: Visitor, reason: str) -> None:
    reviewer.get(path(REVIEWED))
    answer = reviewer.post(path(REVIEWED), {"reason": reason})
    assert answer.status_code == 422
    assert "reason" in alert(answer) or "why" in alert(answer)
    assert "<img" not in answer.text
    assert views(pages) == 0


def test_a_form_that_is_not_ours_shows_nothing(pages: Pages, reviewer: Visitor) -> None:
    assert reviewer.http.post(path(REVIEWED), data={"reason": WHY}).status_code == 403
    reviewer.get(path(REVIEWED))
    foreign = reviewer.post(path(REVIEWED), {"reason": WHY}, headers={"origin": "https://evil.example"})
    assert foreign.status_code == 403
    assert reviewer.get(f"{path(REVIEWED)}?reason={WHY}&step=blurred").status_code == 200
    assert views(pages) == 0


def test_the_first_step_is_the_strong_blur(pages: Pages, reviewer: Visitor) -> None:
    reviewer.get(path(REVIEWED))
    for step in ("grey", "plain"):
        skipped = reviewer.post(path(REVIEWED), {"reason": WHY, "step": step, "sure": "yes"})
        assert (skipped.status_code, alert(skipped)[:25]) == (422, "Go one step at a time: fi")
        unsure = reviewer.post(path(REVIEWED), {"reason": WHY, "step": step})
        assert (unsure.status_code, alert(unsure)[:12]) == (422, "Tick the box")
    for bad in ({"step": "naked"}, {"frame": "0"}, {"frame": "9"}, {"frame": "-1"}, {"frame": "٣"}):
        assert reviewer.post(path(REVIEWED), {"reason": WHY} | bad).status_code == 422
    assert views(pages) == 0


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (REJECTED, "This picture was rejected. The frames of rejected pictures are erased"),
        (DENIED, "An override denies this picture"),
        (REMOVED, "This picture was removed from the image store"),
        (LISTED, "No scanner has judged this picture"),
    ],
)
def test_of_some_there_is_nothing_to_see_and_the_page_says_why(
    pages: Pages, reviewer: Visitor, image: int, said: str
) -> None:
    page = reviewer.get(path(image))
    assert page.status_code == 200
    assert said in alert(page)
    assert "Look at it" not in page.text
    asked = reviewer.post(path(image), {"reason": WHY})
    assert asked.status_code == 404
    assert said in alert(asked)
    assert "<img" not in asked.text
    assert views(pages) == 0


def test_what_the_audit_does_not_know_is_not_here(reviewer: Visitor) -> None:
    reviewer.get("/account")
    for address in (path(NEVER), path(REVIEWED, "another"), "/picture/default/abc", "/picture/De%20fault/" + "a" * 64):
        assert reviewer.get(address).status_code == 404
        assert reviewer.post(address, {"reason": WHY}).status_code == 404
    assert reviewer.get(f"{path(REVIEWED)}/made-up").status_code == 404


def test_without_kafka_it_says_so_and_nobody_is_said_to_have_looked(pages: Pages, reviewer: Visitor) -> None:
    reviewer.get(path(ACCEPTED))
    answer = reviewer.post(path(ACCEPTED), {"reason": WHY})
    assert answer.status_code == 404
    assert "Kafka, which keeps the frames, did not answer" in alert(answer)
    assert WHY in answer.text  # what was typed is not lost
    assert views(pages) == 0


def test_a_look_and_its_entry_are_written_together_and_bounded_by_day(tmp_path: Path) -> None:
    with pages_with(tmp_path, most_a_day=2) as pages:
        database, by, noon = pages.site.database, Actor("reviewer"), 20_500 * DAY_MS + DAY_MS // 2

        def look(
            image: int, veil: Veil = Veil.BLURRED, *, at: int = noon, who: Actor = by, plain: bool = False
        ) -> None:
            with database.writing() as connection:
                medium = read_medium(connection, "default", sha(image))
                assert medium is not None
                record_view(
                    connection,
                    who,
                    medium,
                    veil,
                    scan_id="s",
                    reason=WHY,
                    frame=0,
                    at=at,
                    plain=plain,
                    most_a_day=2,
                )

        look(REVIEWED)
        look(REVIEWED, Veil.GREY)
        with pytest.raises(ViewRefused, match="one step"):
            look(REVIEWED, Veil.PLAIN)  # not allowed here
        look(REVIEWED, Veil.PLAIN, plain=True)
        with pytest.raises(ViewRefused, match="one step"):
            look(REVIEWED, Veil.GREY, at=noon + STEP_MS + 1)
        with pytest.raises(ViewRefused, match="one step"):
            look(REVIEWED, Veil.GREY, who=Actor("admin"))
        look(ACCEPTED)
        with pytest.raises(ViewRefused, match="2 pictures today"):
            look(LISTED)
        look(REVIEWED, at=noon + 60_000)  # one of today's
        look(LISTED, who=Actor("admin"))
        look(LISTED, at=noon + DAY_MS)
        with database.reading() as connection:
            written = connection.execute(select(VIEWS)).all()
            told = connection.execute(select(ACTIONS).where(ACTIONS.c.what == "picture viewed")).all()
        assert len(written) == len(told) == 7
        assert all(entry.about.startswith("default/") and WHY in entry.detail for entry in told)


def test_reviewers_see_their_own_looks_and_admins_all(tmp_path: Path) -> None:
    with pages_with(tmp_path) as pages:
        for who in ("reviewer", "admin"):
            with pages.site.database.writing() as connection:
                medium = read_medium(connection, "default", sha(REVIEWED))
                assert medium is not None and medium.hidden is None
                record_view(
                    connection,
                    Actor(who),
                    medium,
                    Veil.BLURRED,
                    scan_id="s",
                    reason=f"<b>{who}</b> had to",
                    frame=0,
                    at=now_ms(),
                    plain=False,
                    most_a_day=9,
                )
        with logged_in(pages, "reviewer") as reviewer, logged_in(pages, "admin") as admin:
            own, every = reviewer.get("/views?format=json").json(), admin.get("/views?format=json").json()
            assert [row["who"] for row in own["rows"]] == ["reviewer"]
            assert {row["who"] for row in every["rows"]} == {"reviewer", "admin"}
            assert reviewer.get("/views?who=admin&format=json").json()["rows"] == []
            page = reviewer.get(path(REVIEWED)).text
            assert "&lt;b&gt;admin&lt;/b&gt; had to" in page  # on the picture's own page, everybody who looked
            assert "1 of at most 20 pictures today" in page
            assert 'href="/views"' in page
            html = admin.get("/views").text
            assert "<b>admin" not in html
            assert "grey, strongly blurred" in html


def test_a_medium_is_hidden_by_what_came_last(pages: Pages) -> None:
    with pages.site.database.reading() as connection:
        hidden = {
            image: medium.hidden
            for image in (REVIEWED, REJECTED, ACCEPTED, DENIED, REMOVED, LISTED)
            if (medium := read_medium(connection, "default", sha(image)))
        }
    assert hidden == {
        REVIEWED: None,
        REJECTED: Hidden.REJECTED,
        ACCEPTED: None,
        DENIED: Hidden.DENIED,
        REMOVED: Hidden.REMOVED,
        LISTED: Hidden.NOT_SCANNED,
    }


def test_a_reason_is_kept_in_one_line() -> None:
    assert check_reason("  two\n lines\0here ") == "two lines here"
