"""The batch that is found at start: as fast as the best, but no larger than it must be."""

import pytest

from scanner.models.batch_size import find_batch, find_batch_for
from tests.models import microclip


def costing(fixed_s: float, each_s: float, tried: list[int] | None = None):
    """A device that takes so long for a batch and for each of its frames."""

    def run(batch: int) -> float:
        if tried is not None:
            tried.append(batch)
        return fixed_s + each_s * batch

    return run


@pytest.mark.parametrize(
    ("fixed_s", "each_s", "batch"),
    [
        (0.0, 0.010, 1),  # a batch wins nothing
        (0.010, 0.001, 128),  # of at most 256
        (0.010, 0.0001, 256),
        (0.001, 0.010, 2),
        (0.4, 0.200, 2),  # 4 would take 1.2 s
        (2.0, 0.1, 1),  # slow as it is, one frame must be scored
    ],
)
def test_it_is_the_smallest_that_is_nearly_as_fast_as_the_best_and_not_too_slow(
    fixed_s: float, each_s: float, batch: int
) -> None:
    assert find_batch(costing(fixed_s, each_s)) == batch


def test_nothing_larger_is_tried_than_may_be() -> None:
    tried: list[int] = []
    assert find_batch(costing(0.01, 0.0001, tried), largest=8) == 8
    assert max(tried) == 8
    tried.clear()
    find_batch(costing(0.0, 0.3, tried))
    assert tried == [1, 2, 4]


def test_a_real_model_gets_a_batch() -> None:
    assert find_batch_for(microclip(), largest=8) in (1, 2, 4, 8)
