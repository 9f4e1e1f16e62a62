"""A TCP proxy with a switch: between clients and the gateways, and between the gateways and a Kafka node."""

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from enum import StrEnum

_CHUNK = 64 << 10


class Link(StrEnum):
    """What becomes of the bytes of every connection, those that stand already included."""

    UP = "up"
    CUT = "cut"
    """Connections are reset, new ones too."""
    SILENT = "silent"
    """Nothing passes and nothing is closed: a cable that was pulled. What was sent comes through later."""


class Proxy:
    """Listens on `port` of the loopback; each connection goes to the next of `backends`, or to one that takes it."""

    def __init__(self, port: int, backends: Sequence[int]) -> None:
        self.port = port
        self._backends = list(backends)
        self._turn = 0
        self._link = Link.UP
        self._passing = asyncio.Event()
        self._passing.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen. Ends with the event loop's tasks."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def switch(self, link: Link) -> None:
        """Put the link into another state, at once."""
        self._link = link
        if link is Link.SILENT:
            self._passing.clear()
        else:
            self._passing.set()
        if link is Link.CUT:
            for writer in self._writers:
                writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with self._held(writer):
            await self._passing.wait()
            if self._link is Link.CUT:
                writer.transport.abort()
                return
            try:
                answers, onward = await self._connect()
                with self._held(onward):
                    async with asyncio.TaskGroup() as pumps:
                        pumps.create_task(self._pump(reader, onward))
                        pumps.create_task(self._pump(answers, writer))
            except* OSError:
                pass  # one side is gone; closing tells the other

    @contextlib.contextmanager
    def _held(self, writer: asyncio.StreamWriter) -> Iterator[None]:
        self._writers.add(writer)
        try:
            yield
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        self._turn += 1
        for place in range(len(self._backends) - 1):
            with contextlib.suppress(OSError):
                return await self._open(self._turn + place)
        return await self._open(self._turn + len(self._backends) - 1)

    async def _open(self, turn: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self._backends[turn % len(self._backends)])

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK):
            await self._passing.wait()
            writer.write(data)
            await writer.drain()
        if not writer.is_closing():  # it is, when the link was cut
            writer.write_eof()
