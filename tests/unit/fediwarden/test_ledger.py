import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st

from fediwarden.cli.ledger import _words, as_plain
from fediwarden.cli.reading import progress_of_reading
from fediwarden.cli.times import moment
from fediwarden.ledger import (
    CLOCKS_APART_MS,
    UNJUDGED,
    House,
    Period,
    Removal,
    Statement,
    Tally,
)
from fediwarden.scan_ids import ScanIds
from schemas.broker import Received
from schemas.codec import MessageInvalid
from schemas.messages import (
    AnsweredBy,
    AnswerGiven,
    Decision,
    EnforcementOutcome,
    EnforcementReported,
    ImageFailed,
    Message,
    Stage,
    Verdict,
)
from schemas.topics import ANSWERS, ENFORCEMENTS, IMAGES_DEAD, VERDICTS, TopicSpec
from tests.examples import thorough
from tests.unit.schemas import samples

NOW = 1_795_000_000_000
HOUR = 3_600_000
PERIOD = Period(NOW - 24 * HOUR, NOW)
HOUSE = House(enforced=frozenset({"default"}))


def bytes_of(image: int) -> bytes:
    return hashlib.sha256(str(image).encode()).digest()


def answered(
    scan_id: str, by: AnsweredBy = AnsweredBy.DEADLINE, *, image: int = 0, at: int = NOW - 2 * HOUR, **changes: object
) -> AnswerGiven:
    fields = {"sha256": bytes_of(image), "answered_at": at, "milliseconds": 3000.0, "accepted": True, "carried_by": ""}
    return samples.answer(scan_id=scan_id, answered_by=by, **(fields | changes))


def judged(
    scan_id: str, decision: Decision = Decision.ACCEPT, *, image: int = 0, at: int = NOW - HOUR, **changes: object
) -> Verdict:
    fields = {"sha256": bytes_of(image), "received_at": at - 3000, "judged_at": at}
    return samples.verdict(scan_id=scan_id, decision=decision, **(fields | changes))


def died(scan_id: str, *, image: int = 0, reason: str = "model-failed") -> ImageFailed:
    return ImageFailed(
        scan_id=scan_id,
        tenant="default",
        sha256=bytes_of(image),
        reason=reason,
        topic="images",
        partition=0,
        offset=0,
        failed_at=NOW - HOUR,
    )


def looked(
    outcome: EnforcementOutcome,
    *,
    image: int = 0,
    at: int = NOW - HOUR,
    check: int = 0,
    final: bool = False,
    scan_id: str = "any",
    judged_at: int | None = None,
) -> EnforcementReported:
    return EnforcementReported(
        scan_id=scan_id,
        tenant="default",
        sha256=bytes_of(image),
        outcome=outcome,
        check=check,
        attempt=1,
        final=final,
        judged_at=at if judged_at is None else judged_at,
        enforced_at=at,
    )


TOPICS: dict[type[Message], TopicSpec] = {
    AnswerGiven: ANSWERS,
    Verdict: VERDICTS,
    ImageFailed: IMAGES_DEAD,
    EnforcementReported: ENFORCEMENTS,
}


def received(message: Message) -> Received:
    return Received(TOPICS[type(message)], 0, 0, 0, None, message, None, 1)


def state(*messages: Message, period: Period = PERIOD, house: House = HOUSE) -> Statement:
    tally = Tally(period, house, read_at=NOW)
    for message in messages:
        if isinstance(message, AnswerGiven):
            tally.take_answer(received(message))
    tally.close_answers()
    for message in messages:
        if not isinstance(message, AnswerGiven):
            tally.take_outcome(received(message))
    return tally.statement()


def ids(entries: Sequence[object]) -> list[str]:
    return [each.scan_id for each in entries]  # type: ignore[attr-defined]


