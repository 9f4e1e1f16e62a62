"""Numbers, shares, spans and moments as the pages write them."""

from datetime import UTC, datetime

from markupsafe import Markup

_MINUTE_S, _HOUR_S, _DAY_S = 60, 3_600, 86_400
_UNITS = ((365 * _DAY_S, "y"), (30 * _DAY_S, "mo"), (_DAY_S, "d"), (_HOUR_S, "h"), (_MINUTE_S, "min"), (1, "s"))
_LATEST_MS = 253_402_300_799_000  # the end of the year 9999


def count(number: int) -> str:
    """``1,234,567``."""
    return f"{number:,}"


def count_short(number: float) -> str:
    """For an axis: ``12``, ``4.5k``, ``120k``, ``3M``."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:g}"


def decimal(number: float, digits: int = 3) -> str:
    """`digits` significant digits, and whole numbers whole: ``0.0123``, ``1,234``; ``2.10e+09`` where it must be."""
    if number != number:
        return "unknown"
    size = abs(float(f"{number:.{digits - 1}e}"))  # rounded, so that 9.996 has as many digits as 10.0
    if size == 0:
        return "0"
    if size < 1e-6 or size >= 1e9:  # also infinity
        return f"{number:.{digits - 1}e}"
    if size >= 10 ** (digits - 1):
        return f"{number:,.0f}"
    places = digits
    while places > 0 and size < 10 ** (digits - 1 - places):
        places += 1
    while places > 0 and size >= 10 ** (digits - places):
        places -= 1
    return f"{number:.{places}f}"


def share(number: float, *, coarse: bool = False) -> str:
    """A share of one in per cent: ``0.43 %``, ``12.8 %``, with a space that does not break. `coarse` gives no digits
    that nobody needs of a probability near 0 or 1: ``under 0.1 %``."""
    if coarse and number < 0.001:
        return "under 0.1\u00a0%"
    if coarse and number > 0.999:
        return "over 99.9\u00a0%"
    return f"{_per_cent(number)}\u00a0%"


def interval(low: float, high: float, *, per_cent: bool) -> str:
    """``0.12 to 0.31 %``: words, for a dash reads as a minus."""
    if per_cent:
        return f"{_per_cent(low)} to {_per_cent(high)}\u00a0%"
    return f"{decimal(low)} to {decimal(high)}"


def _per_cent(number: float) -> str:
    return decimal(number * 100, 3 if abs(number) >= 0.0995 else 2)


def span(seconds: float) -> str:
    """A length of time in its largest unit: ``3 h``, ``12 d``."""
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{int(seconds // size)}\u00a0{unit}"
    return "0\u00a0s"


def utc(at_ms: int, *, seconds: bool = False) -> str:
    """``2026-11-28 09:30 UTC``; a time beyond the calendar is given in milliseconds."""
    moment = _moment(at_ms)
    return f"{at_ms} ms" if moment is None else moment.strftime(f"%Y-%m-%d %H:%M{':%S' if seconds else ''} UTC")


def iso(at_ms: int) -> str:
    """``2026-11-28T09:30:00.000Z``; empty for a time beyond the calendar."""
    moment = _moment(at_ms)
    return "" if moment is None else moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def relative(at_ms: int, now_ms: int) -> str:
    """``3 h ago``, ``in 2 d``, ``just now``."""
    seconds = (now_ms - at_ms) / 1000
    if abs(seconds) < 5:
        return "just now"
    return f"{span(seconds)} ago" if seconds > 0 else f"in {span(-seconds)}"


def show_moment(at_ms: int, now_ms: int) -> Markup:
    """A moment as HTML: UTC, and how long ago."""
    return Markup(
        '<time datetime="{}" title="{}"><span class="utc">{}</span> <span class="ago">{}</span></time>'
    ).format(iso(at_ms), utc(at_ms, seconds=True), utc(at_ms), relative(at_ms, now_ms))


def _moment(at_ms: int) -> datetime | None:
    if not 0 <= at_ms <= _LATEST_MS:
        return None
    return datetime.fromtimestamp(at_ms / 1000, UTC)
