"""Looking many pictures' hashes up in a known-hash list at once, in all eight ways that a picture can be turned.

A gateway asks about eight hashes for each frame. Here that is one question, for the eight are one another's bits: to
mirror a picture turns the sign of every other coefficient, so that of the 256 bits 64 stay as they are and three other
groups of 64 are each turned over as a whole or not at all; to turn it by a right angle transposes them besides.
So bits are laid out group by group, chunks (see `gateway.lists.index`: multi-index hashing) are told apart only up to
being turned over, and a list is indexed as it is and transposed. What comes out is exactly what eight questions give.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.lists.hashes import Rows
from gateway.lists.index import choose_radii, masks_within
from gateway.lists.loaded import LoadedList

Words = NDArray[np.uint64]
"""Hashes as four words each: the bits that no mirroring turns over, then the three groups that one does."""

_SIDE = 16
_GROUP = 64
_MANY = 60_000
_BLOCK = 128
_LAID_OUT = 1 << 15
_FEW_CHUNKS = ((0, 16), (16, 16), (32, 16), (48, 16))
_PLACES = 2.0 ** np.arange(32)


def group_bits(rows: Rows, *, transposed: bool = False) -> NDArray[np.uint8]:
    """The bits of hashes (n x 32) by group (n x 4 x 64), or of the transposed pictures' hashes."""
    bits = np.unpackbits(rows, axis=1)[:, ::-1].reshape(-1, _SIDE, _SIDE)
    if transposed:
        bits = bits.transpose(0, 2, 1)
    groups = [bits[:, down::2, across::2].reshape(-1, _GROUP) for down, across in ((1, 1), (1, 0), (0, 1), (0, 0))]
    return np.stack(groups, axis=1)


def _words(grouped: NDArray[np.uint8]) -> Words:
    packed = np.packbits(grouped, axis=2)
    words: Words = np.ascontiguousarray(packed).view(np.uint64).reshape(-1, 4)
    return words


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Some bits: `length` of them of one group that may be turned over, and `fixed` of the one that is not."""

    group: int
    begin: int
    length: int
    fixed_begin: int = 0
    fixed: int = 0

    @property
    def bits(self) -> int:
        """How many."""
        return self.length + self.fixed

    @property
    def turns(self) -> int:
        """What turning the group over does to the chunk's value; 0 where nothing can."""
        return ((1 << self.length) - 1) << self.fixed if self.group else 0

    @property
    def keys(self) -> int:
        """How many values there are that are not one another's turned over."""
        return 1 << (self.bits - (1 if self.group else 0))

    def values(self, grouped: NDArray[np.uint8]) -> NDArray[np.int32]:
        """The chunk of each hash as a number, turned over where its highest bit would be set."""
        own = grouped[:, self.group, self.begin : self.begin + self.length]
        fixed = grouped[:, 0, self.fixed_begin : self.fixed_begin + self.fixed]
        values = _number(fixed) | (_number(own) << self.fixed)
        return self._canonical(values).astype(np.int32)

    def masks(self, radius: int) -> NDArray[np.int32]:
        """What turns such a value into each that is at most `radius` bits off, as such values."""
        return self._canonical(masks_within(self.bits, radius)).astype(np.int32)

    def _canonical(self, values: NDArray[np.int64]) -> NDArray[np.int64]:
        if not self.group:
            return values
        return np.where(values >> (self.bits - 1), values ^ self.turns, values)


def _number(bits: NDArray[np.uint8]) -> NDArray[np.int64]:
    return (bits.astype(np.float64) @ _PLACES[: bits.shape[1]]).astype(np.int64)  # exact: no number has 53 bits


def _layout(count: int) -> list[_Chunk]:
    """Chunks that have each of the 256 bits once; longer and fewer ones for many hashes."""
    if count < _MANY:
        return [_Chunk(group, begin, length) for group in range(4) for begin, length in _FEW_CHUNKS]
    chunks = [_Chunk(0, 0, 22), _Chunk(0, 22, 23)]
    for group, fixed_begin, fixed in ((1, 45, 6), (2, 51, 6), (3, 57, 7)):
        chunks += [_Chunk(group, 0, 23), _Chunk(group, 23, 23), _Chunk(group, 46, 18, fixed_begin, fixed)]
    return chunks


