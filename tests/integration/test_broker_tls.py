"""TLS to a real RabbitMQ, which stands behind a TLS listener whose certificate names `localhost` and nothing else."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from celery import Celery

from config.celery_apps import connect_machine, core_app, machine_app
from config.settings import Settings, read_settings
from ops.stack.stack import Stack
from protocol.errors import BadSetting
from protocol.types import Wallet
from protocol.wire import BrokerAccess
from tests.integration.conftest import given

TLS = Path(__file__).parent.parent / "data" / "tls"
CA = TLS / "ca.pem"
WALLET = Wallet("0x" + "a" * 40)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(2**16):
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)


def _relay(raw: socket.socket, context: ssl.SSLContext, broker: tuple[str, int]) -> None:
    with (
        raw,
        suppress(OSError),
        context.wrap_socket(raw, server_side=True) as inside,
        socket.create_connection(broker) as behind,
    ):
        answers = threading.Thread(target=_pump, args=(behind, inside))
        answers.start()
        _pump(inside, behind)
        answers.join()


def _serve(listener: socket.socket, context: ssl.SSLContext, broker: tuple[str, int]) -> None:
    with ThreadPoolExecutor() as relays, suppress(OSError):
        while True:
            raw, _ = listener.accept()
            relays.submit(_relay, raw, context, broker)


@pytest.fixture
def settings(stack: Stack, vhosts: tuple[str, str]) -> Settings:
    return read_settings(**given(stack.settings), amqp_core_vhost=vhosts[0])


@pytest.fixture
def port(settings: Settings) -> Iterator[int]:
    """Port of a TLS listener in front of RabbitMQ."""
    parts = urlsplit(settings.amqp_url.get_secret_value())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "localhost.pem")
    listener = socket.create_server(("127.0.0.1", 0))
    broker = (str(parts.hostname), int(parts.port or 5672))
    thread = threading.Thread(target=_serve, args=(listener, context, broker), daemon=True)
    thread.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def machine(settings: Settings, host: str, port: int, ca_file: Path | None) -> Celery:
    parts = urlsplit(settings.amqp_url.get_secret_value())
    access = BrokerAccess(
        host=host,
        port=port,
        tls=True,
        vhost=settings.amqp_core_vhost,
        username=str(parts.username),
        password=str(parts.password),
        exchange=f"w.{WALLET}",
        compute_queue=f"w.{WALLET}",
        tx_queue=f"w.{WALLET}.tx",
    )
    app = machine_app(WALLET)
    connect_machine(app, access, ca_file)
    return app


def scheduler(settings: Settings, host: str, port: int, ca_file: Path | None) -> Celery:
    parts = urlsplit(settings.amqp_url.get_secret_value())
    url = f"amqps://{parts.username}:{parts.password}@{host}:{port}"
    return core_app(read_settings(amqp_url=url, amqp_core_vhost=settings.amqp_core_vhost, amqp_ca_file=ca_file))


def connects(app: Celery) -> bool:
    with app.connection_for_write() as connection:
        connection.connect()
        return bool(connection.connected)


Make = Callable[[Settings, str, int, Path | None], Celery]
APPS = pytest.mark.parametrize("app", [machine, scheduler])


@APPS
def test_a_broker_whose_certificate_names_its_host_is_trusted(settings: Settings, port: int, app: Make) -> None:
    assert connects(app(settings, "localhost", port, CA))


@APPS
def test_a_broker_whose_certificate_names_another_host_is_refused(settings: Settings, port: int, app: Make) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="IP address mismatch"):
        connects(app(settings, "127.0.0.1", port, CA))


@APPS
def test_a_broker_whose_ca_is_not_trusted_is_refused(settings: Settings, port: int, app: Make) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        connects(app(settings, "localhost", port, None))


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_ca_file_without_certificates_is_refused_in_words(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    with pytest.raises(BadSetting, match="SLUICE_AMQP_CA_FILE"):
        core_app(read_settings(amqp_url="amqps://u:p@localhost", amqp_ca_file=file))
