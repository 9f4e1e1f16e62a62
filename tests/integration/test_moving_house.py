"""Verdicts and overrides from one fediwarden to another, and archived images into a topic of somebody else's, on a real
Apache Kafka."""

import asyncio
import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import msgpack
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from pyarrow.parquet import read_table
from typer.testing import CliRunner, Result

from fediwarden.cli import app
from fediwarden.export.importing import import_file
from fediwarden.replay.records import ImageReplayed
from fediwarden.replay.replaying import OTHER_TENANT, TURNED_AGAINST, Asked, Replayed, replay
from fediwarden.replay.targets import open_target
from schemas.broker import BrokerSettings, Producer
from schemas.clock import now_ms
from schemas.codec import decode, schema_header
from schemas.keyring import Keyring
from schemas.messages import (
    Decision,
    EnforcementOutcome,
    FrameInfo,
    ImageSubmitted,
    Message,
    OverrideEffect,
    OverrideKind,
    OverrideSet,
    Stage,
    Verdict,
)
from schemas.topics import DAY_MS, HOUR_MS, IMAGES_ARCHIVE, OVERRIDES, VERDICTS
from tests.integration.test_enforcer import enforcing, judge, observing, tenant, verdict
from tests.pict_rs import FORMATS, PictRsServer, running_pict_rs
from tests.topics import read_topic

pytestmark = pytest.mark.kafka

AGO = now_ms() - 3 * DAY_MS


