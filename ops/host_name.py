"""Whether another scheduler uses this one's name: two Celery workers of one name end each other's remote control in an
endless loop of reconnections.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Any

from amqp.exceptions import NotFound, ResourceLocked
from celery import Celery

from config.celery_apps import core_app, node_name
from config.settings import Settings
from pipeline.broker.link import BROKER_ERRORS
from protocol.errors import SchedulerNotReady

#: The scheduler's processes that are Celery workers.
WORKERS = ("pipeline", "lane")
#: Seconds for RabbitMQ to answer, and between two questions.
ANSWER_SECONDS, PAUSE_SECONDS = 5.0, 1.0


def require_free_name(settings: Settings, wanted: Collection[str], wait: float) -> None:
    """Raise SchedulerNotReady if a Celery worker with one of our node names is still connected to RabbitMQ after `wait`
    seconds.

    `wanted`: names of the processes to run. RabbitMQ notices within seconds that a killed process is gone, and within
    minutes that a machine is.
    """
    names = [node_name(name, settings.host_name) for name in WORKERS if name in wanted]
    app, end = core_app(settings), time.monotonic() + wait
    while taken := taken_names(app, names):
        left = end - time.monotonic()
        if left <= 0:
            raise SchedulerNotReady(
                why=f"A Celery worker {taken[0]} is connected to this RabbitMQ already: a scheduler by this name runs."
                " Stop it or, if it is of another host of the same pool, give this one a name of its own:"
                " SLUICE_HOST_NAME."
            )
        time.sleep(min(PAUSE_SECONDS, left))


def taken_names(app: Celery, names: Collection[str]) -> list[str]:
    """The node names by which a Celery worker is connected now; none if RabbitMQ does not answer."""
    taken = []
    try:
        with app.connection_for_write(connect_timeout=ANSWER_SECONDS) as connection:
            for name in names:
                try:
                    # Celery's queue for remote control, which only the connection that declared it may use.
                    channel: Any = connection.channel()
                    channel.queue_declare(f"{name}.celery.pidbox", passive=True)
                except ResourceLocked:
                    taken.append(name)
                except NotFound:
                    continue
    except BROKER_ERRORS:
        return []
    return taken
