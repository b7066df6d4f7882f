"""Blocks from match to finalize on an idle pool with a no-op app, one task at a time.

Counted from the chain's own logs: the block of OrdersMatched and the block of TaskFinalize.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from bench.bench_pool import BenchPool, open_bench_pool
from bench.figures import median, percentile

#: (trust, workers that must agree): 1 goes the short road, 5 needs three votes.
TRUSTS = (1, 5)


def run(*, block_time: float, tasks: int) -> Iterator[str]:
    """Measure an idle pool: for each trust a line of JSON with blocks and seconds from match to finalize."""
    with open_bench_pool(block_time=block_time, workers=4, slots=1) as bench_pool:
        for trust in TRUSTS:
            blocks = [_blocks_of_one_task(bench_pool, trust) for _ in range(tasks)]
            yield json.dumps(
                {
                    "block_time": block_time,
                    "trust": trust,
                    "tasks": tasks,
                    "median_blocks": median(blocks),
                    "p95_blocks": percentile(blocks, 0.95),
                    "median_seconds": median(blocks) * block_time,
                }
            )


def _blocks_of_one_task(bench_pool: BenchPool, trust: int) -> int:
    """Buy one task; blocks from its match to its finalize."""
    deal = bench_pool.buy(trust=trust, volume=1)
    (view,) = bench_pool.wait([deal]).values()
    if view.finalized_block is None:
        raise bench_pool.failed(deal)
    return view.finalized_block - deal.block_number
