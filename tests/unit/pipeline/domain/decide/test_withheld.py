"""What a vote is worth to the worker that gave it: nothing before its task is completed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.domain.actions import Action, Count, Free
from pipeline.domain.outcomes import Trouble, excused, is_held_against
from pipeline.domain.records import Outcome, Replicate, TaskRecord
from protocol.poco import events
from protocol.poco.view import ChainView
from protocol.wire import Mode
from tests.unit.pipeline.builders import (
    CONSENSUS,
    LIE,
    PACE,
    START,
    agreed,
    claimed,
    decided,
    finalized,
    initialized,
    moved,
    reopened,
    replicate,
    revealed,
    task,
    uploaded,
    view,
    voted,
    wallet,
)

ALONE = replicate(1, mode=Mode.SOLO, pledged=True)
VOTED_ALONE = (initialized(), voted(1), agreed())
MOMENT: float = START + 2


def outcomes(trust: int, chain: ChainView, *replicates: Replicate) -> dict[int, Outcome]:
    """What each worker is held to at this end of the task, by number."""
    actions = decided(task(trust=trust, replicates=replicates), chain)
    return {int(act.wallet, 16): act.outcome for act in actions if isinstance(act, Free)}


def asked_for_it(number: int) -> Replicate:
    """A replicate whose worker was asked to reveal and to bring the result."""
    return replicate(number, reveal_asked_at=MOMENT, upload_asked_at=MOMENT)


def asked_to_reveal(number: int) -> Replicate:
    """A replicate whose worker was asked to reveal, and did not."""
    return replicate(number, reveal_asked_at=MOMENT)


def ended(*happened: events.Event) -> ChainView:
    """Three votes agreed, then this."""
    return view(*CONSENSUS, *happened)


def test_a_vote_alone_counts_for_nothing_until_the_chain_has_completed_the_task() -> None:
    assert outcomes(1, view(*VOTED_ALONE), ALONE) == {1: Outcome.NEUTRAL}
    assert outcomes(1, view(*VOTED_ALONE, revealed(1)), ALONE) == {1: Outcome.NEUTRAL}
    assert outcomes(1, view(*VOTED_ALONE, revealed(1), finalized()), ALONE) == {1: Outcome.PAID}
    assert outcomes(1, view(*VOTED_ALONE, claimed()), ALONE) == {1: Outcome.WITHHELD}


def test_a_worker_whose_vote_was_seen_before_the_end_is_still_held_to_the_end() -> None:
    seen = moved(task(trust=1, replicates=[ALONE]), view(*VOTED_ALONE))
    assert not seen.replicates[0].holds
    assert outcomes(1, view(*VOTED_ALONE, claimed()), *seen.replicates) == {1: Outcome.WITHHELD}


def test_winners_that_were_asked_for_a_result_and_brought_none_are_held_to_it() -> None:
    asked, not_asked, silent = asked_for_it(1), replicate(2), asked_for_it(3)
    chain = ended(revealed(1), revealed(2), claimed())
    assert outcomes(5, chain, asked, not_asked, silent) == {1: Outcome.WITHHELD, 3: Outcome.WITHHELD}


def test_nobody_is_held_to_a_result_that_is_stored() -> None:
    chain = ended(revealed(1), revealed(2), claimed())
    assert outcomes(5, chain, asked_for_it(1), replace(uploaded(2), upload_asked_at=MOMENT)) == {}


def test_nobody_is_held_to_a_result_that_the_pool_itself_could_not_store() -> None:
    chain = ended(revealed(1), revealed(2), claimed())
    hindered = replace(asked_for_it(1), not_stored_at=MOMENT)
    assert outcomes(5, chain, hindered, asked_for_it(2), replicate(3)) == {}
    # Alone, a vote is never sent without a stored result, whatever hindered it.
    alone = replace(ALONE, not_stored_at=MOMENT)
    assert outcomes(1, view(*VOTED_ALONE, claimed()), alone) == {1: Outcome.WITHHELD}


def test_failures_are_forgiven_when_a_task_is_completed_with_the_vote_and_no_sooner() -> None:
    three = replicate(1), replicate(2, pledged=True), asked_to_reveal(3)
    assert outcomes(5, ended(revealed(1)), *three) == {2: Outcome.NEUTRAL}
    assert outcomes(5, ended(revealed(1), revealed(2), finalized()), *three) == {
        1: Outcome.VOTED,
        2: Outcome.VOTED,
        3: Outcome.WITHHELD,
    }


#: Three winners that do not reveal; the task is reopened, and others agree on another result.
REOPENED = (*CONSENSUS, reopened())
BY_OTHERS = (
    *REOPENED,
    *(voted(number, LIE) for number in (4, 5, 6)),
    agreed(LIE),
    revealed(4),
    revealed(5),
    revealed(6),
)
SILENT_ENDS = {
    "claimed": (*CONSENSUS, claimed()),
    "reopened, claimed": (*REOPENED, claimed()),
    "reopened, completed by others": (*BY_OTHERS, finalized()),
}


@pytest.mark.parametrize("happened", SILENT_ENDS.values(), ids=SILENT_ENDS)
def test_winners_that_never_reveal_are_held_to_it_however_the_task_ends_if_they_were_asked_to(
    happened: tuple[events.Event, ...],
) -> None:
    silent = [asked_to_reveal(number) for number in (1, 2, 3)]
    others = [replicate(number, reveal_asked_at=MOMENT) for number in (4, 5, 6)]
    held_to = {number: each for number, each in outcomes(5, view(*happened), *silent, *others).items() if number < 4}
    assert held_to == dict.fromkeys((1, 2, 3), Outcome.WITHHELD)
    not_asked = [replace(item, reveal_asked_at=None, pledged=True) for item in silent]
    held_to = {number: each for number, each in outcomes(5, view(*happened), *not_asked, *others).items() if number < 4}
    assert held_to == dict.fromkeys((1, 2, 3), Outcome.NEUTRAL), "the pool is to blame, and nobody was wrong"


def test_winners_that_did_not_reveal_are_held_to_it_once_and_as_soon_as_the_task_is_reopened() -> None:
    record, chain = task(replicates=[asked_to_reveal(1), replicate(2), asked_to_reveal(3)]), view(*REOPENED)
    counted = [act for act in decided(record, chain) if isinstance(act, Count)]
    assert counted == [Count(wallet(number), Outcome.WITHHELD) for number in (1, 3)]
    after = moved(record, chain)
    assert not any(isinstance(act, Count) for act in decided(after, chain))
    for end in SILENT_ENDS.values():
        assert {1, 2, 3}.isdisjoint(outcomes(5, view(*end), *after.replicates)), "once"


@pytest.mark.parametrize("chain", [view(*REOPENED), view(*REOPENED, claimed()), view(*CONSENSUS, claimed())])
def test_winners_that_did_not_reveal_are_excused_if_the_pool_was_in_trouble_since_they_were_asked(
    chain: ChainView,
) -> None:
    # Asked for its result later than to reveal.
    record, now = task(replicates=[replace(asked_to_reveal(1), upload_asked_at=MOMENT + 9)]), MOMENT + 60

    def kept(trouble: Trouble) -> list[Action]:
        due = [act for act in decided(record, chain, now) if is_held_against(act)]
        assert [act.outcome for act in due if isinstance(act, Count | Free)] == [Outcome.WITHHELD]
        return [act for act in excused(record, chain, due, trouble, now, PACE) if is_held_against(act)]

    assert kept(Trouble(MOMENT - 1, now))
    assert not kept(Trouble(MOMENT + 5, now))
    assert not kept(Trouble(0.0, now - PACE.upload_timeout - 1))
    assert kept(Trouble(0.0, now, blocks_again_at=MOMENT - 1))
    assert not kept(Trouble(0.0, now, blocks_again_at=MOMENT + 5)), "the first block again was too late to reveal"


def test_an_end_tells_of_a_worker_once() -> None:
    chain = view(*VOTED_ALONE, claimed())
    over = moved(task(trust=1, replicates=[ALONE]), chain)
    assert decided(over, chain) == []


ENDS = [finalized(), claimed()]


@pytest.mark.parametrize("end", ENDS)
def test_an_end_that_a_reorg_takes_back_and_returns_counts_once(end: events.Event) -> None:
    before, over = view(*VOTED_ALONE), view(*VOTED_ALONE, end)
    record = moved(task(trust=1, replicates=[ALONE]), over)
    (counted,) = record.replicates[0].counted
    # What `forget_sent` leaves after a reorg of any block that the task has to do with.
    assert counts(replace(record, open=True), over) == []
    back = moved(replace(record, open=True), before)
    assert back.open
    assert counts(back, before) == []
    assert counts(back, over) == []
    assert moved(back, over).replicates[0].counted == (counted,)


@given(trust=st.sampled_from([1, 5]), ends=st.lists(st.sampled_from([*ENDS, None]), max_size=8))
@settings(max_examples=40)
def test_whatever_ends_reorgs_bring_each_counts_for_a_worker_once_at_most(
    trust: int, ends: list[events.Event | None]
) -> None:
    happened = VOTED_ALONE if trust == 1 else (*CONSENSUS, revealed(1), revealed(2))
    record = task(trust=trust, replicates=[ALONE] if trust == 1 else [asked_for_it(n) for n in (1, 2, 3)])
    all_counts: list[tuple[str, Outcome]] = []
    for end in ends:
        chain = view(*happened, *([end] if end is not None else []))
        all_counts += counts(record, chain)
        record = replace(moved(record, chain), open=True)
    assert len(all_counts) == len(set(all_counts))
    for item in record.replicates:
        assert {(item.wallet, outcome) for outcome in item.counted} <= set(all_counts)


def counts(record: TaskRecord, chain: ChainView) -> list[tuple[str, Outcome]]:
    """What is counted for workers when the record is decided upon."""
    actions = decided(record, chain)
    return [(act.wallet, act.outcome) for act in actions if isinstance(act, Free) and act.outcome.apart_from_slot]
