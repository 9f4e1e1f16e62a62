"""What scanners decide, and what they decide with."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from schemas.messages.base import Decision, EpochMs, Message, PdqHash, ScanId, Score, Sha256, TenantName


class Stage(StrEnum):
    """Where a verdict was reached: in which lane, or without any scanner.

    list: a gateway found the image on a known-hash list; override: a denial, carried to what was judged before; rescan:
    the outcome of a rescan, carried out.
    """

    LIVE = "live"
    BACKLOG = "backlog"
    LIST = "list"
    OVERRIDE = "override"
    RESCAN = "rescan"


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
    Of stage rescan, `rescan` names the rescan, and `topic`, `partition` and `offset` say where the verdict that it
    takes the place of stands.
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
    rescan: Annotated[str, Field(max_length=40)] = ""
    stage: Stage
    scanner: str
    topic: str
    partition: Annotated[int, Field(ge=0)]
    offset: Annotated[int, Field(ge=0)]
    received_at: EpochMs
    judged_at: EpochMs
    timings: Timings = Timings()


class ScannerAnnounced(Message):
    """What a scanner judges with, every few seconds (topic scanners; key scanner id).

    `policies` maps a tenant, or `EVERY_TENANT`, to a policy id. `rate` is images judged a second, recently. One that is
    `changing` waits for its turn to load other models (`ModelsPromoted`), or is `leaving` to come back with them under
    another id. `instance` is the setting of that name, "" where it has none: it stays the same when it comes back.
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
    changing: bool = False
    instance: Annotated[str, Field(max_length=200)] = ""
