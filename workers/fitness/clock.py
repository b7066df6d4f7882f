"""This machine's clock, compared with the newest block and with the pool's clock."""

from __future__ import annotations

from dataclasses import dataclass

from chain.rpc.client import JsonRpc
from protocol.errors import BadInput, RpcError, RpcUnavailable, Unavailable
from protocol.types import Wei
from workers.fitness import rules
from workers.fitness.rules import CheckResult
from workers.pool.api import PoolApi


@dataclass(frozen=True, slots=True)
class Head:
    """The newest block that a node has."""

    #: Unix seconds.
    time: float
    #: Wei per gas; None on a chain without EIP-1559.
    base_fee: Wei | None


def read_head(rpc: JsonRpc) -> Head:
    """The newest block that the node has. Raises RpcError, RpcUnavailable."""
    head = rpc.call("eth_getBlockByNumber", "latest", False)
    if not isinstance(head, dict):
        # It has no newest block: it is not there yet.
        raise RpcUnavailable(what=rpc.name, why="it does not know its newest block")
    base_fee = head.get("baseFeePerGas")
    return Head(
        time=float(int(str(head["timestamp"]), 16)),
        base_fee=None if base_fee is None else Wei(int(str(base_fee), 16)),
    )


def pool_time(api: PoolApi) -> float | None:
    """The pool's clock, Unix seconds; None if it does not say."""
    try:
        return api.time()
    except (BadInput, Unavailable):
        return None


def check(head: Head, api: PoolApi, now: float, block_time: float) -> CheckResult:
    """Whether the clock is right. `now`: what it shows, Unix seconds."""
    return rules.clock(now, head.time, pool_time(api), block_time)


def why_late(rpc: JsonRpc, api: PoolApi, now: float, block_time: float) -> str | None:
    """How far this machine's clock is off, in words, to explain a deadline that seems to have passed; None if the clock
    is right, or nothing can be said of it.
    """
    try:
        off = rules.clock_error(now, read_head(rpc).time, pool_time(api), block_time)
    except (RpcError, RpcUnavailable):
        return None
    return None if off is None else f"this machine's clock is {off:+.0f} s off the chain's block time"
