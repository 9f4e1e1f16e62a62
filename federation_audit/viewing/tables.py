"""Who looked at what, when and why (`federation_audit.store` makes the table). No rebuild touches it.

Times are milliseconds since the Unix epoch (UTC).
"""

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, String, Table, Text

METADATA = MetaData()

VIEWS = Table(
    "views",
    METADATA,
    Column("id", BigInteger().with_variant(Integer(), "sqlite"), primary_key=True, autoincrement=True),
    Column("at", BigInteger, nullable=False, index=True),
    Column("who", String(64), nullable=False),
    Column("tenant", String(64), nullable=False),
    Column("sha256", LargeBinary, nullable=False),
    Column("scan_id", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("veil", String(16), nullable=False),  # how it was shown: blurred, grey, plain
    Index("views_of_medium", "tenant", "sha256"),
)
