"""What is kept of the flagged media, after every change, against what another reader finds who reads all of it anew."""

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select

from federation_audit.accounts.actions import Actor
from federation_audit.assessing import traces
from federation_audit.assessing.traces import Traces, read_traces
from federation_audit.reviewing.answering import answer_media
from federation_audit.reviewing.flagged import Flagged, read_flagged
from federation_audit.reviewing.outcomes import Opinion
from federation_audit.reviewing.settings import ReviewSettings
from federation_audit.reviewing.settled import read_settled
from federation_audit.statistics.events import Confirmation
from federation_audit.store.changes import changed_clusters
from federation_audit.store.engine import Store
from federation_audit.store.periods import as_date
from federation_audit.store.recorder import Recorder
from federation_audit.store.state import read_state
from federation_audit.store.tables import FLAG_CHANGES
from schemas.messages import Decision, Message
from schemas.topics import DAY_MS
from tests.stores import NOON, forgotten, judged, pdq, received, removed, seen, sha

IMAGES, DAYS, STEPS = 14, 60, 40
TENANTS = ("default", "other")
INSTANCES = ("a.example", "b.example", "c.example")
ACTORS = ("", "ann", "bea")
Medium = tuple[str, bytes]


def _some_messages(rng: random.Random) -> list[Message]:
    return [_message(rng) for _ in range(rng.randint(1, 4))]


def _message(rng: random.Random) -> Message:
    image, tenant = rng.randrange(IMAGES), rng.choice(TENANTS)
    at = NOON + rng.randrange(DAYS) * DAY_MS
    kind = rng.random()
    if kind < 0.45:
        decision = rng.choice([Decision.REJECT, Decision.REJECT, Decision.ACCEPT])
        # In steps of 25 bits: neighbours look alike, those two steps apart only by way of the one between them.
        looks = [pdq(image % 4, off=rng.choice([0, 25, 50, 75]))]
        return judged(image, decision, at=at, tenant=tenant, looks=looks)
    if kind < 0.55:
        return removed(image, at=at, aliases=[f"alias{rng.randrange(4)}"], tenant=tenant)
    if kind < 0.6:
        return forgotten(rng.choice(ACTORS[1:]), at=at)
    facts: dict[str, Any] = {"actor": rng.choice(ACTORS), "at": at, "posted": at - rng.randrange(3) * DAY_MS}
    facts |= {"host": rng.choice(INSTANCES), "community": rng.choice(INSTANCES), "tenant": tenant}
    facts |= {"post": f"https://p.example/{rng.randrange(9)}"}
    if kind < 0.7:
        return seen(alias=f"alias{rng.randrange(4)}", author=rng.choice(INSTANCES), **facts)
    return seen(image, rng.choice(INSTANCES), **facts)


def _answer(store: Store, rng: random.Random) -> None:
    """Somebody says something of an image, where it is still there."""
    by, opinion = Actor(rng.choice(["alice", "bob", "eve"])), rng.choice([Opinion.CONFIRM, Opinion.DISMISS])
    media = [sha(rng.randrange(IMAGES))]
    with store.writing() as connection:
        settings = ReviewSettings()
        answer_media(
            connection,
            by,
            rng.choice(TENANTS),
            media,
            opinion,
            note="",
            at=NOON + rng.randrange(10**6),
            settings=settings,
        )


def _rows(flagged: Flagged) -> list[list[tuple[int, ...]]]:
    """The media and who sent them, in an order of their own; those of a tenant's cluster must lie together."""
    assert np.all(np.diff((flagged.tenants << 32) + flagged.clusters) >= 0)
    return [
        sorted(zip(*(column.tolist() for column in columns), strict=True)) for columns in (flagged[:5], flagged[5:])
    ]


def _look(store: Store, confirmed: Sequence[Medium]) -> list[Any]:
    how = dict.fromkeys(confirmed, Confirmation.REVIEWERS)
    with store.reading() as connection:
        found = [_rows(read_flagged(connection)), read_settled(connection)]
        found += [
            dict(traces._kept.get(connection, domain).sightings) for domain in INSTANCES
        ]  # and nothing that is gone
        return found + [read_traces(connection, domain, how) for domain in INSTANCES]


