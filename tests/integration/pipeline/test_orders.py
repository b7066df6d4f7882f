"""What the pool offers on the market: real PoCo, MongoDB and RabbitMQ, and a stand-in of iExec's market API."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded

from chain.contracts import calls
from chain.contracts.hub import Hub
from chain.rpc.client import Rpc
from config.celery_apps import core_app
from ops.market import orders
from ops.market.match import Matched, match
from ops.poco.deploy import TEST_10_CATEGORY
from ops.poco.state import CHAIN_ID
from pipeline.api.admin.order_models import CancelledOrders
from pipeline.api.admin.orders import cancel, list_orders
from pipeline.api.services import Services
from pipeline.broker.notify import Notifier
from pipeline.domain.order_records import LOOK_SECONDS, OrderRecord, OrderStage, Withdrawal
from pipeline.domain.records import ChainFacts
from pipeline.flow.market_api import MarketApi
from pipeline.flow.order_actions import LONGEST_WAIT, OrderActions, close_intent
from pipeline.flow.orders import keep_orders
from pipeline.scheduler import Scheduler
from protocol.amounts import ether
from protocol.errors import MarketRefused, TransactionReverted
from protocol.poco.orders import WorkerpoolOrder
from protocol.poco.view import TaskStatus
from protocol.types import NRlc, Wei
from tests.faulty import Answer, Fault, HangUp
from tests.faulty.market import UNKNOWN, Market, market_api
from tests.integration.pipeline.conftest import OWNER, PRICE, REQUESTER, Pool
from tests.integration.pipeline.simulated_worker import SimulatedWorker
from tests.waiting import ample, until

POLICY = """
market = "{url}"
steady_seconds = 1
renew_hours = {hours}
close_on_chain = {close}

[[offer]]
category = {category}
price = "{price} nRLC"
trust = 2
"""


@dataclass
class Shop:
    """A pool whose policy offers work on a market. `scheduler`: this process's own, at a clock that tests move."""

    pool: Pool
    market: Market
    file: Path
    ahead: float = 0.0

    def __post_init__(self) -> None:
        self.scheduler = Scheduler.open(self.pool.settings)
        real = self.scheduler.clock
        self.scheduler.clock = lambda: real() + self.ahead
        self.notifier = Notifier(core_app(self.pool.settings, self.scheduler.key.wallet), self.scheduler.key.wallet)

    def write(self, price: int = PRICE, hours: float = 24.0, *, close: bool = True) -> None:
        wanted = {"price": price, "hours": hours, "close": str(close).lower()}
        self.file.write_text(POLICY.format(url=self.market.url, category=TEST_10_CATEGORY, **wanted))

    def keep(self, seconds: float = 0.0) -> bool:
        """One run, `seconds` after the last one. Always true."""
        self.ahead += seconds
        keep_orders(self.scheduler)
        return True

    def keep_until(self, what: str, look: Callable[[], object]) -> None:
        """Runs until `look` is true: a block may come while a run reads, or a close wait."""
        until(what, lambda: self.keep() and look())

    def orders(self) -> list[OrderRecord]:
        """All of them, the oldest first."""
        return self.pool.store.orders.newest(100)[::-1]

    def machine(self, number: int, slots: int = 2) -> SimulatedWorker:
        """A machine that could be given a task now."""
        machine = self.pool.enrol(number, slots=slots)
        until("the machine to consume", lambda: self._consumers(machine) > 0)
        stake = self.pool.chain.hub.account(machine.key.wallet).stake
        facts = ChainFacts(2, stake, Wei(10**18), funded=True)
        self.pool.store.workers.store_facts([(machine.key.wallet, facts)], self.scheduler.clock())
        return machine

    def _consumers(self, machine: SimulatedWorker) -> int:
        """Consumers of the machine's queue."""
        with self.scheduler.pool_link.producer() as producer:
            channel: Any = producer.channel
            return int(channel.queue_declare(f"w.{machine.key.wallet}", passive=True).consumer_count)

    def buy(self, order: WorkerpoolOrder, volume: int) -> Matched:
        """A requester buys from an order of the market."""
        chain = self.pool.chain
        offer = orders.Offer(orders.offer_app(chain.market, chain.sender(OWNER).key, self.pool.app), order)
        request = orders.request(chain.market, chain.sender(REQUESTER).key, offer, volume=volume, trust=1)
        return match(chain.sender(REQUESTER), chain.market, [(offer, request)])[0]

    def await_followed(self) -> None:
        """The watcher has stored the block that is the newest now."""
        head = self.pool.chain.hub.head()

        def followed() -> bool:
            cursor = self.pool.store.chain.cursor()
            return cursor is not None and cursor.number >= head

        until("the watcher to follow", followed)


