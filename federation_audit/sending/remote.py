"""One HTTP API that is read from and sent to, with time and size limits and without redirects.

The address is the admin's own setting, so that it may lie in a private network; no secret travels further, for no
redirect is followed and no proxy of the environment is used.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Any

import httpx
import orjson

from federation_audit.sending.confirming import Confirmation, Outcome, Plan, Sent, sent
from federation_audit.sending.errors import SideBusy, SideRefused, SideUnexpected, SideUnreachable

_CONNECT_WITHIN_S = 10.0
_ANSWER_MOST = 16 << 20  # a list of all instances that a large Lemmy knows has some megabytes


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    def json(self) -> Any:
        """Its JSON. Raises `ValueError`."""
        return orjson.loads(self.content)


class Remote:
    """One side, spoken to with `headers` (which carry the secret)."""

    def __init__(self, address: str, headers: Mapping[str, str], *, remedy: str, answer_within_s: float = 20.0) -> None:
        """`remedy` is what to look at when the credentials are refused: the settings' names."""
        self.address = address.rstrip("/")
        self._remedy = remedy
        self._answer_within_s = answer_within_s
        self._client = httpx.AsyncClient(
            headers={"user-agent": "fediwarden", "accept": "application/json", **headers},
            timeout=httpx.Timeout(answer_within_s, connect=max(_CONNECT_WITHIN_S, answer_within_s / 2)),
            follow_redirects=False,
            trust_env=False,
        )

    async def close(self) -> None:
        """Disconnect."""
        await self._client.aclose()

    async def read(self, path: str, query: Mapping[str, str] | None = None) -> Answer:
        """GET; an answer of 200. Raises `NotSent`: unreachable, refused, busy, unexpected."""
        try:
            answer = await self._request("GET", path, query=query)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            raise SideUnreachable(
                f"no answer from {self.address} ({type(error).__name__}); is it running, and is this its address?"
            ) from error
        self._check(answer, f"GET {path}")
        return answer

    async def write(
        self,
        method: str,
        path: str,
        plan: Plan,
        confirmation: Confirmation,
        *,
        at: datetime,
    ) -> tuple[Sent, Answer | None]:
        """Send the plan's payload; the record, and the answer if there was one.

        Raises `SideUnreachable` only where no connection came about.
        """
        try:
            answer = await self._request(method, path, body=plan.payload)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise SideUnreachable(
                f"no connection to {self.address} ({type(error).__name__}); nothing was sent"
            ) from error
        except (httpx.HTTPError, TimeoutError) as error:
            said = f"no whole answer ({type(error).__name__})"
            return sent(plan, confirmation, at=at, outcome=Outcome.UNKNOWN, status=None, answer=said), None
        record = sent(
            plan,
            confirmation,
            at=at,
            outcome=outcome_of(answer.status),
            status=answer.status,
            answer=answer.content[:2000].decode("utf-8", "replace"),
        )
        return record, answer

    def _check(self, answer: Answer, request: str) -> None:
        if answer.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            raise SideRefused(f"{self.address} answers {answer.status} to {request}; look at {self._remedy}")
        if answer.status == HTTPStatus.TOO_MANY_REQUESTS:
            after = answer.headers.get("retry-after", "")
            wait = int(after) if after.isdecimal() and len(after) < 7 else None
            when = "later" if wait is None else f"in {wait} s"
            raise SideBusy(f"{self.address} has had too many requests; try again {when}", wait)
        if answer.status != HTTPStatus.OK:
            raise SideUnexpected(f"{self.address} answers {answer.status} to {request}; is this its address?")

    async def _request(
        self, method: str, path: str, *, query: Mapping[str, str] | None = None, body: dict[str, Any] | None = None
    ) -> Answer:
        # httpx's own time-outs begin anew with each byte that comes.
        async with (
            asyncio.timeout(self._answer_within_s),
            self._client.stream(method, self.address + path, params=query, json=body) as response,
        ):
            content = bytearray()
            async for piece in response.aiter_bytes():
                content += piece
                if len(content) > _ANSWER_MOST:
                    raise httpx.DecodingError(f"the answer has more than {_ANSWER_MOST} bytes")
            return Answer(response.status_code, dict(response.headers), bytes(content))


def outcome_of(status: int) -> Outcome:
    """What a status says: a server that failed (5xx) or wandered off (1xx, 3xx) may have done it or not."""
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return Outcome.ACCEPTED
    return Outcome.REFUSED if 400 <= status < 500 else Outcome.UNKNOWN
