"""Which workerpool orders to sign, publish, withdraw and close, from the policy and what live machines can serve. Pure.

    order of the policy, and machines can serve all that is left of it ──► published
    otherwise                                                          ──► withdrawn ─► unpublished, closed on chain
    capacity beside all orders that somebody can still buy from        ──► a new order, shared among the offers

Withdrawing does not wait: with the last machine, every order goes; but no machine counts as gone for a silence in which
none could be heard (`pipeline.domain.condition.hearing`). Signing waits: for the blocks that the watcher follows, for
what was withdrawn to be closed on chain, and `steady_seconds` after an order of the same offer, so that machines that
come and go make no flood of orders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from config.values.order_policy import Offer, OrderPolicy
from pipeline.domain.orders.records import (
    Close,
    End,
    OrderAction,
    OrderRecord,
    OrderStage,
    Publish,
    Recheck,
    Sign,
    Unpublish,
    Withdraw,
    Withdrawal,
)
from pipeline.domain.orders.spare_capacity import Demand, PoolTerms, SpareCapacity
from pipeline.domain.records import TaskRecord, WorkerRecord
from protocol.poco.money import pool_stake
from protocol.poco.orders import WorkerpoolOrder
from protocol.types import ZERO_ADDRESS, ZERO_HASH, BlockNumber, Hash32, NRlc

#: Orders on the market at a time, of the 50 that it takes of a wallet: the rest is for orders signed by hand.
MOST_LIVE = 40
#: Order of actions: those that need no market first, and withdrawals before new offers.
_URGENCY: tuple[type[OrderAction], ...] = (Withdraw, Close, End, Unpublish, Sign, Publish, Recheck)
#: Parts into which the capacity is divided to be shared out among the offers.
PARTS = 50


@dataclass(frozen=True, slots=True)
class Supply:
    """What the pool can serve, as it was read."""

    #: Machines that could be given a task now, with or without a free slot.
    machines: tuple[WorkerRecord, ...]
    #: Tasks that are sold and wait for a machine.
    waiting: tuple[TaskRecord, ...] = ()
    #: None while the node does not answer.
    terms: PoolTerms | None = None
    #: Whether every deal of the blocks that were followed before is among the tasks. Only then is anything new signed.
    settled: bool = True
    paused: bool = False
    #: Whether the pool holds, and has for so long that what is bought now may never be computed.
    outage: bool = False
    #: Machines that would be among them but for a silence in which none could be heard. What is offered stays for them.
    silent: tuple[WorkerRecord, ...] = ()
    #: Whether no machine that was right on chain was heard of for so long that newcomers decide tasks of any trust.
    newcomers_decide: bool = False

    def capacity(self, *, silent: bool = False) -> SpareCapacity:
        """The capacity beside what is sold; `silent`: also of the silent machines."""
        machines = (*self.machines, *self.silent) if silent else self.machines
        return SpareCapacity.beside(machines, self.waiting, newcomers_decide=self.newcomers_decide)


@dataclass(frozen=True, slots=True)
class Book:
    """The pool's orders, and what holds for all of them. `orders`: with those that ended lately."""

    orders: tuple[OrderRecord, ...] = ()
    #: Whether an operator cancelled all offers, until `sluice orders publish`.
    held: bool = False
    #: The last block that the watcher followed, and after how many more a block is final.
    block: BlockNumber = BlockNumber(0)  # noqa: RUF009 - a NewType call has no state
    finality: int = 0
    #: Tasks that were bought of an order while the pool was read. Whether they are among those that wait is not known:
    #: when something new is signed, they count as not bought yet.
    lately: Mapping[Hash32, int] = field(default_factory=dict)

    def left(self, order: OrderRecord) -> int:
        """Tasks of the order that still need capacity when a new order is signed: those not bought yet, and those
        bought so lately that they may not be among the waiting tasks.
        """
        return order.remaining + self.lately.get(order.order_hash, 0)


def decide(policy: OrderPolicy | None, supply: Supply, book: Book, now: float) -> list[OrderAction]:
    """What to do now, the most urgent first; withdrawals alone, if there are any. `policy`: None while its file cannot
    be read: nothing is signed then, and orders are withdrawn only for lack of machines. `now`: Unix seconds.
    """
    withdrawn = _withdrawals(policy, supply, book, now)
    if withdrawn:
        return [*withdrawn]
    found: list[OrderAction] = []
    for order in book.orders:
        if order.stage is not OrderStage.ENDED:
            found += _next_step(policy, order, book, now)
    if policy is not None:
        found += _signatures(policy, supply, book, now)
    return sorted(found, key=lambda action: _URGENCY.index(type(action)))


def offered(orders: Sequence[OrderRecord]) -> int:
    """Tasks that can be bought with the orders that the pool wants to be bought."""
    return sum(order.remaining for order in orders if order.live)


def _withdrawals(policy: OrderPolicy | None, supply: Supply, book: Book, now: float) -> list[Withdraw]:
    """Orders that must not be offered any more."""
    capacity, found = supply.capacity(silent=True), []
    ratio = supply.terms.worker_stake_ratio if supply.terms is not None else 0
    # The oldest first: a smaller order that was signed for what is left stays.
    for order in sorted((each for each in book.orders if each.live and each.remaining), key=lambda each: each.number):
        why = _why_not(policy, order, supply, book, now)
        if why is None and not capacity.fits(Demand.of(order.order, ratio), order.remaining):
            why = Withdrawal.CAPACITY
        if why is not None:
            found.append(Withdraw(order.order_hash, why))
    return found


