"""What an admin may set about the gateway and its tenants."""

import ipaddress
import tempfile
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator

from gateway.fetch_settings import FetchSettings
from gateway.frames.settings import FrameSettings
from gateway.lists.settings import ListSettings
from schemas.domains import normalise_domain
from schemas.tls import ServerTlsSettings

MIB = 1 << 20

IPADDR = "IPADDR"
"""The word that pictrs-safety set-ups carry instead of a key: the client's network decides then."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
LOOPBACK: tuple[Network, ...] = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))

_KEY_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_KEY_MIN = 8
_TOKEN_MIN = 16
_KEY_MAX = 256


def _check_key(key: SecretStr | None) -> SecretStr | None:
    if key is None:
        return None
    text = key.get_secret_value()
    if text == IPADDR:
        raise ValueError(f"{IPADDR} is reserved: leave the key out and set networks instead")
    if not _KEY_MIN <= len(text) <= _KEY_MAX:
        raise ValueError(f"a key has {_KEY_MIN} to {_KEY_MAX} characters; make one with: openssl rand -hex 24")
    if not _KEY_CHARACTERS.issuperset(text):
        raise ValueError("a key travels in a URL: only letters, digits and - . _ ~ are allowed")
    return key


def _check_admin_token(token: SecretStr | None) -> SecretStr | None:
    if token is not None and len(token.get_secret_value()) < _TOKEN_MIN:
        raise ValueError(f"the admin's token has at least {_TOKEN_MIN} characters; make one with: openssl rand -hex 24")
    return _check_header(token)


def _check_origins_token(token: SecretStr | None) -> SecretStr | None:
    if token is not None and len(token.get_secret_value()) < _TOKEN_MIN:
        raise ValueError(f"this token has at least {_TOKEN_MIN} characters; make one with: openssl rand -hex 24")
    return _check_header(token)


def _check_header(key: SecretStr | None) -> SecretStr | None:
    if key is not None and not all("!" <= each <= "~" for each in key.get_secret_value()):
        raise ValueError("an API key travels in a header: no spaces, only ASCII")
    return key


def _check_database(url: SecretStr | None) -> SecretStr | None:
    if url is not None:
        try:
            parts = urlsplit(url.get_secret_value())
            usable = parts.scheme in ("postgresql", "postgres") and len(parts.path) > 1 and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            raise ValueError(
                "write it as postgresql://role:password@host:5432/database, special characters of the password"
                " percent-encoded"
            )
    return url


def _check_address(address: str | None) -> str | None:
    """An address that may be shown: an http(s) URL without a user, a query or a fragment."""
    if address is None:
        return None
    remedy = "write the address as http://host:port, such as http://127.0.0.1:8080"
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(remedy) from error
    unwanted = "@" in parts.netloc or "?" in address or "#" in address or any(each.isspace() for each in address)
    if parts.scheme not in ("http", "https") or not host or unwanted:
        raise ValueError(remedy)
    return address


def _check_domain(domain: str | None) -> str | None:
    """In the one form of `schemas.domains`. Raises ValueError where it names no host."""
    return None if domain is None else normalise_domain(domain)


class TenantSettings(BaseModel):
    """One pict-rs (or other client) with its own key and its own way of treating doubt."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    key: Annotated[SecretStr | None, AfterValidator(_check_key)] = Field(
        None,
        description="Secret of this tenant: the last part of the pict-rs endpoint, the bearer token of the"
        f" JSON API. Without one the tenant is reached by the word {IPADDR}, from its networks only.",
    )
    networks: tuple[Network, ...] | None = Field(
        None,
        description="Client networks (CIDR) this tenant is reached from. Unset: loopback only without a key,"
        " anywhere with one. The connection's own address counts, never X-Forwarded-For.",
    )
    on_timeout: Literal["accept", "reject"] = Field(
        "accept",
        description="The answer when no verdict came before the deadline. The scan goes on either way.",
    )
    on_unreadable: Literal["accept", "reject"] = Field(
        "reject", description="The answer for what cannot be read as an image and so cannot be judged."
    )
    on_review: Literal["accept", "reject"] = Field(
        "accept", description="The answer for images that the policy wants a moderator to look at."
    )
    rate_limit: Annotated[float, Field(gt=0, le=100_000)] | None = Field(
        None,
        description="Images a second that this tenant may post to one gateway in the long run. Beyond it POST /v1/scans"
        " is answered 429; what pict-rs posts is judged later and answered by on_timeout. Unset: no limit.",
    )
    rate_burst: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        100, description="Images that this tenant may post at once after a rest, with a rate_limit."
    )
    pict_rs: Annotated[str | None, AfterValidator(_check_address)] = Field(
        None,
        description="Address of this tenant's pict-rs, such as http://127.0.0.1:8080; `fediwarden doctor` checks it.",
    )
    pict_rs_api_key: Annotated[SecretStr | None, AfterValidator(_check_header)] = Field(
        None,
        description="What that pict-rs has as PICTRS__SERVER__API_KEY. With it, the enforcer removes from pict-rs what"
        " was let through unjudged and is rejected later; without it, such files stay.",
    )
    lemmy_database: Annotated[SecretStr | None, AfterValidator(_check_database)] = Field(
        None,
        description="Where this tenant's Lemmy keeps its tables, such as postgresql://fediwarden:<password>@127.0.0.1/lemmy"
        " with a role that may read what docs/lemmy.md names; `fediwarden lemmy` asks there who posted an image.",
    )
    origins_token: Annotated[SecretStr | None, AfterValidator(_check_origins_token)] = Field(
        None,
        description="Secret of software that tells where this tenant's images came from (POST /v1/origins of"
        " `fediwarden audit`, docs/lemmy.md), as a bearer token. Unset, nobody may.",
    )
    domain: Annotated[str | None, AfterValidator(_check_domain)] = Field(
        None,
        description="Domain of the server whose pict-rs this is, such as lemmy.example (`hostname` in Lemmy's"
        " settings). The relay knows its users' uploads by it; without it, uploaders stay unknown.",
    )
    relay_port: Annotated[int, Field(ge=0, le=65535)] | None = Field(
        None,
        description="TCP port where `fediwarden relay` stands before this pict-rs. Needed where several tenants have a"
        " pict_rs. Default: relay.port.",
    )

    @model_validator(mode="after")
    def _says_which_pict_rs(self) -> Self:
        if self.pict_rs_api_key is not None and self.pict_rs is None:
            raise ValueError("pict_rs_api_key needs pict_rs, the address of the pict-rs it belongs to")
        return self

    @property
    def allowed_networks(self) -> tuple[Network, ...] | None:
        """The networks in force; None means anywhere."""
        if self.networks is None:
            return LOOPBACK if self.key is None else None
        return self.networks


