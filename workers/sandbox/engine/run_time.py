"""How long a container's process has run, by a clock that nobody sets.

The engine's times go by its machine's wall clock. Where that was set forward meanwhile, an app that is found again
after a restart of the worker would seem to have had its time, and be voted to have failed.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

_PROCESSES: Final = Path("/proc")
#: Of /proc/<pid>/stat, behind the program's name: ticks from the system's start to the process's (proc(5), field 22).
_STARTED: Final = 19


def since_start(process: int, container: str, processes: Path = _PROCESSES) -> float | None:
    """Seconds since the first process of a container began. None if that process is not seen here, as where the engine
    is elsewhere: the number `process` may then be another process's.
    """
    folder = processes / str(process)
    try:
        if not process or container not in (folder / "cgroup").read_text():
            return None
        ticks = int((folder / "stat").read_text().rpartition(")")[2].split()[_STARTED])
    except (OSError, ValueError, IndexError):
        return None
    return max(time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"), 0.0)
