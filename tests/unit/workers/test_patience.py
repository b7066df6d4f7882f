"""When a machine stops working on a task that has no result yet."""

from __future__ import annotations

import pytest

from protocol.errors import TaskDeclined
from tests.unit.workers.assignments import task_id
from workers.patience import ABORT_LOOK_SECONDS, Patience


class Clock:
    """Seconds, set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_the_contribution_deadline_ends_it() -> None:
    clock = Clock()
    patience = Patience(task_id(1), 1010.0, clock, lambda: False)
    patience.check()
    assert patience.left() == 10.0
    clock.now = 1010.0
    with pytest.raises(TaskDeclined, match="CONTRIBUTION_TIMEOUT"):
        patience.check()


def test_an_abort_ends_it_though_the_journal_is_read_once_a_second_only() -> None:
    clock, looks = Clock(), []

    def aborted() -> bool:
        looks.append(clock.now)
        return True

    patience = Patience(task_id(1), 9999.0, clock, aborted)
    for _ in range(1000):
        patience.check()
    assert looks == []
    clock.now += ABORT_LOOK_SECONDS
    with pytest.raises(TaskDeclined, match="ABORTED"):
        patience.check()
    assert len(looks) == 1
