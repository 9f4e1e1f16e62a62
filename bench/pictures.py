"""Photo-like JPEGs of about two megapixels and many sizes, the same for the same seed, for load tests.

    python -m bench.pictures --count 200 --folder FOLDER

Sizes follow a log-normal cut to 50 KB - 2.2 MB with a mean near 0.5 MB: what the measurements of pictrs-safety were
made with, so that the figures compare. `Relabelled` makes an endless stream of different bytes from them without
encoding anything again.
"""

import argparse
import io
import os
import struct
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SMALLEST = 50_000
LARGEST = 2_200_000
MEDIAN = 430_000
SPREAD = 0.7
"""Sigma of the log-normal: with the median above it gives a mean of 0.54 MB."""

DRAWING_VERSION = 1
"""Raise when the drawing changes: it is part of the cache's folder name."""

SHAPES = ((4, 3), (3, 2), (16, 9), (3, 4), (2, 3), (1, 1))
LOWEST_QUALITY, HIGHEST_QUALITY = 20, 97
ENCODINGS = 5
COM_TEXT = b"fediwarden bench"


@dataclass(frozen=True, slots=True)
class Relabelled:
    """A JPEG whose bytes differ for each number, by a comment segment behind its first two bytes.

    Decoders skip the segment, so the picture stays what it is while its sha256 never repeats.
    """

    jpeg: bytes

    def head(self, number: int) -> bytes:
        """SOI and the comment segment with `number` (0 <= number < 2**64); always `head_length()` bytes."""
        text = COM_TEXT + struct.pack(">Q", number)
        return b"\xff\xd8\xff\xfe" + struct.pack(">H", len(text) + 2) + text

    @staticmethod
    def head_length() -> int:
        """Length in bytes of what `head` returns."""
        return 6 + len(COM_TEXT) + 8

    def tail(self) -> memoryview:
        """Everything behind SOI, which follows any `head`."""
        return memoryview(self.jpeg)[2:]

    def numbered(self, number: int) -> bytes:
        """The whole file with `number` in it."""
        return self.head(number) + bytes(self.tail())


def draw(seed: int) -> tuple[Image.Image, int]:
    """One picture (RGB, 1.5-2.5 megapixels) and the size in bytes its JPEG should have."""
    random = np.random.default_rng([DRAWING_VERSION, seed])
    target = int(np.clip(MEDIAN * np.exp(random.normal(0, SPREAD)), SMALLEST * 1.1, LARGEST * 0.95))
    across, down = SHAPES[int(random.integers(len(SHAPES)))]
    scale = (random.uniform(1.5e6, 2.5e6) / (across * down)) ** 0.5
    width, height = int(across * scale), int(down * scale)

    # Octaves of noise from coarse to fine; the finest is what a JPEG pays for, so it grows with the wanted size.
    total = np.zeros((height, width, 3), dtype=np.float32)
    grain = float(np.interp(target / (width * height), (0.025, 0.15, 0.4, 1.1), (0.5, 4.0, 12.0, 60.0)))
    for cells, strength in ((3, 150.0), (12, 50.0), (48, 20.0), (240, 6.0 + grain / 2)):
        small = random.integers(0, 256, (max(2, cells * height // width), cells, 3), dtype=np.uint8)
        octave = Image.fromarray(small).resize((width, height), Image.Resampling.BILINEAR)
        total += (np.asarray(octave, dtype=np.float32) - 128.0) * np.float32(strength / 128.0)
    speckle = random.integers(-128, 128, (height, width, 1), dtype=np.int8)
    total += speckle * np.float32(grain / 128.0)
    total += np.float32(118.0)
    picture = Image.fromarray(np.clip(total, 0, 255).astype(np.uint8))

    pen = ImageDraw.Draw(picture, "RGBA")
    for _ in range(int(random.integers(6, 24))):
        x, y = random.uniform(-0.1, 1.0) * width, random.uniform(-0.1, 1.0) * height
        box = (x, y, x + random.uniform(0.03, 0.4) * width, y + random.uniform(0.03, 0.4) * height)
        red, green, blue, alpha = (int(value) for value in random.integers(0, 256, 4))
        shape = pen.ellipse if random.random() < 0.5 else pen.rectangle
        shape(box, fill=(red, green, blue, 60 + alpha // 2))
    return picture, target


def encode(picture: Image.Image, target: int) -> bytes:
    """The picture as a baseline 4:2:0 JPEG, its quality chosen by bisection so that its size comes near `target`."""
    low, high = LOWEST_QUALITY, HIGHEST_QUALITY
    best = b""
    quality = 82
    for _ in range(ENCODINGS):
        out = io.BytesIO()
        picture.save(out, "JPEG", quality=quality, subsampling="4:2:0")
        made = out.getvalue()
        fits = SMALLEST <= len(made) <= LARGEST
        if not best or (fits and abs(len(made) - target) < abs(len(best) - target)):
            best = made
        if abs(len(made) - target) < 0.08 * target or low >= high:
            break
        if len(made) > target:
            high = quality - 1
        else:
            low = quality + 1
        quality = (low + high) // 2
    return best


def make_picture(seed: int) -> bytes:
    """The JPEG of this seed: the same bytes with the same Pillow."""
    return encode(*draw(seed))


def cached_folder() -> Path:
    """Where the pictures are kept between runs."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "fediwarden" / f"bench-pictures-{DRAWING_VERSION}"


def _write(folder: Path, seed: int) -> None:
    path = folder / f"{seed:05d}.jpg"
    if path.exists():
        return
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_bytes(make_picture(seed))
    part.replace(path)


def make_pictures(count: int, folder: Path | None = None, *, processes: int = 1) -> list[bytes]:
    """`count` different JPEGs, seeds 0 to count - 1, made where `folder` (default: the cache) lacks them."""
    folder = folder or cached_folder()
    folder.mkdir(parents=True, exist_ok=True)
    missing = [seed for seed in range(count) if not (folder / f"{seed:05d}.jpg").exists()]
    if len(missing) > 8 and processes > 1:
        with ProcessPoolExecutor(processes) as pool:
            list(pool.map(_write, [folder] * len(missing), missing, chunksize=4))
    else:
        for seed in missing:
            _write(folder, seed)
    return [(folder / f"{seed:05d}.jpg").read_bytes() for seed in range(count)]


def main() -> None:
    """Make the pictures and say what came out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--folder", type=Path, default=None, help="default: the cache")
    arguments = parser.parse_args()
    pictures = make_pictures(arguments.count, arguments.folder, processes=os.cpu_count() or 1)
    sizes = sorted(len(picture) for picture in pictures)
    pixels = []
    for picture in pictures:
        with Image.open(io.BytesIO(picture)) as image:
            pixels.append(image.width * image.height)
    print(
        f"{len(pictures)} pictures, {len(set(pictures))} different: smallest {sizes[0] / 1000:.0f} KB, "
        f"mean {sum(sizes) / len(sizes) / 1000:.0f} KB, largest {sizes[-1] / 1000:.0f} KB, "
        f"mean {sum(pixels) / len(pixels) / 1e6:.2f} megapixels, in {arguments.folder or cached_folder()}"
    )


if __name__ == "__main__":
    main()
