from __future__ import annotations

from dataclasses import replace

import pytest

from chain.audit import audit
from chain.hub import Hub
from chain.testing import FakeChain, MemoryWatchStore
from chain.watch import Watcher
from protocol import events
from protocol.types import BlockNumber, Contract, TaskId

HUB = Contract("0x" + "cc" * 20)
POOL = Contract("0x" + "aa" * 20)


def initialized(number: int) -> events.TaskInitialize:
    return events.TaskInitialize(TaskId(f"0x{number:064x}"), POOL)


@pytest.fixture
def chain() -> FakeChain:
    chain = FakeChain(HUB)
    for number in range(10):
        chain.mine(initialized(number), empty=4)
    return chain


@pytest.fixture
def store() -> MemoryWatchStore:
    return MemoryWatchStore()


@pytest.fixture
def watcher(chain: FakeChain, store: MemoryWatchStore) -> Watcher:
    watcher = Watcher(chain, Hub(chain, HUB), POOL, store, lookback=8)
    list(watcher.catch_up(chain.head))
    return watcher


def test_a_store_that_followed_is_clean(chain: FakeChain, store: MemoryWatchStore, watcher: Watcher) -> None:
    findings = list(audit(watcher, store, BlockNumber(0), chain.head))

    assert all(finding.clean for finding in findings)
    assert (findings[0].first, findings[-1].last) == (0, chain.head)


def test_what_the_store_lacks_is_named_and_replay_repairs_it(
    chain: FakeChain, store: MemoryWatchStore, watcher: Watcher
) -> None:
    lost = next(iter(store.present))
    store.present.pop(lost)

    (finding,) = [one for one in audit(watcher, store, BlockNumber(0), chain.head) if not one.clean]
    assert [seen.event for seen in finding.missing] == [initialized(0)]

    list(watcher.replay(finding.first, finding.last))
    assert all(one.clean for one in audit(watcher, store, BlockNumber(0), chain.head))


def test_what_the_chain_does_not_have_is_named(chain: FakeChain, store: MemoryWatchStore, watcher: Watcher) -> None:
    invented = replace(next(iter(store.present.values())), log_index=99)
    store.present[invented.block_hash, 99] = invented

    findings = list(audit(watcher, store, BlockNumber(0), chain.head))

    assert [seen for one in findings for seen in one.extra] == [invented]
    assert not any(one.missing for one in findings)
