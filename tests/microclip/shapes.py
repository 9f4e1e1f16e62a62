"""Coloured shapes on plain or busy grounds: what microclip has learnt to tell apart, and is tested with."""

import io
import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

COLOURS = {
    "red": (220, 30, 35),
    "green": (35, 165, 60),
    "blue": (35, 70, 215),
    "yellow": (235, 205, 30),
    "purple": (145, 45, 180),
    "white": (245, 245, 245),
}
SHAPES = ("triangle", "square", "circle", "star")
LABELS = tuple((colour, shape) for colour in COLOURS for shape in SHAPES)

Points = list[tuple[float, float]]


def draw_shape(colour: str, shape: str, seed: int, *, width: int = 96, height: int = 96) -> Image.Image:
    """Draw one shape, RGB. `seed` moves, turns, scales and tints it and chooses the ground."""
    random = np.random.default_rng([seed, list(COLOURS).index(colour), SHAPES.index(shape)])
    image = _ground(random, width, height)
    side = min(width, height)
    radius = side * random.uniform(0.26, 0.42)
    slack = (width / 2 - radius, height / 2 - radius)
    middle = (
        width / 2 + random.uniform(-0.5, 0.5) * min(slack[0], side / 2 - radius),
        height / 2 + random.uniform(-0.5, 0.5) * min(slack[1], side / 2 - radius),
    )
    turn = random.uniform(-0.35, 0.35)
    outline = [(middle[0] + radius * x, middle[1] + radius * y) for x, y in _turned(_OUTLINES[shape](), turn)]
    tinted = tuple(int(np.clip(part + random.uniform(-18, 18), 0, 255)) for part in COLOURS[colour])
    ImageDraw.Draw(image).polygon(outline, fill=tinted)
    return image.filter(ImageFilter.GaussianBlur(side / 160))


def jpeg_of(image: Image.Image, *, quality: int = 85) -> bytes:
    """Encode a picture as the gateway's frames are."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _ground(random: np.random.Generator, width: int, height: int) -> Image.Image:
    """A dull ground: grey to brownish, smooth or with coarse noise."""
    grey = random.uniform(40, 150)
    base = np.full((1, 1, 3), grey) + random.uniform(-14, 14, (1, 1, 3))
    cells = int(random.integers(1, 7))
    coarse = base + random.uniform(-22, 22, (cells, cells, 1))
    small = Image.fromarray(np.clip(coarse, 0, 255).astype(np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def _polygon(corners: int, *, first: float) -> Points:
    angles = [first + 2 * math.pi * corner / corners for corner in range(corners)]
    return [(math.cos(angle), math.sin(angle)) for angle in angles]


def _star() -> Points:
    outer, inner = _polygon(5, first=-math.pi / 2), _polygon(5, first=-math.pi / 2 + math.pi / 5)
    return [point for pair in zip(outer, [(0.42 * x, 0.42 * y) for x, y in inner], strict=True) for point in pair]


def _turned(points: Points, angle: float) -> Points:
    cosine, sine = math.cos(angle), math.sin(angle)
    return [(x * cosine - y * sine, x * sine + y * cosine) for x, y in points]


_OUTLINES: dict[str, Callable[[], Points]] = {
    "triangle": lambda: _polygon(3, first=-math.pi / 2),
    "square": lambda: _polygon(4, first=math.pi / 4),
    "circle": lambda: _polygon(48, first=0.0),
    "star": _star,
}
