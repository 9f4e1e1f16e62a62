"""Which Lemmy's tables these are, told by their columns, and what our role has to be allowed to read of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from federation_audit.lemmy.errors import GrantMissing, NotLemmy

_TABLES = (
    "post",
    "comment",
    "private_message",
    "person",
    "community",
    "instance",
    "site",
    "local_site",
    "local_image",
    "image_upload",
    "local_user",
)

_COLUMNS = """
SELECT c.relname::text, a.attname::text, has_column_privilege(c.oid, a.attnum, 'SELECT')
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
WHERE c.oid IN (SELECT to_regclass(name) FROM unnest(%s::text[]) AS names(name)) AND a.attnum > 0 AND NOT a.attisdropped
"""


@dataclass(frozen=True, slots=True)
class Shape:
    """The names that differ between Lemmy's versions.

    `uploads` is the table of stored files; `uploads_by_person` says that it names the person and, for a thumbnail, the
    post (1.0), not the local user (0.19).
    """

    version: str
    ap_id: str
    published: str
    uploads: str
    uploads_by_person: bool

    @property
    def names(self) -> Mapping[str, sql.Identifier]:
        """What a statement's placeholders stand for."""
        return {
            "ap": sql.Identifier(self.ap_id),
            "published": sql.Identifier(self.published),
            "uploads": sql.Identifier(self.uploads),
        }

    def needed(self, *, private_messages: bool) -> dict[str, tuple[str, ...]]:
        """The columns that are read, by table. None of them is a secret."""
        owner = ("person_id", "thumbnail_for_post_id") if self.uploads_by_person else ("local_user_id",)
        text = ("id", "creator_id", "content", "ap_id", self.published)
        needed = {
            "post": ("id", "creator_id", "community_id", "url", "thumbnail_url", "body", "ap_id", self.published),
            "comment": (*text, "post_id"),
            "person": ("id", "instance_id", "local", "avatar", "banner", self.ap_id),
            "community": ("id", "instance_id", "icon", "banner", self.ap_id),
            "instance": ("id", "domain"),
            "site": ("id", "instance_id", "icon", "banner", self.ap_id),
            "local_site": ("site_id",),
            self.uploads: ("pictrs_alias", self.published, *owner),
            "local_user": ("id", "person_id"),
        }
        if private_messages:
            needed["private_message"] = text
        return needed


V019 = Shape("0.19", ap_id="actor_id", published="published", uploads="local_image", uploads_by_person=False)
V019_FIRST = Shape("0.19.0-3", ap_id="actor_id", published="published", uploads="image_upload", uploads_by_person=False)
V1 = Shape("1.0", ap_id="ap_id", published="published_at", uploads="local_image", uploads_by_person=True)

SHAPES = (V1, V019, V019_FIRST)


def grant_statements(needed: Mapping[str, tuple[str, ...]], role: str) -> tuple[str, ...]:
    """What the owner of the tables runs to let `role` read `needed`."""
    quoted = '"' + role.replace('"', '""') + '"'
    return tuple(f"GRANT SELECT ({', '.join(columns)}) ON {table} TO {quoted};" for table, columns in needed.items())


async def read_shape(connection: psycopg.AsyncConnection[Any], *, tenant: str, private_messages: bool) -> Shape:
    """The shape of the tables in this database, once our role may read what is needed of them.

    Raises `NotLemmy`, `GrantMissing`, and what psycopg raises.
    """
    readable: dict[str, dict[str, bool]] = {}
    for table, column, allowed in await (await connection.execute(_COLUMNS, [list(_TABLES)])).fetchall():
        readable.setdefault(table, {})[column] = allowed
    role = connection.info.user
    if not readable:
        await _check_schema(connection, tenant, role)
    fits = [shape for shape in SHAPES if _fits(shape, readable)]
    if not fits:
        raise NotLemmy(
            f"tenants.{tenant}.lemmy_database holds no tables of a Lemmy 0.19 or 1.0 (database"
            f" {connection.info.dbname!r}); {_first_fault(readable)}"
        )
    shape = fits[0]
    missing = {
        table: tuple(column for column in columns if not readable[table][column])
        for table, columns in shape.needed(private_messages=private_messages).items()
    }
    missing = {table: columns for table, columns in missing.items() if columns}
    if missing:
        hint = " (or set lemmy.private_messages = false)" if "private_message" in missing else ""
        raise GrantMissing(
            f"tenants.{tenant}.lemmy_database: the role {role!r} may not read {', '.join(sorted(missing))}{hint}",
            grant_statements(missing, role),
        )
    return shape


def _fits(shape: Shape, readable: Mapping[str, Mapping[str, bool]]) -> bool:
    needed = shape.needed(private_messages=True)
    return all(column in readable.get(table, {}) for table, columns in needed.items() for column in columns)


def _first_fault(readable: Mapping[str, Mapping[str, bool]]) -> str:
    """What a reader needs to see that it is the wrong database, or a Lemmy that we do not know."""
    for table, columns in V1.needed(private_messages=True).items():
        if table not in readable:
            return f"there is no table {table}"
        older = V019.needed(private_messages=True).get(table, ())
        for names in ([each] if each in older else [each, *older] for each in columns):
            if not any(name in readable[table] for name in names):
                return f"the table {table} has no column {names[0]}"
    return "columns of both versions are mixed: a migration may be running"


async def _check_schema(connection: psycopg.AsyncConnection[Any], tenant: str, role: str) -> None:
    """A schema that we may not look into seems empty."""
    found = "SELECT has_schema_privilege(oid, 'USAGE') FROM pg_catalog.pg_namespace WHERE nspname = 'public'"
    row = await (await connection.execute(found)).fetchone()
    if row is not None and not row[0]:
        raise GrantMissing(
            f"tenants.{tenant}.lemmy_database: the role {role!r} may not look into the schema public",
            (f'GRANT USAGE ON SCHEMA public TO "{role}";',),
        )
