"""Certificates for RabbitMQ's TLS listener, signed by a CA of one's own, for where no public CA signs one.

    <folder>/ca.pem    <folder>/ca-key.pem        the CA: workers trust ca.pem by SLUICE_AMQP_CA_FILE
    <folder>/cert.pem  <folder>/key.pem           the server's, for the host names that workers use

Keys have mode 600. What is there and still good is kept, so the CA's file has to be given out once. RabbitMQ reads a
new certificate by itself within minutes. Importing this module takes 40 ms.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ops.stack import private_file
from protocol.errors import BadInput

#: How long each is good, and how long before its end it is replaced.
CA_LIFE, SERVER_LIFE = timedelta(days=3650), timedelta(days=397)
RENEW_BEFORE = timedelta(days=30)
#: Clocks of machines differ.
_BACKDATED = timedelta(hours=1)
_CA_NAME, _SERVER_NAME = "Sluice broker CA", "Sluice broker"


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """The files of one folder."""

    folder: Path

    @property
    def ca(self) -> Path:
        """What workers trust: SLUICE_AMQP_CA_FILE."""
        return self.folder / "ca.pem"

    @property
    def ca_key(self) -> Path:
        """Signs servers' certificates; RabbitMQ does not need it."""
        return self.folder / "ca-key.pem"

    @property
    def certificate(self) -> Path:
        """The server's certificate."""
        return self.folder / "cert.pem"

    @property
    def key(self) -> Path:
        """The server's private key."""
        return self.folder / "key.pem"


@dataclass(frozen=True, slots=True)
class _Pair:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def is_good(self, now: datetime) -> bool:
        """Whether the two belong together, and the certificate is not to be renewed yet."""
        matches = self.certificate.public_key() == self.key.public_key()
        return matches and self.certificate.not_valid_after_utc - RENEW_BEFORE > now


def ensure(folder: Path, hosts: Sequence[str], *, now: datetime | None = None) -> CertificateFiles:
    """CA and certificate for `hosts` (names or addresses) in `folder`; new ones where they lack or end soon.

    Raises BadInput for a host that no certificate can name, and for files that are something else.
    """
    files, moment = CertificateFiles(folder), now or datetime.now(UTC)
    with _saying_where(folder):
        ca = _good_ca(files, moment)
        server = _good_server(files, hosts, ca, moment)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if ca is None:
            ca = _make_ca(moment)
            _write(files.ca, files.ca_key, ca)
        if server is None:
            _write(files.certificate, files.key, _make_server(hosts, ca, moment))
    return files


def to_write(folder: Path, hosts: Sequence[str], *, now: datetime | None = None) -> list[Path]:
    """The files that `ensure` would write. Raises BadInput as it does."""
    files, moment = CertificateFiles(folder), now or datetime.now(UTC)
    with _saying_where(folder):
        ca = _good_ca(files, moment)
        server = _good_server(files, hosts, ca, moment)
        _names(hosts)
    lacking = [] if ca is not None else [files.ca, files.ca_key]
    return lacking if server is not None else [*lacking, files.certificate, files.key]


@contextmanager
def _saying_where(folder: Path) -> Iterator[None]:
    """What the library refuses in the block is raised as BadInput that names the folder."""
    try:
        yield
    except ValueError as error:
        raise BadInput(what=f"No certificate can be made in {folder}: {error}.") from error


def _good_ca(files: CertificateFiles, now: datetime) -> _Pair | None:
    """The CA of the folder; None if there is none, or it is to be renewed."""
    ca = _read(files.ca, files.ca_key)
    return None if ca is None or not ca.is_good(now) else ca


def _good_server(files: CertificateFiles, hosts: Sequence[str], ca: _Pair | None, now: datetime) -> _Pair | None:
    """The certificate of the folder that this CA has issued for these hosts; None if a new one is wanted."""
    server = _read(files.certificate, files.key)
    if server is None or ca is None or not server.is_good(now):
        return None
    return server if _is_for(server.certificate, hosts, ca.certificate) else None


def _is_for(certificate: x509.Certificate, hosts: Sequence[str], ca: x509.Certificate) -> bool:
    """Whether this CA has issued the certificate, and for these hosts."""
    try:
        certificate.verify_directly_issued_by(ca)
    except InvalidSignature:
        return False
    held = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return list(held) == _names(hosts)


def _make_ca(now: datetime) -> _Pair:
    """A new CA, signed by itself."""
    key, name = ec.generate_private_key(ec.SECP256R1()), _name(_CA_NAME)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(of_ca=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return _Pair(made.sign(key, hashes.SHA256()), key)


def _make_server(hosts: Sequence[str], ca: _Pair, now: datetime) -> _Pair:
    """A new certificate for these hosts, signed by the CA."""
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key())
    subject = ca.certificate.subject
    made = (
        x509.CertificateBuilder(subject, _name(_SERVER_NAME), key.public_key(), x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + SERVER_LIFE)
        .add_extension(x509.SubjectAlternativeName(_names(hosts)), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(of_ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(issuer, critical=False)
    )
    return _Pair(made.sign(ca.key, hashes.SHA256()), key)


def _name(common: str) -> x509.Name:
    """The subject name with this common name."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _usage(*, of_ca: bool) -> x509.KeyUsage:
    """What a certificate's key may be used for: signing certificates, or TLS."""
    return x509.KeyUsage(
        digital_signature=not of_ca,
        key_cert_sign=of_ca,
        crl_sign=of_ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _names(hosts: Sequence[str]) -> list[x509.GeneralName]:
    """The hosts as a certificate names them. Raises ValueError for a name that is not ASCII."""
    return [_address(host) or x509.DNSName(host) for host in hosts]


def _address(host: str) -> x509.IPAddress | None:
    """A host as IP address in a certificate; None if it is a name."""
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return None


def _read(certificate: Path, key: Path) -> _Pair | None:
    """What was written; None if either is missing. Raises ValueError."""
    try:
        held, secret = certificate.read_bytes(), key.read_bytes()
    except FileNotFoundError:
        return None
    loaded = load_pem_private_key(secret, None)
    if not isinstance(loaded, ec.EllipticCurvePrivateKey):
        raise ValueError(f"{key} is not one of our keys")  # noqa: TRY004 - of the file's content
    return _Pair(x509.load_pem_x509_certificate(held), loaded)


def _write(certificate: Path, key: Path, pair: _Pair) -> None:
    """Write both. A crash in between leaves two that do not belong together, and `ensure` makes them anew."""
    secret = pair.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    private_file.write(key, secret.decode())
    private_file.write(certificate, pair.certificate.public_bytes(Encoding.PEM).decode())
    certificate.chmod(0o644)
