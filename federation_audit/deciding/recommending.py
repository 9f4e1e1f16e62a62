"""Recommendations that wait for a person: instances at level 2 or above with no decision in force or due."""

from collections.abc import Collection, Iterable

from federation_audit.statistics.levels import InstanceAssessment, Level


def waiting(assessed: Iterable[InstanceAssessment], decided: Collection[str]) -> list[InstanceAssessment]:
    """Those of `assessed` that wait, the highest level first, then by name; `decided` have a decision that is."""
    found = [each for each in assessed if each.level >= Level.RESTRICT and each.instance not in decided]
    return sorted(found, key=lambda each: (-each.level, each.instance))
