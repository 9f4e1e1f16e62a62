"""What an admin says of a list: where it comes from, what it does, and who answers for it."""

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field

from gateway.lists.kinds import DISTANCE_MOST, HashKind
from schemas.messages import Decision

ListName = Annotated[str, Field(min_length=1, max_length=48, pattern=r"^[a-z0-9][a-z0-9_-]*$")]


class ListDefinition(BaseModel):
    """One list. `source` is a path, a URL or ``exchange:...`` (see `gateway.lists.sources`), "" for our own decisions.

    `kind` says what hashes of 64 digits are where the source does not. `token_env` names the environment variable
    with the bearer token for a URL; the token itself is never stored. `expires_at` is in milliseconds since the epoch.
    A list that is not `guarded` is never suspended for matching too much.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ListName
    source: str
    kind: HashKind | None = None
    action: Literal["reject", "review"] = "reject"
    reason: Annotated[str, Field(max_length=200)] = ""
    responsible: Annotated[str, Field(max_length=200)] = ""
    distance: Annotated[int, Field(ge=0, le=DISTANCE_MOST)] = DISTANCE_MOST
    expires_at: Annotated[int, Field(ge=0)] | None = None
    token_env: str = ""
    guarded: bool = True

    @property
    def origin(self) -> str:
        """Where the hashes come from, as clients may read it: no path of this machine, no query of an address."""
        if not self.source:
            return "our own decisions"
        if self.source.startswith(("http://", "https://")):
            return urlsplit(self.source).hostname or "the web"
        return self.source.partition("?")[0] if self.source.startswith("exchange:") else "a file"

    @property
    def decision(self) -> Decision:
        """What a match comes to."""
        return Decision(self.action)

    def has_expired(self, at_ms: int) -> bool:
        """Whether it matches nothing any more."""
        return self.expires_at is not None and at_ms >= self.expires_at
