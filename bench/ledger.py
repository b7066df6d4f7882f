"""Compares the scheduler's ledger with the chain, after a run with every kind of movement of money.

mixed     tasks of trust 1, 3 and 5 in a drawn order, with a liar among the machines; reorgs of REORG_DEPTH strike
          while they are at work, with and without the transactions that were in the blocks
reopened  votes that nobody reveals: honest machines are drained until each silent one has won a vote
claimed   tasks that expire while the pool is paused

Then the ledger must equal the hub's account to the nRLC and the wallet's balance to the wei, and what it says of each
machine must be what the hub paid and took.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from bench.rig.bench_pool import BenchPool, BrokenPromise, open_bench_pool
from bench.rig.reorg import reorganise, wait_until_deep
from bench.rig.strangers import Kind, at_work, funded
from bench.throughput import NULL_BLOCK_GAS, NULL_IN_FLIGHT
from chain.rpc.heads import heads
from config.settings import read_settings
from ops.admin.client import OperatorApi
from ops.market.match import Matched
from ops.poco.deploy import TEST_CATEGORY
from pipeline.store.client import Store
from protocol.errors import NotReady, Unavailable
from protocol.poco.view import ContributionStatus, TaskStatus
from protocol.types import TaskId, Wallet

#: Machines without containers, and tasks of each at once.
HONEST, SLOTS = 4, 8
#: Seconds between blocks.
BLOCK_TIME = 1.0
REORG_DEPTH, REORGS_EACH = 3, 2
TRUSTS = (1, 3, 5)
#: Tasks of one deal at most, and seconds of their category: they take votes for seven times as long.
DEAL_TASKS, CATEGORY_SECONDS = 100, 60
#: Of the tasks, one in so many is bought while silent machines are alone, and one while the pool is paused.
FEW = 50
#: Silent machines at most, each of which has one task reopened: new machines get one at a time.
SILENT = 4
#: Seconds for one deal to end, and for the ledger to know what the last transactions cost.
TIMEOUT, SETTLE_SECONDS = 1200.0, 120.0


def run(*, tasks: int, seed: int) -> Iterator[str]:
    """One line of JSON. Raises BrokenPromise, after that line, if anything differs."""
    with open_bench_pool(
        block_time=BLOCK_TIME,
        workers=HONEST,
        slots=SLOTS,
        block_gas=NULL_BLOCK_GAS,
        env={"SLUICE_LANE_MAX_IN_FLIGHT": str(NULL_IN_FLIGHT)},
        machine=("bench.rig.null_machine",),
    ) as bench_pool:
        bench_pool.timeout = TIMEOUT
        found = compare(bench_pool, tasks=tasks, seed=seed)
        yield json.dumps(found)
        wrong = [f"{name}: {found[name]}" for name in _MUST_BE_ZERO if found[name] != 0]
        if wrong:
            raise BrokenPromise(what=f"The ledger of seed {seed}", why=", ".join(wrong))


_MUST_BE_ZERO = ("differs_wei", "differs_stake_nrlc", "differs_locked_nrlc", "machines_differ_nrlc", "sums_differ")


def compare(bench_pool: BenchPool, *, tasks: int, seed: int) -> dict[str, object]:
    """The figures of `run` for a pool of HONEST machines."""
    draw = random.Random(seed)
    few = max(1, tasks // FEW)
    keys = funded(bench_pool, 1 + min(few, SILENT))
    honest = [worker.key.wallet for worker in bench_pool.pool.on_chain.workers]
    machines = [*honest, *(key.wallet for key in keys)]
    before = bench_pool.hub.accounts(machines)
    began, ids = time.monotonic(), list[TaskId]()
    category = bench_pool.new_category(CATEGORY_SECONDS)
    # Every honest machine has been right on chain before.
    ids += bench_pool.wait([bench_pool.buy(trust=5, volume=HONEST)])
    with at_work(bench_pool, keys[:1], [Kind.LYING]):
        for trust, volume in _deals(draw, tasks - 2 * few - HONEST):
            deal = bench_pool.buy(trust=trust, volume=volume, category=category)
            ids += _disturbed(bench_pool, draw, deal)
    silent = keys[1:]
    with at_work(bench_pool, silent, [Kind.UNREVEALING] * len(silent)):
        ids += _reopened(bench_pool, honest, few, len(silent), category)
    ids += _claimed(bench_pool, few)
    seconds = time.monotonic() - began
    books = _books(bench_pool, machines, before)
    views = bench_pool.hub.tasks(ids)
    return {
        "tasks": len(views),
        "completed": sum(view.status is TaskStatus.COMPLETED for view in views),
        "claimed": sum(view.status is TaskStatus.FAILED for view in views),
        # The contract rejects votes nowhere else.
        "reopened": sum(
            any(vote.status is ContributionStatus.REJECTED for vote in view.contributions) for view in views
        ),
        "reorgs": _reorgs(bench_pool),
        **books,
        "seconds": round(seconds, 1),
        "seed": seed,
    }


def _deals(draw: random.Random, tasks: int) -> Iterator[tuple[int, int]]:
    """(trust, volume) of each deal."""
    while tasks > 0:
        volume = min(tasks, draw.randint(DEAL_TASKS // 2, DEAL_TASKS))
        yield draw.choice(TRUSTS), volume
        tasks -= volume


def _disturbed(bench_pool: BenchPool, draw: random.Random, deal: Matched) -> Iterable[TaskId]:
    """The deal's tasks once they have ended; reorgs strike while they are at work, none as deep as the match."""
    for number in range(REORGS_EACH):
        wait_until_deep(bench_pool, deal.block_number, REORG_DEPTH + 1 + 2 * number)
        reorganise(bench_pool, REORG_DEPTH, returned=draw.random() < 0.5)
    return bench_pool.wait([deal])


