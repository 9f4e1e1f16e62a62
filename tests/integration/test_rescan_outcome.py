"""A rescan carried out on a real Apache Kafka, with a kill on the way, and taken back: what the gateway knows, what the
enforcer removes from a server with pict-rs's internal API, and what the audit counts, against images known to flip."""

import asyncio
import contextlib
import hashlib
import json
import os
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest

from federation_audit.recording.service import record
from federation_audit.settings import AuditSettings
from federation_audit.store.engine import Store
from fediwarden.rescan.applying import apply_rescan
from fediwarden.rescan.jobs import publish_job, read_jobs
from fediwarden.rescan.judging import Rejudging, ScoreJudge
from fediwarden.rescan.outcome import Fate, Outcome, read_tally
from gateway.verdicts import Verdicts
from scanner.policy import Policy, parse_policy
from schemas.broker import BrokerSettings, Producer, Received, Tail, read_history
from schemas.clock import now_ms
from schemas.messages import (
    EVERY_TENANT,
    Decision,
    OverrideEffect,
    OverrideKind,
    OverrideSet,
    RescanJudged,
    RescanOrdered,
    RescanState,
    RescanTier,
    ScannerAnnounced,
    Stage,
    Verdict,
)
from schemas.topics import DAY_MS, HOUR_MS, OVERRIDES, RESCANS, SCANNERS, VERDICTS
from tests.integration.test_enforcer import enforcing, observing, tenant
from tests.pict_rs import FORMATS, PictRsServer, running_pict_rs
from tests.stores import sqlite_url

pytestmark = pytest.mark.kafka

IMAGES = 600
TURN = IMAGES // 20
"""Images that turn to reject, and as many to accept."""

RESCAN = "20261128-171251-ab12"
PATIENCE_S = 120.0
ACCEPT, REJECT = Decision.ACCEPT, Decision.REJECT
ALLOWED, OVERTAKEN, REMOVED, KEPT = 0, 20, (40, 60), 3
"""Of the images that turn to reject: one that an override keeps, one judged live meanwhile, two that pict-rs has: one
that came just now (by a gateway whose clock is ahead), one that came days ago. And one that does not turn."""

_BOTH_WAYS = [
    {"before": "accept", "after": "reject", "images": TURN - 2},
    {"before": "reject", "after": "accept", "images": TURN},
]


def policy(label: str) -> Policy:
    text = f"""
[policy]
name = "by-{label}"
[[rule]]
name = "{label}"
says = "Too much."
decision = "reject"
when = {{ score = "a/{label}", at_least = 0.5 }}
"""
    return parse_policy(text, ["a/x", "a/y"], source="test")


OLD, NEW = policy("x"), policy("y")


def scores(number: int) -> dict[str, float]:
    """One in twenty turns to reject, one to accept, one stays rejected."""
    x, y = {0: (0.1, 0.9), 1: (0.9, 0.1), 2: (0.9, 0.9)}.get(number % 20, (0.1, 0.1))
    return {"a/x": x, "a/y": y}


def before(number: int) -> Decision:
    return REJECT if number % 20 in (1, 2) else ACCEPT


def after(number: int) -> Decision:
    if number in (ALLOWED, OVERTAKEN):
        return before(number)
    return REJECT if number % 20 in (0, 2) else ACCEPT


def data(number: int) -> bytes:
    return b"image %d" % number


def sha(number: int) -> bytes:
    return hashlib.sha256(data(number)).digest()


def live(number: int) -> Verdict:
    return Verdict(
        scan_id=f"scan-{number}",
        tenant="default",
        sha256=sha(number),
        decision=before(number),
        scores=scores(number),
        media_type="image/jpeg",
        length=len(data(number)),
        models={"a": "1"},
        policy=OLD.id,
        stage=Stage.LIVE,
        scanner="s",
        topic="images",
        partition=0,
        offset=0,
        received_at=now_ms() + {REMOVED[0]: HOUR_MS, REMOVED[1]: -3 * DAY_MS}.get(number, 0),
        judged_at=now_ms(),
    )


async def publish(producer: Producer, verdicts: Sequence[Verdict]) -> None:
    for first in range(0, len(verdicts), 200):
        some = verdicts[first : first + 200]
        await asyncio.gather(*(producer.publish(VERDICTS, each, key=each.sha256) for each in some))


async def history(broker: BrokerSettings) -> list[Received]:
    found: list[Received] = []
    await read_history(broker, (VERDICTS,), since_ms=0, on_record=found.append, client_id="test")
    return found


async def judge(broker: BrokerSettings, producer: Producer, since: int) -> None:
    """The rescan as a worker leaves it: everything judged, and the job finished."""
    now = now_ms()
    fields = {"rescan": RESCAN, "tier": RescanTier.SCORES, "since": since, "until": now, "spans": ()}
    rejudging = Rejudging(ScoreJudge({EVERY_TENANT: NEW}))
    by_partition: dict[int, list[Received]] = {}
    for received in await history(broker):
        by_partition.setdefault(received.partition, []).append(received)
    for partition, records in by_partition.items():
        for first in range(0, len(records), 200):
            some = records[first : first + 200]
            judged = RescanJudged(
                rescan=RESCAN,
                topic=VERDICTS.name,
                partition=partition,
                begin=some[0].offset,
                end=some[-1].offset + 1,
                images=tuple(rejudging.rejudge([(each.offset, each.message) for each in some])),
                judged_at=now_ms(),
            )
            await producer.publish(RESCANS, judged, key=judged.key)
    job = RescanOrdered.model_validate(fields | {"ordered_at": now, "changed_at": now, "state": RescanState.FINISHED})
    await publish_job(producer, job)


