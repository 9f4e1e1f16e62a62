"""Which posts are looked at: those of confirmed incidents, at their authors' own instances.

Private messages are not, nor what names a person or a community and no post. Nor is a post that an instance other than
its author's would have to be asked for.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import (
    CTE,
    ColumnElement,
    Connection,
    Row,
    and_,
    case,
    delete,
    func,
    insert,
    select,
    union_all,
)

from federation_audit.assessing.reading import read_confirmation
from federation_audit.cases import Presence
from federation_audit.presence.schedule import WATCHED_MS, first_look
from federation_audit.presence.tables import PRESENCES, digest_of
from federation_audit.store.attributing import SURE_FROM
from federation_audit.store.engine import Store
from federation_audit.store.facts import PLACES
from federation_audit.store.rows import among, chunks
from federation_audit.store.state import read_state
from federation_audit.store.tables import FORGOTTEN, JOINS, LEASE, ORIGINS, TEXTS
from schemas.domains import NotADomain, domain_of
from schemas.messages import Place

_POSTS: Final = (Place.POST_LINK, Place.POST_THUMBNAIL, Place.POST_TEXT, Place.COMMENT, Place.UNKNOWN)
_IN_ONE_TRANSACTION = 500


@dataclass(frozen=True, slots=True)
class Post:
    """A post, by its address and its author's instance.

    `known_at` is the post's own time, where that lies in the two weeks before it was observed, or else that of the
    observation: what another instance says of the past must not make a removal look slower or faster than we can tell.
    """

    url: str
    domain: str
    known_at: int

    @property
    def digest(self) -> bytes:
        """What it goes by in the table."""
        return digest_of(self.url)


def update_watched(store: Store, verified_lists: Collection[str], *, now: int, waiting_most: int) -> int:
    """Take up new posts of confirmed incidents, at most `waiting_most` of an instance at a time, and let go of those
    whose confirmation was taken back or whose time is over; how many are new. Raises `StoreError`.

    What is to be written is found while nothing is locked. Where an actor was forgotten meanwhile, nothing is: the next
    call finds what is left.
    """
    with store.reading() as connection:
        before = _forgotten_mark(connection)
        confirmed, unconfirmed = read_confirmation(connection, verified_lists)
        new = _new_posts(connection, confirmed, now, waiting_most)
        dismissed = _watched_of(connection, unconfirmed)
        dismissed -= _watched_of(connection, confirmed) if dismissed else set()
        horizon = read_state(connection).horizon
        over = set(connection.scalars(select(PRESENCES.c.digest).where(PRESENCES.c.known_at < horizon)))
    for some in chunks(sorted(dismissed | over), _IN_ONE_TRANSACTION):
        with store.writing() as connection:
            connection.execute(delete(PRESENCES).where(PRESENCES.c.digest.in_(some)))
    taken = 0
    for posts in chunks(new, _IN_ONE_TRANSACTION):
        with store.writing() as connection:
            connection.execute(select(LEASE).with_for_update())  # nobody records, or forgets, before we have ended
            if _forgotten_mark(connection) != before:
                break
            taken += _take_up(connection, posts)
    return taken


def _take_up(connection: Connection, posts: Sequence[Post]) -> int:
    digests = [each.digest for each in posts]
    there = set(connection.scalars(select(PRESENCES.c.digest).where(PRESENCES.c.digest.in_(digests))))
    rows = [
        {
            "digest": each.digest,
            "post_url": each.url,
            "domain": each.domain,
            "known_at": each.known_at,
            "state": Presence.UNKNOWN.value,
            "looks": 0,
            "next_at": first_look(each.known_at),
        }
        for each in posts
        if each.digest not in there
    ]
    if rows:
        connection.execute(insert(PRESENCES), rows)
    return len(rows)


def _forgotten_mark(connection: Connection) -> Row[Any]:
    """Another one after every message that had an actor forgotten."""
    return connection.execute(select(func.count(), func.sum(FORGOTTEN.c.forgotten_at)).select_from(FORGOTTEN)).one()


def _new_posts(connection: Connection, media: Collection[int], now: int, waiting_most: int) -> list[Post]:
    """Posts that are young enough and have no row yet, the longest known first."""
    counted = (
        select(PRESENCES.c.domain, func.count()).where(PRESENCES.c.next_at.is_not(None)).group_by(PRESENCES.c.domain)
    )
    waiting: dict[str, int] = {row[0]: row[1] for row in connection.execute(counted)}
    found: dict[str, Post] = {}
    for some in chunks(media):
        for row in connection.execute(_young(connection, some, now - WATCHED_MS, waiting_most)):
            if not _is_at(row.post_url, row.domain):
                continue
            post = Post(row.post_url, row.domain, min(row.known_at, now))
            known = found.get(post.url)
            if known is None or post.known_at < known.known_at:
                found[post.url] = post
    taken = []
    for post in sorted(found.values(), key=lambda each: (each.known_at, each.url)):
        if waiting.get(post.domain, 0) < waiting_most:
            waiting[post.domain] = waiting.get(post.domain, 0) + 1
            taken.append(post)
    return taken


def _young(connection: Connection, media: Collection[int], since: int, most: int) -> Any:
    """At most `most` of each author's instance: one image may have a million origins."""
    said = ORIGINS.c.moment_at.between(ORIGINS.c.observed_at - WATCHED_MS, ORIGINS.c.observed_at)
    sure = ORIGINS.c.moment_confidence >= SURE_FROM
    known_at = case((and_(said, sure), ORIGINS.c.moment_at), else_=ORIGINS.c.observed_at).label("known_at")
    columns = (ORIGINS.c.post_url, ORIGINS.c.author_instance_id, known_at)
    each = _of_media(connection, media, columns, ORIGINS.c.observed_at > since)
    post = (
        select(each.c.post_url, each.c.author_instance_id, func.min(each.c.known_at).label("known_at"))
        .group_by(each.c.post_url, each.c.author_instance_id)
        .cte("post")
    )
    order = func.row_number().over(partition_by=post.c.author_instance_id, order_by=post.c.known_at).label("number")
    new = (
        select(post, TEXTS.c.text.label("domain"), order)
        .join(TEXTS, TEXTS.c.id == post.c.author_instance_id)
        .outerjoin(PRESENCES, PRESENCES.c.post_url == post.c.post_url)
        .where(PRESENCES.c.digest.is_(None), post.c.known_at > since)
        .subquery()
    )
    return select(new).where(new.c.number <= most)


