"""The PDQ perceptual hash.

Written from Meta's description of the algorithm ("The TMK+PDQF video-hashing algorithm and the PDQ image-hashing
algorithm", 2019, section on PDQ): luminance, two passes of a box ("Jarosz") filter along each axis, decimation to
64 x 64, the 16 x 16 lowest non-constant DCT coefficients, one bit each for "above the median".

Filter and decimation are linear and separable, so here they are one 64 x n matrix an axis: two small products
instead of four passes over every pixel. The result is the reference's up to float rounding (tests compare both).
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gateway.frames.frame import VARIANTS

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


def _both_ways(reduction: Floats) -> Floats:
    """The matrix for an axis, and below it the one for the axis read from its other end."""
    return np.concatenate([reduction, reduction[:, ::-1]])


def _dct_rows() -> Floats:
    rows = np.arange(1, 17)[:, None]
    columns = np.arange(64)[None, :]
    waves: Floats = np.cos(np.pi / 128.0 * rows * (2 * columns + 1)).astype(np.float32)
    return waves * np.float32(np.sqrt(2.0 / 64.0))


_DCT = _dct_rows()
_LEAST_SIDE = 5

_ODD = np.where(np.arange(1, 17) % 2, -1.0, 1.0).astype(np.float32)
"""What becomes of the coefficients of frequency 1 to 16 when an axis is reversed: the odd ones change their sign."""

_NEGATED = np.stack([np.outer(down, across) < 0 for down in (abs(_ODD), _ODD) for across in (abs(_ODD), _ODD)])
"""Which coefficients do so in the picture as it is, left to right, upside down, and both."""


@dataclass(frozen=True, slots=True)
class PdqHashes:
    """`pdq` is the picture's hash (32 bytes), `turned` the other seven of the dihedral group, one after the other.

    Hashes of pictures with `quality` (0-100) below 50 (flat, featureless) are not fit for matching.
    """

    pdq: bytes
    turned: bytes
    quality: int


def pdq(image: Image.Image) -> PdqHashes:
    """The hashes of an RGB or L picture of at least 1 x 1 pixels.

    A picture with a side under 5 pixels gets zeros and quality 0, as the reference does. The turned hashes are those
    of the turned pictures, up to float rounding.
    """
    if min(image.size) < _LEAST_SIDE:
        return PdqHashes(bytes(32), bytes(32 * (VARIANTS - 1)), 0)
    luma: Floats = np.asarray(image if image.mode == "L" else image.convert("L"), dtype=np.float32)
    rows, columns = _reduction(luma.shape[0]), _reduction(luma.shape[1])
    # Both ends of each axis at once: decimation picks other pixels from the other end.
    small: Floats = np.asarray(_both_ways(rows) @ luma @ _both_ways(columns).T, dtype=np.float32)
    corners = small.reshape(2, 64, 2, 64).transpose(0, 2, 1, 3)
    coefficients = (_DCT @ corners @ _DCT.T).reshape(4, 16, 16)
    variants = np.concatenate([coefficients, coefficients.transpose(0, 2, 1)]).reshape(VARIANTS, 256)
    bits = variants > np.partition(variants, 127, axis=1)[:, 127:128]
    # The reference numbers bits from the least significant of its last word: row 0, column 0 is bit 0.
    packed = np.packbits(bits[:, ::-1], axis=1)
    return PdqHashes(packed[0].tobytes(), packed[1:].tobytes(), _quality(corners[0, 0]))


def turn_hashes(hashes: Sequence[bytes]) -> NDArray[np.uint8]:
    """The eight variants of each hash, an array of (8 x hashes) x 32, from bits alone: where no picture is at hand.

    A coefficient that changes its sign changes its side of the median, which is near zero. A few are between the
    median and its negative: such a hash differs in some bits more from the turned picture's own than `pdq`'s does.
    """
    packed = np.frombuffer(b"".join(hashes), np.uint8).reshape(len(hashes), 32)
    bits = np.unpackbits(packed, axis=1)[:, ::-1].reshape(-1, 1, 16, 16)
    mirrored = bits ^ _NEGATED
    variants = np.concatenate([mirrored, mirrored.transpose(0, 1, 3, 2)], axis=1).reshape(-1, 256)
    return np.packbits(variants[:, ::-1], axis=1)


def _quality(small: Floats) -> int:
    """Sum of the gradients of the 64 x 64 picture in whole per cents of full scale, over 90, at most 100."""
    across = np.trunc(np.diff(small, axis=1) * (100.0 / 255.0))
    down = np.trunc(np.diff(small, axis=0) * (100.0 / 255.0))
    return min(100, int((np.abs(across).sum() + np.abs(down).sum()) / 90.0))
