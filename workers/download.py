"""One file from a URL that a stranger chose, streamed to disk and hashed, within a task's budget of time and bytes.

The budget is asked before every read from the network, whichever part of the answer the bytes belong to: a server that
drips one byte at a time, in its headers or in its body, gets no more time than one that sends nothing.
"""

from __future__ import annotations

import hashlib
import os
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import httpcore
import httpx
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from protocol.errors import Refused, StorageUnavailable, TooLarge
from workers.guard import Target, check, gateway_url, same_place
from workers.patience import Patience

#: Seconds without a byte before a download counts as dead.
STALL_SECONDS = 20.0
#: Seconds all downloads of a task may take together, however slowly their bytes drip.
TOTAL_SECONDS = 3600.0
#: All files of a task together may be this many times the largest single one.
TOTAL_FILES = 2
REDIRECTS = 5
#: A download is tried again when the server did not answer or broke off.
TRIES = 3


@dataclass(frozen=True, slots=True)
class Policy:
    """What this machine fetches, and through which gateway."""

    #: Our own IPFS gateway; trusted, so it may be at a private address.
    gateway: str
    #: Of one file.
    max_bytes: int
    allow_private: bool


class Budget:
    """What is left for the downloads of one task."""

    def __init__(self, patience: Patience, max_bytes: int, *, seconds: float = TOTAL_SECONDS) -> None:
        self._patience = patience
        self._limit = self._left = TOTAL_FILES * max_bytes
        self._seconds = seconds
        self._ends_at = time.monotonic() + seconds

    def check(self) -> None:
        """Raise Refused if the time is over, TaskDeclined if the task is."""
        self._patience.check()
        if time.monotonic() >= self._ends_at:
            raise Refused(why=f"the task's downloads take longer than {self._seconds:g} s")

    def seconds(self, wanted: float | None) -> float:
        """The time-out for one network operation: `wanted`, or less if less is left."""
        left = min(self._patience.left(), max(self._ends_at - time.monotonic(), 0.001))
        return left if wanted is None else min(wanted, left)

    def spend(self, size: int) -> None:
        """Take `size` bytes from what is left. Raises TooLarge."""
        self._left -= size
        if self._left < 0:
            raise TooLarge(limit=self._limit)


def download(url: str, target: Path, policy: Policy, budget: Budget) -> str:
    """Fetch `url` to `target`, which appears only when whole; its sha256 as `0x` hex.

    Raises TooLarge, Refused, StorageUnavailable; TaskDeclined if the task's time ends meanwhile.
    """
    through_gateway = gateway_url(url, policy.gateway)
    partial = target.with_name(target.name + f".part-{os.getpid()}")
    retrying = Retrying(
        stop=stop_after_attempt(TRIES),
        wait=wait_exponential_jitter(multiplier=0.3, max=3.0),
        retry=retry_if_exception_type(StorageUnavailable),
        reraise=True,
    )

    def may_be_private(hop: str) -> bool:
        # A gateway may send us on, but not into its neighbourhood.
        return policy.allow_private or (through_gateway is not None and same_place(hop, policy.gateway))

    try:
        found = retrying(_stream, through_gateway or url, partial, policy.max_bytes, may_be_private, budget)
        # The container's user is whoever the image says.
        partial.chmod(0o644)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return found


def _stream(url: str, partial: Path, max_bytes: int, may_be_private: Callable[[str], bool], budget: Budget) -> str:
    """One try; the sha256 as `0x` hex."""
    try:
        with (
            httpx.Client(timeout=STALL_SECONDS, transport=_Transport(budget), follow_redirects=False) as client,
            _open(client, url, may_be_private) as response,
            partial.open("wb") as file,
        ):
            return _copy(response, file.write, max_bytes, budget)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise StorageUnavailable(what=url, why=str(error) or type(error).__name__) from error


@contextmanager
def _open(client: httpx.Client, url: str, may_be_private: Callable[[str], bool]) -> Iterator[httpx.Response]:
    """The answer behind at most REDIRECTS redirects, every hop checked anew."""
    for _ in range(REDIRECTS + 1):
        with _get(client, check(url, _addresses, allow_private=may_be_private(url))) as response:
            if response.is_redirect and "location" in response.headers:
                url = str(httpx.URL(url).join(response.headers["location"]))
                continue
            if response.status_code >= 500 or response.status_code in {408, 429}:
                raise StorageUnavailable(what=url, why=f"HTTP {response.status_code}")
            if response.status_code != 200:
                raise Refused(why=f"{url} answers HTTP {response.status_code}")
            yield response
            return
    raise Refused(why=f"more than {REDIRECTS} redirects")


@contextmanager
def _get(client: httpx.Client, target: Target) -> Iterator[httpx.Response]:
    headers = {"host": target.host_header, "accept-encoding": "identity"}
    # The certificate is checked against the name although the connection goes to the address.
    extensions = {"sni_hostname": target.host}
    with client.stream("GET", target.pinned_url, headers=headers, extensions=extensions) as response:
        yield response


def _copy(response: httpx.Response, write: Callable[[bytes], int], max_bytes: int, budget: Budget) -> str:
    digest = hashlib.sha256()
    total = 0
    # Without a size: each piece as it comes from the network.
    for chunk in response.iter_raw():
        total += len(chunk)
        if total > max_bytes:
            raise TooLarge(limit=max_bytes)
        budget.spend(len(chunk))
        digest.update(chunk)
        write(chunk)
    if total == 0:
        raise StorageUnavailable(what=str(response.url), why="the file is empty")
    return "0x" + digest.hexdigest()


def _addresses(host: str, port: int) -> list[str]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise StorageUnavailable(what=host, why=str(error)) from error
    except ValueError as error:
        # A name that no DNS message can carry, or a NUL in it.
        raise Refused(why="the address names no possible host") from error
    return [str(entry[4][0]).partition("%")[0] for entry in found]


@cache
def _tls() -> ssl.SSLContext:
    """The certificates we trust, read once per process."""
    return httpx.create_ssl_context(trust_env=False)


class _Transport(httpx.HTTPTransport):
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
