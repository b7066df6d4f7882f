"""Gives a container's folders to the user that its root is outside, on an engine with user namespaces.

What nobody in the container owns, not even its root can chmod or chown: an entry point that hands /iexec_out to a user
of its own would fail there, and pre-compute could not fill /iexec_in.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Final

from workers.sandbox.spec import ContainerSpec

#: How an engine with `userns-remap` names its folder, as in /var/lib/docker/100000.100000: user and group.
_REMAPPED: Final = re.compile(r"(\d+)\.(\d+)")


def container_root(engine_folder: Path | None) -> tuple[int, int] | None:
    """User and group outside of root in a container, by the engine's folder; None if they are root's, or not known."""
    found = _REMAPPED.fullmatch(engine_folder.name) if engine_folder is not None else None
    return (int(found[1]), int(found[2])) if found else None


def give(spec: ContainerSpec, engine_folder: Path | None) -> None:
    """Give the container's two folders to its root, unless that is root outside too."""
    root = container_root(engine_folder)
    if root is None:
        return
    for folder in (spec.inputs, spec.outputs):
        # A file system that has no owners: all can write to the output folder anyway.
        with suppress(OSError):
            os.chown(folder, *root, follow_symlinks=False)
