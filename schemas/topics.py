"""Every topic, declared once: who writes it, who reads it, how it is partitioned and how long it is kept.

Producer, broker and fetch limits derive from `MAX_MESSAGE_BYTES`; `schemas.broker.admin` creates and compares
topics from this table. The names carry a configurable prefix (default ``fediwarden.``).
"""

from dataclasses import dataclass, field

from schemas.messages import (
    ActorForgotten,
    AnswerGiven,
    EnforcementReported,
    FeaturesExtracted,
    ImageFailed,
    ImageSubmitted,
    Message,
    ModelsPromoted,
    OriginObserved,
    OverrideSet,
    RescanJudged,
    RescanOrdered,
    ScannerAnnounced,
    SweepCheckpoint,
    SweepFound,
    Verdict,
)

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS
THIRTEEN_MONTHS_MS = 396 * DAY_MS

FRAMES_MAX_BYTES = 900_000
"""The JPEGs of one image together; the gateway steps their quality down until they fit."""

IMAGE_MAX_BYTES = 1 << 20
"""One record of frames: `FRAMES_MAX_BYTES`, its envelope and room for fields to come."""

RECORD_MAX_BYTES = 256 << 10
"""One record of every other topic."""


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """One topic. `messages` are the types it may hold; None values (tombstones) are allowed where it is compacted.

    `writers` and `readers` are processes by the names of their commands; `fediwarden` stands for the commands that a
    person calls, `audit` for the recorder and the pages. `erasers` delete records from it, and write the ticks that
    this takes. What each may do on a Kafka with ACLs is derived from these three (`fediwarden.access.roles`).
    `retention_ms` and `retention_bytes` (of the whole topic, None = no ceiling) bound what is kept;
    `segment_ms` is how soon a segment rolls, which is what bounds how long deleted bytes stay on disk.
    """

    name: str
    key: str
    messages: tuple[type[Message], ...]
    writers: tuple[str, ...]
    readers: tuple[str, ...]
    retention_ms: int
    erasers: tuple[str, ...] = ()
    cleanup: str = "delete"
    partitions: int = 6
    retention_bytes: int | None = None
    max_message_bytes: int = RECORD_MAX_BYTES
    segment_ms: int = DAY_MS
    extra: dict[str, str] = field(default_factory=dict, hash=False)

    @property
    def is_state(self) -> bool:
        """Whether all that stands in it holds now, however old it is."""
        return self.cleanup == "compact"

    def full_name(self, prefix: str) -> str:
        """The topic's name on the cluster."""
        return prefix + self.name

    def config(self, *, min_insync: int) -> dict[str, str]:
        """The topic's settings as Kafka takes them."""
        per_partition = -1 if self.retention_bytes is None else self.retention_bytes // self.partitions
        settings = {
            "cleanup.policy": self.cleanup,
            "retention.ms": str(self.retention_ms),
            "retention.bytes": str(per_partition),
            "segment.ms": str(self.segment_ms),
            "max.message.bytes": str(self.max_message_bytes),
            "min.insync.replicas": str(min_insync),
            "compression.type": "producer",
        }
        return settings | self.extra


_COMPACTION = {"max.compaction.lag.ms": str(DAY_MS), "min.cleanable.dirty.ratio": "0.2"}

IMAGES = TopicSpec(
    "images",
    key="sha256",
    messages=(ImageSubmitted,),
    writers=("gateway",),
    readers=("scanner",),
    erasers=("enforcer",),
    partitions=12,
    retention_ms=7 * DAY_MS,
    segment_ms=5 * MINUTE_MS,
    max_message_bytes=IMAGE_MAX_BYTES,
)
IMAGES_BACKLOG = TopicSpec(
    "images.backlog",
    key="sha256",
    messages=(ImageSubmitted,),
    writers=("gateway", "scanner"),
    readers=("scanner",),
    erasers=("enforcer",),
    partitions=12,
    retention_ms=7 * DAY_MS,
    segment_ms=5 * MINUTE_MS,
    max_message_bytes=IMAGE_MAX_BYTES,
)
# An image turned against later must leave the disk within the hour. Kafka compacts rolled segments alone, all of a
# partition at once, when the oldest record not yet compacted is max.compaction.lag.ms old: 45 min, plus a few for the
# cleaner's own work, are within the hour, and by then every segment has rolled (10 min, or a tick of the janitor's; 22
# at worst). Each pass rewrites what is kept: with the 5 GB full, 5 GB every 45 min (2 MB/s, 170 GB a day), whatever the
# number of images; the dirty ratio, which would start passes between, stays out of it. Segments of 8 MiB keep the
# compacted ones small, for retention drops whole segments, and a compacted one is as young as its youngest record.
# Tombstones stay a day, Kafka's default, so that a slow replay sees them; they hold no pixels.
_ARCHIVE_COMPACTION = {
    "max.compaction.lag.ms": str(45 * MINUTE_MS),
    "min.cleanable.dirty.ratio": "0.9",
    "segment.bytes": str(8 << 20),
}

