"""The word of a moderator."""

import hashlib
from enum import StrEnum
from functools import cached_property
from typing import Annotated, ClassVar

from pydantic import Field

from schemas.messages.base import EVERY_TENANT, EpochMs, Message


class OverrideEffect(StrEnum):
    """What a moderator says of an image, whatever anybody else does."""

    ALLOW = "allow"
    DENY = "deny"


class OverrideKind(StrEnum):
    """What of an image an override goes by: its bytes, or the look of its frames."""

    SHA256 = "sha256"
    PDQ = "pdq"


DISTANCE_MOST = 64
"""The widest that an override by PDQ may reach, of 256 bits: any two pictures differ in some 128, none in so few."""


class OverrideSet(Message):
    """The word of a moderator on one hash (topic overrides; key `override_id`); a tombstone takes it back.

    It holds for `tenant` (`EVERY_TENANT`: all) until `until`, None for ever, and takes the place of an earlier one on
    the same hash for the same tenant. `distance` is in bits of 256, 0 for sha256. `scan_id` is the scan that the
    hash was taken from, "" when it was given itself.
    """

    SCHEMA: ClassVar[str] = "override-set"
    effect: OverrideEffect
    kind: OverrideKind
    hash: Annotated[bytes, Field(min_length=32, max_length=32)]
    distance: Annotated[int, Field(ge=0, le=DISTANCE_MOST)] = 0
    tenant: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^(\*|[a-z0-9][a-z0-9_-]*)$")] = EVERY_TENANT
    set_by: Annotated[str, Field(min_length=1, max_length=100)]
    reason: Annotated[str, Field(min_length=1, max_length=500)]
    set_at: EpochMs
    until: EpochMs | None = None
    scan_id: Annotated[str, Field(max_length=64)] = ""

    @cached_property
    def override_id(self) -> str:
        """16 hexadecimal digits, the same for the same hash and tenant."""
        about = f"{self.tenant}/{self.kind}:{self.hash.hex()}"
        return hashlib.sha256(about.encode("ascii")).hexdigest()[:16]

    def holds(self, at_ms: int) -> bool:
        """Whether it has not expired by then."""
        return self.until is None or at_ms < self.until
