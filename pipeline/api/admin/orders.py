"""Routes of the pool's workerpool orders: what is offered, what would be done, offer again, cancel.

This process signs and sends nothing: it stores what the operator wants and starts the task that keeps the orders.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated

import structlog
from fastapi import APIRouter, Query

from chain.contracts import calls
from chain.contracts.hub import Hub
from chain.lane.model.intent import IntentState, LaneId
from chain.lane.model.nonce import Fees
from chain.lane.model.policy import LanePolicy
from chain.lane.phases.snapshot import take_snapshot
from chain.lane.rules.fees import quote
from chain.lane.store.mongo import MongoStore
from chain.lane.transfer import highest_cost
from pipeline.api.admin.access import Operator, Reader
from pipeline.api.admin.answers.orders import (
    CancelledOrders,
    OrderLine,
    OrdersCancelled,
    OrdersPlan,
    OrdersShow,
    PlannedAction,
)
from pipeline.api.admin.answers.pool import Changed
from pipeline.api.admin.pool import DryRun
from pipeline.api.services import Services
from pipeline.domain.orders.offers import offered
from pipeline.domain.orders.records import (
    Close,
    OrderAction,
    OrderRecord,
    OrderStage,
    Sign,
    Withdraw,
    Withdrawal,
)
from pipeline.flow.orders.actions import close_intent
from pipeline.flow.orders.keep import OrderView, read_view
from pipeline.store.client import database
from protocol.amounts import ether
from protocol.errors import BadMessage, NotFound, RpcError, RpcUnavailable
from protocol.types import Wei

log = structlog.get_logger(__name__)
router = APIRouter()

#: Orders in one answer.
MOST_LINES = 1000
#: Actions by the names that people read.
_NAMES = {"Sign": "sign", "Publish": "publish", "Withdraw": "withdraw", "Unpublish": "unpublish", "Close": "close"}


@router.get("/orders", summary="The pool's workerpool orders")
def list_orders(
    services: Reader,
    ended: Annotated[bool, Query(description="Those too from which nobody can buy any more.")] = False,
    limit: Annotated[int, Query(ge=1, le=MOST_LINES, description="Lines at most.")] = 100,
) -> OrdersShow:
    """The newest first, each with what is left of it and what the market said."""
    view, orders = _view(services), services.store.orders
    found = orders.newest(limit) if ended else sorted(orders.not_ended(), key=lambda order: -order.number)[:limit]
    seen = {order.order_hash: order for order in view.book.orders}
    return OrdersShow(
        market=None if view.policy is None else view.policy.market,
        trouble=view.trouble,
        held=view.book.held,
        paused=view.supply.paused,
        offered=offered(view.book.orders),
        orders=[_line(services, seen.get(order.order_hash, order)) for order in found],
    )


@router.get("/orders/plan", summary="What would be done about the orders now")
def plan(services: Reader) -> OrdersPlan:
    """What the pool would do about its orders now, by the function that decides it. Changes nothing."""
    view = _view(services)
    return OrdersPlan(
        market=None if view.policy is None else view.policy.market,
        trouble=view.trouble,
        held=view.book.held,
        paused=view.supply.paused,
        machines=len(view.supply.machines),
        free_slots=sum(machine.free for machine in view.supply.machines),
        waiting_tasks=len(view.supply.waiting),
        settled=view.supply.settled,
        stake_nrlc=None if view.supply.terms is None else view.supply.terms.stake,
        offered=offered(view.book.orders),
        actions=_planned(services, view, view.decide(services.clock())),
    )


@router.post("/orders/publish", summary="Offer what the policy says, now")
def publish(services: Operator, dry_run: DryRun = False) -> Changed:
    """Ends a cancellation of all offers, and has the orders decided without waiting for the clock."""
    view = _view(services)
    if not dry_run:
        services.store.orders.release()
        services.notifier.send_orders()
        log.info("The pool offers work.", action="orders_released")
    return Changed(changed=view.book.held, dry_run=dry_run, says=_published(view))


def _published(view: OrderView) -> str:
    """The sentence about what the pool will do with its offers once they are published again."""
    if view.trouble:
        return f"The policy cannot be read, and nothing is signed. {view.trouble}"
    if view.policy is None or view.policy.market is None:
        return "No market is set in SLUICE_ORDERS_FILE: nothing is offered."
    if view.supply.paused:
        return "The pool is paused: nothing is offered until `sluice pool resume`."
    return "The pool offers what its policy says." if view.book.held else "The offers are looked at now."


@router.post("/orders/cancel", summary="Cancel orders")
def cancel(services: Operator, wanted: CancelledOrders, dry_run: DryRun = False) -> OrdersCancelled:
    """Withdraw orders: they are unpublished, and closed on chain if somebody may have a copy. One that is named is
    replaced by what the policy says; with `all`, nothing is offered until `publish`.
    """
    if bool(wanted.orders) == wanted.all:
        raise BadMessage(why="give hashes of orders, or `all`")
    view = _view(services)
    chosen = [order for order in view.book.orders if order.live]
    if not wanted.all:
        known = {order.order_hash for order in services.store.orders.newest(MOST_LINES)}
        unknown = [order_hash for order_hash in wanted.orders if order_hash not in known]
        if unknown:
            raise NotFound(what=f"order {unknown[0]}")
        chosen = [order for order in chosen if order.order_hash in wanted.orders]
    closes = [order for order in chosen if order.shown and order.remaining and _closes_on_chain(view)]
    cost = _cost(services, closes)
    held = wanted.all and not view.book.held
    if not dry_run:
        if wanted.all:
            services.store.orders.hold(services.clock())
        for order in chosen:
            services.store.orders.withdraw(order.order_hash, Withdrawal.OPERATOR, services.clock())
        services.notifier.send_orders()
        log.info("Orders are cancelled.", action="orders_cancelled", orders=len(chosen), all=wanted.all)
    until = " Nothing is offered until `sluice orders publish`." if wanted.all else ""
    return OrdersCancelled(
        changed=bool(chosen) or held,
        dry_run=dry_run,
        says=f"Orders cancelled: {len(chosen)}{_for(len(closes), cost)}.{until}",
        orders=[order.order_hash for order in chosen],
        closes=len(closes),
        cost_wei=cost,
    )


def _for(closes: int, cost: Wei | None) -> str:
    """What closing so many orders on chain costs, as the end of a sentence; empty if there is nothing to close."""
    if not closes:
        return ""
    price = "whose price the node does not tell now" if cost is None else f"at most {ether(cost)} of the native token"
    return f", {closes} of them on chain too, for gas: {price}"


def _view(services: Services) -> OrderView:
    """The pool's orders beside policy, supply and market, as the process that keeps them sees them."""
    hub = Hub(services.rpc, services.pool.hub)
    return read_view(services.settings, services.store, hub, services.pool.workerpool, services.clock())


