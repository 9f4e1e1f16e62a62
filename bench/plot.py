"""A small line chart as SVG: goodput against offered load."""

from collections.abc import Mapping, Sequence
from pathlib import Path

WIDTH, HEIGHT = 640, 360
LEFT, BOTTOM, TOP, RIGHT = 60, 50, 30, 170
COLOURS = ("#1b6ca8", "#d1741f", "#5b8c3a", "#8a8a8a")

Points = Sequence[tuple[float, float]]


def draw_lines(lines: Mapping[str, Points], path: Path, *, title: str, across: str, up: str) -> None:
    """Write the chart of `lines` (name -> points) to `path`; both axes start at 0."""
    most_x = max(x for points in lines.values() for x, _ in points)
    most_y = max(y for points in lines.values() for _, y in points) * 1.05 or 1.0

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            LEFT + x / most_x * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - y / most_y * (HEIGHT - BOTTOM - TOP),
        )

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif"'
        ' font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="18" font-size="14">{title}</text>',
        _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, across, "middle"),
        f'<text transform="translate(16 {HEIGHT / 2}) rotate(-90)" text-anchor="middle">{up}</text>',
    ]
    for step in range(5):
        x, y = most_x * step / 4, most_y * step / 4
        at_x, floor = place(x, 0)
        left, at_y = place(0, y)
        right, _ = place(most_x, 0)
        parts.append(f'<path d="M{left:.1f} {at_y:.1f}H{right:.1f}" stroke="#ddd"/>')
        parts.append(_text(left - 6, at_y + 4, f"{y:.0f}", "end"))
        parts.append(_text(at_x, floor + 18, f"{x:.0f}", "middle"))
    for (name, points), colour in zip(lines.items(), COLOURS, strict=False):
        places = [place(x, y) for x, y in points]
        joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{joined}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
        parts.append(_text(places[-1][0] + 8, places[-1][1] + 4, name, "start", colour))
    path.write_text("\n".join([*parts, "</svg>"]) + "\n")


def _text(x: float, y: float, words: str, anchor: str, colour: str = "#222") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{words}</text>'
