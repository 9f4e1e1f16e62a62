"""The newest assessment: made once by whoever asks first, then anew beside those who ask."""

import threading
import time
from datetime import date

import structlog

from federation_audit.assessing.assessor import Assessor
from federation_audit.store.errors import StoreUnavailable
from schemas.messages import Decision
from tests.fediverse import review
from tests.stores import judged, received, seen, sha, write

DAY = date(2024, 10, 10)


def assessor(store, every_s: float = 60.0) -> Assessor:
    return Assessor(store, every_s=every_s, local_domains=["Home.example"], today=lambda: DAY)


def until(condition) -> None:
    give_up_at = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.01)


def test_what_was_made_stands_until_it_is_old_and_then_comes_anew(store):
    recorder = write(store, [judged(1, Decision.REJECT), seen(1, "a.example", actor="x"), seen(2, "home.example")])
    fresh = assessor(store)
    first = fresh.newest()
    assert list(first.assessment.instances) == ["a.example"]
    assert first.assessment.at == DAY
    recorder.record(received([judged(3), seen(3, "b.example")]), {})
    assert fresh.newest() is first
    assert sorted(fresh.refresh().assessment.instances) == ["a.example", "b.example"]
    old = assessor(store, every_s=0.0)
    first = old.newest()
    review(store, [sha(1)])
    until(lambda: old.newest().assessment["a.example"].decision.incidents)
    assert first.assessment["a.example"].decision.incidents == ()


def test_of_many_who_ask_first_all_get_the_same(store):
    write(store, [judged(1), seen(1, "a.example")])
    once, found = assessor(store), []
    threads = [threading.Thread(target=lambda: found.append(once.newest())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len({id(each) for each in found}) == 1


def test_a_database_that_is_away_leaves_the_one_before(store, monkeypatch):
    write(store, [judged(1), seen(1, "a.example")])
    old = assessor(store, every_s=0.0)
    first = old.newest()

    def away():
        raise StoreUnavailable("the database is away")

    with structlog.testing.capture_logs() as logs:
        monkeypatch.setattr(store, "reading", away)
        assert old.newest() is first
        until(lambda: logs)
    assert logs[0]["error"] == "the database is away"
    monkeypatch.undo()
    until(lambda: old.newest() is not first)


def test_nobody_is_given_an_assessment_before_what_is_made_of_it_is_there(store):
    write(store, [judged(1, Decision.REJECT), seen(1, "a.example", actor="x")])
    prepared, going_on = [], threading.Event()

    def prepare(assessed, database):
        assert database is store
        if prepared:
            assert going_on.wait(30)
        prepared.append(assessed)

    fresh = Assessor(store, every_s=0.0, today=lambda: DAY, preparations=[prepare])
    first = fresh.newest()
    assert prepared == [first]
    assert fresh.newest() is first  # the next is being made
    assert fresh.newest() is first
    going_on.set()
    until(lambda: fresh.newest() is not first)
    assert prepared[0] is first
    until(lambda: fresh.newest() in prepared)
