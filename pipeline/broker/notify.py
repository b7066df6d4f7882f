"""Publishes the scheduler's own Celery tasks, on vhost `core`: they name deals, tasks or lanes to check, and carry
nothing that is not also in the store. Their names, and the queue of each, are in `config.topology`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from amqp.exceptions import NotFound
from celery import Celery

from config import topology
from pipeline.broker.link import BrokerLink
from protocol.types import DealId, TaskId, Wallet

T = TypeVar("T")

#: Tasks in one `advance`: loaded, decided and saved together; small enough to spread over the pipeline processes.
ADVANCE_CHUNK = 50
#: Header of an `assign` for machines that are known to take tasks. A header and no argument, since processes
#: of the release before take no argument.
FREED = "freed"
#: Deals in one `ingest_deals`: a bag may hold thousands of tasks.
INGEST_CHUNK = 5
#: Seconds for which bulk work is put off while urgent messages wait: some of them are done meanwhile.
LATER_SECONDS = 0.2


class Notifier:
    """Publishes the tasks, with confirmation. All methods raise BrokerUnavailable. For one thread at a time."""

    def __init__(self, app: Celery, wallet: Wallet) -> None:
        self._app = app
        self._link = BrokerLink(app)
        self.wallet = wallet
        #: When bulk work that was put off comes, by the monotonic clock.
        self._bulk_at = 0.0

    def send_ingest(self, deals: Sequence[DealId]) -> None:
        """Publish `ingest_deals`: read deals from the chain."""
        self._send(topology.INGEST_DEALS, [(chunk,) for chunk in chunks(deals, INGEST_CHUNK)])

    def send_advance(self, tasks: Sequence[TaskId]) -> None:
        """Publish `advance`: decide what tasks need next."""
        self._send(topology.ADVANCE, [(chunk,) for chunk in chunks(tasks, ADVANCE_CHUNK)])

    def send_assign(self, *, freed: bool = False) -> None:
        """Publish `assign`: match waiting tasks with free slots. `freed`: of machines that are known to take tasks."""
        self._send(topology.ASSIGN, [()], {FREED: True} if freed else None)

    def send_orders(self) -> None:
        """Publish `orders`: decide what the pool offers on the market."""
        self._send(topology.ORDERS, [()])

    def send_bulk(self) -> None:
        """Publish `bulk`: do the next piece of large deals."""
        self._send(topology.BULK, [()])

    def send_bulk_later(self) -> None:
        """Publish `bulk` so that it comes in LATER_SECONDS; nothing if one that this process published so is on its way
        still.
        """
        now = time.monotonic()
        if now < self._bulk_at:
            return
        self._bulk_at = now + LATER_SECONDS
        queue = topology.retry_queue()
        with self._link.producer() as producer:
            self._app.send_task(
                topology.BULK,
                producer=producer,
                exchange=queue.exchange.name,
                routing_key=topology.BULK_QUEUE,
                declare=[queue],
                expiration=LATER_SECONDS,
            )

    def messages_waiting(self) -> int:
        """Number of messages in the queue `pipeline` that no process has taken yet; 0 while there is no such queue."""
        with self._link.producer() as producer:
            channel: Any = producer.channel
            try:
                return int(channel.queue_declare(topology.PIPELINE_QUEUE, passive=True).message_count)
            except NotFound:
                # No process has served it yet; the broker has closed the channel.
                self._link.close()
                return 0

    def send_lane(self) -> None:
        """Publish a run of the scheduler's lane."""
        self._send(topology.RUN_LANE, [(self.wallet,)])

    def close(self) -> None:
        """Disconnect; the next task connects again."""
        self._link.close()

    def _send(
        self, name: str, calls: Sequence[tuple[object, ...]], headers: Mapping[str, object] | None = None
    ) -> None:
        """Publish one message of a Celery task for each call. Raises BrokerUnavailable."""
        if not calls:
            return
        with self._link.producer() as producer:
            for args in calls:
                # Celery declares the queue, once a connection: the first message may come before the first consumer.
                self._app.send_task(name, args=args, producer=producer, headers=headers)


def chunks(items: Sequence[T], size: int) -> Iterator[list[T]]:
    """`items` in lists of at most `size`."""
    for start in range(0, len(items), size):
        yield list(items[start : start + size])