@pytest.fixture
def make_shop(make_pool: Callable[..., Pool], chain: Any, tmp_path: Path) -> Iterator[Callable[..., Shop]]:
    with Rpc(chain.node.rpc_url, timeout=ample(3.0)) as rpc, market_api(rpc, chain.at.hub, CHAIN_ID) as market:
        shops = []

        def make(*processes: str) -> Shop:
            file = tmp_path / "orders.toml"
            shop = Shop(make_pool(orders_file=file, finality_blocks=2, worker_lost_seconds=86400.0), market, file)
            shop.write()
            shops.append(shop)
            for name in processes:
                shop.pool.start(name)
            log = shop.pool.home / "watch.log"
            until("events to be followed", lambda: log.exists() and "presence_followed" in log.read_text())
            shop.await_followed()
            return shop

        yield make
        for shop in shops:
            shop.notifier.close()
            shop.scheduler.close()


# -- a whole pool ------------------------------------------------------------------------------------------------------


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

    def offered() -> bool:
        shop.notifier.send_orders()
        return [order.volume for order in shop.market.listed()] == [4]

    until("the offer", offered)
    (order,) = shop.market.listed()
    first.stop()
    until("the larger offer to go", lambda: shop.market.count("unpublished") == 1)
    last.stop()
    until("no offer to be left", lambda: not shop.market.listed() and not any(each.live for each in shop.orders()))
    (offer,) = [each for each in shop.orders() if each.order == order]
    assert offer.why is Withdrawal.CAPACITY

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


def test_old_orders_are_renewed_and_a_new_price_holds(make_shop: Callable[..., Shop]) -> None:
    shop = make_shop("watch", "lane")
    shop.machine(0)
    shop.keep_until("the offer", shop.market.listed)
    shop.write(hours=1e-6)
    shop.keep_until("the old order to go", lambda: shop.market.count("unpublished") == 1)
    shop.write()
    shop.keep_until("the renewed order", shop.market.listed)
    shop.write(price=7)
    shop.keep_until("the new price", lambda: [each.workerpoolprice for each in shop.market.listed()] == [NRlc(7)])
    whys = [order.why for order in shop.orders()]
    assert (whys[0], whys[-2:]) == (Withdrawal.EXPIRED, [Withdrawal.POLICY, None])
    shop.file.write_text("market = 7")
    shop.keep()
    assert len(shop.market.listed()) == 1, "a policy that cannot be read takes nothing back"


def test_an_answer_that_decides_nothing_publishes_nothing_twice_and_loses_nothing(
    make_shop: Callable[..., Shop],
) -> None:
    shop = make_shop("watch")
    # What is closed on chain ends by that, whatever the market does.
    shop.write(close=False)
    shop.machine(0)
    for when in (shop.market.before, shop.market.after):
        for name, fault in UNKNOWN.items():
            before = shop.market.count("published")
            when["POST workerpoolorders"] = [fault]
            shop.ahead += LONGEST_WAIT
            shop.keep_until(f"{name}: an order", lambda: any(each.live for each in shop.orders()))
            (order,) = [each for each in shop.orders() if each.live]
            assert (order.stage, order.shown, order.tries) == (OrderStage.SIGNED, True, 1), name
            requests = len(shop.market.requests)
            shop.keep()
            assert len(shop.market.requests) == requests, f"{name}: it is asked again later"
            shop.keep(seconds=LONGEST_WAIT)
            assert shop.market.count("published") == before + 1, name
            assert shop.pool.store.orders.not_ended()[-1].stage is OrderStage.PUBLISHED, name
            unpublish(shop, when, fault, name)


