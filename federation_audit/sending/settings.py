"""What an admin may set about mail and about looking for contacts."""

from enum import StrEnum
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from schemas.fetching import FetchLimits, Network


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

    @model_validator(mode="after")
    def _keeps_the_password(self) -> Self:
        if self.security is MailSecurity.NONE and self.password is not None:
            raise ValueError("a password does not travel unprotected: set security to starttls or tls")
        return self


class ContactSettings(BaseModel):
    """Whether and how another instance is asked for its contacts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = Field(
        False,
        description="Whether an instance is asked for its admins' contacts (nodeinfo, site API) when somebody asks for"
        " them. It then learns our address.",
    )
    timeout_s: Annotated[float, Field(gt=0, le=60)] = Field(5.0, description="Seconds for each question.")
    max_bytes: Annotated[int, Field(ge=1024)] = Field(512 << 10, description="Largest answer read.")
    redirects: Annotated[int, Field(ge=0, le=5)] = Field(2, description="Redirects followed, over https alone.")
    ports: tuple[Annotated[int, Field(ge=1, le=65535)], ...] = Field((443,), description="Ports connected to.")
    networks: tuple[Network, ...] = Field(
        (), description="Networks (CIDR) that may be asked although they are not public."
    )

    @property
    def limits(self) -> FetchLimits:
        """The same, as the fetcher takes it: JSON, over https."""
        return FetchLimits(
            accept="application/json",
            setting="contacts",
            max_bytes=self.max_bytes,
            timeout_s=self.timeout_s,
            redirects=self.redirects,
            ports=self.ports,
            networks=self.networks,
            schemes=frozenset({"https"}),
        )
