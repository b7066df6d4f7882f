"""Bulk work stands back: behind urgent messages, and when the lane has no room."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.domain.due import DueTask
from pipeline.domain.records import TaskStage
from pipeline.flow import bulk, sweep
from pipeline.flow.bulk import MOST_URGENT
from pipeline.flow.transactions import BULK_CAPACITY
from pipeline.store.hold import Begins
from protocol.types import DealId, TaskId


class Pool:
    """A scheduler with so many urgent messages waiting and so many transactions open; `done` is what was done."""

    def __init__(
        self,
        *,
        urgent: int = 0,
        open_: int = 0,
        tasks: int = 0,
        expired: int = 0,
        paused: bool = False,
        holds: bool = False,
    ) -> None:
        self.done: list[str] = []
        self.notifier = SimpleNamespace(
            messages_waiting=lambda: urgent,
            send_bulk=lambda: self.done.append("again"),
            send_bulk_later=lambda: self.done.append("later"),
        )
        self.transactions = SimpleNamespace(open=lambda: open_)
        late = [
            DueTask(TaskId(f"late {n}"), DealId("bag"), TaskStage.INITIALIZED, 0.0, -9.0, -1.0) for n in range(expired)
        ]
        living = DueTask(TaskId("living"), DealId("small"), TaskStage.RUNNING, 0.0, 9.0, 9.0)
        rows = SimpleNamespace(
            uninitialized=lambda _, limit, __: [TaskId(str(n)) for n in range(min(tasks, limit))],
            tasks_due=lambda _, limit, __: [living, *late][:limit],
        )
        self.store = SimpleNamespace(tasks=rows)
        self.begins = lambda: Begins(paused, holds)

    def clock(self) -> float:
        return 0.0


def ran(pool: Pool, monkeypatch: pytest.MonkeyPatch, *, stored: bool = False) -> list[str]:
    def store(*_: object) -> bool:
        pool.done.append("stored")
        return stored

    monkeypatch.setattr(bulk, "store_next_piece", store)
    monkeypatch.setattr(bulk, "advance_each", lambda _, chunk: pool.done.append(f"fed {len(chunk)}"))
    monkeypatch.setattr(bulk, "visit", lambda _, tasks: pool.done.extend([f"visited {len(tasks)}"] if tasks else []))
    bulk.bulk(pool)  # type: ignore[arg-type]  # stands in
    return pool.done


def test_urgent_messages_go_first_and_bulk_work_comes_again_a_little_later(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ran(Pool(urgent=MOST_URGENT + 1, tasks=9), monkeypatch) == ["later"]


def test_a_piece_is_stored_and_initializes_are_fed_as_far_as_the_lane_has_room(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ran(Pool(tasks=10**6), monkeypatch, stored=True) == ["stored", "fed 50", "fed 50", "again"]
    assert ran(Pool(open_=BULK_CAPACITY - 10, tasks=10**6), monkeypatch) == ["stored", "fed 10", "again"]
    assert ran(Pool(open_=BULK_CAPACITY, tasks=10**6), monkeypatch) == ["stored"]


def test_it_ends_when_there_is_nothing_left(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ran(Pool(tasks=7), monkeypatch) == ["stored", "fed 7"]
    assert ran(Pool(), monkeypatch) == ["stored"]


def test_expired_tasks_get_the_room_that_initializes_leave_and_no_other_is_visited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert ran(Pool(expired=10**4), monkeypatch) == ["stored", "visited 99"]
    assert ran(Pool(tasks=30, expired=60), monkeypatch) == ["stored", "fed 30", "visited 60"]
    assert ran(Pool(tasks=80, expired=60), monkeypatch) == ["stored", "fed 50", "fed 30", "visited 20", "again"]
    assert ran(Pool(open_=BULK_CAPACITY - 10, expired=60), monkeypatch) == ["stored", "visited 10", "again"]
    assert ran(Pool(open_=BULK_CAPACITY, expired=60), monkeypatch) == ["stored"]


def test_expired_tasks_wait_for_every_urgent_message(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ran(Pool(urgent=1, tasks=30, expired=60), monkeypatch) == ["stored", "fed 30", "again"]
    assert ran(Pool(urgent=1, expired=60), monkeypatch) == ["stored"]


@pytest.mark.parametrize("stop", ["paused", "holds"])
def test_a_pool_that_is_paused_or_holds_initializes_nothing_more_and_does_not_ask_itself_again(
    monkeypatch: pytest.MonkeyPatch, stop: str
) -> None:
    stopped: dict[str, Any] = {stop: True}
    assert ran(Pool(tasks=10**6, **stopped), monkeypatch) == ["stored"]
    assert ran(Pool(tasks=10**6, expired=60, **stopped), monkeypatch) == ["stored", "visited 60"]


@pytest.mark.parametrize("task", [False, True], ids=["all tasks are initialized", "a task is not initialized"])
@pytest.mark.parametrize("deal", [False, True], ids=["no deal waits", "a deal waits"])
def test_the_sweep_asks_for_bulk_work_only_where_there_may_be_some(task: bool, deal: bool) -> None:
    sent: list[str] = []
    deals = SimpleNamespace(deals_to_ingest=lambda *_: [], any_waiting=lambda: deal)
    store = SimpleNamespace(deals=deals, tasks=SimpleNamespace(any_received=lambda: task))
    notifier = SimpleNamespace(send_ingest=lambda _: None, send_bulk=lambda: sent.append("bulk"))
    scheduler: Any = SimpleNamespace(store=store, notifier=notifier, clock=lambda: 1.0)
    sweep.take_up_deals(scheduler)
    assert sent == ["bulk"] * (task or deal)
