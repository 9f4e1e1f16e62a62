"""The spool as the event loop sees it: parcels in, fsynced; parcels out, in order, as Kafka takes them."""

import asyncio
import os
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self, TypeVar

import structlog
from structlog.contextvars import bind_contextvars

from gateway.spool.errors import ParcelUnreadable, SpoolError, SpoolFailed, SpoolUnusable
from gateway.spool.parcels import Parcel
from gateway.spool.segments import SegmentLog, sync_folder
from schemas.broker import BrokerError, PublishRefused
from schemas.topics import MAX_MESSAGE_BYTES

log = structlog.get_logger("gateway.spool")

_GROUP = 32  # parcels that share an fsync: at most that many MiB in one segment
_RETRY_FIRST_S = 0.5
_RETRY_MOST_S = 10.0

_T = TypeVar("_T")


class _Arrival(NamedTuple):
    parcel: Parcel
    sequence: Future[int]


class Spool:
    """Parcels in a `SegmentLog` in ``folder/frames``, at most `max_bytes` with what is in ``folder/refused``.

    Everything that touches the disk runs in one thread of the spool's own; parcels that arrive while it writes share
    the next fsync. A parcel that Kafka refuses for good, or that this release cannot read, is moved to
    ``folder/refused``, as ``<sequence>.refused`` or ``.unreadable`` (the bytes of `Parcel.to_bytes`), with a log line;
    nothing deletes it there. Also an async context manager.
    """

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        self._refused = folder / "refused"
        self._log = SegmentLog(folder / "frames", max_bytes=max_bytes, sync=True)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spool")
        self._open = False
        self._arrivals: deque[_Arrival] = deque()
        self._more = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.refused_count = 0

    @property
    def count(self) -> int:
        """Parcels that wait."""
        return self._log.count

    @property
    def size(self) -> int:
        """Bytes on disk, without those set aside."""
        return self._log.size

    @property
    def full(self) -> bool:
        """Whether the largest parcel there may be would not fit."""
        return self._log.size + MAX_MESSAGE_BYTES > self._log.max_bytes

    @property
    def max_bytes(self) -> int:
        """Bytes that may be on disk."""
        return self._log.max_bytes

    @property
    def oldest_at_ms(self) -> int | None:
        """When the first of those that wait was written (milliseconds since the epoch)."""
        return self._log.oldest_at_ms

    async def start(self) -> None:
        """Read what an earlier process left. Raises `SpoolUnusable`."""
        self._loop = asyncio.get_running_loop()
        await self._loop.run_in_executor(self._thread, self._recover)
        self._open = True

    async def stop(self) -> None:
        """Finish what is being written and close. What waits stays for the next start; end `drain` first."""
        self._open = False
        await asyncio.to_thread(self._thread.shutdown)
        self._log.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def append(self, parcel: Parcel) -> int:
        """Keep `parcel`; its sequence number. When this returns, it survives a power failure.

        Raises `SpoolFull` or `SpoolFailed`: the parcel is not there then. Cancelled, it may or may not be there.
        """
        if not self._open:
            raise SpoolFailed("the spool is not open")
        arrival = _Arrival(parcel, Future())
        self._arrivals.append(arrival)
        self._thread.submit(self._write_group)
        return await asyncio.wrap_future(arrival.sequence)

    async def drain(
        self, publish: Callable[[Parcel], Awaitable[object]], *, concurrency: int = 8, until_empty: bool = False
    ) -> None:
        """Hand every parcel to `publish`, the oldest first, `concurrency` at a time; for ever, or `until_empty`.

        A parcel is released exactly when its `publish` returned, so that one may be published twice, never not at
        all. `PublishRefused` sets it aside; any other exception is logged and it is tried again. One drain at a time;
        cancelled, it can be called again.
        """
        free = asyncio.Semaphore(concurrency)
        position = -1
        async with asyncio.TaskGroup() as publishing:
            while True:
                await free.acquire()
                found = await self._find_next(position, wait=not until_empty)
                if found is None:
                    return
                position, parcel = found
                task = publishing.create_task(self._publish(position, parcel, publish))
                task.add_done_callback(lambda _: free.release())

    async def _find_next(self, position: int, *, wait: bool) -> tuple[int, Parcel] | None:
        while True:
            self._more.clear()
            try:
                found = await self._run(self._next_after, position)
            except SpoolFailed as error:
                log.warning("the spool cannot be read, trying again", error=str(error))
                await asyncio.sleep(_RETRY_FIRST_S)
                continue
            if found is not None or not wait:
                return found
            await self._more.wait()

    async def _publish(self, sequence: int, parcel: Parcel, publish: Callable[[Parcel], Awaitable[object]]) -> None:
        bind_contextvars(scan_id=getattr(parcel.message, "scan_id", ""))  # of this parcel's task
        pause = _RETRY_FIRST_S
        while True:
            try:
                await publish(parcel)
            except PublishRefused as error:
                context = copy_context()  # with the scan id, for its log line
                await self._run(context.run, self._set_aside, sequence, parcel.to_bytes(), "refused", str(error))
                return
            except BrokerError as error:
                log.warning("a spooled image is not published, trying again", sequence=sequence, error=str(error))
            except Exception:  # the edge of a task: whatever it was, the image must not be lost by it
                log.exception("a spooled image is not published, trying again", sequence=sequence)
            else:
                # Shielded: a cancellation must not come between.
                await asyncio.shield(self._run(self._log.release, sequence))
                return
            await asyncio.sleep(pause)
            pause = min(pause * 2, _RETRY_MOST_S)

    async def _run(self, work: Callable[..., _T], *arguments: object) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    # What follows runs in the spool's thread.

    def _recover(self) -> None:
        self._log.open()
        try:
            self._refused.mkdir(mode=0o700, exist_ok=True)
            sizes = [path.stat().st_size for path in self._refused.iterdir()]
        except OSError as error:
            raise SpoolUnusable(self._refused, error) from error
        self.refused_count = len(sizes)
        self._log.max_bytes -= sum(sizes)
        if self._log.count:
            log.info("images wait on disk", folder=str(self._refused.parent), count=self._log.count)

    def _write_group(self) -> None:
        """Write what has arrived by now; an earlier call may have taken it along already."""
        group: list[_Arrival] = []
        while self._arrivals and len(group) < _GROUP:
            arrival = self._arrivals.popleft()
            if arrival.sequence.set_running_or_notify_cancel():
                group.append(arrival)
        try:
            outcomes = self._append([arrival.parcel.to_bytes() for arrival in group])
        except BaseException as error:  # nobody but those who wait would hear of it
            for arrival in group:
                arrival.sequence.set_exception(error)
            raise
        for arrival, outcome in zip(group, outcomes, strict=True):
            if isinstance(outcome, SpoolError):
                arrival.sequence.set_exception(outcome)
            else:
                arrival.sequence.set_result(outcome)
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._more.set)

    def _append(self, payloads: list[bytes]) -> list[int | SpoolError]:
        try:
            return list(self._log.append_many(payloads))
        except SpoolError as error:
            if len(payloads) == 1:
                return [error]
            # There may be room for some of them.
            return [outcome for payload in payloads for outcome in self._append([payload])]

    def _next_after(self, position: int) -> tuple[int, Parcel] | None:
        while (entry := self._log.next_after(position)) is not None:
            position = entry.sequence
            try:
                return position, Parcel.from_bytes(entry.payload)
            except ParcelUnreadable as error:
                self._set_aside(position, entry.payload, "unreadable", str(error))
        return None

    def _set_aside(self, sequence: int, payload: bytes, reason: str, detail: str) -> None:
        path = self._refused / f"{sequence:020d}.{reason}"
        try:
            _write_durably(path, payload)
        except OSError as error:
            log.error("a spooled image is not published and cannot be set aside", sequence=sequence, error=str(error))
            return
        self._log.release(sequence)
        self._log.max_bytes -= len(payload)
        self.refused_count += 1
        log.error("a spooled image is set aside and will not be judged", file=str(path), reason=detail)


def _write_durably(path: Path, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(fd)
    sync_folder(path.parent)
