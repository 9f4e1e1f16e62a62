"""All media that were ever flagged, in arrays: there may be 100,000, and every look at the queue orders them anew.

They are kept, and after a change only the clusters that it was about are read (`store.kept`).
"""

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, select

from federation_audit.store.kept import Kept
from federation_audit.store.rows import among, read_integers
from federation_audit.store.tables import EVIDENCE, FLAGS

Integers = npt.NDArray[np.int64]

_FLAGS = (FLAGS.c.tenant_id, FLAGS.c.cluster_id, FLAGS.c.media_id, FLAGS.c.flagged_at, FLAGS.c.now)
_SENT = (EVIDENCE.c.media_id, EVIDENCE.c.instance_id)


class Flagged(NamedTuple):
    """The media, by tenant and cluster, one place in each array; and who sent them: medium and instance.

    `now`: whether they are flagged still, 0 or 1. Numbers are the store's.
    """

    tenants: Integers
    clusters: Integers
    media: Integers
    at: Integers
    now: Integers
    sent: Integers
    sent_from: Integers


def read_flagged(connection: Connection) -> Flagged:
    """As it is in the transaction of `connection`. The arrays are shared: nobody writes into them."""
    return _kept.get(connection, None)


def holds(ids: Integers, numbers: Integers) -> npt.NDArray[np.bool_]:
    """Which of `numbers` are among `ids`. By searching: numpy's own way makes a table, or a hash of each, first."""
    if not len(ids):
        return np.zeros(len(numbers), dtype=np.bool_)
    ordered = np.sort(ids)
    places = np.minimum(np.searchsorted(ordered, numbers), len(ordered) - 1)
    return np.asarray(ordered[places] == numbers)


def _read(connection: Connection, _key: None) -> Flagged:
    # Along the index `flags_open`, which has all of it: the database looks nothing up.
    flags = read_integers(connection, select(*_FLAGS))
    order = np.lexsort((flags[1], flags[0]))
    return Flagged(*(column[order] for column in flags), *read_integers(connection, select(*_SENT)))


def _update(connection: Connection, _key: None, known: Flagged, changed: Collection[int]) -> Flagged:
    ids = np.fromiter(changed, np.int64, count=len(changed))
    there = holds(ids, known.clusters)
    query = select(*_FLAGS).where(among(connection, FLAGS.c.cluster_id, ids.tolist()))
    fresh = read_integers(connection, query.order_by(*_FLAGS[:2]))
    media = fresh[2]
    was_sent = holds(np.concatenate([known.media[there], media]), known.sent)
    sent = read_integers(connection, select(*_SENT).where(among(connection, EVIDENCE.c.media_id, media.tolist())))
    others = [column[~there] for column in known[:5]]
    places = np.searchsorted(_rank(*others[:2]), _rank(*fresh[:2]))
    return Flagged(
        *(np.insert(column, places, new) for column, new in zip(others, fresh, strict=True)),
        *(np.concatenate([column[~was_sent], new]) for column, new in zip(known[5:], sent, strict=True)),
    )


def _rank(tenants: Integers, clusters: Integers) -> Integers:
    """One number for both, in their order: ids count what there is, and stay below 2**31."""
    return (tenants << 32) + clusters


_kept = Kept(_read, _update)
