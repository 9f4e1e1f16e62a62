"""Judging verdicts again: the same as the policy says of the same scores, as lists say of the same hashes."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fediwarden.rescan.judging import (
    VIEWS,
    ConceptScores,
    HashJudge,
    KeptVerdict,
    Placed,
    Rejudging,
    ScoreJudge,
    VectorJudge,
)
from fediwarden.rescan.lookup import ListSearch
from gateway.frames.pdq import turn_hashes
from gateway.lists.definition import ListDefinition
from gateway.lists.hashes import HashSet
from gateway.lists.index import ExactIndex, PdqIndex
from gateway.lists.kinds import HashKind
from gateway.lists.loaded import LoadedList
from gateway.lists.store import Stamp
from gateway.overrides.memory import Overrides
from scanner.concepts import PolicyConcepts
from scanner.policy import Policy, media_kind, parse_policy
from schemas.broker import Received
from schemas.codec import MessageInvalid, decode, encode
from schemas.messages import (
    EVERY_TENANT,
    Decision,
    FeaturesExtracted,
    OverrideEffect,
    OverrideKind,
    OverrideSet,
    RescanOnly,
    RuleFired,
    Stage,
    Verdict,
)
from schemas.topics import OVERRIDES

POLICY = """
[policy]
name = "both"
[[rule]]
name = "both"
says = "Both."
decision = "reject"
when = { all = [{ score = "a/x", at_least = 0.5 }, { score = "a/y", at_least = 0.5 }] }
[[rule]]
name = "moving"
says = "A film of it."
decision = "review"
media = ["video", "animation"]
when = { score = "a/x", at_least = 0.2 }
"""
CONCEPTS = """
[policy]
name = "ideas"
models = ["clip"]
[[concept]]
name = "snow"
prompts = ["snow"]
[[rule]]
name = "snowy"
says = "Snow."
decision = "reject"
when = { score = "clip/snow", at_least = 0.5 }
"""


def policy(text: str = POLICY) -> Policy:
    return parse_policy(text, ["a/x", "a/y"], source="test", embedders=["clip"])


def verdict(**more: object) -> Verdict:
    fields: dict[str, object] = {
        "scan_id": "1",
        "tenant": "default",
        "sha256": bytes(32),
        "decision": Decision.ACCEPT,
        "scores": {"a/x": 0.1, "a/y": 0.1},
        "models": {"a": "1"},
        "policy": "before",
        "stage": Stage.LIVE,
        "scanner": "s",
        "topic": "images",
        "partition": 0,
        "offset": 0,
        "received_at": 1,
        "judged_at": 2,
    }
    return Verdict.model_validate(fields | more)


def kept(offset: int = 0, **more: object) -> Placed:
    """As a worker reads it."""
    read = decode("verdict/1.3", encode(verdict(**more)), VIEWS)
    assert isinstance(read, KeptVerdict)
    return offset, read


SCORE = st.floats(0.0, 1.0).map(lambda value: round(value, 4))


@given(st.lists(st.tuples(SCORE, SCORE, st.integers(1, 8), st.sampled_from(["image/png", "video/mp4"])), max_size=20))
def test_each_is_judged_as_the_policy_says_of_the_same_scores(drawn: list[tuple[float, float, int, str]]) -> None:
    wanted = policy()
    placed = [
        kept(at, scores={"a/x": x, "a/y": y}, frame_count=frames, media_type=kind)
        for at, (x, y, frames, kind) in enumerate(drawn)
    ]
    judged = Rejudging(ScoreJudge({EVERY_TENANT: wanted})).rejudge(placed)
    assert [each.offset for each in judged] == list(range(len(drawn)))
    for each, (x, y, frames, kind) in zip(judged, drawn, strict=True):
        said = wanted.judge([{"a/x": x, "a/y": y}], media_kind(kind, frames))
        assert (each.after, each.rules, each.worst_frame) == (said.decision, said.rules, said.worst_frame)
        assert (each.held, each.policy) == ("", wanted.id)


def test_a_view_refuses_what_the_whole_message_refuses() -> None:
    spoilt = encode(verdict().model_copy(update={"scores": {"a/x": 1.5}}))
    for views in ({}, VIEWS):
        with pytest.raises(MessageInvalid, match=r"verdict/1: field scores\.a/x"):
            decode("verdict/1", spoilt, views)


def test_what_is_missing_or_of_another_model_is_held_and_not_guessed() -> None:
    judge = ScoreJudge({EVERY_TENANT: policy()}, {"a": "1"})
    lacking, other, fine = judge.judge([kept(0, scores={"a/x": 1.0}), kept(1, models={"a": "2"}), kept(2)])
    assert [(each.held, each.after) for each in (lacking, other, fine)] == [
        ("incomplete", None),
        ("incomplete", None),
        ("", Decision.ACCEPT),
    ]


def test_lists_and_moderators_decide_whatever_the_policy() -> None:
    judge = ScoreJudge({EVERY_TENANT: policy()})
    denied = hashlib.sha256(b"denied").digest()
    override = OverrideSet(
        effect=OverrideEffect.DENY, kind=OverrideKind.SHA256, hash=denied, set_by="m", reason="no", set_at=1
    )
    overrides = Overrides(clock=lambda: 10)
    overrides.observe(Received(OVERRIDES, 0, 0, 1, override.override_id.encode(), override, None, 1))
    placed = [kept(0, stage=Stage.LIST), kept(1, stage=Stage.OVERRIDE), kept(2, sha256=denied), kept(3)]
    judged = Rejudging(judge, overrides=overrides).rejudge(placed)
    assert [each.held for each in judged] == ["list", "override", "override", ""]


def test_a_rescan_speaks_only_of_its_tenants_and_decisions() -> None:
    placed = [
        kept(0),
        kept(1, tenant="other"),
        kept(2, decision=Decision.REJECT),
        kept(3, decision=Decision.REVIEW),
    ]
    judge = ScoreJudge({"default": policy()})
    some = Rejudging(judge, tenants=["default"], only=[RescanOnly.ACCEPTED, RescanOnly.REJECTED]).rejudge(placed)
    assert [(each.offset, each.before) for each in some] == [(0, Decision.ACCEPT), (2, Decision.REJECT)]
    assert [each.held for each in judge.judge([placed[1]])] == ["incomplete"], "no policy is for that tenant"


def features(scan_id: str, frames: list[list[float]], model_id: str = "one") -> FeaturesExtracted:
    return FeaturesExtracted(
        scan_id=scan_id,
        tenant="default",
        sha256=bytes(32),
        model="clip",
        model_id=model_id,
        dimensions=2,
        vectors=tuple(np.array(frame, "<f2").tobytes() for frame in frames),
        extracted_at=1,
    )


def test_concepts_are_judged_from_vectors_frame_by_frame_and_never_from_another_models() -> None:
    ideas = policy(CONCEPTS)
    scores = ConceptScores(
        {ideas.id: PolicyConcepts({"clip": (("snow",), np.array([[1.0, 0.0]], np.float32))})}, {"clip": "one"}
    )
    scores.take(features("white", [[0.0, 1.0], [0.6, 0.8]]))
    scores.take(features("green", [[0.0, 1.0]]))
    scores.take(features("strange", [[1.0, 0.0]], model_id="two"))
    assert scores.of_other_models == 1
    judge = VectorJudge({EVERY_TENANT: ideas}, scores)
    # What verdicts keep under a concept's name is not looked at: its texts may have been others.
    white, green, strange, unknown = judge.judge(
        [
            kept(at, scan_id=scan_id, scores={"clip/snow": 0.9}, frame_count=2 if scan_id == "white" else 1)
            for at, scan_id in enumerate(["white", "green", "strange", "unknown"])
        ]
    )
    assert (white.after, white.rules) == (
        Decision.REJECT,
        (RuleFired(name="snowy", decision=Decision.REJECT, frame=1),),
    )
    assert white.scores == {"clip/snow": pytest.approx(0.6, abs=1e-3)}
    assert (green.after, green.scores) == (Decision.ACCEPT, {"clip/snow": 0.0})
    assert [each.held for each in (strange, unknown)] == ["incomplete", "incomplete"]


def loaded(name: str, pdq: list[bytes], sha256: list[bytes] | None = None, action: str = "reject") -> LoadedList:
    hashes = HashSet.of({HashKind.PDQ: pdq, HashKind.SHA256: sha256 or []})
    return LoadedList(
        Stamp(0, 0, 0),
        ListDefinition.model_validate({"name": name, "source": "", "action": action}),
        "v1",
        len(hashes),
        PdqIndex(hashes.rows[HashKind.PDQ]),
        ExactIndex(hashes.rows[HashKind.SHA256]),
        ExactIndex(hashes.rows[HashKind.MD5]),
    )


def test_lists_decide_as_a_gateway_would_now() -> None:
    rng = np.random.default_rng(4)
    listed = rng.bytes(32)
    turned = turn_hashes([listed])[5].tobytes()
    other = rng.bytes(32)
    judge = HashJudge([loaded("bad", [listed], [b"\1" * 32]), loaded("odd", [other], action="review")], ListSearch())
    judged = Rejudging(judge).rejudge(
        [
            kept(0, pdq=(rng.bytes(32), turned), pdq_quality=(90, 90), frame_count=2),
            kept(1, pdq=(listed,), pdq_quality=(49,)),
            kept(2, sha256=b"\1" * 32),
            kept(3, pdq=(other,), pdq_quality=(90,)),
            kept(4, pdq=(other,), pdq_quality=(90,), decision=Decision.REJECT),
            kept(5, stage=Stage.LIST, decision=Decision.REJECT, pdq=(rng.bytes(32),), pdq_quality=(90,)),
            kept(6, stage=Stage.LIST, decision=Decision.REJECT, pdq=(other,), pdq_quality=(90,)),
            kept(7),
        ]
    )
    assert [(each.after, each.held, each.hash_list) for each in judged] == [
        (Decision.REJECT, "", "bad@v1"),
        (Decision.ACCEPT, "", ""),
        (Decision.REJECT, "", "bad@v1"),
        (Decision.REVIEW, "", "odd@v1"),
        (Decision.REJECT, "", ""),
        (None, "list", ""),
        (Decision.REVIEW, "", "odd@v1"),
        (Decision.ACCEPT, "", ""),
    ]
    assert judged[0].rules == (RuleFired(name="list:bad", decision=Decision.REJECT, frame=1),)
