"""What the sweep repairs, called by itself: no other process of the scheduler runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from chain.contracts.decode import block_ref
from ops.market.match import Matched
from pipeline import tasks
from pipeline.domain.progress import SOONEST_VISIT
from pipeline.domain.records import Replicate, ReplicateState, Reservation, TaskStage
from pipeline.flow import sweep
from pipeline.flow.assign import assign
from pipeline.flow.transactions import BULK_CAPACITY, Transactions
from pipeline.scheduler import Scheduler
from pipeline.store.task.tasks import NewReplicates
from protocol.poco.events import SchedulerNotice, Seen
from protocol.poco.view import TaskStatus
from protocol.types import Hash32, NRlc, TaskId, Timestamp, TxHash
from protocol.wire import Capabilities, Mode
from tests.integration.pipeline.conftest import NO_TAG, REQUESTER, Pool
from tests.waiting import until

LONG_AGO = 3600.0


@pytest.fixture
def pool(make_pool: Callable[..., Pool]) -> Pool:
    return make_pool()


@pytest.fixture
def scheduler(pool: Pool) -> Iterator[Scheduler]:
    opened = Scheduler.open(pool.settings)
    opened.ensure_indexes()
    yield opened
    opened.close()
    opened.hub.rpc.close()  # type: ignore[attr-defined]  # a node's client, whatever stands for it


def notice(scheduler: Scheduler, deal: Matched) -> None:
    """Store the deal's notice as the watcher would."""
    # The real block: what a deal consists of is read at the one that was followed.
    block = block_ref(scheduler.hub.rpc.call("eth_getBlockByNumber", hex(deal.block_number), False))
    seen = Seen(
        SchedulerNotice(scheduler.workerpool, deal.deal_id),
        block.number,
        block.hash,
        block.timestamp,
        TxHash("0x" + "1" * 64),
        0,
    )
    scheduler.store.chain.commit([block], [seen])


def taken_in(scheduler: Scheduler, deal: Matched) -> None:
    notice(scheduler, deal)
    tasks._ingest(scheduler, [deal.deal_id])


def test_a_transaction_whose_logs_were_never_seen_is_found_by_asking_the_contract(
    pool: Pool, scheduler: Scheduler
) -> None:
    deal = pool.buy(trust=5)
    taken_in(scheduler, deal)
    scheduler.lane.run()
    pool.await_status(deal, TaskStatus.ACTIVE)
    (task,) = scheduler.store.tasks.load_tasks(deal.tasks)
    assert task.stage is TaskStage.RECEIVED
    scheduler.store.tasks.save([replace(task, matched_at=Timestamp(task.matched_at - int(LONG_AGO)), next_visit=0.0)])
    sweep.sweep(scheduler)
    assert pool.task(task.task_id).stage is TaskStage.INITIALIZED


