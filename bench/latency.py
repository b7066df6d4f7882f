"""Blocks from match to finalize on an idle pool with a no-op app, one task at a time, beside the fewest there can be.

Counted from the chain's own logs: the block of OrdersMatched and the block of TaskFinalize.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Literal

from bench.rig.bench_pool import BenchPool, open_bench_pool
from bench.rig.figures import median, percentile
from bench.rig.usage import counted

State = Literal["latest", "pending"]
Node = Literal["anvil", "geth"]
#: Trusts that are measured: 1 goes the short road, 5 needs three votes.
TRUSTS = (1, 5)
#: The fewest blocks that a task can take by (state, whether there is a vote): one transaction a block, or PoCo's order.
MINIMAL_BLOCKS = {("latest", False): 2, ("latest", True): 4, ("pending", False): 1, ("pending", True): 2}


def run(*, block_time: float, tasks: int, state: State = "latest", node: Node = "anvil") -> Iterator[str]:
    """Measure an idle pool: for each trust a line of JSON with blocks and seconds from match to finalize.

    `state`: SLUICE_STATE of the scheduler and of its machines. `node`: whose the chain is; geth takes whole seconds.
    """
    env: dict[str, str] = {"SLUICE_STATE": state}
    with open_bench_pool(block_time=block_time, workers=4, slots=1, env=env, on_geth=node == "geth") as bench_pool:
        reverts = 0
        for trust in TRUSTS:
            blocks = [_blocks_of_one_task(bench_pool, trust) for _ in range(tasks)]
            mean = sum(blocks) / len(blocks)
            before, reverts = reverts, int(counted(bench_pool, "sluice_early_reverts_total"))
            yield json.dumps(
                {
                    "block_time": block_time,
                    "state": state,
                    "node": node,
                    "trust": trust,
                    "tasks": tasks,
                    "median_blocks": median(blocks),
                    "p95_blocks": percentile(blocks, 0.95),
                    "share_of_minimal_blocks": round(MINIMAL_BLOCKS[state, trust > 1] / mean, 3),
                    "median_seconds": median(blocks) * block_time,
                    "early_reverts": reverts - before,
                }
            )


def _blocks_of_one_task(bench_pool: BenchPool, trust: int) -> int:
    """Buy one task; blocks from its match to its finalize."""
    deal = bench_pool.buy(trust=trust, volume=1)
    (view,) = bench_pool.wait([deal]).values()
    if view.finalized_block is None:
        raise bench_pool.failed(deal)
    return view.finalized_block - deal.block_number
