"""JSON-RPC to one Ethereum node over HTTP keep-alive: single calls and batches.

A node that answers with an error raises RpcError; a node that does not answer raises RpcUnavailable, after which nobody
knows whether it acted. Reads are tried again when the connection was refused or cut (a node that restarts, a keep-alive
connection it closed); a time-out is never tried again, so a frozen node costs one `timeout` and no more. Anything that
changes state is sent exactly once.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, Protocol, Self
from urllib.parse import urlsplit

import httpx
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_fixed

from config.http_client import http_client
from config.metrics import RPC_REQUESTS, RPC_SECONDS
from protocol.errors import RpcError, RpcUnavailable

#: One request of a batch: method and its parameters.
Request = tuple[str, Sequence[object]]

#: Methods that only read: asking again is harmless.
_READS = ("eth_call", "eth_get", "eth_block", "eth_chainId", "eth_fee", "eth_gasPrice", "eth_max", "eth_estimate")
#: Failures in which the node surely did not answer because there was no connection, in contrast to a slow answer.
_CUT = (httpx.ConnectError, httpx.ReadError, httpx.WriteError, httpx.CloseError, httpx.RemoteProtocolError)
#: Tries of a read on a cut connection: the first may be a stale keep-alive connection, the second a node that restarts.
_TRIES = 3
#: Seconds between such tries.
_PAUSE = 0.1
#: Requests per HTTP exchange: public nodes refuse batches over 1000 and answers over some 10 MB.
_BATCH = 200
#: JSON-RPC's own code for an answer that is not one.
_INTERNAL = -32603


class JsonRpc(Protocol):
    """What every reader and sender needs of a node, or of several nodes behind one face."""

    @property
    def name(self) -> str:
        """The node without anything secret, for messages and logs."""

    def call(self, method: str, *params: object) -> Any:
        """The result of one call. Raises RpcError or RpcUnavailable."""

    def batch(self, requests: Sequence[Request]) -> list[Any]:
        """Results in the order of `requests`, an RpcError standing where one failed. Raises RpcUnavailable."""


class Rpc:
    """One node at `url`; `timeout` seconds for each of connecting and answering, `transport` for tests.

    Safe to share between threads, and to carry across a fork: every process opens connections of its own.
    """

    def __init__(self, url: str, timeout: float = 5.0, transport: httpx.BaseTransport | None = None) -> None:
        self.url = url
        self._transport = transport
        self._timeout = timeout
        self._ids = itertools.count(1)
        #: By process id: a parent's connections are only let go of in a child, never used or closed.
        self._clients: dict[int, httpx.Client] = {}

    def __repr__(self) -> str:
        return f"Rpc({self.name})"

    @property
    def name(self) -> str:
        """Host and port: keys of node providers stand in the path, the query or before the `@`."""
        return redacted(self.url)

    def call(self, method: str, *params: object) -> Any:
        """The result of one call. Raises RpcError or RpcUnavailable."""
        (answer,) = self._exchange([(method, params)], single=True)
        if isinstance(answer, RpcError):
            raise answer
        return answer

    def batch(self, requests: Sequence[Request]) -> list[Any]:
        """Results in the order of `requests`, an RpcError standing where one failed. Raises RpcUnavailable.

        A long list goes out as several exchanges, so that "all or nothing" holds for none.
        """
        answers: list[Any] = []
        for start in range(0, len(requests), _BATCH):
            answers += self._exchange(requests[start : start + _BATCH], single=False)
        return answers

    def close(self) -> None:
        """Close this process's connections; the next call opens new ones."""
        client = self._clients.pop(os.getpid(), None)
        if client is not None:
            client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- one HTTP exchange ---------------------------------------------------------------------------------------------

    def _exchange(self, requests: Sequence[Request], *, single: bool) -> list[Any]:
        calls = [
            {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": list(params)}
            for method, params in requests
        ]
        body = json.dumps(calls[0] if single else calls, separators=(",", ":")).encode()
        tries = _TRIES if all(method.startswith(_READS) for method, _ in requests) else 1
        started = time.perf_counter()
        try:
            response = self._post(body, tries)
            answers = _answers(response, calls, self.name)
        except httpx.HTTPError as error:
            self._count(requests, "unavailable")
            raise RpcUnavailable(what=self.name, why=_why(error, self._timeout)) from error
        except RpcUnavailable:
            self._count(requests, "unavailable")
            raise
        finally:
            RPC_SECONDS.observe(time.perf_counter() - started)
        outcomes = ("error" if isinstance(answer, RpcError) else "ok" for answer in answers)
        for (method, outcome), number in Counter(
            zip((method for method, _ in requests), outcomes, strict=True)
        ).items():
            RPC_REQUESTS.labels(method, outcome).inc(number)
        return answers

    def _post(self, body: bytes, tries: int) -> httpx.Response:
        retrying = Retrying(
            stop=stop_after_attempt(tries),
            wait=wait_fixed(_PAUSE),
            retry=retry_if_exception_type(_CUT),
            reraise=True,
        )
        return retrying(self._client().post, self.url, content=body)

    def _client(self) -> httpx.Client:
        """This process's connections. Without a lock, which a fork could leave held for ever in the child."""
        process = os.getpid()
        client = self._clients.get(process)
        if client is None:
            made = http_client(
                self.url,
                timeout=self._timeout,
                headers={"content-type": "application/json"},
                transport=self._transport,
            )
            client = self._clients.setdefault(process, made)
            if client is not made:
                made.close()
        return client

    @staticmethod
    def _count(requests: Sequence[Request], outcome: str) -> None:
        for method, _ in requests:
            RPC_REQUESTS.labels(method, outcome).inc()


def redacted(url: str) -> str:
    """Scheme, host and port of `url`; whatever else it holds may be a key."""
    parts = urlsplit(url)
    if parts.hostname is None:
        # A socket's path on this machine.
        return f"{parts.scheme}:{parts.path}"
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname}{port}"


