"""Connections that ask a `Limit` for the time-out of every operation, in every part of a request or an answer.

httpx's own time-outs are for one operation: a server that sends one byte at a time, in the headers of its answer or in
its body, keeps to them for ever.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import httpcore


class Limit(Protocol):
    """What one connection may take. Either method may raise if nothing is left."""

    def to_send(self, wanted: float | None) -> float | None:
        """The time-out, in seconds, of connecting or of one write: `wanted`, or less if less is left."""

    def to_read(self, wanted: float | None) -> float | None:
        """The time-out, in seconds, of one read: `wanted`, or less if less is left."""


class AnswerTime:
    """A `Limit`: each answer ends within some seconds of its first bytes, which may take the read's own time-out."""

    def __init__(self, seconds: Callable[[], float], clock: Callable[[], float] = time.monotonic) -> None:
        """`seconds`: called once for each answer; `clock`: seconds."""
        self._seconds, self._clock = seconds, clock
        self._reads, self._given, self._until = 0, 0.0, 0.0

    def to_send(self, wanted: float | None) -> float | None:
        """The time-out, in seconds, of connecting or of one write: `wanted`, or less if less is left."""
        self._reads = 0
        return wanted

    def to_read(self, wanted: float | None) -> float | None:
        """The time-out, in seconds, of one read: `wanted`, or less if less is left. Raises httpcore.ReadTimeout."""
        self._reads += 1
        if self._reads == 1:
            return wanted
        now = self._clock()
        if self._reads == 2:
            self._given = self._seconds()
            self._until = now + self._given
        left = self._until - now
        if left <= 0:
            raise httpcore.ReadTimeout(f"its answer did not end within {self._given:g} s")
        return left if wanted is None else min(wanted, left)


class LimitedNetwork(httpcore.NetworkBackend):
    """TCP connections with a limit each."""

    def __init__(self, limit: Callable[[], Limit], inner: httpcore.NetworkBackend | None = None) -> None:
        """`limit`: of a new connection; `inner`: for tests."""
        self._limit, self._inner = limit, inner or httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect, within what is left."""
        limit = self._limit()
        seconds = limit.to_send(timeout)
        return _Stream(self._inner.connect_tcp(host, port, seconds, local_address, socket_options), limit)


class _Stream(httpcore.NetworkStream):
    """A connection that asks `limit` before each operation."""

    def __init__(self, inner: httpcore.NetworkStream, limit: Limit) -> None:
        self._inner, self._limit = inner, limit

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read what is there, within what is left."""
        return self._inner.read(max_bytes, self._limit.to_read(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write all, within what is left."""
        self._inner.write(buffer, self._limit.to_send(timeout))

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        """The same connection, encrypted. The time-out is for the whole handshake, as Python's ssl has it."""
        encrypted = self._inner.start_tls(ssl_context, server_hostname, self._limit.to_send(timeout))
        return _Stream(encrypted, self._limit)

    def close(self) -> None:
        """Close the connection."""
        self._inner.close()

    def get_extra_info(self, info: str) -> Any:
        """What the connection below says of itself."""
        return self._inner.get_extra_info(info)
