"""What an admin may set about reviewing."""

from pydantic import BaseModel, ConfigDict, Field


class ReviewSettings(BaseModel):
    """How much one person reviews at a time."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    daily_cap: int = Field(
        200,
        ge=1,
        le=10_000,
        description="Most rows of the queue that one reviewer answers in a day (UTC). A row is one picture with all"
        " that look like it.",
    )
    break_after_min: float = Field(
        25.0,
        gt=0.0,
        le=1_440.0,
        description="Minutes of reviewing without a pause after which the page suggests one. It locks nobody out.",
    )
