"""What to pay per gas: the first quote, and the next one when a transaction is stuck. Pure; all amounts in wei.

EIP-1559   max_fee ≥ base fee, or the transaction cannot be mined; the miner gets min(tip, max_fee - base fee)
legacy     one gas price, which may be 0 where gas is free

A node that the operator did not name (a worker machine gets its node from the pool) is not believed about tips
(`FeePolicy.tip_floor`): the base fee that a transaction pays is the block's own and no node can raise it, while a tip
is paid as offered. What a transaction is worth raises the most that is paid for the base fee (`ceiling_worth`), and
never what a node can have paid as a tip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from chain.lane.model.nonce import NO_WEI, Fees
from protocol.types import Wei

GWEI = 10**9

PolicyName = Literal["fast", "normal", "cheap", "fixed"]

#: (percent of the suggested tip, percent of the base fee to allow for). The base fee grows by at most 12.5 % a block:
#: 200 % outlasts five full blocks, 150 % three, 115 % one.
_SHARES: dict[str, tuple[int, int]] = {"fast": (125, 200), "normal": (100, 150), "cheap": (50, 115)}

#: Most wei per gas unless the settings say otherwise, and the least raise.
CEILING, _BUMP_LEAST = Wei(500 * GWEI), Wei(GWEI // 10)
#: Tip in wei that is offered whatever the base fee: block makers take at least 0.001 to 0.03 gwei, and 0.1 gwei is soon
#: seen as generous where a base fee is that low.
TIP_FLOOR = Wei(GWEI // 10)
#: The part of the ceiling that may go to a tip, or to a legacy gas price, on the word of a node that is not believed.
_BOUNDED_SHARE = 4
#: The part of that share that a first offer may take: a replacement raises the tip as well, within the rest of it (six
#: replacements at 12 % each).
_FIRST_OFFER = 2


@dataclass(frozen=True, slots=True)
class FeePolicy:
    """How to choose fees."""

    name: PolicyName = "fast"
    #: Never offer more than this per gas.
    ceiling: Wei = CEILING
    #: Price per gas under `fixed`.
    fixed: Wei = NO_WEI
    #: Nodes refuse a replacement that does not raise both fields by this many percent (geth: 10).
    bump_percent: int = 12
    #: … and by at least this much, so that a bump of a tiny price has an effect.
    bump_least: Wei = _BUMP_LEAST
    #: Bounds tips by the newest block's base fee, but not below this many wei; None: the node's suggestion is believed.
    tip_floor: Wei | None = None
    #: The ceiling that bounds tips, where `ceiling` was raised; None: `ceiling` itself.
    tip_ceiling: Wei | None = None

    @property
    def believes(self) -> bool:
        """Whether prices are the operator's own, or suggested by a node that the operator named."""
        return self.tip_floor is None or self.name == "fixed"

    @property
    def unraised(self) -> Wei:
        """The ceiling of the settings, whatever waits."""
        return self.ceiling if self.tip_ceiling is None else self.tip_ceiling

    @property
    def tip_share(self) -> Wei:
        """The most wei per gas that is offered as a tip, also by a replacement where a node is not believed."""
        if self.believes:
            return self.unraised
        return Wei(self.unraised // _BOUNDED_SHARE)


@dataclass(frozen=True, slots=True)
class FeeMarket:
    """What the chain asks now."""

    #: Of the newest block; None: the chain has no EIP-1559.
    base_fee: Wei | None
    #: The node's suggestion: a tip, or on a legacy chain the gas price.
    tip: Wei


def quote(policy: FeePolicy, market: FeeMarket) -> Fees:
    """Fees of a nonce's first attempt, at most the ceiling of the settings."""
    most_tip = _most_tip(policy, market)
    if market.base_fee is None:
        price = policy.fixed if policy.name == "fixed" else _percent(market.tip, _SHARES[policy.name][0])
        capped = Wei(min(price, policy.ceiling, most_tip))
        return Fees(capped, capped, legacy=True)
    if policy.name == "fixed":
        price = Wei(min(policy.fixed, policy.ceiling))
        return Fees(price, Wei(min(price, most_tip)))
    tip_share, base_share = _SHARES[policy.name]
    tip = min(_percent(market.tip, tip_share), most_tip)
    if not policy.believes:
        tip = Wei(min(tip, policy.tip_share // _FIRST_OFFER))
    max_fee = min(_percent(market.base_fee, base_share) + tip, policy.ceiling)
    return Fees(Wei(max_fee), Wei(min(tip, max_fee)))


def bump(policy: FeePolicy, market: FeeMarket, paid: Fees) -> Fees | None:
    """Fees of a replacement that nodes accept in place of `paid`; None above the ceiling, or where gas is free.

    An offer of 0 is raised once the chain asks a price: the node may have reported none before.
    """
    wanted, most_tip = quote(policy, market), _most_tip(policy, market)
    if paid.max_fee == 0 and wanted.max_fee == 0 and not market.base_fee:
        return None
    max_fee = max(_raise_price(policy, paid.max_fee), wanted.max_fee)
    tip = max(_raise_price(policy, paid.tip), wanted.tip)
    if too_low(paid, market.base_fee):
        # No block can include it as it is. Nodes take a replacement only if its tip grows as well.
        most = policy.ceiling if policy.tip_floor is None else policy.tip_share
        most_tip = Wei(max(most_tip, min(_least_replacement(policy, paid.tip), most)))
    ceiling = Wei(min(policy.ceiling, most_tip)) if paid.legacy else policy.ceiling
    if max_fee > ceiling:
        # The last step goes exactly to the ceiling, if a node would still see it as a replacement.
        max_fee = ceiling
        if max_fee < _least_replacement(policy, paid.max_fee):
            return None
    tip = min(tip, max_fee, most_tip)
    if not paid.legacy and tip < _least_replacement(policy, paid.tip):
        return None
    return Fees(Wei(max_fee), Wei(max_fee if paid.legacy else tip), legacy=paid.legacy)


def too_low(fees: Fees, base_fee: Wei | None) -> bool:
    """Whether `fees` are below the present base fee, so that no block can include the transaction."""
    return base_fee is not None and fees.max_fee < base_fee


def ceiling_worth(policy: FeePolicy, line: Sequence[tuple[int, int]]) -> FeePolicy:
    """The policy with a ceiling as high as the waiting transactions are worth; tips stay under the ceiling that it had.

    `line`: transactions in the order of their nonces, as (gas limit, wei that is lost without it). To have one mined,
    all before it must be paid for as well.
    """
    most, gas, lost = policy.ceiling, 0, 0
    for limit, worth in line:
        gas += limit
        lost += worth
        if worth:
            most = Wei(max(most, lost // gas))
    return replace(policy, ceiling=most, tip_ceiling=policy.unraised)


def _most_tip(policy: FeePolicy, market: FeeMarket) -> Wei:
    """The highest tip, or legacy gas price, that is offered by what the newest block shows."""
    if market.base_fee is None and policy.believes:
        # A gas price is no tip: it is what the chain asks, by a node that is believed.
        return policy.ceiling
    if market.base_fee is None or policy.believes:
        return policy.tip_share
    return Wei(min(max(market.base_fee, policy.tip_floor or 0), policy.tip_share))


def _percent(amount: Wei, percent: int) -> Wei:
    """`percent` of an amount in wei, rounded up."""
    return Wei(-(-amount * percent // 100))


def _least_replacement(policy: FeePolicy, paid: Wei) -> Wei:
    """The lowest price in wei that nodes accept in place of `paid`."""
    return _percent(paid, 100 + policy.bump_percent)


def _raise_price(policy: FeePolicy, paid: Wei) -> Wei:
    """The price in wei that a bump offers: at least `_least_replacement`, and `bump_least` more than `paid`."""
    return Wei(max(_least_replacement(policy, paid), paid + policy.bump_least))
