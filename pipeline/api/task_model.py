"""A task as iExec Core's REST API shows it, so that the iExec SDK and its users find what they know. Pure.

Names and statuses are iexec-core's (iexec-core.md §1.4); dates are ISO 8601. What the chain knows comes from its
events, with block and transaction; the rest comes from workers' reports.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict, Field

from pipeline.domain.records import DealRecord, Replicate, ReplicateState, TaskRecord
from protocol.errors import BadMessage
from protocol.poco import events
from protocol.poco.view import ChainView
from protocol.results.params import read_params
from protocol.types import Wallet
from protocol.wire import Step


class _Model(BaseModel):
    """Base of this module's models: frozen."""

    model_config = ConfigDict(frozen=True)


class ChainReceipt(_Model):
    """Where on the chain a status was reached."""

    blockNumber: int  # noqa: N815 - iexec-core's names, here and below
    txHash: str  # noqa: N815


class StatusChange(_Model):
    """A task status and when it was reached."""

    date: str
    status: str
    chainReceipt: ChainReceipt | None = None  # noqa: N815


class ReplicateStatusUpdate(_Model):
    """A replicate status and when it was reached."""

    status: str
    date: str
    cause: str | None = None


class ReplicateModel(_Model):
    """One worker's attempt; empty fields are left out of the JSON."""

    chainTaskId: str  # noqa: N815
    walletAddress: str  # noqa: N815
    currentStatus: str  # noqa: N815
    statusUpdateList: list[ReplicateStatusUpdate]  # noqa: N815
    resultLink: str | None = None  # noqa: N815
    chainCallbackData: str | None = None  # noqa: N815
    contributionHash: str | None = None  # noqa: N815
    appExitCode: int | None = None  # noqa: N815


class TaskModel(_Model):
    """A task and its replicates."""

    chainTaskId: str  # noqa: N815
    replicates: list[ReplicateModel]
    #: Milliseconds.
    maxExecutionTime: int  # noqa: N815
    tag: str
    dappType: str = "DOCKER"  # noqa: N815
    dappName: str | None = None  # noqa: N815
    commandLine: str | None = None  # noqa: N815
    initializationBlockNumber: int | None = None  # noqa: N815
    currentStatus: str  # noqa: N815
    trust: int
    uploadingWorkerWalletAddress: str | None = None  # noqa: N815
    consensus: str | None = None
    contributionDeadline: str  # noqa: N815
    revealDeadline: str | None = None  # noqa: N815
    finalDeadline: str  # noqa: N815
    resultLink: str | None = None  # noqa: N815
    chainCallbackData: str | None = None  # noqa: N815
    dateStatusList: list[StatusChange] = Field(default_factory=list)  # noqa: N815


#: iexec-core's replicate status after each reported step that the chain does not prove.
_STEP_STATUS = {
    Step.STARTED: "STARTED",
    Step.COMPUTED: "COMPUTED",
    Step.UPLOADED: "RESULT_UPLOADED",
    Step.FAILED: "FAILED",
}
#: iexec-core's word for an attempt that ended early.
_ENDED_STATUS = {
    ReplicateState.FAILED: "FAILED",
    ReplicateState.LOST: "WORKER_LOST",
    ReplicateState.ABORTED: "ABORTED",
}


def task_model(task: TaskRecord, deal: DealRecord | None, view: ChainView, seen: Sequence[events.Seen]) -> TaskModel:
    """The answer of `GET /tasks/{id}`, with the fields that iExec Core's has.

    `view`: the task as the chain has it; `seen`: the events that `view` was made from, in chain order.
    """
    uploader = next((item for item in task.replicates if item.link is not None), None)
    return TaskModel(
        chainTaskId=task.task_id,
        replicates=[replicate_model(task, item, view, seen) for item in task.replicates],
        maxExecutionTime=task.category_seconds * 1000,
        tag=task.tag,
        dappName=None if deal is None else deal.image,
        commandLine=None if deal is None else _command_line(deal.params),
        initializationBlockNumber=task.initialized_block,
        currentStatus=str(task.stage),
        trust=task.trust,
        uploadingWorkerWalletAddress=None if uploader is None else uploader.wallet,
        consensus=view.consensus,
        contributionDeadline=_date(task.contribution_deadline),
        revealDeadline=None if view.reveal_deadline is None else _date(view.reveal_deadline),
        finalDeadline=_date(task.final_deadline),
        resultLink=task.results,
        chainCallbackData=None if uploader is None else uploader.callback_data,
        dateStatusList=_history(task, seen),
    )


