"""Certificates for RabbitMQ's TLS listener, signed by a CA of one's own, for where no public CA signs one.

    <folder>/ca.pem    <folder>/ca-key.pem        the CA: workers trust ca.pem by SLUICE_AMQP_CA_FILE
    <folder>/cert.pem  <folder>/key.pem           the server's, for the host names that workers use

Keys have mode 600. What is there and still good is kept, and the CA is never replaced: its file is given out once, and
a machine that trusts it refuses the certificate of another one. A file that is replaced keeps its owner and its mode.
RabbitMQ reads a new certificate by itself within minutes, but not where a container mounts that single file: then it is
restarted. Importing this module takes 40 ms.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from config.whole_files import replace_whole
from protocol.errors import BadInput

#: How long each is good, and how long before its end it is replaced.
CA_LIFE, SERVER_LIFE = timedelta(days=3650), timedelta(days=397)
RENEW_BEFORE = timedelta(days=30)
#: How long before now a certificate begins to be valid, since clocks differ.
_BACKDATED = timedelta(hours=1)
#: Permissions that a replaced key may keep: its user's, and the group's to read (proxy and RabbitMQ may share one).
_OWN, _KEPT, _PUBLIC = 0o600, 0o640, 0o644
_CA_NAME, _SERVER_NAME = "Sluice broker CA", "Sluice broker"


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """The files of one folder."""

    folder: Path

    @property
    def ca(self) -> Path:
        """Path of the CA's certificate, which workers trust: SLUICE_AMQP_CA_FILE."""
        return self.folder / "ca.pem"

    @property
    def ca_key(self) -> Path:
        """Path of the CA's key, which signs servers' certificates; RabbitMQ does not need it."""
        return self.folder / "ca-key.pem"

    @property
    def certificate(self) -> Path:
        """Path of the server's certificate."""
        return self.folder / "cert.pem"

    @property
    def key(self) -> Path:
        """Path of the server's private key."""
        return self.folder / "key.pem"


@dataclass(frozen=True, slots=True)
class _Pair:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def is_good(self, now: datetime) -> bool:
        """Whether the two belong together, and the certificate is not to be renewed yet."""
        return self.matches and not _ends_soon(self.certificate, now)

    @property
    def matches(self) -> bool:
        """Whether the two belong together."""
        return self.certificate.public_key() == self.key.public_key()


def ensure(folder: Path, hosts: Sequence[str], *, now: datetime | None = None) -> CertificateFiles:
    """CA and certificate for `hosts` (names or addresses) in `folder`; new ones where they lack or the certificate ends
    soon. A CA that is there stays: what it cannot sign is not made.

    Raises BadInput for a host that no certificate can name, for files that are something else, for a CA without its key
    or near its end, and for files that this user may not read or write.
    """
    files, moment = CertificateFiles(folder), now or datetime.now(UTC)
    with _saying_where(folder):
        # A host that no certificate can name is refused before anything is made.
        _names(hosts)
        lacking = _lacking(files, hosts, moment)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if lacking is not None and lacking.new_ca:
            _write(files.ca, files.ca_key, lacking.signer)
        if lacking is not None:
            _write(files.certificate, files.key, _make_server(hosts, lacking.signer, moment))
    return files


def to_write(folder: Path, hosts: Sequence[str], *, now: datetime | None = None) -> list[Path]:
    """The files that `ensure` would write. Raises BadInput as it does."""
    files, moment = CertificateFiles(folder), now or datetime.now(UTC)
    with _saying_where(folder):
        lacking = _lacking(files, hosts, moment)
        _names(hosts)
    if lacking is None:
        return []
    return [*([files.ca, files.ca_key] if lacking.new_ca else []), files.certificate, files.key]


@dataclass(frozen=True, slots=True)
class _Lacking:
    """What is to be written: a certificate that this CA signs, and a CA that is new too."""

    signer: _Pair
    new_ca: bool


def _lacking(files: CertificateFiles, hosts: Sequence[str], now: datetime) -> _Lacking | None:
    """What has to be written; None if all existing files are good. Raises ValueError, OSError."""
    ca, ca_key = _certificate_in(files.ca), _key_in(files.ca_key)
    server, key = _certificate_in(files.certificate), _key_in(files.key)
    good = server is not None and key is not None and _Pair(server, key).is_good(now)
    if good and server is not None and ca is not None and _is_for(server, hosts, ca):
        return None
    return _Lacking(_signer(files, ca, ca_key, server, now), ca is None)


