"""Pictures that stand in for what no test may contain.

`rejected_picture` is a handful of blurred ellipses, found by random search against the two default models, which the
default policy rejects with a wide margin; it shows nothing. `accepted_picture` is its harmless counterpart. Both are
drawn anew each time, with each shape moved and tinted a little by `seed`, and survive re-encoding and scaling to 256 px
or more. (Noise they do not survive: it makes safety-s see nothing in the shapes.)
"""

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SHAPES = Path(__file__).with_name("data") / "rejected_shapes.json"
MOVE = 0.004  # of the side
TINT = 0.008  # of full intensity: two levels


def rejected_picture(seed: int = 0, *, side: int = 512, kind: str = "JPEG") -> bytes:
    """A square picture, `side` pixels wide, that the default policy rejects; no two seeds give the same bytes."""
    shapes = json.loads(SHAPES.read_text())
    return _encode(_draw(shapes, seed, side), kind)


def accepted_picture(seed: int = 0, *, side: int = 512, kind: str = "JPEG") -> bytes:
    """A square picture, `side` pixels wide, that the default policy accepts; no two seeds give the same bytes."""
    shapes = {
        "background": (0.75, 0.85, 0.95),
        "ellipses": [(0.3, 0.35, 0.2, 0.1, 0.1, 0.1, 0.5, 0.2), (0.65, 0.7, 0.15, 0.25, 0.0, 0.1, 0.2, 0.6)],
    }
    return _encode(_draw(shapes, seed, side), kind)


def _draw(shapes: dict[str, Any], seed: int, side: int) -> Image.Image:
    jitter = np.random.default_rng(seed)
    image = Image.new("RGB", (side, side), _colour(shapes["background"], jitter))
    draw = ImageDraw.Draw(image)
    for x, y, radius_x, radius_y, turn, *colour in shapes["ellipses"]:
        x, y = x + jitter.uniform(-MOVE, MOVE), y + jitter.uniform(-MOVE, MOVE)
        cosine, sine = math.cos(turn * math.pi), math.sin(turn * math.pi)
        outline = []
        for step in range(40):
            across = abs(radius_x) * math.cos(step * math.pi / 20)
            along = abs(radius_y) * math.sin(step * math.pi / 20)
            outline.append(((x + across * cosine - along * sine) * side, (y + across * sine + along * cosine) * side))
        draw.polygon(outline, fill=_colour(colour, jitter))
    return image.filter(ImageFilter.GaussianBlur(side / 100))


def _colour(parts: Any, jitter: np.random.Generator) -> tuple[int, ...]:
    return tuple(int(255 * min(max(part + jitter.uniform(-TINT, TINT), 0.0), 1.0)) for part in parts)


def _encode(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    options: dict[str, Any] = {"quality": 90} if kind in ("JPEG", "WEBP", "AVIF") else {}
    image.save(buffer, kind, **options)
    return buffer.getvalue()
