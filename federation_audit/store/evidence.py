"""Evidence and incidents: what stands behind an author's instance, and how often it happened.

Evidence is made anew for the media that a change touched; the incidents of the instances that this touched are counted
anew from all of their evidence. Both are done by the database, for one image may have a million origins.
"""

from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, Select, delete, func, insert, or_, select, tuple_, union, update

from federation_audit.store.facts import Role
from federation_audit.store.rows import among, chunks
from federation_audit.store.standings import NOW
from federation_audit.store.tables import EVIDENCE, FLAGS, JOINS, SIGHTINGS, TALLIES

_IN_ONE_STATEMENT = 500


def refresh(connection: Connection, media: Collection[int]) -> set[int]:
    """Make the evidence of `media` what their sightings are, or none where they are in `FLAGS` no more.

    The instances that have, or had, evidence there.
    """
    touched = instances_behind(connection, media)
    for chunk in chunks(media, _IN_ONE_STATEMENT):
        wanted = _wanted(connection, chunk)
        row = tuple_(*(EVIDENCE.c[name] for name in _COLUMNS))
        connection.execute(delete(EVIDENCE).where(among(connection, EVIDENCE.c.media_id, chunk), row.not_in(wanted)))
        there = select(*(EVIDENCE.c[name] for name in _COLUMNS)).where(among(connection, EVIDENCE.c.media_id, chunk))
        connection.execute(insert(EVIDENCE).from_select(list(_COLUMNS), wanted.except_(there)))
    return touched | instances_behind(connection, media)


def instances_behind(connection: Connection, media: Collection[int]) -> set[int]:
    """The instances that have evidence on one of `media`."""
    found: set[int] = set()
    for chunk in chunks(media):
        found.update(
            connection.scalars(
                select(EVIDENCE.c.instance_id).where(among(connection, EVIDENCE.c.media_id, chunk)).distinct()
            )
        )
    return found


def recount(connection: Connection, instances: Collection[int]) -> None:
    """Count the incidents of `instances` anew."""
    for chunk in chunks(instances, _IN_ONE_STATEMENT):
        counts = dict.fromkeys(chunk, 0)
        incidents = incidents_of(connection, chunk).subquery()
        counted = select(incidents.c.instance_id, func.count()).group_by(incidents.c.instance_id)
        for instance, count in connection.execute(counted):
            counts[instance] = count
        for instance, count in counts.items():
            here = (TALLIES.c.role == int(Role.AUTHOR), TALLIES.c.instance_id == instance, TALLIES.c.stratum_id == NOW)
            connection.execute(update(TALLIES).where(*here).values(incidents=count))


def incidents_of(connection: Connection, instances: Collection[int]) -> Select[Any]:
    """The incidents of `instances` (not too many) among media flagged now: instance, actor, day, cluster; distinct.

    An actor that is not known (0) counts where the instance has no known one in the cluster.
    """
    here = (among(connection, EVIDENCE.c.instance_id, instances), FLAGS.c.now == 1)
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
