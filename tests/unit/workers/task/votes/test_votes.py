"""What a worker puts on chain, by the vectors of iexec-worker 9.2"""

from __future__ import annotations

import pytest

from protocol.errors import BadMessage
from protocol.types import Hash32, TaskId
from protocol.wire import Mode, ResultLink
from tests.unit.workers.assignments import WORKER_KEY, assignment
from workers.task import votes
from workers.task.replicate import Replicate, ReplicateStage

TASK = TaskId("0x1b293e4eb86240288f63652bfb856771bbb605d76217a27917774cd87ccee4b4")
DIGEST = Hash32("0x3e414b345ce4e8d016eff459b112b41de5bc488237863d83187f93ba096a9666")
LINK = ResultLink(storage="ipfs", location="/ipfs/QmX")


def replicate(**fields: object) -> Replicate:
    return Replicate(TASK, assignment(1, task_id=TASK, **fields), ReplicateStage.COMPUTED, DIGEST, link=LINK)


def test_a_contribution_hides_the_digest_and_is_sealed_to_the_wallet() -> None:
    intent = votes.contribute(replicate(), 15, 1.0)
    assert intent.args["result_hash"] == "0xf530f3659937f3a4ff113278e5ca2448c53493202e785491fe03b73f539ae31f"
    assert intent.args["result_seal"] == "0xb5483a0677d1ec372123294b67901ff07beaa7459baa2534652d620994c03924"
    assert DIGEST not in intent.args.values()
    assert (intent.method, intent.subject, intent.lane.wallet) == ("contribute", TASK, WORKER_KEY.wallet)


def test_a_reveal_is_the_digest() -> None:
    assert votes.reveal(replicate(), 15, 1.0).args == {"digest": DIGEST}


def test_the_short_road_carries_digest_and_link() -> None:
    args = votes.contribute_and_finalize(replicate(mode=Mode.SOLO), 15, 1.0).args
    assert args["digest"] == DIGEST
    assert bytes.fromhex(str(args["results"])[2:]) == b'{"storage":"ipfs","location":"/ipfs/QmX"}'
    assert "callback" not in args


def test_callback_data_travels_only_with_a_deal_that_has_a_callback() -> None:
    with_data = Replicate(
        TASK,
        assignment(1, task_id=TASK, callback="0x" + "cc" * 20),
        ReplicateStage.COMPUTED,
        DIGEST,
        callback_data="0x1",
        link=LINK,
    )
    assert votes.contribute_and_finalize(with_data, 15, 1.0).args["callback"] == "0x01"


def test_the_same_task_always_makes_the_same_intent_key() -> None:
    assert votes.contribute(replicate(), 15, 1.0).key == votes.contribute(replicate(), 15, 2.0).key


def test_nothing_is_voted_for_without_a_result() -> None:
    empty = Replicate(TASK, assignment(1, task_id=TASK), ReplicateStage.RUNNING)
    with pytest.raises(BadMessage):
        votes.contribute(empty, 15, 1.0)
    with pytest.raises(BadMessage):
        votes.contribute_and_finalize(empty, 15, 1.0)
