"""What a worker may try with its RabbitMQ user, each an act on a channel: tests of the broker alone, and of a pool at
work, try the same.
"""

from __future__ import annotations

import bz2
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any

import amqp
from amqp import Channel, Message

from config import topology
from protocol.types import TaskId, Wallet
from protocol.wire import BrokerAccess
from tests.integration.api.broker import connect
from tests.waiting import ample

Act = Callable[[Channel], object]
#: Seconds for the broker to say something; whole, as sockets count them.
BROKER_SECONDS = int(ample(5))
TASK = TaskId("0x" + "ab" * 32)
EXCHANGES = ("", "amq.direct", "amq.fanout", "amq.headers", "amq.match", "amq.topic", "amq.rabbitmq.trace", "sluice")
CELERY = {"lang": "py", "task": topology.ABORT, "id": "1", "retries": 0, "argsrepr": "", "origin": "x"}


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


def publish(channel: Channel, exchange: str, key: str, body: bytes | str = "x", **properties: Any) -> None:
    """Publish and wait for the broker's word, so that a refusal is seen."""
    channel.basic_publish_confirm(
        Message(body, **properties), exchange=exchange, routing_key=key, confirm_timeout=BROKER_SECONDS
    )


def _into(exchange: str, key: str, body: bytes | str = "x", **properties: Any) -> Callable[[Channel], object]:
    return lambda channel: publish(channel, exchange, key, body, **properties)


def _in_turn(*acts: Callable[[Channel], object]) -> Callable[[Channel], object]:
    return lambda channel: [act(channel) for act in acts]


