"""What an app may take of this machine's disks while it runs. Docker has no limit for most of it, so it is watched.

every few seconds   /iexec_out or all else it writes is over its quota
                                          kill it: over the pool's quota the task fails, alike everywhere;
                                          over a smaller one of this machine it is declined;
                                          over it only by space that the file system keeps behind the
                                          files' ends it is declined too, and blames nobody
                    a disk is almost full, of bytes or of inodes
                                          kill it: declined, another machine may have the space
before any work     the same              declined
at the app's end    the same              declined: what it left may lack what no longer fitted
"""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from protocol.errors import EngineUnavailable, SluiceError, TaskDeclined, TaskFailure
from protocol.results.error_result import MACHINE_FAILED, UNCLEAR_END, Failure
from protocol.types import TaskId

log = structlog.get_logger(__name__)

#: Seconds between two checks of how full the disks are, while they fill slowly; and at least, while they fill fast.
CHECK_SECONDS = 3.0
LEAST_CHECK_SECONDS = 0.25
#: Times as long as counting took until it is done again: it takes at most a tenth of a processor.
COUNT_PAUSE = 9
#: Bytes that must stay free at least: the journal, the lane and the engine itself stop on a full disk.
LEAST_FREE_BYTES = 2**30
#: Inodes that must stay free, for the same reason: as many as 16 KiB of disk each make of LEAST_FREE_BYTES.
LEAST_FREE_INODES = 2**16
#: An app may keep this many times the largest result in /iexec_out while it works, e.g. before it packs it.
WORKING_FACTOR = 4
#: Files and folders in /iexec_out at most while an app runs: far more than a result may hold, few enough to count.
WORKING_ENTRIES = 100_000
#: The same for all else that an app writes: it may unpack packages there.
SCRATCH_ENTRIES = 250_000
#: Bytes of a path below them at most, safely below what the system can open (4096).
WORKING_PATH = 3_500


@dataclass(frozen=True, slots=True)
class Place:
    """Something that an app writes to, and the most that it may hold."""

    name: str
    #: Its files and folders, as far as this machine sees them. May raise EngineUnavailable, NoSuchContainer.
    paths: Callable[[], Sequence[Path]]
    #: Bytes it may hold here, and on every machine.
    max_bytes: int
    pool_bytes: int
    entries: int
    #: What it is for the task to be over `pool_bytes` or `entries`.
    failure: Failure
    #: Bytes as the engine counts them where `paths` shows none; holes count, so no vote blames the app for them.
    engine_bytes: Callable[[], int] | None = None


def free_share(folder: Path, floor: int = LEAST_FREE_BYTES, inodes: int = LEAST_FREE_INODES) -> float:
    """What is free of the disk of `folder`, as a multiple of what must be: below 1 it is almost full."""
    found = os.statvfs(folder)
    bytes_free = found.f_bavail * found.f_frsize / floor
    # Some file systems make inodes as they are needed, and say that there are none.
    return min(bytes_free, found.f_favail / inodes) if found.f_files else bytes_free


def require_free_space(
    task_id: TaskId,
    folder: Path,
    floor: int = LEAST_FREE_BYTES,
    inodes: int = LEAST_FREE_INODES,
    *,
    cause: str = MACHINE_FAILED,
) -> None:
    """Raise TaskDeclined if the disk of `folder` has less than `floor` bytes or `inodes` inodes free. `cause`: of the
    decline; UNCLEAR_END if the disk had space before the deal's own files came.
    """
    if free_share(folder, floor, inodes) < 1:
        raise TaskDeclined(task=task_id, cause=cause, why=_almost_full(folder))


def _almost_full(folder: Path) -> str:
    """How little of the disk is free, in words."""
    found = os.statvfs(folder)
    free = found.f_bavail * found.f_frsize >> 20
    return f"this machine's disk has only {free} MiB and {found.f_favail} inodes free"


def exceeds(tops: Sequence[Path], max_bytes: int, max_entries: int, *, beyond_ends: bool = False) -> bool:
    """Whether files and folders below `tops` hold more bytes or entries than allowed, or have a path longer than
    WORKING_PATH.

    They may change while they are counted. Holes cost nothing. What is allocated behind a file's end counts only with
    `beyond_ends`: an app can ask for it, but XFS does so by itself, up to 8 GB for a file that grows. A file with
    several names, or one that is moved meanwhile, counts once.
    """
    taken = 0
    seen: set[tuple[int, int]] = set()
    for status in _entries(tops):
        if status is None:
            return True
        inode = status.st_dev, status.st_ino
        if inode not in seen:
            seen.add(inode)
            allocated = status.st_blocks * 512
            taken += allocated if beyond_ends else min(allocated, status.st_size)
        if taken > max_bytes or len(seen) > max_entries:
            return True
    return False


def _entries(tops: Sequence[Path]) -> Iterator[os.stat_result | None]:
    """The status of each file that `tops` name and of all below their folders; None for a path beyond WORKING_PATH."""
    waiting: list[tuple[str, int]] = []
    for top in tops:
        status = _status_of_top(top)
        if status is not None and stat.S_ISDIR(status.st_mode):
            waiting.append((str(top), len(os.fsencode(top)) + WORKING_PATH))
        elif status is not None:
            yield status
    while waiting:
        folder, longest = waiting.pop()
        if len(os.fsencode(folder)) > longest:
            yield None
            return
        # The app took it away while we looked, or (rootless engine) closed it to us.
        with suppress(FileNotFoundError, NotADirectoryError, PermissionError), os.scandir(folder) as found:
            for entry in found:
                with suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    yield status
                    if stat.S_ISDIR(status.st_mode):
                        waiting.append((entry.path, longest))