def replicate_model(
    task: TaskRecord, replicate: Replicate, view: ChainView, seen: Sequence[events.Seen]
) -> ReplicateModel:
    """One replicate of `task`, with the fields that iExec Core's has. `view`, `seen`: as for `task_model`."""
    updates = _updates(replicate, seen)
    vote = view.contribution(replicate.wallet)
    ended = _ENDED_STATUS.get(replicate.state)
    return ReplicateModel(
        chainTaskId=task.task_id,
        walletAddress=replicate.wallet,
        currentStatus=ended if ended is not None and vote is None else updates[-1].status,
        statusUpdateList=updates,
        resultLink=None if replicate.link is None else replicate.link.model_dump_json(),
        chainCallbackData=replicate.callback_data,
        contributionHash=None if vote is None else vote.result_hash,
        appExitCode=replicate.exit_code,
    )


def _history(task: TaskRecord, seen: Sequence[events.Seen]) -> list[StatusChange]:
    """The statuses a task went through: the match, its chain events, and who took it up when."""
    changes = [(float(task.matched_at), StatusChange(date=_date(task.matched_at), status="RECEIVED"))]
    if task.replicates:
        first = min(item.assigned_at for item in task.replicates)
        changes.append((first, StatusChange(date=_date(first), status="RUNNING")))
    uploads = [item.steps[Step.UPLOADED] for item in task.replicates if Step.UPLOADED in item.steps]
    if uploads:
        changes.append((min(uploads), StatusChange(date=_date(min(uploads)), status="RESULT_UPLOADED")))
    revealed = False
    for item in seen:
        status = _status_of(item.event, revealed=revealed)
        revealed = revealed or isinstance(item.event, events.TaskReveal)
        if status is not None:
            receipt = ChainReceipt(blockNumber=item.block_number, txHash=item.tx_hash)
            change = StatusChange(date=_date(item.timestamp), status=status, chainReceipt=receipt)
            changes.append((float(item.timestamp), change))
    return [change for _, change in sorted(changes, key=lambda pair: pair[0])]


def _status_of(event: events.Event, *, revealed: bool) -> str | None:
    """The task status, in iExec's words, that an event brings; None if it brings none. `revealed`: whether a vote was
    revealed before this event.
    """
    match event:
        case events.TaskInitialize():
            return "INITIALIZED"
        case events.TaskConsensus():
            return "CONSENSUS_REACHED"
        case events.TaskReveal():
            return None if revealed else "AT_LEAST_ONE_REVEALED"
        case events.TaskReopen():
            return "REOPENED"
        case events.TaskFinalize():
            return "COMPLETED"
        case events.TaskClaimed():
            return "FAILED"
        case _:
            return None


def _updates(replicate: Replicate, seen: Sequence[events.Seen]) -> list[ReplicateStatusUpdate]:
    """The status history of a replicate, in iExec's words, from reports and events."""
    moments: list[tuple[float, str]] = [(replicate.assigned_at, "CREATED")]
    # A machine may say that it began before it was asked.
    reported = {step: max(at, replicate.assigned_at) for step, at in replicate.steps.items()}
    moments += [(at, _STEP_STATUS[step]) for step, at in reported.items() if step in _STEP_STATUS]
    moments += [(float(item.timestamp), status) for item in seen if (status := _vote(item.event, replicate.wallet))]
    # Why it failed, or why what was computed is an error result.
    explained = "FAILED" if Step.FAILED in replicate.steps else "COMPUTED"
    return [
        ReplicateStatusUpdate(status=status, date=_date(at), cause=replicate.cause if status == explained else None)
        for at, status in sorted(moments, key=lambda moment: moment[0])
    ]


def _vote(event: events.Event, wallet: Wallet) -> str | None:
    """The replicate status that an event of this wallet brings; None for other events."""
    match event:
        case events.TaskContribute(worker=worker) if worker == wallet:
            return "CONTRIBUTED"
        case events.TaskReveal(worker=worker) if worker == wallet:
            return "REVEALED"
        case _:
            return None


def _command_line(params: str) -> str | None:
    """The app's arguments in a deal's parameters; None if they cannot be read."""
    try:
        return read_params(params).args
    except BadMessage:
        return None


def _date(at: float) -> str:
    """A moment in UTC, ISO 8601."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
