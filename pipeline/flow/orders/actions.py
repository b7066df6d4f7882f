"""Does what `pipeline.domain.orders.offers` decides: signs and stores orders, asks markets, hands closes to the lane.

Each step is stored before the next one relies on it (see the diagram in `pipeline.domain.orders.records`). A market
that does not answer, or not as it should, is asked about nothing else in the same run, and about all of it again later;
the other markets get their turn. One run at a time asks markets: what another one would ask, the next run does.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog
from celery.exceptions import SoftTimeLimitExceeded

from chain.contracts import calls
from chain.lane.model.intent import Intent, IntentState
from chain.lane.store.lease import new_holder
from config.metrics import MARKET_ANSWERS, ORDERS_SIGNED, ORDERS_WITHDRAWN
from pipeline.domain.orders.records import (
    LONGEST_WAIT,
    Close,
    End,
    OrderAction,
    OrderRecord,
    Publish,
    Recheck,
    Sign,
    Unpublish,
    Withdraw,
    Withdrawal,
)
from pipeline.flow.isolate import is_transient
from pipeline.flow.orders.market_api import DEAD, OPEN, WORDS, MarketApi
from pipeline.scheduler import Scheduler
from protocol.errors import LaneFull, MarketRefused, MarketUnavailable
from protocol.ethereum.hexbytes import to_hex
from protocol.poco.orders import WorkerpoolOrder
from protocol.types import Hash32, Wallet

log = structlog.get_logger(__name__)

#: Seconds until the market is asked again after it did not do what was asked, the first time; at most LONGEST_WAIT.
FIRST_WAIT = 2.0
_MOST_DOUBLINGS = 6
#: Seconds after which the turn of a run that died is taken by another: longer than a run may last.
TURN_ENDS = 60.0
#: What the market answers to an order that it has.
_HAS_IT = "already published"


@dataclass(slots=True)
class OrderActions:
    """The actions of one run. `close` it at its end."""

    scheduler: Scheduler
    markets: dict[str, MarketApi] = field(default_factory=dict)
    #: Markets that did not answer in this run.
    silent: set[str] = field(default_factory=set)
    #: Who holds the turn to ask markets, and whether this run got it; None: it has asked for nothing yet.
    holder: str = field(default_factory=new_holder)
    has_turn: bool | None = None

    def close(self) -> None:
        """Close the connections to markets, and let another run ask them."""
        for market in self.markets.values():
            market.close()
        if self.has_turn and self.scheduler.store.orders.give_turn_back(self.holder):
            self.scheduler.notifier.send_orders()

    def do(self, actions: Sequence[OrderAction], orders: Sequence[OrderRecord], highest: int) -> bool:
        """Carry out the actions; returns whether anything was done that may make others due.

        `orders`, `highest`: the orders, and the highest number of one, from which they were decided.
        """
        known = {order.order_hash: order for order in orders}
        done = False
        for action in actions:
            match action:
                case Sign():
                    highest += 1
                    if not self._sign(action, highest):
                        # Another process signs at this time: what there is room for is decided anew.
                        return True
                    done = True
                case Publish(order_hash):
                    done |= self._ask(known[order_hash], self._publish)
                case Recheck(order_hash):
                    done |= self._ask(known[order_hash], self._recheck)
                case Unpublish(order_hash):
                    done |= self._ask(known[order_hash], self._unpublish)
                case Withdraw(order_hash, why):
                    self._withdraw(order_hash, why)
                    done = True
                case Close(order_hash):
                    self._close(known[order_hash])
                case End(order_hash):
                    self.scheduler.store.orders.end(order_hash, self.scheduler.clock())
        return done

    def _sign(self, wanted: Sign, number: int) -> bool:
        """Sign and store an order. False: another process has signed one meanwhile."""
        scheduler = self.scheduler
        chain_id, hub = scheduler.settings.chain_id, scheduler.hub.address
        order = WorkerpoolOrder(
            workerpool=scheduler.workerpool,
            workerpoolprice=wanted.price,
            volume=wanted.volume,
            tag=wanted.tag,
            category=wanted.category,
            trust=wanted.trust,
            salt=Hash32(to_hex(secrets.token_bytes(32))),
        ).signed(scheduler.key, chain_id, hub)
        order_hash = order.order_hash(chain_id, hub)
        now = scheduler.clock()
        if not scheduler.store.orders.add(OrderRecord(order_hash, number, order, wanted.market, now)):
            return False
        ORDERS_SIGNED.inc()
        log.info("Order signed.", action="order_signed", order=order_hash, volume=order.volume, category=order.category)
        return True

    def _withdraw(self, order_hash: Hash32, why: Withdrawal) -> None:
        """Note that the order is not offered any more."""
        if self.scheduler.store.orders.withdraw(order_hash, why, self.scheduler.clock()):
            ORDERS_WITHDRAWN.labels(why.name.lower()).inc()
            log.info("Order withdrawn.", action="order_withdrawn", order=order_hash, why=str(why))

    # -- the market -----------------------------------------------------------------------------------------------

    def _ask(self, order: OrderRecord, request: Callable[[MarketApi, OrderRecord], bool]) -> bool:
        """Make a request to the order's market, if this run has the turn; returns whether the market did as asked."""
        if order.market in self.silent or not self._take_turn():
            return False
        try:
            market = self._market(order.market)
            return market.has_time and request(market, order)
        except MarketRefused as error:
            self._ask_again([order], error)
        except MarketUnavailable as error:
            self._ask_all_again(order.market, error)
        except SoftTimeLimitExceeded:
            # In a request: the next run begins with others.
            self._ask_all_again(order.market, _unavailable(order.market, "the time of a run was over"))
            raise
        except Exception as error:
            if is_transient(error):
                raise
            log.exception("The market cannot be asked.", action="market_unexpected", market=order.market)
            self._ask_all_again(order.market, _unavailable(order.market, repr(error)[:WORDS]))
        return False

    def _take_turn(self) -> bool:
        """Whether this run, and no other one, asks markets."""
        if self.has_turn is None:
            now = self.scheduler.clock()
            self.has_turn = self.scheduler.store.orders.take_turn(self.holder, now, now + TURN_ENDS)
        return self.has_turn

    def _publish(self, market: MarketApi, order: OrderRecord) -> bool:
        """Publish the order; returns whether the market lists it. Raises MarketRefused, MarketUnavailable."""
        orders, order_hash = self.scheduler.store.orders, order.order_hash
        # It may have been sent before, by a process that did not live to hear the answer.
        there = order.shown and market.status(order_hash) not in (None, DEAD)
        if not there:
            if not orders.mark_shown(order_hash):
                return False
            try:
                market.publish(order.order, order_hash)
            except MarketRefused as error:
                if _HAS_IT not in str(error):
                    raise
        MARKET_ANSWERS.labels("done").inc()
        orders.mark_published(order_hash, self.scheduler.clock())
        log.info("Order published.", action="order_published", order=order_hash, volume=order.order.volume)
        return True

    def _recheck(self, market: MarketApi, order: OrderRecord) -> bool:
        """Ask the market whether it still lists the order; returns whether the order is to be published again. Raises
        MarketRefused, MarketUnavailable.
        """
        status = market.status(order.order_hash)
        MARKET_ANSWERS.labels("done").inc()
        # What is sold or closed, the chain tells.
        if status not in (None, DEAD):
            self.scheduler.store.orders.mark_looked_at(order.order_hash, self.scheduler.clock())
            return False
        log.warning("The market lists an order no longer.", action="order_missing", order=order.order_hash, says=status)
        return self.scheduler.store.orders.mark_missing(order.order_hash)

    def _unpublish(self, market: MarketApi, order: OrderRecord) -> bool:
        """Unpublish the order; returns whether the market now lacks it. Raises MarketRefused, MarketUnavailable."""
        try:
            market.unpublish(order.order_hash)
        except MarketRefused:
            if market.status(order.order_hash) == OPEN:
                raise
        MARKET_ANSWERS.labels("done").inc()
        self.scheduler.store.orders.mark_unpublished(order.order_hash)
        log.info("Order unpublished.", action="order_unpublished", order=order.order_hash)
        return True

    def _market(self, url: str) -> MarketApi:
        """The client of a market's API, made once."""
        if url not in self.markets:
            self.markets[url] = MarketApi(url, self.scheduler.settings.chain_id, self.scheduler.key)
        return self.markets[url]

    def _ask_again(self, orders: Sequence[OrderRecord], error: MarketRefused | MarketUnavailable) -> None:
        """Ask about these orders again later, each after twice the wait that it had before."""
        says, now = str(error), self.scheduler.clock()
        MARKET_ANSWERS.labels("refused" if isinstance(error, MarketRefused) else "unknown").inc()
        for order in orders:
            wait = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(order.tries, _MOST_DOUBLINGS))
            self.scheduler.store.orders.ask_again([order.order_hash], says, now + wait)
        names = [order.order_hash for order in orders]
        log.warning("The market API is asked again later.", action="market_again", why=says, orders=names)

    def _ask_all_again(self, market: str, error: MarketUnavailable) -> None:
        """Make no more requests to a market that does not answer in this run, and all of them later."""
        self.silent.add(market)
        orders, now = self.scheduler.store.orders.not_ended(), self.scheduler.clock()
        self._ask_again([order for order in orders if order.market == market and order.asks(now)], error)

    # -- the chain ------------------------------------------------------------------------------------------------

    def _close(self, order: OrderRecord) -> None:
        """Hand the order's close to the lane, once; again after a failure, and when the lane is full."""
        scheduler = self.scheduler
        intent = close_intent(order, scheduler.lane.id.chain_id, scheduler.lane.id.wallet)
        known = next(iter(scheduler.lane.intents([intent.key])), None)
        if known is None:
            try:
                scheduler.lane.submit([intent])
            except LaneFull as error:
                log.warning("An order is closed later.", action="order_close_waits", why=str(error))
                return
            scheduler.notifier.send_lane()
            done = "The order's close was handed to the lane."
            log.info(done, action="order_close", order=order.order_hash, tries=order.closes)
        elif known.state is IntentState.FAILED:
            log.warning("Order not closed.", action="order_close_failed", order=order.order_hash, why=known.reason)
            scheduler.store.orders.close_failed(order.order_hash, order.closes)


def _unavailable(market: str, why: str) -> MarketUnavailable:
    """The error for a market that cannot be asked."""
    return MarketUnavailable(what=f"The market API at {market}", why=why)


def close_intent(order: OrderRecord, chain_id: int, wallet: Wallet) -> Intent:
    """The lane's intent to close the order: the same for each call until a try has failed."""
    # No task has such a subject.
    subject, data = f"order-{order.order_hash}", calls.close_workerpool_order(order.order.abi_tuple())
    at = order.withdrawn_at or order.signed_at
    return Intent.new(chain_id, wallet, "manageWorkerpoolOrder", subject, {"data": data}, at, occasion=order.closes)
