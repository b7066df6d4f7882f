"""What a worker may try with its RabbitMQ user, one attempt a test: refused, or harmless to everybody else."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from amqp import Channel, Message
from amqp.exceptions import AccessRefused, AMQPError, NotAllowed

from config import topology
from config.celery_apps import pool_app
from pipeline.broker import segments
from pipeline.broker.floods import MACHINE_BYTES, Floods
from pipeline.broker.link import BrokerLink
from pipeline.broker.users import machine_user
from protocol.ethereum.signing import Key
from tests.integration.api.at_the_broker.acts import TASK, Acts, Stranger
from tests.integration.api.at_the_broker.endless import begin_endless_message
from tests.integration.api.broker import connect
from tests.integration.api.conftest import Api, management
from tests.unit.workers.assignments import assignment
from tests.waiting import wait_until

ATTACKER, HONEST = Key(secrets.token_bytes(32)), Key(secrets.token_bytes(32))
ACTS = Acts(ATTACKER.wallet, HONEST.wallet)
REFUSED, ALLOWED = ACTS.refused(), ACTS.allowed()
MINE, OTHER = topology.compute_queue_name(ATTACKER.wallet), topology.compute_queue_name(HONEST.wallet)
#: Real messages that an attacker holds: more than a machine with the most slots is ever sent at a time.
HELD = 300
#: Most that all attempts together may add to the broker's memory. It moves by some 30 MB by itself.
MEMORY_BYTES = 128 * 2**20


@pytest.fixture(scope="module")
def stranger(running_api: Api) -> Iterator[Stranger]:
    running_api.sign_in(HONEST)
    made = Stranger(running_api.sign_in(ATTACKER).broker)
    yield made
    made.close()
    for key in (ATTACKER, HONEST):
        running_api.services.broker.remove(key.wallet)


@pytest.fixture(scope="module", autouse=True)
def memory(running_api: Api) -> Callable[[], int]:
    """What the broker uses, in bytes; read before the first attempt too."""
    with management(running_api.settings) as broker:
        # A broker that has just started has no statistics yet.
        before = int(wait_until(lambda: broker.get("/api/nodes").json()[0].get("mem_used"), 20.0, what="statistics"))

    def grown() -> int:
        with management(running_api.settings) as broker:
            return int(broker.get("/api/nodes").json()[0]["mem_used"]) - before

    return grown


@pytest.mark.parametrize("attempt", REFUSED)
def test_a_worker_is_refused_to(stranger: Stranger, attempt: str) -> None:
    channel = stranger.channel()
    with pytest.raises(AccessRefused):
        REFUSED[attempt](channel)


@pytest.mark.parametrize("attempt", ALLOWED)
def test_no_other_client_is_harmed_when_a_worker_may(
    running_api: Api, stranger: Stranger, memory: Callable[[], int], attempt: str
) -> None:
    try:
        ALLOWED[attempt](stranger.channel())
    except (AMQPError, OSError):
        stranger.close()
    _an_honest_worker_is_reached(running_api)
    assert memory() < MEMORY_BYTES


def test_a_message_that_a_worker_returns_again_and_again_is_gone_once_it_has_expired(
    running_api: Api, stranger: Stranger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, "EXPIRES", 1)
    _send(running_api, ATTACKER)
    channel = stranger.channel()

    def is_gone() -> bool:
        message = channel.basic_get(MINE)
        if message is not None:
            assert message.delivery_tag is not None
            channel.basic_reject(message.delivery_tag, requeue=True)
        return message is None

    assert not is_gone()
    wait_until(is_gone, 20, what="the message to expire")
    _an_honest_worker_is_reached(running_api)
    channel.close()


def test_a_worker_that_holds_hundreds_of_real_messages_unacknowledged_bounds_what_the_broker_keeps(
    running_api: Api, stranger: Stranger, memory: Callable[[], int]
) -> None:
    """Assignments with the longest parameters that a deal has in practice, by a prefetch without limit."""
    app = pool_app(running_api.settings)
    link = BrokerLink(app)
    given = [assignment(number, wallet=ATTACKER.wallet, params="x" * 4096) for number in range(HELD)]
    assert segments.publish(link, [segments.compute(app, one) for one in given]) == []
    link.close()
    stranger.close()
    channel, held = stranger.channel(), list[Message]()
    channel.basic_qos(0, 65535, False)
    channel.basic_consume(MINE, callback=held.append)
    wait_until(lambda: _drained(channel, held) == HELD, 20, what="all messages to be held")
    assert held[0].body and '"image"' in str(held[0].body)
    _an_honest_worker_is_reached(running_api)
    assert memory() < MEMORY_BYTES
    # Given back all at once, and delivered again: no more than were sent.
    stranger.close()
    assert (stranger.channel().queue_purge(MINE) or 0) <= HELD


def _drained(channel: Channel, held: list[Message]) -> int:
    """How many messages the attacker holds by now."""
    with suppress(TimeoutError):
        while len(held) < HELD:
            channel.connection.drain_events(timeout=0.2)
    return len(held)


def test_a_worker_that_floods_with_what_it_may_not_send_costs_itself_its_channel(
    running_api: Api, stranger: Stranger, memory: Callable[[], int]
) -> None:
    for _ in range(20):
        channel = stranger.channel()
        with pytest.raises((AccessRefused, OSError)):
            for _ in range(5):
                channel.basic_publish(Message("x" * 500_000), exchange=MINE, routing_key=MINE)
            channel.basic_qos(0, 1, False)
    _an_honest_worker_is_reached(running_api)
    assert memory() < MEMORY_BYTES


def test_what_a_worker_has_the_broker_keep_with_a_consumer_is_bounded(running_api: Api, stranger: Stranger) -> None:
    much = {f"argument{number}": "x" * 1000 for number in range(100)}
    with pytest.raises((AMQPError, OSError)):
        stranger.channel().basic_consume(MINE, arguments=much)
    stranger.close()
    _an_honest_worker_is_reached(running_api)


def test_a_worker_that_sends_a_message_without_an_end_loses_its_user_and_all_that_it_has_sent(
    running_api: Api, stranger: Stranger, memory: Callable[[], int]
) -> None:
    """RabbitMQ keeps it before it asks whether its sender may publish, and how large it is."""
    sent = begin_endless_message(stranger.channel(), MEMORY_BYTES)
    wait_until(lambda: memory() > MEMORY_BYTES / 2, 30, what="the broker to keep what was sent")
    broker = running_api.services.broker
    wait_until(
        lambda: broker.sent_by_machines()[ATTACKER.wallet] > MACHINE_BYTES,
        30,
        what="RabbitMQ's statistics of the connection, which lag by seconds",
    )
    assert ATTACKER.wallet in Floods(broker).look()
    # It need not go away to lose all, and nothing more is kept.
    with suppress(OSError):
        sent.more(MEMORY_BYTES)
    wait_until(lambda: memory() < MEMORY_BYTES / 2, 30, what="the memory to be free again")
    with pytest.raises(AccessRefused):
        connect(stranger.access)
    _an_honest_worker_is_reached(running_api)
    # It may sign in again.
    stranger.close()
    stranger.access = running_api.sign_in(ATTACKER).broker
    stranger.channel().queue_purge(MINE)


@pytest.mark.parametrize("which", ["core", "/", "other"])
def test_a_worker_cannot_enter_another_vhost(running_api: Api, stranger: Stranger, which: str) -> None:
    vhost = running_api.settings.amqp_core_vhost if which == "core" else which
    with pytest.raises((NotAllowed, AccessRefused)):
        connect(stranger.access, vhost=vhost)


@pytest.mark.parametrize("change", ["no password", "a guess", "another machine", "capitals", "another pool's"])
def test_a_worker_cannot_sign_in_as(stranger: Stranger, change: str) -> None:
    access = stranger.access
    changed = {
        "no password": {"password": ""},
        "a guess": {"password": "guess"},
        "another machine": {"username": machine_user(access.vhost, HONEST.wallet)},
        "capitals": {"username": access.username.upper()},
        "another pool's": {"username": machine_user("pool", ATTACKER.wallet)},
    }
    with pytest.raises(AccessRefused):
        connect(access.model_copy(update=changed[change]))


def test_there_are_enough_attempts() -> None:
    assert len(REFUSED) + len(ALLOWED) >= 60


def _send(api: Api, key: Key) -> None:
    app = pool_app(api.settings)
    link = BrokerLink(app)
    assert segments.publish(link, [segments.abort(app, key.wallet, TASK), segments.upload(app, key.wallet, TASK)]) == []
    link.close()


def _an_honest_worker_is_reached(api: Api) -> None:
    """The scheduler's messages arrive at an honest machine."""
    _send(api, HONEST)
    with management(api.settings) as broker:
        for queue in (OTHER, f"{OTHER}.tx"):
            path = f"/api/queues/{api.settings.amqp_pool_vhost}/{queue}/get"
            body = {"count": 1, "ackmode": "ack_requeue_false", "encoding": "auto"}
            wait_until(lambda path=path, body=body: broker.post(path, json=body).json(), 10, what="a message")  # type: ignore[misc]
