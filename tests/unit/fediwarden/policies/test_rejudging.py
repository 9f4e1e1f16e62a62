"""Judging the verdict log anew: what flips, what cannot be judged, and what is only an estimate."""

import hashlib
from collections import Counter

from fediwarden.policies.rejudging import Recount
from scanner.policy import Policy, parse_policy
from schemas.broker import Received
from schemas.clock import now_ms
from schemas.messages import Decision, Message, Stage, Verdict
from schemas.topics import VERDICTS

BOTH = """
[policy]
name = "both"
[[rule]]
name = "both"
says = "Both."
decision = "reject"
when = { all = [{ score = "a/x", at_least = 0.5 }, { score = "a/y", at_least = 0.5 }] }
"""


def policy(text: str = BOTH) -> Policy:
    return parse_policy(text, ["a/x", "a/y", "b/z"], source="test")


FIRST, SECOND = policy(), policy(BOTH.replace("all", "any"))


def verdict(scan_id: str, x: float, y: float, **more: object) -> Received:
    fields: dict[str, object] = {
        "scan_id": scan_id,
        "tenant": "default",
        "sha256": hashlib.sha256(scan_id.encode()).digest(),
        "decision": Decision.ACCEPT,
        "scores": {"a/x": x, "a/y": y},
        "models": {"a": "1"},
        "policy": FIRST.id,
        "stage": Stage.LIVE,
        "scanner": "s",
        "topic": "images",
        "partition": 0,
        "offset": 0,
        "received_at": now_ms(),
        "judged_at": now_ms(),
    }
    return received(Verdict.model_validate(fields | more))


def received(message: Message | None) -> Received:
    return Received(
        topic=VERDICTS, partition=0, offset=0, key=None, message=message, fault=None, timestamp_ms=0, size=0
    )


def recount(*records: Received, second: Policy = SECOND, tenant: str = "") -> Recount:
    counted = Recount(FIRST, second, tenant, examples=2)
    for record in records:
        counted.take(record)
    return counted


def test_flips_are_counted_with_a_few_scan_ids() -> None:
    counted = recount(*(verdict(f"v{n}", 0.9, 0.1) for n in range(3)), verdict("same", 0.1, 0.1), received(None))
    flip = (Decision.ACCEPT, Decision.REJECT)
    assert (counted.single, counted.several, counted.flips) == (4, 0, Counter({flip: 3}))
    assert counted.scan_ids == {flip: ["v0", "v1"]}


def test_pictures_of_several_frames_are_counted_apart() -> None:
    counted = recount(verdict("film", 0.9, 0.1, frame_count=8, media_type="video/mp4"))
    assert (counted.single, counted.several) == (0, 1)
    assert not counted.flips
    assert counted.flips_by_highest == {(Decision.ACCEPT, Decision.REJECT): 1}


def test_a_verdict_without_a_score_that_either_needs_is_not_guessed_at() -> None:
    third = policy(BOTH.replace('"a/y"', '"b/z"'))
    counted = recount(verdict("v", 0.9, 0.9), verdict("none", 0.9, 0.9, scores={}), second=third)
    assert (counted.single, counted.incomplete) == (0, 2)
    assert counted.lacking == {"b/z": 2, "a/x": 1, "a/y": 1}


def test_a_recorded_decision_that_the_kept_scores_do_not_give_is_counted() -> None:
    # 0.5 and 0.5 came from different frames: the policy accepted, their highest scores do not show why.
    apart = verdict("apart", 0.5, 0.5, frame_count=2)
    of_another_policy = verdict("other", 0.5, 0.5, policy="0" * 16)
    assert recount(apart, of_another_policy).unlike_recorded == 1


def test_only_the_wanted_tenants_verdicts_count() -> None:
    counted = recount(verdict("a", 0.9, 0.1), verdict("b", 0.9, 0.1, tenant="little"), tenant="little")
    assert counted.single == 1
