"""Which moments of an animation are looked at.

Two promises, for at most eight frames out of any number (`tests/unit/gateway/frames/test_sampling.py` proves both):
whatever fills an unbroken fifth of the time is seen, and a picture that comes back again and again is seen when its
moments add up to a fifth of the time. What shows for less may be missed.
"""

import bisect
import itertools
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

T = TypeVar("T")
Signature = NDArray[np.int16]

ASSURED = 0.2
"""The share of the time from which on a picture is certain to be among the frames."""

_SIDE = 16
_ALIKE = 6.0  # mean difference of samples (0-255) up to which two frames are the same picture, recompression included
_COUNTERS = 9  # heavy hitters kept: any picture with more than 1/10 of the time survives (Misra and Gries, 1982)


def even_times(total: int, count: int) -> list[float]:
    """`count` moments over [0, total]: the first and the last included, equal steps between."""
    if count == 1:
        return [total / 2]
    return [total * index / (count - 1) for index in range(count)]


def signature(image: Image.Image) -> Signature:
    """256 point samples of a frame: cheap, and equal for equal pictures. Shape (16, 16, 3)."""
    small = image.resize((_SIDE, _SIDE), Image.Resampling.NEAREST)
    if small.mode in ("RGBA", "LA", "PA", "P"):
        rgba = small.convert("RGBA")
        small = Image.new("RGB", small.size, (128, 128, 128))
        small.paste(rgba, mask=rgba.getchannel("A"))
    return np.asarray(small.convert("RGB"), dtype=np.int16)


class Sampler(Generic[T]):
    """Goes along all frames once, keeps the few that may be needed, and chooses at the end.

    `durations` holds each frame's milliseconds (all > 0); `count` is how many may be chosen, 1 to 8: the promises
    hold for 8, with fewer it does what it can. Memory: at most
    `count` + 5 + 9 kept frames, and 1.5 KB a frame for signatures.
    """

    def __init__(self, durations: Sequence[int], count: int) -> None:
        if not durations:
            raise ValueError("durations must name at least one frame")
        self._durations = durations
        self._ends = list(itertools.accumulate(durations))
        self._count = count
        self._everything = len(durations) <= count
        total = self._ends[-1]
        self._even = self._indices(even_times(total, count))
        least = min(count, 5)
        self._least = self._indices([total * (index + 0.5) / least for index in range(least)])
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
        elif len(self._hitters) < _COUNTERS:
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
        picks = self._cover(self._even, frequent)
        if len(picks) > self._count:
            picks = self._cover(self._least, frequent)
            while len(picks) > self._count:
                # Only when four pictures fill four fifths and none of the five moments hits them: then no unbroken
                # fifth of anything else is left, so one of the moments may go.
                picks.remove(next((at for at in self._least if at in picks), max(picks)))
            for at in sorted(self._even, key=lambda at: -min(abs(at - pick) for pick in picks)):
                if len(picks) < self._count:
                    picks.add(at)
        return [(self.start_ms(index), self._kept[index]) for index in sorted(picks)]

    def _frequent(self) -> list[int]:
        """A kept frame of every picture that fills a fifth of the time or more, by exact count."""
        marks = np.stack(self._signatures)
        shown = np.asarray(self._durations[: len(marks)], dtype=np.float64)
        enough = ASSURED * self._ends[-1]
        return [
            at
            for at in self._hitters
            if shown[np.abs(marks - marks[at]).mean(axis=(1, 2, 3)) <= _ALIKE].sum() >= enough * (1 - 1e-9)
        ]

    def _cover(self, moments: Sequence[int], frequent: Sequence[int]) -> set[int]:
        picks = set(moments)
        for at in frequent:
            mark = self._signatures[at]
            if all(_distance(self._signatures[pick], mark) > _ALIKE for pick in picks):
                picks.add(at)
        return picks


def _distance(one: Signature, other: Signature) -> float:
    return float(np.abs(one - other).mean())
