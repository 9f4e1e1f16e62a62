"""The whole way of an image: real gateways and scanners as processes, a real Kafka, real models."""

import asyncio
import hashlib
import signal
import uuid

import httpx
import pytest

from schemas.broker import BrokerSettings, apply_topics
from schemas.messages import AnsweredBy, Decision
from schemas.topics import ANSWERS, IMAGES, IMAGES_ARCHIVE, IMAGES_DEAD, VERDICTS
from tests.pictures import KINDS, make
from tests.processes import Pipeline, wait_until
from tests.stand_ins import rejected_picture
from tests.topics import read_topic

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]


@pytest.fixture
def kafka_of_ones_own(kafka: BrokerSettings) -> BrokerSettings:
    settings = kafka.model_copy(update={"topic_prefix": f"p{uuid.uuid4().hex[:8]}."})
    asyncio.run(apply_topics(settings))
    return settings


@pytest.fixture
def pipeline(kafka_of_ones_own, tmp_path):
    with Pipeline(kafka_of_ones_own, tmp_path, FEDIWARDEN_GATEWAY__DEADLINE_MS="60000") as pipeline:
        yield pipeline


def picture(number: int) -> bytes:
    return make("jpeg", seed=number)


def post(url: str, body: bytes, media_type: str = "image/jpeg") -> httpx.Response:
    return httpx.post(
        f"{url}/api/v1/scan/IPADDR", content=iter([body]), headers={"content-type": media_type}, timeout=90
    )


async def post_all(urls: list[str], bodies: list[bytes], *, at_once: int = 8) -> list[httpx.Response]:
    """Post each body to one of `urls` in turn."""
    gate = asyncio.Semaphore(at_once)
    async with httpx.AsyncClient(timeout=120) as client:

        async def one(number: int, body: bytes) -> httpx.Response:
            async with gate:
                return await client.post(
                    f"{urls[number % len(urls)]}/api/v1/scan/IPADDR",
                    content=body,
                    headers={"content-type": "image/jpeg"},
                )

        return await asyncio.gather(*(one(number, body) for number, body in enumerate(bodies)))


def test_two_gateways_and_two_scanners_answer_every_image_once_through_rebalances(pipeline):
    (_, left), (_, right) = pipeline.start_gateway(), pipeline.start_gateway()
    first = pipeline.start_scanner()
    bodies = [picture(number) for number in range(160)]

    async def scenario() -> list[httpx.Response]:
        posting = asyncio.create_task(post_all([left, right], bodies))
        second = await asyncio.to_thread(pipeline.start_scanner)
        await asyncio.to_thread(wait_until, lambda: len(read_topic(pipeline.kafka, VERDICTS)) >= 80, "half judged")
        assert await asyncio.to_thread(first.stop) == 0
        assert second.pid != first.pid
        return await posting

    responses = asyncio.run(scenario())
    assert [response.status_code for response in responses] == [200] * len(bodies)
    assert {response.json()["answered_by"] for response in responses} == {"verdict"}
    assert [r.json()["sha256"] for r in responses] == [hashlib.sha256(body).hexdigest() for body in bodies]
    scan_ids = {response.json()["scan_id"] for response in responses}
    assert len(scan_ids) == len(bodies)
    answers = wait_until(
        lambda: (found := read_topic(pipeline.kafka, ANSWERS)) and len(found) >= len(bodies) and found,
        "all in the ledger",
    )
    assert sorted(record.message.scan_id for record in answers) == sorted(scan_ids)
    verdicts = read_topic(pipeline.kafka, VERDICTS)
    assert sorted(record.message.scan_id for record in verdicts) == sorted(scan_ids), "each is judged once"
    assert len({record.message.scanner for record in verdicts}) == 2
    assert read_topic(pipeline.kafka, IMAGES_DEAD) == []


