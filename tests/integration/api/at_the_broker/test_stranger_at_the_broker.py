"""Users, rights and limits that the scheduler gives at the broker; what a worker may try is in `test_attacks_…`."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import amqp
import httpx
import pytest
from amqp import Channel, Message
from amqp.exceptions import AccessRefused, NotAllowed

from config import topology
from config.celery_apps import core_app, pool_app
from config.connections.http_client import http_client
from pipeline.broker import monitor, segments
from pipeline.broker.admin import BrokerAdmin
from pipeline.broker.link import BrokerLink
from pipeline.broker.machine_rights import (
    MOST_CHANNELS,
    MOST_CONNECTIONS,
    worker_permissions,
    worker_queue_arguments,
)
from pipeline.broker.notify import Notifier
from pipeline.broker.users import flower_user, monitor_user
from protocol.ethereum.signing import Key
from protocol.wire import BrokerAccess
from tests.integration.api.broker import connect
from tests.integration.api.conftest import STRANGER, TASK, WORKER, Api, management
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


def test_a_worker_cannot_sign_in_at_the_management_api(api: Api, access: BrokerAccess) -> None:
    for path in ("/api/overview", "/api/whoami", "/api/queues", "/api/users"):
        answer = httpx.get(
            f"{api.settings.rabbitmq_api}{path}", auth=(access.username, access.password), timeout=BROKER_SECONDS
        )
        assert answer.status_code == 401


def test_a_worker_gets_what_the_scheduler_sends(api: Api, channel: Channel) -> None:
    app = pool_app(api.settings)
    link = BrokerLink(app)
    segments.publish(link, [segments.upload(app, WORKER.wallet, TASK), segments.abort(app, WORKER.wallet, TASK)])
    link.close()
    for queue in (MINE, f"{MINE}.tx"):
        message = channel.basic_get(queue, no_ack=True)
        assert message is not None
        assert TASK in message.body


@pytest.mark.parametrize("lacks", ["its queues", "its exchange too"])
def test_machines_that_are_sent_messages_together_get_theirs_and_those_without_a_queue_are_named(
    api: Api, access: BrokerAccess, channel: Channel, lacks: str
) -> None:
    gone = Key(secrets.token_bytes(32)).wallet
    with management(api.settings) as broker:
        exchange = f"/api/exchanges/{api.settings.amqp_pool_vhost}/w.{gone}"
        if lacks == "its queues":
            broker.put(exchange, json={"type": "direct", "durable": True}).raise_for_status()
        app = pool_app(api.settings)
        link = BrokerLink(app)
        order = (WORKER.wallet, gone, STRANGER.wallet, WORKER.wallet)
        for _ in range(2):
            assert segments.publish(link, [segments.abort(app, wallet, TASK) for wallet in order]) == [gone]
        link.close()
        broker.delete(exchange)
    got = 0
    while channel.basic_get(f"{MINE}.tx", no_ack=True) is not None:
        got += 1
    # What may have come already when RabbitMQ closed the channel was sent again.
    assert got == 4 if lacks == "its queues" else got >= 4


def test_a_worker_has_a_limited_number_of_connections_however_many_slots_it_claims(access: BrokerAccess) -> None:
    with ExitStack() as held:
        opened = 0
        with pytest.raises((NotAllowed, AccessRefused, OSError)):
            while opened < 200:
                held.enter_context(connect(access))
                opened += 1
        assert opened == MOST_CONNECTIONS


def test_machines_that_sign_in_together_each_have_their_own_rights_limits_and_queues(api: Api) -> None:
    keys = [Key(secrets.token_bytes(32)) for _ in range(12)]
    with ThreadPoolExecutor(len(keys)) as threads:
        sessions = list(threads.map(api.sign_in, keys))
    assert len({session.broker.password for session in sessions}) == len(keys)
    with management(api.settings) as broker:
        for key, session in zip(keys, sessions, strict=True):
            user = session.broker.username
            rights = broker.get(f"/api/permissions/{api.settings.amqp_pool_vhost}/{user}").json()
            assert {name: rights[name] for name in ("configure", "write", "read")} == worker_permissions(key.wallet)
            (limits,) = broker.get(f"/api/user-limits/{user}").json()
            assert limits["value"] == {"max-connections": MOST_CONNECTIONS, "max-channels": MOST_CHANNELS}
            with connect(session.broker) as connection:
                for queue in (session.broker.compute_queue, session.broker.tx_queue):
                    assert connection.channel().basic_get(queue) is None
            api.services.broker.remove(key.wallet)


def test_queues_that_an_older_release_made_are_kept(api: Api) -> None:
    """Whoever consumes them is not disconnected by a sign-in."""
    queue, arguments = f"{api.settings.amqp_pool_vhost}/{MINE}", worker_queue_arguments(replicated=True)
    with management(api.settings) as broker:
        broker.put(f"/api/queues/{queue}", json={"durable": True, "arguments": arguments}).raise_for_status()
        session = api.sign_in(WORKER)
        assert broker.get(f"/api/queues/{queue}").json()["type"] == "quorum"
    with connect(session.broker) as connection:
        assert connection.channel().basic_get(MINE) is None


def test_deleting_its_user_disconnects_a_worker_at_once(api: Api, access: BrokerAccess) -> None:
    connection = connect(access)
    channel = connection.channel()
    channel.basic_consume(MINE)
    api.services.broker.revoke(WORKER.wallet)
    with pytest.raises((amqp.exceptions.ConnectionForced, OSError)):
        connection.drain_events(timeout=BROKER_SECONDS)


def test_a_login_replaces_the_rights_of_an_older_release_also_on_open_channels(
    api: Api, access: BrokerAccess, channel: Channel
) -> None:
    """An open channel keeps the rights it began with, so the user is deleted, and with it the connection."""
    older = {"configure": "^$", "write": f"^{MINE}$", "read": rf"^{MINE}(\.tx)?$"}
    with management(api.settings) as broker:
        rights = f"/api/permissions/{api.settings.amqp_pool_vhost}/{access.username}"
        broker.put(rights, json=older).raise_for_status()
        with connect(api.sign_in(STRANGER).broker):
            publish(channel, MINE, MINE)
            channel.queue_bind(MINE, MINE, "key of its own")
            again = api.sign_in(WORKER).broker
            assert broker.get(rights).json()["write"] == "^$"
    with pytest.raises((amqp.exceptions.AMQPError, OSError)):
        publish(channel, MINE, MINE)
    with connect(again) as connection:
        assert connection.channel().basic_get(MINE) is None
        with pytest.raises(AccessRefused):
            publish(connection.channel(), MINE, MINE)


def test_preparing_and_enrolling_twice_changes_nothing(api: Api) -> None:
    with BrokerAdmin.from_settings(api.settings) as admin:
        admin.prepare()
        admin.prepare()
        admin.enrol(WORKER.wallet)
        admin.enrol(WORKER.wallet)
        admin.remove(WORKER.wallet)
        admin.remove(WORKER.wallet)


def test_the_user_of_who_only_looks_sees_queues_and_can_read_and_change_nothing(api: Api, tmp_path: Path) -> None:
    settings = api.settings.model_copy(update={"home": tmp_path})
    core, pool = settings.amqp_core_vhost, settings.amqp_pool_vhost
    with BrokerAdmin.from_settings(settings) as admin:
        for _ in range(2):
            monitor.admit_monitor(admin, settings)
        auth = (monitor_user(core), monitor.password_file(settings).read_text().strip())
        # RabbitMQ closes a connection on which it has refused a request before it read its body.
        alone = {"connection": "close"}
        with http_client(f"{settings.rabbitmq_api}/api", auth=auth, timeout=ample(5.0), headers=alone) as http:
            for vhost in (core, pool):
                assert http.get(f"/queues/{vhost}").is_success
            assert "dead" in {row["name"] for row in http.get(f"/queues/{core}").json()}
            reading = {"count": 1, "ackmode": "ack_requeue_true", "encoding": "auto"}
            for method, path, body in (
                ("POST", f"/queues/{core}/dead/get", reading),
                ("DELETE", f"/queues/{core}/dead", None),
                ("DELETE", f"/queues/{core}/dead/contents", None),
                ("PUT", f"/queues/{core}/mine", {}),
                ("PUT", "/users/mine", {"password": "x", "tags": "administrator"}),
            ):
                assert http.request(method, path, json=body).status_code in (400, 401, 403), path
            assert "mine" not in {row["name"] for row in http.get(f"/queues/{core}").json()}
            admin.dismiss_monitor()
            assert http.get("/whoami").status_code == 401


def test_flowers_user_reads_events_and_can_start_nothing(api: Api) -> None:
    with BrokerAdmin.from_settings(api.settings) as admin:
        password = admin.admit_flower()
    notifier = Notifier(core_app(api.settings), api.services.pool.scheduler)
    url = api.settings.amqp_url.get_secret_value()
    port = int(url.rpartition(":")[2])
    connection = amqp.Connection(
        f"127.0.0.1:{port}",
        userid=flower_user(api.settings),
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
