"""A pool that its operator pauses, drains and resumes."""

from __future__ import annotations

import time

from pipeline.domain.records import TaskStage
from pipeline.flow.reasons import reasons
from protocol.poco.view import TaskStatus
from tests.integration.pipeline.conftest import Pool
from tests.waiting import until


def test_a_paused_pool_begins_nothing_finishes_what_it_began_and_goes_on_when_resumed(pool: Pool) -> None:
    first = pool.enrol(0)
    begun = pool.buy(trust=3)
    until("one machine has it", lambda: any(task.replicates for task in pool.store.tasks.of_deal(begun.deal_id)))
    pool.store.pause.pause(time.time(), "new disk")
    later = pool.buy(trust=1, volume=3)
    until("the deal is stored", lambda: len(pool.store.tasks.of_deal(later.deal_id)) == 3)
    for number in (1, 2):
        pool.enrol(number)
    pool.await_status(begun, TaskStatus.COMPLETED)
    assert first.asked("worker.compute")
    waiting = pool.store.tasks.of_deal(later.deal_id)
    assert [task.stage for task in waiting] == [TaskStage.RECEIVED] * 3
    assert not any(task.replicates for task in waiting)
    assert not any(task.not_before for task in waiting), "nothing is deferred for a pause"
    assert {view.status for view in pool.views(later)} == {TaskStatus.UNSET}
    said = reasons(pool.store, pool.settings, waiting, time.time())
    assert all(why is not None and why.startswith("The pool is paused") for why in said.values())
    assert pool.store.pause.resume() is not None
    pool.await_status(later, TaskStatus.COMPLETED)
    assert pool.locked() == [0, 0, 0, 0, 0]
