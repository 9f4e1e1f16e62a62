"""From names in the settings to models that are verified, loaded and warm."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from scanner.models.device import Device
from scanner.models.entries import CheckpointEntry, ClassifierEntry
from scanner.models.extra import check_extra
from scanner.models.model import Embedder, Model, ModelBroken, model_id
from scanner.models.open_nsfw import OpenNsfw
from scanner.models.registry import UnknownModel, load_registry, read_weights, verify_checkpoint
from scanner.models.safety_s import SafetyS
from scanner.scoring import embed_frames, score_frames

if TYPE_CHECKING:
    from scanner.models.clip import Precision

CLASSIFIERS: dict[str, type[SafetyS] | type[OpenNsfw]] = {model.name: model for model in (SafetyS, OpenNsfw)}
"""The classifiers this release can run, by name. Any checkpoint of the registry can be run."""


def every_label() -> tuple[str, ...]:
    """The ``model/label`` names of the scores that classifiers of this release can give, loaded or not."""
    return tuple(f"{name}/{label}" for name, model in CLASSIFIERS.items() for label in model.labels)


def every_embedder(registry: Path | None = None) -> tuple[str, ...]:
    """The names of the checkpoints that are registered, with those of one's own `registry`, loaded or not.

    Raises `scanner.models.registry.RegistryInvalid`.
    """
    return tuple(entry.name for entry in load_registry(registry).model if isinstance(entry, CheckpointEntry))


def find_id(entry: ClassifierEntry | CheckpointEntry) -> str:
    """The id that a model of the registry has once it is loaded. Raises `UnknownModel` for what cannot be run here."""
    if isinstance(entry, CheckpointEntry):
        return entry.model_id
    return model_id(entry.sha256, _classifier(entry.name).preprocessing)


def labels_of(entry: ClassifierEntry | CheckpointEntry) -> tuple[str, ...]:
    """The names of a classifier's scores; () for a checkpoint, whose scores a policy names. Raises as `find_id`."""
    return () if isinstance(entry, CheckpointEntry) else _classifier(entry.name).labels


def _classifier(name: str) -> type[SafetyS] | type[OpenNsfw]:
    if name not in CLASSIFIERS:
        raise UnknownModel(f"scanner.models: this release cannot run {name!r}")
    return CLASSIFIERS[name]


def load_models(
    names: Sequence[str],
    directory: Path,
    *,
    registry: Path | None = None,
    device: Device = "auto",
    precision: "Precision" = "auto",
    threads: int = 0,
) -> tuple[Model, ...]:
    """Verify, load and warm the named models; blocks for a second or two, longer for large checkpoints.

    `registry` is a file with checkpoints of one's own. `precision` is for checkpoints.
    Raises `ModelError` (one of `scanner.models.registry`'s, or a device's), which names the remedy, or `ModelBroken`.
    """
    known = load_registry(registry)
    models: list[Model] = []
    for name in names:
        entry = known.entry(name)
        if isinstance(entry, CheckpointEntry):
            models.append(_load_checkpoint(entry, directory, device, precision, threads))
        else:
            classifier = _classifier(name)
            weights = read_weights(entry, directory)
            models.append(classifier(weights, entry.sha256, device=device, threads=threads))
    for model in models:
        warm(model)
    return tuple(models)


def _load_checkpoint(
    entry: CheckpointEntry, directory: Path, device: Device, precision: "Precision", threads: int
) -> Embedder:
    check_extra(entry.name)
    from scanner.models.clip import Clip

    checkpoint = verify_checkpoint(entry, directory)
    return Clip(checkpoint, device=device, precision=precision, threads=threads)


def warm(model: Model) -> None:
    """Run a plain grey picture through a model: its first run is slow, and one that fails here is broken.

    Raises `ModelBroken`.
    """
    try:
        grey = Image.new("RGB", (64, 64), (127, 127, 127))
        frames = [(model.prepare(grey),)]
        score_frames([model], frames)
        embed_frames([model], frames)
    except Exception as error:
        raise ModelBroken(f"model {model.name!r} fails on a plain grey picture: {error}") from error
