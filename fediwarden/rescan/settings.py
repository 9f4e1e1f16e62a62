"""What an admin may set about rescans."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class RescanSettings(BaseModel):
    """How far a rescan may go without being asked again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_removed_share: Annotated[float, Field(ge=0, le=1)] = Field(
        0.05,
        description="Share of the images judged again that a rescan may turn to reject; where it would be more, it"
        " stops and asks, for then the policy, the list or the model is more likely to be wrong than the images.",
    )
