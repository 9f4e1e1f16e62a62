"""The enforcer on a real Apache Kafka, against a server with pict-rs's internal API."""

import asyncio
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from gateway.enforcement.pict_rs import PictRs
from gateway.enforcement.service import DRY_RUN_SUFFIX, Companion, serve
from gateway.enforcement.settings import EnforcerSettings
from gateway.settings import TenantSettings
from schemas.broker import BrokerSettings, Producer, Received, Tail
from schemas.clock import now_ms
from schemas.codec import SCHEMA_HEADER, encode, schema_of
from schemas.keyring import Keyring
from schemas.messages import (
    Decision,
    EnforcementOutcome,
    EnforcementReported,
    FrameInfo,
    ImageSubmitted,
    Stage,
    Verdict,
)
from schemas.topics import ENFORCEMENTS, IMAGES_ARCHIVE, VERDICTS, TopicSpec
from tests.kafka import find_free_ports
from tests.pict_rs import API_KEY, FORMATS, PictRsServer, running_pict_rs
from tests.processes import Pipeline, wait_until

pytestmark = pytest.mark.kafka

PATIENCE_S = 60.0
CHECKS = (0.2, 0.4)
JPEG = FORMATS["image/jpeg"]
ABSENT, REMOVED = EnforcementOutcome.ABSENT, EnforcementOutcome.REMOVED
FAILED, WOULD_REMOVE = EnforcementOutcome.FAILED, EnforcementOutcome.WOULD_REMOVE