@pytest.mark.parametrize("seed", range(6))
def test_what_is_kept_is_what_is_there(store: Store, database_url: str, seed: int) -> None:
    rng = random.Random(seed)
    recorder = Recorder(store, holder="test", retention_days=20_000)
    now = NOON
    flagged = 0

    def compare() -> int:
        """How many are flagged, in which both readers agree."""
        confirmed = [(rng.choice(TENANTS), sha(rng.randrange(IMAGES))) for _ in range(3)]
        with Store(database_url) as other:
            anew = _look(other, confirmed)
        assert _look(store, confirmed) == anew
        return len(anew[0][0])

    for _ in range(STEPS):
        step = rng.random()
        if step < 0.8:
            recorder.record(received(_some_messages(rng)), {})
        elif step < 0.9:
            _answer(store, rng)
        elif step < 0.97:
            now += rng.randrange(10) * DAY_MS
            recorder = Recorder(store, holder="test", retention_days=15)
            while recorder.tidy(now):
                compare()
        else:
            recorder.clear()
            recorder = Recorder(store, holder="test", retention_days=20_000)
        flagged += bool(compare())
    assert flagged > STEPS // 2, "most of the time something was flagged"


def test_only_what_changed_is_read(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(store, holder="test", retention_days=15)
    many = [judged(image, Decision.REJECT) for image in range(50)]
    recorder.record(received([*many, *(seen(image, "a.example", actor="ann") for image in range(50))]), {})
    _look(store, [])
    monkeypatch.setattr("federation_audit.reviewing.flagged._kept._read", _never)
    monkeypatch.setattr("federation_audit.assessing.traces._kept._read", _never)
    recorder.record(received([judged(3, at=NOON + 1), seen(4, "b.example"), judged(51, Decision.REJECT)]), {})
    flagged, settled, *_, first, second, third = _look(store, [])
    assert (len(flagged[0]), sum(row[-1] for row in flagged[0]), len(flagged[1])) == (51, 50, 51)
    assert [len(each.incidents) for each in (first, second, third)] == [49, 1, 0]
    assert not settled


def test_changes_of_what_is_gone_are_forgotten(store: Store) -> None:
    recorder = Recorder(store, holder="test", retention_days=15)
    recorder.record(received([judged(1, Decision.REJECT), judged(2, Decision.REJECT, at=NOON + 20 * DAY_MS)]), {})
    assert len(_changed(store)) == 2
    while recorder.tidy(NOON + 20 * DAY_MS):
        pass
    assert len(_changed(store)) == 1


def test_too_many_changes_are_read_as_a_whole(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("federation_audit.store.changes.CLUSTERS_MOST", 2)
    recorder = Recorder(store, holder="test", retention_days=15)
    for count in (2, 3):
        with store.reading() as connection:
            since = read_state(connection).flags_change
        recorder.record(received([judged(image, Decision.REJECT, at=NOON + count) for image in range(count)]), {})
        with store.reading() as connection:
            changed = changed_clusters(connection, since)
        assert (changed is None) == (count > 2)


def test_an_instance_of_very_many_sightings_is_read_anew_when_many_more_have_come(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("federation_audit.assessing.traces.SIGHTINGS_MOST", 10)
    recorder = Recorder(store, holder="test", retention_days=15)

    def send(*images: int) -> Traces:
        """These images a day after those before; what is then known of the instance."""
        messages = [
            (judged(each, Decision.REJECT), seen(each, "a.example", at=NOON + each * DAY_MS)) for each in images
        ]
        recorder.record(received([each for pair in messages for each in pair]), {})
        with store.reading() as connection:
            return read_traces(connection, "a.example", {})

    assert send(*range(10)).whole
    newest = send(10)
    assert newest.whole and len(newest.incidents) == 11, "a few more do no harm"
    newest = send(11, 12)
    assert not newest.whole and [each.day for each in newest.incidents] == sorted(
        {as_date(20_000 + each) for each in range(3, 13)}, reverse=True
    )
    grown = send(13)
    assert not grown.whole and grown.incidents[1:] == newest.incidents


def _never(*_: object) -> None:
    raise AssertionError("everything is read")


def _changed(store: Store) -> Sequence[int]:
    with store.reading() as connection:
        return connection.scalars(select(FLAG_CHANGES.c.cluster_id)).all()


def test_what_was_settled_is_not_taken_for_what_has_its_number_now(store: Store) -> None:
    recorder = Recorder(store, holder="test", retention_days=15)
    recorder.record(received([judged(1, Decision.REJECT), seen(1, "a.example")]), {})
    with store.writing() as connection:
        settings = ReviewSettings()
        answer_media(connection, Actor("bob"), "default", [sha(1)], Opinion.DISMISS, note="", at=1, settings=settings)
    assert [each.authors for each in _look(store, [])[1]] == [("a.example",)]
    assert recorder.tidy(NOON + 20 * DAY_MS), "a part of it: the image is taken out"
    recorder = Recorder(store, holder="test", retention_days=15)
    late = NOON + 20 * DAY_MS
    recorder.record(received([judged(2, Decision.REJECT, at=late), seen(2, "b.example", at=late)]), {})
    with store.reading() as connection:
        assert read_flagged(connection).media.tolist() == [1], "the number is used again"
    assert [each.authors for each in _look(store, [])[1]] == [()]
