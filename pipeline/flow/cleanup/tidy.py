"""Removes RabbitMQ users and queues of machines that are long silent, old results, and records of deals that are long
over; keeps the ledger up to date.

A machine that comes back signs in again, because its password is refused, and gets new ones. Its row stays,
with what it has earned.
"""

from __future__ import annotations

from contextlib import closing
from functools import partial

import structlog

from config.connections.ipfs import Ipfs
from pipeline.broker.admin import BrokerAdmin
from pipeline.flow import isolate
from pipeline.flow.cleanup.keep_results import DAY, keep_results
from pipeline.flow.cleanup.retention import Retention
from pipeline.flow.money.ledger import WalletLedger
from pipeline.scheduler import Scheduler
from pipeline.store.machine.workers import Workers
from protocol.types import Wallet

log = structlog.get_logger(__name__)

#: Machines removed by one run; each takes some five requests to RabbitMQ. The rest is for the next run.
MACHINES = 200
#: Seconds that one run reads for the ledger; an older pool's past is read in several.
LEDGER_SECONDS = 10.0
#: Seconds that one run deletes records that are not kept any more; the rest is for the next one.
ENDED_SECONDS = 10.0


def tidy(scheduler: Scheduler) -> None:
    """Remove what is no longer needed, and bring the ledger up to date.

    Raises BrokerUnavailable, PyMongoError, after all of it was tried; the next run goes on.
    """
    steps = (_machines, _results, _ledger, _quarantine, _ended)
    isolate.all_of([partial(step, scheduler) for step in steps])


def remove_one_silent_machine(
    workers: Workers, broker: BrokerAdmin, wallet: Wallet, most: int | None, silent_before: float
) -> Wallet | None:
    """Keep the number of machines with a RabbitMQ user and queues at `most` when `wallet` signs in.

    If `most` others have them already, those of one machine are removed: a machine that was last seen before
    `silent_before` (Unix seconds) and holds no slot, newcomers first, then the one silent longest. Returns its wallet;
    None if fewer have them, or no machine is silent. Raises BrokerUnavailable.
    """
    if most is None or workers.count_with_queues(most, but=wallet) < most:
        return None
    for silent in workers.idle(silent_before, silent_before, 1)[:1]:
        broker.remove(silent)
        workers.mark_without_queues(silent, silent_before)
        log.info("A silent machine makes room for another.", action="room_made", wallet=silent)
        return silent
    return None


def _machines(scheduler: Scheduler) -> None:
    """Remove machines that have been away for long from RabbitMQ."""
    with BrokerAdmin.from_settings(scheduler.settings) as broker:
        remove_idle_machines(scheduler, broker)


def _results(scheduler: Scheduler) -> None:
    """Drop results from IPFS that nobody needs any more."""
    with closing(Ipfs(scheduler.settings.ipfs_api)) as ipfs:
        keep_results(scheduler.store, ipfs, scheduler.settings.keep_results_days, scheduler.clock())


def _ledger(scheduler: Scheduler) -> None:
    """Have the ledger catch up with the chain."""
    settings, wallet = scheduler.settings, scheduler.key.wallet
    WalletLedger.of(settings, scheduler.store, scheduler.hub, wallet, scheduler.clock).catch_up(LEDGER_SECONDS)


def _quarantine(scheduler: Scheduler) -> None:
    """Forget quarantined rows that were released."""
    scheduler.store.quarantine.forget_released(scheduler.clock())


def _ended(scheduler: Scheduler) -> None:
    """Delete what ended long ago."""
    # After the ledger, which tells up to which block its sums are proved.
    retention = Retention.of(scheduler)
    if retention is not None:
        retention.run(ENDED_SECONDS)


def remove_idle_machines(scheduler: Scheduler, broker: BrokerAdmin) -> int:
    """Remove the RabbitMQ users and queues of machines silent for too long; returns how many. Newcomers go after fewer
    days.

    Raises BrokerUnavailable.
    """
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
