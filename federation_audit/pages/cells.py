"""What a cell of a table may hold, and how each kind is written as HTML, as JSON and as CSV."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from math import isfinite
from typing import Literal

from markupsafe import Markup, escape

from federation_audit.pages import figures
from federation_audit.pages.text import CUT, plain_text, show_text

Tone = Literal["plain", "good", "watch", "warn", "bad"]


@dataclass(frozen=True, slots=True)
class Said:
    """Text that a stranger wrote. Plain `str` is our own words."""

    text: str
    cut: int = CUT


@dataclass(frozen=True, slots=True)
class Link:
    """A link to a page of ours. `opens` makes it what Enter opens in its row."""

    text: "str | Said"
    href: str
    opens: bool = False


@dataclass(frozen=True, slots=True)
class Outside:
    """An address that a stranger gave: text to read; where it is a web page, with a link beside it that says so and
    tells that page nothing. Nothing is fetched unless somebody follows it."""

    url: str
    cut: int = CUT


@dataclass(frozen=True, slots=True)
class Moment:
    """Epoch milliseconds."""

    at_ms: int


@dataclass(frozen=True, slots=True)
class Day:
    """A day of the calendar (UTC)."""

    day: date

    @property
    def value(self) -> int:
        """What days are put in order by."""
        return self.day.toordinal()


@dataclass(frozen=True, slots=True)
class Share:
    """A share of one, shown in per cent. `coarse`: below 0.1 and above 99.9 only that it is."""

    value: float
    coarse: bool = False


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with the interval it lies in."""

    value: float
    low: float
    high: float
    per_cent: bool = False


@dataclass(frozen=True, slots=True)
class Mark:
    """A word with a tone: colour goes with it, never alone."""

    text: str
    tone: Tone = "plain"


@dataclass(frozen=True, slots=True)
class Listed:
    """Several cells in one. Where there are more than `most`, a page says how many it leaves to CSV and JSON."""

    cells: "Sequence[Cell]"
    most: int | None = None


Cell = str | int | float | None | Said | Link | Outside | Moment | Day | Share | Interval | Mark | Listed
Plain = str | int | float | None | dict[str, float] | list["Plain"]

UNKNOWN = "unknown"


def is_number(cell: Cell) -> bool:
    """Whether it stands right-aligned, in figures of equal width."""
    return isinstance(cell, int | float | Share | Interval) and not isinstance(cell, bool)


def as_html(cell: Cell, now_ms: int) -> Markup:
    """The cell in a page."""
    match cell:
        case None:
            return Markup('<span class="unknown">unknown</span>')
        case Said(text, cut):
            return show_text(text, cut=cut)
        case Link(text, href, opens):
            shown = show_text(text.text, cut=text.cut) if isinstance(text, Said) else escape(text)
            return Markup('<a href="{}"{}>{}</a>').format(href, Markup(" data-opens") if opens else "", shown)
        case Outside(url, cut):
            shown = show_text(url, cut=cut)
            if not url.lower().startswith(("https://", "http://")):
                return shown
            return Markup(
                '{} <a class="outside" href="{}" rel="noreferrer noopener nofollow" target="_blank"'
                ' title="Leaves these pages. You may see what was posted.">visit</a>'
            ).format(shown, url)
        case Moment(at_ms):
            return figures.show_moment(at_ms, now_ms)
        case Day(day):
            return Markup('<time class="day" datetime="{}">{}</time>').format(day, day)
        case Share(value, coarse):
            return escape(figures.share(value, coarse=coarse))
        case Interval(value, low, high, per_cent):
            shown = escape(figures.share(value) if per_cent else figures.decimal(value))
            return Markup('{} <span class="interval">{}</span>').format(
                shown, figures.interval(low, high, per_cent=per_cent)
            )
        case Mark(text, tone):
            return Markup('<span class="mark {}">{}</span>').format(tone, text)
        case Listed(cells, most):
            items = Markup("").join(Markup("<li>{}</li>").format(as_html(each, now_ms)) for each in cells[:most])
            if most is not None and len(cells) > most:
                more = figures.count(len(cells) - most)
                items += Markup('<li class="hint">and {} more: CSV and JSON have them</li>').format(more)
            return Markup('<ul class="listed">{}</ul>').format(items)
        case bool():
            return escape("yes" if cell else "no")
        case int():
            return escape(figures.count(cell))
        case float():
            return escape(figures.decimal(cell))
        case str():
            return escape(cell)


def as_plain(cell: Cell) -> Plain:
    """The cell in JSON: text whole and unchanged, times as ISO 8601, shares as parts of one."""
    match cell:
        case Said(text) | Mark(text):
            return text
        case Link(text):
            return text.text if isinstance(text, Said) else text
        case Outside(url):
            return url
        case Moment(at_ms):
            return figures.iso(at_ms) or at_ms
        case Day(day):
            return day.isoformat()
        case float() | Share():
            number = cell.value if isinstance(cell, Share) else cell
            return number if isfinite(number) else None
        case Interval(value, low, high):
            return {"value": value, "low": low, "high": high}
        case Listed(cells):
            return [as_plain(each) for each in cells]
        case _:
            return cell


def as_field(cell: Cell) -> str:
    """The cell in CSV, as text. An interval is ``value (low to high)``."""
    match cell:
        case None:
            return ""
        case Interval(value, low, high):
            return f"{value!r} ({low!r} to {high!r})"
        case Listed(cells):
            return "; ".join(as_field(each) for each in cells)
        case bool():
            return "yes" if cell else "no"
        case int() | float():
            return repr(cell)
        case Share(value):
            return repr(value)
        case _:
            return plain_text(str(as_plain(cell)))
