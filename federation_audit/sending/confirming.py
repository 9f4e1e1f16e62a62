"""What is shown, who confirmed it, and what came of it."""

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

import orjson

from federation_audit.neutralising import one_line
from federation_audit.sending.errors import NotConfirmed

ANSWER_MOST: Final = 500


class Channel(StrEnum):
    """By which way something is sent."""

    MAIL = "mail"
    LEMMY_0_19 = "lemmy-0.19"
    LEMMY_1_0 = "lemmy-1.0"
    MASTODON = "mastodon"
    FEDISEER = "fediseer"
    COOP = "coop"


class Outcome(StrEnum):
    """What came of it.

    accepted: the other side said that it did it; refused: it said that it did not; unknown: it said nothing that tells,
    so that it may have been done. Look there before sending again.
    """

    ACCEPTED = "accepted"
    REFUSED = "refused"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be sent, exactly, and what it would change; a person confirms its `digest`.

    `to` is where (an address without secrets), `request` what (method and path, or the mail's kind), `payload` the
    body's plain values, `changes` sentences about the difference it makes, `basis` the digest of the other side's state
    that the differences were computed from, '' where it has none. `nonce` tells two plans of the same words apart.
    """

    channel: Channel
    to: str
    request: str
    payload: dict[str, Any]
    changes: tuple[str, ...]
    nonce: str
    basis: str = ""

    @property
    def digest(self) -> str:
        """SHA-256 of all of it, in hexadecimal."""
        parts = [self.channel.value, self.to, self.request, self.payload, self.changes, self.nonce, self.basis]
        return hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()

    def as_text(self) -> str:
        """The plan as a person is shown it."""
        body = orjson.dumps(self.payload, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS).decode()
        changes = "\n".join(f"- {each}" for each in self.changes)
        return f"To: {self.to}\nRequest: {self.request}\n\nWhat changes:\n{changes}\n\n{body}\n"


@dataclass(frozen=True, slots=True)
class Confirmation:
    """A person's word: send the plan with this digest. Good for one sending."""

    by: str
    at: datetime
    digest: str


@dataclass(frozen=True, slots=True)
class Sent:
    """What was sent, by whose word, and what came of it: to be kept.

    `status` is the HTTP or SMTP status, None where none came; `answer` at most 500 characters of what was answered.
    """

    channel: Channel
    to: str
    request: str
    payload: dict[str, Any]
    digest: str
    confirmed_by: str
    at: datetime
    outcome: Outcome
    status: int | None
    answer: str


def check(plan: Plan, confirmation: Confirmation) -> None:
    """Return when `confirmation` is of exactly this plan. Raises `NotConfirmed`."""
    if not confirmation.by.strip():
        raise NotConfirmed("a confirmation names the person who gave it")
    if not hmac.compare_digest(plan.digest, confirmation.digest):
        raise NotConfirmed("what would be sent is not what was confirmed; look at it again and confirm that")


def sent(
    plan: Plan, confirmation: Confirmation, *, at: datetime, outcome: Outcome, status: int | None, answer: str
) -> Sent:
    """The record of `plan`."""
    return Sent(
        channel=plan.channel,
        to=plan.to,
        request=plan.request,
        payload=plan.payload,
        digest=plan.digest,
        confirmed_by=confirmation.by,
        at=at,
        outcome=outcome,
        status=status,
        answer=one_line(answer, ANSWER_MOST),
    )


def basis_of(state: Sequence[str]) -> str:
    """The digest of the other side's state; the order does not matter."""
    return hashlib.sha256(orjson.dumps(sorted(state))).hexdigest()
