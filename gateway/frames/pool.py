"""The gateway's side of frame extraction: jobs in order of arrival to sandboxed worker processes.

What goes wrong with a file stays with that file: a worker that hangs, dies or eats memory is killed and replaced, its
job gets `Unreadable`, and the others go on. Everything here runs on the event loop, a few system calls a job.
"""

import asyncio
import collections
import contextlib
import signal

import structlog

from gateway.frames.frame import FrameSet, Unreadable, UnreadableReason
from gateway.frames.link import Answer, WorkerDied, WorkerLink
from gateway.frames.nursery import Nursery, NurseryDied
from gateway.frames.sandbox import Protections
from gateway.frames.settings import FrameSettings
from gateway.frames.worker import unpack

_log = structlog.get_logger("gateway.frames")
_ABANDONED_S = 0.25  # what a job whose caller has gone may still take before its worker is killed
_START_S = 30.0
_DETAIL_MOST = 200
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0
_ORPHANED_MOST = 3  # then a job is taken for what ends them all


class PoolStopped(RuntimeError):
    """A job was given to a pool that is not started, or is stopping."""


class _KilledByOthers(Exception):
    """A worker was killed, and not by us: out of memory, an operator. Worth one more try."""


class _Orphaned(Exception):
    """What all workers were forked from has ended, and they with it: that says nothing about a job."""


