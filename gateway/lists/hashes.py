"""Sets of hashes as arrays of bytes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from gateway.lists.kinds import WIDTH, HashKind

Rows = NDArray[np.uint8]
"""Hashes of one kind: one row each, sorted, no two alike."""


@dataclass(frozen=True, slots=True)
class HashSet:
    """Hashes by kind; every kind is there, if only with no rows."""

    rows: Mapping[HashKind, Rows]

    @classmethod
    def of(cls, hashes: Mapping[HashKind, Iterable[bytes]]) -> Self:
        """The set of `hashes`, which have the right lengths, in any order and however often."""
        return cls.from_packed({kind: b"".join(each) for kind, each in hashes.items()})

    @classmethod
    def from_packed(cls, packed: Mapping[HashKind, bytes | bytearray]) -> Self:
        """The same from the hashes of each kind one after the other."""
        return cls({kind: _sorted(packed.get(kind, b""), width) for kind, width in WIDTH.items()})

    def __len__(self) -> int:
        return sum(map(len, self.rows.values()))

    @property
    def counts(self) -> dict[str, int]:
        """How many there are of each kind that there is."""
        return {kind.value: len(rows) for kind, rows in self.rows.items() if len(rows)}

    def hexadecimal(self, kind: HashKind) -> list[str]:
        """The hashes of a kind as text, in order."""
        text = self.rows[kind].tobytes().hex()
        digits = 2 * WIDTH[kind]
        return [text[at : at + digits] for at in range(0, len(text), digits)]


def _sorted(packed: bytes | bytearray, width: int) -> Rows:
    rows = np.frombuffer(packed, np.uint8).reshape(-1, width)
    if not len(rows):
        return rows
    words = rows.view(">u8").astype(np.uint64)
    order = np.lexsort(words.T[::-1])
    words = words[order]
    is_new = np.ones(len(rows), bool)
    is_new[1:] = (words[1:] != words[:-1]).any(axis=1)
    return np.ascontiguousarray(rows[order[is_new]])
