"""Prebuilt HTTP/1.1 requests, laid out as pict-rs 0.5.24 sends them, and a connection that plays them.

What pict-rs sends (recorded from its file store): ``POST``, the headers content-type, accept, user-agent, host and
transfer-encoding in that order, no length, the body in chunks of 8192 bytes, connections kept alive.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

import httptools

from bench.pictures import Relabelled

CHUNK = 8192


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go: host and port to connect to, and the request's path."""

    host: str
    port: int
    path: str

    @classmethod
    def parse(cls, url: str) -> "Target":
        """An ``http://host[:port]/path`` URL.

        Raises:
            ValueError: it is anything else.
        """
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError(f"{url!r} is not an http:// URL with a host")
        path = parts.path or "/"
        return cls(parts.hostname, parts.port or 80, f"{path}?{parts.query}" if parts.query else path)


@dataclass(frozen=True, slots=True)
class Request:
    """One picture's request: what goes before the part that differs, and what goes after it."""

    before: bytes
    after: bytes
    picture: Relabelled
    length: int

    def pieces(self, number: int) -> tuple[bytes, bytes, bytes]:
        """The request's bytes with `number` in the picture, to be written in this order."""
        return self.before, self.picture.head(number), self.after


def build_request(target: Target, jpeg: bytes, content_type: str = "image/jpeg") -> Request:
    """The request that posts `jpeg` (any different bytes of it) to `target`."""
    picture = Relabelled(jpeg)
    tail = picture.tail()
    head_length = picture.head_length()
    length = head_length + len(tail)
    first = min(CHUNK, length)
    before = (
        f"POST {target.path} HTTP/1.1\r\ncontent-type: {content_type}\r\naccept: */*\r\n"
        f"user-agent: fediwarden-bench\r\nhost: {target.host}:{target.port}\r\n"
        f"transfer-encoding: chunked\r\n\r\n{first:X}\r\n"
    ).encode("ascii")
    used = first - head_length
    parts: list[bytes | memoryview] = [tail[:used], b"\r\n"]
    for start in range(used, len(tail), CHUNK):
        chunk = tail[start : start + CHUNK]
        parts += (b"%X\r\n" % len(chunk), chunk, b"\r\n")
    parts.append(b"0\r\n\r\n")
    return Request(before, b"".join(parts), picture, length)


@dataclass(slots=True)
class Reply:
    """What came back: `status` 0 when nothing did, and then `error` says why."""

    status: int = 0
    answered_by: str = ""
    error: str = ""


class Connection(asyncio.Protocol):
    """One kept-alive connection that carries one request at a time.

    `idle` is called with the connection and the reply when a request has ended; a connection whose `open` is false
    by then cannot be used again.
    """

    def __init__(self, idle: Callable[["Connection", Reply], None]) -> None:
        self._idle = idle
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._reply: Reply | None = None
        self.open = False
        self.slot: object = None
        """What the user of the connection remembers of the request that is on its way."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it
        self.open = True

    def send(self, pieces: Sequence[bytes]) -> None:
        """Write a request; only when none is on its way."""
        assert self._transport is not None and self._reply is None
        self._reply = Reply()
        self._transport.writelines(pieces)

    def fail(self, error: str) -> None:
        """End the request on its way with `error` and close the connection."""
        self.open = False
        if self._transport is not None:
            self._transport.abort()
        self._end(error)

    def close(self) -> None:
        """Close the connection."""
        self.open = False
        if self._transport is not None:
            self._transport.close()

    def _end(self, error: str = "") -> None:
        reply, self._reply = self._reply, None
        if reply is not None:
            if error:
                reply.status, reply.error = 0, error
            self._idle(self, reply)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.fail("not HTTP")

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        self._end("connection closed")

    # httptools calls these.
    def on_header(self, name: bytes, value: bytes) -> None:
        if self._reply is not None and name.lower() == b"x-fediwarden-answered-by":
            self._reply.answered_by = value.decode("latin-1")

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:
            return
        if self._reply is not None:
            self._reply.status = status
        if not self._parser.should_keep_alive():
            self.close()
        self._end()
