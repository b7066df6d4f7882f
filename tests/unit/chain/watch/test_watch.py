"""The watcher on a fake chain: order, restarts, reorgs, and nodes that lag or hide logs."""

from __future__ import annotations

import pytest

from chain.testing import FakeChain, MemoryWatchStore
from chain.watch.watcher import DEEPEST_REORG, MOST_BEHIND
from protocol.errors import RpcError, RpcUnavailable, WrongChain
from protocol.poco import events
from protocol.types import DealId, Hash32, TaskId
from tests.unit.chain.following import (
    HUB,
    LOOKBACK,
    OTHER_POOL,
    POOL,
    WORKER,
    catch_up,
    initialized,
    task,
    tasks_of,
    watcher,
)


def test_events_are_stored_and_handed_on_in_chain_order(chain: FakeChain, store: MemoryWatchStore) -> None:
    chain.mine(initialized(1), initialized(2))
    chain.mine(events.TaskContribute(task(1), WORKER, Hash32("0x" + "22" * 32)))

    caught = catch_up(watcher(chain, store), chain)

    assert [seen.event for one in caught for seen in one.seen] == store.events
    assert [type(event).__name__ for event in store.events] == ["TaskInitialize"] * 2 + ["TaskContribute"]
    assert store.cursor() == chain.ref(2)


def test_a_deal_is_handed_on_by_its_id(chain: FakeChain, store: MemoryWatchStore) -> None:
    deal = DealId("0x" + "dd" * 32)
    chain.mine(events.SchedulerNotice(POOL, deal), events.SchedulerNotice(OTHER_POOL, DealId("0x" + "de" * 32)))

    (caught,) = catch_up(watcher(chain, store), chain)

    assert caught.deals == [deal]
    assert caught.tasks == []


def test_tasks_of_other_workerpools_are_left_out(chain: FakeChain, store: MemoryWatchStore) -> None:
    chain.mine(initialized(1, OTHER_POOL), initialized(2))

    catch_up(watcher(chain, store), chain)

    assert store.events == [initialized(2)]


def test_the_work_is_stored_before_it_is_handed_on(chain: FakeChain, store: MemoryWatchStore) -> None:
    chain.mine(initialized(1))

    first = next(watcher(chain, store).catch_up(chain.head))

    assert first.tasks == [task(1)]
    assert store.events == [initialized(1)]


def test_a_caller_that_stops_half_way_loses_nothing(chain: FakeChain, store: MemoryWatchStore) -> None:
    for number in range(100):
        chain.mine(initialized(number))
    watching = watcher(chain, store)
    next(watching.catch_up(chain.head))

    assert set(tasks_of(catch_up(watching, chain))) >= {task(number) for number in range(93, 100)}
    assert store.events == [initialized(number) for number in range(100)]


def test_a_process_that_starts_again_sees_the_last_blocks_again(chain: FakeChain, store: MemoryWatchStore) -> None:
    for number in range(20):
        chain.mine(initialized(number))
    catch_up(watcher(chain, store), chain)

    again = catch_up(watcher(chain, store), chain)

    assert tasks_of(again) == [task(number) for number in range(20 - LOOKBACK, 20)]
    assert store.cursor() == chain.ref(20)


def test_a_process_that_runs_on_sees_each_block_once(chain: FakeChain, store: MemoryWatchStore) -> None:
    watching = watcher(chain, store)
    chain.mine(initialized(1))
    catch_up(watching, chain)
    chain.mine(initialized(2))

    assert tasks_of(catch_up(watching, chain)) == [task(2)]
    assert catch_up(watching, chain) == []


def test_blocks_before_the_start_block_are_not_read(chain: FakeChain, store: MemoryWatchStore) -> None:
    chain.mine(initialized(1))
    chain.mine(initialized(2))

    catch_up(watcher(chain, store, start_block=2), chain)

    assert store.events == [initialized(2)]


