"""How many verdicts a worker of a rescan judges again in a second of one core's CPU time.

    python -m bench.rescan [--verdicts 5000] [--hashes 1000000] [--policy NAME...] [--workers 2]

For each policy, from scores: judging alone, with reading the record before (msgpack and checks), and with writing the
record of topic rescans after; the same for reading whole verdicts, which is what it would cost without
`fediwarden.rescan.judging.KeptVerdict`. From hashes: against a list of so many, of which one image in a hundred is
near to one. CPU time of this thread, for the machine may be busy; the best of three. With `--workers`, also what so
many processes read, judge and write at once against the list, by the clock: workers share a rescan by partition.
"""

import argparse
import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np

from fediwarden.rescan.judging import VIEWS, HashJudge, Judge, KeptVerdict, Placed, Rejudging, ScoreJudge
from fediwarden.rescan.lookup import ListSearch
from fediwarden.rescan.working import cut_batches
from gateway.lists.definition import ListDefinition
from gateway.lists.hashes import HashSet
from gateway.lists.index import ExactIndex, PdqIndex
from gateway.lists.kinds import HashKind
from gateway.lists.loaded import LoadedList
from gateway.lists.store import Stamp
from scanner.models.loading import every_embedder, every_label
from scanner.policy import Policy, load_policy, shipped_policies
from schemas.codec import decode, encode, schema_of
from schemas.messages import EVERY_TENANT, Decision, Rejudged, RescanJudged, Stage, Verdict

_ROUNDS = 3
_POLL = 2_000
_SCHEMA = "verdict/1"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--verdicts", type=int, default=5_000)
    parser.add_argument("--hashes", type=int, default=1_000_000)
    parser.add_argument("--policy", nargs="*", default=list(shipped_policies()))
    parser.add_argument("--workers", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(3)
    print("| judged from | read whole | judging alone | read and judged | read, judged and written |")
    print("|---|---|---|---|---|")
    for name in options.policy:
        policy = load_policy(Path(name), every_label(), every_embedder())
        records = [encode(_verdict(rng, number, policy)) for number in range(options.verdicts)]
        _print(f"scores, {name}", ScoreJudge({EVERY_TENANT: policy}), records)
    began = time.thread_time()
    judge, records = _against_list(options.hashes, options.verdicts)
    laid_out = time.thread_time() - began
    _print(f"hashes, {options.hashes}", judge, records)
    print(f"\nThe list and its index are laid out in {laid_out:.1f} s.")
    del judge
    if options.workers:
        _print_together(options.workers, options.hashes, options.verdicts)


def _against_list(hashes: int, verdicts: int) -> tuple[HashJudge, list[bytes]]:
    rng = np.random.default_rng(3)
    rows = HashSet.from_packed({HashKind.PDQ: rng.integers(0, 256, hashes * 32, dtype=np.uint8).tobytes()})
    loaded = _loaded(rows)
    near = rows.rows[HashKind.PDQ]
    policy = load_policy(Path("default-cpu"), every_label(), every_embedder())
    records = []
    for number in range(verdicts):
        pdq = None
        if number % 100 == 0:
            bits = np.unpackbits(near[rng.integers(len(near))])
            bits[rng.choice(256, 20, replace=False)] ^= 1
            pdq = np.packbits(bits).tobytes()
        records.append(encode(_verdict(rng, number, policy, pdq)))
    search = ListSearch()
    search(loaded, [bytes(32)])
    return HashJudge([loaded], search), records


def _print_together(workers: int, hashes: int, verdicts: int) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(workers)
    with context.Pool(workers, _be_worker, (ready, hashes, verdicts)) as pool:
        spans = pool.map(_work, range(workers), chunksize=1)
    took = max(end for _, end in spans) - min(begin for begin, _ in spans)
    many = workers * _ROUNDS * verdicts
    print(f"{workers} workers, read, judged and written, by the clock: {many / took:,.0f}/s")


_worker: dict[str, object] = {}


def _be_worker(ready: Barrier, hashes: int, verdicts: int) -> None:
    judge, records = _against_list(hashes, verdicts)
    _worker.update(ready=ready, rejudging=Rejudging(judge), records=records)


def _work(_: int) -> tuple[float, float]:
    ready, rejudging, records = (_worker[name] for name in ("ready", "rejudging", "records"))
    assert isinstance(ready, Barrier) and isinstance(rejudging, Rejudging) and isinstance(records, list)
    ready.wait()
    began = time.monotonic()
    for _round in range(_ROUNDS):
        _write(_judge(rejudging, _read(records)))
    return began, time.monotonic()


def _print(what: str, judge: Judge, records: list[bytes]) -> None:
    rejudging = Rejudging(judge)
    placed = _read(records)
    whole = _per_second(len(records), lambda: [decode(_SCHEMA, record) for record in records])
    alone = _per_second(len(records), lambda: _judge(rejudging, placed))
    read = _per_second(len(records), lambda: _judge(rejudging, _read(records)))
    written = _per_second(len(records), lambda: _write(_judge(rejudging, _read(records))))
    print(f"| {what} | {whole:,.0f}/s | {alone:,.0f}/s | {read:,.0f}/s | {written:,.0f}/s |")


def _read(records: list[bytes]) -> list[Placed]:
    placed: list[Placed] = []
    for offset, record in enumerate(records):
        kept = decode(_SCHEMA, record, VIEWS)
        assert isinstance(kept, KeptVerdict)
        placed.append((offset, kept))
    return placed


def _judge(rejudging: Rejudging, placed: list[Placed]) -> list[Rejudged]:
    return [each for begin in range(0, len(placed), _POLL) for each in rejudging.rejudge(placed[begin : begin + _POLL])]


def _write(judged: list[Rejudged]) -> None:
    for images in cut_batches(judged):
        encode(
            RescanJudged(
                rescan="bench", topic="verdicts", partition=0, begin=0, end=len(judged), images=images, judged_at=1
            )
        )


def _per_second(many: int, do: Callable[[], object]) -> float:
    took = []
    for _ in range(_ROUNDS):
        began = time.thread_time()
        do()
        took.append(time.thread_time() - began)
    return many / min(took)


def _verdict(rng: np.random.Generator, number: int, policy: Policy, pdq: bytes | None = None) -> Verdict:
    names = sorted(policy.scores)
    values = np.round(rng.random(len(names)) * 0.3, 4).tolist()
    made = Verdict(
        scan_id=f"{number:032x}",
        tenant="default",
        sha256=rng.bytes(32),
        decision=Decision.ACCEPT,
        scores=dict(zip(names, values, strict=True)),
        pdq=(pdq or rng.bytes(32),),
        pdq_quality=(90,),
        media_type="image/jpeg",
        length=50_000,
        models=dict.fromkeys(sorted(policy.models), "0123456789abcdef"),
        policy=policy.id,
        stage=Stage.LIVE,
        scanner="scanner-1",
        topic="images",
        partition=0,
        offset=number,
        received_at=1,
        judged_at=2,
    )
    assert schema_of(made) == _SCHEMA
    return made


def _loaded(hashes: HashSet) -> LoadedList:
    rows = hashes.rows
    return LoadedList(
        Stamp(0, 0, 0),
        ListDefinition(name="bench", source=""),
        "0" * 12,
        len(hashes),
        PdqIndex(rows[HashKind.PDQ]),
        ExactIndex(rows[HashKind.SHA256]),
        ExactIndex(rows[HashKind.MD5]),
    )


if __name__ == "__main__":
    main()
