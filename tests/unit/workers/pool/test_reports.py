"""Which reports of a machine reach the pool."""

from __future__ import annotations

import queue

import pytest

from protocol.types import TaskId
from protocol.wire import Report, Step
from tests.waiting import ample
from workers.pool.reports import Reports

TASK, OTHER = TaskId("0x" + "11" * 32), TaskId("0x" + "22" * 32)


class Api:
    """Takes every report."""

    def __init__(self) -> None:
        self.taken: queue.Queue[tuple[TaskId, Step]] = queue.Queue()

    def report(self, task_id: TaskId, report: Report) -> None:
        self.taken.put((task_id, report.step))

    def all(self) -> list[tuple[TaskId, Step]]:
        return [self.taken.get_nowait() for _ in range(self.taken.qsize())]


@pytest.fixture(autouse=True)
def _however_slow_this_machine_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.pool.reports.FLUSH_SECONDS", 60.0)


@pytest.mark.parametrize("end", [Step.COMPUTED, Step.FAILED])
def test_the_start_of_a_task_that_is_over_soon_is_told_by_its_end_alone(
    end: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.pool.reports.START_SECONDS", 3600.0)
    api = Api()
    reports = Reports(api)
    reports.send(TASK, Report(step=Step.STARTED))
    reports.send(OTHER, Report(step=Step.UPLOADED))
    reports.send(TASK, Report(step=end))
    reports.close()
    assert api.all() == [(OTHER, Step.UPLOADED), (TASK, end)]


def test_the_start_of_a_task_that_takes_longer_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.pool.reports.START_SECONDS", 0.05)
    api = Api()
    reports = Reports(api)
    reports.send(TASK, Report(step=Step.STARTED))
    assert api.taken.get(timeout=ample(5.0)) == (TASK, Step.STARTED)
    reports.send(TASK, Report(step=Step.COMPUTED))
    reports.close()
    assert api.all() == [(TASK, Step.COMPUTED)]


def test_a_process_that_ends_reports_the_starts_that_it_kept_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.pool.reports.START_SECONDS", 3600.0)
    api = Api()
    reports = Reports(api)
    for task in (TASK, OTHER):
        reports.send(task, Report(step=Step.STARTED))
    reports.close()
    assert api.all() == [(TASK, Step.STARTED), (OTHER, Step.STARTED)]
