"""An explanation says what the judgement says, and every figure in it can be added up by hand."""

from pathlib import Path

import numpy as np
import pytest

from fediwarden.policies.explaining import explain
from scanner.models.loading import every_embedder, every_label
from scanner.policy import MediaKind, load_policy, shipped_policies
from tests.unit.scanner.policy.test_judging import concepts, similar


def test_scores_adjustments_and_rules_are_shown_with_their_frames_and_distances() -> None:
    frames = [similar(0.21, 0.19, teen=0.1, old=0.2), similar(0.25, 0.3, teen=0.2, old=0.5)]
    explanation = explain(concepts(), frames, MediaKind.ANIMATION)
    scores = {score.name: (score.value, score.frame, score.adjusted) for score in explanation.scores}
    assert scores["clip/child"] == (0.25, 1, 0.25)  # not lowered: its other number counts
    assert scores["clip/old"] == (0.5, 1, 0.5)
    adjustment = explanation.adjustments[0]
    assert (adjustment.frames, adjustment.margin) == ((1,), pytest.approx(0.2))
    two, moving = explanation.rules
    assert (two.fired, two.applies, two.frame) == (True, True, 1)
    assert two.condition.margin == pytest.approx(0.05)
    count, classifier = two.condition.parts
    assert (count.words, classifier.words, classifier.value) == ("at least 2 of young", "a/x at least 0.5", 0.9)
    assert [part.value for part in count.parts] == [0.25, 0.3, 0.2]
    assert not moving.fired
    assert moving.condition.margin == pytest.approx(-0.1)


def test_a_rule_for_other_media_does_not_fire_whatever_its_condition() -> None:
    rule = explain(concepts(), [similar(child=0.9)], MediaKind.IMAGE).rules[1]
    assert (rule.applies, rule.fired) == (False, False)
    assert rule.condition.margin >= 0


@pytest.mark.parametrize("name", shipped_policies())
def test_the_rules_shown_as_fired_are_those_of_the_judgement(name: str) -> None:
    policy = load_policy(Path(name), every_label(), every_embedder())
    random = np.random.default_rng(3)
    for _ in range(200):
        frames = [
            {
                score: float(random.uniform(0.1, 0.3) * (1 + 2 * ("clip" not in score)))
                for score in sorted(policy.scores)
            }
            for _ in range(int(random.integers(1, 4)))
        ]
        explanation = explain(policy, frames, MediaKind.VIDEO)
        fired = [(shown.rule.name, shown.frame) for shown in explanation.rules if shown.fired]
        assert fired == [(rule.name, rule.frame) for rule in explanation.judgement.rules]
