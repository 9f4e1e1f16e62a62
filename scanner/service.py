"""The scanner's process: from settings to a member of the group, and back out again."""

import asyncio
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import structlog

from scanner.announcing import Announcer, RateMeter
from scanner.concepts import Concepts, PolicyConcepts
from scanner.decoding import THREAD_NAME as DECODING
from scanner.decoding import Decoder
from scanner.inference import THREAD_NAME as INFERENCE
from scanner.inference import Inference
from scanner.judging import Judging
from scanner.metrics import ScannerMetrics
from scanner.models.batch_size import LARGEST, find_batch_for
from scanner.models.loading import load_models, warm
from scanner.models.model import Model, ModelBroken, ModelError, ModelHung, is_classifier, is_embedder
from scanner.models.onnx_session import usable_cores
from scanner.policy import Policy, PolicyError, PolicySet, is_shipped, load_policies
from scanner.promotion.fitting import check_models, check_policies
from scanner.promotion.following import Check, Follower
from scanner.promotion.promoted import read_promoted
from scanner.reloading import LivePolicies, Reloader
from scanner.rescanning.rescanner import Rescanner
from scanner.scanning import LIVE_FOR_ONE_OF_BACKLOG, Scanning
from scanner.scoring import score_labels
from scanner.settings import ScannerSettings
from schemas.broker import BrokerSettings, Consumer, Producer, check_topics
from schemas.keyring import Keyring
from schemas.messages import ModelsPromoted
from schemas.topics import (
    FEATURES,
    IMAGES,
    IMAGES_ARCHIVE,
    IMAGES_BACKLOG,
    IMAGES_DEAD,
    RESCAN_JOBS,
    RESCANS,
    SCANNERS,
    VERDICTS,
    VERDICTS_SHADOW,
)

log = structlog.get_logger("scanner.service")

LANES = (IMAGES, IMAGES_BACKLOG)
MIN_IN_FLIGHT = 16
CUDA_BATCH = 32
MAX_CPU_BATCH = 8
SUSPECTS_WITHIN_S = 3.0
LOADING = "loading"
START_AGAIN: Final = 85
"""The exit status of a scanner that left for other models, and wants to be started again at once."""

LOADS_IN_HANGS = 5
"""Loading may take so many times `hang_s`: weights come from disks and over networks."""

THREADS_END_WITHIN_S = 0.5
NEEDED_TOPICS = (*LANES, VERDICTS, IMAGES_ARCHIVE, IMAGES_DEAD, SCANNERS)
SHADOW_TOPICS = (*LANES, VERDICTS_SHADOW, SCANNERS)


@dataclass(frozen=True, slots=True)
class Shelf:
    """Where a scanner has its models from, by their names. Both block.

    `load` verifies, loads and warms, and raises as `scanner.models.loading.load_models`; `check` does as both functions
    of `scanner.promotion.fitting`.
    """

    load: Callable[[Sequence[str]], Sequence[Model]]
    check: Check


class Loaded(NamedTuple):
    """What a scanner judges with. `refused` is the promotion that should have chosen the models, and could not."""

    models: tuple[Model, ...]
    batch: int
    policies: PolicySet
    concepts: Concepts
    prepared: dict[str, PolicyConcepts]
    refused: ModelsPromoted | None = None


async def run_scanner(
    settings: ScannerSettings,
    broker: BrokerSettings,
    keyring: Keyring,
    *,
    models: Sequence[Model] | None = None,
    policy: Policy | None = None,
    metrics: ScannerMetrics | None = None,
) -> int:
    """Judge images until SIGTERM or SIGINT, then finish or hand back what is in hand.

    Returns the status to exit with: 0 at a stop; `START_AGAIN` where other models have been promoted, and are to be
    loaded by a process of their own. Which models it judges with is what is promoted for its group, else what the
    settings name; `models` and `policy` take the place of both. Policy files are taken up anew when they change.
    Raises `ModelError`, `ModelBroken`, `PolicyError`, or a `schemas.broker.BrokerError` when it cannot start or go
    on; each message names the remedy.

    Ends the process at once where a thread does not end, for Python would wait for it: with the status that it would
    have returned, or with `ModelHung.exit_code` where a model has hung for `settings.hang_s` seconds.
    """
    stop = asyncio.Event()
    status = 0
    has_hung = False
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        if await serve(settings, broker, keyring, stop, models=models, policy=policy, metrics=metrics):
            status = START_AGAIN
    except ModelHung as hung:
        log.error("model_hung", error=str(hung), then="ending this process, what is in hand goes to others")
        status, has_hung = hung.exit_code, True
    if has_hung or _is_a_thread_stuck():
        log.warning("process_ended_hard", status=status)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


