"""Looking hashes up: files' by equality, pictures' within a Hamming distance. Both are exact: nothing near is missed.

For pictures this is multi-index hashing (Norouzi, Punjani, Fleet: "Fast search in Hamming space with multi-index
hashing", CVPR 2012): the 256 bits are cut into chunks, and two hashes that differ in at most d bits differ little in
at least one chunk, so it is enough to look where a chunk is almost the same. Chunks may be searched with radii r that
differ as long as the sum of r + 1 exceeds d (no hash can then be outside every chunk's radius). Measured against
scanning everything, with faiss too: docs/performance.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from math import comb

import numpy as np
from numpy.typing import NDArray

from gateway.lists.hashes import Rows
from gateway.lists.kinds import DISTANCE_MOST

BITS = 256
_SCAN_UP_TO = 2_000
"""So few hashes are compared one by one in less time than their index takes to look up."""

_LARGE = 250_000
_CHUNKS_FEW, _CHUNKS_MANY = 16, 13
"""Fewer and longer chunks have shorter buckets and larger tables (46 MB): they pay from a quarter of a million on."""

_BLOCK = 1 << 16

Words = NDArray[np.uint64]
"""Hashes as four words each."""


@dataclass(frozen=True, slots=True)
class Near:
    """A hash of the index that is near a query: the query's number, the hash, the bits that differ."""

    query: int
    hash: bytes
    distance: int


class ExactIndex:
    """Hashes of files, sorted as `HashSet` has them."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._heads = rows[:, :8].copy().view(">u8").reshape(-1).astype(np.uint64)

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, digest: bytes) -> bool:
        head = np.uint64(int.from_bytes(digest[:8]))
        first, last = np.searchsorted(self._heads, head, "left"), np.searchsorted(self._heads, head, "right")
        return any(self._rows[at].tobytes() == digest for at in range(int(first), int(last)))


class PdqIndex:
    """Hashes of pictures. `distance` (0 to `DISTANCE_MOST`) is fixed when it is built.

    A million take 130 MB. Searching allocates no more than a block of candidates and may run in several threads.
    """

    def __init__(self, rows: Rows, distance: int = DISTANCE_MOST) -> None:
        if not 0 <= distance <= DISTANCE_MOST:
            raise ValueError(f"distance must be 0 to {DISTANCE_MOST}, not {distance}")
        self._rows = rows
        self._words = rows.view(np.uint64)
        self._distance = distance
        self._tables = _Tables(rows, distance) if len(rows) > _SCAN_UP_TO else None

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def rows(self) -> Rows:
        """The hashes themselves."""
        return self._rows

    def search(self, queries: Rows) -> list[Near]:
        """Every hash within the distance of one of `queries` (n x 32); the nearest of each query alone."""
        if not len(self._rows) or not len(queries):
            return []
        wanted = queries.view(np.uint64)
        found = self._tables.candidates(queries, at_most=len(self._rows)) if self._tables else None
        if found is None:  # few hashes, or so many alike that the tables single nothing out
            return self._scan(wanted)
        return self._nearest(wanted, *found)

    def _nearest(self, wanted: Words, rows: NDArray[np.intp], per_query: NDArray[np.intp]) -> list[Near]:
        distances = _distances(np.take(self._words, rows, axis=0), np.repeat(wanted, per_query, axis=0))
        near = np.flatnonzero(distances <= self._distance)
        asked = np.searchsorted(np.cumsum(per_query), near, "right")
        best: dict[int, Near] = {}
        for at, query in zip(near.tolist(), asked.tolist(), strict=True):
            distance = int(distances[at])
            if query not in best or distance < best[query].distance:
                best[query] = Near(query, self._rows[rows[at]].tobytes(), distance)
        return [best[query] for query in sorted(best)]

    def _scan(self, wanted: Words) -> list[Near]:
        best: list[Near] = []
        for query, words in enumerate(wanted):
            nearest, at = BITS + 1, 0
            for start in range(0, len(self._words), _BLOCK):
                block = self._words[start : start + _BLOCK]
                distances = _distances(block, words)
                lowest = int(distances.argmin())
                if distances[lowest] < nearest:
                    nearest, at = int(distances[lowest]), start + lowest
            if nearest <= self._distance:
                best.append(Near(query, self._rows[at].tobytes(), nearest))
        return best


def _distances(one: Words, other: Words) -> NDArray[np.uint16]:
    """How many bits differ, row by row. (Adding four columns up takes a sixth of the time of a sum along rows.)"""
    bits = np.bitwise_count(one ^ other).astype(np.uint16)
    distances: NDArray[np.uint16] = bits[:, 0] + bits[:, 1] + bits[:, 2] + bits[:, 3]
    return distances


class _Tables:
    """For each chunk, the rows in the order of its value, and where each value's begin."""

    def __init__(self, rows: Rows, distance: int) -> None:
        count = _CHUNKS_MANY if len(rows) >= _LARGE else _CHUNKS_FEW
        self._chunks = _cut(count)
        radii = choose_radii([length for _, length in self._chunks], distance)
        used = [(chunk, radius) for chunk, radius in zip(self._chunks, radii, strict=True) if radius >= 0]
        self._chunks = [chunk for chunk, _ in used]
        masks = [masks_within(length, radius) for (_, length), radius in used]
        self._masks = np.concatenate(masks)
        self._chunk_of = np.repeat(np.arange(len(used)), [len(each) for each in masks])
        starts, orders = [], []
        for begin, length in self._chunks:
            values = _values(rows, begin, length)
            orders.append(_order(values))
            starts.append(np.zeros((1 << length) + 1, np.uint32))
            np.cumsum(np.bincount(values, minlength=1 << length), out=starts[-1][1:])
        table_at = np.cumsum([0, *map(len, starts[:-1])], dtype=np.int64)
        self._start_of_mask = table_at[self._chunk_of]
        self._order_of_mask = self._chunk_of.astype(np.int64) * len(rows)
        self._starts = np.concatenate(starts)
        self._orders = np.concatenate(orders)

    def candidates(self, queries: Rows, *, at_most: int) -> tuple[NDArray[np.intp], NDArray[np.intp]] | None:
        """Rows that may be near, query after query, and how many each has; None where there are more than `at_most`.

        `np.take` because indexing with an array is six times as slow where what is taken lies all over the memory.
        """
        values = _values_of_all(queries, self._chunks)
        at = (values[:, self._chunk_of] ^ self._masks) + self._start_of_mask
        first = np.take(self._starts, at).astype(np.int64)
        counts = np.take(self._starts, at + 1) - first
        per_query = counts.sum(axis=1)
        total = int(per_query.sum())
        if total > at_most:
            return None
        sizes = counts.reshape(-1)
        begins = (first + self._order_of_mask).reshape(-1)
        places = np.repeat(begins - (np.cumsum(sizes) - sizes), sizes) + np.arange(total)
        return np.take(self._orders, places).astype(np.intp), per_query


