"""What an admin may set about the enforcer."""

from itertools import pairwise
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _check_growing(seconds: tuple[float, ...]) -> tuple[float, ...]:
    if any(later <= earlier for earlier, later in pairwise((0.0, *seconds))):
        raise ValueError("each look comes later than the one before, such as [5, 30, 300]")
    return seconds


class EnforcerSettings(BaseModel):
    """How rejected files are looked for in the pict-rs of their tenants (`tenants.<name>.pict_rs_api_key`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    group: Annotated[str, Field(min_length=1, max_length=100)] = Field(
        "enforcer", description="Kafka consumer group; enforcers of one group share the work."
    )
    checks_s: Annotated[tuple[float, ...], AfterValidator(_check_growing)] = Field(
        (5.0, 30.0, 300.0),
        min_length=1,
        max_length=10,
        description="Seconds after the first look at which a rejected file is looked for again: pict-rs may still have"
        " been storing it. The last should be well beyond external_validation_timeout and the time an upload takes.",
    )
    dry_run: bool = Field(
        False,
        description="Only look, and report what would be removed: nothing is purged, images.archive is left alone."
        " A dry run keeps offsets of its own, so that what it saw is removed when this is switched off.",
    )
    concurrency: int = Field(
        4, ge=1, le=64, description="Most files looked for at a time in one pict-rs; one while that pict-rs fails."
    )
    answer_within_s: float = Field(
        15.0, gt=0.0, le=600.0, description="Seconds that a pict-rs has for each answer before it counts as away."
    )
    retry_most_s: float = Field(
        60.0, gt=0.0, le=3600.0, description="Longest pause, in seconds, before a pict-rs that fails is asked again."
    )
    max_open: int = Field(
        20_000,
        ge=1,
        description="Rejections that wait for a look (about 2 KB each); beyond it no verdicts are read until some end.",
    )
    stop_s: float = Field(
        5.0, ge=0.0, le=300.0, description="Seconds that looks in hand get at a stop; the others are begun anew."
    )
