"""What an export is, and what the formats share."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from federation_audit.cases import Action, Judged
from federation_audit.neutralising import cell
from schemas.domains import NotADomain, normalise_domain

COMMENT_MOST: Final = 500


class NotExpressible(Exception):
    """A format has no words for what was decided; the message says what to do instead."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """An instance that an export does not have, and why."""

    domain: str
    reason: str


@dataclass(frozen=True, slots=True)
class Export:
    """A file to hand over: its name, media type and bytes, and what is not in it."""

    name: str
    media_type: str
    content: bytes
    left_out: tuple[LeftOut, ...] = ()


def host_name(domain: str) -> str:
    """`domain` where it is a name or an IPv4 address, in our form; others have no room for brackets or ports.

    Raises `NotExpressible`.
    """
    try:
        name = normalise_domain(domain)
    except NotADomain as error:
        raise NotExpressible(f"{error}; it cannot be blocked by name") from error
    if name.startswith("["):
        raise NotExpressible(f"{name} is an IPv6 address, which blocklists have no place for; block it in a firewall")
    return name


def facts_line(judged: Judged) -> str:
    """What may be said in public: confirmed incidents, accounts and dates; no word of what the images show."""
    case = judged.case
    incidents, accounts = case.counts.confirmed, case.counts.actors
    return (
        f"abusive images: {incidents} confirmed incident{'' if incidents == 1 else 's'} by {accounts}"
        f" account{'' if accounts == 1 else 's'}, {case.since} to {case.until}"
    )


def private_line(judged: Judged) -> str:
    """What our own admins want to find again: reason, by whom, until when."""
    decision = judged.decision
    assert decision is not None, "only decided cases are blocked"
    until = "no end" if decision.until is None else f"until {day_of(decision.until)}"
    return f"{decision.reason} ({decision.by}, {day_of(decision.at)}, {until})"


def day_of(at: datetime) -> str:
    """The day of a moment, in UTC."""
    return at.astimezone(UTC).date().isoformat()


def csv_bytes(header: Sequence[str], rows: Iterable[Sequence[str]]) -> bytes:
    """CSV (RFC 4180 with line feeds, UTF-8, no mark at its beginning). Every cell of `rows` is made harmless."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([cell(each, COMMENT_MOST) for each in row] for row in rows)
    return text.getvalue().encode()


def blocked(cases: Iterable[Judged]) -> list[Judged]:
    """Those that are to be restricted or defederated, by domain; contact and none are no blocks."""
    wanted = (Action.RESTRICT_MEDIA, Action.DEFEDERATE)
    return sorted((each for each in cases if each.action in wanted), key=lambda each: each.case.domain)
