"""Telling the gateways what this scanner judges with, and how fast."""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence

import structlog

from scanner.models.model import Model
from scanner.reloading import LivePolicies
from schemas.broker import BrokerUnavailable, Producer
from schemas.clock import now_ms
from schemas.messages import ScannerAnnounced
from schemas.topics import SCANNERS

log = structlog.get_logger("scanner.announcing")

RATE_WINDOW_S = 30.0
CHANGING_EVERY_S = 5.0
"""Announcements of a scanner that waits for its turn are no further apart than this (`scanner.promotion.fleet`)."""

LEAVE_WITHIN_S = 2.0
LEAVE_TO_COME_BACK_WITHIN_S = 10.0
"""The others wait for one that comes back, and had better know."""


class RateMeter:
    """Images a second over the last `RATE_WINDOW_S` seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started = clock()
        self._times: deque[float] = deque()

    def count(self) -> None:
        """Note one image."""
        self._times.append(self._clock())
        self._forget()

    def rate(self) -> float:
        """Return images a second; over the time since start while that is shorter than the window."""
        self._forget()
        return len(self._times) / max(min(self._clock() - self._started, RATE_WINDOW_S), 1.0)

    def _forget(self) -> None:
        while self._times and self._times[0] < self._clock() - RATE_WINDOW_S:
            self._times.popleft()


class Announcer:
    """Publishes `ScannerAnnounced` every `every_s` seconds, when policies change, and once more when leaving.

    A `shadow` names no policies: what it says counts for no tenant. That it is there, the janitor has to know.
    """

    def __init__(
        self,
        producer: Producer,
        *,
        scanner: str,
        group: str,
        models: Sequence[Model],
        policies: LivePolicies,
        meter: RateMeter,
        every_s: float,
        shadow: bool = False,
        instance: str = "",
    ) -> None:
        self._producer = producer
        self._scanner = scanner
        self._group = group
        self._models = {model.name: model.id for model in models}
        self._device = ",".join(sorted({model.device for model in models}))
        self._policies = policies
        self._meter = meter
        self._every_s = every_s
        self._shadow = shadow
        self._instance = instance
        self._changing = False
        self._due = asyncio.Event()

    def announce_now(self) -> None:
        """Have `run` announce at once."""
        self._due.set()

    def say_changing(self, changing: bool) -> None:
        """Say from now on whether this scanner waits for its turn to load other models; at once where that is new."""
        if changing != self._changing:
            self._changing = changing
            self.announce_now()

    async def run(self) -> None:
        """Announce until cancelled. An outage is waited out: the next announcement says the same again."""
        while True:
            self._due.clear()
            every_s = min(self._every_s, CHANGING_EVERY_S) if self._changing else self._every_s
            await self._announce(give_up_after=every_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(every_s):
                    await self._due.wait()

    async def leave(self, *, to_come_back: bool = False) -> None:
        """Announce that this scanner judges no more, or not before it has come back with other models."""
        self._changing = to_come_back
        within_s = LEAVE_TO_COME_BACK_WITHIN_S if to_come_back else LEAVE_WITHIN_S
        await self._announce(give_up_after=within_s, leaving=True)

    async def _announce(self, *, give_up_after: float, leaving: bool = False) -> None:
        message = ScannerAnnounced(
            scanner=self._scanner,
            group=self._group,
            models=self._models,
            policies={} if self._shadow else self._policies.ids,
            device=self._device,
            rate=round(self._meter.rate(), 2),
            leaving=leaving,
            announced_at=now_ms(),
            changing=self._changing,
            instance=self._instance,
        )
        try:
            await self._producer.publish(SCANNERS, message, key=self._scanner.encode(), give_up_after=give_up_after)
        except BrokerUnavailable as error:
            log.warning("not_announced", error=str(error))