@pytest.mark.parametrize("gone", ["put away", "forgotten"])
def test_an_order_that_the_market_lists_no_longer_is_published_again_once(
    make_shop: Callable[..., Shop], gone: str
) -> None:
    shop = make_shop("watch")
    shop.machine(0)
    shop.keep_until("the offer", shop.market.listed)
    (order,) = shop.orders()
    asked = len(shop.market.requests)
    shop.keep()
    assert len(shop.market.requests) == asked, "it is not looked at before its time"
    if gone == "put away":
        shop.market.dead.add(order.order_hash)
    else:
        shop.market.orders.clear()
    for name, fault in UNKNOWN.items():
        shop.market.before["GET workerpoolorders"] = [fault]
        shop.keep(seconds=LOOK_SECONDS)
        assert shop.orders()[0].stage is OrderStage.PUBLISHED, name
        assert shop.market.count("published") == 1, name
    shop.keep(seconds=LOOK_SECONDS)
    assert shop.market.listed() == [order.order]
    shop.keep(seconds=LOOK_SECONDS)
    assert (len(shop.orders()), shop.market.count("published")) == (1, 2)
    assert ("refused", "order already published") not in shop.market.log


def test_an_order_that_the_market_has_put_away_is_withdrawn_like_any_other(make_shop: Callable[..., Shop]) -> None:
    shop = make_shop("watch", "lane")
    shop.machine(0)
    shop.keep_until("the offer", shop.market.listed)
    shop.market.dead.add(shop.orders()[0].order_hash)
    shop.pool.store.orders.hold(0.0)
    shop.keep_until("the end", lambda: ended(shop))
    assert shop.market.count("published") == 1


def unpublish(shop: Shop, when: dict[str, list[Fault]], fault: Fault, name: str) -> None:
    """Cancel what is offered while the market fails once."""
    before = shop.market.count("unpublished")
    shop.pool.store.orders.hold(0.0)
    when["PUT workerpoolorders"] = [fault]
    shop.keep()
    (order,) = [each for each in shop.orders() if each.stage is OrderStage.WITHDRAWN and each.listed]
    assert order.tries == 1, name
    shop.keep(seconds=LONGEST_WAIT)
    assert not shop.orders()[-1].listed, name
    assert shop.market.count("unpublished") == before + 1, name
    shop.pool.store.orders.release()


def closed(shop: Shop) -> bool:
    return not any(each.open_to_buyers for each in shop.orders())


@pytest.mark.parametrize("answer", [Answer(429), HangUp(0)], ids=["a limit", "no answer"])
def test_a_market_that_is_down_is_asked_less_and_less_and_holds_up_no_close(
    make_shop: Callable[..., Shop], answer: Fault
) -> None:
    shop = make_shop("watch", "lane")
    shop.machine(0)
    shop.keep_until("the offer", shop.market.listed)
    shop.market.down = answer
    shop.pool.store.orders.hold(0.0)
    shop.keep_until("the close", lambda: closed(shop))
    asked = []
    for _ in range(100):
        before = len(shop.market.requests)
        shop.keep(seconds=5)
        asked.append(len(shop.market.requests) > before)
        if shop.orders()[0].stage is OrderStage.ENDED:
            break
    assert sum(asked) <= 12
    assert not shop.market.listed()


