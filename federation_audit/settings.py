"""What an admin may set about the audit."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

from federation_audit.alert_settings import AlertSettings
from federation_audit.pages.settings import PagesSettings
from federation_audit.presence.settings import PresenceSettings
from federation_audit.reviewing.settings import ReviewSettings
from federation_audit.sending.settings import ContactSettings, MailSettings, TargetSettings
from federation_audit.viewing.settings import ViewingSettings


def _check_database(url: SecretStr | None) -> SecretStr | None:
    if url is not None:
        from federation_audit.store.engine import parse_url  # settings are read by commands that need no database

        parse_url(url.get_secret_value())
    return url


class AuditSettings(BaseModel):
    """Where the audit keeps what it knows, for how long, and who may see it."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    database: Annotated[SecretStr | None, AfterValidator(_check_database)] = Field(
        None,
        description="Database URL: sqlite:////absolute/path/audit.sqlite, or postgresql://user:password@host/name."
        " Default: audit.sqlite in the data directory.",
    )
    retention_months: int = Field(
        13,
        ge=1,
        le=13,
        description="How long anything is kept. Kafka's topics keep 13 months: no more can be made anew from them.",
    )
    batch: int = Field(
        5_000, ge=1, le=50_000, description="Most messages written in one transaction (about 2 KB of memory each)."
    )
    assess_every_s: Annotated[float, Field(ge=1, le=86_400)] = Field(
        60.0, description="Seconds after which the statistics are made anew, when somebody looks at them."
    )
    verified_lists: tuple[str, ...] = Field(
        (),
        description="Known-hash lists (by name) whose hits count as confirmed without any reviewer. Only those that"
        " people have verified.",
    )
    pages: PagesSettings = Field(default_factory=PagesSettings, description="The web pages.")
    alerts: AlertSettings = Field(
        default_factory=AlertSettings, description="What is told to people who are not looking at the pages."
    )
    presence: PresenceSettings = Field(
        default_factory=PresenceSettings, description="Looking whether posts of confirmed incidents are still there."
    )
    review: ReviewSettings = Field(default_factory=ReviewSettings, description="The review queue.")
    viewing: ViewingSettings = Field(default_factory=ViewingSettings, description="Looking at pictures.")
    mail: MailSettings = Field(default_factory=MailSettings, description="Reports by mail.")
    contacts: ContactSettings = Field(
        default_factory=ContactSettings, description="Asking other instances for their contacts."
    )
    targets: TargetSettings = Field(default_factory=TargetSettings, description="Where decisions can be sent to.")

    @property
    def retention_days(self) -> int:
        """`retention_months` in days, never beyond the 396 that topics keep."""
        return int(self.retention_months * 30.4375)
