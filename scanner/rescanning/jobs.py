"""Which rescan this scanner is asked to work on, by the topic rescan.jobs."""

import asyncio
from collections.abc import Callable, Mapping

import structlog

from schemas.broker import Received
from schemas.messages import RescanOrdered, RescanState, RescanTier

log = structlog.get_logger("scanner.rescanning")


class Jobs:
    """The rescans of tier frames as they stand. `observe` is handed each record of the topic, from its beginning.

    A scanner works on those alone whose models are its own, by name and id: of any other it could not say what they
    would. Belongs to one event loop.
    """

    def __init__(self, models: Mapping[str, str]) -> None:
        self._models = dict(models)
        self._jobs: dict[bytes, RescanOrdered] = {}
        self._dropped: dict[str, RescanOrdered] = {}
        self._told: set[str] = set()
        self._changed = asyncio.Event()

    def observe(self, received: Received) -> None:
        """Take in one record; what cannot be read changes nothing."""
        job, key = received.message, received.key or b""
        if isinstance(job, RescanOrdered) and job.tier is RescanTier.FRAMES:
            self._jobs[key] = job
            self._tell_if_of_others(job)
        elif job is None and received.fault is None:
            self._jobs.pop(key, None)
        self._changed.set()

    async def next(self) -> RescanOrdered:
        """Wait for a rescan to work on; of several, the one that was ordered first."""
        await self._until(lambda: bool(self._open()))
        return min(self._open(), key=lambda job: (job.ordered_at, job.rescan))

    async def over(self, job: RescanOrdered) -> None:
        """Wait until a rescan does not run any more: cancelled, finished, or taken off the record."""
        await self._until(lambda: not any(each.rescan == job.rescan for each in self._running()))

    def drop(self, job: RescanOrdered) -> None:
        """Work no more on a rescan, until somebody publishes it anew."""
        self._dropped[job.rescan] = job

    def _running(self) -> list[RescanOrdered]:
        return [job for job in self._jobs.values() if job.state is RescanState.RUNNING and job.models == self._models]

    def _open(self) -> list[RescanOrdered]:
        return [job for job in self._running() if self._dropped.get(job.rescan) is not job]

    def _tell_if_of_others(self, job: RescanOrdered) -> None:
        if job.state is RescanState.RUNNING and job.models != self._models and job.rescan not in self._told:
            self._told.add(job.rescan)
            log.info("rescan_is_for_other_models", rescan=job.rescan, asked=job.models, loaded=self._models)

    async def _until(self, true: Callable[[], bool]) -> None:
        while not true():
            self._changed.clear()
            await self._changed.wait()
