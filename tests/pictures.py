"""Every picture the tests need, made on the spot: no file of anyone's lies in the tree.

`make(kind)` gives the bytes of one kind; `KINDS` lists the good ones with the media type they must be taken for,
`BAD_KINDS` the ones that are no readable image. `photo` is a busy, photograph-like JPEG for load and timing.
Same arguments, same picture; results are cached, so do not mind asking twice.
"""

import functools
import io
import struct
import zlib
from collections.abc import Callable, Sequence

import numpy as np
import pillow_jxl  # noqa: F401  registers JPEG XL with Pillow
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageDraw

from tests import videos

Colour = tuple[int, int, int]
RED: Colour = (210, 40, 40)
GREEN: Colour = (40, 170, 60)
BLUE: Colour = (40, 70, 210)
WIDTH, HEIGHT = 640, 480

KINDS: tuple[tuple[str, str], ...] = (
    ("jpeg", "image/jpeg"),
    ("jpeg-progressive", "image/jpeg"),
    ("jpeg-cmyk", "image/jpeg"),
    ("jpeg-gray", "image/jpeg"),
    ("jpeg-exif-rotated", "image/jpeg"),
    ("jpeg-icc", "image/jpeg"),
    ("png", "image/png"),
    ("png-rgba", "image/png"),
    ("png-palette", "image/png"),
    ("png-palette-transparent", "image/png"),
    ("png-gray", "image/png"),
    ("png-gray-alpha", "image/png"),
    ("png-16bit", "image/png"),
    ("png-gray-16bit", "image/png"),
    ("png-1bit", "image/png"),
    ("apng", "image/apng"),
    ("webp", "image/webp"),
    ("webp-lossless", "image/webp"),
    ("webp-alpha", "image/webp"),
    ("webp-animated", "image/webp"),
    ("gif", "image/gif"),
    ("gif-animated", "image/gif"),
    ("avif", "image/avif"),
    ("avif-alpha", "image/avif"),
    ("avif-animated", "image/avif"),
    ("jxl", "image/jxl"),
    ("jxl-lossless", "image/jxl"),
    ("mp4-h264", "video/mp4"),
    ("mp4-h264-rotated", "video/mp4"),
    ("mp4-av1", "video/mp4"),
    ("webm-vp8", "video/webm"),
    ("webm-vp8-alpha", "video/webm"),
    ("webm-vp9", "video/webm"),
    ("webm-vp9-alpha", "video/webm"),
    ("webm-vp9-rotated", "video/webm"),
    ("webm-av1", "video/webm"),
)
"""(kind, media type its content is) of every readable kind."""

ANIMATED: tuple[str, ...] = ("apng", "webp-animated", "gif-animated", "avif-animated")

BAD_KINDS: tuple[str, ...] = (
    "empty",
    "garbage",
    "text",
    "pdf",
    "svg",
    "html",
    "zip",
    "tiff",
    "bmp",
    "mp3",
    "png-bomb",
    "png-13300",
    *(f"truncated-{kind}" for kind, _ in KINDS),
)
"""Kinds that no scan may take for a whole image. `gif-10000` and `video-40mb` are readable, but heavy."""


