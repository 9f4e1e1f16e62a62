"""A worker: judges its share of a rescan's records again, and publishes what comes of them.

Workers of one rescan are a consumer group over the source topic, so that any number share it by partition and Kafka
keeps how far they are. Nothing is kept besides: who is killed leaves the records since the last commit to be judged
twice, which says the same twice. The group's commits are the only word on what is done; the last worker to see that
all is done says so in the job.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

import structlog

from fediwarden.rescan.errors import RescanInvalid, RescanStateWrong
from fediwarden.rescan.jobs import CLIENT_ID, Jobs, change_state, read_jobs
from fediwarden.rescan.judging import (
    VIEWS,
    ConceptScores,
    HashJudge,
    Judge,
    KeptVerdict,
    Rejudging,
    ScoreJudge,
    VectorJudge,
)
from fediwarden.rescan.lookup import ListSearch
from fediwarden.settings import Settings
from gateway.lists.loaded import LoadedList, load_list
from gateway.lists.store import ListStore
from gateway.overrides.memory import Overrides
from scanner.concepts import embed_concepts
from scanner.models.loading import every_embedder, every_label, load_models
from scanner.models.model import Embedder, is_embedder
from scanner.policy import Policy, parse_policy
from schemas.broker import (
    BrokerSettings,
    BrokerUnavailable,
    Consumer,
    Partition,
    Producer,
    Received,
    Tail,
    check_topics,
    read_history,
    start_group,
)
from schemas.clock import now_ms
from schemas.messages import (
    FeaturesExtracted,
    OverrideSet,
    Rejudged,
    RescanJudged,
    RescanOrdered,
    RescanState,
    RescanTier,
)
from schemas.rescan_progress import Meter, Progress, read_progress, spans_of, topics_of
from schemas.topics import FEATURES, OVERRIDES, RESCAN_JOBS, RESCANS, VERDICTS

log = structlog.get_logger("fediwarden.rescan")

_POLL_MOST = 2_000
_POLL_S = 0.5
_LOOK_EVERY_S = 2.0
_IMAGES_MOST = 500
_BATCH_BYTES = 160 << 10
"""Of a record's 256 KiB: what is counted below is somewhat less than what is written."""

_FEATURES_BEFORE_MS = 3_600_000
"""A scanner publishes vectors before the verdict; the two may lie some time apart, by clocks or an outage."""

OnProgress = Callable[[Progress], None]


async def prepare_judge(settings: Settings, job: RescanOrdered) -> Judge:
    """The judge that `job` asks for. Raises `RescanInvalid` where what it names is not here any more.

    Also raises what loading raises: `gateway.lists.errors.ListError`, `scanner.models.model.ModelError`,
    `scanner.policy.PolicyError`, or a `schemas.broker.BrokerError`.
    """
    match job.tier:
        case RescanTier.SCORES:
            return ScoreJudge(read_policies(settings, job), job.models)
        case RescanTier.HASHES:
            return HashJudge(await asyncio.to_thread(_load_lists, settings, job), ListSearch())
        case RescanTier.VECTORS:
            return await _prepare_vector_judge(settings, job)
        case RescanTier.FRAMES:
            raise RescanInvalid(
                "tier", "frames are judged by scanners", remedy="start `fediwarden scanner` with the rescan's model"
            )


def read_policies(settings: Settings, job: RescanOrdered) -> dict[str, Policy]:
    """The policies of `job` by tenant. Raises `scanner.policy.PolicyError`."""
    labels, embedders = every_label(), every_embedder(settings.scanner.registry)
    return {
        tenant: parse_policy(text, labels, source=f"rescan {job.rescan}, policy of {tenant}", embedders=embedders)
        for tenant, text in job.policies.items()
    }


def _load_lists(settings: Settings, job: RescanOrdered) -> list[LoadedList]:
    assert settings.gateway.lists.folder is not None, "filled in by the settings"
    store = ListStore(settings.gateway.lists.folder)
    stamps = store.stamps()
    loaded = []
    for name, version in job.lists.items():
        there = load_list(store, name, stamps[name]) if name in stamps else None
        if there is None or there.version != version:
            now = "is not here" if there is None else f"is {there.version} here"
            raise RescanInvalid(
                "lists",
                f"the rescan {job.rescan} goes by {name}@{version}, and the list {now}",
                remedy=f"fediwarden rescan cancel {job.rescan}, and order it anew",
            )
        loaded.append(there)
    return loaded


