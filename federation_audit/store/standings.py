"""What media add to the tallies, before and after a change.

A tally is the sum of what each medium adds, and what a medium adds follows from its rows alone. So a change is counted
by taking away what its media added before it and adding what they do after it, whatever it was.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from sqlalchemy import Connection, Table, func, select

from federation_audit.store.facts import DECISIONS, FLAGGED_FROM, RECEIVED, RELISTED, RESCANNED, Role
from federation_audit.store.identities import Identities, TextKind
from federation_audit.store.periods import first_day
from federation_audit.store.rows import increase, remove, rows_among
from federation_audit.store.tables import DAYS, JOINS, JUDGEMENTS, MARKS, MEDIA, PERIODS, SIGHTINGS, STRATA, TALLIES
from schemas.messages import AnsweredBy
from schemas.topics import DAY_MS

NOW = 0
"""The stratum of the state now."""

NOBODY = 0
"""The instance of media whose author's instance is not known."""

UNJUDGED = "unjudged"
JUDGED_LATE = "judged_late"
_UNJUDGED_BY = (AnsweredBy.DEADLINE, AnsweredBy.OVERLOAD, AnsweredBy.SPOOLED)


@dataclass(slots=True)
class Standing:
    """A medium's rows, as far as they count. A judgement's stratum comes with what decides between equal times.

    `seen` gives the first day (authors alone, 0 else) of each role and instance.
    """

    tenant_id: int
    judgements: list[tuple[int, str, int, int]] = field(default_factory=list)
    marks: list[tuple[int, int]] = field(default_factory=list)
    seen: dict[tuple[int, int], int] = field(default_factory=dict)


def measure_of(decision: int) -> str:
    """The sum by day of the media whose state now is `decision`."""
    return f"judged:{DECISIONS[decision].value}"


