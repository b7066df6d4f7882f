"""What only machines that were never right on chain are at: a proven one with nothing else to do gets it too."""

from __future__ import annotations

import pytest

from pipeline.domain.actions import Want
from pipeline.domain.explain import Candidates, explain
from pipeline.domain.match import match
from pipeline.domain.records import Replicate, ReplicateState, Standing, TaskRecord
from protocol.types import TaskId
from protocol.wire import Mode
from tests.unit.pipeline.builders import PACE, START, decided, initialized, replicate, task, view, voted, wallet, worker

BEGUN = START + 1
LATER = BEGUN + PACE.backup_timeout
AT_WORK = [ReplicateState.ASSIGNED, ReplicateState.STARTED, ReplicateState.COMPUTED]


def at_work(number: int, state: ReplicateState, standing: Standing, mode: Mode) -> Replicate:
    # A worker says for itself that it has started or computed: that changes nothing.
    return replicate(number, state, at=BEGUN, standing=standing, mode=mode, steps={}, published_at=LATER)


def wants(record: TaskRecord, now: float, *votes: int) -> list[Want]:
    decisions = decided(record, view(initialized(), *(voted(number) for number in votes)), now)
    return [action for action in decisions if isinstance(action, Want)]


@pytest.mark.parametrize("state", AT_WORK)
@pytest.mark.parametrize("standing", [Standing.NEWCOMER, Standing.STAKED])
@pytest.mark.parametrize(("trust", "machines"), [(1, 1), (3, 2), (5, 3)])
def test_unproven_machines_that_take_their_time_are_joined_by_as_many_proven_ones(
    state: ReplicateState, standing: Standing, trust: int, machines: int
) -> None:
    mode = Mode.SOLO if trust == 1 else Mode.VOTE
    record = task(trust=trust, replicates=[at_work(n, state, standing, mode) for n in range(1, machines + 1)])
    assert wants(record, LATER - 0.1) == []
    assert wants(record, LATER) == [Want(machines, backup=True)]


@pytest.mark.parametrize("state", AT_WORK)
def test_proven_machines_are_left_to_it(state: ReplicateState) -> None:
    assert wants(task(trust=1, replicates=[at_work(1, state, Standing.PROVEN, Mode.SOLO)]), LATER + 1) == []


def test_nothing_more_is_wanted_once_a_proven_machine_is_at_it_too() -> None:
    pair = [
        at_work(1, ReplicateState.STARTED, Standing.NEWCOMER, Mode.SOLO),
        at_work(2, ReplicateState.STARTED, Standing.PROVEN, Mode.SOLO),
    ]
    assert wants(task(trust=1, replicates=pair, wants=1, backup=True), LATER + 1) == [Want(0)]


def test_a_vote_on_chain_counts_whosever_it_is() -> None:
    three = [at_work(n, ReplicateState.STARTED, Standing.STAKED, Mode.VOTE) for n in (1, 2, 3)]
    assert [want.count for want in wants(task(trust=5, replicates=three), LATER, 1)] == [2]


def test_a_machine_that_is_missing_altogether_may_be_anybody() -> None:
    two = [at_work(n, ReplicateState.STARTED, Standing.STAKED, Mode.VOTE) for n in (1, 2)]
    assert [(want.count, want.backup) for want in wants(task(trust=5, replicates=two), LATER)] == [(1, False)]


def slow(number: int, deadline: int = START + 70) -> TaskRecord:
    newcomer = at_work(90 + number, ReplicateState.STARTED, Standing.NEWCOMER, Mode.SOLO)
    fields = {"task_id": TaskId(f"0x{number:064x}"), "contribution_deadline": deadline}
    return task(trust=1, replicates=[newcomer], wants=1, backup=True, **fields)


def test_only_a_proven_machine_gets_it() -> None:
    assert match([slow(1)], [worker(1), worker(2, stake=10**9)]) == []
    (found,) = match([slow(1)], [worker(1), worker(2, solos=1)])
    assert [item.wallet for item in found.workers] == [wallet(2)]


def test_tasks_that_nobody_is_at_come_first_however_urgent_it_is() -> None:
    fresh = task(trust=1, wants=1, task_id=TaskId("0x" + "f" * 64))
    (found,) = match([slow(1, START + 5), fresh], [worker(1, solos=1)])
    assert found.task is fresh


def test_it_says_so_when_asked() -> None:
    said = explain(slow(1), view(initialized()), Candidates(), LATER, PACE)
    assert said is not None
    assert said.startswith("Machines that were never right on chain are at it (1 at work, 0 voted). A proven one gets")
