"""What was judged is published in the order of the log, however it was settled, and nothing twice."""

import random

from hypothesis import given
from hypothesis import strategies as st

from scanner.rescanning.fronts import Front
from schemas.broker import Received
from schemas.messages import Rejudged
from schemas.topics import IMAGES_ARCHIVE


def record(offset: int) -> Received:
    return Received(IMAGES_ARCHIVE, 0, offset, 0, None, None, None, 0)


def rejudged(offset: int) -> Rejudged:
    return Rejudged(offset=offset, scan_id=f"s{offset}", tenant="default", sha256=bytes(32))


@given(
    offsets=st.lists(st.integers(0, 500), unique=True, max_size=40).map(sorted),
    most=st.integers(1, 7),
    seed=st.integers(0, 99),
)
def test_every_record_comes_out_once_in_order_when_all_before_it_are_settled(
    offsets: list[int], most: int, seed: int
) -> None:
    front = Front()
    places = [front.take(record(offset)) for offset in offsets]
    settled: set[int] = set()
    out: list[int] = []
    for place in random.Random(seed).sample(places, len(places)):
        place.settle(rejudged(place.received.offset) if place.received.offset % 3 else None)
        settled.add(place.received.offset)
        while ready := front.ready(most):
            assert len(ready) <= most
            assert front.ready(most) == ready  # it stays until it is published
            out += [place.received.offset for place in ready]
            assert all((place.rejudged is not None) == bool(place.received.offset % 3) for place in ready)
            front.published(len(ready))
        assert settled.issuperset(out)
        assert front.open == len(offsets) - len(out)
    assert out == offsets
    assert front.taken == len(offsets)
