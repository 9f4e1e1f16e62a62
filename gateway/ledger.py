"""The ledger: every answer goes to the topic answers, and to a journal on disk until it is there."""

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import structlog

from gateway.spool.errors import ParcelUnreadable, SpoolError
from gateway.spool.parcels import Parcel
from gateway.spool.segments import SegmentLog
from schemas.broker import BrokerError, Producer
from schemas.messages import AnswerGiven
from schemas.topics import ANSWERS

log = structlog.get_logger("gateway.ledger")

_GATHER_S = 0.1  # nobody waits for an entry: a few dozen in one request cost Kafka and us what one does
_BATCH = 200


class _Entry(NamedTuple):
    answer: AnswerGiven
    release: Callable[[], None] | None
    """Takes it out of its journal; None where none could be written."""


class Ledger:
    """A bounded queue of answers and the task that publishes them, some at a time.

    An answer is in the `journal` when `record` returns, before its reply leaves: a gateway that is killed leaves it to
    the next one, which publishes it (perhaps a second time; readers go by scan id). When the disk takes nothing, the
    journal is done without, and a killed gateway's last entries are lost. When `full`, the gateway takes no further
    request: it would have to forget what it let through. Order between answers is not kept (each carries its time).
    """

    def __init__(self, producer: Producer, *, journal: SegmentLog, most: int) -> None:
        self._producer = producer
        self._journal = journal
        self._most = most
        self._queue: asyncio.Queue[_Entry] = asyncio.Queue()
        self._in_hand = 0
        self._hurry = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None
        self._journal_fails = False

    @property
    def waiting(self) -> int:
        """Answers that Kafka does not have yet."""
        return self._queue.qsize() + self._in_hand

    @property
    def full(self) -> bool:
        """Whether the bound is reached."""
        return self.waiting >= self._most

    async def restore(self, journal: SegmentLog) -> None:
        """Take over what `journal` holds: this gateway's, before the first `record`, or a dead gateway's."""
        for entry in await asyncio.to_thread(lambda: list(journal.pending())):
            try:
                answer = Parcel.from_bytes(entry.payload).message
            except ParcelUnreadable as error:
                log.error("a journalled answer cannot be read, passing it", sequence=entry.sequence, error=str(error))
                journal.release(entry.sequence)
                continue
            if isinstance(answer, AnswerGiven):
                self._queue.put_nowait(_Entry(answer, partial(journal.release, entry.sequence)))

    def start(self) -> asyncio.Task[None]:
        """Begin to publish. The task ends by `flush`, or by a fault of ours."""
        self._writer = asyncio.create_task(self._write(), name="ledger")
        return self._writer

    def record(self, answer: AnswerGiven) -> None:
        """Take in one answer; returns at once. (A write to the page cache: 20 microseconds, no fsync.)"""
        release = None
        try:
            sequence = self._journal.append(Parcel(ANSWERS, answer, answer.sha256).to_bytes())
            release = partial(self._journal.release, sequence)
            self._journal_fails = False
        except SpoolError as error:
            if not self._journal_fails:  # one line, however many follow
                log.error("answers are not journalled: a killed gateway would lose them", error=str(error))
            self._journal_fails = True
        self._queue.put_nowait(_Entry(answer, release))

    async def flush(self, within_s: float) -> int:
        """Wait until everything is published, for at most `within_s` seconds; then stop. How many Kafka lacks.

        Those stay in the journal for the next start.
        """
        self._hurry.set()
        with contextlib.suppress(TimeoutError):  # what is left is counted
            async with asyncio.timeout(within_s):
                await self._queue.join()
        left = self.waiting
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.gather(self._writer, return_exceptions=True)
        return left

    async def _write(self) -> None:
        while True:
            batch = [await self._queue.get()]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_GATHER_S):
                    await self._hurry.wait()
            while len(batch) < _BATCH and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            self._in_hand = len(batch)
            await asyncio.gather(*(self._publish(entry) for entry in batch))

    async def _publish(self, entry: _Entry) -> None:
        try:
            await self._producer.publish(ANSWERS, entry.answer, key=entry.answer.sha256)
            if entry.release is not None:
                entry.release()
        except BrokerError as error:
            log.error("answer cannot be recorded", scan_id=entry.answer.scan_id, error=str(error))
        finally:
            self._in_hand -= 1
            self._queue.task_done()
