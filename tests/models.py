"""The real models' weights for tests, fetched once into the cache that the program itself uses."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scanner.models.entries import CheckpointEntry
from scanner.models.loading import load_models
from scanner.models.model import Model
from scanner.models.registry import fetch, load_registry, verify_checkpoint
from tests.kafka import cache_dir

if TYPE_CHECKING:
    from scanner.models.clip import Clip

DEFAULT_MODELS = ("safety-s", "open-nsfw")
DATA = Path(__file__).with_name("data")
MICROCLIP_REGISTRY = DATA / "microclip.toml"


@cache
def models_dir() -> Path:
    """The folder with the default models' weights; they are fetched when they are not there."""
    fetch(load_registry(), DEFAULT_MODELS, cache_dir() / "models")
    return cache_dir() / "models"


@cache
def default_models() -> tuple[Model, ...]:
    """The default models, loaded once per test process."""
    return load_models(DEFAULT_MODELS, models_dir(), device="cpu")


def microclip_settings() -> dict[str, object]:
    """The scanner's settings that make it judge with microclip (tests/microclip/train.py)."""
    return {"models": ("microclip",), "models_dir": DATA, "registry": MICROCLIP_REGISTRY, "device": "cpu", "threads": 1}


def load_microclip(**options: Any) -> Clip:
    """microclip, loaded anew; `options` are those of `Clip`, fp32 and one thread where nothing is said."""
    from scanner.models.clip import Clip

    entry = load_registry(MICROCLIP_REGISTRY).entry("microclip")
    assert isinstance(entry, CheckpointEntry)
    return Clip(verify_checkpoint(entry, DATA), **{"precision": "fp32", "threads": 1, **options})


@cache
def microclip() -> Clip:
    """microclip in fp32, loaded once per test process."""
    return load_microclip()
