"""The table of presences (`federation_audit.store` makes it). No rebuild touches it.

Times are milliseconds since the Unix epoch (UTC).
"""

from sqlalchemy import BigInteger, Column, Integer, LargeBinary, MetaData, String, Table, Text

METADATA = MetaData()

PRESENCES = Table(
    "presences",
    METADATA,
    Column("digest", LargeBinary, primary_key=True),  # SHA-256 of the post's address
    Column("post_url", Text, nullable=False),
    Column("domain", Text, nullable=False, index=True),  # of the author's instance
    Column("posted_at", BigInteger, nullable=False),
    Column("state", String(16), nullable=False),  # cases.Presence
    Column("looks", Integer, nullable=False),
    Column("looked_at", BigInteger),
    Column("next_at", BigInteger, index=True),  # null: no more looks
    Column("gone_at", BigInteger),  # when it was first found gone
)
