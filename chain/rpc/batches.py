"""How many requests to put into one JSON-RPC batch: as many as the node is known to take. Pure.

Nodes limit batches (Erigon and bor 100, Nethermind 1024, hosted nodes 2 to 50) and report it in every possible way: an
error for all, an error for each, an error for the first and nothing for the rest, HTTP 413, 400, 429 or 500, a closed
connection. So no error text is read: a batch that failed as a whole is tried in halves, and a size is remembered once
a smaller batch worked where a larger one had failed. A node that fails at a single request too has another trouble, and
its size stays.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

#: Requests of the first batch: answers of so many headers or receipts are some 200 kB.
FIRST = 200
#: Least that a time-out reduces the size to: nothing shows that the size was its cause.
SLOW_LEAST = 25
#: Full batches in a row after which twice as many are tried: the limit may have been a bad moment of the node. Four
#: times as many after each further refusal, up to so many: a lasting limit costs a refused exchange ever more seldom.
CALM, MOST_REFUSALS = 50, 6


@dataclass(frozen=True, slots=True)
class BatchSize:
    """`requests` to send at most; `calm` full batches of that size in a row went well; `refusals` so far."""

    requests: int = FIRST
    calm: int = 0
    refusals: int = 0

    def worked(self, size: int, *, failed: int | None = None) -> BatchSize:
        """The size after a batch of `size` was answered; `failed`: size of a larger batch that failed just before."""
        if failed is not None:
            return BatchSize(min(size, self.requests), refusals=min(self.refusals + 1, MOST_REFUSALS))
        if size < self.requests or self.requests >= FIRST:
            return self
        if self.calm + 1 < CALM * 4 ** max(0, self.refusals - 1):
            return replace(self, calm=self.calm + 1)
        return replace(self, requests=min(2 * self.requests, FIRST), calm=0)

    def timed_out(self, size: int) -> BatchSize:
        """The size after a batch of `size` was not answered in time."""
        return replace(self, requests=min(self.requests, max(size // 2, SLOW_LEAST)), calm=0)
