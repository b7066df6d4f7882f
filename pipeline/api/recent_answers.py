"""Answers that cost something and that anybody may ask for: made once in a while, whoever asks and however often."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

#: Seconds an answer is given again: monitors ask every 5 s or more.
ANSWER_SECONDS = 2.0


class RecentAnswers:
    """Answers by name, each made at most once in `seconds`; who asks while one is being made waits for that one."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._clock = seconds, clock
        self._guard = threading.Lock()
        self._turns: dict[str, threading.Lock] = {}
        self._made: dict[str, tuple[float, Any]] = {}

    def get(self, name: str, make: Callable[[], Any]) -> Any:
        """The answer, made by `make` if there is none or it is too old; whatever `make` raises goes through."""
        with self._guard:
            turn = self._turns.setdefault(name, threading.Lock())
        with turn:
            found = self._made.get(name)
            if found is None or self._clock() >= found[0] + self._seconds:
                found = self._made[name] = (self._clock(), make())
            return found[1]
