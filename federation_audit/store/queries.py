"""Questions to the store. Each takes a connection of `Store.reading` and answers from indexes.

Names of instances in answers are in the form of `schemas.domains`. An instance that nothing is known of has zeros.
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, select

from federation_audit.store import evidence
from federation_audit.store.facts import DECISIONS, Role
from federation_audit.store.identities import TextKind
from federation_audit.store.rows import among, chunks, smallest
from federation_audit.store.standings import NOW
from federation_audit.store.tables import (
    ACTORS,
    DAYS,
    EVIDENCE,
    FLAGS,
    FORGOTTEN,
    JOINS,
    JUDGEMENTS,
    MEDIA,
    OFFSETS,
    ORIGINS,
    SIGHTINGS,
    STRATA,
    TALLIES,
    TEXTS,
)


@dataclass(frozen=True, slots=True)
class Stratum:
    """What judged. Without models it is a hash list's own verdicts: its exposures are hits, and no denominator."""

    id: int
    models: dict[str, str]
    policy: str
    hash_list: str

    @property
    def is_list(self) -> bool:
        """Whether it holds hits alone."""
        return not self.models


@dataclass(frozen=True, slots=True)
class Count:
    """Distinct media, and how many of them were judged review or reject."""

    exposed: int = 0
    flagged: int = 0


@dataclass(slots=True)
class InstanceCounts:
    """An instance's tallies in one role; `now` is about the state now, `strata` by `Stratum.id`."""

    domain: str
    now: Count = Count()
    incidents: int = 0
    strata: dict[int, Count] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Incident:
    """One actor, one day, one cluster: the tally's unit.

    `actor` is (key id, pseudonym), None where the author is known by instance alone; `day` since the epoch; `cluster`
    its smallest sha256; `media` are the hashes behind it.
    """

    actor: tuple[str, bytes] | None
    day: int
    cluster: bytes
    media: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class FlaggedMedium:
    """A medium that was flagged, with its newest flagging verdict. `now`: it still is."""

    id: int
    tenant: str
    sha256: bytes
    cluster_id: int
    flagged_at: int
    scan_id: str
    now: bool
    detail: dict[str, Any]


def read_strata(connection: Connection) -> dict[int, Stratum]:
    """Every stratum, by id."""
    return {
        row.id: Stratum(row.id, json.loads(row.models) if row.models else {}, row.policy, row.hash_list)
        for row in connection.execute(select(STRATA))
    }


def read_instances(connection: Connection, role: Role = Role.AUTHOR) -> list[InstanceCounts]:
    """Every instance with exposures in `role`, by domain."""
    return _read_counts(connection, role, None)


def read_instance(connection: Connection, domain: str, role: Role = Role.AUTHOR) -> InstanceCounts:
    """One instance's tallies in `role`."""
    found = _read_counts(connection, role, domain)
    return found[0] if found else InstanceCounts(domain)


def read_incidents(connection: Connection, domain: str) -> list[Incident]:
    """The incidents of an author's instance, newest first."""
    number = instance_id(connection, domain)
    if number is None:
        return []
    found = connection.execute(evidence.incidents_of(number)).all()
    names = name_clusters(connection, {row.cluster_id for row in found})
    media: dict[tuple[int, int, int], list[bytes]] = {}
    behind = (
        select(EVIDENCE.c.actor_id, EVIDENCE.c.day, FLAGS.c.cluster_id, MEDIA.c.sha256)
        .join(FLAGS, FLAGS.c.media_id == EVIDENCE.c.media_id)
        .join(MEDIA, MEDIA.c.id == EVIDENCE.c.media_id)
        .where(EVIDENCE.c.instance_id == number, FLAGS.c.now == 1)
    )
    for actor_id, day, cluster, sha256 in connection.execute(behind):
        media.setdefault((actor_id, day, cluster), []).append(sha256)
    actors = _actors(connection, {row.actor_id for row in found})
    incidents = [
        Incident(
            actors.get(row.actor_id),
            row.day,
            names[row.cluster_id],
            tuple(sorted(set(media[row.actor_id, row.day, row.cluster_id]))),
        )
        for row in found
    ]
    return sorted(incidents, key=lambda each: (-each.day, each.cluster, each.actor or ("", b"")))


