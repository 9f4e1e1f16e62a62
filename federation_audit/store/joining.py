"""Which media an alias or an address names.

A message that bears two names of an image links them. A name is joined to the media that it is linked to; one that is
linked to none is joined to those of its neighbours (an alias's addresses, an address's aliases), and no further: what
an address shows may change, and two files that it once showed must not answer for each other.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping

from sqlalchemy import Connection, select

from federation_audit.store.rows import put, remove, rows_among
from federation_audit.store.tables import JOINS, LINKS, MEDIA, NAMES

Link = tuple[int, int]


def write_links(connection: Connection, links: Mapping[Link, int], media: Collection[int]) -> set[int]:
    """Write links with their times; the names that may be joined to others now. `media` are ids among the subjects."""
    known: dict[Link, int] = {}
    query = select(LINKS.c.subject_id, LINKS.c.name_id, LINKS.c.at)
    subjects = {subject for subject, _ in links}
    for subject, name, at in rows_among(connection, query, LINKS.c.subject_id, subjects):
        known[subject, name] = at
    new = links.keys() - known.keys()
    put(
        connection,
        LINKS,
        [
            {"subject_id": subject, "name_id": name, "at": at}
            for (subject, name), at in links.items()
            if known.get((subject, name), -1) < at
        ],
    )
    return affected_names(connection, new, media)


def affected_names(connection: Connection, changed: Collection[Link], media: Collection[int]) -> set[int]:
    """The names whose joins may differ once these links have come or gone. `media` are ids among the subjects."""
    ends = {name for _, name in changed} | {subject for subject, _ in changed if subject not in media}
    given_media = {name for subject, name in changed if subject in media}
    return ends | set().union(*_neighbours(connection, given_media).values())


def resolve(connection: Connection, names: Collection[int]) -> dict[int, set[int]]:
    """The media that each of `names` is to be joined to."""
    joined = _linked_media(connection, names)
    left = set(names) - joined.keys()
    neighbours = _neighbours(connection, left)
    beyond = _linked_media(connection, set().union(*neighbours.values()))
    for name in left:
        joined[name] = set().union(*(beyond.get(other, set()) for other in neighbours.get(name, ())))
    return joined


def joined_media(connection: Connection, names: Collection[int]) -> dict[int, set[int]]:
    """The media that each of `names` is joined to, as it is written."""
    found: dict[int, set[int]] = defaultdict(set)
    query = select(JOINS.c.name_id, JOINS.c.media_id)
    for name, medium in rows_among(connection, query, JOINS.c.name_id, names):
        found[name].add(medium)
    return found


def write_joins(connection: Connection, before: Mapping[int, set[int]], after: Mapping[int, set[int]]) -> None:
    """Write what `resolve` said, over what `joined_media` found."""
    new = [(medium, name) for name, media in after.items() for medium in media - before.get(name, set())]
    gone = [(medium, name) for name, media in after.items() for medium in before.get(name, set()) - media]
    put(connection, JOINS, [{"media_id": medium, "name_id": name} for medium, name in new])
    remove(connection, JOINS, [{"media_id": medium, "name_id": name} for medium, name in gone])


def _linked_media(connection: Connection, names: Collection[int]) -> dict[int, set[int]]:
    found: dict[int, set[int]] = defaultdict(set)
    query = select(LINKS.c.name_id, LINKS.c.subject_id).join(MEDIA, MEDIA.c.id == LINKS.c.subject_id)
    for name, medium in rows_among(connection, query, LINKS.c.name_id, names):
        found[name].add(medium)
    return dict(found)


def _neighbours(connection: Connection, names: Collection[int]) -> dict[int, set[int]]:
    found: dict[int, set[int]] = defaultdict(set)
    addresses = select(LINKS.c.subject_id, LINKS.c.name_id)
    for alias, address in rows_among(connection, addresses, LINKS.c.subject_id, names):
        found[alias].add(address)
    aliases = select(LINKS.c.name_id, LINKS.c.subject_id).join(NAMES, NAMES.c.id == LINKS.c.subject_id)
    for address, alias in rows_among(connection, aliases, LINKS.c.name_id, names):
        found[address].add(alias)
    return found
