"""Connections to one pict-rs, kept for a moment between exchanges."""

import asyncio
import ssl
from collections import deque
from time import monotonic
from urllib.parse import urlsplit

from gateway.relay.wire import UpstreamError, Wire

_KEPT_S = 3.0  # actix, which pict-rs is made with, closes an idle connection after 5
_KEPT_MOST = 64


class Upstream:
    """One pict-rs at `address`, such as ``http://127.0.0.1:8080`` or ``https://pictrs.example/base``."""

    def __init__(self, address: str, *, connect_within_s: float) -> None:
        parts = urlsplit(address)
        assert parts.hostname is not None, "settings check addresses"
        self.host = parts.hostname
        self.port = parts.port or (443 if parts.scheme == "https" else 80)
        self.authority = parts.netloc.encode("idna" if not parts.netloc.isascii() else "ascii")
        self._base = parts.path.rstrip("/").encode("ascii")
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._connect_within_s = connect_within_s
        self._kept: deque[tuple[float, Wire]] = deque()

    def target(self, target: bytes) -> bytes:
        """A request's target, below the path that our address has."""
        return self._base + target if target.startswith(b"/") else target

    def take(self) -> Wire | None:
        """A connection that an earlier exchange left, if there is one. The other side may be closing it by now."""
        while self._kept:
            since, wire = self._kept.pop()
            if wire.usable and monotonic() - since < _KEPT_S:
                return wire
            wire.close()
        return None

    async def connect(self) -> Wire:
        """A new connection. Raises `UpstreamError`."""
        try:
            async with asyncio.timeout(self._connect_within_s):
                _, wire = await asyncio.get_running_loop().create_connection(Wire, self.host, self.port, ssl=self._tls)
        except (OSError, TimeoutError) as error:
            raise UpstreamError(f"no connection ({type(error).__name__})") from error
        return wire

    def give_back(self, wire: Wire) -> None:
        """Take back a connection whose exchange is over, or hang up where that is the only thing to do."""
        if not wire.renew():
            wire.close()
            return
        self._kept.append((monotonic(), wire))
        while self._kept and (len(self._kept) > _KEPT_MOST or monotonic() - self._kept[0][0] >= _KEPT_S):
            self._kept.popleft()[1].close()

    def close(self) -> None:
        """Hang up on every connection that is kept."""
        while self._kept:
            self._kept.popleft()[1].close()
