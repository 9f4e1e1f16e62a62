"""PDQ against what the reference implementation gave: pdqhash 0.2.8, which wraps Meta's C++.

It is not a dependency, for it ships no wheels for Linux and would ask every machine for a compiler. To make the table
anew: `pip install pdqhash`, then `pdqhash.compute(blocks(seed, width, height))` for each row.
"""

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from gateway.frames.pdq import pdq

REFERENCE = [
    (0, 512, 384, 100, "d9a72458bd78c63f3f7299af8ce28ecd6e89a16538c648cd432cad8176b4045b"),
    (1, 384, 512, 100, "fc39a77371b7d972b68045fa54777319e4d70d8e0e488817ae0295e7822cc627"),
    (2, 512, 512, 100, "bab9dd0f02e7536d000268f362b4a9eee36eaaa3753ee6ea94a7622c09077623"),
    (3, 512, 33, 100, "ad8ec2212612c24d3cb251e3fddd337d2d9ec0212612e24d3db211f2d9ed3b5d"),
    (4, 300, 200, 100, "0d2cacc0130fdd2e56da0847745ee2672f0512b630ef06c26eeccbc5b19bbecb"),
    (5, 129, 257, 100, "0ebba717245d2ed7c1022d373c377b8f6311ef7832ac95db0c27d1a5122d6216"),
    (6, 100, 90, 100, "453771e5558bcce7968668792b39b2348e700e0b2bcc4d2369ff71192a491fd9"),
    (7, 640, 480, 100, "ce62e87b31caee741d17efc9f5098bec0776fbc819091d411577036ac6b0432a"),
]


def blocks(seed: int, width: int, height: int) -> NDArray[np.uint8]:
    """Random squares of 8 x 8 pixels: the same on every machine and with every version of Pillow."""
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    return np.ascontiguousarray(coarse.repeat(8, axis=0).repeat(8, axis=1)[:height, :width])


@pytest.mark.parametrize(("seed", "width", "height", "quality", "reference"), REFERENCE)
def test_the_hash_is_the_reference_implementations_within_rounding(
    seed: int, width: int, height: int, quality: int, reference: str
) -> None:
    ours, our_quality = pdq(Image.fromarray(blocks(seed, width, height)))
    differing = (int.from_bytes(ours) ^ int(reference, 16)).bit_count()
    assert differing <= 4
    assert abs(our_quality - quality) <= 1
