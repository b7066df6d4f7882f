"""A chain of the stack's own that runs, whichever program makes it."""

from __future__ import annotations

from dataclasses import dataclass

from ops.stack.process import Process

#: Gas per block, as on most chains PoCo runs on.
BLOCK_GAS = 30_000_000
#: Seconds that a node takes to end at most: anvil writes its state first.
_STOP_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Node:
    """A running chain of one node."""

    port: int
    process: Process

    @property
    def rpc_url(self) -> str:
        """URL of JSON-RPC over HTTP."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws_url(self) -> str:
        """URL of JSON-RPC over WebSocket, on the same port."""
        return f"ws://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The pid of the node itself, to freeze or kill it."""
        return self.process.pid

    def stop(self) -> None:
        """End the chain; anvil first writes its state, if it was started to keep one."""
        self.process.stop(timeout=_STOP_SECONDS)
