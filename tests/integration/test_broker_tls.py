"""TLS to the stack's own RabbitMQ, whose certificate names this machine and nothing else."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from socket import create_server
from urllib.parse import urlsplit

import pytest
from celery import Celery
from structlog.testing import capture_logs

from config.celery_apps import connect_machine, core_app, machine_app, pool_app
from config.settings import Settings, read_settings
from config.values.stack_settings import StackSettings
from ops.stack import certificates, parts
from ops.stack.parts import StackPart
from ops.stack.stack import Stack
from pipeline.broker.admin import BrokerAdmin
from pipeline.broker.link import BrokerLink
from pipeline.broker.users import machine_user
from pipeline.certificates import shown
from protocol.errors import BadSetting, BrokerUnavailable
from protocol.ethereum.signing import Key
from protocol.types import Wallet
from protocol.wire import BrokerAccess, PoolConfig, Session
from tests.integration.conftest import given
from tests.waiting import ample
from workers.context import Machine
from workers.data.layout import layout_of
from workers.pool.api import PoolApi
from workers.pool.broker import sign_in_if_refused
from workers.pool.broker_reach import reach

#: Another way to write 127.0.0.1, which its certificate does not name.
ALIAS = "127.1"
KEY = Key(bytes([7]) * 32)


@pytest.fixture(scope="module")
def settings(stack: Stack) -> Settings:
    """Settings of a pool that has its workers use TLS."""
    plain = read_settings(**given(stack.settings))
    with_tls = parts.own(StackPart.RABBITMQ, plain, StackSettings(tls=True)).settings
    return read_settings(**(given(stack.settings) | given(with_tls)))


@pytest.fixture(scope="module")
def another_ca(tmp_path_factory: pytest.TempPathFactory) -> certificates.CertificateFiles:
    """Of a CA that has signed nothing of ours; its own certificate for this machine has expired."""
    past = datetime.now(UTC) - certificates.SERVER_LIFE - timedelta(days=1)
    return certificates.ensure(tmp_path_factory.mktemp("another"), ["localhost"], now=past)


def machine(settings: Settings, host: str, port: int, ca_file: Path | None) -> Celery:
    parts = urlsplit(settings.amqp_url.get_secret_value())
    app = machine_app(KEY.wallet)
    connect_machine(app, _access(settings, host, port, str(parts.username), str(parts.password)), ca_file)
    return app


def _access(settings: Settings, host: str, port: int, user: str, password: str) -> BrokerAccess:
    return BrokerAccess(
        host=host,
        port=port,
        tls=True,
        vhost=settings.amqp_pool_vhost,
        username=user,
        password=password,
        exchange=f"w.{KEY.wallet}",
        compute_queue=f"w.{KEY.wallet}",
        tx_queue=f"w.{KEY.wallet}.tx",
    )


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
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_broker_whose_certificate_names_its_host_is_trusted(settings: Settings, host: str, app: Make) -> None:
    assert connects(app(settings, host, settings.amqp_public_port, settings.amqp_ca_file))


@APPS
def test_a_broker_whose_certificate_names_another_host_is_refused(settings: Settings, app: Make) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        connects(app(settings, ALIAS, settings.amqp_public_port, settings.amqp_ca_file))


@APPS
def test_a_broker_whose_ca_is_not_trusted_is_refused(settings: Settings, app: Make) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        connects(app(settings, "localhost", settings.amqp_public_port, None))


@contextmanager
def _expired(files: certificates.CertificateFiles) -> Iterator[int]:
    """Port of a listener with a certificate that has expired. What would be behind it is never asked."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)

    def serve() -> None:
        with suppress(OSError):
            while True:
                raw, _ = listener.accept()
                with raw, suppress(OSError):
                    context.wrap_socket(raw, server_side=True).close()

    with create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(2)
        thread.join()


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("name", "certificate names other hosts than 127.1.*SLUICE_AMQP_PUBLIC_HOST"),
        ("ca", "not signed by a CA that this machine trusts.*SLUICE_AMQP_CA_FILE"),
        ("expired", "certificate has expired.*operator must renew it"),
        ("plaintext", "does not speak TLS on this port.*SLUICE_AMQP_PUBLIC_PORT"),
        ("tls", "or it wants TLS.*SLUICE_AMQP_PUBLIC_TLS"),
    ],
)
def test_a_broker_that_is_not_trusted_is_refused_in_words_that_say_what_to_do(
    settings: Settings, another_ca: certificates.CertificateFiles, tmp_path: Path, fault: str, says: str
) -> None:
    host, port, ca_file, tls = "localhost", settings.amqp_public_port, settings.amqp_ca_file, True
    with ExitStack() as opened:
        match fault:
            case "name":
                host = ALIAS
            case "ca":
                ca_file = another_ca.ca
            case "expired":
                port, ca_file = opened.enter_context(_expired(another_ca)), another_ca.ca
            case "plaintext":
                port = urlsplit(settings.amqp_url.get_secret_value()).port or 0
            case _:
                tls = False
        with pytest.raises(BrokerUnavailable, match=says):
            reach(host, port, tls=tls, ca_file=ca_file)
        if not tls:
            return
        with capture_logs() as logged:
            sign_in_if_refused(machine(settings, host, port, ca_file), _signed_in(settings, tmp_path, host, port))
        # Threads of other tests in this process log as well.
        (line,) = (each for each in logged if each.get("action") == "broker_not_trusted")
        assert says.partition(".*")[0] in line["event"]


