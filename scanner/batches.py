"""Micro-batches: what is there now, a little more if more is on its way, never a wait for nothing."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Batcher(Generic[Item]):
    """Collects items into batches for one consumer, in order, each exactly once.

    An item is first announced (`expect`), then either arrives (`put`) or does not (`withdraw`). `take` gives what is
    there as soon as nothing else is announced; while something is, it waits for it, but never longer than
    `max_wait_s` seconds after it found the first item, and not at all once a batch is full. A batch weighs at most
    `max_weight`; an item that is heavier alone makes a batch of its own. What is put behind comes in
    batches of its own, only while nothing else is there or announced, and is not waited for. Belongs to one event loop.
    """

    def __init__(self, *, max_weight: int, max_wait_s: float, weigh: Callable[[Item], int] = lambda _: 1) -> None:
        if max_weight < 1:
            raise ValueError(f"max_weight must be at least 1, not {max_weight}")
        if max_wait_s < 0:
            raise ValueError(f"max_wait_s must not be negative, not {max_wait_s}")
        self._max_weight = max_weight
        self._max_wait_s = max_wait_s
        self._weigh = weigh
        self._items: deque[Item] = deque()
        self._behind: deque[Item] = deque()
        self._weight = 0
        self._expected = 0
        self._closed = False
        self._changed = asyncio.Event()

    def expect(self) -> None:
        """Announce one item."""
        self._expected += 1

    def put(self, item: Item) -> None:
        """Hand in an announced item."""
        self._settle_one()
        self._items.append(item)
        self._weight += self._weigh(item)

    def put_behind(self, item: Item) -> None:
        """Hand in an item that was not announced and waits for all that are."""
        self._behind.append(item)
        self._changed.set()

    def withdraw(self) -> None:
        """Say that one announced item will not come."""
        self._settle_one()

    def close(self) -> None:
        """Give out what is left, then empty batches for ever."""
        self._closed = True
        self._changed.set()

    def give_up(self) -> list[Item]:
        """All items that wait for a batch, but for what was put behind; they wait no more."""
        items = list(self._items)
        self._items.clear()
        self._weight = 0
        return items

    async def take(self) -> list[Item]:
        """Return the next batch; an empty one means closed."""
        while not self._items:
            if self._behind and not self._expected:
                return self._cut(self._behind)[0]
            if self._closed:
                return []
            self._changed.clear()
            await self._changed.wait()
        if self._worth_waiting():
            try:
                async with asyncio.timeout(self._max_wait_s):
                    while self._worth_waiting():
                        self._changed.clear()
                        await self._changed.wait()
            except TimeoutError:
                pass
        batch, weight = self._cut(self._items)
        self._weight -= weight
        return batch

    def _worth_waiting(self) -> bool:
        return self._expected > 0 and self._weight < self._max_weight and not self._closed

    def _settle_one(self) -> None:
        if self._expected < 1:
            raise RuntimeError("an item was handed in or withdrawn that nobody announced")
        self._expected -= 1
        self._changed.set()

    def _cut(self, items: deque[Item]) -> tuple[list[Item], int]:
        """The next batch of `items`, which are fewer afterwards, and its weight."""
        batch = [items.popleft()]
        weight = self._weigh(batch[0])
        while items and weight + (more := self._weigh(items[0])) <= self._max_weight:
            batch.append(items.popleft())
            weight += more
        return batch, weight
