"""The hash of a stored file, by reading it back from pict-rs: certain, and nothing waits for it.

pict-rs 0.5 has no way to ask for the hash of an alias (``/internal/identifier`` names a path in the store,
``/internal/hashes`` pages by time or by hash), but it serves the stored bytes, and their sha256 is the hash. A pict-rs
that sends its clients to an object store with 303 instead serves none: there the hash stays unknown.
"""

import asyncio
import hashlib
from collections.abc import Callable

import h11
import structlog

from gateway.relay.upstream import Upstream
from gateway.relay.wire import UpstreamError

log = structlog.get_logger("gateway.relay")

READ_MOST_BYTES = 256 << 20
_WITHIN_S = 60.0
_WAITING_MOST = 1_000
_AT_A_TIME = 2

Then = Callable[[bytes], None]


class ReadingBack:
    """Reads files back, `_AT_A_TIME` at a time; with `enabled` off it never knows a hash."""

    def __init__(self, upstream: Upstream, *, enabled: bool) -> None:
        self._upstream = upstream
        self._enabled = enabled
        self._queue: asyncio.Queue[tuple[bytes, Then]] = asyncio.Queue(_WAITING_MOST)
        self._workers: list[asyncio.Task[None]] = []

    def ask(self, target: bytes, then: Then) -> None:
        """Call `then` with the sha256 of what ``GET target`` gives; with b"" where that cannot be told."""
        if not self._enabled or self._queue.full():
            then(b"")
            return
        self._queue.put_nowait((target, then))

    def start(self) -> list[asyncio.Task[None]]:
        """Begin; the tasks end by `stop`, or by a fault of ours."""
        self._workers = [asyncio.create_task(self._work(), name="reading-back") for _ in range(_AT_A_TIME)]
        return list(self._workers)

    async def stop(self) -> None:
        """End; what was not read is answered for with b""."""
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        while not self._queue.empty():
            self._queue.get_nowait()[1](b"")

    async def _work(self) -> None:
        while True:
            target, then = await self._queue.get()
            sha256 = b""
            try:
                async with asyncio.timeout(_WITHIN_S):
                    sha256 = await self._read(target)
            except (UpstreamError, h11.LocalProtocolError, TimeoutError) as error:
                log.info("a stored file could not be read back", error=f"{type(error).__name__}: {error}")
            finally:
                then(sha256)

    async def _read(self, target: bytes) -> bytes:
        wire = await self._upstream.connect()
        try:
            headers = [(b"host", self._upstream.authority), (b"user-agent", b"fediwarden-relay")]
            await wire.send(h11.Request(method="GET", target=self._upstream.target(target), headers=headers))
            await wire.send(h11.EndOfMessage())
            response = await wire.head()
            if response.status_code != 200:
                return b""
            hasher, left = hashlib.sha256(), READ_MOST_BYTES
            async for piece in wire.body():
                left -= len(piece)
                if left < 0:
                    return b""
                hasher.update(piece)
            return hasher.digest()
        finally:
            wire.close()
