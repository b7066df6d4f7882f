"""HTTP over connections that ask a budget of time before every operation, whichever part of an answer it is for."""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from functools import cache
from typing import Any, Protocol

import httpcore
import httpx


class Budget(Protocol):
    """What is left for a task's downloads (`workers.data.download.DownloadBudget`)."""

    def check(self) -> None:
        """Raise TaskDeclined if the task's time is over."""

    def seconds(self, wanted: float | None) -> float:
        """The time-out for one network operation: `wanted`, or less if less is left."""


@cache
def _tls() -> ssl.SSLContext:
    """The certificates we trust, read once per process."""
    return httpx.create_ssl_context(trust_env=False)


class BudgetedTransport(httpx.HTTPTransport):
    """httpx's transport over connections that keep to a budget."""

    def __init__(self, budget: Budget) -> None:
        super().__init__(verify=_tls(), trust_env=False)
        self._pool = httpcore.ConnectionPool(ssl_context=_tls(), network_backend=_Network(budget))


class _Network(httpcore.NetworkBackend):
    """TCP connections that ask `budget` before each operation."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._inner = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect, within what is left."""
        self._budget.check()
        seconds = self._budget.seconds(timeout)
        return _Stream(self._inner.connect_tcp(host, port, seconds, local_address, socket_options), self._budget)


class _Stream(httpcore.NetworkStream):
    """A connection that asks `budget` before each operation."""

    def __init__(self, inner: httpcore.NetworkStream, budget: Budget) -> None:
        self._inner = inner
        self._budget = budget

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read what is there, within what is left."""
        self._budget.check()
        return self._inner.read(max_bytes, self._budget.seconds(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write all, within what is left."""
        self._budget.check()
        self._inner.write(buffer, self._budget.seconds(timeout))

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        """The same connection, encrypted."""
        self._budget.check()
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, self._budget.seconds(timeout)), self._budget)

    def close(self) -> None:
        """Close the connection."""
        self._inner.close()

    def get_extra_info(self, info: str) -> Any:
        """What the connection below says of itself."""
        return self._inner.get_extra_info(info)
