"""What the relay learns stands in Kafka."""

import asyncio
import hashlib
from pathlib import Path

import pytest
import uvloop

from gateway.relay.service import Relay
from schemas.broker import BrokerSettings, Producer
from schemas.clock import now_ms
from schemas.codec import encode
from schemas.messages import AnsweredBy, AnswerGiven, Confidence, Decision, OriginObserved, Place
from schemas.pseudonyms import Pseudonyms
from schemas.topics import ANSWERS, ORIGINS
from tests.kafka import find_free_ports
from tests.processes import Process, wait_until
from tests.relays import WITHIN_S, ask, read_head, relaying, serving, until
from tests.topics import read_topic
from tests.unit.gateway.relay.test_tokens import token

pytestmark = pytest.mark.kafka

STORED = b"the stored file"
ALIAS = b"0a1b.png"
JSON = b"Content-Type: application/json\r\n"
TOKEN = token({"sub": "4711", "iss": "lemmy.example"})
FORM = b'--x\r\nContent-Disposition: form-data; name="images[]"; filename="a.png"\r\n\r\n' + b"pixels\r\n--x--\r\n"


def answer(status: bytes, body: bytes, head: bytes = b"") -> bytes:
    return b"HTTP/1.1 " + status + b"\r\n" + head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def answer_to(head: bytes) -> bytes:
    """As pict-rs answers: uploads are stored as ALIAS, an address with "bad" in it is refused."""
    if b"bad" in head:
        return answer(b"400 Bad Request", b'{"msg":"no","code":"failed-external-validation"}', JSON)
    if head.startswith((b"POST /image ", b"GET /image/download?")):
        return answer(b"201 Created", b'{"msg":"ok","files":[{"file":"' + ALIAS + b'"}]}', JSON)
    if head.startswith(b"GET /image/original"):
        return answer(b"200 OK", STORED, b"Content-Type: image/png\r\n")
    return answer(b"200 OK", b"a variant", b"Content-Type: image/webp\r\n")


