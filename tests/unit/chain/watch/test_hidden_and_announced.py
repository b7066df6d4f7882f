"""Blocks whose logs a node hides, and what announced headers tell of blocks."""

from __future__ import annotations

import pytest

from chain.rpc.announced import Announced
from chain.testing import FakeChain, MemoryWatchStore
from chain.watch.logs import LogReader
from protocol.errors import RpcUnavailable
from protocol.types import BlockNumber
from tests.unit.chain.following import (
    HUB,
    catch_up,
    initialized,
    task,
    tasks_of,
    watcher,
)


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


def test_announced_blocks_without_an_event_of_the_hub_cost_no_call(chain: FakeChain, store: MemoryWatchStore) -> None:
    announced = Announced()
    watching = watcher(chain, store, announced=announced)
    catch_up(watching, chain)
    chain.mine(empty=2)
    chain.announce(announced.begin(), 1)
    chain.asked.clear()
    catch_up(watching, chain)
    assert store.cursor() == chain.ref(chain.head)
    assert chain.asked == {}

    chain.mine(initialized(1))
    chain.announce(announced.begin(), chain.head)
    catch_up(watching, chain)
    assert store.events == [initialized(1)]
    assert chain.asked == {"eth_getBlockByNumber": 1, "eth_getLogs": 1}


def test_a_reorg_is_noticed_by_announced_headers_that_do_not_follow(chain: FakeChain, store: MemoryWatchStore) -> None:
    announced = Announced()
    watching = watcher(chain, store, announced=announced)
    catch_up(watching, chain)
    chain.mine(initialized(1), empty=2)
    catch_up(watching, chain)
    chain.rollback(3)
    chain.mine(empty=3)
    chain.announce(announced.begin(), 1)
    assert tasks_of(catch_up(watching, chain)) == [task(1)]
    assert store.events == []
    assert store.cursor() == chain.ref(chain.head)


def test_a_block_whose_announced_header_tells_of_no_transactions_nor_of_logs_is_asked_for(
    chain: FakeChain, store: MemoryWatchStore
) -> None:
    announced = Announced()
    watching = watcher(chain, store, announced=announced)
    catch_up(watching, chain)
    block = chain.mine(initialized(1))
    announced.begin()(
        block.number,
        {
            "number": hex(block.number),
            "hash": block.hash,
            "parentHash": block.parent_hash,
            "timestamp": hex(block.timestamp),
        },
    )
    catch_up(watching, chain)
    assert store.events == [initialized(1)]


@pytest.mark.parametrize("announces", [False, True])
def test_a_node_whose_headers_have_neither_filter_nor_root_hides_no_event(
    chain: FakeChain, store: MemoryWatchStore, *, announces: bool
) -> None:
    announced = Announced()
    watching = watcher(chain, store, announced=announced)
    chain.fills_blooms = chain.fills_roots = False
    catch_up(watching, chain)
    chain.mine(initialized(1))
    if announces:
        chain.announce(announced.begin(), chain.head)
    catch_up(watching, chain)
    assert store.events == [initialized(1)]


@pytest.mark.parametrize("many", [False, True], ids=["by block", "by range"])
def test_null_for_the_logs_of_blocks_without_blooms_is_no_answer(many: bool) -> None:
    chain = FakeChain(HUB, fills_blooms=False)
    chain.mine(initialized(1))
    reader = LogReader(chain, HUB)
    headers = reader.headers(BlockNumber(1), BlockNumber(1))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(FakeChain, "_get_logs", lambda *_: None)
        with pytest.raises(RpcUnavailable, match="in place of logs"):
            (reader.events_of_range if many else reader.events_of_blocks)(headers)
    assert len((reader.events_of_range if many else reader.events_of_blocks)(headers)) == 1
