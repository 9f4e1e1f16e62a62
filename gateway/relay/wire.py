"""One HTTP/1.1 connection to a pict-rs: bytes both ways, bounded, with h11 for what they mean.

asyncio's streams would do but for one thing: they forget what has been read when the other side resets the connection.
A pict-rs that answers 413 and hangs up while we still send is such a case, and its answer must arrive.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import cast

import h11

PIECE_BYTES = 64 << 10
"""Most bytes read from the socket at a time. Twice that is held at most until somebody takes it."""

HEAD_MOST_BYTES = 64 << 10
STATUS_MOST = 599


class UpstreamError(Exception):
    """pict-rs cannot be reached, hung up, or did not speak HTTP. The message never holds what was sent."""


class Wire(asyncio.BufferedProtocol):
    """The connection. One exchange at a time: `send` its head and body, then `head` and `body`; each may overlap."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_MOST_BYTES)
        self._piece = bytearray(PIECE_BYTES)
        self._received = bytearray()
        self._heard = False
        self._ended = False
        self._reading_paused = False
        self._lost = False
        self._news = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's does not derive from it

    def get_buffer(self, sizehint: int) -> bytearray:
        """Where the next bytes go."""
        return self._piece

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes are here."""
        self._heard = True
        self._received += memoryview(self._piece)[:nbytes]
        if len(self._received) >= PIECE_BYTES and self._transport is not None and not self._reading_paused:
            self._reading_paused = True
            self._transport.pause_reading()
        self._news.set()

    def eof_received(self) -> bool:
        """The other side sends no more; asyncio closes."""
        self._ended = True
        self._news.set()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone; what was read before that is still to be had."""
        self._lost = self._ended = True
        self._news.set()
        self._writable.set()

    def pause_writing(self) -> None:
        """The other side is slow."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """It has caught up."""
        self._writable.set()

    # ours

    @property
    def fresh(self) -> bool:
        """Whether nothing has come from the other side in this exchange, so that it may not have seen it at all."""
        return not self._heard

    @property
    def usable(self) -> bool:
        """Whether another exchange may be tried on it."""
        return not self._ended and not self._received and self._http.our_state is h11.IDLE

    async def send(self, event: h11.Request | h11.Data | h11.EndOfMessage) -> None:
        """Send, and wait while the other side is slow.

        Raises `UpstreamError` where the connection is gone, `h11.LocalProtocolError` for what is no HTTP.
        """
        data = self._http.send(event)
        if self._lost or self._transport is None:
            raise UpstreamError("pict-rs hung up")
        if data:
            self._transport.write(data)
        await self._writable.wait()
        if self._lost:
            raise UpstreamError("pict-rs hung up")

    async def head(self) -> h11.Response:
        """The response's head; those of 1xx are passed over. Raises `UpstreamError`."""
        while True:
            event = await self._next()
            if isinstance(event, h11.Response) and event.status_code <= STATUS_MOST:
                return event
            if not isinstance(event, h11.InformationalResponse):
                raise UpstreamError("pict-rs gave no answer, or one of a status that there is not")

    async def body(self) -> AsyncIterator[bytes | bytearray]:
        """The response's body as it comes, at most `PIECE_BYTES` twice over at a time. Raises `UpstreamError`."""
        while True:
            event = await self._next()
            if isinstance(event, h11.Data):
                yield event.data
            elif isinstance(event, h11.EndOfMessage):
                return
            else:
                raise UpstreamError("pict-rs hung up in the middle of an answer")

    def renew(self) -> bool:
        """Make ready for another exchange; False where that cannot be."""
        if self._ended or self._received or self._http.our_state is not h11.DONE:
            return False
        if self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        self._heard = False
        return True

    def close(self) -> None:
        """Hang up at once; whoever waits gets an `UpstreamError`."""
        self._lost = self._ended = True
        self._news.set()
        self._writable.set()
        if self._transport is not None:
            self._transport.abort()

    async def _next(self) -> object:
        while True:
            try:
                event = self._http.next_event()
                if event is not h11.NEED_DATA:
                    return event
                self._http.receive_data(await self._read())
            except h11.RemoteProtocolError as error:
                raise UpstreamError(f"pict-rs broke off or does not speak HTTP/1.1 ({error})") from error

    async def _read(self) -> bytes:
        while not self._received and not self._ended:
            self._news.clear()
            await self._news.wait()
        data, self._received = bytes(self._received), bytearray()
        if self._reading_paused and self._transport is not None and not self._lost:
            self._reading_paused = False
            self._transport.resume_reading()
        return data
