"""From a decoded picture to what travels: a small RGB picture, its JPEG, its PDQ hash."""

import functools
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageCms

from gateway.frames.frame import Frame
from gateway.frames.pdq import pdq
from gateway.frames.settings import FrameSettings

BACKDROP = (128, 128, 128)
"""What shows through transparent pixels: neutral grey, on which both black and white drawings can be seen."""

_LOWER_QUALITIES = (75, 65, 55, 45, 35, 25, 15)
_RESAMPLING = Image.Resampling.HAMMING  # at 60 % of bicubic's cost; PDQ moves by 0-2 bits of 256
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, slots=True)
class Moment:
    """A picture at its time: plain RGB, already small."""

    at_ms: int
    image: Image.Image


@dataclass(frozen=True, slots=True)
class Footage:
    """What a decoder found: the original's size as shown, its duration (0: a still), the chosen moments."""

    width: int
    height: int
    duration_ms: int
    moments: Sequence[Moment]


def fit(width: int, height: int, size: int) -> tuple[int, int]:
    """The size in pixels that brings the longer side to `size` at most, keeping the proportions."""
    longest = max(width, height)
    if longest <= size:
        return width, height
    return max(1, round(width * size / longest)), max(1, round(height * size / longest))


def turned(width: int, height: int, orientation: int) -> tuple[int, int]:
    """The size as shown of a picture with this EXIF orientation (1-8)."""
    return (height, width) if orientation >= 5 else (width, height)


def shrink(image: Image.Image, size: int, orientation: int = 1) -> Image.Image:
    """A plain RGB picture of at most `size` pixels a side, never enlarged, as a viewer shows it.

    Colours with a profile are converted to sRGB: a profile that swaps channels would otherwise show people one
    picture and the models another. Done after shrinking, where it is cheap. Alpha goes over `BACKDROP`; 16 bits
    are scaled to 8; `orientation` is EXIF's.
    """
    profile = image.info.get("icc_profile")
    small = _eight_bit(image)
    target = fit(small.width, small.height, size)
    if target != small.size:
        small = small.resize(target, _RESAMPLING)
    small = _plain(small, bytes(profile) if profile else b"")
    return small.transpose(_TURNS[orientation]) if orientation in _TURNS else small


def _eight_bit(image: Image.Image) -> Image.Image:
    """The picture in a mode of 8 bits a channel that can be resized smoothly."""
    if image.mode == "1":
        return image.convert("L")
    if image.mode in ("P", "PA"):
        return image.convert("RGBA" if image.mode == "PA" or "transparency" in image.info else "RGB")
    if image.mode in ("L", "RGB") and "transparency" in image.info:
        return image.convert("RGBA")
    if image.mode.startswith("I"):
        wide = np.asarray(image).clip(0, 65535)
        return Image.fromarray(((wide.astype(np.uint32) + 128) // 257).astype(np.uint8))
    if image.mode == "F":
        return Image.fromarray((np.asarray(image).clip(0, 1) * 255 + 0.5).astype(np.uint8))
    return image


def _plain(image: Image.Image, profile: bytes) -> Image.Image:
    """RGB without alpha, profile or any other information of the original."""
    if image.mode in ("RGBA", "LA", "RGBa", "La"):
        rgba = image.convert("RGBA")
        alpha, colours = rgba.getchannel("A"), rgba.convert("RGB")
        if profile:
            colours = _to_srgb(colours, profile)
        flat = Image.new("RGB", image.size, BACKDROP)
        flat.paste(colours, mask=alpha)
        return flat
    if profile:
        image = _to_srgb(image, profile)
    if image.mode != "RGB":
        image = image.convert("RGB")
    image.info = {}
    return image


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """The picture in sRGB; unchanged when the profile is broken, made for another mode, or sRGB in effect."""
    conversion = _conversion(profile, image.mode)
    return image if conversion is None else conversion.apply(image)


@functools.lru_cache(maxsize=16)
def _conversion(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    if mode not in ("L", "RGB", "CMYK"):
        return None
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        conversion = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
        if mode == "RGB":
            levels = np.linspace(0, 255, 6).astype(np.uint8)
            probe = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(6, 36, 3)
            shown = np.asarray(conversion.apply(Image.fromarray(probe)))
            if np.abs(shown.astype(np.int16) - probe).max() <= 3:
                return None
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    return conversion


def render(moments: Sequence[Moment], settings: FrameSettings) -> tuple[Frame, ...]:
    """JPEG (4:2:0, no metadata) and PDQ of each moment; quality, then size, steps down until all fit `max_bytes`."""
    images = [moment.image for moment in moments]
    jpegs = [_encode(image, settings.jpeg_quality) for image in images]
    lower = [quality for quality in _LOWER_QUALITIES if quality < settings.jpeg_quality]
    while sum(map(len, jpegs)) > settings.max_bytes:
        if lower:
            quality = lower.pop(0)
        else:
            quality = _LOWER_QUALITIES[-1]
            images = [image.reduce(2) for image in images]
        jpegs = [_encode(image, quality) for image in images]
    frames = []
    for moment, image, jpeg in zip(moments, images, jpegs, strict=True):
        found = pdq(moment.image)
        frames.append(Frame(jpeg, image.width, image.height, moment.at_ms, found.pdq, found.quality, found.turned))
    return tuple(frames)


def _encode(image: Image.Image, quality: int) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality, subsampling="4:2:0")
    return out.getvalue()
