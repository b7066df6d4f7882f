"""One file from a URL that a stranger chose, streamed to disk and hashed, within a task's budget of time and bytes.

The budget is asked before every read from the network, whichever part of the answer the bytes belong to: a server that
sends one byte at a time, in its headers or in its body, gets no more time than one that sends nothing.

Errors: Refused and TooLarge would happen on every machine; RefusedHere may happen on this one only; StorageUnavailable
is transient, and the download is retried, at each address of the host, until the app needs the rest of the task's time.
"""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import structlog

from config.connections.http_dates import read_retry_after
from protocol.errors import Refused, RefusedHere, StorageUnavailable, TooLarge
from workers.data import gateway_absence
from workers.data.guard import DownloadTarget, check, gateway_url, inside_gateway, same_host, same_place
from workers.data.own_addresses import is_own
from workers.data.transport import BudgetedTransport
from workers.task.deadline import TaskDeadline, backoff
from workers.task.outcome import verdict
from workers.task.outcome.verdict import Verdict

log = structlog.get_logger(__name__)

#: Seconds without a byte before a download counts as dead.
STALL_SECONDS = 20.0
#: Seconds for a connection; a host may have several addresses, and a dead one should not take long.
CONNECT_SECONDS = 10.0
#: All files of a task together may be this many times the largest single one.
TOTAL_FILES = 2
REDIRECTS = 5
#: What the operator can do about a gateway at a private address.
_HOW = "only you may name such a one: SLUICE_IPFS_GATEWAY"
#: Bytes between two checks of the free disk space.
DISK_CHECK_BYTES = 16 * 2**20


@dataclass(frozen=True, slots=True)
class DownloadPolicy:
    """What this machine fetches, and through which gateway."""

    #: Our own IPFS gateway.
    gateway: str
    #: Bytes of one file that this machine takes.
    max_bytes: int
    allow_private: bool
    #: Bytes of one file that every machine of the pool takes at most; None: `max_bytes`.
    pool_max_bytes: int | None = None
    #: Whether the gateway may be at a private address: not if only the pool named it.
    private_gateway: bool = False


def _too_large(size: int, own: int, pool: int | None) -> Refused | TooLarge:
    """The error for `size` bytes where this machine takes `own` and every machine of the pool `pool` at most."""
    if size > (pool or own):
        return TooLarge(limit=pool or own)
    return RefusedHere(why=f"more than {own} bytes, the most that this machine takes")


class DownloadBudget:
    """Time and bytes left for the downloads of one task. `room` is called every few MiB; an error that it raises ends
    the download.
    """

    def __init__(
        self,
        deadline: TaskDeadline,
        max_bytes: int,
        pool_max_bytes: int | None = None,
        room: Callable[[], None] = lambda: None,
    ) -> None:
        self.deadline = deadline
        self.room = room
        self._limit = self._left = TOTAL_FILES * max_bytes
        self._pool_limit = TOTAL_FILES * (pool_max_bytes or max_bytes)

    def check(self) -> None:
        """Raise TaskDeclined if the task's time, or that for what it needs, is over."""
        self.deadline.check_fetch()

    def seconds(self, wanted: float | None) -> float:
        """The time-out for one network operation: `wanted`, or less if less is left."""
        left = self.deadline.seconds_left()
        return left if wanted is None else min(wanted, left)

    def spend(self, size: int) -> None:
        """Take `size` bytes from what is left. Raises TooLarge, or RefusedHere if only this machine's limit is less."""
        self._left -= size
        if self._left < 0:
            raise _too_large(self.spent, self._limit, self._pool_limit)

    def refund(self, size: int) -> None:
        """Add the bytes of a failed attempt to the budget again."""
        self._left += size

    @property
    def spent(self) -> int:
        """Bytes taken so far."""
        return self._limit - self._left


def download(url: str, target: Path, policy: DownloadPolicy, budget: DownloadBudget) -> str:
    """Fetch `url` to `target`, which appears only when whole; its sha256 as `0x` hex.

    Raises TooLarge and Refused (alike on every machine), RefusedHere; TaskDeclined if the task's time does not suffice.
    """
    through_gateway = gateway_url(url, policy.gateway)
    # One name for all attempts, of which only one is at work: what a killed one has left, an app would find beside its
    # inputs.
    partial = target.with_name(f"{target.name}.part")
    private = _private_rule(policy, through_gateway)
    failures = 0
    try:
        while True:
            before = budget.spent
            try:
                found = _whole(through_gateway or url, partial, policy, private, budget, failures)
                break
            except Refused as error:
                if through_gateway is not None and "private" in error.fields:
                    # It says nothing of the file, and other machines may have another gateway.
                    raise RefusedHere(why=f"the IPFS gateway: {error.fields['why']} ({_HOW})") from error
                raise
            except StorageUnavailable as error:
                budget.refund(budget.spent - before)
                failures += 1
                log.warning(
                    "A download failed; it is retried.", action="download_retry", tries=failures, why=str(error)
                )
                budget.deadline.wait_before_fetch(max(backoff(failures), retry_after(error)), str(error))
        # The container's user is whoever the image says.
        partial.chmod(0o644)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return found


