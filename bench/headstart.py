"""How long a match waits in the node's pool for its block, and what a computation begun in that time would save.

    match sent ──► the node announces it as pending ──► block of the deal: the computation begins
                   └──────────── lead ────────────────┘

A figure for a decision (docs/guarantees.md): Sluice begins with the deal's block.
"""

from __future__ import annotations

import json
import math
import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from bench.rig.bench_pool import start_chain
from bench.rig.figures import median, percentile
from chain.rpc.client import Rpc
from ops.demo.app_image import IMAGE
from ops.market import orders
from ops.market.match import match_call
from ops.poco.receipts import await_mined
from ops.poco.sender import WAIT_SECONDS, DirectSender
from ops.pool import on_chain
from ops.pool.on_chain import PRICE, XS
from ops.pool.site import Names

#: Lengths of the work that the saving is computed for, in blocks: shorter than one, about one, longer.
WORK_BLOCKS = (0.25, 0.5, 1.0, 2.5, 10.25)


def run(*, block_time: float, deals: int, on_geth: bool) -> Iterator[str]:
    """Buy `deals` at random moments between two blocks; a line of JSON: their leads, and the blocks saved."""
    folder = Path(".sluice") / "bench" / Names.fresh().database
    chain, node = start_chain(folder / "chain", block_time=block_time, on_geth=on_geth)
    try:
        with Rpc(chain.rpc_url) as rpc:
            market = on_chain.prepare(rpc, chain.addresses, chain_id=chain.chain_id, workers=0, image=IMAGE)
            buyer = DirectSender(market.requester, rpc, chain.chain_id)
            with _listening(chain.ws_url) as heard:
                leads = [_lead(heard, market, buyer, block_time) for _ in range(deals)]
    finally:
        node.stop()
    yield json.dumps(
        {
            "node": "geth" if on_geth else "anvil",
            "block_time": block_time,
            "deals": deals,
            "median_lead_blocks": round(median(leads) / block_time, 2),
            "p5_lead_blocks": round(percentile(leads, 0.05) / block_time, 2),
            "p95_lead_blocks": round(percentile(leads, 0.95) / block_time, 2),
            "mean_blocks_saved": {
                f"{work:g} blocks of work": round(blocks_saved(work, [lead / block_time for lead in leads]), 2)
                for work in WORK_BLOCKS
            },
        }
    )


def blocks_saved(work: float, leads: Sequence[float]) -> float:
    """Blocks that a vote comes earlier on average if work begins `leads` before the deal's block; all in blocks. Pure.

    A vote comes in the first block after its work is done, and never in the deal's own.
    """
    return sum(_blocks(work) - _blocks(work - lead) for lead in leads) / len(leads)


def _blocks(work: float) -> int:
    """Blocks from the deal's to the vote's, for work that ends so many blocks after the deal's."""
    return max(1, math.ceil(work))


@dataclass(slots=True)
class _Heard:
    """When the node announced what, by this process's clock."""

    #: Pending transactions by hash.
    pending: dict[str, float] = field(default_factory=dict)
    #: Blocks by hash.
    blocks: dict[str, float] = field(default_factory=dict)
    new_block: threading.Event = field(default_factory=threading.Event)


@contextmanager
def _listening(ws_url: str) -> Iterator[_Heard]:
    """What the node announces in the meantime: blocks and pending transactions."""
    heard = _Heard()
    with closing(connect(ws_url)) as socket:
        for number, kind in enumerate(("newPendingTransactions", "newHeads")):
            asked = {"jsonrpc": "2.0", "id": number, "method": "eth_subscribe", "params": [kind]}
            socket.send(json.dumps(asked))

        def listen() -> None:
            try:
                for message in socket:
                    _note(heard, json.loads(message), time.monotonic())
            except ConnectionClosed:
                return

        threading.Thread(target=listen, name="announced", daemon=True).start()
        yield heard


def _note(heard: _Heard, message: dict[str, object], now: float) -> None:
    """Note one message of the node: a transaction's hash, or a block's header."""
    told = message.get("params")
    announced = told.get("result") if isinstance(told, dict) else None
    if isinstance(announced, str):
        heard.pending.setdefault(announced, now)
    elif isinstance(announced, dict):
        heard.blocks.setdefault(str(announced["hash"]), now)
        heard.new_block.set()


def _lead(heard: _Heard, market: on_chain.PoolOnChain, buyer: DirectSender, block_time: float) -> float:
    """Buy one task at a random moment between two blocks; seconds from its match being pending to its block."""
    offer = market.offer(price=PRICE, category=XS)
    params = '{"iexec_args":"noop","iexec_result_storage_provider":"ipfs"}'
    request = orders.request(market.market, market.requester, offer, volume=1, trust=1, params=params)
    heard.new_block.clear()
    heard.new_block.wait(WAIT_SECONDS)
    time.sleep(random.random() * block_time)
    hashes = buyer.send([match_call(market.market, offer, request)])
    (receipt,) = await_mined(buyer.rpc, hashes, seconds=WAIT_SECONDS)
    return heard.blocks[receipt.block_hash] - heard.pending[receipt.tx_hash]
