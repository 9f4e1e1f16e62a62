"""The inference thread: scores find their image, one bad image costs nobody else, a broken model stops everything."""

import asyncio
import threading
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from scanner.decoding import PreparedImage
from scanner.failures import FailureReason, ImageSuspected, ImageUnjudgeable, ModelGone
from scanner.inference import ImageScores, Inference
from scanner.models.model import ModelBroken, ModelHung, Prepared, Probabilities
from scanner.scoring import ScoresUnusable, embed_frames, score_frames, score_labels
from tests.unit.scanner.stub_models import RedModel, WordModel, is_green

GREEN = (0, 255, 0)


def image_of(model: RedModel | WordModel, *colours: tuple[int, int, int]) -> PreparedImage:
    return PreparedImage(tuple((model.prepare(Image.new("RGB", (4, 4), colour)),) for colour in colours), 1.0)


def score_all(
    model: RedModel | WordModel, images: Sequence[PreparedImage], batch: int = 8
) -> list[ImageScores | BaseException]:
    async def run() -> list[ImageScores | BaseException]:
        inference = Inference([model], batch=batch, max_wait_s=0.005, hang_s=60.0)
        running = asyncio.create_task(inference.run())
        for _ in images:
            inference.expect()
        outcomes = asyncio.gather(*(inference.score(image) for image in images), return_exceptions=True)
        await asyncio.wait([running, outcomes], return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            outcomes.cancel()
            await asyncio.gather(outcomes, return_exceptions=True)
            await running
        inference.close()
        await running
        return await outcomes

    return asyncio.run(run())


def test_each_image_gets_the_scores_of_its_own_frames() -> None:
    model = RedModel()
    images = [image_of(model, *[(red, 0, 0)] * (1 + red % 3)) for red in range(0, 255, 15)]
    outcomes = score_all(model, images)
    for red, outcome in zip(range(0, 255, 15), outcomes, strict=True):
        assert isinstance(outcome, ImageScores)
        assert outcome.frames == [{"red/red": pytest.approx(red / 255)}] * (1 + red % 3)
    assert max(model.batches) <= 8
    assert len(model.batches) < len(images)


def test_an_image_with_more_frames_than_a_batch_is_scored_in_parts() -> None:
    model = RedModel()
    (outcome,) = score_all(model, [image_of(model, *[(red, 0, 0) for red in (0, 51, 102, 153, 204)])], batch=2)
    assert isinstance(outcome, ImageScores)
    assert [round(frame["red/red"], 3) for frame in outcome.frames] == [0.0, 0.2, 0.4, 0.6, 0.8]
    assert model.batches == [2, 2, 1]


def raise_on_green(batch: Sequence[Prepared]) -> Probabilities | None:
    if any(is_green(colour) for colour in batch):
        raise ArithmeticError("green")
    return None


def nan_on_green(batch: Sequence[Prepared]) -> Probabilities | None:
    scores = np.array([[np.nan if is_green(colour) else 0.5] for colour in batch], dtype=np.float32)
    return scores


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [(raise_on_green, FailureReason.MODEL_FAILED), (nan_on_green, FailureReason.SCORES_INVALID)],
)
def test_the_one_image_that_spoils_a_batch_is_found_and_the_others_are_scored(
    spoil: object, reason: FailureReason
) -> None:
    model = RedModel(spoil)  # type: ignore[arg-type]
    colours = [(255, 0, 0), (128, 0, 0), GREEN, (64, 0, 0)]
    outcomes = score_all(model, [image_of(model, colour) for colour in colours])
    assert [isinstance(outcome, ImageScores) for outcome in outcomes] == [True, True, False, True]
    assert isinstance(outcomes[2], ImageUnjudgeable)
    assert outcomes[2].reason is reason


