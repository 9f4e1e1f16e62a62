"""Plots as inline SVG: no script, no styles of their own; what is drawn is also in a table beside it.

Lengths are user units of the view box; how large that is on the screen, and every colour, is said in static/style.css.
Words in a plot are our own or domains; both are escaped.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date

from markupsafe import Markup

from federation_audit.pages import figures

WIDTH, HEIGHT = 360.0, 132.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 44.0, 8.0, 8.0, 20.0
_STEPS = (1.0, 2.0, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class Frame:
    """The rectangle within the axes."""

    left: float
    top: float
    right: float
    bottom: float

    def across(self, share: float) -> float:
        """From left (0) to right (1)."""
        return self.left + share * (self.right - self.left)

    def up(self, share: float) -> float:
        """From the bottom (0) to the top (1)."""
        return self.bottom - share * (self.bottom - self.top)


FRAME = Frame(_LEFT, _TOP, WIDTH - _RIGHT, HEIGHT - _BOTTOM)


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: the days (a label), its height, and what its tooltip says."""

    label: str
    value: float
    says: str


@dataclass(frozen=True, slots=True)
class Spot:
    """A value at a day, with the ends of its interval where it has one."""

    at: date
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """A horizontal line that means something, with its word."""

    value: float
    word: str


def draw_bars(title: str, description: str, bars: Sequence[Bar], *, tone: str = "plain") -> Markup:
    """Bars from the oldest to the newest. `description` says in a sentence what there is to see."""
    highest = max((bar.value for bar in bars), default=0.0)
    ticks = nice_ticks(highest)
    top = ticks[-1]
    width = 1.0 / max(len(bars), 1)
    parts = [_rules(ticks, lambda value: FRAME.up(value / top), figures.count_short)]
    shapes = []
    for place, bar in enumerate(bars):
        if not bar.value:
            continue
        left, right = FRAME.across((place + 0.1) * width), FRAME.across((place + 0.9) * width)
        height = max(FRAME.bottom - FRAME.up(bar.value / top), 1.0)  # one of a million is still one
        shapes.append(
            Markup('<rect x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>').format(
                units(left), units(FRAME.bottom - height), units(max(right - left, 0.5)), units(height), bar.says
            )
        )
    parts.append(Markup('<g class="bars {}">{}</g>').format(tone, Markup("").join(shapes)))
    parts.append(_ends([bar.label for bar in bars]))
    return _figure(title, description, Markup("").join(parts))


def draw_course(
    title: str, description: str, spots: Sequence[Spot], *, lines: Sequence[Line] = (), logarithmic: bool = False
) -> Markup:
    """A value over time: a line, with a band where there are intervals; on a logarithmic axis where asked for."""
    values = [value for spot in spots for value in (spot.value, spot.low, spot.high) if value is not None]
    values += [line.value for line in lines]
    if logarithmic:
        low, high = _decades(values)
        ticks = [10.0**power for power in _powers(low, high)]

        def height(value: float) -> float:
            return FRAME.up((_log(value, low, high) - low) / (high - low))

    else:
        ticks = nice_ticks(max(values, default=1.0), whole=False)

        def height(value: float) -> float:
            return FRAME.up(min(value / ticks[-1], 1.0))

    parts = [_rules(ticks, height, figures.count_short)]
    days = [spot.at.toordinal() for spot in spots]
    first, span = (min(days), max(max(days) - min(days), 1)) if days else (0, 1)
    xs = [FRAME.across((day - first) / span) if len(days) > 1 else FRAME.across(0.5) for day in days]
    band = [
        (x, height(spot.low), height(spot.high))
        for x, spot in zip(xs, spots, strict=True)
        if spot.low is not None and spot.high is not None
    ]
    if len(band) > 1:
        outline = [(x, top) for x, _, top in band] + [(x, bottom) for x, bottom, _ in reversed(band)]
        parts.append(Markup('<polygon class="band" points="{}"/>').format(_points(outline)))
    parts.extend(_line(line, height, to_right=bool(place % 2)) for place, line in enumerate(lines))
    line = [(x, height(spot.value)) for x, spot in zip(xs, spots, strict=True)]
    parts.append(Markup('<polyline class="course" points="{}"/>').format(_points(line)))
    for (x, y), spot in zip(line, spots, strict=True):
        parts.append(
            Markup('<circle class="spot" cx="{}" cy="{}" r="2.5"><title>{}</title></circle>').format(
                units(x), units(y), _says(spot)
            )
        )
    parts.append(_ends([spot.at.isoformat() for spot in spots]))
    return _figure(title, description, Markup("").join(parts))


