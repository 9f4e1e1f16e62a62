"""A real scanner with microclip on a real Apache Kafka: concept x concept -> reject, and the feature vectors."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import numpy as np
import pytest

from scanner.concepts import embed_concepts
from scanner.policy import parse_policy
from scanner.service import serve
from scanner.settings import ScannerSettings
from schemas.broker import BrokerSettings
from schemas.messages import Decision, FeaturesExtracted
from schemas.topics import FEATURES, IMAGES_ARCHIVE
from tests.microclip.shapes import LABELS, draw_shape, jpeg_of
from tests.models import microclip, microclip_settings
from tests.scanners import KEYRING, OUTPUTS, observing, submit, submitted, uncommitted

pytestmark = pytest.mark.kafka

TEXT = """
[policy]
name = "no-red-triangles"
models = ["microclip"]

[[concept]]
model = "microclip"
name = "red-triangle"
prompts = ["a photo of a red triangle", "a red triangle"]

[[concept]]
model = "microclip"
name = "red"
prompts = ["a red shape", "something red"]

[[rule]]
name = "red-triangle"
says = "It looks like a red triangle, and like something red."
decision = "reject"
when = { all = [{ score = "microclip/red-triangle", at_least = 0.6 }, { score = "microclip/red", at_least = 0.1 }] }
"""
NO_RED_TRIANGLES = parse_policy(TEXT, (), source="test", embedders=("microclip",))


@contextlib.asynccontextmanager
async def judging(broker: BrokerSettings, **settings: object) -> AsyncIterator[None]:
    """A scanner with microclip and the policy above in this process; what it raises is raised at the end."""
    stop = asyncio.Event()
    given = ScannerSettings.model_validate({**microclip_settings(), "announce_s": 0.2, **settings})
    running = asyncio.create_task(serve(given, broker, KEYRING, stop, policy=NO_RED_TRIANGLES))
    try:
        yield
    finally:
        stop.set()
        await running


def test_red_triangles_are_rejected_and_other_shapes_and_colours_are_not(fresh_kafka: BrokerSettings) -> None:
    bad = {
        f"bad-{seed}": jpeg_of(draw_shape("red", "triangle", 9000 + seed, width=512, height=400)) for seed in range(6)
    }
    others = [label for label in LABELS if label != ("red", "triangle")]
    good = {
        f"{colour}-{shape}": jpeg_of(draw_shape(colour, shape, 9100, width=400, height=512)) for colour, shape in others
    }

    async def scenario() -> None:
        async with observing(fresh_kafka, (*OUTPUTS, FEATURES)) as (observed, producer):
            async with judging(fresh_kafka):
                await submit(producer, *(submitted(name, picture) for name, picture in {**bad, **good}.items()))
                await observed.until(lambda: len(observed.verdicts) == len(bad) + len(good))
            assert await uncommitted(fresh_kafka) == 0
            assert observed.failures == []
        rejected = {name for name, verdict in observed.verdicts.items() if verdict.decision is Decision.REJECT}
        assert rejected == set(bad)
        verdict = observed.verdicts["bad-0"]
        assert [(rule.name, rule.frame) for rule in verdict.rules] == [("red-triangle", 0)]
        assert set(verdict.scores) == {f"microclip/{name}" for name in ("red-triangle", "red")}
        assert verdict.models == {"microclip": microclip().id}
        assert verdict.policy == NO_RED_TRIANGLES.id
        archived = {message.scan_id for message in observed.messages(IMAGES_ARCHIVE)}  # type: ignore[attr-defined]
        assert archived == set(good)

    asyncio.run(scenario())


def test_feature_vectors_of_every_frame_are_published_and_give_the_scores_again(fresh_kafka: BrokerSettings) -> None:
    shown = [("red", "triangle"), ("blue", "star"), ("white", "circle")]
    frames = [jpeg_of(draw_shape(*label, 9200, width=300, height=300)) for label in shown]

    async def scenario() -> None:
        image = submitted("animated", *frames)
        async with (
            observing(fresh_kafka, (*OUTPUTS, FEATURES)) as (observed, producer),
            judging(fresh_kafka),
        ):
            await submit(producer, image)
            await observed.until(lambda: observed.verdicts and observed.messages(FEATURES))
        (record,) = [record for record in observed.records if record.topic == FEATURES]
        features = record.message
        assert isinstance(features, FeaturesExtracted)
        assert (record.key, features.sha256, features.tenant) == (image.sha256, image.sha256, "default")
        assert (features.model, features.model_id) == ("microclip", microclip().id)
        assert features.dimensions == microclip().dimensions
        vectors = np.stack([np.frombuffer(vector, "<f2") for vector in features.vectors]).astype(np.float32)
        assert vectors.shape == (3, features.dimensions)
        verdict = observed.verdicts["animated"]
        again = embed_concepts({"microclip": microclip()}, NO_RED_TRIANGLES.concepts)
        scores = NO_RED_TRIANGLES.judge(again.score([{}] * 3, {"microclip": vectors})).scores
        assert scores == pytest.approx(verdict.scores, abs=2e-3)
        assert verdict.decision is Decision.REJECT

    asyncio.run(scenario())


def test_feature_vectors_can_be_switched_off(fresh_kafka: BrokerSettings) -> None:
    async def scenario() -> None:
        async with observing(fresh_kafka, (*OUTPUTS, FEATURES)) as (observed, producer):
            async with judging(fresh_kafka, features=False):
                await submit(producer, submitted("one", jpeg_of(draw_shape("blue", "star", 1))))
                await observed.until(lambda: observed.verdicts)
            # The offset is committed: what belongs to the image has been written.
            assert await uncommitted(fresh_kafka) == 0
            assert observed.messages(FEATURES) == []

    asyncio.run(scenario())
