"""Whatever strangers claim and do: honest machines are asked soon, and strangers alone end no task."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.domain.decide import decide
from pipeline.domain.match import match
from pipeline.domain.progress import after
from pipeline.domain.records import (
    MOST_NEWCOMERS,
    NEWCOMER_SLOTS,
    ChainFacts,
    Replicate,
    ReplicateState,
    Reservation,
    Standing,
    TaskRecord,
    WorkerRecord,
)
from pipeline.domain.replicas import given_up
from protocol.results.error_result import MACHINE_FAILED, Failure
from protocol.types import NRlc, TaskId, Timestamp, Wallet, Wei
from protocol.wire import Mode
from tests.unit.pipeline.builders import PACE, START, initialized, task, view, wallet, worker

FAR = Timestamp(START + 10**6)
#: What a stranger does with a task, at once or in the end.
DEEDS = st.sampled_from([*Failure, MACHINE_FAILED, None, "silent", "lost"])


@dataclass
class Stage:
    """One pool: strangers first in every list, tasks given out round by round; honest machines work for ever."""

    strangers: list[WorkerRecord]
    honest: list[WorkerRecord]
    tasks: dict[TaskId, TaskRecord]
    held: dict[Wallet, list[Reservation]] = field(default_factory=dict)
    failures: dict[Wallet, int] = field(default_factory=dict)
    now: float = START + 1

    def round(self, deeds: list[str | None]) -> None:
        """Decide, assign; then strangers fail, or are silent until a timeout."""
        chain = view(initialized())
        for task_id, record in self.tasks.items():
            self.tasks[task_id] = after(record, chain, decide(record, chain, self.now, PACE), self.now, PACE)
        workers = [
            replace(item, held=tuple(self.held.get(item.wallet, ())), failures=self.failures.get(item.wallet, 0))
            for item in (*self.strangers, *self.honest)
        ]
        for found in match(list(self.tasks.values()), workers):
            fresh = [self.choose_due(found.task, item, deeds) for item in found.workers]
            self.tasks[found.task.task_id] = replace(
                found.task,
                replicates=(*found.task.replicates, *fresh),
                wants=found.wants,
                leading=found.leading,
            )
        self.now += 1

    def choose_due(self, record: TaskRecord, item: WorkerRecord, deeds: list[str | None]) -> Replicate:
        fresh = Replicate(
            item.wallet,
            record.mode,
            item.facts.weight,
            self.now,
            published_at=self.now,
            standing=item.standing(record.worker_stake),
        )
        if item.wallet in {each.wallet for each in self.honest}:
            self.held.setdefault(item.wallet, []).append(Reservation(record.task_id, self.now, NRlc(0)))
            return replace(fresh, state=ReplicateState.STARTED, assigned_at=float(FAR))
        deed = deeds[int(item.wallet, 16) % len(deeds)]
        self.failures[item.wallet] = self.failures.get(item.wallet, 0) + 1
        if deed in ("silent", "lost"):
            cause = "Nothing was heard of it in time." if deed == "silent" else None
            return replace(fresh, state=ReplicateState.LOST, cause=cause, holds_slot=False)
        return replace(fresh, state=ReplicateState.FAILED, cause=deed, holds_slot=False)


def stranger(number: int, slots: int, stake: int) -> WorkerRecord:
    return worker(number, slots=slots, stake=stake)


def proven(number: int, slots: int) -> WorkerRecord:
    facts = ChainFacts(2, NRlc(10**6), Wei(10**18), funded=True, score=1)
    return worker(number, slots=slots, facts=facts)


def some_tasks(trusts: list[int]) -> dict[TaskId, TaskRecord]:
    ids = [TaskId(f"0x{number:064x}") for number in range(1, len(trusts) + 1)]
    return {
        task_id: task(
            trust=trust,
            task_id=task_id,
            contribution_deadline=FAR,
            final_deadline=FAR,
            category_seconds=10**5,
        )
        for task_id, trust in zip(ids, trusts, strict=True)
    }


@settings(max_examples=60, deadline=None)
@given(
    strangers=st.lists(st.tuples(st.integers(1, 256), st.sampled_from([0, 30, 10**9])), min_size=1, max_size=40),
    honest=st.integers(1, 5),
    deeds=st.lists(DEEDS, min_size=1, max_size=5),
    trusts=st.lists(st.sampled_from([1, 5]), min_size=1, max_size=2),
)
def test_whatever_strangers_do_honest_machines_are_asked_first_and_strangers_alone_end_no_task(
    strangers: list[tuple[int, int]], honest: int, deeds: list[str | None], trusts: list[int]
) -> None:
    """Honest machines have been right on chain once; they are asked in the first round that has a slot of theirs."""
    stage = Stage(
        [stranger(n, slots, stake) for n, (slots, stake) in enumerate(strangers, start=1)],
        [proven(1000 + n, slots=2) for n in range(honest)],
        some_tasks(trusts),
    )
    for number in range(MOST_NEWCOMERS + 5):
        stage.round(deeds)
        assert number or stage.held, "The first round asks honest machines."
    for record in stage.tasks.values():
        assert not given_up(record, view(initialized()), stage.now, PACE)
        asked = {item.wallet for item in record.replicates} & {item.wallet for item in stage.honest}
        assert len(asked) >= min(honest, 3 if record.mode is Mode.VOTE else 1)


@settings(max_examples=60, deadline=None)
@given(
    strangers=st.lists(st.integers(1, 256), min_size=1, max_size=30),
    deeds=st.lists(DEEDS, min_size=1, max_size=4),
    trust=st.sampled_from([1, 5]),
)
def test_machines_with_stake_that_are_new_as_well_are_asked_within_as_many_rounds_as_there_are_strangers(
    strangers: list[int], deeds: list[str | None], trust: int
) -> None:
    """A new pool: nobody was right on chain yet. Strangers without stake come after machines that have some."""
    stage = Stage(
        [stranger(n, slots, 0) for n, slots in enumerate(strangers, start=1)],
        [worker(1000 + n, stake=100) for n in range(3)],
        some_tasks([trust]),
    )
    stage.round(deeds)
    assert stage.held
    for _ in range(5):
        stage.round(deeds)
    (record,) = stage.tasks.values()
    assert not given_up(record, view(initialized()), stage.now, PACE)
    assert len(stage.held) == (1 if trust == 1 else 3)


@given(count=st.integers(1, 60), standing=st.sampled_from([Standing.NEWCOMER, Standing.STAKED]), deed=DEEDS)
def test_no_number_of_workers_without_a_success_ends_a_task(count: int, standing: Standing, deed: str | None) -> None:
    state = ReplicateState.LOST if deed in ("silent", "lost") else ReplicateState.FAILED
    cause = "Nothing was heard of it in time." if deed == "silent" else deed
    replicates = [
        Replicate(wallet(n), Mode.SOLO, 2, START, state, cause=cause, standing=standing) for n in range(count)
    ]
    assert not given_up(task(trust=1, replicates=replicates), view(initialized()), START + 5, PACE)


@given(slots=st.integers(1, 256), tasks=st.integers(1, 12))
def test_one_stranger_never_holds_more_than_a_newcomers_slots(slots: int, tasks: int) -> None:
    waiting = [replace(record, wants=1) for record in some_tasks([1] * tasks).values()]
    found = match(waiting, [stranger(1, slots, 10**9)])
    assert len(found) == min(slots, tasks, NEWCOMER_SLOTS)


def test_a_pool_of_fresh_machines_works_at_full_use() -> None:
    waiting = [replace(record, wants=1) for record in some_tasks([1] * 12).values()]
    assert len(match(waiting, [worker(n) for n in range(12)])) == 12
    assert len(match(waiting, [worker(n, slots=2) for n in range(6)])) == 12