def test_every_way_of_answering_is_counted_as_accepted_or_refused():
    answers = [
        answered(f"{by}-{number}", by, accepted=number == 0, image=number) for by in AnsweredBy for number in range(3)
    ]
    statement = state(*answers)
    assert statement.requests == len(answers)
    assert {by: (count.accepted, count.refused) for by, count in statement.answered.items()} == dict.fromkeys(
        AnsweredBy, (1, 2)
    )
    assert len(statement.unjudged) == 3 * len(UNJUDGED)


def test_an_entry_written_twice_is_one_request():
    twice = [answered("a", AnsweredBy.VERDICT), answered("b", AnsweredBy.SPOOLED)] * 2
    assert state(*twice).requests == 2


def test_an_older_entry_is_taken_by_its_status_and_decision():
    old = {"accepted": None, "by": AnsweredBy.VERDICT}
    statement = state(
        answered("a", **old, status=200, decision=Decision.ACCEPT),
        answered("b", **old, status=406, decision=Decision.REVIEW),
        answered("c", **old, status=200, decision=Decision.REJECT),
    )
    assert (statement.answered[AnsweredBy.VERDICT].accepted, statement.answered[AnsweredBy.VERDICT].refused) == (1, 2)


def test_only_the_answers_of_the_period_and_tenant_count():
    inside, outside = PERIOD.since_ms, PERIOD.until_ms
    answers = [
        answered("before", at=inside - 1),
        answered("first", at=inside),
        answered("last", at=outside - 1),
        answered("after", at=outside),
        answered("other", tenant="other"),
    ]
    assert ids(state(*answers).unjudged) == ["first", "other", "last"]
    of_one = Period(PERIOD.since_ms, PERIOD.until_ms, "other")
    assert ids(state(*answers, period=of_one).open) == ["other"]


@pytest.mark.parametrize("by", UNJUDGED)
def test_an_unjudged_image_is_open_until_its_verdict_comes(by):
    answer = answered("a", by, carried_by="a")
    assert ids(state(answer).open) == ["a"]
    statement = state(answer, judged("a", at=answer.answered_at + 5000))
    assert ids(statement.judged) == ["a"]
    assert statement.open == []
    assert statement.judged[0].judged_after_ms == 5000


def test_a_request_that_joined_another_is_judged_by_the_others_verdict():
    statement = state(answered("a", carried_by="b"), judged("b"))
    assert ids(statement.judged) == ["a"]
    assert statement.judged_without_answer == 0


def test_the_same_bytes_judged_since_the_request_came_close_it_and_an_older_verdict_does_not():
    answer = answered("a", carried_by="a")
    arrived = answer.answered_at - 3000
    assert ids(state(answer, judged("x", at=arrived)).judged) == ["a"]
    assert ids(state(answer, judged("x", at=arrived - CLOCKS_APART_MS - 1)).open) == ["a"]
    assert ids(state(answer, judged("x", image=1)).open) == ["a"]
    assert ids(state(answer, judged("x", tenant="other")).open) == ["a"]


def test_of_several_verdicts_the_earliest_counts_for_the_time_and_the_strictest_for_the_outcome():
    answer = answered("a", carried_by="a")
    at = answer.answered_at
    verdicts = [
        judged("a", Decision.REJECT, at=at + 9000),
        judged("a", Decision.REJECT, at=at + 12_000),
        judged("a", Decision.ACCEPT, at=at + 2000),
        judged("a", Decision.REVIEW, at=at + 4000),
    ]
    (each,) = state(answer, *verdicts).judged
    assert (each.decision, each.judged_after_ms, each.refused_at) == (Decision.REJECT, 2000, at + 9000)


def test_a_rescan_is_no_late_judgement_of_a_request():
    again = judged("a", Decision.REJECT, at=NOW - HOUR + 60_000, stage=Stage.RESCAN, rescan="r")
    found = state(answered("a"), judged("a"), again)
    assert ids(found.judged) == ["a"]
    assert found.rejected == []
    assert ids(state(answered("a"), again).open) == ["a"]
    unanswered = judged("b", image=1, at=NOW - HOUR, stage=Stage.RESCAN, rescan="r")
    assert state(answered("a"), unanswered).judged_without_answer == 0


