"""What an admin may set about lists as a whole; each list has its own definition, made by `fediwarden lists add`."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from gateway.lists.definition import ListName


class LearnSettings(BaseModel):
    """Our own rejections as a list."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Literal["off", "confirmed", "rejections"] = Field(
        "off",
        description="`confirmed`: the frames of images that a person denied (an override for every tenant, without an"
        " end) become entries of a list, so that the same picture, saved anew or turned, is refused without a scan;"
        " `rejections`: those for which a scanner's policy rejected an image, too.",
    )
    list_name: ListName = Field("own", description="The name of that list.")
    min_quality: Annotated[int, Field(ge=50, le=100)] = Field(
        70, description="PDQ quality (0 to 100) below which a frame is too plain to be listed."
    )
    max_hashes: Annotated[int, Field(ge=1)] = Field(
        100_000,
        description="Entries of that list at most; when it is full, nothing more is learnt, and the log says so.",
    )


class ListSettings(BaseModel):
    """Known-hash lists: where they are, the guard against a list that matches too much, and who may read ours."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: Path | None = Field(
        None, description="Folder of the lists; several gateways may share it. Default: lists in data_dir."
    )
    check_s: Annotated[float, Field(gt=0, le=3600)] = Field(
        2.0, description="Seconds between looks for lists that were added, refreshed or removed."
    )
    max_hashes: Annotated[int, Field(ge=1)] = Field(
        2_000_000, description="Hashes that one list may have; a gateway needs 130 bytes of memory for each."
    )
    guard_share: Annotated[float, Field(gt=0, le=1)] = Field(
        0.05, description="A list that matches more than this share of the images is suspended: it cannot be right."
    )
    guard_images: Annotated[int, Field(ge=10)] = Field(
        100, description="Different images that must have been compared before a list can be suspended."
    )
    guard_window: Annotated[int, Field(ge=10)] = Field(
        1000, description="The share is taken over so many of the latest different images."
    )
    shared: tuple[ListName, ...] = Field(
        (), description="Lists that GET /v1/lists/{name} gives to those who have reader_token."
    )
    reader_token: Annotated[SecretStr | None, Field(min_length=16)] = Field(
        None,
        description="Bearer token with which others may read the shared lists; make one with: openssl rand -hex 24.",
    )
    learn: LearnSettings = Field(default_factory=LearnSettings, description="Our own rejections as a list.")
