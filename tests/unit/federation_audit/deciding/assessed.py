"""An assessment with a level, for what looks at no more of it."""

from datetime import date
from typing import cast

from federation_audit.statistics.levels import Context, Decision, InstanceAssessment, Level, Triage


def of_level(domain: str, level: int) -> InstanceAssessment:
    triage = Triage(300, 6, 1.0, 6.0, 1.0, 4.0, 2.0, 7.0, 0.99)
    decided = Decision(date(2026, 4, 1), None, 300, 10, (), (), (), 0.1, 5.0, tested=True, selected=level == 3)
    return InstanceAssessment(domain, Level(level), triage, decided, None, cast("Context", None))
