"""What a fleet of gateways and scanners does at a rate: a simulation from measured costs, for docs/scale.md.

    python -m bench.scale                          # the table of docs/scale.md
    python -m bench.scale --rate 100 --gateways 2 --scanners 4 --image-ms 30 --burst 3
    python -m bench.scale --check bench.json       # beside what was measured: bench.run --only fifty,search --json FILE

An image comes at a random moment, waits for a core of a gateway that is picked at random, crosses Kafka to the
partition that its hash names, and waits there for the scanner that has that partition, which takes what is there in
batches. What cannot be judged in time is left for later and holds nobody up: a perfect form of the limit that a gateway
keeps (`gateway.limits`, which reached nine tenths of it). Left out: brokers (planned on paper), failures, videos.
"""

import argparse
import heapq
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.float64]
"""Seconds since the beginning."""

SPREAD = 0.4
"""Standard deviation of what an image costs a gateway, as a share of its mean: pictures differ in size."""

BURST_EVERY_S, BURST_S = 60.0, 10.0


@dataclass(frozen=True, slots=True)
class Costs:
    """Milliseconds an image, from docs/performance.md: CPU unless said."""

    gateway_ms: float = 3.6
    frames_ms: float = 11.2
    scanner_ms: float = 3.8
    broker_ms: float = 2.2
    generator_ms: float = 1.0
    transit_ms: float = 12.9
    """From publish to poll, and from judged to answered: time, and hardly CPU."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """What stands there. A scanner's batch of n images takes `batch_ms + n * image_ms`.

    `shared_cores`: all of it, and the load generator, on one machine with so many cores; 0: every gateway has `cores`
    of its own, and scanners have what they need beside inferring.
    """

    gateways: int = 1
    cores: int = 2
    scanners: int = 3
    partitions: int = 12
    batch: int = 4
    batch_ms: float = 0.0
    image_ms: float = 30.0
    deadline_ms: float = 3000.0
    shared_cores: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it: milliseconds until the verdict's answer, of those that came in time; shares from 0 to 1."""

    images: int
    p50: float
    p95: float
    p99: float
    missed: float
    gateways_busy: float
    scanners_busy: float


def arrive(rate: float, seconds: float, burst: float, random: np.random.Generator) -> Times:
    """Moments of a Poisson process of `rate` a second in the mean; `burst` times that for 10 s of each 60.

    Raises ValueError where so large a burst leaves less than nothing for the rest of the minute.
    """
    share = BURST_S / BURST_EVERY_S
    if not 0 <= burst * share <= 1:
        raise ValueError(f"a burst may be at most {1 / share:g} times the mean rate, not {burst:g}")
    quiet = rate * (1 - burst * share) / (1 - share)
    highest = max(rate * burst, quiet)
    moments = np.cumsum(random.exponential(1 / highest, int(highest * seconds * 1.1) + 100))
    moments = moments[moments < seconds]
    at = np.where(moments % BURST_EVERY_S < BURST_S, rate * burst, quiet)
    return moments[random.random(len(moments)) * highest < at]


def serve(arrivals: Times, work: Times, servers: int) -> Times:
    """When each of `arrivals` (in order) is done, where `servers` take them first come, first served."""
    free = [0.0] * servers
    done = np.empty_like(arrivals)
    for index, (moment, seconds) in enumerate(zip(arrivals.tolist(), work.tolist(), strict=True)):
        done[index] = max(moment, free[0]) + seconds
        heapq.heapreplace(free, done[index])
    return done


def judge(arrivals: Times, deadlines: Times, fleet: Fleet) -> tuple[Times, float]:
    """When one scanner has judged each of `arrivals` (in order; nan: left for later), and for how long it worked."""
    judged = np.full(len(arrivals), np.nan)
    moments, until = arrivals.tolist(), deadlines.tolist()
    now = worked = 0.0
    index = 0
    while index < len(moments):
        now = max(now, moments[index])
        taken: list[int] = []
        seconds, soonest = 0.0, np.inf
        while index < len(moments) and moments[index] <= now and len(taken) < fleet.batch:
            longer = (fleet.batch_ms + fleet.image_ms * (len(taken) + 1)) / 1000
            if now + longer > soonest:
                break
            if now + longer <= until[index]:
                taken.append(index)
                seconds, soonest = longer, min(soonest, until[index])
            index += 1
        if taken:
            now += seconds
            worked += seconds
            judged[taken] = now
    return judged, worked


