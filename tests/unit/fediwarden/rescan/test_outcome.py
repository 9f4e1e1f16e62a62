import pytest

from fediwarden.rescan.outcome import Fate, by_instance
from schemas.broker import Received
from schemas.messages import OverrideEffect, OverrideKind, OverrideSet, RescanJudged, RescanOnly, RescanTier, Stage
from schemas.topics import RESCANS
from tests.unit.fediwarden.rescan.rescans import (
    ACCEPT,
    JUDGED_AT,
    REJECT,
    REVIEW,
    UNTIL,
    again,
    job,
    judged,
    live,
    rescan_stage,
    sha,
)


def test_each_image_is_counted_under_what_was_and_what_would_be_decided() -> None:
    log = judged(again(1, REJECT, at=0), again(2, ACCEPT, at=1), again(3, ACCEPT, at=2), again(4, REVIEW, at=3))
    log.add(live(1, ACCEPT), live(2, REJECT), live(3, ACCEPT), live(4, REVIEW))
    found = log.outcome()
    assert dict(found.decisions) == {
        (ACCEPT, REJECT): 1,
        (REJECT, ACCEPT): 1,
        (ACCEPT, ACCEPT): 1,
        (REVIEW, REVIEW): 1,
    }
    assert (found.counted, found.changed, found.removals, found.released) == (4, 2, 1, 1)
    assert sorted(each.scan_id for each in found.flips()) == ["scan-1", "scan-2"]
    assert {name: (each.before, each.after, each.both) for name, each in found.rules.items()} == {
        "old": (2, 0, 0),
        "new": (0, 2, 0),
    }


def test_the_newest_verdict_of_an_image_counts_whatever_the_order_that_a_rescan_speaks_of_them() -> None:
    log = judged(again(1, ACCEPT, at=1), again(1, REJECT, at=0), again(1, ACCEPT, at=1))
    log.add(live(1, ACCEPT), live(1, REJECT))
    assert dict(log.outcome().decisions) == {(REJECT, ACCEPT): 1}


def test_what_another_rescan_judged_is_nothing_to_this_one() -> None:
    log = judged(again(1, ACCEPT, at=0))
    other = RescanJudged(
        rescan="other", topic="verdicts", partition=0, begin=0, end=9, images=(again(1, REJECT, at=5),), judged_at=1
    )
    log.tally.take_judged(Received(RESCANS, 0, 1, 0, b"", other, None, 1))
    log.add(live(1, ACCEPT))
    assert dict(log.outcome().decisions) == {(ACCEPT, ACCEPT): 1}


@pytest.mark.parametrize("stage", [Stage.LIVE, Stage.BACKLOG, Stage.LIST, Stage.OVERRIDE, Stage.RESCAN])
def test_whatever_was_decided_since_stands(stage: Stage) -> None:
    log = judged(again(1, REJECT, at=0))
    log.add(live(1, ACCEPT), live(1, REJECT, stage=stage, rescan="other" if stage is Stage.RESCAN else ""))
    found = log.outcome()
    assert found.fates == {Fate.OVERTAKEN: 1}
    assert (found.counted, found.removals) == (0, 0)


def test_a_list_that_does_not_refuse_decides_nothing() -> None:
    log = judged(again(1, REJECT, at=0))
    log.add(live(1, ACCEPT), live(1, REVIEW, stage=Stage.LIST, hash_list="known@1"))
    assert log.image(1).fate is Fate.OPEN


def test_another_images_verdicts_overtake_nothing() -> None:
    log = judged(again(1, REJECT, at=0))
    log.add(live(1, ACCEPT), live(2, ACCEPT), live(1, REJECT, tenant="other"))
    assert log.image(1).fate is Fate.OPEN


def test_an_image_whose_verdict_is_not_kept_any_more_is_left_alone() -> None:
    log = judged(again(1, REJECT, at=7))
    log.add(live(2, ACCEPT))
    assert log.outcome().fates == {Fate.GONE: 1}


def test_what_could_not_be_judged_or_was_held_is_counted_by_why() -> None:
    log = judged(again(1, None, at=0, held="incomplete"), again(2, None, at=1, held="override"))
    log.add(live(1, ACCEPT), live(2, REJECT))
    found = log.outcome()
    assert (found.fates, found.held) == ({Fate.HELD: 2}, {"incomplete": 1, "override": 1})


def test_an_override_that_was_set_since_holds() -> None:
    override = OverrideSet(
        effect=OverrideEffect.ALLOW,
        kind=OverrideKind.SHA256,
        hash=sha(1),
        tenant="default",
        set_by="ada",
        reason="harmless",
        set_at=UNTIL,
    )
    log = judged(again(1, REJECT, at=0), again(2, REJECT, at=1), overrides=(override,))
    log.add(live(1, ACCEPT), live(2, ACCEPT))
    found = log.outcome()
    assert (found.held, found.removals) == ({"override": 1}, 1)


