"""What was done day by day, and how far the recorder is: what an overview is made from."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from federation_audit.store.identities import TextKind
from federation_audit.store.standings import JUDGED_LATE, UNJUDGED, measure_of
from federation_audit.store.tables import DAYS, TEXTS
from schemas.messages import AnsweredBy, Decision, EnforcementOutcome

HOWS = ("accepted", "refused", "unknown")
"""What the one who asked did with an answer."""

_JUDGED = tuple(measure_of(number) for number in range(len(Decision)))
_FLAGGED = _JUDGED[1:]


@dataclass(frozen=True, slots=True)
class Sums:
    """Distinct media by measure (`store.standings`, `store.facts`), of a day or of many.

    Each medium is once in each of `judged` and `answered` kinds, on the day of its latest; views do not add.
    """

    counts: Mapping[str, int]

    @property
    def images(self) -> int:
        """Those that are judged, and those that wait for it."""
        return self._of(_JUDGED) + self.unjudged

    @property
    def flagged(self) -> int:
        """Whose judgement now is review or reject."""
        return self._of(_FLAGGED)

    @property
    def unjudged(self) -> int:
        """Answered without a verdict, and still without one."""
        return self.counts.get(UNJUDGED, 0)

    @property
    def judged_late(self) -> int:
        """Answered without a verdict, and judged since."""
        return self.counts.get(JUDGED_LATE, 0)

    @property
    def removed(self) -> int:
        """Taken off the image store by the enforcer."""
        return self.counts.get(f"enforced:{EnforcementOutcome.REMOVED}", 0)

    @property
    def failed(self) -> int:
        """That no scanner could judge, whatever the reason."""
        return sum(media for measure, media in self.counts.items() if measure.startswith("failed:"))

    def answered(self, by: AnsweredBy, how: str | None = None) -> int:
        """How many were answered so; `how` is one of `HOWS`."""
        return self._of([f"answered:{by}:{each}" for each in ((how,) if how else HOWS)])

    def _of(self, measures: Collection[str]) -> int:
        return sum(self.counts.get(measure, 0) for measure in measures)


def read_sums(connection: Connection, *, since_day: int = 0, tenant: str = "") -> dict[int, Sums]:
    """The sums of each day from `since_day` on that has any, of one tenant or of all."""
    tenants, measures = TEXTS.alias(), TEXTS.alias()
    query = (
        select(DAYS.c.day, measures.c.text, func.sum(DAYS.c.media))
        .join(measures, measures.c.id == DAYS.c.measure_id)
        .where(DAYS.c.day >= since_day)
        .group_by(DAYS.c.day, measures.c.text)
    )
    if tenant:
        query = query.join(tenants, tenants.c.id == DAYS.c.tenant_id).where(tenants.c.text == tenant)
    found: dict[int, dict[str, int]] = defaultdict(dict)
    for day, measure, media in connection.execute(query):
        found[day][measure] = int(media)
    return {day: Sums(counts) for day, counts in found.items()}


def add_up(days: Collection[Sums]) -> Sums:
    """The sums of all of `days`."""
    total: dict[str, int] = defaultdict(int)
    for each in days:
        for measure, media in each.counts.items():
            total[measure] += media
    return Sums(total)


def read_tenants(connection: Connection) -> list[str]:
    """Every tenant that anything is known of, by name."""
    query = select(TEXTS.c.text).where(TEXTS.c.kind == int(TextKind.TENANT)).order_by(TEXTS.c.text)
    return list(connection.scalars(query))
