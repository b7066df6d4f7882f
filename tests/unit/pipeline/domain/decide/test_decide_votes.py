"""What is decided about a task until its votes agree: a table of situations by sentence."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.domain import tries
from pipeline.domain.actions import (
    Drop,
    End,
    Free,
    Method,
    Pledge,
    Resend,
    Resume,
    Stop,
    Submit,
    Want,
)
from pipeline.domain.explain import Candidates, explain
from pipeline.domain.progress import after
from pipeline.domain.records import Outcome, ReplicateState, TaskRecord, TaskStage
from pipeline.domain.replicas import TOO_LATE
from pipeline.domain.tries import FIRST_TO_CLAIM, MAX_FAILED_INTENTS
from tests.unit.pipeline.builders import (
    CONSENSUS,
    CONTRIBUTE_UNTIL,
    FINAL,
    LIE,
    PACE,
    START,
    VOTERS,
    claimed,
    decided,
    initialized,
    moved,
    replicate,
    submits,
    task,
    view,
    voted,
    wallet,
)


def test_a_fresh_task_is_initialized_and_staffed_at_once() -> None:
    actions = decided(task(trust=5), view())
    assert submits(actions) == [(Method.INITIALIZE, 0)]
    assert Want(3) in actions


@pytest.mark.parametrize(("trust", "workers"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (8, 3), (9, 4)])
def test_newcomers_wanted_grow_with_the_logarithm_of_trust(trust: int, workers: int) -> None:
    assert Want(workers) in decided(task(trust=trust), view())


def test_initialize_is_not_handed_over_twice_in_a_row() -> None:
    once = moved(task(), view())
    assert submits(decided(once, view())) == []


def test_initialize_is_looked_after_when_the_chain_keeps_silent() -> None:
    once = moved(task(), view())
    (submit,) = [item for item in decided(once, view(), START + 60) if isinstance(item, Submit)]
    assert submit.again


def test_a_failed_initialize_gets_another_try_with_another_key() -> None:
    assert submits(decided(task(failed={"initialize": 1}), view())) == [(Method.INITIALIZE, 1)]


def test_three_failed_tries_are_enough() -> None:
    assert submits(decided(task(failed={"initialize": 3}), view())) == []


def test_nothing_is_initialized_after_the_contribution_deadline() -> None:
    assert decided(task(), view(), CONTRIBUTE_UNTIL) == []


def test_a_task_never_initialized_is_initialized_for_the_claim_after_the_final_deadline() -> None:
    for failed in ({}, {"initialize": 1}, {"initialize": 3}, {"initialize": 2, "initialize_too_late": 1}):
        (number,) = [number for method, number in submits(decided(task(failed=failed), view(), FINAL))]
        assert number >= FIRST_TO_CLAIM, failed


def test_an_initialize_that_waited_until_the_deadline_in_the_lane_does_not_count_as_refused() -> None:
    """The lane judges by a block whose time is a little ahead of this clock: no gas for hours, and then three tries
    within the same second gave the task up for ever, with the requester's money and the pool's stake locked in it.
    """
    record, now = moved(task(), view()), CONTRIBUTE_UNTIL - 2.0
    for _ in range(MAX_FAILED_INTENTS):
        record = lane_fails(record, now)
        record = after(record, view(), decided(record, view(), now), now, PACE)
    assert submits(decided(record, view(), now + 1)) == [], (
        "The chain is past the deadline: no try before the last one."
    )
    assert submits(decided(record, view(), FINAL)) == [(Method.INITIALIZE, FIRST_TO_CLAIM + 1)]
    assert not tries.exhausted(record, Method.INITIALIZE)


def lane_fails(record: TaskRecord, now: float) -> TaskRecord:
    """The record once the lane has ended the initialize that was handed to it, if one was, as its store notes it."""
    (submit,) = [item for item in decided(task(), view()) if isinstance(item, Submit)]
    if Method.INITIALIZE not in record.sent:
        return record
    name = tries.counted_as(Method.INITIALIZE, submit.args, now)
    return replace(record, sent={}, failed={**record.failed, name: record.failed.get(name, 0) + 1}, changed_at=now)


def test_a_task_that_is_refused_even_for_its_claim_holds_nothing_and_is_tried_again_more_and_more_rarely() -> None:
    computing = [replicate(1, ReplicateState.STARTED), replicate(2, ReplicateState.FAILED, holds_slot=True)]
    failed = {"initialize": 3, "initialize_to_claim": 3}
    record = task(failed=failed, why="refused", wants=1, replicates=computing, changed_at=FINAL)
    actions = decided(record, view(), FINAL)
    assert not any(isinstance(item, End | Submit) for item in actions)
    assert {item.wallet for item in actions if isinstance(item, Free)} == {wallet(1), wallet(2)}
    waiting = moved(record, view(), FINAL)
    assert (waiting.open, waiting.wants) == (True, 0)
    assert decided(waiting, view(), FINAL + 599) == []
    assert submits(decided(waiting, view(), FINAL + 600)) == [(Method.INITIALIZE, FIRST_TO_CLAIM + 3)]
    assert "tried again 10 minutes later" in (explain(waiting, view(), Candidates(), FINAL + 1, PACE) or "")


def test_a_task_that_an_older_release_gave_up_is_initialized_for_its_claim_when_it_is_looked_at() -> None:
    given_up = task(failed={"initialize": 3}, open=False, stage=TaskStage.FAILED)
    actions = decided(given_up, view(), FINAL)
    assert actions[0] == Resume()
    assert submits(actions) == [(Method.INITIALIZE, FIRST_TO_CLAIM)]


def test_workers_that_compute_count_as_votes_to_come() -> None:
    computing = [replicate(n, ReplicateState.STARTED) for n in (1, 2, 3)]
    assert decided(task(replicates=computing), view(initialized())) == []


@pytest.mark.parametrize("state", [ReplicateState.FAILED, ReplicateState.LOST, ReplicateState.ABORTED])
def test_a_replicate_that_is_over_is_replaced_at_once(state: ReplicateState) -> None:
    gone = [replicate(1, state), replicate(2), replicate(3)]
    assert Want(1, 4, 0) in decided(task(replicates=gone), view(initialized()))


def test_a_worker_that_never_starts_is_asked_again_and_then_replaced() -> None:
    waiting = [replicate(1, ReplicateState.ASSIGNED), replicate(2), replicate(3)]
    record = task(replicates=waiting)
    assert decided(record, view(initialized()), START + 3) == []
    assert decided(record, view(initialized()), START + 7) == [Resend(wallet(1))]
    assert Want(1, 0, 0) not in decided(record, view(initialized()), START + 60)
    late = task(replicates=[replicate(1, ReplicateState.ASSIGNED)], trust=1)
    assert Want(1) in decided(late, view(initialized()), START + 62)


def test_a_worker_that_computed_but_does_not_vote_is_replaced() -> None:
    assert Want(1) in decided(task(trust=1, replicates=[replicate(1)]), view(initialized()), START + 63)


def test_a_dissenter_makes_more_workers_wanted() -> None:
    liars = task(trust=3, replicates=[replicate(1), replicate(2)])
    chain = view(initialized(), voted(1), voted(2, LIE))
    assert Want(2, 2, 2) in decided(liars, chain)


def test_a_slot_is_free_as_soon_as_computing_is_over() -> None:
    holding = replicate(1, ReplicateState.COMPUTED, holds_slot=True)
    record = task(trust=1, replicates=[holding])
    assert Pledge(wallet(1)) in decided(record, view(initialized()))
    pledged = moved(record, view(initialized()))
    assert (pledged.replicates[0].holds_slot, pledged.replicates[0].pledged) == (False, True)
    assert decided(pledged, view(initialized())) == []


def test_the_stake_is_free_when_the_vote_is_seen_or_will_not_come() -> None:
    owing = replicate(1, pledged=True)
    assert Free(wallet(1)) in decided(task(replicates=[owing]), view(initialized(), voted(1)))
    gone = replicate(1, ReplicateState.FAILED, pledged=True)
    assert Free(wallet(1), Outcome.FAILED) in decided(task(replicates=[gone]), view(initialized()))
    assert Free(wallet(1)) in decided(task(replicates=[owing]), view(initialized(), claimed()))


def test_who_computes_for_too_long_is_stopped_and_its_slot_freed() -> None:
    record = task(trust=1, replicates=[replicate(1, ReplicateState.STARTED)], contribution_deadline=FINAL + 900)
    assert decided(record, view(initialized()), START + 60) == []
    actions = decided(record, view(initialized()), START + 82)
    assert actions[:3] == [
        Drop(wallet(1), ReplicateState.LOST, TOO_LATE),
        Stop(wallet(1)),
        Free(wallet(1), Outcome.FAILED),
    ]
    assert Want(1) in actions


def test_a_segment_is_published_again_at_longer_and_longer_intervals() -> None:
    waiting = replicate(1, ReplicateState.ASSIGNED, published_at=START + 10, resends=2)
    record = task(trust=1, replicates=[waiting])
    assert decided(record, view(initialized()), START + 29) == []
    assert decided(record, view(initialized()), START + 30) == [Resend(wallet(1))]
    assert moved(record, view(initialized()), START + 30).replicates[0].resends == 3


def test_only_news_of_the_chain_counts_as_a_sign_of_life() -> None:
    asked = moved(task(replicates=VOTERS), view(*CONSENSUS), START + 3)
    assert asked.heard_at == START + 3
    again = moved(asked, view(*CONSENSUS), START + 9)
    assert (again.changed_at, again.heard_at) == (START + 9, START + 3)


def test_a_slot_is_free_when_the_vote_is_on_chain_though_no_report_came() -> None:
    silent = replicate(1, ReplicateState.STARTED)
    assert Free(wallet(1)) in decided(task(replicates=[silent]), view(initialized(), voted(1)))


def test_nobody_is_asked_after_the_contribution_deadline() -> None:
    assert decided(task(wants=3), view(initialized()), CONTRIBUTE_UNTIL) == [Want(0)]
