"""Who was paid and who paid, task by task, from the hub's own escrow logs.

    Reward(owner, amount, ref)   + amount      ref is the task id
    Seize(owner, amount, ref)    - amount      the requester's price, a liar's stake, a scheduler that let a task fail

What is locked and unlocked again is no money made or lost, and not counted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from eth_abi.abi import decode

from chain.contracts.decode import topic
from chain.rpc.client import JsonRpc
from protocol.ethereum.hexbytes import to_bytes, to_hex
from protocol.types import BlockNumber, Contract, NRlc, TaskId, Wallet

#: Sign of each log's amount.
_SIGNS = {topic("Reward(address,uint256,bytes32)"): 1, topic("Seize(address,uint256,bytes32)"): -1}
_TYPES = ("address", "uint256", "bytes32")


def rewards(
    rpc: JsonRpc, hub: Contract, tasks: Sequence[TaskId], since: BlockNumber
) -> Mapping[TaskId, Mapping[Wallet, NRlc]]:
    """What each wallet gained (or lost: negative) by each task, in nRLC, from block `since` to the head.

    Includes the requester, the owners and the hub's kitty; amounts of zero are left out. The sums over all wallets of a
    finished task are zero.
    """
    raw = rpc.call(
        "eth_getLogs", {"address": hub, "fromBlock": hex(since), "toBlock": "latest", "topics": [list(_SIGNS)]}
    )
    wanted = set(tasks)
    gains: dict[TaskId, dict[Wallet, NRlc]] = {task: defaultdict(lambda: NRlc(0)) for task in tasks}
    for log in raw:
        owner, amount, reference = decode(_TYPES, to_bytes(log["data"]))
        task = TaskId(to_hex(reference))
        if task in wanted and amount:
            gain = gains[task]
            gain[Wallet(owner)] = NRlc(gain[Wallet(owner)] + _SIGNS[log["topics"][0]] * amount)
    return {task: dict(gain) for task, gain in gains.items()}


def total(by_task: Mapping[TaskId, Mapping[Wallet, NRlc]]) -> Mapping[Wallet, NRlc]:
    """nRLC that each wallet gained by all these tasks together."""
    sums: dict[Wallet, NRlc] = defaultdict(lambda: NRlc(0))
    for gain in by_task.values():
        for wallet, amount in gain.items():
            sums[wallet] = NRlc(sums[wallet] + amount)
    return dict(sums)
