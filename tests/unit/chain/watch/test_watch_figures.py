"""What the watcher counts and says: late finds, hidden logs, reorganisations below finality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from structlog.testing import capture_logs

from chain.contracts.hub import Hub
from chain.testing import FakeChain, MemoryWatchStore
from chain.watch.watcher import Reorg, Watcher
from config.metrics import HIDDEN_LOGS, LATE_FINDS, REORGS_BEYOND_FINALITY
from tests.unit.chain.following import (
    HUB,
    LOOKBACK,
    POOL,
    catch_up,
    initialized,
    vote,
    watcher,
)


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


def test_a_block_that_follows_costs_its_header_and_its_logs_only_if_it_may_have_any(
    chain: FakeChain, store: MemoryWatchStore
) -> None:
    watching = watcher(chain, store)
    catch_up(watching, chain)
    chain.mine(initialized(1))
    chain.asked.clear()
    catch_up(watching, chain)
    assert chain.asked == {"eth_getBlockByNumber": 1, "eth_getLogs": 1}
    chain.mine()
    catch_up(watching, chain)
    assert chain.asked == {"eth_getBlockByNumber": 2, "eth_getLogs": 1}
    assert store.events == [initialized(1)]


def test_a_filter_that_a_node_leaves_empty_hides_no_logs(chain: FakeChain, store: MemoryWatchStore) -> None:
    chain.fills_blooms = False
    watching = watcher(chain, store)
    catch_up(watching, chain)
    chain.mine(initialized(1))
    catch_up(watching, chain)
    assert store.events == [initialized(1)]


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
