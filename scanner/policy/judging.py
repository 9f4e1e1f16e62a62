"""Judging: from the scores of frames to a decision.

A rule fires when its condition holds in at least one frame, after the adjustments. The strongest decision among the
rules that fired wins (reject, then review, then accept); when none fires the image is accepted.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property, lru_cache
from typing import Any

from scanner.policy.adjustments import Adjustment
from scanner.policy.compiling import Margins, compile_margins
from scanner.policy.conditions import Condition, Margin, Scores, canonical, measure, scores_of
from schemas.messages import Decision, RuleFired

STRENGTH = {Decision.ACCEPT: 0, Decision.REVIEW: 1, Decision.REJECT: 2}


class MediaKind(StrEnum):
    """What a rule may be limited to."""

    IMAGE = "image"
    ANIMATION = "animation"
    VIDEO = "video"


EVERY_KIND = frozenset(MediaKind)


def media_kind(media_type: str, frame_count: int) -> MediaKind:
    """What a file is, by its media type and the number of its different frames."""
    if media_type.startswith("video/"):
        return MediaKind.VIDEO
    return MediaKind.ANIMATION if frame_count > 1 else MediaKind.IMAGE


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule; `says` is the plain sentence that moderators read. It looks at media of the kinds in `media`."""

    name: str
    says: str
    decision: Decision
    when: Condition
    media: frozenset[MediaKind] = EVERY_KIND


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a policy makes of an image.

    `rules` are all that fired, each with the frame (index) it saw worst. `worst_frame` is the worst under the winning
    rules, or, when none fired, the one that came nearest to any. `scores` holds the highest of all frames per
    ``model/label``, as the models gave them: before adjustments.
    """

    decision: Decision
    rules: tuple[RuleFired, ...]
    worst_frame: int
    scores: dict[str, float]


_Measured = tuple[int, Decision, Callable[[int], RuleFired]]
"""A rule's strength and decision, and what is said of it when it fires, by the frame it saw worst."""


@dataclass(frozen=True)
class Policy:
    """A checked policy. One without rules accepts everything.

    `concepts` maps the name of an embedding model to its concepts, and each concept to its prompts: the score
    ``model/concept`` is the cosine similarity of the image and the prompts' mean text feature, cut to 0..1.
    """

    name: str
    description: str
    rules: tuple[Rule, ...]
    adjustments: tuple[Adjustment, ...] = ()
    concepts: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)

    @cached_property
    def id(self) -> str:
        """Digest of what decides: 16 hex digits of SHA-256 over rules, adjustments and concepts in canonical form.

        Comments, layout, the order of keys, the names of groups and the texts for people do not change it.
        """
        rules = [_canonical_rule(rule) for rule in self.rules]
        whole: Any = rules
        if self.adjustments or self.concepts:
            adjustments = [_canonical_adjustment(adjustment) for adjustment in self.adjustments]
            whole = {"rules": rules, "adjustments": adjustments, "concepts": self.concepts}
        return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:16]

    @cached_property
    def scores(self) -> frozenset[str]:
        """Every score that judging looks at; each must be there in every frame."""
        conditions = [rule.when for rule in self.rules]
        conditions += [adjustment.when for adjustment in self.adjustments if adjustment.when is not None]
        changes = [change for adjustment in self.adjustments for change in adjustment.changes]
        conditions += [change.unless for change in changes if change.unless is not None]
        return frozenset(change.score for change in changes).union(*map(scores_of, conditions))

    @cached_property
    def models(self) -> frozenset[str]:
        """The names of the models that the scores come from."""
        return frozenset(score.partition("/")[0] for score in self.scores)

    def judge(self, frames: Sequence[Scores], media: MediaKind = MediaKind.IMAGE) -> Judgement:
        """Judge an image by the scores of its frames: at least one, each with all of `scores`."""
        rules, margins_of = self._compiled[media]
        fired: list[RuleFired] = []
        winning = nearest = None
        for (strength, decision, firing), margins in zip(
            rules, zip(*map(margins_of, frames), strict=True), strict=True
        ):
            highest = max(margins)
            if nearest is None or highest > nearest[0]:
                nearest = (highest, margins)
            if highest < 0.0:
                continue
            fired.append(firing(margins.index(highest)))
            if winning is None or (strength, highest) > winning[:2]:
                winning = (strength, highest, margins, decision)
        worst = winning[2] if winning else nearest[1] if nearest else (0.0,)
        decided = winning[3] if winning else Decision.ACCEPT
        return Judgement(decided, tuple(fired), worst.index(max(worst)), _highest(frames))

    def adjust(self, scores: Scores) -> dict[str, float]:
        """The scores of a frame as the rules see them."""
        adjusted = dict(scores)
        for when, changes in self._adjustments:
            if when is None or when(adjusted) >= 0.0:
                for score, by, unless in changes:
                    if unless is None or unless(adjusted) < 0.0:
                        adjusted[score] += by
        return adjusted

    @cached_property
    def _compiled(self) -> dict[MediaKind, tuple[list[_Measured], Margins]]:
        """For each kind of media what is told of its rules, and the function that gives their margins in a frame."""
        compiled = {}
        for kind in MediaKind:
            rules = [rule for rule in self.rules if kind in rule.media]
            told = [(STRENGTH[rule.decision], rule.decision, _firing(rule)) for rule in rules]
            compiled[kind] = (told, compile_margins(self.adjustments, [rule.when for rule in rules]))
        return compiled

    @cached_property
    def _adjustments(self) -> list[tuple[Margin | None, list[tuple[str, float, Margin | None]]]]:
        return [
            (
                _measure_if_there(adjustment.when),
                [(change.score, change.by, _measure_if_there(change.unless)) for change in adjustment.changes],
            )
            for adjustment in self.adjustments
        ]


def _measure_if_there(condition: Condition | None) -> Margin | None:
    return None if condition is None else measure(condition)


def _firing(rule: Rule) -> Callable[[int], RuleFired]:
    # Each is made once for each frame: its own checks cost more than all else about a rule.
    return lru_cache(maxsize=64)(lambda frame: RuleFired(name=rule.name, decision=rule.decision, frame=frame))


def _highest(frames: Sequence[Scores]) -> dict[str, float]:
    highest = dict(frames[0])
    for scores in frames[1:]:
        for label, score in scores.items():
            if score > highest[label]:
                highest[label] = score
    return highest


def _canonical_rule(rule: Rule) -> list[Any]:
    limited = [] if rule.media == EVERY_KIND else [sorted(rule.media)]
    return [rule.name, rule.decision.value, canonical(rule.when), *limited]


def _canonical_adjustment(adjustment: Adjustment) -> list[Any]:
    changes = [
        [change.score, change.by, None if change.unless is None else canonical(change.unless)]
        for change in adjustment.changes
    ]
    return [None if adjustment.when is None else canonical(adjustment.when), changes]
