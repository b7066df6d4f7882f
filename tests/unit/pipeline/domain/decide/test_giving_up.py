"""Which failures count against the task, which against the worker, and which against neither."""

from __future__ import annotations

import pytest

from pipeline.domain.actions import Explain, Free, Want
from pipeline.domain.records import Outcome, Replicate, ReplicateState, Standing
from pipeline.domain.replicas import MAX_BLAMING, MAX_SPENT, TOO_LATE
from protocol.results.error_result import MACHINE_FAILED, MACHINE_MEMORY, UNCLEAR_END, Failure, worded
from tests.unit.pipeline.builders import CONSENSUS, decided, initialized, replicate, task, view, voted, wallet


def test_an_app_that_fails_everywhere_is_given_up_and_the_reason_is_kept() -> None:
    failed = [replicate(n, ReplicateState.FAILED, cause="APP_COMPUTE_FAILED") for n in range(5)]
    actions = decided(task(trust=1, replicates=failed), view(initialized()))
    assert actions == [Explain("Given up: 5 x APP_COMPUTE_FAILED.")]


@pytest.mark.parametrize("cause", [MACHINE_FAILED, "reverted in block 7 with gas used 60000 of 400000", None])
def test_machines_that_fail_by_themselves_do_not_make_a_task_given_up(cause: str | None) -> None:
    failed = [replicate(n, ReplicateState.FAILED, cause=cause) for n in range(MAX_BLAMING)]
    blaming = [replicate(10 + n, ReplicateState.FAILED, cause=Failure.APP) for n in range(MAX_BLAMING - 1)]
    assert decided(task(trust=1, replicates=[*failed, *blaming]), view(initialized())) == [Want(1)]


def test_not_even_failing_machines_burn_the_whole_pool() -> None:
    failed = [replicate(n, ReplicateState.FAILED, cause=MACHINE_FAILED) for n in range(MAX_SPENT - 1)]
    silent = replicate(20, ReplicateState.LOST, cause=TOO_LATE)
    actions = decided(task(trust=1, replicates=[*failed, silent]), view(initialized()))
    assert actions == [Explain(f"Given up: {MAX_SPENT - 1} x MACHINE_FAILED, 1 x silent.")]


def test_machines_that_were_lost_as_a_whole_count_against_no_task() -> None:
    lost = [replicate(n, ReplicateState.LOST) for n in range(MAX_SPENT)]
    aborted = [replicate(20 + n, ReplicateState.ABORTED, cause="Stopped.") for n in range(MAX_SPENT)]
    assert Want(1) in decided(task(trust=1, replicates=[*lost, *aborted]), view(initialized()))


def test_a_worker_whose_vote_came_too_late_is_not_counted_as_failing() -> None:
    late = replicate(4, ReplicateState.FAILED, cause="the task is REVEALING", pledged=True)
    assert Free(wallet(4), Outcome.NEUTRAL) in decided(
        task(replicates=[replicate(1), replicate(2), replicate(3), late]), view(*CONSENSUS)
    )
    beaten = replicate(1, ReplicateState.FAILED, cause="another worker has contributed", pledged=True)
    solo = task(trust=1, replicates=[beaten])
    assert Free(wallet(1), Outcome.NEUTRAL) in decided(solo, view(initialized(), voted(2)))


# -- who may end a task ------------------------------------------------------------------------------------------------


def blaming(first: int, count: int, standing: Standing) -> list[Replicate]:
    return [
        replicate(n, ReplicateState.FAILED, cause=Failure.APP_IMAGE, standing=standing)
        for n in range(first, first + count)
    ]


def gives_up(*replicates: Replicate, trust: int = 1) -> bool:
    return not any(
        isinstance(action, Want) for action in decided(task(trust=trust, replicates=replicates), view(initialized()))
    )


@pytest.mark.parametrize("count", [5, 10, 19])
def test_newcomers_alone_never_end_a_task(count: int) -> None:
    assert not gives_up(*blaming(1, count, Standing.NEWCOMER))


@pytest.mark.parametrize("count", [5, 10, 19])
def test_stake_alone_never_ends_a_task(count: int) -> None:
    assert not gives_up(*blaming(1, count, Standing.STAKED))


def test_stake_counts_for_less_than_half() -> None:
    assert not gives_up(*blaming(1, 9, Standing.STAKED), *blaming(20, 2, Standing.PROVEN))
    assert gives_up(*blaming(1, 9, Standing.STAKED), *blaming(20, 3, Standing.PROVEN))


def test_five_of_many_that_were_asked_do_not_end_a_task() -> None:
    at_work = [replicate(n, ReplicateState.STARTED, standing=Standing.PROVEN) for n in range(50, 55)]
    assert gives_up(*blaming(1, 5, Standing.PROVEN), *at_work[:4], trust=10**6)
    assert not gives_up(*blaming(1, 5, Standing.PROVEN), *at_work, trust=10**6)


def test_silence_of_newcomers_does_not_end_a_task() -> None:
    silent = [
        replicate(n, ReplicateState.LOST, cause=TOO_LATE, standing=standing)
        for n, standing in enumerate([Standing.NEWCOMER] * 10 + [Standing.STAKED] * 10)
    ]
    assert not gives_up(*silent)


@pytest.mark.parametrize(
    "cause", [*Failure, MACHINE_MEMORY, UNCLEAR_END, f"{MACHINE_MEMORY}: it had 1 GiB", f"{Failure.APP}: x"]
)
def test_what_an_app_does_never_counts_against_a_machine(cause: str) -> None:
    failed = replicate(1, ReplicateState.FAILED, cause=cause, holds_slot=True)
    assert Free(wallet(1), Outcome.BLAMED) in decided(task(replicates=[failed]), view(initialized()))


def test_what_a_machine_says_of_itself_counts_against_it() -> None:
    failed = replicate(1, ReplicateState.FAILED, cause=MACHINE_FAILED, holds_slot=True)
    assert Free(wallet(1), Outcome.FAILED) in decided(task(replicates=[failed]), view(initialized()))


def test_a_callback_that_gets_no_data_from_anybody_is_explained_before_it_is_given_up() -> None:
    cause = worded(Failure.COMPUTED_FILE, "computed.json has no callback-data")
    failed = [replicate(n, ReplicateState.FAILED, cause=cause) for n in range(2)]
    why = f"No result yet: 2 x {cause}."
    actions = decided(task(trust=1, replicates=failed), view(initialized()))
    assert actions == [Want(1), Explain(why)]
    assert decided(task(trust=1, replicates=failed, wants=1, why=why), view(initialized())) == []
