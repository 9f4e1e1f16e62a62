"""What stands in a topic that images are replayed into: `ImageSubmitted` as it was archived, or `ImageReplayed`."""

from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from schemas.keyring import FramesUndecryptable, Keyring
from schemas.messages import EpochMs, FrameInfo, ImageSubmitted, Message, ScanId, Sha256, TenantName


class ImageReplayed(Message):
    """An archived image with its frames in the clear (key sha256).

    `jpegs` are the frames' renditions, one for each of `frames`. Nothing of ours reads it.
    """

    SCHEMA: ClassVar[str] = "image-replayed"
    scan_id: ScanId
    tenant: TenantName
    sha256: Sha256
    length: Annotated[int, Field(ge=0)]
    media_type: str
    received_at: EpochMs
    frames: Annotated[tuple[FrameInfo, ...], Field(min_length=1, max_length=8)]
    jpegs: Annotated[tuple[bytes, ...], Field(min_length=1, max_length=8)]

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if len(self.jpegs) != len(self.frames):
            raise ValueError("each frame has one rendition")
        return self


class Unreadable(Exception):
    """An image's frames cannot be had; the text is the reason, the same for all images of that kind."""


def decrypted(image: ImageSubmitted, keyring: Keyring) -> ImageReplayed:
    """`image` in the clear. Raises `Unreadable`."""
    key_id = image.sealed.key_id
    if key_id not in keyring.key_ids:
        raise Unreadable(f"sealed with key {key_id!r}, which is not in the key file")
    try:
        jpegs = keyring.open(image.sealed, sha256=image.sha256, tenant=image.tenant)
    except FramesUndecryptable as error:
        raise Unreadable(f"key {key_id!r} does not open it: the bytes were changed, or the key was") from error
    if len(jpegs) != len(image.frames):
        raise Unreadable("it does not hold the frames that it names")
    return ImageReplayed(
        scan_id=image.scan_id,
        tenant=image.tenant,
        sha256=image.sha256,
        length=image.length,
        media_type=image.media_type,
        received_at=image.received_at,
        frames=image.frames,
        jpegs=tuple(jpegs),
    )
