"""Joining a rescan when there is one for this scanner, and leaving it when it is over."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog

from scanner.concepts import Concepts
from scanner.judging import Judging
from scanner.models.model import Model, ModelError
from scanner.policy import PolicyError
from scanner.rescanning.jobs import Jobs
from scanner.rescanning.policies import prepare_policies
from scanner.rescanning.share import Share, count_left
from schemas.broker import BrokerRefused, BrokerSettings, BrokerUnavailable, Consumer, Producer, PublishRefused, Tail
from schemas.messages import RescanOrdered
from schemas.topics import IMAGES_ARCHIVE, RESCAN_JOBS

log = structlog.get_logger("scanner.rescanning")

_RETRY_S = 5.0


class Rescanner:
    """Works on the rescans of tier frames that ask for `models`, one after another.

    `judging` judges behind everything else; `quiet` waits until nothing else is in hand.
    """

    def __init__(
        self,
        *,
        broker: BrokerSettings,
        scanner: str,
        producer: Producer,
        judging: Judging,
        models: Sequence[Model],
        concepts: Concepts,
        quiet: Callable[[], Awaitable[None]],
        in_flight: int,
        session_timeout_s: float,
    ) -> None:
        self._broker = broker
        self._scanner = scanner
        self._producer = producer
        self._judging = judging
        self._models = models
        self._concepts = concepts
        self._quiet = quiet
        self._in_flight = in_flight
        self._session_timeout_s = session_timeout_s
        self._jobs = Jobs({model.name: model.id for model in models})

    async def run(self) -> None:
        """Work until cancelled, which takes a few seconds. Raises what `quiet` raises, `ModelHung`, or a `BrokerError`
        when it cannot follow rescan.jobs; what is wrong with one rescan is logged, and that rescan left to others."""
        jobs = self._jobs
        topics = [RESCAN_JOBS]
        async with Tail(self._broker, topics, since_s=0.0, on_record=jobs.observe, client_id=self._scanner) as tail:
            await tail.wait_positioned()
            while True:
                job = await jobs.next()
                try:
                    await self._join(job)
                except BrokerUnavailable as error:
                    log.warning("rescan_interrupted", rescan=job.rescan, error=str(error), again_in_s=_RETRY_S)
                    await asyncio.sleep(_RETRY_S)
                except (BrokerRefused, PublishRefused, PolicyError, ModelError) as error:
                    log.error("rescan_refused", rescan=job.rescan, error=str(error))
                    jobs.drop(job)

    async def _join(self, job: RescanOrdered) -> None:
        """Take part in a rescan until it is over."""
        if await count_left(self._broker, job) == 0:
            self._jobs.drop(job)
            return
        policies = await prepare_policies(job, self._models, self._concepts)
        # No static membership: a scanner that leaves gives its partitions to the others at once.
        async with Consumer(
            self._broker,
            (IMAGES_ARCHIVE,),
            group=job.group,
            client_id=self._scanner,
            session_timeout_s=self._session_timeout_s,
        ) as consumer:
            log.info("rescan_joined", rescan=job.rescan)
            share = Share(
                job,
                policies,
                broker=self._broker,
                scanner=self._scanner,
                consumer=consumer,
                producer=self._producer,
                judging=self._judging,
                quiet=self._quiet,
                in_flight=self._in_flight,
            )
            working = asyncio.create_task(share.work(), name="rescan")
            over = asyncio.create_task(self._jobs.over(job), name="rescan-over")
            try:
                await asyncio.wait((working, over), return_when=asyncio.FIRST_COMPLETED)
                if working.done():
                    working.result()
                    self._jobs.drop(job)
            finally:
                working.cancel()
                over.cancel()
                await asyncio.gather(working, over, return_exceptions=True)
                await share.finish()
        log.info("rescan_left", rescan=job.rescan)
