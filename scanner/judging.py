"""From an image's frames to what a policy makes of them: decode, score, judge."""

from collections.abc import Callable
from dataclasses import dataclass

from scanner.decoding import Decoder, PreparedImage
from scanner.failures import FailureReason, ImageUnjudgeable
from scanner.inference import ImageScores, Inference
from scanner.policy import Judgement, Policy, media_kind
from scanner.reloading import InForce
from schemas.broker import Received
from schemas.messages import ImageSubmitted
from schemas.telemetry import tracing

PolicyOf = Callable[[str], InForce]
"""What judges the images of a tenant, by its name. Asked once the scores are there."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What came of an image, and what it came from."""

    judgement: Judgement
    policy: Policy
    image: PreparedImage
    scores: ImageScores

    @property
    def rounded_scores(self) -> dict[str, float]:
        """The highest scores of all frames, as messages carry them."""
        return {label: round(score, 4) for label, score in self.judgement.scores.items()}


class Judging:
    """Judges images with one decoder and one inference: `behind` all others where nobody waits for them."""

    def __init__(self, decoder: Decoder, inference: Inference, *, behind: bool = False) -> None:
        self._decoder = decoder
        self._inference = inference
        self._behind = behind

    async def judge(self, message: ImageSubmitted, policy_of: PolicyOf, *, alone: bool) -> Judged:
        """Judge an image, which goes to the models `alone` or in a batch.

        Raises `ImageUnjudgeable`; `ImageSuspected` when a model hung or broke on its batch, `ModelGone` when it did on
        another before; `ModelHung` when it has not been decoded and prepared in time: then a thread is lost, and the
        process with it.
        """
        image, scores = await (self._score_behind if self._behind else self._score)(message, alone)
        policy, concepts = policy_of(message.tenant)
        frames = concepts.score(scores.frames, scores.features)
        judgement = policy.judge(frames, media_kind(message.media_type, len(message.frames)))
        return Judged(judgement, policy, image, scores)

    async def _score(self, message: ImageSubmitted, alone: bool) -> tuple[PreparedImage, ImageScores]:
        self._inference.expect()
        try:
            with tracing.span("decode"):
                image = await self._decoder.decode(message)
        except BaseException:
            self._inference.withdraw()
            raise
        with tracing.span("infer") as span:
            scores = await self._inference.score(image, alone=alone)
            span.set_attribute("fediwarden.infer_ms", round(scores.infer_ms, 2))
        return image, scores

    async def _score_behind(self, message: ImageSubmitted, alone: bool) -> tuple[PreparedImage, ImageScores]:
        image = await self._decoder.decode(message)
        return image, await self._inference.score_behind(image, alone=alone)


def image_in(received: Received) -> ImageSubmitted | None:
    """The image in a record that has no fault; None for a tombstone. Raises `ImageUnjudgeable` for another message."""
    message = received.message
    if message is None or isinstance(message, ImageSubmitted):
        return message
    raise ImageUnjudgeable(
        FailureReason.NOT_AN_IMAGE, f"a {message.SCHEMA} message stands in topic {received.topic.name}"
    )
