"""What an admin may set about the pages."""

import ipaddress
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from schemas.tls import ServerTlsSettings

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


def _check_public_url(address: str | None) -> str | None:
    if address is None:
        return None
    remedy = "write it as https://audit.example.org: a scheme and a host, no path"
    try:
        parts = urlsplit(address.rstrip("/"))
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(remedy) from error
    if parts.scheme not in ("http", "https") or not host or "@" in parts.netloc or parts.path or parts.query:
        raise ValueError(remedy)
    if parts.scheme == "http" and host not in LOOPBACK_NAMES:
        raise ValueError(
            "passwords and cookies would travel readable: put a proxy with TLS in front and write https://,"
            " or reach the pages through a tunnel (ssh -L 14052:127.0.0.1:14052) and leave this out"
        )
    return f"{parts.scheme}://{parts.netloc.lower()}"


class PagesSettings(BaseModel):
    """The pages of the audit, on their own port."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field(
        "127.0.0.1",
        description="Address to listen on. Beyond loopback it needs audit.pages.public_url with https.",
    )
    port: int = Field(
        14052,
        ge=0,
        le=65535,
        description="Port to listen on; 0 takes a free one. Default: the one after gateway.port.",
    )
    public_url: Annotated[str | None, AfterValidator(_check_public_url)] = Field(
        None,
        description="Where browsers reach the pages, such as https://audit.example.org: for links, for the check of"
        " the host, and for cookies, which are Secure and __Host- when it is https. Default: this machine, by http.",
    )
    tls: ServerTlsSettings = Field(
        default_factory=ServerTlsSettings,
        description="HTTPS by the pages themselves, where no proxy with TLS is in front.",
    )
    published_on_loopback: bool = Field(
        False,
        description="For a container whose port is published on 127.0.0.1 of its machine and nowhere else: host may be"
        " any address then, and browsers come by http to this machine.",
    )
    trusted_proxies: tuple[Network, ...] = Field(
        (),
        description="Networks of the proxies whose X-Forwarded-For names the client, for the limit on logins. Without"
        " it all who come through a proxy count as one network.",
    )
    session_h: float = Field(12.0, gt=0.0, le=720.0, description="Hours after which one has to log in again.")
    session_idle_min: float = Field(
        60.0, gt=0.0, le=10_080.0, description="Minutes without a request after which one has to log in again."
    )
    max_body_kb: int = Field(256, ge=16, le=16_384, description="Largest form, in KiB, that is taken.")
    export_rows: int = Field(
        50_000, ge=100, le=1_000_000, description="Most rows in one JSON or CSV file; the next are one link on."
    )

    @model_validator(mode="after")
    def _check_reach(self) -> Self:
        if not self.on_loopback and not (self.public_url or "").startswith("https://"):
            raise ValueError(
                f"host {self.host} is reached from elsewhere: set public_url to the https:// address that browsers use"
                " (of a proxy in front, or of ours with tls), or leave host at 127.0.0.1 (in a container: set"
                " published_on_loopback)"
            )
        return self

    @property
    def on_loopback(self) -> bool:
        """Whether browsers of this machine come without a proxy."""
        return self.published_on_loopback or self.host in LOOPBACK_NAMES or self.host.startswith("127.")

    @property
    def secure(self) -> bool:
        """Whether browsers come by https."""
        return self.tls.enabled or (self.public_url or "").startswith("https://")
