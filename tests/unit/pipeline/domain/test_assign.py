"""Taking slots for matches, and publishing no more than what is stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import REGISTRY

from pipeline.domain.match import match
from pipeline.domain.records import ReplicateState, Reservation, TaskRecord, WorkerRecord
from pipeline.domain.replicas import Timeouts
from pipeline.flow import assign
from pipeline.store.hold import Begins
from pipeline.store.task.tasks import NewReplicates
from protocol.poco.tags import fits
from protocol.types import Contract, DealId, Hash32, TaskId, Timestamp, Wallet
from tests.unit.pipeline.builders import CONTRIBUTE_UNTIL, NO_TAG, START, replicate, task, worker


def test_a_machine_that_holds_a_slot_for_a_task_is_not_chosen_for_it_again() -> None:
    claimed, fresh = (task(trust=1, wants=1, task_id=TaskId(f"0x{number:064x}")) for number in (1, 2))
    machine = worker(1, slots=3, held=(Reservation(claimed.task_id, START, claimed.worker_stake),))
    assert [found.task for found in match([claimed, fresh], [machine])] == [fresh]


@dataclass
class Pool:
    """Tasks that wait and machines with free slots, and which deals can be read; notes who got what."""

    waiting: list[TaskRecord]
    machines: list[WorkerRecord]
    unreadable: set[DealId] = field(default_factory=set)
    given: list[TaskId] = field(default_factory=list)
    reserved: int = 0
    passed: dict[TaskId, float] = field(default_factory=dict)
    paused: bool = False
    holds: bool = False
    #: How many tasks each query asked for.
    limits: list[int] = field(default_factory=list)

    def round(self, now: float) -> int:
        """One round of matching."""
        store = SimpleNamespace(workers=self, tasks=self, rounds=self)
        scheduler: Any = SimpleNamespace(
            store=store,
            clock=lambda: now,
            settings=SimpleNamespace(worker_lost_seconds=60.0),
            timeouts=Timeouts(1),
            deals=lambda tasks: {each.deal_id: SimpleNamespace() for each in tasks if self.reads(each)},
            begins=lambda: Begins(self.paused, self.holds),
            publish=lambda _: None,
            relay=SimpleNamespace(step=lambda *_: None),
        )
        return assign.assign(scheduler)

    def reads(self, task: TaskRecord) -> bool:
        return task.deal_id not in self.unreadable

    def wallets_to_check(self, *_: object) -> list[Wallet]:
        return []

    def begin(self, seen_after: float, limit: int, now: float, *, tasks: int) -> Any:
        free = self.with_free_slots(seen_after, limit, now)
        first = self.tasks_wanting_workers(now, tasks, begun=False) if tasks else []
        return SimpleNamespace(free=free, begins=Begins(self.paused, self.holds), waiting=first)

    def read(self, rows: Sequence[TaskRecord]) -> Sequence[TaskRecord]:
        return rows

    def with_free_slots(
        self, _: float, limit: int, __: float, *, tag: Hash32 = NO_TAG, stake: int = 0
    ) -> list[WorkerRecord]:
        free = [machine for machine in self.machines if len(machine.held) < machine.slots]
        return [machine for machine in free if fits(tag, machine.tag)][:limit]

    def reserve_each(self, wanted: Mapping[Wallet, Sequence[Reservation]]) -> set[Wallet]:
        self.reserved += len(wanted)
        self.machines = [
            replace(machine, held=(*machine.held, *wanted.get(machine.wallet, ()))) for machine in self.machines
        ]
        return set(wanted)

    def cancel_reservations(self, cancelled: Sequence[tuple[Wallet, Reservation]]) -> None:
        for wallet, reservation in cancelled:
            self.machines = [
                replace(machine, held=tuple(held for held in machine.held if held != reservation))
                if machine.wallet == wallet
                else machine
                for machine in self.machines
            ]

    def tasks_wanting_workers(self, now: float, limit: int, *, begun: bool) -> list[TaskRecord]:
        self.limits.append(limit)
        ripe = [task for task in self.waiting if self.passed.get(task.task_id, 0.0) <= now]
        ripe = [task for task in ripe if task.replicates or not begun]
        return sorted(ripe, key=lambda task: task.contribution_deadline)[:limit]

    def defer_matching(self, tasks: Sequence[TaskId], until: float) -> None:
        self.passed |= dict.fromkeys(tasks, until)

    def assign(self, given: Sequence[NewReplicates], *_: float) -> set[TaskId]:
        taken = {item.task.task_id for item in given}
        self.given += taken
        self.waiting = [task for task in self.waiting if task.task_id not in taken]
        return taken


def waiting(number: int, *, tag: Hash32 = NO_TAG) -> TaskRecord:
    """The task that is `number`th in urgency, of a deal of its own."""
    record = task(trust=1, wants=1, task_id=TaskId(f"0x{number:064x}"), deal_id=DealId(f"0x{number:064x}"))
    return replace(record, contribution_deadline=Timestamp(CONTRIBUTE_UNTIL + number), tag=tag)


@pytest.fixture(autouse=True)
def _unsigned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assign, "_segment", lambda *_: ["a segment"])


def test_tasks_whose_deal_cannot_be_read_hold_no_slot_that_another_task_could_use() -> None:
    lost, served = waiting(1), waiting(2)
    pool = Pool([lost, served], [worker(1)], unreadable={lost.deal_id})
    assert pool.round(START) == 1
    assert pool.given == [served.task_id]
    assert pool.reserved == 1
    pool.unreadable.clear()
    pool.machines = [worker(2, checked_at=START + assign.PASS_UNSERVED_SECONDS)]
    assert pool.round(START + 1) == 0, "deferred"
    assert pool.round(START + assign.PASS_UNSERVED_SECONDS) == 1, "its deal is back"
    assert pool.given == [served.task_id, lost.task_id]


@pytest.mark.parametrize("unserved", [assign.TAGS, assign.TAGS + 1, 3 * assign.TAGS])
def test_however_many_tags_nobody_offers_the_others_are_served_in_the_same_round(unserved: int) -> None:
    strange = [waiting(number, tag=Hash32(f"0x{number << 8:064x}")) for number in range(1, unserved + 1)]
    plain = waiting(unserved + 1)
    pool = Pool([*strange, plain], [worker(1)])
    assert pool.round(START) == 1
    assert pool.given == [plain.task_id]


def test_a_tag_that_no_machine_was_looked_for_is_not_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assign, "FEW", 0)  # as with a crowd of machines
    tags = assign.PAGES * assign.TAGS
    strange = [waiting(number, tag=Hash32(f"0x{number << 8:064x}")) for number in range(1, tags + 1)]
    plain = waiting(tags + 1)
    pool = Pool([*strange, plain], [worker(1)])
    assert pool.round(START) == 0, "as many pages as one round reads"
    assert plain.task_id not in pool.passed
    assert pool.round(START + 1) == 1


def test_however_many_tasks_await_their_enclaves_challenge_one_that_has_it_is_served_in_the_same_round() -> None:
    tdx = Hash32(f"0x{9:064x}")
    bare = [waiting(number, tag=tdx) for number in range(1, 2 * assign.TASKS)]
    told = replace(waiting(2 * assign.TASKS, tag=tdx), challenge=Contract("0x" + "c4" * 20))
    pool = Pool([*bare, told], [worker(1, tag=tdx)])
    assert pool.round(START) == 1
    assert pool.given == [told.task_id]
    assert set(pool.passed.values()) == {START + assign.PASS_UNSERVED_SECONDS}


def test_a_pool_that_holds_gives_out_nothing_and_passes_no_task_over() -> None:
    begun = task(trust=5, wants=1, replicates=[replicate(9)])
    pool = Pool([begun], [worker(1)], holds=True)
    assert pool.round(START + 1.0) == 0
    assert (pool.given, pool.reserved, pool.passed) == ([], 0, {})
    pool.holds = False
    assert pool.round(START + 1.0) == 1


def test_one_free_slot_reads_few_of_the_many_tasks_that_wait_and_only_more_if_it_can_take_none_of_them() -> None:
    many = [waiting(number) for number in range(1, 301)]
    pool = Pool(many, [worker(1)])
    assert pool.round(START) == 1
    assert pool.limits == [assign.AT_BEGIN]
    strange = [waiting(number, tag=Hash32(f"0x{1 << 8:064x}")) for number in range(1, 101)]
    pool = Pool([*strange, waiting(101)], [worker(1)])
    assert pool.round(START) == 1
    assert pool.limits == [assign.AT_BEGIN, 1 + assign.BESIDE[1], assign.TASKS]


def test_a_paused_pool_gives_out_only_tasks_that_a_machine_had_before_however_many_others_wait() -> None:
    fresh = [waiting(number) for number in range(1, assign.PAGES * assign.TASKS + 2)]
    begun = replace(waiting(10**6), replicates=(replicate(9, ReplicateState.FAILED),))
    pool = Pool([*fresh, begun], [worker(1)], paused=True)
    assert pool.round(START) == 1
    assert pool.given == [begun.task_id]
    pool.machines = [worker(2)]
    assert pool.round(START + 1) == 0
    assert not pool.passed, "nothing is written for the pause"
    pool.paused = False
    assert pool.round(START + 1) == 1, "at once"
    assert pool.given[1] == fresh[0].task_id


def test_why_tasks_were_given_to_no_machine_is_counted_in_each_round() -> None:
    lost, strange, served = waiting(1), waiting(2, tag=Hash32(f"0x{1 << 8:064x}")), waiting(3)
    pool = Pool([lost, strange, served], [worker(1)], unreadable={lost.deal_id})
    before = {reason: refused(reason) for reason in ("deal_missing", "tag")}
    assert pool.round(START) == 1
    assert {reason: refused(reason) - was for reason, was in before.items()} == {"deal_missing": 1, "tag": 1}


def refused(reason: str) -> float:
    return REGISTRY.get_sample_value("sluice_assignments_refused_total", {"reason": reason}) or 0.0
