"""Everything a worker might try with its own RabbitMQ user, against the real broker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import amqp
import httpx
import pytest
from amqp import Channel, Message
from amqp.exceptions import AccessRefused, NotAllowed, PreconditionFailed

from config import topology
from config.celery_apps import core_app
from pipeline.broker.admin import BrokerAdmin, flower_user
from pipeline.broker.notify import Notifier
from protocol.wire import BrokerAccess
from tests.integration.api.broker import connect
from tests.integration.api.conftest import STRANGER, WORKER, Api
from tests.waiting import ample

MINE, OTHER = topology.compute_queue_name(WORKER.wallet), topology.compute_queue_name(STRANGER.wallet)

#: Seconds for the broker to say something; whole, as sockets count them.
BROKER_SECONDS = int(ample(5))


@pytest.fixture
def access(api: Api) -> BrokerAccess:
    api.sign_in(STRANGER)
    return api.sign_in(WORKER).broker


@pytest.fixture
def channel(access: BrokerAccess) -> Iterator[Channel]:
    with connect(access) as connection:
        yield connection.channel()


def publish(channel: Channel, exchange: str, key: str, **properties: object) -> None:
    """Publish and wait for the broker's word, so that a refusal is seen."""
    channel.basic_publish_confirm(
        Message("x", **properties), exchange=exchange, routing_key=key, confirm_timeout=BROKER_SECONDS
    )


FORBIDDEN: dict[str, Callable[[Channel], object]] = {
    "consume another worker's queue": lambda channel: channel.basic_consume(OTHER),
    "get from another worker's queue": lambda channel: channel.basic_get(OTHER),
    "get from another worker's transaction queue": lambda channel: channel.basic_get(f"{OTHER}.tx"),
    "purge another worker's queue": lambda channel: channel.queue_purge(OTHER),
    "delete another worker's queue": lambda channel: channel.queue_delete(OTHER),
    "delete its own queue": lambda channel: channel.queue_delete(MINE),
    "declare its own queue anew": lambda channel: channel.queue_declare(MINE, durable=True, auto_delete=False),
    "declare a queue": lambda channel: channel.queue_declare("mine"),
    "declare a queue that begins like its own": lambda channel: channel.queue_declare(f"{MINE}.extra"),
    "declare a queue that the broker names": lambda channel: channel.queue_declare(""),
    "declare an exchange": lambda channel: channel.exchange_declare("mine", "topic"),
    "delete its own exchange": lambda channel: channel.exchange_delete(MINE),
    "bind its queue to another exchange": lambda channel: channel.queue_bind(MINE, OTHER, OTHER),
    "bind its queue to the topic exchange": lambda channel: channel.queue_bind(MINE, "amq.topic", "#"),
    "bind another queue to its exchange": lambda channel: channel.queue_bind(OTHER, MINE, MINE),
    "unbind another worker": lambda channel: channel.queue_unbind(OTHER, OTHER, OTHER),
    "bind its exchange to another": lambda channel: channel.exchange_bind(MINE, OTHER, "#"),
    "publish to another worker's exchange": lambda channel: publish(channel, OTHER, OTHER),
    "publish to any queue through the default exchange": lambda channel: publish(channel, "", OTHER),
    "publish to its own queue through the default exchange": lambda channel: publish(channel, "", MINE),
    "publish to the topic exchange": lambda channel: publish(channel, "amq.topic", "x"),
    "publish to the direct exchange": lambda channel: publish(channel, "amq.direct", "x"),
}


def test_a_worker_may_do_nothing_beyond_its_own_queues(access: BrokerAccess) -> None:
    with connect(access) as connection:
        allowed = [name for name, attempt in FORBIDDEN.items() if not _refused(connection, attempt)]
    assert allowed == []


def _refused(connection: amqp.Connection, attempt: Callable[[Channel], object]) -> bool:
    try:
        attempt(connection.channel())
    except AccessRefused:
        return True
    return False


def test_a_worker_cannot_write_under_another_name(channel: Channel) -> None:
    with pytest.raises(PreconditionFailed):
        publish(channel, MINE, MINE, user_id=STRANGER.wallet)


@pytest.mark.parametrize("which", ["core", "/"])
def test_a_worker_cannot_enter_another_vhost(api: Api, access: BrokerAccess, which: str) -> None:
    with pytest.raises((NotAllowed, AccessRefused)):
        connect(access, vhost=api.settings.amqp_core_vhost if which == "core" else which)


