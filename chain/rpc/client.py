"""JSON-RPC to one Ethereum node over HTTP keep-alive: single calls and batches.

A node that answers with an error raises RpcError; a node that does not answer raises RpcUnavailable, after which nobody
knows whether it acted. Reads are tried again when the connection was refused or cut (a node that restarts, a keep-alive
connection it closed); a time-out is never tried again, so a frozen node costs one `timeout` and no more. Anything that
changes state is sent exactly once.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, Self
from urllib.parse import urlsplit

import structlog
from requests import ConnectionError as CannotConnect
from requests import RequestException, Timeout
from requests.adapters import BaseAdapter
from requests.exceptions import ChunkedEncodingError
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_fixed
from urllib3.exceptions import MaxRetryError, ProtocolError

from chain.rpc.answers import Reply
from chain.rpc.batches import BatchSize
from chain.rpc.library import load_web3
from chain.rpc.response import Fits, NoAnswer, anything_fits, cut_short, node_error, read_answers, wholly_failed
from chain.rpc.session import TooLong
from config.metrics import RPC_REQUESTS, RPC_SECONDS
from config.processes.per_process import PerProcess
from protocol.errors import RpcError, RpcUnavailable

if TYPE_CHECKING:
    from chain.rpc.transport import Transport

log = structlog.get_logger(__name__)

#: One request of a batch: method and its parameters.
Request = tuple[str, Sequence[object]]

#: Methods that only read: asking again is harmless.
_READS = (
    "eth_call",
    "eth_get",
    "eth_block",
    "eth_chainId",
    "eth_fee",
    "eth_gasPrice",
    "eth_max",
    "eth_estimate",
    "eth_syncing",
)
#: Tries of a read on a cut connection: the first may be a stale keep-alive connection, the second a node that restarts.
_TRIES = 3
#: Calls in a row that the node fails at one by one, after which the node is at fault and not the calls.
_BROKEN_CALLS = 3
#: Seconds between such tries.
_PAUSE = 0.1
#: The one method that changes state and may be sent any number of times, since the bytes are signed.
_SEND = "eth_sendRawTransaction"


class JsonRpc(Protocol):
    """What every reader and sender needs of a node, or of several nodes behind one interface."""

    @property
    def name(self) -> str:
        """The node's name for messages and logs, without anything secret."""

    def call(self, method: str, *params: object) -> Any:
        """The result of one call. Raises RpcError or RpcUnavailable."""

    def batch(self, requests: Sequence[Request]) -> list[Reply]:
        """Replies in the order of `requests`, an RpcError standing where one failed. Raises RpcUnavailable."""


