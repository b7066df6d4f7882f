"""Scheduler, machines and servers are killed at once: every open task goes on within blocks of their return, and ends.

The short form of `bench/blackout.py`.
"""

from __future__ import annotations

from bench.blackout import Servers, black_out, broken
from bench.rig.bench_pool import BenchPool
from tests.integration.pool.struck import WORK
from tests.integration.pool.trouble.conftest import OwnServers


def test_everything_killed_at_once_goes_on_within_three_blocks_and_loses_no_task(
    bench_pool: BenchPool, own: OwnServers
) -> None:
    # Each machine has two slots, and all of them are at work.
    deals = [bench_pool.buy(trust=3, volume=1, args=WORK), bench_pool.buy(trust=1, volume=2, args=WORK)]
    found = black_out(bench_pool, deals, Servers(own.kill, own.start))
    assert found["open"] >= 1
    assert not list(broken(found)), found
