"""Limits of connections, and of the time that a request's head may take.

uvicorn has a limit of idle time between two requests and one of requests at a time; it waits for ever for the rest of a
head that has begun and for a client that reads nothing, and takes any number of connections from one address. So its
HTTP protocol is extended where it learns of a connection and of data. Time for bodies: each
application's (`pipeline.api.limits.body_limit`).

connection ─► too many in all, or from its address (a trusted proxy's counts none)?  closed at once
           ─► HEAD_SECONDS until its first head is whole, or from the first byte of a further one; else closed
           ─► HEAD_SECONDS for the rest of a body whose request is answered before it is whole; else closed
answer     ─► to a request whose end is ambiguous?  closed after it
           ─► what does not fit the system's buffers is read by the client at LEAST_READ_RATE at least; else closed
"""

from __future__ import annotations

import asyncio
import resource
from collections import Counter
from collections.abc import Callable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any, ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from config.http_server.address import origin_of
from config.settings import Settings
from protocol.errors import BadSetting

#: Seconds for a request's head: honest ones come in one piece. And for the rest of a body that nobody wants any more:
#: most of it is on its way already.
HEAD_SECONDS = 10.0
#: Least bytes per second that a client must read of a long answer, checked every READ_SECONDS: a line of 64 kbit/s.
LEAST_READ_RATE = 8192
READ_SECONDS = 10.0
#: Headers of one request that say differently where its body ends. h11 goes by the second; a proxy before it that went
#: by the first would take for a body what is a request here, so that the connection ends with it (RFC 9112, 6.1).
_AMBIGUOUS = frozenset({b"content-length", b"transfer-encoding"})
#: File descriptors that the process needs besides: database, broker, IPFS, logs, uploads.
OTHER_FILES = 256


class Connections:
    """The open connections of this process, counted by client address. For one event loop."""

    def __init__(self, most: int, most_per_address: int, trusts: Callable[[str], bool]) -> None:
        """`trusts`: whether an address is a proxy that speaks for many clients."""
        self._most, self._most_per_address, self._trusts = most, most_per_address, trusts
        self._by_origin: Counter[str] = Counter()
        self._count = 0

    @classmethod
    def of(cls, settings: Settings) -> Connections:
        """With the limits of the settings, as far as the process may open files."""
        proxies = proxies_of(settings)
        most = min(settings.api_connections, _files() - OTHER_FILES)
        return cls(most, settings.api_connections_per_address, lambda host: _within(host, proxies))

    def enter(self, host: str | None) -> str | None:
        """Count a new connection; returns the address it is counted under, or None if it is one too many."""
        origin = origin_of(host)
        full = self._by_origin[origin] >= self._most_per_address and not self._trusts(host or "")
        if full or self._count >= self._most:
            if not self._by_origin[origin]:
                del self._by_origin[origin]
            return None
        self._by_origin[origin] += 1
        self._count += 1
        return origin

    def leave(self, origin: str) -> None:
        """Count a connection as closed. `origin`: the address that `enter` returned for it."""
        self._count -= 1
        self._by_origin[origin] -= 1
        if not self._by_origin[origin]:
            del self._by_origin[origin]


def proxies_of(settings: Settings) -> list[IPv4Network | IPv6Network]:
    """The networks of SLUICE_TRUSTED_PROXIES. Raises BadSetting."""
    try:
        return [ip_network(item.strip()) for item in settings.trusted_proxies.split(",") if item.strip()]
    except ValueError as error:
        raise BadSetting(
            name="SLUICE_TRUSTED_PROXIES", why=str(error), fix="Write addresses or networks: 127.0.0.1,10.0.0.0/8."
        ) from error


def _within(host: str, networks: Sequence[IPv4Network | IPv6Network]) -> bool:
    """Whether a host is an IP address in one of the networks."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return any(address in network for network in networks)


def _files() -> int:
    """Number of files that the process may open, after it has raised the limit as far as it can."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return 65536 if soft == resource.RLIM_INFINITY else soft