def reverted(error: RpcError) -> bool:
    """Whether this is a contract's own refusal of an eth_call, and no failure of the node.

    geth, Erigon, Besu, Nethermind and anvil say "execution reverted"; OpenEthereum "VM execution error" with the data
    "Reverted 0x…". Providers put objects of their own into `data` of any error.
    """
    detail = error.data.lower() if isinstance(error.data, str) else ""
    return "revert" in error.message.lower() or "revert" in detail or detail.startswith("0x")


def _why(error: httpx.HTTPError, timeout: float) -> str:
    if isinstance(error, httpx.TimeoutException):
        return f"no answer within {timeout:g} s"
    return str(error) or type(error).__name__


def _answers(response: httpx.Response, calls: Sequence[dict[str, Any]], name: str) -> list[Any]:
    """One result or RpcError per call, matched by id, since a node may answer a batch in any order."""
    try:
        body = response.json()
    except ValueError as error:
        why = f"HTTP {response.status_code} without JSON"
        raise RpcUnavailable(what=name, why=why) from error
    if not isinstance(body, list) and not (isinstance(body, dict) and "jsonrpc" in body):
        raise RpcUnavailable(what=name, why=f"HTTP {response.status_code} without JSON-RPC")
    if isinstance(body, dict):
        # A single answer; for a batch it is one error that stands for all of it.
        return [_result(body, call) for call in calls]
    by_id = {item.get("id"): item for item in body if isinstance(item, dict)}
    return [_result(by_id.get(call["id"], {}), call) for call in calls]


def _result(answer: dict[str, Any], call: dict[str, Any]) -> Any:
    if "result" in answer:
        return answer["result"]
    error = answer.get("error")
    if not isinstance(error, dict):
        error = {"code": _INTERNAL, "message": "the node left this call unanswered"}
    return RpcError(
        method=call["method"],
        code=error.get("code", _INTERNAL),
        message=error.get("message", ""),
        data=error.get("data"),
    )
