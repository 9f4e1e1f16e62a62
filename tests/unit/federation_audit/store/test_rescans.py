"""Rescans in the store: each image counts once, whatever is said twice, and in whatever order topics are read."""

import random
from collections import Counter

import pytest

from federation_audit.store import rescans
from federation_audit.store.engine import Store
from federation_audit.store.facts import RESCANS_DAYS
from federation_audit.store.recorder import Recorder
from federation_audit.store.rescans import RuleSaid, Said, Wanted, read_flips, read_instance_flips, read_said
from schemas.broker import Received
from schemas.messages import Decision, Message, RescanOnly, RescanOrdered, RescanState, RescanTier
from schemas.topics import DAY_MS, RESCAN_JOBS
from tests.stores import (
    FAR_BACK,
    NOON,
    RESCAN,
    again,
    content,
    judged,
    ordered,
    received,
    rejudged,
    seen,
    sha,
    write,
)

ACCEPT, REVIEW, REJECT = Decision.ACCEPT, Decision.REVIEW, Decision.REJECT


def said_of(store: Store, job: RescanOrdered) -> Said:
    with store.reading() as connection:
        return read_said(connection, job)


def flipped(store: Store, job: RescanOrdered, wanted: Wanted | None = None) -> list[bytes]:
    with store.reading() as connection:
        return [each.sha256 for each in read_flips(connection, job, wanted or Wanted())[0]]


def test_images_are_counted_by_decision_rule_and_why_they_are_held(store: Store) -> None:
    job = ordered()
    first = rejudged(again(1), again(2, after=REJECT, rules=["a", "b"]), again(3, REJECT, REJECT, rules=["a"]))
    second = rejudged(
        again(4, held="override"), again(5, after=None, held="incomplete"), again(6, after=REJECT, hash_list="bad@1")
    )
    write(store, [job, first, second])
    assert said_of(store, job) == Said(
        spoken=6,
        decisions=Counter({(ACCEPT, ACCEPT): 1, (ACCEPT, REJECT): 2, (REJECT, REJECT): 1}),
        rules={"a": RuleSaid(2, 1), "b": RuleSaid(1, 1), "bad@1": RuleSaid(1, 1)},
        held=Counter({"override": 1, "incomplete": 1}),
    )
    assert said_of(store, job).flips == 2
    assert {*flipped(store, job)} == {sha(2), sha(6)}


def test_an_image_counts_once_by_its_newest_record_and_what_is_said_twice_once(store: Store) -> None:
    job = ordered()
    batches = [
        rejudged(again(1, after=REJECT, offset=10), again(2, after=REJECT, offset=11)),
        rejudged(again(1, offset=20), again(3, offset=21)),
        rejudged(again(1, after=REJECT, offset=10), again(2, after=REJECT, offset=11), at=NOON + 2 * DAY_MS),
        rejudged(again(3, after=REVIEW, offset=30)),
    ]
    write(store, [job], *([each] for each in batches))
    assert said_of(store, job).decisions == {(ACCEPT, ACCEPT): 1, (ACCEPT, REJECT): 1, (ACCEPT, REVIEW): 1}
    assert flipped(store, job) == [sha(2), sha(3)] or flipped(store, job) == [sha(3), sha(2)]
    apart = content(store)
    recorder = Recorder(store, holder="test", retention_days=FAR_BACK)
    recorder.clear()
    Recorder(store, holder="test", retention_days=FAR_BACK).record(received([*batches, job]), {})
    assert content(store) == apart, "a rebuild, in one batch, with the job last"


def test_one_file_of_two_tenants_is_two_images_and_two_rescans_do_not_mix(store: Store) -> None:
    job, other = ordered(), ordered(rescan="other")
    write(store, [job, other, rejudged(again(1, after=REJECT), again(1, after=REVIEW, tenant="more"))])
    write(store, [rejudged(again(1, REJECT, ACCEPT), rescan="other")])
    assert said_of(store, job).decisions == {(ACCEPT, REJECT): 1, (ACCEPT, REVIEW): 1}
    assert said_of(store, other).decisions == {(REJECT, ACCEPT): 1}
    with store.reading() as connection:
        assert {each.tenant for each in read_flips(connection, job, Wanted())[0]} == {"default", "more"}


def test_flips_come_in_parts_newest_first_and_by_their_change(store: Store) -> None:
    job = ordered()
    batches = [
        rejudged(again(number, after=REJECT if number % 2 else REVIEW), at=NOON + DAY_MS + number)
        for number in range(6)
    ]
    write(store, [job, *batches])
    assert flipped(store, job, Wanted(most=2)) == [sha(5), sha(4)]
    assert flipped(store, job, Wanted(start=2, most=2)) == [sha(3), sha(2)]
    assert flipped(store, job, Wanted(most=1, newest_first=False)) == [sha(0)]
    assert flipped(store, job, Wanted((ACCEPT, REVIEW))) == [sha(4), sha(2), sha(0)]
    with store.reading() as connection:
        flips, total = read_flips(connection, job, Wanted((ACCEPT, REJECT), most=1))
        assert (total, flips[0].scan_id, flips[0].before, flips[0].after) == (3, "scan-5", ACCEPT, REJECT)


