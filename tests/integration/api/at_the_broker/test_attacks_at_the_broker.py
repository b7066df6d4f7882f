"""What a worker may try with its RabbitMQ user, one attempt a test: refused, or harmless to everybody else."""

from __future__ import annotations

import bz2
import json
import secrets
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import amqp
import pytest
from amqp import Channel, Message
from amqp.exceptions import AccessRefused, AMQPError, NotAllowed

from config import topology
from config.celery_apps import pool_app
from pipeline.broker import segments
from pipeline.broker.link import BrokerLink
from protocol.ethereum.signing import Key
from protocol.types import TaskId
from protocol.wire import BrokerAccess
from tests.integration.api.broker import connect
from tests.integration.api.conftest import Api, management
from tests.waiting import ample, wait_until

ATTACKER, HONEST = Key(secrets.token_bytes(32)), Key(secrets.token_bytes(32))
MINE, OTHER = topology.compute_queue_name(ATTACKER.wallet), topology.compute_queue_name(HONEST.wallet)
TASK = TaskId("0x" + "ab" * 32)
#: Seconds for the broker to say something; whole, as sockets count them.
BROKER_SECONDS = int(ample(5))
#: Most that all attempts together may add to the broker's memory. It moves by some 30 MB by itself.
MEMORY_BYTES = 128 * 2**20


@dataclass
class Stranger:
    """A worker's connection, opened again when the broker has closed it."""

    access: BrokerAccess
    connection: amqp.Connection | None = None
    #: Channels opened on it: the broker allows 48, and counts a closed one a while longer.
    opened: int = 0

    def channel(self) -> Channel:
        if self.opened == 24:
            self.close()
        if self.connection is None or not self.connection.connected:
            self.connection, self.opened = connect(self.access), 0
        self.opened += 1
        return self.connection.channel()

    def close(self) -> None:
        if self.connection is not None:
            self.connection.collect()
        self.connection, self.opened = None, 0


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


def publish(channel: Channel, exchange: str, key: str, body: bytes | str = "x", **properties: Any) -> None:
    """Publish and wait for the broker's word, so that a refusal is seen."""
    channel.basic_publish_confirm(
        Message(body, **properties), exchange=exchange, routing_key=key, confirm_timeout=BROKER_SECONDS
    )


EXCHANGES = ("", "amq.direct", "amq.fanout", "amq.headers", "amq.match", "amq.topic", "amq.rabbitmq.trace", "sluice")
#: A Celery message as an attacker would forge it: its chain would be published by whoever consumes it.
CHAIN = {"chain": [{"task": "lane.run", "args": [ATTACKER.wallet], "options": {"queue": "pipeline"}}]}
CELERY = {"lang": "py", "task": topology.ABORT, "id": "1", "retries": 0, "argsrepr": "", "origin": "x"}
#: Bodies and properties that hurt a careless consumer.
POISON: dict[str, tuple[bytes | str, dict[str, Any]]] = {
    "four items for three": ("[1,2,3,4]", {"content_type": "application/json"}),
    "a time limit that is no number": ("[[],{},{}]", {"application_headers": CELERY | {"timelimit": "abc"}}),
    "a chain": (json.dumps([[TASK], {}, CHAIN]), {"application_headers": CELERY}),
    "callbacks": (json.dumps([[TASK], {}, {"callbacks": CHAIN["chain"]}]), {"application_headers": CELERY}),
    "error callbacks": (json.dumps([[], {}, {"errbacks": CHAIN["chain"]}]), {"application_headers": CELERY}),
    "a group": ("[[[]],{},{}]", {"application_headers": CELERY | {"task": "celery.group"}}),
    "a starmap": ("[[[]],{},{}]", {"application_headers": CELERY | {"task": "celery.starmap"}}),
    "a pickle": (b"cos\nsystem\n(S'id'\ntR.", {"content_type": "application/x-python-serialize"}),
    "YAML": ("!!python/object/apply:os.system [id]", {"content_type": "application/x-yaml"}),
    "a zlib bomb": (zlib.compress(bytes(2**24)), {"application_headers": CELERY | {"compression": "zlib"}}),
    "a bzip2 bomb": (bz2.compress(bytes(2**22)), {"application_headers": CELERY | {"compression": "bzip2"}}),
    "deep JSON": ("[" * 100_000, {"content_type": "application/json"}),
    "a huge number": ("[[" + "9" * 100_000 + "],{},{}]", {"content_type": "application/json"}),
    "no text": (b"\xff\xfe\x00", {"content_type": "application/json", "content_encoding": "utf-8"}),
    "a time in the far future": ("[[],{},{}]", {"application_headers": CELERY | {"eta": "9999-12-31T00:00:00"}}),
    "copies to others": ("x", {"application_headers": {"CC": [OTHER, f"{OTHER}.tx"]}}),
    "hidden copies to others": ("x", {"application_headers": {"BCC": [OTHER]}}),
    "another's name": ("x", {"user_id": HONEST.wallet}),
    "its own name": ("x", {"user_id": ATTACKER.wallet}),
    "an answer to another": ("x", {"reply_to": OTHER}),
}