def simulate(
    rate: float, fleet: Fleet, costs: Costs, *, seconds: float = 120.0, burst: float = 1.0, seed: int = 1
) -> Outcome:
    """`seconds` of `rate` images a second in the mean."""
    random = np.random.default_rng(seed)
    arrivals = arrive(rate, seconds, burst, random)
    deadlines = arrivals + fleet.deadline_ms / 1000
    edge, behind = costs.gateway_ms + costs.frames_ms, costs.scanner_ms
    gateways, cores = fleet.gateways, fleet.cores
    if fleet.shared_cores:
        edge += costs.scanner_ms + costs.broker_ms + costs.generator_ms
        behind, gateways, cores = 0.0, 1, fleet.shared_cores
    sigma = np.sqrt(np.log(1 + SPREAD**2))
    work = edge / 1000 * random.lognormal(-(sigma**2) / 2, sigma, len(arrivals))

    gateway = random.integers(0, gateways, len(arrivals))
    published = np.empty_like(arrivals)
    for one in range(gateways):
        mine = gateway == one
        published[mine] = serve(arrivals[mine], work[mine], cores)
    half = costs.transit_ms / 2000
    polled = published + half + behind / 1000

    scanner = random.integers(0, fleet.partitions, len(arrivals)) % fleet.scanners
    answered = np.full(len(arrivals), np.nan)
    worked = 0.0
    for one in range(fleet.scanners):
        mine = np.flatnonzero(scanner == one)
        mine = mine[np.argsort(polled[mine], kind="stable")]
        judged, busy = judge(polled[mine], deadlines[mine] - half, fleet)
        answered[mine] = judged + half
        worked += busy
    in_time = answered <= deadlines  # nan is not
    took = np.sort((answered - arrivals)[in_time]) * 1000
    p50, p95, p99 = np.percentile(took, (50, 95, 99)) if len(took) else (np.nan,) * 3
    return Outcome(
        images=len(arrivals),
        p50=float(p50),
        p95=float(p95),
        p99=float(p99),
        missed=1 - float(np.mean(in_time)),
        gateways_busy=float(work.sum() / seconds / (gateways * cores)),
        scanners_busy=worked / seconds / fleet.scanners,
    )


LARGE = Fleet(gateways=100, cores=4, scanners=500, partitions=1000)
PLANS: tuple[tuple[float, float, Fleet], ...] = (
    (10, 1, Fleet(scanners=1, shared_cores=2)),
    (10, 3, Fleet(scanners=1, shared_cores=2)),
    (10, 3, Fleet(scanners=2, shared_cores=2)),
    (100, 1, Fleet(gateways=2, cores=4, scanners=6, partitions=12)),
    (100, 3, Fleet(gateways=2, cores=4, scanners=6, partitions=12)),
    (100, 3, Fleet(gateways=2, cores=4, scanners=12, partitions=12)),
    (10_000, 1, LARGE),
    (10_000, 1, replace(LARGE, partitions=512)),
    (10_000, 1.5, LARGE),
)
"""Rate, burst and fleet of each row of docs/scale.md."""


def row(rate: float, burst: float, fleet: Fleet, outcome: Outcome) -> str:
    """One line of the table."""
    where = f"{fleet.shared_cores} in all" if fleet.shared_cores else f"{fleet.gateways} x {fleet.cores}"
    return (
        f"| {rate:,g} | {burst:g} | {where} | {fleet.scanners} | {fleet.partitions} |"
        f" {outcome.gateways_busy:.0%} | {outcome.scanners_busy:.0%} |"
        f" {outcome.p50:.0f} / {outcome.p95:.0f} / {outcome.p99:.0f} | {outcome.missed:.2%} |"
    )


