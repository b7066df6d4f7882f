"""`sluice orders …` and the routes behind it, on real servers, with orders that are in the database."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.domain.orders.records import OrderRecord, OrderStage, Withdrawal
from protocol.poco.orders import WorkerpoolOrder
from protocol.types import ZERO_ADDRESS, Hash32, NRlc
from tests.integration.api.conftest import Api

POLICY = """
market = "https://market.example"
[[offer]]
category = 3
price = "100 nRLC"
"""


def order(number: int, **fields: Any) -> OrderRecord:
    terms = WorkerpoolOrder(
        workerpool=ZERO_ADDRESS, workerpoolprice=NRlc(100), volume=5, category=3, trust=1, salt=Hash32("0x" + "0" * 64)
    )
    record = OrderRecord(
        Hash32(f"0x{number:064x}"), number, terms, "https://market.example", time.time(), OrderStage.PUBLISHED
    )
    return replace(record, **{"shown": True, "listed": True, **fields})


@pytest.fixture
def stored(api: Api) -> list[OrderRecord]:
    """Two orders on the market, of which one is partly bought, and one that was never sent."""
    found = [order(1), order(2, consumed=3), order(3, stage=OrderStage.SIGNED, shown=False, listed=False)]
    assert all(api.services.store.orders.add(each) for each in found)
    return found


@pytest.fixture
def with_policy(api: Api, tmp_path: Path) -> Iterator[Path]:
    """A policy that sells what the stored orders sell."""
    file = tmp_path / "orders.toml"
    file.write_text(POLICY)
    before = api.services.settings
    object.__setattr__(api.services, "settings", before.model_copy(update={"orders_file": file}))
    yield file
    object.__setattr__(api.services, "settings", before)


def test_orders_are_listed_with_what_is_left_of_them(
    api: Api, stored: list[OrderRecord], sluice: Callable[..., tuple[int, Any]]
) -> None:
    code, found = sluice("orders", "ls", "--json")
    assert code == 0
    assert [(each["number"], each["remaining"], each["listed"]) for each in found["orders"]] == [
        (3, 5, False),
        (2, 2, True),
        (1, 5, True),
    ]
    assert (found["offered"], found["held"], found["market"]) == (12, False, None)
    code, text = sluice("orders", "ls")
    assert code == 0
    assert stored[0].order_hash in text
    assert "2 of 5" in text
    assert "No market is set in SLUICE_ORDERS_FILE" in text


def test_the_plan_says_what_would_be_done_and_does_nothing(
    api: Api, stored: list[OrderRecord], with_policy: Path, sluice: Callable[..., tuple[int, Any]]
) -> None:
    code, found = sluice("orders", "plan", "--json")
    assert code == 0
    # There is no machine.
    assert {(each["action"], each["why"]) for each in found["actions"]} == {("withdraw", str(Withdrawal.CAPACITY))}
    assert len(found["actions"]) == 3
    assert (found["machines"], found["free_slots"], found["market"]) == (0, 0, "https://market.example")
    assert api.services.store.orders.not_ended() == stored
    assert "machines cannot serve it" in sluice("orders", "plan")[1]


def test_a_policy_that_is_wrong_is_told_by_the_plan_with_each_line(
    api: Api, with_policy: Path, sluice: Callable[..., tuple[int, Any]]
) -> None:
    with_policy.write_text(POLICY + "size = 3\n[[offer]]\ncategory = 1\n")
    code, text = sluice("orders", "plan")
    assert code == 1
    assert "offer 1, size: Extra inputs are not permitted; offer 2, price: Field required" in text


def test_an_order_is_cancelled_by_its_hash_once_confirmed(
    api: Api,
    stored: list[OrderRecord],
    with_policy: Path,
    sluice: Callable[..., tuple[int, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    orders, first = api.services.store.orders, stored[0].order_hash
    code, text = sluice("orders", "cancel", first, "--dry-run")
    assert code == 0
    assert "Would be: Orders cancelled: 1, 1 of them on chain too, for gas: " in text
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert sluice("orders", "cancel", first)[0] == 1, "nobody confirms it"
    assert orders.not_ended() == stored
    code, found = sluice("orders", "cancel", first, "--yes", "--json")
    assert (code, found["orders"], found["closes"]) == (0, [first], 1)
    (cancelled,) = [each for each in orders.not_ended() if each.order_hash == first]
    assert (cancelled.stage, cancelled.why) == (OrderStage.WITHDRAWN, Withdrawal.OPERATOR)
    code, found = sluice("orders", "cancel", first, "--yes", "--json")
    assert (code, found["changed"]) == (0, False)
    assert not orders.held()


def test_cancelling_all_holds_every_offer_until_publish(
    api: Api, stored: list[OrderRecord], sluice: Callable[..., tuple[int, Any]]
) -> None:
    orders = api.services.store.orders
    assert sluice("orders", "cancel", "--all", "--yes")[0] == 0
    assert {each.why for each in orders.not_ended()} == {Withdrawal.OPERATOR}
    assert orders.held()
    assert "An operator has cancelled all offers" in sluice("orders", "ls")[1]
    assert sluice("orders", "publish", "--dry-run")[0] == 0
    assert orders.held()
    code, found = sluice("orders", "publish", "--json")
    assert (code, found["changed"]) == (0, True)
    assert not orders.held()
    assert sluice("orders", "publish", "--json")[1]["changed"] is False


def test_wrong_words_are_refused(api: Api, stored: list[OrderRecord], sluice: Callable[..., tuple[int, Any]]) -> None:
    for words in ((), ("--all", stored[0].order_hash), ("0x12",), ("0x" + "ff" * 32,), ("--all", "--json")):
        assert sluice("orders", "cancel", *words)[0] == 2, words
    assert api.services.store.orders.not_ended() == stored


def test_each_command_tells_how_it_is_used(sluice: Callable[..., tuple[int, Any]]) -> None:
    for command in ("ls", "plan", "publish", "cancel"):
        code, text = sluice("orders", command, "--help")
        assert code == 0
        assert f"sluice orders {command}" in text
        assert "Exit codes" in text
