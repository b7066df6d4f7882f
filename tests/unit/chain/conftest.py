"""A scripted chain and an empty store."""

from __future__ import annotations

import pytest

from chain.testing import FakeChain, MemoryWatchStore
from tests.unit.chain.following import HUB


@pytest.fixture
def chain() -> FakeChain:
    return FakeChain(HUB)


@pytest.fixture
def store() -> MemoryWatchStore:
    return MemoryWatchStore()