def _into(exchange: str, key: str, body: bytes | str = "x", **properties: Any) -> Callable[[Channel], object]:
    return lambda channel: publish(channel, exchange, key, body, **properties)


def _in_turn(*acts: Callable[[Channel], object]) -> Callable[[Channel], object]:
    return lambda channel: [act(channel) for act in acts]


def _purge(channel: Channel) -> object:
    """Makes the broker answer, so that an error about what was sent before has arrived."""
    return channel.queue_purge(MINE)


REFUSED: dict[str, Callable[[Channel], object]] = {
    **{f"publish to {name!r}": _into(name, OTHER) for name in EXCHANGES},
    **{f"publish to {name} by {key}": _into(name, key) for name, key in product((MINE, OTHER), (MINE, f"{OTHER}.tx"))},
    **{f"publish {name}": _into(MINE, MINE, body, **properties) for name, (body, properties) in POISON.items()},
    "publish to its own queue by the default exchange": _into("", MINE),
    "publish in a transaction": _in_turn(
        Channel.tx_select,
        lambda channel: channel.basic_publish(Message("x"), exchange=MINE, routing_key=MINE),
        Channel.tx_commit,
    ),
    "publish to a queue that is not there": _into("", "nowhere"),
    "consume another's queue": lambda channel: channel.basic_consume(OTHER),
    "consume another's transactions": lambda channel: channel.basic_consume(f"{OTHER}.tx"),
    "consume another's queue alone": lambda channel: channel.basic_consume(OTHER, exclusive=True),
    "get from another's queue": lambda channel: channel.basic_get(OTHER),
    "get from another's transactions": lambda channel: channel.basic_get(f"{OTHER}.tx"),
    "get from a queue like its own": lambda channel: channel.basic_get(f"{MINE}.tx.tx"),
    "get from a queue that begins like its own": lambda channel: channel.basic_get(f"{MINE}0"),
    "get by its name in capitals": lambda channel: channel.basic_get(MINE.upper()),
    "purge another's queue": lambda channel: channel.queue_purge(OTHER),
    "delete another's queue": lambda channel: channel.queue_delete(OTHER),
    "delete its own queue": lambda channel: channel.queue_delete(MINE),
    "declare its own queue anew": lambda channel: channel.queue_declare(MINE, durable=True, auto_delete=False),
    "declare a queue": lambda channel: channel.queue_declare("mine"),
    "declare a queue for itself alone": lambda channel: channel.queue_declare("mine", exclusive=True),
    "declare a queue that begins like its own": lambda channel: channel.queue_declare(f"{MINE}.extra"),
    "declare a queue that the broker names": lambda channel: channel.queue_declare(""),
    "declare a queue with dead letters for another": lambda channel: channel.queue_declare(
        "mine", arguments={"x-dead-letter-exchange": OTHER, "x-message-ttl": 0}
    ),
    "declare a stream": lambda channel: channel.queue_declare(
        "mine", durable=True, auto_delete=False, arguments={"x-queue-type": "stream"}
    ),
    "declare an exchange": lambda channel: channel.exchange_declare("mine", "topic"),
    "declare its own exchange anew": lambda channel: channel.exchange_declare(MINE, "fanout"),
    "declare an exchange with an alternate": lambda channel: channel.exchange_declare(
        "mine", "topic", arguments={"alternate-exchange": OTHER}
    ),
    "delete its own exchange": lambda channel: channel.exchange_delete(MINE),
    "delete another's exchange": lambda channel: channel.exchange_delete(OTHER),
    "delete a default exchange": lambda channel: channel.exchange_delete("amq.topic"),
    "bind its queue to its exchange": lambda channel: channel.queue_bind(MINE, MINE, "key"),
    "bind its queue to another's exchange": lambda channel: channel.queue_bind(MINE, OTHER, OTHER),
    "bind its queue to the topic exchange": lambda channel: channel.queue_bind(MINE, "amq.topic", "#"),
    "bind its queue to the trace exchange": lambda channel: channel.queue_bind(MINE, "amq.rabbitmq.trace", "#"),
    "bind its queue to the event exchange": lambda channel: channel.queue_bind(MINE, "amq.rabbitmq.event", "#"),
    "bind another's queue to its exchange": lambda channel: channel.queue_bind(OTHER, MINE, MINE),
    "unbind its own queue": lambda channel: channel.queue_unbind(MINE, MINE, MINE),
    "unbind its own transactions": lambda channel: channel.queue_unbind(f"{MINE}.tx", MINE, f"{MINE}.tx"),
    "unbind another's queue": lambda channel: channel.queue_unbind(OTHER, OTHER, OTHER),
    "bind its exchange to another's": lambda channel: channel.exchange_bind(MINE, OTHER, "#"),
    "bind another's exchange to its own": lambda channel: channel.exchange_bind(OTHER, MINE, "#"),
    "bind its exchange to the topic exchange": lambda channel: channel.exchange_bind(MINE, "amq.topic", "#"),
    "unbind its exchange": lambda channel: channel.exchange_unbind(MINE, OTHER, "#"),
}


