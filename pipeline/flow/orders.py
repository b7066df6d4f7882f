"""Keeps the pool's workerpool orders: reads policy, machines and chain, decides, acts, until nothing is left to do.

    beat, a machine that went or came, pause, drain, `sluice orders` ──► pipeline.orders ──► keep_orders

What is sold is read before what is free, and both between two looks at the watcher's block: a task is never counted as
free room and as sold at the same time, and nothing is signed while a deal of those blocks is still to be read.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import structlog

from chain.contracts.hub import Hub
from chain.rpc.answers import Known
from config.metrics import ORDERS_OFFERED
from config.order_policy import NO_OFFERS, OrderPolicy, read_policy
from config.settings import Settings
from pipeline.domain.offers import Book, Supply, decide, offered
from pipeline.domain.order_records import OrderAction, OrderRecord
from pipeline.domain.order_room import PoolTerms
from pipeline.flow.assign import PASS_UNSERVED_SECONDS
from pipeline.flow.order_actions import OrderActions
from pipeline.scheduler import Scheduler
from pipeline.store.client import Store
from protocol.errors import BadSetting, RpcError, RpcUnavailable
from protocol.poco.events import BlockRef
from protocol.types import BlockNumber, Contract

log = structlog.get_logger(__name__)

#: Rounds of one run: withdraw, unpublish, sign, publish, and one for what changed meanwhile.
ROUNDS = 5
#: Machines, and tasks that wait for one, that are looked at; while more tasks wait, nothing is offered.
MACHINES, WAITING = 10_000, 5_000
#: Seconds for which an order that has ended is kept to be shown.
KEEP_SECONDS = 30 * 86400.0


@dataclass(frozen=True, slots=True)
class OrderView:
    """All that an order is decided from. `trouble`: why the policy's file cannot be read."""

    policy: OrderPolicy | None
    supply: Supply
    book: Book
    highest: int
    trouble: str = ""

    def decide(self, now: float) -> list[OrderAction]:
        """What is to be done now (Unix seconds)."""
        return decide(self.policy, self.supply, self.book, now)


def keep_orders(scheduler: Scheduler) -> None:
    """One run. Raises PyMongoError or an Unavailable; the clock starts the next one."""
    store, settings = scheduler.store, scheduler.settings
    if settings.orders_file is None and not store.orders.not_ended():
        return
    actions = OrderActions(scheduler)
    try:
        for _ in range(ROUNDS):
            view = read_view(settings, store, scheduler.hub, scheduler.workerpool, scheduler.clock(), note=True)
            ORDERS_OFFERED.set(offered(view.book.orders))
            done = actions.do(view.decide(scheduler.clock()), view.book.orders, view.highest)
            # A block that came while the pool was read is no reason to wait for the clock.
            if not done and (view.supply.settled or view.policy is None):
                break
    finally:
        actions.close()
    store.orders.forget_ended(scheduler.clock() - KEEP_SECONDS)


def read_view(
    settings: Settings, store: Store, hub: Hub, workerpool: Contract, now: float, *, note: bool = False
) -> OrderView:
    """What there is now. `note`: store what the chain says of orders. Raises PyMongoError."""
    policy, trouble = _policy(settings)
    before = store.chain.cursor()
    highest = store.orders.highest_number()
    orders = []
    for order, consumed in _consumed(store, hub, before):
        seen = _seen(order, consumed, before)
        if note and seen != order:
            store.orders.store_consumed(order.order_hash, seen.consumed, seen.spent_block)
        orders.append(seen)
    steady = NO_OFFERS.steady_seconds if policy is None else policy.steady_seconds
    book = Book(
        (*orders, *store.orders.ended_since(now - steady)),
        held=store.orders.held(),
        block=BlockNumber(0) if before is None else before.number,
        finality=settings.finality_blocks,
    )
    return OrderView(policy, _supply(settings, store, hub, workerpool, before, now), book, highest, trouble)


def _policy(settings: Settings) -> tuple[OrderPolicy | None, str]:
    """The policy, or None and why its file cannot be read."""
    try:
        return read_policy(settings.orders_file), ""
    except BadSetting as error:
        log.warning("The policy of orders cannot be read: nothing is signed.", action="orders_policy", why=str(error))
        return None, str(error)


def _consumed(store: Store, hub: Hub, at: BlockRef | None) -> list[tuple[OrderRecord, int | None]]:
    """The orders that have not ended, each with its used volume as of the watcher's block, where the node tells it."""
    orders = store.orders.not_ended()
    if at is None or not orders:
        return [(order, None) for order in orders]
    try:
        answers = hub.consumed([order.order_hash for order in orders], at)
    except (RpcUnavailable, RpcError) as error:
        log.warning("What is sold of the orders is not known.", action="orders_consumed", why=str(error))
        return [(order, None) for order in orders]
    return [
        (order, answer.value if isinstance(answer, Known) else None)
        for order, answer in zip(orders, answers, strict=True)
    ]


def _seen(order: OrderRecord, consumed: int | None, at: BlockRef | None) -> OrderRecord:
    """The order with what the chain says of it at this block; as it is while that is not known."""
    if consumed is None or at is None:
        return order
    spent = (order.spent_block or at.number) if consumed >= order.order.volume else None
    return replace(order, consumed=consumed, spent_block=spent)


def _supply(
    settings: Settings, store: Store, hub: Hub, workerpool: Contract, before: BlockRef | None, now: float
) -> Supply:
    """What the pool can serve. `before`: the watcher's block when the orders were read."""
    unread = bool(store.deals.deals_to_ingest(1))
    # Those too that were passed over lately, since nobody could take them.
    waiting = store.tasks.tasks_wanting_workers(now + PASS_UNSERVED_SECONDS, WAITING)
    settled = not unread and len(waiting) < WAITING and not store.tasks.any_undecided(now)
    machines = store.census.able(now - settings.worker_lost_seconds, now, MACHINES)
    paused = store.pause.state() is not None
    terms = _terms(hub, workerpool)
    after = store.chain.cursor()
    settled = settled and before is not None and after is not None and after.number == before.number
    return Supply(tuple(machines), tuple(waiting), terms, settled=settled, paused=paused)


def _terms(hub: Hub, workerpool: Contract) -> PoolTerms | None:
    """The pool's terms on chain; None while the node does not tell."""
    try:
        found = hub.workerpool(workerpool)
        return PoolTerms(hub.account(found.owner).stake, found.worker_stake_ratio)
    except (RpcUnavailable, RpcError) as error:
        log.warning("The pool's stake is not known: nothing is signed.", action="orders_terms", why=str(error))
        return None