def _watched_of(connection: Connection, media: Collection[int]) -> set[bytes]:
    """The rows of posts of `media`."""
    found: set[bytes] = set()
    for some in chunks(media):
        each = _of_media(connection, some, (ORIGINS.c.post_url,))
        query = select(PRESENCES.c.digest).where(PRESENCES.c.post_url.in_(select(each.c.post_url)))
        found.update(bytes(digest) for digest in connection.scalars(query))
    return found


def _of_media(
    connection: Connection, media: Collection[int], columns: Sequence[ColumnElement[Any]], *more: ColumnElement[bool]
) -> CTE:
    """`columns` of the origins that are posts of `media`, whose author's instance is sure."""
    where = (
        ORIGINS.c.place.in_([PLACES.index(place) for place in _POSTS]),
        ORIGINS.c.post_url != "",
        ORIGINS.c.author_confidence >= SURE_FROM,
        *more,
    )
    own = select(*columns).where(among(connection, ORIGINS.c.subject_id, media), *where)
    joined = (
        select(*columns)
        .join(JOINS, JOINS.c.name_id == ORIGINS.c.subject_id)
        .where(among(connection, JOINS.c.media_id, media), *where)
    )
    return union_all(own, joined).cte("each")


def _is_at(url: str, domain: str) -> bool:
    try:
        return domain_of(url) == domain
    except NotADomain:
        return False
