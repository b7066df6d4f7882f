"""One bag through the whole stack: how fast beside the bare thing that it is made of, and what each task cost.

containers   as many no-op containers at once as the pool has slots, beside a bare loop of the same containers
null         no container at all (`null_machine`), beside bare transactions on the same chain: what Sluice itself takes
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

from bench.rig.bare import containers_per_minute, transactions_per_second
from bench.rig.bench_pool import BenchPool, open_bench_pool
from bench.rig.breakdown import Breakdown
from bench.rig.usage import Spent, Usage
from chain.lane.rules.encoding import Call
from ops.demo.app_image import IMAGE
from ops.poco.accounts import dev_key
from ops.pool.on_chain import REQUESTER
from protocol.types import Contract, Wei

#: Trusts of the bags without containers: alone, and with two votes.
NULL_TRUSTS = (1, 3)
#: What holds back a pool on a public chain and says nothing of Sluice: gas of a block, open nonces of a wallet (geth
#: guarantees 16).
NULL_BLOCK_GAS, NULL_IN_FLIGHT = 1_000_000_000, 256
#: Bare transactions of one measurement, and the gas of a payment.
_PAYMENTS, _PAYMENT_GAS = 3_000, 21_000


def run(*, tasks: int, workers: int, slots: int, block_time: float = 1.0, breakdown: bool = False) -> Iterator[str]:
    """Measure one bag: a line of JSON with tasks a minute from match to the last finalize, and costs per task.

    `breakdown`: a second line says what the costs are made of.

    The bare container rate is the mean of before and after the bag, with as many at once as the pool has slots; the
    pool is idle then.
    """
    with open_bench_pool(block_time=block_time, workers=workers, slots=slots) as bench_pool:
        bench_pool.wait([bench_pool.buy(trust=1, volume=workers)])  # every process has done its first task
        engine, at_once = bench_pool.servers.docker_host, workers * slots
        bare_before = containers_per_minute(engine, IMAGE, at_once=at_once)
        parts = Breakdown(bench_pool) if breakdown else None
        seconds, spent = _measure_bag(bench_pool, trust=1, tasks=tasks)
        made_of = parts.per_task(tasks) if parts else None
        bare = (bare_before + containers_per_minute(engine, IMAGE, at_once=at_once)) / 2
        rate = 60 * tasks / seconds
        yield json.dumps(
            {
                "tasks": tasks,
                "workers": workers,
                "tasks_per_minute": round(rate, 1),
                "bare_containers_per_minute": round(bare, 1),
                "share_of_bare": round(rate / bare, 3),
                **_costs(spent, tasks, seconds),
            }
        )
        if made_of is not None:
            yield json.dumps(made_of)


def run_null(
    *, tasks: int, workers: int, slots: int, block_time: float = 1.0, breakdown: bool = False
) -> Iterator[str]:
    """Measure one bag without containers for each of NULL_TRUSTS: a line of JSON with tasks a second, and costs per
    task. The bare rate is of payments, the mean of before and after the bag.
    """
    env = {"SLUICE_LANE_MAX_IN_FLIGHT": str(NULL_IN_FLIGHT)}
    with open_bench_pool(
        block_time=block_time,
        workers=workers,
        slots=slots,
        block_gas=NULL_BLOCK_GAS,
        env=env,
        machine=("bench.rig.null_machine",),
    ) as bench_pool:
        # Every process has done its first task, and every machine has been right often enough to fill its slots.
        bench_pool.wait([bench_pool.buy(trust=1, volume=2 * workers * slots)])
        bare = _payments_per_second(bench_pool)
        for trust in NULL_TRUSTS:
            parts = Breakdown(bench_pool) if breakdown else None
            seconds, spent = _measure_bag(bench_pool, trust=trust, tasks=tasks)
            made_of = parts.per_task(tasks) if parts else None
            before, bare = bare, _payments_per_second(bench_pool)
            mean = (before + bare) / 2
            yield json.dumps(
                {
                    "case": "null",
                    "trust": trust,
                    "tasks": tasks,
                    "workers": workers,
                    "tasks_per_second": round(tasks / seconds, 2),
                    "bare_transactions_per_second": round(mean),
                    "share_of_bare_transactions": round(tasks / seconds / mean, 5),
                    **_costs(spent, tasks, seconds),
                }
            )
            if made_of is not None:
                yield json.dumps(made_of)


def _measure_bag(bench_pool: BenchPool, *, trust: int, tasks: int) -> tuple[float, Spent]:
    """Buy a bag and wait for its end: seconds from its match, and what it cost."""
    usage = Usage(bench_pool)
    before, started = usage.read(), time.monotonic()
    bench_pool.wait([bench_pool.buy(trust=trust, volume=tasks)])
    return time.monotonic() - started, usage.read() - before


def _payments_per_second(bench_pool: BenchPool) -> float:
    """Payments of the requester that the pool's node mines a second from a bare script."""
    payments = [Call(Contract(f"0x{number + 2**80:040x}"), "0x", _PAYMENT_GAS, Wei(1)) for number in range(_PAYMENTS)]
    chain = bench_pool.chain
    return transactions_per_second(bench_pool.rpc, chain.ws_url, dev_key(REQUESTER), chain.chain_id, payments)


def _costs(spent: Spent, tasks: int, seconds: float) -> dict[str, object]:
    """What each of `tasks` cost."""
    return {
        "rpc_calls_per_task": round(spent.rpc_calls / tasks, 2),
        "broker_messages_per_task": round(spent.broker_messages / tasks, 2),
        "mongodb_operations_per_task": round(spent.mongodb_operations / tasks, 2),
        "scheduler_cpu_seconds_per_task": round(spent.scheduler_cpu_seconds / tasks, 4),
        "worker_cpu_seconds_per_task": round(spent.worker_cpu_seconds / tasks, 4),
        "bound_by": spent.bound_by(seconds),
    }
