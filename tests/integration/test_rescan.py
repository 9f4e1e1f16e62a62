"""A rescan on a real Kafka: ordered, killed in the middle, gone on with by two workers, against a recount by hand."""

import asyncio
import hashlib
import json
import os
import random
import signal
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from schemas.broker import BrokerSettings, Producer, Received, Tail
from schemas.clock import now_ms
from schemas.messages import (
    Decision,
    OverrideEffect,
    OverrideKind,
    OverrideSet,
    Rejudged,
    RescanJudged,
    RescanOrdered,
    RescanState,
    RescanTier,
    Stage,
    Verdict,
)
from schemas.topics import OVERRIDES, RESCAN_JOBS, RESCANS, VERDICTS
from tests.processes import Pipeline, Process
from tests.topics import read_topic

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

VERDICTS_MANY = 12_000
POLICY = """
[policy]
name = "stricter"

[[rule]]
name = "bare"
says = "Nude."
decision = "reject"
when = { score = "open-nsfw/nsfw", at_least = 0.9 }

[[rule]]
name = "perhaps-bare"
says = "Perhaps nude."
decision = "review"
when = { score = "open-nsfw/nsfw", at_least = 0.6 }
"""


def invent(number: int, chance: random.Random) -> Verdict:
    score = round(chance.random(), 4)
    return Verdict(
        scan_id=f"{number:032x}",
        tenant="other" if number % 7 == 0 else "default",
        sha256=hashlib.sha256(str(number % (VERDICTS_MANY - 100)).encode()).digest(),
        decision=Decision.REJECT if score >= 0.8 else Decision.ACCEPT,
        scores={"open-nsfw/nsfw": score} if number % 50 else {"open-nsfw/other": score},
        models={"open-nsfw": "one"},
        policy="before",
        stage=Stage.LIST if number % 31 == 0 else Stage.LIVE,
        scanner="s",
        topic="images",
        partition=0,
        offset=number,
        received_at=now_ms(),
        judged_at=now_ms(),
    )


def recount(verdict: Verdict, allowed: bytes) -> tuple[Decision | None, str]:
    """What must come of a verdict, and why nothing: by plain comparisons."""
    if verdict.stage is Stage.LIST:
        return None, "list"
    if verdict.sha256 == allowed:
        return None, "override"
    score = verdict.scores.get("open-nsfw/nsfw")
    if score is None:
        return None, "incomplete"
    return (Decision.REJECT if score >= 0.9 else Decision.REVIEW if score >= 0.6 else Decision.ACCEPT), ""


async def fill(kafka: BrokerSettings, verdicts: list[Verdict], allowed: bytes) -> dict[tuple[int, int], Verdict]:
    """Publish the verdicts, with poison between them and an override; where each stands."""
    override = OverrideSet(
        effect=OverrideEffect.ALLOW,
        kind=OverrideKind.SHA256,
        hash=allowed,
        set_by="t",
        reason="fine",
        set_at=now_ms() - 1000,
    )
    placed: dict[tuple[int, int], Verdict] = {}
    raw = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers)
    await raw.start()
    async with Producer(kafka, client_id="test") as producer:
        await producer.publish(OVERRIDES, override, key=override.override_id.encode())

        async def publish(verdict: Verdict) -> None:
            at = await producer.publish(VERDICTS, verdict, key=verdict.sha256)
            placed[at.partition, at.offset] = verdict

        for begin in range(0, len(verdicts), 2000):
            await asyncio.gather(*map(publish, verdicts[begin : begin + 2000]))
            await raw.send_and_wait(VERDICTS.full_name(kafka.topic_prefix), b"\xffgarbage", key=b"garbage")
    await raw.stop()
    return placed