class FramePool:
    """A fixed number of worker processes with a queue before them.

    `extractor` names the function that workers call, "module:function"; it is there for tests with planted faults.
    """

    def __init__(self, settings: FrameSettings, *, extractor: str = "gateway.frames.extract:extract") -> None:
        self._settings = settings
        self._extractor = extractor
        self._nursery: Nursery | None = None
        self._workers: set[WorkerLink] = set()
        self._idle: list[WorkerLink] = []
        self._waiting: collections.deque[asyncio.Future[WorkerLink]] = collections.deque()
        self._short = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._goodbyes: set[asyncio.Task[None]] = set()
        self._running = False
        self.protections: Protections | None = None
        """What holds of the sandbox in this machine's workers; None until `start` has returned."""

    @property
    def ready(self) -> bool:
        """Whether at least one worker is there to take jobs."""
        return self._running and bool(self._workers)

    @property
    def queued(self) -> int:
        """How many jobs wait for a free worker."""
        return sum(not future.done() for future in self._waiting)

    @property
    def busy(self) -> int:
        """How many workers have a job."""
        return len(self._workers) - len(self._idle)

    async def start(self) -> None:
        """Starts the workers; raises RuntimeError when they do not come up (the message says why)."""
        self._running = True
        try:
            while len(self._workers) < self._settings.workers:
                await self._hire()
        except (OSError, TimeoutError, NurseryDied, WorkerDied) as error:
            await self.stop()
            raise RuntimeError(f"the frame workers do not start: {type(error).__name__}: {error}") from error
        self._keeper = asyncio.get_running_loop().create_task(self._keep())
        shut_in = self.protections
        assert shut_in is not None
        log = _log.info if shut_in.complete else _log.warning
        log("frame_workers_started", workers=len(self._workers), missing=shut_in.missing, **shut_in.as_dict())

    async def stop(self) -> None:
        """Ends every process; jobs under way and in the queue get `PoolStopped`. Leaves nothing behind."""
        self._running = False
        tasks = [task for task in (self._keeper, *self._goodbyes) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_exception(PoolStopped("the frame workers are stopping"))
        for worker in list(self._workers):
            self._dismiss(worker)
        if self._nursery is not None:
            nursery, self._nursery = self._nursery, None
            await nursery.close()

    async def extract(self, fd: int, length: int) -> FrameSet:
        """The frames of the `length` bytes behind `fd`, a readable memfd or file, read from offset 0.

        Jobs start in order of arrival. The descriptor may be closed as soon as this returns or raises. Raises
        `Unreadable` with the reason, `PoolStopped` when the pool is not running. When the caller is cancelled, its
        worker is free again within a quarter of a second.
        """
        tries: dict[type[Exception], int] = {_KilledByOthers: 1, _Orphaned: _ORPHANED_MOST}
        while True:
            try:
                return await self._attempt(fd, length)
            except (_KilledByOthers, _Orphaned) as ended:
                if not tries[type(ended)]:
                    raise Unreadable(UnreadableReason.DECODER_DIED, str(ended)) from None
                tries[type(ended)] -= 1

    async def _attempt(self, fd: int, length: int) -> FrameSet:
        worker = await self._take()
        while not worker.send(fd, length, self._settings.wall_s):
            self._dismiss(worker)
            worker = await self._take()
        try:
            answer = await worker.answer()
        except asyncio.CancelledError:
            self._see_off(worker)
            raise
        except WorkerDied as died:
            self._dismiss(worker)
            raise await self._explain(worker, died) from None
        return self._read(worker, answer)

    async def _take(self) -> WorkerLink:
        """A free worker, in order of arrival."""
        if not self._running:
            raise PoolStopped("the frame workers are not running")
        while self._idle:
            worker = self._idle.pop()
            if not worker.nursery.closed:
                return worker
            self._dismiss(worker)
        future: asyncio.Future[WorkerLink] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                self._offer(future.result())
            raise

    def _offer(self, worker: WorkerLink) -> None:
        """Hands a free worker to the job that has waited longest, if any; one that is about to end is dismissed."""
        if worker.nursery.closed:
            self._dismiss(worker)
            return
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(worker)
                return
        self._idle.append(worker)

    def _read(self, worker: WorkerLink, answer: Answer) -> FrameSet:
        """Frees the worker and gives what its answer says."""
        try:
            resident = int(answer["rss"])
            if "reason" in answer:
                detail = str(answer["detail"])[:_DETAIL_MOST]
                outcome: FrameSet | Unreadable = Unreadable(UnreadableReason(answer["reason"]), detail)
            else:
                outcome = unpack(answer["frames"])
        except (KeyError, ValueError, TypeError, OverflowError) as error:
            self._dismiss(worker)
            _log.error("frame_worker_talks_nonsense", pid=worker.pid, error=repr(error))
            raise Unreadable(UnreadableReason.DECODER_DIED, "the decoder's answer makes no sense") from None
        worn = worker.jobs >= self._settings.jobs_per_worker
        if worn or resident > self._settings.recycle_mb << 20 or not self._running:
            self._dismiss(worker)
        else:
            self._offer(worker)
        if isinstance(outcome, Unreadable):
            raise outcome
        return outcome

    def _see_off(self, worker: WorkerLink) -> None:
        """Lets an abandoned job end by itself for a moment, then by force."""

        async def wait() -> None:
            try:
                async with asyncio.timeout(_ABANDONED_S):
                    answer = await worker.answer()
            except (TimeoutError, WorkerDied):
                self._dismiss(worker)
            else:
                with contextlib.suppress(Unreadable):
                    self._read(worker, answer)

        if worker.closed or not self._running:
            self._dismiss(worker)
            return
        if not worker.has_job:  # its answer came as the caller left
            self._offer(worker)
            return
        task = asyncio.get_running_loop().create_task(wait())
        self._goodbyes.add(task)
        task.add_done_callback(self._goodbyes.discard)

    async def _explain(self, worker: WorkerLink, died: WorkerDied) -> Exception:
        """What the death of a worker says about its job."""
        if not self._running:
            return PoolStopped("the frame workers are stopping")
        if died.overtime:
            _log.warning("frame_worker_killed", pid=worker.pid, wall_s=self._settings.wall_s)
            return Unreadable(UnreadableReason.TOO_SLOW, f"no answer within {self._settings.wall_s:g} s")
        status = await worker.nursery.status_of(worker.pid)
        _log.warning("frame_worker_died", pid=worker.pid, status=status, orphaned=worker.nursery.closed)
        if status is None and worker.nursery.closed:
            return _Orphaned("the decoders ended again and again")
        if status is None or status == -signal.SIGKILL:
            return _KilledByOthers(f"the decoder ended: {_ending(status)}")
        if status == -signal.SIGXCPU:
            return Unreadable(UnreadableReason.TOO_SLOW, "the decoder used up its processor time")
        return Unreadable(UnreadableReason.DECODER_DIED, f"the decoder ended: {_ending(status)}")

    def _dismiss(self, worker: WorkerLink) -> None:
        """Ends a worker for good and has the keeper replace it."""
        self._workers.discard(worker)
        if worker in self._idle:
            self._idle.remove(worker)
        worker.close()
        self._short.set()

    async def _keep(self) -> None:
        """Brings the number of workers back up whenever one is gone."""
        pause = _FIRST_PAUSE_S
        while True:
            await self._short.wait()
            self._short.clear()
            try:
                while len(self._workers) < self._settings.workers:
                    await self._hire()
                pause = _FIRST_PAUSE_S
            except (OSError, TimeoutError, NurseryDied, WorkerDied) as error:
                _log.error("frame_worker_not_replaced", error=repr(error), next_try_s=pause)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_S)
                self._short.set()

    async def _hire(self) -> None:
        if self._nursery is None or self._nursery.closed:
            if self._nursery is not None:
                await self._nursery.close()
            async with asyncio.timeout(_START_S):
                self._nursery = await Nursery.open(self._settings, self._extractor)
        async with asyncio.timeout(_START_S):  # wait_for may swallow a cancellation (Python 3.11), and stop would wait
            connection, pid, pidfd = await self._nursery.fork()
        worker = WorkerLink(self._nursery, connection, pid, pidfd, self._dismiss)
        try:
            worker.expect_greeting(_START_S)
            greeting = await worker.answer()
            self.protections = Protections(**greeting["protections"], missing=tuple(greeting["missing"]))
        except BaseException:
            worker.close()
            raise
        self._workers.add(worker)
        self._offer(worker)


def _ending(status: int | None) -> str:
    if status is None:
        return "it is not known how"
    if status < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-status).name
    return f"exit code {status}"
