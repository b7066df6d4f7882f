"""Which step of a task comes first in a block, by what its wallets offer: on each kind of chain, with any policies."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chain.lane.model.nonce import Fees
from chain.lane.model.policy import LanePolicy
from chain.lane.rules.fees import GWEI, TIP_FLOOR, FeeMarket, FeePolicy, PolicyName, quote
from chain.lane.rules.order import FOLLOWERS, TIP_PERCENT, Order, order_of, ordered_fees
from config.settings import read_settings
from protocol.types import Wei

#: Steps that may share a block, in the order in which the contract needs them.
PAIRS = [("initialize", "contribute"), ("initialize", "contributeAndFinalize"), ("reveal", "finalize")]
POLICIES: tuple[PolicyName, ...] = ("fast", "normal", "cheap")


def effective_tip(fees: Fees, market: FeeMarket) -> int:
    """What geth sorts by."""
    return min(fees.tip, fees.max_fee - (market.base_fee or 0))


def offered(method: str, policy: FeePolicy, market: FeeMarket, order: Order = Order.BY_TIP) -> Fees:
    return ordered_fees(quote(policy, market), method, policy, market, order)


@pytest.mark.parametrize(("leading", "following"), PAIRS)
@pytest.mark.parametrize("first", POLICIES)
@pytest.mark.parametrize("then", POLICIES)
@pytest.mark.parametrize("doubts", [True, False])
@settings(max_examples=15)  # of each of 54 combinations
@given(base=st.integers(7, 300 * GWEI), tip=st.integers(100, 20 * GWEI))
def test_the_leading_step_has_the_higher_tip_whatever_policies_the_two_wallets_have(
    leading: str, following: str, first: PolicyName, then: PolicyName, doubts: bool, base: int, tip: int
) -> None:
    market = FeeMarket(Wei(base), Wei(tip))
    # The machines that reveal may not believe their node about tips, and then offer less than it suggests.
    leader = FeePolicy(name=first, tip_floor=TIP_FLOOR if doubts else None)
    ahead, behind = offered(leading, leader, market), offered(following, FeePolicy(name=then), market)
    assert effective_tip(ahead, market) > effective_tip(behind, market)


@pytest.mark.parametrize(("leading", "following"), PAIRS)
@pytest.mark.parametrize("name", POLICIES)
def test_the_leading_step_has_the_higher_max_fee_too_which_is_what_anvil_sorts_by(
    leading: str, following: str, name: PolicyName
) -> None:
    market, policy = FeeMarket(Wei(GWEI), Wei(GWEI)), FeePolicy(name=name)
    assert offered(leading, policy, market).max_fee > offered(following, policy, market).max_fee


@pytest.mark.parametrize("method", ["initialize", "reveal", "claim", "reopen", "call"])
def test_a_step_that_leads_or_stands_alone_pays_what_it_always_pays(method: str) -> None:
    market, policy = FeeMarket(Wei(GWEI), Wei(GWEI)), FeePolicy()
    assert offered(method, policy, market) == quote(policy, market)


@pytest.mark.parametrize("method", sorted(TIP_PERCENT))
def test_where_the_first_to_come_is_served_first_no_step_pays_less(method: str) -> None:
    market, policy = FeeMarket(Wei(GWEI), Wei(GWEI)), FeePolicy()
    assert offered(method, policy, market, Order.ARRIVAL) == quote(policy, market)


@pytest.mark.parametrize("method", sorted(TIP_PERCENT))
@pytest.mark.parametrize("price", [0, 5 * GWEI])
def test_where_gas_has_one_price_no_step_pays_less(method: str, price: int) -> None:
    market, policy = FeeMarket(None, Wei(price)), FeePolicy()
    assert offered(method, policy, market) == quote(policy, market)


@pytest.mark.parametrize("method", sorted(FOLLOWERS))
@given(base=st.integers(0, 300 * GWEI), price=st.integers(1, 400 * GWEI))
def test_a_fixed_price_stays_and_only_its_tip_falls(method: str, base: int, price: int) -> None:
    market, policy = FeeMarket(Wei(base), Wei(GWEI)), FeePolicy(name="fixed", fixed=Wei(price))
    usual, lowered = quote(policy, market), offered(method, policy, market)
    assert lowered.max_fee == usual.max_fee
    assert lowered.tip <= usual.tip


@given(base=st.integers(0, 10**4 * GWEI), tip=st.integers(0, 10**3 * GWEI), ceiling=st.integers(1, 600 * GWEI))
def test_a_lowered_offer_is_as_good_for_the_base_fee_and_no_tip_is_above_its_max_fee(
    base: int, tip: int, ceiling: int
) -> None:
    market, policy = FeeMarket(Wei(base), Wei(tip)), FeePolicy(ceiling=Wei(ceiling))
    usual, lowered = quote(policy, market), offered("contribute", policy, market)
    assert 0 <= lowered.tip <= lowered.max_fee <= usual.max_fee
    assert lowered.max_fee - lowered.tip >= usual.max_fee - usual.tip


def test_at_the_ceiling_only_the_tip_falls_and_the_base_fee_is_paid_as_ever() -> None:
    market, policy = FeeMarket(Wei(19 * GWEI // 2), Wei(5 * GWEI // 2)), FeePolicy(ceiling=Wei(10 * GWEI))
    usual, lowered = quote(policy, market), offered("contribute", policy, market)
    assert (lowered.max_fee, lowered.tip < usual.tip) == (usual.max_fee, True)
    assert lowered.max_fee > 19 * GWEI // 2


def test_a_reveal_follows_nothing() -> None:
    assert "reveal" not in FOLLOWERS
    assert {following for _, following in PAIRS} == FOLLOWERS


@pytest.mark.parametrize(
    ("chain_id", "order"),
    [
        (1, Order.BY_TIP),
        (134, Order.BY_TIP),
        (31337, Order.BY_TIP),
        (42161, Order.ARRIVAL),
        (42170, Order.ARRIVAL),
        (421614, Order.ARRIVAL),
    ],
)
def test_a_chain_is_known_by_its_id(chain_id: int, order: Order) -> None:
    assert order_of(chain_id) is order
    assert LanePolicy.of(read_settings(chain_id=chain_id, state="pending")).order is order
    assert LanePolicy.of(read_settings(chain_id=chain_id)).order is None


def test_a_first_offer_with_an_order_and_without_differs_only_for_steps_that_follow() -> None:
    policy = LanePolicy()
    assert policy.order is None
    assert replace(policy, order=Order.BY_TIP).fees == policy.fees
