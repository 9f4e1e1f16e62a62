# ruff: noqa: E501 - one change a line
"""What is said about the difference between two policies."""

from pathlib import Path

import pytest

from fediwarden.policies.comparing import compare
from scanner.models.loading import every_label
from scanner.policy import load_policy
from tests.unit.scanner.policy.test_judging import CONCEPTS, concepts


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"clip/teen" = 0.25', '"clip/teen" = 0.26', "rule 'two': when: clip/teen above 0.25 becomes clip/teen above 0.26"),
        ('decision = "review"', 'decision = "reject"', "rule 'moving': review becomes reject"),
        ('["animation", "video"]', '["video"]', "rule 'moving': looks at animation and video no more, but at video"),
        ('name = "moving"', 'name = "still"', "rule 'moving' is gone: review when any of young and none of (clip/old"),
        ('name = "moving"', 'name = "still"', "rule 'still' is new: review when any of young and none of (clip/old"),
        ('"an old woman"', '"an old tree"', "prompts 'an old man', 'an old woman' become 'an old man', 'an old tree'"),
        ("by = -0.1", "by = -0.2", "adjustment 'old people': what it changes is different"),
        ("above = 0.3 }", "above = 0.4 }", "adjustment 'old people': when: clip/old above 0.3 becomes clip/old above 0.4"),
        ('when = { score = "clip/old", above = 0.3 }\n', "", "when: clip/old above 0.3 becomes always"),
        ("at_least = 2, of", "at_least = 3, of", "at least 2 of young and a/x at least 0.5 becomes at least 3 of young and"),
        ("Two signs and", "2 signs and", "rule 'two' says something else (the id stays): '2 signs and a classifier.'"),
    ],
)  # fmt: skip
def test_each_change_has_its_sentence(old: str, new: str, said: str) -> None:
    changes = compare(concepts(), concepts(CONCEPTS.replace(old, new, 1)))
    assert any(said in change for change in changes), changes


def test_a_group_that_loses_a_member_is_told_by_the_member() -> None:
    changed = CONCEPTS.replace(', "clip/teen" = 0.25', "").replace('"children", "teen"]', '"children"]')
    changes = compare(concepts(), concepts(changed))
    assert "concept 'clip/teen' is gone" in changes
    assert "rule 'two': when: clip/teen above 0.25 is gone" in changes


def test_between_equals_nothing_is_said() -> None:
    assert compare(concepts(), concepts()) == []


@pytest.mark.parametrize("second", ["strict", "observe"])
def test_policies_with_other_ids_always_differ_in_words(second: str) -> None:
    first, other = (load_policy(Path(name), every_label()) for name in ("default-cpu", second))
    assert first.id != other.id
    assert compare(first, other)
