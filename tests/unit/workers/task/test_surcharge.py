"""What a chain takes for posting a transaction's bytes elsewhere counts in what a task may cost."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from chain.contracts.calls import GAS_LIMITS
from chain.lane.model.intent import Intent
from chain.lane.rules.fees import GWEI, FeeMarket
from protocol.types import TaskId, Wei
from tests.unit.chain.lane.model import WALLET, ModelChain
from tests.unit.chain.lane.rig import Rig
from tests.unit.workers.assignments import CHAIN_ID, WORKER_KEY, assignment, task_id
from tests.unit.workers.money.test_money_limits import Books
from tests.unit.workers.money.test_money_limits import books as books  # noqa: PLC0414 - a fixture
from workers.money import limits, market
from workers.task.votes import CONTRIBUTE, REVEAL, SOLO

MARKET = FeeMarket(Wei(GWEI), Wei(0))


def test_the_surcharge_is_what_the_lane_allows_for_and_nothing_on_a_chain_without() -> None:
    assert market.surcharge(ModelChain(), WALLET) == {}
    rig = Rig(chain=ModelChain(surcharge=400_000))
    found = market.surcharge(rig.chain, WALLET)
    rig.submit("any", "a")
    rig.run()
    record = rig.store.record(rig.id, rig.store.highest_nonce(rig.id) or 0)  # type: ignore[arg-type]
    assert record is not None
    assert found == dict.fromkeys((CONTRIBUTE, REVEAL, SOLO), record.gas_limit - 50_000)


@pytest.mark.parametrize("fog", ["null", "busy", "shape"])
def test_a_node_that_does_not_say_changes_nothing_of_what_was_known(books: Callable[..., Books], fog: str) -> None:
    layout = books().layout
    market.note(layout, MARKET, {REVEAL: 5})
    chain = ModelChain(surcharge=400_000, fog={"eth_estimateGas": fog})
    assert market.surcharge(chain, WALLET) is None
    market.note(layout, MARKET, market.surcharge(chain, WALLET))
    assert market.noted_surcharge(layout) == {REVEAL: 5}
    assert market.noted(layout) == MARKET
    # It is gone when the node says so.
    market.note(layout, MARKET, {})
    assert market.noted_surcharge(layout) == {}


def test_a_market_file_of_the_last_release_has_no_surcharge(books: Callable[..., Books]) -> None:
    layout = books().layout
    layout.market.write_text('{"base_fee": 1, "tip": 0}')
    assert market.noted_surcharge(layout) == {}


def test_a_task_that_fits_without_the_surcharge_and_not_with_it_is_declined(books: Callable[..., Books]) -> None:
    plain = limits.task_gas(solo=False, surcharge={})
    own = books(daily_spend_cap_wei=plain * GWEI, fee_policy="fixed", fixed_fee_gwei=1)
    market.note(own.layout, MARKET)
    assert own.ledger.why_not(assignment(1)) is None
    market.note(own.layout, MARKET, {CONTRIBUTE: 1, REVEAL: 1, SOLO: 10**9})
    assert "SLUICE_DAILY_SPEND_CAP_WEI" in str(own.ledger.why_not(assignment(1)))
    assert "SLUICE_DAILY_SPEND_CAP_WEI" in str(own.ledger.why_no_work(None))


def test_what_is_under_way_counts_with_its_surcharge_whether_it_is_queued_or_to_come(
    books: Callable[..., Books],
) -> None:
    own = books(fee_policy="fixed", fixed_fee_gwei=1)
    market.note(own.layout, MARKET, {CONTRIBUTE: 700, REVEAL: 50, SOLO: 10**9})
    task: TaskId = task_id(1)
    own.journal.add(assignment(1), 1.0)
    whole = GAS_LIMITS[CONTRIBUTE].base + GAS_LIMITS[REVEAL].base + 750
    assert own.ledger.budget().in_flight == whole * GWEI
    own.journal.mark_running(task, None, 1.0)
    own.journal.mark_computed(task, 1.0, digest="0x" + "ab" * 32, callback_data=None, cause=None, exit_code=0)  # type: ignore[arg-type]
    own.store.add([Intent.new(CHAIN_ID, WORKER_KEY.wallet, CONTRIBUTE, task)])
    own.journal.mark_committed(task, 1.0)
    assert own.ledger.budget().in_flight == whole * GWEI
