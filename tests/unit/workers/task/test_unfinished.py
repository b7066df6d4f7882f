"""What is said of a machine that stops: never a later hour than the true one."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.poco.deadlines import reveal_deadline
from protocol.poco.view import ChainView, Contribution, ContributionStatus, TaskStatus
from protocol.types import BlockNumber, Hash32, TaskId, Timestamp
from protocol.wire import Mode
from tests.unit.workers.assignments import WORKER_KEY, assignment, task_id
from workers.task.replicate import Replicate, ReplicateStage
from workers.task.unfinished import Unfinished, clock, sentence, unfinished

NOW = 1_800_000_000.0
VOTE, OTHER = Hash32("0x" + "cd" * 32), Hash32("0x" + "ef" * 32)
SECONDS = 30


def held(stage: ReplicateStage, number: int = 1, *, since: float = NOW - 5, mode: Mode = Mode.VOTE) -> Replicate:
    wanted = assignment(number, mode=mode, category_seconds=SECONDS, contribution_deadline=int(NOW) + 200)
    return Replicate(task_id(number), wanted, stage, updated_at=since)


def view(
    status: TaskStatus, vote: ContributionStatus = ContributionStatus.CONTRIBUTED, winner: Hash32 | None = VOTE
) -> ChainView:
    own = Contribution(WORKER_KEY.wallet, VOTE, vote, BlockNumber(1))
    return ChainView(task_id(1), status, (own,), winner, Timestamp(int(NOW) + 77))


def left(*replicates: Replicate, views: Mapping[TaskId, ChainView] | None = None) -> Unfinished:
    return unfinished(replicates, views or {}, WORKER_KEY.wallet, NOW)


@pytest.mark.parametrize("moment", [2**62, 10**11, 253_402_300_800])
def test_no_deadline_that_a_pool_has_signed_keeps_a_machine_from_telling_its_votes_and_revealing_them(
    moment: int,
) -> None:
    """At a start that is refused this is told before the votes are revealed."""
    endless = assignment(2, category_seconds=moment, contribution_deadline=moment, final_deadline=moment)
    rows = [Replicate(task_id(2), endless, stage, updated_at=NOW) for stage in ReplicateStage]
    found = left(*rows, held(ReplicateStage.COMMITTED))
    assert found.votes
    assert "start again before" in sentence(found, NOW)
    for row in rows:
        assert sentence(left(row), NOW)


def test_a_machine_that_holds_nothing_says_so() -> None:
    for stage in (ReplicateStage.FAILED, ReplicateStage.ABORTED):
        assert sentence(left(held(stage)), NOW) == "Stopped. Nothing is left unfinished."


def test_an_app_that_goes_on_is_named_with_its_end_and_the_deadline_of_its_vote() -> None:
    found = left(held(ReplicateStage.RUNNING))
    assert (found.apps, found.apps_end, found.vote_by) == (1, NOW - 5 + SECONDS, NOW + 200)
    assert sentence(found, NOW) == (
        f"Stopped. 1 app goes on running until {clock(NOW + 25, NOW)} at the latest."
        f" 1 task needs a vote yet: start again before {clock(NOW + 200, NOW)}, or the work is not paid."
    )


def test_a_vote_of_a_task_in_its_reveal_phase_has_the_chains_own_deadline() -> None:
    found = left(held(ReplicateStage.COMMITTED), views={task_id(1): view(TaskStatus.REVEALING)})
    assert (found.votes, found.reveal_by) == (1, NOW + 77)
    assert "1 vote waits to be revealed" in sentence(found, NOW)
    assert "its stake is lost" in sentence(found, NOW)


def test_a_vote_without_consensus_has_the_deadline_of_a_consensus_that_comes_at_once() -> None:
    found = left(held(ReplicateStage.COMMITTED), views={task_id(1): view(TaskStatus.ACTIVE, winner=None)})
    assert found.reveal_by == reveal_deadline(Timestamp(int(NOW)), SECONDS)


def test_where_the_chain_was_not_asked_consensus_may_have_come_right_after_the_vote() -> None:
    assert left(held(ReplicateStage.COMMITTED)).reveal_by == reveal_deadline(Timestamp(int(NOW - 5)), SECONDS)


def test_a_task_that_is_revealed_over_or_lost_the_vote_needs_no_machine() -> None:
    done = [
        view(TaskStatus.REVEALING, ContributionStatus.REVEALED),
        view(TaskStatus.REVEALING, winner=OTHER),
        view(TaskStatus.COMPLETED),
        view(TaskStatus.FAILED),
    ]
    for seen in done:
        assert left(held(ReplicateStage.COMMITTED), views={task_id(1): seen}).votes == 0
        assert left(held(ReplicateStage.REVEALED), views={task_id(1): seen}).votes == 0


def test_a_reveal_that_is_not_mined_yet_counts_as_not_revealed() -> None:
    assert left(held(ReplicateStage.REVEALED), views={task_id(1): view(TaskStatus.REVEALING)}).votes == 1


def test_a_task_that_is_done_alone_locks_no_stake() -> None:
    assert left(held(ReplicateStage.COMMITTED, mode=Mode.SOLO)) == Unfinished()


@given(
    stages=st.lists(st.sampled_from(list(ReplicateStage)), max_size=6),
    consensus_after=st.integers(0, 300),
    asked=st.booleans(),
)
def test_the_hour_given_for_a_vote_is_never_after_its_true_deadline(
    stages: list[ReplicateStage], consensus_after: int, asked: bool
) -> None:
    """Whenever consensus came or comes: the deadline on chain counts from then."""
    consensus = int(NOW - 5) + consensus_after
    true = reveal_deadline(Timestamp(consensus), SECONDS)
    replicates = [held(stage, number) for number, stage in enumerate(stages, 1)]
    own = Contribution(WORKER_KEY.wallet, VOTE, ContributionStatus.CONTRIBUTED, BlockNumber(1))
    reached = consensus <= NOW
    status, winner = (TaskStatus.REVEALING, VOTE) if reached else (TaskStatus.ACTIVE, None)
    seen = {
        item.task_id: ChainView(item.task_id, status, (own,), winner, true if reached else None) for item in replicates
    }
    found = left(*replicates, views=seen if asked else None)
    assert found.votes == sum(stage in (ReplicateStage.COMMITTED, ReplicateStage.REVEALED) for stage in stages)
    assert found.reveal_by is None or found.reveal_by <= true
    assert sentence(found, NOW).startswith("Stopped.")
