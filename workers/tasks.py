"""The machine's Celery tasks: names and arguments as `pipeline.broker.segments` publishes them, nothing else in here.

A link returns the task id for the next link; when there is nothing for the next link to do it is not called.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import structlog
from celery import Celery
from celery.exceptions import Ignore
from celery.signals import worker_process_shutdown
from pydantic import ValidationError

from protocol.types import TaskId
from protocol.wire import Assignment
from workers.task import compute, steps
from workers.workbench import Machine, Workbench

log = structlog.get_logger(__name__)

COMPUTE, UPLOAD, CONTRIBUTE = "worker.compute", "worker.upload", "worker.contribute"
CONTRIBUTE_AND_FINALIZE, REVEAL = "worker.contribute_and_finalize", "worker.reveal"
LANE, ABORT = "worker.lane", "worker.abort"

_benches: dict[int, Workbench] = {}


def register(app: Celery, machine: Machine) -> None:
    """Put the machine's tasks on its app."""

    def bench() -> Workbench:
        """This process's workbench: a pool process opens its own connections with its first task."""
        if os.getpid() not in _benches:
            _benches.clear()
            _benches[os.getpid()] = Workbench(machine)
        return _benches[os.getpid()]

    @app.task(name=COMPUTE)
    def run_compute(assignment: dict[str, Any]) -> str:
        try:
            wanted = Assignment.model_validate(assignment)
        except ValidationError as error:
            log.warning("Not an assignment.", action="assignment_refused", why=error.errors()[0]["msg"])
            raise Ignore from error
        return _next(wanted.task_id, go_on=compute.compute(bench(), wanted))

    def link(name: str, step: Callable[[Workbench, TaskId], bool]) -> None:
        @app.task(name=name)
        def run(task_id: str) -> str:
            return _next(task_id, go_on=step(bench(), TaskId(task_id)))

    link(UPLOAD, steps.upload)
    link(CONTRIBUTE, steps.contribute)
    link(CONTRIBUTE_AND_FINALIZE, steps.contribute_and_finalize)
    link(REVEAL, steps.reveal)

    @app.task(name=LANE)
    def run_lane() -> None:
        steps.run_lane(bench())

    @app.task(name=ABORT)
    def run_abort(task_id: str) -> None:
        steps.abort(bench(), TaskId(task_id))


def _next(task_id: str, *, go_on: bool) -> str:
    if not go_on:
        # Acknowledged; the chain ends here.
        raise Ignore
    return task_id


@worker_process_shutdown.connect
def _close(**_: object) -> None:
    """Let the last reports out before a pool process ends."""
    if os.getpid() in _benches:
        _benches[os.getpid()].close()
