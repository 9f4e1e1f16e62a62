"""Policies: what fires, which frame is worst, what the id covers, and what a wrong file is told."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanner.policy import Policy, PolicyError, load_policy, parse_policy
from schemas.messages import Decision

LABELS = ("a/x", "a/y", "b/z")
TEXT = """
[policy]
name = "test"

[[rule]]
name = "both"
says = "Both say so."
decision = "reject"
when = { all = [{ score = "a/x", at_least = 0.8 }, { score = "b/z", at_least = 0.5 }] }

[[rule]]
name = "either"
says = "One says so."
decision = "review"
when = { any = [{ score = "a/x", at_least = 0.6 }, { score = "a/y", at_least = 0.6 }] }
"""


def parse(text: str) -> Policy:
    return parse_policy(text, LABELS, source="policy.toml")


def frame(x: float = 0.0, y: float = 0.0, z: float = 0.0) -> dict[str, float]:
    return {"a/x": x, "a/y": y, "b/z": z}


def test_nothing_that_fires_means_accept_and_the_nearest_frame_is_the_worst() -> None:
    judgement = parse(TEXT).judge([frame(0.1), frame(0.5), frame(0.3)])
    assert (judgement.decision, judgement.rules, judgement.worst_frame) == (Decision.ACCEPT, (), 1)


def test_a_threshold_is_reached_by_an_equal_score() -> None:
    assert parse(TEXT).judge([frame(x=0.6)]).decision is Decision.REVIEW


def test_the_strongest_decision_wins_and_every_rule_that_fired_is_listed_with_its_frame() -> None:
    judgement = parse(TEXT).judge([frame(), frame(y=0.99), frame(x=0.85, z=0.6)])
    assert judgement.decision is Decision.REJECT
    assert [(rule.name, rule.frame) for rule in judgement.rules] == [("both", 2), ("either", 1)]
    assert judgement.worst_frame == 2


def test_two_conditions_of_one_rule_must_hold_in_the_same_frame() -> None:
    assert parse(TEXT).judge([frame(x=0.85), frame(z=0.9)]).decision is Decision.REVIEW


def test_the_first_of_equally_bad_frames_is_named() -> None:
    assert parse(TEXT).judge([frame(), frame(x=0.7), frame(x=0.7)]).worst_frame == 1


def test_reported_scores_are_the_highest_of_all_frames() -> None:
    assert parse(TEXT).judge([frame(x=0.2, z=0.3), frame(y=0.4, z=0.1)]).scores == frame(0.2, 0.4, 0.3)


def test_a_policy_without_rules_accepts() -> None:
    assert Policy("none", "", ()).judge([frame(1.0, 1.0, 1.0)]).decision is Decision.ACCEPT


@given(st.lists(st.tuples(*[st.floats(0, 1)] * 3), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_the_order_of_frames_changes_no_decision(frames: list[tuple[float, ...]], random: object) -> None:
    policy = parse(TEXT)
    shuffled = list(frames)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    first = policy.judge([frame(*scores) for scores in frames])
    second = policy.judge([frame(*scores) for scores in shuffled])
    assert (first.decision, first.scores) == (second.decision, second.scores)
    assert {rule.name for rule in first.rules} == {rule.name for rule in second.rules}


def test_the_id_ignores_comments_layout_key_order_and_texts_for_people() -> None:
    other = """
# A comment.
[[rule]]
when.all = [{ at_least = 0.80, score = "a/x" }, { score = "b/z", at_least = 0.5 }]
decision = "reject"
says = "Other words."
name = "both"
[[rule]]
says = "One says so."
decision = "review"
name = "either"
when = { any = [{ score = "a/x", at_least = 0.6 }, { score = "a/y", at_least = 0.6 }] }
[policy]
description = "Something."
name = "other"
"""
    assert parse(other).id == parse(TEXT).id


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("0.8", "0.81"),
        ('decision = "review"', 'decision = "reject"'),
        ("any =", "all ="),
        ('name = "either"', 'name = "one"'),
        ('"a/y"', '"b/z"'),
    ],
)
def test_the_id_changes_with_whatever_decides(old: str, new: str) -> None:
    assert parse(TEXT.replace(old, new)).id != parse(TEXT).id


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            '"a/y"',
            '"a/q"',
            "policy.toml, line 15: rule 'either': no model gives the score 'a/q'; there are a/x, a/y, b/z",
        ),
        (
            '"review"',
            '"block"',
            "policy.toml, line 14: rule 'either': decision is 'block'; it must be accept, review or",
        ),
        (
            "at_least = 0.8",
            "at_least = 1.5",
            "policy.toml, line 9: rule 'both': at_least of 'a/x' must be a number from",
        ),
        ("at_least = 0.8", 'at_least = "x"', "at_least of 'a/x' must be a number"),
        (
            "at_least = 0.8",
            "at_most = 0.8",
            "policy.toml, line 9: rule 'both': a condition has an unknown key 'at_most'",
        ),
        ("says =", "say =", "rule 'both' has an unknown key 'say'; there may be decision, name, says, when"),
        ('name = "either"', 'name = "both"', "there are two rules named 'both'"),
        ('name = "test"', 'nam = "test"', "policy.toml, line 3: [policy] has an unknown key 'nam'"),
        ("[policy]", "[polcy]", "the file has an unknown key 'polcy'"),
        ("decision = ", "decision == ", "not valid TOML: Invalid value (at line 8"),
        ('says = "Both say so."', "", "policy.toml, line 5: rule 'both': 'says' must be there"),
    ],
)
def test_a_wrong_policy_is_refused_with_line_and_remedy(old: str, new: str, said: str) -> None:
    text = TEXT.replace(old, new, 1)
    with pytest.raises(PolicyError) as caught:
        parse(text)
    assert said in str(caught.value)


def test_an_empty_list_of_conditions_and_a_file_without_rules_are_refused() -> None:
    with pytest.raises(PolicyError, match="'any' must be a list of at least one condition"):
        parse(TEXT.split("when = { any", maxsplit=1)[0] + "when = { any = [] }")
    with pytest.raises(PolicyError, match="at least one"):
        parse('[policy]\nname = "x"\n')


def test_a_policy_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"missing\.toml.*scanner\.policy"):
        load_policy(tmp_path / "missing.toml", LABELS)


def test_the_default_policy_names_only_scores_of_the_default_models() -> None:
    policy = load_policy(None, ("safety-s/NSFL", "safety-s/NSFW", "open-nsfw/nsfw"))
    assert [rule.decision for rule in policy.rules].count(Decision.REJECT) == 2
    with pytest.raises(PolicyError, match="no model gives the score 'open-nsfw/nsfw'"):
        load_policy(None, ("safety-s/NSFL", "safety-s/NSFW"))
