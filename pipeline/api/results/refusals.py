"""Remembers the last result that could not be stored, for the pool's health: a full disk shows in no other check."""

from __future__ import annotations

import time
from collections.abc import Callable

from pipeline.domain.condition.facts import ResultFacts


class Refusals:
    """What IPFS and this API's disk did not take. Each process knows of its own; safe to use from several threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        #: When, by `clock`, and why.
        self._last: tuple[float, str] | None = None

    def refused(self, why: str) -> None:
        """Note that a result could not be stored."""
        self._last = (self._clock(), why)

    def stored(self) -> None:
        """A result was stored."""
        self._last = None

    def facts(self) -> ResultFacts | None:
        """The last refusal; None if a result was stored since."""
        last = self._last
        return None if last is None else ResultFacts(self._clock() - last[0], last[1])
