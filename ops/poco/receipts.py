"""Waiting until transactions are mined, by web3.py."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hexbytes import HexBytes

from chain.rpc.client import JsonRpc
from chain.rpc.library import load_web3
from protocol.errors import RpcError, RpcUnavailable, TransactionReverted
from protocol.types import ZERO_ADDRESS, BlockHash, BlockNumber, Contract, TxHash

if TYPE_CHECKING:
    from web3.types import TxReceipt

#: Seconds between two polls.
LOOK_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Receipt:
    """A mined transaction; `logs` as the node gave them, for `chain.contracts.decode`."""

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
    load_web3()
    from web3.exceptions import TimeExhausted  # noqa: PLC0415 # loaded by the line before

    from chain.rpc.provider import web3_over  # noqa: PLC0415

    eth = web3_over(rpc).eth
    deadline = time.monotonic() + seconds
    receipts = []
    for position, tx_hash in enumerate(hashes):
        left = max(deadline - time.monotonic(), LOOK_SECONDS)
        try:
            mined = eth.wait_for_transaction_receipt(HexBytes(tx_hash), timeout=left, poll_latency=LOOK_SECONDS)
        except TimeExhausted as error:
            why = f"{len(hashes) - position} of {len(hashes)} transactions are not mined after {seconds:g} s"
            raise RpcUnavailable(what=rpc.name, why=why) from error
        receipts.append(_convert_receipt(mined))
    for receipt in receipts:
        if not receipt.succeeded:
            raise TransactionReverted(tx=receipt.tx_hash, why=_revert_reason(rpc, receipt))
    return receipts


def _convert_receipt(mined: TxReceipt) -> Receipt:
    """The fields kept of web3.py's receipt."""
    return Receipt(
        tx_hash=TxHash(mined["transactionHash"].to_0x_hex()),
        block_number=BlockNumber(mined["blockNumber"]),
        block_hash=BlockHash(mined["blockHash"].to_0x_hex()),
        succeeded=mined["status"] == 1,
        gas_used=mined["gasUsed"],
        contract=Contract((mined["contractAddress"] or ZERO_ADDRESS).lower()),
        logs=tuple(dict(log) for log in mined["logs"]),
    )


def _revert_reason(rpc: JsonRpc, receipt: Receipt) -> str:
    """The contract's reason for a failed transaction: its call is made again on the block before."""
    tx = rpc.call("eth_getTransactionByHash", receipt.tx_hash)
    again = {"from": tx["from"], "to": tx["to"], "data": tx["input"], "value": tx["value"], "gas": tx["gas"]}
    try:
        rpc.call("eth_call", again, hex(receipt.block_number - 1))
    except RpcError as error:
        return error.message
    return "it succeeds on the block before: something earlier in its own block stood against it"
