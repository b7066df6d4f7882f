"""The only place where a test waits: until a condition holds, bounded, looking at short even steps."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

#: Seconds between two looks.
LOOK_SECONDS = 0.02


def wait_until(condition: Callable[[], T], seconds: float, *, what: str = "the condition") -> T:
    """The first truthy answer of `condition`; fails the test if there is none within `seconds`."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come true within {seconds} s; last answer: {answer!r}")
        pause.wait(LOOK_SECONDS)
