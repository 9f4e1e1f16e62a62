"""Pictures of shapes. In the invented fediverse five-pointed stars are forbidden; everything else is harmless.

A motif is what is drawn; its copies are the same motif as people pass it on: another size, another format, a little
lighter or darker. Copies lie within PDQ's distance of one another, motifs far apart. Same arguments, same bytes (for
one release of Pillow).
"""

import io
import math
import random
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

SIDE: Final = 320
_FRAMES: Final = 4
_FRAME_MS: Final = 250

Colour = tuple[int, int, int]
Point = tuple[float, float]


class Shape(StrEnum):
    """What a motif is made of. star: forbidden."""

    DISC = "disc"
    BOX = "box"
    TRIANGLE = "triangle"
    BAR = "bar"
    STAR = "star"


HARMLESS: Final = (Shape.DISC, Shape.BOX, Shape.TRIANGLE, Shape.BAR)


@dataclass(frozen=True, slots=True)
class Motif:
    """One drawing: `number` tells it from others of its kind. An animated one moves a little."""

    number: int
    forbidden: bool = False
    animated: bool = False


@dataclass(frozen=True, slots=True)
class Picture:
    """A file, and what it is sent as."""

    data: bytes
    media_type: str


@dataclass(frozen=True, slots=True)
class _Stroke:
    shape: Shape
    centre: Point
    radius: float
    turn: float
    colour: Colour


def chance_of(*parts: object) -> random.Random:
    """A source of chance that is the same for the same `parts`, on every machine."""
    return random.Random("/".join(map(str, parts)))  # noqa: S311 - nothing secret is made of it


def draw(motif: Motif, seed: int, copy: int = 0) -> Picture:
    """The `copy`th copy of a motif as a file; copy 0 is the drawing as it was made."""
    chance = chance_of(seed, "copy", motif, copy)
    frames = render(motif, seed)
    if copy:
        side, light = chance.randint(240, 400), chance.uniform(0.92, 1.08)
        frames = [_alter(frame, side, light) for frame in frames]
    if len(frames) > 1:
        return _animate(frames)
    return _encode(frames[0], chance.choice(("JPEG", "JPEG", "PNG", "WEBP")), quality=chance.randint(70, 92))


def render(motif: Motif, seed: int) -> list[Image.Image]:
    """The drawing itself, RGB, `SIDE` pixels wide and high: one picture, several where it is animated."""
    chance = chance_of(seed, "motif", motif)
    background = _gradient(chance)
    kinds = (Shape.STAR,) if motif.forbidden else tuple(chance.sample(HARMLESS, chance.randint(1, 3)))
    strokes = [_stroke(chance.choice(kinds), chance) for _ in range(chance.randint(14, 30))]
    blur = chance.choice((0.0, 0.0, 0.7, 1.5))
    drifts = [(chance.uniform(-6, 6), chance.uniform(-6, 6)) for _ in strokes]
    frames = []
    for step in range(_FRAMES if motif.animated else 1):
        frame = background.copy()
        pen = ImageDraw.Draw(frame)
        for stroke, drift in zip(strokes, drifts, strict=True):
            _put(pen, stroke, (stroke.centre[0] + step * drift[0], stroke.centre[1] + step * drift[1]))
        frames.append(frame.filter(ImageFilter.GaussianBlur(blur)) if blur else frame)
    return frames


def _gradient(chance: random.Random) -> Image.Image:
    first, last = _colour(chance), _colour(chance)
    mask = Image.linear_gradient("L").rotate(chance.choice((0, 90, 180, 270))).resize((SIDE, SIDE))
    return Image.composite(Image.new("RGB", mask.size, first), Image.new("RGB", mask.size, last), mask)


def _stroke(shape: Shape, chance: random.Random) -> _Stroke:
    return _Stroke(
        shape=shape,
        centre=(chance.uniform(0, SIDE), chance.uniform(0, SIDE)),
        radius=SIDE * chance.uniform(0.05, 0.22),
        turn=chance.uniform(0, 2 * math.pi),
        colour=_colour(chance),
    )


def _colour(chance: random.Random) -> Colour:
    return chance.randrange(256), chance.randrange(256), chance.randrange(256)


def _put(pen: ImageDraw.ImageDraw, stroke: _Stroke, centre: Point) -> None:
    across, down = centre
    radius = stroke.radius
    if stroke.shape is Shape.DISC:
        pen.ellipse((across - radius, down - radius, across + radius, down + radius), fill=stroke.colour)
        return
    pen.polygon(
        [
            (
                across + reach * radius * math.cos(stroke.turn + angle),
                down + reach * radius * math.sin(stroke.turn + angle),
            )
            for reach, angle in _OUTLINES[stroke.shape]
        ],
        fill=stroke.colour,
    )


def _regular(corners: int) -> list[Point]:
    return [(1.0, 2 * math.pi * corner / corners) for corner in range(corners)]


_OUTLINES: Final[dict[Shape, list[Point]]] = {
    Shape.BOX: _regular(4),
    Shape.TRIANGLE: _regular(3),
    Shape.BAR: [(1.6, angle) for angle in (0.12, math.pi - 0.12, math.pi + 0.12, -0.12)],
    Shape.STAR: [(1.3 if corner % 2 == 0 else 0.5, math.pi * corner / 5) for corner in range(10)],
}
"""Corners as (distance from the centre in radii, angle)."""


def _alter(frame: Image.Image, side: int, light: float) -> Image.Image:
    return ImageEnhance.Brightness(frame.resize((side, side), Image.Resampling.LANCZOS)).enhance(light)


def _encode(frame: Image.Image, kind: str, quality: int) -> Picture:
    file = io.BytesIO()
    options = {"compress_level": 1} if kind == "PNG" else {"quality": quality, "method": 1}
    frame.save(file, kind, **options)
    return Picture(file.getvalue(), f"image/{kind.lower()}")


def _animate(frames: list[Image.Image]) -> Picture:
    file = io.BytesIO()
    frames[0].save(
        file, "WEBP", save_all=True, append_images=frames[1:], duration=_FRAME_MS, loop=0, quality=75, method=1
    )
    return Picture(file.getvalue(), "image/webp")
