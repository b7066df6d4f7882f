"""Removes what nobody needs any more: RabbitMQ users and queues of machines that are long silent.

A machine that comes back signs in again and has them again: its password is refused by then, at which it signs in by
itself. Its row stays, with what it has earned.
"""

from __future__ import annotations

import structlog

from pipeline.broker.admin import BrokerAdmin
from pipeline.scheduler import Scheduler

log = structlog.get_logger(__name__)

#: Machines removed by one run; each takes some five requests to RabbitMQ. The rest is for the next run.
MACHINES = 200
DAY = 24 * 3600.0


def tidy(scheduler: Scheduler) -> None:
    """One run. Raises BrokerUnavailable, PyMongoError; the next run goes on."""
    with BrokerAdmin.from_settings(scheduler.settings) as broker:
        remove_idle_machines(scheduler, broker)


def remove_idle_machines(scheduler: Scheduler, broker: BrokerAdmin) -> int:
    """Remove users and queues of machines silent for too long; returns how many. Raises BrokerUnavailable."""
    settings, workers, now = scheduler.settings, scheduler.store.workers, scheduler.clock()
    newcomers_before, before = now - settings.newcomer_idle_days * DAY, now - settings.worker_idle_days * DAY
    newcomers_before = max(newcomers_before, before)
    removed = 0
    for wallet in workers.idle(newcomers_before, before, MACHINES):
        # First the broker: a crash in between makes the next run do it again. A machine that comes back meanwhile is
        # refused by the broker and signs in once more.
        broker.remove(wallet)
        removed += workers.mark_without_queues(wallet, newcomers_before)
    if removed:
        log.info("Silent machines have no queues any more.", action="idle_removed", machines=removed)
    return removed
