"""What is asked of Lemmy's tables, in a form that its own indexes answer.

There are indexes on every id, on post.url and on the alias of a stored file; there are none on post.thumbnail_url and
on avatars, banners and icons, and none that finds an address in a text cheaply. So:

- links of posts and stored files are found at any age;
- thumbnails and texts are looked for in the newest rows alone, by id: Lemmy gives ids as rows arrive, while the dates
  of federated rows are whatever the other instance says;
- avatars, banners and icons are found by reading whole tables, seldom, for all images that wait together.

Texts never leave the database: addresses are taken out of them and compared there, and only matches come to us.

Parameters: `numbers`, `forms`, `stored`, `exact` (arrays of the same length, see `addresses.Form`; the number says
whose form it is), `alias_numbers` and `aliases`, `recent` (rows), `most` (rows for one form), `address` (`ADDRESS`).
Each row that comes back is a `Row`.
"""

from typing import NamedTuple

from psycopg import sql

from federation_audit.lemmy.shape import Shape

LINKS_MOST = 20
"""Posts of one address that are reported; the 21st with the same link says nothing new."""

ADDRESS = r"(https?://(?:[^\s<>()\"\\]|\([^\s<>()\"\\]*\))+)"
"""What an address in a text is: a run of what may be in one, round brackets in pairs alone. Linear in the text."""


class Row(NamedTuple):
    """A place of the image `number`. `published_s` is in seconds since the epoch, and may be any number."""

    number: int
    exact: bool
    place: str
    post_url: str | None
    published_s: float | None
    author_id: str | None
    author_domain: str | None
    author_local: bool | None
    community_id: str | None
    community_domain: str | None


_PARTS = {
    "wanted": """
        unnest(%(numbers)s::int[], %(forms)s::text[], %(stored)s::bool[], %(exact)s::bool[])
        AS w(number, form, stored, exact)""",
    "who": "a.{ap}::text, ai.domain::text, a.local",
    "nobody": "NULL::text, NULL::text, NULL::bool",
    "where": "c.{ap}::text, ci.domain::text",
    "nowhere": "NULL::text, NULL::text",
    "author_instance": """
        CROSS JOIN LATERAL (SELECT domain FROM instance WHERE instance.id = a.instance_id LIMIT 1) AS ai""",
    "community": """
        CROSS JOIN LATERAL (
            SELECT instance_id, {ap} FROM community WHERE community.id = p.community_id LIMIT 1
        ) AS c
        CROSS JOIN LATERAL (SELECT domain FROM instance WHERE instance.id = c.instance_id LIMIT 1) AS ci""",
}

# One row by its id. With the limit the planner has no choice but to ask the index for each: how many rows a pattern
# matches is anybody's guess, and a high one would have it read whole tables.
_PERSON = "CROSS JOIN LATERAL (SELECT instance_id, local, {ap} FROM person WHERE person.id = %s LIMIT 1) AS a"
_PERSONS = {
    "creator": _PERSON % "p.creator_id",
    "writer": _PERSON % "t.creator_id",
    "uploader": _PERSON % "u.person_id",
    "poster": _PERSON % "coalesce(p.creator_id, i.person_id)",
}

_LINKS = """
SELECT w.number, true, 'post-link', p.ap_id::text, extract(epoch FROM p.{published})::float8, {who}, {where}
FROM {wanted}
CROSS JOIN LATERAL (
    SELECT ap_id, creator_id, community_id, {published} FROM post WHERE post.url = w.form LIMIT %(most)s
) AS p
{creator} {author_instance} {community}
"""

_UPLOADS_BY_USER = """
SELECT w.number, true, 'upload', NULL::text, extract(epoch FROM i.{published})::float8, {who}, {nowhere}
FROM unnest(%(alias_numbers)s::int[], %(aliases)s::text[]) AS w(number, alias)
CROSS JOIN LATERAL (
    SELECT local_user_id, {published} FROM {uploads} WHERE {uploads}.pictrs_alias = w.alias LIMIT 1
) AS i
CROSS JOIN LATERAL (SELECT person_id FROM local_user WHERE local_user.id = i.local_user_id LIMIT 1) AS u
{uploader} {author_instance}
"""