async def _prepare_vector_judge(settings: Settings, job: RescanOrdered) -> VectorJudge:
    policies = read_policies(settings, job)
    names = sorted({name for policy in policies.values() for name in policy.concepts})
    scanner = settings.scanner
    models = await asyncio.to_thread(
        load_models,
        names,
        settings.models_dir,
        registry=scanner.registry,
        device=scanner.device,
        precision=scanner.precision,
        threads=scanner.threads,
    )
    embedders: dict[str, Embedder] = {model.name: model for model in models if is_embedder(model)}
    for name, model in embedders.items():
        if job.models.get(name, model.id) != model.id:
            raise RescanInvalid(
                "models",
                f"the rescan {job.rescan} goes by vectors of {name} {job.models[name]}, and here is {model.id}",
                remedy="run it where that model is, or order it anew",
            )
    wanted = {policy.id: policy for policy in policies.values()}
    concepts = {
        each: await asyncio.to_thread(embed_concepts, embedders, policy.concepts) for each, policy in wanted.items()
    }
    scores = ConceptScores(concepts, {name: model.id for name, model in embedders.items()})

    def take(received: Received) -> None:
        if isinstance(received.message, FeaturesExtracted):
            scores.take(received.message)

    since_ms = max(0, job.since - _FEATURES_BEFORE_MS)
    broker = settings.kafka.broker_settings()
    await check_topics(broker, (FEATURES,))
    await read_history(broker, (FEATURES,), since_ms=since_ms, on_record=take, client_id=CLIENT_ID)
    return VectorJudge(policies, scores)


async def read_overrides(broker: BrokerSettings, at_ms: int) -> Overrides:
    """The overrides in force at a moment, as the topic still has them. Raises a `schemas.broker.BrokerError`."""
    overrides = Overrides(clock=lambda: at_ms)

    def take(received: Received) -> None:
        # A later one is for whoever carries the outcome out; here it would make two workers differ.
        if not isinstance(received.message, OverrideSet) or received.message.set_at <= at_ms:
            overrides.observe(received)

    await check_topics(broker, (OVERRIDES,))
    await read_history(broker, (OVERRIDES,), since_ms=0, on_record=take, client_id=CLIENT_ID)
    return overrides


async def work(
    settings: Settings,
    job: RescanOrdered,
    *,
    worker: str,
    on_progress: OnProgress = lambda progress: None,
) -> RescanOrdered:
    """Judge records of `job` until all of them are done, by whomever; return the job as it stands then.

    Returns early where the job is cancelled. May be called in any number of processes at once, and again after any
    kill. Raises `RescanStateWrong` where it is past that, what `prepare_judge` raises, or a
    `schemas.broker.BrokerError`.
    """
    if job.state is not RescanState.RUNNING:
        raise RescanStateWrong(f"rescan {job.rescan} is {job.state.value}: there is nothing to judge")
    broker = settings.kafka.broker_settings()
    await check_topics(broker, (VERDICTS, RESCANS, RESCAN_JOBS))
    overrides = await read_overrides(broker, job.ordered_at)
    judge = await prepare_judge(settings, job)
    rejudging = Rejudging(judge, tenants=job.tenants, only=job.only, overrides=overrides)
    starts = {partition: begin for partition, (begin, _) in spans_of(job).items()}
    await start_group(broker, job.group, starts, client_id=CLIENT_ID)
    async with (
        Producer(broker, client_id=CLIENT_ID) as producer,
        Consumer(broker, topics_of(job), group=job.group, client_id=CLIENT_ID, views=VIEWS) as consumer,
    ):
        share = _Share(job, rejudging, consumer, producer, worker)
        await _judge_all(broker, job, share, on_progress)
        progress = await read_progress(broker, job)
        if progress.left:
            return (await read_jobs(broker)).get(job.rescan)
        finished = await _finish(broker, producer, job, worker)
    on_progress(Meter().note(progress))
    return finished


async def wait_for_scanners(
    settings: Settings, job: RescanOrdered, *, worker: str, on_progress: OnProgress = lambda progress: None
) -> RescanOrdered:
    """Look on while scanners judge a job of frames, and say when it is finished; as `work` else."""
    broker = settings.kafka.broker_settings()
    starts = {partition: begin for partition, (begin, _) in spans_of(job).items()}
    await start_group(broker, job.group, starts, client_id=CLIENT_ID)
    async with Producer(broker, client_id=CLIENT_ID) as producer:
        await _judge_all(broker, job, None, on_progress)
        if (await read_progress(broker, job)).left:
            return (await read_jobs(broker)).get(job.rescan)
        return await _finish(broker, producer, job, worker)


