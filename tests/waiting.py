"""The only place where a test waits: until a condition holds, checked at short even intervals, with a bound.

Bounds are a safety net, so that a test whose wait never ends fails with a sentence. How fast the machine is must never
decide a test: a bound is written as what is ample on a machine with nothing else to do, and SLOWEST stretches it.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

#: How many times slower than an idle machine the slowest one may be that the tests must pass on: one core of two at
#: half speed beside two busy loops is 8 times slower, and a test is one of six at a time.
SLOWEST = 10
#: Seconds between two looks: at first, and at most. What takes long need not be looked at often.
FIRST_LOOK_SECONDS, LOOK_SECONDS = 0.02, 0.25


def ample(seconds: float) -> float:
    """The bound in seconds for what takes less than `seconds` on an idle machine."""
    return seconds * SLOWEST


def wait_until(condition: Callable[[], T], seconds: float, *, what: str = "the condition") -> T:
    """The first truthy answer of `condition`; fails the test if there is none within `ample(seconds)`."""
    deadline = time.monotonic() + ample(seconds)
    pause = threading.Event()
    look = FIRST_LOOK_SECONDS
    while True:
        late = time.monotonic() > deadline
        answer = condition()
        if answer:
            return answer
        if late:
            raise AssertionError(f"{what} did not come true within {ample(seconds):g} s; last answer: {answer!r}")
        pause.wait(look)
        look = min(LOOK_SECONDS, look * 1.1)


def until(what: str, look: Callable[[], T], seconds: float = 30.0) -> T:
    """`wait_until` for those who say first what they wait for."""
    return wait_until(look, seconds, what=what)


def freeze(pid: int) -> None:
    """Stop a process (SIGSTOP); returns once it stands still, or has ended.

    The signal takes effect when one of its threads is next scheduled. On a busy machine the others go on until then.
    """
    os.kill(pid, signal.SIGSTOP)
    until(f"process {pid} to stand still", lambda: _states(pid) <= {"T", "Z", "X"}, 10)


def _states(pid: int) -> set[str]:
    """The states of a process's threads, as /proc has them."""
    found = set()
    for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
        with suppress(OSError):
            found.add(stat.read_text().rpartition(")")[2].split()[0])
    return found