def test_the_scheduler_sees_when_the_certificates_end_that_others_are_shown(
    settings: Settings, another_ca: certificates.CertificateFiles
) -> None:
    with _expired(another_ca) as port, create_server(("127.0.0.1", 0)) as closed:
        nobody = closed.getsockname()[1]
        closed.close()
        told = {"api_url": f"https://localhost:{port}/", "ipfs_gateway": f"https://127.0.0.1:{nobody}"}
        found = {each.place: each for each in shown(settings.model_copy(update=told))}
    broker = f"{settings.amqp_public_host}:{settings.amqp_public_port}"
    assert found.keys() == {f"localhost:{port}", broker}
    now, life = datetime.now(UTC).timestamp(), certificates.SERVER_LIFE.total_seconds()
    assert found[f"localhost:{port}"].ends_at < now < found[broker].ends_at < now + life + 1
    assert all(life <= each.ends_at - each.begins_at <= life + 7200 for each in found.values())
    plain = {"api_url": "http://127.0.0.1:1", "ipfs_gateway": "http://127.0.0.1:1", "amqp_public_tls": False}
    assert shown(settings.model_copy(update=plain)) == ()


def _signed_in(settings: Settings, home: Path, host: str, port: int) -> Machine:
    """A machine with a session that names this broker."""
    own = settings.model_copy(update={"home": home})
    pool = PoolConfig(
        chain_id=1,
        hub="0x" + "aa" * 20,
        workerpool="0x" + "bb" * 20,
        scheduler="0x" + "cc" * 20,
        rpc_url="https://rpc.example",
        ws_url=None,
        block_time=1,
        ipfs_gateway="https://gateway.example",
        version="1",
    )
    layout_of(home, KEY.wallet).make()
    made = Machine(own, KEY, pool, PoolApi("https://pool.example"))
    session = Session(token="t", expires_at=0, broker=_access(settings, host, port, "u", "p"))
    made.session.renew(None, lambda: session)
    return made


def test_a_workers_message_arrives_over_tls_with_its_own_user(settings: Settings, vhosts: tuple[str, str]) -> None:
    own = settings.model_copy(update={"amqp_core_vhost": vhosts[0], "amqp_pool_vhost": vhosts[1]})
    wallet = Wallet(KEY.wallet)
    with BrokerAdmin.from_settings(own, timeout=ample(5.0)) as admin:
        password = admin.enrol(wallet)
        try:
            app = machine_app(wallet)
            user = machine_user(own.amqp_pool_vhost, wallet)
            connect_machine(app, _access(own, "localhost", own.amqp_public_port, user, password), own.amqp_ca_file)
            sending = BrokerLink(pool_app(own))
            with sending.producer() as producer:
                producer.publish({"hello": "worker"}, exchange=f"w.{wallet}", routing_key=f"w.{wallet}", declare=[])
            sending.close()
            with app.connection_for_read() as connection, connection.channel() as channel:
                assert isinstance(connection.connection.transport.sock, ssl.SSLSocket)
                assert connection.connection.transport.sock.getpeercert()
                message = app.amqp.queues[f"w.{wallet}"].bind(channel).get(no_ack=True)
                assert message is not None
                assert message.payload == {"hello": "worker"}
        finally:
            admin.remove(wallet)


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_ca_file_without_certificates_is_refused_in_words(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    with pytest.raises(BadSetting, match="SLUICE_AMQP_CA_FILE"):
        core_app(read_settings(amqp_url="amqps://u:p@localhost", amqp_ca_file=file))