def test_a_model_that_fails_on_plain_grey_too_is_broken_and_blames_no_image() -> None:
    def break_down(batch: Sequence[Prepared]) -> Probabilities | None:
        raise RuntimeError("out of memory")

    model = RedModel(break_down)
    with pytest.raises(ModelBroken, match="model 'red' fails on a plain grey picture: out of memory"):
        score_all(model, [image_of(model, (255, 0, 0))])


def test_a_model_that_does_not_come_back_ends_the_inference_and_brings_its_batch_under_suspicion() -> None:
    release = threading.Event()

    def hang_on_green(batch: Sequence[Prepared]) -> Probabilities | None:
        if any(is_green(colour) for colour in batch):
            release.wait()
        return None

    async def run() -> None:
        model = RedModel(hang_on_green)
        inference = Inference([model], batch=2, max_wait_s=1.0, hang_s=0.2)
        for _ in range(5):
            inference.expect()
        images = [image_of(model, colour) for colour in ((1, 0, 0), (2, 0, 0), (3, 0, 0), GREEN, (4, 0, 0))]
        scores = [asyncio.create_task(inference.score(image)) for image in images]
        with pytest.raises(ModelHung, match=r"0\.2 s"):
            await inference.run()
        outcomes = await asyncio.gather(*scores, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [*[ImageScores] * 2, *[ImageSuspected] * 2, ModelGone]
        inference.expect()
        with pytest.raises(ModelGone):  # for what was still being decoded
            await inference.score(images[0])
        release.set()

    asyncio.run(run())


def test_a_suspect_has_the_model_to_itself() -> None:
    async def run() -> list[int]:
        model = RedModel()
        inference = Inference([model], batch=8, max_wait_s=1.0, hang_s=60.0)
        for _ in range(6):
            inference.expect()
        images = [image_of(model, (red, 0, 0)) for red in range(6)]
        scores = [asyncio.create_task(inference.score(image, alone=red == 2)) for red, image in enumerate(images)]
        running = asyncio.create_task(inference.run())
        await asyncio.gather(*scores)
        inference.close()
        await running
        return model.batches

    assert asyncio.run(run()) == [2, 1, 3]


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ([[0.5, 0.5]], "shape"),
        ([0.5], "shape"),
        ([[float("nan")]], "no number"),
        ([[float("inf")]], "no number"),
        ([[1.5]], "outside 0 to 1"),
        ([[-0.5]], "outside 0 to 1"),
    ],
)
def test_scores_that_are_no_probabilities_are_refused(scores: list[list[float]], said: str) -> None:
    model = RedModel(lambda _: np.array(scores, dtype=np.float32))
    with pytest.raises(ScoresUnusable, match=said):
        score_frames([model], [(np.zeros(3),)])


def test_scores_beyond_the_ends_by_rounding_are_cut() -> None:
    model = RedModel(lambda _: np.array([[1.00001]], dtype=np.float32))
    assert score_frames([model], [(np.zeros(3),)]) == [{"red/red": 1.0}]
    assert score_labels([model]) == ("red/red",)


