"""A pool whose MongoDB is sharded does a bag of tasks, from the deals to the last transaction."""

from __future__ import annotations

from protocol.poco.view import TaskStatus
from tests.integration.pipeline.conftest import Pool
from tests.integration.pipeline.sharded.shards import at_each_server

#: A bag of trust 1, beside a task of trust 3.
BAG, SECONDS = 12, 180.0


def test_a_bag_of_tasks_is_completed_with_its_rows_on_both_shards(pool: Pool) -> None:
    for number in range(3):
        pool.enrol(number, slots=4)
    deals = [pool.buy(trust=1, volume=BAG), pool.buy(trust=3)]
    for deal in deals:
        pool.await_status(deal, TaskStatus.COMPLETED, SECONDS)
        pool.await_closed(deal, SECONDS)
    assert set(pool.locked()) == {0}
    with at_each_server(pool.store._db) as shards:
        tasks = [db["tasks"].estimated_document_count() for db in shards.values()]
        logs = [db["logs"].estimated_document_count() for db in shards.values()]
    assert len(tasks) > 1, "the database is not sharded: see `make test-sharded`"
    assert sum(tasks) == BAG + 1
    assert min(*tasks, *logs) > 0
