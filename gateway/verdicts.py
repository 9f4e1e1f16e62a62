"""What the verdict tail teaches this gateway: its scans' verdicts, those of known bytes, and who judges with what."""

import asyncio
import math
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import orjson
import structlog

from gateway.overrides.memory import NO_LOOKS, Looks, looks_in
from schemas.broker import Received
from schemas.clock import now_ms
from schemas.messages import EVERY_TENANT, Decision, ImageFailed, ScannerAnnounced, Stage, Verdict

log = structlog.get_logger("gateway.verdicts")

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")

ANNOUNCED_WITHIN_S = 30.0
"""How long a scanner counts as there after it last announced itself (it does so every few seconds)."""


class Judge(NamedTuple):
    """Who judged: the models (name and id, sorted) and the policy's id. Two verdicts by one judge would be equal."""

    models: tuple[tuple[str, str], ...]
    policy: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a verdict says, as small as a hundred thousand of them in memory must be.

    `rules` and `scores` are JSON as replies carry it: ``[{"name", "decision", "frame"}]`` and ``{"model/label": p}``.
    `pdq` are the frames' hashes that are fit for matching.
    """

    decision: Decision
    judge: Judge
    rules: bytes
    scores: bytes
    judged_at: int
    tenant: str
    sha256: bytes
    looks: Looks = NO_LOOKS


class _Rescanned(NamedTuple):
    """A rescan's verdict on a tenant's file, and the judges whose verdicts on it were there when it came."""

    judgement: Judgement
    instead_of: frozenset[Judge]


class _Scanner(NamedTuple):
    judges: dict[str, Judge]
    until: float


class Verdicts:
    """The memory behind "known" answers, and the place where scans wait for their verdicts.

    `observe` is handed every record of verdicts, scanners and images.dead, old and new. At most `known_entries`
    judgements are kept by sha256 and `recent_entries` by scan id; the least recently used go first.
    `monotonic` is a clock in seconds; tests pass their own.
    """

    def __init__(
        self, *, known_entries: int, recent_entries: int, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._known_entries = known_entries
        self._recent_entries = recent_entries
        self._monotonic = monotonic
        self._known: OrderedDict[tuple[bytes, Judge], Judgement] = OrderedDict()
        self._rescanned: OrderedDict[tuple[str, bytes], _Rescanned] = OrderedDict()
        self._recent: OrderedDict[str, Judgement] = OrderedDict()
        self._waiting: dict[str, asyncio.Future[Judgement | ImageFailed]] = {}
        self._scanners: dict[str, _Scanner] = {}
        self._judges: dict[Judge, Judge] = {}

    @property
    def known_count(self) -> int:
        """How many judgements can be found by sha256."""
        return len(self._known)

    @property
    def waiting_count(self) -> int:
        """How many scans wait for a verdict."""
        return len(self._waiting)

    def scanner_count(self) -> int:
        """How many healthy scanners have announced themselves within `ANNOUNCED_WITHIN_S`."""
        return len(self._living())

    def observe(self, received: Received) -> None:
        """Take in one record. What is no verdict, announcement or dead letter is logged and passed over."""
        message = received.message
        if isinstance(message, Verdict):
            self._learn(message, imported=received.imported)
        elif isinstance(message, ScannerAnnounced):
            self._note_scanner(message)
        elif isinstance(message, ImageFailed):
            self._resolve(message.scan_id, message)
        elif received.fault is not None:
            log.warning(
                "unreadable record passed over",
                topic=received.topic.name,
                partition=received.partition,
                offset=received.offset,
                fault=str(received.fault),
            )

    def expect(self, scan_id: str) -> asyncio.Future[Judgement | ImageFailed]:
        """A future that the verdict of `scan_id` resolves, or its dead letter.

        Call before the image is published; `forget` it after.
        """
        future: asyncio.Future[Judgement | ImageFailed] = asyncio.get_running_loop().create_future()
        self._waiting[scan_id] = future
        return future

    def awaits(self, scan_id: str) -> bool:
        """Whether somebody waits for the verdict of `scan_id`."""
        return scan_id in self._waiting

    def forget(self, scan_id: str) -> None:
        """No longer wait for `scan_id`."""
        self._waiting.pop(scan_id, None)

    def known(self, tenant: str, sha256: bytes) -> Judgement | None:
        """The latest judgement of these bytes by a judge that scanners announce for `tenant` now, if there is one.

        A rescan's counts as one of the judge that it names, and in the place of those that it came after.
        """
        best: Judgement | None = None
        current = self.current(tenant)
        for judge in current:
            judgement = self._known.get((sha256, judge))
            if judgement is not None and (best is None or judgement.judged_at > best.judged_at):
                best = judgement
        if best is not None:
            self._known.move_to_end((sha256, best.judge))
        rescanned = self._rescanned.get((tenant, sha256))
        if rescanned is None or current.isdisjoint((rescanned.judgement.judge, *rescanned.instead_of)):
            return best
        self._rescanned.move_to_end((tenant, sha256))
        return rescanned.judgement if best is None or best.judged_at <= rescanned.judgement.judged_at else best

    def looks(self, sha256: bytes) -> Looks:
        """The hashes of the frames of these bytes, by whatever judge that saw them latest; none where none is known."""
        judgements = [found for judge in self._judges if (found := self._known.get((sha256, judge))) is not None]
        return max(judgements, key=lambda judgement: judgement.judged_at).looks if judgements else NO_LOOKS

    def judged(self, scan_id: str) -> Judgement | None:
        """The verdict of one recent scan, whichever gateway answered it."""
        return self._recent.get(scan_id)

    def current(self, tenant: str) -> set[Judge]:
        """The judges that healthy scanners announce for `tenant` now."""
        judges: set[Judge] = set()
        for scanner in self._living():
            judge = scanner.judges.get(tenant) or scanner.judges.get(EVERY_TENANT)
            if judge is not None:
                judges.add(judge)
        return judges

    def _learn(self, verdict: Verdict, *, imported: bool) -> None:
        if verdict.stage is Stage.LIST and verdict.decision is not Decision.REJECT:
            return  # a scanner's verdict of the same scan says more
        judge = _judge(verdict.models, verdict.policy)
        judgement = Judgement(
            decision=verdict.decision,
            judge=self._judges.setdefault(judge, judge),
            rules=_json([{"name": r.name, "decision": r.decision, "frame": r.frame} for r in verdict.rules]),
            scores=_json({label: round(score, 6) for label, score in verdict.scores.items()}),
            judged_at=verdict.judged_at,
            tenant=sys.intern(verdict.tenant),
            sha256=verdict.sha256,
            looks=looks_in(verdict),
        )
        key = (verdict.sha256, judgement.judge)
        if not imported:
            self._resolve(verdict.scan_id, judgement)
        elif _is_older(judgement, self._known.get(key)) or _is_older(judgement, self._recent.get(verdict.scan_id)):
            return  # history comes late, and takes the place of nothing newer
        if verdict.stage in (Stage.LIVE, Stage.BACKLOG):  # overrides and lists are asked themselves, while they hold
            _remember(self._known, key, judgement, self._known_entries)
        elif verdict.stage is Stage.RESCAN:
            if not verdict.hash_list:
                self._learn_rescanned(judgement)
            recent = self._recent.get(verdict.scan_id)
            if recent is not None and recent.judged_at > judgement.judged_at:
                return  # it was judged live while the rescan was carried out
        _remember(self._recent, verdict.scan_id, judgement, self._recent_entries)

    def _learn_rescanned(self, judgement: Judgement) -> None:
        key = (judgement.tenant, judgement.sha256)
        instead_of = {
            judge
            for judge in self._judges
            if (known := self._known.get((judgement.sha256, judge))) is not None
            and known.judged_at <= judgement.judged_at
        }
        before = self._rescanned.get(key)
        if before is not None:
            if before.judgement.judged_at > judgement.judged_at:
                return
            instead_of |= {before.judgement.judge, *before.instead_of}
        _remember(self._rescanned, key, _Rescanned(judgement, frozenset(instead_of)), self._known_entries)

    def _resolve(self, scan_id: str, outcome: Judgement | ImageFailed) -> None:
        waiting = self._waiting.pop(scan_id, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(outcome)

    def _note_scanner(self, announced: ScannerAnnounced) -> None:
        # Old announcements are read again at start: their age counts. A clock that is ahead of ours must not
        # make a scanner that is gone look alive for longer.
        age_s = max(0.0, (now_ms() - announced.announced_at) / 1000)
        counts = bool(announced.policies)  # a shadow judges for nobody
        if announced.leaving or not announced.healthy or not counts or age_s >= ANNOUNCED_WITHIN_S:
            self._scanners.pop(announced.scanner, None)
            return
        self._scanners[announced.scanner] = _Scanner(
            {tenant: _judge(announced.models, policy) for tenant, policy in announced.policies.items()},
            self._monotonic() + ANNOUNCED_WITHIN_S - age_s,
        )

    def _living(self) -> list[_Scanner]:
        now = self._monotonic()
        gone = [name for name, scanner in self._scanners.items() if scanner.until <= now]
        for name in gone:
            log.info("scanner not heard of", scanner=name, for_s=math.floor(ANNOUNCED_WITHIN_S))
            del self._scanners[name]
        return list(self._scanners.values())


def _json(value: object) -> bytes:
    """`value` as JSON, copied: orjson's own bytes are a large block cut down, kept among the frames that come and go.

    A hundred thousand of those kept for long left holes too small for the next frames: 9 KB of memory an image.
    """
    return bytes(bytearray(orjson.dumps(value)))


def _is_older(judgement: Judgement, known: Judgement | None) -> bool:
    return known is not None and judgement.judged_at < known.judged_at


def _judge(models: Mapping[str, str], policy: str) -> Judge:
    return Judge(tuple(sorted(models.items())), policy)


def _remember(memory: OrderedDict[_Key, _Value], key: _Key, value: _Value, most: int) -> None:
    memory[key] = value
    memory.move_to_end(key)
    while len(memory) > most:
        memory.popitem(last=False)
