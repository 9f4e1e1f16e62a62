"""The table of reviews (`federation_audit.store` makes it). No rebuild touches it: media go by tenant and sha256.

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
    UniqueConstraint("tenant", "sha256", "reviewer", name="reviews_of_medium"),
    Index("reviews_of_reviewer", "reviewer", "at"),
)
"""The latest opinion of each reviewer on each medium; earlier ones are in the log of actions."""
