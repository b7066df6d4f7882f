"""What a lane counts for `/metrics`: fees once and for good, replacements, gaps, actions without effect."""

from __future__ import annotations

from prometheus_client import REGISTRY

from chain.lane.model.intent import IntentState
from chain.lane.model.policy import LanePolicy
from chain.lane.rules.fees import GWEI
from protocol.types import Nonce
from tests.unit.chain.lane.model import WALLET
from tests.unit.chain.lane.rig import Rig


def value(name: str, **labels: str) -> float:
    """A metric's value now; tests of one process share it, so that only differences say something."""
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_the_fee_of_a_transaction_is_counted_once_it_is_final_and_not_again() -> None:
    before = value("sluice_lane_gas_spent_wei_total", method="any")
    rig = Rig(LanePolicy(finality=3))
    rig.submit("any", "a")
    rig.step()
    assert value("sluice_lane_gas_spent_wei_total", method="any") == before
    rig.step(6)
    record = rig.store.record(rig.id, Nonce(0))
    assert record is not None
    assert record.mined is not None
    assert record.mined.fee > 0
    assert value("sluice_lane_gas_spent_wei_total", method="any") - before == record.mined.fee


def test_a_fee_that_a_reorg_takes_back_before_it_is_final_is_counted_once() -> None:
    before = value("sluice_lane_gas_spent_wei_total", method="any")
    rig = Rig(LanePolicy(finality=3))
    rig.submit("any", "a")
    rig.step(2)
    rig.chain.reorg(1, keep=True)
    rig.step(8)
    record = rig.store.record(rig.id, Nonce(0))
    assert record is not None
    assert record.mined is not None
    assert value("sluice_lane_gas_spent_wei_total", method="any") - before == record.mined.fee


def test_a_fee_bump_is_counted_as_another_attempt_at_the_call() -> None:
    before = value("sluice_lane_replaced_total", purpose="call")
    rig = Rig()
    rig.submit("any", "a")
    rig.run()
    rig.chain.base_fee = 50 * GWEI
    rig.chain.drop()
    rig.step(3)
    record = rig.store.record(rig.id, Nonce(0))
    assert record is not None
    assert value("sluice_lane_replaced_total", purpose="call") - before == len(record.attempts) - 1 > 0


def test_an_action_that_reverts_again_and_again_is_counted_once_with_its_reason() -> None:
    before = value("sluice_lane_failed_total", method="once", reason="reverted")
    rig = Rig()
    rig.chain.failing.add("a")
    (key,) = rig.submit("once", "a")
    rig.step(20)
    assert rig.state(key) is IntentState.FAILED
    assert value("sluice_lane_failed_total", method="once", reason="reverted") - before == 1


def test_a_gap_is_shown_until_it_is_filled() -> None:
    rig = Rig(LanePolicy(gap_looks=3))
    rig.submit("any", "a", "b")
    rig.run()
    # What a database restored from an older copy looks like.
    del rig.store._records[rig.id][Nonce(0)]
    rig.chain.drop(0)
    rig.run()
    assert value("sluice_lane_nonce_gap", wallet=WALLET) == 1
    rig.step(6)
    assert value("sluice_lane_nonce_gap", wallet=WALLET) == 0
