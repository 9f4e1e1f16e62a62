"""The indexes against looking at every hash."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.lists import index
from gateway.lists.hashes import HashSet, Rows
from gateway.lists.index import ExactIndex, PdqIndex
from gateway.lists.kinds import DISTANCE_MOST, HashKind


def random_rows(seed: int, count: int, width: int = 32) -> Rows:
    packed = np.random.default_rng(seed).integers(0, 256, count * width, dtype=np.uint8).tobytes()
    return HashSet.from_packed({HashKind.PDQ if width == 32 else HashKind.MD5: packed}).rows[
        HashKind.PDQ if width == 32 else HashKind.MD5
    ]


def flipped(row: Rows, bits: int, seed: int) -> Rows:
    changed = row.copy()
    for bit in np.random.default_rng(seed).choice(256, bits, replace=False):
        changed[bit // 8] ^= 1 << (bit % 8)
    return changed


def naive(rows: Rows, query: Rows) -> int:
    """The smallest distance, bit by bit."""
    return int((np.unpackbits(rows, axis=1) != np.unpackbits(query)).sum(axis=1).min())


LARGE = random_rows(1, 260_000)
MIDDLE = random_rows(2, 5_000)
SMALL = random_rows(3, 40)


@pytest.mark.parametrize("rows", [SMALL, MIDDLE, LARGE], ids=["scanned", "16 chunks", "13 chunks"])
@pytest.mark.parametrize("distance", [0, 5, 12, 20, 31])
def test_what_is_within_the_distance_is_found_and_nothing_beyond(rows: Rows, distance: int) -> None:
    searched = PdqIndex(rows, distance)
    rng = np.random.default_rng(distance)
    queries, expected = [], []
    for number in range(24):
        bits = int(rng.integers(0, 40))
        queries.append(flipped(rows[rng.integers(0, len(rows))], bits, number))
        expected.append(bits)
    found = {near.query: near for near in searched.search(np.stack(queries))}
    for number, bits in enumerate(expected):
        assert (number in found) == (bits <= distance), (bits, distance)
        if number in found:
            assert found[number].distance == bits
            assert naive(np.frombuffer(found[number].hash, np.uint8).reshape(1, 32), queries[number]) == bits


@given(seed=st.integers(0, 1 << 16), count=st.integers(1, 400), distance=st.integers(0, DISTANCE_MOST))
@settings(max_examples=40, deadline=None)
def test_the_tables_find_what_comparing_every_hash_finds_however_alike_they_are(
    seed: int, count: int, distance: int
) -> None:
    rng = np.random.default_rng(seed)
    origin = rng.integers(0, 256, 32, dtype=np.uint8)
    rows = np.stack([flipped(origin, int(rng.integers(0, 60)), seed + n) for n in range(count)])
    rows = HashSet.from_packed({HashKind.PDQ: rows.tobytes()}).rows[HashKind.PDQ]
    queries = np.stack([flipped(origin, int(rng.integers(0, 60)), seed + 1000 + n) for n in range(8)])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(index, "_SCAN_UP_TO", 0)
        found = {near.query: near.distance for near in PdqIndex(rows, distance).search(queries)}
    nearest = {number: naive(rows, query) for number, query in enumerate(queries)}
    assert found == {number: bits for number, bits in nearest.items() if bits <= distance}


def test_a_list_full_of_the_same_picture_is_searched_as_exactly_as_any_other() -> None:
    origin = random_rows(9, 1)[0]
    alike = np.stack([flipped(origin, 12, seed) for seed in range(3_000)])
    rows = HashSet.from_packed({HashKind.PDQ: alike.tobytes()}).rows[HashKind.PDQ]
    query = flipped(origin, 15, 77)[None]
    (near,) = PdqIndex(rows).search(query)
    assert near.distance == naive(rows, query[0])


def test_an_index_without_hashes_finds_nothing() -> None:
    assert PdqIndex(np.empty((0, 32), np.uint8)).search(SMALL) == []
    assert bytes(32) not in ExactIndex(np.empty((0, 32), np.uint8))


@pytest.mark.parametrize("distance", [-1, DISTANCE_MOST + 1])
def test_a_distance_beyond_what_means_the_same_picture_is_refused(distance: int) -> None:
    with pytest.raises(ValueError, match="0 to 31"):
        PdqIndex(SMALL, distance)


@pytest.mark.parametrize("width", [32, 16])
def test_a_files_hash_is_found_whole_or_not_at_all(width: int) -> None:
    rows = random_rows(5, 3_000, width)
    looked_up = ExactIndex(rows)
    for row in rows[::50]:
        assert row.tobytes() in looked_up
        for byte in (0, 7, 8, width - 1):
            other = row.copy()
            other[byte] ^= 1
            assert other.tobytes() not in looked_up


def test_hashes_that_share_their_first_bytes_are_told_apart() -> None:
    head = bytes(range(8))
    digests = [head + bytes([n]) * 24 for n in range(50)]
    looked_up = ExactIndex(HashSet.of({HashKind.SHA256: digests}).rows[HashKind.SHA256])
    assert all(digest in looked_up for digest in digests)
    assert head + bytes([99]) * 24 not in looked_up


@given(st.lists(st.binary(min_size=16, max_size=16), max_size=60))
def test_a_set_of_hashes_is_sorted_and_has_each_once(digests: list[bytes]) -> None:
    rows = HashSet.of({HashKind.MD5: digests}).rows[HashKind.MD5]
    assert [row.tobytes() for row in rows] == sorted(set(digests))
