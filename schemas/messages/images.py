"""Images on their way to be judged, what models make of them, and what cannot be judged."""

from typing import Annotated, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.messages.base import EpochMs, Message, PdqHash, ScanId, Sha256, TenantName


class FrameInfo(BaseModel):
    """One frame's plain facts; its pixels travel encrypted beside them.

    `at_ms` is the frame's time in the animation, 0 for a still; `pdq_quality` is 0-100 (below 50: do not match).
    """

    model_config = ConfigDict(frozen=True, extra="ignore")
    at_ms: Annotated[int, Field(ge=0)]
    width: Annotated[int, Field(ge=1)]
    height: Annotated[int, Field(ge=1)]
    pdq: PdqHash
    pdq_quality: Annotated[int, Field(ge=0, le=100)]


class SealedFrames(BaseModel):
    """JPEG renditions under AES-256-GCM; see `schemas.keyring` for the layout."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    key_id: Annotated[str, Field(min_length=1, max_length=32)]
    nonce: Annotated[bytes, Field(min_length=12, max_length=12)]
    ciphertext: bytes


class ImageSubmitted(Message):
    """An image that waits to be judged (topics images, images.backlog, images.archive; key sha256).

    `hung` is how many times a scanner's model did not come back from a batch that the image was in.
    """

    SCHEMA: ClassVar[str] = "image-submitted"
    scan_id: ScanId
    tenant: TenantName
    sha256: Sha256
    length: Annotated[int, Field(ge=0)]
    media_type: str
    received_at: EpochMs
    deadline_at: EpochMs
    frames: Annotated[tuple[FrameInfo, ...], Field(min_length=1, max_length=8)]
    sealed: SealedFrames
    gateway: str = ""
    hung: Annotated[int, Field(ge=0)] = 0


class ImageFailed(Message):
    """An image or record that could not be processed, and why (topic images.dead; key scan id). Never pixels."""

    SCHEMA: ClassVar[str] = "image-failed"
    scan_id: str
    tenant: str = ""
    sha256: bytes = b""
    reason: str
    detail: str = ""
    topic: str
    partition: Annotated[int, Field(ge=0)]
    offset: Annotated[int, Field(ge=0)]
    scanner: str = ""
    failed_at: EpochMs


class FeaturesExtracted(Message):
    """What an embedding model made of an image's frames (topic features; key sha256).

    `vectors` holds one unit vector a frame, each `dimensions` numbers of 16 bits (IEEE 754 half precision, little
    endian). With `model_id` and a concept's text feature they give the scores again, to about 0.0005.
    """

    SCHEMA: ClassVar[str] = "features-extracted"
    scan_id: ScanId
    tenant: TenantName
    sha256: Sha256
    model: str
    model_id: str
    dimensions: Annotated[int, Field(ge=1, le=8192)]
    vectors: Annotated[tuple[bytes, ...], Field(min_length=1, max_length=8)]
    scanner: str = ""
    extracted_at: EpochMs

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if any(len(vector) != 2 * self.dimensions for vector in self.vectors):
            raise ValueError(f"a vector of {self.dimensions} dimensions has {2 * self.dimensions} bytes")
        return self
