"""One fault in the middle of a bag of real containers, one run per fault: does every task still end well?

    buy 20 tasks ──► 5 are COMPLETED ──► fault ──► 20 are COMPLETED?  how much later?  stakes free?  nonces whole?
                                                   does the scheduler's database say what the contract says?

The first run is undisturbed; `extra_seconds` is measured against it, less the time a frozen chain stood still. How a
run ended is read from the contract at its end. A reorg waits until it does not reach the deal itself: a match that is
gone for good is no worker's task any more.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from bench.rig.bench_pool import BenchPool, open_bench_pool
from bench.rig.reorg import reorganise, wait_until_deep
from chain.rpc.answers import decode_replies, values
from ops.pool.servers import crash
from ops.stack.parts import StackPart
from protocol.poco.view import TaskStatus
from protocol.types import Wallet

#: Tasks in the bag, and how many are done when the fault strikes.
TASKS, DONE_BEFORE = 20, 5
#: What each container does: long enough that some run when the fault strikes.
WORK = "sleep 1"
#: Seconds the chain stands still.
FREEZE_SECONDS = 20.0
#: Blocks that a reorg replaces.
REORG_DEPTHS = (1, 3, 10)
#: Seconds that the database may take to hear of the last task's end.
SETTLE_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault to inject. `outage`: seconds in which no part could go on anyway; `depth`: blocks that it replaces."""

    name: str
    strike: Callable[[BenchPool], None]
    outage: float = 0.0
    depth: int = 0


def _kill_scheduler_child(child: str) -> Callable[[BenchPool], None]:
    """A fault that kills one of the scheduler's processes."""
    return lambda bench_pool: os.kill(bench_pool.pool.child_pid("scheduler", child), signal.SIGKILL)


def _kill_machine_child(child: str) -> Callable[[BenchPool], None]:
    """A fault that kills one of a worker machine's processes."""
    return lambda bench_pool: os.kill(bench_pool.pool.child_pid("worker-1", child), signal.SIGKILL)


def _kill_and_restart(program: str) -> Callable[[BenchPool], None]:
    """A fault that kills a program with SIGKILL and starts it again."""

    def strike(bench_pool: BenchPool) -> None:
        """Kill the program and start it again."""
        bench_pool.pool.running[program].kill()
        bench_pool.pool.restart(program)

    return strike


def _freeze_chain(seconds: float) -> Callable[[BenchPool], None]:
    """A fault that stops the node (SIGSTOP) for so many seconds."""

    def strike(bench_pool: BenchPool) -> None:
        """Stop the node with SIGSTOP, and let it go on after `seconds`."""
        os.kill(bench_pool.node.pid, signal.SIGSTOP)
        try:
            threading.Event().wait(seconds)
        finally:
            os.kill(bench_pool.node.pid, signal.SIGCONT)

    return strike


def _reorg_fault(depth: int, *, returned: bool) -> Fault:
    """A fault that replaces the last `depth` blocks; `returned`: their transactions are in the new ones."""
    return Fault(
        f"reorg-{depth}-{'returned' if returned else 'dropped'}",
        lambda bench_pool: reorganise(bench_pool, depth, returned=returned),
        depth=depth,
    )


def faults(crash: Callable[[StackPart], None] = crash, freeze_seconds: float = FREEZE_SECONDS) -> tuple[Fault, ...]:
    """All faults. `crash` kills and restarts a server of the stack; tests give another."""
    return (
        Fault("none", lambda _: None),
        *(Fault(child, _kill_scheduler_child(child)) for child in ("pipeline", "lane", "watch", "beat", "api")),
        Fault("scheduler", _kill_and_restart("scheduler")),
        *(Fault(f"worker-{child}", _kill_machine_child(child)) for child in ("compute", "tx", "upkeep")),
        Fault("worker-machine", _kill_and_restart("worker-1")),
        Fault("mongodb", lambda _: crash(StackPart.MONGODB)),
        Fault("rabbitmq", lambda _: crash(StackPart.RABBITMQ)),
        Fault("chain-frozen", _freeze_chain(freeze_seconds), outage=freeze_seconds),
        *(_reorg_fault(depth, returned=returned) for returned in (False, True) for depth in REORG_DEPTHS),
    )


