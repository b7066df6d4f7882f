"""A task's state on chain, folded from its events in any order."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.poco.events import (
    AccurateContribution,
    FaultyContribution,
    Seen,
    TaskClaimed,
    TaskConsensus,
    TaskContribute,
    TaskEvent,
    TaskFinalize,
    TaskInitialize,
    TaskReopen,
    TaskReveal,
)
from protocol.poco.seal import result_hash
from protocol.poco.view import ChainView, ContributionStatus, TaskStatus, fold
from protocol.types import BlockHash, BlockNumber, Contract, Hash32, Timestamp, TxHash, Wallet
from tests.unit.protocol import vectors

TASK = vectors.TASK
POOL = Contract("0x" + "a2" * 20)
ADA, BOB, EVE = (Wallet("0x" + two * 20) for two in ("ad", "b0", "ee"))
DIGEST = vectors.DIGEST
RIGHT = result_hash(TASK, DIGEST)
WRONG = result_hash(TASK, Hash32("0x" + "00" * 32))

INITIALIZE = TaskInitialize(TASK, POOL)
CONSENSUS = TaskConsensus(TASK, RIGHT)
FINALIZE = TaskFinalize(TASK, "0x1234")


def contribute(worker: Wallet, vote: Hash32 = RIGHT) -> TaskContribute:
    return TaskContribute(TASK, worker, vote)


def reveal(worker: Wallet) -> TaskReveal:
    return TaskReveal(TASK, worker, DIGEST)


def life(*events: TaskEvent) -> list[Seen]:
    """The events, one a block, from block 100 on; the time of block n is 10 n."""
    return [
        Seen(
            event,
            BlockNumber(number),
            BlockHash("0x" + f"{number:064x}"),
            Timestamp(number * 10),
            TxHash("0x" + f"{number:064x}"),
            log_index=0,
        )
        for number, event in enumerate(events, start=100)
    ]


def view(*events: TaskEvent) -> ChainView:
    return fold(TASK, life(*events), category_seconds=300)


VOTE: tuple[TaskEvent, ...] = (
    INITIALIZE,
    contribute(ADA),
    contribute(EVE, WRONG),
    contribute(BOB),
    CONSENSUS,
    reveal(ADA),
    reveal(BOB),
    FINALIZE,
)
ALL_EVENTS = st.lists(
    st.one_of(
        st.sampled_from([INITIALIZE, CONSENSUS, FINALIZE, TaskReopen(TASK), TaskClaimed(TASK)]),
        st.builds(contribute, st.sampled_from([ADA, BOB, EVE]), st.sampled_from([RIGHT, WRONG])),
        st.builds(reveal, st.sampled_from([ADA, BOB, EVE])),
        st.just(AccurateContribution(ADA, TASK)),
        st.just(FaultyContribution(EVE, TASK)),
    ),
    max_size=12,
)


@pytest.mark.parametrize(
    ("length", "status"),
    [
        (0, TaskStatus.UNSET),
        (1, TaskStatus.ACTIVE),
        (4, TaskStatus.ACTIVE),
        (5, TaskStatus.REVEALING),
        (7, TaskStatus.REVEALING),
        (8, TaskStatus.COMPLETED),
    ],
)
def test_a_task_moves_from_unset_to_completed(length: int, status: TaskStatus) -> None:
    assert view(*VOTE[:length]).status is status


def test_the_winners_are_those_who_voted_for_the_consensus() -> None:
    seen = view(*VOTE)
    assert [vote.worker for vote in seen.winners] == [ADA, BOB]
    assert [vote.worker for vote in seen.revealed] == [ADA, BOB]
    loser = seen.contribution(EVE)
    assert loser is not None
    assert loser.status is ContributionStatus.CONTRIBUTED


def test_the_blocks_and_the_results_of_a_task_are_remembered() -> None:
    seen = view(*VOTE)
    assert (seen.initialized_block, seen.consensus_block, seen.finalized_block) == (100, 104, 107)
    assert seen.results == "0x1234"


def test_winners_reveal_within_two_category_times_of_the_consensus_block() -> None:
    assert view(*VOTE[:5]).reveal_deadline == 1040 + 600


def test_nobody_has_won_before_consensus() -> None:
    assert view(*VOTE[:4]).winners == ()


def test_a_reopened_task_takes_votes_again_and_rejects_those_who_did_not_reveal() -> None:
    seen = view(*VOTE[:5], TaskReopen(TASK))
    assert seen.status is TaskStatus.ACTIVE
    assert (seen.consensus, seen.consensus_block, seen.reveal_deadline) == (None, None, None)
    assert [vote.status for vote in seen.contributions] == [
        ContributionStatus.REJECTED,
        ContributionStatus.CONTRIBUTED,
        ContributionStatus.REJECTED,
    ]


def test_a_rejected_vote_does_not_win_the_second_time() -> None:
    seen = view(*VOTE[:5], TaskReopen(TASK), contribute(Wallet("0x" + "cc" * 20)), CONSENSUS)
    assert [vote.worker for vote in seen.winners] == ["0x" + "cc" * 20]


def test_a_claimed_task_has_failed() -> None:
    assert view(INITIALIZE, contribute(ADA), TaskClaimed(TASK)).status is TaskStatus.FAILED


def test_the_short_road_of_one_transaction_ends_completed() -> None:
    road: list[TaskEvent] = [
        INITIALIZE,
        AccurateContribution(ADA, TASK),
        contribute(ADA),
        CONSENSUS,
        reveal(ADA),
        FINALIZE,
    ]
    block = life(*road)[0]
    logs = [
        Seen(event, block.block_number, block.block_hash, block.timestamp, block.tx_hash, log_index=index)
        for index, event in enumerate(road)
    ]
    seen = fold(TASK, logs, category_seconds=300)
    assert seen.status is TaskStatus.COMPLETED
    assert [vote.worker for vote in seen.revealed] == [ADA]


@given(ALL_EVENTS, st.randoms(use_true_random=False), st.integers(1, 300))
def test_the_order_and_the_repetition_of_events_do_not_matter(
    events: list[TaskEvent], chance: random.Random, seconds: int
) -> None:
    logs = life(*events)
    delivered = logs + chance.choices(logs, k=len(logs)) if logs else []
    chance.shuffle(delivered)
    assert fold(TASK, delivered, category_seconds=seconds) == fold(TASK, logs, category_seconds=seconds)


@given(ALL_EVENTS, ALL_EVENTS)
def test_leaving_orphaned_events_out_undoes_them(kept: list[TaskEvent], orphaned: list[TaskEvent]) -> None:
    before = view(*kept)
    logs = life(*kept, *orphaned)
    assert fold(TASK, logs[: len(kept)], category_seconds=300) == before


@given(ALL_EVENTS)
def test_what_has_won_is_a_vote_for_the_consensus_and_not_rejected(events: list[TaskEvent]) -> None:
    seen = view(*events)
    assert all(vote.result_hash == seen.consensus for vote in seen.winners)
    assert all(vote.status is not ContributionStatus.REJECTED for vote in seen.winners)
    assert set(seen.winners) <= set(seen.contributions)
