"""The scanners of a group as they announce themselves, and whose turn it is to leave for other models.

The topic scanners has one partition: everybody reads the same announcements in the same order. A scanner that wants to
load other models says so (`changing`), goes on judging, and stands in a queue behind those who said so before. The
first of the queue leaves, and nobody else does until it is back: until a scanner announces itself that was not there
before, of the same `instance` where it has one. So no more than one is away, whatever anybody's clock says.

Who dies while it waits loses its place when it has not been heard of for a while. Who dies while it is away (or cannot
load the models) is waited for, and nobody follows: models that no scanner has come up with cost one scanner, not all.
Once one has come up with them, or others are promoted, it is waited for no longer than `AWAY_MOST_S`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from schemas.messages import ScannerAnnounced

HEARD_WITHIN_S: Final = 30.0
"""After so long a silence a scanner counts as gone, for us as for gateways."""

FRESH_S: Final = 15.0
"""A scanner leaves only while it has read what it said itself so lately: then it knows what others said before."""

SILENT_MOST_S: Final = 20.0
"""Who says nothing for longer stands behind the others when it speaks again."""

LOST_AFTER_S: Final = 40.0
"""After so long a silence others go before it. More than the two above together: it is silent for itself by then."""

AWAY_MOST_S: Final = 300.0
"""How long a scanner that left is waited for, where others judge with the same models already."""


class Member(NamedTuple):
    """A scanner as it last announced itself. `heard_at` is in seconds of the reader's clock."""

    scanner: str
    models: frozenset[str]
    changing: bool
    heard_at: float
    said_at_ms: int


class Turn(NamedTuple):
    """Whether a scanner may leave now; if not, `why` it waits, "" where it has yet to read that it wants to."""

    mine: bool
    why: str = ""


@dataclass(slots=True)
class _Away:
    """A scanner that left to come back, when, and whether it did so for models that are promoted still."""

    instance: str
    left_at: float
    on_trial: bool = True


class Fleet:
    """Takes in the announcements of one `group`, in the order of the topic."""

    def __init__(self, group: str) -> None:
        self._group = group
        self._members: dict[str, Member] = {}
        self._known: set[str] = set()
        self._queue: dict[str, None] = {}
        self._away: dict[str, _Away] = {}

    def observe(self, announced: ScannerAnnounced, at: float) -> None:
        """Take in one announcement, heard then by the reader's clock, in seconds; one's own, when it was said."""
        if announced.group != self._group:
            return
        name = announced.scanner
        is_new = name not in self._known
        self._known.add(name)
        if announced.leaving or not announced.healthy:
            self._members.pop(name, None)
            self._queue.pop(name, None)
            if announced.leaving and announced.changing:
                self._away[name] = _Away(announced.instance, at)
            return
        if is_new:
            self._note_arrival(announced.instance)
        before = self._members.get(name)
        was_silent = before is not None and announced.announced_at - before.said_at_ms > SILENT_MOST_S * 1000
        if was_silent or not announced.changing:
            self._queue.pop(name, None)
        if announced.changing:
            self._queue.setdefault(name)
        self._members[name] = Member(name, frozenset(announced.models), announced.changing, at, announced.announced_at)

    def note_promotion(self) -> None:
        """Others are promoted from here on: who is away left for the earlier ones."""
        for each in self._away.values():
            each.on_trial = False

    def members(self, now: float) -> list[Member]:
        """Who has been heard of lately, by name."""
        return sorted(each for each in self._members.values() if now - each.heard_at <= HEARD_WITHIN_S)

    @property
    def away(self) -> list[str]:
        """Who has left to load other models, and is not back; who left first comes first."""
        return list(self._away)

    def turn(self, me: str, wanted: Iterable[str], now: float) -> Turn:
        """Whether `me` may leave now to come back with the models `wanted`."""
        own = self._members.get(me)
        if own is None or now - own.heard_at > FRESH_S:
            return Turn(False, "what this scanner announces does not come back to it from Kafka")
        self._drop_lost(frozenset(wanted), now)
        if self._away:
            return Turn(False, f"{self.away[0]} has left to load other models, and is not back")
        if me not in self._queue:
            return Turn(False)
        first = next(iter(self._queue))
        return Turn(True) if first == me else Turn(False, f"it is the turn of {first}")

    def _drop_lost(self, wanted: frozenset[str], now: float) -> None:
        is_proven = any(each.models == wanted for each in self.members(now))
        for name, each in list(self._away.items()):
            if now - each.left_at > AWAY_MOST_S and (is_proven or not each.on_trial):
                del self._away[name]
        for name in list(self._queue):
            if now - self._members[name].heard_at > LOST_AFTER_S:
                del self._queue[name], self._members[name]

    def _note_arrival(self, instance: str) -> None:
        """Somebody is here who was not: the one of this instance is back; without any, who left first."""
        back = next((name for name, each in self._away.items() if each.instance == instance), None)
        if back is not None:
            del self._away[back]
