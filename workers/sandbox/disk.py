"""What an app may take of this machine's disk while it runs. Docker has no limit for a bound folder, so it is watched.

every few seconds   /iexec_out is over its quota   kill it: over the pool's quota the task fails, alike everywhere;
                                                   over a smaller one of this machine it is declined
                    the disk is almost full        kill it: declined, another machine may have the space
before any work     the disk is almost full        declined
"""

from __future__ import annotations

import os
import shutil
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from protocol.errors import EngineUnavailable, TaskDeclined, TaskFailure
from protocol.results.error_result import MACHINE_FAILED, Failure
from protocol.types import TaskId

log = structlog.get_logger(__name__)

#: Seconds between two checks: a fast disk writes some 10 GB meanwhile at worst, hence LEAST_FREE_BYTES.
CHECK_SECONDS = 3.0
#: Bytes that must stay free: the journal, the lane and the engine itself stop on a full disk.
LEAST_FREE_BYTES = 2**30
#: An app may keep this many times the largest result in /iexec_out while it works, e.g. before it packs it.
WORKING_FACTOR = 4
#: Files and folders in /iexec_out at most while an app runs: far more than a result may hold, few enough to count.
WORKING_ENTRIES = 100_000
#: Length of a path in it at most, safely below what the system can open (4096).
WORKING_PATH = 3_500


def require_free_space(task_id: TaskId, folder: Path, floor: int = LEAST_FREE_BYTES) -> None:
    """Raise TaskDeclined if the disk of `folder` has less than `floor` bytes free."""
    free = shutil.disk_usage(folder).free
    if free < floor:
        raise TaskDeclined(
            task=task_id, cause=MACHINE_FAILED, why=f"this machine's disk has only {free >> 20} MiB free"
        )


def exceeds(top: Path, max_bytes: int, max_entries: int = WORKING_ENTRIES) -> bool:
    """Whether a folder that may change meanwhile holds more than this. Bytes as allocated: holes cost nothing."""
    taken = entries = 0
    waiting = [str(top)]
    while waiting:
        folder = waiting.pop()
        if len(folder) - len(str(top)) > WORKING_PATH:
            return True
        try:
            with os.scandir(folder) as found:
                for entry in found:
                    status = entry.stat(follow_symlinks=False)
                    taken += status.st_blocks * 512
                    entries += 1
                    if taken > max_bytes or entries > max_entries:
                        return True
                    if stat.S_ISDIR(status.st_mode):
                        waiting.append(entry.path)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            # The app took it away while we looked, or (rootless engine) closed it to us.
            continue
    return False


class DiskWatch:
    """Watches one app's output folder from a thread of its own, inside a `with` block.

    `kill` ends the app; may raise EngineUnavailable, after which it is tried again. `raise_if_over` afterwards.
    """

    def __init__(
        self,
        task_id: TaskId,
        folder: Path,
        max_bytes: int,
        kill: Callable[[], None],
        *,
        pool_max_bytes: int | None = None,
        floor: int = LEAST_FREE_BYTES,
        every: float = CHECK_SECONDS,
    ) -> None:
        self._task_id, self._folder, self._max_bytes, self._floor = task_id, folder, max_bytes, floor
        self._pool_max_bytes = pool_max_bytes or max_bytes
        self._kill = kill
        self._every = every
        self._over = threading.Event()
        self._verdict: TaskFailure | None = None
        self._thread = threading.Thread(target=self._watch, name="disk", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def raise_if_over(self) -> None:
        """Raise TaskFailure if the app was killed for its output, TaskDeclined if for want of room on this machine."""
        if self._verdict is not None:
            raise self._verdict

    def _watch(self) -> None:
        while not self._over.wait(self._every):
            verdict = self._look()
            if verdict is None:
                continue
            self._verdict = verdict
            log.warning("The app takes too much disk.", action="disk_over", task=self._task_id, why=str(verdict))
            try:
                self._kill()
            except EngineUnavailable as error:
                log.warning("The app is not killed yet.", action="disk_kill", task=self._task_id, why=str(error))

    def _look(self) -> TaskFailure | None:
        try:
            require_free_space(self._task_id, self._folder, self._floor)
        except TaskDeclined as declined:
            return declined
        if not exceeds(self._folder, self._max_bytes):
            return None
        if not exceeds(self._folder, self._pool_max_bytes):
            why = f"/iexec_out holds more than {self._max_bytes} bytes, the most that this machine keeps for it"
            return TaskDeclined(task=self._task_id, cause=MACHINE_FAILED, why=why)
        failure = Failure.OUTPUT_ZIP
        why = f"/iexec_out holds more than {self._pool_max_bytes} bytes or {WORKING_ENTRIES} entries"
        return TaskFailure(task=self._task_id, status=failure.status, cause=failure, why=why)
