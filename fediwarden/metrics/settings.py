"""Where processes without HTTP of their own show their metrics."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class MetricsSettings(BaseModel):
    """GET /metrics of scanners, enforcer, recorder and lemmy; gateway, relay and pages have it beside the rest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field("127.0.0.1", description="Address to listen on. It has no password: never one of the internet.")
    port: Annotated[int, Field(ge=1, le=65_000)] | None = Field(
        None,
        description="Port of `/metrics` of a process that has no other; unset: no such port. Under `fediwarden up` the"
        " first of a row, one for each process (docs/metrics.md says which).",
    )
