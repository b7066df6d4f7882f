"""What the chain looks like to one wallet at the start of a run: one batch of one or two requests, mostly.

head                    unless the subscription that woke the run announced it, and no block of ours is above it
account nonce           always
a block of ours         only if the head does not prove that it stands: its parent does, where heads are consecutive
balance, gas price      only in a run that has something to pay for
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from chain.lane.model.nonce import Mined, NonceRecord
from chain.lane.rules.fees import FeeMarket
from chain.lane.rules.readiness import Moment
from chain.rpc.announced import AnnouncedHead
from chain.rpc.answers import Known, Reply, Unknown, decode_reply, parse_quantity, value_of
from chain.rpc.client import JsonRpc, Request
from protocol.errors import RpcError, RpcUnavailable
from protocol.types import BlockHash, BlockNumber, Nonce, Timestamp, Wallet, Wei

#: JSON-RPC's code for a method that a node does not have. Nodes with another code say it in words: one of these names,
#: and one of these phrases. Each alone is also said of other trouble ("rate limit for method …").
_NO_SUCH_METHOD = -32601
_METHOD_NAMES, _LACKS = ("method", "eth_gasprice"), ("not found", "does not exist", "not supported")
#: Blocks that a reorg may take away and not bring back at once; a node that lacks more is behind.
_MOST_BEHIND = 64


@dataclass(frozen=True, slots=True)
class Standing:
    """A block of ours that is `head` or below it: as long as later heads stand on `head`, the block stands."""

    block: BlockHash
    head: BlockHash


@dataclass(frozen=True, slots=True)
class _Header:
    """What is read of the head's header."""

    number: BlockNumber
    timestamp: Timestamp
    #: None before EIP-1559.
    base_fee: Wei | None
    hash: BlockHash
    parent: BlockHash
    #: Most gas of all its transactions; None where the node does not tell.
    gas_limit: int | None

    def proves(self, block: BlockHash, before: Standing | None, below: Collection[BlockHash] = ()) -> bool:
        """Whether `block` is on the chain because this head, its parent, one of those `below` it, or what one of them
        was seen to stand on is it.
        """
        near = (self.hash, self.parent, *below)
        return block in near or (before is not None and before.block == block and before.head in near)


class _Money:
    """Balance and gas price, read when a phase first asks for either: most runs have nothing to pay for."""

    def __init__(self, rpc: JsonRpc, wallet: Wallet) -> None:
        self._rpc, self._wallet = rpc, wallet

    @cached_property
    def read(self) -> tuple[Wei, Wei]:
        """Balance and gas price, in wei. Raises RpcUnavailable."""
        balance, price = self._rpc.batch([("eth_getBalance", (self._wallet, "latest")), ("eth_gasPrice", ())])
        return (
            Wei(value_of(decode_reply(balance, parse_quantity), self._rpc.name)),
            _decode_price(price, self._rpc.name),
        )


@dataclass(frozen=True, slots=True)
class ChainSnapshot:
    """The chain as one wallet sees it at the start of a run: head, fees and the wallet's account."""

    head: BlockNumber
    #: Block time of the head, Unix seconds.
    timestamp: Timestamp
    #: Of the head, in wei; None: the chain has no EIP-1559.
    base_fee: Wei | None
    #: Most gas that a block as the head holds; None where the node does not tell.
    block_gas: int | None
    #: Account nonce (`latest`): the lowest nonce that is not mined.
    count: Nonce
    #: Hash that the chain has now at the height of the newest record in a block; None if it has no such block.
    mined_hash: BlockHash | None
    #: The newest record's block, if it is proved to be below this head; for the next snapshot.
    standing: Standing | None
    #: Hashes of the head and of blocks that it stands on, as far as headers named them.
    branch: frozenset[BlockHash]
    _money: _Money

    @property
    def balance(self) -> Wei:
        """The wallet's balance. Raises RpcUnavailable."""
        return self._money.read[0]

    @property
    def market(self) -> FeeMarket:
        """What the chain asks per gas. Raises RpcUnavailable."""
        offered = self._money.read[1]
        # A node's gas price is the base fee and the tip it suggests: one request tells both.
        return FeeMarket(self.base_fee, offered if self.base_fee is None else Wei(max(0, offered - self.base_fee)))

    @property
    def moment(self) -> Moment:
        """The head's number and time, for `Readiness.check`."""
        return Moment(self.head, self.timestamp)

    def again(self, newest: NonceRecord | None) -> ChainSnapshot | None:
        """The snapshot for another run at the same head; None if it cannot have seen `newest`, the newest mined record:
        another process, which confirmed that, has looked later or at another branch.
        """
        if newest is None or newest.mined is None:
            return self
        if newest.mined.block > self.head or newest.nonce >= self.count:
            return None
        return replace(self, mined_hash=newest.mined.block_hash)

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


