"""Exposure, as the statistics count it.

It is counted as the store's periods are: a medium once for each of its authors' instances and strata, on the day of the
instance's first sighting of it. Its flagged incidents are the distinct (actor, day, cluster) of those first sightings,
so that there are never more incidents than media. Strata of hash lists hold hits alone, no denominator, and are left
out; their hits confirm.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, func, select

from federation_audit.assessing.incidents import name_actors
from federation_audit.statistics.events import Stratum
from federation_audit.statistics.exposures import ExposureTable
from federation_audit.store.facts import RESCANNED
from federation_audit.store.identities import TextKind
from federation_audit.store.periods import EPOCH, first_day, last_day
from federation_audit.store.rows import among, read_integers
from federation_audit.store.standings import NOBODY
from federation_audit.store.tables import EVIDENCE, FLAGGED, FLAGS, JUDGEMENTS, MARKS, PERIODS, TEXTS

Key = tuple[int, int, int, int]
"""Instance, actor, day, cluster, by the store's ids."""


def first_sightings(connection: Connection) -> dict[int, dict[int, Key]]:
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
    names = name_actors(connection, set().union(*(some for some in actors.values() if len(some) > 1)))
    found: dict[int, dict[int, Key]] = defaultdict(dict)
    for (medium, instance), (day, cluster) in days.items():
        some = actors[medium, instance]
        actor = min(some, key=names.__getitem__) if len(some) > 1 else next(iter(some), 0)
        found[medium][instance] = (instance, actor, day, cluster)
    return found


def flagged_strata(connection: Connection, strata: Mapping[int, Stratum]) -> dict[int, list[int]]:
    """The strata in which each medium is flagged: not those that a rescan has taken it out of."""
    found: dict[int, list[int]] = defaultdict(list)
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
            found[medium].append(stratum)
    return found


def count_exposure(
    connection: Connection,
    instances: Mapping[int, str],
    strata: Mapping[int, Stratum],
    firsts: Mapping[int, Mapping[int, Key]],
    flagged: Mapping[int, Collection[int]],
) -> ExposureTable:
    """The table of every author's instance, stratum and period; `flagged` has the strata of each medium."""
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
    return tuple(read_integers(connection, query))
