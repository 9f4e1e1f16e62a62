"""Fetching for strangers: only from the open internet, whatever names, redirects and DNS answers say."""

import asyncio
import ipaddress
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.fetching import (
    FetchFailed,
    FetchLimits,
    FetchRefused,
    GuardedFetchSettings,
    check_url,
    fetch,
    is_public,
)


class _Handler(BaseHTTPRequestHandler):
    """Answers by path; counts what it is asked."""

    protocol_version = "HTTP/1.1"
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        kind, _, argument = self.path[1:].partition("/")
        if kind == "redirect":
            self._answer(302, b"", location=argument)
        elif kind == "loop":
            self._answer(302, b"", location=self.path)
        elif kind == "status":
            self._answer(int(argument), b"no")
        elif kind == "large":
            self._answer(200, b"", length=int(argument))
        elif kind == "endless":
            self.send_response(200)
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            try:
                while True:
                    self.wfile.write(b"1000\r\n%s\r\n" % bytes(0x1000))
            except OSError:
                return
        elif kind == "slow":
            self.send_response(200)
            self.send_header("content-length", "10")
            self.end_headers()
            self.server.shutting.wait(20)  # type: ignore[attr-defined]
        elif kind == "gzip":
            self._answer(200, b"\x1f\x8b", encoding="gzip")
        else:
            self._answer(200, b"the file", content_type="image/png")

    def _answer(self, status: int, body: bytes, *, length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header({"encoding": "content-encoding"}.get(name, name.replace("_", "-")), value)
        self.send_header("content-length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Quietly."""


@pytest.fixture
def server() -> Iterator[int]:
    """A web server on loopback; its port."""
    _Handler.asked = []
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.shutting = threading.Event()  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutting.set()  # type: ignore[attr-defined]
        server.shutdown()
        thread.join()


def limits(**more: Any) -> FetchLimits:
    networks = tuple(ipaddress.ip_network(each) for each in more.pop("networks", ["127.0.0.0/8"]))
    given = {"max_bytes": 20 << 20, "timeout_s": 60.0, "redirects": 3, "ports": tuple(range(1, 65536))} | more
    return FetchLimits(accept="image/*", setting="some.fetch", networks=networks, **given)


def read(url: str, **more: Any) -> bytes:
    """All of a file, fetched with loopback allowed unless `networks` says otherwise."""

    async def go() -> bytes:
        async with fetch(url, limits(**more)) as fetched:
            return b"".join([piece async for piece in fetched.content])

    return asyncio.run(go())


def test_a_file_is_fetched_also_after_a_redirect(server: int) -> None:
    assert read(f"http://127.0.0.1:{server}/x.png") == b"the file"
    assert read(f"http://localhost:{server}/redirect//y.png") == b"the file"


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "0.0.0.0",
        "[::1]",
        "[::ffff:127.0.0.1]",
    ],
)
def test_nothing_that_means_this_machine_is_connected_to(server: int, host: str) -> None:
    with pytest.raises((FetchRefused, FetchFailed)) as refused:
        read(f"http://{host}:{server}/", networks=[])
    assert isinstance(refused.value, FetchRefused) or "has no address" in str(refused.value)
    assert _Handler.asked == []


@pytest.mark.parametrize(
    "target",
    [
        "http://169.254.169.254/latest/meta-data",
        "http://10.0.0.1/",
        "http://[fd00::1]/",
        "file:///etc/passwd",
        "ftp://x/",
        "//192.168.0.1/",
    ],
)
def test_a_redirect_is_checked_as_the_first_address_is(server: int, target: str) -> None:
    with pytest.raises(FetchRefused):
        read(f"http://127.0.0.1:{server}/redirect/{target}")
    assert len(_Handler.asked) == 1


def test_a_name_is_refused_when_one_of_its_addresses_is_private(server: int, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_to(monkeypatch, ["8.8.8.8", "127.0.0.1"])
    with pytest.raises(FetchRefused, match="not public"):
        read(f"http://rebinding.example:{server}/", networks=[])
    assert _Handler.asked == []


def test_the_connection_goes_to_the_address_that_was_checked(server: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = resolve_to(monkeypatch, ["127.0.0.1"], then=["127.0.0.2"])
    assert read(f"http://rebinding.example:{server}/x", networks=["127.0.0.1/32"]) == b"the file"
    assert asked == ["rebinding.example"]  # once: what DNS would say now is not asked


def resolve_to(monkeypatch: pytest.MonkeyPatch, addresses: list[str], *, then: list[str] | None = None) -> list[str]:
    """Let every name have these addresses (`then`: from the second question on); the names that were asked for."""
    asked: list[str] = []
    genuine = socket.getaddrinfo

    def answer(host: Any, port: Any, *rest: Any, **more: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else str(host)
        if name.replace(".", "").isdigit():
            return genuine(host, port, *rest, **more)
        found = addresses if not asked or then is None else then
        asked.append(name)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, int(port))) for address in found]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    return asked


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("loop", "more than 2 redirects"),
        ("status/404", "answered 404"),
        ("status/500", "answered 500"),
        ("large/999999", "larger than 5000 bytes"),
        ("endless", "larger than 5000 bytes"),
        ("gzip", "compresses"),
    ],
)
def test_what_is_not_simply_a_file_of_a_reasonable_size_is_given_up(server: int, path: str, said: str) -> None:
    with pytest.raises(FetchFailed, match=said):
        read(f"http://127.0.0.1:{server}/{path}", max_bytes=5000, redirects=2)


