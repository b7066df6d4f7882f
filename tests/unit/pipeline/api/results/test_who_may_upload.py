"""Which uploads are refused before their body is read, by the task, the vote and the size."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.api.results.upload import check_digest, check_may_upload, declared_bytes
from pipeline.domain.records import Replicate, ReplicateState, TaskRecord
from protocol.errors import NotYet, Refused
from protocol.poco.seal import result_hash
from protocol.poco.view import ChainView, Contribution, ContributionStatus, TaskStatus
from protocol.types import (
    ZERO_ADDRESS,
    ZERO_HASH,
    BlockNumber,
    DealId,
    Hash32,
    NRlc,
    TaskId,
    Timestamp,
    Wallet,
)
from protocol.wire import Mode, ResultLink, Step

TASK = TaskId("0x" + "11" * 32)
WALLET, OTHER = Wallet("0x" + "aa" * 20), Wallet("0x" + "bb" * 20)
DIGEST, LIE = Hash32("0x" + "d1" * 32), Hash32("0x" + "d2" * 32)
LINK = ResultLink(storage="ipfs", location="/ipfs/Qm")


def task(*, is_open: bool = True) -> TaskRecord:
    return TaskRecord(
        task_id=TASK,
        deal_id=DealId("0x" + "22" * 32),
        index=0,
        requester=OTHER,
        trust=5,
        tag=ZERO_HASH,
        category_seconds=60,
        contribution_deadline=Timestamp(1000),
        final_deadline=Timestamp(2000),
        worker_stake=NRlc(0),
        callback=ZERO_ADDRESS,
        matched_block=BlockNumber(1),
        matched_at=Timestamp(1),
        open=is_open,
    )


def replicate(mode: Mode = Mode.VOTE, *, link: ResultLink | None = None, digest: Hash32 | None = None) -> Replicate:
    return Replicate(WALLET, mode, weight=2, assigned_at=1.0, link=link, digest=digest)


def view(
    digest: Hash32 | None = DIGEST,
    *,
    consensus: Hash32 | None = None,
    status: ContributionStatus = ContributionStatus.CONTRIBUTED,
) -> ChainView:
    votes = () if digest is None else (Contribution(WALLET, result_hash(TASK, digest), status, BlockNumber(2)),)
    agreed = None if consensus is None else result_hash(TASK, consensus)
    return ChainView(TASK, TaskStatus.ACTIVE, votes, consensus=agreed)


def test_a_winner_may_upload_what_it_voted_for() -> None:
    check_may_upload(task(), replicate(), view(consensus=DIGEST))
    check_digest(replicate(), view(consensus=DIGEST), TASK, DIGEST)


def test_a_voter_may_upload_before_the_vote_is_over() -> None:
    check_may_upload(task(), replicate(), view())


def test_a_worker_whose_vote_is_not_on_chain_yet_is_asked_to_come_back() -> None:
    with pytest.raises(NotYet):
        check_may_upload(task(), replicate(), view(None))


def test_a_loser_may_not_upload() -> None:
    with pytest.raises(Refused, match="went against"):
        check_may_upload(task(), replicate(), view(LIE, consensus=DIGEST))


def test_a_rejected_voter_may_not_upload() -> None:
    with pytest.raises(Refused, match="went against"):
        check_may_upload(task(), replicate(), view(status=ContributionStatus.REJECTED))


def test_a_result_that_was_not_voted_for_is_refused() -> None:
    with pytest.raises(Refused, match="voted for"):
        check_digest(replicate(), view(), TASK, LIE)


def test_a_lone_worker_may_upload_without_a_vote_while_the_task_is_open() -> None:
    check_may_upload(task(), replicate(Mode.SOLO), view(None))
    check_digest(replicate(Mode.SOLO), view(None), TASK, DIGEST)
    with pytest.raises(Refused, match="over"):
        check_may_upload(task(is_open=False), replicate(Mode.SOLO), view(None))


@pytest.mark.parametrize("state", [ReplicateState.LOST, ReplicateState.FAILED, ReplicateState.ABORTED])
def test_a_lone_worker_whose_attempt_is_over_may_not_upload(state: ReplicateState) -> None:
    given_up = replace(replicate(Mode.SOLO), state=state)
    with pytest.raises(Refused, match=f"is over: {state}"):
        check_may_upload(task(), given_up, view(None))
    check_may_upload(task(), replace(given_up, link=LINK, digest=DIGEST), view(None))


def test_a_lone_worker_that_was_not_heard_of_for_a_time_may_bring_what_it_had_computed() -> None:
    lost = replace(replicate(Mode.SOLO), state=ReplicateState.LOST, steps={Step.COMPUTED: 1.0})
    check_may_upload(task(), lost, view(None))


def test_the_same_result_may_come_again_but_not_another_one() -> None:
    stored = replicate(Mode.SOLO, link=LINK, digest=DIGEST)
    check_may_upload(task(is_open=False), stored, view(None))
    check_digest(stored, view(None), TASK, DIGEST)
    with pytest.raises(Refused, match="another result"):
        check_digest(stored, view(None), TASK, LIE)


@pytest.mark.parametrize(
    ("headers", "size"),
    [
        ({"content-length": "7"}, 7),
        ({"content-length": "5000"}, 1000),
        ({}, 1000),
        # The chunks count, however little is declared beside them: room is kept for all that may come.
        ({"content-length": "7", "transfer-encoding": "chunked"}, 1000),
    ],
)
def test_a_body_takes_the_room_that_it_may_need(headers: dict[str, str], size: int) -> None:
    assert declared_bytes(headers, 1000) == size
