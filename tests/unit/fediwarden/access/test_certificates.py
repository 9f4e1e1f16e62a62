import datetime
import ipaddress
import socket
import ssl
import stat
import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from fediwarden.access.certificates import Authority, Certificate
from fediwarden.access.errors import CertificatesRefused

NOW = datetime.datetime(2026, 11, 29, 12, tzinfo=datetime.UTC)
HOSTS = ("kafka.example.org", "203.0.113.7", "2001:db8::7")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    made = Authority(tmp_path / "certs")
    made.create(now=NOW)
    return made


def verify(authority: Authority, certificate: Certificate, host: str, *, at: datetime.datetime = NOW) -> None:
    """As a client does, by the rules of the web."""
    trusted = Store(x509.load_pem_x509_certificates(authority.ca_file.read_bytes()))
    try:
        name: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        name = x509.DNSName(host)
    verifier = PolicyBuilder().store(trusted).time(at).build_server_verifier(name)
    verifier.verify(x509.load_pem_x509_certificate(certificate.path.read_bytes()), [])


@pytest.mark.parametrize("host", HOSTS)
def test_a_brokers_certificate_holds_for_each_of_its_hosts(authority: Authority, host: str) -> None:
    verify(authority, authority.issue("kafka", HOSTS, now=NOW), host)


def test_it_holds_for_no_other_host_and_not_after_its_end(authority: Authority) -> None:
    certificate = authority.issue("kafka", HOSTS, now=NOW, days=10)
    assert certificate.hosts == HOSTS
    assert certificate.ends_at == NOW + datetime.timedelta(days=10)
    with pytest.raises(VerificationError):
        verify(authority, certificate, "other.example.org")
    verify(authority, certificate, HOSTS[0], at=NOW + datetime.timedelta(days=9))
    with pytest.raises(VerificationError):
        verify(authority, certificate, HOSTS[0], at=NOW + datetime.timedelta(days=11))


def test_another_ca_does_not_vouch_for_it(authority: Authority, tmp_path: Path) -> None:
    other = Authority(tmp_path / "other")
    other.create(now=NOW)
    with pytest.raises(VerificationError):
        verify(other, authority.issue("kafka", HOSTS, now=NOW), HOSTS[0])


def test_pythons_strict_tls_shakes_hands_with_it(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    now = datetime.datetime.now(datetime.UTC)
    authority.create(now=now)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(authority.issue("kafka", ["127.0.0.1"], now=now).path)
    asking = ssl.create_default_context(cafile=str(authority.ca_file))
    asking.verify_flags |= ssl.VERIFY_X509_STRICT  # the default from Python 3.13 on
    ours, theirs = socket.socketpair()
    with theirs, ours:
        ours.settimeout(10)
        theirs.settimeout(10)
        server = threading.Thread(target=lambda: serving.wrap_socket(theirs, server_side=True).send(b"x"))
        server.start()
        with asking.wrap_socket(ours, server_hostname="127.0.0.1") as connection:
            assert connection.recv(1) == b"x"
        server.join()


def test_keys_are_for_their_owner_alone_and_the_ca_for_all(authority: Authority) -> None:
    authority.issue("kafka", HOSTS, now=NOW)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in authority.folder.iterdir()}
    assert modes == {"ca.key": 0o600, "kafka.pem": 0o600, "ca.pem": 0o644}


def test_a_ca_is_never_written_over_not_even_a_half_of_one(authority: Authority) -> None:
    before = {path.name: path.read_bytes() for path in authority.folder.iterdir()}
    with pytest.raises(CertificatesRefused, match="never written over"):
        authority.create(now=NOW)
    (authority.folder / "ca.pem").unlink()
    with pytest.raises(CertificatesRefused, match="never written over"):
        authority.create(now=NOW)
    assert (authority.folder / "ca.key").read_bytes() == before["ca.key"]
    with pytest.raises(CertificatesRefused, match="bring them back"):
        authority.issue("kafka", HOSTS, now=NOW)


def test_a_certificate_is_replaced_by_a_renewal_alone(authority: Authority) -> None:
    first = authority.issue("kafka", HOSTS, now=NOW, days=30)
    old = first.path.read_bytes()
    with pytest.raises(CertificatesRefused, match="--renew"):
        authority.issue("kafka", ["new.example.org"], now=NOW)
    assert first.path.read_bytes() == old

    ca = authority.ca_file.read_bytes()
    later = NOW + datetime.timedelta(days=29)
    renewed = authority.renew("kafka", now=later)
    assert renewed.hosts == HOSTS
    assert renewed.ends_at > first.ends_at
    assert stat.S_IMODE(renewed.path.stat().st_mode) == 0o600
    assert authority.ca_file.read_bytes() == ca
    assert renewed.path.read_bytes().split(b"-----END")[0] != old.split(b"-----END")[0], "a new key"
    verify(authority, renewed, HOSTS[0], at=later)
    assert authority.renew("kafka", ["new.example.org"], now=later).hosts == ("new.example.org",)
    assert {path.name for path in authority.folder.iterdir()} == {"ca.key", "ca.pem", "kafka.pem"}


@pytest.mark.parametrize("host", ["https://kafka.example.org", "kafka.example.org:9094", "a b", "", "*.example.org"])
def test_what_is_no_host_is_refused_by_name(authority: Authority, host: str) -> None:
    with pytest.raises(CertificatesRefused, match="neither a host name nor an address"):
        authority.issue("kafka", [host], now=NOW)
    assert authority.find("kafka") is None


@pytest.mark.parametrize("name", ["ca", "../kafka", "Kafka", ""])
def test_a_brokers_name_is_a_files_and_never_the_cas(authority: Authority, name: str) -> None:
    with pytest.raises(CertificatesRefused, match="broker's name"):
        authority.issue(name, HOSTS, now=NOW)


def test_no_certificate_outlives_its_ca(authority: Authority) -> None:
    with pytest.raises(CertificatesRefused, match="before the certificate would"):
        authority.issue("kafka", HOSTS, now=NOW + datetime.timedelta(days=3000))


def test_a_key_of_another_ca_signs_nothing(authority: Authority, tmp_path: Path) -> None:
    other = Authority(tmp_path / "other")
    other.create(now=NOW)
    (authority.folder / "ca.key").write_bytes((other.folder / "ca.key").read_bytes())
    with pytest.raises(CertificatesRefused, match="do not belong together"):
        authority.issue("kafka", HOSTS, now=NOW)
