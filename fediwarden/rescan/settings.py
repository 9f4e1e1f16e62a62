"""What an admin may set about rescans."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class RescanSettings(BaseModel):
    """How far a rescan may go without being asked again, and which are made without being asked for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_removed_share: Annotated[float, Field(ge=0, le=1)] = Field(
        0.05,
        description="Share of the images judged again that a rescan may turn to reject; where it would be more, it"
        " stops and asks, for then the policy, the list or the model is more likely to be wrong than the images.",
    )
    automatic: tuple[Literal["policy", "lists", "model"], ...] = Field(
        (),
        description="After what update `fediwarden rescan watch` (a part of `up` then) judges again by itself: any of"
        ' "policy", "lists" and "model". Default: none.',
    )
    automatic_since: Annotated[str, Field(pattern=r"^[1-9][0-9]{0,5}[smhd]$")] = Field(
        "7d", description="How far back it judges again: such as 12h or 7d."
    )
    automatic_apply: bool = Field(
        False,
        description="Whether it carries the outcome out itself, as far as max_removed_share allows. Without, an admin"
        " does, with `fediwarden rescan apply`.",
    )
