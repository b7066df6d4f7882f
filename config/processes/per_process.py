"""One value per process: connections and threads, which do not survive a fork."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class PerProcess(Generic[T]):
    """Makes a value on its first use in each process; a forked child makes its own.

    A child keeps a reference to its parent's value and never uses or closes it: closing would end the protocol on a
    socket that the parent still uses. Takes no lock, because a fork could leave a lock held for ever in the child: two
    threads that call first at the same time may both make a value, one of which is given to `discard` and never used.
    """

    def __init__(self, make: Callable[[], T], discard: Callable[[T], None] | None = None) -> None:
        self._make = make
        self._discard = discard
        self._made: dict[int, T] = {}

    def get(self) -> T:
        """This process's value. Raises what `make` raises; the next call tries again."""
        process = os.getpid()
        try:
            return self._made[process]
        except KeyError:
            made = self._make()
        kept = self._made.setdefault(process, made)
        if kept is not made and self._discard is not None:
            self._discard(made)
        return kept

    def known(self) -> T | None:
        """This process's value; None if it has not been made."""
        return self._made.get(os.getpid())

    def forget(self) -> T | None:
        """Take this process's value out, for the caller to close; None if there is none. `get` then makes another."""
        return self._made.pop(os.getpid(), None)
