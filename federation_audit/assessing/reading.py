"""What the statistics are told, read from the store.

Exposure is counted as the store's periods are: a medium once for each of its authors' instances and strata, on the day
of the instance's first sighting of it. Its flagged incidents are the distinct (actor, day, cluster) of those first
sightings, so that there are never more incidents than media. Strata of hash lists hold hits alone, no denominator, and
are left out; their hits confirm.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from sqlalchemy import Connection, Row, func, select

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
from federation_audit.store.facts import FLAGGED_FROM, Role
from federation_audit.store.identities import TextKind
from federation_audit.store.periods import as_date, first_day, last_day
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
    PERIODS,
    SIGHTINGS,
    TEXTS,
)

Key = tuple[int, int, int, int]
"""Instance, actor, day, cluster."""


@dataclass(frozen=True, slots=True)
class Known:
    """Everything that an assessment is made from."""

    table: ExposureTable
    evidence: Evidence


def read_known(connection: Connection, *, verified_lists: Collection[str], local_domains: frozenset[str]) -> Known:
    """Read it all. A hit of one of `verified_lists`, by name, confirms as two reviewers do."""
    strata = _strata(connection)
    instances = _instances(connection)
    firsts = _first_sightings(connection)
    flagged = _flagged_strata(connection, strata)
    reviewed = read_reviewed(connection)
    media = _media(connection, reviewed)
    evidence = Evidence(
        incidents=tuple(_confirmed(connection, instances, reviewed, media, verified_lists)),
        reviews=tuple(_reviews(strata, firsts, flagged, reviewed, media)),
        remediations=tuple(_remediations(connection)),
        contacts=tuple(_contacts(connection)),
        local_domains=local_domains,
    )
    return Known(_exposures(connection, instances, strata, firsts, flagged), evidence)


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
    """The incident of each flagged medium's first sighting by each instance: medium, instance, key."""
    found: dict[int, dict[int, Key]] = defaultdict(dict)
    query = select(
        EVIDENCE.c.media_id, EVIDENCE.c.instance_id, EVIDENCE.c.day, EVIDENCE.c.actor_id, FLAGS.c.cluster_id
    ).join(FLAGS, FLAGS.c.media_id == EVIDENCE.c.media_id)
    for medium, instance, day, actor, cluster in connection.execute(query):
        key = (instance, actor, day, cluster)
        known = found[medium].get(instance)
        # Of one day, a known actor comes before one that is not.
        if known is None or (day, not actor, actor) < (known[2], not known[1], known[1]):
            found[medium][instance] = key
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
    incidents: dict[tuple[int, int, int], set[Key]] = defaultdict(set)
    for medium, its_strata in flagged.items():
        for stratum in its_strata:
            for instance, key in firsts.get(medium, {}).items():
                incidents[instance, stratum, first_day(key[2])].add(key)
    rows = [row for row in connection.execute(select(PERIODS)).all() if row.stratum_id in strata]
    return ExposureTable.from_columns(
        instances=[None if row.instance_id == NOBODY else instances[row.instance_id] for row in rows],
        strata=[strata[row.stratum_id] for row in rows],
        first=[as_date(row.first_day) for row in rows],
        last=[as_date(last_day(row.first_day)) for row in rows],
        media=[row.exposed for row in rows],
        flagged=[
            row.flagged
            if row.instance_id == NOBODY
            else len(incidents.get((row.instance_id, row.stratum_id, row.first_day), ()))
            for row in rows
        ],
    )


def _media(connection: Connection, reviewed: Mapping[tuple[str, bytes], Reviewed]) -> dict[int, tuple[str, bytes]]:
    """The ids of the reviewed media that are in the store."""
    found: dict[int, tuple[str, bytes]] = {}
    for chunk in chunks({sha256 for _, sha256 in reviewed}):
        query = select(MEDIA.c.id, TEXTS.c.text, MEDIA.c.sha256).join(TEXTS, TEXTS.c.id == MEDIA.c.tenant_id)
        for medium, tenant, sha256 in connection.execute(query.where(MEDIA.c.sha256.in_(list(chunk)))):
            if (tenant, bytes(sha256)) in reviewed:
                found[medium] = (tenant, bytes(sha256))
    return found