def _status_of_top(top: Path) -> os.stat_result | None:
    """The status of a file or folder; None if it is gone.

    A link is the path of an open file below /proc: by the time it is followed, its process may have ended, or have
    closed the file and opened another by that number, even the whole image. By such a path only files without a name
    count, and no memfd: that is memory, as all of an app's is under gVisor.
    """
    with suppress(FileNotFoundError, ProcessLookupError):
        status = top.lstat()
        if not stat.S_ISLNK(status.st_mode):
            return status
        with suppress(OSError):
            status = top.stat()
            if stat.S_ISREG(status.st_mode) and status.st_nlink == 0 and status.st_dev != _memory_device():
                return status
    return None


@cache
def _memory_device() -> int:
    """The device that the kernel has for every memfd. A file that is only called like one is on another."""
    probe = os.memfd_create("sluice")
    try:
        return os.fstat(probe).st_dev
    finally:
        os.close(probe)


def _blames_app(verdict: TaskFailure | None) -> bool:
    """Whether the verdict is that the app took more than its deal allows, not more than this machine has."""
    return verdict is not None and not isinstance(verdict, TaskDeclined)


class DiskWatch:
    """Watches what one app writes, and the `disks` it writes to, from a thread of its own, inside a `with` block.

    `kill` ends the app; may raise EngineUnavailable, after which it is tried again. `raise_if_over` afterwards.
    """

    def __init__(
        self,
        task_id: TaskId,
        places: Sequence[Place],
        disks: Callable[[], Sequence[Path]],
        kill: Callable[[], None],
        *,
        floor: int = LEAST_FREE_BYTES,
        every: float = CHECK_SECONDS,
    ) -> None:
        self._task_id, self._places, self._disks, self._kill = task_id, places, disks, kill
        self._floor, self._every = floor, every
        self._over = threading.Event()
        self._verdict: TaskFailure | None = None
        self._count_again = 0.0
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
        """Raise TaskFailure if the app was killed for what it wrote; TaskDeclined if this machine had no space for it,
        or has none now.
        """
        verdict = self._verdict
        if verdict is None:
            share, disk = self._fullest()
            verdict = self._declined(_almost_full(disk)) if share < 1 else None
        if isinstance(verdict, TaskDeclined):
            # What has ended moves no files out of our sight: whether it was its own fault after all.
            with suppress(OSError, SluiceError):
                verdict = next(filter(_blames_app, map(self._judge, self._places)), verdict)
        if verdict is not None:
            raise verdict

    def _watch(self) -> None:
        """The thread: check the disk, the more often the faster it fills, until the app has ended."""
        pause, last_share = self._every, 0.0
        while not self._over.wait(pause):
            try:
                share, disk = self._fullest()
                verdict = self._check(disk if share < 1 else None)
            except (OSError, SluiceError) as error:
                log.warning("Cannot see the disk.", action="disk_look", task=self._task_id, why=str(error))
                continue
            if verdict is not None:
                self._end(verdict)
            lost_a_second = max(last_share - share, 0.0) / pause
            last_share = share
            # Half of the time until it is full, if it goes on to fill like this.
            pause = self._every
            if lost_a_second > 0:
                pause = min(max((share - 1) / lost_a_second / 2, LEAST_CHECK_SECONDS), self._every)

    def _end(self, verdict: TaskFailure) -> None:
        """Kill the app for taking too much."""
        self._verdict = verdict
        log.warning("The app takes too much disk.", action="disk_over", task=self._task_id, why=str(verdict))
        try:
            self._kill()
        except EngineUnavailable as error:
            log.warning("The app is not killed yet.", action="disk_kill", task=self._task_id, why=str(error))

    def _fullest(self) -> tuple[float, Path]:
        """The share that is free of the fullest disk, and the disk."""
        return min((free_share(disk, self._floor), disk) for disk in self._disks())

    def _check(self, full: Path | None) -> TaskFailure | None:
        """The verdict on what the app wrote; None if all is well. `full`: a folder on a disk that is almost full.

        The app's own fault counts first: an app over its quota has failed, even if little was free.
        """
        found = None
        if full is not None or time.monotonic() >= self._count_again:
            began = time.monotonic()
            found = next((verdict for verdict in map(self._judge, self._places) if verdict), None)
            ended = time.monotonic()
            self._count_again = ended + COUNT_PAUSE * (ended - began)
        if found is None and full is not None:
            found = self._declined(_almost_full(full))
        return found

    def _judge(self, place: Place) -> TaskFailure | None:
        """The verdict on one place of the app's: the app's failure, declined, or None."""
        here = f"{place.name} holds more than {place.max_bytes} bytes, the most that this machine keeps for it"
        paths = place.paths()
        if not paths:
            told = place.engine_bytes() if place.engine_bytes else 0
            return self._declined(f"{here}, by the engine's word", UNCLEAR_END) if told > place.max_bytes else None
        if not exceeds(paths, place.max_bytes, place.entries, beyond_ends=True):
            return None
        if exceeds(paths, place.pool_bytes, place.entries):
            why = f"{place.name} held more than {place.pool_bytes} bytes or {place.entries} files and folders"
            return TaskFailure(task=self._task_id, status=place.failure.status, cause=place.failure, why=why)
        if exceeds(paths, place.max_bytes, place.entries):
            return self._declined(here)
        return self._declined(f"{here}, with what is allocated behind the ends of its files", UNCLEAR_END)

    def _declined(self, why: str, cause: str = MACHINE_FAILED) -> TaskDeclined:
        """The verdict that this machine cannot hold what the app writes."""
        return TaskDeclined(task=self._task_id, cause=cause, why=why)
