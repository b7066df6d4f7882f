"""Reorganisations on purpose: the newest blocks are replaced, with or without the transactions they held.

    … ─ 7 ─ 8 ─ 9 ─ 10                 depth 3
          └ 8' ─ 9' ─ 10'              dropped: 8' to 10' are empty, and no node has the transactions any more
                                       returned: the same transactions in the same order, at the same heights

anvil does it in a few milliseconds. The clock goes back as well: all new blocks have the time of the last one that
stays. `reorganise` sets it right for the next one. A block that anvil mines by its clock at that very moment can leave
a gap: heights without a block, for ever. Then everything from the gap on is replaced once more.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from bench.rig.bench_pool import BenchPool
from chain.rpc.answers import decode_replies, values
from chain.rpc.client import JsonRpc
from chain.rpc.heads import heads
from protocol.types import BlockNumber, TxHash


def reorganise(bench_pool: BenchPool, depth: int, *, returned: bool) -> None:
    """Replace the last `depth` blocks of anvil's chain.

    `returned`: the new blocks hold the same transactions, else they are empty. Transactions of a block that is mined
    meanwhile return to the transaction pool, as on a real chain.
    """
    head = _wait_for_half_block(bench_pool)
    replies = bench_pool.rpc.batch([("eth_getBlockByNumber", (hex(head - depth + 1 + n), False)) for n in range(depth)])
    blocks = values(decode_replies(replies, dict), bench_pool.rpc.name)
    held = [(TxHash(tx), offset) for offset, block in enumerate(blocks) for tx in block["transactions"]]
    raw = bench_pool.rpc.batch([("eth_getRawTransactionByHash", (tx,)) for tx, _ in held]) if held and returned else []
    again = [[bytes_, offset] for bytes_, (_, offset) in zip(raw, held, strict=True)] if returned else []
    replace_blocks(bench_pool.rpc, depth, again)
    if again:
        receipts = bench_pool.rpc.batch([("eth_getTransactionReceipt", (tx,)) for tx, _ in held])
        lost = [bytes_ for bytes_, receipt in zip(raw, receipts, strict=True) if receipt is None]
        if lost:
            bench_pool.rpc.batch([("eth_sendRawTransaction", (bytes_,)) for bytes_ in lost])
    _set_clock(bench_pool.rpc)


def replace_blocks(rpc: JsonRpc, depth: int, again: Sequence[object] = ()) -> None:
    """Have anvil replace its last `depth` blocks, without a gap. `again`: raw transactions, each with the number of its
    block among the new ones.
    """
    lowest = _head(rpc) - depth + 1
    rpc.call("anvil_reorg", depth, list(again))
    while (gap := _blocks_from_gap(rpc, lowest)) is not None:
        rpc.call("anvil_reorg", gap, [])


def _set_clock(rpc: JsonRpc) -> None:
    """Give the next block the present time. Else each reorg leaves the chain some seconds further behind, until a pool
    holds because the head is too old.
    """
    newest = int(rpc.call("eth_getBlockByNumber", "latest", False)["timestamp"], 16)
    rpc.call("evm_increaseTime", max(0, int(time.time()) - newest))


def _blocks_from_gap(rpc: JsonRpc, lowest: int) -> int | None:
    """How many heights there are from the first one without a block up to the head; None if each has one."""
    heights = range(lowest, _head(rpc) + 1)
    blocks = rpc.batch([("eth_getBlockByNumber", (hex(height), False)) for height in heights])
    return next((len(heights) - place for place, block in enumerate(blocks) if block is None), None)


def _head(rpc: JsonRpc) -> int:
    """The number of the newest block."""
    return int(rpc.call("eth_blockNumber"), 16)


def wait_until_deep(bench_pool: BenchPool, block: BlockNumber, depth: int) -> None:
    """Wait until `block` is so deep that a reorg of `depth` does not reach it."""
    for head in heads(bench_pool.chain.ws_url, bench_pool.rpc, bench_pool.chain.block_time, threading.Event()):
        if head - block >= depth:
            return


def _wait_for_half_block(bench_pool: BenchPool) -> BlockNumber:
    """The head, half a block time after it came: followers have acted on it, and the next one is not due yet."""
    coming = heads(bench_pool.chain.ws_url, bench_pool.rpc, bench_pool.chain.block_time, threading.Event())
    first = next(coming)
    fresh = next(head for head in coming if head > first)
    threading.Event().wait(bench_pool.chain.block_time / 2)
    return fresh
