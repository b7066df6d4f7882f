"""The audit of a pool: reads database, chain, RabbitMQ and IPFS page by page, has `pipeline.domain.audit` compare them,
and repairs what is safe to repair.

    clock ─► due: a scheduler started, or a day is over ─► first reading ─► a minute later the second: what both found
                                                                            is logged, stored, and shown by /health

Its cost grows with what is open, never with the past: open tasks in pages, of those that ended, of deals, results and
nonces the newest, of blocks the last ones. What is older is covered by one figure: the hub locks the pool's stake for
every task that is not over, however old, and the open tasks must explain all of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from math import inf

import structlog

from chain.contracts.hub import Deal
from chain.lane import audit as lane_audit
from chain.rpc.answers import Absent, Known
from chain.watch import audit as chain_audit
from chain.watch.watcher import Watcher
from config.connections.ipfs import Ipfs
from pipeline.broker.admin import BrokerAdmin
from pipeline.domain.audit.compare import compare, counts_as_open, stake_of
from pipeline.domain.audit.findings import Difference, Unasked, lasting
from pipeline.domain.audit.views import (
    BrokerView,
    DatabaseView,
    DealRow,
    KeptResult,
    PoolOnChain,
    StorageView,
    StoredTask,
)
from pipeline.domain.records import TaskRecord, TaskStage
from pipeline.scheduler import Scheduler
from protocol.counts import count
from protocol.errors import BrokerUnavailable, ChainMoved, RpcError, RpcUnavailable, StorageUnavailable, WrongChain
from protocol.poco.events import BlockRef
from protocol.poco.view import fold
from protocol.types import BlockNumber, DealId, NRlc, TaskId, Wallet

log = structlog.get_logger(__name__)

#: Tasks compared at a time: one query of each collection and one batch of contract views.
PAGE = 500
#: Newest tasks that are over, deals, results, nonces and blocks that are compared.
ENDED, DEALS, RESULTS, NONCES, BLOCKS = 1000, 200, 200, 500, 500
#: Deals that wait to be ingested, and machines with slots, that are checked.
WAITING, HOLDING = 100, 1000
#: Blocks that the watcher may be behind the head: nodes without archive tell no state of older ones.
MOST_BEHIND = 64
#: Differences that one audit logs; all are counted, and `sluice audit` shows them.
LOGGED = 20
#: Seconds between two audits, and after one that found a difference, which may be gone by now, or that could not ask
#: for something: a node or server that was away.
DAY, HOUR = 24 * 3600.0, 3600.0
#: Seconds for which the clock's readings go through tasks, some 100,000: all of a reading must end within its task's
#: time limit of 300 s, or it would begin anew without end. `sluice audit` takes its time.
TASKS_SECONDS = 120.0
#: Seconds after which a reading counts as cut off: its task is ended before that.
READING_SECONDS = 400.0
#: Errors of a node that cannot answer.
_CHAIN_ERRORS = (RpcUnavailable, RpcError, ChainMoved, WrongChain)


@dataclass(slots=True)
class Reading:
    """One reading of everything: the differences that it found, and what could not be asked."""

    scheduler: Scheduler
    #: Seconds for which it goes through tasks; those beyond are told as not asked.
    seconds: float = inf
    #: Called with what is done, for people who wait.
    progress: Callable[[str], None] = lambda _: None
    differences: list[Difference] = field(default_factory=list)
    unasked: dict[str, str] = field(default_factory=dict)
    #: The block that everything is read at, once the node is known to have it; None: the chain is not asked.
    _block: BlockRef | None = None
    #: Deals compared so far, as the contract has them: a deal's tasks may be on several pages.
    _deals: dict[DealId, Deal | None] = field(default_factory=dict)
    _compared: set[DealId] = field(default_factory=set)
    #: Tasks whose stake was counted: one that ends meanwhile is on two pages.
    _counted: set[TaskId] = field(default_factory=set)
    #: Stake that the tasks read so far explain; None once that of one is not known.
    _explained: NRlc | None = field(default_factory=lambda: NRlc(0))

    @property
    def not_asked(self) -> list[Unasked]:
        """What could not be asked, each once."""
        return [Unasked(what, why) for what, why in self.unasked.items()]

    def run(self) -> None:
        """Read and compare all pages. Raises PyMongoError: without the database nothing can be compared."""
        self._block = self._followed_block()
        end, compared = time.monotonic() + self.seconds, 0
        for tasks in self._pages():
            if time.monotonic() >= end:
                self.unasked["further tasks"] = f"comparing them takes longer than {self.seconds:g} s"
                self._explained = None
                break
            self._compare_tasks(tasks)
            compared += len(tasks)
            self.progress(f"{count(compared, 'task')} compared")
        self.progress(f"{count(compared, 'task')} compared; machines, queues, results, events and transactions …")
        self._compare_rest()

    def _followed_block(self) -> BlockRef | None:
        """The last block followed, if the node can be asked about it."""
        cursor = self.scheduler.store.chain.cursor()
        if cursor is None:
            self.unasked["the chain"] = "no block was followed yet"
            return None
        try:
            behind = self.scheduler.hub.head() - cursor.number
        except _CHAIN_ERRORS as error:
            self.unasked["the chain"] = str(error)
            return None
        if behind > MOST_BEHIND:
            self.unasked["the chain"] = f"the watcher is {behind} blocks behind the head"
            return None
        return cursor

    def _pages(self) -> Iterator[list[TaskRecord]]:
        """Open tasks, then the newest of those that are over."""
        lists = self.scheduler.store.lists
        yield from lists.open_pages(PAGE)
        ended = lists.newest((TaskStage.COMPLETED, TaskStage.FAILED), ENDED)
        yield from (ended[start : start + PAGE] for start in range(0, len(ended), PAGE))

    # -- tasks and their deals -----------------------------------------------------------------------------------------

    def _compare_tasks(self, tasks: Sequence[TaskRecord]) -> None:
        """Compare a page of tasks, and the deals that they are of."""
        store = self.scheduler.store
        deal_ids = {task.deal_id for task in tasks}
        database = DatabaseView(
            block=BlockNumber(0) if self._block is None else self._block.number,
            now=self.scheduler.clock(),
            tasks=self._stored(tasks),
            deals=self._deal_rows(deal_ids),
            machines={
                worker.wallet: worker
                for worker in store.workers.load_workers(
                    {item.wallet for task in tasks if task.open for item in task.replicates if item.holds}
                )
            },
        )
        chain = self._read_tasks(database)
        self.differences += compare(database, chain, None)
        self._add_stake(database, chain)

    def _stored(self, tasks: Sequence[TaskRecord]) -> list[StoredTask]:
        """The tasks with their events up to the block, and what became of their transactions."""
        scheduler, top = self.scheduler, self._block
        logs, broken = scheduler.store.chain.logs.read([task.task_id for task in tasks])
        keys = {
            (task.task_id, method): scheduler.transactions.key(task.task_id, method, sent.generation)
            for task in tasks
            if task.open
            for method, sent in task.sent.items()
        }
        known = {intent.key: intent.state for intent in scheduler.lane.intents(list(keys.values()))} if keys else {}
        found = []
        for task in tasks:
            if task.task_id in broken:
                continue
            events = [seen for seen in logs.get(task.task_id, ()) if top is None or seen.block_number <= top.number]
            view = fold(task.task_id, events, category_seconds=task.category_seconds)
            handed = {method: known.get(key) for (task_id, method), key in keys.items() if task_id == task.task_id}
            found.append(StoredTask(task, view, handed))
        return found

    def _deal_rows(self, deal_ids: set[DealId]) -> list[DealRow]:
        """Which of these deals are ingested and were on no page before, with the number of their tasks."""
        store = self.scheduler.store
        ready = store.deals.ready(deal_ids - self._compared)
        self._compared |= deal_ids
        counts = store.lists.tasks_of_deals(ready)
        return [DealRow(deal, counts[deal.deal_id]) for deal in ready]

    def _read_tasks(self, database: DatabaseView) -> PoolOnChain | None:
        """What the contracts say of tasks and deals; None if the node does not answer, and then it is asked no more."""
        if self._block is None:
            return None
        hub, tasks = self.scheduler.hub, [stored.record.task_id for stored in database.tasks]
        deals = [row.record.deal_id for row in database.deals]
        try:
            views = {view.task_id: view for view in hub.tasks(tasks, self._block.number)}
            answers = dict(zip(deals, hub.deals(deals, self._block), strict=True))
        except _CHAIN_ERRORS as error:
            self._stop_asking(error)
            return None
        told: dict[DealId, Deal | None] = {}
        for deal_id, answer in answers.items():
            match answer:
                case Known(deal):
                    told[deal_id] = deal
                case Absent():
                    told[deal_id] = None
                case _:
                    self.unasked["some deals"] = answer.why
        self._deals |= told
        return PoolOnChain(tasks=views, deals=told)

    def _stop_asking(self, error: Exception) -> None:
        """Ask the chain no more in this audit, and note why."""
        self.unasked["the chain"] = str(error)
        self._block = self._explained = None

    def _add_stake(self, database: DatabaseView, chain: PoolOnChain | None) -> None:
        """Add the stake that the tasks of this page explain, as they were at the block."""
        wallet = self.scheduler.key.wallet
        for stored in database.tasks:
            task, view = stored.record, None if chain is None else chain.tasks.get(stored.record.task_id)
            if task.task_id in self._counted or not counts_as_open(task, view, database.block):
                continue
            self._counted.add(task.task_id)
            deal = self._deals.get(task.deal_id)
            if view is None or deal is None or self._explained is None:
                self._explained = None
                self.unasked.setdefault("the pool's locked stake", f"the stake of task {task.task_id} is not known")
                return
            self._explained = NRlc(self._explained + stake_of(view, deal, wallet))

    # -- all else ------------------------------------------------------------------------------------------------------

    def _compare_rest(self) -> None:
        """Compare what is not of single tasks: deals, slots, machines, results, events, transactions and the stake."""
        store = self.scheduler.store
        now = self.scheduler.clock()
        holding = store.workers.holding_since(now, HOLDING)
        waiting = store.deals.waiting(WAITING)
        newest = {stored.deal_id for stored in store.deals.newest(DEALS)}
        rows = self._deal_rows(newest)
        broker, storage, results = self._broker(), None, []
        if (pinned := store.pins.newest_pinned(RESULTS)) and self.scheduler.settings.ipfs_api:
            results = [KeptResult(pin.task_id, pin.cid, pin.stored_at) for pin in pinned]
            storage = self._storage(results)
        database = DatabaseView(
            block=BlockNumber(0) if self._block is None else self._block.number,
            now=now,
            deals=rows,
            waiting=waiting,
            holding=holding,
            held={
                task.task_id: task
                for task in store.tasks.load_tasks(
                    {item.task_id for worker in holding for item in (*worker.held, *worker.pledged)}
                )
            },
            with_queues={worker.wallet: worker for worker in store.workers.load_workers(store.workers.with_queues())},
            results=results,
            stake=self._stake(bool(waiting)),
        )
        self.differences += compare(database, self._read_rest(database), broker, storage)

    def _stake(self, waiting: bool) -> tuple[Wallet, NRlc] | None:
        """The pool's wallet and the stake that all tasks explain, where that can be said."""
        if self._explained is None or self._block is None:
            return None
        quarantined = self.scheduler.store.quarantine.counts()
        if waiting or any(quarantined.get(name) for name in ("deals", "tasks", "logs")):
            why = "deals are being ingested" if waiting else "rows are quarantined, and the stake of their tasks counts"
            self.unasked["the pool's locked stake"] = why
            return None
        return self.scheduler.key.wallet, self._explained

    def _read_rest(self, database: DatabaseView) -> PoolOnChain | None:
        """Deals, stake, events and transactions as the chain has them."""
        if self._block is None:
            return None
        scheduler, block = self.scheduler, self._block
        page = self._read_tasks(database)
        if page is None:
            return None
        try:
            locked = None
            if database.stake is not None and scheduler.hub.workerpools(scheduler.key.wallet) == 1:
                locked = scheduler.hub.account(scheduler.key.wallet, block.number).locked
            store = scheduler.store.chain
            first = max(block.number - BLOCKS, store.followed_from(scheduler.settings.start_block))
            steps = chain_audit.audit(watcher_of(scheduler), store, BlockNumber(first), block.number)
            events = [step for step in steps if not step.clean]
            lane = lane_audit.audit(scheduler.lane, depth=NONCES)
        except _CHAIN_ERRORS as error:
            self._stop_asking(error)
            return page
        if any(finding.kind == "no_answer" for finding in lane):
            self.unasked["some receipts"] = "the node does not tell them"
        return PoolOnChain(tasks=page.tasks, deals=page.deals, locked=locked, events=events, lane=lane)

    def _broker(self) -> BrokerView | None:
        """Machines as RabbitMQ knows them; None, with why noted, if it does not answer."""
        try:
            with BrokerAdmin.from_settings(self.scheduler.settings) as admin:
                return BrokerView(*admin.machines())
        except BrokerUnavailable as error:
            self.unasked["RabbitMQ"] = str(error)
            return None

    def _storage(self, results: Sequence[KeptResult]) -> StorageView | None:
        """Which results IPFS keeps; None, with why noted, if it does not answer."""
        try:
            with closing(Ipfs(self.scheduler.settings.ipfs_api)) as ipfs:
                return StorageView({result.cid: ipfs.pinned(result.cid) for result in results})
        except StorageUnavailable as error:
            self.unasked["IPFS"] = str(error)
            return None


