import pytest

from fediwarden.rescan.applying import check_removals, is_open, verdict_on
from fediwarden.rescan.errors import TooManyRemovals
from fediwarden.rescan.outcome import Fate
from schemas.codec import decode, encode, schema_of
from schemas.messages import Rejudged, RescanState, RescanTier, RuleFired, Stage, Verdict
from tests.unit.fediwarden.rescan.rescans import (
    ACCEPT,
    JUDGED_AT,
    REJECT,
    RESCAN,
    Log,
    again,
    job,
    judged,
    live,
)


def carry_out(log: Log, *, tier: RescanTier = RescanTier.SCORES, undo: bool = False) -> Verdict:
    """What is published for image 1, written to the log."""
    image = log.image(1)
    assert is_open(image, undo=undo)
    state = RescanState.UNDOING if undo else RescanState.APPLYING
    made = verdict_on(image, log.verdict_at(image.base_at), log.tally, job(tier, state))
    log.add(made)
    assert not is_open(image, undo=undo)
    assert decode(schema_of(made), encode(made)) == made
    return made


def test_the_new_verdict_says_what_the_rescan_judged_of_the_same_image() -> None:
    before = live(1, ACCEPT)
    log = judged(again(1, REJECT, at=0))
    log.add(before)
    made = carry_out(log)
    assert (made.decision, made.policy, [rule.name for rule in made.rules]) == (REJECT, "p:2", ["new"])
    assert (made.stage, made.rescan, made.judged_at) == (Stage.RESCAN, RESCAN, JUDGED_AT)
    assert (made.topic, made.partition, made.offset) == ("verdicts", 0, 0)
    kept = (
        "scan_id",
        "tenant",
        "sha256",
        "models",
        "scores",
        "pdq",
        "pdq_quality",
        "length",
        "media_type",
        "received_at",
    )
    assert all(getattr(made, name) == getattr(before, name) for name in kept)


def test_undone_it_says_what_stood_before_and_is_newer_than_what_it_takes_back() -> None:
    before = live(1, ACCEPT)
    log = judged(again(1, REJECT, at=0))
    log.add(before)
    applied = carry_out(log)
    undone = carry_out(log, undo=True)
    assert (undone.decision, undone.rules, undone.policy, undone.scores) == (ACCEPT, (), "p:1", before.scores)
    assert (undone.offset, undone.judged_at) == (1, applied.judged_at + 1)
    again_ = carry_out(log)
    assert (again_.decision, again_.offset, again_.judged_at) == (REJECT, 2, undone.judged_at + 1)


def test_it_is_newer_than_what_it_replaces_though_that_clock_was_ahead() -> None:
    log = judged(again(1, REJECT, at=0))
    log.add(live(1, ACCEPT, judged_at=JUDGED_AT + 3_600_000))
    assert carry_out(log).judged_at == JUDGED_AT + 3_600_001


def test_a_live_verdict_after_the_judging_is_newer_than_the_rescans() -> None:
    log = judged(again(1, REJECT, at=0))
    log.add(live(1, ACCEPT))
    assert carry_out(log).judged_at < live(1, ACCEPT, judged_at=JUDGED_AT + 1).judged_at


@pytest.mark.parametrize(
    ("tier", "scores", "models"),
    [
        (RescanTier.FRAMES, {"m/nsfw": 0.75}, {"m": "m:2"}),
        (RescanTier.VECTORS, {"m/nsfw": 0.75, "m/gore": 0.5}, {"m": "m:1"}),
    ],
)
def test_new_scores_take_the_place_of_all_only_where_all_was_seen_anew(
    tier: RescanTier, scores: dict[str, float], models: dict[str, str]
) -> None:
    log = judged(again(1, REJECT, at=0, scores={"m/nsfw": 0.75}, worst_frame=3), of=job(tier))
    log.add(live(1, ACCEPT, worst_frame=1))
    made = carry_out(log, tier=tier)
    assert (made.scores, made.models, made.worst_frame) == (scores, models, 3)


def list_hit(**more: object) -> Rejudged:
    rule = RuleFired(name="list:known", decision=REJECT, frame=2)
    return again(1, REJECT, at=0, policy="", hash_list="known@2", rules=(rule,), **more)


def test_a_hit_of_a_list_is_the_lists_alone_and_undone_the_list_lets_the_image_be() -> None:
    log = judged(list_hit(), of=job(RescanTier.HASHES))
    log.add(live(1, ACCEPT))
    made = carry_out(log, tier=RescanTier.HASHES)
    assert (made.hash_list, made.models, made.policy, made.scores) == ("known@2", {}, "", {})
    assert (made.decision, [rule.name for rule in made.rules]) == (REJECT, ["list:known"])
    undone = carry_out(log, tier=RescanTier.HASHES, undo=True)
    assert (undone.decision, undone.hash_list, undone.models, undone.rules) == (ACCEPT, "known@2", {}, ())


def test_what_was_a_lists_before_is_that_lists_again_when_undone() -> None:
    log = judged(list_hit(), of=job(RescanTier.HASHES))
    log.add(live(1, REJECT, stage=Stage.LIST, hash_list="known@1", models={}, policy="", scores={}))
    carry_out(log, tier=RescanTier.HASHES)
    assert carry_out(log, tier=RescanTier.HASHES, undo=True).hash_list == "known@1"


def test_there_is_nothing_to_undo_of_what_was_not_carried_out_or_has_been_judged_since() -> None:
    log = judged(again(1, REJECT, at=0))
    log.add(live(1, ACCEPT))
    assert not is_open(log.image(1), undo=True)
    carry_out(log)
    log.add(live(1, REJECT))
    assert not is_open(log.image(1), undo=True)
    assert log.image(1).fate is Fate.OVERTAKEN


def outcome_with(removals: int, others: int, *, most: int | None = None):
    images = [again(n, REJECT if n < removals else ACCEPT, at=n) for n in range(removals + others)]
    log = judged(*images, of=job(most_removals=most))
    log.add(*(live(n, ACCEPT) for n in range(removals + others)))
    return log.outcome()


@pytest.mark.parametrize(
    ("removals", "others", "rescans", "commands"),
    [(0, 0, None, None), (0, 9, None, None), (1, 19, None, None), (9, 0, None, 9), (9, 0, 9, None), (3, 0, 1, 3)],
)
def test_so_many_may_be_removed(removals: int, others: int, rescans: int | None, commands: int | None) -> None:
    check_removals(outcome_with(removals, others, most=rescans), most_share=0.05, most_removals=commands)


@pytest.mark.parametrize(
    ("removals", "others", "rescans", "commands", "says"),
    [
        (1, 18, None, None, r"1 of 19 images \(5\.3%\).*--max-removals 1"),
        (1, 99, None, 0, "1 images would be removed, and --max-removals allows 0"),
        (2, 99, 1, None, "2 images would be removed, and --max-removals allows 1"),
        (2, 99, 9, 1, "allows 1"),
    ],
)
def test_more_stop_it_and_say_what_to_do(
    removals: int, others: int, rescans: int | None, commands: int | None, says: str
) -> None:
    with pytest.raises(TooManyRemovals, match=says):
        check_removals(outcome_with(removals, others, most=rescans), most_share=0.05, most_removals=commands)