def _confirmed(
    connection: Connection,
    instances: Mapping[int, str],
    reviewed: Mapping[tuple[str, bytes], Reviewed],
    media: Mapping[int, tuple[str, bytes]],
    verified_lists: Collection[str],
) -> Iterator[Incident]:
    how = _how_confirmed(connection, reviewed, media, verified_lists)
    rows = _evidence_of(connection, how)
    named = {(row.instance_id, row.cluster_id) for row in rows if row.actor_id}
    hosts = _hosts(connection, how)
    actors = _actors(connection, {row.actor_id for row in rows})
    found: dict[Key, tuple[Confirmation, str | None]] = {}
    for row in sorted(rows, key=lambda row: row.media_id):
        if not row.actor_id and (row.instance_id, row.cluster_id) in named:
            continue
        key = (row.instance_id, row.actor_id, row.day, row.cluster_id)
        known = found.get(key)
        confirmation = how[row.media_id]
        if known is not None and known[0] is Confirmation.REVIEWERS:
            confirmation = Confirmation.REVIEWERS
        hosted = hosts.get(row.media_id, set())
        host = None if not hosted else instances[min(hosted)]
        found[key] = (confirmation, host if known is None else known[1])
    for (instance, actor, day, cluster), (confirmation, host) in found.items():
        yield Incident(
            incident_id=f"{instances[instance]}/{actors.get(actor, 'unknown')}/{as_date(day)}/{cluster}",
            instance=instances[instance],
            actor=actors.get(actor, ""),
            day=as_date(day),
            cluster=str(cluster),
            confirmed=confirmation,
            image_host=host,
        )


def read_confirmation(connection: Connection, verified_lists: Collection[str]) -> tuple[set[int], set[int]]:
    """The media, by the store's id, that two reviewers or a verified list confirm; and those that somebody reviewed and
    that are not confirmed."""
    reviewed = read_reviewed(connection)
    media = _media(connection, reviewed)
    confirmed = set(_how_confirmed(connection, reviewed, media, verified_lists))
    return confirmed, media.keys() - confirmed


def _how_confirmed(
    connection: Connection,
    reviewed: Mapping[tuple[str, bytes], Reviewed],
    media: Mapping[int, tuple[str, bytes]],
    verified_lists: Collection[str],
) -> dict[int, Confirmation]:
    outcomes = {medium: reviewed[key].outcome for medium, key in media.items()}
    how = dict.fromkeys(_hits(connection, verified_lists), Confirmation.HASH)
    how |= {medium: Confirmation.REVIEWERS for medium, each in outcomes.items() if each is Outcome.CONFIRMED}
    for medium, each in outcomes.items():
        if each is Outcome.DISMISSED:  # people know better than a list
            how.pop(medium, None)
    return how


def _hits(connection: Connection, verified_lists: Collection[str]) -> set[int]:
    """Media that a verified list has now."""
    wanted = [
        number
        for number, each in read_strata(connection).items()
        if each.is_list and each.hash_list.partition("@")[0] in verified_lists
    ]
    query = (
        select(JUDGEMENTS.c.media_id)
        .join(FLAGS, FLAGS.c.media_id == JUDGEMENTS.c.media_id)
        .where(JUDGEMENTS.c.stratum_id.in_(wanted), JUDGEMENTS.c.decision >= FLAGGED_FROM)
    )
    return set(connection.scalars(query)) if wanted else set()


def _evidence_of(connection: Connection, media: Collection[int]) -> list[Row[Any]]:
    rows: list[Row[Any]] = []
    for chunk in chunks(media):
        query = select(
            EVIDENCE.c.media_id, EVIDENCE.c.instance_id, EVIDENCE.c.actor_id, EVIDENCE.c.day, FLAGS.c.cluster_id
        ).join(FLAGS, FLAGS.c.media_id == EVIDENCE.c.media_id)
        rows.extend(connection.execute(query.where(among(connection, EVIDENCE.c.media_id, chunk))))
    return rows


def _hosts(connection: Connection, media: Collection[int]) -> dict[int, set[int]]:
    found: dict[int, set[int]] = defaultdict(set)
    here = (SIGHTINGS.c.role == int(Role.HOST), SIGHTINGS.c.sure > 0)
    for chunk in chunks(media):
        own = select(SIGHTINGS.c.subject_id, SIGHTINGS.c.instance_id).where(
            among(connection, SIGHTINGS.c.subject_id, chunk), *here
        )
        joined = (
            select(JOINS.c.media_id, SIGHTINGS.c.instance_id)
            .join(SIGHTINGS, SIGHTINGS.c.subject_id == JOINS.c.name_id)
            .where(among(connection, JOINS.c.media_id, chunk), *here)
        )
        for query in (own, joined):
            for medium, instance in connection.execute(query):
                found[medium].add(instance)
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
    reviewed: Mapping[tuple[str, bytes], Reviewed],
    media: Mapping[int, tuple[str, bytes]],
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
