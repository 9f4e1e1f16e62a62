"""What all messages share: their base, the types of their fields."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field

Sha256 = Annotated[bytes, Field(min_length=32, max_length=32)]
PdqHash = Annotated[bytes, Field(min_length=32, max_length=32)]
EpochMs = Annotated[int, Field(ge=0)]
ScanId = Annotated[str, Field(min_length=1, max_length=64)]
TenantName = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[a-z0-9][a-z0-9_-]*$")]
Domain = Annotated[str, Field(min_length=1, max_length=253)]
Score = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]


EVERY_TENANT = "*"
"""Every tenant: in `ScannerAnnounced.policies` those without a policy of their own, in `OverrideSet` all of them."""


class Decision(StrEnum):
    """What a policy makes of an image."""

    ACCEPT = "accept"
    REVIEW = "review"
    REJECT = "reject"


class Message(BaseModel):
    """Base of every message: frozen, validated when made and when read, unknown fields ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_bytes="base64")
    SCHEMA: ClassVar[str]
    VERSION: ClassVar[int] = 1