@pytest.fixture(autouse=True)
def logging_of_the_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command has all of the process log to its standard error, which here ends with it."""
    monkeypatch.setattr("fediwarden.logs.log_for_command", lambda: None)


@pytest.fixture
def pict_rs(tmp_path: Path) -> Iterator[PictRsServer]:
    with running_pict_rs(tmp_path / "pict-rs") as server:
        yield server


def run(broker: BrokerSettings, folder: Path, *arguments: str) -> Result:
    environment = {
        "FEDIWARDEN_DATA_DIR": str(folder),
        "FEDIWARDEN_KAFKA__BOOTSTRAP_SERVERS": broker.bootstrap_servers,
        "FEDIWARDEN_KAFKA__TOPIC_PREFIX": broker.topic_prefix,
    }
    done = CliRunner().invoke(app, list(arguments), env=environment)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def history(number: int) -> Verdict:
    """One in three rejected; all stages, every column."""
    stage = tuple(Stage)[number % len(Stage)]
    return verdict(
        b"old %d" % (number % 40),  # some images several times
        f"scan-{number}",
        decision=tuple(Decision)[number % 3],
        stage=stage,
        tenant="other" if number % 7 == 0 else "default",
        rules=({"name": "r", "decision": "reject", "frame": 0},),
        pdq=(bytes([number]) * 32,),
        pdq_quality=(80,),
        rescan="20261128-171251-ab12" if stage is Stage.RESCAN else "",
        received_at=AGO + number,
        judged_at=AGO + number + 5,
        timings={"infer": 0.1 * number},
    )


def override(number: int, **changes: object) -> OverrideSet:
    fields = {"effect": OverrideEffect.ALLOW, "kind": OverrideKind.SHA256, "hash": bytes([number]) * 32}
    return OverrideSet.model_validate(fields | {"set_by": "me", "reason": "it is harmless", "set_at": AGO} | changes)


def rows(text: str) -> list[str]:
    return sorted(text.splitlines()[1:])


def test_verdicts_and_overrides_move_house_and_nobody_acts_on_them(
    make_topics: Callable[[], BrokerSettings], pict_rs: PictRsServer, tmp_path: Path
) -> None:
    old, new = make_topics(), make_topics()
    verdicts = [history(number) for number in range(60)]
    kept = [pict_rs.files.keep(b"old %d" % number, FORMATS["image/jpeg"]) for number in range(40)]

    async def fill() -> None:
        async with Producer(old, client_id="test") as producer:
            for each in verdicts:
                await producer.publish(VERDICTS, each, key=each.sha256, timestamp_ms=each.judged_at)
            for number in range(3):
                said = override(number)
                await producer.publish(OVERRIDES, said, key=said.override_id.encode())
            gone = override(2)
            await producer.publish(OVERRIDES, None, key=gone.override_id.encode())
        async with Producer(new, client_id="test") as producer:
            later = override(1, set_at=AGO + 1, reason="it was looked at again")
            await producer.publish(OVERRIDES, later, key=later.override_id.encode())

    asyncio.run(fill())
    file, words = tmp_path / "verdicts.jsonl", tmp_path / "overrides.jsonl"
    exported = run(old, tmp_path, "export", "verdicts", "--output", str(file))
    assert (exported.exit_code, exported.stderr) == (0, "60 verdicts written\n")
    assert run(old, tmp_path, "export", "overrides", "--output", str(words)).exit_code == 0
    assert len(rows(words.read_text())) == 2
    table = tmp_path / "verdicts.parquet"
    assert run(old, tmp_path, "export", "verdicts", "--format", "parquet", "--output", str(table)).exit_code == 0
    assert sorted(read_table(table).column("scan_id").to_pylist()) == sorted(each.scan_id for each in verdicts)
    of_tenant = run(old, tmp_path, "export", "verdicts", "--tenant", "other", "--since", "4d", "--until", "1d")
    assert [json.loads(row)["tenant"] for row in rows(of_tenant.stdout)] == ["other"] * 9
    assert rows(run(old, tmp_path, "export", "verdicts", "--since", "2d").stdout) == []

    twice = tmp_path / "twice.jsonl"
    twice.write_text(file.read_text() + file.read_text().splitlines()[-1])

    def import_(path: Path, *flags: str) -> dict[str, object]:
        found: dict[str, object] = json.loads(run(new, tmp_path, "import", str(path), "--json", *flags).stdout)
        return {name: found[name] for name in ("lines", "there", "new")}

    assert import_(twice, "--dry-run") == {"lines": 61, "there": 1, "new": 60}

    async def scenario() -> list[EnforcementOutcome]:
        """An enforcer is running while the old verdicts come: it acts on those that come after, and on them alone."""
        live = b"live"
        pict_rs.files.keep(live, FORMATS["image/jpeg"])
        async with observing(new) as (observed, producer), enforcing(new, {"default": tenant(pict_rs)}):
            done = await import_file(new, twice)
            assert (done.lines, done.there, done.published) == (61, 1, 60)
            for number in range(40):  # to every partition that they went to: each is read in order
                await judge(producer, verdict(b"old %d" % number, f"after-{number}", decision=Decision.ACCEPT))
            await judge(producer, verdict(live, "live"))
            await observed.until(lambda: observed.is_over(live))
            assert {report.scan_id for report in observed.reports} == {"live"}
            assert observed.archive.keys() == {hashlib.sha256(live).digest()}
            return observed.outcomes(live)

    assert asyncio.run(scenario())[0] is EnforcementOutcome.REMOVED
    assert all(pict_rs.files.place_of(alias) for alias in kept)

    assert import_(file) == {"lines": 60, "there": 60, "new": 0}
    assert import_(words) == {"lines": 2, "there": 1, "new": 1}
    assert import_(words) == {"lines": 2, "there": 2, "new": 0}
    again = run(new, tmp_path, "export", "verdicts", "--until", "1d")
    assert rows(again.stdout) == rows(file.read_text())
    received = [each for each in read_topic(new, VERDICTS) if each.imported]
    assert sorted((each.message for each in received), key=str) == sorted(verdicts, key=str)
    standing = {each.key: each.message for each in read_topic(new, OVERRIDES)}
    assert {each.reason for each in standing.values() if isinstance(each, OverrideSet)} == {
        "it is harmless",
        "it was looked at again",
    }
    with file.open("ab") as damaged:
        damaged.write(b'{"scan_id": "x"}\n')
    with pytest.raises(Exception, match="line 62: field tenant"):
        import_(file)


def archived(keyring: Keyring, number: int) -> ImageSubmitted:
    sha256 = hashlib.sha256(b"%d" % number).digest()
    of = "other" if number % 5 == 4 else "default"
    return ImageSubmitted(
        scan_id=f"scan-{number}",
        tenant=of,
        sha256=sha256,
        length=7,
        media_type="image/jpeg",
        received_at=now_ms(),
        deadline_at=now_ms(),
        frames=(FrameInfo(at_ms=0, width=64, height=48, pdq=bytes(range(32)), pdq_quality=100),),
        sealed=keyring.seal([b"picture %d" % number], sha256=sha256, tenant=of),
    )


def messages_in(broker: BrokerSettings, name: str) -> list[tuple[bytes, Message]]:
    """What somebody else's consumer finds in a topic."""

    async def read() -> list[tuple[bytes, Message]]:
        client = AIOKafkaConsumer(bootstrap_servers=broker.bootstrap_servers)
        await client.start()
        try:
            partitions = [TopicPartition(name, number) for number in range(IMAGES_ARCHIVE.partitions)]
            client.assign(partitions)
            await client.seek_to_beginning()
            left, found = sum((await client.end_offsets(partitions)).values()), []
            while len(found) < left:
                for records in (await client.getmany(timeout_ms=200)).values():
                    found += [(each.key, _read(schema_header(each.headers), each.value)) for each in records]
            return found
        finally:
            await client.stop()

    return asyncio.run(read())


