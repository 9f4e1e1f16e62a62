"""The messages that cross Kafka, one frozen type each.

Wire format: a msgpack map of the fields (see `schemas.codec`), with the header ``schema: <name>/<version>``.
A new optional field keeps the version; anything a reader of the old version would misread raises it.
Times are milliseconds since the Unix epoch (UTC); hashes are raw bytes.
"""

import hashlib
from enum import StrEnum
from functools import cached_property
from typing import Annotated, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Sha256 = Annotated[bytes, Field(min_length=32, max_length=32)]
PdqHash = Annotated[bytes, Field(min_length=32, max_length=32)]
EpochMs = Annotated[int, Field(ge=0)]
ScanId = Annotated[str, Field(min_length=1, max_length=64)]
TenantName = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[a-z0-9][a-z0-9_-]*$")]
Domain = Annotated[str, Field(min_length=1, max_length=253)]
Score = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]

EVERY_TENANT = "*"
"""Every tenant: in `ScannerAnnounced.policies` those without a policy of their own, in `OverrideSet` all of them."""


class Decision(StrEnum):
    """What a policy makes of an image."""

    ACCEPT = "accept"
    REVIEW = "review"
    REJECT = "reject"


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


class Stage(StrEnum):
    """Where a verdict was reached: in which lane, or without any scanner.

    list: a gateway found the image on a known-hash list; override: a denial, carried to what was judged before.
    """

    LIVE = "live"
    BACKLOG = "backlog"
    LIST = "list"
    OVERRIDE = "override"


class OverrideEffect(StrEnum):
    """What a moderator says of an image, whatever anybody else does."""

    ALLOW = "allow"
    DENY = "deny"


class OverrideKind(StrEnum):
    """What of an image an override goes by: its bytes, or the look of its frames."""

    SHA256 = "sha256"
    PDQ = "pdq"


class EnforcementOutcome(StrEnum):
    """What one try of the enforcer came to; allowed: an override keeps the file."""

    ABSENT = "absent"
    ALLOWED = "allowed"
    REMOVED = "removed"
    WOULD_REMOVE = "would_remove"
    FAILED = "failed"


class OriginMethod(StrEnum):
    """How an origin became known.

    relay: seen passing between the software and pict-rs; database: read from the software's own tables; http: told
    us through POST /v1/origins.
    """

    RELAY = "relay"
    DATABASE = "database"
    HTTP = "http"


class Confidence(StrEnum):
    """How sure one fact of an origin is.

    certain: the software's own record of exactly this image; likely: it fits and nothing else does, but a step of the
    reasoning is ours (matched by time, an address of several uses); possible: one of several that fit.
    """

    CERTAIN = "certain"
    LIKELY = "likely"
    POSSIBLE = "possible"


class Place(StrEnum):
    """What an image was put in; proxied and imported: fetched for some place that is not known (yet)."""

    UPLOAD = "upload"
    PROXIED = "proxied"
    IMPORTED = "imported"
    POST_LINK = "post-link"
    POST_THUMBNAIL = "post-thumbnail"
    POST_TEXT = "post-text"
    COMMENT = "comment"
    MESSAGE = "message"
    AVATAR = "avatar"
    BANNER = "banner"
    ICON = "icon"
    UNKNOWN = "unknown"


class Message(BaseModel):
    """Base of every message: frozen, validated when made and when read, unknown fields ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_bytes="base64")
    SCHEMA: ClassVar[str]
    VERSION: ClassVar[int] = 1


class FrameInfo(BaseModel):
    """One frame's plain facts; its pixels travel encrypted beside them.

    `at_ms` is the frame's time in the animation, 0 for a still; `pdq_quality` is 0-100 (below 50: do not match).
    """

    model_config = ConfigDict(frozen=True, extra="ignore")
    at_ms: Annotated[int, Field(ge=0)]
    width: Annotated[int, Field(ge=1)]
    height: Annotated[int, Field(ge=1)]
    pdq: PdqHash
    pdq_quality: Annotated[int, Field(ge=0, le=100)]


class SealedFrames(BaseModel):
    """JPEG renditions under AES-256-GCM; see `schemas.keyring` for the layout."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    key_id: Annotated[str, Field(min_length=1, max_length=32)]
    nonce: Annotated[bytes, Field(min_length=12, max_length=12)]
    ciphertext: bytes


class ImageSubmitted(Message):
    """An image that waits to be judged (topics images, images.backlog, images.archive; key sha256).

    `hung` is how many times a scanner's model did not come back from a batch that the image was in.
    """

    SCHEMA: ClassVar[str] = "image-submitted"
    scan_id: ScanId
    tenant: TenantName
    sha256: Sha256
    length: Annotated[int, Field(ge=0)]
    media_type: str
    received_at: EpochMs
    deadline_at: EpochMs
    frames: Annotated[tuple[FrameInfo, ...], Field(min_length=1, max_length=8)]
    sealed: SealedFrames
    gateway: str = ""
    hung: Annotated[int, Field(ge=0)] = 0


