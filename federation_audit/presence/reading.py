"""What is known of posts at their origin."""

import statistics
from collections.abc import Collection
from datetime import timedelta

from sqlalchemy import Connection, select

from federation_audit.cases import Presence, Removal
from federation_audit.presence.tables import PRESENCES, digest_of
from federation_audit.store.rows import chunks

_IN_ONE_STATEMENT = 500


def read_removal(connection: Connection, domain: str) -> Removal:
    """How many posts of an author's instance were looked at with an answer, how many were gone, and how long that took.

    The time of a post that is gone runs from when it was known (`posts.Post`) to the look that first found it gone: it
    took that long at most. One that was there when last looked at counts as longer than any, so that there is a median
    only where more than half are gone.
    """
    query = select(PRESENCES.c.state, PRESENCES.c.known_at, PRESENCES.c.gone_at).where(
        PRESENCES.c.domain == domain, PRESENCES.c.state != Presence.UNKNOWN.value
    )
    times = [
        float("inf") if row.gone_at is None else max(0, row.gone_at - row.known_at) for row in connection.execute(query)
    ]
    gone = sum(time != float("inf") for time in times)
    median = timedelta(milliseconds=statistics.median(times)) if 2 * gone > len(times) else None
    return Removal(len(times), gone, median)


def read_presence(connection: Connection, urls: Collection[str]) -> dict[str, Presence]:
    """Whether each of these posts was there when it was last looked at with an answer."""
    by_digest = {digest_of(url): url for url in urls if url}
    found = dict.fromkeys(urls, Presence.UNKNOWN)
    for some in chunks(by_digest, _IN_ONE_STATEMENT):
        query = select(PRESENCES.c.digest, PRESENCES.c.state).where(PRESENCES.c.digest.in_(some))
        for digest, state in connection.execute(query):
            found[by_digest[bytes(digest)]] = Presence(state)
    return found
