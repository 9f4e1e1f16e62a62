"""A private certificate authority for a Kafka's brokers, in one folder, as the PEM files that Kafka and we take.

::

    ca.key      signs the brokers' certificates; needed at a renewal, and else better kept elsewhere
    ca.pem      what clients (kafka.ssl_ca_file) and brokers trust; no secret
    NAME.pem    one broker's key and certificate, in the order that Kafka's ssl.keystore.location wants

Clients show no certificate: they log in with a password (SCRAM). The CA may sign brokers only, no further CA.
"""

import datetime
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fediwarden.access.errors import CertificatesRefused
from fediwarden.private_files import replace, write_new

CA_DAYS = 3650
BROKER_DAYS = 730
SOON_DAYS = 30

_CA_KEY, _CA_FILE = "ca.key", "ca.pem"
_BROKER_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_HOST = re.compile(r"(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")
_BACKDATED = datetime.timedelta(hours=1)  # clocks differ
_PUBLIC_MODE = 0o644


@dataclass(frozen=True, slots=True)
class Certificate:
    """One certificate of the folder. `hosts` are the names and addresses that it is valid for; a CA's has none."""

    path: Path
    hosts: tuple[str, ...]
    ends_at: datetime.datetime

    def days_left(self, now: datetime.datetime) -> int:
        """Whole days until it ends; negative afterwards."""
        return (self.ends_at - now).days


class Authority:
    """The certificate authority in `folder`. The methods raise `CertificatesRefused` or `PrivateFileRefused`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca_file = folder / _CA_FILE
        self._key_file = folder / _CA_KEY

    @property
    def exists(self) -> bool:
        """Whether there is one already, or a part of one."""
        return self.ca_file.exists() or self._key_file.exists()

    def create(self, *, now: datetime.datetime) -> None:
        """Make a new authority. One that is there already is never touched: every client trusts it by its file."""
        if self.exists:
            raise CertificatesRefused(
                f"{self.folder} has a CA already ({_CA_FILE}, {_CA_KEY}), and it is never written over; to begin anew"
                " name another --folder"
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise CertificatesRefused(f"{self.folder} cannot be made: {error.strerror}") from error
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fediwarden Kafka CA")])
        certificate = (
            _begin(name, name, key.public_key(), now, CA_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(signs_certificates=True), critical=True)
            .sign(key, hashes.SHA256())
        )
        write_new(self._key_file, _encode_key(key))  # first: without it the other file is worth nothing
        write_new(self.ca_file, _encode(certificate), mode=_PUBLIC_MODE)

    def issue(self, name: str, hosts: Sequence[str], *, now: datetime.datetime, days: int = BROKER_DAYS) -> Certificate:
        """A key and a certificate for the broker `name`, in a new file. `hosts`: what clients connect to."""
        path = self._broker_file(name)
        if path.exists():
            raise CertificatesRefused(f"{path} is there already; --renew puts a new key and certificate in its place")
        write_new(path, self._sign(name, hosts, now=now, days=days))
        return self._read(path)

    def renew(
        self, name: str, hosts: Sequence[str] = (), *, now: datetime.datetime, days: int = BROKER_DAYS
    ) -> Certificate:
        """A new key and certificate for `name` by the same CA, for the same hosts unless `hosts` names others."""
        present = self.find(name)
        if present is None:
            raise CertificatesRefused(f"{self._broker_file(name)} is not there: make it first, without --renew")
        replace(present.path, self._sign(name, hosts or present.hosts, now=now, days=days))
        return self._read(present.path)

    def find(self, name: str) -> Certificate | None:
        """The certificate of the broker `name`, if there is one."""
        path = self._broker_file(name)
        return self._read(path) if path.exists() else None

    def read_all(self) -> list[Certificate]:
        """The CA's certificate, and those of the brokers by name."""
        brokers = sorted(path for path in self.folder.glob("*.pem") if path != self.ca_file)
        return [self._read(path) for path in (self.ca_file, *brokers)]

    def _broker_file(self, name: str) -> Path:
        path = self.folder / f"{name}.pem"
        if not _BROKER_NAME.fullmatch(name) or path == self.ca_file:
            raise CertificatesRefused(f"{name!r} will not do as a broker's name: a-z, 0-9 and '-', and not 'ca'")
        return path

    def _sign(self, name: str, hosts: Sequence[str], *, now: datetime.datetime, days: int) -> bytes:
        names = [_parse_host(host) for host in dict.fromkeys(hosts)]
        if not names:
            raise CertificatesRefused(
                "a broker's certificate names what clients connect to: --host NAME, or an address"
            )
        ca_key, ca = self._load()
        ends = now + datetime.timedelta(days=days)
        if ends > ca.not_valid_after_utc:
            raise CertificatesRefused(
                f"the CA in {self.folder} ends on {ca.not_valid_after_utc:%Y-%m-%d}, before the certificate would:"
                " fewer --days, or a new CA in another --folder, whose ca.pem goes to every client beside the old one"
            )
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = (
            _begin(subject, ca.subject, key.public_key(), now, days)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            # A broker is a client of the others where they talk over TLS too.
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(
                    ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
                ),
                critical=False,
            )
            .sign(ca_key, hashes.SHA256())
        )
        return _encode_key(key) + _encode(certificate)

    def _load(self) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
        try:
            key = serialization.load_pem_private_key(self._key_file.read_bytes(), None)
            ca = x509.load_pem_x509_certificate(self.ca_file.read_bytes())
        except OSError as error:
            raise CertificatesRefused(
                f"{error.filename}: {error.strerror}; certificates are signed with both files of the CA, {_CA_FILE} and"
                f" {_CA_KEY}: bring them back, or begin anew in another --folder"
            ) from error
        except (ValueError, TypeError) as error:
            raise CertificatesRefused(f"the CA in {self.folder} cannot be read: {error}") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != ca.public_key():
            raise CertificatesRefused(f"{_CA_KEY} and {_CA_FILE} in {self.folder} do not belong together")
        return key, ca

    def _read(self, path: Path) -> Certificate:
        try:
            certificate = x509.load_pem_x509_certificate(path.read_bytes())
        except OSError as error:
            raise CertificatesRefused(f"{path}: {error.strerror}") from error
        except ValueError as error:
            raise CertificatesRefused(f"{path} holds no certificate: {error}") from error
        try:
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            hosts: tuple[str, ...] = ()
        else:
            hosts = tuple(str(name.value) for name in names)
        return Certificate(path, hosts, certificate.not_valid_after_utc)


def _begin(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    now: datetime.datetime,
    days: int,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _parse_host(host: str) -> x509.GeneralName:
    """An address or a name as certificates hold it. Raises `CertificatesRefused`."""
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    name = host.lower().rstrip(".")
    if not _HOST.fullmatch(name):
        raise CertificatesRefused(f"--host {host!r} is neither a host name nor an address; no port, no scheme")
    return x509.DNSName(name)


def _encode(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _encode_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
