"""Carries out what an audit can repair; each repair is a step that the scheduler knows anyway, done at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing

import structlog
from pymongo.errors import PyMongoError

from chain.watch.audit import replay
from config.connections.ipfs import Ipfs
from pipeline.broker.admin import BrokerAdmin
from pipeline.domain.audit.findings import (
    Difference,
    FreeSlot,
    KeepResult,
    LookAgain,
    ReadDeal,
    ReadEvents,
    RemoveUser,
    Repair,
    SignInAgain,
)
from pipeline.flow.audit.run import watcher_of
from pipeline.scheduler import Scheduler
from protocol.errors import RpcError, Unavailable, WrongChain

log = structlog.get_logger(__name__)

#: Results that the IPFS node may fail to pin, each after 20 s perhaps, before no more are tried.
FAILURES = 3


def repair(scheduler: Scheduler, found: Sequence[Difference]) -> list[Difference]:
    """Repair what can be repaired; returns the differences that remain. A repair that a server refuses is logged.

    Tasks and deals are repaired by the scheduler's next steps, so it must run, or be started.
    """
    steps: tuple[tuple[type[Repair], Callable[[Scheduler, Sequence[Repair]], None]], ...] = (
        (ReadEvents, _read_events),
        (ReadDeal, _read_deals),
        (FreeSlot, _free_slots),
        (LookAgain, _look_again),
        (RemoveUser, _remove_users),
        (SignInAgain, _sign_in_again),
        (KeepResult, _keep_results),
    )
    left = {item for item in found if item.repair is None}
    for kind, step in steps:
        concerned = [item for item in found if isinstance(item.repair, kind)]
        try:
            if concerned:
                step(scheduler, [item.repair for item in concerned if item.repair is not None])
        except (Unavailable, RpcError, WrongChain, PyMongoError) as error:
            log.warning("Not repaired now.", action="audit_not_repaired", kind=concerned[0].kind, why=str(error))
            left.update(concerned)
    return [item for item in found if item in left]


def _read_events(scheduler: Scheduler, repairs: Sequence[Repair]) -> None:
    """Replay from the first block concerned; its tasks and deals are marked for the sweep by that."""
    store = scheduler.store.chain
    cursor, first = store.cursor(), min(each.first for each in repairs if isinstance(each, ReadEvents))
    if cursor is not None:
        for _ in replay(watcher_of(scheduler), store, first, cursor.number):
            # Each step is repaired when it is yielded.
            continue


def _read_deals(scheduler: Scheduler, repairs: Sequence[Repair]) -> None:
    """Have deals read from the chain again."""
    deals = [each.deal for each in repairs if isinstance(each, ReadDeal)]
    scheduler.store.deals.read_again(deals)
    scheduler.notifier.send_ingest(deals)


def _free_slots(scheduler: Scheduler, repairs: Sequence[Repair]) -> None:
    """Give slots back that no task needs."""
    scheduler.store.workers.release([(each.wallet, each.task) for each in repairs if isinstance(each, FreeSlot)])


def _look_again(scheduler: Scheduler, repairs: Sequence[Repair]) -> None:
    """Have the sweep decide about tasks as if nothing had been submitted for them."""
    tasks = [each.task for each in repairs if isinstance(each, LookAgain)]
    scheduler.store.tasks.forget_sent(tasks)
    scheduler.notifier.send_advance(tasks)


def _remove_users(scheduler: Scheduler, repairs: Sequence[Repair]) -> None:
    """Remove RabbitMQ users without a machine, but not one whose machine has signed in meanwhile."""
    wanted = set(scheduler.store.workers.with_queues())
    with BrokerAdmin.from_settings(scheduler.settings) as broker:
        for each in repairs:
            if isinstance(each, RemoveUser) and each.wallet not in wanted:
                broker.remove(each.wallet)


def _sign_in_again(scheduler: Scheduler, repairs: Sequence[Repair]) -> None:
    """End tokens, so that machines sign in again and get their queues anew."""
    for each in repairs:
        if isinstance(each, SignInAgain):
            scheduler.store.workers.end_tokens(each.wallet, scheduler.clock())


def _keep_results(scheduler: Scheduler, repairs: Sequence[Repair]) -> None:
    """Pin results, each even if another fails. Raises the first StorageUnavailable in the end."""
    failed: list[Unavailable] = []
    with closing(Ipfs(scheduler.settings.ipfs_api)) as ipfs:
        for each in repairs:
            if not isinstance(each, KeepResult) or len(failed) == FAILURES:
                continue
            try:
                ipfs.pin(each.cid)
            except Unavailable as error:
                failed.append(error)
    if failed:
        raise failed[0]
