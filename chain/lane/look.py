"""What the chain looks like to one wallet at the start of a run: one batch of requests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from chain.lane.fees import Market
from chain.lane.nonce import NonceRecord
from chain.lane.ready import Moment
from chain.rpc import JsonRpc, Request
from protocol.errors import RpcError, RpcUnavailable
from protocol.types import BlockHash, BlockNumber, Nonce, Timestamp, Wallet, Wei


@dataclass(frozen=True, slots=True)
class Look:
    """The head and the wallet's account."""

    head: BlockNumber
    #: Block time of the head, Unix seconds.
    timestamp: Timestamp
    market: Market
    #: Transactions of the wallet that are mined: the lowest nonce that is not.
    count: Nonce
    balance: Wei
    #: Hash that the chain has now at the height of the newest record in a block; None if it has no such block.
    mined_hash: BlockHash | None

    @property
    def moment(self) -> Moment:
        """The head as the block a verdict is about."""
        return Moment(self.head, self.timestamp)

    def contradicts(self, newest: NonceRecord | None) -> bool:
        """Whether a block that mined ours is gone. Blocks are chained: if the newest stands, all before it stand.

        A node that has thrown old blocks away cannot say which block stood there; the mined count still speaks.
        """
        if newest is None or newest.mined is None:
            return False
        if self.count <= newest.nonce or self.head < newest.mined.block:
            return True
        return self.mined_hash is not None and self.mined_hash != newest.mined.block_hash


def look(rpc: JsonRpc, wallet: Wallet, newest: NonceRecord | None) -> Look:
    """Read it. `newest`: the newest record in a block. Raises RpcUnavailable."""
    requests: list[Request] = [
        ("eth_getBlockByNumber", ("latest", False)),
        ("eth_getTransactionCount", (wallet, "latest")),
        ("eth_getBalance", (wallet, "latest")),
        ("eth_gasPrice", ()),
    ]
    if newest is not None and newest.mined is not None:
        requests.append(("eth_getBlockByNumber", (hex(newest.mined.block), False)))
    header, count, balance, price, *mined = rpc.batch(requests)
    for answer in (header, count, balance):
        if isinstance(answer, RpcError) or answer is None:
            raise RpcUnavailable(what=rpc.name, why=f"it cannot say what the head is: {answer}")
    price = _wei(price)
    base_fee = None if header.get("baseFeePerGas") is None else _wei(header["baseFeePerGas"])
    return Look(
        head=BlockNumber(int(header["number"], 16)),
        timestamp=Timestamp(int(header["timestamp"], 16)),
        # A node's gas price is the base fee and the tip it suggests: one request tells both.
        market=Market(base_fee, price if base_fee is None else Wei(max(0, price - base_fee))),
        count=Nonce(int(count, 16)),
        balance=Wei(int(balance, 16)),
        mined_hash=mined[0]["hash"] if mined and isinstance(mined[0], dict) else None,
    )


def _wei(answer: Any) -> Wei:
    """An amount; 0 where the node does not know the method (an old or a zero-gas chain)."""
    return Wei(0) if isinstance(answer, RpcError) or answer is None else Wei(int(answer, 16))
