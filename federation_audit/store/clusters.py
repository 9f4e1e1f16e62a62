"""Clusters of flagged media that look alike: connected components, kept as media come and go.

Two media are linked that have frames within `DISTANCE_MOST` bits of each other, or the same bytes (in two tenants'
stores). Components grow by merging, so it makes no difference in which order media come. When media go, the components
that they were in are made anew from what is left.

All hashes of flagged media are held in memory (32 bytes each), and a new one is compared with each of them: 1 % of ten
million media is 100,000 hashes, which one core compares in about a millisecond.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import Self

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, select

from federation_audit.store.tables import FLAGS, LOOKS, MEDIA

DISTANCE_MOST = 31
_WORDS = 4
_FIRST_ROOM = 1_024


class Clusters:
    """The clusters of a store. Belongs to one writer: made anew after a transaction that was rolled back."""

    def __init__(self) -> None:
        self._cluster_of: dict[int, int] = {}
        self._members: dict[int, list[int]] = defaultdict(list)
        self._same_bytes: dict[bytes, set[int]] = defaultdict(set)
        self._bytes_of: dict[int, bytes] = {}
        self._columns = [np.zeros(_FIRST_ROOM, dtype=np.uint64) for _ in range(_WORDS)]
        self._owners = np.zeros(_FIRST_ROOM, dtype=np.int64)
        self._count = 0
        self._next = 1

    @classmethod
    def load(cls, connection: Connection) -> Self:
        """Those that are written."""
        clusters = cls()
        flagged = select(FLAGS.c.media_id, FLAGS.c.cluster_id, MEDIA.c.sha256)
        for medium, cluster, sha256 in connection.execute(flagged.join(MEDIA, MEDIA.c.id == FLAGS.c.media_id)):
            clusters._take(medium, sha256, cluster)
        for medium, pdq in connection.execute(select(LOOKS.c.media_id, LOOKS.c.pdq)):
            clusters._hold(medium, pdq)
        clusters._next = max(clusters._members, default=0) + 1
        return clusters

    def cluster_of(self, medium: int) -> int:
        """The cluster of a medium that was added."""
        return self._cluster_of[medium]

    def add(self, media: Mapping[int, bytes], looks: Iterable[tuple[int, bytes]]) -> set[int]:
        """Add `media` (id to sha256), then hashes of media that are there; the media whose cluster has changed.

        Those that were there already may be among `media`.
        """
        moved: set[int] = set()
        for medium, sha256 in media.items():
            if medium not in self._cluster_of:
                self._take(medium, sha256, self._next)
                self._next += 1
                moved.add(medium)
                for other in self._same_bytes[sha256]:
                    self._merge(medium, other, moved)
        for medium, pdq in looks:
            for other in np.unique(self._owners_near(pdq)).tolist():
                self._merge(medium, other, moved)
            self._hold(medium, pdq)
        return moved

    def drop(self, media: Collection[int], looks: Collection[tuple[int, bytes]]) -> set[int]:
        """Take `media`, and single hashes of others, out; the media that stay and whose cluster has changed."""
        touched = {self._cluster_of[medium] for medium in (*media, *(medium for medium, _ in looks))}
        if not touched:
            return set()
        gone = set(media)
        again = {medium for cluster in touched for medium in self._members.pop(cluster)}
        lost = set(looks)
        rows = np.isin(self._owners[: self._count], np.fromiter(again, dtype=np.int64, count=len(again)))
        kept: list[tuple[int, bytes]] = []
        for row in np.flatnonzero(rows).tolist():
            look = (int(self._owners[row]), b"".join(column[row].tobytes() for column in self._columns))
            if look[0] not in gone and look not in lost:
                kept.append(look)
        stay = ~rows
        self._owners = np.concatenate([self._owners[: self._count][stay], np.zeros(_FIRST_ROOM, dtype=np.int64)])
        self._columns = [
            np.concatenate([column[: self._count][stay], np.zeros(_FIRST_ROOM, dtype=np.uint64)])
            for column in self._columns
        ]
        self._count = int(stay.sum())
        names = {medium: self._bytes_of.pop(medium) for medium in again}
        for medium, sha256 in names.items():
            del self._cluster_of[medium]
            self._same_bytes[sha256].discard(medium)
        return self.add({medium: names[medium] for medium in sorted(again - gone)}, sorted(kept))

    def _take(self, medium: int, sha256: bytes, cluster: int) -> None:
        self._cluster_of[medium] = cluster
        self._members[cluster].append(medium)
        self._same_bytes[sha256].add(medium)
        self._bytes_of[medium] = sha256

    def _hold(self, medium: int, pdq: bytes) -> None:
        if self._count == len(self._owners):
            self._owners = np.concatenate([self._owners, np.zeros_like(self._owners)])
            self._columns = [np.concatenate([column, np.zeros_like(column)]) for column in self._columns]
        self._owners[self._count] = medium
        for column, word in zip(self._columns, np.frombuffer(pdq, dtype=np.uint64), strict=True):
            column[self._count] = word
        self._count += 1

    def _owners_near(self, pdq: bytes) -> NDArray[np.int64]:
        words = np.frombuffer(pdq, dtype=np.uint64)
        bits = [
            np.bitwise_count(column[: self._count] ^ word) for column, word in zip(self._columns, words, strict=True)
        ]
        three = bits[0] + bits[1] + bits[2]
        # A sum of all four may be 256, which is 0 in eight bits: of three it fits, and then only small ones go on.
        near = (three <= DISTANCE_MOST) & (np.minimum(three, DISTANCE_MOST) + bits[3] <= DISTANCE_MOST)
        owners: NDArray[np.int64] = self._owners[: self._count][near]
        return owners

    def _merge(self, one: int, other: int, moved: set[int]) -> None:
        small, large = self._cluster_of[one], self._cluster_of[other]
        if small == large:
            return
        if len(self._members[small]) > len(self._members[large]):
            small, large = large, small
        for medium in self._members.pop(small):
            self._cluster_of[medium] = large
            self._members[large].append(medium)
            moved.add(medium)