def test_a_worker_cannot_sign_in_with_another_password(access: BrokerAccess) -> None:
    with pytest.raises(AccessRefused):
        connect(access.model_copy(update={"password": "guess"}))
    with pytest.raises(AccessRefused):
        connect(access.model_copy(update={"username": STRANGER.wallet}))


def test_a_worker_is_nobody_to_the_management_api(api: Api, access: BrokerAccess) -> None:
    for path in ("/api/overview", "/api/whoami", "/api/queues", "/api/users"):
        answer = httpx.get(
            f"{api.settings.rabbitmq_api}{path}", auth=(access.username, access.password), timeout=BROKER_SECONDS
        )
        assert answer.status_code == 401


def test_what_a_worker_needs_works(channel: Channel) -> None:
    publish(channel, MINE, MINE, user_id=WORKER.wallet)
    publish(channel, MINE, f"{MINE}.tx")
    message = channel.basic_get(MINE, no_ack=True)
    assert message is not None
    assert message.body == "x"
    assert channel.basic_get(f"{MINE}.tx", no_ack=True) is not None


def test_a_worker_has_a_limited_number_of_connections(api: Api, access: BrokerAccess) -> None:
    with ExitStack() as held:
        opened = 0
        with pytest.raises((NotAllowed, AccessRefused, OSError)):
            while opened < 200:
                held.enter_context(connect(access))
                opened += 1
        assert 10 < opened < 100


def test_deleting_its_user_disconnects_a_worker_at_once(api: Api, access: BrokerAccess) -> None:
    connection = connect(access)
    channel = connection.channel()
    channel.basic_consume(MINE)
    api.services.broker.revoke(WORKER.wallet)
    with pytest.raises((amqp.exceptions.ConnectionForced, OSError)):
        connection.drain_events(timeout=BROKER_SECONDS)


def test_enrolling_again_repairs_a_topology_that_a_worker_broke(api: Api, channel: Channel) -> None:
    """Exchange and queue share a name, so a worker may unbind the two: it cuts off nobody but itself."""
    channel.queue_unbind(MINE, MINE, MINE)
    api.sign_in(WORKER)
    publish(channel, MINE, MINE)
    assert channel.basic_get(MINE, no_ack=True) is not None


def test_enrolling_again_sweeps_away_the_bindings_that_a_worker_made(api: Api, channel: Channel) -> None:
    for number in range(20):
        channel.queue_bind(MINE, MINE, f"key {number}")
    api.sign_in(WORKER)
    publish(channel, MINE, "key 7")
    assert channel.basic_get(MINE, no_ack=True) is None
    publish(channel, MINE, f"{MINE}.tx")
    publish(channel, MINE, MINE)
    assert channel.basic_get(MINE, no_ack=True) is not None


def test_a_flood_drops_a_workers_own_messages_and_never_blocks_the_scheduler(api: Api, channel: Channel) -> None:
    # Queue limit is 16 MiB.
    for _ in range(40):
        channel.basic_publish_confirm(
            Message("x" * 500_000), exchange=MINE, routing_key=MINE, confirm_timeout=BROKER_SECONDS
        )
    publish(channel, MINE, MINE)


def test_preparing_and_enrolling_twice_changes_nothing(api: Api) -> None:
    with BrokerAdmin.from_settings(api.settings) as admin:
        admin.prepare()
        admin.prepare()
        admin.enrol(WORKER.wallet, slots=2)
        admin.enrol(WORKER.wallet, slots=2)
        admin.remove(WORKER.wallet)
        admin.remove(WORKER.wallet)


def test_flowers_user_reads_events_and_can_start_nothing(api: Api) -> None:
    with BrokerAdmin.from_settings(api.settings) as admin:
        password = admin.admit_flower()
    notifier = Notifier(core_app(api.settings), api.services.pool.scheduler)
    url = api.settings.amqp_url.get_secret_value()
    port = int(url.rpartition(":")[2])
    connection = amqp.Connection(
        f"127.0.0.1:{port}",
        userid=flower_user(api.settings.amqp_core_vhost),
        password=password,
        virtual_host=api.settings.amqp_core_vhost,
    )
    connection.connect()
    notifier.send_assign()
    for exchange, key in (("sluice", "pipeline"), ("", "pipeline"), ("amq.topic", "x")):
        with pytest.raises(AccessRefused):
            publish(connection.channel(), exchange, key)
    with pytest.raises(AccessRefused):
        connection.channel().basic_get("pipeline")
    connection.close()
    notifier.close()
