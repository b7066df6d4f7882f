"""A process that is killed in any window of an order's life, and two that decide at once."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from pipeline.flow.orders.actions import OrderActions
from pipeline.flow.orders.keep import keep_orders
from protocol.errors import MarketRefused
from tests.integration.pipeline.orders.conftest import Shop, ended
from tests.waiting import until


class Crashed(BaseException):
    """The process is killed here."""


#: Each window of `pipeline.domain.orders.records`: the method of what, and whether it was done before the crash.
WINDOWS = {
    "the order is stored": ("pipeline.store.orders.Orders.add", True),
    "it is about to be sent": ("pipeline.store.orders.Orders.mark_shown", True),
    "the market took it": ("pipeline.flow.orders.market_api.MarketApi.publish", True),
    "it is not noted as published": ("pipeline.store.orders.Orders.mark_published", False),
    "the withdrawal is stored": ("pipeline.store.orders.Orders.withdraw", True),
    "it was unpublished": ("pipeline.flow.orders.market_api.MarketApi.unpublish", True),
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
