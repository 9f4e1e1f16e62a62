"""The load generator against small real servers: what it sends, and that its figures are true."""

import asyncio
import hashlib
import math
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn

from bench.load import Generator, Report, percentile
from bench.pictures import make_picture
from bench.processes import parse_pids, usage
from bench.requests import CHUNK, Target, build_request

PICTURES = [make_picture(seed) for seed in range(3)]

App = Callable[[Any, Any, Any], Awaitable[None]]


async def read_body(receive: Any) -> bytes:
    body: bytes = b""
    while True:
        message = await receive()
        body += message["body"]
        if not message.get("more_body"):
            return body


async def reply(send: Any, status: int = 200, answered_by: str = "verdict") -> None:
    headers = [(b"content-length", b"2"), (b"x-fediwarden-answered-by", answered_by.encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"{}"})


@asynccontextmanager
async def serving(app: App) -> Any:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_level="error", access_log=False))
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/api/v1/scan/IPADDR"
        finally:
            server.should_exit = True
            await task


def measure(app: App, *, known: bool = False, timeout_s: float = 8.0, **loop: Any) -> Report:
    async def run() -> Report:
        async with serving(app) as url:
            generator = Generator(Target.parse(url), PICTURES, known=known, timeout_s=timeout_s)
            report = await generator.measure("test", **loop)
            generator.close()
            return report

    return asyncio.run(run())


def test_a_request_is_chunked_as_pict_rs_sends_it_and_carries_the_whole_picture() -> None:
    request = build_request(Target("127.0.0.1", 14051, "/api/v1/scan/IPADDR"), PICTURES[0])
    head, _, rest = b"".join(request.pieces(7)).partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [
        b"POST /api/v1/scan/IPADDR HTTP/1.1",
        b"content-type: image/jpeg",
        b"accept: */*",
        b"user-agent: fediwarden-bench",
        b"host: 127.0.0.1:14051",
        b"transfer-encoding: chunked",
    ]
    chunks = []
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        chunks.append(rest[: int(size, 16)])
        assert rest[int(size, 16) :][:2] == b"\r\n"
        rest = rest[int(size, 16) + 2 :]
    assert chunks[-1] == b""
    assert {len(chunk) for chunk in chunks[:-2]} == {CHUNK}
    assert b"".join(chunks) == request.picture.numbered(7)
    assert len(b"".join(chunks)) == request.length


def test_a_url_that_is_not_http_is_refused() -> None:
    with pytest.raises(ValueError, match="http://"):
        Target.parse("https://example.org/x")


def test_every_request_of_a_run_has_bytes_of_its_own() -> None:
    seen: list[bytes] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(hashlib.sha256(await read_body(receive)).digest())
        await reply(send)

    report = measure(app, concurrency=2, seconds=0.5)
    assert report.sent == report.answered == len(seen) == len(set(seen)) > 6
    assert report.statuses == {"200": len(seen)}
    assert report.answered_by == {"verdict": len(seen)}
    assert not report.errors


def test_known_mode_repeats_the_same_bytes() -> None:
    seen: list[bytes] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(hashlib.sha256(await read_body(receive)).digest())
        await reply(send, answered_by="known")

    report = measure(app, known=True, concurrency=1, seconds=0.5)
    assert len(set(seen)) == len(PICTURES) < len(seen)
    assert report.answered_by == {"known": len(seen)}


def test_an_open_loop_charges_a_stall_to_all_requests_that_it_held_up() -> None:
    gate = asyncio.Lock()
    first = [True]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await read_body(receive)
        async with gate:
            if first.pop() if first else False:
                await asyncio.sleep(0.5)
        await reply(send)

    report = measure(app, rate=100, seconds=0.5)
    assert report.answered == report.sent > 20
    # Arrivals are spread over the stall, so their waits are too: the median is about half of it.
    assert report.p50 > 100.0
    assert report.longest >= 500.0


def test_an_open_loop_offers_the_rate_that_was_asked_for() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await read_body(receive)
        await reply(send)

    report = measure(app, rate=100, seconds=2.0, seed=5)
    assert abs(report.sent - 200) < 4 * math.sqrt(200)


def test_statuses_are_counted_as_they_come() -> None:
    turns = iter(range(10_000))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await read_body(receive)
        await reply(send, 406 if next(turns) % 2 else 200)

    report = measure(app, concurrency=1, seconds=0.4)
    assert abs(report.statuses["200"] - report.statuses["406"]) <= 1


def test_no_answer_in_time_is_an_error_and_no_latency() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await read_body(receive)
        await asyncio.sleep(1.0)
        await reply(send)

    report = measure(app, timeout_s=0.2, rate=20, seconds=0.3)
    assert report.errors == {"timeout": report.sent}
    assert report.answered == 0
    assert math.isnan(report.p50)


def test_a_server_that_is_not_there_is_an_error_of_every_request() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/"
        report = asyncio.run(Generator(Target.parse(url), PICTURES).measure("test", rate=20, seconds=0.3))
    assert report.sent > 0
    assert sum(report.errors.values()) == report.sent


def test_a_loop_is_open_or_closed_but_not_both() -> None:
    generator = Generator(Target("127.0.0.1", 1, "/"), PICTURES)
    with pytest.raises(ValueError, match="one of them"):
        asyncio.run(generator.measure("test", rate=1, concurrency=1, seconds=1))


def test_percentiles_are_nearest_ranks() -> None:
    values = [float(value) for value in range(1, 201)]
    assert percentile(values, 0.5) == 100.0
    assert percentile(values, 0.95) == 190.0
    assert percentile(values, 0.99) == 198.0
    assert percentile([7.0], 0.99) == 7.0
    assert math.isnan(percentile([], 0.5))


def test_pids_are_read_by_name() -> None:
    assert parse_pids(["gateway=12", "scanner=13,14", "scanner=15"]) == {"gateway": [12], "scanner": [13, 14, 15]}
    with pytest.raises(ValueError, match="scanner=x"):
        parse_pids(["scanner=x"])


def test_cpu_time_of_a_process_grows_with_its_work() -> None:
    before = usage([os.getpid()])
    hashlib.pbkdf2_hmac("sha256", b"x", b"y", 400_000)
    after = usage([os.getpid()])
    assert after.own > before.own
    assert after.rss > 0
    assert usage([2**22 + 1]).total == 0.0
