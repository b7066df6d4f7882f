"""One bag of no-op containers through the whole stack: how fast beside bare containers, and what each task cost."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

from bench.bare import containers_per_minute
from bench.bench_pool import open_bench_pool
from bench.usage import Usage
from ops.demo.app_image import IMAGE


def run(*, tasks: int, workers: int, slots: int, block_time: float = 1.0) -> Iterator[str]:
    """Measure one bag: a line of JSON with tasks a minute from match to the last finalize, and costs per task.

    The bare container rate is the mean of before and after the bag, with as many at once as the pool has slots; the
    pool is idle then.
    """
    with open_bench_pool(block_time=block_time, workers=workers, slots=slots) as bench_pool:
        bench_pool.wait([bench_pool.buy(trust=1, volume=workers)])  # every process has done its first task
        engine, at_once = bench_pool.servers.docker_host, workers * slots
        bare_before = containers_per_minute(engine, IMAGE, at_once=at_once)
        usage = Usage(bench_pool)
        before, started = usage.read(), time.monotonic()
        deal = bench_pool.buy(trust=1, volume=tasks)
        bench_pool.wait([deal])
        seconds = time.monotonic() - started
        spent = usage.read() - before
        bare = (bare_before + containers_per_minute(engine, IMAGE, at_once=at_once)) / 2
        rate = 60 * tasks / seconds
        yield json.dumps(
            {
                "tasks": tasks,
                "workers": workers,
                "tasks_per_minute": round(rate, 1),
                "bare_containers_per_minute": round(bare, 1),
                "share_of_bare": round(rate / bare, 3),
                "rpc_calls_per_task": round(spent.rpc_calls / tasks, 2),
                "broker_messages_per_task": round(spent.broker_messages / tasks, 2),
                "mongodb_operations_per_task": round(spent.mongodb_operations / tasks, 2),
                "scheduler_cpu_seconds_per_task": round(spent.scheduler_cpu_seconds / tasks, 4),
                "bound_by": spent.bound_by(seconds),
            }
        )
