"""A process of the scheduler, or a machine, is killed in the middle of a bag: every task is COMPLETED all the same.

Faults of servers and of the chain need a pool of their own: `trouble/test_faults.py`.
"""

from __future__ import annotations

import pytest

from bench.rig.bench_pool import BenchPool
from ops.stack.parts import StackPart
from tests.integration.pool.struck import completes_a_bag


def _spared(part: StackPart) -> None:
    pytest.fail(f"{part.value} is everybody's: no test here may kill it.")


@pytest.mark.parametrize("name", ["lane", "worker-machine"])
def test_a_bag_is_completed_though_a_process_is_killed_in_the_middle(shared_pool: BenchPool, name: str) -> None:
    completes_a_bag(shared_pool, name, trust=3, crash=_spared)
