"""The one inference thread, fed with micro-batches; finds the image that makes a model fail."""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import structlog

from scanner.batches import Batcher
from scanner.decoding import PreparedImage
from scanner.failures import FailureReason, ImageSuspected, ImageUnjudgeable, ModelGone
from scanner.hanging import comes_back
from scanner.metrics import ScannerMetrics
from scanner.models.loading import warm
from scanner.models.model import Features, Model, ModelBroken, ModelHung
from scanner.scoring import FrameScores, PreparedFrame, ScoresUnusable, embed_frames, score_frames

log = structlog.get_logger("scanner.inference")

Argument = TypeVar("Argument")
Result = TypeVar("Result")

THREAD_NAME = "inference"


@dataclass(frozen=True, slots=True)
class ImageScores:
    """What the models say of an image: the classifiers' scores of each frame, the embedders' vectors by model name.

    `infer_ms` is how long the image's batch took, `ended` when (perf_counter seconds).
    """

    frames: list[FrameScores]
    features: dict[str, Features]
    infer_ms: float
    ended: float


@dataclass(slots=True)
class _Waiting:
    image: PreparedImage
    alone: bool
    scores: asyncio.Future[ImageScores] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Inference:
    """Scores images in one thread, `batch` frames at a time. `run` must be running for `score` to return.

    `expect` announces an image that is being decoded, `withdraw` that it will not come: so that a batch can wait for
    what is about to arrive (at most `max_wait_s`) and never waits otherwise. What is scored behind waits until nothing
    else is there or announced: whoever comes meanwhile waits for one batch of it, at most. A call into a model that
    takes longer than `hang_s` seconds is given up, and with it this object: the thread is lost.
    """

    def __init__(
        self,
        models: Sequence[Model],
        *,
        batch: int,
        max_wait_s: float,
        hang_s: float,
        metrics: ScannerMetrics | None = None,
    ) -> None:
        self._models = tuple(models)
        self._metrics = metrics or ScannerMetrics()
        self._batch = batch
        self._batcher: Batcher[_Waiting] = Batcher(
            max_weight=batch,
            max_wait_s=max_wait_s,
            weigh=lambda waiting: batch if waiting.alone else len(waiting.image.frames),
        )
        self._hang_s = hang_s
        self._worked = False
        self._gone = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=THREAD_NAME)
        self.expect = self._batcher.expect
        self.withdraw = self._batcher.withdraw

    async def score(self, image: PreparedImage, *, alone: bool = False) -> ImageScores:
        """Score an announced image, `alone` or in a batch.

        Raises `ImageUnjudgeable`, `ImageSuspected` or `ModelGone`.
        """
        if self._gone:
            self._batcher.withdraw()
            raise ModelGone
        waiting = _Waiting(image, alone)
        self._batcher.put(waiting)
        return await waiting.scores

    async def score_behind(self, image: PreparedImage, *, alone: bool = False) -> ImageScores:
        """As `score`, for an image that nobody waits for and that was not announced."""
        starts = range(0, len(image.frames), self._batch)  # in parts, for between two of them others have their turn
        parts = [_Waiting(PreparedImage(image.frames[at : at + self._batch], 0.0), alone) for at in starts]
        for part in parts:
            self._batcher.put_behind(part)
        return _joined(await asyncio.gather(*(part.scores for part in parts)))

    async def run(self) -> None:
        """Take batches until `close`. Raises `ModelBroken` or `ModelHung` when a model stops working altogether."""
        batch: list[_Waiting] = []
        try:
            while batch := await self._batcher.take():
                await self._score_batch(batch)
        except (ModelBroken, ModelHung) as error:
            # One that never worked is nobody's doing but its own: what waits stays where it is, for other scanners.
            if self._worked or isinstance(error, ModelHung):
                self._let_go(batch)
            raise
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

    def close(self) -> None:
        """Score what is waiting, then let `run` end."""
        self._batcher.close()

    def _let_go(self, batch: list[_Waiting]) -> None:
        """Let nobody wait for a model that is gone."""
        self._gone = True
        for waiting in [*batch, *self._batcher.give_up()]:
            if not waiting.scores.done():
                waiting.scores.set_exception(ModelGone())

    async def _score_batch(self, batch: list[_Waiting]) -> None:
        try:
            await self._score(batch)
        except ModelHung:
            for waiting in batch:
                if not waiting.scores.done():
                    waiting.scores.set_exception(ImageSuspected())
            raise
        except Exception as error:  # noqa: BLE001  (a model may raise anything)
            if len(batch) == 1:
                await self._blame(batch[0], error)
                return
            log.warning("batch_failed", images=len(batch), error=repr(error), then="one by one")
            for waiting in batch:
                await self._score_batch([waiting])

    async def _score(self, batch: list[_Waiting]) -> None:
        frames = [frame for waiting in batch for frame in waiting.image.frames]
        scores, features, milliseconds = await self._in_thread(self._infer, frames)
        self._worked = True
        self._metrics.inference_seconds.observe(milliseconds / 1000)
        self._metrics.batch_frames.observe(len(frames))
        ended = time.perf_counter()
        start = 0
        for waiting in batch:
            end = start + len(waiting.image.frames)
            # The caller may have been cancelled while we worked.
            if not waiting.scores.done():
                its_own = {name: vectors[start:end] for name, vectors in features.items()}
                waiting.scores.set_result(ImageScores(scores[start:end], its_own, milliseconds, ended))
            start = end

    async def _in_thread(self, work: Callable[[Argument], Result], argument: Argument) -> Result:
        call = asyncio.get_running_loop().run_in_executor(self._thread, work, argument)
        if await comes_back(call, within_s=self._hang_s):
            return call.result()
        raise ModelHung(f"a model has not come back for {self._hang_s:g} s (scanner.hang_s)")

    def _infer(self, frames: list[PreparedFrame]) -> tuple[list[FrameScores], dict[str, Features], float]:
        started = time.perf_counter()
        scores = score_frames(self._models, frames, at_most=self._batch)
        features = embed_frames(self._models, frames, at_most=self._batch)
        return scores, features, (time.perf_counter() - started) * 1000.0

    async def _blame(self, waiting: _Waiting, error: Exception) -> None:
        """Decide whether the image or a model is at fault: a model that fails on plain grey is broken.

        Without this, a scanner whose GPU died would send every image to images.dead.
        """
        try:
            for model in self._models:
                await self._in_thread(warm, model)
        except (ModelBroken, ModelHung):
            log.error("model_broken", error=repr(error))
            # It worked until this image came, which may be what broke it: not one scanner after another shall try.
            if self._worked and not waiting.scores.done():
                waiting.scores.set_exception(ImageSuspected())
            raise
        invalid = isinstance(error, ScoresUnusable)
        reason = FailureReason.SCORES_INVALID if invalid else FailureReason.MODEL_FAILED
        if not waiting.scores.done():
            waiting.scores.set_exception(ImageUnjudgeable(reason, f"{type(error).__name__}: {error}"))


def _joined(parts: Sequence[ImageScores]) -> ImageScores:
    """The scores of an image from those of its parts, in order."""
    if len(parts) == 1:
        return parts[0]
    return ImageScores(
        frames=[frame for part in parts for frame in part.frames],
        features={model: np.concatenate([part.features[model] for part in parts]) for model in parts[0].features},
        infer_ms=sum(part.infer_ms for part in parts),
        ended=parts[-1].ended,
    )
