"""What the statistics are told, read from the store.

Exposure is counted as the store's periods are: a medium once for each of its authors' instances and strata, on the day
of the instance's first sighting of it. Its flagged incidents are the distinct (actor, day, cluster) of those first
sightings, so that there are never more incidents than media. Strata of hash lists hold hits alone, no denominator, and
are left out; their hits confirm.

A confirmed incident is every distinct (actor, day, cluster) that a confirmed medium was seen with, later ones too: an
account that posts an old picture anew has done something. Its confidence is that of the surest origin behind it; where
all are merely possible, and nobody is surely known to have sent that medium, it is a possible incident of each instance
that may have. Clusters go by the store's ids, which a rebuild gives anew.
"""

import itertools
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, case, func, select

from federation_audit.deciding.tables import LETTERS, REMEDIATIONS
from federation_audit.reviewing.outcomes import Outcome, Reviewed, read_reviewed
from federation_audit.statistics.events import (
    Confirmation,
    Contact,
    Evidence,
    Incident,
    Remediation,
    Reviews,
    Stratum,
)
from federation_audit.statistics.exposures import ExposureTable
from federation_audit.store.attributing import SURE_FROM
from federation_audit.store.facts import FLAGGED_FROM, Role
from federation_audit.store.identities import TextKind
from federation_audit.store.periods import EPOCH, as_date, first_day, last_day
from federation_audit.store.queries import read_strata
from federation_audit.store.rows import among, chunks
from federation_audit.store.standings import NOBODY
from federation_audit.store.tables import (
    ACTORS,
    EVIDENCE,
    FLAGS,
    JOINS,
    JUDGEMENTS,
    MEDIA,
    ORIGINS,
    PERIODS,
    SIGHTINGS,
    TEXTS,
)
from schemas.messages import Confidence
from schemas.topics import DAY_MS

_ROWS_AT_ONCE = 50_000
_CONFIDENCES = {3: Confidence.CERTAIN, 2: Confidence.LIKELY, 1: Confidence.POSSIBLE}  # as `facts.Origin` has them

Medium = tuple[str, bytes]
"""Tenant, sha256."""

Key = tuple[int, int, int, int]
"""Instance, actor, day, cluster."""


@dataclass(frozen=True, slots=True)
class Known:
    """Everything that an assessment is made from. `confirmed` and `dismissed` are media, by tenant and sha256."""

    table: ExposureTable
    evidence: Evidence
    confirmed: Mapping[Medium, Confirmation]
    dismissed: frozenset[Medium]


def read_known(connection: Connection, *, verified_lists: Collection[str], local_domains: frozenset[str]) -> Known:
    """Read it all. A hit of one of `verified_lists`, by name, confirms as two reviewers do."""
    strata = _strata(connection)
    instances = _instances(connection)
    firsts = _first_sightings(connection)
    flagged = _flagged_strata(connection, strata)
    reviewed = read_reviewed(connection)
    media = read_media(connection, reviewed)
    how = _confirmations(read_hits(connection, verified_lists), reviewed, media)
    evidence = Evidence(
        incidents=tuple(_confirmed(connection, instances, how)),
        reviews=tuple(_reviews(strata, firsts, flagged, reviewed, media)),
        remediations=tuple(_remediations(connection)),
        contacts=tuple(_contacts(connection)),
        local_domains=local_domains,
    )
    names = _names(connection, how)
    return Known(
        table=_exposures(connection, instances, strata, firsts, flagged),
        evidence=evidence,
        confirmed={names[medium]: each for medium, each in how.items()},
        dismissed=frozenset(key for key, each in reviewed.items() if each.outcome is Outcome.DISMISSED),
    )


def _strata(connection: Connection) -> dict[int, Stratum]:
    """Those that judge every image, by the store's id."""
    return {
        number: Stratum(
            model=", ".join(f"{name} {digest}" for name, digest in sorted(each.models.items())),
            policy=each.policy,
            hash_list=each.hash_list,
        )
        for number, each in read_strata(connection).items()
        if not each.is_list
    }


