"""The Celery chains that a worker machine carries out, and the queue of each of their tasks.

    compute ─► contribute                         vote          w.<wallet> ─► w.<wallet>.tx
    compute ─► upload ─► contribute_and_finalize  alone         w.<wallet> ─► w.<wallet> ─► w.<wallet>.tx
    reveal ─► upload                              a winner that is to upload too
    reveal                                        any other winner
    upload                                        a winner that is asked for the result later

The scheduler publishes whole chains (`pipeline.broker.segments`), a machine the rest of one (`workers.pool.broker`).

Every signature names exchange and routing key, so `task_routes` cannot do it: Celery publishes the next link of a
signature that has a queue's name through the default exchange, which a worker may not write to; and the scheduler's app
knows no queue of a worker.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from celery import Celery, Signature

from config import topology
from config.topology import COMPUTE, CONTRIBUTE, CONTRIBUTE_AND_FINALIZE, REVEAL, UPLOAD
from protocol.types import TaskId, Wallet
from protocol.wire import Assignment, Mode

Links = tuple[Signature[Any], ...]

#: From an assignment to what is on chain.
ASSIGNED: dict[Mode, tuple[str, ...]] = {
    Mode.VOTE: (COMPUTE, CONTRIBUTE),
    Mode.SOLO: (COMPUTE, UPLOAD, CONTRIBUTE_AND_FINALIZE),
}


def compute(app: Celery, assignment: Assignment) -> Links:
    """All that an assignment asks for."""
    return links(app, Wallet(assignment.wallet), ASSIGNED[assignment.mode], assignment.model_dump(mode="json"))


def rest(app: Celery, wallet: Wallet, task: TaskId, mode: Mode, first: str) -> Links:
    """What follows on `compute` in the chain of an assignment, from the task `first` on."""
    names = ASSIGNED[mode]
    return links(app, wallet, names[names.index(first) :], task)


def reveal(app: Celery, wallet: Wallet, task: TaskId, *, upload: bool) -> Links:
    """Reveal a vote, and then `upload` the result."""
    return links(app, wallet, (REVEAL, UPLOAD) if upload else (REVEAL,), task)


def links(app: Celery, wallet: Wallet, names: Sequence[str], *args: object) -> Links:
    """These tasks in this order. `args` are the first one's; each other one gets what the one before it returns."""
    exchange = topology.compute_queue_name(wallet)
    return tuple(
        app.signature(
            name,
            args=() if place else args,
            exchange=exchange,
            routing_key=topology.worker_queue_name(name, wallet),
        )
        for place, name in enumerate(names)
    )
