"""web3.py on top of a `JsonRpc`: contracts and transactions go to the same nodes, with the same failover and figures.

Imported where it is needed, inside functions: see `chain.rpc.library`.
"""

from __future__ import annotations

from typing import Any

from web3 import Web3
from web3.middleware import ExtraDataToPOAMiddleware
from web3.providers.base import BaseProvider
from web3.types import RPCEndpoint, RPCResponse

from chain.rpc.client import JsonRpc


class PortProvider(BaseProvider):
    """A web3.py provider that asks `rpc`; RpcError and RpcUnavailable pass through web3.py as they are."""

    def __init__(self, rpc: JsonRpc) -> None:
        super().__init__()
        self._rpc = rpc

    def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
        """Send one call through `rpc`. Raises RpcError or RpcUnavailable."""
        return {"jsonrpc": "2.0", "id": 0, "result": self._rpc.call(method, *params)}

    def is_connected(self, show_traceback: bool = False) -> bool:  # noqa: ARG002 # web3.py's signature
        """Always True: whether a node answers shows when it is asked."""
        return True


def web3_over(rpc: JsonRpc) -> Web3:
    """A web3.py `Web3` whose every request goes through `rpc`.

    Without web3.py's default middleware: its validation asks for the chain id twice at each call, and addresses and
    types are checked here. Headers of proof-of-authority chains are accepted.
    """
    return Web3(PortProvider(rpc), middleware=[ExtraDataToPOAMiddleware])