@pytest.mark.parametrize("attempt", REFUSED)
def test_a_worker_is_refused_to(stranger: Stranger, attempt: str) -> None:
    channel = stranger.channel()
    with pytest.raises(AccessRefused):
        REFUSED[attempt](channel)


#: What a worker may do: to itself.
ALLOWED: dict[str, Callable[[Channel], object]] = {
    "count another's messages": lambda channel: channel.queue_declare(OTHER, passive=True),
    "see whether another exists": lambda channel: channel.exchange_declare(OTHER, "direct", passive=True),
    "purge its own queue": lambda channel: channel.queue_purge(MINE),
    "consume its own queue alone": lambda channel: channel.basic_consume(MINE, exclusive=True),
    "consume its own queue a hundred times": lambda channel: [channel.basic_consume(MINE) for _ in range(100)],
    "consume answers to requests that it cannot make": lambda channel: channel.basic_consume(
        "amq.rabbitmq.reply-to", no_ack=True
    ),
    "ask for a great many messages at once": lambda channel: channel.basic_qos(0, 65535, False),
    "ask for all messages again": lambda channel: channel.basic_recover(requeue=True),
    "acknowledge what it never got": _in_turn(lambda channel: channel.basic_ack(99), _purge),
    "refuse what it never got": _in_turn(lambda channel: channel.basic_reject(99, True), _purge),
    "set a prefetch for its whole connection": _in_turn(
        lambda channel: channel.basic_qos(0, 1, True), lambda channel: channel.basic_consume(MINE)
    ),
    "publish more than a message may hold": _into(MINE, MINE, bytes(2**21)),
    "open channels without end": lambda channel: [channel.connection.channel() for _ in range(1000)],
}


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


def test_a_worker_that_returns_its_messages_again_and_again_is_rid_of_them(
    running_api: Api, stranger: Stranger
) -> None:
    _send(running_api, ATTACKER)
    returned = 0
    channel = stranger.channel()
    while (message := channel.basic_get(MINE)) is not None:
        assert message.delivery_tag is not None
        channel.basic_reject(message.delivery_tag, requeue=True)
        returned += 1
        assert returned < 1000
    assert returned <= topology.DELIVERY_LIMIT + 1
    channel.close()


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


@pytest.mark.parametrize("which", ["core", "/", "other"])
def test_a_worker_cannot_enter_another_vhost(running_api: Api, stranger: Stranger, which: str) -> None:
    vhost = running_api.settings.amqp_core_vhost if which == "core" else which
    with pytest.raises((NotAllowed, AccessRefused)):
        connect(stranger.access, vhost=vhost)


@pytest.mark.parametrize(
    "change",
    [{"password": ""}, {"password": "guess"}, {"username": HONEST.wallet}, {"username": ATTACKER.wallet.upper()}],
)
def test_a_worker_cannot_sign_in_as(stranger: Stranger, change: dict[str, str]) -> None:
    with pytest.raises(AccessRefused):
        connect(stranger.access.model_copy(update=change))


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
