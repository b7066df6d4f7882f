"""How many requests at a time may hold a thread for something slow, so that all others find one free.

A server's routes share some 40 threads. What strangers can ask for, and another server takes its time to do, gets a
few of them; beyond that it is refused at once, and asked for again.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """Turns at something slow. Safe to share between threads."""

    def __init__(self, at_once: int, *, waiting: int) -> None:
        """`at_once`: turns at a time; `waiting`: threads that may wait for one."""
        self._turns = threading.BoundedSemaphore(at_once)
        self._places = threading.BoundedSemaphore(at_once + waiting)

    @contextmanager
    def taken(self, seconds: float) -> Iterator[bool]:
        """Whether there is a turn for the block, after waiting at most `seconds`; not at all where too many wait."""
        if not self._places.acquire(blocking=False):
            yield False
            return
        try:
            if not self._turns.acquire(timeout=seconds):
                yield False
                return
            try:
                yield True
            finally:
                self._turns.release()
        finally:
            self._places.release()
