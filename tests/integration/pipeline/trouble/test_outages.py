"""Outages that last for half of one task's time and for twice another's: nothing fails for them that could be saved.

Each outage meets the same pool: a machine has computed two tasks and not voted, one of a category whose votes last for
twice the outage, one of a category whose final deadline comes at half of it. In the outage a third task is bought.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from ops.poco.state import PocoState
from ops.stack.stack import Stack
from pipeline.domain.records import TaskStage
from protocol.poco.view import TaskStatus
from tests.faulty import answers
from tests.faulty.answers import Call, Honest, Reply
from tests.integration.conftest import _database
from tests.integration.pipeline.simulated_worker import SimulatedWorker
from tests.integration.pipeline.trouble.outage_pool import AWAY_SECONDS, LONG, SHORT, OutagePool, open_outage_pool

#: Seconds of an outage: twice the time until the final deadline of SHORT, half of that in which LONG takes votes.
OUTAGE_SECONDS = 20.0 * SHORT
#: Blocks that nodes are behind.
LAG_BLOCKS = 50
assert OUTAGE_SECONDS <= 7.0 * LONG / 2


@dataclass(frozen=True)
class Outage:
    """How it begins and ends, and the part of the pool that is named for it."""

    part: str
    begin: Callable[[OutagePool], None]
    end: Callable[[OutagePool], None]

    @contextmanager
    def in_(self, pool: OutagePool) -> Iterator[None]:
        """As long as the block lasts."""
        self.begin(pool)
        try:
            yield
        finally:
            self.end(pool)


def _set(name: str, on: object, off: object, of: str = "") -> tuple[Callable[[OutagePool], None], ...]:
    def to(value: object) -> Callable[[OutagePool], None]:
        return lambda pool: setattr(getattr(pool, of) if of else pool, name, value)

    return to(on), to(off)


def _broker_away() -> tuple[Callable[[OutagePool], None], ...]:
    def to(away: bool) -> Callable[[OutagePool], None]:
        def strike(pool: OutagePool) -> None:
            for port in pool.rabbitmq:
                port.away = away

        return strike

    return to(True), to(False)


def _set_alarm(on: bool) -> Callable[[OutagePool], None]:
    def strike(pool: OutagePool) -> None:
        pool.rabbitmq[0].alarmed = on
        pool.rabbitmq[1].short_of = "disk" if on else None

    return strike


def _nodes_lag(pool: OutagePool) -> None:
    """All of them stop, and go on once they are LAG_BLOCKS behind; a block a second."""
    head = pool.chain.hub.head()
    pool.block_seconds = 1.0

    def fault(calls: Sequence[Call], as_list: bool, ask: Honest) -> Reply:
        behind = min(LAG_BLOCKS, pool.chain.hub.head() - head)
        return answers.behind(behind)(calls, as_list, ask)

    pool.node.fault = fault


def _nodes_are_back(pool: OutagePool) -> None:
    pool.node.fault, pool.block_seconds = answers.honest, None


OUTAGES = {
    "the node is away": Outage("chain", *_set("fault", answers.cut, answers.honest, of="node")),
    "the chain stands still": Outage("chain", *_set("mining", False, True)),
    "the database is away": Outage("mongodb", *_set("away", True, False, of="mongodb")),
    "the database's disk is full": Outage("mongodb", *_set("read_only", True, False, of="mongodb")),
    "the broker is away": Outage("rabbitmq", *_broker_away()),
    "all nodes lag 50 blocks": Outage("clock", _nodes_lag, _nodes_are_back),
    "the broker's disk is full": Outage("rabbitmq", _set_alarm(True), _set_alarm(False)),
    "IPFS's disk is full": Outage("results", *_set("full", True, False, of="ipfs")),
    "IPFS is away": Outage("ipfs", *_set("away", True, False, of="ipfs")),
    "the clock is an hour ahead": Outage("clock", *_set("ahead", 3600.0, 0.0)),
    "the clock is an hour behind": Outage("clock", *_set("ahead", -3600.0, 0.0)),
}


@pytest.fixture(scope="module")
def pool(poco_state: PocoState, stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OutagePool]:
    home = tmp_path_factory.mktemp("outages")
    with _database(stack) as (database, _), open_outage_pool(poco_state, stack, database, home) as opened:
        opened.enrol(0)
        yield opened


@pytest.fixture
def machine(pool: OutagePool) -> Iterator[SimulatedWorker]:
    """It keeps what it has computed until it may hear of uploads again."""
    (found,) = pool.machines
    found.deaf.add("worker.upload")
    yield found
    found.deaf.clear()


def vote(machine: SimulatedWorker, task: str) -> None:
    """The machine goes on where it was."""
    for step in ("worker.upload", "worker.contribute_and_finalize"):
        machine._do(step, task)


@pytest.mark.parametrize("name", OUTAGES)
def test_what_can_be_saved_is_saved_and_nothing_new_is_begun(
    pool: OutagePool, machine: SimulatedWorker, name: str
) -> None:
    outage = OUTAGES[name]
    pool.step()
    assert pool.holds[-1] is None
    short, long = pool.buy(SHORT), pool.buy(LONG)
    for deal in (short, long):
        pool.until("it is initialized", deal, "ACTIVE")
    assert {short.tasks[0], long.tasks[0]} <= set(machine.asked("worker.compute"))

    with outage.in_(pool):
        pool.steps(2 * AWAY_SECONDS, AWAY_SECONDS)
        later = pool.buy(LONG) if pool.mining else None
        pool.steps(OUTAGE_SECONDS - 2 * AWAY_SECONDS, AWAY_SECONDS)
        assert (pool.holds[-1] or "").startswith(f"{outage.part}: ")
        if later is not None:
            assert pool.view(later).status is TaskStatus.UNSET
            assert later.tasks[0] not in machine.asked("worker.compute")
        assert pool.view(long).status is TaskStatus.ACTIVE

    machine.deaf.clear()
    pool.step()
    vote(machine, long.tasks[0])
    pool.until("half of a deadline was lost", long, "COMPLETED")
    pool.until("twice a deadline was lost", short, "FAILED")
    assert pool.holds[-1] is None
    if later is not None:
        pool.until("it was bought in the outage", later, "COMPLETED")
    pool.step()
    for deal, stage in ((long, TaskStage.COMPLETED), (short, TaskStage.FAILED)):
        found = pool.task(deal)
        assert found is not None
        assert found.stage is stage
    assert pool.locked() == [0] * 5


def test_a_vote_is_revealed_first_thing_unless_its_time_has_passed_and_nobody_is_blamed(
    pool: OutagePool, machine: SimulatedWorker
) -> None:
    """The node is away for twice the time in which SHORT takes reveals, and for half of that of LONG."""
    machine.deaf.add("worker.reveal")
    short, long = pool.buy(SHORT, trust=2), pool.buy(LONG, trust=2)
    for deal in (short, long):
        pool.until("it has its votes", deal, "REVEALING")
    with OUTAGES["the node is away"].in_(pool):
        pool.steps(2 * 2 * SHORT, 2 * SHORT)
    machine.deaf.clear()
    later = pool.buy(LONG)
    pool.until("half of the time for reveals was lost", long, "COMPLETED")
    pool.until("twice the time for reveals was lost", short, "FAILED")
    pool.until("it was bought after the outage", later, "COMPLETED")
    (found,) = pool.store.workers.load_workers([machine.key.wallet])
    assert (found.failures, found.rest_until) == (0, 0.0)
    assert pool.locked() == [0] * 5


@pytest.mark.parametrize("name", ["the clock is an hour ahead", "the clock is an hour behind"])
def test_what_was_voted_on_is_brought_to_its_end_while_the_scheduler_s_clock_is_off(
    pool: OutagePool, machine: SimulatedWorker, name: str
) -> None:
    machine.deaf.add("worker.reveal")
    deal = pool.buy(LONG, trust=2)
    pool.until("it has its votes", deal, "REVEALING")
    with OUTAGES[name].in_(pool):
        machine.deaf.clear()
        pool.until("deadlines go by the chain's time", deal, "COMPLETED")
    assert pool.locked() == [0] * 5


@pytest.mark.parametrize("hours", [5, -5])
def test_a_host_whose_clock_is_off_by_hours_fails_nothing_that_another_host_is_at(
    pool: OutagePool, machine: SimulatedWorker, hours: int
) -> None:
    """It holds the pool; deadlines go by the chain's time, and nobody is blamed for being late by its clock."""
    machine.deaf.add("worker.reveal")
    begun, agreed = pool.buy(LONG), pool.buy(LONG, trust=2)
    pool.until("it is initialized", begun, "ACTIVE")
    pool.until("it has its votes", agreed, "REVEALING")
    with pool.second_host(ahead=3600.0 * hours):
        pool.steps(AWAY_SECONDS)
        assert (pool.holds[-1] or "").startswith("clock: ")
        assert pool.view(begun).status is TaskStatus.ACTIVE
        machine.deaf.clear()
        pool.until("deadlines go by the chain's time", agreed, "COMPLETED")
        vote(machine, begun.tasks[0])
        pool.until("deadlines go by the chain's time", begun, "COMPLETED")
    pool.step()
    (found,) = pool.store.workers.load_workers([machine.key.wallet])
    assert (found.failures, found.rest_until) == (0, 0.0)
    assert pool.locked() == [0] * 5


@pytest.mark.parametrize("hours", [5, -5])
def test_a_machine_whose_clock_is_off_by_hours_ends_what_it_has(
    pool: OutagePool, machine: SimulatedWorker, hours: int
) -> None:
    machine.clock = lambda: pool.now + 3600.0 * hours
    try:
        machine.deaf.clear()
        deals = [pool.buy(LONG), pool.buy(LONG, trust=2)]
        for deal in deals:
            pool.until("the pool goes by its own clock", deal, "COMPLETED")
    finally:
        machine.clock = lambda: pool.now
    assert pool.holds[-1] is None
    assert pool.locked() == [0] * 5
