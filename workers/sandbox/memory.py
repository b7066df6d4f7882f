"""Whether an app that was killed for memory had reached its own limit, or this machine's memory had run out.

    cgroup v1   the engine's word says: it listens where only a limit of the app's own is told
    cgroup v2   the engine's word comes from `oom_kill`, which counts kills by any OOM killer, also by that of a machine
                that is short of memory. Beside it stands `oom`: allocations that failed at the limit itself.
                The files go with the container, so they are read while it runs, at each change

Where v2's files are not seen (an engine elsewhere, a worker in a container without its host's cgroups), nothing shows
that the limit was the cause, and the app is not blamed.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from protocol.errors import SluiceError

#: Where the kernel shows cgroups, and processes.
_CGROUPS, _PROCESSES = Path("/sys/fs/cgroup"), Path("/proc")
#: Below `_CGROUPS`, where Docker puts containers if nobody says otherwise: with systemd, with a rootless engine under
#: systemd, and without systemd.
_PLACES: Final = (
    "system.slice/docker-{container}.scope",
    "user.slice/user-{user}.slice/user@{user}.service/user.slice/docker-{container}.scope",
    "docker/{container}",
)
#: Milliseconds between two reads of what the kernel should have notified at once.
_LOOK_MS: Final = 1000
#: A file of counters is some hundred bytes.
_FILE_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class Counters:
    """What a cgroup of v2 counts in `memory.events`, of itself and all below it."""

    #: Allocations that failed at a limit in it.
    oom: int
    #: Processes in it that any OOM killer has killed.
    kills: int


def read_counters(text: str) -> Counters | None:
    """The counters in the text of `memory.events`; None for any other text."""
    try:
        found = {name: int(number) for name, number in (line.split() for line in text.splitlines())}
        return Counters(found["oom"], found["oom_kill"])
    except (ValueError, KeyError):
        return None


def is_own_limit(own: Counters | None, beside: int | None) -> bool:
    """Whether an app that was killed for its memory had reached its own limit.

    `own`: the last that was read of its cgroup. `beside`: failed allocations at limits of all containers of the same
    parent since before it began, which stay when the container goes; None if unknown.
    """
    if own is not None and (own.oom or own.kills):
        return own.oom > 0
    return beside is not None and beside > 0


class MemoryWatch:
    """Watches which memory limit one container reaches, from a thread of its own, inside a `with` block.

    Made before the container starts, and entered when it runs. `cgroups`: version of the engine's machine. `inspect`:
    the engine's, asked only where the container is not in the usual place.
    """

    def __init__(
        self, container: str, cgroups: int, inspect: Callable[[str], Mapping[str, Any]], root: Path = _CGROUPS
    ) -> None:
        self._container, self._cgroups, self._inspect, self._root = container, cgroups, inspect, root
        self._before = {place.parent: _ooms_below(place.parent) for place in self._places} if cgroups > 1 else {}
        self._folder: Path | None = None
        self._seen: Counters | None = None
        self._thread: threading.Thread | None = None
        self._stop = -1

    def __enter__(self) -> Self:
        if self._cgroups > 1:
            self._folder = self._found()
        if self._folder is not None:
            with suppress(OSError):
                opened = os.open(self._folder / "memory.events", os.O_RDONLY | os.O_CLOEXEC)
                self._stop = os.eventfd(0, os.EFD_CLOEXEC)
                self._thread = threading.Thread(target=self._watch, args=(opened,), name="memory", daemon=True)
                self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread is not None:
            os.eventfd_write(self._stop, 1)
            self._thread.join()
            os.close(self._stop)

    def is_own_limit(self) -> bool:
        """Whether a kill for memory, which the engine reports, was due to the container's own limit."""
        if self._cgroups <= 1:
            return True
        before = None if self._folder is None else self._before.get(self._folder.parent)
        now = None if self._folder is None else _ooms_below(self._folder.parent)
        return is_own_limit(self._seen, None if before is None or now is None else now - before)

    @property
    def _places(self) -> list[Path]:
        """The usual paths of the container's cgroup."""
        return [self._root / place.format(container=self._container, user=os.getuid()) for place in _PLACES]

    def _found(self) -> Path | None:
        """The container's cgroup; None if it is not seen here, or has ended."""
        for place in self._places:
            if place.is_dir():
                return place
        with suppress(OSError, SluiceError, KeyError, TypeError, ValueError):
            process = int(self._inspect(self._container)["State"]["Pid"])
            below = (_PROCESSES / str(process) / "cgroup").read_text().rpartition("::/")[2].strip()
            place = self._root / below
            # Numbers of another machine's processes may exist here by chance.
            if self._container in below and place.is_dir():
                return place
        return None

    def _watch(self, opened: int) -> None:
        """The thread: read the counters whenever they change, until the app has ended."""
        changes = select.poll()
        changes.register(opened, select.POLLPRI)
        changes.register(self._stop, select.POLLIN)
        try:
            while self._read(opened) and all(handle != self._stop for handle, _ in changes.poll(_LOOK_MS)):
                pass
            self._read(opened)
        finally:
            os.close(opened)

    def _read(self, opened: int) -> bool:
        """Store the counters as they are now; False if the cgroup is gone, and then the counters read last are kept."""
        try:
            self._seen = read_counters(os.pread(opened, _FILE_BYTES, 0).decode()) or self._seen
        except OSError:
            return False
        return True


def _ooms_below(folder: Path) -> int | None:
    """Failed allocations at limits of the cgroups below `folder`, without those at its own; None if it is not seen."""
    try:
        every = read_counters((folder / "memory.events").read_text())
        own = read_counters((folder / "memory.events.local").read_text())
    except OSError:
        return None
    return None if every is None or own is None else every.oom - own.oom
