"""The messages that cross Kafka, one frozen type each.

Wire format: a msgpack map of the fields (see `schemas.codec`), with the header ``schema: <name>/<version>``.
A new optional field keeps the version; anything a reader of the old version would misread raises it.
Times are milliseconds since the Unix epoch (UTC); hashes are raw bytes.
"""

from schemas.messages.answers import (
    AnsweredBy,
    AnswerGiven,
    EnforcementOutcome,
    EnforcementReported,
)
from schemas.messages.base import (
    EVERY_TENANT,
    Decision,
    Domain,
    EpochMs,
    Message,
    PdqHash,
    ScanId,
    Score,
    Sha256,
    TenantName,
)
from schemas.messages.images import (
    FeaturesExtracted,
    FrameInfo,
    ImageFailed,
    ImageSubmitted,
    SealedFrames,
)
from schemas.messages.origins import (
    ActorForgotten,
    Confidence,
    OriginAuthor,
    OriginCommunity,
    OriginHost,
    OriginMethod,
    OriginMoment,
    OriginObserved,
    Place,
)
from schemas.messages.overrides import (
    DISTANCE_MOST,
    OverrideEffect,
    OverrideKind,
    OverrideSet,
)
from schemas.messages.promotions import ModelsPromoted
from schemas.messages.rescans import (
    RESCAN_GROUPS,
    Rejudged,
    RescanId,
    RescanJudged,
    RescanOnly,
    RescanOrdered,
    RescanSpan,
    RescanState,
    RescanTier,
    decisions_of,
)
from schemas.messages.sweeps import (
    SweepCheckpoint,
    SweepFinding,
    SweepFound,
    SweepId,
    SweepMode,
    SweepOutcome,
)
from schemas.messages.verdicts import (
    RuleFired,
    ScannerAnnounced,
    Stage,
    Timings,
    Verdict,
)

MESSAGES: tuple[type[Message], ...] = (
    ImageSubmitted,
    Verdict,
    AnswerGiven,
    ScannerAnnounced,
    ImageFailed,
    EnforcementReported,
    OverrideSet,
    FeaturesExtracted,
    OriginObserved,
    ActorForgotten,
    RescanOrdered,
    RescanJudged,
    SweepCheckpoint,
    SweepFound,
    ModelsPromoted,
)
"""Every message there is; `schemas.codec` dispatches on this."""

__all__ = [
    "DISTANCE_MOST",
    "EVERY_TENANT",
    "MESSAGES",
    "RESCAN_GROUPS",
    "ActorForgotten",
    "AnswerGiven",
    "AnsweredBy",
    "Confidence",
    "Decision",
    "Domain",
    "EnforcementOutcome",
    "EnforcementReported",
    "EpochMs",
    "FeaturesExtracted",
    "FrameInfo",
    "ImageFailed",
    "ImageSubmitted",
    "Message",
    "ModelsPromoted",
    "OriginAuthor",
    "OriginCommunity",
    "OriginHost",
    "OriginMethod",
    "OriginMoment",
    "OriginObserved",
    "OverrideEffect",
    "OverrideKind",
    "OverrideSet",
    "PdqHash",
    "Place",
    "Rejudged",
    "RescanId",
    "RescanJudged",
    "RescanOnly",
    "RescanOrdered",
    "RescanSpan",
    "RescanState",
    "RescanTier",
    "RuleFired",
    "ScanId",
    "ScannerAnnounced",
    "Score",
    "SealedFrames",
    "Sha256",
    "Stage",
    "SweepCheckpoint",
    "SweepFinding",
    "SweepFound",
    "SweepId",
    "SweepMode",
    "SweepOutcome",
    "TenantName",
    "Timings",
    "Verdict",
    "decisions_of",
]
