"""Audits and replays of stored events against a fake chain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from chain.contracts.hub import Hub
from chain.testing import FakeChain, MemoryWatchStore
from chain.watch.audit import TRIES, Audit, DealPlace, audit, replay
from chain.watch.watcher import Watcher
from config.metrics import LATE_FINDS
from protocol.errors import ChainMoved, RpcUnavailable
from protocol.poco import events
from protocol.types import BlockHash, BlockNumber, Contract, DealId, Hash32, TaskId, Wallet

HUB = Contract("0x" + "cc" * 20)
POOL = Contract("0x" + "aa" * 20)
OTHER_POOL = Contract("0x" + "ab" * 20)
LOOKBACK = 8
ALL = BlockNumber(0)


def task(number: int) -> TaskId:
    return TaskId(f"0x{number:064x}")


def initialized(number: int, pool: Contract = POOL) -> events.TaskInitialize:
    return events.TaskInitialize(task(number), pool)


def vote(number: int) -> events.TaskContribute:
    return events.TaskContribute(task(number), Wallet("0x" + "bb" * 20), Hash32("0x" + "22" * 32))


def notice(number: int, pool: Contract = POOL) -> events.SchedulerNotice:
    return events.SchedulerNotice(pool, DealId(f"0x{number:064x}"))


@pytest.fixture
def chain() -> FakeChain:
    """Ten deals of one task each, a block apart from their votes, and as many of another pool."""
    chain = FakeChain(HUB)
    for number in range(10):
        chain.mine(notice(number), notice(100 + number, OTHER_POOL))
        chain.mine(initialized(number), initialized(100 + number, OTHER_POOL), empty=2)
        chain.mine(vote(number), vote(100 + number))
    return chain


@pytest.fixture
def store() -> MemoryWatchStore:
    return MemoryWatchStore()


@pytest.fixture
def watcher(chain: FakeChain, store: MemoryWatchStore) -> Watcher:
    watcher = Watcher(chain, Hub(chain, HUB), POOL, store, lookback=LOOKBACK)
    list(watcher.catch_up(chain.head))
    return watcher


def drop(store: MemoryWatchStore, *lost: events.Event) -> None:
    """Make the store forget these logs."""
    for place, seen in list(store.present.items()):
        if seen.event in lost:
            del store.present[place]


def odd(found: Sequence[Audit]) -> list[Audit]:
    return [one for one in found if not one.clean]


def test_a_store_that_followed_is_clean_though_other_pools_share_the_hub(
    chain: FakeChain, store: MemoryWatchStore, watcher: Watcher
) -> None:
    found = list(audit(watcher, store, ALL, chain.head))

    assert odd(found) == []
    assert (found[0].first, found[-1].last) == (0, chain.ref(chain.head))


def test_a_lost_log_is_named_and_replay_brings_it_back(
    chain: FakeChain, store: MemoryWatchStore, watcher: Watcher
) -> None:
    drop(store, vote(0))
    (found,) = odd(list(audit(watcher, store, ALL, chain.head)))
    assert [seen.event for seen in found.missing] == [vote(0)]
    before = LATE_FINDS.labels("replay")._value.get()

    list(replay(watcher, store, ALL, chain.head))

    assert odd(list(audit(watcher, store, ALL, chain.head))) == []
    assert store.woken == [task(0)]
    assert LATE_FINDS.labels("replay")._value.get() - before == 1


def test_a_lost_deal_is_named_and_replay_brings_it_back(
    chain: FakeChain, store: MemoryWatchStore, watcher: Watcher
) -> None:
    lost = store.deals.pop(notice(3).deal_id)
    (found,) = odd(list(audit(watcher, store, ALL, chain.head)))
    assert (found.missing_deals, found.extra_deals, found.missing) == ((lost,), (), ())

    list(replay(watcher, store, ALL, chain.head))

    assert store.deals[lost.deal_id] == lost
    assert store.woken == [lost.deal_id]


def test_what_the_chain_does_not_have_is_named_and_replay_takes_it_away(
    chain: FakeChain, store: MemoryWatchStore, watcher: Watcher
) -> None:
    invented = replace(next(iter(store.present.values())), log_index=99, event=initialized(77))
    store.present[invented.place] = invented
    bogus = DealPlace(DealId("0x" + "ee" * 32), BlockNumber(2), BlockHash("0x" + "ef" * 32))
    store.deals[bogus.deal_id] = bogus

    (found,) = odd(list(audit(watcher, store, ALL, chain.head)))
    assert (found.extra, found.extra_deals) == ((invented,), (bogus,))
    assert (found.missing, found.missing_deals) == ((), ())

    list(replay(watcher, store, ALL, chain.head))
    assert odd(list(audit(watcher, store, ALL, chain.head))) == []
    assert store.orphaned == {invented.place: invented}


def test_a_log_that_was_changed_is_put_right(chain: FakeChain, store: MemoryWatchStore, watcher: Watcher) -> None:
    place, seen = next((place, seen) for place, seen in store.present.items() if seen.event == vote(4))
    store.present[place] = replace(seen, event=vote(5))

    list(replay(watcher, store, ALL, chain.head))

    assert store.present[place] == seen


def test_all_events_of_a_task_that_the_store_lacks_are_found(
    chain: FakeChain, store: MemoryWatchStore, watcher: Watcher
) -> None:
    drop(store, initialized(0), vote(0))
    begun = next(seen.block_number for seen in _on_chain(chain) if seen.event == initialized(0))

    missing = [seen.event for found in audit(watcher, store, ALL, chain.head) for seen in found.missing]
    assert missing == [initialized(0), vote(0)]

    # Only the block with its beginning: what came later is read too, for it was taken for another pool's.
    list(replay(watcher, store, begun, begun))
    assert odd(list(audit(watcher, store, ALL, chain.head))) == []


def test_the_tasks_of_a_deal_that_the_store_lacks_are_found_too(
    chain: FakeChain, store: MemoryWatchStore, watcher: Watcher
) -> None:
    drop(store, notice(0), initialized(0), vote(0))
    del store.deals[notice(0).deal_id]
    matched = next(seen.block_number for seen in _on_chain(chain) if seen.event == notice(0))

    # Only the block of the match, as after a SLUICE_START_BLOCK that was too high.
    list(replay(watcher, store, matched, matched))
    assert odd(list(audit(watcher, store, ALL, chain.head))) == []


def test_replay_leaves_cursor_and_blocks_where_they_are(
    chain: FakeChain, store: MemoryWatchStore, watcher: Watcher
) -> None:
    cursor, blocks = store.cursor(), dict(store._blocks)
    drop(store, vote(0), vote(9))

    list(replay(watcher, store, ALL, chain.head))

    assert (store.cursor(), store._blocks) == (cursor, blocks)


def test_blocks_replaced_since_they_were_followed_are_no_finding_but_said(
    chain: FakeChain, store: MemoryWatchStore, watcher: Watcher
) -> None:
    chain.reorg(3, vote(1))

    with pytest.raises(ChainMoved, match=r"Around block \d+ the chain is not the one that was followed"):
        list(audit(watcher, store, ALL, chain.head))


def test_a_node_that_is_behind_is_not_taken_for_a_chain_that_moved(
    chain: FakeChain, store: MemoryWatchStore, watcher: Watcher
) -> None:
    chain.lag = 3

    with pytest.raises(RpcUnavailable, match=f"its head is block {chain.head - 3}, below block {chain.head}"):
        list(audit(watcher, store, ALL, chain.head))
    assert odd(list(audit(watcher, store, ALL, BlockNumber(chain.head - 3)))) == []


def test_a_node_that_does_not_answer_in_the_middle_is_asked_again_and_gives_an_error_only_if_that_goes_on(
    chain: FakeChain, store: MemoryWatchStore, watcher: Watcher
) -> None:
    drop(store, vote(0))
    whole, asked, away = odd(list(audit(watcher, store, ALL, chain.head))), 0, range(3, 5)

    def answer(_: str) -> None:
        nonlocal asked
        asked += 1
        chain.frozen = asked in away

    chain.before_answer = answer
    assert odd(list(audit(watcher, store, ALL, chain.head))) == whole
    asked, away = 0, range(3, 1000)
    with pytest.raises(RpcUnavailable):
        list(audit(watcher, store, ALL, chain.head))
    assert asked < 3 + 3 * TRIES


def test_a_reorg_in_the_middle_of_a_replay_leaves_nothing_of_the_lost_branch(
    chain: FakeChain, store: MemoryWatchStore, watcher: Watcher
) -> None:
    drop(store, vote(9))
    other = Watcher(chain, Hub(chain, HUB), POOL, store, lookback=LOOKBACK)

    def reorg_once() -> None:
        # The watcher is quicker than the replay: it took the branch back before the replay stores what it read of it.
        store.before_repair = lambda: None
        chain.reorg(1, vote(8))
        list(other.catch_up(chain.head))

    store.before_repair = reorg_once
    list(replay(watcher, store, ALL, chain.head))

    assert vote(9) not in store.events
    assert odd(list(audit(watcher, store, ALL, chain.head))) == []


def _on_chain(chain: FakeChain) -> list[events.Seen]:
    fresh = MemoryWatchStore()
    list(Watcher(chain, Hub(chain, HUB), POOL, fresh, lookback=LOOKBACK).catch_up(chain.head))
    return list(fresh.present.values())