def test_where_only_https_is_fetched_http_is_refused() -> None:
    only = limits(schemes=frozenset({"https"}))
    assert check_url("https://example.org/", only) == ("example.org", 443)
    with pytest.raises(FetchRefused, match="only https:// addresses"):
        check_url("http://example.org/", only)


def test_a_refusal_names_the_settings_that_would_allow_it(server: int) -> None:
    with pytest.raises(FetchRefused, match=r"some\.fetch\.networks"):
        read(f"http://127.0.0.1:{server}/", networks=[])


def test_a_slow_answer_is_given_up(server: int) -> None:
    began = time.monotonic()
    with pytest.raises(FetchFailed, match=r"more than 0\.3 s"):
        read(f"http://127.0.0.1:{server}/slow", timeout_s=0.3)
    assert time.monotonic() - began < 15


def test_nobody_listening_is_a_failure_and_no_crash() -> None:
    with pytest.raises(FetchFailed):
        read("http://127.0.0.1:9/")
    with pytest.raises(FetchFailed, match="has no address"):
        read("http://nothing.invalid/")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "x",
        "http://",
        "https:///x",
        "http://user:secret@example.org/",
        "http://example.org:22/",
        "http://example.org:99999/",
        "http://exa mple.org/",
        "http://example.org/\r\nHost: other",
        "http://ex\u00e4mple.org/",
        "gopher://example.org/",
        "http://[::1",
        "http://example.org/" + "x" * 5000,
    ],
)
def test_an_address_that_is_none_of_ours_is_refused_before_anything_is_asked(url: str) -> None:
    with pytest.raises(FetchRefused):
        check_url(url, limits(ports=(80, 443)))


NOT_PUBLIC = """
0.0.0.0 10.1.2.3 100.64.0.1 100.127.255.255 127.0.0.1 169.254.169.254 172.16.0.1 192.0.0.1 192.0.2.1 192.168.1.1
198.18.0.1 198.51.100.1 203.0.113.1 224.0.0.1 240.0.0.1 255.255.255.255 :: ::1 ::7f00:1 ::ffff:10.0.0.1 fc00::1
fd12::1 fe80::1 fe80::1%eth0 fec0::1 ff02::1 2002:7f00:1:: 2002:a9fe:a9fe:: 64:ff9b::a9fe:a9fe 64:ff9b:1::1
2001:db8::1 2001:0:4136:e378:8000:63bf:5601:0101 fd00:ec2::254
"""


@pytest.mark.parametrize("address", NOT_PUBLIC.split())
def test_no_address_of_a_network_that_is_not_public_passes(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "2002:808:808::", "64:ff9b::808:808"])
def test_addresses_of_the_open_internet_pass(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@given(st.ip_addresses(v=4))
def test_an_address_is_judged_the_same_however_it_is_wrapped(address: ipaddress.IPv4Address) -> None:
    number = int(address)
    for wrapped in ((0xFFFF << 32) | number, (0x2002 << 112) | (number << 80), (0x64FF9B << 96) | number):
        assert is_public(ipaddress.IPv6Address(wrapped)) == is_public(address)


def test_settings_that_say_nothing_fetch_nothing_and_only_over_https() -> None:
    settings = GuardedFetchSettings()
    limits = settings.as_limits(accept="application/json", setting="audit.contacts")
    assert not settings.enabled and limits.networks == ()
    assert check_url("https://there.example/x", limits) == ("there.example", 443)
    for url in ("http://there.example/x", "https://there.example:8443/x"):
        with pytest.raises(FetchRefused):
            check_url(url, limits)


def test_every_limit_is_the_one_that_was_set() -> None:
    network = ipaddress.ip_network("10.1.0.0/16")
    settings = GuardedFetchSettings(timeout_s=1.5, max_bytes=2048, redirects=1, ports=(8080,), networks=(network,))
    assert settings.as_limits(
        accept="image/*", setting="gateway.fetch", schemes=frozenset({"http"}), one_host=True
    ) == FetchLimits(
        accept="image/*",
        setting="gateway.fetch",
        max_bytes=2048,
        timeout_s=1.5,
        redirects=1,
        ports=(8080,),
        networks=(network,),
        schemes=frozenset({"http"}),
        one_host=True,
    )
