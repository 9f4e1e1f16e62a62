"""Models that score by rule, for the tests of everything around models."""

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from scanner.models.model import Features, Prepared, Probabilities


class RedModel:
    """Scores how red a picture is, 0 to 1; `spoil` may raise, or give other scores, for a batch of mean colours."""

    name = "red"
    id = "red-1"
    labels = ("red",)
    device = "cpu"

    def __init__(self, spoil: Callable[[Sequence[Prepared]], Probabilities | None] | None = None) -> None:
        self._spoil = spoil
        self.batches: list[int] = []

    def prepare(self, image: Image.Image) -> Prepared:
        return np.asarray(image).reshape(-1, 3).mean(axis=0)

    def infer(self, batch: Sequence[Prepared]) -> Probabilities:
        self.batches.append(len(batch))
        spoilt = self._spoil(batch) if self._spoil else None
        if spoilt is not None:
            return spoilt
        return np.array([[colour[0] / 255.0] for colour in batch], dtype=np.float32)


class WordModel:
    """Vectors of three numbers: a frame's is its mean colour, a text names an axis. `spoil` is as `RedModel`'s."""

    name = "words"
    id = "words-1"
    device = "cpu"
    dimensions = 3

    def __init__(self, spoil: Callable[[Sequence[Prepared]], Features | None] | None = None) -> None:
        self._spoil = spoil
        self.asked: list[Sequence[str]] = []

    def prepare(self, image: Image.Image) -> Prepared:
        return np.asarray(image).reshape(-1, 3).mean(axis=0)

    def embed(self, batch: Sequence[Prepared]) -> Features:
        spoilt = self._spoil(batch) if self._spoil else None
        if spoilt is not None:
            return spoilt
        return np.stack([colour / np.linalg.norm(colour) for colour in batch]).astype(np.float32)

    def embed_texts(self, texts: Sequence[str]) -> Features:
        self.asked.append(texts)
        axes = {"x": [1, 0, 0], "y": [0, 1, 0], "-x": [-1, 0, 0]}
        return np.array([axes[text] for text in texts], dtype=np.float32)


def is_green(colour: Prepared) -> bool:
    """Whether a mean colour is the one that tests use for a picture that spoils a model."""
    return bool(colour[1] > 200 and colour[0] < 60)
