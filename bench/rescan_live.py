"""What a rescan of archived frames costs live images: their latency with and without one, in turns, in one run.

    python -m bench.rescan_live --pause-ms 30 --scanners 2 --rate 10 --seconds 60 --turns 2
    python -m bench.rescan_live --real-models --scanners 1 --rate 4

Each turn measures one stretch without a rescan and one while the same scanners work on one; which comes first changes
from turn to turn. The archive is filled with copies of what the warm-up left there, enough to outlast a stretch.
"""

import argparse
import asyncio
import hashlib
import importlib.resources
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import uvloop

from bench.load import Generator, percentile
from bench.pictures import make_pictures
from bench.requests import Target
from bench.stack import Served, Stack
from scanner.rescanning.share import count_left
from schemas.broker import BrokerSettings, Producer, Received, Tail, open_logs, read_history
from schemas.clock import now_ms
from schemas.keyring import Keyring
from schemas.messages import (
    EVERY_TENANT,
    ImageSubmitted,
    RescanJudged,
    RescanOrdered,
    RescanSpan,
    RescanState,
    RescanTier,
    ScannerAnnounced,
)
from schemas.topics import IMAGES_ARCHIVE, RESCAN_JOBS, RESCANS, SCANNERS

ALLOWED = 1.2
"""Issue 7: the live p99 stays within 20 % of its value without the rescan."""

