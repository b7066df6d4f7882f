"""When the certificates end that machines and requesters are shown, at the addresses that the pool tells them.

What is shown counts, not a file: a proxy may have one of its own, and serve an old one until it is restarted. An
address that this host does not reach, as behind some routers, tells nothing.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from urllib.parse import urlsplit

from config.connections.broker_nodes import public_nodes
from config.settings import Settings
from pipeline.domain.condition.facts import CertificateFacts
from protocol.errors import BadSetting

#: Seconds for a connection and for the handshake.
ANSWER_SECONDS = 3.0
#: Seconds between two looks: a renewal is seen so soon.
LOOK_SECONDS = 600.0


@dataclass(slots=True)
class LastLook:
    """The certificates last seen, and the look at them that is under way. Not for several threads at a time."""

    _seen: tuple[CertificateFacts, ...] = ()
    _under_way: Future[tuple[CertificateFacts, ...]] | None = None
    _due: float | None = None

    def seen(self, settings: Settings, now: float, threads: Executor) -> tuple[CertificateFacts, ...]:
        """The certificates as they were last seen. Starts the next look in one of `threads` once it is due, without
        waiting for it. `now`: monotonic seconds.
        """
        if self._under_way is not None and self._under_way.done():
            self._seen, self._under_way, self._due = self._under_way.result(), None, now + LOOK_SECONDS
        if self._under_way is None and (self._due is None or now >= self._due):
            self._under_way = threads.submit(shown, settings)
        return self._seen


def shown(settings: Settings) -> tuple[CertificateFacts, ...]:
    """The certificates of the API, of each of RabbitMQ's nodes, and of the IPFS gateway, where they have TLS."""
    found = (_at(host, port) for host, port in dict.fromkeys(_places(settings)))
    return tuple(each for each in found if each is not None)


def _places(settings: Settings) -> Iterator[tuple[str, int]]:
    """Host and port of each address with TLS that others are told."""
    for url in (settings.api_url, settings.ipfs_gateway):
        try:
            parts = urlsplit(url)
            if parts.scheme == "https" and parts.hostname:
                yield parts.hostname, parts.port or 443
        except ValueError:
            # Whoever uses it says that it is no URL.
            continue
    try:
        nodes = public_nodes(settings) if settings.amqp_public_tls else ()
    except BadSetting:
        return
    yield from ((node.host, node.port) for node in nodes)


def _at(host: str, port: int) -> CertificateFacts | None:
    """The certificate that is shown there, whoever signed it; None if there is no answer in TLS."""
    from cryptography import x509  # noqa: PLC0415 # 40 ms, which a pool without TLS need not take

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host, port), ANSWER_SECONDS) as reached,
            context.wrap_socket(reached, server_hostname=host) as secured,
        ):
            seen = secured.getpeercert(binary_form=True)
        certificate = x509.load_der_x509_certificate(seen or b"")
    except (OSError, ValueError, x509.InvalidVersion):
        return None
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return CertificateFacts(f"{host}:{port}", begins.timestamp(), ends.timestamp())
