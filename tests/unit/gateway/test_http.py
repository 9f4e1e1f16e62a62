"""The HTTP edge of a real gateway that has no Kafka: every image is answered by the deadline, nothing else changes."""

import asyncio
import hashlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest
from pydantic import SecretStr

from gateway.edge import HEAD_MOST_BYTES
from gateway.service import CannotStart, Gateway
from gateway.settings import TenantSettings
from schemas.keyring import Keyring
from tests import pictures
from tests.gateways import NO_KAFKA, RunningGateway, running_gateway, settings, wait_for

KEY = "a-key-for-the-tests"
PICT_RS = "/api/v1/scan/IPADDR"
LIMIT = 2 << 20


@pytest.fixture(scope="module")
def gateway() -> Iterator[RunningGateway]:
    tenants = {
        "default": TenantSettings(),
        "keyed": TenantSettings(key=SecretStr(KEY), on_timeout="reject", on_unreadable="accept"),
    }
    with running_gateway(
        tenants=tenants,
        max_body_bytes=LIMIT,
        memory_body_bytes=64 << 10,
        body_timeout_s=1.0,
        head_timeout_s=1.0,
        deadline_ms=150,
        max_in_flight=64,
    ) as running:
        yield running


@pytest.fixture(scope="module")
def client(gateway: RunningGateway) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gateway.url, timeout=20) as client:
        yield client


def png(seed: int = 0) -> bytes:
    return pictures.make("png", seed=seed)


def talk(gateway: RunningGateway, *pieces: bytes, pause_s: float = 0, to_the_end: bool = True) -> bytes:
    """What comes back: until the gateway hangs up, or only the first answer."""
    with socket.create_connection(("127.0.0.1", gateway.gateway.port), timeout=60) as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
                if pause_s:
                    time.sleep(pause_s)
        except (BrokenPipeError, ConnectionResetError):
            pass
        answer = b""
        try:
            while (to_the_end or not is_whole(answer)) and (piece := connection.recv(65536)):
                answer += piece
        except ConnectionResetError:
            pass
        return answer


def is_whole(answer: bytes) -> bool:
    head, end, body = answer.partition(b"\r\n\r\n")
    lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return bool(end) and len(body) == int(lengths[0].partition(b":")[2])


def metric(client: httpx.Client, name: str) -> float:
    """One sample of /metrics; 0 where it is not there yet."""
    for line in client.get("/metrics").text.splitlines():
        if line.startswith(f"{name} "):
            return float(line.rpartition(" ")[2])
    return 0.0


def chunked(body: bytes, *, path: str = PICT_RS, more: str = "") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: image/png\r\n{more}"
    return head.encode() + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)


def test_pict_rs_is_answered_by_policy_with_body_and_headers_while_kafka_is_away(client: httpx.Client) -> None:
    image = png(1)
    answer = client.post(PICT_RS, content=iter([image[:1000], image[1000:]]), headers={"Content-Type": "image/png"})
    body = answer.json()
    assert answer.status_code == 200
    assert (body["decision"], body["accepted"], body["answered_by"]) == ("accept", True, "spooled")
    assert body["sha256"] == hashlib.sha256(image).hexdigest()
    assert answer.headers["X-Fediwarden-Scan-Id"] == body["scan_id"]
    assert answer.headers["X-Fediwarden-Decision"] == "accept"
    assert answer.headers["X-Fediwarden-Answered-By"] == "spooled"


def test_a_tenant_may_have_unjudged_images_rejected(client: httpx.Client) -> None:
    answer = client.post(f"/api/v1/scan/{KEY}", content=png(2))
    assert (answer.status_code, answer.json()["answered_by"]) == (406, "spooled")


def test_the_json_api_answers_200_whatever_the_decision_is(client: httpx.Client) -> None:
    answer = client.post("/v1/scans", content=png(2), headers={"Authorization": f"Bearer {KEY}"})
    assert (answer.status_code, answer.json()["decision"], answer.json()["accepted"]) == (200, "reject", False)


def test_an_image_too_large_for_memory_is_read_from_its_nameless_file(client: httpx.Client) -> None:
    before = metric(client, "fediwarden_gateway_spool_bytes")
    assert client.post(PICT_RS, content=pictures.photo(1)).json()["answered_by"] == "spooled"
    assert metric(client, "fediwarden_gateway_spool_bytes") > before


def test_a_form_with_one_file_is_taken_as_its_file(client: httpx.Client) -> None:
    image = png(3)
    answer = client.post(PICT_RS, files={"file": ("../../x.png", image, "image/png")}, data={"note": "x"})
    assert answer.json()["sha256"] == hashlib.sha256(image).hexdigest()