COPIED_AT_ONCE = 100
BEGINS_WITHIN_S = 60.0
OF_THE_PAUSE = """
[policy]
name = "bench-pause"
[[rule]]
name = "never"
says = "Never fires."
decision = "reject"
when = { score = "pause/nothing", at_least = 0.5 }
"""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Live requests of all turns, with or without a rescan; milliseconds, and images rescanned a second."""

    requests: int
    p50: float
    p99: float
    longest: float
    by_verdict: int
    rescanned: float


class Measuring:
    """One running stack, and what was measured on it."""

    def __init__(self, served: Served, producer: Producer, generator: Generator, arguments: argparse.Namespace) -> None:
        self._broker = BrokerSettings(bootstrap_servers=served.bootstrap_servers)
        self._keyring = Keyring.load(served.data_dir / "keys.json")
        self._producer = producer
        self._generator = generator
        self._rate: float = arguments.rate
        self._seconds: float = arguments.seconds
        self._policy = OF_THE_PAUSE
        if arguments.real_models:
            shipped = importlib.resources.files("scanner").joinpath("policies/default-cpu.toml")
            self._policy = shipped.read_text(encoding="utf-8")
        self._models: dict[str, str] = {}
        self._rejudged: dict[str, int] = {}
        self._heard = asyncio.Event()
        self._latencies: dict[bool, list[float]] = {False: [], True: []}
        self._by_verdict = {False: 0, True: 0}
        self._rescanned = 0

    def hear(self, received: Received) -> None:
        """Take in what scanners say."""
        message = received.message
        if isinstance(message, ScannerAnnounced):
            self._models = message.models
        if isinstance(message, RescanJudged):
            self._rejudged[message.rescan] = self._rejudged.get(message.rescan, 0) + len(message.images)
        self._heard.set()

    async def fill(self, count: int) -> None:
        """Bring the archive to at least `count` images."""
        found: list[ImageSubmitted] = []

        def keep(received: Received) -> None:
            if isinstance(received.message, ImageSubmitted):
                found.append(received.message)

        await read_history(self._broker, [IMAGES_ARCHIVE], since_ms=0, on_record=keep, client_id="bench")
        if not found:
            raise RuntimeError("nothing was archived: the warm-up was too short")
        for start in range(len(found), count, COPIED_AT_ONCE):
            numbers = range(start, min(count, start + COPIED_AT_ONCE))
            copies = [self._copy(found[number % len(found)], number) for number in numbers]
            await asyncio.gather(*(self._producer.publish(IMAGES_ARCHIVE, each, key=each.sha256) for each in copies))

    def _copy(self, image: ImageSubmitted, number: int) -> ImageSubmitted:
        """The same frames as another image: of two with one hash, compaction would leave the newer."""
        sha256 = hashlib.sha256(b"%d" % number).digest()
        jpegs = self._keyring.open(image.sealed, sha256=image.sha256, tenant=image.tenant)
        sealed = self._keyring.seal(jpegs, sha256=sha256, tenant=image.tenant)
        return image.model_copy(update={"scan_id": f"copy-{number}", "sha256": sha256, "sealed": sealed})

    async def turn(self, number: int) -> None:
        """Measure both, the one first that was second the last time."""
        for rescanning in (False, True) if number % 2 == 0 else (True, False):
            if rescanning:
                await self._measure_with_rescan(number)
            else:
                await self._measure(False, number)

    async def _measure_with_rescan(self, number: int) -> None:
        job = await self._order(f"bench-{number}")
        async with asyncio.timeout(BEGINS_WITHIN_S):
            while not self._rejudged.get(job.rescan):
                self._heard.clear()
                await self._heard.wait()
        before = self._rejudged[job.rescan]
        await self._measure(True, number)
        self._rescanned += self._rejudged[job.rescan] - before
        left = await count_left(self._broker, job)
        print(f"  rescanned {self._rejudged[job.rescan]} images in all, {left} are left", file=sys.stderr)
        if left == 0:
            raise RuntimeError("the rescan was over before the stretch was: give a larger --archive")
        await self._say(job.model_copy(update={"state": RescanState.CANCELLED}))

    async def _measure(self, rescanning: bool, seed: int) -> None:
        asked = f"{self._rate:g}/s, {'with' if rescanning else 'without'} a rescan"
        report = await self._generator.measure(asked, rate=self._rate, seconds=self._seconds, seed=seed)
        print(report.text(), file=sys.stderr)
        self._latencies[rescanning] += self._generator.latencies
        self._by_verdict[rescanning] += report.answered_by.get("verdict", 0)

    async def _order(self, rescan: str) -> RescanOrdered:
        async with open_logs(self._broker) as logs:
            bounds = await logs.bounds((IMAGES_ARCHIVE,))
        job = RescanOrdered(
            rescan=rescan,
            tier=RescanTier.FRAMES,
            since=0,
            until=now_ms(),
            spans=tuple(
                RescanSpan(topic=IMAGES_ARCHIVE.name, partition=at.number, begin=begin, end=end)
                for at, (begin, end) in bounds.items()
            ),
            policies={EVERY_TENANT: self._policy},
            models=self._models,
            ordered_at=now_ms(),
            changed_at=now_ms(),
        )
        await self._say(job)
        return job

    async def _say(self, job: RescanOrdered) -> None:
        await self._producer.publish(RESCAN_JOBS, job, key=job.rescan.encode("ascii"))

    def result(self, rescanning: bool, turns: int) -> Stretch:
        """What was measured in all turns."""
        ordered = sorted(self._latencies[rescanning])
        return Stretch(
            requests=len(ordered),
            p50=percentile(ordered, 0.50),
            p99=percentile(ordered, 0.99),
            longest=ordered[-1] if ordered else float("nan"),
            by_verdict=self._by_verdict[rescanning],
            rescanned=self._rescanned / (turns * self._seconds) if rescanning else 0.0,
        )


def to_markdown(without: Stretch, beside: Stretch) -> str:
    """Both as a table, and whether what issue 7 asks is met."""
    lines = [
        "| | requests | by verdict | p50 ms | p99 ms | max ms | rescanned a second |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {name} | {each.requests} | {each.by_verdict} | {each.p50:.1f} | {each.p99:.1f} | {each.longest:.1f}"
        f" | {each.rescanned:.1f} |"
        for name, each in (("without", without), ("with a rescan", beside))
    ]
    ratio = beside.p99 / without.p99
    lines.append(f"\np99 with / without: {ratio:.2f} (asked: <= {ALLOWED}): {'met' if ratio <= ALLOWED else 'missed'}")
    return "\n".join(lines)


async def _run(arguments: argparse.Namespace) -> tuple[Stretch, Stretch]:
    model = ["--real-models"] if arguments.real_models else ["--pause-ms", f"{arguments.pause_ms:g}"]
    pictures = make_pictures(arguments.pictures)
    stack = Stack(*model, "--scanners", str(arguments.scanners), "--port", str(arguments.port))
    async with stack as served:
        broker = BrokerSettings(bootstrap_servers=served.bootstrap_servers)
        generator = Generator(Target.parse(served.url), pictures)
        async with Producer(broker, client_id="bench") as producer:
            measuring = Measuring(served, producer, generator, arguments)
            topics = [SCANNERS, RESCANS]
            async with Tail(broker, topics, since_s=60.0, on_record=measuring.hear, client_id="bench") as tail:
                await tail.wait_positioned()
                await generator.measure("warming up", rate=arguments.rate, seconds=arguments.warm_up)
                await measuring.fill(arguments.archive)
                for number in range(arguments.turns):
                    await measuring.turn(number)
        generator.close()
    return measuring.result(False, arguments.turns), measuring.result(True, arguments.turns)


def main() -> int:
    """Command line; exit code 1 when the p99 moved by more than is allowed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="python -m bench.rescan_live"
    )
    model = parser.add_mutually_exclusive_group()
    model.add_argument("--pause-ms", type=float, default=30.0, help="how long the model sleeps for each image")
    model.add_argument("--real-models", action="store_true", help="the models of the settings instead")
    parser.add_argument("--scanners", type=int, default=2)
    parser.add_argument("--rate", type=float, default=10.0, help="live images a second")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each stretch")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--warm-up", type=float, default=30.0, help="seconds of live load before")
    parser.add_argument("--archive", type=int, default=5000, help="images that a rescan has before it, at least")
    parser.add_argument("--pictures", type=int, default=200, help="how many different pictures are drawn")
    parser.add_argument("--port", type=int, default=18251)
    parser.add_argument("--json", type=Path, help="also write both there")
    arguments = parser.parse_args()
    without, beside = uvloop.run(_run(arguments))
    print(to_markdown(without, beside))
    if arguments.json:
        measured = {"without": asdict(without), "with": asdict(beside)}
        arguments.json.write_text(json.dumps(measured, indent=2) + "\n")
    return 0 if beside.p99 <= ALLOWED * without.p99 else 1


if __name__ == "__main__":
    sys.exit(main())
