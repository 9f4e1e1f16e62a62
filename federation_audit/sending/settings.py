"""What an admin may set about mail, about looking for contacts, and about our own services that blocks are sent to."""

import ipaddress
from enum import StrEnum
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator

from federation_audit.exports.coop import CoopTypes
from schemas.fetching import FetchLimits, GuardedFetchSettings


class MailSecurity(StrEnum):
    """How the connection to the mail server is protected: from its first byte, after STARTTLS, or not at all."""

    TLS = "tls"
    STARTTLS = "starttls"
    NONE = "none"


class MailSettings(BaseModel):
    """The mail server that reports are handed to."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    host: str = Field("", description="Name of the mail server. Unset: no mail can be sent.")
    port: Annotated[int, Field(ge=1, le=65535)] = Field(587, description="Its port: 587 for starttls, 465 for tls.")
    security: MailSecurity = Field(
        MailSecurity.STARTTLS, description="tls, starttls, or none (a mail server on this machine)."
    )
    user: str = Field("", description="Login name; without one no login is tried.")
    password: SecretStr | None = Field(None, description="Password of that login.")
    sender: str = Field("", description="Address that reports come from, such as abuse@my.example.")
    reply_to: str = Field("", description="Address that answers go to. Default: the sender.")
    timeout_s: Annotated[float, Field(gt=0, le=300)] = Field(30.0, description="Seconds for each step with the server.")

    @property
    def answer_to(self) -> str:
        """Where answers go, '' where neither address is set."""
        return self.reply_to or self.sender

    @model_validator(mode="after")
    def _keeps_the_password(self) -> Self:
        if self.security is MailSecurity.NONE and self.password is not None:
            raise ValueError("a password does not travel unprotected: set security to starttls or tls")
        return self


class ContactSettings(GuardedFetchSettings):
    """Whether and how another instance is asked for its contacts."""

    enabled: bool = Field(
        False,
        description="Whether an instance is asked for its admins' contacts (nodeinfo, site API) when somebody asks for"
        " them. It then learns our address.",
    )
    max_bytes: Annotated[int, Field(ge=1024)] = Field(512 << 10, description="Largest answer read.")

    @property
    def limits(self) -> FetchLimits:
        """The same, as the fetcher takes it: JSON, over https."""
        return self.as_limits(accept="application/json", setting="audit.contacts")


def _check_address(address: str) -> str:
    """An http(s) address without a path, or ''. Beyond this machine and its own network it is https."""
    if not address:
        return ""
    remedy = "write it as https://my.example: a scheme and a host, no path, no user"
    try:
        parts = urlsplit(address.rstrip("/"))
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(remedy) from error
    if parts.scheme not in ("http", "https") or not host or "@" in parts.netloc or parts.path or parts.query:
        raise ValueError(remedy)
    if parts.scheme == "http" and not _is_near(host):
        raise ValueError("the token would travel readable: write https://, or the address within your own network")
    return f"{parts.scheme}://{parts.netloc.lower()}"


def _is_near(host: str) -> bool:
    """Whether `host` is this machine, a private address, or a name without a dot, as containers have."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "." not in host
    return address.is_loopback or address.is_private


Address = Annotated[str, AfterValidator(_check_address)]


class LemmyVersion(StrEnum):
    """Which of Lemmy's two interfaces is spoken; auto asks the server which it has."""

    AUTO = "auto"
    V0_19 = "0.19"
    V1_0 = "1.0"


class LemmyTarget(BaseModel):
    """Your own Lemmy, which blocks instances."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    address: Address = Field("", description="Its address, such as https://my.example. Unset: nothing is sent to it.")
    token: SecretStr | None = Field(
        None, description="Token (jwt) of an admin's session there, from logging in; it ends with that session."
    )
    version: LemmyVersion = Field(
        LemmyVersion.AUTO, description="auto, 0.19 or 1.0: which interface it has. auto asks it."
    )

    @property
    def ready(self) -> bool:
        """Whether anything can be sent to it."""
        return bool(self.address and self.token)


class MastodonTarget(BaseModel):
    """Your own Mastodon, which blocks domains."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    address: Address = Field("", description="Its address, such as https://my.example. Unset: nothing is sent to it.")
    token: SecretStr | None = Field(
        None,
        description="Token of an application of an admin's, with the scopes admin:read:domain_blocks and"
        " admin:write:domain_blocks.",
    )

    @property
    def ready(self) -> bool:
        """Whether anything can be sent to it."""
        return bool(self.address and self.token)


class FediseerTarget(BaseModel):
    """A Fediseer, which tells others what your instance thinks of an instance."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    address: Address = Field("https://fediseer.com", description="Its address.")
    key: SecretStr | None = Field(None, description="API key of your instance there. Unset: nothing is said there.")

    @property
    def ready(self) -> bool:
        """Whether anything can be sent to it."""
        return bool(self.address and self.key)


class CoopTarget(BaseModel):
    """A Coop, which incidents are handed over to; docs/reports.md says which types to make there."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    address: Address = Field("", description="Its address. Unset: nothing is handed over.")
    key: SecretStr | None = Field(None, description="API key of your organisation there.")
    item_type: str = Field("", max_length=200, description="Id of the item type for incidents, as Coop gave it.")
    reporter_type: str = Field("", max_length=200, description="Id of the user type for reporters, as Coop gave it.")
    policy: str = Field("", max_length=200, description="Id of a policy, as Coop gave it. Unset: none is named.")

    @property
    def types(self) -> CoopTypes:
        """The ids, as hand-overs name them."""
        return CoopTypes(self.item_type, self.reporter_type, self.policy)

    @property
    def ready(self) -> bool:
        """Whether anything can be sent to it."""
        return bool(self.address and self.key and self.item_type and self.reporter_type)


class TargetSettings(BaseModel):
    """Where decisions can be sent to. Nothing is, without somebody who has seen it and confirms it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lemmy: LemmyTarget = Field(default_factory=LemmyTarget, description="Your own Lemmy.")
    mastodon: MastodonTarget = Field(default_factory=MastodonTarget, description="Your own Mastodon.")
    fediseer: FediseerTarget = Field(default_factory=FediseerTarget, description="Fediseer.")
    coop: CoopTarget = Field(default_factory=CoopTarget, description="Coop, ROOST's review tool.")
    answer_within_s: Annotated[float, Field(gt=0, le=120)] = Field(
        20.0, description="Seconds within which one of them has to answer."
    )
