import asyncio
import hashlib
import os
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.bodies import Bodies, Body
from gateway.refusals import ClientGone, Refusal, RefusalCode
from gateway.settings import GatewaySettings

Receive = Callable[[], Awaitable[dict[str, Any]]]
BOUNDARY = "----a-boundary"
FORM = f"multipart/form-data; boundary={BOUNDARY}"


def events(chunks: Iterable[bytes], *, ends: bool = True) -> Receive:
    """ASGI's receive for a body in `chunks`; without `ends` the client hangs up after them."""
    left = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    left.append({"type": "http.request", "body": b"", "more_body": False} if ends else {"type": "http.disconnect"})

    async def receive() -> dict[str, Any]:
        return left.pop(0)

    return receive


def settings(**more: Any) -> GatewaySettings:
    return GatewaySettings(**{"max_body_bytes": 8 << 20, "memory_body_bytes": 1 << 20, **more})


def content(body: Body) -> bytes:
    assert os.lseek(body.fd, 0, os.SEEK_CUR) == 0
    return os.pread(body.fd, body.length + 1, 0)


def read(chunks: Iterable[bytes], *, content_type: str = "image/jpeg", **more: Any) -> tuple[bytes, bytes]:
    """A body's bytes and sha256."""

    async def go() -> tuple[bytes, bytes]:
        bodies = Bodies(settings(**more))
        with await bodies.read(events(chunks), content_type=content_type) as body:
            result = content(body), body.sha256
        assert bodies.held_bytes == 0
        return result

    return asyncio.run(go())


def refused(receive: Receive, *, content_type: str = "image/jpeg", length: int | None = None, **more: Any) -> Refusal:
    async def go() -> Refusal:
        bodies = Bodies(settings(**more))
        with pytest.raises(Refusal) as caught:
            await bodies.read(receive, content_type=content_type, content_length=length)
        assert bodies.held_bytes == 0
        return caught.value

    before = open_files()
    refusal = asyncio.run(go())
    assert open_files() == before
    return refusal


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def form(*parts: tuple[str, bytes], end: str = "--") -> bytes:
    body = b""
    for disposition, value in parts:
        body += f"--{BOUNDARY}\r\nContent-Disposition: form-data; {disposition}\r\n\r\n".encode() + value + b"\r\n"
    return body + f"--{BOUNDARY}{end}\r\n".encode()


FILE = 'name="file"; filename="../../etc/passwd"'


@given(st.lists(st.binary(max_size=3000), max_size=12), st.integers(0, 4000))
def test_the_bytes_and_their_hash_are_the_same_in_memory_and_in_a_file(chunks: list[bytes], in_memory: int) -> None:
    whole = b"".join(chunks)
    assert read(chunks, memory_body_bytes=in_memory) == (whole, hashlib.sha256(whole).digest())


def test_a_large_body_is_held_in_a_file_that_has_no_name(tmp_path: Path) -> None:
    chunks = [os.urandom(64 << 10) for _ in range(48)]

    async def go() -> None:
        with await Bodies(settings(body_dir=tmp_path)).read(events(chunks)) as body:
            assert content(body) == b"".join(chunks)
            assert os.fstat(body.fd).st_dev == tmp_path.stat().st_dev
            assert list(tmp_path.iterdir()) == []

    asyncio.run(go())


def test_a_small_body_never_touches_the_spool_folder(tmp_path: Path) -> None:
    assert read([b"small"], body_dir=tmp_path / "not there")[0] == b"small"


def test_a_spool_folder_that_is_not_there_is_refused_503_and_leaves_nothing_open(tmp_path: Path) -> None:
    refusal = refused(events([b"x" * (2 << 20)]), body_dir=tmp_path / "not there")
    assert (refusal.code, refusal.status) == (RefusalCode.FULL, 503)


def test_a_body_over_the_limit_is_refused_413_before_it_is_read_to_its_end() -> None:
    taken = 0

    async def endless() -> dict[str, Any]:
        nonlocal taken
        taken += 1
        return {"type": "http.request", "body": b"x" * 65536, "more_body": True}

    assert refused(endless, max_body_bytes=1 << 20).status == 413
    assert taken == 17


def test_a_body_that_declares_too_great_a_length_is_refused_413_unread() -> None:
    async def never() -> dict[str, Any]:
        raise AssertionError("the body was read")

    assert refused(never, max_body_bytes=1024, length=1025).status == 413


def test_a_body_of_exactly_the_limit_is_taken() -> None:
    assert len(read([b"x" * 1024], max_body_bytes=1024)[0]) == 1024


def test_a_body_that_does_not_come_in_time_is_refused_408() -> None:
    async def stuck() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    assert refused(stuck, body_timeout_s=0.05).code is RefusalCode.BODY_TOO_SLOW


