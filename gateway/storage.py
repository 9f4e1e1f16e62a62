"""What a gateway keeps on disk: its own slot of the spool folder, and what dead gateways left in theirs."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from gateway.settings import GatewaySettings
from gateway.spool.segments import SegmentLog
from gateway.spool.slots import Slot, adopt_orphans, claim_slot
from gateway.spool.spool import Spool
from schemas.clock import now_ms

log = structlog.get_logger("gateway.storage")

_ANSWER_BYTES = 600
"""More than an entry of the ledger takes; the journal has room for as many as the ledger may hold."""


@dataclass(frozen=True, slots=True)
class Shelf:
    """One slot's content: frames that wait for Kafka, and the journal of answers."""

    frames: Spool
    journal: SegmentLog


class Storage:
    """`own` takes what comes; `left` is what dead gateways left: to be emptied, never added to. See `open_storage`."""

    def __init__(self, folder: Path, settings: GatewaySettings, opened: contextlib.AsyncExitStack, own: Shelf) -> None:
        self._folder = folder
        self._settings = settings
        self._opened = opened
        self.own = own
        self.left: list[Shelf] = []

    @property
    def images(self) -> int:
        """Images on disk that wait for Kafka."""
        return sum(shelf.frames.count for shelf in (self.own, *self.left))

    @property
    def size(self) -> int:
        """Bytes of them."""
        return sum(shelf.frames.size for shelf in (self.own, *self.left))

    @property
    def oldest_s(self) -> float:
        """How many seconds ago the first of them was written; 0 where none waits."""
        shelves = (self.own, *self.left)
        times = [at for shelf in shelves if shelf.frames.count and (at := shelf.frames.oldest_at_ms) is not None]
        return max(0.0, (now_ms() - min(times)) / 1000) if times else 0.0

    async def adopt(self) -> list[Shelf]:
        """Take over what gateways that died since the last call left; it stays ours. Raises `SpoolUnusable`."""
        adopted = []
        for slot in await asyncio.to_thread(adopt_orphans, self._folder):
            self._opened.callback(slot.release)
            shelf = await _open_shelf(slot, self._settings, self._opened)
            log.info("taking over what a gateway left", slot=str(slot.path), images=shelf.frames.count)
            adopted.append(shelf)
        self.left += adopted
        return adopted


@asynccontextmanager
async def open_storage(settings: GatewaySettings) -> AsyncIterator[Storage]:
    """The storage of one gateway in `settings.spool_dir`, closed at the end. Raises `SpoolUnusable`."""
    folder = settings.spool_dir
    assert folder is not None, "Settings derive it from data_dir"
    async with contextlib.AsyncExitStack() as opened:
        slot = await asyncio.to_thread(claim_slot, folder)
        opened.callback(slot.release)
        yield Storage(folder, settings, opened, await _open_shelf(slot, settings, opened))


async def _open_shelf(slot: Slot, settings: GatewaySettings, opened: contextlib.AsyncExitStack) -> Shelf:
    frames = await opened.enter_async_context(Spool(slot.path, max_bytes=settings.spool_max_bytes))
    journal = SegmentLog(slot.path / "answers", max_bytes=settings.ledger_entries * _ANSWER_BYTES, sync=False)
    await asyncio.to_thread(journal.open)
    opened.callback(journal.close)
    return Shelf(frames, journal)