IMAGES_ARCHIVE = TopicSpec(
    "images.archive",
    key="sha256",
    messages=(ImageSubmitted,),
    writers=("scanner", "enforcer"),
    readers=("scanner", "enforcer", "fediwarden", "audit"),
    partitions=12,
    cleanup="compact,delete",
    retention_ms=7 * DAY_MS,
    retention_bytes=5 << 30,
    segment_ms=10 * MINUTE_MS,
    max_message_bytes=IMAGE_MAX_BYTES,
    extra=_ARCHIVE_COMPACTION,
)
VERDICTS = TopicSpec(
    "verdicts",
    key="sha256",
    messages=(Verdict,),
    writers=("scanner", "gateway", "enforcer", "fediwarden"),
    readers=("gateway", "enforcer", "fediwarden", "audit"),
    retention_ms=THIRTEEN_MONTHS_MS,
)
VERDICTS_SHADOW = TopicSpec(
    "verdicts.shadow",
    key="sha256",
    messages=(Verdict,),
    writers=("scanner",),
    readers=("fediwarden",),
    retention_ms=30 * DAY_MS,
)
FEATURES = TopicSpec(
    "features",
    key="sha256",
    messages=(FeaturesExtracted,),
    writers=("scanner",),
    readers=("fediwarden",),
    retention_ms=90 * DAY_MS,
    retention_bytes=5 << 30,
)
SCANNERS = TopicSpec(
    "scanners",
    key="scanner id",
    messages=(ScannerAnnounced,),
    writers=("scanner",),
    readers=("gateway", "enforcer", "scanner", "fediwarden"),
    partitions=1,  # scanners take turns by the order of their announcements
    cleanup="compact,delete",
    retention_ms=DAY_MS,
    segment_ms=HOUR_MS,
    extra=_COMPACTION,
)
ANSWERS = TopicSpec(
    "answers",
    key="sha256",
    messages=(AnswerGiven,),
    writers=("gateway",),
    readers=("enforcer", "relay", "lemmy", "fediwarden", "audit"),
    retention_ms=THIRTEEN_MONTHS_MS,
)
ORIGINS = TopicSpec(
    "origins",
    key="sha256, else URL, else alias",
    messages=(OriginObserved, ActorForgotten),
    writers=("relay", "lemmy", "audit", "fediwarden"),
    readers=("lemmy", "fediwarden", "audit"),
    retention_ms=THIRTEEN_MONTHS_MS,
)
ENFORCEMENTS = TopicSpec(
    "enforcements",
    key="sha256",
    messages=(EnforcementReported,),
    writers=("enforcer",),
    readers=("fediwarden", "audit"),
    retention_ms=THIRTEEN_MONTHS_MS,
)
OVERRIDES = TopicSpec(
    "overrides",
    key="override id",
    messages=(OverrideSet,),
    writers=("fediwarden", "gateway", "audit"),
    readers=("gateway", "enforcer", "fediwarden"),
    partitions=1,
    cleanup="compact",
    retention_ms=-1,
    extra=_COMPACTION,
)
RESCANS = TopicSpec(
    "rescans",
    key="rescan id, topic and partition",
    messages=(RescanJudged,),
    writers=("fediwarden", "scanner"),
    readers=("fediwarden", "audit"),
    retention_ms=90 * DAY_MS,
)
RESCAN_JOBS = TopicSpec(
    "rescan.jobs",
    key="rescan id",
    messages=(RescanOrdered,),
    writers=("fediwarden",),
    readers=("fediwarden", "scanner", "audit"),
    partitions=1,
    cleanup="compact",
    retention_ms=-1,
    extra=_COMPACTION,
)
SWEEPS = TopicSpec(
    "sweeps",
    key="sweep id, or sweep id and object id",
    messages=(SweepCheckpoint, SweepFound),
    writers=("fediwarden",),
    readers=("fediwarden",),
    partitions=1,
    cleanup="compact",
    retention_ms=-1,
    extra=_COMPACTION,
)
MODELS_PROMOTED = TopicSpec(
    "models.promoted",
    key="scanner group",
    messages=(ModelsPromoted,),
    writers=("fediwarden",),
    readers=("scanner", "fediwarden"),
    partitions=1,
    cleanup="compact",
    retention_ms=-1,
    extra=_COMPACTION,
)
IMAGES_DEAD = TopicSpec(
    "images.dead",
    key="scan id",
    messages=(ImageFailed,),
    writers=("scanner", "gateway"),
    readers=("gateway", "fediwarden", "audit"),
    partitions=3,
    retention_ms=30 * DAY_MS,
)

TOPICS: tuple[TopicSpec, ...] = (
    IMAGES,
    IMAGES_BACKLOG,
    IMAGES_ARCHIVE,
    VERDICTS,
    VERDICTS_SHADOW,
    FEATURES,
    SCANNERS,
    ANSWERS,
    ORIGINS,
    ENFORCEMENTS,
    OVERRIDES,
    RESCANS,
    RESCAN_JOBS,
    SWEEPS,
    MODELS_PROMOTED,
    IMAGES_DEAD,
)
"""Every topic that `fediwarden topics apply` makes."""

MAX_MESSAGE_BYTES = max(spec.max_message_bytes for spec in TOPICS)
