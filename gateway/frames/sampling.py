"""Which moments of an animation are looked at.

Two promises, for at most eight frames out of any number, as long as the sampler is shown them all
(`tests/unit/gateway/frames/test_sampling.py` proves both): whatever fills an unbroken fifth of the time is seen, and a
picture that comes back again and again is seen when its moments add up to a fifth of the time. What shows for less may
be missed, and so may a scene of ever different frames that is scattered among others.

Where decoding every frame would take too long, the sampler is shown those at `scattered_times` instead; both promises
become likely rather than certain, and `Sampler` says how likely.
"""

import bisect
import itertools
import math
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

T = TypeVar("T")
Signature = NDArray[np.int16]

ASSURED = 0.2
"""The share of the time from which on a picture is certain to be among the frames."""

_SIDE = 16
_NEARLY = 0.95  # two frames in ten add up to a little less than a fifth when times are rounded to milliseconds
_ALIKE = 6.0  # mean difference of samples (0-255) up to which two frames are the same picture, recompression included


def even_times(total: int, count: int, phase: float = 0.5) -> list[float]:
    """One moment in each of `count` equal parts of [0, total], each at the same `phase` (0 to 1) of its part.

    Whatever fills an unbroken stretch of one part's length holds one of them, whichever the phase.
    """
    return [total * (index + phase) / count for index in range(count)]


def scattered_times(total: int, count: int, seed: int) -> list[float]:
    """0, one random moment in each of `count` equal parts of [0, total], and `total`.

    Even steps would fall in with whatever comes back periodically, and could be known beforehand. The same `seed`
    gives the same moments; taken from the file's digest, they are others for every file. Somebody who runs this code
    can still try variants of a file until one passes.
    """
    # Not numpy's: it is imported at its first use, and in a worker no file can be opened any more.
    rng = random.Random(seed)  # noqa: S311 - it need not be secret
    return [0.0, *(total * (index + rng.random()) / count for index in range(count)), float(total)]


