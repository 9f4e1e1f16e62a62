"""Indexes for what is flagged, which the pages ask for as a whole: a hundredth of all."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Give each flagged image its tenant, and make the indexes. Reads all judgements once: a minute of ten million."""
    op.add_column("flags", sa.Column("tenant_id", sa.BigInteger(), nullable=False, server_default="0"))
    op.execute("UPDATE flags SET tenant_id = (SELECT tenant_id FROM media WHERE media.id = flags.media_id)")
    op.create_index("flags_open", "flags", ["now", "tenant_id", "cluster_id", "flagged_at", "media_id"], unique=False)
    flagged = sa.text("decision > 0")
    op.create_index(
        "judgements_flagged",
        "judgements",
        ["stratum_id", "media_id"],
        unique=False,
        sqlite_where=flagged,
        postgresql_where=flagged,
    )
