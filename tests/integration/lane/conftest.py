"""Stores and lanes on real parts."""

from __future__ import annotations

import pytest

from chain.lane.store.mongo import MongoStore
from config.connections.mongodb import client
from ops.stack.stack import Stack


@pytest.fixture(scope="session")
def mongo_uri(stack: Stack) -> str:
    """Of the stack's MongoDB."""
    return stack.settings["SLUICE_MONGODB_URI"]


@pytest.fixture
def mongo_store(mongo_uri: str, emptied_database: str) -> MongoStore:
    """An empty store, for tests that write from their own process only."""
    store = MongoStore(client(mongo_uri)[emptied_database])
    store.ensure_indexes()
    return store
