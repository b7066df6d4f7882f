"""What the chain looks like to one wallet at the start of a run: one batch of requests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from chain.lane.model.nonce import Mined, NonceRecord
from chain.lane.rules.fees import FeeMarket
from chain.lane.rules.readiness import Moment
from chain.rpc.answers import Known, Reply, decode_reply, value_of
from chain.rpc.client import JsonRpc, Request
from protocol.errors import RpcError, RpcUnavailable
from protocol.types import BlockHash, BlockNumber, Nonce, Timestamp, Wallet, Wei

#: JSON-RPC's code for a method that a node does not have.
_NO_SUCH_METHOD = -32601
#: Blocks that a reorg may take away and not bring back at once; a node that lacks more is behind.
_MOST_BEHIND = 64


@dataclass(frozen=True, slots=True)
class ChainSnapshot:
    """The chain as one wallet sees it at the start of a run: head, fees and the wallet's account."""

    head: BlockNumber
    #: Block time of the head, Unix seconds.
    timestamp: Timestamp
    market: FeeMarket
    #: Account nonce (`latest`): the lowest nonce that is not mined.
    count: Nonce
    balance: Wei
    #: Hash that the chain has now at the height of the newest record in a block; None if it has no such block.
    mined_hash: BlockHash | None

    @property
    def moment(self) -> Moment:
        """The head's number and time, for `Readiness.check`."""
        return Moment(self.head, self.timestamp)

    def contradicts(self, newest: NonceRecord | None) -> bool:
        """Whether a reorg removed the block of `newest`, the newest record in a block.

        Blocks are chained: if that one stands, all before it stand. A node without old blocks cannot say which one
        stood there; then the account nonce decides.
        """
        if newest is None or newest.mined is None:
            return False
        if self.count <= newest.nonce or self.head < newest.mined.block:
            return True
        return self.mined_hash is not None and self.mined_hash != newest.mined.block_hash


def take_snapshot(rpc: JsonRpc, wallet: Wallet, newest: NonceRecord | None) -> ChainSnapshot:
    """Read head, account nonce, balance and gas price of `wallet` in one batch. Raises RpcUnavailable.

    `newest`: the newest record in a block, whose block hash is then read as well.
    """
    requests: list[Request] = [
        ("eth_getBlockByNumber", ("latest", False)),
        ("eth_getTransactionCount", (wallet, "latest")),
        ("eth_getBalance", (wallet, "latest")),
        ("eth_gasPrice", ()),
    ]
    if newest is not None and newest.mined is not None:
        requests.append(("eth_getBlockByNumber", (hex(newest.mined.block), False)))
    header, count, balance, price, *mined = rpc.batch(requests)
    head, timestamp, base_fee = value_of(decode_reply(header, _parse_header), rpc.name)
    offered = _decode_price(price, rpc.name)
    seen = ChainSnapshot(
        head=head,
        timestamp=timestamp,
        # A node's gas price is the base fee and the tip it suggests: one request tells both.
        market=FeeMarket(base_fee, offered if base_fee is None else Wei(max(0, offered - base_fee))),
        count=Nonce(value_of(decode_reply(count, _parse_quantity), rpc.name)),
        balance=Wei(value_of(decode_reply(balance, _parse_quantity), rpc.name)),
        mined_hash=_decode_hash(mined[0]) if mined else None,
    )
    if newest is not None and newest.mined is not None:
        _check_plausible(seen, newest, newest.mined, rpc.name)
    return seen


def _check_plausible(seen: ChainSnapshot, newest: NonceRecord, mined: Mined, node: str) -> None:
    """Raise RpcUnavailable for a snapshot that no reorg explains: the node lags, or a load balancer mixed two nodes."""
    if mined.block - seen.head > _MOST_BEHIND:
        why = f"it is behind: its head is block {seen.head}, and {mined.tx_hash} was mined in block {mined.block}"
        raise RpcUnavailable(what=node, why=why)
    if seen.count <= newest.nonce and seen.mined_hash == mined.block_hash:
        why = f"it contradicts itself: block {mined.block} stands, but nonce {newest.nonce} that it holds is not spent"
        raise RpcUnavailable(what=node, why=why)


def _parse_header(header: dict[str, Any]) -> tuple[BlockNumber, Timestamp, Wei | None]:
    """Number, timestamp and base fee (None before EIP-1559) of a block header."""
    base_fee = header.get("baseFeePerGas")
    return (
        BlockNumber(_parse_quantity(header["number"])),
        Timestamp(_parse_quantity(header["timestamp"])),
        None if base_fee is None else Wei(_parse_quantity(base_fee)),
    )


def _decode_hash(answer: Reply) -> BlockHash | None:
    """The hash in a block header's answer; None where the node does not have the block, or cannot say."""
    shown = decode_reply(answer, lambda header: BlockHash(header["hash"]))
    return shown.value if isinstance(shown, Known) else None


def _decode_price(answer: Reply, node: str) -> Wei:
    """The gas price that the node suggests, in wei; 0 on old or zero-gas chains, which lack the method."""
    if isinstance(answer, RpcError) and (answer.code == _NO_SUCH_METHOD or "method" in answer.message.lower()):
        return Wei(0)
    return Wei(value_of(decode_reply(answer, _parse_quantity), node))


def _parse_quantity(text: Any) -> int:
    """The number of a JSON-RPC quantity such as "0x1a"."""
    return int(text, 16)
