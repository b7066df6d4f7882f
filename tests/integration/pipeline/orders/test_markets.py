"""Markets that fail, refuse, forget, or are slow."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded

from ops.poco.state import CHAIN_ID
from pipeline.broker.notify import Notifier
from pipeline.domain.orders.records import LONGEST_WAIT, LOOK_SECONDS, OrderStage
from pipeline.flow.orders.actions import close_intent
from pipeline.flow.orders.keep import keep_orders
from pipeline.flow.orders.market_api import MarketApi
from tests.faulty import Answer, Fault, HangUp
from tests.faulty.market import UNKNOWN, market_api
from tests.integration.pipeline.orders.conftest import Shop, closed, ended


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
