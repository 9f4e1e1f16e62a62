"""What was sent (`federation_audit.store` makes the table). No rebuild touches it.

Times are milliseconds since the Unix epoch (UTC).
"""

from sqlalchemy import BigInteger, Column, Integer, MetaData, String, Table, Text

METADATA = MetaData()

JOURNAL = Table(
    "journal",
    METADATA,
    Column("digest", String(64), primary_key=True),  # of the plan that was confirmed
    Column("domain", Text, nullable=False, index=True),  # "" where a list of many was sent
    Column("channel", String(16), nullable=False),
    Column("recipient", Text, nullable=False),
    Column("request", Text, nullable=False),
    Column("payload", Text, nullable=False),  # JSON
    Column("changes", Text, nullable=False),  # JSON: sentences
    Column("confirmed_by", String(64), nullable=False),
    Column("confirmed_at", BigInteger, nullable=False),
    Column("begun_at", BigInteger, nullable=False, index=True),
    Column("finished_at", BigInteger),  # null: begun, and nobody knows what came of it
    Column("outcome", String(16), nullable=False),  # sending.confirming.Outcome, or "abandoned": nothing left
    Column("status", Integer),
    Column("answer", Text, nullable=False),
)
