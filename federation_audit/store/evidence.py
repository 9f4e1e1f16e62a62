"""Evidence and incidents: what stands behind an author's instance, and how often it happened.

Evidence is made anew for the media that a change touched. Every incident is one cluster's, so an instance's number of
them changes by what it changes in the clusters that are touched: they are counted before and after. All of it is done
by the database, for one image may have a million origins.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, delete, func, insert, or_, select, tuple_, union, update

from federation_audit.store.facts import Role
from federation_audit.store.rows import among, chunks
from federation_audit.store.standings import NOW
from federation_audit.store.tables import EVIDENCE, FLAGS, JOINS, SIGHTINGS, TALLIES

_IN_ONE_STATEMENT = 500


def refresh(connection: Connection, media: Collection[int]) -> None:
    """Make the evidence of `media` what their sightings are, or none where they are in `FLAGS` no more."""
    for chunk in chunks(media, _IN_ONE_STATEMENT):
        wanted = _wanted(connection, chunk)
        row = tuple_(*(EVIDENCE.c[name] for name in _COLUMNS))
        connection.execute(delete(EVIDENCE).where(among(connection, EVIDENCE.c.media_id, chunk), row.not_in(wanted)))
        there = select(*(EVIDENCE.c[name] for name in _COLUMNS)).where(among(connection, EVIDENCE.c.media_id, chunk))
        connection.execute(insert(EVIDENCE).from_select(list(_COLUMNS), wanted.except_(there)))


def count_incidents(connection: Connection, clusters: Collection[int]) -> Counter[int]:
    """How many incidents of each instance are in `clusters`."""
    counts: Counter[int] = Counter()
    for chunk in chunks(clusters):
        incidents = _incidents(among(connection, FLAGS.c.cluster_id, chunk)).subquery()
        counted = select(incidents.c.instance_id, func.count()).group_by(incidents.c.instance_id)
        counts.update(dict(connection.execute(counted).all()))
    return counts


def write_incidents(connection: Connection, before: Mapping[int, int], after: Mapping[int, int]) -> None:
    """Bring the tallies from the incidents that some clusters had, by instance, to those that they have."""
    for instance in sorted(before.keys() | after.keys()):
        more = after.get(instance, 0) - before.get(instance, 0)
        here = (TALLIES.c.role == int(Role.AUTHOR), TALLIES.c.instance_id == instance, TALLIES.c.stratum_id == NOW)
        if more:  # without a row, nothing of the instance counts any more
            connection.execute(update(TALLIES).where(*here).values(incidents=TALLIES.c.incidents + more))


def incidents_of(instance: int) -> Select[Any]:
    """The incidents of an instance among media flagged now: instance, actor, day, cluster; distinct."""
    return _incidents(EVIDENCE.c.instance_id == instance)


def _incidents(where: ColumnElement[bool]) -> Select[Any]:
    """An actor that is not known (0) counts where the instance has no known one in the cluster."""
    here = (where, FLAGS.c.now == 1)
    known = (
        select(EVIDENCE.c.instance_id, FLAGS.c.cluster_id)
        .join(FLAGS, FLAGS.c.media_id == EVIDENCE.c.media_id)
        .where(*here, EVIDENCE.c.actor_id != 0)
        .correlate(None)
    )
    place = tuple_(EVIDENCE.c.instance_id, FLAGS.c.cluster_id)
    return (
        select(EVIDENCE.c.instance_id, EVIDENCE.c.actor_id, EVIDENCE.c.day, FLAGS.c.cluster_id)
        .join(FLAGS, FLAGS.c.media_id == EVIDENCE.c.media_id)
        .where(*here, or_(EVIDENCE.c.actor_id != 0, place.not_in(known)))
        .distinct()
    )


_COLUMNS = ("instance_id", "media_id", "actor_id", "day")


def _wanted(connection: Connection, media: Collection[int]) -> Any:
    authors = (SIGHTINGS.c.role == int(Role.AUTHOR), SIGHTINGS.c.sure > 0)
    own = (
        select(SIGHTINGS.c.instance_id, SIGHTINGS.c.subject_id.label("media_id"), SIGHTINGS.c.actor_id, SIGHTINGS.c.day)
        .join(FLAGS, FLAGS.c.media_id == SIGHTINGS.c.subject_id)
        .where(among(connection, SIGHTINGS.c.subject_id, media), *authors)
    )
    joined = (
        select(SIGHTINGS.c.instance_id, JOINS.c.media_id, SIGHTINGS.c.actor_id, SIGHTINGS.c.day)
        .join(SIGHTINGS, SIGHTINGS.c.subject_id == JOINS.c.name_id)
        .join(FLAGS, FLAGS.c.media_id == JOINS.c.media_id)
        .where(among(connection, JOINS.c.media_id, media), *authors)
    )
    both = union(own, joined).subquery()
    return select(*(both.c[name] for name in _COLUMNS))
