"""Finding native token that came or went without the lane: in which block, and by which transactions.

A transfer to a wallet leaves no log. But what the wallet has after a block, less what the lane accounts for, changes
only where something happened beside the lane, so that halving the range leads to it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from chain.rpc.answers import Known, decode_replies, decode_reply, values
from chain.watch.escrow import EscrowReader
from pipeline.domain.money.ledger import Mark, Outside, outside
from pipeline.store.money.gas import GasBook
from protocol.errors import RpcUnavailable
from protocol.types import BlockNumber

#: Blocks at which the balance is read at most; a change that is not found by then keeps its wide range.
MOST_LOOKS = 100
#: Transactions of one block that are kept by name: others may send as many as the block holds.
MOST_NAMED = 20


@dataclass(slots=True)
class _Search:
    """One search between two marks; `looks`: at how many more blocks the balance may be read."""

    reader: EscrowReader
    gas: GasBook
    looks: int = MOST_LOOKS


def locate(reader: EscrowReader, gas: GasBook, before: Mark, now: Mark) -> list[Outside]:
    """Find the blocks between two marks in which native token came or went without the lane.

    A block range is returned where the node no longer has the balances that would narrow it down.

    For a hub whose RLC is not the native token. Raises RpcUnavailable, PyMongoError.
    """
    return _search(_Search(reader, gas), before, now)


def _search(search: _Search, low: Mark, high: Mark) -> list[Outside]:
    """Changes of the balance beside the lane between two marks, each narrowed down to one block where possible."""
    costs = search.gas.between(low.count, high.count)
    found = outside(low, high, costs, 0)
    if found is None:
        return []
    if high.block - low.block == 1:
        return [_explained(search.reader, found, {cost.nonce for cost in costs})]
    middle, search.looks = BlockNumber((low.block + high.block) // 2), search.looks - 1
    (holdings,) = search.reader.holdings([middle]) if search.looks >= 0 else [None]
    if holdings is None:
        return [found]
    mark = Mark(middle, holdings.balance, holdings.count)
    return _search(search, low, mark) + _search(search, mark, high)


def _explained(reader: EscrowReader, found: Outside, lane: Collection[int]) -> Outside:
    """`found`, which is of one block, with the hashes of its transactions if they account for every wei of it.

    `lane`: nonces of the lane's own transactions.
    """
    answer = decode_reply(
        reader.rpc.call("eth_getBlockByNumber", hex(found.until), True),
        lambda block: [each for each in block["transactions"] if _concerns(each, reader.wallet, lane)],
    )
    if not isinstance(answer, Known):
        return found
    hashes = [str(each["hash"]).lower() for each in answer.value]
    receipts = reader.rpc.batch([("eth_getTransactionReceipt", (each,)) for each in hashes])
    try:
        costs = values(decode_replies(receipts, _fee), reader.rpc.name)
    except RpcUnavailable:
        return found
    moved = sum(
        _moved(each, reader.wallet, fee, success=success)
        for each, (fee, success) in zip(answer.value, costs, strict=True)
    )
    return replace(found, transactions=tuple(hashes[:MOST_NAMED]), explained=moved == found.wei)


def _concerns(transaction: Mapping[str, Any], wallet: str, lane: Collection[int]) -> bool:
    """Whether a transaction changed the wallet's balance and is not of the lane."""
    if str(transaction["from"]).lower() == wallet:
        return int(transaction["nonce"], 16) not in lane
    return str(transaction["to"] or "").lower() == wallet and int(transaction["value"], 16) > 0


def _fee(receipt: Mapping[str, Any]) -> tuple[int, bool]:
    """Wei of gas, and whether the transaction succeeded."""
    return int(receipt["gasUsed"], 16) * int(receipt["effectiveGasPrice"], 16), int(receipt["status"], 16) == 1


def _moved(transaction: Mapping[str, Any], wallet: str, fee: int, *, success: bool) -> int:
    """Wei by which the transaction changed the wallet's balance."""
    value = int(transaction["value"], 16) if success else 0
    gives, gets = str(transaction["from"]).lower() == wallet, str(transaction["to"] or "").lower() == wallet
    return (value if gets else 0) - (value + fee if gives else 0)
