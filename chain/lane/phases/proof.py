"""Finds which transaction spent a nonce: known for certain before an intent is taken off its nonce.

    receipt of one of ours                                   ─► ours, with its outcome     (`receipts`)
    no receipt                                               ─► nothing follows; then:     (`find_spender`)
        eth_getTransactionCount, block by block from the head back, finds the block in which the count passed the nonce
        that block's transaction of this wallet at this nonce ─► ours, or foreign: proved
        no such block or transaction to be seen               ─► unknown

`null` for a receipt never decides: a node that indexes, syncs, prunes or stands behind a balancer answers so for
transactions that are mined. What a block holds is proof, since a nonce is spent once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from chain.lane.model.nonce import Mined, NonceRecord
from chain.rpc.answers import Known, Unknown, decode_replies, decode_reply
from chain.rpc.client import JsonRpc, Request
from protocol.errors import BadMessage
from protocol.types import BlockHash, BlockNumber, Nonce, TxHash, Wallet, Wei

#: Counts asked for in one batch while the block is looked for: 8 shrink a span of a million blocks to one in 7 batches.
_PROBES = 8


@dataclass(frozen=True, slots=True)
class Spender:
    """The transaction that spent a nonce, and its block."""

    tx_hash: TxHash
    #: Whether it is one of the lane's own attempts.
    ours: bool
    block: BlockNumber


def receipts(rpc: JsonRpc, records: Sequence[NonceRecord]) -> dict[Nonce, Known[Mined] | Unknown]:
    """By nonce, the receipt of the attempt that has one, or why none can be seen. Raises RpcUnavailable."""
    wanted = [(record, attempt.tx_hash) for record in records for attempt in record.attempts]
    answers = rpc.batch([("eth_getTransactionReceipt", (tx_hash,)) for _, tx_hash in wanted]) if wanted else []
    found: dict[Nonce, Known[Mined] | Unknown] = {}
    for (record, tx_hash), answer in zip(wanted, answers, strict=True):
        known = found.get(record.nonce)
        if not isinstance(known, Known):
            # An error tells more than the null of another attempt.
            receipt = _decode_receipt(answer, tx_hash)
            if known is None or isinstance(receipt, Known) or answer is not None:
                found[record.nonce] = receipt
    return found


def find_spender(rpc: JsonRpc, wallet: Wallet, record: NonceRecord, head: BlockNumber) -> Known[Spender] | Unknown:
    """The transaction that spent the record's nonce, as far as blocks up to `head` prove it. Raises RpcUnavailable.

    Called where a nonce is spent and none of the lane's transactions has a receipt.
    """
    ours = {attempt.tx_hash.lower() for attempt in record.attempts}
    asked = rpc.batch([("eth_getTransactionByHash", (tx_hash,)) for tx_hash in sorted(ours)])
    for answer in asked:
        match _decode_place(answer):
            case Known(place) if place is not None:
                tx_hash, block = place
                return Known(Spender(tx_hash, ours=True, block=block))
            case Unknown(why):
                return Unknown(why)
    spent = _find_spending_block(rpc, wallet, record.nonce, head)
    if isinstance(spent, Unknown):
        return spent
    number = spent.value
    (raw,) = rpc.batch([("eth_getBlockByNumber", (hex(number), True))])
    match decode_reply(raw, lambda body: _find_transaction(body, wallet, record.nonce, number)):
        case Known(tx_hash):
            return Known(Spender(tx_hash, ours=tx_hash in ours, block=number))
        case Unknown(why):
            return Unknown(f"block {number} should hold it: {why}")


def _decode_receipt(answer: object, tx_hash: TxHash) -> Known[Mined] | Unknown:
    """The receipt in an answer of eth_getTransactionReceipt; null proves nothing and is Unknown."""
    if answer is None:
        return Unknown("no node shows a receipt of our transactions")
    return decode_reply(answer, lambda body: _parse_receipt(body, tx_hash))


def _parse_receipt(receipt: dict[str, Any], tx_hash: TxHash) -> Mined:
    """The fields kept of a receipt. Raises BadMessage if it belongs to another transaction than `tx_hash`."""
    if receipt["transactionHash"].lower() != tx_hash.lower():
        raise BadMessage(why=f"a receipt of {receipt['transactionHash']} instead of {tx_hash}")
    gas_used = int(receipt["gasUsed"], 16)
    return Mined(
        tx_hash=tx_hash,
        block=BlockNumber(int(receipt["blockNumber"], 16)),
        block_hash=BlockHash(_require_text(receipt["blockHash"])),
        success=int(receipt["status"], 16) == 1,
        fee=Wei(gas_used * int(receipt.get("effectiveGasPrice") or "0x0", 16)),
        gas_used=gas_used,
    )


def _decode_place(answer: object) -> Known[tuple[TxHash, BlockNumber] | None] | Unknown:
    """Hash and block of a transaction, from eth_getTransactionByHash; None if the node has it in no block."""
    if answer is None:
        return Known(None)
    return decode_reply(answer, _parse_place)


def _parse_place(body: dict[str, Any]) -> tuple[TxHash, BlockNumber] | None:
    """Hash and block of a transaction's JSON body; None while the transaction is in no block."""
    block = body["blockNumber"]
    return None if block is None else (TxHash(body["hash"].lower()), BlockNumber(int(block, 16)))


