"""What the scanner asks of a model, and how a model gets its id."""

import hashlib
import os
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Prepared = NDArray[Any]
"""One frame as the model wants it, without a batch axis."""

Probabilities = NDArray[np.float32]
"""Shape [frames, labels], each value from 0 to 1."""


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
    """A classifier of single frames.

    `prepare` runs in several decoding threads at once and must not touch shared state. `infer` runs in the one
    inference thread. What `infer` raises, or scores that are no probabilities, cost the image its judgement
    (topic images.dead), never the scanner.
    """

    @property
    def name(self) -> str:
        """The name policies and verdicts use, as in ``safety-s``."""

    @property
    def id(self) -> str:
        """Digest of weights and preprocessing: equal ids give equal scores (to rounding) for equal frames."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the scores. Higher is worse for each: a class for harmless pictures is not a label."""

    @property
    def device(self) -> str:
        """Where it runs: ``cpu`` or ``cuda``."""

    def prepare(self, image: Image.Image) -> Prepared:
        """Turn one RGB picture of any size into the model's input, without a batch axis."""

    def infer(self, batch: Sequence[Prepared]) -> Probabilities:
        """Score prepared frames: shape [len(batch), len(labels)], in order."""


def model_id(weights_sha256: str, preprocessing: str) -> str:
    """Return the id of a model: 16 hex digits of SHA-256 over its weights' digest and preprocessing version.

    `preprocessing` must change whenever `prepare` or the choice of labels would give other scores.
    """
    return hashlib.sha256(f"{weights_sha256}\n{preprocessing}".encode()).hexdigest()[:16]