async def serve(
    settings: ScannerSettings,
    broker: BrokerSettings,
    keyring: Keyring,
    stop: asyncio.Event,
    *,
    models: Sequence[Model] | None = None,
    policy: Policy | None = None,
    shelf: Shelf | None = None,
    metrics: ScannerMetrics | None = None,
) -> bool:
    """Judge images until `stop` is set, or until it is this scanner's turn to make room for one with other models.

    Says whether the latter has come. Otherwise as `run_scanner`, but for raising `ModelHung`. `shelf` takes the place
    of the registry.
    """
    await check_topics(broker, SHADOW_TOPICS if settings.shadow else NEEDED_TOPICS)
    shelf = shelf or _shelf_of(settings, policy)
    metrics = metrics or ScannerMetrics()
    follows = models is None and not settings.shadow
    promoted = None
    if models is not None:
        loading = _load(settings, partial(_warm_all, models), (), policy, stop)
    else:
        if follows:
            promoted = (await read_promoted(broker, client_id="fediwarden-scanner")).of(settings.group_in_force)
        loading = _load_promoted(settings, shelf, promoted, policy, stop)
    loaded = await loading
    if loaded is None:
        return False
    models, batch, first, concepts, prepared, refused = loaded
    policies = LivePolicies(first, prepared)
    features = settings.features and not settings.shadow and any(is_embedder(model) for model in models)
    if features:
        await check_topics(broker, (FEATURES,))
    rescans = settings.rescans and not settings.shadow
    if rescans:
        await check_topics(broker, (RESCAN_JOBS, RESCANS))
    scanner = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"

    in_flight = settings.in_flight or max(4 * batch, MIN_IN_FLIGHT)
    # Threads of their own for rescans: a live image shall find none before it.
    decoder, behind = (
        Decoder(keyring, models, threads=settings.decode_threads, hang_s=settings.hang_s) for _ in range(2)
    )
    inference = Inference(
        models, batch=batch, max_wait_s=settings.max_wait_ms / 1000.0, hang_s=settings.hang_s, metrics=metrics
    )
    metrics.watch_models(models)
    meter = RateMeter()
    try:
        async with (
            Producer(broker, client_id=scanner) as producer,
            Consumer(
                broker,
                LANES,
                group=settings.group_in_force,
                client_id=scanner,
                session_timeout_s=settings.session_timeout_s,
                instance=settings.instance,
            ) as consumer,
        ):
            metrics.kafka.watch_producer(producer)
            metrics.kafka.watch_consumer(settings.group_in_force, consumer)
            scanning = Scanning(
                scanner=scanner,
                consumer=consumer,
                producer=producer,
                judging=Judging(decoder, inference),
                models=models,
                policies=policies,
                meter=meter,
                in_flight=in_flight,
                # Enough to keep the model busy, and for the backlog's share where it waits behind many live ones.
                backlog_in_flight=max(2 * batch, 1 + in_flight // LIVE_FOR_ONE_OF_BACKLOG),
                archive=settings.archive,
                features=features,
                shadow=settings.shadow,
                metrics=metrics,
            )
            announcer = Announcer(
                producer,
                scanner=scanner,
                group=settings.group_in_force,
                models=models,
                policies=policies,
                meter=meter,
                every_s=settings.announce_s,
                shadow=settings.shadow,
                instance=settings.instance or "",
            )
            reloader = Reloader(
                policies,
                files=() if policy else _policy_files(settings),
                read=partial(_read_policies, settings, models),
                prepare=concepts.prepare_all,
                announce=announcer.announce_now,
            )
            rescanner = Rescanner(
                broker=broker,
                scanner=scanner,
                producer=producer,
                judging=Judging(behind, inference, behind=True),
                models=models,
                concepts=concepts,
                quiet=scanning.quiet,
                in_flight=2 * batch,
                session_timeout_s=settings.session_timeout_s,
            )
            follower = Follower(
                broker=broker,
                scanner=scanner,
                group=settings.group_in_force,
                own=[model.name for model in models],
                chosen=settings.models,
                check=shelf.check,
                announcer=announcer,
                refused=refused,
            )
            log.info(
                "scanner_ready",
                scanner=scanner,
                group=settings.group_in_force,
                models={model.name: model.id for model in models},
                policies=policies.ids,
                batch=batch,
            )
            leaves_for_others = await _run_until(
                stop,
                scanning,
                inference,
                announcer,
                reloader,
                rescanner if rescans else None,
                follower if follows else None,
                stop_s=settings.stop_s,
            )
    finally:
        decoder.close()
        behind.close()
    log.info("scanner_stopped", scanner=scanner, start_again=leaves_for_others)
    return leaves_for_others


async def _run_until(
    stop: asyncio.Event,
    scanning: Scanning,
    inference: Inference,
    announcer: Announcer,
    reloader: Reloader,
    rescanner: Rescanner | None,
    follower: Follower | None,
    *,
    stop_s: float,
) -> bool:
    """Run the parts until `stop`, or until one of them fails; then wind down and raise what failed.

    Also until `follower` says that it is time to leave for other models; returns whether it did.
    """
    stopped = asyncio.create_task(stop.wait())
    taking = asyncio.create_task(scanning.take(), name="take")
    inferring = asyncio.create_task(inference.run(), name="infer")
    announcing = asyncio.create_task(announcer.run(), name="announce")
    reloading = asyncio.create_task(reloader.run(), name="reload")
    rescanning = [asyncio.create_task(rescanner.run(), name="rescan")] if rescanner is not None else []
    following = [asyncio.create_task(follower.run(), name="follow")] if follower is not None else []
    parts: list[asyncio.Task[Any]] = [taking, inferring, announcing, reloading, *rescanning, *following]
    try:
        await asyncio.wait([stopped, *parts], return_when=asyncio.FIRST_COMPLETED)
        ended = [part for part in parts if part.done() and not part.cancelled()]
        failure = next((error for part in ended if (error := part.exception()) is not None), None)
        leaves_for_others = failure is None and not stop.is_set() and any(part.done() for part in following)
        for part in (taking, reloading, *rescanning, *following):
            part.cancel()
        # Without a working model nothing in hand can be finished; but what a model hung or broke on is put aside.
        without_model_s = SUSPECTS_WITHIN_S if isinstance(failure, ModelHung | ModelBroken) else 0.0
        given_up = await scanning.finish(within_s=without_model_s if inferring.done() else stop_s)
        if given_up:
            log.warning("images_handed_back", count=given_up)
        if rescanning:
            await asyncio.wait(rescanning)  # it publishes what it has, and gives its partitions to others
        announcing.cancel()
        await announcer.leave(to_come_back=leaves_for_others)
        if failure is not None:
            raise failure
        return leaves_for_others
    finally:
        inference.close()
        for task in (stopped, *parts):
            task.cancel()
        await asyncio.gather(stopped, *parts, return_exceptions=True)


def _read_policies(settings: ScannerSettings, models: Sequence[Model]) -> PolicySet:
    embedders = [model.name for model in models if is_embedder(model)]
    return load_policies(settings.policy, settings.policies, score_labels(models), embedders)


def _policy_files(settings: ScannerSettings) -> list[Path]:
    given = [settings.policy, *settings.policies.values()]
    return [path for path in given if path is not None and not is_shipped(path)]


def _is_a_thread_stuck() -> bool:
    """Whether one of our threads is in a call that does not come back."""
    ours = [thread for thread in threading.enumerate() if thread.name.startswith((LOADING, DECODING, INFERENCE))]
    give_up_at = time.monotonic() + THREADS_END_WITHIN_S
    for thread in ours:
        thread.join(max(0.0, give_up_at - time.monotonic()))
    return any(thread.is_alive() for thread in ours)


def _batch_for(models: Sequence[Model]) -> int:
    """Choose how many frames to score at a time: what suits every model. Tries embedders out, which takes seconds.

    On a CPU that is two frames for each core, so that none waits for the other at the end of every one: on 2 cores with
    both default models 16 images/s in batches of 4, 15 in batches of 2 (see `OnnxSession`).
    """
    on_cpu = min(MAX_CPU_BATCH, 2 * usable_cores())
    sizes = [CUDA_BATCH if model.device != "cpu" else on_cpu for model in models if is_classifier(model)]
    sizes += [
        find_batch_for(model, largest=MAX_CPU_BATCH if model.device == "cpu" else LARGEST)
        for model in models
        if is_embedder(model)
    ]
    return min(sizes)


def _warm_all(models: Sequence[Model], _: Sequence[str]) -> Sequence[Model]:
    for model in models:
        warm(model)
    return models


def _shelf_of(settings: ScannerSettings, policy: Policy | None) -> Shelf:
    """The registry, and the policies of the settings unless `policy` takes their place."""

    def load(names: Sequence[str]) -> Sequence[Model]:
        if settings.models_dir is None:
            raise ModelError("scanner.models_dir is not set: name the folder that holds the models' weights")
        return load_models(
            names,
            settings.models_dir,
            registry=settings.registry,
            device=settings.device,
            precision=settings.precision,
            threads=settings.threads,
        )

    def check(names: Sequence[str]) -> None:
        check_models(settings, names)
        if policy is None:
            check_policies(settings, names)

    return Shelf(load, check)


async def _load_promoted(
    settings: ScannerSettings, shelf: Shelf, promoted: ModelsPromoted | None, policy: Policy | None, stop: asyncio.Event
) -> Loaded | None:
    """Load what is promoted; what the settings name where nothing is, or where it cannot be loaded or judged.

    Images must be judged, if not by the models that were promoted. The log says why; see `Loaded.refused`.
    """
    chosen = settings.models
    if promoted is None or set(promoted.models) == set(chosen):
        log.info("models_chosen", models=chosen, by="scanner.models" if promoted is None else "promotion and settings")
        return await _load(settings, shelf.load, chosen, policy, stop)
    by = {"promoted_by": promoted.promoted_by, "promoted_at": promoted.promoted_at}
    try:
        loaded = await _load(settings, shelf.load, promoted.models, policy, stop)
    except (ModelError, ModelBroken, PolicyError) as error:
        log.error("promoted_models_refused", models=promoted.models, error=str(error), judging_with=chosen, **by)
    else:
        log.info("models_chosen", models=promoted.models, by="promotion", instead_of=chosen, **by)
        return loaded
    instead = await _load(settings, shelf.load, chosen, policy, stop)
    if instead is None:
        return None
    try:
        await asyncio.to_thread(shelf.check, promoted.models)
    except (ModelError, PolicyError):
        return instead  # as soon as that is mended, it leaves for them
    return instead._replace(refused=promoted)


async def _load(
    settings: ScannerSettings,
    load: Callable[[Sequence[str]], Sequence[Model]],
    names: Sequence[str],
    policy: Policy | None,
    stop: asyncio.Event,
) -> Loaded | None:
    """Models, loaded and warm, and what judges with them; None when `stop` came first."""
    loaded = await _load_within(settings, lambda: load(names), stop)
    if loaded is None:
        return None
    models, batch = loaded
    policies = PolicySet(policy) if policy else _read_policies(settings, models)
    concepts = Concepts(models)
    return Loaded(models, batch, policies, concepts, await concepts.prepare_all(policies.all))


async def _load_within(
    settings: ScannerSettings, load: Callable[[], Sequence[Model]], stop: asyncio.Event
) -> tuple[tuple[Model, ...], int] | None:
    """The models, loaded and warm, and their batch; None when `stop` came first.

    Raises `ModelHung` when it takes far too long.
    """
    within_s = LOADS_IN_HANGS * settings.hang_s

    def load_and_try() -> tuple[tuple[Model, ...], int]:
        models = tuple(load())
        return models, settings.batch or _batch_for(models)

    # Loading takes a second of CPU or more: not on the event loop.
    thread = ThreadPoolExecutor(1, thread_name_prefix=LOADING)
    loading = asyncio.get_running_loop().run_in_executor(thread, load_and_try)
    thread.shutdown(wait=False)
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((loading, stopped), timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopped.cancel()
    if loading.done():
        return loading.result()
    if stop.is_set():
        return None
    raise ModelHung(f"the models are not loaded after {within_s:g} s ({LOADS_IN_HANGS} times scanner.hang_s)")