def _instances(connection: Connection) -> dict[int, str]:
    query = select(TEXTS.c.id, TEXTS.c.text).where(TEXTS.c.kind == int(TextKind.INSTANCE))
    return {row.id: row.text for row in connection.execute(query)}


def _first_sightings(connection: Connection) -> dict[int, dict[int, Key]]:
    """The incident of each flagged medium's first sighting by each instance: medium, instance, key.

    Of several actors of that day, the first by key id and pseudonym stands for them.
    """
    days: dict[tuple[int, int], tuple[int, int]] = {}
    actors: dict[tuple[int, int], set[int]] = {}
    query = select(
        EVIDENCE.c.media_id, EVIDENCE.c.instance_id, EVIDENCE.c.actor_id, EVIDENCE.c.day, FLAGS.c.cluster_id
    ).join(FLAGS, FLAGS.c.media_id == EVIDENCE.c.media_id)
    for medium, instance, actor, day, cluster in connection.execute(query):
        place = (medium, instance)
        known = days.get(place)
        if known is None or day < known[0]:
            days[place] = (day, cluster)
            actors[place] = {actor} if actor else set()
        elif day == known[0] and actor:
            actors[place].add(actor)
    names = _actors(connection, set().union(*(some for some in actors.values() if len(some) > 1)))
    found: dict[int, dict[int, Key]] = defaultdict(dict)
    for (medium, instance), (day, cluster) in days.items():
        some = actors[medium, instance]
        actor = min(some, key=names.__getitem__) if len(some) > 1 else next(iter(some), 0)
        found[medium][instance] = (instance, actor, day, cluster)
    return found


def _flagged_strata(connection: Connection, strata: Mapping[int, Stratum]) -> dict[int, list[int]]:
    """The strata in which each medium is flagged."""
    found: dict[int, list[int]] = defaultdict(list)
    query = (
        select(JUDGEMENTS.c.media_id, JUDGEMENTS.c.stratum_id)
        .join(FLAGS, FLAGS.c.media_id == JUDGEMENTS.c.media_id)
        .where(JUDGEMENTS.c.decision >= FLAGGED_FROM)
    )
    for medium, stratum in connection.execute(query):
        if stratum in strata:
            found[medium].append(stratum)
    return found


def _exposures(
    connection: Connection,
    instances: Mapping[int, str],
    strata: Mapping[int, Stratum],
    firsts: Mapping[int, Mapping[int, Key]],
    flagged: Mapping[int, Collection[int]],
) -> ExposureTable:
    instance, stratum, first, media, flags = _read_periods(connection, list(strata))
    incidents: dict[tuple[int, int, int], set[Key]] = defaultdict(set)
    for medium, its_strata in flagged.items():
        for number in its_strata:
            for whose, key in firsts.get(medium, {}).items():
                incidents[whose, number, first_day(key[2])].add(key)
    for row in np.flatnonzero((flags > 0) & (instance != NOBODY)):
        flags[row] = len(incidents.get((int(instance[row]), int(stratum[row]), int(first[row])), ()))
    days, which = np.unique(first, return_inverse=True)
    ends = np.array([last_day(int(day)) for day in days], dtype=np.int64)
    numbers, codes = np.unique(instance, return_inverse=True)
    names = [None if number == NOBODY else instances[int(number)] for number in numbers]
    kinds, kind = np.unique(stratum, return_inverse=True)
    return ExposureTable.from_codes(
        instances=names,
        strata=[strata[int(number)] for number in kinds],
        instance=codes,
        stratum=kind,
        first=first + EPOCH,
        last=ends[which] + EPOCH,
        media=media,
        flagged=flags,
    )


