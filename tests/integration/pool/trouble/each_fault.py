"""The faults that `make test` and `make test-pools` leave to `make test-faults`."""

from __future__ import annotations

import pytest

from bench.rig.bench_pool import BenchPool
from tests.integration.pool.struck import completes_a_bag
from tests.integration.pool.trouble.conftest import OwnServers

#: Fault, and trust of the bag.
STRUCK = {
    "pipeline": 1,
    "watch": 1,
    "beat": 1,
    "api": 1,
    "chain-frozen": 3,
    "reorg-10-dropped": 1,
    "reorg-3-returned": 3,
}


@pytest.mark.parametrize("name", STRUCK)
def test_a_bag_is_completed_though_something_breaks_in_the_middle(
    bench_pool: BenchPool, own: OwnServers, name: str
) -> None:
    completes_a_bag(bench_pool, name, trust=STRUCK[name], crash=own.crash)
