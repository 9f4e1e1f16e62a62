"""When each image is looked for, and when it has been looked for long enough."""

import heapq
from dataclasses import dataclass, field
from itertools import count

from federation_audit.lemmy.database import Sought
from schemas.broker import Received


@dataclass(slots=True, eq=False)
class Case:
    """One image that is looked for. `held` is the record whose offset waits for the end, None where another's does.

    `look` is the index of the next look; `due_at` None says that only the sweep is still to come. Times in ms.
    """

    sha256: bytes
    name: Sought
    seen_at: int
    held: Received | None
    look: int = 0
    due_at: int | None = None
    swept: bool = False
    ended: bool = field(default=False)


class Schedule:
    """The cases of one tenant: each is looked for at each of `looks_s` after it was seen, and swept once.

    An image of the same name that is seen again while it waits is the same case: many views of one address are one.
    """

    def __init__(self, looks_s: tuple[float, ...]) -> None:
        self._looks_ms = tuple(round(seconds * 1000) for seconds in looks_s)
        self._cases: dict[Sought, Case] = {}
        self._queue: list[tuple[int, int, Case]] = []
        self._numbers = count()

    def __len__(self) -> int:
        return len(self._cases)

    def add(self, sha256: bytes, name: Sought, *, seen_at: int, now: int, held: Received | None) -> bool:
        """Begin to look for an image; False where that is being done already (`held` is not kept then).

        Looks whose time has passed are made up for by one, now.
        """
        known = self._cases.get(name)
        if known is not None:
            known.sha256 = known.sha256 or sha256
            return False
        case = Case(sha256, name, min(seen_at, now), held)
        passed = sum(case.seen_at + after <= now for after in self._looks_ms)
        case.look = max(0, passed - 1)
        self._cases[name] = case
        self._put(case, max(now, case.seen_at + self._looks_ms[case.look]))
        return True

    def next_due(self) -> int | None:
        """When the next look is due, None where none is."""
        while self._queue and self._queue[0][2].ended:
            heapq.heappop(self._queue)
        return self._queue[0][0] if self._queue else None

    def take(self, now: int, most: int) -> list[Case]:
        """The cases that are due, at most `most`. Each goes back through `looked` or `put_back`."""
        taken: list[Case] = []
        while len(taken) < most and (due := self.next_due()) is not None and due <= now:
            taken.append(heapq.heappop(self._queue)[2])
        return taken

    def put_back(self, cases: list[Case], due_at: int) -> None:
        """Look for these at `due_at`: nothing came of this look."""
        for case in cases:
            self._put(case, due_at)

    def looked(self, case: Case, *, found: bool, now: int) -> bool:
        """Note a look; whether the case has ended with it (otherwise it is due again, or waits for the sweep)."""
        if found:
            return self._end(case)
        later = [
            look for look in range(case.look + 1, len(self._looks_ms)) if case.seen_at + self._looks_ms[look] > now
        ]
        if later:
            case.look = later[0]
            self._put(case, case.seen_at + self._looks_ms[case.look])
            return False
        case.due_at = None
        return self._end(case) if case.swept else False

    def unswept(self, now: int, most: int) -> list[Case]:
        """Cases that no sweep has covered, and whose second look is over: their rows are there if there are any."""
        after = self._looks_ms[min(1, len(self._looks_ms) - 1)]
        ripe = (case for case in self._cases.values() if not case.swept and case.seen_at + after <= now)
        return [case for case, _ in zip(ripe, range(most), strict=False)]

    def swept(self, case: Case, *, found: bool) -> bool:
        """Note a sweep; whether the case has ended with it."""
        case.swept = True
        return self._end(case) if found or case.due_at is None else False

    def _put(self, case: Case, due_at: int) -> None:
        case.due_at = due_at
        heapq.heappush(self._queue, (due_at, next(self._numbers), case))

    def _end(self, case: Case) -> bool:
        if case.ended:
            return False
        case.ended = True
        self._cases.pop(case.name, None)
        return True
