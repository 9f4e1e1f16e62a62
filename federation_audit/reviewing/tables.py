"""The tables of reviews (`federation_audit.store` makes them). No rebuild touches them: media go by tenant and sha256.

Times are milliseconds since the Unix epoch (UTC).
"""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
)

METADATA = MetaData()

REVIEWS = Table(
    "reviews",
    METADATA,
    Column("id", BigInteger().with_variant(Integer(), "sqlite"), primary_key=True, autoincrement=True),
    Column("tenant", String(64), nullable=False),
    Column("sha256", LargeBinary, nullable=False),
    Column("reviewer", String(64), nullable=False),
    Column(
        "opinion",
        String(16),
        CheckConstraint("opinion IN ('confirm', 'dismiss', 'unsure')", name="reviews_opinion"),
        nullable=False,
    ),
    Column("at", BigInteger, nullable=False),
    Column("note", Text, nullable=False),
    Column("answer", String(32), nullable=False, server_default=""),
    Column("opinion_before", String(16)),  # what it took the place of, and when that was given
    Column("at_before", BigInteger),
    Column("note_before", Text),
    UniqueConstraint("tenant", "sha256", "reviewer", name="reviews_of_medium"),
    Index("reviews_of_reviewer", "reviewer", "at"),
)
"""The latest opinion of each reviewer on each medium; earlier ones are in the log of actions. `answer` is the id of
what a person sent at once, by which it is undone; empty once it was restored by that."""

ORDERS = Table(
    "override_orders",
    METADATA,
    Column("id", BigInteger().with_variant(Integer(), "sqlite"), primary_key=True, autoincrement=True),
    Column("answer", String(32), nullable=False, index=True),
    Column("tenant", String(64), nullable=False),
    Column("sha256", LargeBinary, nullable=False),
    Column(
        "effect",
        String(8),
        CheckConstraint("effect IN ('allow', 'deny', 'lift')", name="override_orders_effect"),
        nullable=False,
    ),
    Column("kind", String(8), nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("distance", SmallInteger, nullable=False),
    Column("reason", Text, nullable=False),
    Column("ordered_by", String(64), nullable=False),
    Column("ordered_at", BigInteger, nullable=False),
    Column("published_at", BigInteger, index=True),
    Index("override_orders_of", "tenant", "sha256"),
)
"""Overrides that reviews asked for, in this order; lift: one is taken back. `sha256` is the reviewed medium, `hash`
what the override goes by. It is in force only once `published_at` says so."""
