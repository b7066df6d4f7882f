"""Deadlines are the contract's: they go by the chain's time, whatever this machine's clock shows."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest

from chain.rpc.client import Request
from pipeline.domain.actions import AskReveal, Method, Submit
from pipeline.domain.progress import next_visit
from pipeline.flow.chain_time import ASK_SECONDS, LOOK_SECONDS, SILENT_SECONDS, ChainTime
from pipeline.flow.isolate import is_transient
from protocol.errors import NodesOfOtherChain, RpcUnavailable
from protocol.poco.events import BlockRef
from protocol.types import BlockHash, BlockNumber, Timestamp
from tests.unit.pipeline.builders import (
    CONSENSUS,
    CONTRIBUTE_UNTIL,
    FINAL,
    PACE,
    START,
    decided,
    initialized,
    replicate,
    task,
    view,
    wallet,
)

HOUR = 3600.0


@dataclass
class World:
    """A chain and what is stored of it. `head`: block time of the node's newest block, None if it does not answer,
    which takes it `silence` seconds.
    """

    stored: float | None
    head: float | None
    asked: int = 0
    read: int = 0
    silence: float = 5.0
    error: Exception = field(default_factory=lambda: RpcUnavailable(what="node", why="away"))
    passed: float = 0.0
    chain_time: ChainTime = field(init=False)

    def __post_init__(self) -> None:
        self.chain_time = ChainTime(cast("Any", self), self.cursor, 1.0, monotonic=lambda: self.passed)

    def cursor(self) -> BlockRef | None:
        self.read += 1
        if self.stored is None:
            return None
        return BlockRef(BlockNumber(1), BlockHash("0x1"), BlockHash("0x0"), Timestamp(int(self.stored)))

    def batch(self, _: list[Request]) -> list[Any]:
        self.asked += 1
        if self.head is None:
            self.passed += self.silence
            raise self.error
        return [{"number": "0x1", "hash": "0x1", "parentHash": "0x0", "timestamp": hex(int(self.head))}]


@pytest.mark.parametrize("off", [-HOUR, -18.0, 31.0, HOUR])
def test_where_the_clock_is_off_the_newest_blocks_time_counts(off: float) -> None:
    world = World(stored=5000, head=5002)
    assert world.chain_time.read(5002 + off) == 5002


@pytest.mark.parametrize("age", [-15.0, 0.0, 30.0])
def test_a_clock_that_agrees_with_the_chain_stands_for_it_and_the_node_is_not_asked(age: float) -> None:
    world = World(stored=5000, head=None)
    assert world.chain_time.read(5000 + age) is None
    assert world.asked == 0


def test_while_the_clock_is_right_the_database_is_asked_once_in_some_seconds() -> None:
    world = World(stored=5000, head=None)
    for second in range(int(LOOK_SECONDS)):
        world.chain_time.read(5000.0 + second)
    assert world.read == 1


def test_a_clock_that_jumps_is_noticed_at_once() -> None:
    world = World(stored=5000, head=5000)
    assert world.chain_time.read(5000.0) is None
    assert world.chain_time.read(5001.0 + HOUR) == 5000
    assert world.chain_time.read(5002.0) is None


def test_a_watcher_that_hangs_does_not_stop_time() -> None:
    assert World(stored=5000, head=9000).chain_time.read(9001.0) is None


def test_while_the_chain_is_away_its_time_stands_still_and_a_silent_node_is_asked_seldom() -> None:
    world = World(stored=5000, head=None)
    later = 5000.0 + HOUR
    assert [world.chain_time.read(later + second) for second in range(10)] == [5000] * 10
    assert world.asked == 1
    assert world.passed == world.silence, "only the first of these tasks waited for the node"
    world.head = later + 10
    world.passed += SILENT_SECONDS
    assert world.chain_time.read(later + 10) is None


def test_nodes_that_are_all_on_another_chain_tell_no_time_and_are_no_fault_of_a_task() -> None:
    error = NodesOfOtherChain(why="none of them is on chain 1", fix="")
    assert World(stored=5000, head=None, error=error).chain_time.read(5000.0 + HOUR) == 5000
    assert is_transient(error)


def test_a_chain_that_stands_still_is_looked_at_again_after_some_seconds() -> None:
    world = World(stored=5000, head=5001)
    assert [world.chain_time.read(5000.0 + HOUR) for _ in range(3)] == [5001] * 3
    world.passed += ASK_SECONDS
    world.head = 5000 + HOUR
    assert world.chain_time.read(5000.0 + HOUR) is None
    assert world.asked == 2


def test_a_block_that_the_watcher_stores_ends_the_wait_for_a_silent_node() -> None:
    world = World(stored=5000, head=None)
    assert world.chain_time.read(5000.0 + HOUR) == 5000
    world.stored = 5000 + HOUR
    assert world.chain_time.read(5000.0 + HOUR) is None
    assert world.asked == 1


def test_a_pool_that_has_read_no_block_goes_by_its_clock() -> None:
    assert World(stored=None, head=None).chain_time.read(5000.0) is None


def transactions(status: str, *, chain: float, clock: float) -> list[Method]:
    """The transactions decided for a task of two winners (`REVEALING`), or of a worker that computes."""
    record = task(replicates=[replicate(1), replicate(2), replicate(3)])
    happened = CONSENSUS if status == "REVEALING" else (initialized(),)
    seen = replace(view(*happened), time=Timestamp(int(chain)))
    return [action.method for action in decided(record, seen, clock) if isinstance(action, Submit)]


@pytest.mark.parametrize("status", ["ACTIVE", "REVEALING"])
def test_a_clock_an_hour_ahead_claims_and_reopens_nothing_whose_time_has_not_come(status: str) -> None:
    assert transactions(status, chain=START + 3, clock=START + 3 + HOUR) == []


@pytest.mark.parametrize("status", ["ACTIVE", "REVEALING"])
def test_a_clock_an_hour_behind_claims_what_is_over_on_chain(status: str) -> None:
    assert transactions(status, chain=FINAL, clock=FINAL - HOUR) == [Method.CLAIM]


def test_reveals_are_asked_for_by_the_chains_time() -> None:
    record = task(replicates=[replicate(1), replicate(2), replicate(3)])
    late = START + 3 + HOUR
    ahead = replace(view(*CONSENSUS), time=Timestamp(START + 3))
    assert [action.wallet for action in decided(record, ahead, late) if isinstance(action, AskReveal)]
    assert not [action for action in decided(record, view(*CONSENSUS), late) if isinstance(action, AskReveal)]


def test_a_deadline_that_only_our_clock_has_passed_is_looked_for_within_a_minute() -> None:
    record = task(changed_at=START)
    seen = replace(view(initialized()), time=Timestamp(CONTRIBUTE_UNTIL - 1))
    assert next_visit(record, seen, CONTRIBUTE_UNTIL + HOUR, PACE) <= CONTRIBUTE_UNTIL + HOUR + 60


def test_what_a_wrong_clock_has_asked_for_in_the_future_is_asked_for_again() -> None:
    ahead = START + 3 + HOUR
    asked = [replicate(number, reveal_asked_at=ahead, upload_asked_at=ahead) for number in (1, 2, 3)]
    found = decided(task(replicates=asked), view(*CONSENSUS), START + 4)
    assert {action.wallet for action in found if isinstance(action, AskReveal)} == {wallet(1), wallet(2), wallet(3)}
    assert any(isinstance(action, AskReveal) and action.upload for action in found)
    just = [replicate(number, reveal_asked_at=START + 5, upload_asked_at=START + 5) for number in (1, 2, 3)]
    assert not [
        action
        for action in decided(task(replicates=just), view(*CONSENSUS), START + 4)
        if isinstance(action, AskReveal)
    ]
