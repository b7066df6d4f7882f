"""Checks that the pool's scheduler has signed what a message asks for: image, parameters, dataset, deadlines."""

from __future__ import annotations

import structlog

from protocol.assignment import recover_assignment_signer
from protocol.errors import Refused
from protocol.results.error_result import NOT_AUTHORIZED, worded
from protocol.types import TaskId
from protocol.wire import Assignment, Report, Step
from workers.context import WorkerContext
from workers.task.replicate import begins_anew

log = structlog.get_logger(__name__)


def admits(context: WorkerContext, assignment: Assignment) -> bool:
    """Whether to go on with the task of this message; logs and reports why not.

    A task in the journal was checked when it came, and goes on as the journal has it, whatever the message says.
    Nothing of a refused assignment is stored: the true one of the same task may follow.
    """
    task_id = TaskId(assignment.task_id)
    known = context.journal.find(task_id)
    if known is not None and not begins_anew(known, assignment):
        return True
    why = _why_not(context, assignment)
    if why is None:
        return True
    log.error("This assignment is not the scheduler's.", action="assignment_forged", task=task_id, why=why)
    context.reports.send(task_id, Report(step=Step.FAILED, cause=worded(NOT_AUTHORIZED, why)))
    return False


def _why_not(context: WorkerContext, assignment: Assignment) -> str | None:
    """Why an assignment is not the pool's; None if it is signed by its scheduler."""
    pool = context.machine.pool
    try:
        signer = recover_assignment_signer(assignment, pool.chain_id, pool.workerpool)
    except Refused as error:
        return str(error)
    if signer != pool.scheduler:
        return f"as it stands it is not signed by the pool's scheduler {pool.scheduler}: it was changed on its way"
    return None
