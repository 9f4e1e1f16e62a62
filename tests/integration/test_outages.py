"""A gateway whose Kafka is away, comes and goes: nothing is let in that is not going to be judged."""

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from fediwarden.erasure_check import search_spool
from fediwarden.kafka.cluster import Cluster
from gateway.frames.frame import FrameSet, Unreadable, UnreadableReason
from gateway.frames.pool import FramePool
from schemas.broker import BrokerSettings
from schemas.messages import AnsweredBy, Decision, ImageFailed
from schemas.topics import ANSWERS, IMAGES, IMAGES_BACKLOG, IMAGES_DEAD
from tests import pictures
from tests.gateways import NO_KAFKA, running_gateway, wait_for
from tests.kafka import find_free_ports
from tests.responder import Responder, answers_given
from tests.topics import read_topic

pytestmark = pytest.mark.kafka

PICT_RS = "/api/v1/scan/IPADDR"


def post(url: str, image: bytes) -> httpx.Response:
    return httpx.post(f"{url}{PICT_RS}", content=image, timeout=30)


def reject(_: object) -> Decision:
    return Decision.REJECT


def test_without_kafka_images_are_spooled_answered_at_once_and_judged_when_kafka_comes(
    make_kafka: Callable[[int], Cluster],
) -> None:
    cluster = make_kafka(1)
    cluster.kill_node(1)
    broker = BrokerSettings(bootstrap_servers=cluster.bootstrap_servers)
    images = [pictures.make("png", seed=seed) for seed in range(5)]
    with running_gateway(broker, deadline_ms=20_000) as running:
        answers = [post(running.url, image).json() for image in images]
        assert {answer["answered_by"] for answer in answers} == {"spooled"}
        ready = httpx.get(f"{running.url}/readyz")
        assert (ready.status_code, ready.json()["parts"]["spool"]["detail"]) == (503, "5 images wait on disk for Kafka")

        cluster.start()
        running.ready()
        with Responder(broker, reject, lanes=(IMAGES, IMAGES_BACKLOG)) as scanner:
            wait_for(lambda: len(scanner.from_backlog) == 5)
        assert [r.message.scan_id for r in _by_offset(broker)] == [answer["scan_id"] for answer in answers]
        entries = answers_given(broker, 5)
        assert {entry.answered_by for entry in entries} == {AnsweredBy.SPOOLED}
        assert {entry.carried_by for entry in entries} == {answer["scan_id"] for answer in answers}
        wait_for(lambda: "no image" in httpx.get(f"{running.url}/readyz").json()["parts"]["spool"]["detail"])
        running.stop()


def _by_offset(broker: BrokerSettings) -> list[Any]:
    return sorted(read_topic(broker, IMAGES_BACKLOG), key=lambda record: record.message.received_at)


def test_what_a_killed_gateway_had_spooled_and_answered_is_taken_over_by_the_next(
    fresh_kafka: BrokerSettings, tmp_path: Path
) -> None:
    image = pictures.make("png", seed=20)
    with _process(NO_KAFKA, tmp_path, find_free_ports(1)) as (killed, url):
        first = post(url, image).json()
        assert first["answered_by"] == "spooled"
        os.kill(killed.pid, signal.SIGKILL)
        killed.wait()
    assert read_topic(fresh_kafka, ANSWERS) == []
    with _process(fresh_kafka, tmp_path, find_free_ports(1)):
        wait_for(lambda: len(read_topic(fresh_kafka, IMAGES_BACKLOG)) == 1)
        assert [entry.scan_id for entry in answers_given(fresh_kafka, 1)] == [first["scan_id"]]
    with _process(fresh_kafka, tmp_path, find_free_ports(1)) as (_, url):
        wait_for(lambda: httpx.get(f"{url}/readyz").status_code == 200)
    assert len(read_topic(fresh_kafka, IMAGES_BACKLOG)) == len(read_topic(fresh_kafka, ANSWERS)) == 1


def test_a_gateway_stopped_while_kafka_is_away_leaves_everything_on_disk(
    fresh_kafka: BrokerSettings, tmp_path: Path
) -> None:
    with running_gateway(NO_KAFKA, spool_dir=tmp_path) as running:
        scan_id = post(running.url, pictures.make("png", seed=30)).json()["scan_id"]
    with running_gateway(fresh_kafka, spool_dir=tmp_path) as running:
        running.ready()
        wait_for(lambda: [r.message.scan_id for r in read_topic(fresh_kafka, IMAGES_BACKLOG)] == [scan_id])
        assert [entry.scan_id for entry in answers_given(fresh_kafka, 1)] == [scan_id]


def test_a_full_spool_is_answered_503_and_nothing_is_let_in() -> None:
    with running_gateway(NO_KAFKA, spool_max_bytes=1 << 20) as running:
        answers = [post(running.url, pictures.noise(seed)) for seed in range(12)]
        statuses = [answer.status_code for answer in answers]
        assert statuses[0] == 200 and statuses[-1] == 503
        assert statuses == sorted(statuses)
        refused = answers[-1].json()["error"]
        assert (refused["code"], "spool" in refused["message"] + refused["remedy"]) == ("full", True)


