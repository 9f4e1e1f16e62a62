"""Which rejected image a failed request was about."""

import asyncio
import dataclasses

import pytest

from gateway.relay.rejections import SLACK_MS, Failure, Rejections
from schemas.messages import AnsweredBy, AnswerGiven, Decision

NOW = 1_795_000_000_000


def rejected(at: int, *, image: int = 1, tenant: str = "default", accepted: bool | None = False) -> AnswerGiven:
    return AnswerGiven(
        scan_id=f"scan-{image}-{at}",
        tenant=tenant,
        sha256=bytes([image]) * 32,
        status=406,
        decision=Decision.REJECT,
        answered_by=AnsweredBy.VERDICT,
        answered_at=at,
        milliseconds=1.0,
        accepted=accepted,
    )


def failed(
    began: int, ended: int, *, about: str | None = None, settled: list[AnswerGiven | None] | None = None
) -> Failure:
    settle = settled.append if settled is not None else lambda _: None
    return Failure("default", began, ended, about, settle)


def outcome(answers: list[AnswerGiven], failures: list[Failure]) -> AnswerGiven | None:
    """What the first failure is matched with."""

    async def match() -> AnswerGiven | None:
        rejections = Rejections(settle_s=600.0)
        for answer in answers:
            rejections.observe(answer)
        for failure in failures:
            rejections.note(failure)
        found = rejections.match(failures[0])
        rejections.give_up()
        return found

    return asyncio.run(match())


def test_the_only_rejection_in_a_requests_time_is_its_own() -> None:
    answer = rejected(NOW + 50)
    assert outcome([rejected(NOW - 60_000, image=2), answer], [failed(NOW, NOW + 60)]) is answer


@pytest.mark.parametrize(
    "answers",
    [
        [],
        [rejected(NOW + 50), rejected(NOW + 55, image=2)],
        [rejected(NOW + 50, tenant="other")],
        [rejected(NOW + 50, accepted=True)],
        [rejected(NOW + 50, accepted=None)],
        [rejected(NOW - SLACK_MS - 1)],
        [rejected(NOW + 60 + SLACK_MS + 1)],
    ],
)
def test_without_exactly_one_nothing_is_said(answers: list[AnswerGiven]) -> None:
    assert outcome(answers, [failed(NOW, NOW + 60)]) is None


def test_two_requests_that_may_both_be_about_it_leave_it_open() -> None:
    answers = [rejected(NOW + 50)]
    assert outcome(answers, [failed(NOW, NOW + 60), failed(NOW + 10, NOW + 70)]) is None
    assert outcome(answers, [failed(NOW, NOW + 60, about="a"), failed(NOW + 10, NOW + 70, about="b")]) is None


def test_two_views_of_one_address_are_about_the_same_image() -> None:
    answers = [rejected(NOW + 50), rejected(NOW + 65)]
    failures = [failed(NOW, NOW + 60, about="a"), failed(NOW + 10, NOW + 70, about="a")]
    assert outcome(answers, failures) is answers[0]


def test_a_request_at_another_time_is_no_rival() -> None:
    answer = rejected(NOW + 50)
    assert outcome([answer], [failed(NOW, NOW + 60), failed(NOW + 5_000, NOW + 6_000)]) is answer


def test_a_failure_is_settled_once_when_the_ledger_has_had_its_time() -> None:
    settled: list[AnswerGiven | None] = []

    async def wait() -> None:
        rejections = Rejections(settle_s=0.05)
        rejections.note(dataclasses.replace(failed(NOW, NOW + 60), settle=settled.append))
        rejections.observe(rejected(NOW + 50))
        while not settled:
            await asyncio.sleep(0.01)
        rejections.give_up()

    asyncio.run(wait())
    assert settled == [rejected(NOW + 50)]


def test_at_the_end_those_that_wait_are_settled_without_a_match() -> None:
    settled: list[AnswerGiven | None] = []

    async def end() -> None:
        rejections = Rejections(settle_s=600.0)
        rejections.observe(rejected(NOW + 50))
        rejections.note(dataclasses.replace(failed(NOW, NOW + 60), settle=settled.append))
        rejections.give_up()

    asyncio.run(end())
    assert settled == [None]
