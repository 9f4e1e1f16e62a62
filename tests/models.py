"""The real models' weights for tests, fetched once into the cache that the program itself uses."""

from functools import cache
from pathlib import Path

from scanner.models.loading import load_models
from scanner.models.model import Model
from scanner.models.registry import fetch, load_registry
from tests.kafka import cache_dir

DEFAULT_MODELS = ("safety-s", "open-nsfw")


@cache
def models_dir() -> Path:
    """The folder with the default models' weights; they are fetched when they are not there."""
    fetch(load_registry(), DEFAULT_MODELS, cache_dir() / "models")
    return cache_dir() / "models"


@cache
def default_models() -> tuple[Model, ...]:
    """The default models, loaded once per test process."""
    return load_models(DEFAULT_MODELS, models_dir(), device="cpu")
