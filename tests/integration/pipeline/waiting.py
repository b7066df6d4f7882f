"""Waiting for what other processes do: look, and look again soon, for a bounded time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
#: Seconds between two looks.
LOOK_SECONDS = 0.05


def until(what: str, look: Callable[[], T], seconds: float = 30.0) -> T:
    """The first truthy answer of `look`; fails the test after `seconds`."""
    end = time.monotonic() + seconds
    pause = threading.Event()
    while True:
        answer = look()
        if answer:
            return answer
        assert time.monotonic() < end, f"Not within {seconds:g} s: {what}; last answer {answer!r}."
        pause.wait(LOOK_SECONDS)