def run(
    *,
    only: Sequence[str] = (),
    tasks: int = TASKS,
    trust: int = 1,
    block_time: float = 1.0,
    state: Literal["latest", "pending"] = "latest",
) -> Iterator[str]:
    """Measure each fault on a pool of its own: a line of JSON per fault.

    `only`: names of faults; "none" always comes first. `state`: SLUICE_STATE of the pools.
    """
    undisturbed: float | None = None
    for fault in faults():
        if undisturbed is not None and only and fault.name not in only:
            continue
        outcome = _run_fault(fault, tasks=tasks, trust=trust, block_time=block_time, state=state)
        undisturbed = outcome.seconds if undisturbed is None else undisturbed
        extra = outcome.seconds - undisturbed - fault.outage
        yield json.dumps(
            {
                "fault": fault.name,
                "state": state,
                "completed": outcome.completed,
                "of": tasks,
                "extra_seconds": round(extra, 1),
                "stake_locked": outcome.stake_locked,
                "nonce_gaps": outcome.nonce_gaps,
                "database_only": outcome.database_only,
                "chain_only": outcome.chain_only,
            }
        )


@dataclass(frozen=True, slots=True)
class FaultOutcome:
    """How one run ended, as the contract has it."""

    seconds: float
    completed: int
    stake_locked: int
    nonce_gaps: int
    #: Tasks that are COMPLETED for the scheduler's database but not for the contract, and the other way round.
    database_only: int
    chain_only: int


def _run_fault(fault: Fault, *, tasks: int, trust: int, block_time: float, state: str) -> FaultOutcome:
    """Run one fault on a fresh pool with two workers."""
    with open_bench_pool(block_time=block_time, workers=2, slots=1, env={"SLUICE_STATE": state}) as bench_pool:
        return disturb(bench_pool, fault, tasks=tasks, trust=trust)


def disturb(
    bench_pool: BenchPool, fault: Fault, *, tasks: int, trust: int, done_before: int = DONE_BEFORE, work: str = WORK
) -> FaultOutcome:
    """Buy a bag of tasks, inject the fault once `done_before` of them are COMPLETED, and follow all to their end."""
    deal = bench_pool.buy(trust=trust, volume=tasks, args=work)
    # Not before: the first purchase of a process imports half a library, and the undisturbed run is the first.
    started = time.monotonic()
    stop = threading.Event()
    timer = threading.Timer(bench_pool.timeout, stop.set)
    timer.start()
    try:
        for views in bench_pool.watch([deal], stop):
            if sum(view.status is TaskStatus.COMPLETED for view in views.values()) >= min(done_before, tasks - 1):
                break
        wait_until_deep(bench_pool, deal.block_number, fault.depth)
        fault.strike(bench_pool)
        # Read anew from the deal on: what was seen before may have left the chain.
        for _ in bench_pool.watch([deal], stop):
            continue
    finally:
        timer.cancel()
    seconds = time.monotonic() - started
    database_only, chain_only = bench_pool.compare(deal, SETTLE_SECONDS)
    completed = sum(view.status is TaskStatus.COMPLETED for view in bench_pool.hub.tasks(deal.tasks))
    return FaultOutcome(seconds, completed, stake_locked(bench_pool), nonce_gaps(bench_pool), database_only, chain_only)


def stake_locked(bench_pool: BenchPool) -> int:
    """nRLC of stake that the pool's owner and all workers have locked."""
    return sum(account.locked for account in bench_pool.hub.accounts(pool_wallets(bench_pool)))


def nonce_gaps(bench_pool: BenchPool) -> int:
    """Number of nonces below the pending one that are not mined, of the pool's owner and all workers.

    anvil keeps what a replacement has freed among its queued ones for ever: such a nonce is mined and no gap.
    """
    wallets = pool_wallets(bench_pool)
    pending, mined = (
        _read_account_nonces(bench_pool, wallets, "pending"),
        _read_account_nonces(bench_pool, wallets, "latest"),
    )
    queued = bench_pool.rpc.call("txpool_content")["queued"]
    gaps = 0
    for wallet, handed_out, count in zip(wallets, pending, mined, strict=True):
        held_back = [nonce for nonce in queued.get(wallet, {}) if int(nonce) >= count]
        gaps += handed_out - count + len(held_back)
    return gaps


def _read_account_nonces(bench_pool: BenchPool, wallets: Sequence[Wallet], tag: str) -> list[int]:
    """The account nonce of each wallet at block `tag`."""
    replies = bench_pool.rpc.batch([("eth_getTransactionCount", (wallet, tag)) for wallet in wallets])
    return values(decode_replies(replies, lambda count: int(count, 16)), bench_pool.rpc.name)


def pool_wallets(bench_pool: BenchPool) -> Sequence[Wallet]:
    """The wallets of the scheduler and all workers."""
    on_chain = bench_pool.pool.on_chain
    return [wallet.key.wallet for wallet in (on_chain.scheduler, *on_chain.workers)]
