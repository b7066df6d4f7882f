"""Publishes to worker machines, in vhost `pool`: the first task of each segment.

    compute   w.<wallet>      the machine goes on by itself: compute ─► contribute, or with trust 1
                              compute ─► upload ─► contribute_and_finalize (`workers.task.chain`)
    reveal    w.<wallet>.tx   after consensus
    upload    w.<wallet>      of a winner, beside its reveal or later
    abort     w.<wallet>.tx

A message may get lost or come twice; the sweep and the worker's journal see to that. No message carries a Celery chain:
the next link would be published by the worker, which may publish nothing.

Every signature names exchange and routing key, so `task_routes` cannot do it: Celery publishes a signature that has a
queue's name through the default exchange, and the scheduler's app knows no queue of a worker.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from amqp.exceptions import ChannelError
from celery import Celery, Signature
from kombu import Producer

from config import topology
from pipeline.broker.link import BrokerLink
from protocol.errors import BrokerUnavailable
from protocol.types import TaskId, Wallet
from protocol.wire import Assignment

#: AMQP: no queue is bound there, no such exchange. That machine was removed.
_NO_QUEUE = (312, 404)
#: Seconds that a message may wait in a worker's queue: a task that no machine took by then is assigned again.
EXPIRES = 300


@dataclass(frozen=True, slots=True)
class Segment:
    """One message for one worker."""

    wallet: Wallet
    message: Signature[Any]

    @property
    def address(self) -> tuple[str, str]:
        """Its exchange and routing key."""
        options = self.message.options
        return options["exchange"], options["routing_key"]


def compute(app: Celery, assignment: Assignment) -> Segment:
    """The first segment of a replicate: all that an assignment asks for."""
    return _segment(app, Wallet(assignment.wallet), topology.COMPUTE, assignment.model_dump(mode="json"))


def reveal(app: Celery, wallet: Wallet, task: TaskId) -> Segment:
    """The second segment: after consensus, reveal the vote."""
    return _segment(app, wallet, topology.REVEAL, task)


def upload(app: Celery, wallet: Wallet, task: TaskId) -> Segment:
    """Ask a winner for the result."""
    return _segment(app, wallet, topology.UPLOAD, task)


def abort(app: Celery, wallet: Wallet, task: TaskId) -> Segment:
    """Tell a worker to stop."""
    return _segment(app, wallet, topology.ABORT, task)


def _segment(app: Celery, wallet: Wallet, name: str, argument: object) -> Segment:
    """A Celery task for a machine, addressed to the queue of its own that takes such tasks."""
    exchange, key = topology.compute_queue_name(wallet), topology.worker_queue_name(name, wallet)
    return Segment(wallet, app.signature(name, args=(argument,), exchange=exchange, routing_key=key))


def publish(link: BrokerLink, messages: Sequence[Segment]) -> list[Wallet]:
    """Publish all over one connection, confirmed; returns wallets without a queue. Raises BrokerUnavailable."""
    absent, others = _publish_together(link, messages) if len(messages) > 1 else ([], messages)
    for segment in others:
        with link.producer() as producer:
            try:
                _send(segment, producer)
            except ChannelError as error:
                # The broker may have closed the channel with it.
                link.close()
                if error.reply_code not in _NO_QUEUE:
                    raise
                absent.append(segment.wallet)
    return absent


def _publish_together(link: BrokerLink, messages: Sequence[Segment]) -> tuple[list[Wallet], Sequence[Segment]]:
    """Publish all, and only then wait for the confirmations: (wallets without a queue, what is to be published again,
    one by one). After an error that is all: it tells of none how far it came, and each may come twice.
    """
    try:
        with link.together() as together:
            confirmed, returned = together.send([partial(_send, segment, retry=False) for segment in messages])
    except BrokerUnavailable as error:
        if isinstance(error.__cause__, TimeoutError):
            # It is silent, and would be so again.
            raise
        return [], messages
    absent = [segment.wallet for segment in messages if segment.address in returned]
    return absent, [segment for segment, done in zip(messages, confirmed, strict=True) if not done]


def _send(segment: Segment, producer: Producer, **options: Any) -> None:
    """Publish a segment; RabbitMQ returns the message if the machine's queue does not exist."""
    message: Any = segment.message
    message.apply_async(producer=producer, mandatory=True, declare=[], expiration=EXPIRES, **options)
