"""Every exchange, queue and Celery task, named once, and the queue of each task.

vhost core   exchange sluice (topic) ─┬─ pipeline            quorum    ingest, advance, assign: urgent work
                                      ├─ pipeline.sweep      quorum    from beat, every few seconds; holds one message
                                      ├─ pipeline.bulk       quorum    the next piece of large deals; holds one message
                                      ├─ pipeline.orders     quorum    what the pool offers; holds one message
                                      ├─ lane.<wallet>       quorum    one consumer at a time (SAC)
                                      └─ dead                quorum    what was delivered too often
             exchange sluice.retry (topic) ── pipeline.retry quorum    what waits to be tried again
vhost pool   exchange w.<wallet> (direct) ─┬─ w.<wallet>     *         compute, upload
                                           └─ w.<wallet>.tx  *         reveal, abort

* quorum where RabbitMQ is a cluster, classic on a single node (`pipeline.broker.machine_rights`)

A worker machine may read its two queues and write to nothing: what follows on a message there, it does by its journal
(`workers.task.chain`).
"""

from __future__ import annotations

import re

from kombu import Exchange, Queue

from protocol.types import Wallet

#: The scheduler's tasks (`pipeline.tasks`), in vhost core.
INGEST_DEALS, ADVANCE, ASSIGN = "pipeline.ingest_deals", "pipeline.advance", "pipeline.assign"
SWEEP, BULK, RUN_LANE = "pipeline.sweep", "pipeline.bulk", "lane.run"
TIDY, ORDERS, AUDIT = "pipeline.tidy", "pipeline.orders", "pipeline.audit"
#: A worker machine's tasks (`workers.tasks`), in vhost pool.
COMPUTE, UPLOAD, REVEAL, ABORT = "worker.compute", "worker.upload", "worker.reveal", "worker.abort"
#: Those that must not wait until the processes of the other queue have done their containers and uploads: a reveal has
#: a deadline, and `abort` is to stop what keeps them busy.
TX_TASKS = frozenset({REVEAL, ABORT})

#: Redeliveries before a message goes to `dead`: enough for a crash loop to be noticed, and an end to it.
DELIVERY_LIMIT = 20
CORE_EXCHANGE = Exchange("sluice", "topic", durable=True)
PIPELINE_QUEUE = "pipeline"
SWEEP_QUEUE, BULK_QUEUE, ORDERS_QUEUE = "pipeline.sweep", "pipeline.bulk", "pipeline.orders"
#: What the scheduler's `pipeline` processes consume, and a Celery worker without `-Q`.
PIPELINE_QUEUES = (PIPELINE_QUEUE, SWEEP_QUEUE, BULK_QUEUE, ORDERS_QUEUE)
#: Celery's `task_routes` in vhost core; RUN_LANE goes to the queue of its wallet (`lane_queue`).
PIPELINE_ROUTES = {
    INGEST_DEALS: {"queue": PIPELINE_QUEUE},
    ADVANCE: {"queue": PIPELINE_QUEUE},
    ASSIGN: {"queue": PIPELINE_QUEUE},
    SWEEP: {"queue": SWEEP_QUEUE},
    TIDY: {"queue": PIPELINE_QUEUE},
    AUDIT: {"queue": PIPELINE_QUEUE},
    BULK: {"queue": BULK_QUEUE},
    ORDERS: {"queue": ORDERS_QUEUE},
}
DEAD_QUEUE = "dead"
#: Messages to be tried again, until their time to live ends; then they go to the queue that they came from.
RETRY_QUEUE = "pipeline.retry"
RETRY_EXCHANGE = Exchange("sluice.retry", "topic", durable=True)
#: Messages kept in `dead`, enough to see what happened; the oldest are dropped.
DEAD_LENGTH = 10_000
#: A confirmed message in a quorum queue survives a crash of the broker. Celery uses per-consumer prefetch if it finds
#: this argument.
QUEUE_TYPE = "x-queue-type"
QUORUM, CLASSIC = {QUEUE_TYPE: "quorum"}, {QUEUE_TYPE: "classic"}
#: The name of a worker machine's queue for work.
_COMPUTE_QUEUE = re.compile(r"w\.(0x[0-9a-f]{40})")
DEAD_LETTERS = {
    "x-delivery-limit": DELIVERY_LIMIT,
    "x-dead-letter-exchange": CORE_EXCHANGE.name,
    "x-dead-letter-routing-key": DEAD_QUEUE,
}