def _read_periods(connection: Connection, strata: Collection[int]) -> tuple[npt.NDArray[np.int64], ...]:
    """The columns of `PERIODS` in these strata: instance, stratum, first day, exposed, flagged."""
    columns = (
        PERIODS.c.instance_id,
        PERIODS.c.stratum_id,
        PERIODS.c.first_day,
        PERIODS.c.exposed,
        PERIODS.c.flagged,
    )
    query = select(*columns).where(among(connection, PERIODS.c.stratum_id, strata))
    parts = [np.empty((0, len(columns)), dtype=np.int64)]
    result = connection.execute(query)
    assert result.cursor is not None
    while rows := result.cursor.fetchmany(_ROWS_AT_ONCE):  # the driver's tuples: a million Row objects cost seconds
        flat = np.fromiter(itertools.chain.from_iterable(rows), np.int64, count=len(rows) * len(columns))
        parts.append(flat.reshape(-1, len(columns)))
    result.close()
    return tuple(np.concatenate(parts).T.copy())


def read_media(connection: Connection, media: Collection[Medium]) -> dict[int, Medium]:
    """Those of `media` that are in the store, by its ids."""
    found: dict[int, Medium] = {}
    for chunk in chunks({sha256 for _, sha256 in media}):
        query = select(MEDIA.c.id, TEXTS.c.text, MEDIA.c.sha256).join(TEXTS, TEXTS.c.id == MEDIA.c.tenant_id)
        for number, tenant, sha256 in connection.execute(query.where(MEDIA.c.sha256.in_(chunk))):
            if (tenant, bytes(sha256)) in media:
                found[number] = (tenant, bytes(sha256))
    return found


def read_confirmation(connection: Connection, verified_lists: Collection[str]) -> tuple[set[int], set[int]]:
    """The media, by the store's id, that two reviewers or a verified list confirm; and those that somebody reviewed and
    that are not confirmed."""
    reviewed = read_reviewed(connection)
    media = read_media(connection, reviewed)
    confirmed = set(_confirmations(read_hits(connection, verified_lists), reviewed, media))
    return confirmed, media.keys() - confirmed


def _names(connection: Connection, numbers: Collection[int]) -> dict[int, Medium]:
    """Media by the store's ids."""
    found: dict[int, Medium] = {}
    for chunk in chunks(numbers):
        query = select(MEDIA.c.id, TEXTS.c.text, MEDIA.c.sha256).join(TEXTS, TEXTS.c.id == MEDIA.c.tenant_id)
        for number, tenant, sha256 in connection.execute(query.where(among(connection, MEDIA.c.id, chunk))):
            found[number] = (tenant, bytes(sha256))
    return found


def _confirmations(
    hits: Collection[int], reviewed: Mapping[Medium, Reviewed], media: Mapping[int, Medium]
) -> dict[int, Confirmation]:
    """The confirmed media, and by whom."""
    how = dict.fromkeys(hits, Confirmation.HASH)
    for medium, key in media.items():
        outcome = reviewed[key].outcome
        if outcome is Outcome.CONFIRMED:
            how[medium] = Confirmation.REVIEWERS
        elif outcome is Outcome.DISMISSED:  # people know better than a list
            how.pop(medium, None)
    return how


def _confirmed(
    connection: Connection, instances: Mapping[int, str], how: Mapping[int, Confirmation]
) -> Iterator[Incident]:
    traces = _traces(connection, how)
    surely = {trace.medium for trace in traces if trace.confidence >= SURE_FROM}
    named = {(trace.instance, trace.cluster) for trace in traces if trace.actor and trace.confidence >= SURE_FROM}
    behind: dict[Key, list[_Trace]] = defaultdict(list)
    for trace in traces:
        if trace.confidence < SURE_FROM and trace.medium in surely:
            continue
        if not trace.actor and (trace.instance, trace.cluster) in named:
            continue
        behind[trace.instance, trace.actor, trace.day, trace.cluster].append(trace)
    hosts = read_hosts(connection, how)
    actors = _actors(connection, {trace.actor for trace in traces})
    for (instance, actor, day, cluster), its in sorted(behind.items()):
        name = instances[instance]
        lay_on = set().union(*(hosts.get(trace.medium, set()) for trace in its))
        by_people = any(how[trace.medium] is Confirmation.REVIEWERS for trace in its)
        yield Incident(
            incident_id=f"{name}/{actors.get(actor, 'unknown')}/{as_date(day)}/{cluster}",
            instance=name,
            actor=actors.get(actor, ""),
            day=as_date(day),
            cluster=str(cluster),
            confirmed=Confirmation.REVIEWERS if by_people else Confirmation.HASH,
            image_host=name if name in lay_on else min(lay_on, default=None),
            confidence=_CONFIDENCES[max(trace.confidence for trace in its)],
        )


