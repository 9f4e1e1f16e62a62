"""Which clusters of flagged media changed when."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table. What changed before is told nobody: who reads for the first time reads everything."""
    op.create_table(
        "flag_changes",
        sa.Column(
            "cluster_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False
        ),
        sa.Column("change", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("cluster_id"),
    )
    op.create_index("flag_changes_change", "flag_changes", ["change"], unique=False)
