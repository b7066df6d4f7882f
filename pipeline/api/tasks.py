"""Routes for requesters and the iExec SDK: tasks, deals, and what apps printed.

SDK 8 and 9 find this API through a Compass server (`compassURL`); `/{chain_id}/workerpools/{address}` answers as one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter, Header, Query
from pydantic import BaseModel

from pipeline.api.auth.access import Access
from pipeline.api.auth.log_access import LogDomain, log_challenge, log_reader
from pipeline.api.task_model import ReplicateModel, TaskModel, replicate_model, task_model
from pipeline.domain.records import ComputeLog, DealRecord, TaskRecord
from pipeline.flow.reasons import reasons
from protocol.errors import BadMessage, NotFound, Refused
from protocol.poco.events import Seen
from protocol.poco.view import ChainView, fold
from protocol.types import DealId, TaskId, Wallet
from protocol.wire import Dataset, HexId, Whole

router = APIRouter(tags=["requesters"])
_ADDRESS = re.compile(r"^0x[0-9a-fA-F]{40}$")
#: Tasks of a deal in one answer: a bag may hold a hundred thousand, and anybody may ask. Each is read with its events.
MOST_TASKS = 100
#: The SDK adds it to some calls; another chain's id is refused rather than answered for ours.
ChainId = Annotated[Whole | None, Query(alias="chainId", description="If given, must be this pool's chain.")]
Authorization = Annotated[str, Header(description="`<hash>_<signature>_<address>` over the log challenge.")]


class ComputeLogs(BaseModel):
    """What an app printed on one worker."""

    walletAddress: str  # noqa: N815 - iexec-core's names, here and below
    stdout: str
    stderr: str


class TaskLogs(BaseModel):
    """What an app printed, per worker that reported it."""

    chainTaskId: str  # noqa: N815
    computeLogsList: list[ComputeLogs]  # noqa: N815


class DealTask(BaseModel):
    """One task of a deal."""

    index: int
    task_id: str
    status: str
    initialized_block: int | None
    consensus_block: int | None
    finalized_block: int | None
    workers: list[str]
    result: str | None
    why: str | None


class DealModel(BaseModel):
    """A deal as this scheduler knows it."""

    deal_id: str
    app: str
    image: str
    dataset: Dataset | None
    workerpool: str
    requester: str
    beneficiary: str
    callback: str
    trust: int
    tag: str
    category_seconds: int
    matched_block: int
    contribution_deadline: int
    final_deadline: int
    bot_first: int
    bot_size: int
    tasks: list[DealTask]


class WorkerpoolApi(BaseModel):
    """Where a workerpool's API is."""

    apiUrl: str  # noqa: N815


@router.get("/tasks/logs/challenge", summary="Challenge to read an app's logs")
def logs_challenge(address: str, services: Access, chain_id: ChainId = None) -> dict[str, object]:
    """EIP-712 typed data that the task's requester signs; good for at least half an hour."""
    _refuse_other_chain(services, chain_id)
    wallet = _wallet(address)
    return dict(log_challenge(services.keys.newest.logs, _domain(services), wallet, services.clock()))


@router.get("/tasks/{task_id}", summary="A task", response_model_exclude_none=True)
def get_task(task_id: HexId, services: Access, chain_id: ChainId = None) -> TaskModel:
    """The task in iExec Core's form: status, history with blocks and transactions, replicates, result link."""
    _refuse_other_chain(services, chain_id)
    task = _stored_task(services, task_id)
    seen, view = _on_chain(services, task)
    return task_model(task, services.store.deals.get_deal(task.deal_id), view, seen)


@router.get("/tasks/{task_id}/replicates/{wallet}", summary="A replicate", response_model_exclude_none=True)
def get_replicate(task_id: HexId, wallet: str, services: Access) -> ReplicateModel:
    """One worker's attempt at a task."""
    task = _stored_task(services, task_id)
    replicate = task.replicate(_wallet(wallet))
    if replicate is None:
        raise NotFound(what=f"replicate of {wallet} for task {task_id}")
    seen, view = _on_chain(services, task)
    return replicate_model(task, replicate, view, seen)


@router.get("/tasks/{task_id}/logs", summary="What the app printed")
def get_logs(task_id: HexId, services: Access, authorization: Authorization = "", chain_id: ChainId = None) -> TaskLogs:
    """Output of the app on every worker that reported it, for the task's requester only."""
    _refuse_other_chain(services, chain_id)
    logs = [_compute_logs(item) for item in _readable_logs(services, task_id, authorization)]
    return TaskLogs(chainTaskId=task_id, computeLogsList=logs)


