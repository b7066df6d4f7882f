"""Who was paid and who paid, by the hub's own escrow logs.

    Reward(owner, amount, ref)   + amount      ref is the task id
    Seize(owner, amount, ref)    - amount      the requester's price, a liar's stake, a scheduler that let a task fail

What is locked and unlocked again is no money made or lost, and not counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from eth_abi.abi import decode

from chain.contracts.decode import topic
from protocol.ethereum.hexbytes import to_bytes, to_hex
from protocol.types import TaskId, Wallet

#: Sign of each log's amount.
SIGNS = {topic("Reward(address,uint256,bytes32)"): 1, topic("Seize(address,uint256,bytes32)"): -1}
_TYPES = ("address", "uint256", "bytes32")


class Gain(NamedTuple):
    """What one wallet gained by one task, nRLC; negative: lost."""

    wallet: Wallet
    task: TaskId
    amount: int


def gains(logs: Iterable[Mapping[str, Any]]) -> Iterator[Gain]:
    """The gains among a hub's raw logs; others are left out."""
    for log in logs:
        sign = SIGNS.get(log["topics"][0]) if log["topics"] else None
        if sign is not None:
            owner, amount, reference = decode(_TYPES, to_bytes(log["data"]))
            yield Gain(Wallet(owner), TaskId(to_hex(reference)), sign * amount)
