"""Which scan ids there were, tens of millions of them, in memory that a small machine has."""

from array import array
from collections.abc import Iterable
from typing import Final

import numpy as np

_BLOCK = 1 << 20
_CODE_BITS: Final = 4
HIGHEST_CODE: Final = (1 << _CODE_BITS) - 1


class ScanIds:
    """Scan ids with a code (0 to 15) each, in eight bytes an entry; where one comes twice, its lowest code holds.

    Sixty bits of an id's hash stand for it: of 26 million ids (a month at ten a second), the odds that any two are
    taken for one are 1 in 3,000. After `close` nothing is added.
    """

    def __init__(self) -> None:
        self._entries = array("Q")
        self._sorted = np.empty(0, np.uint64)

    def add(self, scan_id: str, code: int) -> None:
        """Note one id."""
        self._entries.append(_fingerprint(scan_id) | code)

    def close(self) -> None:
        """All are there: `count` and `find_missing` may be asked."""
        self._sorted = np.frombuffer(self._entries, np.uint64)
        self._sorted.sort()

    def count(self) -> dict[int, int]:
        """How many different ids have each code."""
        counts = np.zeros(1 << _CODE_BITS, np.int64)
        for start in range(0, len(self._sorted), _BLOCK):
            block = self._sorted[start : start + _BLOCK]
            before = self._sorted[start - 1 : start - 1 + len(block)] if start else np.append(~block[:1], block[:-1])
            first = block[(block >> _CODE_BITS) != (before >> _CODE_BITS)]
            counts += np.bincount((first & HIGHEST_CODE).astype(np.int64), minlength=len(counts))
        return {code: int(count) for code, count in enumerate(counts) if count}

    def find_missing(self, scan_ids: Iterable[str]) -> set[int]:
        """Fingerprints of those that are not among them."""
        wanted = np.fromiter((_fingerprint(each) for each in scan_ids), np.uint64)
        if not len(self._sorted):
            return set(wanted.tolist())
        at = np.searchsorted(self._sorted, wanted)  # the code bits of `wanted` are 0: left of any entry of the id
        found = self._sorted[np.minimum(at, len(self._sorted) - 1)]
        return set(wanted[(found >> _CODE_BITS) != (wanted >> _CODE_BITS)].tolist())


def _fingerprint(scan_id: str) -> int:
    """64 bits, the lowest `_CODE_BITS` of them 0; the same within this process only."""
    return hash(scan_id) & 0xFFFF_FFFF_FFFF_FFFF & ~HIGHEST_CODE