def _private_rule(policy: DownloadPolicy, through_gateway: str | None) -> Callable[[str], bool]:
    """The rule which hops may lead to private addresses: only those to content at this machine's own gateway, if it may
    have one.
    """
    near = policy.private_gateway and through_gateway is not None
    return lambda hop: policy.allow_private or (near and inside_gateway(hop, policy.gateway))


def retry_after(error: StorageUnavailable) -> float:
    """Seconds that the server asked us to wait."""
    seconds = error.fields.get("retry_after", 0.0)
    return seconds if isinstance(seconds, float) else 0.0


def _whole(
    url: str,
    partial: Path,
    policy: DownloadPolicy,
    private: Callable[[str], bool],
    budget: DownloadBudget,
    failures: int,
) -> str:
    """Download once to `partial`; returns the sha256 as `0x` hex. An answer that only a closed connection ends may be
    cut off, so it is fetched twice and has to be the same both times.
    """
    before = budget.spent
    found, has_end = _stream(url, partial, policy, private, budget, failures)
    if not has_end:
        budget.refund(budget.spent - before)
        again, _ = _stream(url, partial, policy, private, budget, failures)
        if again != found:
            raise StorageUnavailable(what=url, why="it differs each time, and nothing says where it ends")
    return found


def _stream(
    url: str,
    partial: Path,
    policy: DownloadPolicy,
    private: Callable[[str], bool],
    budget: DownloadBudget,
    failures: int,
) -> tuple[str, bool]:
    """What is sent: the sha256 as `0x` hex, and whether the answer says itself where it ends."""
    timeout = httpx.Timeout(STALL_SECONDS, connect=CONNECT_SECONDS)
    try:
        with (
            httpx.Client(timeout=timeout, transport=BudgetedTransport(budget), follow_redirects=False) as client,
            _open(client, url, private, failures, policy.gateway) as response,
            partial.open("wb") as file,
        ):
            return _copy(response, file.write, policy, budget), _has_end(response)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise StorageUnavailable(what=url, why=str(error) or type(error).__name__) from error


@contextmanager
def _open(
    client: httpx.Client, url: str, private: Callable[[str], bool], failures: int, gateway: str
) -> Iterator[httpx.Response]:
    """The answer behind at most REDIRECTS redirects, which holds the file."""
    # The pool's servers may be beside this machine: content of the gateway is what anybody gets of it.
    with _follow(client, url, private, failures, {}, lambda hop: inside_gateway(hop, gateway)) as (response, found):
        if response.status_code != 200:
            # Another address than the deal's may hold its server's signature for one reader: anybody may read a cause.
            shown = found if found == url else found.partition("?")[0]
            error = _bad_status(shown, response)
            if isinstance(error, Refused) and inside_gateway(found, gateway):
                reason = _head(response, gateway_absence.REASON_BYTES).decode(errors="replace")
                if not _is_absent(client, reason, gateway, private, failures):
                    error = StorageUnavailable(
                        what=shown, why=f"HTTP {response.status_code}: the gateway has it not now"
                    )
            with _elsewhere(not same_host(found, url)):
                raise error
        yield response


def _is_absent(client: httpx.Client, reason: str, gateway: str, private: Callable[[str], bool], failures: int) -> bool:
    """Whether the folder that a gateway names as lacking something has no such entry, by the folder's own block."""
    link = gateway_absence.missing_link(reason)
    if link is None:
        return False
    folder, name = link
    url = f"{gateway.rstrip('/')}/ipfs/{folder}?format=raw"
    headers = {"accept": "application/vnd.ipld.raw"}
    with _follow(client, url, private, failures, headers, lambda hop: inside_gateway(hop, gateway)) as (response, _):
        block = _head(response, gateway_absence.BLOCK_BYTES) if response.status_code == 200 else b""
    return gateway_absence.lacks(block, name)


def _head(response: httpx.Response, most: int) -> bytes:
    """The first bytes of an answer's body."""
    found = bytearray()
    for chunk in response.iter_raw():
        found += chunk
        if len(found) >= most:
            break
    return bytes(found[:most])


@contextmanager
def answered(
    url: str,
    private: Callable[[str], bool],
    budget: DownloadBudget,
    headers: Mapping[str, str],
    failures: int = 0,
) -> Iterator[httpx.Response]:
    """The answer behind at most REDIRECTS redirects, of any status. `private`: which hops may be at private addresses.

    Credentials in `headers` go to the first host alone. Raises Refused, RefusedHere, StorageUnavailable, TaskDeclined.
    """
    timeout = httpx.Timeout(STALL_SECONDS, connect=CONNECT_SECONDS)
    try:
        with (
            httpx.Client(timeout=timeout, transport=BudgetedTransport(budget), follow_redirects=False) as client,
            _follow(client, url, private, failures, headers) as (response, _),
        ):
            yield response
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise StorageUnavailable(what=url, why=str(error) or type(error).__name__) from error


