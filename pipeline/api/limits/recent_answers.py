"""A cache for costly answers that anyone may request: each is made at most once every few seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from protocol.errors import Unavailable

#: Seconds an answer is given again: monitors ask every 5 s or more.
ANSWER_SECONDS = 2.0
#: Seconds beyond that for which it is still given while a new one is being made: the server that is asked may be
#: frozen, and each request that waits holds one of the API's threads (about 40).
STALE_SECONDS = 8.0
#: Requests that wait for a first answer at a time, and for how many seconds; the others get 503.
MOST_WAITING, WAIT_SECONDS = 4, 5.0


class RecentAnswers:
    """Answers by name, each made at most once in `seconds`, by one request at a time."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._clock = seconds, clock
        self._guard = threading.Lock()
        self._turns: dict[str, threading.Lock] = {}
        self._made: dict[str, tuple[float, Any]] = {}
        self._waiting = 0

    def get(self, name: str, make: Callable[[], Any]) -> Any:
        """The answer, made by `make` if there is none or it is too old; whatever `make` raises goes through.

        Raises Unavailable while others have it made and there is no recent one.
        """
        with self._guard:
            turn = self._turns.setdefault(name, threading.Lock())
        found = self._recent(name, self._seconds)
        if found is not None:
            return found[1]
        if not turn.acquire(blocking=False):
            found = self._recent(name, self._seconds + STALE_SECONDS)
            if found is not None:
                return found[1]
            self._wait_for(name, turn)
        try:
            found = self._recent(name, self._seconds)
            if found is None:
                found = self._made[name] = (self._clock(), make())
            return found[1]
        finally:
            turn.release()

    def _recent(self, name: str, seconds: float) -> tuple[float, Any] | None:
        """When an answer was made, and the answer; None if it is older than `seconds`."""
        found = self._made.get(name)
        return found if found is not None and self._clock() < found[0] + seconds else None

    def _wait_for(self, name: str, turn: threading.Lock) -> None:
        """Wait for the turn to make an answer. Raises Unavailable if too many wait, or for too long."""
        with self._guard:
            if self._waiting >= MOST_WAITING:
                raise Unavailable(what=name, why="other requests wait for the same answer")
            self._waiting += 1
        try:
            if not turn.acquire(timeout=WAIT_SECONDS):
                raise Unavailable(what=name, why=f"it has been asked for {WAIT_SECONDS:g} s by another request")
        finally:
            with self._guard:
                self._waiting -= 1
