"""All that is flagged now, in arrays: there may be 100,000 images, and every look at the queue orders them anew.

They are read from the store when something of it changed (`State.flags_change`), and kept until then.
"""

from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, Engine, select

from federation_audit.store.rows import read_integers
from federation_audit.store.state import read_state
from federation_audit.store.tables import EVIDENCE, FLAGS

Integers = npt.NDArray[np.int64]


class FlaggedNow(NamedTuple):
    """The media that are flagged now, by tenant and cluster, one place in each array; and who sent media that ever
    were: medium and instance. Numbers are the store's."""

    change: int
    media: Integers
    clusters: Integers
    tenants: Integers
    at: Integers
    sent: Integers
    sent_from: Integers


_kept: WeakKeyDictionary[Engine, FlaggedNow] = WeakKeyDictionary()


def read_flagged_now(connection: Connection) -> FlaggedNow:
    """As it is in the transaction of `connection`. The arrays are shared: nobody writes into them."""
    change = read_state(connection).flags_change
    kept = _kept.get(connection.engine)
    if kept is not None and kept.change == change:
        return kept
    # In the order of the index `flags_open`, which has all of it: the database sorts nothing, and looks nothing up.
    flagged = (
        select(FLAGS.c.media_id, FLAGS.c.cluster_id, FLAGS.c.tenant_id, FLAGS.c.flagged_at)
        .where(FLAGS.c.now == 1)
        .order_by(FLAGS.c.tenant_id, FLAGS.c.cluster_id, FLAGS.c.flagged_at)
    )
    sent = select(EVIDENCE.c.media_id, EVIDENCE.c.instance_id)
    found = FlaggedNow(change, *read_integers(connection, flagged), *read_integers(connection, sent))
    _kept[connection.engine] = found
    return found
