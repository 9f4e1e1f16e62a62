"""Run faults one by one and print one line of JSON for each.

python -m tests.faults --list
python -m tests.faults --only kill-gateway --only kill-broker
python -m tests.faults --random 5 --seed 7
"""

import argparse
import json
import tempfile
from pathlib import Path

from tests.faults.faults import FAULTS, make_random, possible
from tests.faults.rig import running_rig
from tests.faults.trial import undergo


def main() -> int:
    """The exit status: 0 when every promise held."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--list", action="store_true", help="name the faults and end")
    parser.add_argument("--only", action="append", choices=[fault.name for fault in FAULTS], help="may be repeated")
    parser.add_argument("--random", type=int, metavar="N", help="N random combinations instead")
    parser.add_argument("--seed", type=int, default=1, help="of the first random one")
    parser.add_argument("--folder", type=Path, help="where data and logs go; a new temporary folder else, kept")
    arguments = parser.parse_args()
    if arguments.list:
        for fault in FAULTS:
            print(f"{fault.name:20} {fault.says}")
        return 0
    if arguments.random:
        chosen = [make_random(arguments.seed + place) for place in range(arguments.random)]
    else:
        wanted = arguments.only or [fault.name for fault in FAULTS]
        chosen = [fault for fault in FAULTS if fault.name in wanted and possible(fault)]
    broken = 0
    with running_rig(arguments.folder or Path(tempfile.mkdtemp(prefix="faults-"))) as rig:
        for fault in chosen:
            report = undergo(rig, fault)
            broken += bool(report.findings)
            print(json.dumps(report.as_json()), flush=True)
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
