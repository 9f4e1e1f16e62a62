"""What an admin may set about looking whether posts are still there."""

from typing import Annotated

from pydantic import Field

from schemas.fetching import FetchLimits, GuardedFetchSettings


class PresenceSettings(GuardedFetchSettings):
    """Whether and how other instances are asked for the posts of confirmed incidents."""

    enabled: bool = Field(
        False,
        description="Whether instances are asked, for two weeks, if the posts of confirmed incidents are still there."
        " They then learn our address and which of their posts we look at.",
    )
    between_s: Annotated[float, Field(ge=60, le=86_400)] = Field(
        60.0, description="Seconds between two questions to one instance."
    )
    instances_at_once: Annotated[int, Field(ge=1, le=32)] = Field(
        4, description="Instances that are asked at the same time, each by one connection."
    )
    waiting_posts: Annotated[int, Field(ge=1, le=1_000)] = Field(
        200, description="Most posts of one instance that are looked at again at one time; more wait, or are left out."
    )
    timeout_s: Annotated[float, Field(gt=0, le=60)] = Field(15.0, description="Seconds for each question.")
    max_bytes: Annotated[int, Field(ge=1024, le=16 << 20)] = Field(1 << 20, description="Largest answer read.")
    redirects: Annotated[int, Field(ge=0, le=5)] = Field(
        2, description="Redirects followed, to the same instance and over https alone."
    )

    @property
    def limits(self) -> FetchLimits:
        """The same, as the fetcher takes it: ActivityPub, over https, from one host."""
        return self.as_limits(accept="application/activity+json", setting="audit.presence", one_host=True)
