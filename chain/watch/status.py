"""What each node says, and whether the last block followed still stands; for `sluice chain status`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from chain.contracts import decode
from chain.rpc.answers import Known, Reply, decode_reply
from chain.rpc.client import JsonRpc
from protocol.counts import count
from protocol.errors import RpcUnavailable
from protocol.poco.events import BlockRef
from protocol.types import BlockNumber, Timestamp

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """What one node answers for `sluice chain status`; None for what it does not tell."""

    name: str
    chain_id: int | None = None
    head: BlockNumber | None = None
    #: Blocks that the chain's consensus calls safe, and final.
    safe: BlockNumber | None = None
    finalized: BlockNumber | None = None
    #: Whether it has the watcher's last block; None if it is not that far, or if nothing was followed.
    has_cursor: bool | None = None
    #: Blocks between the watcher's last block and its head; below 0: the watcher has seen more.
    lag: int | None = None
    #: Unix seconds of its head.
    timestamp: Timestamp | None = None
    #: Why it could not be asked.
    problem: str = ""


def ask_node(node: JsonRpc, cursor: BlockRef | None) -> NodeStatus:
    """The status of one node; an error of the node is in `problem`."""
    requests: list[tuple[str, tuple[object, ...]]] = [
        ("eth_chainId", ()),
        ("eth_getBlockByNumber", ("latest", False)),
        ("eth_getBlockByNumber", ("safe", False)),
        ("eth_getBlockByNumber", ("finalized", False)),
    ]
    if cursor is not None:
        requests.append(("eth_getBlockByNumber", (hex(cursor.number), False)))
    try:
        chain_id, head, safe, finalized, *rest = node.batch(requests)
    except RpcUnavailable as error:
        return NodeStatus(node.name, problem=str(error))
    newest = _value_or_none(head, decode.block_ref)
    top = None if newest is None else newest.number
    stood = _value_or_none(rest[0], decode.block_ref) if rest else None
    return NodeStatus(
        name=node.name,
        chain_id=_value_or_none(chain_id, lambda answer: int(answer, 16)),
        head=top,
        safe=_value_or_none(safe, _block_number),
        finalized=_value_or_none(finalized, _block_number),
        has_cursor=None if stood is None or cursor is None else stood.hash == cursor.hash,
        lag=None if top is None or cursor is None else top - cursor.number,
        timestamp=None if newest is None else newest.timestamp,
    )


def node_problems(nodes: Sequence[NodeStatus], chain_id: int, now: float, stale_after: float) -> list[str]:
    """What an operator should know of these nodes, one sentence each; empty if all is well.

    `now`: Unix seconds; `stale_after`: seconds from which on a head is old.
    """
    said = [node.problem for node in nodes if node.problem]
    for node in nodes:
        if node.chain_id is not None and node.chain_id != chain_id:
            said.append(f"{node.name} is on chain {node.chain_id}, not {chain_id}.")
        elif node.has_cursor is False:
            said.append(
                f"{node.name} has another block in the place of the last one followed: a reorganisation, which is over "
                "in seconds. If this stays, the database is of another chain: see `sluice chain audit`."
            )
        elif node.timestamp is not None and now - node.timestamp > stale_after:
            said.append(
                f"{node.name} is behind: its head, block {node.head}, is {now - node.timestamp:.0f} s old. It hangs or "
                "still reads old blocks; or the chain stands still, or this machine's clock is ahead. Compare the "
                "head with a block explorer, restart the node, or name another one in SLUICE_RPC_URL."
            )
        elif node.lag is not None and node.lag < 0 and node.has_cursor is None:
            said.append(f"{node.name} is {count(-node.lag, 'block')} behind the last block followed.")
    return said


def _block_number(block: Any) -> BlockNumber:
    """The number in a block's JSON."""
    return BlockNumber(int(block["number"], 16))


def _value_or_none(answer: Reply, read: Callable[[Any], T]) -> T | None:
    """The value that `read` takes from an answer; None if there is none, as before geth's first safe block."""
    found = decode_reply(answer, read)
    return found.value if isinstance(found, Known) else None
