"""The scanner's process: from settings to a member of the group, and back out again."""

import asyncio
import os
import secrets
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import structlog

from scanner.announcing import Announcer, RateMeter
from scanner.decoding import Decoder
from scanner.inference import Inference
from scanner.models.loading import load_models, warm
from scanner.models.model import Model, ModelError
from scanner.models.onnx_session import usable_cores
from scanner.policy import Policy, load_policy
from scanner.scanning import Scanning
from scanner.scoring import score_labels
from scanner.settings import ScannerSettings
from schemas.broker import BrokerSettings, Consumer, Producer, check_topics
from schemas.keyring import Keyring
from schemas.topics import IMAGES, IMAGES_ARCHIVE, IMAGES_BACKLOG, IMAGES_DEAD, SCANNERS, VERDICTS

log = structlog.get_logger("scanner.service")

LANES = (IMAGES, IMAGES_BACKLOG)
MIN_IN_FLIGHT = 16
CUDA_BATCH = 32
MAX_CPU_BATCH = 8
NEEDED_TOPICS = (*LANES, VERDICTS, IMAGES_ARCHIVE, IMAGES_DEAD, SCANNERS)


async def run_scanner(
    settings: ScannerSettings,
    broker: BrokerSettings,
    keyring: Keyring,
    *,
    models: Sequence[Model] | None = None,
    policy: Policy | None = None,
) -> None:
    """Judge images until SIGTERM or SIGINT, then finish or hand back what is in hand.

    `models` and `policy` take the place of those that the settings name.
    Raises `ModelError`, `ModelBroken`, `PolicyError`, or a `schemas.broker.BrokerError` when it cannot start or go
    on; each message names the remedy.
    """
    stop = asyncio.Event()
    with _stopping_at_signals(stop):
        await serve(settings, broker, keyring, stop, models=models, policy=policy)


async def serve(
    settings: ScannerSettings,
    broker: BrokerSettings,
    keyring: Keyring,
    stop: asyncio.Event,
    *,
    models: Sequence[Model] | None = None,
    policy: Policy | None = None,
) -> None:
    """Judge images until `stop` is set; otherwise as `run_scanner`."""
    await check_topics(broker, NEEDED_TOPICS)
    # Loading takes a second of CPU: not on the event loop.
    models = await asyncio.to_thread(_load, settings, models)
    policy = policy or load_policy(settings.policy, score_labels(models))
    scanner = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"

    batch = settings.batch or _batch_for(models)
    decoder = Decoder(keyring, models, threads=settings.decode_threads)
    inference = Inference(models, batch=batch, max_wait_s=settings.max_wait_ms / 1000.0)
    meter = RateMeter()
    try:
        async with (
            Producer(broker, client_id=scanner) as producer,
            Consumer(broker, LANES, group=settings.group, client_id=scanner) as consumer,
        ):
            scanning = Scanning(
                scanner=scanner,
                consumer=consumer,
                producer=producer,
                decoder=decoder,
                inference=inference,
                models=models,
                policy=policy,
                meter=meter,
                in_flight=settings.in_flight or max(4 * batch, MIN_IN_FLIGHT),
                archive=settings.archive,
            )
            announcer = Announcer(
                producer,
                scanner=scanner,
                group=settings.group,
                models=models,
                policy=policy,
                meter=meter,
                every_s=settings.announce_s,
            )
            log.info(
                "scanner_ready",
                scanner=scanner,
                group=settings.group,
                models={model.name: model.id for model in models},
                policy=policy.name,
                policy_id=policy.id,
                batch=batch,
            )
            await _run_until(stop, scanning, inference, announcer, stop_s=settings.stop_s)
    finally:
        decoder.close()
    log.info("scanner_stopped", scanner=scanner)


async def _run_until(
    stop: asyncio.Event, scanning: Scanning, inference: Inference, announcer: Announcer, *, stop_s: float
) -> None:
    """Run the parts until `stop`, or until one of them fails; then wind down and raise what failed."""
    stopped = asyncio.create_task(stop.wait())
    taking = asyncio.create_task(scanning.take(), name="take")
    inferring = asyncio.create_task(inference.run(), name="infer")
    announcing = asyncio.create_task(announcer.run(), name="announce")
    parts = [taking, inferring, announcing]
    try:
        await asyncio.wait([stopped, *parts], return_when=asyncio.FIRST_COMPLETED)
        failure = next((part.exception() for part in parts if part.done() and not part.cancelled()), None)
        taking.cancel()
        # Without a working model nothing in hand can be finished; all of it is handed back.
        given_up = await scanning.finish(within_s=0.0 if inferring.done() else stop_s)
        if given_up:
            log.warning("images_handed_back", count=given_up)
        announcing.cancel()
        await announcer.leave()
        if failure is not None:
            raise failure
    finally:
        inference.close()
        for task in (stopped, taking, announcing, inferring):
            task.cancel()
        await asyncio.gather(stopped, *parts, return_exceptions=True)


def _batch_for(models: Sequence[Model]) -> int:
    """Choose how many frames to score at a time.

    On 2 cores both default models take the same time per frame in batches of 1, 4 and 8 (27, 27 and 30 ms), so that
    a batch only makes its first image as late as its last; with more cores than one frame can use, it pays.
    """
    if any(model.device != "cpu" for model in models):
        return CUDA_BATCH
    return max(1, min(MAX_CPU_BATCH, usable_cores() // 2))


def _load(settings: ScannerSettings, models: Sequence[Model] | None) -> tuple[Model, ...]:
    if models is not None:
        for model in models:
            warm(model)
        return tuple(models)
    if settings.models_dir is None:
        raise ModelError("scanner.models_dir is not set: name the folder that holds the models' weights")
    return load_models(settings.models, settings.models_dir, device=settings.device, threads=settings.threads)


@contextmanager
def _stopping_at_signals(stop: asyncio.Event) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        loop.add_signal_handler(number, stop.set)
    try:
        yield
    finally:
        for number in signals:
            loop.remove_signal_handler(number)