HEAD = (
    "| images a second | burst | gateway cores | scanners | partitions | gateways busy | scanners busy |"
    " p50 / p95 / p99, ms | not in time |\n|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
)


def compare(measured: dict[str, Any], scanners: int, cores: int) -> list[str]:
    """Rows that set each open-loop report of bench.run beside the same rate simulated, with the CPU that run took."""
    lines = ["| images a second | | p50 / p95 / p99, ms | not in time |", "|---:|---|---:|---:|"]
    for name, report in sorted(measured.items()):
        if name != "fifty" and not (name.startswith("search-") and name != "search-closed"):
            continue
        own = {group: cpu["total_ms"] for group, cpu in report["cpu"].items()}
        costs = Costs(
            gateway_ms=own["gateway"],
            frames_ms=0.0,  # a gateway's total has its workers
            scanner_ms=own["scanner"],
            broker_ms=own["kafka"],
            generator_ms=report["generator_cpu_ms"],
        )
        fleet = Fleet(scanners=scanners, shared_cores=cores)
        outcome = simulate(report["rate_offered"], fleet, costs, seconds=max(60.0, report["seconds"]))
        missed = 1 - report["answered_by"].get("verdict", 0) / report["sent"]
        lines.append(
            f"| {report['rate_offered']:.1f} | measured | {report['p50']:.0f} / {report['p95']:.0f} /"
            f" {report['p99']:.0f} | {missed:.2%} |"
        )
        lines.append(
            f"| | simulated | {outcome.p50:.0f} / {outcome.p95:.0f} / {outcome.p99:.0f} | {outcome.missed:.2%} |"
        )
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="python -m bench.scale"
    )
    parser.add_argument(
        "--rate", type=float, help="images a second in the mean; without it, the table of docs/scale.md"
    )
    parser.add_argument("--burst", type=float, default=1.0, help="times the mean rate, for 10 s of each minute")
    parser.add_argument("--seconds", type=float, default=120.0, help="that are simulated")
    parser.add_argument("--seed", type=int, default=1)
    for name, what in (
        ("gateways", "gateway machines"),
        ("cores", "cores of each"),
        ("scanners", "scanner processes"),
        ("partitions", "of the topic images"),
        ("batch", "most images that a scanner infers at a time"),
        ("shared-cores", "all on one machine with so many cores"),
    ):
        default = getattr(Fleet(), name.replace("-", "_"))
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{what} ({default})")
    parser.add_argument("--batch-ms", type=float, default=0.0, help="milliseconds that a batch takes whatever is in it")
    parser.add_argument("--image-ms", type=float, default=30.0, help="and each image of it (30)")
    parser.add_argument("--check", type=Path, help="JSON that bench.run wrote with its scenarios fifty or search")
    given = parser.parse_args(arguments)
    if given.check:
        results = json.loads(given.check.read_text())["measured"].values()
        reports = {name: report for result in results for name, report in result.items() if isinstance(report, dict)}
        print("\n".join(compare(reports, given.scanners, given.shared_cores or 2)))
        return 0
    print(HEAD)
    if given.rate is None:
        for rate, burst, fleet in PLANS:
            seconds = given.seconds if rate < 1000 else 60.0
            print(
                row(rate, burst, fleet, simulate(rate, fleet, Costs(), seconds=seconds, burst=burst, seed=given.seed))
            )
        return 0
    fleet = Fleet(
        gateways=given.gateways,
        cores=given.cores,
        scanners=given.scanners,
        partitions=given.partitions,
        batch=given.batch,
        batch_ms=given.batch_ms,
        image_ms=given.image_ms,
        shared_cores=given.shared_cores,
    )
    try:
        outcome = simulate(given.rate, fleet, Costs(), seconds=given.seconds, burst=given.burst, seed=given.seed)
    except ValueError as error:
        parser.error(str(error))
    print(row(given.rate, given.burst, fleet, outcome))
    return 0


if __name__ == "__main__":
    sys.exit(main())
