"""Looking up many pictures' hashes at once in a known-hash list."""

from collections.abc import Sequence

from gateway.frames.frame import VARIANTS
from gateway.frames.pdq import turn_hashes
from gateway.lists.loaded import LoadedList

_AT_A_TIME = 64


def search_list(loaded: LoadedList, hashes: Sequence[bytes]) -> dict[int, int]:
    """Which of `hashes` a list has, turned or mirrored as they may be: their places, and the bits they are off."""
    found: dict[int, int] = {}
    for begin in range(0, len(hashes), _AT_A_TIME):
        for near in loaded.pdq.search(turn_hashes(hashes[begin : begin + _AT_A_TIME])):
            place = begin + near.query // VARIANTS
            found[place] = min(near.distance, found.get(place, near.distance))
    return found
