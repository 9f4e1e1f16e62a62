"""From names in the settings to models that are verified, loaded and warm."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from scanner.models.model import Model, ModelBroken
from scanner.models.onnx_session import Device
from scanner.models.open_nsfw import OpenNsfw
from scanner.models.registry import UnknownModel, load_registry, read_weights
from scanner.models.safety_s import SafetyS
from scanner.scoring import score_frames

MODEL_CLASSES: dict[str, type[SafetyS] | type[OpenNsfw]] = {model.name: model for model in (SafetyS, OpenNsfw)}
"""The models this release can run, by name."""

EMBEDDERS = ("clip",)
"""The models that compare pictures with the prompts of a policy's concepts; they have no labels of their own."""


def every_label() -> tuple[str, ...]:
    """The ``model/label`` names of the scores that classifiers of this release can give, loaded or not."""
    return tuple(f"{name}/{label}" for name, model in MODEL_CLASSES.items() for label in model.labels)


def load_models(
    names: Sequence[str], directory: Path, *, device: Device = "auto", threads: int = 0
) -> tuple[Model, ...]:
    """Verify, load and warm the named models; blocks for a second or two.

    Raises `ModelError` (one of `scanner.models.registry`'s, or a device's), which names the remedy, or `ModelBroken`.
    """
    registry = load_registry()
    models = []
    for name in names:
        if name not in MODEL_CLASSES:
            raise UnknownModel(f"scanner.models: unknown model {name!r}; there are {', '.join(MODEL_CLASSES)}")
        entry = registry.entry(name)
        weights = read_weights(entry, directory)
        models.append(MODEL_CLASSES[name](weights, entry.sha256, device=device, threads=threads))
    for model in models:
        warm(model)
    return tuple(models)


def warm(model: Model) -> None:
    """Run a plain grey picture through a model: its first run is slow, and one that fails here is broken.

    Raises `ModelBroken`.
    """
    try:
        grey = Image.new("RGB", (64, 64), (127, 127, 127))
        score_frames([model], [(model.prepare(grey),)])
    except Exception as error:
        raise ModelBroken(f"model {model.name!r} fails on a plain grey picture: {error}") from error
