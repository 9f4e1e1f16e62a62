"""What of the flagged media has changed, by cluster: who has read them reads anew only what is new of them.

A cluster's change is that of any medium that is in it, or was: whether it is flagged, whose it is, when and where it
was posted, to which cluster it belongs.
"""

from collections.abc import Collection, Iterable

from sqlalchemy import Connection, delete, exists, select

from federation_audit.store.rows import put
from federation_audit.store.state import read_state, write_state
from federation_audit.store.tables import FLAG_CHANGES, FLAGS

CLUSTERS_MOST = 2_000
"""Where more have changed, reading everything anew takes no longer."""


def note_changes(connection: Connection, clusters: Iterable[int]) -> None:
    """These clusters change in this transaction: they are changed since every `State.flags_change` before."""
    change = read_state(connection).flags_change + 1
    put(connection, FLAG_CHANGES, [{"cluster_id": cluster, "change": change} for cluster in clusters])
    write_state(connection, flags_change=change)


def note_all_changed(connection: Connection) -> None:
    """All that is flagged changes in this transaction."""
    change = read_state(connection).flags_change + 1
    connection.execute(delete(FLAG_CHANGES))
    write_state(connection, flags_change=change, flags_anew=change)


def forget_changes(connection: Connection) -> None:
    """Drop the changes of clusters that nothing is left of. Who read before reads everything anew."""
    is_left = exists(select(1).where(FLAGS.c.cluster_id == FLAG_CHANGES.c.cluster_id))
    connection.execute(delete(FLAG_CHANGES).where(~is_left))
    write_state(connection, flags_anew=read_state(connection).flags_change)


def changed_clusters(connection: Connection, since: int) -> Collection[int] | None:
    """The clusters that changed after `State.flags_change` was `since`; None where they are not known, or too many."""
    if since < read_state(connection).flags_anew:
        return None
    query = select(FLAG_CHANGES.c.cluster_id).where(FLAG_CHANGES.c.change > since).limit(CLUSTERS_MOST + 1)
    clusters = connection.scalars(query).all()
    return None if len(clusters) > CLUSTERS_MOST else clusters
