"""Rescans: how they stand, and what they said of each image."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables. The recorder reads their topics from the beginning: nothing else is made anew."""
    op.create_table(
        "rescans",
        sa.Column("rescan", sa.Text(), nullable=False),
        sa.Column("ordered_at", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("job", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("rescan"),
    )
    op.create_table(
        "rescan_images",
        sa.Column("rescan_id", sa.BigInteger(), nullable=False),
        sa.Column("image", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("outcome_id", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("rescan_id", "image"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "rescan_counts",
        sa.Column("rescan_id", sa.BigInteger(), nullable=False),
        sa.Column("outcome_id", sa.BigInteger(), nullable=False),
        sa.Column("images", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("rescan_id", "outcome_id"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "rescan_flips",
        sa.Column("rescan_id", sa.BigInteger(), nullable=False),
        sa.Column("image", sa.BigInteger(), nullable=False),
        sa.Column("tenant_id", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("scan_id", sa.Text(), nullable=False),
        sa.Column("judged_at", sa.BigInteger(), nullable=False),
        sa.Column("before", sa.SmallInteger(), nullable=False),
        sa.Column("after", sa.SmallInteger(), nullable=False),
        sa.Column("outcome_id", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("rescan_id", "image"),
    )
    op.create_index("rescan_flips_judged", "rescan_flips", ["rescan_id", "judged_at"], unique=False)