def test_a_verdict_counts_more_than_a_dead_letter_of_another_copy():
    answers = [answered("a", image=1), answered("b", image=2)]
    statement = state(*answers, died("a", image=1), died("b", image=2), judged("b", image=2))
    assert (ids(statement.dead), ids(statement.judged), statement.open) == (["a"], ["b"], [])
    assert statement.dead[0].dead == "model-failed"


def test_a_dead_letter_that_names_no_image_closes_nothing_and_is_counted():
    unnamed = died("images-0-17").model_copy(update={"tenant": "", "sha256": b""})
    statement = state(answered("a"), unnamed)
    assert (statement.dead_unnamed, ids(statement.open)) == (1, ["a"])


def test_what_a_tenant_refuses_counts_as_rejected():
    house = House(refuses=lambda tenant, decision: decision is not Decision.ACCEPT)
    answers = [answered("a", image=1), answered("b", image=2)]
    verdicts = [judged("a", Decision.REVIEW, image=1), judged("b", Decision.ACCEPT, image=2)]
    assert ids(state(*answers, *verdicts, house=house).rejected) == ["a"]
    assert ids(state(*answers, *verdicts).rejected) == []


OUTCOME = EnforcementOutcome


@pytest.mark.parametrize(
    ("outcomes", "removal", "at_last"),
    [
        ([OUTCOME.REMOVED, OUTCOME.ABSENT, OUTCOME.ABSENT], Removal.LOOKING, Removal.REMOVED),
        ([OUTCOME.ABSENT, OUTCOME.REMOVED], Removal.LOOKING, Removal.REMOVED),
        ([OUTCOME.WOULD_REMOVE, OUTCOME.WOULD_REMOVE], Removal.LOOKING, Removal.WOULD_REMOVE),
        ([OUTCOME.ABSENT], Removal.LOOKING, Removal.ABSENT),
        ([OUTCOME.ALLOWED, OUTCOME.ALLOWED], Removal.LOOKING, Removal.ALLOWED),
        ([OUTCOME.ALLOWED, OUTCOME.REMOVED], Removal.LOOKING, Removal.REMOVED),
        ([OUTCOME.FAILED], Removal.FAILING, Removal.ABSENT),
        ([OUTCOME.REMOVED, OUTCOME.FAILED], Removal.FAILING, Removal.REMOVED),
        ([OUTCOME.FAILED, OUTCOME.FAILED, OUTCOME.REMOVED], Removal.LOOKING, Removal.REMOVED),
        ([], Removal.WAITING, Removal.ABSENT),
    ],
)
def test_a_rejected_image_is_unconfirmed_until_the_last_look_and_then_where_the_looks_left_it(
    outcomes, removal, at_last
):
    seen = [answered("a"), judged("a", Decision.REJECT)]
    seen += [looked(outcome, at=NOW - HOUR + number) for number, outcome in enumerate(outcomes)]
    statement = state(*seen)
    assert {each: ids(found) for each, found in statement.removals.items() if found} == {removal: ["a"]}
    assert ids(statement.unconfirmed) == ids(statement.overdue(HOUR - 1)) == ["a"]
    final = looked(OUTCOME.ABSENT, at=NOW - HOUR + 9000, check=3, final=True)
    statement = state(*seen, final)
    assert {each: ids(found) for each, found in statement.removals.items() if found} == {at_last: ["a"]}
    assert statement.unconfirmed == statement.overdue(0) == []


def test_a_last_look_that_failed_settles_nothing():
    seen = [answered("a"), judged("a", Decision.REJECT), looked(OUTCOME.REMOVED, at=NOW - 2 * HOUR)]
    statement = state(*seen, looked(OUTCOME.FAILED, check=3, final=True))
    assert ids(statement.removals[Removal.FAILING]) == ids(statement.unconfirmed) == ["a"]