def test_a_market_that_refuses_is_told_of_and_makes_no_further_orders(make_shop: Callable[..., Shop]) -> None:
    shop = make_shop("watch", "lane")
    shop.machine(0)
    no = Answer(403, b'{"ok":false,"error":"maximum of 50 published open workerpoolorder has been reached"}')
    shop.market.before["POST workerpoolorders"] = [no, no]
    for tries in (1, 2):
        shop.ahead += 100
        shop.keep_until("the refusal", partial(refused, shop, tries))
        assert "maximum of 50" in shop.orders()[0].says
    shop.keep(seconds=100)
    assert (len(shop.orders()), shop.market.count("published"), shop.orders()[0].says) == (1, 1, "")


def refused(shop: Shop, tries: int) -> bool:
    return [each.tries for each in shop.orders()] == [tries]


def test_a_market_that_asks_to_sign_an_order_gets_no_signature(make_shop: Callable[..., Shop]) -> None:
    shop = make_shop("watch", "lane")
    shop.machine(0)
    shop.market.before["GET challenge"] = [
        Answer(200, b'{"ok":true,"data":{"primaryType":"WorkerpoolOrder","message":{"challenge":"x"}}}')
    ]
    shop.keep_until("the order", shop.orders)
    assert "asks to sign something else" in shop.orders()[0].says
    assert "POST workerpoolorders" not in shop.market.requests


def test_a_refusal_in_half_a_character_is_stored_and_told_like_any_other(make_shop: Callable[..., Shop]) -> None:
    shop = make_shop("watch")
    shop.machine(0)
    shop.market.before["POST workerpoolorders"] = [Answer(403, b'{"ok":false,"error":"\\ud800"}')]
    shop.keep_until("the refusal", partial(refused, shop, 1))
    assert shop.orders()[0].says.isprintable()
    shop.keep(seconds=LONGEST_WAIT)
    assert len(shop.market.listed()) == 1


def test_what_nobody_expected_of_one_market_keeps_no_other_from_its_turn(
    make_shop: Callable[..., Shop], monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = make_shop("watch")
    shop.machine(0)
    shop.write(close=False)
    shop.keep_until("the offer", shop.market.listed)

    def fail(*_: object) -> None:
        raise RecursionError("an answer within an answer")

    monkeypatch.setattr(MarketApi, "unpublish", fail)
    with market_api(shop.market.rpc, shop.pool.chain.at.hub, CHAIN_ID) as other:
        shop.market = other
        shop.write(close=False)
        shop.keep_until("the offer at the other market", other.listed)
    assert "an answer within an answer" in shop.orders()[0].says


def test_a_run_whose_time_ends_in_a_request_notes_it_and_leaves_the_market_to_later_runs(
    make_shop: Callable[..., Shop],
) -> None:
    shop = make_shop("watch")
    shop.machine(0)

    def end(*_: object) -> None:
        raise SoftTimeLimitExceeded

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MarketApi, "publish", end)
        with pytest.raises(SoftTimeLimitExceeded):
            shop.keep_until("a request", lambda: False)
        (order,) = shop.orders()
        assert (order.tries, order.retry_at > shop.scheduler.clock()) == (1, True)
        shop.keep()
    shop.keep(seconds=LONGEST_WAIT)
    assert len(shop.market.listed()) == 1