class RuleFired(BaseModel):
    """A policy rule that applied: its name, what it decides, and the frame (index) it saw worst."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    name: str
    decision: Decision
    frame: Annotated[int, Field(ge=0)]


class Timings(BaseModel):
    """Where the scanner's milliseconds went; `queued` is from the gateway's publish to the scanner's poll."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    queued: float = 0.0
    decode: float = 0.0
    wait: float = 0.0
    infer: float = 0.0


class Verdict(Message):
    """What a scanner decided (topic verdicts; key sha256). Under 1 KB on the wire.

    `scores` holds the worst frame's score per ``model/label``; `models` names every model (name -> id) and
    `policy` the policy's id, both digests of content. `partition`/`offset` say where the image was read from.
    `length` is the judged file's bytes, 0 where an older scanner did not say: pict-rs files it under hash and length.
    `pdq_quality` goes with `pdq`, () where an older scanner did not say: such hashes are not fit for matching.
    Of stage list, `hash_list` names the list and its version (``name@version``), `scanner` the gateway; nothing was
    scored, and `topic`, `partition` and `offset` say nothing.
    Of stage override, `policy` names the override, nothing was scored, and `topic` and `offset` say where it stands.
    """

    SCHEMA: ClassVar[str] = "verdict"
    scan_id: ScanId
    tenant: TenantName
    sha256: Sha256
    decision: Decision
    rules: tuple[RuleFired, ...] = ()
    scores: dict[str, Score]
    worst_frame: Annotated[int, Field(ge=0)] = 0
    frame_count: Annotated[int, Field(ge=1)] = 1
    pdq: tuple[PdqHash, ...] = ()
    pdq_quality: tuple[Annotated[int, Field(ge=0, le=100)], ...] = ()
    media_type: str = ""
    length: Annotated[int, Field(ge=0)] = 0
    models: dict[str, str]
    policy: str
    hash_list: str = ""
    stage: Stage
    scanner: str
    topic: str
    partition: Annotated[int, Field(ge=0)]
    offset: Annotated[int, Field(ge=0)]
    received_at: EpochMs
    judged_at: EpochMs
    timings: Timings = Timings()


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


class ScannerAnnounced(Message):
    """What a scanner judges with, every few seconds (topic scanners; key scanner id).

    `policies` maps a tenant, or `EVERY_TENANT`, to a policy id. `rate` is images judged a second, recently.
    """

    SCHEMA: ClassVar[str] = "scanner-announced"
    scanner: str
    group: str
    models: dict[str, str]
    policies: dict[str, str]
    device: str
    rate: Annotated[float, Field(ge=0)] = 0.0
    healthy: bool = True
    leaving: bool = False
    announced_at: EpochMs


class ImageFailed(Message):
    """An image or record that could not be processed, and why (topic images.dead; key scan id). Never pixels."""

    SCHEMA: ClassVar[str] = "image-failed"
    scan_id: str
    tenant: str = ""
    sha256: bytes = b""
    reason: str
    detail: str = ""
    topic: str
    partition: Annotated[int, Field(ge=0)]
    offset: Annotated[int, Field(ge=0)]
    scanner: str = ""
    failed_at: EpochMs


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


DISTANCE_MOST = 64
"""The widest that an override by PDQ may reach, of 256 bits: any two pictures differ in some 128, none in so few."""


class OverrideSet(Message):
    """The word of a moderator on one hash (topic overrides; key `override_id`); a tombstone takes it back.

    It holds for `tenant` (`EVERY_TENANT`: all) until `until`, None for ever, and takes the place of an earlier one on
    the same hash for the same tenant. `distance` is in bits of 256, 0 for sha256. `scan_id` is the scan that the
    hash was taken from, "" when it was given itself.
    """

    SCHEMA: ClassVar[str] = "override-set"
    effect: OverrideEffect
    kind: OverrideKind
    hash: Annotated[bytes, Field(min_length=32, max_length=32)]
    distance: Annotated[int, Field(ge=0, le=DISTANCE_MOST)] = 0
    tenant: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^(\*|[a-z0-9][a-z0-9_-]*)$")] = EVERY_TENANT
    set_by: Annotated[str, Field(min_length=1, max_length=100)]
    reason: Annotated[str, Field(min_length=1, max_length=500)]
    set_at: EpochMs
    until: EpochMs | None = None
    scan_id: Annotated[str, Field(max_length=64)] = ""

    @cached_property
    def override_id(self) -> str:
        """16 hexadecimal digits, the same for the same hash and tenant."""
        about = f"{self.tenant}/{self.kind}:{self.hash.hex()}"
        return hashlib.sha256(about.encode("ascii")).hexdigest()[:16]

    def holds(self, at_ms: int) -> bool:
        """Whether it has not expired by then."""
        return self.until is None or at_ms < self.until


