"""A scanner in a process of its own: signals, and models and decoders that hang."""

import asyncio
import itertools
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from aiokafka.partitioner import DefaultPartitioner

from scanner.models.model import ModelHung
from scanner.scanning import HANGS
from schemas.broker import BrokerSettings
from schemas.messages import ImageSubmitted, Verdict
from schemas.topics import IMAGES, IMAGES_BACKLOG, VERDICTS
from tests.scanners import (
    Observed,
    jpeg,
    observing,
    scanner_process,
    scanning,
    submit,
    submitted,
    uncommitted,
)
from tests.topics import read_topic
from tests.unit.scanner.stub_models import RedModel

pytestmark = pytest.mark.kafka


def names_beside(name: str, count: int) -> list[str]:
    """Names of so many images that share the partition of this one's."""

    def partition_of(name: str) -> int:
        partitions = list(range(IMAGES.partitions))
        return int(DefaultPartitioner()(submitted(name, b"").sha256, partitions, partitions))

    others = (f"beside-{number}" for number in itertools.count())
    return list(itertools.islice((other for other in others if partition_of(other) == partition_of(name)), count))


def test_an_image_that_models_hang_on_ends_a_few_scanners_and_no_more(
    fresh_kafka: BrokerSettings, tmp_path: Path
) -> None:
    async def scenario() -> tuple[Observed, list[bytes]]:
        hung = []
        async with observing(fresh_kafka) as (observed, producer):
            # Its partition has others before it, which are decoded later: its offset is not committed before theirs.
            slow = [jpeg((10, 10, 10), (1024, 1024))] * 8
            beside = [submitted(name, *slow) for name in names_beside("hangs", 5)]
            goods = [submitted(f"good-{number}", jpeg((10, 10, 10))) for number in range(7)]
            await submit(producer, *beside, submitted("hangs", jpeg((0, 255, 0))), *goods)

            def is_settled() -> bool:
                return len(observed.verdicts) == 12 and bool(observed.failures)

            while not is_settled():
                async with scanner_process(fresh_kafka, tmp_path, "hang_s=4.0, batch=4, decode_threads=8") as process:
                    ended = asyncio.create_task(process.wait())
                    settled = asyncio.create_task(observed.until(is_settled))
                    await asyncio.wait((ended, settled), return_when=asyncio.FIRST_COMPLETED)
                    settled.cancel()
                    if ended.done():
                        assert ended.result() == os.EX_TEMPFAIL
                        assert process.stdout is not None
                        said = await process.stdout.read()
                        # On a busy machine it also ends because its models were not loaded in five times hang_s.
                        assert b"hanging" in said or b"the models are not loaded" in said, said
                        if b"hanging" in said:
                            hung.append(said)
            return observed, hung

    observed, hung = asyncio.run(scenario())
    assert {(failure.scan_id, failure.reason) for failure in observed.failures} == {("hangs", "model-hung")}
    assert set(observed.verdicts) == {*names_beside("hangs", 5), *(f"good-{number}" for number in range(7))}
    # It may be told before the last has ended; and a try counts for nothing where Kafka did not hear of it in time.
    assert HANGS - 1 <= len(hung) <= 2 * HANGS, b"\n\n".join(hung).decode()


def test_a_scanner_stops_although_its_model_hangs(fresh_kafka: BrokerSettings, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            observing(fresh_kafka) as (observed, producer),
            scanner_process(fresh_kafka, tmp_path, "hang_s=3600.0, stop_s=0.2") as process,
        ):
            await submit(producer, submitted("hangs", jpeg((0, 255, 0))))
            assert process.stdout is not None
            while b"hanging" not in await process.stdout.readline():
                pass
            process.terminate()
            assert await process.wait() == 0
            await observed.until(lambda: observed.announcements[-1].leaving)
            assert observed.verdicts == {}
            async with scanning(fresh_kafka, models=[RedModel()]):
                await observed.until(lambda: "hangs" in observed.verdicts)

    asyncio.run(scenario())


def test_a_scanner_stopped_under_load_loses_nothing_and_contradicts_nobody(
    fresh_kafka: BrokerSettings, tmp_path: Path
) -> None:
    reds = {f"s{number}": (number * 37) % 256 for number in range(300)}

    async def scenario() -> Observed:
        async with (
            observing(fresh_kafka) as (observed, producer),
            scanner_process(fresh_kafka, tmp_path) as going,
            scanning(fresh_kafka, models=[RedModel()]),
        ):
            await observed.until(lambda: len({each.scanner for each in observed.announcements}) == 2)
            sending = asyncio.create_task(submit(producer, *(submitted(n, jpeg((r, 0, 0))) for n, r in reds.items())))
            await observed.until(lambda: len({verdict.scanner for verdict in observed.verdicts.values()}) == 2)
            going.terminate()
            assert await going.wait() == 0
            await sending
            await observed.until(lambda: len(observed.verdicts) == len(reds))
        assert await uncommitted(fresh_kafka) == 0
        return observed

    observed = asyncio.run(scenario())
    assert set(observed.verdicts) == set(reds)
    said: dict[str, set[Any]] = {}
    for verdict in observed.messages(VERDICTS):
        assert isinstance(verdict, Verdict)
        said.setdefault(verdict.scan_id, set()).add((verdict.decision, verdict.scores["red/red"], verdict.sha256))
    assert all(len(each) == 1 for each in said.values())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_scanner_process_ends_cleanly_at_a_signal(
    fresh_kafka: BrokerSettings, tmp_path: Path, number: signal.Signals
) -> None:
    async def scenario() -> None:
        async with (
            observing(fresh_kafka) as (observed, producer),
            scanner_process(fresh_kafka, tmp_path) as process,
        ):
            await submit(producer, submitted("one", jpeg((250, 0, 0))))
            await observed.until(lambda: observed.verdicts)
            process.send_signal(number)
            assert await process.wait() == 0
            await observed.until(lambda: observed.announcements[-1].leaving)
            assert await uncommitted(fresh_kafka) == 0

    asyncio.run(scenario())


def test_a_model_that_hangs_while_it_is_loaded_ends_the_process(
    fresh_kafka: BrokerSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HANG_AT_ONCE", "1")

    async def scenario() -> None:
        async with scanner_process(fresh_kafka, tmp_path, "hang_s=1.0") as process:
            assert await process.wait() == ModelHung.exit_code

    asyncio.run(scenario())


def test_a_scanner_that_is_still_loading_stops_at_a_signal(
    fresh_kafka: BrokerSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HANG_AT_ONCE", "1")

    async def scenario() -> None:
        async with scanner_process(fresh_kafka, tmp_path, "hang_s=3600.0") as process:
            assert process.stdout is not None
            while b"hanging" not in await process.stdout.readline():
                pass
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0

    asyncio.run(scenario())


def test_an_image_that_hangs_its_decoder_ends_the_process_and_goes_to_others(
    fresh_kafka: BrokerSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HANG_IN_PREPARE", "1")

    async def scenario() -> None:
        async with (
            observing(fresh_kafka) as (_, producer),
            scanner_process(fresh_kafka, tmp_path, "hang_s=3.0") as process,
        ):
            await submit(producer, submitted("hangs", jpeg((0, 255, 0))))
            assert await process.wait() == ModelHung.exit_code
        (behind,) = [record.message for record in await asyncio.to_thread(read_topic, fresh_kafka, IMAGES_BACKLOG)]
        assert isinstance(behind, ImageSubmitted)
        assert (behind.scan_id, behind.hung) == ("hangs", 1)

    asyncio.run(scenario())
