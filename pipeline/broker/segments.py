"""Publishes to worker machines, in vhost `pool`: the chains of `config.worker_chains`.

A message may get lost or come twice; the sweep and the worker's journal see to that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from amqp.exceptions import ChannelError
from celery import Celery, Signature, chain
from kombu import Producer

from config import topology, worker_chains
from pipeline.broker.link import BrokerLink
from protocol.types import TaskId, Wallet
from protocol.wire import Assignment

#: AMQP: no queue is bound there, no such exchange. That machine was removed.
_NO_QUEUE = (312, 404)
#: Seconds that a message may wait in a worker's queue: a task that no machine took by then is assigned again.
EXPIRES = 300


@dataclass(frozen=True, slots=True)
class Segment:
    """One chain for one worker."""

    wallet: Wallet
    links: tuple[Signature[Any], ...]


def compute(app: Celery, assignment: Assignment) -> Segment:
    """The first segment of a replicate."""
    return Segment(Wallet(assignment.wallet), worker_chains.compute(app, assignment))


def reveal(app: Celery, wallet: Wallet, task: TaskId, *, upload: bool) -> Segment:
    """The second segment: after consensus."""
    return Segment(wallet, worker_chains.reveal(app, wallet, task, upload=upload))


def upload_only(app: Celery, wallet: Wallet, task: TaskId) -> Segment:
    """Ask a winner for the result."""
    return Segment(wallet, worker_chains.links(app, wallet, (topology.UPLOAD,), task))


def abort(app: Celery, wallet: Wallet, task: TaskId) -> Segment:
    """Tell a worker to stop."""
    return Segment(wallet, worker_chains.links(app, wallet, (topology.ABORT,), task))


def publish(link: BrokerLink, messages: Sequence[Segment]) -> list[Wallet]:
    """Publish all over one connection, confirmed; returns wallets without a queue. Raises BrokerUnavailable."""
    absent: list[Wallet] = []
    for segment in messages:
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


def _send(segment: Segment, producer: Producer) -> None:
    first, *rest = segment.links
    whole = chain(first, *rest) if rest else first
    whole.apply_async(producer=producer, mandatory=True, declare=[], expiration=EXPIRES)