def test_a_form_without_a_file_is_answered_400_with_the_remedy(client: httpx.Client) -> None:
    answer = client.post(PICT_RS, files={"note": (None, b"text")})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "no_file")
    assert answer.json()["error"]["remedy"]


@pytest.mark.parametrize("content_type", ["text/html", "application/pdf", "image/jpeg", "nonsense", ""])
def test_a_wrong_content_type_changes_nothing(client: httpx.Client, content_type: str) -> None:
    answer = client.post(PICT_RS, content=png(4), headers={"Content-Type": content_type})
    assert (answer.status_code, answer.json()["answered_by"]) == (200, "spooled")


@pytest.mark.parametrize("kind", ["empty", "garbage", "pdf", "svg", "html"])
def test_what_is_no_image_is_answered_by_the_tenants_wish(client: httpx.Client, kind: str) -> None:
    content = pictures.make(kind)
    rejected = client.post(PICT_RS, content=content)
    assert (rejected.status_code, rejected.json()["answered_by"]) == (406, "unreadable")
    assert rejected.json()["reason"]
    accepted = client.post(f"/api/v1/scan/{KEY}", content=content)
    assert (accepted.status_code, accepted.json()["answered_by"]) == (200, "unreadable")
    typed = client.post("/v1/scans", content=content)
    assert (typed.status_code, typed.json()["error"]["code"]) == (422, "not_an_image")


def test_an_unknown_key_is_401_and_a_path_without_one_404(client: httpx.Client) -> None:
    assert client.post("/api/v1/scan/wrong-key", content=b"x").status_code == 401
    assert client.post("/api/v1/scan/", content=b"x").json()["error"]["code"] == "not_found"
    assert client.get(PICT_RS).json()["error"]["code"] == "method_not_allowed"


@pytest.mark.parametrize("header", ["Basic abc", "Bearer", "Bearer wrong", "bearer \xff\xfe"])
def test_a_wrong_authorization_is_401_and_says_what_is_expected(client: httpx.Client, header: str) -> None:
    answer = client.post("/v1/scans", content=b"x", headers=[(b"Authorization", header.encode("latin-1"))])
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_an_address_that_a_header_claims_does_not_count() -> None:
    with running_gateway(tenants={"far": TenantSettings.model_validate({"networks": ["203.0.113.0/24"]})}) as far:
        headers = {"X-Forwarded-For": "203.0.113.7", "Forwarded": "for=203.0.113.7", "X-Real-IP": "203.0.113.7"}
        answer = httpx.post(f"{far.url}{PICT_RS}", content=b"x", headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "network_not_allowed")


def test_a_body_over_the_limit_is_413_and_the_sender_gets_to_read_it(gateway: RunningGateway) -> None:
    answer = talk(gateway, chunked(b"x" * (LIMIT + 3_000_000)), to_the_end=False)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"code":"body_too_large"' in answer
    head = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n" % PICT_RS.encode()
    declared = talk(gateway, head, to_the_end=False)
    assert declared.startswith(b"HTTP/1.1 413 ")


def test_an_endless_body_is_cut_off(gateway: RunningGateway) -> None:
    head = chunked(b"x")[: -len(b"1\r\nx\r\n0\r\n\r\n")]
    chunk = b"%x\r\n%s\r\n" % (1 << 20, bytes(1 << 20))
    assert talk(gateway, head, *[chunk] * 200).startswith(b"HTTP/1.1 413 ")


def test_a_byte_a_second_is_answered_408(gateway: RunningGateway) -> None:
    head = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n" % PICT_RS.encode()
    assert talk(gateway, head, *[b"x"] * 5, pause_s=0.25, to_the_end=False).startswith(b"HTTP/1.1 408 ")


def test_a_head_that_is_never_finished_is_hung_up_on(gateway: RunningGateway) -> None:
    assert talk(gateway, b"POST / HTTP/1.1\r\nHost: x\r\nX: y") == b""
    assert talk(gateway) == b""


@pytest.mark.parametrize(
    "pieces",
    [
        [b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * (HEAD_MOST_BYTES * 4)],
        [b"GET / HTTP/1.1\r\nHost: x\r\n", *[b"X-%d: %s\r\n" % (n, b"y" * 1000) for n in range(100)], b"\r\n"],
        [b"GET /" + b"y" * (HEAD_MOST_BYTES * 4)],
    ],
)
def test_a_huge_head_is_refused_and_not_kept(gateway: RunningGateway, pieces: list[bytes]) -> None:
    assert talk(gateway, *pieces)[:12] in (b"HTTP/1.1 431", b"HTTP/1.1 400")


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS hello",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n" % PICT_RS.encode(),
    ],
)
def test_what_is_no_http_is_answered_400_as_json(gateway: RunningGateway, nonsense: bytes) -> None:
    answer = talk(gateway, nonsense)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "bad_request"


