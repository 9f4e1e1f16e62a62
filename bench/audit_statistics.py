"""How often the audit's statistics err: many invented fediverses, 26 weekly looks each.

    python -m bench.audit_statistics --repetitions 60
    python -m bench.audit_statistics --repetitions 20 --adversaries
    python -m bench.audit_statistics --speed

Prints, with 95 % intervals: the share of innocent instances among those recommended, at the worst look and ever;
how many of the bad are recommended, by size; and the same had every incident counted, as FACTS has it (one account's
flood included). --adversaries takes each adversary instead, --speed assesses 20,000 instances once. Seconds are of the
processor.
"""

import argparse
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from scipy import stats  # type: ignore[import-untyped]

from bench.audit_adversaries import ADVERSARIES
from bench.audit_fediverse import Fediverse, World, invent
from federation_audit.statistics.assessment import Assessment, assess, learn_usual
from federation_audit.statistics.decision import log_e_values, select
from federation_audit.statistics.levels import Level
from federation_audit.statistics.rules import DEFAULT_RULES, Rules

LEARN_EVERY = 13  # looks: what is usual changes slowly, and learning it costs most of the time
SIZES = (0, 1_000, 3_000, 10_000, 30_000)  # images in 26 weeks


@dataclass(slots=True)
class Tally:
    """What 26 looks at one fediverse came to."""

    named: set[str] = field(default_factory=set)
    restricted: set[str] = field(default_factory=set)
    worst_look: float = 0.0

    def add(self, named: set[str], restricted: set[str], bad: set[str]) -> None:
        self.named |= named
        self.restricted |= restricted
        self.worst_look = max(self.worst_look, false_share(named, bad))


def false_share(named: Iterable[str], bad: set[str]) -> float:
    every = set(named)
    return len(every - bad) / max(len(every), 1)


def look_weekly(fediverse: Fediverse, rules: Rules = DEFAULT_RULES) -> Iterator[Assessment]:
    """The assessment at the end of each week, of what had been confirmed by then."""
    table = fediverse.table()
    usual = None
    for look, at in enumerate(fediverse.looks()):
        evidence = fediverse.known_by(at)
        if usual is None or look % LEARN_EVERY == 0:
            usual = learn_usual(table, evidence, at, rules)
        yield assess(table, evidence, at, rules, usual)


def at_level(assessment: Assessment, level: Level) -> set[str]:
    return {found.instance for found in assessment if found.level is level}


def name_by_incidents(assessment: Assessment) -> set[str]:
    """Who would be recommended if the e-value counted every distinct incident, independent or not."""
    every, rules = list(assessment), assessment.rules
    counts = np.array([len(found.decision.incidents) for found in every], dtype=np.float64)
    tolerable = np.array([found.decision.tolerable for found in every])
    tested = np.array([found.decision.tested for found in every])
    chosen, _ = select(log_e_values(counts, tolerable, rules), tested, rules)
    return {
        found.instance
        for found, is_chosen in zip(every, chosen, strict=True)
        if is_chosen
        and len(found.decision.incidents) >= rules.recommend_incidents
        and found.decision.actors >= rules.recommend_actors
        and found.decision.span_days >= rules.recommend_span_days
    }


def simulate(world: World, seed: int) -> tuple[Fediverse, Tally, Tally]:
    """26 looks at the fediverse of `seed`: as we count, and as if every incident counted."""
    fediverse = invent(world, np.random.default_rng(seed))
    ours, theirs = Tally(), Tally()
    for assessment in look_weekly(fediverse):
        ours.add(at_level(assessment, Level.RECOMMEND), at_level(assessment, Level.RESTRICT), fediverse.bad)
        theirs.add(name_by_incidents(assessment), set(), fediverse.bad)
    return fediverse, ours, theirs