class BatchIndex:
    """The hashes `rows` of a list, for batches of questions: which are at most `distance` bits off, turned as may be.

    A million take 450 MB and some seconds to lay out.
    """

    def __init__(self, rows: Rows, distance: int) -> None:
        self._distance = distance
        layout = _layout(len(rows))
        words: list[Words] = []
        values: list[list[NDArray[np.int32]]] = [[] for _ in layout]
        for turned in (False, True):
            for begin in range(0, len(rows), _LAID_OUT):
                grouped = group_bits(rows[begin : begin + _LAID_OUT], transposed=turned)
                words.append(_words(grouped))
                for chunk, found in zip(layout, values, strict=True):
                    found.append(chunk.values(grouped))
        self._first = np.concatenate([each[:, :2] for each in words])
        self._rest = np.concatenate([each[:, 2:] for each in words])
        radii = choose_radii([chunk.bits for chunk in layout], distance)
        self._tables = [
            _Table(chunk, chunk.masks(radius), np.concatenate(found))
            for chunk, radius, found in zip(layout, radii, values, strict=True)
            if radius >= 0
        ]

    def search(self, rows: Rows) -> dict[int, int]:
        """The numbers of those of `rows` (n x 32) that are near to a hash of the list, and how many bits off it is."""
        found: dict[int, int] = {}
        for begin in range(0, len(rows), _BLOCK):
            grouped = group_bits(rows[begin : begin + _BLOCK])
            words = _words(grouped)
            first, rest = np.ascontiguousarray(words[:, :2]), np.ascontiguousarray(words[:, 2:])
            for table in self._tables:
                asked, entries = table.candidates(grouped)
                self._note_near(found, begin, first, rest, asked, entries)
        return found

    def _note_near(
        self,
        found: dict[int, int],
        begin: int,
        first: Words,
        rest: Words,
        asked: NDArray[np.int64],
        entries: NDArray[np.uint32],
    ) -> None:
        # Two groups of four tell nearly every pair apart: that of chance has some 60 bits in them.
        apart = np.bitwise_count(np.take(self._first, entries, axis=0) ^ np.take(first, asked, axis=0))
        fixed, one = apart[:, 0], apart[:, 1]
        near = np.flatnonzero(fixed + np.minimum(one, _GROUP - one) <= self._distance)
        if not len(near):
            return
        asked = asked[near]
        others = np.bitwise_count(np.take(self._rest, entries[near], axis=0) ^ np.take(rest, asked, axis=0))
        a, b = fixed[near].astype(np.int64), one[near].astype(np.int64)
        c, d = others.astype(np.int64).T
        b_turned, c_turned, d_turned = _GROUP - b, _GROUP - c, _GROUP - d
        ways = (a + b + c + d, a + b_turned + c + d_turned, a + b + c_turned + d_turned, a + b_turned + c_turned + d)
        least = np.minimum.reduce(ways)
        for at in np.flatnonzero(least <= self._distance).tolist():
            place, distance = begin + int(asked[at]), int(least[at])
            found[place] = min(distance, found.get(place, distance))


class _Table:
    """One chunk: which values the list has (a bit each, which is what fits the cache), and the hashes of each."""

    def __init__(self, chunk: _Chunk, masks: NDArray[np.int32], values: NDArray[np.int32]) -> None:
        self._chunk = chunk
        self._masks = masks
        counts = np.bincount(values, minlength=chunk.keys)
        self._starts = np.zeros(chunk.keys + 1, np.uint32)
        np.cumsum(counts, out=self._starts[1:])
        self._there = np.packbits(counts > 0, bitorder="little")
        self._order = np.argsort(values, kind="stable").astype(np.uint32)

    def candidates(self, grouped: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
        """Pairs that may be near: the number of the one asked about, and the entry of the list."""
        keys = (self._chunk.values(grouped)[:, None] ^ self._masks).reshape(-1)
        there = np.take(self._there, keys >> 3) >> (keys & 7).astype(np.uint8) & 1
        hits = np.flatnonzero(there)
        keys = keys[hits]
        first = np.take(self._starts, keys).astype(np.int64)
        counts = np.take(self._starts, keys + 1) - first
        ends = np.cumsum(counts)
        total = int(ends[-1]) if len(ends) else 0
        places = np.repeat(first - (ends - counts), counts) + np.arange(total)
        return np.repeat(hits // len(self._masks), counts), np.take(self._order, places)


class ListSearch:
    """Searches lists in batches; each list's index is laid out when it is first asked, and kept for as long as it."""

    def __init__(self) -> None:
        self._indexes: dict[tuple[str, str], BatchIndex] = {}

    def __call__(self, loaded: LoadedList, hashes: Sequence[bytes]) -> dict[int, int]:
        """Which of `hashes` a list has, turned or mirrored as they may be: their places, and the bits they are off."""
        key = (loaded.name, loaded.version)
        if key not in self._indexes:
            self._indexes[key] = BatchIndex(loaded.pdq.rows, loaded.definition.distance)
        return self._indexes[key].search(np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, 32))
