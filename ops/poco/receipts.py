"""Waiting until a batch of transactions is mined.

A receipt has no event of its own, and the chains this is for mine within the second: one batched look every 50 ms costs
less than a subscription for each batch would.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from chain.rpc import JsonRpc
from protocol.errors import RpcError, RpcUnavailable, TransactionReverted
from protocol.types import ZERO_ADDRESS, BlockHash, BlockNumber, Contract, TxHash

#: Seconds between two looks.
LOOK_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Receipt:
    """A mined transaction; `logs` as the node gave them, for `chain.decode`."""

    tx_hash: TxHash
    block_number: BlockNumber
    block_hash: BlockHash
    succeeded: bool
    gas_used: int
    #: What it created; the zero address if it was a call.
    contract: Contract
    logs: tuple[dict[str, Any], ...]


def await_mined(rpc: JsonRpc, hashes: Sequence[TxHash], *, seconds: float) -> list[Receipt]:
    """Receipts in the order of `hashes`, once all are mined.

    Raises RpcUnavailable if that takes longer than `seconds` (some wait for a nonce, or the chain stands still), and
    TransactionReverted, with the contract's own words where it has any, for the first one that failed.
    """
    found: dict[TxHash, Receipt] = {}
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while missing := [tx for tx in hashes if tx not in found]:
        answers = rpc.batch([("eth_getTransactionReceipt", (tx,)) for tx in missing])
        found |= {tx: _receipt(raw) for tx, raw in zip(missing, answers, strict=True) if isinstance(raw, dict)}
        if len(found) < len(hashes):
            if time.monotonic() > deadline:
                why = f"{len(hashes) - len(found)} of {len(hashes)} transactions are not mined after {seconds:g} s"
                raise RpcUnavailable(what=rpc.name, why=why)
            pause.wait(LOOK_SECONDS)
    receipts = [found[tx] for tx in hashes]
    for receipt in receipts:
        if not receipt.succeeded:
            raise TransactionReverted(tx=receipt.tx_hash, why=_why(rpc, receipt))
    return receipts


def _receipt(raw: dict[str, Any]) -> Receipt:
    return Receipt(
        tx_hash=TxHash(raw["transactionHash"]),
        block_number=BlockNumber(int(raw["blockNumber"], 16)),
        block_hash=BlockHash(raw["blockHash"]),
        succeeded=int(raw["status"], 16) == 1,
        gas_used=int(raw["gasUsed"], 16),
        contract=Contract((raw.get("contractAddress") or ZERO_ADDRESS).lower()),
        logs=tuple(raw["logs"]),
    )


def _why(rpc: JsonRpc, receipt: Receipt) -> str:
    """What the contract says when the same call is made again on the block before."""
    tx = rpc.call("eth_getTransactionByHash", receipt.tx_hash)
    again = {"from": tx["from"], "to": tx["to"], "data": tx["input"], "value": tx["value"], "gas": tx["gas"]}
    try:
        rpc.call("eth_call", again, hex(receipt.block_number - 1))
    except RpcError as error:
        return error.message
    return "it succeeds on the block before: something earlier in its own block stood against it"