def test_of_frames_the_store_knows_how_images_stood_before(store: Store) -> None:
    job = ordered(tier=RescanTier.FRAMES)
    live: list[Message] = [
        judged(1),
        judged(2, REVIEW),
        judged(2, ACCEPT, policy="p0", at=NOON - DAY_MS),
        judged(3),
        judged(3, REJECT, policy="p3", at=job.until + 1),
        judged(4, at=job.until + 1),
        judged(7, REJECT),
    ]
    turned = [again(number, None, REJECT, rules=["x"]) for number in (1, 2, 3, 4, 5)]
    said = rejudged(*turned, again(6, None, None), again(7, None))
    messages = [job, said, *live]
    random.Random(7).shuffle(messages)
    write(store, *([each] for each in messages))
    found = said_of(store, job)
    assert found.decisions == {(ACCEPT, REJECT): 2, (REVIEW, REJECT): 1, (None, REJECT): 2}
    assert (found.spoken, found.flips, found.unknown, found.held) == (7, 3, 2, {"incomplete": 1, "erased": 1})
    assert found.rules == {"x": RuleSaid(5, 3)}
    assert {*flipped(store, job)} == {sha(1), sha(2), sha(3)}
    only = ordered(tier=RescanTier.FRAMES, only=(RescanOnly.REVIEW,))
    limited = said_of(store, only)
    assert (limited.decisions[REVIEW, REJECT], limited.decisions[ACCEPT, REJECT], limited.other) == (1, 0, 2)
    assert flipped(store, only) == [sha(2)]


def test_flips_are_counted_for_each_instance_that_surely_posted_the_image(store: Store) -> None:
    job = ordered()
    write(
        store,
        [judged(1), seen(1, "a.example", actor="m"), seen(1, "b.example"), judged(2), seen(2, alias="y.webp")],
        [seen(alias="y.webp", author="a.example"), judged(3), judged(4), seen(4, "a.example")],
        [job, rejudged(again(1, after=REJECT), again(2, after=REVIEW), again(3, after=REVIEW), again(4))],
    )
    with store.reading() as connection:
        assert read_instance_flips(connection, job) == {
            "a.example": {(ACCEPT, REJECT): 1, (ACCEPT, REVIEW): 1},
            "b.example": {(ACCEPT, REJECT): 1},
            "": {(ACCEPT, REVIEW): 1},
        }


def test_the_newest_word_on_a_rescan_stands_without_the_texts_of_its_policies(store: Store) -> None:
    running = ordered(RescanState.RUNNING, policies={"default": "a secret text"}, why="scores are kept")
    write(store, [running])
    with store.reading() as connection:
        assert rescans.read_running(connection) == running.model_copy(update={"policies": {"default": ""}})
    later = ordered(rescan="later", at=NOON + 2 * DAY_MS)
    recorder = write(store, [running.model_copy(update={"state": RescanState.FINISHED}), later])
    with store.reading() as connection:
        assert rescans.read_running(connection) is None
        assert [(each.rescan, each.state) for each in rescans.read_rescans(connection)] == [
            ("later", RescanState.FINISHED),
            (RESCAN, RescanState.FINISHED),
        ]
        assert rescans.read_rescan(connection, "nobody") is None
    recorder.record([Received(RESCAN_JOBS, 0, 9, 0, b"later", None, None, 1)], {})
    with store.reading() as connection:
        assert [each.rescan for each in rescans.read_rescans(connection)] == [RESCAN]


def test_what_its_topic_keeps_no_more_is_taken_out_and_the_rescan_stays(store: Store, monkeypatch) -> None:
    monkeypatch.setattr(rescans, "DROPPED_AT_A_TIME", 2)
    old, new = ordered(), ordered(rescan="new", at=NOON + 80 * DAY_MS)
    recorder = write(
        store,
        [old, rejudged(*(again(number, after=REJECT) for number in range(5)))],
        [new, rejudged(again(1, after=REJECT), rescan="new", at=NOON + 80 * DAY_MS)],
    )
    while recorder.tidy(NOON + RESCANS_DAYS * DAY_MS):
        pass
    assert said_of(store, old).spoken == 5, "ordered a day after that noon"
    while recorder.tidy(NOON + (RESCANS_DAYS + 2) * DAY_MS):
        pass
    assert (said_of(store, old).spoken, flipped(store, old)) == (0, [])
    assert said_of(store, new).decisions == {(ACCEPT, REJECT): 1}
    recorder.record(received([rejudged(again(7))]), {})
    assert said_of(store, old).spoken == 0, "what is older than that is not taken in"
    with store.reading() as connection:
        assert len(rescans.read_rescans(connection)) == 2


@pytest.mark.parametrize("name", ["x" * 3_000, "tab\there", "nul\0there", "ünï" * 600])
def test_names_of_rules_that_no_index_takes_do_not_stop_the_recorder(store: Store, name: str) -> None:
    job = ordered()
    write(store, [job, rejudged(again(1, after=REJECT, rules=["a", name], hash_list=name, held=""))])
    found = said_of(store, job)
    assert found.decisions == {(ACCEPT, REJECT): 1}
    assert "a" in found.rules