def name_clusters(connection: Connection, numbers: Collection[int]) -> dict[int, bytes]:
    """What each of these clusters goes by: its smallest sha256, whatever tenant has it, flagged now or once."""
    names: dict[int, bytes] = {}
    for chunk in chunks(numbers):
        query = (
            select(FLAGS.c.cluster_id, smallest(connection, MEDIA.c.sha256))
            .join(MEDIA, MEDIA.c.id == FLAGS.c.media_id)
            .where(among(connection, FLAGS.c.cluster_id, chunk))
            .group_by(FLAGS.c.cluster_id)
        )
        names.update((cluster, bytes.fromhex(sha256)) for cluster, sha256 in connection.execute(query))
    return names


def read_flagged(connection: Connection, domain: str, *, most: int = 1_000) -> list[FlaggedMedium]:
    """The flagged media of an author's instance, the latest first; at most `most`."""
    number = instance_id(connection, domain)
    tenant = TEXTS.alias()
    query = (
        select(FLAGS, MEDIA.c.sha256, tenant.c.text.label("tenant"))
        .join(MEDIA, MEDIA.c.id == FLAGS.c.media_id)
        .join(tenant, tenant.c.id == MEDIA.c.tenant_id)
        .where(FLAGS.c.media_id.in_(select(EVIDENCE.c.media_id).where(EVIDENCE.c.instance_id == number)))
        .order_by(FLAGS.c.flagged_at.desc(), MEDIA.c.sha256, tenant.c.text)
        .limit(most)
    )
    return [
        FlaggedMedium(
            row.media_id,
            row.tenant,
            row.sha256,
            row.cluster_id,
            row.flagged_at,
            row.scan_id,
            bool(row.now),
            json.loads(row.detail),
        )
        for row in connection.execute(query)
    ]


def read_author_instances(
    connection: Connection, media: Collection[tuple[str, bytes]]
) -> dict[tuple[str, bytes], set[str]]:
    """The authors' instances of media, by tenant and sha256, that are surely known; those without any are left out."""
    found: dict[tuple[str, bytes], set[str]] = {}
    tenants, domains = TEXTS.alias(), TEXTS.alias()
    sure = (SIGHTINGS.c.role == int(Role.AUTHOR), SIGHTINGS.c.sure > 0)
    for chunk in chunks({sha256 for _, sha256 in media}):
        named = (
            select(tenants.c.text, MEDIA.c.sha256, domains.c.text)
            .select_from(MEDIA)
            .join(tenants, tenants.c.id == MEDIA.c.tenant_id)
            .where(MEDIA.c.sha256.in_(chunk), *sure)
        )
        own = named.join(SIGHTINGS, SIGHTINGS.c.subject_id == MEDIA.c.id)
        joined = named.join(JOINS, JOINS.c.media_id == MEDIA.c.id).join(
            SIGHTINGS, SIGHTINGS.c.subject_id == JOINS.c.name_id
        )
        for query in (own, joined):
            rows = connection.execute(query.join(domains, domains.c.id == SIGHTINGS.c.instance_id))
            for tenant, sha256, domain in rows:
                if (tenant, bytes(sha256)) in media:
                    found.setdefault((tenant, bytes(sha256)), set()).add(domain)
    return found


def read_judgements(connection: Connection, media_id: int) -> list[dict[str, Any]]:
    """A medium's judgement in each stratum: time, decision, scan id, rules, stratum id; newest first."""
    query = (
        select(JUDGEMENTS, TEXTS.c.text)
        .outerjoin(TEXTS, TEXTS.c.id == JUDGEMENTS.c.rules_id)
        .where(JUDGEMENTS.c.media_id == media_id)
        .order_by(JUDGEMENTS.c.judged_at.desc(), JUDGEMENTS.c.stratum_id)
    )
    return [
        {
            "judged_at": row.judged_at,
            "decision": DECISIONS[row.decision].value,
            "scan_id": row.scan_id,
            "rules": row.text.split(",") if row.text else [],
            "stratum": row.stratum_id,
        }
        for row in connection.execute(query)
    ]


