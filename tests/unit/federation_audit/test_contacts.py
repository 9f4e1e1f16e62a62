"""Contacts are asked for over https, of the open internet alone, a little at a time; and what is said is doubted."""

import asyncio
import json
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from federation_audit.cases import ContactKind
from federation_audit.sending.contacts import ContactsOff, Found, find_contacts
from federation_audit.sending.settings import ContactSettings
from tests.certificates import Authority


class _Handler(BaseHTTPRequestHandler):
    """Answers by path from `pages`; a string is a redirect."""

    protocol_version = "HTTP/1.1"
    pages: ClassVar[dict[str, Any]] = {}
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        page = self.pages.get(self.path)
        if isinstance(page, str):
            self.send_response(302)
            self.send_header("location", page)
            content = b""
        else:
            self.send_response(404 if page is None else 200)
            content = page if isinstance(page, bytes) else json.dumps(page).encode()
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: Any) -> None:
        """Quietly."""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> tuple[Path, Path]:
    certificate, key, _ = authority.issue("instance")
    return certificate, key


@pytest.fixture
def port(certificate: tuple[Path, Path]) -> Iterator[int]:
    """An instance on https://localhost; its port."""
    _Handler.pages, _Handler.asked = {}, []
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.05))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def find(port: int, authority: Authority | None, **more: Any) -> Found:
    settings = ContactSettings.model_validate(
        {"enabled": True, "timeout_s": 30, "ports": [port], "networks": ["127.0.0.0/8", "::1/128"], **more}
    )
    tls = None if authority is None else ssl.create_default_context(cafile=str(authority.ca_file))
    return asyncio.run(find_contacts("localhost", settings, port=port, tls=tls))


def values(found: Found, kind: ContactKind) -> list[str]:
    return [each.value for each in found.contacts if each.kind is kind]


def test_a_mastodon_says_whom_to_write_to(port: int, authority: Authority) -> None:
    _Handler.pages = {
        "/api/v2/instance": {
            "contact": {"email": "abuse@bad.example", "account": {"url": f"https://localhost:{port}/@admin"}}
        }
    }
    found = find(port, authority)
    assert values(found, ContactKind.MAIL) == ["abuse@bad.example"]
    assert values(found, ContactKind.PROFILE) == [f"https://localhost:{port}/@admin"]
    assert found.contacts[0].source == "site API /api/v2/instance"
    assert all("answered 404" in said for said in found.failures)


def test_a_lemmy_names_its_admins_and_one_who_lives_elsewhere_is_not_taken(port: int, authority: Authority) -> None:
    _Handler.pages = {
        "/api/v3/site": {
            "admins": [
                {"person": {"actor_id": f"https://localhost:{port}/u/root"}},
                {"person": {"actor_id": "https://victim.example/u/somebody"}},
            ]
        },
        "/api/v4/site": {"admins": [{"person": {"ap_id": f"https://localhost:{port}/u/root"}}]},
    }
    found = find(port, authority)
    assert values(found, ContactKind.PROFILE) == [f"https://localhost:{port}/u/root"]
    assert values(found, ContactKind.MAIL) == []


def test_nodeinfo_is_read_by_its_newest_schema_and_through_a_redirect(port: int, authority: Authority) -> None:
    base = "http://nodeinfo.diaspora.software/ns/schema"
    _Handler.pages = {
        "/.well-known/nodeinfo": f"https://localhost:{port}/here",
        "/here": {
            "links": [
                {"rel": f"{base}/2.0", "href": f"https://localhost:{port}/nodeinfo/2.0"},
                {"rel": f"{base}/2.1", "href": f"https://localhost:{port}/nodeinfo/2.1"},
            ]
        },
        "/nodeinfo/2.1": {
            "version": "2.1",
            "metadata": {"maintainer": {"name": "x", "email": "mailto:me@bad.example"}},
        },
    }
    found = find(port, authority)
    assert values(found, ContactKind.MAIL) == ["me@bad.example"]
    assert "/nodeinfo/2.0" not in _Handler.asked


@pytest.mark.parametrize(
    "contact",
    [
        {"email": "a@bad.example\r\nBcc: x@y.example"},
        {"email": ["a@bad.example"]},
        {"email": "<script>@bad.example"},
        {"email": "x" * 10_000 + "@bad.example"},
        {"account": {"url": "javascript:alert(1)"}},
        {"account": "x"},
        "x",
        [],
        None,
    ],
)
def test_what_is_no_contact_is_not_taken_for_one(port: int, authority: Authority, contact: Any) -> None:
    _Handler.pages = {"/api/v2/instance": {"contact": contact}}
    assert find(port, authority).contacts == ()


@pytest.mark.parametrize("content", [b"[]", b"not json", b"\xff", b"1", b"[" * 100_000, b'{"admins": 7, "links": 7}'])
def test_an_answer_that_is_not_as_documented_is_a_failure_that_is_told(
    port: int, authority: Authority, content: bytes
) -> None:
    _Handler.pages = dict.fromkeys(("/api/v2/instance", "/api/v3/site", "/.well-known/nodeinfo"), content)
    found = find(port, authority)
    assert found.contacts == ()
    assert found.failures


def test_an_answer_that_is_too_large_is_given_up(port: int, authority: Authority) -> None:
    _Handler.pages = {"/api/v2/instance": {"contact": {"email": "abuse@bad.example"}, "more": "x" * 5000}}
    found = find(port, authority, max_bytes=2000)
    assert found.contacts == ()
    assert any("larger than 2000 bytes" in said for said in found.failures)


def test_a_redirect_to_http_is_not_followed(port: int, authority: Authority) -> None:
    _Handler.pages = {"/api/v2/instance": "http://localhost/api/v2/instance"}
    assert any("only https://" in said for said in find(port, authority).failures)


def test_an_instance_with_a_private_address_is_not_asked(port: int, authority: Authority) -> None:
    found = find(port, authority, networks=[])
    assert found.contacts == ()
    assert all("not public" in said for said in found.failures)
    assert _Handler.asked == []


def test_a_certificate_that_nobody_vouches_for_is_not_trusted(port: int) -> None:
    assert find(port, None).contacts == ()
    assert _Handler.asked == []


def test_nobody_is_asked_unless_the_admin_allows_it() -> None:
    with pytest.raises(ContactsOff, match=r"contacts\.enabled"):
        asyncio.run(find_contacts("bad.example", ContactSettings()))