def scene(seed: int = 0, width: int = WIDTH, height: int = HEIGHT, colour: Colour = RED) -> Image.Image:
    """A picture mostly of `colour`, lighter at the top, with shapes that depend on `seed`: mode RGB."""
    rng = np.random.default_rng(seed)
    shade = np.linspace(1.15, 0.75, height)[:, None, None]
    pixels = np.clip(np.array(colour)[None, None, :] * shade * np.ones((height, width, 1)), 0, 255)
    image = Image.fromarray(pixels.astype(np.uint8), "RGB")
    draw = ImageDraw.Draw(image)
    for _ in range(6):
        x, y = int(rng.integers(0, width)), int(rng.integers(0, height))
        r = int(rng.integers(max(2, width // 24), max(3, width // 8)))
        tint = tuple(int(v) for v in np.clip(np.array(colour) + rng.integers(-60, 60, 3), 0, 255))
        if rng.random() < 0.5:
            draw.ellipse((x - r, y - r, x + r, y + r), fill=tint)
        else:
            draw.rectangle((x - r, y - r // 2, x + r, y + r // 2), fill=tint)
    return image


def _texture(seed: int, width: int, height: int) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width, 3), dtype=np.float32)
    for cells, weight in ((4, 80.0), (16, 45.0), (64, 25.0), (256, 14.0)):
        coarse = rng.standard_normal((max(2, cells * height // max(width, 1)), cells, 3)).astype(np.float32)
        layers = [
            Image.fromarray(coarse[:, :, c], "F").resize((width, height), Image.Resampling.BICUBIC) for c in range(3)
        ]
        total += weight * np.stack([np.asarray(layer) for layer in layers], axis=2)
    total += 4.0 * rng.standard_normal((height, width, 1)).astype(np.float32)
    texture: NDArray[np.uint8] = np.clip(total + 120.0, 0, 255).astype(np.uint8)
    return texture


@functools.lru_cache(maxsize=64)
def photo(seed: int = 0, width: int = 1632, height: int = 1224, quality: int = 88) -> bytes:
    """A busy JPEG with detail at every scale, as a camera's: about 0.25 byte a pixel at quality 88."""
    return _save(Image.fromarray(_texture(seed, width, height), "RGB"), "JPEG", quality=quality)


def noise(seed: int = 0, side: int = 512) -> bytes:
    """A JPEG that compresses as badly as any: about 0.9 byte a pixel, also as a frame."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return _save(Image.fromarray(pixels, "RGB"), "JPEG", quality=90)


def animation(
    kind: str, colours: Sequence[Colour], durations_ms: Sequence[int], *, size: tuple[int, int] = (160, 120)
) -> bytes:
    """An animation of one frame a colour: `kind` is one of `ANIMATED`; each frame shows for its duration."""
    frames = [
        scene(index, size[0], size[1], colour=colour) if min(size) >= 16 else Image.new("RGB", size, colour)
        for index, colour in enumerate(colours)
    ]
    options: dict[str, object] = {"save_all": True, "append_images": frames[1:], "duration": list(durations_ms)}
    if kind == "gif-animated":
        paletted = [frame.quantize(64, dither=Image.Dither.NONE) for frame in frames]
        options |= {"append_images": paletted[1:], "loop": 0, "disposal": 1}
        return _save(paletted[0], "GIF", **options)
    if kind == "apng":
        return _save(frames[0], "PNG", **options)
    if kind == "webp-animated":
        return _save(frames[0], "WEBP", quality=80, method=0, minimize_size=False, **options)
    if kind == "avif-animated":
        return _save(frames[0], "AVIF", quality=70, speed=10, **options)
    raise ValueError(f"{kind!r} is no animated kind; one of {', '.join(ANIMATED)}")


def _save(image: Image.Image, file_format: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, file_format, **options)
    return out.getvalue()


def _alpha(image: Image.Image, mode: str = "RGBA") -> Image.Image:
    """The picture with its right half wholly transparent."""
    mask = Image.new("L", image.size, 255)
    mask.paste(0, (image.width // 2, 0, image.width, image.height))
    with_alpha = image.convert(mode)
    with_alpha.putalpha(mask)
    return with_alpha


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header_and_rows(width: int, height: int, *, depth: int, colour_type: int, rows: bytes) -> bytes:
    """A PNG from raw filtered rows (filter byte first), for kinds Pillow does not write."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    body = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(rows, 6)) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def png_bomb(side: int, *, depth: int = 1) -> bytes:
    """A well-formed grey PNG of `side` x `side` black pixels, a thousandth of its size as a file."""
    packer = zlib.compressobj(6)
    row = bytes(1 + (side * depth + 7) // 8)
    block = row * 100
    packed = [packer.compress(block) for _ in range(side // 100)]
    packed.append(packer.compress(row * (side % 100)))
    packed.append(packer.flush())
    header = struct.pack(">IIBBBBB", side, side, depth, 0, 0, 0, 0)
    body = _chunk(b"IHDR", header) + _chunk(b"IDAT", b"".join(packed)) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def png_16bit(image: Image.Image) -> bytes:
    """The picture as a PNG of 16 bits a channel (the low byte differs from the high one)."""
    wide = (np.asarray(image.convert("RGB")).astype(np.uint16) * 256 + 77).astype(">u2")
    rows = b"".join(b"\x00" + wide[y].tobytes() for y in range(image.height))
    return png_header_and_rows(image.width, image.height, depth=16, colour_type=2, rows=rows)


def long_gif(frames: int = 10_000, side: int = 64, *, delay_cs: int = 4) -> bytes:
    """A GIF of many frames, `delay_cs` hundredths of a second each: 12 distinct pictures over and over."""
    blocks = []
    for index in range(12):
        shade = scene(index, side, side, (20 * index, 90, 240 - 20 * index))
        single = _save(shade.quantize(16, dither=Image.Dither.NONE), "GIF")
        bits = (single[10] & 7) + 1
        table = single[13 : 13 + 3 * 2**bits]
        descriptor = single.index(b"\x2c", 13 + 3 * 2**bits)
        pixels = single[descriptor + 10 : -1]
        control = b"\x21\xf9\x04\x04" + struct.pack("<H", delay_cs) + b"\x00\x00"
        blocks.append(control + single[descriptor : descriptor + 9] + bytes([0x80 | (bits - 1)]) + table + pixels)
    body = b"".join(blocks[index % len(blocks)] for index in range(frames))
    return b"GIF89a" + struct.pack("<HHBBB", side, side, 0x70, 0, 0) + body + b"\x3b"


def _animated(kind: str) -> Callable[[Colour, int], bytes]:
    return lambda colour, seed: animation(
        kind, [GREEN, colour, BLUE, colour, GREEN], [100, 200, 150, 250, 300 + seed % 50 * 10], size=(320, 240)
    )


def _video(codec: str, container: str, **options: object) -> Callable[[Colour, int], bytes]:
    def build(colour: Colour, seed: int) -> bytes:
        pictures = [scene(seed + index, 320, 240, colour if index % 3 else GREEN).convert("RGB") for index in range(15)]
        return videos.encode(pictures, codec=codec, container=container, fps=10, **options)  # type: ignore[arg-type]

    return build


def _exif_rotated(colour: Colour, seed: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "SecretCameraMaker"
    return _save(scene(seed, colour=colour), "JPEG", quality=88, exif=exif)


def swapped_profile() -> bytes:
    """An ICC profile whose red and blue primaries are exchanged: what is stored red is shown blue."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for index in range(struct.unpack(">I", profile[128:132])[0]):
        at = 132 + 12 * index
        tag = bytes(profile[at : at + 4])
        swap = {b"rXYZ": b"bXYZ", b"bXYZ": b"rXYZ"}.get(tag)
        if swap is not None:
            profile[at : at + 4] = swap
    return bytes(profile)


_MAKERS: dict[str, Callable[[Colour, int], bytes]] = {
    "jpeg": lambda c, s: _save(scene(s, colour=c), "JPEG", quality=88),
    "jpeg-progressive": lambda c, s: _save(scene(s, colour=c), "JPEG", quality=88, progressive=True),
    "jpeg-cmyk": lambda c, s: _save(scene(s, colour=c).convert("CMYK"), "JPEG", quality=88),
    "jpeg-gray": lambda c, s: _save(scene(s, colour=c).convert("L"), "JPEG", quality=88),
    "jpeg-exif-rotated": _exif_rotated,
    "jpeg-icc": lambda c, s: _save(scene(s, colour=c), "JPEG", quality=88, icc_profile=swapped_profile()),
    "png": lambda c, s: _save(scene(s, colour=c), "PNG"),
    "png-rgba": lambda c, s: _save(_alpha(scene(s, colour=c)), "PNG"),
    "png-palette": lambda c, s: _save(scene(s, colour=c).quantize(64), "PNG"),
    "png-palette-transparent": lambda c, s: _save(_alpha(scene(s, colour=c)).quantize(64), "PNG"),
    "png-gray": lambda c, s: _save(scene(s, colour=c).convert("L"), "PNG"),
    "png-gray-alpha": lambda c, s: _save(_alpha(scene(s, colour=c).convert("L"), "LA"), "PNG"),
    "png-16bit": lambda c, s: png_16bit(scene(s, colour=c)),
    "png-gray-16bit": lambda c, s: _save(
        Image.fromarray(np.asarray(scene(s, colour=c).convert("L")).astype(np.uint16) * 257), "PNG"
    ),
    "png-1bit": lambda c, s: _save(scene(s, colour=c).convert("1"), "PNG"),
    "apng": _animated("apng"),
    "webp": lambda c, s: _save(scene(s, colour=c), "WEBP", quality=85),
    "webp-lossless": lambda c, s: _save(scene(s, colour=c), "WEBP", lossless=True),
    "webp-alpha": lambda c, s: _save(_alpha(scene(s, colour=c)), "WEBP", quality=85),
    "webp-animated": _animated("webp-animated"),
    "gif": lambda c, s: _save(scene(s, colour=c).quantize(64), "GIF"),
    "gif-animated": _animated("gif-animated"),
    "avif": lambda c, s: _save(scene(s, colour=c), "AVIF", quality=80, speed=9),
    "avif-alpha": lambda c, s: _save(_alpha(scene(s, colour=c)), "AVIF", quality=80, speed=9),
    "avif-animated": _animated("avif-animated"),
    "jxl": lambda c, s: _save(scene(s, colour=c), "JXL", quality=85),
    "jxl-lossless": lambda c, s: _save(scene(s, colour=c), "JXL", lossless=True),
    "mp4-h264": _video("libx264", "mp4"),
    "mp4-h264-rotated": _video("libx264", "mp4", rotation=90),
    "mp4-av1": _video("libsvtav1", "mp4"),
    "webm-vp8": _video("libvpx", "webm"),
    "webm-vp8-alpha": _video("libvpx", "webm", alpha=True),
    "webm-vp9": _video("libvpx-vp9", "webm"),
    "webm-vp9-alpha": _video("libvpx-vp9", "webm", alpha=True),
    "webm-vp9-rotated": _video("libvpx-vp9", "webm", rotation=90),
    "webm-av1": _video("libsvtav1", "webm"),
    "empty": lambda c, s: b"",
    "garbage": lambda c, s: np.random.default_rng(s).bytes(20_000),
    "text": lambda c, s: b"not a picture, only words\n" * 40,
    "pdf": lambda c, s: _save(scene(s, colour=c), "PDF"),
    "svg": lambda c, s: (
        b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg" width="90" height="60">'
        b'<rect width="90" height="60" fill="red"/><image href="http://127.0.0.1/leak.png"/></svg>'
    ),
    "html": lambda c, s: b"<!doctype html><html><body><h1>404</h1><script>1</script></body></html>",
    "zip": lambda c, s: b"PK\x03\x04" + np.random.default_rng(s).bytes(3000),
    "tiff": lambda c, s: _save(scene(s, colour=c), "TIFF"),
    "bmp": lambda c, s: _save(scene(s, colour=c), "BMP"),
    "mp3": lambda c, s: b"ID3\x04\x00\x00\x00\x00\x00\x00" + np.random.default_rng(s).bytes(3000),
    "png-bomb": lambda c, s: png_bomb(50_000),
    "png-13300": lambda c, s: png_bomb(13_300, depth=8),
    "gif-10000": lambda c, s: long_gif(),
    "video-40mb": lambda c, s: videos.heavy(40_000_000, seed=s),
}


@functools.lru_cache(maxsize=256)
def make(kind: str, *, colour: Colour = RED, seed: int = 0) -> bytes:
    """The bytes of one kind: any of `KINDS`, `BAD_KINDS` (``truncated-<kind>`` is its first half), and two heavy ones.

    `colour` is the picture's main colour, `seed` what else is in it.
    """
    if kind.startswith("truncated-"):
        whole = make(kind.removeprefix("truncated-"), colour=colour, seed=seed)
        return whole[: len(whole) // 2]
    return _MAKERS[kind](colour, seed)
