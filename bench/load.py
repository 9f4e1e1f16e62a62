"""Loads an endpoint with pictures as pict-rs sends them, and says how it answered.

    python -m bench.load --url http://127.0.0.1:14051/api/v1/scan/IPADDR --rate 50 --seconds 30
    python -m bench.load --url ... --concurrency 16 --seconds 30 --pids gateway=41 scanner=42,43 --json out.json

With --rate requests arrive as a Poisson process whether or not earlier ones were answered (an open loop), with
--concurrency each answer starts the next request (a closed loop). A latency counts from the moment at which the
request was to be sent, so that a stall is charged to every request that it held up. No picture is sent twice unless
--known is given.
"""

import argparse
import asyncio
import gc
import json
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import uvloop

from bench.pictures import make_pictures
from bench.processes import parse_pids, usages
from bench.requests import Connection, Reply, Request, Target, build_request

TIMEOUT_S = 8.0
"""What docs/pict-rs.md tells an admin to set: a request without an answer by then has failed."""


@dataclass(frozen=True, slots=True)
class Cpu:
    """CPU milliseconds a request of one named process group: its own, its children's, and both."""

    own_ms: float
    children_ms: float
    total_ms: float
    rss_mb: float


@dataclass(frozen=True, slots=True)
class Report:
    """One measurement. Times in milliseconds from the scheduled moment, rates a second, CPU a request."""

    asked: str
    seconds: float
    sent: int
    answered: int
    rate_offered: float
    rate_answered: float
    p50: float
    p95: float
    p99: float
    longest: float
    statuses: dict[str, int]
    answered_by: dict[str, int]
    errors: dict[str, int]
    lag_p99: float
    """How late the generator itself wrote requests: beyond a few milliseconds it is the bottleneck."""
    megabytes: float
    generator_cpu_ms: float
    cpu: dict[str, Cpu] = field(default_factory=dict)

    def text(self) -> str:
        """A few lines for a terminal."""

        def counts(values: Mapping[str, int]) -> str:
            return ", ".join(f"{name} {count}" for name, count in sorted(values.items())) or "none"

        lines = [
            f"{self.asked}, {self.seconds:.1f} s",
            f"  sent {self.sent} ({self.rate_offered:.1f}/s), answered {self.answered} ({self.rate_answered:.1f}/s)",
            f"  p50 {self.p50:.1f}  p95 {self.p95:.1f}  p99 {self.p99:.1f}  max {self.longest:.1f} ms",
            f"  status {counts(self.statuses)}; answered by {counts(self.answered_by)}; errors {counts(self.errors)}",
            f"  generator: {self.generator_cpu_ms:.2f} ms CPU a request, p99 {self.lag_p99:.1f} ms late,"
            f" {self.megabytes:.0f} MB sent",
        ]
        lines += [
            f"  {name}: {cpu.total_ms:.2f} ms CPU a request ({cpu.own_ms:.2f} own, {cpu.children_ms:.2f} in children),"
            f" {cpu.rss_mb:.0f} MB"
            for name, cpu in self.cpu.items()
        ]
        return "\n".join(lines)


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value that `share` (0 to 1) of `ordered` does not exceed (nearest rank); nan when there is none."""
    if not ordered:
        return float("nan")
    return ordered[max(0, -(-len(ordered) * round(share * 1000) // 1000) - 1)]


@dataclass(slots=True)
class _Slot:
    due: float
    timer: asyncio.TimerHandle | None = None


class Generator:
    """Sends requests over as many kept-alive connections as are needed at once; one measurement at a time."""

    def __init__(
        self, target: Target, pictures: Sequence[bytes], *, known: bool = False, timeout_s: float = TIMEOUT_S
    ) -> None:
        self._target = target
        self._requests: list[Request] = [build_request(target, picture) for picture in pictures]
        self._known = known
        self._timeout_s = timeout_s
        # No two runs send the same bytes, even against a gateway that remembers the earlier run.
        self._number = time.time_ns()
        self._turn = 0
        self._free: list[Connection] = []
        self._opening: set[asyncio.Task[None]] = set()
        self._on_its_way = 0
        self._closed_until: float | None = None
        self._drained = asyncio.Event()
        self._reset()

    def _reset(self) -> None:
        self._latencies: list[float] = []
        self._lags: list[float] = []
        self._statuses: Counter[str] = Counter()
        self._answered_by: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._bytes = 0
        self._sent = 0
        self._last = 0.0

    async def open_loop(self, rate: float, seconds: float, *, seed: int = 1) -> None:
        """Poisson arrivals at `rate` a second for `seconds`, then until all are answered or timed out."""
        loop = asyncio.get_running_loop()
        random = np.random.default_rng(seed)
        gaps = random.exponential(1.0 / rate, int(rate * seconds * 1.5) + 50)
        times = [float(at) for at in np.cumsum(gaps) if at < seconds]
        self._closed_until = None
        start = loop.time() + 0.01
        for at in times:
            due = start + at
            wait = due - loop.time()
            if wait > 0:
                await asyncio.sleep(wait)
            self._begin(due)
        rest = start + seconds - loop.time()
        if rest > 0:
            await asyncio.sleep(rest)
        await self._drain()

    async def closed_loop(self, concurrency: int, seconds: float) -> None:
        """`concurrency` requests at a time for `seconds`, then until the last ones are answered."""
        loop = asyncio.get_running_loop()
        self._closed_until = loop.time() + seconds
        for _ in range(concurrency):
            self._begin(loop.time())
        await asyncio.sleep(seconds)
        await self._drain()

    async def warm_up(self, count: int, concurrency: int = 2) -> None:
        """Send `count` requests that no report counts."""
        for _ in range(-(-count // concurrency)):
            for _ in range(concurrency):
                self._begin(asyncio.get_running_loop().time())
            await self._drain()
        self._reset()

    async def _drain(self) -> None:
        while self._on_its_way:
            self._drained.clear()
            await self._drained.wait()

    @property
    def latencies(self) -> list[float]:
        """Milliseconds of each answered request of the last measurement."""
        return list(self._latencies)

    def close(self) -> None:
        """Close all connections."""
        for connection in self._free:
            connection.close()
        self._free.clear()

    def _begin(self, due: float) -> None:
        self._on_its_way += 1
        self._sent += 1
        while self._free:
            connection = self._free.pop()
            if connection.open:
                self._send(connection, due)
                return
        task = asyncio.get_running_loop().create_task(self._connect(due))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _connect(self, due: float) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(due + self._timeout_s):
                _, connection = await loop.create_connection(
                    lambda: Connection(self._ended), self._target.host, self._target.port
                )
        except TimeoutError:
            self._count(due, Reply(error="timeout"))
        except OSError as error:
            self._count(due, Reply(error=f"connect: {error.strerror or error}"))
        else:
            self._send(connection, due)

    def _send(self, connection: Connection, due: float) -> None:
        loop = asyncio.get_running_loop()
        request = self._requests[self._turn % len(self._requests)]
        number = self._turn % len(self._requests) if self._known else self._number
        self._turn += 1
        self._number += 1
        self._bytes += request.length
        slot = _Slot(due, loop.call_at(due + self._timeout_s, connection.fail, "timeout"))
        connection.slot = slot
        self._lags.append(loop.time() - due)
        connection.send(request.pieces(number))

    def _ended(self, connection: Connection, reply: Reply) -> None:
        slot = connection.slot
        assert isinstance(slot, _Slot)
        if slot.timer is not None:
            slot.timer.cancel()
        if connection.open:
            self._free.append(connection)
        self._count(slot.due, reply)

    def _count(self, due: float, reply: Reply) -> None:
        now = asyncio.get_running_loop().time()
        self._on_its_way -= 1
        self._last = now
        if reply.error:
            self._errors[reply.error] += 1
        else:
            self._latencies.append((now - due) * 1000.0)
            self._statuses[str(reply.status)] += 1
            self._answered_by[reply.answered_by or "(no header)"] += 1
        if self._closed_until is not None and now < self._closed_until:
            self._begin(now)
        elif not self._on_its_way:
            self._drained.set()

    async def measure(
        self,
        asked: str,
        *,
        rate: float | None = None,
        concurrency: int | None = None,
        seconds: float,
        groups: Mapping[str, Sequence[int]] | None = None,
        seed: int = 1,
    ) -> Report:
        """Run one open (`rate`) or closed (`concurrency`) loop and report it; `groups` are pids whose CPU counts.

        Raises:
            ValueError: neither or both of `rate` and `concurrency` are given.
        """
        if (rate is None) == (concurrency is None):
            raise ValueError("give a rate (open loop) or a concurrency (closed loop), one of them")
        loop = asyncio.get_running_loop()
        groups = groups or {}
        self._reset()
        gc.collect()
        gc.freeze()
        before = usages(groups)
        own_before = time.process_time()
        start = loop.time()
        if rate is not None:
            await self.open_loop(rate, seconds, seed=seed)
        elif concurrency is not None:
            await self.closed_loop(concurrency, seconds)
        took = max(self._last, start) - start
        own = time.process_time() - own_before
        after = usages(groups)
        answered = len(self._latencies)
        each = 1000.0 / max(1, answered)
        ordered = sorted(self._latencies)
        return Report(
            asked=asked,
            seconds=took,
            sent=self._sent,
            answered=answered,
            rate_offered=self._sent / seconds,
            rate_answered=answered / took if took else 0.0,
            p50=percentile(ordered, 0.50),
            p95=percentile(ordered, 0.95),
            p99=percentile(ordered, 0.99),
            longest=ordered[-1] if ordered else float("nan"),
            statuses=dict(self._statuses),
            answered_by=dict(self._answered_by),
            errors=dict(self._errors),
            lag_p99=percentile(sorted(self._lags), 0.99) * 1000.0,
            megabytes=self._bytes / 1e6,
            generator_cpu_ms=own * each,
            cpu={
                name: Cpu(
                    own_ms=(after[name].own - use.own) * each,
                    children_ms=(after[name].children - use.children) * each,
                    total_ms=(after[name].total - use.total) * each,
                    rss_mb=after[name].rss / 1e6,
                )
                for name, use in before.items()
            },
        )


async def _run(arguments: argparse.Namespace, groups: Mapping[str, Sequence[int]]) -> Report:
    pictures = make_pictures(arguments.pictures, arguments.folder)
    generator = Generator(Target.parse(arguments.url), pictures, known=arguments.known, timeout_s=arguments.timeout)
    if arguments.warm_up:
        await generator.warm_up(arguments.warm_up)
    if arguments.rate is not None:
        asked = f"open loop, {arguments.rate:g}/s"
    else:
        asked = f"closed loop, {arguments.concurrency} at a time"
    report = await generator.measure(
        asked + (", known bytes" if arguments.known else ""),
        rate=arguments.rate,
        concurrency=arguments.concurrency,
        seconds=arguments.seconds,
        groups=groups,
        seed=arguments.seed,
    )
    generator.close()
    return report


def main() -> int:
    """Command line; exit code 1 when nothing was answered."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="python -m bench.load"
    )
    parser.add_argument("--url", required=True)
    loop = parser.add_mutually_exclusive_group(required=True)
    loop.add_argument("--rate", type=float, help="open loop: Poisson arrivals a second")
    loop.add_argument("--concurrency", type=int, help="closed loop: requests at a time")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--known", action="store_true", help="repeat the same bytes")
    parser.add_argument("--pictures", type=int, default=200, help="how many different pictures are drawn")
    parser.add_argument("--folder", type=Path, default=None, help="where they are kept (default: the cache)")
    parser.add_argument("--warm-up", type=int, default=0, help="requests before the clock starts")
    parser.add_argument("--timeout", type=float, default=TIMEOUT_S, help="seconds")
    parser.add_argument("--seed", type=int, default=1, help="of the arrival times")
    parser.add_argument("--pids", nargs="*", default=[], metavar="NAME=PID[,PID]", help="whose CPU to count")
    parser.add_argument("--json", type=Path, default=None, help="also write the report there")
    arguments = parser.parse_args()
    try:
        groups = parse_pids(arguments.pids)
        Target.parse(arguments.url)
    except ValueError as error:
        parser.error(str(error))
    report = uvloop.run(_run(arguments, groups))
    print(report.text())
    if arguments.json:
        arguments.json.write_text(json.dumps(asdict(report), indent=2) + "\n")
    return 0 if report.answered else 1


if __name__ == "__main__":
    sys.exit(main())
