"""The gateway's end of one worker process: one job at a time over its socket."""

import asyncio
import contextlib
import os
import secrets
import signal
import socket
from collections.abc import Callable
from typing import Any

import msgpack

from gateway.frames.nursery import Nursery
from gateway.frames.worker import HEADER, JOB
from schemas.topics import FRAMES_MAX_BYTES

Answer = dict[str, Any]
"""A worker's answer, as `gateway.frames.worker` describes it."""

_LONGEST_ANSWER = 2 * FRAMES_MAX_BYTES  # a worker that hostile bytes run in must not make us take in more
_LONGEST_LIST = 64  # nor build more of it: its maps and lists are short
_READ_BYTES = 1 << 18


class WorkerDied(Exception):
    """The worker ended, or was killed, before it answered; `overtime` when it was for taking too long."""

    def __init__(self, *, overtime: bool = False) -> None:
        super().__init__("overtime" if overtime else "the worker ended")
        self.overtime = overtime


class WorkerLink:
    """Owns the socket and the pidfd. `on_end` is called once when the worker is gone while it has no job."""

    def __init__(
        self,
        nursery: Nursery,
        connection: socket.socket,
        pid: int,
        pidfd: int,
        on_end: Callable[["WorkerLink"], None],
    ) -> None:
        self.nursery = nursery
        self.pid = pid
        self.jobs = 0
        self.closed = False
        self._connection = connection
        self._pidfd = pidfd
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._received = bytearray()
        self._job: int | None = None
        self._pending: asyncio.Future[Answer] | None = None
        self._timer: asyncio.TimerHandle | None = None
        connection.setblocking(False)
        self._loop.add_reader(connection, self._read)

    def send(self, fd: int, length: int, wall_s: float) -> bool:
        """Gives the worker its next job; it is killed when `wall_s` seconds bring no answer.

        False when the worker is gone already: then the job has not begun.
        """
        if self.closed:
            return False
        self._job = secrets.randbits(64)
        try:
            socket.send_fds(self._connection, [JOB.pack(length, self._job)], [fd])
        except OSError:
            return False
        self.jobs += 1
        self._expect(wall_s)
        return True

    @property
    def has_job(self) -> bool:
        """Whether an answer is still to come."""
        return self._pending is not None

    def expect_greeting(self, wall_s: float) -> None:
        """Has `answer` wait for what a new worker says first."""
        self._expect(wall_s)

    def _expect(self, wall_s: float) -> None:
        self._pending = self._loop.create_future()
        self._timer = self._loop.call_later(wall_s, self._overtime)

    async def answer(self) -> Answer:
        """What comes back for the job that was sent. Raises `WorkerDied`. Being cancelled leaves the job going."""
        assert self._pending is not None, "answer() comes after send()"
        return await asyncio.shield(self._pending)

    def close(self) -> None:
        """Kills the worker; an outstanding answer raises `WorkerDied`."""
        if self.closed:
            return
        self._finish(WorkerDied())
        self.closed = True
        self._loop.remove_reader(self._connection)
        self._connection.close()
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        os.close(self._pidfd)

    def _overtime(self) -> None:
        self._finish(WorkerDied(overtime=True))
        self.close()

    def _read(self) -> None:
        try:
            chunk = self._connection.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        if not chunk:
            self._gone()
            return
        self._received += chunk
        if len(self._received) < HEADER.size:
            return
        (length,) = HEADER.unpack_from(self._received)
        if length > _LONGEST_ANSWER or len(self._received) > HEADER.size + length or self._pending is None:
            self._gone()  # it does not keep to the protocol: whatever runs there is no longer ours
        elif len(self._received) == HEADER.size + length:
            try:
                packed = memoryview(self._received)[HEADER.size :]
                answer = msgpack.unpackb(packed, max_array_len=_LONGEST_LIST, max_map_len=_LONGEST_LIST)
                if not isinstance(answer, dict) or answer.get("job") != self._job:
                    raise ValueError("an answer is a map, and of this job")
            except (ValueError, msgpack.UnpackException):
                self._gone()
                return
            self._received = bytearray()
            self._finish(answer)

    def _gone(self) -> None:
        waited_for = self._pending is not None
        self.close()
        if not waited_for:
            self._on_end(self)

    def _finish(self, outcome: Answer | WorkerDied) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        pending, self._pending = self._pending, None
        if pending is None or pending.done():
            return
        if isinstance(outcome, WorkerDied):
            pending.set_exception(outcome)
            pending.exception()  # nobody may be waiting any more
        else:
            pending.set_result(outcome)
