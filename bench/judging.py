"""What judging costs: one call of `Policy.judge` for the frames of one image.

    python -m bench.judging [POLICY...]      # names of shipped policies or files; default: all that are shipped

Scores are random: for CLIP's concepts similarities round the thresholds, so that most corrections and rules have
something to do. Prints a Markdown table of microseconds of CPU time: of the fastest of ten calls for each image (other
work on the machine only ever slows a call down), the median and the 99th percentile over 400 images. With each policy
goes what `sum(range(1000))` took just then: it says what the machine had left for us.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from scanner.models.loading import every_embedder, every_label
from scanner.policy import Policy, load_policy, shipped_policies

SETS = 400
ROUNDS = 10
FRAME_COUNTS = (1, 8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("policies", nargs="*", default=list(shipped_policies()))
    print("| policy | scores | frames | median, us | 99 %, us | sum(range(1000)), us |\n|---|---|---|---|---|---|")
    for name in parser.parse_args().policies:
        policy = load_policy(Path(name), every_label(), every_embedder())
        for count in FRAME_COUNTS:
            taken, reference = measure(policy, count)
            median, tail = np.quantile(taken, [0.5, 0.99])
            beside = np.median(reference)
            print(f"| {policy.name} | {len(policy.scores)} | {count} | {median:.1f} | {tail:.1f} | {beside:.1f} |")


def measure(policy: Policy, frame_count: int) -> tuple[list[float], list[float]]:
    """Microseconds of judging each image, and of the sum beside it."""
    random = np.random.default_rng(7)
    names = sorted(policy.scores)
    similar = np.array([name.partition("/")[0] in policy.concepts for name in names])
    values = random.uniform(0.0, 1.0, (SETS, frame_count, len(names)))
    values = np.where(similar, 0.13 + 0.12 * values, values)
    sets = [[dict(zip(names, frame, strict=True)) for frame in frames] for frames in values.tolist()]
    taken = [_fastest(partial(policy.judge, frames)) for frames in sets]
    return taken, [_fastest(lambda: sum(range(1000))) for _ in range(SETS)]


def _fastest(call: Callable[[], object]) -> float:
    times = []
    for _ in range(ROUNDS):
        started = time.thread_time_ns()
        call()
        times.append(time.thread_time_ns() - started)
    return min(times) / 1000.0


if __name__ == "__main__":
    main()
