"""What was settled, and by whom."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine, select

from federation_audit.reviewing.outcomes import Outcome, Review, Reviewed, read_reviewed
from federation_audit.store.queries import read_texts
from federation_audit.store.rows import rows_among, rows_by_bytes
from federation_audit.store.state import read_state
from federation_audit.store.tables import EVIDENCE, FLAGS, MEDIA

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
    """What was settled, and the changes up to which it was."""

    flags_change: int
    reviews_change: int
    settled: tuple[Settled, ...]


_kept: WeakKeyDictionary[Engine, _Kept] = WeakKeyDictionary()


def read_settled(connection: Connection) -> Sequence[Settled]:
    """Everything that is settled, the latest first. What the store no longer has stands for itself.

    It is read when something of it changed, and kept until then: of years there are thousands.
    """
    state = read_state(connection)
    kept = _kept.get(connection.engine)
    if kept is None or kept[:2] != (state.flags_change, state.reviews_change):
        kept = _Kept(state.flags_change, state.reviews_change, tuple(_read_settled(connection)))
        _kept[connection.engine] = kept
    return kept.settled


def _read_settled(connection: Connection) -> list[Settled]:
    settled = {key: each for key, each in read_reviewed(connection).items() if each.outcome in _SETTLED}
    clusters = _clusters(connection, settled)
    authors = _authors(connection, [number for number, _ in clusters.values()])
    groups: dict[tuple[str, object, Outcome], list[tuple[str, bytes]]] = {}
    for key, each in settled.items():
        place: object = clusters[key][1] if key in clusters else key[1]
        groups.setdefault((key[0], place, each.outcome), []).append(key)
    found = [
        _settle(tenant, outcome, keys, settled, {domain for key in keys for domain in _of(key, clusters, authors)})
        for (tenant, _, outcome), keys in groups.items()
    ]
    return sorted(found, key=lambda each: (-each.at, each.tenant, each.name))


def _settle(
    tenant: str,
    outcome: Outcome,
    keys: Sequence[tuple[str, bytes]],
    settled: Mapping[tuple[str, bytes], Reviewed],
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


def _of(
    key: tuple[str, bytes], clusters: Mapping[tuple[str, bytes], tuple[int, int]], authors: Mapping[int, set[str]]
) -> Collection[str]:
    return authors.get(clusters[key][0], ()) if key in clusters else ()


def _clusters(connection: Connection, media: Collection[tuple[str, bytes]]) -> dict[tuple[str, bytes], tuple[int, int]]:
    """Id and cluster of those of `media` that are flagged in the store."""
    columns = (MEDIA.c.id, MEDIA.c.tenant_id, MEDIA.c.sha256)
    there = list(rows_by_bytes(connection, columns, MEDIA.c.sha256, {sha256 for _, sha256 in media}))
    flagged = select(FLAGS.c.media_id, FLAGS.c.cluster_id)
    cluster_of = dict(rows_among(connection, flagged, FLAGS.c.media_id, [number for number, _, _ in there]))
    tenants = read_texts(connection, {tenant for _, tenant, _ in there})
    return {
        (tenants[tenant], bytes(sha256)): (number, cluster_of[number])
        for number, tenant, sha256 in there
        if number in cluster_of
    }


def _authors(connection: Connection, media: Collection[int]) -> dict[int, set[str]]:
    sent = select(EVIDENCE.c.media_id, EVIDENCE.c.instance_id)
    rows = list(rows_among(connection, sent, EVIDENCE.c.media_id, media))
    domains = read_texts(connection, {instance for _, instance in rows})
    found: dict[int, set[str]] = {}
    for medium, instance in rows:
        found.setdefault(medium, set()).add(domains[instance])
    return found
