"""A bag of real containers in the middle of which a fault strikes."""

from __future__ import annotations

from collections.abc import Callable

from bench.faults import disturb, faults, nonce_gaps
from bench.rig.bench_pool import BenchPool
from ops.stack.parts import StackPart
from tests.waiting import wait_until

#: Tasks of a bag, and how many are done when a fault strikes: two machines are at work then.
TASKS, DONE_BEFORE = 6, 2
#: What each container does: it lasts two blocks of the fastest pool, so that some run when the fault strikes.
WORK = "sleep 0.5"
#: Seconds that a frozen chain stands still.
FREEZE_SECONDS = 5.0


def completes_a_bag(bench_pool: BenchPool, name: str, *, trust: int, crash: Callable[[StackPart], None]) -> None:
    """Fails the test unless a bag is completed, with all stakes free and no nonce lost, though this fault strikes.

    `crash`: kills a server and starts it again.
    """
    (fault,) = (fault for fault in faults(crash, FREEZE_SECONDS) if fault.name == name)
    outcome = disturb(bench_pool, fault, tasks=TASKS, trust=trust, done_before=DONE_BEFORE, work=WORK)
    assert outcome.completed == TASKS
    assert (outcome.database_only, outcome.chain_only) == (0, 0)
    assert outcome.stake_locked == 0
    wait_until(lambda: nonce_gaps(bench_pool) == 0, 10, what="all nonces to be mined")
    pool = bench_pool.pool
    for number, worker in enumerate(pool.on_chain.workers, 1):
        # One that was started again may not be back yet, and the next test would find it missing.
        if (machine := f"worker-{number}") in pool.running:
            pool.await_machine(machine, worker.key.wallet)
