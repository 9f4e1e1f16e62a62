"""One fault from beginning to end: load, fault, recovery, and the look at what is left."""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from tests.faults.driver import Request, Way
from tests.faults.evidence import Evidence, Numbers, count, find_failed, find_open, find_wrongs, read_evidence
from tests.faults.faults import Fault
from tests.faults.rig import DEADLINE_S, Rig
from tests.processes import environment_of_process

SLACK_S = 0.5
"""The promise: no request takes longer than its deadline and this."""
UNTIMED_SLACK_S = 5.0
"""What is late even on a machine that does other work beside."""
RECOVERY_S = 90.0
FIRST_SECONDS = 10.0
GROWTH = 1.5
GROWTH_BYTES = 96 << 20
_CLOCKS_S = 2.0
_LEDGER_WITHIN_S = 60.0


@dataclass(frozen=True, slots=True)
class Report:
    """What a fault came to; it held when there are no `findings`.

    `faulty_s` is how long it lasted; `recovered_s` runs from its beginning until from when on every image was answered
    by its verdict; `settled_s` from its end until we looked and nothing was open. `in_time` is the share of the images
    sent in its first ten seconds that were judged in time.
    """

    fault: str
    says: str
    numbers: Numbers
    faulty_s: float
    recovered_s: float
    settled_s: float
    in_time: float
    memory_mb: dict[str, tuple[int, int]]
    findings: list[str]

    def as_json(self) -> dict[str, Any]:
        """For a line of JSON."""
        fields = asdict(self)
        return {"fault": fields.pop("fault"), "says": fields.pop("says"), **fields.pop("numbers"), **fields}


def undergo(rig: Rig, fault: Fault, *, timed: bool = True) -> Report:
    """Break `rig` by `fault` under load, and see what becomes of every image sent meanwhile.

    Without `timed`, how fast it went is told and not judged: that needs a machine that does nothing else.
    """
    rig.mend()
    fault.prepare(rig)
    try:
        return _undergo(rig, fault, timed)
    finally:
        fault.restore(rig)


def _undergo(rig: Rig, fault: Fault, timed: bool) -> Report:
    driver = rig.driver(**fault.load)
    began = time.time()
    driver.start()
    try:
        rig.wait_until(lambda: driver.steady_from(began) is not None, "steady before the fault")
        before = rig.memory()
        broken_at = time.time()
        fault.inject(rig)
        mended_at = time.time()
        rig.wait_until(lambda: driver.steady_from(broken_at) is not None, "steady after the fault", RECOVERY_S)
        if fault.in_time:
            rig.wait_until(lambda: time.time() > broken_at + FIRST_SECONDS, "ten seconds on")
        steady_at = driver.steady_from(broken_at) or time.time()
        rig.wait_ready()
        after = rig.memory()
    finally:
        requests = driver.stop()

    evidence, stored, still_open = _settle(rig, requests, began)
    settled_at = time.time()
    numbers = count(requests, evidence, stored)
    in_time = _in_time(requests, broken_at)
    failed = find_failed([request for request in requests if request.way not in fault.may_fail])
    findings = [
        *still_open,
        *find_wrongs(requests, evidence, stored, DEADLINE_S + (SLACK_S if timed else UNTIMED_SLACK_S)),
        *failed,
        *_find_growth(before, after),
        *([f"only {in_time:.1%} judged in time in the first ten seconds"] if timed and in_time < fault.in_time else []),
        *([] if fault.showed(numbers) else ["the fault did not show: this run proves nothing"]),
    ]
    return Report(
        fault=fault.name,
        says=fault.says,
        numbers=numbers,
        faulty_s=round(mended_at - broken_at, 1),
        recovered_s=round(max(0.0, steady_at - broken_at), 1),
        settled_s=round(settled_at - mended_at, 1),
        in_time=round(in_time, 3),
        memory_mb={name: (before[name] >> 20, after[name] >> 20) for name in before},
        findings=findings,
    )


def _settle(rig: Rig, requests: Sequence[Request], began: float) -> tuple[Evidence, set[bytes], list[str]]:
    """Look until nothing is open, also by the ledger's word, or the time to recover is over."""
    give_up_at = time.time() + RECOVERY_S
    while True:
        evidence = read_evidence(rig.kafka, since_s=time.time() - began + _CLOCKS_S)
        stored = rig.stored()
        still_open = find_open(requests, evidence, stored) or _find_ledger_faults(rig, requests, evidence, began)
        if not still_open or time.time() > give_up_at:
            return evidence, stored, still_open
        rig.wait(1.0)


def _find_ledger_faults(rig: Rig, requests: Sequence[Request], evidence: Evidence, began: float) -> list[str]:
    """Where `fediwarden ledger` says otherwise than we do, or that something is open."""
    since = datetime.fromtimestamp(began, UTC).isoformat()
    done = subprocess.run(
        [sys.executable, "-m", "fediwarden", "ledger", "--json", "--since", since],
        env=environment_of_process(rig.environment),
        capture_output=True,
        text=True,
        timeout=_LEDGER_WITHIN_S,
        check=False,
    )
    if not done.stdout:
        return [f"fediwarden ledger ended with {done.returncode}: {done.stderr.strip()[-500:]}"]
    said = json.loads(done.stdout)
    ours = count(requests, evidence, ()).answered
    theirs = {name: told["accepted"] + told["refused"] for name, told in said["answered"].items()}
    unjudged = said["unjudged"]
    faults = []
    if ours != {name: number for name, number in theirs.items() if number}:
        faults.append(f"the ledger says {theirs}, the topic answers {ours}")
    if said["requests"] != sum(theirs.values()):
        faults.append(f"the ledger does not add up: {said['requests']} requests, but {theirs}")
    if unjudged["open"]["requests"] or unjudged["unconfirmed"]:
        faults.append(f"the ledger has {unjudged['open']['requests']} open, {len(unjudged['unconfirmed'])} unconfirmed")
    return faults


def _in_time(requests: Sequence[Request], broken_at: float) -> float:
    first = [
        request
        for request in requests
        if request.way is Way.DIRECT and broken_at <= request.sent_at < broken_at + FIRST_SECONDS
    ]
    return sum(request.judged for request in first) / max(1, len(first))


def _find_growth(before: dict[str, int], after: dict[str, int]) -> list[str]:
    return [
        f"{name} grew from {before[name] >> 20} to {size >> 20} MB"
        for name, size in after.items()
        if size > GROWTH * before[name] + GROWTH_BYTES
    ]
