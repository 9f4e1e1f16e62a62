"""The gateway on a real Kafka; a small responder plays the scanner."""

import asyncio
import hashlib
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from gateway.service import Gateway
from gateway.settings import TenantSettings
from schemas.broker import BrokerSettings, Producer, TopicsNotReady, apply_topics
from schemas.clock import now_ms
from schemas.keyring import Keyring
from schemas.messages import (
    AnsweredBy,
    Decision,
    ImageFailed,
    ImageSubmitted,
)
from schemas.topics import IMAGES, IMAGES_BACKLOG, IMAGES_DEAD, VERDICTS
from tests import pictures
from tests.gateways import RunningGateway, running_gateway, settings, wait_for
from tests.kafka import find_free_ports
from tests.responder import Responder, answers_given, make_verdict

pytestmark = pytest.mark.kafka

PICT_RS = "/api/v1/scan/IPADDR"


def post(running: RunningGateway, image: bytes, *, path: str = PICT_RS, **more: Any) -> httpx.Response:
    return httpx.post(f"{running.url}{path}", content=image, timeout=30, **more)


def by_size(image: ImageSubmitted) -> Decision:
    return (Decision.ACCEPT, Decision.REVIEW, Decision.REJECT)[image.length % 3]


def image_for(decision: Decision, seed: int) -> bytes:
    """A PNG that `by_size` decides so; bytes after a PNG's end are nobody's business."""
    image = pictures.make("png", seed=seed)
    wanted = [Decision.ACCEPT, Decision.REVIEW, Decision.REJECT].index(decision)
    return image + b"\0" * ((wanted - len(image)) % 3)


def test_every_image_is_answered_by_its_verdict_and_recorded(fresh_kafka: BrokerSettings) -> None:
    with Responder(fresh_kafka, by_size) as scanner, running_gateway(fresh_kafka, deadline_ms=20_000) as running:
        running.ready()
        images = {d: image_for(d, seed=n) for n, d in enumerate(Decision)}
        answers = {decision: post(running, image) for decision, image in images.items()}
        assert {decision: answer.status_code for decision, answer in answers.items()} == {
            Decision.ACCEPT: 200,
            Decision.REVIEW: 200,
            Decision.REJECT: 406,
        }
        for decision, answer in answers.items():
            body = answer.json()
            assert (body["decision"], body["answered_by"]) == (decision, "verdict")
            assert body["media_type"] == "image/png"
            assert body["scores"] == {"stand-in/nsfw": 0.5}
        assert answers[Decision.REJECT].json()["rules"] == [{"name": "rule", "decision": "reject", "frame": 0}]
        entries = {entry.scan_id: entry for entry in answers_given(fresh_kafka, 3)}
        assert {a.json()["scan_id"]: a.status_code for a in answers.values()} == {
            scan_id: entry.status for scan_id, entry in entries.items()
        }
        submitted = next(image for image in scanner.seen if image.sha256 == sha256(images[Decision.REJECT]))
        jpegs = running.keyring.open(submitted.sealed, sha256=submitted.sha256, tenant="default")
        assert len(jpegs) == len(submitted.frames) == 1
        assert jpegs[0].startswith(b"\xff\xd8")
        assert submitted.deadline_at - submitted.received_at == 20_000


def test_known_bytes_are_answered_from_memory_by_every_gateway_even_one_that_starts_later(
    fresh_kafka: BrokerSettings,
) -> None:
    image = image_for(Decision.REJECT, seed=10)
    with Responder(fresh_kafka, by_size) as scanner, running_gateway(fresh_kafka, deadline_ms=20_000) as first:
        first.ready()
        assert post(first, image).json()["answered_by"] == "verdict"
        again = post(first, image)
        assert (again.status_code, again.json()["answered_by"]) == (406, "known")
        with running_gateway(fresh_kafka) as second:
            second.ready()
            known = post(second, image).json()
            assert (known["answered_by"], known["decision"]) == ("known", "reject")
            assert known["rules"] == [{"name": "rule", "decision": "reject", "frame": 0}]
        assert len(scanner.seen) == 1