def test_what_stays_in_every_respect_needs_no_verdict_and_a_new_policy_alone_does() -> None:
    log = judged(again(1, ACCEPT, at=0, policy=""), again(2, ACCEPT, at=1, policy="p:1"), again(3, ACCEPT, at=2))
    log.add(live(1, ACCEPT), live(2, ACCEPT), live(3, ACCEPT))
    assert [log.image(number).fate for number in (1, 2, 3)] == [Fate.UNCHANGED, Fate.UNCHANGED, Fate.OPEN]
    assert log.outcome().counted == 3


def test_its_own_verdicts_say_what_is_carried_out_and_undone_and_carried_out_again() -> None:
    log = judged(again(1, REJECT, at=0))
    log.add(live(1, ACCEPT))
    for step, fate in enumerate((Fate.APPLIED, Fate.UNDONE, Fate.APPLIED)):
        log.add(rescan_stage(live(1, REJECT), offset=step, judged_at=JUDGED_AT + step))
        assert log.image(1).fate is fate
        assert (log.image(1).stands_at, log.image(1).stands_judged_at) == (step + 1, JUDGED_AT + step)


def test_the_same_said_twice_by_two_who_carry_it_out_is_said_once() -> None:
    log = judged(again(1, REJECT, at=0))
    log.add(live(1, ACCEPT), rescan_stage(live(1, REJECT), offset=0), rescan_stage(live(1, REJECT), offset=0))
    assert (log.image(1).fate, log.image(1).stands_at) == (Fate.APPLIED, 2)
    log.add(rescan_stage(live(1, ACCEPT), offset=2))
    assert log.image(1).fate is Fate.UNDONE


def test_a_verdict_of_its_own_that_crossed_with_a_live_one_counts_for_nothing() -> None:
    log = judged(again(1, REJECT, at=0))
    log.add(live(1, ACCEPT), live(1, ACCEPT), rescan_stage(live(1, REJECT), offset=0))
    assert log.image(1).fate is Fate.OVERTAKEN


def test_what_was_judged_live_after_it_was_carried_out_stands() -> None:
    log = judged(again(1, REJECT, at=0))
    log.add(live(1, ACCEPT), rescan_stage(live(1, REJECT), offset=0), live(1, ACCEPT))
    assert log.image(1).fate is Fate.OVERTAKEN


def test_frames_are_set_beside_the_verdict_that_stood_when_the_rescan_ended() -> None:
    frames = job(RescanTier.FRAMES)
    log = judged(
        again(1, REJECT, at=500, policy="p:1", scores={"m/nsfw": 0.75, "m/new": 0.5}),
        again(2, REJECT, at=501),
        of=frames,
    )
    log.add(live(1, REVIEW), live(1, ACCEPT), live(2, ACCEPT))
    log.add(live(2, ACCEPT), timestamp=UNTIL + 1)
    found = log.outcome()
    assert (log.image(1).fate, log.image(1).base_at, log.image(2).fate) == (Fate.OPEN, 1, Fate.OVERTAKEN)
    assert dict(found.decisions) == {(ACCEPT, REJECT): 1}
    assert found.points == {"m/nsfw": [(0.25, 0.75, ACCEPT, REJECT)], "m/new": [(None, 0.5, ACCEPT, REJECT)]}


def test_of_frames_only_those_images_count_that_stood_as_was_asked() -> None:
    frames = job(RescanTier.FRAMES, only=(RescanOnly.REVIEW,))
    log = judged(again(1, REJECT, at=0), again(2, REJECT, at=1), of=frames)
    log.add(live(1, ACCEPT), live(2, REVIEW))
    assert [log.image(number).fate for number in (1, 2)] == [Fate.OTHER, Fate.OPEN]
    assert log.outcome().decisions == {(REVIEW, REJECT): 1}
    log.add(live(1, REVIEW))
    assert log.image(1).fate is Fate.OPEN, "the newest before the rescan's end"


def test_a_lists_decision_holds_but_for_a_rescan_by_lists() -> None:
    hit = live(1, REJECT, stage=Stage.LIST, hash_list="known@1")
    by_policy = judged(again(1, ACCEPT, at=0))
    by_policy.add(hit)
    assert by_policy.outcome().held == {"list": 1}
    by_list = judged(again(1, REVIEW, at=0, policy="", hash_list="known@2"), of=job(RescanTier.HASHES))
    by_list.add(hit)
    assert dict(by_list.outcome().decisions) == {(REJECT, REVIEW): 1}


def test_flips_are_counted_for_each_instance_that_posted_them() -> None:
    log = judged(again(1, REJECT, at=0), again(2, REJECT, at=1), again(3, ACCEPT, at=2))
    log.add(live(1, ACCEPT), live(2, ACCEPT), live(3, ACCEPT))
    known = {("default", sha(1)): {"a.example", "b.example"}, ("default", sha(3)): {"c.example"}}
    assert by_instance(log.outcome().flips(), known) == {
        "a.example": {(ACCEPT, REJECT): 1},
        "b.example": {(ACCEPT, REJECT): 1},
        "": {(ACCEPT, REJECT): 1},
    }