def test_transactions_of_expired_tasks_wait_until_the_lane_has_room_for_them(
    pool: Pool, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    deal = pool.buy(trust=1, volume=5)
    taken_in(scheduler, deal)
    past = int(time.time() - LONG_AGO)
    record = scheduler.store.deals.get_deal(deal.deal_id)
    assert record is not None
    # Its initializes were handed over in time; now only a late one and a claim give the stakes back.
    passed = replace(record, contribution_deadline=Timestamp(past), final_deadline=Timestamp(past + 9))
    scheduler.store.tasks.bring_back(replace(passed, start_time=Timestamp(past - 70)))

    def late() -> set[TaskId]:
        tasks = scheduler.store.tasks.load_tasks(deal.tasks)
        return {task.task_id for task in tasks if task.sent["initialize"].generation}

    monkeypatch.setattr(Transactions, "open", lambda _: BULK_CAPACITY)
    begun = time.time()
    sweep.sweep(scheduler)
    assert late() == set()
    visits = [task.next_visit for task in scheduler.store.tasks.load_tasks(deal.tasks)]
    assert min(visits) > begun, "it is not looked at again and again meanwhile"

    monkeypatch.setattr(Transactions, "open", lambda _: BULK_CAPACITY - 2)
    later = time.time() + SOONEST_VISIT + 1
    scheduler.clock = lambda: later
    sweep.sweep(scheduler)
    assert len(late()) == 2

    monkeypatch.setattr(Transactions, "open", lambda _: 0)
    scheduler.clock = lambda: later + SOONEST_VISIT + 1
    sweep.sweep(scheduler)
    assert late() == set(deal.tasks)


def test_a_slot_that_nothing_holds_is_given_back(pool: Pool, scheduler: Scheduler) -> None:
    machine = pool.enrol(0)
    unknown = Reservation(TaskId("0x" + "77" * 32), time.time() - LONG_AGO, NRlc(0))
    assert scheduler.store.workers.reserve(machine.key.wallet, [unknown])
    sweep.sweep(scheduler)
    assert scheduler.store.census.all_workers()[0].free == 1


def test_a_slot_just_taken_is_left_alone(pool: Pool, scheduler: Scheduler) -> None:
    machine = pool.enrol(0)
    scheduler.store.workers.reserve(machine.key.wallet, [Reservation(TaskId("0x" + "77" * 32), time.time(), NRlc(0))])
    sweep.sweep(scheduler)
    assert scheduler.store.census.all_workers()[0].free == 0


def test_an_assignment_that_was_stored_but_never_published_reaches_the_worker(pool: Pool, scheduler: Scheduler) -> None:
    deal = pool.buy(trust=1)
    taken_in(scheduler, deal)
    machine = pool.enrol(0)
    now = time.time()
    (task,) = scheduler.store.tasks.load_tasks(deal.tasks)
    replicate = Replicate(machine.key.wallet, Mode.SOLO, 2, now - 10, published_at=now - 10)
    scheduler.store.workers.reserve(machine.key.wallet, [Reservation(task.task_id, now, NRlc(0))])
    scheduler.store.tasks.assign([NewReplicates(task, (replicate,), 0, 2, 0)], now, 0.0)
    sweep.sweep(scheduler)
    until("the worker got it", lambda: machine.asked("worker.compute") == [task.task_id])


def test_a_deal_whose_message_was_lost_is_handed_on_again(pool: Pool, scheduler: Scheduler) -> None:
    deal = pool.buy(trust=1)
    notice(scheduler, deal)
    pool.start("pipeline")
    sweep.sweep(scheduler)
    until("its task is stored", lambda: scheduler.store.tasks.load_tasks(deal.tasks))


def test_what_a_silent_worker_had_is_wanted_again(pool: Pool, scheduler: Scheduler) -> None:
    machine = pool.enrol(0, deaf={"worker.compute"})
    assign(scheduler)  # as its sign-in has it done: its balance is read
    deal = pool.buy(trust=1)
    taken_in(scheduler, deal)
    assert scheduler.store.tasks.of_worker(machine.key.wallet)
    machine.stop()

    def lost() -> bool:
        (known,) = scheduler.store.workers.load_workers([machine.key.wallet])
        return known.lost

    silence = scheduler.settings.worker_lost_seconds
    other = pool.chain.sender(REQUESTER).wallet
    offer = Capabilities(name="other", version="1", slots=1, cpus=1, memory_bytes=0, tag=Hash32(NO_TAG))
    later = time.time() + silence + 1

    def sweep_at(moment: float, *, heard: bool) -> None:
        scheduler.clock = lambda: moment
        if heard:
            scheduler.store.workers.enrol(other, offer, moment)
            scheduler.store.workers.set_banned(other, banned=True)
        sweep.sweep(scheduler)

    sweep_at(later, heard=False)
    assert not lost(), "no worker was heard of: the API may have been away"
    for moment in (later + 1, later + silence / 2):
        sweep_at(moment, heard=True)
        assert not lost(), "the API is back, and this worker's ping may come as late as any"
    sweep_at(later + silence + 1, heard=True)
    (task,) = scheduler.store.tasks.load_tasks(deal.tasks)
    assert task.replicates[0].state is ReplicateState.LOST
    assert lost()