def _reopened(
    bench_pool: BenchPool, honest: Sequence[Wallet], tasks: int, silent: int, category: int
) -> Iterable[TaskId]:
    """The tasks of a deal of trust 2, once they have ended; `silent` machines, which vote and do not reveal, are first
    alone at it, so that some tasks are reopened.
    """
    with _drained(bench_pool, honest):
        deal = bench_pool.buy(trust=2, volume=tasks, category=category)

        def won() -> bool:
            """Whether as many tasks have a consensus as there are silent machines."""
            views = bench_pool.hub.tasks(deal.tasks)
            return sum(view.status is TaskStatus.REVEALING for view in views) >= silent

        _until(bench_pool, won, "a vote of each silent machine")
    return bench_pool.wait([deal])


def _claimed(bench_pool: BenchPool, tasks: int) -> Iterable[TaskId]:
    """The tasks of a deal that expire while the pool is paused, once they are claimed."""
    store = _store(bench_pool)
    store.pause.pause(time.time(), "bench ledger")
    try:
        return bench_pool.wait([bench_pool.buy(trust=1, volume=tasks, category=TEST_CATEGORY)])
    finally:
        store.pause.resume()


@contextmanager
def _drained(bench_pool: BenchPool, wallets: Sequence[Wallet]) -> Iterator[None]:
    """Drain these machines for the block: they get nothing new."""
    census = _store(bench_pool).census
    for wallet in wallets:
        census.limit_slots(wallet, 0)
    try:
        yield
    finally:
        for wallet in wallets:
            census.limit_slots(wallet, None)


def _books(bench_pool: BenchPool, machines: Sequence[Wallet], before: Sequence[Any]) -> dict[str, object]:
    """What the ledger says, beside the hub's accounts."""
    api = OperatorApi(read_settings(**_settings(bench_pool)))
    found: dict[str, Any] = {}

    def settled() -> bool:
        """Whether the ledger knows how far its books differ from the chain."""
        try:
            found.update(api.get("/ledger", since=0))
        except Unavailable:
            # A part that it asks was slow.
            return False
        return found["reconciled"]["differs_wei"] is not None

    _until(bench_pool, settled, "the ledger to know what all transactions cost", SETTLE_SECONDS)
    books, total = found["reconciled"], found["total"]
    said = {line["key"]: line["earned_nrlc"] for line in api.get("/ledger", since=0, by="worker", limit=1000)["lines"]}
    now = bench_pool.hub.accounts(machines)
    gained = [is_.stake + is_.locked - was.stake - was.locked for was, is_ in zip(before, now, strict=True)]
    by_day = api.get("/ledger", since=0, by="day", limit=1000)["total"]
    return {
        "differs_wei": books["differs_wei"],
        "differs_stake_nrlc": books["differs_stake_nrlc"],
        "differs_locked_nrlc": books["differs_locked_nrlc"],
        "machines_differ_nrlc": sum(
            abs(said.get(wallet, 0) - delta) for wallet, delta in zip(machines, gained, strict=True)
        ),
        "sums_differ": sum(by_day[name] != total[name] for name in total),
        "gas_wei": total["gas_wei"],
        "earned_nrlc": total["earned_nrlc"],
        "seized_nrlc": total["seize_nrlc"],
        "kinds": sorted(line["key"] for line in found["lines"]),
        "says": books["says"],
    }


def _reorgs(bench_pool: BenchPool) -> int:
    """How many reorgs the watcher has stored, of the last ones that it keeps."""
    return len(_store(bench_pool).chain.reorgs())


def _settings(bench_pool: BenchPool) -> dict[str, object]:
    """The settings of the scheduler's home, where the operator's token is."""
    own = {name.removeprefix("SLUICE_").lower(): value for name, value in bench_pool.pool.env.items()}
    return {**own, "home": bench_pool.home / "scheduler"}


def _store(bench_pool: BenchPool) -> Store:
    """The store of the pool's scheduler."""
    return Store.open(read_settings(**_settings(bench_pool)))


def _until(bench_pool: BenchPool, condition: Callable[[], bool], what: str, seconds: float = TIMEOUT) -> None:
    """Ask at each new block. Raises NotReady after so many seconds."""
    stop = threading.Event()
    timer = threading.Timer(seconds, stop.set)
    timer.start()
    try:
        for _ in heads(bench_pool.chain.ws_url, bench_pool.rpc, bench_pool.chain.block_time, stop):
            if condition():
                return
    finally:
        timer.cancel()
    raise NotReady(part=what, seconds=seconds, log=bench_pool.pool.programs["scheduler"].log, why="It did not come.")
