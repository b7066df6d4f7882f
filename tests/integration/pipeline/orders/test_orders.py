"""What the pool offers on the market, what is bought of it, and what the operator changes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from chain.contracts import calls
from chain.contracts.hub import Hub
from ops.poco.deploy import TEST_10_CATEGORY
from pipeline.api.admin.answers.orders import CancelledOrders
from pipeline.api.admin.orders import cancel, list_orders
from pipeline.api.services import Services
from pipeline.domain.condition.holding import WITHDRAW_SECONDS
from pipeline.domain.orders.records import OrderStage, Withdrawal
from pipeline.flow.orders.keep import read_view
from pipeline.store.client import database
from protocol.amounts import ether
from protocol.errors import TransactionReverted
from protocol.poco.view import TaskStatus
from protocol.types import NRlc
from tests.integration.pipeline.conftest import PRICE
from tests.integration.pipeline.orders.conftest import Shop, closed
from tests.waiting import until

# -- a whole pool ------------------------------------------------------------------------------------------------------

#: Seconds within which nothing may be offered any more once the last machine has gone.
CANCELLED_SECONDS = 10.0


def test_free_slots_are_offered_and_what_is_bought_is_carried_through_and_counted(
    make_shop: Callable[..., Shop],
) -> None:
    shop = make_shop("watch", "pipeline", "lane", "beat")
    # Without a policy nothing is offered: the first offer is of both machines.
    shop.file.unlink()
    shop.machine(0, slots=1)
    shop.machine(1)
    shop.write()
    until("the offer", lambda: [order.volume for order in shop.market.listed()] == [3])
    (order,) = shop.market.listed()
    assert (order.category, order.trust, order.workerpoolprice) == (TEST_10_CATEGORY, 2, PRICE)
    deal = shop.buy(order, volume=2)
    shop.pool.await_status(deal, TaskStatus.COMPLETED)
    shop.pool.await_closed(deal)
    until("what was bought to be counted", lambda: shop.orders()[0].consumed == 2)
    until("the slots to be offered again", lambda: sum(each.remaining for each in shop.orders() if each.live) >= 2)
    assert max(shop.market.offered) <= 3
    rest = shop.buy(order, volume=1)
    shop.pool.await_status(rest, TaskStatus.COMPLETED)
    until("the sold order to end", lambda: shop.orders()[0].stage is OrderStage.ENDED)
    assert [shop.orders()[0].why, shop.market.count("refused")] == [None, 0]


def test_when_the_last_machine_goes_its_broker_event_alone_has_every_offer_withdrawn_and_closed(
    make_shop: Callable[..., Shop],
) -> None:
    # Without `beat` no clock looks: what happens here happens by RabbitMQ's event.
    shop = make_shop("watch", "pipeline", "lane")
    first, last = shop.machine(0), shop.machine(1)

    def offered(volume: int) -> bool:
        shop.notifier.send_orders()
        return [order.volume for order in shop.market.listed()] == [volume]

    until("the offer", lambda: offered(4))
    (order,) = shop.market.listed()
    first.stop()
    until("the larger offer to go", lambda: shop.market.count("unpublished") == 1)
    until("an offer of the last machine alone", lambda: offered(2))
    last.stop()
    until("no offer to be left", lambda: not shop.market.listed() and not any(each.live for each in shop.orders()))
    (offer,) = [each for each in shop.orders() if each.order == order]
    assert offer.why is Withdrawal.CAPACITY
    # By the moments that the pool has stored: when the machine went, and when its order counted no more.
    (gone,) = shop.pool.store.workers.load_workers([last.key.wallet])
    (smaller,) = [each for each in shop.orders() if each.order.volume == 2]
    assert gone.disconnected_at is not None
    assert smaller.withdrawn_at is not None
    assert 0 <= smaller.withdrawn_at - gone.disconnected_at <= CANCELLED_SECONDS

    def used() -> int:
        (found,) = Hub(shop.market.rpc, shop.pool.chain.at.hub).consumed(
            [offer.order_hash], shop.pool.store.chain.cursor() or pytest.fail("nothing was followed")
        )
        return getattr(found, "value", 0)

    until("the order to be closed on chain", lambda: used() == order.volume)
    with pytest.raises(TransactionReverted):
        shop.buy(order, volume=1)
    assert max(shop.market.offered) <= 4


# -- run by run --------------------------------------------------------------------------------------------------------


def test_a_pause_withdraws_offers_and_the_end_of_it_offers_anew_once_they_are_closed(
    make_shop: Callable[..., Shop],
) -> None:
    shop = make_shop("watch", "lane")
    shop.machine(0)
    shop.keep_until("the offer", lambda: [order.volume for order in shop.market.listed()] == [2])
    shop.pool.store.pause.pause(0.0, "")
    shop.keep()
    assert not shop.market.listed()
    shop.pool.store.pause.resume()
    shop.keep_until("the offer to be made again", lambda: len(shop.market.listed()) == 1)
    assert [order.why for order in shop.orders()] == [Withdrawal.PAUSED, None]

    def may_sign() -> bool:
        pool = shop.pool
        return read_view(pool.settings, pool.store, pool.chain.hub, shop.scheduler.workerpool, 0.0).supply.settled

    assert may_sign()
    shop.pool.store.hold.hold("ipfs: away", "test")
    assert not may_sign(), "the pool holds"
    shop.keep()
    assert shop.market.listed(), "a short hold withdraws nothing"
    database(shop.pool.settings)["pool"].update_one({"_id": "hold"}, {"$unset": {"since": ""}})
    assert not shop.pool.store.hold.has_held(WITHDRAW_SECONDS), "a process of an older release began it just now"
    earlier = datetime.now(UTC) - timedelta(seconds=WITHDRAW_SECONDS)
    database(shop.pool.settings)["pool"].update_one({"_id": "hold"}, {"$set": {"since": earlier}})
    shop.pool.store.hold.hold("ipfs: still away", "test")
    shop.keep()
    assert not shop.market.listed(), "a long hold does"
    shop.pool.store.hold.release("test")
    shop.keep_until("the offer to be made once more", lambda: len(shop.market.listed()) == 1)


def test_old_orders_are_renewed_and_a_new_price_holds(make_shop: Callable[..., Shop]) -> None:
    shop = make_shop("watch", "lane")
    shop.machine(0)
    shop.keep_until("the offer", shop.market.listed)
    shop.write(hours=1e-6)
    shop.keep_until("the old order to go", lambda: shop.market.count("unpublished") >= 1)
    shop.write()
    shop.keep_until("the renewed order", shop.market.listed)
    shop.write(price=7)
    shop.keep_until("the new price", lambda: [each.workerpoolprice for each in shop.market.listed()] == [NRlc(7)])
    whys = [order.why for order in shop.orders()]
    assert (whys[0], whys[-2:]) == (Withdrawal.EXPIRED, [Withdrawal.POLICY, None])
    shop.file.write_text("market = 7")
    shop.keep()
    assert len(shop.market.listed()) == 1, "a policy that cannot be read takes nothing back"


def test_closing_an_order_uses_the_gas_that_is_allowed_for_it(make_shop: Callable[..., Shop]) -> None:
    shop = make_shop("watch")
    shop.machine(0)
    shop.keep_until("the order", shop.orders)
    (order,) = shop.orders()
    data = calls.close_workerpool_order(order.order.abi_tuple())
    call = {"from": shop.scheduler.key.wallet, "to": shop.pool.chain.at.hub, "data": data}
    used = int(shop.pool.chain.rpc.call("eth_estimateGas", call), 16)
    assert used < calls.gas_limit("manageWorkerpoolOrder", data) < 3 * used


def test_an_operator_sees_the_price_of_a_cancellation_and_pays_no_more(make_shop: Callable[..., Shop]) -> None:
    shop = make_shop("watch", "lane")
    shop.machine(0)
    shop.keep_until("the offer", shop.market.listed)
    services = Services.open(shop.pool.settings)
    planned = cancel(services, CancelledOrders(all=True), dry_run=True)
    assert planned.closes == 1
    assert planned.cost_wei
    assert f"at most {ether(planned.cost_wei)} of the native token" in planned.says
    assert shop.market.listed()
    assert cancel(services, CancelledOrders(all=True)).changed
    shop.keep_until("the close", lambda: closed(shop))
    until("its price", lambda: list_orders(services, ended=True).orders[0].close_fee_wei)
    (line,) = list_orders(services, ended=True).orders
    assert line.close_fee_wei
    assert line.close_fee_wei <= planned.cost_wei
    assert (line.why, line.close_tx is not None) == (str(Withdrawal.OPERATOR), True)
    services.close()
