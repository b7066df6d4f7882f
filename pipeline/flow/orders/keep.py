"""Keeps the pool's workerpool orders: reads policy, machines and chain, decides, acts, until nothing is left to do.

    beat, a machine that went or came, pause, drain, `sluice orders` ──► pipeline.orders ──► keep_orders

The order of reads: the orders' remaining volume, the waiting tasks, the machines, and the remaining volume again. A
task that is bought in between counts as bought when orders are withdrawn, and as not bought when orders are signed.
Nothing is signed while a deal of the blocks that were followed is still to be read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import structlog

from chain.contracts.hub import Hub
from chain.rpc.answers import Known
from config.metrics import ORDERS_OFFERED
from config.settings import Settings
from config.values.endpoints import secret_services
from config.values.order_policy import NO_OFFERS, OrderPolicy, read_policy
from pipeline.domain.condition.hearing import unheard_lately
from pipeline.domain.condition.holding import WITHDRAW_SECONDS
from pipeline.domain.orders.offers import Book, Supply, decide, offered
from pipeline.domain.orders.records import OrderAction, OrderRecord
from pipeline.domain.orders.spare_capacity import PoolTerms
from pipeline.domain.replicas import PROVEN_SECONDS
from pipeline.flow.assign import PASS_UNSERVED_SECONDS
from pipeline.flow.orders.actions import OrderActions
from pipeline.flow.unserved import can_be_taken_up
from pipeline.scheduler import Scheduler
from pipeline.store.client import Store
from protocol.errors import BadSetting, RpcError, RpcUnavailable
from protocol.poco.events import BlockRef
from protocol.types import BlockNumber, Contract

log = structlog.get_logger(__name__)

#: Rounds of one run: withdraw, unpublish, sign, publish, and one for what changed meanwhile.
ROUNDS = 5
#: Machines, and tasks that wait for one, that are read; while more tasks wait, nothing is offered.
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
    """Decide what is due about the pool's orders and do it, until nothing more is due. Called by the Celery task of the
    same name. Raises PyMongoError or an Unavailable; the next periodic message tries again.
    """
    store, settings = scheduler.store, scheduler.settings
    if settings.orders_file is None and not store.orders.not_ended():
        return
    actions = OrderActions(scheduler)
    try:
        for _ in range(ROUNDS):
            now = scheduler.clock()
            clock_agrees = scheduler.chain_time.read(now) is None
            view = read_view(
                settings, store, scheduler.hub, scheduler.workerpool, now, note=True, clock_agrees=clock_agrees
            )
            ORDERS_OFFERED.set(offered(view.book.orders))
            done = actions.do(view.decide(scheduler.clock()), view.book.orders, view.highest)
            # A deal is read within moments: that is no reason to wait for the clock.
            if not done and (view.supply.settled or view.policy is None or scheduler.begins().holds):
                break
    finally:
        actions.close()
    store.orders.forget_ended(scheduler.clock() - KEEP_SECONDS)


def read_view(
    settings: Settings,
    store: Store,
    hub: Hub,
    workerpool: Contract,
    now: float,
    *,
    note: bool = False,
    clock_agrees: bool = True,
) -> OrderView:
    """Read the orders, the policy, and what the pool can serve. Raises PyMongoError.

    `note`: store what the chain says of orders; `clock_agrees`: whether this machine's clock fits the chain's: by one
    that does not, every machine may seem silent.
    """
    policy, trouble = _policy(settings)
    highest, before = store.orders.highest_number(), store.chain.cursor()
    earlier = _seen(store.orders.not_ended(), hub, before)
    supply = _supply(settings, store, hub, workerpool, now, clock_agrees=clock_agrees)
    after = store.chain.cursor()
    orders = earlier if after == before else _seen(earlier, hub, after)
    if note:
        _note(store, orders)
    sold = {order.order_hash: order.consumed for order in earlier}
    steady = NO_OFFERS.steady_seconds if policy is None else policy.steady_seconds
    book = Book(
        (*orders, *store.orders.ended_since(now - steady)),
        held=store.orders.held(),
        block=BlockNumber(0) if after is None else after.number,
        finality=settings.finality_blocks,
        lately={order.order_hash: max(0, order.consumed - sold[order.order_hash]) for order in orders},
    )
    return OrderView(policy, replace(supply, settled=supply.settled and before is not None), book, highest, trouble)


def _policy(settings: Settings) -> tuple[OrderPolicy | None, str]:
    """The policy, or None and why its file cannot be read."""
    try:
        return read_policy(settings.orders_file, enclaves=secret_services(settings).keys()), ""
    except BadSetting as error:
        log.warning("The policy of orders cannot be read: nothing is signed.", action="orders_policy", why=str(error))
        return None, str(error)


def _seen(orders: Sequence[OrderRecord], hub: Hub, at: BlockRef | None) -> list[OrderRecord]:
    """The orders with what the chain says of them at this block; as they are where that is not known."""
    if at is None or not orders:
        return [*orders]
    try:
        answers = hub.consumed([order.order_hash for order in orders], at)
    except (RpcUnavailable, RpcError) as error:
        log.warning("What is sold of the orders is not known.", action="orders_consumed", why=str(error))
        return [*orders]
    return [
        _with_consumed(order, answer.value, at) if isinstance(answer, Known) else order
        for order, answer in zip(orders, answers, strict=True)
    ]


def _with_consumed(order: OrderRecord, consumed: int, at: BlockRef) -> OrderRecord:
    """The order with what the chain shows as consumed of it."""
    spent = (order.spent_block or at.number) if consumed >= order.order.volume else None
    return replace(order, consumed=consumed, spent_block=spent)


def _note(store: Store, orders: Sequence[OrderRecord]) -> None:
    """Store what the chain says of these orders, where that is new."""
    stored = {order.order_hash: order for order in store.orders.not_ended()}
    for order in orders:
        known = stored.get(order.order_hash)
        if known is not None and (known.consumed, known.spent_block) != (order.consumed, order.spent_block):
            store.orders.store_consumed(order.order_hash, order.consumed, order.spent_block)


def _supply(
    settings: Settings, store: Store, hub: Hub, workerpool: Contract, now: float, *, clock_agrees: bool
) -> Supply:
    """What the pool can serve: first whether all deals are read, then what waits, then who could take it."""
    settled = not store.deals.deals_to_ingest(1) and not store.tasks.any_undecided(now)
    # Those too that were passed over lately, since nobody could take them.
    waiting = store.tasks.tasks_wanting_workers(now + PASS_UNSERVED_SECONDS, WAITING)
    # What is sold while the pool holds would wait with all else.
    settled = settled and len(waiting) < WAITING and store.hold.state() is None
    # What nobody can serve takes no capacity from what is offered.
    waiting = [task for task in waiting if not task.unserved]
    silence = settings.worker_lost_seconds
    machines, silent = store.census.able(now - silence, now, MACHINES), []
    if not clock_agrees or unheard_lately(store.sweeps.hearing(), now, silence, settings.sweep_seconds):
        heard = {machine.wallet for machine in machines}
        silent = [machine for machine in store.census.able(0.0, now, MACHINES) if machine.wallet not in heard]
    settled = settled and not can_be_taken_up(store, secret_services(settings), [*machines, *silent])
    return Supply(
        tuple(machines),
        tuple(waiting),
        _terms(hub, workerpool),
        settled=settled,
        paused=store.pause.state() is not None,
        outage=store.hold.has_held(WITHDRAW_SECONDS),
        silent=tuple(silent),
        newcomers_decide=not store.workers.any_proven(now - PROVEN_SECONDS),
    )


def _terms(hub: Hub, workerpool: Contract) -> PoolTerms | None:
    """The pool's terms on chain; None while the node does not answer."""
    try:
        found = hub.workerpool(workerpool)
        return PoolTerms(hub.account(found.owner).stake, found.worker_stake_ratio)
    except (RpcUnavailable, RpcError) as error:
        log.warning("The pool's stake is not known: nothing is signed.", action="orders_terms", why=str(error))
        return None