def test_two_gateways_answer_their_own_images_exactly_once(fresh_kafka: BrokerSettings) -> None:
    with (
        Responder(fresh_kafka, by_size) as scanner,
        running_gateway(fresh_kafka, deadline_ms=30_000) as one,
        running_gateway(fresh_kafka, deadline_ms=30_000) as two,
        ThreadPoolExecutor(16) as threads,
    ):
        one.ready()
        two.ready()
        images = [pictures.make("jpeg", seed=100) + b"%d" % n for n in range(40)]
        answers = list(threads.map(lambda n: post((one, two)[n % 2], images[n]), range(40)))
        assert {answer.json()["answered_by"] for answer in answers} == {"verdict"}
        assert [answer.json()["sha256"] for answer in answers] == [sha256(image).hex() for image in images]
        assert len(scanner.seen) == 40
        entries = answers_given(fresh_kafka, 40)
        assert len({entry.scan_id for entry in entries}) == len(entries) == 40
        assert len({entry.gateway for entry in entries}) == 2


def test_the_deadlines_answer_is_followed_by_the_verdict(fresh_kafka: BrokerSettings) -> None:
    lanes = (IMAGES, IMAGES_BACKLOG)  # a busy machine may not have its frames within the deadline
    with (
        Responder(fresh_kafka, lambda _: None, lanes=lanes) as scanner,
        running_gateway(fresh_kafka, deadline_ms=500) as running,
    ):
        running.ready()
        answer = post(running, image_for(Decision.ACCEPT, seed=20))
        assert (answer.status_code, answer.json()["answered_by"]) == (200, "deadline")
        scan_id = answer.json()["scan_id"]
        assert httpx.get(f"{running.url}/v1/scans/{scan_id}").json()["verdict"] is None
        wait_for(lambda: bool(scanner.seen))

        async def judge_late() -> None:
            async with Producer(fresh_kafka, client_id="late") as producer:
                verdict = make_verdict(scanner.seen[0], Decision.REJECT)
                await producer.publish(VERDICTS, verdict, key=verdict.sha256)

        asyncio.run(judge_late())
        wait_for(lambda: httpx.get(f"{running.url}/v1/scans/{scan_id}").json()["verdict"] is not None)
        report = httpx.get(f"{running.url}/v1/scans/{scan_id}").json()
        assert (report["answer"]["answered_by"], report["verdict"]["decision"]) == ("deadline", "reject")
        assert post(running, image_for(Decision.ACCEPT, seed=20)).json()["answered_by"] == "known"
        assert [e.answered_by for e in answers_given(fresh_kafka, 2)].count(AnsweredBy.DEADLINE) == 1


def test_an_image_that_no_scanner_can_judge_is_not_waited_for_and_not_let_in(fresh_kafka: BrokerSettings) -> None:
    async def bury(image: ImageSubmitted) -> None:
        async with Producer(fresh_kafka, client_id="burying") as producer:
            failed = ImageFailed(
                scan_id=image.scan_id, reason="model-hung", topic="images", partition=0, offset=0, failed_at=now_ms()
            )
            await producer.publish(IMAGES_DEAD, failed, key=image.scan_id.encode())

    def judge(image: ImageSubmitted) -> None:
        with ThreadPoolExecutor(1) as thread:
            thread.submit(asyncio.run, bury(image)).result()

    with Responder(fresh_kafka, judge), running_gateway(fresh_kafka, deadline_ms=60_000) as running:
        running.ready()
        answer = post(running, image_for(Decision.ACCEPT, seed=25))
        assert (answer.status_code, answer.json()["answered_by"]) == (406, "unreadable")
        assert "model-hung" in answer.json()["reason"]


