"""POST /v1/origins on a real uvicorn."""

import asyncio
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from pydantic import SecretStr

from federation_audit.intake import BODY_MOST_BYTES, ORIGINS_MOST, make_app, make_router
from schemas.broker import BrokerUnavailable
from schemas.clock import now_ms
from schemas.messages import Confidence, OriginMethod, OriginObserved, Place
from schemas.pseudonyms import Pseudonyms
from tests.kafka import find_free_ports

TOKEN = "a token of thirty-two characters"
SHA256 = hashlib.sha256(b"an image").hexdigest()
AUTHOR = {"id": "https://Bad.Example/u/mallory"}


class Intake:
    """A server, and what it published."""

    def __init__(self, folder: Path) -> None:
        self.published: list[OriginObserved] = []
        self.away = False
        self.pseudonyms = Pseudonyms.open(folder / "actors.json")
        app = FastAPI()
        tokens = {"other": SecretStr("another token of the tests"), "lemmy": SecretStr(TOKEN)}
        app.include_router(make_router(tokens, self._publish, self.pseudonyms, observer="test"))
        self._port = find_free_ports(1)
        self._server = uvicorn.Server(uvicorn.Config(app, port=self._port, log_level="error"))
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()
        give_up_at = time.monotonic() + 60
        while not self._server.started:
            assert time.monotonic() < give_up_at
            time.sleep(0.01)

    async def _publish(self, origin: OriginObserved) -> None:
        await asyncio.sleep(0)
        if self.away:
            raise BrokerUnavailable("Kafka is away")
        self.published.append(origin)

    def send(self, body: Any, *, token: str | None = TOKEN) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return httpx.post(f"http://127.0.0.1:{self._port}/v1/origins", content=content, headers=headers, timeout=60)

    def tell(self, **origin: Any) -> httpx.Response:
        return self.send({"origins": [origin]})

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(60)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Intake]:
    intake = Intake(tmp_path_factory.mktemp("intake"))
    yield intake
    intake.stop()


@pytest.fixture
def intake(server: Intake) -> Intake:
    server.published.clear()
    server.away = False
    return server


def test_an_origin_is_published_with_a_pseudonym_in_the_actors_place(intake: Intake) -> None:
    reply = intake.tell(
        sha256=SHA256.upper(),
        url="https://Img.Example:8443/a.png",
        alias="a.webp",
        place="comment",
        author=AUTHOR | {"confidence": "certain"},
        community={"id": "https://big.example/c/cats"},
        post_url="https://bad.example/comment/1",
        published_at="2026-11-01T10:00:00+02:00",
    )
    assert (reply.status_code, reply.json()) == (202, {"accepted": 1, "notes": []})
    (origin,) = intake.published
    assert (origin.tenant, origin.method, origin.place) == ("lemmy", OriginMethod.HTTP, Place.COMMENT)
    assert origin.sha256.hex() == SHA256 and origin.alias == "a.webp"
    assert origin.host is not None and origin.host.domain == "img.example"
    assert origin.author is not None and origin.community is not None and origin.moment is not None
    pseudonym = intake.pseudonyms.pseudonym("https://bad.example/u/mallory")
    assert pseudonym is not None and origin.author.pseudonym == pseudonym.value
    assert (origin.author.instance, origin.author.confidence) == ("bad.example", Confidence.CERTAIN)
    assert (origin.community.instance, origin.community.confidence) == ("big.example", Confidence.LIKELY)
    assert origin.moment.at == 1_793_520_000_000
    assert "mallory" not in repr(origin)


def test_what_is_not_told_stays_unknown(intake: Intake) -> None:
    assert intake.tell(alias="a.webp", author={"instance": "BÜCHER.example:443"}).status_code == 202
    (origin,) = intake.published
    assert origin.author is not None
    assert (origin.author.instance, origin.author.pseudonym) == ("xn--bcher-kva.example", b"")
    assert (origin.host, origin.community, origin.moment, origin.place) == (None, None, None, Place.UNKNOWN)


def test_a_moment_in_the_future_is_left_out_and_that_is_said(intake: Intake) -> None:
    reply = intake.tell(sha256=SHA256, published_at="2999-01-01T00:00:00Z")
    assert reply.status_code == 202
    assert reply.json()["notes"][0]["field"] == "origins.0.published_at"
    assert intake.published[0].moment is None and intake.published[0].observed_at <= now_ms()


