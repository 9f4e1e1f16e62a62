"""Why a policy decides as it does: every score, every adjustment, every rule, and how far each was from firing."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from scanner.policy import Adjustment, AtLeast, Judgement, MediaKind, Policy, Rule
from scanner.policy.conditions import Condition, Scores, describe, measure


@dataclass(frozen=True, slots=True)
class ScoreShown:
    """A score's highest value over all frames, the frame it is from, and what adjustments made of it there."""

    name: str
    value: float
    frame: int
    adjusted: float


@dataclass(frozen=True, slots=True)
class AdjustmentShown:
    """An adjustment, the frames it was made in, and its margin in the frame that came nearest to it."""

    adjustment: Adjustment
    frames: tuple[int, ...]
    margin: float | None


@dataclass(frozen=True, slots=True)
class ConditionShown:
    """A condition in words with its margin in one frame (it holds from 0 on), and the same of its parts.

    `value` is the score that a threshold is about, None for any other condition.
    """

    words: str
    margin: float
    value: float | None
    parts: tuple["ConditionShown", ...]


@dataclass(frozen=True, slots=True)
class RuleShown:
    """A rule in the frame it saw worst. `applies` says whether it looks at media of this kind at all."""

    rule: Rule
    applies: bool
    frame: int
    condition: ConditionShown

    @property
    def fired(self) -> bool:
        """Whether it takes part in the decision."""
        return self.applies and self.condition.margin >= 0.0


@dataclass(frozen=True, slots=True)
class Explanation:
    """A judgement with everything that led to it."""

    judgement: Judgement
    scores: tuple[ScoreShown, ...]
    adjustments: tuple[AdjustmentShown, ...]
    rules: tuple[RuleShown, ...]


def explain(policy: Policy, frames: Sequence[Scores], kind: MediaKind) -> Explanation:
    """Judge the frames of one file as `Policy.judge` does, and say why. Only scores that the policy uses are shown."""
    adjusted = [policy.adjust(scores) for scores in frames]
    return Explanation(
        judgement=policy.judge(frames, kind),
        scores=tuple(_show_score(name, frames, adjusted) for name in frames[0] if name in policy.scores),
        adjustments=tuple(_show_adjustment(policy, index, frames) for index in range(len(policy.adjustments))),
        rules=tuple(_show_rule(rule, kind, adjusted) for rule in policy.rules),
    )


def _show_score(name: str, frames: Sequence[Scores], adjusted: Sequence[Scores]) -> ScoreShown:
    frame = max(range(len(frames)), key=lambda index: frames[index][name])
    return ScoreShown(name, frames[frame][name], frame, adjusted[frame][name])


def _show_adjustment(policy: Policy, index: int, frames: Sequence[Scores]) -> AdjustmentShown:
    adjustment = policy.adjustments[index]
    if adjustment.when is None:
        return AdjustmentShown(adjustment, tuple(range(len(frames))), None)
    before = replace(policy, adjustments=policy.adjustments[:index])
    margins = [measure(adjustment.when)(before.adjust(scores)) for scores in frames]
    return AdjustmentShown(
        adjustment, tuple(frame for frame, margin in enumerate(margins) if margin >= 0.0), max(margins)
    )


def _show_rule(rule: Rule, kind: MediaKind, adjusted: Sequence[Scores]) -> RuleShown:
    margins = [measure(rule.when)(scores) for scores in adjusted]
    frame = margins.index(max(margins))
    return RuleShown(rule, kind in rule.media, frame, _show_condition(rule.when, adjusted[frame]))


def _show_condition(condition: Condition, scores: Scores) -> ConditionShown:
    margin = measure(condition)(scores)
    if isinstance(condition, AtLeast):
        return ConditionShown(describe(condition), margin, scores[condition.score], ())
    parts = tuple(_show_condition(part, scores) for part in condition.conditions)
    return ConditionShown(describe(condition), margin, None, parts)