def lane_queue_name(wallet: Wallet) -> str:
    """Name of the queue for runs of one wallet's lane, in vhost core."""
    return f"lane.{wallet}"


def compute_queue_name(wallet: Wallet) -> str:
    """Name of a worker machine's queue for work, of its exchange, and of its Celery node."""
    return f"w.{wallet}"


def wallet_of_queue(name: str) -> Wallet | None:
    """The machine whose `compute_queue_name` this is; None for any other name."""
    found = _COMPUTE_QUEUE.fullmatch(name)
    return None if found is None else Wallet(found[1])


def tx_queue_name(wallet: Wallet) -> str:
    """Name of a worker machine's queue for reveal and abort, which must not wait for a container."""
    return f"w.{wallet}.tx"


def worker_queue_name(task: str, wallet: Wallet) -> str:
    """Name of the queue that a worker machine's task of this name goes to."""
    return tx_queue_name(wallet) if task in TX_TASKS else compute_queue_name(wallet)


def pipeline_queue() -> Queue:
    """The scheduler's main queue."""
    return Queue(PIPELINE_QUEUE, CORE_EXCHANGE, PIPELINE_QUEUE, queue_arguments=QUORUM | DEAD_LETTERS)


def wake_up_queue(name: str) -> Queue:
    """A queue for a task without arguments. It holds one message, since a second one would do the same again.

    A message that expires or is replaced is no failure, so it is not dead-lettered.
    """
    return Queue(name, CORE_EXCHANGE, name, queue_arguments=QUORUM | {"x-max-length": 1, "x-overflow": "drop-head"})


def pipeline_queues() -> list[Queue]:
    """The queues named in PIPELINE_QUEUES."""
    return [pipeline_queue(), *(wake_up_queue(name) for name in PIPELINE_QUEUES if name != PIPELINE_QUEUE)]


def retry_queue() -> Queue:
    """Holds each message for its time to live; RabbitMQ then publishes it to CORE_EXCHANGE with its old routing key."""
    arguments = QUORUM | {"x-dead-letter-exchange": CORE_EXCHANGE.name}
    return Queue(RETRY_QUEUE, RETRY_EXCHANGE, "#", queue_arguments=arguments)


def dead_queue() -> Queue:
    """Messages that were delivered DELIVERY_LIMIT times without success, for the operator. It has no consumer.

    A policy limits its length (`pipeline.broker.admin`), since a queue's arguments cannot be changed.
    """
    return Queue(DEAD_QUEUE, CORE_EXCHANGE, DEAD_QUEUE, queue_arguments=QUORUM)


def lane_queue(wallet: Wallet) -> Queue:
    """One wallet's lane: a single active consumer gives order and fail-over (exclusion is the store's job)."""
    name = lane_queue_name(wallet)
    return Queue(name, CORE_EXCHANGE, name, queue_arguments=QUORUM | DEAD_LETTERS | {"x-single-active-consumer": True})


def worker_exchange(wallet: Wallet) -> Exchange:
    """A worker's exchange, which the scheduler declares and writes to."""
    return Exchange(compute_queue_name(wallet), "direct", durable=True, no_declare=True)


def worker_queues(wallet: Wallet) -> tuple[Queue, Queue]:
    """A worker's two queues as its Celery processes see them (`no_declare`: it has no right to configure).

    As quorum queues, whatever they are: classic ones take the prefetch of a consumer too.
    """
    exchange = worker_exchange(wallet)
    compute, tx = compute_queue_name(wallet), tx_queue_name(wallet)
    return (
        Queue(compute, exchange, compute, no_declare=True, queue_arguments=QUORUM),
        Queue(tx, exchange, tx, no_declare=True, queue_arguments=QUORUM),
    )
