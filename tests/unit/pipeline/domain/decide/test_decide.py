"""What is decided about a task from consensus to its end: a table of situations by sentence."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from pipeline.domain.actions import (
    AskReveal,
    AskUpload,
    Drop,
    End,
    Free,
    Method,
    Pledge,
    Resume,
    Stop,
    Submit,
    Want,
)
from pipeline.domain.decide import (
    ORPHAN_TIMEOUT,
    ORPHANED_FOR_GOOD,
    can_change_decision,
    frees_slot,
    nothing_else_to_decide,
)
from pipeline.domain.records import Replicate, ReplicateState, Standing, Submission, TaskStage
from pipeline.domain.tries import MAX_FAILED_INTENTS
from protocol.ethereum.hexbytes import to_bytes
from protocol.poco.view import ChainView
from protocol.types import Contract
from protocol.wire import Mode, Step
from tests.unit.pipeline.builders import (
    CONSENSUS,
    CONTRIBUTE_UNTIL,
    FINAL,
    LIE,
    LINK,
    START,
    VOTERS,
    agreed,
    claimed,
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
)

ASKED = tuple(replicate(n, reveal_asked_at=START + 2, upload_asked_at=START + 2 if n == 1 else None) for n in (1, 2, 3))
REVEAL_UNTIL = START + 2 + 20


# -- consensus ---------------------------------------------------------------------------------------------------------


def test_at_consensus_every_winner_reveals_and_one_of_them_uploads() -> None:
    actions = decided(task(replicates=VOTERS), view(*CONSENSUS))
    assert actions == [AskReveal(wallet(1), True), AskReveal(wallet(2), False), AskReveal(wallet(3), False)]


def test_the_heaviest_winner_uploads() -> None:
    voters = (replicate(1), replicate(2, weight=5), replicate(3))
    assert AskReveal(wallet(2), True) in decided(task(replicates=voters), view(*CONSENSUS))


def test_a_loser_is_not_asked_for_anything() -> None:
    chain = view(initialized(), voted(1, LIE), voted(2), voted(3), voted(4), agreed())
    actions = decided(task(replicates=(*VOTERS, replicate(4))), chain)
    assert not [item for item in actions if getattr(item, "wallet", None) == wallet(1)]


def test_a_worker_that_still_computes_at_consensus_is_stopped_and_its_slot_freed() -> None:
    computing = replicate(4, ReplicateState.STARTED)
    actions = decided(task(replicates=(*ASKED, computing)), view(*CONSENSUS))
    assert Stop(wallet(4)) in actions
    assert Free(wallet(4)) in actions
    assert Drop(wallet(4), ReplicateState.ABORTED, "Consensus was reached without it.") in actions


def test_a_reveal_that_does_not_come_is_asked_for_again_at_a_measured_pace() -> None:
    record = task(replicates=ASKED)
    assert decided(record, view(*CONSENSUS), START + 6) == []
    again = decided(record, view(*CONSENSUS, revealed(2), revealed(3)), START + 8)
    assert again == [AskReveal(wallet(1), False)]


def test_another_winner_is_asked_for_the_result_if_the_first_does_not_deliver() -> None:
    chain = view(*CONSENSUS, revealed(1), revealed(2), revealed(3))
    assert decided(task(replicates=ASKED), chain, START + 10) == []
    assert decided(task(replicates=ASKED), chain, START + 18) == [AskUpload(wallet(2))]


def test_a_winner_that_said_it_failed_is_not_asked_to_upload() -> None:
    voters = (replicate(1, ReplicateState.FAILED), replicate(2), replicate(3))
    assert AskReveal(wallet(2), True) in decided(task(replicates=voters), view(*CONSENSUS))


def test_finalize_follows_the_last_reveal_when_the_result_is_stored() -> None:
    record = task(replicates=(uploaded(1), *ASKED[1:]))
    assert submits(decided(record, view(*CONSENSUS, revealed(1), revealed(2)))) == []
    (submit,) = [
        item
        for item in decided(record, view(*CONSENSUS, revealed(1), revealed(2), revealed(3)))
        if isinstance(item, Submit)
    ]
    assert submit.method is Method.FINALIZE
    assert json.loads(to_bytes(str(submit.args["results"]))) == {"storage": "ipfs", "location": LINK.location}
    assert submit.args["callback"] == "0x"


def test_without_a_stored_result_nothing_is_finalized() -> None:
    chain = view(*CONSENSUS, revealed(1), revealed(2), revealed(3))
    assert submits(decided(task(replicates=ASKED), chain)) == []


def test_a_stored_result_that_is_not_what_was_agreed_on_is_not_used() -> None:
    chain = view(*CONSENSUS, revealed(1), revealed(2), revealed(3))
    assert submits(decided(task(replicates=(uploaded(1, LIE), *ASKED[1:])), chain)) == []


def test_a_deal_with_callback_is_finalized_with_the_callback_data() -> None:
    chain = view(*CONSENSUS, revealed(1), revealed(2), revealed(3))
    callback = Contract("0x" + "ca" * 20)
    without = task(replicates=(uploaded(1), *ASKED[1:]), callback=callback)
    assert submits(decided(without, chain)) == []
    record = task(replicates=(uploaded(1, callback_data="0x2a"), *ASKED[1:]), callback=callback)
    (submit,) = [item for item in decided(record, chain) if isinstance(item, Submit)]
    assert submit.args["callback"] == "0x2a"


def test_a_winner_that_does_not_reveal_is_left_behind_at_the_reveal_deadline() -> None:
    record = task(replicates=(uploaded(1), *ASKED[1:]))
    chain = view(*CONSENSUS, revealed(1))
    assert submits(decided(record, chain, REVEAL_UNTIL - 1)) == []
    assert submits(decided(record, chain, REVEAL_UNTIL)) == [(Method.FINALIZE, 0)]


def test_if_nobody_reveals_in_time_the_task_is_reopened() -> None:
    chain = view(*CONSENSUS)
    assert submits(decided(task(replicates=ASKED), chain, REVEAL_UNTIL)) == [(Method.REOPEN, 0)]


def test_reopening_is_pointless_once_no_vote_can_come() -> None:
    late = view(*CONSENSUS, at=CONTRIBUTE_UNTIL - 5)
    assert submits(decided(task(replicates=ASKED), late, CONTRIBUTE_UNTIL + 16)) == []


def test_a_reopened_task_is_staffed_anew_with_others() -> None:
    assert Want(3) in decided(task(replicates=ASKED), view(*CONSENSUS, reopened()))


def test_a_second_round_gets_transactions_of_its_own() -> None:
    again = view(*CONSENSUS, reopened(), voted(4), voted(5), voted(6), agreed(), revealed(4), revealed(5), revealed(6))
    voters = (*ASKED, uploaded(4), replicate(5), replicate(6))
    record = task(replicates=voters, sent={"finalize": Submission(0, START + 2), "reopen": Submission(0, START + 2)})
    assert submits(decided(record, again)) == [(Method.FINALIZE, 3)]


def test_finalizes_that_ended_with_rounds_in_which_nobody_revealed_take_no_try_from_the_next() -> None:
    again = view(*CONSENSUS, reopened(), voted(4), voted(5), voted(6), agreed(), revealed(4), revealed(5), revealed(6))
    voters = (*ASKED, uploaded(4), replicate(5), replicate(6))
    for failed, wanted in ((MAX_FAILED_INTENTS, 1), (MAX_FAILED_INTENTS + 3, 0)):
        record = task(replicates=voters, failed={"finalize": failed}, sent={"reopen": Submission(0, START + 2)})
        assert len(submits(decided(record, again))) == wanted, failed


# -- the end -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chain", [view(initialized()), view(*CONSENSUS), view(*CONSENSUS, revealed(1))])
def test_a_task_past_its_final_deadline_is_claimed(chain: ChainView) -> None:
    assert (Method.CLAIM, 0) in submits(decided(task(replicates=ASKED), chain, FINAL))


def test_a_completed_task_ends_and_frees_everything() -> None:
    computing = replicate(4, ReplicateState.STARTED)
    actions = decided(task(replicates=(*ASKED, computing)), view(*CONSENSUS, revealed(1), finalized()))
    assert End(TaskStage.COMPLETED, None) in actions
    assert Free(wallet(4)) in actions
    assert Stop(wallet(4)) in actions


def test_a_claimed_task_ends_failed_and_says_why() -> None:
    failed = [replicate(1, ReplicateState.FAILED, cause="APP_COMPUTE_FAILED")]
    actions = decided(task(replicates=failed), view(initialized(), claimed()))
    assert actions == [End(TaskStage.FAILED, "Nobody contributed before the deadline: 1 x APP_COMPUTE_FAILED.")]


def test_an_ended_task_is_left_alone() -> None:
    chain = view(*CONSENSUS, revealed(1), finalized())
    assert decided(moved(task(replicates=ASKED), chain), chain) == []


def test_a_reorg_that_takes_finalize_back_opens_the_task_again() -> None:
    done = moved(task(replicates=(uploaded(1), *ASKED[1:])), view(*CONSENSUS, revealed(1), finalized()))
    assert not done.open
    back = view(*CONSENSUS, revealed(1), revealed(2), revealed(3))
    actions = decided(done, back)
    assert Resume() in actions
    assert (Method.FINALIZE, 0) in submits(actions)
    assert moved(done, back).open


def test_a_task_opened_for_a_reorg_shows_nothing_of_the_end_that_was_taken_back() -> None:
    done = moved(task(replicates=ASKED), view(*CONSENSUS, claimed()))
    opened = replace(done, open=True, sent={})
    back = moved(opened, view(*CONSENSUS))
    assert (back.open, back.stage, back.why) == (True, TaskStage.CONSENSUS_REACHED, None)
    ended = moved(opened, view(*CONSENSUS, claimed()))
    assert (ended.open, ended.stage, ended.why) == (False, TaskStage.FAILED, done.why)


def test_a_reorg_that_takes_initialize_back_initializes_again_once_the_record_forgot_it() -> None:
    known = moved(task(), view(initialized()))
    assert (Method.INITIALIZE, 0) in submits(decided(known, view()))


def test_a_task_whose_deal_left_the_chain_waits_and_is_then_written_off() -> None:
    gone = task(orphaned=True, wants=2, replicates=[replicate(1, ReplicateState.STARTED)])
    assert decided(gone, view()) == [Want(0)]
    later: list[Replicate] = list(gone.replicates)
    actions = decided(task(orphaned=True, replicates=later), view(), START + 601)
    assert Free(wallet(1)) in actions
    assert any(isinstance(item, End) and item.stage is TaskStage.FAILED for item in actions)


def test_a_task_waits_for_its_deal_from_when_that_left_the_chain_on_however_old_it_is() -> None:
    left = START + 5_000.0
    gone = task(orphaned=True, changed_at=left)
    assert decided(gone, view(), left + ORPHAN_TIMEOUT - 1) == []
    assert decided(gone, view(), left + ORPHAN_TIMEOUT) == [End(TaskStage.FAILED, ORPHANED_FOR_GOOD)]


@pytest.mark.parametrize("step", list(Step))
@pytest.mark.parametrize("mode", list(Mode))
def test_only_reports_that_can_change_a_decision_wake_the_pipeline(step: Step, mode: Mode) -> None:
    needed = {Step.COMPUTED, Step.FAILED} | ({Step.UPLOADED} if mode is Mode.VOTE else set())
    assert can_change_decision(step, mode) is (step in needed)
    early = {Step.REVEALED} if mode is Mode.VOTE else set()
    assert can_change_decision(step, mode, early_steps=True) is (step in needed | early)


@pytest.mark.parametrize(
    ("alone", "frees"),
    [
        (replicate(1, ReplicateState.STARTED, mode=Mode.SOLO, holds_slot=True), True),
        (replicate(1, ReplicateState.STARTED, mode=Mode.VOTE, holds_slot=True), False),
        (replicate(1, ReplicateState.STARTED, mode=Mode.SOLO, holds_slot=True, standing=Standing.NEWCOMER), False),
        (replicate(1, ReplicateState.LOST, mode=Mode.SOLO, holds_slot=True), False),
        (replicate(1, ReplicateState.STARTED, mode=Mode.SOLO, holds_slot=False), False),
    ],
    ids=["alone", "one of several", "never right yet", "given up", "without a slot"],
)
def test_a_report_frees_a_slot_where_the_decision_would_and_nothing_is_left_to_decide(
    alone: Replicate, frees: bool
) -> None:
    assert frees_slot(alone, Step.COMPUTED, None) is frees
    assert not frees_slot(alone, Step.COMPUTED, "APP_FAILED")
    assert not frees_slot(alone, Step.FAILED, None)
    if frees:
        record = task(trust=1, replicates=[alone])
        assert nothing_else_to_decide(record)
        done = replace(alone, state=ReplicateState.COMPUTED, steps={**alone.steps, Step.COMPUTED: START + 1})
        computed = replace(record, replicates=(done,))
        assert decided(computed, view(initialized())) == [Pledge(alone.wallet)]
        after = replace(computed, replicates=(replace(done, holds_slot=False, pledged=True),))
        assert decided(after, view(initialized())) == []


# -- winners that the record does not know -----------------------------------------------------------------------------


def test_every_winner_on_chain_is_asked_to_reveal_known_to_the_record_or_not() -> None:
    chain = view(initialized(), voted(1), voted(2), voted(3), agreed())
    known = task(replicates=[replicate(1)])
    actions = decided(known, chain)
    assert {action.wallet for action in actions if isinstance(action, AskReveal)} == {wallet(1), wallet(2), wallet(3)}
    later = moved(known, chain)
    assert [item.wallet for item in later.replicates] == [wallet(1), wallet(2), wallet(3)]
    assert not any(item.holds for item in later.replicates[1:])
    assert decided(later, chain) == []


def test_a_worker_that_voted_unknown_to_the_record_is_never_asked_for_that_task_again() -> None:
    chain = view(initialized(), voted(7, LIE))
    later = moved(task(), chain)
    assert later.replicate(wallet(7)) is not None
