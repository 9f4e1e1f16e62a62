"""The scenarios of docs/performance.md, one after another, as a Markdown table.

    python -m bench.run                      # `make bench`: about ten minutes
    python -m bench.run --only one,fifty --json bench.json

one      one request at a time                     fifty   50 images/s for 30 s, 3 scanners
search   how much before verdicts come too late    known   the same bytes again
overload 0.5 to 10 times what one scanner can judge; --plot goodput.svg draws it
real     the real models against a bare loop of decoding and inferring on the same machine

The load generator runs on the same machine as what it measures and says what it takes itself.
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import cast

import uvloop

from bench.load import Generator, Report
from bench.pictures import make_pictures
from bench.requests import Target
from bench.stack import Served, Stack
from fediwarden.line_chart import draw_lines

PAUSE_MS = 30
SCANNERS = 3
SEARCH_RATES = (60, 70, 80, 85, 90, 95, 100)
SEARCH_SECONDS = 15.0
WARM_UP_S = 75.0
OVERLOADS = (0.5, 1.0, 2.0, 10.0)
DEADLINE_MS = 3000.0
ENOUGH = 0.99
"""A rate is carried when this share of the images sent was answered by a verdict."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. `met` is None where nothing was asked for."""

    scenario: str
    measure: str
    asked: str
    reached: str
    met: bool | None = None


@dataclass(slots=True)
class Result:
    """What a scenario gives: rows for the table, and everything that was measured."""

    rows: list[Row] = field(default_factory=list)
    measured: dict[str, object] = field(default_factory=dict)

    def at_most(self, scenario: str, measure: str, limit: float, value: float, unit: str) -> None:
        """A row that is met when `value` does not exceed `limit`."""
        self.rows.append(Row(scenario, measure, f"<= {limit:g} {unit}", f"{value:.1f} {unit}", value <= limit))

    def at_least(self, scenario: str, measure: str, limit: float, value: float, unit: str) -> None:
        """A row that is met when `value` reaches `limit`."""
        self.rows.append(Row(scenario, measure, f">= {limit:g} {unit}", f"{value:.1f} {unit}", value >= limit))

    def note(self, scenario: str, measure: str, reached: str) -> None:
        """A row that says what was seen."""
        self.rows.append(Row(scenario, measure, "", reached))

    def keep(self, name: str, report: Report) -> Report:
        """Store a report and show it on standard error."""
        self.measured[name] = asdict(report)
        print(report.text(), file=sys.stderr)
        return report


def by_verdict(report: Report) -> float:
    """The share of the images sent that a verdict answered."""
    return report.answered_by.get("verdict", 0) / max(1, report.sent)


def counts(report: Report) -> str:
    """Ways of being answered, errors among them."""
    ways = {**report.answered_by, **{f"error: {name}": count for name, count in report.errors.items()}}
    return ", ".join(f"{count} {way}" for way, count in sorted(ways.items()))


