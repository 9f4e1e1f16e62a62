"""The tables of accounts (`federation_audit.store` makes them). Times are milliseconds since the Unix epoch (UTC)."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
)

METADATA = MetaData()

# SQLite counts up by itself only where the type is INTEGER; there that has 64 bits.
_Id = BigInteger().with_variant(Integer(), "sqlite")

USERS = Table(
    "users",
    METADATA,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("name", String(64), nullable=False, unique=True),
    Column(
        "role",
        String(16),
        CheckConstraint("role IN ('viewer', 'reviewer', 'admin')", name="users_role"),
        nullable=False,
    ),
    Column("password_hash", String(255), nullable=False),  # empty: nobody can log in
    Column("must_change", SmallInteger, nullable=False),  # 1: somebody else knows the password
    Column("created_at", BigInteger, nullable=False),
    Column("password_at", BigInteger, nullable=False),
    Column("login_at", BigInteger),
    Column("removed_at", BigInteger),  # the row stays: a name in the log is one person's for ever
)

SESSIONS = Table(
    "sessions",
    METADATA,
    Column("token_hash", String(64), primary_key=True),
    Column("user_id", _Id, ForeignKey("users.id"), nullable=False, index=True),
    Column("network", String(64), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("seen_at", BigInteger, nullable=False),
)

ATTEMPTS = Table(
    "login_attempts",
    METADATA,
    Column("id", String(32), primary_key=True),
    Column("account", String(32), nullable=False),
    Column("network", String(64), nullable=False),
    Column("at", BigInteger, nullable=False),
    Index("login_attempts_of_account", "account", "at"),
    Index("login_attempts_of_network", "network", "at"),
)

# Appended to and nothing else: triggers refuse every change, whoever writes to the database by way of us.
ACTIONS = Table(
    "actions",
    METADATA,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("at", BigInteger, nullable=False, index=True),
    Column("who", String(80), nullable=False, index=True),
    Column("what", String(64), nullable=False, index=True),
    Column("about", String(255), nullable=False),
    Column("detail", Text, nullable=False),
    Column("network", String(64), nullable=False),
)
