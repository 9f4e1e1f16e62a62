"""The judge itself: what it must find in a record, and what it must let pass."""

import pytest

from schemas.messages import AnsweredBy, AnswerGiven, Decision, ImageFailed, Stage, Verdict
from tests.faults.driver import Kind, Request, Way, paint
from tests.faults.evidence import Evidence, count, find_failed, find_lost, find_open, find_wrongs

SHA = bytes(32)
DEADLINE_S = 3.5


def direct(kind=Kind.CLEAN, status=200, answered_by="verdict", **more):
    return Request(SHA, kind, Way.DIRECT, 1.0, status=status, answered_by=answered_by, scan_id="s1", took_s=0.1, **more)


def upload(kind=Kind.CLEAN, status=201, **more):
    return Request(SHA, kind, Way.UPLOAD, 1.0, status=status, took_s=0.1, **more)


def answer(**more):
    fields = {
        "scan_id": "s1",
        "tenant": "default",
        "sha256": SHA,
        "status": 200,
        "decision": Decision.ACCEPT,
        "answered_by": AnsweredBy.VERDICT,
        "answered_at": 1_000,
        "milliseconds": 90.0,
    }
    return AnswerGiven(**fields | more)


def verdict(decision=Decision.ACCEPT, judged_at=1_000):
    return Verdict(
        scan_id="s1",
        tenant="default",
        sha256=SHA,
        decision=decision,
        scores={},
        models={"colour": "1"},
        policy="p",
        stage=Stage.LIVE,
        scanner="x",
        topic="images",
        partition=0,
        offset=0,
        received_at=0,
        judged_at=judged_at,
    )


def dead():
    return ImageFailed(
        scan_id="s1", sha256=SHA, reason="model-failed", topic="images", partition=0, offset=0, failed_at=1
    )


def evidence(*messages):
    found = Evidence()
    places = {AnswerGiven: found.answers, Verdict: found.verdicts, ImageFailed: found.dead}
    for message in messages:
        places[type(message)][SHA].append(message)
    return found


def test_an_image_that_was_judged_answered_and_recorded_leaves_nothing_to_say():
    request, found = direct(), evidence(answer(), verdict())
    assert find_open([request], found, stored=()) == []
    assert find_wrongs([request], found, (), DEADLINE_S) == []
    assert find_failed([request]) == []
    numbers = count([request], found, ())
    assert (numbers.requests, numbers.answered, numbers.lost) == (1, {"verdict": 1}, 0)


@pytest.mark.parametrize("request_", [direct(answered_by="deadline"), upload()], ids=["direct", "upload"])
def test_an_image_that_was_answered_for_and_never_judged_is_lost(request_):
    found = evidence(answer(answered_by=AnsweredBy.DEADLINE))
    assert find_lost([request_], found) == [request_]
    assert "never judged" in find_open([request_], found, ())[0]
    assert find_lost([request_], evidence(answer(), dead())) == []


def test_an_image_whose_client_heard_nothing_is_lost_only_when_the_ledger_has_its_answer():
    request = Request(SHA, Kind.CLEAN, Way.DIRECT, 1.0, fault="ReadError")
    assert find_lost([request], evidence()) == []
    assert find_lost([request], evidence(answer())) == [request]
    assert find_failed([request]) != []


def test_an_answer_that_is_not_in_the_ledger_or_stands_there_otherwise_is_found():
    assert "not in the topic" in find_open([direct()], evidence(verdict()), ())[0]
    assert "not in the topic" in find_open([upload()], evidence(verdict()), ())[0]
    lying = evidence(answer(answered_by=AnsweredBy.DEADLINE), verdict())
    assert "recorded otherwise" in find_wrongs([direct()], lying, (), DEADLINE_S)[0]


def test_a_rejected_image_in_the_store_is_found_until_it_is_gone_and_counted_as_removed_then():
    request, found = upload(Kind.BAD), evidence(answer(), verdict(Decision.REJECT, judged_at=5_000))
    assert "still in pict-rs" in find_open([request], found, {SHA})[0]
    assert find_open([request], found, ()) == []
    assert (count([request], found, {SHA}).let_in, count([request], found, {SHA}).removed) == (1, 0)
    assert count([request], found, ()).removed == 1


def test_an_innocent_image_that_is_gone_from_the_store_is_found():
    found = evidence(answer(), verdict())
    assert "gone from pict-rs" in find_wrongs([upload()], found, (), DEADLINE_S)[0]
    assert find_wrongs([upload()], found, {SHA}, DEADLINE_S) == []


def test_a_wrong_verdict_and_an_answer_against_its_verdict_are_found():
    assert "judged wrongly" in find_wrongs([direct()], evidence(answer(), verdict(Decision.REJECT)), (), DEADLINE_S)[0]
    told = find_wrongs([direct(Kind.BAD)], evidence(answer(), verdict(Decision.REJECT)), (), DEADLINE_S)
    assert "answered wrongly" in told[0]


def test_a_late_answer_is_found_and_a_late_verdict_is_counted():
    slow = direct(answered_by="deadline")
    slow.took_s = 3.6
    found = evidence(answer(answered_by=AnsweredBy.DEADLINE), verdict(judged_at=8_500))
    assert "later than" in find_wrongs([slow], found, (), DEADLINE_S)[0]
    assert (count([slow], found, ()).judged_late, count([slow], found, ()).judged_late_s) == (1, 7.5)


def test_no_two_painted_pictures_are_the_same_bytes():
    assert len({paint(Kind.CLEAN, number) for number in range(300)}) == 300
