"""Moments and spans of time as they are written on the command line, and shown."""

import re
from datetime import UTC, datetime

import typer

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_SPAN = re.compile(r"(\d+)([smhd])")


def span_ms(text: str, option: str) -> int:
    """Milliseconds of a span such as 90s, 30m, 24h or 7d. Raises `typer.BadParameter`, which names `option`."""
    matched = _SPAN.fullmatch(text)
    if matched is None:
        raise typer.BadParameter(f"{option}: {text!r} is no span of time; write 90s, 30m, 24h or 7d")
    return int(matched[1]) * _UNITS_S[matched[2]] * 1000


def moment(text: str, now_ms: int, option: str) -> int:
    """Milliseconds since the epoch: so long ago, or an ISO 8601 time, local where it names no zone."""
    if _SPAN.fullmatch(text):
        return max(0, now_ms - span_ms(text, option))
    try:
        return max(0, int(datetime.fromisoformat(text).timestamp() * 1000))
    except (ValueError, OverflowError, OSError) as error:
        raise typer.BadParameter(
            f"{option}: {text!r} is no time; write 24h or 7d (ago), or a time such as 2026-11-23T18:00"
        ) from error


def utc(at_ms: int) -> str:
    """ISO 8601 in UTC, with milliseconds."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def local(at_ms: int) -> str:
    """Date and time of day here."""
    return datetime.fromtimestamp(at_ms / 1000).astimezone().strftime("%Y-%m-%d %H:%M:%S")
