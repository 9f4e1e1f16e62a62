"""How many confirmed incidents cannot be the work of one account, of one raid, or of one picture that goes round.

FACTS puts the count of distinct (actor, day, cluster) into the e-value and calls it a supermartingale under H0. It is
one only if such incidents come one by one, each independent of those before. They do not: an account that posts sixty
pictures in an hour is sixty incidents, and on an innocent instance it takes one such account for an e-value of
millions. What comes independently is the source: an account, a raid of many accounts on one day, a picture that many
pass on.

So the e-value counts the most incidents of which no two share an account, a day or a cluster. However many incidents
a source has, it adds at most one to that count, as all of them have its account, its day or its cluster in common (a
set of such incidents is a matching in a hypergraph, and a matching is never larger than a cover). If
sources come to an innocent instance at a rate of at most ρ0 for each image, the count lies below a Poisson process of
that rate, and the e-value below a test supermartingale: an e-process, valid at every look. More incidents never make
the count smaller, and their order does not matter.

A source that is none of the three (a raid of several days with new accounts and new pictures each day) counts once a
day. That is what the docs say it cannot tell apart.
"""

from collections.abc import Iterable, Sequence
from itertools import count

import numpy as np
import scipy  # type: ignore[import-untyped]  # its parts are loaded when they are first used

from federation_audit.statistics.events import Incident

_EXACT_UP_TO = 2_000  # incidents; beyond, and past so many nodes of the search, the best found counts: never too many
_NODES = 2_000


def distinct_incidents(incidents: Iterable[Incident]) -> list[Incident]:
    """One of each (actor, day, cluster), the one with the lowest id, in a fixed order."""
    chosen: dict[tuple[str, int, str], Incident] = {}
    for incident in incidents:
        key = (incident.actor, incident.day.toordinal(), incident.cluster)
        if key not in chosen or incident.incident_id < chosen[key].incident_id:
            chosen[key] = incident
    return [chosen[key] for key in sorted(chosen, key=lambda key: (key[1], key[0], key[2]))]


def choose_independent(incidents: Sequence[Incident]) -> tuple[Incident, ...]:
    """A largest set of `incidents` of which no two share an account, a day or a cluster.

    An incident by an unknown account may be by any of the known ones: it stands only where there is no known one, and
    then one stands for all. The set is a largest one (integer programming) up to 2,000 incidents; beyond, one
    that nothing can be added to.
    """
    every = distinct_incidents(incidents)
    known = [incident for incident in every if incident.actor]
    if not known:
        return tuple(every[:1])
    marks = [(incident.actor, incident.day.isoformat(), incident.cluster) for incident in known]
    most = min(len(set(kind)) for kind in zip(*marks, strict=True))
    chosen = _greedy(marks)
    if len(chosen) < most and len(known) <= _EXACT_UP_TO:
        chosen = max(chosen, _exact(marks), key=len)
    return tuple(known[place] for place in chosen)


def _greedy(marks: Sequence[tuple[str, str, str]]) -> list[int]:
    """Those first that stand in few others' way."""
    busy: list[dict[str, int]] = [{}, {}, {}]
    for mark in marks:
        for kind, name in zip(busy, mark, strict=True):
            kind[name] = kind.get(name, 0) + 1
    order = sorted(range(len(marks)), key=lambda at: (sum(map(dict.__getitem__, busy, marks[at])), at))
    taken: tuple[set[str], set[str], set[str]] = (set(), set(), set())
    chosen = []
    for at in order:
        if all(name not in names for names, name in zip(taken, marks[at], strict=True)):
            chosen.append(at)
            for names, name in zip(taken, marks[at], strict=True):
                names.add(name)
    return sorted(chosen)


def _exact(marks: Sequence[tuple[str, str, str]]) -> list[int]:
    rows: dict[tuple[int, str], int] = {}
    following = count()
    places = [
        rows[kind, name] if (kind, name) in rows else rows.setdefault((kind, name), next(following))
        for mark in marks
        for kind, name in enumerate(mark)
    ]
    columns = np.repeat(np.arange(len(marks)), 3)
    uses = scipy.sparse.csr_array((np.ones(len(places)), (places, columns)), shape=(len(rows), len(marks)))
    found = scipy.optimize.milp(
        -np.ones(len(marks)),
        integrality=np.ones(len(marks)),
        bounds=scipy.optimize.Bounds(0, 1),
        constraints=scipy.optimize.LinearConstraint(uses, ub=1.0),
        options={"node_limit": _NODES},
    )
    return [] if found.x is None else [int(at) for at in np.flatnonzero(found.x > 0.5)]
