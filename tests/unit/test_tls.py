"""HTTPS by gateway and pages with certificates of a real authority, and who is trusted on this machine."""

import asyncio
import ssl
from pathlib import Path

import httpx
import pytest
from psycopg.conninfo import conninfo_to_dict
from pydantic import ValidationError
from sqlalchemy import create_engine

from federation_audit.pages.service import CannotServe
from federation_audit.pages.settings import PagesSettings
from federation_audit.store.engine import parse_url
from fediwarden.audit_doctor import _look_at_pages
from fediwarden.doctor import _look_at_gateway
from fediwarden.findings import Health
from fediwarden.settings import Settings
from fediwarden.up import _ask_ready
from gateway.listening import CannotStart
from gateway.service import Gateway
from gateway.settings import TenantSettings
from schemas.keyring import Keyring
from schemas.tls import ServerTlsSettings, TlsUnusable
from tests import pictures
from tests.certificates import Authority
from tests.gateways import NO_KAFKA, running_gateway, settings
from tests.pages import running_pages


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


def tls(authority: Authority, name: str) -> ServerTlsSettings:
    certificate, key, _ = authority.issue(name)
    return ServerTlsSettings(cert_file=certificate, key_file=key)


def test_the_gateway_serves_https_alone_and_its_own_machine_knows_it(authority: Authority) -> None:
    ours, anothers = tls(authority, "gateway"), tls(authority, "somebody")
    with running_gateway(tls=ours, deadline_ms=150) as running:
        port = running.gateway.port
        by_name = ssl.create_default_context(cafile=str(authority.ca_file))
        with httpx.Client(base_url=f"https://localhost:{port}", verify=by_name, timeout=20) as client:
            assert client.post("/api/v1/scan/IPADDR", content=pictures.make("png")).status_code == 200
            large = pictures.photo(1)
            assert client.post("/api/v1/scan/IPADDR", content=large).status_code == 200
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://127.0.0.1:{port}/healthz")
        with pytest.raises(httpx.ConnectError):  # nobody else's word for it
            httpx.get(f"https://127.0.0.1:{port}/healthz")

        told = Settings(gateway=settings(port=port, tls=ours))
        assert told.gateway_url == f"https://127.0.0.1:{port}"
        assert _ask_ready(told.gateway_url, ours.own_context())[0] == 503  # Kafka is away
        assert _ask_ready(told.gateway_url, anothers.own_context())[0] is None
        found = asyncio.run(_look_at_gateway(told))
        assert "kafka" in found[-1].detail
        wrong = Settings(gateway=settings(port=port, tls=anothers))
        (finding,) = asyncio.run(_look_at_gateway(wrong))
        assert finding.health is Health.FAIL
        assert "certificate" in finding.detail


def test_old_tls_is_not_spoken(authority: Authority) -> None:
    context = tls(authority, "old").server_context()
    assert context is not None
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_the_pages_serve_https_with_secure_cookies(authority: Authority, tmp_path: Path) -> None:
    ours = tls(authority, "pages")
    with running_pages(tmp_path, PagesSettings(port=0, tls=ours)) as pages:
        assert pages.url == f"https://127.0.0.1:{pages.port}"
        by_name = ssl.create_default_context(cafile=str(authority.ca_file))
        with httpx.Client(base_url=pages.url, verify=by_name, timeout=20) as client:
            answer = client.get("/login")
            assert answer.status_code == 200
            cookie = answer.headers["set-cookie"]
            assert cookie.startswith("__Host-")
            assert "Secure" in cookie
            assert "max-age" in answer.headers["strict-transport-security"]
        told = Settings(audit={"pages": PagesSettings(port=pages.port, tls=ours)})
        running, finding = asyncio.run(_look_at_pages(told))
        assert running
        assert finding.health is Health.OK


def test_a_certificate_without_its_key_is_refused_by_name() -> None:
    with pytest.raises(ValidationError, match="cert_file and key_file are needed together"):
        ServerTlsSettings(cert_file=Path("server.crt"))


def test_what_cannot_be_used_is_named_before_a_port_is_taken(authority: Authority, tmp_path: Path) -> None:
    certificate, key, _ = authority.issue("mine")
    _, other_key, _ = authority.issue("other")
    missing = tmp_path / "not-there.key"
    for key_file, said in ((missing, "not-there.key cannot be read"), (other_key, "mine.crt with .*other.key")):
        unusable = ServerTlsSettings(cert_file=certificate, key_file=key_file)
        with pytest.raises(TlsUnusable, match=said):
            unusable.server_context()
        with pytest.raises(CannotStart, match=f"gateway.tls: .*{said}"):
            Gateway(settings(tls=unusable), {"default": TenantSettings()}, NO_KAFKA, Keyring.generate())
        with (
            pytest.raises(CannotServe, match=f"audit.pages.tls: .*{said}"),
            running_pages(tmp_path, PagesSettings(port=0, tls=unusable), accounts=False),
        ):
            pass
    assert ServerTlsSettings().server_context() is None
    assert ServerTlsSettings(cert_file=certificate, key_file=key).server_context() is not None


def test_what_a_database_address_says_about_tls_reaches_its_driver() -> None:
    address = "postgresql://fediwarden@db.example/audit?sslmode=verify-full&sslrootcert=/etc/fediwarden/db-ca.pem"
    engine = create_engine(parse_url(address))
    _, arguments = engine.dialect.create_connect_args(engine.url)
    assert arguments["sslmode"] == "verify-full"
    assert arguments["sslrootcert"] == "/etc/fediwarden/db-ca.pem"
    tenant = TenantSettings.model_validate({"lemmy_database": address})  # handed to libpq as it is
    assert tenant.lemmy_database is not None
    assert conninfo_to_dict(tenant.lemmy_database.get_secret_value())["sslmode"] == "verify-full"
