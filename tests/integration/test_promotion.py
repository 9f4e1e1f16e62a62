"""Models promoted under running scanners, on a real Apache Kafka, while images come in."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import pytest

from fediwarden.findings import Health
from fediwarden.promotion.errors import RolloutIncomplete
from fediwarden.promotion.evidence import find_evidence
from fediwarden.promotion.examining import examine_promotion
from fediwarden.promotion.rollout import promote
from fediwarden.settings import load_settings
from scanner.models.model import Model
from scanner.models.registry import ModelMissing
from scanner.promotion.promoted import read_promoted
from scanner.service import Shelf, serve
from scanner.settings import ScannerSettings
from schemas.broker import BrokerSettings, Producer
from schemas.clock import now_ms
from schemas.messages import Message, ModelsPromoted, ScannerAnnounced
from schemas.topics import IMAGES_DEAD, SCANNERS, VERDICTS
from tests.scanners import KEYRING, RED_POLICY, Observed, jpeg, observing, submit, submitted, uncommitted
from tests.unit.scanner.stub_models import RedModel

pytestmark = pytest.mark.kafka

GROUP = "fediwarden-scanner"
RED, BOTH = {"red"}, {"red", "second"}


class SecondModel(RedModel):
    name = "second"
    id = "second-1"


def load(names: Sequence[str]) -> list[Model]:
    return [{"red": RedModel, "second": SecondModel}[name]() for name in names]


def check(names: Sequence[str]) -> None:
    if "elsewhere" in names:
        raise ModelMissing("the weights of 'elsewhere' are not at /models; run: fediwarden models fetch elsewhere")


async def keep_running(broker: BrokerSettings, stop: asyncio.Event, instance: str) -> int:
    """What a supervisor does; returns how often it was asked to start the scanner again."""
    settings = ScannerSettings(models=("red",), announce_s=0.2, instance=instance, session_timeout_s=3.0)
    again = 0
    while await serve(settings, broker, KEYRING, stop, policy=RED_POLICY, shelf=Shelf(load, check)):
        again += 1
    return again


@contextlib.asynccontextmanager
async def images_coming_in(producer: Producer) -> AsyncIterator[list[str]]:
    sent: list[str] = []

    async def send() -> None:
        while True:
            image = submitted(f"image-{len(sent)}", jpeg(((len(sent) * 37) % 256, 0, 0)))
            await submit(producer, image)
            sent.append(image.scan_id)
            await asyncio.sleep(0.03)

    sending = asyncio.create_task(send())
    try:
        yield sent
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


def promotion(*models: str) -> ModelsPromoted:
    return ModelsPromoted(group=GROUP, models=models, replaced=("red",), promoted_by="test", promoted_at=now_ms())


def most_away(announcements: Sequence[Message]) -> int:
    """The most scanners that had left to come back, and were not back, at any one time."""
    away: set[str] = set()
    most = 0
    for said in announcements:
        assert isinstance(said, ScannerAnnounced)
        if said.leaving and said.changing:
            away.add(said.instance)
        elif not said.leaving:
            away.discard(said.instance)
        most = max(most, len(away))
    return most


def test_two_scanners_take_up_what_is_promoted_one_after_the_other_and_judge_every_image(
    fresh_kafka: BrokerSettings,
) -> None:
    kafka = {"bootstrap_servers": fresh_kafka.bootstrap_servers, "topic_prefix": fresh_kafka.topic_prefix}
    settings = load_settings({"kafka": kafka, "scanner": {"models": ["red"]}})

    async def roll_out(message: ModelsPromoted | None, wanted: set[str], within_s: float) -> list[str]:
        steps: list[str] = []
        assert await promote(fresh_kafka, GROUP, message, sorted(wanted), within_s=within_s, on_step=steps.append)
        return steps

    async def scenario() -> tuple[Observed, list[str], list[int], list[str]]:
        stop = asyncio.Event()
        async with observing(fresh_kafka, (VERDICTS, SCANNERS, IMAGES_DEAD)) as (observed, producer):
            scanners = [asyncio.create_task(keep_running(fresh_kafka, stop, name)) for name in ("one", "two")]
            await observed.until(lambda: {each.instance for each in observed.announcements} == {"one", "two"})
            async with images_coming_in(producer) as sent:
                await observed.until(lambda: len(observed.verdicts) > 5)
                with pytest.raises(RolloutIncomplete, match="judges with red"):
                    await roll_out(promotion("red", "elsewhere"), {"red", "elsewhere"}, 1.5)
                assert not any(each.changing or each.leaving for each in observed.announcements)

                steps = await roll_out(promotion("red", "second"), BOTH, 60)
                seen = len(observed.verdicts)
                await observed.until(lambda: len(observed.verdicts) > seen + 20)
                latest = list(observed.verdicts.values())[-5:]
                assert {frozenset(each.models) for each in latest} == {frozenset(BOTH)}
                assert (await read_promoted(fresh_kafka, client_id="test")).of(GROUP) is not None
                evidence = await find_evidence(fresh_kafka, "second", "second-1", since_ms=0, at_ms=now_ms())
                assert evidence.has_judged and evidence.comparison.compared == 0
                differs, _, *behind = await examine_promotion(settings)
                assert (differs.health, behind) == (Health.WARN, [])
                assert 'scanner.models = ["red", "second"]' in differs.remedy

                await roll_out(None, RED, 60)
                assert (await read_promoted(fresh_kafka, client_id="test")).of(GROUP) is None
            await observed.until(lambda: len(observed.verdicts) == len(sent))
            stop.set()
            again = list(await asyncio.gather(*scanners))
            assert await uncommitted(fresh_kafka) == 0
            return observed, sent, again, steps

    observed, sent, again, steps = asyncio.run(scenario())
    assert observed.verdicts.keys() == set(sent)
    assert observed.failures == []
    assert again == [2, 2]
    assert most_away(observed.messages(SCANNERS)) == 1
    assert sum("judges with red, second" in step for step in steps) == 2
    assert sum("has left" in step for step in steps) <= 2
