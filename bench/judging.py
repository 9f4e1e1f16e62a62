"""What judging costs: one call of `Policy.judge` for the frames of one image.

    python -m bench.judging [POLICY...]      # names of shipped policies or files; default: all that are shipped

Scores are random: for CLIP's concepts similarities round the thresholds, so that most corrections and rules have
something to do. Prints a Markdown table of microseconds of CPU time: of the fastest of ten calls for each image (other
work on the machine only ever slows a call down), the median and the 99th percentile over 400 images.
"""

import argparse
import time
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
    print("| policy | scores | frames | median, us | 99 %, us |\n|---|---|---|---|---|")
    for name in parser.parse_args().policies:
        policy = load_policy(Path(name), every_label(), every_embedder())
        for count in FRAME_COUNTS:
            median, tail = np.quantile(measure(policy, count), [0.5, 0.99])
            print(f"| {policy.name} | {len(policy.scores)} | {count} | {median:.1f} | {tail:.1f} |")


def measure(policy: Policy, frame_count: int) -> list[float]:
    random = np.random.default_rng(7)
    names = sorted(policy.scores)
    similar = np.array([name.partition("/")[0] in policy.concepts for name in names])
    values = random.uniform(0.0, 1.0, (SETS, frame_count, len(names)))
    values = np.where(similar, 0.13 + 0.12 * values, values)
    sets = [[dict(zip(names, frame, strict=True)) for frame in frames] for frames in values.tolist()]
    return [min(_time(policy, frames) for _ in range(ROUNDS)) for frames in sets]


def _time(policy: Policy, frames: list[dict[str, float]]) -> float:
    started = time.thread_time_ns()
    policy.judge(frames)
    return (time.thread_time_ns() - started) / 1000.0


if __name__ == "__main__":
    main()
