"""From prepared frames to checked scores."""

from collections.abc import Sequence

import numpy as np

from scanner.models.model import Model, Prepared, Probabilities

PreparedFrame = tuple[Prepared, ...]
"""One frame, prepared for each model in the models' order."""

FrameScores = dict[str, float]
"""The scores of one frame, by ``model/label``."""

_ROUNDING = 1e-3


class ScoresUnusable(Exception):
    """A model gave something other than one probability per frame and label."""


def score_labels(models: Sequence[Model]) -> tuple[str, ...]:
    """Return the ``model/label`` names of all scores, in order."""
    return tuple(f"{model.name}/{label}" for model in models for label in model.labels)


def score_frames(models: Sequence[Model], frames: Sequence[PreparedFrame], *, at_most: int = 8) -> list[FrameScores]:
    """Run every model over the frames, `at_most` at a time, and return each frame's scores.

    Raises `ScoresUnusable` for wrong shapes, NaN and values outside 0 to 1 (by more than rounding), and whatever a
    model raises.
    """
    columns = []
    for position, model in enumerate(models):
        parts = [
            _checked(model, model.infer(prepared), len(prepared))
            for prepared in (
                [frame[position] for frame in frames[start : start + at_most]]
                for start in range(0, len(frames), at_most)
            )
        ]
        columns.append(np.concatenate(parts))
    names = score_labels(models)
    return [dict(zip(names, row, strict=True)) for row in np.concatenate(columns, axis=1).tolist()]


def _checked(model: Model, scores: Probabilities, frames: int) -> Probabilities:
    wanted = (frames, len(model.labels))
    if scores.shape != wanted:
        raise ScoresUnusable(f"model {model.name!r} gave scores of shape {scores.shape}, not {wanted}")
    if not np.isfinite(scores).all():
        raise ScoresUnusable(f"model {model.name!r} gave a score that is no number")
    if scores.min() < -_ROUNDING or scores.max() > 1.0 + _ROUNDING:
        raise ScoresUnusable(f"model {model.name!r} gave a score outside 0 to 1")
    return scores.clip(0.0, 1.0)