@contextmanager
def standing_still(cluster: Cluster) -> Iterator[None]:
    """Kafka does nothing inside the context, and goes on after it."""
    os.kill(cluster.pid(), signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(cluster.pid(), signal.SIGCONT)


def test_kafka_that_stops_answering_is_waited_for_until_just_before_the_deadline(
    fresh_kafka: BrokerSettings, kafka_cluster: Cluster
) -> None:
    with running_gateway(fresh_kafka, deadline_ms=1500) as running:
        running.ready()
        with standing_still(kafka_cluster):
            answer = post(running.url, pictures.make("png", seed=50)).json()
        assert answer["answered_by"] == "spooled"
        sent = {answer["scan_id"]}
        # In Kafka twice, perhaps: by the first try as well. One scan id, so it is one image.
        wait_for(lambda: {r.message.scan_id for r in read_topic(fresh_kafka, IMAGES_BACKLOG)} == sent)
        assert {r.message.scan_id for r in read_topic(fresh_kafka, IMAGES)} <= sent


@contextmanager
def _process(broker: BrokerSettings, folder: Path, port: int) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A gateway in a process of its own, with its key and its spool in `folder`."""
    program = f"""
import uvloop
from pathlib import Path
from gateway.frames.settings import FrameSettings
from gateway.service import run_gateway
from gateway.settings import GatewaySettings, TenantSettings
from schemas.broker import BrokerSettings
from schemas.keyring import Keyring
broker = BrokerSettings.model_validate({broker.model_dump()!r})
keyring = Keyring.load_or_create(Path({str(folder / "keys.json")!r}))
settings = GatewaySettings(port={port}, spool_dir=Path({str(folder / "spool")!r}), frames=FrameSettings(workers=1))
uvloop.run(run_gateway(settings, {{"default": TenantSettings()}}, broker, keyring))
"""
    process = subprocess.Popen([sys.executable, "-c", program])
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: _alive(url))
        yield process, url
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(40)


def _alive(url: str) -> bool:
    try:
        parts = httpx.get(f"{url}/readyz", timeout=5).json()["parts"]
    except httpx.TransportError:
        return False
    return bool(parts["frame_workers"]["ok"])


def test_a_gateway_that_ran_with_kafka_notices_that_it_is_gone(
    fresh_kafka: BrokerSettings, kafka_cluster: Cluster
) -> None:
    with running_gateway(fresh_kafka, deadline_ms=60_000) as running, ThreadPoolExecutor(1) as thread:
        running.ready()
        with standing_still(kafka_cluster):
            waiting = thread.submit(post, running.url, pictures.make("png", seed=60))
            wait_for(lambda: httpx.get(f"{running.url}/readyz").status_code == 503)
            # Others need not wait for it: the deadline is a minute away.
            assert post(running.url, pictures.make("png", seed=61)).json()["answered_by"] == "spooled"
        with Responder(fresh_kafka, reject, lanes=(IMAGES, IMAGES_BACKLOG)):
            assert waiting.result().json()["answered_by"] == "verdict"
        wait_for(lambda: httpx.get(f"{running.url}/readyz").status_code == 200)


def test_what_turns_out_to_be_no_image_after_its_request_was_answered_is_named_in_images_dead(
    fresh_kafka: BrokerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = threading.Event()

    async def extract_late(pool: FramePool, fd: int, length: int) -> FrameSet:
        await asyncio.to_thread(answered.wait)
        raise Unreadable(UnreadableReason.TOO_SLOW, "it took too long")

    monkeypatch.setattr(FramePool, "extract", extract_late)
    with running_gateway(fresh_kafka, deadline_ms=100) as running:
        running.ready()
        answer = post(running.url, pictures.make("png", seed=70)).json()
        assert answer["answered_by"] == "deadline"
        answered.set()
        wait_for(lambda: bool(read_topic(fresh_kafka, IMAGES_DEAD)))
        (record,) = read_topic(fresh_kafka, IMAGES_DEAD)
        assert isinstance(record.message, ImageFailed)
        assert (record.message.scan_id, record.message.reason) == (answer["scan_id"], "too_slow")


def test_frames_that_wait_in_the_spool_are_found_by_the_erasure_check(tmp_path: Path) -> None:
    image = pictures.make("png", seed=80)
    sha256 = hashlib.sha256(image).digest()
    with running_gateway(NO_KAFKA, spool_dir=tmp_path) as running:
        assert post(running.url, image).json()["answered_by"] == "spooled"
        found = search_spool(tmp_path, sha256)
        assert found and {each.what for each in found} == {"spool"}
        assert search_spool(tmp_path, hashlib.sha256(b"another").digest()) == []
