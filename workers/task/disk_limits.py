"""What one app of this machine may write, and where: into /iexec_out, and everywhere else together."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from protocol.errors import EngineUnavailable
from protocol.results.error_result import Failure
from protocol.types import TaskId
from protocol.wire import SCRATCH_BYTES
from workers.context import WorkerContext
from workers.sandbox import disk
from workers.sandbox.disk import DiskWatch, Place
from workers.sandbox.scratch import seen_scratch


def disks(context: WorkerContext) -> tuple[Path, ...]:
    """A folder on each disk that an app writes to: this machine's home, and the engine's data if it is seen here."""
    folder = None
    with suppress(EngineUnavailable):
        folder = context.engine.data_folder
    return (context.layout.root,) if folder is None else (context.layout.root, folder)


def require_free_space(context: WorkerContext, task_id: TaskId) -> None:
    """Raise TaskDeclined if one of the disks is almost full."""
    for folder in disks(context):
        disk.require_free_space(task_id, folder)


def watch(context: WorkerContext, task_id: TaskId, container: str) -> DiskWatch:
    """Watches what the app in `container` writes, and kills it beyond the limits."""
    limits, engine = context.machine.result_limits, context.engine
    folder = context.layout.task(task_id).outputs
    output = Place(
        "/iexec_out",
        lambda: (folder,),
        disk.WORKING_FACTOR * limits.total_bytes,
        disk.WORKING_FACTOR * (limits.pool_bytes or limits.total_bytes),
        disk.WORKING_ENTRIES,
        Failure.OUTPUT_ZIP,
    )
    scratch = Place(
        "all that the app wrote outside /iexec_out",
        seen_scratch(engine, container),
        min(context.machine.settings.scratch_bytes, SCRATCH_BYTES),
        SCRATCH_BYTES,
        disk.SCRATCH_ENTRIES,
        Failure.APP,
        lambda: engine.layer_bytes(container),
    )
    return DiskWatch(
        task_id,
        (output, scratch),
        lambda: disks(context),
        lambda: engine.kill(container),
        every=disk.CHECK_SECONDS,
    )
