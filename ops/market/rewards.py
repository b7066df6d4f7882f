"""What each wallet gained by the tasks of a market, by `chain.contracts.escrow`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from chain.contracts.escrow import SIGNS, gains
from chain.rpc.client import JsonRpc
from protocol.types import BlockNumber, Contract, NRlc, TaskId, Wallet


def rewards(
    rpc: JsonRpc, hub: Contract, tasks: Sequence[TaskId], since: BlockNumber
) -> Mapping[TaskId, Mapping[Wallet, NRlc]]:
    """What each wallet gained (or lost: negative) by each task, in nRLC, from block `since` to the head.

    Includes the requester, the owners and the hub's kitty; amounts of zero are left out. The sums over all wallets of a
    finished task are zero.
    """
    raw = rpc.call(
        "eth_getLogs", {"address": hub, "fromBlock": hex(since), "toBlock": "latest", "topics": [list(SIGNS)]}
    )
    sums: dict[TaskId, dict[Wallet, NRlc]] = {task: defaultdict(lambda: NRlc(0)) for task in tasks}
    for gain in gains(raw):
        if gain.task in sums and gain.amount:
            sums[gain.task][gain.wallet] = NRlc(sums[gain.task][gain.wallet] + gain.amount)
    return {task: dict(gain) for task, gain in sums.items()}


def total(by_task: Mapping[TaskId, Mapping[Wallet, NRlc]]) -> Mapping[Wallet, NRlc]:
    """What each wallet gained by all these tasks together."""
    sums: dict[Wallet, NRlc] = defaultdict(lambda: NRlc(0))
    for gain in by_task.values():
        for wallet, amount in gain.items():
            sums[wallet] = NRlc(sums[wallet] + amount)
    return dict(sums)