def _why_not(
    policy: OrderPolicy | None, order: OrderRecord, supply: Supply, book: Book, now: float
) -> Withdrawal | None:
    """Why the order is withdrawn however many machines there are; None if it may stay."""
    if supply.paused:
        return Withdrawal.PAUSED
    if supply.outage:
        return Withdrawal.OUTAGE
    if book.held:
        return Withdrawal.OPERATOR
    if policy is None:
        return None
    if order.market != policy.market or not any(_sells(offer, order) for offer in policy.offer):
        return Withdrawal.POLICY
    return Withdrawal.EXPIRED if now >= order.signed_at + policy.renew_hours * 3600 else None


def _sells(offer: Offer, order: OrderRecord) -> bool:
    """Whether an order is what the offer asks for now."""
    return order.of(offer.category, offer.trust, offer.tag) and order.order.workerpoolprice == offer.price


def _next_step(policy: OrderPolicy | None, order: OrderRecord, book: Book, now: float) -> list[OrderAction]:
    """The next action about an order that is neither signed nor withdrawn now: at the market, on chain, or its end."""
    final = order.spent_block is not None and book.block >= order.spent_block + book.finality
    if order.live:
        if final:
            return [End(order.order_hash)]
        if not order.asks(now) or not order.remaining:
            return []
        published = order.stage is OrderStage.PUBLISHED
        return [Recheck(order.order_hash) if published else Publish(order.order_hash)]
    # While the policy cannot be read, what it said last is not known: closing is what it says by default.
    to_close = order.open_to_buyers and (policy is None or policy.close_on_chain)
    if final or (not order.listed and not to_close and order.remaining):
        return [End(order.order_hash)]
    steps: list[OrderAction] = [Unpublish(order.order_hash)] if order.asks(now) else []
    return [*steps, Close(order.order_hash)] if to_close else steps


def _signatures(policy: OrderPolicy, supply: Supply, book: Book, now: float) -> list[Sign]:
    """New orders for the capacity that is left beside all others."""
    unfit = (
        supply.paused
        or supply.outage
        or book.held
        or not supply.settled
        or supply.terms is None
        or policy.market is None
    )
    live = [order for order in book.orders if order.live and book.left(order)]
    if unfit or supply.terms is None or policy.market is None or len(live) >= MOST_LIVE:
        return []
    ratio, stake = supply.terms.worker_stake_ratio, supply.terms.stake
    capacity = supply.capacity()
    # What is withdrawn counts until it is closed on chain: whoever has a copy can buy from it.
    open_orders = [*live, *(order for order in book.orders if order.open_to_buyers and policy.close_on_chain)]
    for order in open_orders:
        capacity.put(Demand.of(order.order, ratio), book.left(order))
        stake = NRlc(stake - book.left(order) * pool_stake(order.order.workerpoolprice))
    there = {offer: sum(book.left(order) for order in live if _sells(offer, order)) for offer in policy.offer}
    more = _share_out(policy.offer, there, capacity, ratio, stake)
    return [
        Sign(offer.category, offer.trust, offer.tag, offer.price, count, policy.market)
        for offer, count in more.items()
        # At least as much as is there: fewer, larger orders.
        if count and there[offer] <= count and _steady(policy, offer, there[offer], book, now)
    ][: MOST_LIVE - len(live)]


def _steady(policy: OrderPolicy, offer: Offer, there: int, book: Book, now: float) -> bool:
    """Whether enough time has passed since the offer was changed last; one that is sold out or renewed need not wait.
    `there`: tasks that are on the market.
    """
    shrunk = [
        order.withdrawn_at or 0.0
        for order in book.orders
        if order.why is Withdrawal.CAPACITY and order.of(offer.category, offer.trust, offer.tag)
    ]
    signed = [order.signed_at for order in book.orders if there and order.live and _sells(offer, order)]
    return all(now >= moment + policy.steady_seconds for moment in (*shrunk, *signed))


def _share_out(
    offers: Sequence[Offer], there: dict[Offer, int], capacity: SpareCapacity, ratio: int, stake: NRlc
) -> dict[Offer, int]:
    """How many more tasks of each offer there is capacity and stake for, in proportion to the offers' shares."""
    more = dict.fromkeys(offers, 0)
    piece = max(1, capacity.free // PARTS)
    going = list(offers)
    while going:
        offer = min(going, key=lambda each: (there[each] + more[each]) / each.share)
        wanted = min(piece, offer.most - there[offer] - more[offer])
        locked = pool_stake(offer.price)
        if locked:
            wanted = min(wanted, stake // locked)
        count = capacity.put(Demand.of(_sample(offer), ratio), wanted) if wanted > 0 else 0
        more[offer] += count
        stake = NRlc(stake - count * locked)
        if count < piece:
            going.remove(offer)
    return more


def _sample(offer: Offer) -> WorkerpoolOrder:
    """An unsigned order of the offer, only to read from it what its tasks demand."""
    return WorkerpoolOrder(
        workerpool=ZERO_ADDRESS,
        workerpoolprice=offer.price,
        volume=1,
        category=offer.category,
        trust=offer.trust,
        tag=offer.tag,
        salt=ZERO_HASH,
    )
