"""What to pay per gas: the first quote, and the next one when a transaction is stuck. Pure; all amounts in wei.

EIP-1559   max_fee ≥ base fee, or the transaction cannot be mined; the miner gets min(tip, max_fee - base fee)
legacy     one gas price, which may be 0 where gas is free
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from chain.lane.model.nonce import NO_WEI, Fees
from protocol.types import Wei

GWEI = 10**9

PolicyName = Literal["fast", "normal", "cheap", "fixed"]

#: (percent of the suggested tip, percent of the base fee to allow for). The base fee grows by at most 12.5 % a block:
#: 200 % outlasts five full blocks, 150 % three, 115 % one.
_SHARES: dict[str, tuple[int, int]] = {"fast": (125, 200), "normal": (100, 150), "cheap": (50, 115)}

_CEILING, _BUMP_LEAST = Wei(500 * GWEI), Wei(GWEI // 10)


@dataclass(frozen=True, slots=True)
class FeePolicy:
    """How to choose fees."""

    name: PolicyName = "fast"
    #: Never offer more than this per gas.
    ceiling: Wei = _CEILING
    #: Price per gas under `fixed`.
    fixed: Wei = NO_WEI
    #: Nodes refuse a replacement that does not raise both fields by this many percent (geth: 10).
    bump_percent: int = 12
    #: … and by at least this much, so that a bump of a tiny price says something.
    bump_least: Wei = _BUMP_LEAST


@dataclass(frozen=True, slots=True)
class FeeMarket:
    """What the chain asks now."""

    #: Of the newest block; None: the chain has no EIP-1559.
    base_fee: Wei | None
    #: The node's suggestion: a tip, or on a legacy chain the gas price.
    tip: Wei


def quote(policy: FeePolicy, market: FeeMarket) -> Fees:
    """Fees of a nonce's first attempt, at most the ceiling of the settings."""
    if market.base_fee is None:
        price = policy.fixed if policy.name == "fixed" else _percent(market.tip, _SHARES[policy.name][0])
        capped = Wei(min(price, policy.ceiling))
        return Fees(capped, capped, legacy=True)
    if policy.name == "fixed":
        price = Wei(min(policy.fixed, policy.ceiling))
        return Fees(price, price)
    tip_share, base_share = _SHARES[policy.name]
    tip = _percent(market.tip, tip_share)
    max_fee = min(_percent(market.base_fee, base_share) + tip, policy.ceiling)
    return Fees(Wei(max_fee), Wei(min(tip, max_fee)))


def bump(policy: FeePolicy, market: FeeMarket, paid: Fees) -> Fees | None:
    """Fees of a replacement that nodes accept in place of `paid`; None above the ceiling, or where gas is free."""
    if paid.max_fee == 0 and not market.base_fee:
        return None
    wanted = quote(policy, market)
    max_fee = max(_raise_price(policy, paid.max_fee), wanted.max_fee)
    tip = max(_raise_price(policy, paid.tip), wanted.tip)
    if max_fee > policy.ceiling:
        # The last step goes exactly to the ceiling, if a node would still see it as a replacement.
        max_fee = policy.ceiling
        if max_fee < _least_replacement(policy, paid.max_fee):
            return None
    tip = min(tip, max_fee)
    if tip < _least_replacement(policy, paid.tip):
        return None
    return Fees(Wei(max_fee), Wei(max_fee if paid.legacy else tip), legacy=paid.legacy)


def too_low(fees: Fees, base_fee: Wei | None) -> bool:
    """Whether `fees` are below the present base fee, so that no block can include the transaction."""
    return base_fee is not None and fees.max_fee < base_fee


def _percent(amount: Wei, percent: int) -> Wei:
    """`percent` of an amount in wei, rounded up."""
    return Wei(-(-amount * percent // 100))


def _least_replacement(policy: FeePolicy, paid: Wei) -> Wei:
    """The lowest price in wei that nodes accept in place of `paid`."""
    return _percent(paid, 100 + policy.bump_percent)


def _raise_price(policy: FeePolicy, paid: Wei) -> Wei:
    """The price in wei that a bump offers: at least `_least_replacement`, and `bump_least` more than `paid`."""
    return Wei(max(_least_replacement(policy, paid), paid + policy.bump_least))
