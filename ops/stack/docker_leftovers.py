"""What a Docker engine of ours leaves that was killed: containers that run on under their shims, and their mounts.

Told apart from those of other engines by the address of its containerd, and by the folder.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from ops.stack.process import find_pid, parent

#: Seconds that a killed process may take to be gone.
_GONE_SECONDS = 10.0


def end_containers(containerd: Path) -> None:
    """Kill the containers whose shims belong to the containerd with its socket at `containerd`, and the shims."""
    shims = [pid for pid in _pids() if _is_shim(pid, containerd)]
    containers = [pid for pid in _pids() if parent(pid) in shims]
    # The first process of a container takes all others of it along; its shim would report its end to nobody.
    for pid in [*containers, *shims]:
        left = find_pid("a container's process", pid, word="")
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        if left is not None:
            left.exits_within(_GONE_SECONDS)


def unmount(folder: Path) -> None:
    """Take away every mount below `folder`, the deepest first, though something may still use it."""
    for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
        # The kernel writes a blank as \040.
        at = Path(line.split(" ")[1].replace("\\040", " "))
        if folder in at.parents:
            subprocess.run(["umount", "--lazy", at], capture_output=True, check=False)


def _pids() -> Iterator[int]:
    """Processes of this machine, as far as this process sees them."""
    return (int(each.name) for each in Path("/proc").iterdir() if each.name.isdigit())


def _is_shim(pid: int, containerd: Path) -> bool:
    try:
        program, *words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return Path(program).name.startswith("containerd-shim") and str(containerd) in words
