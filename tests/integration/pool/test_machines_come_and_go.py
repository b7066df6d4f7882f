"""An operator drains, bans and takes machines back in the middle of a bag: nothing is lost, nobody loses stake."""

from __future__ import annotations

from bench.faults import pool_wallets, stake_locked
from bench.rig.bench_pool import BenchPool
from ops.market.match import Matched
from protocol.poco.view import TaskStatus
from protocol.types import Wallet
from tests.integration import forged
from tests.integration.pool.environment import scheduler_environment
from tests.waiting import ample, until

#: Tasks of the bag: more than the machines have slots for at a time, so that each change finds some at every step.
TASKS = 12
#: A container lasts as long as half a block.
WORK = "sleep 0.5"


def test_a_bag_is_completed_while_machines_are_drained_banned_and_taken_back(shared_pool: BenchPool) -> None:
    drained, banned, *_ = (wallet.key.wallet for wallet in shared_pool.pool.on_chain.workers)
    before = _stakes(shared_pool)
    deal = shared_pool.buy(trust=3, volume=TASKS, args=WORK)

    until("a task at work at the machine", lambda: _busy(shared_pool, drained), 60)
    _worker(shared_pool, "drain", drained)
    more = _completed(shared_pool, deal) + 2
    until("further tasks without the drained machine", lambda: _completed(shared_pool, deal) >= more, 60)
    until("the drained machine to have finished", lambda: not _busy(shared_pool, drained), 60)
    _worker(shared_pool, "undrain", drained)

    until("a task at work at the other machine", lambda: _busy(shared_pool, banned), 60)
    _worker(shared_pool, "ban", banned)
    more = min(TASKS, _completed(shared_pool, deal) + 2)
    until("further tasks without the banned machine", lambda: _completed(shared_pool, deal) >= more, 60)
    _worker(shared_pool, "unban", banned)

    views = shared_pool.wait([deal])
    assert {view.status for view in views.values()} == {TaskStatus.COMPLETED}
    assert shared_pool.compare(deal, ample(30)) == (0, 0)
    until("all stakes to be free", lambda: stake_locked(shared_pool) == 0)
    # Nobody was seized: who won a vote has its stake again, and its reward.
    after = _stakes(shared_pool)
    assert all(after[wallet] >= held for wallet, held in before.items()), (before, after)
    until("the machine that was banned to be back", lambda: _state(shared_pool, banned) in {"idle", "busy"}, 60)


def _worker(shared_pool: BenchPool, action: str, wallet: Wallet) -> None:
    """`sluice worker ACTION WALLET`, as the operator types it."""
    done = forged.sluice("worker", action, wallet, "--json", env=scheduler_environment(shared_pool))
    assert (done.code, done.json["changed"]) == (0, True), done.err


def _state(shared_pool: BenchPool, wallet: Wallet) -> str:
    """What `sluice worker show` says that the machine does."""
    return str(_shown(shared_pool, wallet)["state"])


def _busy(shared_pool: BenchPool, wallet: Wallet) -> bool:
    """Whether the machine has a task."""
    return bool(_shown(shared_pool, wallet)["busy_slots"])


def _shown(shared_pool: BenchPool, wallet: Wallet) -> dict[str, object]:
    found = forged.sluice("worker", "show", wallet, "--json", env=scheduler_environment(shared_pool))
    assert found.code == 0, found.err
    shown: dict[str, object] = found.json
    return shown


def _completed(shared_pool: BenchPool, deal: Matched) -> int:
    """Tasks of the deal that are COMPLETED on chain."""
    return sum(view.status is TaskStatus.COMPLETED for view in shared_pool.hub.tasks(deal.tasks))


def _stakes(shared_pool: BenchPool) -> dict[Wallet, int]:
    """nRLC of the pool's owner and of each machine in the hub, free and locked."""
    wallets = pool_wallets(shared_pool)
    accounts = shared_pool.hub.accounts(wallets)
    return {wallet: each.stake + each.locked for wallet, each in zip(wallets, accounts, strict=True)}
