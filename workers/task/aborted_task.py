"""A task that was aborted on this machine and comes again: forgotten, so that it begins anew, or refused."""

from __future__ import annotations

import structlog

from protocol.errors import EngineUnavailable, StorageUnavailable
from protocol.types import TaskId
from workers.context import WorkerContext
from workers.sandbox.spec import container_name
from workers.task.replicate import ReplicateStage

log = structlog.get_logger(__name__)


def cleared(context: WorkerContext, task_id: TaskId, *, redelivered: bool) -> bool:
    """Forget a task that was aborted, so that it can begin anew; False while Docker does not let its container go.

    The scheduler assigns it again after a reorg, or when its database was lost or restored. A message that was not
    acknowledged before the abort, because the broker went away, assigns nothing: the app would run for nobody. Where
    the scheduler does want it, it publishes anew. Only under the task's lock: whoever still waits for the killed
    container must see ABORTED.
    """
    known = context.journal.find(task_id)
    if known is None or known.stage is not ReplicateStage.ABORTED:
        return True
    if redelivered:
        log.info("The message of an aborted task came again.", action="aborted_again", task=task_id)
        return False
    try:
        context.engine.remove(container_name(context.machine.settings.worker_name, context.machine.wallet, task_id))
        context.layout.task(task_id).remove()
    except (EngineUnavailable, StorageUnavailable) as error:
        log.warning("An aborted task cannot begin anew yet.", action="restart_delayed", task=task_id, why=str(error))
        return False
    context.journal.forget([task_id])
    log.info("An aborted task is assigned again.", action="task_restarted", task=task_id)
    return True
