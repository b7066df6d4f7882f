"""What a vote is worth to the worker that gave it: nothing before its task is completed."""

from __future__ import annotations

from dataclasses import replace

from pipeline.domain.actions import Free, Outcome
from pipeline.domain.records import Replicate
from protocol.poco import events
from protocol.poco.view import ChainView
from protocol.wire import Mode
from tests.unit.pipeline.builders import (
    CONSENSUS,
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
    assert outcomes(5, chain, asked, not_asked, silent) == {1: Outcome.WITHHELD}


def test_nobody_is_held_to_a_result_that_is_stored() -> None:
    chain = ended(revealed(1), revealed(2), claimed())
    assert outcomes(5, chain, asked_for_it(1), replace(uploaded(2), upload_asked_at=MOMENT)) == {}


def test_failures_are_forgiven_when_a_task_is_completed_with_the_vote_and_no_sooner() -> None:
    three = replicate(1), replicate(2, pledged=True), replicate(3)
    assert outcomes(5, ended(revealed(1)), *three) == {2: Outcome.NEUTRAL}
    assert outcomes(5, ended(revealed(1), revealed(2), finalized()), *three) == {1: Outcome.VOTED, 2: Outcome.VOTED}


def test_an_end_tells_of_a_worker_once() -> None:
    chain = view(*VOTED_ALONE, claimed())
    over = moved(task(trust=1, replicates=[ALONE]), chain)
    assert decided(over, chain) == []
