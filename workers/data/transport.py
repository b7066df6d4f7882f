"""HTTP over connections that ask a budget of time before every operation, whichever part of an answer it is for."""

from __future__ import annotations

import ssl
from functools import cache
from typing import Protocol

import httpcore
import httpx

from config.connections.limited_network import LimitedNetwork


class Budget(Protocol):
    """Time and bytes left for a task's downloads (`workers.data.download.DownloadBudget`)."""

    def check(self) -> None:
        """Raise TaskDeclined if the task's time is over."""

    def seconds(self, wanted: float | None) -> float:
        """The time-out for one network operation: `wanted`, or less if less is left."""


@cache
def _tls() -> ssl.SSLContext:
    """The TLS context with the trusted certificates, made once per process."""
    return httpx.create_ssl_context(trust_env=False)


class BudgetedTransport(httpx.HTTPTransport):
    """httpx's transport over connections that keep to a budget."""

    def __init__(self, budget: Budget) -> None:
        super().__init__(verify=_tls(), trust_env=False)
        network = LimitedNetwork(lambda: _Whole(budget))
        self._pool = httpcore.ConnectionPool(ssl_context=_tls(), network_backend=network)


class _Whole:
    """A `Limit` by which all connections together keep to one budget."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget

    def to_send(self, wanted: float | None) -> float:
        """The time-out, in seconds, of connecting or of one write: `wanted`, or less if less is left."""
        self._budget.check()
        return self._budget.seconds(wanted)

    to_read = to_send
