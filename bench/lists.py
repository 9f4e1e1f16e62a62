"""How long a known-hash list takes to look an image up in, and how much memory it needs.

python -m bench.lists [--hashes 1000000] [--faiss]

One query is one frame in its eight ways to be turned. `--faiss` compares with faiss's flat index and its multi-index,
where faiss-cpu is installed (it is no dependency). Times are CPU time of one thread, for the machine may be busy.
"""

import argparse
import importlib
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gateway.frames.frame import VARIANTS
from gateway.lists.hashes import HashSet, Rows
from gateway.lists.index import PdqIndex
from gateway.lists.kinds import HashKind

_QUERIES = 200
_BITS_OFF = 20


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--hashes", type=int, default=1_000_000)
    arguments.add_argument("--faiss", action="store_true")
    options = arguments.parse_args()
    rng = np.random.default_rng(1)
    packed = rng.integers(0, 256, options.hashes * 32, dtype=np.uint8).tobytes()
    rows = HashSet.from_packed({HashKind.PDQ: packed}).rows[HashKind.PDQ]
    del packed
    hits, misses = _queries(rows, rng)
    before, began = _resident_mb(), time.process_time()
    index = PdqIndex(rows)
    built_s, with_hashes = time.process_time() - began, _resident_mb() - before + rows.nbytes / 1e6
    assert all(index.search(query) for query in hits), "a query near a hash was not found"
    print(f"{len(rows)} hashes: built in {built_s:.2f} s, {with_hashes:.0f} MB with the hashes themselves")
    for what, queries in (("found", hits), ("not found", misses)):
        print(f"  {what:10}{_percentiles(index.search, queries)}")
    if options.faiss:
        _compare(rows, misses)


def _queries(rows: Rows, rng: np.random.Generator) -> tuple[list[Rows], list[Rows]]:
    """Frames near a hash (one of the eight), and frames near none."""
    hits, misses = [], []
    for _ in range(_QUERIES):
        query = rng.integers(0, 256, (VARIANTS, 32), dtype=np.uint8)
        misses.append(query.copy())
        near = np.unpackbits(rows[rng.integers(len(rows))])
        near[rng.choice(256, _BITS_OFF, replace=False)] ^= 1
        query[rng.integers(VARIANTS)] = np.packbits(near)
        hits.append(query)
    return hits, misses


def _percentiles(search: Callable[[Rows], object], queries: list[Rows]) -> str:
    for query in queries[:10]:
        search(query)
    took: list[float] = []
    for query in queries:
        began = time.thread_time()
        search(query)
        took.append((time.thread_time() - began) * 1000)
    p50, p99 = np.percentile(np.array(took), (50, 99))
    return f"p50 {p50:.2f} ms, p99 {p99:.2f} ms"


def _compare(rows: NDArray[np.uint8], queries: list[Rows]) -> None:
    faiss = importlib.import_module("faiss")
    faiss.omp_set_num_threads(1)
    flat = faiss.IndexBinaryFlat(256)
    flat.add(rows)
    print(f"  faiss flat {_percentiles(lambda query: flat.search(query, 1), queries[:40])}")
    before, began = _resident_mb(), time.process_time()
    multi = faiss.IndexBinaryMultiHash(256, 16, 16)
    multi.nflip = 1
    multi.add(rows)
    print(f"  faiss multi-index built in {time.process_time() - began:.1f} s, {_resident_mb() - before:.0f} MB more")
    print(f"  faiss multi-index {_percentiles(lambda query: multi.search(query, 1), queries[:40])}")


def _resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


if __name__ == "__main__":
    main()
