"""What an admin may set about looking at pictures."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class ViewingSettings(BaseModel):
    """Whether people may look at flagged pictures, who, and how much of them (docs/viewing.md)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = Field(
        False,
        description="Whether reviewers may look at pictures: one at a time, for a reason, strongly blurred first. The"
        " pages then read the key file.",
    )
    least_role: Literal["reviewer", "admin"] = Field("reviewer", description="The least role that may look.")
    plain: bool = Field(
        False,
        description="Whether a picture may be shown as it is, after two blurred steps. Otherwise it stays grey and"
        " blurred.",
    )
    most_a_day: int = Field(20, ge=1, le=500, description="Most pictures that one person may look at in a day (UTC).")
