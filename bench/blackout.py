"""Everything of a pool is killed at once, its servers too, with all of a bag's tasks open: do all of them go on?

    buy ──► a tenth has votes ──► SIGKILL to scheduler, machines, MongoDB, RabbitMQ and IPFS
        ──► all are started again, and serve ──► blocks, one at a time: after how many has every task gone on?
        ──► blocks as before ──► all are COMPLETED? nothing twice? stakes free, nonces whole?

The time that programs take to start depends on this machine, and the chain goes on meanwhile; so only the blocks
after that are counted.

A task that a machine had, or that had votes, has gone on when it differs from its state at the blackout, in the
database or on chain; one that waited for a machine, when it is initialized and waits for one. The machines run no
containers. Only the chain's node is not killed: it does not belong to the pool.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bench.chaos.figures import poll_until_zero
from bench.faults import nonce_gaps, stake_locked
from bench.rig.bench_pool import BenchPool, BrokenPromise, open_bench_pool
from bench.rig.payments import payments
from bench.takeover import TRUSTS
from bench.throughput import NULL_BLOCK_GAS, NULL_IN_FLIGHT
from config.connections.mongodb import client
from ops.market.match import Matched
from ops.pool.servers import bring_up, own_process
from ops.stack.parts import StackPart
from pipeline.store.task.tasks import Tasks
from protocol.poco.view import ChainView, TaskStatus
from protocol.types import TaskId

#: Machines, and tasks of each at once.
MACHINES, SLOTS = 5, 8
#: Tasks of the deals by which the machines earn these slots: what a machine may use grows with what it got right.
PROVING = (5, 10, 20)
#: The servers that are killed.
KILLED = (StackPart.MONGODB, StackPart.RABBITMQ, StackPart.IPFS)
#: Of the tasks, one in so many has votes when all is killed.
VOTED_PART = 10
#: Blocks within which every task is to go on.
MOST_BLOCKS = 3
#: A block is mined when nothing has changed for so many seconds: to wait longer for what comes without a block costs
#: nothing but time.
STILL_SECONDS = 10.0
#: Seconds between two checks, and for everything to be over.
LOOK_SECONDS, END_SECONDS = 0.5, 900.0
#: Seconds in which stakes, nonces and database have to be as they should.
SETTLE_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class State:
    """A task at a moment: its record's version, whether a machine was given it, and its state on chain."""

    version: int | None
    given: bool
    view: ChainView

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.view.status in (TaskStatus.COMPLETED, TaskStatus.FAILED)

    def gone_on(self, before: State) -> bool:
        """Whether it has gone on since it was as `before`."""
        if self != before:
            return True
        under_way = before.given or bool(before.view.contributions)
        return not under_way and self.view.status is TaskStatus.ACTIVE and self.version is not None


@dataclass(frozen=True, slots=True)
class Servers:
    """How the servers are killed, all at once, and started again."""

    kill: Callable[[], None]
    start: Callable[[], object]


def run(*, tasks: int) -> Iterator[str]:
    """One line of JSON. Raises BrokenPromise, after that line, with a sentence for each promise that was broken."""
    servers = Servers(_kill, bring_up)
    env = {"SLUICE_LANE_MAX_IN_FLIGHT": str(NULL_IN_FLIGHT)}
    with open_bench_pool(
        block_time=1.0,
        workers=MACHINES,
        slots=SLOTS,
        block_gas=NULL_BLOCK_GAS,
        env=env,
        machine=("bench.rig.null_machine",),
    ) as bench_pool:
        bench_pool.timeout = END_SECONDS
        for volume in PROVING:
            bench_pool.wait([bench_pool.buy(trust=5, volume=volume)])
        deals = [bench_pool.buy(trust=trust, volume=max(1, round(share * tasks))) for trust, share in TRUSTS.items()]
        found = black_out(bench_pool, deals, servers)
    yield json.dumps(found)
    if wrong := list(broken(found)):
        raise BrokenPromise(what="The pool", why="\n".join(wrong))


