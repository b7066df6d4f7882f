"""Room on the engine's disk for what the engine writes there by itself, before an app runs that could be killed for it:
an image that it unpacks, and volumes that it fills with what an image has at their places.

One task at a time: of two that look at once, each would find the room that there is for one.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from protocol.results.error_result import UNCLEAR_END
from protocol.types import TaskId
from workers.data.layout import Layout
from workers.sandbox import disk
from workers.sandbox.engine.container import Engine

_LOCK: Final = "engine-disk"
#: Seconds between two looks whether another task is done.
_LOOK_SECONDS: Final = 0.5


@contextmanager
def alone(layout: Layout, wait: Callable[[float], None]) -> Iterator[None]:
    """Keep the machine's other tasks from having the engine fill its disk until the block ends. `wait`: waits so many
    seconds; what it raises ends the wait.
    """
    while True:
        with layout.lock(_LOCK, wait=False) as held:
            if held:
                yield
                return
        wait(_LOOK_SECONDS)


def keep(folder: Path | None) -> None:
    """Wait until all that was written to the file system of the engine's folder is on disk; nothing if that is not seen
    here. Raises OSError.

    Docker does not: after a loss of power, files of an image that it had taken may be empty (containerd has an option
    for that, image_pull_with_sync_fs), and an app that fails for it would be voted to have failed.
    """
    if folder is None:
        return
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syncfs(opened) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    finally:
        os.close(opened)


@contextmanager
def room_for_copies(
    engine: Engine, layout: Layout, task_id: TaskId, wait: Callable[[float], None], size: int
) -> Iterator[None]:
    """Have room for `size` bytes of volumes while a container is made; without any, nothing is asked or waited for.

    Raises TaskDeclined if there is less, EngineUnavailable; `wait`: as in `alone`.
    """
    if not size:
        yield
        return
    with alone(layout, wait):
        if engine.data_folder is not None:
            disk.require_free_space(task_id, engine.data_folder, layout.least_free + size, cause=UNCLEAR_END)
        yield
