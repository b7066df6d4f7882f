"""How long a small deal waits behind a bag: until it is stored, initialized and completed.

start      bought right behind the bag's own match
middle     when half of the bag's tasks are stored
open       when all of them are stored, and most wait for a worker or their initialize
expired    when a second bag, of a category of 10 s, has passed its contribution deadline as a whole
final      when that one has passed its final deadline, so that each of its tasks is to be claimed

The small deal's deadline is the nearest, except at the start of a short bag: machines take the most urgent task first.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bench.latency import MINIMAL_BLOCKS
from bench.rig.bench_pool import BenchPool, open_bench_pool
from config.connections.mongodb import client
from ops.market.match import Matched
from ops.poco.deploy import TEST_10_CATEGORY
from ops.pool.on_chain import XS
from protocol.errors import NotReady
from protocol.poco.deadlines import contribution_deadline, final_deadline
from protocol.poco.view import ChainView, TaskStatus
from protocol.types import Timestamp

#: Tasks in a bag that a measurement of record has.
TASKS = 100_000
#: Seconds between two reads of the database: shorter than a block.
_LOOK = 0.05
#: Seconds from a deadline until it counts as passed for everybody: a block, and a sweep.
_PAST = 5.0
#: Seconds a figure is waited for.
_WAIT_SECONDS = 600.0
#: Category of the small deals and of the bag that expires, and its seconds.
_SHORT, _SHORT_SECONDS = TEST_10_CATEGORY, 10


@dataclass(slots=True)
class _Bag:
    """A bag in the pool's database."""

    bench_pool: BenchPool
    deal: Matched

    def count_stored(self) -> int:
        """Number of the bag's tasks that the scheduler has stored."""
        rows = client(self.bench_pool.servers.mongodb_uri)[self.bench_pool.names.database]["tasks"]
        return rows.count_documents({"deal": self.deal.deal_id})

    def start(self) -> Timestamp:
        """Timestamp of the block in which the bag was matched."""
        header = self.bench_pool.rpc.call("eth_getBlockByNumber", hex(self.deal.block_number), False)
        return Timestamp(int(header["timestamp"], 16))


def run(*, tasks: int, only: tuple[str, ...] = (), block_time: float = 1.0) -> Iterator[str]:
    """Measure how long a small deal waits behind a bag of `tasks`, at several moments: a line of JSON for each.

    `only`: names of moments.
    """
    with open_bench_pool(block_time=block_time, workers=2, slots=1) as bench_pool:
        bench_pool.timeout = _WAIT_SECONDS
        bench_pool.wait([bench_pool.buy(trust=1, volume=2)])  # every process has done its first task
        bag = _Bag(bench_pool, bench_pool.buy(trust=1, volume=tasks, category=XS))
        half, all_ = (lambda: bag.count_stored() * 2 >= tasks), (lambda: bag.count_stored() >= tasks)
        moments: list[tuple[str, Callable[[], bool]]] = [("start", lambda: True), ("middle", half), ("open", all_)]
        yield from _measure_at(bench_pool, tasks, moments, only)
        if only and not {"expired", "final"} & set(only):
            return
        begun = _Bag(bench_pool, bench_pool.buy(trust=1, volume=tasks, category=_SHORT)).start()
        voted, ended = (limit(begun, _SHORT_SECONDS) + _PAST for limit in (contribution_deadline, final_deadline))
        moments = [("expired", lambda: time.time() > voted), ("final", lambda: time.time() > ended)]
        yield from _measure_at(bench_pool, tasks, moments, only)


def _measure_at(
    bench_pool: BenchPool, tasks: int, moments: list[tuple[str, Callable[[], bool]]], only: tuple[str, ...]
) -> Iterator[str]:
    """At each moment, once it has come, buy a small deal and yield its figures as JSON."""
    for name, come in moments:
        if not only or name in only:
            _wait_for_moment(name, come)
            yield json.dumps({"bag": tasks, "when": name, **_time_small_deal(bench_pool)})


def _time_small_deal(bench_pool: BenchPool) -> dict[str, float | int | None]:
    """Buy a small deal, follow it to its end, and return its seconds and blocks."""
    deal = bench_pool.buy(trust=1, volume=1, category=_SHORT)
    began = time.monotonic()
    small = _Bag(bench_pool, deal)
    seconds: dict[str, float] = {}
    stop = threading.Event()
    storing = threading.Thread(target=_time_storing, args=(small, began, seconds, stop), daemon=True)
    storing.start()
    timer = threading.Timer(_WAIT_SECONDS, stop.set)
    timer.start()
    view: ChainView | None = None
    try:
        for views in bench_pool.watch([deal], stop):
            view = views[deal.tasks[0]]
            passed = time.monotonic() - began
            if view.status is not TaskStatus.UNSET:
                seconds.setdefault("initialized", passed)
            if view.status is TaskStatus.COMPLETED:
                seconds.setdefault("completed", passed)
    finally:
        timer.cancel()
        stop.set()
        storing.join()

    def blocks(block: int | None) -> int | None:
        """Blocks from the deal's match to this one."""
        return None if block is None else block - deal.block_number

    ended = blocks(view.finalized_block if view else None)
    return {
        "stored_seconds": _rounded(seconds.get("stored")),
        "initialized_seconds": _rounded(seconds.get("initialized")),
        "initialized_blocks": blocks(view.initialized_block if view else None),
        "completed_seconds": _rounded(seconds.get("completed")),
        "completed_blocks": ended,
        "share_of_minimal_blocks": round(MINIMAL_BLOCKS["latest", False] / ended, 3) if ended else 0.0,
    }


def _time_storing(small: _Bag, began: float, seconds: dict[str, float], stop: threading.Event) -> None:
    """Body of a thread: note after how many seconds the scheduler has stored the small deal's task."""
    while not small.count_stored():
        if stop.wait(_LOOK):
            return
    seconds["stored"] = time.monotonic() - began


def _wait_for_moment(name: str, come: Callable[[], bool]) -> None:
    """Wait until `come` says that the moment has come. Raises NotReady."""
    until = time.monotonic() + _WAIT_SECONDS
    while not come():
        if time.monotonic() > until:
            raise NotReady(
                part=f"The moment {name!r}", seconds=_WAIT_SECONDS, log="standard error", why="It did not come."
            )
        threading.Event().wait(_LOOK)


def _rounded(seconds: float | None) -> float | None:
    """Seconds to two decimals; None stays None."""
    return None if seconds is None else round(seconds, 2)