def test_a_long_way_is_read_in_ranges(chain: FakeChain, store: MemoryWatchStore) -> None:
    for number in range(30):
        chain.mine(initialized(number), empty=99)

    catch_up(watcher(chain, store), chain)

    assert store.events == [initialized(number) for number in range(30)]
    # 500, 1000 and the rest below the lookback in ranges; the blocks of the lookback have no transactions.
    assert chain.asked["eth_getLogs"] == 3


def test_ranges_shrink_until_the_node_takes_them(chain: FakeChain, store: MemoryWatchStore) -> None:
    for number in range(4):
        chain.mine(initialized(number), empty=99)
    chain.most_blocks = 40

    catch_up(watcher(chain, store), chain)

    assert store.events == [initialized(number) for number in range(4)]


def test_a_node_that_refuses_even_one_block_is_an_error_not_an_endless_loop(
    chain: FakeChain, store: MemoryWatchStore
) -> None:
    chain.mine(initialized(1), empty=50)
    chain.most_blocks = 0

    with pytest.raises(RpcError):
        catch_up(watcher(chain, store), chain)


def test_a_frozen_node_is_said_so_and_nothing_is_lost(chain: FakeChain, store: MemoryWatchStore) -> None:
    watching = watcher(chain, store)
    catch_up(watching, chain)
    chain.mine(initialized(1))
    chain.frozen = True
    with pytest.raises(RpcUnavailable):
        catch_up(watching, chain)
    chain.frozen = False

    assert tasks_of(catch_up(watching, chain)) == [task(1)]


# -- reorganisations ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 3, 7])
def test_a_reorg_takes_events_back_and_names_their_tasks(depth: int, chain: FakeChain, store: MemoryWatchStore) -> None:
    watching = watcher(chain, store)
    chain.mine(initialized(1), empty=20)
    chain.mine(initialized(2), empty=depth - 1)
    catch_up(watching, chain)

    chain.reorg(depth, initialized(3))
    caught = catch_up(watching, chain)

    assert caught[0].orphaned == (task(2),)
    assert tasks_of(caught) == [task(2), task(3)]
    assert store.events == [initialized(1), initialized(3)]
    assert [seen.event for seen in store.orphaned.values()] == [initialized(2)]


def test_an_event_that_comes_back_in_another_block_counts_once(chain: FakeChain, store: MemoryWatchStore) -> None:
    watching = watcher(chain, store)
    chain.mine(initialized(1))
    catch_up(watching, chain)

    chain.reorg(1, initialized(1))
    catch_up(watching, chain)

    assert store.events == [initialized(1)]


def test_a_rollback_is_noticed_as_soon_as_another_block_is_mined(chain: FakeChain, store: MemoryWatchStore) -> None:
    watching = watcher(chain, store)
    chain.mine(empty=10)
    chain.mine(initialized(1), empty=4)
    catch_up(watching, chain)

    chain.rollback(5)
    chain.mine(initialized(2))
    caught = catch_up(watching, chain)

    assert caught[0].orphaned == (task(1),)
    assert store.events == [initialized(2)]
    assert store.cursor() == chain.ref(chain.head)


def test_a_reorg_while_the_process_was_down_is_noticed_at_its_start(chain: FakeChain, store: MemoryWatchStore) -> None:
    chain.mine(empty=10)
    chain.mine(initialized(1))
    catch_up(watcher(chain, store), chain)

    chain.reorg(2, initialized(2))
    chain.mine(empty=30)
    catch_up(watcher(chain, store), chain)

    assert store.events == [initialized(2)]


@pytest.mark.parametrize("new_process", [True, False])
@pytest.mark.parametrize("first_step", [True, False])
def test_events_stored_without_the_cursor_do_not_outlive_their_block(
    new_process: bool, first_step: bool, chain: FakeChain, store: MemoryWatchStore
) -> None:
    watching = watcher(chain, store)
    if not first_step:
        catch_up(watching, chain)
    chain.mine(initialized(1))

    def die() -> None:
        raise RpcUnavailable(what="the store", why="it fails over")

    store.before_cursor = die
    with pytest.raises(RpcUnavailable):
        catch_up(watching, chain)
    store.before_cursor = lambda: None
    chain.reorg(1, initialized(2))
    caught = catch_up(watcher(chain, store) if new_process else watching, chain)

    assert tasks_of(caught) == [task(1), task(2)]
    assert store.events == [initialized(2)]