class GatewaySettings(BaseModel):
    """The HTTP edge: where it listens, how long it waits and how much it takes in at once."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field("127.0.0.1", description="Address to listen on. Never the open internet.")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(
        14051, description="TCP port; 14051 is what pictrs-safety used. 0 takes any free one."
    )
    admin_token: Annotated[SecretStr | None, AfterValidator(_check_admin_token)] = Field(
        None,
        description="Secret of whoever may set overrides through the API (/v1/overrides), as a bearer token. Unset,"
        " that part of the API is off; `fediwarden overrides` needs none.",
    )
    deadline_ms: Annotated[int, Field(ge=50, le=600_000)] = Field(
        3000,
        description="Milliseconds from a request's arrival until it is answered, by policy if no verdict came."
        " Keep it well below pict-rs's external_validation_timeout.",
    )
    max_body_bytes: Annotated[int, Field(ge=1024)] = Field(
        64 * MIB, description="Largest image or video taken in; a larger one is answered 413."
    )
    body_timeout_s: Annotated[float, Field(gt=0, le=600)] = Field(
        3.0,
        description="Seconds a client has to send its whole body, at most until the deadline; then it is answered 408.",
    )
    head_timeout_s: Annotated[float, Field(gt=0, le=600)] = Field(
        10.0, description="Seconds a client has to send a request's head; then it is disconnected."
    )
    keep_alive_s: Annotated[int, Field(ge=1, le=3600)] = Field(
        120, description="Seconds an idle connection stays open; longer than pict-rs keeps one (90)."
    )
    memory_body_bytes: Annotated[int, Field(ge=0)] = Field(
        4 * MIB, description="A body up to this size is held in memory, a larger one in a file without a name."
    )
    body_dir: Path = Field(
        default_factory=lambda: Path(tempfile.gettempdir()),
        description="Folder of the files that hold large bodies while they are read. They never have a name.",
    )
    spool_dir: Path | None = Field(
        None,
        description="Folder where encrypted frames and the ledger's entries wait while Kafka is away; several gateways"
        " may share it. Default: spool in data_dir.",
    )
    spool_max_bytes: Annotated[int, Field(ge=1 << 20)] = Field(
        2048 * MIB, description="Bytes of frames that the spool holds at most; beyond it the answer is 503."
    )
    spool_max_age_h: Annotated[float, Field(gt=0)] = Field(
        7 * 24.0,
        description="Hours that frames may wait in the spool; older ones are not judged when Kafka is back, but named"
        " in images.dead.",
    )
    max_in_flight: Annotated[int, Field(ge=1)] = Field(
        512,
        description="Requests answered at one time, and images in hand until Kafka has them; one more is answered 503.",
    )
    max_in_flight_bytes: Annotated[int, Field(ge=1024)] = Field(
        512 * MIB, description="Bytes of all bodies held at one time; beyond it the answer is 503."
    )
    max_unpublished_bytes: Annotated[int, Field(ge=1024)] = Field(
        128 * MIB,
        description="Bytes of frames held in memory until Kafka or the disk has them; beyond it the answer is 503.",
    )
    ledger_entries: Annotated[int, Field(ge=1)] = Field(
        100_000,
        description="Answers that wait for Kafka to be recorded; beyond it the answer is 503.",
    )
    known_entries: Annotated[int, Field(ge=0)] = Field(
        100_000, description="Verdicts kept in memory to answer the same bytes at once (about 1 KB each)."
    )
    known_since_h: Annotated[float, Field(ge=0, le=24 * 400)] = Field(
        24.0, description="Hours of past verdicts read at start to fill that memory."
    )
    recent_entries: Annotated[int, Field(ge=0)] = Field(
        10_000, description="Answers kept in memory for GET /v1/scans/{scan_id}."
    )
    drain_s: Annotated[float, Field(ge=0)] = Field(
        15.0, description="Seconds to answer what is in flight and to hand it to Kafka when stopping."
    )
    tls: ServerTlsSettings = Field(
        default_factory=ServerTlsSettings, description="HTTPS, where pict-rs is on another machine."
    )
    lists: ListSettings = Field(default_factory=ListSettings, description="Known-hash lists.")
    fetch: FetchSettings = Field(
        default_factory=FetchSettings, description="Fetching images that others name, for their hash. Off."
    )
    frames: FrameSettings = Field(
        default_factory=FrameSettings, description="The sandboxed workers that turn files into frames."
    )

    @model_validator(mode="after")
    def _one_body_fits(self) -> Self:
        if self.max_in_flight_bytes < self.max_body_bytes:
            raise ValueError("max_in_flight_bytes must be at least max_body_bytes, or no such body fits")
        return self
