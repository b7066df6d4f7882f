"""Fixtures of the integration tests: real parts, each test with a chain of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from chain.hub import Hub
from chain.rpc import Rpc
from ops.market.orders import Market
from ops.poco.accounts import dev_key
from ops.poco.actor import Actor
from ops.poco.deploy import PocoAddresses
from ops.poco.state import CHAIN_ID, PocoState, ensure_state
from ops.stack import anvil, ports, tools
from ops.stack.anvil import Anvil

#: Seconds between blocks: many blocks a test, and yet mined by interval as everywhere.
BLOCK_TIME = 0.25


@dataclass(frozen=True, slots=True)
class Chain:
    """A development chain with PoCo on it."""

    node: Anvil
    rpc: Rpc
    at: PocoAddresses

    @property
    def hub(self) -> Hub:
        """Reads the PoCo hub."""
        return Hub(self.rpc, self.at.hub)

    @property
    def market(self) -> Market:
        """What orders are bound to."""
        return Market(CHAIN_ID, self.at.hub)

    def actor(self, index: int) -> Actor:
        """Development account `index`; 0 is the deployer, 1 to 9 hold coins and RLC."""
        return Actor(dev_key(index), self.rpc, CHAIN_ID)


@pytest.fixture(scope="session")
def poco_state() -> PocoState:
    """The saved chain that every test's own chain starts from."""
    return ensure_state(tools.root() / ".sluice")


@pytest.fixture
def chain(poco_state: PocoState, tmp_path: Path) -> Iterator[Chain]:
    """A fresh chain with PoCo, a block every BLOCK_TIME."""
    node = anvil.start(tmp_path / "anvil", ports.free_port(), block_time=BLOCK_TIME, load=poco_state.path)
    try:
        with Rpc(node.rpc_url) as rpc:
            yield Chain(node, rpc, poco_state.addresses)
    finally:
        node.stop()
