"""What is known of posts at their origin."""

import statistics
from collections.abc import Collection, Iterable
from datetime import timedelta
from math import inf

from sqlalchemy import Connection, select

from federation_audit.cases import Presence, Removal
from federation_audit.presence.tables import PRESENCES, digest_of
from federation_audit.store.rows import chunks

_IN_ONE_STATEMENT = 500


def removal_of(looked_at: Iterable[int | None]) -> Removal:
    """What posts that were looked at come to: for each the time, in milliseconds, that its removal took at most, from
    `known_at` to `gone_at` of its row; None for one that was still there.

    One that is still there counts as longer than any: there is a median only where more than half are gone.
    """
    times = [inf if time is None else max(0, time) for time in looked_at]
    gone = sum(time != inf for time in times)
    median = timedelta(milliseconds=statistics.median(times)) if 2 * gone > len(times) else None
    return Removal(len(times), gone, median)


def read_removal(connection: Connection, domain: str) -> Removal:
    """`removal_of` the posts of an author's instance that were looked at with an answer."""
    query = select(PRESENCES.c.known_at, PRESENCES.c.gone_at).where(
        PRESENCES.c.domain == domain, PRESENCES.c.state != Presence.UNKNOWN.value
    )
    return removal_of(
        None if gone_at is None else gone_at - known_at for known_at, gone_at in connection.execute(query)
    )


def read_presence(connection: Connection, urls: Collection[str]) -> dict[str, Presence]:
    """Whether each of these posts was there when it was last looked at with an answer."""
    by_digest = {digest_of(url): url for url in urls if url}
    found = dict.fromkeys(urls, Presence.UNKNOWN)
    for some in chunks(by_digest, _IN_ONE_STATEMENT):
        query = select(PRESENCES.c.digest, PRESENCES.c.state).where(PRESENCES.c.digest.in_(some))
        for digest, state in connection.execute(query):
            found[by_digest[bytes(digest)]] = Presence(state)
    return found