class Rpc:
    """One node at `url`; `timeout` seconds for each of connecting and answering, `adapter` for tests.

    Safe to share between threads, and to carry across a fork: every process opens connections of its own.
    """

    def __init__(
        self,
        url: str,
        timeout: float = 5.0,
        adapter: BaseAdapter | None = None,
        fits: Fits = anything_fits,
    ) -> None:
        """`fits` says which results may be answers (`chain.rpc.shapes`); any other is an error of the node."""
        self.url = url
        #: In metrics: host and port.
        self._endpoint = urlsplit(redacted(url)).netloc
        self._fits = fits
        self._adapter = adapter
        self._timeout = timeout
        self._ids = itertools.count(1)
        #: What was learned of the node; threads may overwrite each other's, which costs an exchange.
        self._size = BatchSize()
        #: None until a list of calls was answered, or one call only after the list around it was taken away.
        self._takes_lists: bool | None = None
        self._transport = PerProcess(self._connect, lambda transport: transport.close())
        self._reading = Retrying(
            stop=stop_after_attempt(_TRIES),
            wait=wait_fixed(_PAUSE),
            retry=retry_if_exception(_is_cut_connection),
            reraise=True,
        )

    def __repr__(self) -> str:
        return f"Rpc({self.name})"

    @property
    def name(self) -> str:
        """Host and port of the node; keys of node providers stand in other parts of the URL."""
        return redacted(self.url)

    def call(self, method: str, *params: object) -> Any:
        """The result of one call. Raises RpcError or RpcUnavailable."""
        (answer,) = self._exchange([(method, params)], as_list=False)
        if isinstance(answer, RpcError):
            raise answer
        return answer

    def batch(self, requests: Sequence[Request]) -> list[Reply]:
        """Results in the order of `requests`, an RpcError standing where one failed. Raises RpcUnavailable.

        A long list goes out as several exchanges, so that "all or nothing" holds for none.
        """
        answers: list[Reply] = []
        failures = 0
        while len(answers) < len(requests):
            part = requests[len(answers) : len(answers) + self._size.requests]
            try:
                answers += self._send_part(part)
                failures = 0
            except _Refused as error:
                # One call may be what the node breaks at, if others were answered; several in a row are the node.
                failures += 1
                only_read = part[0][0].startswith(_READS)
                if len(part) > 1 or not only_read or len(answers) < failures or failures == _BROKEN_CALLS:
                    raise
                answers.append(node_error(part[0][0], str(error)))
        return answers

    def close(self) -> None:
        """Close this process's connections; the next call opens new ones."""
        transport = self._transport.forget()
        if transport is not None:
            transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- one HTTP exchange ---------------------------------------------------------------------------------------------

    def _send_part(self, part: Sequence[Request]) -> list[Reply]:
        """Answers to the first requests of `part`, or to all of them if the node takes so many.

        Raises RpcUnavailable.
        """
        answers: list[Reply] | None = None
        refused: _Refused | None = None
        try:
            answers = self._exchange(part, as_list=len(part) > 1 or self._takes_lists is not False)
        except _Refused as error:
            refused = error
        except _TooSlow:
            self._size = self._size.timed_out(len(part))
            raise
        if answers is not None and not wholly_failed(answers):
            self._takes_lists = self._takes_lists is not False
            self._size = self._size.worked(len(part))
            return self._ask_for_missing(part, answers)
        if not _may_be_repeated(part, refused):
            return _answers_or_raise(answers, refused)
        if len(part) == 1:
            return self._retry_unlisted(part, answers, refused)
        return self._retry_smaller(part, answers, refused)

    def _retry_unlisted(
        self, part: Sequence[Request], answers: list[Reply] | None, refused: _Refused | None
    ) -> list[Reply]:
        """Send one request again without a list around it: some nodes take no batches at all. Raises as `_exchange`."""
        if self._takes_lists is not None:
            return _answers_or_raise(answers, refused)
        found = self._exchange(part, as_list=False)
        if not wholly_failed(found):
            self._takes_lists = False
        return found

    def _retry_smaller(
        self, part: Sequence[Request], answers: list[Reply] | None, refused: _Refused | None
    ) -> list[Reply]:
        """Send the first half, quarter … of requests that failed together; what works sets the batch size.

        If the first request fails alone too, the size is not to blame: either that request is, and the others are
        answered without it, or the node is.
        """
        size = len(part)
        while size > 1:
            failed, size = size, size // 2
            found = self._try_part(part[:size])
            if found is not None and not wholly_failed(found):
                self._shrink_batches(size, failed=failed)
                return self._ask_for_missing(part[:size], found)
        if answers is not None:
            return answers
        last = self._try_part(part[-1:])
        if last is None or wholly_failed(last):
            return _answers_or_raise(None, refused)
        return [node_error(part[0][0], str(refused))]

    def _try_part(self, part: Sequence[Request]) -> list[Reply] | None:
        """Answers to `part`; None if the node refuses the exchange."""
        answers: list[Reply] | None = None
        refused: _Refused | None = None
        try:
            answers = self._exchange(part, as_list=len(part) > 1 or self._takes_lists is not False)
            if len(part) > 1 or not wholly_failed(answers):
                return answers
        except _Refused as error:
            refused = error
        try:
            return self._retry_unlisted(part, answers, refused) if len(part) == 1 else None
        except _Refused:
            return None

    def _ask_for_missing(self, part: Sequence[Request], answers: list[Reply]) -> list[Reply]:
        """`answers`, completed: requests that the node left out of the batch, or had no space for, are sent again."""
        missing = [at for at, answer in enumerate(answers) if cut_short(answer)]
        if not missing or len(part) == 1 or not _may_be_repeated(part, None):
            return answers
        self._shrink_batches(len(part) - len(missing), failed=len(part))
        for at, answer in zip(missing, self.batch([part[at] for at in missing]), strict=True):
            answers[at] = answer
        return answers

    def _shrink_batches(self, size: int, *, failed: int) -> None:
        """Use smaller batches after one of `failed` requests failed and one of `size` worked; log it the first time."""
        before, self._size = self._size, self._size.worked(size, failed=failed)
        if before.refusals == 0:
            log.info("The node takes smaller batches.", action="batch_smaller", node=self.name, requests=size)

    def _exchange(self, requests: Sequence[Request], *, as_list: bool) -> list[Reply]:
        """One HTTP exchange. Raises _Refused if the node did not take it as a whole, _TooSlow or RpcUnavailable."""
        calls = [
            {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": list(params)}
            for method, params in requests
        ]
        reads = all(method.startswith(_READS) for method, _ in requests)
        started = time.perf_counter()
        try:
            status, content = self._post(calls, reads=reads, as_list=as_list)
            answers = read_answers(status, content, calls, self._fits)
        except RequestException as error:
            self._count_outcome(requests, "unavailable")
            raise _rpc_error_of(error, self.name, self._timeout) from error
        except NoAnswer as error:
            self._count_outcome(requests, "unavailable")
            raise _Refused(what=self.name, why=str(error)) from error
        except RpcUnavailable:
            self._count_outcome(requests, "unavailable")
            raise
        finally:
            RPC_SECONDS.labels(self._endpoint).observe(time.perf_counter() - started)
        outcomes = ("error" if isinstance(answer, RpcError) else "ok" for answer in answers)
        for (method, outcome), number in Counter(
            zip((method for method, _ in requests), outcomes, strict=True)
        ).items():
            RPC_REQUESTS.labels(method, self._endpoint, outcome).inc(number)
        return answers

    def _post(self, calls: Sequence[dict[str, Any]], *, reads: bool, as_list: bool) -> tuple[int, bytes]:
        """HTTP status and body of one exchange; one that only `reads` is tried again on a cut connection. Raises
        RequestException.
        """
        exchange = self._transport.get().exchange
        return self._reading(exchange, calls, as_list=as_list) if reads else exchange(calls, as_list=as_list)

    def _connect(self) -> Transport:
        """The connections of this process, made at its first request (web3.py is imported only then)."""
        load_web3()
        from chain.rpc.transport import Transport  # noqa: PLC0415 # it imports web3.py

        return Transport(self.url, self._timeout, self._adapter)

    def _count_outcome(self, requests: Sequence[Request], outcome: str) -> None:
        """Count the requests of an exchange in the metrics."""
        for method, _ in requests:
            RPC_REQUESTS.labels(method, self._endpoint, outcome).inc()


def redacted(url: str) -> str:
    """Scheme, host and port of `url`, for logs: any other part of it may be a key."""
    parts = urlsplit(url)
    if parts.hostname is None:
        # A socket's path on this machine.
        return f"{parts.scheme}:{parts.path}"
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname}{port}"


