"""A deal's dataset and input files, streamed to disk, hashed on the way, never more than the cap.

Datasets are checked against their on-chain sha256 and kept by it, so the tasks of one bag fetch it once. Failures
carry iExec's causes: the requester reads them in the error result (worker.md §2.3, §4.7).
"""

from __future__ import annotations

import hashlib
import os
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import httpx
import structlog
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from protocol.errorresult import Failure
from protocol.errors import Refused, StorageUnavailable, TaskFailure, TooLarge
from protocol.params import DealParams
from protocol.wire import Assignment, Dataset
from workers.guard import Target, check, gateway_url
from workers.layout import Layout
from workers.sandbox import input_file_name

log = structlog.get_logger(__name__)

#: Seconds without a byte before a download counts as dead.
STALL_SECONDS = 20.0
#: Seconds one download may take in all, however slowly its bytes drip.
TOTAL_SECONDS = 3600.0
CHUNK_BYTES = 2**18
REDIRECTS = 5
#: A download is tried again when the server did not answer or broke off.
TRIES = 3


@dataclass(frozen=True, slots=True)
class Policy:
    """What this machine fetches, and through which gateway."""

    #: Our own IPFS gateway; trusted, so it may be at a private address.
    gateway: str
    max_bytes: int
    allow_private: bool


def fetch(assignment: Assignment, params: DealParams, folder: Path, layout: Layout, policy: Policy) -> None:
    """Put the task's dataset and input files into `folder`. Raises TaskFailure."""
    if assignment.dataset is not None:
        _dataset(assignment, assignment.dataset, folder / assignment.dataset.address, layout, policy)
    for url in params.input_files:
        with _as_failure(assignment, Failure.INPUT_FILES):
            download(url, folder / input_file_name(url), policy)


def _dataset(assignment: Assignment, dataset: Dataset, target: Path, layout: Layout, policy: Policy) -> None:
    if target.exists():
        return
    cached = layout.cache / dataset.checksum
    with layout.hold("dataset-" + dataset.checksum, wait=True):
        if not cached.exists():
            fresh = cached.with_suffix(".unchecked")
            with _as_failure(assignment, Failure.DATASET_FILE):
                found = download(dataset.url, fresh, policy)
            if found != dataset.checksum:
                fresh.unlink()
                raise _failure(assignment, Failure.DATASET_CHECKSUM, f"its sha256 is {found}")
            fresh.replace(cached)
        # A second name for the same bytes: the container sees its folder read-only and cannot change them.
        os.link(cached, target)


@contextmanager
def _as_failure(assignment: Assignment, failure: Failure) -> Iterator[None]:
    try:
        yield
    except (StorageUnavailable, Refused, TooLarge) as error:
        raise _failure(assignment, failure, str(error)) from error


def _failure(assignment: Assignment, failure: Failure, why: str) -> TaskFailure:
    return TaskFailure(task=assignment.task_id, status=failure.status, cause=failure, why=why)


def download(url: str, target: Path, policy: Policy) -> str:
    """Fetch `url` to `target`, which appears only when whole; its sha256 as `0x` hex.

    Raises TooLarge, Refused, StorageUnavailable.
    """
    through_gateway = gateway_url(url, policy.gateway)
    partial = target.with_name(target.name + f".part-{os.getpid()}")
    retrying = Retrying(
        stop=stop_after_attempt(TRIES),
        wait=wait_exponential_jitter(multiplier=0.3, max=3.0),
        retry=retry_if_exception_type(StorageUnavailable),
        reraise=True,
    )
    try:
        found = retrying(
            _stream,
            through_gateway or url,
            partial,
            policy.max_bytes,
            allow_private=policy.allow_private or through_gateway is not None,
        )
        # The container's user is whoever the image says.
        partial.chmod(0o644)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return found


def _stream(url: str, partial: Path, max_bytes: int, *, allow_private: bool) -> str:
    """One try; the sha256 as `0x` hex."""
    deadline = time.monotonic() + TOTAL_SECONDS
    try:
        with (
            httpx.Client(timeout=STALL_SECONDS, trust_env=False, follow_redirects=False, verify=_tls()) as client,
            _open(client, url, allow_private=allow_private) as response,
            partial.open("wb") as file,
        ):
            return _copy(response, file.write, max_bytes, deadline)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise StorageUnavailable(what=url, why=str(error) or type(error).__name__) from error


@cache
def _tls() -> ssl.SSLContext:
    """The certificates we trust, read once per process."""
    return httpx.create_ssl_context(trust_env=False)


@contextmanager
def _open(client: httpx.Client, url: str, *, allow_private: bool) -> Iterator[httpx.Response]:
    """The answer behind at most REDIRECTS redirects, every hop checked anew."""
    for _ in range(REDIRECTS + 1):
        with _get(client, check(url, _addresses, allow_private=allow_private)) as response:
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


def _copy(response: httpx.Response, write: Callable[[bytes], int], max_bytes: int, deadline: float) -> str:
    digest = hashlib.sha256()
    total = 0
    for chunk in response.iter_raw(CHUNK_BYTES):
        total += len(chunk)
        if total > max_bytes:
            raise TooLarge(limit=max_bytes)
        if time.monotonic() > deadline:
            raise StorageUnavailable(what=str(response.url), why=f"not finished within {TOTAL_SECONDS:g} s")
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
    return [str(entry[4][0]).partition("%")[0] for entry in found]
