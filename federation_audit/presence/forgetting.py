"""What is kept of a post goes with its author's other traces."""

from collections.abc import Iterable

from sqlalchemy import Connection, delete

from federation_audit.presence.tables import PRESENCES, digest_of
from federation_audit.store.rows import chunks

_IN_ONE_STATEMENT = 500


def forget_posts(connection: Connection, urls: Iterable[str]) -> None:
    """Take out what is kept of these posts; "" is none."""
    for some in chunks({digest_of(url) for url in urls if url}, _IN_ONE_STATEMENT):
        connection.execute(delete(PRESENCES).where(PRESENCES.c.digest.in_(some)))
