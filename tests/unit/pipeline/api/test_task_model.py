"""A task and its replicates in the form of iExec Core's API."""

from __future__ import annotations

from dataclasses import replace

from pipeline.api.task_model import task_model
from pipeline.domain.records import ReplicateState, TaskStage
from protocol.poco import events
from protocol.poco.view import fold
from protocol.types import BlockHash, BlockNumber, Timestamp, TxHash
from protocol.wire import Mode, Step
from tests.unit.pipeline.api.results.test_who_may_upload import DIGEST, LINK, OTHER, TASK, WALLET, replicate, task


def seen(event: events.Event, block: int) -> events.Seen:
    return events.Seen(
        event, BlockNumber(block), BlockHash("0x" + "00" * 32), Timestamp(block * 10), TxHash(f"0x{block:064x}"), 0
    )


def lived() -> list[events.Seen]:
    return [
        seen(events.TaskInitialize(TASK, OTHER), 2),  # type: ignore[arg-type]  # any address will do
        seen(events.TaskContribute(TASK, WALLET, DIGEST), 3),
        seen(events.TaskConsensus(TASK, DIGEST), 4),
        seen(events.TaskReveal(TASK, WALLET, DIGEST), 5),
        seen(events.TaskFinalize(TASK, "0x"), 6),
    ]


def test_a_tasks_history_comes_from_the_chain_with_block_and_transaction() -> None:
    done = replace(task(), stage=TaskStage.COMPLETED, results='{"storage": "ipfs"}')
    model = task_model(done, None, fold(TASK, lived(), category_seconds=60), lived())
    assert [change.status for change in model.dateStatusList] == [
        "RECEIVED",
        "INITIALIZED",
        "CONSENSUS_REACHED",
        "AT_LEAST_ONE_REVEALED",
        "COMPLETED",
    ]
    last = model.dateStatusList[-1].chainReceipt
    assert last is not None
    assert (last.blockNumber, last.txHash) == (6, f"0x{6:064x}")
    assert (model.currentStatus, model.resultLink) == ("COMPLETED", '{"storage": "ipfs"}')


def test_a_replicate_shows_its_workers_steps_and_its_votes() -> None:
    mine = replace(replicate(link=LINK), steps={Step.STARTED: 20.0, Step.COMPUTED: 25.0, Step.UPLOADED: 51.0})
    model = task_model(
        replace(task(), replicates=(mine,)), None, fold(TASK, lived(), category_seconds=60), lived()
    ).replicates[0]
    assert [update.status for update in model.statusUpdateList] == [
        "CREATED",
        "STARTED",
        "COMPUTED",
        "CONTRIBUTED",
        "REVEALED",
        "RESULT_UPLOADED",
    ]
    assert (model.currentStatus, model.contributionHash) == ("RESULT_UPLOADED", DIGEST)


def test_a_replicate_that_failed_shows_its_cause() -> None:
    failed = replace(replicate(Mode.SOLO), state=ReplicateState.FAILED, cause="OUT_OF_GAS", steps={Step.FAILED: 3.0})
    model = task_model(replace(task(), replicates=(failed,)), None, fold(TASK, [], category_seconds=60), [])
    assert model.replicates[0].currentStatus == "FAILED"
    assert model.replicates[0].statusUpdateList[-1].cause == "OUT_OF_GAS"


def test_a_lost_worker_shows_as_lost() -> None:
    lost = replace(replicate(), state=ReplicateState.LOST)
    model = task_model(replace(task(), replicates=(lost,)), None, fold(TASK, [], category_seconds=60), [])
    assert model.replicates[0].currentStatus == "WORKER_LOST"