@dataclass(frozen=True, slots=True)
class Bench:
    """One run: the pictures, the gateway's port, and for how much of the usual time each scenario runs."""

    pictures: list[bytes]
    port: int
    share: float = 1.0

    def stack(self, *arguments: str) -> Stack:
        """A pipeline of its own for one scenario."""
        return Stack(*arguments, "--port", str(self.port))

    def generator(self, served: Served, *, known: bool = False) -> Generator:
        """A load generator for it."""
        return Generator(Target.parse(served.url), self.pictures, known=known)

    async def one(self) -> Result:
        """One request at a time."""
        result = Result()
        async with self.stack("--pause-ms", str(PAUSE_MS), "--scanners", str(SCANNERS)) as served:
            generator = self.generator(served)
            await generator.warm_up(60)
            report = result.keep(
                "one",
                await generator.measure("one at a time", concurrency=1, seconds=30.0 * self.share, groups=served.pids),
            )
            generator.close()
        result.at_most("one at a time", "p50", 60.0, report.p50, "ms")
        result.note(
            "one at a time", "p95 / p99 / max", f"{report.p95:.0f} / {report.p99:.0f} / {report.longest:.0f} ms"
        )
        result.note("one at a time", "answered by", counts(report))
        return result

    async def fifty(self) -> Result:
        """50 images a second; CPU and Kafka bytes an image."""
        result = Result()
        name = "50/s offered, 3 scanners"
        async with self.stack("--pause-ms", str(PAUSE_MS), "--scanners", str(SCANNERS)) as served:
            generator = self.generator(served)
            # Java's optimising compiler needs a minute of this load; an admin's Kafka runs for months.
            await generator.measure("warming up", rate=50.0, seconds=WARM_UP_S * self.share)
            await asyncio.sleep(1.0)
            before = served.topic_bytes()
            report = result.keep(
                "fifty", await generator.measure(name, rate=50.0, seconds=30.0 * self.share, groups=served.pids)
            )
            await asyncio.sleep(1.0)  # the archive and the answers' records trail the last answer
            after = served.topic_bytes()
            generator.close()
        result.at_least(name, "answered by their verdict", 100.0, 100.0 * by_verdict(report), "%")
        result.at_most(name, "p99", 400.0, report.p99, "ms")
        result.note(name, "p50 / p95 / max", f"{report.p50:.0f} / {report.p95:.0f} / {report.longest:.0f} ms")
        gateway, scanner, kafka = (report.cpu[group] for group in ("gateway", "scanner", "kafka"))
        result.at_most(
            name, "CPU an image: gateway, frame workers, scanners", 24.0, gateway.total_ms + scanner.total_ms, "ms"
        )
        result.note(
            name,
            "of it gateway / frame workers / scanners",
            f"{gateway.own_ms:.1f} / {gateway.children_ms:.1f} / {scanner.total_ms:.1f} ms",
        )
        result.at_most(name, "CPU an image: broker", 3.0, kafka.total_ms, "ms")
        result.note(name, "CPU an image: load generator", f"{report.generator_cpu_ms:.2f} ms")
        grown = {topic: size - before.get(topic, 0) for topic, size in after.items()}
        each = {topic: size / max(1, report.sent) / 1000.0 for topic, size in grown.items() if size}
        result.measured["kafka_kilobytes"] = each
        result.at_most(name, "Kafka bytes an image, topic images", 60.0, each.get("images", 0.0), "KB")
        listed = sorted(each.items(), key=lambda item: -item[1])
        result.note(name, "on the broker's disk", ", ".join(f"{topic} {size:.1f} KB" for topic, size in listed))
        return result

    async def search(self) -> Result:
        """The highest rate at which verdicts still come in time, and what a closed loop gets through."""
        result = Result()
        name = "saturation, 3 scanners"
        carried = 0.0
        async with self.stack("--pause-ms", str(PAUSE_MS), "--scanners", str(SCANNERS)) as served:
            generator = self.generator(served)
            await generator.warm_up(100, concurrency=4)
            closed = result.keep(
                "search-closed",
                await generator.measure(
                    "closed loop, 16 at a time", concurrency=16, seconds=20.0 * self.share, groups=served.pids
                ),
            )
            for rate in SEARCH_RATES:
                report = result.keep(
                    f"search-{rate}",
                    await generator.measure(
                        f"open loop, {rate}/s",
                        rate=float(rate),
                        seconds=SEARCH_SECONDS * self.share,
                        groups=served.pids,
                    ),
                )
                if by_verdict(report) < ENOUGH:
                    break
                carried = report.rate_answered
                await asyncio.sleep(1.0)
            generator.close()
        closed_rate = closed.rate_answered * by_verdict(closed)
        result.at_least(name, "verdicts a second, closed loop of 16", 70.0, closed_rate, "/s")
        result.at_least(name, "Poisson arrivals carried (99 % by verdict)", 70.0, carried, "/s")
        result.note(name, "closed loop p50 / p99", f"{closed.p50:.0f} / {closed.p99:.0f} ms")
        return result

    async def known(self) -> Result:
        """Bytes that have been judged before."""
        result = Result()
        name = "known bytes"
        async with self.stack("--pause-ms", "1", "--scanners", "1") as served:
            generator = self.generator(served, known=True)
            await generator.warm_up(len(self.pictures), concurrency=4)
            report = result.keep(
                "known",
                await generator.measure(
                    "known bytes, 8 at a time", concurrency=8, seconds=10.0 * self.share, groups=served.pids
                ),
            )
            generator.close()
        result.at_least(name, "answers a second, closed loop of 8", 600.0, report.rate_answered, "/s")
        result.note(name, "p50 / p99", f"{report.p50:.1f} / {report.p99:.1f} ms")
        result.note(name, "answered by", counts(report))
        return result

    async def real(self) -> Result:
        """The real models: the whole pipeline against a bare loop before and after it."""
        result = Result()
        name = "real models, 1 scanner"
        seconds = 15.0 * self.share
        bare = [await run_bare_process(seconds)]
        async with self.stack("--real-models", "--scanners", "1") as served:
            generator = self.generator(served)
            await generator.warm_up(40, concurrency=4)
            report = result.keep(
                "real",
                await generator.measure(
                    "real models, 16 at a time", concurrency=16, seconds=2 * seconds, groups=served.pids
                ),
            )
            generator.close()
        bare.append(await run_bare_process(seconds))
        result.measured["bare"] = bare
        rate = statistics.fmean(run["rate"] for run in bare)
        pipeline = report.rate_answered * by_verdict(report)
        result.at_least(name, "share of the bare loop", 70.0, 100.0 * pipeline / rate, "%")
        result.note(name, "pipeline / bare loop", f"{pipeline:.1f} / {rate:.1f} images a second")
        decode, infer = (statistics.fmean(run[part] for run in bare) for part in ("decode_ms", "infer_ms"))
        result.note(name, "bare loop: decode / both models", f"{decode:.1f} / {infer:.1f} ms an image")
        result.note(name, "answered by", counts(report))
        total = {group: cpu.total_ms for group, cpu in report.cpu.items()}
        result.note(name, "CPU an image", ", ".join(f"{group} {ms:.1f} ms" for group, ms in total.items()))
        return result

    async def overload(self) -> Result:
        """One scanner of 30 ms an image, offered half of what it can judge, all of it, twice and ten times that."""
        result = Result()
        name = "overload"
        seconds = 20.0 * self.share
        goodput: list[tuple[float, float]] = []
        refused: list[tuple[float, float]] = []
        by_policy: list[tuple[float, float]] = []
        async with self.stack("--pause-ms", str(PAUSE_MS), "--scanners", "1") as served:
            generator = self.generator(served)
            await generator.warm_up(100, concurrency=4)
            capacity = 1000.0 / PAUSE_MS
            for times in OVERLOADS:
                report = result.keep(
                    f"overload-{times:g}",
                    await generator.measure(
                        f"{times:g} times what one scanner can judge",
                        rate=times * capacity,
                        seconds=seconds,
                        groups=served.pids,
                    ),
                )
                by = {
                    kind: report.answered_by.get(kind, 0) / report.seconds
                    for kind in ("verdict", "overload", "deadline")
                }
                goodput.append((report.rate_offered, by["verdict"]))
                by_policy.append((report.rate_offered, by["overload"] + by["deadline"]))
                refused.append((report.rate_offered, report.statuses.get("503", 0) / report.seconds))
                where = f"{name}, {times:g}x ({report.rate_offered:.0f}/s offered)"
                share = 100.0 * by["verdict"] / min(capacity, report.rate_offered)
                result.at_least(where, "by verdict, of what can be judged", 85.0 if times >= 1 else 99.0, share, "%")
                result.at_most(where, "longest request", DEADLINE_MS + 500.0, report.longest, "ms")
                result.note(
                    where,
                    "by verdict / overload / deadline, a second",
                    " / ".join(f"{rate:.1f}" for rate in by.values()),
                )
                result.note(where, "refused with 503, a second", f"{refused[-1][1]:.1f}")
                result.note(where, "errors", ", ".join(f"{k} {v}" for k, v in report.errors.items()) or "none")
                result.note(where, "memory: gateway and its workers", f"{report.cpu['gateway'].rss_mb:.0f} MB")
                await asyncio.sleep(5.0)  # what was answered by policy is judged now
            generator.close()
        result.measured["goodput"] = {"verdict": goodput, "policy": by_policy, "503": refused}
        return result


