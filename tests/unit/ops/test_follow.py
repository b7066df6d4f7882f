"""Following tasks on chain, beside the scheduler, for demo and benchmarks."""

from __future__ import annotations

import threading
from typing import Any

from chain.testing import FakeChain
from ops.pool.follow import Follower
from protocol.poco import events
from protocol.poco.view import TaskStatus
from protocol.types import BlockNumber, Contract, TaskId

HUB, TASK = Contract("0x" + "cc" * 20), TaskId("0x" + "aa" * 32)


def test_a_node_that_does_not_answer_is_asked_for_the_same_blocks_again() -> None:
    chain = FakeChain(HUB)
    chain.mine(events.TaskInitialize(TASK, HUB), events.TaskFinalize(TASK, "0x"))
    asked = list[str]()

    def freeze_once(method: str) -> None:
        asked.append(method)
        chain.frozen = asked.count("eth_getLogs") == 1 and method == "eth_getLogs"
        if chain.frozen:
            # Else the head is repeated some seconds later.
            chain.mine()

    chain.before_answer = freeze_once
    rpc: Any = chain
    follower = Follower(rpc, None, HUB, block_time=0.01, next_block=BlockNumber(0), categories={TASK: 60})
    (views,) = follower.until_over(threading.Event())
    assert views[TASK].status is TaskStatus.COMPLETED
    assert asked.count("eth_getLogs") == 2
