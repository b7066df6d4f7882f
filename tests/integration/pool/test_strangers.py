"""Machines of six harmful kinds together, as `python -m bench hostile` has them beside fifty more."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.rig.bench_pool import BenchPool
from bench.rig.strangers import Kind, Stranger, at_work, deeds, funded, wrong_results
from ops.poco.deploy import TEST_10_CATEGORY
from protocol.poco.view import TaskStatus
from tests.integration.pool.conftest import HONEST, banned, set_banned
from tests.waiting import ample, wait_until

#: Seconds until the final deadline of a task of the category of 10 s, and some to claim it.
LONGEST_SECONDS = 150.0


@pytest.fixture
def strangers(shared_pool: BenchPool, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Stranger]]:
    """A machine of each kind; banned afterwards."""
    monkeypatch.setattr(shared_pool, "timeout", ample(LONGEST_SECONDS))
    with at_work(shared_pool, funded(shared_pool, len(Kind)), tuple(Kind)) as cast:
        yield cast
    set_banned(shared_pool, [stranger.key.wallet for stranger in cast], banned=True)


def test_machines_that_lie_copy_vanish_or_do_not_reveal_change_no_result_and_cost_no_honest_stake(
    shared_pool: BenchPool, strangers: list[Stranger]
) -> None:
    honest = [wallet.key.wallet for wallet in shared_pool.pool.on_chain.workers[:HONEST]]
    before = shared_pool.hub.accounts(honest)
    # What honest machines have room for goes to them: they are away until each stranger has work.
    with banned(shared_pool, honest):
        deal = shared_pool.buy(trust=5, volume=len(strangers) // 2, category=TEST_10_CATEGORY)
        wait_until(lambda: all(stranger.given for stranger in strangers), 30, what="each stranger to be asked")
    views = shared_pool.wait([deal])
    assert wrong_results([deal], views) == 0
    assert sum(kind["voted"] for kind in deeds(strangers, views).values())
    # The next task is an honest machine's as ever.
    next_deal = shared_pool.buy(trust=5, volume=1)
    assert {view.status for view in shared_pool.wait([next_deal]).values()} == {TaskStatus.COMPLETED}
    after = shared_pool.hub.accounts(honest)
    assert all(now.stake + now.locked >= was.stake + was.locked for was, now in zip(before, after, strict=True))
