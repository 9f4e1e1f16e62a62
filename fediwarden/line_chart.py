"""A small line chart as SVG, written by hand: a plotting library would weigh more than all of fediwarden."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

WIDTH, HEIGHT = 640, 360
LEFT, BOTTOM, TOP, RIGHT = 60, 50, 30, 170
LABEL_HEIGHT = 14
COLOURS = ("#1b6ca8", "#d1741f", "#5b8c3a", "#8a8a8a")

Points = Sequence[tuple[float, float]]


def draw_lines(
    lines: Mapping[str, Points], path: Path, *, title: str, across: str, up: str, dotted: bool = True
) -> None:
    """Write the chart of `lines` (name -> points) to `path`; both axes start at 0. `dotted` marks each point."""
    most_x = _round_up(max(x for points in lines.values() for x, _ in points))
    most_y = _round_up(max(y for points in lines.values() for _, y in points))

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            LEFT + x / most_x * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - y / most_y * (HEIGHT - BOTTOM - TOP),
        )

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif"'
        ' font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="18" font-size="14">{escape(title)}</text>',
        _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, across, "middle"),
        f'<text transform="translate(16 {HEIGHT / 2}) rotate(-90)" text-anchor="middle">{escape(up)}</text>',
    ]
    for step in range(5):
        x, y = most_x * step / 4, most_y * step / 4
        at_x, floor = place(x, 0)
        left, at_y = place(0, y)
        right, _ = place(most_x, 0)
        parts.append(f'<path d="M{left:.1f} {at_y:.1f}H{right:.1f}" stroke="#ddd"/>')
        parts.append(_text(left - 6, at_y + 4, f"{y:.0f}", "end"))
        parts.append(_text(at_x, floor + 18, f"{x:.0f}", "middle"))
    labels: list[tuple[float, float, str, str]] = []
    for (name, points), colour in zip(lines.items(), COLOURS, strict=False):
        places = [place(x, y) for x, y in points]
        joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{joined}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [] if not dotted else [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
        labels.append((places[-1][1] + 4, places[-1][0] + 8, name, colour))
    lowest = float("inf")
    for y, x, name, colour in sorted(labels, reverse=True):
        lowest = min(y, lowest - LABEL_HEIGHT)  # two lines may end at the same height
        parts.append(_text(x, lowest, name, "start", colour))
    path.write_text("\n".join([*parts, "</svg>"]) + "\n")


def _round_up(value: float) -> float:
    """The next number whose quarters are round."""
    unit = 10.0 ** math.floor(math.log10(max(value, 1.0)))
    return next(unit * step for step in (1, 2, 4, 6, 8, 10) if unit * step >= value)


def _text(x: float, y: float, words: str, anchor: str, colour: str = "#222") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(words)}</text>'
