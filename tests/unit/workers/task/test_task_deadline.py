"""When a machine stops working on a task that has no result yet."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from config.connections.http_dates import LONGEST_RETRY_AFTER, read_retry_after
from protocol.assignment import most_seconds
from protocol.errors import TaskDeclined
from protocol.results.error_result import MACHINE_FAILED, UNCLEAR_END
from tests.unit.workers.assignments import task_id
from workers.task.deadline import ABORT_CHECK_SECONDS, FETCH_MARGIN, LONGEST_PAUSE, WORK_MARGIN, TaskDeadline, backoff


class Clock:
    """Seconds, set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_the_contribution_deadline_ends_it() -> None:
    clock = Clock()
    deadline = TaskDeadline(task_id(1), 1010.0, clock, lambda: False)
    deadline.check()
    assert deadline.seconds_left() == 10.0
    clock.now = 1010.0
    with pytest.raises(TaskDeclined, match="CONTRIBUTION_TIMEOUT"):
        deadline.check()


def test_an_abort_ends_it_though_the_journal_is_read_once_a_second_only() -> None:
    clock, looks = Clock(), []

    def aborted() -> bool:
        looks.append(clock.now)
        return True

    deadline = TaskDeadline(task_id(1), 9999.0, clock, aborted)
    for _ in range(1000):
        deadline.check()
    assert looks == []
    clock.now += ABORT_CHECK_SECONDS
    with pytest.raises(TaskDeclined, match="ABORTED"):
        deadline.check()
    assert len(looks) == 1


def deadline_of(clock: Clock, until: float, work: float = 0.0) -> TaskDeadline:
    def sleep(seconds: float) -> None:
        clock.now += seconds

    return TaskDeadline(task_id(1), until, clock, lambda: False, work=work, sleep=sleep)


def test_a_download_is_tried_again_as_long_as_the_app_has_its_time() -> None:
    clock = Clock()
    deadline = deadline_of(clock, 2000.0, work=300.0)
    tries = 0
    with pytest.raises(TaskDeclined, match="HTTP 503") as caught:
        while True:
            tries += 1
            deadline.wait_before_retry(backoff(tries), "HTTP 503")
    assert tries > 10
    assert clock.now <= 2000.0 - 300.0 - WORK_MARGIN
    assert clock.now >= 2000.0 - 300.0 - WORK_MARGIN - LONGEST_PAUSE
    assert caught.value.cause == MACHINE_FAILED


def test_what_the_deal_brings_along_is_waited_for_no_longer_than_the_pool_waits_and_is_nobodys_fault() -> None:
    """A server that answers 503 or drips for ever had each machine counted as one that was not heard of in time."""
    category = 300

    def made(clock: Clock) -> TaskDeadline:
        return TaskDeadline(task_id(1), 10_000.0, clock, lambda: False, category=category, sleep=clock.sleep)

    clock = Clock()
    deadline = made(clock)
    deadline.check_fetch()
    with pytest.raises(TaskDeclined, match="HTTP 503") as caught:
        while True:
            deadline.wait_before_fetch(LONGEST_PAUSE, "HTTP 503")
    assert caught.value.cause == UNCLEAR_END
    assert 1000 + most_seconds(category) - FETCH_MARGIN - LONGEST_PAUSE <= clock.now < 1000 + most_seconds(category)
    clock.now = 1000 + most_seconds(category) - FETCH_MARGIN
    deadline.check()
    with pytest.raises(TaskDeclined) as dripped:
        deadline.check_fetch()
    assert dripped.value.cause == UNCLEAR_END


def test_where_the_contribution_deadline_is_nearer_that_ends_a_fetch_and_it_is_nobodys_fault_either() -> None:
    clock = Clock()
    deadline = TaskDeadline(task_id(1), 1100.0, clock, lambda: False, work=20.0, category=300, sleep=clock.sleep)
    with pytest.raises(TaskDeclined) as caught:
        deadline.wait_before_fetch(60.0, "HTTP 429")
    assert caught.value.cause == UNCLEAR_END


def test_a_wait_that_a_server_asks_for_and_the_task_cannot_give_ends_it_at_once() -> None:
    clock = Clock()
    with pytest.raises(TaskDeclined):
        deadline_of(clock, 2000.0).wait_before_retry(5000.0, "HTTP 429")
    assert clock.now == 1000.0


def test_pauses_grow_up_to_a_limit() -> None:
    assert all(0 < backoff(n) <= LONGEST_PAUSE for n in range(1, 200))
    assert backoff(100) >= LONGEST_PAUSE / 2


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("5", 5.0),
        (" 120 ", 120.0),
        ("Wed, 01 Jan 2025 00:01:00 GMT", 60.0),
        ("soon", 0.0),
        ("-3", 0.0),
        (None, 0.0),
        # What no machine word and no calendar holds, and what no owner of a machine can be told as a moment.
        ("Mon, 1 Jan 99999999999999 00:00:00 +0000", 0.0),
        ("Mon, 1 Jan 2027 00:00:00 +99999999999999999999", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 -2359", LONGEST_RETRY_AFTER),
        ("999999999", LONGEST_RETRY_AFTER),
    ],
)
def test_retry_after_is_read_as_a_number_or_a_date(header: str | None, seconds: float) -> None:
    assert read_retry_after(header, datetime(2025, 1, 1, tzinfo=UTC)) == seconds


def test_a_pause_is_as_long_as_it_was_meant_and_an_abort_is_seen_though_the_clock_is_set_back() -> None:
    clock = Clock()
    slept: list[float] = []
    aborted: list[bool] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        # A minute back with every second.
        clock.now -= 60.0

    deadline = TaskDeadline(task_id(1), 2000.0, clock, lambda: bool(aborted), sleep=sleep)
    deadline.wait_before_retry(2.5, "HTTP 503")
    assert sum(slept) == 2.5
    aborted.append(True)
    with pytest.raises(TaskDeclined, match="ABORTED"):
        deadline.wait_before_retry(30.0, "HTTP 503")
