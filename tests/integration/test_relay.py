"""The relay between clients and pict-rs's that behave and that do not: nobody can tell that it is there."""

import asyncio
import contextlib
import hashlib
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop

from gateway.relay.metrics import Outcome
from gateway.relay.service import Relay
from tests.relays import WITHIN_S, Handler, ask, read_head, relaying, serving, until

MIB = 1 << 20
PIECE = bytes(range(256)) * 256  # 64 KiB
PIECES_OF_40_MB = 640
PROXIED = b"/image/original?proxy=https%3A%2F%2Fhost.example%2Fa.png"
FAILED = b'{"msg":"Failed external validation","code":"failed-external-validation"}'


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    uvloop.run(test())  # as the command does


def answering(answer: bytes, seen: list[bytes] | None = None) -> Handler:
    """A server that answers every request's head (and 5 bytes of body, if it says so) with these bytes."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await read_head(reader)
            if b"content-length: 5" in head.lower():
                head += await reader.readexactly(5)
            if seen is not None:
                seen.append(head)
            writer.write(answer)
            await writer.drain()

    return handle


def get(target: bytes, *headers: bytes, method: bytes = b"GET", close: bool = True) -> bytes:
    lines = [
        method + b" " + target + b" HTTP/1.1",
        b"Host: relay",
        *headers,
        *([b"Connection: close"] if close else []),
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def port_of(relay: Relay) -> int:
    return relay.ports["default"]


def counted(relay: Relay, outcome: Outcome) -> float:
    value = relay.metrics.registry.get_sample_value("fediwarden_relay_requests_total", {"outcome": outcome})
    assert value is not None
    return value


def test_heads_pass_as_they_are_but_for_what_is_the_connections_own(tmp_path: Path) -> None:
    seen: list[bytes] = []
    answer = (
        b'HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nETag: "x"\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n'
        b"Cache-Control: max-age=604800\r\nConnection: keep-alive, X-Hop\r\nKeep-Alive: timeout=5\r\nX-Hop: 1\r\n"
        b"Content-Encoding: br\r\nContent-Length: 5\r\n\r\nhello"
    )

    async def test() -> None:
        async with serving(answering(answer, seen)) as upstream, relaying(upstream, tmp_path) as relay:
            target = b"/image/process.webp?src=a%2Fb%20c.png&thumbnail=96&x=%C3%A9;;&&y"
            request = get(
                target,
                b"X-Forwarded-For: 198.51.100.7",
                b"X-Forwarded-For: 198.51.100.8",
                b"Authorization: Bearer a.b.c",
                b"Accept-Encoding: gzip, br",
                b"TE: trailers",
                b"Proxy-Connection: keep-alive",
            )
            answered = await ask(port_of(relay), request)

        assert seen[0] == (
            b"GET " + target + b" HTTP/1.1\r\nhost: relay\r\nx-forwarded-for: 198.51.100.7\r\n"
            b"x-forwarded-for: 198.51.100.8\r\nauthorization: Bearer a.b.c\r\naccept-encoding: gzip, br\r\n\r\n"
        )
        assert answered == (
            b'HTTP/1.1 200 OK\r\ncontent-type: image/png\r\netag: "x"\r\nset-cookie: a=1\r\nset-cookie: b=2\r\n'
            b"cache-control: max-age=604800\r\ncontent-encoding: br\r\ncontent-length: 5\r\nconnection: close\r\n\r\n"
            b"hello"
        )

    run(test)


@pytest.mark.parametrize(
    ("method", "head", "body"),
    [
        (b"GET", b"206 Partial Content\r\nContent-Range: bytes 0-4/9\r\nContent-Length: 5", b"hello"),
        (b"GET", b"416 Requested Range Not Satisfiable\r\nContent-Range: bytes */9\r\nContent-Length: 0", b""),
        (b"GET", b"303 See Other\r\nLocation: https://bucket.example/a?sig=%2F\r\nContent-Length: 0", b""),
        (b"GET", b'304 Not Modified\r\nETag: "x"', b""),
        (b"HEAD", b"200 OK\r\nContent-Type: image/png\r\nContent-Length: 12345", b""),
        (b"DELETE", b"204 No Content\r\nX-A: b", b""),
        (b"GET", b"400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: 72", FAILED),
        (b"GET", b"404 Not Found\r\nContent-Length: 0", b""),
        (b"GET", b"500 Internal Server Error\r\nContent-Length: 0", b""),
    ],
)
def test_every_status_passes_and_the_connection_serves_on(
    tmp_path: Path, method: bytes, head: bytes, body: bytes
) -> None:
    async def test() -> None:
        answer = b"HTTP/1.1 " + head + b"\r\n\r\n" + body
        async with serving(answering(answer)) as upstream, relaying(upstream, tmp_path) as relay:
            twice = get(b"/image/original/a.png", method=method, close=False) + get(b"/image/x", method=method)
            answered = await ask(port_of(relay), twice)

        second_at = answered.index(b"HTTP/1.1", 1)
        assert answered[:second_at].lower() == answer.lower()
        assert answered[second_at:].lower().startswith(b"http/1.1 " + head.lower())

    run(test)


def test_a_length_that_a_304_names_does_not_make_the_client_wait(tmp_path: Path) -> None:
    async def test() -> None:
        answer = b"HTTP/1.1 304 Not Modified\r\nContent-Length: 500\r\n\r\n"
        async with serving(answering(answer)) as upstream, relaying(upstream, tmp_path) as relay:
            assert await ask(port_of(relay), get(b"/image/original/a.png")) == (
                b"HTTP/1.1 304 Not Modified\r\nconnection: close\r\n\r\n"
            )

    run(test)


@pytest.mark.parametrize(
    "framing", [b"Content-Length: %d" % (PIECES_OF_40_MB * len(PIECE)), b"Transfer-Encoding: chunked"]
)
def test_40_mb_go_up_and_come_down_byte_for_byte(tmp_path: Path, framing: bytes) -> None:
    chunked = b"chunked" in framing

    def frame(piece: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await read_head(reader)
        assert framing.lower() in head
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n" + framing + b"\r\n\r\n")
        while piece := await reader.read(1 << 16):
            writer.write(piece)
            await writer.drain()

    async def test() -> None:
        sent = hashlib.sha256()
        got = hashlib.sha256()
        async with serving(echo) as upstream, relaying(upstream, tmp_path) as relay:
            reader, writer = await asyncio.open_connection("127.0.0.1", port_of(relay))

            async def send() -> None:
                writer.write(get(b"/image", framing, method=b"POST", close=False))
                for number in range(PIECES_OF_40_MB):
                    piece = number.to_bytes(4, "big") + PIECE[4:]
                    sent.update(piece)
                    writer.write(frame(piece))
                    await writer.drain()
                if chunked:
                    writer.write(b"0\r\n\r\n")

            sending = asyncio.create_task(send())
            head = await read_head(reader)
            assert framing.lower() in head
            left = PIECES_OF_40_MB * len(PIECE)
            while left:
                size = int(await reader.readline(), 16) if chunked else min(left, 1 << 16)
                got.update(await reader.readexactly(size))
                left -= size
                if chunked:
                    await reader.readexactly(2)
            await sending
            writer.close()
        assert got.digest() == sent.digest()

    run(test)


def test_a_client_that_does_not_read_slows_pict_rs_down_and_loses_nothing(tmp_path: Path) -> None:
    written = 0

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (PIECES_OF_40_MB * len(PIECE)))
        for _ in range(PIECES_OF_40_MB):
            writer.write(PIECE)
            await writer.drain()
            written += len(PIECE)
        await reader.read()

    async def test() -> None:
        async with serving(pour) as upstream, relaying(upstream, tmp_path) as relay:
            reader, writer = await asyncio.open_connection("127.0.0.1", port_of(relay))
            writer.write(get(b"/image/original/a.png"))
            await read_head(reader)
            await standing_still(lambda: written)
            assert written < 32 * MIB
            assert len(await asyncio.wait_for(reader.read(), WITHIN_S)) == PIECES_OF_40_MB * len(PIECE)
            writer.close()

    run(test)


def test_a_pict_rs_that_does_not_read_slows_the_client_down_and_loses_nothing(tmp_path: Path) -> None:
    sent = 0
    go_on = asyncio.Event()
    whole = PIECES_OF_40_MB * len(PIECE)

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        await go_on.wait()
        got = 0
        while got < whole:
            got += len(await reader.read(1 << 16))
        writer.write(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    async def test() -> None:
        nonlocal sent
        async with serving(wait) as upstream, relaying(upstream, tmp_path) as relay:
            reader, writer = await asyncio.open_connection("127.0.0.1", port_of(relay))
            writer.write(get(b"/image", b"Content-Length: %d" % whole, method=b"POST"))

            async def send() -> None:
                nonlocal sent
                for _ in range(PIECES_OF_40_MB):
                    writer.write(PIECE)
                    await writer.drain()
                    sent += len(PIECE)

            sending = asyncio.create_task(send())
            await standing_still(lambda: sent)
            assert sent < 32 * MIB
            go_on.set()
            assert (await read_head(reader)).startswith(b"HTTP/1.1 201")
            await sending
            writer.close()

    run(test)


async def standing_still(count: Callable[[], int]) -> None:
    """Return when the count has not grown for a second."""
    last, same = -1, 0
    while same < 20:
        await asyncio.sleep(0.05)
        same = same + 1 if count() == last else 0
        last = count()


def test_who_hangs_up_on_an_ordinary_answer_ends_it_for_pict_rs_too(tmp_path: Path) -> None:
    hung_up = asyncio.Event()

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            while True:
                writer.write(b"%x\r\n%b\r\n" % (len(PIECE), PIECE))
                await writer.drain()
        except ConnectionError:
            hung_up.set()

    async def test() -> None:
        async with serving(pour) as upstream, relaying(upstream, tmp_path) as relay:
            reader, writer = await asyncio.open_connection("127.0.0.1", port_of(relay))
            writer.write(get(b"/image/original/a.png"))
            await read_head(reader)
            writer.transport.abort()
            await asyncio.wait_for(hung_up.wait(), WITHIN_S)
            await until(lambda: counted(relay, Outcome.CLIENT_GONE) == 1, "counted")

    run(test)


def test_who_hangs_up_in_the_middle_of_an_upload_ends_it_for_pict_rs_too(tmp_path: Path) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        begun.set()
        with contextlib.suppress(ConnectionError):
            await reader.read()
        ended.set()

    async def test() -> None:
        async with serving(take) as upstream, relaying(upstream, tmp_path) as relay:
            _, writer = await asyncio.open_connection("127.0.0.1", port_of(relay))
            writer.write(get(b"/image", b"Content-Length: 1000", method=b"POST") + b"x" * 100)
            await asyncio.wait_for(begun.wait(), WITHIN_S)
            writer.transport.abort()
            await asyncio.wait_for(ended.wait(), WITHIN_S)

    run(test)


@pytest.mark.parametrize("hang_up_after", ["request", "head"])
def test_a_proxied_image_is_read_to_its_end_although_lemmy_has_gone(tmp_path: Path, hang_up_after: str) -> None:
    asked, go_on, finished = asyncio.Event(), asyncio.Event(), asyncio.Event()
    whole = 5 * MIB // len(PIECE)

    async def fetch(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        asked.set()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n" % (whole * len(PIECE))
        if hang_up_after == "head":
            writer.write(head)
        await go_on.wait()
        if hang_up_after == "request":
            writer.write(head)
        for _ in range(whole):
            writer.write(PIECE)
            await writer.drain()
        finished.set()
        await reader.read()

    async def test() -> None:
        async with serving(fetch) as upstream, relaying(upstream, tmp_path) as relay:
            reader, writer = await asyncio.open_connection("127.0.0.1", port_of(relay))
            writer.write(get(PROXIED))
            await asyncio.wait_for(asked.wait(), WITHIN_S)
            if hang_up_after == "head":
                await read_head(reader)
            writer.transport.abort()
            await until(lambda: relay.lingering == 1, "seen to be gone")
            go_on.set()
            await asyncio.wait_for(finished.wait(), WITHIN_S)
            await until(lambda: relay.origins_waiting == 1, "learned")
            await until(lambda: relay.lingering == 0, "over")

    run(test)


def test_reading_on_for_nobody_has_its_bound(tmp_path: Path) -> None:
    asked, go_on, hung_up = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        asked.set()
        await go_on.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            while True:
                writer.write(b"%x\r\n%b\r\n" % (len(PIECE), PIECE))
                await writer.drain()
        except ConnectionError:
            hung_up.set()

    async def test() -> None:
        async with serving(pour) as upstream, relaying(upstream, tmp_path, linger_bytes=MIB) as relay:
            _, writer = await asyncio.open_connection("127.0.0.1", port_of(relay))
            writer.write(get(PROXIED))
            await asyncio.wait_for(asked.wait(), WITHIN_S)
            writer.transport.abort()
            await until(lambda: relay.lingering == 1, "seen to be gone")
            go_on.set()
            await asyncio.wait_for(hung_up.wait(), WITHIN_S)
            assert relay.origins_waiting == 0

    run(test)


def test_nobody_is_waited_for_longer_than_the_set_time(tmp_path: Path) -> None:
    asked, hung_up = asyncio.Event(), asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        asked.set()
        with contextlib.suppress(ConnectionError):
            await reader.read()
        hung_up.set()

    async def test() -> None:
        async with serving(say_nothing) as upstream, relaying(upstream, tmp_path, linger_s=0.1) as relay:
            _, writer = await asyncio.open_connection("127.0.0.1", port_of(relay))
            writer.write(get(PROXIED))
            await asyncio.wait_for(asked.wait(), WITHIN_S)
            writer.transport.abort()
            await asyncio.wait_for(hung_up.wait(), WITHIN_S)

    run(test)


@pytest.mark.parametrize(
    ("head", "part"),
    [(b"Content-Length: 1000", b"x" * 100), (b"Transfer-Encoding: chunked", b"64\r\n" + b"x" * 100 + b"\r\n")],
)
def test_an_answer_that_breaks_off_is_not_taken_for_the_whole(tmp_path: Path, head: bytes, part: bytes) -> None:
    async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n" + head + b"\r\n\r\n" + part)
        await writer.drain()

    async def test() -> None:
        async with serving(break_off) as upstream, relaying(upstream, tmp_path) as relay:
            answered = await ask(port_of(relay), get(PROXIED, close=False))
            assert answered.endswith(b"\r\n\r\n" + part)
            await until(lambda: counted(relay, Outcome.BROKEN) == 1, "counted")
            assert relay.origins_waiting == 0

    run(test)


def test_without_pict_rs_the_answer_is_502_and_with_it_again_all_is_well(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(answering(b"")) as upstream:
            pass
        async with relaying(upstream, tmp_path) as relay:
            for request in (get(b"/healthz"), get(b"/image", b"Content-Length: 5", method=b"POST") + b"hello"):
                answered = await ask(port_of(relay), request)
                assert answered.startswith(b"HTTP/1.1 502 ")
                assert b'"upstream-unreachable"' in answered
            assert not next(part for part in relay.parts() if part.name == "pict_rs_default").ok
            server = await asyncio.start_server(
                lambda reader, writer: asyncio.ensure_future(
                    answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")(reader, writer)
                ),
                "127.0.0.1",
                upstream,
            )
            assert (await ask(port_of(relay), get(b"/healthz"))).startswith(b"HTTP/1.1 200 ")
            assert next(part for part in relay.parts() if part.name == "pict_rs_default").ok
            server.close()

    run(test)


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * (300 << 10) + b"\r\n\r\n",
        b"HTTP/1.1 777 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"",
    ],
)
def test_what_is_no_answer_becomes_a_502(tmp_path: Path, answer: bytes) -> None:
    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(answer)
        await writer.drain()

    async def test() -> None:
        async with serving(once) as upstream, relaying(upstream, tmp_path) as relay:
            assert (await ask(port_of(relay), get(b"/image/original/a"))).startswith(b"HTTP/1.1 502 ")

    run(test)


def test_an_answer_before_the_body_is_sent_arrives_though_pict_rs_hangs_up(tmp_path: Path) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 413 Payload Too Large\r\nContent-Length: 4\r\nConnection: close\r\n\r\nlong")
        await writer.drain()
        writer.close()  # with bytes unread: the relay's connection is reset

    async def test() -> None:
        async with serving(refuse) as upstream, relaying(upstream, tmp_path) as relay:
            reader, writer = await asyncio.open_connection("127.0.0.1", port_of(relay))
            writer.write(get(b"/image", b"Content-Length: %d" % (20 * MIB), method=b"POST", close=False))

            async def send() -> None:
                for _ in range(20 * MIB // len(PIECE)):
                    writer.write(PIECE)
                    await writer.drain()

            sending = asyncio.create_task(send())
            assert (await read_head(reader)).startswith(b"HTTP/1.1 413 ")
            assert await reader.readexactly(4) == b"long"
            await sending
            writer.close()

    run(test)


def test_a_client_that_asks_first_is_told_to_go_on(tmp_path: Path) -> None:
    seen: list[bytes] = []

    async def test() -> None:
        answer = b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n"
        async with serving(answering(answer, seen)) as upstream, relaying(upstream, tmp_path) as relay:
            reader, writer = await asyncio.open_connection("127.0.0.1", port_of(relay))
            writer.write(get(b"/image", b"Content-Length: 5", b"Expect: 100-continue", method=b"POST"))
            assert await read_head(reader) == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(b"hello")
            assert (await read_head(reader)).startswith(b"HTTP/1.1 201 ")
            writer.close()
        assert seen[0].endswith(b"hello")
        assert b"expect" not in seen[0]

    run(test)


@pytest.mark.parametrize(
    "request_",
    [
        get(b"/image", b"Content-Length: 5", b"Transfer-Encoding: chunked", method=b"POST") + b"0\r\n\r\n",
        get(b"/image", b"Transfer-Encoding: chunked", b"Content-Length: 5", method=b"POST") + b"0\r\n\r\n",
        get(b"/image", b"Content-Length: 5", b"Content-Length: 6", method=b"POST") + b"hello!",
        get(b"/image", b"Transfer-Encoding: gzip, chunked", method=b"POST") + b"0\r\n\r\n",
        get(b"/image", b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity", method=b"POST") + b"0\r\n\r\n",
        get(b"/image", b"Transfer-Encoding : chunked", method=b"POST") + b"0\r\n\r\n",
        get(b"/image", b"Content-Length: +5", method=b"POST") + b"hello",
        get(b"/image/a b", b"X: y"),
        get(b"/image", b"X: a\x00b"),
        get(b"/image", b"X: y\r\n folded: z"),
        b"GET /image HTTP/1.1\r\n\r\n" + b"\xff" * 10,
        b"CONNECT inside.example:22 HTTP/1.1\r\nHost: inside.example\r\nConnection: close\r\n\r\n",
    ],
)
def test_a_request_of_two_meanings_reaches_pict_rs_in_none_or_one(tmp_path: Path, request_: bytes) -> None:
    seen: list[bytes] = []

    async def test() -> None:
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        async with serving(answering(answer, seen)) as upstream, relaying(upstream, tmp_path) as relay:
            answered = await ask(port_of(relay), request_)
            assert answered.startswith(b"HTTP/1.1 400 ") or len(seen) == 1, (answered, seen)

    run(test)
    for head in seen:
        assert not (b"content-length" in head and b"transfer-encoding" in head)
        assert b"folded" not in head or b"\r\n folded" not in head


def test_an_overlong_head_is_refused(tmp_path: Path) -> None:
    seen: list[bytes] = []

    async def test() -> None:
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        async with serving(answering(answer, seen)) as upstream, relaying(upstream, tmp_path) as relay:
            answered = await ask(port_of(relay), get(b"/image", b"X: " + b"a" * (70 << 10)))
            assert answered.startswith(b"HTTP/1.1 431 ")
            assert (await ask(port_of(relay), get(b"/image", b"X: " + b"a" * (30 << 10)))).startswith(b"HTTP/1.1 200 ")
        assert len(seen) == 1

    run(test)


def test_a_get_whose_kept_connection_is_closed_by_pict_rs_is_asked_again(tmp_path: Path) -> None:
    heads: list[bytes] = []

    async def one_each(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await read_head(reader))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await writer.drain()
        await read_head(reader)  # the second request on this connection goes unanswered

    async def test() -> None:
        async with serving(one_each) as upstream, relaying(upstream, tmp_path) as relay:
            for _ in range(3):
                assert (await ask(port_of(relay), get(b"/image/original/a"))).endswith(b"\r\n\r\nok")
        assert len(heads) == 3

    run(test)


def test_a_post_is_sent_once_whatever_happens(tmp_path: Path) -> None:
    heads: list[bytes] = []

    async def take_and_go(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await read_head(reader))

    async def test() -> None:
        async with serving(take_and_go) as upstream, relaying(upstream, tmp_path) as relay:
            answered = await ask(port_of(relay), get(b"/internal/purge?alias=a", method=b"POST"))
            assert answered.startswith(b"HTTP/1.1 502 ")
        assert len(heads) == 1

    run(test)


def test_without_kafka_everything_passes_and_what_is_too_much_is_counted(tmp_path: Path) -> None:
    async def test() -> None:
        answer = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 5\r\n\r\nhello"
        async with serving(answering(answer)) as upstream, relaying(upstream, tmp_path, max_waiting=2) as relay:
            for number in range(5):
                target = b"/image/original?proxy=https://host.example/%d" % number
                assert (await ask(port_of(relay), get(target))).endswith(b"hello")
            assert relay.origins_waiting == 2
            assert relay.metrics.registry.get_sample_value("fediwarden_relay_origins_dropped_total") == 3
            ready = await ask(relay.health_port, get(b"/readyz"))
            assert ready.startswith(b"HTTP/1.1 200 ") and b'"kafka":{"ok":false' in ready
            assert (await ask(relay.health_port, get(b"/healthz"))).startswith(b"HTTP/1.1 200 ")
            assert b"fediwarden_relay_origins_waiting 2.0" in await ask(relay.health_port, get(b"/metrics"))
            assert (await ask(relay.health_port, get(b"/image"))).startswith(b"HTTP/1.1 404 ")

    run(test)


def test_a_stop_waits_for_the_answer_in_hand(tmp_path: Path) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        asked.set()
        await go_on.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        await writer.drain()

    async def test() -> None:
        async with serving(slow) as upstream:
            async with relaying(upstream, tmp_path, drain_s=WITHIN_S) as relay:
                asking = asyncio.create_task(ask(port_of(relay), get(b"/image/original/a", close=False)))
                await asyncio.wait_for(asked.wait(), WITHIN_S)
                relay.stop()
                go_on.set()
            assert (await asking).endswith(b"\r\n\r\nhello")

    run(test)