def refuses(tenant: str, decision: Decision) -> bool:
    return decision is REJECT


async def outcome(broker: BrokerSettings) -> Outcome:
    job = (await read_jobs(broker)).get(RESCAN)
    return (await read_tally(broker, job, refuses=refuses)).outcome()


async def decided(broker: BrokerSettings) -> dict[int, Decision]:
    """What stands of each image: its newest verdict."""
    numbers = {sha(number): number for number in range(IMAGES)}
    verdicts = [each.message for each in await history(broker)]
    return {numbers[each.sha256]: each.decision for each in verdicts if isinstance(each, Verdict)}


@contextlib.asynccontextmanager
async def remembering(broker: BrokerSettings) -> AsyncIterator[Verdicts]:
    """The memory of a gateway, fed as a gateway feeds it."""
    memory = Verdicts(known_entries=10_000, recent_entries=10_000)
    topics = (VERDICTS, SCANNERS)
    async with Tail(broker, topics, since_s=3600.0, on_record=memory.observe, client_id="test-memory") as tail:
        await tail.wait_positioned()
        yield memory


async def announce(producer: Producer, judged_by: Policy) -> None:
    message = ScannerAnnounced(
        scanner="s",
        group="g",
        models={"a": "1"},
        policies={EVERY_TENANT: judged_by.id},
        device="cpu",
        announced_at=now_ms(),
    )
    await producer.publish(SCANNERS, message, key=b"s")


async def known(broker: BrokerSettings, producer: Producer, judged_by: Policy) -> dict[int, Decision | None]:
    """What a gateway that starts now answers of each image, while scanners judge by this policy."""
    await announce(producer, judged_by)
    async with remembering(broker) as memory:
        found = {number: memory.known("default", sha(number)) for number in range(IMAGES)}
    return {number: None if each is None else each.decision for number, each in found.items()}


async def counted(broker: BrokerSettings, url: str) -> dict[str, tuple[int, int]]:
    """Images and flagged ones by policy, in the audit's store once it has read all there is."""
    stop = asyncio.Event()
    await record(AuditSettings(), broker, url, stop, caught_up=stop.set)
    query = (
        "SELECT policy, SUM(exposed), SUM(flagged) FROM periods JOIN strata ON strata.id = stratum_id GROUP BY policy"
    )
    with Store(url) as store, store.reading() as connection:
        return {policy: (exposed, flagged) for policy, exposed, flagged in connection.exec_driver_sql(query)}


async def command(broker: BrokerSettings, folder: Path, *words: str) -> asyncio.subprocess.Process:
    """``fediwarden rescan ...`` in a process of its own."""
    environment = {
        "FEDIWARDEN_DATA_DIR": str(folder),
        "FEDIWARDEN_AUDIT__DATABASE": sqlite_url(folder),
        "FEDIWARDEN_KAFKA__BOOTSTRAP_SERVERS": broker.bootstrap_servers,
        "FEDIWARDEN_KAFKA__TOPIC_PREFIX": broker.topic_prefix,
    }
    argv = (sys.executable, "-m", "fediwarden", "rescan", *words)
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(*argv, env=os.environ | environment, stdout=pipe, stderr=pipe)


async def said(broker: BrokerSettings, folder: Path, *words: str) -> tuple[int | None, str, str]:
    """How such a command ended, and what it printed."""
    process = await command(broker, folder, *words)
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def apply_and_kill(broker: BrokerSettings, folder: Path) -> None:
    """Carry the rescan out in a process of its own, which is killed once its first verdicts are there."""
    begun = asyncio.Event()

    def note(received: Received) -> None:
        if isinstance(received.message, Verdict) and received.message.stage is Stage.RESCAN:
            begun.set()

    async with Tail(broker, (VERDICTS,), since_s=3600.0, on_record=note, client_id="test-kill") as tail:
        await tail.wait_positioned()
        process = await command(broker, folder, "apply", RESCAN, "--yes")
        ended = asyncio.create_task(process.communicate())
        waiting = asyncio.create_task(begun.wait())
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.wait((ended, waiting), return_when=asyncio.FIRST_COMPLETED)
        assert begun.is_set(), ended.result()
        process.kill()
        await ended


@pytest.fixture
def pict_rs(tmp_path: Path) -> Iterator[PictRsServer]:
    with running_pict_rs(tmp_path / "pict-rs") as server:
        yield server


