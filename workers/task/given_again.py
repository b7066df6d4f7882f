"""A task that ended on this machine without a result and comes again: forgotten, so that it begins anew, or refused."""

from __future__ import annotations

import structlog

from protocol.errors import EngineUnavailable, StorageUnavailable
from protocol.types import TaskId
from protocol.wire import Assignment
from workers.context import WorkerContext
from workers.sandbox.spec import container_name
from workers.task.replicate import ReplicateStage, begins_anew

log = structlog.get_logger(__name__)


def cleared(context: WorkerContext, assignment: Assignment, *, redelivered: bool) -> bool:
    """Forget a task that begins anew; False while Docker does not let its container go.

    The scheduler assigns an aborted task again after a reorg, or when its database was lost or restored. A message that
    was not acknowledged before the abort, because the broker went away, assigns nothing: the app would run for nobody.
    Where the scheduler does want it, it publishes anew. Only under the task's lock: whoever still waits for the killed
    container must see ABORTED.
    """
    task_id = TaskId(assignment.task_id)
    known = context.journal.find(task_id)
    if known is None or not begins_anew(known, assignment):
        return True
    if redelivered and known.stage is ReplicateStage.ABORTED:
        log.info("The message of an aborted task came again.", action="aborted_again", task=task_id)
        return False
    try:
        context.engine.remove(container_name(context.machine.settings.worker_name, context.machine.wallet, task_id))
        context.layout.task(task_id).remove()
    except (EngineUnavailable, StorageUnavailable) as error:
        log.warning("A task cannot begin anew yet.", action="restart_delayed", task=task_id, why=str(error))
        return False
    context.journal.forget([task_id])
    log.info("The task is assigned again.", action="task_restarted", task=task_id)
    return True
