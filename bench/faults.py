"""One fault in the middle of a bag of real containers, one run per fault: does every task still end well?

    buy 20 tasks ──► 5 are COMPLETED ──► fault ──► 20 are COMPLETED?  how much later?  stakes free?  nonces whole?

The first run is undisturbed; `extra_seconds` is measured against it, less the time a frozen chain stood still.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from bench.arena import Arena, open_arena
from ops.pool.servers import crash
from ops.stack.parts import Part
from protocol.types import Wallet
from protocol.view import TaskStatus

#: Tasks in the bag, and how many are done when the fault strikes.
TASKS, DONE_BEFORE = 20, 5
#: What each container does: long enough that some run when the fault strikes.
WORK = "sleep 1"
#: Seconds the chain stands still.
FREEZE_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Fault:
    """What breaks; `outage`: seconds during which nothing could have gone on anyhow."""

    name: str
    strike: Callable[[Arena], None]
    outage: float = 0.0


def _kill_scheduler_child(child: str) -> Callable[[Arena], None]:
    return lambda arena: os.kill(arena.pool.child_pid("scheduler", child), signal.SIGKILL)


def _kill_machine_child(child: str) -> Callable[[Arena], None]:
    return lambda arena: os.kill(arena.pool.child_pid("worker-1", child), signal.SIGKILL)


def _kill_and_restart(program: str) -> Callable[[Arena], None]:
    def strike(arena: Arena) -> None:
        arena.pool.running[program].kill()
        arena.pool.restart(program)

    return strike


def _freeze_chain(seconds: float) -> Callable[[Arena], None]:
    def strike(arena: Arena) -> None:
        os.kill(arena.node.pid, signal.SIGSTOP)
        try:
            threading.Event().wait(seconds)
        finally:
            os.kill(arena.node.pid, signal.SIGCONT)

    return strike


def faults(crash: Callable[[Part], None] = crash, freeze_seconds: float = FREEZE_SECONDS) -> tuple[Fault, ...]:
    """All faults. `crash`: kills and restarts a server, where it is not the stack's own."""
    return (
        Fault("none", lambda _: None),
        *(Fault(child, _kill_scheduler_child(child)) for child in ("pipeline", "lane", "watch", "beat", "api")),
        Fault("scheduler", _kill_and_restart("scheduler")),
        *(Fault(f"worker-{child}", _kill_machine_child(child)) for child in ("compute", "tx", "pulse")),
        Fault("worker-machine", _kill_and_restart("worker-1")),
        Fault("mongodb", lambda _: crash(Part.MONGODB)),
        Fault("rabbitmq", lambda _: crash(Part.RABBITMQ)),
        Fault("chain-frozen", _freeze_chain(freeze_seconds), outage=freeze_seconds),
    )


def run(*, only: Sequence[str] = (), tasks: int = TASKS, trust: int = 1, block_time: float = 1.0) -> Iterator[str]:
    """One line of JSON per fault. `only`: names of `faults`; the undisturbed run always comes first."""
    undisturbed: float | None = None
    for fault in faults():
        if undisturbed is not None and only and fault.name not in only:
            continue
        outcome = _one(fault, tasks=tasks, trust=trust, block_time=block_time)
        undisturbed = outcome.seconds if undisturbed is None else undisturbed
        extra = outcome.seconds - undisturbed - fault.outage
        yield json.dumps(
            {
                "fault": fault.name,
                "completed": outcome.completed,
                "of": tasks,
                "extra_seconds": round(extra, 1),
                "stake_locked": outcome.stake_locked,
                "nonce_gaps": outcome.nonce_gaps,
            }
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one run ended."""

    seconds: float
    completed: int
    stake_locked: int
    nonce_gaps: int


def _one(fault: Fault, *, tasks: int, trust: int, block_time: float) -> Outcome:
    with open_arena(block_time=block_time, workers=2, slots=1) as arena:
        return disturb(arena, fault, tasks=tasks, trust=trust)


def disturb(
    arena: Arena, fault: Fault, *, tasks: int, trust: int, done_before: int = DONE_BEFORE, work: str = WORK
) -> Outcome:
    """Buy a bag of tasks, strike once `done_before` of them are COMPLETED, and follow all of them to their end."""
    started = time.monotonic()
    deal = arena.buy(trust=trust, volume=tasks, args=work)
    stop = threading.Event()
    timer = threading.Timer(arena.patience, stop.set)
    timer.start()
    struck, completed = False, 0
    try:
        for views in arena.watch([deal], stop):
            completed = sum(view.status is TaskStatus.COMPLETED for view in views.values())
            if not struck and completed >= min(done_before, tasks - 1):
                struck = True
                fault.strike(arena)
    finally:
        timer.cancel()
    seconds = time.monotonic() - started
    return Outcome(seconds, completed, stake_locked(arena), nonce_gaps(arena))


def stake_locked(arena: Arena) -> int:
    """Stake in nRLC that is locked, of the pool's owner and all workers."""
    return sum(account.locked for account in arena.hub.accounts(_wallets(arena)))


def nonce_gaps(arena: Arena) -> int:
    """Nonces that were handed out but are not mined, of the pool's owner and all workers."""
    wallets = _wallets(arena)
    pending = arena.rpc.batch([("eth_getTransactionCount", (wallet, "pending")) for wallet in wallets])
    mined = arena.rpc.batch([("eth_getTransactionCount", (wallet, "latest")) for wallet in wallets])
    queued = arena.rpc.call("txpool_status").get("queued", "0x0")
    return sum(int(p, 16) - int(m, 16) for p, m in zip(pending, mined, strict=True)) + int(queued, 16)


def _wallets(arena: Arena) -> Sequence[Wallet]:
    ground = arena.pool.ground
    return [wallet.key.wallet for wallet in (ground.scheduler, *ground.workers)]
