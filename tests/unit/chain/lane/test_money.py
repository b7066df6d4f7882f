"""What the lane may spend."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from chain.lane import admin
from chain.lane.model.intent import IntentState
from chain.lane.model.policy import LanePolicy
from chain.lane.rules.fees import GWEI
from protocol.types import Wei
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


def test_an_open_nonce_is_made_dearer_past_the_daily_cap() -> None:
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
