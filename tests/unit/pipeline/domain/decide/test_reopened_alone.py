"""A task of trust 1 that one machine voted on, instead of finalizing it alone, and never revealed.

The contract takes `contributeAndFinalize` only from the very first that contributes. So since it was reopened, the task
needs a vote, a reveal and a finalize, by any other machine.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.domain.actions import Count, Drop, Free, Method, Stop, Want
from pipeline.domain.match import match, stake_locked
from pipeline.domain.records import Outcome, Replicate, ReplicateState, Standing, TaskRecord
from pipeline.domain.replicas import as_on_chain
from protocol.wire import Mode
from tests.unit.pipeline.builders import (
    LIE,
    START,
    agreed,
    decided,
    finalized,
    initialized,
    moved,
    reopened,
    replicate,
    revealed,
    submits,
    task,
    uploaded,
    view,
    voted,
    wallet,
    worker,
)

#: It voted at trust 1, which nobody asked it for, was asked to reveal, and did not.
HOLDUP = replicate(1, mode=Mode.SOLO, reveal_asked_at=START + 2, counted=(Outcome.WITHHELD,))
REOPENED = (initialized(), voted(1, LIE), agreed(LIE), reopened())


def reopened_task(*others: Replicate, **fields: object) -> TaskRecord:
    return task(trust=1, replicates=[HOLDUP, *others], **fields)


def test_another_machine_is_wanted_and_it_works_by_vote_and_with_stake() -> None:
    record = reopened_task()
    assert Want(1) in decided(record, view(*REOPENED))
    saved = moved(record, view(*REOPENED))
    assert (saved.wants, saved.mode, stake_locked(saved)) == (1, Mode.VOTE, saved.worker_stake)
    (found,) = match([saved], [worker(1), worker(2, stake=29), worker(3, stake=30)])
    assert [item.wallet for item in found.workers] == [wallet(3)], "not the one that had it, nor one without stake"


def test_its_vote_is_waited_for_and_asked_to_be_revealed_and_the_task_is_finalized() -> None:
    second = replicate(2, ReplicateState.STARTED)
    assert not any(isinstance(item, Want) and item.count for item in decided(reopened_task(second), view(*REOPENED)))
    chain = view(*REOPENED, voted(2), agreed(), revealed(2))
    assert submits(decided(reopened_task(uploaded(2)), chain)) == [(Method.FINALIZE, 1)]
    ended = decided(reopened_task(replicate(2)), view(*REOPENED, voted(2), agreed(), revealed(2), finalized()))
    assert Free(wallet(2), Outcome.VOTED) in ended


def test_a_machine_that_would_finalize_it_alone_is_stopped_and_counts_for_nothing() -> None:
    """Where the pool did not see the vote before the task was reopened, another machine may be at it."""
    for state in (ReplicateState.STARTED, ReplicateState.COMPUTED):
        alone = replicate(2, state, mode=Mode.SOLO, holds_slot=True)
        actions = decided(reopened_task(alone), view(*REOPENED), START + 62.0)
        assert Stop(wallet(2)) in actions
        assert Drop(wallet(2), ReplicateState.ABORTED, "Since it was reopened, it is decided by votes.") in actions
        assert not any(isinstance(item, Count) and item.wallet == wallet(2) for item in actions)
        assert any(isinstance(item, Want) and item.count == 1 for item in actions)


@pytest.mark.parametrize("standing", list(Standing))
def test_the_machine_that_votes_and_does_not_reveal_is_held_to_it_at_once(standing: Standing) -> None:
    record = task(trust=1, replicates=[replace(HOLDUP, standing=standing, counted=())])
    assert Count(wallet(1), Outcome.WITHHELD) in decided(record, view(*REOPENED))


def test_a_reorg_that_takes_the_reopening_back_makes_it_a_task_for_one_alone_again() -> None:
    saved = moved(reopened_task(), view(*REOPENED))
    assert saved.mode is Mode.VOTE
    assert as_on_chain(saved, view(initialized())).mode is Mode.SOLO
    assert moved(saved, view(initialized())).mode is Mode.SOLO
