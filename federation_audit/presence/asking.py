"""Asking an instance whether one of its posts is still there: one GET for the post's ActivityPub object.

A post that was removed is answered 410, 404, or a Tombstone. That it is there is believed only where an ActivityPub
object of that instance comes: a page of HTML is answered for anything. Nothing else of the answer is kept, no image is
asked for, and a body that is no JSON is not read.
"""

import ssl
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final

import orjson

from federation_audit.cases import Presence
from schemas.domains import NotADomain, domain_of
from schemas.fetching import FetchAnswered, FetchFailed, FetchLimits, FetchRefused, fetch
from schemas.topics import DAY_MS

WAIT_MOST_MS: Final = DAY_MS
"""No instance keeps us away for longer at one time."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a look told. `final`: it is gone for good (404 alone is what a misled proxy says as well). `wait_ms`: for
    how long the instance does not want to be asked anything; `because`: why nothing is known, without an address."""

    presence: Presence
    final: bool = False
    wait_ms: int = 0
    because: str = ""


async def ask(url: str, domain: str, limits: FetchLimits, *, now: int, tls: ssl.SSLContext | None = None) -> Answer:
    """Whether the post at `url` is still at `domain`. Whatever goes wrong is an answer: unknown."""
    try:
        async with fetch(url, limits, tls=tls) as fetched:
            if "json" not in fetched.content_type.lower():
                return Answer(Presence.UNKNOWN, because="no JSON")
            content = b"".join([piece async for piece in fetched.content])
    except FetchAnswered as error:
        return _of_status(error, now)
    except (FetchRefused, FetchFailed) as error:
        return Answer(Presence.UNKNOWN, because=str(error))
    try:
        return _of_object(orjson.loads(content), domain)
    except ValueError:
        return Answer(Presence.UNKNOWN, because="no JSON")


def _of_status(error: FetchAnswered, now: int) -> Answer:
    if error.status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
        return Answer(Presence.GONE, final=error.status == HTTPStatus.GONE)
    wait_ms = min(_wait_ms(error.retry_after, now), WAIT_MOST_MS)
    return Answer(Presence.UNKNOWN, wait_ms=wait_ms, because=str(error))


def _of_object(value: object, domain: str) -> Answer:
    if not isinstance(value, dict) or not isinstance(value.get("type"), str):
        return Answer(Presence.UNKNOWN, because="no ActivityPub object")
    if value["type"] == "Tombstone":
        return Answer(Presence.GONE, final=True)
    named = value.get("id")
    try:
        if isinstance(named, str) and domain_of(named) == domain:
            return Answer(Presence.UP)
    except NotADomain:
        pass
    return Answer(Presence.UNKNOWN, because="an object of another instance")


def _wait_ms(retry_after: str, now: int) -> int:
    """Of a Retry-After: seconds, or a date; 0 where it is neither."""
    text = retry_after.strip()
    if text.isascii() and text.isdecimal():
        return int(text[:9]) * 1000
    try:
        until = parsedate_to_datetime(text)
    except ValueError:
        return 0
    until = until if until.tzinfo is not None else until.replace(tzinfo=UTC)
    return max(0, int(until.timestamp() * 1000) - now)