def test_a_client_that_leaves_half_way_is_counted_and_nothing_else(
    gateway: RunningGateway, client: httpx.Client
) -> None:
    before = metric(client, "fediwarden_gateway_clients_gone_total")
    image = png(5)
    with socket.create_connection(("127.0.0.1", gateway.gateway.port)) as connection:
        head = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (PICT_RS.encode(), len(image))
        connection.sendall(head + image[:-1])
    wait_for(lambda: metric(client, "fediwarden_gateway_clients_gone_total") > before)
    assert metric(client, "fediwarden_gateway_in_flight_bytes") == 0


def test_two_hundred_bad_clients_at_once_do_not_disturb_a_good_one() -> None:
    # Not the gateway of the other tests: it is short with clients that are slow, and fifty threads at once are.
    with (
        running_gateway(deadline_ms=150, max_in_flight=64) as gateway,
        httpx.Client(base_url=gateway.url, timeout=60) as client,
    ):
        _misbehave_two_hundred_times(gateway, client)


def _misbehave_two_hundred_times(gateway: RunningGateway, client: httpx.Client) -> None:
    kinds = ["empty", "garbage", "pdf", "svg", "html"]
    stop = threading.Event()

    def misbehave(number: int) -> int:
        return int(talk(gateway, chunked(pictures.make(kinds[number % 5]) + b"%d" % number))[9:12])

    def behave() -> list[int]:
        seen = []
        while not stop.is_set():
            seen.append(client.get("/healthz").status_code)
        return seen

    with ThreadPoolExecutor(51) as threads:
        good = threads.submit(behave)
        bad = list(threads.map(misbehave, range(200)))
        stop.set()
        assert set(bad) <= {406, 200, 503}
        assert 406 in bad
        assert set(good.result()) == {200}
    assert client.post(PICT_RS, content=png(6)).status_code == 200


def test_every_kind_of_bad_file_at_once_is_answered_as_unreadable_and_the_workers_go_on() -> None:
    files = [pictures.make(kind) for kind in pictures.BAD_KINDS]
    with running_gateway(deadline_ms=60_000) as running, ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda file: httpx.post(f"{running.url}{PICT_RS}", content=file, timeout=90), files))
        found = {(answer.status_code, answer.json()["answered_by"]) for answer in answers}
        reasons = {answer.json()["reason"].partition(":")[0] for answer in answers}
        assert httpx.get(f"{running.url}/readyz").json()["parts"]["frame_workers"]["ok"]
    assert found == {(406, "unreadable")}
    assert {"empty", "not_an_image", "too_large", "truncated"} <= reasons


def test_more_requests_at_once_than_allowed_are_answered_503_and_told_to_retry() -> None:
    with running_gateway(max_in_flight=2, deadline_ms=800) as small, ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda n: httpx.post(f"{small.url}{PICT_RS}", content=png(n), timeout=20), range(8)))
    statuses = [answer.status_code for answer in answers]
    assert statuses.count(200) >= 2
    refused = [answer for answer in answers if answer.status_code == 503]
    assert len(refused) + statuses.count(200) == 8
    assert all(answer.json()["error"]["code"] == "full" and answer.headers["Retry-After"] for answer in refused)


def test_answers_that_wait_to_be_recorded_are_bounded_too() -> None:
    with running_gateway(ledger_entries=2) as small, httpx.Client(base_url=small.url) as mine:
        assert [mine.post(PICT_RS, content=b"no image %d" % n).status_code for n in range(3)] == [406, 406, 503]


def test_a_client_that_asks_before_it_sends_is_told_to_go_on(gateway: RunningGateway) -> None:
    head = chunked(b"nothing", more="Expect: 100-continue\r\n")
    assert talk(gateway, head).startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 406 ")
    refused = chunked(b"nothing", path="/api/v1/scan/wrong", more="Expect: 100-continue\r\n")
    assert talk(gateway, refused).startswith(b"HTTP/1.1 401 ")


def test_one_connection_serves_many_requests(gateway: RunningGateway, client: httpx.Client) -> None:
    request = chunked(b"nothing").replace(b"Connection: close\r\n", b"")
    answer = talk(gateway, request, request, chunked(b"nothing"))
    assert answer.count(b"HTTP/1.1 406 ") == 3


def test_a_scan_can_be_asked_for_by_its_tenant_only(client: httpx.Client) -> None:
    scan_id = client.post("/v1/scans", content=png(9)).json()["scan_id"]
    mine = client.get(f"/v1/scans/{scan_id}")
    assert mine.status_code == 200
    assert (mine.json()["answer"]["scan_id"], mine.json()["verdict"]) == (scan_id, None)
    others = client.get(f"/v1/scans/{scan_id}", headers={"Authorization": f"Bearer {KEY}"})
    assert (others.status_code, others.json()["error"]["code"]) == (404, "unknown_scan")


