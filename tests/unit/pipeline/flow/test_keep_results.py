"""Which results are pinned, unpinned and forgotten, at a node and a database that may not answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.domain.records import TaskStage
from pipeline.flow.cleanup.keep_results import AGAIN_SECONDS, DAY, FAILURES, keep_results
from pipeline.store.pins import Pin
from protocol.errors import StorageUnavailable
from protocol.types import TaskId

DAYS, NOW = 90.0, 1_800_000_000.0


@dataclass
class Results:
    """Results to look at, what the database says of their tasks, and an IPFS node; notes what is done."""

    due_pins: list[Pin]
    #: Task ids that are absent here cannot be read.
    stages: dict[TaskId, TaskStage] = field(default_factory=dict)
    #: `results` on chain of all of them.
    on_chain: str | None = None
    away: bool = False
    pinned: list[str] = field(default_factory=list)
    again: list[tuple[str, float]] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    kept: list[Pin] = field(default_factory=list)

    def keep(self, pins: Sequence[Pin], seconds: float) -> None:
        """As the database."""
        self.kept += pins
        self.again.extend((pin.cid, pin.stored_at + seconds) for pin in pins)

    def look(self) -> None:
        """One run."""
        pins = SimpleNamespace(
            due=lambda _, limit: self.due_pins[:limit],
            look_again=lambda pin, at, *, pinned: self.again.append((pin.cid, at)),
            keep=self.keep,
            forget=lambda pin: self.forgotten.append(pin.cid),
            kept_for_others=lambda pin: any(pin.cid == kept.cid and kept.task_id != pin.task_id for kept in self.kept),
        )
        rows = [
            SimpleNamespace(task_id=task, stage=stage, results=self.on_chain) for task, stage in self.stages.items()
        ]
        store: Any = SimpleNamespace(pins=pins, tasks=SimpleNamespace(load_tasks=lambda _: rows))
        keep_results(store, self, DAYS, NOW)

    def pin(self, cid: str) -> None:
        """As the node."""
        if self.away:
            raise StorageUnavailable(what="IPFS", why="timeout")
        self.pinned.append(cid)

    def unpin(self, cid: str) -> None:
        """As the node."""
        self.pinned.remove(cid)


def alone(number: int, *, age: float = 60.0) -> Pin:
    """The result of a trust-1 task, stored so many seconds ago."""
    return Pin(f"Qm{number}", TaskId(f"0x{number:064x}"), pinned=False, stored_at=NOW - age)


@pytest.mark.parametrize("order", [1, -1])
def test_content_that_is_kept_for_one_task_is_not_unpinned_for_another_in_the_same_look(order: int) -> None:
    new, old = alone(1), replace(alone(2, age=(DAYS + 1) * DAY), cid="Qm1", pinned=True)
    results = Results([new, old][::order], {new.task_id: TaskStage.COMPLETED, old.task_id: TaskStage.COMPLETED})
    results.pinned = ["Qm1"]
    results.look()
    assert "Qm1" in results.pinned
    assert results.forgotten == ["Qm1"]


def test_a_result_whose_task_cannot_be_read_is_looked_at_again_and_not_forgotten() -> None:
    results = Results([alone(1)])
    results.look()
    assert (results.forgotten, results.pinned) == ([], [])
    assert results.again == [("Qm1", NOW + AGAIN_SECONDS)]


def test_a_result_whose_task_was_never_readable_is_forgotten_when_its_time_is_over() -> None:
    results = Results([alone(1, age=DAYS * DAY + 1)])
    results.look()
    assert results.forgotten == ["Qm1"]


@pytest.mark.parametrize(
    ("stage", "pinned", "forgotten"),
    [(TaskStage.COMPLETED, ["Qm1"], []), (TaskStage.FAILED, [], ["Qm1"]), (TaskStage.FINALIZING, [], [])],
)
def test_the_tasks_end_decides(stage: TaskStage, pinned: list[str], forgotten: list[str]) -> None:
    pin = alone(1)
    results = Results([pin], {pin.task_id: stage})
    results.look()
    assert (results.pinned, results.forgotten) == (pinned, forgotten)


@pytest.mark.parametrize(
    ("stage", "on_chain", "kept"),
    [
        (TaskStage.COMPLETED, '{"storage":"ipfs","location":"/ipfs/Qm1"}', True),
        (TaskStage.COMPLETED, '{"storage":"ipfs","location":"/ipfs/Qm2"}', False),
        (TaskStage.COMPLETED, "no link", True),
        (TaskStage.COMPLETED, None, True),
        (TaskStage.FAILED, None, False),
        (TaskStage.RESULT_UPLOADED, None, True),
    ],
)
def test_a_voted_result_is_kept_only_if_its_task_is_completed_with_it(
    stage: TaskStage, on_chain: str | None, *, kept: bool
) -> None:
    pin = replace(alone(1), pinned=True)
    results = Results([pin], {pin.task_id: stage}, on_chain, pinned=["Qm1"])
    results.look()
    assert (results.pinned, results.forgotten) == ((["Qm1"], []) if kept else ([], ["Qm1"]))
    soon = stage is TaskStage.RESULT_UPLOADED
    assert results.again == ([("Qm1", NOW + AGAIN_SECONDS if soon else pin.stored_at + DAYS * DAY)] if kept else [])


def test_a_node_that_does_not_answer_is_not_asked_for_every_result_of_a_run() -> None:
    pins = [alone(number) for number in range(100)]
    results = Results(pins, {pin.task_id: TaskStage.COMPLETED for pin in pins}, away=True)
    results.look()
    assert results.again == [(pin.cid, NOW + AGAIN_SECONDS) for pin in pins[:FAILURES]]
    assert results.forgotten == []
