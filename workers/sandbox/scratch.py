"""Where an app writes on the engine's disk: all that it can write to but its output folder.

    its container's own layer, and the volumes that its image declares
    /etc/hosts, /etc/hostname, /etc/resolv.conf   files of the engine's that Docker binds into every container

What it prints is capped by Docker itself; /dev/shm and /dev are memory and count as such.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from protocol.errors import BadMessage
from workers.sandbox.container import Engine

_ENGINE_FILES = ("HostsPath", "HostnamePath", "ResolvConfPath")


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


def seen_scratch(engine: Engine, container: str) -> Callable[[], tuple[Path, ...]]:
    """Gives the paths of a container's `scratch_paths` if this machine sees them, else none.

    The engine is asked once, when they are first needed; that may raise EngineUnavailable and NoSuchContainer.
    """
    known: list[tuple[Path, ...]] = []

    def paths() -> tuple[Path, ...]:
        if not known:
            # Paths of an engine that is elsewhere may exist here by chance.
            found = scratch_paths(engine.inspect(container)) if engine.data_folder is not None else ()
            known.append(found if found and found[0].is_dir() else ())
        return known[0]

    return paths