class BoundedProtocol(H11Protocol):
    """uvicorn's HTTP protocol with these limits. For a class made by `bounded_protocol`."""

    places: ClassVar[Connections]
    head_seconds: ClassVar[float]
    read_seconds: ClassVar[float]
    _origin: str | None = None
    _head_timer: asyncio.TimerHandle | None = None
    _read_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Count the connection, and close it if it is one too many; asyncio calls it."""
        peer = transport.get_extra_info("peername")
        self._origin = self.places.enter(peer[0] if peer else None)
        super().connection_made(transport)
        if self._origin is None:
            transport.abort()
        else:
            self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Count the connection as closed; asyncio calls it."""
        self._stop_timer()
        self._stop_read_timer()
        if self._origin is not None:
            self.places.leave(self._origin)
            self._origin = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on; time runs while a request's head is not complete. asyncio calls it."""
        if self._origin is None:
            return
        unwanted = self._reads_unwanted()
        super().data_received(data)
        if unwanted and not self._reads_unwanted():
            # It is whole: the next head has a time of its own.
            self._stop_timer()
        # IDLE: no head is whole. A part of one that is here already counts, whatever the idle time.
        if self.conn.their_state is h11.IDLE or self._reads_unwanted():
            self._start_timer()
        else:
            self._stop_timer()

    def on_response_complete(self) -> None:
        """Start the timer for the rest of this request's body, or for the next one's head if part of it is here
        already; uvicorn calls it.
        """
        if {name for name, _ in self.headers} >= _AMBIGUOUS:
            # Before what follows is taken for a next request.
            self.transport.close()
        super().on_response_complete()
        if self._reads_unwanted() or (self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]):
            self._start_timer()

    def send_400_response(self, msg: str) -> None:
        """Say that what came is no HTTP; where the answer to a request has begun, or was given, only close. uvicorn
        calls it.
        """
        if self.conn.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            super().send_400_response(msg)
        else:
            self.transport.abort()

    def pause_writing(self) -> None:
        """Watch whether the client reads on: much of an answer waits for it. asyncio calls it."""
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        """Stop watching the client's reading: it has read nearly all. asyncio calls it."""
        super().resume_writing()
        self._stop_read_timer()

    def _watch_reader(self) -> None:
        """Check in `read_seconds` whether the client has read enough of what waits for it."""
        waiting = self.transport.get_write_buffer_size()
        self._read_timer = self.loop.call_later(self.read_seconds, self._require_progress, waiting)

    def _require_progress(self, before: int) -> None:
        """Close the connection if the client has read too little since `before` bytes waited for it, else go on
        watching.
        """
        if before - self.transport.get_write_buffer_size() < LEAST_READ_RATE * self.read_seconds:
            self.transport.abort()
        else:
            self._watch_reader()

    def _stop_read_timer(self) -> None:
        """Watch the client's reading no longer."""
        if self._read_timer is not None:
            self._read_timer.cancel()
            self._read_timer = None

    def _reads_unwanted(self) -> bool:
        """Whether a body is still coming whose request is answered. h11 reads all of it, however long it is."""
        return self.conn.our_state is h11.DONE and self.conn.their_state is h11.SEND_BODY

    def _start_timer(self) -> None:
        """Give the client `head_seconds` for the head of its next request, or for the rest of an unwanted body."""
        if self._head_timer is None and not self.transport.is_closing():
            self._head_timer = self.loop.call_later(self.head_seconds, self._give_up)

    def _stop_timer(self) -> None:
        """End that time: what it was for is there, or the connection is closed."""
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _give_up(self) -> None:
        """Close the connection if what was waited for did not come in time."""
        self._head_timer = None
        if self.conn.their_state is h11.IDLE or self._reads_unwanted():
            self.transport.abort()


def bounded_protocol(
    connections: Connections, head_seconds: float = HEAD_SECONDS, read_seconds: float = READ_SECONDS
) -> type[asyncio.Protocol]:
    """A class for uvicorn's option `http`; all its instances share `connections`."""
    bounds = {"places": connections, "head_seconds": head_seconds, "read_seconds": read_seconds}
    return type("Bounded", (BoundedProtocol,), bounds)
