"""What is in force, and whether it has changed since images were judged: pure, for `fediwarden rescan watch`.

What counts is what the scanners announce, all of them alike: while they differ, or none is there, nothing has changed
yet. A change counts once it has stood for a minute.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from schemas.messages import EVERY_TENANT, ScannerAnnounced

Kind = Literal["policy", "lists", "model"]

KINDS: Final[tuple[Kind, ...]] = ("lists", "policy", "model")
"""In the order in which rescans are made: the cheapest first."""

HEARD_WITHIN_S: Final = 30.0
STOOD_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class InForce:
    """Ids of models by name, ids of policies by tenant, versions of known-hash lists by name."""

    models: Mapping[str, str] = field(default_factory=dict)
    policies: Mapping[str, str] = field(default_factory=dict)
    lists: Mapping[str, str] = field(default_factory=dict)


class Announced:
    """What the scanners of a group judge with."""

    def __init__(self, group: str) -> None:
        self._group = group
        self._scanners: dict[str, tuple[ScannerAnnounced, float]] = {}

    def observe(self, announced: ScannerAnnounced, at: float) -> None:
        """Take in one announcement, heard then, in seconds."""
        if announced.group != self._group:
            return
        if announced.leaving or not announced.healthy:
            self._scanners.pop(announced.scanner, None)
        else:
            self._scanners[announced.scanner] = (announced, at)

    def in_force(self, now: float) -> InForce | None:
        """The models and policies of all scanners heard of lately; None where they differ, or there is none."""
        there = [said for said, at in self._scanners.values() if now - at <= HEARD_WITHIN_S]
        if not there or any(said.models != there[0].models or said.policies != there[0].policies for said in there):
            return None
        return InForce(dict(there[0].models), dict(there[0].policies))


class Watch:
    """Compares what is in force with `judged_by`: what images were judged by last. `kinds` are those that count.

    Of a kind that `judged_by` says nothing about, what is in force first is taken for it.
    """

    def __init__(self, kinds: Iterable[Kind], judged_by: InForce, *, stood_s: float = STOOD_S) -> None:
        self._kinds = [kind for kind in KINDS if kind in set(kinds)]
        self._judged_by = judged_by
        self._known = {kind for kind in KINDS if _part(judged_by, kind)}
        self._stood_s = stood_s
        self._seen: InForce | None = None
        self._since = 0.0

    def look(self, seen: InForce | None, now: float) -> Kind | None:
        """What is to be judged again for, by what is in force at this moment of some clock; None: nothing (yet)."""
        if seen != self._seen or seen is None:
            self._seen, self._since = seen, now
        if seen is not None:  # at once: what is judged from now on is judged by it, however soon that changes
            for kind in set(KINDS) - self._known:
                self.note_done(kind, seen)
        if seen is None or now - self._since < self._stood_s:
            return None
        due: Kind | None = None
        for kind in KINDS:
            if not self._has_changed(kind, seen):
                self.note_done(kind, seen)
            elif due is None and kind in self._kinds:
                due = kind
        return due

    def new_models(self, seen: InForce) -> list[str]:
        """The models that images were not judged by, by name."""
        return sorted(name for name, each in seen.models.items() if self._judged_by.models.get(name) != each)

    def note_done(self, kind: Kind, by: InForce) -> None:
        """Images have been judged again by what was in force of this kind."""
        self._known.add(kind)
        match kind:
            case "lists":
                self._judged_by = replace(self._judged_by, lists=by.lists)
            case "policy":
                self._judged_by = replace(self._judged_by, policies=by.policies)
            case "model":
                self._judged_by = replace(self._judged_by, models=by.models)

    def _has_changed(self, kind: Kind, seen: InForce) -> bool:
        match kind:
            case "lists":
                return bool(seen.lists) and seen.lists != self._judged_by.lists
            case "policy":
                return differ(seen.policies, self._judged_by.policies)
            case "model":
                return bool(self.new_models(seen))


def _part(of: InForce, kind: Kind) -> Mapping[str, str]:
    return {"lists": of.lists, "policy": of.policies, "model": of.models}[kind]


def differ(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Whether some tenant's policy is known of both, and not the same."""
    for tenant in one.keys() | other.keys():
        here, there = one.get(tenant, one.get(EVERY_TENANT)), other.get(tenant, other.get(EVERY_TENANT))
        if here is not None and there is not None and here != there:
            return True
    return False
