"""The overrides in force, as the topic tells of them, and which of them an image meets."""

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

import structlog

from gateway.frames.frame import QUALITY_LEAST
from schemas.broker import Received
from schemas.clock import now_ms
from schemas.messages import EVERY_TENANT, OverrideEffect, OverrideKind, OverrideSet, Verdict

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

log = structlog.get_logger("gateway.overrides")

PDQ_BYTES = 32
_WORDS = 4  # of 64 bits in a hash


class Looks(NamedTuple):
    """The PDQ hashes of an image's frames that are fit for matching, end to end; `complete` when all of them are."""

    hashes: bytes
    complete: bool

    def each(self) -> tuple[bytes, ...]:
        """The hashes one by one, each once."""
        starts = range(0, len(self.hashes), PDQ_BYTES)
        return tuple(dict.fromkeys(self.hashes[start : start + PDQ_BYTES] for start in starts))


NO_LOOKS = Looks(b"", complete=False)


def looks_of(frames: Iterable[tuple[bytes, int]]) -> Looks:
    """What of an image's frames, each a PDQ hash and its quality, can be matched."""
    all_ = list(frames)
    fit = [pdq for pdq, quality in all_ if quality >= QUALITY_LEAST]
    return Looks(b"".join(fit), complete=bool(fit) and len(fit) == len(all_))


def looks_in(verdict: Verdict) -> Looks:
    """What of the frames that `verdict` is about can be matched; nothing, where it does not say how good they are."""
    return looks_of(zip(verdict.pdq, verdict.pdq_quality, strict=False))


class Overrides:
    """Every override there is. `observe` is handed each record of the topic, from its beginning.

    A tenant's own override goes before one for every tenant, and bytes go before looks. Of the overrides by PDQ the
    nearest counts, the latest of two as near. An image is denied when any of its frames is, and allowed when every
    frame is: one harmless frame must not let in a whole film. `clock` is in milliseconds since the epoch.
    """

    def __init__(self, *, clock: Callable[[], int] = now_ms) -> None:
        self._clock = clock
        self._by_id: dict[str, OverrideSet] = {}
        self._by_bytes: dict[tuple[str, bytes], OverrideSet] = {}
        self._by_look: dict[str, OverrideSet] = {}
        self._stale = False
        self._rows: tuple[OverrideSet, ...] = ()
        self._matrix: NDArray[np.uint64]
        self._distances: NDArray[np.uint16]
        self._seen = -1
        self._moved = asyncio.Event()

    def __len__(self) -> int:
        return len(self._by_id)

    def standing(self) -> list[OverrideSet]:
        """All that stand in the topic, the expired among them; the latest first."""
        return sorted(self._by_id.values(), key=lambda each: each.set_at, reverse=True)

    def get(self, override_id: str) -> OverrideSet | None:
        """The override of this id, expired or not."""
        return self._by_id.get(override_id)

    def observe(self, received: Received) -> None:
        """Take in one record of the topic; what is none of its messages is logged and passed over."""
        override, key = received.message, (received.key or b"").decode("ascii", "replace")
        if isinstance(override, OverrideSet) and override.override_id == key:
            self._put(override)
        elif override is None and received.fault is None:
            self._drop(key)
        else:
            fault = str(received.fault or "a record whose key is not its override's id")
            log.warning("override_unreadable", offset=received.offset, fault=fault)
        self._seen = received.offset
        self._moved.set()

    async def reached(self, offset: int, within_s: float) -> bool:
        """Wait until the record at `offset` was observed; False when that takes longer than so many seconds."""
        try:
            async with asyncio.timeout(within_s):
                while self._seen < offset:
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            return False
        return True

    def of_bytes(self, tenant: str, sha256: bytes) -> OverrideSet | None:
        """What holds now for a file of `tenant`, by its bytes alone."""
        for whose in (tenant, EVERY_TENANT):
            override = self._by_bytes.get((whose, sha256))
            if override is not None and override.holds(self._clock()):
                return override
        return None

    def of_looks(self, tenant: str, looks: Looks) -> OverrideSet | None:
        """What holds now for an image of `tenant`, by its frames."""
        if not self._by_look or not looks.hashes:
            return None
        import numpy as np  # 25 MB that a gateway without such overrides does without

        if self._stale:
            self._lay_out()
        frames = np.frombuffer(looks.hashes, np.uint64).reshape(-1, _WORDS)
        apart = np.bitwise_count(frames[:, None, :] ^ self._matrix[None, :, :]).sum(axis=2, dtype=np.uint16)
        near = apart <= self._distances
        met = [self._nearest(tenant, np.flatnonzero(row), apart[frame]) for frame, row in enumerate(near)]
        denials = [each for each in met if each is not None and each.effect is OverrideEffect.DENY]
        if denials:
            return denials[0]
        return met[0] if looks.complete and None not in met else None

    def of_image(self, tenant: str, sha256: bytes, looks: Looks) -> OverrideSet | None:
        """What holds now for an image of `tenant`: by its bytes, else by its frames."""
        return self.of_bytes(tenant, sha256) or self.of_looks(tenant, looks)

    def _nearest(self, tenant: str, rows: "NDArray[np.intp]", apart: "NDArray[np.uint16]") -> OverrideSet | None:
        now = self._clock()
        candidates = [
            (self._rows[row].tenant == EVERY_TENANT, int(apart[row]), -self._rows[row].set_at, row)
            for row in rows.tolist()
            if self._rows[row].tenant in (tenant, EVERY_TENANT) and self._rows[row].holds(now)
        ]
        return self._rows[min(candidates)[3]] if candidates else None

    def _put(self, override: OverrideSet) -> None:
        self._by_id[override.override_id] = override
        if override.kind is OverrideKind.SHA256:
            self._by_bytes[override.tenant, override.hash] = override
        else:
            self._by_look[override.override_id] = override
            self._stale = True

    def _drop(self, override_id: str) -> None:
        override = self._by_id.pop(override_id, None)
        if override is None:
            return
        if override.kind is OverrideKind.SHA256:
            del self._by_bytes[override.tenant, override.hash]
        else:
            del self._by_look[override_id]
            self._stale = True

    def _lay_out(self) -> None:
        import numpy as np

        self._rows = tuple(self._by_look.values())
        hashes = b"".join(each.hash for each in self._rows)
        self._matrix = np.frombuffer(hashes, np.uint64).reshape(-1, _WORDS)
        self._distances = np.array([each.distance for each in self._rows], np.uint16)
        self._stale = False


def explain(override: OverrideSet) -> str:
    """An override in words: what it says, by what, and whose word it is."""
    by = "bytes" if override.kind is OverrideKind.SHA256 else f"look (within {override.distance} bits)"
    return f"{override.effect} by {by}, {override.override_id}: {override.set_by}: {override.reason}"
