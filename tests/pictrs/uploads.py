"""The same picture, harmless or not, in every media type that pict-rs takes."""

import io
from collections.abc import Sequence

import pillow_jxl  # noqa: F401  registers JPEG XL with Pillow
from PIL import Image

from tests import videos
from tests.stand_ins import accepted_picture, rejected_picture

SIDE = 320
FRAMES = 10

TAKEN = {
    "jpeg": "image/jpeg",
    "png": "image/png",
    "gif": "image/gif",
    "gif-animated": "image/gif",
    "apng": "image/apng",
    "webp": "image/webp",
    "webp-animated": "image/webp",
    "mp4-h264": "video/mp4",
    "webm-vp8": "video/webm",
    "webm-vp9": "video/webm",
    "webm-av1": "video/webm",
}
"""What a pict-rs takes with either ImageMagick, and the media type it is."""

BEYOND_IMAGEMAGICK_6 = {"avif": "image/avif", "jxl": "image/jxl"}
"""What Debian 12's ImageMagick does not let pict-rs take: these go to the gateway as pict-rs would send them."""

ANIMATED = ("gif-animated", "apng", "webp-animated")
CODECS = {
    "mp4-h264": ("libx264", "mp4"),
    "webm-vp8": ("libvpx", "webm"),
    "webm-vp9": ("libvpx-vp9", "webm"),
    "webm-av1": ("libsvtav1", "webm"),
}


def make_upload(kind: str, *, rejected: bool, seed: int = 0) -> bytes:
    """A file of `kind`. In a moving one that is to be rejected, the first half is harmless."""
    harmless, wanted = (
        _open(accepted_picture(seed, side=SIDE, kind="PNG")),
        _open((rejected_picture if rejected else accepted_picture)(seed + 1, side=SIDE, kind="PNG")),
    )
    moving = [harmless] * (FRAMES // 2) + [wanted] * (FRAMES // 2)
    if kind in CODECS:
        codec, container = CODECS[kind]
        return videos.encode(moving, codec=codec, container=container)
    if kind in ANIMATED:
        return _save_animated(kind, _distinct(moving))
    pillow_format = "JPEG" if kind == "jpeg" else kind.upper()
    return _save(wanted, pillow_format, **({"quality": 90} if kind in ("jpeg", "webp", "avif", "jxl") else {}))


def _open(png: bytes) -> Image.Image:
    with Image.open(io.BytesIO(png)) as image:
        return image.convert("RGB")


def _distinct(pictures: Sequence[Image.Image]) -> list[Image.Image]:
    """Each with a dot of its own: Pillow drops a frame that equals the one before it."""
    marked = []
    for number, picture in enumerate(pictures):
        copy = picture.copy()
        copy.paste((255, 255, 255), (4 * number, 0, 4 * number + 3, 3))
        marked.append(copy)
    return marked


def _save_animated(kind: str, pictures: Sequence[Image.Image]) -> bytes:
    frames = list(pictures)
    options = {"save_all": True, "duration": 100, "loop": 0}
    if kind == "gif-animated":
        frames = [frame.quantize(128, dither=Image.Dither.NONE) for frame in frames]
        return _save(frames[0], "GIF", append_images=frames[1:], **options)
    if kind == "apng":
        return _save(frames[0], "PNG", append_images=frames[1:], **options)
    return _save(frames[0], "WEBP", append_images=frames[1:], quality=85, **options)


def _save(image: Image.Image, pillow_format: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, pillow_format, **options)
    return out.getvalue()
