"""Bringing origins to Kafka without ever making a request wait for it."""

import asyncio
import contextlib
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Hashable
from time import monotonic

import structlog

from gateway.relay.metrics import RelayMetrics
from schemas.broker import BrokerError, Producer
from schemas.messages import OriginObserved
from schemas.topics import ORIGINS

log = structlog.get_logger("gateway.relay")

_BATCH = 100


class Recent:
    """What was published lately: at most `most` things, each for `hold_s` seconds after it was noted first."""

    def __init__(self, *, most: int, hold_s: float, clock: Callable[[], float] = monotonic) -> None:
        self._most = most
        self._hold_s = hold_s
        self._clock = clock
        self._until: OrderedDict[Hashable, float] = OrderedDict()

    def __contains__(self, thing: Hashable) -> bool:
        now = self._clock()
        while self._until and next(iter(self._until.values())) <= now:
            self._until.popitem(last=False)
        return thing in self._until

    def note(self, thing: Hashable) -> bool:
        """Note it; whether it is new."""
        if thing in self:
            return False
        self._until[thing] = self._clock() + self._hold_s
        if len(self._until) > self._most:
            self._until.popitem(last=False)
        return True

    def forget(self, thing: Hashable) -> None:
        """As if it had never been noted."""
        self._until.pop(thing, None)


class Origins:
    """A bounded queue of origins and the task that publishes them.

    When the bound is reached, Kafka has been away for long: what comes then is dropped and counted. An origin lost is
    an unknown origin; nothing else depends on it. `settle` makes the last of an origin before it is published.
    """

    def __init__(
        self,
        *,
        most: int,
        metrics: RelayMetrics,
        settle: Callable[[OriginObserved], Awaitable[OriginObserved]] | None = None,
    ) -> None:
        self._most = most
        self._settle = settle
        self._metrics = metrics
        self._queue: deque[OriginObserved] = deque()
        self._in_hand = 0
        self.published = 0
        self._changed = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._dropping = False
        metrics.watch("origins_waiting", lambda: self.waiting)

    @property
    def waiting(self) -> int:
        """Origins that Kafka does not have yet."""
        return len(self._queue) + self._in_hand

    def offer(self, origin: OriginObserved) -> bool:
        """Take one in, at once; False where it had to be dropped."""
        if self.waiting >= self._most:
            self._metrics.dropped.inc()
            if not self._dropping:  # one line an outage, however many are lost
                log.warning("origins are dropped: Kafka does not take them and relay.max_waiting wait", most=self._most)
            self._dropping = True
            return False
        self._dropping = False
        self._queue.append(origin)
        self._idle.clear()
        self._changed.set()
        return True

    async def publish(self, producer: Producer) -> None:
        """Publish what is offered, for ever."""
        while True:
            while not self._queue:
                self._idle.set()
                self._changed.clear()
                await self._changed.wait()
            batch = [self._queue.popleft() for _ in range(min(_BATCH, len(self._queue)))]
            self._in_hand = len(batch)
            await asyncio.gather(*(self._publish_one(producer, origin) for origin in batch))
            self._in_hand = 0

    async def flush(self, within_s: float) -> int:
        """Wait until everything is published, for at most `within_s` seconds; how many Kafka lacks after that."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._idle.wait()
        return self.waiting

    async def _publish_one(self, producer: Producer, origin: OriginObserved) -> None:
        key = origin.sha256 or (origin.url or origin.alias).encode()
        if self._settle is not None:
            origin = await self._settle(origin)
        try:
            await producer.publish(ORIGINS, origin, key=key)
            self._metrics.published.inc()
            self.published += 1
        except BrokerError as error:
            self._metrics.dropped.inc()
            log.error("an origin cannot be published", error=str(error))