def _cut(chunks: int) -> list[tuple[int, int]]:
    """Begin and length in bits of each chunk."""
    edges = [number * BITS // chunks for number in range(chunks + 1)]
    return [(begin, end - begin) for begin, end in pairwise(edges)]


def choose_radii(lengths: Sequence[int], distance: int) -> list[int]:
    """How far to look in each chunk, -1 for not at all: the sum of radius + 1 is `distance` + 1.

    What is to be looked at grows fast with the radius, so they are as even as can be, wider in the longer chunks.
    """
    radii = [-1] * len(lengths)
    for _ in range(distance + 1):
        cheapest = min(range(len(lengths)), key=lambda at: comb(lengths[at], radii[at] + 1) / 2 ** lengths[at])
        radii[cheapest] += 1
    return radii


def masks_within(length: int, radius: int) -> NDArray[np.int64]:
    """Every pattern of at most `radius` bits."""
    return np.array(
        [sum(1 << bit for bit in bits) for count in range(radius + 1) for bits in combinations(range(length), count)],
        np.int64,
    )


def _values(rows: Rows, begin: int, length: int) -> NDArray[np.int64]:
    """The chunk of each row as a number."""
    first, last = begin // 8, (begin + length + 7) // 8
    values = np.zeros(len(rows), np.int64)
    for column in range(first, last):
        values |= rows[:, column].astype(np.int64) << (8 * (column - first))
    return (values >> (begin - 8 * first)) & ((1 << length) - 1)


def _values_of_all(rows: Rows, chunks: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    """The chunks of each row, a column for each; at once, for few rows."""
    begins, lengths = np.array(chunks, np.int64).T
    padded = np.zeros((len(rows), BITS // 8 + 4), np.int64)
    padded[:, : BITS // 8] = rows
    parts = padded[:, (begins // 8)[:, None] + np.arange(4)] << np.arange(0, 32, 8)
    values: NDArray[np.int64] = (parts.sum(axis=2) >> (begins % 8)) & ((1 << lengths) - 1)
    return values


def _order(values: NDArray[np.int64]) -> NDArray[np.uint32]:
    """The rows in the order of their values: two passes of numpy's radix sort, which takes 16 bits at a time."""
    order = np.argsort(values.astype(np.uint16), kind="stable")
    high = (values >> 16).astype(np.uint8)
    return order[np.argsort(high[order], kind="stable")].astype(np.uint32)
