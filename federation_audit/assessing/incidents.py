"""Confirmed incidents, and what they go by.

A confirmed incident is every distinct (actor, day, cluster) that a confirmed medium was seen with, later ones too: an
account that posts an old picture anew has done something. Its confidence is that of the surest origin behind it; where
all are merely possible, and nobody is surely known to have sent that medium, it is a possible incident of each instance
that may have. Clusters go by their smallest sha256, so that a rebuild gives the same incidents the same names.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import date
from typing import NamedTuple

from sqlalchemy import Connection, case, func, select

from federation_audit.statistics.events import Confirmation, Incident
from federation_audit.store.attributing import SURE_FROM
from federation_audit.store.facts import Role
from federation_audit.store.periods import as_date
from federation_audit.store.queries import name_clusters
from federation_audit.store.rows import among, chunks
from federation_audit.store.tables import ACTORS, FLAGS, JOINS, ORIGINS, SIGHTINGS, TEXTS
from schemas.messages import Confidence
from schemas.topics import DAY_MS

_CONFIDENCES = {3: Confidence.CERTAIN, 2: Confidence.LIKELY, 1: Confidence.POSSIBLE}  # as `facts.Origin` has them
_Key = tuple[int, int, int, int]  # instance, actor, day, cluster


def confirmed_incidents(
    connection: Connection, instances: Mapping[int, str], how: Mapping[int, Confirmation]
) -> Iterator[Incident]:
    """The incidents of the media that are confirmed, by the store's id, and `how`."""
    traces = _traces(connection, how)
    surely = {trace.medium for trace in traces if trace.confidence >= SURE_FROM}
    named = {(trace.instance, trace.cluster) for trace in traces if trace.actor and trace.confidence >= SURE_FROM}
    behind: dict[_Key, list[_Trace]] = defaultdict(list)
    for trace in traces:
        if trace.confidence < SURE_FROM and trace.medium in surely:
            continue
        if not trace.actor and (trace.instance, trace.cluster) in named:
            continue
        behind[trace.instance, trace.actor, trace.day, trace.cluster].append(trace)
    hosts = read_hosts(connection, how)
    actors = name_actors(connection, {trace.actor for trace in traces})
    clusters = name_clusters(connection, {trace.cluster for trace in traces})
    for (instance, actor, day, cluster), its in sorted(behind.items()):
        name = instances[instance]
        lay_on = set().union(*(hosts.get(trace.medium, set()) for trace in its))
        yield Incident(
            incident_id=name_incident(name, actors.get(actor, ""), as_date(day), clusters[cluster].hex()),
            instance=name,
            actor=actors.get(actor, ""),
            day=as_date(day),
            cluster=clusters[cluster].hex(),
            confirmed=surest(how[trace.medium] for trace in its),
            image_host=name if name in lay_on else min(lay_on, default=None),
            confidence=_CONFIDENCES[max(trace.confidence for trace in its)],
        )


def surest(hows: Iterable[Confirmation | None]) -> Confirmation | None:
    """How an incident is confirmed, from how its media are: by people rather than by a list; None where none is."""
    known = set(hows) - {None}
    return Confirmation.REVIEWERS if Confirmation.REVIEWERS in known else next(iter(known), None)


def name_incident(domain: str, actor: str, day: date, cluster: str) -> str:
    """What an incident goes by; `actor` as of `name_actors`, "" where only the instance is known."""
    return f"{domain}/{actor or 'unknown'}/{day}/{cluster}"


class _Trace(NamedTuple):
    """A medium's origins by one actor of one instance on one day, and how sure the surest of them is."""

    medium: int
    instance: int
    actor: int
    day: int
    cluster: int
    confidence: int


def _traces(connection: Connection, media: Collection[int]) -> list[_Trace]:
    at = case(
        (ORIGINS.c.moment_at.is_(None), ORIGINS.c.observed_at),
        (ORIGINS.c.moment_at < ORIGINS.c.observed_at, ORIGINS.c.moment_at),
        else_=ORIGINS.c.observed_at,
    )
    place = (ORIGINS.c.author_instance_id, ORIGINS.c.actor_id, at // DAY_MS, FLAGS.c.cluster_id)
    surest = func.max(ORIGINS.c.author_confidence)
    found: dict[tuple[int, ...], int] = {}
    for chunk in chunks(media):
        own = select(FLAGS.c.media_id, *place, surest).join(FLAGS, FLAGS.c.media_id == ORIGINS.c.subject_id)
        joined = (
            select(FLAGS.c.media_id, *place, surest)
            .join(JOINS, JOINS.c.name_id == ORIGINS.c.subject_id)
            .join(FLAGS, FLAGS.c.media_id == JOINS.c.media_id)
        )
        for query in (own, joined):
            here = query.where(among(connection, FLAGS.c.media_id, chunk), ORIGINS.c.author_instance_id != 0)
            for *key, confidence in connection.execute(here.group_by(FLAGS.c.media_id, *place)):
                found[tuple(key)] = max(confidence, found.get(tuple(key), 0))
    return [_Trace._make((*key, confidence)) for key, confidence in sorted(found.items())]


def read_hosts(connection: Connection, media: Collection[int]) -> dict[int, set[str]]:
    """The hosts that each of `media`, by id, surely lay on."""
    found: dict[int, set[str]] = defaultdict(set)
    here = (SIGHTINGS.c.role == int(Role.HOST), SIGHTINGS.c.sure > 0)
    for chunk in chunks(media):
        own = (
            select(SIGHTINGS.c.subject_id, TEXTS.c.text)
            .join(TEXTS, TEXTS.c.id == SIGHTINGS.c.instance_id)
            .where(among(connection, SIGHTINGS.c.subject_id, chunk), *here)
        )
        joined = (
            select(JOINS.c.media_id, TEXTS.c.text)
            .join(SIGHTINGS, SIGHTINGS.c.subject_id == JOINS.c.name_id)
            .join(TEXTS, TEXTS.c.id == SIGHTINGS.c.instance_id)
            .where(among(connection, JOINS.c.media_id, chunk), *here)
        )
        for query in (own, joined):
            for medium, host in connection.execute(query).all():
                found[medium].add(host)
    return found


def name_actors(connection: Connection, numbers: Collection[int]) -> dict[int, str]:
    """``key id:pseudonym`` of each of these actors; of 0, who is not known, nothing."""
    found: dict[int, str] = {}
    for chunk in chunks(numbers):
        for row in connection.execute(select(ACTORS).where(among(connection, ACTORS.c.id, chunk))):
            found[row.id] = f"{row.key_id}:{bytes(row.pseudonym).hex()}"
    return found
