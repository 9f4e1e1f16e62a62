"""The sampler's two promises, over random animations."""

import functools
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gateway.frames.sampling import ASSURED, Sampler, Signature, even_times, scattered_times, signature

DURATIONS = st.lists(st.integers(1, 500), min_size=1, max_size=120)


@functools.cache
def mark(picture: int) -> Signature:
    """A signature that differs clearly from every other number's."""
    rng = np.random.default_rng(picture)
    return rng.integers(0, 256, (16, 16, 3)).astype(np.int16)


def choose(durations: list[int], pictures: list[int], count: int = 8) -> list[int]:
    seed = hash((tuple(durations), tuple(pictures)))  # any, but the same again
    sampler: Sampler[int] = Sampler(durations, count, seed=seed)
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
def test_with_all_frames_different_the_first_and_the_last_eighth_are_seen(durations: list[int]) -> None:
    durations = [duration + 100 for duration in durations]
    chosen = choose(durations, list(range(len(durations))))
    ends = list(itertools.accumulate(durations))
    assert ends[chosen[0]] - durations[chosen[0]] <= ends[-1] / 8
    assert ends[chosen[-1]] >= ends[-1] * 7 / 8


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


@given(st.integers(0, 10**9), st.integers(1, 8), st.floats(0, 1, exclude_max=True))
@settings(deadline=None)
def test_no_stretch_of_one_part_is_without_an_even_time_whichever_the_phase(
    total: int, count: int, phase: float
) -> None:
    times = even_times(total, count, phase)
    assert len(times) == count
    reach = [0.0, *times, float(total)]
    assert all(after - before <= total / count * (1 + 1e-9) for before, after in itertools.pairwise(reach))


@pytest.mark.parametrize("seed", range(12))
def test_a_picture_that_passes_for_another_in_small_does_not_hide_behind_it(seed: int) -> None:
    """Harmless frames at evenly spaced places, of the same means as the bad ones everywhere else."""
    harmless = {round(index * 59 / 7) for index in range(8)}
    sampler: Sampler[int] = Sampler([40] * 60, 8, seed=seed)
    mark = signature(Image.new("RGB", (64, 64), (90, 90, 90)))
    for index in range(60):
        sampler.see(mark, lambda index=index: index)  # type: ignore[misc]
    assert any(kept not in harmless for _, kept in sampler.chosen())


def test_no_pixel_is_left_out_of_a_signature() -> None:
    """Two frames that agree wherever one in 16 x 16 samples would be taken, and nowhere else."""
    one = Image.effect_noise((512, 512), 80).convert("RGB")
    other = Image.new("RGB", (512, 512), (255, 0, 0))
    for x in range(16, 512, 32):
        for y in range(16, 512, 32):
            other.putpixel((x, y), one.getpixel((x, y)))
    assert np.abs(signature(one) - signature(other)).mean() > 50


def test_a_recompressed_picture_has_the_same_signature_within_a_little() -> None:
    from io import BytesIO

    from tests import pictures

    picture = pictures.scene(3)
    out = BytesIO()
    picture.save(out, "JPEG", quality=60)
    again = signature(Image.open(out))
    assert np.abs(signature(picture) - again).mean() < 6
    assert np.abs(signature(picture) - signature(pictures.scene(3, colour=pictures.BLUE))).mean() > 20


def test_scattered_times_reach_both_ends_with_one_moment_in_each_part_and_differ_by_seed() -> None:
    times = scattered_times(6400, 64, 7)
    assert (times[0], times[-1], len(times)) == (0, 6400, 66)
    assert all(index <= moment / 100 < index + 1 for index, moment in enumerate(times[1:-1]))
    assert times == scattered_times(6400, 64, 7)
    assert len(set(times) & set(scattered_times(6400, 64, 8))) == 2


def found_in_sample(pictures: list[int], count: int, assured: float, seed: int) -> bool:
    """Whether picture -1 is among those chosen from a sample of `count` of the `pictures`, each shown as long."""
    total = 100 * len(pictures)
    indices = [min(int(moment // 100), len(pictures) - 1) for moment in scattered_times(total, count, seed)]
    sampler: Sampler[int] = Sampler([1] * len(indices), 8, assured=assured)
    for index in indices:
        sampler.see(mark(pictures[index] + 1), functools.partial(int, pictures[index]))
    chosen = [picture for _, picture in sampler.chosen()]
    assert len(chosen) <= 8
    return -1 in chosen


@pytest.mark.parametrize("others", [1, 3, 900], ids=["one picture", "three pictures", "all different"])
def test_a_fifth_of_the_time_is_found_in_a_sample_of_66_whatever_its_pattern(others: int) -> None:
    """The chance to miss it is 1 in 90,000 a video; the seeds are fixed."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        pictures = [index % others for index in range(900)]
        red = rng.choice(900, 180, replace=False) if seed % 2 else [i for i in range(900) if i % 10 in (3, 6)]
        for index in red:
            pictures[int(index)] = -1
        assert found_in_sample(pictures, 64, 2 / 66, seed), (others, seed)


def test_of_the_smallest_sample_a_fifth_of_the_time_is_missed_about_once_in_fourteen() -> None:
    pictures = [-1 if index % 10 in (3, 6) else 0 for index in range(900)]
    missed = sum(not found_in_sample(pictures, 12, 1 / 14, seed) for seed in range(500))
    assert 15 <= missed <= 60
