"""A worker machine's Celery tasks: what the chains of `config.worker_chains` call, one function call each.

A task returns the task id for the next link of its chain; if the next link has nothing to do, it raises Ignore, which
ends the chain.
"""

from __future__ import annotations

from typing import Any

import structlog
from celery import Task, current_app, shared_task
from celery.exceptions import Ignore
from celery.signals import worker_process_shutdown
from pydantic import ValidationError

from config import topology
from config.celery_apps import ConfirmTimeoutCelery
from config.per_process import PerProcess
from protocol.types import TaskId
from protocol.wire import Assignment
from workers.context import Machine, WorkerContext
from workers.task import compute, steps

log = structlog.get_logger(__name__)

#: Seconds for a task that sends a transaction: some runs of the lane, each a few requests to the node with a timeout of
#: their own. Below the 30 min after which RabbitMQ takes a message back. At the soft limit the task fails, and at the
#: hard one its process is killed; the journal knows the step, and the process `upkeep` publishes it again.
TX_SOFT_SECONDS, TX_HARD_SECONDS = 300, 330


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


class TxTask(MachineTask):
    """A task that hands a transaction to the lane and runs it."""

    soft_time_limit = TX_SOFT_SECONDS
    time_limit = TX_HARD_SECONDS


def serve(app: ConfirmTimeoutCelery, machine: Machine) -> None:
    """Have `app`, in its worker processes, do the tasks of `machine`."""
    app.context = PerProcess(lambda: WorkerContext(machine))


@shared_task(name=topology.COMPUTE, base=MachineTask, bind=True)
def run_compute(self: MachineTask, assignment: dict[str, Any]) -> str:
    """Run the app of an assignment; its result goes into the journal."""
    try:
        wanted = Assignment.model_validate(assignment)
    except ValidationError as error:
        log.warning("Not an assignment.", action="assignment_refused", why=error.errors()[0]["msg"])
        raise Ignore from error
    return _argument_of_next_link(wanted.task_id, go_on=compute.compute(self.context, wanted))


@shared_task(name=topology.UPLOAD, base=MachineTask, bind=True)
def run_upload(self: MachineTask, task_id: str) -> str:
    """Store the result at the pool."""
    return _argument_of_next_link(task_id, go_on=steps.upload(self.context, TaskId(task_id)))


@shared_task(name=topology.CONTRIBUTE, base=TxTask, bind=True)
def run_contribute(self: TxTask, task_id: str) -> str:
    """Send the vote."""
    return _argument_of_next_link(task_id, go_on=steps.contribute(self.context, TaskId(task_id)))


@shared_task(name=topology.CONTRIBUTE_AND_FINALIZE, base=TxTask, bind=True)
def run_contribute_and_finalize(self: TxTask, task_id: str) -> str:
    """Send the result of a task that needs no vote."""
    return _argument_of_next_link(task_id, go_on=steps.contribute_and_finalize(self.context, TaskId(task_id)))


@shared_task(name=topology.REVEAL, base=TxTask, bind=True)
def run_reveal(self: TxTask, task_id: str) -> str:
    """Send what was voted for."""
    return _argument_of_next_link(task_id, go_on=steps.reveal(self.context, TaskId(task_id)))


@shared_task(name=topology.WORKER_LANE, base=TxTask, bind=True)
def run_lane(self: TxTask) -> None:
    """Run the wallet's lane."""
    steps.run_lane(self.context)


@shared_task(name=topology.ABORT, base=TxTask, bind=True)
def run_abort(self: TxTask, task_id: str) -> None:
    """Stop working on a task."""
    steps.abort(self.context, TaskId(task_id))


def _argument_of_next_link(task_id: str, *, go_on: bool) -> str:
    """What a link returns, which Celery hands to the next link of the chain. Raises Ignore to end the chain here."""
    if not go_on:
        # Celery acknowledges the message; the chain ends here.
        raise Ignore
    return task_id


@worker_process_shutdown.connect
def _close(**_: object) -> None:
    """Send the queued reports before a pool process ends."""
    context = getattr(current_app, "context", None)
    context = context.known() if context is not None else None
    if context is not None:
        context.close()