@pytest.mark.parametrize("token", [None, "wrong", TOKEN + "x", TOKEN[:-1]])
def test_without_the_token_nothing_is_taken(intake: Intake, token: str | None) -> None:
    reply = intake.send({"origins": [{"sha256": SHA256}]}, token=token)
    assert reply.status_code == 401
    assert reply.json()["error"]["field"] == "authorization"
    assert intake.published == []


WRONG = {
    "origins": [{}, {"origins": []}, {"origins": [{"sha256": SHA256}] * (ORIGINS_MOST + 1)}, {"origins": "x"}],
    "origins.0": [{"origins": [{"place": "upload"}]}, {"origins": [7]}],
    "origins.0.sha256": [{"origins": [{"sha256": "abc"}]}],
    "origins.0.alias": [{"origins": [{"alias": "../x"}]}, {"origins": [{"alias": "\u202e "}]}],
    "origins.0.url": [
        {"origins": [{"url": url}]} for url in ("javascript:x", "/a.png", "https://a b/", "https://x/\u0000")
    ],
    "origins.0.place": [{"origins": [{"sha256": SHA256, "place": "wall"}]}],
    "origins.0.author": [{"origins": [{"sha256": SHA256, "author": {}}]}],
    "origins.0.author.id": [{"origins": [{"sha256": SHA256, "author": {"id": i}}]} for i in ("mallory", "x" * 3000)],
    "origins.0.author.instance": [{"origins": [{"sha256": SHA256, "author": {"instance": "<script>"}}]}],
    "origins.0.author.name": [{"origins": [{"sha256": SHA256, "author": AUTHOR | {"name": "x"}}]}],
    "origins.0.community.id": [{"origins": [{"sha256": SHA256, "community": {"id": "cats"}}]}],
    "origins.0.published_at": [{"origins": [{"sha256": SHA256, "published_at": "2026-01-01T00:00:00"}]}],
    "origins.1.post_url": [{"origins": [{"sha256": SHA256}, {"sha256": SHA256, "post_url": "data:,"}]}],
}


@pytest.mark.parametrize("field", WRONG)
def test_an_error_names_its_field_and_nothing_of_the_request_is_published(intake: Intake, field: str) -> None:
    for body in WRONG[field]:
        reply = intake.send(body)
        assert (reply.status_code, reply.json()["error"]["field"]) == (422, field), reply.text
        assert "<script>" not in reply.text
    assert intake.published == []


def test_what_is_no_json_is_refused(intake: Intake) -> None:
    for body in (b"", b"{", b"\xff", b"[" * 100_000):
        assert intake.send(body).status_code == 400, body[:9]


def test_a_body_that_is_too_large_is_refused_whether_it_says_so_or_not(intake: Intake) -> None:
    large = b" " * (BODY_MOST_BYTES + 1)
    assert intake.send(large).status_code == 413
    url = f"http://127.0.0.1:{intake._port}/v1/origins"
    chunks = iter([b" " * (BODY_MOST_BYTES // 2)] * 3)
    reply = httpx.post(url, content=chunks, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60)
    assert reply.status_code == 413


def test_while_kafka_is_away_the_teller_is_told_to_try_again(intake: Intake) -> None:
    intake.away = True
    reply = intake.tell(sha256=SHA256)
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "kafka_away")
    assert "retry-after" in reply.headers


def test_where_no_tenant_has_a_token_the_answer_says_how_to_get_one() -> None:
    async def never(_origin: OriginObserved) -> None:
        raise AssertionError("nobody may")

    async def scenario() -> list[httpx.Response]:
        app = make_app(make_router({}, never, Pseudonyms({}), observer="test"))
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            sent = [client.post("/v1/origins", json={}), client.get("/v1/origins"), client.post("/v1/elsewhere")]
            return list(await asyncio.gather(*sent))

    off, wrong_method, elsewhere = asyncio.run(scenario())
    assert (off.status_code, off.json()["error"]["code"]) == (404, "not_set_up")
    assert "tenants.NAME.origins_token" in off.json()["error"]["remedy"]
    assert (wrong_method.status_code, wrong_method.json()["error"]["code"]) == (405, "method_not_allowed")
    assert (elsewhere.status_code, elsewhere.json()["error"]["code"]) == (404, "not_found")
