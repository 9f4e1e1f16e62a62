"""What the scanner asks of a model, and how a model gets its id."""

import hashlib
import os
from collections.abc import Sequence
from typing import Any, Protocol, TypeGuard

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Prepared = NDArray[Any]
"""One frame as the model wants it, without a batch axis."""

Probabilities = NDArray[np.float32]
"""Shape [frames, labels], each value from 0 to 1."""

Features = NDArray[np.float32]
"""Shape [frames or texts, dimensions], each row of length 1."""


class ModelError(Exception):
    """A model cannot be made ready: unknown, damaged, or the wrong device. The message names the remedy."""


class ModelBroken(Exception):
    """A model that was ready fails on the plainest picture: its device or its memory is gone.

    Not a `ModelError`: no setting is wrong, and a fresh start of the process may mend it.
    """


class ModelHung(Exception):
    """A model does not come back from a call. Its thread cannot be ended: the process must be, at once.

    Not a `ModelError`: no setting is wrong, and a fresh start of the process may mend it.
    """

    exit_code = os.EX_TEMPFAIL


class Model(Protocol):
    """What looks at single frames: a `Classifier` or an `Embedder`.

    `prepare` runs in several decoding threads at once and must not touch shared state. `infer` and `embed` run in the
    one inference thread. What they raise, and what they give that is of no use, costs the image its judgement (topic
    images.dead), never the scanner.
    """

    @property
    def name(self) -> str:
        """The name policies and verdicts use, as in ``safety-s``."""

    @property
    def id(self) -> str:
        """Digest of weights and preprocessing: equal ids give equal scores (to rounding) for equal frames."""

    @property
    def device(self) -> str:
        """Where it runs: ``cpu`` or ``cuda``."""

    def prepare(self, image: Image.Image) -> Prepared:
        """Turn one RGB picture of any size into the model's input, without a batch axis."""


class Classifier(Model, Protocol):
    """A model with scores of its own."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the scores. Higher is worse for each: a class for harmless pictures is not a label."""

    def infer(self, batch: Sequence[Prepared]) -> Probabilities:
        """Score prepared frames: shape [len(batch), len(labels)], in order."""


class Embedder(Model, Protocol):
    """A model that sets pictures beside texts: what it is asked for is a policy's matter (`scanner.concepts`)."""

    @property
    def dimensions(self) -> int:
        """Length of a feature vector."""

    def embed(self, batch: Sequence[Prepared]) -> Features:
        """Return the unit vectors of prepared frames: shape [len(batch), dimensions], in order."""

    def embed_texts(self, texts: Sequence[str]) -> Features:
        """Return the unit vectors of texts: shape [len(texts), dimensions], in order. Blocks for seconds.

        May run in any one thread, beside `embed`. Raises `ModelError`, also for a text that is too long.
        """


def is_embedder(model: Model) -> TypeGuard[Embedder]:
    """Whether a model is an `Embedder`."""
    return hasattr(model, "embed")


def is_classifier(model: Model) -> TypeGuard[Classifier]:
    """Whether a model is a `Classifier`."""
    return hasattr(model, "infer")


def model_id(weights_sha256: str, preprocessing: str) -> str:
    """Return the id of a model: 16 hex digits of SHA-256 over its weights' digest and preprocessing version.

    `preprocessing` must change whenever `prepare` or the choice of labels would give other scores.
    """
    return hashlib.sha256(f"{weights_sha256}\n{preprocessing}".encode()).hexdigest()[:16]
