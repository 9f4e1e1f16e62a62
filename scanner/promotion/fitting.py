"""Whether models could be loaded here, and judged by the policies of the settings: asked before anybody loads them."""

from collections.abc import Sequence

from scanner.models.entries import CheckpointEntry
from scanner.models.extra import check_extra
from scanner.models.loading import labels_of
from scanner.models.model import ModelError
from scanner.models.registry import load_registry, verify
from scanner.policy import load_policies
from scanner.settings import ScannerSettings


def check_models(settings: ScannerSettings, names: Sequence[str]) -> None:
    """Make sure that the models `names` are registered, can be run, and lie here as registered; reads all their bytes.

    Raises `ModelError` (as `scanner.models.registry` and `scanner.models.extra` do), which names the remedy.
    """
    if settings.models_dir is None:
        raise ModelError("scanner.models_dir is not set: name the folder that holds the models' weights")
    registry = load_registry(settings.registry)
    for entry in [registry.entry(name) for name in names]:
        labels_of(entry)
        if isinstance(entry, CheckpointEntry):
            check_extra(entry.name)
        verify(entry, settings.models_dir)


def check_policies(settings: ScannerSettings, names: Sequence[str]) -> None:
    """Make sure that every policy of the settings can be judged with the scores of the models `names` alone.

    Raises `scanner.policy.PolicyError`, which names the policy's file, the rule and the score, or `ModelError` where
    there is no such model.
    """
    registry = load_registry(settings.registry)
    entries = [registry.entry(name) for name in names]
    labels = [f"{entry.name}/{label}" for entry in entries for label in labels_of(entry)]
    embedders = [entry.name for entry in entries if isinstance(entry, CheckpointEntry)]
    load_policies(settings.policy, settings.policies, labels, embedders)
