"""Our format can say what horde-safety says: the same decisions from the same similarities."""

import json
from pathlib import Path

import numpy as np
import pytest

from scanner.policy import load_policy, parse_policy
from schemas.messages import Decision
from tests.unit.scanner.policy import horde_checker, horde_rules

TABLES = 10_000
POLICY = load_policy(Path("horde-parity"), (), ("clip",))


def tables(words: list[str], *, seed: int, decimals: int | None = None) -> list[dict[str, float]]:
    """Similarities round the thresholds (0.19 to 0.26), as pictures give them, a picture's all higher or lower.

    `decimals` rounds them, so that many stand exactly on a threshold.
    """
    random = np.random.default_rng(seed)
    centres = random.uniform(0.13, 0.21, (TABLES, 1))
    values = centres + random.normal(0.0, 0.03, (TABLES, len(words)))
    values = values.clip(0.0, 1.0)
    if decimals is not None:
        values = values.round(decimals)
    return [dict(zip(words, row, strict=True)) for row in values.tolist()]


@pytest.mark.parametrize("decimals", [None, 3])
def test_horde_parity_decides_as_horde_safety_does_on_ten_thousand_tables(decimals: int | None) -> None:
    rejected = 0
    for table in tables(horde_rules.WORDS, seed=5, decimals=decimals):
        wanted = horde_rules.is_csam(table)
        rejected += wanted
        decision = POLICY.judge([{f"clip/{word}": value for word, value in table.items()}]).decision
        assert (decision is Decision.REJECT) == wanted, table
    assert 0.2 < rejected / TABLES < 0.8  # else the tables would show little


@pytest.mark.parametrize("name", [adjustment.name for adjustment in POLICY.adjustments])
def test_each_correction_matters_for_some_of_those_tables(name: str) -> None:
    without = type(POLICY)(
        POLICY.name, "", POLICY.rules, tuple(each for each in POLICY.adjustments if each.name != name), POLICY.concepts
    )
    frames = [{f"clip/{word}": s for word, s in table.items()} for table in tables(horde_rules.WORDS, seed=5)]
    assert any(POLICY.judge([frame]).decision != without.judge([frame]).decision for frame in frames)


def above(thresholds: dict[str, float]) -> str:
    return "{ " + ", ".join(f"{json.dumps(f'clip/{word}')} = {value!r}" for word, value in thresholds.items()) + " }"


def apart(thresholds: dict[str, float]) -> str:
    """Conditions on words, where a word and its other number count as one."""
    conditions = [
        "{ any = [" + ", ".join(f'{{ score = "clip/{word}", above = {thresholds[word]!r} }}' for word in words) + "] }"
        for words in [*horde_checker.PAIRS, *((word,) for word in thresholds)]
        if all(word in thresholds for word in words)
        and (
            len(words) > 1
            or not any(words[0] in pair and set(pair) <= thresholds.keys() for pair in horde_checker.PAIRS)
        )
    ]
    return f"[{', '.join(conditions)}]"


def horde_checker_as_a_policy() -> str:
    rules = horde_checker
    teens = {word: rules.PEOPLE_ALONE[word] for word in ("teen", "teens")}
    hardly = {word: rules.MINORS[word] + rules.SURER_BY[word] * rules.HARDLY for word in rules.DRAWN_MINORS}
    photos = {word: rules.SURELY_PHOTO for word in rules.PREDICATES if "photo" in word}
    surely_drawn = dict.fromkeys(rules.DRAWN, rules.SURELY_DRAWN)
    return f"""
[policy]
name = "horde-checker"
[[concept]]
names = {json.dumps(rules.WORDS)}
[[group]]
name = "drawn-a-little"
above = {above(rules.DRAWN)}
[[group]]
name = "drawn-surely"
at_least = {above(surely_drawn)}
[[group]]
name = "photo"
above = {above(photos)}
[[group]]
name = "drawn"
members = [{{ any = "drawn-surely" }}, {{ all = [{{ any = "drawn-a-little" }}, {{ none = "photo" }}] }}]
[[group]]
name = "lewd"
above = {above(rules.LEWD)}
[[group]]
name = "lewd-drawn"
above = {above(rules.LEWD_DRAWN)}
[[group]]
name = "somebody"
above = {above(rules.PREDICATES)}
[[group]]
name = "surely-minor"
above = {above(rules.SURE_EVERYWHERE)}
[[group]]
name = "half-sure"
members = {apart(rules.HALF_SURE)}
[[group]]
name = "drawn-minor"
members = {apart(teens | hardly)}
[[group]]
name = "drawn-minor-with-shota"
members = {apart(teens | {word: rules.MINORS[word] for word in rules.DRAWN_MINORS})}
[[rule]]
name = "minor-and-lewd"
says = "As horde-safety's checker."
decision = "reject"
when = {{ all = [
    {{ any = "somebody" }},
    {{ any = [
        {{ all = [{{ any = "drawn" }}, {{ any = "lewd-drawn" }}, {{ any = [
            {{ any = "surely-minor" }},
            {{ at_least = 2, of = "drawn-minor" }},
            {{ all = [{{ score = "clip/shota", above = 0.23 }}, {{ at_least = 2, of = "drawn-minor-with-shota" }}] }},
        ] }}] }},
        {{ all = [{{ none = "drawn" }}, {{ any = "lewd" }}, {{ any = [
            {{ any = "surely-minor" }},
            {{ at_least = 2, of = "half-sure" }},
        ] }}] }},
    ] }},
] }}
"""


def test_the_language_also_says_what_horde_safetys_other_check_says() -> None:
    policy = parse_policy(horde_checker_as_a_policy(), (), source="test", embedders=("clip",))
    random = np.random.default_rng(11)
    centres = random.uniform(0.13, 0.2, (TABLES, 1))
    values = (centres + random.normal(0.0, 0.022, (TABLES, len(horde_checker.WORDS)))).clip(0.0, 1.0)
    rejected = 0
    for row in values.tolist():
        table = dict(zip(horde_checker.WORDS, row, strict=True))
        wanted = horde_checker.is_csam(table)
        rejected += wanted
        decision = policy.judge([{f"clip/{word}": value for word, value in table.items()}]).decision
        assert (decision is Decision.REJECT) == wanted, table
    assert 0.2 < rejected / TABLES < 0.8