def test_a_killed_scanner_s_images_are_judged_by_the_next_one(pipeline):
    _, url = pipeline.start_gateway(FEDIWARDEN_GATEWAY__DEADLINE_MS="1500")
    doomed = pipeline.start_scanner()
    assert post(url, picture(1)).json()["answered_by"] == "verdict"
    doomed.signal(signal.SIGSTOP)
    answers = [post(url, picture(number)).json() for number in range(10, 14)]
    assert {(a["answered_by"], a["decision"]) for a in answers} == {("deadline", "accept")}
    doomed.kill()
    pipeline.start_scanner()
    for answer in answers:
        found = wait_until(
            lambda answer=answer: (
                (body := httpx.get(f"{url}/v1/scans/{answer['scan_id']}").json()).get("verdict") and body
            ),
            "judged after all",
        )
        assert found["answer"]["answered_by"] == "deadline"
    judged = {record.message.scan_id for record in read_topic(pipeline.kafka, VERDICTS)}
    assert {answer["scan_id"] for answer in answers} <= judged


def test_what_is_refused_leaves_no_pixels_in_the_archive_and_what_is_kept_can_be_replayed(pipeline):
    _, url = pipeline.start_gateway()
    pipeline.start_scanner()
    good, bad = picture(7), rejected_picture(7)
    kept, refused = post(url, good), post(url, bad)
    assert (kept.status_code, refused.status_code) == (200, 406)
    assert refused.headers["x-fediwarden-decision"] == "reject"
    assert refused.json()["rules"]
    archived = wait_until(lambda: read_topic(pipeline.kafka, IMAGES_ARCHIVE), "archived")
    assert [record.message.sha256 for record in archived] == [hashlib.sha256(good).digest()]
    submitted = {record.message.sha256: record for record in read_topic(pipeline.kafka, IMAGES)}
    message = archived[0].message
    assert message == submitted[message.sha256].message, "the archive holds the record unchanged"
    frames = pipeline.keyring.open(message.sealed, sha256=message.sha256, tenant=message.tenant)
    assert [frame[:3] for frame in frames] == [b"\xff\xd8\xff"]
    assert b"JFIF" not in message.sealed.ciphertext
    verdict = next(r.message for r in read_topic(pipeline.kafka, VERDICTS) if r.message.decision is Decision.REJECT)
    assert verdict.sha256 == hashlib.sha256(bad).digest()
    assert verdict.scan_id == refused.json()["scan_id"]
    assert set(verdict.models) == {"safety-s", "open-nsfw"}
    assert verdict.policy and verdict.rules and verdict.pdq and verdict.scanner and verdict.timings.infer > 0
    assert verdict.received_at <= verdict.judged_at


def test_known_bytes_are_answered_by_every_gateway_also_one_started_later(pipeline):
    _, first = pipeline.start_gateway()
    scanner = pipeline.start_scanner()
    body = rejected_picture(3)
    assert post(first, body).json()["answered_by"] == "verdict"
    _, second = pipeline.start_gateway(FEDIWARDEN_GATEWAY__DEADLINE_MS="2500")
    wait_until(lambda: httpx.get(f"{second}/readyz").json()["parts"]["scanners"]["ok"], "scanners announced")
    for url in (first, second):
        again = post(url, body)
        assert (again.status_code, again.json()["answered_by"]) == (406, "known")
        assert again.json()["rules"]
    # A verdict counts as known only while a scanner announces the models and the policy that reached it.
    assert scanner.stop() == 0
    assert post(second, body).json()["answered_by"] == "deadline"
    answers = [record.message.answered_by for record in read_topic(pipeline.kafka, ANSWERS)]
    assert answers.count(AnsweredBy.KNOWN) == 2


@pytest.mark.parametrize("kinds", [KINDS], ids=["all formats"])
def test_every_format_goes_the_whole_way(pipeline, kinds):
    _, url = pipeline.start_gateway()
    pipeline.start_scanner()
    for kind, media_type in kinds:
        body = make(kind, seed=5)
        response = post(url, body, media_type)
        assert response.status_code == 200, f"{kind}: {response.text}"
        assert response.json()["answered_by"] == "verdict", kind
    by_sha = {record.message.sha256: record.message for record in read_topic(pipeline.kafka, VERDICTS)}
    assert {by_sha[hashlib.sha256(make(kind, seed=5)).digest()].media_type for kind, _ in kinds} == {
        m for _, m in kinds
    }
