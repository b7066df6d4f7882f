"""A hub that other pools share: only what concerns our tasks is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from chain.testing import FakeChain, MemoryWatchStore
from chain.watch import pool_filter
from protocol.poco import events
from protocol.types import TaskId
from tests.unit.chain.following import (
    LOOKBACK,
    OTHER_POOL,
    WORKER,
    catch_up,
    initialized,
    task,
    tasks_of,
    vote,
    watcher,
)


@dataclass(slots=True)
class AskedStore(MemoryWatchStore):
    """Keeps which tasks it was asked for."""

    asked: list[TaskId] = field(default_factory=list)

    def known(self, task_ids: Sequence[TaskId]) -> set[TaskId]:
        self.asked += task_ids
        return MemoryWatchStore.known(self, task_ids)


def verdict(number: int) -> events.AccurateContribution:
    return events.AccurateContribution(WORKER, task(number))


def test_what_happens_to_another_pools_task_is_neither_stored_nor_wakes_anybody(
    chain: FakeChain, store: MemoryWatchStore
) -> None:
    watching = watcher(chain, store)
    chain.mine(initialized(1, OTHER_POOL), vote(1), initialized(2), vote(2))
    caught = catch_up(watching, chain)
    chain.mine(vote(1), verdict(1), verdict(2))
    caught += catch_up(watching, chain)

    assert store.events == [initialized(2), vote(2), verdict(2)]
    assert tasks_of(caught) == [task(2), task(2)]


def test_a_task_initialized_long_ago_is_still_ours_for_a_new_process(chain: FakeChain, store: MemoryWatchStore) -> None:
    chain.mine(initialized(1), empty=10 * LOOKBACK)
    catch_up(watcher(chain, store), chain)
    chain.mine(vote(1), vote(2))

    catch_up(watcher(chain, store), chain)

    assert store.events == [initialized(1), vote(1)]


def test_a_task_whose_initialization_was_hidden_is_ours_by_its_deal(chain: FakeChain, store: MemoryWatchStore) -> None:
    store.rows.add(task(1))
    chain.mine(vote(1), vote(2))

    catch_up(watcher(chain, store), chain)

    assert store.events == [vote(1)]


def test_a_task_that_another_pool_initializes_is_not_ours_though_its_row_is_not_taken_back_yet(
    chain: FakeChain, store: MemoryWatchStore
) -> None:
    store.rows.add(task(1))
    chain.mine(initialized(1, OTHER_POOL), vote(1))

    catch_up(watcher(chain, store), chain)

    assert store.events == []


def test_a_task_that_a_reorg_gives_to_another_pool_is_no_longer_ours(chain: FakeChain, store: MemoryWatchStore) -> None:
    watching = watcher(chain, store)
    chain.mine(empty=5)
    chain.mine(initialized(1), vote(1))
    catch_up(watching, chain)

    chain.reorg(1, initialized(1, OTHER_POOL), vote(1))
    catch_up(watching, chain)
    chain.mine(vote(1))
    catch_up(watching, chain)

    assert store.events == []


def test_of_a_task_that_this_process_saw_initialized_the_store_is_not_asked(chain: FakeChain) -> None:
    store = AskedStore()
    watching = watcher(chain, store)
    for happened in (initialized(1), vote(1), verdict(1)):
        chain.mine(happened)
        catch_up(watching, chain)
    assert store.asked == []
    assert store.events == [initialized(1), vote(1), verdict(1)]


def test_what_is_remembered_of_tasks_ends_where_another_process_took_blocks_back(chain: FakeChain) -> None:
    store = AskedStore()
    watching, other = watcher(chain, store), watcher(chain, store)
    chain.mine(empty=5)
    catch_up(other, chain)
    chain.mine(initialized(1))
    catch_up(watching, chain)
    chain.reorg(1, initialized(1, OTHER_POOL))
    catch_up(other, chain)

    chain.mine(vote(1))
    catch_up(watching, chain)

    assert store.asked == [task(1)]
    assert store.events == []


def test_more_tasks_than_are_remembered_are_asked_for(chain: FakeChain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_filter, "MOST_KEPT", 1)
    store = AskedStore()
    watching = watcher(chain, store)
    for happened in ((initialized(1), initialized(2)), (vote(1), vote(2))):
        chain.mine(*happened)
        catch_up(watching, chain)
    assert store.asked == [task(1), task(2)]
    assert store.events == [initialized(1), initialized(2), vote(1), vote(2)]
