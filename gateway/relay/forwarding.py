"""Passing one request on to pict-rs and its answer back, as they come and as they are.

Nothing is held whole, decoded, reordered or renamed; what goes missing are the headers that are one connection's own
(RFC 9110, 7.6.1). A client that hangs up ends the exchange with pict-rs too, unless it asked for a proxied image: Lemmy
fetches those for pict-rs to have, and drops the answer.
"""

import asyncio
from collections.abc import Callable, Iterable

import h11
import orjson
import structlog

from gateway.edge import EdgeProtocol
from gateway.relay.metrics import Outcome, RelayMetrics
from gateway.relay.observing import Watch
from gateway.relay.upstream import Upstream
from gateway.relay.wire import UpstreamError, Wire
from gateway.replies import Receive, Scope, Send

log = structlog.get_logger("gateway.relay")

EXTENSION = "fediwarden.relay"
_HOP_BY_HOP = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade")
)
_NEVER_DROPPED = frozenset((b"content-length", b"host"))
_REPEATABLE = frozenset(("GET", "HEAD"))
_LINGERING_MOST = 64

Headers = list[tuple[bytes, bytes]]


class RelayProtocol(EdgeProtocol):
    """A connection that tells the application the request's target byte for byte, and how to hang up."""

    def on_headers_complete(self) -> None:
        """The head is whole."""
        extension: dict[object, object] = {"target": self.url, "hang_up": self.transport.close}
        self.scope["extensions"] = {EXTENSION: extension}
        super().on_headers_complete()


def relay_protocol(head_timeout_s: float) -> type[RelayProtocol]:
    """A `RelayProtocol` with that time for a head."""
    return type("RelayProtocol", (RelayProtocol,), {"head_timeout_s": head_timeout_s})


class Forwarder:
    """An ASGI application that is one pict-rs, as far as its client can tell. `watch` says what is to be learned."""

    def __init__(
        self,
        upstream: Upstream,
        watch: Callable[[Scope], Watch | None],
        metrics: RelayMetrics,
        *,
        linger_s: float,
        linger_bytes: int,
    ) -> None:
        self.upstream = upstream
        self.watch = watch
        self.metrics = metrics
        self.linger_s = linger_s
        self.linger_bytes = linger_bytes
        self.lingering = 0
        self.failing = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        passage = _Passage(self, scope, receive, send)
        try:
            self.metrics.requests[await passage.run()].inc()
        finally:
            await passage.close()

    def note(self, error: UpstreamError | None) -> None:
        """Whether pict-rs answers; one line when that changes."""
        if error is not None and not self.failing:
            log.warning("pict-rs does not answer", host=self.upstream.host, port=self.upstream.port, error=str(error))
        elif error is None and self.failing:
            log.info("pict-rs answers again", host=self.upstream.host, port=self.upstream.port)
        self.failing = error is not None


