"""What an admin may set about alerts."""

import re
from datetime import time
from typing import Annotated, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator

_CLOCK = re.compile(r"(?:[01]\d|2[0-3]):[0-5]\d")


def _check_clock(text: str) -> str:
    if text and _CLOCK.fullmatch(text) is None:
        raise ValueError("a time of day is written as 22:00")
    return text


def _check_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError("a time zone is written as Europe/Berlin or UTC") from error
    return name


class AlertSettings(BaseModel):
    """Whom alerts go to, from how much on, and when not."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    urls: SecretStr | None = Field(
        None,
        description="Where alerts go: Apprise addresses (https://appriseit.com/services/), separated by spaces. They"
        " hold secrets. Unset: no alerts.",
    )
    level: Annotated[int, Field(ge=1, le=3)] = Field(
        2, description="An alert when an instance comes to this level or above it: 1 watch, 2 restrict, 3 recommend."
    )
    confirmed: Annotated[int, Field(ge=1)] = Field(
        1, description="An alert when as many incidents have been confirmed since the last alert."
    )
    waiting: Annotated[int, Field(ge=1)] = Field(
        50, description="An alert when as many rows wait in the review queue, and again at each doubling."
    )
    expiring: Annotated[int, Field(ge=1)] = Field(1, description="An alert when as many decisions are about to expire.")
    quiet_from: Annotated[str, AfterValidator(_check_clock)] = Field(
        "", description="Begin of the quiet hours, such as 22:00; what happens then is told at their end. Unset: none."
    )
    quiet_until: Annotated[str, AfterValidator(_check_clock)] = Field(
        "", description="End of the quiet hours, such as 07:00."
    )
    time_zone: Annotated[str, AfterValidator(_check_zone)] = Field(
        "UTC", description="Time zone of the quiet hours, such as Europe/Berlin."
    )
    at_most_every_min: Annotated[int, Field(ge=1, le=7 * 24 * 60)] = Field(
        30, description="Minutes between two alerts at least; what happens in between is told in one."
    )

    @model_validator(mode="after")
    def _has_both_ends(self) -> Self:
        if bool(self.quiet_from) != bool(self.quiet_until):
            raise ValueError("quiet hours need both quiet_from and quiet_until")
        if self.quiet_from and self.quiet_from == self.quiet_until:
            raise ValueError("quiet_from and quiet_until are the same: leave both out for no quiet hours")
        return self

    @property
    def zone(self) -> ZoneInfo:
        """The time zone of the quiet hours."""
        return ZoneInfo(self.time_zone)

    @property
    def quiet_hours(self) -> tuple[time, time] | None:
        """Their begin and end, in `zone`; None where there are none."""
        if not self.quiet_from:
            return None
        return time.fromisoformat(self.quiet_from), time.fromisoformat(self.quiet_until)
