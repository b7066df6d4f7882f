"""What one app of this machine may write, and where: into /iexec_out, and everywhere else together."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from protocol.errors import EngineUnavailable, SluiceError, TaskDeclined
from protocol.results.error_result import UNCLEAR_END, Failure
from protocol.types import TaskId
from protocol.wire import SCRATCH_BYTES
from workers.context import WorkerContext
from workers.sandbox import disk
from workers.sandbox.disk import DiskWatch, Place
from workers.sandbox.engine.container_state import ContainerExit
from workers.sandbox.scratch import SeenScratch
from workers.task.outcome import verdict


def disks(context: WorkerContext) -> tuple[Path, ...]:
    """A folder on each disk that an app writes to: this machine's home, and the engine's data if it is seen here."""
    folder = None
    with suppress(EngineUnavailable):
        folder = context.engine.data_folder
    return (context.layout.root,) if folder is None else (context.layout.root, folder)


def require_free_space(context: WorkerContext, task_id: TaskId) -> None:
    """Raise TaskDeclined if one of the disks is almost full."""
    for folder in disks(context):
        disk.require_free_space(task_id, folder, context.layout.least_free)


def watch(context: WorkerContext, task_id: TaskId, container: str) -> DiskWatch:
    """Watches what the app in `container` writes, and kills it beyond the limits."""
    limits, engine = context.machine.result_limits, context.engine
    seen = SeenScratch(engine, container)
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
        seen.paths,
        min(context.machine.settings.scratch_bytes, SCRATCH_BYTES),
        SCRATCH_BYTES,
        disk.SCRATCH_ENTRIES,
        Failure.APP,
        lambda: engine.layer_bytes(container),
    )
    return DiskWatch(
        task_id,
        (output, scratch),
        lambda: (*disks(context), *_layer(seen)),
        lambda: engine.kill(container),
        floor=context.layout.least_free,
        every=disk.CHECK_SECONDS,
    )


def require_promised_disk(context: WorkerContext, task_id: TaskId, container: str, ended: ContainerExit | None) -> None:
    """Raise TaskDeclined for an app that failed and printed that a disk was full, if that may have been a limit that
    only this machine has, or that a disk could not be read or written.

    Storage drivers differ: some give each container a quota, which is watched only where its layer is seen here.
    """
    if ended is None or ended.out_of_memory:
        return
    if verdict.says_quota(ended.stdout, ended.stderr):
        why = "the app was told of a disk quota, which the pool gives to none"
    elif verdict.says_broken_disk(ended.stdout, ended.stderr):
        why = "the app was told that a disk cannot be read or written, which may be one of this machine's"
    elif verdict.says_full_disk(ended.stdout, ended.stderr) and not _layer(SeenScratch(context.engine, container)):
        why = "the app was told of a full disk, which may be a limit of this engine's storage driver"
    else:
        return
    raise TaskDeclined(task=task_id, cause=UNCLEAR_END, why=why)


def _layer(seen: SeenScratch) -> tuple[Path, ...]:
    """The container's layer, if it is seen. Whoever needs the engine's answer finds out that it does not answer now."""
    with suppress(SluiceError, OSError):
        layer = seen.layer()
        if layer is not None and layer.is_dir():
            return (layer,)
    return ()
