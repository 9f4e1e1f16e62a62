"""How a policy does on labelled pictures: who is confused with whom, and what other thresholds would do."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from fediwarden.policies.intervals import clopper_pearson
from fediwarden.policies.scoring import Scored
from scanner.policy import Policy
from scanner.policy.conditions import measure
from schemas.messages import Decision


@dataclass(frozen=True, slots=True)
class Sample:
    """One labelled picture: what was wanted, what the policy decided, and each measure's highest value.

    The measures are the scores that rules see (after adjustments), and the margin of the rules that reject.
    """

    path: Path
    wanted: Decision
    decided: Decision
    measures: dict[str, float]


@dataclass(frozen=True, slots=True)
class Rate:
    """A share of pictures with its 95 % interval (Clopper-Pearson)."""

    count: int
    total: int

    @property
    def value(self) -> float:
        """The share; 0 of nothing."""
        return self.count / self.total if self.total else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Between what the true rate lies; anywhere, where there is nothing to count."""
        return clopper_pearson(self.count, self.total) if self.total else (0.0, 1.0)


@dataclass(frozen=True, slots=True)
class Point:
    """What one threshold (at least) does: harmless pictures it flags, and bad ones it finds."""

    threshold: float
    false_positives: Rate
    true_positives: Rate


REJECTING = "margin of the rejecting rules"


def try_policy(policy: Policy, scored: Scored, wanted: Decision) -> Sample:
    """Judge one labelled file."""
    judgement = policy.judge(scored.frames, scored.kind)
    adjusted = [policy.adjust(scores) for scores in scored.frames]
    measures = {name: max(scores[name] for scores in adjusted) for name in sorted(policy.scores)}
    rejecting = [
        measure(rule.when) for rule in policy.rules if rule.decision is Decision.REJECT and scored.kind in rule.media
    ]
    if rejecting:
        measures[REJECTING] = max(margin(scores) for margin in rejecting for scores in adjusted)
    return Sample(scored.path, wanted, judgement.decision, measures)


def confusion(samples: Iterable[Sample]) -> Counter[tuple[Decision, Decision]]:
    """Pictures by what was wanted and what was decided."""
    return Counter((sample.wanted, sample.decided) for sample in samples)


def roc(samples: Sequence[Sample], measure: str) -> list[Point]:
    """What each threshold of a measure would do, from one that flags nothing to one that flags everything.

    Harmless are the pictures to accept, bad those to reject; those to review count for neither.
    """
    values = [(sample.measures[measure], sample.wanted) for sample in samples if measure in sample.measures]
    good, bad = (sum(wanted is which for _, wanted in values) for which in (Decision.ACCEPT, Decision.REJECT))
    points = [Point(math.inf, Rate(0, good), Rate(0, bad))]
    flagged: Counter[Decision] = Counter()
    ordered = sorted((value for value in values if value[1] is not Decision.REVIEW), key=lambda pair: -pair[0])
    for index, (value, wanted) in enumerate(ordered):
        flagged[wanted] += 1
        if index + 1 == len(ordered) or ordered[index + 1][0] < value:
            rates = Rate(flagged[Decision.ACCEPT], good), Rate(flagged[Decision.REJECT], bad)
            points.append(Point(value, *rates))
    return points


def area(points: Sequence[Point]) -> float:
    """Area under the curve: how often a bad picture scores higher than a harmless one, ties by half."""
    pairs = [(point.false_positives.value, point.true_positives.value) for point in points]
    return sum((x2 - x1) * (y1 + y2) / 2 for (x1, y1), (x2, y2) in pairwise(pairs))


def threshold_for(points: Sequence[Point], false_positive_rate: float) -> Point:
    """The point that finds most while it flags no more than this share of the harmless pictures."""
    return max(
        (point for point in points if point.false_positives.value <= false_positive_rate),
        key=lambda point: (point.true_positives.count, -point.false_positives.count),
    )
