"""Fees of the lane's transactions: quotes, fee bumps and ceilings, by each policy."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.lane.model.nonce import Fees
from chain.lane.rules.fees import GWEI, FeeMarket, FeePolicy, PolicyName, bump, ceiling_worth, quote, too_low
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


@pytest.mark.parametrize("asked", [1, 5 * GWEI, 50 * GWEI])
def test_what_was_offered_for_nothing_is_raised_to_the_quote_once_the_chain_asks_a_price(asked: int) -> None:
    free = quote(FeePolicy("normal"), FeeMarket(None, Wei(0)))
    raised = bump(FeePolicy("normal"), FeeMarket(None, Wei(asked)), free)
    assert raised is not None
    assert raised.max_fee >= asked
    assert (raised.tip, raised.legacy) == (raised.max_fee, True)


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


@given(
    worth=st.integers(0, 10**24),
    base=st.integers(0, 10**13),
    suggested=st.integers(0, 10**24),
    floor=st.none() | st.just(GWEI // 10),
    name=st.sampled_from(["fast", "normal", "cheap", "fixed"]),
    bumps=st.integers(0, 30),
)
def test_what_a_transaction_is_worth_raises_what_is_paid_for_the_base_fee_and_never_the_tip(
    worth: int, base: int, suggested: int, floor: int | None, name: PolicyName, bumps: int
) -> None:
    own = FeePolicy(name, ceiling=Wei(2 * GWEI), fixed=Wei(GWEI), tip_floor=None if floor is None else Wei(floor))
    raised = ceiling_worth(own, [(100_000, worth)])
    # Asked for twice, as for what stands in a line and for what is offered, it stays the ceiling of the settings.
    raised = ceiling_worth(raised, [(50_000, worth)])
    market = FeeMarket(Wei(base), Wei(suggested))
    paid = quote(raised, market)
    for _ in range(bumps):
        paid = bump(raised, market, paid) or paid
    assert paid.max_fee <= max(2 * GWEI, worth // 50_000)
    if floor is not None:
        assert paid.tip <= (2 * GWEI if name == "fixed" else GWEI // 2)
    else:
        # The operator's own node: a tip above the ceiling only as far as replacements of too low a price demand it.
        assert quote(raised, market).tip <= 2 * GWEI


@given(suggested=st.integers(0, 10**12), before=st.integers(0, GWEI), after=st.integers(0, 10**13))
def test_a_price_that_no_block_can_include_is_raised_whatever_its_tip_is_already(
    suggested: int, before: int, after: int
) -> None:
    own = FeePolicy(ceiling=Wei(2 * GWEI), tip_floor=Wei(GWEI // 10))
    market = FeeMarket(Wei(after), Wei(suggested))
    paid = quote(own, FeeMarket(Wei(before), Wei(suggested)))
    raised = ceiling_worth(own, [(1, 2 * 10**13)])
    for _ in range(3):
        if not too_low(paid, market.base_fee):
            break
        new = bump(raised, market, paid)
        assert new is not None
        assert new.tip * 10 >= paid.tip * 11
        paid = new
    assert not too_low(paid, market.base_fee)
