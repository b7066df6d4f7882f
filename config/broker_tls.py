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


def url_options(url: str, ca_file: Path | None) -> dict[str, Any] | None:
    """The same for a broker's URL; None for one without TLS. Raises BadSetting."""
    parts = urlsplit(url)
    return tls_options(parts.hostname or "", ca_file) if parts.scheme == "amqps" else None
