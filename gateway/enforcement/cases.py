"""One file that a tenant must not keep: when it is looked for, and which verdicts wait for that."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.overrides.memory import NO_LOOKS, Looks
from schemas.broker import Received


@dataclass(frozen=True, slots=True)
class Rejection:
    """What is needed of a verdict to find its file."""

    scan_id: str
    tenant: str
    sha256: bytes
    length: int
    media_type: str
    judged_at: int
    looks: Looks = NO_LOOKS
    trace: str = ""


@dataclass(frozen=True, slots=True)
class Look:
    """One look: number `check` of its `round`, due `at` (the event loop's clock); after the `last` none follows."""

    round: int
    check: int
    at: float
    last: bool


class Case:
    """A rejected file of one tenant, until every verdict that rejected it has had its looks.

    A round is a look at once and one at each of some seconds after. The file may be rejected again meanwhile, because
    somebody posted it again: then a new round begins. Each verdict (`records`) is settled by the first look that is
    made after its own last one was due, so that a file which is posted for ever holds back none of them for ever.

    `failures` counts those of the next look so far; `must_erase` says that the archive must be told first.
    """

    def __init__(self) -> None:
        self.failures = 0
        self.must_erase = False
        self._rejection: Rejection | None = None
        self._records: list[tuple[float, Received]] = []
        self._round = 0
        self._due: list[Look] = []
        self._changed = asyncio.Event()

    @property
    def rejection(self) -> Rejection:
        """The newest that says how long the file is, else the first."""
        assert self._rejection is not None, "add() comes first"
        return self._rejection

    @property
    def next(self) -> Look | None:
        """The next look; None when no verdict waits for one any more."""
        return self._due[0] if self._due else None

    def add(self, rejection: Rejection, record: Received, now: float, checks_s: Sequence[float]) -> None:
        """Begin a new round at `now`, with looks at once and after `checks_s`, for this verdict too."""
        if rejection.length or self._rejection is None:  # without the length there is no finding the file
            self._rejection = rejection
        self._round += 1
        self.failures = 0
        times = [now, *(now + after for after in checks_s)]
        self._records.append((times[-1], record))
        latest = max(last_at for last_at, _ in self._records)
        if latest > times[-1]:
            times.append(latest)
        self._due = [Look(self._round, check, at, at == times[-1]) for check, at in enumerate(times)]
        self._changed.set()

    def ends_with(self, look: Look) -> bool:
        """Whether nothing follows `look`, as things stand."""
        return look.last and look == self.next

    async def reached(self, look: Look) -> bool:
        """Wait until `look` is due; False when a new round has begun before."""
        self._changed.clear()
        try:
            async with asyncio.timeout(max(0.0, look.at - asyncio.get_running_loop().time())):
                await self._changed.wait()
        except TimeoutError:
            return True
        return False

    def confirm(self, look: Look, began_at: float) -> list[Received]:
        """Note that `look`, made at `began_at`, came to an end; the records that are settled by it."""
        if self._due and self._due[0] == look:  # else a new round has begun since
            self._due.pop(0)
            self.failures = 0
        is_over = not self._due
        settled = [record for last_at, record in self._records if is_over or last_at <= began_at]
        self._records = [(last_at, record) for last_at, record in self._records if not is_over and last_at > began_at]
        return settled