def test_the_last_look_for_an_earlier_upload_of_the_same_bytes_settles_a_later_one_not():
    answer = answered("b", carried_by="b")
    arrived = answer.answered_at - 3000
    seen = [answer, judged("b", Decision.REJECT)]
    before = {"at": answer.answered_at + 1000, "final": True, "scan_id": "a"}
    early = looked(OUTCOME.ABSENT, judged_at=arrived - CLOCKS_APART_MS - 1, **before)
    assert ids(state(*seen, early).removals[Removal.LOOKING]) == ["b"]
    since = looked(OUTCOME.ABSENT, judged_at=arrived, **before)
    assert ids(state(*seen, since).removals[Removal.ABSENT]) == ["b"]
    slow_clock = looked(OUTCOME.ABSENT, judged_at=1, **before | {"scan_id": "b"})
    assert ids(state(*seen, slow_clock).removals[Removal.ABSENT]) == ["b"]


def test_without_a_pict_rs_a_rejected_image_is_not_looked_for_and_not_overdue():
    statement = state(answered("a"), judged("a", Decision.REJECT), house=House())
    assert ids(statement.removals[Removal.NOT_LOOKED_AT]) == ["a"]
    assert statement.overdue(0) == []


def test_a_look_from_before_the_request_confirms_nothing():
    answer = answered("a")
    early = looked(OUTCOME.REMOVED, at=answer.answered_at - 3000 - CLOCKS_APART_MS - 1)
    statement = state(answer, judged("a", Decision.REJECT), early)
    assert ids(statement.removals[Removal.WAITING]) == ["a"]


def test_overdue_is_what_is_open_or_unconfirmed_for_longer_the_oldest_first():
    answers = [
        answered("young", image=1, at=NOW - HOUR),
        answered("old", image=2, at=NOW - HOUR - 1),
        answered("failing", image=3, at=NOW - 9 * HOUR),
        answered("just rejected", image=4, at=NOW - 9 * HOUR),
        answered("judged", image=5, at=NOW - 9 * HOUR),
    ]
    statement = state(
        *answers,
        judged("failing", Decision.REJECT, image=3, at=NOW - 2 * HOUR),
        looked(OUTCOME.FAILED, image=3),
        judged("just rejected", Decision.REJECT, image=4, at=NOW - HOUR),
        looked(OUTCOME.FAILED, image=4),
        judged("judged", image=5),
    )
    assert ids(statement.overdue(HOUR)) == ["failing", "old"]


def test_a_verdict_without_any_answer_is_told_and_is_no_request():
    answers = [answered("a", AnsweredBy.VERDICT, carried_by="a"), answered("b", AnsweredBy.VERDICT, carried_by="c")]
    verdicts = [judged(scan_id) for scan_id in ("a", "c", "lost", "lost", "gone")]
    statement = state(*answers, *verdicts)
    assert (statement.judged_without_answer, statement.requests) == (2, 2)


def test_a_verdict_whose_answer_falls_outside_the_period_or_may_still_be_written_is_not_told():
    period = Period(NOW - 2 * HOUR, NOW - HOUR)
    late_answer = answered("a", AnsweredBy.VERDICT, at=NOW - HOUR + 1000, milliseconds=2000.0)
    verdict = judged("a", received_at=NOW - HOUR - 1000)
    assert state(late_answer, verdict, period=period).judged_without_answer == 0
    assert state(verdict, period=period).judged_without_answer == 1
    fresh = judged("b", received_at=NOW - 4000)
    assert state(fresh, house=House(in_flight_ms=5000)).judged_without_answer == 0
    assert state(fresh, house=House(in_flight_ms=3000)).judged_without_answer == 1


