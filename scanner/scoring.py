"""From prepared frames to checked scores."""

from collections.abc import Iterator, Sequence

import numpy as np

from scanner.models.model import (
    Classifier,
    Embedder,
    Features,
    Model,
    Prepared,
    Probabilities,
    is_classifier,
    is_embedder,
)

PreparedFrame = tuple[Prepared, ...]
"""One frame, prepared for each model in the models' order."""

FrameScores = dict[str, float]
"""The scores of one frame, by ``model/label``."""

_ROUNDING = 1e-3


_UNIT_TOLERANCE = 1e-2


class ScoresUnusable(Exception):
    """A model gave something other than one probability per frame and label, or one unit vector per frame."""


def score_labels(models: Sequence[Model]) -> tuple[str, ...]:
    """Return the ``model/label`` names of the classifiers' scores, in order."""
    return tuple(f"{model.name}/{label}" for model in models if is_classifier(model) for label in model.labels)


def score_frames(models: Sequence[Model], frames: Sequence[PreparedFrame], *, at_most: int = 8) -> list[FrameScores]:
    """Run the classifiers among `models` over the frames, `at_most` at a time, and return each frame's scores.

    Raises `ScoresUnusable` for wrong shapes, NaN and values outside 0 to 1 (by more than rounding), and whatever a
    model raises.
    """
    columns = [np.empty((len(frames), 0), dtype=np.float32)]
    for position, model in enumerate(models):
        if is_classifier(model):
            parts = [_checked(model, model.infer(part), len(part)) for part in _parts(frames, position, at_most)]
            columns.append(np.concatenate(parts))
    names = score_labels(models)
    return [dict(zip(names, row, strict=True)) for row in np.concatenate(columns, axis=1).tolist()]


def embed_frames(models: Sequence[Model], frames: Sequence[PreparedFrame], *, at_most: int = 8) -> dict[str, Features]:
    """Run the embedders among `models` over the frames, `at_most` at a time; return each one's vectors by its name.

    Raises `ScoresUnusable` for what are no unit vectors, and whatever a model raises.
    """
    return {
        model.name: np.concatenate(
            [_checked_features(model, model.embed(part), len(part)) for part in _parts(frames, position, at_most)]
        )
        for position, model in enumerate(models)
        if is_embedder(model)
    }


def _parts(frames: Sequence[PreparedFrame], position: int, at_most: int) -> Iterator[list[Prepared]]:
    for start in range(0, len(frames), at_most):
        yield [frame[position] for frame in frames[start : start + at_most]]


def _checked(model: Classifier, scores: Probabilities, frames: int) -> Probabilities:
    wanted = (frames, len(model.labels))
    if scores.shape != wanted:
        raise ScoresUnusable(f"model {model.name!r} gave scores of shape {scores.shape}, not {wanted}")
    if not np.isfinite(scores).all():
        raise ScoresUnusable(f"model {model.name!r} gave a score that is no number")
    if scores.min() < -_ROUNDING or scores.max() > 1.0 + _ROUNDING:
        raise ScoresUnusable(f"model {model.name!r} gave a score outside 0 to 1")
    return scores.clip(0.0, 1.0)


def _checked_features(model: Embedder, features: Features, frames: int) -> Features:
    wanted = (frames, model.dimensions)
    if features.shape != wanted:
        raise ScoresUnusable(f"model {model.name!r} gave vectors of shape {features.shape}, not {wanted}")
    if not np.isfinite(features).all():
        raise ScoresUnusable(f"model {model.name!r} gave a vector that is none")
    if (np.abs(np.linalg.norm(features, axis=1) - 1.0) > _UNIT_TOLERANCE).any():
        raise ScoresUnusable(f"model {model.name!r} gave a vector whose length is not 1")
    return features
