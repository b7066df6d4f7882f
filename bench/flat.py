"""What one step costs with many ended tasks in the database, compared with few.

Two databases on the same server, filled by `bench.rig.past`: a small one, and one with as many ended tasks and enrolled
machines as asked. The same calls are made in both in turn, on tasks that are under way, and the cost of each is the
time that a quarter of them needed at most, which other work on the machine disturbs least. No chain and no machine: the
steps ask neither, and what is sent to machines is left out.

advance     tasks that a machine has just computed: loaded, decided upon, saved, their slots given back
assign      waiting tasks matched with free machines, and written
sweep       all steps of one sweep, with the tasks under way due
metrics     what `/metrics` reads of the database
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.rig.figures import percentile
from bench.rig.past import Past, machine_wallet
from chain.lane.model.intent import LaneId
from config.connections.mongodb import client
from config.settings import read_settings
from ops.pool.servers import bring_up
from pipeline.api.readings import Readings
from pipeline.api.services import Services
from pipeline.broker.admin import BrokerAdmin
from pipeline.broker.segments import Segment
from pipeline.domain.records import Replicate, ReplicateState, Reservation, Submission, TaskRecord, TaskStage
from pipeline.flow.advance import advance
from pipeline.flow.assign import assign
from pipeline.flow.ingest import task_records
from pipeline.flow.sweep import sweep
from pipeline.scheduler import Scheduler
from pipeline.store.client import database
from protocol.poco.events import BlockRef, Event, SchedulerNotice, Seen, TaskInitialize
from protocol.types import BlockHash, BlockNumber, Contract, NRlc, Timestamp, TxHash
from protocol.wire import Mode, Step

#: The small past.
SMALL_ENDED, SMALL_MACHINES = 1_000, 10
#: Tasks of one call, no more than the small pool has slots; calls of each kind, and those before that do not count.
TASKS, TIMES, WARM = 10, 60, 5
#: What is under way is of blocks and deals above those of any past.
_BLOCK, _DEAL = 10**8, 10**9
_HUB, _WORKERPOOL = Contract("0x" + "4b" * 20), Contract("0x" + "50" * 20)


class _Unheard(Scheduler):
    """A scheduler whose machines have no queues."""

    def publish(self, messages: Sequence[Segment]) -> None:
        """Send nothing."""


@dataclass(slots=True)
class PastPool:
    """One database with its past, and what works on it."""

    scheduler: Scheduler
    services: Services
    past: Past
    number: int = _DEAL
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def new_tasks(self, *, computed: bool, count: int = TASKS) -> list[TaskRecord]:
        """Tasks of a new deal, on chain: waiting for a machine, or computed by one that holds a slot for each."""
        store, now = self.scheduler.store, time.time()
        self.number += 1
        deal = self.past.deal(self.number, size=count, at=now - 2, block=_BLOCK)
        place = (BlockNumber(_BLOCK), BlockHash(_id(_BLOCK)), Timestamp(int(now)), TxHash(_id(self.number)))
        store.deals.noticed([(deal.deal_id, deal.matched_block, place[1])])
        lease = store.deals.lease_and_store(deal, now)
        assert lease is not None, "the deal is new"
        tasks = [
            replace(task, sent={"initialize": Submission(0, now)}, heard_at=now, stage=TaskStage.INITIALIZED)
            for task in task_records(deal)
        ]
        if computed:
            tasks = [self._begun(task, number, now) for number, task in enumerate(tasks)]
        else:
            tasks = [replace(task, wants=1) for task in tasks]
        store.tasks.insert_new(tasks)
        store.deals.mark_ingested(lease)
        first = self.number * (TASKS + 1)
        events: list[Event] = [SchedulerNotice(_WORKERPOOL, deal.deal_id)]
        events += [TaskInitialize(task.task_id, _WORKERPOOL) for task in tasks]
        store.chain.logs.put([Seen(event, *place, first + number) for number, event in enumerate(events)])
        if computed:
            for task in tasks:
                (item,) = task.replicates
                store.workers.reserve(item.wallet, [Reservation(task.task_id, now, NRlc(0))])
        return tasks

    def _begun(self, task: TaskRecord, number: int, now: float) -> TaskRecord:
        """The task with one machine that has computed."""
        steps = {Step.STARTED: now, Step.COMPUTED: now}
        wallet = machine_wallet(number % SMALL_MACHINES)
        item = Replicate(wallet, Mode.SOLO, 2, now, ReplicateState.COMPUTED, published_at=now, steps=steps)
        return replace(task, replicates=(item,), stage=TaskStage.RUNNING)

    def clear(self) -> None:
        """End what is under way, so that the next call finds the same."""
        db = self.past.db
        over = {"open": False, "wants": 0, "stage": str(TaskStage.COMPLETED)}
        db["tasks"].update_many({"open": True, "deal": {"$gt": ""}}, {"$set": over})
        for name in ("held", "pledged"):
            # The same ones take tasks each time. What the chain says of them was read just now: there is none to ask.
            idle = {"held": [], "pledged": [], "free": 2, "checked_at": time.time()}
            db["workers"].update_many({f"{name}.since": {"$gt": 0}}, {"$set": idle})
        head = BlockRef(BlockNumber(_BLOCK), BlockHash(_id(1)), BlockHash(_id(0)), Timestamp(int(time.time())))
        self.scheduler.store.chain.commit([head], [])

    def measure(self, what: str) -> None:
        """Prepare and make one call, and note its seconds."""
        call = self._prepared(what)
        began = time.perf_counter()
        call()
        self.seconds.setdefault(what, []).append(time.perf_counter() - began)
        self.clear()

    def _prepared(self, what: str) -> Callable[[], object]:
        """What is measured, with everything it needs stored before."""
        scheduler = self.scheduler
        match what:
            case "advance":
                tasks = [task.task_id for task in self.new_tasks(computed=True)]
                return lambda: advance(scheduler, tasks)
            case "assign":
                self.new_tasks(computed=False)
                return lambda: assign(scheduler)
            case "sweep":
                self.new_tasks(computed=True)
                return lambda: sweep(scheduler)
            case _:
                self.new_tasks(computed=True)
                return lambda: list(Readings(self.services).collect())


WHAT = ("advance", "assign", "sweep", "metrics")


def run(*, ended: int, workers: int) -> Iterator[str]:
    """A line of JSON for each of WHAT: milliseconds of a call with the small past and with the large one."""
    with ExitStack() as opened:
        began = time.monotonic()
        small = opened.enter_context(open_past_pool(SMALL_ENDED, SMALL_MACHINES))
        large = opened.enter_context(open_past_pool(ended, workers))
        filled = time.monotonic() - began
        for what in WHAT:
            for _ in range(WARM + TIMES):
                for pool in (small, large):
                    pool.measure(what)
            before, after = (1000 * percentile(pool.seconds[what][WARM:], 0.25) for pool in (small, large))
            yield json.dumps(
                {
                    "what": what,
                    "ended": ended,
                    "workers": workers,
                    "small_ms": round(before, 2),
                    "ms": round(after, 2),
                    "times_small": round(after / before, 2),
                    "share_of_small_cost": round(before / after, 3),
                    "filled_seconds": round(filled),
                }
            )


@contextmanager
def open_past_pool(
    ended: int, machines: int, present: int | None = None, *, scheduler_type: type[Scheduler] = _Unheard
) -> Iterator[PastPool]:
    """A database with that past, and a scheduler on it without processes. `present`: how many of the machines are
    there, all by default.
    """
    servers = bring_up()
    mark = secrets.token_hex(4)
    home = Path(".sluice") / "bench" / f"flat_{mark}"
    settings = read_settings(
        home=home,
        hub=_HUB,
        workerpool=_WORKERPOOL,
        # A wallet of its own: nothing is asked of it.
        private_key=secrets.token_hex(32),
        mongodb_uri=servers.mongodb_uri,
        mongodb_database=f"sluice_{mark}",
        amqp_url=servers.amqp_url,
        rabbitmq_api=servers.rabbitmq_api,
        amqp_core_vhost=f"core-{mark}",
        amqp_pool_vhost=f"pool-{mark}",
        # No machine is lost meanwhile: none of them speaks.
        worker_lost_seconds=86_400.0,
    )
    with BrokerAdmin.from_settings(settings) as admin:
        admin.prepare()
        scheduler, services = scheduler_type.open(settings), Services.open(settings)
        try:
            scheduler.ensure_indexes()
            db, lane = database(settings), LaneId(settings.chain_id, scheduler.key.wallet)
            past = Past(db, lane, _WORKERPOOL, f"{lane.chain_id}:{_HUB}:{lane.wallet}", time.time())
            past.put(ended, machines, present)
            pool = PastPool(scheduler, services, past)
            pool.clear()
            yield pool
        finally:
            services.close()
            scheduler.close()
            admin.remove_vhosts()
            client(servers.mongodb_uri).drop_database(settings.mongodb_database)


def _id(number: int) -> str:
    """A number as a 32-byte id."""
    return f"0x{number:064x}"
