"""The table of presences (`federation_audit.store` makes it). No rebuild touches it.

Times are milliseconds since the Unix epoch (UTC).
"""

import hashlib

from sqlalchemy import BigInteger, Column, Integer, LargeBinary, MetaData, String, Table, Text

METADATA = MetaData()

PRESENCES = Table(
    "presences",
    METADATA,
    Column("digest", LargeBinary, primary_key=True),  # SHA-256 of the post's address
    Column("post_url", Text, nullable=False),
    Column("domain", Text, nullable=False, index=True),  # of the author's instance
    Column("known_at", BigInteger, nullable=False),  # from when on times count: see posts.Post
    Column("state", String(16), nullable=False),  # cases.Presence
    Column("looks", Integer, nullable=False),  # how often it was asked for
    Column("asked_at", BigInteger),  # the last time
    Column("looked_at", BigInteger),  # the last time that the answer said anything: `state` is as of then
    Column("next_at", BigInteger, index=True),  # null: no more looks
    Column("gone_at", BigInteger),  # when it was first found gone
)


def digest_of(post_url: str) -> bytes:
    """The key of a post's row."""
    return hashlib.sha256(post_url.encode()).digest()
