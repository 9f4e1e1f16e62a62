"""What is done to a picture before anybody sees it. Pixels come and go in memory alone."""

import io
from enum import StrEnum

from PIL import Image, ImageFilter

from schemas.topics import FRAMES_MAX_BYTES

_READ_MOST_SIDE = 2048  # as the scanner: our gateway sends at most 512
_COARSE = 24
_FINE = 64
_SIDES = {"blurred": 256, "grey": 384, "plain": 512}
_QUALITY = 85


class Veil(StrEnum):
    """How a picture is shown, from the least to the most.

    blurred: greyscale, at most 24 points across, which no sharpening brings back; grey: greyscale, at most 64 points
    across; plain: as it is, at most 512 pixels.
    """

    BLURRED = "blurred"
    GREY = "grey"
    PLAIN = "plain"


VEILS = tuple(Veil)


class FrameUnreadable(Exception):
    """The frame is no JPEG as our gateway makes them."""


def veil(jpeg: bytes, how: Veil) -> bytes:
    """A frame as a JPEG of its own, veiled, at most 512 pixels wide and high. Raises `FrameUnreadable`."""
    if len(jpeg) > FRAMES_MAX_BYTES:
        raise FrameUnreadable(f"it has {len(jpeg)} bytes")
    try:
        with Image.open(io.BytesIO(jpeg), formats=("JPEG",)) as picture:
            if max(picture.size) > _READ_MOST_SIDE:
                raise FrameUnreadable(f"it is {picture.width} x {picture.height} pixels")
            shown = _veil(picture, how)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise FrameUnreadable(str(error)) from error
    out = io.BytesIO()
    bare = Image.frombytes(shown.mode, shown.size, shown.tobytes())  # Pillow writes comments along that it has read
    bare.save(out, "JPEG", quality=_QUALITY)
    return out.getvalue()


def _veil(picture: Image.Image, how: Veil) -> Image.Image:
    size = _within(picture.size, _SIDES[how])
    if how is Veil.PLAIN:
        return picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    points = _within(picture.size, _COARSE if how is Veil.BLURRED else _FINE)
    # BOX: each point is the mean of what it covers. What was finer is gone; making it large again only smooths.
    few = picture.convert("L").resize(points, Image.Resampling.BOX)
    large = few.resize(size, Image.Resampling.BICUBIC)
    return large.filter(ImageFilter.GaussianBlur(size[0] / points[0] / (1 if how is Veil.BLURRED else 2)))


def _within(size: tuple[int, int], side: int) -> tuple[int, int]:
    """The size in the same proportions with no side over `side`; never larger than it was."""
    scale = min(1.0, side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
