"""The Celery chains that worker machines carry out, published into vhost `pool`.

    compute ─► contribute                        vote          w.<wallet> ─► w.<wallet>.tx
    compute ─► upload ─► contribute_and_finalize  alone        w.<wallet> ─► w.<wallet> ─► w.<wallet>.tx
    reveal ─► upload                             winner, the uploader
    reveal                                       winner
    upload                                       winner asked later

Every signature names exchange and routing key: with a queue name Celery would send the next link through the default
exchange, which a worker may not write to. A message may get lost or come twice; the sweep and the worker's journal see
to that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from amqp.exceptions import ChannelError
from celery import Celery, Signature, chain
from kombu import Producer

from config import topology
from pipeline.broker.link import BrokerLink
from protocol.types import TaskId, Wallet
from protocol.wire import Assignment, Mode

#: AMQP: no queue is bound there, no such exchange. That machine was removed.
_NOBODY_THERE = (312, 404)
#: Seconds that a message may wait in a worker's queue: what nobody took by then is asked again or of somebody else.
EXPIRES = 300


@dataclass(frozen=True, slots=True)
class Segment:
    """One chain for one worker."""

    wallet: Wallet
    links: tuple[Signature[Any], ...]


def compute(app: Celery, assignment: Assignment) -> Segment:
    """The first segment of a replicate."""
    wallet = Wallet(assignment.wallet)
    first = _link(app, "worker.compute", wallet, (assignment.model_dump(mode="json"),))
    if assignment.mode is Mode.SOLO:
        upload = _link(app, "worker.upload", wallet)
        return Segment(wallet, (first, upload, _link(app, "worker.contribute_and_finalize", wallet, tx=True)))
    return Segment(wallet, (first, _link(app, "worker.contribute", wallet, tx=True)))


def reveal(app: Celery, wallet: Wallet, task: TaskId, *, upload: bool) -> Segment:
    """The second segment: after consensus."""
    first = _link(app, "worker.reveal", wallet, (task,), tx=True)
    return Segment(wallet, (first, _link(app, "worker.upload", wallet)) if upload else (first,))


def upload_only(app: Celery, wallet: Wallet, task: TaskId) -> Segment:
    """Ask a winner for the result."""
    return Segment(wallet, (_link(app, "worker.upload", wallet, (task,)),))


def abort(app: Celery, wallet: Wallet, task: TaskId) -> Segment:
    """Tell a worker to stop. On the transaction queue, because the other one may be busy computing it."""
    return Segment(wallet, (_link(app, "worker.abort", wallet, (task,), tx=True),))


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
                if error.reply_code not in _NOBODY_THERE:
                    raise
                absent.append(segment.wallet)
    return absent


def _send(segment: Segment, producer: Producer) -> None:
    first, *rest = segment.links
    whole = chain(first, *rest) if rest else first
    whole.apply_async(producer=producer, mandatory=True, declare=[], expiration=EXPIRES)


def _link(app: Celery, name: str, wallet: Wallet, args: tuple[object, ...] = (), *, tx: bool = False) -> Signature[Any]:
    queue = topology.tx_queue_name(wallet) if tx else topology.compute_queue_name(wallet)
    return app.signature(
        name,
        args=args,
        exchange=topology.compute_queue_name(wallet),
        routing_key=queue,
    )
