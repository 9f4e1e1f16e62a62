"""``python -m tests.fuzz FOLDER [TARGET...] [libFuzzer's flags]``: what is found goes into FOLDER, a folder a target.

Without a target all of them; without a flag that says how long, a fixed number of runs (`RUNS`). Loading and
instrumenting everything takes most of that time, so it is done once and each target gets a process of its own.
"""

import os
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["gateway", "scanner", "schemas", "fediwarden", "federation_audit", "tomllib"]):
    from tests.fuzz.targets import CORPUS, RUNS, TARGETS


def main() -> None:
    """Exits with 1 when any target found something."""
    names = [each for each in sys.argv[2:] if not each.startswith("-")]
    flags = [each for each in sys.argv[2:] if each.startswith("-")]
    if len(sys.argv) < 2 or not TARGETS.keys() >= set(names):
        sys.exit(f"{__doc__}\nThe targets are {', '.join(TARGETS)}.")
    broken = [name for name in names or TARGETS if not _holds(name, Path(sys.argv[1]), flags)]
    print(f"fuzzed {len(names or TARGETS)} targets; broken: {', '.join(broken) or 'none'}")
    sys.exit(bool(broken))


def _holds(name: str, folder: Path, flags: list[str]) -> bool:
    found = folder / name
    found.mkdir(parents=True, exist_ok=True)
    if not any(flag.startswith(("-runs=", "-max_total_time=")) for flag in flags):
        flags = [f"-runs={RUNS[name]}", *flags]
    limits = ["-max_len=4096", "-timeout=120", "-rss_limit_mb=2048", f"-artifact_prefix={folder}/{name}-"]
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        atheris.Setup([sys.argv[0], str(found), str(CORPUS / name), *limits, *flags], TARGETS[name])
        atheris.Fuzz()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


if __name__ == "__main__":
    main()
