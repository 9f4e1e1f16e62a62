"""What an admin may set about fetching images from the web."""

from typing import Annotated

from pydantic import Field

from schemas.fetching import HTTP_TOO, FetchLimits, GuardedFetchSettings, Network


class FetchSettings(GuardedFetchSettings):
    """Whether, from where and how much GET /v1/pdq fetches."""

    enabled: bool = Field(
        False,
        description="Whether GET /v1/pdq?image_url= fetches images and gives their PDQ hash (PieFed asks for that).",
    )
    timeout_s: Annotated[float, Field(gt=0, le=60)] = Field(
        5.0, description="Seconds for all of a fetch: names, connections, redirects, content."
    )
    max_bytes: Annotated[int, Field(ge=1024)] = Field(20 << 20, description="Largest image fetched.")
    redirects: Annotated[int, Field(ge=0, le=10)] = Field(3, description="Redirects followed.")
    ports: tuple[Annotated[int, Field(ge=1, le=65535)], ...] = Field((80, 443), description="Ports connected to.")
    networks: tuple[Network, ...] = Field(
        (),
        description="Networks (CIDR) that may be fetched from although they are not public: an image store beside us.",
    )
    at_a_time: Annotated[int, Field(ge=1, le=256)] = Field(
        8, description="Fetches at one time; one more is answered 429."
    )

    @property
    def limits(self) -> FetchLimits:
        """The same, as the fetcher takes it: pictures and films, over http and https."""
        return self.as_limits(accept="image/*, video/*", setting="gateway.fetch", schemes=HTTP_TOO)