_UPLOADS_BY_PERSON = """
SELECT w.number, true, CASE WHEN p.ap_id IS NULL THEN 'upload' ELSE 'post-thumbnail' END, p.ap_id::text,
    extract(epoch FROM coalesce(p.{published}, i.{published}))::float8, {who}, {where}
FROM unnest(%(alias_numbers)s::int[], %(aliases)s::text[]) AS w(number, alias)
CROSS JOIN LATERAL (
    SELECT person_id, thumbnail_for_post_id, {published} FROM {uploads} WHERE {uploads}.pictrs_alias = w.alias LIMIT 1
) AS i
LEFT JOIN LATERAL (
    SELECT ap_id, creator_id, community_id, {published} FROM post WHERE post.id = i.thumbnail_for_post_id LIMIT 1
) AS p ON true
{poster} {author_instance}
LEFT JOIN LATERAL (
    SELECT instance_id, {ap} FROM community WHERE community.id = p.community_id LIMIT 1
) AS c ON true
LEFT JOIN LATERAL (SELECT domain FROM instance WHERE instance.id = c.instance_id LIMIT 1) AS ci ON true
"""

_THUMBNAILS = """
SELECT w.number, true, 'post-thumbnail', p.ap_id::text, extract(epoch FROM p.{published})::float8, {who}, {where}
FROM (
    SELECT ap_id, creator_id, community_id, thumbnail_url, {published} FROM post ORDER BY id DESC LIMIT %(recent)s
) AS p
JOIN {wanted} ON w.form = split_part(p.thumbnail_url, '&max_size=', 1)
{creator} {author_instance} {community}
"""

# A sentence may end its address with a full stop; one of a stored file may ask for a format ("?format=webp").
_MATCHES = """
WITH found AS MATERIALIZED (
    SELECT p.*, m.address[1] AS address
    FROM ({recent_rows}) AS p CROSS JOIN LATERAL regexp_matches(p.content, %(address)s, 'g') AS m(address)
    WHERE p.content LIKE '%%http%%'
), matches AS MATERIALIZED (
    SELECT DISTINCT w.number, w.exact, f.*
    FROM found f
    CROSS JOIN LATERAL (VALUES
        (f.address, false), (rtrim(f.address, '.,;:!?*_~`]'''), false), (split_part(f.address, '?', 1), true)
    ) AS v(address, cut)
    JOIN {wanted} ON w.form = v.address AND (w.stored OR NOT v.cut)
)
"""

_POST_TEXTS = """
{matches}
SELECT p.number, p.exact, 'post-text', p.ap_id::text, extract(epoch FROM p.{published})::float8, {who}, {where}
FROM matches p {creator} {author_instance} {community}
"""

_COMMENTS = """
{matches}
SELECT t.number, t.exact, 'comment', t.ap_id::text, extract(epoch FROM t.{published})::float8, {who}, {where}
FROM matches t
CROSS JOIN LATERAL (SELECT community_id FROM post WHERE post.id = t.post_id LIMIT 1) AS p
{writer} {author_instance} {community}
"""

_PRIVATE_MESSAGES = """
{matches}
SELECT p.number, p.exact, 'message', p.ap_id::text, extract(epoch FROM p.{published})::float8, {who}, {nowhere}
FROM matches p {creator} {author_instance}
"""

_RECENT_POSTS = """
SELECT ap_id, creator_id, community_id, body AS content, {published} FROM post ORDER BY id DESC LIMIT %(recent)s
"""
_RECENT_COMMENTS = """
SELECT ap_id, creator_id, post_id, content, {published} FROM comment ORDER BY id DESC LIMIT %(recent)s
"""
_RECENT_MESSAGES = """
SELECT ap_id, creator_id, content, {published} FROM private_message ORDER BY id DESC LIMIT %(recent)s
"""

