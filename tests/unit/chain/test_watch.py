from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from structlog.testing import capture_logs

from chain.hub import Hub
from chain.testing import FakeChain, MemoryWatchStore
from chain.watch import DEEPEST_REORG, Caught, Reorg, Watcher
from config.metrics import HIDDEN_LOGS, LATE_FINDS, REORGS_BEYOND_FINALITY
from protocol import events
from protocol.errors import RpcError, RpcUnavailable, WrongChain
from protocol.types import BlockNumber, Contract, DealId, Hash32, TaskId, Wallet

HUB = Contract("0x" + "cc" * 20)
POOL = Contract("0x" + "aa" * 20)
OTHER_POOL = Contract("0x" + "ab" * 20)
WORKER = Wallet("0x" + "bb" * 20)
LOOKBACK = 8


def task(number: int) -> TaskId:
    return TaskId(f"0x{number:064x}")


def initialized(number: int, pool: Contract = POOL) -> events.TaskInitialize:
    return events.TaskInitialize(task(number), pool)


@pytest.fixture
def chain() -> FakeChain:
    return FakeChain(HUB)


@pytest.fixture
def store() -> MemoryWatchStore:
    return MemoryWatchStore()


def watcher(chain: FakeChain, store: MemoryWatchStore, start_block: int = 0) -> Watcher:
    return Watcher(chain, Hub(chain, HUB), POOL, store, lookback=LOOKBACK, start_block=start_block)


def catch_up(watching: Watcher, chain: FakeChain) -> list[Caught]:
    return list(watching.catch_up(BlockNumber(chain.head - chain.lag)))


def tasks_of(caught: list[Caught]) -> list[TaskId]:
    return [task_id for one in caught for task_id in one.tasks]


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
    # 500, 1000 and the rest below the lookback in ranges, the lookback one by one.
    assert chain.asked["eth_getLogs"] == 3 + LOOKBACK


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


def test_a_reorg_among_the_headers_read_stops_before_the_break(chain: FakeChain, store: MemoryWatchStore) -> None:
    watching = watcher(chain, store)
    catch_up(watching, chain)
    chain.mine(initialized(1), empty=3)
    asked = 0

    def replace_third(method: str) -> None:
        nonlocal asked
        asked += method == "eth_getBlockByNumber"
        if asked == 4:
            chain.before_answer = lambda _: None
            chain.reorg(4, initialized(2))

    chain.before_answer = replace_third
    assert catch_up(watching, chain) == []

    assert tasks_of(catch_up(watching, chain)) == [task(2)]


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


# -- nodes that hide logs ----------------------------------------------------------------------------------------------


def test_logs_that_the_node_hides_are_found_in_the_receipts(chain: FakeChain, store: MemoryWatchStore) -> None:
    hidden = chain.mine(initialized(1))
    chain.hides_logs_of.add(hidden.number)

    catch_up(watcher(chain, store), chain)

    assert store.events == [initialized(1)]


def test_logs_hidden_deep_below_the_head_are_found_too(chain: FakeChain, store: MemoryWatchStore) -> None:
    hidden = chain.mine(initialized(1), empty=50)
    chain.hides_logs_of.add(hidden.number)

    catch_up(watcher(chain, store), chain)

    assert store.events == [initialized(1)]


def test_a_node_whose_receipts_do_not_fit_its_block_is_not_believed(chain: FakeChain, store: MemoryWatchStore) -> None:
    hidden = chain.mine(initialized(1))
    chain.hides_logs_of.add(hidden.number)
    chain.hides_receipts_of.add(hidden.number)

    with pytest.raises(RpcUnavailable, match="hides logs of block 1"):
        catch_up(watcher(chain, store), chain)
    assert store.events == []


def test_receipts_are_asked_for_only_when_a_block_promises_logs(chain: FakeChain, store: MemoryWatchStore) -> None:
    chain.mine(initialized(1), empty=10)

    catch_up(watcher(chain, store), chain)

    assert chain.asked["eth_getBlockReceipts"] == 0


# -- other pools on the same hub ---------------------------------------------------------------------------------------


def vote(number: int) -> events.TaskContribute:
    return events.TaskContribute(task(number), WORKER, Hash32("0x" + "22" * 32))


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


