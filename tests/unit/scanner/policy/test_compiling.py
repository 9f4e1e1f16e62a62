"""Compiled rules against the words of their definition: the same verdicts, bit for bit."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner.models.loading import every_embedder, every_label
from scanner.policy import (
    Adjustment,
    AllOf,
    AnyOf,
    AtLeast,
    Change,
    CountOf,
    Judgement,
    MediaKind,
    NoneOf,
    Policy,
    Rule,
    load_policy,
    shipped_policies,
)
from scanner.policy.conditions import Condition
from schemas.messages import Decision, RuleFired
from tests.examples import thorough
from tests.unit.scanner.policy.test_reach import GRID, SCORES, conditions

STRENGTH = [Decision.ACCEPT, Decision.REVIEW, Decision.REJECT]


def margin(condition: Condition, scores: dict[str, float]) -> float:
    if isinstance(condition, AtLeast):
        edge = math.nextafter(condition.threshold, math.inf) if condition.above else condition.threshold
        return scores[condition.score] - edge
    parts = sorted((margin(part, scores) for part in condition.conditions), reverse=True)
    if isinstance(condition, AllOf):
        return parts[-1]
    if isinstance(condition, AnyOf):
        return parts[0]
    if isinstance(condition, CountOf):
        return parts[condition.count - 1]
    assert isinstance(condition, NoneOf)
    return math.nextafter(-parts[0], -math.inf)


def adjust(policy: Policy, scores: dict[str, float]) -> dict[str, float]:
    adjusted = dict(scores)
    for adjustment in policy.adjustments:
        if adjustment.when is not None and margin(adjustment.when, adjusted) < 0:
            continue
        for change in adjustment.changes:
            if change.unless is None or margin(change.unless, adjusted) < 0:
                adjusted[change.score] += change.by
    return adjusted


def judge(policy: Policy, frames: list[dict[str, float]], kind: MediaKind) -> Judgement:
    """One rule after another, one frame after another, nothing shared and nothing left out."""
    fired = []
    decision = Decision.ACCEPT
    winners: list[tuple[float, int]] = []  # the worst frame of each rule that decides as `decision` does
    all_rules: list[tuple[float, int]] = []
    for rule in policy.rules:
        if kind not in rule.media:
            continue
        margins = [margin(rule.when, adjust(policy, scores)) for scores in frames]
        worst = (max(margins), margins.index(max(margins)))
        all_rules.append(worst)
        if worst[0] >= 0:
            fired.append(RuleFired(name=rule.name, decision=rule.decision, frame=worst[1]))
            if len(fired) == 1 or STRENGTH.index(rule.decision) > STRENGTH.index(decision):
                decision, winners = rule.decision, []
            if rule.decision is decision:
                winners.append(worst)
    candidates = winners or all_rules or [(0.0, 0)]
    worst_frame = next(frame for value, frame in candidates if value == max(candidates, key=lambda pair: pair[0])[0])
    highest = {name: max(scores[name] for scores in frames) for name in frames[0]}
    return Judgement(decision, tuple(fired), worst_frame, highest)


def same(policy: Policy, frames: list[dict[str, float]], kind: MediaKind) -> None:
    before = [dict(scores) for scores in frames]
    judgement = policy.judge(frames, kind)
    assert judgement == judge(policy, frames, kind)
    assert list(judgement.scores) == list(frames[0])
    assert frames == before, "the models' scores were changed"


changes = st.builds(Change, st.sampled_from(SCORES), st.sampled_from((-0.25, -0.1, 0.05, 0.25)), st.none() | conditions)
adjustments = st.builds(
    Adjustment, st.just("a"), st.lists(changes, min_size=1, max_size=3).map(tuple), st.none() | conditions
)
media = st.frozensets(st.sampled_from(list(MediaKind)), min_size=1)


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    shared = draw(st.lists(conditions, min_size=1, max_size=3))  # as groups are: in several rules, alone or in others
    some = st.sampled_from(shared) | conditions
    whens = some | st.tuples(some, some).map(AllOf) | st.tuples(some, some).map(AnyOf)
    rules = draw(
        st.lists(st.builds(Rule, st.text("ab"), st.just(""), st.sampled_from(STRENGTH), whens, media), max_size=5)
    )
    named = tuple(replace(rule, name=f"{rule.name}{index}") for index, rule in enumerate(rules))
    return Policy("p", "", named, tuple(draw(st.lists(adjustments, max_size=3))))


values = st.sampled_from(GRID) | st.floats(0, 1)
frames_of = st.lists(st.tuples(*[values] * len(SCORES)), min_size=1, max_size=8).map(
    lambda rows: [dict(zip(SCORES, row, strict=True)) for row in rows]
)


@settings(max_examples=thorough(100), deadline=None)
@given(policies(), frames_of, st.sampled_from(list(MediaKind)))
def test_any_policy_judges_any_frames_by_the_words_of_its_definition(
    policy: Policy, frames: list[dict[str, float]], kind: MediaKind
) -> None:
    same(policy, frames, kind)
    assert [policy.adjust(scores) for scores in frames] == [adjust(policy, scores) for scores in frames]


@pytest.mark.parametrize("decimals", [None, 2])
@pytest.mark.parametrize("name", shipped_policies())
def test_a_shipped_policy_judges_random_tables_by_the_words_of_its_definition(name: str, decimals: int | None) -> None:
    """Rounded, many scores stand exactly on a threshold, and many frames are equally bad."""
    policy = load_policy(Path(name), every_label(), every_embedder())
    random = np.random.default_rng(11)
    names = sorted(policy.scores)
    similar = np.array([each.partition("/")[0] in policy.concepts for each in names])
    for count in (1, 2, 8) * 30:
        values = random.uniform(0.0, 1.0, (count, len(names)))
        values = np.where(similar, 0.1 + 0.15 * values, values) * random.uniform(0.5, 1.0)
        values = values if decimals is None else values.round(decimals)
        same(policy, [dict(zip(names, row, strict=True)) for row in values.tolist()], MediaKind.IMAGE)


def test_names_and_numbers_of_a_policy_never_become_code() -> None:
    name = "a/\"]; raise SystemExit #\n'\\"
    rule = Rule("r", "", Decision.REJECT, AnyOf((AtLeast(name, 0.5), AtLeast("b/{x}", math.inf))))
    policy = Policy("p", "", (rule,), (Adjustment("a", (Change(name, -math.inf, AtLeast("b/{x}", -math.inf)),)),))
    assert policy.judge([{name: 0.5, "b/{x}": 0.0}]).decision is Decision.REJECT
