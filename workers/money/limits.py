"""What this machine may pay and risk, and whether another task still fits. Pure.

               own limit                     reached                     what goes on all the same
    gas price  SLUICE_MAX_FEE_GWEI           no new task, votes wait     reveals that save a stake worth more
    24 hours   SLUICE_DAILY_SPEND_CAP_WEI    no new task, votes wait     reveals; raising the fee of what is open
    stake      SLUICE_MOST_STAKE_NRLC        that task is declined       what is locked already

The limits are checked before a task is computed, at the worst price of all that it will send, so that the lane holds
nothing back later: a vote that cannot be sent is work for nothing, and one that cannot be revealed loses its stake.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from chain.contracts.calls import GAS_LIMITS
from chain.lane.model.policy import LanePolicy
from chain.lane.rules.fees import GWEI, TIP_FLOOR, FeeMarket, quote
from config.settings import Settings
from protocol.amounts import ETHER, NRLC, ether, gwei, rlc
from protocol.types import NRlc, Wei
from workers.task.replicate import COMPUTING, Replicate, ReplicateStage
from workers.task.votes import CONTRIBUTE, REVEAL, SOLO

#: Lane methods that the daily cap does not hold back: a vote that is not revealed loses its stake, and a `call` is a
#: deposit or withdrawal that the operator asked for.
UNCAPPED = frozenset({REVEAL, "call"})
#: Bytes of calldata of contributeAndFinalize that are stored: a result link and callback data.
_STORED_BYTES = 300
#: Bellecour, where the native token is RLC itself and gas is free.
BELLECOUR = 134


@dataclass(frozen=True, slots=True)
class Caps:
    """This machine's own limits."""

    #: Wei per gas.
    price: Wei
    #: Wei for gas in any 24 hours.
    day: Wei
    #: nRLC locked by the pool's tasks at a time; None: the wallet's deposit is the limit.
    stake: NRlc | None = None


