"""When each task ended on chain, reorgs included, and a sentence for each task that is not completed."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass, field

from bench.rig.bench_pool import BenchPool
from chain.contracts.hub import Hub
from chain.rpc.client import Rpc
from config.connections.mongodb import client
from ops.market.match import Matched
from ops.pool.follow import OVER
from pipeline.store.task.tasks import Tasks
from protocol.errors import RpcError, RpcUnavailable
from protocol.poco.view import ChainView, TaskStatus
from protocol.types import TaskId

#: Seconds between two polls of all tasks.
LOOK_SECONDS = 1.0


@dataclass
class Following:
    """Polls the tasks of `deals` on chain, by a connection that only faults of the node reach. Times are in seconds."""

    bench_pool: BenchPool
    deals: Sequence[Matched]
    views: Mapping[TaskId, ChainView] = field(default_factory=dict)
    #: Seconds after the beginning at which each task was first seen as it ended.
    ended: dict[TaskId, float] = field(default_factory=dict)
    #: Set once all have ended.
    over: threading.Event = field(default_factory=threading.Event)
    _begun: float = field(default_factory=time.monotonic)

    @property
    def tasks(self) -> list[TaskId]:
        """All tasks followed."""
        return [task for deal in self.deals for task in deal.tasks]

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._begun

    @contextmanager
    def running(self) -> Iterator[Following]:
        """Follow in a thread for the length of the `with` block."""
        stop = threading.Event()
        thread = threading.Thread(target=self._follow, args=(stop,), name="following", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            stop.set()
            thread.join()

    def count(self, status: TaskStatus) -> int:
        """How many tasks were in this status at the last poll."""
        return sum(view.status is status for view in self.views.values())

    def _follow(self, stop: threading.Event) -> None:
        """The thread: note the tasks' states on chain until it is stopped."""
        with Rpc(self.bench_pool.chain.rpc_url) as rpc:
            hub = Hub(rpc, self.bench_pool.chain.addresses.hub)
            while not stop.wait(LOOK_SECONDS):
                try:
                    self._note(hub.tasks(self.tasks))
                except (RpcUnavailable, RpcError):
                    # The node is frozen, or has just lost the block that was asked for.
                    continue

    def _note(self, views: Sequence[ChainView]) -> None:
        """Record which tasks have ended by these views; one whose end a reorg took back has not."""
        now = self.elapsed
        self.views = {view.task_id: view for view in views}
        done = {view.task_id for view in views if view.status in OVER}
        # A reorg may have taken an end back.
        self.ended = {task: self.ended.get(task, now) for task in done}
        if len(done) == len(views):
            self.over.set()
        else:
            self.over.clear()


def not_ended(following: Following, besides: AbstractSet[TaskId] = frozenset()) -> list[str]:
    """A sentence for each task that is not COMPLETED: what the chain and the scheduler's database say of it. `besides`:
    tasks that could not be.
    """
    pool = following.bench_pool
    stored = Tasks(client(pool.servers.mongodb_uri)[pool.names.database])
    records = {record.task_id: record for deal in following.deals for record in stored.of_deal(deal.deal_id)}
    lines = []
    for task in following.tasks:
        view, record = following.views.get(task), records.get(task)
        if task in besides or (view is not None and view.status is TaskStatus.COMPLETED):
            continue
        on_chain = view.status.name if view else "unknown"
        said = f"{record.stage} in the database, {record.why or 'no reason is known'}" if record else "not stored"
        machines = ", ".join(f"{item.wallet[:8]} {item.state}" for item in record.replicates) if record else ""
        lines.append(f"Task {task}: {on_chain} on chain; {said}; trust {record.trust if record else '?'}; [{machines}]")
    return lines
