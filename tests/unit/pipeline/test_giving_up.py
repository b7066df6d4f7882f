"""Which failures count against the task, which against the worker, and which against nobody."""

from __future__ import annotations

import pytest

from pipeline.actions import Explain, Free, Outcome, Want
from pipeline.records import ReplicateState
from pipeline.replicas import MAX_BLAMING, MAX_SPENT, TOO_LATE
from protocol.errorresult import MACHINE_FAILED, Failure
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
    beaten = replicate(1, ReplicateState.FAILED, cause="somebody else has contributed", pledged=True)
    solo = task(trust=1, replicates=[beaten])
    assert Free(wallet(1), Outcome.NEUTRAL) in decided(solo, view(initialized(), voted(2)))
