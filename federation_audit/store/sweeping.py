"""Taking out what is older than the horizon, a few thousand subjects at a time.

Every fact goes by its own time. Facts that are the newest of their kind go when they are too old, for then all before
them are; what is derived follows. The store is then what it would be, had the old messages never come.
"""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Table, delete, exists, func, select

from federation_audit.store import attributing, evidence, joining, judging, rescans
from federation_audit.store.changes import forget_changes, note_changes
from federation_audit.store.clusters import Clusters
from federation_audit.store.facts import FLAGGED_FROM, Horizon
from federation_audit.store.identities import Identities
from federation_audit.store.rows import remove
from federation_audit.store.standings import Tallies
from federation_audit.store.tables import (
    ACTORS,
    FLAGS,
    FORGOTTEN,
    JUDGEMENTS,
    LINKS,
    LOOKS,
    MARKS,
    MEDIA,
    NAMES,
    ORIGINS,
    TEXTS,
)

SUBJECTS_AT_A_TIME = 2_000


@dataclass(frozen=True, slots=True)
class Sweep:
    """How far a sweep has come: all subjects up to `done` are swept."""

    done: int = 0


def sweep(
    connection: Connection, at: Sweep, horizon: Horizon, tallies: Tallies, clusters: Clusters, identities: Identities
) -> Sweep | None:
    """One part of a sweep; None when it is the last."""
    first, last = at.done + 1, at.done + SUBJECTS_AT_A_TIME
    if first > _highest(connection):
        if rescans.drop_old(connection, horizon):
            return at
        _end(connection, horizon, identities)
        return None
    old = {table.name: _old(connection, table, first, last, horizon) for table in (JUDGEMENTS, MARKS, FLAGS, LOOKS)}
    links = connection.execute(
        select(LINKS).where(LINKS.c.subject_id.between(first, last), LINKS.c.at < horizon.facts)
    ).all()
    change = attributing.Attribution([], [], defaultdict(int), defaultdict(int))
    for row in attributing.expired(connection, first, last, horizon.facts):
        attributing.plan_removal(change, row)

    its_media = set(connection.scalars(select(MEDIA.c.id).where(MEDIA.c.id.between(first, last))))
    gone_links = [(row.subject_id, row.name_id) for row in links]
    remove(connection, LINKS, [{"subject_id": subject, "name_id": name} for subject, name in gone_links])
    changed = joining.affected_names(connection, gone_links, its_media)
    names = change.subjects - its_media
    joined = joining.joined_media(connection, names | changed)
    joins = joining.resolve(connection, changed)
    touched = {row.media_id for rows in old.values() for row in rows} | (change.subjects & its_media)
    touched = touched.union(*joined.values(), *joins.values())

    before = tallies.read(connection, touched)
    joining.write_joins(connection, joined, joins)
    attributing.write(connection, change)
    remove(connection, JUDGEMENTS, [_key(row, "media_id", "stratum_id") for row in old["judgements"]])
    remove(connection, MARKS, [_key(row, "media_id", "mark_id") for row in old["marks"]])
    remove(connection, LOOKS, [_key(row, "media_id", "pdq") for row in old["looks"]])
    unflagged = {row.media_id for row in old["flags"]}
    moved = clusters.drop(unflagged, [(row.media_id, row.pdq) for row in old["looks"] if row.media_id not in unflagged])
    flagged = judging.clusters_behind(connection, touched | moved)
    concerned = {*flagged.values(), *(clusters.cluster_of(medium) for medium in flagged.keys() - unflagged)}
    incidents = evidence.count_incidents(connection, concerned)
    remove(connection, FLAGS, [{"media_id": medium} for medium in unflagged])
    judging.move(connection, moved, clusters)
    after = tallies.read(connection, touched)
    tallies.write(connection, before, after)
    current = {medium: tallies.current(connection, standing) for medium, standing in after.items()}
    judging.write_now(
        connection, {medium: each is not None and each[0] >= FLAGGED_FROM for medium, each in current.items()}
    )
    evidence.refresh(connection, touched)
    evidence.write_incidents(connection, incidents, evidence.count_incidents(connection, concerned))
    if concerned:
        note_changes(connection, concerned)
    _drop_empty(connection, first, last, identities)
    return Sweep(last)


def _old(connection: Connection, table: Table, first: int, last: int, horizon: Horizon) -> list[Row[Any]]:
    here = table.c.media_id.between(first, last)
    if table is MARKS:
        failed = select(TEXTS.c.id).where(TEXTS.c.text.like("failed:%"))
        query = select(MARKS).where(here, MARKS.c.at < horizon.facts)
        failures = select(MARKS).where(here, MARKS.c.at < horizon.failures, MARKS.c.mark_id.in_(failed))
        return [*connection.execute(query.union(failures))]
    time = {"judgements": "judged_at", "flags": "flagged_at", "looks": "at"}[table.name]
    return [*connection.execute(select(table).where(here, table.c[time] < horizon.facts))]


def _drop_empty(connection: Connection, first: int, last: int, identities: Identities) -> None:
    """Media and names of which nothing is left."""
    uses = {
        MEDIA: (JUDGEMENTS.c.media_id, MARKS.c.media_id, FLAGS.c.media_id, LINKS.c.subject_id, ORIGINS.c.subject_id),
        NAMES: (LINKS.c.subject_id, LINKS.c.name_id, ORIGINS.c.subject_id),
    }
    for table, columns in uses.items():
        unused = [~exists(select(1).where(column == table.c.id)) for column in columns]
        if connection.execute(delete(table).where(table.c.id.between(first, last), *unused)).rowcount:
            identities.forget_remembered()


def _end(connection: Connection, horizon: Horizon, identities: Identities) -> None:
    connection.execute(delete(FORGOTTEN).where(FORGOTTEN.c.forgotten_at < horizon.facts))
    connection.execute(delete(ACTORS).where(~exists(select(1).where(ORIGINS.c.actor_id == ACTORS.c.id))))
    identities.forget_remembered()
    forget_changes(connection)


def _key(row: Row[Any], *names: str) -> dict[str, Any]:
    return {name: getattr(row, name) for name in names}


def _highest(connection: Connection) -> int:
    return max(connection.execute(select(func.max(table.c.id))).scalar() or 0 for table in (MEDIA, NAMES))