def read_origins(connection: Connection, media_id: int, *, most: int = 1_000) -> Sequence[Any]:
    """Rows of `ORIGINS` that count for a medium, of itself and of names joined to it, the latest first."""
    joined = select(JOINS.c.name_id).where(JOINS.c.media_id == media_id)
    which = (ORIGINS.c.subject_id == media_id) | ORIGINS.c.subject_id.in_(joined)
    return connection.execute(
        select(ORIGINS).where(which).order_by(ORIGINS.c.observed_at.desc(), ORIGINS.c.id).limit(most)
    ).all()


def read_days(connection: Connection, *, since_day: int = 0) -> list[tuple[int, str, str, int]]:
    """Day, tenant, measure, media; see `store.standings` and `facts` for the measures."""
    tenant, measure = TEXTS.alias(), TEXTS.alias()
    query = (
        select(DAYS.c.day, tenant.c.text, measure.c.text, DAYS.c.media)
        .join(tenant, tenant.c.id == DAYS.c.tenant_id)
        .join(measure, measure.c.id == DAYS.c.measure_id)
        .where(DAYS.c.day >= since_day)
    )
    return sorted((day, of, what, media) for day, of, what, media in connection.execute(query))


def read_offsets(connection: Connection) -> dict[tuple[str, int], int]:
    """Up to where the store is, by topic (without prefix) and partition."""
    return {(row.topic, row.partition): row.next_offset for row in connection.execute(select(OFFSETS))}


def forgotten_at(connection: Connection, key_id: str, pseudonym: bytes) -> int | None:
    """Until when an actor's traces are forgotten; None where nobody asked, or it is not recorded yet."""
    query = select(FORGOTTEN.c.forgotten_at).where(FORGOTTEN.c.key_id == key_id, FORGOTTEN.c.pseudonym == pseudonym)
    return connection.execute(query).scalar()


def read_texts(connection: Connection, numbers: Collection[int]) -> dict[int, str]:
    """The texts (instances, tenants, communities, ...) of these ids; of 0, which is none, nothing."""
    found: dict[int, str] = {}
    for chunk in chunks(numbers):
        query = select(TEXTS.c.id, TEXTS.c.text).where(among(connection, TEXTS.c.id, chunk))
        found.update((number, text) for number, text in connection.execute(query))
    return found


def instance_id(connection: Connection, domain: str) -> int | None:
    """The id of an instance; None where it was never met."""
    return connection.execute(
        select(TEXTS.c.id).where(TEXTS.c.kind == int(TextKind.INSTANCE), TEXTS.c.text == domain)
    ).scalar()


def _read_counts(connection: Connection, role: Role, domain: str | None) -> list[InstanceCounts]:
    query = (
        select(TEXTS.c.text, TALLIES.c.stratum_id, TALLIES.c.exposed, TALLIES.c.flagged, TALLIES.c.incidents)
        .join(TEXTS, TEXTS.c.id == TALLIES.c.instance_id)
        .where(TALLIES.c.role == int(role))
    )
    if domain is not None:
        query = query.where(TALLIES.c.instance_id == instance_id(connection, domain))
    found: dict[str, InstanceCounts] = {}
    for name, stratum, exposed, flagged, incidents in connection.execute(query):
        instance = found.get(name)
        if instance is None:
            instance = found[name] = InstanceCounts(name)
        if stratum == NOW:
            instance.now, instance.incidents = Count(exposed, flagged), incidents
        else:
            instance.strata[stratum] = Count(exposed, flagged)
    return [found[name] for name in sorted(found)]


def _actors(connection: Connection, numbers: Collection[int]) -> dict[int, tuple[str, bytes]]:
    found = {}
    for chunk in chunks(numbers):
        for row in connection.execute(select(ACTORS).where(among(connection, ACTORS.c.id, chunk))):
            found[row.id] = (row.key_id, row.pseudonym)
    return found
