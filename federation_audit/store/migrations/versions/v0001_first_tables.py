"""The tables of the first release that has an audit."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make them."""
    op.create_table(
        "actors",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("pseudonym", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("actors_key", "actors", ["pseudonym", "key_id"], unique=True)
    op.create_table(
        "days",
        sa.Column("day", sa.BigInteger(), nullable=False),
        sa.Column("tenant_id", sa.BigInteger(), nullable=False),
        sa.Column("measure_id", sa.BigInteger(), nullable=False),
        sa.Column("media", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("day", "tenant_id", "measure_id"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "evidence",
        sa.Column("instance_id", sa.BigInteger(), nullable=False),
        sa.Column("media_id", sa.BigInteger(), nullable=False),
        sa.Column("actor_id", sa.BigInteger(), nullable=False),
        sa.Column("day", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("instance_id", "media_id", "actor_id", "day"),
        sqlite_with_rowid=False,
    )
    op.create_index("evidence_media", "evidence", ["media_id"], unique=False)
    op.create_table(
        "flags",
        sa.Column(
            "media_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False
        ),
        sa.Column("cluster_id", sa.BigInteger(), nullable=False),
        sa.Column("flagged_at", sa.BigInteger(), nullable=False),
        sa.Column("scan_id", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("now", sa.SmallInteger(), nullable=False),
        sa.PrimaryKeyConstraint("media_id"),
    )
    op.create_index("flags_cluster", "flags", ["cluster_id"], unique=False)
    op.create_table(
        "forgotten",
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("pseudonym", sa.LargeBinary(), nullable=False),
        sa.Column("forgotten_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key_id", "pseudonym"),
    )
    op.create_table(
        "joins",
        sa.Column("media_id", sa.BigInteger(), nullable=False),
        sa.Column("name_id", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("media_id", "name_id"),
        sqlite_with_rowid=False,
    )
    op.create_index("joins_name", "joins", ["name_id"], unique=False)
    op.create_table(
        "judgements",
        sa.Column("media_id", sa.BigInteger(), nullable=False),
        sa.Column("stratum_id", sa.BigInteger(), nullable=False),
        sa.Column("judged_at", sa.BigInteger(), nullable=False),
        sa.Column("scan_id", sa.Text(), nullable=False),
        sa.Column("decision", sa.SmallInteger(), nullable=False),
        sa.Column("rules_id", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("media_id", "stratum_id"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "lease",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "links",
        sa.Column("subject_id", sa.BigInteger(), nullable=False),
        sa.Column("name_id", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("subject_id", "name_id"),
        sqlite_with_rowid=False,
    )
    op.create_index("links_name", "links", ["name_id"], unique=False)
    op.create_table(
        "looks",
        sa.Column("media_id", sa.BigInteger(), nullable=False),
        sa.Column("pdq", sa.LargeBinary(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("media_id", "pdq"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "marks",
        sa.Column("media_id", sa.BigInteger(), nullable=False),
        sa.Column("mark_id", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("media_id", "mark_id"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "media",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False),
        sa.Column("tenant_id", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("media_key", "media", ["sha256", "tenant_id"], unique=True)
    op.create_table(
        "names",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False),
        sa.Column("tenant_id", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.SmallInteger(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("names_key", "names", ["digest", "kind", "tenant_id"], unique=True)
    op.create_table(
        "offsets",
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("partition", sa.BigInteger(), nullable=False),
        sa.Column("next_offset", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("topic", "partition"),
    )
    op.create_table(
        "origins",
        sa.Column("id", sa.LargeBinary(), nullable=False),
        sa.Column("subject_id", sa.BigInteger(), nullable=False),
        sa.Column("place", sa.SmallInteger(), nullable=False),
        sa.Column("method", sa.SmallInteger(), nullable=False),
        sa.Column("host_id", sa.BigInteger(), nullable=False),
        sa.Column("host_confidence", sa.SmallInteger(), nullable=False),
        sa.Column("author_instance_id", sa.BigInteger(), nullable=False),
        sa.Column("author_confidence", sa.SmallInteger(), nullable=False),
        sa.Column("actor_id", sa.BigInteger(), nullable=False),
        sa.Column("community_id", sa.BigInteger(), nullable=False),
        sa.Column("community_instance_id", sa.BigInteger(), nullable=False),
        sa.Column("community_confidence", sa.SmallInteger(), nullable=False),
        sa.Column("moment_at", sa.BigInteger(), nullable=True),
        sa.Column("moment_confidence", sa.SmallInteger(), nullable=False),
        sa.Column("post_url", sa.Text(), nullable=False),
        sa.Column("observer", sa.Text(), nullable=False),
        sa.Column("observed_at", sa.BigInteger(), nullable=False),
        sa.Column("tie", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("origins_actor", "origins", ["actor_id"], unique=False)
    op.create_index("origins_subject", "origins", ["subject_id"], unique=False)
    op.create_table(
        "sightings",
        sa.Column("subject_id", sa.BigInteger(), nullable=False),
        sa.Column("role", sa.SmallInteger(), nullable=False),
        sa.Column("instance_id", sa.BigInteger(), nullable=False),
        sa.Column("actor_id", sa.BigInteger(), nullable=False),
        sa.Column("day", sa.BigInteger(), nullable=False),
        sa.Column("sure", sa.BigInteger(), nullable=False),
        sa.Column("origins", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("subject_id", "role", "instance_id", "actor_id", "day"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "state",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "strata",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False),
        sa.Column("models", sa.Text(), nullable=False),
        sa.Column("policy", sa.Text(), nullable=False),
        sa.Column("hash_list", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("strata_key", "strata", ["models", "policy", "hash_list"], unique=True)
    op.create_table(
        "tallies",
        sa.Column("role", sa.SmallInteger(), nullable=False),
        sa.Column("instance_id", sa.BigInteger(), nullable=False),
        sa.Column("stratum_id", sa.BigInteger(), nullable=False),
        sa.Column("exposed", sa.BigInteger(), nullable=False),
        sa.Column("flagged", sa.BigInteger(), nullable=False),
        sa.Column("incidents", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("role", "instance_id", "stratum_id"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "texts",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False),
        sa.Column("kind", sa.SmallInteger(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("texts_text", "texts", ["kind", "text"], unique=True)
    op.bulk_insert(
        sa.table(
            "lease", sa.column("id", sa.BigInteger), sa.column("holder", sa.Text), sa.column("until", sa.BigInteger)
        ),
        [{"id": 1, "holder": "", "until": 0}],
    )
