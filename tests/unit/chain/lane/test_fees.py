from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.lane.model.nonce import Fees
from chain.lane.rules.fees import GWEI, FeeMarket, FeePolicy, bump, quote, too_low
from protocol.types import Wei

MARKET = FeeMarket(Wei(10 * GWEI), Wei(2 * GWEI))


@pytest.mark.parametrize(
    ("policy", "max_fee", "tip"),
    [
        # 2 × base + 1.25 × tip
        (FeePolicy("fast"), 22.5, 2.5),
        # 1.5 × base + tip
        (FeePolicy("normal"), 17, 2),
        # 1.15 × base + half the tip
        (FeePolicy("cheap"), 12.5, 1),
        (FeePolicy("fixed", fixed=Wei(7 * GWEI)), 7, 7),
    ],
)
def test_each_policy_quotes_its_shares_of_the_market(policy: FeePolicy, max_fee: float, tip: float) -> None:
    assert quote(policy, MARKET) == Fees(Wei(int(max_fee * GWEI)), Wei(int(tip * GWEI)))


def test_a_quote_stays_below_the_ceiling_in_both_fields() -> None:
    fees = quote(FeePolicy(ceiling=Wei(GWEI)), MARKET)
    assert fees == Fees(Wei(GWEI), Wei(GWEI))


def test_a_chain_without_eip_1559_gets_one_gas_price() -> None:
    assert quote(FeePolicy("normal"), FeeMarket(None, Wei(20 * GWEI))) == Fees(
        Wei(20 * GWEI), Wei(20 * GWEI), legacy=True
    )


def test_where_gas_is_free_nothing_is_offered_and_nothing_is_raised() -> None:
    for market in (FeeMarket(None, Wei(0)), FeeMarket(Wei(0), Wei(0))):
        free = quote(FeePolicy(), market)
        assert free.max_fee == 0
        assert bump(FeePolicy(), market, free) is None


def test_a_fixed_price_below_the_base_fee_can_still_be_raised() -> None:
    policy = FeePolicy("fixed", fixed=Wei(GWEI))
    raised = bump(policy, MARKET, quote(policy, MARKET))
    assert raised is not None
    assert raised.max_fee > GWEI


def test_a_price_below_the_base_fee_is_too_low() -> None:
    assert too_low(Fees(Wei(9 * GWEI), Wei(1)), Wei(10 * GWEI))
    assert not too_low(Fees(Wei(10 * GWEI), Wei(1)), Wei(10 * GWEI))
    assert not too_low(Fees(Wei(0), Wei(0), legacy=True), None)


@given(
    paid=st.integers(1, 10**13),
    tip=st.integers(0, 10**12),
    base=st.integers(0, 10**12),
    suggested=st.integers(0, 10**11),
    ceiling=st.integers(1, 10**13),
    legacy=st.booleans(),
)
def test_a_raise_is_what_geth_takes_for_one_and_never_above_the_ceiling(
    paid: int, tip: int, base: int, suggested: int, ceiling: int, legacy: bool
) -> None:
    policy = FeePolicy(ceiling=Wei(ceiling))
    old = Fees(Wei(paid), Wei(paid if legacy else min(tip, paid)), legacy)
    new = bump(policy, FeeMarket(None if legacy else Wei(base), Wei(suggested)), old)
    if new is None:
        return
    assert new.max_fee <= ceiling
    assert new.max_fee * 10 >= old.max_fee * 11
    assert new.tip * 10 >= old.tip * 11
    assert new.tip <= new.max_fee
    assert new.legacy == legacy
