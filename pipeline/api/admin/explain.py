"""Route that tells why a task, a deal or a machine does not go on."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from pipeline.api.admin.access import Reader
from pipeline.api.admin.answers.pool import Explanation, TaskLine
from pipeline.api.admin.tasks import task_lines
from pipeline.api.admin.workers import known, why_worker
from pipeline.api.services import Services
from pipeline.domain.explain import ended
from pipeline.store.deals import NEW, ORPHANED, UNREADABLE, StoredDeal
from protocol.errors import BadMessage, NotFound
from protocol.types import DealId, TaskId

router = APIRouter()

#: Characters of a whole task or deal id, and of an address.
WHOLE_ID, WHOLE_ADDRESS = 66, 42
#: Fewest characters of an id's beginning that are looked for, and ids that are named if several fit.
SHORTEST, NAMED = 6, 5
#: Tasks of a deal that are looked at.
MOST_TASKS = 200

AnyId = Annotated[
    str, Path(alias="id", pattern="^0x[0-9a-fA-F]{4,64}$", description="Id or its beginning, or a wallet.")
]


@router.get("/explain/{id}", summary="Why a task, a deal or a machine does not go on")
def explain(anything: AnyId, services: Reader) -> Explanation:
    """Takes the id of a task or a deal, the beginning of one, or a machine's wallet."""
    given = anything.lower()
    if len(given) == WHOLE_ADDRESS:
        worker = known(services, given)
        return Explanation(kind="worker", id=worker.wallet, says=why_worker(services, worker))
    tasks = services.store.lists.ids_starting(given, NAMED) if len(given) >= SHORTEST else []
    deals = services.store.deals.ids_starting(given, NAMED) if len(given) >= SHORTEST else []
    if len(tasks) + len(deals) > 1:
        several = ", ".join([*tasks, *deals][:NAMED])
        raise BadMessage(why=f"several tasks and deals begin with {given}: {several}")
    if tasks:
        return _task(services, tasks[0])
    if deals:
        return _deal(services, deals[0])
    raise NotFound(what=f"task or deal {given}" if len(given) == WHOLE_ID else f"task or deal that begins with {given}")


def _task(services: Services, task_id: TaskId) -> Explanation:
    """Why a task does not go on. Raises NotFound."""
    task = services.store.tasks.get_task(task_id)
    if task is None:
        raise NotFound(what=f"task {task_id}")
    (line,) = task_lines(services, [task])
    return Explanation(kind="task", id=task_id, says=[_said(line) if task.open else ended(task)])


def _said(line: TaskLine) -> str:
    """The answer about an open task: what it waits for."""
    if line.why:
        return line.why
    return f"It is {line.stage} and waits for nothing."


def _deal(services: Services, deal_id: DealId) -> Explanation:
    """Why a deal does not go on: its open tasks by what they wait for. Raises NotFound."""
    stored = services.store.deals.stored(deal_id)
    if stored is None:
        raise NotFound(what=f"deal {deal_id}")
    if (says := _of_state(stored)) is not None:
        return Explanation(kind="deal", id=deal_id, says=[says])
    count = services.store.lists.open_of_deals([deal_id])[deal_id]
    tasks = services.store.lists.open_of_deal(deal_id, MOST_TASKS)
    by_reason: dict[str, list[int]] = {}
    for line in task_lines(services, tasks):
        by_reason.setdefault(_said(line), []).append(line.index)
    said = [f"Task {_indexes(indexes)}: {why}" for why, indexes in by_reason.items()]
    head = f"Not over of its {stored.record.bot_size if stored.record else '?'} tasks: {count}."
    return Explanation(kind="deal", id=deal_id, says=[head, *said] if count else ["All of its tasks are over."])


def _of_state(stored: StoredDeal) -> str | None:
    """Why a deal as a whole does not go on; None if that depends on its tasks."""
    return {
        NEW: "Its tasks are not all stored yet: it was seen a moment ago, or the chain cannot be read.",
        ORPHANED: "A reorganisation took its block off the chain; it goes on if the deal comes back.",
        UNREADABLE: f"It cannot be served: {stored.why or 'no reason is known'} (`sluice quarantine ls`).",
    }.get(stored.state)


def _indexes(indexes: list[int]) -> str:
    """The first of a deal's task indexes, and how many more there are."""
    shown = ", ".join(map(str, indexes[:NAMED]))
    return shown if len(indexes) <= NAMED else f"{shown} and {len(indexes) - NAMED} more"