class Tallies:
    """Reads standings, and writes what they add. Belongs to one writer, as `Identities` does."""

    def __init__(self, connection: Connection, identities: Identities) -> None:
        unjudged = [f"answered:{by}:{how}" for by in _UNJUDGED_BY for how in ("accepted", "refused", "unknown")]
        measures = [measure_of(number) for number in range(len(DECISIONS))]
        rescans = (RESCANNED, RELISTED, RECEIVED)
        ids = identities.texts(connection, TextKind.MARK, [*unjudged, *measures, UNJUDGED, JUDGED_LATE, *rescans])
        self._unjudged = {ids[text] for text in unjudged}
        self._judged = [ids[text] for text in measures]
        self._open, self._late = ids[UNJUDGED], ids[JUDGED_LATE]
        self._rescanned, self._relisted, self._received = (ids[text] for text in rescans)
        self._order: dict[int, tuple[str, str, str]] = {}

    def read(self, connection: Connection, media: Collection[int]) -> dict[int, Standing]:
        """The standings of those of `media` that are media."""
        found: dict[int, Standing] = {}
        its_tenant = select(MEDIA.c.id, MEDIA.c.tenant_id)
        for medium, tenant_id in rows_among(connection, its_tenant, MEDIA.c.id, media):
            found[medium] = Standing(tenant_id)
        judged = select(
            JUDGEMENTS.c.media_id,
            JUDGEMENTS.c.judged_at,
            JUDGEMENTS.c.scan_id,
            JUDGEMENTS.c.decision,
            JUDGEMENTS.c.stratum_id,
        )
        for medium, at, scan_id, decision, stratum in rows_among(connection, judged, JUDGEMENTS.c.media_id, found):
            found[medium].judgements.append((at, scan_id, decision, stratum))
        marked = select(MARKS.c.media_id, MARKS.c.mark_id, MARKS.c.at)
        for medium, mark, at in rows_among(connection, marked, MARKS.c.media_id, found):
            found[medium].marks.append((mark, at))
        place = (SIGHTINGS.c.role, SIGHTINGS.c.instance_id)
        own = (
            select(SIGHTINGS.c.subject_id, *place, func.min(SIGHTINGS.c.day))
            .where(SIGHTINGS.c.sure > 0)
            .group_by(SIGHTINGS.c.subject_id, *place)
        )
        joined = (
            select(JOINS.c.media_id, *place, func.min(SIGHTINGS.c.day))
            .join(SIGHTINGS, SIGHTINGS.c.subject_id == JOINS.c.name_id)
            .where(SIGHTINGS.c.sure > 0)
            .group_by(JOINS.c.media_id, *place)
        )
        for query, column in ((own, SIGHTINGS.c.subject_id), (joined, JOINS.c.media_id)):
            for medium, role, instance, day in rows_among(connection, query, column, found):
                seen = found[medium].seen
                seen[role, instance] = min(day, seen.get((role, instance), day))
        return found

    def current(self, connection: Connection, standing: Standing) -> tuple[int, int] | None:
        """Decision and time of the newest judgement; None where there is none."""
        judgements = standing.judgements
        if len(judgements) > 1:
            names = self._names(connection, standing)
            newest = max(judgements, key=lambda each: (*each[:3], names[each[3]]))
        elif judgements:
            newest = judgements[0]
        else:
            return None
        return newest[2], newest[0]

    def _names(self, connection: Connection, standing: Standing) -> Mapping[int, tuple[str, str, str]]:
        """Models, policy and hash list of each stratum, at least of those of `standing`."""
        if any(stratum not in self._order for *_, stratum in standing.judgements):
            self._order = {row.id: tuple(row)[1:] for row in connection.execute(select(STRATA))}
        return self._order

    def _counted(self, connection: Connection, standing: Standing) -> list[tuple[int, int, int]]:
        """Day, decision and stratum of each judgement that counts in its stratum.

        What a rescan judged counts there alone, on the day of the image: what judged it before counts no more, but for
        the hits of hash lists. A list's hit that a rescan has taken back is none.
        """
        marks = dict(standing.marks)
        rescanned, relisted = marks.get(self._rescanned, 0), marks.get(self._relisted, 0)
        if not rescanned and not relisted:
            return [(at // DAY_MS, decision, stratum) for at, _, decision, stratum in standing.judgements]
        names = self._names(connection, standing)
        counted = []
        for at, _, decision, stratum in standing.judgements:
            is_list = not names[stratum][0]
            if (decision >= FLAGGED_FROM or not relisted) if is_list else at >= rescanned:
                counted.append((self._day(marks, at), decision, stratum))
        return counted

    def _day(self, marks: Mapping[int, int], judged_at: int) -> int:
        """The day that a judgement of `judged_at` counts on."""
        by_rescan = judged_at in (marks.get(self._rescanned), marks.get(self._relisted))
        return (marks.get(self._received, judged_at) if by_rescan else judged_at) // DAY_MS

    def write(self, connection: Connection, before: Mapping[int, Standing], after: Mapping[int, Standing]) -> None:
        """Take away what the media of `before` added, and add what those of `after` do."""
        tallies: dict[tuple[int, int, int], list[int]] = defaultdict(lambda: [0, 0])
        periods: dict[tuple[int, int, int], list[int]] = defaultdict(lambda: [0, 0])
        days: dict[tuple[int, int, int], int] = defaultdict(int)
        for medium, standing in after.items():
            earlier = before.get(medium)
            if earlier == standing:
                continue
            self._add(connection, standing, 1, tallies, days, periods)
            if earlier is not None:
                self._add(connection, earlier, -1, tallies, days, periods)
        for medium, standing in before.items():
            if medium not in after:
                self._add(connection, standing, -1, tallies, days, periods)
        _write_counts(connection, TALLIES, ("role", "instance_id", "stratum_id"), tallies, {"incidents": 0})
        _write_counts(connection, PERIODS, ("instance_id", "stratum_id", "first_day"), periods, {})
        _write_days(connection, days)

    def _add(
        self,
        connection: Connection,
        standing: Standing,
        sign: int,
        tallies: dict[tuple[int, int, int], list[int]],
        days: dict[tuple[int, int, int], int],
        periods: dict[tuple[int, int, int], list[int]],
    ) -> None:
        tenant = standing.tenant_id
        current = self.current(connection, standing)
        for mark, at in standing.marks:
            days[at // DAY_MS, tenant, mark] += sign
        unjudged_at = max((at for mark, at in standing.marks if mark in self._unjudged), default=None)
        if unjudged_at is not None:
            days[unjudged_at // DAY_MS, tenant, self._open if current is None else self._late] += sign
        if current is None:
            return
        days[self._day(dict(standing.marks), current[1]), tenant, self._judged[current[0]]] += sign
        counted = self._counted(connection, standing)
        _add_periods(standing, counted, sign, periods)
        judged = [(stratum, decision) for _, decision, stratum in counted] + [(NOW, current[0])]
        for role, instance in standing.seen:
            for stratum, decision in judged:
                tally = tallies[role, instance, stratum]
                tally[0] += sign
                if decision >= FLAGGED_FROM:
                    tally[1] += sign


def _add_periods(
    standing: Standing,
    counted: Collection[tuple[int, int, int]],
    sign: int,
    periods: dict[tuple[int, int, int], list[int]],
) -> None:
    authors = [(instance, day) for (role, instance), day in standing.seen.items() if role == Role.AUTHOR]
    for judged_on, decision, stratum in counted:
        for instance, day in authors or ((NOBODY, judged_on),):
            count = periods[instance, stratum, first_day(day)]
            count[0] += sign
            if decision >= FLAGGED_FROM:
                count[1] += sign


def _write_counts(
    connection: Connection,
    table: Table,
    keys: tuple[str, str, str],
    changes: Mapping[tuple[int, int, int], list[int]],
    others: Mapping[str, int],
) -> None:
    rows = [
        dict(zip(keys, key, strict=True)) | {"exposed": exposed, "flagged": flagged, **others}
        for key, (exposed, flagged) in changes.items()
        if exposed or flagged
    ]
    increase(connection, table, rows)
    fewer = [dict(zip(keys, key, strict=True)) for key, (exposed, _) in changes.items() if exposed < 0]
    remove(connection, table, fewer, where=table.c.exposed == 0)


def _write_days(connection: Connection, changes: Mapping[tuple[int, int, int], int]) -> None:
    rows = [
        {"day": day, "tenant_id": tenant, "measure_id": measure, "media": media}
        for (day, tenant, measure), media in changes.items()
        if media
    ]
    increase(connection, DAYS, rows)
    fewer = [{name: row[name] for name in ("day", "tenant_id", "measure_id")} for row in rows if row["media"] < 0]
    remove(connection, DAYS, fewer, where=DAYS.c.media == 0)
