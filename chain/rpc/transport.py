"""One HTTP exchange with a node, by web3.py's HTTPProvider: the session, its limits and its proxy are ours.

    Rpc ─► Transport.exchange ─► HTTPProvider.make_request / make_batch_request ─► NodeSession ─► node

The provider's answer stays bytes: what they say, call by call, is read by `chain.rpc.response`, because a provider that
sorts answers by id pairs them wrongly when a node leaves one out or answers one twice.

Imports web3.py, so it is imported where it is needed, inside functions: see `chain.rpc.library`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import requests
from requests.adapters import BaseAdapter
from web3 import HTTPProvider
from web3.types import RPCEndpoint

from chain.rpc.session import NodeSession


class _Provider(HTTPProvider):
    """web3.py's provider with calls that are whole already, and answers left as bytes."""

    def encode_rpc_request(self, method: RPCEndpoint, params: Any) -> bytes:  # noqa: ARG002 # web3.py's signature
        """The request body: `params` is the whole call already, with its id."""
        return json.dumps(params, separators=(",", ":")).encode()

    @staticmethod
    def decode_rpc_response(raw_response: bytes) -> Any:
        """The response's bytes, unchanged: `chain.rpc.response` reads them."""
        return raw_response


class Transport:
    """A node's address with one process's connections to it."""

    def __init__(self, url: str, timeout: float, adapter: BaseAdapter | None) -> None:
        self._session = NodeSession(url, timeout, adapter)
        self._provider: Any = _Provider(url, session=self._session, exception_retry_configuration=None)

    def exchange(self, calls: Sequence[Mapping[str, Any]], *, as_list: bool) -> tuple[int, bytes]:
        """HTTP status and body for JSON-RPC `calls`, sent as a list or alone. Raises requests.RequestException."""
        try:
            if as_list:
                return 200, self._provider.make_batch_request([(call["method"], call) for call in calls])
            (call,) = calls
            return 200, self._provider.make_request(call["method"], call)
        except requests.HTTPError as error:
            if error.response is None:
                raise
            # Some nodes say in the body what they say with the status.
            return error.response.status_code, error.response.content

    def close(self) -> None:
        """Close the connections to the node."""
        self._session.close()
