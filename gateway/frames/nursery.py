"""The gateway's handle on the process that workers are forked from (`gateway.frames.zygote`)."""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
from typing import Any, Self

from gateway.frames.settings import FrameSettings
from gateway.frames.zygote import MESSAGE_BYTES

_PASSED_ON = ("PATH", "PYTHONPATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "VIRTUAL_ENV")
# One thread, one malloc arena: a worker computes on one core, and arenas would eat up its address space.
_FIXED = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
_CLOSE_S = 5.0
_STATUS_S = 1.0


class NurseryDied(Exception):
    """The process that forks workers is gone or never came up; the message says what is known."""


class Nursery:
    """Made by `open`; `closed` turns True when the process is gone, whoever ended it."""

    def __init__(self, control: socket.socket, process: subprocess.Popen[bytes]) -> None:
        self._control = control
        self._process = process
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._forks: dict[int, asyncio.Future[tuple[int, int]]] = {}
        self._exits: dict[int, asyncio.Future[int | None]] = {}
        self._count = 0
        self.closed = False
        control.setblocking(False)
        self._loop.add_reader(control, self._read)

    @classmethod
    async def open(cls, settings: FrameSettings, extractor: str) -> Self:
        """Starts the process and waits until its decoders are loaded. Raises NurseryDied, OSError."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            descriptor = theirs.fileno()
            environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ} | _FIXED
            process = subprocess.Popen(  # noqa: ASYNC220 - it returns at once; at start and after a crash
                [sys.executable, "-P", "-m", "gateway.frames.zygote", str(descriptor)],
                pass_fds=(descriptor,),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=environment,
            )
        nursery = cls(ours, process)
        try:
            order = {"settings": settings.model_dump(mode="json"), "extractor": extractor}
            ours.send(json.dumps(order).encode())
            await nursery._ready
        except BaseException:
            await nursery.close()
            raise
        return nursery

    async def fork(self) -> tuple[socket.socket, int, int]:
        """A new worker: our end of its job socket, its process id, a pidfd. Raises NurseryDied."""
        if self.closed:
            raise NurseryDied("the process that forks workers is gone")
        self._count += 1
        number = self._count
        forked: asyncio.Future[tuple[int, int]] = self._loop.create_future()
        self._forks[number] = forked
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with theirs:
                socket.send_fds(self._control, [json.dumps({"fork": number}).encode()], [theirs.fileno()])
            pid, pidfd = await forked
        except BaseException:
            self._forks.pop(number, None)
            ours.close()
            raise
        return ours, pid, pidfd

    async def status_of(self, pid: int) -> int | None:
        """How a dead worker ended: its exit code, or minus the signal's number.

        None if it is not known in time, or never will be because this process has ended as well.
        """
        future = self._exits.get(pid)
        if future is None:
            return None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STATUS_S):
                return await asyncio.shield(future)
        return None

    async def close(self) -> None:
        """Ends the process and all its workers."""
        self._lost("the frame workers are stopping")
        try:
            await asyncio.to_thread(self._process.wait, _CLOSE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)

    def _read(self) -> None:
        while not self.closed:
            try:
                message, descriptors, _flags, _address = socket.recv_fds(self._control, MESSAGE_BYTES, 1)
            except BlockingIOError:
                return
            except OSError as error:
                self._lost(f"the process that forks workers is gone: {error}")
                return
            if not message:
                self._lost("the process that forks workers is gone")
                return
            self._take(json.loads(message), descriptors)

    def _take(self, news: dict[str, object], descriptors: list[int]) -> None:
        if "forked" in news:
            pid, future = int(str(news["pid"])), self._forks.pop(int(str(news["forked"])), None)
            self._exits = {known: exit_ for known, exit_ in self._exits.items() if not exit_.done()}
            self._exits[pid] = self._loop.create_future()
            if future is None or future.done():
                os.close(descriptors[0])
            else:
                future.set_result((pid, descriptors[0]))
        elif "exited" in news:
            ended = self._exits.get(int(str(news["exited"])))
            if ended is not None:
                ended.set_result(int(str(news["status"])))
        elif self._ready.done():
            pass
        elif "failed" in news:
            self._ready.set_exception(NurseryDied(str(news["failed"])))
        else:
            self._ready.set_result(None)

    def _lost(self, why: str) -> None:
        if self.closed:
            return
        self.closed = True
        self._loop.remove_reader(self._control)
        self._control.close()
        unanswered: list[asyncio.Future[Any]] = [self._ready, *self._forks.values()]
        for future in unanswered:
            if not future.done():
                future.set_exception(NurseryDied(why))
                future.exception()  # nobody may be waiting
        for ended in self._exits.values():
            if not ended.done():
                ended.set_result(None)
        self._forks.clear()
        self._exits.clear()
