"""Old scores against new ones, as SVG that takes its colours from the page around it."""

from collections.abc import Sequence
from html import escape
from typing import Final

from fediwarden.rescan.outcome import Point
from schemas.messages import Decision

SIZE: Final = 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 66, 10, 10, 40
_STRIP_AT = 46  # those without an old score stand left of the axis
_STRENGTH = {Decision.ACCEPT: 0, Decision.REVIEW: 1, Decision.REJECT: 2}


def draw_scores(label: str, points: Sequence[Point]) -> str:
    """An SVG element: each point an image, its score before across and after up; on the dashed line nothing changed.

    Its classes, to be coloured: ``axis``, and of points ``same``, ``stricter`` and ``milder``. Images that had no such
    score before stand in a strip of their own.
    """
    width, height = SIZE + _LEFT + _RIGHT, SIZE + _TOP + _BOTTOM
    changed = sum(point.before is not point.after for point in points)
    parts = [
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="{escape(label)}: old scores against new ones of {len(points)} images, '
        f'{changed} of them decided differently">',
        f'<path class="axis" d="M{_LEFT} {_TOP}V{_TOP + SIZE}H{_LEFT + SIZE}"/>',
        f'<path class="axis dashed" d="M{_LEFT} {_TOP + SIZE}L{_LEFT + SIZE} {_TOP}"/>',
    ]
    for step in range(5):
        share = step / 4
        x, y = _place(share, share)
        parts.append(f'<text x="{x:.0f}" y="{_TOP + SIZE + 16}" text-anchor="middle">{share:g}</text>')
        parts.append(f'<text x="{_STRIP_AT - 14}" y="{y + 4:.0f}" text-anchor="end">{share:g}</text>')
    parts.append(f'<text x="{_LEFT + SIZE / 2}" y="{height - 4}" text-anchor="middle">score before</text>')
    parts.append(
        f'<text transform="translate(10 {_TOP + SIZE / 2}) rotate(-90)" text-anchor="middle">score after</text>'
    )
    if any(point.old is None for point in points):
        parts.append(f'<text x="{_STRIP_AT}" y="{_TOP + SIZE + 16}" text-anchor="middle">none</text>')
    # The flips come last, so that they lie on top.
    for point in sorted(points, key=lambda each: each.before is not each.after):
        x, y = (_STRIP_AT, _place(0.0, point.new)[1]) if point.old is None else _place(point.old, point.new)
        parts.append(_mark(point, x, y))
    return "".join([*parts, "</svg>"])


def _place(old: float, new: float) -> tuple[float, float]:
    return _LEFT + old * SIZE, _TOP + (1 - new) * SIZE


def _mark(point: Point, x: float, y: float) -> str:
    """A dot; a triangle that points up where the decision is stricter now, down where it is milder."""
    change = _STRENGTH[point.after] - _STRENGTH[point.before]
    if not change:
        return f'<circle class="same" cx="{x:.1f}" cy="{y:.1f}" r="2"/>'
    tip = -4 if change > 0 else 4
    name = "stricter" if change > 0 else "milder"
    return f'<path class="{name}" d="M{x:.1f} {y + tip:.1f}l4 {-2 * tip}h-8z"/>'
