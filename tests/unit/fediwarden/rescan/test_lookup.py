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


@pytest.mark.parametrize("count", [1_000, 70_000])
def test_what_one_chunk_alone_can_find_is_found(count: int) -> None:
    """31 bits off, spread so that every chunk but one is just outside its radius; others share that one's value."""
    rng = np.random.default_rng(count)
    chunks = lookup._layout(count)
    radii = lookup.choose_radii([chunk.bits for chunk in chunks], 31)
    grouped = lookup.group_bits(np.packbits(np.eye(256, dtype=np.uint8), axis=1))  # of hashes that have one bit each

    def places_of(chunk: lookup._Chunk) -> list[int]:
        own = [(chunk.group, chunk.begin + each) for each in range(chunk.length)]
        fixed = [(0, chunk.fixed_begin + each) for each in range(chunk.fixed)]
        return [int(np.flatnonzero(grouped[:, group, at])[0]) for group, at in own + fixed]

    listed = [hashes(rng, count)]
    asked = []
    for inside in chunks:
        several = rng.integers(0, 2, (5, 256), dtype=np.uint8)
        several[:, places_of(inside)] = several[0, places_of(inside)]
        listed.append(np.packbits(several, axis=1))
        for bits in several:
            for chunk, radius in zip(chunks, radii, strict=True):
                bits[rng.choice(places_of(chunk), radius + (chunk != inside), replace=False)] ^= 1
            asked.append(turn_hashes([np.packbits(bits).tobytes()])[rng.integers(8)])
    rows = HashSet.from_packed({HashKind.PDQ: np.concatenate(listed).tobytes()}).rows[HashKind.PDQ]
    assert BatchIndex(rows, 31).search(np.stack(asked)) == dict.fromkeys(range(len(asked)), 31)


def test_many_that_are_nearly_alike_are_all_compared() -> None:
    """The frames of a film: thousands of hashes with the same value in most chunks."""
    rng = np.random.default_rng(4)
    film = np.repeat(hashes(rng, 1), 3_000, axis=0)
    film[:, :4] = rng.integers(0, 256, (3_000, 4))
    rows = HashSet.from_packed({HashKind.PDQ: film.tobytes() + rng.bytes(500 * 32)}).rows[HashKind.PDQ]
    asked = questions(rng, rows, 60)
    words = rows.view(np.uint64)
    wanted = {}
    for number, each in enumerate(asked):
        turned = turn_hashes([each.tobytes()]).view(np.uint64)
        nearest = min(int(np.bitwise_count(words ^ way).sum(axis=1, dtype=int).min()) for way in turned)
        if nearest <= 31:
            wanted[number] = nearest
    assert BatchIndex(rows, 31).search(asked) == wanted
    assert wanted


def test_each_bit_is_in_one_chunk() -> None:
    for count in (10, 1_000_000):
        taken = [
            (group, at)
            for chunk in lookup._layout(count)
            for group, begin, length in ((chunk.group, chunk.begin, chunk.length), (0, chunk.fixed_begin, chunk.fixed))
            for at in range(begin, begin + length)
        ]
        assert sorted(taken) == [(group, at) for group in range(4) for at in range(64)]
