"""What was made of the records of one partition, in their order, until it is published."""

from collections import deque
from dataclasses import dataclass
from itertools import islice, takewhile

from schemas.broker import Received
from schemas.messages import Rejudged


@dataclass(slots=True)
class Place:
    """One record that was taken. `rejudged` is what was made of it once it is `settled`, None where nothing is said."""

    received: Received
    settled: bool = False
    rejudged: Rejudged | None = None

    def settle(self, rejudged: Rejudged | None) -> None:
        """Note what was made of it."""
        self.settled = True
        self.rejudged = rejudged


class Front:
    """The records of one partition that were taken in one assignment of it, and are not published yet.

    They are settled in any order and published in that of the log, none left out: what is published is done.
    """

    def __init__(self) -> None:
        self._places: deque[Place] = deque()
        self._taken = 0

    @property
    def taken(self) -> int:
        """How many records were taken."""
        return self._taken

    @property
    def open(self) -> int:
        """How many of them are not published yet."""
        return len(self._places)

    def take(self, received: Received) -> Place:
        """Note that a record is in hand; offsets rise from call to call."""
        place = Place(received)
        self._places.append(place)
        self._taken += 1
        return place

    def ready(self, most: int) -> list[Place]:
        """The first records, at most so many, before which none is unsettled."""
        return list(takewhile(lambda place: place.settled, islice(self._places, most)))

    def published(self, count: int) -> None:
        """Forget the first `count` records."""
        for _ in range(count):
            self._places.popleft()
