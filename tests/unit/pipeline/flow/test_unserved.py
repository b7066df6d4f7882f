"""Tasks for enclaves are initialized only where somebody can serve them, and taken up when a machine comes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pipeline.domain.actions import Action, Method, Postpone, Submit, Want
from pipeline.domain.records import TaskRecord
from pipeline.flow import unserved
from pipeline.flow.unserved import Served
from protocol.poco.tags import GPU_BIT, Framework, fits, make_tag
from protocol.types import Hash32
from tests.unit.pipeline.builders import NO_TAG, PACE, START, task, worker

TDX, SCONE, KINDLESS = make_tag(0x9), make_tag(0x3), make_tag(0x1)
DUE: list[Action] = [Submit(Method.INITIALIZE, 0, {}), Want(1)]


class Pool:
    """A scheduler with machines that offer `tags`, and a secret service for TDX; tasks wait with `waiting` tags."""

    def __init__(self, *tags: Hash32, waiting: tuple[Hash32, ...] = ()) -> None:
        self.tags, self.waiting, self.asked, self.taken = tags, waiting, list[Hash32](), list[Hash32]()
        self.timeouts = replace(PACE, enclaves=frozenset({Framework.TDX}))
        self.store = self.census = self.unserved = self.settings = self
        self.worker_lost_seconds = 60.0

    def clock(self) -> float:
        return START

    def offers(self, tag: Hash32, seen_after: float) -> bool:
        assert seen_after == START - 60.0
        self.asked.append(tag)
        return any(fits(tag, offered) for offered in self.tags)

    def take_up(self, tag: Hash32, now: float) -> int:
        assert now == START
        self.taken.append(tag)
        return 1


def served(pool: Pool) -> Served:
    scheduler: Any = pool
    return Served(scheduler)


def sealed(tag: Hash32 = TDX, *, trust: int = 1, **fields: Any) -> TaskRecord:
    return replace(task(trust=trust, tag=tag), **fields)


@pytest.mark.parametrize(
    ("record", "offered"),
    [
        (sealed(), ()),
        (sealed(), (NO_TAG, SCONE)),
        # The pool names no secret service for that kind; no enclave serves it at all.
        (sealed(SCONE), (SCONE,)),
        (sealed(trust=3), (TDX,)),
        (sealed(KINDLESS), (TDX,)),
        (sealed(make_tag(0x9, GPU_BIT)), (TDX,)),
    ],
    ids=["no machine", "others", "no service", "trust", "no kind", "no GPU"],
)
def test_a_task_that_nobody_can_serve_is_not_initialized(record: TaskRecord, offered: tuple[Hash32, ...]) -> None:
    pool = Pool(*offered)
    assert served(pool).without_unserved(record, DUE) == [Want(1), Postpone()]
    # It is noted once.
    assert served(pool).without_unserved(replace(record, unserved=True), DUE) == [Want(1)]


def test_all_others_are() -> None:
    pool = Pool(TDX)
    assert served(pool).without_unserved(sealed(), DUE) == DUE
    assert served(Pool()).without_unserved(sealed(NO_TAG), DUE) == DUE
    assert served(Pool()).without_unserved(sealed(), [Want(1)]) == [Want(1)]


def test_each_tag_is_looked_up_once_for_many_tasks() -> None:
    pool = Pool(TDX)
    found = served(pool)
    for _ in range(100):
        found.without_unserved(sealed(), DUE)
    assert pool.asked == [TDX]


def test_a_machine_that_comes_has_the_tasks_taken_up_that_it_can_serve_and_no_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool = Pool(TDX, waiting=(SCONE, TDX, KINDLESS, make_tag(0x9, GPU_BIT)))
    monkeypatch.setattr(unserved, "_tags", lambda _: pool.waiting)
    scheduler: Any = pool
    unserved.take_up(scheduler)
    assert pool.taken == [TDX]
    store: Any = pool
    assert unserved.can_be_taken_up(store, [Framework.TDX], [worker(1, tag=TDX)])
    assert not unserved.can_be_taken_up(store, [Framework.TDX], [worker(1), worker(2, tag=SCONE)])
    assert not unserved.can_be_taken_up(store, [Framework.SCONE], [worker(1, tag=TDX)])
