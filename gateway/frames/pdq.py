"""The PDQ perceptual hash.

Written from Meta's description of the algorithm ("The TMK+PDQF video-hashing algorithm and the PDQ image-hashing
algorithm", 2019, section on PDQ): luminance, two passes of a box ("Jarosz") filter along each axis, decimation to
64 x 64, the 16 x 16 lowest non-constant DCT coefficients, one bit each for "above the median".

Filter and decimation are linear and separable, so here they are one 64 x n matrix an axis: two small products
instead of four passes over every pixel. The result is the reference's up to float rounding (tests compare both).
"""

import functools

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.float32]


@functools.lru_cache(maxsize=256)
def _reduction(length: int) -> Floats:
    """The 64 x `length` matrix: box filter, box filter, then pick the middle of each of 64 equal strips."""
    window = (length + 127) // 128
    before, after = (window + 2) // 2 - 1, window - ((window + 2) // 2 - 1) - 1
    # The reference's window reaches `half - 1` samples ahead and `window - half` behind, cut at the edges.
    position = np.arange(length)
    low = np.maximum(position - after, 0)
    high = np.minimum(position + before, length - 1)
    inside = (position[None, :] >= low[:, None]) & (position[None, :] <= high[:, None])
    box = inside / inside.sum(axis=1, keepdims=True)
    picked = ((np.arange(64) + 0.5) * length / 64).astype(np.int64)
    return np.ascontiguousarray((box[picked] @ box).astype(np.float32))


def _dct_rows() -> Floats:
    rows = np.arange(1, 17)[:, None]
    columns = np.arange(64)[None, :]
    waves: Floats = np.cos(np.pi / 128.0 * rows * (2 * columns + 1)).astype(np.float32)
    return waves * np.float32(np.sqrt(2.0 / 64.0))


_DCT = _dct_rows()
_LEAST_SIDE = 5


def pdq(image: Image.Image) -> tuple[bytes, int]:
    """The hash (32 bytes) and quality (0-100) of an RGB or L picture of at least 1 x 1 pixels.

    Hashes of pictures with quality below 50 (flat, featureless) are not fit for matching; a picture with a side
    under 5 pixels gets zeros and quality 0, as the reference does.
    """
    if min(image.size) < _LEAST_SIDE:
        return bytes(32), 0
    luma: Floats = np.asarray(image if image.mode == "L" else image.convert("L"), dtype=np.float32)
    rows, columns = _reduction(luma.shape[0]), _reduction(luma.shape[1])
    small: Floats = np.asarray(rows @ luma @ columns.T, dtype=np.float32)
    coefficients = _DCT @ small @ _DCT.T
    flat = np.sort(coefficients, axis=None)
    bits = coefficients > flat[127]
    # The reference numbers bits from the least significant of its last word: row 0, column 0 is bit 0.
    packed = np.packbits(bits.reshape(-1)[::-1])
    return packed.tobytes(), _quality(small)


def _quality(small: Floats) -> int:
    """Sum of the gradients of the 64 x 64 picture in whole per cents of full scale, over 90, at most 100."""
    across = np.trunc(np.diff(small, axis=1) * (100.0 / 255.0))
    down = np.trunc(np.diff(small, axis=0) * (100.0 / 255.0))
    return min(100, int((np.abs(across).sum() + np.abs(down).sum()) / 90.0))