def test_a_reorg_between_two_questions_stores_nothing_of_either_branch_wrongly(
    chain: FakeChain, store: MemoryWatchStore
) -> None:
    watching = watcher(chain, store)
    catch_up(watching, chain)
    chain.mine(initialized(1))

    def replace_once(method: str) -> None:
        if method == "eth_getLogs":
            chain.before_answer = lambda _: None
            chain.reorg(1, initialized(2))

    chain.before_answer = replace_once
    with pytest.raises(RpcError, match="unknown block"):
        catch_up(watching, chain)

    assert tasks_of(catch_up(watching, chain)) == [task(2)]
    assert store.events == [initialized(2)]


@pytest.mark.parametrize(("restarted", "at_once"), [(False, [task(2)]), (True, [])])
def test_headers_across_a_reorg_are_not_used(
    *, restarted: bool, at_once: list[TaskId], chain: FakeChain, store: MemoryWatchStore
) -> None:
    watching = watcher(chain, store)
    catch_up(watching, chain)
    if restarted:
        watching = watcher(chain, store)
    chain.mine(initialized(1), empty=3)
    asked = 0

    def replace_third(method: str) -> None:
        nonlocal asked
        asked += method == "eth_getBlockByNumber"
        if asked == 4:
            chain.before_answer = lambda _: None
            chain.reorg(4, initialized(2))

    chain.before_answer = replace_third
    assert tasks_of(catch_up(watching, chain)) == at_once

    catch_up(watching, chain)
    assert store.events == [initialized(2)]


def test_a_node_slightly_behind_is_waited_for(chain: FakeChain, store: MemoryWatchStore) -> None:
    watching = watcher(chain, store)
    chain.mine(initialized(1), empty=5)
    catch_up(watching, chain)

    chain.lag = 3
    assert catch_up(watching, chain) == []
    assert store.events == [initialized(1)]


def test_a_node_far_behind_is_not_believed(chain: FakeChain, store: MemoryWatchStore) -> None:
    watching = watcher(chain, store)
    chain.mine(empty=40)
    catch_up(watching, chain)

    chain.lag = 30
    with pytest.raises(RpcUnavailable, match="far below block 41"):
        catch_up(watching, chain)


@pytest.mark.parametrize("above", [0, 1])
def test_a_block_that_the_node_lacks_among_later_ones_is_said_and_read_once_it_is_there(
    chain: FakeChain, store: MemoryWatchStore, above: int
) -> None:
    watching = watcher(chain, store)
    chain.mine(initialized(1), empty=4)
    catch_up(watching, chain)
    missing = chain.head + above
    chain.mine(initialized(2), empty=MOST_BEHIND + 1)
    chain.lacks = {missing}
    with pytest.raises(RpcUnavailable, match=f"does not show block {missing}, and its head is block {chain.head}"):
        catch_up(watching, chain)
    assert store.events == [initialized(1)]
    chain.lacks = set()
    catch_up(watching, chain)
    assert store.events == [initialized(1), initialized(2)]


def test_another_chain_under_the_same_address_stops_the_watcher(chain: FakeChain, store: MemoryWatchStore) -> None:
    chain.mine(empty=10)
    catch_up(watcher(chain, store), chain)
    stranger = FakeChain(HUB)
    stranger.rollback(1)
    stranger.mine(initialized(9), empty=20)

    with pytest.raises(WrongChain, match="SLUICE_MONGODB_DATABASE"):
        catch_up(watcher(stranger, store), stranger)


def test_a_reorg_deeper_than_any_real_one_stops_the_watcher(chain: FakeChain, store: MemoryWatchStore) -> None:
    chain.mine(empty=DEEPEST_REORG + 100)
    catch_up(watcher(chain, store), chain)
    chain.reorg(DEEPEST_REORG + 50)

    with pytest.raises(WrongChain):
        catch_up(watcher(chain, store), chain)
