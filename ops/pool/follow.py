"""Follows tasks on chain, independently of the scheduler: views folded from the hub's logs, block by block."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import structlog

from chain.contracts import decode
from chain.rpc.client import Rpc
from chain.rpc.heads import heads
from protocol.errors import RpcUnavailable
from protocol.poco.events import Seen
from protocol.poco.view import ChainView, TaskStatus, fold
from protocol.types import BlockNumber, Contract, TaskId, Timestamp

log = structlog.get_logger(__name__)

#: Statuses in which nothing more happens.
OVER = frozenset({TaskStatus.COMPLETED, TaskStatus.FAILED})


@dataclass(slots=True)
class Follower:
    """Reads the hub's logs from `next_block` on and keeps what concerns `categories`' tasks.

    `categories`: task → its category's seconds. New tasks may be added while following, before their first event.
    """

    rpc: Rpc
    ws_url: str | None
    hub: Contract
    block_time: float
    next_block: BlockNumber
    categories: dict[TaskId, int] = field(default_factory=dict)
    #: Events of the followed tasks and of all others on the hub since the first block.
    seen: dict[TaskId, list[Seen]] = field(default_factory=dict)

    def views(self) -> dict[TaskId, ChainView]:
        """The present view of every followed task, folded from its events."""
        return {
            task: fold(task, self.seen.get(task, ()), category_seconds=seconds)
            for task, seconds in self.categories.items()
        }

    def step(self, head: BlockNumber) -> bool:
        """Read events up to block `head`; returns whether there were any."""
        if head < self.next_block:
            return False
        logs = self.rpc.call(
            "eth_getLogs",
            {
                "address": self.hub,
                "fromBlock": hex(self.next_block),
                "toBlock": hex(head),
                "topics": [list(decode.TOPICS.values())],
            },
        )
        self.next_block = BlockNumber(head + 1)
        # Deadlines are not shown here, so the time of the block is not looked up.
        found = [item for item in (decode.seen(raw, Timestamp(0)) for raw in logs) if item is not None]
        for item in found:
            task = getattr(item.event, "task_id", None)
            if task is not None:
                self.seen.setdefault(task, []).append(item)
        return bool(found)

    def until_over(self, stop: threading.Event) -> Iterator[Mapping[TaskId, ChainView]]:
        """Yield all views whenever something changed, until every followed task has ended or `stop` is set.

        A node that does not answer is asked for the same blocks again at the next head, which may be the same one.
        """
        for head in heads(self.ws_url, self.rpc, self.block_time, stop):
            try:
                changed = self.step(head)
            except RpcUnavailable as error:
                log.warning("The node does not tell what happened.", action="follow_unknown", why=str(error))
                continue
            if changed:
                views = self.views()
                yield views
                if all(view.status in OVER for view in views.values()):
                    return
