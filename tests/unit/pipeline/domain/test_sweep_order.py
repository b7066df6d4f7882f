"""In which order one sweep visits what is due, and when it stops."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from pipeline.domain.due import DueTask
from pipeline.domain.records import TaskStage
from pipeline.flow import sweep
from protocol.types import DealId, TaskId

NOW = 1000.0


def rows(deal: str, number: int, *, left: float) -> list[DueTask]:
    """Due tasks of a deal with so many seconds left, its oldest first."""
    return [
        DueTask(TaskId(f"{deal} {n}"), DealId(deal), TaskStage.INITIALIZED, NOW - 60, NOW + left, NOW + left)
        for n in range(number)
    ]


class Pool:
    """A scheduler with these tasks due; `visited` are the pieces that were visited."""

    def __init__(self, *due: DueTask, urgent: int = 0) -> None:
        self.visited: list[list[str]] = []
        self.due = list(due)
        #: How often bulk work was asked for.
        self.bulk = 0
        self.notifier = SimpleNamespace(messages_waiting=lambda: urgent, send_bulk=self.count_bulk)
        self.transactions = SimpleNamespace(open=lambda: 0)
        self.settings = SimpleNamespace(sweep_seconds=10**6)
        self.store = SimpleNamespace(tasks=SimpleNamespace(tasks_due=lambda _, __: list(self.due)))

    def clock(self) -> float:
        return NOW

    def count_bulk(self) -> None:
        self.bulk += 1


def deals_visited(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """The deals in each piece of one sweep."""
    monkeypatch.setattr(sweep, "visit", lambda _, tasks: pool.visited.append(list(tasks)))
    sweep.visit_due(pool)  # type: ignore[arg-type]  # stands in
    return [{task.partition(" ")[0] for task in piece} for piece in pool.visited]


def test_a_bag_whose_deadlines_passed_comes_after_what_can_still_be_done(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool(*rows("bag", 900, left=-50), *rows("small", sweep.PIECE, left=50))
    pieces = deals_visited(pool, monkeypatch)
    assert pieces[0] == {"small"}
    assert {"bag"} in pieces[1:]
    assert sum(map(len, pool.visited)) == len(pool.due), "each once"


def test_expired_tasks_take_no_time_from_urgent_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool(*rows("bag", 900, left=-50), *rows("small", sweep.PIECE, left=50), urgent=1)
    assert deals_visited(pool, monkeypatch) == [{"small"}]


@pytest.mark.parametrize(("left", "asked"), [(-50, 1), (50, 0)], ids=["expired", "not expired"])
def test_bulk_work_goes_on_with_expired_tasks(monkeypatch: pytest.MonkeyPatch, left: float, asked: int) -> None:
    pool = Pool(*rows("bag", 900, left=left), *rows("small", sweep.PIECE, left=50))
    deals_visited(pool, monkeypatch)
    assert pool.bulk == asked
