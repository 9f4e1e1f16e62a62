"""The ledger: every answer goes to the topic answers, behind the reply's back and never lost silently."""

import asyncio
import contextlib

import structlog

from schemas.broker import BrokerError, Producer
from schemas.messages import AnswerGiven
from schemas.topics import ANSWERS

log = structlog.get_logger("gateway.ledger")

_GATHER_S = 0.1  # nobody waits for an entry: a few dozen in one request cost Kafka and us what one does
_BATCH = 200


class Ledger:
    """A bounded queue of answers and the task that publishes them, some at a time.

    When `full`, the gateway takes no further request: it would have to forget what it let through. Order between
    answers is not kept (each carries its time).
    """

    def __init__(self, producer: Producer, *, most: int) -> None:
        self._producer = producer
        self._most = most
        self._queue: asyncio.Queue[AnswerGiven] = asyncio.Queue()
        self._in_hand = 0
        self._hurry = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Answers that Kafka does not have yet."""
        return self._queue.qsize() + self._in_hand

    @property
    def full(self) -> bool:
        """Whether the bound is reached."""
        return self.waiting >= self._most

    def start(self) -> None:
        """Begin to publish."""
        self._writer = asyncio.create_task(self._write(), name="ledger")

    def record(self, answer: AnswerGiven) -> None:
        """Take in one answer; returns at once."""
        self._queue.put_nowait(answer)

    async def flush(self, within_s: float) -> int:
        """Wait until everything is published, for at most `within_s` seconds; then stop. How many were lost."""
        self._hurry.set()
        with contextlib.suppress(TimeoutError):  # what is left is counted
            async with asyncio.timeout(within_s):
                await self._queue.join()
        lost = self.waiting
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.gather(self._writer, return_exceptions=True)
        if lost:
            log.error("answers not recorded", count=lost)
        return lost

    async def _write(self) -> None:
        while True:
            batch = [await self._queue.get()]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_GATHER_S):
                    await self._hurry.wait()
            while len(batch) < _BATCH and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            self._in_hand = len(batch)
            await asyncio.gather(*(self._publish(answer) for answer in batch))

    async def _publish(self, answer: AnswerGiven) -> None:
        try:
            await self._producer.publish(ANSWERS, answer, key=answer.sha256)
        except BrokerError as error:
            log.error("answer cannot be recorded", scan_id=answer.scan_id, error=str(error))
        finally:
            self._in_hand -= 1
            self._queue.task_done()