@router.get("/tasks/{task_id}/replicates/{wallet}/logs", summary="What the app printed on one worker")
def get_replicate_logs(task_id: HexId, wallet: str, services: Access, authorization: Authorization = "") -> ComputeLogs:
    """Output of the app on one worker, for the task's requester only."""
    wanted = _wallet(wallet)
    for item in _readable_logs(services, task_id, authorization):
        if item.wallet == wanted:
            return _compute_logs(item)
    raise NotFound(what=f"output of {wallet} for task {task_id}")


@router.get("/deals/{deal_id}", summary="A deal")
def get_deal(
    deal_id: HexId,
    services: Access,
    first: Annotated[Whole, Query(description="Index of the first task to show.")] = 0,
    limit: Annotated[int, Query(ge=1, le=MOST_TASKS, description="Tasks to show at most.")] = MOST_TASKS,
) -> DealModel:
    """A deal and where its tasks stand, a page at a time: those from index `first` on."""
    deal = services.store.deals.get_deal(DealId(deal_id))
    if deal is None:
        raise NotFound(what=f"deal {deal_id}")
    tasks = services.store.tasks.of_deal(deal.deal_id, first, limit)
    return _deal_model(deal, tasks, reasons(services.store, services.settings, tasks, services.clock()))


@router.get("/{chain_id}/workerpools/{address}", summary="This API's URL (Compass)")
def workerpool_api(chain_id: Whole, address: str, services: Access) -> WorkerpoolApi:
    """Lets `compassURL` of the iExec SDK point here."""
    if chain_id != services.settings.chain_id or address.lower() != services.pool.workerpool:
        raise NotFound(what=f"workerpool {address} on chain {chain_id}")
    return WorkerpoolApi(apiUrl=services.settings.api_url)


def _refuse_other_chain(services: Access, chain_id: int | None) -> None:
    """Raise BadMessage if the client is on another chain."""
    if chain_id is not None and chain_id != services.settings.chain_id:
        raise BadMessage(why=f"this pool is on chain {services.settings.chain_id}, not {chain_id}")


def _wallet(address: str) -> Wallet:
    """The wallet in a request's path. Raises BadMessage."""
    if not _ADDRESS.match(address):
        raise BadMessage(why="an address is 0x and 40 hex digits")
    return Wallet(address.lower())


def _stored_task(services: Access, task_id: str) -> TaskRecord:
    """The task that a route was asked for. Raises NotFound, which the API answers with 404."""
    task = services.store.tasks.get_task(TaskId(task_id))
    if task is None:
        raise NotFound(what=f"task {task_id}")
    return task


def _on_chain(services: Access, task: TaskRecord) -> tuple[list[Seen], ChainView]:
    """A task's events, and its state on chain folded from them."""
    seen = services.store.chain.logs.of_tasks([task.task_id]).get(task.task_id, [])
    return seen, fold(task.task_id, seen, category_seconds=task.category_seconds)


def _domain(services: Access) -> LogDomain:
    """The EIP-712 domain of requests to read logs."""
    return LogDomain(services.settings.chain_id, services.pool.workerpool)


def _readable_logs(services: Access, task_id: str, authorization: str) -> list[ComputeLog]:
    """What the apps of a task printed. Raises NotSignedIn, TooManyRequests, NotFound, Refused for any wallet but the
    requester's.
    """
    keys = [key.logs for key in services.keys.verifying(services.clock())]
    reader = log_reader(keys, _domain(services), authorization, services.clock())
    services.rates.count("logs", reader)
    task = _stored_task(services, task_id)
    if reader != task.requester:
        raise Refused(why="only the task's requester may read its logs")
    return services.store.outputs.of_task(task.task_id)


def _compute_logs(output: ComputeLog) -> ComputeLogs:
    """What an app printed, as iExec's SDK reads it."""
    return ComputeLogs(walletAddress=output.wallet, stdout=output.stdout, stderr=output.stderr)


def _deal_model(deal: DealRecord, tasks: list[TaskRecord], reasons: Mapping[TaskId, str | None]) -> DealModel:
    """A deal as the API shows it. `reasons`: what each of its tasks waits for."""
    return DealModel(
        deal_id=deal.deal_id,
        app=deal.app,
        image=deal.image,
        dataset=deal.dataset,
        workerpool=deal.workerpool,
        requester=deal.requester,
        beneficiary=deal.beneficiary,
        callback=deal.callback,
        trust=deal.trust,
        tag=deal.tag,
        category_seconds=deal.category_seconds,
        matched_block=deal.matched_block,
        contribution_deadline=deal.contribution_deadline,
        final_deadline=deal.final_deadline,
        bot_first=deal.bot_first,
        bot_size=deal.bot_size,
        tasks=[
            DealTask(
                index=task.index,
                task_id=task.task_id,
                status=str(task.stage),
                initialized_block=task.initialized_block,
                consensus_block=task.consensus_block,
                finalized_block=task.finalized_block,
                workers=[item.wallet for item in task.replicates],
                result=task.results,
                why=reasons.get(task.task_id) or task.why,
            )
            for task in tasks
        ],
    )
