"""How transactions of two wallets are ordered in a block, and the tip that puts a step behind the one it relies on.

A block that holds both must run `initialize` before `contribute`, and the last `reveal` before `finalize`.

    order    who comes first            where                                       source
    BY_TIP   the higher effective tip   geth, Nethermind and other block builders   geth 1.17: miner/ordering.go; tried
             the higher max fee         anvil (`--order fees`)                      anvil 1.7.1: tried
             of equals the older one    both; so everywhere that gas is free        tried
    ARRIVAL  who came first             Arbitrum: the sequencer's queue             docs.arbitrum.io: "The Sequencer"

The effective tip is min(tip, max fee - base fee). Where it decides, tips fall from step to step: the leading step pays
what it always pays, the one behind it less. The two are offered by different wallets, perhaps by different policies and
nodes, so the difference is large: `cheap` leads with 50 % of the suggested tip, and `fast` follows with 125 % of 30 %,
which is 37.5 %.
"""

from __future__ import annotations

from enum import StrEnum

from chain.lane.model.nonce import Fees
from chain.lane.rules.fees import TIP_FLOOR, FeeMarket, FeePolicy
from protocol.types import Wei


class Order(StrEnum):
    """How a chain orders transactions of different wallets in a block."""

    BY_TIP = "by tip"
    ARRIVAL = "arrival"


#: Chains where who comes first is served first; all others go by the tip.
_ARRIVAL_CHAINS = {42161: "Arbitrum One", 42170: "Arbitrum Nova", 421614: "Arbitrum Sepolia"}
#: Percent of its usual tip that a step offers; what is not here is no step of a task, and pays the usual.
TIP_PERCENT = {
    "initialize": 100,
    "contribute": 30,
    "contributeAndFinalize": 30,
    "reveal": 100,
    "finalize": 30,
}
#: The steps that may go out behind another one of the same block. Never `reveal`: it shows the digest, and until the
#: consensus is in a block whoever copies it has not worked.
FOLLOWERS = frozenset({"contribute", "contributeAndFinalize", "finalize"})
#: A machine that does not believe its node about tips offers the base fee at most (`fees`): half of that is behind it.
_UNBELIEVED_TIP_PERCENT = 50


def order_of(chain_id: int) -> Order:
    """How the chain with this id orders transactions."""
    return Order.ARRIVAL if chain_id in _ARRIVAL_CHAINS else Order.BY_TIP


def ordered_fees(fees: Fees, method: str, policy: FeePolicy, market: FeeMarket, order: Order) -> Fees:
    """`fees` of a step's first attempt, with the tip lowered so that it comes behind the step that it relies on. Pure.

    They stay as they are where order of arrival decides or gas has one price, and for steps that rely on no other.
    """
    percent = TIP_PERCENT.get(method, 100)
    if order is Order.ARRIVAL or fees.legacy or market.base_fee is None or percent == 100:
        return fees
    most = max(market.base_fee, TIP_FLOOR) * _UNBELIEVED_TIP_PERCENT // 100
    tip = Wei(min(fees.tip * percent // 100, most))
    # What is left for the base fee stays the same. A fixed price is the operator's own, and at the ceiling the base fee
    # has got too little already: there the tip alone falls.
    kept = policy.name == "fixed" or fees.max_fee >= policy.ceiling
    max_fee = fees.max_fee if kept else Wei(fees.max_fee - (fees.tip - tip))
    return Fees(max_fee, tip)