async def _judge_all(
    broker: BrokerSettings, job: RescanOrdered, share: "_Share | None", on_progress: OnProgress
) -> None:
    """Return when all records are done, or the job is not running any more."""
    jobs, meter = Jobs(), Meter()
    async with Tail(broker, (RESCAN_JOBS,), since_s=0, on_record=jobs.observe, client_id=CLIENT_ID) as tail:
        await tail.wait_positioned()
        look_at = time.monotonic()
        while jobs.get(job.rescan).state is RescanState.RUNNING:
            if time.monotonic() >= look_at:
                look_at = time.monotonic() + _LOOK_EVERY_S
                try:
                    progress = await read_progress(broker, job)
                except BrokerUnavailable as error:
                    log.warning("progress unknown, asking again", rescan=job.rescan, error=str(error))
                    continue
                on_progress(meter.note(progress))
                if not progress.left:
                    return
            if share is None:
                await asyncio.sleep(_LOOK_EVERY_S)
            else:
                await share.judge_some()


async def _finish(broker: BrokerSettings, producer: Producer, job: RescanOrdered, worker: str) -> RescanOrdered:
    stands = (await read_jobs(broker)).get(job.rescan)
    if stands.state is not RescanState.RUNNING:
        return stands  # another worker was faster, or it was cancelled at the last moment
    return await change_state(broker, producer, job.rescan, RescanState.FINISHED, by=worker)


class _Share:
    """What one worker does: polls, judges, publishes, and only then says that it is done."""

    def __init__(
        self, job: RescanOrdered, rejudging: Rejudging, consumer: Consumer, producer: Producer, worker: str
    ) -> None:
        self._job = job
        self._spans = spans_of(job)
        self._rejudging = rejudging
        self._consumer = consumer
        self._producer = producer
        self._worker = worker

    async def judge_some(self) -> None:
        records = await self._consumer.poll(max_messages=_POLL_MOST, timeout_s=_POLL_S)
        by_partition: dict[Partition, list[Received]] = {}
        for received in records:
            by_partition.setdefault(Partition(received.topic, received.partition), []).append(received)
        for partition, share in by_partition.items():
            begin, end = self._spans.get(partition, (0, 0))
            wanted = [received for received in share if begin <= received.offset < end]
            if wanted:
                for judged in self._judge(partition, wanted):
                    # One after another: Kafka bounds what is sent together, and several of these would be too much.
                    await self._producer.publish(RESCANS, judged, key=judged.key)
        for received in records:
            self._consumer.done(received)

    def _judge(self, partition: Partition, records: Sequence[Received]) -> Iterator[RescanJudged]:
        verdicts = []
        for received in records:
            if isinstance(received.message, KeptVerdict):
                if self._job.since <= received.timestamp_ms < self._job.until:
                    verdicts.append((received.offset, received.message))
            elif received.fault is not None:
                place = {"topic": partition.topic.name, "partition": partition.number, "offset": received.offset}
                log.warning("verdict_unreadable", rescan=self._job.rescan, fault=str(received.fault), **place)
        begin = records[0].offset
        batches = list(cut_batches(self._rejudging.rejudge(verdicts)))
        for number, images in enumerate(batches):
            last = number + 1 == len(batches)
            end = records[-1].offset + 1 if last else images[-1].offset + 1
            yield RescanJudged(
                rescan=self._job.rescan,
                topic=partition.topic.name,
                partition=partition.number,
                begin=begin,
                end=end,
                models=self._job.models,
                images=images,
                judged_at=now_ms(),
                worker=self._worker,
            )
            begin = end


def cut_batches(images: Iterable[Rejudged]) -> Iterator[tuple[Rejudged, ...]]:
    """Cut images into what fits into one record each: at least one batch, if only an empty one."""
    batch: list[Rejudged] = []
    size = 0
    for image in images:
        needed = _size_of(image)
        if batch and (len(batch) == _IMAGES_MOST or size + needed > _BATCH_BYTES):
            yield tuple(batch)
            batch, size = [], 0
        batch.append(image)
        size += needed
    yield tuple(batch)


_FIELDS: Final = 260
"""Bytes of an image's fields without rules and scores."""


def _size_of(image: Rejudged) -> int:
    rules = sum(40 + len(rule.name.encode()) for rule in image.rules)
    scores: Mapping[str, float] = image.scores
    return _FIELDS + rules + sum(12 + len(name.encode()) for name in scores)
