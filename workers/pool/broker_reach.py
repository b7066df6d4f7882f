"""Whether RabbitMQ can be reached from this machine, and with encryption, asked without signing in: an AMQP client
speaks first, and the broker answers with the beginning of its handshake.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from pathlib import Path

from config.connections.broker_tls import tls_options, tls_trouble
from config.values.endpoints import broker_url, require_encrypted
from protocol.errors import BrokerUnavailable
from protocol.wire import BrokerNode

#: Seconds to connect, for TLS, and for the answer, each.
REACH_SECONDS = 5.0
#: What an AMQP 0-9-1 client says first.
_HELLO = b"AMQP\x00\x00\x09\x01"
#: A method frame on channel 0, as far as its length; and behind that the method Connection.Start.
_FRAME, _START = b"\x01\x00\x00", b"\x00\x0a\x00\x0a"
_ANSWER_BYTES = 11
NOT_RABBITMQ = "something else than RabbitMQ answers there"
MAYBE_TLS = f"{NOT_RABBITMQ}, or it wants TLS (the pool's operator then sets SLUICE_AMQP_PUBLIC_TLS)"


def require_tls(nodes: Sequence[BrokerNode], *, tls: bool, allowed: bool) -> None:
    """Raise BadSetting if a pool names a RabbitMQ elsewhere without TLS: its user's password and the pool's work would
    be open to read and to change. `allowed`: SLUICE_ALLOW_PLAINTEXT.
    """
    for node in nodes:
        require_encrypted("RabbitMQ of this pool", broker_url(node.host, node.port, tls=tls), allowed=allowed)


def reach_any(nodes: Sequence[BrokerNode], *, tls: bool, ca_file: Path | None) -> dict[BrokerNode, BrokerUnavailable]:
    """Ask each node as `reach` does, and return those that do not answer. Raises as `reach` if none does."""
    silent = {}
    for node in nodes:
        try:
            reach(node.host, node.port, tls=tls, ca_file=ca_file)
        except BrokerUnavailable as error:
            silent[node] = error
    if len(silent) == len(nodes):
        raise silent[nodes[0]]
    return silent


def reach(host: str, port: int, *, tls: bool, ca_file: Path | None) -> None:
    """Have the broker at `host`:`port` begin its handshake. `ca_file`: SLUICE_AMQP_CA_FILE.

    Raises BrokerUnavailable, BadSetting.
    """
    options = tls_options(host, ca_file) if tls else None
    try:
        with socket.create_connection((host, port), REACH_SECONDS) as plain:
            if options is None:
                answer = _ask(plain)
            else:
                context = ssl.create_default_context(cafile=options.get("ca_certs"))
                with context.wrap_socket(plain, server_hostname=host) as encrypted:
                    answer = _ask(encrypted)
    except (OSError, UnicodeError) as error:
        why = tls_trouble(error, host) or str(error) or type(error).__name__
        raise BrokerUnavailable(what=f"{host}:{port}", why=why.rstrip(".")) from error
    if not (answer.startswith(_FRAME) and answer.endswith(_START)):
        raise BrokerUnavailable(what=f"{host}:{port}", why=NOT_RABBITMQ if tls else MAYBE_TLS)


def _ask(connection: socket.socket) -> bytes:
    """Send AMQP's greeting; returns the first bytes of the answer."""
    connection.sendall(_HELLO)
    answer = b""
    while len(answer) < _ANSWER_BYTES:
        piece = connection.recv(_ANSWER_BYTES - len(answer))
        if not piece:
            break
        answer += piece
    return answer
