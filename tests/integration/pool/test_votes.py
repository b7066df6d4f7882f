"""A worker that lies, in a vote of others that do not."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from bench.bench_pool import BenchPool
from config.settings import read_settings
from ops.demo.run import LIAR
from ops.market import results
from ops.pool.on_chain import PRICE
from pipeline.store.client import Store
from pipeline.store.workers import Workers
from protocol.poco.view import TaskStatus
from protocol.types import Wallet
from tests.integration.conftest import given
from tests.integration.pool.conftest import HONEST, buy, machine_of, view
from tests.waiting import wait_until

#: Percent of a task's price that a worker of this pool puts at stake.
STAKE_PERCENT = 30


@pytest.fixture
def liar(shared_pool: BenchPool) -> Iterator[Wallet]:
    """A machine that lies; banned afterwards."""
    machine = machine_of(shared_pool, HONEST + 1, module=LIAR)
    shared_pool.pool.start_machines([machine])
    wallet = machine.wallet.key.wallet
    yield wallet
    shared_pool.pool.running.pop(machine.name).stop(how=signal.SIGKILL)
    workers(shared_pool).set_banned(wallet, banned=True)


def workers(shared_pool: BenchPool) -> Workers:
    return Store.open(read_settings(**given(shared_pool.pool.env))).workers


def test_a_liar_loses_its_stake_and_the_task_is_completed_with_the_truth(shared_pool: BenchPool, liar: Wallet) -> None:
    (before,) = shared_pool.hub.accounts([liar])
    # A newcomer is asked when those with votes to their name do not suffice: all but one are away for a moment.
    away = [wallet.key.wallet for wallet in shared_pool.pool.on_chain.workers[1:HONEST]]
    for wallet in away:
        workers(shared_pool).set_banned(wallet, banned=True)
    (deal,) = buy(shared_pool, [(shared_pool.pool.on_chain.offer(price=PRICE), 3, "the truth")])
    (task,) = deal.tasks
    wait_until(lambda: view(shared_pool, task).contribution(liar) is not None, 30, what="the liar to vote")
    for wallet in away:
        workers(shared_pool).set_banned(wallet, banned=False)
    seen = shared_pool.wait([deal])[task]
    final = view(shared_pool, task)
    lie = final.contribution(liar)

    assert seen.status is TaskStatus.COMPLETED
    assert lie is not None
    assert lie.result_hash != final.consensus
    assert len(final.revealed) == HONEST
    assert b"args: the truth" in results.fetch(shared_pool.servers.ipfs_gateway, seen.results).files["result.txt"]
    (after,) = shared_pool.hub.accounts([liar])
    assert (after.stake, after.locked) == (before.stake - PRICE * STAKE_PERCENT // 100, 0)
