"""A reply that is complete in memory, and how it is sent when the request's body was not read to its end."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

JSON = b"application/json"

_LINGER_S = 2.0
_LINGER_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Reply:
    """Status, headers and body; an ASGI application that sends them.

    With `body_unread` the connection is closed after the reply, but not at once: a client that is still sending would
    see its connection reset and never read why. What it sends is thrown away for two seconds or 64 MiB at most.
    """

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()
    media_type: bytes = JSON
    body_unread: bool = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the reply."""
        headers = [
            (b"content-type", self.media_type),
            (b"content-length", b"%d" % len(self.body)),
            *self.headers,
        ]
        if self.body_unread:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": self.body_unread})
        if self.body_unread:
            await _throw_away(receive)
            await send({"type": "http.response.body", "body": b"", "more_body": False})


class Silence:
    """The reply to a client that is gone."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send nothing."""


async def _throw_away(receive: Receive) -> None:
    left = _LINGER_BYTES
    try:
        async with asyncio.timeout(_LINGER_S):
            while left > 0:
                event: Mapping[str, Any] = await receive()
                if event["type"] == "http.disconnect" or not event.get("more_body", False):
                    return
                left -= len(event.get("body", b""))
    except TimeoutError:
        return
