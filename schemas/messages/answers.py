"""What was answered for an image, and what was removed for it."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from schemas.messages.base import Decision, EpochMs, Message, ScanId, Sha256, TenantName


class AnsweredBy(StrEnum):
    """How the gateway came to its answer."""

    VERDICT = "verdict"
    KNOWN = "known"
    OVERRIDE = "override"
    LIST = "list"
    DEADLINE = "deadline"
    OVERLOAD = "overload"
    SPOOLED = "spooled"
    UNREADABLE = "unreadable"


class EnforcementOutcome(StrEnum):
    """What one try of the enforcer came to; allowed: an override keeps the file."""

    ABSENT = "absent"
    ALLOWED = "allowed"
    REMOVED = "removed"
    WOULD_REMOVE = "would_remove"
    FAILED = "failed"


class AnswerGiven(Message):
    """What the gateway answered, and why (topic answers; key sha256): the ledger's entry for one request.

    `accepted` is what the client was told, None where an older gateway did not say. `carried_by` is the scan id under
    which the image went to be judged: another request's where the same bytes were on their way already, "" where
    nothing went (known bytes, unreadable ones).
    """

    SCHEMA: ClassVar[str] = "answer-given"
    scan_id: ScanId
    tenant: TenantName
    sha256: Sha256
    status: Annotated[int, Field(ge=100, le=599)]
    decision: Decision
    answered_by: AnsweredBy
    reason: str = ""
    length: Annotated[int, Field(ge=0)] = 0
    media_type: str = ""
    answered_at: EpochMs
    milliseconds: Annotated[float, Field(ge=0)]
    gateway: str = ""
    accepted: bool | None = None
    carried_by: str = ""


class EnforcementReported(Message):
    """What the enforcer found in a tenant's pict-rs for a rejected image, and did (topic enforcements; key sha256).

    One for each look: `check` 0 is the first, 1 to 3 those after 5 s, 30 s and 5 min; `attempt` counts the tries of
    that look from 1 (pict-rs may be away). `final` says that no further look follows. `aliases` are the names pict-rs
    served it under. Never pixels.
    """

    SCHEMA: ClassVar[str] = "enforcement-reported"
    scan_id: ScanId
    tenant: TenantName
    sha256: Sha256
    outcome: EnforcementOutcome
    check: Annotated[int, Field(ge=0)]
    attempt: Annotated[int, Field(ge=1)]
    final: bool = False
    aliases: tuple[str, ...] = ()
    detail: str = ""
    judged_at: EpochMs
    enforced_at: EpochMs
    enforcer: str = ""