async def kill_at_first_word(kafka: BrokerSettings, worker: Process) -> None:
    """Kill -9 the moment that the first record of what was judged is seen."""
    seen = asyncio.Event()

    def strike(received: Received) -> None:
        if not seen.is_set():
            os.kill(worker.pid, signal.SIGKILL)
            seen.set()

    async with Tail(kafka, [RESCANS], since_s=0, on_record=strike, client_id="test"), asyncio.timeout(90):
        while not seen.is_set():
            assert worker.running, worker.log
            await asyncio.sleep(0.01)


def test_a_killed_rescan_goes_on_with_two_workers_and_says_what_a_recount_says(
    fresh_kafka: BrokerSettings, tmp_path: Path
) -> None:
    chance = random.Random(7)
    verdicts = [invent(number, chance) for number in range(VERDICTS_MANY)]
    allowed = verdicts[5].sha256
    placed = asyncio.run(fill(fresh_kafka, verdicts, allowed))
    (tmp_path / "stricter.toml").write_text(POLICY)
    with Pipeline(fresh_kafka, tmp_path) as pipeline:
        ordered = pipeline.start(
            "rescan", "--since", "1h", "--policy", str(tmp_path / "stricter.toml"), "--tenant", "default", "--dry-run"
        )
        asyncio.run(kill_at_first_word(fresh_kafka, ordered))
        ordered.wait()
        (job,) = jobs(fresh_kafka)
        assert (job.state, job.tier, job.dry_run) == (RescanState.RUNNING, RescanTier.SCORES, True)
        assert sum(span.end - span.begin for span in job.spans) == VERDICTS_MANY + 6
        spoken_of = judged(fresh_kafka)
        assert 0 < len(spoken_of) < VERDICTS_MANY, "killed in the middle"

        refused = pipeline.start("rescan", "--since", "1h", "--policy", str(tmp_path / "stricter.toml"), "--dry-run")
        assert refused.wait() == 75
        assert f"rescan {job.rescan} is running" in refused.log

        async def a_live_verdict() -> None:
            late = invent(VERDICTS_MANY + 1, chance)
            async with Producer(fresh_kafka, client_id="test") as producer:
                await producer.publish(VERDICTS, late, key=late.sha256)

        asyncio.run(a_live_verdict())
        workers = [pipeline.start("rescan", "resume", job.rescan) for _ in range(2)]
        assert [worker.wait(120) for worker in workers] == [0, 0], [worker.log for worker in workers]
        shown = pipeline.start("rescan", "show", job.rescan, "--json")
        assert shown.wait() == 0
        assert json.loads(shown.log)["left"] == 0

    (job,) = jobs(fresh_kafka)
    assert job.state is RescanState.FINISHED
    expected = {
        at: (verdict.scan_id, verdict.decision, *recount(verdict, allowed))
        for at, verdict in placed.items()
        if verdict.tenant == "default"
    }
    found = {
        at: {(each.scan_id, each.before, each.after, each.held) for each in said}
        for at, said in judged(fresh_kafka).items()
    }
    assert found == {at: {said} for at, said in expected.items()}, "each once, or twice in the same words"
    assert {each[3] for said in found.values() for each in said} == {"", "list", "override", "incomplete"}
    workers_seen = {each.message.worker for each in read_topic(fresh_kafka, RESCANS)}  # type: ignore[union-attr]
    assert len(workers_seen) >= 2
    assert len(read_topic(fresh_kafka, VERDICTS)) == VERDICTS_MANY + 7, "judging changes nothing"


def jobs(kafka: BrokerSettings) -> list[RescanOrdered]:
    newest = {each.key: each.message for each in read_topic(kafka, RESCAN_JOBS)}
    return [job for job in newest.values() if isinstance(job, RescanOrdered)]


def judged(kafka: BrokerSettings) -> dict[tuple[int, int], list[Rejudged]]:
    said: dict[tuple[int, int], list[Rejudged]] = {}
    for received in read_topic(kafka, RESCANS):
        message = received.message
        assert isinstance(message, RescanJudged)
        for each in message.images:
            assert message.begin <= each.offset < message.end
            said.setdefault((message.partition, each.offset), []).append(each)
    return said
