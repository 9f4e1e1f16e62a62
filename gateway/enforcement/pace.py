"""How often one pict-rs is asked: several at a time while it answers, one at a time and ever more rarely while not."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from gateway.enforcement.pict_rs import PictRsError

log = structlog.get_logger("gateway.enforcement")

_FIRST_PAUSE_S = 0.5
_MOST_DOUBLINGS = 20

Result = TypeVar("Result")


def pause_after(failures: int, most_s: float) -> float:
    """Seconds to wait after so many failures in a row: doubling from half a second up to `most_s`, with jitter."""
    full = min(most_s, _FIRST_PAUSE_S * 2.0 ** min(failures - 1, _MOST_DOUBLINGS))
    return full * random.uniform(0.5, 1.0)  # noqa: S311  # spreads load, hides nothing


class Pace:
    """Lets `width` calls through at a time while they succeed.

    While they fail with `PictRsError`, one is let through after each pause (`pause_after`); whoever comes first tries,
    so that a file which alone makes pict-rs fail does not stand in the way of the others. `name` is for the log.
    """

    def __init__(self, name: str, width: int, *, most_s: float) -> None:
        self._name = name
        self._most_s = most_s
        self._slots = asyncio.Semaphore(width)
        self._probing = asyncio.Lock()
        self._failures = 0
        self._next_probe_at = 0.0
        self._said = ""

    @property
    def failing(self) -> bool:
        """Whether the last call failed."""
        return self._failures > 0

    async def call(self, ask: Callable[[], Awaitable[Result]]) -> Result:
        """What `ask` comes to, called when it is its turn. Raises what `ask` raises."""
        async with self._slots:
            if not self._failures:
                return await self._attempt(ask, is_probe=False)
            async with self._probing:
                await asyncio.sleep(max(0.0, self._next_probe_at - asyncio.get_running_loop().time()))
                return await self._attempt(ask, is_probe=True)

    async def _attempt(self, ask: Callable[[], Awaitable[Result]], *, is_probe: bool) -> Result:
        try:
            result = await ask()
        except PictRsError as error:
            # Calls that were under way together fail together: that counts once.
            if is_probe or not self._failures:
                self._failures += 1
                pause = pause_after(self._failures, self._most_s)
                self._next_probe_at = asyncio.get_running_loop().time() + pause
            self._note_failure(error)
            raise
        self._failures, self._next_probe_at = 0, 0.0
        if self._said:
            log.info("pict_rs_answers_again", tenant=self._name)
            self._said = ""
        return result

    def _note_failure(self, error: PictRsError) -> None:
        if str(error) != self._said:  # one line an outage, however many files wait
            log.warning("pict_rs_fails", tenant=self._name, error=str(error))
        self._said = str(error)
