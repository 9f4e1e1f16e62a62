"""The tables. What each row means is said in `federation_audit.store` and beside it.

Times are milliseconds since the epoch, days are days since the epoch (UTC). Ids are given by `store.identities`; a
subject is what an origin hangs on: a medium, or a name (alias or address) that is not, or not only, one medium's.
"""

from typing import Any

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, SmallInteger, Table, Text, text

ID = BigInteger().with_variant(Integer(), "sqlite")
METADATA = MetaData()

_CLUSTERED: dict[str, Any] = {"sqlite_with_rowid": False}


def _id(name: str = "id") -> Column[int]:
    return Column(name, ID, primary_key=True, autoincrement=False)


def _whole(name: str, **options: Any) -> Column[int]:
    return Column(name, BigInteger, nullable=False, **options)


def _small(name: str, **options: Any) -> Column[int]:
    return Column(name, SmallInteger, nullable=False, **options)


def _text(name: str, **options: Any) -> Column[str]:
    return Column(name, Text, nullable=False, **options)


def _bytes(name: str, **options: Any) -> Column[bytes]:
    return Column(name, LargeBinary, nullable=False, **options)


STATE = Table("state", METADATA, _text("name", primary_key=True), _whole("value"))
"""Numbers about the store, by the names of `state.State`; and ``alerts/...``, what alerts have told."""

LEASE = Table("lease", METADATA, _id(), _text("holder"), _whole("until"))
"""One row: who may write, and until when nobody else may."""

OFFSETS = Table(
    "offsets", METADATA, _text("topic", primary_key=True), _whole("partition", primary_key=True), _whole("next_offset")
)
"""Up to where each partition is in the store."""

TEXTS = Table("texts", METADATA, _id(), _small("kind"), _text("text"), Index("texts_text", "kind", "text", unique=True))
"""Dictionary of what repeats: instances, tenants, rules, ... (`identities.TextKind`)."""

STRATA = Table(
    "strata",
    METADATA,
    _id(),
    _text("models"),
    _text("policy"),
    _text("hash_list"),
    Index("strata_key", "models", "policy", "hash_list", unique=True),
)
"""`models` is JSON, name to id, sorted; "" of a list's own verdicts."""

ACTORS = Table(
    "actors",
    METADATA,
    _id(),
    _text("key_id"),
    _bytes("pseudonym"),
    Index("actors_key", "pseudonym", "key_id", unique=True),
)
"""Actor 0, which has no row, is an actor not known."""

MEDIA = Table(
    "media",
    METADATA,
    _id(),
    _whole("tenant_id"),
    _bytes("sha256"),
    Index("media_key", "sha256", "tenant_id", unique=True),
)

FLAGGED = text("decision > 0")
"""That a judgement flags. Without a parameter: SQLite takes an index of some rows only where it need not ask which."""

JUDGEMENTS = Table(
    "judgements",
    METADATA,
    _whole("media_id", primary_key=True),
    _whole("stratum_id", primary_key=True),
    _whole("judged_at"),
    _text("scan_id"),
    _small("decision"),
    _whole("rules_id"),
    Index("judgements_flagged", "stratum_id", "media_id", sqlite_where=FLAGGED, postgresql_where=FLAGGED),
    **_CLUSTERED,
)
"""The newest verdict of a medium in a stratum. The index has flagged ones alone: ask for `FLAGGED`, as it is."""

MARKS = Table(
    "marks",
    METADATA,
    _whole("media_id", primary_key=True),
    _whole("mark_id", primary_key=True),
    _whole("at"),
    **_CLUSTERED,
)
"""The latest time that something happened to a medium: an answer, a removal, a failure, a denial (`facts.mark_of`)."""

FLAGS = Table(
    "flags",
    METADATA,
    _id("media_id"),
    _whole("cluster_id"),
    _whole("flagged_at"),
    _text("scan_id"),
    _text("detail"),
    _small("now"),
    _whole("tenant_id", server_default="0"),
    Index("flags_cluster", "cluster_id"),
    Index("flags_open", "now", "tenant_id", "cluster_id", "flagged_at", "media_id"),
)
"""A medium that any verdict flagged: the newest such verdict, and whether the medium is flagged now. The tenant is the
medium's: with it, one index has all that the order of the review queue goes by."""

FLAG_CHANGES = Table(
    "flag_changes",
    METADATA,
    _id("cluster_id"),
    _whole("change"),
    Index("flag_changes_change", "change"),
)
"""Derived: the latest `State.flags_change` that each cluster of `FLAGS` is part of."""

LOOKS = Table(
    "looks",
    METADATA,
    _whole("media_id", primary_key=True),
    _bytes("pdq", primary_key=True),
    _whole("at"),
    **_CLUSTERED,
)
"""PDQ hashes of flagged media that are fit for matching."""

NAMES = Table(
    "names",
    METADATA,
    _id(),
    _whole("tenant_id"),
    _small("kind"),
    _bytes("digest"),
    _text("text"),
    Index("names_key", "digest", "kind", "tenant_id", unique=True),
)
"""Aliases and addresses of images. The digest is the text's SHA-256, for an index of addresses would be as large."""

LINKS = Table(
    "links",
    METADATA,
    _whole("subject_id", primary_key=True),
    _whole("name_id", primary_key=True),
    _whole("at"),
    Index("links_name", "name_id"),
    **_CLUSTERED,
)
"""Two names of one image: a medium and a name, or an alias and an address."""

