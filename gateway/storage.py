"""What a gateway keeps on disk: its own slot of the spool folder, and what dead gateways left in theirs."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog

from gateway.settings import GatewaySettings
from gateway.spool.segments import SegmentLog
from gateway.spool.slots import Slot, adopt_orphans, claim_slot
from gateway.spool.spool import Spool

log = structlog.get_logger("gateway.storage")

_ANSWER_BYTES = 600
"""More than an entry of the ledger takes; the journal has room for as many as the ledger may hold."""


@dataclass(frozen=True, slots=True)
class Shelf:
    """One slot's content: frames that wait for Kafka, and the journal of answers."""

    frames: Spool
    journal: SegmentLog


@dataclass(frozen=True, slots=True)
class Storage:
    """`own` takes what comes; `left` is what dead gateways left: to be emptied, never added to."""

    own: Shelf
    left: tuple[Shelf, ...]

    @property
    def images(self) -> int:
        """Images on disk that wait for Kafka."""
        return sum(shelf.frames.count for shelf in (self.own, *self.left))

    @property
    def size(self) -> int:
        """Bytes of them."""
        return sum(shelf.frames.size for shelf in (self.own, *self.left))

    @property
    def oldest_at_ms(self) -> int | None:
        """When the first of them was written."""
        times = [shelf.frames.oldest_at_ms for shelf in (self.own, *self.left)]
        return min((at for at in times if at is not None), default=None)


@asynccontextmanager
async def open_storage(settings: GatewaySettings) -> AsyncIterator[Storage]:
    """The storage of one gateway in `settings.spool_dir`, closed at the end. Raises `SpoolUnusable`."""
    assert settings.spool_dir is not None, "Settings derive it from data_dir"
    async with contextlib.AsyncExitStack() as opened:
        slots = [await asyncio.to_thread(claim_slot, settings.spool_dir)]
        opened.callback(slots[0].release)
        for orphan in await asyncio.to_thread(adopt_orphans, settings.spool_dir):
            opened.callback(orphan.release)
            slots.append(orphan)
        shelves = [await _open_shelf(slot, settings, opened) for slot in slots]
        storage = Storage(shelves[0], tuple(shelves[1:]))
        if storage.images:
            log.info("images wait on disk", images=storage.images, slots=len(shelves))
        yield storage


async def _open_shelf(slot: Slot, settings: GatewaySettings, opened: contextlib.AsyncExitStack) -> Shelf:
    frames = await opened.enter_async_context(
        Spool(slot.path, max_bytes=settings.spool_max_bytes, max_age_s=settings.spool_max_age_h * 3600)
    )
    journal = SegmentLog(slot.path / "answers", max_bytes=settings.ledger_entries * _ANSWER_BYTES, sync=False)
    await asyncio.to_thread(journal.open)
    opened.callback(journal.close)
    return Shelf(frames, journal)
