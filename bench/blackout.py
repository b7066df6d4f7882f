"""Everything is killed at once in the middle of a bag of mixed trust, servers too: how soon does all go on?

    buy ──► a third is COMPLETED ──► kill -9: scheduler, machines, MongoDB, RabbitMQ, IPFS
        ──► servers up again, then the programs ──► blocks from there until … ──► all COMPLETED?

    watch      the watcher has followed the head of the servers' return
    sweep      a sweep has visited every open task
    machines   each machine was heard of
    step       a task has taken its next step on the chain

The chain goes on meanwhile: it is nobody's of the pool.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress

from bench.cluster import NULL_MACHINE
from bench.faults import nonce_gaps, stake_locked
from bench.rig.bench_pool import BenchPool, BrokenPromise, open_bench_pool
from bench.takeover import buy_mixed
from chain.rpc.heads import heads
from config import mongodb
from ops.market.match import Matched
from ops.pool.servers import bring_up, own_process
from ops.stack.parts import StackPart
from pipeline.store.client import Store
from protocol.poco.view import TaskStatus

#: The servers that die too.
SERVERS = (StackPart.MONGODB, StackPart.RABBITMQ, StackPart.IPFS)
MACHINES, SLOTS = 4, 4
#: Tasks that are COMPLETED when everything dies: one of so many.
STRUCK_PART = 3
#: Most blocks from the servers' return until everything goes on.
MOST_BLOCKS = 3
#: Seconds after which the pool counts as stuck.
STUCK_SECONDS = 600.0


def run(*, tasks: int, block_time: float) -> Iterator[str]:
    """One line of JSON. Raises BrokenPromise if a task is not COMPLETED, or something goes on after MOST_BLOCKS."""
    with open_bench_pool(block_time=block_time, workers=MACHINES, slots=SLOTS, machine=NULL_MACHINE) as bench_pool:
        bench_pool.timeout = STUCK_SECONDS
        deals = buy_mixed(bench_pool, tasks)
        for views in bench_pool.watch(deals, threading.Event()):
            done = sum(view.status is TaskStatus.COMPLETED for view in views.values())
            if done >= tasks // STRUCK_PART:
                break
        killed = time.monotonic()
        kill_everything(bench_pool)
        bring_up()
        away = time.monotonic() - killed
        for name in list(bench_pool.pool.running):
            bench_pool.pool.restart(name)
        blocks = until_all_go_on(bench_pool, deals)
        views = bench_pool.wait(deals)
        completed = sum(view.status is TaskStatus.COMPLETED for view in views.values())
        yield json.dumps(
            {
                "tasks": tasks,
                "open": tasks - done,
                "completed": completed,
                "servers_away_seconds": round(away, 1),
                "block_time": block_time,
                "blocks": blocks,
                "stake_locked": stake_locked(bench_pool),
                "nonce_gaps": nonce_gaps(bench_pool),
            }
        )
    if completed < tasks or max(blocks.values()) > MOST_BLOCKS:
        raise BrokenPromise(what="A pool that was killed as a whole", why=f"{completed} of {tasks}, blocks: {blocks}.")


def kill_everything(bench_pool: BenchPool) -> None:
    """SIGKILL to all programs and servers at once."""
    dying = [*bench_pool.pool.running.values(), *map(own_process, SERVERS)]
    for process in dying:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    for process in dying:
        process.stop(how=signal.SIGKILL)
    mongodb.close()


def until_all_go_on(bench_pool: BenchPool, deals: list[Matched]) -> Mapping[str, int]:
    """Blocks from now until each of what is above was first seen."""
    store = Store.of(mongodb.client(bench_pool.servers.mongodb_uri)[bench_pool.names.database])
    begun, tasks = time.time(), [task for deal in deals for task in deal.tasks]
    before = {view.task_id: view for view in bench_pool.hub.tasks(tasks)}
    wallets = [wallet.key.wallet for wallet in bench_pool.pool.on_chain.workers]
    stop, first, found = threading.Event(), 0, dict[str, int]()

    def watched() -> bool:
        cursor = store.chain.cursor()
        return cursor is not None and cursor.number >= first

    looks: Mapping[str, Callable[[], bool]] = {
        "watch": watched,
        "sweep": lambda: (store.sweeps.last() or 0.0) > begun,
        "machines": lambda: min(worker.seen_at for worker in store.workers.load_workers(wallets)) > begun,
        "step": lambda: any(view != before[view.task_id] for view in bench_pool.hub.tasks(tasks)),
    }
    timer = threading.Timer(STUCK_SECONDS, stop.set)
    timer.start()
    try:
        for head in heads(bench_pool.chain.ws_url, bench_pool.rpc, bench_pool.chain.block_time, stop):
            first = first or head
            found |= {name: head - first for name, look in looks.items() if name not in found and look()}
            if found.keys() == looks.keys():
                return found
    finally:
        timer.cancel()
    raise BrokenPromise(what="A pool that was killed as a whole", why=f"It did not go on; seen: {found}.")
