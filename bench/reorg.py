"""Reorganisations on purpose: the newest blocks are replaced, with or without the transactions they held.

    … ─ 7 ─ 8 ─ 9 ─ 10                 depth 3
          └ 8' ─ 9' ─ 10'              dropped: 8' to 10' are empty, and no node has the transactions any more
                                       returned: the same transactions in the same order, at the same heights

anvil does it in a few milliseconds. The clock goes back as well: all new blocks bear the time of the last one that
stays.
"""

from __future__ import annotations

import threading

from bench.bench_pool import BenchPool
from chain.rpc.answers import decode_replies, values
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
    bench_pool.rpc.call("anvil_reorg", depth, again)
    if again:
        receipts = bench_pool.rpc.batch([("eth_getTransactionReceipt", (tx,)) for tx, _ in held])
        lost = [bytes_ for bytes_, receipt in zip(raw, receipts, strict=True) if receipt is None]
        if lost:
            bench_pool.rpc.batch([("eth_sendRawTransaction", (bytes_,)) for bytes_ in lost])


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
