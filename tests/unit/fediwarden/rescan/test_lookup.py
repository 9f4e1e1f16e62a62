"""A batch finds exactly what eight questions for each frame find."""

import numpy as np
import pytest

import fediwarden.rescan.lookup as lookup
from fediwarden.rescan.lookup import BatchIndex
from gateway.frames.pdq import turn_hashes
from gateway.lists.hashes import HashSet, Rows
from gateway.lists.index import PdqIndex
from gateway.lists.kinds import HashKind


def hashes(rng: np.random.Generator, count: int) -> Rows:
    return HashSet.from_packed({HashKind.PDQ: rng.bytes(count * 32)}).rows[HashKind.PDQ]


def questions(rng: np.random.Generator, rows: Rows, count: int) -> Rows:
    """Hashes of the list, turned, with 0 to 40 bits off."""
    asked = []
    for _ in range(count):
        turned = turn_hashes([rows[rng.integers(len(rows))].tobytes()])[rng.integers(8)]
        bits = np.unpackbits(turned)
        bits[rng.choice(256, rng.integers(41), replace=False)] ^= 1
        asked.append(np.packbits(bits))
    return np.stack(asked)


@pytest.mark.parametrize("distance", [31, 12, 0])
@pytest.mark.parametrize("long_chunks", [False, True])
def test_what_is_found_is_what_eight_questions_find(
    distance: int, long_chunks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if long_chunks:
        monkeypatch.setattr(lookup, "_MANY", 0)
    rng = np.random.default_rng(distance)
    rows = hashes(rng, 1_500)
    asked = questions(rng, rows, 150)
    index = PdqIndex(rows, distance)
    wanted = {}
    for number, each in enumerate(asked):
        if near := index.search(turn_hashes([each.tobytes()])):
            wanted[number] = min(found.distance for found in near)
    assert BatchIndex(rows, distance).search(asked) == wanted
    assert wanted or distance == 0


def test_each_bit_is_in_one_chunk() -> None:
    for count in (10, 1_000_000):
        taken = [
            (group, at)
            for chunk in lookup._layout(count)
            for group, begin, length in ((chunk.group, chunk.begin, chunk.length), (0, chunk.fixed_begin, chunk.fixed))
            for at in range(begin, begin + length)
        ]
        assert sorted(taken) == [(group, at) for group in range(4) for at in range(64)]