class FeaturesExtracted(Message):
    """What an embedding model made of an image's frames (topic features; key sha256).

    `vectors` holds one unit vector a frame, each `dimensions` numbers of 16 bits (IEEE 754 half precision, little
    endian). With `model_id` and a concept's text feature they give the scores again, to about 0.0005.
    """

    SCHEMA: ClassVar[str] = "features-extracted"
    scan_id: ScanId
    tenant: TenantName
    sha256: Sha256
    model: str
    model_id: str
    dimensions: Annotated[int, Field(ge=1, le=8192)]
    vectors: Annotated[tuple[bytes, ...], Field(min_length=1, max_length=8)]
    scanner: str = ""
    extracted_at: EpochMs

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if any(len(vector) != 2 * self.dimensions for vector in self.vectors):
            raise ValueError(f"a vector of {self.dimensions} dimensions has {2 * self.dimensions} bytes")
        return self


class OriginAuthor(BaseModel):
    """Who put an image where it is; never by name.

    `pseudonym` is an HMAC of the actor's id under the key `key_id` (see `schemas.pseudonyms`), no bytes where only the
    instance is known. Pseudonyms of two keys cannot be compared.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")
    instance: Domain
    pseudonym: Annotated[bytes, Field(max_length=32)] = b""
    key_id: Annotated[str, Field(max_length=32)] = ""
    confidence: Confidence


class OriginCommunity(BaseModel):
    """The community an image was posted to: its ActivityPub id where that is known, and the instance it lives on."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    instance: Domain
    actor_id: Annotated[str, Field(max_length=1024)] = ""
    confidence: Confidence


class OriginHost(BaseModel):
    """The host an image was fetched from. It accuses nobody: everybody links to imgur."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    domain: Domain
    confidence: Confidence


class OriginMoment(BaseModel):
    """When an image was put where it is, by the record of whoever says so."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    at: EpochMs
    confidence: Confidence


class OriginObserved(Message):
    """Where an image came from, as far as one observer can tell (topic origins; key: sha256, else url, else alias).

    The image is named by at least one of `sha256`, `alias` (pict-rs's name for a stored file) and `url` (the address it
    was fetched from, or is embedded as). A message that bears two of them also says that both name the same image:
    readers join through that. An unknown fact is None; it is never guessed. `post_url` is the ActivityPub id of the
    post or comment that holds the image, "" where there is none or it is not known. Several messages may speak of one
    place: their `origin_id` is the same, and the one with the highest `observed_at` counts (of several, any one, but
    the same in every reading).
    Domains are in the form of `schemas.domains`.
    """

    SCHEMA: ClassVar[str] = "origin-observed"
    tenant: TenantName
    sha256: Annotated[bytes, Field(max_length=32)] = b""
    alias: Annotated[str, Field(max_length=256)] = ""
    url: Annotated[str, Field(max_length=4096)] = ""
    place: Place
    method: OriginMethod
    host: OriginHost | None = None
    author: OriginAuthor | None = None
    community: OriginCommunity | None = None
    moment: OriginMoment | None = None
    post_url: Annotated[str, Field(max_length=2048)] = ""
    observed_at: EpochMs
    observer: str = ""

    @model_validator(mode="after")
    def _names_an_image(self) -> Self:
        if len(self.sha256) not in (0, 32):
            raise ValueError("sha256 has 32 bytes, or none where it is not known")
        if not (self.sha256 or self.alias or self.url):
            raise ValueError("an origin names its image: by sha256, alias or url")
        return self

    @cached_property
    def origin_id(self) -> bytes:
        """16 bytes, the same for every message about the same image in the same place by the same method."""
        author = self.author.pseudonym.hex() if self.author else ""
        image = self.sha256.hex() or self.url or self.alias
        about = "\n".join((self.tenant, image, self.place, self.method, self.post_url, author))
        return hashlib.sha256(about.encode()).digest()[:16]


class ActorForgotten(Message):
    """An actor whose traces are to go (topic origins; key: the pseudonym): those published before it no longer count.

    One for each key that pseudonyms were made with.
    """

    SCHEMA: ClassVar[str] = "actor-forgotten"
    pseudonym: Annotated[bytes, Field(min_length=16, max_length=32)]
    key_id: Annotated[str, Field(min_length=1, max_length=32)]
    forgotten_at: EpochMs


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
)
"""Every message there is; `schemas.codec` dispatches on this."""