_OF_PERSONS = """
SELECT w.number, true, {place}, NULL::text, NULL::float8, {who}, {nowhere}
FROM {wanted} JOIN person a ON a.{column} = w.form {author_instance}
"""

_OF_COMMUNITIES = """
SELECT w.number, true, {place}, c.{ap}::text, NULL::float8, {nobody}, {where}
FROM {wanted} JOIN community c ON c.{column} = w.form JOIN instance ci ON ci.id = c.instance_id
"""

_OF_INSTANCES = """
SELECT w.number, true, {place}, s.{ap}::text, NULL::float8, NULL::text, ai.domain::text, NULL::bool, {nowhere}
FROM {wanted} JOIN site s ON s.{column} = w.form JOIN instance ai ON ai.id = s.instance_id
"""

_LOCAL_USER = """
SELECT a.{ap}::text
FROM (SELECT person_id FROM local_user WHERE local_user.id = %(local_user)s LIMIT 1) AS u {uploader}
"""

_HOME = "SELECT s.{ap}::text FROM local_site l JOIN site s ON s.id = l.site_id LIMIT 1"


def links(shape: Shape) -> sql.Composed:
    """Posts that link to the image, of any age."""
    return _fill(_LINKS, shape)


def uploads(shape: Shape) -> sql.Composed:
    """Stored files by their alias: who uploaded them, or, in 1.0, whose post they are the thumbnail of."""
    return _fill(_UPLOADS_BY_PERSON if shape.uploads_by_person else _UPLOADS_BY_USER, shape)


def thumbnails(shape: Shape) -> sql.Composed:
    """The newest posts whose thumbnail the image is."""
    return _fill(_THUMBNAILS, shape)


def post_texts(shape: Shape) -> sql.Composed:
    """The newest posts whose text holds the image's address."""
    return _fill(_POST_TEXTS, shape, matches=_matches(shape, _RECENT_POSTS))


def comments(shape: Shape) -> sql.Composed:
    """The newest comments that hold the image's address."""
    return _fill(_COMMENTS, shape, matches=_matches(shape, _RECENT_COMMENTS))


def private_messages(shape: Shape) -> sql.Composed:
    """The newest private messages that hold the image's address."""
    return _fill(_PRIVATE_MESSAGES, shape, matches=_matches(shape, _RECENT_MESSAGES))


def avatars(shape: Shape) -> tuple[sql.Composed, ...]:
    """Avatars, banners and icons of persons, communities and instances. These read whole tables."""
    columns = (
        (_OF_PERSONS, "avatar"),
        (_OF_PERSONS, "banner"),
        (_OF_COMMUNITIES, "icon"),
        (_OF_COMMUNITIES, "banner"),
        (_OF_INSTANCES, "icon"),
        (_OF_INSTANCES, "banner"),
    )
    return tuple(
        _fill(statement, shape, column=sql.Identifier(column), place=sql.Literal(column))
        for statement, column in columns
    )


def local_user(shape: Shape) -> sql.Composed:
    """The ActivityPub id of one of our own Lemmy's users, by its number (`local_user`)."""
    return _fill(_LOCAL_USER, shape)


def home(shape: Shape) -> sql.Composed:
    """The id of our own Lemmy's site, which is its base address."""
    return _fill(_HOME, shape)


def _matches(shape: Shape, recent_rows: str) -> sql.Composed:
    return _fill(_MATCHES, shape, recent_rows=_fill(recent_rows, shape))


def _fill(statement: str, shape: Shape, **parts: sql.Composable) -> sql.Composed:
    """The statement with what differs between Lemmys, and what several statements share, filled in."""
    shared = {name: sql.SQL(part).format(**shape.names) for name, part in (_PARTS | _PERSONS).items()}
    return sql.SQL(statement).format(**shared, **shape.names, **parts)
