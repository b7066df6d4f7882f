"""Rounds of `assign` and decisions that overlap, on a real MongoDB: what is sent out is in the record, or not sent."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.broker.segments import Segment
from pipeline.domain import match as matching
from pipeline.domain.records import ChainFacts, Replicate, ReplicateState, Reservation, TaskRecord, WorkerRecord
from pipeline.domain.replicas import Timeouts
from pipeline.flow import advance as advancing
from pipeline.flow import assign as assigning
from pipeline.flow.ingest import task_records
from pipeline.store.client import Store
from pipeline.store.hold import Begins
from protocol.ethereum.signing import Key
from protocol.types import NRlc, TaskId, Timestamp, Wallet, Wei
from protocol.wire import Capabilities, Mode, Step
from tests.integration.pipeline.rows import DEAL, NO_TAG, deal

STAKE = NRlc(30)


def wallet(number: int) -> Wallet:
    return Wallet(f"0x{number:040x}")


class NoLane:
    """Takes no transactions; counts what it is handed."""

    def __init__(self) -> None:
        self.submitted = 0

    def submit(self, wanted: Sequence[object], now: float, block_time: float) -> tuple[int, list[Any]]:
        self.submitted += len(wanted)
        return 0, []

    def queued(self) -> int:
        return 0


@dataclass
class Process:
    """What `assign` and `advance` use of a scheduler process: the stores are real, what it sends out is noted."""

    store: Store
    sent: list[Segment] = field(default_factory=list)
    transactions: NoLane = field(default_factory=NoLane)
    timeouts: Timeouts = field(default_factory=Timeouts)
    #: The clock stands for the chain's time.
    chain_time: Any = field(default_factory=lambda: SimpleNamespace(read=lambda _: None))
    key: Key = field(default_factory=lambda: Key(b"\1" * 32))
    #: What assignments are signed for.
    settings: Any = field(
        default_factory=lambda: SimpleNamespace(chain_id=31337, worker_lost_seconds=60.0, sweep_seconds=5.0)
    )
    workerpool: str = "0x" + "bb" * 20
    pool: Celery = field(default_factory=lambda: Celery("test", broker="memory://"))
    #: No secret service is named, and so nobody asks one.
    challenges: None = None
    #: Flower is told of each step; nobody listens here.
    relay: Any = field(default_factory=lambda: SimpleNamespace(step=lambda *_, **__: None, decided=lambda *_: None))

    def clock(self) -> float:
        return time.time()

    def publish(self, messages: Sequence[Segment]) -> None:
        self.sent += messages

    def begins(self) -> Begins:
        return self.store.hold.begins()

    def deals(self, tasks: Iterable[TaskRecord]) -> dict[Any, Any]:
        return dict.fromkeys((task.deal_id for task in tasks), deal())

    def computing(self) -> set[tuple[Wallet, str]]:
        """(wallet, task) of each compute segment sent."""
        return {
            (item.wallet, item.message.args[0]["task_id"])
            for item in self.sent
            if item.message.task == "worker.compute"
        }


class Round:
    """One round of `assign`, a step at a time, as two processes interleave them."""

    def __init__(self, process: Process) -> None:
        self.process, self.now = process, time.time()
        self.tasks: list[TaskRecord] = []
        self.workers: list[WorkerRecord] = []
        self.granted: list[matching.Match] = []
        self.steps = [self.read_tasks, self.read_workers, self.reserve, self.give]

    def step(self) -> None:
        if self.steps:
            self.steps.pop(0)()

    def read_tasks(self) -> None:
        self.tasks = self.process.store.tasks.tasks_wanting_workers(self.now, 200)

    def read_workers(self) -> None:
        self.workers = self.process.store.workers.with_free_slots(self.now - 60, 1000, self.now + 1)

    def reserve(self) -> None:
        matches = matching.match(self.tasks, self.workers)
        self.granted = assigning._reserve(self.process, matches, self.now)  # type: ignore[arg-type]  # stands in

    def give(self) -> None:
        assigning._give(self.process, self.granted, self.now)  # type: ignore[arg-type]  # stands in


def fill(store: Store, slots: Sequence[int], wants: Sequence[int]) -> list[TaskId]:
    """An empty database but for these machines and waiting tasks."""
    for rows in (store.tasks._rows, store.workers._rows):
        rows.delete_many({})
    now = time.time()
    for number, count in enumerate(slots):
        offer = Capabilities(name="m", version="1", slots=count, cpus=1, memory_bytes=1, tag=NO_TAG)
        store.workers.enrol(wallet(number), offer, now)
    facts = ChainFacts(2, NRlc(1000), Wei(10**18), funded=True, score=9)
    store.workers.store_facts([(wallet(number), facts) for number in range(len(slots))], now)
    later = Timestamp(int(now) + 2000)
    tasks = [
        replace(task, trust=5, worker_stake=STAKE, wants=want, contribution_deadline=later, final_deadline=later)
        for task, want in zip(task_records(deal(len(wants))), wants, strict=True)
    ]
    store.tasks.insert_new(tasks)
    return [task.task_id for task in tasks]


def consistent(store: Store, *processes: Process) -> None:
    """Work that was sent is in the record, slots are held for exactly the replicates, and by no one too many."""
    replicates = {(item.wallet, task.task_id): item for task in store.tasks.of_deal(DEAL) for item in task.replicates}
    for process in processes:
        assert process.computing() <= replicates.keys(), "A machine works on what the record does not know."
    held = [(worker.wallet, item.task_id) for worker in store.census.all_workers() for item in worker.held]
    assert sorted(held) == sorted(key for key, item in replicates.items() if item.holds_slot)
    assert all(len(worker.held) <= worker.slots for worker in store.census.all_workers())


def test_rounds_of_assign_that_overlap_give_no_work_that_the_record_does_not_know(store: Store) -> None:
    """Machines that the record does not know are not asked to reveal, and lose their stake."""
    (task,) = fill(store, [6, 1, 1, 1, 1], [3])
    first, second = Round(Process(store)), Round(Process(store))
    for step in (second.read_tasks, first.read_tasks, first.read_workers, first.reserve):
        step()
    for step in (second.read_workers, first.give, second.reserve, second.give):
        step()
    consistent(store, first.process, second.process)
    (stored,) = store.tasks.load_tasks([task])
    assert len(stored.replicates) == len({item.wallet for item in stored.replicates}) == 3
    assert len(first.process.computing()) + len(second.process.computing()) == 3


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    slots=st.lists(st.integers(1, 6), min_size=1, max_size=6),
    wants=st.lists(st.integers(1, 3), min_size=1, max_size=4),
    order=st.lists(st.integers(0, 2), max_size=14),
)
def test_whatever_the_order_of_three_rounds_steps_is_work_and_slots_are_in_the_record(
    store: Store, slots: list[int], wants: list[int], order: list[int]
) -> None:
    fill(store, slots, wants)
    rounds = [Round(Process(store)) for _ in range(3)]
    for number in [*order, *(n for n in range(3) for _ in range(4))]:
        rounds[number].step()
    consistent(store, *(each.process for each in rounds))


@pytest.mark.parametrize("attempt", range(3))
def test_rounds_at_the_same_time_leave_work_and_slots_in_the_record(store: Store, attempt: int) -> None:
    fill(store, [4, 3, 2, 1, 1], [3] * 6)
    processes = [Process(store) for _ in range(4)]

    def rounds(process: Process) -> None:
        for _ in range(3):
            one = Round(process)
            while one.steps:
                one.step()

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(rounds, processes))
    consistent(store, *processes)


def test_a_reservation_that_another_process_made_meanwhile_is_not_given_back(store: Store) -> None:
    (task,) = fill(store, [2], [1])
    mine, theirs = (Reservation(task, since, STAKE) for since in (1.0, 2.0))
    assert store.workers.reserve(wallet(0), [mine])
    store.workers.release([(wallet(0), task)])
    assert store.workers.reserve(wallet(0), [theirs])
    store.workers.cancel_reservations([(wallet(0), mine)])
    assert store.census.all_workers()[0].held == (theirs,)
    store.workers.cancel_reservations([(wallet(0), theirs)])
    assert store.census.all_workers()[0].free == 2


# -- decisions that lost the race --------------------------------------------------------------------------------------


class Report:
    """Changes tasks between the moment a decision is made and the moment it is saved."""

    def __init__(self, store: Store, *reports: tuple[TaskId, Wallet, Step]) -> None:
        self.left, self.save, self.store = list(reports), store.tasks.save, store

    def __call__(self, records: Sequence[TaskRecord], before: Mapping[TaskId, TaskRecord]) -> set[TaskId]:
        while self.left:
            task, who, step = self.left.pop()
            assert self.store.tasks.record_report(task, who, step, time.time(), None, 0)
        return self.save(records, before)


def given_out(store: Store, tasks: Sequence[TaskId], since: float) -> None:
    for number, record in enumerate(sorted(store.tasks.load_tasks(tasks), key=lambda task: task.index)):
        replicate = Replicate(wallet(number), Mode.VOTE, 2, since, published_at=since)
        assert store.workers.reserve(wallet(number), [Reservation(record.task_id, since, STAKE)])
        store.tasks.save([replace(record, wants=0, replicates=(replicate,))])


def test_a_decision_whose_save_lost_the_race_frees_no_slot_and_sends_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both machines seem late; one reports while that is being decided: only the other is dropped."""
    tasks = fill(store, [1, 1], [1, 1])
    long_ago = time.time() - 1000
    given_out(store, tasks, long_ago)
    process = Process(store)
    monkeypatch.setattr(advancing, "assign", lambda _: 0)
    monkeypatch.setattr(store.tasks, "save", Report(store, (tasks[0], wallet(0), Step.COMPUTED)))
    advancing.advance(process, tasks)  # type: ignore[arg-type]  # stands in
    reported, late = store.workers.load_workers([wallet(0)])[0], store.workers.load_workers([wallet(1)])[0]
    assert [item.message.task for item in process.sent if item.wallet == reported.wallet] == []
    assert [item.message.task for item in process.sent if item.wallet == late.wallet] == ["worker.abort"]
    assert (reported.held, len(reported.pledged), reported.failures) == ((), 1, 0)
    assert (late.held, late.pledged, late.failures) == ((), (), 1)
    states = {item.wallet: item.state for task in store.tasks.load_tasks(tasks) for item in task.replicates}
    assert states == {wallet(0): ReplicateState.COMPUTED, wallet(1): ReplicateState.LOST}


def test_a_save_says_which_tasks_it_replaced(store: Store) -> None:
    tasks = fill(store, [1], [1, 1, 1])
    records = sorted(store.tasks.load_tasks(tasks), key=lambda task: task.index)
    store.tasks.save([replace(records[1], wants=7)])
    assert store.tasks.save([replace(record, wants=2) for record in records]) == {tasks[0], tasks[2]}
    assert [task.wants for task in store.tasks.of_deal(DEAL)] == [2, 7, 2]


def test_a_visit_is_not_put_off_by_a_look_at_an_older_version(store: Store) -> None:
    (task,) = fill(store, [1], [1])
    store.tasks.forget_sent([task])
    store.tasks.set_next_visits({task: (0, 10**10)})
    assert [due.task_id for due in store.tasks.tasks_due(time.time(), 10)] == [task]


def test_a_wallet_that_voted_becomes_known_once(store: Store) -> None:
    (task,) = fill(store, [1], [1])
    replicate = Replicate(wallet(8), Mode.VOTE, 2, 1.0, ReplicateState.COMPUTED, holds_slot=False)
    for _ in range(2):
        store.tasks.add_replicate(task, replicate)
    assert [item.wallet for item in store.tasks.load_tasks([task])[0].replicates] == [wallet(8)]
