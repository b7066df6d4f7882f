"""Where an app writes on the engine's disk, apart from its output folder.

    its container's own layer, and the volumes that its image declares
    /etc/hosts, /etc/hostname, /etc/resolv.conf   files of the engine's that Docker binds into every container
    files without a name, as long as a process has them open, wherever they were made

What it prints is capped by Docker itself; /dev/shm and /dev are memory and count as such.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from protocol.errors import BadMessage
from workers.sandbox.engine.container import Engine

_ENGINE_FILES = ("HostsPath", "HostnamePath", "ResolvConfPath")
_PROCESSES = Path("/proc")
#: Most open files of a container that are searched for those without a name: more take too long.
_MOST_OPEN = 100_000


def scratch_paths(answer: Mapping[str, Any]) -> tuple[Path, ...]:
    """Files and folders that an inspected container writes to besides its binds, as paths of the engine's machine.

    Empty if the engine does not name its layer's folder. Raises BadMessage for an answer that is no container's.
    """
    driver = answer.get("GraphDriver")
    data = driver.get("Data") if isinstance(driver, Mapping) else None
    layer = data.get("UpperDir") if isinstance(data, Mapping) else None
    if not layer:
        return ()
    mounts = answer.get("Mounts") or ()
    if not all(isinstance(mount, Mapping) for mount in mounts):
        raise BadMessage(why="its mounts are no objects")
    volumes = [mount.get("Source") for mount in mounts if mount.get("Type") == "volume"]
    return tuple(Path(str(path)) for path in (layer, *volumes, *map(answer.get, _ENGINE_FILES)) if path)


class SeenScratch:
    """The places outside its binds that a container writes to, as paths of this machine.

    The engine is asked once, at the first call; that may raise EngineUnavailable, NoSuchContainer and BadMessage.
    """

    def __init__(self, engine: Engine, container: str) -> None:
        self._engine, self._container = engine, container
        self._known: tuple[tuple[Path, ...], int] | None = None

    def _ask(self) -> tuple[tuple[Path, ...], int]:
        """The container's scratch folders and processes, asked of the engine once."""
        if self._known is None:
            self._known = _seen(self._engine, self._container)
        return self._known

    def paths(self) -> tuple[Path, ...]:
        """The container's `scratch_paths`, and deleted files that its processes still have open; empty if not visible
        here.
        """
        seen, process = self._ask()
        return (*seen, *nameless(processes_beside(process))) if process else seen

    def layer(self) -> Path | None:
        """The folder of the container's writable layer (overlay2's upper directory); None if it is not visible here.

        If the engine gives each layer a quota (overlay2 on XFS), the free space of this folder is what is left of the
        quota.
        """
        seen, _ = self._ask()
        return seen[0] if seen else None


def _seen(engine: Engine, container: str) -> tuple[tuple[Path, ...], int]:
    """(paths as of `scratch_paths`, process id here of the container's first process, 0 if it is not visible here)."""
    # Paths of an engine that is elsewhere may exist here by chance, and so may numbers of processes.
    if engine.data_folder is None:
        return (), 0
    answer = engine.inspect(container)
    found = scratch_paths(answer)
    if not found or not found[0].is_dir():
        return (), 0
    state = answer.get("State")
    process = state.get("Pid") if isinstance(state, Mapping) else None
    if type(process) is not int:
        return found, 0
    try:
        here = container in (_PROCESSES / str(process) / "cgroup").read_text()
    except OSError:
        here = False
    return found, process if here else 0


def processes_beside(process: int) -> list[Path]:
    """Folders in /proc of all processes in the same process namespace as this one, none if it has ended."""
    beside = []
    try:
        namespace = (_PROCESSES / str(process) / "ns/pid").readlink()
    except OSError:
        return []
    for folder in _PROCESSES.glob("[0-9]*"):
        with suppress(OSError):
            if (folder / "ns/pid").readlink() == namespace:
                beside.append(folder)
    return beside


def nameless(processes: Iterable[Path]) -> list[Path]:
    """Deleted files that these processes still have open, as paths below /proc."""
    found = []
    for opened in islice(_open_files(processes), _MOST_OPEN):
        with suppress(OSError):
            status = opened.stat()
            if stat.S_ISREG(status.st_mode) and status.st_nlink == 0:
                found.append(Path(opened.path))
    return found


def _open_files(processes: Iterable[Path]) -> Iterator[os.DirEntry[str]]:
    """The open files of processes."""
    for folder in processes:
        with suppress(OSError), os.scandir(folder / "fd") as entries:
            yield from entries
