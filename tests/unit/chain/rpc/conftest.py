"""A pool of three nodes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from chain.rpc.pool import RpcPool
from tests.unit.chain.rpc.fake_nodes import CHAIN, Clock, FakeNode, Setup


@pytest.fixture
def setup() -> Iterator[Setup]:
    nodes = [FakeNode("a"), FakeNode("b"), FakeNode("c")]
    clock = Clock()
    pool = RpcPool(nodes, CHAIN, clock=clock)
    yield Setup(nodes, clock, pool)
    pool.close()