def _closes_on_chain(view: OrderView) -> bool:
    """Whether withdrawn orders are also closed by a transaction."""
    return view.policy is None or view.policy.close_on_chain


def _planned(services: Services, view: OrderView, actions: Sequence[OrderAction]) -> list[PlannedAction]:
    """The actions as lines. An order that ended by itself is left out: nobody acts on it."""
    known = {order.order_hash: order for order in view.book.orders}
    found = []
    for action in actions:
        name = _NAMES.get(type(action).__name__)
        if name is None:
            continue
        if isinstance(action, Sign):
            line = PlannedAction(
                action=name,
                order_hash=None,
                category=action.category,
                trust=action.trust,
                tag=action.tag,
                price_nrlc=action.price,
                volume=action.volume,
                why=None,
                cost_wei=None,
            )
        else:
            order = known[action.order_hash]
            gas = isinstance(action, Close)
            if isinstance(action, Withdraw):
                gas = order.shown and order.remaining > 0 and _closes_on_chain(view)
            line = PlannedAction(
                action=name,
                order_hash=order.order_hash,
                category=order.order.category,
                trust=order.order.trust,
                tag=order.order.tag,
                price_nrlc=order.order.workerpoolprice,
                volume=order.remaining,
                why=str(action.why) if isinstance(action, Withdraw) else None,
                cost_wei=_cost(services, [order]) if gas else None,
            )
        found.append(line)
    return found


def _cost(services: Services, orders: Iterable[OrderRecord]) -> Wei | None:
    """Wei that closing these orders costs at most; None while the node does not tell."""
    calldata = [calls.close_workerpool_order(order.order.abi_tuple()) for order in orders]
    if not calldata:
        return Wei(0)
    wallet = services.pool.scheduler
    try:
        offer: Fees = quote(LanePolicy.of(services.settings).fees, take_snapshot(services.rpc, wallet, None).market)
        # They are equally long, so one tells for all.
        gas = calls.gas_limit("manageWorkerpoolOrder", calldata[0])
        return Wei(len(calldata) * highest_cost(services.rpc, wallet, calldata[0], gas, offer))
    except (RpcUnavailable, RpcError):
        return None


def _line(services: Services, order: OrderRecord) -> OrderLine:
    """An order as the operator's API shows it."""
    state, tx, fee = _close(services, order)
    return OrderLine(
        order_hash=order.order_hash,
        number=order.number,
        stage=str(order.stage),
        category=order.order.category,
        trust=order.order.trust,
        tag=order.order.tag,
        price_nrlc=order.order.workerpoolprice,
        volume=order.order.volume,
        remaining=order.remaining,
        market=order.market,
        signed_at=order.signed_at,
        shown=order.shown,
        listed=order.listed,
        why=None if order.why is None else str(order.why),
        withdrawn_at=order.withdrawn_at,
        says=order.says,
        retry_at=order.retry_at,
        close=state,
        close_tx=tx,
        close_fee_wei=fee,
    )


def _close(services: Services, order: OrderRecord) -> tuple[str | None, str | None, int | None]:
    """How far the order's close on chain is, its transaction, and its fee in wei."""
    if order.stage not in (OrderStage.WITHDRAWN, OrderStage.ENDED) or not order.shown:
        return None, None, None
    lane, store = LaneId(services.settings.chain_id, services.pool.scheduler), MongoStore(database(services.settings))
    intent = close_intent(order, lane.chain_id, lane.wallet)
    known = next(iter(store.intents([intent.key])), None)
    if known is None:
        return None, None, None
    record = store.holding(lane, intent.key)
    mined = None if record is None else record.mined
    if mined is not None:
        return str(known.state), mined.tx_hash, mined.fee
    why = known.reason if known.state in (IntentState.QUEUED, IntentState.FAILED) else ""
    return f"{known.state}: {why}" if why else str(known.state), None, None