def test_unreadable_records_are_counted_by_topic():
    tally = Tally(PERIOD, HOUSE, read_at=NOW)
    tally.take_answer(Received(ANSWERS, 0, 0, 0, None, None, MessageInvalid("no"), 1))
    tally.take_answer(Received(ANSWERS, 0, 1, 0, None, judged("a"), None, 1))
    tally.close_answers()
    tally.take_outcome(Received(VERDICTS, 0, 0, 0, None, None, MessageInvalid("no"), 1))
    tally.take_outcome(Received(VERDICTS, 0, 1, 0, None, None, None, 0))
    assert tally.statement().unreadable == {"answers": 2, "verdicts": 1}


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 15))), st.integers(1, 7))
def test_scan_ids_are_counted_once_by_their_lowest_code_and_missing_ones_found(entries, block):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fediwarden.scan_ids._BLOCK", block)
        scan_ids = ScanIds()
        lowest: dict[int, int] = {}
        for number, code in entries:
            scan_ids.add(f"scan-{number}", code)
            lowest[number] = min(code, lowest.get(number, code))
        scan_ids.close()
        codes = list(lowest.values())
        assert scan_ids.count() == {code: codes.count(code) for code in sorted(set(codes))}
    asked = [f"scan-{number}" for number in range(320)]
    assert len(scan_ids.find_missing(asked)) == len(asked) - len(lowest)
    assert scan_ids.find_missing([]) == set()


SCAN_IDS = st.sampled_from([f"scan-{number}" for number in range(6)])
IMAGES = st.integers(0, 2)
MOMENTS = st.integers(NOW - 30 * HOUR, NOW)
MESSAGES = st.one_of(
    st.builds(
        lambda scan_id, by, image, at, accepted, carried_by, tenant: answered(
            scan_id, by, image=image, at=at, accepted=accepted, carried_by=carried_by, tenant=tenant
        ),
        SCAN_IDS,
        st.sampled_from(AnsweredBy),
        IMAGES,
        MOMENTS,
        st.sampled_from([True, False, None]),
        st.one_of(st.just(""), SCAN_IDS),
        st.sampled_from(["default", "other"]),
    ),
    st.builds(
        lambda scan_id, decision, image, at: judged(scan_id, decision, image=image, at=at),
        SCAN_IDS,
        st.sampled_from(Decision),
        IMAGES,
        MOMENTS,
    ),
    st.builds(lambda scan_id, image: died(scan_id, image=image), SCAN_IDS, IMAGES),
    st.builds(
        lambda outcome, image, at, final: looked(outcome, image=image, at=at, final=final),
        st.sampled_from(EnforcementOutcome),
        IMAGES,
        MOMENTS,
        st.booleans(),
    ),
)


@settings(max_examples=thorough(300), deadline=None)
@given(st.lists(MESSAGES, max_size=40))
def test_the_sum_always_adds_up_and_each_request_is_in_exactly_one_class(messages):
    statement = state(*messages)
    inside = {each.scan_id for each in messages if isinstance(each, AnswerGiven) and PERIOD.holds(each.answered_at)}
    assert statement.requests == len(inside)
    by_unjudged = sum(statement.answered[by].all for by in UNJUDGED)
    assert by_unjudged == len(statement.unjudged) == len(set(ids(statement.unjudged)))
    classes = [*ids(statement.judged), *ids(statement.dead), *ids(statement.open)]
    assert sorted(classes) == sorted(ids(statement.unjudged))
    assert sorted(each for found in statement.removals.values() for each in ids(found)) == sorted(
        ids(statement.rejected)
    )
    assert set(ids(statement.rejected)) <= set(ids(statement.judged))
    plain = as_plain(statement, open_after_ms=HOUR)
    assert sum(sum(count.values()) for count in plain["answered"].values()) == plain["requests"]
    unjudged = plain["unjudged"]
    assert sum(unjudged[each]["requests"] for each in ("judged_later", "dead", "open")) == unjudged["requests"]
    assert len(unjudged["open"]["scans"]) == unjudged["open"]["requests"]
    rejected = dict(unjudged["rejected"])
    assert rejected.pop("requests") == sum(rejected.values())
    assert len(unjudged["unconfirmed"]) == sum(rejected[each] for each in ("failing", "looking", "waiting"))
    assert sum(unjudged["judged_later"]["decisions"].values()) == unjudged["judged_later"]["requests"]


