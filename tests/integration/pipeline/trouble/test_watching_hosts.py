"""Two scheduler hosts, one of which ends in the middle of work: how many blocks of the chain the work loses by it.

Blocks are mined by hand, one when a transaction waits for it, so that what is counted is blocks and not how fast the
machine is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from config.celery_apps import core_app
from ops.host_name import taken_names
from ops.market.match import Matched
from protocol.poco.view import TaskStatus
from tests.integration.pipeline.conftest import OWNER, Pool
from tests.integration.pipeline.trouble.test_two_hosts import PROCESSES, nothing_is_sent_twice
from tests.waiting import until

HOSTS = ("one", "two")
#: Blocks from match to end of a task of trust 1: one with `initialize`, one with the machine's transaction.
UNDISTURBED_BLOCKS = 2
#: Blocks that the death of a watching host may cost.
LOST_BLOCKS = 3
#: Seconds for what takes some milliseconds on an idle machine: a process to start, a block to be read, a transaction.
SECONDS = 30.0


@pytest.fixture
def still(make_pool: Callable[[], Pool]) -> Pool:
    """A pool of two hosts and a machine on a chain that stands still but for the blocks that are asked for."""
    pool = make_pool()
    pool.chain.rpc.call("evm_setIntervalMining", 0)
    pool.chain = replace(pool.chain, by_hand=True)
    for host in HOSTS:
        start(pool, host)
    pool.enrol(0, slots=4)
    return pool


def start(pool: Pool, host: str) -> None:
    """Start a host's processes; returns once those that take messages do."""
    for name in PROCESSES:
        pool.start(name, host)
    app, names = core_app(pool.settings), [f"lane@{host}", f"pipeline@{host}"]
    until(f"{names} to be connected", lambda: len(taken_names(app, names)) == len(names), SECONDS)


def head(pool: Pool) -> int:
    return int(pool.chain.hub.head())


def read_up_to(pool: Pool) -> int:
    """The last block that a watcher has stored."""
    cursor = pool.store.chain.cursor()
    return -1 if cursor is None else int(cursor.number)


def transactions_wait(pool: Pool) -> bool:
    """Whether the node holds transactions for the next block."""
    return int(pool.chain.rpc.call("txpool_status")["pending"], 16) > 0


def blocks_until_completed(pool: Pool, deal: Matched) -> int:
    """Blocks from here to the end of the deal's tasks; each is mined once a transaction waits for it, and none before
    the last one has been read.
    """
    begun = head(pool)

    def completed() -> bool:
        return all(view.status is TaskStatus.COMPLETED for view in pool.views(deal))

    while not completed():
        until("a transaction", lambda: transactions_wait(pool), SECONDS)
        pool.chain.mine()
        until("the block to be read", lambda: read_up_to(pool) == head(pool), SECONDS)
    return head(pool) - begun


@pytest.mark.parametrize("host", HOSTS)
def test_the_other_host_reads_every_block_from_the_next_on_when_a_watching_host_dies(still: Pool, host: str) -> None:
    until("both to follow", lambda: read_up_to(still) == head(still), SECONDS)
    deal = still.buy(trust=1, volume=2)
    # It may have read the block of the match, or not.
    still.kill("watch", host)
    blocks = blocks_until_completed(still, deal)
    assert blocks <= UNDISTURBED_BLOCKS + LOST_BLOCKS
    later = still.buy(trust=1, volume=2)
    assert blocks_until_completed(still, later) <= UNDISTURBED_BLOCKS + LOST_BLOCKS
    still.await_closed(later, SECONDS)
    assert not any(still.locked())


def test_a_rolling_restart_misses_no_block_and_sends_nothing_twice(still: Pool) -> None:
    """Each host is restarted in turn, with a deal in the middle: none of its blocks goes unread, no task is late."""
    first = head(still)
    until("both to follow", lambda: read_up_to(still) == head(still), SECONDS)
    for host in HOSTS:
        deal = still.buy(trust=1, volume=2)
        until("the first transaction", lambda: transactions_wait(still), SECONDS)
        for name in PROCESSES:
            still.stop(name, host)
        assert blocks_until_completed(still, deal) <= UNDISTURBED_BLOCKS + LOST_BLOCKS
        start(still, host)
        still.await_closed(deal, SECONDS)
    last = still.buy(trust=1, volume=2)
    blocks_until_completed(still, last)
    still.await_closed(last, SECONDS)
    assert not any(still.locked())
    stored = {int(row["_id"]) for row in still.store._db["blocks"].find({}, {"_id": 1})}
    assert set(range(first, head(still) + 1)) <= stored
    until("the lane to be as the chain says", lambda: nothing_is_sent_twice(still), SECONDS)
    sent = still.chain.rpc.call("eth_getTransactionCount", still.chain.sender(OWNER).wallet, "pending")
    assert sent == still.chain.rpc.call("eth_getTransactionCount", still.chain.sender(OWNER).wallet, "latest")
