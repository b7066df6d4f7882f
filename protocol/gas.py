"""How much native token a worker's wallet needs to be given a task. Pure."""

from __future__ import annotations

from protocol.types import Wei

#: Gas a worker spends on one task: contributeAndFinalize 0.52 M, contribute and reveal 0.48 M; a third on top.
GAS_PER_TASK = 700_000


def gas_for_task(gas_price: int) -> Wei:
    """Wei that a wallet must have to be given a task: the most that one task's transactions cost at this gas price."""
    return Wei(gas_price * GAS_PER_TASK)
