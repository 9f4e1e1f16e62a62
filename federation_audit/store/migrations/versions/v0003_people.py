"""Exposure by period, and the tables of what people say, decide, send and look at."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make them. A store that has read anything already is to be made anew: periods are counted as messages come."""
    op.create_table(
        "periods",
        sa.Column("instance_id", sa.BigInteger(), nullable=False),
        sa.Column("stratum_id", sa.BigInteger(), nullable=False),
        sa.Column("first_day", sa.BigInteger(), nullable=False),
        sa.Column("exposed", sa.BigInteger(), nullable=False),
        sa.Column("flagged", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("instance_id", "stratum_id", "first_day"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "reviews",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("reviewer", sa.String(length=64), nullable=False),
        sa.Column("opinion", sa.String(length=16), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("answer", sa.String(length=32), server_default="", nullable=False),
        sa.Column("opinion_before", sa.String(length=16), nullable=True),
        sa.Column("at_before", sa.BigInteger(), nullable=True),
        sa.Column("note_before", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("tenant", "sha256", "reviewer", name="reviews_of_medium"),
        sa.CheckConstraint("opinion IN ('confirm', 'dismiss', 'unsure')", name="reviews_opinion"),
    )
    op.create_index("reviews_of_reviewer", "reviews", ["reviewer", "at"], unique=False)
    op.create_table(
        "override_orders",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("answer", sa.String(length=32), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("effect", sa.String(length=8), nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("distance", sa.SmallInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("ordered_by", sa.String(length=64), nullable=False),
        sa.Column("ordered_at", sa.BigInteger(), nullable=False),
        sa.Column("published_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.CheckConstraint("effect IN ('allow', 'deny', 'lift')", name="override_orders_effect"),
    )
    op.create_index("ix_override_orders_answer", "override_orders", ["answer"], unique=False)
    op.create_index("ix_override_orders_published_at", "override_orders", ["published_at"], unique=False)
    op.create_index("override_orders_of", "override_orders", ["tenant", "sha256"], unique=False)
    op.create_table(
        "addresses",
        sa.Column("domain", sa.Text(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("found_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("domain", "kind", "value"),
    )
    op.create_table(
        "decisions",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("domain", sa.Text(), nullable=False),
        sa.Column("action", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("level", sa.SmallInteger(), nullable=False),
        sa.Column("decided_by", sa.String(length=64), nullable=False),
        sa.Column("decided_at", sa.BigInteger(), nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=True),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.CheckConstraint("action IN ('none', 'contact', 'restrict-media', 'defederate')", name="decisions_action"),
    )
    op.create_index("ix_decisions_domain", "decisions", ["domain"], unique=False)
    still_open = sa.text("ended_at IS NULL")
    op.create_index(
        "decisions_open", "decisions", ["domain"], unique=True, sqlite_where=still_open, postgresql_where=still_open
    )
    op.create_index("ix_decisions_until", "decisions", ["until"], unique=False)
    op.create_table(
        "letters",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("domain", sa.Text(), nullable=False),
        sa.Column("sent_day", sa.BigInteger(), nullable=False),
        sa.Column("answered_day", sa.BigInteger(), nullable=True),
        sa.Column("way", sa.Text(), nullable=False),
        sa.Column("noted_by", sa.String(length=64), nullable=False),
        sa.Column("noted_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_letters_domain", "letters", ["domain"], unique=False)
    op.create_table(
        "notes",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("domain", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("noted_by", sa.String(length=64), nullable=False),
        sa.Column("noted_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_notes_domain", "notes", ["domain"], unique=False)
    op.create_table(
        "remediations",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("domain", sa.Text(), nullable=False),
        sa.Column("day", sa.BigInteger(), nullable=False),
        sa.Column("noted_by", sa.String(length=64), nullable=False),
        sa.Column("noted_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("remediations_of", "remediations", ["domain", "day"], unique=False)
    op.create_table(
        "journal",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("domain", sa.Text(), nullable=False),
        sa.Column("channel", sa.String(length=16), nullable=False),
        sa.Column("recipient", sa.Text(), nullable=False),
        sa.Column("request", sa.Text(), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("changes", sa.Text(), nullable=False),
        sa.Column("confirmed_by", sa.String(length=64), nullable=False),
        sa.Column("confirmed_at", sa.BigInteger(), nullable=False),
        sa.Column("begun_at", sa.BigInteger(), nullable=False),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("digest"),
    )
    op.create_index("ix_journal_begun_at", "journal", ["begun_at"], unique=False)
    op.create_index("ix_journal_domain", "journal", ["domain"], unique=False)
    op.create_table(
        "presences",
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("post_url", sa.Text(), nullable=False),
        sa.Column("domain", sa.Text(), nullable=False),
        sa.Column("known_at", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("looks", sa.Integer(), nullable=False),
        sa.Column("asked_at", sa.BigInteger(), nullable=True),
        sa.Column("looked_at", sa.BigInteger(), nullable=True),
        sa.Column("next_at", sa.BigInteger(), nullable=True),
        sa.Column("gone_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("digest"),
    )
    op.create_index("ix_presences_domain", "presences", ["domain"], unique=False)
    op.create_index("ix_presences_next_at", "presences", ["next_at"], unique=False)
    op.create_table(
        "views",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("who", sa.String(length=64), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("scan_id", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("veil", sa.String(length=16), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_views_at", "views", ["at"], unique=False)
    op.create_index("views_of_medium", "views", ["tenant", "sha256"], unique=False)
    op.execute("UPDATE state SET value = value + 1 WHERE name = 'wanted' AND EXISTS (SELECT 1 FROM offsets)")
    op.execute(
        "INSERT INTO state (name, value) SELECT 'wanted', 1"
        " WHERE EXISTS (SELECT 1 FROM offsets) AND NOT EXISTS (SELECT 1 FROM state WHERE name = 'wanted')"
    )
