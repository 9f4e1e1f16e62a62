"""What the statistics are told, read from the store: exposure (`exposure`), confirmed incidents (`incidents`), what
people reviewed, wrote and noted."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import date

from sqlalchemy import Connection, func, select

from federation_audit.assessing.exposure import Key, count_exposure, count_incidents, first_sightings, flagged_strata
from federation_audit.assessing.incidents import confirmed_incidents
from federation_audit.deciding.tables import LETTERS, REMEDIATIONS
from federation_audit.reviewing.outcomes import Outcome, Reviewed, read_reviewed
from federation_audit.statistics.events import (
    Confirmation,
    Contact,
    Evidence,
    Remediation,
    Reviews,
    Stratum,
)
from federation_audit.statistics.exposures import ExposureTable
from federation_audit.store.facts import Role
from federation_audit.store.identities import TextKind
from federation_audit.store.periods import as_date
from federation_audit.store.queries import read_strata
from federation_audit.store.rows import among, chunks
from federation_audit.store.tables import FLAGGED, FLAGS, JUDGEMENTS, MEDIA, PERIODS, TALLIES, TEXTS

Medium = tuple[str, bytes]
"""Tenant, sha256."""


@dataclass(frozen=True, slots=True)
class Known:
    """What an assessment is made from beside exposure. `confirmed` and `dismissed` are media, by tenant and sha256;
    `listed` are the instances of whose images some version of a hash list, verified or not, has one; `in_force` the
    strata that judged images of the newest period."""

    evidence: Evidence
    confirmed: Mapping[Medium, Confirmation]
    dismissed: frozenset[Medium]
    listed: frozenset[str] = frozenset()
    in_force: tuple[Stratum, ...] = ()


def read_known(
    connection: Connection, *, verified_lists: Collection[str], local_domains: frozenset[str]
) -> tuple[ExposureTable, Known]:
    """Everything that an assessment is made from. A hit of one of `verified_lists`, by name, confirms as two reviewers
    do."""
    strata = _strata(connection)
    instances = _instances(connection)
    firsts = first_sightings(connection)
    flagged = flagged_strata(connection, strata)
    reviewed = read_reviewed(connection)
    media = read_media(connection, reviewed)
    how = _confirmations(read_hits(connection, verified_lists), reviewed, media)
    reviews = tuple(_reviews(strata, firsts, flagged, reviewed, media))
    counted = count_incidents(firsts, flagged)
    del firsts, flagged  # there may be a hundred thousand, and a million rows of exposure want room
    table = count_exposure(connection, instances, strata, counted)
    evidence = Evidence(
        incidents=tuple(confirmed_incidents(connection, instances, how)),
        reviews=reviews,
        remediations=tuple(_remediations(connection)),
        contacts=tuple(_contacts(connection)),
        local_domains=local_domains,
    )
    names = _names(connection, how)
    return table, Known(
        evidence=evidence,
        confirmed={names[medium]: each for medium, each in how.items()},
        dismissed=frozenset(key for key, each in reviewed.items() if each.outcome is Outcome.DISMISSED),
        listed=frozenset(_listed(connection)),
        in_force=table.newest_strata,
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


def _listed(connection: Connection) -> Iterator[str]:
    lists = [number for number, each in read_strata(connection).items() if each.is_list]
    query = (
        select(TEXTS.c.text)
        .join(TALLIES, TALLIES.c.instance_id == TEXTS.c.id)
        .where(TALLIES.c.role == int(Role.AUTHOR), among(connection, TALLIES.c.stratum_id, lists))
        .where(TALLIES.c.flagged > 0)
    )
    yield from connection.scalars(query)


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
        .where(JUDGEMENTS.c.stratum_id.in_(wanted), FLAGGED)
        .group_by(JUDGEMENTS.c.media_id)
    )
    return {row.media_id: row.since for row in connection.execute(query)}


def _reviews(
    strata: Mapping[int, Stratum],
    firsts: Mapping[int, Collection[Key]],
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
        incidents: set[object] = set(firsts.get(medium, ())) or {medium}
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