def test_an_image_that_breaks_a_model_which_had_worked_is_suspected() -> None:
    broken: list[bool] = []

    def spoil(batch: Sequence[Prepared]) -> None:
        if broken or any(is_green(colour) for colour in batch):
            broken.append(True)
            raise RuntimeError("the device is gone")

    async def run() -> None:
        model = RedModel(spoil)
        inference = Inference([model], batch=1, max_wait_s=0.0, hang_s=60.0)
        running = asyncio.create_task(inference.run())
        inference.expect()
        assert isinstance(await inference.score(image_of(model, (9, 0, 0))), ImageScores)
        for _ in range(2):
            inference.expect()
        suspect = asyncio.create_task(inference.score(image_of(model, GREEN)))
        behind = asyncio.create_task(inference.score(image_of(model, (8, 0, 0))))
        outcomes = await asyncio.gather(suspect, behind, running, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [ImageSuspected, ModelGone, ModelBroken]

    asyncio.run(run())


def test_each_image_gets_the_vectors_of_its_own_frames() -> None:
    model = WordModel()
    images = [image_of(model, (200, 0, 0)), image_of(model, (0, 200, 0), (0, 0, 200)), image_of(model, (90, 120, 0))]
    outcomes = score_all(model, images)
    vectors = [outcome.features["words"].tolist() for outcome in outcomes if isinstance(outcome, ImageScores)]
    assert vectors == [[[1, 0, 0]], [[0, 1, 0], [0, 0, 1]], [[pytest.approx(0.6), pytest.approx(0.8), 0]]]
    assert [outcome.frames for outcome in outcomes if isinstance(outcome, ImageScores)] == [[{}], [{}, {}], [{}]]


def test_an_embedder_whose_device_is_lost_is_broken_and_blames_no_image() -> None:
    def lose(batch: Sequence[Prepared]) -> None:
        raise RuntimeError("CUDA error: unspecified launch failure")

    model = WordModel(lose)
    with pytest.raises(ModelBroken, match="model 'words' fails on a plain grey picture: CUDA error"):
        score_all(model, [image_of(model, (255, 0, 0))])


@pytest.mark.parametrize(
    ("vectors", "said"),
    [
        ([[1.0, 0.0]], "shape"),
        ([1.0, 0.0, 0.0], "shape"),
        ([[float("nan"), 0.0, 0.0]], "is none"),
        ([[0.0, 0.0, 0.0]], "length is not 1"),
        ([[2.0, 0.0, 0.0]], "length is not 1"),
    ],
)
def test_vectors_that_are_no_unit_vectors_are_refused(vectors: list[list[float]], said: str) -> None:
    model = WordModel(lambda _: np.array(vectors, dtype=np.float32))
    with pytest.raises(ScoresUnusable, match=said):
        embed_frames([model], [(np.ones(3),)])


def test_an_image_behind_is_scored_in_parts_and_live_ones_have_their_turn_between_them() -> None:
    seen: list[str] = []

    def note(batch: Sequence[Prepared]) -> None:
        seen.append("live" if batch[0][0] > 200 else "behind")

    async def run() -> tuple[ImageScores, ImageScores]:
        model = RedModel(note)
        inference = Inference([model, WordModel()], batch=2, max_wait_s=1.0, hang_s=60.0)
        frames = [(red, 1, 1) for red in (10, 20, 30, 40, 50)]
        animation = PreparedImage(
            tuple((model.prepare(Image.new("RGB", (4, 4), colour)),) * 2 for colour in frames), 1.0
        )
        live = PreparedImage(((np.array([255.0, 0.0, 0.0]),) * 2,), 1.0)
        behind = asyncio.create_task(inference.score_behind(animation))
        running = asyncio.create_task(inference.run())
        while not seen:
            await asyncio.sleep(0)
        inference.expect()
        outcomes = await asyncio.gather(behind, inference.score(live))
        inference.close()
        await running
        return outcomes

    behind, live = asyncio.run(run())
    assert seen == ["behind", "live", "behind", "behind"]
    assert [frame["red/red"] for frame in behind.frames] == [pytest.approx(red / 255) for red in (10, 20, 30, 40, 50)]
    assert behind.features["words"].shape == (5, 3)
    assert [frame["red/red"] for frame in live.frames] == [1.0]


def test_images_behind_share_batches_but_for_those_that_are_to_be_alone() -> None:
    async def run() -> list[int]:
        model = RedModel()
        inference = Inference([model], batch=4, max_wait_s=1.0, hang_s=60.0)
        images = [image_of(model, (red, 0, 0)) for red in range(6)]
        scores = [asyncio.create_task(inference.score_behind(image, alone=red < 2)) for red, image in enumerate(images)]
        await asyncio.sleep(0)
        running = asyncio.create_task(inference.run())
        await asyncio.gather(*scores)
        inference.close()
        await running
        return model.batches

    assert asyncio.run(run()) == [1, 1, 4]