def read_hits(connection: Connection, verified_lists: Collection[str]) -> dict[int, int]:
    """Media that a version of a verified list had, by the store's id: since when (ms)."""
    wanted = [
        number
        for number, each in read_strata(connection).items()
        if each.is_list and each.hash_list.partition("@")[0] in verified_lists
    ]
    if not wanted:
        return {}
    query = (
        select(JUDGEMENTS.c.media_id, func.min(JUDGEMENTS.c.judged_at).label("since"))
        .join(FLAGS, FLAGS.c.media_id == JUDGEMENTS.c.media_id)
        .where(JUDGEMENTS.c.stratum_id.in_(wanted), JUDGEMENTS.c.decision >= FLAGGED_FROM)
        .group_by(JUDGEMENTS.c.media_id)
    )
    return {row.media_id: row.since for row in connection.execute(query)}


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
            for medium, host in connection.execute(query):
                found[medium].add(host)
    return found


def _actors(connection: Connection, numbers: Collection[int]) -> dict[int, str]:
    found: dict[int, str] = {}
    for chunk in chunks(numbers):
        for row in connection.execute(select(ACTORS).where(among(connection, ACTORS.c.id, chunk))):
            found[row.id] = f"{row.key_id}:{bytes(row.pseudonym).hex()}"
    return found


def _reviews(
    strata: Mapping[int, Stratum],
    firsts: Mapping[int, Mapping[int, Key]],
    flagged: Mapping[int, Collection[int]],
    reviewed: Mapping[Medium, Reviewed],
    media: Mapping[int, Medium],
) -> Iterator[Reviews]:
    """Incidents that people looked at; an image of an instance not known is an incident of its own."""
    seen: dict[Outcome, dict[int, set[object]]] = {
        Outcome.CONFIRMED: defaultdict(set),
        Outcome.DISMISSED: defaultdict(set),
    }
    for medium, key in media.items():
        outcome = reviewed[key].outcome
        if outcome not in seen:
            continue
        incidents: set[object] = set(firsts.get(medium, {}).values()) or {medium}
        for stratum in flagged.get(medium, ()):
            seen[outcome][stratum] |= incidents
    for stratum in sorted(seen[Outcome.CONFIRMED].keys() | seen[Outcome.DISMISSED].keys()):
        confirmed = seen[Outcome.CONFIRMED][stratum]
        dismissed = seen[Outcome.DISMISSED][stratum] - confirmed
        yield Reviews(strata[stratum], len(confirmed), len(dismissed))


def _remediations(connection: Connection) -> Iterator[Remediation]:
    for row in connection.execute(select(REMEDIATIONS).order_by(REMEDIATIONS.c.id)):
        yield Remediation(str(row.id), row.domain, as_date(row.day))


def _contacts(connection: Connection) -> Iterator[Contact]:
    for row in connection.execute(select(LETTERS).order_by(LETTERS.c.id)):
        answered: date | None = None if row.answered_day is None else as_date(row.answered_day)
        yield Contact(str(row.id), row.domain, as_date(row.sent_day), answered)


def newest_period(connection: Connection) -> date | None:
    """The first day of the newest period that anything was counted in; None in an empty store."""
    newest = connection.execute(select(func.max(PERIODS.c.first_day))).scalar()
    return None if newest is None else as_date(newest)
