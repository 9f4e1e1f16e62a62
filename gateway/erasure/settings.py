"""What an admin may set about erasure."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class ErasureSettings(BaseModel):
    """How soon frames leave Kafka after they were judged, and who must have judged them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    every_s: Annotated[float, Field(gt=0, le=3600)] = Field(
        30.0, description="Seconds between two passes of the janitor, which deletes the frames of judged images."
    )
    within_s: Annotated[float, Field(gt=0)] = Field(
        3600.0,
        description="Seconds within which a judged image's frames must be deleted; the log warns of those that stay"
        " longer, and says which scanner group holds them back.",
    )
    groups: tuple[str, ...] = Field(
        (),
        description="Scanner groups that must be done with an image before its frames are deleted, besides those that"
        " announced themselves in the last 24 hours. Default: the one that scanner.group names.",
    )
