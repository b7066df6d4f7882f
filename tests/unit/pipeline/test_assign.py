"""Taking slots for matches, and publishing no more than what is stored."""

from __future__ import annotations

from pipeline.domain.match import match
from pipeline.domain.records import Reservation
from protocol.types import TaskId
from tests.unit.pipeline.builders import START, task, worker


def test_a_machine_that_holds_a_slot_for_a_task_is_not_chosen_for_it_again() -> None:
    claimed, fresh = (task(trust=1, wants=1, task_id=TaskId(f"0x{number:064x}")) for number in (1, 2))
    machine = worker(1, slots=3, held=(Reservation(claimed.task_id, START, claimed.worker_stake),))
    assert [found.task for found in match([claimed, fresh], [machine])] == [fresh]
