"""How fast the audit store takes messages, how large it becomes, how quickly a page's questions are answered.

python -m bench.audit [--events 300000] [--instances 20000] [--batch 5000] [--folder DIR] [--wire]

An invented fediverse: instances of very different sizes, one image in a hundred flagged, an answer and an origin for
each verdict, a fifth of the origins before their verdict. The messages go through the code that the recorder runs, from
`Received` on; `--wire` decodes each from its bytes as well, which is what a consumer of Kafka does. Seconds are wall
clock; CPU seconds are given too, for the machine may be busy. 10 million verdicts are --events 30000000.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.audit_messages import invent
from federation_audit.store.engine import Store
from federation_audit.store.migrating import migrate
from federation_audit.store.queries import read_days, read_incidents, read_instance, read_instances
from federation_audit.store.recorder import Recorder
from schemas.broker import Received
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
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder) / "audit.sqlite"
        with Store(f"sqlite:///{path}") as store:
            migrate(store)
            _write(store, options)
            files = sum(each.stat().st_size for each in Path(folder).iterdir())
            print(f"{files / 1e6:.0f} MB on disk, {_peak_mb():.0f} MB resident at most")
            _ask(store)


def _write(store: Store, options: argparse.Namespace) -> None:
    recorder = Recorder(store, holder="bench", retention_days=395)
    wall = cpu = decoding = 0.0
    count = 0
    for batch in _batches(options):
        if options.wire:
            packed = [(schema_of(each.message), encode(each.message)) for each in batch if each.message]
            began = time.process_time()
            for schema, value in packed:
                decode(schema, value)
            decoding += time.process_time() - began
        began, began_cpu = time.perf_counter(), time.process_time()
        recorder.record(batch, {})
        wall += time.perf_counter() - began
        cpu += time.process_time() - began_cpu
        count += len(batch)
        if count % _PROGRESS_EVERY < len(batch):
            print(f"{count} events: {count / wall:.0f}/s, {count / cpu:.0f}/s of CPU", flush=True)
    print(f"{count} events in {wall:.1f} s: {count / wall:.0f}/s; {cpu:.1f} s of CPU: {count / cpu:.0f}/s")
    if options.wire:
        print(f"decoding took {decoding:.1f} s of CPU more: {count / (cpu + decoding):.0f}/s with it")


def _batches(options: argparse.Namespace) -> Iterator[list[Received]]:
    batch: list[Received] = []
    for topic, message in invent(options.events, options.instances):
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


def _peak_mb() -> float:
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main()
