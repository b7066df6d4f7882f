"""A worker machine's Celery tasks, one function call each: what the scheduler may ask a machine for.

No task publishes anything, since a machine may not: what follows on a step is done in the same call
(`workers.task.chain`), no task is retried by Celery, and a Celery chain in a message is not continued.
"""

from __future__ import annotations

from typing import Any, NoReturn

import structlog
from celery import Task, current_app, shared_task
from celery.exceptions import Ignore
from celery.signals import worker_process_shutdown
from pydantic import TypeAdapter, ValidationError

from config import topology
from config.celery_apps import ConfirmTimeoutCelery
from config.processes.per_process import PerProcess
from protocol.types import TaskId
from protocol.wire import Assignment, HexId
from workers.context import Machine, WorkerContext
from workers.task import chain, steps

log = structlog.get_logger(__name__)

#: Seconds for a task that must not take long. At the soft limit it fails, and at the hard one its process is killed;
#: the journal knows the step, and the scheduler or the process `upkeep` comes back to it.
SOFT_SECONDS, HARD_SECONDS = 300, 330
_TASK_ID: TypeAdapter[str] = TypeAdapter(HexId)


class MachineTask(Task[Any, Any]):
    """A task with this process's `WorkerContext`.

    No time limit by itself. `compute`: the category's time ends the container, downloads have a timeout of their own,
    and a limit here would kill the process and leave the container running. `upload`: a large result on a slow line may
    take hours; it ends when no byte moves for a minute.
    """

    @property
    def context(self) -> WorkerContext:
        """This process's context, opened with its first task."""
        assert isinstance(self.app, ConfirmTimeoutCelery)
        assert self.app.context is not None
        context: WorkerContext = self.app.context.get()
        return context


class QuickTask(MachineTask):
    """A task of the queue `.tx`, which must not wait for a container."""

    soft_time_limit = SOFT_SECONDS
    time_limit = HARD_SECONDS


def serve(app: ConfirmTimeoutCelery, machine: Machine) -> None:
    """Have `app`, in its worker processes, do the tasks of `machine`."""
    app.context = PerProcess(lambda: WorkerContext(machine))


@shared_task(name=topology.COMPUTE, base=MachineTask, bind=True)
def run_compute(self: MachineTask, assignment: object) -> NoReturn:
    """Do an assignment until its vote is in the lane."""
    try:
        wanted = Assignment.model_validate(assignment)
    except ValidationError as error:
        log.warning("Not an assignment.", action="assignment_refused", why=error.errors()[0]["msg"])
        raise Ignore from error
    came_by = self.request.delivery_info or {}
    chain.do_assignment(self.context, wanted, redelivered=bool(came_by.get("redelivered")))
    # A scheduler of an older release names the next link of a chain here; Ignore keeps Celery from publishing it.
    raise Ignore


@shared_task(name=topology.UPLOAD, base=MachineTask, bind=True)
def run_upload(self: MachineTask, task_id: object) -> None:
    """Store the result at the pool."""
    steps.upload(self.context, _task_id(task_id))


@shared_task(name=topology.REVEAL, base=QuickTask, bind=True)
def run_reveal(self: QuickTask, task_id: object) -> str:
    """Reveal this machine's vote. Returns the task id, which an older scheduler's chain hands to `upload`."""
    wanted = _task_id(task_id)
    steps.reveal(self.context, wanted)
    return wanted


@shared_task(name=topology.ABORT, base=QuickTask, bind=True)
def run_abort(self: QuickTask, task_id: object) -> None:
    """Stop working on a task."""
    steps.abort(self.context, _task_id(task_id))


def _task_id(given: object) -> TaskId:
    """The task that a message is about. Raises Ignore, which ends the task quietly, if it names none."""
    try:
        return TaskId(_TASK_ID.validate_python(given))
    except ValidationError as error:
        log.warning("Not a task id.", action="message_refused", why=error.errors()[0]["msg"])
        raise Ignore from error


@worker_process_shutdown.connect
def _close(**_: object) -> None:
    """Send the queued reports before a pool process ends."""
    context = getattr(current_app, "context", None)
    context = context.known() if context is not None else None
    if context is not None:
        context.close()
