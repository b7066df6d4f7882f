"""Gas on chains that take more than the protocol counts, and the most that one transaction may ask for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.contracts import calls
from chain.lane import admin
from chain.lane.model.intent import Intent, IntentState
from chain.lane.model.nonce import Purpose
from chain.lane.model.policy import LanePolicy
from chain.lane.rules.encoding import PocoEncoder
from protocol.types import Contract, Nonce, Wallet
from tests.unit.chain.lane.model import FOG
from tests.unit.chain.lane.rig import Rig

EIP_7825 = 16_777_216


@pytest.mark.parametrize("estimates", [True, False])
@pytest.mark.parametrize("surcharge", [2_000, 400_000, 3_000_000])
def test_r06_a_chain_that_takes_gas_for_posting_data_is_served(surcharge: int, estimates: bool) -> None:
    rig = Rig(LanePolicy(finality=2))
    rig.chain.surcharge, rig.chain.estimates_surcharge = surcharge, estimates
    keys = rig.submit("any", *"abcdef")
    rig.step(12)
    assert {rig.state(key) for key in keys} == {IntentState.FINAL}
    assert rig.chain.executed().total() == 6


@pytest.mark.parametrize("estimates", [True, False])
@pytest.mark.parametrize("surcharge", [400_000, 30_000_000])
def test_r06_100_blocks_after_a_spike_everything_is_mined(surcharge: int, estimates: bool) -> None:
    rig = Rig(LanePolicy(finality=3))
    rig.chain.surcharge, rig.chain.estimates_surcharge = 2_000, estimates
    keys = rig.submit("any", *"abcd")
    rig.run()
    rig.chain.surcharge += surcharge
    rig.chain.drop()
    keys += rig.submit("any", *"efgh")
    rig.step(60)
    rig.chain.surcharge = 2_000
    rig.step(100)
    assert {rig.state(key) for key in keys} == {IntentState.FINAL}
    assert sorted(rig.chain.executed().items()) == [(name, 1) for name in "abcdefgh"]


def test_r06_transfers_to_oneself_ask_for_what_the_chain_takes() -> None:
    rig = Rig(LanePolicy(finality=2))
    rig.chain.surcharge = 50_000
    (key, _, _) = rig.submit("any", "a", "b", "c")
    rig.chain.per_block = 0
    rig.run()
    offer = admin.quote_cancel(rig.lane, Nonce(0))
    assert offer.cost == offer.fees.max_fee * offer.gas
    assert offer.gas >= 71_000
    assert admin.cancel(rig.lane, Nonce(0)).answer == "accepted"
    # What a database restored from an older copy looks like.
    del rig.store._records[rig.id][Nonce(1)]
    rig.chain.drop(1)
    assert admin.quote_gaps(rig.lane).gas >= 71_000
    rig.chain.per_block = 8
    rig.step(8)
    assert rig.state(key) is IntentState.FAILED
    assert rig.chain.count() >= 3


def test_r06_a_bump_keeps_the_gas_that_the_chain_asked_for() -> None:
    rig = Rig()
    rig.chain.surcharge = 400_000
    rig.chain.per_block = 0
    rig.submit("any", "a")
    rig.run()
    before = rig.store.record(rig.id, Nonce(0))
    assert before is not None
    assert admin.bump(rig.lane, Nonce(0)).answer == "accepted"
    after = rig.store.record(rig.id, Nonce(0))
    assert after is not None
    assert after.gas_limit == before.gas_limit >= 421_000


def test_where_a_chain_takes_nothing_on_top_limits_are_the_functions_and_one_question_a_minute_is_all_it_costs() -> (
    None
):
    rig = Rig()
    for number in range(20):
        rig.submit("any", f"n{number}")
        rig.step()
    assert {record.gas_limit for record in rig.store.newest(rig.id, [*_states()], 100, None)} == {50_000}
    assert rig.chain.asked["eth_estimateGas"] == 1


@pytest.mark.parametrize("fog", sorted(set(FOG) - {"cut"}))
def test_a_node_that_cannot_estimate_holds_nothing_up(fog: str) -> None:
    rig = Rig()
    rig.chain.fog["eth_estimateGas"] = fog
    rig.chain.surcharge = 100_000
    keys = rig.submit("any", *"abc")
    rig.step(3)
    assert {rig.state(key) for key in keys} == {IntentState.MINED}


def test_what_reverted_is_estimated_before_it_is_sent_again() -> None:
    rig = Rig(LanePolicy(finality=2))
    rig.submit("once", "a", "b", "c")
    rig.run()
    rig.chain.failing.add("b")
    rig.step()
    rig.chain.failing.clear()
    rig.step(2)
    # One question about the chain, one for each of the three that go again.
    assert rig.chain.asked["eth_estimateGas"] == 4
    assert rig.chain.executed() == {"a": 1, "b": 1, "c": 1}


def test_no_attempt_asks_for_more_gas_than_is_allowed() -> None:
    rig = Rig(LanePolicy(finality=2, max_gas=300_000))
    rig.chain.surcharge, rig.chain.estimates_surcharge = 10**6, False
    rig.submit("once", *"abcdef")
    rig.step(5)
    records = rig.store.newest(rig.id, [*_states()], 100, None)
    assert max(record.gas_of(attempt) for record in records for attempt in record.attempts) <= 300_000
    rig.chain.surcharge = 0
    rig.step(30)
    assert sorted(rig.chain.executed()) == list("abcdef")


def test_a_bundle_that_outgrows_what_is_allowed_is_cut() -> None:
    rig = Rig(LanePolicy(max_gas=160_000))
    rig.chain.surcharge = 20_000
    rig.submit("once", *"abc")
    rig.step(2)
    assert rig.chain.executed() == {"a": 1, "b": 1, "c": 1}
    assert rig.chain.count() > 1


@given(method=st.sampled_from(["initialize", "claim"]), number=st.integers(1, 400), batch=st.integers(1, 400))
def test_eip_7825_bounds_every_array_call(method: str, number: int, batch: int) -> None:
    encoder = PocoEncoder(Contract("0x" + "ab" * 20), batch=batch)
    deal = "0x" + "ff" * 32
    intents = [
        Intent.new(1, Wallet("0x" + "11" * 20), method, f"0x{index:064x}", {"deal_id": deal, "index": index}, index)
        for index in range(number)
    ]
    groups = encoder.group(intents)
    assert [intent for group in groups for intent in group] == intents
    assert max(encoder.encode(group).gas for group in groups) <= EIP_7825
    assert max(len(group) for group in groups) <= batch


def test_eip_7825_lets_87_tasks_share_an_initialize() -> None:
    encoder = PocoEncoder(Contract("0x" + "ab" * 20), batch=150)
    args = {"deal_id": "0x" + "ff" * 32, "index": 1}
    intents = [
        Intent.new(1, Wallet("0x" + "11" * 20), "initialize", f"0x{index:064x}", args, index) for index in range(200)
    ]
    assert [len(group) for group in encoder.group(intents)] == [87, 87, 26]
    assert calls.GAS_LIMITS["initializeArray"].of(encoder.encode(tuple(intents[:88])).data) > EIP_7825


def test_more_gas_is_the_same_call_and_never_another() -> None:
    rig = Rig()
    rig.chain.surcharge, rig.chain.estimates_surcharge = 400_000, False
    rig.submit("any", "a")
    rig.step(3)
    record = rig.store.record(rig.id, Nonce(0))
    assert record is not None
    assert {attempt.purpose for attempt in record.attempts} == {Purpose.CALL}
    assert [record.gas_of(attempt) for attempt in record.attempts] == [50_000, 100_000, 400_000, 1_600_000]


def _states() -> list:  # type: ignore[type-arg]
    from chain.lane.model.nonce import NonceState

    return list(NonceState)


@pytest.mark.parametrize("announced", [False, True])
def test_calls_share_a_transaction_only_as_far_as_a_block_of_this_chain_holds_its_gas(announced: bool) -> None:
    """iExec's own sidechain: 6.7 million, less than half of what Ethereum lets one transaction ask for."""
    rig = Rig(LanePolicy(finality=2))
    rig.chain.block_gas = 120_000
    keys = rig.submit("once", "a", "b", "c")
    rig.lane.run(announced=rig.chain.announced() if announced else None)
    rig.step()
    assert {rig.state(key) for key in keys} == {IntentState.MINED}
    records = [rig.store.record(rig.id, Nonce(number)) for number in range(2)]
    assert [len(record.intents) for record in records if record is not None] == [1, 2]
    assert rig.chain.count() == 2


def test_a_head_that_tells_a_block_of_no_gas_limits_nothing() -> None:
    rig = Rig(LanePolicy(finality=2))
    rig.chain.lies["eth_getBlockByNumber"] = lambda params: {
        **(rig.chain._header(rig.chain.blocks, params[0], 0, full=params[1]) or {}),
        "gasLimit": "0x0",
    }
    keys = rig.submit("once", "a", "b", "c")
    rig.step()
    assert {rig.state(key) for key in keys} == {IntentState.MINED}
    assert rig.chain.count() == 1