class _Refused(RpcUnavailable):
    """The Ethereum node at {what} does not answer: {why}."""


class _TooSlow(RpcUnavailable):
    """The Ethereum node at {what} does not answer: {why}."""


def _is_cut_connection(error: BaseException) -> bool:
    """Whether there was no connection, so that the node surely did not answer, in contrast to a slow answer."""
    # A connection attempt that timed out is both a Timeout and a ConnectionError.
    cut = (CannotConnect, ChunkedEncodingError)
    return isinstance(error, cut) and not isinstance(error, Timeout)


def _rpc_error_of(error: RequestException, name: str, timeout: float) -> RpcUnavailable:
    """The error to raise for a failed exchange, without the URL."""
    # Words of requests hold the address, and so perhaps a key: only kinds of errors are repeated.
    if isinstance(error, Timeout):
        return _TooSlow(what=name, why=str(error) if isinstance(error, TooLong) else f"no answer within {timeout:g} s")
    reason = error.args[0] if error.args else error
    if isinstance(reason, MaxRetryError):
        return RpcUnavailable(what=name, why=_reason_words(reason.reason))
    # A connection that was open and then cut may be a node's way to refuse so much at once.
    return _Refused(what=name, why=_reason_words(reason))


def _reason_words(reason: object) -> str:
    """The operating system's words for a failed connection, without the address that urllib3 puts before it."""
    cause = reason
    while (
        isinstance(cause, BaseException) and not isinstance(cause, OSError) and (cause.__cause__ or cause.__context__)
    ):
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror.lower()
    return "the connection was cut" if isinstance(reason, ProtocolError) else type(reason).__name__


def _answers_or_raise(answers: list[Reply] | None, refused: RpcUnavailable | None) -> list[Reply]:
    """`answers` if there are any; else raise `refused`."""
    if answers is not None:
        return answers
    assert refused is not None
    raise refused


def _may_be_repeated(part: Sequence[Request], refused: _Refused | None) -> bool:
    """Whether requests that were not answered may be sent again.

    Reads may. Transactions may if the node said that it took none: the same signed transaction may reach a node any
    number of times, but its answers to those that it took say less than the first.
    """
    if all(method.startswith(_READS) for method, _ in part):
        return True
    explicit = refused is not None and not isinstance(refused.__cause__, RequestException)
    return explicit and all(method == _SEND or method.startswith(_READS) for method, _ in part)
