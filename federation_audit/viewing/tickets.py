"""One-time addresses of pictures: what a page shows is fetched once, soon, by the session that it was made for."""

import secrets
import threading

_TOKEN_BYTES = 32
HOLD_S = 60.0
_MOST = 32


class Tickets:
    """Pictures that wait to be fetched, in memory. At most one for a session, each for `hold_s` seconds.

    May be used from several threads.
    """

    def __init__(self, hold_s: float = HOLD_S) -> None:
        self._hold_s = hold_s
        self._lock = threading.Lock()
        self._waiting: dict[str, tuple[str, bytes, threading.Timer]] = {}

    def issue(self, session: str, picture: bytes) -> str:
        """A new ticket for the picture; those that the session had before are void."""
        ticket = secrets.token_urlsafe(_TOKEN_BYTES)
        timer = threading.Timer(self._hold_s, self._drop, [ticket])
        timer.daemon = True
        with self._lock:
            for other in [key for key, (owner, _, _) in self._waiting.items() if owner == session]:
                self._forget(other)
            while len(self._waiting) >= _MOST:
                self._forget(next(iter(self._waiting)))
            self._waiting[ticket] = (session, picture, timer)
        timer.start()
        return ticket

    def redeem(self, session: str, ticket: str) -> bytes | None:
        """The picture, once; None where the ticket is not this session's, was used, or is too old."""
        with self._lock:
            held = self._waiting.get(ticket)
            if held is None or not secrets.compare_digest(held[0], session):
                return None
            self._forget(ticket)
            return held[1]

    def _drop(self, ticket: str) -> None:
        with self._lock:
            self._forget(ticket)

    def _forget(self, ticket: str) -> None:
        held = self._waiting.pop(ticket, None)
        if held is not None:
            held[2].cancel()