JOINS = Table(
    "joins",
    METADATA,
    _whole("media_id", primary_key=True),
    _whole("name_id", primary_key=True),
    Index("joins_name", "name_id"),
    **_CLUSTERED,
)
"""Derived from links: whose origins count for which medium (`store.joining`)."""

ORIGINS = Table(
    "origins",
    METADATA,
    _bytes("id", primary_key=True),
    _whole("subject_id"),
    _small("place"),
    _small("method"),
    _whole("host_id"),
    _small("host_confidence"),
    _whole("author_instance_id"),
    _small("author_confidence"),
    _whole("actor_id"),
    _whole("community_id"),
    _whole("community_instance_id"),
    _small("community_confidence"),
    Column("moment_at", BigInteger),
    _small("moment_confidence"),
    _text("post_url"),
    _text("observer"),
    _whole("observed_at"),
    _whole("tie"),
    Index("origins_subject", "subject_id"),
    Index("origins_actor", "actor_id"),
)
"""The newest message of each origin. Text ids are 0, and confidences 0, where a fact is not known."""

SIGHTINGS = Table(
    "sightings",
    METADATA,
    _whole("subject_id", primary_key=True),
    _small("role", primary_key=True),
    _whole("instance_id", primary_key=True),
    _whole("actor_id", primary_key=True),
    _whole("day", primary_key=True),
    _whole("sure"),
    _whole("origins"),
    **_CLUSTERED,
)
"""Derived from origins: how many say so, and how many of them with confidence certain or likely. Actors and days of
authors alone; 0 else."""

EVIDENCE = Table(
    "evidence",
    METADATA,
    _whole("instance_id", primary_key=True),
    _whole("media_id", primary_key=True),
    _whole("actor_id", primary_key=True),
    _whole("day", primary_key=True),
    Index("evidence_media", "media_id"),
    **_CLUSTERED,
)
"""Derived: the sure author sightings of media in `flags`, by instance."""

TALLIES = Table(
    "tallies",
    METADATA,
    _small("role", primary_key=True),
    _whole("instance_id", primary_key=True),
    _whole("stratum_id", primary_key=True),
    _whole("exposed"),
    _whole("flagged"),
    _whole("incidents"),
    **_CLUSTERED,
)
"""Derived: the counts. Stratum 0 is the state now; incidents stand there, of authors alone."""

PERIODS = Table(
    "periods",
    METADATA,
    _whole("instance_id", primary_key=True),
    _whole("stratum_id", primary_key=True),
    _whole("first_day", primary_key=True),
    _whole("exposed"),
    _whole("flagged"),
    **_CLUSTERED,
)
"""Derived: the exposures of authors' instances by period (`store.periods`), that of an instance's first sighting of the
medium. Instance 0: media whose author's instance is not known, in the period of their judgement."""

DAYS = Table(
    "days",
    METADATA,
    _whole("day", primary_key=True),
    _whole("tenant_id", primary_key=True),
    _whole("measure_id", primary_key=True),
    _whole("media"),
    **_CLUSTERED,
)
"""Derived: how many media by day of their latest verdict, of their latest answer of each kind, and so on."""

FORGOTTEN = Table(
    "forgotten",
    METADATA,
    _text("key_id", primary_key=True),
    _bytes("pseudonym", primary_key=True),
    _whole("forgotten_at"),
)
"""Actors whose origins observed until then do not count."""

RESCANS = Table(
    "rescans", METADATA, _text("rescan", primary_key=True), _whole("ordered_at"), _text("state"), _text("job")
)
"""Every rescan as it stands: `job` is its message as JSON, without the texts of its policies."""

RESCAN_IMAGES = Table(
    "rescan_images",
    METADATA,
    _whole("rescan_id", primary_key=True),
    _whole("image", primary_key=True),
    _whole("at"),
    _whole("outcome_id"),
    **_CLUSTERED,
)
"""What a rescan said of each image (`store.rescans.image_number`): that of the newest offset, which is `at`."""

RESCAN_COUNTS = Table(
    "rescan_counts",
    METADATA,
    _whole("rescan_id", primary_key=True),
    _whole("outcome_id", primary_key=True),
    _whole("images"),
    **_CLUSTERED,
)
"""Derived: how many images of a rescan have each outcome."""

RESCAN_FLIPS = Table(
    "rescan_flips",
    METADATA,
    _whole("rescan_id", primary_key=True),
    _whole("image", primary_key=True),
    _whole("tenant_id"),
    _bytes("sha256"),
    _text("scan_id"),
    _whole("judged_at"),
    _small("before"),
    _small("after"),
    _whole("outcome_id"),
    Index("rescan_flips_judged", "rescan_id", "judged_at"),
)
"""The images that a rescan decides differently; of one that judged frames, which do not tell what was decided before,
all that it decides, with -1 for `before`."""

FROM_MESSAGES = (
    TEXTS,
    STRATA,
    ACTORS,
    MEDIA,
    JUDGEMENTS,
    MARKS,
    FLAGS,
    FLAG_CHANGES,
    LOOKS,
    NAMES,
    LINKS,
    JOINS,
    ORIGINS,
    SIGHTINGS,
    EVIDENCE,
    TALLIES,
    PERIODS,
    DAYS,
    FORGOTTEN,
    RESCANS,
    RESCAN_IMAGES,
    RESCAN_COUNTS,
    RESCAN_FLIPS,
)
"""All that a rebuild clears and makes anew. What people wrote (reviews, decisions) must never be in it."""
