"""One fault in the middle of a bag of real containers: every task is COMPLETED, all stakes are free, no nonce is lost.

The short form of `bench/faults.py`, which also measures how much later; `tests/integration/pool/test_one_fault.py` and
`each_fault` have those that are not here.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.rig.bench_pool import BenchPool
from config.settings import read_settings
from ops.market.match import Matched
from pipeline.store.client import Store
from protocol.poco.view import TaskStatus
from protocol.poco.weights import weight
from protocol.types import Wallet
from tests.integration.conftest import given
from tests.integration.pool.conftest import WAIT_SECONDS, banned, view
from tests.integration.pool.struck import completes_a_bag
from tests.integration.pool.trouble.conftest import OwnServers
from tests.waiting import wait_until

#: One of each kind that the pool of `test_one_fault` cannot have: each server, the chain. Both machines vote, with a
#: stake.
STRUCK = ("mongodb", "rabbitmq", "reorg-3-dropped")


@pytest.mark.parametrize("name", STRUCK)
def test_a_bag_is_completed_though_something_breaks_in_the_middle(
    bench_pool: BenchPool, own: OwnServers, name: str
) -> None:
    completes_a_bag(bench_pool, name, trust=3, crash=own.crash)


def test_a_machine_killed_between_contribute_and_reveal_reveals_after_its_restart(bench_pool: BenchPool) -> None:
    """Also though it is refused the start, since its Docker engine is gone meanwhile: it reveals, and ends.

    worker-2 gets no work until worker-1 has voted and is killed, so that consensus comes while worker-1 is dead.
    """
    pool = bench_pool.pool
    first, second = (wallet.key.wallet for wallet in pool.on_chain.workers)
    with banned(bench_pool, [second]):
        # Earlier votes gave it a score: this is the least trust for which its vote alone is not enough.
        deal = bench_pool.buy(trust=weight(bench_pool.hub.scores([first])[0]) + 1, volume=1)
        _await_vote(bench_pool, deal, first)
        pool.running["worker-1"].kill()
        # Long before its pings are missed, the scheduler knows that there is nothing to send to.
        wait_until(lambda: not connected(bench_pool, first), 5, what="worker-1 to be known as cut off")
    _await_vote(bench_pool, deal, second)
    (task,) = deal.tasks
    wait_until(lambda: view(bench_pool, task).status is TaskStatus.REVEALING, WAIT_SECONDS, what="consensus")
    assert first not in {vote.worker for vote in view(bench_pool, task).revealed}

    program = pool.programs["worker-1"]
    refused = replace(program, env={**program.env, "SLUICE_DOCKER_HOST": "unix:///nowhere/docker.sock"})
    pool.running["worker-1"] = refused.start()
    wait_until(lambda: view(bench_pool, task).status is TaskStatus.COMPLETED, WAIT_SECONDS, what="the end of the task")
    assert {vote.worker for vote in view(bench_pool, task).revealed} == {first, second}
    wait_until(lambda: not pool.running["worker-1"].alive(), WAIT_SECONDS, what="the end of worker-1")
    pool.restart("worker-1")
    wait_until(lambda: connected(bench_pool, first), 10, what="worker-1 to be known as connected")
    assert all(account.locked == 0 for account in bench_pool.hub.accounts([first, second]))


def connected(bench_pool: BenchPool, wallet: Wallet) -> bool:
    """Whether a machine is connected to RabbitMQ as far as the scheduler knows."""
    found = Store.open(read_settings(**given(bench_pool.pool.env))).workers.get_worker(wallet)
    return found is not None and found.disconnected_at is None


def _await_vote(bench_pool: BenchPool, deal: Matched, wallet: Wallet) -> None:
    (task,) = deal.tasks
    wait_until(lambda: view(bench_pool, task).contribution(wallet), WAIT_SECONDS, what=f"the vote of {wallet}")