def nice_ticks(highest: float, *, most: int = 4, whole: bool = True) -> list[float]:
    """From 0 up to `highest` or a little beyond, in steps of 1, 2 or 5 times a power of ten; at least two of them."""
    if not highest > 0.0 or not math.isfinite(highest):
        return [0.0, 1.0]
    rough = highest / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(step * power for step in _STEPS if step * power >= rough * (1 - 1e-9))
    if whole:
        step = max(step, 1.0)
    return [step * number for number in range(math.ceil(highest / step - 1e-9) + 1)]


def units(length: float) -> str:
    """A length as it stands in SVG, to a tenth of a unit."""
    return f"{length:.1f}".removesuffix(".0")


def _rules(ticks: Iterable[float], height: Callable[[float], float], write: Callable[[float], str]) -> Markup:
    """The horizontal lines with their numbers."""
    return Markup("").join(
        Markup('<line class="rule" x1="{}" x2="{}" y1="{}" y2="{}"/><text class="tick" x="{}" y="{}">{}</text>').format(
            units(FRAME.left),
            units(FRAME.right),
            units(y),
            units(y),
            units(FRAME.left - 6),
            units(y + 3.5),
            write(tick),
        )
        for tick in ticks
        for y in (height(tick),)
    )


def _line(line: Line, height: Callable[[float], float], *, to_right: bool) -> Markup:
    """With its word at one end, so that two lines that lie close do not write over each other."""
    y = height(line.value)
    return Markup(
        '<line class="limit" x1="{}" x2="{}" y1="{}" y2="{}"/><text class="word{}" x="{}" y="{}">{}</text>'
    ).format(
        units(FRAME.left),
        units(FRAME.right),
        units(y),
        units(y),
        " last" if to_right else "",
        units(FRAME.right - 3 if to_right else FRAME.left + 3),
        units(y - 3),
        line.word,
    )


def _ends(labels: Sequence[str]) -> Markup:
    """The first and the last label, below the axis."""
    if not labels:
        return Markup("")
    y = units(HEIGHT - 5)
    first = Markup('<text class="day" x="{}" y="{}">{}</text>').format(units(FRAME.left), y, labels[0])
    if len(labels) == 1:
        return first
    return first + Markup('<text class="day last" x="{}" y="{}">{}</text>').format(units(FRAME.right), y, labels[-1])


def _figure(title: str, description: str, content: Markup) -> Markup:
    return Markup(
        '<svg class="plot small" viewBox="0 0 {} {}" role="img"><title>{}</title><desc>{}</desc>{}</svg>'
    ).format(units(WIDTH), units(HEIGHT), title, description, content)


def _says(spot: Spot) -> str:
    interval = (
        "" if spot.low is None or spot.high is None else f" ({figures.interval(spot.low, spot.high, per_cent=False)})"
    )
    return f"{spot.at}: {figures.decimal(spot.value)}{interval}"


def _decades(values: Sequence[float]) -> tuple[float, float]:
    """The axis' ends, as powers of ten, a decade apart at least."""
    powers = [math.log10(value) for value in values if value > 0.0 and math.isfinite(value)] or [0.0]
    low, high = max(math.floor(min(powers)), -6), min(math.ceil(max(powers)), 9)
    return float(low), float(max(high, low + 1))


def _powers(low: float, high: float) -> range:
    step = max(1, math.ceil((high - low) / 4))
    return range(int(low), int(high) + 1, step)


def _log(value: float, low: float, high: float) -> float:
    if not value > 0.0:
        return low
    return min(max(math.log10(value), low), high) if math.isfinite(value) else high


def _points(points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{units(x)},{units(y)}" for x, y in points)