def test_known_images_flip_and_no_others_through_a_kill_and_all_of_it_can_be_undone(
    fresh_kafka: BrokerSettings, pict_rs: PictRsServer, tmp_path: Path
) -> None:
    for number in (ALLOWED, OVERTAKEN, *REMOVED, KEPT):
        pict_rs.files.keep(data(number), FORMATS["image/jpeg"])
    url = sqlite_url(tmp_path)
    was, will_be = ({number: decide(number) for number in range(IMAGES)} for decide in (before, after))
    override = OverrideSet(
        effect=OverrideEffect.ALLOW,
        kind=OverrideKind.SHA256,
        hash=sha(ALLOWED),
        tenant="default",
        set_by="ada",
        reason="harmless",
        set_at=now_ms(),
    )

    async def scenario() -> None:
        since = now_ms()
        async with observing(fresh_kafka) as (observed, producer):
            await publish(producer, [live(number) for number in range(IMAGES)])
            await judge(fresh_kafka, producer, since)
            await producer.publish(OVERRIDES, override, key=override.override_id.encode())
            await publish(producer, [live(OVERTAKEN)])
            found = await outcome(fresh_kafka)
            assert (found.counted, found.removals, found.released) == (IMAGES - 2, TURN - 2, TURN)
            assert found.fates == {Fate.OPEN: IMAGES - 2, Fate.HELD: 1, Fate.OVERTAKEN: 1}
            assert await counted(fresh_kafka, url) == {OLD.id: (IMAGES, 2 * TURN)}

            ended, _, error = await said(fresh_kafka, tmp_path, "apply", RESCAN, "--yes", "--max-removals", "27")
            assert ended == 1
            assert "28 images would be removed, and --max-removals allows 27" in error
            assert (await read_jobs(fresh_kafka)).get(RESCAN).state is RescanState.FINISHED

            await apply_and_kill(fresh_kafka, tmp_path)
            assert (await read_jobs(fresh_kafka)).get(RESCAN).state is RescanState.APPLYING
            found = await outcome(fresh_kafka)
            assert 0 < found.fates[Fate.APPLIED] < IMAGES - 2
            refused = [each for each in found.flips() if each.after is REJECT]
            assert all(each.fate is Fate.APPLIED for each in refused), "they come first"

            async with enforcing(fresh_kafka, {"default": tenant(pict_rs)}):
                found = await apply_rescan(fresh_kafka, RESCAN, by="test", refuses=refuses)
                assert found.fates == {Fate.APPLIED: IMAGES - 2, Fate.HELD: 1, Fate.OVERTAKEN: 1}
                assert await decided(fresh_kafka) == will_be
                await observed.until(lambda: all(observed.is_over(data(number)) for number in REMOVED))
                stored = {sha(number).hex() for number in (ALLOWED, OVERTAKEN, KEPT)}
                assert pict_rs.files.sha256s() == stored
                assert all(observed.is_erased(data(number)) for number in REMOVED)
                looks = [len(observed.of(data(number))) for number in REMOVED]
                assert looks == [3, 1], "what came days ago is looked for once"
                for policy_in_force in (OLD, NEW):
                    answers = await known(fresh_kafka, producer, policy_in_force)
                    live_alone = {ALLOWED, OVERTAKEN} if policy_in_force is NEW else set()
                    assert answers == {n: None if n in live_alone else will_be[n] for n in range(IMAGES)}
                flagged = sum(decision is REJECT for decision in will_be.values())
                assert await counted(fresh_kafka, url) == {OLD.id: (2, 0), NEW.id: (IMAGES - 2, flagged)}

                written = len(await history(fresh_kafka))
                job = (await read_jobs(fresh_kafka)).get(RESCAN)
                await publish_job(producer, job.model_copy(update={"state": RescanState.APPLYING}))
                again = await apply_rescan(fresh_kafka, RESCAN, by="another", refuses=refuses)
                assert (again.fates, len(await history(fresh_kafka))) == (found.fates, written)

                page = tmp_path / "report.html"
                ended, out, error = await said(fresh_kafka, tmp_path, "report", RESCAN, "--json", "--html", str(page))
                assert ended == 0, error
                report = json.loads(out)
                assert (report["changed"], report["newly_refused"]) == (2 * TURN - 2, TURN - 2)
                assert {each["scan_id"] for each in report["flips"]} == {
                    f"scan-{number}" for number in range(IMAGES) if was[number] is not will_be[number]
                }
                assert report["instances"] == [{"instance": None, "changes": _BOTH_WAYS}]
                assert f"{2 * TURN - 2} of {IMAGES - 2} images would be decided differently" in page.read_text()

                ended, out, error = await said(fresh_kafka, tmp_path, "undo", RESCAN, "--yes")
                assert ended == 0, error
                assert "cannot come back" in out
                found = await outcome(fresh_kafka)
                assert found.fates == {Fate.UNDONE: IMAGES - 2, Fate.HELD: 1, Fate.OVERTAKEN: 1}
                assert await decided(fresh_kafka) == was
                assert await known(fresh_kafka, producer, OLD) == was
                assert await counted(fresh_kafka, url) == {OLD.id: (IMAGES, 2 * TURN)}
                assert pict_rs.files.sha256s() == stored, "what was removed does not come back"

    asyncio.run(scenario())
