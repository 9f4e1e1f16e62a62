"""What people wrote about instances (`federation_audit.store` makes the tables). No rebuild touches it.

Domains are in the form of `schemas.domains`; times are milliseconds since the Unix epoch (UTC), days since it.
"""

from sqlalchemy import BigInteger, CheckConstraint, Column, Index, Integer, MetaData, SmallInteger, String, Table, Text

METADATA = MetaData()

# SQLite counts up by itself only where the type is INTEGER; there that has 64 bits.
_Id = BigInteger().with_variant(Integer(), "sqlite")

DECISIONS = Table(
    "decisions",
    METADATA,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("domain", Text, nullable=False, index=True),
    Column(
        "action",
        String(16),
        CheckConstraint("action IN ('none', 'contact', 'restrict-media', 'defederate')", name="decisions_action"),
        nullable=False,
    ),
    Column("reason", Text, nullable=False),
    Column("level", SmallInteger, nullable=False),  # the evidence's level when it was taken
    Column("decided_by", String(64), nullable=False),
    Column("decided_at", BigInteger, nullable=False),
    Column("until", BigInteger, index=True),  # null: it does not expire
    Column("ended_at", BigInteger),  # replaced by a later one, or withdrawn
)
_OPEN = DECISIONS.c.ended_at.is_(None)
Index("decisions_open", DECISIONS.c.domain, unique=True, sqlite_where=_OPEN, postgresql_where=_OPEN)

NOTES = Table(
    "notes",
    METADATA,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("domain", Text, nullable=False, index=True),
    Column("text", Text, nullable=False),
    Column("noted_by", String(64), nullable=False),
    Column("noted_at", BigInteger, nullable=False),
)

REMEDIATIONS = Table(
    "remediations",
    METADATA,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("domain", Text, nullable=False),
    Column("day", BigInteger, nullable=False),  # what was until then no longer counts against it
    Column("noted_by", String(64), nullable=False),
    Column("noted_at", BigInteger, nullable=False),
    Index("remediations_of", "domain", "day"),
)

LETTERS = Table(
    "letters",
    METADATA,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("domain", Text, nullable=False, index=True),
    Column("sent_day", BigInteger, nullable=False),
    Column("answered_day", BigInteger),
    Column("way", Text, nullable=False),  # "mail to abuse@...", or what a person wrote
    Column("noted_by", String(64), nullable=False),
    Column("noted_at", BigInteger, nullable=False),
)

ADDRESSES = Table(
    "addresses",
    METADATA,
    Column("domain", Text, primary_key=True),
    Column("kind", String(16), primary_key=True),
    Column("value", Text, primary_key=True),
    Column("source", Text, nullable=False),
    Column("found_at", BigInteger, nullable=False),
)
"""How the admins of an instance can be reached (`cases.Contact`)."""
