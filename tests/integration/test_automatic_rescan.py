"""A policy is changed, and what was judged is judged again without anybody asking: on a real Kafka."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from fediwarden.rescan import automatic
from fediwarden.rescan.planning import policies_of_settings, policy_ids
from fediwarden.settings import Settings, load_settings
from schemas.broker import BrokerSettings
from schemas.clock import now_ms
from schemas.messages import Decision, RescanOrdered, RescanState, ScannerAnnounced, Verdict
from schemas.topics import RESCAN_JOBS, SCANNERS, VERDICTS
from tests.scanners import Observed, observing
from tests.unit.schemas.samples import SHA256, verdict

pytestmark = [pytest.mark.kafka, pytest.mark.long]

MODELS = {"open-nsfw": "one"}
POLICY = """
[policy]
name = "bare"
[[rule]]
name = "bare"
says = "Nude."
decision = "reject"
when = { score = "open-nsfw/nsfw", at_least = THRESHOLD }
"""


def jobs(observed: Observed) -> list[RescanOrdered]:
    return [job for job in observed.messages(RESCAN_JOBS) if isinstance(job, RescanOrdered)]


def newest(observed: Observed) -> dict[str, RescanState]:
    return {job.rescan: job.state for job in jobs(observed)}


@contextlib.asynccontextmanager
async def watched(settings: Settings) -> AsyncIterator[None]:
    stop = asyncio.Event()
    running = asyncio.create_task(
        automatic.watch(
            settings, stop, refuses=lambda _, decision: decision is Decision.REJECT, stood_s=0.5, look_every_s=0.2
        )
    )
    try:
        yield
    finally:
        stop.set()
        await running


def test_a_changed_policy_is_judged_by_once_and_carried_out_within_what_the_guard_allows(
    fresh_kafka: BrokerSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(automatic, "_BEFORE_START_MS", 0)
    file = tmp_path / "policy.toml"

    def change_policy(threshold: float) -> Mapping[str, str]:
        file.write_text(POLICY.replace("THRESHOLD", str(threshold)))
        return policy_ids(settings, policies_of_settings(settings))

    settings = load_settings(
        {
            "data_dir": tmp_path / "data",
            "kafka": {"bootstrap_servers": fresh_kafka.bootstrap_servers, "topic_prefix": fresh_kafka.topic_prefix},
            "scanner": {"policy": file},
            "rescan": {"automatic": ["policy", "lists"], "automatic_apply": True},
        }
    )

    async def scenario() -> tuple[list[RescanOrdered], dict[str, RescanState], list[Verdict]]:
        judged_by = change_policy(0.9)["*"]
        async with observing(fresh_kafka, (RESCAN_JOBS, VERDICTS)) as (observed, producer):
            for number in range(40):
                score = 0.5 if number == 0 else 0.3 if number < 20 else 0.1
                said = verdict(
                    scan_id=f"scan-{number}",
                    sha256=SHA256[:31] + bytes([number]),
                    decision=Decision.ACCEPT,
                    rules=(),
                    scores={"open-nsfw/nsfw": score},
                    models=MODELS,
                    policy=judged_by,
                    judged_at=now_ms(),
                )
                await producer.publish(VERDICTS, said, key=said.sha256)

            in_force = change_policy(0.9)

            async def announce() -> None:
                while True:
                    said = ScannerAnnounced(
                        scanner="s",
                        group="fediwarden-scanner",
                        models=MODELS,
                        policies=dict(in_force),
                        device="cpu",
                        announced_at=now_ms(),
                    )
                    await producer.publish(SCANNERS, said, key=b"s")
                    await asyncio.sleep(0.3)

            announcing = asyncio.create_task(announce())
            async with watched(settings):
                await asyncio.sleep(1.5)
                assert jobs(observed) == [], "what images were judged by is in force still"
                in_force = change_policy(0.4)
                await observed.until(lambda: list(newest(observed).values()) == [RescanState.APPLIED])
            # The one that turns half of all images is judged, and left to an admin; it is found after a restart.
            in_force = change_policy(0.2)
            async with watched(settings):
                await observed.until(lambda: list(newest(observed).values())[1:] == [RescanState.FINISHED])
                await asyncio.sleep(1.0)
            async with watched(settings):
                await asyncio.sleep(1.5)
            announcing.cancel()
            verdicts = [each for each in observed.messages(VERDICTS) if isinstance(each, Verdict) and each.rescan]
            return jobs(observed), newest(observed), verdicts

    said, states, verdicts = asyncio.run(scenario())
    assert list(states.values()) == [RescanState.APPLIED, RescanState.FINISHED]
    assert {job.ordered_by for job in said} == {"automatic (policy)"}
    first = next(iter(states))
    assert {each.rescan for each in verdicts} == {first}
    assert [each.scan_id for each in verdicts if each.decision is Decision.REJECT] == ["scan-0"]