@settings(max_examples=thorough(300), deadline=None)
@given(st.lists(MESSAGES, max_size=40))
def test_open_is_exactly_what_no_verdict_and_no_dead_letter_belongs_to(messages):
    kept: dict[str, AnswerGiven] = {}
    for each in messages:
        if isinstance(each, AnswerGiven) and PERIOD.holds(each.answered_at) and each.answered_by in UNJUDGED:
            kept.setdefault(each.scan_id, each)

    def is_closed(answer: AnswerGiven) -> bool:
        carrier = answer.carried_by or answer.scan_id
        arrived = answer.answered_at - 3000
        for each in messages:
            if isinstance(each, ImageFailed) and each.scan_id == carrier:
                return True
            is_same = isinstance(each, Verdict) and (each.tenant, each.sha256) == (answer.tenant, answer.sha256)
            if is_same and (each.scan_id == carrier or each.judged_at >= arrived - CLOCKS_APART_MS):
                return True
        return False

    expected = {scan_id for scan_id, answer in kept.items() if not is_closed(answer)}
    assert set(ids(state(*messages).open)) == expected


def test_the_delays_are_those_within_which_half_95_percent_and_all_were_judged():
    answers = [answered(f"{number}", image=number) for number in range(1, 101)]
    verdicts = [
        judged(f"{number}", image=number, at=answers[0].answered_at + number * 1000) for number in range(1, 101)
    ]
    plain = as_plain(state(*answers, *verdicts), open_after_ms=HOUR)
    after = plain["unjudged"]["judged_later"]["after_seconds"]
    assert after == {"p50": 50.0, "p95": 95.0, "longest": 100.0}
    assert as_plain(state(), open_after_ms=HOUR)["unjudged"]["judged_later"]["after_seconds"] is None


def test_times_are_spans_back_from_now_or_iso_8601():
    assert moment("90s", NOW, "--since") == NOW - 90_000
    assert moment("7d", NOW, "--since") == NOW - 7 * 24 * HOUR
    at = datetime(2026, 11, 23, 18, 0, tzinfo=UTC)
    assert moment("2026-11-23T18:00Z", NOW, "--since") == int(at.timestamp() * 1000)
    local = datetime(2026, 11, 23, 18, 0).astimezone()
    assert moment("2026-11-23T18:00", NOW, "--since") == int(local.timestamp() * 1000)
    for wrong in ("yesterday", "24", "1w", "", "-3h", "1.5h"):
        with pytest.raises(typer.BadParameter, match="--since"):
            moment(wrong, NOW, "--since")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0.0 s"), (59.94, "59.9 s"), (60, "1 min"), (185, "3 min 5 s"), (7800, "2 h 10 min"), (100_000, "1 d 3 h")],
)
def test_spans_are_told_in_two_units(seconds, words):
    assert _words(seconds) == words


@pytest.mark.parametrize(
    ("terminal", "patience_s", "is_shown"), [("1", 0.0, True), ("1", 3600.0, False), ("", 0.0, False)]
)
def test_progress_is_shown_on_a_terminal_once_reading_takes_long(
    terminal, patience_s, is_shown, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("FORCE_COLOR", terminal)
    monkeypatch.setattr("fediwarden.cli.reading._PATIENCE_S", patience_s)
    with progress_of_reading() as show:
        show("answers", 1, 2)
        show("answers", 2, 2)
        show("verdicts", 1, 2)
    out, err = capsys.readouterr()
    assert out == ""
    assert ("reading answers" in err and "reading verdicts" in err) if is_shown else err == ""