def signature(image: Image.Image) -> Signature:
    """A frame as 16 x 16 means of all its pixels: equal for equal pictures. Shape (16, 16, 3).

    Every pixel counts: samples at known places could be copied over from a harmless picture.
    """
    if image.mode.startswith("I"):  # 16 bits of grey, which `convert` would clip
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode not in ("L", "LA", "RGB", "RGBA"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    small = image.reduce((max(1, image.width // (2 * _SIDE)), max(1, image.height // (2 * _SIDE))))
    small = small.resize((_SIDE, _SIDE), Image.Resampling.BOX)
    if small.mode in ("RGBA", "LA", "PA"):
        rgba = small.convert("RGBA")
        small = Image.new("RGB", small.size, (128, 128, 128))
        small.paste(rgba, mask=rgba.getchannel("A"))
    return np.asarray(small.convert("RGB"), dtype=np.int16)


class Sampler(Generic[T]):
    """Goes along all frames once, keeps the few that may be needed, and chooses at the end.

    `durations` holds each frame's milliseconds (all > 0); `count` is how many may be chosen, 1 to 8: the promises
    hold for 8, with fewer it does what it can. `seed`, taken from the file's digest, shifts the moments that are looked
    at in any case: who makes two pictures that pass for one cannot know by heart which of them is looked at. Memory: at
    most `count` + 5 + 2 / `assured` kept frames, and 1.5 KB a frame for signatures.

    For a sample of the frames, give as durations how many of the moments fall on each, and the share that counts as
    frequent as `assured`: less than a fifth, for a sample's shares are off by chance. The pictures with the largest
    shares come first when there is not room for all. Of n frames at random moments, none is of a picture that shows
    for a fifth of the time with a probability of 0.8^n, at most one with 0.8^n (1 + n/4). So among moments that
    otherwise show one picture it is missed once in 90,000 times with n = 64 and `assured` = 2/n, and once in 14 with
    n = 12 and `assured` = 1/n. Where eight and more others compete for the places, chance may favour those: simulated,
    it was missed once in 125 times with n = 64, in 18 with n = 32 and in 6 with n = 12, in the worst of the patterns
    tried.
    """

    def __init__(self, durations: Sequence[int], count: int, *, assured: float = ASSURED, seed: int = 0) -> None:
        if not durations:
            raise ValueError("durations must name at least one frame")
        self._assured = assured
        # Any picture with more than 1 / (counters + 1) of the time keeps its counter (Misra and Gries, 1982).
        self._counters = math.ceil(2 / assured) - 1
        self._durations = durations
        self._ends = list(itertools.accumulate(durations))
        self._count = count
        self._everything = len(durations) <= count
        total = self._ends[-1]
        phase = random.Random(seed).random()  # noqa: S311 - it need not be secret
        self._even = self._indices(even_times(total, count, phase))
        self._least = self._indices(even_times(total, min(count, 5), phase))
        self._wanted = set(self._even) | set(self._least)
        self._kept: dict[int, T] = {}
        self._signatures: list[Signature] = []
        self._hitters: dict[int, float] = {}

    def _indices(self, times: Sequence[float]) -> list[int]:
        last = len(self._ends) - 1
        return sorted({min(bisect.bisect_right(self._ends, moment), last) for moment in times})

    def see(self, mark: Signature, make: Callable[[], T]) -> None:
        """The next frame in order: its signature, and how to make what is kept of it if it is."""
        index = len(self._signatures)
        self._signatures.append(mark)
        if self._everything:
            self._kept[index] = make()
            return
        self._count_hitter(index, mark, make)
        if index in self._wanted and index not in self._kept:
            self._kept[index] = make()

    def _count_hitter(self, index: int, mark: Signature, make: Callable[[], T]) -> None:
        shown = float(self._durations[index])
        alike = next((at for at in self._hitters if _distance(self._signatures[at], mark) <= _ALIKE), None)
        if alike is not None:
            self._hitters[alike] += shown
        elif len(self._hitters) < self._counters:
            self._hitters[index] = shown
            self._kept[index] = make()
        else:
            least = min(shown, *self._hitters.values())
            for at in list(self._hitters):
                self._hitters[at] -= least
                if self._hitters[at] <= 0:
                    del self._hitters[at]
                    if at not in self._wanted:
                        self._kept.pop(at, None)
            if shown > least:
                self._hitters[index] = shown - least
                self._kept[index] = make()

    def start_ms(self, index: int) -> int:
        """When frame `index` begins."""
        return self._ends[index] - self._durations[index]

    def chosen(self) -> list[tuple[int, T]]:
        """(start in ms, what was kept) of at most `count` frames, in order of time; all frames must have been seen."""
        if self._everything:
            return [(self.start_ms(index), self._kept[index]) for index in sorted(self._kept)]
        frequent = self._frequent()
        picks = set(self._even)
        for at in frequent:
            if not self._covered(at, picks):
                picks.add(at)
        if len(picks) > self._count:
            picks = self._fewer(frequent)
        return [(self.start_ms(index), self._kept[index]) for index in sorted(picks)]

    def _frequent(self) -> dict[int, float]:
        """A kept frame of every picture that fills `assured` of the time or more, and its share.

        The largest shares first; of equal ones those farthest from the moments that are looked at in any case.
        """
        marks = np.stack(self._signatures)
        shown = np.asarray(self._durations[: len(marks)], dtype=np.float64) / self._ends[-1]
        shares = {
            at: float(shown[np.abs(marks - marks[at]).mean(axis=(1, 2, 3)) <= _ALIKE].sum()) for at in self._hitters
        }
        enough = {at: share for at, share in shares.items() if share >= self._assured * _NEARLY}
        return dict(
            sorted(enough.items(), key=lambda item: (-item[1], -min(abs(item[0] - pick) for pick in self._least)))
        )

    def _fewer(self, frequent: Mapping[int, float]) -> set[int]:
        """The frequent pictures, and of the moments those that an unbroken fifth cannot pass by."""
        moments = list(self._least)
        picks = set(moments)
        for at, share in frequent.items():
            if self._covered(at, picks):
                continue
            if len(picks) >= self._count:
                if share < ASSURED * (1 - 1e-9) or not moments:
                    break
                # Only when four pictures fill four fifths and none of the five moments hits them: then no unbroken
                # fifth of anything else is left, so one of the moments may go.
                picks.remove(moments.pop(0))
            picks.add(at)
        for at in sorted(self._even, key=lambda at: -min(abs(at - pick) for pick in picks)):
            if len(picks) < self._count:
                picks.add(at)
        return picks

    def _covered(self, at: int, picks: Collection[int]) -> bool:
        mark = self._signatures[at]
        return any(_distance(self._signatures[pick], mark) <= _ALIKE for pick in picks)


def _distance(one: Signature, other: Signature) -> float:
    return float(np.abs(one - other).mean())
