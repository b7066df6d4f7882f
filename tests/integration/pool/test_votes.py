"""A worker that lies, in a vote of others that do not, and many that do no work."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import httpx
import pytest

from bench.rig.bench_pool import BenchPool
from bench.rig.fresh_wallets import WORDS, FreshWallet, signed_in
from ops.demo.run import LIAR
from ops.market import results
from ops.pool.on_chain import PRICE
from protocol.poco.view import TaskStatus
from protocol.poco.weights import weight
from protocol.types import Wallet
from tests.integration.pool.conftest import HONEST, banned, buy, ended, machine_of, set_banned, view
from tests.waiting import ample, wait_until

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
    set_banned(shared_pool, [wallet], banned=True)


@pytest.fixture
def idlers(shared_pool: BenchPool) -> Iterator[list[FreshWallet]]:
    """Wallets that take work and do none; banned afterwards."""
    with signed_in(shared_pool, len(WORDS)) as fresh:
        yield fresh
    set_banned(shared_pool, [wallet.key.wallet for wallet in fresh], banned=True)


def test_a_liar_loses_its_stake_and_the_task_is_completed_with_the_truth(shared_pool: BenchPool, liar: Wallet) -> None:
    (before,) = shared_pool.hub.accounts([liar])
    # A newcomer is asked when those with votes to their name do not suffice: all but one are away for a moment.
    here, *away = [wallet.key.wallet for wallet in shared_pool.pool.on_chain.workers[:HONEST]]
    (score,) = shared_pool.hub.scores([here])
    # However often this machine was right in tests before: its vote alone must not decide.
    trust = max(3, weight(score) + 1)
    with banned(shared_pool, away):
        (deal,) = buy(shared_pool, [(shared_pool.pool.on_chain.offer(price=PRICE), trust, "the truth")])
        (task,) = deal.tasks
        wait_until(lambda: view(shared_pool, task).contribution(liar) is not None, 30, what="the liar to vote")
    seen = shared_pool.wait([deal])[task]
    final = view(shared_pool, task)
    lie = final.contribution(liar)

    assert seen.status is TaskStatus.COMPLETED
    assert lie is not None
    assert lie.result_hash != final.consensus
    assert {vote.worker for vote in final.revealed} <= {here, *away}
    assert len(final.revealed) > 1
    assert b"args: the truth" in results.fetch(shared_pool.servers.ipfs_gateway, seen.results).files["result.txt"]
    (after,) = shared_pool.hub.accounts([liar])
    assert (after.stake, after.locked) == (before.stake - PRICE * STAKE_PERCENT // 100, 0)
    # Whoever looks at the deal or the machine sees who was wrong, where, and in which transaction.
    ended(shared_pool, task)
    operations = f"http://127.0.0.1:{shared_pool.names.operations_port}/admin"
    for path in (f"deals/{deal.deal_id}", f"workers/{liar}"):
        (wrong,) = httpx.get(f"{operations}/{path}", timeout=ample(5.0)).raise_for_status().json()["wrong_votes"]
        assert (wrong["wallet"], wrong["task_id"]) == (liar, task)
    honest = shared_pool.pool.on_chain.workers[0].key.wallet
    assert httpx.get(f"{operations}/workers/{honest}", timeout=ample(5.0)).json()["wrong_votes"] == []


def test_wallets_that_take_work_and_do_none_keep_nobody_waiting_for_it(
    shared_pool: BenchPool, idlers: list[FreshWallet]
) -> None:
    honest = {wallet.key.wallet for wallet in shared_pool.pool.on_chain.workers[:HONEST]}
    # Each honest machine has been right on chain before: otherwise nothing tells it from the others.
    with banned(shared_pool, [wallet.key.wallet for wallet in idlers]):
        shared_pool.wait([shared_pool.buy(trust=5, volume=2)])
    # What honest machines have room for goes to them: they are away until others have taken every task.
    with banned(shared_pool, honest):
        deal = shared_pool.buy(trust=1, volume=2 * HONEST)
        tasks = {*deal.tasks}
        wait_until(lambda: {task for idler in idlers for task in idler.given} >= tasks, 30, what="all to be taken")
    views = shared_pool.wait([deal]).values()
    assert {view.status for view in views} == {TaskStatus.COMPLETED}
    assert {vote.worker for view in views for vote in view.winners} <= honest
    for task in tasks:
        ended(shared_pool, task)
    assert [account.locked for account in shared_pool.hub.accounts(sorted(honest))] == [0] * HONEST