def test_who_does_not_wait_is_judged_from_the_backlog_and_answered_when_asking_again(
    fresh_kafka: BrokerSettings,
) -> None:
    image = image_for(Decision.REJECT, seed=27)
    unhurried = {"Prefer": "respond-async"}
    was_told = threading.Event()  # one that is judged before the gateway has said that it waits, is answered at once
    with (
        Responder(
            fresh_kafka, lambda each: (was_told.wait(60), by_size(each))[1], lanes=(IMAGES, IMAGES_BACKLOG)
        ) as scanner,
        running_gateway(fresh_kafka, deadline_ms=20_000) as running,
    ):
        running.ready()
        handed = post(running, image, path="/v1/scans", headers=unhurried)
        scan_id = handed.json()["scan_id"]
        assert (handed.status_code, handed.headers["location"]) == (202, f"/v1/scans/{scan_id}")
        assert handed.json()["sha256"] == sha256(image).hex()
        was_told.set()
        wait_for(lambda: httpx.get(f"{running.url}{handed.headers['location']}").json()["verdict"] is not None)
        answer = post(running, image, path="/v1/scans", headers=unhurried).json()
        assert (answer["decision"], answer["answered_by"]) == ("reject", "known")
        assert [each.scan_id for each in scanner.from_backlog] == [scan_id] and len(scanner.seen) == 1
        (entry,) = answers_given(fresh_kafka, 1)  # the ledger misses no answer to what was judged
        assert (entry.scan_id, entry.carried_by) == (answer["scan_id"], scan_id)
        garbage = post(running, b"no image", path="/v1/scans", headers=unhurried)
        assert (garbage.status_code, garbage.json()["answered_by"]) == (422, "unreadable")


def test_the_same_bytes_at_once_are_published_once_and_everyone_is_answered(fresh_kafka: BrokerSettings) -> None:
    with (
        Responder(fresh_kafka, lambda _: (time.sleep(0.5), Decision.REJECT)[1]) as scanner,
        running_gateway(fresh_kafka, deadline_ms=20_000) as running,
        ThreadPoolExecutor(12) as threads,
    ):
        running.ready()
        image = pictures.make("jpeg", seed=30)
        answers = list(threads.map(lambda _: post(running, image), range(12)))
        assert {answer.status_code for answer in answers} == {406}
        assert len({answer.json()["scan_id"] for answer in answers}) == 12
        assert len(scanner.seen) == 1
        assert {entry.scan_id for entry in answers_given(fresh_kafka, 12)} == {a.json()["scan_id"] for a in answers}
        for answer in answers:
            report = httpx.get(f"{running.url}/v1/scans/{answer.json()['scan_id']}").json()
            assert report["verdict"]["decision"] == "reject"


def test_two_gateways_that_get_the_same_bytes_at_the_same_moment_both_answer_by_verdict(
    fresh_kafka: BrokerSettings,
) -> None:
    with (
        Responder(fresh_kafka, lambda _: Decision.REJECT, pause_s=0.3) as scanner,
        running_gateway(fresh_kafka, deadline_ms=30_000) as one,
        running_gateway(fresh_kafka, deadline_ms=30_000) as two,
        ThreadPoolExecutor(8) as threads,
    ):
        one.ready()
        two.ready()
        image = pictures.make("jpeg", seed=35)
        answers = list(threads.map(lambda n: post((one, two)[n % 2], image), range(8)))
        assert {answer.status_code for answer in answers} == {406}
        assert {answer.json()["answered_by"] for answer in answers} <= {"verdict", "known"}
        assert 1 <= len(scanner.seen) <= 2  # one scan at most for each gateway
        assert {each.sha256 for each in scanner.seen} == {sha256(image)}
        assert len(answers_given(fresh_kafka, 8)) == 8


def test_tenants_differ_in_what_they_make_of_review_and_of_silence(fresh_kafka: BrokerSettings) -> None:
    tenants = {
        "default": TenantSettings(),
        "strict": TenantSettings(key=SecretStr("a-strict-key"), on_review="reject", on_timeout="reject"),
    }
    silent = pictures.make("gif", seed=40)

    def judge(image: ImageSubmitted) -> Decision | None:
        return None if image.media_type == "image/gif" else Decision.REVIEW

    with Responder(fresh_kafka, judge) as scanner, running_gateway(fresh_kafka, tenants=tenants, deadline_ms=4000) as g:
        g.ready()
        image = pictures.make("png", seed=40)
        mine = post(g, image)
        theirs = post(g, image, path="/api/v1/scan/a-strict-key")
        assert (mine.status_code, theirs.status_code) == (200, 406)
        assert mine.json()["decision"] == theirs.json()["decision"] == "review"
        assert theirs.json()["accepted"] is False
        assert post(g, silent).status_code == 200
        assert post(g, silent, path="/api/v1/scan/a-strict-key").status_code == 406
        assert {image.tenant for image in scanner.seen} == {"default", "strict"}


