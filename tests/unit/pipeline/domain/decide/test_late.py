"""Who says that it has a result and does not bring it is counted as who was lost; nobody is for the pool's trouble."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain import outcomes
from pipeline.domain.actions import Action, Count, Drop, Free, Pledge, Resend, Stop, Want
from pipeline.domain.decide import decide_excusing
from pipeline.domain.outcomes import Trouble
from pipeline.domain.records import CLOCKS_APART, Outcome, Replicate, ReplicateState, Standing, TaskRecord
from pipeline.domain.replicas import TOO_LATE, UPLOAD_SECONDS, given_up
from protocol.poco.view import ChainView
from protocol.types import Timestamp
from protocol.wire import Mode, Step
from tests.unit.pipeline.builders import (
    CONSENSUS,
    LIE,
    LINK,
    PACE,
    SECONDS,
    START,
    agreed,
    claimed,
    decided,
    finalized,
    initialized,
    moved,
    replicate,
    revealed,
    task,
    uploaded,
    view,
    voted,
    wallet,
)

FAR = Timestamp(START + 10**6)
#: Computed at START + 1, while the task was on chain from START + 2 on.
COMPUTED = replicate(1, mode=Mode.SOLO, pledged=True)
DUE = START + 2 + PACE.contribute_timeout
LATE = Count(wallet(1), Outcome.LATE)


def at_work(*replicates: Replicate, heard_at: float = 0.0) -> TaskRecord:
    return task(trust=1, replicates=replicates, contribution_deadline=FAR, final_deadline=FAR, heard_at=heard_at)


def held_against(record: TaskRecord, chain: ChainView, now: float) -> list[Action]:
    return [act for act in decided(record, chain, now) if outcomes.is_held_against(act)]


def wanted(record: TaskRecord, chain: ChainView, now: float) -> int:
    return sum(act.count for act in decided(record, chain, now) if isinstance(act, Want))


def test_a_result_that_is_announced_and_not_voted_for_in_time_counts_once_against_its_worker() -> None:
    record, chain = at_work(COMPUTED), view(initialized())
    assert held_against(record, chain, DUE) == []
    assert held_against(record, chain, DUE + 1) == [LATE]
    after = moved(record, chain, DUE + 1)
    assert held_against(after, chain, DUE + 100) == []
    # Its vote is still welcome, and its stake is promised until it is seen.
    assert (after.replicates[0].state, after.replicates[0].pledged) == (ReplicateState.COMPUTED, True)


@pytest.mark.parametrize(
    "coming",
    [
        {"upload_begun_at": START + 50.0},
        {"upload_begun_at": START + 2.0, "upload_coming_at": START + 50.0},
        {"upload_coming_at": START + 50.0},
        {"steps": {Step.COMPUTED: START + 1.0, Step.UPLOADED: START + 50.0}},
    ],
    ids=["begun", "still coming", "not large, and slow to store", "stored"],
)
def test_a_machine_alone_has_its_time_to_vote_from_when_the_pool_was_receiving_its_result(
    coming: dict[str, Any],
) -> None:
    """Its vote carries the link of the result: 20 MB on a line of 2 Mbit/s are no fault of an honest machine."""
    record, chain = at_work(replace(COMPUTED, **coming)), view(initialized())
    due = START + 50 + PACE.contribute_timeout
    assert held_against(record, chain, due) == []
    assert not any(isinstance(act, Want) and act.count for act in decided(record, chain, due)), "and no rival"
    assert held_against(record, chain, due + 1) == [LATE]
    assert any(isinstance(act, Want) and act.count for act in decided(record, chain, due + 1))


def test_an_upload_that_never_ends_is_waited_for_as_long_as_a_large_result_may_take_and_no_longer() -> None:
    dripping = replace(COMPUTED, upload_begun_at=START + 2.0, upload_coming_at=START + 2 * UPLOAD_SECONDS)
    due = START + 2 + UPLOAD_SECONDS + PACE.contribute_timeout
    assert held_against(at_work(dripping), view(initialized()), due) == []
    assert held_against(at_work(dripping), view(initialized()), due + 1) == [LATE]


def test_a_task_is_not_left_to_a_slow_upload_until_no_other_machine_could_do_it_in_time() -> None:
    """Else one machine that sends slowly enough has the task to itself until it can only be claimed, and the pool loses
    its stake: in the shortest category the time for votes is over before the largest upload is.
    """
    seconds, until = 300, Timestamp(START + 7 * 300)
    dripping = replace(COMPUTED, upload_begun_at=START + 2.0, upload_coming_at=float(until))
    record = replace(at_work(dripping), category_seconds=seconds, contribution_deadline=until)
    last = until - PACE.compute_timeout(seconds)
    assert wanted(record, view(initialized()), last - 1) == 0
    assert wanted(record, view(initialized()), last) == 1
    assert held_against(record, view(initialized()), last) == [], "it may be honest: its vote is still welcome"
    assert wanted(replace(record, replicates=(COMPUTED,)), view(initialized()), DUE) == 0, "it has its minute"


def test_whoever_computed_before_the_task_was_on_chain_is_waited_for_however_long_its_initialize_takes() -> None:
    """No gas for an hour: each minute another machine was asked for the same, up to ten, all but one for nothing;
    and once the task was on chain, all of them counted as late before they could vote.
    """
    record, begun = at_work(COMPUTED), START + 3600
    assert wanted(record, view(), begun) == 0
    chain = view(initialized(), at=begun)
    for now, late in ((begun + 1, 0), (begun + PACE.contribute_timeout, 0), (begun + PACE.contribute_timeout + 1, 1)):
        assert held_against(record, chain, now) == [LATE] * late
        assert wanted(record, chain, now) == late
    many = at_work(*(replace(COMPUTED, wallet=wallet(number)) for number in range(1, 11)))
    assert not given_up(many, view(), begun, PACE)


def test_where_it_votes_first_an_upload_is_no_reason_to_vote_late() -> None:
    voter = replace(COMPUTED, mode=Mode.VOTE, upload_begun_at=START + 50.0, upload_coming_at=START + 50.0)
    assert held_against(replace(at_work(voter), trust=5), view(initialized()), DUE + 1) == [LATE]


def test_a_worker_that_gives_its_late_vote_up_is_not_counted_twice() -> None:
    given_up = replace(COMPUTED, state=ReplicateState.FAILED, counted=(Outcome.LATE,))
    free = [act for act in decided(at_work(given_up), view(initialized()), DUE) if isinstance(act, Free)]
    assert free == [Free(wallet(1), Outcome.NEUTRAL)]


@pytest.mark.parametrize(
    "chain", [view(), view(initialized(), voted(1)), view(initialized(), voted(2))], ids=["unset", "voted", "others"]
)
def test_a_worker_that_cannot_vote_or_has_voted_owes_nothing(chain: ChainView) -> None:
    assert held_against(at_work(COMPUTED), chain, DUE + 1) == []


def test_a_task_that_got_on_chain_late_gives_its_workers_their_time_from_then_on() -> None:
    chain = view(initialized())
    record = moved(at_work(COMPUTED), chain, START + 51)
    assert record.heard_at == START + 51
    assert held_against(record, chain, DUE + 49) == []
    assert held_against(record, chain, DUE + 50) == [LATE]


def test_nobody_owes_what_the_pool_could_not_store() -> None:
    assert held_against(at_work(replace(COMPUTED, not_stored_at=START + 2.0)), view(initialized()), DUE + 1) == []


@given(
    unheard_at=st.one_of(st.just(0.0), st.floats(START - 100, DUE + 100)),
    block_at=st.one_of(st.just(0.0), st.floats(START - 100, DUE + 100)),
)
def test_a_delay_is_held_against_a_worker_only_if_the_pool_heard_and_saw_all_the_while(
    unheard_at: float, block_at: float
) -> None:
    now = DUE + 1
    kept = outcomes.excused(at_work(COMPUTED), view(initialized()), [LATE], Trouble(unheard_at, block_at), now, PACE)
    blamed = not START + 1 <= unheard_at <= now + CLOCKS_APART and block_at + PACE.upload_timeout >= now
    assert kept == ([LATE] if blamed else [])


# -- winners -----------------------------------------------------------------------------------------------------------

ASKED = START + 2.0
ASKED_TWICE = replicate(1, reveal_asked_at=ASKED, upload_asked_at=ASKED)
COMPLETED = view(*CONSENSUS, revealed(1), revealed(2), finalized())


def end_of(first: Replicate, now: float) -> Outcome:
    """What the end tells of worker 1, beside worker 2 who brought the result."""
    actions = decided(task(replicates=[first, uploaded(2), replicate(3)]), COMPLETED, now)
    return next(act.outcome for act in actions if isinstance(act, Free) and act.wallet == wallet(1))


def test_a_winner_that_left_the_result_to_others_is_counted_as_late_and_not_as_right() -> None:
    in_time, late = ASKED + PACE.upload_timeout - 1, ASKED + PACE.upload_timeout
    assert end_of(ASKED_TWICE, in_time) is Outcome.VOTED
    assert end_of(ASKED_TWICE, late) is Outcome.LATE
    assert end_of(replicate(1), late) is Outcome.VOTED
    assert end_of(replace(ASKED_TWICE, link=LINK), late) is Outcome.VOTED


def test_a_winner_whose_large_result_is_on_its_way_or_that_the_pool_could_not_store_was_right() -> None:
    for first in (
        replace(ASKED_TWICE, upload_begun_at=ASKED + 1),
        replace(ASKED_TWICE, not_stored_at=ASKED + 1),
    ):
        assert end_of(first, ASKED + 100) is Outcome.VOTED


def test_winners_are_excused_if_the_pool_could_not_be_reached_since_they_were_asked() -> None:
    record, chain, now = task(replicates=[ASKED_TWICE]), view(*CONSENSUS, revealed(1)), ASKED + 100
    free = [Free(wallet(1), Outcome.LATE), Free(wallet(1), Outcome.WITHHELD)]
    assert outcomes.excused(record, chain, free, Trouble(unheard_at=ASKED + 90, block_at=now), now, PACE) == [
        Free(wallet(1), Outcome.VOTED),
        Free(wallet(1), Outcome.NEUTRAL),
    ]
    assert outcomes.excused(record, chain, free, Trouble(ASKED - 1, now), now, PACE) == free


def test_a_winner_that_was_bringing_another_tasks_result_meanwhile_was_right_and_one_without_a_vote_is_late() -> None:
    record, chain, now = task(replicates=[ASKED_TWICE]), view(*CONSENSUS, revealed(1)), ASKED + 100
    late, withheld = Free(wallet(1), Outcome.LATE), Free(wallet(1), Outcome.WITHHELD)
    for uploading, kept in ((1, [Free(wallet(1), Outcome.VOTED), withheld]), (2, [late, withheld])):
        trouble = Trouble(0.0, now, frozenset({wallet(uploading)}))
        assert outcomes.excused(record, chain, [late, withheld], trouble, now, PACE) == kept
    voteless = outcomes.excused(
        at_work(COMPUTED), view(initialized()), [LATE], Trouble(0.0, now, frozenset({wallet(1)})), now, PACE
    )
    assert voteless == [LATE], "a vote waits for no upload"


# -- work of which nothing is heard ------------------------------------------------------------------------------------

ASSIGNED, STARTED = ReplicateState.ASSIGNED, ReplicateState.STARTED
#: When work in each state is dropped in a pool without trouble.
DROPPED = {ASSIGNED: START + 1 + PACE.start_timeout, STARTED: START + 1 + PACE.compute_timeout(SECONDS)}


def ended_by(state: ReplicateState, now: float, unheard_at: float) -> list[Action]:
    """What ends the work of worker 1 in a pool whose machines could last not be heard then."""
    record = at_work(replicate(1, state, mode=Mode.SOLO, published_at=now))
    actions = decide_excusing(record, view(initialized()), now, PACE, lambda *_: Trouble(unheard_at, now))
    return [act for act in actions if isinstance(act, Drop | Stop | Free)]


FAILED = [Drop(wallet(1), ReplicateState.LOST, TOO_LATE), Stop(wallet(1)), Free(wallet(1), Outcome.FAILED)]


@pytest.mark.parametrize("state", [ASSIGNED, STARTED])
def test_work_is_not_taken_away_for_a_report_that_could_not_come_while_the_pool_could_not_be_heard(
    state: ReplicateState,
) -> None:
    now = DROPPED[state] + 1
    assert ended_by(state, now, 0.0) == FAILED
    assert ended_by(state, now, START) == FAILED, "before it was given"
    assert ended_by(state, now, now + CLOCKS_APART) != FAILED, "of another host's clock"
    assert ended_by(state, now, now + CLOCKS_APART + 1) == FAILED, "of a clock that was wrong"
    assert ended_by(state, now, now - 1) == []
    again = now - 1 + PACE.start_timeout + PACE.resend(0)
    assert ended_by(state, again, now - 1) == []
    assert ended_by(state, again + 1, now - 1) == FAILED, "there was time since"


def test_no_other_machine_is_asked_for_work_that_could_not_be_reported() -> None:
    record = at_work(replicate(1, ASSIGNED, mode=Mode.SOLO, published_at=START + 1), heard_at=START)
    now = DROPPED[ASSIGNED] + 1

    def wanted(unheard_at: float) -> list[Action]:
        actions = decide_excusing(record, view(initialized()), now, PACE, lambda *_: Trouble(unheard_at, now))
        return [act for act in actions if isinstance(act, Want | Resend)]

    assert [type(act) for act in wanted(0.0)] == [Want]
    assert wanted(now - 1) == [Resend(wallet(1))], "it answers with what it could not report"


def test_the_pools_trouble_is_looked_up_only_if_it_matters() -> None:
    def never(*_: object) -> Trouble:
        raise AssertionError

    at_ease = at_work(replicate(1, ASSIGNED, mode=Mode.SOLO, published_at=START + 1))
    assert decide_excusing(at_ease, view(initialized()), START + 2, PACE, never) == decided(
        at_ease, view(initialized()), START + 2
    )


def test_who_votes_alone_without_a_stored_result_is_held_to_it_whatever_was_away() -> None:
    record = task(trust=1, replicates=[COMPUTED])
    withheld: list[Action] = [Free(wallet(1), Outcome.WITHHELD)]
    assert outcomes.excused(record, view(initialized(), voted(1)), withheld, Trouble(DUE, 0.0), DUE, PACE) == withheld


def test_who_votes_for_another_result_or_does_not_reveal_is_held_to_it_when_the_task_is_completed() -> None:
    chain = view(initialized(), voted(4, LIE), voted(1), voted(2), voted(3), agreed(), revealed(1), finalized())
    asked = replicate(2, reveal_asked_at=ASKED)
    actions = decided(task(replicates=[uploaded(1), asked, replicate(3), replicate(4)]), chain)
    found = {act.wallet: act.outcome for act in actions if isinstance(act, Free)}
    assert found == {wallet(1): Outcome.VOTED, wallet(2): Outcome.WITHHELD, wallet(4): Outcome.WRONG}


@pytest.mark.parametrize("standing", [Standing.NEWCOMER, Standing.STAKED])
def test_who_was_never_right_gets_its_slot_back_when_it_has_revealed_or_the_task_is_over(standing: Standing) -> None:
    held = replicate(1, standing=standing, holds_slot=True)
    others = replicate(2), replicate(3)

    def freed(chain: ChainView) -> bool:
        actions = decided(task(replicates=[held, *others]), chain)
        assert Pledge(wallet(1)) not in actions
        return any(isinstance(act, Free) and act.wallet == wallet(1) for act in actions)

    assert not freed(view(initialized()))
    assert not freed(view(initialized(), voted(1)))
    assert not freed(view(*CONSENSUS))
    assert freed(view(*CONSENSUS, revealed(1)))
    assert freed(view(*CONSENSUS, revealed(2), finalized()))
    assert freed(view(initialized(), claimed()))
