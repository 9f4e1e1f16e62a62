"""Sweeps over what a server stored before it had a fediwarden: how far each is, and what it found."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from schemas.messages.base import EpochMs, Message, Sha256

SweepId = Annotated[str, Field(min_length=1, max_length=40, pattern=r"^[a-z0-9][a-z0-9-]*$")]
_Place = Annotated[str, Field(max_length=2000)]


class SweepMode(StrEnum):
    """What a sweep does with what is rejected."""

    REPORT = "report"
    APPLY = "apply"
    QUARANTINE = "quarantine"


class SweepFinding(StrEnum):
    """What a sweep has to say of an object.

    rejected: the tenant does not accept it; review: a moderator is to look at it; damaged: an image that cannot be
    decoded; too-large: larger than the gateway takes; unreadable: the store lists it and does not give it; unjudged: no
    verdict came.
    """

    REJECTED = "rejected"
    REVIEW = "review"
    DAMAGED = "damaged"
    TOO_LARGE = "too-large"
    UNREADABLE = "unreadable"
    UNJUDGED = "unjudged"


class SweepOutcome(StrEnum):
    """What became of an object.

    removing: said before anything is touched, so that a sweep which is killed meanwhile leaves a trace; kept: it was to
    be removed or moved and was not, `SweepFound.detail` says why.
    """

    LEFT = "left"
    REMOVING = "removing"
    REMOVED = "removed"
    QUARANTINED = "quarantined"
    KEPT = "kept"


class SweepCheckpoint(Message):
    """How far a sweep is (topic sweeps; key its id; the newest counts).

    `position` is where to go on within the pass, () at its begin; `marks` are what the pass before left, () in the
    first, and end this one or bound it; `next_marks` are what this pass leaves. What the three hold is the source's
    own to say. `source` names no secret. `finished_at` is when the latest whole pass ended.
    """

    SCHEMA: ClassVar[str] = "sweep-checkpoint"
    sweep: SweepId
    source: _Place
    mode: SweepMode
    position: Annotated[tuple[_Place, ...], Field(max_length=64)] = ()
    marks: Annotated[tuple[_Place, ...], Field(max_length=64)] = ()
    next_marks: Annotated[tuple[_Place, ...], Field(max_length=64)] = ()
    counts: dict[str, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)
    begun_at: EpochMs
    finished_at: EpochMs | None = None
    changed_at: EpochMs
    worker: str = ""


class SweepFound(Message):
    """One object that a sweep has something to say of (topic sweeps; key: the sweep's id and `object_id`).

    `path` is what its store calls it; `sha256` and `length` are those of the bytes that were read, where they were.
    """

    SCHEMA: ClassVar[str] = "sweep-found"
    sweep: SweepId
    object_id: Annotated[str, Field(min_length=1, max_length=64)]
    path: _Place
    finding: SweepFinding
    outcome: SweepOutcome = SweepOutcome.LEFT
    sha256: Sha256 | None = None
    length: Annotated[int, Field(ge=0)] = 0
    scan_id: Annotated[str, Field(max_length=64)] = ""
    answered_by: Annotated[str, Field(max_length=20)] = ""
    rules: Annotated[tuple[str, ...], Field(max_length=64)] = ()
    detail: Annotated[str, Field(max_length=1000)] = ""
    found_at: EpochMs
