"""The steps of an assignment, done one after another in the process that began it.

    compute ─► contribute                         a vote
    compute ─► upload ─► contribute_and_finalize  alone (trust 1)

The journal says which step is next (`replicate.todo`), so a chain that was cut anywhere, by an error or by `kill -9`,
goes on there: with its redelivered message, or by the process `upkeep`. No message is published for the next step.
"""

from __future__ import annotations

from protocol.types import TaskId
from protocol.wire import Assignment
from workers.context import WorkerContext
from workers.task import steps
from workers.task.compute import compute
from workers.task.replicate import Todo, todo


def do_assignment(context: WorkerContext, assignment: Assignment, *, redelivered: bool = False) -> None:
    """Compute the task and vote for it: do all steps of the assignment that are not done yet.

    `redelivered`: RabbitMQ had delivered the message before. Raises PoolUnavailable from an upload.
    """
    if compute(context, assignment, redelivered=redelivered):
        follow_up(context, TaskId(assignment.task_id))


def follow_up(context: WorkerContext, task_id: TaskId) -> None:
    """Do the steps after `compute`, until one has to wait for the chain or the scheduler. Raises PoolUnavailable."""
    # Held meanwhile, so that `upkeep` does not begin the same; waited for, since others hold it for a moment only.
    with context.layout.lock(task_id, wait=True):
        while (replicate := context.journal.find(task_id)) is not None and _do(context, task_id, todo(replicate)):
            pass
        # The vote may be in the lane from a run that was killed before it woke the lane.
        context.lane_wakeup.notify()


def _do(context: WorkerContext, task_id: TaskId, step: Todo | None) -> bool:
    """Do one step; whether it is done."""
    match step:
        case Todo.UPLOAD:
            return steps.upload(context, task_id)
        case Todo.CONTRIBUTE:
            return steps.contribute(context, task_id)
        case Todo.CONTRIBUTE_AND_FINALIZE:
            return steps.contribute_and_finalize(context, task_id)
        case Todo.COMPUTE | None:
            return False
