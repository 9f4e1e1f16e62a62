"""Exposure, as the statistics count it.

It is counted as the store's periods are: a medium once for each of its authors' instances and strata, on the day of the
instance's first sighting of it. Its flagged incidents are the distinct (actor, day, cluster) of those first sightings,
so that there are never more incidents than media. Strata of hash lists hold hits alone, no denominator, and are left
out; their hits confirm.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping

import numpy as np
from sqlalchemy import Connection, func, select

from federation_audit.assessing.incidents import name_actors
from federation_audit.statistics.events import Stratum
from federation_audit.statistics.exposures import ExposureTable, Ints
from federation_audit.store.facts import RESCANNED
from federation_audit.store.identities import TextKind
from federation_audit.store.periods import EPOCH, first_day, last_day
from federation_audit.store.rows import among, read_integers
from federation_audit.store.standings import NOBODY
from federation_audit.store.tables import EVIDENCE, FLAGGED, FLAGS, JUDGEMENTS, MARKS, PERIODS, TEXTS

Key = tuple[int, int, int, int]
"""Instance, actor, day, cluster, by the store's ids."""

Place = tuple[int, int, int]
"""Instance, stratum, first day of the period."""


def first_sightings(connection: Connection) -> dict[int, tuple[Key, ...]]:
    """The incidents of each flagged medium's first sighting by each instance.

    Of several actors of that day, the first by key id and pseudonym stands for them.
    """
    firsts: dict[tuple[int, int], tuple[int, int, int]] = {}
    several: dict[tuple[int, int], set[int]] = {}
    query = select(
        EVIDENCE.c.media_id, EVIDENCE.c.instance_id, EVIDENCE.c.actor_id, EVIDENCE.c.day, FLAGS.c.cluster_id
    ).join(FLAGS, FLAGS.c.media_id == EVIDENCE.c.media_id)
    for medium, instance, actor, day, cluster in connection.execute(query):
        place = (medium, instance)
        known_actor, known_day, _ = firsts.get(place, (0, None, 0))
        if known_day is None or day < known_day:
            firsts[place] = (actor, day, cluster)
            several.pop(place, None)
        elif day == known_day and actor and not known_actor:
            firsts[place] = (actor, day, cluster)
        elif day == known_day and actor and actor != known_actor:
            several.setdefault(place, {known_actor}).add(actor)
    names = name_actors(connection, set().union(*several.values()))
    found: dict[int, tuple[Key, ...]] = {}
    while firsts:  # one goes as the other comes: there may be a hundred thousand
        (medium, instance), (actor, day, cluster) = firsts.popitem()
        some = several.get((medium, instance))
        key = (instance, min(some, key=names.__getitem__) if some else actor, day, cluster)
        found[medium] = (*found.get(medium, ()), key)
    return found


def flagged_strata(connection: Connection, strata: Mapping[int, Stratum]) -> dict[int, tuple[int, ...]]:
    """The strata in which each medium is flagged: not those that a rescan has taken it out of."""
    found: dict[int, tuple[int, ...]] = {}
    alike: dict[tuple[int, ...], tuple[int, ...]] = {}  # most of them are: each is kept once
    rescanned = (
        select(TEXTS.c.id).where(TEXTS.c.kind == int(TextKind.MARK), TEXTS.c.text == RESCANNED).scalar_subquery()
    )
    query = (
        select(JUDGEMENTS.c.media_id, JUDGEMENTS.c.stratum_id)
        .join(FLAGS, FLAGS.c.media_id == JUDGEMENTS.c.media_id)
        .outerjoin(MARKS, (MARKS.c.media_id == JUDGEMENTS.c.media_id) & (MARKS.c.mark_id == rescanned))
        .where(FLAGGED, JUDGEMENTS.c.judged_at >= func.coalesce(MARKS.c.at, 0))
    )
    for medium, stratum in connection.execute(query):
        if stratum in strata:
            its = (*found.get(medium, ()), stratum)
            found[medium] = alike.setdefault(its, its)
    return found


def count_incidents(firsts: Mapping[int, Collection[Key]], flagged: Mapping[int, Collection[int]]) -> dict[Place, int]:
    """How many flagged incidents there are in each instance's stratum and period; `flagged` has the strata of each
    medium."""
    incidents: dict[Place, set[Key]] = defaultdict(set)
    for medium, its_strata in flagged.items():
        for number in its_strata:
            for key in firsts.get(medium, ()):
                incidents[key[0], number, first_day(key[2])].add(key)
    return {place: len(some) for place, some in incidents.items()}


def count_exposure(
    connection: Connection,
    instances: Mapping[int, str],
    strata: Mapping[int, Stratum],
    incidents: Mapping[Place, int],
) -> ExposureTable:
    """The table of every author's instance, stratum and period; `incidents` are those of `count_incidents`."""
    instance, stratum, first, media, flags = _read_periods(connection, list(strata))
    for row in np.flatnonzero((flags > 0) & (instance != NOBODY)).tolist():
        flags[row] = incidents.get((int(instance[row]), int(stratum[row]), int(first[row])), 0)
    days, day = _places(first)
    last = np.array([last_day(each) + EPOCH for each in days], dtype=np.int32)[day]
    first = first + EPOCH
    numbers, codes = _places(instance)
    kinds, kind = _places(stratum)
    del instance, stratum, day
    return ExposureTable.from_codes(
        instances=[None if number == NOBODY else instances[number] for number in numbers],
        strata=[strata[number] for number in kinds],
        instance=codes,
        stratum=kind,
        first=first,
        last=last,
        media=media,
        flagged=flags,
    )


def _places(values: Ints) -> tuple[list[int], Ints]:
    """The distinct values, and the place of each row's among them."""
    if not len(values):
        return [], values
    # By a table of all that might be: numpy's own way sorts a million rows, and these are days, and ids of texts.
    low = int(values.min())
    offsets = values - low
    found = np.zeros(int(offsets.max()) + 1, dtype=np.bool_)
    found[offsets] = True
    distinct = np.flatnonzero(found)
    places = np.empty(len(found), dtype=np.int32)
    places[distinct] = np.arange(len(distinct), dtype=np.int32)
    return (distinct + low).tolist(), places[offsets]


def _read_periods(connection: Connection, strata: Collection[int]) -> list[Ints]:
    """The columns of `PERIODS` in these strata: instance, stratum, first day, exposed, flagged."""
    columns = (
        PERIODS.c.instance_id,
        PERIODS.c.stratum_id,
        PERIODS.c.first_day,
        PERIODS.c.exposed,
        PERIODS.c.flagged,
    )
    query = select(*columns).where(among(connection, PERIODS.c.stratum_id, strata))
    return read_integers(connection, query, np.int32)
