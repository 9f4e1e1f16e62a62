"""Judging: what fires, which frame is worst, what adjustments do, and what the id covers."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner.policy import MediaKind, Policy, media_kind, parse_policy
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


@settings(deadline=None)
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


CONCEPTS = """
[policy]
name = "concepts"
models = ["clip", "a"]

[[concept]]
names = ["child", "children", "teen"]
[[concept]]
name = "old"
prompts = ["an old man", "an old woman"]

[[group]]
name = "young"
above = { "clip/child" = 0.2, "clip/children" = 0.2, "clip/teen" = 0.25 }

[[adjustment]]
name = "old people"
when = { score = "clip/old", above = 0.3 }
change = [
    { score = "clip/child", by = -0.1, unless = { score = "clip/children", above = 0.2 } },
    { score = "clip/children", by = -0.1, unless = { score = "clip/child", above = 0.2 } },
]

[[rule]]
name = "two"
says = "Two signs and a classifier."
decision = "reject"
when = { all = [{ at_least = 2, of = "young" }, { score = "a/x", at_least = 0.5 }] }

[[rule]]
name = "moving"
says = "One sign in something that moves, and nobody old."
decision = "review"
media = ["animation", "video"]
when = { all = [{ any = "young" }, { none = [{ score = "clip/old", at_least = 0.1 }] }] }
"""


def concepts(text: str = CONCEPTS) -> Policy:
    return parse_policy(text, LABELS, source="policy.toml", embedders=("clip",))


def similar(child: float = 0.0, children: float = 0.0, teen: float = 0.0, old: float = 0.0) -> dict[str, float]:
    scores = {"clip/child": child, "clip/children": children, "clip/teen": teen, "clip/old": old}
    return scores | frame(x=0.9)


def test_above_a_threshold_is_more_than_equal() -> None:
    assert concepts().judge([similar(0.2, 0.3)]).decision is Decision.ACCEPT
    assert concepts().judge([similar(0.2000001, 0.3)]).decision is Decision.REJECT


def test_at_least_n_of_a_group_counts_its_members() -> None:
    assert concepts().judge([similar(child=0.3)]).decision is Decision.ACCEPT
    assert concepts().judge([similar(child=0.3, teen=0.3)]).decision is Decision.REJECT


def test_none_fails_as_soon_as_one_of_it_holds_even_just() -> None:
    policy = concepts()
    assert policy.judge([similar(child=0.3, old=0.1)], MediaKind.VIDEO).decision is Decision.ACCEPT
    assert policy.judge([similar(child=0.3, old=0.0999)], MediaKind.VIDEO).decision is Decision.REVIEW


def test_a_control_lowers_scores_only_while_it_is_there_and_each_change_sees_those_before_it() -> None:
    policy = concepts()
    assert policy.judge([similar(0.21, 0.19, teen=0.3, old=0.3)]).decision is Decision.REJECT  # not above 0.3
    assert policy.judge([similar(0.21, 0.19, teen=0.3, old=0.4)]).decision is Decision.ACCEPT
    assert policy.adjust(similar(0.21, 0.19, old=0.4))["clip/children"] == pytest.approx(0.09)
    both = policy.adjust(similar(0.21, 0.22, old=0.4))
    assert (both["clip/child"], both["clip/children"]) == (0.21, 0.22)


def test_reported_scores_are_those_before_adjustments() -> None:
    assert concepts().judge([similar(0.21, 0.19, old=0.4)]).scores["clip/child"] == 0.21


def test_a_rule_looks_only_at_media_of_its_kinds() -> None:
    frames = [similar(child=0.3)]
    assert concepts().judge(frames, MediaKind.IMAGE).decision is Decision.ACCEPT
    assert concepts().judge(frames, MediaKind.ANIMATION).decision is Decision.REVIEW
    assert media_kind("video/mp4", 1) is MediaKind.VIDEO
    assert media_kind("image/gif", 2) is MediaKind.ANIMATION
    assert media_kind("image/gif", 1) is MediaKind.IMAGE


def test_a_policy_says_which_models_scores_and_prompts_it_needs() -> None:
    policy = concepts()
    assert policy.models == {"clip", "a"}
    assert policy.scores == {"clip/child", "clip/children", "clip/teen", "clip/old", "a/x"}
    assert policy.concepts == {
        "clip": {
            "child": ("child",),
            "children": ("children",),
            "teen": ("teen",),
            "old": ("an old man", "an old woman"),
        }
    }


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("an old man", "an elderly man"),
        ("by = -0.1", "by = -0.11"),
        ("above = 0.3 }", "at_least = 0.3 }"),
        ('media = ["animation", "video"]', 'media = ["video"]'),
        ('{ at_least = 2, of = "young" }', '{ all = "young" }'),
        ('"clip/teen" = 0.25', '"clip/teen" = 0.26'),
    ],
)
def test_the_id_covers_prompts_changes_media_and_counts(old: str, new: str) -> None:
    assert concepts(CONCEPTS.replace(old, new, 1)).id != concepts().id


def test_the_id_does_not_cover_what_a_group_is_called_nor_where_its_conditions_are_written() -> None:
    inline = '[{ score = "clip/child", above = 0.2 }, { score = "clip/children", above = 0.2 },'
    inline += ' { score = "clip/teen", above = 0.25 }]'
    group = CONCEPTS[CONCEPTS.index("[[group]]") : CONCEPTS.index("[[adjustment]]")]
    assert concepts(CONCEPTS.replace(group, "").replace('"young"', inline)).id == concepts().id
    assert replace(concepts(), name="other", description="other").id == concepts().id
