"""What an admin may set about the relay; which pict-rs it stands before is each tenant's (`tenants.<name>.pict_rs`)."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

MIB = 1 << 20

Port = Annotated[int, Field(ge=0, le=65535)]


class RelaySettings(BaseModel):
    """Where the relay listens, and how much it may hold for itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field(
        "127.0.0.1",
        description="Address to listen on, where Lemmy's `pictrs.url` points. Whoever reaches it reaches pict-rs.",
    )
    port: Port = Field(
        14053,
        description="TCP port before the only tenant that has a pict_rs; with several, each has its"
        " tenants.<name>.relay_port. 0 takes any free one.",
    )
    health_port: Port = Field(
        14054,
        description="TCP port of the relay's own /healthz, /readyz and /metrics: every path of the other port is"
        " pict-rs's. On the same address. 0 takes any free one.",
    )
    head_timeout_s: Annotated[float, Field(gt=0, le=600)] = Field(
        10.0, description="Seconds a client has to send a request's head; then it is disconnected."
    )
    keep_alive_s: Annotated[int, Field(ge=1, le=3600)] = Field(
        120, description="Seconds an idle connection stays open; longer than Lemmy keeps one (90)."
    )
    connect_within_s: Annotated[float, Field(gt=0, le=600)] = Field(
        5.0, description="Seconds that pict-rs has to take a connection; then the answer is 502."
    )
    linger_s: Annotated[float, Field(ge=0, le=600)] = Field(
        60.0,
        description="Seconds that the answer about a proxied image is still read after its client has gone, so that"
        " pict-rs stores it and its hash is learned: Lemmy drops such answers. Other answers end with their client.",
    )
    linger_bytes: Annotated[int, Field(ge=0)] = Field(64 * MIB, description="Bytes read in that time at most.")
    read_back: bool = Field(
        True,
        description="Whether files are read back from pict-rs for their hash where it has not passed by: once for each"
        " upload or import, at most once in repeat_after_s for each proxied address.",
    )
    settle_s: Annotated[float, Field(ge=0, le=600)] = Field(
        10.0,
        description="Seconds after which a rejected image is looked up among the gateway's answers; by then Kafka must"
        " have them.",
    )
    repeat_after_s: Annotated[float, Field(ge=0)] = Field(
        3600.0, description="Seconds in which one proxied address with one hash is published only once."
    )
    recent_entries: Annotated[int, Field(ge=1)] = Field(
        100_000, description="Proxied addresses remembered for that (about 400 bytes each)."
    )
    max_waiting: Annotated[int, Field(ge=1)] = Field(
        10_000, description="Origins that wait in memory for Kafka (about 2 KB each); beyond it they are dropped."
    )
    drain_s: Annotated[float, Field(ge=0)] = Field(
        15.0, description="Seconds to end what is in flight and to hand origins to Kafka when stopping."
    )
