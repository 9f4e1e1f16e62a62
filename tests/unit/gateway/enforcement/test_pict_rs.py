import asyncio
import base64
import hashlib
from collections.abc import Awaitable, Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TypeVar
from urllib.parse import urlsplit

import pytest

from gateway.enforcement.pict_rs import (
    PictRs,
    PictRsError,
    PictRsRefused,
    PictRsUnexpected,
    PictRsUnreachable,
    hashes_of,
    slug_of,
)
from tests.kafka import find_free_ports
from tests.pict_rs import ANIMATED_AVIF, ANIMATED_WEBP, API_KEY, FORMATS, PictRsServer, running_pict_rs

Result = TypeVar("Result")

DATA = b"any bytes at all"
SHA256 = hashlib.sha256(DATA).digest()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PictRsServer]:
    with running_pict_rs(tmp_path / "pict-rs") as server:
        yield server


def ask(
    server: PictRsServer | str,
    question: Callable[[PictRs], Awaitable[Result]],
    *,
    key: str = API_KEY,
    within_s: float = 60.0,
) -> Result:
    async def run() -> Result:
        url = server if isinstance(server, str) else server.url
        async with PictRs(url, key, answer_within_s=within_s) as pict_rs:
            return await question(pict_rs)

    return asyncio.run(run())


def find(server: PictRsServer | str, media_type: str = "image/jpeg", **how: object) -> tuple[str, ...]:
    return ask(server, lambda pict_rs: pict_rs.find(SHA256, len(DATA), media_type), **how)  # type: ignore[arg-type]


def test_a_hash_is_sha256_then_six_bytes_of_length_then_the_format_and_its_slug_keeps_the_padding() -> None:
    (jpeg,) = hashes_of(SHA256, 0x010203, "image/jpeg")
    assert jpeg == SHA256 + b"\x00\x00\x00\x01\x02\x03" + b"\x05"
    assert len(jpeg.hex()) == 78
    assert base64.urlsafe_b64decode(slug_of(jpeg)) == jpeg
    assert slug_of(b"\xff" * 38 + b"\xfb") == "_" * 51 + "7"
    assert slug_of(b"\x00" * 37).endswith("==")


@pytest.mark.parametrize(
    ("media_type", "format_bytes"),
    [
        ("image/gif", [2]),
        ("image/avif", [4, 1]),
        ("image/webp", [8, 3]),
        ("image/png", [7, 0]),
        ("image/apng", [0, 7]),
        ("video/webm", [10]),
        ("image/of-tomorrow", list(range(11))),
    ],
)
def test_every_format_that_a_media_type_may_be_filed_under_is_tried(media_type: str, format_bytes: list[int]) -> None:
    assert [each[-1] for each in hashes_of(SHA256, 1, media_type)] == format_bytes


@pytest.mark.parametrize(
    ("media_type", "format_byte"), [*FORMATS.items(), ("image/avif", ANIMATED_AVIF), ("image/webp", ANIMATED_WEBP)]
)
def test_a_stored_file_is_found_with_all_its_aliases_whatever_was_stored_after_it(
    server: PictRsServer, media_type: str, format_byte: int
) -> None:
    aliases = {server.files.keep(DATA, format_byte), server.files.keep(DATA, format_byte)}
    server.files.keep(b"something newer", FORMATS["image/jpeg"])
    assert set(find(server, media_type)) == aliases


def test_a_file_that_is_not_there_is_not_taken_for_the_newest_one(server: PictRsServer) -> None:
    server.files.keep(b"something newer", FORMATS["image/jpeg"])
    assert find(server) == ()


def test_the_same_bytes_with_another_length_are_another_file(server: PictRsServer) -> None:
    server.files.keep(DATA, FORMATS["image/jpeg"])
    assert ask(server, lambda pict_rs: pict_rs.find(SHA256, len(DATA) + 1, "image/jpeg")) == ()


