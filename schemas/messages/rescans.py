"""Judging again what was judged before: what is ordered, and what comes of it."""

from collections.abc import Collection
from enum import StrEnum
from typing import Annotated, ClassVar, Final

from pydantic import BaseModel, ConfigDict, Field

from schemas.messages.base import Decision, EpochMs, Message, ScanId, Score, Sha256, TenantName
from schemas.messages.verdicts import RuleFired

RescanId = Annotated[str, Field(min_length=1, max_length=40, pattern=r"^[a-z0-9][a-z0-9-]*$")]

RESCAN_GROUPS: Final = "rescan-"
"""What the consumer groups of rescans begin with."""


class RescanTier(StrEnum):
    """From what a rescan judges, the cheapest first.

    scores: those that verdicts keep; hashes: the perceptual and exact hashes that verdicts keep; vectors: those of the
    topic features, for concepts that no score was kept of; frames: those of images.archive, seen by a model again.
    """

    SCORES = "scores"
    HASHES = "hashes"
    VECTORS = "vectors"
    FRAMES = "frames"


class RescanOnly(StrEnum):
    """Which images a rescan is limited to, by how they stand: unjudged are those that were let in without a verdict."""

    ACCEPTED = "accepted"
    REVIEW = "review"
    REJECTED = "rejected"
    UNJUDGED = "unjudged"


_DECISIONS: Final = {
    RescanOnly.ACCEPTED: Decision.ACCEPT,
    RescanOnly.REVIEW: Decision.REVIEW,
    RescanOnly.REJECTED: Decision.REJECT,
}


def decisions_of(only: Collection[RescanOnly]) -> frozenset[Decision] | None:
    """The decisions of the images that a rescan is limited to, None for any."""
    return frozenset(_DECISIONS[each] for each in only if each in _DECISIONS) if only else None


class RescanState(StrEnum):
    """How far a rescan is. Finished: everything in its spans is judged; what comes of it is not carried out yet.

    Applied and undone are said before the first of their verdicts is published, so that who is killed goes on.
    """

    RUNNING = "running"
    FINISHED = "finished"
    CANCELLED = "cancelled"
    APPLYING = "applying"
    APPLIED = "applied"
    UNDOING = "undoing"
    UNDONE = "undone"


class RescanSpan(BaseModel):
    """What is read of one partition: the offsets from `begin` up to `end`, which is not read any more."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    topic: str
    partition: Annotated[int, Field(ge=0)]
    begin: Annotated[int, Field(ge=0)]
    end: Annotated[int, Field(ge=0)]


class RescanOrdered(Message):
    """One rescan as it stands (topic rescan.jobs; key its id; the newest counts).

    Those who work on it share `spans` in the consumer group ``rescan-<id>``: what that has committed is done. `tenants`
    and `only` are () for all. `policies` holds the text of each policy to judge by, for a tenant or `EVERY_TENANT`;
    `models` the ids of the models whose scores, vectors or eyes it takes, by name; `lists` the version of each
    known-hash list, by name. `since` and `until` bound the verdicts (or, of tier frames, the images) by when they were
    published. `most_removals` is how many images `apply` may turn to reject, None where the settings say it.
    """

    SCHEMA: ClassVar[str] = "rescan-ordered"
    rescan: RescanId
    tier: RescanTier
    why: Annotated[str, Field(max_length=500)] = ""
    state: RescanState = RescanState.RUNNING
    tenants: tuple[TenantName, ...] = ()
    only: tuple[RescanOnly, ...] = ()
    since: EpochMs
    until: EpochMs
    spans: tuple[RescanSpan, ...]
    policies: dict[str, str] = Field(default_factory=dict)
    models: dict[str, str] = Field(default_factory=dict)
    lists: dict[str, str] = Field(default_factory=dict)
    dry_run: bool = False
    most_removals: Annotated[int, Field(ge=0)] | None = None
    ordered_by: Annotated[str, Field(max_length=100)] = ""
    ordered_at: EpochMs
    changed_by: Annotated[str, Field(max_length=100)] = ""
    changed_at: EpochMs
    note: Annotated[str, Field(max_length=500)] = ""

    @property
    def group(self) -> str:
        """The consumer group of those who work on it, without the prefix."""
        return f"{RESCAN_GROUPS}{self.rescan}"


class Rejudged(BaseModel):
    """One image judged again. `offset` is where the record that it was judged from stands, in the partition of all.

    `before` is the decision of the verdict there, None where it was judged from frames. `after` is None where the image
    could not be judged or keeps its decision whatever is judged; `held` says why in one word (``override``, ``list``,
    ``incomplete``: some score or vector is not kept; ``unreadable``). `scores` are given where they are new.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")
    offset: Annotated[int, Field(ge=0)]
    scan_id: ScanId
    tenant: TenantName
    sha256: Sha256
    before: Decision | None = None
    after: Decision | None = None
    held: str = ""
    rules: tuple[RuleFired, ...] = ()
    scores: dict[str, Score] = Field(default_factory=dict)
    worst_frame: Annotated[int, Field(ge=0)] = 0
    policy: str = ""
    hash_list: str = ""


class RescanJudged(Message):
    """What a rescan made of the records of one partition from offset `begin` up to `end` (topic rescans; key: its id,
    topic and partition).

    Every record in between is spoken of, but for those that the rescan is not about. One that was read twice, after a
    kill, is spoken of twice, in the same words.
    """

    SCHEMA: ClassVar[str] = "rescan-judged"
    rescan: RescanId
    topic: str
    partition: Annotated[int, Field(ge=0)]
    begin: Annotated[int, Field(ge=0)]
    end: Annotated[int, Field(ge=0)]
    models: dict[str, str] = Field(default_factory=dict)
    images: Annotated[tuple[Rejudged, ...], Field(max_length=500)] = ()
    judged_at: EpochMs
    worker: str = ""

    @property
    def key(self) -> bytes:
        """Its key in the topic."""
        return f"{self.rescan}/{self.topic}/{self.partition}".encode("ascii")
