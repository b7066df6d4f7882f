"""Does together what several requests ask for at the same time, where a call to a server for many costs it little more
than one for one.

    request 1 ─► nothing is under way: begins at once, alone
    request 2, 3, 4 ─► wait while 1 is under way, then go together, by the thread of one of them

Each request waits in its own thread. How many may, and for how long, is bounded, as in `config.http_server.turns`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from protocol.errors import Unavailable

T = TypeVar("T")


@dataclass(eq=False)
class _Asked(Generic[T]):
    """One request: `failed` is why it was not done, once it is `over`."""

    item: T
    over: bool = False
    failed: Exception | None = None


class Batches(Generic[T]):
    """Items that are done together. Safe to share between threads.

    `act`: does several items, one call at a time, and returns for each why it was not done, or None; what it raises
    counts for all of them. `most`: requests under way and waiting, together.
    """

    def __init__(self, act: Callable[[Sequence[T]], Sequence[Exception | None]], *, what: str, most: int) -> None:
        """`what`: names the server in the error of a request for which there is no room or no time."""
        self._act, self._what, self._most = act, what, most
        self._changed = threading.Condition()
        self._waiting: list[_Asked[T]] = []
        self._under_way = 0

    def add(self, item: T, *, seconds: float) -> None:
        """Have it done with those of other threads; returns once it is.

        Raises Unavailable where too many wait, or if it was not begun after `seconds`, and what made it fail.
        """
        asked, until = _Asked(item), time.monotonic() + seconds
        with self._changed:
            if len(self._waiting) + self._under_way >= self._most:
                raise Unavailable(what=self._what, why="too many ask at once")
            self._waiting.append(asked)
            while self._under_way and not asked.over:
                # One that is begun is waited for: its call has a time-out of its own.
                left = until - time.monotonic() if asked in self._waiting else None
                if left is not None and left <= 0:
                    self._waiting.remove(asked)
                    raise Unavailable(what=self._what, why="too many ask at once")
                self._changed.wait(left)
            together, self._waiting = ([], self._waiting) if asked.over else (self._waiting, [])
            self._under_way += len(together)
        if together:
            self._do(together)
        if asked.failed is not None:
            raise asked.failed

    def _do(self, together: Sequence[_Asked[T]]) -> None:
        """Do these, and let the next ones go."""
        # What holds if this thread itself is ended.
        failures: Sequence[Exception | None] = [Unavailable(what=self._what, why="it was cut off")] * len(together)
        try:
            failures = self._act([asked.item for asked in together])
        except Exception as error:  # noqa: BLE001 - each request raises it in its own thread
            failures = [error] * len(together)
        finally:
            with self._changed:
                for asked, failed in zip(together, failures, strict=True):
                    asked.failed = failed
                for asked in together:
                    asked.over = True
                self._under_way -= len(together)
                self._changed.notify_all()
