"""What the lane may spend."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.lane import admin
from chain.lane.model.intent import Intent, IntentState
from chain.lane.model.nonce import NonceState
from chain.lane.model.policy import LanePolicy
from chain.lane.rules.fees import GWEI, TIP_FLOOR, FeePolicy
from protocol.types import Wei
from tests.unit.chain.lane.model import CHAIN_ID, WALLET
from tests.unit.chain.lane.rig import Rig


def test_an_empty_wallet_claims_no_nonce() -> None:
    rig = Rig()
    rig.chain.balance = 1000
    (key,) = rig.submit("any", "a")
    rig.step(2)
    assert rig.state(key) is IntentState.QUEUED
    assert rig.store.highest_nonce(rig.id) is None
    rig.chain.balance = 10**20
    rig.step()
    assert rig.state(key) is IntentState.MINED


def test_a_large_call_that_the_wallet_cannot_pay_holds_up_no_smaller_one_behind_it() -> None:
    rig = Rig()
    large = rig.submit("once", *"abc")
    (small,) = rig.submit("any", "d")
    rig.chain.balance = 50_000 * 4 * GWEI
    rig.step(2)
    assert rig.state(small) is IntentState.MINED
    assert {rig.state(key) for key in large} == {IntentState.QUEUED}


def test_the_daily_cap_holds_what_would_exceed_it() -> None:
    rig = Rig(LanePolicy(daily_cap=Wei(50_000 * 4 * GWEI)))
    rig.submit("any", *"abcdef")
    rig.step(3)
    assert 0 < rig.chain.executed().total() < 6


def test_money_to_keep_is_not_spent() -> None:
    rig = Rig(LanePolicy(keep_balance=Wei(10**24)))
    (key,) = rig.submit("any", "a")
    rig.step(2)
    assert rig.state(key) is IntentState.QUEUED
    rig.chain.balance *= 2
    rig.step()
    assert rig.state(key) is IntentState.MINED


def test_the_daily_cap_is_about_fees_and_not_about_what_is_paid_to_others() -> None:
    rig = Rig(LanePolicy(daily_cap=Wei(50_000 * 4 * GWEI)))
    rig.encoder.value = Wei(10**20)
    rig.submit("any", "a")
    rig.step()
    assert rig.chain.executed() == {"a": 1}


def test_an_open_nonce_gets_its_fee_bump_past_the_daily_cap() -> None:
    rig = Rig(LanePolicy(daily_cap=Wei(50_000 * 4 * GWEI)))
    (key,) = rig.submit("any", "a")
    rig.run()
    rig.chain.base_fee = 50 * GWEI
    rig.chain.drop()
    rig.step(4)
    assert rig.state(key) is IntentState.MINED


@given(st.integers(0, 10**18), st.integers(0, 10**17))
def test_the_head_of_the_line_goes_with_the_next_run_exactly_if_the_wallet_can_pay_for_it(
    balance: int, kept: int
) -> None:
    rig = Rig(LanePolicy(keep_balance=Wei(kept)))
    rig.chain.balance = balance
    (key,) = rig.submit("any", "a")
    why = admin.status(rig.lane).why
    rig.run()
    unpaid = rig.state(key) is IntentState.QUEUED
    assert ("cannot pay" in why) == unpaid
    assert ("goes with the next run" in why) != unpaid


# -- what no cap holds back ------------------------------------------------------------------------------------------

#: `once` stands for a reveal, `any` for a vote.
FIRST = frozenset({"once"})


def test_a_lying_node_with_a_huge_gas_price_has_no_more_paid_than_the_base_fee_again() -> None:
    rig = Rig(LanePolicy(fees=FeePolicy(tip_floor=TIP_FLOOR)))
    rig.chain.lies["eth_gasPrice"] = lambda _: hex(10**24)
    rig.submit("any", "a")
    rig.step()
    (record,) = rig.store.records(rig.id, (NonceState.MINED,))
    assert record.newest.fees.tip <= rig.chain.base_fee
    assert record.mined is not None
    assert record.mined.fee <= 2 * rig.chain.base_fee * record.mined.gas_used
    believed = Rig()
    believed.chain.lies["eth_gasPrice"] = lambda _: hex(10**24)
    believed.submit("any", "a")
    believed.step()
    (record,) = believed.store.records(believed.id, (NonceState.MINED,))
    assert record.newest.fees.tip > 100 * believed.chain.base_fee


@pytest.mark.parametrize("votes", [1, 20, 100])
def test_a_reveal_passes_the_daily_cap_and_all_votes_that_wait_for_it(votes: int) -> None:
    rig = Rig(LanePolicy(daily_cap=Wei(0), uncapped=FIRST))
    waiting = rig.submit("any", *(f"v{number}" for number in range(votes)))
    (reveal,) = rig.submit("once", "r")
    rig.step(2)
    assert rig.state(reveal) is IntentState.MINED
    assert {rig.state(key) for key in waiting} == {IntentState.QUEUED}
    assert rig.chain.executed() == {"r": 1}
    assert "SLUICE_DAILY_SPEND_CAP_WEI" in admin.status(rig.lane).why


def test_votes_wait_without_a_nonce_while_the_base_fee_is_above_the_ceiling() -> None:
    rig = Rig(LanePolicy(fees=FeePolicy(ceiling=Wei(2 * GWEI)), uncapped=FIRST))
    rig.chain.base_fee = 3 * GWEI
    rig.chain.mine()
    (vote,) = rig.submit("any", "v")
    (reveal,) = rig.submit("once", "r")
    rig.step()
    assert (rig.state(vote), rig.state(reveal)) == (IntentState.QUEUED, IntentState.QUEUED)
    assert "SLUICE_MAX_FEE_GWEI" in admin.status(rig.lane).why
    rig.chain.base_fee = GWEI
    rig.step(2)
    assert (rig.state(vote), rig.state(reveal)) == (IntentState.MINED, IntentState.MINED)


@given(worth=st.integers(0, 10**18), base=st.integers(1, 100))
def test_a_reveal_is_sent_above_the_ceiling_exactly_if_its_stake_is_worth_its_gas(worth: int, base: int) -> None:
    rig = Rig(LanePolicy(fees=FeePolicy(ceiling=Wei(2 * GWEI)), uncapped=FIRST))
    rig.chain.base_fee = base * GWEI
    rig.chain.mine()
    reveal = Intent.new(CHAIN_ID, WALLET, "once", "r", {"worth": str(worth)}, rig.clock.now)
    rig.lane.submit([reveal])
    rig.run()
    gas = rig.encoder.encode((reveal,)).gas
    affordable = max(2 * GWEI, worth // gas) >= base * GWEI
    assert (rig.state(reveal.key) is IntentState.SENT) == affordable
    for record in rig.store.records(rig.id, (NonceState.OPEN,)):
        assert record.newest.fees.max_fee * gas <= max(worth, 2 * GWEI * gas)


def test_a_vote_that_blocks_a_reveal_worth_more_is_raised_above_the_ceiling() -> None:
    rig = Rig(LanePolicy(fees=FeePolicy(ceiling=Wei(5 * GWEI)), uncapped=FIRST))
    (vote,) = rig.submit("any", "v")
    rig.run()
    rig.chain.base_fee = 20 * GWEI
    rig.lane.submit([Intent.new(CHAIN_ID, WALLET, "once", "r", {"worth": str(10**18)}, rig.clock.now)])
    rig.step(8)
    assert rig.state(vote) is IntentState.MINED
    assert rig.chain.executed() == {"v": 1, "r": 1}


def test_a_vote_that_blocks_nothing_is_not_raised_above_the_ceiling() -> None:
    rig = Rig(LanePolicy(fees=FeePolicy(ceiling=Wei(5 * GWEI)), uncapped=FIRST))
    (vote,) = rig.submit("any", "v")
    rig.run()
    rig.chain.base_fee = 20 * GWEI
    rig.step(8)
    assert rig.state(vote) is IntentState.SENT


@given(
    votes=st.integers(0, 40),
    base=st.integers(6, 500),
    percent=st.integers(100, 3000),
    in_flight=st.integers(4, 16),
)
def test_whatever_votes_wait_below_the_base_fee_a_reveal_that_is_worth_their_nonces_is_mined(
    votes: int, base: int, percent: int, in_flight: int
) -> None:
    rig = Rig(LanePolicy(max_in_flight=in_flight, fees=FeePolicy(ceiling=Wei(5 * GWEI)), uncapped=FIRST))
    rig.submit("any", *(f"v{number}" for number in range(votes)))
    rig.run()
    rig.chain.base_fee = base * GWEI
    rig.step()
    stuck = len(rig.store.records(rig.id, (NonceState.OPEN,)))
    assert stuck <= rig.policy.most_calls
    # What it takes at least to have its own nonce reached: no-ops in place of the votes.
    worth = (50_000 + 21_000 * stuck) * (base + 1) * GWEI * percent // 100
    reveal = Intent.new(CHAIN_ID, WALLET, "once", "r", {"worth": str(worth)}, rig.clock.now)
    rig.lane.submit([reveal])
    rig.step(2 * in_flight + 8)
    assert rig.state(reveal.key) in (IntentState.MINED, IntentState.FINAL)
    assert rig.chain.executed()["r"] == 1


def test_reveals_go_before_an_operators_calls_and_those_before_votes() -> None:
    rig = Rig(LanePolicy(uncapped=frozenset({"once", "call"})))
    rig.submit("any", "v")
    rig.submit("call", "c")
    rig.submit("once", "r")
    rig.run()
    order = [record.intents[0].split(":")[2] for record in rig.store.records(rig.id, (NonceState.OPEN,))]
    assert order == ["once", "call", "any"]


def test_a_reveal_whose_worth_becomes_known_later_is_paid_for_then() -> None:
    rig = Rig(LanePolicy(fees=FeePolicy(ceiling=Wei(2 * GWEI)), uncapped=FIRST))
    rig.chain.base_fee = 20 * GWEI
    rig.chain.mine()
    (reveal,) = rig.submit("once", "r")
    rig.step(2)
    assert rig.state(reveal) is IntentState.QUEUED
    rig.worth[reveal] = 10**18
    rig.step(2)
    assert rig.state(reveal) is IntentState.MINED
