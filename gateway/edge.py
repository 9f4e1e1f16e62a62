"""uvicorn's HTTP/1.1 protocol with bounds on a request's head, in bytes and in time, which uvicorn leaves open."""

import asyncio
from typing import Any

import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from gateway.refusals import STATUS, RefusalCode

HEAD_MOST_BYTES = 64 << 10
_LEAVING_S = 2.0  # a connection in use bears a request by then, and its answer says that it is the last


class EdgeProtocol(HttpToolsProtocol):
    """One connection. A head over `HEAD_MOST_BYTES` is answered 431, what is no HTTP 400, both as typed JSON.

    A client that has not sent a request's whole head `head_timeout_s` seconds after its first byte, or nothing at all
    that long after connecting, is disconnected. Make a subclass with `edge_protocol` to set that time.

    When the server stops, a connection between two requests, or before its first, stays open for another two seconds:
    a request may be on its way, and would be lost with it. One that comes is answered, and the connection is closed.
    """

    head_timeout_s = 10.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_head = False
        self._piece_bytes = 0
        self._header_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._leaving = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Take a connection."""
        super().connection_made(transport)
        self._in_head = True
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a connection."""
        self._head_is_here()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes; a head that comes in pieces is counted and timed."""
        super().data_received(data)
        if not self._in_head or self.transport.is_closing():
            return
        self._piece_bytes += len(data)
        if self._piece_bytes > HEAD_MOST_BYTES:
            self.send_400_response("")
        elif self._head_timer is None:
            self._await_head()

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._in_head = True
        self._piece_bytes = self._header_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer after a chunked body, is here."""
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > HEAD_MOST_BYTES:
            raise ValueError("the head is too large")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._head_is_here()
        super().on_headers_complete()
        if self._leaving:
            self.cycle.keep_alive = False

    def shutdown(self) -> None:
        """Close once what was asked is answered; called when the server stops."""
        self._leaving = True
        if self.cycle is None or self.cycle.response_complete:
            self.loop.call_later(_LEAVING_S, self._leave)
        else:
            super().shutdown()

    def _leave(self) -> None:
        if not self.transport.is_closing():
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        """Answer what cannot be parsed, and close."""
        too_large = max(self._piece_bytes, self._header_bytes) > HEAD_MOST_BYTES
        code = RefusalCode.HEAD_TOO_LARGE if too_large else RefusalCode.BAD_REQUEST
        error = {
            "code": code,
            "field": "head",
            "message": f"the request's head is larger than {HEAD_MOST_BYTES} bytes" if too_large else msg,
            "remedy": "send fewer or shorter headers" if too_large else "send HTTP/1.1",
        }
        body = orjson.dumps({"error": error})
        self.transport.write(
            STATUS_LINE[STATUS[code]]
            + b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
            + body
        )
        self.transport.close()

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(self.head_timeout_s, self._give_up)

    def _head_is_here(self) -> None:
        self._in_head = False
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _give_up(self) -> None:
        self._head_timer = None
        if not self.transport.is_closing():
            self.transport.close()


def edge_protocol(head_timeout_s: float) -> type[EdgeProtocol]:
    """An `EdgeProtocol` with that time for a head."""
    return type("EdgeProtocol", (EdgeProtocol,), {"head_timeout_s": head_timeout_s})