def _find_spending_block(rpc: JsonRpc, wallet: Wallet, nonce: Nonce, head: BlockNumber) -> Known[BlockNumber] | Unknown:
    """The block in which the wallet's account nonce passed `nonce`, found by a search over past account nonces."""
    low, high = -1, head + 1
    #: Why nothing is known of `low`; None if the count there is known not to pass the nonce.
    no_count: str | None = None
    # Back from the head in steps that double, so that a nonce spent lately is found in blocks that every node keeps.
    probes = [BlockNumber(block) for power in range(head.bit_length() + 1) if (block := head + 1 - 2**power) >= 0]
    while probes:
        for block, count in sorted(zip(probes, _read_account_nonces(rpc, wallet, probes), strict=True), reverse=True):
            if isinstance(count, Known) and count.value > nonce:
                high = block
                continue
            # A node keeps the state of the newest blocks: what it does not tell here, it does not tell of older ones.
            low, no_count = block, count.why if isinstance(count, Unknown) else None
            break
        stride = max(1, (high - low) // (_PROBES + 1))
        probes = [BlockNumber(block) for block in range(low + stride, high, stride)]
    if high > head:
        return Unknown(no_count or "the node's count at its head does not pass the nonce")
    if no_count is not None:
        return Unknown(f"no node tells the wallet's count of transactions at block {low}: {no_count}")
    return Known(BlockNumber(high))


def _read_account_nonces(rpc: JsonRpc, wallet: Wallet, blocks: Sequence[BlockNumber]) -> list[Known[int] | Unknown]:
    """The wallet's account nonce at each of these blocks, in one batch."""
    requests: list[Request] = [("eth_getTransactionCount", (wallet, hex(block))) for block in blocks]
    return decode_replies(rpc.batch(requests), lambda count: int(count, 16))


def _find_transaction(body: dict[str, Any], wallet: Wallet, nonce: Nonce, block: BlockNumber) -> TxHash:
    """Hash of the wallet's transaction at `nonce` in a block's JSON body. Raises BadMessage if there is none."""
    if int(body["number"], 16) != block:
        raise BadMessage(why=f"the node gave block {body['number']}")
    for tx in body["transactions"]:
        if tx["from"].lower() == wallet and int(tx["nonce"], 16) == nonce:
            return TxHash(_require_text(tx["hash"]).lower())
    raise BadMessage(why="it shows no transaction of this wallet at that nonce")


def _require_text(value: object) -> str:
    """`value`, if it is text. Raises BadMessage."""
    if not isinstance(value, str):
        raise BadMessage(why=f"{value!r} is no hash")
    return value
