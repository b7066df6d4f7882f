"""What an idle pool costs: calls, messages, operations and CPU a minute, at blocks of 1 s."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

from bench.rig.bench_pool import open_bench_pool
from bench.rig.breakdown import Breakdown
from bench.rig.usage import Usage

#: Blocks after which the lanes' last transactions are final, so that they are not checked at each head any more.
SETTLED_BLOCKS = 100
#: Seconds until the clock's tasks, which run every minute, have once handled what those blocks brought.
CALM_SECONDS = 75.0


def run(*, seconds: float, workers: int, breakdown: bool = False) -> Iterator[str]:
    """Measure for so many seconds a pool whose machines have all done a task: a line of JSON.

    `breakdown`: a second line says what the figures are made of.
    """
    with open_bench_pool(block_time=1.0, workers=workers, slots=2) as bench_pool:
        bench_pool.wait([bench_pool.buy(trust=1, volume=2 * workers)])
        bench_pool.rpc.call("anvil_mine", hex(SETTLED_BLOCKS))
        time.sleep(CALM_SECONDS)
        parts = Breakdown(bench_pool) if breakdown else None
        usage, began = Usage(bench_pool), time.monotonic()
        before = usage.read()
        time.sleep(seconds)
        spent, minutes = usage.read() - before, (time.monotonic() - began) / 60
        made_of = parts.per_task(minutes) if parts else None
        yield json.dumps(
            {
                "case": "idle",
                "workers": workers,
                "seconds": round(60 * minutes),
                "rpc_calls_per_minute": round(spent.rpc_calls / minutes, 1),
                "broker_messages_per_minute": round(spent.broker_messages / minutes, 1),
                "mongodb_operations_per_minute": round(spent.mongodb_operations / minutes, 1),
                "scheduler_percent_of_a_core": round(spent.scheduler_cpu_seconds / minutes / 0.6, 2),
                "machines_percent_of_a_core": round(spent.worker_cpu_seconds / minutes / 0.6, 2),
            }
        )
        if made_of is not None:
            yield json.dumps(made_of)
