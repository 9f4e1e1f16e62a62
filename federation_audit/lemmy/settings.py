"""What an admin may set about looking origins up in Lemmy's database (`tenants.<name>.lemmy_database` says where)."""

from itertools import pairwise
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _check_growing(seconds: tuple[float, ...]) -> tuple[float, ...]:
    if any(later <= earlier for earlier, later in pairwise((0.0, *seconds))):
        raise ValueError("each look comes later than the one before, such as [5, 60, 600, 3600]")
    return seconds


class LemmySettings(BaseModel):
    """How and how often Lemmy's tables are looked into."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    group: Annotated[str, Field(min_length=1, max_length=100)] = Field("lemmy", description="Kafka consumer group.")
    looks_s: Annotated[tuple[float, ...], AfterValidator(_check_growing)] = Field(
        (5.0, 60.0, 600.0, 3600.0),
        min_length=1,
        max_length=10,
        description="Seconds after an image was seen at which it is looked for, until a place with an author is found:"
        " Lemmy writes its rows after the image was let in.",
    )
    max_age_h: float = Field(
        168.0,
        gt=0.0,
        description="Hours after which an image is not looked for any more. (A first start finds older ones in Kafka.)",
    )
    recent_rows: int = Field(
        10_000,
        ge=1,
        le=1_000_000,
        description="Newest posts, comments and private messages whose texts and thumbnails are looked through."
        " Lemmy has no index for those; an image in an older text is not found.",
    )
    private_messages: bool = Field(
        True,
        description="Whether addresses of images in private messages are looked for; needs one GRANT more.",
    )
    sweep_every_s: float = Field(
        600.0,
        gt=0.0,
        description="Seconds between two searches through all avatars, banners and icons, which have no index either.",
    )
    statement_timeout_s: float = Field(
        5.0, ge=0.1, le=600.0, description="Seconds that one statement may take in Lemmy's database."
    )
    sweep_timeout_s: float = Field(
        30.0, ge=0.1, le=600.0, description="Seconds that one search through avatars, banners and icons may take."
    )
    retry_most_s: float = Field(
        60.0, gt=0.0, le=3600.0, description="Longest pause, in seconds, before a database that fails is asked again."
    )
    max_open: int = Field(
        50_000,
        ge=1,
        description="Images that wait for a look (about 1 KB each); beyond it no more are read until some end.",
    )
    known_links: int = Field(
        100_000,
        ge=0,
        description="Images whose hash is remembered together with their alias or address (about 1 KB each).",
    )
    stop_s: float = Field(5.0, ge=0.0, le=300.0, description="Seconds that a look in hand gets at a stop.")