def test_it_is_healthy_and_says_that_kafka_keeps_it_from_being_ready(client: httpx.Client) -> None:
    assert client.get("/healthz").status_code == 200
    ready = client.get("/readyz")
    assert ready.status_code == 503
    parts = ready.json()["parts"]
    assert (parts["kafka"]["ok"], parts["frame_workers"]["ok"]) == (False, True)
    assert "127.0.0.1:9" in parts["kafka"]["detail"]
    assert parts["scanners"]["required"] is False


def test_how_requests_were_answered_can_be_read_from_the_metrics(client: httpx.Client) -> None:
    before = metric(client, 'fediwarden_gateway_answers_total{answered_by="spooled",decision="accept"}')
    client.post(PICT_RS, content=png(10))
    assert metric(client, 'fediwarden_gateway_answers_total{answered_by="spooled",decision="accept"}') == before + 1
    assert 'fediwarden_gateway_request_seconds_bucket{le="0.15"}' in client.get("/metrics").text


def test_the_description_holds_every_endpoint_and_no_page_fetches_foreign_scripts(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert set(paths) == {
        "/api/v1/scan/{key}", "/v1/scans", "/v1/scans/{scan_id}", "/healthz", "/readyz", "/metrics",
        "/v1/lists/{name}", "/v1/pdq", "/v1/pdq/{key}", "/v1/overrides", "/v1/overrides/{override_id}",
    }  # fmt: skip
    assert client.get("/docs").status_code == client.get("/redoc").status_code == 404


def test_a_port_that_is_taken_is_named_with_the_setting(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        made = Gateway(
            settings(port=port, spool_dir=tmp_path), {"default": TenantSettings()}, NO_KAFKA, Keyring.generate()
        )
        with pytest.raises(CannotStart, match=rf"127\.0\.0\.1:{port}.*gateway\.port"):
            asyncio.run(made.start())


def test_a_stopped_gateway_leaves_no_file_and_no_process(gateway: RunningGateway) -> None:
    def children() -> set[int]:
        return {child.pid for child in psutil.Process().children(recursive=True)}

    before = children()
    with running_gateway() as one:
        httpx.post(f"{one.url}{PICT_RS}", content=png(11))
        assert children() > before
    assert children() == before


def test_two_hundred_slow_and_two_hundred_leaving_clients_at_once_do_not_disturb_a_good_one() -> None:
    image = png(11)
    head = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (PICT_RS.encode(), len(image))

    async def send_slowly(port: int) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head)
        try:
            for byte in image:
                writer.write(bytes([byte]))
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.3):
                        return await reader.read(12)
            raise AssertionError("the whole image was taken a byte at a time")
        finally:
            writer.close()

    async def leave_half_way(port: int) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head + image[: len(image) // 2])
        await writer.drain()
        writer.close()

    async def everybody(url: str, port: int) -> list[bytes]:
        slow = [asyncio.create_task(send_slowly(port)) for _ in range(200)]
        leaving = [asyncio.create_task(leave_half_way(port)) for _ in range(200)]
        async with httpx.AsyncClient(base_url=url, timeout=20) as good:
            while not all(task.done() for task in slow):
                answer = await good.post(PICT_RS, content=image)
                assert (answer.status_code, answer.json()["answered_by"]) == (200, "spooled")
        await asyncio.gather(*leaving)
        return await asyncio.gather(*slow)

    with running_gateway(deadline_ms=2000) as running:
        answers = asyncio.run(everybody(running.url, running.gateway.port))
        assert set(answers) == {b"HTTP/1.1 408"}
        with httpx.Client(base_url=running.url) as client:

            def ends() -> float:
                """How many ended without an image; on a busy machine who left may be found too slow before."""
                gone = metric(client, "fediwarden_gateway_clients_gone_total")
                return gone + metric(client, 'fediwarden_gateway_refusals_total{code="body_too_slow"}')

            wait_for(lambda: ends() == 400)
            wait_for(lambda: metric(client, "fediwarden_gateway_in_flight") == 0)


def test_milliseconds_are_finer_than_the_event_loops_clock(client: httpx.Client) -> None:
    seen = [client.post(PICT_RS, content=pictures.make("garbage")).json()["milliseconds"] for _ in range(8)]
    assert any(value != int(value) for value in seen)


def test_a_body_that_is_not_here_by_the_deadline_is_refused_by_then() -> None:
    with running_gateway(deadline_ms=200, body_timeout_s=600) as running:
        head = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\nx" % PICT_RS.encode()
        assert talk(running, head, to_the_end=False).startswith(b"HTTP/1.1 408 ")
