"""A whole pool with SLUICE_STATE=pending: how few blocks its tasks take, and that faults cost it nothing else.

Where blocks are counted the chain stands still until the steps of the next one are all at the node, so that the machine
may be as slow as it likes.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.rig.bench_pool import BenchPool, open_bench_pool
from bench.rig.usage import counted
from chain.contracts import calls
from ops.pool.site import Servers
from protocol.ethereum.hexbytes import to_hex
from protocol.poco.view import ChainView, TaskStatus
from protocol.types import TaskId
from tests.integration.conftest import MiningSender
from tests.integration.pool.conftest import WAIT_SECONDS, view
from tests.integration.pool.struck import completes_a_bag
from tests.integration.pool.trouble.conftest import OwnServers
from tests.waiting import ample, wait_until

#: Seconds between blocks: whole ones, which is what anvil takes when it begins again.
BLOCK_TIME = 1
REVEAL = to_hex(calls.REVEAL.selector)


@pytest.fixture(scope="module")
def pending_pool(shared_servers: Servers) -> Iterator[BenchPool]:
    with open_bench_pool(
        block_time=BLOCK_TIME, workers=3, slots=2, env={"SLUICE_STATE": "pending"}, servers=shared_servers
    ) as bench_pool:
        bench_pool.timeout = ample(2 * WAIT_SECONDS)
        yield bench_pool


@pytest.fixture
def by_hand(pending_pool: BenchPool) -> Iterator[BenchPool]:
    """The pool on a chain whose blocks are asked for."""
    usual = pending_pool.buyer
    pending_pool.rpc.call("evm_setIntervalMining", 0)
    pending_pool.buyer = MiningSender(usual.key, pending_pool.rpc, usual.chain_id)
    yield pending_pool
    pending_pool.buyer = usual
    pending_pool.rpc.call("evm_setIntervalMining", BLOCK_TIME)


def status_behind_what_is_pending(bench_pool: BenchPool, task: TaskId) -> TaskStatus:
    """The task's, were the next block mined now."""
    call = {"to": bench_pool.hub.address, "data": calls.VIEW_TASK.encode(task)}
    answer = bench_pool.rpc.call("eth_call", call, "pending")
    return TaskStatus(int(answer[2 + 64 : 2 + 128], 16))


def await_pending(bench_pool: BenchPool, task: TaskId, status: TaskStatus) -> None:
    wait_until(
        lambda: status_behind_what_is_pending(bench_pool, task) is status, WAIT_SECONDS, what=f"{status} to be pending"
    )


def mined(bench_pool: BenchPool, task: TaskId) -> ChainView:
    """The task once one more block is mined."""
    bench_pool.rpc.call("evm_mine")
    return view(bench_pool, task)


def reveals_at_the_node(bench_pool: BenchPool) -> int:
    pending = bench_pool.rpc.call("txpool_content")["pending"]
    return sum(tx["input"].startswith(REVEAL) for by_nonce in pending.values() for tx in by_nonce.values())


def test_a_task_of_trust_1_takes_one_block(by_hand: BenchPool) -> None:
    (task,) = by_hand.buy(trust=1, volume=1).tasks
    await_pending(by_hand, task, TaskStatus.COMPLETED)
    assert mined(by_hand, task).status is TaskStatus.COMPLETED
    assert counted(by_hand, "sluice_early_reverts_total") == 0


def test_a_task_of_trust_3_takes_two_blocks_and_no_reveal_is_at_the_node_before_the_first_is_mined(
    by_hand: BenchPool,
) -> None:
    (task,) = by_hand.buy(trust=3, volume=1).tasks
    await_pending(by_hand, task, TaskStatus.REVEALING)
    assert reveals_at_the_node(by_hand) == 0
    assert mined(by_hand, task).status is TaskStatus.REVEALING
    await_pending(by_hand, task, TaskStatus.COMPLETED)
    assert reveals_at_the_node(by_hand) == len(view(by_hand, task).winners)
    assert mined(by_hand, task).status is TaskStatus.COMPLETED
    assert counted(by_hand, "sluice_early_reverts_total") == 0


@pytest.mark.parametrize(
    ("name", "trust"), [("chain-frozen", 3), ("reorg-1-dropped", 3), ("reorg-3-dropped", 1), ("reorg-3-returned", 3)]
)
def test_a_bag_is_completed_though_something_breaks_in_the_middle(
    pending_pool: BenchPool, own: OwnServers, name: str, trust: int
) -> None:
    completes_a_bag(pending_pool, name, trust=trust, crash=own.crash)