def broken(found: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each promise that a run with these figures broke."""
    if found["blocks"] is None or found["blocks"] > MOST_BLOCKS:
        yield f"{found['still']} of {found['open']} tasks have not gone on after {MOST_BLOCKS} blocks."
    if found["completed"] != found["of"]:
        yield f"{found['completed']} of {found['of']} tasks are COMPLETED."
    for name in ("stake_locked", "nonce_gaps", "database_differs"):
        if found[name]:
            yield f"{name}: {found[name]}, not 0."
    yield from found["paid_twice"]


def black_out(bench_pool: BenchPool, deals: list[Matched], servers: Servers) -> dict[str, Any]:
    """Kill everything in the middle of these deals, start it again, and return how all went on and ended."""
    tasks = [task for deal in deals for task in deal.tasks]
    for views in bench_pool.watch(deals, threading.Event()):
        if sum(bool(view.contributions) for view in views.values()) >= max(1, len(tasks) // VOTED_PART):
            break
    began, block = time.monotonic(), bench_pool.hub.head()
    for process in bench_pool.pool.running.values():
        process.stop(how=signal.SIGKILL)
    servers.kill()
    servers.start()
    before = {task: state for task, state in _states(bench_pool, deals).items() if not state.over}
    _start_programs(bench_pool)
    bench_pool.rpc.call("evm_setIntervalMining", 0)
    back, missed = time.monotonic(), bench_pool.hub.head() - block
    blocks, still = _go_on(bench_pool, deals, before)
    # Whole seconds only.
    bench_pool.rpc.call("evm_setIntervalMining", max(1, round(bench_pool.chain.block_time)))
    last = bench_pool.wait(deals)
    ended = time.monotonic()
    compared = [bench_pool.compare(deal, SETTLE_SECONDS) for deal in deals]
    return {
        "of": len(tasks),
        "open": len(before),
        "under_way": sum(state.given or bool(state.view.contributions) for state in before.values()),
        "blocks_of_the_start": missed,
        "blocks": blocks,
        "still": still,
        "completed": sum(view.status is TaskStatus.COMPLETED for view in last.values()),
        "seconds_to_start": round(back - began, 1),
        "seconds_to_end": round(ended - back, 1),
        "stake_locked": poll_until_zero(lambda: stake_locked(bench_pool), SETTLE_SECONDS),
        "nonce_gaps": poll_until_zero(lambda: nonce_gaps(bench_pool), SETTLE_SECONDS),
        "database_differs": sum(map(sum, compared)),
        "paid_twice": payments(bench_pool, deals).twice(),
    }


def _kill() -> None:
    """SIGKILL to all of KILLED, one right after the other."""
    for process in [own_process(part) for part in KILLED]:
        process.stop(how=signal.SIGKILL)


def _start_programs(bench_pool: BenchPool) -> None:
    """Start scheduler and machines again; returns once all of them serve."""
    pool = bench_pool.pool
    for name in list(pool.running):
        pool.restart(name)
    pool.await_scheduler()
    machines = [name for name in pool.running if name != "scheduler"]
    for name, wallet in zip(machines, pool.on_chain.workers, strict=False):
        pool.await_machine(name, wallet.key.wallet)


def _go_on(bench_pool: BenchPool, deals: list[Matched], before: Mapping[TaskId, State]) -> tuple[int | None, int]:
    """(blocks after which every one of these tasks has gone on, tasks that have not); None: more than MOST_BLOCKS."""
    for blocks in range(MOST_BLOCKS + 1):
        still = _settled(bench_pool, deals, before)
        if not still:
            return blocks, 0
        if blocks < MOST_BLOCKS:
            bench_pool.rpc.call("evm_mine")
    return None, still


def _settled(bench_pool: BenchPool, deals: list[Matched], before: Mapping[TaskId, State]) -> int:
    """How many have not gone on, once that is none or nothing has changed for STILL_SECONDS."""
    pause, changed = threading.Event(), time.monotonic()
    last: Mapping[TaskId, State] = {}
    while True:
        now = _states(bench_pool, deals)
        still = sum(not now[task].gone_on(state) for task, state in before.items())
        if now != last:
            changed, last = time.monotonic(), now
        if not still or time.monotonic() - changed > STILL_SECONDS:
            return still
        pause.wait(LOOK_SECONDS)


def _states(bench_pool: BenchPool, deals: list[Matched]) -> dict[TaskId, State]:
    """The state of each task now, by the scheduler's database and by the chain."""
    stored = Tasks(client(bench_pool.servers.mongodb_uri)[bench_pool.names.database])
    records = {record.task_id: record for deal in deals for record in stored.of_deal(deal.deal_id)}
    found = {}
    for view in bench_pool.hub.tasks([task for deal in deals for task in deal.tasks]):
        record = records.get(view.task_id)
        found[view.task_id] = (
            State(None, False, view) if record is None else State(record.version, bool(record.replicates), view)
        )
    return found