def test_a_purge_removes_the_file_and_one_of_an_alias_that_has_gone_is_no_error(server: PictRsServer) -> None:
    server.purge_after_s = 0.0
    alias = server.files.keep(DATA, FORMATS["image/jpeg"])

    async def purge_twice(pict_rs: PictRs) -> None:
        await pict_rs.purge(alias)
        while await pict_rs.find(SHA256, len(DATA), "image/jpeg"):
            await asyncio.sleep(0.01)
        await pict_rs.purge(alias)

    ask(server, purge_twice)
    assert server.files.sha256s() == set()
    assert server.asked("/internal/purge") == 2


def test_a_wrong_key_is_refused_and_named_but_not_repeated(server: PictRsServer) -> None:
    with pytest.raises(PictRsRefused, match=r"tenants\.NAME\.pict_rs_api_key") as refused:
        find(server, key="a-wrong-key")
    assert "a-wrong-key" not in str(refused.value)


def test_a_pict_rs_that_is_gone_or_hangs_or_hangs_up_is_unreachable(server: PictRsServer) -> None:
    with pytest.raises(PictRsUnreachable, match="is pict-rs running"):
        find(f"http://127.0.0.1:{find_free_ports(1)}")
    server.behave("drop")
    with pytest.raises(PictRsUnreachable):
        find(server)
    server.behave("hang")
    with pytest.raises(PictRsUnreachable):
        find(server, within_s=0.2)


class _Forgetful(BaseHTTPRequestHandler):
    """Answers one request on each connection, keeps it open, and hangs up when the next one comes on it."""

    protocol_version = "HTTP/1.1"
    answered: list[str] = []  # noqa: RUF012
    hung_up: list[str] = []  # noqa: RUF012

    def setup(self) -> None:
        super().setup()
        self.is_used = False

    def do_GET(self) -> None:
        self.close_connection = self.is_used
        (self.hung_up if self.is_used else self.answered).append(f"{self.command} {urlsplit(self.path).path}")
        if self.is_used:
            return
        self.is_used = True
        content = b'{"msg": "ok", "page": {"hashes": []}}'
        self.send_response(200)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


def test_what_crosses_the_closing_of_its_connection_is_asked_again_on_another() -> None:
    _Forgetful.answered.clear()
    _Forgetful.hung_up.clear()

    async def find_then_purge_then_find(pict_rs: PictRs) -> None:
        assert await pict_rs.find(SHA256, len(DATA), "image/jpeg") == ()
        await pict_rs.purge("an-alias.jpg")
        assert await pict_rs.find(SHA256, len(DATA), "image/jpeg") == ()

    with ThreadingHTTPServer(("127.0.0.1", 0), _Forgetful) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        ask(f"http://127.0.0.1:{server.server_address[1]}", find_then_purge_then_find)
        server.shutdown()
    assert _Forgetful.answered == ["GET /internal/hashes", "POST /internal/purge", "GET /internal/hashes"]
    assert _Forgetful.hung_up == _Forgetful.answered[1:]


def test_an_error_of_pict_rs_is_unexpected_and_so_is_a_page_of_something_else(server: PictRsServer) -> None:
    server.behave("error")
    with pytest.raises(PictRsUnexpected, match="answers 500 to GET /internal/hashes"):
        find(server)


class _Elsewhere(BaseHTTPRequestHandler):
    """A web server that sends some to another address, and has pages for others."""

    seen: list[str | None] = []  # noqa: RUF012

    def do_GET(self) -> None:
        self.seen.append(self.headers["X-Api-Token"])
        moved = self.path.startswith("/moved")
        self.send_response(302 if moved else 200)
        if moved:
            self.send_header("location", "/page")
        self.send_header("content-length", "6")
        self.end_headers()
        self.wfile.write(b"<html>")

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@pytest.mark.parametrize("path", ["", "/moved"])
def test_an_address_that_is_no_pict_rs_or_redirects_is_an_error_and_sees_the_key_once(path: str) -> None:
    _Elsewhere.seen.clear()
    with HTTPServer(("127.0.0.1", 0), _Elsewhere) as other:
        Thread(target=other.serve_forever, daemon=True).start()
        with pytest.raises(PictRsError) as error:
            find(f"http://127.0.0.1:{other.server_address[1]}{path}")
        other.shutdown()
    assert isinstance(error.value, PictRsUnexpected)
    assert _Elsewhere.seen == [API_KEY]
