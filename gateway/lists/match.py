"""What is found: an image on a list."""

from collections.abc import Iterable
from dataclasses import dataclass

from gateway.lists.kinds import HashKind
from schemas.messages import Decision


@dataclass(frozen=True, slots=True)
class Match:
    """An image is on a list: `frame` is the one that was found, `distance` the bits in which it differs (0: bytes)."""

    name: str
    version: str
    origin: str
    decision: Decision
    reason: str
    kind: HashKind
    distance: int
    frame: int

    @property
    def strength(self) -> tuple[bool, bool, int]:
        """The stronger of two matches is greater: a rejection, then the same bytes, then the nearer picture."""
        return (self.decision is Decision.REJECT, self.kind is not HashKind.PDQ, -self.distance)


def strongest(matches: Iterable[Match]) -> Match | None:
    """The match that decides, None where there is none; names decide between equals."""
    return max(matches, key=lambda match: (match.strength, match.name), default=None)
