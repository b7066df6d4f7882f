"""Wake-ups on vhost `core`: small messages that say "look at these", and nothing that is not also in the store.

pipeline.ingest_deals(deals)  pipeline.advance(tasks)  pipeline.assign()                    queue pipeline
pipeline.sweep()                                                                            queue pipeline.sweep
pipeline.bulk()                                                                             queue pipeline.bulk
lane.run(wallet)                                                                            queue lane.<wallet>
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from celery import Celery
from kombu import Queue

from config import topology
from pipeline.broker.link import BrokerLink
from protocol.types import DealId, TaskId, Wallet

T = TypeVar("T")

#: Tasks in one `advance`: loaded, decided and saved together; small enough to spread over the pipeline processes.
ADVANCE_CHUNK = 50
#: Deals in one `ingest_deals`: a bag may hold thousands of tasks.
INGEST_CHUNK = 5


class Wake:
    """Publishes wake-ups, confirmed. Every method raises BrokerUnavailable; not for several threads at a time."""

    def __init__(self, app: Celery, wallet: Wallet) -> None:
        self._app = app
        self._link = BrokerLink(app)
        self._pipeline, self._lane = topology.pipeline_queue(), topology.lane_queue(wallet)
        self._bulk = topology.wake_up_queue(topology.BULK_QUEUE)
        self.wallet = wallet

    def ingest(self, deals: Sequence[DealId]) -> None:
        """Have deals read from the chain."""
        self._send("pipeline.ingest_deals", [(chunk,) for chunk in chunks(deals, INGEST_CHUNK)], self._pipeline)

    def advance(self, tasks: Sequence[TaskId]) -> None:
        """Have tasks looked at."""
        self._send("pipeline.advance", [(chunk,) for chunk in chunks(tasks, ADVANCE_CHUNK)], self._pipeline)

    def assign(self) -> None:
        """Have waiting tasks matched with free slots."""
        self._send("pipeline.assign", [()], self._pipeline)

    def bulk(self) -> None:
        """Have the next piece of large deals done."""
        self._send("pipeline.bulk", [()], self._bulk)

    def waiting(self) -> int:
        """Messages of the queue `pipeline` that no process has taken yet."""
        with self._link.producer() as producer:
            channel: Any = producer.channel
            return int(channel.queue_declare(self._pipeline.name, passive=True).message_count)

    def lane(self) -> None:
        """Have the scheduler's lane run."""
        self._send("lane.run", [(self.wallet,)], self._lane)

    def close(self) -> None:
        """Disconnect; the next wake-up connects again."""
        self._link.close()

    def _send(self, name: str, calls: Sequence[tuple[object, ...]], queue: Queue) -> None:
        if not calls:
            return
        with self._link.producer() as producer:
            for args in calls:
                self._app.send_task(
                    name,
                    args=args,
                    exchange=queue.exchange.name,
                    routing_key=queue.routing_key,
                    producer=producer,
                    # Once a connection: whoever publishes first may come before whoever consumes.
                    declare=[queue],
                )


def chunks(items: Sequence[T], size: int) -> Iterator[list[T]]:
    """`items` in lists of at most `size`."""
    for start in range(0, len(items), size):
        yield list(items[start : start + size])
