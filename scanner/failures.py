"""Why an image cannot be judged: the reasons that images.dead carries."""

from enum import StrEnum


class FailureReason(StrEnum):
    """One word for each way to fail; the codec's own reasons (schema-unknown and others) join them."""

    NOT_AN_IMAGE = "not-an-image"
    """The record is a valid message, but not of the kind that belongs in this topic."""
    UNDECRYPTABLE = "undecryptable"
    """No key opens the frames."""
    FRAMES_INVALID = "frames-invalid"
    """The frames are no JPEGs that decode, or not as many as announced."""
    MODEL_FAILED = "model-failed"
    """A model raised on this image, and works on others."""
    MODEL_HUNG = "model-hung"
    """A model did not come back from this image, several times, the last time with no other image beside it."""
    SCORES_INVALID = "scores-invalid"
    """A model gave no probabilities for this image, and does for others."""
    UNEXPECTED = "unexpected"
    """A fault in the scanner itself; the log has the traceback."""
    UNPUBLISHABLE = "unpublishable"
    """Kafka will never take what was to be published for this image."""


class ImageSuspected(Exception):
    """A model hung or broke on the batch that this image was in; the image may be why, or another, or neither."""


class ModelGone(Exception):
    """A model hung or broke on an image before it was this one's turn: another scanner is to judge it."""


class ImageUnjudgeable(Exception):
    """This image, and no other, cannot be judged. It goes to images.dead and its partition moves on."""

    def __init__(self, reason: FailureReason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
