"""How many frames to score at a time: found by trying at start, for it depends on model, device and neighbours."""

import time
from collections.abc import Callable

import numpy as np
import structlog
from PIL import Image

from scanner.models.model import Embedder

log = structlog.get_logger("scanner.models.batch_size")

LARGEST = 256
LONGEST_S = 1.0
"""So long may one batch take: with deadlines of 3 seconds an image can wait for one before its own."""

GOOD_ENOUGH = 0.95
"""Of the best rate: a larger batch for less than that only makes its first image later."""

RUNS = 3
FRAME_SIDE = 512


def find_batch(run: Callable[[int], float], *, largest: int = LARGEST, longest_s: float = LONGEST_S) -> int:
    """Return the smallest power of two that is nearly as fast per frame as the best.

    `run(batch)` scores so many frames and returns the seconds it took. Nothing larger is tried once a batch takes
    longer than `longest_s`, or once doubling has not paid.
    """
    rates: dict[int, float] = {}
    batch = 1
    while batch <= largest:
        seconds = run(batch)
        if batch > 1 and seconds > longest_s:
            break
        rates[batch] = batch / seconds
        if seconds > longest_s or (batch > 1 and rates[batch] < rates[batch // 2]):
            break
        batch *= 2
    enough = GOOD_ENOUGH * max(rates.values())
    return min(size for size, rate in rates.items() if rate >= enough)


def find_batch_for(model: Embedder, *, largest: int = LARGEST) -> int:
    """Return the batch for one embedder, tried with frames of the size that the gateway makes; blocks for seconds."""
    noise = np.random.default_rng(0).integers(0, 256, (FRAME_SIDE, FRAME_SIDE, 3), dtype=np.uint8)
    frame = model.prepare(Image.fromarray(noise))

    def run(batch: int) -> float:
        times = []
        for _ in range(RUNS):
            started = time.perf_counter()
            model.embed([frame] * batch)
            times.append(time.perf_counter() - started)
            if times[-1] > LONGEST_S:
                break
        return min(times)

    batch = find_batch(run, largest=largest)
    log.info("batch_found", model=model.name, device=model.device, batch=batch)
    return batch
