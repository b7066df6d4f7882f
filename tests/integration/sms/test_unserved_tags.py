"""Tasks for enclaves in a pool that has nobody to serve them: they cost no gas and take nothing from what is offered,
and begin when a machine comes. In the order of the file: the pool is one for all, and its machine with an enclave comes
last.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from ops.market.match import Matched
from pipeline.domain.orders.spare_capacity import SpareCapacity
from pipeline.domain.records import TaskStage
from pipeline.flow import reasons
from pipeline.flow.orders import keep
from protocol.poco.tags import SGX_BITS, Framework, make_tag
from protocol.poco.view import ChainView, TaskStatus
from protocol.types import Hash32, TaskId
from protocol.wire import Mode
from tests.integration.pipeline.trouble.outage_pool import LONG, MOST_STEPS, SHORT
from tests.integration.sms.test_enclave_pool import TDX, Place, place

__all__ = ["place"]

SCONE = make_tag(*SGX_BITS[Framework.SCONE])


@pytest.fixture(scope="module")
def short(place: Place) -> Iterator[Matched]:
    """A deal for an enclave that is over before a machine comes."""
    yield place.pool.buy(SHORT, tag=TDX)


def chain_view(place: Place, task: TaskId) -> ChainView:
    return place.pool.chain.hub.tasks([task])[0]


def lane_methods(place: Place, task: TaskId) -> set[str]:
    """Transactions that the scheduler's lane ever had for a task."""
    lane = place.pool.scheduler.transactions
    keys = {lane.key(task, method, 0): method for method in ("initialize", "claim")}
    return {keys[intent.key] for intent in lane.lane.intents([*keys])}


def capacity(place: Place) -> int:
    """Free slots beside what is sold, by the supply of the pool's offers."""
    pool = place.pool
    supply = keep._supply(
        pool.settings, pool.store, pool.scheduler.hub, pool.scheduler.workerpool, pool.now, clock_agrees=True
    )
    assert supply.settled
    # Of all machines, those too that come with an enclave.
    machines = [replace(machine, tag=TDX) for machine in supply.machines]
    return SpareCapacity.beside(machines, supply.waiting).free


def test_a_task_that_no_machine_can_serve_is_not_initialized_and_says_why(place: Place, short: Matched) -> None:
    place.await_completed(place.plain)
    free = sum(machine.usable for machine in place.pool.store.census.able(0.0, place.pool.now, 10))
    for task in place.tasks():
        assert chain_view(place, task.task_id).status is TaskStatus.UNSET
        assert lane_methods(place, task.task_id) == set()
        assert (task.stage, task.unserved, task.challenge_tries) == (TaskStage.RECEIVED, True, 0)
        assert place.says(task) == (
            "It is not initialized before somebody can serve its tag, as that costs gas. It wants 1 more worker (0 at "
            f"work, 0 voted). No machine offers what its tag demands: TEE TDX ({TDX})."
        )
    # As `sluice status` tells it, and not in the way of what is offered.
    (told,) = reasons.what_nobody_can_take(place.pool.store, place.pool.settings, place.pool.now)
    assert (told.tasks, told.why) == (3, f"No machine offers what its tag demands: TEE TDX ({TDX}).")
    assert capacity(place) == free
    # Nor is it fed to the lane by bulk work, again and again.
    assert place.pool.store.tasks.uninitialized(place.pool.now, 10) == []


def test_one_that_nobody_came_for_ends_with_its_stakes_free(place: Place, short: Matched) -> None:
    (task,) = short.tasks
    for _ in range(MOST_STEPS):
        if chain_view(place, task).status is TaskStatus.FAILED:
            break
        place.step()
    place.step()
    record = place.pool.store.tasks.get_task(task)
    assert record is not None
    assert (record.stage, record.why, record.unserved) == (
        TaskStage.FAILED,
        f"No machine was given it: none that was there offered what its tag demands ({TDX}).",
        False,
    )
    assert lane_methods(place, task) >= {"claim"}
    # The stake of the two tasks that still wait, and no other.
    alone = place.pool.chain.hub.accounts([place.pool.scheduler.key.wallet])[0].locked
    deals = place.pool.chain.hub.tasks(place.sealed.tasks)
    assert [view.status for view in deals] == [TaskStatus.UNSET] * 2
    assert alone > 0


@pytest.mark.parametrize("tag", [SCONE, TDX], ids=["another kind", "another trust"])
def test_a_deal_that_the_pool_does_not_serve_waits_for_no_machine(place: Place, tag: Hash32) -> None:
    """Where a secret service is named for every kind, it is the trust; here it is the machines."""
    deal = place.pool.buy(LONG, tag=tag, trust=1 if tag == SCONE else 3)
    place.step()
    place.step()
    (task,) = place.pool.store.tasks.load_tasks(deal.tasks)
    assert task.unserved
    said = (
        "offers what its tag demands: TEE SCONE" if tag == SCONE else "served at trust 1 only, and its deal demands 3"
    )
    assert said in place.says(task)


def test_a_machine_that_comes_has_them_initialized_and_gets_them(place: Place) -> None:
    place.secrets.start()
    jobs = place.await_assignments()
    assert {TaskId(job.task_id) for job in jobs} == {*place.sealed.tasks}
    assert [job.mode for job in jobs] == [Mode.SOLO, Mode.SOLO]
    for task in place.tasks():
        assert (task.unserved, lane_methods(place, task.task_id)) == (False, {"initialize"})
    # What it does not offer, or nobody serves, waits on, and still takes nothing.
    others = [task for task in place.pool.store.lists.waiting(place.pool.now, 10) if task.unserved]
    assert sorted((task.tag, task.trust) for task in others) == sorted([(SCONE, 1), (TDX, 3)])
    for task in others:
        assert chain_view(place, task.task_id).status is TaskStatus.UNSET
    assert capacity(place) >= 0
