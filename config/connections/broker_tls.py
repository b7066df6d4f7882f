"""TLS to RabbitMQ: the certificate must come from a trusted CA and name the host that was asked for."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from protocol.errors import BadSetting


def tls_options(host: str, ca_file: Path | None) -> dict[str, Any]:
    """Celery's `broker_use_ssl` for a broker at `host`. `ca_file`: PEM file of the CAs to trust; None: the system's.

    py-amqp compares the certificate with the host name only if `server_hostname` is given. Raises BadSetting.
    """
    options: dict[str, Any] = {"cert_reqs": ssl.CERT_REQUIRED, "server_hostname": host}
    if ca_file is not None:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(ca_file)
        except OSError as error:
            raise BadSetting(
                name="SLUICE_AMQP_CA_FILE",
                why=f"no certificates can be read from {ca_file} ({error.strerror or error})",
                fix="Name a PEM file, or unset it to trust the system's CAs.",
            ) from error
        options["ca_certs"] = str(ca_file)
    return options


#: OpenSSL's verdicts on a certificate (`X509_V_ERR_…` in x509_vfy.h).
_TOO_EARLY, _EXPIRED, _OTHER_NAMES = 9, 10, frozenset({62, 64})
_UNKNOWN_CA = frozenset({2, 18, 19, 20, 21})
#: OpenSSL's error for an answer that is no TLS record, which differs between its versions.
_NOT_TLS = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"})


def tls_trouble(error: BaseException, host: str) -> str | None:
    """Why TLS to the broker at `host` failed and what to do, in words; None if the error is not about TLS."""
    if isinstance(error, ssl.SSLCertVerificationError):
        code = error.verify_code
        if code in _OTHER_NAMES:
            return (
                f"its certificate names other hosts than {host}, so it may be another server. The pool's operator must"
                " set SLUICE_AMQP_PUBLIC_HOST to a name in it, or get one for that name"
            )
        if code in (_EXPIRED, _TOO_EARLY):
            state = "has expired" if code == _EXPIRED else "is not valid yet"
            return f"its certificate {state}. The pool's operator must renew it; or this machine's clock is wrong"
        if code in _UNKNOWN_CA:
            return (
                "its certificate is not signed by a CA that this machine trusts. Set SLUICE_AMQP_CA_FILE to the PEM"
                " file of the pool's CA, from its operator"
            )
        return f"its certificate is refused ({error.verify_message})"
    if not isinstance(error, ssl.SSLError) or isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return None
    if error.reason in _NOT_TLS:
        return (
            "it does not speak TLS on this port. The pool's operator must set SLUICE_AMQP_PUBLIC_PORT to RabbitMQ's"
            " port for TLS, usually 5671"
        )
    return f"TLS with it fails ({error.reason or error})"


def url_options(url: str, ca_file: Path | None) -> dict[str, Any] | None:
    """`tls_options` for the broker of an `amqps` URL, the first if it has several nodes; None for a URL without TLS.
    `config.celery_apps` names another node once it turns to that one. Raises BadSetting.
    """
    parts = urlsplit(url)
    return tls_options(parts.hostname or "", ca_file) if parts.scheme == "amqps" else None
