"""Why a machine gets work or does not."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.machines.enrolment import Listing, Mode
from pipeline.domain.machines.explain_worker import explain_worker
from pipeline.domain.machines.worker_state import WorkerState, state_of
from pipeline.domain.match import Capacity, Obstacle, match, obstacle
from pipeline.domain.records import ChainFacts, Reservation, TaskRecord, WorkerRecord
from protocol.poco.tags import GPU_BIT, make_tag
from protocol.types import NRlc, TaskId, Wei
from tests.unit.pipeline.builders import START, replicate, task, worker

NOW, LOST_AFTER = START + 10.0, 60.0
POOR = ChainFacts(2, NRlc(0), Wei(5), funded=False)
PROVEN = ChainFacts(2, NRlc(100), Wei(10**18), funded=True, score=30)


def held(number: int) -> Reservation:
    return Reservation(TaskId(f"0x{number:064x}"), NOW, NRlc(0))


def waiting(**fields: object) -> TaskRecord:
    return replace(task(trust=1, wants=1), **fields)  # type: ignore[arg-type]  # tests name fields freely


@pytest.mark.parametrize(
    ("machine", "says"),
    [
        (worker(1, banned=True), "It is banned"),
        (worker(1, operator_slots=0, held=(held(1),)), "It is drained, with 1 task to finish"),
        (worker(1, away=True), "It has signed off"),
        (worker(1, lost=True), "Nothing was heard of it for 10 s"),
        (worker(1, seen_at=NOW - 61), "Nothing was heard of it for 61 s (it is lost after 60 s)"),
        (worker(1, disconnected_at=NOW), "RabbitMQ says that it is not connected"),
        (worker(1, checked_at=0.0), "Its balances were not read since it signed in"),
        (worker(1, facts=POOR), "too little for the gas of a task"),
        (worker(1, rest_until=NOW + 30, failures=3), "It cools down for another 30 s after 3 failures"),
        (
            worker(1, slots=64, held=(held(1), held(2))),
            "All 2 slots that it may use are taken: new machines begin with 2",
        ),
        (
            worker(1, slots=8, operator_slots=1, held=(held(1),)),
            "All 1 slots that it may use are taken, limited by `sluice worker slots` (it has 8)",
        ),
        (worker(1, facts=PROVEN, held=(held(1),)), "All 1 slots that it may use are taken."),
        (worker(1, pledged=(held(1), held(2))), "It has 2 computed results without a vote"),
    ],
)
def test_what_keeps_a_machine_from_every_task_is_said_in_words(machine: WorkerRecord, says: str) -> None:
    assert any(says in said for said in explain_worker(machine, [], NOW, LOST_AFTER))


@pytest.mark.parametrize(
    ("record", "says"),
    [
        (waiting(), "it may be given them now"),
        (waiting(tag=make_tag(GPU_BIT)), "their tag demands what it does not offer"),
        (
            task(trust=5, wants=1, worker_stake=NRlc(101)),
            "a vote locks more than the 100 nRLC of stake that it has free",
        ),
        (waiting(newcomers=0), "they wait for a machine that was right on chain before"),
        (waiting(replicates=(replicate(1),)), "it had them before"),
    ],
)
def test_how_a_machine_stands_to_the_tasks_that_wait_is_said_in_words(record: TaskRecord, says: str) -> None:
    said = explain_worker(worker(1), [record], NOW, LOST_AFTER)
    assert said == [f"1 of the 1 most urgent tasks that wait: {says}."]


def test_a_machine_without_an_obstacle_is_told_that_no_task_waits() -> None:
    assert explain_worker(worker(1), [], NOW, LOST_AFTER) == ["No task waits for a worker."]


def test_a_machine_that_may_not_sign_in_is_told_with_the_command_that_lets_it_in() -> None:
    """An end of the ban alone does not let in whom the deny list refuses."""

    def said(*, mode: Mode = Mode.OPEN, listing: Listing | None = None, banned: bool = False) -> str:
        machine = worker(1, banned=banned, disconnected_at=NOW)
        return " ".join(explain_worker(machine, [], NOW, LOST_AFTER, mode=mode, listing=listing))

    denied = said(listing=Listing.DENIED, banned=True)
    assert ("on the deny list: `sluice enrol forget 0x" in denied, "unban" in denied) == (True, False)
    for mode in (Mode.ALLOW, Mode.INVITE):
        assert f"(mode {mode}): `sluice enrol allow 0x" in said(mode=mode)
        assert "sluice enrol" not in said(mode=mode, listing=Listing.ALLOWED)
    assert "it connects again by itself" in said()
    for refused in (denied, said(banned=True), said(mode=Mode.ALLOW)):
        assert "connects again by itself" not in refused


MACHINES = st.builds(
    worker,
    st.just(1),
    slots=st.integers(1, 4),
    banned=st.booleans(),
    operator_slots=st.sampled_from([None, 0, 1, 3]),
    away=st.booleans(),
    lost=st.booleans(),
    seen_at=st.sampled_from([NOW, NOW - LOST_AFTER - 1]),
    checked_at=st.sampled_from([0.0, NOW]),
    facts=st.sampled_from([POOR, PROVEN]),
    rest_until=st.sampled_from([0.0, NOW + 1]),
    held=st.sampled_from([(), (held(1),), (held(1), held(2))]),
)


@given(MACHINES)
def test_a_machine_that_is_idle_has_nothing_in_its_way_and_others_have(machine: WorkerRecord) -> None:
    state = state_of(machine, NOW, LOST_AFTER)
    said = explain_worker(machine, [], NOW, LOST_AFTER)
    found = obstacle(waiting(), Capacity.of(machine), NOW)
    if state is WorkerState.IDLE:
        assert found in (None, Obstacle.UNCHECKED)
    if state in (WorkerState.BANNED, WorkerState.DRAINED, WorkerState.NO_GAS, WorkerState.COOLING_DOWN):
        assert found is not None
        assert len(said) > 1
    if state is WorkerState.DRAINED:
        assert not match([waiting()], [machine])


@given(MACHINES, st.sampled_from([None, 0, 1, 2, 64]))
def test_an_operators_limit_only_ever_takes_slots(machine: WorkerRecord, most: int | None) -> None:
    limited, free = replace(machine, operator_slots=most), replace(machine, operator_slots=None)
    assert limited.usable <= free.usable
    assert most is None or limited.usable <= most
    assert limited.drained == (most == 0)