def report(world: World, repetitions: int, say: Callable[[str], None] = print) -> None:
    """The figures of one world."""
    began = time.process_time()
    runs = [simulate(world, seed) for seed in range(repetitions)]
    say(f"{repetitions} fediverses of {world.instances} instances, {world.bad} bad; {world}")
    for name, tallies in (("ours", [run[1] for run in runs]), ("every incident counts", [run[2] for run in runs])):
        ever = [false_share(tally.named, run[0].bad) for run, tally in zip(runs, tallies, strict=True)]
        hit = sum(len(tally.named & run[0].bad) for run, tally in zip(runs, tallies, strict=True))
        innocent = sum(len(tally.named - run[0].bad) for run, tally in zip(runs, tallies, strict=True))
        say(f"  {name}:")
        say(f"    FDR at the worst look {_mean([tally.worst_look for tally in tallies])}, ever named {_mean(ever)}")
        say(f"    power {_share(hit, repetitions * world.bad)}; innocent instances ever named: {innocent}")
    restricted = sum(len(ours.restricted - fediverse.bad) for fediverse, ours, _ in runs)
    say(f"  innocent instances ever at level 2: {_share(restricted, repetitions * (world.instances - world.bad))}")
    sizes = [
        (int(fediverse.media[name].sum()), name in ours.named) for fediverse, ours, _ in runs for name in fediverse.bad
    ]
    for low, high in zip(SIZES, (*SIZES[1:], 1 << 60), strict=True):
        some = [is_named for size, is_named in sizes if low <= size < high]
        if some:
            say(f"  bad, {low:,} images and more: power {_share(sum(some), len(some))}")
    say(f"  {time.process_time() - began:.0f} s")


def report_adversaries(repetitions: int, say: Callable[[str], None] = print) -> None:
    """How often each adversary brings its victim to which level, at its worst look."""
    for adversary in ADVERSARIES:
        worst = dict.fromkeys(Level, 0)
        named = 0
        for seed in range(repetitions):
            fediverse, victim = adversary(World(instances=150, bad=3), np.random.default_rng(seed))
            levels, wrong = [Level.INSUFFICIENT], False
            for assessment in look_weekly(fediverse):
                if victim in assessment:
                    levels.append(assessment[victim].level)
                wrong |= bool(at_level(assessment, Level.RECOMMEND) - fediverse.bad)
            worst[max(levels)] += 1
            named += wrong
        reached = ", ".join(f"level {level.value}: {times}" for level, times in worst.items() if times)
        doc = (adversary.__doc__ or "").split("\n")[0]
        say(f"  {doc}\n    victim's worst look: {reached}; runs with an innocent one recommended: {named}")


def report_speed(say: Callable[[str], None] = print) -> None:
    """One assessment of 20,000 instances over 26 weeks, of which most sent something in each."""
    world = World(instances=20_000, bad=100, media_a_week=12.0, spread=1.8)
    fediverse = invent(world, np.random.default_rng(0))
    table, at = fediverse.table(), fediverse.looks()[-1]
    evidence = fediverse.known_by(at)
    began = time.process_time()
    usual = learn_usual(table, evidence, at)
    learnt = time.process_time()
    found = assess(table, evidence, at, usual=usual)
    done = time.process_time()
    say(
        f"  {len(found):,} instances, {len(table.media):,} rows, {len(evidence.incidents):,} incidents:"
        f" what is usual {learnt - began:.2f} s, assessing {done - learnt:.2f} s"
    )


def _mean(values: list[float]) -> str:
    mean = float(np.mean(values))
    spread = 1.96 * float(np.std(values, ddof=1)) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return f"{mean:.4f} (+- {spread:.4f})"


def _share(hits: int, of: int) -> str:
    interval = stats.binomtest(hits, of).proportion_ci(0.95, method="exact")
    return f"{hits / of:.4f} ({interval.low:.4f} to {interval.high:.4f}; {hits} of {of})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=60)
    parser.add_argument("--clump", type=float, default=World().clump, help="incidents of a bad account on average")
    parser.add_argument("--bad-rate", type=float, default=World().bad_rate)
    parser.add_argument("--wrongly-confirmed", type=float, default=World().wrongly_confirmed, help="of false flags")
    parser.add_argument("--adversaries", action="store_true")
    parser.add_argument("--speed", action="store_true")
    arguments = parser.parse_args()
    if arguments.speed:
        report_speed()
    elif arguments.adversaries:
        report_adversaries(arguments.repetitions)
    else:
        world = replace(
            World(),
            clump=arguments.clump,
            bad_rate=arguments.bad_rate,
            wrongly_confirmed=arguments.wrongly_confirmed,
        )
        report(world, arguments.repetitions)


if __name__ == "__main__":
    main()
