"""A pool whose scheduler runs on two hosts over one database and one broker: either may die or stand still."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from chain.lane import audit
from config.celery_apps import core_app
from ops.host_name import require_free_name, taken_names
from ops.market.match import Matched
from pipeline.scheduler import Scheduler
from protocol.errors import SchedulerNotReady
from protocol.poco.view import TaskStatus
from tests.integration.pipeline.conftest import Pool
from tests.waiting import until

PROCESSES = ("watch", "pipeline", "lane", "beat")
#: Seconds: messages that a host had taken are delivered again when RabbitMQ has missed its heartbeats.
LONG = 120.0


@pytest.fixture
def two_hosts(make_pool: Callable[[], Pool]) -> Pool:
    pool = make_pool()
    for host in ("one", "two"):
        for name in PROCESSES:
            pool.start(name, host)
    for number in (0, 1, 2):
        pool.enrol(number, slots=2)
    return pool


def in_the_middle(pool: Pool) -> list[Matched]:
    """Deals of which a task has begun and not all are over."""
    deals = [pool.buy(trust=1, volume=4), pool.buy(trust=3, volume=2)]
    until("a task to begin", lambda: any(view.status is not TaskStatus.UNSET for view in pool.views(deals[0])))
    return deals


def nothing_is_sent_twice(pool: Pool) -> bool:
    scheduler = Scheduler.open(pool.settings)
    try:
        return not audit.audit(scheduler.lane)
    finally:
        scheduler.close()


def test_tasks_of_a_host_that_is_killed_are_finished_by_the_other(two_hosts: Pool) -> None:
    deals = in_the_middle(two_hosts)
    for name in PROCESSES:
        two_hosts.kill(name, "one")
    for deal in deals:
        two_hosts.await_status(deal, TaskStatus.COMPLETED, LONG)
        two_hosts.await_closed(deal, LONG)
    assert not any(two_hosts.locked())
    until("the lane to be as the chain says", lambda: nothing_is_sent_twice(two_hosts))


def test_a_host_that_stood_still_while_the_other_worked_sends_nothing_again(two_hosts: Pool) -> None:
    deals = in_the_middle(two_hosts)
    with two_hosts.frozen(PROCESSES, "one"):
        for deal in deals:
            two_hosts.await_status(deal, TaskStatus.COMPLETED, LONG)
    later = two_hosts.buy(trust=1, volume=4)
    two_hosts.await_status(later, TaskStatus.COMPLETED, LONG)
    for deal in (*deals, later):
        two_hosts.await_closed(deal, LONG)
    assert not any(two_hosts.locked())
    until("the lane to be as the chain says", lambda: nothing_is_sent_twice(two_hosts))


def test_a_second_scheduler_by_the_same_name_is_refused_in_one_sentence(make_pool: Callable[[], Pool]) -> None:
    pool = make_pool()
    pool.start("lane", "one")
    app = core_app(pool.settings)
    until("the lane to be connected", lambda: taken_names(app, ["lane@one"]))
    same = pool.settings.model_copy(update={"host_name": "one"})
    with pytest.raises(SchedulerNotReady, match=r"lane@one is connected.*SLUICE_HOST_NAME"):
        require_free_name(same, PROCESSES, wait=0.0)
    require_free_name(same, ["pipeline"], wait=0.0)
    pool.kill("lane", "one")
    require_free_name(same, PROCESSES, wait=LONG)