async def run_bare_process(seconds: float) -> dict[str, float]:
    """`bench.bare` in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.bare", "--seconds", f"{seconds:g}", stdout=subprocess.PIPE
    )
    out, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"bench.bare ended with exit code {process.returncode}")
    said: dict[str, float] = json.loads(out.splitlines()[-1])
    return said


def draw_goodput(result: Result, path: Path) -> None:
    """The overload scenario's picture."""
    measured = cast("dict[str, list[tuple[float, float]]]", result.measured["goodput"])
    words = {"verdict": "judged in time", "policy": "by policy, judged later", "503": "refused (503)"}
    draw_lines(
        {words[kind]: points for kind, points in measured.items()},
        path,
        title="One scanner, 33 images a second",
        across="images offered a second",
        up="answers a second",
    )


def to_markdown(rows: list[Row]) -> str:
    """The table."""
    lines = ["| scenario | measure | asked | reached | |", "|---|---|---:|---:|---|"]
    words = {True: "yes", False: "**no**", None: ""}
    lines += [f"| {row.scenario} | {row.measure} | {row.asked} | {row.reached} | {words[row.met]} |" for row in rows]
    return "\n".join(lines)


def describe_machine() -> str:
    """Cores, processor and load before the run: without them no figure means anything."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    load = os.getloadavg()[0]
    return f"{len(os.sched_getaffinity(0))} cores of {model}; load average before the run {load:.2f}"


async def run(bench: Bench, names: list[str]) -> dict[str, Result]:
    """The named scenarios, in order."""
    results = {}
    for name in names:
        scenario: Callable[[], Awaitable[Result]] = getattr(bench, name)
        print(f"--- {name}", file=sys.stderr)
        results[name] = await scenario()
    return results


SCENARIOS = ("one", "fifty", "search", "known", "overload", "real")


def main() -> int:
    """Command line; with --strict, exit code 1 when something asked for was not reached."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="python -m bench.run"
    )
    parser.add_argument("--only", default=",".join(SCENARIOS), help="scenarios, with commas")
    parser.add_argument("--port", type=int, default=18051, help="of the gateway; --port + 100 and + 101 are Kafka's")
    parser.add_argument("--share", type=float, default=1.0, help="of the usual duration, for a quick look")
    parser.add_argument("--strict", action="store_true", help="exit code 1 when something asked for was not reached")
    parser.add_argument("--plot", type=Path, help="where to draw goodput against offered load (SVG)")
    parser.add_argument("--json", type=Path, help="also write everything that was measured there")
    arguments = parser.parse_args()
    names = arguments.only.split(",")
    if unknown := set(names) - set(SCENARIOS):
        parser.error(f"unknown scenario {', '.join(sorted(unknown))}; there are {', '.join(SCENARIOS)}")
    machine = describe_machine()
    results = uvloop.run(run(Bench(make_pictures(200), arguments.port, arguments.share), names))
    rows = [row for result in results.values() for row in result.rows]
    print(f"{machine}\n\n{to_markdown(rows)}")
    if arguments.plot and "overload" in results:
        draw_goodput(results["overload"], arguments.plot)
    if arguments.json:
        measured = {name: result.measured for name, result in results.items()}
        document = {"machine": machine, "rows": [asdict(row) for row in rows], "measured": measured}
        arguments.json.write_text(json.dumps(document, indent=2) + "\n")
    return 1 if arguments.strict and any(row.met is False for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