def watcher_of(scheduler: Scheduler) -> Watcher:
    """A watcher that reads this pool's events, for audits and replays; it follows nothing."""
    return Watcher(scheduler.hub.rpc, scheduler.hub, scheduler.workerpool, scheduler.store.chain)


def audit_when_due(scheduler: Scheduler, since: float) -> None:
    """Do one reading if an audit is due: none has ended since `since` (Unix seconds, the scheduler's start) or for a
    day, or for an hour if the last one found something or could not ask for something. What two readings found is
    logged and stored for `/health`. Raises PyMongoError.
    """
    now = scheduler.clock()
    suspected = scheduler.store.audits.begin(now, max(since, now - DAY), now - HOUR, READING_SECONDS)
    if suspected is None:
        return
    reading = Reading(scheduler, TASKS_SECONDS)
    reading.run()
    if reading.differences and not suspected:
        scheduler.store.audits.suspect(reading.differences)
        return
    found = lasting(suspected, reading.differences)
    scheduler.store.audits.note(scheduler.clock(), found, reading.not_asked)
    for what, why in reading.unasked.items():
        log.warning("The audit could not ask.", action="audit_unasked", what=what, why=why)
    for item in found[:LOGGED]:
        log.error(
            "Parts of the pool say different things.",
            action="audit_difference",
            kind=item.kind,
            subject=item.subject,
            says=item.says,
            fix=item.fix,
        )
    log.info("The pool was audited.", action="audited", differences=len(found), unasked=len(reading.unasked))
