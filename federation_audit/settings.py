"""What an admin may set about the audit."""

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from federation_audit.pages.settings import PagesSettings


class AuditSettings(BaseModel):
    """Who sent what: the store and the pages."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    database: SecretStr | None = Field(
        None,
        description="The database, such as postgresql://fediwarden:PASSWORD@db/audit or sqlite:////path/audit.sqlite."
        " Default: audit.sqlite in the data directory.",
    )
    pages: PagesSettings = Field(default_factory=PagesSettings, description="The web pages.")
