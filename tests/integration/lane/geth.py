"""A fresh chain of geth, on which one wallet has native tokens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from chain.rpc.client import Rpc
from ops.stack import ports
from ops.stack.servers import geth
from protocol.ethereum.signing import Key

CHAIN_ID = geth.DEVELOPMENT_CHAIN_ID
_BALANCE = 10**20


@contextmanager
def running(folder: Path, key: Key) -> Iterator[Rpc]:
    """The chain, to which a payment to `key` was sent."""
    node = geth.start(folder, ports.free_port())
    try:
        with Rpc(node.rpc_url) as rpc:
            (owner,) = rpc.call("eth_accounts")
            rpc.call("eth_sendTransaction", {"from": owner, "to": key.wallet, "value": hex(_BALANCE)})
            yield rpc
    finally:
        node.stop()
