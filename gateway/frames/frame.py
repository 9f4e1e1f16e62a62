"""What frame extraction gives: the frames of one file, or the reason why there are none."""

from dataclasses import dataclass
from enum import StrEnum

QUALITY_LEAST = 50
"""PDQ's authors advise against matching pictures below that quality: too little is in them."""

VARIANTS = 8
"""How many ways there are to turn and mirror a picture by right angles."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One rendition: a JPEG without metadata, its size in pixels, its moment in the animation, its PDQ hash.

    `at_ms` is 0 for a still. `pdq` is 32 bytes, most significant bit first; `pdq_quality` is 0-100 and hashes
    below `QUALITY_LEAST` are not fit for matching. `pdq_turned` holds the hashes of the other seven ways to turn and
    mirror the picture, 32 bytes each.
    """

    jpeg: bytes
    width: int
    height: int
    at_ms: int
    pdq: bytes
    pdq_quality: int
    pdq_turned: bytes


@dataclass(frozen=True, slots=True)
class FrameSet:
    """The frames of one file in order of time.

    `media_type` is what the content is, whatever the sender called it; `width` and `height` are the original's as
    shown (after rotation); `duration_ms` is 0 for a still.
    """

    media_type: str
    width: int
    height: int
    duration_ms: int
    frames: tuple[Frame, ...]


class UnreadableReason(StrEnum):
    """Why no frames could be made, or why no scanner could judge them."""

    EMPTY = "empty"
    NOT_AN_IMAGE = "not_an_image"
    UNSUPPORTED = "unsupported"
    TRUNCATED = "truncated"
    DAMAGED = "damaged"
    TOO_LARGE = "too_large"
    TOO_SLOW = "too_slow"
    TOO_MUCH_MEMORY = "too_much_memory"
    DECODER_DIED = "decoder_died"
    UNJUDGEABLE = "unjudgeable"


class Unreadable(Exception):
    """The file cannot be judged: `reason` is for machines, `detail` one plain sentence for people."""

    def __init__(self, reason: UnreadableReason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