def take_snapshot(
    rpc: JsonRpc,
    wallet: Wallet,
    newest: NonceRecord | None,
    before: Standing | None = None,
    announced: AnnouncedHead | None = None,
) -> ChainSnapshot:
    """Read head and account nonce of `wallet` in one batch. Raises RpcUnavailable.

    `newest`: the newest record in a block. Its block is read as well, unless the head proves that it stands. `before`:
    the `standing` of the snapshot before, if there was one. `announced`: the head, which is not read then, unless the
    block of `newest` is above it (count and receipts are of the node's own head, which may be further), or it tells no
    base fee: some clients announce none, though the chain has one.
    """
    mined = None if newest is None else newest.mined
    told = decode_reply(None if announced is None else announced.header, _parse_header)
    asked: list[Request] = [] if _tells_enough(told, mined) else [("eth_getBlockByNumber", ("latest", False))]
    *header, count = rpc.batch([*asked, ("eth_getTransactionCount", (wallet, "latest"))])
    head = value_of(decode_reply(header[0], _parse_header) if header else told, rpc.name)
    below = frozenset[BlockHash]() if announced is None or header else announced.below
    mined_hash, standing = (None, None) if mined is None else _look_for(rpc, mined, head, before, below)
    seen = ChainSnapshot(
        head=head.number,
        timestamp=head.timestamp,
        base_fee=head.base_fee,
        block_gas=head.gas_limit,
        count=Nonce(value_of(decode_reply(count, parse_quantity), rpc.name)),
        mined_hash=mined_hash,
        standing=standing,
        branch=frozenset((head.hash, head.parent, *below)),
        _money=_Money(rpc, wallet),
    )
    if newest is not None and mined is not None:
        _check_plausible(seen, newest, mined, rpc.name)
    return seen


def _tells_enough(told: Known[_Header] | Unknown, mined: Mined | None) -> bool:
    """Whether an announced header tells all that is needed of the newest block."""
    if not isinstance(told, Known) or told.value.base_fee is None:
        return False
    return mined is None or mined.block <= told.value.number


def _look_for(
    rpc: JsonRpc, mined: Mined, head: _Header, before: Standing | None, below: Collection[BlockHash]
) -> tuple[BlockHash | None, Standing | None]:
    """The hash of the chain's block at the height of `mined`, None if it has none, or cannot say; and the proof for the
    next snapshot, if that block stands. At most one batch.
    """
    stands = Standing(mined.block_hash, head.hash)
    if head.proves(mined.block_hash, before, below):
        return mined.block_hash, stands
    asked = [("eth_getBlockByNumber", (hex(number), False)) for number in (mined.block, head.number)]
    there, now = map(_decode_hash, rpc.batch(asked))
    # Another node, on another branch or further on, may be the one that answers: later heads would prove nothing of its
    # blocks.
    known = there == mined.block_hash and now == head.hash and mined.block <= head.number
    return there, stands if known else None


def _check_plausible(seen: ChainSnapshot, newest: NonceRecord, mined: Mined, node: str) -> None:
    """Raise RpcUnavailable for a snapshot that no reorg explains: the node lags, or a load balancer mixed two nodes."""
    if mined.block - seen.head > _MOST_BEHIND:
        why = f"it is behind: its head is block {seen.head}, and {mined.tx_hash} was mined in block {mined.block}"
        raise RpcUnavailable(what=node, why=why)
    if seen.count <= newest.nonce and seen.mined_hash == mined.block_hash:
        why = f"it contradicts itself: block {mined.block} stands, but nonce {newest.nonce} that it holds is not spent"
        raise RpcUnavailable(what=node, why=why)


def _parse_header(header: dict[str, Any]) -> _Header:
    """The header in a block's JSON."""
    base_fee, gas_limit = header.get("baseFeePerGas"), header.get("gasLimit")
    return _Header(
        BlockNumber(parse_quantity(header["number"])),
        Timestamp(parse_quantity(header["timestamp"])),
        None if base_fee is None else Wei(parse_quantity(base_fee)),
        BlockHash(header["hash"]),
        BlockHash(header["parentHash"]),
        # Some chains without such a limit write 0.
        (None if gas_limit is None else parse_quantity(gas_limit)) or None,
    )


def _decode_hash(answer: Reply) -> BlockHash | None:
    """The hash in a block header's answer; None where the node does not have the block, or cannot say."""
    shown = decode_reply(answer, lambda header: BlockHash(header["hash"]))
    return shown.value if isinstance(shown, Known) else None


def _decode_price(answer: Reply, node: str) -> Wei:
    """The gas price that the node suggests, in wei; 0 on old or zero-gas chains, which lack the method.

    Raises RpcUnavailable for any other error: a price that is not known is not 0.
    """
    if isinstance(answer, RpcError) and _lacks_method(answer):
        return Wei(0)
    return Wei(value_of(decode_reply(answer, parse_quantity), node))


def _lacks_method(error: RpcError) -> bool:
    """Whether the node says that it does not have the method that it was asked for."""
    words = error.message.lower()
    named = any(name in words for name in _METHOD_NAMES)
    return error.code == _NO_SUCH_METHOD or (named and any(phrase in words for phrase in _LACKS))