class Observed:
    """What the enforcer publishes, and a way to wait for it."""

    def __init__(self) -> None:
        self.reports: list[EnforcementReported] = []
        self.archive: dict[bytes, Received] = {}
        self._changed = asyncio.Event()

    def note(self, received: Received) -> None:
        if isinstance(received.message, EnforcementReported):
            self.reports.append(received.message)
        elif received.topic == IMAGES_ARCHIVE and received.key is not None:
            self.archive[received.key] = received
        self._changed.set()

    def of(self, data: bytes, tenant: str = "default") -> list[EnforcementReported]:
        sha256 = hashlib.sha256(data).digest()
        return [each for each in self.reports if (each.sha256, each.tenant) == (sha256, tenant)]

    def outcomes(self, data: bytes, tenant: str = "default") -> list[EnforcementOutcome]:
        return [each.outcome for each in self.of(data, tenant)]

    def is_over(self, data: bytes, tenant: str = "default") -> bool:
        return any(each.final for each in self.of(data, tenant))

    def is_erased(self, data: bytes) -> bool:
        record = self.archive.get(hashlib.sha256(data).digest())
        return record is not None and record.message is None

    async def until(self, holds: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not holds():
                self._changed.clear()
                await self._changed.wait()


@contextlib.asynccontextmanager
async def observing(broker: BrokerSettings) -> AsyncIterator[tuple[Observed, Producer]]:
    observed = Observed()
    tail = Tail(broker, [ENFORCEMENTS, IMAGES_ARCHIVE], since_s=3600.0, on_record=observed.note, client_id="test")
    async with Producer(broker, client_id="test") as producer, tail:
        await tail.wait_positioned()
        yield observed, producer


@contextlib.asynccontextmanager
async def enforcing(
    broker: BrokerSettings,
    tenants: dict[str, TenantSettings],
    *,
    companions: Sequence[Companion] = (),
    **settings: object,
) -> AsyncIterator[None]:
    """An enforcer in this process; it is stopped at the end, and what it raises is raised here."""
    stop = asyncio.Event()
    given = EnforcerSettings.model_validate({"checks_s": CHECKS, "retry_most_s": 0.2, "stop_s": 2.0, **settings})
    running = asyncio.create_task(serve(given, tenants, broker, stop, companions=companions))
    try:
        yield
    finally:
        stop.set()
        await running


def verdict(data: bytes, scan_id: str, *, decision: Decision = Decision.REJECT, **more: object) -> Verdict:
    fields: dict[str, object] = {
        "scan_id": scan_id,
        "tenant": "default",
        "sha256": hashlib.sha256(data).digest(),
        "decision": decision,
        "scores": {"a/b": 0.9},
        "media_type": "image/jpeg",
        "length": len(data),
        "models": {"a": "1"},
        "policy": "p",
        "stage": Stage.LIVE,
        "scanner": "s",
        "topic": "images",
        "partition": 0,
        "offset": 0,
        "received_at": now_ms(),
        "judged_at": now_ms(),
    }
    return Verdict.model_validate(fields | more)


async def judge(producer: Producer, *verdicts: Verdict) -> None:
    for each in verdicts:
        await producer.publish(VERDICTS, each, key=each.sha256)


async def archive(producer: Producer, data: bytes) -> None:
    sha256 = hashlib.sha256(data).digest()
    image = ImageSubmitted(
        scan_id="archived",
        tenant="default",
        sha256=sha256,
        length=len(data),
        media_type="image/jpeg",
        received_at=now_ms(),
        deadline_at=now_ms(),
        frames=(FrameInfo(at_ms=0, width=64, height=48, pdq=bytes(range(32)), pdq_quality=100),),
        sealed=Keyring.generate().seal([data], sha256=sha256, tenant="default"),
    )
    await producer.publish(IMAGES_ARCHIVE, image, key=sha256)


def tenant(pict_rs: PictRsServer | str, **more: object) -> TenantSettings:
    url = pict_rs if isinstance(pict_rs, str) else pict_rs.url
    fields = {"key": "a-key-of-this-tenant", "pict_rs": url, "pict_rs_api_key": API_KEY}
    return TenantSettings.model_validate(fields | more)


async def uncommitted(broker: BrokerSettings, group: str = "enforcer", topic: TopicSpec = VERDICTS) -> int:
    """How many verdicts (or records of another topic) the group has not committed."""
    client = AIOKafkaConsumer(
        bootstrap_servers=broker.bootstrap_servers, group_id=broker.topic_prefix + group, enable_auto_commit=False
    )
    await client.start()
    try:
        name = topic.full_name(broker.topic_prefix)
        partitions = [TopicPartition(name, number) for number in range(topic.partitions)]
        ends = await client.end_offsets(partitions)
        return sum([ends[each] - (await client.committed(each) or 0) for each in partitions])
    finally:
        await client.stop()


@pytest.fixture
def pict_rs(tmp_path: Path) -> Iterator[PictRsServer]:
    with running_pict_rs(tmp_path / "pict-rs") as server:
        yield server


def test_a_rejected_file_leaves_pict_rs_and_the_archive_and_nothing_else_does(
    fresh_kafka: BrokerSettings, pict_rs: PictRsServer
) -> None:
    bad, good, held, unknown = b"bad", b"good", b"held for review", b"of a tenant that we do not have"
    aliases = {pict_rs.files.keep(bad, JPEG), pict_rs.files.keep(bad, JPEG)}
    for data in (good, held, unknown):
        pict_rs.files.keep(data, JPEG)

    async def scenario() -> Observed:
        async with observing(fresh_kafka) as (observed, producer):
            for data in (bad, good, held):
                await archive(producer, data)
            async with enforcing(fresh_kafka, {"default": tenant(pict_rs)}):
                await judge(
                    producer,
                    verdict(good, "1", decision=Decision.ACCEPT),
                    verdict(held, "2", decision=Decision.REVIEW),
                    verdict(bad, "3"),
                    verdict(unknown, "4", tenant="somebody"),
                )
                await observed.until(lambda: observed.is_over(bad) and observed.is_erased(bad))
                await observed.until(lambda: observed.is_erased(unknown))
            return observed

    observed = asyncio.run(scenario())
    assert pict_rs.files.sha256s() == {hashlib.sha256(data).hexdigest() for data in (good, held, unknown)}
    first, *later = observed.of(bad)
    assert (first.outcome, first.check, first.attempt, set(first.aliases)) == (REMOVED, 0, 1, aliases)
    assert [(each.outcome, each.check, each.final) for each in later] == [(ABSENT, 1, False), (ABSENT, 2, True)]
    assert {(each.scan_id, each.tenant) for each in observed.reports} == {("3", "default")}
    assert not any(observed.is_erased(data) for data in (good, held))
    assert asyncio.run(uncommitted(fresh_kafka)) == 0


def test_a_file_that_the_tenant_refuses_on_review_is_removed_and_stays_archived_for_replay(
    fresh_kafka: BrokerSettings, pict_rs: PictRsServer
) -> None:
    pict_rs.files.keep(b"held", JPEG)

    async def scenario() -> None:
        async with observing(fresh_kafka) as (observed, producer):
            await archive(producer, b"held")
            async with enforcing(fresh_kafka, {"default": tenant(pict_rs, on_review="reject")}):
                await judge(producer, verdict(b"held", "1", decision=Decision.REVIEW))
                await observed.until(lambda: observed.is_over(b"held"))
            assert not observed.is_erased(b"held")

    asyncio.run(scenario())
    assert pict_rs.files.sha256s() == set()


def test_the_archive_of_a_tenant_without_a_pict_rs_is_erased_too(fresh_kafka: BrokerSettings) -> None:
    async def scenario() -> None:
        async with observing(fresh_kafka) as (observed, producer):
            await archive(producer, b"bad")
            async with enforcing(fresh_kafka, {"default": TenantSettings()}):
                await judge(producer, verdict(b"bad", "1"))
                await observed.until(lambda: observed.is_erased(b"bad"))
            assert observed.reports == []

    asyncio.run(scenario())
    assert asyncio.run(uncommitted(fresh_kafka)) == 0


def test_a_file_that_pict_rs_was_still_storing_is_removed_by_a_later_look(
    fresh_kafka: BrokerSettings, pict_rs: PictRsServer
) -> None:
    async def scenario() -> None:
        async with observing(fresh_kafka) as (observed, producer):
            async with enforcing(fresh_kafka, {"default": tenant(pict_rs)}, checks_s=(3.0, 3.1)):
                await judge(producer, verdict(b"slow", "1"))
                await observed.until(lambda: observed.reports)
                pict_rs.files.keep(b"slow", JPEG)
                await observed.until(lambda: observed.is_over(b"slow"))
            assert observed.outcomes(b"slow") == [ABSENT, REMOVED, ABSENT]

    asyncio.run(scenario())
    assert pict_rs.files.sha256s() == set()


def test_a_file_that_is_posted_and_rejected_again_between_two_looks_is_looked_for_at_once(
    fresh_kafka: BrokerSettings, pict_rs: PictRsServer
) -> None:
    async def scenario() -> None:
        async with observing(fresh_kafka) as (observed, producer):
            async with enforcing(fresh_kafka, {"default": tenant(pict_rs)}, checks_s=(3600.0,)):
                await judge(producer, verdict(b"again", "1"))
                await observed.until(lambda: observed.reports)
                pict_rs.files.keep(b"again", JPEG)
                await judge(producer, verdict(b"again", "2"))
                await observed.until(lambda: REMOVED in observed.outcomes(b"again"))
            assert [(each.scan_id, each.check) for each in observed.reports] == [("1", 0), ("2", 0)]

    asyncio.run(scenario())
    assert asyncio.run(uncommitted(fresh_kafka)) == 2  # neither has had its last look


def test_many_verdicts_on_the_same_bytes_are_one_case_and_all_are_committed(
    fresh_kafka: BrokerSettings, pict_rs: PictRsServer
) -> None:
    pict_rs.files.keep(b"popular", JPEG)

    async def scenario() -> None:
        async with observing(fresh_kafka) as (observed, producer):
            await judge(producer, *(verdict(b"popular", str(number)) for number in range(100)))
            async with enforcing(fresh_kafka, {"default": tenant(pict_rs)}):
                await observed.until(lambda: observed.is_over(b"popular"))
            assert len(observed.reports) < 50

    asyncio.run(scenario())
    assert asyncio.run(uncommitted(fresh_kafka)) == 0


DAY_MS = 86_400_000


@pytest.mark.parametrize(
    ("judged_ago_ms", "published_ago_ms", "looks"),
    [
        (3 * DAY_MS, 3 * DAY_MS, 1),
        (3 * DAY_MS, 0, 2),  # whatever its scanner says about the time, the file may be on its way into pict-rs
        (DAY_MS // 2, DAY_MS // 2, 2),  # as far off as a clock in the wrong time zone
    ],
)
def test_a_verdict_of_long_ago_needs_one_look_and_a_fresh_one_of_a_slow_clock_all(
    fresh_kafka: BrokerSettings, pict_rs: PictRsServer, judged_ago_ms: int, published_ago_ms: int, looks: int
) -> None:
    pict_rs.files.keep(b"old", JPEG)

    async def scenario() -> None:
        async with observing(fresh_kafka) as (observed, _):
            async with enforcing(fresh_kafka, {"default": tenant(pict_rs)}, checks_s=(1.0,)):
                old = verdict(b"old", "1", judged_at=now_ms() - judged_ago_ms)
                await publish_as_of(fresh_kafka, old, now_ms() - published_ago_ms)
                await observed.until(lambda: observed.is_over(b"old"))
            assert observed.outcomes(b"old") == [REMOVED, ABSENT][:looks]

    asyncio.run(scenario())
    assert asyncio.run(uncommitted(fresh_kafka)) == 0


async def publish_as_of(broker: BrokerSettings, published: Verdict, at_ms: int) -> None:
    """Publish as a scanner does whose clock shows `at_ms`."""
    raw = AIOKafkaProducer(bootstrap_servers=broker.bootstrap_servers)
    await raw.start()
    await raw.send_and_wait(
        VERDICTS.full_name(broker.topic_prefix),
        encode(published),
        key=published.sha256,
        headers=[(SCHEMA_HEADER, schema_of(published).encode("ascii"))],
        timestamp_ms=at_ms,
    )
    await raw.stop()


def test_a_fault_of_ours_in_one_look_holds_up_no_other_file_and_is_reported(
    fresh_kafka: BrokerSettings, pict_rs: PictRsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd, bad = hashlib.sha256(b"odd").digest(), b"bad"
    pict_rs.files.keep(bad, JPEG)
    find = PictRs.find

    async def find_but_the_odd_one(self: PictRs, sha256: bytes, length: int, media_type: str) -> tuple[str, ...]:
        if sha256 == odd:
            raise ArithmeticError("a fault of ours")
        return await find(self, sha256, length, media_type)

    monkeypatch.setattr(PictRs, "find", find_but_the_odd_one)

    async def scenario() -> None:
        async with observing(fresh_kafka) as (observed, producer):
            async with enforcing(fresh_kafka, {"default": tenant(pict_rs)}):
                await judge(producer, verdict(b"odd", "1"))
                await observed.until(lambda: observed.of(b"odd"))
                await judge(producer, verdict(bad, "2"))
                await observed.until(lambda: observed.is_over(bad))
                monkeypatch.undo()
                await observed.until(lambda: observed.is_over(b"odd"))
            first = observed.of(b"odd")[0]
            assert (first.outcome, first.detail) == (FAILED, "ArithmeticError: a fault of ours")

    asyncio.run(scenario())
    assert pict_rs.files.sha256s() == set()
    assert asyncio.run(uncommitted(fresh_kafka)) == 0


def test_a_verdict_that_does_not_say_the_length_fails_once_and_is_done(
    fresh_kafka: BrokerSettings, pict_rs: PictRsServer
) -> None:
    async def scenario() -> None:
        async with observing(fresh_kafka) as (observed, producer):
            async with enforcing(fresh_kafka, {"default": tenant(pict_rs)}):
                await judge(producer, verdict(b"lengthless", "1", length=0))
                await observed.until(lambda: observed.is_over(b"lengthless"))
            (report,) = observed.reports
            assert report.outcome is FAILED
            assert "length" in report.detail

    asyncio.run(scenario())
    assert asyncio.run(uncommitted(fresh_kafka)) == 0


@pytest.mark.parametrize("fault", ["error", "hang", "drop"])
def test_a_pict_rs_that_fails_is_asked_until_it_has_confirmed(
    fresh_kafka: BrokerSettings, pict_rs: PictRsServer, fault: str
) -> None:
    pict_rs.files.keep(b"bad", JPEG)

    async def scenario() -> None:
        async with observing(fresh_kafka) as (observed, producer):
            async with enforcing(fresh_kafka, {"default": tenant(pict_rs)}, answer_within_s=0.3):
                pict_rs.behave(fault)  # type: ignore[arg-type]
                await judge(producer, verdict(b"bad", "1"))
                await observed.until(lambda: len(observed.reports) >= 3)
                assert set(observed.outcomes(b"bad")) == {FAILED}
                assert await uncommitted(fresh_kafka) == 1
                pict_rs.behave("well")
                await observed.until(lambda: observed.is_over(b"bad"))
            attempts = [each.attempt for each in observed.reports if each.check == 0]
            assert attempts == list(range(1, len(attempts) + 1))
            assert all(each.detail for each in observed.reports if each.outcome is FAILED)
            assert observed.outcomes(b"bad")[-3:] == [REMOVED, ABSENT, ABSENT]

    asyncio.run(scenario())
    assert pict_rs.files.sha256s() == set()
    assert asyncio.run(uncommitted(fresh_kafka)) == 0


def test_a_pict_rs_that_takes_a_purge_and_keeps_the_file_has_not_confirmed(
    fresh_kafka: BrokerSettings, pict_rs: PictRsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.enforcement.enforcer._GONE_WITHIN_S", 0.2)
    pict_rs.purge_after_s = 3600.0
    pict_rs.files.keep(b"bad", JPEG)

    async def scenario() -> None:
        async with observing(fresh_kafka) as (observed, producer):
            async with enforcing(fresh_kafka, {"default": tenant(pict_rs)}):
                await judge(producer, verdict(b"bad", "1"))
                await observed.until(lambda: observed.reports)
                assert "still has the file" in observed.reports[0].detail
                pict_rs.purge_after_s = 0.0
                await observed.until(lambda: observed.is_over(b"bad"))
            assert (observed.outcomes(b"bad")[0], observed.outcomes(b"bad")[-3]) == (FAILED, REMOVED)

    asyncio.run(scenario())


def test_a_wrong_api_key_is_reported_with_the_setting_to_mend(
    fresh_kafka: BrokerSettings, pict_rs: PictRsServer
) -> None:
    async def scenario() -> None:
        async with observing(fresh_kafka) as (observed, producer):
            wrong = tenant(pict_rs, pict_rs_api_key="not-the-key-of-it")
            async with enforcing(fresh_kafka, {"default": wrong}):
                await judge(producer, verdict(b"bad", "1"))
                await observed.until(lambda: observed.reports)
            report = observed.reports[0]
            assert (report.outcome, report.final) == (FAILED, False)
            assert "pict_rs_api_key" in report.detail
            assert "not-the-key-of-it" not in report.detail

    asyncio.run(scenario())
    assert asyncio.run(uncommitted(fresh_kafka)) == 1


def test_a_tenant_whose_pict_rs_is_gone_holds_up_no_other(fresh_kafka: BrokerSettings, pict_rs: PictRsServer) -> None:
    files = [f"file {number}".encode() for number in range(30)]
    for data in files:
        pict_rs.files.keep(data, JPEG)
    tenants = {
        "here": tenant(pict_rs),
        "gone": tenant(f"http://127.0.0.1:{find_free_ports(1)}", key="a-key-of-the-other"),
    }

    async def scenario() -> None:
        async with observing(fresh_kafka) as (observed, producer):
            for number, data in enumerate(files):
                await judge(producer, verdict(data, f"gone-{number}", tenant="gone"))
                await judge(producer, verdict(data, f"here-{number}", tenant="here"))
            async with enforcing(fresh_kafka, tenants):
                await observed.until(lambda: all(observed.is_over(data, "here") for data in files))
                await observed.until(lambda: any(observed.of(data, "gone") for data in files))
            assert {each.outcome for each in observed.reports if each.tenant == "gone"} == {FAILED}

    asyncio.run(scenario())
    assert pict_rs.files.sha256s() == set()
    # In each partition the first record is one that the pict-rs which is gone has not confirmed.
    assert asyncio.run(uncommitted(fresh_kafka)) == 2 * len(files)


def test_no_more_rejections_are_open_than_allowed_and_none_is_passed_over(
    fresh_kafka: BrokerSettings, pict_rs: PictRsServer
) -> None:
    files = [f"file {number}".encode() for number in range(20)]
    for data in files:
        pict_rs.files.keep(data, JPEG)
    pict_rs.behave("error")

    async def scenario() -> None:
        async with observing(fresh_kafka) as (observed, producer):
            await judge(producer, *(verdict(data, str(number)) for number, data in enumerate(files)))
            async with enforcing(fresh_kafka, {"default": tenant(pict_rs)}, max_open=3, retry_most_s=0.05):
                await observed.until(lambda: len(observed.reports) >= 30)
                assert len({each.sha256 for each in observed.reports}) <= 3
                pict_rs.behave("well")
                await observed.until(lambda: all(observed.is_over(data) for data in files))

    asyncio.run(scenario())
    assert pict_rs.files.sha256s() == set()
    assert asyncio.run(uncommitted(fresh_kafka)) == 0


def test_a_dry_run_changes_nothing_and_what_it_saw_is_removed_afterwards(
    fresh_kafka: BrokerSettings, pict_rs: PictRsServer
) -> None:
    alias = pict_rs.files.keep(b"bad", JPEG)

    async def scenario() -> None:
        async with observing(fresh_kafka) as (observed, producer):
            await archive(producer, b"bad")
            await judge(producer, verdict(b"bad", "1"))
            async with enforcing(fresh_kafka, {"default": tenant(pict_rs)}, dry_run=True):
                await observed.until(lambda: observed.is_over(b"bad"))
            assert observed.outcomes(b"bad") == [WOULD_REMOVE] * 3
            assert observed.reports[0].aliases == (alias,)
            assert len(pict_rs.files.sha256s()) == 1
            assert not observed.is_erased(b"bad")
            assert pict_rs.asked("/internal/purge") == 0
            assert await uncommitted(fresh_kafka, "enforcer" + DRY_RUN_SUFFIX) == 0
            async with enforcing(fresh_kafka, {"default": tenant(pict_rs)}):
                await observed.until(lambda: REMOVED in observed.outcomes(b"bad") and observed.is_erased(b"bad"))

    asyncio.run(scenario())
    assert pict_rs.files.sha256s() == set()


def test_what_is_no_verdict_is_passed(fresh_kafka: BrokerSettings, pict_rs: PictRsServer) -> None:
    pict_rs.files.keep(b"bad", JPEG)
    key = hashlib.sha256(b"bad").digest()

    async def scenario() -> None:
        raw = AIOKafkaProducer(bootstrap_servers=fresh_kafka.bootstrap_servers)
        await raw.start()
        topic = VERDICTS.full_name(fresh_kafka.topic_prefix)
        await raw.send_and_wait(topic, b"\xff garbage", key=key)
        await raw.send_and_wait(topic, None, key=key)
        await raw.stop()
        async with (
            observing(fresh_kafka) as (observed, producer),
            enforcing(fresh_kafka, {"default": tenant(pict_rs)}),
        ):
            await judge(producer, verdict(b"bad", "1"))
            await observed.until(lambda: observed.is_over(b"bad"))

    asyncio.run(scenario())
    assert asyncio.run(uncommitted(fresh_kafka)) == 0


def test_what_runs_beside_it_has_its_producer_and_ends_with_it(fresh_kafka: BrokerSettings) -> None:
    events: list[str] = []

    async def beside(producer: Producer) -> None:
        events.append("started" if producer.connected else "without Kafka")
        try:
            await asyncio.Event().wait()
        finally:
            events.append("ended")

    async def fail(_producer: Producer) -> None:
        raise ArithmeticError("beside")

    async def scenario() -> None:
        with pytest.raises(ArithmeticError, match="beside"):
            await serve(EnforcerSettings(), {}, fresh_kafka, asyncio.Event(), companions=[beside, fail])

    asyncio.run(scenario())
    assert events == ["started", "ended"]


def test_a_process_that_is_killed_between_two_looks_loses_none_and_one_that_is_stopped_ends_well(
    fresh_kafka: BrokerSettings, pict_rs: PictRsServer, tmp_path: Path
) -> None:
    data = b"stored while nobody looks"
    environment = {
        "FEDIWARDEN_TENANTS__DEFAULT__PICT_RS": pict_rs.url,
        "FEDIWARDEN_TENANTS__DEFAULT__PICT_RS_API_KEY": API_KEY,
        "FEDIWARDEN_ENFORCER__CHECKS_S": json.dumps([3600]),
    }

    async def reported(holds: Callable[[Observed], object], *verdicts: Verdict) -> None:
        async with observing(fresh_kafka) as (observed, producer):
            await judge(producer, *verdicts)
            await observed.until(lambda: holds(observed))

    with Pipeline(fresh_kafka, tmp_path, **environment) as pipeline:
        first = pipeline.start("enforcer")
        asyncio.run(
            reported(
                lambda observed: ABSENT in observed.outcomes(data),
                verdict(data, "1"),
                *(verdict(f"good {n}".encode(), f"good-{n}", decision=Decision.ACCEPT) for n in range(20)),
            )
        )
        # Offsets have been committed since: those of other partitions.
        wait_until(lambda: asyncio.run(uncommitted(fresh_kafka)) < 21, "anything committed")
        first.kill()
        pict_rs.files.keep(data, JPEG)
        second = pipeline.start("enforcer", FEDIWARDEN_ENFORCER__CHECKS_S="[0.2]")
        asyncio.run(reported(lambda observed: REMOVED in observed.outcomes(data) and observed.is_over(data)))
        assert second.stop() == 0
        assert API_KEY not in first.log + second.log
        assert '"event": "removed"' in second.log
    assert pict_rs.files.sha256s() == set()
    assert asyncio.run(uncommitted(fresh_kafka)) == 0
