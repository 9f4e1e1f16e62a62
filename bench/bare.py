"""What this machine can do at most with the real models: decode and infer in one process, nothing else.

    python -m bench.bare --seconds 10

Takes the JPEGs of `bench.pictures` from memory, decodes them at reduced size, makes the same 512-pixel frame as the
gateway, and runs both models with every core, in batches of 1 and of 8; the faster of the two counts. No HTTP, no
Kafka, no encryption, no JPEG in between, no PDQ hash, no sandbox. Prints one line of JSON.
"""

import argparse
import io
import json
import time
from collections.abc import Sequence

from PIL import Image

from bench.pictures import make_pictures
from fediwarden.settings import load_settings
from scanner.models.loading import load_models
from scanner.models.model import Model
from scanner.models.registry import fetch, load_registry
from scanner.scoring import score_frames

FRAME_SIDE = 512
BATCHES = (1, 8)


def decode(jpeg: bytes) -> Image.Image:
    """The frame that models look at: RGB, longest side 512."""
    with Image.open(io.BytesIO(jpeg), formats=["JPEG"]) as image:
        image.draft("RGB", (FRAME_SIDE, FRAME_SIDE))
        image.thumbnail((FRAME_SIDE, FRAME_SIDE))
        return image.convert("RGB")


def run_bare(models: Sequence[Model], pictures: Sequence[bytes], batch: int, seconds: float) -> dict[str, float]:
    """Images a second, and milliseconds an image of decoding and of all models."""
    decoding = inferring = 0.0
    count = 0
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        began = time.perf_counter()
        jpegs = [pictures[(count + offset) % len(pictures)] for offset in range(batch)]
        frames = [tuple(model.prepare(image) for model in models) for image in map(decode, jpegs)]
        decoded = time.perf_counter()
        score_frames(models, frames, at_most=batch)
        inferring += time.perf_counter() - decoded
        decoding += decoded - began
        count += batch
    took = time.perf_counter() - start
    return {
        "batch": batch,
        "images": count,
        "rate": count / took,
        "decode_ms": decoding / count * 1000.0,
        "infer_ms": inferring / count * 1000.0,
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--pictures", type=int, default=200)
    arguments = parser.parse_args()
    settings = load_settings().scanner
    assert settings.models_dir is not None  # Settings derive it from cache_dir
    fetch(load_registry(), settings.models, settings.models_dir)
    models = load_models(settings.models, settings.models_dir, device=settings.device, threads=settings.threads)
    pictures = make_pictures(arguments.pictures)
    runs = [run_bare(models, pictures, batch, arguments.seconds / len(BATCHES)) for batch in BATCHES]
    print(json.dumps(max(runs, key=lambda run: run["rate"])))


if __name__ == "__main__":
    main()
