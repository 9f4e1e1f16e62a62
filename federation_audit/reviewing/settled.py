"""What was settled, and by whom."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from sqlalchemy import Connection, Engine

from federation_audit.reviewing.flagged import holds, read_flagged
from federation_audit.reviewing.outcomes import Outcome, Review, Reviewed, read_reviewed
from federation_audit.store.changes import changed_clusters
from federation_audit.store.memory import uncollected
from federation_audit.store.queries import read_texts
from federation_audit.store.rows import rows_by_bytes
from federation_audit.store.state import State, read_state
from federation_audit.store.tables import MEDIA

Medium = tuple[str, bytes]
"""Tenant, sha256."""

_SETTLED = (Outcome.CONFIRMED, Outcome.DISMISSED)


@dataclass(frozen=True, slots=True)
class Settled:
    """Images of one tenant that look alike and came to one outcome.

    `reviews` has each reviewer's latest, the first first; `authors` the instances that they are attributed to.
    `name` is the smallest sha256; `images` how many.
    """

    tenant: str
    name: bytes
    outcome: Outcome
    images: int
    at: int
    reviews: tuple[Review, ...]
    authors: tuple[str, ...]


class _Kept(NamedTuple):
    """What was settled, the changes up to which it was, and the store's numbers of the media."""

    flags_change: int
    reviews_change: int
    settled: tuple[Settled, ...]
    numbers: Mapping[Medium, int]


_kept: WeakKeyDictionary[Engine, _Kept] = WeakKeyDictionary()


def read_settled(connection: Connection) -> Sequence[Settled]:
    """Everything that is settled, the latest first. What the store no longer has stands for itself.

    It is made when something of it changed, and kept until then: of years there are thousands.
    """
    state = read_state(connection)
    kept = _kept.get(connection.engine)
    if kept is None or kept[:2] != (state.flags_change, state.reviews_change):
        known = {} if kept is None else _still_known(connection, kept, state)
        with uncollected():
            settled, numbers = _read_settled(connection, known)
        kept = _Kept(state.flags_change, state.reviews_change, tuple(settled), numbers)
        _kept[connection.engine] = kept
    return kept.settled


def _still_known(connection: Connection, kept: _Kept, state: State) -> dict[Medium, int]:
    """The numbers that are sure to be the same media's: where nothing changed of their clusters."""
    if kept.flags_change > state.flags_change:
        return {}
    changed = changed_clusters(connection, kept.flags_change)
    if changed is None:
        return {}
    flagged = read_flagged(connection)
    unsure = set(flagged.media[holds(np.fromiter(changed, np.int64), flagged.clusters)].tolist())
    return {key: number for key, number in kept.numbers.items() if number not in unsure}


def _read_settled(connection: Connection, known: Mapping[Medium, int]) -> tuple[list[Settled], dict[Medium, int]]:
    """What is settled, and the numbers of its media, of which some are `known`."""
    settled = {key: each for key, each in read_reviewed(connection).items() if each.outcome in _SETTLED}
    numbers = {key: known[key] for key in settled if key in known}
    numbers |= _find_numbers(connection, settled.keys() - numbers.keys())
    clusters, authors = _place(connection, numbers)
    groups: dict[tuple[str, object, Outcome], list[Medium]] = {}
    for key, each in settled.items():
        groups.setdefault((key[0], clusters.get(key, key[1]), each.outcome), []).append(key)
    found = [
        _settle(tenant, outcome, keys, settled, {domain for key in keys for domain in authors.get(key, ())})
        for (tenant, _, outcome), keys in groups.items()
    ]
    return sorted(found, key=lambda each: (-each.at, each.tenant, each.name)), numbers


def _settle(
    tenant: str,
    outcome: Outcome,
    keys: Sequence[Medium],
    settled: Mapping[Medium, Reviewed],
    authors: Collection[str],
) -> Settled:
    latest: dict[str, Review] = {}
    for review in sorted((each for key in keys for each in settled[key].reviews), key=lambda each: each.at):
        latest[review.reviewer] = review
    return Settled(
        tenant=tenant,
        name=min(sha256 for _, sha256 in keys),
        outcome=outcome,
        images=len(keys),
        at=max(settled[key].settled_at or 0 for key in keys),
        reviews=tuple(latest.values()),
        authors=tuple(sorted(authors)),
    )


def _find_numbers(connection: Connection, media: Collection[Medium]) -> dict[Medium, int]:
    """The store's numbers of those of `media` that it has."""
    columns = (MEDIA.c.id, MEDIA.c.tenant_id, MEDIA.c.sha256)
    there = list(rows_by_bytes(connection, columns, MEDIA.c.sha256, {sha256 for _, sha256 in media}))
    tenants = read_texts(connection, {tenant for _, tenant, _ in there})
    found = {(tenants[tenant], bytes(sha256)): number for number, tenant, sha256 in there}
    return {key: number for key, number in found.items() if key in media}


def _place(
    connection: Connection, numbers: Mapping[Medium, int]
) -> tuple[dict[Medium, int], Mapping[Medium, Collection[str]]]:
    """The cluster of those of the media that are flagged or were, and the instances that they are attributed to."""
    flagged = read_flagged(connection)
    key_of = {number: key for key, number in numbers.items()}
    ids = np.fromiter(key_of, np.int64, count=len(key_of))
    here = holds(ids, flagged.media)
    clusters = dict(zip(flagged.media[here].tolist(), flagged.clusters[here].tolist(), strict=True))
    sent = holds(np.fromiter(clusters, np.int64, count=len(clusters)), flagged.sent)
    domains = read_texts(connection, set(flagged.sent_from[sent].tolist()))
    authors: dict[Medium, set[str]] = defaultdict(set)
    for number, instance in zip(flagged.sent[sent].tolist(), flagged.sent_from[sent].tolist(), strict=True):
        authors[key_of[number]].add(domains[instance])
    return {key_of[number]: cluster for number, cluster in clusters.items()}, authors