# -- late finds --------------------------------------------------------------------------------------------------------


def late_finds(found_by: str) -> float:
    return float(LATE_FINDS.labels(found_by)._value.get())


def test_what_the_overlap_finds_in_blocks_stored_before_is_counted_and_said(
    chain: FakeChain, store: MemoryWatchStore
) -> None:
    chain.mine(initialized(1), vote(1), initialized(2))
    catch_up(watcher(chain, store), chain)
    block = chain.ref(1).hash
    del store.present[block, 0], store.present[block, 1]
    chain.mine(initialized(3))
    before = late_finds("overlap")

    with capture_logs() as logs:
        catch_up(watcher(chain, store), chain)

    assert store.events == [initialized(1), vote(1), initialized(2), initialized(3)]
    assert late_finds("overlap") - before == 2
    (said,) = [line for line in logs if line["action"] == "late_find"]
    assert (said["log_level"], said["found_by"], said["events"]) == ("warning", "overlap", 2)
    assert (said["first_block"], said["last_block"]) == (1, 1)


def test_a_restart_that_finds_nothing_new_counts_nothing(chain: FakeChain, store: MemoryWatchStore) -> None:
    chain.mine(initialized(1), vote(1))
    catch_up(watcher(chain, store), chain)
    before = late_finds("overlap")

    catch_up(watcher(chain, store), chain)

    assert late_finds("overlap") == before


def test_hidden_logs_are_counted(chain: FakeChain, store: MemoryWatchStore) -> None:
    hidden = chain.mine(initialized(1), vote(1))
    chain.hides_logs_of.add(hidden.number)
    before = HIDDEN_LOGS._value.get()

    catch_up(watcher(chain, store), chain)

    assert HIDDEN_LOGS._value.get() - before == 2


# -- reorganisations below what the lane calls final -------------------------------------------------------------------

FINALITY = 3


def errors_of(logs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [line for line in logs if line["log_level"] == "error"]


@pytest.mark.parametrize(("depth", "loud"), [(FINALITY, False), (FINALITY + 1, True)])
def test_a_reorg_deeper_than_finality_is_an_error_that_says_what_to_do(
    depth: int, loud: bool, chain: FakeChain, store: MemoryWatchStore
) -> None:
    watching = Watcher(chain, Hub(chain, HUB), POOL, store, lookback=LOOKBACK, finality=FINALITY)
    chain.mine(empty=20)
    chain.mine(initialized(1), empty=depth - 1)
    catch_up(watching, chain)
    before = REORGS_BEYOND_FINALITY._value.get()

    chain.reorg(depth)
    with capture_logs() as logs:
        catch_up(watching, chain)

    said = errors_of(logs)
    assert [line["action"] for line in said] == ["reorg_beyond_finality"] * loud
    assert REORGS_BEYOND_FINALITY._value.get() - before == loud
    for line in said:
        assert "sluice tx audit" in line["event"]
        assert "sluice chain audit" in line["event"]
        assert (line["depth"], line["finality"], line["tasks"]) == (depth, FINALITY, 1)


def test_reorgs_that_add_up_below_finality_are_as_loud_as_one(chain: FakeChain, store: MemoryWatchStore) -> None:
    watching = Watcher(chain, Hub(chain, HUB), POOL, store, lookback=LOOKBACK, finality=FINALITY)
    chain.mine(empty=20)
    catch_up(watching, chain)
    with capture_logs() as logs:
        # Two blocks back, one of them made again; then two back again.
        for _ in range(3):
            chain.rollback(2)
            chain.mine()
            catch_up(watching, chain)

    assert [line["depth"] for line in errors_of(logs)] == [4]


def test_reorganisations_are_remembered_with_the_blocks_they_spanned(chain: FakeChain, store: MemoryWatchStore) -> None:
    watching = watcher(chain, store)
    chain.mine(empty=10)
    chain.mine(initialized(1), empty=1)
    catch_up(watching, chain)
    top, ancestor = chain.ref(chain.head), chain.ref(chain.head - 2)
    chain.reorg(2)
    catch_up(watching, chain)

    assert store.reorgs == [Reorg(ancestor, top, tasks=1)]
    assert store.reorgs[0].depth == 2