def test_a_client_that_leaves_half_way_leaves_nothing_behind() -> None:
    async def go() -> None:
        bodies = Bodies(settings())
        with pytest.raises(ClientGone):
            await bodies.read(events([b"x" * 4096] * 400, ends=False))
        assert bodies.held_bytes == 0

    before = open_files()
    asyncio.run(go())
    assert open_files() == before


def test_bodies_beyond_the_room_for_all_are_refused_503_until_one_is_closed() -> None:
    async def go() -> None:
        bodies = Bodies(settings(max_body_bytes=4096, max_in_flight_bytes=6000))
        first = await bodies.read(events([b"x" * 4096]))
        with pytest.raises(Refusal) as caught:
            await bodies.read(events([b"x" * 4096]))
        assert caught.value.status == 503
        assert bodies.held_bytes == 4096
        first.close()
        first.close()
        with await bodies.read(events([b"x" * 4096])):
            assert bodies.held_bytes == 4096

    asyncio.run(go())


@given(st.binary(max_size=4000), st.integers(1, 700))
def test_a_forms_file_comes_out_whole_however_the_form_is_cut(file: bytes, cut: int) -> None:
    body = form(('name="note"', b"before"), (FILE, file), ('name="other"', b"after"))
    chunks = [body[at : at + cut] for at in range(0, len(body), cut)]
    assert read(chunks, content_type=FORM) == (file, hashlib.sha256(file).digest())


def test_a_file_that_contains_most_of_the_boundary_comes_out_whole() -> None:
    file = b"\r\n--" + BOUNDARY[:-1].encode() + b"\r\n\r\n--" + BOUNDARY[:3].encode()
    body = form((FILE, file))
    for cut in range(1, len(body)):
        assert read([body[:cut], body[cut:]], content_type=FORM)[0] == file


def test_a_file_named_only_in_the_extended_syntax_is_a_file() -> None:
    assert read([form(("name=f; filename*=utf-8''%C3%BC.png", b"png"))], content_type=FORM)[0] == b"png"


@pytest.mark.parametrize(
    ("body", "content_type", "code"),
    [
        (form(('name="file"', b"no file name")), FORM, RefusalCode.NO_FILE),
        (form((FILE, b"one"), (FILE, b"two")), FORM, RefusalCode.SEVERAL_FILES),
        (form((FILE, b"one")), "multipart/form-data", RefusalCode.MALFORMED_MULTIPART),
        (form((FILE, b"one")), "multipart/form-data; boundary=", RefusalCode.MALFORMED_MULTIPART),
        (form((FILE, b"one")), f"multipart/form-data; boundary={'b' * 300}", RefusalCode.MALFORMED_MULTIPART),
        (form((FILE, b"one")), "multipart/form-data; boundary=other", RefusalCode.MALFORMED_MULTIPART),
        (form((FILE, b"one"), end=""), FORM, RefusalCode.MALFORMED_MULTIPART),
        (b"", FORM, RefusalCode.MALFORMED_MULTIPART),
        (b"\xff\xd8\xff\xe0 a jpeg", FORM, RefusalCode.MALFORMED_MULTIPART),
        (form(*[('name="f"', b"x")] * 40), FORM, RefusalCode.MALFORMED_MULTIPART),
        (f"--{BOUNDARY}\r\nX: {'y' * 20000}\r\n\r\n".encode(), FORM, RefusalCode.MALFORMED_MULTIPART),
    ],
)
def test_a_form_that_is_not_one_file_is_refused_400(body: bytes, content_type: str, code: RefusalCode) -> None:
    refusal = refused(events([body]), content_type=content_type)
    assert (refusal.code, refusal.status) == (code, 400)


def test_a_forms_file_may_be_as_large_as_a_body_and_no_larger() -> None:
    assert len(read([form((FILE, b"x" * 2048))], content_type=FORM, max_body_bytes=2048)[0]) == 2048
    assert refused(events([form((FILE, b"x" * 2049))]), content_type=FORM, max_body_bytes=2048).status == 413


@given(st.lists(st.binary(max_size=400), max_size=4))
def test_no_bytes_in_a_form_do_anything_but_be_read_or_refused(chunks: list[bytes]) -> None:
    async def go() -> None:
        bodies = Bodies(settings())
        try:
            with await bodies.read(events([f"--{BOUNDARY}\r\n".encode(), *chunks]), content_type=FORM):
                pass
        except Refusal as refusal:
            assert refusal.status == 400
        assert bodies.held_bytes == 0

    asyncio.run(go())


@pytest.mark.parametrize("size", [1000, 3 << 20], ids=["in memory", "in a file"])
def test_the_md5_is_there_when_it_is_wanted_and_only_then(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    wanted = False
    bodies = Bodies(settings(body_dir=tmp_path), needs_md5=lambda: wanted)

    async def read() -> bytes | None:
        with await bodies.read(events([data[: size // 2], data[size // 2 :]])) as body:
            return body.md5

    assert asyncio.run(read()) is None
    wanted = True
    assert asyncio.run(read()) == hashlib.md5(data).digest()
