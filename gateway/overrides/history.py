"""Which image a scan was about, as the topics remember it."""

from functools import partial
from typing import NamedTuple

from gateway.overrides.memory import looks_in
from schemas.broker import BrokerSettings, Received, read_history
from schemas.messages import AnswerGiven, Verdict
from schemas.topics import ANSWERS, VERDICTS

CLIENT_ID = "fediwarden-overrides"
_TIME_DIGITS = 12  # a scan id begins with its time, in milliseconds
_DIGITS = 32
_CLOCKS_APART_MS = 600_000


class Scanned(NamedTuple):
    """An image that was scanned: its bytes' hash, and the PDQ hashes of its frames that are fit for matching."""

    sha256: bytes
    looks: tuple[bytes, ...]


class _Found(Exception):
    """Carries the verdict out of the reading, which ends there."""

    def __init__(self, verdict: Verdict) -> None:
        self.verdict = verdict


async def find_scan(broker: BrokerSettings, scan_id: str) -> Scanned | None:
    """The image of a scan, from `answers` and `verdicts`; None where neither knows it.

    Without looks where no verdict tells how good they are. Reads from the scan's time on, and all verdicts there are
    where its bytes were known before. Raises `BrokerUnavailable` or `BrokerRefused`.
    """
    read = partial(read_history, broker, client_id=CLIENT_ID)
    answered: list[bytes] = []

    def look_for_scan(received: Received) -> None:
        match received.message:
            case Verdict(scan_id=found) as verdict if found == scan_id or verdict.sha256 in answered:
                raise _Found(verdict)
            case AnswerGiven(scan_id=found, sha256=sha256) if found == scan_id:
                answered.append(sha256)

    def look_for_bytes(received: Received) -> None:
        if isinstance(received.message, Verdict) and received.message.sha256 in answered:
            raise _Found(received.message)

    try:
        await read((ANSWERS, VERDICTS), since_ms=_time_of(scan_id), on_record=look_for_scan)
        if not answered:
            return None
        await read((VERDICTS,), since_ms=0, on_record=look_for_bytes)
    except _Found as found:
        return scanned_by(found.verdict)
    return Scanned(answered[0], ())


def scanned_by(verdict: Verdict) -> Scanned:
    """The image that `verdict` is about."""
    return Scanned(verdict.sha256, looks_in(verdict).each())


def _time_of(scan_id: str) -> int:
    """When a scan of this id began at the earliest, 0 where the id does not tell."""
    try:
        return max(0, int(scan_id[:_TIME_DIGITS], 16) - _CLOCKS_APART_MS) if len(scan_id) == _DIGITS else 0
    except ValueError:
        return 0
