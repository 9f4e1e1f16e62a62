"""The funnel plot: every instance by how much it sent and how much of it was flagged, with what chance alone gives.

Counts are compared with what is usual for the same images: an instance that was judged by stricter models or policies
than most stands where it would stand had they judged everybody. Within the limits nobody stands out, and where they are
many, they are drawn as places with a number and no name.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

import numpy as np
from markupsafe import Markup

from federation_audit.pages import figures
from federation_audit.pages.cells import Tone
from federation_audit.pages.plots import Frame, units
from federation_audit.statistics.assessment import Assessment
from federation_audit.statistics.funnel import COVERAGES, draw_limits
from federation_audit.statistics.levels import InstanceAssessment, Level

WIDTH, HEIGHT = 720.0, 380.0
FRAME = Frame(64.0, 14.0, WIDTH - 14.0, HEIGHT - 46.0)
ALONE_MOST = 150
"""As many within the limits are drawn one by one; more of them as places."""
OUTSIDE_MOST = 250
NAMED_MOST = 14
TONES: Mapping[Level, Tone] = {
    Level.INSUFFICIENT: "plain",
    Level.WATCH: "watch",
    Level.RESTRICT: "warn",
    Level.RECOMMEND: "bad",
}
_COLUMNS, _ROWS = 48, 22
_LIMIT_POINTS = 60
_LABEL_CUT = 28
_SHAPES = {
    Level.INSUFFICIENT: "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",  # a disc
    Level.WATCH: "M0-5.5L5 3.5H-5z",  # a triangle
    Level.RESTRICT: "M0-6L6 0L0 6L-6 0z",  # a diamond
    Level.RECOMMEND: "M-5-5H5V5H-5z",  # a square
}
_SIZES = ((1, 2.0), (4, 3.0), (16, 4.2), (64, 5.6), (math.inf, 7.0))


@dataclass(frozen=True, slots=True)
class Point:
    """An instance in the plot. `images` are those it sent, in images that are judged as most are; `rate` is the flagged
    share of them. `side`: 1 above the outer limit, -1 below it, 0 within."""

    of: InstanceAssessment
    images: float
    rate: float
    side: int

    @property
    def stands_out(self) -> bool:
        """Whether it is drawn on its own however many there are."""
        return self.side != 0 or self.of.level > Level.INSUFFICIENT


@dataclass(frozen=True, slots=True)
class Funnel:
    """What the plot shows. `usual` is the flagged share that is usual; `small` are left out: too few images to say
    anything. `hidden` stand out, and are not drawn for want of room."""

    points: tuple[Point, ...]
    usual: float
    shape: float | None
    small: int
    hidden: int = 0

    @property
    def within(self) -> int:
        """How many do not stand out."""
        return sum(not point.stands_out for point in self.points)

    @property
    def crowded(self) -> bool:
        """Whether those that do not stand out are drawn as places."""
        return self.within > ALONE_MOST


def make_funnel(assessment: Assessment) -> Funnel:
    """The funnel of all instances with enough images to be compared, and of those of a level whatever they sent."""
    least = assessment.rules.least_media
    every = [each for each in assessment if each.triage.expected > 0.0]
    wanted = [each for each in every if each.triage.media >= least or each.level > Level.INSUFFICIENT]
    media = sum(each.triage.media for each in every)
    due = sum(each.triage.expected for each in every)
    usual = due / media if media else 0.0
    prior = assessment.usual.prior
    shape = prior.shape if prior.learnt else None
    if not wanted or not usual:
        return Funnel((), usual, shape, len(every))
    expected = np.array([each.triage.expected for each in wanted])
    outer = draw_limits(expected, shape, COVERAGES[-1:])[0]
    points = []
    for each, low, high in zip(wanted, outer.low.tolist(), outer.high.tolist(), strict=True):
        found = each.triage
        side = 1 if found.flagged > high else -1 if found.flagged < low else 0
        points.append(Point(each, found.expected / usual, found.flagged / found.expected * usual, side))
    points.sort(key=lambda point: (-point.of.level, -abs(point.side), -point.of.triage.chance, point.of.instance))
    out = sum(point.stands_out for point in points)
    hidden = max(0, out - OUTSIDE_MOST)
    if hidden:  # the least of those that stand out
        outside = [point for point in points if point.stands_out][:OUTSIDE_MOST]
        points = outside + [point for point in points if not point.stands_out]
    return Funnel(tuple(points), usual, shape, len(every) - len(wanted), hidden)


def draw_funnel(funnel: Funnel) -> Markup:
    """The plot, with a link for each instance that is drawn on its own."""
    if not funnel.points:
        return Markup("")
    scale = _Scale.of(funnel)
    parts = [_axes(scale), _limits(funnel, scale)]
    within = [point for point in funnel.points if not point.stands_out]
    if funnel.crowded:
        parts.append(_places(within, scale))
    else:
        parts.extend(_point(point, scale) for point in within)
    outside = [point for point in funnel.points if point.stands_out]
    parts.extend(_point(point, scale) for point in reversed(outside))  # the gravest lie on top
    parts.append(_labels(outside, scale))
    says = (
        f"{len(funnel.points):,} instances by images (to the right) and by the flagged share of them (upwards);"
        f" usual are {figures.share(funnel.usual)}. {len(outside):,} stand out. The table below has all of them."
    )
    return Markup(
        '<svg class="plot funnel" viewBox="0 0 {} {}" role="group" aria-label="{}"><desc>{}</desc>{}</svg>'
    ).format(units(WIDTH), units(HEIGHT), "Funnel plot", says, Markup("").join(parts))


def draw_shape(level: Level) -> Markup:
    """The mark of a level, for the legend."""
    return Markup(
        '<svg class="shape" viewBox="-8 -8 16 16" aria-hidden="true"><path class="point level-{}" d="{}"/></svg>'
    ).format(int(level), _SHAPES[level])


@dataclass(frozen=True, slots=True)
class _Scale:
    """Images on a logarithmic axis, rates on that of their square roots: none is lost at 0, and the worst fit in."""

    least: float
    most: float
    top: float

    @classmethod
    def of(cls, funnel: Funnel) -> "_Scale":
        images = [point.images for point in funnel.points]
        least, most = min(images) / 1.15, max(images) * 1.15
        highest = max([point.rate for point in funnel.points] + [4.0 * funnel.usual])
        return cls(least, most, min(highest * 1.1, 1.0) if highest <= 1.0 else highest * 1.1)

    def x(self, images: float) -> float:
        share = math.log(images / self.least) / math.log(self.most / self.least)
        return FRAME.across(min(max(share, 0.0), 1.0))

    def y(self, rate: float) -> float:
        return FRAME.up(math.sqrt(min(max(rate, 0.0) / self.top, 1.0)))


def _axes(scale: _Scale) -> Markup:
    parts = []
    for tick in _rates(scale.top):
        y = scale.y(tick)
        parts.append(
            Markup(
                '<line class="rule" x1="{}" x2="{}" y1="{}" y2="{}"/><text class="tick" x="{}" y="{}">{}</text>'
            ).format(
                units(FRAME.left),
                units(FRAME.right),
                units(y),
                units(y),
                units(FRAME.left - 6),
                units(y + 4),
                f"{tick * 100:g}\N{NO-BREAK SPACE}%",
            )
        )
    for tick in _images(scale.least, scale.most):
        x = scale.x(tick)
        parts.append(
            Markup(
                '<line class="rule" x1="{}" x2="{}" y1="{}" y2="{}"/><text class="tick middle" x="{}" y="{}">{}</text>'
            ).format(
                units(x),
                units(x),
                units(FRAME.top),
                units(FRAME.bottom),
                units(x),
                units(FRAME.bottom + 17),
                figures.count_short(tick),
            )
        )
    parts.append(
        Markup('<text class="axis" x="{}" y="{}">{}</text>').format(
            units(FRAME.right), units(HEIGHT - 8), "images it sent \N{RIGHTWARDS ARROW}"
        )
    )
    parts.append(
        Markup('<text class="axis start" x="{}" y="{}">{}</text>').format(
            units(4), units(HEIGHT - 8), "\N{UPWARDS ARROW} flagged of them"
        )
    )
    return Markup("").join(parts)


def _images(least: float, most: float) -> list[float]:
    """Ticks for the logarithmic axis: powers of ten, and more where those are few."""
    steps = (1.0,) if most / least > 1e3 else (1.0, 3.0) if most / least > 30.0 else (1.0, 2.0, 5.0)
    powers = range(math.floor(math.log10(least)), math.ceil(math.log10(most)) + 1)
    every = [step * 10.0**power for power in powers for step in steps]
    return [tick for tick in every if least <= tick <= most]


def _rates(top: float) -> list[float]:
    """Ticks for the square-root axis: far enough apart to be read."""
    found = [0.0]
    candidates = [step * 10.0**power for power in range(-6, 1) for step in (1.0, 2.0, 5.0)]
    for rate in candidates:
        if rate <= top and math.sqrt(rate / top) - math.sqrt(found[-1] / top) > 0.13:
            found.append(rate)
    return found


def _limits(funnel: Funnel, scale: _Scale) -> Markup:
    images = np.geomspace(scale.least, scale.most, _LIMIT_POINTS)
    expected = images * funnel.usual
    parts = [
        Markup('<line class="usual" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
            units(FRAME.left), units(FRAME.right), units(scale.y(funnel.usual)), units(scale.y(funnel.usual))
        )
    ]
    for limits, name in zip(draw_limits(expected, funnel.shape, smooth=True), ("inner", "outer"), strict=True):
        for counts in (limits.low, limits.high):
            rates = (counts / images).tolist()
            points = " ".join(
                f"{units(scale.x(at))},{units(scale.y(rate))}" for at, rate in zip(images.tolist(), rates, strict=True)
            )
            parts.append(Markup('<polyline class="bound {}" points="{}"/>').format(name, points))
    return Markup("").join(parts)


def _places(within: Iterable[Point], scale: _Scale) -> Markup:
    counts: Counter[tuple[int, int]] = Counter()
    for point in within:
        across = (scale.x(point.images) - FRAME.left) / (FRAME.right - FRAME.left)
        up = (FRAME.bottom - scale.y(point.rate)) / (FRAME.bottom - FRAME.top)
        counts[min(int(across * _COLUMNS), _COLUMNS - 1), min(int(up * _ROWS), _ROWS - 1)] += 1
    marks = [
        Markup('<circle cx="{}" cy="{}" r="{}"><title>{}</title></circle>').format(
            units(FRAME.across((column + 0.5) / _COLUMNS)),
            units(FRAME.up((row + 0.5) / _ROWS)),
            next(size for most, size in _SIZES if number <= most),
            f"{number:,} {'instance' if number == 1 else 'instances'} within the limits",
        )
        for (column, row), number in sorted(counts.items())
    ]
    return Markup('<g class="places">{}</g>').format(Markup("").join(marks))


def _point(point: Point, scale: _Scale) -> Markup:
    found = point.of.triage
    says = (
        f"{point.of.instance}: {level_word(point.of.level)}, {found.flagged:,} flagged of {found.media:,} images,"
        f" {figures.decimal(found.expected, 2)} are usual"
    )
    return Markup(
        '<a href="{}" aria-label="{}"><g transform="translate({} {})"><circle class="reach" r="9"/>'
        '<path class="point level-{}" d="{}"/></g><title>{}</title></a>'
    ).format(
        instance_path(point.of.instance),
        says,
        units(scale.x(point.images)),
        units(scale.y(point.rate)),
        int(point.of.level),
        _SHAPES[point.of.level],
        says,
    )


def _labels(outside: Sequence[Point], scale: _Scale) -> Markup:
    """Names of those that stand out, the gravest first, as long as there is room."""
    marks = [(scale.x(point.images), scale.y(point.rate)) for point in outside]
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in marks]
    parts: list[Markup] = []
    for point, (x, y) in zip(outside, marks, strict=True):
        if len(parts) >= NAMED_MOST:
            break
        name = point.of.instance
        name = name if len(name) <= _LABEL_CUT else f"{name[: _LABEL_CUT - 1]}…"
        width = 8.5 * len(name)
        to_left = x + 10 + width > FRAME.right
        left = x - 10 - width if to_left else x + 10
        box = (left, y - 9, left + width, y + 9)
        if left < FRAME.left or any(_overlap(box, other) for other in taken):
            continue
        taken.append(box)
        parts.append(
            Markup('<text class="name{}" x="{}" y="{}" aria-hidden="true">{}</text>').format(
                " last" if to_left else "", units(x - 10 if to_left else x + 10), units(y + 4), name
            )
        )
    return Markup("").join(parts)


def _overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def level_word(level: Level) -> str:
    """What a level is called in the pages."""
    return {
        Level.INSUFFICIENT: "insufficient evidence",
        Level.WATCH: "watch",
        Level.RESTRICT: "restrict",
        Level.RECOMMEND: "recommend",
    }[level]


def instance_path(domain: str) -> str:
    """The page of an instance."""
    return f"/instances/{quote(domain, safe='[]:')}"