class _Passage:
    """One request and its answer."""

    def __init__(self, forwarder: Forwarder, scope: Scope, receive: Receive, send: Send) -> None:
        self._of = forwarder
        self._scope = scope
        self._receive = receive
        self._send = send
        self._watch = forwarder.watch(scope)
        self._wire: Wire | None = None
        self._sending = False
        self._client: asyncio.Task[None] | None = None
        self._gone = False
        self._over = False
        self._timer: asyncio.TimerHandle | None = None
        self._left_bytes = forwarder.linger_bytes

    async def run(self) -> Outcome:
        """Serve it, and say how it ended."""
        try:
            request = self._request()
        except h11.LocalProtocolError as error:
            await self._answer(400, "bad-request", f"the request cannot be passed on: {error}")
            return Outcome.REFUSED
        try:
            wire, response = await self._exchange(request)
        except UpstreamError as error:
            if self._gone:
                return Outcome.CLIENT_GONE
            self._of.note(error)
            await self._answer(502, "upstream-unreachable", "pict-rs does not answer")
            return Outcome.UNREACHABLE
        self._of.note(None)
        return await self._pass_back(wire, response)

    async def close(self) -> None:
        """End what is left of it."""
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
            self._of.lingering -= 1
        if self._client is not None:
            self._client.cancel()
            await asyncio.gather(self._client, return_exceptions=True)
        if self._wire is not None:
            self._of.upstream.give_back(self._wire)

    def _request(self) -> h11.Request:
        """The head for pict-rs. Raises `h11.LocalProtocolError`."""
        given = list(self._scope["headers"])
        codings = [value.strip().lower() for name, value in given if name == b"transfer-encoding"]
        if codings not in ([], [b"chunked"]):
            raise h11.LocalProtocolError("a transfer coding other than chunked")
        headers = [(name, value) for name, value in _end_to_end(given) if name != b"expect"]
        if codings:
            headers.append((b"transfer-encoding", b"chunked"))
        if not any(name == b"host" for name, _ in headers):
            headers.insert(0, (b"host", self._of.upstream.authority))
        lengths = [value for name, value in headers if name == b"content-length"]
        self._sending = bool(codings) or any(value != b"0" for value in lengths)
        target: bytes = self._scope["extensions"][EXTENSION]["target"]
        return h11.Request(method=self._scope["method"], target=self._of.upstream.target(target), headers=headers)

    async def _exchange(self, request: h11.Request) -> tuple[Wire, h11.Response]:
        """Send the head, have the body sent, and wait for the answer's head. Raises `UpstreamError`."""
        repeatable = not self._sending and self._scope["method"] in _REPEATABLE
        if repeatable and (wire := self._of.upstream.take()) is not None:
            try:
                return wire, await self._begin(wire, request)
            except UpstreamError:
                # pict-rs may have closed a connection that was idle as our request crossed the wire.
                if self._gone or not wire.fresh:
                    raise
                wire.close()
        wire = await self._of.upstream.connect()
        return wire, await self._begin(wire, request)

    async def _begin(self, wire: Wire, request: h11.Request) -> h11.Response:
        self._wire = wire
        await wire.send(request)
        if not self._sending:
            await wire.send(h11.EndOfMessage())
        if self._client is None:
            self._client = asyncio.create_task(self._hear_client())
        return await wire.head()

    async def _hear_client(self) -> None:
        """Send the client's body on as it comes, and notice when the client hangs up."""
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                if not self._over:
                    self._note_gone()
                return
            if not self._sending:
                continue
            assert self._wire is not None
            # A pict-rs that has answered and hung up: what can be read goes before a write that ends the connection.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            try:
                if message.get("body"):
                    await self._wire.send(h11.Data(data=message["body"]))
                if not message.get("more_body"):
                    self._sending = False
                    await self._wire.send(h11.EndOfMessage())
            except (UpstreamError, h11.LocalProtocolError):
                self._sending = False  # its answer may be here all the same

    def _note_gone(self) -> None:
        self._gone = True
        assert self._wire is not None
        worth = self._watch is not None and self._watch.worth_finishing and self._of.lingering < _LINGERING_MOST
        if not worth:
            self._wire.close()
            return
        self._of.lingering += 1
        self._timer = asyncio.get_running_loop().call_later(self._of.linger_s, self._give_up)

    def _give_up(self) -> None:
        if self._wire is not None:
            self._wire.close()

    async def _pass_back(self, wire: Wire, response: h11.Response) -> Outcome:
        headers = _end_to_end(response.headers.raw_items())
        if response.status_code == 304:
            headers = [(name, value) for name, value in headers if name.lower() != b"content-length"]  # uvicorn waits
        elif self._scope["http_version"] == "1.0" and not any(name.lower() == b"content-length" for name, _ in headers):
            wire.close()
            await self._answer(505, "http-version", "this answer needs HTTP/1.1")
            return Outcome.REFUSED
        if self._watch is not None:
            self._watch.note_head(response.status_code, headers)
        await self._send({"type": "http.response.start", "status": response.status_code, "headers": headers})
        try:
            async for piece in wire.body():
                await self._pass_piece(piece)
        except UpstreamError:
            if self._gone:
                return Outcome.CLIENT_GONE
            await self._hang_up()
            return Outcome.BROKEN
        self._over = True
        if not self._gone:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        if self._watch is not None:
            self._watch.note_end()
        return Outcome.CLIENT_GONE if self._gone else Outcome.PASSED

    async def _pass_piece(self, piece: bytes | bytearray) -> None:
        if self._watch is not None:
            self._watch.note_piece(piece)
        if not self._gone:
            await self._send({"type": "http.response.body", "body": piece, "more_body": True})
            return
        self._left_bytes -= len(piece)
        if self._left_bytes < 0:
            raise UpstreamError("more than is read for a client that has gone")

    async def _hang_up(self) -> None:
        """The client must not take what is here for the whole: end its connection, once it has that much."""
        self._over = True
        self._scope["extensions"][EXTENSION]["hang_up"]()
        if self._client is not None:
            await asyncio.wait((self._client,))

    async def _answer(self, status: int, code: str, message: str) -> None:
        """An answer of our own, in the form of pict-rs's."""
        self._over = True
        body = orjson.dumps({"msg": message, "code": code})
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode("ascii")),
        ]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body, "more_body": False})


def _end_to_end(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """The headers without those of one connection: the usual ones, and what its Connection header names."""
    given = list(headers)
    named = {
        word.strip().lower() for name, value in given if name.lower() == b"connection" for word in value.split(b",")
    }
    dropped = _HOP_BY_HOP | (named - _NEVER_DROPPED)
    return [(name, value) for name, value in given if name.lower() not in dropped]
