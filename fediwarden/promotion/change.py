"""From the models in force and a name to the models that are to be in force."""

from collections.abc import Sequence
from typing import NamedTuple

from fediwarden.promotion.errors import PromotionInvalid
from scanner.models.entries import CheckpointEntry, ClassifierEntry
from scanner.models.loading import labels_of
from scanner.models.registry import Registry


class Change(NamedTuple):
    """The models as they are to be, in order; which of them are new, and which go."""

    models: tuple[str, ...]
    added: tuple[str, ...]
    removed: tuple[str, ...]


def change_models(
    in_force: Sequence[str], name: str, registry: Registry, *, replaces: str = "", beside: bool = False
) -> Change:
    """Put the model `name` in the place of `replaces`, or else of the one that gives the same scores; else behind all.

    The one that gives the same scores is a classifier with the same labels, or the only other checkpoint; `beside` asks
    for none, and puts it behind all. Where `name` is in force already, `replaces` goes without another in its place.
    Raises `PromotionInvalid`, or `scanner.models.registry.UnknownModel`.
    """
    entry = registry.entry(name)
    labels_of(entry)  # this release can run it
    now = ", ".join(in_force)
    if replaces and replaces not in in_force:
        raise PromotionInvalid(f"--replaces: {replaces!r} is not among the models in force ({now})")
    if replaces == name:
        raise PromotionInvalid("--replaces: a model cannot take its own place; name another")
    if name in in_force:
        if not replaces:
            raise PromotionInvalid(
                f"{name!r} is among the models in force already ({now}); nothing would change. "
                "To drop one of the others, name it with --replaces"
            )
        return describe_change(in_force, [each for each in in_force if each != replaces])
    if beside and replaces:
        raise PromotionInvalid("--beside and --replaces: added, or in the place of another, one of them")
    gone = "" if beside else replaces or _alike(in_force, entry, registry)
    models = [name if each == gone else each for each in in_force]
    return describe_change(in_force, models if gone else [*models, name])


def describe_change(before: Sequence[str], after: Sequence[str]) -> Change:
    """What comes and what goes."""
    added = tuple(each for each in after if each not in before)
    return Change(tuple(after), added, tuple(each for each in before if each not in after))


def _alike(in_force: Sequence[str], entry: ClassifierEntry | CheckpointEntry, registry: Registry) -> str:
    """The one model in force that gives the same scores; "" where there is none, or more than one."""
    alike = []
    for name in in_force:
        other = registry.entry(name)
        if type(other) is type(entry) and labels_of(other) == labels_of(entry):
            alike.append(name)
    return alike[0] if len(alike) == 1 else ""