def _none(_: str) -> bool:
    """False: the rule by which no hop may lead to such an address."""
    return False


@contextmanager
def _follow(
    client: httpx.Client,
    url: str,
    private: Callable[[str], bool],
    failures: int,
    headers: Mapping[str, str],
    own: Callable[[str], bool] = _none,
) -> Iterator[tuple[httpx.Response, str]]:
    """The answer behind at most REDIRECTS redirects, every hop checked anew, and the URL that gave it. `own`: which
    hops may lead to a public address of this machine's own.
    """
    first = url
    for hop in range(REDIRECTS + 1):
        elsewhere = not same_host(url, first)
        with _elsewhere(hop > 0 and elsewhere):
            target = check(url, _addresses, allow_private=private(url), is_own=_none if own(url) else is_own)
        # A URL signed for one reader refuses a second kind of credentials, and another host has no right to them.
        sent = headers if same_place(url, first) else {k: v for k, v in headers.items() if k != "authorization"}
        with _get(client, target, failures, sent) as response:
            if response.is_redirect and "location" in response.headers:
                url = str(httpx.URL(url).join(response.headers["location"]))
                continue
            yield response, url
            return
    raise RefusedHere(why=f"more than {REDIRECTS} redirects")


@contextmanager
def _elsewhere(redirected: bool) -> Iterator[None]:
    """Within the block, raise RefusedHere for Refused: a redirect may lead each machine to another place."""
    try:
        yield
    except Refused as error:
        if redirected:
            raise RefusedHere(why=f"{error} (after a redirect)") from error
        raise


def _bad_status(url: str, response: httpx.Response) -> Exception:
    """The error for an answer that is not the file."""
    status = response.status_code
    match verdict.of_http(status):
        case Verdict.APP:
            return Refused(why=f"{url} answers HTTP {status}")
        case Verdict.MACHINE:
            return RefusedHere(why=f"{url} answers HTTP {status}")
        case Verdict.RETRY:
            wait = read_retry_after(response.headers.get("retry-after"), datetime.now(UTC))
            return StorageUnavailable(what=url, why=f"HTTP {status}", retry_after=wait)


@contextmanager
def _get(
    client: httpx.Client, target: DownloadTarget, failures: int, extra: Mapping[str, str]
) -> Iterator[httpx.Response]:
    """The answer of the first address that gives one; another one comes first after each failure."""
    headers = {**extra, "host": target.host_header, "accept-encoding": "identity"}
    # The certificate is checked against the name although the connection goes to the address.
    extensions = {"sni_hostname": target.host}
    shift = failures % len(target.addresses)
    addresses = target.addresses[shift:] + target.addresses[:shift]
    response = None
    for address in addresses:
        request = client.build_request("GET", target.pinned(address), headers=headers, extensions=extensions)
        try:
            response = client.send(request, stream=True)
            break
        except httpx.TransportError as error:
            if address == addresses[-1]:
                raise
            log.info("Trying the host's next address.", action="next_address", address=address, why=str(error))
    if response is None:
        raise StorageUnavailable(what=target.host, why="it has no address")
    try:
        yield response
    finally:
        response.close()


def _has_end(response: httpx.Response) -> bool:
    """Whether the answer itself says where it ends (RFC 9112), so that one that is cut off is an error."""
    return "content-length" in response.headers or "transfer-encoding" in response.headers


def _copy(
    response: httpx.Response, write: Callable[[bytes], int], policy: DownloadPolicy, budget: DownloadBudget
) -> str:
    """Write the response's bytes as they come; returns their SHA-256 in hex. Raises TooLarge, Refused."""
    digest = hashlib.sha256()
    total = 0
    promised = response.headers.get("content-length", "")
    size = int(promised) if promised.isdecimal() and len(promised) < 20 else 0
    # Without a size: each piece as it comes from the network.
    for chunk in response.iter_raw():
        total += len(chunk)
        if total > policy.max_bytes:
            raise _too_large(max(total, size), policy.max_bytes, policy.pool_max_bytes)
        budget.spend(len(chunk))
        if total // DISK_CHECK_BYTES > (total - len(chunk)) // DISK_CHECK_BYTES:
            budget.room()
        digest.update(chunk)
        write(chunk)
    if total == 0:
        raise StorageUnavailable(what=str(response.url.copy_with(query=None)), why="the file is empty")
    return "0x" + digest.hexdigest()


def _addresses(host: str, port: int) -> list[str]:
    """The IP addresses of a host. Raises StorageUnavailable, Refused."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise StorageUnavailable(what=host, why=f"this machine finds no address of it ({error})") from error
    except ValueError as error:
        # A name that no DNS message can carry, or a NUL in it.
        raise Refused(why="the address names no possible host") from error
    return [str(entry[4][0]).partition("%")[0] for entry in found]
