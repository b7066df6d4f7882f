"""Ids of deals and tasks, computed as the contracts do, so that we know them before the event arrives.

request order hash ‖ uint256 bot_first ──keccak──► deal id ‖ uint256 index ──keccak──► task id
(EIP-712 digest)     volume already consumed               bot_first .. bot_first + bot_size - 1
"""

from __future__ import annotations

from protocol.ethereum.hexbytes import to_bytes, to_hex
from protocol.ethereum.keccak import keccak
from protocol.types import DealId, Hash32, TaskId


def deal_id(request_order_hash: Hash32, bot_first: int) -> DealId:
    """Id of the deal that starts at unit `bot_first` of that request order."""
    return DealId(to_hex(keccak(to_bytes(request_order_hash, 32) + bot_first.to_bytes(32, "big"))))


def task_id(deal: DealId, index: int) -> TaskId:
    """Id of the deal's task with that index (absolute: the first task of a deal has index `bot_first`)."""
    return TaskId(to_hex(keccak(to_bytes(deal, 32) + index.to_bytes(32, "big"))))