def _read(schema: str | None, value: bytes) -> Message:
    if schema == "image-replayed/1":
        return ImageReplayed.model_validate(msgpack.unpackb(value))
    return decode(schema, value)


def test_archived_images_come_into_a_topic_of_somebody_else_s(fresh_kafka: BrokerSettings, tmp_path: Path) -> None:
    ours, lost = Keyring.generate(), Keyring.generate()
    ours.save(tmp_path / "keys.json")
    images = [archived(lost if number % 4 == 3 else ours, number) for number in range(24)]
    turned = images[0]

    async def fill() -> None:
        async with Producer(fresh_kafka, client_id="test") as producer:
            for each in images:
                await producer.publish(IMAGES_ARCHIVE, each, key=each.sha256)
            await producer.publish(IMAGES_ARCHIVE, None, key=turned.sha256)
            for number in range(IMAGES_ARCHIVE.partitions):
                await producer.publish(IMAGES_ARCHIVE, None, key=b"tick", partition=number)

    asyncio.run(fill())
    base = f"lab-{fresh_kafka.topic_prefix}"
    clear, sealed, slow = base + "clear", base + "sealed", base + "slow"
    with pytest.raises(Exception, match="--create"):
        run(fresh_kafka, tmp_path, "replay", "--from", "1h", "--to-topic", clear)
    done = run(
        fresh_kafka,
        tmp_path,
        "replay",
        "--from",
        "1h",
        "--to-topic",
        clear,
        "--create",
        "--frames",
        "decrypted",
        "--json",
    )
    assert done.exit_code == 0
    assert f"{clear} will hold pictures in the clear, and keeps them for 24 hours" in done.stderr
    said = json.loads(done.stdout)
    secret = f"sealed with key {lost.primary!r}, which is not in the key file"
    assert (said["written"], said["left_out"]) == (17, {TURNED_AGAINST: 1, secret: 6})
    opened = dict(messages_in(fresh_kafka, clear))
    readable = [each for number, each in enumerate(images) if number % 4 != 3 and each is not turned]
    assert opened.keys() == {each.sha256 for each in readable}
    for each in readable:
        found = opened[each.sha256]
        assert isinstance(found, ImageReplayed)
        assert found.jpegs == (b"picture %d" % int(each.scan_id.removeprefix("scan-")),)
        assert (found.scan_id, found.tenant, found.frames) == (each.scan_id, each.tenant, each.frames)

    async def copy(name: str, since_ms: int, *, until_written: int | None = None, **asked: object) -> Replayed:
        replayed = Replayed()
        target = await open_target(fresh_kafka, name, create=True, retention_ms=HOUR_MS)
        wanted = Asked(since_ms=since_ms, until_ms=now_ms() + 1000, **asked)  # type: ignore[arg-type]
        copying = asyncio.create_task(replay(fresh_kafka, target, wanted, replayed))
        while until_written is not None and replayed.written < until_written and not copying.done():
            await asyncio.sleep(0.01)
        if until_written is not None:
            copying.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await copying
        return replayed

    whole = asyncio.run(copy(sealed, 0, tenants=("other",)))
    assert (whole.written, whole.left_out, whole.go_on_ms) == (4, {TURNED_AGAINST: 1, OTHER_TENANT: 19}, None)
    assert dict(messages_in(fresh_kafka, sealed)) == {each.sha256: each for each in images if each.tenant == "other"}

    begun = asyncio.run(copy(slow, 0, until_written=3, rate=8.0))
    assert 3 <= begun.written < 23
    assert begun.go_on_ms is not None
    rest = asyncio.run(copy(slow, begun.go_on_ms))
    assert rest.go_on_ms is None
    assert dict(messages_in(fresh_kafka, slow)) == {each.sha256: each for each in images if each is not turned}
