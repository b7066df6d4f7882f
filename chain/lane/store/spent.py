"""Fees of the last day as a running sum: each query reads only what has changed since the query before.

    nonces   ── settled, since 24 h ──────┬── not all settled ────────
             in the sum, once each        read again each time
                                 `_through`

A process that starts reads the day once; after that only what lies above the lowest nonce that can still change.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple, Protocol

from protocol.types import Nonce


class Fee(NamedTuple):
    """What one mined nonce cost."""

    nonce: Nonce
    #: Unix seconds of the claim.
    created_at: float
    #: Wei.
    fee: int


class Fees(Protocol):
    """The questions to one lane's records; each must be answered from an index."""

    def first_since(self, since: float) -> Nonce | None:
        """The lowest nonce claimed at Unix time `since` or later."""

    def lowest_unsettled(self) -> Nonce | None:
        """The lowest nonce that is OPEN or MINED."""

    def fees(self, first: Nonce) -> Iterable[Fee]:
        """Fees of the mined nonces from `first` on, by nonce."""


class DaySum:
    """The running sum of one lane; `since` may only grow from call to call, else it starts anew."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._settled: deque[Fee] = deque()
        self._total = 0
        #: The lowest nonce that is not in the sum.
        self._next = Nonce(0)

    def since(self, since: float, lane: Fees) -> int:
        """Fees in wei of nonces claimed at Unix time `since` or later and mined."""
        if self._since is None or since < self._since:
            first = lane.first_since(since)
            if first is None:
                return 0
            self._settled, self._total, self._next = deque(), 0, first
        self._since = since
        lowest = lane.lowest_unsettled()
        if lowest is not None and lowest < self._next:
            # A reorg took back what counted as settled.
            while self._settled and self._settled[-1].nonce >= lowest:
                self._total -= self._settled.pop().fee
            self._next = lowest
        moving = 0
        for item in lane.fees(self._next):
            if lowest is not None and item.nonce >= lowest:
                moving += item.fee if item.created_at >= since else 0
            else:
                self._settled.append(item)
                self._total += item.fee
                self._next = Nonce(item.nonce + 1)
        while self._settled and self._settled[0].created_at < since:
            self._total -= self._settled.popleft().fee
        return self._total + moving