async def pict_rs(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        head = await read_head(reader)
        if head.startswith(b"POST"):
            await reader.readexactly(len(FORM))
        writer.write(answer_to(head))
        await writer.drain()


def origins(broker: BrokerSettings) -> list[OriginObserved]:
    messages = [record.message for record in read_topic(broker, ORIGINS)]
    return sorted((each for each in messages if isinstance(each, OriginObserved)), key=lambda each: each.observed_at)


async def request(relay: Relay, target: bytes, *, upload: bool = False) -> bytes:
    head = b"%b %b HTTP/1.1\r\nHost: relay\r\nConnection: close\r\nAuthorization: Bearer %b\r\n"
    head %= (b"POST" if upload else b"GET", target, TOKEN)
    body = FORM if upload else b""
    return await ask(relay.ports["default"], head + b"Content-Length: %d\r\n\r\n" % len(body) + body)


def test_origins_of_every_kind_are_published_with_the_hash_read_back(
    tmp_path: Path, fresh_kafka: BrokerSettings
) -> None:
    async def test() -> None:
        async with (
            serving(pict_rs) as upstream,
            relaying(upstream, tmp_path, fresh_kafka, tenant={"domain": "lemmy.example"}) as relay,
        ):
            assert (await request(relay, b"/image", upload=True)).startswith(b"HTTP/1.1 201")
            await request(relay, b"/image/download?url=https%3A%2F%2Fnews.example%2Fog.png")
            await request(relay, b"/image/process.webp?proxy=https%3A%2F%2Fpics.example%2F1&thumbnail=96")
            for _ in range(3):
                await request(relay, b"/image/original?proxy=https://pics.example/2?a=b&c=d")
            await until(lambda: relay.published == 4, "published")

    uvloop.run(test())
    found = {(each.place, each.url): each for each in origins(fresh_kafka)}
    assert len(found) == 4
    assert {each.sha256 for each in found.values()} == {hashlib.sha256(STORED).digest()}
    upload = found[Place.UPLOAD, ""]
    alice = Pseudonyms.open(tmp_path / "actors.json").pseudonym("local-user:lemmy.example:4711")
    assert upload.author is not None and alice is not None
    assert (upload.alias, upload.author.pseudonym, upload.author.instance) == (
        ALIAS.decode(),
        alice.value,
        "lemmy.example",
    )
    download = found[Place.IMPORTED, "https://news.example/og.png"]
    assert (download.alias, download.author) == (ALIAS.decode(), None)
    for url in ("https://pics.example/1", "https://pics.example/2?a=b&c=d"):
        proxied = found[Place.PROXIED, url]
        assert proxied.host is not None
        assert (proxied.host.domain, proxied.host.confidence) == ("pics.example", Confidence.CERTAIN)


def test_a_rejected_address_is_matched_with_the_gateways_answer(tmp_path: Path, fresh_kafka: BrokerSettings) -> None:
    rejected = bytes([7]) * 32

    async def test() -> None:
        async with (
            serving(pict_rs) as upstream,
            relaying(upstream, tmp_path, fresh_kafka, settle_s=3.0) as relay,
            Producer(fresh_kafka, client_id="test") as producer,
        ):
            await until(lambda: next(each for each in relay.parts() if each.name == "answers").ok, "answers are read")
            given = AnswerGiven(
                scan_id="s1",
                tenant="default",
                sha256=rejected,
                status=406,
                decision=Decision.REJECT,
                answered_by=AnsweredBy.VERDICT,
                answered_at=now_ms(),
                milliseconds=1.0,
                accepted=False,
            )
            assert b"failed-external-validation" in await request(relay, b"/image/original?proxy=https://bad.example/1")
            await producer.publish(ANSWERS, given, key=rejected)
            await until(lambda: relay.published == 1, "published")

    uvloop.run(test())
    (origin,) = origins(fresh_kafka)
    assert origin.url == "https://bad.example/1"
    assert origin.host is not None
    if origin.sha256:  # a machine so slow that the answer came after settle_s says nothing, and nothing false
        assert (origin.sha256, origin.host.confidence) == (rejected, Confidence.LIKELY)
    else:
        assert origin.host.confidence is Confidence.CERTAIN


def test_origins_wait_for_topics_that_are_not_there_yet(tmp_path: Path, kafka: BrokerSettings) -> None:
    unknown = kafka.model_copy(update={"topic_prefix": "relay-without-topics."})

    async def test() -> None:
        async with serving(pict_rs) as upstream, relaying(upstream, tmp_path, unknown) as relay:
            assert STORED in await request(relay, b"/image/original?proxy=https://pics.example/1")
            assert relay.origins_waiting == 1
            assert not next(each for each in relay.parts() if each.name == "kafka").ok

    uvloop.run(test())


def test_the_command_serves_publishes_and_stops_and_its_log_names_nobody(
    tmp_path: Path, fresh_kafka: BrokerSettings
) -> None:
    port = find_free_ports(2)

    async def test() -> None:
        async with serving(pict_rs) as upstream:
            environment = {
                "FEDIWARDEN_DATA_DIR": str(tmp_path),
                "FEDIWARDEN_KAFKA__BOOTSTRAP_SERVERS": fresh_kafka.bootstrap_servers,
                "FEDIWARDEN_KAFKA__TOPIC_PREFIX": fresh_kafka.topic_prefix,
                "FEDIWARDEN_LOG__LEVEL": "info",
                "FEDIWARDEN_RELAY__HEALTH_PORT": str(port + 1),
                "FEDIWARDEN_TENANTS__DEFAULT__PICT_RS": f"http://127.0.0.1:{upstream}",
                "FEDIWARDEN_TENANTS__DEFAULT__DOMAIN": "lemmy.example",
            }
            log_file = tmp_path / "relay.log"
            relay = Process(["relay", "--port", str(port)], environment=environment, log_file=log_file)
            try:
                await asyncio.to_thread(relay.wait_for, lambda: "relay ready" in relay.log, "ready")
                head = b"POST /image HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer " + TOKEN
                uploaded = await ask(port, head + b"\r\nContent-Length: %d\r\n\r\n" % len(FORM) + FORM)
                assert uploaded.startswith(b"HTTP/1.1 201")
                secret = b"GET /image/original?proxy=https://pics.example/secret?sig=1 HTTP/1.1\r\nHost: x\r\n"
                assert STORED in await ask(port, secret + b"Connection: close\r\n\r\n")
                assert (
                    await ask(port + 1, b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                ).startswith(b"HTTP/1.1 200")
                assert await asyncio.wait_for(asyncio.to_thread(relay.stop), WITHIN_S) == 0
            finally:
                await asyncio.to_thread(relay.kill)
            for word in (TOKEN.decode(), "4711", "pics.example", "secret", "0a1b"):
                assert word not in relay.log

    uvloop.run(test())
    wait_until(lambda: len(origins(fresh_kafka)) == 2, "published before it ended")
    stored = b"".join(encode(record.message) for record in read_topic(fresh_kafka, ORIGINS))
    assert b"4711" not in stored
