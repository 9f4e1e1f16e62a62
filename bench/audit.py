"""How fast the audit store takes messages, how large it becomes, how quickly a page's questions are answered.

python -m bench.audit [--events 300000] [--instances 20000] [--batch 5000] [--folder DIR] [--wire]
                      [--fill IMAGES [--seed 200000] [--keep FILE]]

An invented fediverse: instances of very different sizes, one image in a hundred flagged, an answer and an origin for
each verdict, a fifth of the origins before their verdict. The messages go through the code that the recorder runs, from
`Received` on; `--wire` decodes each from its bytes as well, which is what a consumer of Kafka does. The machine may be
busy, so what counts is seconds of CPU; each progress line is about the events since the one before, which shows whether
they cost more as the store grows.

`--fill` puts as many images (a multiple of `--seed`) straight into the tables before, three events each, and measures
what comes on top: 10 million verdicts are `--fill 10000000`, which takes minutes and some 8 GB. The store is then kept
in FILE where that is given, for `bench.audit_pages`; a FILE that is there already is taken as it is.
"""

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

from bench.audit_fill import fill_many
from bench.audit_messages import invent
from federation_audit.store.engine import Store
from federation_audit.store.migrating import open_store
from federation_audit.store.queries import read_days, read_incidents, read_instance, read_instances
from federation_audit.store.recorder import Recorder
from schemas.broker import Received
from schemas.clock import now_ms
from schemas.codec import decode, encode, schema_of

_PROGRESS_EVERY = 100_000


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--events", type=int, default=300_000)
    arguments.add_argument("--instances", type=int, default=20_000)
    arguments.add_argument("--batch", type=int, default=5_000)
    arguments.add_argument("--folder", type=Path)
    arguments.add_argument("--wire", action="store_true")
    arguments.add_argument("--fill", type=int, default=0)
    arguments.add_argument("--seed", type=int, default=200_000)
    arguments.add_argument("--keep", type=Path)
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = options.keep or Path(folder) / "audit.sqlite"
        if options.fill and not path.exists():
            _in_a_process(partial(fill_many, path, options.fill, options.seed, options.instances, now=now_ms()))
        with open_store(f"sqlite:///{path}") as store:
            _write(store, options, path)
            print(f"{_disk_mb(path):.0f} MB on disk, {peak_mb():.0f} MB resident at most")
            _ask(store)


def _in_a_process(work: Callable[[], None]) -> None:
    """Do it in a process of its own, whose memory is not counted here."""
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit("the store could not be filled")


def _write(store: Store, options: argparse.Namespace, path: Path) -> None:
    recorder = Recorder(store, holder="bench", retention_days=395)
    total, lately = _Taken(), _Taken()
    for batch in _batches(options):
        taken = _Taken(len(batch))
        if options.wire:
            packed = [(schema_of(each.message), encode(each.message)) for each in batch if each.message]
            began = time.process_time()
            for schema, value in packed:
                decode(schema, value)
            taken.decoding = time.process_time() - began
        began, began_cpu = time.perf_counter(), time.process_time()
        recorder.record(batch, {})
        taken.wall, taken.writing = time.perf_counter() - began, time.process_time() - began_cpu
        total += taken
        lately += taken
        if lately.events >= _PROGRESS_EVERY:
            sizes = f"{_disk_mb(path):.0f} MB on disk, {peak_mb():.0f} MB resident at most"
            print(f"{total.events} events, of late {lately}; {sizes}", flush=True)
            lately = _Taken()
    print(f"{total.events} events: {total}; {total.wall:.0f} s of wall clock for writing", flush=True)


@dataclass
class _Taken:
    """What some events took: seconds of CPU, and of wall clock for writing."""

    events: int = 0
    decoding: float = 0.0
    writing: float = 0.0
    wall: float = 0.0

    def __add__(self, other: "_Taken") -> "_Taken":
        return _Taken(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))

    def __str__(self) -> str:
        said = f"{self.events / self.writing:.0f} written per second of CPU"
        if self.decoding:
            said += (
                f", {self.events / self.decoding:.0f} decoded, {self.events / (self.writing + self.decoding):.0f} both"
            )
        return said


def _batches(options: argparse.Namespace) -> Iterator[list[Received]]:
    batch: list[Received] = []
    for topic, message in invent(options.events, options.instances, first=options.fill):
        batch.append(Received(topic, 0, 0, 0, b"", message, None, 1))
        if len(batch) == options.batch:
            yield batch
            batch = []
    if batch:
        yield batch


def _ask(store: Store) -> None:
    with store.reading() as connection:
        largest = max(read_instances(connection), key=lambda each: each.now.exposed)
        questions: dict[str, Callable[[], object]] = {
            "all instances": lambda: read_instances(connection),
            "the largest one": lambda: read_instance(connection, largest.domain),
            "its incidents": lambda: read_incidents(connection, largest.domain),
            "sums by day": lambda: read_days(connection),
        }
        for what, ask in questions.items():
            taken = []
            for _ in range(5):
                began, began_cpu = time.perf_counter(), time.process_time()
                answer = ask()
                taken.append((time.perf_counter() - began, time.process_time() - began_cpu))
            wall, cpu = min(taken)
            rows = len(answer) if isinstance(answer, list) else 1
            print(f"{what:16} {wall * 1000:7.1f} ms ({cpu * 1000:.1f} of CPU), {rows} rows")


def _disk_mb(path: Path) -> float:
    """With what SQLite has beside it."""
    return sum(each.stat().st_size for each in path.parent.glob(f"{path.name}*")) / 1e6


def peak_mb() -> float:
    """The most memory that this process ever had resident."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main()
