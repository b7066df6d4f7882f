"""Deals from match to finalize, by the scheduler's real processes and machines driven by hand."""

from __future__ import annotations

from pipeline.domain.records import TaskStage
from protocol.poco.view import TaskStatus
from tests.integration.pipeline.conftest import LIE, Pool
from tests.waiting import until


def test_a_trust_1_deal_is_completed_by_one_worker(pool: Pool) -> None:
    pool.enrol(0)
    deal = pool.buy(trust=1)
    pool.await_status(deal, TaskStatus.COMPLETED)
    (record,) = pool.await_closed(deal)
    assert record.stage is TaskStage.COMPLETED
    assert len(record.replicates) == 1
    assert pool.locked() == [0, 0, 0, 0, 0]


def test_a_trust_5_deal_needs_three_workers_that_agree(pool: Pool) -> None:
    for number in range(3):
        pool.enrol(number)
    deal = pool.buy(trust=5)
    pool.await_status(deal, TaskStatus.COMPLETED)
    (record,) = pool.await_closed(deal)
    assert len(record.replicates) == 3
    assert record.consensus_block is not None
    assert record.finalized_block is not None
    assert pool.locked() == [0, 0, 0, 0, 0]


def test_a_liar_is_outvoted_by_a_fourth_worker(pool: Pool) -> None:
    pool.enrol(0, LIE)
    pool.enrol(1)
    deal = pool.buy(trust=3)
    until("both have voted", lambda: len(pool.views(deal)[0].contributions) == 2)
    for number in (2, 3):
        pool.enrol(number)
    pool.await_status(deal, TaskStatus.COMPLETED)
    (record,) = pool.await_closed(deal)
    assert record.stage is TaskStage.COMPLETED
    assert pool.locked() == [0, 0, 0, 0, 0]


def test_a_bag_of_tasks_is_shared_among_workers(pool: Pool) -> None:
    machines = [pool.enrol(number, slots=2) for number in range(3)]
    deal = pool.buy(trust=1, volume=12)
    pool.await_status(deal, TaskStatus.COMPLETED)
    records = pool.await_closed(deal)
    assert [record.index for record in records] == list(range(12))
    assert all(machine.asked("worker.compute") for machine in machines)
    until("all slots are free again", lambda: all(worker.free == 2 for worker in pool.store.census.all_workers()))
