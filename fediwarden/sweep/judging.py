"""The gateway as a sweep uses it: as any other program does, through its JSON API.

What it does not know is judged behind all that somebody waits for (``Prefer: respond-async``), so that no upload has to
wait for a sweep, however fast it is.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeVar

import httpx

from fediwarden.sweep.errors import GatewayAway, GatewayRefused, SourceAway, SourceUnknown, Unwanted
from fediwarden.sweep.source import TOO_LARGE, UNSUPPORTED, Body
from gateway.enforcement.pace import pause_after
from schemas.messages import AnsweredBy, Decision

DAMAGED = "damaged"
JUDGED = frozenset({AnsweredBy.VERDICT, AnsweredBy.KNOWN, AnsweredBy.OVERRIDE, AnsweredBy.LIST})
"""How an answer came about that rests on a judgement; any other is the tenant's policy for what is not known."""

_ANSWER_WITHIN_S = 90.0
_LOOKS_EVERY_S = (0.1, 2.0)
"""How long after an image was handed over the first look for its verdict comes, and how far apart the last ones are."""

_FORGOTTEN_S = 30.0
"""How long a gateway may know nothing of a scan before its image is handed to it anew.

One that was started anew remembers no scans, and another one that serves the same address knows those of the first by
their verdicts alone.
"""

_PAUSE_MOST_S = 15.0
_BUSY = (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a gateway makes of one image. `judged` is False where no verdict came: then `accepted` says nothing."""

    judged: bool
    accepted: bool
    decision: Decision
    scan_id: str
    answered_by: str
    rules: tuple[str, ...] = ()
    reason: str = ""


async def patiently(call: Callable[[], Awaitable[Result]], patience_s: float, on_wait: Callable[[str], None]) -> Result:
    """What `call` gives, called again while a store or gateway is away, for `patience_s` seconds.

    `on_wait` is told once why. Raises what `call` raises in the end.
    """
    clock = asyncio.get_running_loop().time
    give_up_at = clock() + patience_s
    failures = 0
    while True:
        try:
            return await call()
        except (SourceAway, SourceUnknown, GatewayAway) as error:
            failures += 1
            pause = pause_after(failures, _PAUSE_MOST_S)
            if clock() + pause > give_up_at:
                raise
            if failures == 1:
                on_wait(f"{error} Waiting for it.")
            await asyncio.sleep(pause)


class Judge:
    """Has images judged by the gateway at `url`, as the tenant whose `key` it is; at most `rate` a second."""

    def __init__(self, url: str, key: str | None, *, rate: float, verdict_within_s: float) -> None:
        self._client = httpx.AsyncClient(
            base_url=url,
            headers={"authorization": f"Bearer {key}"} if key else {},
            timeout=_ANSWER_WITHIN_S,
            trust_env=False,
        )
        self._url = url
        self._interval_s = 1 / rate
        self._verdict_within_s = verdict_within_s
        self._next_at = 0.0

    async def close(self) -> None:
        """Disconnect."""
        await self._client.aclose()

    async def check(self) -> None:
        """Return when a gateway answers. Raises `GatewayAway`."""
        await self._request("GET", "/healthz")

    async def has_scanner(self) -> bool:
        """Whether the gateway has heard of a scanner. Raises `GatewayAway`."""
        try:
            answer = await self._client.get("/readyz")
            return bool(answer.json()["parts"]["scanners"]["ok"])
        except (ValueError, KeyError, TypeError):
            return True  # no word of it
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._away(error) from error

    async def judge(self, body: Body) -> Answer:
        """What the gateway makes of `body`, once there is a verdict, or none came in time.

        Raises `GatewayAway`, `GatewayRefused`, and `Unwanted` where the gateway cannot read it.
        """
        clock = asyncio.get_running_loop().time
        await self._take_turn()
        give_up_at = clock() + self._verdict_within_s
        answer = await self._post(body)
        while not answer.judged:
            await self._verdict_comes(answer.scan_id, give_up_at)
            answer = await self._post(body)  # which also says what overrides and the tenant make of it
            if clock() >= give_up_at:
                break
        return answer

    async def _post(self, body: Body) -> Answer:
        headers = {
            "content-type": "application/octet-stream",
            "content-length": str(body.length),
            "prefer": "respond-async",
        }
        answer = await self._request("POST", "/v1/scans", content=body.chunks(), headers=headers)
        if answer.status_code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            raise GatewayRefused(
                f"the gateway at {self._url} refuses us ({_error_of(answer)}): the tenant's key in our settings"
                " (tenants.NAME.key) must be the gateway's, and this machine within its networks"
            )
        if answer.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            raise Unwanted(TOO_LARGE, _error_of(answer))
        try:
            said = answer.json()
            if answer.status_code == HTTPStatus.UNPROCESSABLE_ENTITY:
                reason = str(said["reason"])
                raise Unwanted(UNSUPPORTED if reason.startswith("unsupported") else DAMAGED, reason)
            if answer.status_code == HTTPStatus.ACCEPTED:
                return Answer(
                    judged=False,
                    accepted=False,
                    decision=Decision.REVIEW,
                    scan_id=str(said["scan_id"]),
                    answered_by="",
                    reason=f"no verdict within {self._verdict_within_s:g} s (sweep.verdict_within_s)",
                )
            return Answer(
                judged=said["answered_by"] in JUDGED,
                accepted=bool(said["accepted"]),
                decision=Decision(said["decision"]),
                scan_id=str(said["scan_id"]),
                answered_by=str(said["answered_by"]),
                rules=tuple(str(rule["name"]) for rule in said["rules"]),
                reason=str(said["reason"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise GatewayRefused(
                f"what answers at {self._url} is no gateway of this version (status {answer.status_code});"
                " gateway.port or --url names another program"
            ) from error

    async def _take_turn(self) -> None:
        clock = asyncio.get_running_loop().time
        at = max(clock(), self._next_at)
        self._next_at = at + self._interval_s
        await asyncio.sleep(at - clock())

    async def _verdict_comes(self, scan_id: str, give_up_at: float) -> None:
        """Return when the scan has a verdict, its time is over, or the gateway seems to have forgotten it."""
        clock = asyncio.get_running_loop().time
        pause, longest = _LOOKS_EVERY_S
        forgotten_at = clock() + _FORGOTTEN_S
        while clock() < min(give_up_at, forgotten_at):
            await asyncio.sleep(min(pause, max(0.0, give_up_at - clock())))
            pause = min(pause * 1.5, longest)
            answer = await self._request("GET", f"/v1/scans/{scan_id}")
            if not answer.is_success:
                continue
            report = answer.json()
            if report["verdict"] is not None:
                return
            if report.get("unjudgeable"):
                raise Unwanted(DAMAGED, report["unjudgeable"])
            forgotten_at = clock() + _FORGOTTEN_S

    async def _request(self, method: str, path: str, **more: Any) -> httpx.Response:
        try:
            answer = await self._client.request(method, path, **more)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._away(error) from error
        if answer.status_code in _BUSY:
            raise GatewayAway(f"the gateway at {self._url} cannot take more now ({_error_of(answer)}).")
        return answer

    def _away(self, error: Exception) -> GatewayAway:
        return GatewayAway(
            f"no gateway answers at {self._url} ({str(error) or type(error).__name__})."
            " Start one with: fediwarden up, or name one with --url."
        )


def _error_of(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP status {response.status_code}"
