"""A dismissal with its override, from the page to a real Kafka's topic; and while Kafka is away."""

import asyncio
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select

from federation_audit.accounts.tables import ACTIONS
from federation_audit.pages.service import Pages
from federation_audit.pages.site import Surroundings
from federation_audit.reviewing.outcomes import Outcome, read_reviewed
from federation_audit.reviewing.tables import ORDERS
from schemas.broker import BrokerSettings, Received, read_history
from schemas.messages import Decision, OverrideEffect, OverrideKind, OverrideSet
from schemas.topics import OVERRIDES
from tests.pages import running_pages
from tests.stores import judged, open_store, pdq, seen, sha, sqlite_url, write
from tests.unit.federation_audit.pages.test_pages import Visitor

pytestmark = pytest.mark.kafka


def standing(kafka: BrokerSettings) -> dict[str, OverrideSet]:
    """What the topic says now, as gateways read it."""
    found: dict[str, OverrideSet] = {}

    def take(record: Received) -> None:
        key = (record.key or b"").decode()
        if isinstance(record.message, OverrideSet):
            found[key] = record.message
        else:
            found.pop(key, None)

    asyncio.run(read_history(kafka, (OVERRIDES,), since_ms=0, on_record=take, client_id="test"))
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A store in which two images look alike, and one is alone."""
    with open_store(sqlite_url(tmp_path)) as store:
        messages = [judged(1, Decision.REJECT), judged(2, Decision.REJECT, looks=[pdq(1, off=3)])]
        write(store, [*messages, judged(3, Decision.REJECT), seen(1, "calm.example")]).release()
    return tmp_path


@pytest.fixture
def visitor() -> Iterator[list[Visitor]]:
    opened: list[Visitor] = []
    yield opened
    for each in opened:
        each.http.close()


def reviewing(pages: Pages, opened: list[Visitor], name: str) -> Visitor:
    made = Visitor(pages.url)
    opened.append(made)
    assert made.log_in(name).status_code == 303
    made.get("/review")
    return made


def key_of(visitor: Visitor, number: int) -> str:
    text = visitor.get(f"/review/default/{sha(number).hex()}").text
    found = re.search(r'name="key" value="([^"]+)"', text)
    assert found
    return found[1]


def test_a_dismissal_reaches_the_topic_and_its_undo_takes_it_back(
    fresh_kafka: BrokerSettings, folder: Path, visitor: list[Visitor]
) -> None:
    with running_pages(folder, surroundings=Surroundings(broker=fresh_kafka)) as pages:
        reviewer = reviewing(pages, visitor, "reviewer")
        sent = {"one": f"dismiss {key_of(reviewer, 1)} 0", "allow": "yes", "note": "a painting"}
        page = reviewer.get(reviewer.post("/review/answer", sent).headers["location"]).text
        assert "2 overrides are in force" in page and "not in force yet" not in page
        found = standing(fresh_kafka)
        assert {each.hash for each in found.values()} == {sha(1), sha(2)}
        for override_id, each in found.items():
            assert override_id == each.override_id
            assert (each.effect, each.kind, each.tenant) == (OverrideEffect.ALLOW, OverrideKind.SHA256, "default")
            assert (each.set_by, each.reason) == ("reviewer", "false positive, by review: a painting")
        answer = re.search(r'name="answer" value="([^"]+)"', page)
        assert answer
        reviewer.post("/review/undo", {"answer": answer[1]})
        assert standing(fresh_kafka) == {}
        with pages.site.database.reading() as connection:
            assert read_reviewed(connection) == {}
            logged = connection.scalars(select(ACTIONS.c.what).where(ACTIONS.c.who == "reviewer")).all()
        assert [each for each in logged if "log" not in each] == [
            "review given",
            "override published",
            "review undone",
            "override published",
        ]
        admin = reviewing(pages, visitor, "admin")
        key = key_of(admin, 3)
        admin.post(
            "/review/default/" + sha(3).hex(),
            {"opinion": "dismiss", "key": key, "allow": "yes", "looks": "yes", "distance": "20"},
        )
        by_kind = {each.kind: each for each in standing(fresh_kafka).values()}
        assert by_kind[OverrideKind.SHA256].hash == sha(3)
        assert (by_kind[OverrideKind.PDQ].hash, by_kind[OverrideKind.PDQ].distance) == (pdq(3), 20)


def test_a_dismissal_while_kafka_is_away_is_saved_and_published_later(
    fresh_kafka: BrokerSettings, folder: Path, visitor: list[Visitor]
) -> None:
    nowhere = fresh_kafka.model_copy(update={"bootstrap_servers": "127.0.0.1:1"})
    with running_pages(folder, surroundings=Surroundings(broker=nowhere)) as pages:
        reviewer = reviewing(pages, visitor, "reviewer")
        for number in (1, 3):
            sent = {"one": f"dismiss {key_of(reviewer, number)} 0", "allow": "yes"}
            page = reviewer.get(reviewer.post("/review/answer", sent).headers["location"]).text
        assert "3 overrides are not in force yet" in page and "0 of 1 override in force" in page
        with pages.site.database.reading() as connection:
            assert {each.outcome for each in read_reviewed(connection).values()} == {Outcome.DISMISSED}
        assert standing(fresh_kafka) == {}
        pages.site.surroundings = replace(pages.site.surroundings, broker=fresh_kafka)  # it is there again
        done = reviewer.post("/review/overrides")
        page = reviewer.get(done.headers["location"]).text
        assert "The overrides are in force" in page and "not in force yet" not in page
        assert {each.hash for each in standing(fresh_kafka).values()} == {sha(1), sha(2), sha(3)}
        with pages.site.database.reading() as connection:
            assert None not in connection.scalars(select(ORDERS.c.published_at)).all()
