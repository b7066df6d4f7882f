"""Taking slots for matches."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

from pipeline.assign import _reserve
from pipeline.match import match
from pipeline.records import Held
from protocol.types import TaskId, Wallet
from tests.unit.pipeline.builders import START, task, wallet, worker


class Workers:
    """Stands for the collection: refuses a task that is held already, as the real one does."""

    def __init__(self, *held: tuple[Wallet, TaskId]) -> None:
        self.held = set(held)

    def reserve(self, who: Wallet, entries: Sequence[Held]) -> bool:
        wanted = {(who, entry.task_id) for entry in entries}
        if wanted & self.held:
            return False
        self.held |= wanted
        return True


def test_a_slot_that_a_dead_process_took_for_a_task_is_used_for_it() -> None:
    claimed, fresh = (task(trust=1, wants=1, task_id=TaskId(f"0x{number:064x}")) for number in (1, 2))
    machine = worker(1, slots=3, held=(Held(claimed.task_id, START, claimed.worker_stake),))
    workers = Workers((machine.wallet, claimed.task_id))
    scheduler = SimpleNamespace(store=SimpleNamespace(workers=workers))
    granted = _reserve(scheduler, match([claimed, fresh], [machine]), START + 1)  # type: ignore[arg-type]  # stands in
    assert [found.task.task_id for found in granted] == [claimed.task_id, fresh.task_id]
    assert workers.held == {(wallet(1), claimed.task_id), (wallet(1), fresh.task_id)}
