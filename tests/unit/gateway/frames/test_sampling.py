"""The sampler's two promises, over random animations."""

import functools
import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gateway.frames.sampling import ASSURED, Sampler, Signature, even_times, signature

DURATIONS = st.lists(st.integers(1, 500), min_size=1, max_size=120)


@functools.cache
def mark(picture: int) -> Signature:
    """A signature that differs clearly from every other number's."""
    rng = np.random.default_rng(picture)
    return rng.integers(0, 256, (16, 16, 3)).astype(np.int16)


def choose(durations: list[int], pictures: list[int], count: int = 8) -> list[int]:
    sampler: Sampler[int] = Sampler(durations, count)
    for index, picture in enumerate(pictures):
        sampler.see(mark(picture), lambda index=index: index)  # type: ignore[misc]
    chosen = sampler.chosen()
    ends = list(itertools.accumulate(durations))
    assert [at for at, _ in chosen] == [ends[index] - durations[index] for _, index in chosen]
    return [index for _, index in chosen]


@given(DURATIONS, st.integers(1, 8))
@settings(deadline=None)
def test_no_more_frames_are_chosen_than_asked_for_and_each_once_in_order(durations: list[int], count: int) -> None:
    chosen = choose(durations, list(range(len(durations))), count)
    assert len(chosen) == min(count, len(durations)) or len(chosen) < count
    assert chosen == sorted(set(chosen))
    assert chosen


@given(DURATIONS)
@settings(deadline=None)
def test_with_all_frames_different_the_first_and_the_last_are_seen(durations: list[int]) -> None:
    durations = [duration + 100 for duration in durations]  # none fills a fifth for long lists, any may for short
    chosen = choose(durations, list(range(len(durations))))
    assert 0 in chosen
    assert len(durations) - 1 in chosen


@given(DURATIONS, st.data())
@settings(max_examples=300, deadline=None)
def test_whatever_fills_an_unbroken_fifth_of_the_time_is_seen(durations: list[int], data: st.DataObject) -> None:
    first = data.draw(st.integers(0, len(durations) - 1))
    last = next(
        (at for at in range(first, len(durations)) if sum(durations[first : at + 1]) >= ASSURED * sum(durations)),
        None,
    )
    if last is None:
        return
    pictures = data.draw(
        st.lists(st.integers(0, 5), min_size=len(durations), max_size=len(durations)), label="pictures elsewhere"
    )
    for offset, at in enumerate(range(first, last + 1)):
        pictures[at] = 1000 + offset  # a scene of ever different frames
    assert any(first <= index <= last for index in choose(durations, pictures))


@given(st.lists(st.tuples(st.integers(1, 500), st.integers(0, 30)), min_size=1, max_size=150))
@settings(max_examples=300, deadline=None)
def test_a_picture_whose_moments_add_up_to_a_fifth_is_seen(frames: list[tuple[int, int]]) -> None:
    durations = [duration for duration, _ in frames]
    pictures = [picture for _, picture in frames]
    seen = {pictures[index] for index in choose(durations, pictures)}
    for picture in set(pictures):
        if sum(duration for duration, other in frames if other == picture) >= ASSURED * sum(durations):
            assert picture in seen


@given(st.permutations([0, 0, 1, 1, 2, 3, 4, 5, 6, 7]))
@settings(deadline=None)
def test_two_frames_in_ten_are_never_missed_wherever_they_are(pictures: list[int]) -> None:
    seen = {pictures[index] for index in choose([100] * 10, pictures)}
    assert {0, 1} <= seen


@given(st.integers(0, 10**9), st.integers(2, 8))
@settings(deadline=None)
def test_even_times_reach_from_the_start_to_the_end(total: int, count: int) -> None:
    times = even_times(total, count)
    assert (times[0], times[-1], len(times)) == (0, total, count)
    assert max((after - before for before, after in itertools.pairwise(times)), default=0) <= total / (count - 1) + 1


def test_a_recompressed_picture_has_the_same_signature_within_a_little() -> None:
    from io import BytesIO

    from tests import pictures

    picture = pictures.scene(3)
    out = BytesIO()
    picture.save(out, "JPEG", quality=60)
    again = signature(Image.open(out))
    assert np.abs(signature(picture) - again).mean() < 6
    assert np.abs(signature(picture) - signature(pictures.scene(3, colour=pictures.BLUE))).mean() > 20
