"""Four honest machines beside fifty fresh wallets that claim 64 slots each and do no work: the same deals with and
without them, and what became of results and stakes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping

from bench.bench_pool import BenchPool, open_bench_pool
from bench.fresh_wallets import signed_in
from protocol.poco.view import ChainView, TaskStatus
from protocol.types import TaskId

#: Honest machines, and containers of each at once.
HONEST, SLOTS = 4, 2
#: Seconds between blocks.
BLOCK_TIME = 1.0


def run(*, wallets: int, tasks: int) -> Iterator[str]:
    """One line of JSON: `tasks` at trust 1 and half as many at trust 5, with `wallets` fresh wallets and without."""
    with open_bench_pool(block_time=BLOCK_TIME, workers=HONEST, slots=SLOTS) as bench_pool:
        honest = [wallet.key.wallet for wallet in bench_pool.pool.on_chain.workers[:HONEST]]
        # Every honest machine has been right on chain before.
        bench_pool.wait([bench_pool.buy(trust=5, volume=HONEST), bench_pool.buy(trust=1, volume=HONEST * SLOTS)])
        before = bench_pool.hub.accounts(honest)
        undisturbed, _ = _timed(bench_pool, tasks)
        with signed_in(bench_pool, wallets) as crowd:
            seconds, views = _timed(bench_pool, tasks)
        after = bench_pool.hub.accounts(honest)
        winners = [vote.worker for view in views.values() for vote in view.winners]
        yield json.dumps(
            {
                "wallets": wallets,
                "tasks": len(views),
                "completed": sum(view.status is TaskStatus.COMPLETED for view in views.values()),
                "by_honest_machines_only": set(winners) <= set(honest),
                "given_to_fresh_wallets": sum(len(wallet.given) for wallet in crowd),
                "honest_stake_lost": sum(max(0, was.stake - now.stake) for was, now in zip(before, after, strict=True)),
                "honest_stake_locked": sum(account.locked for account in after),
                "seconds": round(seconds, 1),
                "undisturbed_seconds": round(undisturbed, 1),
                "ratio": round(seconds / undisturbed, 2),
            }
        )


def _timed(bench_pool: BenchPool, tasks: int) -> tuple[float, Mapping[TaskId, ChainView]]:
    started = time.monotonic()
    deals = [bench_pool.buy(trust=1, volume=tasks), bench_pool.buy(trust=5, volume=max(1, tasks // 2))]
    views = bench_pool.wait(deals)
    return time.monotonic() - started, views