@dataclass(frozen=True, slots=True)
class Acts:
    """What the machine `wallet` tries, some of it on the queues of the machine `honest`."""

    wallet: Wallet
    honest: Wallet

    def poison(self) -> dict[str, tuple[bytes | str, dict[str, Any]]]:
        """Bodies and properties that hurt a careless consumer."""
        other = topology.compute_queue_name(self.honest)
        # A Celery message as an attacker would forge it: its chain would be published by whoever consumes it.
        chain = {"chain": [{"task": "lane.run", "args": [self.wallet], "options": {"queue": "pipeline"}}]}
        return {
            "four items for three": ("[1,2,3,4]", {"content_type": "application/json"}),
            "a time limit that is no number": ("[[],{},{}]", {"application_headers": CELERY | {"timelimit": "abc"}}),
            "a chain": (json.dumps([[TASK], {}, chain]), {"application_headers": CELERY}),
            "callbacks": (json.dumps([[TASK], {}, {"callbacks": chain["chain"]}]), {"application_headers": CELERY}),
            "error callbacks": (json.dumps([[], {}, {"errbacks": chain["chain"]}]), {"application_headers": CELERY}),
            "a group": ("[[[]],{},{}]", {"application_headers": CELERY | {"task": "celery.group"}}),
            "a starmap": ("[[[]],{},{}]", {"application_headers": CELERY | {"task": "celery.starmap"}}),
            "a pickle": (b"cos\nsystem\n(S'id'\ntR.", {"content_type": "application/x-python-serialize"}),
            "YAML": ("!!python/object/apply:os.system [id]", {"content_type": "application/x-yaml"}),
            "a zlib bomb": (zlib.compress(bytes(2**24)), {"application_headers": CELERY | {"compression": "zlib"}}),
            "a bzip2 bomb": (bz2.compress(bytes(2**22)), {"application_headers": CELERY | {"compression": "bzip2"}}),
            "deep JSON": ("[" * 100_000, {"content_type": "application/json"}),
            "a huge number": ("[[" + "9" * 100_000 + "],{},{}]", {"content_type": "application/json"}),
            "no text": (b"\xff\xfe\x00", {"content_type": "application/json", "content_encoding": "utf-8"}),
            "a time in the far future": (
                "[[],{},{}]",
                {"application_headers": CELERY | {"eta": "9999-12-31T00:00:00"}},
            ),
            "copies to others": ("x", {"application_headers": {"CC": [other, f"{other}.tx"]}}),
            "hidden copies to others": ("x", {"application_headers": {"BCC": [other]}}),
            "another's name": ("x", {"user_id": self.honest}),
            "its own name": ("x", {"user_id": self.wallet}),
            "an answer to another": ("x", {"reply_to": other}),
        }

    def refused(self) -> dict[str, Act]:
        """What the broker must refuse."""
        mine, other = topology.compute_queue_name(self.wallet), topology.compute_queue_name(self.honest)
        return {
            **{f"publish to {name!r}": _into(name, other) for name in EXCHANGES},
            **{
                f"publish to {name} by {key}": _into(name, key)
                for name, key in product((mine, other), (mine, f"{other}.tx"))
            },
            **{
                f"publish {name}": _into(mine, mine, body, **properties)
                for name, (body, properties) in self.poison().items()
            },
            "publish to its own queue by the default exchange": _into("", mine),
            "publish in a transaction": _in_turn(
                Channel.tx_select,
                lambda channel: channel.basic_publish(Message("x"), exchange=mine, routing_key=mine),
                Channel.tx_commit,
            ),
            "publish to a queue that is not there": _into("", "nowhere"),
            "consume another's queue": lambda channel: channel.basic_consume(other),
            "consume another's transactions": lambda channel: channel.basic_consume(f"{other}.tx"),
            "consume another's queue alone": lambda channel: channel.basic_consume(other, exclusive=True),
            "get from another's queue": lambda channel: channel.basic_get(other),
            "get from another's transactions": lambda channel: channel.basic_get(f"{other}.tx"),
            "get from a queue like its own": lambda channel: channel.basic_get(f"{mine}.tx.tx"),
            "get from a queue that begins like its own": lambda channel: channel.basic_get(f"{mine}0"),
            "get by its name in capitals": lambda channel: channel.basic_get(mine.upper()),
            "purge another's queue": lambda channel: channel.queue_purge(other),
            "delete another's queue": lambda channel: channel.queue_delete(other),
            "delete its own queue": lambda channel: channel.queue_delete(mine),
            "declare its own queue anew": lambda channel: channel.queue_declare(mine, durable=True, auto_delete=False),
            "declare a queue": lambda channel: channel.queue_declare("mine"),
            "declare a queue for itself alone": lambda channel: channel.queue_declare("mine", exclusive=True),
            "declare a queue that begins like its own": lambda channel: channel.queue_declare(f"{mine}.extra"),
            "declare a queue that the broker names": lambda channel: channel.queue_declare(""),
            "declare a queue with dead letters for another": lambda channel: channel.queue_declare(
                "mine", arguments={"x-dead-letter-exchange": other, "x-message-ttl": 0}
            ),
            "declare a stream": lambda channel: channel.queue_declare(
                "mine", durable=True, auto_delete=False, arguments={"x-queue-type": "stream"}
            ),
            "declare an exchange": lambda channel: channel.exchange_declare("mine", "topic"),
            "declare its own exchange anew": lambda channel: channel.exchange_declare(mine, "fanout"),
            "declare an exchange with an alternate": lambda channel: channel.exchange_declare(
                "mine", "topic", arguments={"alternate-exchange": other}
            ),
            "delete its own exchange": lambda channel: channel.exchange_delete(mine),
            "delete another's exchange": lambda channel: channel.exchange_delete(other),
            "delete a default exchange": lambda channel: channel.exchange_delete("amq.topic"),
            "bind its queue to its exchange": lambda channel: channel.queue_bind(mine, mine, "key"),
            "bind its queue to another's exchange": lambda channel: channel.queue_bind(mine, other, other),
            "bind its queue to the topic exchange": lambda channel: channel.queue_bind(mine, "amq.topic", "#"),
            "bind its queue to the trace exchange": lambda channel: channel.queue_bind(mine, "amq.rabbitmq.trace", "#"),
            "bind its queue to the event exchange": lambda channel: channel.queue_bind(mine, "amq.rabbitmq.event", "#"),
            "bind another's queue to its exchange": lambda channel: channel.queue_bind(other, mine, mine),
            "unbind its own queue": lambda channel: channel.queue_unbind(mine, mine, mine),
            "unbind its own transactions": lambda channel: channel.queue_unbind(f"{mine}.tx", mine, f"{mine}.tx"),
            "unbind another's queue": lambda channel: channel.queue_unbind(other, other, other),
            "bind its exchange to another's": lambda channel: channel.exchange_bind(mine, other, "#"),
            "bind another's exchange to its own": lambda channel: channel.exchange_bind(other, mine, "#"),
            "bind its exchange to the topic exchange": lambda channel: channel.exchange_bind(mine, "amq.topic", "#"),
            "unbind its exchange": lambda channel: channel.exchange_unbind(mine, other, "#"),
        }

    def allowed(self) -> dict[str, Act]:
        """What a worker may do: to itself."""
        mine, other = topology.compute_queue_name(self.wallet), topology.compute_queue_name(self.honest)

        def purge(channel: Channel) -> object:
            """Makes the broker answer, so that an error about what was sent before has arrived."""
            return channel.queue_purge(mine)

        return {
            "count another's messages": lambda channel: channel.queue_declare(other, passive=True),
            "see whether another exists": lambda channel: channel.exchange_declare(other, "direct", passive=True),
            "purge its own queue": lambda channel: channel.queue_purge(mine),
            "consume its own queue alone": lambda channel: channel.basic_consume(mine, exclusive=True),
            "consume its own queue a hundred times": lambda channel: [channel.basic_consume(mine) for _ in range(100)],
            "consume answers to requests that it cannot make": lambda channel: channel.basic_consume(
                "amq.rabbitmq.reply-to", no_ack=True
            ),
            "ask for a great many messages at once": lambda channel: channel.basic_qos(0, 65535, False),
            "ask for all messages again": lambda channel: channel.basic_recover(requeue=True),
            "acknowledge what it never got": _in_turn(lambda channel: channel.basic_ack(99), purge),
            "refuse what it never got": _in_turn(lambda channel: channel.basic_reject(99, True), purge),
            "set a prefetch for its whole connection": _in_turn(
                lambda channel: channel.basic_qos(0, 1, True), lambda channel: channel.basic_consume(mine)
            ),
            "publish more than a message may hold": _into(mine, mine, bytes(2**21)),
            "open channels without end": lambda channel: [channel.connection.channel() for _ in range(1000)],
        }