@contextmanager
def _saying_where(folder: Path) -> Iterator[None]:
    """Within the block, raise errors of the library and the system as BadInput that names the folder."""
    try:
        yield
    except ValueError as error:
        raise BadInput(what=f"No certificate can be made in {folder}: {error}.") from error
    except OSError as error:
        what = f"No certificate can be made in {folder}: {error.filename or folder}: {error.strerror or error}."
        if isinstance(error, PermissionError):
            what += " Give the command as root (`sudo`): files that it replaces keep their owners and modes."
        raise BadInput(what=what) from error


def _signer(
    files: CertificateFiles,
    ca: x509.Certificate | None,
    key: ec.EllipticCurvePrivateKey | None,
    server: x509.Certificate | None,
    now: datetime,
) -> _Pair:
    """The CA that signs: the one in the folder, or a new one where there is none, and no certificate that another one
    has signed. Raises ValueError.
    """
    bring, move = "bring it here, sign, and take it away again", f"move all files of {files.folder} away for a new CA"
    if ca is None:
        # Of a key that is there, a new ca.pem serves as the lost one did: whoever trusts either accepts what it signs.
        made = _make_ca(now, key or ec.generate_private_key(ec.SECP256R1()))
        if server is not None and not _is_issued_by(server, made.certificate):
            what = f"{files.certificate} is there, and the CA that signed it is not"
            raise ValueError(f"{what}: bring its {files.ca.name} and {files.ca_key.name}, or {move}")
        return made
    if server is not None and server.issuer != ca.subject:
        raise ValueError(f"{files.certificate} is of another CA, {server.issuer.rfc4514_string()}: move it away first")
    if key is None:
        raise ValueError(f"{files.ca} needs its key {files.ca_key} for that, which is not there: {bring}")
    if not _Pair(ca, key).matches:
        raise ValueError(f"{files.ca_key} is not the key of {files.ca}: bring the one that is, or {move}")
    if _ends_soon(ca, now):
        when = ca.not_valid_after_utc.date()
        raise ValueError(f"{files.ca} ends on {when}: {move}, which machines must trust from then on")
    return _Pair(ca, key)


def _ends_soon(certificate: x509.Certificate, now: datetime) -> bool:
    """Whether a certificate is to be renewed."""
    return certificate.not_valid_after_utc - RENEW_BEFORE <= now


def _is_for(certificate: x509.Certificate, hosts: Sequence[str], ca: x509.Certificate) -> bool:
    """Whether this CA has issued the certificate, and for these hosts."""
    if not _is_issued_by(certificate, ca):
        return False
    held = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return list(held) == _names(hosts)


def _is_issued_by(certificate: x509.Certificate, ca: x509.Certificate) -> bool:
    """Whether this CA has issued the certificate."""
    try:
        certificate.verify_directly_issued_by(ca)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def _make_ca(now: datetime, key: ec.EllipticCurvePrivateKey) -> _Pair:
    """A new CA of this key, signed by itself."""
    name = _name(_CA_NAME)
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


def _certificate_in(path: Path) -> x509.Certificate | None:
    """The certificate in a file; None if there is none. Raises ValueError."""
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except FileNotFoundError:
        return None


def _key_in(path: Path) -> ec.EllipticCurvePrivateKey | None:
    """The key in a file; None if there is none. Raises ValueError."""
    try:
        loaded = load_pem_private_key(path.read_bytes(), None)
    except FileNotFoundError:
        return None
    if not isinstance(loaded, ec.EllipticCurvePrivateKey):
        raise ValueError(f"{path} is not one of our keys")  # noqa: TRY004 - of the file's content
    return loaded


def _write(certificate: Path, key: Path, pair: _Pair) -> None:
    """Write both beside their places, then move both there. A crash in between leaves two that do not belong together,
    or a CA's key alone, and `ensure` makes the certificate anew.
    """
    secret = pair.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = pair.certificate.public_bytes(Encoding.PEM)
    new = {path: path.with_name(f"{path.name}.new") for path in (key, certificate)}
    try:
        replace_whole(new[key], secret, mode=_OWN, most=_KEPT, like=key)
        replace_whole(new[certificate], public, mode=_PUBLIC, like=certificate)
        for path, written in new.items():
            written.replace(path)
    finally:
        for written in new.values():
            with suppress(OSError):
                written.unlink(missing_ok=True)