def test_beside_a_run_that_asks_the_market_another_one_only_withdraws_and_closes(
    make_shop: Callable[..., Shop], monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = make_shop("watch")
    shop.machine(0)
    told: list[Notifier] = []
    real_publish, real_send = MarketApi.publish, Notifier.send_orders

    def publish(market: MarketApi, *args: Any) -> None:
        real_publish(market, *args)
        requests = len(shop.market.requests)
        shop.pool.store.orders.hold(0.0)
        keep_orders(shop.scheduler)
        (order,) = shop.orders()
        assert (order.stage, len(shop.market.requests)) == (OrderStage.WITHDRAWN, requests)
        key = close_intent(order, CHAIN_ID, shop.scheduler.key.wallet).key
        assert shop.scheduler.lane.intents([key])
        assert not told

    def send(notifier: Notifier) -> None:
        told.append(notifier)
        real_send(notifier)

    monkeypatch.setattr(MarketApi, "publish", publish)
    monkeypatch.setattr(Notifier, "send_orders", send)
    shop.keep_until("the publication", lambda: shop.market.count("published") == 1)
    assert not shop.market.listed(), "the first run sees the withdrawal"
    assert len(told) == 1, "another run looks for what this one has not seen"


# -- crashes -----------------------------------------------------------------------------------------------------------


class Crashed(BaseException):
    """The process is killed here."""


#: Each window of `pipeline.domain.order_records`: the method of what, and whether it was done before the crash.
WINDOWS = {
    "the order is stored": ("pipeline.store.orders.Orders.add", True),
    "it is about to be sent": ("pipeline.store.orders.Orders.mark_shown", True),
    "the market took it": ("pipeline.flow.market_api.MarketApi.publish", True),
    "it is not noted as published": ("pipeline.store.orders.Orders.mark_published", False),
    "the withdrawal is stored": ("pipeline.store.orders.Orders.withdraw", True),
    "it was unpublished": ("pipeline.flow.market_api.MarketApi.unpublish", True),
    "it is not noted as unpublished": ("pipeline.store.orders.Orders.mark_unpublished", False),
    "its close was handed to the lane": ("chain.lane.run.Lane.submit", True),
    "its close is not handed to the lane": ("chain.lane.run.Lane.submit", False),
    "it is not noted as ended": ("pipeline.store.orders.Orders.end", False),
}


def test_a_crash_in_any_window_loses_no_order_and_publishes_none_twice(
    make_shop: Callable[..., Shop], monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = make_shop("watch", "lane")
    shop.machine(0)
    for window, (method, done) in WINDOWS.items():
        number, published = len(shop.orders()), shop.market.count("published")
        with monkeypatch.context() as patch:
            crashes = crash_once(patch, method, done=done)
            until(f"{window}: the offer", lambda: runs(shop) and len(shop.market.listed()) == 1)
            shop.pool.store.orders.hold(0.0)
            until(f"{window}: the end", lambda: runs(shop) and ended(shop))
            shop.pool.store.orders.release()
        assert crashes, window
        assert (len(shop.orders()), shop.market.count("published")) == (number + 1, published + 1), window
        assert not shop.market.listed(), window


def crash_once(patch: pytest.MonkeyPatch, method: str, *, done: bool) -> list[str]:
    """Have the method's first call crash, after it is `done` or before; grows when that has happened."""
    module, kind, name = method.rsplit(".", 2)
    owner = getattr(importlib.import_module(module), kind)
    called, crashes = getattr(owner, name), list[str]()

    def crash(*args: Any) -> Any:
        if crashes:
            return called(*args)
        if done:
            # The order may be closed in a block already: the market has put it away by itself then.
            with suppress(MarketRefused):
                called(*args)
        crashes.append(method)
        raise Crashed

    patch.setattr(owner, name, crash)
    return crashes


def runs(shop: Shop) -> bool:
    """One run, that may crash. Always true."""
    with suppress(Crashed):
        shop.keep(seconds=1)
    return True


def ended(shop: Shop) -> bool:
    return all(each.stage is OrderStage.ENDED for each in shop.orders())


def test_two_processes_that_sign_at_the_same_time_make_one_order(make_shop: Callable[..., Shop]) -> None:
    shop = make_shop("watch", "lane")
    shop.machine(0)
    twice: list[int] = []
    real = OrderActions.do

    def late(self: OrderActions, *args: Any) -> bool:
        if not twice:
            # Another process decides and acts between this one's decision and its first action.
            twice.append(1)
            keep_orders(shop.scheduler)
        return real(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OrderActions, "do", late)
        shop.keep_until("an order", shop.market.listed)
    assert [order.order.volume for order in shop.orders()] == [2]
    assert shop.market.count("published") == 1


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