#: Limits of gas price and of 24 hours unless the settings have others, by chain id. A task uses about 480,000 gas.
_BY_CHAIN = {
    # Gas is free.
    BELLECOUR: Caps(Wei(0), Wei(0)),
    # Arbitrum One and Sepolia: base fee 0.01 to 0.1 gwei; 2 gwei has been seen in rushes of minutes. Some 2,000 tasks.
    42161: Caps(Wei(2 * GWEI), Wei(ETHER // 50)),
    421614: Caps(Wei(2 * GWEI), Wei(ETHER // 50)),
    # Ethereum and Sepolia: above 50 gwei a task costs more than it can bring. Some 200 tasks at 1 gwei.
    1: Caps(Wei(50 * GWEI), Wei(ETHER // 10)),
    11155111: Caps(Wei(50 * GWEI), Wei(ETHER // 10)),
    # Development chains, whose money is worth nothing: bounds that a mistake meets and a benchmark does not.
    31337: Caps(Wei(100 * GWEI), Wei(50 * ETHER)),
    1337: Caps(Wei(100 * GWEI), Wei(50 * ETHER)),
}
#: Any other chain: prices differ a thousandfold between tokens, so these stop only absurd amounts.
_ELSEWHERE = Caps(Wei(100 * GWEI), Wei(ETHER))


def caps_of(settings: Settings) -> Caps:
    """The limits by the settings of a machine that knows its chain."""
    known = _BY_CHAIN.get(settings.chain_id, _ELSEWHERE)
    price, day, stake = settings.max_fee_gwei, settings.daily_spend_cap_wei, settings.most_stake_nrlc
    return Caps(
        price=known.price if price is None else Wei(int(price * GWEI)),
        day=known.day if day is None else Wei(day),
        stake=None if stake is None else NRlc(stake),
    )


def lane_policy(settings: Settings, *, node_of_pool: bool) -> LanePolicy:
    """How this machine's lane pays. `node_of_pool`: its node is the one that the pool named, whose tips are
    bounded by the newest block's base fee.
    """
    policy, caps = LanePolicy.of(settings), caps_of(settings)
    fees = replace(policy.fees, ceiling=caps.price, tip_floor=TIP_FLOOR if node_of_pool else None)
    return replace(policy, fees=fees, daily_cap=caps.day, uncapped=UNCAPPED)


def worth_in_wei(stake: NRlc, settings: Settings) -> int:
    """What a stake is worth to this machine, in wei: never more than it would risk or spend in a day.

    The stake is what a node says of the chain. So it counts up to the limit on stake, and the worth up to the gas of
    24 hours.
    """
    caps = caps_of(settings)
    believed = stake if caps.stake is None else min(stake, caps.stake)
    per_rlc = ETHER if settings.chain_id == BELLECOUR else settings.rlc_value_wei
    return min(believed * per_rlc // NRLC, caps.day)


@dataclass(frozen=True, slots=True)
class Budget:
    """What is spent and risked at a moment."""

    #: Fees of what was mined in the last 24 hours, by its receipts.
    spent: Wei
    #: The most that what is signed or queued may cost, and what tasks under way will still send.
    in_flight: Wei
    #: nRLC that tasks of the pool lock or will lock.
    locked: NRlc
    #: Of the newest block that was seen; None: not known, or a chain without.
    base_fee: Wei | None
    #: The most that is offered per gas now.
    price: Wei
    #: Gas by lane method that the chain takes on top (`workers.money.market`).
    surcharge: Mapping[str, int] = field(default_factory=dict)


def why_not(budget: Budget, caps: Caps, gas: int, stake: NRlc) -> str | None:
    """Why a task that may use so much gas and lock so much stake is not taken; None if it fits."""
    if budget.base_fee is not None and budget.base_fee > caps.price:
        return (
            f"gas costs {gwei(budget.base_fee)} gwei (base fee) and this machine pays at most {gwei(caps.price)}"
            " (SLUICE_MAX_FEE_GWEI)"
        )
    cost = gas * budget.price
    if budget.spent + budget.in_flight + cost > caps.day:
        return (
            f"of the {ether(caps.day)} that this machine may spend on gas in 24 hours {ether(budget.spent)} are spent,"
            f" {ether(budget.in_flight)} may be under way, and a task may cost {ether(cost)}"
            " (SLUICE_DAILY_SPEND_CAP_WEI)"
        )
    if stake and caps.stake is not None and budget.locked + stake > caps.stake:
        return (
            f"the pool's tasks lock {rlc(budget.locked)} RLC, a task would lock {rlc(stake)} more, and this machine"
            f" risks at most {rlc(caps.stake)} at a time (SLUICE_MOST_STAKE_NRLC)"
        )
    return None


def why_no_task(budget: Budget, caps: Caps, least_stake: NRlc) -> str | None:
    """Why no task at all is taken; None if the cheapest one would fit, which locks `least_stake`."""
    least = min(task_gas(solo=solo, surcharge=budget.surcharge) for solo in (True, False))
    return why_not(budget, caps, least, least_stake)


def task_gas(*, solo: bool, surcharge: Mapping[str, int]) -> int:
    """The gas limits of all that one task sends. `surcharge`: as in Budget."""
    if solo:
        limit = GAS_LIMITS[SOLO]
        return limit.base + _STORED_BYTES * limit.per_byte + surcharge.get(SOLO, 0)
    return sum(GAS_LIMITS[method].base + surcharge.get(method, 0) for method in (CONTRIBUTE, REVEAL))


def gas_to_come(replicate: Replicate, surcharge: Mapping[str, int]) -> int:
    """The gas limits of what a task will still give to the lane. `surcharge`: as in Budget."""
    if replicate.stage in COMPUTING or replicate.stage is ReplicateStage.COMPUTED:
        return task_gas(solo=replicate.solo, surcharge=surcharge)
    voted = replicate.stage is ReplicateStage.COMMITTED and not replicate.solo
    return GAS_LIMITS[REVEAL].base + surcharge.get(REVEAL, 0) if voted else 0


def locks_stake(replicate: Replicate) -> bool:
    """Whether the task locks this wallet's stake, or will."""
    return not replicate.solo and replicate.stage not in (ReplicateStage.FAILED, ReplicateStage.ABORTED)


def budget_of(
    policy: LanePolicy,
    market: FeeMarket | None,
    *,
    spent: Wei,
    signed: Wei,
    queued_gas: int,
    replicates: Sequence[Replicate],
    stakes: dict[str, NRlc],
    surcharge: Mapping[str, int],
) -> Budget:
    """The budget from its parts. `signed`: the most that open nonces cost; `stakes`: nRLC by deal, where known.

    Without a market, the price is the ceiling.
    """
    price = policy.fees.ceiling if market is None else quote(policy.fees, market).max_fee
    to_come = queued_gas + sum(gas_to_come(item, surcharge) for item in replicates)
    locked = sum(stakes.get(item.assignment.deal_id, 0) for item in replicates if locks_stake(item))
    return Budget(
        spent=spent,
        in_flight=Wei(signed + to_come * price),
        locked=NRlc(locked),
        base_fee=None if market is None else market.base_fee,
        price=price,
        surcharge=surcharge,
    )
