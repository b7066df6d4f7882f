"""Routes that show tasks and deals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query

from pipeline.api.admin.access import Reader
from pipeline.api.admin.answers.lines import deal_line, task_line, task_show, wrong_votes
from pipeline.api.admin.answers.pool import DealLine, DealShow, TaskLine, TaskShow
from pipeline.api.services import Services
from pipeline.domain.records import TaskRecord, TaskStage
from pipeline.flow.reasons import lane_trouble, reasons
from pipeline.store.task.lists import OPEN_STAGES, Place
from protocol.errors import NotFound
from protocol.poco.view import fold
from protocol.types import BlockNumber, DealId, TaskId, Wallet
from protocol.wire import HexAddress, HexId, Whole

router = APIRouter()

#: Lines in one answer: each open task is explained, which reads its events.
MOST_LINES = 1000
Limit = Annotated[int, Query(ge=1, le=MOST_LINES, description="Lines at most.")]
Before = Annotated[
    str | None,
    Query(
        pattern="^[0-9]{1,18}:0x[0-9a-f]{64}$",
        description="The next page: only what comes behind this one, `<block>:<id>` of the last line.",
    ),
]


@router.get("/tasks", summary="Tasks, those matched last first")
def list_tasks(
    services: Reader,
    stage: Annotated[
        list[TaskStage] | None, Query(description="Only these stages; default: all that are not over.")
    ] = None,
    every: Annotated[bool, Query(alias="all", description="Also those that are over.")] = False,
    deal: Annotated[HexId | None, Query(description="Only tasks of this deal, by index, over or not.")] = None,
    worker: Annotated[HexAddress | None, Query(description="Only tasks not over that this machine was given.")] = None,
    first: Annotated[Whole, Query(description="With `deal`: the first index.")] = 0,
    before: Before = None,
    limit: Limit = 100,
) -> list[TaskLine]:
    """Each with its stage and, while it is not over, what it waits for."""
    lists = services.store.lists
    if deal is not None:
        found = lists.of_deal(DealId(deal), first, limit, stage or tuple(TaskStage))
    elif worker is not None:
        found = lists.of_worker(Wallet(worker), limit, stage or OPEN_STAGES)
    else:
        stages = stage or (tuple(TaskStage) if every else OPEN_STAGES)
        found = lists.newest(stages, limit, before=_place(before))
    return task_lines(services, found)


@router.get("/tasks/{task_id}", summary="A task with its time line")
def show_task(task_id: HexId, services: Reader) -> TaskShow:
    """What happened, block by block, who was given it, votes, causes, transactions, and what it waits for."""
    task = services.store.tasks.get_task(TaskId(task_id))
    if task is None:
        raise NotFound(what=f"task {task_id}")
    seen = services.store.chain.logs.of_tasks([task.task_id]).get(task.task_id, [])
    view = fold(task.task_id, seen, category_seconds=task.category_seconds)
    workers = services.store.workers.load_workers(item.wallet for item in task.replicates)
    return task_show(
        task,
        services.store.deals.get_deal(task.deal_id),
        view,
        seen,
        {worker.wallet: worker.name for worker in workers},
        _reasons(services, [task]).get(task.task_id),
    )


@router.get("/deals", summary="Deals, those matched last first")
def list_deals(services: Reader, before: Before = None, limit: Limit = 100) -> list[DealLine]:
    """Each with its state and how many of its tasks are not over."""
    deals = services.store.deals.newest(limit, before=_place(before))
    counts = services.store.lists.open_of_deals([deal.deal_id for deal in deals])
    return [deal_line(deal, counts[deal.deal_id]) for deal in deals]


@router.get("/deals/{deal_id}", summary="A deal with its terms and tasks")
def show_deal(
    deal_id: HexId,
    services: Reader,
    first: Annotated[Whole, Query(description="Index of the first task to show.")] = 0,
    limit: Limit = 100,
) -> DealShow:
    """A deal, whatever its state, and a page of its tasks by index."""
    stored = services.store.deals.stored(DealId(deal_id))
    if stored is None:
        raise NotFound(what=f"deal {deal_id}")
    line = deal_line(stored, services.store.lists.open_of_deals([stored.deal_id])[stored.deal_id])
    tasks = task_lines(services, services.store.tasks.of_deal(stored.deal_id, first, limit))
    deal = stored.record
    seen, _ = services.store.chain.logs.read([TaskId(task.task_id) for task in tasks])
    return DealShow(
        **line.model_dump(),
        app=None if deal is None else deal.app,
        dataset=None if deal is None or deal.dataset is None else deal.dataset.address,
        beneficiary=None if deal is None else deal.beneficiary,
        callback=None if deal is None else deal.callback,
        params=None if deal is None else deal.params,
        category_seconds=None if deal is None else deal.category_seconds,
        worker_stake_nrlc=None if deal is None else deal.worker_stake,
        contribution_deadline=None if deal is None else deal.contribution_deadline,
        final_deadline=None if deal is None else deal.final_deadline,
        shown=tasks,
        wrong_votes=wrong_votes(item for task in tasks for item in seen.get(TaskId(task.task_id), [])),
    )


def task_lines(services: Services, tasks: Sequence[TaskRecord]) -> list[TaskLine]:
    """The tasks as lines of a list, each with what it waits for."""
    why = _reasons(services, tasks)
    return [task_line(task, why.get(task.task_id)) for task in tasks]


def _reasons(services: Services, tasks: Sequence[TaskRecord]) -> dict[TaskId, str | None]:
    """What each of these tasks that is not over waits for, the lane included, which only the operator may see."""
    lane = lane_trouble(services.settings, services.pool.scheduler)
    return reasons(services.store, services.settings, tasks, services.clock(), lane)


def _place(before: str | None) -> Place | None:
    """Where the next page begins, from `<block>:<task id>`; None at the first."""
    block, _, last = (before or "").partition(":")
    return (BlockNumber(int(block)), last) if last else None