@pytest.mark.parametrize(
    "kind", ["jpeg", "apng", "webp-animated", "gif-animated", "avif", "jxl", "mp4-h264", "webm-vp9"]
)
def test_the_frames_of_each_media_type_arrive_and_open(shared: tuple[RunningGateway, Responder], kind: str) -> None:
    running, scanner = shared
    image = pictures.make(kind, seed=50)
    answer = post(running, image, headers={"Content-Type": "application/x-wrong"})
    assert answer.json()["answered_by"] == "verdict"
    assert answer.json()["media_type"] == dict(pictures.KINDS)[kind]
    submitted = next(each for each in scanner.seen if each.sha256 == sha256(image))
    jpegs = running.keyring.open(submitted.sealed, sha256=submitted.sha256, tenant="default")
    assert len(jpegs) == len(submitted.frames) >= 1


@pytest.fixture(scope="module")
def shared(kafka: BrokerSettings) -> Any:
    broker = kafka.model_copy(update={"topic_prefix": "gateway-kinds."})
    asyncio.run(apply_topics(broker))
    with (
        Responder(broker, lambda _: Decision.ACCEPT) as scanner,
        running_gateway(broker, deadline_ms=20_000) as running,
    ):
        yield running.ready(), scanner


def test_missing_topics_end_the_gateway_with_the_command_that_makes_them(kafka: BrokerSettings, tmp_path: Path) -> None:
    async def go() -> None:
        elsewhere = kafka.model_copy(update={"topic_prefix": "nobody-made-these."})
        gateway = Gateway(settings(spool_dir=tmp_path), {"default": TenantSettings()}, elsewhere, Keyring.generate())
        await gateway.start()
        with pytest.raises(TopicsNotReady, match="fediwarden topics apply"):
            await gateway.serve()

    asyncio.run(go())


def test_a_gateway_told_to_stop_answers_what_is_in_flight_and_exits_0(
    fresh_kafka: BrokerSettings, tmp_path: Path
) -> None:
    port = find_free_ports(1)
    program = f"""
import asyncio, uvloop
from pathlib import Path
from gateway.service import run_gateway
from gateway.settings import GatewaySettings, TenantSettings
from schemas.broker import BrokerSettings
from schemas.keyring import Keyring
broker = BrokerSettings.model_validate({fresh_kafka.model_dump()!r})
keyring = Keyring.load_or_create(Path({str(tmp_path / "keys.json")!r}))
settings = GatewaySettings(port={port}, deadline_ms=20000, spool_dir=Path({str(tmp_path / "spool")!r}))
uvloop.run(run_gateway(settings, {{"default": TenantSettings()}}, broker, keyring))
"""
    process = subprocess.Popen([sys.executable, "-c", program])
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: reachable(url) and httpx.get(f"{url}/readyz").status_code == 200)
        held = ThreadPoolExecutor(1)

        def judge(image: ImageSubmitted) -> Decision:
            process.send_signal(signal.SIGTERM)
            wait_for(lambda: not reachable(url))
            return Decision.REJECT

        with Responder(fresh_kafka, judge):
            answer = held.submit(httpx.post, f"{url}{PICT_RS}", content=pictures.make("png", seed=70), timeout=30)
            assert (answer.result(30).status_code, answer.result().json()["answered_by"]) == (406, "verdict")
            assert process.wait(30) == 0
        held.shutdown()
        assert [entry.status for entry in answers_given(fresh_kafka, 1)] == [406]
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def sha256(image: bytes) -> bytes:
    return hashlib.sha256(image).digest()


def reachable(url: str) -> bool:
    try:
        httpx.get(f"{url}/healthz", timeout=5)
    except httpx.TransportError:
        return False
    return True
