"""Looking many pictures' hashes up in a known-hash list at once, in all eight ways that a picture can be turned.

A gateway asks about eight hashes for each frame. Here that is one question, for the eight are one another's bits: to
mirror a picture turns the sign of every other coefficient, so that of the 256 bits 64 stay as they are and three other
groups of 64 are each turned over as a whole or not at all; to turn it by a right angle transposes them besides.
So bits are laid out group by group, chunks (see `gateway.lists.index`: multi-index hashing) are told apart only up to
being turned over, and a list is indexed as it is and transposed. What comes out is exactly what eight questions give.

What a chunk lets through is nearly all chance, and is sorted out by the chunk after it (Qin, Xiao: "Pigeonring: a
principle for faster thresholded similarity search", PVLDB 12, 2018): with the chunks in a ring, and the radii r as
there, two hashes that are near differ somewhere in at most r of a chunk's bits and, together with the next chunk of
radius s, in at most r + s + 1. The next chunk's value lies beside each place in a table, so that one in some thousand
is left to be compared whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

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
_BLOCK = 1024
_LAID_OUT = 1 << 15
_FEW_CHUNKS = ((0, 16), (16, 16), (32, 16), (48, 16))
_PLACES = 2.0 ** np.arange(32)
_MORE = np.int32(-(1 << 31))


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

    def masks(self, patterns: NDArray[np.int64]) -> NDArray[np.int32]:
        """What turns such a value into each that is off by one of the `patterns`, as such values."""
        return self._canonical(patterns).astype(np.int32)

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

    A million take 540 MB and some seconds to lay out.
    """

    def __init__(self, rows: Rows, distance: int) -> None:
        self._distance = distance
        layout = _layout(len(rows))
        radii = choose_radii([chunk.bits for chunk in layout], distance)
        used = [(chunk, radius) for chunk, radius in zip(layout, radii, strict=True) if radius >= 0]
        words: list[Words] = []
        values: list[list[NDArray[np.int32]]] = [[] for _ in used]
        for turned in (False, True):
            for begin in range(0, len(rows), _LAID_OUT):
                grouped = group_bits(rows[begin : begin + _LAID_OUT], transposed=turned)
                words.append(_words(grouped))
                for (chunk, _), found in zip(used, values, strict=True):
                    found.append(chunk.values(grouped))
        self._words = np.concatenate(words)
        ring = [(*each, np.concatenate(found)) for each, found in zip(used, values, strict=True)]
        self._tables = [_Table(*one, *following) for one, following in pairwise([*ring, ring[0]])]

    def search(self, rows: Rows) -> dict[int, int]:
        """The numbers of those of `rows` (n x 32) that are near to a hash of the list, and how many bits off it is."""
        found: dict[int, int] = {}
        for begin in range(0, len(rows), _BLOCK):
            grouped = group_bits(rows[begin : begin + _BLOCK])
            words = _words(grouped)
            values = [table.chunk.values(grouped) for table in self._tables]
            for table, (own, following) in zip(self._tables, pairwise([*values, values[0]]), strict=True):
                asked, entries = table.candidates(own, following)
                distances = _distances(np.take(self._words, entries, axis=0) ^ np.take(words, asked, axis=0))
                for at in np.flatnonzero(distances <= self._distance).tolist():
                    place, distance = begin + int(asked[at]), int(distances[at])
                    found[place] = min(distance, found.get(place, distance))
        return found


def _distances(apart: Words) -> NDArray[np.int64]:
    """How many bits are set, with the groups turned over in the one of four ways that leaves fewest."""
    a, b, c, d = np.bitwise_count(apart).astype(np.int64).T
    b_turned, c_turned, d_turned = _GROUP - b, _GROUP - c, _GROUP - d
    ways = (a + b + c + d, a + b_turned + c + d_turned, a + b + c_turned + d_turned, a + b_turned + c_turned + d)
    least: NDArray[np.int64] = np.minimum.reduce(ways)
    return least


class _Table:
    """One chunk: which values the list has (a bit each, which is what fits the cache), and the hashes of each.

    `values` and `next_values` are those of this chunk and of the next one in the ring, for each hash of the list.
    """

    def __init__(
        self,
        chunk: _Chunk,
        radius: int,
        values: NDArray[np.int32],
        next_chunk: _Chunk,
        next_radius: int,
        next_values: NDArray[np.int32],
    ) -> None:
        self.chunk = chunk
        patterns = masks_within(chunk.bits, radius)
        self._masks = chunk.masks(patterns)
        self._next_at_most = (radius + next_radius + 1 - np.bitwise_count(patterns)).astype(np.uint8)
        self._next_turns = np.int32(next_chunk.turns)
        counts = np.bincount(values, minlength=chunk.keys)
        self._starts = np.zeros(chunk.keys + 1, np.uint32)
        np.cumsum(counts, out=self._starts[1:])
        self._there = np.packbits(counts > 0, bitorder="little")
        self._order = np.argsort(values, kind="stable").astype(np.uint32)
        ordered = values[self._order]
        self._next = next_values[self._order]
        self._next[:-1][ordered[:-1] == ordered[1:]] |= _MORE

    def candidates(
        self, own: NDArray[np.int32], following: NDArray[np.int32]
    ) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
        """Pairs that may be near: the number of the one asked about, and the entry of the list.

        `own` and `following` are the values of this chunk and the next, for each hash that is asked about.
        """
        keys = (own[:, None] ^ self._masks).reshape(-1)
        there = np.take(self._there, keys >> 3) >> (keys & 7).astype(np.uint8) & 1
        hits = np.flatnonzero(there.view(bool))
        keys = keys[hits]
        asked, masks = np.divmod(hits, len(self._masks))
        next_values, at_most = np.take(following, asked), np.take(self._next_at_most, masks)
        places = np.take(self._starts, keys)
        stored = np.take(self._next, places)
        first = np.flatnonzero(self._apart(stored & ~_MORE, next_values) <= at_most)
        # Most values are one hash's alone; only the others are spread out.
        more = np.flatnonzero(stored < 0)
        begins = places[more].astype(np.int64) + 1
        counts = np.take(self._starts, keys[more] + 1) - begins
        ends = np.cumsum(counts)
        others = np.repeat(begins - (ends - counts), counts) + np.arange(ends[-1] if len(ends) else 0)
        whose = np.repeat(more, counts)
        apart = self._apart(np.take(self._next, others) & ~_MORE, np.take(next_values, whose))
        near = np.flatnonzero(apart <= np.take(at_most, whose))
        found = np.concatenate([places[first], others[near]])
        return np.concatenate([asked[first], asked[whose[near]]]), np.take(self._order, found)

    def _apart(self, stored: NDArray[np.int32], asked: NDArray[np.int32]) -> NDArray[np.uint8]:
        """In how many bits values of the next chunk differ, turned over if that is fewer."""
        apart = stored ^ asked
        bits: NDArray[np.uint8] = np.bitwise_count(apart)
        return np.minimum(bits, np.bitwise_count(apart ^ self._next_turns)) if self._next_turns else bits


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
